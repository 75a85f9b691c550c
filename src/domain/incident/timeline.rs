//! Pure. An incident's story, in sentences for people.

use std::fmt::Write as _;

use crate::domain::determination::document::{Decision, Determination, Written};
use crate::domain::ledger::contingency::{CheckResult, ReleaseResult};
use crate::domain::ledger::entry::{Actor, Event, KeyActivated, KeyLocked, SignatureRecord};
use crate::domain::ledger::steps::{Certainty, CompromiseClass, Method, ProfileInForce, ResponseTally, Step};
use crate::domain::names::{Digest, DirectionId};
use crate::domain::procedure::calendar::{CivilDate, shown};
use crate::domain::procedure::direction::{Direction, Directs};

/// As people call a method (SEC Appendix L).
pub const fn method(method: Method) -> &'static str {
    match method {
        Method::SubscriberKey => "Method 1 (the Subscriber's own key)",
        Method::AcbCertificates => "Method 2 (Recovery Private Key, DCC ACB certificates)",
        Method::NewOrganisationCertificates => "Method 3 (Recovery Private Key, new Organisation Certificates)",
        Method::Contingency => "the Contingency route",
    }
}

const fn certainty(certainty: Certainty) -> &'static str {
    match certainty {
        Certainty::Actual => "Compromise",
        Certainty::Suspected => "suspected Compromise",
    }
}

/// So many: `1 line`, `2 lines`.
pub fn counted(count: u64, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

/// Who acted: the person where the policy names one, else the account.
pub fn who(by: &Actor) -> String {
    by.person.as_ref().map_or_else(|| by.account.to_string(), ToString::to_string)
}

fn signers(signatures: &[SignatureRecord]) -> String {
    signatures.iter().map(|signature| signature.person.to_string()).collect::<Vec<_>>().join(", ")
}

/// The profile, where a variation was laid over the base.
fn under(profile: &ProfileInForce) -> String {
    if profile.variations.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = profile.variations.iter().map(crate::domain::names::ProfileId::as_str).collect();
    format!(" [varied by {}]", names.join(", "))
}

/// What an entry says about an incident, in a sentence; none for those that are counted instead (intents, outcomes, releases).
#[expect(clippy::too_many_lines, reason = "a table, one sentence for each kind")]
pub fn tell(event: &Event) -> Option<String> {
    Some(match event {
        Event::IncidentOpened(opened) => match &opened.notification {
            Some(notification) => format!(
                "Reported: {} of {} notified a {} of certificate {} at {}, by {}. {}{}",
                notification.by,
                notification.party,
                certainty(notification.certainty),
                opened.compromised.certificate_sha256,
                shown(notification.at),
                notification.channel,
                opened.description,
                opened.profile.as_ref().map(under).unwrap_or_default(),
            ),
            None => format!("Opened for certificate {}: {}", opened.compromised.certificate_sha256, opened.description),
        },
        Event::StepTaken(taken) => {
            let departed = departed(&taken.departures, &taken.profile);
            format!("{}{}{departed}", step(&taken.step), carried(taken.carried))
        }
        Event::IncidentClosed(closed) => {
            let profile = closed.profile.as_ref();
            let under = profile.map(|profile| departed(&closed.departures, profile)).unwrap_or_default();
            format!("Closed: {}{under}", closed.reason)
        }
        Event::DeterminationRecorded(recorded) => {
            format!(
                "Determined by the SMKI PMA: determination {}, signed by {}",
                recorded.determination,
                signers(&recorded.signatures)
            )
        }
        Event::ScheduleRecorded(recorded) => {
            format!(
                "The scope of determination {} was settled, signed by {}",
                recorded.determination,
                signers(&recorded.signatures)
            )
        }
        Event::DeterminationSuspended(suspended) => format!(
            "Determination {} was suspended until {} by {}",
            suspended.determination,
            shown(suspended.until),
            signers(&suspended.signatures)
        ),
        Event::DeterminationWithdrawn(withdrawn) => {
            format!(
                "Determination {} was withdrawn by the SMKI PMA, signed by {}",
                withdrawn.determination,
                signers(&withdrawn.signatures)
            )
        }
        Event::Batch(batch) => format!("Request {} to sign with key {} was taken in", batch.request, batch.key),
        Event::Settled(settled) => {
            format!("The unknown of Device {} was left as it is: {}", settled.device, settled.reason)
        }
        Event::Refused(refused) => {
            let first = refused.reasons.first().map_or("", |reason| &reason.text);
            let more = refused.reasons.len().saturating_sub(1);
            let more = match more {
                0 => String::new(),
                1 => " (and 1 more reason)".to_owned(),
                more => format!(" (and {more} more reasons)"),
            };
            format!("Refused, {}: {first}{more}", asked(&refused.operation))
        }
        Event::FileAccepted(accepted) => {
            let signer = accepted
                .signature
                .as_ref()
                .map_or_else(|| "the DCC".to_owned(), |signature| signature.person.to_string());
            let lines = counted(accepted.rows, "line");
            format!("File accepted: {}, {lines}, from {signer}, SHA-256 {}", accepted.kind.title(), accepted.file)
        }
        Event::ResponsesTaken(taken) => responses(&taken.tally),
        Event::SigningResumed(resumed) => {
            format!(
                "Signing under determination {} may go on after a foreign answer: {}",
                resumed.determination, resumed.reason
            )
        }
        Event::DirectionRecorded(recorded) => {
            format!("Direction {} of the SMKI PMA, signed by {}", recorded.direction, signers(&recorded.signatures))
        }
        Event::JobStarted(started) => {
            let devices = match started.list {
                Some(list) => counted(list.devices, "Device"),
                None => "all Devices".to_owned(),
            };
            let why = started.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("Job {} was started for {devices} of determination {}{why}", started.request, started.determination)
        }
        Event::JobPaused(paused) => format!("Job {} was paused: {}", paused.request, paused.reason),
        Event::JobResumed(resumed) => format!("Job {} goes on", resumed.request),
        Event::JobCancelled(cancelled) => format!("Job {} was cancelled: {}", cancelled.request, cancelled.reason),
        Event::JobEnded(ended) => {
            let signed = counted(ended.tally.signed, "signed command");
            let why = ended.why.first().map(|reason| format!(", before its end: {}", reason.text)).unwrap_or_default();
            format!("Job {} ended with {signed}{why}", ended.request)
        }
        Event::KeyActivated(KeyActivated { key, until, incident: Some(_), .. }) => match until {
            Some(until) => format!("Key {key} activated for this incident until {}", shown(*until)),
            None => format!("Key {key} activated for this incident"),
        },
        Event::CustodianPresented(presented) => {
            format!("Key Custodian {} presented for key {}", presented.signature.person, presented.key)
        }
        Event::KeyLocked(KeyLocked { key, reason, incident: Some(_) }) => {
            format!("Key {key} locked, nothing is signed until it is activated again: {reason}")
        }
        Event::ContingencyChecked(checked) => match &checked.result {
            CheckResult::Matches => format!(
                "Checked: the Root OCA Certificate {} carries the public half of key {}, unwrapped in the token",
                checked.root, checked.key
            ),
            CheckResult::Differs(text) => format!(
                "Checked: the Root OCA Certificate {} does NOT carry the public half of key {}: {text}",
                checked.root, checked.key
            ),
            CheckResult::Failed(text) => {
                format!("The check of Root OCA Certificate {} against key {} failed: {text}", checked.root, checked.key)
            }
        },
        Event::SymmetricKeySpent(spent) => format!(
            "The Contingency Symmetric Key of {} is spent: it is of this incident alone, and its generation is to be replaced",
            spent.key
        ),
        Event::SymmetricRelease(release) => format!(
            "The Contingency Symmetric Key of {} is about to be released into the commands of determination {}",
            release.key, release.determination
        ),
        Event::SymmetricReleased(released) => {
            let intent = released.intent;
            match &released.result {
                ReleaseResult::Released => {
                    format!(
                        "The Contingency Symmetric Key of entry {intent} was released: the daemon holds it in memory"
                    )
                }
                ReleaseResult::Failed(text) => format!("The release of entry {intent} failed: {text}"),
                ReleaseResult::NotReleased(text) => format!("The release of entry {intent} did not take place: {text}"),
                ReleaseResult::Unknown(text) => {
                    format!("What became of the release of entry {intent}, nobody can tell: {text}")
                }
            }
        }
        Event::ExerciseRecorded(_)
        | Event::Genesis(_)
        | Event::PolicyAdopted(_)
        | Event::CertificationIntent(_)
        | Event::CertificateImported(_)
        | Event::Started(_)
        | Event::Stopped(_)
        | Event::KeyCopied(_)
        | Event::SharesBegun(_)
        | Event::SharesDealt(_)
        | Event::KeyMade(_)
        | Event::KeyDestruction(_)
        | Event::KeyDestroyed(_)
        | Event::CeremonyRecorded(_)
        | Event::KeyActivated(_)
        | Event::KeyLocked(_)
        | Event::Intent(_)
        | Event::Outcome(_)
        | Event::Released(_)
        | Event::RefusalsFolded(_)
        | Event::ClockJumped(_)
        | Event::TokenHealth(_)
        | Event::LoginRetried(_)
        | Event::JobPassed(_)
        | Event::ClockAccepted(_)
        | Event::DeviceCertificatesImported(_)
        | Event::ContingencyPrepared(_)
        | Event::RootImported(_)
        | Event::Snapshot(_) => return None,
    })
}

/// What Devices answered, counted.
fn responses(tally: &ResponseTally) -> String {
    let mut text = format!("{} Responses were taken in: {} recovered", tally.messages(), tally.recovered);
    let others = [
        (tally.failed, "failed"),
        (tally.accepted, "accepted for later"),
        (tally.alert, "Alerts"),
        (tally.foreign, "FOREIGN"),
        (tally.unmatched, "unmatched"),
        (tally.unverified, "unverified"),
        (tally.malformed, "malformed"),
        (tally.duplicate, "said before"),
        (tally.contradiction, "contradictory"),
    ];
    for (count, what) in others.into_iter().filter(|(count, _)| *count > 0) {
        let _ = write!(text, ", {count} {what}");
    }
    text
}

/// What was asked for and refused, as people call it: operations are named by their routes.
fn asked(operation: &str) -> &str {
    match operation {
        "incident-open" => "to open the incident",
        "incident-step" => "a step",
        "incident-close" => "to close the incident",
        "document-record" => "a document of the SMKI PMA",
        "file-submit" => "a file",
        "key-activate" => "to activate a key",
        "recovery-sign" => "to sign",
        "recovery-settle" => "to settle unknown outcomes",
        "recovery-responses" => "Devices' Responses",
        "recovery-resume" => "to go on after a foreign answer",
        other => other,
    }
}

/// What a determination determined, in words: for behind its sentence in the story.
pub fn determination(form: &Determination) -> String {
    match (form.decision, form.method) {
        (Decision::NotExecute, _) => "recovery is NOT executed".to_owned(),
        (Decision::Execute, by) => {
            let by = match by {
                Some(by) => format!(" by {}", method(by)),
                None => String::new(),
            };
            let key = form.key.as_ref().map(|key| format!(", with key {}", key.label)).unwrap_or_default();
            let devices = match &form.devices {
                Some(list) => format!(", for {}", counted(list.count, "Device")),
                None => ", for Devices that a schedule names".to_owned(),
            };
            let (from, until) = (shown(form.window.from), shown(form.window.until));
            format!("recovery is executed{by}{key}{devices}, from {from} until {until}")
        }
    }
}

/// What a direction says about an incident, in a sentence.
pub fn direction(document: &Written<Direction>) -> String {
    let form = document.form();
    match &form.directs {
        Directs::Departure { incident: _, step, reason } => {
            format!("Direction {} of the SMKI PMA departs from step {step} ({}): {reason}", form.id, form.reference)
        }
        Directs::Extension { variation, until } => {
            let until = until.map_or_else(|| "without an end".to_owned(), |until| format!("until {until}"));
            format!("Direction {} of the SMKI PMA extends variation {variation} {until} ({})", form.id, form.reference)
        }
    }
}

fn departed(departures: &[DirectionId], profile: &ProfileInForce) -> String {
    if departures.is_empty() {
        return under(profile);
    }
    let names: Vec<String> = departures.iter().map(ToString::to_string).collect();
    format!(", departing from the procedure as the SMKI PMA directed ({}){}", names.join(", "), under(profile))
}

/// How many Devices of an assessment stand as another incident left them.
fn carried(count: u64) -> String {
    match count {
        0 => String::new(),
        count => format!(
            "; {} in 'recovery', or 'recovered' under the DCC's control, as another incident recorded",
            counted(count, "Device")
        ),
    }
}

fn step(step: &Step) -> String {
    let of = |devices: Option<u64>| devices.map_or_else(|| "all targets".to_owned(), |count| counted(count, "Device"));
    match step {
        Step::Confirm { mechanism, certainty: found, evidence } => {
            format!("Confirmed as {} by {mechanism}: {evidence}", certainty(*found))
        }
        Step::Dismiss { reason } => format!("Dismissed: {reason}"),
        Step::Assess { method: proposed, targets } => {
            format!("Assessed: {}, {} proposed", counted(targets.count, "Relevant Device"), method(*proposed))
        }
        Step::Inform { duty, recipient, at, how } => {
            format!("Informed {recipient} at {} by {how} (duty {duty})", shown(*at))
        }
        Step::Refer { notification, new_facts } => match new_facts {
            None => format!("Referred to the SMKI PMA {}", with_file(notification.as_ref())),
            Some(facts) => format!("Referred to the SMKI PMA again {}: {facts}", with_file(notification.as_ref())),
        },
        Step::SubscriberRecovery { note } => format!("The Subscriber recovers with its own key: {note}"),
        Step::SetStatus { status, from, devices, reason, acknowledged: _, overridden } => {
            let reason = reason.as_ref().map(|reason| format!(", because {reason}")).unwrap_or_default();
            let overridden =
                overridden.as_ref().map(|text| format!(", without proof, overridden: {text}")).unwrap_or_default();
            // A day of London, which is how it was asked for; before the calendar begins, the moment.
            let from = CivilDate::of(*from).map_or_else(|_| from.to_string(), |day| day.to_string());
            format!(
                "SMI Status '{status}' from {from} for {}{reason}{overridden}",
                of(devices.map(|devices| devices.count))
            )
        }
        Step::ImportStatuses { extract, changes, contradictions, acknowledged: _, reason } => {
            let reason = reason.as_ref().map(|reason| format!(", because {reason}")).unwrap_or_default();
            let contradictions = if *contradictions == 0 {
                String::new()
            } else {
                format!("; {contradictions} of its lines contradict what is recorded, and change nothing")
            };
            format!(
                "SMI Statuses of {} from the Inventory's extract, SHA-256 {extract}{reason}{contradictions}",
                counted(*changes, "Device")
            )
        }
        Step::Prepare { note } => format!("Prepared: {note}"),
        Step::Pause { reason } => format!("Paused: {reason}"),
        Step::Exclude { devices, reason } => format!("{} left out: {reason}", counted(devices.count, "Device")),
        Step::Finish { note } => format!("Executed: every target came to an end. {note}"),
        Step::BeginPostRecovery { note } => format!("Post-Recovery began: {note}"),
        Step::HandOver { devices, evidence } => {
            let which = devices.map_or_else(
                || "All Devices under the DCC's control".to_owned(),
                |devices| counted(devices.count, "Device"),
            );
            format!("{which} handed back to their Subscriber: {evidence}")
        }
        Step::AcceptStranded { count, overridden, reason } => {
            let overridden = overridden.filter(|count| *count > 0).map_or_else(String::new, |count| {
                format!(", and {} set from 'recovery' to another status without proof,", counted(count, "Device"))
            });
            format!("{}{overridden} accepted: {reason}", counted(*count, "stranded Device"))
        }
    }
}

fn with_file(notification: Option<&Digest>) -> String {
    notification.map_or_else(|| "without a notification file".into(), |file| format!("with notification file {file}"))
}

/// As people call a class.
pub const fn class(class: CompromiseClass) -> &'static str {
    match class {
        CompromiseClass::Organisation => "Organisation Compromise",
        CompromiseClass::Other => "Other Compromise",
    }
}
