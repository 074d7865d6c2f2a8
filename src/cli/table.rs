//! Columns of text for a terminal.

use serde::Serialize;

use super::CliError;

/// Where a cell stands in its column.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Align {
    /// Texts.
    Left,
    /// Numbers.
    Right,
}

/// A table under its column names; each row has a cell for every column.
pub(crate) fn table(columns: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let names = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    // A file's name may hold control characters, which a terminal would obey.
    let printable = |row: &Vec<String>| {
        row.iter()
            .map(|cell| cell.replace(char::is_control, "\u{fffd}"))
            .collect()
    };
    let lines: Vec<Vec<String>> = std::iter::once(names).chain(rows.iter().map(printable)).collect();
    let length = |cell: &String| cell.chars().count();
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(length)
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let line = |cells: &Vec<String>| {
        let padded = cells.iter().zip(&widths).zip(columns);
        let padded = padded.map(|((cell, &width), (_, align))| match align {
            Align::Left => format!("{cell:width$}"),
            Align::Right => format!("{cell:>width$}"),
        });
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    lines.iter().map(line).collect()
}

/// JSON for people and programs.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<String, CliError> {
    let text = serde_json::to_string_pretty(value).map_err(|e| CliError::Failed(e.to_string()))?;
    Ok(text + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let columns = [("NAME", Align::Left), ("N", Align::Right), ("NOTE", Align::Left)];
        let rows =
            [["é", "12345", ""], ["longer", "7", "a\u{1b}[31mb"]].map(|row| row.map(str::to_owned).to_vec());
        let expected = "\
NAME        N  NOTE
é       12345
longer      7  a\u{fffd}[31mb
";
        assert_eq!(table(&columns, &rows), expected);
    }
}
