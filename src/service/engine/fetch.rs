//! Shell: the commands of a request once more, each made again from its template, Device, counter and kept signature.
//!
//! A thread of its own walks the request's intents in the order of the ledger, a page at a time, and makes the commands of it; meanwhile the
//! release of the page before is recorded, and its commands go out. Nothing is kept but what the commands of a page are made of, and the
//! intents that wait for their outcome: the commands themselves are four megabytes a page, and there may be three pages.
//!
//! Time per command, beside the socket: two leaves read and hashed, the signature's row, the template filled, now and as it goes out, and SHA-256 over four
//! kilobytes, which is most of it and has to be: what goes out is what the intent says, octet for octet.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::super::keys::Keys;
use super::answers::{self, LINE_LEN, LINES_LEN};
use super::make::Pieces;
use super::{Answer, Daemon, PIECES_MAX, reason, refused};
use crate::api::engine::{Caller, Octets};
use crate::api::failure::Failure;
use crate::api::wire::{self, AnswerWriter, Item, StoppedLine, Summary, SummaryLine};
use crate::domain::certificates::signature::PublicKey;
use crate::domain::commands::pairs::{Pairs, Settled, Step, Whose};
use crate::domain::commands::{self, CommandOctets, container::Header};
use crate::domain::gbcs::{SIGNATURE_PART_LEN, SymmetricKey, Template};
use crate::domain::ledger::entry::{
    Actor, Batch, Entry, Event, Intent, JobCancelled, JobEnded, Reason, Refused, SignResult,
};
use crate::domain::ledger::glance::Glance;
use crate::domain::names::{DeterminationId, DeviceId, Digest, PartyId, RequestId, TemplateName};
use crate::domain::policy::facts::IntentState;
use crate::pipeline::{FETCH, HandOver, Told, ToldOutcome, hand_over, needs_symmetric, not_held};
use crate::recorder::Desk;
use crate::store::sqlite::SqliteReader;
use crate::store::{DerivedState as _, Reader as _, StoreError};

/// Devices of a page: their release is one entry, whose ranges have to fit a leaf whatever lies between them.
const PAGE_MAX: usize = 1_000;

/// Why a command is not there whose signature was recorded.
const NO_SIGNATURE: &str = "the store has not the signature that was recorded: its table `signature` was edited, or the disk is failing; \
     restore from a backup";

/// How long a request that still runs is let come further before more of it is read: each page is one entry.
const FOLLOW_PAUSE: Duration = Duration::from_millis(50);

/// Fetches that go on at a time, beside those that follow. Each reads the ledger, makes commands again and has their release recorded, beside
/// the signing: more of them would take it from the token. No official reference.
const FETCHES_MAX: usize = 4;

/// Fetches that follow at a time. Each has a thread and a connection to the database for as long as what it follows is not over, which may be
/// for days. No official reference.
const FOLLOWS_MAX: usize = 8;

/// When a fetch may be tried again that found no turn.
const TURN_RETRY_AFTER_S: u32 = 10;

/// Turns at fetching. Those that follow have their own: however many wait for something, what was signed can be fetched.
pub(super) struct Turns {
    fetches: Arc<Semaphore>,
    follows: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { fetches: Arc::new(Semaphore::new(FETCHES_MAX)), follows: Arc::new(Semaphore::new(FOLLOWS_MAX)) }
    }
}

impl Turns {
    fn take(&self, follow: bool) -> Answer<OwnedSemaphorePermit> {
        let (turns, most, what, then) = if follow {
            (&self.follows, FOLLOWS_MAX, "fetches with --follow", "or fetch without --follow")
        } else {
            (&self.fetches, FETCHES_MAX, "fetches", "for others are being answered")
        };
        Arc::clone(turns).try_acquire_owned().map_err(|_| Failure::TooMany {
            what: format!("{most} {what} go on at a time, and so many do; come again once one has ended, {then}"),
            retry_after_s: TURN_RETRY_AFTER_S,
        })
    }
}

/// What of a request's commands is wanted, and what they are made of.
struct Wanted {
    request: RequestId,
    determination: DeterminationId,
    header: Header,
    /// The key.
    key: Option<PublicKey>,
    templates: BTreeMap<TemplateName, Arc<Template>>,
    /// Whose certificate the key has; none if none was imported yet.
    originator: Option<PartyId>,
    /// Where the Contingency Symmetric Key is, which belongs into these commands: asked for each, for it goes once the key is locked.
    symmetric: Option<Arc<Keys>>,
    after: Option<u64>,
    devices: Option<Vec<DeviceId>>,
    until: Option<u64>,
    follow: bool,
}

/// One Device of a page.
struct Found {
    /// The intent of this request, by which the order goes.
    place: u64,
    /// The intent that was signed: a further attempt may be another request's.
    signed_as: u64,
    device: DeviceId,
    template: TemplateName,
    counter: u64,
    what: What,
}

enum What {
    /// A command that was made again, and is what its intent says: its signature; and the Contingency Symmetric Key, if that belongs into it.
    Command([u8; 64], Option<SymmetricKey>),
    Told(ToldOutcome),
}

/// What was found together.
#[derive(Default)]
struct Page {
    found: Vec<Found>,
    /// Refusals, which have no intent.
    refused: Vec<Told>,
}

impl Page {
    fn is_empty(&self) -> bool {
        self.found.is_empty() && self.refused.is_empty()
    }

    fn is_full(&self) -> bool {
        self.found.len() + self.refused.len() >= PAGE_MAX
    }
}

impl Daemon {
    /// Hands over the commands of a request that was taken in.
    pub(super) async fn fetch(
        &self,
        caller: &Caller,
        request: RequestId,
        fetch: wire::RecoveryFetch,
        form: wire::Form,
    ) -> Answer<Octets> {
        // What of the ledger it hands over was read by nobody since the start, before.
        self.is_checked().await?;
        let asked = answers::digest_of(&fetch)?;
        let batch = self.look(move |reader| {
            let Some(facts) = reader.request(request)? else { return Ok(None) };
            // Under which determination it is released rests on this.
            Ok(Entry::from_leaf(&reader.leaf_under(facts.first_batch, &reader.head()?)?).ok())
        });
        let Some(Entry { event: Event::Batch(Batch { determination, .. }), .. }) = batch.await? else {
            return Err(Failure::NotFound { what: format!("request {request}") });
        };
        let wire::RecoveryFetch { after, devices, until, follow } = fetch;
        if until.is_some() && devices.is_none() {
            let remedy = "Name the Devices, or ask for all and stop where you like.";
            return Err(Failure::malformed("until", "`devices` beside it", "none", remedy));
        }
        let turn = self.fetches.take(follow)?;
        let (actor, keys) = (caller.actor(), Arc::clone(&self.keys));
        // Nothing is looked for that would not be handed over; the refusal is recorded once.
        let begun = self.change(move |recorder| {
            let by = recorder.known(actor);
            let none = HandOver { by: by.clone(), request, determination, asked, signed: Vec::new() };
            if let Err((reasons, entry)) = hand_over(recorder, none)? {
                return Ok(Err(Failure::Refused { reasons, entry }));
            }
            let fold = recorder.fold();
            let scope = fold.determinations().get(&determination).and_then(|facts| facts.scope.as_ref());
            let Some((header, scope)) = answers::header(fold, determination, request).zip(scope) else {
                return Ok(Err(Failure::Internal { what: "an accepted request has no key or no scope".into() }));
            };
            let symmetric = needs_symmetric(fold, &header.key).then_some(keys);
            if symmetric.as_ref().is_some_and(|keys| keys.symmetric(&header.key).is_none()) {
                let reasons = vec![not_held(&header.key, determination)];
                return refused(recorder, &by, FETCH, asked, (None, Some(determination)), reasons);
            }
            let facts = fold.keys().get(&header.key);
            let originator = fold.policy().and_then(|adopted| facts?.originator(&adopted.policy));
            let key = facts.and_then(|key| PublicKey::from_spki(&key.record.spki_octets()).ok());
            let templates = scope.templates.clone();
            let wanted = Wanted {
                request,
                determination,
                header,
                key,
                templates,
                originator,
                symmetric,
                after,
                devices,
                until,
                follow,
            };
            Ok(Ok((by, wanted)))
        });
        let (by, wanted) = begun.await?;
        let header = wanted.header.clone();
        let has_key = wanted.symmetric.is_some();
        let (templates, originator) = (wanted.templates.clone(), wanted.originator);
        let about = HandOver { by, request, determination, asked, signed: Vec::new() };
        let (pages, found) = mpsc::channel(1);
        let (pieces, octets) = mpsc::channel(PIECES_MAX);
        let turn = Arc::new(turn);
        self.walk(wanted, pages, Arc::clone(&turn))?;
        let (desk, stopping) = (self.desk.clone(), self.stopping.subscribe());
        tokio::spawn(async move {
            let piece = answers::piece(has_key);
            let answer = Handing { desk, about, templates, originator, pieces, piece, summary: Summary::default() };
            answer.run(found, form, header, stopping).await;
            drop(turn);
        });
        Ok(octets)
    }

    /// Walks on a thread of its own, until all was found or nobody takes it.
    fn walk(
        &self,
        wanted: Wanted,
        pages: mpsc::Sender<Result<Page, Ended>>,
        turn: Arc<OwnedSemaphorePermit>,
    ) -> Answer<()> {
        let reader = SqliteReader::open(&self.state)?;
        let mut source = Source {
            request: wanted.request,
            desk: self.desk.clone(),
            grown: self.desk.grown(),
            running: Arc::clone(&self.running),
            runs_ended: self.runs_ended.subscribe(),
            ended: Arc::clone(&self.ended),
            stopping: self.stopping.subscribe(),
            pages: pages.clone(),
            runtime: tokio::runtime::Handle::current(),
        };
        tokio::task::spawn_blocking(move || {
            let send = |page| pages.blocking_send(Ok(page)).map_or(ControlFlow::Break(()), ControlFlow::Continue);
            let mut walk = Walk { reader: &reader, wanted, pending: Pairs::default(), page: Page::default() };
            let walked = match walk.wanted.devices.take() {
                Some(devices) => walk.devices(devices, &send, &source),
                None => walk.all(&send, &mut source),
            };
            let ended = match walked {
                Ok(ended) => ended,
                Err(error) => Ended::Failed(error.into()),
            };
            // Whoever asked may have gone away.
            let _ = pages.blocking_send(Err(ended));
            drop(turn);
        });
        Ok(())
    }
}

/// Where what a walk looks at comes from: whether more comes, and when.
struct Source {
    request: RequestId,
    desk: Desk,
    /// The durable size.
    grown: watch::Receiver<u64>,
    running: Arc<Mutex<BTreeSet<RequestId>>>,
    runs_ended: watch::Receiver<u64>,
    ended: Arc<Mutex<BTreeMap<RequestId, u64>>>,
    stopping: watch::Receiver<bool>,
    pages: mpsc::Sender<Result<Page, Ended>>,
    runtime: tokio::runtime::Handle,
}

impl Source {
    /// Whether the request goes on: it is being run, or it is a job that is not over, whatever it waits for. Nobody can tell once nothing is
    /// recorded any more.
    fn is_running(&mut self) -> Option<bool> {
        // What comes after this is waited for.
        self.grown.mark_unchanged();
        self.runs_ended.mark_unchanged();
        if self.running.lock().unwrap_or_else(PoisonError::into_inner).contains(&self.request) {
            return Some(true);
        }
        let request = self.request;
        let is_open = self
            .desk
            .look(move |recorder| Ok(recorder.fold().jobs().get(&request).is_some_and(|job| !job.state.is_over())));
        self.runtime.block_on(is_open).ok()
    }

    /// Where the ledger ended when the request had come to its end, if it ran since the start.
    fn ended_at(&self) -> Option<u64> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).get(&self.request).copied()
    }

    fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Whether nobody takes more, or the daemon stops.
    fn is_over(&self) -> bool {
        self.is_stopping() || self.pages.is_closed()
    }

    /// Waits until more was recorded, a run ended, the daemon stops, or nobody takes more.
    fn wait(&mut self) -> ControlFlow<()> {
        let Self { grown, runs_ended, stopping, pages, runtime, .. } = self;
        runtime.block_on(async {
            tokio::select! {
                () = pages.closed() => return ControlFlow::Break(()),
                _ = stopping.wait_for(|stopping| *stopping) => return ControlFlow::Continue(()),
                () = tokio::time::sleep(FOLLOW_PAUSE) => {}
            }
            tokio::select! {
                () = pages.closed() => ControlFlow::Break(()),
                _ = stopping.wait_for(|stopping| *stopping) => ControlFlow::Continue(()),
                _ = grown.changed() => ControlFlow::Continue(()),
                _ = runs_ended.changed() => ControlFlow::Continue(()),
            }
        })
    }
}

/// How a walk came to its end.
enum Ended {
    /// All of it.
    Whole,
    /// Not all: why there may be more.
    Stopped(Reason),
    /// Nobody takes more.
    Left,
    /// It failed.
    Failed(Failure),
}

/// What was tried for a Device after an own intent that was not signed.
enum Tried {
    Nothing,
    /// The same octets, by the request itself.
    Again,
    /// Other octets, by the request itself.
    Otherwise,
    /// The same octets, by another request, signed there.
    Signed(u64, Intent),
    /// The same octets, by another request, to no end.
    Further(u64, Intent),
}

struct Walk<'a> {
    reader: &'a SqliteReader,
    wanted: Wanted,
    /// The request's intents that wait for their outcome, or behind one that does.
    pending: Pairs,
    page: Page,
}

/// What is read of a leaf, and worked on when the reading is over: a row that is read meanwhile would be as of its beginning.
enum Seen {
    Step(Step),
    Refused(DeviceId, Vec<Reason>),
    /// No intent of the request comes after it, but in another batch: a start, or the end of its job.
    Ended(u64),
}

/// Leaves that matter and are kept before they are worked on.
const SEEN_MAX: usize = 2_000;

type Send<'s> = dyn Fn(Page) -> ControlFlow<()> + 's;

impl Walk<'_> {
    /// All that the request has, in the order of its intents.
    fn all(&mut self, send: &Send<'_>, source: &mut Source) -> Result<Ended, StoreError> {
        let stopping = || Ok(Ended::Stopped(stopping()));
        let (mut next, mut seen) = (0, Vec::new());
        loop {
            // In this order: what a run recorded before it ended is seen.
            let Some(runs) = source.is_running() else { return stopping() };
            let mut size = self.reader.head()?.size;
            let Some(facts) = self.reader.request(self.wanted.request)? else { return Ok(Ended::Whole) };
            // Whoever has all up to an intent has its outcome, and those of all before. What was unknown or withheld of them is asked for by
            // Device.
            next = next.max(facts.first_batch).max(self.wanted.after.map_or(0, |after| after.saturating_add(1)));
            if let Some(end) = source.ended_at().filter(|_| !runs) {
                size = size.min(end);
            }
            // While it runs, another batch may come any moment.
            let mut over = false;
            while next < size && !(over && !runs && self.pending.is_empty()) {
                self.reader.leaves(next..size, &mut |leaf| {
                    next = leaf.index + 1;
                    seen.extend(self.seen(leaf.index, leaf.octets));
                    if seen.len() < SEEN_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                })?;
                for seen in seen.drain(..) {
                    if let Seen::Ended(at) = seen {
                        over |= facts.last_batch < at;
                    } else if self.work(seen, send)?.is_break() {
                        return Ok(Ended::Left);
                    }
                    if over && !runs && self.pending.is_empty() {
                        break;
                    }
                }
                if source.pages.is_closed() {
                    return Ok(Ended::Left);
                }
                if source.is_stopping() {
                    return stopping();
                }
            }
            if !self.page.is_empty() && send(self.take_page()).is_break() {
                return Ok(Ended::Left);
            }
            if source.is_stopping() {
                return stopping();
            }
            // What has no outcome yet gets one, and commands behind it wait for that: without them it is not whole, whatever runs.
            match (runs || !self.pending.is_empty(), self.wanted.follow) {
                (false, _) => return Ok(Ended::Whole),
                (true, false) => {
                    let text = "the request is still being run; fetch the rest later, or with --follow".to_owned();
                    return Ok(Ended::Stopped(reason("running", text)));
                }
                (true, true) => {
                    if source.wait().is_break() {
                        return Ok(Ended::Left);
                    }
                }
            }
        }
    }

    fn take_page(&mut self) -> Page {
        std::mem::take(&mut self.page)
    }

    /// What matters of a leaf.
    fn seen(&self, index: u64, octets: &[u8]) -> Option<Seen> {
        let glance = Glance::at(octets)?;
        let request = self.wanted.request;
        match glance.kind {
            b"refused" => match glance.read().ok()? {
                Refused { request: Some(of), device: Some(device), reasons, .. } if of == request => {
                    Some(Seen::Refused(device, reasons))
                }
                Refused { .. } => None,
            },
            b"started" => Some(Seen::Ended(index)),
            b"job-ended" => (glance.read::<JobEnded>().ok()?.request == request).then_some(Seen::Ended(index)),
            b"job-cancelled" => (glance.read::<JobCancelled>().ok()?.request == request).then_some(Seen::Ended(index)),
            _ => Step::at(index, &glance).ok()?.map(Seen::Step),
        }
    }

    fn work(&mut self, seen: Seen, send: &Send<'_>) -> Result<ControlFlow<()>, StoreError> {
        match seen {
            Seen::Step(Step::Batch(index, batch)) => {
                let whose = self.whose(&batch);
                self.pending.batch(index, whose, batch.determination);
            }
            Seen::Step(Step::Intent(at, intent)) => {
                if self.is_own(intent.batch)? {
                    self.pending.intent(at, intent, ());
                }
            }
            Seen::Step(Step::Outcome(outcome)) => {
                self.pending.outcome(outcome);
                // One outcome may end the wait of several chunks; a page has no more than its release has room for.
                while let Some(settled) = self.pending.settled() {
                    let Settled { place, intent, result, .. } = settled;
                    self.settle(place, intent, Some(result))?;
                    if self.page.is_full() && send(self.take_page()).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            Seen::Refused(device, reasons) => {
                if !self.has_command(device)? {
                    let outcome = ToldOutcome::Refused(reasons);
                    self.page.refused.push(Told { device, template: None, counter: None, intent: None, outcome });
                }
            }
            Seen::Ended(_) => {}
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Further attempts of other requests are not waited for, which may come at any time: what became of a Device says whether there was one.
    fn whose(&self, batch: &Batch) -> Whose {
        if batch.request == self.wanted.request { Whose::Asked } else { Whose::Elsewhere }
    }

    /// What a batch is to the request, and of which determination it is.
    fn batch(&mut self, index: u64) -> Result<Option<(Whose, DeterminationId)>, StoreError> {
        if self.pending.of(index).is_none() {
            let leaf = self.reader.leaf(index)?;
            if let Some(batch) = Glance::at(&leaf).and_then(|glance| glance.read::<Batch>().ok()) {
                let whose = self.whose(&batch);
                self.pending.batch(index, whose, batch.determination);
            }
        }
        Ok(self.pending.of(index))
    }

    fn is_own(&mut self, batch: u64) -> Result<bool, StoreError> {
        Ok(matches!(self.batch(batch)?, Some((Whose::Asked, _))))
    }

    /// What was tried after an own intent that was not signed.
    fn tried_after(&mut self, at: u64, intent: &Intent) -> Result<Tried, StoreError> {
        let mut tried = Tried::Nothing;
        for later_at in self.reader.intents_of(intent.device)?.into_iter().filter(|later| *later > at) {
            let Some(later) = self.intent(later_at)? else { continue };
            let of = self.batch(later.batch)?;
            let is_own = matches!(of, Some((Whose::Asked, _)));
            // Another determination's key may sign the same octets, which are then another command.
            let is_same = later.command == intent.command
                && of.is_some_and(|(_, determination)| determination == self.wanted.determination);
            tried = match tried {
                _ if is_own && is_same => return Ok(Tried::Again),
                Tried::Signed(at, intent) => Tried::Signed(at, intent),
                // A row alone is nobody's word, but the signature is verified where it is handed over.
                _ if later.attempt > 1 && is_same && self.reader.signature(later_at)?.is_some() => {
                    Tried::Signed(later_at, later)
                }
                _ if is_own => Tried::Otherwise,
                Tried::Otherwise => Tried::Otherwise,
                _ if later.attempt > 1 && is_same => Tried::Further(later_at, later),
                before => before,
            };
        }
        Ok(tried)
    }

    fn intent(&self, at: u64) -> Result<Option<Intent>, StoreError> {
        let leaf = self.reader.leaf(at)?;
        Ok(Glance::at(&leaf).filter(|glance| glance.kind == b"intent").and_then(|glance| glance.read().ok()))
    }

    /// The outcome of an intent, which comes within a chunk or two; none while it is open.
    fn result_of(&self, at: u64) -> Result<Option<SignResult>, StoreError> {
        let mut result = None;
        self.reader.leaves(at..self.reader.head()?.size, &mut |leaf| match Glance::at(leaf.octets)
            .and_then(|glance| Step::at(leaf.index, &glance).ok().flatten())
        {
            Some(Step::Outcome(outcome)) if outcome.intent == at => {
                result = Some(outcome.result);
                ControlFlow::Break(())
            }
            Some(_) | None => ControlFlow::Continue(()),
        })?;
        Ok(result)
    }

    fn has_command(&self, device: DeviceId) -> Result<bool, StoreError> {
        let last = self.reader.device(&self.wanted.header.key, device)?;
        Ok(last
            .is_some_and(|last| last.determination == self.wanted.determination && last.state == IntentState::Signed))
    }

    /// What became of an own intent: told once for each command, and of what was not signed the last for each Device alone.
    /// Without a result by what is known of it otherwise.
    fn settle(&mut self, at: u64, intent: Intent, result: Option<SignResult>) -> Result<(), StoreError> {
        if let Some(SignResult::Signed(signature)) = result {
            return self.signed(at, at, intent, Some(signature));
        }
        let last = self.reader.device(&self.wanted.header.key, intent.device)?;
        let last = last.map(|last| (last.intent, last.state));
        if last.is_none_or(|(last, _)| last == at) {
            return self.not_signed(at, (at, intent), last, result);
        }
        match self.tried_after(at, &intent)? {
            // It comes by itself.
            Tried::Again | Tried::Otherwise => Ok(()),
            // It belongs to the request that settled the unknown; this one gets its command all the same.
            Tried::Signed(further, of) => self.signed(at, further, of, None),
            Tried::Further(further, of) => self.not_signed(at, (further, of), last, None),
            Tried::Nothing => self.not_signed(at, (at, intent), last, result),
        }
    }

    /// What became of an attempt that has no signature. Without a result by what is known of its Device, whose `last`
    /// intent is in that state.
    fn not_signed(
        &mut self,
        place: u64,
        (at, intent): (u64, Intent),
        last: Option<(u64, IntentState)>,
        result: Option<SignResult>,
    ) -> Result<(), StoreError> {
        let state = last.filter(|(last, _)| *last == at).map(|(_, state)| state);
        let result = match (result, state) {
            (Some(result), _) => Some(result),
            (None, Some(IntentState::Signed)) => return self.signed(place, at, intent, None),
            (None, Some(IntentState::Open)) => None,
            (None, Some(IntentState::Unknown | IntentState::Left)) => {
                Some(SignResult::Unknown("what became of it is unknown; settle it first".into()))
            }
            (None, Some(IntentState::Failed)) => {
                Some(SignResult::Failed(format!("the token failed; see entry {at} and its outcome").into()))
            }
            (None, Some(IntentState::NotSigned)) => {
                Some(SignResult::NotSigned("it was never submitted to the token".into()))
            }
            // Something else was signed for the Device since.
            (None, None) => self.result_of(at)?,
        };
        let is_further = intent.attempt > 1;
        // One before it may have been signed, and another may come.
        let still =
            |why: &str| ToldOutcome::Unknown(format!("an attempt before it is unknown, and of this one: {why}"));
        let outcome = match result {
            _ if state == Some(IntentState::Left) => ToldOutcome::Left,
            Some(SignResult::Signed(signature)) => return self.signed(place, at, intent, Some(signature)),
            Some(SignResult::Unknown(why)) => ToldOutcome::Unknown(why.into()),
            Some(SignResult::Failed(why) | SignResult::NotSigned(why)) if is_further => still(&why),
            Some(SignResult::Failed(why)) => ToldOutcome::Failed(why.into()),
            Some(SignResult::NotSigned(why)) => ToldOutcome::NotSigned(why.into()),
            None if is_further => still("it is being signed"),
            None => ToldOutcome::NotSigned("it is being signed".into()),
        };
        let Intent { template, device, counter, .. } = intent;
        let what = What::Told(outcome);
        self.page.found.push(Found { place, signed_as: at, device, template, counter, what });
        Ok(())
    }

    /// A signed command, made again; or why it cannot be.
    fn signed(
        &mut self,
        place: u64,
        signed_as: u64,
        intent: Intent,
        expected: Option<Digest>,
    ) -> Result<(), StoreError> {
        let key = &self.wanted.header.key;
        let symmetric = self.wanted.symmetric.as_ref().map(|keys| keys.symmetric(key));
        if let Some(None) = symmetric {
            let outcome = ToldOutcome::Withheld(vec![not_held(key, self.wanted.determination)]);
            let Intent { template, device, counter, .. } = intent;
            self.page.found.push(Found { place, signed_as, device, template, counter, what: What::Told(outcome) });
            return Ok(());
        }
        let symmetric = symmetric.flatten();
        let row = self.reader.signature(signed_as)?;
        let parts = self.wanted.templates.get(&intent.template).zip(self.wanted.originator).zip(self.wanted.key);
        let made = match (parts, row) {
            // What the outcome says of the signature, or else the signature itself: a row alone is nobody's word.
            (Some(((template, originator), key)), Some(row)) => {
                let mut command = commands::room_for(template);
                commands::rebuild(template, originator, &intent, &row.octets, symmetric.as_ref(), &mut command)
                    .map_err(|error| error.to_string())
                    .and_then(|()| {
                        let is_it = match expected {
                            Some(expected) => Digest::of(&row.octets) == expected,
                            None => key.verifies_fixed(&command[1..command.len() - SIGNATURE_PART_LEN], &row.octets),
                        };
                        if is_it { Ok(row.octets) } else { Err(NO_SIGNATURE.to_owned()) }
                    })
            }
            (None, _) if self.wanted.symmetric.is_some() => {
                Err("its template is not there, or the policy in force says of its key no originator".to_owned())
            }
            (None, _) => Err("its template or the certificate of its key is not there".to_owned()),
            (Some(_), None) => Err(NO_SIGNATURE.to_owned()),
        };
        let what = match made {
            Ok(signature) => What::Command(signature, symmetric),
            Err(why) => {
                let text = format!(
                    "the command of intent {signed_as} cannot be made again: {why}. `smkictl ledger commands` makes it from an export, with \
                     the certificate of then"
                );
                What::Told(ToldOutcome::Withheld(vec![reason("rebuild", text)]))
            }
        };
        let Intent { template, device, counter, .. } = intent;
        self.page.found.push(Found { place, signed_as, device, template, counter, what });
        Ok(())
    }

    /// What the request has for some Devices, found by these and not by the walk: the same, in the order of the intents.
    fn devices(&mut self, mut devices: Vec<DeviceId>, send: &Send<'_>, source: &Source) -> Result<Ended, StoreError> {
        devices.sort_unstable();
        devices.dedup();
        let mut places = Vec::with_capacity(devices.len());
        for some in devices.chunks(PAGE_MAX) {
            for device in some {
                if source.is_over() {
                    break;
                }
                let before = places.len();
                for at in self.reader.intents_of(*device)? {
                    if let Some(intent) = self.intent(at)?
                        && self.is_own(intent.batch)?
                    {
                        places.push(at);
                    }
                }
                if places.len() == before {
                    self.not_here(*device);
                }
            }
            if let Some(ended) = self.hand_on(send, source) {
                return Ok(ended);
            }
        }
        places.sort_unstable();
        let (after, until) = (self.wanted.after, self.wanted.until);
        places.retain(|at| after.is_none_or(|after| *at > after) && until.is_none_or(|until| *at <= until));
        for some in places.chunks(PAGE_MAX) {
            for at in some {
                // What something else was signed for since is looked for in the ledger, which takes milliseconds each.
                if source.is_over() {
                    break;
                }
                let Some(intent) = self.intent(*at)? else { continue };
                if self.reader.signature(*at)?.is_some() {
                    self.signed(*at, *at, intent, None)?;
                } else {
                    self.settle(*at, intent, None)?;
                }
            }
            if let Some(ended) = self.hand_on(send, source) {
                return Ok(ended);
            }
        }
        Ok(Ended::Whole)
    }

    /// Hands on what was found so far: how it ends, if it ends here.
    fn hand_on(&mut self, send: &Send<'_>, source: &Source) -> Option<Ended> {
        if source.is_stopping() {
            return Some(Ended::Stopped(stopping()));
        }
        let is_left = if self.page.is_empty() { source.pages.is_closed() } else { send(self.take_page()).is_break() };
        is_left.then_some(Ended::Left)
    }

    fn not_here(&mut self, device: DeviceId) {
        let text = format!("request {} has no command for Device {device}", self.wanted.request);
        let outcome = ToldOutcome::Refused(vec![reason("not-in-request", text)]);
        self.page.refused.push(Told { device, template: None, counter: None, intent: None, outcome });
    }
}

fn stopping() -> Reason {
    reason("stopping", "smkid is stopping; fetch the rest once it runs".to_owned())
}

/// The side of the answer: records the release of each page, and hands it over.
struct Handing {
    desk: Desk,
    about: HandOver,
    templates: BTreeMap<TemplateName, Arc<Template>>,
    originator: Option<PartyId>,
    pieces: Pieces,
    piece: CommandOctets,
    summary: Summary,
}

impl Handing {
    async fn run(
        mut self,
        mut found: mpsc::Receiver<Result<Page, Ended>>,
        form: wire::Form,
        header: Header,
        stopping: tokio::sync::watch::Receiver<bool>,
    ) {
        let mut writer = AnswerWriter::begin(form, Some(header), &mut self.piece);
        let mut stopped = None;
        loop {
            let page = tokio::select! {
                page = found.recv() => page,
                // Whoever follows a job that signs nothing for hours may go away meanwhile.
                () = self.pieces.closed() => return,
            };
            let Some(page) = page else { break };
            let page = match page {
                Ok(page) => page,
                Err(Ended::Whole) => break,
                Err(Ended::Stopped(why)) => {
                    stopped = Some(vec![why]);
                    break;
                }
                Err(Ended::Left) => return,
                Err(Ended::Failed(failure)) => return drop(self.pieces.send(Err(failure)).await),
            };
            if *stopping.borrow() {
                stopped = Some(vec![self::stopping()]);
                break;
            }
            match self.page(page, &mut writer).await {
                Ok(None) => {}
                Ok(Some(why)) => {
                    stopped = Some(why);
                    break;
                }
                Err(Some(failure)) => return drop(self.pieces.send(Err(failure)).await),
                Err(None) => return,
            }
        }
        if let Some(stopped) = stopped {
            writer.stopped(&StoppedLine { stopped }, &mut self.piece);
        }
        writer.end(SummaryLine { summary: self.summary }, &mut self.piece);
        let _ = self.pieces.send(Ok(answers::out(self.piece))).await;
    }

    /// One page: why it is the last, if it is. The failure that cuts the answer; none if nobody takes it.
    async fn page(&mut self, page: Page, writer: &mut AnswerWriter) -> Result<Option<Vec<Reason>>, Option<Failure>> {
        let Page { found, refused } = page;
        let is_command = |found: &&Found| matches!(found.what, What::Command(..));
        let signed: Vec<(u64, DeviceId)> =
            found.iter().filter(is_command).map(|found| (found.signed_as, found.device)).collect();
        let HandOver { by, request, determination, asked, signed: _ } = &self.about;
        let about =
            HandOver { by: Actor::clone(by), request: *request, determination: *determination, asked: *asked, signed };
        let mut withheld: HashMap<u64, Vec<Reason>> = HashMap::new();
        if !about.signed.is_empty() {
            // Durable and under a checkpoint before anything of it goes out.
            let recorded = self.desk.record_for_caller(move |recorder| hand_over(recorder, about)).await;
            match recorded.map_err(|closed| Some(closed.into()))?.into_inner() {
                Ok(some) => withheld = some,
                Err((reasons, _)) => return Ok(Some(reasons)),
            }
        }
        for told in refused {
            self.item(answers::item(told), writer).await?;
        }
        for Found { place, signed_as, device, template, counter, what } in found {
            let outcome = match (what, withheld.get(&signed_as).cloned()) {
                (What::Told(outcome), _) => outcome,
                (What::Command(..), Some(reasons)) => ToldOutcome::Withheld(reasons),
                (What::Command(signature, symmetric), None) => {
                    let command = self.command(&template, (device, counter), &signature, symmetric.as_ref());
                    ToldOutcome::Signed(command.map_err(Some)?)
                }
            };
            let (template, counter, intent) = (Some(template), Some(counter), Some(place));
            self.item(answers::item(Told { device, template, counter, intent, outcome }), writer).await?;
        }
        // Whoever follows a job waits for each page.
        self.send().await?;
        Ok(None)
    }

    /// A command whose release is recorded, once more. That it cannot be made is a fault of ours: it was made before.
    fn command(
        &self,
        template: &TemplateName,
        of: (DeviceId, u64),
        signature: &[u8; 64],
        symmetric: Option<&SymmetricKey>,
    ) -> Result<CommandOctets, Failure> {
        let parts = self.templates.get(template).zip(self.originator);
        let (template, originator) =
            parts.ok_or_else(|| Failure::Internal { what: "a released command has no template".into() })?;
        let mut command = commands::room_for(template);
        commands::rebuild_compared(template, originator, of, signature, symmetric, &mut command)
            .map_err(|error| Failure::Internal { what: error.to_string() })?;
        Ok(command)
    }

    async fn item(&mut self, item: Item, writer: &mut AnswerWriter) -> Result<(), Option<Failure>> {
        self.summary.intents += u64::from(item.intent.is_some());
        self.summary.count(item.outcome);
        answers::write(writer, item, &mut self.piece);
        if self.piece.len() + LINE_LEN > LINES_LEN { self.send().await } else { Ok(()) }
    }

    async fn send(&mut self) -> Result<(), Option<Failure>> {
        let next = answers::piece(self.piece.has_key());
        let full = std::mem::replace(&mut self.piece, next);
        self.pieces.send(Ok(answers::out(full))).await.map_err(|_| None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ledger::entry::{ClockState, Released, VERSION};
    use crate::domain::ledger::merkle::Leaf;
    use crate::domain::time::Timestamp;

    #[test]
    fn the_release_of_a_page_fits_an_entry_where_no_two_of_its_commands_stand_side_by_side() {
        let fits = |commands: usize| {
            // At the far end of a ledger of a thousand million entries.
            let intents = (0..commands as u64).map(|n| (1_000_000_000 + 3 * n, 1_000_000_001 + 3 * n)).collect();
            let (request, determination) = (RequestId([0xEE; 16]), DeterminationId([0xDD; 16]));
            let event = Event::Released(Released { request, determination, intents });
            let by = Actor {
                person: Some("o".repeat(32).parse().unwrap()),
                account: "a".repeat(64).into(),
                role: crate::domain::ledger::entry::Role::Operator,
                channel: crate::domain::ledger::entry::Channel::Socket,
            };
            let at: Timestamp = "2026-11-01T09:00:00.123Z".parse().unwrap();
            let leaf = Entry { v: VERSION, at, clock: ClockState::Untrusted, by, event }.to_leaf();
            leaf.is_ok_and(|leaf| Leaf::new(&leaf).is_ok())
        };
        assert!(fits(PAGE_MAX));
        // What one outcome may settle at once, with a sick token beside a good one, does not: it goes out by pages.
        assert!(!fits(3 * PAGE_MAX));
    }
}
