//! Labels of a source to classes of a model.

use std::collections::HashMap;

use crate::model::text::on_one_line;

/// A label as its source writes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Label {
    /// A class number, in idx files.
    Class(u32),
    /// A name, in folders and CSV files.
    Name(String),
}

/// The labels of a spec, by name and number.
pub(super) struct Labels<'a> {
    names: &'a [String],
    classes: HashMap<&'a str, u32>,
}

/// How alike (1 less the share of letters to change, Damerau and Levenshtein) a name must be to be offered.
const LIKENESS: f64 = 0.6;

impl<'a> Labels<'a> {
    /// Of a spec's labels.
    pub(super) fn new(names: &'a [String]) -> Self {
        let classes = names.iter().map(String::as_str).zip(0..).collect();
        Self { names, classes }
    }

    /// The class of a label; the error says what would be right.
    pub(super) fn class(&self, label: &Label) -> Result<u32, String> {
        match label {
            Label::Class(class) if (*class as usize) < self.names.len() => Ok(*class),
            Label::Class(class) => Err(format!(
                "class {class}: the model has {} classes, numbered from 0",
                self.names.len()
            )),
            Label::Name(name) => match self.classes.get(name.as_str()) {
                Some(class) => Ok(*class),
                None => {
                    let (name, hint) = (on_one_line(name), self.hint(name));
                    Err(format!("'{name}' is not a label of the model{hint}"))
                }
            },
        }
    }

    /// The name of a class, where the spec has it.
    pub(super) fn name(&self, class: u32) -> Option<&'a str> {
        self.names.get(class as usize).map(String::as_str)
    }

    fn hint(&self, name: &str) -> String {
        let like = |other: &&String| {
            strsim::normalized_damerau_levenshtein(&name.to_lowercase(), &other.to_lowercase())
        };
        let best = self.names.iter().max_by(|a, b| like(a).total_cmp(&like(b)));
        match best {
            Some(best) if like(&best) >= LIKENESS => format!("; did you mean '{best}'?"),
            _ => {
                let some: Vec<&str> = self.names.iter().take(5).map(String::as_str).collect();
                let more = if self.names.len() > 5 { ", …" } else { "" };
                format!(", whose labels are {}{more}", some.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_become_classes_or_say_what_would_be_right() {
        let names = ["cat", "dog", "Ankle boot"].map(String::from);
        let labels = Labels::new(&names);
        let check = |label: Label, expected: Result<u32, &str>| {
            assert_eq!(labels.class(&label), expected.map_err(str::to_owned), "{label:?}");
        };
        let name = |text: &str| Label::Name(text.to_owned());
        check(name("dog"), Ok(1));
        check(Label::Class(2), Ok(2));
        check(
            Label::Class(3),
            Err("class 3: the model has 3 classes, numbered from 0"),
        );
        check(
            name("ankle-boot"),
            Err("'ankle-boot' is not a label of the model; did you mean 'Ankle boot'?"),
        );
        check(
            name("xyz"),
            Err("'xyz' is not a label of the model, whose labels are cat, dog, Ankle boot"),
        );
        check(
            name("x\ny"),
            Err("'x\u{fffd}y' is not a label of the model, whose labels are cat, dog, Ankle boot"),
        );
    }
}
