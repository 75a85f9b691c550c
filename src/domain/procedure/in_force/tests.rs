use super::*;
use crate::domain::policy::Policy;
use crate::domain::policy::tests::{changed, example, policy};
use crate::domain::procedure::CivilDate;
use crate::domain::procedure::variation::Recorded;

const STEPS: usize = 64;

/// The policy that is shipped, with one treatment of the end day.
pub(in crate::domain) fn shipped(end_day: &str) -> Policy {
    let file = "procedure/direction-2017-07-18.toml";
    if end_day == "included" {
        return policy(&example());
    }
    policy(&changed(file, "end_day = \"included\"", &format!("end_day = \"{end_day}\"")))
}

pub(in crate::domain) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(in crate::domain) fn step(id: &str) -> StepId {
    id.parse().unwrap()
}

pub(in crate::domain) fn extension(direction: u8, until: Option<&str>) -> Extension {
    Extension {
        direction: DirectionId([direction; 16]),
        variation: "direction-2017-07-18".parse().unwrap(),
        until: until.map(|date| date.parse().unwrap()),
        reference: "Direction of a later day".parse().unwrap(),
        recorded: at("2017-10-31T12:00:00Z"),
    }
}

/// An incident of which these steps were taken.
pub(in crate::domain) fn view(determination: Determined, done: &[&str]) -> IncidentView<'static> {
    IncidentView { determination, done: done.iter().map(|id| step(id)).collect(), ..IncidentView::new() }
}

/// What comes before SMI Status and ADT file.
const ASSESSED: &[&str] = &[
    "notify-compromise",
    "inform-parties",
    "inform-rdps",
    "inform-pma",
    "confirm-compromise",
    "assess",
    "submit-notification-file",
];
const NOT: Determined = Determined::NotToExecute;
const RECOVERY: Determined = Determined::Execute(WithKey::Recovery);
const CONTINGENCY: Determined = Determined::Execute(WithKey::Contingency);

/// Moments at which the variation is in force, and at which it is not, under the treatment of the end day and the extension: both
/// sides of each edge.
fn edges() -> Vec<(&'static str, Vec<Extension>, &'static str, bool)> {
    let late = || vec![extension(1, Some("2018-01-31"))];
    let twice = || vec![extension(1, Some("2018-01-31")), extension(2, Some("2017-12-31"))];
    let open = || vec![extension(1, Some("2018-01-31")), extension(2, None)];
    vec![
        ("included", vec![], "1996-01-01T00:00:00Z", false),
        ("included", vec![], "2017-07-20T22:59:59Z", false),
        ("included", vec![], "2017-07-20T22:59:59.999Z", false),
        ("included", vec![], "2017-07-20T23:00:00Z", true),
        ("included", vec![], "2017-07-21T00:00:00+01:00", true),
        // The end day, by then in GMT.
        ("excluded", vec![], "2017-11-01T23:59:59Z", true),
        ("excluded", vec![], "2017-11-01T23:59:59.999Z", true),
        ("excluded", vec![], "2017-11-02T00:00:00Z", false),
        ("included", vec![], "2017-11-02T00:00:00Z", true),
        ("included", vec![], "2017-11-02T23:59:59.999Z", true),
        ("included", vec![], "2017-11-03T00:00:00Z", false),
        ("excluded", vec![], "2017-11-02T23:59:59.999Z", false),
        // An extension, and an earlier date recorded after it, which takes nothing back.
        ("excluded", late(), "2017-11-02T00:00:00Z", true),
        ("excluded", late(), "2018-01-30T23:59:59.999Z", true),
        ("excluded", late(), "2018-01-31T00:00:00Z", false),
        ("included", late(), "2018-01-31T23:59:59.999Z", true),
        ("included", late(), "2018-02-01T00:00:00Z", false),
        ("included", twice(), "2018-01-31T23:59:59.999Z", true),
        ("included", twice(), "2018-02-01T00:00:00Z", false),
        // Until further notice.
        ("included", open(), "2018-02-01T00:00:00Z", true),
        ("excluded", open(), "2100-06-01T00:00:00Z", true),
        ("included", open(), "2017-07-20T22:59:59.999Z", false),
    ]
}

#[test]
fn a_variation_is_in_force_from_its_first_instant_until_the_last_of_its_end_day_as_treated_and_extended() {
    for (end_day, extensions, moment, expected) in edges() {
        let policy = shipped(end_day);
        let in_force = policy.procedure().unwrap().in_force(at(moment), &extensions);
        let ids = in_force.ids();
        assert_eq!(ids.base.as_str(), "base");
        let variations: Vec<&str> = ids.variations.iter().map(ProfileId::as_str).collect();
        let wanted: &[&str] = if expected { &["direction-2017-07-18"] } else { &[] };
        assert_eq!(variations, wanted, "{end_day} {extensions:?} {moment}");
        assert_eq!(in_force.optional_factors().count(), usize::from(expected));
    }
}

/// A row of the gate truth table.
struct Row {
    varied: bool,
    determined: Determined,
    /// Whether SMI Status 'recovery' is owed, and the ADT file.
    owed: (bool, bool),
    /// Whether each may be taken now.
    may: (May, May),
    /// Whether the Recovery key may sign, and the Contingency key.
    signs: (bool, bool),
}

/// The gate truth table of the variation, with the row that it leaves out: the Contingency key without it.
const TABLE: &[Row] = &[
    Row {
        varied: true,
        determined: Determined::None,
        owed: (false, false),
        may: (May::WithReason, May::Yes),
        signs: (false, false),
    },
    Row { varied: true, determined: NOT, owed: (false, false), may: (May::No, May::No), signs: (false, false) },
    Row { varied: true, determined: RECOVERY, owed: (true, true), may: (May::Yes, May::Yes), signs: (true, false) },
    Row { varied: true, determined: CONTINGENCY, owed: (true, true), may: (May::Yes, May::Yes), signs: (false, true) },
    Row {
        varied: false,
        determined: Determined::None,
        owed: (true, true),
        may: (May::Yes, May::Yes),
        signs: (false, false),
    },
    Row { varied: false, determined: NOT, owed: (false, false), may: (May::No, May::No), signs: (false, false) },
    Row { varied: false, determined: RECOVERY, owed: (true, true), may: (May::Yes, May::Yes), signs: (true, false) },
    Row { varied: false, determined: CONTINGENCY, owed: (true, true), may: (May::Yes, May::Yes), signs: (false, true) },
];

#[test]
fn a_determination_that_is_suspended_or_over_opens_no_key_and_gives_no_relief_back() {
    let policy = shipped("included");
    for moment in ["2017-08-01T00:00:00Z", "2018-08-01T00:00:00Z"] {
        let in_force = policy.procedure().unwrap().in_force(at(moment), &[]);
        let stands = view(RECOVERY, ASSESSED);
        let suspended = IncidentView { not_in_force: Some("suspended".into()), ..stands.clone() };
        for powers in ["prepare", "activate-key", "execute"] {
            let (before, after) =
                (required(&step(powers), &in_force, &stands), required(&step(powers), &in_force, &suspended));
            assert!(!matches!(before, Requirement::Blocked { .. }), "{powers}: {before}");
            assert!(matches!(after, Requirement::Blocked { .. }), "{powers}: {after}");
        }
        for duty in ["set-smi-status-recovery", "submit-adt-file"] {
            assert!(required(&step(duty), &in_force, &suspended).is_due(), "{duty}");
        }
        assert!(key_may_sign(WithKey::Recovery, &stands) && !key_may_sign(WithKey::Recovery, &suspended));
    }
}

#[test]
fn every_row_of_the_gate_truth_table_holds_on_both_sides_of_every_date_edge() {
    let mut asked = 0;
    for (end_day, extensions, moment, varied) in edges() {
        let policy = shipped(end_day);
        let in_force = policy.procedure().unwrap().in_force(at(moment), &extensions);
        for row in TABLE.iter().filter(|row| row.varied == varied) {
            let place = format!("{end_day} {moment} {:?}", row.determined);
            let view = view(row.determined, ASSESSED);
            let status = required(&step("set-smi-status-recovery"), &in_force, &view);
            let adt = required(&step("submit-adt-file"), &in_force, &view);
            assert_eq!((status.is_due(), adt.is_due()), row.owed, "{place}: {status}; {adt}");
            assert_eq!((status.may(), adt.may()), row.may, "{place}: {status}; {adt}");
            let signs = (key_may_sign(WithKey::Recovery, &view), key_may_sign(WithKey::Contingency, &view));
            assert_eq!(signs, row.signs, "{place}");
            let activate = required(&step("activate-key"), &in_force, &view);
            let opens = matches!(row.determined, Determined::Execute(_));
            assert_eq!(matches!(activate, Requirement::Blocked { .. }), !opens, "{place}: {activate}");
            asked += 1;
        }
    }
    assert_eq!(asked, 4 * edges().len());
}

#[test]
fn each_clause_opens_at_its_own_gate_and_names_itself() {
    let policy = shipped("included");
    let in_force = policy.procedure().unwrap().in_force(at("2017-08-01T00:00:00Z"), &[]);
    let by = |id: &str, determined| required(&step(id), &in_force, &view(determined, ASSESSED)).to_string();
    let status = by("set-smi-status-recovery", Determined::None);
    assert!(
        status.contains("clause (a)") && status.contains("either way") && status.contains("stated reason"),
        "{status}"
    );
    let adt = by("submit-adt-file", Determined::None);
    assert!(adt.contains("clause (c)") && adt.contains("to execute"), "{adt}");
    assert!(adt.contains("it may be done before") && !adt.contains("stated reason"), "{adt}");
    // A determination not to execute ends relief (a), and not relief (c).
    let status = by("set-smi-status-recovery", NOT);
    assert!(status.contains("not required") && status.contains("profile base"), "{status}");
    assert!(by("submit-adt-file", NOT).contains("clause (c)"));
    // After it the printed label stands beside the duty.
    assert!(
        by("submit-adt-file", RECOVERY).contains("4.2.1.2 in SEC Appendix L"),
        "{}",
        by("submit-adt-file", RECOVERY)
    );
    // (a) names 'recovered' too, which waits for its turn in any case.
    let recovered = required(&step("set-smi-status-recovered"), &in_force, &view(Determined::None, ASSESSED));
    assert!(recovered.to_string().contains("clause (a)") && recovered.may() == May::No, "{recovered}");
}

#[test]
fn referral_waits_for_status_and_adt_file_in_the_base_profile_alone() {
    let policy = shipped("included");
    let procedure = policy.procedure().unwrap();
    let refer = |moment: &str, done: &[&str]| {
        required(&step("refer-to-pma"), &procedure.in_force(at(moment), &[]), &view(Determined::None, done))
    };
    assert!(refer("2017-08-01T00:00:00Z", ASSESSED).is_due());
    let base = refer("2017-07-20T22:59:59.999Z", ASSESSED);
    assert!(base.to_string().contains("set-smi-status-recovery, submit-adt-file"), "{base}");
    assert_eq!(base.may(), May::No);
    let both = [ASSESSED, &["set-smi-status-recovery", "submit-adt-file"]].concat();
    assert!(refer("2017-07-20T22:59:59.999Z", &both).is_due());
    // A relief alters no order: nothing is assessed yet.
    assert_eq!(refer("2017-08-01T00:00:00Z", &["notify-compromise"]).may(), May::No);
    let early = required(
        &step("submit-adt-file"),
        &procedure.in_force(at("2017-08-01T00:00:00Z"), &[]),
        &view(Determined::None, &["notify-compromise"]),
    );
    assert_eq!(early.may(), May::No, "{early}");
}

#[test]
fn a_relief_that_ended_before_its_gate_opened_leaves_the_base_rule() {
    // Rule: a step goes by the profile in force at its own moment.
    let policy = shipped("excluded");
    let procedure = policy.procedure().unwrap();
    let view = view(Determined::None, &[ASSESSED, &["refer-to-pma"]].concat());
    let adt = |moment: &str| required(&step("submit-adt-file"), &procedure.in_force(at(moment), &[]), &view);
    assert!(!adt("2017-11-01T23:59:59.999Z").is_due());
    assert!(adt("2017-11-02T00:00:00Z").is_due());
}

#[test]
fn what_no_clause_names_keeps_its_base_rule_while_the_variation_is_in_force() {
    let policy = shipped("included");
    let procedure = policy.procedure().unwrap();
    let (with, without) =
        (procedure.in_force(at("2017-08-01T00:00:00Z"), &[]), procedure.in_force(at("2017-07-01T00:00:00Z"), &[]));
    let both = [ASSESSED, &["set-smi-status-recovery", "submit-adt-file"]].concat();
    for determined in [Determined::None, NOT, RECOVERY, CONTINGENCY] {
        for done in [&[][..], &["notify-compromise"], &both] {
            let view = view(determined, done);
            for (varied, base) in demands(&with, &view).iter().zip(demands(&without, &view)) {
                let id = varied.step.id.as_str();
                let is_named = ["set-smi-status-recovery", "set-smi-status-recovered", "submit-adt-file"].contains(&id);
                let (varied, base) = (&varied.requirement, &base.requirement);
                assert!(is_named || varied == base, "{id}: {varied} and {base}");
            }
        }
    }
}

#[test]
fn a_departure_takes_one_duty_away_and_opens_no_key() {
    let policy = shipped("included");
    let in_force = policy.procedure().unwrap().in_force(at("2017-07-01T00:00:00Z"), &[]);
    let direction = DirectionId([9; 16]);
    let mut view = view(Determined::None, ASSESSED);
    assert_eq!(required(&step("refer-to-pma"), &in_force, &view).may(), May::No);
    for id in ["set-smi-status-recovery", "submit-adt-file", "activate-key", "execute"] {
        view.departures.insert(step(id), direction);
    }
    for id in ["set-smi-status-recovery", "submit-adt-file"] {
        let found = required(&step(id), &in_force, &view);
        assert_eq!(found.by(), Some(&Text::Direction(direction)));
        assert_eq!((found.is_due(), found.may()), (false, May::Yes));
    }
    assert!(required(&step("refer-to-pma"), &in_force, &view).is_due());
    for id in ["activate-key", "execute"] {
        let found = required(&step(id), &in_force, &view);
        assert!(matches!(found, Requirement::Blocked { awaits: Gate::DeterminationToExecute, .. }), "{id}: {found}");
    }
}

#[test]
fn an_incident_can_be_walked_from_notification_to_closure_by_every_way() {
    let policy = shipped("included");
    let procedure = policy.procedure().unwrap();
    let walk = |moment: &str, decides: Determined, method: Option<Method>| {
        let in_force = procedure.in_force(at(moment), &[]);
        let mut view = IncidentView { method, ..view(Determined::None, &[]) };
        let mut taken = Vec::new();
        loop {
            let due = demands(&in_force, &view).into_iter().find(|demand| demand.requirement.is_due());
            let Some(Demand { step, requirement, .. }) = due else { break };
            assert_eq!(requirement.may(), May::Yes);
            taken.push(step.id.to_string());
            view.done.insert(step.id.clone());
            if step.id.as_str() == "determine" {
                view.determination = decides;
            }
            assert!(taken.len() <= STEPS, "{taken:?}");
        }
        assert_eq!(taken.last().map(String::as_str), Some("close"), "{taken:?}");
        let place = |id: &str| taken.iter().position(|taken| taken == id);
        (
            place("set-smi-status-recovery"),
            place("submit-adt-file"),
            place("determine"),
            place("execute"),
            place("hand-over"),
        )
    };
    let (base, varied) = ("2017-07-01T00:00:00Z", "2017-08-01T00:00:00Z");
    let two = Some(Method::AcbCertificates);
    let (status, adt, determine, execute, hand_over) = walk(base, RECOVERY, two);
    assert!(status < determine && adt < determine && determine < execute && execute < hand_over);
    let (status, adt, determine, execute, _) = walk(varied, RECOVERY, Some(Method::NewOrganisationCertificates));
    assert!(determine < status && determine < adt && status < execute && adt < execute);
    for (moment, done) in [(base, true), (varied, false)] {
        let (status, adt, determine, execute, _) = walk(moment, NOT, None);
        assert_eq!((status.is_some(), adt.is_some(), determine.is_some(), execute), (done, done, true, None));
    }
    assert_eq!(walk(varied, CONTINGENCY, None).4, None);
    // Method 1 is the Subscriber's own: nothing is referred or determined.
    assert_eq!(walk(base, Determined::None, Some(Method::SubscriberKey)), (None, None, None, None, None));
}

#[test]
fn an_extension_must_lengthen_a_variation_that_still_stands() {
    let policy = shipped("excluded");
    let variation = &policy.procedure().unwrap().variations()[0];
    let date = |text: &str| -> Option<CivilDate> { Some(text.parse().unwrap()) };
    let check = |extensions: &[Extension], until, moment: &str| {
        variation.check_extension(extensions, until, at(moment)).map_err(|fault| fault.to_string())
    };
    let stands = "2017-11-01T23:59:59.999Z";
    assert_eq!(check(&[], date("2017-11-03"), stands), Ok(()));
    assert_eq!(check(&[], None, stands), Ok(()));
    assert_eq!(check(&[], date("2018-01-31"), "2017-07-01T00:00:00Z"), Ok(()), "before it begins");
    for shorter in ["2017-11-02", "2017-07-21"] {
        assert!(check(&[], date(shorter), stands).unwrap_err().contains("lasts until 2017-11-02"), "{shorter}");
    }
    let over = check(&[], date("2018-01-31"), "2017-11-02T00:00:00Z").unwrap_err();
    assert!(over.contains("ended at 2017-11-02T00:00:00.000Z") && over.contains("new variation file"), "{over}");
    let extended = [extension(1, Some("2018-01-31"))];
    assert_eq!(check(&extended, date("2018-02-01"), "2018-01-30T23:59:59.999Z"), Ok(()));
    assert!(check(&extended, date("2018-01-31"), "2018-01-30T23:59:59.999Z").is_err());
    assert!(check(&extended, date("2018-02-01"), "2018-01-31T00:00:00Z").unwrap_err().contains("ended at"));
    let open = [extension(1, None)];
    assert!(check(&open, None, stands).unwrap_err().contains("no end as it stands"));
    assert!(check(&open, date("2030-01-01"), stands).unwrap_err().contains("no end as it stands"));
}

#[test]
fn what_else_the_direction_did_took_effect_on_its_day_and_does_not_end_with_the_variation() {
    let policy = shipped("included");
    let records = |moment: &str| {
        let in_force = policy.procedure().unwrap().in_force(at(moment), &[]);
        in_force.records().map(|(_, _, record, has)| (record.what, record.version.clone(), has)).collect::<Vec<_>>()
    };
    let before = records("2017-07-20T22:59:59.999Z");
    assert_eq!(before.len(), 9);
    assert!(before.iter().all(|(_, _, has)| !has));
    for moment in ["2017-07-20T23:00:00Z", "2026-01-01T00:00:00Z"] {
        assert!(records(moment).iter().all(|(_, _, has)| *has));
    }
    let of = |what| before.iter().filter(|(found, _, _)| *found == what).count();
    assert_eq!((of(Recorded::Removed), of(Recorded::Activated), of(Recorded::ReDesignated)), (5, 2, 2));
    let versions: Vec<String> =
        before.iter().filter_map(|(_, version, _)| version.as_ref().map(ToString::to_string)).collect();
    assert_eq!(versions, ["AD1.1", "AC1.2"]);
}

#[test]
fn a_step_that_the_profile_has_not_is_told_so() {
    let policy = shipped("included");
    let in_force = policy.procedure().unwrap().in_force(at("2017-08-01T00:00:00Z"), &[]);
    let found = required(&step("dance"), &in_force, &IncidentView::new());
    assert_eq!((found.to_string().as_str(), found.may()), ("profile base has no such step", May::No));
}
