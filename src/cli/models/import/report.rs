//! What an import tells at the terminal: what was done, and what may be done next.

use std::fmt::Write as _;

use crate::config::Config;
use crate::model::Version;
use crate::registry::Entry;

use super::super::promotion;
use super::Checked;
use super::source::Source;
use super::subject::Subject;

/// For a terminal.
pub(super) fn text(checked: &Checked, entry: &Entry, version: Version, config: &Config) -> String {
    let folder = config.models.join(entry.name.as_str());
    let mut text = format!("{} version {version} is in {}\n", entry.name, folder.display());
    for (key, value) in facts(checked) {
        let _ = writeln!(text, "  {key:12} {value}");
    }
    text + &next(entry, version, config)
}

fn facts(checked: &Checked) -> [(&'static str, String); 5] {
    let Source { name, sha256, bytes } = &checked.source;
    let Subject { spec, preset, .. } = &checked.subject;
    let (labels, input) = (&spec.labels, spec.input);
    let ends = labels.first().zip(labels.last());
    let ends = ends.map(|(first, last)| format!("{first} … {last}"));
    let preset = preset.map(|preset| format!(", preset {}", preset.name()));
    let size = format!("{}×{}×{}", input.channels, input.height, input.width);
    let parameters = checked.graph.parameters();
    let took_ms = checked.forward.as_secs_f64() * 1000.0;
    [
        ("from", format!("{name}, {} bytes, sha256 {sha256}", bytes.len())),
        (
            "network",
            format!("{}, {parameters} parameters", spec.architecture),
        ),
        (
            "labels",
            format!("{}: {}", labels.len(), ends.unwrap_or_default()),
        ),
        ("input", size + &preset.unwrap_or_default()),
        ("forward pass", format!("{took_ms:.1} ms")),
    ]
}

fn next(entry: &Entry, version: Version, config: &Config) -> String {
    let name = &entry.name;
    let address = config.http.listen;
    let (path, answers) = if entry.aliases.champion == Some(version) {
        (String::new(), "It is the champion, so it answers.".to_owned())
    } else {
        let how = promotion(&config.models, name, version, "PATH");
        let how = format!("To let it answer: {how}");
        (format!("/versions/{version}"), how)
    };
    // A folder that had to be named here has to be named again.
    let models = if config.models == Config::default().models {
        String::new()
    } else {
        format!(" --models {}", config.models.display())
    };
    format!(
        "{answers}\n\nNext:\n  sconce models show {name}{models}\n  sconce serve{models}\n  \
         curl --data-binary @PHOTO.jpg -H 'content-type: image/jpeg' http://{address}/v1/models/{name}{path}/predict\n"
    )
}
