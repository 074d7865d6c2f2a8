//! `sconce evaluate`: a version's figures on labelled images.

use std::path::PathBuf;

use serde::Serialize;

use crate::config::Config;
use crate::dataset::{Dataset, Part, Source};
use crate::evaluate::{self, EvaluateError, Report};
use crate::model::{ModelName, Spec, Version};

use super::part::WhichPart;
use super::table::json;
use super::version::{self, Which};
use super::{CliError, Common, print, write};

mod compare;

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
    #[arg(long, value_names = ["CHAMPION", "CHALLENGER"], num_args = 2, conflicts_with_all = ["version", "html"])]
    compare: Option<Vec<Version>>,
    /// Labelled images: a folder of idx files, a folder with one folder per label, or a CSV file with path,label
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Which part of the data [default: test; train with --hold-out]
    #[arg(long, value_enum)]
    part: Option<WhichPart>,
    /// Only the images that training leaves out: those whose sha256 mod 10 is 0
    #[arg(long)]
    hold_out: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Also write a page with plots
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

#[derive(Debug, Serialize)]
struct Images {
    path: PathBuf,
    part: Part,
    hold_out: bool,
    /// Of the whole part: see [`Dataset::sha256`].
    sha256: String,
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
    let images = images(args, &loaded.spec, config)?;
    let probabilities = evaluate::probabilities(&plan, &images.data, &images.indices).map_err(failure)?;
    Ok(Evaluation {
        model: Which::from(&loaded),
        report: evaluate::report(&probabilities, &images.labels, &loaded.spec.labels).map_err(failure)?,
        data: images.what,
    })
}

/// The images asked for.
struct Labelled {
    data: Dataset,
    indices: Vec<usize>,
    /// By the place in `indices`.
    labels: Vec<u32>,
    what: Images,
}

fn images(args: &Args, spec: &Spec, config: &Config) -> Result<Labelled, CliError> {
    let part = args.part();
    let source = Source::detect(&args.data, part).map_err(version::data)?;
    let data = Dataset::read(&source, spec, &config.images).map_err(version::data)?;
    let indices = if args.hold_out {
        data.split().hold_out
    } else {
        (0..data.len()).collect()
    };
    let what = Images {
        path: args.data.clone(),
        part,
        hold_out: args.hold_out,
        sha256: data.sha256(),
    };
    Ok(Labelled {
        labels: indices.iter().map(|&index| data.labels[index]).collect(),
        data,
        indices,
        what,
    })
}

fn failure(error: EvaluateError) -> CliError {
    match error {
        EvaluateError::Engine(error) => version::engine(error),
        EvaluateError::Thread(_) => CliError::Failed(error.to_string()),
        other => version::data(other),
    }
}

impl Args {
    fn part(&self) -> Part {
        match (self.part, self.hold_out) {
            (Some(part), _) => part.into(),
            (None, true) => Part::Train,
            (None, false) => Part::Test,
        }
    }
}

impl Images {
    fn title(&self) -> String {
        let part = match (self.part, self.hold_out) {
            (Part::Train, false) => "training images",
            (Part::Test, false) => "test images",
            (Part::Train, true) => "hold-out of the training images",
            (Part::Test, true) => "hold-out of the test images",
        };
        format!("{}, {part}", self.path.display())
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
            data,
            part: None,
            hold_out: false,
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

    #[test]
    fn the_hold_out_is_of_the_training_part_unless_told() {
        let check = |part, hold_out, expected| {
            let args = Args {
                part,
                hold_out,
                ..args(PathBuf::new())
            };
            assert_eq!(args.part(), expected);
        };
        check(None, false, Part::Test);
        check(None, true, Part::Train);
        check(Some(WhichPart::Test), true, Part::Test);
        check(Some(WhichPart::Train), false, Part::Train);
    }
}
