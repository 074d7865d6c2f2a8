//! `sconce config`: the configuration that holds, and where each value came from.

use crate::config::Resolved;

use super::{CliError, Common, print};

/// Flags of `sconce config`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON (values only) instead of TOML
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub(crate) fn run(args: &Args, common: &Common) -> Result<(), CliError> {
    let resolved = super::resolve(common, &[])?;
    print(&if args.json {
        json(&resolved)?
    } else {
        toml(&resolved)?
    })
}

fn json(resolved: &Resolved) -> Result<String, CliError> {
    let text = serde_json::to_string_pretty(&resolved.config);
    Ok(text.map_err(|e| CliError::Failed(e.to_string()))? + "\n")
}

/// TOML that can be read back; a comment tells the origin of what is not a default.
fn toml(resolved: &Resolved) -> Result<String, CliError> {
    let plain = toml::to_string(&resolved.config).map_err(|e| CliError::Failed(e.to_string()))?;
    let mut section = String::new();
    let mut text = String::new();
    for line in plain.lines() {
        text.push_str(line);
        if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.trim_end_matches(']'));
        } else if let Some((key, _)) = line.split_once(" = ")
            && let Some(origin) = resolved.origins.get(&format!("{section}{key}"))
        {
            text.push_str("  # ");
            text.push_str(origin);
        }
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    use super::*;

    #[test]
    fn the_text_reads_back_and_tells_origins() {
        let flags = [
            ("http.threads", "3".to_owned()),
            ("models", "a # \"b\" = [c]".to_owned()),
        ];
        let resolved = Config::resolve(None, &flags).unwrap();
        let text = toml(&resolved).unwrap();
        assert!(text.contains("\nthreads = 3  # command line\n"), "{text}");
        assert_eq!(toml::from_str::<Config>(&text).unwrap(), resolved.config);
        let values: Config = serde_json::from_str(&json(&resolved).unwrap()).unwrap();
        assert_eq!(values, resolved.config);
    }
}
