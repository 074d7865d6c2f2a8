//! A verdict as one page without links to anything.

use super::super::html::{document, figure, section, tile};
use super::super::numbers::{grouped, percent, range};
use super::super::plots::escape;
use super::checks::{p_text, p_value, points};
use super::text::signed;
use super::{Coverage, DataReport, Harm, Pairs, Pinned, Share, Verdict, plots};

const OUTCOMES: &str = "Only images that one of both models answers right tell them apart. Equal bars are what chance \
                        gives.";
const RECALL: &str = "Change of recall with its 95 % interval. A class refuses the challenger where its drop is \
                      significant and reaches the dashed line.";
/// Suspect labels on the page; `gate.json` has more.
const SUSPECTS: usize = 25;

pub(super) fn page(verdict: &Verdict, title: &str) -> String {
    let parts = [
        head(verdict),
        tiles(verdict),
        section(
            "Checks",
            &table(&["Check", "Found", "Asked", ""], "wide", &checks(verdict)),
        ),
        section("Won and lost", &outcomes(verdict)),
        section("Recall by class", &classes(verdict)),
        verdict.new_examples.as_ref().map(data).unwrap_or_default(),
        verdict.pinned.as_ref().map(pinned).unwrap_or_default(),
        sets(&verdict.coverage),
        section("Rules", &rules(verdict)),
    ];
    document(title, &parts.concat())
}

fn head(verdict: &Verdict) -> String {
    let class = if verdict.blessed { " yes" } else { "" };
    let headline = escape(&verdict.headline());
    let reasons = match verdict.reasons.as_slice() {
        [] | [_] => String::new(),
        many => format!("<ul>{}</ul>", items(many)),
    };
    let warnings = match verdict.warnings.as_slice() {
        [] => String::new(),
        warnings => format!(
            "<p class=\"note-line\">Beside that:</p><ul>{}</ul>",
            items(warnings)
        ),
    };
    format!("<section class=\"verdict{class}\"><p>{headline}</p>{reasons}{warnings}</section>\n")
}

fn items(texts: &[String]) -> String {
    texts
        .iter()
        .map(|text| format!("<li>{}</li>", escape(text)))
        .collect()
}

fn tiles(verdict: &Verdict) -> String {
    let share = |name: &str, share: &Share| {
        let note = format!("95 %: {}", range(share.interval));
        tile(name, percent(share.value), note)
    };
    let test = &verdict.non_inferiority;
    let bound = format!("lower 95 % bound {}", signed(test.lower_bound));
    let tiles = [
        share("Champion", &verdict.champion),
        share("Challenger", &verdict.challenger),
        tile("Difference, points", signed(test.difference), bound),
        tile(
            "Images",
            grouped(verdict.n),
            verdict.uses.map(used).unwrap_or_default(),
        ),
    ];
    format!("<dl class=\"figures\">\n{}</dl>\n", tiles.concat())
}

fn used(uses: usize) -> String {
    match uses {
        1 => "their first verdict".to_owned(),
        uses => format!("their verdict number {uses}"),
    }
}

/// Rows of the table of checks, in the gate's order.
fn checks(verdict: &Verdict) -> Vec<Vec<String>> {
    let rules = &verdict.rules;
    let row = |check: &str, found: String, asked: String, passed: bool| {
        vec![check.to_owned(), found, asked, mark(passed)]
    };
    let mut rows = Vec::new();
    if let Some(data) = &verdict.new_examples {
        let found = format!(
            "{} of {} new examples kept",
            grouped(data.kept),
            grouped(data.examples)
        );
        rows.push(row(
            "New examples",
            found,
            format!("at least {}", data.rules.min_new),
            data.passed,
        ));
    }
    if let Some(pinned) = &verdict.pinned {
        let found = format!("{} of {} right", pinned.n - pinned.wrong.len(), pinned.n);
        rows.push(row(
            "Pinned images",
            found,
            "all".to_owned(),
            pinned.wrong.is_empty(),
        ));
    }
    let images = format!("at least {}", grouped(rules.min_images));
    rows.push(row(
        "Images",
        grouped(verdict.n),
        images,
        verdict.n >= rules.min_images,
    ));
    let test = &verdict.non_inferiority;
    rows.push(row(
        "Not worse",
        format!(
            "{} points, standard error {}, bound {}",
            signed(test.difference),
            points(test.standard_error),
            signed(test.lower_bound)
        ),
        format!("bound above −{}", points(test.margin)),
        test.passed,
    ));
    let any = verdict.superiority.iter().any(|one| one.passed);
    rows.extend(verdict.superiority.iter().map(|one| {
        let found = format!(
            "{} won, {} lost, {}, by Holm {}",
            one.pairs.won,
            one.pairs.lost,
            p_text(one.p),
            p_value(one.p_holm)
        );
        let name = format!("Better on {}", escape(&one.slice));
        row(
            &name,
            found,
            format!("p &lt; {} on one group", rules.alpha),
            one.passed || any,
        )
    }));
    let blocked = verdict.harm.iter().filter(|class| class.blocked).count();
    let asked = format!(
        "no drop of {} points with p &lt; {}",
        points(rules.max_class_drop),
        rules.alpha
    );
    rows.push(row(
        "No class loses",
        format!("{blocked} of {} do", verdict.harm.len()),
        asked,
        blocked == 0,
    ));
    let test = &verdict.calibration;
    rows.push(row(
        "Calibrated",
        format!(
            "error {:.4}, champion {:.4}",
            test.challenger_ece, test.champion_ece
        ),
        format!("at most {} more", test.max_rise),
        test.passed,
    ));
    rows.extend(verdict.coverage.iter().filter(|one| one.decides).map(|one| {
        let found = format!(
            "{} covered, champion {}",
            percent(one.challenger),
            percent(one.champion)
        );
        let asked = format!("at least {}, or not worse than the champion", percent(one.band));
        row(
            &format!("Sets on {}", escape(&one.slice)),
            found,
            asked,
            one.passed,
        )
    }));
    rows.extend(verdict.latency.iter().map(|test| {
        let found = format!(
            "{:.3} ms, champion {:.3} ms",
            test.challenger_p99 * 1e3,
            test.champion_p99 * 1e3
        );
        row(
            "99th percentile of one image",
            found,
            format!("at most {} times", test.max_ratio),
            test.passed,
        )
    }));
    rows
}

fn outcomes(verdict: &Verdict) -> String {
    let mut groups: Vec<(&str, Pairs)> = vec![("all images", verdict.non_inferiority.pairs)];
    let slices = verdict.superiority.iter().filter(|one| one.slice != "all images");
    groups.extend(slices.map(|one| (one.slice.as_str(), one.pairs)));
    let row = |(name, pairs): &(&str, Pairs)| {
        let counts = [pairs.both, pairs.won, pairs.lost, pairs.neither, pairs.n()];
        let counts = counts.map(grouped);
        std::iter::once(escape(name)).chain(counts).collect()
    };
    let rows: Vec<Vec<String>> = groups.iter().map(row).collect();
    let columns = ["Images", "Both right", "Won", "Lost", "Neither", "All"];
    figure(&plots::outcomes(&groups), OUTCOMES) + &table(&columns, "", &rows)
}

fn classes(verdict: &Verdict) -> String {
    let row = |class: &Harm| {
        let seen = class.smallest_drop_seen.map_or("none".to_owned(), points);
        vec![
            escape(&class.label),
            grouped(class.pairs.n()),
            grouped(class.pairs.won),
            grouped(class.pairs.lost),
            signed(-class.drop),
            p_value(class.p),
            p_value(class.p_holm),
            seen,
            mark(!class.blocked),
        ]
    };
    let rows: Vec<Vec<String>> = verdict.harm.iter().map(row).collect();
    let columns = [
        "Class",
        "Images",
        "Won",
        "Lost",
        "Recall, points",
        "p",
        "p by Holm",
        "Smallest drop seen",
        "",
    ];
    figure(
        &plots::recall(&verdict.harm, verdict.rules.max_class_drop),
        RECALL,
    ) + &table(&columns, "", &rows)
}

fn data(report: &DataReport) -> String {
    let source = |source: &super::intake::Source| {
        vec![
            escape(&source.name),
            grouped(source.examples),
            percent(source.share),
            grouped(source.disagreements),
            grouped(source.contradicted),
            percent(source.others),
            p_value(source.p_holm),
            mark(!source.suspicious),
        ]
    };
    let sources: Vec<Vec<String>> = report.sources.iter().map(source).collect();
    let columns = [
        "Source",
        "Examples",
        "Share of kept",
        "Disagree",
        "Contradicted",
        "Others",
        "p by Holm",
        "",
    ];
    let suspects = &report.suspects;
    let suspect = |one: &super::intake::Suspect| {
        vec![
            format!("{}…", escape(one.sha256.get(..12).unwrap_or(&one.sha256))),
            escape(&one.source),
            one.label.to_string(),
            one.champion.to_string(),
            format!("{:.1e}", one.confidence),
        ]
    };
    let ranked: Vec<Vec<String>> = suspects.ranked.iter().take(SUSPECTS).map(suspect).collect();
    let lead = format!(
        "<p class=\"note-line\">{} of {} judged labels differ from the champion's answer, and {} contradict it (at least \
         {} of all, {}). Of its {} mistakes on trusted images {} would look so; at most {} were to be expected.</p>\n",
        grouped(suspects.disagreements),
        grouped(suspects.judged),
        grouped(suspects.contradicted),
        percent(suspects.share_at_least),
        p_text(suspects.p),
        grouped(suspects.golden_errors),
        grouped(suspects.golden_contradicted),
        percent(suspects.expected_at_most)
    );
    let near = &report.near_duplicates;
    let alike = format!(
        "<p class=\"note-line\">{} groups of images that look alike, {} beyond the first of each, the largest of {}; {} \
         of them under another label. {} of the kept examples are held out.</p>\n",
        grouped(near.groups),
        grouped(near.beyond_first),
        grouped(near.largest),
        grouped(near.labels_differ),
        grouped(report.hold_out)
    );
    let counts: Vec<Vec<String>> = report
        .classes
        .iter()
        .map(|&(class, count)| vec![class.to_string(), grouped(count)])
        .collect();
    let notes = match report.notes.as_slice() {
        [] => String::new(),
        notes => format!("<ul class=\"notes\">{}</ul>\n", items(notes)),
    };
    let mut content = notes + &table(&columns, "", &sources) + &lead;
    if !ranked.is_empty() {
        content += "<h3>Labels to look at first</h3>\n";
        content += &table(
            &["Image", "Source", "Label", "Champion", "Its probability"],
            "",
            &ranked,
        );
    }
    content += &alike;
    content += "<h3>Kept examples by class number</h3>\n";
    content += &table(&["Class", "Examples"], "", &counts);
    section("New examples", &content)
}

fn pinned(pinned: &Pinned) -> String {
    if pinned.wrong.is_empty() {
        let text = format!(
            "<p class=\"note-line\">All {} are answered right.</p>\n",
            grouped(pinned.n)
        );
        return section("Pinned images", &text);
    }
    let row = |missed: &super::Missed| {
        vec![
            escape(&missed.file),
            escape(&missed.label),
            escape(&missed.answer),
            percent(missed.probability),
        ]
    };
    let rows: Vec<Vec<String>> = pinned.wrong.iter().map(row).collect();
    section(
        "Pinned images",
        &table(&["File", "Class", "Answer", "Probability"], "", &rows),
    )
}

fn sets(all: &[Coverage]) -> String {
    if all.is_empty() {
        return String::new();
    }
    let row = |one: &Coverage| {
        vec![
            escape(&one.slice),
            grouped(one.n),
            grouped(one.calibrated_on),
            percent(one.challenger),
            percent(one.champion),
            percent(one.band),
            format!("{:.2}", one.set_size),
            format!("{:.4}", one.threshold),
            p_value(one.p_holm),
            if one.decides {
                mark(one.passed)
            } else {
                "told only".to_owned()
            },
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    let columns = [
        "Images",
        "n",
        "Calibrated on",
        "Covered",
        "Champion",
        "Band",
        "Classes in a set",
        "From",
        "p by Holm",
        "",
    ];
    section("Sets of classes, 90 % nominal", &table(&columns, "", &rows))
}

fn rules(verdict: &Verdict) -> String {
    // Both are plain structs of numbers: as JSON each is an object.
    let mut value = serde_json::to_value(verdict.rules).unwrap_or_default();
    let data = value.as_object_mut().and_then(|rules| rules.remove("data"));
    let row = |prefix: &str, (key, value): (&String, &serde_json::Value)| {
        vec![format!("{prefix}{key}"), value.to_string()]
    };
    let own = value.as_object().into_iter().flatten().map(|pair| row("", pair));
    let data = data
        .as_ref()
        .and_then(|data| data.as_object())
        .into_iter()
        .flatten();
    let rows: Vec<Vec<String>> = own.chain(data.map(|pair| row("data.", pair))).collect();
    table(&["Rule", "Value"], "", &rows)
}

/// `columns` and `rows` are markup; the first cell of a row is its head.
fn table(columns: &[&str], class: &str, rows: &[Vec<String>]) -> String {
    let head: String = columns
        .iter()
        .map(|name| format!("<th scope=\"col\">{name}</th>"))
        .collect();
    let row = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(place, cell)| match place {
            0 => format!("<th scope=\"row\">{cell}</th>"),
            _ => format!("<td>{cell}</td>"),
        });
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    };
    let rows: String = rows.iter().map(row).collect();
    format!(
        "<div class=\"scroll\"><table class=\"{class}\">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n"
    )
}

fn mark(passed: bool) -> String {
    let (class, word) = if passed { ("ok", "ok") } else { ("no", "NO") };
    format!("<span class=\"{class}\">{word}</span>")
}
