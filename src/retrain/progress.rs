//! What a run tells while it runs: one line of JSON for each event.

use serde::{Deserialize, Serialize};

use crate::evaluate::gate::intake::Suspect;
use crate::model::Version;

/// As many as fit a line that a supervisor reads.
pub const MAX_SUSPECTS: usize = 100;

/// Where a run stands, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Images are read, checked and mixed.
    Data,
    /// Epochs.
    Train,
    /// The weights become a version that nobody is answered by.
    Stage,
    /// The gate compares that version, as it would serve, with the champion.
    Gate,
    /// The version becomes the champion.
    Promote,
}

/// An event. As JSON an object whose `event` says which.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Progress {
    /// A phase begins.
    Phase {
        /// Which.
        phase: Phase,
    },
    /// An epoch is done, and its checkpoint is on the disk.
    Epoch(EpochDone),
    /// The gate has done a check.
    Check {
        /// Its name, such as `non_inferiority`.
        check: String,
        /// Whether it passed.
        passed: bool,
        /// Its figures as a sentence.
        text: String,
    },
    /// Labels of what came in that a person should look at, the likeliest to be wrong first; at most [`MAX_SUSPECTS`].
    Suspects {
        /// Each with what the champion sees.
        suspects: Vec<Suspect>,
    },
    /// Something that a person should know and that ends nothing.
    Note {
        /// What.
        text: String,
    },
    /// The run is over; the last event of one that did not fail.
    Finished(Finished),
}

/// An epoch's figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochDone {
    /// From 1.
    pub epoch: usize,
    /// Of how many, at most.
    pub epochs: usize,
    /// Mean loss over the training images, in nats.
    pub loss: f64,
    /// Share of the training images that were answered right.
    pub accuracy: f64,
    /// The same share over the images held out, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_out_accuracy: Option<f64>,
    /// Estimated time until training ends, in seconds.
    pub eta_seconds: f64,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// The version that was made; none of a dry run.
    pub version: Option<Version>,
    /// The gate's word; none of a dry run, or where there was no champion to compare with.
    pub blessed: Option<bool>,
    /// Why the gate said no: a sentence for each check that failed.
    pub reasons: Vec<String>,
    /// Whether the version is the champion now.
    pub promoted: bool,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_lines_that_are_read_back() {
        let check = |event: &Progress, expected: serde_json::Value| {
            let line = serde_json::to_string(event).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(
                serde_json::from_str::<serde_json::Value>(&line).unwrap(),
                expected
            );
            assert_eq!(&serde_json::from_str::<Progress>(&line).unwrap(), event);
        };
        let suspect = Suspect {
            sha256: "0".repeat(64),
            source: "ann".to_owned(),
            label: 7,
            champion: 1,
            confidence: 0.25,
        };
        let suspects = Progress::Suspects {
            suspects: vec![suspect],
        };
        let expected = json!({"event": "suspects", "suspects": [
            {"sha256": "0".repeat(64), "source": "ann", "label": 7, "champion": 1, "confidence": 0.25},
        ]});
        check(&suspects, expected);
        let phase = Progress::Phase { phase: Phase::Train };
        check(&phase, json!({"event": "phase", "phase": "train"}));
        let epoch = EpochDone {
            epoch: 1,
            epochs: 2,
            loss: 0.5,
            accuracy: 0.75,
            hold_out_accuracy: None,
            eta_seconds: 3.0,
        };
        let expected = json!({
            "event": "epoch", "epoch": 1, "epochs": 2, "loss": 0.5, "accuracy": 0.75, "eta_seconds": 3.0,
        });
        check(&Progress::Epoch(epoch), expected);
        let finished = Finished {
            version: Some(Version::FIRST),
            blessed: Some(false),
            reasons: vec!["recall of class 4 fell 3.10 points".to_owned()],
            promoted: false,
        };
        let expected = json!({
            "event": "finished", "version": 1, "blessed": false,
            "reasons": ["recall of class 4 fell 3.10 points"], "promoted": false,
        });
        check(&Progress::Finished(finished), expected);
    }
}
