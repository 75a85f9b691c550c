//! Pure. Who recorded an entry, and by which clock.

use super::documents::{Again, permitted};
use super::{Permitted, demand};
use crate::domain::intake;
use crate::domain::ledger::entry::{ClockState, Entry, Event, Role};
use crate::domain::names::{IncidentId, Purpose, RequestId};

impl Again<'_> {
    /// What the entry calls its clock is what it can be.
    pub(super) fn check_clock(&self, entry: &Entry) -> Permitted {
        let Entry { v: _, at: _, clock, by: _, event } = entry;
        demand(!self.fold.clock_untrusted() || *clock == ClockState::Untrusted, || {
            "it calls the clock trusted, which jumped and was not accepted since".into()
        })?;
        let purpose = if let Event::Genesis(genesis) = event { Some(genesis.purpose) } else { self.fold.purpose() };
        demand(*clock != ClockState::SetForExercise || purpose == Some(Purpose::Exercise), || {
            "its clock was set for an exercise, and this ledger is live".into()
        })
    }

    /// Whoever asked may ask for this, and is the person whom the policy in force maps the account to: the rules of
    /// separation look at the person.
    pub(super) fn check_actor(&self, entry: &Entry) -> Permitted {
        let Entry { v: _, at: _, clock: _, by, event } = entry;
        let first_policy = self.fold.policy().is_none();
        let roles: &[Role] = match event {
            Event::Genesis(_)
            | Event::CertificationIntent(_)
            | Event::CertificateImported(_)
            | Event::KeyCopied(_)
            | Event::SharesBegun(_)
            | Event::SharesDealt(_)
            | Event::KeyMade(_)
            | Event::KeyDestruction(_)
            | Event::KeyDestroyed(_)
            | Event::ContingencyPrepared(_)
            | Event::RootImported(_)
            | Event::CeremonyRecorded(_) => &[Role::Ceremony],
            Event::PolicyAdopted(_) if first_policy => &[Role::Ceremony],
            Event::IncidentOpened(_)
            | Event::StepTaken(_)
            | Event::IncidentClosed(_)
            | Event::Settled(_)
            | Event::ClockAccepted(_)
            | Event::ResponsesTaken(_)
            | Event::DeviceCertificatesImported(_)
            | Event::SigningResumed(_)
            | Event::LoginRetried(_)
            | Event::JobStarted(_)
            | Event::JobPassed(_)
            | Event::JobPaused(_)
            | Event::JobResumed(_)
            | Event::JobCancelled(_)
            | Event::SymmetricKeySpent(_)
            | Event::SymmetricRelease(_)
            | Event::ExerciseRecorded(_) => &[Role::Operator],
            Event::TokenHealth(_) | Event::JobEnded(_) | Event::Snapshot(_) | Event::SymmetricReleased(_) => {
                &[Role::Daemon]
            }
            // What nobody signed stands on the operator who brought it.
            Event::FileAccepted(accepted) if accepted.signature.is_none() => &[Role::Operator],
            Event::KeyActivated(_) | Event::KeyLocked(_) | Event::ContingencyChecked(_) => {
                &[Role::Operator, Role::Daemon]
            }
            // Signed documents may come from anyone, whatever is refused likewise; the rules ask about batches, intents and
            // releases themselves; and the rest says what the daemon saw.
            Event::PolicyAdopted(_)
            | Event::CustodianPresented(_)
            | Event::DeterminationRecorded(_)
            | Event::ScheduleRecorded(_)
            | Event::DeterminationSuspended(_)
            | Event::DeterminationWithdrawn(_)
            | Event::FileAccepted(_)
            | Event::DirectionRecorded(_)
            | Event::Batch(_)
            | Event::Intent(_)
            | Event::Outcome(_)
            | Event::Released(_)
            | Event::Refused(_)
            | Event::RefusalsFolded(_)
            | Event::Started(_)
            | Event::Stopped(_)
            | Event::ClockJumped(_) => &[],
        };
        demand(roles.is_empty() || roles.contains(&by.role), || {
            let expected: Vec<String> = roles.iter().map(ToString::to_string).collect();
            format!("expected it to be asked for by {}, found {}", expected.join(" or "), by.role)
        })?;
        if let Event::ClockAccepted(_) | Event::ExerciseRecorded(_) | Event::DeviceCertificatesImported(_) = event {
            permitted(intake::person(self.fold, by))?;
        }
        let must_be_named = matches!(
            event,
            Event::Batch(_)
                | Event::Intent(_)
                | Event::Released(_)
                | Event::StepTaken(_)
                | Event::SigningResumed(_)
                | Event::JobStarted(_)
                | Event::JobPassed(_)
                | Event::JobPaused(_)
                | Event::JobResumed(_)
                | Event::JobCancelled(_)
                | Event::SymmetricKeySpent(_)
                | Event::SymmetricRelease(_)
        );
        // Refusals are counted in the name of whoever had them first, under the policy of then.
        if matches!(event, Event::RefusalsFolded(_)) || (by.person.is_none() && !must_be_named) {
            return Ok(());
        }
        let expected = self.fold.person_of_account(&by.account);
        demand(by.person == expected, || {
            let say = |person: &Option<_>| person.as_ref().map_or_else(|| "nobody".into(), ToString::to_string);
            let (expected, found) = (say(&expected), say(&by.person));
            format!("the policy maps account {} to {expected}; found {found}", by.account)
        })
    }

    /// Whoever acted in an incident as its operator took no other part in it. The rules ask about batches and activations
    /// themselves.
    pub(super) fn check_part(&self, entry: &Entry) -> Permitted {
        match self.operated_on(&entry.event) {
            Some(incident) => permitted(intake::operator(self.fold, &entry.by, incident)),
            None => Ok(()),
        }
    }

    /// The incident in which an entry is an operator's act.
    fn operated_on<'a>(&'a self, event: &'a Event) -> Option<&'a IncidentId> {
        let of_job = |request: RequestId| self.fold.jobs().get(&request).map(|job| &job.incident);
        match event {
            Event::IncidentOpened(entry) => Some(&entry.incident),
            Event::StepTaken(entry) => Some(&entry.incident),
            Event::IncidentClosed(entry) => Some(&entry.incident),
            Event::ResponsesTaken(entry) => Some(&entry.incident),
            Event::SigningResumed(entry) => Some(&entry.incident),
            Event::FileAccepted(entry) if entry.signature.is_none() => Some(&entry.incident),
            Event::Settled(entry) => self.fold.determinations().get(&entry.determination).map(|facts| &facts.incident),
            Event::JobPaused(entry) => of_job(entry.request),
            Event::JobResumed(entry) => of_job(entry.request),
            Event::JobCancelled(entry) => of_job(entry.request),
            // The rules of its batch ask about who starts one, and about its intents.
            Event::JobStarted(_)
            | Event::JobPassed(_)
            | Event::JobEnded(_)
            | Event::SymmetricKeySpent(_)
            | Event::SymmetricRelease(_)
            | Event::SymmetricReleased(_)
            | Event::ContingencyChecked(_)
            | Event::ContingencyPrepared(_)
            | Event::RootImported(_)
            | Event::FileAccepted(_)
            | Event::KeyCopied(_)
            | Event::SharesBegun(_)
            | Event::SharesDealt(_)
            | Event::CustodianPresented(_)
            | Event::KeyMade(_)
            | Event::KeyDestruction(_)
            | Event::KeyDestroyed(_)
            | Event::CeremonyRecorded(_)
            | Event::KeyActivated(_)
            | Event::Batch(_)
            | Event::Genesis(_)
            | Event::PolicyAdopted(_)
            | Event::CertificationIntent(_)
            | Event::CertificateImported(_)
            | Event::Started(_)
            | Event::Stopped(_)
            | Event::DeterminationRecorded(_)
            | Event::ScheduleRecorded(_)
            | Event::DeterminationSuspended(_)
            | Event::DeterminationWithdrawn(_)
            | Event::DirectionRecorded(_)
            | Event::KeyLocked(_)
            | Event::Intent(_)
            | Event::Outcome(_)
            | Event::Released(_)
            | Event::Refused(_)
            | Event::RefusalsFolded(_)
            | Event::ClockJumped(_)
            | Event::TokenHealth(_)
            | Event::LoginRetried(_)
            | Event::Snapshot(_)
            | Event::ClockAccepted(_)
            | Event::DeviceCertificatesImported(_)
            | Event::ExerciseRecorded(_) => None,
        }
    }
}
