//! `sconce predict FILE…`: classifies image files without a server.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::config::Config;
use crate::engine::{Plan, prepare_thread};
use crate::model::{ModelName, Version};
use crate::postprocess::{self, Detail, Labels, Prediction};
use crate::preprocess::pool::quiet_decoder_panics;
use crate::preprocess::{Limits, Preprocessor, decode};

use super::table::{Align, json, table};
use super::version::{self, Which};
use super::{CliError, Common, print};

/// Flags of `sconce predict`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Images; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The model [default: default_model of the configuration; else the one that says default = true; else the first]
    #[arg(long, value_name = "NAME")]
    model: Option<ModelName>,
    /// Its version [default: the champion]
    #[arg(long, value_name = "N")]
    version: Option<Version>,
    /// How many classes are listed, from 1 [default: http.default_top_k of the configuration]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    top_k: Option<u32>,
    /// Print JSON: an array with one entry per file
    #[arg(long)]
    json: bool,
}

/// One file's answer.
#[derive(Debug, Serialize)]
struct Entry {
    file: PathBuf,
    model: Which,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Outcome {
    Answered(Prediction),
    Failed { error: String },
}

/// Runs it.
pub(crate) fn run(args: &Args, common: &Common) -> Result<(), CliError> {
    let config = super::config(common)?;
    quiet_decoder_panics();
    let entries = entries(args, &config)?;
    print(&if args.json {
        json(&entries)?
    } else {
        text(&entries)
    })?;
    let failed = entries
        .iter()
        .filter(|entry| matches!(entry.outcome, Outcome::Failed { .. }))
        .count();
    if failed == 0 {
        return Ok(());
    }
    Err(CliError::Data(format!(
        "{failed} of {} files have no answer",
        entries.len()
    )))
}

fn entries(args: &Args, config: &Config) -> Result<Vec<Entry>, CliError> {
    let classifier = Classifier::new(args, config)?;
    prepare_thread();
    let entry = |file: &PathBuf| Entry {
        file: file.clone(),
        model: classifier.which.clone(),
        outcome: match classifier.predict(file) {
            Ok(prediction) => Outcome::Answered(prediction),
            Err(error) => Outcome::Failed { error },
        },
    };
    Ok(args.files.iter().map(entry).collect())
}

/// The serving path on one thread.
struct Classifier {
    which: Which,
    preprocessor: Preprocessor,
    plan: Arc<Plan>,
    labels: Labels,
    detail: Detail,
    limits: Limits,
    /// As a request's: what the server would refuse is refused here.
    max_file_bytes: usize,
}

impl Classifier {
    fn new(args: &Args, config: &Config) -> Result<Self, CliError> {
        let loaded = version::load(config, args.model.as_ref(), args.version)?;
        let top_k = args.top_k.map_or(config.http.default_top_k, |k| k as usize);
        Ok(Self {
            which: Which::from(&loaded),
            plan: version::compile(config, &loaded)?,
            labels: loaded
                .spec
                .labels
                .iter()
                .map(|label| Arc::from(label.as_str()))
                .collect(),
            preprocessor: Preprocessor::new(Arc::new(loaded.spec)),
            detail: Detail {
                top_k,
                probabilities: false,
            },
            limits: config.images,
            max_file_bytes: config.http.max_body_bytes,
        })
    }

    fn predict(&self, file: &Path) -> Result<Prediction, String> {
        let bytes = self.read(file)?;
        let pixels = decode(&bytes, &self.limits).map_err(|e| e.to_string())?;
        let tensor = self.preprocessor.tensor(pixels).map_err(|e| e.to_string())?;
        let mut logits = Vec::new();
        self.plan
            .run(&tensor, 1, &mut logits)
            .map_err(|e| e.to_string())?;
        postprocess::predict(&logits, &self.labels, self.detail).map_err(|e| e.to_string())
    }

    fn read(&self, file: &Path) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let limit = self.max_file_bytes as u64 + 1;
        let read = if file == Path::new("-") {
            io::stdin().lock().take(limit).read_to_end(&mut bytes)
        } else {
            File::open(file).and_then(|file| file.take(limit).read_to_end(&mut bytes))
        };
        read.map_err(|e| e.to_string())?;
        if bytes.len() > self.max_file_bytes {
            return Err(format!(
                "larger than {} bytes (http.max_body_bytes)",
                self.max_file_bytes
            ));
        }
        Ok(bytes)
    }
}

fn text(entries: &[Entry]) -> String {
    let columns = [
        ("FILE", Align::Left),
        ("LABEL", Align::Left),
        ("PROBABILITY", Align::Right),
        ("MARGIN", Align::Right),
        ("NEXT", Align::Left),
    ];
    let row = |entry: &Entry| {
        let file = entry.file.display().to_string();
        match &entry.outcome {
            Outcome::Answered(prediction) => vec![
                file,
                prediction.label.to_string(),
                format!("{:.4}", prediction.probability),
                format!("{:.4}", prediction.margin),
                next(prediction),
            ],
            Outcome::Failed { error } => {
                let none = "–".to_owned();
                vec![file, none.clone(), none.clone(), none, format!("error: {error}")]
            }
        }
    };
    table(&columns, &entries.iter().map(row).collect::<Vec<_>>())
}

/// The classes after the first, of those asked for.
fn next(prediction: &Prediction) -> String {
    let others = prediction.top_k.iter().skip(1);
    let others = others.map(|class| format!("{} {:.4}", class.label, class.probability));
    others.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::fixture::Models;
    use super::*;

    fn args(files: Vec<PathBuf>) -> Args {
        Args {
            files,
            model: None,
            version: None,
            top_k: Some(2),
            json: false,
        }
    }

    #[test]
    fn each_file_has_its_own_answer_or_error() {
        let models = Models::new(&["tiny"]);
        models.publish("tiny", 1);
        let (good, missing) = (models.image(".a.png", 200), models.path().join(".missing.png"));
        let entries = entries(&args(vec![good.clone(), missing, good]), &models.config()).unwrap();
        let value: Value = serde_json::from_str(&json(&entries).unwrap()).unwrap();
        assert_eq!(value[0], value[2]);
        let first = value[0].as_object().unwrap();
        let keys: Vec<&str> = first.keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "file",
                "index",
                "label",
                "margin",
                "model",
                "probability",
                "top_k"
            ]
        );
        assert_eq!(first["model"], serde_json::json!({"name": "tiny", "version": 1}));
        assert_eq!(first["top_k"].as_array().unwrap().len(), 2);
        assert!(value[1]["error"].as_str().unwrap().contains("No such file"));
        let text = text(&entries);
        assert_eq!(text.lines().count(), 4);
        assert!(
            text.lines().nth(2).unwrap().contains("–  error: No such file"),
            "{text}"
        );
    }

    #[test]
    fn what_a_server_would_refuse_is_refused() {
        let models = Models::new(&["tiny"]);
        models.publish("tiny", 1);
        let check = |change: &dyn Fn(&mut Config), expected: &str| {
            let mut config = models.config();
            change(&mut config);
            let entries = entries(&args(vec![models.image(".a.png", 200)]), &config).unwrap();
            let Outcome::Failed { error } = &entries[0].outcome else {
                panic!("{entries:?}");
            };
            assert!(error.contains(expected), "{error}");
        };
        check(&|config| config.http.max_body_bytes = 20, "larger than 20 bytes");
        check(&|config| config.images.max_side = 7, "8×8");
    }
}
