//! `sconce evaluate --compare`: may one version take another's place?

use crate::config::Config;
use crate::evaluate::gate::Slice;
use crate::model::{ModelName, Version};
use crate::retrain::{self, Common, Compared, Comparison};

use super::super::retrain::failed;
use super::super::table::json;
use super::super::version;
use super::super::{CliError, print, write};
use super::{Args, Sample, images};

/// Prints the verdict; an error where it is no.
pub(super) fn run(args: &Args, config: &Config, versions: [Version; 2]) -> Result<(), CliError> {
    let comparison = comparison(&args.model, &args.sample, config, versions)?;
    if let Some(path) = &args.html {
        write(path, &comparison.html())?;
    }
    print(&if args.json {
        json(&comparison)?
    } else {
        comparison.text()
    })?;
    if comparison.verdict.blessed {
        Ok(())
    } else {
        Err(CliError::Refused("the gate says no".to_owned()))
    }
}

/// Champion and challenger on the same images, through the engine that serves.
pub(crate) fn comparison(
    model: &ModelName,
    sample: &Sample,
    config: &Config,
    versions: [Version; 2],
) -> Result<Comparison, CliError> {
    let [champion_version, challenger_version] = versions;
    if champion_version == challenger_version {
        return Err(CliError::Usage(
            "a version is not compared with itself".to_owned(),
        ));
    }
    let load = |version| version::load(config, Some(model), Some(version));
    let (champion, challenger) = (load(champion_version)?, load(challenger_version)?);
    let images = images(sample, &champion.spec, config)?;
    let plans = [
        version::compile(config, &champion)?,
        version::compile(config, &challenger)?,
    ];
    let compared = Compared {
        data: &images.data,
        indices: &images.indices,
        slices: vec![Slice {
            name: "all images".to_owned(),
            rows: (0..images.indices.len()).collect(),
        }],
        told: serde_json::to_value(&images.what).map_err(|e| CliError::Failed(e.to_string()))?,
        text: images.what.title(),
    };
    let common = Common {
        registry: &version::registry(config)?,
        model,
        spec: &champion.spec,
        rules: &config.gate,
        limits: &config.images,
    };
    retrain::compare(common, [&plans[0], &plans[1]], compared).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture::Models;
    use super::super::tests::{args, labelled};
    use super::*;

    #[test]
    fn a_verdict_on_too_few_images_is_no_and_says_so() {
        let models = Models::new(&["tiny"]);
        let versions = [models.publish("tiny", 1), models.publish("tiny", 2)];
        let args = args(labelled(&models));
        let comparison = comparison(&args.model, &args.sample, &models.config(), versions).unwrap();
        assert!(!comparison.verdict.blessed && comparison.verdict.n == 4);
        let title = "tiny: version 2 as challenger of version 1 on ";
        assert!(comparison.text().starts_with(title));
        let value: serde_json::Value = serde_json::from_str(&json(&comparison).unwrap()).unwrap();
        assert_eq!(
            value["reasons"][0],
            "4 images are fewer than the 1000 that a verdict needs"
        );
        assert_eq!(
            (&value["champion_version"], &value["blessed"]),
            (&1.into(), &false.into())
        );
        let refused = run(&args, &models.config(), versions).unwrap_err();
        assert!(matches!(refused, CliError::Refused(_)), "{refused}");
    }

    #[test]
    fn a_version_is_not_compared_with_itself_or_with_none() {
        let models = Models::new(&["tiny"]);
        let first = models.publish("tiny", 1);
        let Args { model, sample, .. } = args(labelled(&models));
        let check = |versions| comparison(&model, &sample, &models.config(), versions).unwrap_err();
        assert!(matches!(check([first, first]), CliError::Usage(_)));
        let missing: Version = "7".parse().unwrap();
        assert!(matches!(check([first, missing]), CliError::Data(_)));
    }
}
