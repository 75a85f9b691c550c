//! Genuine certificates of the test PKI, where they are at hand.

use smkid::domain::certificates::profile::Usage;
use smkid::domain::certificates::{Kind, Profile, SmkiCertificate, pem};

#[test]
fn every_genuine_certificate_is_in_the_profile_and_organisations_chain_to_their_issuing_oca() {
    let Some(vectors) = crate::support::vectors::folder() else { return };
    let folder = vectors.join("certs");
    let read = |path: &std::path::Path| {
        let certificate = pem::certificate(&std::fs::read_to_string(path).unwrap()).unwrap();
        SmkiCertificate::from_certificate(certificate, &Profile::test()).unwrap()
    };
    let issuing = read(&folder.join("issuing-oca-Z1.pem"));
    assert_eq!(issuing.kind(), Kind::IssuingOca);
    let (mut organisations, mut devices) = (0, 0);
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let certificate = read(&path);
        let usage = match certificate.kind() {
            Kind::Organisation { usage, .. } => {
                organisations += 1;
                assert_eq!(certificate.issuer(), issuing.subject(), "{name}");
                assert_eq!(certificate.authority_key_identifier(), Some(issuing.subject_key_identifier()), "{name}");
                assert!(issuing.key().verifies_der(certificate.body(), certificate.signature()), "{name}");
                usage
            }
            Kind::Device { device, usage } => {
                devices += 1;
                assert!(name.starts_with(&device.to_string().to_lowercase()), "{name}");
                usage
            }
            Kind::IssuingOca => continue,
            kind @ (Kind::RootOca | Kind::DeviceCa) => panic!("{name}: {kind}"),
        };
        match usage {
            Usage::DigitalSignature => assert!(name.ends_with("-ds"), "{name}"),
            Usage::KeyAgreement => assert!(name.ends_with("-ka"), "{name}"),
        }
    }
    assert!(organisations > 0 && devices > 0, "{organisations} Organisation and {devices} Device Certificates");
}
