//! The confusion matrix as a heat map.

use super::super::Report;
use super::super::numbers::{percent, shortened};
use super::{Anchor, Rect, escape, images, svg, text, text_width};

const WIDTH: f64 = 680.0;
/// Longest class name on an axis.
const LABEL: usize = 14;
/// Most classes that make a picture worth its size.
const MAX_CLASSES: usize = 100;
/// Smallest cell with its class's name beside it.
const NAMED_CELL: f64 = 9.0;
/// Smallest cell with its number inside.
const NUMBERED_CELL: f64 = 24.0;

/// Absent where there are too many classes.
pub(in super::super) fn matrix(report: &Report) -> Option<String> {
    let counts = report
        .confusion_matrix
        .as_ref()
        .filter(|m| m.len() <= MAX_CLASSES)?;
    let grid = Grid::new(report);
    let mut content = grid.axes();
    for (actual, row) in counts.iter().enumerate() {
        let total: usize = row.iter().sum();
        for (predicted, &count) in row.iter().enumerate() {
            let share = if total == 0 {
                0.0
            } else {
                count as f64 / total as f64
            };
            content += &grid.cell(actual, predicted, count, share);
        }
    }
    let end = grid.top + grid.cell * counts.len() as f64;
    Some(svg(WIDTH, end + 4.0, "Confusion matrix", &content))
}

struct Grid {
    /// As shown.
    labels: Vec<String>,
    left: f64,
    top: f64,
    /// Side of a cell with its gap.
    cell: f64,
    /// Whether the columns' names stand at an angle.
    slanted: bool,
    /// Whether the axes have names at all.
    named: bool,
}

impl Grid {
    fn new(report: &Report) -> Self {
        let labels = report
            .per_class
            .iter()
            .map(|class| shortened(&class.label, LABEL));
        let labels: Vec<String> = labels.collect();
        let longest = labels
            .iter()
            .map(|label| label.chars().count())
            .max()
            .unwrap_or(0);
        let slanted = longest > 2;
        let margin = text_width(longest) + 14.0;
        // The last of the slanted names over the columns leans out to the right.
        let lean = if slanted { margin * 0.5 } else { 4.0 };
        let cell = ((WIDTH - margin - lean) / labels.len() as f64).min(64.0);
        if cell < NAMED_CELL {
            let cell = WIDTH / labels.len() as f64;
            return Self {
                labels,
                left: 0.0,
                top: 0.0,
                cell,
                slanted,
                named: false,
            };
        }
        let top = if slanted { margin * 0.72 + 8.0 } else { 24.0 };
        Self {
            labels,
            left: margin,
            top,
            cell,
            slanted,
            named: true,
        }
    }

    fn axes(&self) -> String {
        if !self.named {
            return String::new();
        }
        let size = format!("font-size=\"{:.0}\"", (self.cell * 0.9).min(12.0));
        let names = self.labels.iter().enumerate().map(|(class, label)| {
            let (label, middle) = (escape(label), self.cell * (class as f64 + 0.5));
            let (x, y) = (self.left + middle, self.top - 8.0);
            let row = text(
                self.left - 8.0,
                self.top + middle + 4.0,
                Anchor::End,
                &size,
                &label,
            );
            let column = if self.slanted {
                let turned = format!("{size} transform=\"rotate(-45 {x:.1} {y:.1})\"");
                text(x, y, Anchor::Start, &turned, &label)
            } else {
                text(x, y, Anchor::Middle, &size, &label)
            };
            row + &column
        });
        names.collect()
    }

    fn cell(&self, actual: usize, predicted: usize, count: usize, share: f64) -> String {
        let side = self.cell - self.cell.min(20.0) * 0.1;
        let rect = Rect {
            x: self.left + self.cell * predicted as f64,
            y: self.top + self.cell * actual as f64,
            width: side,
            height: side,
        };
        // Mistakes are a few in a hundred: their root, widened, tells one from five.
        let depth = if actual == predicted {
            share
        } else {
            share.sqrt() * 1.6
        };
        let depth = depth.clamp(0.08, 1.0);
        let attributes = match (count, actual == predicted) {
            (0, _) => "class=\"cell\"".to_owned(),
            (_, true) => format!("class=\"right\" fill-opacity=\"{:.2}\"", depth),
            (_, false) => format!("class=\"wrong\" fill-opacity=\"{:.2}\"", depth),
        };
        let tip = format!(
            "true {}, predicted {}: {}, {}",
            escape(&self.labels[actual]),
            escape(&self.labels[predicted]),
            images(count),
            percent(share)
        );
        let drawn = rect.draw(&attributes, &tip);
        if count == 0 || self.cell < NUMBERED_CELL {
            return drawn;
        }
        let class = if depth > 0.6 { "class=\"on-fill\"" } else { "" };
        let digits = count.to_string();
        let size = (self.cell * 1.5 / digits.len().max(2) as f64).clamp(6.0, 14.0);
        let attributes = format!("{class} font-size=\"{size:.0}\" pointer-events=\"none\"");
        let (x, y) = (
            rect.x + rect.width / 2.0,
            rect.y + rect.height / 2.0 + size * 0.35,
        );
        drawn + &text(x, y, Anchor::Middle, &attributes, &digits)
    }
}
