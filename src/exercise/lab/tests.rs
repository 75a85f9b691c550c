use super::*;
use crate::domain::certificates::apex::{WrapAlgorithm, WrapParameters};
use crate::domain::certificates::path::{self, Time};
use crate::domain::certificates::profile::Kind;
use crate::domain::gbcs::SymmetricKey;
use crate::domain::responses::bundle::signing_device;

/// A lab as of some day.
pub fn lab() -> Lab {
    Lab::new(now()).unwrap()
}

pub fn now() -> Timestamp {
    "2026-11-24T12:00:00.500Z".parse().unwrap()
}

#[test]
fn every_certificate_leads_to_the_root_now_and_fits_its_cell() {
    let lab = lab();
    let issuing = [lab.issuing_oca().clone()];
    for credentials in [lab.before(), lab.after(), lab.broker()] {
        assert_eq!(credentials.len(), CELLS.len());
        for (certificate, cell) in credentials.iter().zip(CELLS) {
            path::check(certificate, &issuing, lab.root_oca(), &[TEST_ORGANISATION_POLICY], Time::At(now())).unwrap();
            let Kind::Organisation { usage, .. } = certificate.kind() else { panic!("{}", cell.name) };
            assert_eq!(usage.to_string(), cell.cell.key_usage.name(), "{}", cell.name);
        }
    }
}

#[test]
fn by_method_2_the_access_control_broker_stands_in_for_suppliers_and_network_operators() {
    let lab = lab();
    let roles = |credentials: &Credentials| -> Vec<u8> {
        let role = |certificate: &SmkiCertificate| match certificate.kind() {
            Kind::Organisation { role, .. } => role,
            other => panic!("{other}"),
        };
        credentials.iter().map(role).collect()
    };
    assert_eq!(roles(lab.after()), [2, 2, 2, 3, 3, 4, 5]);
    assert_eq!(roles(lab.broker()), [4, 4, 4, 4, 4, 4, 5]);
}

#[test]
fn recovery_is_certified_for_whom_the_policy_names_and_nobody_else() {
    let lab = lab();
    let party = super::super::policy::Names::new().recovery_party;
    let request = |role, asked: PartyId| {
        let key = SoftKey::generate().unwrap();
        let subject = OrganisationSubject { common_name: None, role, party: asked };
        let info = bodies::certification_request_info(&subject, key.public()).unwrap();
        bodies::assemble_request(&info, &key.sign(&info).unwrap()).unwrap()
    };
    let certificate = lab.certify_recovery(&request(1, party), party).unwrap();
    assert!(matches!(certificate.kind(), Kind::Organisation { role: 1, party: found, .. } if found == party));
    assert!(matches!(lab.certify_recovery(&request(2, party), party), Err(LabError::Request { .. })));
    let another = PartyId(Eui64([9; 8]));
    assert!(matches!(lab.certify_recovery(&request(1, another), party), Err(LabError::Request { .. })));
}

#[test]
fn of_whose_signatures_a_certificate_says_it_is_the_octets_show_as_reading_it_does() {
    let lab = lab();
    let device = DeviceId([0x90, 0xB3, 0xD5, 0x1F, 0x30, 0, 0, 1].into());
    let certificate = lab.certify_device(device, SoftKey::generate().unwrap().public()).unwrap();
    assert_eq!(signing_device(&certificate), Some(device));
    for (what, other) in [
        ("an Organisation's", lab.before()[0].octets().to_vec()),
        ("the Device CA's", lab.device_ca().octets().to_vec()),
        ("a part of it", certificate[..certificate.len() / 2].to_vec()),
        ("nothing", Vec::new()),
    ] {
        assert_eq!(signing_device(&other), None, "{what}");
    }
    // For key agreement: the last octet of keyUsage.
    let mut agreement = certificate.clone();
    let at = agreement.windows(4).position(|window| window == [3, 2, 7, 0x80]).unwrap();
    agreement[at..at + 4].copy_from_slice(&[3, 2, 3, 8]);
    assert_eq!(signing_device(&agreement), None);
}

#[test]
fn after_a_renewal_everything_leads_to_the_new_root_and_to_it_alone() {
    let mut lab = lab();
    let (recovery, _) = super::super::template::tests::recovery(&lab);
    let held = lab.root_oca().clone();
    lab.carry(generation().wrapped).unwrap();
    // The same Root: what is below it stays.
    assert_eq!((lab.root_oca().key(), lab.root_oca().subject()), (held.key(), held.subject()));
    let leads = |certificate: &SmkiCertificate, issuing: &SmkiCertificate, root: &SmkiCertificate| {
        let offered = [issuing.clone()];
        path::check(certificate, &offered, root, &[TEST_ORGANISATION_POLICY], Time::At(now())).is_ok()
    };
    assert!(leads(&lab.before()[0], lab.issuing_oca(), lab.root_oca()));
    let next = generation().wrapped;
    let renewal = lab.renew(Some(next.clone()), &recovery).unwrap();
    assert_eq!(WrappedApexKey::of_certificate(renewal.root_oca()), Ok(Some(next)));
    assert_eq!(WrappedApexKey::of_certificate(lab.renew(None, &recovery).unwrap().root_oca()), Ok(None));
    assert_eq!(renewal.recovery().key(), recovery.key());
    for certificate in renewal.credentials().iter().chain([renewal.recovery()]) {
        assert!(leads(certificate, renewal.issuing_oca(), renewal.root_oca()));
        assert!(!leads(certificate, renewal.issuing_oca(), lab.root_oca()));
    }
}

/// A generation of contingency material that no HSM guards.
pub struct Generation {
    pub key: SoftKey,
    pub symmetric: SymmetricKey,
    pub wrapped: WrappedApexKey,
}

pub fn generation() -> Generation {
    let key = SoftKey::generate().unwrap();
    let symmetric = SymmetricKey::new(&random::<32>().unwrap()).unwrap();
    let parameters = WrapParameters::Gcm { nonce: random().unwrap(), icv_len: 16 };
    let wrapped = WrappedApexKey::wrap(key.public(), &symmetric, WrapAlgorithm::Aes256Gcm, parameters).unwrap();
    Generation { key, symmetric, wrapped }
}
