//! A report as one page without links to anything.

use super::calibration::BINS;
use super::numbers::{counted, grouped, percent, range};
use super::plots::{self, escape};
use super::{Average, Confusion, Interval, Report};

const STYLE: &str = include_str!("report.css");
const MATRIX: &str = "Rows are true classes, columns predicted ones. Blue is right, orange wrong; the depth follows the \
                      share of the row, for mistakes its square root, so that rare ones show.";
const RELIABILITY: &str = "Share that is right by top-1 confidence, with 95 % intervals. On the dashed line probabilities \
                           mean what they say; orange is confidence beyond that, pale blue is confidence short of it. \
                           Below, how many images each bin holds.";
/// Most pairs listed as confused.
const CONFUSED: usize = 12;

pub(super) fn page(report: &Report, title: &str) -> String {
    document(title, &body(report))
}

/// A page of its own with this title, which is plain text, and this body, which is markup.
pub(super) fn document(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n{body}</main>\n</body>\n</html>\n"
    )
}

fn body(report: &Report) -> String {
    let size = format!(
        "{} of {} classes",
        counted(report.n, "image", "images"),
        grouped(report.per_class.len())
    );
    let lead = format!("<p class=\"lead\">{size}</p>\n");
    let matrix = plots::matrix(report).map(|plot| section("Confusion matrix", &figure(&plot, MATRIX)));
    let reliability = figure(&plots::reliability(&report.reliability), RELIABILITY);
    let bars = figure(
        &plots::f1_bars(&report.per_class),
        "Harmonic mean of precision and recall.",
    );
    let sections = [
        matrix.unwrap_or_default(),
        pair(
            &section("Reliability", &reliability),
            &section("Most confused", &confused(report)),
        ),
        section("F1 by class", &bars),
        section("Classes", &classes(report)),
        section("What the figures mean", &meaning()),
    ];
    lead + &figures(report) + &sections.concat()
}

pub(super) fn section(title: &str, content: &str) -> String {
    format!("<section>\n<h2>{title}</h2>\n{content}</section>\n")
}

pub(super) fn figure(plot: &str, caption: &str) -> String {
    format!("<figure>\n<div class=\"scroll\">\n{plot}</div>\n<figcaption>{caption}</figcaption>\n</figure>\n")
}

fn pair(left: &str, right: &str) -> String {
    format!("<div class=\"pair\">\n{left}{right}</div>\n")
}

fn figures(report: &Report) -> String {
    let interval = report.accuracy_interval;
    let mut tiles = vec![
        tile(
            "Accuracy",
            percent(report.accuracy),
            format!("95 %: {:.2}–{:.2} %", interval.low * 100.0, interval.high * 100.0),
        ),
        tile(
            "Macro F1",
            format!("{:.4}", report.macro_average.f1),
            format!("weighted {:.4}", report.weighted.f1),
        ),
        tile("NLL", format!("{:.4}", report.nll), "nats per image".to_owned()),
        tile(
            "Brier",
            format!("{:.4}", report.brier),
            "0 best, 2 worst".to_owned(),
        ),
        tile("ECE", format!("{:.4}", report.ece), format!("top-1, {BINS} bins")),
    ];
    // Top-1 is the accuracy; of the others the smallest and the largest say enough here.
    let mut beyond = report.top_k.range(2..);
    if let Some((k, share)) = beyond.next() {
        let note = beyond
            .next_back()
            .map(|(k, share)| format!("top-{k} {}", percent(*share)));
        tiles.push(tile(
            &format!("Top-{k}"),
            percent(*share),
            note.unwrap_or_default(),
        ));
    }
    format!("<dl class=\"figures\">\n{}</dl>\n", tiles.concat())
}

/// A figure to be read first.
#[expect(clippy::needless_pass_by_value, reason = "the callers make the texts for it")]
pub(super) fn tile(name: &str, value: String, note: String) -> String {
    format!("<div><dt>{name}</dt><dd class=\"value\">{value}</dd><dd class=\"note\">{note}</dd></div>\n")
}

fn confused(report: &Report) -> String {
    let label = |class: usize| escape(&report.per_class[class].label);
    let row = |pair: &Confusion| {
        let of_class = pair.count as f64 / report.per_class[pair.actual].support as f64;
        format!(
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
            label(pair.actual),
            label(pair.predicted),
            grouped(pair.count),
            percent(of_class)
        )
    };
    let rows: String = report.most_confused.iter().take(CONFUSED).map(row).collect();
    if rows.is_empty() {
        return "<p class=\"note-line\">No image is mistaken.</p>\n".to_owned();
    }
    format!(
        "<div class=\"scroll\"><table class=\"texts\">\n<thead><tr><th scope=\"col\">True</th><th scope=\"col\">Predicted</th>\
         <th scope=\"col\">Images</th><th scope=\"col\">Of the class</th></tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n"
    )
}

fn classes(report: &Report) -> String {
    let ranged = |value: f64, interval: Interval| {
        format!(
            "<td>{value:.4}<span class=\"range\">{}</span></td>",
            range(interval)
        )
    };
    let rows = report.per_class.iter().map(|class| {
        format!(
            "<tr><th scope=\"row\">{}</th>{}{}<td>{:.4}</td><td>{}</td></tr>\n",
            escape(&class.label),
            ranged(class.precision, class.precision_interval),
            ranged(class.recall, class.recall_interval),
            class.f1,
            grouped(class.support)
        )
    });
    let mean = |name: &str, mean: Average| {
        format!(
            "<tr><th scope=\"row\">{name}</th><td>{:.4}</td><td>{:.4}</td><td>{:.4}</td><td>{}</td></tr>\n",
            mean.precision,
            mean.recall,
            mean.f1,
            grouped(report.n)
        )
    };
    let means = mean("Macro average", report.macro_average) + &mean("Weighted average", report.weighted);
    format!(
        "<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">Class</th><th scope=\"col\">Precision, 95 %</th>\
         <th scope=\"col\">Recall, 95 %</th><th scope=\"col\">F1</th><th scope=\"col\">Support</th></tr></thead>\n\
         <tbody>\n{}</tbody>\n<tfoot>\n{means}</tfoot>\n</table></div>\n",
        rows.collect::<String>()
    )
}

fn meaning() -> String {
    let ece = format!(
        "Expected calibration error: mean distance of confidence and accuracy over {BINS} bins of equal width (Guo et al. 2017)."
    );
    let terms = [
        ("Accuracy", "Share of images whose most probable class is right."),
        (
            "Precision",
            "Of those predicted to be of a class, the share that are; 0 where none is predicted.",
        ),
        (
            "Recall",
            "Of those of a class, the share predicted to be; 0 where there are none.",
        ),
        ("NLL", "Mean negative logarithm of the true class's probability."),
        (
            "Brier",
            "Mean squared distance of the probabilities from the truth, summed over classes.",
        ),
        ("ECE", ece.as_str()),
        ("95 %", "Wilson's score interval."),
    ];
    let item = |(term, text): (&str, &str)| format!("<dt>{term}</dt><dd>{text}</dd>\n");
    format!("<dl class=\"meaning\">\n{}</dl>\n", terms.map(item).concat())
}
