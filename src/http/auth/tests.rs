//! Tests of who is let in, and of keys that change meanwhile.

use std::path::Path;

use axum::http::HeaderValue;

use super::*;
use crate::registry::atomic;

/// One key, its token the same as its id.
fn entry(id: &str, scopes: &[Scope]) -> KeyEntry {
    KeyEntry {
        id: id.parse().unwrap(),
        scopes: scopes.to_vec(),
        hash: KeyHash::of(id.as_bytes()),
        requests_per_second: None,
        burst: None,
    }
}

fn loaded(keys: Vec<KeyEntry>) -> (Arc<Metrics>, Arc<Auth>) {
    let metrics = Metrics::new(&[]);
    let config = Config {
        keys,
        ..Config::default()
    };
    let auth = Auth::load(&config, &metrics).unwrap();
    (metrics, auth)
}

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name = HeaderName::try_from(*name).unwrap();
        headers.append(name, HeaderValue::try_from(*value).unwrap());
    }
    headers
}

fn asked(auth: &Auth, need: Need, fields: &[(&str, &str)]) -> Result<String, Problem> {
    let Admission { key, refused, .. } = auth.admit(need, &headers(fields));
    let caller = key.map_or_else(|| "nobody".to_owned(), |key| key.id().to_string());
    refused.map_or(Ok(caller), Err)
}

#[test]
fn a_token_is_taken_from_either_header() {
    let (_, auth) = loaded(vec![
        entry("ann", &[Scope::Predict]),
        entry("bob", &[Scope::Predict]),
    ]);
    let check = |fields: &[(&str, &str)], expected: Option<&str>| {
        let found = asked(&auth, Need::Key(Scope::Predict), fields).ok();
        assert_eq!(found.as_deref(), expected, "{fields:?}");
    };
    check(&[("authorization", "Bearer ann")], Some("ann"));
    check(&[("authorization", "bEARER  ann ")], Some("ann"));
    check(&[("x-api-key", "bob")], Some("bob"));
    // A proxy has its own use for the other one.
    check(
        &[("authorization", "Basic eDp5"), ("x-api-key", "bob")],
        Some("bob"),
    );
    check(
        &[("authorization", "Bearer ann"), ("x-api-key", "bob")],
        Some("bob"),
    );
    check(&[("authorization", "Bearer ann"), ("x-api-key", "eve")], None);
    for wrong in [
        "ann",
        "Basic ann",
        "Bearerann",
        "Bearer",
        "Bearer ",
        "Bearer ann bob",
        "",
    ] {
        check(&[("authorization", wrong)], None);
    }
    check(
        &[("authorization", "Bearer ann"), ("authorization", "Bearer ann")],
        None,
    );
    check(&[("x-api-key", "bob"), ("x-api-key", "bob")], None);
    check(&[("x-api-key", &"x".repeat(257))], None);
    check(&[], None);
}

#[test]
fn whatever_is_wrong_with_a_key_the_answer_is_the_same() {
    let (metrics, auth) = loaded(vec![entry("ann", &[Scope::Predict])]);
    let causes: [&[(&str, &str)]; 4] = [
        &[],
        &[("authorization", "Bearer eve")],
        &[("authorization", "Basic ann")],
        &[("x-api-key", "")],
    ];
    let answers = causes.map(|fields| asked(&auth, Need::AnyKey, fields).unwrap_err());
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(answers[0].kind, Kind::Unauthorized);
    assert!(
        metrics
            .render()
            .contains("sconce_auth_requests_total{outcome=\"unauthorized\"} 4\n")
    );
}

#[test]
fn a_scope_opens_what_it_is_for() {
    let scopes = [
        &[Scope::Predict][..],
        &[Scope::Feedback],
        &[Scope::Metrics],
        &[Scope::Admin],
    ];
    let ids = ["p", "f", "m", "a"];
    let (metrics, auth) = loaded(
        ids.iter()
            .zip(scopes)
            .map(|(id, scopes)| entry(id, scopes))
            .collect(),
    );
    let check = |need: Need, expected: [bool; 4]| {
        let found = ids.map(|id| match asked(&auth, need, &[("x-api-key", id)]) {
            Ok(caller) => {
                assert!(caller == id || need == Need::Nothing, "{caller}");
                true
            }
            Err(problem) => {
                assert_eq!(problem.kind, Kind::WrongScope);
                false
            }
        });
        assert_eq!(found, expected, "{need:?}");
    };
    check(Need::Nothing, [true; 4]);
    check(Need::AnyKey, [true; 4]);
    check(Need::Key(Scope::Predict), [true, false, false, true]);
    check(Need::Key(Scope::Feedback), [false, true, false, true]);
    check(Need::Key(Scope::Metrics), [false, false, true, true]);
    check(Need::Key(Scope::Admin), [false, false, false, true]);
    assert!(asked(&auth, Need::Nothing, &[]).is_ok());
    let text = metrics.render();
    for line in [
        "sconce_key_requests_total{key=\"p\",outcome=\"admitted\"} 2\n",
        "sconce_key_requests_total{key=\"p\",outcome=\"wrong_scope\"} 3\n",
        "sconce_key_requests_total{key=\"a\",outcome=\"admitted\"} 5\n",
        "sconce_auth_keys 4\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
}

#[test]
fn without_keys_everybody_is_let_in() {
    let (_, auth) = loaded(Vec::new());
    assert!(!auth.is_on() && !auth.may_change());
    assert_eq!(asked(&auth, Need::Key(Scope::Admin), &[]).unwrap(), "nobody");
}

#[test]
fn a_key_has_its_quota_and_is_told_of_it() {
    let limited = KeyEntry {
        requests_per_second: Some(0.001),
        burst: Some(2),
        ..entry("ann", &[Scope::Predict])
    };
    let (_, auth) = loaded(vec![limited, entry("bob", &[Scope::Predict])]);
    let ask = |need, id| auth.admit(need, &headers(&[("x-api-key", id)]));
    let first = ask(Need::AnyKey, "ann");
    assert_eq!((first.refused, first.standing.unwrap().left), (None, 1));
    // What its scope does not allow counts as well.
    let second = ask(Need::Key(Scope::Admin), "ann");
    assert_eq!(
        (second.refused.unwrap().kind, second.standing.unwrap().left),
        (Kind::WrongScope, 0)
    );
    // Who is refused is known all the same.
    assert_eq!(second.key.unwrap().id().as_str(), "ann");
    let third = ask(Need::AnyKey, "ann");
    let problem = third.refused.unwrap();
    assert_eq!(
        (problem.kind, third.standing.unwrap().left),
        (Kind::RateLimited, 0)
    );
    let wait = problem.retry_after.unwrap();
    assert!(
        wait <= Duration::from_secs(1000) && wait > Duration::from_secs(900),
        "{wait:?}"
    );
    assert_eq!(ask(Need::AnyKey, "bob").standing, None);
    // Open routes stay open.
    assert_eq!(ask(Need::Nothing, "ann").refused, None);
}

/// Publishes the lines, so that the file is another one.
fn publish(path: &Path, lines: &str) {
    atomic::write(path, lines.as_bytes()).unwrap();
}

#[test]
fn keys_come_and_go_with_their_file_and_a_broken_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let line = |id| format!("{}\n", entry(id, &[Scope::Predict]).line().unwrap());
    let metrics = Metrics::new(&[]);
    let config = Config {
        keys_file: path.clone(),
        keys: vec![entry("fixed", &[Scope::Admin])],
    };
    assert!(
        Auth::load(&config, &metrics)
            .unwrap_err()
            .to_string()
            .contains("keys: ")
    );

    publish(&path, &line("ann"));
    let auth = Auth::load(&config, &metrics).unwrap();
    let known = || ["fixed", "ann", "bob"].map(|id| asked(&auth, Need::AnyKey, &[("x-api-key", id)]).is_ok());
    let counted = |line: &str| assert!(metrics.render().contains(line), "{line}{}", metrics.render());
    assert!(auth.is_on() && auth.may_change());
    assert_eq!(known(), [true, true, false]);
    auth.refresh(false);
    counted("sconce_auth_reloads_total 0\n");

    publish(&path, &(line("ann") + &line("bob")));
    assert_eq!(known(), [true, true, false]);
    auth.refresh(false);
    assert_eq!(known(), [true, true, true]);
    counted("sconce_auth_reloads_total 1\n");
    counted("sconce_auth_keys 3\n");

    for broken in [
        "{",
        &*line("fixed"),
        &(line("ann") + &line("ann")),
        &line("ann").replace("scopes", ""),
    ] {
        publish(&path, broken);
        auth.refresh(false);
        auth.refresh(false);
        assert_eq!(known(), [true, true, true], "{broken}");
    }
    std::fs::remove_file(&path).unwrap();
    auth.refresh(false);
    assert_eq!(known(), [true, true, true]);
    // Each was told of once.
    counted("sconce_auth_reload_failures_total 5\n");

    publish(&path, &line("bob"));
    auth.refresh(false);
    assert_eq!(known(), [true, false, true]);
    assert!(!metrics.render().contains("key=\"ann\""));
    auth.refresh(true);
    counted("sconce_auth_reloads_total 3\n");
}

#[test]
fn where_the_last_key_goes_nobody_is_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    publish(&path, "# none\n");
    let config = Config {
        keys_file: path,
        ..Config::default()
    };
    let auth = Auth::load(&config, &Metrics::new(&[])).unwrap();
    let refused = asked(&auth, Need::AnyKey, &[("x-api-key", "ann")]).unwrap_err();
    assert_eq!(refused.kind, Kind::Unauthorized);
    assert!(asked(&auth, Need::Nothing, &[]).is_ok());
}
