//! Pure. Octets ⇄ typed GBCS messages: CS02b "Update Security Credentials", whole.
//!
//! Read [`message`] first: [`Message::decode`] takes the octets of a Command, pre-command, Response or Alert and answers its
//! [`Frame`] (who, to whom, counter, the exact octets signed) and its payload. What is signed here is made by
//! [`Template::fill`], and in mode anyByContingency [`put_symmetric_key`] after it; what comes back from a Device is judged by
//! [`proof`].
//!
//! Invariants:
//! - The octets are kept as they came: a signature is checked over a range of the input, never over a re-encoding.
//! - What is written is strict DER. Commands are read as strict DER too; the length forms seen from Devices ([`Lengths`])
//!   are accepted on Responses and Alerts only.
//! - Nothing recurses, and nothing is allocated beyond a small multiple of the input, which is itself at most
//!   [`MESSAGE_LEN_MAX`] octets.
//! - Message Authentication Codes are carried, not checked: modes 8 and 9, the ones that are signed here, have none.
//!
//! Sources: GBCS 7.2 (framing), 13.3 (CS02b), 16.2 (Message Codes), RFC 5934 (status codes), and what conforming Devices
//! were seen to send where the text leaves a choice.

mod codes;
mod command;
mod der;
mod framing;
pub mod message;
mod outcome;
pub mod proof;
mod symmetric;
mod template;

pub use codes::{
    AlertCode, CellUsage, CredentialsReplacementMode, KeyUsage, MessageCode, RECOVERY_ROLE, RemotePartyRole, SeqNumber,
    StatusCode, SubjectKeyIdentifier, TrustAnchorCell,
};
pub use command::{
    CommandPayload, CpvChecks, GeneralizedTime, PlaintextSymmetricKey, Replacement, SeqNumberChange, SpecialistFloor,
    SpecialistUse, Update,
};
pub use der::{DecodeError, LengthFault, Lengths};
pub use framing::{
    Authentication, Cra, DlmsDateTime, EncodeError, Frame, Header, MESSAGE_LEN_MAX, PAYLOAD_LEN_MAX,
    SIGNATURE_PART_LEN, finish, signed_message_len,
};
pub use message::{Answer, AnswerPayload, Message, Payload, encode, encode_unsigned};
pub use outcome::{AlertPayload, ExecutionOutcome, ReplacementOutcome, ResponsePayload};
pub use symmetric::{
    FillKeyError, SYMMETRIC_KEY_GROWTH_MAX, SymmetricKey, SymmetricKeyError, put_symmetric_key, take_symmetric_key,
};
pub use template::{Field, FillError, Mismatch, Octet, Template, TemplateError};

#[cfg(test)]
pub(crate) mod samples;
