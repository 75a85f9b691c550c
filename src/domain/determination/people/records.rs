//! Pure. What is on record about a person beside the appointment itself: references, credential, screening.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::Date;
use time::macros::format_description;

use super::super::prose::Prose;
use crate::domain::time::Timestamp;

/// What is on record about a person. Every part may be missing: older policies have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// The document that appointed them.
    pub appointed: Option<Prose>,
    /// The document by which the appointment ceases.
    pub ceased: Option<Prose>,
    /// The state of their IKI credential.
    pub credential: Option<Credential>,
    /// The evidence that they were screened.
    pub screening: Option<Screening>,
}

impl Records {
    /// Why the credential may not be relied on at that moment, if it may not. One that nothing is said of is as good as the
    /// appointment: a default of ours, for policies that name no states.
    pub fn credential_fault(&self, at: Timestamp) -> Option<Credential> {
        self.credential.filter(|credential| !credential.is_good(at))
    }
}

/// The state of a credential (SEC Appendix D: credentials of Authorised Responsible Officers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialState {
    /// It may be used.
    Active,
    /// It may not, for now.
    Suspended,
    /// It may not any more.
    Revoked,
}

impl fmt::Display for CredentialState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Revoked => "revoked",
        })
    }
}

/// A state, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// The state.
    pub state: CredentialState,
    /// Since when. Before, one that is suspended or revoked was active, and one that is active was not yet.
    pub from: Timestamp,
}

impl Credential {
    /// Whether what is signed with it at that moment counts.
    pub fn is_good(&self, at: Timestamp) -> bool {
        match self.state {
            CredentialState::Active => at >= self.from,
            CredentialState::Suspended | CredentialState::Revoked => at < self.from,
        }
    }
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.state, self.from)
    }
}

/// Evidence that somebody was screened, to BS 7858:2019 or equivalent (SEC Section G4).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Screening {
    /// To which standard.
    pub standard: Prose,
    /// Where the evidence lies.
    pub reference: Prose,
    /// On which day.
    pub date: Day,
}

/// A day, as `2026-01-31`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Day(Date);

impl TryFrom<String> for Day {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let form = format_description!("[year]-[month]-[day]");
        Date::parse(&text, form).map(Self).map_err(|_| format!("expected a day such as 2026-01-31, found {text:?}"))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.0.year(), u8::from(self.0.month()), self.0.day())
    }
}
