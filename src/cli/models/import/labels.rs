//! Class names from a file: lines, a JSON array, or ImageNet's JSON of numbers and names.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::Value;

use super::super::super::CliError;
use super::super::super::version::data;
use super::source::read;

/// Largest file of labels that is read.
const MAX_BYTES: u64 = 16 << 20;

/// Reads the labels, in the order of the outputs.
pub(super) fn of_file(path: &Path) -> Result<Vec<String>, CliError> {
    let told = |problem: String| data(format!("{}: {problem}", path.display()));
    let bytes = read(path, MAX_BYTES).map_err(told)?;
    let text = String::from_utf8(bytes).map_err(|_| told("is not UTF-8".to_owned()))?;
    parse(&text).map_err(told)
}

/// A label and, where the file has one, its WordNet number (`n02012849`).
type Named = (String, Option<String>);

fn parse(text: &str) -> Result<Vec<String>, String> {
    let text = text.trim_start_matches('\u{feff}');
    let named = if text.trim_start().starts_with(['[', '{']) {
        of_json(text)?
    } else {
        of_lines(text)?
    };
    if named.is_empty() {
        return Err("holds no labels".to_owned());
    }
    Ok(distinct(named))
}

fn of_lines(text: &str) -> Result<Vec<Named>, String> {
    let lines = text.trim_end().lines().map(str::trim);
    let label = |(number, line): (usize, &str)| {
        if line.is_empty() {
            Err(format!("line {number} is empty, and labels follow"))
        } else {
            Ok((line.to_owned(), None))
        }
    };
    (1..).zip(lines).map(label).collect()
}

fn of_json(text: &str) -> Result<Vec<Named>, String> {
    match serde_json::from_str(text).map_err(|e| format!("is not JSON: {e}"))? {
        Value::Array(values) => values
            .iter()
            .enumerate()
            .map(|(class, value)| named(class, value))
            .collect(),
        Value::Object(entries) => {
            let mut by_class = BTreeMap::new();
            for (key, value) in &entries {
                let class: usize = key
                    .parse()
                    .map_err(|_| format!("the key '{key}' is no class number; \"0\", \"1\" and so on are"))?;
                by_class.insert(class, named(class, value)?);
            }
            match (0..)
                .zip(by_class.keys())
                .find(|(expected, class)| expected != *class)
            {
                Some((missing, _)) => Err(format!("class {missing} has no label")),
                None => Ok(by_class.into_values().collect()),
            }
        }
        _ => Err("is neither a JSON array nor an object".to_owned()),
    }
}

/// `"tench"` or `["n01440764", "tench"]`.
fn named(class: usize, value: &Value) -> Result<Named, String> {
    let text = |value: &Value| value.as_str().map(|text| text.trim().to_owned());
    let found = match value {
        Value::Array(pair) => match &pair[..] {
            [number, name] => text(name).map(|name| (name, text(number))),
            _ => None,
        },
        single => text(single).map(|name| (name, None)),
    };
    let found = found.filter(|(name, _)| !name.is_empty());
    found.ok_or_else(|| format!("class {class} is {value}; a name, or [WordNet number, name]"))
}

/// ImageNet has two cranes and two maillots: equal labels get their WordNet number, else their class number.
fn distinct(named: Vec<Named>) -> Vec<String> {
    let mut counts = HashMap::new();
    for (name, _) in &named {
        *counts.entry(name.clone()).or_insert(0usize) += 1;
    }
    let one = |(class, (name, number)): (usize, Named)| {
        if counts.get(&name) == Some(&1) {
            return name;
        }
        format!("{name} ({})", number.unwrap_or_else(|| class.to_string()))
    };
    named.into_iter().enumerate().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_gives_the_same_labels() {
        for text in [
            "tench\nT-shirt/top\ngréy whale\n",
            "\u{feff}tench\r\n  T-shirt/top\r\ngréy whale\r\n\r\n \n",
            r#"["tench", "T-shirt/top", "gréy whale"]"#,
            r#" {"0": "tench", "2": "gréy whale", "1": "T-shirt/top"}"#,
            r#"{"0": ["n1", "tench"], "1": ["n2", "T-shirt/top"], "2": ["n3", "gréy whale"]}"#,
        ] {
            assert_eq!(
                parse(text).unwrap(),
                ["tench", "T-shirt/top", "gréy whale"],
                "{text}"
            );
        }
    }

    #[test]
    fn equal_labels_are_told_apart() {
        let pairs = r#"{"0": ["n02012849", "crane"], "1": ["n03126707", "crane"], "2": ["n1", "tench"]}"#;
        assert_eq!(
            parse(pairs).unwrap(),
            ["crane (n02012849)", "crane (n03126707)", "tench"]
        );
        assert_eq!(
            parse("crane\ntench\ncrane").unwrap(),
            ["crane (0)", "tench", "crane (2)"]
        );
    }

    #[test]
    fn what_is_wrong_is_told() {
        let check = |text: &str, expected: &str| {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("", "holds no labels");
        check(" \n\n", "holds no labels");
        check("a\n\nb", "line 2 is empty, and labels follow");
        check("[\"a\", 2]", "class 1 is 2; a name");
        check("[\"a\", \"\"]", "class 1 is \"\"");
        check("{\"0\": \"a\", \"2\": \"b\"}", "class 1 has no label");
        check("{\"a\": 0, \"b\": 1}", "the key 'a' is no class number");
        check("[\"a\"", "is not JSON");
    }
}
