use super::super::tests::{changed, example, policy};
use super::*;
use crate::domain::determination::document::tests::{determination as form, written};
use crate::domain::determination::document::{Factor, LedgerHead, ScopeLeft, SymmetricKeyLine, Type, Weight};

fn now() -> Timestamp {
    "2027-01-02T00:00:00Z".parse().unwrap()
}

/// A determination that the example admits.
fn good(policy: &Policy) -> Determination {
    let factor = |id: &str, weight| Factor { id: id.parse().unwrap(), weight, comment: "Said so.".parse().unwrap() };
    Determination {
        purpose: policy.purpose(),
        proposer: "operator-1".parse().unwrap(),
        ledger: LedgerHead { origin: policy.origin().clone(), ..form().ledger },
        policy: policy.digest(),
        factors: vec![
            factor("devices-affected", Weight::Towards),
            factor("misuse-seen", Weight::Neither),
            factor("compromise-confirmed", Weight::Met),
        ],
        ..form()
    }
}

#[track_caller]
fn check(change: impl FnOnce(&mut Determination), expected: &[&str]) {
    let policy = policy(&example());
    let mut form = good(&policy);
    change(&mut form);
    let found: Vec<_> = determination(&policy, &written(&form), Recorded::default(), now(), now())
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "expected {expected:?}, found {found}");
    }
}

#[test]
fn what_keeps_to_the_policy_is_admitted() {
    check(|_| {}, &[]);
}

#[test]
fn live_and_exercise_ledgers_and_policies_never_mix() {
    check(|d| d.purpose = Purpose::Exercise, &["the document is exercise, the policy live"]);
    check(|d| d.ledger.origin = "other".parse().unwrap(), &["for ledger other, ours is smkid.example/ledger"]);
    check(|d| d.policy = Digest([1; 32]), &["names policy 0101"]);
}

#[test]
fn a_proposer_is_a_person_in_force() {
    check(|d| d.proposer = "stranger".parse().unwrap(), &["proposer stranger is no person in force"]);
    let policy = policy(&example());
    let form = Determination { proposer: "member-4".parse().unwrap(), ..good(&policy) };
    // member-4 ceases with 2028; the window of the document ended before, so only the proposer's own time is looked at.
    let late = |at: &str| {
        let at = at.parse().unwrap();
        let refusals = determination(&policy, &written(&form), Recorded::default(), at, at);
        refusals.iter().any(|refusal| matches!(refusal, Refusal::Proposer { .. }))
    };
    assert!(!late("2028-12-31T23:59:59.999Z"));
    assert!(late("2029-01-01T00:00:00Z"));
}

#[test]
fn each_factor_that_must_be_considered_is() {
    check(|d| drop(d.factors.remove(0)), &["devices-affected must be considered and is not"]);
    check(|d| drop(d.factors.remove(2)), &["compromise-confirmed must be considered"]);
    check(|d| d.factors[2].weight = Weight::Towards, &["compromise-confirmed: expected weight \"met\""]);
    check(|d| d.factors[0].weight = Weight::Met, &["devices-affected: expected weight \"towards\", \"against\""]);
    check(
        |d| d.factors[0].id = "stays-unreachable".parse().unwrap(),
        &["devices-affected must be considered", "factor stays-unreachable is not in guidance.toml"],
    );
    check(
        |d| {
            let other = Factor { id: "stays-unreachable".parse().unwrap(), ..d.factors[0].clone() };
            d.factors.push(other);
        },
        &["factor stays-unreachable is not in guidance.toml, and no variation of the procedure in force"],
    );
    check(
        |d| {
            let other = Factor { id: "weather".parse().unwrap(), ..d.factors[0].clone() };
            d.factors.push(other);
        },
        &["factor weather is not in guidance.toml"],
    );
}

#[test]
fn a_key_is_one_of_the_policy_with_the_use_and_mode_of_the_method() {
    let key = |d: &mut Determination, label: &str| d.key.as_mut().unwrap().label = label.parse().unwrap();
    check(|d| key(d, "recovery-9"), &["key recovery-9 is not in the policy"]);
    check(|d| key(d, "ledger-1"), &["needs a recovery key; ledger-1 is a ledger key"]);
    check(|d| key(d, "contingency-1"), &["needs a recovery key; contingency-1 is a contingency key"]);
    check(|d| d.method = Some(Method::AcbCertificates), &[]);
    check(|d| d.method = Some(Method::SubscriberKey), &["nothing to execute with a key of the DCC"]);
    let by_contingency = |d: &mut Determination| {
        d.method = Some(Method::Contingency);
        d.symmetric_key = Some(SymmetricKeyLine {
            root_sha256: Digest([0x71; 32]),
            next: "contingency-2".parse().unwrap(),
            next_root_sha256: Digest([0x72; 32]),
        });
    };
    check(by_contingency, &["method contingency needs a contingency key; recovery-1 is"]);
    check(
        |d| {
            key(d, "contingency-1");
            by_contingency(d);
        },
        &["key contingency-1 may not sign mode 9"],
    );
}

#[test]
fn ceilings_are_reached_and_not_passed() {
    let devices = |d: &mut Determination, n| d.devices.as_mut().unwrap().count = n;
    check(|d| devices(d, 10_000_000), &[]);
    check(|d| devices(d, 10_000_001), &["devices.count: the policy allows at most 10000000, found 10000001"]);
    check(|d| d.limits.as_mut().unwrap().per_hour = 36_000_000, &[]);
    check(|d| d.limits.as_mut().unwrap().per_hour = 36_000_001, &["limits.per_hour"]);
    check(|d| d.limits.as_mut().unwrap().retries_of_unknown = 3, &[]);
    check(|d| d.limits.as_mut().unwrap().retries_of_unknown = 4, &["limits.retries_of_unknown"]);
    let until = |d: &mut Determination, text: &str| d.window.until = text.parse().unwrap();
    check(|d| until(d, "2027-02-01T00:00:00.000Z"), &[]);
    check(|d| until(d, "2027-02-01T00:00:00.001Z"), &["the window is 31 days and more; the policy allows 31"]);
}

#[test]
fn a_document_on_an_old_head_or_after_its_window_is_refused() {
    let policy = policy(&example());
    let document = written(&good(&policy));
    let refused = |head: &str, at: &str| -> Vec<String> {
        let found = determination(&policy, &document, Recorded::default(), head.parse().unwrap(), at.parse().unwrap());
        found.iter().map(ToString::to_string).collect()
    };
    assert!(refused("2026-12-24T00:00:00Z", "2027-01-07T00:00:00Z").is_empty());
    assert!(refused("2026-12-24T00:00:00Z", "2027-01-07T00:00:00.001Z")[0].contains("more than 336 h before"));
    assert!(refused("2027-01-08T00:00:00Z", "2027-01-08T00:00:00Z")[0].contains("ended at 2027-01-08"));
}

#[test]
fn a_schedule_is_for_a_determination_that_left_its_scope_open_and_for_exactly_that() {
    let policy = policy(&example());
    let here = written(&good(&policy));
    let mut form = good(&policy);
    let (templates, devices, limits) = (form.templates.take(), form.devices.take(), form.limits.take());
    form.schedule = Some(ScopeLeft::Later);
    let later = written(&form);
    let schedule_of = |of: &Written<Determination>| Schedule {
        r#type: Type::new(),
        purpose: form.purpose,
        determination: of.form().id,
        document: of.digest(),
        proposer: form.proposer.clone(),
        ledger: form.ledger.clone(),
        policy: form.policy,
        templates: templates.clone().unwrap(),
        devices: devices.unwrap(),
        limits: limits.unwrap(),
    };
    let refused = |of: &Written<Determination>, names: &Written<Determination>| -> Vec<String> {
        let document = written(&schedule_of(names));
        schedule(&policy, of, &document, now(), now()).iter().map(ToString::to_string).collect()
    };
    assert!(refused(&later, &later).is_empty());
    assert!(refused(&here, &here)[0].contains("does not leave its scope to a schedule"));
    // The same id, and other octets.
    assert_eq!(here.form().id, later.form().id);
    assert!(refused(&later, &here)[0].contains("ours is"));
}

#[test]
fn a_suspension_lasts_as_long_as_the_policy_says_and_a_withdrawal_needs_the_right_document() {
    let policy = policy(&changed("policy.toml", "suspension_hours_max = 72", "suspension_hours_max = 24"));
    let of = written(&good(&policy));
    let suspend = |hours, document| {
        let form = Suspension {
            r#type: Type::new(),
            purpose: policy.purpose(),
            determination: of.form().id,
            document,
            member: "member-1".parse().unwrap(),
            hours,
            ledger: of.form().ledger.clone(),
            policy: policy.digest(),
            reason: "Wait.".parse().unwrap(),
        };
        suspension(&policy, &of, &written(&form)).len()
    };
    assert_eq!(suspend(24, of.digest()), 0);
    assert_eq!(suspend(25, of.digest()), 1);
    assert_eq!(suspend(24, Digest([1; 32])), 1);
    let withdraw = |document| {
        let form = Withdrawal {
            r#type: Type::new(),
            purpose: policy.purpose(),
            determination: of.form().id,
            document,
            proposer: "operator-1".parse().unwrap(),
            ledger: of.form().ledger.clone(),
            policy: policy.digest(),
            reason: "Wrong list.".parse().unwrap(),
        };
        withdrawal(&policy, &of, &written(&form), now(), now()).len()
    };
    assert_eq!(withdraw(of.digest()), 0);
    assert_eq!(withdraw(Digest([1; 32])), 1);
}

/// Rule 5: the factor of clause (b) may be weighed while the variation is in force at the moment of recording, and never must.
#[test]
fn an_optional_factor_is_offered_by_date_and_never_mandatory() {
    use crate::domain::procedure::in_force::tests::{extension, shipped};
    let refusals = |policy: &Policy, extensions: &[Extension], moment: &str, weight: Option<Weight>| {
        let mut form = good(policy);
        form.factors.extend(weight.map(|weight| Factor {
            id: "stays-unreachable".parse().unwrap(),
            weight,
            comment: "Few of them would stay.".parse().unwrap(),
        }));
        let (at, recorded) = (moment.parse().unwrap(), Recorded { extensions, settled: None });
        let found = determination(policy, &written(&form), recorded, at, at);
        found.iter().filter(|refusal| refusal.to_string().contains("stays-unreachable")).count()
    };
    let late = [extension(1, Some("2018-01-31"))];
    for (end_day, extensions, moment, offered) in [
        ("included", &[][..], "2017-07-20T22:59:59.999Z", false),
        ("included", &[], "2017-07-20T23:00:00Z", true),
        ("excluded", &[], "2017-11-01T23:59:59.999Z", true),
        ("excluded", &[], "2017-11-02T00:00:00Z", false),
        ("included", &[], "2017-11-02T23:59:59.999Z", true),
        ("included", &[], "2017-11-03T00:00:00Z", false),
        ("excluded", &late, "2017-11-02T00:00:00Z", true),
        ("excluded", &late, "2018-01-31T00:00:00Z", false),
    ] {
        let policy = shipped(end_day);
        let ask = |weight| refusals(&policy, extensions, moment, weight);
        assert_eq!(ask(Some(Weight::Towards)), usize::from(!offered), "{end_day} {moment}");
        // It is a factor, and no criterion that could be met.
        assert_eq!(ask(Some(Weight::Met)), 1, "{end_day} {moment}");
        assert_eq!(ask(None), 0, "it is mandatory at {moment}");
    }
    // Where the Guidance has it already, the variation alters nothing.
    let own = "id = \"misuse-seen\"\nconsider = \"may\"\ntext = \"x\"\n\n[[factor]]\nid = \"stays-unreachable\"";
    let policy = policy(&changed("guidance.toml", "id = \"misuse-seen\"", own).into_iter().collect());
    for moment in ["2017-07-01T00:00:00Z", "2017-08-01T00:00:00Z", "2027-01-02T00:00:00Z"] {
        assert_eq!(refusals(&policy, &[], moment, Some(Weight::Against)), 0, "{moment}");
    }
}

#[test]
fn a_step_of_the_guidance_is_taken_or_departed_from_before_the_determination() {
    let with_step = "id = \"compromise-confirmed\"\nstep = \"confirm-compromise\"";
    let policy = policy(&changed("guidance.toml", "id = \"compromise-confirmed\"", with_step));
    let refusals = |settled: Option<&BTreeSet<StepId>>| {
        let recorded = Recorded { extensions: &[], settled };
        determination(&policy, &written(&good(&policy)), recorded, now(), now())
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert!(refusals(None).is_empty(), "no ledger is at hand");
    let missing = refusals(Some(&["assess".parse().unwrap()].into()));
    assert!(missing.len() == 1 && missing[0].contains("needs step confirm-compromise"), "{missing:?}");
    assert!(refusals(Some(&["confirm-compromise".parse().unwrap()].into())).is_empty());
}
