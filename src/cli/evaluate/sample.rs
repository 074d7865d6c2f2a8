//! The labelled images on which versions are measured.

use std::path::PathBuf;

use serde::Serialize;

use crate::config::Config;
use crate::dataset::{Dataset, Part, Source};
use crate::model::Spec;

use super::super::CliError;
use super::super::part::WhichPart;
use super::super::version;

/// Flags that name them.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Sample {
    /// Labelled images: a folder of idx files, a folder with one folder per label, or a CSV file with path,label
    #[arg(long, value_name = "PATH")]
    pub(crate) data: PathBuf,
    /// Which part of the data [default: test; train with --hold-out]
    #[arg(long, value_enum)]
    pub(crate) part: Option<WhichPart>,
    /// Only the images that training leaves out: those whose sha256 mod 10 is 0
    #[arg(long)]
    pub(crate) hold_out: bool,
}

/// What they are, for a report.
#[derive(Debug, Serialize)]
pub(super) struct Images {
    path: PathBuf,
    part: Part,
    hold_out: bool,
    /// Of the whole part: see [`Dataset::sha256`].
    sha256: String,
}

/// The images asked for.
pub(super) struct Labelled {
    pub(super) data: Dataset,
    pub(super) indices: Vec<usize>,
    /// By the place in `indices`.
    pub(super) labels: Vec<u32>,
    pub(super) what: Images,
}

/// Reads them as the model takes them.
pub(super) fn images(sample: &Sample, spec: &Spec, config: &Config) -> Result<Labelled, CliError> {
    let part = sample.part();
    let source = Source::detect(&sample.data, part).map_err(version::data)?;
    let data = Dataset::read(&source, spec, &config.images).map_err(version::data)?;
    let indices = if sample.hold_out {
        data.split().hold_out
    } else {
        (0..data.len()).collect()
    };
    let what = Images {
        path: sample.data.clone(),
        part,
        hold_out: sample.hold_out,
        sha256: data.sha256(),
    };
    Ok(Labelled {
        labels: indices.iter().map(|&index| data.labels[index]).collect(),
        data,
        indices,
        what,
    })
}

impl Sample {
    fn part(&self) -> Part {
        match (self.part, self.hold_out) {
            (Some(part), _) => part.into(),
            (None, true) => Part::Train,
            (None, false) => Part::Test,
        }
    }
}

impl Images {
    pub(super) fn title(&self) -> String {
        let part = match (self.part, self.hold_out) {
            (Part::Train, false) => "training images",
            (Part::Test, false) => "test images",
            (Part::Train, true) => "hold-out of the training images",
            (Part::Test, true) => "hold-out of the test images",
        };
        format!("{}, {part}", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hold_out_is_of_the_training_part_unless_told() {
        let check = |part, hold_out, expected| {
            let data = PathBuf::new();
            let sample = Sample { data, part, hold_out };
            assert_eq!(sample.part(), expected);
        };
        check(None, false, Part::Test);
        check(None, true, Part::Train);
        check(Some(WhichPart::Test), true, Part::Test);
        check(Some(WhichPart::Train), false, Part::Train);
    }
}
