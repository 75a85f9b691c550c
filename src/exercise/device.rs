//! Shell: one simulated Device. It takes a Recovery or Contingency command as a meter would, step by step, and answers under its own key.
//!
//! What GBCS 13.3 and observed Devices settle is kept; where neither does, the choice is ours and says so here:
//! a counter must be *above* the one stored; a floor lowers a counter only where the role's key changed in the same command;
//! a command that is future dated is refused, for a simulated Device keeps no clock. Of a Contingency command no genuine one was seen: its
//! counter is that of the root; whoever sent it is believed for its signature alone; a new Root must be self-signed, and may come
//! without a wrapped key, after which no Contingency command reaches the Device any more.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use der::asn1::ObjectIdentifier;
use ring::digest::{Context, SHA256};

use super::lab::{CELLS, Lab, LabError, SoftKey};
use crate::domain::certificates::SmkiCertificate;
use crate::domain::certificates::apex::{ApexError, UnwrapError, WrappedApexKey};
use crate::domain::certificates::path::{self, Time};
use crate::domain::certificates::profile::{Kind, Profile, TEST_ORGANISATION_POLICY, Usage};
use crate::domain::certificates::signature::PublicKey;
use crate::domain::gbcs::{
    CommandPayload, CpvChecks, Cra, CredentialsReplacementMode, DecodeError, DlmsDateTime, ExecutionOutcome, Header,
    KeyUsage, Message, Payload, RemotePartyRole, Replacement, ReplacementOutcome, ResponsePayload, SeqNumberChange,
    StatusCode, SubjectKeyIdentifier, SymmetricKey, SymmetricKeyError, TrustAnchorCell, encode_unsigned, finish,
};
use crate::domain::names::{DeviceId, Eui64};
use crate::domain::time::Timestamp;

/// Roles that a counter is kept for, by number: 0 (root) to 8 (load controller).
const COUNTED_ROLES: usize = 9;

/// Why a Device discards a command, without a Response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It cannot be read (GBCS 7.2, 13.3).
    #[error("{0}")]
    Malformed(#[from] DecodeError),
    /// A Response or Alert.
    #[error("expected a Command, found a {found}")]
    NotACommand {
        /// What it is.
        found: Cra,
    },
    /// For somebody else.
    #[error("expected recipient {own}, found {found}")]
    OtherRecipient {
        /// This Device.
        own: DeviceId,
        /// Whom it is for.
        found: Eui64,
    },
    /// A mode that is not rehearsed.
    #[error("expected mode anyExceptAbnormalRootByRecovery or anyByContingency, found {found}")]
    Mode {
        /// The mode.
        found: CredentialsReplacementMode,
    },
    /// Not authorised by the cell of its mode.
    #[error("expected authorising cell {expected}, found {found:?}")]
    AuthorisingCell {
        /// The cell of its mode.
        expected: TrustAnchorCell,
        /// The cell that it names.
        found: Option<TrustAnchorCell>,
    },
    /// To be executed later.
    #[error("a simulated Device keeps no clock and takes no future-dated command")]
    FutureDated,
    /// Seen before, or overtaken.
    #[error("replay: expected a counter above {stored}, found {found}")]
    Replay {
        /// The highest that was accepted.
        stored: u64,
        /// The command's.
        found: u64,
    },
    /// From somebody who does not hold the recovery cell.
    #[error("expected originator {expected}, whose certificate the recovery cell holds, found {found}")]
    Originator {
        /// Whose certificate the recovery cell holds.
        expected: Eui64,
        /// Who says to have sent it.
        found: Eui64,
    },
    /// A pre-command.
    #[error("expected a signature, found none")]
    NotSigned,
    /// By another key, or over other octets.
    #[error("the signature does not verify under the key in the recovery cell")]
    Signature,
    /// The same, in mode anyByContingency.
    #[error(
        "the signature does not verify under the Contingency Public Key that the Device's Root OCA Certificate carries"
    )]
    ContingencySignature,
    /// The Root OCA Certificate that it holds carries no Contingency Public Key that could be read.
    #[error("the Root OCA Certificate in the root cell: {0}")]
    NoContingencyKey(ApexError),
    /// What the command brings is no Contingency Symmetric Key.
    #[error("{0}")]
    SymmetricKey(#[from] SymmetricKeyError),
    /// It is that of another Root: of one that the Device does not hold yet, or holds no more.
    #[error(
        "the Contingency Symmetric Key does not unwrap the key in the Root OCA Certificate that the Device holds: {0}"
    )]
    Unwrap(#[from] UnwrapError),
    /// There is no such Device.
    #[error("no such Device")]
    Absent,
    /// It could not sign its Response, and so executed nothing.
    #[error("the Device's random source failed")]
    Random,
}

/// What all Devices know alike, and what they found out about certificates.
///
/// Whether a certificate leads to a root is the same for every Device that is given the same octets and holds the same root, if
/// time is disapplied: it is judged once and remembered by those octets, so that a fleet of any size can be rehearsed.
pub struct Judge {
    profile: Profile,
    policies: [ObjectIdentifier; 1],
    remembered: RwLock<HashMap<[u8; 32], Judgement>>,
}

/// A certificate, or why it is not taken.
type Judgement = Result<Arc<SmkiCertificate>, StatusCode>;

impl Judge {
    /// One that remembers nothing.
    pub fn new(profile: Profile) -> Self {
        Self { profile, policies: [TEST_ORGANISATION_POLICY], remembered: RwLock::default() }
    }

    /// A certificate that shall go into a cell of that usage.
    fn judge(&self, replacement: &Replacement<'_>, path: &[&[u8]], root: &SmkiCertificate, time: Time) -> Judgement {
        if time != Time::Disapplied {
            return self.look(replacement, path, root, time);
        }
        let mut context = Context::new(&SHA256);
        // The usage, then each certificate: DER is its own delimiter.
        context.update(&replacement.cell.key_usage.bit_string());
        for octets in [replacement.certificate, root.octets()].into_iter().chain(path.iter().copied()) {
            context.update(octets);
        }
        let key: [u8; 32] = context.finish().as_ref().try_into().expect("SHA-256 has 32 octets");
        if let Some(known) = self.remembered.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return known.clone();
        }
        let found = self.look(replacement, path, root, time);
        self.remembered.write().unwrap_or_else(PoisonError::into_inner).insert(key, found.clone());
        found
    }

    /// A Root that shall take the place of the one held, to which nothing leads from there: it vouches for itself, and the command for it.
    fn judge_root(&self, replacement: &Replacement<'_>, time: Time) -> Judgement {
        let certificate = SmkiCertificate::parse(replacement.certificate, &self.profile)
            .ok()
            .filter(|certificate| certificate.kind() == Kind::RootOca)
            .ok_or(StatusCode::BadCertificate)?;
        path::check(&certificate, &[], &certificate, &self.policies, time).map_err(|_| StatusCode::NoTrustAnchor)?;
        Ok(Arc::new(certificate))
    }

    /// Profile, keyUsage and path (GBCS section 12, RFC 5280 section 6). The role in the subject is looked at only as far as it
    /// must be one of a Device's: the Access Control Broker's certificates go into other roles' cells by Method 2.
    fn look(&self, replacement: &Replacement<'_>, path: &[&[u8]], root: &SmkiCertificate, time: Time) -> Judgement {
        let bad = |_| StatusCode::BadCertificate;
        let certificate = SmkiCertificate::parse(replacement.certificate, &self.profile).map_err(bad)?;
        let usage = match certificate.kind() {
            Kind::Organisation { role, usage, .. } if RemotePartyRole::from_code(role.into()).is_some() => {
                match usage {
                    Usage::DigitalSignature => KeyUsage::DigitalSignature,
                    Usage::KeyAgreement => KeyUsage::KeyAgreement,
                }
            }
            Kind::RootOca => KeyUsage::KeyCertSign,
            Kind::Organisation { .. } | Kind::IssuingOca | Kind::DeviceCa | Kind::Device { .. } => {
                return Err(StatusCode::BadCertificate);
            }
        };
        if usage != replacement.cell.key_usage {
            return Err(StatusCode::BadCertificate);
        }
        let offered: Vec<SmkiCertificate> =
            path.iter().filter_map(|octets| SmkiCertificate::parse(octets, &self.profile).ok()).collect();
        path::check(&certificate, &offered, root, &self.policies, time).map_err(|_| StatusCode::NoTrustAnchor)?;
        Ok(Arc::new(certificate))
    }
}

/// The credentials that a Device is made with, shared by all that were made alike.
#[derive(Clone)]
pub struct Made {
    held: Vec<Held>,
}

#[derive(Clone)]
struct Held {
    cell: TrustAnchorCell,
    certificate: Arc<SmkiCertificate>,
}

impl Made {
    /// By a manufacturer who puts in the lab's Root, this Recovery certificate, and the organisations' first certificates.
    pub fn new(lab: &Lab, recovery: &SmkiCertificate) -> Self {
        let held = |cell, certificate: &SmkiCertificate| Held { cell, certificate: Arc::new(certificate.clone()) };
        let fixed = [held(TrustAnchorCell::ROOT, lab.root_oca()), held(TrustAnchorCell::RECOVERY, recovery)];
        let organisations = CELLS.iter().zip(lab.before()).map(|(cell, certificate)| held(cell.cell, certificate));
        Self { held: fixed.into_iter().chain(organisations).collect() }
    }
}

/// A simulated Device. About 1 kB, its certificate included.
pub struct Device {
    id: DeviceId,
    key: SoftKey,
    certificate: Box<[u8]>,
    held: Box<[Held]>,
    counters: [u64; COUNTED_ROLES],
}

impl Device {
    /// A new one with a key of its own, which has accepted commands under the Recovery key up to `counter`.
    pub fn make(id: DeviceId, counter: u64, made: &Made, lab: &Lab) -> Result<Self, LabError> {
        let key = SoftKey::generate()?;
        let certificate = lab.certify_device(id, key.public())?.into();
        let mut counters = [0; COUNTED_ROLES];
        counters[usize::from(RemotePartyRole::Recovery.code())] = counter;
        Ok(Self { id, key, certificate, held: made.held.clone().into(), counters })
    }

    /// Which Device.
    pub const fn id(&self) -> DeviceId {
        self.id
    }

    /// Its digitalSignature certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Its public key.
    pub const fn public(&self) -> &PublicKey {
        self.key.public()
    }

    /// The highest counter that it accepted from Recovery.
    pub fn recovery_counter(&self) -> u64 {
        self.counter(RemotePartyRole::Recovery)
    }

    /// The highest counter that it accepted under a key of that role; a Contingency command's is the root's. 0 for a role that it counts not.
    pub fn counter(&self, role: RemotePartyRole) -> u64 {
        self.counters.get(usize::from(role.code())).copied().unwrap_or(0)
    }

    /// Whether the cell holds this certificate.
    pub fn holds(&self, cell: TrustAnchorCell, certificate: &SmkiCertificate) -> bool {
        self.held.iter().any(|held| held.cell == cell && held.certificate.sha256() == certificate.sha256())
    }

    /// Takes a command: checks it, executes it, answers with a signed Response (GBCS 13.3).
    ///
    /// # Errors
    /// It discards the command, changes nothing and sends nothing.
    pub fn receive(&mut self, octets: &[u8], judge: &Judge, now: Timestamp) -> Result<Vec<u8>, Refusal> {
        let (message, command) = self.check(octets)?;
        let outcome = self.outcome(&command, judge, now);
        let header = Header {
            cra: Cra::Response,
            counter: message.frame.header.counter,
            originator: self.id.0,
            recipient: message.frame.header.originator,
            date_time: Some(DlmsDateTime::from_timestamp(now)),
            code: message.frame.header.code,
        };
        let mut response = Vec::new();
        let payload = Payload::Response(ResponsePayload { outcome: Some(outcome.report) });
        encode_unsigned(&header, &payload, &mut response).expect("the Response is of its Command's mode");
        let signature = self.key.sign(&response[1..]).map_err(|_| Refusal::Random)?;
        finish(&mut response, &signature);
        for (place, certificate) in outcome.stored {
            self.held[place].certificate = certificate;
        }
        self.counters = outcome.counters;
        Ok(response)
    }

    /// Everything before execution: framing and grammar, recipient, mode and authorising cell, counter, originator, signature.
    fn check<'a>(&self, octets: &'a [u8]) -> Result<(Message<'a>, CommandPayload<'a>), Refusal> {
        // Strict DER, no octet behind, Message Code and mode alike, counter in header and payload alike: the decoder's.
        let message = Message::decode(octets)?;
        let header = &message.frame.header;
        let command = match &message.payload {
            Payload::Command(command) => command.clone(),
            Payload::Response(_) | Payload::Alert(_) => return Err(Refusal::NotACommand { found: header.cra }),
        };
        if header.recipient != self.id.0 {
            return Err(Refusal::OtherRecipient { own: self.id, found: header.recipient });
        }
        let mode = command.update.mode;
        let expected = mode.authorised_by().ok_or(Refusal::Mode { found: mode })?;
        if command.update.authorising_cell != Some(expected) {
            return Err(Refusal::AuthorisingCell { expected, found: command.update.authorising_cell });
        }
        if command.update.execution.is_some() {
            return Err(Refusal::FutureDated);
        }
        let stored = self.counter(expected.role);
        if header.counter <= stored {
            return Err(Refusal::Replay { stored, found: header.counter });
        }
        let authoriser = &self.held[self.place(expected).expect("every Device is made with both")].certificate;
        let signature = message.frame.signature().ok_or(Refusal::NotSigned)?;
        match &command.plaintext_symmetric_key {
            None => {
                let (expected, _) = identity(authoriser);
                if header.originator != expected {
                    return Err(Refusal::Originator { expected, found: header.originator });
                }
                if !authoriser.key().verifies_fixed(message.frame.tbs(), signature) {
                    return Err(Refusal::Signature);
                }
            }
            Some(key) => {
                let wrapped = WrappedApexKey::of_certificate(authoriser).map_err(Refusal::NoContingencyKey)?;
                let wrapped = wrapped.ok_or(Refusal::NoContingencyKey(ApexError::Absent))?;
                let spki = wrapped.unwrap_with(&SymmetricKey::new(key.expose())?)?;
                let public = PublicKey::from_spki(&spki).expect("what unwraps is a P-256 key");
                if !public.verifies_fixed(message.frame.tbs(), signature) {
                    return Err(Refusal::ContingencySignature);
                }
            }
        }
        Ok((message, command))
    }

    fn place(&self, cell: TrustAnchorCell) -> Option<usize> {
        self.held.iter().position(|held| held.cell == cell)
    }

    /// Each replacement on its own, in the command's order: one that fails does not stop the others.
    fn outcome(&self, command: &CommandPayload<'_>, judge: &Judge, now: Timestamp) -> Outcome {
        let update = &command.update;
        let time = match update.cpv_checks {
            CpvChecks::Apply => Time::At(now),
            CpvChecks::Disapply => Time::Disapplied,
        };
        let is_contingency = update.mode == CredentialsReplacementMode::AnyByContingency;
        // A new Root first, whatever the order: what else the command brings is below it.
        let held_root =
            &self.held[self.place(TrustAnchorCell::ROOT).expect("every Device is made with it")].certificate;
        let new_root = update
            .replacements
            .iter()
            .find(|replacement| is_contingency && replacement.cell == TrustAnchorCell::ROOT)
            .and_then(|replacement| judge.judge_root(replacement, time).ok());
        let root = new_root.as_ref().unwrap_or(held_root);
        let mut stored: Vec<(usize, Arc<SmkiCertificate>)> = Vec::new();
        let mut replacements = Vec::with_capacity(update.replacements.len());
        for replacement in &update.replacements {
            let place = self.place(replacement.cell);
            let judged = match place {
                Some(place) => {
                    let judgement = if is_contingency && replacement.cell == TrustAnchorCell::ROOT {
                        judge.judge_root(replacement, time)
                    } else {
                        judge.judge(replacement, &update.path_certificates, root, time)
                    };
                    judgement.map(|certificate| (place, certificate))
                }
                None => Err(StatusCode::TrustAnchorNotFound),
            };
            let nobody = (Eui64([0; 8]), SubjectKeyIdentifier([0; 8]));
            let existing = place.map_or(nobody, |place| identity(&self.held[place].certificate));
            let (status, replacing) = match judged {
                Ok((place, certificate)) => {
                    let replacing = identity(&certificate);
                    stored.push((place, certificate));
                    (StatusCode::Success, replacing)
                }
                Err(status) => (status, existing),
            };
            replacements.push(ReplacementOutcome {
                cell: replacement.cell,
                status,
                existing_id: existing.0,
                existing_key_id: existing.1,
                replacing_id: replacing.0,
                replacing_key_id: replacing.1,
            });
        }
        // As Devices were seen to report them: the authorising role's floor, then the others' as the command has them.
        let role = update.mode.authorised_by().map_or(RemotePartyRole::Recovery, |cell| cell.role);
        let own = update.new_floor.map(|floor| SeqNumberChange {
            role,
            floor,
            specialist_floors: update.new_specialist_floors.clone(),
        });
        let changes: Vec<_> = own.into_iter().chain(update.other_changes.iter().flatten().cloned()).collect();
        let mut counters = self.counters;
        counters[usize::from(role.code())] = command.seq_number.get();
        for change in &changes {
            if let Some(counter) = counters.get_mut(usize::from(change.role.code())) {
                let is_new_key = stored.iter().any(|(place, certificate)| {
                    let held = &self.held[*place];
                    held.cell.role == change.role && held.certificate.key() != certificate.key()
                });
                *counter = if is_new_key { change.floor.get() } else { change.floor.get().max(*counter) };
            }
        }
        let report = ExecutionOutcome { seq_number: command.seq_number, mode: update.mode, changes, replacements };
        Outcome { report, stored, counters }
    }
}

/// What a command comes to, before any of it is stored.
struct Outcome {
    report: ExecutionOutcome,
    stored: Vec<(usize, Arc<SmkiCertificate>)>,
    counters: [u64; COUNTED_ROLES],
}

/// Whose certificate it is, and of which key. A Root has no EUI-64: zeros.
fn identity(certificate: &SmkiCertificate) -> (Eui64, SubjectKeyIdentifier) {
    let id = match certificate.kind() {
        Kind::Organisation { party, .. } => party.0,
        Kind::Device { device, .. } => device.0,
        Kind::IssuingOca | Kind::RootOca | Kind::DeviceCa => Eui64([0; 8]),
    };
    (id, SubjectKeyIdentifier(certificate.subject_key_identifier()))
}

#[cfg(test)]
mod tests;
