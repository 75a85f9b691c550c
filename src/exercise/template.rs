//! Shell: the commands that the exercise approves and sends: the Recovery command is modelled on a genuine one of 3,986 octets, the Contingency
//! command on what genuine Devices answered to one (GBCS 13.3).

use super::lab::{CELLS, Credentials, Lab, Renewal};
use crate::domain::certificates::SmkiCertificate;
use crate::domain::gbcs::{
    CpvChecks, CredentialsReplacementMode, RemotePartyRole, Replacement, SeqNumber, SeqNumberChange, SpecialistFloor,
    SpecialistUse, Template, TemplateError, TrustAnchorCell, Update,
};

/// What the exercise's command does: the recovery cell and [`CELLS`] get these certificates, under the lab's Issuing OCA, but for the
/// cells that keep what they hold; every counter of what is replaced starts at `floor`; validity dates are not looked at, as in the
/// genuine command.
fn update<'a>(
    lab: &'a Lab,
    recovery: &'a SmkiCertificate,
    credentials: &'a Credentials,
    floor: SeqNumber,
) -> Update<'a> {
    let organisations: Vec<Replacement<'_>> = CELLS
        .iter()
        .zip(credentials.iter().zip(lab.before()))
        .filter(|(_, (certificate, before))| certificate.octets() != before.octets())
        .map(|(cell, (certificate, _))| Replacement { certificate: certificate.octets(), cell: cell.cell })
        .collect();
    let is_replaced = |role| organisations.iter().any(|replacement| replacement.cell.role == role);
    let changes = changes(floor);
    let changes = changes.into_iter().filter(|change| is_replaced(change.role)).collect();
    let recovery = Replacement { certificate: recovery.octets(), cell: TrustAnchorCell::RECOVERY };
    Update {
        mode: CredentialsReplacementMode::AnyExceptAbnormalRootByRecovery,
        cpv_checks: CpvChecks::Disapply,
        authorising_cell: Some(TrustAnchorCell::RECOVERY),
        new_floor: Some(SeqNumber::ZERO),
        new_specialist_floors: None,
        other_changes: Some(changes),
        replacements: std::iter::once(recovery).chain(organisations).collect(),
        path_certificates: vec![lab.issuing_oca().octets()],
        execution: None,
    }
}

/// What counters of the organisations' roles become.
fn changes(floor: SeqNumber) -> [SeqNumberChange; 4] {
    let change = |role, specialist_floors| SeqNumberChange { role, floor, specialist_floors };
    let top_up = SpecialistFloor { usage: SpecialistUse::PrepaymentTopUp, floor };
    [
        change(RemotePartyRole::Supplier, Some(vec![top_up])),
        change(RemotePartyRole::NetworkOperator, None),
        change(RemotePartyRole::AccessControlBroker, None),
        change(RemotePartyRole::TransitionalCoS, None),
    ]
}

/// The template of Commands that replace a compromised Root and with it all that a Device holds, under the Contingency key: nine cells, and
/// the counters of five roles, as genuine Devices reported them.
pub fn contingency(renewal: &Renewal) -> Result<Template, TemplateError> {
    let first = [
        Replacement { certificate: renewal.root_oca().octets(), cell: TrustAnchorCell::ROOT },
        Replacement { certificate: renewal.recovery().octets(), cell: TrustAnchorCell::RECOVERY },
    ];
    let organisations = CELLS
        .iter()
        .zip(renewal.credentials())
        .map(|(cell, certificate)| Replacement { certificate: certificate.octets(), cell: cell.cell });
    Template::from_update(&Update {
        mode: CredentialsReplacementMode::AnyByContingency,
        cpv_checks: CpvChecks::Disapply,
        authorising_cell: Some(TrustAnchorCell::ROOT),
        new_floor: Some(SeqNumber::ZERO),
        new_specialist_floors: None,
        other_changes: Some(changes(SeqNumber::ZERO).to_vec()),
        replacements: first.into_iter().chain(organisations).collect(),
        path_certificates: vec![renewal.issuing_oca().octets()],
        execution: None,
    })
}

/// The template of Commands that put these credentials on a Device.
pub fn template(lab: &Lab, recovery: &SmkiCertificate, credentials: &Credentials) -> Result<Template, TemplateError> {
    Template::from_update(&update(lab, recovery, credentials, SeqNumber::ZERO))
}

/// The same but for the certificate of one cell, by its place in [`CELLS`]: what nobody approved.
pub fn with_certificate_swapped(
    lab: &Lab,
    recovery: &SmkiCertificate,
    credentials: &Credentials,
    place: usize,
    with: &SmkiCertificate,
) -> Result<Template, TemplateError> {
    let mut swapped = credentials.clone();
    swapped[place] = with.clone();
    template(lab, recovery, &swapped)
}

/// The same but for the counters' floor: what nobody approved.
pub fn with_floor(
    lab: &Lab,
    recovery: &SmkiCertificate,
    credentials: &Credentials,
    floor: SeqNumber,
) -> Result<Template, TemplateError> {
    Template::from_update(&update(lab, recovery, credentials, floor))
}

#[cfg(test)]
pub(crate) mod tests;
