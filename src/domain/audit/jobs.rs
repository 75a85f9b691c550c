//! Pure. Jobs decided again: started where signing was permitted, stopped and let go on by whom and when that was possible, and
//! nothing signed for one while it stood still.

use super::documents::{Again, permitted};
use super::{Audit, Permitted, demand, text};
use crate::domain::fold::jobs::{JobFacts, JobState};
use crate::domain::intake::jobs::{self, ListReader, Room};
use crate::domain::ledger::entry::{Entry, JobEnded, JobPassed, JobStarted, Reason};
use crate::domain::ledger::jobs::JobTally;
use crate::domain::names::{DeviceId, RequestId};
use crate::domain::policy::rules::{self, Refusal};

impl Again<'_> {
    pub(super) fn check_job(&self, started: &JobStarted, entry: &Entry) -> Permitted {
        let JobStarted { request, asked, incident, determination: id, key, list, per_hour: _, reason: _ } = started;
        permitted(jobs::may_start(self.fold, started))?;
        let known = self.book.request(*request).map_err(text)?;
        demand(known.is_some_and(|known| known.asked == *asked), || {
            format!("no batch of request {request} stands before it that asks for the same")
        })?;
        let facts = self.facts(entry, *id)?;
        let determination = facts.determination.ok_or_else(|| format!("no determination {id} was recorded before"))?;
        demand(determination.incident == *incident, || {
            format!("determination {id} is of incident {}, the job of {incident}", determination.incident)
        })?;
        demand(determination.key.as_ref().is_some_and(|(label, _)| label == key), || {
            format!("key {key} is not the one that determination {id} requires")
        })?;
        permitted(
            rules::decide_batch(&facts)
                .map_err(|refusals| refusals.iter().map(Refusal::reason).collect::<Vec<Reason>>()),
        )?;
        let Some(list) = list else { return Ok(()) };
        let mut reader = ListReader::default();
        self.evidence.stream(list.sha256, &mut |piece| reader.feed(piece, |_| ())).map_err(text)?;
        let found = reader.finish().map_err(|faults| format!("job list {}: {faults}", list.sha256))?;
        demand(found == list.devices, || {
            format!("job list {}: expected {} lines, found {found}", list.sha256, list.devices)
        })
    }

    pub(super) fn check_passed(&self, passed: &JobPassed, entry: &Entry) -> Permitted {
        let JobPassed { request, until, already, refused, rules: _, first } = passed;
        let job = self.running(*request)?;
        demand(job.by.account == entry.by.account, || {
            format!("job {request} was started by {}, and this is of {}", job.by.account, entry.by.account)
        })?;
        demand(Some(*until) >= job.position, || format!("job {request} was beyond Device {until} already"))?;
        demand(already + refused > 0 && first.len() as u64 <= *refused, || {
            "expected Devices that were refused or had a command, and no more told than counted".into()
        })
    }

    pub(super) fn check_job_ended(&self, ended: &JobEnded) -> Permitted {
        let JobEnded { request, tally, why } = ended;
        let job = self.running(*request)?;
        demand(job.tally == *tally, || {
            let say = |tally: &JobTally| serde_json::to_string(tally).unwrap_or_else(|error| error.to_string());
            format!("job {request}: expected the tally {}, found {}", say(&job.tally), say(tally))
        })?;
        let total = jobs::total(self.fold, job);
        demand(!why.is_empty() || total == Some(tally.done()), || {
            format!(
                "job {request} came to {} of {} Devices, and nothing says why it ended",
                tally.done(),
                total.unwrap_or(0)
            )
        })
    }

    /// An intent of a job is recorded while it runs, and within its own limit of an hour.
    pub(super) fn check_in_job(&self, request: RequestId, entry: &Entry) -> Permitted {
        if !self.fold.jobs().contains_key(&request) {
            return Ok(());
        }
        let job = self.running(request)?;
        demand(matches!(jobs::room(self.fold, job, entry.at), Room::Intents(1..)), || {
            format!("job {request} had no room left by its limits")
        })
    }

    fn running(&self, request: RequestId) -> Result<&JobFacts, String> {
        let job = self.fold.jobs().get(&request).ok_or_else(|| format!("no job {request} was started before"))?;
        demand(job.state == JobState::Running, || format!("job {request} was not running"))?;
        Ok(job)
    }
}

impl Audit<'_> {
    /// What a job's own list has: eight octets for each Device.
    pub(super) fn keep_list(&mut self, started: &JobStarted) -> Permitted {
        let Some(list) = started.list else { return Ok(()) };
        let (mut reader, mut devices) = (ListReader::default(), Vec::new());
        let mut feed = |piece: &[u8]| reader.feed(piece, |device| devices.push(device));
        self.evidence.stream(list.sha256, &mut feed).map_err(text)?;
        self.job_lists.insert(started.request, devices);
        Ok(())
    }

    /// A job that names its Devices signs for no other.
    pub(super) fn check_listed(&self, request: RequestId, device: DeviceId) -> Permitted {
        let is_named = self.job_lists.get(&request).is_none_or(|devices| devices.binary_search(&device).is_ok());
        demand(is_named, || format!("the list of job {request} does not name Device {device}"))
    }
}
