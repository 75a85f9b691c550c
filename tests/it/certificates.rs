//! Certificates and requests of our own against openssl, and the path check against paths with one fault each.

use smkid::domain::certificates::bodies::{
    BodyError, Particulars, Template, assemble, assemble_request, certification_request_info,
    is_certification_request_info, read_request, tbs,
};
use smkid::domain::certificates::path::{self, PathFault, Time};
use smkid::domain::certificates::profile::{
    CertificateError, KeyIdentifier, Policies, TEST_DEVICE_POLICY, TEST_HARDWARE_TYPE, TEST_ORGANISATION_POLICY, Usage,
    Violation, key_identifier,
};
use smkid::domain::certificates::{Kind, OrganisationSubject, Profile, SmkiCertificate, pem};
use smkid::domain::names::{DeviceId, PartyId};

use crate::lab::{Holder, Key, Lab, Scratch, VALIDITY, issue, issue_octets};

fn party() -> PartyId {
    "90B3D51F30000001".parse().unwrap()
}

fn device() -> DeviceId {
    "00DB1234567890A0".parse().unwrap()
}

fn recovery(usage: Usage) -> Template {
    let subject = OrganisationSubject { common_name: None, role: 1, party: party() };
    Template::Organisation { subject, usage }
}

fn device_template() -> Template {
    Template::Device { device: device(), usage: Usage::DigitalSignature, hardware_type: TEST_HARDWARE_TYPE }
}

#[test]
fn openssl_verifies_the_lab_certificates_with_their_critical_policy() {
    let (lab, scratch) = (Lab::new(), Scratch::new());
    let leaf = issue(&recovery(Usage::DigitalSignature), Key::generate(), Some(&lab.issuing), VALIDITY);
    let meter = issue(&device_template(), Key::generate(), Some(&lab.device_ca), VALIDITY);
    for (name, holder) in [
        ("root", &lab.root),
        ("issuing", &lab.issuing),
        ("leaf", &leaf),
        ("device-ca", &lab.device_ca),
        ("meter", &meter),
    ] {
        scratch.write_certificate(&format!("{name}.pem"), holder.certificate.octets());
    }
    let organisation = format!("-policy {TEST_ORGANISATION_POLICY} -policy_check -explicit_policy");
    scratch.openssl(&format!("verify {organisation} -CAfile root.pem -untrusted issuing.pem leaf.pem"));
    // The Device's subjectAltName is critical with an otherName, which openssl leaves to the application.
    let device = format!("-policy {TEST_DEVICE_POLICY} -policy_check -explicit_policy");
    scratch.openssl(&format!("verify {device} -CAfile device-ca.pem meter.pem"));
    let text = scratch.openssl("x509 -in leaf.pem -noout -text");
    assert!(text.contains("x500UniqueIdentifier = #03090090B3D51F30000001"), "{text}");
    let text = scratch.openssl("x509 -in meter.pem -noout -enddate -ext subjectAltName");
    assert!(text.contains("notAfter=Dec 31 23:59:59 9999 GMT"), "{text}");
}

#[test]
fn what_is_issued_reads_back_as_what_was_asked_for() {
    let lab = Lab::new();
    let key = Key::generate();
    let point = key.public;
    let leaf = issue(&recovery(Usage::KeyAgreement), key, Some(&lab.issuing), VALIDITY).certificate;
    assert_eq!(leaf.kind(), Kind::Organisation { role: 1, party: party(), usage: Usage::KeyAgreement });
    assert_eq!(leaf.key(), &point);
    assert_eq!(leaf.subject_text(), "OU=01, uniqueIdentifier=90B3D51F30000001");
    assert_eq!(leaf.issuer_text(), "OU=07, CN=Z1");
    assert_eq!(leaf.not_before(), VALIDITY.0.parse().unwrap());
    assert_eq!(leaf.not_after(), VALIDITY.1.parse().unwrap());
    assert_eq!(leaf.policies(), [TEST_ORGANISATION_POLICY]);
    assert_eq!(leaf.authority_key_identifier(), Some(lab.issuing.certificate.subject_key_identifier()));
    // As long as the genuine ones without CN: 405 to 407 octets, by how long r and s happen to be.
    assert!((402..=407).contains(&leaf.octets().len()), "{}", leaf.octets().len());

    let meter = issue(&device_template(), Key::generate(), Some(&lab.device_ca), VALIDITY).certificate;
    assert_eq!(meter.kind(), Kind::Device { device: device(), usage: Usage::DigitalSignature });
    assert!((416..=421).contains(&meter.octets().len()), "{}", meter.octets().len());
    assert_eq!(lab.root.certificate.kind(), Kind::RootOca);
    assert_eq!(lab.issuing.certificate.kind(), Kind::IssuingOca);
    assert_eq!(lab.issuing.certificate.path_len(), Some(0));
    assert_eq!(lab.device_ca.certificate.kind(), Kind::DeviceCa);
}

#[test]
fn openssl_verifies_our_certification_request_and_we_read_it_back() {
    let (scratch, key) = (Scratch::new(), Key::generate());
    let subject = OrganisationSubject { common_name: Some("Recovery, 2026".into()), role: 1, party: party() };
    let info = certification_request_info(&subject, &key.public).unwrap();
    assert_eq!(is_certification_request_info(&info, &key.public).unwrap(), subject);
    let request = assemble_request(&info, &key.sign(&info)).unwrap();
    scratch.write("request.pem", pem::request_to_pem(&request));
    scratch.openssl("req -in request.pem -verify -noout");
    let said = scratch.openssl("req -in request.pem -noout -subject -pubkey");
    assert!(said.contains("x500UniqueIdentifier = #03090090B3D51F30000001"), "{said}");
    assert_eq!(pem::public_key(&said).unwrap(), key.public);
    assert_eq!(read_request(&request).unwrap(), (subject, key.public));
}

#[test]
fn a_request_is_recognised_only_if_it_is_a_request_for_that_key() {
    let (key, other, lab) = (Key::generate(), Key::generate(), Lab::new());
    let subject = OrganisationSubject { common_name: None, role: 1, party: party() };
    let info = certification_request_info(&subject, &key.public).unwrap();
    assert!(matches!(is_certification_request_info(&info, &other.public), Err(BodyError::OtherKey { .. })));
    let forged = assemble_request(&info, &other.sign(&info)).unwrap();
    assert_eq!(read_request(&forged), Err(BodyError::NotSelfSigned));
    assert!(is_certification_request_info(lab.issuing.certificate.body(), &lab.issuing.key.public).is_err());
    for len in 0..info.len() {
        assert!(is_certification_request_info(&info[..len], &key.public).is_err(), "cut to {len}");
    }
    assert!(is_certification_request_info(&[&info[..], &[0]].concat(), &key.public).is_err());
    for at in 0..info.len() {
        let mut altered = info.clone();
        altered[at] ^= 0x01;
        // Another role, party or name makes another genuine request; only one for the same subject must not come out.
        if let Ok(read) = is_certification_request_info(&altered, &key.public) {
            assert_ne!(read, subject, "octet {at}");
        }
    }
}

/// A body of the recovery certificate that `alter` has changed, signed by the Issuing OCA.
fn altered(lab: &Lab, key: &Key, template: &Template, alter: impl FnOnce(&mut Vec<u8>)) -> Vec<Violation> {
    let particulars = Particulars {
        serial: &[1],
        not_before: VALIDITY.0.parse().unwrap(),
        not_after: VALIDITY.1.parse().unwrap(),
        key: &key.public,
        policy: TEST_ORGANISATION_POLICY,
    };
    let issuer = match template {
        Template::Device { .. } => &lab.device_ca,
        Template::Organisation { .. } | Template::IssuingOca { .. } => &lab.issuing,
        Template::RootOca { .. } | Template::DeviceCa { .. } => panic!("self-signed"),
    };
    let mut body = tbs(template, &particulars, Some(&issuer.certificate)).unwrap();
    alter(&mut body);
    let octets = assemble(&body, &issuer.key.sign(&body)).unwrap();
    match SmkiCertificate::parse(&octets, &Profile { policies: Policies::NotChecked, ..Profile::test() }) {
        Err(CertificateError::OffProfile { violations, .. }) => violations,
        Err(fault @ CertificateError::X509(_)) => panic!("{fault}"),
        Ok(_) => Vec::new(),
    }
}

#[track_caller]
fn replace(body: &mut [u8], from: &[u8], to: &[u8]) {
    let places: Vec<_> = (0..=body.len() - from.len()).filter(|at| body[*at..].starts_with(from)).collect();
    assert_eq!(places.len(), 1, "{} must occur once", hex::encode(from));
    body[places[0]..places[0] + to.len()].copy_from_slice(to);
}

#[test]
fn each_rule_of_the_profile_is_broken_by_itself() {
    let (lab, key) = (Lab::new(), Key::generate());
    let check = |from: &str, to: &str, expected: &[&str]| {
        let (from, to) = (hex::decode(from).unwrap(), hex::decode(to).unwrap());
        let found = altered(&lab, &key, &recovery(Usage::DigitalSignature), |body| replace(body, &from, &to));
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        let as_expected = found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected));
        assert!(found.len() == expected.len() && as_expected, "expected {expected:?}, found {found:?}");
    };
    let own = hex::encode(key_identifier(&key.public));
    check("a003020102", "a003020101", &["version: expected 3, found 2"]);
    check("a003020102020101", "a003020102020181", &["serialNumber"]);
    check("a003020102020101", "a003020102020100", &["serialNumber"]);
    check("a003020102020101", "a00302010202017f", &[]);
    check("03090090b3d51f30000001", "03090190b3d51f30000000", &["subject: expected uniqueIdentifier"]);
    check("0c023031", "0c023761", &["subject: expected OU"]);
    check("0c023031", "0c023741", &[]);
    check("3435313233313233353935395a", "3730303130313030303030305a", &["validity: expected notBefore before"]);
    check("03420004", "03420002", &["public key: expected a point"]);
    check("04040302 0780".replace(' ', "").as_str(), "0404030206c0", &["keyUsage: expected digitalSignature or"]);
    check("040403020780", "040403020308", &[]);
    check("040403020780", "040403020480", &["keyUsage: malformed"]);
    check("0603551d0f0101ff", "0603551d630101ff", &["keyUsage: expected, not found", "expected no critical extension"]);
    check(&format!("0408{own}"), "04080000000000000000", &["subjectKeyIdentifier: expected"]);
    check("0603551d0e040a", "0603551d63040a", &["subjectKeyIdentifier: expected, not found"]);
    check("300a8008", "300a8108", &["authorityKeyIdentifier: expected [0]"]);
    check(
        "0603551d200101ff",
        "0603551d130101ff",
        &["certificatePolicies: expected, not found", "basicConstraints: not expected"],
    );
}

#[test]
fn each_rule_of_a_device_certificate_is_broken_by_itself() {
    let (lab, key) = (Lab::new(), Key::generate());
    let check = |from: &str, to: &str, expected: &[&str]| {
        let (from, to) = (hex::decode(from).unwrap(), hex::decode(to).unwrap());
        let found = altered(&lab, &key, &device_template(), |body| replace(body, &from, &to));
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        let as_expected = found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected));
        assert!(found.len() == expected.len() && as_expected, "expected {expected:?}, found {found:?}");
    };
    let ascii = |text: &str| hex::encode(text);
    check(&ascii("99991231235959Z"), &ascii("99991231235958Z"), &["notAfter: expected 99991231235959Z"]);
    check(&ascii("99991231235959Z"), &ascii("20451231235959Z"), &["validity: expected UTCTime", "notAfter: expected"]);
    check("06082b06010505070804", "06082b06010505070805", &["subjectAltName: expected one otherName"]);
    check("0408 00db1234567890a0".replace(' ', "").as_str(), "040800db1234567890a1", &[]);
    check("0603551d110101ff", "0603551d630101ff", &["subjectAltName: expected, not found", "expected no critical"]);
}

#[test]
fn a_foreign_policy_is_named() {
    let lab = Lab::new();
    let octets = lab.issuing.certificate.octets();
    let live = Profile::with_policies(vec![TEST_DEVICE_POLICY], vec![]);
    let Err(CertificateError::OffProfile { violations, .. }) = SmkiCertificate::parse(octets, &live) else {
        panic!("a certificate of another environment is accepted");
    };
    assert!(matches!(&violations[..], [Violation::ForeignPolicy { .. }]), "{violations:?}");
    let none = Profile::with_policies(vec![], vec![]);
    assert!(SmkiCertificate::parse(octets, &none).is_err(), "an empty list lets one through");
}

#[test]
fn the_key_identifier_is_half_of_what_openssl_calls_sha1_of_the_key() {
    let (scratch, key) = (Scratch::new(), Key::generate());
    scratch.write("point", key.public.point());
    scratch.openssl("dgst -sha1 -binary -out hash point");
    let mut expected: KeyIdentifier = scratch.read("hash")[12..].try_into().unwrap();
    expected[0] = 0x40 | expected[0] & 0x0F;
    assert_eq!(key_identifier(&key.public), expected);
}

fn at(text: &str) -> Time {
    Time::At(text.parse().unwrap())
}

const POLICY: &[smkid::domain::certificates::ObjectIdentifier] = &[TEST_ORGANISATION_POLICY];

#[track_caller]
fn faults(leaf: &SmkiCertificate, offered: &[&Holder], root: &Holder, time: Time) -> Vec<PathFault> {
    let offered: Vec<_> = offered.iter().map(|holder| holder.certificate.clone()).collect();
    path::check(leaf, &offered, &root.certificate, POLICY, time).err().map_or(Vec::new(), |error| error.faults)
}

#[test]
fn a_path_runs_from_the_leaf_over_the_issuing_oca_to_the_root() {
    let (lab, other) = (Lab::new(), Lab::new());
    let leaf = issue(&recovery(Usage::DigitalSignature), Key::generate(), Some(&lab.issuing), VALIDITY).certificate;
    let now = at("2026-01-01T00:00:00Z");
    assert_eq!(faults(&leaf, &[&lab.issuing], &lab.root, now), []);
    assert_eq!(faults(&leaf, &[], &lab.issuing, now), [], "an Issuing OCA may be the anchor");
    assert_eq!(faults(&leaf, &[&other.issuing, &lab.root, &lab.issuing], &lab.root, now), [], "order is free");
    assert_eq!(faults(&lab.root.certificate, &[], &lab.root, now), [], "a root is its own issuer");
    assert!(matches!(faults(&leaf, &[], &lab.root, now)[..], [PathFault::NoIssuer { .. }]));
    assert!(matches!(faults(&leaf, &[&other.issuing], &lab.root, now)[..], [PathFault::NoIssuer { .. }]));
    assert!(matches!(faults(&leaf, &[&lab.issuing], &other.root, now)[..], [PathFault::NoIssuer { .. }]));
    let empty = path::check(&leaf, std::slice::from_ref(&lab.issuing.certificate), &lab.root.certificate, &[], now)
        .unwrap_err();
    assert!(matches!(empty.faults[..], [PathFault::Policy { .. }]));
}

#[test]
fn a_signature_by_another_key_of_the_same_name_is_refused() {
    let (lab, other) = (Lab::new(), Lab::new());
    let key = Key::generate();
    let template = recovery(Usage::DigitalSignature);
    let liar = Holder { key: other.issuing.key, certificate: lab.issuing.certificate.clone() };
    let leaf = issue_octets(&template, &key, Some(&liar), VALIDITY);
    let leaf = SmkiCertificate::parse(&leaf, &Profile::test()).unwrap();
    let found = faults(&leaf, &[&lab.issuing], &lab.root, Time::Disapplied);
    assert!(matches!(found[..], [PathFault::Signature { .. }]), "{found:?}");
}

#[test]
fn a_path_is_valid_from_its_first_second_to_its_last_and_at_any_time_if_time_is_disapplied() {
    let lab = Lab::new();
    let validity = ("2026-01-01T00:00:00Z", "2026-12-31T23:59:59Z");
    let leaf = issue(&recovery(Usage::DigitalSignature), Key::generate(), Some(&lab.issuing), validity).certificate;
    let check = |time, expected: usize| {
        let found = faults(&leaf, &[&lab.issuing], &lab.root, time);
        assert_eq!(found.len(), expected, "{found:?}");
        assert!(found.iter().all(|fault| matches!(fault, PathFault::NotInForce { .. })));
    };
    check(at("2025-12-31T23:59:59.999Z"), 1);
    check(at("2026-01-01T00:00:00Z"), 0);
    check(at("2026-12-31T23:59:59.999Z"), 0);
    check(at("2027-01-01T00:00:00Z"), 1);
    check(at("2019-12-31T23:59:59Z"), 3);
    check(Time::Disapplied, 0);
}

#[test]
fn an_organisation_issues_nothing_and_an_issuing_oca_no_ca() {
    let lab = Lab::new();
    let leaf = issue(&recovery(Usage::DigitalSignature), Key::generate(), Some(&lab.issuing), VALIDITY);
    let particulars = Particulars {
        serial: &[1],
        not_before: VALIDITY.0.parse().unwrap(),
        not_after: VALIDITY.1.parse().unwrap(),
        key: &leaf.key.public,
        policy: TEST_ORGANISATION_POLICY,
    };
    let template = recovery(Usage::DigitalSignature);
    assert!(matches!(tbs(&template, &particulars, Some(&leaf.certificate)), Err(BodyError::Issuer { .. })));
    assert!(matches!(tbs(&template, &particulars, None), Err(BodyError::Issuer { .. })));

    let below =
        issue(&Template::IssuingOca { common_name: "Z2".into() }, Key::generate(), Some(&lab.issuing), VALIDITY);
    let leaf = issue(&template, Key::generate(), Some(&below), VALIDITY).certificate;
    let found = faults(&leaf, &[&lab.issuing, &below], &lab.root, Time::Disapplied);
    assert!(matches!(found[..], [PathFault::PathLen { path_len: 0, found: 1, .. }]), "{found:?}");
}

#[test]
fn no_flipped_bit_of_a_certificate_passes_for_the_same_certificate_with_a_good_path() {
    let lab = Lab::new();
    let leaf = issue(&recovery(Usage::DigitalSignature), Key::generate(), Some(&lab.issuing), VALIDITY).certificate;
    let offered = [lab.issuing.certificate.clone()];
    for place in 0..leaf.octets().len() * 8 {
        let mut octets = leaf.octets().to_vec();
        octets[place / 8] ^= 1 << (place % 8);
        if let Ok(read) = SmkiCertificate::parse(&octets, &Profile::test()) {
            let checked = path::check(&read, &offered, &lab.root.certificate, POLICY, Time::Disapplied);
            assert!(checked.is_err(), "bit {place}");
        }
    }
}
