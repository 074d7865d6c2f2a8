//! What `sconce doctor` found, as data and as text.

use std::io;
use std::path::PathBuf;

use serde::Serialize;

use super::super::table::{Align, table};
use crate::engine::machine::Machine;
use crate::engine::tune::{Choice, Split, Timing, Timings};
use crate::model::{ModelName, Version};
use crate::registry::Loaded;

/// A run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) format: u32,
    /// The program's version.
    pub(super) sconce: String,
    pub(super) machine: Able,
    /// Sentences.
    pub(super) warnings: Vec<String>,
    pub(super) versions: Vec<Examined>,
}

/// The machine and what it can do.
#[derive(Debug, Serialize)]
pub(super) struct Able {
    #[serde(flatten)]
    pub(super) machine: Machine,
    /// The vector instructions that were timed.
    pub(super) used: String,
    pub(super) figures: Vec<Figures>,
}

/// Of so many threads together.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    pub(super) threads: usize,
    /// 10⁹ multiplications and additions per second.
    pub(super) gflops: f64,
    /// 10⁹ bytes read from memory per second.
    pub(super) read_gbytes: f64,
}

/// A version.
#[derive(Debug, Serialize)]
pub(super) struct Examined {
    pub(super) name: ModelName,
    pub(super) version: Version,
    pub(super) architecture: String,
    pub(super) flops_per_image: u64,
    pub(super) timings: Vec<Timed>,
    pub(super) choice: Choice,
    /// The file that keeps the timings.
    pub(super) kept: Option<PathBuf>,
    /// Why there is none.
    pub(super) not_kept: Option<String>,
}

/// A split at a batch.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Timed {
    #[serde(flatten)]
    pub(super) split: Split,
    pub(super) batch: usize,
    pub(super) ms_per_image: f64,
    /// (slowest − quickest round) / median.
    pub(super) spread: f64,
    /// Of all instances.
    pub(super) images_per_second: f64,
}

impl Report {
    /// The only format there is.
    pub(super) const FORMAT: u32 = 1;
}

impl Able {
    pub(super) fn text(&self) -> String {
        let Machine {
            cpu,
            instructions,
            cores,
        } = &self.machine;
        let mut text = format!(
            "processor     {cpu}\ninstructions  {} (timed: {})\ncores         {}\n\n",
            instructions.join(", "),
            self.used,
            cores.told()
        );
        let columns = [
            ("THREADS", Align::Right),
            ("GFLOP/s", Align::Right),
            ("GB/s READ", Align::Right),
            ("FLOP PER BYTE", Align::Right),
        ];
        let row = |figures: &Figures| {
            vec![
                figures.threads.to_string(),
                format!("{:.1}", figures.gflops),
                format!("{:.1}", figures.read_gbytes),
                format!("{:.1}", figures.flop_per_byte()),
            ]
        };
        text.push_str(&table(
            &columns,
            &self.figures.iter().map(row).collect::<Vec<_>>(),
        ));
        if let Some(all) = self.figures.last() {
            text.push_str(&format!(
                "A layer that does fewer than {:.0} operations for each byte it moves from memory waits for memory.\n",
                all.flop_per_byte()
            ));
        }
        text
    }
}

impl Figures {
    /// The operations that are done while a byte is read.
    fn flop_per_byte(&self) -> f64 {
        self.gflops / self.read_gbytes
    }
}

impl Examined {
    pub(super) fn new(
        loaded: &Loaded,
        timings: &Timings,
        choice: Choice,
        kept: io::Result<Option<PathBuf>>,
    ) -> Self {
        let (kept, not_kept) = match kept {
            Ok(Some(path)) => (Some(path), None),
            Ok(None) => (None, Some("engine.cache is empty".to_owned())),
            Err(error) => (None, Some(format!("engine.cache: {error}"))),
        };
        Self {
            name: loaded.name.clone(),
            version: loaded.version,
            architecture: loaded.spec.architecture.clone(),
            flops_per_image: loaded.graph.flops(),
            timings: timings.points.iter().map(Timed::from).collect(),
            choice,
            kept,
            not_kept,
        }
    }

    pub(super) fn title(&self) -> String {
        format!("{} version {}", self.name, self.version)
    }

    pub(super) fn text(&self) -> String {
        let Choice {
            split: Split { instances, threads },
            max_batch_size,
            why,
        } = &self.choice;
        let kept = match (&self.kept, &self.not_kept) {
            (Some(path), _) => format!(
                "kept in {}; `sconce serve` takes it for keys that are 0",
                path.display()
            ),
            (None, why) => format!("not kept: {}", why.as_deref().unwrap_or_default()),
        };
        format!(
            "\n{}: {}, {:.2} MFLOP per image\n{}engine.instances = {instances}, engine.threads = {threads}, \
             batcher.max_batch_size = {max_batch_size}\n{}{kept}\n",
            self.title(),
            self.architecture,
            self.flops_per_image as f64 / 1e6,
            self.table(),
            why.iter().map(|line| format!("- {line}\n")).collect::<String>()
        )
    }

    /// A row for each batch; two columns for each split.
    fn table(&self) -> String {
        let first = self.timings.first().map_or(0, |timed| timed.batch);
        let splits = self.timings.iter().take_while(|timed| timed.batch == first);
        let names: Vec<[String; 2]> = splits
            .map(|timed| [format!("{} ms/IMAGE", timed.split), "IMAGES/s".to_owned()])
            .collect();
        let mut columns = vec![("BATCH", Align::Right)];
        columns.extend(names.iter().flatten().map(|name| (&**name, Align::Right)));
        let row = |batch: &[Timed]| {
            let figures = batch.iter().flat_map(|timed| {
                [
                    format!("{:.4}", timed.ms_per_image),
                    format!("{:.0}", timed.images_per_second),
                ]
            });
            std::iter::once(batch[0].batch.to_string())
                .chain(figures)
                .collect()
        };
        let rows: Vec<Vec<String>> = self
            .timings
            .chunk_by(|a, b| a.batch == b.batch)
            .map(row)
            .collect();
        table(&columns, &rows)
    }
}

impl From<&Timing> for Timed {
    fn from(timing: &Timing) -> Self {
        Self {
            split: timing.split,
            batch: timing.batch,
            ms_per_image: timing.seconds_per_image() * 1e3,
            spread: timing.spread,
            images_per_second: timing.images_per_second(),
        }
    }
}

/// Nothing where there are none.
pub(super) fn warnings_text(warnings: &[String]) -> String {
    warnings
        .iter()
        .map(|warning| format!("\nwarning: {warning}"))
        .collect::<String>()
        + if warnings.is_empty() { "" } else { "\n" }
}
