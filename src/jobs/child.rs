//! The process of a job: started with less priority and memory than the server, ended whole, always reaped.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::{Pid, Signal, getpriority_process, kill_process_group, setpriority_process};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use super::Config;
use super::folder::Folder;
use super::lines::Lines;

/// How a child is started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its first arguments; `--config FILE --request FILE --work DIR` follow.
    pub arguments: Vec<OsString>,
    /// What it finds in the file of `--config`: the configuration that holds here.
    pub configuration: String,
    /// Variables of the environment that would outweigh it.
    pub unset: Vec<OsString>,
}

/// Where the scheduler places a job: below everything that answers.
const NICE: i32 = 19;

/// A running child, which leads a process group of its own: a signal from a terminal is the server's to handle, and what the
/// child has started ends with it.
pub(super) struct Running {
    /// Waiting for its end loses nothing when it is cancelled.
    pub(super) process: Child,
    /// Its number, which is its group's too.
    group: Pid,
    pub(super) told: Lines<ChildStdout>,
    pub(super) log: Lines<ChildStderr>,
}

impl Launch {
    /// Starts it in `folder`. `lock` becomes its standard input, which it never reads: with it the child itself holds the
    /// folder, for as long as it lives.
    pub(super) fn start(&self, folder: &Folder, lock: File, config: &Config) -> io::Result<Running> {
        let mut child = self.command(folder, lock, config).spawn()?;
        let (Some(told), Some(log)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(io::Error::other("the child has no pipes"));
        };
        let group = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let running = Running {
            group: group.ok_or_else(|| io::Error::other("the child has no number"))?,
            process: child,
            told: Lines::new(told),
            log: Lines::new(log),
        };
        running.restrain(config)?;
        Ok(running)
    }

    fn command(&self, folder: &Folder, lock: File, config: &Config) -> Command {
        let threads = config.threads.to_string();
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .arg("--config")
            .arg(folder.config())
            .arg("--request")
            .arg(folder.request())
            .arg("--work")
            .arg(folder.work())
            .env("RAYON_NUM_THREADS", &threads)
            .env("CANDLE_NUM_THREADS", &threads)
            .stdin(lock)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        for variable in &self.unset {
            command.env_remove(variable);
        }
        command
    }
}

impl Running {
    /// Before it has threads, which inherit both.
    fn restrain(&self, config: &Config) -> io::Result<()> {
        let pid = self.group;
        // A server that is nicer still has a child that is as nice: nobody may be less.
        let nice = getpriority_process(Some(pid))?.max(NICE);
        setpriority_process(Some(pid), nice)?;
        #[cfg(target_os = "linux")]
        if config.memory_bytes > 0 {
            use rustix::process::{Resource, Rlimit, prlimit};
            // What it allocates, however; files that it maps count for nothing.
            let limit = Some(config.memory_bytes);
            let limit = Rlimit {
                current: limit,
                maximum: limit,
            };
            prlimit(Some(pid), Resource::Data, limit)?;
        }
        #[cfg(not(target_os = "linux"))]
        if config.memory_bytes > 0 {
            tracing::warn!("jobs.memory_bytes holds on Linux alone");
        }
        Ok(())
    }

    /// Kills what is left of it and of what it has started; it goes on from its checkpoint when it is started again. Called
    /// before its end and right after: the number of a group is not given away while one of its processes lives.
    pub(super) fn kill(&self) {
        // An error says that nothing is left.
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}
