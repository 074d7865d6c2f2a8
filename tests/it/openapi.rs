//! The contract is true of itself: its routes, problems, references and examples.

use std::collections::BTreeSet;

use sconce::http::ROUTES;
use sconce::http::problem::KINDS;
use serde_json::Value;

use crate::contract::{DOCUMENT, check, faults, resolve};

#[test]
fn its_routes_are_the_routers() {
    let mut written = BTreeSet::new();
    for (path, operations) in DOCUMENT["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            written.insert((method.to_uppercase(), path.clone()));
        }
    }
    let served: BTreeSet<_> = ROUTES
        .iter()
        .map(|&(method, path)| (method.to_owned(), path.to_owned()))
        .collect();
    assert_eq!(written, served);
}

#[test]
fn its_problems_are_the_servers() {
    let served: BTreeSet<_> = KINDS
        .iter()
        .map(|kind| {
            let name = format!("urn:sconce:problem:{}", kind.name());
            (name, kind.title().to_owned(), u64::from(kind.status().as_u16()))
        })
        .collect();
    let mut shown = BTreeSet::new();
    for response in DOCUMENT["components"]["responses"].as_object().unwrap().values() {
        let examples = response.pointer("/content/application~1problem+json/examples");
        for example in examples
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(|map| map.values())
        {
            let text = |key: &str| example["value"][key].as_str().unwrap().to_owned();
            shown.insert((
                text("type"),
                text("title"),
                example["value"]["status"].as_u64().unwrap(),
            ));
        }
    }
    assert_eq!(shown, served);
    let listed = &DOCUMENT["components"]["schemas"]["Problem"]["properties"]["type"]["enum"];
    let listed: BTreeSet<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(listed, served.iter().map(|(name, ..)| name.as_str()).collect());
}

#[test]
fn a_problem_stands_under_its_own_status() {
    for (path, operations) in DOCUMENT["paths"].as_object().unwrap() {
        for operation in operations.as_object().unwrap().values() {
            for (status, response) in operation["responses"].as_object().unwrap() {
                let examples = resolve(response).pointer("/content/application~1problem+json/examples");
                for (name, example) in examples.and_then(Value::as_object).into_iter().flatten() {
                    assert_eq!(example["value"]["status"].to_string(), *status, "{path}: {name}");
                }
            }
        }
    }
}

#[test]
fn its_references_point_somewhere_and_its_examples_fit_their_schemas() {
    let mut examples = 0;
    walk(&DOCUMENT, &mut |part| {
        resolve(part);
        let Some(schema) = part.get("schema").filter(|_| part.get("properties").is_none()) else {
            return;
        };
        let several = part.get("examples").and_then(Value::as_object);
        let several = several
            .into_iter()
            .flat_map(|map| map.values().map(|named| &named["value"]));
        for example in part.get("example").into_iter().chain(several) {
            examples += 1;
            let faults = faults(schema, example);
            assert!(faults.is_empty(), "{faults:#?}: {example:#}");
        }
    });
    assert!(examples > 30, "only {examples} examples were found");
}

fn walk(value: &Value, visit: &mut impl FnMut(&Value)) {
    visit(value);
    let inner: Vec<_> = match value {
        Value::Object(map) => map.values().collect(),
        Value::Array(list) => list.iter().collect(),
        _ => Vec::new(),
    };
    inner.into_iter().for_each(|value| walk(value, visit));
}

/// The judge must not let everything pass.
#[test]
fn a_wrong_answer_is_refused() {
    let refused = |method: &'static str, path: &'static str, status: u16, body: &'static str| {
        let caught = std::panic::catch_unwind(|| check(method, path, status, body.as_bytes()));
        assert!(caught.is_err(), "{method} {path} {status} {body}");
    };
    check("GET", "/health/live", 200, br#"{"status":"live"}"#);
    refused("GET", "/health/live", 200, r#"{"status":"dead"}"#);
    refused("GET", "/health/live", 204, "");
    refused("GET", "/nowhere", 200, "{}");
    refused("GET", "/nowhere", 404, "not a problem");
    refused(
        "POST",
        "/v1/predict?top_k=1",
        200,
        r#"{"id":"a","model":{"name":"m","version":1}}"#,
    );
    let answer = r#"{"id":"a","model":{"name":"m","version":1},"predictions":[{"label":"7","index":7,
        "probability":0.9,"margin":0.8,"top_k":[{"label":"7","index":7,"probability":PROBABILITY}]}]}"#;
    let path = "/v1/models/m/versions/1/predict";
    check("POST", path, 200, answer.replace("PROBABILITY", "0.9").as_bytes());
    refused("POST", path, 200, answer.replace("PROBABILITY", "1.5").leak());
    refused(
        "POST",
        path,
        422,
        r#"{"type":"about:blank","title":"","status":422,"detail":""}"#,
    );
}
