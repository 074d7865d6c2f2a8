//! Holds `ARCHITECTURE.md` to the code: rooms, their order, who may use whom, what may be named where.
//!
//! The unit tests of a room count as part of it. Only texts are read: comments and string literals are taken out first,
//! and a room is known by `crate::room` or `use crate::{room, …}`, the two forms that the house uses.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use source::{Source, code_of, crate_names, sources, top, words};

mod source;

const MAX_LINES: usize = 600;

/// A row of the table of rooms.
#[derive(Debug, PartialEq)]
struct Room {
    name: String,
    may_use: Vec<String>,
}

/// The files of rooms: all of `src/` but the two roots.
fn room_sources() -> Vec<Source> {
    let mut all = sources("src");
    all.retain(|s| !s.is("src/lib.rs") && !s.is("src/main.rs"));
    all
}

fn table() -> Vec<Room> {
    rooms_of(&fs::read_to_string(top().join("ARCHITECTURE.md")).unwrap())
}

/// The rows of the table under `## Rooms`. "all above" stands for every room of the rows before.
fn rooms_of(page: &str) -> Vec<Room> {
    let section = page.split("\n## ").find(|s| s.starts_with("Rooms"));
    let section = section.expect("a section called Rooms");
    let mut rooms: Vec<Room> = Vec::new();
    for row in section.lines().filter(|l| l.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let &[name, _what, may_use] = &cells[..] else {
            panic!("a row of three cells: {row}");
        };
        let name = name.trim_matches('`').trim_end_matches(['/']);
        let may_use = match may_use {
            "–" => Vec::new(),
            "all above" => rooms.iter().map(|r| r.name.clone()).collect(),
            list => list.split(", ").map(str::to_owned).collect(),
        };
        rooms.push(Room {
            name: name.trim_end_matches(".rs").to_owned(),
            may_use,
        });
    }
    rooms
}

/// `room: name` for every use of a room that its row does not allow.
fn forbidden_uses(room: &str, code: &str, rooms: &[Room]) -> Vec<String> {
    let row = rooms.iter().find(|r| r.name == room);
    let allowed = |name: &String| name == room || row.is_some_and(|r| r.may_use.contains(name));
    let known = |name: &String| rooms.iter().any(|r| r.name == *name);
    let names = crate_names(code).into_iter();
    names
        .filter(|n| known(n) && !allowed(n))
        .map(|n| format!("{room} uses {n}"))
        .collect()
}

/// Asserts that one of `words` stands in some file that `may` allows, and in no other.
fn only(words_sought: &[&str], may: impl Fn(&Source) -> bool) {
    let names = |s: &Source| words(&s.code).any(|w| words_sought.contains(&w));
    let (right, wrong): (Vec<_>, Vec<_>) = room_sources().into_iter().filter(names).partition(may);
    let wrong: Vec<PathBuf> = wrong.into_iter().map(|s| s.path).collect();
    assert!(wrong.is_empty(), "{words_sought:?} stands in {wrong:?}");
    assert!(
        !right.is_empty(),
        "{words_sought:?} stands nowhere: the rule holds nothing"
    );
}

#[test]
fn src_holds_exactly_the_rooms_of_the_table() {
    let expected: BTreeSet<String> = table().into_iter().map(|r| r.name).collect();
    let found: BTreeSet<String> = room_sources().iter().map(Source::room).collect();
    assert_eq!(found, expected);
}

#[test]
fn lib_lists_the_rooms_in_the_order_of_the_table() {
    let lib = Source::read(Path::new("src/lib.rs"));
    let modules = lib.code.split("pub mod ").skip(1);
    let listed: Vec<&str> = modules.filter_map(|rest| rest.split(';').next()).collect();
    let expected: Vec<String> = table().into_iter().map(|r| r.name).collect();
    assert_eq!(listed, expected);
}

#[test]
fn the_table_lets_rooms_use_only_rooms_above() {
    let mut above: Vec<String> = Vec::new();
    for room in table() {
        let below: Vec<_> = room.may_use.iter().filter(|u| !above.contains(u)).collect();
        assert!(
            below.is_empty(),
            "{} uses {below:?}, not above it or not a room",
            room.name
        );
        above.push(room.name);
    }
}

#[test]
fn rooms_use_only_what_the_table_allows() {
    let rooms = table();
    let uses = |s: &Source| -> Vec<String> {
        let wrong = forbidden_uses(&s.room(), &s.code, &rooms);
        wrong
            .into_iter()
            .map(|w| format!("{}: {w}", s.path.display()))
            .collect()
    };
    let wrong: Vec<String> = room_sources().iter().flat_map(uses).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_http_knows_axum_and_status_codes() {
    only(&["axum", "StatusCode"], |s| s.room() == "http");
}

#[test]
fn only_engine_model_and_train_name_candle() {
    let rooms = ["engine", "model", "train"];
    only(&["candle_core", "candle_nn"], |s| rooms.contains(&&*s.room()));
}

#[test]
fn only_engine_device_opens_a_gpu() {
    only(&["new_cuda", "new_cuda_with_stream", "cuda_if_available"], |s| {
        s.is("src/engine/device.rs")
    });
}

#[test]
fn only_config_reads_environment_variables() {
    let reads = |s: &Source| s.code.contains("env::var");
    let wrong: Vec<PathBuf> = room_sources()
        .into_iter()
        .filter(|s| reads(s) && s.room() != "config")
        .map(|s| s.path)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn unsafe_stands_only_in_kernels_flush_and_stream() {
    only(&["unsafe"], |s| {
        s.room() == "kernels" || s.is("src/engine/flush.rs") || s.is("src/engine/stream.rs")
    });
}

#[test]
fn every_file_says_what_it_is_for_and_is_short_and_finished() {
    for source in sources("src").into_iter().chain(sources("tests")) {
        let path = source.path.display();
        assert!(
            source.text.starts_with("//! "),
            "{path} does not begin with a //! line"
        );
        let lines = source.text.lines().count();
        assert!(lines <= MAX_LINES, "{path} has {lines} lines");
        assert!(
            !source.code.contains("todo!") && !source.code.contains("unimplemented!"),
            "{path} has unfinished code"
        );
    }
}

#[test]
fn a_forbidden_use_is_found_in_each_form() {
    let page = "# P\n\n## Rooms\n\n| room | what | may use |\n|---|---|---|\n| `model/` | a | – |\n| `engine/` | b | model |\n\
                | `http/` | c | model, engine |\n| `cli/` | d | all above |\n\n## Next\n| `no` | e | – |\n";
    let rooms = rooms_of(page);
    assert_eq!(rooms.len(), 4);
    assert_eq!(rooms[3].may_use, ["model", "engine", "http"]);
    let check = |room: &str, code: &str, expected: &[&str]| {
        assert_eq!(
            forbidden_uses(room, &code_of(code), &rooms),
            expected,
            "{room}: {code}"
        );
    };
    check("model", "use crate::engine::Plan;", &["model uses engine"]);
    check(
        "engine",
        "use crate::{model::{Graph, http}, http::State};",
        &["engine uses http"],
    );
    check(
        "engine",
        "use crate::{\n    cli,\n    http,\n};",
        &["engine uses cli", "engine uses http"],
    );
    check("model", "fn f(x: crate::http::State) {}", &["model uses http"]);
    check("engine", "use crate::model::Graph; use crate::engine::Slot;", &[]);
    check("model", "// see crate::http\nlet s = \"crate::http\";", &[]);
    check("model", "use mycrate::http;", &[]);
    check("cli", "use crate::http::serve;", &[]);
    check("stranger", "use crate::model::Graph;", &["stranger uses model"]);
}
