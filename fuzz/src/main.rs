//! Feeds every reader of foreign bytes with damaged ones, on a stable compiler.
//!
//! An input is a seed that was changed a few times. It becomes a seed itself where what is said of it was never said
//! before: the texts of errors tell how far a reader came. What panics, takes too long or breaks a promise is kept.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use mutate::Rng;
use targets::{TARGETS, Target};

mod mutate;
mod png;
mod seeds;
mod targets;

/// An input that takes longer is kept.
const SLOW: Duration = Duration::from_secs(2);
/// Most seeds of one target; a further one takes the place of any that was found.
const MAX_SEEDS: usize = 4000;
/// A target that was found at fault so often has said enough.
const MAX_FOUND: u64 = 50;
/// Longest input.
const MAX_BYTES: usize = 256 << 10;

const USAGE: &str = "sconce-fuzz [--seconds N] [--seed N] [TARGET…]; each target has N seconds (10)
sconce-fuzz TARGET FILE: runs one input";

struct Asked {
    seconds: u64,
    seed: u64,
    targets: Vec<&'static Target>,
    /// One input to be run by the only target.
    file: Option<PathBuf>,
}

/// What one target did.
#[derive(Default)]
struct Tally {
    runs: u64,
    found: u64,
    slowest: Duration,
    seeds: usize,
    outcomes: usize,
}

fn main() -> ExitCode {
    let asked = match asked(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(problem) => {
            eprintln!("{problem}\n{USAGE}");
            return ExitCode::from(64);
        }
    };
    if let (Some(file), &[target]) = (&asked.file, &asked.targets[..]) {
        return replay(target, file);
    }
    // Each is told once, by what is kept of it.
    std::panic::set_hook(Box::new(|_| {}));
    let mut found = 0;
    for target in asked.targets {
        match run(target, asked.seed, Duration::from_secs(asked.seconds)) {
            Ok(tally) => {
                found += tally.found;
                println!(
                    "{:<14} {:>9} runs, {} found, {} outcomes, {} seeds, slowest {:.0?}",
                    target.name, tally.runs, tally.found, tally.outcomes, tally.seeds, tally.slowest
                );
            }
            Err(error) => {
                eprintln!("{}: {error}", target.name);
                return ExitCode::from(74);
            }
        }
    }
    ExitCode::from(u8::from(found > 0))
}

fn asked(arguments: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut asked = Asked {
        seconds: 10,
        seed: 1,
        targets: Vec::new(),
        file: None,
    };
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        let mut number = || -> Result<u64, String> {
            let text = arguments.next().unwrap_or_default();
            text.parse().map_err(|_| format!("{argument} needs a number"))
        };
        match &*argument {
            "--seconds" => asked.seconds = number()?,
            "--seed" => asked.seed = number()?,
            name => match TARGETS.iter().find(|target| target.name == name) {
                Some(target) => asked.targets.push(target),
                None if asked.targets.len() == 1 && Path::new(name).is_file() => {
                    asked.file = Some(name.into())
                }
                None => {
                    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
                    return Err(format!("no target '{name}'; there are: {}", names.join(" ")));
                }
            },
        }
    }
    if asked.targets.is_empty() {
        asked.targets = TARGETS.iter().collect();
    }
    Ok(asked)
}

fn replay(target: &Target, file: &Path) -> ExitCode {
    let bytes = fs::read(file).expect("the file can be read");
    let mut run = (target.open)();
    println!("{}", run(&bytes));
    ExitCode::SUCCESS
}

/// Runs a target for so long; what is found lies in `fuzz/found`.
fn run(target: &Target, seed: u64, time: Duration) -> io::Result<Tally> {
    let mut rng = Rng::new(seed);
    let mut seeds = seeds::of(target)?;
    let first = seeds.len();
    let mut outcomes = HashSet::new();
    let mut reader = (target.open)();
    let mut tally = Tally::default();
    let end = Instant::now() + time;
    // The seeds as they are, before anything is changed.
    for at in 0.. {
        if Instant::now() >= end || tally.found >= MAX_FOUND {
            break;
        }
        let input = match seeds.get(at).filter(|_| at < first) {
            Some(seed) => seed.clone(),
            None => {
                let mut input = seeds[rng.below(seeds.len())].clone();
                let other = rng.below(seeds.len());
                mutate::change(&mut input, &seeds[other], target.words, &mut rng);
                input.truncate(MAX_BYTES);
                if target.is_image && rng.below(2) == 0 {
                    png::mend(&mut input);
                }
                input
            }
        };
        let (mut outcome, mut spent) = timed(&mut *reader, &input);
        for _ in 0..2 {
            // On a busy machine anything may take long once.
            if spent > SLOW && outcome.is_ok() {
                let again = timed(&mut *reader, &input);
                (outcome, spent) = (again.0, spent.min(again.1));
            }
        }
        tally.runs += 1;
        tally.slowest = tally.slowest.max(spent);
        let outcome = match outcome {
            Ok(outcome) if spent <= SLOW => outcome,
            Ok(_) => {
                tally.found += keep(target, "slow", &input)?;
                continue;
            }
            Err(_) => {
                tally.found += keep(target, "panic", &input)?;
                // Whatever it left half done is left behind.
                reader = (target.open)();
                continue;
            }
        };
        if outcomes.insert(mutate::hash(signature(&outcome).as_bytes())) && at >= first {
            if seeds.len() < MAX_SEEDS {
                seeds.push(input);
            } else {
                let place = first + rng.below(seeds.len() - first);
                seeds[place] = input;
            }
        }
    }
    tally.seeds = seeds.len();
    tally.outcomes = outcomes.len();
    Ok(tally)
}

/// What the reader says of an input, or that it panicked, and how long it took.
fn timed(reader: &mut dyn FnMut(&[u8]) -> String, input: &[u8]) -> (thread::Result<String>, Duration) {
    let begun = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| reader(input)));
    (outcome, begun.elapsed())
}

/// An outcome without its numbers and without the names that the input gave: what kind it is.
fn signature(outcome: &str) -> String {
    let mut kind = String::new();
    let mut quoted = false;
    for c in outcome.chars().take(300) {
        match c {
            '\'' | '"' | '`' => quoted = !quoted,
            _ if quoted || c.is_ascii_digit() => {}
            _ => kind.push(c),
        }
    }
    kind
}

/// Keeps an input; 1 where it was not there.
fn keep(target: &Target, kind: &str, input: &[u8]) -> io::Result<u64> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("found");
    fs::create_dir_all(&folder)?;
    let file = folder.join(format!("{}-{kind}-{:016x}", target.name, mutate::hash(input)));
    if file.exists() {
        return Ok(0);
    }
    eprintln!("{}: {kind}: {}", target.name, file.display());
    fs::write(file, input)?;
    Ok(1)
}
