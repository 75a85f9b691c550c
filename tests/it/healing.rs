//! What an HSM does on a bad night, under the real daemon: sessions, logins and workers that are lost, tokens that are taken away and
//! put back, PINs that were changed. Service returns by itself, nothing is signed twice, and no PIN is offered twice.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use smkid::api::client::Client;
use smkid::api::failure::ProblemKind;
use smkid::api::wire::{self, Item, ItemOutcome, ServiceState, TokenCircuit, TokenStanding};
use smkid::domain::ledger::entry::{Event, Health, LoginRetried, Role, SignResult, TokenHealth};
use smkid::exercise::policy::{LEDGER_TOKEN, RECOVERY_KEY, RECOVERY_TOKEN};
use smkid::exercise::programs::signal;

use crate::support::site::{
    DEVICES, Handed, Site, Which, ask_for, ask_for_all, incident, incident_of, lines, lines_and_stop, problem,
    settle_all, whole,
};
use crate::support::token::MODULE;

const SIGN: &str = "/v1/recovery/sign";
/// Within so much service returns after the last fault.
const BACK_WITHIN: Duration = Duration::from_secs(10);

/// What the configuration says of a token, by key.
fn settings(site: &Site, token: &str) -> BTreeMap<String, String> {
    let text = fs::read_to_string(&site.configuration).unwrap();
    let block = text.split("[[token]]").find(|block| block.contains(&format!("name = \"{token}\""))).unwrap();
    let pairs = block.lines().filter_map(|line| line.split_once(" = "));
    pairs.map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned())).collect()
}

fn quoted_last(value: &str) -> &str {
    value.rsplit('"').nth(1).unwrap()
}

fn pin_file(site: &Site, token: &str) -> PathBuf {
    quoted_last(&settings(site, token)["pin"]).into()
}

/// Changes a token's PIN with the tool of a third party. The file with the PIN stays as it is.
fn change_pin(site: &Site, token: &str, new: &str) {
    let settings = settings(site, token);
    let old = fs::read_to_string(pin_file(site, token)).unwrap();
    let changed = Command::new("pkcs11-tool")
        .args(["--module", MODULE, "--token-label", &settings["label"], "--login", "--pin", old.trim()])
        .args(["--change-pin", "--new-pin", new])
        .env("SOFTHSM2_CONF", quoted_last(&settings["environment"]))
        .output()
        .unwrap();
    assert!(changed.status.success(), "{}", String::from_utf8_lossy(&changed.stderr));
}

/// A token that was taken away. It lies beside the others until it is put back.
struct Away(PathBuf, PathBuf);

fn take_away(site: &Site, which: Which) -> Away {
    let (place, away) = (site.token_folder(which), site.path("away"));
    fs::rename(&place, &away).unwrap();
    Away(place, away)
}

impl Away {
    fn put_back(self) -> Instant {
        fs::rename(self.1, self.0).unwrap();
        Instant::now()
    }
}

async fn status(client: &Client) -> wire::Status {
    client.get("/v1/status").await.unwrap()
}

fn of<'s>(status: &'s wire::Status, token: &str) -> &'s TokenStanding {
    status.tokens.iter().find(|standing| standing.token.as_str() == token).unwrap()
}

/// Waits until the status is as wanted. Every look must be answered: reads go on whatever the tokens do.
async fn until(client: &Client, what: &str, wanted: impl Fn(&wire::Status) -> bool) -> wire::Status {
    let begun = Instant::now();
    loop {
        let status = status(client).await;
        if wanted(&status) {
            return status;
        }
        assert!(begun.elapsed() < 3 * BACK_WITHIN, "{what}: {status:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn count(items: &[Item], outcome: ItemOutcome) -> usize {
    items.iter().filter(|item| item.outcome == outcome).count()
}

/// What the ledger tells of a token, in its order.
fn told(site: &Site, token: &str) -> Vec<TokenHealth> {
    let entries = site.ledger().entries.into_iter();
    entries
        .filter_map(|entry| match entry.event {
            Event::TokenHealth(health) if health.token.as_str() == token => {
                assert_eq!(entry.by.role, Role::Daemon);
                Some(health)
            }
            _ => None,
        })
        .collect()
}

fn is_lock_recorded(site: &Site, why: &str) -> bool {
    let is_it = |event: &Event| matches!(event, Event::KeyLocked(locked) if locked.reason.starts_with(why));
    site.ledger().entries.iter().any(|entry| is_it(&entry.event))
}

fn retried(site: &Site) -> Vec<LoginRetried> {
    let entries = site.ledger().entries.into_iter();
    entries
        .filter_map(|entry| match entry.event {
            Event::LoginRetried(retried) => {
                assert_eq!(entry.by.role, Role::Operator);
                Some(retried)
            }
            _ => None,
        })
        .collect()
}

/// A daemon that is not waited for: it may have its reasons not to be ready.
struct Spawned(Child);

impl Spawned {
    async fn new(site: &Site) -> (Self, Client) {
        let child = Command::new(env!("CARGO_BIN_EXE_smkid"))
            .arg("--config")
            .arg(&site.configuration)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (spawned, client) = (Self(child), Client::new(&site.socket));
        let begun = Instant::now();
        while client.get::<wire::Status>("/v1/status").await.is_err() {
            assert!(begun.elapsed() < 6 * BACK_WITHIN, "no answer from the daemon");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        (spawned, client)
    }

    fn stop(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.0);
        signal(pid, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap().code()
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn lost_sessions_logins_devices_and_workers_heal_by_themselves_and_only_what_may_be_signed_is_unknown() {
    let site = Site::determined().await;
    // Before anything was signed: nobody notices. After: one unknown each, and never more than one for each session.
    let script = "C_SignInit 20 return CKR_SESSION_HANDLE_INVALID\n\
                  C_SignInit 60 return CKR_USER_NOT_LOGGED_IN\n\
                  C_SignInit 100 return CKR_DEVICE_ERROR\n\
                  C_SignInit 140 return CKR_TOKEN_NOT_PRESENT\n\
                  C_SignInit 180 return CKR_CRYPTOKI_NOT_INITIALIZED\n\
                  C_Sign 220 lose CKR_DEVICE_REMOVED\n\
                  C_Sign 280 kill\n\
                  C_Sign 340 abort\n";
    site.fault(Which::Recovery, Some(script));
    site.configure(|text| {
        text.replace(&format!("name = \"{RECOVERY_TOKEN}\""), &format!("name = \"{RECOVERY_TOKEN}\"\nsessions = 1"))
    });
    let daemon = site.start_active().await;
    let ask = ask_for_all(site.main());
    let mut handed = Handed::default();
    let items = whole(lines(&daemon.client, SIGN, &ask).await);
    handed.take(&site, &items);
    assert_eq!(items.len(), DEVICES as usize);
    let unknown = count(&items, ItemOutcome::Unknown);
    assert_eq!(unknown, 3, "those of the last three faults");
    assert_eq!(count(&items, ItemOutcome::Signed), DEVICES as usize - unknown, "the job went on to its end");

    handed.take(&site, &whole(lines(&daemon.client, "/v1/recovery/settle", &settle_all(site.main())).await));
    assert_eq!(handed.len(), DEVICES as usize);
    let ledger = site.ledger();
    ledger.check();
    assert_eq!(ledger.signed().len(), DEVICES as usize);
    // Each of the intents had one outcome; none was recorded as not signed, for all that could be was signed in the end.
    assert!(
        !ledger.outcomes().values().any(|result| matches!(result, SignResult::NotSigned(_) | SignResult::Failed(_)))
    );

    until(&daemon.client, "told", |_| !told(&site, RECOVERY_TOKEN).is_empty()).await;
    let told = told(&site, RECOVERY_TOKEN);
    assert_eq!((told[0].from, told[0].to), (Health::Up, Health::Down));
    assert_eq!(
        (told[0].function.as_deref(), told[0].code.as_deref()),
        (Some("C_SignInit"), Some("CKR_USER_NOT_LOGGED_IN"))
    );
    assert!(told.len() <= 4, "seven faults within seconds do not fill the ledger: {told:?}");
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_token_taken_away_in_the_middle_of_a_job_and_put_back_is_waited_for_and_signs_the_rest() {
    let site = Site::determined().await;
    site.fault(Which::Recovery, Some("C_Sign * delay 4ms"));
    let daemon = site.start_active().await;
    let (client, ask) = (daemon.client.clone(), ask_for_all(site.main()));
    let job = tokio::spawn({
        let (client, ask) = (client.clone(), ask.clone());
        async move { lines(&client, SIGN, &ask).await }
    });
    site.reach(Which::Recovery, "C_Sign", 100).await;
    let away = take_away(&site, Which::Recovery);
    let down = until(&client, "down", |status| of(status, RECOVERY_TOKEN).circuit == TokenCircuit::Down).await;
    let standing = of(&down, RECOVERY_TOKEN);
    assert!(standing.until.is_some() && standing.failures > 0 && standing.trouble.is_some(), "{standing:?}");
    assert_eq!(down.state, ServiceState::Ready, "all else goes on");
    // An entry that has nothing to do with that token.
    client.post::<_, wire::Recorded>("/v1/incidents", &incident_of(&site.base.lab, "INC-7")).await.unwrap();
    let back = away.put_back();
    until(&client, "up", |status| of(status, RECOVERY_TOKEN).circuit == TokenCircuit::Up).await;
    assert!(back.elapsed() < BACK_WITHIN, "up after {:?}", back.elapsed());
    let items = whole(job.await.unwrap());
    let mut handed = Handed::default();
    handed.take(&site, &items);
    let unknown = count(&items, ItemOutcome::Unknown);
    assert_eq!(count(&items, ItemOutcome::Signed) + unknown, DEVICES as usize);
    handed.take(&site, &whole(lines(&client, "/v1/recovery/settle", &settle_all(site.main())).await));
    assert_eq!(handed.len(), DEVICES as usize);
    site.ledger().check();
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_job_that_waits_for_its_token_while_its_determination_is_withdrawn_says_that_it_was() {
    let site = Site::determined().await;
    site.fault(Which::Recovery, Some("C_Sign * delay 4ms"));
    let daemon = site.start_active().await;
    let (client, ask) = (daemon.client.clone(), ask_for_all(site.main()));
    let job = tokio::spawn({
        let (client, ask) = (client.clone(), ask.clone());
        async move { lines_and_stop(&client, SIGN, &ask).await }
    });
    site.reach(Which::Recovery, "C_Sign", 100).await;
    let away = take_away(&site, Which::Recovery);
    until(&client, "down", |status| of(status, RECOVERY_TOKEN).circuit == TokenCircuit::Down).await;
    site.withdraw(&client, &site.base.main).await;
    let (_, stopped) = job.await.unwrap().unwrap();
    let rules: Vec<String> =
        stopped.expect("the answer is whole").iter().map(|reason| reason.rule.to_string()).collect();
    assert!(rules.contains(&"withdrawn".to_owned()) && !rules.contains(&"token".to_owned()), "{rules:?}");
    away.put_back();
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_token_that_signs_nothing_stops_the_job_and_says_how_it_stands_and_the_request_goes_on_later() {
    let site = Site::determined().await;
    site.fault(Which::Recovery, Some("C_SignInit 10-9999 return CKR_DEVICE_ERROR"));
    let daemon = site.start_active().await;
    let ask = ask_for_all(site.main());
    let (items, stopped) = lines_and_stop(&daemon.client, SIGN, &ask).await.unwrap();
    let reasons = stopped.expect("the answer is whole");
    assert_eq!(reasons.iter().map(|reason| &*reason.rule).collect::<Vec<_>>(), ["token"], "{reasons:?}");
    for part in [RECOVERY_TOKEN, "CKR_DEVICE_ERROR", "same request id"] {
        assert!(reasons[0].text.contains(part), "{reasons:?}: no {part}");
    }
    let mut handed = Handed::default();
    handed.take(&site, &items);
    assert_eq!(count(&items, ItemOutcome::Unknown), 0, "nothing was submitted");
    assert!(items.len() <= 2 * 256, "no further chunk was begun: {}", items.len());
    assert!(daemon.stop().await.unwrap().success());
    site.fault(Which::Recovery, None);
    let daemon = site.start_active().await;
    handed.take(&site, &whole(lines(&daemon.client, SIGN, &ask).await));
    assert_eq!(handed.len(), DEVICES as usize);
    site.ledger().check();
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_ledger_token_that_goes_in_the_middle_is_waited_for_reads_go_on_and_a_key_can_be_locked() {
    let site = Site::determined().await;
    site.fault(Which::Ledger, Some("C_Sign 0 stop"));
    let daemon = site.start_active().await;
    let client = daemon.client.clone();
    let away = take_away(&site, Which::Ledger);
    // The first checkpoint without it: the request is neither refused nor answered.
    let ask = ask_for_all(site.main());
    let job = tokio::spawn({
        let (client, ask) = (client.clone(), ask.clone());
        async move { lines(&client, SIGN, &ask).await }
    });
    let waiting = until(&client, "waiting", |status| status.state == ServiceState::ReadOnly).await;
    assert!(waiting.problems.iter().any(|problem| problem.what.contains("ledger token")), "{waiting:?}");
    let entries: wire::Entries = client.get("/v1/ledger/entries?from=0").await.unwrap();
    assert!(!entries.entries.is_empty());
    let refused = problem(client.post::<_, wire::Recorded>("/v1/incidents", &incident(&site.base.lab)).await);
    assert_eq!(refused.error, ProblemKind::Unavailable);
    assert!(refused.message.contains("Reads are answered"), "{refused:?}");
    // To stop is never put off.
    let locked = problem(client.post_nothing::<wire::KeyChanged>(&format!("/v1/keys/{RECOVERY_KEY}/lock")).await);
    assert!(locked.message.contains("is locked") && locked.message.contains("not recorded yet"), "{locked:?}");
    assert_eq!(of(&status(&client).await, RECOVERY_TOKEN).circuit, TokenCircuit::Idle);

    let back = away.put_back();
    until(&client, "ready", |status| status.state == ServiceState::Ready).await;
    assert!(back.elapsed() < BACK_WITHIN, "ready after {:?}", back.elapsed());
    let answer = job.await.unwrap();
    assert!(answer.map_or(0, |(items, _)| count(&items, ItemOutcome::Signed)) == 0, "its key was locked");
    until(&client, "recorded", |_| is_lock_recorded(&site, "on demand")).await;
    site.activate(&client).await.unwrap();
    let mut handed = Handed::default();
    handed.take(&site, &whole(lines(&client, SIGN, &ask).await));
    assert_eq!(handed.len(), DEVICES as usize);
    site.ledger().check();
    until(&client, "told", |_| told(&site, LEDGER_TOKEN).len() >= 2).await;
    let told = told(&site, LEDGER_TOKEN);
    assert_eq!((told[0].to, told[1].to), (Health::Down, Health::Up), "{told:?}");
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_daemon_that_waits_for_its_ledger_token_stops_when_asked_and_the_next_start_concludes() {
    let site = Site::determined().await;
    let daemon = site.start_active().await;
    let client = daemon.client.clone();
    let away = take_away(&site, Which::Ledger);
    let ask = ask_for_all(site.main());
    let job = tokio::spawn({
        let ask = ask.clone();
        async move { lines(&client, SIGN, &ask).await }
    });
    until(&daemon.client, "waiting", |status| status.state == ServiceState::ReadOnly).await;
    let begun = Instant::now();
    assert!(daemon.stop().await.unwrap().success());
    assert!(begun.elapsed() < BACK_WITHIN, "stopped after {:?}", begun.elapsed());
    assert!(job.await.unwrap().map_or(0, |(items, _)| items.len()) == 0);
    away.put_back();
    let daemon = site.start_active().await;
    let mut handed = Handed::default();
    handed.take(&site, &whole(lines(&daemon.client, SIGN, &ask).await));
    assert_eq!(handed.len(), DEVICES as usize);
    site.ledger().check();
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn without_its_ledger_token_the_daemon_starts_answers_and_comes_up_when_it_comes_and_the_ledger_tells_of_it() {
    let site = Site::founded().await;
    let away = take_away(&site, Which::Ledger);
    let (daemon, client) = Spawned::new(&site).await;
    let absent = status(&client).await;
    assert_eq!(absent.state, ServiceState::ReadOnly);
    let standing = of(&absent, LEDGER_TOKEN);
    assert!(matches!(standing.circuit, TokenCircuit::Down | TokenCircuit::Trying), "{standing:?}");
    let all: wire::Tokens = client.get("/v1/hsm").await.unwrap();
    assert_eq!(all.tokens.len(), 2);
    let back = away.put_back();
    until(&client, "ready", |status| status.state == ServiceState::Ready).await;
    assert!(back.elapsed() < BACK_WITHIN, "ready after {:?}", back.elapsed());
    until(&client, "told", |_| told(&site, LEDGER_TOKEN).len() >= 2).await;
    let told = told(&site, LEDGER_TOKEN);
    assert_eq!((told[0].from, told[0].to, told[1].to), (Health::Up, Health::Down, Health::Up), "{told:?}");
    assert!(told[0].cause.as_ref().unwrap().contains("no token"), "{told:?}");
    assert!(told[0].since < told[1].since);
    site.verify_export("export");
    assert_eq!(daemon.stop(), Some(0));
}

#[tokio::test]
async fn a_key_is_locked_although_nobody_has_noticed_yet_that_the_ledger_token_is_away() {
    let site = Site::determined().await;
    site.fault(Which::Ledger, Some("C_Sign 0 stop"));
    let daemon = site.start_active().await;
    let client = daemon.client.clone();
    let away = take_away(&site, Which::Ledger);
    let lock = tokio::spawn({
        let client = client.clone();
        async move { client.post_nothing::<wire::KeyChanged>(&format!("/v1/keys/{RECOVERY_KEY}/lock")).await }
    });
    until(&client, "logged out", |status| of(status, RECOVERY_TOKEN).circuit == TokenCircuit::Idle).await;
    let begun = Instant::now();
    while daemon.workers().len() > 1 {
        assert!(begun.elapsed() < Duration::from_secs(10), "its worker is still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!lock.is_finished(), "it is answered once it is under a checkpoint");
    away.put_back();
    lock.await.unwrap().unwrap();
    assert!(is_lock_recorded(&site, "on demand"));
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
    // Whatever became of a token up to the stop stands before it, the last of it too.
    let told = told(&site, LEDGER_TOKEN);
    assert_eq!(told.last().map(|told| told.to), Some(Health::Up), "{told:?}");
}

#[tokio::test]
async fn a_refused_pin_of_the_ledger_token_is_offered_once_across_restarts_until_an_operator_says_so() {
    let site = Site::founded().await;
    change_pin(&site, LEDGER_TOKEN, "another-pin-2718");
    site.fault(Which::Ledger, Some("C_Login 0 stop"));
    let retry = format!("/v1/hsm/{LEDGER_TOKEN}/retry-login");
    for _ in 0..3 {
        let (daemon, client) = Spawned::new(&site).await;
        let locked = until(&client, "locked", |status| of(status, LEDGER_TOKEN).circuit == TokenCircuit::Locked).await;
        let what = &of(&locked, LEDGER_TOKEN).trouble.as_ref().unwrap().what;
        assert!(what.contains("CKR_PIN_INCORRECT") && what.contains("retry-login"), "{what}");
        assert_eq!((locked.state, site.calls(Which::Ledger, "C_Login")), (ServiceState::ReadOnly, 1));
        assert_eq!(daemon.stop(), Some(0));
    }
    // The operator is wrong the first time, and right the second.
    let (daemon, client) = Spawned::new(&site).await;
    let first: wire::LoginRetried = client.post_nothing(&retry).await.unwrap();
    assert!(first.entry.is_none() && first.was.contains("CKR_PIN_INCORRECT"), "{first:?}");
    until(&client, "offered again", |_| site.calls(Which::Ledger, "C_Login") == 2).await;
    until(&client, "locked again", |status| of(status, LEDGER_TOKEN).circuit == TokenCircuit::Locked).await;
    assert_eq!(daemon.stop(), Some(0));
    // A clock that was ahead then and is set since; and somebody who can write there makes up an operator's act.
    let file = site.state().join("pin-marks").read_dir().unwrap().next().unwrap().unwrap().path();
    let mut mark: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let asked = mark["asked"].as_array_mut().unwrap();
    asked[0]["retried"]["asked"] = "2099-01-01T00:00:00Z".into();
    let [mut of_nobody, mut of_another] = [asked[0].clone(), asked[0].clone()];
    of_nobody["by"]["role"] = "daemon".into();
    of_another["retried"]["token"] = RECOVERY_TOKEN.into();
    asked.extend([of_nobody, of_another]);
    fs::write(&file, serde_json::to_vec(&mark).unwrap()).unwrap();
    // Who asked is not forgotten by a restart, although the ledger cannot be told yet.
    let (daemon, client) = Spawned::new(&site).await;
    until(&client, "locked still", |status| of(status, LEDGER_TOKEN).circuit == TokenCircuit::Locked).await;
    fs::write(pin_file(&site, LEDGER_TOKEN), "another-pin-2718\n").unwrap();
    client.post_nothing::<wire::LoginRetried>(&retry).await.unwrap();
    until(&client, "ready", |status| status.state == ServiceState::Ready).await;
    assert_eq!(site.calls(Which::Ledger, "C_Login"), 3);
    let nothing = problem(client.post_nothing::<wire::LoginRetried>(&retry).await);
    assert_eq!(nothing.error, ProblemKind::Unavailable, "{nothing:?}");
    let unknown = problem(client.post_nothing::<wire::LoginRetried>("/v1/hsm/no-such/retry-login").await);
    assert_eq!(unknown.error, ProblemKind::NotFound, "{unknown:?}");

    // What could not be recorded then is recorded now.
    until(&client, "told", |_| retried(&site).len() == 2 && !told(&site, LEDGER_TOKEN).is_empty()).await;
    let ledger = site.ledger();
    let at = ledger.entries.iter().rev().find(|entry| matches!(entry.event, Event::LoginRetried(_))).unwrap().at;
    assert!(retried(&site).iter().all(|retried| retried.asked <= at && retried.was.contains("CKR_PIN_INCORRECT")));
    assert_eq!(told(&site, LEDGER_TOKEN)[0].to, Health::Locked);
    let has_marks = || site.state().join("pin-marks").read_dir().is_ok_and(|mut marks| marks.next().is_some());
    until(&client, "a good PIN leaves no mark", |_| !has_marks()).await;
    site.verify_export("export");
    assert_eq!(daemon.stop(), Some(0));
    // And none of it stands in the way of the next start.
    let (daemon, client) = Spawned::new(&site).await;
    until(&client, "ready again", |status| status.state == ServiceState::Ready).await;
    assert_eq!(retried(&site).len(), 2);
    assert_eq!(daemon.stop(), Some(0));
}

#[tokio::test]
async fn a_pin_changed_on_a_running_token_is_refused_once_and_the_key_locked_until_an_operator_put_it_right() {
    let site = Site::determined().await;
    site.fault(Which::Recovery, Some("C_Login 0 stop\nC_Sign 5 kill"));
    let daemon = site.start_active().await;
    let client = daemon.client.clone();
    change_pin(&site, RECOVERY_TOKEN, "another-pin-2718");
    // The worker dies, and its successor finds another PIN.
    let ask = ask_for(site.main(), 0..20);
    let (items, stopped) = lines_and_stop(&client, SIGN, &ask).await.unwrap();
    assert_eq!(
        (count(&items, ItemOutcome::Unknown) > 0, stopped.is_none_or(|reasons| reasons.is_empty())),
        (true, false)
    );
    let locked = until(&client, "locked", |status| of(status, RECOVERY_TOKEN).circuit == TokenCircuit::Locked).await;
    until(&client, "recorded", |_| is_lock_recorded(&site, "its token is locked")).await;
    assert!(of(&locked, RECOVERY_TOKEN).trouble.as_ref().unwrap().remedy.len() > 10);
    assert_eq!(site.calls(Which::Recovery, "C_Login"), 2);
    // No activation offers it again, nor does one after a restart.
    let refused = problem(site.activate(&client).await);
    assert!(refused.message.contains("retry-login"), "{refused:?}");
    assert!(daemon.stop().await.unwrap().success());
    let daemon = site.start().await;
    let client = daemon.client.clone();
    assert_eq!(of(&status(&client).await, RECOVERY_TOKEN).circuit, TokenCircuit::Locked);
    problem(site.activate(&client).await);
    assert_eq!(site.calls(Which::Recovery, "C_Login"), 2);

    fs::write(pin_file(&site, RECOVERY_TOKEN), "another-pin-2718\n").unwrap();
    let again: wire::LoginRetried =
        client.post_nothing(&format!("/v1/hsm/{RECOVERY_TOKEN}/retry-login")).await.unwrap();
    assert_eq!(again.token.circuit, TokenCircuit::Idle);
    let at = usize::try_from(again.entry.unwrap()).unwrap();
    assert!(
        matches!(&site.ledger().entries[at].event, Event::LoginRetried(retried) if retried.was.contains("CKR_PIN_INCORRECT"))
    );
    site.activate(&client).await.unwrap();
    let mut handed = Handed::default();
    handed.take(&site, &whole(lines(&client, "/v1/recovery/settle", &settle_all(site.main())).await));
    handed.take(&site, &whole(lines(&client, SIGN, &ask).await));
    assert_eq!(handed.len(), 20);
    site.ledger().check();
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}
