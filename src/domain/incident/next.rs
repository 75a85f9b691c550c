//! Pure. What is to be done now in an incident, and by whom: read from what the procedure in force demands, so that nobody is sent
//! where a guard refuses.

use serde::{Deserialize, Serialize};

use super::decide::{Situation, decide_close};
use super::{Progress, State};
use crate::domain::ledger::meaning::Meaning;
use crate::domain::ledger::steps::{CompromiseClass, Method};
use crate::domain::procedure::in_force::{Awaits, Demand, May, Requirement};
use crate::domain::procedure::{Actor, places};
use crate::domain::time::Timestamp;

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ToDo {
    /// By whom.
    pub who: Actor,
    /// What, in a sentence.
    #[schema(value_type = String)]
    pub what: Box<str>,
    /// The command that does it.
    #[schema(value_type = Option<String>)]
    pub command: Option<Box<str>>,
    /// Which text asks for it.
    #[schema(value_type = Option<String>)]
    pub by: Option<Box<str>>,
    /// Until when, where there is a limit.
    #[schema(value_type = Option<String>)]
    pub due: Option<Timestamp>,
    /// Whether it is owed and may be done now.
    pub required: bool,
}

struct List(Vec<ToDo>);

impl List {
    fn add(&mut self, who: Actor, required: bool, what: impl Into<Box<str>>, command: &str) -> &mut ToDo {
        let command = (!command.is_empty()).then(|| command.into());
        self.0.push(ToDo { who, what: what.into(), command, by: None, due: None, required });
        self.0.last_mut().expect("just pushed")
    }
}

/// What is to be done now, the most pressing first.
pub fn next(situation: &Situation<'_>) -> Vec<ToDo> {
    let mut list = List(Vec::new());
    for (id, duty, departed) in situation.open_duties() {
        if departed.is_none() {
            let what = format!("Inform {}: {}", duty.recipient, duty.text);
            list.add(Actor::Dcc, true, what, &format!("smkictl incident inform INCIDENT --duty {id} …")).due = duty.due;
        }
    }
    renewed(&mut list, situation);
    let (closing, before): (Vec<_>, Vec<_>) =
        situation.demands.iter().partition(|demand| Meaning::of(&demand.step.id) == Some(Meaning::Close));
    before.into_iter().for_each(|demand| step(&mut list, demand, situation));
    beside(&mut list, situation);
    closing.into_iter().for_each(|demand| step(&mut list, demand, situation));
    list.0
}

/// A step of the profile: owed now, or early, or next in turn.
fn step(list: &mut List, demand: &Demand<'_>, situation: &Situation<'_>) {
    let Demand { step, requirement, missing, departures: _ } = demand;
    let progress = situation.progress;
    let is_met_by_a_duty = progress.open_duties().any(|(_, duty)| duty.step.as_ref() == Some(&step.id));
    let by = requirement.by().map(|by| by.to_string().into());
    let Some(meaning) = Meaning::of(&step.id) else {
        if matches!(requirement, Requirement::Due { .. }) && !is_met_by_a_duty {
            let who = step.actors.first().copied().unwrap_or(Actor::Dcc);
            list.add(who, true, step.text.as_str(), "").by = by;
        }
        return;
    };
    let is_here = places(meaning).contains(&progress.state);
    match requirement {
        Requirement::Due { .. } => {
            let Some((who, what, command)) = owed(meaning, situation) else { return };
            // To close is the last that is done, and stranded Devices and duties hold it up besides.
            let is_free = meaning != Meaning::Close
                || (decide_close(situation).is_ok() && progress.state != State::DeterminedNotToExecute);
            let what = if is_free { what } else { format!("Then: {what}") };
            let due = due(demand, progress);
            if meaning == Meaning::HandOver {
                let devices = situation.counts.under_dcc_control;
                let what = format!("{devices} Devices are under the DCC's control: take them back (SRV 6.21)");
                list.add(Actor::Subscriber, true, what, "").by.clone_from(&by);
            }
            let todo = list.add(who, is_free, what, command);
            (todo.by, todo.due) = (by, due);
        }
        Requirement::NotYetDue { awaits: Awaits::Gate(_), early: May::Yes | May::WithReason, .. } if is_here => {
            let (who, what) = match meaning {
                Meaning::SetRecovery => {
                    (Actor::Dcc, "The SMI Status need not be set to 'recovery' yet; whoever sets it gives the reason")
                }
                Meaning::SubmitThresholds => {
                    (Actor::Subscriber, "The Anomaly Detection Thresholds file need not be submitted yet")
                }
                _ => return,
            };
            list.add(who, false, what, "").by = by;
        }
        // What comes when the steps that are listed before it are taken.
        Requirement::NotYetDue { early: May::No, .. } if is_here && !missing.is_empty() => {
            if let Some((who, what, command)) = owed(meaning, situation) {
                list.add(who, false, format!("Then: {what}"), command);
            }
        }
        Requirement::NotYetDue { .. }
        | Requirement::Permitted { .. }
        | Requirement::Unknown { .. }
        | Requirement::Done { .. }
        | Requirement::NotRequired { .. }
        | Requirement::Blocked { .. } => {}
    }
}

/// The limit of a step: so many hours after the last of those before it.
fn due(demand: &Demand<'_>, progress: &Progress) -> Option<Timestamp> {
    let hours = demand.step.hours?;
    let since = demand.step.after.iter().filter_map(|step| progress.done.get(step)).map(|taken| taken.at).max()?;
    Some(since.plus_ms(i64::from(hours) * 3_600_000))
}

/// Who takes an owed step, and how; none where something else says it, or where there is nothing to do it for.
fn owed(step: Meaning, situation: &Situation<'_>) -> Option<(Actor, String, &'static str)> {
    let (counts, progress) = (situation.counts, situation.progress);
    let (who, what, command) = match step {
        Meaning::Confirm => (
            Actor::Dcc,
            "Confirm the Compromise, or the suspicion of one, by a permitted mechanism",
            "smkictl incident confirm INCIDENT …",
        ),
        Meaning::Assess => (
            Actor::Dcc,
            "Assess: the Relevant Devices with evidence, and the method proposed",
            "smkictl incident assess INCIDENT …",
        ),
        Meaning::SubmitNotification => match progress.class() {
            CompromiseClass::Organisation => (
                Actor::Subscriber,
                "Submit the signed Organisation Compromise Notification File",
                "smkictl file submit …",
            ),
            CompromiseClass::Other => {
                (Actor::Dcc, "Submit the signed Other Compromise Notification File", "smkictl file submit …")
            }
        },
        Meaning::SetRecovery => (
            Actor::Dcc,
            "Set the SMI Status of every target to 'recovery', and record it",
            "smkictl incident set-status INCIDENT recovery …",
        ),
        Meaning::SubmitThresholds => (
            Actor::Subscriber,
            "Submit the signed Anomaly Detection Thresholds file",
            "smkictl file submit … --kind adt",
        ),
        Meaning::Refer => (Actor::Dcc, "Refer the incident to the SMKI PMA", "smkictl incident refer INCIDENT …"),
        Meaning::Determine => (
            Actor::Pma,
            "Determine, under the SMKI Recovery Key Guidance, whether recovery is executed, and with which key",
            "smkictl determination draft | sign; then record",
        ),
        Meaning::Prepare => (Actor::Dcc, "Record that everything is prepared", "smkictl incident prepare INCIDENT …"),
        Meaning::ActivateKey if counts.outstanding > 0 => {
            (Actor::KeyCustodians, "Activate the key of the determination", "smkictl key activate KEY")
        }
        Meaning::Execute if counts.outstanding > 0 => {
            let what = match progress.state {
                State::KeyActive => "Sign the recovery commands".to_owned(),
                _ => format!("Sign and send: {} targets are outstanding", counts.outstanding),
            };
            return Some((Actor::Dcc, what, "smkictl recovery sign …"));
        }
        Meaning::SetRecovered => {
            let what = format!(
                "Set the SMI Status of the {} Devices that proved their recovery to 'recovered', and record it",
                counts.proven_not_recovered
            );
            return Some((Actor::Dcc, what, "smkictl incident set-status INCIDENT recovered --devices LIST …"));
        }
        Meaning::HandOver => (Actor::Dcc, "Record each handover", "smkictl incident hand-over INCIDENT …"),
        Meaning::Close => (Actor::Dcc, "Close the incident", "smkictl incident close INCIDENT …"),
        // Owed by nobody in itself, or said beside the profile.
        Meaning::ActivateKey
        | Meaning::Execute
        | Meaning::Notify
        | Meaning::Dismiss
        | Meaning::Inform
        | Meaning::SubscriberRecovery
        | Meaning::Pause
        | Meaning::Exclude
        | Meaning::Finish
        | Meaning::ReportProgress
        | Meaning::SetStatus
        | Meaning::BeginPostRecovery
        | Meaning::AcceptStranded => return None,
    };
    Some((who, what.to_owned(), command))
}

/// A determination to execute that is not in force opens nothing: only the PMA can go on.
fn renewed(list: &mut List, situation: &Situation<'_>) {
    let (progress, counts) = (situation.progress, situation.counts);
    let is_on_its_way = matches!(
        progress.state,
        State::DeterminedToExecute | State::Prepared | State::KeyActive | State::Executing | State::Paused
    );
    if !is_on_its_way || (counts.outstanding == 0 && progress.state != State::DeterminedToExecute) {
        return;
    }
    let why = situation.determination.as_ref().and_then(|followed| followed.not_in_force.as_ref());
    if let Some(why) = why {
        let what = format!("Nothing is signed: {why}. Determine anew, in the place of that determination");
        list.add(Actor::Pma, true, what, "smkictl determination draft | sign; then record");
    }
}

/// What is to be done beside the steps that the profile owes.
fn beside(list: &mut List, situation: &Situation<'_>) {
    let (progress, counts) = (situation.progress, situation.counts);
    let finish = "Record that every target came to an end";
    match progress.state {
        State::Reported => {
            list.add(Actor::Dcc, false, "If it is none, dismiss it", "smkictl incident dismiss INCIDENT …");
        }
        State::Assessed if progress.method == Some(Method::SubscriberKey) => {
            let what = "Method 1: record that the Subscriber recovers with its own key, or assess again";
            list.add(Actor::Dcc, true, what, "smkictl incident subscriber-recovery INCIDENT …");
        }
        State::SubscriberRecovery => {
            list.add(Actor::Subscriber, false, "Recover with the Subscriber's own key, and report progress", "");
        }
        State::DeterminedNotToExecute => {
            let what = "With new facts, refer it again";
            list.add(Actor::Dcc, false, what, "smkictl incident refer INCIDENT --new-facts …");
        }
        State::DeterminedToExecute => {
            if situation.determination.as_ref().is_some_and(|followed| !followed.has_scope) {
                let what = "Settle the scope: templates with the replacement certificates, device list, limits";
                list.add(Actor::Pma, true, what, "smkictl determination draft --type schedule");
            }
        }
        State::Prepared if counts.outstanding == 0 => {
            let what = "Every target was left out: nothing is to be signed. Withdraw the determination";
            list.add(Actor::Pma, true, what, "smkictl determination draft --type withdrawal");
        }
        State::KeyActive if counts.outstanding == 0 => {
            let what =
                "Every target was left out: nothing is to be signed. Pause, then record that they came to an end";
            list.add(Actor::Dcc, true, what, "smkictl incident pause INCIDENT …");
        }
        State::Executing | State::Paused if counts.outstanding == 0 => {
            list.add(Actor::Dcc, true, finish, "smkictl incident finish INCIDENT …");
        }
        State::Executing | State::Paused => {
            list.add(Actor::Dcc, true, "Take the Devices' Responses in", "smkictl recovery responses …");
            if counts.failed > 0 {
                let what = format!(
                    "{} Devices answered that they failed: leave out those whose failure is final",
                    counts.failed
                );
                list.add(Actor::Dcc, false, what, "smkictl incident exclude INCIDENT …");
            }
        }
        State::Executed => {
            list.add(
                Actor::Subscriber,
                false,
                "Report progress with a Recovery Progress file",
                "smkictl file submit …",
            );
            list.add(Actor::Dcc, true, "Begin Post-Recovery", "smkictl incident begin-post-recovery INCIDENT …");
        }
        State::Confirmed
        | State::Assessed
        | State::Referred
        | State::Prepared
        | State::KeyActive
        | State::Dismissed
        | State::PostRecovery
        | State::Withdrawn
        | State::Closed => {}
    }
    if places(Meaning::Close).contains(&progress.state)
        && counts.stranded > 0
        && progress.stranded_accepted != Some(counts.stranded)
    {
        let what = format!("Report the {} stranded Devices, and record who accepted it", counts.stranded);
        list.add(Actor::Dcc, true, what, "smkictl incident accept-stranded INCIDENT …");
    }
}
