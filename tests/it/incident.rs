//! Incidents on a live site: each step at its place and nowhere else, by the daemon's own API and by `smkictl`.

use std::fmt::Write as _;
use std::process::Command;

use smkid::api::client::{Client, ClientError};
use smkid::api::failure::ProblemKind;
use smkid::api::wire::{self, Base64, ItemOutcome, RecoverySign};
use smkid::domain::certificates::pem::certificate_to_pem;
use smkid::domain::determination::document::Determination;
use smkid::domain::incident::State;
use smkid::domain::ledger::entry::Event;
use smkid::domain::ledger::steps::{Certainty, DevicesNamed, Method, SmiStatus, Step};
use smkid::domain::names::{Digest, FileKind};
use smkid::domain::procedure::calendar::{CivilDate, shown};
use smkid::domain::time::Timestamp;
use smkid::exercise::people::APPROVALS;
use smkid::exercise::policy::RECOVERY_KEY;
use smkid::exercise::procedure::{plain, status, targets};
use smkid::wall_clock::wall_clock;

use crate::support::site::{
    DEVICES, INCIDENT, Site, Which, ask_for_all, device, device_list, incident, lines, lines_and_stop, not_execute,
    problem, whole,
};

const STEPS: &str = "/v1/incidents/INC-1/steps";
const SIGN: &str = "/v1/recovery/sign";
/// Targets of the small incidents.
const TARGETS: u32 = 3;

async fn take(client: &Client, step: &Step) -> Result<wire::Recorded, ClientError> {
    client.post(STEPS, &wire::StepAsk { step: step.clone() }).await
}

async fn whole_incident(client: &Client) -> wire::Incident {
    client.get("/v1/incidents/INC-1").await.unwrap()
}

/// A step is refused for exactly these reasons; the refusal is recorded, and nothing else has changed.
async fn refuse(site: &Site, client: &Client, step: &Step, rules: &[&str]) -> String {
    let (before, entries) = (whole_incident(client).await, site.ledger().size());
    let problem = problem(take(client, step).await);
    let mut found: Vec<&str> = problem.reasons.iter().map(|reason| &*reason.rule).collect();
    found.dedup();
    assert_eq!((problem.error, &found[..]), (ProblemKind::Refused, rules), "{step:?}: {problem:?}");
    let ledger = site.ledger();
    assert_eq!((ledger.size(), problem.entry), (entries + 1, Some(entries)), "the refusal alone is recorded");
    let last = ledger.refusals().pop().cloned().unwrap();
    assert_eq!((&*last.operation, last.incident.unwrap().as_str()), ("incident-step", INCIDENT));
    assert_eq!(last.reasons, problem.reasons);
    assert_eq!(whole_incident(client).await, before, "{step:?} changed something");
    problem.reasons.iter().map(|reason| reason.text.to_string()).collect::<Vec<_>>().join("\n")
}

fn note() -> Box<str> {
    "seen by two".into()
}

/// Every step that has a place of its own, and the states in which it may be taken.
fn placed(list: DevicesNamed, assessed: DevicesNamed, notification: Digest) -> Vec<(Step, Vec<State>)> {
    use State as S;
    let targeted = vec![
        S::Assessed,
        S::SubscriberRecovery,
        S::Referred,
        S::DeterminedNotToExecute,
        S::DeterminedToExecute,
        S::Prepared,
        S::KeyActive,
        S::Executing,
        S::Paused,
        S::Executed,
        S::PostRecovery,
        S::Withdrawn,
    ];
    let (mechanism, certainty) = ("call-back".parse().unwrap(), Certainty::Actual);
    vec![
        (Step::Confirm { mechanism, certainty, evidence: note() }, vec![S::Reported]),
        (Step::Dismiss { reason: note() }, vec![S::Reported]),
        (
            Step::Assess { method: Method::NewOrganisationCertificates, targets: assessed },
            vec![S::Confirmed, S::Assessed],
        ),
        (
            Step::Refer { notification: Some(notification), new_facts: None },
            vec![S::Assessed, S::DeterminedNotToExecute],
        ),
        (Step::SubscriberRecovery { note: note() }, vec![S::Assessed]),
        // Beyond these no key will ever bring a Device back.
        (
            status(SmiStatus::Recovery, None, wall_clock()),
            vec![S::Assessed, S::Referred, S::DeterminedToExecute, S::Prepared, S::KeyActive, S::Executing, S::Paused],
        ),
        (import(notification, 1, 0, true), targeted.clone()),
        (Step::Prepare { note: note() }, vec![S::DeterminedToExecute]),
        (Step::Pause { reason: note() }, vec![S::KeyActive, S::Executing, S::Paused]),
        (Step::Exclude { devices: list, reason: note() }, targeted),
        (Step::Finish { note: note() }, vec![S::Executing, S::Paused]),
        (Step::BeginPostRecovery { note: note() }, vec![S::Executed]),
        (
            Step::HandOver { devices: None, evidence: note() },
            vec![S::PostRecovery, S::DeterminedNotToExecute, S::Withdrawn],
        ),
        (
            Step::AcceptStranded { count: 0, overridden: None, reason: note() },
            vec![
                S::SubscriberRecovery,
                S::DeterminedNotToExecute,
                S::Executed,
                S::PostRecovery,
                S::Withdrawn,
                S::Dismissed,
            ],
        ),
    ]
}

fn import(extract: Digest, changes: u64, contradictions: u64, acknowledged: bool) -> Step {
    Step::ImportStatuses { extract, changes, contradictions, acknowledged, reason: None }
}

/// Every step is tried whose place is not here.
async fn out_of_place(site: &Site, client: &Client, steps: &[(Step, Vec<State>)], here: State) {
    let mut tried = 0;
    for (step, places) in steps {
        if places.contains(&here) {
            continue;
        }
        let entries = site.ledger().size();
        let before = whole_incident(client).await;
        let problem = problem(take(client, step).await);
        assert_eq!(problem.error, ProblemKind::Refused, "{step:?} in {here}: {problem:?}");
        let why = problem.reasons.iter().find(|reason| &*reason.rule == "incident-state");
        let why = why.unwrap_or_else(|| panic!("{step:?} in {here}: {problem:?}"));
        assert!(why.text.contains(here.as_str()), "{}", why.text);
        let ledger = site.ledger();
        assert_eq!(ledger.size(), entries + 1);
        assert_eq!(ledger.refusals().pop().unwrap().reasons, problem.reasons);
        assert_eq!(whole_incident(client).await, before, "{step:?} changed something in {here}");
        tried += 1;
    }
    assert!(tried >= 6, "only {tried} steps have no place in {here}");
}

fn smkictl(site: &Site, arguments: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_smkictl")).args(arguments).env("SMKID_SOCKET", &site.socket).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "smkictl {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// What an operator reads about the incident has all these phrases.
fn read(site: &Site, arguments: &[&str], phrases: &[&str]) {
    let text = smkictl(site, arguments);
    for phrase in phrases {
        assert!(text.contains(phrase), "smkictl {arguments:?}: expected {phrase:?} in\n{text}");
    }
}

#[tokio::test]
async fn a_step_out_of_its_place_is_refused_recorded_and_changes_nothing_and_a_negative_determination_signs_nothing() {
    let site = Site::founded().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    let carrier = site.carrier(client, INCIDENT);
    let devices: Vec<_> = (0..TARGETS).map(device).collect();
    let list = carrier.upload(&plain(&devices), devices.len()).await.unwrap();
    let assessed = carrier.upload(&targets(&devices, wall_clock()), devices.len()).await.unwrap();
    let steps = |notification| placed(list, assessed, notification);

    client.post::<_, wire::Recorded>("/v1/incidents", &incident(&site.base.lab)).await.unwrap();
    out_of_place(&site, client, &steps(Digest([1; 32])), State::Reported).await;
    read(
        &site,
        &["incident", "next", INCIDENT],
        &[
            "is reported since",
            "Confirm the Compromise",
            "smkictl incident confirm INC-1",
            "Inform",
            "smkictl incident inform INC-1 --duty tell-pma-of-compromise",
        ],
    );
    read(
        &site,
        &["procedure", "explain", "--incident", INCIDENT],
        &["INCIDENT: reported", "DUE NOW", "confirm-compromise", "Recovery Private Key may not sign"],
    );
    carrier.inform().await.unwrap();
    carrier.step(steps(Digest([1; 32]))[0].0.clone()).await.unwrap();
    carrier.inform().await.unwrap();
    out_of_place(&site, client, &steps(Digest([1; 32])), State::Confirmed).await;
    carrier.step(Step::Assess { method: Method::NewOrganisationCertificates, targets: assessed }).await.unwrap();
    out_of_place(&site, client, &steps(Digest([1; 32])), State::Assessed).await;

    // With the same incident before the SMKI PMA.
    let victim = site.base.lab.before()[0].sha256();
    let file = format!(
        "notifier,party,certificate-sha256,compromise,time,channel,class\nARO One,{},{victim},actual,{},telephone,organisation\n",
        smkid::exercise::policy::AFFECTED,
        wall_clock()
    );
    let notification = carrier.submit(FileKind::OrganisationNotification, &file).await.unwrap();
    carrier.refer(notification).await.unwrap();
    out_of_place(&site, client, &steps(notification), State::Referred).await;

    // "Not to execute" opens no key and lets nothing be signed.
    let negative = site.determination(client, 1, &device_list(0..TARGETS), not_execute).await;
    site.deliver(client, &negative, APPROVALS, None).await.unwrap();
    out_of_place(&site, client, &steps(notification), State::DeterminedNotToExecute).await;
    let early = problem(site.activate(client).await);
    assert_eq!(&*early.reasons[0].rule, "determination-negative", "{early:?}");
    assert_eq!(carrier.progress().await.unwrap().state, State::DeterminedNotToExecute);
    let refused = problem(lines(client, SIGN, &ask_for_all(negative.form().id)).await);
    let rules: Vec<&str> = refused.reasons.iter().map(|reason| &*reason.rule).collect();
    assert!(rules.contains(&"determination-negative"), "{refused:?}");
    assert!(site.ledger().intents().is_empty());

    // The status was set before the SMKI PMA determined, as the base procedure has it: the Devices are stranded.
    carrier.inform().await.unwrap();
    let closing = wire::Why { reason: "the PMA determined so".to_owned() };
    let close = async || client.post::<_, wire::Recorded>("/v1/incidents/INC-1/close", &closing).await;
    let refused = problem(close().await);
    assert_eq!(refused.reasons.iter().map(|reason| &*reason.rule).collect::<Vec<_>>(), ["stranded"]);
    read(
        &site,
        &["incident", "next", INCIDENT],
        &["determined-not-to-execute", "Report the 3 stranded Devices", "smkictl incident accept-stranded INC-1"],
    );
    read(
        &site,
        &["incident", "devices", INCIDENT],
        &["device,smi_status,since,response,left_out,under_dcc_control,handed_over,", ",Recovery,", ",yes\n"],
    );
    for wrong in [2, 4] {
        let step = Step::AcceptStranded { count: wrong, overridden: None, reason: note() };
        assert!(refuse(&site, client, &step, &["stranded"]).await.contains("expected 3"));
    }
    assert!(daemon.stop().await.unwrap().success());

    // What is known of the incident outlives a restart.
    let daemon = site.start().await;
    let client = &daemon.client;
    take(client, &Step::AcceptStranded { count: 3, overridden: None, reason: note() }).await.unwrap();
    client.post::<_, wire::Recorded>("/v1/incidents/INC-1/close", &closing).await.unwrap();
    out_of_place(&site, client, &steps(notification), State::Closed).await;
    read(&site, &["incident", "next", INCIDENT], &["is closed since", "Nothing is to be done."]);
    read(
        &site,
        &["incident", "timeline", INCIDENT],
        &[
            "Reported: ",
            "File accepted: ",
            "Determined by the SMKI PMA",
            "recovery is NOT executed",
            "Refused, a step: ",
            "Closed: the PMA",
        ],
    );
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn smi_status_and_adt_file_precede_the_referral_and_no_way_leads_back_out_of_recovery_without_proof() {
    let site = Site::founded().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    let carrier = site.carrier(client, INCIDENT);
    let devices: Vec<_> = (0..TARGETS).map(device).collect();
    let notification = carrier.assess(&devices, Method::NewOrganisationCertificates).await.unwrap();
    let refer = Step::Refer { notification: Some(notification), new_facts: None };
    let first = carrier.upload(&plain(&devices[..1]), 1).await.unwrap();
    let set = |to, devices, acknowledged, overridden: Option<&str>| {
        let Step::SetStatus { status, from, reason, .. } = status(to, devices, wall_clock()) else {
            unreachable!("it sets a status")
        };
        Step::SetStatus { status, from, devices, reason, acknowledged, overridden: overridden.map(Into::into) }
    };

    // The base procedure wants both; one Device without the status is one too few.
    let why = refuse(&site, client, &refer, &["smi-status", "adt-file"]).await;
    assert!(why.contains("3 targets have no SMI Status 'recovery'"), "{why}");
    let why = refuse(&site, client, &set(SmiStatus::Recovery, None, false, None), &["acknowledgement"]).await;
    assert!(why.contains("--acknowledge-one-way"), "{why}");
    take(client, &set(SmiStatus::Recovery, Some(first), true, None)).await.unwrap();
    let why = refuse(&site, client, &refer, &["smi-status", "adt-file"]).await;
    assert!(why.contains("2 targets have no SMI Status 'recovery'"), "{why}");
    take(client, &set(SmiStatus::Recovery, None, true, None)).await.unwrap();
    refuse(&site, client, &refer, &["adt-file"]).await;
    read(
        &site,
        &["incident", "next", INCIDENT],
        &[
            "is assessed since",
            "Submit the signed Anomaly Detection Thresholds file",
            "refer the incident to the SMKI PMA",
        ],
    );

    // The PMA has determined nothing, and no list is read to find what else there is.
    let too_early = &["incident-state"];
    refuse(&site, client, &set(SmiStatus::Recovered, Some(first), false, None), too_early).await;
    for to in [SmiStatus::Commissioned, SmiStatus::Suspended] {
        let back = refuse(&site, client, &set(to, Some(first), false, None), &["device-unfit"]).await;
        assert!(back.contains("no way leads from 'Recovery'"), "{back}");
    }
    // A list with a stranger changes nothing of the others.
    let stranger = carrier.upload(&plain(&[device(0), device(99)]), 2).await.unwrap();
    refuse(&site, client, &set(SmiStatus::Recovery, Some(stranger), true, None), &["devices"]).await;
    // Nobody says in its place that it is recovered; that it was seen to on site, somebody does by name and with a reason.
    let seen = Some("read on site by two engineers");
    refuse(&site, client, &set(SmiStatus::Recovered, Some(first), false, seen), too_early).await;
    take(client, &set(SmiStatus::Commissioned, Some(first), false, seen)).await.unwrap();
    let counts = carrier.progress().await.unwrap().devices;
    assert_eq!((counts.in_recovery, counts.overridden, counts.succeeded), (2, 1, 0));
    assert_eq!((counts.stranded, counts.overridden_out), (2, 1));
    read(&site, &["incident", "devices", INCIDENT], &[",Commissioned,", ",yes\n", ",overridden\n"]);
    read(&site, &["incident", "show", INCIDENT], &["1 out of 'recovery' without proof, if the incident ended now"]);

    // The thresholds are missing still; with them and with the status the way is free.
    take(client, &set(SmiStatus::Recovery, Some(first), true, None)).await.unwrap();
    carrier.status_and_thresholds().await.unwrap();
    take(client, &refer).await.unwrap();
    assert_eq!(carrier.progress().await.unwrap().state, State::Referred);
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn an_assessment_is_of_devices_commissioned_before_the_event_and_of_as_many_as_the_policy_permits() {
    let site = Site::founded().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    let carrier = site.carrier(client, INCIDENT);
    let devices: Vec<_> = (0..TARGETS).map(device).collect();
    carrier.assess(&devices, Method::NewOrganisationCertificates).await.unwrap();
    let assess = async |text: &str, count: usize| {
        let targets = carrier.upload(text, count).await.unwrap();
        Step::Assess { method: Method::NewOrganisationCertificates, targets }
    };
    // The Recovery Event was a moment ago: the day it fell on is right, and the day after it is not.
    let event = carrier.progress().await.unwrap().notification.recovery_event;
    let today = CivilDate::of(event).unwrap();
    let tomorrow = CivilDate::of(today.next_day_begins()).unwrap();
    let line = |n: u32, day: CivilDate| format!("{},Commissioned,{day},reads\n", device(n));
    let late = assess(&format!("{}{}", line(0, today), line(1, tomorrow)), 2).await;
    let why = refuse(&site, client, &late, &["device-unfit"]).await;
    assert!(why.contains("line 2: ") && why.contains(&format!("was commissioned on {tomorrow}, after the")), "{why}");
    take(client, &assess(&format!("{}{}", line(0, today), line(1, today)), 2).await).await.unwrap();
    // A list is as long as it was announced.
    for announced in [1, 3] {
        let wrong = assess(&format!("{}{}", line(0, today), line(1, today)), announced).await;
        let why = refuse(&site, client, &wrong, &["devices"]).await;
        assert!(why.contains(&format!("expected {announced} lines")) && why.contains("found 2"), "{why}");
    }
    let fewer = site.changed_policy("policy.toml", |text| text.replace("devices_max = 10000000", "devices_max = 1"));
    site.adopt(client, &fewer, vec![]).await;
    let many = assess(&format!("{}{}", line(0, today), line(1, today)), 2).await;
    let why = refuse(&site, client, &many, &["devices"]).await;
    assert!(why.contains("devices_max is 1, found 2"), "{why}");
    take(client, &assess(&line(0, today), 1).await).await.unwrap();
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

/// Submits an SMI Status extract. Answers its SHA-256.
async fn extract(client: &Client, lines: &[(u32, SmiStatus, Timestamp)]) -> Digest {
    let mut text = "device,status,from\n".to_owned();
    for (n, status, from) in lines {
        let _ = writeln!(text, "{},{status},{from}", device(*n));
    }
    let octets = Some(Base64(text.into_bytes()));
    let sent = wire::FileSubmit { kind: FileKind::SmiExtract, octets, staged: None, signature: None };
    client.post::<_, wire::File>("/v1/incidents/INC-1/files", &sent).await.unwrap().sha256
}

/// What `smkictl incident compare-statuses` ends with, and prints.
fn compare(site: &Site, extract: Digest) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_smkictl"))
        .args(["incident", "compare-statuses", INCIDENT, "--extract", &extract.to_string()])
        .env("SMKID_SOCKET", &site.socket)
        .output()
        .unwrap();
    let text = |octets| String::from_utf8(octets).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn an_extract_is_compared_line_by_line_recorded_through_the_gates_and_exported_again() {
    use SmiStatus::{Commissioned, Recovery, Suspended};
    let site = Site::founded().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    let carrier = site.carrier(client, INCIDENT);
    let devices: Vec<_> = (0..TARGETS).map(device).collect();
    carrier.assess(&devices, Method::NewOrganisationCertificates).await.unwrap();
    let today = CivilDate::of(wall_clock()).unwrap().begins();
    let long_ago = "2016-01-01T00:00:00Z".parse().unwrap();
    let first = extract(
        client,
        &[(0, Recovery, today), (1, Suspended, today), (2, Commissioned, long_ago), (99, Recovery, today)],
    )
    .await;
    let (status, lines, said) = compare(&site, first);
    assert_eq!(status, Some(5), "{said}");
    assert!(
        said.contains("2 changes and 1 contradictions") && said.contains("--changes 2 --contradictions 1"),
        "{said}"
    );
    for expected in [format!("2,{},Commissioned,", device(0)), format!("3,{},Commissioned,", device(1))] {
        assert!(lines.lines().any(|line| line.starts_with(&expected) && line.ends_with(",new,")), "{lines}");
    }
    let against = format!("4,{},Commissioned,", device(2));
    assert!(lines.lines().any(|line| line.starts_with(&against) && line.contains(",contradiction,")), "{lines}");
    assert!(!lines.contains(&device(99).to_string()), "{lines}");

    // What was read must be what is so; the extract is one of the incident's; and 'recovery' is a one-way door.
    for (changes, contradictions) in [(1, 1), (2, 0)] {
        refuse(&site, client, &import(first, changes, contradictions, true), &["extract"]).await;
    }
    refuse(&site, client, &import(Digest([7; 32]), 2, 1, true), &["extract"]).await;
    refuse(&site, client, &import(first, 2, 1, false), &["acknowledgement"]).await;
    take(client, &import(first, 2, 1, true)).await.unwrap();
    let counts = carrier.progress().await.unwrap().devices;
    assert_eq!((counts.targets, counts.in_recovery, counts.stranded), (3, 1, 1));
    let known = smkictl(&site, &["incident", "devices", INCIDENT]);
    for (n, status) in [(0, Recovery), (1, Suspended), (2, Commissioned)] {
        assert!(known.contains(&format!("{},{status},", device(n))), "{known}");
    }
    // Once recorded it is nothing new; and no extract leads out of 'recovery'.
    refuse(&site, client, &import(first, 0, 1, true), &["extract"]).await;
    let back = extract(client, &[(0, Commissioned, today), (1, Suspended, today)]).await;
    let (status, lines, _) = compare(&site, back);
    assert_eq!(status, Some(5), "{lines}");
    assert!(lines.contains("no way leads from 'Recovery' back to Commissioned"), "{lines}");
    refuse(&site, client, &import(back, 0, 1, true), &["extract"]).await;

    // What is exported comes back as an extract, and says nothing new.
    let out = site.path("statuses.csv");
    smkictl(&site, &["file", "export", INCIDENT, "--out", out.to_str().unwrap()]);
    let exported = std::fs::read_to_string(&out).unwrap();
    assert!(exported.starts_with("device,status,from,incident\r\n") && exported.lines().count() == 4, "{exported}");
    assert_eq!(smkictl(&site, &["file", "export", INCIDENT]), exported);
    smkictl(&site, &["file", "check", "smi-export", out.to_str().unwrap()]);
    smkictl(&site, &["file", "submit", INCIDENT, "--kind", "smi-extract", out.to_str().unwrap()]);
    let (status, lines, said) = compare(&site, Digest::of(exported.as_bytes()));
    assert_eq!((status, lines.lines().count()), (Some(0), 1), "{lines}");
    assert!(said.contains("0 changes and 0 contradictions") && !said.contains("import-statuses"), "{said}");

    read(&site, &["incident", "timeline", INCIDENT], &["SMI Statuses of 2 Devices from the Inventory's extract"]);
    let imported = |status| {
        format!("SMI Status '{status}' from {}, imported from the Inventory's extract, SHA-256 {first}", day(today))
    };
    read(&site, &history_of(0), &[&imported(Recovery), ", acknowledged as "]);
    read(&site, &history_of(1), &[&imported(Suspended)]);
    // What contradicted changed nothing of its Device, and is no part of its story.
    assert_eq!(history(&site, 2).items.len(), 1);
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
    let daemon = site.start().await;
    assert_eq!(smkictl(&site, &["incident", "devices", INCIDENT]), known, "it outlives a restart");
    assert!(daemon.stop().await.unwrap().success());
}

/// The day of London, as it is asked for.
fn day(at: Timestamp) -> String {
    CivilDate::of(at).unwrap().to_string()
}

fn history_of(n: u32) -> [&'static str; 4] {
    ["incident", "history", INCIDENT, device(n).to_string().leak()]
}

fn history(site: &Site, n: u32) -> wire::DeviceHistory {
    serde_json::from_str(&smkictl(site, &[&["--output", "json"][..], &history_of(n)].concat())).unwrap()
}

#[tokio::test]
async fn the_history_of_a_device_tells_what_was_recorded_of_it_alone_oldest_first_and_is_the_same_after_a_restart() {
    let site = Site::founded().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    let carrier = site.carrier(client, INCIDENT);
    let devices: Vec<_> = (0..TARGETS).map(device).collect();
    carrier.assess(&devices, Method::NewOrganisationCertificates).await.unwrap();
    let (first, today) = (carrier.upload(&plain(&devices[..1]), 1).await.unwrap(), wall_clock());
    let set = |status, devices, overridden: Option<&str>| Step::SetStatus {
        status,
        from: CivilDate::of(today).unwrap().begins(),
        devices,
        reason: Some("the Supplier asked".into()),
        acknowledged: true,
        overridden: overridden.map(Into::into),
    };
    let recovery = take(client, &set(SmiStatus::Recovery, None, None)).await.unwrap();
    let back = take(client, &set(SmiStatus::Commissioned, Some(first), Some("read on site"))).await.unwrap();
    let left = take(client, &Step::Exclude { devices: first, reason: "scrapped in June".into() }).await.unwrap();

    let told = history(&site, 0);
    let entries: Vec<u64> = told.items.iter().skip(1).map(|item| item.entry).collect();
    assert_eq!(entries, [recovery.entry, back.entry, left.entry], "{told:?}");
    let says = |n: usize, phrases: &[&str]| {
        let item = &told.items[n];
        assert!(phrases.iter().all(|phrase| item.what.contains(phrase)), "{phrases:?}: {item:?}");
        assert_eq!(item.profile[0].as_str(), "base");
        item.smi_status
    };
    assert_eq!(says(0, &["Assessed", "'Commissioned' since ", "evidence: "]), Some(SmiStatus::Commissioned));
    let from = format!("from {}, because the Supplier asked", day(today));
    assert_eq!(says(1, &["'Recovery'", &from, "acknowledged"]), Some(SmiStatus::Recovery));
    assert!(!told.items[1].what.contains("overridden"), "{told:?}");
    assert_eq!(says(2, &["'Commissioned'", "overridden: read on site"]), Some(SmiStatus::Commissioned));
    says(3, &["Left out: scrapped in June"]);
    // The others have their own.
    assert_eq!(history(&site, 1).items.iter().skip(1).map(|item| item.entry).collect::<Vec<_>>(), [recovery.entry]);
    let entry = format!("[entry {}, base", left.entry);
    read(&site, &history_of(0), &[&shown(told.items[3].at), &entry]);

    let unknown = client.text(&format!("/v1/incidents/{INCIDENT}/devices/{}", device(99))).await;
    let unknown = problem(unknown);
    assert_eq!(unknown.error, ProblemKind::NotFound, "{unknown:?}");
    let output = Command::new(env!("CARGO_BIN_EXE_smkictl"))
        .args(history_of(99))
        .env("SMKID_SOCKET", &site.socket)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&device(99).to_string()) && said.contains("smkictl incident devices"), "{said}");
    assert!(daemon.stop().await.unwrap().success());
    let daemon = site.start().await;
    assert_eq!(history(&site, 0), told);
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn the_pma_determines_on_what_was_referred_and_about_relevant_devices_alone() {
    let site = Site::founded().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    let carrier = site.carrier(client, INCIDENT);
    let devices: Vec<_> = (0..TARGETS).map(device).collect();
    let notification = carrier.assess(&devices, Method::NewOrganisationCertificates).await.unwrap();
    let refused = async |range: std::ops::Range<u32>, rules: &[&str]| {
        let list = device_list(range);
        let document = site.determination(client, 1, &list, |_| {}).await;
        let problem = problem(site.deliver(client, &document, APPROVALS, Some(&list)).await);
        let found: Vec<&str> = problem.reasons.iter().map(|reason| &*reason.rule).collect();
        assert_eq!(found, rules, "{problem:?}");
        assert_eq!(site.ledger().refusals().pop().unwrap().reasons, problem.reasons);
        assert!(whole_incident(client).await.determinations.is_empty());
    };
    // It was not referred.
    refused(0..TARGETS, &["incident-state"]).await;
    carrier.refer(notification).await.unwrap();
    // A list is looked at for a quorum, and for nobody else.
    let (list, nonsense) = (device_list(0..TARGETS), "no list\n");
    let document = site.determination(client, 1, &list, |_| {}).await;
    for (signers, rules) in [(APPROVALS - 1, ["quorum"]), (APPROVALS, ["devices"])] {
        let problem = problem(site.deliver(client, &document, signers, Some(nonsense)).await);
        let mut found: Vec<&str> = problem.reasons.iter().map(|reason| &*reason.rule).collect();
        found.dedup();
        assert_eq!(found, rules, "{problem:?}");
    }
    // A Device that is no target, and one that was left out.
    refused(0..TARGETS + 1, &["not-a-target"]).await;
    let scrapped = carrier.upload(&plain(&devices[2..]), 1).await.unwrap();
    take(client, &Step::Exclude { devices: scrapped, reason: "scrapped in June".into() }).await.unwrap();
    refused(0..TARGETS, &["not-a-target"]).await;
    // The others alone.
    let document = site.determine(client, 1, &device_list(0..TARGETS - 1), |_| {}).await;
    assert_eq!(whole_incident(client).await.determinations, [document.form().id]);
    assert_eq!(carrier.progress().await.unwrap().state, State::Prepared);
    // A second one has to take the first one's place.
    let list = device_list(0..1);
    let second = site.determination(client, 1, &list, |form| form.decision_number = 2).await;
    let problem = problem(site.deliver(client, &second, APPROVALS, Some(&list)).await);
    assert!(problem.reasons.iter().any(|reason| &*reason.rule == "incident-state"), "{problem:?}");
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_pause_locks_the_key_before_the_next_signature_and_the_next_activation_goes_on() {
    let site = Site::determined().await;
    site.fault(Which::Recovery, Some("C_Sign * delay 3ms"));
    let daemon = site.start_active().await;
    let client = &daemon.client;
    let ask: RecoverySign = ask_for_all(site.main());
    let running = tokio::spawn({
        let (client, ask) = (client.clone(), ask.clone());
        async move { lines_and_stop(&client, SIGN, &ask).await }
    });
    site.reach(Which::Recovery, "C_Sign", 40).await;
    let recorded = take(client, &Step::Pause { reason: "the first Responses look odd".into() }).await.unwrap();
    let asked = site.calls(Which::Recovery, "C_Sign");
    assert!(asked < DEVICES.into());
    let (items, stopped) = running.await.unwrap().unwrap();
    let stopped = stopped.expect("the answer has a summary");
    assert!(!stopped.is_empty(), "the answer does not look whole");
    assert_eq!(site.calls(Which::Recovery, "C_Sign"), asked, "the token was asked after the pause was recorded");
    let ledger = site.ledger();
    ledger.check();
    let after = &ledger.entries[usize::try_from(recorded.entry).unwrap()..];
    assert!(matches!(&after[0].event, Event::StepTaken(taken) if matches!(taken.step, Step::Pause { .. })));
    assert!(matches!(&after[1].event, Event::KeyLocked(locked) if locked.key.as_str() == RECOVERY_KEY));
    // Nothing further is intended, and what was signed before is not released while the incident is paused.
    let further: Vec<&Event> = after[2..].iter().map(|entry| &entry.event).collect();
    assert!(!further.iter().any(|event| matches!(event, Event::Intent(_) | Event::Released(_))), "{further:?}");
    let withheld = ledger.signed().len() - ledger.released().len();
    assert!(withheld > 0, "the pause came in the midst of a chunk");
    assert_eq!(items.iter().filter(|item| item.outcome == ItemOutcome::Withheld).count(), withheld);

    let carrier = site.carrier(client, INCIDENT);
    assert_eq!(carrier.progress().await.unwrap().state, State::Paused);
    read(
        &site,
        &["incident", "next", INCIDENT],
        &["is paused since", "activate the key again", "smkictl key activate"],
    );
    read(&site, &["procedure", "explain", "--incident", INCIDENT], &["INCIDENT: paused", "activate-key"]);
    let refused = problem(lines(client, SIGN, &ask).await);
    let rules: Vec<&str> = refused.reasons.iter().map(|reason| &*reason.rule).collect();
    assert_eq!(rules, ["key-locked"], "{refused:?}");
    assert!(daemon.stop().await.unwrap().success());

    site.fault(Which::Recovery, None);
    let daemon = site.start().await;
    let client = &daemon.client;
    site.activate(client).await.unwrap();
    let carrier = site.carrier(client, INCIDENT);
    assert_eq!(carrier.progress().await.unwrap().state, State::KeyActive);
    // The activation is the act by which what was withheld is released.
    let items = whole(lines(client, SIGN, &ask).await);
    assert_eq!((items.len(), site.ledger().signed().len()), (DEVICES as usize, DEVICES as usize));
    assert!(items.iter().all(|item| item.outcome == ItemOutcome::Signed));
    site.ledger().check();
    assert_eq!(carrier.progress().await.unwrap().state, State::Executing);
    read(&site, &["incident", "next", INCIDENT], &["is executing since", "targets are outstanding", "Responses"]);
    let outstanding = refuse(&site, client, &Step::Finish { note: note() }, &["outstanding"]).await;
    assert!(outstanding.contains("are outstanding"), "{outstanding}");
    read(
        &site,
        &["incident", "timeline", INCIDENT],
        &["commands were intended", "Paused", "the first Responses look odd", "Refused, a step: "],
    );
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn an_incident_without_a_single_recovered_device_goes_through_its_states_to_the_end_and_leaves_all_stranded() {
    let site = Site::founded().await;
    // Every step is tried in every state.
    site.configure(|text| text.replace("reserve_octets = ", "refusals_per_minute = 6000\nreserve_octets = "));
    let daemon = site.start().await;
    let client = &daemon.client;
    let carrier = site.carrier(client, INCIDENT);
    let devices: Vec<_> = (0..TARGETS).map(device).collect();
    let notification = carrier.assess(&devices, Method::NewOrganisationCertificates).await.unwrap();
    carrier.refer(notification).await.unwrap();
    let all = carrier.upload(&plain(&devices), devices.len()).await.unwrap();
    let assessed = carrier.upload(&targets(&devices, wall_clock()), devices.len()).await.unwrap();
    let steps = placed(all, assessed, notification);
    let stands = async |state: State, phrases: &[&str]| {
        assert_eq!(carrier.progress().await.unwrap().state, state);
        out_of_place(&site, client, &steps, state).await;
        read(&site, &["incident", "next", INCIDENT], &[&[state.as_str()], phrases].concat());
    };

    stands(State::Referred, &["SMKI PMA", "smkictl determination draft"]).await;
    let list = device_list(0..TARGETS);
    let document = site.determination(client, 1, &list, |_| {}).await;
    site.deliver(client, &document, APPROVALS, Some(&list)).await.unwrap();
    stands(State::DeterminedToExecute, &["everything is prepared"]).await;
    // A key is not activated before its place in the procedure.
    let ask = ask_for_all(document.form().id);
    let refused = problem(site.activate(client).await);
    assert_eq!(refused.reasons.iter().map(|reason| &*reason.rule).collect::<Vec<_>>(), ["not-prepared"]);
    assert_eq!(carrier.progress().await.unwrap().state, State::DeterminedToExecute);
    carrier.prepare().await.unwrap();
    stands(State::Prepared, &["Key Custodians", "smkictl key activate"]).await;
    site.activate(client).await.unwrap();
    stands(State::KeyActive, &["Sign the recovery commands"]).await;
    let items = whole(lines(client, SIGN, &ask).await);
    assert_eq!(items.len(), devices.len());
    stands(State::Executing, &["3 targets are outstanding", "smkictl recovery responses"]).await;
    // What became of commands stands with their determination, where the Devices stand with the incident; who may still be recovered
    // is not stranded.
    let signed = format!(",{},signed,3", document.form().id);
    let progress = ["file", "progress", INCIDENT];
    read(&site, &progress, &[&signed, "new-organisation-certificates", ",,recovery,3", ",,left-out,0", ",,stranded,0"]);
    take(client, &Step::Exclude { devices: all, reason: "none of them answered".into() }).await.unwrap();
    read(&site, &["incident", "next", INCIDENT], &["Record that every target came to an end"]);
    take(client, &Step::Pause { reason: note() }).await.unwrap();
    stands(State::Paused, &["smkictl incident finish INC-1"]).await;
    take(client, &Step::Finish { note: note() }).await.unwrap();
    stands(State::Executed, &["Submit that file, signed", "Then begin Post-Recovery"]).await;
    refuse(&site, client, &Step::BeginPostRecovery { note: note() }, &["progress-file"]).await;
    carrier.report().await.unwrap();
    take(client, &Step::BeginPostRecovery { note: note() }).await.unwrap();
    read(&site, &progress, &[&signed, ",,succeeded,0", ",,left-out,3", ",,stranded,3"]);
    // Only Method 2 hands Devices over.
    refuse(&site, client, &Step::HandOver { devices: None, evidence: note() }, &["method"]).await;
    stands(State::PostRecovery, &["smkictl incident accept-stranded INC-1 --count 3 ", "smkictl incident close INC-1"])
        .await;

    // Nobody was told, and all are stranded.
    let refused = problem(
        client.post::<_, wire::Recorded>("/v1/incidents/INC-1/close", &wire::Why { reason: "over".to_owned() }).await,
    );
    let rules: Vec<&str> = refused.reasons.iter().map(|reason| &*reason.rule).collect();
    assert_eq!(rules, ["open-duty", "stranded"]);
    carrier.inform().await.unwrap();
    take(client, &Step::AcceptStranded { count: TARGETS.into(), overridden: None, reason: "by the SMKI PMA".into() })
        .await
        .unwrap();
    read(&site, &["determination", "list"], &[", in force, "]);
    carrier.close("over").await.unwrap();
    read(
        &site,
        &["incident", "timeline", INCIDENT],
        &[
            "recovery is executed by Method 3",
            "for 3 Devices, from ",
            " activated for this incident",
            " locked, nothing is signed until it is activated again",
            "3 commands were intended: 3 signed",
            "3 Devices left out",
            "3 stranded Devices accepted",
        ],
    );
    read(
        &site,
        &history_of(0),
        &["Left out: ", "Accepted as stranded: by the SMKI PMA", "Stranded when the incident was closed: over"],
    );
    // Its window is not over, and nothing can be signed under it any more.
    read(&site, &["determination", "list"], &[", over: its incident is closed, "]);
    let status: wire::Status = client.get("/v1/status").await.unwrap();
    assert_eq!((status.incidents_open, status.determinations_in_force), (0, 0));
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn an_incident_that_is_assessed_again_keeps_what_was_recorded_of_its_devices_and_drops_none_of_them() {
    let site = Site::founded().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    let carrier = site.carrier(client, INCIDENT);
    let all: Vec<_> = (0..=TARGETS).map(device).collect();
    carrier.assess(&all[..3], Method::NewOrganisationCertificates).await.unwrap();
    let first = carrier.upload(&plain(&all[..1]), 1).await.unwrap();
    take(client, &status(SmiStatus::Recovery, Some(first), wall_clock())).await.unwrap();
    let assess = async |devices: &[smkid::domain::names::DeviceId]| {
        let targets = carrier.upload(&targets(devices, wall_clock()), devices.len()).await.unwrap();
        Step::Assess { method: Method::NewOrganisationCertificates, targets }
    };
    let without_first = assess(&all[1..]).await;
    let why = refuse(&site, client, &without_first, &["device-unfit"]).await;
    assert!(why.contains(&format!("Device {} is missing", all[0])), "{why}");
    // One that nothing was recorded of may go, another may come; the first is as it was.
    take(client, &assess(&[all[0], all[1], all[3]]).await).await.unwrap();
    let counts = carrier.progress().await.unwrap().devices;
    assert_eq!((counts.targets, counts.in_recovery), (3, 1));
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
    let daemon = site.start().await;
    let counts = site.carrier(&daemon.client, INCIDENT).progress().await.unwrap().devices;
    assert_eq!((counts.targets, counts.in_recovery), (3, 1));
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_determination_that_supersedes_begins_again_at_its_preparation_and_the_old_one_signs_nothing_more() {
    let site = Site::determined().await;
    let daemon = site.start_active().await;
    let client = &daemon.client;
    let carrier = site.carrier(client, INCIDENT);
    let (main, sign) = (site.main(), |id, n| crate::support::site::ask_for(id, [n]));
    assert_eq!(whole(lines(client, SIGN, &sign(main, 0)).await).len(), 1);
    assert_eq!(carrier.progress().await.unwrap().state, State::Executing);
    let list = device_list(1..4);
    let superseding = |form: &mut Determination| {
        form.supersedes = Some(main);
        form.decision_number = 2;
    };
    let second = site.determination(client, 2, &list, superseding).await;
    site.deliver(client, &second, APPROVALS, Some(&list)).await.unwrap();
    let second = second.form().id;
    assert_eq!(carrier.progress().await.unwrap().state, State::DeterminedToExecute);
    let rules = async |id| {
        let refused = problem(lines(client, SIGN, &sign(id, 2)).await);
        refused.reasons.into_iter().map(|reason| reason.rule.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(rules(main).await, ["superseded", "key-locked"]);
    assert_eq!(rules(second).await, ["key-locked"], "the key was activated for what was superseded");
    carrier.prepare().await.unwrap();
    assert_eq!(rules(second).await, ["key-locked"]);
    site.activate(client).await.unwrap();
    assert_eq!(rules(main).await, ["superseded"]);
    assert_eq!(whole(lines(client, SIGN, &sign(second, 2)).await).len(), 1);
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn no_incident_is_opened_about_a_key_of_which_another_is_open_and_one_may_be_once_that_is_closed() {
    let site = Site::founded().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    let first = incident(&site.base.lab);
    client.post::<_, wire::Recorded>("/v1/incidents", &first).await.unwrap();
    let mut again = first.clone();
    again.incident = "INC-AGAIN".parse().unwrap();
    let refuse = async || {
        let refused = site.refused(client, "/v1/incidents", &again).await;
        assert_eq!(refused.reasons.len(), 1, "{refused:?}");
        assert_eq!(&*refused.reasons[0].rule, "compromised-known");
        assert!(refused.reasons[0].text.contains(&format!("incident {INCIDENT} is open about")), "{refused:?}");
    };
    refuse().await;
    // Another key is another matter.
    let other = "INC-OTHER".parse().unwrap();
    let certificate_pem = certificate_to_pem(site.base.lab.victim(&other).unwrap().octets());
    let elsewhere = wire::IncidentOpen { incident: other, certificate_pem, ..first.clone() };
    client.post::<_, wire::Recorded>("/v1/incidents", &elsewhere).await.unwrap();
    // Dismissed is not closed yet: somebody is still to be told.
    let carrier = site.carrier(client, INCIDENT);
    carrier.inform().await.unwrap();
    carrier.step(Step::Dismiss { reason: note() }).await.unwrap();
    refuse().await;
    carrier.inform().await.unwrap();
    let why = wire::Why { reason: "it was none".to_owned() };
    client.post::<_, wire::Recorded>(&format!("/v1/incidents/{INCIDENT}/close"), &why).await.unwrap();
    client.post::<_, wire::Recorded>("/v1/incidents", &again).await.unwrap();
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_device_in_recovery_in_one_incident_is_so_in_another_that_lists_it_and_its_history_says_since_when() {
    let site = Site::founded().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    let all: Vec<_> = (0..2).map(device).collect();
    let carrier = site.carrier(client, INCIDENT);
    carrier.assess(&all, Method::NewOrganisationCertificates).await.unwrap();
    let first = carrier.upload(&plain(&all[..1]), 1).await.unwrap();
    take(client, &status(SmiStatus::Recovery, Some(first), wall_clock())).await.unwrap();
    // About another key, and the same Devices.
    site.carrier(client, "INC-OTHER").find(&all, Method::NewOrganisationCertificates).await.unwrap();
    let (one, two) = (all[0].to_string(), all[1].to_string());
    let check = || {
        read(
            &site,
            &["incident", "devices", "INC-OTHER"],
            &[&format!("{one},Recovery,"), &format!("{two},Commissioned,")],
        );
        let story = ["incident", "timeline", "INC-OTHER"];
        read(
            &site,
            &story,
            &["2 Relevant Devices", "; 1 Device in 'recovery', or 'recovered' under the DCC's control"],
        );
        read(&site, &["incident", "history", "INC-OTHER", &one], &["; it stays 'Recovery' since "]);
        let second = smkictl(&site, &["incident", "history", "INC-OTHER", &two]);
        assert!(second.contains("Assessed, ") && !second.contains("it stays"), "{second}");
    };
    check();
    assert!(daemon.stop().await.unwrap().success());
    let daemon = site.start().await;
    check();
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}
