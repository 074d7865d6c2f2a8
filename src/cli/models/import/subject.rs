//! What the imported weights are to be: a new model, or a version of one that exists.

use crate::model::spec::Preset;
use crate::model::{Input, Spec};
use crate::registry::{Registry, RegistryError};

use super::super::super::CliError;
use super::super::super::version::data;
use super::model_toml::New;
use super::{Args, labels};

/// The size that ImageNet's classifiers are published for.
const SIDE: usize = 224;

/// A model, as it will be.
pub(super) struct Subject {
    pub(super) spec: Spec,
    /// The `model.toml` of a new model; `None` where the model exists.
    pub(super) text: Option<String>,
    /// Of a new model.
    pub(super) preset: Option<Preset>,
}

impl Subject {
    /// Reads the existing model, or puts a new one together.
    pub(super) fn read(args: &Args, registry: &Registry) -> Result<Self, CliError> {
        let existing = match registry.entry(&args.name) {
            Ok(entry) => Some(entry.spec),
            Err(RegistryError::NoModel(_)) => None,
            // Its folder is there: a new model cannot be, and a version has nothing to be checked against.
            Err(error) => return Err(data(error)),
        };
        match (existing, args.add_version) {
            (Some(spec), true) => Ok(Self {
                spec,
                text: None,
                preset: None,
            }),
            (Some(_), false) => Err(data(format!(
                "there is a model '{}' already; take another --name, or add a version to it with --add-version, \
                 for which its model.toml says architecture and labels",
                args.name
            ))),
            (None, true) => Err(data(format!(
                "there is no model '{}' to add a version to; without --add-version it is made",
                args.name
            ))),
            (None, false) => Self::new(args, registry),
        }
    }

    fn new(args: &Args, registry: &Registry) -> Result<Self, CliError> {
        // clap waives a `requires` whose flag is in conflict with others that are given.
        if args.alias.is_some() {
            let problem = "--alias goes with --add-version; the first version of a new model is its champion";
            return Err(CliError::Usage(problem.to_owned()));
        }
        if args.default {
            refuse_second_default(registry)?;
        }
        // clap has made sure of both flags.
        let architecture = args.arch.as_deref().unwrap_or_default();
        let labels = match &args.labels {
            Some(path) => labels::of_file(path)?,
            None => Vec::new(),
        };
        let side = args.size.unwrap_or(SIDE);
        let input = args.input.unwrap_or(Input {
            channels: 3,
            height: side,
            width: side,
        });
        let preset = args.preset.or_else(|| usual(architecture, input));
        let told = format!("{architecture}, {} classes.", labels.len());
        let text = New {
            description: args.description.as_deref().unwrap_or(&told),
            default: args.default,
            architecture,
            input,
            preset,
            labels: &labels,
        };
        let text = text.text();
        let spec =
            Spec::parse(&text).map_err(|e| CliError::Data(e.to_string().replace("model.toml: ", "")))?;
        Ok(Self {
            spec,
            text: Some(text),
            preset,
        })
    }
}

/// The preset that most published weights of an architecture were trained with.
fn usual(architecture: &str, input: Input) -> Option<Preset> {
    match architecture {
        _ if input.channels != 3 => None,
        "efficientnet_lite0" => Some(Preset::EfficientnetLite),
        "efficientnet_b0" => Some(Preset::Timm),
        _ => Some(Preset::Imagenet),
    }
}

fn refuse_second_default(registry: &Registry) -> Result<(), CliError> {
    let entries = registry.list().map_err(data)?;
    match entries.iter().find(|entry| entry.spec.default) {
        Some(entry) => Err(data(format!(
            "--default: model '{}' says default = true already; one may",
            entry.name
        ))),
        None => Ok(()),
    }
}
