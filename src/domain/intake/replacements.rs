//! Pure. Whose the certificates are that a determination puts on Devices, and what they may not be. Rules 29 and 30.

use super::contingency::next_root;
use super::rivals::is_of_contingency;
use super::{Context, Reasons, profile};
use crate::domain::certificates::profile::{Kind, Profile, SmkiCertificate};
use crate::domain::determination::document::{Compromised, Determination, Method};
use crate::domain::fold::Fold;
use crate::domain::gbcs::{CredentialsReplacementMode, RemotePartyRole, TrustAnchorCell, Update};
use crate::domain::ledger::contingency::OtherKey;
use crate::domain::names::{Digest, IncidentId, PartyId};
use crate::domain::policy::Policy;
use crate::domain::policy::facts::IncidentFacts;
use crate::domain::policy::parties::{Party, PartyKind};
use crate::domain::time::Timestamp;

/// What a replacement is held to.
pub(super) struct Replacing<'a> {
    fold: &'a Fold,
    policy: &'a Policy,
    method: Option<Method>,
    compromised: &'a Compromised,
    /// Which key that is, where it is none behind an Organisation Certificate on Devices.
    key: Option<OtherKey>,
    /// The first second of the Compromised certificate, where it can be read.
    compromised_from: Option<Timestamp>,
    /// By the Contingency route, the Root OCA Certificate that carries the next generation; none where it is refused already.
    new_root: Option<SmkiCertificate>,
}

impl<'a> Replacing<'a> {
    /// By a determination of that method, about that certificate.
    pub fn new(context: &Context<'a>, policy: &'a Policy, form: &'a Determination) -> Self {
        let Determination { incident, method, compromised, .. } = form;
        let octets = context.blobs.blob(compromised.certificate_sha256).ok();
        let parsed = octets.and_then(|octets| SmkiCertificate::parse(&octets, &profile(policy)).ok());
        let compromised_from = parsed.map(|parsed| parsed.certificate().not_before());
        let line = form.symmetric_key.as_ref().zip(form.key.as_ref());
        let new_root = line
            .and_then(|(line, key)| next_root(context.fold, policy, &key.label, line).ok())
            .and_then(|root| context.blobs.blob(root).ok())
            .and_then(|octets| SmkiCertificate::parse(&octets, &profile(policy)).ok());
        let key = context.fold.incidents().get(incident).and_then(|facts| facts.key);
        Self { fold: context.fold, policy, method: *method, compromised, key, compromised_from, new_root }
    }

    /// Whether it is by the Contingency route.
    pub fn by_contingency(&self) -> bool {
        self.method == Some(Method::Contingency)
    }

    /// The mode of every template.
    pub fn mode(&self) -> CredentialsReplacementMode {
        if self.by_contingency() {
            CredentialsReplacementMode::AnyByContingency
        } else {
            CredentialsReplacementMode::AnyExceptAbnormalRootByRecovery
        }
    }

    /// The root that everything else leads to by the Contingency route.
    pub fn new_root(&self) -> Option<&SmkiCertificate> {
        self.new_root.as_ref()
    }

    /// The policy's Root OCA Certificates, but for one whose key an incident is about.
    pub fn roots(&self, profile: &Profile) -> Vec<SmkiCertificate> {
        let anchors = self.policy.anchors().root_oca.iter();
        let roots = anchors.filter_map(|root| SmkiCertificate::parse(root, profile).ok());
        roots.filter(|root| self.oca_incident(root).is_none()).collect()
    }

    /// The incident in which the key of an OCA is, or may be, Compromised.
    fn oca_incident(&self, certificate: &SmkiCertificate) -> Option<&IncidentId> {
        let spki = certificate.certificate().spki_sha256();
        let is_of = |incident: &&IncidentFacts| {
            matches!(incident.key, Some(OtherKey::RootOca | OtherKey::IssuingOca))
                && incident.compromised.spki_sha256 == spki
                && !incident.is_dismissed()
        };
        self.fold.incidents().values().find(is_of).map(|incident| &incident.id)
    }

    /// A certificate of the path, which issued others: not with a key that is, or may be, Compromised.
    pub fn check_issuer(&self, certificate: &SmkiCertificate, name: &str, reasons: &mut Reasons) {
        if let Some(incident) = self.oca_incident(certificate) {
            reasons.add(
                "path-compromised",
                format!(
                    "template {name}: the path leads over {}, whose key incident {incident} is about; have the certificates issued by \
                     another OCA",
                    certificate.kind()
                ),
            );
        }
    }

    /// What a command of the Contingency route must do besides: the root first and once, by the one that carries the next generation; and
    /// a counter floor for the root and every other role that it replaces ([`Update::replaced_without_floor`]).
    pub fn check_contingency(&self, update: &Update<'_>, name: &str, reasons: &mut Reasons) {
        if !self.by_contingency() {
            return;
        }
        let roots =
            update.replacements.iter().filter(|replacement| replacement.cell.role == RemotePartyRole::Root).count();
        let is_first = update.replacements.first().is_some_and(|first| first.cell == TrustAnchorCell::ROOT);
        reasons.demand("root-first", roots == 1 && is_first, || {
            format!(
                "template {name}: expected the root's cell ({}) once and before every other, since those lead to the new root; found \
                 {roots} of it{}",
                TrustAnchorCell::ROOT,
                if is_first { "" } else { ", and another first" }
            )
        });
        if let (Some(expected), Some(root)) = (&self.new_root, update.replacements.first().filter(|_| is_first)) {
            let (expected, found) = (expected.certificate().sha256(), Digest::of(root.certificate));
            reasons.demand("next-generation", found == expected, || {
                format!(
                    "template {name}: the new root must be the one that carries the next generation, SHA-256 {expected}; found {found}"
                )
            });
        }
        reasons.demand("floor-missing", update.new_floor.is_some(), || {
            format!("template {name}: expected a counter floor for the root (newRemotePartyFloorSeqNumber), found none")
        });
        // Of the root it is said already.
        for role in update.replaced_without_floor().into_iter().filter(|role| *role != RemotePartyRole::Root) {
            reasons.add(
                "floor-missing",
                format!(
                    "template {name}: it replaces credentials of {role} and sets no counter floor for it \
                     (otherRemotePartySeqNumberChanges)"
                ),
            );
        }
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
            let is_meant = compromised.spki_sha256 == spki && !is_of_contingency(incident.key);
            is_other && is_meant && !incident.is_dismissed()
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
            // Of an Issuing OCA every Subscriber is affected; each gets its own anew.
            (Some(Method::NewOrganisationCertificates), false) if self.key == Some(OtherKey::IssuingOca) => {
                check_role(cell, role, certificate, place, reasons);
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
            (Some(Method::Contingency), false) => check_role(cell, role, certificate, place, reasons),
            // It puts no certificates on Devices with a key of ours.
            (Some(Method::SubscriberKey) | None, false) => {}
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
