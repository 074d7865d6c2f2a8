//! F1 of each class as bars.

use super::super::ClassReport;
use super::super::numbers::{grouped, shortened};
use super::{Anchor, Rect, escape, images, svg, text, text_width};

const WIDTH: f64 = 680.0;
const ROW: f64 = 22.0;
/// Longest class name beside a bar.
const LABEL: usize = 20;
/// Most bars; of more classes, those of the lowest F1.
const MAX_BARS: usize = 40;

pub(in super::super) fn f1_bars(classes: &[ClassReport]) -> String {
    let shown = lowest(classes);
    let lengths = shown.iter().map(|class| class.label.chars().count().min(LABEL));
    let left = text_width(lengths.max().unwrap_or(0)) + 12.0;
    let right = WIDTH - 56.0;
    let mut content = String::new();
    for (place, class) in shown.iter().enumerate() {
        content += &bar(class, place as f64 * ROW, left, right);
    }
    let mut height = shown.len() as f64 * ROW;
    if shown.len() < classes.len() {
        let note = format!(
            "the {} of {} classes with the lowest F1",
            shown.len(),
            grouped(classes.len())
        );
        content += &text(left, height + 16.0, Anchor::Start, "class=\"muted\"", &note);
        height += ROW;
    }
    svg(WIDTH, height + 2.0, "F1 of each class", &content)
}

/// In the network's order, where all fit.
fn lowest(classes: &[ClassReport]) -> Vec<&ClassReport> {
    let mut shown: Vec<&ClassReport> = classes.iter().collect();
    if shown.len() > MAX_BARS {
        shown.sort_by(|a, b| a.f1.total_cmp(&b.f1));
        shown.truncate(MAX_BARS);
    }
    shown
}

fn bar(class: &ClassReport, top: f64, left: f64, right: f64) -> String {
    let label = escape(&shortened(&class.label, LABEL));
    let tip = format!(
        "{}: precision {:.4}, recall {:.4}, {}",
        escape(&class.label),
        class.precision,
        class.recall,
        images(class.support)
    );
    let (y, height, baseline) = (top + 3.0, ROW - 6.0, top + ROW / 2.0 + 4.0);
    let ground = Rect {
        x: left,
        y,
        width: right - left,
        height,
    };
    let filled = Rect {
        width: (right - left) * class.f1,
        ..ground
    };
    text(left - 8.0, baseline, Anchor::End, "", &label)
        + &ground.draw("class=\"cell\"", &tip)
        + &filled.draw("class=\"right\"", &tip)
        + &text(
            right + 8.0,
            baseline,
            Anchor::Start,
            "",
            &format!("{:.4}", class.f1),
        )
}
