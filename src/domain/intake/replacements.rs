//! Pure. Whose the certificates are that a determination puts on Devices, and what they may not be. Rules 29 and 30.

use super::rivals::is_of_contingency;
use super::{Context, Reasons, profile};
use crate::domain::certificates::profile::{Kind, SmkiCertificate};
use crate::domain::determination::document::{Compromised, Method};
use crate::domain::fold::Fold;
use crate::domain::gbcs::{RemotePartyRole, TrustAnchorCell};
use crate::domain::ledger::meaning::Meaning;
use crate::domain::names::{IncidentId, PartyId};
use crate::domain::policy::Policy;
use crate::domain::policy::parties::{Party, PartyKind};
use crate::domain::time::Timestamp;

/// What a replacement is held to.
pub(super) struct Replacing<'a> {
    fold: &'a Fold,
    policy: &'a Policy,
    method: Option<Method>,
    compromised: &'a Compromised,
    /// The first second of the Compromised certificate, where it can be read.
    compromised_from: Option<Timestamp>,
}

impl<'a> Replacing<'a> {
    /// By a determination of that method, about that certificate.
    pub fn new(
        context: &Context<'a>,
        policy: &'a Policy,
        method: Option<Method>,
        compromised: &'a Compromised,
    ) -> Self {
        let octets = context.blobs.blob(compromised.certificate_sha256).ok();
        let parsed = octets.and_then(|octets| SmkiCertificate::parse(&octets, &profile(policy)).ok());
        let compromised_from = parsed.map(|parsed| parsed.certificate().not_before());
        Self { fold: context.fold, policy, method, compromised, compromised_from }
    }

    /// One certificate, for this cell; `place` is where it stands.
    pub fn check(&self, cell: TrustAnchorCell, certificate: &SmkiCertificate, place: &str, reasons: &mut Reasons) {
        self.check_key(certificate, place, reasons);
        self.check_party(cell, certificate, place, reasons);
    }

    /// It shares no key with what is, or may be, Compromised: in this incident or in any other that was not dismissed. A suspicion is
    /// enough, and an incident that is closed does not mend its key. Under a policy of the first version nobody asked about others.
    fn check_key(&self, certificate: &SmkiCertificate, place: &str, reasons: &mut Reasons) {
        let spki = certificate.certificate().spki_sha256();
        reasons.demand("replacement-compromised", spki != self.compromised.spki_sha256, || {
            format!("{place}: the replacement carries the Compromised key")
        });
        let others = self.fold.incidents().values().filter(|incident| {
            let compromised = &incident.compromised;
            let is_other = compromised.spki_sha256 != self.compromised.spki_sha256;
            let stands = !incident.progress.as_ref().is_some_and(|progress| progress.has_done(Meaning::Dismiss));
            is_other && stands && compromised.spki_sha256 == spki && !is_of_contingency(incident.key)
        });
        let others = others.filter(|_| !self.policy.parties().is_empty());
        let others: Vec<&str> = others.map(|incident| IncidentId::as_str(&incident.id)).collect();
        reasons.demand("replacement-compromised", others.is_empty(), || {
            format!("{place}: the replacement carries the key that incident {} is about", others.join(", "))
        });
    }

    /// By Method 2 the DCC's Access Control Broker's certificates take the place of others, by Method 3 new ones of the affected
    /// Subscriber (SEC Appendix L, Methods 2 and 3). The cells of the DCC's own roles hold the DCC's by either.
    ///
    /// A policy of the first version names no Parties: under one nobody can tell whose a certificate is.
    fn check_party(&self, cell: TrustAnchorCell, certificate: &SmkiCertificate, place: &str, reasons: &mut Reasons) {
        let Kind::Organisation { role, party, usage: _ } = certificate.kind() else { return };
        if self.policy.parties().is_empty() {
            return;
        }
        let of = self.policy.parties().of(party);
        let is_dcc = of.is_some_and(|party| party.kind == PartyKind::Dcc);
        match (self.method, is_of_dcc(cell.role)) {
            (_, true) => {
                // The certificate of a key of ours is the DCC's, whether or not the Parties name its EUI-64.
                let ours =
                    self.fold.keys().values().any(|key| key.certificate.is_some_and(|(_, of_key)| of_key == party));
                reasons.demand("replacement-party", is_dcc || ours, || {
                    format!(
                        "{place}: the cell is the DCC's; expected a certificate of the DCC, found one of {}",
                        said(of, party)
                    )
                });
                check_role(cell, role, certificate, place, reasons);
            }
            (Some(Method::AcbCertificates), false) => {
                let broker = RemotePartyRole::AccessControlBroker.code();
                reasons.demand("replacement-party", is_dcc && role == broker, || {
                    format!(
                        "{place}: by Method 2 expected a certificate of the DCC as Access Control Broker (role {broker:02X}), found \
                         {} of {}",
                        certificate.kind(),
                        said(of, party)
                    )
                });
            }
            (Some(Method::NewOrganisationCertificates), false) => {
                let affected = self.policy.parties().of(self.compromised.party);
                let is_theirs =
                    party == self.compromised.party || of.zip(affected).is_some_and(|(of, it)| of.id == it.id);
                reasons.demand("replacement-party", is_theirs, || {
                    format!(
                        "{place}: by Method 3 expected a certificate of the affected Subscriber, {}, found one of {}",
                        said(affected, self.compromised.party),
                        said(of, party)
                    )
                });
                check_role(cell, role, certificate, place, reasons);
                self.check_new(certificate, place, reasons);
            }
            // Neither puts certificates on Devices with the Recovery Private Key.
            (Some(Method::SubscriberKey | Method::Contingency) | None, false) => {}
        }
    }

    /// Newly issued: not before the one whose place it takes. Whether it was issued since the Compromise, no certificate says.
    fn check_new(&self, certificate: &SmkiCertificate, place: &str, reasons: &mut Reasons) {
        let Some(compromised_from) = self.compromised_from else { return };
        let from = certificate.certificate().not_before();
        reasons.demand("replacement-not-new", from >= compromised_from, || {
            format!(
                "{place}: by Method 3 expected a newly issued certificate, found one of {from}, before the Compromised one, of \
                 {compromised_from}"
            )
        });
    }
}

/// But for the Access Control Broker's by Method 2, a certificate takes the place of one of the same Remote Party Role.
fn check_role(cell: TrustAnchorCell, role: u8, certificate: &SmkiCertificate, place: &str, reasons: &mut Reasons) {
    let expected = cell.role.code();
    reasons.demand("replacement-role", role == expected, || {
        let found = certificate.kind();
        format!("{place}: expected a certificate of role {expected:02X}, as the cell has it, found {found}")
    });
}

/// Whether the cells of this role hold the certificates of the DCC itself, or of those who act for it.
pub const fn is_of_dcc(role: RemotePartyRole) -> bool {
    match role {
        RemotePartyRole::Recovery
        | RemotePartyRole::AccessControlBroker
        | RemotePartyRole::TransitionalCoS
        | RemotePartyRole::WanProvider => true,
        RemotePartyRole::Root
        | RemotePartyRole::Supplier
        | RemotePartyRole::NetworkOperator
        | RemotePartyRole::IssuingAuthority
        | RemotePartyRole::LoadController
        | RemotePartyRole::Other => false,
    }
}

fn said(party: Option<&Party>, eui64: PartyId) -> String {
    party.map_or_else(|| format!("{eui64}, whom no [[party]] names"), |party| format!("{} ({eui64})", party.id))
}
