//! Tests of the registry on folders made for them.

use serde_json::Value;
use tempfile::TempDir;

use super::*;

const SPEC_TEXT: &str =
    "architecture = 'small-cnn'\nlabels = ['a', 'b']\ninput = { channels = 1, height = 8, width = 8 }\n";

pub(super) fn registry() -> (TempDir, Registry, ModelName) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("tiny")).unwrap();
    fs::File::create(folder.path().join("tiny/model.toml"))
        .and_then(|mut f| std::io::Write::write_all(&mut f, SPEC_TEXT.as_bytes()))
        .unwrap();
    let registry = Registry::open(folder.path()).unwrap();
    (folder, registry, "tiny".parse().unwrap())
}

pub(super) fn weights(seed: u64) -> Weights {
    let spec = Spec::parse(SPEC_TEXT).unwrap();
    Weights::initialise(&spec.graph().unwrap(), seed).unwrap()
}

pub(super) fn manifest() -> Manifest {
    Manifest {
        format: Manifest::FORMAT,
        weights: WeightsFile::default(),
        architecture: "small-cnn".to_owned(),
        parameters: 1,
        parent: None,
        parent_model: None,
        sconce: "test".to_owned(),
        command: "test".to_owned(),
        seed: 1,
        data: Value::Null,
        training: Value::Null,
        evaluation: serde_json::json!({"test": {"accuracy": 0.5}}),
    }
}

fn author() -> Author {
    Author {
        by: "a test".to_owned(),
        reason: None,
    }
}

fn overwrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    atomic::write(path, &bytes).unwrap();
}

#[test]
fn versions_are_published_listed_and_loaded() {
    let (_folder, registry, name) = registry();
    assert_eq!(
        registry.publish(&name, &weights(1), manifest()).unwrap(),
        Version::FIRST
    );
    assert_eq!(registry.entry(&name).unwrap().champion().unwrap(), Version::FIRST);
    let second = registry.publish(&name, &weights(2), manifest()).unwrap();
    let entry = &registry.list().unwrap()[0];
    assert_eq!(entry.versions, [Version::FIRST, second]);
    assert!(matches!(entry.champion(), Err(RegistryError::NoChampion(_))));
    registry
        .set_alias(&name, Alias::Champion, Some(second), &author())
        .unwrap();
    assert_eq!(registry.entry(&name).unwrap().champion().unwrap(), second);
    let loaded = registry.load(&name, second).unwrap();
    assert_eq!(loaded.manifest.accuracy(), Some(0.5));
    let bytes = |w: &Weights| w.to_safetensors(&Default::default()).unwrap();
    assert_eq!(bytes(&loaded.weights), bytes(&weights(2)));
}

#[test]
fn a_new_model_is_made_whole_or_not_at_all() {
    let (folder, registry, tiny) = registry();
    let new: ModelName = "new".parse().unwrap();
    assert_eq!(
        registry.create(&new, SPEC_TEXT, &weights(1), manifest()).unwrap(),
        Version::FIRST
    );
    let loaded = registry.load(&new, Version::FIRST).unwrap();
    assert_eq!(loaded.spec, Spec::parse(SPEC_TEXT).unwrap());
    let again = |name| registry.create(name, SPEC_TEXT, &weights(2), manifest());
    assert!(matches!(again(&new), Err(RegistryError::Exists(_))));
    assert!(matches!(again(&tiny), Err(RegistryError::Exists(_))));
    let bad = registry.create(&"bad".parse().unwrap(), "labels = []", &weights(1), manifest());
    assert!(bad.unwrap_err().to_string().contains("model.toml"));
    let mut names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|child| child.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["new", "tiny"]);
}

#[test]
fn what_is_not_there_is_told() {
    let (_folder, registry, name) = registry();
    let unknown: ModelName = "other".parse().unwrap();
    assert!(matches!(registry.entry(&unknown), Err(RegistryError::NoModel(_))));
    assert!(matches!(
        registry.load(&name, Version::FIRST),
        Err(RegistryError::NoVersion(..))
    ));
    assert!(matches!(
        registry.set_alias(&name, Alias::Challenger, Some(Version::FIRST), &author()),
        Err(RegistryError::NoVersion(..))
    ));
    assert!(Registry::open("/no/such/folder").is_err());
}

#[test]
fn damaged_files_are_refused_with_their_path() {
    let (folder, registry, name) = registry();
    let check = |file: &str, change: &dyn Fn(&mut Vec<u8>), expected: &str| {
        let path = folder.path().join("tiny").join(file);
        let before = fs::read(&path).unwrap();
        overwrite(&path, |bytes| change(bytes));
        let error = registry.load(&name, Version::FIRST).unwrap_err().to_string();
        assert!(
            error.contains(expected) && error.contains(file),
            "{file}: {error}"
        );
        overwrite(&path, |bytes| *bytes = before);
    };
    registry.publish(&name, &weights(1), manifest()).unwrap();
    registry.keep_champion(&name).unwrap();
    check("1/model.safetensors", &|b| b.truncate(b.len() - 1), "sha256 is");
    check(
        "1/model.safetensors",
        &|b| *b.last_mut().unwrap() ^= 1,
        "sha256 is",
    );
    check("1/manifest.json", &|b| b.truncate(10), "EOF");
    check(
        "1/manifest.json",
        &|b| {
            *b = String::from_utf8(b.clone())
                .unwrap()
                .replace("\"format\": 1", "\"format\": 2")
                .into();
        },
        "has format 2",
    );
    check("model.toml", &|b| b.extend(b"nonsense = 1"), "nonsense");
    check(
        "aliases.json",
        &|b| *b = br#"{"champion": 7}"#.to_vec(),
        "names version 7",
    );
    check(
        "aliases.json",
        &|b| *b = br#"{"champoin": 1}"#.to_vec(),
        "champoin",
    );
    assert!(registry.load(&name, Version::FIRST).is_ok());
}

#[test]
fn weights_of_another_network_are_refused_though_their_hash_is_right() {
    let (folder, registry, name) = registry();
    registry.publish(&name, &weights(1), manifest()).unwrap();
    overwrite(&folder.path().join("tiny/model.toml"), |b| {
        *b = String::from_utf8(b.clone())
            .unwrap()
            .replace("'b'", "'b', 'c'")
            .into();
    });
    let error = registry.load(&name, Version::FIRST).unwrap_err().to_string();
    assert!(
        error.contains("fc.weight: expected [3, 64], found [2, 64]"),
        "{error}"
    );
}

#[test]
fn leftovers_of_a_killed_publish_are_ignored() {
    let (folder, registry, name) = registry();
    fs::create_dir(folder.path().join("tiny/.77-0.tmp")).unwrap();
    fs::create_dir(folder.path().join(".hidden")).unwrap();
    assert_eq!(
        registry.publish(&name, &weights(1), manifest()).unwrap(),
        Version::FIRST
    );
    assert_eq!(registry.list().unwrap().len(), 1);
}

#[test]
fn publishing_at_once_gives_each_its_own_number() {
    let (_folder, registry, name) = registry();
    let mut versions: Vec<Version> = std::thread::scope(|scope| {
        let publish = |seed| registry.publish(&name, &weights(seed), manifest()).unwrap();
        let threads: Vec<_> = (0..8).map(|seed| scope.spawn(move || publish(seed))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    versions.sort();
    assert_eq!(
        versions.iter().map(|v| v.number()).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6, 7, 8]
    );
}

#[test]
fn a_folder_that_is_no_model_is_an_error() {
    let (folder, registry, _) = registry();
    fs::create_dir(folder.path().join("Not A Model")).unwrap();
    assert!(registry.list().unwrap_err().to_string().contains("Not A Model"));
}

#[test]
fn the_default_model_is_the_configured_the_claiming_or_the_first() {
    let check = |models: &[(&str, bool)], configured: Option<&str>, expected: Result<&str, &str>| {
        let folder = tempfile::tempdir().unwrap();
        for (name, default) in models {
            let model = folder.path().join(name);
            fs::create_dir(&model).unwrap();
            let text = format!("default = {default}\n{SPEC_TEXT}");
            atomic::write(&model.join(SPEC), text.as_bytes()).unwrap();
        }
        let configured = configured.map(|name| name.parse().unwrap());
        let found = Registry::open(folder.path())
            .unwrap()
            .default_model(configured.as_ref());
        match (found, expected) {
            (Ok(name), Ok(expected)) => assert_eq!(name.as_str(), expected),
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (found, expected) => panic!("{models:?}: {found:?}, not {expected:?}"),
        }
    };
    check(&[("one", false)], None, Ok("one"));
    check(&[("b", false), ("a", false)], None, Ok("a"));
    check(&[("a", false), ("b", true)], None, Ok("b"));
    check(&[("a", false), ("b", true)], Some("a"), Ok("a"));
    check(&[("a", false)], Some("c"), Err("no model 'c'"));
    check(
        &[("a", true), ("b", false), ("c", true)],
        None,
        Err("'a' and 'c' both"),
    );
    check(&[("a", true), ("b", true)], Some("a"), Err("'a' and 'b' both"));
    check(&[], None, Err("no models"));
}
