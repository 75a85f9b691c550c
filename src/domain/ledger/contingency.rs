//! Pure. What entries say of contingency material: made at a ceremony, checked, spent, released.
//!
//! A *generation* is one contingency key: its key pair, one Contingency Symmetric Key, one key that wraps that, and the Root OCA
//! Certificate that carries the public half, wrapped with the symmetric key (RFC 5934 9; SEC Section L10.30(e)). The octets of the
//! symmetric key stand in no entry and in no document that one names.
//!
//! | entry | recorded by | before | after |
//! |---|---|---|---|
//! | [`ContingencyPrepared`] | a ceremony | | the extension goes to the Root OCA's operator |
//! | [`RootImported`] | a ceremony | prepared | the generation can be determined on |
//! | [`ContingencyChecked`] | the daemon | imported | |
//! | [`SymmetricKeySpent`] | the daemon | checked: matches | the key is of this incident for ever |
//! | [`SymmetricRelease`] | the daemon | spent | the token is asked |
//! | [`SymmetricReleased`] | the daemon | the release | commands can be signed |
//!
//! *Warning:* like all of [`super::entry`], these types are what lies in ledgers.

use serde::{Deserialize, Serialize};

use super::words::words;
use crate::domain::names::{DeterminationId, Digest, IncidentId, KeyId, KeyLabel, RequestId, TokenName};

words!(
    /// Which Relevant Private Key is meant where it is not that of an Organisation Certificate on Devices (SEC Appendix L 5 and 6).
    #[derive(Serialize, Deserialize, utoipa::ToSchema)]
    #[serde(rename_all = "kebab-case")]
    OtherKey {
        /// The Recovery Private Key.
        Recovery = "recovery",
        /// The Contingency Private Key.
        Contingency = "contingency",
        /// The Contingency Symmetric Key.
        ContingencySymmetric = "contingency-symmetric",
        /// An Issuing OCA Private Key.
        IssuingOca = "issuing-oca",
        /// The Root OCA Private Key.
        RootOca = "root-oca",
    }
);

words!(
    /// Where the public key in a Root OCA Certificate was unwrapped to be compared.
    #[derive(Serialize, Deserialize, utoipa::ToSchema)]
    #[serde(rename_all = "kebab-case")]
    Compared {
        /// In the token: the symmetric key did not leave it.
        InToken = "in-token",
    }
);

/// Contingency material was made: beside its pair, the key has its symmetric key, and the field of the Root OCA Certificate is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContingencyPrepared {
    /// The contingency key, and so the generation.
    pub key: KeyLabel,
    /// The token that holds all three, as policy and configuration call it.
    pub token: TokenName,
    /// `CKA_ID` of the Contingency Symmetric Key.
    pub symmetric: KeyId,
    /// `CKA_ID` of the key that alone may wrap it.
    pub wrapping: KeyId,
    /// Length of the symmetric key: 128 or 256.
    pub bits: u16,
    /// Whether the token keeps it from being wrapped with any key but a trusted one (`CKA_WRAP_WITH_TRUSTED`).
    pub wrap_with_trusted: bool,
    /// How the public key is wrapped, such as `aes-256-gcm`.
    pub algorithm: Box<str>,
    /// The value of the Root OCA Certificate's field, DER of `ApexContingencyKey` (RFC 5934 9); a blob.
    pub extension: Digest,
}

/// The Root OCA Certificate that carries a key's wrapped public half was taken in: its field is the one that was made, and unwraps to
/// the key's own SubjectPublicKeyInfo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootImported {
    /// The contingency key.
    pub key: KeyLabel,
    /// The DER Root OCA Certificate, a blob.
    pub root: Digest,
    /// Where it was unwrapped.
    pub compared: Compared,
}

/// What came of the check before any use (rule 33).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckResult {
    /// The Root OCA Certificate's field unwraps to the key's public half.
    Matches,
    /// It unwraps to something else, or to nothing.
    Differs(Box<str>),
    /// The token failed; nothing is known of it.
    Failed(Box<str>),
}

/// The Root OCA Certificate's field was unwrapped in the token with the symmetric key, and compared with the key's public half.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContingencyChecked {
    /// The contingency key.
    pub key: KeyLabel,
    /// For which incident.
    pub incident: IncidentId,
    /// The Root OCA Certificate.
    pub root: Digest,
    /// What came of it.
    pub result: CheckResult,
}

/// A symmetric key is about to be released for the first time: from here on it is of this incident alone, whether or not it ever
/// left the token, and its generation is to be replaced (rule 34). Once for each key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SymmetricKeySpent {
    /// The contingency key.
    pub key: KeyLabel,
    /// The incident.
    pub incident: IncidentId,
    /// The determination.
    pub determination: DeterminationId,
}

/// The token is about to be asked for a symmetric key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SymmetricRelease {
    /// The request, as whoever asked calls it.
    pub request: RequestId,
    /// The contingency key.
    pub key: KeyLabel,
    /// The incident.
    pub incident: IncidentId,
    /// The determination under which.
    pub determination: DeterminationId,
    /// The policy in force.
    pub policy: Digest,
    /// The Root OCA Certificate that the Devices hold, as the determination says.
    pub root: Digest,
}

/// The four ends of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReleaseResult {
    /// The daemon has it, in memory alone, until the key is locked or the daemon ends.
    Released,
    /// The token answered with an error.
    Failed(Box<str>),
    /// Provably never asked of the token, or given out by it and let go of at once, unused; the reason says which.
    NotReleased(Box<str>),
    /// It may have left the token; nobody can tell.
    Unknown(Box<str>),
}

/// What became of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SymmetricReleased {
    /// The index of the [`SymmetricRelease`].
    pub intent: u64,
    /// What.
    pub result: ReleaseResult,
}
