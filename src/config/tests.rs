//! Tests of the configuration: sources, errors, ranges, and that `config/default.toml` tells the truth.

use std::io::Write;

use proptest::prelude::*;
use tempfile::NamedTempFile;

use super::*;

const DEFAULT_TEXT: &str = include_str!("../../config/default.toml");

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// Resolves a file's text, variables and flags.
fn resolved(text: &str, variables: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Resolved, ConfigError> {
    let file = file(text);
    let variables = variables.iter().map(|&(key, value)| (key.into(), value.into()));
    let flags: Vec<(&str, String)> = flags
        .iter()
        .map(|&(key, value)| (key, value.to_owned()))
        .collect();
    resolve(Some(file.path()), variables, &flags)
}

#[track_caller]
fn refused(result: Result<Resolved, ConfigError>, parts: &[&str]) {
    let text = result.unwrap_err().to_string();
    for part in parts {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn a_later_source_outweighs_an_earlier_one() {
    let text = "[http]\nthreads = 2\nmax_images = 2\nmax_body_bytes = 2\n";
    let variables = [
        ("SCONCE__HTTP__MAX_IMAGES", "3"),
        ("SCONCE__HTTP__MAX_BODY_BYTES", "3"),
    ];
    let Resolved { config, origins } = resolved(text, &variables, &[("http.max_body_bytes", "4")]).unwrap();
    let http = &config.http;
    assert_eq!((http.threads, http.max_images, http.max_body_bytes), (2, 3, 4));
    assert_eq!(http.max_connections, http::Config::default().max_connections);
    let origin = |key: &str| origins.get(key).map(String::as_str);
    assert!(!origin("http.threads").unwrap().contains("environment"));
    assert_eq!(
        origin("http.max_images"),
        Some("environment SCONCE__HTTP__MAX_IMAGES")
    );
    assert_eq!(origin("http.max_body_bytes"), Some("command line"));
    assert_eq!(origin("http.max_connections"), None);
}

#[test]
fn texts_are_read_as_the_key_needs_them() {
    let variables = [
        ("SCONCE__MODELS", "12"),
        ("SCONCE__DEFAULT_MODEL", "1"),
        ("SCONCE__LOG__FILTER", "sconce=debug,warn"),
        ("SCONCE__LOG__FORMAT", "json"),
        ("SCONCE__ENGINE__DEVICE", "cuda:1"),
        ("SCONCE__HTTP__LISTEN", "[::1]:0"),
        ("SCONCE__HTTP__MAX_BODY_BYTES", " 1_000 "),
        ("SCONCE_PORT", "tcp://10.0.0.1:80"),
        ("PATH", "/bin"),
    ];
    let config = resolved("", &variables, &[]).unwrap().config;
    assert_eq!(config.models, Path::new("12"));
    assert_eq!(config.default_model.unwrap().as_str(), "1");
    assert_eq!(config.log.filter, "sconce=debug,warn");
    assert_eq!(config.log.format, telemetry::logging::Format::Json);
    assert_eq!(config.engine.device, engine::DeviceChoice::Cuda(1));
    assert_eq!(config.http.listen.to_string(), "[::1]:0");
    assert_eq!(config.http.max_body_bytes, 1000);
}

#[test]
fn an_unknown_key_is_refused_with_its_source_and_the_nearest_key() {
    let variable = |key| resolved("", &[(key, "1")], &[]);
    let flag = |key| resolved("", &[], &[(key, "1")]);
    refused(
        resolved("[http]\nmax_image = 1\n", &[], &[]),
        &["http.max_image (/", "did you mean http.max_images?"],
    );
    refused(
        resolved("[htttp]\nthreads = 1\n", &[], &[]),
        &["htttp", "did you mean http?"],
    );
    refused(
        resolved("listen = 'x'\n", &[], &[]),
        &["did you mean http.listen?"],
    );
    refused(
        variable("SCONCE__HTTP__THREAD"),
        &[
            "http.thread (environment SCONCE__HTTP__THREAD)",
            "mean SCONCE__HTTP__THREADS?",
        ],
    );
    refused(variable("SCONCE__"), &["(environment SCONCE__)"]);
    refused(
        flag("batcher.max_batch"),
        &["(command line)", "did you mean batcher.max_batch_size?"],
    );
    refused(flag("http.listen.port"), &["http.listen.port"]);
    let text = flag("zzz").unwrap_err().to_string();
    assert!(text.ends_with("there is no key zzz (command line)"), "{text}");
}

#[test]
fn a_wrong_type_is_refused_with_what_was_expected() {
    let variable = |key, value| resolved("", &[(key, value)], &[]);
    refused(
        resolved("[http]\nthreads = 'two'\n", &[], &[]),
        &["http.threads = \"two\" (/", "a whole number from 0 is expected"],
    );
    refused(
        resolved("http = 3\n", &[], &[]),
        &["http = 3 (/", "a section is expected"],
    );
    refused(
        resolved("models = { a = 1 }\n", &[], &[]),
        &["models = { a = 1 } (/", "a text"],
    );
    refused(
        resolved("models = 3\n", &[], &[]),
        &["models = 3 (/", "a text is expected"],
    );
    refused(
        variable("SCONCE__DECODE__THREADS", "-1"),
        &[
            "decode.threads = -1 (environment SCONCE__DECODE__THREADS)",
            "whole number from 0",
        ],
    );
    refused(
        variable("SCONCE__DECODE__THREADS", "1.5"),
        &["decode.threads = 1.5 (env", "whole"],
    );
    refused(
        variable("SCONCE__DECODE__THREADS", ""),
        &["decode.threads = \"\" (env", "whole"],
    );
    refused(variable("SCONCE__HTTP", "8080"), &["a section is expected"]);
    refused(
        resolved("[images]\nmax_side = 5000000000\n", &[], &[]),
        &["images.max_side = 5000000000 (/"],
    );
}

#[test]
fn a_text_that_means_nothing_is_refused() {
    let flag = |key, value| resolved("", &[], &[(key, value)]);
    refused(
        flag("http.listen", "localhost:80"),
        &[
            "http.listen = \"localhost:80\" (command line)",
            "such as 127.0.0.1:8080",
        ],
    );
    refused(
        flag("engine.device", "gpu"),
        &["engine.device = \"gpu\" (command line)", "auto, cpu or cuda:0"],
    );
    refused(
        flag("engine.instructions", "mmx"),
        &[
            "engine.instructions = \"mmx\" (command line)",
            "portable, or auto",
        ],
    );
    refused(
        flag("engine.precision", "f64"),
        &["engine.precision = \"f64\" (command line)", "f32, f16 or bf16"],
    );
    refused(
        resolved("[engine]\ndevice = 'cpu'\n", &[], &[("engine.precision", "bf16")]),
        &[
            "engine.precision = \"bf16\" (command line)",
            "the CPU computes in f32",
        ],
    );
    refused(
        flag("default_model", "../x"),
        &["default_model = \"../x\" (command line)", "a model name is"],
    );
    refused(
        flag("log.format", "xml"),
        &["log.format = \"xml\" (command line)", "`json`"],
    );
    refused(
        flag("log.filter", "a=b=c"),
        &["log.filter = \"a=b=c\" (command line)"],
    );
    refused(
        flag("engine.cache", "models/cache"),
        &["engine.cache = \"models/cache\" (command line)", "outside"],
    );
    assert!(flag("engine.cache", "").is_ok() && flag("engine.cache", "models-cache").is_ok());
    refused(flag("models", ""), &["models = \"\" (command line)", "a folder"]);
}

#[test]
fn a_file_that_cannot_be_read_is_refused_with_its_name() {
    let missing = resolve(Some(Path::new("no/such.toml")), [], &[]);
    refused(missing, &["no/such.toml: "]);
    refused(resolved("models = 'a'\nhttp = [\n", &[], &[]), &[": line 2: "]);
    refused(
        resolved(&"#".repeat((1 << 20) + 1), &[], &[]),
        &["larger than 1048576 bytes"],
    );
}

#[cfg(unix)]
#[test]
fn variables_that_are_not_utf8_do_no_harm() {
    use std::os::unix::ffi::OsStringExt;
    let bytes = |text: &[u8]| OsString::from_vec(text.to_vec());
    let harmless = [(bytes(b"\xff"), bytes(b"1")), (bytes(b"TERM"), bytes(b"\xff"))];
    assert!(resolve(None, harmless, &[]).is_ok());
    let value = [(bytes(b"SCONCE__MODELS"), bytes(b"\xff"))];
    refused(
        resolve(None, value, &[]),
        &["models (environment SCONCE__MODELS)", "not UTF-8"],
    );
    let key = [(bytes(b"SCONCE__MODEL\xff"), bytes(b"1"))];
    refused(resolve(None, key, &[]), &["there is no key"]);
}

/// The keys of numbers.
fn numbers() -> Vec<String> {
    let schema = Schema::new();
    let is_number = |key: &String| schema.example(key).is_some_and(toml::Value::is_integer);
    schema.keys().into_iter().filter(is_number).collect()
}

fn with_number(key: &str, value: u64) -> Result<Resolved, ConfigError> {
    // The one range that hangs on another key is out of the way.
    let text = "[http]\nrequest_timeout_ms = 1\nmax_request_timeout_ms = 86400000\n";
    resolved(text, &[], &[(key, &value.to_string())])
}

/// The range of a number as the error tells it: `1 to 1024`.
fn range(key: &str) -> String {
    // Beyond every range of four bytes, and beyond those of eight.
    let far = [u64::from(u32::MAX), i64::MAX as u64];
    let error = far.into_iter().find_map(|far| with_number(key, far).err());
    let text = error.unwrap_or_else(|| panic!("{key} has no range")).to_string();
    let told = text
        .split_once("(command line): ")
        .and_then(|(_, told)| told.strip_suffix(" is possible"));
    told.unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[test]
fn every_number_has_a_range_and_its_ends_hold() {
    assert!(numbers().len() > 20);
    for key in numbers() {
        let told = range(&key);
        let (least, most) = told.split_once(" to ").unwrap();
        let (least, most): (u64, u64) = (least.parse().unwrap(), most.parse().unwrap());
        assert!(
            with_number(&key, least).is_ok() && with_number(&key, most).is_ok(),
            "{key}"
        );
        for outside in [least.checked_sub(1), Some(most + 1)].into_iter().flatten() {
            let problem = format!("{key} = {outside} (command line): {told} is possible");
            refused(with_number(&key, outside), &[&problem]);
        }
    }
}

#[test]
fn a_deadline_is_at_most_the_largest_deadline() {
    refused(
        resolved("[http]\nrequest_timeout_ms = 60001\n", &[], &[]),
        &[
            "http.request_timeout_ms = 60001 (/",
            "http.max_request_timeout_ms, 60000",
        ],
    );
    // Where the value at fault is the default, it has no source to name.
    let text = resolved("[http]\nmax_request_timeout_ms = 9\n", &[], &[])
        .unwrap_err()
        .to_string();
    assert!(
        text.starts_with("configuration: http.request_timeout_ms: "),
        "{text}"
    );
}

#[test]
fn the_default_file_holds_every_key_with_its_default() {
    let in_code = toml::Table::try_from(Config::default()).unwrap();
    assert_eq!(DEFAULT_TEXT.parse::<toml::Table>().unwrap(), in_code);
    let with_model = DEFAULT_TEXT.replace("\n# default_model = ", "\ndefault_model = ");
    let keys = |table: &toml::Table| table.keys().cloned().collect::<Vec<_>>();
    let example = toml::Table::try_from(Config {
        default_model: "mnist".parse().ok(),
        ..Config::default()
    });
    assert_eq!(keys(&with_model.parse().unwrap()), keys(&example.unwrap()));
    assert_eq!(
        resolved(DEFAULT_TEXT, &[], &[]).unwrap().config,
        Config::default()
    );
}

#[test]
fn the_default_file_says_of_every_key_what_it_is_and_its_range() {
    let mut section = String::new();
    let mut comment = String::new();
    let mut told = BTreeMap::new();
    for line in DEFAULT_TEXT.lines() {
        if let Some(text) = line.strip_prefix('#') {
            comment.push_str(text);
        } else if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.trim_end_matches(']'));
            assert!(!comment.is_empty(), "{section}");
        } else if let Some((key, _)) = line.split_once(" = ") {
            told.insert(format!("{section}{key}"), std::mem::take(&mut comment));
        } else {
            comment.clear();
        }
    }
    assert!(told.values().all(|comment| comment.len() > 20), "{told:?}");
    for key in numbers() {
        assert!(
            told[&key].contains(&range(&key)),
            "{key}: {}; {}",
            range(&key),
            told[&key]
        );
    }
}

proptest! {
    #[test]
    fn no_variable_panics_or_breaks_the_line(key in "SCONCE__[A-Z_.]{0,20}", value in ".{0,20}") {
        if let Err(error) = resolve(None, [(OsString::from(key), OsString::from(value))], &[]) {
            prop_assert_eq!(error.to_string().lines().count(), 1);
        }
    }

    #[test]
    fn every_key_refuses_or_takes_any_text(index in any::<prop::sample::Index>(), value in "(.|\n){0,12}") {
        let keys = Schema::new().keys();
        let key = index.get(&keys);
        match resolve(None, [], &[(key, value)]) {
            Ok(resolved) => {
                prop_assert_eq!(resolved.origins.keys().collect::<Vec<_>>(), [key]);
                prop_assert!(resolved.config.check().is_ok());
            }
            Err(error) => prop_assert_eq!(error.to_string().lines().count(), 1),
        }
    }
}
