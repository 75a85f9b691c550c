//! An exercise that sets its clock: ceremony, daemon and windows lie at another time, and every entry says so. Nothing live does.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use smkid::api::client::Client;
use smkid::api::wire;
use smkid::domain::fold::Fold;
use smkid::domain::ledger::entry::{Actor, Channel, ClockState, Event, Genesis, KeyRecord, Role};
use smkid::domain::ledger::note::Verifier;
use smkid::domain::ledger::steps::Step;
use smkid::domain::names::{Digest, KeyId, KeyUse, Purpose, RequestId};
use smkid::domain::time::Timestamp;
use smkid::exercise::procedure::{Order, plain};
use smkid::recorder::{Moment, Recorder, record_alone};
use smkid::store::StagingLimits;
use smkid::store::sqlite::SqliteStore;
use smkid::wall_clock::wall_clock;

use crate::support::lab::Key;
use crate::support::ledger_fixture::Signer;
use crate::support::site::{
    Handed, INCIDENT, Site, accept_clock, ask_for, device, incident, lines, problem, rules, whole,
};

#[tokio::test]
async fn a_daemon_set_into_2017_signs_in_a_window_of_then_and_says_so_in_every_entry() {
    let site = Site::determined_of(Site::set_before_the_variation().await);
    let daemon = site.start_active().await;

    let status: wire::Status = daemon.client.get("/v1/status").await.unwrap();
    let clock = &status.clock;
    assert_eq!(clock.state, ClockState::SetForExercise);
    assert!(clock.now.to_string().starts_with("2017-07-20T"), "{}", clock.now);
    let off_ms = clock.now.unix_ms() - clock.offset_ms - wall_clock().unix_ms();
    assert!((-60_000..=0).contains(&off_ms), "{off_ms}");
    assert_eq!(status.problems, []);
    let output =
        Command::new(env!("CARGO_BIN_EXE_smkictl")).arg("status").env("SMKID_SOCKET", &site.socket).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    for expected in ["not the true time", "set for an exercise", "behind this machine's clock"] {
        assert!(said.contains(expected), "{said}");
    }

    // The window, the activation and each last moment at the token are of 2017.
    let items = whole(lines(&daemon.client, "/v1/recovery/sign", &ask_for(site.main(), 0..3)).await);
    let mut handed = Handed::default();
    handed.take(&site, &items);
    assert_eq!(handed.len(), 3);
    site.verify_export("ledger");
    assert!(daemon.stop().await.unwrap().success());

    let ledger = site.ledger();
    let kinds: Vec<&str> = ledger.entries.iter().map(|entry| entry.event.kind()).collect();
    for kind in ["genesis", "certification-intent", "incident-opened", "determination-recorded", "intent", "stopped"] {
        assert!(kinds.contains(&kind), "{kind} in {kinds:?}");
    }
    for entry in &ledger.entries {
        assert_eq!(entry.clock, ClockState::SetForExercise, "{entry:?}");
        assert!(entry.at.to_string().starts_with("2017-07-20T"), "{entry:?}");
    }

    // Without the setting nine years have gone by: nothing is called trusted until an operator has looked.
    site.configure(|text| text.split("\n[exercise]").next().unwrap().to_owned());
    let daemon = site.start().await;
    let activation = problem(site.activate(&daemon.client).await);
    let signing = problem(lines(&daemon.client, "/v1/recovery/sign", &ask_for(site.main(), 3..4)).await);
    for refused in [activation, signing] {
        let rules: Vec<&str> = refused.reasons.iter().map(|reason| &*reason.rule).collect();
        assert!(rules.contains(&"clock"), "{rules:?}");
    }
    assert!(daemon.stop().await.unwrap().success());
    let entries = site.ledger().entries;
    let after = &entries[ledger.entries.len()..];
    assert!(after.iter().any(|entry| matches!(entry.event, Event::ClockJumped(_))), "{after:?}");
    assert!(after.iter().all(|entry| entry.clock != ClockState::SetForExercise), "{after:?}");
}

#[tokio::test]
async fn an_exercise_that_moves_its_clock_on_by_days_accepts_it_as_an_operator_does_and_goes_on() {
    let mut site = Site::determined_of(Site::set_before_the_variation().await);
    site.set_clock("2017-07-21T07:00:00Z", Order::AfterDetermination);
    // By less than a day it is as if nobody had asked anything meanwhile.
    let daemon = site.start_active().await;
    let items = whole(lines(&daemon.client, "/v1/recovery/sign", &ask_for(site.main(), 0..1)).await);
    assert_eq!(items.len(), 1);
    assert!(daemon.stop().await.unwrap().success());

    site.set_clock("2017-07-22T07:30:00Z", Order::AfterDetermination);
    let daemon = site.start().await;
    let client = &daemon.client;
    let state = async || client.get::<wire::Status>("/v1/status").await.unwrap().clock.state;
    let jumped = site.ledger().entries.pop().unwrap();
    assert!(matches!(jumped.event, Event::ClockJumped(_)), "{jumped:?}");
    accept_clock(client).await;
    assert_eq!(state().await, ClockState::SetForExercise);
    // From here on each entry says again that the clock is set, and none that it is trusted. The window is over by a day.
    let refused = problem(site.activate(client).await);
    assert_eq!(refused.reasons.iter().map(|reason| &*reason.rule).collect::<Vec<_>>(), ["window"]);
    assert_eq!(site.ledger().entries.pop().unwrap().clock, ClockState::SetForExercise);
    assert!(site.ledger().entries.iter().all(|entry| entry.clock != ClockState::Trusted));
    site.verify_export("ledger");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_clock_that_is_years_ahead_for_once_costs_an_acceptance_and_gets_no_time_into_the_ledger() {
    let mut site = Site::determined_of(Site::set_before_the_variation().await);
    site.set_clock("2031-01-01T00:00:00Z", Order::BeforeReferral);
    let daemon = site.start().await;
    let client = &daemon.client;
    let clock = client.get::<wire::Status>("/v1/status").await.unwrap().clock;
    assert_eq!(clock.state, ClockState::Untrusted);
    let (now, wall) = (clock.now.to_string(), clock.wall.to_string());
    assert!(now.starts_with("2017-07-20T") && wall.starts_with("2031-01-01T"), "{now}, {wall}");

    // What goes by the date is not taken in, and what only stops something is.
    let steps = format!("/v1/incidents/{INCIDENT}/steps");
    let ask = |step| wire::StepAsk { step };
    let refer = Step::Refer { notification: None, new_facts: Some("once more".into()) };
    assert!(rules(&site.refused(client, &steps, &ask(refer)).await).contains(&"clock"));
    assert!(rules(&problem(lines(client, "/v1/recovery/sign", &ask_for(site.main(), 0..1)).await)).contains(&"clock"));
    let second = wire::IncidentOpen { incident: "INC-2".parse().unwrap(), ..incident(&site.base.lab) };
    assert!(rules(&site.refused(client, "/v1/incidents", &second).await).contains(&"clock"));
    let carrier = site.carrier(client, INCIDENT);
    let devices = carrier.upload(&plain(&[device(0)]), 1).await.unwrap();
    carrier.step(Step::Exclude { devices, reason: "exchanged".into() }).await.unwrap();

    // Nobody accepts it by mistake.
    let accept = |time: &str| wire::ClockAccept { time: time.parse().unwrap(), reason: "a watch".into() };
    let refused = site.refused(client, "/v1/clock/accept", &accept("2017-07-20T10:00:00Z")).await;
    let told = &refused.reasons[0].text;
    assert!(told.contains("2031-01-01T") && told.contains("2017-07-20T10:00:00.000Z"), "{told}");
    assert!(daemon.stop().await.unwrap().success());

    // It is put right: an operator says so, and the night goes on.
    site.set_clock("2017-07-20T22:00:00Z", Order::BeforeReferral);
    let daemon = site.start().await;
    let client = &daemon.client;
    assert!(rules(&problem(site.activate(client).await)).contains(&"clock"), "also after a restart");
    accept_clock(client).await;
    site.activate(client).await.unwrap();
    assert_eq!(whole(lines(client, "/v1/recovery/sign", &ask_for(site.main(), 1..3)).await).len(), 2);
    site.verify_export("ledger");
    assert!(daemon.stop().await.unwrap().success());
    let ledger = site.ledger();
    let late = ledger.entries.iter().find(|entry| !entry.at.to_string().starts_with("2017-07-20T"));
    assert_eq!(late, None);
}

#[tokio::test]
async fn the_hours_of_a_suspension_begin_when_the_clock_is_accepted_where_it_was_not_trusted() {
    let mut site = Site::determined_of(Site::set_before_the_variation().await);
    site.set_clock("2031-01-01T00:00:00Z", Order::BeforeReferral);
    assert!(site.start().await.stop().await.unwrap().success());
    // The ledger is at nine in the morning still when a member suspends for an hour.
    site.set_clock("2017-07-20T19:00:00Z", Order::BeforeReferral);
    let daemon = site.start().await;
    let client = &daemon.client;
    site.suspend(client, &site.base.main).await;
    assert!(site.ledger().entries.last().unwrap().at < "2017-07-20T10:00:00Z".parse().unwrap());
    accept_clock(client).await;
    assert_eq!(rules(&problem(lines(client, "/v1/recovery/sign", &ask_for(site.main(), 0..1)).await))[0], "suspended");
    site.verify_export("ledger");
    assert!(daemon.stop().await.unwrap().success());
    // It is as long as it was signed for.
    site.set_clock("2017-07-20T20:30:00Z", Order::BeforeReferral);
    let daemon = site.start_active().await;
    assert_eq!(whole(lines(&daemon.client, "/v1/recovery/sign", &ask_for(site.main(), 0..1)).await).len(), 1);
    assert!(daemon.stop().await.unwrap().success());
}

/// A ledger of nothing but a genesis entry, for this purpose.
fn ledger_for(purpose: Purpose, state: &Path) {
    fs::create_dir(state).unwrap();
    let limits = StagingLimits { account_len_max: 1 << 20, total_len_max: 1 << 20 };
    let store = SqliteStore::create(state, limits).unwrap();
    let (key, origin) = (Arc::new(Key::generate()), "smkid.example/clock");
    let verifier = Verifier::from_spki(origin, &key.public.to_spki()).unwrap();
    let read = || (Moment { at: wall_clock(), clock: ClockState::Trusted }, None);
    let mut recorder = Recorder::new(Box::new(store), Fold::default(), Box::new(read)).unwrap();
    recorder.set_signer(Box::new(Signer { key: Arc::clone(&key), verifier }));
    let record = KeyRecord {
        label: "ledger-1".parse().unwrap(),
        use_: KeyUse::Ledger,
        token: "ledger-a".parse().unwrap(),
        serial: "1".into(),
        id: KeyId([1; 16]),
        spki_sha256: key.public.spki_sha256(),
        spki: base64::Engine::encode(&base64::engine::general_purpose::STANDARD, key.public.to_spki()).into(),
    };
    let sums = b"no policy is read here".to_vec();
    let genesis = Genesis {
        origin: origin.parse().unwrap(),
        purpose,
        nonce: RequestId([7; 16]),
        keys: vec![record],
        policy: Digest::of(&sums),
    };
    let by = Actor { person: None, account: "root".into(), role: Role::Ceremony, channel: Channel::Console };
    record_alone(&mut recorder, |recorder| {
        recorder.queue_blob(sums);
        recorder.queue(&by, Event::Genesis(genesis))
    })
    .unwrap()
    .into_inner();
}

#[test]
fn a_clock_that_is_set_is_refused_with_a_live_ledger_by_check_config_and_at_the_start() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    for (name, purpose) in [("live", Purpose::Live), ("exercise", Purpose::Exercise)] {
        ledger_for(purpose, &path(name));
    }
    let run = |state: &str, offset_ms: i64, arguments: &[&str]| -> (Option<i32>, String) {
        let text = format!(
            "version = 1\nstate = \"{}\"\nsocket = \"{}\"\n[[token]]\nname = \"ledger-a\"\nmodule = \"/nowhere/m.so\"\n\
             label = \"l\"\nserial = \"1\"\n[ledger]\ntoken = \"ledger-a\"\n[limits]\nreserve_octets = 1048576\n\
             [exercise]\nclock_offset_ms = {offset_ms}\n",
            path(state).display(),
            path("smkid.sock").display(),
        );
        fs::write(path("smkid.toml"), text).unwrap();
        let configuration = path("smkid.toml");
        let arguments = [arguments, &["--config", configuration.to_str().unwrap()]].concat();
        let Output { status, stdout: _, stderr } =
            Command::new(env!("CARGO_BIN_EXE_smkid")).args(arguments).env_clear().output().unwrap();
        (status.code(), String::from_utf8(stderr).unwrap())
    };
    let refusal = "exercise.clock_offset_ms: expected 0, for ledger and policy are live, found";
    for offset_ms in [-1, 1] {
        for arguments in [&["check-config"][..], &[]] {
            let (status, said) = run("live", offset_ms, arguments);
            assert_eq!(status, Some(78), "{arguments:?} {offset_ms}: {said}");
            assert!(said.contains(&format!("{refusal} {offset_ms}")), "{said}");
            assert!(said.contains("remove [exercise] from the configuration"), "{said}");
        }
    }
    // Not set, of an exercise, or with no ledger yet: nothing is said against it.
    for (state, offset_ms) in [("live", 0), ("exercise", -1), ("absent", -1)] {
        let (status, said) = run(state, offset_ms, &["check-config"]);
        assert_eq!(status, Some(0), "{state} {offset_ms}: {said}");
    }
    // The start goes on to what this ledger lacks, and is not ended by the clock.
    for (state, offset_ms) in [("live", 0), ("exercise", -1)] {
        let (status, said) = run(state, offset_ms, &[]);
        assert!(status != Some(0) && !said.contains("clock_offset_ms: expected"), "{state}: {said}");
    }
}

#[tokio::test]
async fn who_has_not_rehearsed_for_a_year_is_reminded_until_an_exercise_is_recorded() {
    const MARGIN_MS: i64 = 5 * 60 * 1000;
    let mut site = Site::founded_of(Site::set_before_the_variation().await);
    let ledger = site.ledger();
    let adopted = ledger.entries.iter().find(|entry| matches!(entry.event, Event::PolicyAdopted(_))).unwrap();
    let due: Timestamp = adopted.at.to_string().replacen("2017-", "2018-", 1).parse().unwrap();

    site.set_clock(&due.plus_ms(-MARGIN_MS).to_string(), Order::AfterDetermination);
    let daemon = site.start().await;
    accept_clock(&daemon.client).await;
    let clock = daemon.client.get::<wire::Status>("/v1/status").await.unwrap().clock;
    assert!(clock.now >= due.plus_ms(-MARGIN_MS) && clock.now < due, "{clock:?}");
    assert_eq!(reminders(&daemon.client).await, [] as [String; 0], "{due}");
    assert!(daemon.stop().await.unwrap().success());

    site.set_clock(&due.to_string(), Order::AfterDetermination);
    let daemon = site.start().await;
    let reminded = reminders(&daemon.client).await;
    assert_eq!(reminded.len(), 1, "{reminded:?}");
    assert!(reminded[0].contains(&format!("another was due by {due}")), "{reminded:?}");
    let at = daemon.client.get::<wire::Status>("/v1/status").await.unwrap().clock.now;
    let record = wire::ExerciseRecord { at, report: Digest::of(b"summary"), note: "yearly".to_owned() };
    let _: wire::Recorded = daemon.client.post("/v1/exercises", &record).await.unwrap();
    assert_eq!(reminders(&daemon.client).await, [] as [String; 0]);
    site.verify_export("ledger");
    assert!(daemon.stop().await.unwrap().success());
}

async fn reminders(client: &Client) -> Vec<String> {
    let status: wire::Status = client.get("/v1/status").await.unwrap();
    status.reminders.into_iter().map(|reminder| reminder.what).collect()
}
