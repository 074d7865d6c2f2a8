//! `openapi.yaml` as a judge: every answer that a test sees can be held against it.

use std::sync::LazyLock;

use serde_json::{Value, json};

/// The contract, parsed.
pub(crate) static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_saphyr::from_str(sconce::http::OPENAPI).expect("openapi.yaml is YAML"));

/// Holds that this answer is one that the contract foresees, and that its body is of the schema told there. `path` may
/// carry a query. Panics with what is wrong.
pub(crate) fn check(method: &str, path: &str, status: u16, body: &[u8]) {
    let told = format!("{method} {path} gave {status} {}", String::from_utf8_lossy(body));
    let Some(responses) = responses(method, path) else {
        // Of a path that is there, whoever lacks a key does not hear which methods it takes.
        assert!(
            matches!(status, 401 | 404 | 405),
            "not in the contract, yet {told}"
        );
        return check_schema(&json!({"$ref": "#/components/schemas/Problem"}), body, &told);
    };
    let response = responses.get(status.to_string()).map(resolve);
    let response = response.unwrap_or_else(|| panic!("the contract has no such status: {told}"));
    // HEAD has no body, and a redirect none that matters.
    let Some(content) = response.get("content").filter(|_| method != "HEAD") else {
        return;
    };
    for (media_type, content) in content.as_object().expect("content is a map") {
        if media_type.ends_with("json") {
            check_schema(&content["schema"], body, &told);
        }
    }
}

/// What is wrong with a value by a schema of the document; nothing where it fits.
pub(crate) fn faults(schema: &Value, value: &Value) -> Vec<String> {
    // References are resolved in the document that they stand in.
    let whole = json!({"allOf": [schema], "components": DOCUMENT["components"]});
    let validator = jsonschema::draft202012::new(&whole).expect("the contract's schemas are schemas");
    let told = |error: jsonschema::ValidationError<'_>| format!("{}: {error}", error.instance_path());
    validator.iter_errors(value).map(told).collect()
}

/// The thing itself, or what its `$ref` points to.
pub(crate) fn resolve(value: &Value) -> &Value {
    let Some(reference) = value.get("$ref") else {
        return value;
    };
    let pointer = reference.as_str().and_then(|text| text.strip_prefix('#'));
    let target = pointer.and_then(|pointer| DOCUMENT.pointer(pointer));
    target.unwrap_or_else(|| panic!("{reference} points nowhere"))
}

fn check_schema(schema: &Value, body: &[u8], told: &str) {
    let value = serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {told}"));
    let faults = faults(schema, &value);
    assert!(faults.is_empty(), "{faults:#?}: {told}");
}

/// The responses of an operation; a `HEAD` is its `GET`.
fn responses(method: &str, path: &str) -> Option<&'static Value> {
    let path = path.split('?').next()?;
    let method = if method == "HEAD" { "GET" } else { method };
    let paths = DOCUMENT["paths"].as_object()?;
    let (_, operations) = paths.iter().find(|(template, _)| fits(template, path))?;
    operations.get(method.to_lowercase())?.get("responses")
}

fn fits(template: &str, path: &str) -> bool {
    let (mut wanted, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some(wanted), Some(given)) if wanted == given || wanted.starts_with('{') => {}
            _ => return false,
        }
    }
}
