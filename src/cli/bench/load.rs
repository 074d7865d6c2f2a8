//! `sconce bench load`: requests to a running server, counted and timed.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::LocalSet;

use super::super::url::Url;
use super::super::{CliError, print, write};
use chart::Line;
use client::{Client, Target};
use histogram::Histogram;
use payload::Payload;
use recorder::{Outcome, Recorder};
use report::Report;
use round::Load;

mod chart;
mod client;
mod figures;
mod histogram;
pub(super) mod overload;
mod payload;
mod recorder;
mod report;
mod round;
mod schedule;

/// Flags of `sconce bench load`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "For example: sconce bench load http://127.0.0.1:8080/v1/predict --image examples/digit.png"
)]
pub(crate) struct Args {
    /// Where the requests go, such as http://127.0.0.1:8080/v1/predict
    #[arg(value_name = "URL")]
    url: String,
    /// Images, one per request, in turn
    #[arg(long, value_name = "FILE", num_args = 1..=1000)]
    image: Vec<PathBuf>,
    /// A whole request body, such as JSON; needs --content-type
    #[arg(
        long,
        value_name = "FILE",
        requires = "content_type",
        conflicts_with = "image"
    )]
    body: Option<PathBuf>,
    /// The content type of --body
    #[arg(long, value_name = "TYPE", requires = "body", conflicts_with = "image")]
    content_type: Option<String>,
    /// Keep-alive connections, 1 to 10000
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections: u16,
    /// Open loop: requests per second, sent on a fixed schedule [default: a closed loop, in which each connection sends its
    /// next request when the last is answered]
    #[arg(long, value_name = "R", value_parser = rate)]
    rate: Option<f64>,
    /// Seconds of a round that count
    #[arg(long, value_name = "S", default_value = "5", value_parser = seconds)]
    duration: Duration,
    /// Seconds of load before them that do not count; 0 for none
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds_or_none)]
    warm_up: Duration,
    /// Seconds that a request may take
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    timeout: Duration,
    /// How often all is done, 1 to 100; the median and the range of the rounds are told
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: u8,
    /// Also write the report, with every round's figures
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also draw the latencies
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Compare with a second server: rounds in turns, A B A B; at least two
    #[arg(long, value_name = "URL")]
    against: Option<String>,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Result<(), CliError> {
    let urls = args.urls()?;
    let load = Rc::new(args.load()?);
    let failed = |e: std::io::Error| CliError::Failed(e.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let rounds = usize::from(args.rounds);
    let servers = LocalSet::new().block_on(&runtime.map_err(failed)?, measure(&urls, &load, rounds))?;
    let report = Report::new(&urls, &load, &servers);
    print(&report.text())?;
    if let Some(path) = &args.json {
        write(path, &report.json()?)?;
    }
    if let Some(path) = &args.svg {
        let lines = lines(&servers, load.rate.is_some());
        let picture = chart::svg(&lines, &report.title()).map_err(CliError::Failed)?;
        write(path, &picture)?;
    }
    judge(&urls, &servers)
}

/// The rounds of each server, in turns.
async fn measure(urls: &[Url], load: &Rc<Load>, rounds: usize) -> Result<Vec<Vec<Recorder>>, CliError> {
    let mut targets = Vec::with_capacity(urls.len());
    for url in urls {
        let target = Rc::new(Target::resolve(url).await?);
        try_once(url, &target, load).await?;
        targets.push(target);
    }
    let mut servers = vec![Vec::with_capacity(rounds); urls.len()];
    for _ in 0..rounds {
        for (target, server) in targets.iter().zip(&mut servers) {
            let done = round::run(load, target).await;
            server.push(done.map_err(|e| CliError::Failed(format!("no thread for the schedule: {e}")))?);
        }
    }
    Ok(servers)
}

/// One request of each payload, before any round: what fails always is told at once.
async fn try_once(url: &Url, target: &Rc<Target>, load: &Load) -> Result<(), CliError> {
    let mut client = Client::new(Rc::clone(target), load.timeout);
    for payload in &load.payloads {
        let wrong = match client.ask(payload).await {
            Outcome::ConnectError => "nobody listens there".to_owned(),
            Outcome::Timeout => format!("no answer within {} s", load.timeout.as_secs_f64()),
            Outcome::ProtocolError => "what answers does not speak HTTP/1.1".to_owned(),
            // Load makes 429s; every other 4xx is of the request itself.
            Outcome::Answered(status @ (300..=428 | 430..=499)) => {
                format!("a first request was answered {status}; is the address right, and what is sent?")
            }
            Outcome::Answered(_) | Outcome::Unexplained => continue,
        };
        return Err(CliError::Failed(format!("{url}: {wrong}")));
    }
    Ok(())
}

/// The latencies of all rounds together.
fn lines(servers: &[Vec<Recorder>], open: bool) -> Vec<Line> {
    let together = |rounds: &[Recorder], of: fn(&Recorder) -> &Histogram| {
        let mut all = Histogram::default();
        rounds.iter().for_each(|round| all.merge(of(round)));
        all
    };
    let mut lines = Vec::new();
    for (rounds, letter) in servers.iter().zip(["A", "B"]) {
        let server = if servers.len() > 1 {
            format!("{letter}: ")
        } else {
            String::new()
        };
        if open {
            lines.push((
                format!("{server}corrected latency"),
                together(rounds, |round| &round.corrected),
            ));
        }
        lines.push((
            format!("{server}service time"),
            together(rounds, |round| &round.service),
        ));
    }
    lines
}

/// An error where a server gave no answer 2xx at all.
fn judge(urls: &[Url], servers: &[Vec<Recorder>]) -> Result<(), CliError> {
    let failed = |rounds: &[Recorder]| rounds.iter().all(|round| round.successes() == 0);
    match urls.iter().zip(servers).find(|(_, rounds)| failed(rounds)) {
        Some((url, _)) => Err(CliError::Failed(format!("{url}: no request was answered 2xx"))),
        None => Ok(()),
    }
}

impl Args {
    fn urls(&self) -> Result<Vec<Url>, CliError> {
        if self.against.is_some() && self.rounds < 2 {
            let text = "--against needs at least two --rounds: one round has no spread to compare with";
            return Err(CliError::Usage(text.to_owned()));
        }
        std::iter::once(&self.url)
            .chain(&self.against)
            .map(|url| Url::parse(url))
            .collect()
    }

    fn load(&self) -> Result<Load, CliError> {
        Ok(Load {
            payloads: self.payloads()?,
            connections: usize::from(self.connections),
            rate: self.rate,
            warm_up: self.warm_up,
            duration: self.duration,
            timeout: self.timeout,
        })
    }

    fn payloads(&self) -> Result<Vec<Payload>, CliError> {
        match (&self.body, &self.content_type) {
            (Some(path), Some(content_type)) => Ok(vec![payload::body(path, content_type)?]),
            _ if self.image.is_empty() => {
                let text = "say what is sent: --image FILE, such as examples/digit.png, or --body FILE --content-type TYPE";
                Err(CliError::Usage(text.to_owned()))
            }
            _ => payload::images(&self.image),
        }
    }
}

/// Of a flag: more than none, and no more than an hour.
fn seconds(text: &str) -> Result<Duration, String> {
    let duration = seconds_or_none(text)?;
    if duration.is_zero() {
        return Err("more than 0 seconds are needed".to_owned());
    }
    Ok(duration)
}

fn seconds_or_none(text: &str) -> Result<Duration, String> {
    let number = text
        .parse()
        .ok()
        .filter(|seconds| (0.0..=3600.0).contains(seconds));
    number
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "seconds are expected, from 0 to 3600".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|rate| (0.001..=1e6).contains(rate));
    number.ok_or_else(|| "requests per second are expected, from 0.001 to 1000000".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(arguments: &[&str]) -> Result<Args, clap::Error> {
        let all = ["load", "http://a/"].iter().chain(arguments);
        Line::try_parse_from(all).map(|line| line.args)
    }

    #[test]
    fn flags_have_defaults_and_limits() {
        let args = parse(&["--image", "a", "b"]).unwrap();
        assert_eq!(
            (args.image.len(), args.connections, args.rounds, args.rate),
            (2, 8, 3, None)
        );
        let seconds = [args.duration, args.warm_up, args.timeout].map(|duration| duration.as_secs());
        assert_eq!(seconds, [5, 1, 10]);
        let check = |arguments: &[&str], expected: &str| {
            let all: Vec<&str> = ["--image", "a"].iter().chain(arguments).copied().collect();
            let error = parse(&all).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(&["--connections", "0"], "1..=10000");
        check(&["--connections", "10001"], "1..=10000");
        check(&["--rate", "0"], "from 0.001");
        check(&["--rate", "NaN"], "from 0.001");
        check(&["--duration", "0"], "more than 0");
        check(&["--timeout", "inf"], "from 0 to 3600");
        check(&["--warm-up", "-1"], "");
        check(&["--rounds", "101"], "1..=100");
        check(&["--body", "b"], "cannot be used with");
        check(&["--content-type", "c"], "cannot be used with");
    }

    #[test]
    fn what_is_sent_must_be_told() {
        let error = parse(&[]).unwrap().load().unwrap_err().to_string();
        assert!(error.contains("--image") && error.contains("--body"), "{error}");
        assert!(parse(&["--body", "a"]).is_err());
        assert!(parse(&["--body", "a", "--content-type", "text/plain"]).is_ok());
    }

    #[test]
    fn one_round_compares_nothing() {
        let check = |rounds: &str, against: &str, right: bool| {
            let args = parse(&["--image", "a", "--rounds", rounds, "--against", against]).unwrap();
            assert_eq!(args.urls().is_ok(), right, "{rounds} {against}");
        };
        check("2", "http://b/", true);
        check("1", "http://b/", false);
        check("2", "https://b/", false);
    }
}
