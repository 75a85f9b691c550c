use super::*;
use crate::domain::certificates::{OrganisationSubject, bodies};
use crate::domain::names::{DeviceId, Eui64};
use crate::exercise::lab::SoftKey;
use crate::exercise::lab::tests::lab;
use crate::exercise::policy::Names;

/// The Recovery key's certificate, and the key, which no HSM guards.
pub fn recovery(lab: &Lab) -> (SmkiCertificate, SoftKey) {
    let (key, party) = (SoftKey::generate().unwrap(), Names::new().recovery_party);
    let subject = OrganisationSubject { common_name: None, role: 1, party };
    let info = bodies::certification_request_info(&subject, key.public()).unwrap();
    let request = bodies::assemble_request(&info, &key.sign(&info).unwrap()).unwrap();
    (lab.certify_recovery(&request, party).unwrap(), key)
}

#[test]
fn the_command_is_of_the_size_of_a_genuine_one() {
    let lab = lab();
    let (recovery, _) = recovery(&lab);
    // By Method 2, which replaces what the genuine one did; Method 3 leaves a Network Operator its certificates.
    let new = template(&lab, &recovery, lab.after()).unwrap();
    assert_eq!(new.update().replacements.len(), 6);
    let template = template(&lab, &recovery, lab.broker()).unwrap();
    let mut command = Vec::new();
    template.fill(Names::new().recovery_party, DeviceId(Eui64([1; 8])), 7001, &mut command).unwrap();
    // A genuine one has 3,986 octets with its signature of 65: signatures in certificates vary by a few octets.
    assert!((3_921 - 40..3_921 + 40).contains(&command.len()), "{}", command.len());
    assert_eq!(template.update().replacements.len(), 8);
}

#[test]
fn what_nobody_approved_differs_from_the_template_in_one_place() {
    let lab = lab();
    let (recovery, _) = recovery(&lab);
    let approved = template(&lab, &recovery, lab.after()).unwrap();
    let fill = |template: &Template| {
        let mut command = Vec::new();
        template.fill(Names::new().recovery_party, DeviceId(Eui64([1; 8])), 7001, &mut command).unwrap();
        command
    };
    assert!(approved.matches(&fill(&approved)).is_ok());
    let swapped = with_certificate_swapped(&lab, &recovery, lab.after(), 0, &lab.broker()[0]).unwrap();
    let said = approved.matches(&fill(&swapped)).unwrap_err().to_string();
    assert!(said.contains("replacement 2") || said.contains("length"), "{said}");
    let raised = with_floor(&lab, &recovery, lab.after(), SeqNumber::new(100).unwrap()).unwrap();
    let said = approved.matches(&fill(&raised)).unwrap_err().to_string();
    assert!(said.contains("otherRemotePartySeqNumberChanges"), "{said}");
}
