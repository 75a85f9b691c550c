//! Shell. Why a request was not done, and the two tables that turn that into an HTTP status and an exit status.

use serde::{Deserialize, Serialize};

use crate::domain::ledger::entry::{Reason, Role};

/// Why a request was not done. One variant per thing that a caller does differently about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The request does not have its form. Nothing was decided.
    #[error("{place}: expected {expected}, found {found}. {remedy}")]
    Malformed {
        /// Where in the request, such as `body` or `path: incident`.
        place: String,
        /// The form that was wanted.
        expected: String,
        /// What stood there, shortened.
        found: String,
        /// What to do.
        remedy: String,
    },
    /// The account may not do that.
    #[error(
        "this needs the role {needed}; your account has the role {found}. \
             Roles come from the UNIX groups that [roles] of smkid.toml names, when the connection is opened"
    )]
    Forbidden {
        /// The role, or roles, that may.
        needed: &'static str,
        /// The role that the caller has.
        found: Role,
    },
    /// The account may not hold a ceremony.
    #[error(
        "what a ceremony did is recorded for root and for the account that smkid runs under; yours is {account}. Run the ceremony as one of \
         these (sudo -u smkid smkictl ceremony ...)"
    )]
    NotConductor {
        /// Who asked.
        account: Box<str>,
    },
    /// There is nothing by that name.
    #[error("{what} is not known here")]
    NotFound {
        /// What was looked for, such as `incident INC-1`.
        what: String,
    },
    /// The path exists, the method does not.
    #[error("{path} does not take {method}; see /v1/openapi.json for what it takes")]
    MethodNotAllowed {
        /// What was asked with.
        method: String,
        /// Of what.
        path: String,
    },
    /// Understood, decided, recorded, and not done.
    #[error("refused: {}", join(reasons))]
    Refused {
        /// Every reason, and not only the first.
        reasons: Vec<Reason>,
        /// The ledger entry that says so; none if it was folded into a count.
        entry: Option<u64>,
    },
    /// More octets than the route takes.
    #[error("{what} is longer than {limit} octets. Send less at a time")]
    TooLarge {
        /// What was too long.
        what: &'static str,
        /// What it may have.
        limit: u64,
    },
    /// More requests than the account may make, or a quota is used up.
    #[error("{what}; try again in {retry_after_s} s")]
    TooMany {
        /// Of what there were too many.
        what: String,
        /// Seconds to wait.
        retry_after_s: u32,
    },
    /// The sender stopped in the middle.
    #[error("the rest of the request did not come within {waited_ms} ms. Send it again")]
    TooSlow {
        /// How long it was waited for.
        waited_ms: u64,
    },
    /// The daemon runs but cannot do this now: a token absent, a key locked, not resumed yet.
    #[error("{why}. {remedy}")]
    Unavailable {
        /// Why.
        why: String,
        /// What to do.
        remedy: String,
    },
    /// The daemon cannot record, so it stops.
    #[error("smkid stops because it cannot record: {why}. See its journal; what was asked was not done")]
    Stopped {
        /// Why.
        why: String,
    },
    /// A fault of ours.
    #[error("a fault in smkid: {what}. Please report it with the journal of this moment")]
    Internal {
        /// What went wrong.
        what: String,
    },
}

fn join(reasons: &[Reason]) -> String {
    reasons.iter().map(|reason| format!("{} ({})", reason.text, reason.rule)).collect::<Vec<_>>().join("; ")
}

/// What kind of [`Failure`] it is, as it stands in an error body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// The request does not have its form.
    Malformed,
    /// The account may not do that.
    Forbidden,
    /// There is nothing by that name.
    NotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// Understood, decided, recorded, and not done.
    Refused,
    /// More octets than the route takes.
    TooLarge,
    /// More requests than the account may make.
    TooMany,
    /// The sender stopped in the middle.
    TooSlow,
    /// The daemon runs but cannot do this now.
    Unavailable,
    /// The daemon cannot record, so it stops.
    Stopped,
    /// A fault of ours.
    Internal,
}

impl ProblemKind {
    /// Every kind, for tables and tests.
    pub const ALL: [Self; 11] = [
        Self::Malformed,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Refused,
        Self::TooLarge,
        Self::TooMany,
        Self::TooSlow,
        Self::Unavailable,
        Self::Stopped,
        Self::Internal,
    ];

    /// The HTTP status it is answered with (RFC 9110 15; 429: RFC 6585 4).
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::TooSlow => 408,
            Self::Refused => 409,
            Self::TooLarge => 413,
            Self::TooMany => 429,
            Self::Internal => 500,
            Self::Unavailable | Self::Stopped => 503,
        }
    }

    /// The status `smkictl` ends with.
    pub const fn exit(self) -> Exit {
        match self {
            Self::Malformed
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::TooLarge
            | Self::TooSlow
            | Self::Internal => Exit::Local,
            Self::Unavailable | Self::Stopped => Exit::Unreachable,
            Self::Forbidden | Self::Refused | Self::TooMany => Exit::Refused,
        }
    }
}

impl Failure {
    /// Its kind.
    pub const fn kind(&self) -> ProblemKind {
        match self {
            Self::Malformed { .. } => ProblemKind::Malformed,
            Self::Forbidden { .. } | Self::NotConductor { .. } => ProblemKind::Forbidden,
            Self::NotFound { .. } => ProblemKind::NotFound,
            Self::MethodNotAllowed { .. } => ProblemKind::MethodNotAllowed,
            Self::Refused { .. } => ProblemKind::Refused,
            Self::TooLarge { .. } => ProblemKind::TooLarge,
            Self::TooMany { .. } => ProblemKind::TooMany,
            Self::TooSlow { .. } => ProblemKind::TooSlow,
            Self::Unavailable { .. } => ProblemKind::Unavailable,
            Self::Stopped { .. } => ProblemKind::Stopped,
            Self::Internal { .. } => ProblemKind::Internal,
        }
    }

    /// The error body.
    pub fn problem(&self) -> Problem {
        let (reasons, entry) = match self {
            Self::Refused { reasons, entry } => (reasons.clone(), *entry),
            Self::Malformed { .. }
            | Self::Forbidden { .. }
            | Self::NotConductor { .. }
            | Self::NotFound { .. }
            | Self::MethodNotAllowed { .. }
            | Self::TooLarge { .. }
            | Self::TooMany { .. }
            | Self::TooSlow { .. }
            | Self::Unavailable { .. }
            | Self::Stopped { .. }
            | Self::Internal { .. } => (Vec::new(), None),
        };
        Problem { error: self.kind(), message: self.to_string(), reasons, entry }
    }

    /// The number of characters of a caller's input that an error repeats: enough to recognise it by.
    pub const FOUND_LEN_MAX: usize = 120;

    /// A [`Failure::Malformed`]; `found` is shortened to [`Failure::FOUND_LEN_MAX`] characters.
    pub fn malformed(place: &str, expected: &str, found: &str, remedy: &str) -> Self {
        Self::Malformed {
            place: place.to_owned(),
            expected: expected.to_owned(),
            found: found.chars().take(Self::FOUND_LEN_MAX).collect(),
            remedy: remedy.to_owned(),
        }
    }
}

/// The body of every answer that is not the one asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// Its kind: what a program acts on.
    pub error: ProblemKind,
    /// What happened and what to do, for a person.
    pub message: String,
    /// Every reason, if it was refused.
    pub reasons: Vec<Reason>,
    /// The ledger entry that records it, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<u64>,
}

/// The exit statuses of `smkictl`. Scripts rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exit {
    /// Done.
    Done,
    /// A failure on this side: a file, an argument that is no such thing, an answer that makes no sense.
    Local,
    /// Not a command that there is (clap's own status).
    Usage,
    /// The daemon or the HSM is not reachable.
    Unreachable,
    /// Refused by policy or role.
    Refused,
    /// Something that was to be verified is not so.
    Unverified,
    /// Some of it was done, some was not.
    Partly,
}

impl Exit {
    /// The number.
    pub const fn status(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Local => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Refused => 4,
            Self::Unverified => 5,
            Self::Partly => 6,
        }
    }
}

impl Exit {
    /// Every one.
    pub const ALL: [Self; 7] =
        [Self::Done, Self::Local, Self::Usage, Self::Unreachable, Self::Refused, Self::Unverified, Self::Partly];

    /// The one of that number.
    pub fn from_status(status: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|exit| exit.status() == status)
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.status())
    }
}

#[cfg(test)]
mod tests;
