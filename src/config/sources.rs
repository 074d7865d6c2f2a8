//! What a person wrote in a file, the environment or a flag, as settings of known keys.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use figment::value::{Dict, Map};
use figment::{Metadata, Profile, Provider};
use toml::{Table, Value};

use super::ConfigError;
use super::schema::{Schema, mismatch};

/// One value for one known key, of the key's type.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    /// Dotted.
    pub(super) key: String,
    pub(super) value: Value,
    /// A file's path, `environment SCONCE__…` or `command line`.
    pub(super) origin: String,
}

/// What the names of the variables begin with that set keys.
pub(super) const PREFIX: &str = "SCONCE__";
/// Where somebody may have put a secret by mistake: its value is not repeated.
const UNTOLD: &str = "auth.keys";
/// A configuration file is a page or two.
const MAX_FILE_BYTES: u64 = 1 << 20;

impl Setting {
    /// The error that this value is not acceptable.
    pub(super) fn refused(&self, problem: &str) -> ConfigError {
        let Self { key, value, origin } = self;
        let text = match &**key {
            UNTOLD => format!("{key} ({origin}): {problem}"),
            _ => format!("{key} = {value} ({origin}): {problem}"),
        };
        // One line for the terminal, whatever was given.
        ConfigError(text.replace(char::is_control, " "))
    }

    fn checked(self, schema: &Schema) -> Result<Self, ConfigError> {
        let example = schema.example(&self.key);
        let problem = example.and_then(|example| mismatch(&self.value, example));
        problem.map_or(Ok(()), |problem| Err(self.refused(&problem)))?;
        Ok(self)
    }
}

impl Provider for Setting {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut value = figment::value::Value::serialize(&self.value)?;
        for part in self.key.rsplit('.') {
            value = Dict::from([(part.to_owned(), value)]).into();
        }
        Ok(Profile::Default.collect(value.into_dict().unwrap_or_default()))
    }
}

/// The settings of a TOML file.
pub(super) fn file(schema: &Schema, path: &Path) -> Result<Vec<Setting>, ConfigError> {
    let told = |problem: &dyn std::fmt::Display| ConfigError(format!("{}: {problem}", path.display()));
    let mut text = String::new();
    let file = File::open(path).map_err(|e| told(&e))?;
    file.take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|e| told(&e))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(told(&format_args!("is larger than {MAX_FILE_BYTES} bytes")));
    }
    let table: Table = text.parse().map_err(|e: toml::de::Error| {
        let before = e
            .span()
            .and_then(|span| text.get(..span.start))
            .unwrap_or_default();
        told(&format_args!(
            "line {}: {}",
            before.matches('\n').count() + 1,
            e.message()
        ))
    })?;
    let mut settings = Vec::new();
    flatten(schema, (&table, ""), &path.display().to_string(), &mut settings)?;
    Ok(settings)
}

/// The settings of a table that is called `prefix`, which ends with a dot. A table in it is a section or a mistake.
fn flatten(
    schema: &Schema,
    (table, prefix): (&Table, &str),
    origin: &str,
    settings: &mut Vec<Setting>,
) -> Result<(), ConfigError> {
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        match (value, schema.example(&key)) {
            (Value::Table(section), Some(Value::Table(_))) => {
                flatten(schema, (section, &format!("{key}.")), origin, settings)?;
            }
            _ => settings.push(known(schema, key, value.clone(), origin)?),
        }
    }
    Ok(())
}

fn known(schema: &Schema, key: String, value: Value, origin: &str) -> Result<Setting, ConfigError> {
    if schema.example(&key).is_none() {
        return Err(unknown(&key, origin, schema.nearest(&key)));
    }
    let origin = origin.to_owned();
    Setting { key, value, origin }.checked(schema)
}

/// The settings among `variables`: those that begin with `SCONCE__`.
pub(super) fn environment(
    schema: &Schema,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<Setting>, ConfigError> {
    let mut settings = Vec::new();
    for (variable, text) in variables {
        // What is not UTF-8 becomes '\u{fffd}', which no key holds.
        let variable = variable.to_string_lossy();
        let Some(rest) = variable.strip_prefix(PREFIX) else {
            continue;
        };
        let origin = format!("environment {variable}");
        let key = rest.to_ascii_lowercase().replace("__", ".");
        let nearest = || schema.nearest(&key).map(|known| to_variable(&known));
        if schema.example(&key).is_none() {
            return Err(unknown(&key, &origin, nearest()));
        }
        let text = text
            .into_string()
            .map_err(|_| ConfigError(format!("{key} ({origin}): the value is not UTF-8")))?;
        settings.push(parse(schema, key, &text, origin)?);
    }
    Ok(settings)
}

fn to_variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"))
}

/// The settings of the command line.
pub(super) fn flags(schema: &Schema, flags: &[(&str, String)]) -> Result<Vec<Setting>, ConfigError> {
    let mut settings = Vec::new();
    for (key, text) in flags {
        let (key, origin) = ((*key).to_owned(), "command line".to_owned());
        if schema.example(&key).is_none() {
            return Err(unknown(&key, &origin, schema.nearest(&key)));
        }
        settings.push(parse(schema, key, text, origin)?);
    }
    Ok(settings)
}

/// A text as the key's type needs it: as it stands, or read as TOML reads a number or a switch.
fn parse(schema: &Schema, key: String, text: &str, origin: String) -> Result<Setting, ConfigError> {
    let as_text = || Value::String(text.to_owned());
    let value = match schema.example(&key) {
        Some(Value::String(_)) => as_text(),
        _ => text.trim().parse().unwrap_or_else(|_| as_text()),
    };
    Setting { key, value, origin }.checked(schema)
}

fn unknown(key: &str, origin: &str, nearest: Option<String>) -> ConfigError {
    let hint = nearest
        .map(|known| format!("; did you mean {known}?"))
        .unwrap_or_default();
    let text = format!("there is no key {key} ({origin}){hint}");
    ConfigError(text.replace(char::is_control, " "))
}
