//! How two models answer the same images.

use serde::{Deserialize, Serialize};

/// Counts of images by who is right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pairs {
    /// Both.
    pub both: usize,
    /// The champion alone: lost by the challenger.
    pub lost: usize,
    /// The challenger alone: won.
    pub won: usize,
    /// Neither.
    pub neither: usize,
}

impl Pairs {
    /// Of images, each with whether champion and challenger are right.
    pub(super) fn of(outcomes: impl Iterator<Item = [bool; 2]>) -> Self {
        let mut pairs = Self::default();
        for outcome in outcomes {
            *match outcome {
                [true, true] => &mut pairs.both,
                [true, false] => &mut pairs.lost,
                [false, true] => &mut pairs.won,
                [false, false] => &mut pairs.neither,
            } += 1;
        }
        pairs
    }

    /// Images.
    pub fn n(&self) -> usize {
        self.both + self.lost + self.won + self.neither
    }

    pub(super) fn champion_hits(&self) -> usize {
        self.both + self.lost
    }

    pub(super) fn challenger_hits(&self) -> usize {
        self.both + self.won
    }

    /// Images that the models answer differently, one of them rightly.
    pub(super) fn discordant(&self) -> usize {
        self.lost + self.won
    }

    /// The challenger's accuracy less the champion's; 0 without images.
    pub(super) fn difference(&self) -> f64 {
        (self.won as f64 - self.lost as f64) / self.n().max(1) as f64
    }

    /// Standard error of [`difference`](Self::difference).
    pub(super) fn standard_error(&self) -> f64 {
        let n = self.n().max(1) as f64;
        let change = self.won as f64 - self.lost as f64;
        (self.discordant() as f64 - change * change / n).max(0.0).sqrt() / n
    }
}
