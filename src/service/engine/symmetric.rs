//! Shell: the release of the Contingency Symmetric Key: out of its token, into the daemon's memory, and from there into commands alone.
//!
//! ```text
//! decide → the token compares the Root OCA Certificate with the key → recorded
//!        → decide again, spent (the first time) and release recorded (durable, under a signed checkpoint, its head on the ledger token)
//!        → the token gives the key out, sealed to this process → compared once more, in software
//!        → decide again, held, outcome recorded
//! ```
//!
//! A crash between any two leaves the key spent, and the next start closes the release as unknown. The key is held beside the tokens of its pair
//! ([`Several::hold_symmetric`]) and gone with them: by a lock, an end, a stop.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::keys::Keys;
use super::{Answer, Daemon, Running, answers, incident, make, reason, refused};
use crate::api::engine::Caller;
use crate::api::failure::Failure;
use crate::api::wire;
use crate::domain::certificates::Certificate;
use crate::domain::certificates::apex::WrappedApexKey;
use crate::domain::fold::{Blobs, Fold};
use crate::domain::gbcs::SymmetricKey;
use crate::domain::intake::contingency;
use crate::domain::ledger::contingency::{
    CheckResult, ContingencyChecked, ReleaseResult, SymmetricRelease, SymmetricReleased,
};
use crate::domain::ledger::entry::{Actor, Event, Reason};
use crate::domain::ledger::glance::Glance;
use crate::domain::names::{DeterminationId, Digest, IncidentId, KeyLabel, RequestId};
use crate::domain::policy::rules::{self, Refusal};
use crate::hsm::{Certainty, Compared, Condition, HsmError, Several, Token};
use crate::recorder::{CannotRecord, Desk, Recorder, shortened};
use crate::store::{Reader, StoreError};

/// The route, as refusals name it.
const OPERATION: &str = "key-symmetric-release";

/// How long the head is tried to be kept on the ledger token before a release is given up. No official reference.
const HEAD_WAIT: Duration = Duration::from_secs(10);

/// How often.
const HEAD_PAUSE: Duration = Duration::from_millis(20);

impl Daemon {
    /// Releases the key, or tells what became of it when that was asked before. It is run in a task of its own, for what is recorded of it
    /// must come to its end though whoever asked goes away meanwhile.
    pub(super) async fn release_symmetric(
        &self,
        caller: &Caller,
        key: KeyLabel,
        ask: wire::SymmetricRelease,
    ) -> Answer<wire::SymmetricReleased> {
        self.is_checked().await?;
        let asked = Digest::of(format!("{key} {}", answers::digest_of(&ask)?).as_bytes());
        let wire::SymmetricRelease { request, determination, check_only } = ask;
        let running = Running::begin(&self.running, request)?;
        let before = if check_only { None } else { self.scan(move |reader| recorded(reader, request)).await? };
        let known = self.read({
            let key = key.clone();
            move |recorder| Ok(recorder.fold().keys().contains_key(&key))
        });
        if !known.await? {
            return Err(Failure::NotFound { what: format!("key {key}") });
        }
        if let Some((entry, release, result)) = before {
            if release.key != key || release.determination != determination {
                let (actor, incident) = (caller.actor(), release.incident);
                let text = format!(
                    "request {request} is of entry {entry}, which releases the symmetric key of {} under determination {}; choose a new id \
                     for a new release",
                    release.key, release.determination
                );
                let reasons = vec![reason("request-reused", text)];
                let about = (Some(incident), Some(determination));
                let again = self.change(move |recorder| {
                    let by = recorder.known(actor);
                    refused(recorder, &by, OPERATION, asked, about, reasons)
                });
                return again.await;
            }
            let held = self.holds(&key, determination).await?;
            return Ok(wire::SymmetricReleased {
                key,
                determination,
                checked: None,
                spent_before: true,
                intent: Some(entry),
                outcome: result,
                held,
            });
        }
        self.may_change()?;
        let (answer, answered) = oneshot::channel();
        let releasing = Releasing {
            desk: self.desk.clone(),
            keys: Arc::clone(&self.keys),
            by: caller.actor(),
            asked,
            key,
            request,
            determination,
        };
        self.spawn(async move {
            let released = releasing.run(check_only).await;
            drop(running);
            // Whoever asked may have gone away.
            let _ = answer.send(released);
        });
        answered.await.map_err(|_| Failure::Internal { what: "the release ended without an answer".into() })?
    }

    /// Whether the symmetric key of a key is held for a determination.
    async fn holds(&self, key: &KeyLabel, determination: DeterminationId) -> Answer<bool> {
        let (keys, key) = (Arc::clone(&self.keys), key.clone());
        self.read(move |recorder| Ok(holds(recorder.fold(), &keys, &key, determination))).await
    }
}

/// Whether the symmetric key of a key is released for a determination by the ledger, and in memory.
pub(super) fn holds(fold: &Fold, keys: &Keys, key: &KeyLabel, determination: DeterminationId) -> bool {
    let released = fold.contingency(key).and_then(|facts| facts.released);
    released == Some(determination) && keys.symmetric(key).is_some()
}

/// The release of this request, if there is one: where, what it says, and its outcome, if that is recorded.
fn recorded(
    reader: &dyn Reader,
    request: RequestId,
) -> Result<Option<(u64, SymmetricRelease, Option<ReleaseResult>)>, StoreError> {
    let mut found: Option<(u64, SymmetricRelease, Option<ReleaseResult>)> = None;
    reader.uncommon(0..reader.head()?.size, &mut |leaf| {
        let Some(glance) = Glance::at(leaf.octets) else { return ControlFlow::Continue(()) };
        match (glance.kind, &mut found) {
            (b"symmetric-release", None) => {
                let release = glance.read::<SymmetricRelease>().ok().filter(|release| release.request == request);
                found = release.map(|release| (leaf.index, release, None));
            }
            (b"symmetric-released", Some((intent, _, result))) => {
                *result = glance
                    .read::<SymmetricReleased>()
                    .ok()
                    .filter(|released| released.intent == *intent)
                    .map(|released| released.result);
                if result.is_some() {
                    return ControlFlow::Break(());
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// One release.
struct Releasing {
    desk: Desk,
    keys: Arc<Keys>,
    by: Actor,
    asked: Digest,
    key: KeyLabel,
    request: RequestId,
    determination: DeterminationId,
}

/// What a release is of, as it stands before a token is asked anything.
#[derive(Clone)]
struct Material {
    /// Whoever asks, as the policy knew them when they did.
    by: Actor,
    incident: IncidentId,
    /// SHA-256 of the Root OCA Certificate that the Devices hold, as the determination says.
    root: Digest,
    /// Its field.
    field: Arc<WrappedApexKey>,
    /// The pair's public half, DER.
    spki: Vec<u8>,
    /// How often the key was locked.
    locks: u64,
    tokens: Several,
    token: Token,
}

impl Releasing {
    async fn run(self, check_only: bool) -> Answer<wire::SymmetricReleased> {
        let material = self.begin().await?;
        let checked = self.check(&material, check_only).await?;
        let spent = |recorder: &Recorder, key: &KeyLabel| {
            recorder.fold().contingency(key).is_some_and(|facts| facts.spent.is_some())
        };
        if check_only {
            let key = self.key.clone();
            let (spent_before, held) = {
                let (keys, determination) = (Arc::clone(&self.keys), self.determination);
                let asked = self.desk.look(move |recorder| {
                    Ok((spent(recorder, &key), holds(recorder.fold(), &keys, &key, determination)))
                });
                asked.await?
            };
            return Ok(self.answer(Some(checked), spent_before, (None, None), held));
        }
        let (intent, spent_before) = self.announce(&material).await?;
        let given = match self.keep_head().await {
            Ok(()) => self.give(&material).await,
            Err(why) => Err(why),
        };
        let result = self.conclude(material, intent, given).await?;
        let held = result == ReleaseResult::Released;
        Ok(self.answer(Some(checked), spent_before, (Some(intent), Some(result)), held))
    }

    fn answer(
        &self,
        checked: Option<wire::CheckedRoot>,
        spent_before: bool,
        (intent, outcome): (Option<u64>, Option<ReleaseResult>),
        held: bool,
    ) -> wire::SymmetricReleased {
        let (key, determination) = (self.key.clone(), self.determination);
        wire::SymmetricReleased { key, determination, checked, spent_before, intent, outcome, held }
    }

    /// Keeps on the ledger token a head that has the release: an older copy of the state in the place of this one would not know that the
    /// key is spent.
    async fn keep_head(&self) -> Result<(), ReleaseResult> {
        let until = Instant::now() + HEAD_WAIT;
        while !make::keep_head(&self.desk, &self.keys).await {
            if Instant::now() > until {
                let why = self.keys.head_trouble().unwrap_or_else(|| "others recorded without a pause".to_owned());
                let why = format!(
                    "the ledger's head, which says that the key is spent, could not be kept on the ledger token, and without it an older copy of \
                     the state would not know: {why}"
                );
                return Err(ReleaseResult::NotReleased(shortened(&why).into()));
            }
            // Another entry may lie beyond the last checkpoint for a moment.
            tokio::time::sleep(HEAD_PAUSE).await;
        }
        Ok(())
    }

    /// Asks the recorder something that is recorded.
    async fn change<R: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Recorder) -> Result<Answer<R>, CannotRecord> + Send + 'static,
    ) -> Answer<R> {
        self.desk.record_for_caller(ask).await?.into_inner()
    }

    /// Whether it may be released, before its token is asked anything; and what is to be compared with what.
    async fn begin(&self) -> Answer<Material> {
        let (actor, keys, asked) = (self.by.clone(), Arc::clone(&self.keys), self.asked);
        let (key, determination) = (self.key.clone(), self.determination);
        self.change(move |recorder| {
            let by = recorder.known(actor);
            let incident = recorder.fold().determinations().get(&determination).map(|facts| facts.incident.clone());
            let about = (incident, Some(determination));
            let wanted = contingency::check_wanted(&incident::context(recorder), &by, determination);
            let wanted = wanted
                .and_then(|wanted| if wanted.key == key { Ok(wanted) } else { Err(of_another(&wanted.key, &key)) });
            let contingency::Wanted { key: _, incident, root } = match wanted {
                Ok(wanted) => wanted,
                Err(reasons) => return refused(recorder, &by, OPERATION, asked, about, reasons),
            };
            let facts = recorder.fold().keys().get(&key).and_then(|facts| Some((facts, facts.contingency.as_ref()?)));
            let Some((on, spki)) = facts.map(|(facts, of)| (of.prepared.token.clone(), facts.record.spki_octets()))
            else {
                return Ok(Err(Failure::NotFound { what: format!("key {key} with contingency material") }));
            };
            let field = match field_of(incident::context(recorder).blobs, root) {
                Ok(field) => field,
                Err(what) => return Ok(Err(Failure::Internal { what })),
            };
            let found = keys.active(&key).and_then(|tokens| Some((tokens.token(&on)?, tokens)));
            let Some((token, tokens)) = found.filter(|(token, _)| token.condition() == Condition::Up) else {
                return Ok(Err(Failure::Unavailable {
                    why: format!("token {on}, which has the symmetric key of key {key}, is not up"),
                    remedy: "`smkictl hsm status` says why. Activate the key once it is, then ask again".into(),
                }));
            };
            let locks = keys.locks(&key);
            Ok(Ok(Material { by, incident, root, field: Arc::new(field), spki, locks, tokens, token }))
        })
        .await
    }

    /// Has the token compare, and records what it found. What differs is refused, unless that was all that was asked.
    async fn check(&self, material: &Material, check_only: bool) -> Answer<wire::CheckedRoot> {
        let Material { token, field, .. } = material;
        let compared = token.compare_wrapped(self.key.clone(), field.to_der()).get().await;
        let result = match compared {
            Ok(Compared::Matches) => CheckResult::Matches,
            Ok(Compared::Differs(why) | Compared::Failed(why)) => CheckResult::Differs(shortened(&why).into()),
            Err(error) => CheckResult::Failed(shortened(&error.to_string()).into()),
        };
        let (actor, key, asked, determination) = (self.by.clone(), self.key.clone(), self.asked, self.determination);
        let (incident, root) = (material.incident.clone(), material.root);
        self.change(move |recorder| {
            let by = recorder.known(actor);
            let checked =
                ContingencyChecked { key: key.clone(), incident: incident.clone(), root, result: result.clone() };
            let entry = recorder.queue(&by, Event::ContingencyChecked(checked))?;
            let why = match &result {
                CheckResult::Matches => None,
                CheckResult::Differs(why) | CheckResult::Failed(why) => Some(why.clone()),
            };
            let remedy = match &result {
                CheckResult::Failed(_) => {
                    "The token failed, and nothing is known of the certificate: `smkictl hsm status` says how it stands; ask again once it \
                     is up"
                }
                CheckResult::Matches | CheckResult::Differs(_) => {
                    "Compare its SHA-256 with the Root OCA Certificate that the Devices hold. If it is that one, they refuse every command \
                     of this key: use the generation that their root carries, or go back to the SMKI PMA"
                }
            };
            let Some(why) = why.filter(|_| !check_only) else {
                return Ok(Ok(wire::CheckedRoot { entry, root, result }));
            };
            let text = format!(
                "the field of Root OCA Certificate {root}, unwrapped in the token with the symmetric key of key {key}, is not found to be \
                 this key's public half (entry {entry}): {why}. Nothing was spent or released. {remedy}"
            );
            refused(recorder, &by, OPERATION, asked, (Some(incident), Some(determination)), vec![reason("preflight", text)])
        })
        .await
    }

    /// Records that the key is spent, if it was not, and that the token is about to be asked: durable and under a checkpoint once this
    /// answers. Answers the entry of the release, and whether it was spent before.
    async fn announce(&self, material: &Material) -> Answer<(u64, bool)> {
        let (actor, keys, asked, locks) = (self.by.clone(), Arc::clone(&self.keys), self.asked, material.locks);
        let (key, request, determination) = (self.key.clone(), self.request, self.determination);
        let incident = material.incident.clone();
        self.change(move |recorder| {
            let by = recorder.known(actor);
            let about = (Some(incident), Some(determination));
            if keys.locks(&key) != locks {
                return Ok(Err(Failure::Unavailable {
                    why: format!("key {key} was locked meanwhile; nothing was spent or released"),
                    remedy: "Activate it again if that is still wanted, then ask again".into(),
                }));
            }
            let spent_before = recorder.fold().contingency(&key).is_some_and(|facts| facts.spent.is_some());
            if !spent_before {
                match contingency::spend(&incident::context(recorder), &by, determination) {
                    Ok(spent) => drop(recorder.queue(&by, Event::SymmetricKeySpent(spent))?),
                    Err(reasons) => return refused(recorder, &by, OPERATION, asked, about, reasons),
                }
            }
            match contingency::release(&incident::context(recorder), &by, request, determination) {
                Ok(release) => Ok(Ok((recorder.queue(&by, Event::SymmetricRelease(release))?, spent_before))),
                Err(reasons) => refused(recorder, &by, OPERATION, asked, about, reasons),
            }
        })
        .await
    }

    /// Why it may not be released any more, if so.
    fn stands_in_the_way(recorder: &Recorder, keys: &Keys, of: &Announced) -> Option<String> {
        let Announced { by, key, determination, locks } = of;
        if keys.locks(key) != *locks {
            return Some(format!("key {key} was locked meanwhile"));
        }
        let (by, moment) = (recorder.known(by.clone()), recorder.moment());
        if by.person != of.by.person {
            return Some(format!("account {} belongs to somebody else since this was asked", by.account));
        }
        match recorder.fold().batch_facts(&by, *determination, moment.at, moment.clock) {
            None => Some("no policy is in force".to_owned()),
            Some(facts) => rules::decide_symmetric_release(&facts).err().map(|refusals| told(&refusals)),
        }
    }

    fn announced(&self, material: &Material) -> Announced {
        Announced {
            by: material.by.clone(),
            key: self.key.clone(),
            determination: self.determination,
            locks: material.locks,
        }
    }

    /// Asks the token, unless something came between; and compares what it gives out in software.
    async fn give(&self, material: &Material) -> Result<SymmetricKey, ReleaseResult> {
        let (keys, of) = (Arc::clone(&self.keys), self.announced(material));
        let in_the_way = self.desk.look(move |recorder| Ok(Self::stands_in_the_way(recorder, &keys, &of))).await;
        match in_the_way {
            Ok(None) => {}
            Ok(Some(why)) => return Err(ReleaseResult::NotReleased(shortened(&why).into())),
            Err(closed) => return Err(ReleaseResult::NotReleased(shortened(&closed.to_string()).into())),
        }
        let Material { token, field, spki, .. } = material;
        let given = token.release_symmetric(&self.key).await;
        let symmetric = given.map_err(|error| failed(&error))?;
        match field.unwrap_with(&symmetric) {
            Ok(found) if found == *spki => Ok(symmetric),
            Ok(_) => Err(ReleaseResult::Failed(
                "what the token gave out unwraps the Root OCA Certificate's field to another key than it has; it was let go of".into(),
            )),
            Err(error) => {
                let why = format!("what the token gave out does not unwrap the Root OCA Certificate's field: {error}");
                Err(ReleaseResult::Failed(shortened(&why).into()))
            }
        }
    }

    /// Records what became of it, and holds the key if it may still be held: from then on commands can be signed.
    async fn conclude(
        &self,
        material: Material,
        intent: u64,
        given: Result<SymmetricKey, ReleaseResult>,
    ) -> Answer<ReleaseResult> {
        let (keys, of) = (Arc::clone(&self.keys), self.announced(&material));
        // Also while smkid stops: what was announced has its outcome.
        let recorded = self.desk.record(move |recorder| {
            let result = match given {
                Err(result) => result,
                Ok(symmetric) => {
                    if let Some(why) = Self::stands_in_the_way(recorder, &keys, &of) {
                        let why = format!("the token gave it out, and it was let go of at once: {why}");
                        ReleaseResult::NotReleased(shortened(&why).into())
                    } else {
                        material.tokens.hold_symmetric(symmetric);
                        ReleaseResult::Released
                    }
                }
            };
            let released = SymmetricReleased { intent, result: result.clone() };
            recorder.queue(&Actor::daemon(), Event::SymmetricReleased(released))?;
            Ok(result)
        });
        Ok(recorded.await?.into_inner())
    }
}

/// What a release that was announced is decided by again.
struct Announced {
    by: Actor,
    key: KeyLabel,
    determination: DeterminationId,
    locks: u64,
}

/// The determination is about another key.
fn of_another(required: &KeyLabel, asked: &KeyLabel) -> Vec<Reason> {
    vec![reason("key-differs", format!("the determination requires key {required}, not {asked}"))]
}

/// The field of a Root OCA Certificate that was taken in.
fn field_of(blobs: &dyn Blobs, root: Digest) -> Result<WrappedApexKey, String> {
    let octets = blobs.blob(root).map_err(|error| error.to_string())?;
    let certificate = Certificate::from_der(&octets).map_err(|error| error.to_string())?;
    let field = WrappedApexKey::of_certificate(&certificate).map_err(|error| error.to_string())?;
    field.ok_or_else(|| format!("Root OCA Certificate {root} was taken in, and has no WrappedApexContingencyKey"))
}

/// What a token's failure leaves.
fn failed(error: &HsmError) -> ReleaseResult {
    let why = shortened(&error.to_string()).into();
    match error.certainty() {
        Certainty::NothingSigned => ReleaseResult::Failed(why),
        Certainty::SignatureMayExist => ReleaseResult::Unknown(why),
    }
}

fn told(refusals: &[Refusal]) -> String {
    let told: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    told.join("; ")
}
