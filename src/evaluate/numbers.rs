//! Numbers as people read them.

use super::Interval;

/// `12,345`
pub(super) fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 image`, `12,345 images`
pub(super) fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{} {}", grouped(count), if count == 1 { one } else { many })
}

/// `0.9876–0.9912`
pub(super) fn range(interval: Interval) -> String {
    format!("{:.4}–{:.4}", interval.low, interval.high)
}

/// `98.76 %`
pub(super) fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

/// `text` in at most `most` characters.
pub(super) fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most - 1).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        let check = |count, expected: &str| assert_eq!(grouped(count), expected);
        check(0, "0");
        check(999, "999");
        check(1_000, "1,000");
        check(60_000, "60,000");
        check(1_234_567, "1,234,567");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let check = |text, expected: &str| assert_eq!(shortened(text, 4), expected);
        check("Ääää", "Ääää");
        check("Äääää", "Äää…");
        check("", "");
    }
}
