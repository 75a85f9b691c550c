//! Pure. What is to be done now in an incident, and by whom.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::decide::{Gate, Situation};
use super::{Progress, State};
use crate::domain::ledger::steps::{CompromiseClass, Method};
use crate::domain::time::Timestamp;

/// Who acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Actor {
    /// The DCC's recovery team.
    Operator,
    /// The Authorised Responsible Officer of the affected Subscriber.
    Aro,
    /// The SMKI PMA.
    PmaMember,
    /// The Key Custodians.
    KeyCustodian,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Operator => "operator",
            Self::Aro => "ARO",
            Self::PmaMember => "SMKI PMA",
            Self::KeyCustodian => "Key Custodians",
        })
    }
}

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
    /// Whether the procedure cannot go on without it.
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
    let progress = situation.progress;
    let counts = progress.targets.counts();
    for (id, duty) in progress.open_duties() {
        let what = format!("Inform {}: {}", duty.recipient, duty.text);
        list.add(Actor::Operator, true, what, &format!("smkictl incident inform INCIDENT --duty {id} …")).due =
            duty.due;
    }
    match progress.state {
        State::Reported => {
            let what = "Confirm the Compromise, or the suspicion of one, by a permitted mechanism";
            list.add(Actor::Operator, true, what, "smkictl incident confirm INCIDENT …");
            list.add(Actor::Operator, false, "If it is none, dismiss it", "smkictl incident dismiss INCIDENT …");
        }
        State::Confirmed => {
            let what = "Assess: the Relevant Devices with evidence, and the method proposed";
            list.add(Actor::Operator, true, what, "smkictl incident assess INCIDENT …");
        }
        State::Assessed if progress.method == Some(Method::SubscriberKey) => {
            let what = "Method 1: record that the Subscriber recovers with its own key, or assess again";
            list.add(Actor::Operator, true, what, "smkictl incident subscriber-recovery INCIDENT …");
        }
        State::Assessed => {
            if situation.notifications.is_empty() {
                let (who, what) = match progress.class() {
                    CompromiseClass::Organisation => {
                        (Actor::Aro, "Submit the signed Organisation Compromise Notification File")
                    }
                    CompromiseClass::Other => (Actor::Aro, "Submit the signed Other Compromise Notification File"),
                };
                list.add(who, true, what, "smkictl file submit …");
            }
            gates(&mut list, situation);
            list.add(Actor::Operator, true, "Refer the incident to the SMKI PMA", "smkictl incident refer INCIDENT …");
        }
        State::Referred => {
            let what =
                "Determine, under the SMKI Recovery Key Guidance, whether recovery is executed, and with which key";
            list.add(Actor::PmaMember, true, what, "smkictl determination draft | sign; then record");
        }
        State::DeterminedNotToExecute => {
            if counts.stranded > 0 && progress.stranded_accepted != Some(counts.stranded) {
                let what = format!("Report the {} stranded Devices, and record who accepted it", counts.stranded);
                list.add(Actor::Operator, true, what, "smkictl incident accept-stranded INCIDENT …");
            }
            list.add(Actor::Operator, false, "Close the incident", "smkictl incident close INCIDENT …");
            list.add(
                Actor::Operator,
                false,
                "With new facts, refer it again",
                "smkictl incident refer INCIDENT --new-facts …",
            );
        }
        State::DeterminedToExecute => {
            if situation.determination.as_ref().is_some_and(|standing| !standing.has_scope) {
                let what = "Settle the scope: templates with the replacement certificates, device list, limits";
                list.add(Actor::PmaMember, true, what, "smkictl determination draft --type schedule");
            }
            gates(&mut list, situation);
            list.add(
                Actor::Operator,
                true,
                "Record that everything is prepared",
                "smkictl incident prepare INCIDENT …",
            );
        }
        State::Prepared | State::Paused => {
            list.add(
                Actor::KeyCustodian,
                true,
                "Activate the key of the determination",
                "smkictl key activate KEY --incident INCIDENT",
            );
            if progress.state == State::Paused && counts.outstanding == 0 {
                list.add(
                    Actor::Operator,
                    true,
                    "Record that every target came to an end",
                    "smkictl incident finish INCIDENT …",
                );
            }
        }
        State::KeyActive => {
            list.add(Actor::Operator, true, "Sign the recovery commands", "smkictl recovery sign …");
        }
        State::Executing => executing(&mut list, progress),
        State::Executed => {
            list.add(Actor::Operator, true, "Begin Post-Recovery", "smkictl incident begin-post-recovery INCIDENT …");
        }
        State::PostRecovery => {
            if progress.method == Some(Method::AcbCertificates) && counts.under_dcc_control > 0 {
                let what = format!(
                    "{} Devices are under the DCC's control: take them back (SRV 6.21)",
                    counts.under_dcc_control
                );
                list.add(Actor::Aro, true, what, "");
                list.add(Actor::Operator, true, "Record each handover", "smkictl incident hand-over INCIDENT …");
            }
            list.add(Actor::Operator, true, "Close the incident", "smkictl incident close INCIDENT …");
        }
        State::SubscriberRecovery => {
            list.add(Actor::Aro, true, "Recover with the Subscriber's own key, and report progress", "");
            list.add(Actor::Operator, true, "Close the incident once it is done", "smkictl incident close INCIDENT …");
        }
        State::Dismissed | State::Withdrawn => {
            if counts.stranded > 0 && progress.stranded_accepted != Some(counts.stranded) {
                let what = format!("Report the {} stranded Devices, and record who accepted it", counts.stranded);
                list.add(Actor::Operator, true, what, "smkictl incident accept-stranded INCIDENT …");
            }
            list.add(Actor::Operator, true, "Close the incident", "smkictl incident close INCIDENT …");
        }
        State::Closed => {}
    }
    list.0
}

fn executing(list: &mut List, progress: &Progress) {
    let counts = progress.targets.counts();
    if counts.outstanding == 0 {
        list.add(
            Actor::Operator,
            true,
            "Record that every target came to an end",
            "smkictl incident finish INCIDENT …",
        );
        return;
    }
    list.add(
        Actor::Operator,
        true,
        format!("Sign and send: {} targets are outstanding", counts.outstanding),
        "smkictl recovery sign …",
    );
    list.add(Actor::Operator, true, "Take the Devices' Responses in", "smkictl recovery responses …");
    if counts.failed > 0 {
        let what =
            format!("{} Devices answered that they failed: leave out those whose failure is final", counts.failed);
        list.add(Actor::Operator, false, what, "smkictl incident exclude INCIDENT …");
    }
}

/// SMI Status and ADT file, as far as they are due now.
fn gates(list: &mut List, situation: &Situation<'_>) {
    let set = situation.progress.targets.without_recovery() == 0;
    match &situation.gates.status {
        Gate::Due { by } if !set => {
            let what = "Set the SMI Status of every target to 'recovery', and record it";
            list.add(Actor::Operator, true, what, "smkictl incident set-status INCIDENT recovery …").by =
                Some(by.clone());
        }
        Gate::Relieved { by } if !set => {
            let what = "The SMI Status need not be set to 'recovery' yet; whoever sets it gives the reason";
            list.add(Actor::Operator, false, what, "").by = Some(by.clone());
        }
        Gate::Due { .. } | Gate::Relieved { .. } | Gate::NotRequired => {}
    }
    match &situation.gates.adt {
        Gate::Due { by } if !situation.adt_accepted => {
            let what = "Submit the signed Anomaly Detection Thresholds file";
            list.add(Actor::Aro, true, what, "smkictl file submit … --kind adt").by = Some(by.clone());
        }
        Gate::Relieved { by } if !situation.adt_accepted => {
            let what = "The Anomaly Detection Thresholds file need not be submitted yet";
            list.add(Actor::Aro, false, what, "").by = Some(by.clone());
        }
        Gate::Due { .. } | Gate::Relieved { .. } | Gate::NotRequired => {}
    }
}
