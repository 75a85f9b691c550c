//! The gates of the procedure over the daemon's own API, by a clock that is set: every row of the truth table in the base procedure and
//! under the direction of 18 July 2017, and each edge of that direction from both sides.

use smkid::api::client::Client;
use smkid::api::wire::{self, ItemOutcome};
use smkid::domain::determination::document::{Method, SymmetricKeyLine};
use smkid::domain::ledger::entry::Event;
use smkid::domain::ledger::steps::{SmiStatus, Step};
use smkid::domain::names::{DeterminationId, Digest, FileKind};
use smkid::domain::procedure::explain::{Explanation, MayWord, StandingWord};
use smkid::exercise::people::APPROVALS;
use smkid::exercise::procedure::{Carrier, Order, status};

use crate::support::desk::Done;
use crate::support::site::{
    Site, accept_clock, ask_for, device, device_list, lines, not_execute, problem, rules, whole,
};

/// The direction, as the policy calls it.
const VARIATION: &str = "direction-2017-07-18";
const VARIATION_FILE: &str = "procedure/direction-2017-07-18.toml";
/// The last minute of the base procedure alone, and the first instant under the direction: midnight in London, by summer time.
const BEFORE: &str = "2017-07-20T22:59:00Z";
const FROM: &str = "2017-07-20T23:00:00Z";
const SIGN: &str = "/v1/recovery/sign";
/// Targets of each incident.
const TARGETS: u32 = 3;

/// What the SMKI PMA determines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Determined {
    Nothing,
    NotToExecute,
    WithRecoveryKey,
    WithContingencyKey,
}

/// A row of the gate truth table.
#[derive(Debug)]
struct Row {
    varied: bool,
    determined: Determined,
    /// How SMI Status 'recovery' and ADT file stand, where each was done when the procedure in force first asked for it.
    status: (&'static str, MayWord),
    adt: (&'static str, MayWord),
    /// Whether the Recovery key may sign; the Contingency key never does, for these incidents are about a Supplier's.
    signs: bool,
}

/// All seven of it.
const TABLE: [Row; 7] = [
    Row {
        varied: true,
        determined: Determined::Nothing,
        status: ("not-yet-due", MayWord::WithReason),
        adt: ("not-yet-due", MayWord::Yes),
        signs: false,
    },
    Row {
        varied: true,
        determined: Determined::NotToExecute,
        status: ("not-required", MayWord::No),
        adt: ("not-required", MayWord::No),
        signs: false,
    },
    Row {
        varied: true,
        determined: Determined::WithRecoveryKey,
        status: ("due", MayWord::Yes),
        adt: ("due", MayWord::Yes),
        signs: true,
    },
    // Refused, for the key is a Supplier's, so the row is that of no determination.
    Row {
        varied: true,
        determined: Determined::WithContingencyKey,
        status: ("not-yet-due", MayWord::WithReason),
        adt: ("not-yet-due", MayWord::Yes),
        signs: false,
    },
    Row {
        varied: false,
        determined: Determined::Nothing,
        status: ("due", MayWord::Yes),
        adt: ("due", MayWord::Yes),
        signs: false,
    },
    Row {
        varied: false,
        determined: Determined::NotToExecute,
        status: ("done", MayWord::No),
        adt: ("done", MayWord::No),
        signs: false,
    },
    Row {
        varied: false,
        determined: Determined::WithRecoveryKey,
        // What was recorded may be corrected until the Devices are recovered.
        status: ("done", MayWord::Yes),
        adt: ("done", MayWord::Yes),
        signs: true,
    },
];

fn steps(incident: &str) -> String {
    format!("/v1/incidents/{incident}/steps")
}

fn ask(step: Step) -> wire::StepAsk {
    wire::StepAsk { step }
}

/// The SMKI PMA directs that the variation lasts until another day.
fn extend(site: &Site, until: &str) -> Done {
    site.direct(&format!("[extension]\nvariation = \"{VARIATION}\"\n{until}\n"), APPROVALS)
}

async fn explained(client: &Client, incident: &str, at: Option<&str>) -> Explanation {
    let at = at.map_or_else(String::new, |at| format!("&at={at}"));
    client.get(&format!("/v1/procedure?incident={incident}{at}")).await.unwrap()
}

fn standing<'a>(explained: &'a Explanation, step: &str) -> (&'a str, MayWord) {
    let step = explained.steps.iter().find(|found| found.step.as_str() == step).unwrap();
    let standing = step.standing.as_ref().unwrap();
    (&standing.is, standing.may_be_taken)
}

fn is_varied(explained: &Explanation) -> bool {
    let variation = explained.variations.iter().find(|found| found.variation.as_str() == VARIATION).unwrap();
    let varied = variation.standing == StandingWord::InForce;
    // What it offers comes and goes with it.
    assert_eq!(explained.optional_factors.len(), usize::from(varied), "{variation:?}");
    varied
}

impl Row {
    /// The daemon explains the incident as the row has it.
    async fn check(&self, client: &Client, incident: &str) {
        let explained = explained(client, incident, None).await;
        assert_eq!(is_varied(&explained), self.varied, "{self:?}");
        assert_eq!(standing(&explained, "set-smi-status-recovery"), self.status, "{self:?}");
        assert_eq!(standing(&explained, "submit-adt-file"), self.adt, "{self:?}");
        let of = explained.incident.unwrap();
        assert_eq!((of.recovery_key_may_sign, of.contingency_key_may_sign), (self.signs, false), "{self:?}");
    }

    /// An incident of its own about Devices of its own, carried to where the row is, with what is refused on the way.
    async fn hold(&self, site: &Site, client: &Client, n: u32) {
        let (incident, own) = (&*format!("INC-{n}"), n * TARGETS..(n + 1) * TARGETS);
        let carrier = site.carrier(client, incident);
        let devices: Vec<_> = own.clone().map(device).collect();
        let notification = carrier.assess(&devices, Method::NewOrganisationCertificates).await.unwrap();
        if self.determined == Determined::Nothing {
            self.check(client, incident).await;
            self.before_any_determination(site, &carrier, notification).await;
            return;
        }
        carrier.refer(notification).await.unwrap();
        let list = device_list(own.clone());
        let document = site
            .determination(client, 1, &list, |form| {
                form.incident = incident.parse().unwrap();
                match self.determined {
                    Determined::Nothing | Determined::WithRecoveryKey => {}
                    Determined::NotToExecute => not_execute(form),
                    Determined::WithContingencyKey => {
                        form.method = Some(Method::Contingency);
                        form.key.as_mut().unwrap().label = "contingency-1".parse().unwrap();
                        let next = "contingency-2".parse().unwrap();
                        let (root_sha256, next_root_sha256) = (Digest([0x71; 32]), Digest([0x72; 32]));
                        form.symmetric_key = Some(SymmetricKeyLine { root_sha256, next, next_root_sha256 });
                    }
                }
            })
            .await;
        let of_list = document.form().devices.is_some().then_some(&*list);
        let delivered = site.deliver(client, &document, APPROVALS, of_list).await;
        let (first, second) = (own.start, own.start + 1);
        let sign = ask_for(document.form().id, first..second);
        match self.determined {
            Determined::WithContingencyKey => {
                let refused = problem(delivered);
                let found = rules(&refused);
                assert!(found.contains(&"admission") && found.contains(&"method"), "{refused:?}");
                assert!(refused.reasons[0].text.contains("key contingency-1 is not in the policy"), "{refused:?}");
                let recorded = site.ledger().refusals().pop().cloned().unwrap();
                assert_eq!((recorded.reasons, &*recorded.operation), (refused.reasons, "document-record"));
                let of: wire::Incident = client.get(&format!("/v1/incidents/{incident}")).await.unwrap();
                assert_eq!(of.determinations, []);
            }
            Determined::Nothing | Determined::NotToExecute | Determined::WithRecoveryKey => drop(delivered.unwrap()),
        }
        self.check(client, incident).await;
        if self.signs {
            if self.varied {
                let early = ask(Step::Prepare { note: "too early".into() });
                let refused = site.refused(client, &steps(incident), &early).await;
                assert_eq!(rules(&refused), ["smi-status", "adt-file"]);
            }
            let locked = site.refused(client, SIGN, &sign).await;
            assert!(rules(&locked).contains(&"key-locked"), "{locked:?}");
            carrier.prepare().await.unwrap();
            site.activate_for(client, incident).await.unwrap();
            let items = whole(lines(client, SIGN, &sign).await);
            assert!(items.iter().all(|item| item.outcome == ItemOutcome::Signed) && items.len() == 1, "{items:?}");
        } else {
            let expected = match self.determined {
                Determined::NotToExecute => "determination-negative",
                Determined::Nothing | Determined::WithRecoveryKey | Determined::WithContingencyKey => {
                    "determination-unknown"
                }
            };
            let refused = site.refused(client, SIGN, &sign).await;
            assert!(rules(&refused).contains(&expected), "{refused:?}");
        }
    }

    /// What may be done, and what not, while the SMKI PMA has determined nothing.
    async fn before_any_determination(&self, site: &Site, carrier: &Carrier<'_>, notification: Digest) {
        let (client, path) = (carrier.client, steps(carrier.incident.as_str()));
        let nothing = ask_for(DeterminationId([9; 16]), 0..1);
        assert!(rules(&site.refused(client, SIGN, &nothing).await).contains(&"determination-unknown"));
        let set = |reason: Option<&str>| {
            let mut step = status(SmiStatus::Recovery, None, carrier.clock.now());
            if let Step::SetStatus { reason: stated, .. } = &mut step {
                *stated = reason.map(Into::into);
            }
            ask(step)
        };
        if self.varied {
            // A relief, and no prohibition: whoever sets it early says why.
            let refused = site.refused(client, &path, &set(None)).await;
            assert_eq!(rules(&refused), ["reason"]);
            assert!(refused.reasons[0].text.contains("clause (a)"), "{refused:?}");
            let reason = Some("the meters must not be reached for an hour");
            client.post::<_, wire::Recorded>(&path, &set(reason)).await.unwrap();
            let thresholds = "smsr,user-id,service-request,period-minutes,warning,quarantine\n";
            let user = smkid::exercise::lab::party_of(&site.base.lab.before()[0]);
            carrier.submit(FileKind::Adt, &format!("{thresholds}SMSR-1,{user},all,1440,9000,10000\n")).await.unwrap();
        } else {
            let refer = ask(Step::Refer { notification: Some(notification), new_facts: None });
            assert_eq!(rules(&site.refused(client, &path, &refer).await), ["smi-status", "adt-file"]);
            // No reason is asked for what is owed.
            client.post::<_, wire::Recorded>(&path, &set(None)).await.unwrap();
            assert_eq!(rules(&site.refused(client, &path, &refer).await), ["adt-file"]);
        }
    }
}

#[tokio::test]
async fn every_row_of_the_gate_truth_table_holds_over_the_api_in_the_last_minute_before_and_the_first_after_the_edge() {
    let base = Site::set_before_the_variation().await;
    let mut held = 0;
    for (moment, order) in [(BEFORE, Order::BeforeReferral), (FROM, Order::AfterDetermination)] {
        let mut site = Site::founded_of(base);
        site.set_clock(moment, order);
        let daemon = site.start().await;
        let client = &daemon.client;
        for (n, row) in (0..).zip(TABLE).filter(|(_, row)| row.varied == (order == Order::AfterDetermination)) {
            row.hold(&site, client, n).await;
            held += 1;
        }
        site.verify_export("export");
        assert!(daemon.stop().await.unwrap().success());
        let ledger = site.ledger();
        assert_eq!(ledger.signed().len(), 1, "one row of each signs, and one Device was asked for");
        let last = ledger.entries.last().unwrap().at;
        assert!(moment == FROM || last < FROM.parse().unwrap(), "the last minute was over at {last}");
    }
    assert_eq!(held, TABLE.len());
}

#[tokio::test]
async fn the_factor_of_clause_b_is_taken_while_the_variation_is_in_force_never_asked_for_and_refused_before() {
    let base = Site::set_before_the_variation().await;
    for (moment, order, offered) in [(BEFORE, Order::BeforeReferral, false), (FROM, Order::AfterDetermination, true)] {
        let mut site = Site::founded_of(base);
        site.set_clock(moment, order);
        let daemon = site.start().await;
        let client = &daemon.client;
        for (incident, with) in [("INC-1", true), ("INC-2", false)] {
            site.refer(client, incident, (0..TARGETS).map(device)).await;
            let document = site
                .determination(client, 1, &device_list(0..TARGETS), |form| {
                    form.incident = incident.parse().unwrap();
                    form.factors.retain(|factor| factor.id.as_str() != "stays-unreachable");
                    if with {
                        let mut factor = form.factors[0].clone();
                        factor.id = "stays-unreachable".parse().unwrap();
                        form.factors.push(factor);
                    }
                    not_execute(form);
                })
                .await;
            let delivered = site.deliver(client, &document, APPROVALS, None).await;
            if with && !offered {
                let refused = problem(delivered);
                assert_eq!(rules(&refused), ["admission"], "{refused:?}");
                assert!(refused.reasons[0].text.contains("factor stays-unreachable"), "{refused:?}");
            } else {
                delivered.unwrap();
            }
        }
        assert!(daemon.stop().await.unwrap().success());
    }
}

/// Moments, and whether the variation is in force at each: `excluded` says how its last day is read, `until` what an extension says.
fn edges(excluded: bool, extended: bool) -> [(&'static str, bool); 4] {
    let (last, first) = match (excluded, extended) {
        // In November London has Greenwich time again.
        (false, false) => ("2017-11-02T23:59:59.999Z", "2017-11-03T00:00:00Z"),
        (true, false) => ("2017-11-01T23:59:59.999Z", "2017-11-02T00:00:00Z"),
        (false, true) => ("2018-01-31T23:59:59.999Z", "2018-02-01T00:00:00Z"),
        (true, true) => ("2018-01-30T23:59:59.999Z", "2018-01-31T00:00:00Z"),
    };
    [("2017-07-20T22:59:59.999Z", false), (FROM, true), (last, true), (first, false)]
}

#[tokio::test]
async fn each_edge_of_the_variation_is_explained_from_both_sides_for_both_readings_of_its_last_day_and_extended() {
    let mut site = Site::founded_of(Site::set_before_the_variation().await);
    site.set_clock(BEFORE, Order::BeforeReferral);
    let daemon = site.start().await;
    let client = &daemon.client;
    let devices: Vec<_> = (0..TARGETS).map(device).collect();
    site.carrier(client, "INC-1").assess(&devices, Method::NewOrganisationCertificates).await.unwrap();
    let check = async |excluded: bool, extended: bool| {
        for (moment, varied) in edges(excluded, extended) {
            let explained = explained(client, "INC-1", Some(moment)).await;
            assert_eq!(is_varied(&explained), varied, "{moment} {excluded} {extended}");
            for (step, early) in [("set-smi-status-recovery", MayWord::WithReason), ("submit-adt-file", MayWord::Yes)] {
                let expected = if varied { ("not-yet-due", early) } else { ("due", MayWord::Yes) };
                assert_eq!(standing(&explained, step), expected, "{step} at {moment} {excluded} {extended}");
            }
            // By the command line, in JSON, the same.
            let told = site.smkictl(&format!("procedure explain --incident INC-1 --at {moment} --output json")).ok();
            assert_eq!(serde_json::from_str::<Explanation>(&told.out).unwrap(), explained);
        }
    };
    let excluded =
        site.changed_policy(VARIATION_FILE, |text| text.replace("end_day = \"included\"", "end_day = \"excluded\""));
    check(false, false).await;
    site.adopt(client, &excluded, vec![]).await;
    check(true, false).await;
    extend(&site, "until = \"2018-01-31\"").ok();
    check(true, true).await;
    site.adopt(client, &site.policy_files(), vec![]).await;
    check(false, true).await;

    // A date stands for its first instant in London.
    for (date, begins, expected) in [
        ("2017-07-20", "2017-07-19T23:00:00.000Z", "not yet in force"),
        ("2017-07-21", "2017-07-20T23:00:00.000Z", "IN FORCE"),
        ("2018-01-31", "2018-01-31T00:00:00.000Z", "IN FORCE"),
        ("2018-02-01", "2018-02-01T00:00:00.000Z", "over"),
    ] {
        let told = site.smkictl(&format!("procedure explain --at {date}")).ok().out;
        let (in_force, stands) =
            (format!("PROCEDURE in force at {begins}"), format!("VARIATION {VARIATION}: {expected}"));
        assert!(told.contains(&in_force) && told.contains(&stands), "{date}: {told}");
        assert!(
            told.contains("from 2017-07-21 until 2018-01-31, that day included, as extended by direction"),
            "{told}"
        );
    }
    // Until further notice is the last extension that there can be.
    extend(&site, "without_end = true").ok();
    assert!(is_varied(&explained(client, "INC-1", Some("2100-06-01T00:00:00Z")).await));
    extend(&site, "until = \"2101-01-01\"").is(4).says("there is nothing to extend");
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

/// The variations under which the last step was taken, as its entry says.
fn taken_under(site: &Site) -> Vec<String> {
    let entries = site.ledger().entries;
    let profile = entries.iter().rev().find_map(|entry| {
        if let Event::StepTaken(taken) = &entry.event { Some(&taken.profile.variations) } else { None }
    });
    profile.unwrap().iter().map(ToString::to_string).collect()
}

async fn assess(site: &Site, client: &Client, incident: &str) -> Digest {
    let devices: Vec<_> = (0..TARGETS).map(device).collect();
    let carrier = site.carrier(client, incident);
    carrier.assess(&devices, Method::NewOrganisationCertificates).await.unwrap()
}

/// Refers an incident without SMI Status and ADT file: what the base procedure refuses and the variation lets pass.
async fn refer(site: &Site, client: &Client, incident: &str, notification: Digest, varied: bool) {
    let (path, refer) = (steps(incident), ask(Step::Refer { notification: Some(notification), new_facts: None }));
    if varied {
        client.post::<_, wire::Recorded>(&path, &refer).await.unwrap();
        assert_eq!(taken_under(site), [VARIATION]);
    } else {
        assert_eq!(rules(&site.refused(client, &path, &refer).await), ["smi-status", "adt-file"]);
    }
}

#[tokio::test]
async fn each_step_goes_by_the_profile_of_its_own_moment_on_both_sides_of_each_edge() {
    let mut site = Site::founded_of(Site::set_before_the_variation().await);
    site.set_clock(BEFORE, Order::BeforeReferral);
    let daemon = site.start().await;
    let first = assess(&site, &daemon.client, "INC-1").await;
    assert_eq!(taken_under(&site), [""; 0]);
    refer(&site, &daemon.client, "INC-1", first, false).await;
    assert!(daemon.stop().await.unwrap().success());

    site.set_clock(FROM, Order::AfterDetermination);
    let daemon = site.start().await;
    refer(&site, &daemon.client, "INC-1", first, true).await;
    assert!(daemon.stop().await.unwrap().success());

    site.set_clock("2017-11-02T23:59:00Z", Order::AfterDetermination);
    let daemon = site.start().await;
    accept_clock(&daemon.client).await;
    let second = assess(&site, &daemon.client, "INC-2").await;
    refer(&site, &daemon.client, "INC-2", second, true).await;
    let third = assess(&site, &daemon.client, "INC-3").await;
    assert!(daemon.stop().await.unwrap().success());
    assert!(site.ledger().entries.last().unwrap().at < "2017-11-03T00:00:00Z".parse().unwrap());

    site.set_clock("2017-11-03T00:00:00Z", Order::AfterDetermination);
    let daemon = site.start().await;
    let client = &daemon.client;
    refer(&site, client, "INC-3", third, false).await;
    // Referred under the variation, and not determined when it ended: the base rule is back, and both are owed.
    let explained = explained(client, "INC-1", None).await;
    for step in ["set-smi-status-recovery", "submit-adt-file"] {
        assert_eq!(standing(&explained, step), ("due", MayWord::Yes), "{step}");
    }
    extend(&site, "until = \"2018-01-31\"").is(4).says("an extension does not bridge a gap");
    // What was referred is determined, made up for, and signed under the base procedure.
    let list = device_list(0..TARGETS);
    let document = site.determination(client, 1, &list, |form| {
        form.factors.retain(|factor| factor.id.as_str() != "stays-unreachable");
    });
    let document = document.await;
    site.deliver(client, &document, APPROVALS, Some(&list)).await.unwrap();
    let early = ask(Step::Prepare { note: "too early".into() });
    assert_eq!(rules(&site.refused(client, &steps("INC-1"), &early).await), ["smi-status", "adt-file"]);
    site.carrier(client, "INC-1").prepare().await.unwrap();
    assert_eq!(taken_under(&site), [""; 0]);
    site.activate(client).await.unwrap();
    assert_eq!(whole(lines(client, SIGN, &ask_for(document.form().id, 0..1)).await).len(), 1);
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn with_its_last_day_excluded_the_variation_ends_a_day_earlier_for_steps_too() {
    let mut site = Site::founded_of(Site::set_before_the_variation().await);
    site.set_clock("2017-11-01T23:59:00Z", Order::AfterDetermination);
    let daemon = site.start().await;
    let client = &daemon.client;
    accept_clock(client).await;
    let files =
        site.changed_policy(VARIATION_FILE, |text| text.replace("end_day = \"included\"", "end_day = \"excluded\""));
    site.adopt(client, &files, vec![]).await;
    let first = assess(&site, client, "INC-1").await;
    refer(&site, client, "INC-1", first, true).await;
    let second = assess(&site, client, "INC-2").await;
    assert!(daemon.stop().await.unwrap().success());
    assert!(site.ledger().entries.last().unwrap().at < "2017-11-02T00:00:00Z".parse().unwrap());

    site.set_clock("2017-11-02T00:00:00Z", Order::AfterDetermination);
    let daemon = site.start().await;
    refer(&site, &daemon.client, "INC-2", second, false).await;
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn an_extension_recorded_in_time_carries_the_relief_over_the_edge_to_its_own() {
    let mut site = Site::founded_of(Site::set_before_the_variation().await);
    site.set_clock("2017-11-02T23:50:00Z", Order::AfterDetermination);
    let daemon = site.start().await;
    let client = &daemon.client;
    accept_clock(client).await;
    let explain = |at: &str| site.smkictl(&format!("procedure explain --at {at}")).ok().out;
    assert!(explain("2017-11-03").contains(&format!("VARIATION {VARIATION}: over")));
    extend(&site, "until = \"2017-11-02\"").is(4).says("would not prolong it");
    extend(&site, "until = \"2018-01-31\"").ok();
    let told = explain("2017-11-03");
    assert!(told.contains(&format!("VARIATION {VARIATION}: IN FORCE")), "{told}");
    let first = assess(&site, client, "INC-1").await;
    assert!(daemon.stop().await.unwrap().success());

    // After the day that the shipped file names.
    site.set_clock("2017-11-03T00:00:00Z", Order::AfterDetermination);
    let daemon = site.start().await;
    refer(&site, &daemon.client, "INC-1", first, true).await;
    assert!(daemon.stop().await.unwrap().success());

    site.set_clock("2018-01-31T23:59:00Z", Order::AfterDetermination);
    let daemon = site.start().await;
    accept_clock(&daemon.client).await;
    let second = assess(&site, &daemon.client, "INC-2").await;
    refer(&site, &daemon.client, "INC-2", second, true).await;
    let third = assess(&site, &daemon.client, "INC-3").await;
    assert!(daemon.stop().await.unwrap().success());
    assert!(site.ledger().entries.last().unwrap().at < "2018-02-01T00:00:00Z".parse().unwrap());

    site.set_clock("2018-02-01T00:00:00Z", Order::AfterDetermination);
    let daemon = site.start().await;
    refer(&site, &daemon.client, "INC-3", third, false).await;
    site.verify_export("export");
    let verified = site.verify("export").ok().out;
    assert!(verified.lines().any(|line| line.split_whitespace().eq(["directions", "1"])), "{verified}");
    assert!(daemon.stop().await.unwrap().success());
}
