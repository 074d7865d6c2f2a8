//! Text of others, as it is told.

/// The text, but for what a terminal or a log would take for more than text: it stands on one line.
pub fn on_one_line(text: &str) -> String {
    let plain = |c: char| {
        if c.is_control() {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    };
    text.chars().map(plain).collect()
}
