//! `--part`: which part of labelled images, where there are two.

use clap::ValueEnum;

use crate::dataset::Part;

/// [`Part`] as a flag; `dataset` knows no command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum WhichPart {
    Train,
    Test,
}

impl From<WhichPart> for Part {
    fn from(which: WhichPart) -> Self {
        match which {
            WhichPart::Train => Self::Train,
            WhichPart::Test => Self::Test,
        }
    }
}
