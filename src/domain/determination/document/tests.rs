use super::*;

pub(in crate::domain) fn id(n: u8) -> DeterminationId {
    DeterminationId([n; 16])
}

pub(in crate::domain) fn head() -> LedgerHead {
    LedgerHead { origin: "exercise.example/ledger".parse().unwrap(), size: 7, root: Digest([7; 32]) }
}

/// A determination of one template for two Devices, proposed by `olive` under policy 0909….
pub(in crate::domain) fn determination() -> Determination {
    Determination {
        r#type: Type::new(),
        purpose: Purpose::Exercise,
        id: id(1),
        incident: "INC-1".parse().unwrap(),
        decision_number: 1,
        proposer: "olive".parse().unwrap(),
        ledger: head(),
        policy: Digest([9; 32]),
        decision: Decision::Execute,
        compromised: Compromised {
            certificate_sha256: Digest([3; 32]),
            spki_sha256: Digest([4; 32]),
            party: "90B3D51F30010000".parse().unwrap(),
        },
        factors: vec![Factor {
            id: "devices-affected".parse().unwrap(),
            weight: Weight::Towards,
            comment: "Two Devices.".parse().unwrap(),
        }],
        window: Window {
            from: "2027-01-01T00:00:00Z".parse().unwrap(),
            until: "2027-01-08T00:00:00Z".parse().unwrap(),
        },
        supersedes: None,
        key: Some(KeyChosen { label: "recovery-1".parse().unwrap(), spki_sha256: Digest([5; 32]) }),
        method: Some(Method::NewOrganisationCertificates),
        symmetric_key: None,
        counter_start: Some(100),
        schedule: None,
        templates: Some(vec![Template {
            name: "supplier".parse().unwrap(),
            payload: Payload::new([1, 2, 3]).unwrap(),
        }]),
        devices: Some(DeviceList { count: 2, sha256: Digest([6; 32]), root: Digest([8; 32]) }),
        limits: Some(Limits { intents: 4, per_hour: 100, retries_of_unknown: 1, retry_by_itself: false }),
    }
}

/// A decision not to use the keys.
pub(in crate::domain) fn not_execute() -> Determination {
    Determination {
        decision: Decision::NotExecute,
        key: None,
        method: None,
        counter_start: None,
        templates: None,
        devices: None,
        limits: None,
        ..determination()
    }
}

pub(in crate::domain) fn written<F: Form>(form: &F) -> Written<F> {
    Written::write(form).unwrap_or_else(|faults| panic!("{faults:?}"))
}

fn text() -> String {
    String::from_utf8(written(&determination()).octets().to_vec()).unwrap()
}

/// Reads the good document with `from` replaced by `to`, which must make a difference.
#[track_caller]
fn refused(from: &str, to: &str, because: &str) {
    let good = text();
    assert_eq!(good.matches(from).count(), 1, "{from:?} stands once in {good}");
    refused_octets(good.replacen(from, to, 1).as_bytes(), because);
}

#[track_caller]
fn refused_octets(octets: &[u8], because: &str) {
    let faults = Written::<Determination>::read(octets).unwrap_err();
    let found = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(found.contains(because), "expected {because:?}, found {found}");
}

#[track_caller]
fn form_refused(change: impl FnOnce(&mut Determination), because: &str) {
    let mut form = determination();
    change(&mut form);
    refused_octets(&serde_json::to_vec(&form).unwrap(), because);
}

#[test]
fn a_document_keeps_its_octets_and_is_known_by_their_sha256() {
    let spaced = text().replace("\": ", "\" :  ");
    let read = Written::<Determination>::read(spaced.as_bytes()).unwrap();
    assert_eq!(read.octets(), spaced.as_bytes());
    assert_eq!(read.digest(), Digest::of(spaced.as_bytes()));
    assert_ne!(read.digest(), written(&determination()).digest());
    assert_eq!(read.form(), &determination());
}

#[test]
fn a_key_that_stands_twice_is_refused_at_every_level() {
    refused("\"decision\": \"execute\"", "\"decision\": \"not-execute\", \"decision\": \"execute\"", "here twice");
    refused("\"size\": 7", "\"size\": 7, \"size\": 8", "\"size\" stands here twice");
    refused(
        "\"name\": \"supplier\"",
        "\"name\": \"supplier\", \"n\\u0061me\": \"other\"",
        "\"name\" stands here twice",
    );
}

#[test]
fn a_key_that_nobody_knows_is_refused_at_every_level() {
    refused("\"decision\": \"execute\"", "\"decision\": \"execute\", \"note\": 1", "unknown field `note`");
    refused("\"size\": 7", "\"size\": 7, \"note\": null", "unknown field `note`");
    refused("\"name\": \"supplier\"", "\"name\": \"supplier\", \"note\": []", "unknown field `note`");
}

#[test]
fn each_field_that_every_determination_has_is_missed() {
    for field in ["type", "purpose", "id", "incident", "proposer", "ledger", "policy", "window", "supersedes"] {
        let mut value: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text()).unwrap();
        assert!(value.remove(field).is_some());
        refused_octets(&serde_json::to_vec(&value).unwrap(), &format!("missing field `{field}`"));
    }
}

#[test]
fn other_encodings_of_json_are_refused() {
    refused_octets(format!("\u{feff}{}", text()).as_bytes(), "byte order mark");
    refused_octets(&[b"{\"type\": \"\xff\"}".as_slice()].concat(), "octet 10: expected UTF-8, found 0xFF");
    refused_octets((text() + "{}").as_bytes(), "trailing characters");
    refused_octets(text().trim_end_matches("}\n").as_bytes(), "EOF");
    refused("\"size\": 7", "\"size\": 7.0", "floating point");
    refused("\"size\": 7", "\"size\": -7", "integer `-7`");
    refused("\"size\": 7", "\"size\": [[[[[[[[[7]]]]]]]]]", "nested deeper than 8");
    refused_octets("[".repeat(DOCUMENT_LEN_MAX).as_bytes(), "nested deeper than 8");
}

#[test]
fn a_document_has_its_greatest_length_and_not_one_octet_more() {
    let mut octets = text().into_bytes();
    octets.resize(DOCUMENT_LEN_MAX, b' ');
    assert!(Written::<Determination>::read(octets.as_slice()).is_ok());
    octets.push(b' ');
    refused_octets(&octets, "at most 262144 octets, found 262145");
}

#[test]
fn the_largest_templates_fit_into_a_document() {
    let mut form = determination();
    let template = |n| Template {
        name: format!("template-{n}").parse().unwrap(),
        payload: Payload::new(vec![n; TEMPLATE_LEN_MAX]).unwrap(),
    };
    form.templates = Some((0..16).map(template).collect());
    assert_eq!(written(&form).form(), &form);
    form.templates.as_mut().unwrap().push(template(16));
    refused_octets(&serde_json::to_vec(&form).unwrap(), "templates: expected 1 to 16, found 17");
    assert!(Payload::new(vec![0; TEMPLATE_LEN_MAX + 1]).is_err());
    assert!(Payload::new(vec![]).is_err());
}

#[test]
fn one_type_is_never_taken_for_another() {
    refused("smkid-determination/v1", "smkid-determination/v2", "expected smkid-determination/v1, found");
    refused("smkid-determination/v1", "smkid-schedule/v1", "expected smkid-determination/v1, found");
}

#[test]
fn payloads_have_one_text() {
    refused("AQID", "AQI", "base64");
    refused("AQID", "AQID\\n", "base64");
    refused("AQID", "AQI_", "base64");
    refused("AQID", "AR==", "base64");
    refused("AQID", "", "expected 1 to 8192, found 0");
}

#[test]
fn what_single_fields_do_not_show_is_checked() {
    form_refused(|d| d.decision_number = 0, "decision_number: expected 1");
    form_refused(|d| d.window.until = d.window.from, "expected `until` after `from`");
    form_refused(|d| d.supersedes = Some(d.id), "cannot supersede itself");
    form_refused(|d| d.factors.push(d.factors[0].clone()), "factors: devices-affected stands there twice");
    form_refused(|d| d.templates = Some(vec![]), "templates: expected 1 to 16, found 0");
    form_refused(
        |d| {
            let again = d.templates.as_ref().unwrap()[0].clone();
            d.templates.as_mut().unwrap().push(again);
        },
        "templates: supplier stands there twice",
    );
    form_refused(|d| d.devices.as_mut().unwrap().count = 0, "devices.count: expected 1");
    form_refused(|d| d.limits.as_mut().unwrap().intents = 0, "limits.intents: expected 1 to 4, found 0");
    form_refused(|d| d.limits.as_mut().unwrap().intents = 5, "limits.intents: expected 1 to 4, found 5");
    form_refused(|d| d.limits.as_mut().unwrap().per_hour = 0, "limits.per_hour");
    form_refused(
        |d| {
            *d.limits.as_mut().unwrap() =
                Limits { intents: 2, per_hour: 1, retries_of_unknown: 0, retry_by_itself: true };
        },
        "retry_by_itself",
    );
}

#[test]
fn to_execute_needs_a_key_and_a_scope_and_not_to_execute_has_neither() {
    assert!(written(&not_execute()).form().scope().is_none());
    form_refused(|d| d.key = None, "key: expected, because the decision is execute");
    form_refused(|d| d.method = None, "method: expected");
    form_refused(|d| d.counter_start = None, "counter_start: expected");
    form_refused(|d| d.templates = None, "templates: expected, because the scope is settled here");
    form_refused(|d| d.devices = None, "devices: expected");
    form_refused(|d| d.limits = None, "limits: expected");
    let full = determination();
    for (change, field) in [
        (Determination { key: full.key.clone(), ..not_execute() }, "key: expected none"),
        (Determination { method: full.method, ..not_execute() }, "method: expected none"),
        (Determination { counter_start: full.counter_start, ..not_execute() }, "counter_start: expected none"),
        (Determination { schedule: Some(ScopeLeft::Later), ..not_execute() }, "schedule: expected none"),
        (Determination { templates: full.templates.clone(), ..not_execute() }, "templates: expected none"),
        (Determination { devices: full.devices, ..not_execute() }, "devices: expected none"),
        (Determination { limits: full.limits, ..not_execute() }, "limits: expected none"),
    ] {
        refused_octets(&serde_json::to_vec(&change).unwrap(), field);
    }
}

#[test]
fn the_symmetric_key_is_released_by_a_line_of_its_own_by_the_contingency_route_and_by_no_other() {
    let line = || {
        Some(SymmetricKeyLine {
            root_sha256: Digest([0x0A; 32]),
            next: "contingency-2".parse().unwrap(),
            next_root_sha256: Digest([0x0B; 32]),
        })
    };
    let by = |method, symmetric_key| Determination { method: Some(method), symmetric_key, ..determination() };
    let document = written(&by(Method::Contingency, line()));
    assert_eq!(document.form().symmetric_key, line());
    let text = String::from_utf8(document.octets().to_vec()).unwrap();
    assert!(text.contains("\"symmetric_key\": {\n    \"root_sha256\": \"0a0a"), "{text}");
    let refused = |form: &Determination, expected| refused_octets(&serde_json::to_vec(form).unwrap(), expected);
    refused(&by(Method::Contingency, None), "symmetric_key: expected, because by the Contingency route");
    for method in [Method::SubscriberKey, Method::AcbCertificates, Method::NewOrganisationCertificates] {
        refused(&by(method, line()), "symmetric_key: expected none, because only by the Contingency route");
        assert!(!String::from_utf8(written(&by(method, None)).octets().to_vec()).unwrap().contains("symmetric"));
    }
    refused(&Determination { symmetric_key: line(), ..not_execute() }, "symmetric_key: expected none");
}

#[test]
fn a_scope_is_settled_here_or_later_and_never_both_or_half() {
    let mut later = determination();
    (later.schedule, later.templates, later.devices, later.limits) = (Some(ScopeLeft::Later), None, None, None);
    assert!(written(&later).form().scope().is_none());
    assert!(written(&determination()).form().scope().is_some());
    form_refused(|d| d.schedule = Some(ScopeLeft::Later), "devices: expected none, because `schedule` says");
}

#[test]
fn every_fault_is_reported_and_not_only_the_first() {
    let mut form = determination();
    (form.decision_number, form.key, form.method) = (0, None, None);
    assert_eq!(Written::write(&form).unwrap_err().len(), 3);
}

#[test]
fn each_type_of_document_is_read_as_what_it_says_it_is() {
    let determination = written(&determination());
    let schedule = Schedule {
        r#type: Type::new(),
        purpose: Purpose::Exercise,
        determination: id(1),
        document: determination.digest(),
        proposer: "olive".parse().unwrap(),
        ledger: head(),
        policy: Digest([9; 32]),
        templates: determination.form().templates.clone().unwrap(),
        devices: determination.form().devices.unwrap(),
        limits: determination.form().limits.unwrap(),
    };
    let reason: Prose = "The list was wrong.".parse().unwrap();
    let withdrawal = Withdrawal {
        r#type: Type::new(),
        purpose: Purpose::Exercise,
        determination: id(1),
        document: determination.digest(),
        proposer: "olive".parse().unwrap(),
        ledger: head(),
        policy: Digest([9; 32]),
        reason: reason.clone(),
    };
    let suspension = Suspension {
        r#type: Type::new(),
        purpose: Purpose::Exercise,
        determination: id(1),
        document: determination.digest(),
        member: "one".parse().unwrap(),
        hours: 24,
        ledger: head(),
        policy: Digest([9; 32]),
        reason,
    };
    assert!(Written::write(&Suspension { hours: 0, ..suspension.clone() }).is_err());
    assert!(matches!(Document::read(determination.octets()), Ok(Document::Determination(d)) if *d == determination));
    let (schedule, withdrawal, suspension) = (written(&schedule), written(&withdrawal), written(&suspension));
    assert!(matches!(Document::read(schedule.octets()), Ok(Document::Schedule(d)) if *d == schedule));
    assert!(matches!(Document::read(withdrawal.octets()), Ok(Document::Withdrawal(d)) if *d == withdrawal));
    assert!(matches!(Document::read(suspension.octets()), Ok(Document::Suspension(d)) if *d == suspension));
    let other = Document::read(b"{\"type\": \"smkid-policy-adoption/v1\"}").unwrap_err();
    assert!(other[0].to_string().contains("or smkid-suspension/v1, found \"smkid-policy-adoption/v1\""), "{other:?}");
}

proptest::proptest! {
    #[test]
    fn no_octets_panic(octets in proptest::prelude::any::<Vec<u8>>()) {
        let _ = Document::read(&octets);
    }

    #[test]
    fn no_changed_octet_goes_unnoticed(at in proptest::prelude::any::<proptest::sample::Index>(), octet in 0_u8..) {
        let good = written(&determination());
        let mut octets = good.octets().to_vec();
        let at = at.index(octets.len());
        let same = octets[at] == octet;
        octets[at] = octet;
        if let Ok(changed) = Written::<Determination>::read(octets) {
            proptest::prop_assert_eq!(changed.digest() == good.digest(), same);
        }
    }
}
