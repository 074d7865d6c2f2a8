//! `sconce bench overload`: a running server asked for far more than it can do, then by clients that hang up.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hyper::header::{HeaderName, HeaderValue};
use tokio::task::LocalSet;
use tokio::time::sleep;

use super::super::super::url::Url;
use super::super::super::{CliError, print, write};
use super::client::{Client, Target};
use super::payload::{self, Payload};
use super::recorder::{Outcome, Recorder};
use super::round::{self, Load};
use super::{seconds, try_once};
use gauges::{Gauges, Watch};
use report::{Findings, HangUps, Report};

mod gauges;
mod hang_up;
mod report;

/// Flags of `sconce bench overload`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "For example: sconce bench overload http://127.0.0.1:8080/v1/predict --image examples/digit.png"
)]
pub(crate) struct Args {
    /// Where the requests go, such as http://127.0.0.1:8080/v1/predict
    #[arg(value_name = "URL")]
    url: String,
    /// Images, one per request, in turn
    #[arg(long, value_name = "FILE", required = true, num_args = 1..=1000)]
    image: Vec<PathBuf>,
    /// How many times what the server can do is asked of it, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 10.0, value_parser = times)]
    times: f64,
    /// Requests per second that it can do [default: measured, by a closed loop over 64 connections for 5 seconds]
    #[arg(long, value_name = "R", value_parser = super::rate)]
    capacity: Option<f64>,
    /// Seconds of overload
    #[arg(long, value_name = "S", default_value = "60", value_parser = seconds)]
    duration: Duration,
    /// Each request's deadline in milliseconds (X-Request-Timeout-Ms), 1 to 3600000
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    deadline_ms: u64,
    /// Keep-alive connections of the overload, 1 to 10000 [default: twice as many as a deadline's answers, 512 to 4000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections: Option<u16>,
    /// Clients that then send a request and hang up, 0 to 10000000
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    hang_ups: u32,
    /// The server's series, http://127.0.0.1:8081/metrics where it manages at another address [default: /metrics beside URL]
    #[arg(long, value_name = "URL")]
    metrics: Option<String>,
    /// Also write the report
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Connections that find out what the server can do.
const CAPACITY_CONNECTIONS: usize = 64;
const CAPACITY: Duration = Duration::from_secs(5);
/// A single connection tells how quick an answer is where nothing is asked.
const QUIET: Duration = Duration::from_secs(2);
/// So many answers in a row that are as quick as when it was quiet are normal again.
const NORMAL: usize = 10;
/// As quick: within so many times the quiet 99th percentile.
const AS_QUICK: u32 = 2;
/// After this it will not be normal any more.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs it.
pub(crate) fn run(args: &Args) -> Result<(), CliError> {
    let url = Url::parse(&args.url)?;
    let payloads = payload::images(&args.image)?;
    let failed = |e: std::io::Error| CliError::Failed(e.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let findings = LocalSet::new().block_on(&runtime.map_err(failed)?, drill(args, &url, payloads))?;
    let report = Report::new(&url, &findings);
    print(&report.text())?;
    if let Some(path) = &args.json {
        write(path, &report.json()?)?;
    }
    report.judge()
}

/// Everything in turn.
async fn drill(args: &Args, url: &Url, payloads: Vec<Payload>) -> Result<Findings, CliError> {
    let deadline = HeaderValue::from(args.deadline_ms);
    let named = (HeaderName::from_static("x-request-timeout-ms"), deadline);
    let target = Rc::new(Target::resolve(url).await?.with(named));
    // What it can do is asked without deadlines of ours, so that nothing is refused.
    let patient = Rc::new(Target::resolve(url).await?);
    let limit = Duration::from_millis(args.deadline_ms);
    // What is later than the server has promised by so much is no answer at all.
    let load = |connections: usize, rate: Option<f64>, duration: Duration| Load {
        payloads: payloads.clone(),
        connections,
        rate,
        warm_up: Duration::ZERO,
        duration,
        timeout: limit * 2 + Duration::from_secs(10),
    };
    let quiet_load = Rc::new(load(1, None, QUIET.min(args.duration)));
    try_once(url, &patient, &quiet_load).await?;
    let quiet = measured(&quiet_load, &patient).await?;
    let quick = quiet.service.quantile(0.99).ok_or_else(|| nothing(url))?;
    let capacity = match args.capacity {
        Some(capacity) => capacity,
        None => {
            let load = Rc::new(load(CAPACITY_CONNECTIONS, None, CAPACITY.min(args.duration)));
            measured(&load, &patient).await?.throughput()
        }
    };
    if capacity <= 0.0 {
        return Err(nothing(url));
    }
    let series = match &args.metrics {
        Some(url) => Url::parse(url)?,
        None => Url {
            path: "/metrics".to_owned(),
            ..url.clone()
        },
    };
    let series = Rc::new(Target::resolve(&series).await?);
    let rate = capacity * args.times;
    // Those who wait for their answer hold theirs, and the refused need some besides.
    let enough = || (2.0 * capacity * limit.as_secs_f64()).clamp(512.0, 4000.0) as usize;
    let connections = args.connections.map_or_else(enough, usize::from);
    let load = Rc::new(load(connections, Some(rate), args.duration));
    let before = Gauges::of(&series).await?;
    let watch = Watch::start(&series);
    let begun = Instant::now();
    let normal = tokio::task::spawn_local(until_normal(Rc::clone(&target), Rc::clone(&load), quick));
    let overload = measured(&load, &target).await?;
    tracing::debug!(seconds = begun.elapsed().as_secs_f64(), "the overload is over");
    let normal_after = normal.await.map_err(|e| CliError::Failed(e.to_string()))?;
    let [first_half, second_half] = watch.end();
    let after = Gauges::of(&series).await?;
    let hang_ups = hang_ups(args.hang_ups, [&target, &series], &payloads).await?;
    Ok(Findings {
        quiet,
        capacity,
        rate,
        limit,
        overload,
        normal_after,
        memory: [before.memory, first_half, second_half, after.memory],
        hang_ups,
    })
}

async fn measured(load: &Rc<Load>, target: &Rc<Target>) -> Result<Recorder, CliError> {
    let done = round::run(load, target).await;
    done.map_err(|e| CliError::Failed(format!("no thread for the schedule: {e}")))
}

fn nothing(url: &Url) -> CliError {
    CliError::Failed(format!("{url}: no request was answered 2xx"))
}

/// Asks alone from the end of the overload on, and tells how long after it the first of [`NORMAL`] quick answers was asked for.
async fn until_normal(target: Rc<Target>, load: Rc<Load>, quick: Duration) -> Option<Duration> {
    sleep(load.duration).await;
    let over = Instant::now();
    let mut client = Client::new(target, load.timeout);
    let (mut first, mut in_a_row) = (over, 0);
    while over.elapsed() < PATIENCE {
        let asked = Instant::now();
        let payload = load.payloads.first()?;
        let answered = client.ask(payload).await == Outcome::Answered(200);
        if !answered || asked.elapsed() > quick * AS_QUICK {
            in_a_row = 0;
            continue;
        }
        if in_a_row == 0 {
            first = asked;
        }
        in_a_row += 1;
        if in_a_row == NORMAL {
            return Some(first - over);
        }
    }
    None
}

/// Lets clients hang up, and looks at what is left of them once the server has had its time.
async fn hang_ups(
    count: u32,
    [target, series]: [&Rc<Target>; 2],
    payloads: &[Payload],
) -> Result<Option<HangUps>, CliError> {
    let Some(payload) = payloads.first().filter(|_| count > 0) else {
        return Ok(None);
    };
    let before = Gauges::of(series).await?;
    let begun = Instant::now();
    let sent = hang_up::all(count, target, payload).await;
    let seconds = begun.elapsed().as_secs_f64();
    let over = Instant::now();
    let mut after = Gauges::of(series).await?;
    while !after.is_idle() && over.elapsed() < PATIENCE {
        sleep(Duration::from_millis(50)).await;
        after = Gauges::of(series).await?;
    }
    Ok(Some(HangUps {
        sent,
        failed: u64::from(count) - sent,
        seconds,
        memory: [before.memory, after.memory],
        left: after,
    }))
}

fn times(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|times| (1.0..=1000.0).contains(times));
    number.ok_or_else(|| "a number from 1 to 1000 is expected".to_owned())
}
