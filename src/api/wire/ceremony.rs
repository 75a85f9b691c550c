//! Shell. What a ceremony beside the running daemon gives it to record.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Base64;
use crate::domain::ledger::ceremonies::CeremonyRecorded;
use crate::domain::ledger::custody::SharesDealt;
use crate::domain::ledger::entry::KeyCopied;
use crate::domain::names::KeyLabel;

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
    /// Shares were made, and the tokens that these will open are about to be changed.
    SharesBegun {
        /// As the entry has it.
        #[schema(value_type = Object)]
        begun: SharesDealt,
        /// The custody file that it names, octet for octet.
        custody_file: Base64,
    },
    /// Every token is opened by the shares that were begun.
    SharesDealt {
        /// Of which key.
        #[schema(value_type = String)]
        key: KeyLabel,
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
