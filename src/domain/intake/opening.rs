//! Pure. How an incident begins: of which Compromised key the certificate is, whose it is, and who notified it.

use super::{Context, Reasons, check_clock, policy_in_force, profile, profile_in_force, rivals};
use crate::domain::certificates::profile::{Kind, SmkiCertificate};
use crate::domain::fold::Fold;
use crate::domain::gbcs::RECOVERY_ROLE;
use crate::domain::ledger::contingency::OtherKey;
use crate::domain::ledger::entry::{Compromised, IncidentOpened, Reason};
use crate::domain::ledger::steps::{CompromiseClass, Notification};
use crate::domain::names::{Eui64, IncidentId, PartyId};
use crate::domain::policy::Policy;
use crate::domain::time::Timestamp;

/// Which key an incident is about, where it is not the one behind an Organisation Certificate on Devices.
#[derive(Clone, Copy, Debug)]
pub enum KeyMeant {
    /// As it is said now. Of a certificate of the Recovery Private Key no other can be meant: whoever does not say so says it all the same.
    Said(Option<OtherKey>),
    /// As an entry has it. One of before anybody said which key has none.
    Recorded(Option<OtherKey>),
}

impl KeyMeant {
    const fn named(self) -> Option<OtherKey> {
        match self {
            Self::Said(key) | Self::Recorded(key) => key,
        }
    }
}

/// What an incident is opened with.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// Its id.
    pub incident: &'a IncidentId,
    /// The DER certificate: the one whose Private Key is meant, or for contingency material that of the Root OCA that carries it.
    pub certificate: &'a [u8],
    /// Which key is meant.
    pub key: KeyMeant,
    /// What was notified, in words.
    pub description: &'a str,
    /// How it came to be known.
    pub notification: Option<&'a Notification>,
}

/// An incident: the certificate whose Private Key is, or may be, Compromised, and how that came to be known.
pub fn incident(context: &Context<'_>, opening: Opening<'_>) -> Result<IncidentOpened, Vec<Reason>> {
    let mut reasons = Reasons::default();
    let Opening { incident, certificate, key: said, description, notification } = opening;
    let key = said.named();
    let adopted = policy_in_force(context.fold, &mut reasons)?;
    check_clock(context, &mut reasons);
    reasons.demand("incident-known", !context.fold.incidents().contains_key(incident), || {
        format!("incident {incident} is known already; give the new one another id")
    });
    reasons.demand("description", !description.trim().is_empty() && description.len() <= DESCRIPTION_LEN_MAX, || {
        format!("description: expected 1 to {DESCRIPTION_LEN_MAX} octets of text, found {}", description.len())
    });
    let parsed = reasons.take("certificate", SmkiCertificate::parse(certificate, &profile(&adopted.policy)));
    let meant = parsed.as_ref().and_then(|parsed| meant(context.fold, parsed, key, &mut reasons));
    let procedure = adopted.policy.procedure();
    match (procedure, notification) {
        (Some(_), Some(notification)) => {
            // Of one Root OCA Certificate the root's own key may be meant, or what it carries.
            if let Some(parsed) = &parsed {
                let of = (parsed.certificate().spki_sha256(), key);
                rivals::check_no_other(context.fold, incident, of, &mut reasons);
            }
            check_notification(notification, meant.map(|meant| meant.class), context.at, &mut reasons);
            check_notified_for(&adopted.policy, notification, &mut reasons);
        }
        (Some(_), None) => reasons.add(
            "notification",
            "an incident begins with a notification: who, for which Party, actual or suspected, when, by which channel, and the \
             moment of the Recovery Event; found none: give --notified-by, --party, --certainty, --class, --notified-at, --channel \
             and --recovery-event",
        ),
        (None, Some(_)) => reasons.add(
            "no-procedure",
            "the policy in force has no steps of the procedure (procedure/base.toml); adopt one that has",
        ),
        (None, None) => {}
    }
    let profile = profile_in_force(context.fold, context.at);
    reasons.end(meant.zip(parsed).map(|(Meant { party, class: _, key: meant }, parsed)| IncidentOpened {
        incident: incident.clone(),
        compromised: Compromised {
            certificate_sha256: parsed.certificate().sha256(),
            spki_sha256: parsed.certificate().spki_sha256(),
            party,
        },
        key: match said {
            KeyMeant::Said(_) => meant,
            KeyMeant::Recorded(key) => key,
        },
        description: description.into(),
        notification: notification.cloned(),
        profile,
    }))
}

/// The EUI-64 of an OCA, which has none: eight zero octets, as a Device writes it of a root (GBCS 13.3, the Response).
pub const OF_AN_OCA: PartyId = PartyId(Eui64([0; 8]));

/// Whose a Compromised certificate is, for people.
pub fn whose(party: PartyId) -> String {
    if party == OF_AN_OCA { "an OCA".to_owned() } else { format!("Party {party}") }
}

/// Whose the key is that an incident is about.
#[derive(Clone, Copy)]
struct Meant {
    party: PartyId,
    class: CompromiseClass,
    /// Which key that is, where it is not the one behind an Organisation Certificate on Devices.
    key: Option<OtherKey>,
}

/// Whether the certificate is one of the key that is meant, and whose.
fn meant(fold: &Fold, parsed: &SmkiCertificate, key: Option<OtherKey>, reasons: &mut Reasons) -> Option<Meant> {
    let of_oca = Some(Meant { party: OF_AN_OCA, class: CompromiseClass::Other, key });
    match (parsed.kind(), key) {
        (Kind::Organisation { role: RECOVERY_ROLE, party, .. }, None | Some(OtherKey::Recovery)) => {
            Some(Meant { party, class: CompromiseClass::Other, key: Some(OtherKey::Recovery) })
        }
        (Kind::Organisation { party, .. }, None) => {
            Some(Meant { party, class: CompromiseClass::Organisation, key: None })
        }
        (Kind::IssuingOca, Some(OtherKey::IssuingOca)) | (Kind::RootOca, Some(OtherKey::RootOca)) => of_oca,
        (Kind::RootOca, Some(key @ (OtherKey::Contingency | OtherKey::ContingencySymmetric))) => {
            let digest = parsed.certificate().sha256();
            reasons.demand("contingency-root", fold.generation_of(digest).is_some(), || {
                format!(
                    "expected the Root OCA Certificate that carries a contingency key of this ledger, whose {key} key is meant, found \
                     {digest}, which carries none"
                )
            });
            of_oca
        }
        (kind @ (Kind::IssuingOca | Kind::RootOca), None) => {
            reasons.add(
                "certificate-kind",
                format!(
                    "expected an Organisation Certificate, found {kind}; say which key is meant: root-oca, issuing-oca, contingency or \
                     contingency-symmetric (`smkictl incident open --key`)"
                ),
            );
            None
        }
        (
            kind
            @ (Kind::Organisation { .. } | Kind::IssuingOca | Kind::RootOca | Kind::DeviceCa | Kind::Device { .. }),
            Some(key),
        ) => {
            let expected = match key {
                OtherKey::Recovery => "an Organisation Certificate of role 01 (recovery)",
                OtherKey::IssuingOca => "an Issuing OCA Certificate",
                OtherKey::RootOca => "a Root OCA Certificate",
                OtherKey::Contingency | OtherKey::ContingencySymmetric => {
                    "the Root OCA Certificate that carries the contingency key"
                }
            };
            reasons
                .add("certificate-kind", format!("the key that is meant is {key}: expected {expected}, found {kind}"));
            None
        }
        (kind @ (Kind::DeviceCa | Kind::Device { .. }), None) => {
            reasons.add(
                "certificate-kind",
                format!("expected an Organisation Certificate, found {kind}, whose key is no Relevant Private Key of the procedure"),
            );
            None
        }
    }
}

fn check_notification(
    notification: &Notification,
    expected: Option<CompromiseClass>,
    at: Timestamp,
    reasons: &mut Reasons,
) {
    let Notification { by, party: _, certainty: _, class, at: notified, channel, recovery_event } = notification;
    for (field, text) in [("by", by), ("channel", channel)] {
        reasons.demand("notification", !text.trim().is_empty() && text.len() <= NOTIFICATION_TEXT_LEN_MAX, || {
            format!("{field}: expected 1 to {NOTIFICATION_TEXT_LEN_MAX} octets of text, found {}", text.len())
        });
    }
    for (field, moment) in [("notified at", notified), ("recovery event", recovery_event)] {
        reasons.demand("notification", *moment <= at, || {
            format!("{field}: expected a moment that is over, found {moment}; it is {at}")
        });
    }
    let Some(expected) = expected else { return };
    reasons.demand("class", *class == expected, || {
        format!("class: expected {expected} for this certificate (the Recovery Private Key, contingency material and OCAs have routes of their own), found {class}")
    });
}

/// The Party or RDP for which it was notified is one that the policy names. A policy of the first version names none.
fn check_notified_for(policy: &Policy, notification: &Notification, reasons: &mut Reasons) {
    let (parties, party) = (policy.parties(), &notification.party);
    reasons.demand("party-unknown", parties.is_empty() || parties.get(party).is_some(), || {
        let known: Vec<&str> = parties.iter().map(|party| party.id.as_str()).collect();
        format!("party: expected one that the policy in force names ({}), found {party}", known.join(", "))
    });
}

/// The greatest length of a name or a channel in a notification, in octets.
pub const NOTIFICATION_TEXT_LEN_MAX: usize = 200;

/// The greatest length of an incident's description in octets: a page, so that it fits an entry many times over.
pub const DESCRIPTION_LEN_MAX: usize = 4_000;
