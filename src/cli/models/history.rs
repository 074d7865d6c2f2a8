//! `sconce models history`.

use crate::config::Config;
use crate::model::{ModelName, Version};
use crate::registry::{Change, carried_out};

use super::super::table::{Align, json, table};
use super::super::version::{data, registry};
use super::super::{CliError, print};
use super::or_dash;

/// Flags of `sconce models history`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The model
    name: ModelName,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub(super) fn run(args: &Args, config: &Config) -> Result<(), CliError> {
    let registry = registry(config)?;
    let changes = registry.history(&args.name).map_err(data)?;
    print(&if args.json {
        json(&changes)?
    } else {
        let champion = registry.entry(&args.name).map_err(data)?.aliases.champion;
        text(&changes, champion)
    })
}

fn text(changes: &[Change], champion: Option<Version>) -> String {
    let columns = [
        ("AT", Align::Left),
        ("ACTION", Align::Left),
        ("ALIAS", Align::Left),
        ("FROM", Align::Right),
        ("TO", Align::Right),
        ("GATE", Align::Left),
        ("BY", Align::Left),
        ("REASON", Align::Left),
    ];
    let row = |(change, carried_out): (&Change, bool)| {
        let not = if carried_out { "" } else { ", not carried out" };
        vec![
            change.at.clone(),
            format!("{}{not}", change.action.name()),
            change.alias.name().to_owned(),
            or_dash(change.from),
            or_dash(change.to),
            gate(change),
            change.by.clone(),
            change.reason.clone().unwrap_or_default(),
        ]
    };
    let carried_out = carried_out(changes, champion);
    table(
        &columns,
        &changes.iter().zip(carried_out).map(row).collect::<Vec<_>>(),
    )
}

/// What the gate had to do with a change: `blessed`, `none`, `refused, forced`.
pub(super) fn gate(change: &Change) -> String {
    let forced = if change.forced { ", forced" } else { "" };
    format!("{}{forced}", change.verdict.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Action, Alias, Finding};

    #[test]
    fn a_change_is_a_line_that_no_terminal_obeys() {
        let change = Change {
            at: "2026-03-01T09:30:00.125Z".to_owned(),
            action: Action::Promote,
            alias: Alias::Champion,
            from: None,
            to: Some("2".parse().unwrap()),
            by: "me".to_owned(),
            reason: Some("why\nnot\u{1b}[31m".to_owned()),
            forced: true,
            verdict: Finding::Refused,
        };
        let expected = "\
AT                        ACTION   ALIAS     FROM  TO  GATE             BY  REASON
2026-03-01T09:30:00.125Z  promote  champion     –   2  refused, forced  me  why\u{fffd}not\u{fffd}[31m
";
        let changes = [change];
        assert_eq!(text(&changes, changes[0].to), expected);
        let not = text(&changes, None);
        assert!(not.contains("  promote, not carried out  champion  "), "{not}");
    }
}
