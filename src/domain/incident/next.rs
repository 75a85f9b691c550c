//! Pure. What is to be done now in an incident, and by whom, with the command that does it: read from what the procedure in force demands,
//! so that nobody is sent where a guard refuses.
//!
//! A command holds whatever is known: the determination, the key, the digest of the file, the count. What only a person can know stands
//! in capitals, such as `TIME` or `'WHO'`, and `INCIDENT` for the incident.

use serde::{Deserialize, Serialize};

use super::decide::{Situation, decide_close};
use super::routes::{self, Route};
use super::timeline::{counted, method};
use super::{Accepted, Progress, State};
use crate::domain::ledger::meaning::Meaning;
use crate::domain::ledger::steps::{CompromiseClass, Method};
use crate::domain::names::MechanismId;
use crate::domain::procedure::in_force::{Awaits, Demand, May, Requirement};
use crate::domain::procedure::{Actor, places};
use crate::domain::time::Timestamp;

/// Everyone who acts in an incident, in the order in which they are told.
pub const ACTORS: [Actor; 4] = [Actor::Dcc, Actor::Subscriber, Actor::Pma, Actor::KeyCustodians];

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ToDo {
    /// By whom.
    pub who: Actor,
    /// What, in a sentence; one that begins with "Then" waits for those above it.
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

struct List<'a> {
    todo: Vec<ToDo>,
    situation: &'a Situation<'a>,
}

/// What is to be done now, the most pressing first.
pub fn next(situation: &Situation<'_>) -> Vec<ToDo> {
    let mut list = List { todo: Vec::new(), situation };
    list.duties();
    list.route();
    list.if_not_in_force();
    list.wanted_again();
    if matches!(list.progress().state, State::KeyActive | State::Executing) && situation.counts.outstanding > 0 {
        list.symmetric_key();
    }
    let (closing, before): (Vec<_>, Vec<_>) =
        situation.demands.iter().partition(|demand| Meaning::of(&demand.step.id) == Some(Meaning::Close));
    for demand in before {
        list.demanded(demand);
    }
    list.beside();
    list.stranded();
    for demand in closing {
        list.demanded(demand);
    }
    list.or_else();
    list.todo
}

impl List<'_> {
    fn add(&mut self, who: Actor, what: impl Into<Box<str>>, command: &str) -> &mut ToDo {
        let command = (!command.is_empty()).then(|| command.into());
        self.todo.push(ToDo { who, what: what.into(), command, by: None, due: None, required: true });
        self.todo.last_mut().expect("just pushed")
    }

    /// What nobody owes.
    fn may(&mut self, who: Actor, what: impl Into<Box<str>>, command: &str) -> &mut ToDo {
        let todo = self.add(who, what, command);
        todo.required = false;
        todo
    }

    fn progress(&self) -> &Progress {
        self.situation.progress
    }

    /// The id of the determination that the incident follows.
    fn determination(&self) -> String {
        self.progress().determined.map_or_else(|| "ID".to_owned(), |determined| determined.id.to_string())
    }

    /// The SHA-256 of the notification file, if there is one and no more.
    fn file(&self) -> String {
        let mut files = self.situation.notifications.iter();
        match (files.next(), files.next()) {
            (Some(only), None) => only.to_string(),
            (None | Some(_), _) => "SHA-256".to_owned(),
        }
    }

    fn duties(&mut self) {
        for (id, duty, departed) in self.situation.open_duties() {
            if departed.is_some() {
                continue;
            }
            let what = format!("Inform the {}: {}", duty.recipient, duty.text);
            let command = format!(
                "smkictl incident inform INCIDENT --duty {id} --recipient 'WHO' --at TIME --how 'BY WHICH WAY'"
            );
            let todo = self.add(Actor::Dcc, what, &command);
            (todo.by, todo.due) = (Some(format!("duty {id}").into()), duty.due);
        }
    }

    /// The way out, until the SMKI PMA has determined: of the keys that have ways of their own.
    fn route(&mut self) {
        let Some(key) = self.situation.key else { return };
        match self.progress().state {
            State::Reported | State::Confirmed | State::Assessed | State::Referred => {}
            State::SubscriberRecovery
            | State::DeterminedNotToExecute
            | State::DeterminedToExecute
            | State::Prepared
            | State::KeyActive
            | State::Executing
            | State::Paused
            | State::Executed
            | State::PostRecovery
            | State::Dismissed
            | State::Withdrawn
            | State::Closed => return,
        }
        let Route { methods, acts, renew, refuses, text } = self.situation.route();
        let methods: Vec<&str> = methods.iter().map(|known| method(*known)).collect();
        let what = format!(
            "Know the way out of a Compromise of {}: {}. Who can still act: {acts}. To be made anew: {renew}. Refused here: {refuses}",
            routes::name(key),
            methods.join(" or ")
        );
        self.may(Actor::Dcc, what, "").by = Some(text.into());
    }

    /// The Contingency Symmetric Key is released before anything can be signed, and again after every lock.
    fn symmetric_key(&mut self) {
        let Some(generation) = self.situation.generation.as_ref().filter(|generation| !generation.released) else {
            return;
        };
        let what = if generation.spent {
            "Release the Contingency Symmetric Key again: the daemon wiped it when the key was locked"
        } else {
            "Release the Contingency Symmetric Key: the Root OCA Certificate is checked in the token first; from then on the key is spent, and \
             its generation is to be replaced"
        };
        let command =
            format!("smkictl key release-symmetric {} --determination {}", generation.key, self.determination());
        self.add(Actor::Dcc, what, &command).by = Some("step execute".into());
    }

    /// A determination to execute that is suspended or over permits nothing: whoever is to act is told first.
    fn if_not_in_force(&mut self) {
        let is_on_its_way = match self.progress().state {
            State::DeterminedToExecute => true,
            State::Prepared | State::KeyActive | State::Executing | State::Paused => {
                self.situation.counts.outstanding > 0
            }
            _ => false,
        };
        let followed = self.situation.determination.as_ref();
        if let Some(why) = followed.and_then(|followed| followed.not_in_force.as_ref()).filter(|_| is_on_its_way) {
            let what = format!("Nothing can be signed: {why}. Wait, or determine anew, superseding it");
            self.add(Actor::Pma, what, "").by = Some("step determine".into());
        }
    }

    /// Whom a superseding determination wants recovered again is easily taken for done.
    fn wanted_again(&mut self) {
        let again = self.situation.counts.wanted_again;
        if again > 0 && !self.progress().state.has_ended() {
            let is = if again == 1 { "was" } else { "were" };
            let what = format!(
                "Know that {} {is} recovered under an earlier determination, and {is} listed for another recovery since",
                counted(again, "Device")
            );
            self.may(Actor::Dcc, what, "smkictl incident devices INCIDENT").by = Some("step determine".into());
        }
    }

    /// A step of the profile: owed now, or early, or next in turn.
    fn demanded(&mut self, demand: &Demand<'_>) {
        let Demand { step, requirement, missing, departures: _ } = demand;
        let by: Option<Box<str>> = requirement.by().map(|by| by.to_string().into());
        let Some(meaning) = Meaning::of(&step.id) else {
            let is_met_by_a_duty = self.progress().open_duties().any(|(_, duty)| duty.step.as_ref() == Some(&step.id));
            if matches!(requirement, Requirement::Due { .. }) && !is_met_by_a_duty {
                let who = step.actors.first().copied().unwrap_or(Actor::Dcc);
                self.add(who, step.text.as_str(), "").by = by;
            }
            return;
        };
        let is_here = places(meaning).contains(&self.progress().state);
        match requirement {
            Requirement::Due { .. } => {
                // Stranded Devices and open duties hold the closure up, besides what the profile has before it.
                let is_free = meaning != Meaning::Close || decide_close(self.situation).is_ok();
                let due = due(demand, self.progress());
                for (who, what, command) in self.owed(meaning) {
                    let what = if is_free { what } else { then(&what) };
                    let todo = self.add(who, what, &command);
                    (todo.by, todo.due) = (by.clone(), due);
                }
            }
            Requirement::NotYetDue { awaits: Awaits::Gate(_), early: May::Yes | May::WithReason, .. } if is_here => {
                self.relieved(meaning, by);
            }
            // What comes when the steps that are listed before it are taken.
            Requirement::NotYetDue { early: May::No, .. } if is_here && !missing.is_empty() => {
                for (who, what, command) in self.owed(meaning) {
                    self.add(who, then(&what), &command).by.clone_from(&by);
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

    /// Who takes an owed step, and how; nothing where something else says it, or where there is nothing to do it for.
    fn owed(&self, step: Meaning) -> Vec<(Actor, String, String)> {
        let progress = self.situation.progress;
        let one = |who, what: &str, command: &str| vec![(who, what.to_owned(), command.to_owned())];
        match step {
            Meaning::Confirm => {
                let known: Vec<&str> = self.situation.mechanisms.iter().map(MechanismId::as_str).collect();
                let what = format!(
                    "Confirm the Compromise, or the suspicion of one, by a permitted mechanism ({})",
                    known.join(", ")
                );
                one(
                    Actor::Dcc,
                    &what,
                    "smkictl incident confirm INCIDENT --mechanism MECHANISM --certainty CERTAINTY --evidence 'WHAT WAS SEEN'",
                )
            }
            Meaning::Assess => one(
                Actor::Dcc,
                "Assess: the Relevant Devices with evidence, and the method proposed",
                "smkictl incident assess INCIDENT --method METHOD --targets TARGETS.csv",
            ),
            Meaning::SubmitNotification => {
                let (who, kind, what) = match progress.class() {
                    CompromiseClass::Organisation => (
                        Actor::Subscriber,
                        "organisation-notification",
                        "Submit the signed Organisation Compromise Notification File",
                    ),
                    CompromiseClass::Other => {
                        (Actor::Dcc, "other-notification", "Submit the signed Other Compromise Notification File")
                    }
                };
                let command = format!(
                    "smkictl file submit INCIDENT --kind {kind} NOTIFICATION.csv --signature NOTIFICATION.csv.p7s"
                );
                one(who, what, &command)
            }
            Meaning::SetRecovery => one(
                Actor::Dcc,
                "Set the SMI Status of every target to 'recovery', and record it; only the Recovery or Contingency Private Key \
                 brings a Device back from there",
                SET_RECOVERY,
            ),
            Meaning::SubmitThresholds => {
                one(Actor::Subscriber, "Submit the signed Anomaly Detection Thresholds file", SUBMIT_THRESHOLDS)
            }
            Meaning::Refer => one(
                Actor::Dcc,
                "Refer the incident to the SMKI PMA",
                &format!("smkictl incident refer INCIDENT --notification {}", self.file()),
            ),
            Meaning::Determine => vec![
                (
                    Actor::Pma,
                    "Determine, under the SMKI Recovery Key Guidance, whether recovery is executed, and with which key"
                        .into(),
                    String::new(),
                ),
                (
                    Actor::Pma,
                    "Each member: look at the document whole, compare its words with another member, sign it".into(),
                    "smkictl determination sign ID.json --key KEY.pem --certificate CERTIFICATE.pem --member MEMBER"
                        .into(),
                ),
                (
                    Actor::Dcc,
                    "Then record it, with every signature that lies beside it (to execute: with its list of Devices)"
                        .into(),
                    "smkictl determination record ID.json --devices ID.devices.txt".into(),
                ),
            ],
            Meaning::Prepare => one(
                Actor::Dcc,
                "Record that everything is prepared: list, certificates and templates compared",
                "smkictl incident prepare INCIDENT --note 'WHAT WAS COMPARED, BY WHOM'",
            ),
            Meaning::ActivateKey | Meaning::Execute | Meaning::SetRecovered | Meaning::HandOver | Meaning::Close => {
                self.owed_to_the_end(step)
            }
            // Owed by nobody in itself, or said beside the profile.
            Meaning::Notify
            | Meaning::Dismiss
            | Meaning::Inform
            | Meaning::SubscriberRecovery
            | Meaning::Pause
            | Meaning::Exclude
            | Meaning::Finish
            | Meaning::ReportProgress
            | Meaning::SetStatus
            | Meaning::ImportStatuses
            | Meaning::BeginPostRecovery
            | Meaning::AcceptStranded => Vec::new(),
        }
    }

    /// The same from the use of the key on.
    fn owed_to_the_end(&self, step: Meaning) -> Vec<(Actor, String, String)> {
        let (counts, progress) = (self.situation.counts, self.situation.progress);
        let one = |who, what: &str, command: &str| vec![(who, what.to_owned(), command.to_owned())];
        match step {
            Meaning::ActivateKey if counts.outstanding > 0 => {
                let key = self.situation.determination.as_ref().and_then(|followed| followed.key.as_ref());
                let key = key.map_or_else(|| "KEY".to_owned(), ToString::to_string);
                let what = match progress.state {
                    State::Paused => {
                        "To go on, activate the key again; then repeat the request under its id, and nothing is signed twice"
                    }
                    _ => "Activate the key of the determination",
                };
                one(Actor::KeyCustodians, what, &format!("smkictl key activate {key} --incident INCIDENT"))
            }
            Meaning::Execute if counts.outstanding > 0 => {
                let what = match progress.state {
                    State::KeyActive => "Sign the recovery commands, and send them".to_owned(),
                    _ => format!("Sign and send: {} are outstanding", counted(counts.outstanding, "target")),
                };
                let command = format!(
                    "smkictl recovery sign --determination {} --devices all --out commands/",
                    self.determination()
                );
                one(Actor::Dcc, &what, &command)
            }
            Meaning::SetRecovered => {
                let proven = counted(counts.proven_not_recovered, "Device");
                let what = format!("Set the SMI Status of {proven}, proven recovered, to 'recovered', and record it");
                one(
                    Actor::Dcc,
                    &what,
                    "smkictl incident devices INCIDENT | grep ',Recovery,[^,]*,recovered,' | cut -d, -f1 > proven.txt && \
                     smkictl incident set-status INCIDENT recovered --from DATE --devices proven.txt",
                )
            }
            Meaning::HandOver => {
                let (waiting, are) =
                    (counts.under_dcc_control, if counts.under_dcc_control == 1 { "is" } else { "are" });
                let what =
                    format!("{} {are} under the DCC's control: take them back (SRV 6.21)", counted(waiting, "Device"));
                vec![
                    (Actor::Subscriber, what, String::new()),
                    (
                        Actor::Dcc,
                        "Record the handover".into(),
                        "smkictl incident hand-over INCIDENT --evidence 'WHAT PROVES IT'".into(),
                    ),
                ]
            }
            Meaning::Close => {
                one(Actor::Dcc, "Close the incident", "smkictl incident close INCIDENT --reason 'WHAT CAME OF IT'")
            }
            _ => Vec::new(),
        }
    }

    /// What a clause relieves of for a time, and what may be done all the same.
    fn relieved(&mut self, step: Meaning, by: Option<Box<str>>) {
        let todo = match step {
            Meaning::SetRecovery => self.may(
                Actor::Dcc,
                "The SMI Status need not be set to 'recovery' yet; whoever sets it all the same gives the reason",
                &format!("{SET_RECOVERY} --reason 'WHY NOW'"),
            ),
            Meaning::SubmitThresholds => self.may(
                Actor::Subscriber,
                "The Anomaly Detection Thresholds file need not be submitted yet, and may be",
                SUBMIT_THRESHOLDS,
            ),
            _ => return,
        };
        todo.by = by;
    }

    /// What is to be done beside the steps that the profile owes.
    fn beside(&mut self) {
        let (state, outstanding) = (self.progress().state, self.situation.counts.outstanding);
        match state {
            State::Assessed if self.progress().method == Some(Method::SubscriberKey) => {
                self.add(
                    Actor::Dcc,
                    "Method 1: record that the Subscriber recovers with its own key",
                    "smkictl incident subscriber-recovery INCIDENT --note 'WHAT WAS AGREED'",
                );
            }
            State::Assessed | State::Referred if self.progress().method == Some(Method::Contingency) => {
                self.may(
                    Actor::Dcc,
                    "Have the next generation ready: a determination by the Contingency route names another contingency key, made at a \
                     ceremony, with a Root OCA Certificate that carries it",
                    "",
                );
            }
            State::SubscriberRecovery => {
                self.may(
                    Actor::Subscriber,
                    "Recover with the Subscriber's own key: nothing of it is signed here (Method 1)",
                    "",
                );
                self.may(
                    Actor::Subscriber,
                    "Report how it goes, by a signed Organisation Compromise Recovery Progress File",
                    &submit_progress("PROGRESS.csv"),
                );
            }
            State::DeterminedToExecute
                if self.situation.determination.as_ref().is_some_and(|followed| !followed.has_scope) =>
            {
                self.add(
                    Actor::Pma,
                    "Settle the scope by a schedule: templates with the replacement certificates, Devices, limits",
                    "smkictl determination draft --type schedule --from SCHEDULE.toml",
                );
            }
            State::Prepared if outstanding == 0 => {
                let what = "Every target was left out, and nothing is to be signed: withdraw the determination";
                self.add(Actor::Pma, what, "smkictl determination draft --type withdrawal --from WITHDRAWAL.toml");
            }
            State::KeyActive if outstanding == 0 => {
                let what = "Every target was left out, and nothing is to be signed: pause, then record that all came to an end";
                self.add(Actor::Dcc, what, PAUSE);
            }
            State::Executing | State::Paused if outstanding == 0 => {
                self.add(
                    Actor::Dcc,
                    "Record that every target came to an end",
                    "smkictl incident finish INCIDENT --note 'WHAT WAS CHECKED'",
                );
            }
            State::Executing | State::Paused => self.answers(),
            State::Executed => {
                self.report();
                let begin = self.situation.demand(&Meaning::BeginPostRecovery.id());
                let waits = begin.is_some_and(|begin| begin.missing.contains(&Meaning::ReportProgress.id()));
                if waits {
                    self.add(
                        Actor::Subscriber,
                        "Submit that file, signed: none was since every target came to an end",
                        &submit_progress("progress.csv"),
                    )
                    .by = Some("step begin-post-recovery".into());
                }
                let what = "Begin Post-Recovery";
                let what = if waits { then(what) } else { what.to_owned() };
                let command = "smkictl incident begin-post-recovery INCIDENT --note 'WHAT WAS CHECKED'";
                self.add(Actor::Dcc, what, command);
            }
            State::PostRecovery => self.report(),
            State::Reported
            | State::Confirmed
            | State::Assessed
            | State::Referred
            | State::DeterminedNotToExecute
            | State::DeterminedToExecute
            | State::Prepared
            | State::KeyActive
            | State::Dismissed
            | State::Withdrawn
            | State::Closed => {}
        }
    }

    /// The Devices' Responses, and what follows from them.
    fn answers(&mut self) {
        let command = format!(
            "smkictl recovery responses ANSWERS.hex --certificates DEVICE-CERTIFICATES/ --determination {}",
            self.determination()
        );
        self.add(Actor::Dcc, "Take the Devices' Responses in", &command).by = Some("step execute".into());
        let failed = self.situation.counts.failed;
        if failed > 0 {
            let what = format!(
                "{} answered that they failed: leave out those whose failure is final",
                counted(failed, "Device")
            );
            self.may(
                Actor::Dcc,
                what,
                "smkictl incident exclude INCIDENT --devices FAILED.txt --reason 'WHY IT IS FINAL'",
            );
        }
    }

    fn report(&mut self) {
        let what = "Make the Recovery Progress File for the Subscriber and the SMKI PMA";
        let command = "smkictl file progress INCIDENT --out progress.csv";
        self.may(Actor::Dcc, what, command).by = Some("step report-progress".into());
    }

    fn stranded(&mut self) {
        let may_close = places(Meaning::Close).contains(&self.progress().state);
        let left = self.situation.counts.to_accept().filter(|left| self.progress().stranded_accepted != Some(*left));
        let Some(Accepted { stranded, overridden }) = left.filter(|_| may_close) else { return };
        let (and, option) = match overridden {
            0 => (String::new(), String::new()),
            count => (
                format!(", and the {} that left 'recovery' without proof", counted(count, "Device")),
                format!(" --overridden {count}"),
            ),
        };
        let what = format!(
            "Report the {}{and} (`smkictl incident devices` lists them), and record who accepted it",
            counted(stranded, "stranded Device")
        );
        let command = format!(
            "smkictl incident accept-stranded INCIDENT --count {stranded}{option} --reason 'WHO ACCEPTED IT, AND WHY'"
        );
        self.add(Actor::Dcc, what, &command);
    }

    /// What may be done in another direction than the one above.
    fn or_else(&mut self) {
        match self.progress().state {
            State::Reported => {
                self.may(
                    Actor::Dcc,
                    "Or, if it is none, dismiss it once everybody is informed",
                    "smkictl incident dismiss INCIDENT --reason 'WHY'",
                );
            }
            State::Assessed if self.progress().method == Some(Method::SubscriberKey) => {
                self.may(
                    Actor::Dcc,
                    "Or assess again: by another method the SMKI PMA determines",
                    "smkictl incident assess INCIDENT --method METHOD --targets TARGETS.csv",
                );
            }
            State::Referred => {
                self.may(
                    Actor::Dcc,
                    "Draft for the SMKI PMA what it is to determine; `smkictl determination draft --sample` prints what to fill in",
                    "smkictl determination draft --from DRAFT.toml",
                );
            }
            State::DeterminedNotToExecute => {
                let command =
                    format!("smkictl incident refer INCIDENT --notification {} --new-facts 'WHAT IS NEW'", self.file());
                self.may(Actor::Dcc, "Or, with new facts, refer it to the SMKI PMA again", &command);
            }
            State::KeyActive | State::Executing if self.situation.counts.outstanding > 0 => {
                self.may(
                    Actor::Dcc,
                    "If something looks wrong, pause: the key is locked before the next signature",
                    PAUSE,
                );
            }
            _ => {}
        }
    }
}

const SET_RECOVERY: &str = "smkictl incident set-status INCIDENT recovery --from DATE --acknowledge-one-way";
const SUBMIT_THRESHOLDS: &str = "smkictl file submit INCIDENT --kind adt THRESHOLDS.csv --signature THRESHOLDS.csv.p7s";
const PAUSE: &str = "smkictl incident pause INCIDENT --reason 'WHY'";

fn submit_progress(file: &str) -> String {
    format!("smkictl file submit INCIDENT --kind organisation-progress {file} --signature {file}.p7s")
}

/// The limit of a step: so many hours after the last of those before it.
fn due(demand: &Demand<'_>, progress: &Progress) -> Option<Timestamp> {
    let hours = demand.step.hours?;
    let since = demand.step.after.iter().filter_map(|step| progress.done.get(step)).map(|taken| taken.at).max()?;
    Some(since.plus_ms(i64::from(hours) * 3_600_000))
}

/// "Then " before what waits for something above it.
fn then(what: &str) -> String {
    let mut letters = what.chars();
    let first = letters.next().map(|first| first.to_lowercase().to_string()).unwrap_or_default();
    format!("Then {first}{}", letters.as_str())
}
