//! `sconce models import`: weights trained elsewhere become a version of a model.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::Config;
use crate::engine::prepare_thread;
use crate::model::spec::Preset;
use crate::model::{Graph, Input, ModelName, Version};
use crate::registry::{
    self, Author, Finding, Grounds, Manifest, Promotion, Registry, RegistryError, WeightsFile,
};

use super::super::version::{self, data};
use super::super::{CliError, command_line, print};

mod foreign;
mod labels;
mod model_toml;
mod report;
mod source;
mod subject;
mod trial;

use source::Source;
use subject::Subject;

/// Flags of `sconce models import`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Weights as safetensors, from torchvision, timm or your own training
    file: PathBuf,
    /// The model's name: a new folder among the models
    #[arg(long, value_name = "NAME")]
    name: ModelName,
    /// The architecture, such as resnet18; docs/models.md lists them
    #[arg(long, value_name = "ARCHITECTURE", required_unless_present = "add_version")]
    arch: Option<String>,
    /// Class names in the order of the outputs: one a line, a JSON array, or ImageNet's JSON of numbers and names
    #[arg(long, value_name = "FILE", required_unless_present = "add_version")]
    labels: Option<PathBuf>,
    /// The input's channels, rows and columns [default: 3x224x224]
    #[arg(long, value_name = "CxHxW", value_parser = model_toml::input, conflicts_with = "size")]
    input: Option<Input>,
    /// Rows and columns of an input with three channels
    #[arg(long, value_name = "N")]
    size: Option<usize>,
    /// How images become inputs: imagenet, timm, inception or efficientnet-lite [default: imagenet for three channels;
    /// grey inputs are levels of 0 to 1]
    #[arg(long, value_name = "PRESET")]
    preset: Option<Preset>,
    /// One line for people
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// The model answers requests that name none
    #[arg(long)]
    default: bool,
    /// The model exists: check the file against its model.toml and add it as the next version
    #[arg(long, conflicts_with_all = ["arch", "labels", "input", "size", "preset", "description", "default"])]
    add_version: bool,
    /// What the added version is called from now on [default: it has no alias]
    #[arg(long, value_name = "ALIAS")]
    alias: Option<Alias>,
}

/// An alias that an import may give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Alias {
    /// It answers requests that name no version; the champion until now becomes the previous one.
    Champion,
    /// It is compared with the champion.
    Challenger,
}

/// What was checked before anything is written.
struct Checked {
    source: Source,
    subject: Subject,
    graph: Graph,
    /// Of one image through the compiled plan.
    forward: Duration,
}

/// Runs it.
pub(super) fn run(args: &Args, config: &Config) -> Result<(), CliError> {
    run_as(args, config, &command_line::text(std::env::args())).and_then(|text| print(&text))
}

/// Runs it under the command line that the manifest will tell; returns what to print.
fn run_as(args: &Args, config: &Config, command: &str) -> Result<String, CliError> {
    if args.alias == Some(Alias::Challenger) && !args.add_version {
        let text = "--alias challenger: a new model's only version is its champion";
        return Err(CliError::Usage(text.to_owned()));
    }
    prepare_thread();
    let registry = registry(config)?;
    let subject = Subject::read(args, &registry)?;
    let source = Source::read(&args.file)?;
    let graph = subject.spec.graph().map_err(data)?;
    let weights = trial::weights(&source, &subject.spec, &graph)?;
    let forward = trial::forward(config, &subject.spec, &graph, &weights)?;
    let checked = Checked {
        source,
        subject,
        graph,
        forward,
    };
    let manifest = checked.manifest(command);
    let name = &args.name;
    let version = match &checked.subject.text {
        Some(text) => registry.create(name, text, &weights, manifest),
        None => registry
            .keep_champion(name)
            .and_then(|()| registry.publish(name, &weights, manifest)),
    };
    let version = version.map_err(failed)?;
    if let Some(alias) = args.alias {
        give(alias, &registry, name, version).map_err(failed)?;
    }
    super::refresh_cards(&registry, name)?;
    let entry = registry.entry(name).map_err(failed)?;
    Ok(report::text(&checked, &entry, version, config))
}

fn registry(config: &Config) -> Result<Registry, CliError> {
    Registry::open(&config.models).map_err(|error| match error {
        RegistryError::Io { path, source } if source.kind() == std::io::ErrorKind::NotFound => data(format!(
            "{}: there is no such folder; make it, or name the folder of models with --models",
            path.display()
        )),
        other => data(other),
    })
}

fn give(alias: Alias, registry: &Registry, name: &ModelName, version: Version) -> Result<(), RegistryError> {
    let author = Author {
        by: "sconce models import".to_owned(),
        reason: Some(format!("imported as {}", alias.name())),
    };
    match alias {
        // The only version is it already; from now on it is so by name.
        Alias::Champion if registry.entry(name)?.aliases.champion == Some(version) => {
            registry.keep_champion(name)
        }
        Alias::Champion => {
            let grounds = Grounds::Forced {
                finding: Finding::None,
            };
            let promotion = Promotion { author, grounds };
            registry.promote(name, version, &promotion).map(drop)
        }
        Alias::Challenger => {
            let alias = registry::Alias::Challenger;
            registry.set_alias(name, alias, Some(version), &author).map(drop)
        }
    }
}

impl Alias {
    fn name(self) -> &'static str {
        match self {
            Self::Champion => "champion",
            Self::Challenger => "challenger",
        }
    }
}

impl Checked {
    fn manifest(&self, command: &str) -> Manifest {
        let Source { name, sha256, bytes } = &self.source;
        Manifest {
            format: Manifest::FORMAT,
            weights: WeightsFile::default(),
            architecture: self.subject.spec.architecture.clone(),
            parameters: self.graph.parameters(),
            parent: None,
            parent_model: None,
            sconce: env!("CARGO_PKG_VERSION").to_owned(),
            command: command.to_owned(),
            seed: 0,
            data: Value::Null,
            training: json!({"imported": {"file": name, "sha256": sha256, "bytes": bytes.len()}}),
            evaluation: Value::Null,
        }
    }
}

fn failed(error: RegistryError) -> CliError {
    match version::change(error) {
        CliError::Data(text) => CliError::Failed(text),
        other => other,
    }
}

#[cfg(test)]
mod tests;
