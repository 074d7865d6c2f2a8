//! The figures against scikit-learn's, and what is refused.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

#[derive(Deserialize)]
struct Golden {
    names: Vec<String>,
    labels: Vec<u32>,
    probabilities: Vec<Vec<f64>>,
    report: Value,
}

impl Golden {
    /// Written by `tests/golden/evaluate.py`.
    fn read() -> Self {
        serde_json::from_str(include_str!("../../tests/golden/evaluate.json")).unwrap()
    }

    fn report(&self) -> Report {
        report(&self.probabilities.concat(), &self.labels, &self.names).unwrap()
    }
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|class| format!("class {class}")).collect()
}

/// Same keys, same lengths, numbers equal to 1e-9.
fn assert_close(found: &Value, expected: &Value, place: &str) {
    match (found, expected) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() <= 1e-9, "{place}: {a}, not {b}");
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{place}");
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                assert_close(a, b, &format!("{place}[{index}]"));
            }
        }
        (Value::Object(a), Value::Object(b)) => {
            assert!(a.keys().eq(b.keys()), "{place}: {a:?}, not {b:?}");
            for (key, a) in a {
                assert_close(a, &b[key], &format!("{place}.{key}"));
            }
        }
        _ => assert_eq!(found, expected, "{place}"),
    }
}

#[test]
fn every_figure_is_scikit_learns() {
    let golden = Golden::read();
    let found = serde_json::to_value(golden.report()).unwrap();
    assert_close(&found, &golden.report, "report");
}

#[test]
fn a_report_is_read_back() {
    let report = Golden::read().report();
    let text = serde_json::to_string(&report).unwrap();
    let read: Report = serde_json::from_str(&text).unwrap();
    assert_close(
        &serde_json::to_value(&read).unwrap(),
        &serde_json::to_value(&report).unwrap(),
        "report",
    );
}

#[test]
fn what_is_no_prediction_is_refused() {
    let check = |probabilities: &[f64], labels: &[u32], classes: usize, expected: &str| {
        let error = report(probabilities, labels, &names(classes))
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(&[], &[], 2, "there are no images");
    check(&[0.5, 0.5], &[0, 1], 2, "2 probabilities are not 2 rows of 2");
    check(&[1.0], &[0], 1, "at least two are needed");
    check(&[0.5, 0.5, 0.5, 0.5], &[0, 2], 2, "row 1 has the label 2");
    check(&[0.5, f64::NAN], &[0], 2, "row 0: NaN is not finite");
    check(&[f64::INFINITY, 0.5], &[0], 2, "row 0: inf is not finite");
    check(&[1.5, -0.5], &[0], 2, "row 0: 1.5 is not a probability");
    check(&[1.0, -1e-9], &[0], 2, "row 0: -0.000000001 is not a probability");
    check(
        &[0.5, 0.625],
        &[0],
        2,
        "row 0: its probabilities sum to 1.125, not 1",
    );
    check(&[0.5, 0.500_002], &[0], 2, "sum to 1.00000");
    assert!(report(&[0.5, 0.500_000_5], &[0], &names(2)).is_ok());
}

#[test]
fn many_classes_have_no_matrix() {
    let check = |classes: usize, expected: bool| {
        let mut row = vec![0.0; classes];
        row[classes - 1] = 1.0;
        let report = report(&row, &[0], &names(classes)).unwrap();
        assert_eq!(report.confusion_matrix.is_some(), expected);
        let pair = Confusion {
            actual: 0,
            predicted: classes - 1,
            count: 1,
        };
        assert_eq!(report.most_confused, [pair]);
        assert!(report.text().contains(&format!("class {}", classes - 1)));
        assert!(report.html("many").ends_with("</html>\n"));
    };
    check(MAX_MATRIX_CLASSES, true);
    check(MAX_MATRIX_CLASSES + 1, false);
}

#[test]
fn the_text_is_a_table_of_classes_then_figures() {
    let report = report(
        &[0.9, 0.1, 0.2, 0.8, 0.6, 0.4],
        &[0, 1, 1],
        &["cat".to_owned(), "dog".to_owned()],
    );
    let expected = "
              precision     recall   f1-score    support  recall, 95 %
         cat     0.5000     1.0000     0.6667          1  0.2065–1.0000
         dog     1.0000     0.5000     0.6667          2  0.0945–0.9055

   macro avg     0.7500     0.7500     0.6667          3
weighted avg     0.8333     0.6667     0.6667          3

accuracy  0.6667  of 3 images, 95 % 0.2077–0.9385
nll       0.4149  nats per image
brier     0.2733  sum over classes, 0 to 2
ece       0.3000  top-1, 15 equal bins

most confused, true → predicted
dog → cat       1

confusion matrix, rows true, columns predicted
         0   1
cat  0   1   ·
dog  1   1   1
";
    assert_eq!(format!("\n{}", report.unwrap().text()), expected);
}

#[test]
fn the_page_stands_alone_and_escapes_what_it_is_given() {
    let names = ["<b>&\"'".to_owned(), "plain".to_owned()];
    let page = report(&[0.3, 0.7, 0.2, 0.8], &[0, 1], &names)
        .unwrap()
        .html("<script>alert(1)</script>");
    assert!(page.starts_with("<!doctype html>\n") && page.ends_with("</html>\n"));
    for absent in ["<script", "<b>", "http:", "https:", "<link", "src="] {
        assert!(!page.contains(absent), "{absent}");
    }
    assert!(page.contains("&lt;b&gt;&amp;&quot;&#39;"));
    assert!(page.contains("<title>&lt;script&gt;alert(1)&lt;/script&gt;</title>"));
    for tag in ["svg", "table", "section", "figure"] {
        let (open, close) = (
            page.matches(&format!("<{tag}")).count(),
            page.matches(&format!("</{tag}>")).count(),
        );
        assert!(open > 0 && open == close, "{tag}: {open} opened, {close} closed");
    }
    assert!(!page.contains("NaN") && !page.contains("inf\""));
}

/// Rows of `classes` probabilities with their labels.
fn predictions(classes: usize) -> impl Strategy<Value = (Vec<f64>, Vec<u32>)> {
    let row = (prop::collection::vec(0.0f64..1.0, classes), 0..classes as u32);
    prop::collection::vec(row, 1..40).prop_map(move |rows| {
        let (values, labels): (Vec<Vec<f64>>, Vec<u32>) = rows.into_iter().unzip();
        // 0.01 keeps a row of zeros from having no sum.
        let normalise = |row: Vec<f64>| {
            let sum: f64 = row.iter().map(|v| v + 0.01).sum();
            row.into_iter().map(move |v| (v + 0.01) / sum).collect::<Vec<_>>()
        };
        (values.into_iter().flat_map(normalise).collect(), labels)
    })
}

proptest! {
    #[test]
    fn figures_agree_with_one_another((probabilities, labels) in predictions(4)) {
        let report = report(&probabilities, &labels, &names(4)).unwrap();
        let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
        let matrix = report.confusion_matrix.unwrap();
        let hits: usize = (0..4).map(|class| matrix[class][class]).sum();
        prop_assert_eq!(matrix.concat().iter().sum::<usize>(), report.n);
        prop_assert!(close(report.accuracy, hits as f64 / report.n as f64));
        // Each image counts once, so recall weighted by support is the accuracy.
        prop_assert!(close(report.weighted.recall, report.accuracy));
        prop_assert_eq!(report.reliability.iter().map(|bin| bin.n).sum::<usize>(), report.n);
        prop_assert_eq!(report.reliability.iter().map(|bin| bin.hits).sum::<usize>(), hits);
        prop_assert!((0.0..=1.0).contains(&report.ece) && (0.0..=2.0).contains(&report.brier));
        let top_k: Vec<f64> = report.top_k.values().copied().collect();
        prop_assert!(top_k.len() == 3 && top_k.is_sorted() && close(top_k[0], report.accuracy));
    }

    #[test]
    fn the_order_of_images_does_not_matter((probabilities, labels) in predictions(3)) {
        let forward = report(&probabilities, &labels, &names(3)).unwrap();
        let rows: Vec<f64> = probabilities.chunks(3).rev().flatten().copied().collect();
        let backward = report(&rows, &labels.into_iter().rev().collect::<Vec<_>>(), &names(3)).unwrap();
        let value = |report| serde_json::to_value(report).unwrap();
        assert_close(&value(backward), &value(forward), "reversed");
    }
}
