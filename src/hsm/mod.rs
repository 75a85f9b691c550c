//! Shell: the only way to a private key.
//!
//! The vendor's PKCS#11 module runs in a worker process of ours, one for each token; the daemon never loads it.
//!
//! ```text
//!   Token (handle.rs, keeper.rs) ──protocol.rs──▶ worker.rs ─▶ kinds.rs: may this key sign these octets?
//!     │  ▲                                        │          ring: SHA-256 of the whole octets
//!     │  └── verify.rs: ring, before it leaves    └─────────▶ pkcs11.rs ─▶ the vendor's module
//!     │    kills a worker that overruns; says for each item whether it was signed, failed, not signed or unknown
//!     ├── worker/turns.rs: which thread of the worker reads the pipe, which sign, which wait
//!     ├── breaker.rs, healer.rs: when a worker that is gone is replaced; offers.rs: whether a PIN may be offered
//!     ├── contingency.rs: what stands beside a contingency key, and how it gets out (pkcs11/contingency.rs)
//!     ├── pin.rs: where the PIN comes from; one_time.rs: it goes sealed to the worker alone
//!     └── returns.rs: what each return value means
//! ```
//!
//! A key may be on several tokens; [`Several`] answers for them as one.
//!
//! The keys of people, with which they sign documents, are reached here too ([`signer`], [`person`]).
//!
//! Nothing here decides whether something *should* be signed; that was decided and recorded before. What is kept here is that
//! nothing *else* is signed: whole octets of a kind that suits the key, under a fence and a last moment that are read again
//! before each C_Sign.

pub mod breaker;
pub mod contingency;
pub mod errors;
pub mod family;
pub mod handle;
pub mod hardening;
mod healer;
mod keeper;
pub mod kinds;
pub mod offers;
pub mod one_time;
pub mod pin;
mod pkcs11;
pub mod protocol;
pub mod returns;
mod several;
pub mod signer;
pub mod verify;
pub mod worker;

use serde::{Deserialize, Serialize};

pub use breaker::{Circuit, Standing};
pub use contingency::{Compared, Material};
pub use errors::{Certainty, Class, Fault, HsmError};
pub use handle::{
    Condition, FenceAck, FencesSeen, NotSigned, Outcome, Reply, Results, SignResult, ToSign, Token, TokenConfig,
};
pub use keeper::SessionsHeld;
pub use kinds::{Kind, KindError};
pub use pin::{PinKeeper, PinSource};
pub use pkcs11::person;
pub use protocol::OCTETS_LEN_MAX;
pub use several::Several;
pub use verify::PublicPoint;

use crate::domain::names::{Digest, KeyId, KeyLabel, KeyUse, Origin};

/// How many items may wait for one token, over all callers: four chunks of a thousand commands, 16 MB. More is refused, for
/// whoever submits faster than the token signs learns nothing by waiting in memory.
pub const QUEUE_ITEMS_MAX: usize = 4096;

/// How many calls other than signing may wait for one token: whoever asks for more waits with them in hand.
pub const CALLS_MAX: usize = 64;

/// The label of the data object with the leaf hash of the genesis entry: 32 octets. It is written once.
pub const GENESIS_LABEL: &str = "smkid-genesis";
/// `CKA_APPLICATION` of every data object of ours.
pub const APPLICATION: &str = "smkid";

/// A key that must be on a token, as policy or the ceremony names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedKey {
    /// Its `CKA_LABEL`.
    pub label: KeyLabel,
    /// Its `CKA_ID`.
    pub id: KeyId,
    /// What it is for.
    pub use_: KeyUse,
    /// Its SubjectPublicKeyInfo in DER, once known.
    pub spki: Option<Vec<u8>>,
    /// Whether the maker's cloning brought it to this token: then it need not have been generated there. All else holds for it too,
    /// so nothing that was ever outside of a token passes for a clone.
    pub cloned: bool,
    /// What stands beside it there, of a contingency key on the token where its ceremony made that.
    pub material: Option<Material>,
}

/// What must hold of a token before one of its keys is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expectations {
    /// The keys; each must be there, once, and fit.
    pub keys: Vec<ExpectedKey>,
    /// The leaf hash of our genesis entry. `None` at the ceremony only, before there is one.
    pub genesis: Option<Digest>,
    /// The origin of our ledger. `None`: this token signs no checkpoint.
    pub origin: Option<Origin>,
}

/// A key that was found and fits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyReport {
    /// Its `CKA_LABEL`.
    pub label: KeyLabel,
    /// Its `CKA_ID`.
    pub id: KeyId,
    /// What it is for.
    pub use_: KeyUse,
    /// Its SubjectPublicKeyInfo, DER, 91 octets (RFC 5480).
    pub spki: Vec<u8>,
}

/// What a token is, as found at activation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenReport {
    /// `CKA_LABEL` of the token.
    pub label: String,
    /// Its serial number.
    pub serial: String,
    /// Who made it.
    pub manufacturer: String,
    /// Its model.
    pub model: String,
    /// Its firmware version, `major.minor`.
    pub firmware: String,
    /// The longest PIN that it takes, in octets (`ulMaxPinLen`).
    pub pin_len_max: u32,
    /// How many sessions sign: as configured, or fewer when the token has no more.
    pub sessions: u16,
    /// Its keys that were asked for, all of them fit.
    pub keys: Vec<KeyReport>,
    /// What its genesis object holds.
    pub genesis: Option<Digest>,
    /// What is not as it should be and stops nothing, such as memory that could not be locked.
    pub warnings: Vec<String>,
}
