//! A verdict's plots as inline SVG.

use super::super::numbers::shortened;
use super::super::plots::{Anchor, Rect, escape, svg, text, text_width};
use super::{Harm, Pairs};

const WIDTH: f64 = 680.0;
const ROW: f64 = 24.0;
/// Longest name beside a row.
const LABEL: usize = 20;
/// Most classes; of more, those that lose most.
const MAX_CLASSES: usize = 40;
/// Φ⁻¹(0.975).
const Z: f64 = 1.959_963_984_540_054;

/// Groups of images: those that the challenger lost to the left, those it won to the right.
pub(super) fn outcomes(groups: &[(&str, Pairs)]) -> String {
    let most = groups
        .iter()
        .map(|(_, pairs)| pairs.won.max(pairs.lost))
        .max()
        .unwrap_or(0)
        .max(1);
    let left = names(groups.iter().map(|(name, _)| *name));
    let middle = (left + WIDTH) / 2.0;
    let unit = (WIDTH - middle - 50.0) / most as f64;
    let mut content = text(
        middle - 8.0,
        14.0,
        Anchor::End,
        "class=\"muted\"",
        "champion alone right",
    ) + &text(
        middle + 8.0,
        14.0,
        Anchor::Start,
        "class=\"muted\"",
        "challenger alone right",
    );
    for (place, (name, pairs)) in groups.iter().enumerate() {
        let y = (place + 1) as f64 * ROW;
        let baseline = y + ROW / 2.0 + 4.0;
        let (lost, won) = (pairs.lost as f64 * unit, pairs.won as f64 * unit);
        let bar = |x: f64, width: f64| Rect {
            x,
            y: y + 3.0,
            width,
            height: ROW - 6.0,
        };
        let tip = format!(
            "{}: both right {}, neither {}",
            escape(name),
            pairs.both,
            pairs.neither
        );
        content += &text(
            left - 8.0,
            baseline,
            Anchor::End,
            "",
            &escape(&shortened(name, LABEL)),
        );
        content += &bar(middle - lost, lost).draw("class=\"wrong\"", &tip);
        content += &bar(middle, won).draw("class=\"right\"", &tip);
        content += &text(
            middle - lost - 6.0,
            baseline,
            Anchor::End,
            "",
            &pairs.lost.to_string(),
        );
        content += &text(
            middle + won + 6.0,
            baseline,
            Anchor::Start,
            "",
            &pairs.won.to_string(),
        );
    }
    let height = (groups.len() + 1) as f64 * ROW + 4.0;
    svg(
        WIDTH,
        height,
        "Images that one model alone answers right",
        &content,
    )
}

/// Each class's change of recall with its 95 % interval, beside what may be lost.
pub(super) fn recall(classes: &[Harm], allowed: f64) -> String {
    let shown = worst(classes);
    let left = names(shown.iter().map(|class| class.label.as_str()));
    let ends = shown.iter().map(|class| class.drop.abs() + half(class));
    let most = ends.fold(allowed * 1.5, f64::max);
    let x = |share: f64| left + (WIDTH - left - 12.0) * (share / most + 1.0) / 2.0;
    let bottom = shown.len() as f64 * ROW;
    let line = |class: &str, at: f64| format!("<path class=\"{class}\" d=\"M{at:.1} 0 V{bottom:.1}\"/>\n");
    let mut content = line("axis", x(0.0)) + &line("limit", x(-allowed));
    for (place, class) in shown.iter().enumerate() {
        content += &change(class, place as f64 * ROW + ROW / 2.0, left, x);
    }
    let label = |at: f64, value: &str| text(at, bottom + 16.0, Anchor::Middle, "class=\"muted\"", value);
    content += &label(x(0.0), "0 points");
    content += &label(x(-allowed), &format!("−{:.1}", allowed * 100.0));
    svg(WIDTH, bottom + 24.0, "Change of recall of each class", &content)
}

fn change(class: &Harm, y: f64, left: f64, x: impl Fn(f64) -> f64) -> String {
    let (value, half) = (-class.drop, half(class));
    let kind = if class.blocked { "wrong" } else { "right" };
    let tip = format!(
        "{}: {:+.2} points, n = {}",
        escape(&class.label),
        value * 100.0,
        class.pairs.n()
    );
    let (low, high) = (x(value - half), x(value + half));
    let dot = Rect {
        x: x(value) - 4.0,
        y: y - 4.0,
        width: 8.0,
        height: 8.0,
    };
    let label = escape(&shortened(&class.label, LABEL));
    text(left - 8.0, y + 4.0, Anchor::End, "", &label)
        + &format!("<path class=\"whisker\" d=\"M{low:.1} {y:.1} H{high:.1}\"/>\n")
        + &dot.draw(&format!("class=\"{kind}\" rx=\"4\""), &tip)
}

fn half(class: &Harm) -> f64 {
    Z * class.pairs.standard_error()
}

/// In the network's order, where all fit.
fn worst(classes: &[Harm]) -> Vec<&Harm> {
    let mut shown: Vec<&Harm> = classes.iter().collect();
    if shown.len() > MAX_CLASSES {
        shown.sort_by(|a, b| b.drop.total_cmp(&a.drop));
        shown.truncate(MAX_CLASSES);
    }
    shown
}

/// Where the picture begins beside these names.
fn names<'a>(names: impl Iterator<Item = &'a str>) -> f64 {
    let longest = names.map(|name| name.chars().count().min(LABEL)).max();
    text_width(longest.unwrap_or(0)) + 12.0
}
