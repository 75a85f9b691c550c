use super::*;

fn recovery() -> OrganisationSubject {
    OrganisationSubject { common_name: None, role: 1, party: "90B3D51F30000001".parse().unwrap() }
}

#[track_caller]
fn check(subject: &Subject, der: &str) {
    assert_eq!(hex::encode_upper(subject.to_der().unwrap()), der.replace(' ', ""));
    assert_eq!(&Subject::from_der(&subject.to_der().unwrap()).unwrap(), subject);
}

#[test]
fn each_form_is_written_as_the_test_pki_writes_it() {
    let id = "3112 3010 0603 55042D 0309 00 90B3D51F30000001";
    check(&Subject::Organisation(recovery()), &format!("3021 310B 3009 0603 55040B 0C02 3031 {id}"));
    let named = OrganisationSubject { common_name: Some("A".into()), role: 0x7F, ..recovery() };
    let named = Subject::Organisation(named);
    check(&named, &format!("302D 310A 3008 0603 550403 0C01 41 310B 3009 0603 55040B 0C02 3746 {id}"));
    let ca = |ou: &str| format!("301A 310B 3009 0603 55040B 1302 {ou} 310B 3009 0603 550403 1302 5A31");
    check(&Subject::IssuingOca { common_name: "Z1".into() }, &ca("3037"));
    check(&Subject::RootOca { common_name: "Z1".into() }, &ca("3030"));
    check(&Subject::DeviceCa { common_name: "Z1".into() }, "300D 310B 3009 0603 550403 1302 5A31");
    check(&Subject::Device, "3000");
}

#[track_caller]
fn refuses(der: &str, expected: &str) {
    let said = Subject::from_der(&hex::decode(der.replace(' ', "")).unwrap()).unwrap_err().to_string();
    assert!(said.contains(expected), "{said}");
}

#[test]
fn every_other_form_is_refused_and_named() {
    let ou = "3009 0603 55040B 0C02 3031";
    let id = "3010 0603 55042D 0309 00 90B3D51F30000001";
    refuses(&format!("301F 311D {ou} {id}"), "OU uniqueIdentifier (not separate RDNs)");
    refuses(&format!("3021 3112 {id} 310B {ou}"), "found uniqueIdentifier OU");
    refuses(&format!("300D 310B {ou}"), "found OU");
    refuses(&format!("3014 3112 {id}"), "found uniqueIdentifier");
    refuses("301A 310B 3009 0603 55040B 1302 3031 310B 3009 0603 550403 1302 5A31", "expected OU=07");
    refuses("3000 00", "name:");
    refuses("310D 310B 3009 0603 550403 1302 5A31", "name:");
    refuses("300B 3109 3007 0603 550403 0C00", "CN of 1 to 64");
}

#[test]
fn a_name_has_1_to_64_characters() {
    for (len, fits) in [(0, false), (1, true), (64, true), (65, false)] {
        let common_name = Some("ü".repeat(len));
        let organisation = Subject::Organisation(OrganisationSubject { common_name, ..recovery() });
        assert_eq!(organisation.to_der().is_ok(), fits, "{len}");
        let ca = Subject::IssuingOca { common_name: "a".repeat(len) };
        assert_eq!(ca.to_der().is_ok(), fits, "{len}");
    }
    let ca = Subject::IssuingOca { common_name: "ü".into() };
    assert!(matches!(ca.to_der(), Err(SubjectError::NotPrintable { .. })));
}
