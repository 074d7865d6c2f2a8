//! What a child says, in lines of bounded length.

use std::collections::VecDeque;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// A longer line is passed over.
const MAX_LINE_BYTES: usize = 64 << 10;
/// Lines of a child's log that are remembered.
const TAIL_LINES: usize = 20;
/// Characters of each that are.
const TAIL_CHARACTERS: usize = 500;

/// Reads lines.
pub(super) struct Lines<R> {
    reader: BufReader<R>,
    /// The beginning of the line that is being read.
    begun: Vec<u8>,
    /// Whether that line is too long already.
    is_long: bool,
    has_ended: bool,
}

/// A line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Whole, without its end; what is not UTF-8 is replaced.
    Text(String),
    /// One that was longer than is read.
    TooLong,
}

/// The last lines of a log.
#[derive(Debug, Default)]
pub(super) struct Tail(VecDeque<String>);

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader: BufReader::new(reader),
            begun: Vec::new(),
            is_long: false,
            has_ended: false,
        }
    }

    /// The next line; `None` at the end, which a failing pipe is too. Cancelling loses nothing.
    pub(super) async fn next(&mut self) -> Option<Line> {
        while !self.has_ended {
            let read = self.reader.fill_buf().await.unwrap_or_default();
            let end = read.iter().position(|&byte| byte == b'\n');
            let part = &read[..end.unwrap_or(read.len())];
            if self.begun.len() + part.len() > MAX_LINE_BYTES {
                self.is_long = true;
                self.begun.clear();
            } else if !self.is_long {
                self.begun.extend_from_slice(part);
            }
            self.has_ended = read.is_empty();
            let consumed = end.map_or(read.len(), |end| end + 1);
            self.reader.consume(consumed);
            let is_line = end.is_some() || self.has_ended && (self.is_long || !self.begun.is_empty());
            if is_line {
                return Some(self.take());
            }
        }
        None
    }

    fn take(&mut self) -> Line {
        let bytes = std::mem::take(&mut self.begun);
        if std::mem::take(&mut self.is_long) {
            return Line::TooLong;
        }
        Line::Text(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    }
}

impl Tail {
    pub(super) fn push(&mut self, line: &str) {
        if line.trim().is_empty() {
            return;
        }
        if self.0.len() == TAIL_LINES {
            self.0.pop_front();
        }
        let plain = line.chars().filter(|c| !c.is_control());
        self.0.push_back(plain.take(TAIL_CHARACTERS).collect());
    }

    /// The program's last word: its own line of error, else the last that it logged.
    pub(super) fn last_word(&self) -> Option<&str> {
        let own = self.0.iter().rev().find_map(|line| line.strip_prefix("sconce: "));
        own.or_else(|| self.0.back().map(String::as_str))
    }

    /// The last line that holds this.
    pub(super) fn line_with(&self, part: &str) -> Option<&str> {
        let line = self.0.iter().rev().find(|line| line.contains(part));
        line.map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(input: &[u8]) -> Vec<Line> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut lines = Lines::new(input);
            let mut all = Vec::new();
            while let Some(line) = lines.next().await {
                all.push(line);
            }
            all
        })
    }

    #[test]
    fn a_line_ends_with_its_end_or_the_input() {
        let check = |input: &[u8], expected: &[&str]| {
            let expected: Vec<Line> = expected.iter().map(|&text| Line::Text(text.to_owned())).collect();
            assert_eq!(all(input), expected, "{:?}", String::from_utf8_lossy(input));
        };
        check(b"", &[]);
        check(b"a", &["a"]);
        check(b"a\n", &["a"]);
        check(b"a\r\n\nb", &["a", "", "b"]);
        check(b"\xff\n", &["\u{fffd}"]);
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over_and_the_next_is_read() {
        let check = |bytes: usize, expected: Line| {
            let mut input = vec![b'x'; bytes];
            input.extend_from_slice(b"\nnext");
            assert_eq!(all(&input), [expected, Line::Text("next".to_owned())], "{bytes}");
        };
        check(MAX_LINE_BYTES, Line::Text("x".repeat(MAX_LINE_BYTES)));
        check(MAX_LINE_BYTES + 1, Line::TooLong);
        check(10 * MAX_LINE_BYTES, Line::TooLong);
    }

    #[test]
    fn the_last_word_is_the_programs_own() {
        let mut tail = Tail::default();
        assert_eq!(tail.last_word(), None);
        for line in ["one", "sconce: the disk is full", "", "two"] {
            tail.push(line);
        }
        assert_eq!(tail.last_word(), Some("the disk is full"));
        for line in 0..TAIL_LINES {
            tail.push(&line.to_string());
        }
        assert_eq!(tail.last_word(), Some("19"));
        assert_eq!((tail.line_with("disk"), tail.line_with("7")), (None, Some("17")));
    }

    proptest! {
        #[test]
        fn lines_are_those_of_the_text(text in "[a-z\n]{0,200}") {
            let expected: Vec<Line> = text.lines().map(|line| Line::Text(line.to_owned())).collect();
            prop_assert_eq!(all(text.as_bytes()), expected);
        }
    }
}
