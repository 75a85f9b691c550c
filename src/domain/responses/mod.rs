//! Pure. What Devices answer closes the loop: which messages came, whose they are, and what each proves.
//!
//! | file | what |
//! |---|---|
//! | `messages` | a file of messages ⇄ its one text |
//! | `trust` | a Device's certificate under the policy's Device CA; a message under its Device's key |
//! | `bundle` | Devices' certificates that are imported once |
//! | `results` | the one line for each message, and what is kept of them for each Device |
//!
//! [`decide`] is the whole of it: one verified message against what the ledger knows of the Device. A Device is *recovered* only
//! if its own signature says that every certificate sent is in its cell. The daemon asks before it records, the audit asks again.
//!
//! Source: GBCS 13.3.

pub mod bundle;
pub mod messages;
pub mod results;
pub mod trust;

pub use results::{Outcome, OwnResult, Responded, ResultLine};
pub use trust::{Candidates, DeviceKey, ImportedKey, Reading, Trust, Verified};

use std::fmt::Display;

use crate::domain::gbcs::proof::{CellResult, OfTemplate, Reason, Verdict};
use crate::domain::gbcs::{AlertPayload, AnswerPayload, Frame};
use crate::domain::names::{DeterminationId, DeviceId, PartyId};
use crate::domain::policy::facts::DeviceFacts;
use crate::domain::time::Timestamp;

/// What the ledger knows of the Device that a message comes from, at the moment of the decision.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Now.
    pub at: Timestamp,
    /// The determination that the message was handed in for.
    pub determination: DeterminationId,
    /// Whose commands the key signs.
    pub originator: PartyId,
    /// The last intent for the Device with the determination's key.
    pub last: Option<&'a DeviceFacts>,
    /// What an answer to that intent's template has to say; Device and counter are filled in here.
    pub expected: Option<&'a OfTemplate>,
    /// An earlier intent for the Device with this key and the message's counter that was, or may have been, signed.
    pub earlier: Option<u64>,
    /// What the Device has answered before under the determination.
    pub responded: Option<&'a Responded>,
}

/// What one message proves.
pub fn decide(reading: &Reading, facts: &Facts<'_>) -> ResultLine {
    let verified = match reading {
        Reading::Malformed { why } => return ResultLine::new(None, None, Outcome::Malformed, why),
        Reading::Unverified { device, why } => return ResultLine::new(Some(*device), None, Outcome::Unverified, why),
        Reading::Verified(verified) => verified,
    };
    let (device, counter) = (verified.device(), verified.answer.counter());
    let line = |intent, outcome, detail: &str| ResultLine::new(Some(device), intent, outcome, detail);
    if !verified.is_in_force(facts.at) {
        let Verified { from, until, .. } = verified;
        return line(
            None,
            Outcome::Unverified,
            &format!("its certificate or the Device CA's is valid {from} to {until}"),
        );
    }
    let recipient = PartyId(verified.answer.header.recipient);
    if recipient != facts.originator {
        let why = format!("an answer to {recipient}, not to {}", facts.originator);
        return line(None, Outcome::Unmatched, &why);
    }
    let last = match facts.last {
        Some(last) if last.counter == counter => last,
        Some(_) | None => {
            return match facts.earlier {
                Some(intent) => line(Some(intent), Outcome::Unmatched, "an answer to an earlier command"),
                None => foreign(verified, None, "no command with this counter was signed", facts),
            };
        }
    };
    if !last.state.may_be_signed() {
        return foreign(verified, Some(last.intent), "the token gave no signature for this counter", facts);
    }
    if last.determination != facts.determination {
        let why = format!("an answer to a command under determination {}", last.determination);
        return line(Some(last.intent), Outcome::Unmatched, &why);
    }
    let Some(expected) = facts.expected else {
        // It was read before; without it nothing is proved.
        return line(Some(last.intent), Outcome::Unmatched, "the template of the command cannot be read");
    };
    let verdict = expected.weigh(&verified.answer, device, counter);
    match (verdict, &verified.answer.payload) {
        // The signature is the Device's, and its counter and recipient ours: then it executed what was not signed here.
        (Verdict::Refused(reasons), _) => {
            let why = format!("not an answer to the command of intent {}: {}", last.intent, joined(&reasons));
            foreign(verified, Some(last.intent), &why, facts)
        }
        (Verdict::Recovered(_) | Verdict::NotRecovered(_) | Verdict::AcceptedOnly, AnswerPayload::Alert(payload)) => {
            line(Some(last.intent), Outcome::Alert, &alert(payload))
        }
        (Verdict::Recovered(_), AnswerPayload::Response(_)) => {
            own(verified, last.intent, Outcome::Recovered, "", facts)
        }
        (Verdict::NotRecovered(cells), AnswerPayload::Response(_)) => {
            own(verified, last.intent, Outcome::Failed, &failures(&cells), facts)
        }
        (Verdict::AcceptedOnly, AnswerPayload::Response(_)) => own(verified, last.intent, Outcome::Accepted, "", facts),
    }
}

/// An answer to our own command, against what the Device has said before.
fn own(verified: &Verified, intent: u64, outcome: Outcome, detail: &str, facts: &Facts<'_>) -> ResultLine {
    let line = |outcome, detail: &str| ResultLine::new(Some(verified.device()), Some(intent), outcome, detail);
    let Some(before) = facts.responded.and_then(|responded| responded.own.as_ref()) else {
        return line(outcome, detail);
    };
    let told = format!("entry {} has {}", before.entry, before.outcome);
    if before.intent != intent || (before.outcome == Outcome::Accepted && outcome != Outcome::Accepted) {
        line(outcome, detail)
    } else if outcome == Outcome::Accepted || (before.outcome == outcome && *before.detail == *detail) {
        line(Outcome::Duplicate, &told)
    } else {
        let says = if detail.is_empty() { outcome.to_string() } else { format!("{outcome} ({detail})") };
        line(Outcome::Contradiction, &format!("it says {says}; {told}"))
    }
}

/// An answer to a command that was not signed here.
fn foreign(verified: &Verified, intent: Option<u64>, why: &str, facts: &Facts<'_>) -> ResultLine {
    let (device, counter) = (verified.device(), verified.answer.counter());
    if facts.responded.is_some_and(|responded| responded.foreign == Some(counter)) {
        let why = format!("counter {counter} is known as foreign");
        return ResultLine::new(Some(device), intent, Outcome::Duplicate, &why);
    }
    ResultLine::new(Some(device), intent, Outcome::Foreign, &ResultLine::foreign_detail(counter, why))
}

/// The cells that failed, each with its status.
fn failures(cells: &[CellResult]) -> String {
    let failed = cells.iter().filter(|cell| !cell.is_replaced());
    failed.map(|cell| format!("{}: {}", cell.cell, cell.status)).collect::<Vec<_>>().join("; ")
}

fn alert(payload: &AlertPayload) -> String {
    let failed = payload.outcome.replacements.iter().filter(|cell| cell.status.code() != 0).count();
    let all = payload.outcome.replacements.len();
    format!("{}: {} of {all} cells replaced", payload.alert_code, all - failed)
}

fn joined(reasons: &[Reason]) -> String {
    reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The Device that a message says it is from; none if it cannot be read.
pub fn device_of(octets: &[u8]) -> Option<DeviceId> {
    Frame::parse(octets).ok().map(|frame| DeviceId(frame.header.originator))
}

fn says(error: impl Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests;
