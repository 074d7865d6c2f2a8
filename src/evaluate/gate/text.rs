//! A verdict for a terminal.

use super::super::numbers::{counted, grouped, percent, range, shortened};
use super::checks::{p_text, p_value, points};
use super::{Harm, Share, Superiority, Verdict};

/// Longest name that is shown whole.
const LABEL: usize = 28;

pub(super) fn text(verdict: &Verdict) -> String {
    let mut text = format!("{}\n\n{}", head(verdict), quality(verdict));
    text += &superiority(&verdict.superiority);
    text += &trust(verdict);
    text += &evidence(verdict);
    text.push('\n');
    text + &harm(&verdict.harm)
}

fn head(verdict: &Verdict) -> String {
    if verdict.blessed {
        return "blessed: the challenger may be promoted".to_owned();
    }
    let mut text = "blessed: false".to_owned();
    for (index, reason) in verdict.reasons.iter().enumerate() {
        text += if index == 0 { ", because " } else { ";\n  and " };
        text += reason;
    }
    for warning in &verdict.warnings {
        text += "\nwarning: ";
        text += warning;
    }
    text
}

/// What is known beside the answers to the images.
fn evidence(verdict: &Verdict) -> String {
    let mut text = String::new();
    if let Some(data) = &verdict.new_examples {
        text += &format!(
            "new examples      {} kept of {}, {} contradicted  {}\n",
            grouped(data.kept),
            grouped(data.examples),
            grouped(data.suspects.contradicted),
            mark(data.passed)
        );
        data.notes
            .iter()
            .for_each(|note| text += &format!("                  {note}\n"));
    }
    if let Some(pinned) = &verdict.pinned {
        let right = pinned.n - pinned.wrong.len();
        text += &format!(
            "pinned images     {right} of {} right  {}\n",
            pinned.n,
            mark(right == pinned.n)
        );
    }
    for one in &verdict.coverage {
        text += &format!(
            "90 % sets         {}: {} covered, champion {}, band {}, {:.2} classes each  {}\n",
            shortened(&one.slice, LABEL),
            percent(one.challenger),
            percent(one.champion),
            percent(one.band),
            one.set_size,
            if one.decides {
                mark(one.passed)
            } else {
                "told only"
            }
        );
    }
    if let Some(uses) = verdict.uses {
        text += &format!("verdicts so far   {uses} on these images\n");
    }
    text
}

fn quality(verdict: &Verdict) -> String {
    let line = |name: &str, share: &Share| {
        format!(
            "{name:<17} {}  95 % {}\n",
            percent(share.value),
            range(share.interval)
        )
    };
    let test = &verdict.non_inferiority;
    format!(
        "images            {}\n{}{}difference        {} points, lower 95 % bound {}, allowed −{}  {}\n",
        counted(verdict.n, "image", "images"),
        line("champion", &verdict.champion),
        line("challenger", &verdict.challenger),
        signed(test.difference),
        signed(test.lower_bound),
        points(test.margin),
        mark(test.passed)
    )
}

fn superiority(all: &[Superiority]) -> String {
    let line = |one: &Superiority| {
        format!(
            "better on         {}: {} won, {} lost, {}  {}\n",
            shortened(&one.slice, LABEL),
            one.pairs.won,
            one.pairs.lost,
            p_text(one.p_holm),
            mark(one.passed)
        )
    };
    all.iter().map(line).collect()
}

fn trust(verdict: &Verdict) -> String {
    let test = &verdict.calibration;
    let mut text = format!(
        "calibration error {:.4}, champion {:.4}, allowed +{}  {}\n",
        test.challenger_ece,
        test.champion_ece,
        test.max_rise,
        mark(test.passed)
    );
    if let Some(test) = &verdict.latency {
        text += &format!(
            "p99 of one image  {:.3} ms, champion {:.3} ms, allowed {} times  {}\n",
            test.challenger_p99 * 1e3,
            test.champion_p99 * 1e3,
            test.max_ratio,
            mark(test.passed)
        );
    }
    text
}

fn harm(all: &[Harm]) -> String {
    let labels = all.iter().map(|class| shortened(&class.label, LABEL));
    let width = labels
        .map(|label| label.chars().count())
        .max()
        .unwrap_or(0)
        .max("class".len());
    let mut text = format!(
        "{:>width$}   images    won   lost   recall   p (Holm)  smallest drop seen\n",
        "class"
    );
    for class in all {
        let seen = class.smallest_drop_seen.map_or("none".to_owned(), points);
        text += &format!(
            "{:>width$}  {:>7}  {:>5}  {:>5}  {:>7}  {:>9}  {seen:>18}  {}\n",
            shortened(&class.label, LABEL),
            class.pairs.n(),
            class.pairs.won,
            class.pairs.lost,
            signed(-class.drop),
            p_value(class.p_holm),
            mark(!class.blocked)
        );
    }
    text
}

/// In points, with its sign.
pub(super) fn signed(share: f64) -> String {
    // No −0.00.
    let value = (share * 1e4).round() / 1e2 + 0.0;
    format!("{value:+.2}").replace('-', "−")
}

fn mark(passed: bool) -> &'static str {
    if passed { "ok" } else { "NO" }
}
