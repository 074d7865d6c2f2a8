//! `sconce data check`: what is wrong with a folder of images.

use std::path::PathBuf;

use clap::Subcommand;

use crate::config::Config;
use crate::dataset::Source;
use crate::dataset::check::{Report, check};
use crate::model::{ModelName, Spec};

use super::part::WhichPart;
use super::table::json;
use super::version;
use super::{CliError, Common, print};

/// Flags of `sconce data`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Report undecodable, wrong-sized, blank, duplicate and conflicting images, and count the classes
    ///
    /// PATH is a folder with idx files (train-images-idx3-ubyte[.gz] and so on), a folder with one folder of images
    /// per label (also below train/ and test/ or val/), or a CSV file with the columns path,label.
    ///
    /// Nothing is changed. Exit code 0 when the images can be trained on as they are; 65 when PATH cannot be read,
    /// when images are undecodable, when the same image stands under different labels, or when labels are not the
    /// model's. Duplicates, blank images and other sizes are reported without changing the exit code.
    Check(Check),
}

#[derive(Debug, clap::Args)]
struct Check {
    /// Folder or CSV file of labelled images
    path: PathBuf,
    /// Compare labels and sizes with this model's
    #[arg(long, value_name = "NAME")]
    model: Option<ModelName>,
    /// Which part to check, where there are two
    #[arg(long, value_enum, default_value_t = WhichPart::Train)]
    part: WhichPart,
    /// Print the whole report as JSON
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub(crate) fn run(args: &Args, common: &Common) -> Result<(), CliError> {
    let Command::Check(args) = &args.command;
    let config = super::config(common)?;
    let report = report(args, &config)?;
    if args.json {
        print(&json(&report)?)?;
    } else {
        print(&report.text())?;
    }
    match report.objection() {
        Some(objection) => Err(CliError::Data(format!("{}: {objection}", args.path.display()))),
        None => Ok(()),
    }
}

fn report(args: &Check, config: &Config) -> Result<Report, CliError> {
    let spec = args.model.as_ref().map(|name| spec(config, name)).transpose()?;
    Source::detect(&args.path, args.part.into())
        .and_then(|source| check(&source, spec.as_ref(), &config.images))
        .map_err(version::data)
}

fn spec(config: &Config, name: &ModelName) -> Result<Spec, CliError> {
    let entry = version::registry(config)?.entry(name);
    entry.map(|entry| entry.spec).map_err(version::data)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn write(path: &Path, bytes: &[u8]) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::File::create(path)
            .and_then(|mut file| file.write_all(bytes))
            .unwrap();
    }

    fn of(folder: &Path, flags: &[&str]) -> Result<Report, CliError> {
        let images = folder.join("images").display().to_string();
        let line = ["data", "check", &images]
            .into_iter()
            .chain(flags.iter().copied());
        let Command::Check(args) = Line::try_parse_from(line).unwrap().args.command;
        let config = Config {
            models: folder.join("models"),
            ..Config::default()
        };
        report(&args, &config)
    }

    #[test]
    fn flags_choose_the_model_and_the_part() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write(&root.join("images/train/cat/a.png"), b"text");
        write(&root.join("images/test/bird/b.png"), b"text");
        write(
            &root.join("models/pets/model.toml"),
            b"architecture = 'seed-cnn'\nlabels = ['cat', 'dog']\ninput = { channels = 1, height = 28, width = 28 }",
        );
        let labels = |flags: &[&str]| {
            let report = of(root, flags).unwrap();
            let labels: Vec<String> = report.classes.iter().map(|class| class.label.clone()).collect();
            (labels.join(" "), report.unknown_labels.len())
        };
        assert_eq!(labels(&[]), ("cat".to_owned(), 0));
        assert_eq!(labels(&["--part", "test"]), ("bird".to_owned(), 0));
        assert_eq!(labels(&["--model", "pets"]), ("cat dog".to_owned(), 0));
        assert_eq!(
            labels(&["--model", "pets", "--part", "test"]),
            ("cat dog bird".to_owned(), 1)
        );
        let error = of(root, &["--model", "plants"]).unwrap_err();
        assert!(
            matches!(&error, CliError::Data(text) if text.contains("plants")),
            "{error}"
        );
    }

    #[test]
    fn data_that_cannot_be_read_are_wrong_data() {
        let folder = tempfile::tempdir().unwrap();
        let error = of(folder.path(), &[]).unwrap_err();
        assert_eq!(error.code(), 65, "{error}");
    }
}
