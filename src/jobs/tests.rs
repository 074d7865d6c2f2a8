//! Jobs with shell scripts in the trainer's place: whatever a child does, its job has an end and a reason.
//!
//! Processes run in real time. What is asserted is that something happens, never how soon.

use std::process::Command;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::folder::{self, Folder};
use super::supervise::{Supervisor, TTL_MS};
use super::worker::unix_ms;
use super::*;
use crate::store::{self, Cause, Job, JobId, JobState, NewJob, Store};
use crate::telemetry::Metrics;

/// So long that only a hang reaches it.
const HANG: Duration = Duration::from_secs(120);

/// What a script says at its end.
const FINISHED: &str =
    r#"echo '{"event":"finished","version":2,"blessed":true,"reasons":[],"promoted":true}'"#;

/// A store with one job, and a script that is run for it. The script finds its configuration in $2, the request in $4 and its
/// folder in $6.
struct Bench {
    folder: tempfile::TempDir,
    store: Store,
    config: Config,
    launch: Launch,
    metrics: std::sync::Arc<Metrics>,
    stop: watch::Sender<bool>,
    job: JobId,
}

impl Bench {
    async fn new(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = store::Config {
            folder: folder.path().to_owned(),
            ..store::Config::default()
        };
        let store = Store::open(&config).await.unwrap();
        let new = NewJob {
            model: "digits".parse().unwrap(),
            request: "{\"model\":\"digits\"}".to_owned(),
            cause: Cause::Manual,
            key: None,
        };
        let job = store.submit_job(&new, unix_ms()).await.unwrap().id;
        Self {
            folder,
            store,
            config: Config::default(),
            launch: Launch {
                program: "/bin/sh".into(),
                arguments: ["-c", script, "sh"].map(Into::into).to_vec(),
                configuration: "a = 1\n".to_owned(),
                unset: Vec::new(),
            },
            metrics: Metrics::new(&[]),
            stop: watch::channel(false).0,
            job,
        }
    }

    /// Takes the job and runs it; how it stands then.
    async fn run(&self) -> Job {
        let holder = "w".parse().unwrap();
        let taken = self.store.take_job(&holder, unix_ms(), TTL_MS).await.unwrap();
        let supervisor = Supervisor {
            store: &self.store,
            folder: self.folder.path(),
            config: &self.config,
            launch: &self.launch,
            metrics: &self.metrics.jobs,
        };
        let mut stop = self.stop.subscribe();
        let lease = taken.unwrap();
        timeout(HANG, supervisor.run(&lease, &mut stop))
            .await
            .expect("it never ends");
        self.store.job(self.job).await.unwrap().unwrap()
    }

    /// Runs the job, and does something once the child has told its first note; its text is passed on.
    async fn run_and<F: Future<Output = ()>>(&self, then: impl FnOnce(String) -> F) -> Job {
        let meanwhile = async { then(timeout(HANG, self.note()).await.expect("it says nothing")).await };
        let (job, ()) = tokio::join!(self.run(), meanwhile);
        job
    }

    /// The text of a note, once the child has told one since it was started.
    async fn note(&self) -> String {
        loop {
            let lines = self.lines().await;
            let last = lines.iter().rev().find(|line| line["event"] != "epoch").unwrap();
            if last["event"] == "note" {
                return last["text"].as_str().unwrap().to_owned();
            }
            tokio::task::yield_now().await;
        }
    }

    async fn lines(&self) -> Vec<serde_json::Value> {
        let events = self.store.job_events(self.job, 0, 10_000).await.unwrap();
        let line = |event: store::Event| serde_json::from_str(&event.line).unwrap();
        events.into_iter().map(line).collect()
    }

    fn checkpoint(&self) -> bool {
        Folder::of(self.folder.path(), self.job).work().exists()
    }
}

/// Runs a script to its end and holds what comes of it.
async fn check(script: &str, state: JobState, reason: &str) -> Bench {
    let bench = Bench::new(script).await;
    let job = bench.run().await;
    let told = job.reason.unwrap_or_default();
    assert!(
        job.state == state && told.contains(reason),
        "{script}: {} {told}",
        job.state
    );
    bench
}

#[tokio::test]
async fn what_a_child_tells_is_kept() {
    let script = format!(
        r#"echo '{{"event":"phase","phase":"train"}}'
        echo 'no event' ; echo 'a log' >&2
        echo '{{"event":"epoch","epoch":2,"epochs":3,"loss":0.5,"accuracy":0.9,"eta_seconds":1.5}}'
        test "$(cat "$2")" = 'a = 1' && test "$(cat "$4")" = '{{"model":"digits"}}' && test -d "$6" || exit 9
        {FINISHED}"#
    );
    let bench = check(&script, JobState::Succeeded, "").await;
    let job = bench.store.job(bench.job).await.unwrap().unwrap();
    assert_eq!(
        (job.version.map(|v| v.number()), job.promoted),
        (Some(2), Some(true))
    );
    assert_eq!(job.progress.phase.as_deref(), Some("train"));
    assert_eq!(
        (job.progress.epoch, job.progress.epochs, job.progress.loss),
        (Some(2), Some(3), Some(0.5))
    );
    let lines = bench.lines().await;
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["state", "state", "phase", "epoch", "finished", "state"]);
    assert!(!bench.checkpoint());
}

#[tokio::test]
async fn a_refusal_by_the_gate_is_counted_by_its_checks() {
    let script = r#"echo '{"event":"check","check":"class_harm","passed":false,"text":"recall of class 4"}'
        echo '{"event":"check","check":"latency","passed":true,"text":""}'
        echo '{"event":"finished","version":2,"blessed":false,"reasons":["recall of class 4 fell"],"promoted":false}'"#;
    let bench = check(script, JobState::Refused, "recall of class 4 fell").await;
    let metrics = bench.metrics.render();
    for line in [
        "sconce_gate_refusals_total{check=\"class_harm\"} 1\n",
        "sconce_gate_refusals_total{check=\"latency\"} 0\n",
        "sconce_job_runs_total{state=\"refused\"} 1\n",
    ] {
        assert!(metrics.contains(line), "{line}{metrics}");
    }
}

#[tokio::test]
async fn every_failure_has_a_reason_and_keeps_its_checkpoint() {
    let failed = [
        (
            "echo 'sconce: seed: no number' >&2; exit 64",
            "not possible: seed: no number",
        ),
        (
            "echo 'sconce: no image' >&2; exit 65",
            "the data or the model is not right: no image",
        ),
        (
            "echo 'sconce: full' >&2; exit 74",
            "the disk is full or cannot be used: full",
        ),
        ("exit 101", "exit code 101"),
        ("exit 0", "without saying what came of it"),
        ("kill -s SEGV $$", "signal 11 (SIGSEGV)"),
        ("exec /no/such/program", "exit code 127"),
    ];
    for (script, reason) in failed {
        assert!(
            check(script, JobState::Failed, reason).await.checkpoint(),
            "{script}"
        );
    }
    let mut bench = Bench::new("").await;
    bench.launch.program = "/no/such/program".into();
    let job = bench.run().await;
    assert!(job.reason.unwrap().contains("/no/such/program: No such file"));
    assert_eq!(job.state, JobState::Failed);
}

#[tokio::test]
async fn a_child_that_is_killed_is_interrupted_and_may_go_on() {
    let script = format!(
        r#"if test -e "$6/half"; then {FINISHED}; exit; fi
        touch "$6/half"; echo '{{"event":"note","text":"'$$'"}}'; sleep 1000"#
    );
    let bench = Bench::new(&script).await;
    let kill = async |pid: String| {
        assert!(
            Command::new("kill")
                .args(["-9", &pid])
                .status()
                .unwrap()
                .success()
        );
    };
    let job = bench.run_and(kill).await;
    assert_eq!(job.state, JobState::Interrupted);
    assert!(
        job.reason
            .unwrap()
            .contains("signal 9 (SIGKILL): out of memory, or somebody killed it")
    );
    assert!(bench.checkpoint());
    bench.store.resume_job(bench.job, unix_ms()).await.unwrap();
    let job = bench.run().await;
    assert_eq!((job.state, job.attempt), (JobState::Succeeded, 2));
}

#[tokio::test]
async fn a_child_that_hangs_is_ended_by_whoever_asks() {
    // It ignores every signal that can be ignored, has closed its output, and has started another that holds it.
    let script = r#"trap '' TERM INT HUP; echo '{"event":"note","text":"'$$'"}'
        (trap '' TERM INT HUP; while :; do sleep 1000; done) & exec >&- 2>&-; while :; do sleep 1000; done"#;
    let bench = Bench::new(script).await;
    let store = &bench.store;
    let pause = async |_| assert!(store.pause_job(bench.job, unix_ms()).await.is_ok());
    assert_eq!(bench.run_and(pause).await.state, JobState::Paused);
    assert!(bench.checkpoint());
    store.resume_job(bench.job, unix_ms()).await.unwrap();
    let cancel = async |_| assert!(store.cancel_job(bench.job, unix_ms()).await.is_ok());
    let job = bench.run_and(cancel).await;
    assert_eq!((job.state, job.attempt, job.wish), (JobState::Cancelled, 2, None));
    assert!(!bench.checkpoint());
}

#[tokio::test]
async fn a_stop_puts_the_job_back_in_the_queue() {
    let bench = Bench::new(r#"echo '{"event":"note","text":""}'; sleep 1000"#).await;
    let stop = async |_| assert!(!bench.stop.send_replace(true));
    let job = bench.run_and(stop).await;
    assert_eq!(job.state, JobState::Queued);
    assert!(job.reason.unwrap().starts_with("interrupted") && bench.checkpoint());
}

#[tokio::test]
async fn a_lease_that_was_taken_over_ends_the_child_and_says_nothing() {
    let bench = Bench::new(r#"echo '{"event":"note","text":""}'; sleep 1000"#).await;
    let store = &bench.store;
    let next = async |_| {
        let later = unix_ms() + 2 * TTL_MS;
        store.reclaim_jobs(later, 9).await.unwrap();
        let taken = store
            .take_job(&"next".parse().unwrap(), later, TTL_MS)
            .await
            .unwrap();
        assert!(taken.is_some());
    };
    let job = bench.run_and(next).await;
    assert_eq!((job.state, job.attempt), (JobState::Running, 2));
}

#[tokio::test]
async fn nobody_works_where_another_still_does() {
    let bench = Bench::new(FINISHED).await;
    let folder = Folder::of(bench.folder.path(), bench.job);
    folder
        .prepare(&folder::Papers {
            request: "",
            configuration: "",
        })
        .unwrap();
    let lock = folder.lock().unwrap();
    assert!(lock.is_some());
    let asked = async {
        // Taken, and yet nothing is started.
        while bench.store.job(bench.job).await.unwrap().unwrap().state != JobState::Running {
            tokio::task::yield_now().await;
        }
        bench.store.pause_job(bench.job, unix_ms()).await.unwrap();
    };
    let (job, ()) = tokio::join!(bench.run(), asked);
    assert_eq!((job.state, bench.lines().await.len()), (JobState::Paused, 3));
    drop(lock);
    bench.store.resume_job(bench.job, unix_ms()).await.unwrap();
    assert_eq!(bench.run().await.state, JobState::Succeeded);
}

#[tokio::test]
async fn output_without_end_is_not_read_without_end() {
    let note = r#"{"event":"note","text":"x"}"#;
    check(&format!("yes '{note}'"), JobState::Failed, "more lines").await;
    // One line of ten million bytes, and a log as long.
    let long =
        format!("head -c 10000000 /dev/zero | tr '\\0' x; head -c 10000000 /dev/zero >&2; echo; {FINISHED}");
    check(&long, JobState::Succeeded, "").await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_child_has_less_than_the_server() {
    let script = format!(
        r#"until test "$(nice)" -ge 19 -a "$(ulimit -d)" = 1048576; do sleep 0.01; done
        echo "{{\"event\":\"note\",\"text\":\"$RAYON_NUM_THREADS $CANDLE_NUM_THREADS ${{HOME-unset}}\"}}"
        {FINISHED}"#
    );
    let mut bench = Bench::new(&script).await;
    bench.config.threads = 3;
    bench.config.memory_bytes = 1 << 30;
    bench.launch.unset = vec!["HOME".into()];
    assert_eq!(bench.run().await.state, JobState::Succeeded);
    let lines = bench.lines().await;
    assert_eq!(lines[2]["text"], "3 3 unset", "{lines:?}");
}

#[test]
fn a_worker_takes_what_waits_and_stops_when_told() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap();
    let bench = runtime.block_on(Bench::new(&format!("{FINISHED}; exit 0")));
    let setup = Setup {
        store: store::Config {
            folder: bench.folder.path().to_owned(),
            ..store::Config::default()
        },
        config: bench.config.clone(),
        launch: bench.launch.clone(),
        metrics: bench.metrics.clone(),
        models: Box::new(Vec::new),
    };
    let worker = Worker::new(setup, bench.stop.subscribe()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| worker.run());
        runtime.block_on(async {
            let ended = async {
                while bench
                    .store
                    .job(bench.job)
                    .await
                    .unwrap()
                    .unwrap()
                    .ended_ms
                    .is_none()
                {
                    tokio::task::yield_now().await;
                }
            };
            timeout(HANG, ended).await.expect("nobody takes it");
        });
        bench.stop.send_replace(true);
    });
    let job = runtime.block_on(bench.store.job(bench.job)).unwrap().unwrap();
    assert_eq!(job.state, JobState::Succeeded);
}

#[test]
fn the_series_have_the_stores_states() {
    assert_eq!(
        crate::telemetry::JOB_STATES,
        store::JOB_STATES.map(|(_, text)| text)
    );
}

#[test]
fn a_configuration_is_checked() {
    let check = |changed: &str, problem: Option<&str>| {
        let config: Config = toml::from_str(changed).unwrap();
        let found = config.check().err();
        let key = found.as_deref().and_then(|text| text.split(':').next());
        assert_eq!(key, problem, "{changed}: {found:?}");
    };
    check("", None);
    check("threads = 0", Some("threads"));
    check("keep_days = 0", Some("keep_days"));
    check("max_listeners = 0", Some("max_listeners"));
    check("new_labels = 1000000001", Some("new_labels"));
    check("cooldown_minutes = 525601", Some("cooldown_minutes"));
    check("accuracy_floor = 1.1", Some("accuracy_floor"));
    check("schedule = '30 3 * * 1'", None);
    check("schedule = '30 3 * *'", Some("schedule"));
}
