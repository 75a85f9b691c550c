//! Shell: what goes over the wire about the procedure. The answer is the domain's own, made to be read.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::names::IncidentId;
use crate::domain::procedure::CivilDate;
pub use crate::domain::procedure::explain::Explanation;
use crate::domain::time::Timestamp;

/// A moment as people give it: a date of Europe/London, which stands for its first instant, or a moment with its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instant {
    /// `2017-07-21`.
    Date(CivilDate),
    /// `2017-07-21T00:00:00+01:00`.
    Moment(Timestamp),
}

impl Instant {
    /// The moment.
    pub fn moment(self) -> Timestamp {
        match self {
            Self::Date(date) => date.begins(),
            Self::Moment(at) => at,
        }
    }
}

impl FromStr for Instant {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(date) = text.parse() {
            return Ok(Self::Date(date));
        }
        text.parse().map(Self::Moment).map_err(|_| {
            let found: String = text.chars().take(40).collect();
            format!("expected a date such as 2017-07-21, or a moment such as 2017-07-21T00:00:00Z, found {found:?}")
        })
    }
}

impl std::fmt::Display for Instant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Date(date) => date.fmt(f),
            Self::Moment(at) => at.fmt(f),
        }
    }
}

impl Serialize for Instant {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// At which moment, and for which incident.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProcedureOf {
    /// A date of Europe/London (its first instant) or a moment; now if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub at: Option<Instant>,
    /// The incident, as it stands now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, pattern = "^[A-Z0-9-]{1,40}$")]
    pub incident: Option<IncidentId>,
}
