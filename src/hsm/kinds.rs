//! Pure. What may be signed is a closed set, and each key signs its own kinds only.
//!
//! The worker asks [`permitted`] of the whole octets before it hashes them. A digest is of no kind: nothing of 32 octets
//! passes, so there is no way to have something signed without showing it.

use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

use crate::domain::certificates::bodies::is_certification_request_info;
use crate::domain::certificates::signature::PublicKey;
use crate::domain::gbcs::{
    Authentication, CommandPayload, Cra, CredentialsReplacementMode, Message, Payload, SymmetricKey,
};
use crate::domain::ledger::checkpoint::Checkpoint;
use crate::domain::names::{KeyUse, Origin};

/// What the octets are said to be. The worker checks it; nobody is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The signed range of a CS02b command: from the octet after `DF` to the last of the payload (GBCS 13.3.3).
    Command,
    /// A PKCS#10 CertificationRequestInfo with the signing key's own public key (RFC 2986 4.1).
    CertificationRequest,
    /// The text of a ledger checkpoint (C2SP tlog-checkpoint): three lines.
    Checkpoint,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Command => "command",
            Self::CertificationRequest => "certification request",
            Self::Checkpoint => "checkpoint",
        })
    }
}

/// Why octets may not be signed with a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum KindError {
    /// The key signs other things.
    #[error("a {use_} key does not sign a {kind}")]
    Use {
        /// What the key is for.
        use_: KeyUse,
        /// What it was asked to sign.
        kind: Kind,
    },
    /// The octets are not what they are said to be.
    #[error("not a {kind}: {why}")]
    Form {
        /// What they are said to be.
        kind: Kind,
        /// What was expected, found, and where.
        why: String,
    },
}

/// What is known when octets come to be signed.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The SubjectPublicKeyInfo of the key that is to sign, DER.
    pub spki: &'a [u8],
    /// The ledger's origin, when there is a ledger.
    pub origin: Option<&'a Origin>,
}

/// Octets as they are shown to whoever signs them.
///
/// They lie behind the octet that precedes a command's and that no signature covers, so that a command is read without a copy of it.
pub struct Shown {
    whole: Vec<u8>,
    is_secret: bool,
}

impl Shown {
    /// Takes a copy: the one that is judged is the one that is signed.
    pub fn new(octets: &[u8]) -> Self {
        let mut whole = Vec::with_capacity(1 + octets.len());
        whole.push(UNSIGNED);
        whole.extend_from_slice(octets);
        Self { whole, is_secret: false }
    }

    /// The same of octets with a secret inside, a symmetric key in a command of mode 9: nothing is left of them in the end.
    pub fn secret(octets: &[u8]) -> Self {
        let mut shown = Self::new(octets);
        shown.is_secret = true;
        shown
    }

    /// All that the signature covers.
    pub fn octets(&self) -> &[u8] {
        &self.whole[1..]
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if self.is_secret {
            self.whole.zeroize();
        }
    }
}

/// Whether a key of this use may sign these octets as this kind.
pub fn permitted(use_: KeyUse, kind: Kind, shown: &Shown, facts: Facts<'_>) -> Result<(), KindError> {
    match (use_, kind) {
        (KeyUse::Recovery, Kind::Command) => {
            command(&shown.whole, CredentialsReplacementMode::AnyExceptAbnormalRootByRecovery)
        }
        (KeyUse::Contingency, Kind::Command) => command(&shown.whole, CredentialsReplacementMode::AnyByContingency),
        (KeyUse::Recovery | KeyUse::Contingency, Kind::CertificationRequest) => {
            certification_request(shown.octets(), facts.spki)
        }
        (KeyUse::Ledger, Kind::Checkpoint) => checkpoint(shown.octets(), facts.origin),
        (KeyUse::Ledger, Kind::Command | Kind::CertificationRequest)
        | (KeyUse::Recovery | KeyUse::Contingency, Kind::Checkpoint) => Err(KindError::Use { use_, kind }),
    }
}

/// The first octet of a Grouping Header, which no signature covers (GBCS 7.2.7).
const UNSIGNED: u8 = 0xDF;

/// A CS02b command of this mode, all of it read as strict DER: message code, mode, counter and everything else agree.
fn command(whole: &[u8], mode: CredentialsReplacementMode) -> Result<(), KindError> {
    let wrong = |why: String| KindError::Form { kind: Kind::Command, why };
    let message = Message::decode(whole).map_err(|error| wrong(format!("counted from the DF before it, {error}")))?;
    let header = &message.frame.header;
    match header.cra {
        Cra::Command => {}
        cra @ (Cra::Response | Cra::Alert) => return Err(wrong(format!("expected a Command, found {cra:?}"))),
    }
    if header.code != mode.message_code() {
        let (expected, found) = (mode.message_code().value(), header.code.value());
        return Err(wrong(format!("expected the message code {expected:04X} of this key, found {found:04X}")));
    }
    // That a key is there in this mode, and in no other, is how a command reads; what would be no AES key is refused here.
    if let Payload::Command(CommandPayload { plaintext_symmetric_key: Some(key), .. }) = &message.payload
        && !SymmetricKey::LENS.contains(&key.expose().len())
    {
        let found = key.expose().len();
        return Err(wrong(format!("expected a plaintextSymmetricKey of 16 or 32 octets, found {found}")));
    }
    match message.frame.authentication {
        Authentication::PreCommand => Ok(()),
        Authentication::Signed(_) | Authentication::SignedAndMac(..) | Authentication::Mac(_) => {
            Err(wrong("expected the end after the payload, found a signature or a MAC".to_owned()))
        }
    }
}

/// CertificationRequestInfo as we write it, for the very key that signs (RFC 2986 4.1).
fn certification_request(octets: &[u8], spki: &[u8]) -> Result<(), KindError> {
    let wrong = |why: String| KindError::Form { kind: Kind::CertificationRequest, why };
    let own = PublicKey::from_spki(spki).map_err(|error| wrong(error.to_string()))?;
    is_certification_request_info(octets, &own).map(drop).map_err(|error| wrong(error.to_string()))
}

/// A checkpoint of our ledger (C2SP tlog-checkpoint).
fn checkpoint(octets: &[u8], origin: Option<&Origin>) -> Result<(), KindError> {
    let wrong = |why: String| KindError::Form { kind: Kind::Checkpoint, why };
    let origin = origin.ok_or_else(|| wrong("this worker was given no ledger's origin".to_owned()))?;
    let text = std::str::from_utf8(octets).map_err(|error| wrong(error.to_string()))?;
    let checkpoint = Checkpoint::parse(text).map_err(|error| wrong(error.to_string()))?;
    if checkpoint.origin == *origin {
        Ok(())
    } else {
        Err(wrong(format!("expected the origin {origin}, found {}", checkpoint.origin)))
    }
}

#[cfg(test)]
mod tests;
