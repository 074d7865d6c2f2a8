//! Rust sources as the architecture test reads them: without comments and literals.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A source file: its path from the top, as written and without comments and literals.
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(super) code: String,
}

impl Source {
    pub(super) fn read(path: &Path) -> Self {
        let text = fs::read_to_string(top().join(path)).unwrap();
        let code = code_of(&text);
        Self {
            path: path.to_owned(),
            text,
            code,
        }
    }

    /// The room it belongs to: `src/NAME/…` or `src/NAME.rs`.
    pub(super) fn room(&self) -> String {
        let part = self.path.iter().nth(1).unwrap().to_str().unwrap();
        part.trim_end_matches(".rs").to_owned()
    }

    pub(super) fn is(&self, path: &str) -> bool {
        self.path == Path::new(path)
    }
}

pub(super) fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every `.rs` file under `folder`, paths from the top.
pub(super) fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(top().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(Source::read(&path));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} holds no sources");
    found
}

/// Rust source without comments, and with string and character literals emptied.
pub(super) fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if c == '"' {
            string_length(rest)
        } else if let Some(length) = raw_string_length(rest) {
            length
        } else if c == '\'' {
            char_length(rest)
        } else {
            0
        };
        if skipped == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            code.push(' ');
            rest = &rest[skipped..];
        }
    }
    code
}

fn string_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn raw_string_length(rest: &str) -> Option<usize> {
    let hashes = rest.strip_prefix('r')?.bytes().take_while(|&b| b == b'#').count();
    let body = rest[1 + hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = body.find(&close).map_or(body.len(), |at| at + close.len());
    Some(2 + hashes + end)
}

/// Length of a character literal; 0 for a lifetime.
fn char_length(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((second, _))) => {
            let after = rest[second..].char_indices().skip(1).find(|&(_, c)| c == '\'');
            after.map_or(0, |(at, _)| second + at + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

pub(super) fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// What follows `crate::` in `code`: single names and the outermost names of a braced list.
pub(super) fn crate_names(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, found) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        let inside_a_name = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let after = code[at + found.len()..].trim_start();
        if inside_a_name {
            continue;
        }
        match after.strip_prefix('{') {
            Some(list) => names.extend(outermost_names(list)),
            None => names.extend(words(after).next().map(str::to_owned)),
        }
    }
    names
}

/// Of `a, b::c, d::{e, f}}…`: a, b, d.
fn outermost_names(list: &str) -> BTreeSet<String> {
    let (mut depth, mut outer) = (1, String::new());
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ if depth == 1 => outer.push(c),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    let first = |item: &str| words(item.trim()).next().unwrap_or_default().to_owned();
    outer
        .split(',')
        .map(first)
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn code_is_what_is_neither_comment_nor_literal() {
    let check = |text: &str, expected: &str| assert_eq!(code_of(text), expected, "{text}");
    check("a // b\nc", "a  \nc");
    check("a /* b\n */ c", "a   c");
    check(r#"f("a \" // b") + 1"#, "f( ) + 1");
    check(r##"f(r#"a "b" // "#) + 1"##, "f( ) + 1");
    check("f('\"', '\\'', '\\u{1f600}') + 1", "f( ,  ,  ) + 1");
    check("fn f<'a>(x: &'a str) {} // 'b'", "fn f<'a>(x: &'a str) {}  ");
    check("\"open", " ");
}
