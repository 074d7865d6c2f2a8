//! A report for a terminal.

use super::calibration::BINS;
use super::numbers::{counted, grouped, range, shortened};
use super::{Average, Report};

/// Longest class name that is shown whole.
const LABEL: usize = 28;
/// Most classes whose confusion matrix fits a terminal.
const MATRIX: usize = 12;
/// Pairs listed as most confused.
const CONFUSED: usize = 5;

pub(super) fn text(report: &Report) -> String {
    let blocks = [
        classes(report),
        figures(report),
        most_confused(report),
        matrix(report),
    ];
    blocks.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

/// The table of scikit-learn's `classification_report`, with an interval.
fn classes(report: &Report) -> Option<String> {
    let width = label_width(report).max("weighted avg".len());
    let line = |label: &str, mean: Average, support: usize, interval: &str| {
        let Average {
            precision,
            recall,
            f1,
        } = mean;
        let label = shortened(label, LABEL);
        let support = grouped(support);
        let line =
            format!("{label:>width$}  {precision:9.4}  {recall:9.4}  {f1:9.4}  {support:>9}  {interval}");
        format!("{}\n", line.trim_end())
    };
    let mut text = format!(
        "{:width$}  precision     recall   f1-score    support  recall, 95 %\n",
        ""
    );
    for class in &report.per_class {
        let mean = Average {
            precision: class.precision,
            recall: class.recall,
            f1: class.f1,
        };
        text += &line(&class.label, mean, class.support, &range(class.recall_interval));
    }
    text.push('\n');
    text += &line("macro avg", report.macro_average, report.n, "");
    text += &line("weighted avg", report.weighted, report.n, "");
    Some(text)
}

fn figures(report: &Report) -> Option<String> {
    let top_k = report.top_k.iter().filter(|(k, _)| **k > 1);
    let top_k: Vec<String> = top_k.map(|(k, share)| format!("top-{k} {share:.4}")).collect();
    let mut text = format!(
        "accuracy  {:.4}  of {}, 95 % {}\n",
        report.accuracy,
        counted(report.n, "image", "images"),
        range(report.accuracy_interval)
    );
    if !top_k.is_empty() {
        text += &format!("          {}\n", top_k.join("  "));
    }
    text += &format!("nll       {:.4}  nats per image\n", report.nll);
    text += &format!("brier     {:.4}  sum over classes, 0 to 2\n", report.brier);
    text += &format!("ece       {:.4}  top-1, {BINS} equal bins\n", report.ece);
    Some(text)
}

fn most_confused(report: &Report) -> Option<String> {
    let shown = report.most_confused.iter().take(CONFUSED);
    let width = label_width(report);
    let label = |class: usize| shortened(&report.per_class[class].label, LABEL);
    let line = |pair: &super::Confusion| {
        let (actual, predicted) = (label(pair.actual), label(pair.predicted));
        format!(
            "{actual:>width$} → {predicted:width$} {:>7}\n",
            grouped(pair.count)
        )
    };
    let lines: String = shown.map(line).collect();
    (!lines.is_empty()).then(|| format!("most confused, true → predicted\n{lines}"))
}

fn matrix(report: &Report) -> Option<String> {
    let matrix = report.confusion_matrix.as_ref().filter(|m| m.len() <= MATRIX)?;
    let digits = matrix.iter().flatten().map(|count| count.to_string().len());
    let (width, cell) = (label_width(report) + 3, digits.max()?.max(2) + 2);
    let line = |label: &str, cells: Vec<String>| {
        let cells: String = cells.iter().map(|text| format!("{text:>cell$}")).collect();
        format!("{label:>width$}{cells}\n")
    };
    let row = |(class, counts): (usize, &Vec<usize>)| {
        let label = shortened(&report.per_class[class].label, LABEL);
        line(&format!("{label} {class:2}"), counts.iter().map(dotted).collect())
    };
    let numbers = (0..matrix.len()).map(|class| class.to_string()).collect();
    let rows: String = matrix.iter().enumerate().map(row).collect();
    Some(format!(
        "confusion matrix, rows true, columns predicted\n{}{rows}",
        line("", numbers)
    ))
}

/// A dot for 0, so that mistakes stand out.
fn dotted(count: &usize) -> String {
    if *count == 0 {
        "·".to_owned()
    } else {
        count.to_string()
    }
}

/// Characters of the longest class name as shown.
fn label_width(report: &Report) -> usize {
    let lengths = report
        .per_class
        .iter()
        .map(|class| class.label.chars().count().min(LABEL));
    lengths.max().unwrap_or(0)
}
