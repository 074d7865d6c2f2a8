//! A server on a disk that fails: started, asked and ended without waiting for ever.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::disk::Disk;
use crate::contract;
use crate::serve::image;
use crate::server::{head, sconce};

/// Longer than anything takes that is not stuck.
const STUCK: Duration = Duration::from_secs(60);

/// Killed when dropped.
pub(super) struct Victim {
    child: Child,
    /// Host and port.
    address: String,
    log: PathBuf,
    _files: TempDir,
}

/// Status and document; none where the process died instead.
pub(super) type Answer = Option<(u16, Value)>;

impl Victim {
    /// Starts and waits until it is ready; none where it ended before.
    pub(super) fn start(models: &Path, settings: &[&str], disk: Option<&Disk>) -> Result<Self, String> {
        let files = super::folder();
        let log = files.path().join("log");
        let mut command = sconce(&["serve", "--listen", "127.0.0.1:0", "--admin", "", "--models"]);
        command.arg(models).args(["--set", "log.format=json"]);
        let always = [
            "engine.cache=",
            "engine.instances=1",
            "decode.threads=1",
            "http.threads=1",
            "http.drain_delay_ms=0",
            "service.poll_ms=0",
            // Nothing writes but what is asked.
            "jobs.enabled=false",
        ];
        for setting in always.iter().chain(settings) {
            command.args(["--set", setting]);
        }
        if let Some(disk) = disk {
            disk.under(&mut command);
        }
        command.stdout(Stdio::piped()).stderr(File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim_end().strip_prefix("listening on http://");
        let mut victim = Self {
            child,
            address: address.unwrap_or_default().to_owned(),
            log,
            _files: files,
        };
        match address.is_some() && victim.becomes_ready() {
            true => Ok(victim),
            false => Err(victim.ended().1),
        }
    }

    fn becomes_ready(&mut self) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < STUCK {
            if let Some((200, _)) = self.ask("GET", "/health/ready", "application/json", b"") {
                return true;
            }
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            park_timeout(Duration::from_millis(2));
        }
        panic!("it is never ready: {}", self.log());
    }

    /// The answer to a request, held against the contract.
    pub(super) fn ask(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> Answer {
        let head = head(path, content_type, body.len()).replacen("POST", method, 1);
        let text = self.exchange(&head, body).ok().filter(|text| !text.is_empty())?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        if method == "POST" {
            contract::check(method, path, status, body.as_bytes());
        }
        Some((status, serde_json::from_str(body).unwrap_or_default()))
    }

    /// Fails where the process dies; panics where it lives and says nothing.
    fn exchange(&self, head: &str, body: &[u8]) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(STUCK))?;
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut text = String::new();
        match stream.read_to_string(&mut text) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("no answer to {head}: {}", self.log())
            }
            read => read.map(|_| text),
        }
    }

    /// Whether it still says what is on an image.
    #[track_caller]
    pub(super) fn must_predict(&self) {
        let answer = self.ask("POST", "/v1/predict", "image/png", &image());
        assert!(matches!(answer, Some((200, _))), "{answer:?} {}", self.log());
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, "application/json", body.to_string().as_bytes())
    }

    /// Asks it to end, and waits.
    pub(super) fn stop(self) -> (ExitStatus, String) {
        let pid = self.child.id().to_string();
        let told = Command::new("kill").args(["-s", "TERM", &pid]).status();
        assert!(told.unwrap().success());
        self.ended()
    }

    /// How it ended, and its log.
    pub(super) fn ended(mut self) -> (ExitStatus, String) {
        let begun = Instant::now();
        while begun.elapsed() < STUCK {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, self.log());
            }
            park_timeout(Duration::from_millis(2));
        }
        panic!("it does not end: {}", self.log());
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
