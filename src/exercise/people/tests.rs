use super::*;
use crate::domain::certificates::pem;
use crate::domain::certificates::person::check_person_certificate;

#[test]
fn everyone_is_vouched_for_and_known_by_a_key_of_their_own() {
    let now = super::super::lab::tests::now();
    let people = People::new(now).unwrap();
    let anchors = pem::certificates(&people.ca_pem).unwrap();
    let credentials: Vec<&Credential> = people.credentials().collect();
    assert_eq!(credentials.len(), MEMBERS + 1 + OFFICERS + CUSTODIANS);
    for credential in &credentials {
        let certificate = pem::certificate(&credential.certificate_pem).unwrap();
        check_person_certificate(&certificate, &[], &anchors, now).unwrap();
        assert_eq!(certificate.spki_sha256(), credential.spki);
    }
    let keys: std::collections::BTreeSet<_> = credentials.iter().map(|credential| credential.spki).collect();
    assert_eq!(keys.len(), credentials.len());
}
