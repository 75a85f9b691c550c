//! The procedure's files on a live site: who may sign which, what is refused and that it is recorded, and what people did.

use std::process::Command;

use serde_json::{Value, json};
use smkid::api::client::{Client, ClientError};
use smkid::api::failure::ProblemKind;
use smkid::api::wire::{self, Base64, Did};
use smkid::domain::determination::document::{Withdrawal, Written};
use smkid::domain::files::{Layout, Progress};
use smkid::domain::ledger::steps::{CompromiseClass, Method, Step};
use smkid::domain::names::{DeterminationId, Digest, FileKind};
use smkid::exercise::documents;
use smkid::exercise::lab::party_of;
use smkid::exercise::people::{APPROVALS, Credential, People};
use smkid::exercise::policy::{AFFECTED, RECOVERY_KEY};
use smkid::exercise::procedure::targets;
use smkid::wall_clock::wall_clock;

use crate::support::site::{
    DEVICES, Site, Which, ask_for_all, device, device_list, head, incident_of, lines_and_stop, problem, rules,
};

const FILES: &str = "/v1/incidents/INC-1/files";

fn signed(octets: &[u8], by: &Credential) -> Base64 {
    Base64(documents::sign(octets, by, wall_clock()).unwrap())
}

async fn submit(
    client: &Client,
    kind: FileKind,
    octets: &str,
    signature: Option<Base64>,
) -> Result<wire::File, ClientError> {
    let octets = Some(Base64(octets.as_bytes().to_vec()));
    client.post(FILES, &wire::FileSubmit { kind, octets, staged: None, signature }).await
}

/// A notification about the incident's certificate.
fn notification(site: &Site) -> String {
    let certificate = site.base.lab.before()[0].sha256();
    format!(
        "notifier,party,certificate-sha256,compromise,time,channel,class\n\
         A. Officer,{AFFECTED},{certificate},suspected,2017-07-21T02:10:00Z,telephone,organisation\n"
    )
}

fn adt(user: &str) -> String {
    format!("smsr,user-id,service-request,period-minutes,warning,quarantine\nSMSR-1,{user},6.15.1,1440,9,10\n")
}

const EXTRACT: &str = "device,status,from\n02DE1CE000000000,Commissioned,2016-01-01T00:00:00Z\n";

/// Whatever may not be taken in is refused by its rules and recorded, and nothing of it is kept.
async fn check_refused(site: &Site, client: &Client, user: &str) {
    let [ours, others, revoked, ceased] = [0, 1, 2, 3].map(|n| &site.base.people.officers[n].first);
    let member = &site.base.people.members[0].first;
    let stranger = People::new(wall_clock()).unwrap();
    let stranger = &stranger.officers[0].first;
    let refuse = async |kind, octets: &str, signature: Option<Base64>, rules: &[&str]| {
        let (before, blobs) = (site.ledger().size(), client.get::<wire::Blobs>("/v1/ledger/blobs").await.unwrap());
        let problem = problem(submit(client, kind, octets, signature).await);
        let found: Vec<&str> = problem.reasons.iter().map(|reason| &*reason.rule).collect();
        assert_eq!((problem.error, &found[..]), (ProblemKind::Refused, rules), "{problem:?}");
        let ledger = site.ledger();
        assert_eq!((ledger.size(), problem.entry), (before + 1, Some(before)), "the refusal alone is recorded");
        let last = ledger.refusals().pop().cloned().unwrap();
        assert_eq!((&*last.operation, last.incident.unwrap().as_str()), ("file-submit", "INC-1"));
        assert_eq!(last.asked, Digest::of(octets.as_bytes()));
        assert_eq!(client.get::<wire::Blobs>("/v1/ledger/blobs").await.unwrap(), blobs, "nothing is kept");
        problem.message
    };
    let notify = FileKind::OrganisationNotification;
    let by = |text: &str, who: &Credential| Some(signed(text.as_bytes(), who));
    // Who signed.
    let right = &notification(site);
    refuse(notify, right, None, &["signature"]).await;
    refuse(notify, right, Some(Base64(vec![0x30, 0])), &["signature"]).await;
    refuse(notify, &right.replace("02:10", "03:10"), by(right, ours), &["signature"]).await;
    refuse(notify, right, by(right, stranger), &["signer"]).await;
    refuse(notify, right, by(right, member), &["signer-role"]).await;
    refuse(notify, right, by(right, revoked), &["signer-credential"]).await;
    refuse(notify, right, by(right, ceased), &["signer-ceased"]).await;
    refuse(notify, right, by(right, others), &["signer-party"]).await;
    // Who may not submit a file has nothing read of it.
    let unreadable = "\u{feff}no table";
    refuse(notify, unreadable, by(unreadable, others), &["signer-party"]).await;
    refuse(notify, unreadable, None, &["signature"]).await;
    let thresholds = &adt(user);
    refuse(FileKind::Adt, thresholds, by(thresholds, others), &["signer-party"]).await;
    refuse(FileKind::SmiExtract, EXTRACT, by(EXTRACT, ours), &["signature"]).await;
    // What kind it is.
    refuse(FileKind::OtherNotification, right, by(right, ours), &["file-kind"]).await;
    refuse(FileKind::OtherProgress, right, by(right, ours), &["file-kind"]).await;
    refuse(FileKind::SmiExport, EXTRACT, None, &["file-kind"]).await;
    // What it says.
    let certificate = &right.replace(&site.base.lab.before()[0].sha256().to_string(), &"00".repeat(32));
    refuse(notify, certificate, by(certificate, ours), &["file-certificate"]).await;
    let party = &right.replace(AFFECTED, "supplier-b");
    refuse(notify, party, by(party, ours), &["file-party"]).await;
    let other_user = &adt("02DB1234567890B0");
    refuse(FileKind::Adt, other_user, by(other_user, ours), &["file-user"]).await;
    let broken = &right.replace("suspected", "perhaps");
    let said = refuse(notify, broken, by(broken, ours), &["file"]).await;
    assert!(said.contains("line 2, column 4 (compromise): expected actual or suspected"), "{said}");
}

#[tokio::test]
async fn a_file_is_taken_in_from_an_aro_of_the_affected_subscriber_and_from_nobody_else() {
    let site = Site::founded().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    site.carrier(client, "INC-1").find(&[device(0)], Method::NewOrganisationCertificates).await.unwrap();
    let user = party_of(&site.base.lab.before()[0]).to_string();
    check_refused(&site, client, &user).await;

    let ours = &site.base.people.officers[0].first;
    let (right, thresholds) = (notification(&site), adt(&user));
    let (notify, thresholds_of) = (FileKind::OrganisationNotification, FileKind::Adt);
    // And what is right, by each way.
    let accepted = submit(client, notify, &right, Some(signed(right.as_bytes(), ours))).await.unwrap();
    assert_eq!(
        (accepted.rows, accepted.signer.unwrap().as_str(), accepted.party.unwrap().as_str()),
        (1, "aro-1", AFFECTED)
    );
    let accepted = submit(client, thresholds_of, &thresholds, Some(signed(thresholds.as_bytes(), ours))).await.unwrap();
    assert_eq!(accepted.smsr.unwrap().as_str(), "SMSR-1");
    let made = smkictl(&site, &["file", "progress", "INC-1"]);
    let progress = Progress::read(&Layout::standard(FileKind::OrganisationProgress), made.as_bytes()).unwrap();
    let states: Vec<_> = progress.counts.iter().map(|of| (of.determination, of.devices)).collect();
    assert!(states.iter().all(|of| *of == (None, 0)), "nothing was assessed or determined: {made}");
    assert_eq!((progress.incident.as_str(), progress.class), ("INC-1", CompromiseClass::Organisation));
    submit(client, FileKind::OrganisationProgress, &made, Some(signed(made.as_bytes(), ours))).await.unwrap();
    let stored: wire::Stored = client.put("/v1/uploads/devices", EXTRACT.to_owned().into()).await.unwrap();
    let staged = Some(stored.sha256);
    let extract = wire::FileSubmit { kind: FileKind::SmiExtract, octets: None, staged, signature: None };
    let extract: wire::File = client.post(FILES, &extract).await.unwrap();
    assert_eq!((extract.rows, extract.signer, extract.sha256), (1, None, stored.sha256));
    // Once is enough.
    let again = problem(submit(client, notify, &right, Some(signed(right.as_bytes(), ours))).await);
    assert_eq!(&*again.reasons[0].rule, "file-known");
    // Nor does it say anything in another incident, whoever sends it again.
    let other = incident_of(&site.base.lab, "INC-2");
    client.post::<_, wire::Recorded>("/v1/incidents", &other).await.unwrap();
    let octets = Some(Base64(right.as_bytes().to_vec()));
    let replay =
        wire::FileSubmit { kind: notify, octets, staged: None, signature: Some(signed(right.as_bytes(), ours)) };
    let replayed = problem(client.post::<_, wire::File>("/v1/incidents/INC-2/files", &replay).await);
    assert_eq!(&*replayed.reasons[0].rule, "file-known");
    assert!(replayed.message.contains("was taken in for incident INC-1"), "{}", replayed.message);
    let all: wire::Files = client.get(FILES).await.unwrap();
    let kinds: Vec<FileKind> = all.files.iter().map(|file| file.kind).collect();
    assert_eq!(kinds, [notify, thresholds_of, FileKind::OrganisationProgress, FileKind::SmiExtract]);

    people_did(&site, client, all.files.len() - 1).await;
    exercises(&site, client).await;
    // The Subscriber recovers with its own key, and it is over.
    let carrier = site.carrier(client, "INC-1");
    let targets = carrier.upload(&targets(&[device(0)], wall_clock()), 1).await.unwrap();
    carrier.step(Step::Assess { method: Method::SubscriberKey, targets }).await.unwrap();
    carrier.step(Step::SubscriberRecovery { note: "SRV 6.15.1 by the Supplier".into() }).await.unwrap();
    carrier.inform().await.unwrap();
    let why = wire::Why { reason: "over".to_owned() };
    client.post::<_, wire::Recorded>("/v1/incidents/INC-1/close", &why).await.unwrap();
    let late = adt(&user).replace("SMSR-1", "SMSR-2");
    let closed = problem(submit(client, thresholds_of, &late, Some(signed(late.as_bytes(), ours))).await);
    assert_eq!(&*closed.reasons[0].rule, "incident-closed");
    // An outsider comes to the same, and so does the next start.
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
    let daemon = site.start().await;
    assert_eq!(daemon.client.get::<wire::Files>(FILES).await.unwrap(), all);
    assert!(daemon.stop().await.unwrap().success());
}

fn smkictl(site: &Site, arguments: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_smkictl")).args(arguments).env("SMKID_SOCKET", &site.socket).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "smkictl {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a person signed or asked for is told, and nothing else.
async fn people_did(site: &Site, client: &Client, signed: usize) {
    let of = async |person: &str, query: &str| {
        client.get::<wire::Activity>(&format!("/v1/people/{person}/activity{query}")).await
    };
    let officer = of("aro-1", "").await.unwrap();
    assert_eq!(officer.acts.len(), signed);
    assert!(officer.acts.iter().all(|act| act.did == Did::Signed && act.kind == "file-accepted"));
    assert!(of("aro-2", "").await.unwrap().acts.is_empty());
    let operator = of("operator-1", "").await.unwrap();
    assert!(operator.acts.iter().any(|act| act.kind == "incident-opened" && act.did == Did::Asked));
    assert!(of("member-1", "").await.unwrap().acts.iter().any(|act| act.kind == "policy-adopted"));
    assert_eq!(problem(of("nobody", "").await).error, ProblemKind::NotFound);
    // Each edge of the time, and of the index.
    let (first, last) = (&officer.acts[0], officer.acts.last().unwrap());
    assert_eq!(of("aro-1", &format!("?since={}", last.at.plus_ms(1))).await.unwrap().acts.len(), 0);
    assert_eq!(of("aro-1", &format!("?until={}", first.at)).await.unwrap().acts.len(), 0);
    assert_eq!(of("aro-1", &format!("?since={}", first.at)).await.unwrap().acts.len(), signed);
    assert_eq!(of("aro-1", &format!("?until={}", last.at.plus_ms(1))).await.unwrap().acts.len(), signed);
    assert_eq!(of("aro-1", &format!("?from={}", first.index + 1)).await.unwrap().acts.len(), signed - 1);

    let csv = smkictl(site, &["people", "activity", "--party", AFFECTED, "--csv"]);
    assert_eq!(
        csv.lines().filter(|line| line.starts_with("aro-1,") && line.contains(",signed,file-accepted,")).count(),
        signed
    );
    assert!(csv.starts_with("person,entry,time,did,kind,event\r\n") && csv.contains("\r\nmember-1,"), "{csv}");
    let text = smkictl(site, &["people", "activity", "aro-2"]);
    assert!(text.contains("signed nothing"), "{text}");
    let roster = smkictl(site, &["people", "list", "--role", "aro", "--at", &wall_clock().to_string()]);
    assert!(roster.contains("aro-1") && roster.contains("revoked from") && !roster.contains("aro-4"), "{roster}");
    assert!(roster.contains("BS 7858:2019") && !roster.contains("member-1"), "{roster}");
}

/// An exercise is recorded by the digest of its summary, and not before it took place.
async fn exercises(site: &Site, client: &Client) {
    let summary = site.path("summary.json");
    std::fs::write(&summary, "{\"passed\":true}").unwrap();
    let said = smkictl(site, &["exercise", "record", "--summary", summary.to_str().unwrap(), "--note", "yearly"]);
    assert!(said.contains("recorded"), "{said}");
    let (at, report) = (wall_clock().plus_ms(3_600_000), Digest::of(b"x"));
    let early = wire::ExerciseRecord { at, report, note: "tomorrow's".to_owned() };
    let refused = problem(client.post::<_, wire::Recorded>("/v1/exercises", &early).await);
    assert_eq!(&*refused.reasons[0].rule, "exercise-time");
    // A ledger that has just begun reminds of nothing.
    assert!(client.get::<wire::Status>("/v1/status").await.unwrap().reminders.is_empty());
}

/// Another policy comes into force, in which the operator's account is this person's, or nobody's.
async fn give_account(site: &Site, client: &Client, to: Option<&str>, carries_over: Vec<DeterminationId>) {
    let files = site.changed_policy("persons.toml", |text| {
        let account = text.lines().find(|line| line.starts_with("accounts = ")).unwrap().to_owned();
        let text = text.replace(&account, "accounts = [\"somebody-else\"]");
        let blocks = text.split("\n[[person]]\n").map(|block| match to {
            Some(to) if block.starts_with(&format!("id = \"{to}\"\n")) => {
                let (before, roles) = block.split_once("roles = [").unwrap();
                let (_, after) = roles.split_once("]\n").unwrap();
                format!("{before}roles = [\"operator\"]\n{account}\n{after}")
            }
            Some(_) | None => block.to_owned(),
        });
        blocks.collect::<Vec<_>>().join("\n[[person]]\n")
    });
    site.adopt(client, &files, carries_over).await;
}

#[tokio::test]
async fn a_run_ends_where_the_account_that_asked_becomes_another_persons_and_the_ledger_goes_on() {
    for to in [None, Some("aro-2")] {
        let site = Site::determined().await;
        site.fault(Which::Recovery, Some("C_Sign * delay 3ms"));
        let daemon = site.start_active().await;
        let client = &daemon.client;
        let (asker, ask) = (client.clone(), ask_for_all(site.main()));
        let running = tokio::spawn(async move { lines_and_stop(&asker, "/v1/recovery/sign", &ask).await });
        site.reach(Which::Recovery, "C_Sign", 40).await;
        give_account(&site, client, to, vec![site.main()]).await;
        let (items, stopped) = running.await.unwrap().unwrap();
        let rules: Vec<String> = stopped.unwrap().iter().map(|reason| reason.rule.to_string()).collect();
        assert_eq!(rules, ["asker-changed"], "{to:?}");
        let released = site.ledger().released();
        assert!(items.iter().all(|item| item.command.is_none() || released.contains(&item.intent.unwrap())));
        assert!(items.len() < DEVICES as usize);
        site.verify_export("export");
        assert!(daemon.stop().await.unwrap().success());
        // The next start permits what was recorded.
        assert!(site.start().await.stop().await.unwrap().success());
    }
}

/// Everything that an operator asks for in an incident, by path.
async fn asks_of_an_operator(client: &Client, main: DeterminationId) -> Vec<(String, Value)> {
    let stored: wire::Stored = client.put("/v1/uploads", "df00\n".to_owned().into()).await.unwrap();
    let certificates: wire::Stored = client.put("/v1/uploads", "\n".to_owned().into()).await.unwrap();
    let (list, certificates) = (stored.sha256, certificates.sha256);
    let exclude = json!({ "exclude": { "devices": { "list": list, "count": 1 }, "reason": "r" } });
    let extract = Base64(EXTRACT.as_bytes().to_vec());
    let request = "00112233445566778899aabbccddeeff";
    let settle =
        json!({ "request": request, "determination": main, "devices": "all", "action": "leave", "reason": "r" });
    [
        ("/v1/incidents/INC-1/steps", json!({ "step": exclude })),
        ("/v1/incidents/INC-1/close", json!({ "reason": "over" })),
        (FILES, json!({ "kind": "smi-extract", "octets": extract })),
        ("/v1/recovery/responses", json!({ "determination": main, "responses": list, "certificates": certificates })),
        ("/v1/recovery/resume", json!({ "determination": main, "reason": "r" })),
        ("/v1/recovery/settle", settle),
        ("/v1/recovery/sign", json!({ "request": request, "determination": main, "devices": "all" })),
        // Nobody uploaded that list: whoever may not have it signed for is told so before it is looked for.
        ("/v1/recovery/jobs", json!({ "request": request, "determination": main, "list": Digest([9; 32]) })),
        (&format!("/v1/keys/{RECOVERY_KEY}/activate"), json!({ "incident": "INC-1" })),
    ]
    .map(|(path, ask)| (path.to_owned(), ask))
    .into()
}

#[tokio::test]
async fn who_took_another_part_in_an_incident_does_not_act_in_it_as_operator_nor_does_nobody() {
    let other = |site: &Site| incident_of(&site.base.lab, "INC-8");
    // Nobody: the account is another's by now. The ARO who signed the notification, and a member who approved.
    for (person, rule, says) in [
        (None, "asker-unknown", "belongs to nobody"),
        (Some("aro-1"), "separation", "aro-1 acted in this incident as ARO"),
        (Some("member-1"), "separation", "member-1 acted in this incident as approver"),
    ] {
        let site = Site::determined().await;
        let daemon = site.start().await;
        let client = &daemon.client;
        give_account(&site, client, person, vec![site.main()]).await;
        for (path, ask) in asks_of_an_operator(client, site.main()).await {
            let before = site.ledger().size();
            let problem = problem(client.post::<_, Value>(&path, &ask).await);
            assert_eq!((problem.error, problem.entry), (ProblemKind::Refused, Some(before)), "{path}: {problem:?}");
            // Of the determination itself the rules say it in their own words.
            let why = problem.reasons.iter().find(|reason| [rule, "asker-approved"].contains(&&*reason.rule));
            let why = why.unwrap_or_else(|| panic!("{person:?} at {path}: {problem:?}"));
            assert!(why.text.contains(says) || &*why.rule == "asker-approved", "{path}: {}", why.text);
        }
        // A person may in another incident, in which they have no part yet.
        let opened = client.post::<_, wire::Recorded>("/v1/incidents", &other(&site)).await;
        match person {
            None => {
                assert_eq!(&*problem(opened).reasons[0].rule, rule);
                // Nor does nobody vouch for the clock, or for an exercise that took place.
                let clock = json!({ "time": wall_clock(), "reason": "r" });
                let exercise = json!({ "at": wall_clock(), "report": Digest([1; 32]), "note": "n" });
                for (path, ask) in [("/v1/clock/accept", clock), ("/v1/exercises", exercise)] {
                    let refused = problem(client.post::<_, Value>(path, &ask).await);
                    assert_eq!(&*refused.reasons[0].rule, rule, "{path}: {refused:?}");
                }
            }
            Some(_) => drop(opened.unwrap()),
        }
        site.verify_export("export");
        assert!(daemon.stop().await.unwrap().success());
    }
}

/// Another policy comes into force, in which one person has another role. Answers its digest.
async fn change_role(site: &Site, client: &Client, person: &str, from: &str, to: &str) -> Digest {
    let files = site.changed_policy("persons.toml", |text| {
        let blocks: Vec<String> = text
            .split("\n[[person]]\n")
            .map(|block| {
                let is_theirs = block.starts_with(&format!("id = \"{person}\"\n"));
                let (from, to) = (format!("roles = [\"{from}\"]"), format!("roles = [\"{to}\"]"));
                if is_theirs { block.replace(&from, &to) } else { block.to_owned() }
            })
            .collect();
        blocks.join("\n[[person]]\n")
    });
    site.adopt(client, &files, vec![]).await
}

#[tokio::test]
async fn an_aro_who_signed_a_file_of_an_incident_may_not_approve_its_determination() {
    let site = Site::founded().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    // Its ARO signed the notification file.
    site.refer(client, "INC-1", (0..3).map(device)).await;
    let (officer, members) = (&site.base.people.officers[0].first, &site.base.people.members);
    let new = change_role(&site, client, "aro-1", "aro", "pma-member").await;
    let list = device_list(0..3);
    let document = site.determination(client, 1, &list, |form| form.policy = new).await;
    let stored: wire::Stored = client.put("/v1/uploads/devices", list.clone().into()).await.unwrap();
    let ask = |third: &Credential| {
        let signers = [&members[0].first, &members[1].first, third];
        let signatures = signers.map(|by| signed(document.octets(), by)).to_vec();
        let (document, devices) = (Base64(document.octets().to_vec()), Some(stored.sha256));
        wire::Document { document, signatures, devices, policy_files: None, text: None }
    };
    let refused = problem(client.post::<_, wire::DocumentRecorded>("/v1/documents", &ask(officer)).await);
    assert_eq!(&*refused.reasons[0].rule, "separation");
    assert!(refused.message.contains("aro-1 acted in this incident as ARO"), "{}", refused.message);
    // Somebody else's signature in the place of theirs, and it is recorded.
    client.post::<_, wire::DocumentRecorded>("/v1/documents", &ask(&members[2].first)).await.unwrap();
    // Nor may they withdraw it.
    let drafted: Written<Withdrawal> = site.drafter().withdrawal(&document, head(client).await).unwrap();
    let withdrawal = Written::write(&Withdrawal { policy: new, ..drafted.form().clone() }).unwrap();
    let ask = |third: &Credential| {
        let signers = [&members[0].first, &members[1].first, third];
        let signatures = signers.map(|by| signed(withdrawal.octets(), by)).to_vec();
        let document = Base64(withdrawal.octets().to_vec());
        wire::Document { document, signatures, devices: None, policy_files: None, text: None }
    };
    let refused = problem(client.post::<_, wire::DocumentRecorded>("/v1/documents", &ask(officer)).await);
    assert_eq!(rules(&refused), ["separation"], "{refused:?}");
    client.post::<_, wire::DocumentRecorded>("/v1/documents", &ask(&members[2].first)).await.unwrap();
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_member_who_directed_a_departure_in_an_incident_may_not_sign_a_file_of_it() {
    let site = Site::founded().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    let carrier = site.carrier(client, "INC-1");
    carrier.assess(&[device(0)], Method::NewOrganisationCertificates).await.unwrap();
    let departure = "[departure]\nincident = \"INC-1\"\nstep = \"hand-over\"\nreason = \"They know.\"\n";
    site.direct(departure, APPROVALS).ok();
    change_role(&site, client, "member-1", "pma-member", "aro").await;
    let file = adt(&party_of(&site.base.lab.before()[0]).to_string());
    let member = &site.base.people.members[0].first;
    let refused = problem(submit(client, FileKind::Adt, &file, Some(signed(file.as_bytes(), member))).await);
    assert!(rules(&refused).contains(&"separation"), "{refused:?}");
    assert!(refused.message.contains("member-1 acted in this incident as approver"), "{}", refused.message);
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_member_who_approved_a_determination_may_not_sign_a_file_of_its_incident() {
    let site = Site::determined().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    let member = &site.base.people.members[0].first;
    change_role(&site, client, "member-1", "pma-member", "aro").await;
    let file = adt(&party_of(&site.base.lab.before()[0]).to_string());
    let refused = problem(submit(client, FileKind::Adt, &file, Some(signed(file.as_bytes(), member))).await);
    let rules: Vec<&str> = refused.reasons.iter().map(|reason| &*reason.rule).collect();
    assert_eq!(rules, ["separation"], "{refused:?}");
    assert!(refused.message.contains("member-1 acted in this incident as approver"), "{}", refused.message);
    let officer = &site.base.people.officers[0].first;
    submit(client, FileKind::Adt, &file, Some(signed(file.as_bytes(), officer))).await.unwrap();
    assert!(daemon.stop().await.unwrap().success());
}

#[test]
fn a_file_is_checked_and_a_layout_shown_without_a_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("thresholds.csv");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_smkictl"));
        let output = command.args(arguments).env("SMKID_SOCKET", "/nowhere/s").output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let path = file.to_str().unwrap();
    std::fs::write(&file, adt("02DB1234567890A0")).unwrap();
    let (status, said) = run(&["file", "check", "adt", path]);
    assert!(status == Some(0) && said.contains("1 line") && said.contains("default of ours"), "{status:?} {said}");
    std::fs::write(&file, adt("02db1234567890a0").replace(",10\n", ",8\n")).unwrap();
    let (status, said) = run(&["file", "check", "adt", path]);
    assert_eq!(status, Some(5), "{said}");
    for place in ["line 2, column 2 (user-id)", "line 2, column 6 (quarantine)"] {
        assert!(said.contains(place), "{said}");
    }
    let (_, said) = run(&["file", "check", "adt", path, "--output", "json"]);
    let value: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((value["faults"][0]["line"].as_u64(), value["faults"][1]["column"].as_u64()), (Some(2), Some(6)));
    assert_eq!(run(&["file", "check", "letter", path]).0, Some(2));
    assert_eq!(run(&["file", "check", "adt", "/nowhere/x"]).0, Some(1));
    for kind in FileKind::ALL {
        let (status, said) = run(&["file", "layout", kind.as_str()]);
        assert!(status == Some(0) && said.contains("the SEC's own layout was not read"), "{kind}: {said}");
    }
    // With a policy that has a layout of its own.
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("keys-policy/example");
    let policy = folder.path().join("policy");
    assert!(Command::new("cp").arg("-r").arg(&example).arg(&policy).status().unwrap().success());
    let layout = "version = 1\n[[layout]]\nkind = \"adt\"\nlabel = \"SSI guidance\"\ncolumns = { User = \"user-id\", Note = \"ignore\" }\n";
    std::fs::write(policy.join("files.toml"), layout).unwrap();
    let policy = policy.to_str().unwrap();
    std::fs::write(&file, adt("02DB1234567890A0").replace("user-id", "User")).unwrap();
    let (status, said) = run(&["file", "check", "adt", path, "--policy", policy]);
    assert!(status == Some(0) && said.contains("SSI guidance"), "{status:?} {said}");
    let (_, said) = run(&["file", "layout", "adt", "--policy", policy]);
    assert!(said.contains("User ") && said.contains("ignored"), "{said}");
    std::fs::write(std::path::Path::new(policy).join("files.toml"), layout.replace("user-id", "user")).unwrap();
    let (status, said) = run(&["file", "check", "adt", path, "--policy", policy]);
    assert!(status == Some(1) && said.contains("files.toml line 2: adt: \"User\" is mapped"), "{status:?} {said}");
    let (status, said) = run(&["people", "list", "--policy", example.to_str().unwrap(), "--role", "key-custodian"]);
    assert!(status == Some(0) && said.contains("Nomination form 1") && !said.contains("aro-1"), "{said}");
}

#[tokio::test]
async fn files_of_many_megabytes_are_taken_in_and_read_whole_at_the_next_start() {
    const THRESHOLDS: u32 = 12_000;
    const DEVICES: u32 = 100_000;
    let site = Site::founded().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    site.carrier(client, "INC-1").find(&[device(0)], Method::NewOrganisationCertificates).await.unwrap();
    // More than a document may have, in a signed file; and many times that, in one that nobody signs.
    let user = party_of(&site.base.lab.before()[0]).to_string();
    let lines = (1..=THRESHOLDS).map(|n| format!("SMSR-1,{user},6.{n},1440,9,10\n"));
    let thresholds: String = adt(&user).lines().take(1).map(|line| format!("{line}\n")).chain(lines).collect();
    let lines = (0..DEVICES).map(|n| format!("{},Commissioned,2016-01-01T00:00:00Z\n", device(n)));
    let extract: String = std::iter::once("device,status,from\n".to_owned()).chain(lines).collect();
    assert!(thresholds.len() > 256 * 1024 && extract.len() > 4 << 20);
    let officer = &site.base.people.officers[0].first;
    let taken = async |kind, text: &str, signature| {
        let stored: wire::Stored = client.put("/v1/uploads/devices", text.to_owned().into()).await.unwrap();
        let ask = wire::FileSubmit { kind, octets: None, staged: Some(stored.sha256), signature };
        client.post::<_, wire::File>(FILES, &ask).await.unwrap()
    };
    let first = taken(FileKind::Adt, &thresholds, Some(signed(thresholds.as_bytes(), officer))).await;
    let second = taken(FileKind::SmiExtract, &extract, None).await;
    assert_eq!((first.rows, second.rows), (u64::from(THRESHOLDS), u64::from(DEVICES)));
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
    let daemon = site.start().await;
    let all: wire::Files = daemon.client.get(FILES).await.unwrap();
    assert_eq!(all.files.iter().map(|file| file.sha256).collect::<Vec<_>>(), [first.sha256, second.sha256]);
    assert!(daemon.stop().await.unwrap().success());
}
