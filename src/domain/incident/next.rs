//! Pure. What is to be done now in an incident, and by whom, with the command that does it.
//!
//! A command holds whatever is known: the determination, the key, the digest of the file, the count. What only a person can know stands
//! in capitals, such as `TIME` or `'WHO'`, and `INCIDENT` for the incident.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::decide::{Gate, Situation, Standing};
use super::targets::Counts;
use super::{Progress, State};
use crate::domain::ledger::steps::{CompromiseClass, Method};
use crate::domain::names::MechanismId;
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
    /// The command that does it, with what a person has to put in in capitals.
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

impl Actor {
    /// Everyone who acts, in the order in which they are told.
    pub const ALL: [Self; 4] = [Self::Operator, Self::Aro, Self::PmaMember, Self::KeyCustodian];
}

struct List<'a> {
    todo: Vec<ToDo>,
    situation: &'a Situation<'a>,
    counts: Counts,
}

/// What is to be done now, the most pressing first.
pub fn next(situation: &Situation<'_>) -> Vec<ToDo> {
    let counts = situation.progress.targets.counts();
    let mut list = List { todo: Vec::new(), situation, counts };
    list.duties();
    list.in_state();
    list.todo
}

impl List<'_> {
    fn add(&mut self, who: Actor, what: impl Into<Box<str>>, command: &str) -> &mut ToDo {
        let command = (!command.is_empty()).then(|| command.into());
        self.todo.push(ToDo { who, what: what.into(), command, by: None, due: None, required: true });
        self.todo.last_mut().expect("just pushed")
    }

    /// What the procedure asks for at a step of its own.
    fn step(&mut self, who: Actor, step: &str, what: impl Into<Box<str>>, command: &str) {
        self.add(who, what, command).by = Some(format!("step {step}").into());
    }

    /// What nobody owes.
    fn may(&mut self, who: Actor, what: impl Into<Box<str>>, command: &str) -> &mut ToDo {
        let todo = self.add(who, what, command);
        todo.required = false;
        todo
    }

    /// "Then " before what waits for something above it.
    fn then(&self, what: &str) -> String {
        if self.todo.iter().all(|todo| !todo.required) {
            return what.to_owned();
        }
        let mut letters = what.chars();
        let first = letters.next().map(|first| first.to_lowercase().to_string()).unwrap_or_default();
        format!("Then {first}{}", letters.as_str())
    }

    fn progress(&self) -> &Progress {
        self.situation.progress
    }

    /// The id of the determination that the incident follows.
    fn determination(&self) -> String {
        self.progress().determined.map_or_else(|| "ID".to_owned(), |determined| determined.id.to_string())
    }

    fn duties(&mut self) {
        for (id, duty) in self.situation.progress.open_duties() {
            let what = format!("Inform the {}: {}", duty.recipient, duty.text);
            let command = format!(
                "smkictl incident inform INCIDENT --duty {id} --recipient 'WHO' --at TIME --how 'BY WHICH WAY'"
            );
            let todo = self.add(Actor::Operator, what, &command);
            (todo.by, todo.due) = (Some(format!("duty {id}").into()), duty.due);
        }
    }

    fn in_state(&mut self) {
        match self.progress().state {
            State::Reported => self.reported(),
            State::Confirmed => self.step(
                Actor::Operator,
                "assess",
                "Assess: the Relevant Devices with evidence, and the method proposed",
                "smkictl incident assess INCIDENT --method METHOD --targets TARGETS.csv",
            ),
            State::Assessed => self.assessed(),
            State::Referred => self.referred(),
            State::DeterminedNotToExecute => {
                self.hand_over();
                self.stranded();
                self.close();
                let command =
                    format!("smkictl incident refer INCIDENT --notification {} --new-facts 'WHAT IS NEW'", self.file());
                self.may(Actor::Operator, "Or, with new facts, refer it to the SMKI PMA again", &command);
            }
            State::DeterminedToExecute => self.determined(),
            State::Prepared => {
                self.if_not_in_force();
                self.activate("Activate the key of the determination");
            }
            State::Paused => self.paused(),
            State::KeyActive => {
                self.if_not_in_force();
                self.sign("Sign the recovery commands, and send them");
                self.pause();
            }
            State::Executing => self.executing(),
            State::Executed => {
                let command = "smkictl incident begin-post-recovery INCIDENT --note 'WHAT WAS CHECKED'";
                self.add(Actor::Operator, "Begin Post-Recovery", command);
            }
            State::PostRecovery => {
                self.recovered(true);
                self.hand_over();
                self.stranded();
                self.report();
                self.close();
            }
            State::SubscriberRecovery => {
                self.add(
                    Actor::Aro,
                    "Recover with the Subscriber's own key: nothing of it is signed here (Method 1)",
                    "",
                );
                self.may(
                    Actor::Aro,
                    "Report how it goes, by a signed Organisation Compromise Recovery Progress File",
                    "smkictl file submit INCIDENT --kind organisation-progress PROGRESS.csv --signature PROGRESS.csv.p7s",
                );
                self.stranded();
                self.close();
            }
            State::Dismissed | State::Withdrawn => {
                self.hand_over();
                self.stranded();
                self.close();
            }
            State::Closed => {}
        }
    }

    fn reported(&mut self) {
        let known: Vec<&str> = self.situation.mechanisms.iter().map(MechanismId::as_str).collect();
        self.step(
            Actor::Operator,
            "confirm-compromise",
            format!("Confirm the Compromise, or the suspicion of one, by a permitted mechanism ({})", known.join(", ")),
            "smkictl incident confirm INCIDENT --mechanism MECHANISM --certainty CERTAINTY --evidence 'WHAT WAS SEEN'",
        );
        self.may(
            Actor::Operator,
            "Or, if it is none, dismiss it once everybody is informed",
            "smkictl incident dismiss INCIDENT --reason 'WHY'",
        );
    }

    fn assessed(&mut self) {
        if self.progress().method == Some(Method::SubscriberKey) {
            self.add(
                Actor::Operator,
                "Method 1: record that the Subscriber recovers with its own key",
                "smkictl incident subscriber-recovery INCIDENT --note 'WHAT WAS AGREED'",
            );
            self.may(
                Actor::Operator,
                "Or assess again: by another method the SMKI PMA determines",
                "smkictl incident assess INCIDENT --method METHOD --targets TARGETS.csv",
            );
            return;
        }
        if self.progress().method == Some(Method::Contingency) {
            self.not_built();
        }
        if self.situation.notifications.is_empty() {
            let kind = match self.progress().class() {
                CompromiseClass::Organisation => "organisation-notification",
                CompromiseClass::Other => "other-notification",
            };
            let what = match self.progress().class() {
                CompromiseClass::Organisation => "Submit the signed Organisation Compromise Notification File",
                CompromiseClass::Other => "Submit the signed Other Compromise Notification File",
            };
            let command =
                format!("smkictl file submit INCIDENT --kind {kind} NOTIFICATION.csv --signature NOTIFICATION.csv.p7s");
            self.step(Actor::Aro, "submit-notification-file", what, &command);
        }
        self.gates();
        let command = format!("smkictl incident refer INCIDENT --notification {}", self.file());
        self.step(Actor::Operator, "refer-to-pma", self.then("Refer the incident to the SMKI PMA"), &command);
    }

    /// The SHA-256 of the notification file, if there is one and no more.
    fn file(&self) -> String {
        let mut files = self.situation.notifications.iter();
        match (files.next(), files.next()) {
            (Some(only), None) => only.to_string(),
            (None | Some(_), _) => "SHA-256".to_owned(),
        }
    }

    fn not_built(&mut self) {
        self.may(
            Actor::Operator,
            "Know that the Contingency route is not built: the incident can be carried as far as the SMKI PMA, and a determination \
             for it is refused",
            "",
        );
    }

    fn referred(&mut self) {
        if self.progress().method == Some(Method::Contingency) {
            self.not_built();
        }
        self.step(
            Actor::PmaMember,
            "determine",
            "Determine, under the SMKI Recovery Key Guidance, whether recovery is executed, and with which key",
            "",
        );
        self.may(
            Actor::Operator,
            "Draft for the SMKI PMA what it is to determine; `smkictl determination draft --sample` prints what to fill in",
            "smkictl determination draft --from DRAFT.toml",
        );
        self.add(
            Actor::PmaMember,
            "Each member: look at the document whole, compare its words with another member, sign it",
            "smkictl determination sign ID.json --key KEY.pem --certificate CERTIFICATE.pem --member MEMBER",
        );
        self.add(
            Actor::Operator,
            "Then record it, with every signature that lies beside it (to execute: with its list of Devices)",
            "smkictl determination record ID.json --devices ID.devices.txt",
        );
    }

    /// A determination that is suspended or over permits nothing: whoever is to act is told first.
    fn if_not_in_force(&mut self) {
        if let Some(Standing { in_force: Err(why), .. }) = &self.situation.determination {
            let what = format!("Nothing can be signed: {why}. Wait, or determine anew, superseding it");
            self.step(Actor::PmaMember, "determine", what, "");
        }
    }

    fn determined(&mut self) {
        self.if_not_in_force();
        if self.situation.determination.as_ref().is_some_and(|standing| !standing.has_scope) {
            self.add(
                Actor::PmaMember,
                "Settle the scope by a schedule: templates with the replacement certificates, Devices, limits",
                "smkictl determination draft --type schedule --from SCHEDULE.toml",
            );
        }
        self.gates();
        let what = self.then("Record that everything is prepared: list, certificates and templates compared");
        self.step(
            Actor::Operator,
            "prepare",
            what,
            "smkictl incident prepare INCIDENT --note 'WHAT WAS COMPARED, BY WHOM'",
        );
    }

    fn activate(&mut self, what: &str) {
        let key = self.situation.determination.as_ref().and_then(|standing| standing.key.as_ref());
        let key = key.map_or_else(|| "KEY".to_owned(), ToString::to_string);
        self.step(Actor::KeyCustodian, "activate-key", what, &format!("smkictl key activate {key}"));
    }

    fn sign(&mut self, what: impl Into<Box<str>>) {
        let command =
            format!("smkictl recovery sign --determination {} --devices all --out commands/", self.determination());
        self.step(Actor::Operator, "execute", what, &command);
    }

    fn pause(&mut self) {
        self.may(
            Actor::Operator,
            "If something looks wrong, pause: the key is locked before the next signature",
            "smkictl incident pause INCIDENT --reason 'WHY'",
        );
    }

    fn paused(&mut self) {
        if self.counts.outstanding == 0 {
            self.finish();
            return;
        }
        self.if_not_in_force();
        self.activate(
            "To go on, activate the key again; then repeat the request under its id, and nothing is signed twice",
        );
        self.answers();
    }

    fn executing(&mut self) {
        if self.counts.outstanding == 0 {
            self.finish();
            self.recovered(false);
            return;
        }
        self.if_not_in_force();
        self.sign(format!("Sign and send: {} are outstanding", targets(self.counts.outstanding)));
        self.answers();
        self.pause();
    }

    /// The Devices' Responses, and what follows from them.
    fn answers(&mut self) {
        let command = format!(
            "smkictl recovery responses ANSWERS.hex --certificates DEVICE-CERTIFICATES/ --determination {}",
            self.determination()
        );
        self.step(Actor::Operator, "execute", "Take the Devices' Responses in", &command);
        if self.counts.failed > 0 {
            let what = format!(
                "{} answered that they failed: leave out those whose failure is final",
                devices(self.counts.failed)
            );
            self.may(
                Actor::Operator,
                what,
                "smkictl incident exclude INCIDENT --devices FAILED.txt --reason 'WHY IT IS FINAL'",
            );
        }
        self.recovered(false);
        self.report();
    }

    fn finish(&mut self) {
        self.step(
            Actor::Operator,
            "execute",
            "Record that every target came to an end",
            "smkictl incident finish INCIDENT --note 'WHAT WAS CHECKED'",
        );
    }

    /// Devices that are proven recovered, and whose SMI Status says 'recovery' still.
    fn recovered(&mut self, is_due: bool) {
        let proven = self.progress().targets.proven_in_recovery();
        if proven == 0 {
            return;
        }
        let what =
            format!("Set the SMI Status of {}, proven recovered, to 'recovered', and record it", devices(proven));
        let command = "smkictl incident devices INCIDENT | grep ',Recovery,[^,]*,recovered,' | cut -d, -f1 > proven.txt && \
                       smkictl incident set-status INCIDENT recovered --from DATE --devices proven.txt";
        let todo = self.may(Actor::Operator, what, command);
        (todo.required, todo.by) = (is_due, Some("step set-smi-status-recovered".into()));
    }

    fn hand_over(&mut self) {
        let waiting = self.counts.under_dcc_control;
        if waiting == 0 {
            return;
        }
        let are = if waiting == 1 { "is" } else { "are" };
        let what = format!("{} {are} under the DCC's control: take them back (SRV 6.21)", devices(waiting));
        self.step(Actor::Aro, "hand-over", what, "");
        self.step(
            Actor::Operator,
            "hand-over",
            "Record the handover",
            "smkictl incident hand-over INCIDENT --evidence 'WHAT PROVES IT'",
        );
    }

    fn stranded(&mut self) {
        let stranded = self.counts.stranded;
        if stranded == 0 || self.progress().stranded_accepted == Some(stranded) {
            return;
        }
        let what = format!(
            "Report the {stranded} stranded Devices (`smkictl incident devices` names them), and record who accepted it"
        );
        let command =
            format!("smkictl incident accept-stranded INCIDENT --count {stranded} --reason 'WHO ACCEPTED IT, AND WHY'");
        self.add(Actor::Operator, what, &command);
    }

    fn report(&mut self) {
        let what = "Make the Recovery Progress File for the Subscriber and the SMKI PMA";
        let command = "smkictl file progress INCIDENT --out progress.csv";
        self.may(Actor::Operator, what, command).by = Some("step report-progress".into());
    }

    fn close(&mut self) {
        let what = self.then("Close the incident");
        self.step(Actor::Operator, "close", what, "smkictl incident close INCIDENT --reason 'WHAT CAME OF IT'");
    }

    /// SMI Status and ADT file, as far as they are due now.
    fn gates(&mut self) {
        let situation = self.situation;
        let set = situation.progress.targets.without_recovery() == 0;
        let status = "smkictl incident set-status INCIDENT recovery --from DATE --acknowledge-one-way";
        match &situation.gates.status {
            Gate::Due { by } if !set => {
                let what = "Set the SMI Status of every target to 'recovery', and record it; only the Recovery or Contingency \
                            Private Key brings a Device back from there";
                self.add(Actor::Operator, what, status).by = Some(by.clone());
            }
            Gate::Relieved { by } if !set => {
                let what =
                    "The SMI Status need not be set to 'recovery' yet; whoever sets it all the same gives the reason";
                self.may(Actor::Operator, what, &format!("{status} --reason 'WHY NOW'")).by = Some(by.clone());
            }
            Gate::Due { .. } | Gate::Relieved { .. } | Gate::NotRequired => {}
        }
        let thresholds = "smkictl file submit INCIDENT --kind adt THRESHOLDS.csv --signature THRESHOLDS.csv.p7s";
        match &situation.gates.adt {
            Gate::Due { by } if !situation.adt_accepted => {
                let what = "Submit the signed Anomaly Detection Thresholds file";
                self.add(Actor::Aro, what, thresholds).by = Some(by.clone());
            }
            Gate::Relieved { by } if !situation.adt_accepted => {
                let what = "The Anomaly Detection Thresholds file need not be submitted yet, and may be";
                self.may(Actor::Aro, what, thresholds).by = Some(by.clone());
            }
            Gate::Due { .. } | Gate::Relieved { .. } | Gate::NotRequired => {}
        }
    }
}

/// So many Devices.
fn devices(count: u64) -> String {
    if count == 1 { "1 Device".to_owned() } else { format!("{count} Devices") }
}

/// So many targets.
fn targets(count: u64) -> String {
    if count == 1 { "1 target".to_owned() } else { format!("{count} targets") }
}
