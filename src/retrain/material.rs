//! Everything that a run trains on and is judged on.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Value, json};

use crate::dataset::{Dataset, Split};
use crate::model::Spec;

use super::incoming::Incoming;
use super::library::Library;
use super::{Request, replay};

/// One training set, mixed of what came in and what is replayed, and the images on which the gate compares.
pub(super) struct Material {
    /// Training images first, then those held out; what came in is first in each.
    pub(super) data: Dataset,
    /// Of `data`.
    pub(super) split: Split,
    pub(super) golden: Golden,
    /// For the manifest.
    pub(super) told: Value,
    /// In a sentence: what is trained on.
    pub(super) text: String,
}

/// Images that no run has trained on.
pub(super) struct Golden {
    pub(super) data: Dataset,
    /// What the first of them are: `test`, `hold_out`, or nothing where there is no dataset.
    pub(super) base: Option<&'static str>,
    /// From this row on they are what came in and was held out.
    pub(super) incoming_from: usize,
}

impl Material {
    /// Mixes. `library` may be missing only where nothing is replayed.
    pub(super) fn mix(
        request: &Request,
        spec: &Spec,
        incoming: &Incoming,
        library: Option<&Library>,
        reservoir: usize,
    ) -> Self {
        let sides = library.map_or_else(Sides::none, |library| {
            Sides::choose(request, incoming, library, reservoir)
        });
        let mut data = Dataset::empty(spec);
        let parts = [
            (&incoming.split.train, &sides.train),
            (&incoming.split.hold_out, &sides.hold_out),
        ];
        let mut ends = [0; 2];
        for ((new, old), end) in parts.into_iter().zip(&mut ends) {
            data.extend_from(&incoming.data, new);
            if let Some(library) = library {
                data.extend_from(&library.train, old);
            }
            *end = data.len();
        }
        let split = Split {
            train: (0..ends[0]).collect(),
            hold_out: (ends[0]..ends[1]).collect(),
        };
        let golden = Golden::new(spec, incoming, library, &data.hashes[..ends[0]]);
        let told = told(&data, &split, incoming, library.map(|library| (library, &sides)));
        Self {
            text: text(incoming, library, &sides),
            data,
            split,
            golden,
            told,
        }
    }
}

/// Indices of a dataset's training part that a run uses.
struct Sides {
    train: Vec<usize>,
    hold_out: Vec<usize>,
}

impl Sides {
    fn none() -> Self {
        Self {
            train: Vec::new(),
            hold_out: Vec::new(),
        }
    }

    /// Without feedback the whole dataset; beside it what is replayed. One image is held out for nine that are trained on,
    /// so the reservoir of those held out is as much smaller.
    fn choose(request: &Request, incoming: &Incoming, library: &Library, reservoir: usize) -> Self {
        let (data, split) = (&library.train, &library.split);
        if !request.feedback {
            return Self {
                train: split.train.clone(),
                hold_out: split.hold_out.clone(),
            };
        }
        let hold_out = replay::reservoir(data, &split.hold_out, reservoir / 9);
        if request.without_replay {
            return Self {
                train: Vec::new(),
                hold_out,
            };
        }
        let count = replay::count(incoming.split.train.len(), request.replay_ratio);
        let known = replay::reservoir(data, &split.train, reservoir);
        Self {
            train: replay::draw(data, &known, count, request.seed),
            hold_out,
        }
    }
}

impl Golden {
    /// The dataset's test part, else its hold-out, and what came in and is held out; nothing that is `trained` on.
    fn new(spec: &Spec, incoming: &Incoming, library: Option<&Library>, trained: &[[u8; 32]]) -> Self {
        let mut data = Dataset::empty(spec);
        let base = library.map(|library| match &library.test {
            Some(test) => {
                data.extend_from(test, &(0..test.len()).collect::<Vec<_>>());
                "test"
            }
            None => {
                data.extend_from(&library.train, &library.split.hold_out);
                "hold_out"
            }
        });
        let trained: HashSet<&[u8; 32]> = trained.iter().collect();
        data.retain(|hash| !trained.contains(hash));
        let incoming_from = data.len();
        data.extend_from(&incoming.data, &incoming.split.hold_out);
        Self {
            data,
            base,
            incoming_from,
        }
    }

    /// Rows of what came in.
    pub(super) fn incoming(&self) -> Vec<usize> {
        (self.incoming_from..self.data.len()).collect()
    }

    /// In a few words; `dataset` is its name.
    pub(super) fn text(&self, dataset: &Value) -> String {
        let part = self.base.map(|base| {
            let part = base.replace('_', "-");
            let dataset = dataset.as_str().unwrap_or_default();
            format!("{} {part} images of {dataset}", self.incoming_from)
        });
        let new = self.data.len() - self.incoming_from;
        let new = (new > 0).then(|| format!("{new} of feedback, held out"));
        part.into_iter().chain(new).collect::<Vec<_>>().join(" and ")
    }

    /// Every part that is there, as a manifest names it, with its rows.
    pub(super) fn parts(&self) -> Vec<(&'static str, Vec<usize>)> {
        let base = self.base.map(|name| (name, (0..self.incoming_from).collect()));
        // Where nothing else is, it is what says how good the version is.
        let name = self.base.map_or("hold_out", |_| "feedback");
        let parts = base.into_iter().chain([(name, self.incoming())]);
        parts
            .filter(|(_, rows): &(_, Vec<usize>)| !rows.is_empty())
            .collect()
    }
}

/// What the manifest says of the data; nothing of it names a person's image but by sums.
fn told(data: &Dataset, split: &Split, incoming: &Incoming, library: Option<(&Library, &Sides)>) -> Value {
    let mut sources: BTreeMap<&str, usize> = BTreeMap::new();
    for example in &incoming.examples {
        *sources.entry(example.source.as_str()).or_default() += 1;
    }
    let replayed = library.map(|(library, sides)| {
        json!({
            "images": sides.train.len(),
            "per_class": per_class(&library.train, &sides.train),
            "dataset_sha256": library.train.sha256(),
        })
    });
    let test = library.and_then(|(library, _)| library.test.as_ref());
    json!({
        "name": library.map(|(library, _)| library.name.as_str()),
        "sha256": data.sha256(),
        "images": data.len(),
        "trained_on": split.train.len(),
        "hold_out": split.hold_out.len(),
        "test": test.map(|test| json!({"images": test.len(), "sha256": test.sha256()})),
        "feedback": {
            "images": incoming.data.len(),
            "sha256": incoming.data.sha256(),
            "trained_on": incoming.split.train.len(),
            "per_class": per_class(&incoming.data, &incoming.split.train),
            "hold_out": incoming.split.hold_out.len(),
            "sources": sources,
            "unreadable": incoming.unreadable,
        },
        "replay": replayed,
    })
}

/// How many of `indices` are of each class, in the network's order.
fn per_class(data: &Dataset, indices: &[usize]) -> Vec<usize> {
    let mut counts = vec![0; data.classes];
    for &index in indices {
        counts[data.labels[index] as usize] += 1;
    }
    counts
}

fn text(incoming: &Incoming, library: Option<&Library>, sides: &Sides) -> String {
    let new = incoming.split.train.len();
    match library {
        Some(library) => format!(
            "{new} images of feedback and {} of {}",
            sides.train.len(),
            library.name
        ),
        None => format!("{new} images of feedback"),
    }
}
