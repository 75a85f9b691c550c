//! What the activation of a key is for: one incident, for so long, and what was signed under it and not handed over.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use smkid::api::client::Client;
use smkid::api::wire::{Item, ItemOutcome, RecoverySign};
use smkid::domain::determination::document::Determination;
use smkid::domain::incident::State;
use smkid::domain::ledger::entry::{Actor, Batch, ClockState, Event, KeyActivated, KeyLocked};
use smkid::domain::ledger::steps::Step;
use smkid::domain::names::{DeviceId, Digest};
use smkid::exercise::people::APPROVALS;
use smkid::exercise::policy::RECOVERY_KEY;
use smkid::exercise::procedure::plain;
use smkid::recorder::{Moment, Recorder, record_alone};
use smkid::store::StagingLimits;
use smkid::store::sqlite::SqliteStore;

use crate::support::site::{
    DEVICES, INCIDENT, Site, Which, ask_for, ask_for_all, device, device_list, lines, lines_and_stop, not_execute,
    problem, whole,
};

const SIGN: &str = "/v1/recovery/sign";
/// The incident of a second determination.
const SECOND: &str = "INC-2";
/// How long an end that comes by itself is waited for.
const END_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

async fn state(site: &Site, client: &Client, incident: &str) -> State {
    site.carrier(client, incident).progress().await.unwrap().state
}

async fn refused_activation(site: &Site, client: &Client, incident: &str) -> Vec<String> {
    let before = site.ledger().size();
    let problem = problem(site.activate_for(client, incident).await);
    assert_eq!(problem.entry, Some(before), "the refusal is recorded: {problem:?}");
    problem.reasons.iter().map(|reason| reason.rule.to_string()).collect()
}

async fn refused_batch(client: &Client, ask: &RecoverySign) -> Vec<String> {
    let problem = problem(lines(client, SIGN, ask).await);
    problem.reasons.iter().map(|reason| reason.rule.to_string()).collect()
}

fn smkictl(site: &Site, arguments: &[&str]) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_smkictl"));
    let output = command.args(arguments).env("SMKID_SOCKET", &site.socket).output().unwrap();
    assert!(output.status.success(), "smkictl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn an_activation_is_for_one_incident_and_signs_for_no_other() {
    let site = Site::determined().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    let second = site.determine(client, 2, &device_list(600..603), |_| {}).await;
    let (main, second) = (site.main(), second.form().id);
    // What nobody determined has no key, and an incident that awaits none gets none.
    assert_eq!(refused_activation(&site, client, "INC-9").await, ["incident-unknown"]);
    site.refer(client, "INC-3", [device(700)]).await;
    assert_eq!(refused_activation(&site, client, "INC-3").await, ["determination-unknown"]);
    assert_eq!(
        (state(&site, client, INCIDENT).await, state(&site, client, SECOND).await),
        (State::Prepared, State::Prepared)
    );

    site.activate_for(client, SECOND).await.unwrap();
    assert_eq!(state(&site, client, INCIDENT).await, State::Prepared, "it was not for this one");
    assert_eq!(state(&site, client, SECOND).await, State::KeyActive);
    assert!(smkictl(&site, &["status"]).contains("for incident INC-2 until"), "the status says for which");
    assert_eq!(refused_batch(client, &ask_for(main, 0..2)).await, ["key-of-another-incident"]);
    assert_eq!(refused_activation(&site, client, INCIDENT).await, ["key-of-another-incident"]);
    assert_eq!(refused_activation(&site, client, SECOND).await, ["not-prepared"], "it is active already");
    assert_eq!(whole(lines(client, SIGN, &ask_for(second, [600])).await).len(), 1);

    // Locked, it can be activated for the other; the second one stands still.
    site.lock(client).await.unwrap();
    assert_eq!(
        (state(&site, client, INCIDENT).await, state(&site, client, SECOND).await),
        (State::Prepared, State::Paused)
    );
    site.activate(client).await.unwrap();
    assert_eq!(
        (state(&site, client, INCIDENT).await, state(&site, client, SECOND).await),
        (State::KeyActive, State::Paused)
    );
    assert_eq!(refused_batch(client, &ask_for(second, [601])).await, ["key-of-another-incident"]);
    assert_eq!(whole(lines(client, SIGN, &ask_for(main, [0])).await).len(), 1);
    assert!(daemon.stop().await.unwrap().success());

    // A start locks what was active; each story tells of its own activation alone.
    let daemon = site.start().await;
    let client = &daemon.client;
    assert_eq!(state(&site, client, INCIDENT).await, State::Paused);
    let story = smkictl(&site, &["incident", "timeline", SECOND]);
    assert!(story.contains("activated for this incident") && story.contains("locked, nothing is signed"), "{story}");
    assert_eq!(story.matches("activated for this incident").count(), 1, "{story}");
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn an_incident_that_comes_to_its_end_while_paused_leaves_the_key_active_for_another() {
    let site = Site::determined().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    site.determine(client, 2, &device_list(600..602), |_| {}).await;
    site.activate_for(client, SECOND).await.unwrap();
    let second = site.carrier(client, SECOND);
    second.step(Step::Pause { reason: "the first Responses look odd".into() }).await.unwrap();
    site.activate(client).await.unwrap();
    let devices = second.upload(&plain(&[device(600), device(601)]), 2).await.unwrap();
    second.step(Step::Exclude { devices, reason: "both were exchanged".into() }).await.unwrap();
    second.step(Step::Finish { note: "nothing is outstanding".into() }).await.unwrap();
    assert_eq!(
        (state(&site, client, INCIDENT).await, state(&site, client, SECOND).await),
        (State::KeyActive, State::Executed)
    );
    assert_eq!(whole(lines(client, SIGN, &ask_for(site.main(), [0])).await).len(), 1);
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_key_is_not_activated_under_a_determination_that_was_withdrawn() {
    let site = Site::determined().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    let withdrawal = site.drafter().withdrawal(&site.base.main, crate::support::site::head(client).await).unwrap();
    site.deliver(client, &withdrawal, smkid::exercise::people::APPROVALS, None).await.unwrap();
    assert_eq!(refused_activation(&site, client, INCIDENT).await, ["withdrawn"]);
    assert!(daemon.stop().await.unwrap().success());
}

/// The last entry locks the Recovery key, for a reason that says this, and its worker has ended.
fn locked_at_once(site: &Site, why: &str) {
    let ledger = site.ledger();
    let last = ledger.entries.last().unwrap();
    let Event::KeyLocked(KeyLocked { key, reason, incident }) = &last.event else { panic!("{why}: {last:?}") };
    assert_eq!((key.as_str(), &**reason), (RECOVERY_KEY, &*format!("determination {} {why}", site.main())));
    assert_eq!(incident.as_ref().map(smkid::domain::names::IncidentId::as_str), Some(INCIDENT));
}

#[tokio::test]
async fn a_key_is_locked_at_once_where_the_determination_that_it_was_activated_for_ends() {
    for (why, negative) in [
        ("was withdrawn", false),
        ("was superseded", false),
        ("was superseded", true),
        ("was not carried over by the policy adopted", false),
    ] {
        let site = Site::determined().await;
        let daemon = site.start().await;
        let client = &daemon.client;
        let before = daemon.workers();
        site.activate(client).await.unwrap();
        assert_ne!(daemon.workers(), before);
        let list = device_list(1..4);
        match why {
            "was withdrawn" => site.withdraw(client, &site.base.main).await,
            "was superseded" => {
                let supersedes = |form: &mut Determination| {
                    form.supersedes = Some(site.main());
                    form.decision_number = 2;
                    if negative {
                        not_execute(form);
                    }
                };
                let second = site.determination(client, 2, &list, supersedes).await;
                site.deliver(client, &second, APPROVALS, (!negative).then_some(list.as_str())).await.unwrap();
            }
            _ => {
                let files = site.changed_policy("policy.toml", |text| {
                    text.replace("activation_seconds = 43200", "activation_seconds = 3600")
                });
                site.adopt(client, &files, Vec::new()).await;
            }
        }
        locked_at_once(&site, why);
        assert_eq!(daemon.workers(), before, "{why}: nobody stays logged in");
        site.verify_export("export");
        assert!(daemon.stop().await.unwrap().success());
    }
}

#[tokio::test]
async fn a_key_stays_open_where_the_determination_that_it_was_activated_for_stands() {
    let site = Site::determined().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    let second = site.determine(client, 2, &device_list(600..602), |_| {}).await;
    site.activate(client).await.unwrap();
    let open = daemon.workers();
    site.withdraw(client, &second).await;
    let files = site
        .changed_policy("policy.toml", |text| text.replace("activation_seconds = 43200", "activation_seconds = 3600"));
    site.adopt(client, &files, vec![site.main()]).await;
    assert_eq!((daemon.workers(), state(&site, client, INCIDENT).await), (open, State::KeyActive));
    assert_eq!(whole(lines(client, SIGN, &ask_for(site.main(), [0])).await).len(), 1);
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn an_activation_ends_with_its_time_also_where_its_worker_died_and_its_incident_stands_still() {
    let site = Site::determined().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    let files =
        site.changed_policy("policy.toml", |text| text.replace("activation_seconds = 43200", "activation_seconds = 3"));
    site.adopt(client, &files, vec![site.main()]).await;
    for kill in [false, true] {
        let before = daemon.workers();
        let activated = site.activate(client).await.unwrap();
        let entry = &site.ledger().entries[usize::try_from(activated.entry).unwrap()];
        assert_eq!(activated.key.until, Some(entry.at.plus_ms(3_000)));
        if kill {
            let worker = daemon.workers().into_iter().find(|pid| !before.contains(pid)).unwrap();
            smkid::exercise::programs::signal(worker, rustix::process::Signal::KILL).unwrap();
        }
        let begun = Instant::now();
        while state(&site, client, INCIDENT).await != State::Paused {
            assert!(begun.elapsed() < END_MAX, "the activation does not end");
            tokio::time::sleep(POLL).await;
        }
        let ledger = site.ledger();
        let last = ledger.entries.last().unwrap();
        let Event::KeyLocked(KeyLocked { key, reason, incident }) = &last.event else { panic!("{last:?}") };
        assert_eq!((key.as_str(), &**reason), (RECOVERY_KEY, "its time limit"));
        assert_eq!(incident.as_ref().map(smkid::domain::names::IncidentId::as_str), Some(INCIDENT));
        assert!(last.at >= activated.key.until.unwrap());
        assert_eq!(refused_batch(client, &ask_for(site.main(), 0..2)).await, ["key-locked"]);
    }
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

/// What was told of each Device.
fn by_device(items: &[Item]) -> BTreeMap<DeviceId, &Item> {
    items.iter().map(|item| (item.device, item)).collect()
}

#[tokio::test]
async fn a_device_that_was_left_out_after_its_command_was_signed_is_not_given_it() {
    let site = Site::determined().await;
    site.fault(Which::Recovery, Some("C_Sign * delay 10ms"));
    let daemon = site.start_active().await;
    let client = &daemon.client;
    let ask = ask_for_all(site.main());
    let left_out = [device(3), device(20)];
    let carrier = site.carrier(client, INCIDENT);
    let devices = carrier.upload(&plain(&left_out), left_out.len()).await.unwrap();
    let running = tokio::spawn({
        let (client, ask) = (client.clone(), ask.clone());
        async move { lines_and_stop(&client, SIGN, &ask).await }
    });
    // In the midst of the first chunk: its first commands are signed, and none of it is handed over yet.
    site.reach(Which::Recovery, "C_Sign", 40).await;
    assert!(site.ledger().released().is_empty(), "the chunk is not over");
    let excluded = carrier.step(Step::Exclude { devices, reason: "exchanged this morning".into() }).await.unwrap();
    let (items, _) = running.await.unwrap().unwrap();
    let told = by_device(&items);
    for device in left_out {
        let item = told[&device];
        assert_eq!((item.outcome, item.command.is_none()), (ItemOutcome::Withheld, true), "{item:?}");
        assert!(item.reasons.iter().any(|reason| &*reason.rule == "excluded"), "{item:?}");
    }
    assert_eq!(told[&device(4)].outcome, ItemOutcome::Signed, "those beside them are handed over");
    let of = |site: &Site| {
        let ledger = site.ledger();
        let (released, intents) = (ledger.released(), ledger.intents());
        let of_left_out = intents.iter().filter(|(_, intent)| left_out.contains(&intent.device));
        let withheld: Vec<u64> = of_left_out.map(|(at, _)| *at).filter(|at| released.contains(at)).collect();
        (withheld, released.len())
    };
    let (given, released) = of(&site);
    assert!(given.is_empty() && released > 0, "{given:?} were handed over");
    assert!(site.ledger().intents().keys().any(|at| *at < excluded), "it was signed before");
    assert!(daemon.stop().await.unwrap().success());

    // Nor is it when the request is made again, over a restart.
    site.fault(Which::Recovery, None);
    let daemon = site.start_active().await;
    let client = &daemon.client;
    let items = whole(lines(client, SIGN, &ask).await);
    let told = by_device(&items);
    for device in left_out {
        assert!(told[&device].command.is_none(), "{:?}", told[&device]);
    }
    let signed = items.iter().filter(|item| item.outcome == ItemOutcome::Signed).count();
    assert_eq!(signed, DEVICES as usize - left_out.len());
    assert!(of(&site).0.is_empty());
    site.ledger().check();
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

/// Somebody writes an entry to the disk while the daemon is down, without the ledger key.
fn append(site: &Site, by: &Actor, event: Event) {
    let limits = StagingLimits { account_len_max: 1 << 20, total_len_max: 1 << 20 };
    let mut store = SqliteStore::open(&site.state(), limits).unwrap();
    let fold = smkid::state::catch_up(&mut store).unwrap();
    let at = fold.last_at().unwrap();
    let read = move || (Moment { at, clock: ClockState::Trusted }, None);
    let mut recorder = Recorder::new(Box::new(store), fold, Box::new(read)).unwrap();
    record_alone(&mut recorder, |recorder| recorder.queue(by, event)).unwrap().into_inner();
}

#[tokio::test]
async fn what_somebody_wrote_to_the_disk_while_the_daemon_was_down_is_refused_at_the_next_start() {
    let site = Site::determined().await;
    let daemon = site.start_active().await;
    assert!(daemon.stop().await.unwrap().success());
    let ledger = site.ledger();
    let activated = ledger.entries.iter().rev().find(|entry| matches!(entry.event, Event::KeyActivated(_))).unwrap();
    let operator = activated.by.clone();
    let Event::KeyActivated(activated) = activated.event.clone() else { unreachable!("it was looked for") };
    let in_force =
        ledger.entries.iter().rev().find_map(|entry| {
            if let Event::PolicyAdopted(adopted) = &entry.event { Some(adopted.policy) } else { None }
        });
    let batch = Batch {
        request: crate::support::site::request(),
        asked: Digest([1; 32]),
        incident: INCIDENT.parse().unwrap(),
        determination: site.main(),
        policy: in_force.unwrap(),
        profile: activated.profile.clone(),
        key: RECOVERY_KEY.parse().unwrap(),
    };
    site.keep_state("good");
    let member = Actor { person: Some("member-1".parse().unwrap()), ..operator.clone() };
    let for_all = Event::KeyActivated(KeyActivated { incident: None, profile: None, ..activated.clone() });
    for (by, event, says) in [
        (operator.clone(), for_all, "it names no incident"),
        (member, Event::KeyActivated(activated.clone()), "the policy maps account"),
        (Actor::daemon(), Event::KeyActivated(activated), "asker: "),
        (operator, Event::Batch(batch), "key-locked"),
    ] {
        append(&site, &by, event);
        let (_, log) = Site::refused_start(site.try_start().await);
        assert!(log.contains("was not permitted") && log.contains(says), "expected {says:?} in {log}");
        site.bring_back("good");
    }
    let daemon = site.start().await;
    assert!(daemon.stop().await.unwrap().success());
}
