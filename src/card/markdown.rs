//! A card as Markdown.

use std::fmt::Write as _;

use serde_json::Value;

use crate::evaluate::gate::{Verdict, p_text};
use crate::evaluate::{ClassReport, Interval};
use crate::registry::Change;

use super::{Card, Forced, Measured, deed};

pub(super) fn markdown(card: &Card) -> String {
    let aliases: Vec<&str> = card.aliases.iter().map(|alias| alias.name()).collect();
    let standing = match aliases.as_slice() {
        [] => String::new(),
        aliases => format!(" ({})", aliases.join(", ")),
    };
    let mut text = format!("# {} version {}{standing}\n\n", card.model, card.version);
    text += &forced(card);
    text += &barred(card);
    text += &format!("{}\n\n", inline(&card.intended_use));
    text += &section("Limits", &list(&card.limits));
    text += &section("Quality", &quality(&card.evaluation));
    text += &section("Gate", &gate(card));
    text += &section("Who let it serve", &history(card));
    text += &section("Where it comes from", &origin(card));
    text += &section("What it learnt from", &settings(&card.data));
    text += &section("How it was trained", &settings(&card.training));
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn section(title: &str, content: &str) -> String {
    format!("## {title}\n\n{}\n\n", content.trim_end())
}

fn list(items: &[String]) -> String {
    items.iter().fold(String::new(), |mut text, item| {
        let _ = writeln!(text, "- {}", inline(item));
        text
    })
}

/// Above all else: that somebody overruled the gate.
fn forced(card: &Card) -> String {
    let mut text = String::new();
    for Forced {
        change,
        times,
        latest,
    } in &card.forced
    {
        let again = match times {
            1 => String::new(),
            times => format!(" and {} times more, the last at {latest},", times - 1),
        };
        let _ = writeln!(
            text,
            "> **Promoted by force** at {}{again} by {}: {}. The gate had found: {}.",
            change.at,
            inline(&change.by),
            inline(change.reason.as_deref().unwrap_or("no reason")),
            change.verdict.name()
        );
        text.push('\n');
    }
    text
}

/// That nobody may let it serve any more.
fn barred(card: &Card) -> String {
    card.barred.as_ref().map_or_else(String::new, |bar| {
        let reason = inline(&bar.reason);
        format!("> **Not promoted any more** since {}: it {reason}.\n\n", bar.at)
    })
}

fn quality(evaluation: &[Measured]) -> String {
    let mut text = String::new();
    for measured in evaluation {
        let _ = write!(
            text,
            "On {} {} images: accuracy {}",
            measured.n,
            measured.part.replace('_', "-"),
            percent(measured.accuracy)
        );
        if let Some(interval) = measured.accuracy_interval {
            let _ = write!(text, " (95 %: {})", range(interval));
        }
        text += ".\n\n";
        if !measured.per_class.is_empty() {
            text += &classes(&measured.per_class);
            text.push('\n');
        }
    }
    if text.is_empty() {
        "Nothing was measured.".to_owned()
    } else {
        text
    }
}

fn classes(classes: &[ClassReport]) -> String {
    let row = |class: &ClassReport| {
        vec![
            inline(&class.label),
            class.support.to_string(),
            format!(
                "{} ({})",
                percent(class.precision),
                range(class.precision_interval)
            ),
            format!("{} ({})", percent(class.recall), range(class.recall_interval)),
            format!("{:.4}", class.f1),
        ]
    };
    let rows: Vec<Vec<String>> = classes.iter().map(row).collect();
    table(
        &["Class", "Images", "Precision, 95 %", "Recall, 95 %", "F1"],
        &rows,
    )
}

fn gate(card: &Card) -> String {
    let Some(value) = &card.gate else {
        return "It was not asked.".to_owned();
    };
    let Some(verdict) = card.verdict() else {
        let reasons = value["reasons"].as_array().into_iter().flatten();
        let reasons: Vec<String> = reasons.filter_map(Value::as_str).map(str::to_owned).collect();
        return format!("blessed: {}\n\n{}", value["blessed"], list(&reasons));
    };
    let mut text = match verdict.reasons.as_slice() {
        [] => "blessed: true\n".to_owned(),
        reasons => format!("blessed: false, because\n\n{}", list(reasons)),
    };
    let _ = writeln!(
        text,
        "\nCompared with version {} at {}.\n",
        value["champion_version"],
        inline(value["at"].as_str().unwrap_or("an unknown time"))
    );
    text += &list(&verdict.warnings);
    if !verdict.warnings.is_empty() {
        text.push('\n');
    }
    text + &figures(&verdict)
}

fn figures(verdict: &Verdict) -> String {
    let test = &verdict.non_inferiority;
    let mut rows = vec![
        ["Images".to_owned(), verdict.n.to_string()],
        [
            "Champion".to_owned(),
            format!(
                "{} (95 %: {})",
                percent(verdict.champion.value),
                range(verdict.champion.interval)
            ),
        ],
        [
            "This version".to_owned(),
            format!(
                "{} (95 %: {})",
                percent(verdict.challenger.value),
                range(verdict.challenger.interval)
            ),
        ],
        [
            "Difference, lower 95 % bound".to_owned(),
            format!(
                "{:+.2} points, {:+.2}",
                test.difference * 100.0,
                test.lower_bound * 100.0
            ),
        ],
    ];
    rows.extend(verdict.superiority.iter().map(|one| {
        let found = format!(
            "{} won, {} lost, {}",
            one.pairs.won,
            one.pairs.lost,
            p_text(one.p_holm)
        );
        [format!("Better on {}", inline(&one.slice)), found]
    }));
    let worst = verdict.harm.iter().max_by(|a, b| a.drop.total_cmp(&b.drop));
    rows.extend(worst.map(|class| {
        let found = format!(
            "class {}, {:+.2} points, {}",
            inline(&class.label),
            -class.drop * 100.0,
            p_text(class.p_holm)
        );
        ["Largest loss of recall".to_owned(), found]
    }));
    let test = &verdict.calibration;
    rows.push([
        "Calibration error".to_owned(),
        format!("{:.4}, champion {:.4}", test.challenger_ece, test.champion_ece),
    ]);
    rows.extend(verdict.latency.iter().map(|test| {
        let found = format!(
            "{:.3} ms, champion {:.3} ms",
            test.challenger_p99 * 1e3,
            test.champion_p99 * 1e3
        );
        ["99th percentile of one image".to_owned(), found]
    }));
    let rows: Vec<Vec<String>> = rows.into_iter().map(Vec::from).collect();
    table(&["Figure", "Value"], &rows)
}

fn history(card: &Card) -> String {
    let changes = &card.history;
    if changes.is_empty() {
        return "Nobody: no alias was ever given to it or taken from it by name.".to_owned();
    }
    let version =
        |version: Option<crate::model::Version>| version.map_or_else(|| "–".to_owned(), |v| v.to_string());
    let row = |change: &Change| {
        vec![
            change.at.clone(),
            deed(change).to_owned(),
            change.alias.name().to_owned(),
            format!("{} → {}", version(change.from), version(change.to)),
            change.verdict.name().to_owned(),
            inline(&change.by),
            inline(change.reason.as_deref().unwrap_or("")),
        ]
    };
    let rows: Vec<Vec<String>> = changes.iter().map(row).collect();
    let rows = table(
        &["At", "What", "Alias", "Versions", "Gate", "By", "Reason"],
        &rows,
    );
    if card.changes == changes.len() {
        return rows;
    }
    format!(
        "The latest {} of {} changes; `history.jsonl` has all.\n\n{rows}",
        changes.len(),
        card.changes
    )
}

fn origin(card: &Card) -> String {
    let origin = &card.origin;
    let parent = match (&origin.parent_model, origin.parent) {
        (_, None) => "none".to_owned(),
        (None, Some(version)) => format!("version {version}"),
        (Some(model), Some(version)) => format!("version {version} of {model}, another model"),
    };
    let items = [
        format!("parent: {parent}"),
        format!("trigger: {}", origin.trigger),
        format!("command: {}", origin.command),
        format!(
            "network: {}, {} trained numbers",
            origin.architecture, origin.parameters
        ),
        format!("seed: {}", origin.seed),
        format!("Sconce: {}", origin.sconce),
        format!(
            "weights: sha256 {}, {} bytes",
            origin.weights_sha256, origin.weights_bytes
        ),
    ];
    list(&items)
}

/// Every setting of an object, inner ones by their path; `not recorded` of anything else.
fn settings(value: &Value) -> String {
    let mut items = Vec::new();
    flatten("", value, &mut items);
    if items.is_empty() {
        "Not recorded.".to_owned()
    } else {
        list(&items)
    }
}

fn flatten(path: &str, value: &Value, items: &mut Vec<String>) {
    match value {
        Value::Null if path.is_empty() => {}
        Value::Object(object) => {
            for (key, value) in object {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                flatten(&path, value, items);
            }
        }
        Value::String(text) => items.push(format!("{path}: {text}")),
        other => items.push(format!("{path}: {other}")),
    }
}

/// `rows` are Markdown.
fn table(columns: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head: Vec<String> = columns.iter().map(|&name| name.to_owned()).collect();
    let rule = vec!["---".to_owned(); columns.len()];
    let rows = rows.iter().map(|row| line(row));
    line(&head) + &line(&rule) + &rows.collect::<String>()
}

/// Text that means itself in a line of Markdown: nobody's reason makes a heading, a table's cell or an element.
fn inline(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            '|' | '`' | '*' | '_' | '[' | ']' | '\\' => {
                escaped.push('\\');
                escaped.push(character);
            }
            control if control.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

fn range(interval: Interval) -> String {
    format!("{:.2}–{:.2} %", interval.low * 100.0, interval.high * 100.0)
}
