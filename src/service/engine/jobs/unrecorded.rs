//! Shell: what an operator said of a job while nothing could be recorded. It stands at once, and over a restart: until the ledger has it, it
//! lies in a file of its own, which is durable before the operator is answered, and the job is held.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::{Stop, may_act};
use crate::domain::fold::jobs::JobState;
use crate::domain::ledger::entry::{Actor, Role};
use crate::domain::names::RequestId;
use crate::durable_file;
use crate::recorder::{CannotRecord, Recorder};

/// Where the files lie, in the state directory.
const FOLDER: &str = "unrecorded-stops";

/// The longest file that is one of ours: a pause and a cancellation, each with its reason.
const FILE_LEN_MAX: u64 = 64 * 1024;

/// That an operator stopped a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Said {
    pub(super) by: Actor,
    pub(super) stop: Stop,
    pub(super) reason: String,
    /// The size of the ledger then, with what was queued: what came later was said after it.
    pub(super) size: u64,
}

/// A job that is held.
#[derive(Default)]
struct Hold {
    /// Read before each chunk.
    held: Arc<AtomicBool>,
    /// What is still to be recorded, the first first.
    said: Vec<Said>,
    /// Why it is held until an operator lets it go on, if nothing of it can be recorded.
    stuck: Option<String>,
}

/// The jobs that are held.
pub(super) struct Holds {
    folder: PathBuf,
    all: Mutex<BTreeMap<RequestId, Hold>>,
    /// Whoever writes a file.
    writing: Mutex<()>,
}

/// What became of what was said.
pub(super) enum Told {
    /// It is recorded.
    Recorded,
    /// Something that came later, or came to the same, took its place.
    Needless,
    /// It cannot be recorded: why.
    NotPermitted(String),
}

impl Holds {
    /// As the files of a state directory say, of before this start.
    ///
    /// # Errors
    /// The folder cannot be read: then nobody can tell what is to stand still.
    pub(super) fn open(state: &std::path::Path) -> io::Result<Self> {
        let folder = state.join(FOLDER);
        let mut all = BTreeMap::new();
        let files = match fs::read_dir(&folder) {
            Ok(files) => Some(files),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        for file in files.into_iter().flatten() {
            let path = file?.path();
            // Half of one that was being written when the power went lies beside, and was not answered for.
            let Some(request) = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok()) else { continue };
            if path.extension().is_none_or(|ending| ending != "json") {
                continue;
            }
            let read = durable_file::read(&path, FILE_LEN_MAX)
                .and_then(|octets| Ok(serde_json::from_slice::<Vec<Said>>(&octets.unwrap_or_default())?));
            let mut hold = Hold { held: Arc::new(AtomicBool::new(true)), ..Hold::default() };
            match read {
                Ok(said) if !said.is_empty() => hold.said = said,
                Ok(_) => hold.stuck = Some(format!("{} says nothing", path.display())),
                Err(error) => hold.stuck = Some(format!("{} cannot be read ({error})", path.display())),
            }
            tracing::warn!(job = %request, "held: an operator stopped it, which is not recorded yet");
            all.insert(request, hold);
        }
        Ok(Self { folder, all: Mutex::new(all), writing: Mutex::default() })
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<RequestId, Hold>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, request: RequestId) -> PathBuf {
        self.folder.join(format!("{request}.json"))
    }

    /// What is read before each chunk of a job.
    pub(super) fn of(&self, request: RequestId) -> Arc<AtomicBool> {
        Arc::clone(&self.all().entry(request).or_default().held)
    }

    /// Nobody runs it any more.
    pub(super) fn forget(&self, request: RequestId) {
        let mut all = self.all();
        if all.get(&request).is_some_and(|hold| !hold.held.load(Ordering::SeqCst)) {
            all.remove(&request);
        }
    }

    pub(super) fn is_held(&self, request: RequestId) -> bool {
        self.all().get(&request).is_some_and(|hold| hold.held.load(Ordering::SeqCst))
    }

    /// Why a job stands still, if it is held.
    pub(super) fn why(&self, request: RequestId) -> Option<String> {
        let all = self.all();
        let hold = all.get(&request).filter(|hold| hold.held.load(Ordering::SeqCst))?;
        Some(hold.stuck.as_ref().map_or_else(
            || "an operator stopped it, which is not recorded yet".to_owned(),
            |why| {
                format!(
                    "an operator stopped it, which cannot be recorded: {why}; `smkictl recovery resume` lets it go on"
                )
            },
        ))
    }

    /// The jobs of which something is to be recorded.
    pub(super) fn to_tell(&self) -> Vec<(RequestId, Said)> {
        let all = self.all();
        all.iter().filter_map(|(request, hold)| Some((*request, hold.said.first()?.clone()))).collect()
    }

    /// Holds a job from now on. Whether it is to be told to the ledger: not where that is under way, which takes this up too.
    pub(super) fn hold(&self, request: RequestId, said: Said) -> bool {
        let mut all = self.all();
        let hold = all.entry(request).or_default();
        hold.held.store(true, Ordering::SeqCst);
        // What can never be recorded gives way to what may be.
        if hold.stuck.take().is_some() {
            hold.said.clear();
        }
        let is_told = !hold.said.is_empty();
        // The same again, or less than was said, says nothing new.
        if !hold.said.iter().any(|before| before.stop == said.stop || before.stop == Stop::Cancel) {
            hold.said.push(said);
        }
        !is_told
    }

    /// Makes what is to be recorded of a job durable.
    pub(super) fn keep(&self, request: RequestId) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let said = self.all().get(&request).map(|hold| hold.said.clone()).unwrap_or_default();
        if said.is_empty() {
            return durable_file::remove(&self.path(request));
        }
        durable_file::replace(&self.path(request), &serde_json::to_vec(&said)?)
    }

    /// The ledger has the first of it: what comes next. The job is held no longer once there is nothing.
    pub(super) fn told(&self, request: RequestId) -> Option<Said> {
        let mut all = self.all();
        let hold = all.get_mut(&request)?;
        if !hold.said.is_empty() {
            hold.said.remove(0);
        }
        if hold.said.is_empty() {
            hold.held.store(false, Ordering::SeqCst);
        }
        hold.said.first().cloned()
    }

    /// What was said first can never be recorded: what was said after it, which is held to. None if nothing was.
    pub(super) fn passed_over(&self, request: RequestId) -> Option<Said> {
        let mut all = self.all();
        let said = &mut all.get_mut(&request)?.said;
        if said.len() < 2 {
            return None;
        }
        said.remove(0);
        said.first().cloned()
    }

    /// It stays held, whatever the ledger says, until an operator lets it go on.
    pub(super) fn stick(&self, request: RequestId, why: String) {
        if let Some(hold) = self.all().get_mut(&request) {
            hold.stuck = Some(why);
        }
    }

    /// Whether it is held for good, until an operator lets it go on.
    pub(super) fn is_stuck(&self, request: RequestId) -> bool {
        self.all().get(&request).is_some_and(|hold| hold.stuck.is_some())
    }

    /// An operator lets it go on.
    pub(super) fn let_go(&self, request: RequestId) -> io::Result<()> {
        if let Some(hold) = self.all().get_mut(&request) {
            (hold.stuck, hold.said) = (None, Vec::new());
            hold.held.store(false, Ordering::SeqCst);
        }
        self.keep(request)
    }
}

/// Records what was said of a job, as it can be recorded now: whoever can write to the disk could have put it there, something may have come
/// later, and whoever said it may have lost the right to.
pub(super) fn tell(recorder: &mut Recorder, request: RequestId, said: Said) -> Result<Told, CannotRecord> {
    let Said { by: then, stop, reason, size } = said;
    let by = recorder.known(then.clone());
    let fold = recorder.fold();
    let Some(job) = fold.jobs().get(&request) else { return Ok(Told::Needless) };
    let is_resumed_since = job.resumed.is_some_and(|entry| entry >= size);
    let comes_to_the_same = stop == Stop::Pause && matches!(job.state, JobState::Paused(_));
    if job.state.is_over() || is_resumed_since || comes_to_the_same {
        return Ok(Told::Needless);
    }
    if by.person != then.person || by.role != Role::Operator {
        return Ok(Told::NotPermitted(format!("account {} is another's now, or no operator's", by.account)));
    }
    let reasons = |reasons: Vec<crate::domain::ledger::entry::Reason>| {
        reasons.iter().map(|reason| reason.text.to_string()).collect::<Vec<_>>().join("; ")
    };
    if let Err(refused) = may_act(fold, &by, request) {
        return Ok(Told::NotPermitted(reasons(refused)));
    }
    match stop.decide(fold, &by, request, &reason) {
        Ok(event) => recorder.queue(&by, event).map(|_| Told::Recorded),
        Err(refused) => Ok(Told::NotPermitted(reasons(refused))),
    }
}

#[cfg(test)]
mod tests;
