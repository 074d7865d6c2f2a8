//! A report's plots as inline SVG, coloured by the page's style.

use super::numbers::counted;

mod bars;
mod matrix;
mod reliability;

pub(super) use bars::f1_bars;
pub(super) use matrix::matrix;
pub(super) use reliability::reliability;

/// Text that means itself in HTML and SVG, also inside an attribute.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A picture of this size in its own units; it takes the width it is given.
pub(super) fn svg(width: f64, height: f64, label: &str, content: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"{label}\">\n{content}</svg>\n"
    )
}

/// A rectangle from its upper left corner.
#[derive(Clone, Copy)]
pub(super) struct Rect {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Rect {
    /// `attributes` come before `tip`, the text shown under a pointer; both are markup.
    pub(super) fn draw(self, attributes: &str, tip: &str) -> String {
        let Self { x, y, width, height } = self;
        format!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" {attributes}><title>{tip}</title></rect>\n"
        )
    }
}

/// Where a text stands against its point.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A text whose baseline passes through (x, y); `content` is markup.
pub(super) fn text(x: f64, y: f64, anchor: Anchor, attributes: &str, content: &str) -> String {
    let anchor = match anchor {
        Anchor::Start => "start",
        Anchor::Middle => "middle",
        Anchor::End => "end",
    };
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {attributes}>{content}</text>\n")
}

/// Units that `characters` take at 12 units' size, on the safe side for most scripts.
pub(super) fn text_width(characters: usize) -> f64 {
    characters as f64 * 7.0
}

/// `12 images`
fn images(count: usize) -> String {
    counted(count, "image", "images")
}
