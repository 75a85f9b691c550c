//! Shell: what the engine says: state and ledger in the words of the API.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};

use axum::body::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use zeroize::Zeroize as _;

use super::super::keys::{Keys, tokens_of};
use super::make::Pieces;
use super::symmetric;
use crate::api::failure::Failure;
use crate::api::wire::{self, AnswerWriter, Base64, Item, ItemOutcome, StoppedLine, Summary, SummaryLine, Trouble};
use crate::domain::commands::CommandOctets;
use crate::domain::commands::container::Header;
use crate::domain::commands::pairs::Step;
use crate::domain::determination::document::{Determination, Written};
use crate::domain::determination::people::{Person, Role};
use crate::domain::fold::{Blobs as _, Fold, book};
use crate::domain::gbcs::MESSAGE_LEN_MAX;
use crate::domain::incident::Progress;
use crate::domain::ledger::entry::{
    Common, DeterminationRecorded, DirectionRecorded, Entry, Event, KeyActivated, KeyLocked, SignResult,
};
use crate::domain::ledger::glance::Glance;
use crate::domain::names::{DeterminationId, DeviceId, Digest, IncidentId, KeyLabel, KeyUse, RequestId, TokenName};
use crate::domain::policy::Activation;
use crate::domain::policy::custodians::{self, Count};
use crate::domain::policy::facts::{DeterminationFacts, IncidentFacts, KeyFacts, Standing};
use crate::domain::procedure::direction::{Direction, Directs};
use crate::domain::time::Timestamp;
use crate::hsm::{Condition, Several, Token};
use crate::pipeline::{self, News, Told, ToldOutcome, UNKNOWNS_MAX};
use crate::recorder::{CannotRecord, Recorder};
use crate::store::{Reader, StoreError, StoredLeaf};

/// Octets of an answer that go out together: a dozen commands. A whole chunk of them would be 1.4 MB, several times over for a slow
/// reader, and most of the daemon's memory.
pub(super) const LINES_LEN: usize = 64 * 1024;

/// What is kept free for one more line: a command of 4 kB in base64, and what is said of it.
pub(super) const LINE_LEN: usize = 6 * 1024;

/// Octets of an answer that go out together. Where commands have a Contingency Symmetric Key inside they are wiped once they are out: by
/// the last who has them, which is the connection.
pub(super) fn piece(has_key: bool) -> CommandOctets {
    let mut piece = CommandOctets::new(has_key);
    // What it outgrows is not wiped: then there is room for the longest command behind all others.
    piece.reserve_exact(if has_key { LINES_LEN + 2 * MESSAGE_LEN_MAX } else { LINES_LEN });
    piece
}

/// The same, as they go out.
pub(super) fn out(piece: CommandOctets) -> Bytes {
    if piece.has_key() { Bytes::from_owner(piece) } else { Bytes::from(piece.into_vec()) }
}

/// Writes what became of a Device, and wipes the command where it has a key inside.
pub(super) fn write(writer: &mut AnswerWriter, mut item: Item, piece: &mut CommandOctets) {
    writer.item(&item, piece);
    if let Some(Base64(command)) = item.command.as_mut().filter(|_| piece.has_key()) {
        command.zeroize();
    }
}

/// SHA-256 of a request, by which the same id with other contents is told.
pub(super) fn digest_of(asked: &impl Serialize) -> Result<Digest, Failure> {
    let octets = serde_json::to_vec(asked).map_err(|error| Failure::Internal { what: error.to_string() })?;
    Ok(Digest::of(&octets))
}

/// Turns the news of a job into the parts of an answer. Answers the summary of all of them, with which [`end`] says that the answer is
/// whole; none if it was cut. `has_key` says that commands have the Contingency Symmetric Key inside.
pub(super) async fn parts(
    mut news: mpsc::Receiver<News>,
    pieces: &Pieces,
    form: wire::Form,
    header: Option<Header>,
    has_key: bool,
) -> Option<(Summary, AnswerWriter)> {
    let mut summary = Summary::default();
    let mut piece = self::piece(has_key);
    let mut writer = AnswerWriter::begin(form, header, &mut piece);
    while let Some(news) = news.recv().await {
        match news {
            News::Devices(told) => {
                for told in told {
                    let item = item(told);
                    summary.intents += u64::from(item.intent.is_some());
                    summary.count(item.outcome);
                    write(&mut writer, item, &mut piece);
                    if piece.len() + LINE_LEN > LINES_LEN {
                        let full = std::mem::replace(&mut piece, self::piece(has_key));
                        if pieces.send(Ok(out(full))).await.is_err() {
                            return None;
                        }
                    }
                }
            }
            News::Stopped(stopped) => writer.stopped(&StoppedLine { stopped }, &mut piece),
        }
        let full = std::mem::replace(&mut piece, self::piece(has_key));
        if !full.is_empty() && pieces.send(Ok(out(full))).await.is_err() {
            // Nobody listens: the job hears it by its closed channel.
            return None;
        }
    }
    if !piece.is_empty() && pieces.send(Ok(out(piece))).await.is_err() {
        return None;
    }
    Some((summary, writer))
}

/// The last part, which marks an answer as whole.
pub(super) async fn end(summary: Summary, writer: AnswerWriter, pieces: &Pieces) {
    let mut last = Vec::new();
    writer.end(SummaryLine { summary }, &mut last);
    let _ = pieces.send(Ok(Bytes::from(last))).await;
}

/// Where the commands of a request are from, as a container says it. None if the determination opens no key.
pub(super) fn header(fold: &Fold, determination: DeterminationId, request: RequestId) -> Option<Header> {
    let facts = fold.determinations().get(&determination)?;
    let (key, spki_sha256) = facts.key.clone()?;
    let templates = facts.scope.iter().flat_map(|scope| scope.templates.keys().cloned()).collect();
    let origin = fold.origin()?.clone();
    Some(Header { origin, determination, request: Some(request), key, spki_sha256, templates })
}

pub(super) fn item(told: Told) -> Item {
    let Told { device, template, counter, intent, outcome } = told;
    let why = |rule: &str, text: String| vec![super::reason(rule, text)];
    let (outcome, command, reasons) = match outcome {
        ToldOutcome::Signed(command) => (ItemOutcome::Signed, Some(Base64(command.into_vec())), Vec::new()),
        ToldOutcome::Withheld(reasons) => (ItemOutcome::Withheld, None, reasons),
        ToldOutcome::Failed(text) => (ItemOutcome::Failed, None, why("hsm", text)),
        ToldOutcome::NotSigned(text) => (ItemOutcome::NotSigned, None, why("hsm", text)),
        ToldOutcome::Unknown(text) => (ItemOutcome::Unknown, None, why("hsm", text)),
        ToldOutcome::Left => (ItemOutcome::Left, None, Vec::new()),
        ToldOutcome::Refused(reasons) => (ItemOutcome::Refused, None, reasons),
    };
    Item { device, template, counter, outcome, command, intent, reasons }
}

pub(super) fn status(
    recorder: &Recorder,
    keys: &Keys,
    clock: wire::Clock,
    not_ready: Option<Trouble>,
    stopping: bool,
) -> Option<wire::Status> {
    let fold = recorder.fold();
    let (genesis, hash) = fold.genesis()?;
    let durable = recorder.durable();
    let state = match (&not_ready, stopping) {
        (_, true) => wire::ServiceState::Stopping,
        (Some(_), false) => wire::ServiceState::ReadOnly,
        (None, false) => wire::ServiceState::Ready,
    };
    let mut problems: Vec<Trouble> = not_ready.into_iter().collect();
    if let Some(why) = keys.head_trouble() {
        problems.push(Trouble {
            what: format!("the ledger's newest head is not kept on its token: {why}"),
            remedy: "Until it is, an older copy of the state in the place of this one would not be noticed. Make room on the token \
                     or let its user write; it is tried again by itself"
                .into(),
        });
    }
    if fold.clock_untrusted() {
        let what = "the clock jumped; nothing is signed".to_owned();
        problems.push(Trouble { what, remedy: "Compare it with another clock, then `smkictl clock accept`".into() });
    }
    let now = clock.now;
    let in_force = |facts: &&DeterminationFacts| standing(fold, facts, now) == wire::Standing::InForce;
    Some(wire::Status {
        version: env!("CARGO_PKG_VERSION").into(),
        purpose: genesis.purpose,
        origin: genesis.origin.clone(),
        genesis: hash,
        state,
        problems,
        clock,
        ledger: wire::Head { size: durable.size, root: durable.root },
        policy: fold
            .policy()
            .map(|adopted| wire::PolicyHead { sequence: adopted.sequence.into(), sha256: adopted.digest }),
        keys: fold.keys().values().map(|facts| state_of(facts, fold, keys, now)).collect(),
        tokens: super::tokens::standings(keys),
        incidents_open: fold.incidents().values().filter(|facts| facts.closed.is_none()).count() as u64,
        determinations_in_force: fold.determinations().values().filter(in_force).count() as u64,
        unknowns: fold.determinations().values().map(|facts| facts.tally.unknown).sum(),
        jobs: Vec::new(),
        reminders: reminders(fold, now),
    })
}

/// What is due: a ceremony or an exercise (SEC Section L10: the arrangements are tested periodically).
fn reminders(fold: &Fold, at: Timestamp) -> Vec<wire::Trouble> {
    let (Some(adopted), Some(last)) = (fold.policy(), fold.rehearsed_at()) else { return Vec::new() };
    let reminders = adopted.policy.reminders();
    let Some(due) = reminders.overdue(last, at) else { return Vec::new() };
    let (months, source) = (
        reminders.ceremony_or_exercise_months,
        if reminders.is_set {
            "as the policy says"
        } else {
            "a default of ours; the interval of SEC Appendix L was not read"
        },
    );
    vec![wire::Trouble {
        what: format!(
            "the last ceremony or exercise was at {last}, and another was due by {due} ({months} months, {source})"
        ),
        remedy: "Rehearse with `smkictl exercise`, then `smkictl exercise record`".into(),
    }]
}

pub(super) fn key_state(recorder: &Recorder, keys: &Keys, key: &KeyLabel) -> Option<wire::KeyState> {
    let facts = recorder.fold().keys().get(key)?;
    Some(state_of(facts, recorder.fold(), keys, recorder.moment().at))
}

/// Who presented for a key, and who still can, for the incident whose key it is to be; none for a key that is not opened by Key
/// Custodians.
pub(super) fn custody(facts: &KeyFacts, fold: &Fold, at: Timestamp) -> Option<wire::Custody> {
    let policy = &fold.policy()?.policy;
    let activation = policy.key(&facts.record.label)?.activation;
    if activation == Activation::Stored {
        return None;
    }
    // All of them are for one incident, unless the last is for another than the first was.
    let last = facts.presented.values().max_by_key(|presented| presented.entry);
    let count = last.map(|last| Count::of(policy, facts, (&last.incident, last.determination), at));
    let dealt = facts.shares.as_ref().filter(|_| activation == Activation::Custodians);
    let share_of = |person: &Person| {
        let holders = dealt.map_or(&[][..], |dealt| &dealt.holders).iter();
        holders
            .filter(|holder| holder.person == person.id)
            .map(|holder| holder.share.clone())
            .find(|share| person.shares.contains(share))
    };
    let standing = |person: &Person| {
        let presented = count.as_ref().and_then(|count| count.by.get(&person.id));
        wire::CustodianStanding {
            person: person.id.clone(),
            party: person.party.to_string(),
            share: share_of(person),
            entry: presented.map(|presented| presented.entry),
            until: presented.map(|presented| presented.until),
        }
    };
    let (need, parties_need) = custodians::needed(policy, facts);
    let in_force = policy.roster(Role::KeyCustodian, at).map(standing);
    let (presented, others): (Vec<_>, Vec<_>) = in_force.partition(|standing| standing.entry.is_some());
    let can_present =
        others.into_iter().filter(|other| activation == Activation::ProtectedPath || other.share.is_some());
    Some(wire::Custody {
        generation: dealt.map(|dealt| dealt.generation),
        have: count.as_ref().map_or(0, Count::have),
        need,
        parties: count.as_ref().map_or(0, Count::parties_have),
        parties_need,
        enough: count.as_ref().is_some_and(Count::is_enough),
        presented,
        can_present: can_present.collect(),
        not_counted: count.iter().flat_map(|count| &count.not_counted).map(ToString::to_string).collect(),
    })
}

/// The ledger key is active while its token is there, without an entry and without an end; the others by their entry, as long as one
/// of their tokens is up.
fn state_of(facts: &KeyFacts, fold: &Fold, keys: &Keys, at: Timestamp) -> wire::KeyState {
    const AGAIN: &str =
        "Once that is mended, lock the key and activate it again: what is asked for with the same request id goes on";
    let label = &facts.record.label;
    let (condition, is_active, tokens) = match facts.record.use_ {
        KeyUse::Ledger => {
            let (back, again) = ("It is tried again by itself", "Nothing is tried by itself until then");
            let ledger = keys.ledger();
            let is_there = ledger.is_some();
            let condition = ledger.as_ref().map(Token::condition);
            (condition, is_there, vec![token_of(facts, &facts.record.token, ledger, (back, again))])
        }
        KeyUse::Recovery | KeyUse::Contingency => {
            let active = keys.active(label);
            let of_key = |name: TokenName| {
                let token = active.as_ref().and_then(|active| active.token(&name));
                let mut of_key = token_of(facts, &name, token, ("It is tried again by itself", AGAIN));
                if active.is_some() && of_key.state == wire::KeyTokenState::Off {
                    let what = keys.left_out(label, &name);
                    let what =
                        what.unwrap_or_else(|| "the policy did not have the key there when it was activated".into());
                    of_key.state = wire::KeyTokenState::LeftOut;
                    of_key.trouble = Some(Trouble { what, remedy: AGAIN.into() });
                }
                of_key
            };
            let tokens = tokens_of(facts, fold).into_iter().map(of_key).collect();
            (active.as_ref().map(Several::condition), facts.is_active(at), tokens)
        }
    };
    let is_up = matches!(condition, None | Some(Condition::Up));
    // What is wrong with one token of several is told with that token.
    let worst = tokens.iter().find(|token| token.state != wire::KeyTokenState::Up && token.trouble.is_some());
    let trouble = worst.filter(|_| !is_up).and_then(|token| token.trouble.clone());
    wire::KeyState {
        key: label.clone(),
        use_: facts.record.use_,
        token: facts.record.token.clone(),
        active: is_active && is_up,
        until: facts.active.flatten(),
        incident: facts.active_for.clone(),
        trouble,
        tokens,
        custody: custody(facts, fold, at),
        contingency: contingency(facts, fold, keys),
    }
}

/// How the contingency material of a key stands; none of a key that has none.
fn contingency(facts: &KeyFacts, fold: &Fold, keys: &Keys) -> Option<wire::ContingencyState> {
    let label = &facts.record.label;
    let of = fold.contingency(label)?;
    let spent = of
        .spent
        .as_ref()
        .map(|(incident, determination)| wire::SpentFor { incident: incident.clone(), determination: *determination });
    let held = of.released.is_some_and(|determination| symmetric::holds(fold, keys, label, determination));
    Some(wire::ContingencyState { root: of.root, spent, released: of.released, held })
}

/// A token of a key, with what brings it back if it is down, and if it is locked.
fn token_of(facts: &KeyFacts, name: &TokenName, token: Option<Token>, (back, again): (&str, &str)) -> wire::KeyToken {
    let (state, trouble) = match token.map(|token| token.condition()) {
        None => (wire::KeyTokenState::Off, None),
        Some(Condition::Up) => (wire::KeyTokenState::Up, None),
        Some(Condition::Down(error)) => {
            (wire::KeyTokenState::Down, Some(Trouble { what: error.to_string(), remedy: back.into() }))
        }
        Some(Condition::Locked(error)) => {
            (wire::KeyTokenState::Locked, Some(Trouble { what: error.to_string(), remedy: again.into() }))
        }
    };
    wire::KeyToken { token: name.clone(), serial: facts.serial_on(name).map(ToOwned::to_owned), state, trouble }
}

fn progress(progress: &Progress) -> wire::Progress {
    wire::Progress {
        notification: progress.notification.clone(),
        state: progress.state,
        since: progress.since,
        method: progress.method,
        devices: progress.targets.counts(),
        done: progress.done.iter().map(|(step, taken)| wire::Done { step: step.clone(), entry: taken.entry }).collect(),
        duties: progress
            .duties
            .iter()
            .map(|(id, duty)| wire::Duty {
                duty: id.clone(),
                recipient: duty.recipient.to_string(),
                text: duty.text.to_string(),
                arisen: duty.arisen,
                due: duty.due,
                met: duty.met,
            })
            .collect(),
        stranded_accepted: progress.stranded_accepted.map(|accepted| accepted.stranded),
        overridden_accepted: progress.stranded_accepted.map(|accepted| accepted.overridden),
    }
}

pub(super) fn incidents(fold: &Fold) -> wire::Incidents {
    wire::Incidents { incidents: fold.incidents().values().map(|facts| incident(fold, facts)).collect() }
}

/// One incident, with the determinations on it.
pub(super) fn incident(fold: &Fold, facts: &IncidentFacts) -> wire::Incident {
    wire::Incident {
        incident: facts.id.clone(),
        compromised: facts.compromised.clone(),
        key: facts.key,
        description: facts.description.to_string(),
        opened: facts.opened_at,
        closed: facts.closed_at,
        determinations: fold
            .determinations()
            .values()
            .filter(|determination| determination.incident == facts.id)
            .map(|determination| determination.id)
            .collect(),
        progress: facts.progress.as_ref().map(progress),
    }
}

/// How a determination stands, as it is told: whatever it still permitted ended with its incident.
fn standing(fold: &Fold, facts: &DeterminationFacts, at: Timestamp) -> wire::Standing {
    let is_closed = fold.incidents().get(&facts.incident).is_some_and(|incident| incident.closed.is_some());
    match facts.standing(at) {
        Standing::NotYet | Standing::AwaitsSchedule | Standing::InForce | Standing::Suspended if is_closed => {
            wire::Standing::IncidentClosed
        }
        standing => standing.into(),
    }
}

pub(super) fn determinations(recorder: &Recorder) -> Result<wire::Determinations, CannotRecord> {
    let all = recorder.fold().determinations().values().map(|facts| determined(recorder, facts));
    Ok(wire::Determinations { determinations: all.collect::<Result<_, _>>()? })
}

/// One determination, with its document.
pub(super) fn determined(recorder: &Recorder, facts: &DeterminationFacts) -> Result<wire::Determination, CannotRecord> {
    let tally = facts.tally;
    Ok(wire::Determination {
        determination: facts.id,
        incident: facts.incident.clone(),
        standing: standing(recorder.fold(), facts, recorder.moment().at),
        key: facts.key.as_ref().map(|(key, _)| key.clone()),
        from: facts.window.from,
        until: facts.window.until,
        proposer: facts.proposer.clone(),
        signers: facts.approvers.iter().cloned().collect(),
        sha256: facts.document,
        devices: facts.scope.as_ref().map(|scope| scope.device_list),
        devices_count: facts.scope.as_ref().map(|scope| scope.devices),
        entry: facts.recorded,
        intents_max: facts.scope.as_ref().map(|scope| scope.intents_max),
        done: Summary {
            intents: facts.intents,
            signed: tally.signed,
            withheld: 0,
            failed: tally.failed,
            not_signed: tally.not_signed,
            unknown: tally.unknown,
            refused: 0,
            left: tally.left,
        },
        document: Base64(recorder.blob(facts.document)?),
    })
}

pub(super) fn policy(recorder: &Recorder) -> Result<Option<wire::Policy>, CannotRecord> {
    let Some(adopted) = recorder.fold().policy() else { return Ok(None) };
    let files = book::policy_files(adopted.digest, recorder)?;
    Ok(Some(wire::Policy {
        sequence: adopted.sequence.into(),
        sha256: adopted.digest,
        purpose: adopted.policy.purpose(),
        entry: adopted.entry,
        files: files.into_iter().map(|(path, octets)| (path, Base64(octets))).collect(),
    }))
}

fn entry_at(reader: &dyn Reader, index: u64) -> Result<Option<Entry>, StoreError> {
    Ok(Entry::from_leaf(&reader.leaf(index)?).ok())
}

/// How far a request has come: its entries are those from its first batch on that belong to it.
pub(super) fn request(
    reader: &dyn Reader,
    request: RequestId,
    running: bool,
) -> Result<Option<wire::RequestState>, StoreError> {
    let Some(facts) = reader.request(request)? else { return Ok(None) };
    let Some(Entry { at, event: Event::Batch(first), .. }) = entry_at(reader, facts.first_batch)? else {
        return Ok(None);
    };
    let (mut batches, mut intents, mut done) = (BTreeSet::new(), BTreeSet::new(), Summary::default());
    let mut over = false;
    reader.leaves(facts.first_batch..reader.head()?.size, &mut |leaf| {
        let Some(glance) = Glance::at(leaf.octets) else { return ControlFlow::Continue(()) };
        match Step::at(leaf.index, &glance) {
            Ok(Some(Step::Batch(index, batch))) if batch.request == request => drop(batches.insert(index)),
            Ok(Some(Step::Intent(index, intent))) if batches.contains(&intent.batch) => {
                intents.insert(index);
                done.intents += 1;
            }
            Ok(Some(Step::Outcome(outcome))) if intents.remove(&outcome.intent) => match outcome.result {
                SignResult::Signed(_) => done.signed += 1,
                SignResult::Failed(_) => done.failed += 1,
                SignResult::NotSigned(_) => done.not_signed += 1,
                SignResult::Unknown(_) => done.unknown += 1,
            },
            // Those of other requests.
            Ok(Some(Step::Batch(..) | Step::Intent(..) | Step::Outcome(_))) | Err(_) => {}
            Ok(None) => match Entry::from_leaf(leaf.octets).map(|entry| entry.event) {
                Ok(Event::Refused(refused)) if refused.request == Some(request) => done.refused += 1,
                Ok(Event::JobPassed(passed)) if passed.request == request => {
                    done.refused += passed.refused + passed.already;
                }
                // No intent of the request comes after these, but under another batch of it.
                Ok(Event::Started(_)) => over |= facts.last_batch < leaf.index,
                Ok(Event::JobEnded(ended)) => over |= ended.request == request,
                Ok(Event::JobCancelled(cancelled)) => over |= cancelled.request == request,
                Ok(_) | Err(_) => {}
            },
        }
        // Of the rest of the ledger nothing is about it.
        if over && !running && intents.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(Some(wire::RequestState { request, determination: first.determination, at, running, done }))
}

pub(super) fn unknowns(
    reader: &dyn Reader,
    key: &KeyLabel,
    determination: DeterminationId,
) -> Result<wire::Unknowns, StoreError> {
    let (found, more) = pipeline::unknowns_of(reader, key, determination, UNKNOWNS_MAX)?;
    let mut unknowns = Vec::with_capacity(found.len());
    for (device, facts) in found {
        let at = entry_at(reader, facts.intent)?.map_or(Timestamp::MIN, |entry| entry.at);
        unknowns.push(wire::Unknown {
            device,
            template: facts.template,
            counter: facts.counter,
            intent: facts.intent,
            attempt: facts.attempt,
            at,
        });
    }
    Ok(wire::Unknowns { unknowns, more })
}

/// Entries that are read for one answer at most, where every one must be looked at: some tenths of a second. The answer says where to go
/// on.
pub(super) const READ_MAX: u64 = 100_000;

pub(super) fn entries(reader: &dyn Reader, of: &wire::EntriesOf) -> Result<wire::Entries, StoreError> {
    let size = reader.head()?.size;
    let (from, until) = (of.from.unwrap_or(0).min(size), of.until.unwrap_or(size).min(size));
    let until = until.max(from);
    let from = if from == 0 { first_about(reader, of, until)? } else { from };
    let mut about = About::new(of, reader);
    let (mut entries, mut next) = (Vec::new(), None);
    let mut visit = |leaf: StoredLeaf<'_>| {
        if about.passes_over(leaf.octets) {
            return ControlFlow::Continue(());
        }
        let Ok(entry) = Entry::from_leaf(leaf.octets) else { return ControlFlow::Continue(()) };
        if !about.takes(leaf.index, &entry) || leaf.index < from {
            return ControlFlow::Continue(());
        }
        if entries.len() == wire::Entries::COUNT_MAX {
            next = Some(leaf.index);
            return ControlFlow::Break(());
        }
        if let Some(entry) =
            std::str::from_utf8(leaf.octets).ok().and_then(|text| RawValue::from_string(text.into()).ok())
        {
            entries.push(wire::EntryAt { index: leaf.index, entry });
        }
        ControlFlow::Continue(())
    };
    if let Some(device) = of.device {
        of_device(reader, device, 0..until, &mut visit)?;
    } else if of.kind.as_ref().is_some_and(|kind| !Common::KINDS.contains(&kind.as_str())) {
        reader.uncommon(from..until, &mut visit)?;
    } else {
        let end = until.min(from + READ_MAX);
        reader.leaves(from..end, &mut visit)?;
        next = next.or((end < until).then_some(end));
    }
    Ok(wire::Entries { entries, next })
}

/// Where what is asked about an incident or a determination begins: an intent and an outcome follow what their batch belongs to.
fn first_about(reader: &dyn Reader, of: &wire::EntriesOf, until: u64) -> Result<u64, StoreError> {
    if of.device.is_some() || (of.incident.is_none() && of.determination.is_none()) {
        return Ok(0);
    }
    let (mut about, mut first) = (About::new(of, reader), until);
    reader.uncommon(0..until, &mut |leaf| {
        if Entry::from_leaf(leaf.octets).is_ok_and(|entry| about.concerns(leaf.index, &entry.event)) {
            first = leaf.index;
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    Ok(first)
}

/// What of an intent says whose it is.
#[derive(Deserialize)]
struct OfBatch {
    batch: u64,
}

/// Visits those entries of `range`, in order, that can be about a Device: what is uncommon, its intents, and what became of them. What
/// was signed of another Device is never read.
pub(super) fn of_device(
    reader: &dyn Reader,
    device: DeviceId,
    range: Range<u64>,
    visit: &mut dyn FnMut(StoredLeaf<'_>) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let mut common = BTreeSet::new();
    for intent in reader.intents_of(device)?.into_iter().filter(|intent| range.contains(intent)) {
        common.insert(intent);
        // Its outcome comes within a chunk or two; one that was not signed is uncommon, and ends the search too.
        reader.leaves(intent..range.end, &mut |leaf| {
            let is_signed = Common::of(leaf.octets) == Some(Common::Signed { intent });
            let is_its = |entry: Entry| matches!(entry.event, Event::Outcome(outcome) if outcome.intent == intent);
            if is_signed {
                common.insert(leaf.index);
            }
            let is_end =
                is_signed || (Common::of(leaf.octets).is_none() && Entry::from_leaf(leaf.octets).is_ok_and(is_its));
            if is_end { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
    }
    let mut failed = Ok(());
    reader.uncommon(range, &mut |leaf| {
        while let Some(index) = common.first().copied().filter(|index| *index < leaf.index) {
            common.remove(&index);
            match visit_one(reader, index, visit) {
                Ok(false) => {}
                Ok(true) => {
                    common.clear();
                    return ControlFlow::Break(());
                }
                Err(error) => {
                    failed = Err(error);
                    return ControlFlow::Break(());
                }
            }
        }
        match visit(leaf) {
            ControlFlow::Continue(()) => ControlFlow::Continue(()),
            ControlFlow::Break(()) => {
                common.clear();
                ControlFlow::Break(())
            }
        }
    })?;
    failed?;
    for index in common {
        if visit_one(reader, index, visit)? {
            break;
        }
    }
    Ok(())
}

/// Visits one entry. Answers whether it was the last to be visited.
fn visit_one(
    reader: &dyn Reader,
    index: u64,
    visit: &mut dyn FnMut(StoredLeaf<'_>) -> ControlFlow<()>,
) -> Result<bool, StoreError> {
    let mut is_last = false;
    reader.leaves(index..index + 1, &mut |leaf| {
        is_last = visit(leaf).is_break();
        ControlFlow::Continue(())
    })?;
    Ok(is_last)
}

/// Which entries are asked for: those that every filter lets through. An intent names a batch, an outcome an intent, a schedule a
/// determination: what they belong to is kept while the ledger is read.
pub(super) struct About<'a> {
    of: &'a wire::EntriesOf,
    /// For directions, which name their incident in their documents alone.
    reader: &'a dyn Reader,
    incidents: BTreeMap<DeterminationId, IncidentId>,
    batches: BTreeMap<u64, DeterminationId>,
    jobs: BTreeMap<RequestId, DeterminationId>,
    /// Whether what was recorded before the part that is read was looked at for these.
    looked_back: bool,
    /// Intents that were asked for and have no outcome yet.
    open: BTreeSet<u64>,
    /// Intents of the Device that was asked for.
    of_device: BTreeSet<u64>,
}

/// What an entry is about.
#[derive(Default)]
struct Subject {
    incident: Option<IncidentId>,
    determination: Option<DeterminationId>,
    device: Option<DeviceId>,
}

impl<'a> About<'a> {
    pub(super) fn new(of: &'a wire::EntriesOf, reader: &'a dyn Reader) -> Self {
        let (incidents, batches, jobs) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (open, of_device) = (BTreeSet::new(), BTreeSet::new());
        Self { of, reader, incidents, batches, jobs, looked_back: false, open, of_device }
    }

    fn needs_context(&self) -> bool {
        self.of.incident.is_some() || self.of.determination.is_some() || self.of.device.is_some()
    }

    pub(super) fn takes(&mut self, index: u64, entry: &Entry) -> bool {
        let ours = !self.needs_context() || self.concerns(index, &entry.event);
        ours && self.of.kind.as_ref().is_none_or(|kind| entry.event.kind() == kind)
    }

    /// Whether a leaf is certainly not about what is asked for, as is seen without reading all of it: of a job of millions an intent of
    /// another, and its signed outcome.
    fn passes_over(&mut self, leaf: &[u8]) -> bool {
        if self.of.incident.is_none() && self.of.determination.is_none() {
            return false;
        }
        match Common::of(leaf) {
            // One before the part that is read is looked up.
            Some(Common::Signed { intent }) => !self.open.contains(&intent) && intent >= self.of.from.unwrap_or(0),
            Some(Common::Intent) => {
                let batch = Glance::at(leaf).and_then(|glance| glance.read::<OfBatch>().ok());
                let determination = batch.and_then(|OfBatch { batch }| self.of_batch(batch));
                determination.is_some_and(|determination| {
                    let subject = self.of_determination(determination);
                    let wire::EntriesOf { incident, determination, .. } = self.of;
                    (incident.is_some() && subject.incident != *incident)
                        || (determination.is_some() && subject.determination != *determination)
                })
            }
            None => false,
        }
    }

    fn concerns(&mut self, index: u64, event: &Event) -> bool {
        let subject = match event {
            Event::IncidentOpened(entry) => Self::of_incident(&entry.incident),
            Event::StepTaken(entry) => Self::of_incident(&entry.incident),
            Event::IncidentClosed(entry) => Self::of_incident(&entry.incident),
            Event::DeterminationRecorded(entry) => {
                self.incidents.insert(entry.determination, entry.incident.clone());
                self.of_determination(entry.determination)
            }
            Event::ScheduleRecorded(entry) => self.of_determination(entry.determination),
            Event::DeterminationSuspended(entry) => self.of_determination(entry.determination),
            Event::DeterminationWithdrawn(entry) => self.of_determination(entry.determination),
            Event::Batch(entry) => {
                self.batches.insert(index, entry.determination);
                self.of_determination(entry.determination)
            }
            Event::Intent(entry) => {
                let Some(determination) = self.of_batch(entry.batch) else { return false };
                Subject { device: Some(entry.device), ..self.of_determination(determination) }
            }
            Event::Outcome(entry) => {
                // An intent before the part that is read belongs to what its batch belongs to.
                if !self.open.contains(&entry.intent)
                    && entry.intent < self.of.from.unwrap_or(0)
                    && let Ok(Some(Entry { event: event @ Event::Intent(_), .. })) = entry_at(self.reader, entry.intent)
                {
                    self.concerns(entry.intent, &event);
                }
                return self.open.remove(&entry.intent);
            }
            Event::Released(entry) => {
                let ours =
                    |(from, until): &(u64, u64)| self.of_device.range(*from..(*until).max(*from)).next().is_some();
                let device = self.of.device.filter(|_| entry.intents.iter().any(ours));
                Subject { device, ..self.of_determination(entry.determination) }
            }
            Event::Settled(entry) => {
                Subject { device: Some(entry.device), ..self.of_determination(entry.determination) }
            }
            Event::Refused(entry) => {
                let known = entry.determination.map(|id| self.of_determination(id)).unwrap_or_default();
                Subject { incident: entry.incident.clone().or(known.incident), device: entry.device, ..known }
            }
            Event::FileAccepted(entry) => Self::of_incident(&entry.incident),
            Event::ContingencyChecked(entry) => Self::of_incident(&entry.incident),
            Event::SymmetricKeySpent(entry) => self.of_determination(entry.determination),
            Event::SymmetricRelease(entry) => self.of_determination(entry.determination),
            Event::SymmetricReleased(entry) => {
                let Ok(Some(Entry { event: Event::SymmetricRelease(release), .. })) =
                    entry_at(self.reader, entry.intent)
                else {
                    return false;
                };
                self.of_determination(release.determination)
            }
            Event::CustodianPresented(entry) => Self::of_incident(&entry.incident),
            Event::KeyActivated(KeyActivated { incident: Some(incident), .. })
            | Event::KeyLocked(KeyLocked { incident: Some(incident), .. }) => Self::of_incident(incident),
            Event::ResponsesTaken(entry) => self.of_determination(entry.determination),
            Event::SigningResumed(entry) => self.of_determination(entry.determination),
            Event::JobStarted(entry) => {
                self.jobs.insert(entry.request, entry.determination);
                self.of_determination(entry.determination)
            }
            Event::JobPassed(entry) => self.of_job(entry.request),
            Event::JobPaused(entry) => self.of_job(entry.request),
            Event::JobResumed(entry) => self.of_job(entry.request),
            Event::JobCancelled(entry) => self.of_job(entry.request),
            Event::JobEnded(entry) => self.of_job(entry.request),
            Event::DirectionRecorded(entry) => {
                match direction(self.reader, entry).map(|direction| direction.form().directs.clone()) {
                    Some(Directs::Departure { incident, .. }) => Self::of_incident(&incident),
                    // About every incident, or none.
                    Some(Directs::Extension { .. }) | None => return false,
                }
            }
            Event::Genesis(_)
            | Event::PolicyAdopted(_)
            | Event::CertificationIntent(_)
            | Event::CertificateImported(_)
            | Event::Started(_)
            | Event::Stopped(_)
            | Event::KeyCopied(_)
            | Event::SharesBegun(_)
            | Event::SharesDealt(_)
            | Event::KeyMade(_)
            | Event::KeyDestruction(_)
            | Event::KeyDestroyed(_)
            | Event::CeremonyRecorded(_)
            | Event::KeyActivated(_)
            | Event::KeyLocked(_)
            | Event::RefusalsFolded(_)
            | Event::ClockJumped(_)
            | Event::TokenHealth(_)
            | Event::LoginRetried(_)
            | Event::Snapshot(_)
            | Event::ClockAccepted(_)
            | Event::ExerciseRecorded(_)
            | Event::ContingencyPrepared(_)
            | Event::RootImported(_)
            | Event::DeviceCertificatesImported(_) => return false,
        };
        let ours = self.lets_through(&subject);
        if ours && matches!(event, Event::Intent(_)) {
            self.open.insert(index);
            if self.of.device.is_some() {
                self.of_device.insert(index);
            }
        }
        ours
    }

    fn lets_through(&self, subject: &Subject) -> bool {
        let wire::EntriesOf { from: _, until: _, kind: _, incident, determination, device } = self.of;
        (incident.is_none() || subject.incident == *incident)
            && (determination.is_none() || subject.determination == *determination)
            && (device.is_none() || subject.device == *device)
    }

    fn of_incident(incident: &IncidentId) -> Subject {
        Subject { incident: Some(incident.clone()), ..Subject::default() }
    }

    /// Under which determination a batch is, which may lie before the part that is read.
    fn of_batch(&mut self, index: u64) -> Option<DeterminationId> {
        if let Some(known) = self.batches.get(&index) {
            return Some(*known);
        }
        let Ok(Some(Entry { event: Event::Batch(batch), .. })) = entry_at(self.reader, index) else { return None };
        self.incidents.insert(batch.determination, batch.incident);
        self.batches.insert(index, batch.determination);
        Some(batch.determination)
    }

    /// Looks once for the determinations and jobs that were recorded before the part that is read.
    fn look_back(&mut self) {
        if std::mem::replace(&mut self.looked_back, true) {
            return;
        }
        let (incidents, jobs) = (&mut self.incidents, &mut self.jobs);
        let looked = self.reader.uncommon(0..self.of.from.unwrap_or(0), &mut |leaf| {
            match Entry::from_leaf(leaf.octets).map(|entry| entry.event) {
                Ok(Event::DeterminationRecorded(entry)) => {
                    incidents.insert(entry.determination, entry.incident);
                }
                Ok(Event::JobStarted(entry)) => {
                    jobs.insert(entry.request, entry.determination);
                }
                _ => {}
            }
            ControlFlow::Continue(())
        });
        // What cannot be read is not known; whoever reads the ledger next is told why.
        drop(looked);
    }

    fn of_determination(&mut self, determination: DeterminationId) -> Subject {
        if self.of.incident.is_some() && !self.incidents.contains_key(&determination) {
            self.look_back();
        }
        let incident = self.incidents.get(&determination).cloned();
        Subject { incident, determination: Some(determination), device: None }
    }

    fn of_job(&mut self, request: RequestId) -> Subject {
        if !self.jobs.contains_key(&request) {
            self.look_back();
        }
        let determination = self.jobs.get(&request).copied();
        determination.map(|determination| self.of_determination(determination)).unwrap_or_default()
    }
}

/// The document of a determination, if it is there.
pub(super) fn determination(reader: &dyn Reader, recorded: &DeterminationRecorded) -> Option<Written<Determination>> {
    Written::read(crate::state::document(reader, recorded.document).ok()?).ok()
}

/// The document of a direction, if it is there.
pub(super) fn direction(reader: &dyn Reader, recorded: &DirectionRecorded) -> Option<Written<Direction>> {
    Written::read(crate::state::document(reader, recorded.document).ok()?).ok()
}

/// Every document that an entry names.
pub(super) fn blobs(reader: &dyn Reader) -> Result<wire::Blobs, StoreError> {
    let mut named: BTreeSet<Digest> = BTreeSet::new();
    let mut policies = Vec::new();
    // Neither an intent nor what was signed names any.
    reader.uncommon(0..reader.head()?.size, &mut |leaf| {
        if let Ok(entry) = Entry::from_leaf(leaf.octets) {
            named.extend(entry.event.blobs());
            if let Event::PolicyAdopted(adopted) = entry.event {
                policies.push(adopted.policy);
            }
        }
        ControlFlow::Continue(())
    })?;
    for policy in policies {
        let sums = crate::state::document(reader, policy).map_err(|_| StoreError::NoSuchBlob { digest: policy })?;
        named.extend(book::sums(&sums).into_iter().map(|(_, digest)| digest));
    }
    Ok(wire::Blobs { blobs: named.into_iter().collect() })
}

#[cfg(test)]
mod tests;
