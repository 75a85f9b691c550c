//! Shell. What a ceremony beside the running daemon gives it to record.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Base64;
use crate::domain::ledger::ceremonies::CeremonyRecorded;
use crate::domain::ledger::entry::KeyCopied;

/// What a ceremony did, by the name of the entry that says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum CeremonyRecord {
    /// A key was found on a further token.
    KeyCopied {
        /// As the entry has it.
        #[schema(value_type = Object)]
        copied: KeyCopied,
    },
    /// Shares were dealt anew.
    SharesDealt {
        /// The custody file, octet for octet. The entry is made of it.
        custody_file: Base64,
        /// The signature by the secret of the generation before: 64 octets of `r ‖ s` in hexadecimal. None for the first.
        former: Option<Box<str>>,
    },
    /// A ceremony came to its end.
    CeremonyRecorded {
        /// As the entry has it.
        #[schema(value_type = Object)]
        recorded: CeremonyRecorded,
        /// The plan, octet for octet.
        plan: Base64,
        /// The transcript, octet for octet.
        transcript: Base64,
    },
}
