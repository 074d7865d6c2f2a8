//! A server as a process of its own, for tests that use the program as its users do.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::Value;

/// The program with these arguments.
pub(crate) fn sconce(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sconce"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// A server of its own process; killed when dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    /// Host and port.
    pub(crate) address: String,
    /// Where it announces its addresses.
    announced: BufReader<ChildStdout>,
    /// Its lines.
    log: Mutex<Receiver<String>>,
}

impl Server {
    /// Starts on a free port and waits until it is bound.
    pub(crate) fn start(models: &Path, settings: &[&str]) -> Self {
        let mut command = sconce(&["serve", "--listen", "127.0.0.1:0", "--models"]);
        command.arg(models).args(["--set", "log.format=json"]);
        // What somebody measured in the current folder is not for tests.
        command.args(["--set", "engine.cache="]);
        // One address for everything, unless a later setting outweighs this one.
        command.args(["--set", "admin.address="]);
        // Nor is what is kept there.
        command.args(["--set", "store.folder="]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.unwrap();
        let mut line = String::new();
        let mut announced = BufReader::new(child.stdout.take().unwrap());
        announced.read_line(&mut line).unwrap();
        let url = line.trim_end().strip_prefix("listening on ");
        let address = url.and_then(|url| {
            url.strip_prefix("http://")
                .or_else(|| url.strip_prefix("https://"))
        });
        Self {
            address: address.unwrap_or_else(|| panic!("'{line}'")).to_owned(),
            announced,
            log: Mutex::new(lines(child.stderr.take().unwrap())),
            child,
        }
    }

    /// Host and port of the listener of those who manage, where it is another; asked for once.
    pub(crate) fn admin(&mut self) -> String {
        let mut line = String::new();
        self.announced.read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("admin on http://");
        address.unwrap_or_else(|| panic!("'{line}'")).to_owned()
    }

    pub(crate) fn ready(models: &Path, settings: &[&str]) -> Self {
        let mut server = Self::start(models, settings);
        server.wait_for("ready");
        server
    }

    /// Reads the log up to the line with this message.
    pub(crate) fn wait_for(&mut self, message: &str) -> Value {
        let mut before = String::new();
        loop {
            let Ok(line) = self.log.get_mut().unwrap().recv() else {
                panic!("no '{message}' in:\n{before}");
            };
            before.push_str(&line);
            if let Ok(event) = serde_json::from_str::<Value>(&line)
                && event["message"] == message
            {
                return event;
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// The exit code, and what the log still said.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let rest = self.log.get_mut().unwrap().iter().collect();
        (self.child.wait().unwrap().code(), rest)
    }

    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        self.ask(
            &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
            &[],
        )
    }

    pub(crate) fn ask(&self, head: &str, body: &[u8]) -> (u16, String) {
        ask_at(&self.address, head, body)
    }
}

/// The lines of a log, taken as they come: a pipe that is full would hold up the server.
fn lines(log: ChildStderr) -> Receiver<String> {
    let (send, lines) = channel();
    let read = move || {
        let mut log = BufReader::new(log);
        let mut line = Vec::new();
        while log.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            // Where nobody listens any more, the pipe is emptied all the same.
            let _ = send.send(String::from_utf8_lossy(&line).into_owned());
            line.clear();
        }
    };
    thread::Builder::new().spawn(read).unwrap();
    lines
}

/// Status and body of what an address answers.
pub(crate) fn ask_at(address: &str, head: &str, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    answer(stream)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The head of a request that posts `length` bytes of an image.
pub(crate) fn head(path: &str, content_type: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {content_type}\r\n\
         Content-Length: {length}\r\n\r\n"
    )
}

/// Status and body of the one answer of a connection.
pub(crate) fn answer(mut stream: TcpStream) -> (u16, String) {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}
