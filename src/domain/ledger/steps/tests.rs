use super::*;

/// Each step with the one text that it has in leaves. A change of such a text is a change of every ledger there is.
#[test]
fn every_step_has_one_encoding_and_a_meaning() {
    let devices = DevicesNamed { list: Digest([0x5A; 32]), count: 2 };
    let at: Timestamp = "2017-07-22T00:00:00Z".parse().unwrap();
    let list = format!(r#"{{"list":"{}","count":2}}"#, "5a".repeat(32));
    let digest = "5a".repeat(32);
    let check = |step: Step, expected: String, meaning: &str| {
        assert_eq!(serde_json::to_string(&step).unwrap(), expected);
        assert_eq!(serde_json::from_str::<Step>(&expected).unwrap(), step);
        assert_eq!(step.meaning().as_str(), meaning);
        assert_eq!(
            step.devices().is_some(),
            expected.contains(r#""count":2}"#) && !expected.contains("stranded"),
            "{expected}"
        );
    };
    check(
        Step::Confirm { mechanism: "call-back".parse().unwrap(), certainty: Certainty::Actual, evidence: "e".into() },
        r#"{"confirm":{"mechanism":"call-back","certainty":"actual","evidence":"e"}}"#.into(),
        "confirm-compromise",
    );
    check(Step::Dismiss { reason: "r".into() }, r#"{"dismiss":{"reason":"r"}}"#.into(), "dismiss");
    check(
        Step::Assess { method: Method::AcbCertificates, targets: devices },
        format!(r#"{{"assess":{{"method":"acb-certificates","targets":{list}}}}}"#),
        "assess",
    );
    check(
        Step::Inform { duty: "tell-pma".parse().unwrap(), recipient: "Chair".into(), at, how: "letter".into() },
        r#"{"inform":{"duty":"tell-pma","recipient":"Chair","at":"2017-07-22T00:00:00.000Z","how":"letter"}}"#.into(),
        "inform",
    );
    check(
        Step::Refer { notification: Some(Digest([0x5A; 32])), new_facts: None },
        format!(r#"{{"refer":{{"notification":"{digest}","new_facts":null}}}}"#),
        "refer-to-pma",
    );
    check(
        Step::Refer { notification: None, new_facts: None },
        r#"{"refer":{"new_facts":null}}"#.into(),
        "refer-to-pma",
    );
    check(
        Step::SubscriberRecovery { note: "n".into() },
        r#"{"subscriber-recovery":{"note":"n"}}"#.into(),
        "subscriber-recovery",
    );
    for (status, word, meaning) in [
        (SmiStatus::Recovery, "recovery", "set-smi-status-recovery"),
        (SmiStatus::Recovered, "recovered", "set-smi-status-recovered"),
    ] {
        check(
            Step::SetStatus {
                status,
                from: at,
                devices: Some(devices),
                reason: None,
                acknowledged: true,
                overridden: None,
            },
            format!(
                r#"{{"set-status":{{"status":"{word}","from":"2017-07-22T00:00:00.000Z","devices":{list},"reason":null,"acknowledged":true,"overridden":null}}}}"#
            ),
            meaning,
        );
    }
    check(
        Step::ImportStatuses {
            extract: Digest([0x5A; 32]),
            changes: 3,
            contradictions: 2,
            acknowledged: false,
            reason: None,
        },
        format!(
            r#"{{"import-statuses":{{"extract":"{digest}","changes":3,"contradictions":2,"acknowledged":false,"reason":null}}}}"#
        ),
        "import-smi-statuses",
    );
    check(Step::Prepare { note: "n".into() }, r#"{"prepare":{"note":"n"}}"#.into(), "prepare");
    check(Step::Pause { reason: "r".into() }, r#"{"pause":{"reason":"r"}}"#.into(), "pause");
    check(
        Step::Exclude { devices, reason: "r".into() },
        format!(r#"{{"exclude":{{"devices":{list},"reason":"r"}}}}"#),
        "exclude",
    );
    check(Step::Finish { note: "n".into() }, r#"{"finish":{"note":"n"}}"#.into(), "finish");
    check(
        Step::BeginPostRecovery { note: "n".into() },
        r#"{"begin-post-recovery":{"note":"n"}}"#.into(),
        "begin-post-recovery",
    );
    check(
        Step::HandOver { devices: None, evidence: "e".into() },
        r#"{"hand-over":{"devices":null,"evidence":"e"}}"#.into(),
        "hand-over",
    );
    check(
        Step::AcceptStranded { count: 2, overridden: None, reason: "r".into() },
        r#"{"accept-stranded":{"count":2,"reason":"r"}}"#.into(),
        "accept-stranded",
    );
    check(
        Step::AcceptStranded { count: 2, overridden: Some(1), reason: "r".into() },
        r#"{"accept-stranded":{"count":2,"overridden":1,"reason":"r"}}"#.into(),
        "accept-stranded",
    );
}

#[test]
fn a_step_with_an_unknown_field_is_none() {
    assert!(serde_json::from_str::<Step>(r#"{"pause":{"reason":"r","force":true}}"#).is_err());
    assert!(serde_json::from_str::<Step>(r#"{"jump":{}}"#).is_err());
}
