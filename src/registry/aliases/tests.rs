//! Tests of promotions, rollbacks and aliases, with disks that fail and writers at once.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::super::tests::{manifest, registry, weights};
use super::*;
use crate::registry::atomic::faults;

/// A model of `versions` versions, the first of them the champion.
fn model(versions: u64) -> (TempDir, Registry, ModelName) {
    let (folder, registry, name) = registry();
    for seed in 0..versions {
        registry.keep_champion(&name).unwrap();
        registry.publish(&name, &weights(seed), manifest()).unwrap();
    }
    (folder, registry, name)
}

fn version(number: u32) -> Version {
    number.to_string().parse().unwrap()
}

fn author(reason: Option<&str>) -> Author {
    Author {
        by: "a test".to_owned(),
        reason: reason.map(str::to_owned),
    }
}

fn forced() -> Promotion {
    Promotion {
        author: author(Some("a trial")),
        grounds: Grounds::Forced {
            finding: Finding::None,
        },
    }
}

fn blessed(over: u32) -> Promotion {
    Promotion {
        author: author(None),
        grounds: Grounds::Blessed { over: version(over) },
    }
}

/// Champion, challenger, previous.
fn aliases(registry: &Registry, name: &ModelName) -> [Option<u64>; 3] {
    let Aliases {
        champion,
        challenger,
        previous,
    } = registry.entry(name).unwrap().aliases;
    [champion, challenger, previous].map(|alias| alias.map(|version| version.to_string().parse().unwrap()))
}

#[test]
fn a_promotion_a_rollback_and_aliases_are_kept_in_the_history() {
    let (folder, registry, name) = model(3);
    let check = |expected| assert_eq!(aliases(&registry, &name), expected);
    check([Some(1), None, None]);
    let set = |alias, number: Option<u32>| {
        registry
            .set_alias(&name, alias, number.map(version), &author(None))
            .unwrap()
    };
    set(Alias::Challenger, Some(2));
    check([Some(1), Some(2), None]);
    let change = registry.promote(&name, version(2), &blessed(1)).unwrap();
    check([Some(2), None, Some(1)]);
    assert_eq!((change.forced, change.verdict), (false, Finding::Blessed));
    registry.promote(&name, version(3), &forced()).unwrap();
    check([Some(3), None, Some(2)]);
    registry.rollback(&name, &author(Some("worse"))).unwrap();
    check([Some(2), None, Some(3)]);
    registry.rollback(&name, &author(None)).unwrap();
    check([Some(3), None, Some(2)]);
    set(Alias::Previous, Some(1));
    set(Alias::Previous, Some(1));
    set(Alias::Previous, None);
    check([Some(3), None, None]);

    let told: Vec<String> = registry
        .history(&name)
        .unwrap()
        .into_iter()
        .map(|change| {
            let number = |version: Option<Version>| version.map_or("-".to_owned(), |v| v.to_string());
            let (action, alias, verdict) = (change.action.name(), change.alias.name(), change.verdict.name());
            let reason = change.reason.unwrap_or_default();
            let (from, to) = (number(change.from), number(change.to));
            format!(
                "{action} {alias} {from} {to} {} {verdict} {reason}",
                change.forced
            )
        })
        .collect();
    let expected = [
        "alias challenger - 2 false none ",
        "promote champion 1 2 false blessed ",
        "promote champion 2 3 true none a trial",
        "rollback champion 3 2 false none worse",
        "rollback champion 2 3 false none ",
        "alias previous 2 1 false none ",
        "alias previous 1 - false none ",
    ];
    assert_eq!(told, expected);
    let text = fs::read_to_string(folder.path().join("tiny/history.jsonl")).unwrap();
    assert!(
        text.lines().all(|line| line.starts_with("{\"at\":\"20")),
        "{text}"
    );
}

#[test]
fn what_is_refused_changes_nothing() {
    let (folder, registry, name) = model(3);
    let weights = folder.path().join("tiny/3/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    atomic::write(&weights, &bytes).unwrap();
    let check = |result: Result<Change, RegistryError>, expected: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}, not {expected}");
        assert_eq!(aliases(&registry, &name), [Some(1), None, None]);
        assert!(registry.history(&name).unwrap().is_empty());
        assert_eq!(registry.last_change(&name).unwrap(), None);
    };
    let promote = |number, promotion: &Promotion| registry.promote(&name, version(number), promotion);
    check(promote(7, &forced()), "no version 7");
    check(promote(1, &forced()), "champion of 'tiny' already");
    check(promote(3, &forced()), "sha256 is");
    check(promote(2, &blessed(3)), "no longer version 3");
    for (reason, by) in [
        (None, "me"),
        (Some(" ".to_owned()), "me"),
        (Some("x".repeat(MAX_REASON + 1)), "me"),
        (Some("why".to_owned()), ""),
    ] {
        let author = Author {
            by: by.to_owned(),
            reason,
        };
        check(
            promote(2, &Promotion { author, ..forced() }),
            "characters are needed",
        );
    }
    check(registry.rollback(&name, &author(None)), "no previous champion");
    let set =
        |alias, number: Option<u32>| registry.set_alias(&name, alias, number.map(version), &author(None));
    check(set(Alias::Champion, None), "by a promotion or a rollback only");
    check(set(Alias::Champion, Some(2)), "by a promotion or a rollback only");
    check(set(Alias::Challenger, Some(1)), "already");
    check(set(Alias::Previous, Some(7)), "no version 7");
}

#[test]
fn a_model_without_a_champion_may_be_given_one() {
    let (folder, registry, name) = model(2);
    fs::remove_file(folder.path().join("tiny/aliases.json")).unwrap();
    assert_eq!(aliases(&registry, &name), [None, None, None]);
    registry
        .set_alias(&name, Alias::Champion, Some(version(2)), &author(None))
        .unwrap();
    assert_eq!(aliases(&registry, &name), [Some(2), None, None]);
}

#[test]
fn a_verdict_is_kept_beside_the_manifest() {
    let (_folder, registry, name) = model(1);
    let verdict = || registry.verdict(&name, version(1)).unwrap();
    let manifest = registry.manifest(&name, version(1)).unwrap();
    assert_eq!(verdict(), None);
    for value in [json!({"blessed": false}), json!({"blessed": true, "n": 0.1})] {
        registry.keep_verdict(&name, version(1), &value).unwrap();
        assert_eq!(verdict(), Some(value));
    }
    assert_eq!(registry.manifest(&name, version(1)).unwrap(), manifest);
    assert!(registry.keep_verdict(&name, version(2), &json!({})).is_err());
}

/// After a promotion of version 2 that broke off: the aliases are old or new, the history knows of every change of
/// theirs, and the next promotion goes well.
fn check_broken_off(registry: &Registry, name: &ModelName, step: usize) -> bool {
    let changed = match aliases(registry, name) {
        [Some(1), Some(3), None] => false,
        [Some(2), Some(3), Some(1)] => true,
        other => panic!("step {step}: {other:?}"),
    };
    let history = registry.history(name).unwrap();
    assert!(
        !changed || history.last().unwrap().to == Some(version(2)),
        "step {step}"
    );
    registry.promote(name, version(3), &forced()).unwrap();
    let from = if changed { 2 } else { 1 };
    assert_eq!(
        aliases(registry, name),
        [Some(3), None, Some(from)],
        "step {step}"
    );
    let history = registry.history(name).unwrap();
    assert_eq!(
        history.last().unwrap().from,
        Some(version(from as u32)),
        "step {step}"
    );
    changed
}

#[test]
fn a_disk_that_fails_at_any_step_leaves_the_old_or_the_new_champion() {
    let crash = |step, work: &dyn Fn() -> Result<Change, RegistryError>| faults::from(step, work);
    let full = |step, work: &dyn Fn() -> Result<Change, RegistryError>| faults::at(step, work);
    type Fault<'a> = &'a dyn Fn(
        usize,
        &dyn Fn() -> Result<Change, RegistryError>,
    ) -> (Result<Change, RegistryError>, bool);
    for (fault, crashes) in [(&crash as Fault<'_>, true), (&full, false)] {
        let mut outcomes = Vec::new();
        loop {
            let step = outcomes.len();
            let (_folder, registry, name) = model(3);
            registry
                .set_alias(&name, Alias::Challenger, Some(version(3)), &author(None))
                .unwrap();
            let (result, reached) = fault(step, &|| registry.promote(&name, version(2), &forced()));
            if !reached {
                result.unwrap();
                break;
            }
            assert!(result.is_err(), "step {step}");
            let lines = registry.history(&name).unwrap().len();
            let changed = check_broken_off(&registry, &name, step);
            // A crash may leave a line of what was not done, a full disk does not.
            assert!(crashes || lines == 1 + usize::from(changed), "step {step}");
            outcomes.push(changed);
        }
        // Open, write, sync and the folder's sync of the history, then the same of the aliases with the rename between.
        assert_eq!(outcomes.len(), 9);
        assert_eq!(outcomes.iter().position(|&changed| changed), Some(8));
    }
}

#[test]
fn a_line_cut_short_is_passed_over_and_ended_by_the_next() {
    let (folder, registry, name) = model(3);
    let path = folder.path().join("tiny/history.jsonl");
    registry.promote(&name, version(2), &forced()).unwrap();
    let whole = fs::read(&path).unwrap();
    registry.promote(&name, version(3), &forced()).unwrap();
    let both = fs::read(&path).unwrap();
    for length in whole.len() + 1..both.len() - 1 {
        atomic::write(&path, &both[..length]).unwrap();
        let history = registry.history(&name).unwrap();
        assert_eq!(history.len(), 1, "{length} bytes");
        assert_eq!(registry.last_change(&name).unwrap().as_ref(), history.last());
    }
    registry.rollback(&name, &author(None)).unwrap();
    let actions: Vec<Action> = registry
        .history(&name)
        .unwrap()
        .iter()
        .map(|c| c.action)
        .collect();
    assert_eq!(actions, [Action::Promote, Action::Rollback]);
    atomic::append_line(&path, "{\"at\": 3}").unwrap();
    let error = registry.history(&name).unwrap_err().to_string();
    assert!(error.contains("history.jsonl: line 4"), "{error}");
}

/// Each line of the champion goes on where the last one ended, and the last one is what holds.
fn check_chain(registry: &Registry, name: &ModelName) {
    let history = registry.history(name).unwrap();
    let champions: Vec<&Change> = history.iter().filter(|c| c.alias == Alias::Champion).collect();
    for pair in champions.windows(2) {
        assert_eq!(pair[0].to, pair[1].from);
    }
    assert_eq!(registry.last_change(name).unwrap().as_ref(), history.last());
    let last = champions.last().unwrap();
    let aliases = registry.entry(name).unwrap().aliases;
    assert_eq!((last.to, last.from), (aliases.champion, aliases.previous));
}

#[test]
fn writers_at_once_lose_no_change() {
    let (folder, _, name) = model(8);
    let promoted: usize = std::thread::scope(|scope| {
        let work = |number: u32| {
            let registry = Registry::open(folder.path()).unwrap();
            let promote = |_: &u32| match registry.promote(&name, version(number), &forced()) {
                Ok(_) => true,
                Err(RegistryError::AlreadyChampion(..)) => false,
                Err(error) => panic!("{error}"),
            };
            (0..50).filter(promote).count()
        };
        let threads: Vec<_> = (1..=8).map(|number| scope.spawn(move || work(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let registry = Registry::open(folder.path()).unwrap();
    assert_eq!(registry.history(&name).unwrap().len(), promoted);
    check_chain(&registry, &name);
    let names = |path: &Path| -> Vec<String> {
        let names = fs::read_dir(path)
            .unwrap()
            .map(|child| child.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.retain(|name| name.ends_with(".tmp"));
        names
    };
    assert!(names(&folder.path().join("tiny")).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever is asked: no two aliases that clash, and a history that tells how it came.
    #[test]
    fn a_champion_is_nothing_else_beside(asked in prop::collection::vec((0..4_u8, 1..5_u32), 1..12)) {
        let (_folder, registry, name) = model(4);
        for (kind, number) in asked {
            let version = version(number);
            let _ = match kind {
                0 => registry.promote(&name, version, &forced()),
                1 => registry.rollback(&name, &author(None)),
                2 => registry.set_alias(&name, Alias::Challenger, Some(version), &author(None)),
                _ => registry.set_alias(&name, Alias::Previous, Some(version), &author(None)),
            };
            let [champion, challenger, previous] = aliases(&registry, &name);
            prop_assert!(champion.is_some() && challenger != champion && previous != champion);
            let history = registry.history(&name).unwrap();
            let last = history.iter().rev().find(|change| change.alias == Alias::Champion);
            let told = last.map_or(Some(1), |change| change.to.map(|v| v.to_string().parse().unwrap()));
            prop_assert_eq!(champion, told);
        }
    }
}
