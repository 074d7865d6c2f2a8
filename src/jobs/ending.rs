//! What a child's end means for its job.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use super::lines::Tail;
use crate::retrain::Finished;
use crate::store::{JobEnd, JobState, Wish};

/// Why a child is ended from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Somebody asked for it.
    Wish(Wish),
    /// This worker stops.
    Stop,
    /// The lease is another's.
    Lost,
    /// It tells more than is read.
    Talks,
}

/// What is known of a child when it has ended.
pub(super) struct Remains<'a> {
    /// Why it was ended from here, if it was.
    pub(super) cut: Option<Cut>,
    /// How it ended.
    pub(super) status: io::Result<ExitStatus>,
    /// The last event of one that did not fail.
    pub(super) finished: Option<Finished>,
    /// Its log.
    pub(super) log: &'a Tail,
}

impl Remains<'_> {
    /// The job's end. A child that has done its work has done it, whatever was asked meanwhile.
    pub(super) fn end(self) -> JobEnd {
        let (cut, log) = (self.cut, self.log);
        let code = self.status.as_ref().ok().and_then(ExitStatus::code);
        match (code, cut, self.finished) {
            (Some(0), _, Some(finished)) => done(&finished),
            (_, Some(cut), _) => ended(cut_short(cut)),
            _ => ended(match self.status {
                Ok(status) => fallen(status, log),
                Err(error) => (JobState::Failed, Some(format!("its process is lost: {error}"))),
            }),
        }
    }
}

/// An end without a version.
pub(super) fn ended((state, reason): (JobState, Option<String>)) -> JobEnd {
    JobEnd {
        state,
        reason,
        version: None,
        promoted: None,
    }
}

fn done(finished: &Finished) -> JobEnd {
    let is_refused = finished.blessed == Some(false);
    JobEnd {
        state: if is_refused {
            JobState::Refused
        } else {
            JobState::Succeeded
        },
        reason: is_refused.then(|| finished.reasons.join("; ")),
        version: finished.version,
        promoted: Some(finished.promoted),
    }
}

/// Of a child that was ended from here, or was not to start.
pub(super) fn cut_short(cut: Cut) -> (JobState, Option<String>) {
    match cut {
        Cut::Wish(Wish::Cancel) => (JobState::Cancelled, None),
        Cut::Wish(Wish::Pause) => (JobState::Paused, None),
        Cut::Stop => (
            JobState::Queued,
            Some("interrupted: whoever ran it stopped; it goes on from its checkpoint".to_owned()),
        ),
        Cut::Lost => (JobState::Interrupted, Some("its lease was lost".to_owned())),
        Cut::Talks => (
            JobState::Failed,
            Some("it told more lines than are read of one run".to_owned()),
        ),
    }
}

/// Of a child that ended by itself, or by somebody else.
fn fallen(status: ExitStatus, log: &Tail) -> (JobState, Option<String>) {
    // What Rust says when memory is refused; with RUST_BACKTRACE it is not the last line.
    let refused = log.line_with("memory allocation of");
    let word = refused
        .or(log.last_word())
        .map(|word| format!(": {word}"))
        .unwrap_or_default();
    let failed = |what: &str| (JobState::Failed, Some(format!("{what}{word}")));
    match (status.code(), status.signal()) {
        _ if refused.is_some() => failed("out of memory (jobs.memory_bytes is its limit)"),
        (Some(0), _) => failed("it ended without saying what came of it"),
        (Some(64), _) => failed("what was asked is not possible"),
        (Some(65), _) => failed("the data or the model is not right"),
        (Some(74), _) => failed("the disk is full or cannot be used"),
        (Some(code), _) => failed(&format!("exit code {code}")),
        // What a person or the system does, not the program.
        (None, Some(signal @ (1 | 2 | 9 | 15))) => {
            let name = signal_name(signal);
            let guess = if signal == 9 {
                ": out of memory, or somebody killed it"
            } else {
                ""
            };
            (
                JobState::Interrupted,
                Some(format!("ended by signal {signal} ({name}){guess}")),
            )
        }
        (None, signal) => {
            let signal = signal.unwrap_or_default();
            failed(&format!("ended by signal {signal} ({})", signal_name(signal)))
        }
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        15 => "SIGTERM",
        _ => "unnamed here",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Version;

    /// The raw status of an exit code, as wait(2) has it.
    fn code(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    fn finished(blessed: Option<bool>) -> Finished {
        Finished {
            version: Some(Version::FIRST),
            blessed,
            reasons: vec!["one".to_owned(), "two".to_owned()],
            promoted: blessed == Some(true),
        }
    }

    #[test]
    fn every_end_has_its_state_and_reason() {
        let check = |remains: (Option<Cut>, ExitStatus, Option<Finished>), state: JobState, part: &str| {
            let mut log = Tail::default();
            log.push("sconce: why");
            let (cut, status, finished) = remains;
            let told = format!("{cut:?} {status:?} {finished:?}");
            let remains = Remains {
                cut,
                status: Ok(status),
                finished,
                log: &log,
            };
            let end = remains.end();
            let reason = end.reason.unwrap_or_default();
            assert!(end.state == state && reason.contains(part), "{told}: {reason}");
        };
        let killed = ExitStatus::from_raw(9);
        let pause = Some(Cut::Wish(Wish::Pause));
        check(
            (None, code(0), Some(finished(Some(true)))),
            JobState::Succeeded,
            "",
        );
        check((None, code(0), Some(finished(None))), JobState::Succeeded, "");
        check(
            (None, code(0), Some(finished(Some(false)))),
            JobState::Refused,
            "one; two",
        );
        check((pause, code(0), Some(finished(None))), JobState::Succeeded, "");
        check((None, code(0), None), JobState::Failed, "without saying");
        check((None, code(64), None), JobState::Failed, "not possible: why");
        check((None, code(65), None), JobState::Failed, "not right: why");
        check(
            (None, code(74), None),
            JobState::Failed,
            "disk is full or cannot be used: why",
        );
        check((None, code(101), None), JobState::Failed, "exit code 101: why");
        check(
            (None, code(1), Some(finished(None))),
            JobState::Failed,
            "exit code 1",
        );
        check(
            (None, killed, None),
            JobState::Interrupted,
            "signal 9 (SIGKILL): out of memory",
        );
        check(
            (None, ExitStatus::from_raw(15), None),
            JobState::Interrupted,
            "(SIGTERM)",
        );
        check(
            (None, ExitStatus::from_raw(11), None),
            JobState::Failed,
            "(SIGSEGV): why",
        );
        check((pause, killed, None), JobState::Paused, "");
        check(
            (Some(Cut::Wish(Wish::Cancel)), killed, None),
            JobState::Cancelled,
            "",
        );
        check((Some(Cut::Stop), killed, None), JobState::Queued, "interrupted");
        check((Some(Cut::Talks), killed, None), JobState::Failed, "more lines");
    }

    #[test]
    fn refused_memory_is_called_by_its_name() {
        let mut log = Tail::default();
        log.push("memory allocation of 4096 bytes failed");
        log.push("skipping backtrace printing to avoid potential recursion");
        let (state, reason) = fallen(ExitStatus::from_raw(6), &log);
        assert_eq!(state, JobState::Failed);
        let reason = reason.unwrap();
        assert!(
            reason.starts_with("out of memory")
                && reason.ends_with(": memory allocation of 4096 bytes failed"),
            "{reason}"
        );
    }
}
