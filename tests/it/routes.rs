//! Every route to a signature, in every state but the good one, with every role, and with everything that can be wrong in a
//! request: none of them has the token asked for anything, and each refusal is recorded with its rules.

use smkid::api::client::Client;
use smkid::api::failure::{Problem, ProblemKind};
use smkid::api::routes::{Verb, routes};
use smkid::api::wire::{self, Base64, Item, ItemOutcome, RecoverySign};
use smkid::domain::determination::document::{Determination, Limits, Schedule, Type, Written};
use smkid::domain::ledger::entry::Event;
use smkid::domain::names::{DeterminationId, Purpose};
use smkid::domain::time::Window;
use smkid::exercise::lab;
use smkid::exercise::people::APPROVALS;
use smkid::exercise::policy::{LEDGER_KEY, RECOVERY_KEY, RECOVERY_TOKEN};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::support::fake_engine::FakeEngine;
use crate::support::site::{
    DEVICES, Site, Which, ask_for, ask_for_all, ask_pre_command, device, device_list, head, in_ms, incident,
    left_to_a_schedule, lines, lines_and_stop, not_execute, problem, request, settle_all, whole,
};

const SIGN: &str = "/v1/recovery/sign";
const SETTLE: &str = "/v1/recovery/settle";

/// The ways to ask for a signature under a determination.
fn asks(site: &Site, determination: DeterminationId) -> Vec<RecoverySign> {
    vec![
        ask_for_all(determination),
        ask_for(determination, [0]),
        ask_pre_command(determination, site.pre_command(0, 7_001)),
    ]
}

/// That no way leads to a signature under a determination, for those reasons at least, each recorded.
async fn check_closed(site: &Site, client: &Client, determination: DeterminationId, rules: &[&str]) {
    let settle = settle_all(determination);
    for n in 0..4 {
        let before = site.ledger();
        let answer = match asks(site, determination).get(n) {
            Some(ask) => lines(client, SIGN, ask).await,
            None => lines(client, SETTLE, &settle).await,
        };
        let problem = problem(answer);
        assert_eq!(problem.error, ProblemKind::Refused, "{problem:?}");
        let found: Vec<&str> = problem.reasons.iter().map(|reason| &*reason.rule).collect();
        for rule in rules {
            assert!(found.contains(rule), "expected {rule}, found {found:?}");
        }
        let after = site.ledger();
        assert_eq!(after.size(), before.size() + 1, "the refusal alone is recorded");
        let last = after.refusals().pop().cloned().unwrap();
        assert_eq!(problem.entry, Some(before.size()));
        assert_eq!(last.reasons, problem.reasons);
        assert_eq!(&*last.operation, if n < 3 { "recovery-sign" } else { "recovery-settle" });
        assert_eq!(last.determination, Some(determination));
    }
    check_nothing_signed(site);
}

#[track_caller]
fn check_nothing_signed(site: &Site) {
    let ledger = site.ledger();
    assert_eq!((ledger.intents().len(), ledger.outcomes().len(), ledger.released().len()), (0, 1, 0));
    assert_eq!(site.calls(Which::Recovery, "C_Sign"), 0);
}

/// A daemon whose Recovery token counts what it is asked for.
async fn counted(site: &Site) -> smkid::exercise::programs::Daemon {
    site.fault(Which::Recovery, Some("C_Sign 0 stop"));
    site.start().await
}

#[tokio::test]
async fn without_an_incident_or_a_determination_nothing_is_signed() {
    let site = Site::founded().await;
    let daemon = counted(&site).await;
    let client = &daemon.client;
    let nobodys = DeterminationId(lab::random().unwrap());
    check_closed(&site, client, nobodys, &["determination-unknown"]).await;
    // No key is opened for what nobody reported.
    assert_eq!(&*problem(site.activate(client).await).reasons[0].rule, "incident-unknown");
    check_closed(&site, client, nobodys, &["determination-unknown"]).await;
    // No determination without its incident.
    let list = device_list(0..3);
    let early = site.determination(client, 1, &list, |_| {}).await;
    let refused = problem(site.deliver(client, &early, APPROVALS, Some(&list)).await);
    assert_eq!(refused.error, ProblemKind::Refused);
    check_closed(&site, client, early.form().id, &["determination-unknown"]).await;

    site.refer(client, "INC-1", (0..3).map(device)).await;
    check_closed(&site, client, early.form().id, &["determination-unknown"]).await;
    // One approval too few, or a document that somebody changed after it was signed.
    let refused = problem(site.deliver(client, &early, APPROVALS - 1, Some(&list)).await);
    assert_eq!(refused.error, ProblemKind::Refused);
    check_closed(&site, client, early.form().id, &["determination-unknown"]).await;
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn in_every_state_but_the_good_one_nothing_is_signed() {
    let site = Site::determined().await;
    let daemon = counted(&site).await;
    let client = &daemon.client;
    // Recorded, and its key locked; locked again after it was open.
    check_closed(&site, client, site.main(), &["key-locked"]).await;
    site.activate(client).await.unwrap();
    site.lock(client).await.unwrap();
    check_closed(&site, client, site.main(), &["key-locked"]).await;
    site.activate(client).await.unwrap();

    // Negative.
    let list = device_list(0..3);
    let negative = site.determine(client, 2, &list, not_execute).await;
    check_closed(&site, client, negative.form().id, &["determination-negative"]).await;
    // A schedule outstanding.
    let later = site.determine(client, 3, &list, left_to_a_schedule).await;
    check_closed(&site, client, later.form().id, &["scope-outstanding"]).await;
    // Not yet in force.
    let early = site.determine(client, 4, &list, |form| form.window.from = in_ms(3_600_000)).await;
    check_closed(&site, client, early.form().id, &["window"]).await;
    // Expired.
    let short =
        site.determine(client, 5, &list, |form| form.window = Window { from: in_ms(0), until: in_ms(2_500) }).await;
    while in_ms(0) <= short.form().window.until {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    check_closed(&site, client, short.form().id, &["window"]).await;
    // Suspended by one member, then withdrawn by all: both are told.
    let suspended = site.determine(client, 6, &list, |_| {}).await;
    site.suspend(client, &suspended).await;
    check_closed(&site, client, suspended.form().id, &["suspended"]).await;
    site.withdraw(client, &suspended).await;
    check_closed(&site, client, suspended.form().id, &["suspended", "withdrawn"]).await;
    // Superseded.
    let old = site.determine(client, 7, &list, |_| {}).await;
    let supersede = |form: &mut Determination| {
        form.supersedes = Some(old.form().id);
        (form.incident, form.decision_number) = (old.form().incident.clone(), 2);
    };
    site.determine(client, 8, &list, supersede).await;
    check_closed(&site, client, old.form().id, &["superseded"]).await;
    // The incident is closed.
    site.withdraw(client, &site.base.main).await;
    site.close_withdrawn(client, "INC-1").await;
    check_closed(&site, client, site.main(), &["withdrawn", "incident-not-open"]).await;
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_schedule_opens_what_its_determination_left_for_later() {
    let site = Site::determined().await;
    let daemon = counted(&site).await;
    let client = &daemon.client;
    site.activate(client).await.unwrap();
    let list = device_list(600..603);
    let scope = site.determination(client, 1, &list, |_| {}).await;
    let later = site.determine(client, 2, &list, left_to_a_schedule).await;
    let (form, settled) = (later.form(), scope.form());
    let schedule = Written::write(&Schedule {
        r#type: Type::new(),
        purpose: Purpose::Exercise,
        determination: form.id,
        document: later.digest(),
        proposer: form.proposer.clone(),
        ledger: head(client).await,
        policy: form.policy,
        templates: settled.templates.clone().unwrap(),
        devices: settled.devices.unwrap(),
        limits: settled.limits.unwrap(),
    })
    .unwrap();
    problem(site.deliver(client, &schedule, APPROVALS - 1, Some(&list)).await);
    check_closed(&site, client, form.id, &["scope-outstanding"]).await;
    site.deliver(client, &schedule, APPROVALS, Some(&list)).await.unwrap();
    site.prepare(client, "INC-2").await;
    let items = whole(lines(client, SIGN, &ask_for_all(form.id)).await);
    assert!(items.len() == 3 && items.iter().all(|item| item.outcome == ItemOutcome::Signed), "{items:?}");
    // One that its incident goes by no longer gets none.
    let left = site.determine(client, 3, &list, left_to_a_schedule).await;
    let instead = |form: &mut Determination| {
        (form.supersedes, form.decision_number) = (Some(left.form().id), 2);
        form.incident = left.form().incident.clone();
    };
    site.determine(client, 3, &list, instead).await;
    let late = Schedule { determination: left.form().id, document: left.digest(), ..schedule.form().clone() };
    let late = Written::write(&Schedule { ledger: head(client).await, ..late }).unwrap();
    let refused = problem(site.deliver(client, &late, APPROVALS, Some(&list)).await);
    assert!(refused.reasons.iter().any(|reason| &*reason.rule == "followed"), "{refused:?}");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_later_policy_ends_every_determination_that_it_does_not_carry_over() {
    let site = Site::determined().await;
    let daemon = counted(&site).await;
    let client = &daemon.client;
    site.activate(client).await.unwrap();
    let carried = site.determine(client, 2, &device_list(600..603), |_| {}).await;
    let files = site.changed_policy("policy.toml", |text| text.replace("name = \"Exercise\"", "name = \"Another\""));
    let adoption = site.adoption(client, &files, vec![carried.form().id]).await;
    let deliver = async |signers, files: &_| {
        let sent = site.signed_by(&adoption, signers, Some(files));
        client.post::<_, wire::DocumentRecorded>("/v1/documents", &sent).await
    };
    // Other files than were signed, none that are a policy, too few signatures: each refused, and nothing of them kept.
    let mut garbage = files.clone();
    garbage.insert("policy.toml".to_owned(), b"version = [".to_vec());
    for (signers, files, says) in
        [(5, &site.policy_files(), "have digest"), (5, &garbage, "policy.toml"), (2, &files, "expected")]
    {
        let (before, blobs) = (site.ledger().size(), client.get::<wire::Blobs>("/v1/ledger/blobs").await.unwrap());
        let problem = problem(deliver(signers, files).await);
        assert_eq!(problem.error, ProblemKind::Refused);
        assert!(problem.message.contains(says), "expected {says:?} in {}", problem.message);
        assert_eq!(site.ledger().size(), before + 1);
        assert_eq!(client.get::<wire::Blobs>("/v1/ledger/blobs").await.unwrap(), blobs);
    }
    deliver(5, &files).await.unwrap();
    check_closed(&site, client, site.main(), &["not-carried-over"]).await;
    let items = whole(lines(client, SIGN, &ask_for_all(carried.form().id)).await);
    assert!(items.len() == 3 && items.iter().all(|item| item.outcome == ItemOutcome::Signed), "{items:?}");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_withdrawal_during_a_run_stands_before_the_next_signature_and_nothing_is_released_after_it() {
    let site = Site::determined().await;
    site.fault(Which::Recovery, Some("C_Sign * delay 3ms"));
    let daemon = site.start_active().await;
    let client = &daemon.client;
    let ask = ask_for_all(site.main());
    let running = tokio::spawn({
        let (client, ask) = (client.clone(), ask.clone());
        async move { lines_and_stop(&client, SIGN, &ask).await }
    });
    site.reach(Which::Recovery, "C_Sign", 40).await;
    site.withdraw(client, &site.base.main).await;
    let asked = site.calls(Which::Recovery, "C_Sign");
    assert!(asked < DEVICES.into());
    let (items, stopped) = running.await.unwrap().unwrap();
    assert_eq!(site.calls(Which::Recovery, "C_Sign"), asked, "the token was asked after the withdrawal was recorded");
    let ledger = site.ledger();
    ledger.check();
    assert_eq!(ledger.open(), Vec::<u64>::new());
    let events = || (0..).zip(&ledger.entries);
    let withdrawn =
        events().find(|(_, entry)| matches!(entry.event, Event::DeterminationWithdrawn(_))).map(|(at, _)| at).unwrap();
    for (at, entry) in events() {
        let opens = matches!(entry.event, Event::Intent(_) | Event::Released(_));
        assert!(!opens || at < withdrawn, "entry {at} stands after the withdrawal {withdrawn}");
    }
    let released = ledger.released();
    // Whoever asked is told of every intent, and then that nothing more comes, and why.
    let stopped = stopped.expect("the answer has a summary");
    assert!(stopped.iter().any(|reason| &*reason.rule == "withdrawn"), "{stopped:?}");
    assert_eq!(items.len(), ledger.intents().len());
    for item in items {
        assert!(item.command.is_none() || released.contains(&item.intent.unwrap()), "{item:?}");
    }
    // What was signed and not released stays where it is.
    let problem = problem(lines(client, SIGN, &ask).await);
    assert!(problem.reasons.iter().any(|reason| &*reason.rule == "withdrawn"), "{problem:?}");
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn smkictl_says_why_a_run_was_stopped_and_keeps_what_came() {
    let site = Site::determined().await;
    site.fault(Which::Recovery, Some("C_Sign * delay 3ms"));
    let daemon = site.start_active().await;
    let main = site.main().to_string();
    let (socket, out) = (site.socket.clone(), site.path("commands"));
    let running = tokio::task::spawn_blocking(move || {
        std::process::Command::new(env!("CARGO_BIN_EXE_smkictl"))
            .args(["recovery", "sign", "--determination", &main, "--devices", "all", "--out"])
            .arg(out)
            .env("SMKID_SOCKET", socket)
            .output()
            .unwrap()
    });
    site.reach(Which::Recovery, "C_Sign", 280).await;
    site.withdraw(&daemon.client, &site.base.main).await;
    let output = running.await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(said.contains("stopped before its end") && said.contains("(withdrawn)"), "{said}");
    assert_eq!(std::fs::read_dir(site.path("commands")).unwrap().count(), site.ledger().released().len());
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_stop_in_the_middle_of_a_run_is_told_and_the_answer_does_not_look_whole() {
    let site = Site::determined().await;
    site.fault(Which::Recovery, Some("C_Sign * delay 3ms"));
    let daemon = site.start_active().await;
    let (client, ask) = (daemon.client.clone(), ask_for_all(site.main()));
    let running = tokio::spawn(async move { lines_and_stop(&client, SIGN, &ask).await });
    site.reach(Which::Recovery, "C_Sign", 40).await;
    assert!(daemon.stop().await.unwrap().success());
    let (items, stopped) = running.await.unwrap().unwrap();
    assert!(items.len() < DEVICES as usize);
    let rules: Vec<String> = stopped.unwrap().iter().map(|reason| reason.rule.to_string()).collect();
    assert_eq!(rules, ["stopping"]);
}

/// The keys as the status tells them: label, whether it is active, whether there is trouble.
async fn keys(client: &Client) -> Vec<(String, bool, bool)> {
    let status: wire::Status = client.get("/v1/status").await.unwrap();
    status.keys.into_iter().map(|key| (key.key.to_string(), key.active, key.trouble.is_some())).collect()
}

fn key(label: &str, active: bool, trouble: bool) -> (String, bool, bool) {
    (label.to_owned(), active, trouble)
}

#[tokio::test]
async fn an_incident_that_ends_locks_no_key_that_is_active_for_another() {
    let site = Site::determined().await;
    let daemon = counted(&site).await;
    let client = &daemon.client;
    site.activate(client).await.unwrap();
    let second = site.determine(client, 2, &device_list(600..603), |_| {}).await;
    let is_open = async |open| {
        assert_eq!(keys(client).await, [key(LEDGER_KEY, true, false), key(RECOVERY_KEY, open, false)]);
        assert_eq!(daemon.workers().len(), 1 + usize::from(open), "the worker of a locked key goes");
    };
    // The preparation of INC-2 moved it there.
    is_open(true).await;
    site.withdraw(client, &site.base.main).await;
    is_open(true).await;
    let recorded = site.close_withdrawn(client, "INC-1").await;
    is_open(true).await;
    assert_eq!(site.ledger().size(), recorded.entry + 1);
    site.withdraw(client, &second).await;
    is_open(false).await;
    site.close_withdrawn(client, "INC-2").await;
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn the_status_tells_of_the_ledger_key_by_its_token() {
    let site = Site::founded().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    let (ledger, recovery) = (|active, trouble| key(LEDGER_KEY, active, trouble), key(RECOVERY_KEY, false, false));
    assert_eq!(keys(client).await, [ledger(true, false), recovery.clone()]);
    let [worker] = daemon.workers()[..] else { panic!("expected one worker") };
    smkid::exercise::programs::signal(worker, rustix::process::Signal::KILL).unwrap();
    let begun = std::time::Instant::now();
    while keys(client).await != [ledger(false, true), recovery.clone()] {
        assert!(begun.elapsed().as_secs() < 30, "{:?}", keys(client).await);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    // Whatever is recorded next brings it back.
    client.post::<_, wire::Recorded>("/v1/incidents", &incident(&site.base.lab)).await.unwrap();
    assert_eq!(keys(client).await, [ledger(true, false), recovery]);
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn an_activation_that_fails_is_recorded_with_its_reason() {
    let site = Site::determined().await;
    site.fault(Which::Recovery, Some("C_Login * return CKR_PIN_INCORRECT"));
    let daemon = site.start().await;
    let before = site.ledger().size();
    let told = problem(site.activate(&daemon.client).await);
    assert_eq!(told.error, ProblemKind::Unavailable, "{told:?}");
    let ledger = site.ledger();
    assert_eq!(ledger.size(), before + 1);
    let last = ledger.refusals().pop().cloned().unwrap();
    assert_eq!((&*last.operation, &*last.reasons[0].rule), ("key-activate", "token"));
    assert!(told.message.contains(&*last.reasons[0].text), "{told:?}\n{last:?}");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_head_that_cannot_be_kept_is_shown_until_it_can() {
    let site = Site::determined().await;
    site.fault(Which::Ledger, Some("C_CreateObject 1 return CKR_DEVICE_MEMORY\nC_Login 0 stop"));
    let daemon = site.start().await;
    let status: wire::Status = daemon.client.get("/v1/status").await.unwrap();
    assert!(status.problems.iter().any(|problem| problem.what.contains("head is not kept")), "{:?}", status.problems);
    // It is an error of that one call: the token signs on, and the next occasion is taken.
    let logins = site.calls(Which::Ledger, "C_Login");
    site.activate(&daemon.client).await.unwrap();
    assert_eq!(site.calls(Which::Ledger, "C_Login"), logins);
    let status: wire::Status = daemon.client.get("/v1/status").await.unwrap();
    assert_eq!(status.problems, []);
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_ledger_token_that_is_full_signs_on_and_is_asked_no_more_often_than_there_is_reason() {
    let site = Site::determined().await;
    site.fault(Which::Ledger, Some("C_CreateObject * return CKR_DEVICE_MEMORY\nC_Login 0 stop"));
    let daemon = site.start_active().await;
    let workers = daemon.workers();
    let before = site.calls(Which::Ledger, "C_CreateObject");
    for _ in 0..3 {
        let asked = ask_for(site.main(), [0]);
        assert!(!whole(lines(&daemon.client, SIGN, &asked).await).is_empty());
    }
    let status: wire::Status = daemon.client.get("/v1/status").await.unwrap();
    let full = status.problems.iter().find(|problem| problem.what.contains("head is not kept")).unwrap();
    assert!(full.what.contains("CKR_DEVICE_MEMORY") && full.remedy.contains("Make room"), "{full:?}");
    assert_eq!(daemon.workers(), workers, "its worker is the same");
    assert!(site.calls(Which::Ledger, "C_CreateObject") <= before + 3, "once after each job at most");
    assert_eq!(site.calls(Which::Ledger, "C_Login"), 1);
    assert!(daemon.stop().await.unwrap().success());
}

fn leave(determination: DeterminationId, devices: wire::Devices) -> wire::RecoverySettle {
    wire::RecoverySettle {
        action: wire::SettleAction::Leave,
        reason: "The meters were exchanged".to_owned(),
        devices,
        ..settle_all(determination)
    }
}

#[tokio::test]
async fn unknowns_are_left_by_an_operator_whom_the_policy_knows_and_by_name_or_all() {
    let site = Site::determined().await;
    site.fault(Which::Recovery, Some("C_Sign 3 stop"));
    let daemon = site.start_active().await;
    let (client, ask) = (daemon.client.clone(), ask_for(site.main(), 0..6));
    let cut = tokio::spawn(async move { lines(&client, SIGN, &ask).await });
    site.reach(Which::Recovery, "C_Sign", 3).await;
    daemon.kill().await.unwrap();
    let _ = cut.await.unwrap();

    let daemon = counted(&site).await;
    let client = &daemon.client;
    let of = format!("/v1/recovery/unknowns?determination={}", site.main());
    let unknown: wire::Unknowns = client.get(&of).await.unwrap();
    assert!(unknown.unknowns.len() == 6 && !unknown.more, "{unknown:?}");
    // By name: one that is unknown, one that nobody asked for, and one that is not on the list.
    let ask = |n| wire::DeviceAsk { device: device(n) };
    let named = leave(site.main(), wire::Devices::Listed(vec![ask(2), ask(9), ask(DEVICES)]));
    let refusals = site.ledger().refusals().len();
    let items = whole(lines(client, SETTLE, &named).await);
    let told: Vec<(_, ItemOutcome)> = items.iter().map(|item| (item.device, item.outcome)).collect();
    let refused = ItemOutcome::Refused;
    assert_eq!(told, [(device(2), ItemOutcome::Left), (device(9), refused), (device(DEVICES), refused)]);
    let ledger = site.ledger();
    assert_eq!(ledger.refusals().len(), refusals + 2);
    for (refused, item) in ledger.refusals()[refusals..].iter().zip(&items[1..]) {
        assert_eq!((&*refused.operation, refused.device), ("recovery-settle", Some(item.device)));
        assert_eq!((&*item.reasons[0].rule, &refused.reasons), ("nothing-unknown", &item.reasons));
    }
    // Made again, it is told again and recorded once.
    assert_eq!(whole(lines(client, SETTLE, &named).await)[0], items[0]);
    let settled = |ledger: &crate::support::site::Ledger| {
        ledger.entries.iter().filter(|entry| matches!(entry.event, Event::Settled(_))).count()
    };
    assert_eq!(settled(&site.ledger()), 1);

    // An operator whom the policy gives to nobody leaves nothing.
    let mut files = site.policy_files();
    let text = String::from_utf8(files["persons.toml"].clone()).unwrap();
    let lines_of: Vec<String> = text
        .lines()
        .map(
            |line| {
                if line.starts_with("accounts = ") { "accounts = [\"somebody\"]".to_owned() } else { line.to_owned() }
            },
        )
        .collect();
    let known = files.clone();
    files.insert("persons.toml".to_owned(), (lines_of.join("\n") + "\n").into_bytes());
    site.adopt(client, &files, vec![site.main()]).await;
    let told = problem(lines(client, SETTLE, &leave(site.main(), wire::Devices::All)).await);
    assert_eq!((told.error, &*told.reasons[0].rule), (ProblemKind::Refused, "asker-unknown"));
    assert_eq!(settled(&site.ledger()), 1);
    site.adopt(client, &known, vec![site.main()]).await;

    let items = whole(lines(client, SETTLE, &leave(site.main(), wire::Devices::All)).await);
    assert!(items.len() == 5 && items.iter().all(|item| item.outcome == ItemOutcome::Left), "{items:?}");
    assert_eq!(settled(&site.ledger()), 6);
    let unknown: wire::Unknowns = client.get(&of).await.unwrap();
    assert_eq!(unknown.unknowns, []);
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

/// The one refusal of a request for one command.
async fn refused_item(site: &Site, client: &Client, ask: &RecoverySign) -> (Item, Vec<String>) {
    let before = site.ledger().refusals().len();
    let mut items = whole(lines(client, SIGN, ask).await);
    assert_eq!(items.len(), 1, "{items:?}");
    let item = items.pop().unwrap();
    assert!(item.outcome == ItemOutcome::Refused && item.command.is_none() && item.intent.is_none(), "{item:?}");
    let ledger = site.ledger();
    let refusals = ledger.refusals();
    assert_eq!(refusals.len(), before + 1);
    assert_eq!(refusals[before].reasons, item.reasons);
    assert_eq!(refusals[before].device, Some(item.device));
    let rules = item.reasons.iter().map(|reason| reason.rule.to_string()).collect();
    (item, rules)
}

#[tokio::test]
async fn a_command_that_departs_from_what_was_approved_in_any_octet_is_not_signed() {
    let site = Site::determined().await;
    let daemon = counted(&site).await;
    let client = &daemon.client;
    site.activate(client).await.unwrap();
    let main = site.main();

    // A Device that is not on the list.
    let (_, rules) = refused_item(&site, client, &ask_for(main, [DEVICES])).await;
    assert_eq!(rules, ["device-out-of-scope"]);
    let (_, rules) = refused_item(&site, client, &ask_pre_command(main, site.pre_command(DEVICES, 9_000))).await;
    assert!(rules.contains(&"device-out-of-scope".to_owned()), "{rules:?}");

    // Counters: the list says that Device 0 has seen 7,000; the policy permits a step of 1,000.
    for (counter, expected) in [
        (0, "counter-too-low"),
        (7_000, "counter-too-low"),
        (8_001, "counter-too-high"),
        (u64::MAX >> 1, "counter-too-high"),
    ] {
        let (_, rules) = refused_item(&site, client, &ask_pre_command(main, site.pre_command(0, counter))).await;
        assert_eq!(rules, [expected], "{counter}");
    }

    // Another floor, another certificate: whole templates that nobody approved.
    let base = site.base;
    let floor = smkid::domain::gbcs::SeqNumber::new(1_000).unwrap();
    let (lab, after) = (&base.lab, base.lab.after());
    let templates = [
        smkid::exercise::template::with_floor(lab, &base.recovery, after, floor).unwrap(),
        smkid::exercise::template::with_certificate_swapped(lab, &base.recovery, after, 0, &lab.broker()[0]).unwrap(),
        smkid::exercise::template::template(lab, &base.recovery, lab.before()).unwrap(),
    ];
    for template in templates {
        let mut octets = Vec::new();
        template.fill(base.names.recovery_party, device(0), 7_001, &mut octets).unwrap();
        let (_, rules) = refused_item(&site, client, &ask_pre_command(main, octets)).await;
        assert_eq!(rules, ["not-the-template"]);
    }

    // Another originator.
    let mut octets = Vec::new();
    let approved = smkid::exercise::template::template(lab, &base.recovery, after).unwrap();
    let party = lab::party_of(&lab.before()[0]);
    approved.fill(party, device(0), 7_001, &mut octets).unwrap();
    let (_, rules) = refused_item(&site, client, &ask_pre_command(main, octets)).await;
    assert_eq!(rules, ["originator"]);
    check_nothing_signed(&site);

    // The good one, so that all of that was not refused for another reason.
    let items = whole(lines(client, SIGN, &ask_pre_command(main, site.pre_command(0, 8_000))).await);
    site.check_command(&items[0]);
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn one_flipped_bit_anywhere_in_a_command_is_refused_before_the_token() {
    let site = Site::determined().await;
    let daemon = counted(&site).await;
    let client = &daemon.client;
    site.activate(client).await.unwrap();
    let good = site.pre_command(0, 7_001);
    // Every octet of header and framing, and every 61st of the rest: certificates, cells, floors, the path.
    let places: Vec<usize> = (0..48).chain((48..good.len()).step_by(61)).chain([good.len() - 1]).collect();
    let refusals = site.ledger().refusals().len();
    for place in &places {
        let mut octets = good.clone();
        octets[*place] ^= 1;
        match lines(client, SIGN, &ask_pre_command(site.main(), octets)).await {
            Ok((items, _)) => {
                let is_counter = items.iter().all(|item| item.outcome == ItemOutcome::Signed);
                assert!(!is_counter, "octet {place} was signed: {items:?}");
            }
            Err(error) => {
                let problem = problem::<()>(Err(error));
                assert!(matches!(problem.error, ProblemKind::Malformed | ProblemKind::Refused), "{problem:?}");
            }
        }
    }
    // Some sixty are told one by one, the others counted.
    assert!(site.ledger().refusals().len() > refusals + 50);
    check_nothing_signed(&site);
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn limits_count_intents_and_hold_over_requests() {
    let site = Site::determined().await;
    let daemon = counted(&site).await;
    let client = &daemon.client;
    let list = device_list(600..610);
    let limit = |intents, per_hour| {
        move |form: &mut Determination| {
            form.limits = Some(Limits { intents, per_hour, retries_of_unknown: 0, retry_by_itself: false });
        }
    };
    for (number, intents, per_hour, rule) in [(2, 4, 10, "intents-spent"), (3, 10, 3, "rate")] {
        let document = site.determine(client, number, &list, limit(intents, per_hour)).await;
        let most = usize::try_from(intents.min(per_hour)).unwrap();
        let id = document.form().id;
        let mut signed = 0;
        // What the key was open for before has ended.
        site.activate_for(client, &format!("INC-{number}")).await.unwrap();
        // One by one, then all at once.
        for n in [600, 601] {
            let items = whole(lines(client, SIGN, &ask_for(id, [n])).await);
            signed += usize::from(items[0].outcome == ItemOutcome::Signed);
        }
        assert_eq!(signed, 2);
        let items = whole(lines(client, SIGN, &ask_for(id, 602..610)).await);
        let (done, refused): (Vec<&Item>, Vec<&Item>) =
            items.iter().partition(|item| item.outcome == ItemOutcome::Signed);
        assert_eq!(signed + done.len(), most);
        for item in refused {
            assert!(item.reasons.iter().any(|reason| &*reason.rule == rule), "{item:?}");
        }
        // The Devices of the next determination have seen these counters; it is another's turn.
        site.withdraw(client, &document).await;
    }
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_request_made_again_gets_the_same_octets_and_no_second_signature_and_its_id_is_for_nothing_else() {
    let site = Site::determined().await;
    let daemon = counted(&site).await;
    let client = &daemon.client;
    site.activate(client).await.unwrap();
    let ask = ask_for(site.main(), 0..5);
    let first = whole(lines(client, SIGN, &ask).await);
    assert_eq!(site.calls(Which::Recovery, "C_Sign"), 5);
    let again = whole(lines(client, SIGN, &ask).await);
    assert_eq!(first, again);
    // The same id for something else: as a whole refused.
    for other in [
        RecoverySign { request: ask.request, ..ask_for(site.main(), 0..6) },
        RecoverySign { request: ask.request, ..ask_for_all(site.main()) },
        RecoverySign { request: ask.request, ..ask_pre_command(site.main(), site.pre_command(9, 7_003)) },
    ] {
        let problem = problem(lines(client, SIGN, &other).await);
        assert_eq!(problem.reasons.iter().map(|reason| &*reason.rule).collect::<Vec<_>>(), ["request-reused"]);
    }
    // Another id for the same Devices: told by which intent they have their command.
    let items = whole(lines(client, SIGN, &ask_for(site.main(), 0..5)).await);
    assert!(items.iter().all(|item| item.reasons.iter().any(|reason| &*reason.rule == "already-signed")), "{items:?}");
    // A Device twice in one request gets one command.
    let items = whole(lines(client, SIGN, &ask_for(site.main(), [7, 7])).await);
    assert_eq!(items.iter().filter(|item| item.outcome == ItemOutcome::Signed).count(), 1, "{items:?}");
    assert_eq!(site.calls(Which::Recovery, "C_Sign"), 6);
    site.ledger().check();
    // Nothing is unknown, so there is nothing to settle.
    assert_eq!(whole(lines(client, SETTLE, &settle_all(site.main())).await), []);
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn roles_that_do_not_run_the_procedure_can_change_nothing_and_each_attempt_is_recorded() {
    for (roles, reads) in [("auditor", true), ("nobody", false)] {
        let site = Site::determined().await;
        site.configure(|text| {
            let line = text.lines().find(|line| line.starts_with("operator = [")).unwrap().to_owned();
            let own = line.replace("operator", "auditor");
            let roles = if roles == "auditor" { own } else { String::new() };
            text.replace(&line, &format!("{roles}\nroot_is_operator = false"))
        });
        let daemon = counted(&site).await;
        let client = &daemon.client;
        let mut mutating = 0;
        for route in routes::<FakeEngine>() {
            let path = route
                .path
                .replace("{incident}", "INC-1")
                .replace("{person}", "operator-1")
                .replace("{determination}", &site.main().to_string())
                .replace("{key}", RECOVERY_KEY)
                .replace("{token}", RECOVERY_TOKEN)
                .replace("{request}", &request().to_string())
                .replace("{presentation}", &request().to_string())
                .replace("{device}", &device(0).to_string())
                .replace("{index}", "0")
                .replace("{sha256}", &site.base.main.digest().to_string());
            let needs_operator = !route.permission.covers(smkid::domain::ledger::entry::Role::Account)
                && !route.permission.covers(smkid::domain::ledger::entry::Role::Auditor);
            let needs_reader = !route.permission.covers(smkid::domain::ledger::entry::Role::Account);
            let forbidden = needs_operator || (needs_reader && !reads);
            let before = site.ledger();
            let answer = match route.verb {
                Verb::Get => client.text(&path).await,
                Verb::Post => {
                    client.post::<_, serde_json::Value>(&path, &ask_for_all(site.main())).await.map(|_| String::new())
                }
                Verb::Put => {
                    client.put::<serde_json::Value>(&path, axum::body::Body::empty()).await.map(|_| String::new())
                }
            };
            if forbidden {
                let problem = problem(answer);
                assert_eq!(problem.error, ProblemKind::Forbidden, "{} {path}", route.name);
                let after = site.ledger();
                let told = after.size() - before.size();
                assert_eq!(told, u64::from(route.verb != Verb::Get), "{}: reads are not recorded", route.name);
                if route.verb != Verb::Get {
                    let last = after.refusals().pop().cloned().unwrap();
                    assert_eq!((&*last.operation, &*last.reasons[0].rule), (route.name, "role"));
                    mutating += 1;
                }
            }
        }
        assert_eq!(mutating, 20, "the calls that only an operator may make");
        check_nothing_signed(&site);
        assert!(daemon.stop().await.unwrap().success());
    }
}

/// One call that is malformed.
struct Bad<'a> {
    path: &'a str,
    body: &'a str,
    kind: ProblemKind,
    says: &'a [&'a str],
}

#[tokio::test]
async fn what_is_malformed_gets_an_error_worth_reading_and_leaves_the_refusal_alone() {
    let site = Site::determined().await;
    let daemon = counted(&site).await;
    let client = &daemon.client;
    site.activate(client).await.unwrap();
    let main = site.main();
    let id = "00112233445566778899aabbccddeeff";
    let pre_command = |octets: &[u8]| serde_json::to_string(&ask_pre_command(main, octets.to_vec())).unwrap();
    let mut signed = site.pre_command(0, 7_001);
    signed.push(0x40);
    signed.extend([0; 64]);
    let short = pre_command(&site.pre_command(0, 7_001)[..100]);
    let (garbage, empty, signed) = (pre_command(&[0xFF; 100]), pre_command(&[]), pre_command(&signed));
    let document = |document: &[u8], p7s: &[u8]| {
        let ask = wire::Document {
            document: Base64(document.to_vec()),
            signatures: vec![Base64(p7s.to_vec())],
            devices: None,
            policy_files: None,
            text: None,
        };
        serde_json::to_string(&ask).unwrap()
    };
    let garbage_document = document(b"\xFF\x00garbage", b"garbage");
    let no_type = document(b"{}", b"");
    let cut = document(&site.base.main.octets()[..500], b"");
    let bad_p7s = document(site.base.main.octets(), b"\x30\x03garbage");
    let adoption = document(br#"{"type":"smkid-policy-adoption/v1"}"#, b"");
    let misspelt = format!(r#"{{"request":"{id}","determination":"{main}","devcies":"all"}}"#);
    let both = format!(r#"{{"request":"{id}","determination":"{main}","devices":"all","pre_commands":[]}}"#);
    let neither = format!(r#"{{"request":"{id}","determination":"{main}"}}"#);
    let none = format!(r#"{{"request":"{id}","determination":"{main}","devices":[]}}"#);
    let not_a_device = format!(r#"{{"request":"{id}","determination":"{main}","devices":[{{"device":"12"}}]}}"#);
    let not_an_id = format!(r#"{{"request":"zz","determination":"{main}","devices":"all"}}"#);
    let not_base64 = format!(r#"{{"request":"{id}","determination":"{main}","pre_commands":["%%%"]}}"#);
    let (malformed, refused) = (ProblemKind::Malformed, ProblemKind::Refused);
    let cases = [
        Bad { path: SIGN, body: "", kind: malformed, says: &["body: expected JSON", "found EOF", "/v1/openapi.json"] },
        Bad { path: SIGN, body: "\u{0}\u{1}garbage", kind: malformed, says: &["body: expected JSON", "found"] },
        Bad { path: SIGN, body: "[[[[", kind: malformed, says: &["body: expected JSON"] },
        Bad { path: SIGN, body: &misspelt, kind: malformed, says: &["unknown field `devcies`"] },
        Bad { path: SIGN, body: &both, kind: malformed, says: &["exactly one of", "found both"] },
        Bad { path: SIGN, body: &neither, kind: malformed, says: &["exactly one of", "found neither"] },
        Bad { path: SIGN, body: &none, kind: malformed, says: &["the list of devices is empty"] },
        Bad { path: SIGN, body: &not_a_device, kind: malformed, says: &["16", "found"] },
        Bad { path: SIGN, body: &not_an_id, kind: malformed, says: &["32", "found"] },
        Bad { path: SIGN, body: &not_base64, kind: malformed, says: &["not base64"] },
        Bad {
            path: SIGN,
            body: &garbage,
            kind: malformed,
            says: &["pre_commands[0]: expected a GBCS pre-command", "found"],
        },
        Bad { path: SIGN, body: &empty, kind: malformed, says: &["pre_commands[0]: expected a GBCS pre-command"] },
        Bad { path: SIGN, body: &short, kind: malformed, says: &["pre_commands[0]", "smkictl gbcs show"] },
        Bad {
            path: SIGN,
            body: &signed,
            kind: malformed,
            says: &["pre_commands[0]", "a message with a signature or MAC"],
        },
        Bad { path: "/v1/documents", body: &garbage_document, kind: refused, says: &["expected", "found"] },
        Bad { path: "/v1/documents", body: &no_type, kind: refused, says: &["type"] },
        Bad { path: "/v1/documents", body: &cut, kind: refused, says: &["document"] },
        Bad { path: "/v1/documents", body: &bad_p7s, kind: refused, says: &["signature"] },
        Bad { path: "/v1/documents", body: &adoption, kind: refused, says: &["missing"] },
        Bad {
            path: "/v1/incidents",
            body: r#"{"incident":"INC-2","certificate_pem":"garbage","description":"x"}"#,
            kind: malformed,
            says: &["certificate_pem: expected one certificate in PEM"],
        },
        Bad {
            path: "/v1/incidents",
            body: r#"{"incident":"inc 2","certificate_pem":"","description":"x"}"#,
            kind: malformed,
            says: &["incident"],
        },
        Bad {
            path: "/v1/incidents/lower%20case/close",
            body: r#"{"reason":"x"}"#,
            kind: malformed,
            says: &["path: incident: expected", "found"],
        },
        Bad {
            path: "/v1/incidents/INC-9/close",
            body: r#"{"reason":"x"}"#,
            kind: ProblemKind::NotFound,
            says: &["INC-9", "not known"],
        },
    ];
    for Bad { path, body, kind, says } in cases {
        let before = site.ledger();
        let (status, problem) = post_text(&site, path, body).await;
        assert_eq!(status, kind.http_status());
        assert_eq!(problem.error, kind, "{path} {body:.80}: {problem:?}");
        for expected in says {
            assert!(
                problem.message.contains(expected),
                "{path} {body:.80}: expected {expected:?} in {:?}",
                problem.message
            );
        }
        let after = site.ledger();
        let told = after.size() - before.size();
        assert_eq!(told, u64::from(kind != ProblemKind::NotFound), "{path} {body:.80}");
        assert_eq!(after.refusals().len() - before.refusals().len(), usize::try_from(told).unwrap());
    }
    check_nothing_signed(&site);
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_malformed_device_list_is_refused_by_its_line_with_the_document_that_names_it() {
    let site = Site::determined().await;
    let daemon = counted(&site).await;
    let client = &daemon.client;
    for (list, says) in [
        ("garbage\n", "line 1"),
        ("02DE1CE000000000,other,5\n", "line 1"),
        ("02DE1CE000000001,esme,5\n02DE1CE000000000,esme,5\n", "line 2"),
        ("02DE1CE000000001,esme,5\n02DE1CE000000001,esme,5\n", "line 2"),
        ("02DE1CE000000001,esme,-1\n", "line 1"),
        ("", "device"),
    ] {
        let document = site.determination(client, 2, &device_list(0..3), |_| {}).await;
        let before = site.ledger();
        let refused = problem(site.deliver(client, &document, APPROVALS, Some(list)).await);
        assert_eq!(refused.error, ProblemKind::Refused, "{list:?}");
        assert!(refused.message.contains(says), "{list:?}: expected {says:?} in {}", refused.message);
        assert_eq!(site.ledger().size(), before.size() + 1);
    }
    check_nothing_signed(&site);
    assert!(daemon.stop().await.unwrap().success());
}

/// Posts a text as it is. Answers the status and the reason.
async fn post_text(site: &Site, path: &str, body: &str) -> (u16, Problem) {
    let mut stream = UnixStream::connect(&site.socket).await.unwrap();
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nhost: smkid\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")))
}

#[tokio::test]
async fn one_determination_is_shown_without_a_look_at_the_documents_of_others() {
    let site = Site::founded().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    let list = device_list(0..3);
    let missing = site.determine(client, 2, &list, not_execute).await;
    let there = site.determine(client, 3, &list, not_execute).await;
    let path = |document: &Written<Determination>| format!("/v1/determinations/{}", document.form().id);
    let chunk = format!("(SELECT id FROM blob WHERE digest = x'{}')", missing.digest());
    site.edit(&format!("DELETE FROM chunk WHERE id >> 24 = {chunk}"), 1);
    let shown: wire::Determination = client.get(&path(&there)).await.unwrap();
    assert_eq!(shown.determination, there.form().id);
    assert!(client.get::<wire::Determination>(&path(&missing)).await.is_err(), "its document is gone");
}
