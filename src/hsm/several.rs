//! Shell: the tokens that hold one key, answering as one.
//!
//! What is to be signed waits here and is handed out piece by piece, as [`share`] says, to the tokens that are up. A token that
//! is sick gets nothing; what it had in hand comes to its outcome there, and only what it provably never began goes to another. A
//! token that is back gets its share of the next call.
//!
//! A fence reaches everything, here and at each token: see [`Several::fence`].
//!
//! It needs an async runtime, unlike the tokens themselves: whoever asks waits for outcomes of several at a time.

mod share;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::errors::HsmError;
use super::handle::{
    Condition, FenceAck, FencesSeen, NotSigned, Outcome, Reply, SignResult, ToSign, Token, nothing_signed,
};
use super::keeper::{Told, lock};
use super::{OCTETS_LEN_MAX, QUEUE_ITEMS_MAX};
use crate::domain::gbcs::SymmetricKey;
use crate::domain::names::{KeyLabel, TokenName};
use crate::domain::time::Timestamp;
use share::Standing;

/// How often it is looked whether a token is back or rested, while something waits.
const LOOK: Duration = Duration::from_millis(20);
/// For how long a token at which a signature failed, or became unknown, is left out, if another is up: one that fails at once would
/// else be the first to be ready for the next item, and fail them all. Twice as long after each rest that did not help. No official
/// reference.
const REST: Duration = Duration::from_secs(1);
/// How often a rest is doubled at most: about a minute.
const RESTS_DOUBLED_MAX: u32 = 6;
/// Over how long a token's pace is measured.
const MEASURE: Duration = Duration::from_millis(20);
/// After so long without a signature a token's pace is forgotten, so that one that was slow once is tried again.
const PACE_KEPT: Duration = Duration::from_secs(5);
/// A silence this long says that a token is slower than it was thought to be.
const SILENCE: Duration = Duration::from_millis(50);
/// Groups of outcomes that are taken at a time.
const TAKEN_MAX: usize = 16;

/// The tokens on which a key is active. Cheap to clone.
#[derive(Clone)]
pub struct Several(Arc<Inner>);

struct Inner {
    key: KeyLabel,
    members: Mutex<Vec<Arc<Member>>>,
    /// Raised with every fence, before the tokens' own.
    generation: AtomicU64,
    /// Items of all calls that have no outcome yet.
    waiting: AtomicUsize,
    /// Who hands out: one call after the other, in the order in which they came.
    turn: tokio::sync::Mutex<()>,
    /// A token has answered something.
    freed: Notify,
    /// The Contingency Symmetric Key, from its release until the key is locked.
    symmetric: Mutex<Option<SymmetricKey>>,
}

struct Member {
    token: Token,
    sessions: usize,
    pace: Mutex<Pace>,
}

/// How a token gets on.
struct Pace {
    /// Items given and not answered, over all calls.
    given: usize,
    /// When it answered last, or was given something after it had nothing.
    since: Instant,
    /// Time of all its busy sessions since it was measured last, and what was answered in it.
    busy: Duration,
    answered: u32,
    /// How long a session takes for an item, and when that was measured.
    item: Option<(Duration, Instant)>,
    rests_until: Option<Instant>,
    /// Rests since its last signature.
    rests: u32,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { given: 0, since: now, busy: Duration::ZERO, answered: 0, item: None, rests_until: None, rests: 0 }
    }

    fn give(&mut self, count: usize, now: Instant) {
        if self.given == 0 {
            self.since = now;
        }
        self.given += count;
    }

    fn answer(&mut self, count: usize, sessions: usize, now: Instant) {
        let worked = u32::try_from(self.given.min(sessions)).unwrap_or(u32::MAX);
        self.busy += now.saturating_duration_since(self.since) * worked;
        self.answered += u32::try_from(count).unwrap_or(u32::MAX);
        self.given = self.given.saturating_sub(count);
        self.since = now;
        if self.busy >= MEASURE && self.answered > 0 {
            let found = self.busy / self.answered;
            let item = self.item(now).map_or(found, |before| (before + found) / 2);
            self.item = Some((item, now));
            (self.busy, self.answered) = (Duration::ZERO, 0);
        }
    }

    /// One of its signatures failed.
    fn rest(&mut self, now: Instant) {
        if self.rests_until.is_none_or(|until| until <= now) {
            self.rests_until = Some(now + REST * 2_u32.pow(self.rests.min(RESTS_DOUBLED_MAX)));
            self.rests += 1;
        }
    }

    fn item(&self, now: Instant) -> Option<Duration> {
        let is_kept = |at: Instant| self.given > 0 || now.saturating_duration_since(at) < PACE_KEPT;
        self.item.filter(|(_, at)| is_kept(*at)).map(|(item, _)| item)
    }

    fn standing(&self, up: bool, sessions: usize, now: Instant) -> Standing {
        let silence = if self.given > 0 { now.saturating_duration_since(self.since) } else { Duration::ZERO };
        let item = self.item(now);
        let is_stuck = silence > SILENCE.max(item.unwrap_or_default() * 4);
        Standing {
            ready: up && self.rests_until.is_none_or(|until| until <= now),
            sessions,
            given: self.given,
            item: if is_stuck { Some(silence) } else { item },
        }
    }
}

impl Several {
    /// No token yet.
    pub fn new(key: KeyLabel) -> Self {
        Self(Arc::new(Inner {
            key,
            members: Mutex::default(),
            generation: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            turn: tokio::sync::Mutex::new(()),
            freed: Notify::new(),
            symmetric: Mutex::default(),
        }))
    }

    /// From here on this token signs too. If one of its name does already, that one stays: the second comes back, and is the
    /// caller's to shut down, for no fence reaches it.
    pub fn add(&self, token: Token) -> Option<Token> {
        let sessions = token.report().map_or(1, |report| usize::from(report.sessions).max(1));
        let mut members = lock(&self.0.members);
        if members.iter().any(|member| member.token.name() == token.name()) {
            return Some(token);
        }
        members.push(Arc::new(Member { token, sessions, pace: Mutex::new(Pace::new(Instant::now())) }));
        None
    }

    /// Lets go of the tokens that are locked, and answers them: from here on others of their names may take their places.
    pub fn let_go_of_locked(&self) -> Vec<Token> {
        let is_locked = |member: &mut Arc<Member>| matches!(member.token.condition(), Condition::Locked(_));
        let mut members = lock(&self.0.members);
        members.extract_if(.., is_locked).map(|member| member.token.clone()).collect()
    }

    /// The tokens, in the order in which they came.
    pub fn tokens(&self) -> Vec<Token> {
        lock(&self.0.members).iter().map(|member| member.token.clone()).collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        lock(&self.0.members).len()
    }

    /// The token of that name.
    pub fn token(&self, name: &TokenName) -> Option<Token> {
        lock(&self.0.members).iter().map(|member| &member.token).find(|token| token.name() == name).cloned()
    }

    /// How they stand together: up if one is, locked only if all are.
    pub fn condition(&self) -> Condition {
        let mut locked = None;
        let mut down = None;
        for token in self.tokens() {
            match token.condition() {
                Condition::Up => return Condition::Up,
                Condition::Down(why) => down = down.or(Some(why)),
                Condition::Locked(why) => locked = locked.or(Some(why)),
            }
        }
        down.map_or_else(|| Condition::Locked(locked.unwrap_or(HsmError::Locked)), Condition::Down)
    }

    /// What failed last at any of them, although all may be up again.
    pub fn last_failure(&self) -> Option<HsmError> {
        let failures = self.tokens().into_iter().filter_map(|token| token.last_failure());
        failures.max_by_key(|(at, _)| *at).map(|(_, why)| why)
    }

    /// How many signatures its tokens have made, whoever asked: whether they make progress.
    pub fn signatures(&self) -> u64 {
        self.tokens().iter().map(Token::signatures).sum()
    }

    /// How long the sessions of its tokens have been in `C_Sign`, all together, and how many there are.
    pub fn busy(&self) -> (Duration, u64) {
        let of_tokens = self.tokens().into_iter().filter_map(|token| token.busy());
        of_tokens
            .fold((Duration::ZERO, 0), |(busy, all), (of_token, sessions)| (busy + of_token, all + u64::from(sessions)))
    }

    /// The fences raised so far: ask where the decision is taken.
    pub fn fences_seen(&self) -> FencesSeen {
        FencesSeen(self.0.generation.load(Ordering::SeqCst))
    }

    /// Raises the fence at every token: of all that was decided before ([`Several::fences_seen`]), nothing that is not yet begun
    /// will be. It stands once all have answered.
    ///
    /// Why nothing slips through: what is handed to a token names the fences of that token, read *before* it is looked whether one
    /// was raised here. So either that look sees this one, or the token's own, raised after, stops it there.
    pub fn fence(&self) -> Vec<Reply<FenceAck>> {
        self.0.generation.fetch_add(1, Ordering::SeqCst);
        self.tokens().iter().map(Token::fence).collect()
    }

    /// Holds the Contingency Symmetric Key of this contingency key, whose release is recorded; until it is locked.
    pub fn hold_symmetric(&self, key: SymmetricKey) {
        *lock(&self.0.symmetric) = Some(key);
    }

    /// The Contingency Symmetric Key, if it was released and the key was not locked since: by [`Several::shutdown`], or by itself, all of
    /// its tokens being locked.
    pub fn symmetric(&self) -> Option<SymmetricKey> {
        let mut held = lock(&self.0.symmetric);
        if matches!(self.condition(), Condition::Locked(_)) {
            *held = None;
        }
        held.clone()
    }

    /// Locks every token, all at once, and waits for them: at most for the longest of their deadlines. The Contingency Symmetric Key is
    /// forgotten.
    pub fn shutdown(&self) {
        lock(&self.0.symmetric).take();
        let tokens = self.tokens();
        std::thread::scope(|scope| {
            for token in &tokens {
                scope.spawn(|| token.shutdown());
            }
        });
    }

    /// Signs what was decided under these fences: one outcome for each item, in no particular order.
    ///
    /// # Units
    /// `not_after` is read again before each C_Sign, as [`Token::sign`] says.
    ///
    /// # Errors
    /// All of them mean that nothing was signed: [`HsmError::QueueFull`], [`HsmError::TooLong`], [`HsmError::KeyUnknown`], or
    /// why no token is up.
    pub async fn sign_decided(
        &self,
        fences: FencesSeen,
        items: Vec<ToSign>,
        not_after: Timestamp,
    ) -> Result<Vec<SignResult>, HsmError> {
        if let Some(long) = items.iter().find(|item| item.octets().len() > OCTETS_LEN_MAX) {
            return Err(HsmError::TooLong { tag: long.tag, len: long.octets().len(), limit: OCTETS_LEN_MAX });
        }
        let members = lock(&self.0.members).clone();
        let (more, limit) = (items.len(), QUEUE_ITEMS_MAX * members.len().max(1));
        let admitted = self.0.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |waiting| {
            waiting.checked_add(more).filter(|all| *all <= limit)
        });
        if let Err(waiting) = admitted {
            return Err(HsmError::QueueFull { waiting, more, limit });
        }
        let (results, mut came) = unbounded_channel();
        let mut call = Call::new(&self.0, members, fences, items, not_after, results);
        let mut taken = Vec::with_capacity(TAKEN_MAX);
        loop {
            if call.waiting.is_empty() {
                if call.is_done() {
                    return Ok(std::mem::take(&mut call.outcomes));
                }
                came.recv_many(&mut taken, TAKEN_MAX).await;
                call.take(&mut taken);
                continue;
            }
            let turn = self.0.turn.lock();
            tokio::pin!(turn);
            let turn = loop {
                tokio::select! {
                    turn = &mut turn => break turn,
                    _ = came.recv_many(&mut taken, TAKEN_MAX) => call.take(&mut taken),
                }
            };
            while !call.waiting.is_empty() {
                call.hand_out()?;
                if call.waiting.is_empty() {
                    break;
                }
                tokio::select! {
                    _ = came.recv_many(&mut taken, TAKEN_MAX) => call.take(&mut taken),
                    () = self.0.freed.notified() => {}
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
            drop(turn);
        }
    }
}

impl std::fmt::Debug for Several {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Several").field(&self.0.key).field(&self.tokens()).finish()
    }
}

/// One call of [`Several::sign_decided`].
struct Call<'g> {
    group: &'g Inner,
    members: Vec<Arc<Member>>,
    /// Whether a member gets nothing more of this call: it took nothing, or died with some of it in hand.
    left_out: Vec<bool>,
    /// Why the first took nothing, unless some other took something.
    refused: Option<HsmError>,
    /// Whether any was given anything.
    asked: bool,
    /// Items of this call that each member has in hand.
    given: Vec<usize>,
    fences: FencesSeen,
    not_after: Timestamp,
    items: Vec<ToSign>,
    /// The place of each item, by its tag.
    places: HashMap<u64, usize>,
    /// To whom each was given last.
    with: Vec<usize>,
    /// Those that nobody has, by place.
    waiting: VecDeque<usize>,
    /// What came of those that came back without having been submitted: their outcome, if no other token takes them.
    came_back: HashMap<usize, Outcome>,
    outcomes: Vec<SignResult>,
    results: UnboundedSender<Vec<SignResult>>,
}

impl<'g> Call<'g> {
    fn new(
        group: &'g Inner,
        members: Vec<Arc<Member>>,
        fences: FencesSeen,
        items: Vec<ToSign>,
        not_after: Timestamp,
        results: UnboundedSender<Vec<SignResult>>,
    ) -> Self {
        Self {
            left_out: vec![false; members.len()],
            refused: None,
            asked: false,
            given: vec![0; members.len()],
            places: items.iter().enumerate().map(|(place, item)| (item.tag, place)).collect(),
            with: vec![0; items.len()],
            waiting: (0..items.len()).collect(),
            came_back: HashMap::new(),
            outcomes: Vec::with_capacity(items.len()),
            group,
            members,
            fences,
            not_after,
            items,
            results,
        }
    }

    fn is_done(&self) -> bool {
        self.outcomes.len() == self.items.len()
    }

    /// Gives each token its share of what waits. Whatever no token can be given comes to its outcome here.
    ///
    /// # Errors
    /// No token is up, and none was given anything.
    fn hand_out(&mut self) -> Result<(), HsmError> {
        let shares = self.shares();
        for (n, share) in shares.into_iter().enumerate().filter(|(_, share)| *share > 0) {
            let member = Arc::clone(&self.members[n]);
            // In this order: see `Several::fence`.
            let seen = member.token.fences_seen();
            if self.group.generation.load(Ordering::SeqCst) != self.fences.0 {
                self.end_waiting(&NotSigned::Fenced);
                return Ok(());
            }
            let places: Vec<usize> = self.waiting.drain(..share).collect();
            let items = places.iter().map(|place| self.items[*place].clone()).collect();
            lock(&member.pace).give(share, Instant::now());
            self.given[n] += share;
            // A token that is alone with all of it need say nothing before it is done: nothing could go to another.
            let is_alone = self.members.len() == 1 && self.waiting.is_empty();
            let told = if is_alone { Told::Together } else { Told::AsTheyCome };
            let results = (self.results.clone(), told);
            let asked = member.token.sign_into(seen, &self.group.key, items, self.not_after, results);
            match asked {
                Ok(_) => {
                    self.asked = true;
                    for place in places {
                        self.with[place] = n;
                    }
                }
                Err(why) => {
                    self.answered(n, share);
                    self.left_out[n] = true;
                    self.refused.get_or_insert(why);
                    for place in places.into_iter().rev() {
                        self.waiting.push_front(place);
                    }
                }
            }
        }
        if self.waiting.is_empty() || self.members.iter().zip(&self.left_out).any(is_there) {
            return Ok(());
        }
        // None is left for this call. What some have in hand comes to its outcome; the rest was never submitted.
        if !self.asked {
            return Err(self.refused.take().unwrap_or_else(|| self.why_none()));
        }
        self.end_waiting(&NotSigned::NotReached);
        Ok(())
    }

    fn shares(&self) -> Vec<usize> {
        let now = Instant::now();
        let mut standings: Vec<Standing> = (self.members.iter().zip(&self.left_out))
            .map(|(member, left_out)| lock(&member.pace).standing(is_there((member, left_out)), member.sessions, now))
            .collect();
        if !standings.iter().any(|standing| standing.ready) {
            // All that are up rest: then it is better to try than to wait.
            for (standing, there) in standings.iter_mut().zip(self.members.iter().zip(&self.left_out)) {
                standing.ready = is_there(there);
            }
        }
        share::share(&standings, self.waiting.len())
    }

    fn why_none(&self) -> HsmError {
        let why = self.members.iter().find_map(|member| match member.token.condition() {
            Condition::Up => None,
            Condition::Down(why) | Condition::Locked(why) => Some(nothing_signed(&why)),
        });
        why.unwrap_or(HsmError::Locked)
    }

    /// Takes outcomes. What a token that died, or could not sign, was provably not asked for waits again, for another.
    fn take(&mut self, results: &mut Vec<Vec<SignResult>>) {
        let mut counts = vec![0; self.members.len()];
        for result in results.drain(..).flatten() {
            let Some(place) = self.places.get(&result.tag).copied() else { continue };
            let n = self.with[place];
            counts[n] += 1;
            if result.outcome.is_not_submitted() {
                self.left_out[n] = true;
                self.waiting.push_back(place);
                self.came_back.insert(place, result.outcome);
                continue;
            }
            match &result.outcome {
                Outcome::Signed(_) => lock(&self.members[n].pace).rests = 0,
                outcome if outcome.fault_of_token().is_some() => lock(&self.members[n].pace).rest(Instant::now()),
                Outcome::Failed(_) | Outcome::Unknown(_) | Outcome::NotSigned(_) => {}
            }
            self.outcomes.push(result);
        }
        for (n, count) in counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            self.answered(n, count);
        }
        self.group.freed.notify_one();
    }

    fn answered(&mut self, n: usize, count: usize) {
        self.given[n] -= count;
        let member = &self.members[n];
        lock(&member.pace).answer(count, member.sessions, Instant::now());
    }

    fn end_waiting(&mut self, why: &NotSigned) {
        for place in std::mem::take(&mut self.waiting) {
            let came_back = self.came_back.remove(&place).filter(|_| *why == NotSigned::NotReached);
            let outcome = came_back.unwrap_or_else(|| Outcome::NotSigned(why.clone()));
            self.outcomes.push(SignResult { tag: self.items[place].tag, outcome });
        }
    }
}

fn is_there((member, left_out): (&Arc<Member>, &bool)) -> bool {
    !left_out && matches!(member.token.condition(), Condition::Up)
}

impl Drop for Call<'_> {
    /// Also of a call that nobody awaits any more.
    fn drop(&mut self) {
        self.group.waiting.fetch_sub(self.items.len(), Ordering::SeqCst);
        for n in 0..self.members.len() {
            let count = self.given[n];
            if count > 0 {
                self.answered(n, count);
            }
        }
        self.group.freed.notify_one();
    }
}
