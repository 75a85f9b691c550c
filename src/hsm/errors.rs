//! Shell. What goes wrong on the way to a key, and what that means.
//!
//! Every error answers three questions: was anything signed ([`HsmError::certainty`]), what becomes of the worker
//! ([`HsmError::class`]), and what shall a person do (its text).

use serde::{Deserialize, Serialize};

use super::kinds::KindError;
use crate::domain::names::{Digest, KeyId, KeyLabel};

/// Whether a signature may exist although we do not hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Certainty {
    /// Provably nothing was signed.
    NothingSigned,
    /// The token may have made a signature. Record it as unknown; never ask again as if this call had not been made.
    SignatureMayExist,
}

/// What a fault of the token calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// The session is spoilt; another one will do.
    RetryOnNewSession,
    /// The login is gone; the worker ends, and its successor logs in.
    LogInAgain,
    /// The module or its connection is spoilt; only a new process heals it.
    ReplaceWorker,
    /// Only a person can mend it. After C_Login nothing is tried again by itself; else it is, after a pause.
    OperatorMustAct,
    /// We asked for something that cannot be: a defect of ours, or a token that is not what it was checked to be.
    OurFault,
}

impl Class {
    /// What the worker does after a fault of this class: whether it goes on with its next item.
    pub const fn worker_goes_on(self) -> bool {
        match self {
            Self::RetryOnNewSession | Self::OurFault => true,
            Self::LogInAgain | Self::ReplaceWorker | Self::OperatorMustAct => false,
        }
    }
}

/// A call of the module that did not answer `CKR_OK`. What each answer means stands in `returns.rs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The token, as configuration calls it.
    pub token: String,
    /// The function, as PKCS#11 calls it: `C_Sign`.
    pub function: String,
    /// The return value, as PKCS#11 calls it: `CKR_DEVICE_ERROR`; `0x80000001` for a vendor's own.
    pub rv: String,
    /// What it calls for.
    pub class: Class,
    /// Whether a signature may exist.
    pub certainty: Certainty,
    /// The likely cause, for a person.
    pub cause: String,
    /// What to do, for a person; or what is done without them.
    pub advice: String,
}

/// Why something asked of a token did not come about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum HsmError {
    /// A function of the module failed.
    #[error("{} of token {} answered {}: {}; {}", .0.function, .0.token, .0.rv, .0.cause, .0.advice)]
    Call(Box<Fault>),
    /// The module could not be loaded.
    #[error("the PKCS#11 module {path} cannot be loaded: {found}. Check `module` of this token in the configuration")]
    ModuleLoad {
        /// Its path.
        path: String,
        /// What the loader said.
        found: String,
    },
    /// No slot has the token.
    #[error(
        "no token labelled {label:?} with serial number {serial:?} is present; found: {found}. Insert it, or check \
         `label` and `serial` of this token in the configuration"
    )]
    TokenAbsent {
        /// The label wanted.
        label: String,
        /// The serial number wanted.
        serial: String,
        /// The tokens that are there, and the slots that could not be read.
        found: String,
    },
    /// Two slots have a token of this label and serial number.
    #[error("{count} slots have a token labelled {label:?} with serial number {serial:?}; there must be one")]
    TokenDuplicate {
        /// The label wanted.
        label: String,
        /// The serial number wanted.
        serial: String,
        /// How many there are.
        count: usize,
    },
    /// `CKF_USER_PIN_FINAL_TRY` or `CKF_USER_PIN_LOCKED` is set: no PIN was offered.
    #[error(
        "the token says {flag}: no PIN was offered, since a wrong one would lock it. Log in once with the vendor's tool, which \
         resets the count; then `smkictl hsm retry-login` with the token's name"
    )]
    PinAtRisk {
        /// The flag.
        flag: String,
    },
    /// The PIN was refused. It is not offered again.
    #[error(
        "{} of token {} answered {}, and the PIN was offered once: {}; {}",
        .0.function, .0.token, .0.rv, .0.cause, .0.advice
    )]
    PinRefused(Box<Fault>),
    /// No PIN was offered, because of what came of earlier offers.
    #[error(
        "no PIN was offered: {why}. Put the PIN right, then `smkictl hsm retry-login` with the token's name: until then no \
         restart offers it again"
    )]
    PinWithheld {
        /// What came of them.
        why: String,
    },
    /// There is no PIN to offer: who had it has it no longer.
    #[error("no PIN can be had: {why}. Activate the key anew")]
    PinNotHad {
        /// Why not.
        why: String,
    },
    /// The token does not ask for its PIN by itself.
    #[error(
        "the policy has the token ask for its PIN by itself (protected-path), and the token does not say \
         CKF_PROTECTED_AUTHENTICATION_PATH: nothing was offered. Configure the HSM's PIN pad or card set with the vendor's tool, or have the \
         policy name another activation"
    )]
    NoProtectedPath,
    /// Whether a PIN may be offered cannot be read, or an offer not be noted.
    #[error(
        "no PIN was offered: {path} keeps whether one may be, and {found}. Mend the disk, or remove that file once you know that \
         the PIN is right"
    )]
    PinMark {
        /// The file.
        path: String,
        /// What is wrong with it.
        found: String,
    },
    /// The token lacks a mechanism.
    #[error("the token does not offer {mechanism}; it cannot hold our keys")]
    MechanismAbsent {
        /// The mechanism.
        mechanism: String,
    },
    /// A key that policy names was not found. Nothing is concluded from it and nothing is deleted.
    #[error(
        "key {label}: no {class} with CKA_ID {id} and that label is visible on the token. Check that it is the right token and \
         that the ceremony made this key"
    )]
    KeyAbsent {
        /// The key.
        label: KeyLabel,
        /// Its CKA_ID.
        id: KeyId,
        /// `private key` or `public key`.
        class: String,
    },
    /// More than one object answers to a key's name.
    #[error("key {label}: {count} objects of class {class} answer to its label or CKA_ID {id}; there must be one")]
    KeyDuplicate {
        /// The key.
        label: KeyLabel,
        /// Its CKA_ID.
        id: KeyId,
        /// `private key` or `public key`.
        class: String,
        /// How many there are.
        count: usize,
    },
    /// A key has an attribute that no key of ours may have.
    #[error(
        "key {label}: expected {attribute} {expected}, found {found}. The key is not used; make a new one at a ceremony"
    )]
    KeyUnfit {
        /// The key.
        label: KeyLabel,
        /// The attribute, such as `CKA_EXTRACTABLE`.
        attribute: String,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The public key on the token is not the one known.
    #[error(
        "key {label}: expected the public key whose SPKI has SHA-256 {expected}, found {found}. The key is not used"
    )]
    KeyDiffers {
        /// The key.
        label: KeyLabel,
        /// Digest of the SubjectPublicKeyInfo known.
        expected: Digest,
        /// Digest of the one on the token.
        found: Digest,
    },
    /// The token carries no genesis.
    #[error(
        "the token carries no genesis: expected {expected}. Its keys are not used. Is it the token of this ledger's ceremony?"
    )]
    GenesisAbsent {
        /// The leaf hash of our genesis entry.
        expected: Digest,
    },
    /// The token belongs to another ledger.
    #[error("the token belongs to another ledger: expected genesis {expected}, found {found}. Its keys are not used")]
    GenesisDiffers {
        /// The leaf hash of our genesis entry.
        expected: Digest,
        /// What the data object holds, in hexadecimal.
        found: String,
    },
    /// A genesis is written once.
    #[error(
        "the token carries a genesis already: {found}. It is written once; a token that changes ledgers is initialised anew"
    )]
    GenesisExists {
        /// What the data object holds, in hexadecimal.
        found: String,
    },
    /// Several data objects have one label.
    #[error("{count} data objects are labelled {label:?} and differ; there must be one")]
    DataDuplicate {
        /// The label.
        label: String,
        /// How many there are.
        count: usize,
    },
    /// A label or CKA_ID that a new key wants is taken.
    #[error("a key labelled {label} or with CKA_ID {id} is on the token already; nothing was made")]
    KeyExists {
        /// The label wanted.
        label: KeyLabel,
        /// The CKA_ID wanted.
        id: KeyId,
    },
    /// The module lets the Contingency Symmetric Key be wrapped by any key.
    #[error(
        "key {label}: the module does not hold to CKA_WRAP_WITH_TRUSTED: {why}. The Contingency Symmetric Key there is of no use. Ask the \
         HSM's maker for a module that enforces it (PKCS#11 3.1, 4.9); an exercise may do without, by `wrap_with_trusted = \"not-enforced\"` \
         in its policy, and a live policy may not"
    )]
    NotGuarded {
        /// The contingency key.
        label: KeyLabel,
        /// What was tried and was not refused.
        why: String,
    },
    /// No Contingency Symmetric Key is known to stand beside a key.
    #[error(
        "key {0}: no Contingency Symmetric Key is known to stand beside it on this token: its ceremony made none here, or the ledger was not told"
    )]
    NoMaterial(KeyLabel),
    /// No key of this name was found at activation.
    #[error("no key {0} was checked at activation of this token")]
    KeyUnknown(KeyLabel),
    /// The octets are not of a kind that this key signs.
    #[error("key {label}: {why}")]
    Kind {
        /// The key.
        label: KeyLabel,
        /// What is wrong with them.
        why: KindError,
    },
    /// The module's answer was of another length than 64 octets.
    #[error("C_Sign answered {found} octets, expected 64 (r, s of 32 octets each); the worker is replaced")]
    SignatureLength {
        /// What came.
        found: usize,
    },
    /// The module's signature does not verify under the key's public key. It is withheld.
    #[error(
        "key {0}: the token's signature does not verify under its public key. It is withheld, and nothing more is signed there: take \
         the token out of use until its maker has said why; only then activate the key again"
    )]
    WrongSignature(KeyLabel),
    /// A call ran for longer than its deadline, or the worker gave no sign of life for as long.
    #[error("{call} gave no answer within {deadline_ms} ms; the worker is killed")]
    Overrun {
        /// What was running.
        call: String,
        /// The deadline in milliseconds.
        deadline_ms: u64,
    },
    /// The worker ended by itself.
    #[error("the worker ended ({status}); it is replaced by itself, and the journal says more")]
    WorkerEnded {
        /// Its exit status or signal.
        status: String,
    },
    /// The worker or its pipe could not be made.
    #[error("the worker cannot be started: {found}")]
    Spawn {
        /// What the system said.
        found: String,
    },
    /// One side of the pipe did not keep to the protocol.
    #[error("the worker's pipe: {found}")]
    Protocol {
        /// What came.
        found: String,
    },
    /// The token is locked or was shut down: no PIN is held.
    #[error("the token is locked; activate it first")]
    Locked,
    /// Too much is waiting already.
    #[error(
        "{waiting} items wait for this token and {more} more would pass the limit of {limit}; wait for some to finish"
    )]
    QueueFull {
        /// Items that wait.
        waiting: usize,
        /// Items of this call.
        more: usize,
        /// [`super::QUEUE_ITEMS_MAX`].
        limit: usize,
    },
    /// Octets longer than anything we sign.
    #[error("item {tag}: {len} octets, at most {limit} are signed or stored")]
    TooLong {
        /// The caller's tag of it.
        tag: u64,
        /// Its length in octets.
        len: usize,
        /// The limit in octets.
        limit: usize,
    },
}

impl HsmError {
    /// Whether a signature may exist.
    pub fn certainty(&self) -> Certainty {
        match self {
            Self::Call(fault) => fault.certainty,
            Self::SignatureLength { .. }
            | Self::WrongSignature(_)
            | Self::Overrun { .. }
            | Self::WorkerEnded { .. }
            | Self::Protocol { .. } => Certainty::SignatureMayExist,
            Self::ModuleLoad { .. }
            | Self::TokenAbsent { .. }
            | Self::TokenDuplicate { .. }
            | Self::PinAtRisk { .. }
            | Self::PinRefused(_)
            | Self::PinWithheld { .. }
            | Self::PinNotHad { .. }
            | Self::NoProtectedPath
            | Self::PinMark { .. }
            | Self::MechanismAbsent { .. }
            | Self::KeyAbsent { .. }
            | Self::KeyDuplicate { .. }
            | Self::KeyUnfit { .. }
            | Self::KeyDiffers { .. }
            | Self::GenesisAbsent { .. }
            | Self::GenesisDiffers { .. }
            | Self::GenesisExists { .. }
            | Self::DataDuplicate { .. }
            | Self::KeyExists { .. }
            | Self::NotGuarded { .. }
            | Self::NoMaterial(_)
            | Self::KeyUnknown(_)
            | Self::Kind { .. }
            | Self::Spawn { .. }
            | Self::Locked
            | Self::QueueFull { .. }
            | Self::TooLong { .. } => Certainty::NothingSigned,
        }
    }

    /// What it calls for.
    pub fn class(&self) -> Class {
        match self {
            Self::Call(fault) => fault.class,
            Self::SignatureLength { .. }
            | Self::Overrun { .. }
            | Self::WorkerEnded { .. }
            | Self::Protocol { .. }
            | Self::Spawn { .. } => Class::ReplaceWorker,
            Self::ModuleLoad { .. }
            | Self::TokenAbsent { .. }
            | Self::TokenDuplicate { .. }
            | Self::PinAtRisk { .. }
            | Self::PinRefused(_)
            | Self::PinWithheld { .. }
            | Self::PinNotHad { .. }
            | Self::NoProtectedPath
            | Self::PinMark { .. }
            | Self::MechanismAbsent { .. }
            | Self::KeyAbsent { .. }
            | Self::KeyDuplicate { .. }
            | Self::KeyUnfit { .. }
            | Self::KeyDiffers { .. }
            | Self::GenesisAbsent { .. }
            | Self::GenesisDiffers { .. }
            | Self::GenesisExists { .. }
            | Self::DataDuplicate { .. }
            | Self::WrongSignature(_)
            | Self::NotGuarded { .. }
            | Self::NoMaterial(_)
            | Self::Locked => Class::OperatorMustAct,
            Self::KeyExists { .. }
            | Self::KeyUnknown(_)
            | Self::Kind { .. }
            | Self::QueueFull { .. }
            | Self::TooLong { .. } => Class::OurFault,
        }
    }

    /// Whether it is about the PIN: an operator puts that right, and the token is the one meant.
    pub fn is_about_the_pin(&self) -> bool {
        match self {
            Self::PinAtRisk { .. } | Self::PinRefused(_) | Self::PinWithheld { .. } => true,
            Self::Call(fault) => fault.function == "C_Login" && fault.class == Class::OperatorMustAct,
            _ => false,
        }
    }

    /// Whether it locks the token, so that no PIN is offered again by itself: the PIN was refused or is at risk, or the token
    /// is not what it was, and only a person can say why. An absence locks nothing: what is away may come back.
    pub fn locks(&self) -> bool {
        match self {
            Self::PinAtRisk { .. }
            | Self::PinRefused(_)
            | Self::PinWithheld { .. }
            | Self::PinNotHad { .. }
            | Self::NoProtectedPath
            | Self::KeyDuplicate { .. }
            | Self::KeyUnfit { .. }
            | Self::KeyDiffers { .. }
            | Self::GenesisDiffers { .. }
            | Self::WrongSignature(_)
            | Self::Locked => true,
            Self::Call(fault) => fault.function == "C_Login" && fault.class == Class::OperatorMustAct,
            Self::ModuleLoad { .. }
            | Self::PinMark { .. }
            | Self::TokenAbsent { .. }
            | Self::TokenDuplicate { .. }
            | Self::MechanismAbsent { .. }
            | Self::KeyAbsent { .. }
            | Self::GenesisAbsent { .. }
            | Self::GenesisExists { .. }
            | Self::DataDuplicate { .. }
            | Self::KeyExists { .. }
            | Self::NotGuarded { .. }
            | Self::NoMaterial(_)
            | Self::KeyUnknown(_)
            | Self::Kind { .. }
            | Self::SignatureLength { .. }
            | Self::Overrun { .. }
            | Self::WorkerEnded { .. }
            | Self::Spawn { .. }
            | Self::Protocol { .. }
            | Self::QueueFull { .. }
            | Self::TooLong { .. } => false,
        }
    }
}
