//! `sconce evaluate`: a version's figures on labelled images.

use std::path::PathBuf;

use serde::Serialize;

use crate::config::Config;
use crate::evaluate::{self, EvaluateError, Report};
use crate::model::{ModelName, Version};

use super::table::json;
use super::version::{self, Which};
use super::{CliError, Common, print, write};

pub(crate) mod compare;
mod sample;

pub(crate) use sample::Sample;
use sample::{Images, images};

/// Flags of `sconce evaluate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model
    #[arg(long, value_name = "NAME")]
    model: ModelName,
    /// Its version [default: the champion]
    #[arg(long, value_name = "N")]
    version: Option<Version>,
    /// Compare two versions on the same images: may the second take the first one's place? Exit code 3 says no
    #[arg(long, value_names = ["CHAMPION", "CHALLENGER"], num_args = 2, conflicts_with = "version")]
    compare: Option<Vec<Version>>,
    #[command(flatten)]
    sample: Sample,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Also write a page with plots; of a comparison, the verdict with every number
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// A report with what it is about.
#[derive(Debug, Serialize)]
struct Evaluation {
    model: Which,
    data: Images,
    #[serde(flatten)]
    report: Report,
}

/// Runs it.
pub(crate) fn run(args: &Args, common: &Common) -> Result<(), CliError> {
    let config = super::config(common)?;
    if let Some(&[champion, challenger]) = args.compare.as_deref() {
        return compare::run(args, &config, [champion, challenger]);
    }
    let evaluation = evaluation(args, &config)?;
    if let Some(path) = &args.html {
        write(path, &evaluation.report.html(&evaluation.title()))?;
    }
    if args.json {
        print(&json(&evaluation)?)
    } else {
        print(&format!("{}\n\n{}", evaluation.title(), evaluation.report.text()))
    }
}

fn evaluation(args: &Args, config: &Config) -> Result<Evaluation, CliError> {
    let loaded = version::load(config, Some(&args.model), args.version)?;
    let plan = version::compile(config, &loaded)?;
    let images = images(&args.sample, &loaded.spec, config)?;
    let probabilities = evaluate::probabilities(&plan, &images.data, &images.indices).map_err(failure)?;
    Ok(Evaluation {
        model: Which::from(&loaded),
        report: evaluate::report(&probabilities, &images.labels, &loaded.spec.labels).map_err(failure)?,
        data: images.what,
    })
}

fn failure(error: EvaluateError) -> CliError {
    match error {
        EvaluateError::Engine(error) => version::engine(error),
        EvaluateError::Thread(_) => CliError::Failed(error.to_string()),
        other => version::data(other),
    }
}

impl Evaluation {
    fn title(&self) -> String {
        let Which { name, version } = &self.model;
        format!("{name} version {version} on {}", self.data.title())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::Value;

    use super::super::fixture::Models;
    use super::*;

    /// `test/<label>/<image>`: four images.
    pub(super) fn labelled(models: &Models) -> PathBuf {
        let root = models.path().join(".data");
        for (label, level) in [("a", 0), ("a", 90), ("b", 180), ("c", 255)] {
            fs::create_dir_all(root.join("test").join(label)).unwrap();
            models.image(&format!(".data/test/{label}/{level}.png"), level);
        }
        root
    }

    pub(super) fn args(data: PathBuf) -> Args {
        Args {
            model: "tiny".parse().unwrap(),
            version: None,
            compare: None,
            sample: Sample {
                data,
                part: None,
                hold_out: false,
            },
            json: false,
            html: None,
        }
    }

    #[test]
    fn a_folder_is_evaluated_by_the_champion() {
        let models = Models::new(&["tiny"]);
        models.publish("tiny", 1);
        let evaluation = evaluation(&args(labelled(&models)), &models.config()).unwrap();
        let support: Vec<usize> = evaluation
            .report
            .per_class
            .iter()
            .map(|class| class.support)
            .collect();
        assert_eq!((evaluation.report.n, support), (4, vec![2, 1, 1]));
        let title = evaluation.title();
        assert!(
            title.starts_with("tiny version 1 on ") && title.ends_with(".data, test images"),
            "{title}"
        );
        let value: Value = serde_json::from_str(&json(&evaluation).unwrap()).unwrap();
        assert_eq!(value["model"], serde_json::json!({"name": "tiny", "version": 1}));
        assert_eq!(
            (&value["n"], &value["data"]["part"]),
            (&Value::from(4), &Value::from("test"))
        );
        let page = models.path().join(".report.html");
        write(&page, &evaluation.report.html(&title)).unwrap();
        assert!(fs::read_to_string(page).unwrap().contains("tiny version 1 on"));
    }

    #[test]
    fn what_is_not_there_is_wrong_data() {
        let models = Models::new(&["tiny"]);
        let data = labelled(&models);
        let check = |args: Args, expected: &str| {
            let error = evaluation(&args, &models.config()).unwrap_err();
            assert!(
                matches!(error, CliError::Data(_)) && error.to_string().contains(expected),
                "{error}"
            );
        };
        check(args(data.clone()), "no champion");
        let version = Some(Version::FIRST);
        check(
            Args {
                version,
                ..args(data.clone())
            },
            "no version 1",
        );
        models.publish("tiny", 1);
        check(args(models.path().join(".nothing")), ".nothing");
        let model = "other".parse().unwrap();
        check(Args { model, ..args(data) }, "no model 'other'");
    }
}
