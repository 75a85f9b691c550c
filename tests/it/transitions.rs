//! The state machine of an incident over the daemon's own API: the transitions and guards that no other test's story passes.

use smkid::api::client::Client;
use smkid::api::failure::Problem;
use smkid::api::wire;
use smkid::domain::certificates::pem::certificate_to_pem;
use smkid::domain::determination::document::{Determination, Payload, Template, Written};
use smkid::domain::incident::State;
use smkid::domain::ledger::steps::{Certainty, Method, SmiStatus, Step};
use smkid::domain::names::Digest;
use smkid::exercise::device::{Device, Judge, Made};
use smkid::exercise::people::APPROVALS;
use smkid::exercise::policy::RECOVERY_KEY;
use smkid::exercise::procedure::{plain, status, targets};
use smkid::exercise::template::template;
use smkid::wall_clock::wall_clock;

use crate::support::site::{
    INCIDENT, Site, ask_for_all, device, device_list, incident, left_to_a_schedule, lines, not_execute, problem, rules,
    template_name, whole,
};

/// Targets of each incident.
const TARGETS: u32 = 3;

fn note() -> Box<str> {
    "seen by two".into()
}

fn why(reason: &str) -> wire::Why {
    wire::Why { reason: reason.to_owned() }
}

fn steps(incident: &str) -> String {
    format!("/v1/incidents/{incident}/steps")
}

async fn take(client: &Client, incident: &str, step: Step) {
    client.post::<_, wire::Recorded>(&steps(incident), &wire::StepAsk { step }).await.unwrap();
}

async fn refuse(site: &Site, client: &Client, incident: &str, step: Step) -> Problem {
    let before = state(client, incident).await;
    let refused = site.refused(client, &steps(incident), &wire::StepAsk { step }).await;
    assert_eq!(state(client, incident).await, before, "{refused:?}");
    refused
}

async fn state(client: &Client, incident: &str) -> State {
    let incident: wire::Incident = client.get(&format!("/v1/incidents/{incident}")).await.unwrap();
    incident.progress.unwrap().state
}

fn confirm(mechanism: &str) -> Step {
    Step::Confirm { mechanism: mechanism.parse().unwrap(), certainty: Certainty::Actual, evidence: note() }
}

#[tokio::test]
async fn what_is_reported_is_confirmed_by_a_permitted_mechanism_or_dismissed_once_everybody_was_told() {
    let site = Site::founded().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    client.post::<_, wire::Recorded>("/v1/incidents", &incident(&site.base.lab)).await.unwrap();
    let unlisted = refuse(&site, client, INCIDENT, confirm("rumour")).await;
    assert_eq!(rules(&unlisted), ["mechanism"]);
    assert!(unlisted.reasons[0].text.contains("call-back"), "{unlisted:?}");
    let silent =
        Step::Confirm { mechanism: "call-back".parse().unwrap(), certainty: Certainty::Actual, evidence: " ".into() };
    assert_eq!(rules(&refuse(&site, client, INCIDENT, silent).await), ["text"]);
    let dismiss = || Step::Dismiss { reason: "the officer knows of nothing".into() };
    let refused = refuse(&site, client, INCIDENT, dismiss()).await;
    assert_eq!(rules(&refused), ["open-duty"]);
    site.carrier(client, INCIDENT).inform().await.unwrap();
    take(client, INCIDENT, dismiss()).await;
    assert_eq!(state(client, INCIDENT).await, State::Dismissed);
    let close = format!("/v1/incidents/{INCIDENT}/close");
    assert_eq!(rules(&site.refused(client, &close, &why("nobody was told")).await), ["open-duty"]);
    site.carrier(client, INCIDENT).inform().await.unwrap();
    client
        .post::<_, wire::Recorded>(&format!("/v1/incidents/{INCIDENT}/close"), &why("nothing was lost"))
        .await
        .unwrap();
    assert_eq!(state(client, INCIDENT).await, State::Closed);
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn what_is_confirmed_is_assessed_for_relevant_devices_and_by_method_1_goes_on_without_the_pma() {
    let site = Site::founded().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    let carrier = site.carrier(client, INCIDENT);
    client.post::<_, wire::Recorded>("/v1/incidents", &incident(&site.base.lab)).await.unwrap();
    take(client, INCIDENT, confirm("call-back")).await;
    let devices: Vec<_> = (0..TARGETS).map(device).collect();
    let text = targets(&devices, wall_clock());
    let relevant = carrier.upload(&text, devices.len()).await.unwrap();
    let assess = |method, targets| Step::Assess { method, targets };

    // Guards: the class of the key, the status of each Device, the length of the list.
    let refused = refuse(&site, client, INCIDENT, assess(Method::Contingency, relevant)).await;
    assert_eq!(rules(&refused), ["method"]);
    let pending = carrier.upload(&text.replacen("Commissioned", "Pending", 1), devices.len()).await.unwrap();
    let refused = refuse(&site, client, INCIDENT, assess(Method::SubscriberKey, pending)).await;
    assert_eq!(rules(&refused), ["devices"]);
    assert!(refused.reasons[0].text.starts_with("line 1: "), "{refused:?}");
    let mut short = relevant;
    short.count -= 1;
    assert_eq!(rules(&refuse(&site, client, INCIDENT, assess(Method::SubscriberKey, short)).await), ["devices"]);
    short.count = 0;
    let none = refuse(&site, client, INCIDENT, assess(Method::SubscriberKey, short)).await;
    assert!(rules(&none).contains(&"targets"), "{none:?}");

    // Method 3 needs the SMKI PMA, and the SMKI PMA the notification file.
    take(client, INCIDENT, assess(Method::NewOrganisationCertificates, relevant)).await;
    let recovers = || Step::SubscriberRecovery { note: "SRV 6.15.1 by the Supplier".into() };
    assert_eq!(rules(&refuse(&site, client, INCIDENT, recovers()).await), ["procedure", "method"]);
    let refer = Step::Refer { notification: Some(Digest([1; 32])), new_facts: None };
    let refused = refuse(&site, client, INCIDENT, refer).await;
    assert_eq!(rules(&refused), ["notification-file", "smi-status", "adt-file"]);
    // Assessed again, the Subscriber goes on with its own key, and no key of the DCC's is asked for.
    take(client, INCIDENT, assess(Method::SubscriberKey, relevant)).await;
    take(client, INCIDENT, recovers()).await;
    assert_eq!(state(client, INCIDENT).await, State::SubscriberRecovery);
    let close = format!("/v1/incidents/{INCIDENT}/close");
    assert_eq!(rules(&site.refused(client, &close, &why("too early")).await), ["open-duty"]);
    carrier.inform().await.unwrap();
    client.post::<_, wire::Recorded>(&close, &why("the Supplier replaced its certificates")).await.unwrap();
    assert_eq!(state(client, INCIDENT).await, State::Closed);
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn an_incident_is_about_a_certificate_of_the_subscriber_that_notifies() {
    let site = Site::founded().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    // The certificate of an OCA is of no Subscriber, and not of the class that the notification says.
    let mut ask = incident(&site.base.lab);
    ask.certificate_pem = certificate_to_pem(site.base.lab.issuing_oca().octets());
    let refused = site.refused(client, "/v1/incidents", &ask).await;
    assert!(!refused.reasons.is_empty(), "{refused:?}");
    // A notification file of another Party's ARO is not this Subscriber's.
    let carrier = site.carrier(client, INCIDENT);
    let devices: Vec<_> = (0..TARGETS).map(device).collect();
    carrier.assess(&devices, Method::NewOrganisationCertificates).await.unwrap();
    let victim = &site.base.lab.before()[0];
    let file = format!(
        "notifier,party,certificate-sha256,compromise,time,channel,class\nARO Two,{},{},actual,{},telephone,organisation\n",
        smkid::exercise::policy::AFFECTED,
        victim.sha256(),
        wall_clock()
    );
    let other = &site.base.people.officers[1].first;
    let signature = smkid::exercise::documents::sign(file.as_bytes(), other, wall_clock()).unwrap();
    let ask = wire::FileSubmit {
        kind: smkid::domain::names::FileKind::OrganisationNotification,
        octets: Some(wire::Base64(file.into_bytes())),
        staged: None,
        signature: Some(wire::Base64(signature)),
    };
    let refused = site.refused(client, &format!("/v1/incidents/{INCIDENT}/files"), &ask).await;
    assert!(rules(&refused).iter().any(|rule| rule.starts_with("signer")), "{refused:?}");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn after_a_determination_not_to_execute_new_facts_lead_back_to_the_pma_which_determines_anew() {
    let site = Site::founded().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    let carrier = site.carrier(client, INCIDENT);
    let devices: Vec<_> = (0..TARGETS).map(device).collect();
    let notification = carrier.assess(&devices, Method::NewOrganisationCertificates).await.unwrap();
    let refer =
        |facts: Option<&str>| Step::Refer { notification: Some(notification), new_facts: facts.map(Into::into) };
    carrier.status_and_thresholds().await.unwrap();
    // Before any determination nothing is new.
    assert_eq!(rules(&refuse(&site, client, INCIDENT, refer(Some("a second key"))).await), ["new-facts"]);
    carrier.step(refer(None)).await.unwrap();
    let list = device_list(0..TARGETS);
    let negative = site.determination(client, 1, &list, not_execute).await;
    site.deliver(client, &negative, APPROVALS, None).await.unwrap();
    assert_eq!(state(client, INCIDENT).await, State::DeterminedNotToExecute);

    assert_eq!(rules(&refuse(&site, client, INCIDENT, refer(None)).await), ["new-facts"]);
    take(client, INCIDENT, refer(Some("misuse of the key was seen"))).await;
    assert_eq!(state(client, INCIDENT).await, State::Referred);
    let positive = site.determination(client, 1, &list, |form| form.decision_number = 2).await;
    site.deliver(client, &positive, APPROVALS, Some(&list)).await.unwrap();
    assert_eq!(state(client, INCIDENT).await, State::DeterminedToExecute);
    // The one before opens nothing still.
    site.carrier(client, INCIDENT).prepare().await.unwrap();
    site.activate(client).await.unwrap();
    let refused = site.refused(client, "/v1/recovery/sign", &ask_for_all(negative.form().id)).await;
    assert!(rules(&refused).contains(&"determination-negative"), "{refused:?}");
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

/// Refers an incident of its own and has it determined.
async fn determined(
    site: &Site,
    client: &Client,
    incident: &str,
    change: fn(&mut Determination),
) -> Written<Determination> {
    site.refer(client, incident, (0..TARGETS).map(device)).await;
    let list = device_list(0..TARGETS);
    let document = site.determination(client, 1, &list, |form| {
        form.incident = incident.parse().unwrap();
        change(form);
    });
    let document = document.await;
    let listed = document.form().devices.is_some().then_some(&*list);
    site.deliver(client, &document, APPROVALS, listed).await.unwrap();
    document
}

#[tokio::test]
async fn nothing_is_prepared_under_a_determination_that_is_suspended_or_has_no_scope_yet() {
    let site = Site::founded().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    let prepare = || Step::Prepare { note: note() };
    let suspended = determined(&site, client, "INC-1", |_| {}).await;
    site.suspend(client, &suspended).await;
    let refused = refuse(&site, client, "INC-1", prepare()).await;
    assert_eq!(rules(&refused), ["determination"]);
    assert!(refused.reasons[0].text.contains("suspended until"), "{refused:?}");
    determined(&site, client, "INC-2", left_to_a_schedule).await;
    assert_eq!(rules(&refuse(&site, client, "INC-2", prepare()).await), ["scope"]);
    assert_eq!(state(client, "INC-2").await, State::DeterminedToExecute);
    assert!(daemon.stop().await.unwrap().success());
}

/// How far an incident is carried.
const WAY: [State; 5] =
    [State::DeterminedToExecute, State::Prepared, State::KeyActive, State::Executing, State::Paused];

/// Carries an incident that was determined to a state of the way.
async fn carry(site: &Site, client: &Client, document: &Written<Determination>, to: State) {
    let incident = document.form().incident.as_str().to_owned();
    for reached in &WAY[..=WAY.iter().position(|state| *state == to).unwrap()] {
        if *reached == State::Prepared {
            site.carrier(client, &incident).prepare().await.unwrap();
        } else if *reached == State::KeyActive {
            site.activate_for(client, &incident).await.unwrap();
        } else if *reached == State::Executing {
            let items = whole(lines(client, "/v1/recovery/sign", &ask_for_all(document.form().id)).await);
            assert_eq!(items.len(), TARGETS as usize);
        } else if *reached == State::Paused {
            take(client, &incident, Step::Pause { reason: note() }).await;
        }
    }
    assert_eq!(state(client, &incident).await, to);
}

#[tokio::test]
async fn a_withdrawal_ends_an_incident_in_every_state_before_it_is_executed_and_none_after() {
    let site = Site::founded().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    for (n, to) in (1..).zip(WAY) {
        let incident = format!("INC-{n}");
        let document = determined(&site, client, &incident, |_| {}).await;
        carry(&site, client, &document, to).await;
        site.withdraw(client, &document).await;
        assert_eq!(state(client, &incident).await, State::Withdrawn, "from {to}");
        // Nothing leads out but its closure: the stranded accepted, everybody told.
        for step in [Step::Prepare { note: note() }, Step::Pause { reason: note() }, Step::Finish { note: note() }] {
            let refused = refuse(&site, client, &incident, step).await;
            assert!(rules(&refused).contains(&"incident-state"), "{refused:?}");
        }
        let refused = site.refused(client, "/v1/recovery/sign", &ask_for_all(document.form().id)).await;
        assert!(rules(&refused).contains(&"withdrawn"), "{refused:?}");
        site.close_withdrawn(client, &incident).await;
        assert_eq!(state(client, &incident).await, State::Closed);
    }
    // Once every target came to an end there is nothing to withdraw from.
    let document = determined(&site, client, "INC-9", |_| {}).await;
    carry(&site, client, &document, State::Executing).await;
    let devices: Vec<_> = (0..TARGETS).map(device).collect();
    let all = site.carrier(client, "INC-9").upload(&plain(&devices), devices.len()).await.unwrap();
    take(client, "INC-9", Step::Exclude { devices: all, reason: "none of them answered".into() }).await;
    take(client, "INC-9", Step::Finish { note: note() }).await;
    site.withdraw(client, &document).await;
    assert_eq!(state(client, "INC-9").await, State::Executed);
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_key_that_is_locked_pauses_what_it_executes_and_the_next_activation_goes_on() {
    let site = Site::founded().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    let document = determined(&site, client, INCIDENT, |_| {}).await;
    carry(&site, client, &document, State::Executing).await;
    client.post_nothing::<wire::KeyChanged>(&format!("/v1/keys/{RECOVERY_KEY}/lock")).await.unwrap();
    assert_eq!(state(client, INCIDENT).await, State::Paused);
    let refused = site.refused(client, "/v1/recovery/sign", &ask_for_all(document.form().id)).await;
    assert!(rules(&refused).contains(&"key-locked"), "{refused:?}");
    site.activate(client).await.unwrap();
    assert_eq!(state(client, INCIDENT).await, State::KeyActive);
    // Under a determination that is withdrawn meanwhile, no activation brings anything back.
    site.withdraw(client, &document).await;
    let refused = problem(site.activate(client).await);
    assert!(rules(&refused).contains(&"withdrawn"), "{refused:?}");
    assert_eq!(state(client, INCIDENT).await, State::Withdrawn);
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn what_method_2_recovered_is_under_the_dccs_control_until_it_is_handed_over_and_then_the_incident_may_end() {
    let site = Site::founded().await;
    let base = site.base;
    let daemon = site.start().await;
    let client = &daemon.client;
    let carrier = site.carrier(client, INCIDENT);
    let devices: Vec<_> = (0..TARGETS).map(device).collect();
    let notification = carrier.assess(&devices, Method::AcbCertificates).await.unwrap();
    carrier.refer(notification).await.unwrap();
    let list = device_list(0..TARGETS);
    let acb = template(&base.lab, &base.recovery, base.lab.broker()).unwrap();
    let document = site.determination(client, 1, &list, |form| {
        form.method = Some(Method::AcbCertificates);
        let payload = Payload::new(acb.octets()).unwrap();
        form.templates = Some(vec![Template { name: template_name(), payload }]);
    });
    let document = document.await;
    site.deliver(client, &document, APPROVALS, Some(&list)).await.unwrap();
    carry(&site, client, &document, State::KeyActive).await;
    let items = whole(lines(client, "/v1/recovery/sign", &ask_for_all(document.form().id)).await);

    // The Devices answer, and prove it.
    let (made, judge) = (Made::new(&base.lab, &base.recovery), Judge::new(base.lab.profile().clone()));
    let (mut answers, mut certificates) = (Vec::new(), String::new());
    for item in &items {
        let mut meter = Device::make(item.device, item.counter.unwrap() - 1, &made, &base.lab).unwrap();
        answers.extend(meter.receive(&item.command.as_ref().unwrap().0, &judge, wall_clock()).unwrap());
        certificates.push_str(&certificate_to_pem(meter.certificate()));
    }
    std::fs::write(site.path("answers.bin"), answers).unwrap();
    std::fs::write(site.path("devices.pem"), certificates).unwrap();
    let of = format!("--determination {}", document.form().id);
    site.smkictl(&format!("recovery responses answers.bin --certificates devices.pem {of}")).ok();
    carrier.end(&devices, Method::NewOrganisationCertificates).await.unwrap();
    assert_eq!(state(client, INCIDENT).await, State::PostRecovery);

    // Nobody has them back yet.
    let close = format!("/v1/incidents/{INCIDENT}/close");
    assert_eq!(rules(&site.refused(client, &close, &why("too early")).await), ["hand-over"]);
    let back = status(SmiStatus::Commissioned, None, wall_clock());
    let refused = refuse(&site, client, INCIDENT, back).await;
    assert!(rules(&refused).contains(&"device-unfit"), "{refused:?}");
    assert!(refused.reasons[0].text.contains("under the DCC's control"), "{refused:?}");
    take(client, INCIDENT, Step::HandOver { devices: None, evidence: "SRV 6.21 of the Supplier".into() }).await;
    assert_eq!(carrier.progress().await.unwrap().devices.under_dcc_control, 0);
    client.post::<_, wire::Recorded>(&close, &why("handed over")).await.unwrap();
    assert_eq!(state(client, INCIDENT).await, State::Closed);
    // One Device's story has all of it, in this order.
    let path = format!("/v1/incidents/{INCIDENT}/devices/{}", device(0));
    let story: wire::DeviceHistory = client.get(&path).await.unwrap();
    let mut told = story.items.iter().map(|item| item.what.as_str());
    let counter = format!("Command intended: template {}, counter ", template_name());
    for phrase in [
        "Assessed, Method 2",
        "SMI Status 'Recovery' from ",
        &counter,
        " signed",
        " released to request ",
        "Response: recovered, to the command of intent ",
        "SMI Status 'Recovered' from ",
        "Handed back to its Subscriber: SRV 6.21",
        "The incident was closed: handed over",
    ] {
        assert!(told.any(|what| what.contains(phrase)), "expected {phrase:?} in its place in {story:#?}");
    }
    assert!(story.items.is_sorted_by_key(|item| item.entry));
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}
