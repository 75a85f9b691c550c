//! What Devices answer, on a live site: each kind of answer, in bulk, over a restart, and before an outsider.

mod bulk;

use std::collections::BTreeMap;
use std::process::Command;

use axum::body::Body;
use smkid::api::client::Client;
use smkid::api::failure::ProblemKind;
use smkid::api::wire::{self, DeviceState};
use smkid::domain::certificates::pem::certificate_to_pem;
use smkid::domain::determination::document::{Determination, Method, Payload, Template};
use smkid::domain::gbcs::{ExecutionOutcome, Header};
use smkid::domain::ledger::entry::{Entry, Event};
use smkid::domain::ledger::steps::{SmiStatus, Step};
use smkid::domain::names::{DeterminationId, DeviceId, Eui64};
use smkid::domain::responses::messages::MESSAGES_LEN_MAX;
use smkid::exercise::device::{Device, Judge, Made};
use smkid::exercise::lab::{Lab, SoftKey};
use smkid::exercise::people::APPROVALS;
use smkid::exercise::procedure::{plain, status};
use smkid::wall_clock::wall_clock;

use crate::support::meter::{alert, one_cell_failed, response};
use crate::support::site::{
    INCIDENT, Site, ask_for, ask_for_all, device, device_list, head, lines, problem, template_name, whole,
};

/// A Device whose answers a test makes up.
struct Meter {
    key: SoftKey,
    certificate: Vec<u8>,
}

impl Meter {
    fn new(lab: &Lab, n: u32) -> Self {
        let key = SoftKey::generate().unwrap();
        let certificate = lab.certify_device(device(n), key.public()).unwrap();
        Self { key, certificate }
    }

    fn sign(&self, octets: &[u8]) -> [u8; 64] {
        self.key.sign(octets).unwrap()
    }

    fn answer(&self, command: &[u8], change: impl FnOnce(&mut Header, &mut ExecutionOutcome)) -> Vec<u8> {
        response(command, change, |octets| self.sign(octets))
    }
}

const AS_SENT: fn(&mut Header, &mut ExecutionOutcome) = |_, _| {};

async fn upload(client: &Client, octets: impl Into<Body>) -> wire::Stored {
    client.put("/v1/uploads", octets.into()).await.unwrap()
}

/// Hands in messages, and gives what is told of each by its number, and the summary.
async fn hand_in(
    client: &Client,
    determination: DeterminationId,
    messages: Vec<u8>,
    certificates: &[&[u8]],
) -> (BTreeMap<u64, (String, String)>, wire::ResponsesSummary) {
    let bundle: String = certificates.iter().map(|octets| certificate_to_pem(octets)).collect();
    let ask = wire::RecoveryResponses {
        determination,
        responses: upload(client, messages).await.sha256,
        certificates: Some(upload(client, bundle).await.sha256),
    };
    let text = client.post_for_text("/v1/recovery/responses", &ask).await.unwrap();
    let mut all: Vec<&str> = text.lines().collect();
    let last: wire::ResponsesSummaryLine = serde_json::from_str(all.pop().unwrap()).unwrap();
    let items = all.into_iter().map(|line| serde_json::from_str::<wire::ResponseItem>(line).unwrap());
    (items.map(|item| (item.message, (item.result, item.detail))).collect(), last.summary)
}

fn hex_lines(messages: &[Vec<u8>]) -> Vec<u8> {
    messages.iter().map(|message| hex::encode(message) + "\n").collect::<String>().into_bytes()
}

async fn states(client: &Client, determination: DeterminationId, state: &str) -> BTreeMap<DeviceId, DeviceState> {
    let path = format!("/v1/recovery/devices?determination={determination}{state}");
    let page: wire::RecoveryDevices = client.get(&path).await.unwrap();
    assert_eq!(page.next, None);
    page.devices.into_iter().map(|one| (one.device, one.state)).collect()
}

#[tokio::test]
async fn each_answer_proves_what_it_proves_and_no_more_over_a_restart_and_before_an_outsider() {
    let site = Site::determined().await;
    let (lab, determination) = (&site.base.lab, site.main());
    let daemon = site.start_active().await;
    let client = &daemon.client;
    let items = whole(lines(client, "/v1/recovery/sign", &ask_for(determination, 0..12)).await);
    let command = |n: usize| items[n].command.as_ref().unwrap().0.as_slice();
    let mut meters: Vec<Meter> = (0..12).map(|n| Meter::new(lab, n)).collect();
    let elsewhere = Lab::new(wall_clock()).unwrap();
    meters[6].certificate = elsewhere.certify_device(device(6), meters[6].key.public()).unwrap();

    let good = |n: usize| meters[n].answer(command(n), AS_SENT);
    let mut flipped = good(2);
    *flipped.last_mut().unwrap() ^= 1;
    let of_another_device = response(command(5), AS_SENT, |octets| meters[4].sign(octets));
    let fourth = good(4);
    let messages = vec![
        good(0),
        meters[1].answer(command(1), one_cell_failed),
        flipped,
        fourth.clone(),
        fourth,
        of_another_device,
        good(6),
        good(7),
        meters[8].answer(command(8), |header, _| header.recipient = Eui64([9; 8])),
        good(9)[..100].to_vec(),
        alert(command(10), |octets| meters[10].sign(octets)),
        good(11),
        // Another one that ends as the tenth does is none that came before.
        [&[0], &good(9)[1..100]].concat(),
    ];
    let without_7: Vec<&[u8]> = (0..12).filter(|n| *n != 7).map(|n| meters[n].certificate.as_slice()).collect();
    let (told, summary) = hand_in(client, determination, hex_lines(&messages), &without_7).await;
    let expected = [
        (2, "failed", "noTrustAnchor"),
        (3, "unverified", "the signature does not verify"),
        (5, "duplicate", "the same octets as message 4"),
        (6, "unverified", "the signature does not verify"),
        (7, "unverified", "expected a certificate of its issuer"),
        (8, "unverified", "no certificate of the Device"),
        (9, "unmatched", "an answer to 0909090909090909"),
        (10, "malformed", "octet"),
        (11, "alert", "8F66"),
        (13, "malformed", "octet 0"),
    ];
    assert_eq!(told.keys().copied().collect::<Vec<_>>(), expected.map(|(message, _, _)| message));
    for (message, result, detail) in expected {
        let found = &told[&message];
        assert!(found.0 == result && found.1.contains(detail), "message {message}: {found:?}");
    }
    assert_eq!((summary.tally.recovered, summary.tally.unverified, summary.tally.messages()), (3, 4, 13));

    let all = states(client, determination, "").await;
    let of = |n| all[&device(n)];
    assert_eq!(
        [of(0), of(1), of(2), of(4)],
        [DeviceState::Succeeded, DeviceState::Failed, DeviceState::NoResponse, DeviceState::Succeeded]
    );
    assert_eq!(
        [of(8), of(10), of(11), of(12)],
        [DeviceState::NoResponse, DeviceState::NoResponse, DeviceState::Succeeded, DeviceState::Unsigned]
    );
    assert_eq!(states(client, determination, "&state=succeeded").await.len(), 3);
    assert_eq!(states(client, determination, "&state=signed").await.len(), 12);
    assert_eq!(states(client, determination, "&state=failed").await.into_keys().collect::<Vec<_>>(), [device(1)]);
    assert!(daemon.stop().await.unwrap().success());

    // After a restart it is all there: what comes again is known, and what contradicts it is told.
    let daemon = site.start_active().await;
    let client = &daemon.client;
    assert_eq!(states(client, determination, "").await, all);
    let again = [good(0), meters[11].answer(command(11), one_cell_failed), good(2)].concat();
    let certificates: Vec<&[u8]> = meters.iter().map(|meter| meter.certificate.as_slice()).collect();
    let (told, summary) = hand_in(client, determination, again, &certificates).await;
    assert_eq!((told[&1].0.as_str(), told[&2].0.as_str()), ("duplicate", "contradiction"), "{told:?}");
    assert!(told[&2].1.contains("it says failed") && told[&2].1.contains("has recovered"), "{told:?}");
    assert_eq!((summary.tally.recovered, told.len()), (1, 2));
    let all = states(client, determination, "").await;
    assert_eq!([all[&device(2)], all[&device(11)]], [DeviceState::Succeeded, DeviceState::Contradicted]);

    // What makes no sense is refused, and recorded as such.
    let none = DeterminationId([9; 16]);
    let stored = (upload(client, hex_lines(&messages)).await.sha256, upload(client, "\n").await.sha256);
    let ask = |determination, responses, certificates| wire::RecoveryResponses {
        determination,
        responses,
        certificates: Some(certificates),
    };
    let refused = client.post_for_text("/v1/recovery/responses", &ask(none, stored.0, stored.1)).await;
    assert_eq!(&*problem(refused).reasons[0].rule, "determination-unknown");
    let refused = client.post_for_text("/v1/recovery/responses", &ask(determination, stored.0, stored.0)).await;
    assert!(problem(refused).message.contains("certificates in DER, one after another, or in PEM"));
    let never = smkid::domain::names::Digest::of(b"never uploaded");
    let refused = client.post_for_text("/v1/recovery/responses", &ask(determination, never, stored.1)).await;
    assert!(problem(refused).message.contains("an upload that waits"));

    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn an_answer_to_a_command_that_was_never_signed_stops_the_signing_until_somebody_has_looked() {
    let site = Site::determined().await;
    let (lab, determination) = (&site.base.lab, site.main());
    let daemon = site.start_active().await;
    let client = &daemon.client;
    let resume = |reason: &str| wire::RecoveryResume { determination, reason: reason.to_owned() };
    let refused = client.post::<_, wire::Recorded>("/v1/recovery/resume", &resume("nothing")).await;
    assert_eq!(&*problem(refused).reasons[0].rule, "nothing-stopped");
    let items = whole(lines(client, "/v1/recovery/sign", &ask_for(determination, 0..2)).await);
    let own = items[0].command.as_ref().unwrap().0.as_slice();
    let meter = Meter::new(lab, 0);
    let foreign = meter.answer(&site.pre_command(0, items[0].counter.unwrap() + 1), AS_SENT);
    let file = hex_lines(&[meter.answer(own, AS_SENT), foreign.clone()]);
    let (told, summary) = hand_in(client, determination, file, &[&meter.certificate]).await;
    assert_eq!((summary.tally.recovered, summary.tally.foreign), (1, 1));
    assert!(told[&2].0 == "foreign" && told[&2].1.contains("never") | told[&2].1.contains("no command"), "{told:?}");
    assert_eq!(states(client, determination, "&state=foreign").await.into_keys().collect::<Vec<_>>(), [device(0)]);

    let stopped = |client: Client| async move {
        let refused = lines(&client, "/v1/recovery/sign", &ask_for(determination, 2..4)).await;
        let rules: Vec<_> = problem(refused).reasons.into_iter().map(|reason| reason.rule).collect();
        assert_eq!(rules, ["foreign-response".into()]);
    };
    stopped(client.clone()).await;
    assert!(daemon.stop().await.unwrap().success());
    let daemon = site.start().await;
    let client = &daemon.client;
    let refused = problem(site.activate(client).await);
    assert_eq!(refused.reasons.iter().map(|reason| &*reason.rule).collect::<Vec<_>>(), ["foreign-response"]);
    let recorded: wire::Recorded =
        client.post("/v1/recovery/resume", &resume("The Device was tested in the laboratory")).await.unwrap();
    assert!(recorded.entry > summary.entry);
    site.activate(client).await.unwrap();
    assert_eq!(whole(lines(client, "/v1/recovery/sign", &ask_for(determination, 2..4)).await).len(), 2);
    // The same file again tells nothing new, and so stops nothing.
    let (told, summary) = hand_in(client, determination, foreign, &[&meter.certificate]).await;
    assert_eq!((told[&1].0.as_str(), summary.tally.foreign), ("duplicate", 0));
    assert_eq!(whole(lines(client, "/v1/recovery/sign", &ask_for(determination, 4..5)).await).len(), 1);
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_foreign_answer_stops_its_key_under_whichever_determination_it_was_handed_in() {
    let site = Site::determined().await;
    let (lab, main) = (&site.base.lab, site.main());
    let daemon = site.start().await;
    let client = &daemon.client;
    let document = site.determine(client, 2, &device_list(600..604), |_| {}).await;
    let second = document.form().id;
    site.activate_for(client, "INC-2").await.unwrap();
    let signs =
        async |devices: std::ops::Range<u32>| lines(client, "/v1/recovery/sign", &ask_for(second, devices)).await;
    assert_eq!(whole(signs(600..601).await).len(), 1);

    // Handed in under the determination of another incident, and that one withdrawn besides.
    let meter = Meter::new(lab, 0);
    let foreign = meter.answer(&site.pre_command(0, u64::from(u32::MAX)), AS_SENT);
    let (_, summary) = hand_in(client, main, foreign, &[&meter.certificate]).await;
    assert_eq!(summary.tally.foreign, 1);
    site.withdraw(client, &site.base.main).await;
    let refused = problem(signs(601..602).await);
    assert_eq!(refused.reasons.iter().map(|reason| &*reason.rule).collect::<Vec<_>>(), ["foreign-response"]);
    let text = &refused.reasons[0].text;
    assert!(text.contains(&format!("(entry {})", summary.entry)) && text.contains(&main.to_string()), "{text}");
    site.lock(client).await.unwrap();
    let refused = problem(site.activate_for(client, "INC-2").await);
    assert_eq!(refused.reasons.iter().map(|reason| &*reason.rule).collect::<Vec<_>>(), ["foreign-response"]);

    // What is resumed is that answer, under the determination that it was handed in under.
    let resume = |determination| wire::RecoveryResume { determination, reason: "tested in the laboratory".to_owned() };
    let refused = problem(client.post::<_, wire::Recorded>("/v1/recovery/resume", &resume(second)).await);
    assert_eq!(&*refused.reasons[0].rule, "nothing-stopped");
    client.post::<_, wire::Recorded>("/v1/recovery/resume", &resume(main)).await.unwrap();
    site.activate_for(client, "INC-2").await.unwrap();
    assert_eq!(whole(signs(601..602).await).len(), 1);
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_thousand_devices_are_recovered_through_the_command_line() {
    const DEVICES: u32 = 1_000;
    let site = Site::determined().await;
    let base = site.base;
    let daemon = site.start_active().await;
    let client = &daemon.client;
    let numbers = 2_000..2_000 + DEVICES;
    let document = site.determine(client, 2, &device_list(numbers.clone()), |_| {}).await;
    let determination = document.form().id;
    let items = whole(lines(client, "/v1/recovery/sign", &ask_for_all(determination)).await);
    let (made, judge) = (Made::new(&base.lab, &base.recovery), Judge::new(base.lab.profile().clone()));
    let (mut answers, mut certificates) = (Vec::new(), String::new());
    for (n, item) in numbers.zip(&items) {
        assert_eq!((item.device, item.template.as_ref()), (device(n), Some(&template_name())));
        let counter = item.counter.unwrap() - 1;
        let mut simulated = Device::make(device(n), counter, &made, &base.lab).unwrap();
        answers.extend(simulated.receive(&item.command.as_ref().unwrap().0, &judge, wall_clock()).unwrap());
        certificates.push_str(&certificate_to_pem(simulated.certificate()));
    }
    std::fs::write(site.path("answers.bin"), answers).unwrap();
    std::fs::write(site.path("devices.pem"), certificates).unwrap();
    let smkictl = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_smkictl"))
            .args(arguments)
            .args(["--determination", &determination.to_string()])
            .env("SMKID_SOCKET", &site.socket)
            .current_dir(site.path(""))
            .output()
            .unwrap();
        let said = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said).into_owned()).concat();
        (output.status.code().unwrap(), said)
    };
    let (status, said) = smkictl(&["recovery", "responses", "answers.bin", "--certificates", "devices.pem"]);
    assert!(status == 0 && said.contains("1000"), "{status}: {said}");
    let (status, said) = smkictl(&["recovery", "devices", "--state", "succeeded"]);
    assert!(status == 0 && said.contains("succeeded") && said.contains("1000"), "{status}: {said}");
    let (status, said) = smkictl(&["recovery", "devices", "--state", "no-response"]);
    assert!(status == 0 && said.contains("There are none."), "{status}: {said}");
    let (status, said) = smkictl(&["recovery", "resume-after-foreign", "--reason", "because"]);
    assert!(status == 4 && said.contains("there is nothing to resume"), "{status}: {said}");
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn what_method_2_recovered_is_handed_over_before_the_incident_ends_even_where_the_pma_withdrew() {
    let site = Site::determined().await;
    let (lab, base) = (&site.base.lab, site.base);
    let daemon = site.start_active().await;
    let client = &daemon.client;
    let numbers = 600..602;
    let brokers = smkid::exercise::template::template(lab, &base.recovery, lab.broker()).unwrap();
    let by_method_2 = |form: &mut Determination| {
        let payload = Payload::new(brokers.octets()).unwrap();
        form.method = Some(Method::AcbCertificates);
        form.templates = Some(vec![Template { name: template_name(), payload }]);
    };
    let document = site.determine(client, 2, &device_list(numbers.clone()), by_method_2).await;
    let determination = document.form().id;
    let items = whole(lines(client, "/v1/recovery/sign", &ask_for_all(determination)).await);
    let meter = Meter::new(lab, 600);
    let answer = meter.answer(items[0].command.as_ref().unwrap().0.as_slice(), AS_SENT);
    let (_, summary) = hand_in(client, determination, hex_lines(&[answer]), &[&meter.certificate]).await;
    assert_eq!(summary.tally.recovered, 1);
    let carrier = site.carrier(client, "INC-2");
    assert_eq!(carrier.progress().await.unwrap().devices.under_dcc_control, 1);
    let proven = carrier.upload(&plain(&[device(600)]), 1).await.unwrap();
    carrier.step(status(SmiStatus::Recovered, Some(proven), wall_clock())).await.unwrap();

    let withdrawal = site.drafter().withdrawal(&document, head(client).await).unwrap();
    site.deliver(client, &withdrawal, APPROVALS, None).await.unwrap();
    carrier.inform().await.unwrap();
    let stranded = carrier.progress().await.unwrap().devices.stranded;
    carrier
        .step(Step::AcceptStranded { count: stranded, overridden: None, reason: "by the SMKI PMA".into() })
        .await
        .unwrap();
    let close = async || {
        let why = wire::Why { reason: "the PMA withdrew".to_owned() };
        client.post::<_, wire::Recorded>("/v1/incidents/INC-2/close", &why).await
    };
    let refused = problem(close().await);
    assert_eq!(refused.reasons.iter().map(|reason| &*reason.rule).collect::<Vec<_>>(), ["hand-over"], "{refused:?}");
    carrier.step(Step::HandOver { devices: None, evidence: "SRV 6.21 of the Supplier".into() }).await.unwrap();
    assert_eq!(carrier.progress().await.unwrap().devices.under_dcc_control, 0);
    close().await.unwrap();
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn binary_messages_of_more_than_one_entry_takes_are_refused_as_one_and_sent_in_parts_by_the_command_line() {
    let site = Site::determined().await;
    let determination = site.main();
    let daemon = site.start_active().await;
    let client = &daemon.client;
    let items = whole(lines(client, "/v1/recovery/sign", &ask_for(determination, 0..1)).await);
    // Commands are messages too, of the greatest kind; that no Device sends them is told of each.
    let command = items[0].command.as_ref().unwrap().0.clone();
    let count = usize::try_from(MESSAGES_LEN_MAX).unwrap() / command.len() + 1;
    let binary = command.repeat(count);
    std::fs::write(site.path("answers.bin"), &binary).unwrap();
    let ask = wire::RecoveryResponses {
        determination,
        responses: upload(client, binary).await.sha256,
        certificates: Some(upload(client, "\n").await.sha256),
    };
    let refused = problem(client.post_for_text("/v1/recovery/responses", &ask).await);
    assert_eq!(refused.error, ProblemKind::TooLarge, "{refused:?}");
    let taken = |entry: &Entry| matches!(entry.event, Event::ResponsesTaken(_));
    assert!(!site.ledger().entries.iter().any(taken), "nothing was taken in");
    let certificate = certificate_to_pem(&Meter::new(&site.base.lab, 0).certificate);
    std::fs::write(site.path("device.pem"), certificate).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_smkictl"))
        .args(["recovery", "responses", "answers.bin", "--certificates", "device.pem"])
        .args(["--determination", &determination.to_string()])
        .env("SMKID_SOCKET", &site.socket)
        .current_dir(site.path(""))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let ledger = site.ledger();
    let taken: Vec<u64> = ledger
        .entries
        .iter()
        .filter_map(
            |entry| if let Event::ResponsesTaken(taken) = &entry.event { Some(taken.tally.messages()) } else { None },
        )
        .collect();
    assert_eq!((taken.len(), taken.iter().sum::<u64>()), (2, count as u64), "{said}");
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
    let daemon = site.start().await;
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_device_that_a_superseding_determination_lists_is_recovered_again_whatever_it_proved_before() {
    let site = Site::determined().await;
    let (lab, base) = (&site.base.lab, site.base);
    let (daemon, main) = (site.start_active().await, site.main());
    let client = &daemon.client;
    let carrier = site.carrier(client, INCIDENT);
    let meters: Vec<Meter> = (0..2).map(|n| Meter::new(lab, n)).collect();
    let certificates: Vec<&[u8]> = meters.iter().map(|meter| meter.certificate.as_slice()).collect();
    let recover = async |determination| {
        let items = whole(lines(client, "/v1/recovery/sign", &ask_for(determination, 0..2)).await);
        let answers: Vec<Vec<u8>> = items
            .iter()
            .zip(&meters)
            .map(|(item, meter)| meter.answer(item.command.as_ref().unwrap().0.as_slice(), AS_SENT))
            .collect();
        let (_, summary) = hand_in(client, determination, hex_lines(&answers), &certificates).await;
        assert_eq!(summary.tally.recovered, 2);
    };
    recover(main).await;
    let before = carrier.progress().await.unwrap().devices;
    assert_eq!((before.succeeded, before.wanted_again, before.under_dcc_control), (2, 0, 0));

    // The certificates were bad: the SMKI PMA has the DCC's placed on one of the two.
    let brokers = smkid::exercise::template::template(lab, &base.recovery, lab.broker()).unwrap();
    let by_method_2 = |form: &mut Determination| {
        let payload = Payload::new(brokers.octets()).unwrap();
        (form.supersedes, form.decision_number) = (Some(main), 2);
        form.method = Some(Method::AcbCertificates);
        form.templates = Some(vec![Template { name: template_name(), payload }]);
    };
    let second = site.determine(client, 2, &device_list(1..2), by_method_2).await.form().id;
    let wanted = carrier.progress().await.unwrap().devices;
    assert_eq!((wanted.succeeded, wanted.wanted_again, wanted.under_dcc_control), (1, 1, 0));
    assert_eq!(wanted.outstanding, before.outstanding + 1);
    let shown = site.smkictl(&format!("incident show {INCIDENT}"));
    assert!(shown.out.contains("1 recovered under an earlier determination, to be recovered again"), "{}", shown.out);
    let file = site.smkictl(&format!("file progress {INCIDENT}"));
    assert!(file.out.contains(",succeeded,1\r\n"), "{}", file.out);
    let line = async |n: u32| {
        let csv = client.text(&format!("/v1/incidents/{INCIDENT}/devices")).await.unwrap();
        csv.lines().find(|line| line.starts_with(&device(n).to_string())).unwrap().to_owned()
    };
    let (kept, again) = (line(0).await, line(1).await);
    assert!(kept.contains(",recovered,") && kept.contains(&format!(",no,{main},")), "{kept}");
    assert!(again.contains(",none,") && again.contains(&format!(",yes,{main},")), "{again}");
    let history: wire::DeviceHistory =
        client.get(&format!("/v1/incidents/{INCIDENT}/devices/{}", device(1))).await.unwrap();
    assert!(history.items.last().unwrap().what.contains("it is to be recovered again"), "{history:?}");

    carrier.prepare().await.unwrap();
    site.activate(client).await.unwrap();
    let items = whole(lines(client, "/v1/recovery/sign", &ask_for(second, 1..2)).await);
    let answer = meters[1].answer(items[0].command.as_ref().unwrap().0.as_slice(), AS_SENT);
    hand_in(client, second, hex_lines(&[answer]), &certificates[1..]).await;
    let after = carrier.progress().await.unwrap().devices;
    assert_eq!((after.succeeded, after.wanted_again, after.under_dcc_control), (2, 0, 1));
    assert!(line(1).await.contains(&format!(",no,{second},")));
    assert!(daemon.stop().await.unwrap().success());

    // What is known of them is read from the ledger again, by the daemon and by an outsider.
    let daemon = site.start().await;
    assert_eq!(site.carrier(&daemon.client, INCIDENT).progress().await.unwrap().devices, after);
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}
