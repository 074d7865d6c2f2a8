//! The keys that exist, each with a value of its type.

use toml::{Table, Value};

use super::Config;

/// Every key of [`Config`], with a value that shows its type.
pub(super) struct Schema(Table);

/// From which likeness on (Jaro–Winkler, 0…1) a known key is suggested for an unknown one.
const ALIKE: f64 = 0.8;

impl Schema {
    /// Read off the defaults, so that no key can be forgotten here.
    pub(super) fn new() -> Self {
        let example = Config {
            // Unset by default, so it would not be seen.
            default_model: "name".parse().ok(),
            ..Config::default()
        };
        Self(Table::try_from(example).expect("the configuration is tables of texts, numbers and switches"))
    }

    /// A value of the type that `key` (dotted) takes; a table where it is a section.
    pub(super) fn example(&self, key: &str) -> Option<&Value> {
        let mut parts = key.split('.');
        let first = self.0.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.as_table()?.get(part))
    }

    /// Every key that takes a value, dotted.
    #[cfg(test)]
    pub(super) fn keys(&self) -> Vec<String> {
        let mut known = self.known();
        known.retain(|name| self.example(name).is_some_and(|value| !value.is_table()));
        known
    }

    /// Every key and section, dotted.
    fn known(&self) -> Vec<String> {
        let mut known = Vec::new();
        gather(&self.0, "", &mut known);
        known
    }

    /// The key or section most like `key`, if any is.
    pub(super) fn nearest(&self, key: &str) -> Option<String> {
        let known = self.known();
        let scored = known.into_iter().map(|known| (likeness(key, &known), known));
        let best = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
        (best.0 >= ALIKE).then_some(best.1)
    }
}

/// The dotted names of what is in a table that is called `prefix`, which ends with a dot.
fn gather(table: &Table, prefix: &str, known: &mut Vec<String>) {
    for (name, value) in table {
        let name = format!("{prefix}{name}");
        if let Some(section) = value.as_table() {
            gather(section, &format!("{name}."), known);
        }
        known.push(name);
    }
}

/// Of whole keys or, for one in a wrong section or in none, of their last parts.
fn likeness(key: &str, known: &str) -> f64 {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let whole = strsim::jaro_winkler(key, known);
    whole.max(0.95 * strsim::jaro_winkler(&last(key), &last(known)))
}

/// Why `value` is not of the type of `example`; `None` where it is.
pub(super) fn mismatch(value: &Value, example: &Value) -> Option<String> {
    let fits = match (value, example) {
        // No number of the configuration may be negative.
        (Value::Integer(number), Value::Integer(_)) => *number >= 0,
        // 1 is as good as 1.0.
        (Value::Integer(_), Value::Float(_)) => true,
        _ => value.same_type(example),
    };
    let expected = match example {
        Value::Integer(_) => "a whole number from 0",
        Value::Float(_) => "a number",
        Value::Table(_) => "a section",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "a list",
        _ => "a text",
    };
    (!fits).then(|| format!("{expected} is expected"))
}
