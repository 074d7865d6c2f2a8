//! The choice that timings lead to, and the reasons for it.

use serde::Serialize;

use super::{Asked, HANDING_SECONDS, NOISE, Split, Timing, Timings};

/// How a version is served.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Choice {
    /// Instances, and threads of each.
    #[serde(flatten)]
    pub split: Split,
    /// The largest batch.
    pub max_batch_size: usize,
    /// A sentence for each thing that was weighed.
    pub why: Vec<String>,
}

/// One candidate's timings, the batches ascending.
struct Row {
    split: Split,
    points: Vec<Timing>,
}

/// The split that serves most images per second, of those within the noise ([`NOISE`], or the spread of their rounds) the
/// one with the fewest threads; and its smallest batch within [`NOISE`] of its best. `None` where a split that is asked
/// about was not timed.
pub fn choose(asked: &Asked, cores: usize, timings: &Timings) -> Option<Choice> {
    if timings.max_batch < asked.max_batch {
        return None;
    }
    let row = |split| Row::of(split, asked, timings);
    let rows: Vec<Row> = asked.splits(cores).into_iter().map(row).collect();
    if rows.iter().any(|row| row.points.is_empty()) {
        return None;
    }
    let best = rows.iter().max_by(|a, b| a.rate().total_cmp(&b.rate()))?;
    let taken = rows
        .iter()
        .find(|row| row.rate() >= best.rate() * (1.0 - row.noise(best)))?;
    let (max_batch_size, batch) = taken.batch(asked);
    Some(Choice {
        split: taken.split,
        max_batch_size,
        why: vec![throughput(taken, best, &rows), latency(taken, &rows), batch],
    })
}

impl Row {
    fn of(split: Split, asked: &Asked, timings: &Timings) -> Self {
        let wanted = |point: &&Timing| point.split == split && (1..=asked.max_batch).contains(&point.batch);
        let mut points: Vec<Timing> = timings.points.iter().filter(wanted).copied().collect();
        points.sort_by_key(|point| point.batch);
        Self { split, points }
    }

    fn peak(&self) -> &Timing {
        let points = self.points.iter();
        let peak = points.max_by(|a, b| a.served_per_second().total_cmp(&b.served_per_second()));
        peak.expect("a row without points is not looked at")
    }

    /// Images per second at the best batch.
    fn rate(&self) -> f64 {
        self.peak().served_per_second()
    }

    /// The share of its rate by which `best` must be quicker.
    fn noise(&self, best: &Self) -> f64 {
        NOISE.max(self.peak().spread).max(best.peak().spread)
    }

    /// For the smallest batch.
    fn seconds(&self) -> f64 {
        self.points[0].seconds
    }

    /// The largest batch worth making, and why.
    fn batch(&self, asked: &Asked) -> (usize, String) {
        let max = asked.max_batch;
        if !asked.open_batch {
            return (
                max,
                format!("Batches have at most {max} images: batcher.max_batch_size is set."),
            );
        }
        let enough = self.rate() * (1.0 - NOISE);
        let mut points = self.points.iter();
        let knee = points
            .find(|point| point.served_per_second() >= enough)
            .map(|point| point.batch);
        let last = self.points[self.points.len() - 1].batch;
        if let Some(knee) = knee.filter(|&knee| knee < last) {
            let share = NOISE * 100.0;
            let why = format!(
                "Batches of more than {knee} add less than {share} % to the images/s and wait longer."
            );
            return (knee, why);
        }
        let more = if last < max {
            "; there was no time for larger ones"
        } else {
            ""
        };
        let why = format!("Images/s grow up to batches of {last}, the largest timed{more}.");
        (max, why)
    }
}

fn throughput(taken: &Row, best: &Row, rows: &[Row]) -> String {
    let (split, peak) = (taken.split, taken.peak());
    let most = format!("{:.0} images/s in batches of {}", taken.rate(), peak.batch);
    let handing = format!(
        "{:.0} µs of each batch counted for handing it over",
        HANDING_SECONDS * 1e6
    );
    if rows.len() == 1 {
        return format!("{split} (instances × threads) is the only split asked for: {most}, {handing}.");
    }
    if taken.split != best.split {
        return format!(
            "{split} (instances × threads) serves {most}, {handing}: within the noise of {:.0} %, what {} serves, with fewer \
             threads for a batch.",
            taken.noise(best) * 100.0,
            best.split
        );
    }
    let others = rows.iter().filter(|row| row.split != split);
    let others: Vec<String> = others
        .map(|row| format!("{} {:.0}", row.split, row.rate()))
        .collect();
    format!(
        "{split} (instances × threads) serves most: {most}, {handing}; {}.",
        others.join(", ")
    )
}

fn latency(taken: &Row, rows: &[Row]) -> String {
    let (split, alone) = (taken.split, ms(taken.seconds()));
    let quickest = rows.iter().min_by(|a, b| a.seconds().total_cmp(&b.seconds()));
    match quickest {
        Some(quickest) if quickest.seconds() < taken.seconds() * (1.0 - NOISE) => {
            let Split { instances, threads } = quickest.split;
            format!(
                "{} answers one image sooner: {} where {split} takes {alone}. Set engine.instances = {instances} and \
                 engine.threads = {threads} if that counts more.",
                quickest.split,
                ms(quickest.seconds())
            )
        }
        _ => format!("One image takes it {alone}, and no other split is quicker."),
    }
}

fn ms(seconds: f64) -> String {
    let ms = seconds * 1e3;
    let digits = if ms < 1.0 {
        3
    } else if ms < 100.0 {
        1
    } else {
        0
    };
    format!("{ms:.digits$} ms")
}

#[cfg(test)]
mod tests;
