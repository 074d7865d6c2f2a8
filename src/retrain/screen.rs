//! Whether what came in may be learnt from at all: checks that look at no new model.

use crate::store::Example;

use super::{Config, Incoming};

/// What the checks look at: the images that came in, and what the serving model says of them.
pub struct Screened<'a> {
    /// The images with label and source, decoded.
    pub incoming: &'a Incoming,
    /// The champion's probabilities, a row of one per class for each image; none where there is no champion.
    pub champion: Option<&'a [f64]>,
    /// The classes' names.
    pub names: &'a [String],
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The check's name.
    pub check: &'static str,
    /// Whether the images may be learnt from.
    pub passed: bool,
    /// Its figures as a sentence; where it failed, the reason.
    pub text: String,
}

/// Every check, in order. One that fails ends the run before an epoch is spent.
pub fn screen(screened: &Screened<'_>, config: &Config) -> Vec<Finding> {
    vec![enough(screened, config)]
}

fn enough(screened: &Screened<'_>, config: &Config) -> Finding {
    let (labels, needed) = (screened.incoming.split.train.len(), config.min_labels);
    let passed = labels >= needed;
    Finding {
        check: "labels",
        passed,
        text: if passed {
            format!("{labels} images of feedback to train on, {needed} are needed")
        } else {
            format!("{labels} images of feedback to train on are fewer than the {needed} that are needed")
        },
    }
}

impl Screened<'_> {
    /// Each image with the champion's probabilities of it.
    pub fn rows(&self) -> impl Iterator<Item = (&Example, Option<&[f64]>)> {
        let classes = self.names.len();
        let row = move |index: usize| {
            self.champion
                .and_then(|all| all.get(index * classes..(index + 1) * classes))
        };
        let examples = self.incoming.examples.iter().enumerate();
        examples.map(move |(index, example)| (example, row(index)))
    }
}
