//! Jobs, their leases and what they tell.

use proptest::prelude::*;

use super::*;

const TTL: i64 = 30_000;
const MAX_LOSSES: u32 = 2;

fn new_job(model: &str) -> NewJob {
    NewJob {
        model: model.parse().unwrap(),
        request: format!("{{\"model\":\"{model}\"}}"),
        cause: Cause::Manual,
        key: None,
    }
}

async fn submitted(store: &Store, model: &str) -> JobId {
    store.submit_job(&new_job(model), NOW).await.unwrap().id
}

async fn taken(store: &Store, holder: &str, now_ms: i64) -> Option<Lease> {
    store.take_job(&key(holder), now_ms, TTL).await.unwrap()
}

async fn state_of(store: &Store, id: JobId) -> JobState {
    store.job(id).await.unwrap().unwrap().state
}

fn end(state: JobState) -> JobEnd {
    JobEnd {
        state,
        reason: None,
        version: None,
        promoted: None,
    }
}

async fn lines(store: &Store, id: JobId) -> Vec<String> {
    let events = store.job_events(id, 0, MAX_PAGE).await.unwrap();
    events.into_iter().map(|event| event.line).collect()
}

#[tokio::test]
async fn a_job_goes_from_the_queue_to_its_end() {
    let (_folder, store) = store().await;
    let id = submitted(&store, "digits").await;
    let lease = taken(&store, "w", NOW + 1).await.unwrap();
    assert_eq!((lease.job, lease.attempt), (id, 1));
    assert_eq!(lease.request, "{\"model\":\"digits\"}");
    let progress = JobProgress {
        phase: Some("train".to_owned()),
        epoch: Some(1),
        epochs: Some(3),
        loss: Some(0.5),
        accuracy: Some(0.75),
        eta_seconds: Some(2.0),
    };
    let told = ["{\"event\":\"epoch\"}".to_owned()];
    assert!(store.record_job(&lease, &told, &progress, NOW + 2).await.unwrap());
    let ended = JobEnd {
        reason: Some("why".to_owned()),
        version: Some(Version::FIRST),
        promoted: Some(true),
        ..end(JobState::Succeeded)
    };
    assert!(store.end_job(&lease, &ended, NOW + 3).await.unwrap());
    let job = store.job(id).await.unwrap().unwrap();
    assert_eq!(
        (job.state, job.started_ms, job.ended_ms),
        (JobState::Succeeded, Some(NOW + 1), Some(NOW + 3))
    );
    assert_eq!(
        (job.version, job.promoted, job.reason.as_deref()),
        (Some(Version::FIRST), Some(true), Some("why"))
    );
    assert_eq!(job.progress, progress);
    let expected = [
        "{\"event\":\"state\",\"state\":\"queued\"}",
        "{\"event\":\"state\",\"state\":\"running\"}",
        "{\"event\":\"epoch\"}",
        "{\"event\":\"state\",\"reason\":\"why\",\"state\":\"succeeded\"}",
    ];
    assert_eq!(lines(&store, id).await, expected);
    assert_eq!(store.job_events(id, 2, 1).await.unwrap()[0].number, 3);
    assert_eq!(store.job_counts().await.unwrap(), [0, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(taken(&store, "w", NOW + 4).await, None);
}

#[tokio::test]
async fn asking_twice_under_one_key_is_asking_once() {
    let (_folder, store) = store().await;
    let keyed = NewJob {
        key: Some(key("k")),
        ..new_job("digits")
    };
    let first = store.submit_job(&keyed, NOW).await.unwrap();
    let again = store.submit_job(&keyed, NOW + 1).await.unwrap();
    assert_eq!((first.id, first.is_new), (again.id, true));
    assert!(!again.is_new);
    let other = NewJob {
        request: "{}".to_owned(),
        ..keyed.clone()
    };
    let refused = store.submit_job(&other, NOW).await;
    assert!(
        matches!(refused, Err(JobError::KeyTaken(id)) if id == first.id),
        "{refused:?}"
    );
    // The key finds its job after the end too.
    store.cancel_job(first.id, NOW).await.unwrap();
    assert_eq!(store.submit_job(&keyed, NOW).await.unwrap().id, first.id);
}

#[tokio::test]
async fn a_model_has_one_job_at_a_time() {
    let (_folder, store) = store().await;
    let id = submitted(&store, "digits").await;
    let refused = store.submit_job(&new_job("digits"), NOW).await;
    assert!(
        matches!(refused, Err(JobError::Active(active)) if active == id),
        "{refused:?}"
    );
    let other = submitted(&store, "letters").await;
    let (first, second) = (taken(&store, "v", NOW).await, taken(&store, "w", NOW).await);
    assert_eq!((first.unwrap().job, second.unwrap().job), (id, other));
    let refused = store.submit_job(&new_job("digits"), NOW).await;
    assert!(
        matches!(refused, Err(JobError::Active(active)) if active == id),
        "{refused:?}"
    );
    let listed = |filter: JobFilter| {
        let store = &store;
        async move {
            let jobs = store.jobs(&filter, 10).await.unwrap();
            jobs.iter().map(|job| job.id.number()).collect::<Vec<_>>()
        }
    };
    assert_eq!(listed(JobFilter::default()).await, [2, 1]);
    let of_model = JobFilter {
        model: Some(model()),
        state: None,
    };
    assert_eq!(listed(of_model).await, [1]);
    let of_state = JobFilter {
        model: None,
        state: Some(JobState::Queued),
    };
    assert_eq!(listed(of_state).await, [0_i64; 0]);
}

#[tokio::test]
async fn a_dead_holder_is_taken_over_and_says_nothing_any_more() {
    let (_folder, store) = store().await;
    let id = submitted(&store, "digits").await;
    let dead = taken(&store, "dead", NOW).await.unwrap();
    let held = store.heartbeat(&dead, NOW + TTL - 1, TTL).await.unwrap();
    assert_eq!(held, Standing::Held(None));
    let until = NOW + 2 * TTL - 1;
    assert_eq!(store.reclaim_jobs(until - 1, MAX_LOSSES).await.unwrap(), []);
    let reclaimed = |is_queued| [Reclaimed { job: id, is_queued }];
    assert_eq!(
        store.reclaim_jobs(until, MAX_LOSSES).await.unwrap(),
        reclaimed(true)
    );
    let lease = taken(&store, "next", until).await.unwrap();
    assert_eq!((lease.job, lease.attempt), (id, 2));

    let told = ["{}".to_owned()];
    assert_eq!(store.heartbeat(&dead, until, TTL).await.unwrap(), Standing::Lost);
    let progress = JobProgress::default();
    assert!(!store.record_job(&dead, &told, &progress, until).await.unwrap());
    assert!(!store.end_job(&dead, &end(JobState::Failed), until).await.unwrap());
    assert_eq!(state_of(&store, id).await, JobState::Running);

    let second = until + TTL;
    assert_eq!(
        store.reclaim_jobs(second, MAX_LOSSES).await.unwrap(),
        reclaimed(false)
    );
    assert_eq!(state_of(&store, id).await, JobState::Interrupted);
    assert_eq!(taken(&store, "next", second).await, None);
    store.resume_job(id, second).await.unwrap();
    assert_eq!(taken(&store, "next", second).await.unwrap().attempt, 3);
}

#[tokio::test]
async fn a_lease_of_the_future_has_run_out() {
    let (_folder, store) = store().await;
    let job = submitted(&store, "digits").await;
    taken(&store, "w", NOW).await.unwrap();
    // Clocks of several machines differ a little.
    assert_eq!(store.reclaim_jobs(NOW - TTL, MAX_LOSSES).await.unwrap(), []);
    let set_back = NOW - TTL - 1;
    let is_queued = true;
    assert_eq!(
        store.reclaim_jobs(set_back, MAX_LOSSES).await.unwrap(),
        [Reclaimed { job, is_queued }]
    );
    assert_eq!(taken(&store, "next", set_back).await.unwrap().attempt, 2);
}

#[tokio::test]
async fn what_is_asked_of_a_running_job_reaches_its_holder() {
    let (_folder, store) = store().await;
    let id = submitted(&store, "digits").await;
    let lease = taken(&store, "w", NOW).await.unwrap();
    assert_eq!(store.pause_job(id, NOW).await.unwrap(), JobState::Running);
    let standing = || store.standing(&lease);
    assert_eq!(standing().await.unwrap(), Standing::Held(Some(Wish::Pause)));
    assert_eq!(store.cancel_job(id, NOW).await.unwrap(), JobState::Running);
    store.pause_job(id, NOW).await.unwrap();
    assert_eq!(standing().await.unwrap(), Standing::Held(Some(Wish::Cancel)));
    // The holder dies before it hears of it.
    store.reclaim_jobs(NOW + TTL, MAX_LOSSES).await.unwrap();
    assert_eq!(state_of(&store, id).await, JobState::Cancelled);
}

#[tokio::test]
async fn each_state_allows_what_it_allows() {
    let (_folder, store) = store().await;
    let id = submitted(&store, "digits").await;
    let refused = |asked: Result<(), JobError>, expected: JobState| {
        let found = matches!(&asked, Err(JobError::NotFrom { state, .. }) if *state == expected);
        assert!(found, "{asked:?}");
    };
    refused(store.resume_job(id, NOW).await, JobState::Queued);
    assert_eq!(store.pause_job(id, NOW).await.unwrap(), JobState::Paused);
    refused(store.pause_job(id, NOW).await.map(drop), JobState::Paused);
    let other = submitted(&store, "digits").await;
    let active = store.resume_job(id, NOW).await;
    assert!(
        matches!(active, Err(JobError::Active(job)) if job == other),
        "{active:?}"
    );
    store.cancel_job(other, NOW).await.unwrap();
    refused(store.cancel_job(other, NOW).await.map(drop), JobState::Cancelled);
    store.resume_job(id, NOW).await.unwrap();
    let lease = taken(&store, "w", NOW).await.unwrap();
    store.end_job(&lease, &end(JobState::Failed), NOW).await.unwrap();
    refused(store.cancel_job(id, NOW).await.map(drop), JobState::Failed);
    store.resume_job(id, NOW).await.unwrap();
    assert_eq!(state_of(&store, id).await, JobState::Queued);
    let unknown: JobId = "77".parse().unwrap();
    let asked = store.cancel_job(unknown, NOW).await;
    assert!(
        matches!(asked, Err(JobError::Unknown(id)) if id == unknown),
        "{asked:?}"
    );
}

#[tokio::test]
async fn only_so_many_events_are_kept_and_they_are_the_last() {
    let (_folder, store) = store().await;
    let id = submitted(&store, "digits").await;
    let lease = taken(&store, "w", NOW).await.unwrap();
    let told: Vec<String> = (0..MAX_EVENTS).map(|n| format!("{{\"n\":{n}}}")).collect();
    let progress = JobProgress::default();
    store.record_job(&lease, &told, &progress, NOW).await.unwrap();
    let kept = store.job_events(id, 0, MAX_PAGE).await.unwrap();
    let ends = (kept.first().unwrap().number, kept.last().unwrap().line.clone());
    assert_eq!((kept.len(), ends), (MAX_EVENTS, (3, "{\"n\":9999}".to_owned())));
}

#[tokio::test]
async fn labels_and_right_answers_are_counted_from_a_moment() {
    let (_folder, store) = store().await;
    // Each is predicted as class 3.
    for (id, image, label) in [("a", "one", 3), ("b", "two", 4), ("c", "three", 3)] {
        store.keep(&kept(id, image)).await.unwrap();
        let told = [by_id(id, label, "s")];
        store.feedback(&told, &classes(), NOW).await.unwrap();
    }
    // A second opinion puts the image in quarantine: it counts for nothing.
    let doubt = [by_id("c", 5, "t")];
    store.feedback(&doubt, &classes(), NOW).await.unwrap();
    assert_eq!(store.labelled_since(&model(), NOW).await.unwrap(), 2);
    assert_eq!(store.labelled_since(&model(), NOW + 1).await.unwrap(), 0);
    let live = LiveAccuracy { judged: 2, right: 1 };
    assert_eq!(store.live_accuracy(&model(), NOW).await.unwrap(), live);
    let none = LiveAccuracy::default();
    assert_eq!(store.live_accuracy(&model(), NOW + 1).await.unwrap(), none);
}

#[test]
fn a_job_is_taken_once_however_many_reach_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let opened = || async { Store::open(&config).await.unwrap() };
    let models = ["a", "b", "c", "d", "e"];
    runtime().block_on(async {
        let store = opened().await;
        for model in models {
            submitted(&store, model).await;
        }
    });
    // Each thread has a store of its own, as another process would.
    let reach = |number: usize| {
        let holder = format!("w{number}");
        runtime().block_on(async {
            let store = opened().await;
            let mut jobs = Vec::new();
            while let Some(lease) = taken(&store, &holder, NOW).await {
                jobs.push(lease.job.number());
            }
            jobs
        })
    };
    let mut jobs: Vec<i64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || reach(n))).collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    jobs.sort_unstable();
    assert_eq!(jobs, [1, 2, 3, 4, 5]);
}

/// What somebody does to the only model's jobs.
#[derive(Clone, Copy, Debug)]
enum Step {
    Submit,
    Take(usize),
    Beat(usize),
    End(usize),
    Cancel,
    Pause,
    Resume,
    Wait(i64),
    Reclaim,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Submit),
        (0..2_usize).prop_map(Step::Take),
        (0..2_usize).prop_map(Step::Beat),
        (0..2_usize).prop_map(Step::End),
        Just(Step::Cancel),
        Just(Step::Pause),
        Just(Step::Resume),
        (1..2 * TTL).prop_map(Step::Wait),
        Just(Step::Reclaim),
    ]
}

/// Two holders and an asker. The lease that each holder last took is kept, also when it has long been lost.
struct Play {
    store: Store,
    now_ms: i64,
    leases: [Option<Lease>; 2],
}

impl Play {
    async fn go(&mut self, step: Step) -> Result<(), StoreError> {
        let (store, now_ms) = (&self.store, self.now_ms);
        let newest = store
            .jobs(&JobFilter::default(), 1)
            .await?
            .first()
            .map(|job| job.id);
        let refused_or = |asked: Result<(), JobError>| match asked {
            Err(JobError::Store(error)) => Err(error),
            _ => Ok(()),
        };
        match (step, newest) {
            (Step::Submit, _) => refused_or(store.submit_job(&new_job("digits"), now_ms).await.map(drop))?,
            (Step::Take(n), _) => {
                if let Some(lease) = store.take_job(&key(&format!("w{n}")), now_ms, TTL).await? {
                    self.leases[n] = Some(lease);
                }
            }
            (Step::Beat(n), _) => {
                if let Some(lease) = &self.leases[n] {
                    store.heartbeat(lease, now_ms, TTL).await?;
                }
            }
            (Step::End(n), _) => {
                if let Some(lease) = &self.leases[n] {
                    store.end_job(lease, &end(JobState::Succeeded), now_ms).await?;
                }
            }
            (Step::Cancel, Some(id)) => refused_or(store.cancel_job(id, now_ms).await.map(drop))?,
            (Step::Pause, Some(id)) => refused_or(store.pause_job(id, now_ms).await.map(drop))?,
            (Step::Resume, Some(id)) => refused_or(store.resume_job(id, now_ms).await)?,
            (Step::Wait(ms), _) => self.now_ms += ms,
            (Step::Reclaim, _) => drop(store.reclaim_jobs(now_ms, MAX_LOSSES).await?),
            (_, None) => {}
        }
        Ok(())
    }

    /// How many leases still hold.
    async fn held(&self) -> usize {
        let mut held = 0;
        for lease in self.leases.iter().flatten() {
            held += usize::from(self.store.standing(lease).await.unwrap() != Standing::Lost);
        }
        held
    }
}

proptest! {
    // Each case is a database on the disk.
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_model_has_one_holder_and_one_active_job_whatever_happens(steps in prop::collection::vec(step(), 1..40)) {
        runtime().block_on(async {
            let (_folder, store) = store().await;
            let mut play = Play { store, now_ms: NOW, leases: [None, None] };
            for step in steps {
                play.go(step).await.unwrap();
                let jobs = play.store.jobs(&JobFilter::default(), MAX_PAGE).await.unwrap();
                let active = jobs.iter().filter(|job| job.state.is_active()).count();
                let running = jobs.iter().filter(|job| job.state == JobState::Running).count();
                let held = play.held().await;
                prop_assert!(active <= 1 && held == running, "{step:?}: {held} held, {jobs:?}");
            }
            Ok(())
        })?;
    }
}
