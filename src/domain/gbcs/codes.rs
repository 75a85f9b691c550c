//! Pure. The closed lists of CS02b: modes, roles, usages, status codes, Message Codes, Alert Codes.
//!
//! Names are those of the documents, and the one text form in documents, JSON and messages to people.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::domain::names::NameError;

/// A closed list of numbers with names.
macro_rules! coded {
    (
        $(#[$doc:meta])* $type:ident, $what:literal;
        $($(#[$variant_doc:meta])* $variant:ident = $code:literal, $name:literal;)+
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $type {
            $($(#[$variant_doc])* #[serde(rename = $name)] $variant = $code,)+
        }

        impl $type {
            /// Every value, in order of its number.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The number on the wire.
            pub const fn code(self) -> u8 {
                self as u8
            }

            /// From the number on the wire.
            pub const fn from_code(code: u64) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// The name in the documents.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What `from_code` takes, for messages to people.
            pub(super) const EXPECTED: &'static str = concat!($what, " ", coded!(@list $($code)+));
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::ALL.iter().copied().find(|value| value.name() == text).ok_or_else(|| NameError {
                    what: $what,
                    expected: concat!("one of" $(, " ", $name)+),
                    found: text.chars().take(NameError::FOUND_LEN_MAX).collect(),
                })
            }
        }
    };
    (@list $first:literal $($code:literal)*) => { concat!(stringify!($first) $(, ", ", stringify!($code))*) };
}

coded!(
    /// Who replaces whose credentials, by which key (GBCS 13.3, `CredentialsReplacementMode`).
    CredentialsReplacementMode, "credentialsReplacementMode";
    /// The Supplier replaces the root.
    RootBySupplier = 0, "rootBySupplier";
    /// The WAN Provider replaces the root.
    RootByWanProvider = 1, "rootByWanProvider";
    /// The Supplier replaces its own.
    SupplierBySupplier = 2, "supplierBySupplier";
    /// The Network Operator replaces its own.
    NetworkOperatorByNetworkOperator = 3, "networkOperatorByNetworkOperator";
    /// The Access Control Broker replaces its own.
    AccessControlBrokerByACB = 4, "accessControlBrokerByACB";
    /// The WAN Provider replaces its own.
    WanProviderByWanProvider = 5, "wanProviderByWanProvider";
    /// The Transitional CoS Party replaces its own.
    TransCoSByTransCoS = 6, "transCoSByTransCoS";
    /// The Transitional CoS Party replaces the Supplier's, at a change of supplier.
    SupplierByTransCoS = 7, "supplierByTransCoS";
    /// Anything but an abnormal change of root, signed with the Recovery Private Key.
    AnyExceptAbnormalRootByRecovery = 8, "anyExceptAbnormalRootByRecovery";
    /// Anything, signed with the Contingency Private Key.
    AnyByContingency = 9, "anyByContingency";
);

impl CredentialsReplacementMode {
    /// The Message Code of the Command and Response: `0100` plus the mode (GBCS 16.2).
    pub const fn message_code(self) -> MessageCode {
        MessageCode::UpdateSecurityCredentials(self)
    }

    /// The cell whose key, or whose wrapped key, must verify the signature, in the two modes that are signed here: the recovery cell, and the
    /// root, whose certificate holds the Contingency Public Key (GBCS 13.3).
    pub const fn authorised_by(self) -> Option<TrustAnchorCell> {
        match self {
            Self::AnyExceptAbnormalRootByRecovery => Some(TrustAnchorCell::RECOVERY),
            Self::AnyByContingency => Some(TrustAnchorCell::ROOT),
            Self::RootBySupplier
            | Self::RootByWanProvider
            | Self::SupplierBySupplier
            | Self::NetworkOperatorByNetworkOperator
            | Self::AccessControlBrokerByACB
            | Self::WanProviderByWanProvider
            | Self::TransCoSByTransCoS
            | Self::SupplierByTransCoS => None,
        }
    }

    /// Whether this is one of the two modes that carry no MAC Header and no MAC (GBCS 13.3.3.1).
    pub const fn is_never_maced(self) -> bool {
        match self {
            Self::AnyExceptAbnormalRootByRecovery | Self::AnyByContingency => true,
            Self::RootBySupplier
            | Self::RootByWanProvider
            | Self::SupplierBySupplier
            | Self::NetworkOperatorByNetworkOperator
            | Self::AccessControlBrokerByACB
            | Self::WanProviderByWanProvider
            | Self::TransCoSByTransCoS
            | Self::SupplierByTransCoS => false,
        }
    }
}

coded!(
    /// Whose key a Trust Anchor Cell holds (GBCS 13.3, `RemotePartyRole`).
    RemotePartyRole, "remotePartyRole";
    /// The Root OCA.
    Root = 0, "root";
    /// The Recovery key.
    Recovery = 1, "recovery";
    /// The Supplier.
    Supplier = 2, "supplier";
    /// The Network Operator.
    NetworkOperator = 3, "networkOperator";
    /// The Access Control Broker.
    AccessControlBroker = 4, "accessControlBroker";
    /// The Transitional CoS Party.
    TransitionalCoS = 5, "transitionalCoS";
    /// The WAN Provider.
    WanProvider = 6, "wanProvider";
    /// The Issuing OCA; no cell holds one.
    IssuingAuthority = 7, "issuingAuthority";
    /// The Load Controller; not in every version of GBCS.
    LoadController = 8, "loadController";
    /// None of the above.
    Other = 127, "other";
);

coded!(
    /// What a cell is used for beside its key usage (GBCS 13.3, `CellUsage DEFAULT management`).
    CellUsage, "cellUsage";
    /// Everything but top-ups. The default, so absent on the wire.
    Management = 0, "management";
    /// Prepayment top-ups.
    PrePaymentTopUp = 1, "prePaymentTopUp";
);

coded!(
    /// What became of one replacement (GBCS 13.3; the numbers are those of RFC 5934 section 5).
    StatusCode, "statusCode";
    /// Done.
    Success = 0, "success";
    /// The certificate is malformed or does not fit the cell.
    BadCertificate = 5, "badCertificate";
    /// No path from the certificate to the root.
    NoTrustAnchor = 10, "noTrustAnchor";
    /// No room to store it.
    InsufficientMemory = 17, "insufficientMemory";
    /// The Device has no such cell.
    TrustAnchorNotFound = 25, "trustAnchorNotFound";
    /// The Device was busy.
    ResourcesBusy = 30, "resourcesBusy";
    /// Anything else.
    Other = 127, "other";
);

/// What the key of a cell may do: the one named bit of RFC 5280 `KeyUsage` that a cell identifier carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KeyUsage {
    /// Bit 0.
    #[serde(rename = "digitalSignature")]
    DigitalSignature,
    /// Bit 4.
    #[serde(rename = "keyAgreement")]
    KeyAgreement,
    /// Bit 5.
    #[serde(rename = "keyCertSign")]
    KeyCertSign,
}

impl KeyUsage {
    /// Every value, in order of its bit.
    pub const ALL: &[Self] = &[Self::DigitalSignature, Self::KeyAgreement, Self::KeyCertSign];

    /// The contents of the BIT STRING: count of unused bits, then the bits (X.690 11.2.2: no trailing zero bits).
    pub const fn bit_string(self) -> [u8; 2] {
        match self {
            Self::DigitalSignature => [7, 0x80],
            Self::KeyAgreement => [3, 0x08],
            Self::KeyCertSign => [2, 0x04],
        }
    }

    /// The name in RFC 5280 4.2.1.3.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DigitalSignature => "digitalSignature",
            Self::KeyAgreement => "keyAgreement",
            Self::KeyCertSign => "keyCertSign",
        }
    }
}

impl fmt::Display for KeyUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// `RemotePartyRole` recovery, as an Organisation Certificate has it: its subject shows OU=01 (GBCS 12).
pub const RECOVERY_ROLE: u8 = RemotePartyRole::Recovery.code();

/// One place on a Device that holds a public key: a Trust Anchor Cell (GBCS 13.3, `TrustAnchorCellIdentifier`).
///
/// Shown as `supplier keyAgreement`, or `supplier keyAgreement prePaymentTopUp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrustAnchorCell {
    /// Whose key.
    pub role: RemotePartyRole,
    /// For what the key.
    pub key_usage: KeyUsage,
    /// For what the cell.
    pub cell_usage: CellUsage,
}

impl TrustAnchorCell {
    /// The cell whose key authorises a Recovery command.
    pub const RECOVERY: Self = Self::management(RemotePartyRole::Recovery, KeyUsage::DigitalSignature);

    /// The cell of the Root OCA Certificate. A Contingency command is authorised by the key that is wrapped in it.
    pub const ROOT: Self = Self::management(RemotePartyRole::Root, KeyUsage::KeyCertSign);

    /// A cell of the default usage.
    pub const fn management(role: RemotePartyRole, key_usage: KeyUsage) -> Self {
        Self { role, key_usage, cell_usage: CellUsage::Management }
    }
}

impl fmt::Display for TrustAnchorCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role, self.key_usage)?;
        match self.cell_usage {
            CellUsage::Management => Ok(()),
            CellUsage::PrePaymentTopUp => write!(f, " {}", self.cell_usage),
        }
    }
}

/// An anti-replay counter: 0 to 2^63 − 1 (GBCS 13.3, `SeqNumber`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct SeqNumber(u64);

impl SeqNumber {
    /// 9,223,372,036,854,775,807.
    pub const MAX: Self = Self(i64::MAX as u64);
    /// 0.
    pub const ZERO: Self = Self(0);

    /// The counter of that value, or `None` above [`SeqNumber::MAX`].
    pub const fn new(value: u64) -> Option<Self> {
        if value <= Self::MAX.0 { Some(Self(value)) } else { None }
    }

    /// The value.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SeqNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The Message Codes of CS02b (GBCS 16.2). Command and Response share one; the CRA Flag tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageCode {
    /// `0100` to `0109`: Command and Response, by mode.
    UpdateSecurityCredentials(CredentialsReplacementMode),
    /// `00CB`: the Alert at the execution of a future-dated Command, of every mode.
    FutureDatedExecution,
}

impl MessageCode {
    const UPDATE: u16 = 0x0100;
    const ALERT: u16 = 0x00CB;

    /// The number on the wire.
    pub const fn value(self) -> u16 {
        match self {
            Self::UpdateSecurityCredentials(mode) => Self::UPDATE + mode.code() as u16,
            Self::FutureDatedExecution => Self::ALERT,
        }
    }

    /// From the number on the wire.
    pub fn from_value(value: u16) -> Option<Self> {
        if value == Self::ALERT {
            return Some(Self::FutureDatedExecution);
        }
        let mode = CredentialsReplacementMode::from_code(u64::from(value.checked_sub(Self::UPDATE)?))?;
        Some(Self::UpdateSecurityCredentials(mode))
    }
}

impl fmt::Display for MessageCode {
    /// As `0x0108 anyExceptAbnormalRootByRecovery`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::UpdateSecurityCredentials(mode) => mode.name(),
            Self::FutureDatedExecution => "execution of a future-dated command",
        };
        write!(f, "0x{:04X} {name}", self.value())
    }
}

/// An Alert Code (GBCS 16.2). Any number decodes; CS02b's own are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlertCode(pub u32);

impl AlertCode {
    /// Every replacement of a future-dated Command succeeded.
    pub const FUTURE_DATED_SUCCESS: Self = Self(0x8F66);
    /// At least one replacement of a future-dated Command failed.
    pub const FUTURE_DATED_FAILURE: Self = Self(0x8F67);

    /// What it means, where we know.
    pub const fn meaning(self) -> Option<&'static str> {
        match self.0 {
            0x8F1E => Some("content or format integrity check failed"),
            0x8F30 => Some("source lacks authority"),
            0x8F3D => Some("authentication failure of a trusted source"),
            0x8F3E => Some("unauthorised communication access attempted"),
            0x8F53 => Some("other authentication or authorisation failure"),
            0x8F60 => Some("unusual number of malformed, out-of-order or unexpected commands"),
            0x8F66 => Some("future-dated command actioned successfully"),
            0x8F67 => Some("future-dated command not actioned successfully"),
            0x8F70 => Some("update security credentials"),
            _ => None,
        }
    }
}

impl fmt::Display for AlertCode {
    /// As `0x8F66 future-dated command actioned successfully`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:04X} {}", self.0, self.meaning().unwrap_or("unknown"))
    }
}

/// The subjectKeyIdentifier of an SMKI certificate: 8 octets (RFC 5280 4.2.1.2, method 2). Shown as 16 lower-case
/// hexadecimal digits, to keep it apart from an EUI-64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubjectKeyIdentifier(pub [u8; 8]);

impl fmt::Display for SubjectKeyIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for SubjectKeyIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubjectKeyIdentifier({self})")
    }
}

#[cfg(test)]
mod tests;
