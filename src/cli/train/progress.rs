//! What a person sees while a network trains.

use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

use crate::train::{EpochRecord, Event, Score};

/// A bar with loss and accuracy on a terminal, and one line per epoch anywhere; on standard error.
pub(super) struct Progress {
    epochs: usize,
    bar: Option<ProgressBar>,
}

const TEMPLATE: &str = "{prefix} {bar:30} {pos}/{len}  {msg}  {eta} left";

impl Progress {
    /// For runs of up to this many epochs.
    pub(super) fn new(epochs: usize) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template(TEMPLATE).expect("the template is a constant that parses");
            ProgressBar::new(0).with_style(style)
        });
        Self { epochs, bar }
    }

    /// Shows an event.
    pub(super) fn show(&mut self, event: Event<'_>) {
        match event {
            Event::Step {
                epoch,
                step,
                steps,
                score,
            } => self.step(epoch, (step, steps), score),
            Event::Epoch(history) => {
                if let Some(record) = history.epochs.last() {
                    self.epoch(record);
                }
            }
        }
    }

    fn step(&self, epoch: usize, (step, steps): (usize, usize), score: Score) {
        let Some(bar) = &self.bar else {
            return;
        };
        if step == 1 {
            bar.reset();
            bar.set_length(steps as u64);
            bar.set_prefix(format!("epoch {epoch}/{}", self.epochs));
        }
        bar.set_message(figures(score));
        bar.set_position(step as u64);
    }

    fn epoch(&self, record: &EpochRecord) {
        let line = line(record, self.epochs);
        match &self.bar {
            Some(bar) => bar.println(line),
            None => Self::say(&line),
        }
    }

    /// Removes the bar.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// One line on standard error.
    pub(super) fn say(line: &str) {
        // Nobody reads it where this fails, and the training is what matters.
        let _ = writeln!(io::stderr().lock(), "{line}");
    }
}

fn line(record: &EpochRecord, epochs: usize) -> String {
    let valid = record.valid.map(|score| format!("  hold-out {}", figures(score)));
    format!(
        "epoch {}/{epochs}  training {}{}  {:.1} s",
        record.epoch,
        figures(record.train),
        valid.unwrap_or_default(),
        record.seconds
    )
}

fn figures(score: Score) -> String {
    format!("loss {:.4} accuracy {:.2} %", score.loss, score.accuracy * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_tell_an_epoch() {
        let check = |valid, expected: &str| {
            let record = EpochRecord {
                epoch: 2,
                train: Score {
                    loss: 0.12345,
                    accuracy: 0.9561,
                },
                valid,
                learning_rate: 0.1,
                seconds: 21.04,
            };
            assert_eq!(line(&record, 6), expected);
        };
        check(None, "epoch 2/6  training loss 0.1235 accuracy 95.61 %  21.0 s");
        let valid = Score {
            loss: 0.5,
            accuracy: 1.0,
        };
        check(
            Some(valid),
            "epoch 2/6  training loss 0.1235 accuracy 95.61 %  hold-out loss 0.5000 accuracy 100.00 %  21.0 s",
        );
    }

    #[test]
    fn the_template_parses() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }
}
