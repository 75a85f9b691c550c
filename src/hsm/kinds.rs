//! Pure. What may be signed is a closed set, and each key signs its own kinds only.
//!
//! The worker asks [`permitted`] of the whole octets before it hashes them. A digest is of no kind: nothing of 32 octets
//! passes, so there is no way to have something signed without showing it.

use serde::{Deserialize, Serialize};

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
    #[error("not a {kind}: octet {offset}: expected {expected}")]
    Form {
        /// What they are said to be.
        kind: Kind,
        /// Where they differ.
        offset: usize,
        /// What should stand there.
        expected: String,
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

/// Whether a key of this use may sign these octets as this kind.
pub fn permitted(use_: KeyUse, kind: Kind, octets: &[u8], facts: Facts<'_>) -> Result<(), KindError> {
    match (use_, kind) {
        (KeyUse::Recovery, Kind::Command) => command(octets, MODE_RECOVERY),
        (KeyUse::Contingency, Kind::Command) => command(octets, MODE_CONTINGENCY),
        (KeyUse::Recovery | KeyUse::Contingency, Kind::CertificationRequest) => {
            certification_request(octets, facts.spki)
        }
        (KeyUse::Ledger, Kind::Checkpoint) => checkpoint(octets, facts.origin),
        (KeyUse::Ledger, Kind::Command | Kind::CertificationRequest)
        | (KeyUse::Recovery | KeyUse::Contingency, Kind::Checkpoint) => Err(KindError::Use { use_, kind }),
    }
}

/// `anyExceptAbnormalRootByRecovery`, and the last octet of its message code 0x0108 (GBCS 13.3.3).
const MODE_RECOVERY: u8 = 8;
/// `anyByContingency`, and the last octet of its message code 0x0109 (GBCS 13.3.3).
const MODE_CONTINGENCY: u8 = 9;

/// The Grouping Header of a Command without its `DF` (GBCS 7.2.7): fixed octets and their places.
fn command(octets: &[u8], mode: u8) -> Result<(), KindError> {
    let wrong = |offset: usize, expected: String| KindError::Form { kind: Kind::Command, offset, expected };
    let fixed: [(usize, u8, &str); 8] = [
        (0, 0x09, "09, the length of the transaction id"),
        (1, 0x01, "01, a Command"),
        (10, 0x08, "08, the length of the Business Originator ID"),
        (19, 0x08, "08, the length of the Business Target ID"),
        (28, 0x00, "00, no date-time"),
        (29, 0x02, "02, the length of the message code"),
        (30, 0x01, "01, the first octet of the message code"),
        (31, mode, "the message code of this key's mode"),
    ];
    for (offset, octet, expected) in fixed {
        if octets.get(offset) != Some(&octet) {
            return Err(wrong(offset, expected.to_owned()));
        }
    }
    let (content_at, len) =
        ber_len(octets, 32).ok_or_else(|| wrong(32, "a definite length of least octets".to_owned()))?;
    if octets.len() - content_at != len {
        return Err(wrong(32, format!("the length {}, of all that follows", octets.len() - content_at)));
    }
    // CommandPayload and AuthorisingRemotePartyControl are SEQUENCEs; the mode is the first element of the latter.
    let payload = sequence(octets, content_at, octets.len())
        .ok_or_else(|| wrong(content_at, "a SEQUENCE that ends with the octets (CommandPayload)".to_owned()))?;
    let control = match octets.get(payload) {
        Some(0x30) => ber_len(octets, payload + 1).map(|(at, _)| at),
        Some(_) | None => None,
    };
    let control = control.ok_or_else(|| wrong(payload, "a SEQUENCE (AuthorisingRemotePartyControl)".to_owned()))?;
    if octets.get(control..control + 3) != Some(&[0x02, 0x01, mode]) {
        return Err(wrong(control, format!("02 01 {mode:02X}, the mode that goes with the message code")));
    }
    Ok(())
}

/// CertificationRequestInfo: version 0, and the public key of the very key that signs (RFC 2986 4.1).
fn certification_request(octets: &[u8], spki: &[u8]) -> Result<(), KindError> {
    let wrong = |offset: usize, expected: &str| KindError::Form {
        kind: Kind::CertificationRequest,
        offset,
        expected: expected.to_owned(),
    };
    let version = sequence(octets, 0, octets.len()).ok_or_else(|| wrong(0, "a SEQUENCE that ends with the octets"))?;
    if octets.get(version..version + 3) != Some(&[0x02, 0x01, 0x00]) {
        return Err(wrong(version, "02 01 00, version 0"));
    }
    let subject = version + 3;
    let subject_end = match octets.get(subject) {
        Some(0x30) => ber_len(octets, subject + 1).and_then(|(at, len)| at.checked_add(len)),
        Some(_) | None => None,
    };
    let subject_end = subject_end.ok_or_else(|| wrong(subject, "a SEQUENCE (subject)"))?;
    if octets.get(subject_end..subject_end.saturating_add(spki.len())) != Some(spki) {
        return Err(wrong(subject_end, "the SubjectPublicKeyInfo of the key that signs"));
    }
    Ok(())
}

/// Exactly three lines: origin, size, root in base64 (C2SP tlog-checkpoint).
fn checkpoint(octets: &[u8], origin: Option<&Origin>) -> Result<(), KindError> {
    let wrong = |offset: usize, expected: &str| KindError::Form {
        kind: Kind::Checkpoint,
        offset,
        expected: expected.to_owned(),
    };
    let origin = origin.ok_or_else(|| wrong(0, "no checkpoint: this worker was given no ledger's origin"))?.as_str();
    let line_end = |from: usize, expected: &str| {
        octets[from..].iter().position(|octet| *octet == b'\n').map(|at| from + at).ok_or_else(|| wrong(from, expected))
    };
    let first = line_end(0, "a line: the origin")?;
    if octets[..first] != *origin.as_bytes() {
        return Err(wrong(0, "the origin of our ledger"));
    }
    let second = line_end(first + 1, "a line: the size")?;
    let size = &octets[first + 1..second];
    let decimal =
        (1..=19).contains(&size.len()) && size.iter().all(u8::is_ascii_digit) && (size.len() == 1 || size[0] != b'0');
    if !decimal {
        return Err(wrong(first + 1, "a decimal number without leading zeros"));
    }
    let third = line_end(second + 1, "a line: the root")?;
    let root = &octets[second + 1..third];
    // 32 octets in base64: 43 characters and one `=`.
    let base64 = root.len() == 44
        && root[43] == b'='
        && root[..43].iter().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b'/'));
    if !base64 {
        return Err(wrong(second + 1, "32 octets in base64"));
    }
    if third + 1 != octets.len() {
        return Err(wrong(third + 1, "the end: a checkpoint has three lines"));
    }
    Ok(())
}

/// Where the content of the SEQUENCE at `at` begins, if it ends at `end`.
fn sequence(octets: &[u8], at: usize, end: usize) -> Option<usize> {
    if octets.get(at) != Some(&0x30) {
        return None;
    }
    let (content, len) = ber_len(octets, at + 1)?;
    (content.checked_add(len)? == end).then_some(content)
}

/// A DER length at `at`: where the content begins, and its length. `None` for one that is not of least octets or is cut.
fn ber_len(octets: &[u8], at: usize) -> Option<(usize, usize)> {
    let first = *octets.get(at)?;
    let (count, least) = match first {
        0..=0x7f => return Some((at + 1, usize::from(first))),
        0x81 => (1, 0x80),
        0x82 => (2, 0x100),
        0x83 => (3, 0x1_0000),
        0x80 | 0x84..=0xff => return None,
    };
    let mut len = 0;
    for octet in octets.get(at + 1..at + 1 + count)? {
        len = len << 8 | usize::from(*octet);
    }
    (len >= least).then_some((at + 1 + count, len))
}

#[cfg(test)]
mod tests;
