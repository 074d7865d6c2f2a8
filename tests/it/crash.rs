//! Crash points: the program is killed, or its disk fails, at each of the calls that change its files; then it starts again.
//!
//! With every run a sample of the points is tried; the ignored tests, which are named `every_…`, try all of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tempfile::TempDir;

use disk::{Call, Disk, Fault};

mod disk;
mod feedback;
mod promote;
mod retrain;
mod victim;

/// What goes wrong, and at which call, from 0.
#[derive(Clone, Debug)]
struct Point {
    fault: Fault,
    at: usize,
    /// The call that was there when nothing went wrong.
    call: Call,
}

/// The points of a course of `calls` with these faults.
fn points(calls: &[Call], faults: &[Fault]) -> Vec<Point> {
    let numbered = || calls.iter().cloned().enumerate();
    let of = |&fault: &Fault| {
        numbered().filter_map(move |(at, call)| fault.differs_at(&call).then_some(Point { fault, at, call }))
    };
    faults.iter().flat_map(of).collect()
}

/// As many of them, spread evenly.
fn sample<T>(all: Vec<T>, most: usize) -> Vec<T> {
    let count = all.len();
    let chosen = |index: &usize| count <= most || index * most / count != (index + 1) * most / count;
    let numbered = all.into_iter().enumerate();
    numbered
        .filter(|(index, _)| chosen(index))
        .map(|(_, one)| one)
        .collect()
}

/// Tries points on as many threads as a small machine has cores; those that `check` says were reached.
fn each(points: Vec<Point>, check: impl Fn(&Point) -> bool + Sync) -> Vec<Point> {
    let count = points.len();
    let (next, reached) = (Mutex::new(points.into_iter()), Mutex::new(Vec::new()));
    let work = || {
        while let Some(point) = { next.lock().unwrap().next() } {
            if check(&point) {
                reached.lock().unwrap().push(point);
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    let reached = reached.into_inner().unwrap();
    // What a program does from time to time comes a little earlier or later: of a small sample, a few may be missed.
    let missed = count - reached.len();
    assert!(
        missed <= (count / 10).max(4),
        "{missed} of {count} were not reached"
    );
    // Nor may it be that nothing is tried.
    assert!(!reached.is_empty());
    reached
}

/// Tells what was tried, in the line that the gate shows.
#[expect(clippy::print_stdout, reason = "what is measured is printed")]
fn told(what: &str, points: &[Point]) {
    let (mut faults, mut calls) = (BTreeMap::new(), BTreeMap::new());
    for point in points {
        *faults.entry(format!("{:?}", point.fault)).or_insert(0) += 1;
        *calls.entry(point.call.name.clone()).or_insert(0) += 1;
    }
    let list = |counts: BTreeMap<String, usize>| {
        let counts = counts.into_iter().map(|(name, count)| format!("{name} {count}"));
        counts.collect::<Vec<_>>().join(", ")
    };
    // The test's own name may stand on the line.
    println!(
        "\nmeasured: {what}: {} points held ({}), at {}",
        points.len(),
        list(faults),
        list(calls)
    );
}

/// A folder in memory where there is such a place: the program waits for the disk at each point many times.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// Copies what a folder holds.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let (path, target) = entry.map(|e| (e.path(), to.join(e.file_name()))).unwrap();
        if path.is_dir() {
            fs::create_dir(&target).unwrap();
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// A copy of a folder.
fn again(from: &Path) -> TempDir {
    let folder = folder();
    copy(from, folder.path());
    folder
}

/// Whether a line tells what the system said of the disk.
fn says_why(line: &str) -> bool {
    let system = [
        "No space left on device",
        "the disk is full",
        "Input/output error",
        "disk I/O error",
        // All that SQLite says of a file that it cannot make.
        "unable to open database file",
    ];
    system.iter().any(|said| line.contains(said))
}

/// Every file in a folder, by its path inside.
fn files(folder: &Path) -> Vec<PathBuf> {
    fn of(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                of(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    of(folder, &mut found);
    let inside = |path: &PathBuf| path.strip_prefix(folder).unwrap().to_owned();
    let mut inside: Vec<PathBuf> = found.iter().map(inside).collect();
    inside.sort();
    inside
}

#[test]
fn a_sample_is_spread_and_as_large_as_asked() {
    let check = |count: usize, most: usize, expected: &[usize]| {
        assert_eq!(sample((0..count).collect(), most), expected);
    };
    check(3, 5, &[0, 1, 2]);
    check(6, 3, &[1, 3, 5]);
    check(10, 4, &[2, 4, 7, 9]);
    check(5, 0, &[]);
}
