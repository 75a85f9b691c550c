//! Jobs: the daemon runs a batch by itself, whoever listens. It goes on after a crash, stops before the next signature where it must,
//! keeps the limits, and gives each Device one live command.
//!
//! `SMKID_KILLS` says how often the daemon is killed in the last test (10 without it, and then jobs are short; 200 is the long run,
//! of jobs of 20,000 Devices), `SMKID_KILLS_SEED` with which seed; the seed and what came of it are printed at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use axum::body::Body;
use smkid::api::client::{Client, ClientError};
use smkid::api::wire::{self, ItemOutcome, Job, JobStart, JobState, JobTally, Status};
use smkid::domain::determination::document::{Determination, Limits};
use smkid::domain::ledger::entry::{Event, SignResult};
use smkid::domain::ledger::steps::Step;
use smkid::domain::names::{DeterminationId, DeviceId, Digest, RequestId};
use smkid::exercise::procedure::{Order, plain};
use smkid::exercise::programs::Daemon;
use tokio::io::AsyncReadExt as _;

use crate::support::accounts::{held_against, setting};
use crate::support::seeded::Seeded;
use crate::support::site::{
    DEVICES, INCIDENT, Site, Which, accept_clock, ask_for, device, device_list, lines, problem, request, rules, whole,
};
use crate::support::token::write_script;

const JOBS: &str = "/v1/recovery/jobs";

/// How long is waited for a job to come to what is expected of it.
const WITHIN: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(5);

/// A signature takes so long that a job can be caught in the middle.
const SLOW: &str = "C_Sign * delay 5ms";

fn all_of(determination: DeterminationId) -> JobStart {
    JobStart { request: request(), determination, list: None, per_hour: None, reason: None }
}

async fn start(client: &Client, ask: &JobStart) -> Job {
    client.post(JOBS, ask).await.unwrap()
}

async fn show(client: &Client, job: RequestId) -> Job {
    client.get(&format!("{JOBS}/{job}")).await.unwrap()
}

/// The jobs that are not over, as the daemon's status counts them.
async fn counted(client: &Client) -> Vec<(JobState, u64)> {
    let status: Status = client.get("/v1/status").await.unwrap();
    status.jobs.into_iter().map(|of| (of.state, of.count)).collect()
}

async fn until(client: &Client, job: RequestId, what: &str, is_so: impl Fn(&Job) -> bool) -> Job {
    let begun = Instant::now();
    loop {
        let job = show(client, job).await;
        if is_so(&job) {
            return job;
        }
        assert!(begun.elapsed() < WITHIN, "{what}: {job:?}");
        tokio::time::sleep(POLL).await;
    }
}

async fn ended(client: &Client, job: RequestId) -> Job {
    until(client, job, "ended", |job| job.state == JobState::Ended).await
}

/// Waits until a job waits for that rule to be silent.
async fn waits(client: &Client, job: RequestId, rule: &str) -> Job {
    let is_so = |job: &Job| job.state == JobState::Waiting && job.why.iter().any(|reason| &*reason.rule == rule);
    until(client, job, rule, is_so).await
}

async fn stop(client: &Client, job: RequestId, how: &str) -> Result<Job, ClientError> {
    let why = wire::Why { reason: "The DCC asked for it".to_owned() };
    client.post(&format!("{JOBS}/{job}/{how}"), &why).await
}

async fn resume(client: &Client, job: RequestId) -> Result<Job, ClientError> {
    client.post_nothing(&format!("{JOBS}/{job}/resume")).await
}

/// A determination of its own with these limits, and its key active.
async fn limited(site: &Site, client: &Client, devices: u32, limits: Limits) -> DeterminationId {
    let change = |form: &mut Determination| form.limits = Some(limits);
    let id = site.determine(client, 2, &device_list(1_000..1_000 + devices), change).await.form().id;
    site.activate_for(client, "INC-2").await.unwrap();
    id
}

/// The key is activated for a job that waits for nothing else.
async fn activated(site: &Site, incident: &str) -> Daemon {
    let daemon = site.start().await;
    // A large ledger is still being checked: the answer is to ask again.
    while let Err(error) = site.activate_for(&daemon.client, incident).await {
        assert!(error.to_string().contains("the ledger is being checked since the start"), "{error}");
    }
    daemon
}

async fn upload(client: &Client, list: &str) -> Digest {
    let stored: wire::Stored = client.put("/v1/uploads", Body::from(list.to_owned())).await.unwrap();
    stored.sha256
}

fn names(devices: impl IntoIterator<Item = u32>) -> String {
    devices.into_iter().fold(String::new(), |names, n| names + &device(n).to_string() + "\n")
}

/// Nothing more is signed: what was with the token has come to its outcome, and the token is not asked again.
async fn stands_still(site: &Site, client: &Client) -> u64 {
    let begun = Instant::now();
    while !site.ledger().open().is_empty() {
        assert!(begun.elapsed() < WITHIN, "intents stay open");
        tokio::time::sleep(POLL).await;
    }
    let calls = site.calls(Which::Recovery, "C_Sign");
    // Each of these is an ask at the recorder, where a further chunk would have to be recorded.
    for _ in 0..20 {
        client.get::<wire::Jobs>(JOBS).await.unwrap();
    }
    assert_eq!(site.calls(Which::Recovery, "C_Sign"), calls, "it was asked again");
    calls
}

#[tokio::test]
async fn a_job_runs_to_its_end_without_anybody_listening_and_its_counts_are_the_ledgers() {
    let site = Site::determined().await;
    site.fault(Which::Recovery, Some("C_Sign 0 stop"));
    let daemon = site.start_active().await;
    let client = &daemon.client;
    let ask = JobStart { reason: Some("All of them".to_owned()), ..all_of(site.main()) };
    let started = start(client, &ask).await;
    assert_eq!((started.request, started.total, started.incident.as_str()), (ask.request, DEVICES.into(), INCIDENT));
    let done = ended(client, ask.request).await;
    let all = u64::from(DEVICES);
    assert_eq!(done.tally, JobTally { intents: all, signed: all, ..JobTally::default() });
    assert_eq!((done.done, done.why.len()), (all, 0));
    assert_eq!(site.calls(Which::Recovery, "C_Sign"), all);
    let ledger = site.ledger();
    ledger.check();
    assert_eq!(ledger.signed().len(), DEVICES as usize);
    // It is kept: nothing was handed over.
    assert!(ledger.released().is_empty());
    // The same again is that job; the id is for nothing else.
    let before = ledger.size();
    assert_eq!(start(client, &ask).await, done);
    assert_eq!(site.ledger().size(), before);
    let other = JobStart { per_hour: Some(7), ..ask.clone() };
    let refused = problem(client.post::<_, Job>(JOBS, &other).await);
    assert!(rules(&refused).iter().any(|rule| ["request-reused", "job-known"].contains(rule)), "{refused:?}");
    for (how, rule) in [("pause", "job-state"), ("cancel", "job-state")] {
        assert_eq!(rules(&problem(stop(client, ask.request, how).await)), [rule]);
    }
    assert_eq!(rules(&problem(resume(client, ask.request).await)), ["job-state"]);
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
    // After a restart it is told the same.
    let daemon = site.start().await;
    assert_eq!(show(&daemon.client, ask.request).await, done);
    let all: wire::Jobs = daemon.client.get(JOBS).await.unwrap();
    assert_eq!(all.jobs, [done]);
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn killed_in_the_middle_a_job_goes_on_by_itself_once_its_key_is_active_and_settles_what_it_may() {
    for by_itself in [true, false] {
        let site = Site::determined().await;
        site.configure(|text| text + "\n[signing]\nchunk = 32\n");
        site.fault(Which::Recovery, Some(&format!("log recovery.calls\nC_Sign 50 stop\n{SLOW}")));
        let daemon = site.start().await;
        let limits = Limits { intents: 300, per_hour: 300, retries_of_unknown: 2, retry_by_itself: by_itself };
        let id = limited(&site, &daemon.client, 100, limits).await;
        let job = start(&daemon.client, &all_of(id)).await.request;
        site.reach(Which::Recovery, "C_Sign", 50).await;
        daemon.kill().await.unwrap();
        let before = site.ledger();
        let open = before.open();
        let covered = open.iter().filter(|intent| **intent < before.checkpointed).count();
        assert!(covered > 0, "something was with the token");

        write_script(&site.script(Which::Recovery), "log recovery.calls\n");
        let daemon = site.start().await;
        let waiting = waits(&daemon.client, job, "key-locked").await;
        assert_eq!(waiting.tally.unknown, covered as u64);
        assert_eq!(waiting.tally.intents, before.intents().len() as u64);
        site.activate_for(&daemon.client, "INC-2").await.unwrap();
        let done = ended(&daemon.client, job).await;
        let unknown = if by_itself { 0 } else { covered as u64 };
        assert_eq!((done.tally.signed, done.tally.unknown, done.done), (100 - unknown, unknown, 100), "{done:?}");
        let (made, _) = held_against(&site, &site.path("recovery.calls"));
        assert!(made >= site.ledger().signed().len());
        if !by_itself {
            // Whoever settles them counts for the job all the same.
            let settled =
                whole(lines(&daemon.client, "/v1/recovery/settle", &crate::support::site::settle_all(id)).await);
            assert_eq!(settled.len(), covered);
            let settled = show(&daemon.client, job).await;
            assert_eq!((settled.tally.signed, settled.tally.unknown), (100, 0));
        }
        assert_eq!(site.ledger().signed().len(), 100);
        site.verify_export("export");
        assert!(daemon.stop().await.unwrap().success());
    }
}

#[tokio::test]
async fn pause_resume_and_cancel_act_before_the_next_signature_and_leave_nothing_out() {
    let site = Site::determined().await;
    site.configure(|text| text + "\n[signing]\nchunk = 64\n");
    site.fault(Which::Recovery, Some(SLOW));
    let daemon = site.start_active().await;
    let client = &daemon.client;
    let job = start(client, &all_of(site.main())).await.request;
    site.reach(Which::Recovery, "C_Sign", 20).await;
    let paused = stop(client, job, "pause").await.unwrap();
    assert_eq!(paused.state, JobState::Paused);
    assert_eq!(paused.stopped.unwrap().reason.as_deref(), Some("The DCC asked for it"));
    let calls = stands_still(&site, client).await;
    assert!(calls < 64 * 2, "{calls}");
    assert_eq!(rules(&problem(stop(client, job, "pause").await)), ["job-state"]);
    let still = show(client, job).await;
    assert_eq!(still.state, JobState::Paused);
    assert!(still.tally.not_signed > 0, "the rest of the chunks was never submitted: {still:?}");
    assert_eq!(still.tally.signed, calls);

    // It stays paused over a restart, and goes on where it was.
    assert!(daemon.stop().await.unwrap().success());
    write_script(&site.script(Which::Recovery), SLOW);
    let daemon = site.start_active().await;
    let client = &daemon.client;
    assert_eq!(show(client, job).await.state, JobState::Paused);
    let again = resume(client, job).await.unwrap();
    assert!(matches!(again.state, JobState::Running | JobState::Waiting), "{again:?}");
    assert_eq!(rules(&problem(resume(client, job).await)), ["job-state"]);
    until(client, job, "goes on", |job| job.tally.signed > calls + 20).await;
    let cancelled = stop(client, job, "cancel").await.unwrap();
    assert_eq!(cancelled.state, JobState::Cancelled);
    stands_still(&site, client).await;
    let signed = show(client, job).await.tally.signed;
    assert_eq!(signed, site.ledger().signed().len() as u64);
    assert_eq!(rules(&problem(resume(client, job).await)), ["job-state"]);

    // Another takes up the rest, and what was left without a signature with it.
    assert!(daemon.stop().await.unwrap().success());
    write_script(&site.script(Which::Recovery), "");
    let daemon = site.start_active().await;
    let rest = start(&daemon.client, &all_of(site.main())).await.request;
    let done = ended(&daemon.client, rest).await;
    assert_eq!((done.tally.already, done.tally.signed), (signed, u64::from(DEVICES) - signed), "{done:?}");
    assert_eq!(site.ledger().signed().len(), DEVICES as usize);
    site.ledger().check();
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_paused_job_takes_up_again_what_was_never_submitted() {
    let site = Site::determined().await;
    site.configure(|text| text + "\n[signing]\nchunk = 64\n");
    site.fault(Which::Recovery, Some("C_Sign 1-40 delay 5ms"));
    let daemon = site.start_active().await;
    let client = &daemon.client;
    let job = start(client, &all_of(site.main())).await.request;
    site.reach(Which::Recovery, "C_Sign", 20).await;
    stop(client, job, "pause").await.unwrap();
    stands_still(&site, client).await;
    resume(client, job).await.unwrap();
    let done = ended(client, job).await;
    let all = u64::from(DEVICES);
    assert_eq!((done.tally.signed, done.tally.not_signed, done.done), (all, 0, all), "{done:?}");
    assert!(done.tally.intents > all, "some were intended twice");
    site.ledger().check();
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn withdrawal_ends_a_job_and_suspension_and_lock_let_it_wait_before_the_next_signature() {
    let site = Site::determined().await;
    site.configure(|text| text + "\n[signing]\nchunk = 64\n");
    site.fault(Which::Recovery, Some(SLOW));
    let daemon = site.start_active().await;
    let client = &daemon.client;
    let job = start(client, &all_of(site.main())).await.request;
    site.reach(Which::Recovery, "C_Sign", 20).await;
    site.lock(client).await.unwrap();
    waits(client, job, "key-locked").await;
    let calls = stands_still(&site, client).await;
    assert!(calls < 128, "{calls}");
    // It waits for the activation, and for nothing else.
    site.activate(client).await.unwrap();
    until(client, job, "goes on", |job| job.tally.signed > calls + 20).await;
    site.suspend(client, &site.base.main).await;
    waits(client, job, "suspended").await;
    let suspended = stands_still(&site, client).await;
    assert!(suspended > calls);
    // Nothing that is asked for meanwhile changes that.
    site.withdraw(client, &site.base.main).await;
    let done = ended(client, job).await;
    assert!(done.why.iter().any(|reason| &*reason.rule == "withdrawn"), "{done:?}");
    assert_eq!(stands_still(&site, client).await, suspended);
    assert_eq!(done.tally.signed, site.ledger().signed().len() as u64);
    assert!(done.done < done.total);
    site.ledger().check();
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_job_ends_with_the_window_of_its_determination() {
    let mut site = Site::determined_of(Site::set_before_the_variation().await);
    site.fault(Which::Recovery, Some(SLOW));
    let daemon = site.start_active().await;
    let job = start(&daemon.client, &all_of(site.main())).await.request;
    site.reach(Which::Recovery, "C_Sign", 3).await;
    site.lock(&daemon.client).await.unwrap();
    waits(&daemon.client, job, "key-locked").await;
    assert!(daemon.stop().await.unwrap().success());
    // Days later it is over: that is told once the clock is believed, and no activation is waited for.
    site.set_clock("2017-07-23T09:00:00Z", Order::BeforeReferral);
    let daemon = site.start().await;
    accept_clock(&daemon.client).await;
    let done = ended(&daemon.client, job).await;
    assert!(done.why.iter().any(|reason| &*reason.rule == "window"), "{done:?}");
    assert!(done.done < done.total);
    assert_eq!(done.tally.signed, site.ledger().signed().len() as u64);
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn the_limits_of_an_hour_are_waited_for_and_those_in_all_end_a_job() {
    for own in [None, Some(30)] {
        let mut site = Site::determined_of(Site::set_before_the_variation().await);
        site.set_clock("2017-07-20T12:00:00Z", Order::BeforeReferral);
        site.fault(Which::Recovery, Some("C_Sign 0 stop"));
        let daemon = site.start().await;
        let per_hour = if own.is_some() { 100 } else { 30 };
        let limits = Limits { intents: 70, per_hour, retries_of_unknown: 0, retry_by_itself: false };
        let id = limited(&site, &daemon.client, 100, limits).await;
        let ask = JobStart { per_hour: own, ..all_of(id) };
        start(&daemon.client, &ask).await;
        let job = ask.request;
        let is_limited =
            |job: &Job| job.state == JobState::Limited && job.tally.signed > 0 && job.tally.signed.is_multiple_of(30);
        let limited = until(&daemon.client, job, "limited", is_limited).await;
        let frees = limited.until.unwrap();
        assert_eq!((limited.tally.signed, limited.tally.refused), (30, 0), "{limited:?}");
        assert_eq!(stands_still(&site, &daemon.client).await, 30);
        // More than an hour after the first of them, in whole minutes.
        let first = site.ledger().entries.iter().find(|entry| matches!(entry.event, Event::Intent(_))).unwrap().at;
        let span_ms = frees.unix_ms() - first.unix_ms();
        assert!((3_600_000..=3_660_000).contains(&span_ms), "{span_ms}");
        assert!(daemon.stop().await.unwrap().success());

        site.set_clock("2017-07-20T12:58:00Z", Order::BeforeReferral);
        let daemon = activated(&site, "INC-2").await;
        let still = until(&daemon.client, job, "limited still", |job| job.state == JobState::Limited).await;
        assert_eq!((still.tally.signed, still.until), (30, Some(frees)));
        assert!(daemon.stop().await.unwrap().success());

        site.set_clock("2017-07-20T13:02:30Z", Order::BeforeReferral);
        let daemon = activated(&site, "INC-2").await;
        until(&daemon.client, job, "limited again", |job| is_limited(job) && job.tally.signed == 60).await;
        assert!(daemon.stop().await.unwrap().success());

        site.set_clock("2017-07-20T14:05:00Z", Order::BeforeReferral);
        let daemon = activated(&site, "INC-2").await;
        let done = ended(&daemon.client, job).await;
        assert_eq!((done.tally.signed, done.tally.intents, done.intents_left), (70, 70, 0));
        assert_eq!(done.why.iter().map(|reason| &*reason.rule).collect::<Vec<_>>(), ["intents-spent"]);
        site.ledger().check();
        site.verify_export("export");
        assert!(daemon.stop().await.unwrap().success());
    }
}

#[tokio::test]
async fn a_job_over_a_list_of_its_own_refuses_what_is_not_determined_and_says_why() {
    let site = Site::determined().await;
    site.fault(Which::Recovery, Some("C_Sign 0 stop"));
    let daemon = site.start_active().await;
    let client = &daemon.client;
    let list = upload(client, &names([3, 5, 8, 700, 701])).await;
    let ask = JobStart { list: Some(list), ..all_of(site.main()) };
    start(client, &ask).await;
    let done = ended(client, ask.request).await;
    assert_eq!((done.total, done.tally.signed, done.tally.refused), (5, 3, 2), "{done:?}");
    assert_eq!(
        done.rules.iter().map(|count| (&*count.rule, count.count)).collect::<Vec<_>>(),
        [("device-out-of-scope", 2)]
    );
    assert_eq!(done.refused.iter().map(|refused| refused.device).collect::<Vec<_>>(), [device(700), device(701)]);
    assert_eq!(site.calls(Which::Recovery, "C_Sign"), 3);
    assert_eq!(site.ledger().signed(), BTreeSet::from([3, 5, 8].map(device)));
    // Another form of a list starts nothing.
    for (list, says) in [
        (names([5, 3]), "line 2"),
        (names([5, 5]), "line 2"),
        (names([5, 5, 3, 8, 8]), "line 3: "),
        (names([5]).to_lowercase(), "line 1"),
        (names([5]).trim_end().to_owned(), "line 1"),
        (device_list([5]), "line"),
    ] {
        let list = Some(upload(client, &list).await);
        let refused = problem(client.post::<_, Job>(JOBS, &JobStart { list, ..all_of(site.main()) }).await);
        assert!(refused.message.contains(says), "{says}: {}", refused.message);
    }
    let nowhere = JobStart { list: Some(Digest([9; 32])), ..all_of(site.main()) };
    assert!(client.post::<_, Job>(JOBS, &nowhere).await.is_err());
    assert_eq!(client.get::<wire::Jobs>(JOBS).await.unwrap().jobs.len(), 1);
    // The list is kept with the ledger, and goes out with it.
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_job_over_a_list_of_its_own_goes_on_where_it_stood() {
    let site = Site::determined().await;
    site.configure(|text| text + "\n[signing]\nchunk = 16\n");
    site.fault(Which::Recovery, Some(SLOW));
    let daemon = site.start_active().await;
    let client = &daemon.client;
    let every_third: Vec<u32> = (0..DEVICES).step_by(3).collect();
    let list = upload(client, &names(every_third.iter().copied())).await;
    let job = start(client, &JobStart { list: Some(list), ..all_of(site.main()) }).await.request;
    for calls in [10, 30] {
        site.reach(Which::Recovery, "C_Sign", calls).await;
        stop(client, job, "pause").await.unwrap();
        stands_still(&site, client).await;
        resume(client, job).await.unwrap();
    }
    let done = ended(client, job).await;
    assert_eq!((done.total, done.tally.signed), (every_third.len() as u64, every_third.len() as u64), "{done:?}");
    assert_eq!(site.ledger().signed(), every_third.into_iter().map(device).collect());
    site.ledger().check();
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn of_two_jobs_of_a_key_the_first_runs_and_the_other_waits_and_signing_goes_on_beside() {
    let site = Site::determined().await;
    site.configure(|text| text + "\n[signing]\nchunk = 64\n");
    site.fault(Which::Recovery, Some(SLOW));
    let daemon = site.start_active().await;
    let client = &daemon.client;
    let (low, high) = (upload(client, &names(0..400)).await, upload(client, &names(400..420)).await);
    let first = start(client, &JobStart { list: Some(low), ..all_of(site.main()) }).await.request;
    let second = start(client, &JobStart { list: Some(high), ..all_of(site.main()) }).await.request;
    let waiting = waits(client, second, "job-order").await;
    assert!(waiting.why[0].text.contains(&first.to_string()), "{waiting:?}");
    assert_eq!(waiting.tally, JobTally::default());
    assert!(counted(client).await.contains(&(JobState::Waiting, 1)));
    // Who waits for an answer waits for no job.
    let items = whole(lines(client, "/v1/recovery/sign", &ask_for(site.main(), 500..504)).await);
    assert!(items.iter().all(|item| item.outcome == ItemOutcome::Signed), "{items:?}");
    assert_ne!(show(client, first).await.state, JobState::Ended);
    // One that is paused lets the next one go.
    stop(client, first, "pause").await.unwrap();
    assert_eq!(ended(client, second).await.tally.signed, 20);
    assert_eq!(show(client, first).await.state, JobState::Paused);
    assert_eq!(counted(client).await, [(JobState::Paused, 1)]);
    let said = site.smkictl("status").ok().out;
    assert!(said.contains("1 paused; `smkictl recovery status` shows them"), "{said}");
    resume(client, first).await.unwrap();
    assert_eq!(ended(client, first).await.tally.signed, 400);
    assert_eq!(counted(client).await, []);
    site.ledger().check();
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_token_that_goes_away_lets_a_job_wait_and_not_end() {
    let site = Site::determined().await;
    site.configure(|text| text + "\n[signing]\nchunk = 64\n");
    // Its worker dies, and the next cannot start for a while.
    let script = "C_Sign 100 kill\nC_Initialize 2-3 return CKR_GENERAL_ERROR";
    site.fault(Which::Recovery, Some(script));
    let daemon = site.start_active().await;
    let client = &daemon.client;
    let job = start(client, &all_of(site.main())).await.request;
    let waiting = waits(client, job, "token").await;
    assert!(waiting.tally.signed > 0, "{waiting:?}");
    let done = ended(client, job).await;
    // What the worker had in its hands is unknown; the rest was taken up again.
    assert_eq!(done.done, u64::from(DEVICES));
    assert_eq!(done.tally.not_signed + done.tally.refused, 0, "{done:?}");
    assert_eq!(done.tally.signed + done.tally.unknown, u64::from(DEVICES), "{done:?}");
    site.ledger().check();
    assert!(daemon.stop().await.unwrap().success());
}

/// A job that has begun to sign, and whose ledger token is away since.
async fn unrecordable() -> (Site, Daemon, RequestId) {
    let site = Site::determined().await;
    site.configure(|text| text + "\n[signing]\nchunk = 64\n");
    site.fault(Which::Recovery, Some("C_Sign * delay 20ms"));
    site.fault(Which::Ledger, Some("C_Sign 0 stop"));
    let daemon = site.start_active().await;
    let job = start(&daemon.client, &all_of(site.main())).await.request;
    site.reach(Which::Recovery, "C_Sign", 2).await;
    write_script(&site.script(Which::Ledger), "C_Sign * return CKR_DEVICE_ERROR");
    waits(&daemon.client, job, "ledger-token").await;
    (site, daemon, job)
}

#[tokio::test]
async fn a_job_is_stopped_at_once_also_while_nothing_can_be_recorded_and_that_is_recorded_later() {
    let (site, daemon, job) = unrecordable().await;
    let client = &daemon.client;
    let refused = problem(stop(client, job, "pause").await);
    assert!(refused.message.contains("is paused") && refused.message.contains("not recorded yet"), "{refused:?}");
    let calls = site.calls(Which::Recovery, "C_Sign");
    assert!(calls < 64 * 2, "{calls}");
    write_script(&site.script(Which::Ledger), "");
    until(client, job, "paused", |job| job.state == JobState::Paused).await;
    stands_still(&site, client).await;
    resume(client, job).await.unwrap();
    until(client, job, "goes on", |job| job.tally.signed > calls).await;
    stop(client, job, "cancel").await.unwrap();
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_job_that_was_stopped_while_nothing_could_be_recorded_stands_still_over_a_kill_too() {
    let (site, daemon, job) = unrecordable().await;
    let client = &daemon.client;
    let kept = || fs::read_dir(site.state().join("unrecorded-stops")).map_or(0, Iterator::count);
    assert_eq!(kept(), 0);
    let refused = problem(stop(client, job, "pause").await);
    assert!(refused.message.contains("is paused") && refused.message.contains("not recorded yet"), "{refused:?}");
    assert_eq!(kept(), 1, "before it is answered");
    daemon.kill().await.unwrap();

    // The next start is answered by the ledger token again, and records it then.
    write_script(&site.script(Which::Ledger), "");
    let daemon = site.start().await;
    let paused = until(&daemon.client, job, "paused", |job| job.state == JobState::Paused).await;
    let stopped = paused.stopped.unwrap();
    assert!(stopped.person.is_some() && stopped.reason.is_some(), "{stopped:?}");
    site.activate(&daemon.client).await.unwrap();
    stands_still(&site, &daemon.client).await;
    assert_eq!(kept(), 0);
    assert!(daemon.stop().await.unwrap().success());

    // What was recorded, and let go on since, is not brought back by another start.
    site.fault(Which::Recovery, None);
    let daemon = site.start_active().await;
    resume(&daemon.client, job).await.unwrap();
    let done = ended(&daemon.client, job).await;
    assert_eq!(done.tally.signed + done.tally.unknown, u64::from(DEVICES), "{done:?}");
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn smkictl_starts_shows_follows_and_stops_jobs() {
    let site = Site::determined().await;
    let daemon = site.start_active().await;
    fs::write(site.path("five.txt"), names([9, 1, 4, 2, 3])).unwrap();
    let (id, five) = (site.main(), "00112233445566778899aabbccddeeff");
    let started = format!("recovery start --determination {id} --devices five.txt --request {five} --reason ten");
    let before = site.ledger().size();
    site.smkictl(&format!("{started} --dry-run")).ok().says("Nothing was sent");
    assert_eq!(site.ledger().size(), before);
    let job = site.smkictl(&format!("{started} --output json")).ok().json();
    assert_eq!(job["request"], five);
    // It is followed to its end, an object a line, the last with all of it.
    let followed = site.smkictl(&format!("recovery watch {five} --output json")).ok();
    let last: Job = serde_json::from_str(followed.out.lines().last().unwrap()).unwrap();
    assert_eq!((last.state, last.tally.signed, last.total), (JobState::Ended, 5, 5));
    let followed = site.smkictl(&format!("recovery watch {five}")).ok();
    assert!(followed.out.contains("5 of 5 Devices (100 %)"), "{}", followed.out);
    assert!(followed.out.contains(&format!("smkictl recovery fetch {five} --out DIR")), "{}", followed.out);
    let all = site.smkictl("recovery status").ok();
    assert!(all.out.contains(five) && all.out.contains("ended, 5 of 5 Devices"), "{}", all.out);
    assert_eq!(site.smkictl(&format!("recovery status {five} --output json")).ok().json()["tally"]["signed"], 5);
    for how in ["pause", "cancel"] {
        site.smkictl(&format!("recovery {how} {five} --reason r --dry-run")).ok().says("Nothing was sent");
        site.smkictl(&format!("recovery {how} {five} --reason r")).is(4);
    }
    site.smkictl(&format!("recovery resume {five}")).is(4);
    site.smkictl("recovery status 77777777777777777777777777777777").is(1);
    // A Device that is not determined: refused, and the status says that some were not signed.
    fs::write(site.path("two.txt"), names([10, 700])).unwrap();
    let two = "ff112233445566778899aabbccddeeff";
    site.smkictl(&format!("recovery start --determination {id} --devices two.txt --request {two}")).ok();
    let followed = site.smkictl(&format!("recovery watch {two}")).is(6);
    assert!(followed.out.contains("device-out-of-scope: 1"), "{}", followed.out);
    site.smkictl("ledger list --kind job-ended").ok().says("");
    assert!(daemon.stop().await.unwrap().success());
}

/// `smkictl recovery watch`, as somebody has it running.
fn watching(site: &Site, job: RequestId) -> tokio::process::Child {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_smkictl"));
    command.args(["--socket", site.socket.to_str().unwrap(), "recovery", "watch", &job.to_string()]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
}

/// Reads what is said, to the line that has this in it.
async fn says(child: &mut tokio::process::Child, expected: &str) {
    let stderr = child.stderr.as_mut().unwrap();
    let (mut said, mut octet) = (Vec::new(), [0]);
    while !String::from_utf8_lossy(&said).lines().any(|line| line.contains(expected)) {
        let read = tokio::time::timeout(WITHIN, stderr.read(&mut octet)).await;
        assert_eq!(read.unwrap().unwrap(), 1, "{expected}: {}", String::from_utf8_lossy(&said));
        said.push(octet[0]);
    }
}

#[tokio::test]
async fn whoever_follows_a_job_sees_it_through_a_restart_and_leaves_it_running_by_ctrl_c() {
    let site = Site::determined().await;
    site.fault(Which::Recovery, Some("C_Sign 20 stop"));
    let daemon = site.start_active().await;
    let job = start(&daemon.client, &all_of(site.main())).await.request;
    site.reach(Which::Recovery, "C_Sign", 20).await;
    let (mut follower, mut leaver) = (watching(&site, job), watching(&site, job));
    says(&mut leaver, "running, ").await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(leaver.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    says(&mut leaver, "is left as it is").await;
    assert_eq!(leaver.wait().await.unwrap().code(), Some(6));
    says(&mut follower, "running, ").await;
    daemon.kill().await.unwrap();
    says(&mut follower, "smkid does not answer").await;
    write_script(&site.script(Which::Recovery), "");
    let daemon = site.start().await;
    says(&mut follower, "smkid answers again").await;
    says(&mut follower, "waiting, ").await;
    site.activate(&daemon.client).await.unwrap();
    let done = ended(&daemon.client, job).await;
    assert!(done.tally.unknown > 0, "what was with the token, which nothing here signs again by itself");
    let output = follower.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(out.contains("recovery settle --determination"), "{out}");
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_command_that_settled_two_attempts_of_a_job_is_fetched_once_and_withheld_once() {
    let site = Site::determined().await;
    site.configure(|text| text.replace("[[token]]\n", "[[token]]\nsessions = 1\n"));
    // The third Device's first attempt is lost, and its second, after which no worker starts.
    let script = "C_Sign 3 kill\nC_Sign 5 kill\nC_Initialize 3- return CKR_GENERAL_ERROR";
    site.fault(Which::Recovery, Some(script));
    let daemon = site.start().await;
    let limits = Limits { intents: 16, per_hour: 16, retries_of_unknown: 3, retry_by_itself: true };
    let id = limited(&site, &daemon.client, 4, limits).await;
    let job = start(&daemon.client, &all_of(id)).await.request;
    let lost = |job: &Job| job.state == JobState::Waiting && (job.tally.signed, job.tally.unknown) == (3, 1);
    let stood =
        until(&daemon.client, job, "the second attempt is lost", |job| lost(job) && job.tally.intents == 5).await;
    assert_eq!(site.calls(Which::Recovery, "C_Sign"), 5, "{stood:?}");
    stop(&daemon.client, job, "cancel").await.unwrap();
    assert!(daemon.stop().await.unwrap().success());

    site.fault(Which::Recovery, None);
    let daemon = activated(&site, "INC-2").await;
    let client = &daemon.client;
    let settled = whole(lines(client, "/v1/recovery/settle", &crate::support::site::settle_all(id)).await);
    assert_eq!(
        settled.iter().map(|item| (item.device, item.outcome)).collect::<Vec<_>>(),
        [(device(1_002), ItemOutcome::Signed)]
    );
    let attempts = site.ledger().intents().into_values().filter(|intent| intent.device == device(1_002)).count();
    assert_eq!(attempts, 3);
    let fetch = async || {
        let path = format!("/v1/recovery/requests/{job}/commands");
        let items = whole(lines(client, &path, &wire::RecoveryFetch::default()).await);
        let theirs: Vec<_> = items.iter().filter(|item| item.device == device(1_002)).cloned().collect();
        let others =
            items.iter().filter(|item| item.device != device(1_002)).filter(|item| item.command.is_some()).count();
        assert_eq!(others, 3, "{items:?}");
        let [only] = &theirs[..] else { panic!("told {} times: {theirs:?}", theirs.len()) };
        only.clone()
    };
    let told = fetch().await;
    assert_eq!((told.outcome, &told.command), (ItemOutcome::Signed, &settled[0].command));
    // Once it is left out, nothing of it is handed over, in whichever place.
    let carrier = site.carrier(client, "INC-2");
    let devices = carrier.upload(&plain(&[device(1_002)]), 1).await.unwrap();
    carrier.step(Step::Exclude { devices, reason: "exchanged this morning".into() }).await.unwrap();
    let told = fetch().await;
    assert_eq!((told.outcome, told.command), (ItemOutcome::Withheld, None));
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_job_whose_own_list_was_edited_since_signs_for_nobody_and_ends() {
    let site = Site::determined().await;
    site.configure(|text| text + "\n[signing]\nchunk = 64\n");
    site.fault(Which::Recovery, Some(SLOW));
    let daemon = site.start_active().await;
    let client = &daemon.client;
    let (low, high) = (upload(client, &names(0..400)).await, upload(client, &names([403, 405, 408])).await);
    let first = start(client, &JobStart { list: Some(low), ..all_of(site.main()) }).await.request;
    let second = start(client, &JobStart { list: Some(high), ..all_of(site.main()) }).await.request;
    waits(client, second, "job-order").await;
    // Another Device of the determination, which the operator did not name: the list is as long as before, and in order.
    let edit = |from: u32, to: u32| {
        let sql = format!(
            "UPDATE chunk SET octets = CAST(replace(CAST(octets AS TEXT), '{}', '{}') AS BLOB) WHERE CAST(octets AS TEXT) LIKE '{}' || \
             char(10) || '%'",
            device(from),
            device(to),
            device(403)
        );
        site.edit(&sql, 1);
    };
    edit(405, 406);
    stop(client, first, "pause").await.unwrap();
    let done = ended(client, second).await;
    assert_eq!(done.why.iter().map(|reason| &*reason.rule).collect::<Vec<_>>(), ["job-list"], "{done:?}");
    assert_eq!(done.tally, JobTally::default());
    stands_still(&site, client).await;
    assert!(site.ledger().signed().iter().all(|of| *of < device(400)));
    // As it was, its ledger verifies: nothing was recorded that the list does not bear out.
    edit(406, 405);
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

/// What a number of kills is tried with: Devices of a job, jobs at most, commands of a chunk, and how long the daemon lives at most once
/// its key is active.
const fn scale(kills: u64) -> (u32, u32, usize, u64) {
    if kills <= 10 { (1_500, 6, 32, 250) } else { (20_000, 12, 1_000, 1_500) }
}

#[tokio::test]
async fn killed_at_moments_of_no_choice_every_device_gets_one_live_command_and_every_signature_is_accounted_for() {
    let (kills, seed) = (setting("SMKID_KILLS", 10), setting("SMKID_KILLS_SEED", 2017));
    let (devices, jobs_max, chunk, life_ms) = scale(kills);
    let begun = Instant::now();
    let site = Site::determined().await;
    site.configure(|text| text + &format!("\n[signing]\nchunk = {chunk}\n"));
    site.fault(Which::Recovery, Some("log recovery.calls\n"));
    let mut daemon = site.start().await;
    let total = devices * jobs_max;
    let limits = Limits {
        intents: u64::from(total) * 4,
        per_hour: u64::from(total) * 4,
        retries_of_unknown: 3,
        retry_by_itself: true,
    };
    let id = limited(&site, &daemon.client, total, limits).await;
    let mut seeded = Seeded::new(seed);
    let (mut jobs, mut killed_signing): (Vec<RequestId>, u64) = (Vec::new(), 0);
    let next = async |client: &Client, n: usize| {
        let from = 1_000 + devices * u32::try_from(n).unwrap();
        let list = Some(upload(client, &names(from..from + devices)).await);
        start(client, &JobStart { list, ..all_of(id) }).await.request
    };
    jobs.push(next(&daemon.client, 0).await);
    for _ in 0..kills {
        tokio::time::sleep(Duration::from_millis(seeded.below(life_ms))).await;
        daemon.kill().await.unwrap();
        killed_signing += u64::from(!open_intents(&site).is_empty());
        daemon = activated(&site, "INC-2").await;
        let now = show(&daemon.client, *jobs.last().unwrap()).await;
        if now.state == JobState::Ended && jobs.len() < jobs_max as usize {
            jobs.push(next(&daemon.client, jobs.len()).await);
        }
    }
    let mut unknown = 0;
    for job in &jobs {
        let done = ended(&daemon.client, *job).await;
        assert_eq!((done.done, done.total), (u64::from(devices), u64::from(devices)), "{done:?}");
        assert_eq!((done.tally.signed + done.tally.unknown, done.why.len()), (u64::from(devices), 0), "{done:?}");
        unknown += done.tally.unknown;
    }
    let all = u64::from(devices) * jobs.len() as u64;
    let ledger = site.ledger();
    let outcomes = ledger.outcomes();
    let of = |which: fn(&SignResult) -> bool| outcomes.values().filter(|result| which(result)).count();
    let was_unknown = of(|result| matches!(result, SignResult::Unknown(_)));
    let (made, _) = held_against(&site, &site.path("recovery.calls"));
    assert!(made as u64 >= all - unknown && made <= ledger.signed().len() + was_unknown, "{made} signatures");
    let lost = all - unknown - ledger.signed().len() as u64;
    let mut by_device: BTreeMap<DeviceId, Vec<(u64, u32, bool)>> = BTreeMap::new();
    for (at, intent) in ledger.intents() {
        let is_signed = matches!(outcomes.get(&at), Some(SignResult::Signed(_)));
        by_device.entry(intent.device).or_default().push((at, intent.attempt, is_signed));
    }
    by_device.retain(|_, intents| intents.iter().filter(|(.., is_signed)| *is_signed).count() > 1);
    let doubled = by_device.len();
    assert_eq!((lost, doubled), (0, 0), "intent, attempt, signed: {by_device:?}");
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
    println!(
        "kills: seed {seed}, {kills} kills in {:?}, {killed_signing} with intents open; {} jobs of {devices} Devices; the token made \
         {made} signatures, {was_unknown} intents were unknown, {unknown} Devices are left so; {lost} lost, {doubled} doubled",
        begun.elapsed(),
        jobs.len()
    );
}

/// The intents that a killed daemon left open, by its database.
fn open_intents(site: &Site) -> Vec<u64> {
    site.ledger().open()
}
