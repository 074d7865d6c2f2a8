//! Puts labelled images into a store without a server: add_samples STORE MODEL CLASSES FOLDER, where the images lie as
//! `FOLDER/<source>/<class>/<image>`. Prints how many were accepted.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use sconce::model::ModelName;
use sconce::store::{self, Classes, Key, Outcome, Sample, Store};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, model, classes, images] = &arguments[..] else {
        return Err("usage: add_samples STORE MODEL CLASSES FOLDER".into());
    };
    let model: ModelName = model.parse()?;
    let classes = Classes::from([(model.clone(), classes.parse()?)]);
    let config = store::Config {
        folder: PathBuf::from(folder),
        ..store::Config::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let accepted = runtime.block_on(add(&config, &model, &classes, Path::new(images)))?;
    writeln(&format!("{accepted} accepted"))
}

async fn add(
    config: &store::Config,
    model: &ModelName,
    classes: &Classes,
    images: &Path,
) -> Result<usize, Box<dyn Error>> {
    let store = Store::open(config).await?;
    let now_ms = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let mut accepted = 0;
    for (source, folder) in children(images)? {
        let source: Key = source.parse()?;
        for (label, folder) in children(&folder)? {
            for (_, path) in children(&folder)? {
                let sample = Sample {
                    model: model.clone(),
                    image: fs::read(&path)?.into(),
                    label: label.parse()?,
                    source: source.clone(),
                };
                let outcome = store.sample(&sample, classes, now_ms).await?;
                accepted += usize::from(outcome == Outcome::Accepted);
            }
        }
    }
    store.close().await;
    Ok(accepted)
}

/// Names and paths, by name.
fn children(folder: &Path) -> Result<Vec<(String, PathBuf)>, Box<dyn Error>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        all.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    all.sort();
    Ok(all)
}

fn writeln(text: &str) -> Result<(), Box<dyn Error>> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{text}").map_err(Into::into)
}
