//! Pure. The command that both sides sign: a Recovery command of the usual shape and of 3,986 octets, signature included.

use smkid::domain::gbcs::{
    CellUsage, CpvChecks, CredentialsReplacementMode, KeyUsage, RemotePartyRole, Replacement, SeqNumber,
    SeqNumberChange, SpecialistFloor, SpecialistUse, Template, TrustAnchorCell, Update,
};

/// Replaces eight certificates, with the Issuing OCA's beside them. What stands in the certificates makes no difference in
/// time to anything here, so they are their outer framing and lengths: those of real ones.
pub fn template() -> Template {
    use KeyUsage::{DigitalSignature, KeyAgreement};
    use RemotePartyRole::{AccessControlBroker, NetworkOperator, Recovery, Supplier, TransitionalCoS};
    let top_up = TrustAnchorCell { role: Supplier, key_usage: KeyAgreement, cell_usage: CellUsage::PrePaymentTopUp };
    let cells = [
        (406, TrustAnchorCell::management(Recovery, DigitalSignature)),
        (432, TrustAnchorCell::management(Supplier, DigitalSignature)),
        (406, TrustAnchorCell::management(Supplier, KeyAgreement)),
        (407, top_up),
        (407, TrustAnchorCell::management(NetworkOperator, DigitalSignature)),
        (407, TrustAnchorCell::management(NetworkOperator, KeyAgreement)),
        (407, TrustAnchorCell::management(AccessControlBroker, KeyAgreement)),
        (406, TrustAnchorCell::management(TransitionalCoS, DigitalSignature)),
    ];
    let certificates = cells.map(|(len, cell)| (framed(len), cell));
    let issuing_oca = framed(420);
    let change = |role, specialist_floors| SeqNumberChange { role, floor: SeqNumber::ZERO, specialist_floors };
    let top_up_floor = SpecialistFloor { usage: SpecialistUse::PrepaymentTopUp, floor: SeqNumber::ZERO };
    let update = Update {
        mode: CredentialsReplacementMode::AnyExceptAbnormalRootByRecovery,
        cpv_checks: CpvChecks::Disapply,
        authorising_cell: Some(TrustAnchorCell::RECOVERY),
        new_floor: Some(SeqNumber::ZERO),
        new_specialist_floors: None,
        other_changes: Some(vec![
            change(Supplier, Some(vec![top_up_floor])),
            change(NetworkOperator, None),
            change(AccessControlBroker, None),
            change(TransitionalCoS, None),
        ]),
        replacements: certificates.iter().map(|(certificate, cell)| Replacement { certificate, cell: *cell }).collect(),
        path_certificates: vec![&issuing_oca],
        execution: None,
    };
    Template::from_update(&update).expect("an update of mode 8 with its authorising cell has a template")
}

/// The outer framing of a certificate of so many octets in all, which are from 260 to 65,539.
fn framed(len: u16) -> Vec<u8> {
    let [high, low] = (len - 4).to_be_bytes();
    [&[0x30, 0x82, high, low][..], &vec![0x5A; usize::from(len) - 4]].concat()
}
