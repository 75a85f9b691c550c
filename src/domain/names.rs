//! Pure. The names of things: one type per meaning, so that a Device is never taken for a Party.
//!
//! Every name here has one text form, used in documents, entries, file names and messages alike.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: expected {expected}, found {found:?}")]
pub struct NameError {
    /// Which kind of name was wanted, such as `incident id`.
    pub what: &'static str,
    /// The form of that kind of name.
    pub expected: &'static str,
    /// What stood there, cut to [`NameError::FOUND_LEN_MAX`] characters.
    pub found: String,
}

impl NameError {
    /// Enough to recognise the input by; an error is no place for a megabyte.
    pub const FOUND_LEN_MAX: usize = 80;

    fn new(what: &'static str, expected: &'static str, found: &str) -> Self {
        Self { what, expected, found: found.chars().take(Self::FOUND_LEN_MAX).collect() }
    }
}

/// Serialises through `Display` and parses through `FromStr`, so that a name is checked wherever it is read.
macro_rules! as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a text")
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}

/// An octet string of fixed length, shown in hexadecimal.
macro_rules! octets {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal, $expected:literal, $case:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Its length in octets.
            pub const LEN: usize = $len;

            /// The octets, most significant first.
            pub const fn octets(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl From<[u8; $len]> for $name {
            fn from(octets: [u8; $len]) -> Self {
                Self(octets)
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = NameError;
            fn try_from(octets: &[u8]) -> Result<Self, NameError> {
                octets
                    .try_into()
                    .map(Self)
                    .map_err(|_| NameError::new($what, $expected, &format!("{} octets", octets.len())))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // Written whole: an entry has several of them, and a write for each octet would be most of its cost.
                let mut digits = [0; 2 * $len];
                hex::encode_to_slice(self.0, &mut digits).expect("two digits for each octet");
                octets!(@case $case, digits);
                f.write_str(str::from_utf8(&digits).expect("hexadecimal digits are ASCII"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                let wrong = || NameError::new($what, $expected, text);
                if text.len() != 2 * $len || text.bytes().any(octets!(@foreign $case)) {
                    return Err(wrong());
                }
                let mut octets = [0; $len];
                hex::decode_to_slice(text, &mut octets).map_err(|_| wrong())?;
                Ok(Self(octets))
            }
        }

        as_text!($name);
    };
    (@case upper, $digits:ident) => { $digits.make_ascii_uppercase() };
    (@case lower, $digits:ident) => {};
    (@foreign upper) => { |b| b.is_ascii_lowercase() };
    (@foreign lower) => { |b| b.is_ascii_uppercase() };
}

octets!(
    /// An EUI-64 as GBCS carries it. Shown as 16 upper-case hexadecimal digits: `00DB1234567890A0`.
    Eui64, 8, "EUI-64", "16 upper-case hexadecimal digits", upper
);
octets!(
    /// A SHA-256 digest. Shown as 64 lower-case hexadecimal digits, as `sha256sum` prints it.
    Digest, 32, "SHA-256 digest", "64 lower-case hexadecimal digits", lower
);
impl Digest {
    /// SHA-256 of these octets.
    pub fn of(octets: &[u8]) -> Self {
        Self(ring::digest::digest(&ring::digest::SHA256, octets).as_ref().try_into().expect("SHA-256 has 32 octets"))
    }
}

octets!(
    /// A PMA determination: 128 random bits, single use. 32 lower-case hexadecimal digits.
    DeterminationId, 16, "determination id", "32 lower-case hexadecimal digits", lower
);
octets!(
    /// A request to sign, chosen by whoever asks, so that asking twice is answered once.
    /// 128 random bits as 32 lower-case hexadecimal digits.
    RequestId, 16, "request id", "32 lower-case hexadecimal digits", lower
);
octets!(
    /// A direction that varies or departs from the procedure: 128 random bits, single use. 32 lower-case hexadecimal digits.
    DirectionId, 16, "direction id", "32 lower-case hexadecimal digits", lower
);
octets!(
    /// A share being presented to a vault: 128 random bits of the vault's own. 32 lower-case hexadecimal digits.
    PresentationId, 16, "presentation id", "32 lower-case hexadecimal digits", lower
);
octets!(
    /// A statement of a Key Custodian: 128 random bits, single use. 32 lower-case hexadecimal digits.
    StatementId, 16, "statement id", "32 lower-case hexadecimal digits", lower
);
octets!(
    /// `CKA_ID` of our keys: 16 random octets, so that two tokens never meet on one by chance.
    KeyId, 16, "key id", "32 lower-case hexadecimal digits", lower
);

/// One role of an EUI-64: the two do not mix.
macro_rules! party {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Eui64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                text.parse().map(Self)
            }
        }

        as_text!($name);
    };
}

party!(
    /// The Device a command is addressed to (Business Target ID, GBCS 7.2).
    DeviceId
);
party!(
    /// A Known Remote Party: the Business Originator of a command, or the subject of an Organisation Certificate.
    PartyId
);

/// A short text of a fixed alphabet. Shared: a command copies the names of its key and template two dozen times.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $len_max:literal, $what:literal, $expected:literal, $alphabet:pat) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The greatest length in octets.
            pub const LEN_MAX: usize = $len_max;

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                let fits = (1..=$len_max).contains(&text.len()) && text.bytes().all(|b| matches!(b, $alphabet));
                if fits { Ok(Self(text.into())) } else { Err(NameError::new($what, $expected, text)) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        as_text!($name);
    };
}

label!(
    /// The label by which policy, entries and people call a key, and its `CKA_LABEL`.
    /// The cap and the alphabet are ours, so that a label survives every token, file name and log line.
    KeyLabel, 32, "key label", "1 to 32 characters of a-z, 0-9 and -", b'a'..=b'z' | b'0'..=b'9' | b'-'
);
label!(
    /// What policy and configuration call a token. Its `CKA_LABEL` and serial number are in the configuration.
    TokenName, 32, "token name", "1 to 32 characters of a-z, 0-9 and -", b'a'..=b'z' | b'0'..=b'9' | b'-'
);
label!(
    /// A person in the policy's table: PMA member, Key Custodian, ARO, operator or auditor. Also a part of file names
    /// (`ID.MEMBER.p7s`).
    PersonId, 32, "person id", "1 to 32 characters of a-z, 0-9 and -", b'a'..=b'z' | b'0'..=b'9' | b'-'
);
label!(
    /// A SEC Party, as the policy calls it: who employs a person. Not an EUI-64: a Party may act under several.
    SecParty, 32, "SEC Party", "1 to 32 characters of a-z, 0-9 and -", b'a'..=b'z' | b'0'..=b'9' | b'-'
);
label!(
    /// A UNIX account on the daemon's machine.
    AccountName, 32, "account name", "1 to 32 characters of a-z, 0-9, -, _ and .",
    b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'
);
label!(
    /// A share of a token's activation, which one Key Custodian keeps.
    ShareName, 32, "share name", "1 to 32 characters of a-z, 0-9 and -", b'a'..=b'z' | b'0'..=b'9' | b'-'
);
label!(
    /// A procedure profile of the policy.
    ProfileId, 48, "procedure profile", "1 to 48 characters of a-z, 0-9 and -", b'a'..=b'z' | b'0'..=b'9' | b'-'
);
label!(
    /// A step of the procedure by its meaning, such as `submit-adt-file`. Printed numbers such as 4.2.1.2 are labels that
    /// differ from one version of a document to another.
    StepId, 48, "step id", "1 to 48 characters of a-z, 0-9 and -", b'a'..=b'z' | b'0'..=b'9' | b'-'
);
label!(
    /// A clause of a variation, as the direction letters it: `a`.
    ClauseId, 32, "clause id", "1 to 32 characters of a-z, 0-9 and -", b'a'..=b'z' | b'0'..=b'9' | b'-'
);
label!(
    /// A duty to inform somebody.
    DutyId, 48, "duty id", "1 to 48 characters of a-z, 0-9 and -", b'a'..=b'z' | b'0'..=b'9' | b'-'
);
label!(
    /// A factor or criterion of the SMKI Recovery Key Guidance, as the policy calls it.
    FactorId, 48, "factor id", "1 to 48 characters of a-z, 0-9 and -", b'a'..=b'z' | b'0'..=b'9' | b'-'
);
label!(
    /// A permitted mechanism for confirming a Compromise, as the procedure profile calls it.
    MechanismId, 48, "mechanism id", "1 to 48 characters of a-z, 0-9 and -", b'a'..=b'z' | b'0'..=b'9' | b'-'
);
label!(
    /// An incident: what the DCC calls it in its letters.
    IncidentId, 40, "incident id", "1 to 40 characters of A-Z, 0-9 and -", b'A'..=b'Z' | b'0'..=b'9' | b'-'
);
label!(
    /// A command template within a determination.
    TemplateName, 32, "template name", "1 to 32 characters of a-z, 0-9 and -", b'a'..=b'z' | b'0'..=b'9' | b'-'
);
label!(
    /// The origin of a ledger: the first line of each of its checkpoints (C2SP tlog-checkpoint), a name and no address.
    Origin, 128, "ledger origin", "1 to 128 characters of a-z, 0-9, - . and /",
    b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'/'
);

label!(
    /// The reference of a DCC Service Management Service Request, by which a User's Anomaly Detection Thresholds are announced
    /// (SEC Appendix AA). Its form was not read; cap and alphabet are ours.
    SmsrReference, 64, "SMSR reference", "1 to 64 characters of A-Z, a-z, 0-9, - _ . and /",
    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/'
);

/// The files of the SMKI Recovery Procedure, and those that go with them (SEC Section L10; consultation on file formats of
/// September 2015; SEC Appendix AA for thresholds).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// Organisation Compromise Notification File.
    OrganisationNotification,
    /// Other Compromise Notification File.
    OtherNotification,
    /// Organisation Compromise Recovery Progress File.
    OrganisationProgress,
    /// Other Compromise Recovery Progress File.
    OtherProgress,
    /// Anomaly Detection Thresholds (ADT) File.
    Adt,
    /// SMI Statuses, and what speaks for a Device being a Relevant Device, as they come from the Smart Metering Inventory.
    SmiExtract,
    /// SMI Statuses, as they go to it.
    SmiExport,
}

impl FileKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::OrganisationNotification,
        Self::OtherNotification,
        Self::OrganisationProgress,
        Self::OtherProgress,
        Self::Adt,
        Self::SmiExtract,
        Self::SmiExport,
    ];

    /// Its name, as entries, commands and policies write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OrganisationNotification => "organisation-notification",
            Self::OtherNotification => "other-notification",
            Self::OrganisationProgress => "organisation-progress",
            Self::OtherProgress => "other-progress",
            Self::Adt => "adt",
            Self::SmiExtract => "smi-extract",
            Self::SmiExport => "smi-export",
        }
    }

    /// What people call it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::OrganisationNotification => "Organisation Compromise Notification File",
            Self::OtherNotification => "Other Compromise Notification File",
            Self::OrganisationProgress => "Organisation Compromise Recovery Progress File",
            Self::OtherProgress => "Other Compromise Recovery Progress File",
            Self::Adt => "Anomaly Detection Thresholds File",
            Self::SmiExtract => "SMI Status extract",
            Self::SmiExport => "SMI Status export",
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for FileKind {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        const EXPECTED: &str = "organisation-notification, other-notification, organisation-progress, other-progress, adt, \
                                smi-extract or smi-export";
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| NameError::new("kind of file", EXPECTED, text))
    }
}

/// Whether something is the real thing. Live and exercise never mix: genesis, policy, documents and keys all say which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Real keys, real Devices.
    Live,
    /// A rehearsal.
    Exercise,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Live => "live",
            Self::Exercise => "exercise",
        })
    }
}

/// What a key of ours is for. A key has one use and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KeyUse {
    /// Signs checkpoints of the ledger and nothing else.
    Ledger,
    /// The Recovery Private Key: CS02b mode 8, and its own certification request.
    Recovery,
    /// The Contingency Private Key: CS02b mode 9.
    Contingency,
}

impl fmt::Display for KeyUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ledger => "ledger",
            Self::Recovery => "recovery",
            Self::Contingency => "contingency",
        })
    }
}

#[cfg(test)]
mod tests;
