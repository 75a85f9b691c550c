//! The recorder and the start that finds what it left: what is believed, and what cannot stop it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use smkid::domain::fold::Fold;
use smkid::domain::ledger::checkpoint::{Checkpoint, SignedCheckpoint};
use smkid::domain::ledger::contingency::{
    ContingencyPrepared, ReleaseResult, SymmetricKeySpent, SymmetricRelease, SymmetricReleased,
};
use smkid::domain::ledger::entry::{
    Actor, ClockAccepted, Entry, Event, JobStarted, ProfileInForce, Reason, RefusalsFolded, Refused, ResponseTally,
    ResponsesTaken, Role, Settled, SigningResumed, Started, Stopped,
};
use smkid::domain::ledger::jobs::JobList;
use smkid::domain::ledger::merkle::Head;
use smkid::domain::names::{Digest, IncidentId, KeyId, KeyLabel, RequestId};
use smkid::hsm::HsmError;
use smkid::pipeline::{self, Request, WantedSet};
use smkid::recorder::{
    CannotRecord, CheckpointSigner, Recorded, Recorder, SNAPSHOT_LEAVES, SNAPSHOT_LEAVES_AT_STOP, SNAPSHOT_LISTED,
    record_alone,
};
use smkid::service::clock::SILENCE_MS_MAX;
use smkid::state::{self, StateError};
use smkid::store::memory::MemoryStore;
use smkid::store::{Reader as _, Store as _, StoreError};

use crate::audit::{FIRST, responses};
use crate::support::ledger_fixture::{Fixture, MINUTE_MS, Signer, device, operator};

#[test]
fn no_refusal_is_too_long_to_be_recorded_whatever_was_sent() {
    let fixture = Fixture::new();
    let mut recorder = fixture.without_key();
    let check = |recorder: &mut smkid::recorder::Recorder, reasons: Vec<Reason>, told: usize| {
        let by = Actor { account: format!("account-{}", reasons.len()).into(), ..operator() };
        let refused = Refused {
            operation: "document-record".into(),
            incident: None,
            determination: None,
            request: None,
            device: None,
            asked: Digest([0; 32]),
            reasons,
        };
        let entry = record_alone(recorder, |recorder| recorder.refuse(&by, refused)).unwrap().into_inner();
        let leaf = recorder.store().leaf(entry.unwrap()).unwrap();
        let Event::Refused(refused) = Entry::from_leaf(&leaf).unwrap().event else { panic!("no refusal") };
        assert_eq!(refused.reasons.len(), told);
    };
    let reason = |text: &str, times: usize| Reason { rule: "policy".into(), text: text.repeat(times).into() };
    check(&mut recorder, vec![reason("a", 1); 100], 100);
    check(&mut recorder, vec![reason("a", 1); 101], 101);
    check(&mut recorder, vec![reason("a", 1); 200], 101);
    // A path of 70,000 characters, which the fault repeats; and each character the longest that JSON can make it.
    check(&mut recorder, vec![reason("a", 70_000)], 1);
    check(&mut recorder, vec![reason("\u{1}", 70_000); 3], 3);
    check(&mut recorder, vec![reason("\u{1}", 70_000); 99], 6);
}

#[test]
fn a_head_is_what_the_ledger_s_key_signed_whatever_the_rows_say() {
    let fixture = Fixture::new();
    let reader = fixture.reader();
    let signed: Vec<u64> = reader.checkpoints(0, usize::MAX).unwrap().iter().map(|signed| signed.head.size).collect();
    let size = reader.head().unwrap().size;
    let is_head = |size| state::head(&*reader, fixture.fold(), size).is_some();
    for size in 0..=size + 1 {
        assert_eq!(is_head(size), signed.contains(&size), "{size}");
    }
    // A row of a true root, with the note of another head.
    let unsigned = (1..size).find(|size| !signed.contains(size)).unwrap();
    let head = Head { size: unsigned, root: reader.root_at(unsigned).unwrap() };
    fixture.in_memory().put_checkpoint(head, &reader.latest_checkpoint().unwrap().unwrap().note).unwrap();
    assert!(reader.checkpoints(unsigned, 1).unwrap()[0].head == head && !is_head(unsigned));
}

#[test]
fn a_start_believes_no_document_that_lies_under_no_checkpoint_and_that_too_few_signed() {
    let append = |members: &[usize]| {
        let mut fixture = Fixture::new();
        let (blobs, event) = fixture.another_determination(members);
        let mut without_key = fixture.without_key();
        let queued = record_alone(&mut without_key, |recorder| {
            for blob in blobs {
                recorder.queue_blob(blob);
            }
            recorder.queue(&operator(), Event::DeterminationRecorded(event.clone()))
        });
        let index = queued.unwrap().into_inner();
        assert!(without_key.checkpointed() <= index, "no checkpoint covers it");
        (index, event.determination, fixture.caught_up())
    };
    // The crash between commit and checkpoint: what two members signed stands.
    let (_, determination, fold) = append(&[0, 2]);
    assert!(fold.unwrap().determinations().contains_key(&determination));
    for members in [&[][..], &[0]] {
        let (at, _, fold) = append(members);
        match fold {
            Err(StateError::NotPermitted { index, reason }) => {
                assert_eq!(index, at);
                assert!(reason.contains("quorum: "), "{reason}");
            }
            other => panic!("{members:?}: {other:?}"),
        }
    }
}

/// What the next start makes of an entry that somebody appended while the daemon was down: durable, and under no checkpoint.
fn appended(fixture: &Fixture, by: &Actor, event: &Event, blobs: &[Vec<u8>]) -> (u64, Result<Fold, StateError>) {
    let mut without_key = fixture.without_key();
    let queued = record_alone(&mut without_key, |recorder| {
        for blob in blobs {
            recorder.queue_blob(blob.clone());
        }
        recorder.queue(by, event.clone())
    });
    let index = queued.unwrap().into_inner();
    assert!(without_key.checkpointed() <= index, "no checkpoint covers it");
    (index, fixture.caught_up())
}

#[test]
fn a_start_believes_no_answer_and_no_operator_that_lies_under_no_checkpoint_and_is_not_borne_out() {
    let by = |person: &str, role| Actor { person: Some(person.parse().unwrap()), role, ..operator() };
    let ours = || by("operator-1", Role::Operator);
    // Two Devices answered, one of them that it failed.
    let answers = |by: Actor, change: fn(&mut String, &mut ResponsesTaken)| {
        let fixture = Fixture::new();
        let mut forge = fixture.forge("end");
        let at = responses(&mut forge, FIRST, change);
        let event = forge.entry(at).event;
        let blobs: Vec<Vec<u8>> = forge.blobs.into_values().collect();
        appended(&fixture, &by, &event, &blobs)
    };
    let (_, fold) = answers(ours(), |_, _| {});
    assert!(fold.is_ok(), "the crash between commit and checkpoint: {:?}", fold.err());
    let refused = |(at, fold): (u64, Result<Fold, StateError>), says: &str| match fold {
        Err(StateError::NotPermitted { index, reason }) => {
            assert_eq!(index, at);
            assert!(reason.contains(says), "expected {says:?}, found {reason}");
        }
        other => panic!("expected {says:?}, found {other:?}"),
    };
    let recovered = |results: &mut String, taken: &mut ResponsesTaken| {
        *results = results.replace("failed,supplier digitalSignature: noTrustAnchor", "recovered");
        taken.tally = ResponseTally { recovered: 2, ..ResponseTally::default() };
    };
    refused(answers(ours(), recovered), "noTrustAnchor");
    refused(answers(ours(), |_, taken| taken.profile = Some(base())), "expected ResponsesTaken");
    refused(answers(Actor::daemon(), |_, _| {}), "expected it to be asked for by operator");
    refused(answers(by("member-1", Role::Operator), |_, _| {}), "the policy maps account operator-1 to operator-1");

    let fixture = Fixture::new();
    let resumed = SigningResumed {
        incident: "INC-1".parse().unwrap(),
        profile: None,
        determination: fixture.determination,
        stopped_by: 7,
        reason: "It was tested".into(),
    };
    refused(appended(&fixture, &ours(), &Event::SigningResumed(resumed), &[]), "nothing-stopped");
    let fixture = Fixture::new();
    let settled = Settled {
        intent: 7,
        determination: fixture.determination,
        key: "recovery-1".parse().unwrap(),
        device: device(0),
        reason: "It is to be visited".into(),
    };
    refused(appended(&fixture, &ours(), &Event::Settled(settled), &[]), "is not unknown");
}

/// A profile, in a ledger whose policy has none.
fn base() -> ProfileInForce {
    ProfileInForce { base: "base".parse().unwrap(), variations: Vec::new() }
}

#[test]
fn an_accepted_clock_under_no_checkpoint_is_not_trusted_after_the_next_start() {
    let mut fixture = Fixture::new();
    fixture.wait(SILENCE_MS_MAX + 1);
    fixture.restart();
    assert!(started(&mut fixture), "after a long silence");
    let by = Actor { person: Some("operator-1".parse().unwrap()), ..operator() };
    let accepted = Event::ClockAccepted(ClockAccepted { reason: "It is right".into(), from: None });
    let (_, fold) = appended(&fixture, &by, &accepted, &[]);
    assert!(!fold.unwrap().clock_untrusted());
    fixture.restart();
    let last = fixture.fold().last_at().unwrap();
    assert!(started(&mut fixture), "nobody was told that the clock was accepted");
    // Nor does what the clock says get into an entry.
    assert!(fixture.fold().last_at().unwrap() < last.plus_ms(MINUTE_MS));
    fixture.restart();
    assert!(fixture.caught_up().is_ok());
}

/// The daemon starts; answers whether the rule `clock` refuses what is asked then.
fn started(fixture: &mut Fixture) -> bool {
    let started =
        Started { version: "1".into(), program: Digest([1; 32]), configuration: Digest([2; 32]), unconfirmed: None };
    fixture.record(|recorder| pipeline::record_start(recorder, started).unwrap());
    clock_refuses(fixture)
}

fn clock_refuses(fixture: &mut Fixture) -> bool {
    let request = Request {
        by: operator(),
        operation: pipeline::SIGN,
        id: RequestId([0xEE; 16]),
        asked: Digest([3; 32]),
        determination: fixture.determination,
        wanted: WantedSet::All,
        chunk: 1,
    };
    let accepted = fixture.record(|recorder| pipeline::accept(recorder, request).unwrap());
    let (reasons, entry) = accepted.expect_err("the determination is withdrawn");
    assert!(entry.is_some() && reasons.iter().any(|reason| &*reason.rule == "withdrawn"), "{reasons:?}");
    reasons.iter().any(|reason| &*reason.rule == "clock")
}

#[test]
fn a_release_that_an_end_left_open_is_unknown_where_the_token_may_have_been_asked_and_not_released_where_it_was_not() {
    let key: KeyLabel = "recovery-1".parse().unwrap();
    let incident: IncidentId = "INC-1".parse().unwrap();
    let ended = |fixture: &Fixture| {
        let reader = fixture.reader();
        let last = reader.leaf(reader.head().unwrap().size - 1).unwrap();
        match Entry::from_leaf(&last).unwrap().event {
            Event::SymmetricReleased(released) => released,
            other => panic!("expected the end of a release, found {other:?}"),
        }
    };
    let mut fixture = Fixture::new();
    let determination = fixture.determination;
    let release = |request: u8| {
        Event::SymmetricRelease(SymmetricRelease {
            request: RequestId([request; 16]),
            key: key.clone(),
            incident: incident.clone(),
            determination,
            policy: Digest([1; 32]),
            root: Digest([2; 32]),
        })
    };
    // What the fold keeps of a generation is asked by no rule here.
    let prepared = ContingencyPrepared {
        key: key.clone(),
        token: "smki-a".parse().unwrap(),
        symmetric: KeyId([3; 16]),
        wrapping: KeyId([4; 16]),
        bits: 256,
        wrap_with_trusted: true,
        algorithm: "aes-256-gcm".into(),
        extension: Digest::of(b"field"),
    };
    let spent = SymmetricKeySpent { key: key.clone(), incident: incident.clone(), determination };
    let open = fixture.record(|recorder| {
        recorder.queue_blob(b"field".to_vec());
        recorder.queue(&operator(), Event::ContingencyPrepared(prepared)).unwrap();
        recorder.queue(&operator(), Event::SymmetricKeySpent(spent)).unwrap();
        recorder.queue(&operator(), release(1)).unwrap()
    });
    fixture.record(|recorder| pipeline::resume(recorder).unwrap());
    let SymmetricReleased { intent, result } = ended(&fixture);
    assert!(intent == open && matches!(result, ReleaseResult::Unknown(_)), "{result:?}");

    let mut without_key = fixture.without_key();
    let open = record_alone(&mut without_key, |recorder| {
        let open = recorder.queue(&operator(), release(2))?;
        pipeline::resume(recorder).map(|_| open)
    });
    let SymmetricReleased { intent, result } = ended(&fixture);
    assert!(intent == open.unwrap().into_inner() && matches!(result, ReleaseResult::NotReleased(_)), "{result:?}");
}

fn jumps(fixture: &Fixture) -> Vec<i64> {
    let reader = fixture.reader();
    let entries = (0..reader.head().unwrap().size).map(|at| Entry::from_leaf(&reader.leaf(at).unwrap()).unwrap());
    entries
        .filter_map(|entry| if let Event::ClockJumped(jump) = entry.event { Some(jump.by_ms) } else { None })
        .collect()
}

#[test]
fn after_a_long_silence_nothing_is_signed_until_an_operator_accepts_the_clock_whatever_restarts() {
    let mut fixture = Fixture::new();
    fixture.wait(SILENCE_MS_MAX);
    fixture.restart();
    assert!(!started(&mut fixture));
    assert_eq!(jumps(&fixture), Vec::<i64>::new());

    fixture.wait(SILENCE_MS_MAX + 1);
    fixture.restart();
    assert!(started(&mut fixture));
    assert_eq!(jumps(&fixture), [SILENCE_MS_MAX + 1]);
    // Another start soon after, and one after another silence: it is still for the operator, and told once.
    for wait_ms in [MINUTE_MS, SILENCE_MS_MAX + 1] {
        fixture.wait(wait_ms);
        fixture.restart();
        assert!(started(&mut fixture));
        assert_eq!(jumps(&fixture).len(), 1);
    }
    let before = fixture.fold().last_at().unwrap();
    fixture.accept_clock();
    assert!(!clock_refuses(&mut fixture));
    // What nobody vouched for stands at the time that was carried on; from the acceptance on it is the clock's again.
    let after = fixture.fold().last_at().unwrap();
    let jumped_ms = after.unix_ms() - before.unix_ms();
    assert!(jumped_ms > 2 * SILENCE_MS_MAX && jumped_ms < 3 * SILENCE_MS_MAX, "{jumped_ms}");
    fixture.wait(MINUTE_MS);
    fixture.restart();
    assert!(!started(&mut fixture));
}

/// A ledger token that is there or not, signs or not, and counts how often it was asked.
struct Moody {
    signer: Signer,
    mood: Arc<Mood>,
}

#[derive(Default)]
struct Mood {
    is_away: AtomicBool,
    refuses: AtomicBool,
    asked: AtomicUsize,
}

impl CheckpointSigner for Moody {
    fn sign(&mut self, checkpoint: &Checkpoint) -> Result<SignedCheckpoint, CannotRecord> {
        self.mood.asked.fetch_add(1, Ordering::SeqCst);
        if self.mood.refuses.load(Ordering::SeqCst) {
            let (label, serial, found) = ("ledger-a".into(), "1".into(), "none".into());
            return Err(HsmError::TokenAbsent { label, serial, found }.into());
        }
        self.signer.sign(checkpoint)
    }

    fn is_ready(&self) -> bool {
        !self.mood.is_away.load(Ordering::SeqCst)
    }
}

/// What it was told or asked, of which size, and whether that head was durable then.
type Heard = (&'static str, u64, bool);

/// A ledger token that keeps what it is told and asked.
struct Listening {
    signer: Signer,
    store: MemoryStore,
    heard: Arc<Mutex<Vec<Heard>>>,
    refuses: Arc<AtomicBool>,
    /// Answers with the first checkpoint that it signed, whichever is asked for.
    repeats: Arc<AtomicBool>,
    first: Option<SignedCheckpoint>,
}

impl Listening {
    fn hear(&self, what: &'static str, checkpoint: &Checkpoint) {
        let is_durable = self.store.head().unwrap() == checkpoint.head();
        self.heard.lock().unwrap().push((what, checkpoint.size, is_durable));
    }
}

impl CheckpointSigner for Listening {
    fn begin(&mut self, next: &Checkpoint) {
        self.hear("begun", next);
    }

    fn sign(&mut self, checkpoint: &Checkpoint) -> Result<SignedCheckpoint, CannotRecord> {
        self.hear("signed", checkpoint);
        if self.refuses.swap(false, Ordering::SeqCst) {
            return Err(HsmError::Locked.into());
        }
        let signed = self.signer.sign(checkpoint)?;
        let first = self.first.get_or_insert_with(|| signed.clone());
        Ok(if self.repeats.load(Ordering::SeqCst) { first.clone() } else { signed })
    }
}

#[test]
fn a_checkpoint_is_begun_while_its_entries_are_made_durable_and_asked_for_only_once_they_are() {
    let fixture = Fixture::new();
    let store = fixture.in_memory();
    let heard = Arc::<Mutex<Vec<_>>>::default();
    let (refuses, repeats) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let recorder = || {
        let mut recorder = fixture.without_key();
        recorder.set_signer(Box::new(Listening {
            signer: fixture.signer(),
            store: store.clone(),
            heard: Arc::clone(&heard),
            refuses: Arc::clone(&refuses),
            repeats: Arc::clone(&repeats),
            first: None,
        }));
        recorder
    };
    let taken = || std::mem::take(&mut *heard.lock().unwrap());
    let ask = |recorder: &mut Recorder| {
        record_alone(recorder, |recorder| recorder.queue(&Actor::daemon(), counted())).map(Recorded::into_inner)
    };
    let (mut one, mut other) = (recorder(), recorder());
    let size = one.durable().size;
    ask(&mut one).unwrap();
    assert_eq!(taken(), [("begun", size + 1, false), ("signed", size + 1, true)]);

    // Refused, it is asked for again together with what comes next.
    refuses.store(true, Ordering::SeqCst);
    assert!(matches!(ask(&mut one), Err(CannotRecord::Token(HsmError::Locked))));
    assert_eq!((store.head().unwrap().size, one.checkpointed()), (size + 2, size + 1));
    assert_eq!(taken(), [("begun", size + 2, false), ("signed", size + 2, true)]);
    ask(&mut one).unwrap();
    assert_eq!(taken(), [("begun", size + 3, false), ("signed", size + 3, true)]);
    assert_eq!((store.head().unwrap().size, one.checkpointed()), (size + 3, size + 3));

    // A note of another head than was asked for is kept for none.
    let covered = store.latest_checkpoint().unwrap();
    repeats.store(true, Ordering::SeqCst);
    let other_head = ask(&mut one);
    assert!(matches!(other_head, Err(CannotRecord::Store(StoreError::CheckpointMismatch { .. }))), "{other_head:?}");
    assert_eq!(store.latest_checkpoint().unwrap(), covered);
    repeats.store(false, Ordering::SeqCst);
    ask(&mut one).unwrap();
    assert_eq!((taken().len(), one.checkpointed()), (4, size + 5));
    // Nor for a snapshot, of which nothing stays then.
    let before = (store.head().unwrap(), store.latest_checkpoint().unwrap());
    repeats.store(true, Ordering::SeqCst);
    one.set_snapshot_leaves(1);
    let other_head = one.snapshot_if_due();
    assert!(matches!(other_head, Err(CannotRecord::Store(StoreError::CheckpointMismatch { .. }))), "{other_head:?}");
    assert_eq!((store.head().unwrap(), store.latest_checkpoint().unwrap()), before);
    assert_eq!(taken().iter().map(|(what, size, _)| (*what, *size)).collect::<Vec<_>>(), [("signed", size + 6)]);
    repeats.store(false, Ordering::SeqCst);
    one.set_snapshot_leaves(SNAPSHOT_LEAVES);

    // Who has lost the ledger to somebody else begins nothing.
    let lost = ask(&mut other);
    assert!(matches!(lost, Err(CannotRecord::Store(StoreError::SizeMoved { .. }))), "{lost:?}");
    assert_eq!(taken(), []);

    // What was begun and does not become durable is not asked for, and nothing of it is kept.
    let before = (store.head().unwrap(), store.latest_checkpoint().unwrap());
    let failed = record_alone(&mut one, |recorder| {
        let index = recorder.queue(&Actor::daemon(), counted())?;
        recorder.queue_signature(index, [7; 64], false);
        recorder.queue_signature(index, [8; 64], false);
        Ok(index)
    });
    assert!(matches!(failed, Err(CannotRecord::Store(StoreError::SignatureExists { .. }))), "{failed:?}");
    assert_eq!(taken(), [("begun", size + 6, false)]);
    assert_eq!((store.head().unwrap(), store.latest_checkpoint().unwrap()), before);
}

#[test]
fn a_snapshot_that_the_ledger_token_does_not_sign_is_not_begun_again_with_every_ask() {
    let fixture = Fixture::new();
    let mut recorder = fixture.without_key();
    let mood = Arc::<Mood>::default();
    recorder.set_signer(Box::new(Moody { signer: fixture.signer(), mood: Arc::clone(&mood) }));
    let ask = |recorder: &mut Recorder| {
        record_alone(recorder, |recorder| recorder.queue(&Actor::daemon(), counted())).unwrap().into_inner();
    };
    let asked = || mood.asked.load(Ordering::SeqCst);
    ask(&mut recorder);
    assert_eq!(asked(), 1, "the checkpoint");
    recorder.set_snapshot_leaves(1);
    let head = recorder.durable();
    // Away, it is not asked at all; and refusing, once, however many asks come meanwhile.
    mood.is_away.store(true, Ordering::SeqCst);
    (0..20).for_each(|_| recorder.snapshot_if_due().unwrap());
    assert_eq!(asked(), 1);
    mood.is_away.store(false, Ordering::SeqCst);
    mood.refuses.store(true, Ordering::SeqCst);
    (0..20).for_each(|_| recorder.snapshot_if_due().unwrap());
    assert_eq!(asked(), 2);
    assert_eq!((recorder.durable(), recorder.fold().last_snapshot()), (head, None));
    // It comes by itself once the token signs, after a pause and by one ask more.
    mood.refuses.store(false, Ordering::SeqCst);
    let begun = Instant::now();
    while recorder.fold().last_snapshot().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(30), "no snapshot comes");
        thread::sleep(Duration::from_millis(10));
        recorder.snapshot_if_due().unwrap();
    }
    assert_eq!((asked(), recorder.durable().size, recorder.checkpointed()), (3, head.size + 1, head.size + 1));
}

#[test]
fn a_start_that_read_so_many_lines_of_lists_again_takes_a_snapshot_at_once() {
    for (missing, is_taken) in [(1, false), (0, true)] {
        let fixture = Fixture::new();
        let so_far = fixture.fold().listed_since_snapshot();
        assert_eq!(so_far, 5, "the Devices of its determination");
        let list = JobList { sha256: Digest([61; 32]), devices: SNAPSHOT_LISTED - missing - so_far };
        let started = JobStarted {
            request: RequestId([61; 16]),
            asked: Digest([61; 32]),
            incident: "INC-1".parse().unwrap(),
            determination: fixture.determination,
            key: "recovery-1".parse().unwrap(),
            list: Some(list),
            per_hour: None,
            reason: None,
        };
        // As it was left: nothing was recorded after it, and no snapshot taken.
        let mut before = fixture.without_key();
        before.set_signer(Box::new(fixture.signer()));
        let _ = record_alone(&mut before, |recorder| recorder.queue(&operator(), Event::JobStarted(started))).unwrap();
        let (fold, moment) = (before.fold().clone(), before.moment());
        let store = Box::new(fixture.in_memory());
        let mut recorder = Recorder::new(store, fold, Box::new(move || (moment, None))).unwrap();
        recorder.set_signer(Box::new(fixture.signer()));
        recorder.snapshot_if_due().unwrap();
        assert_eq!(recorder.fold().last_snapshot().is_some(), is_taken);
        // The next start reads none of them.
        assert_eq!(recorder.fold().listed_since_snapshot() == 0, is_taken);
    }
}

/// An entry that changes no row.
fn counted() -> Event {
    let since = "2026-11-01T09:00:00Z".parse().unwrap();
    Event::RefusalsFolded(RefusalsFolded { account: "operator-1".into(), count: 1, since })
}

#[test]
fn a_daemon_that_stops_takes_a_snapshot_from_so_many_entries_on() {
    for (missing, is_taken) in [(1, false), (0, true)] {
        let fixture = Fixture::new();
        let mut recorder = fixture.without_key();
        recorder.set_signer(Box::new(fixture.signer()));
        let more = SNAPSHOT_LEAVES_AT_STOP - missing - recorder.durable().size;
        let stopped = record_alone(&mut recorder, |recorder| {
            for _ in 1..more {
                recorder.queue(&Actor::daemon(), counted())?;
            }
            recorder.queue(&Actor::daemon(), Event::Stopped(Stopped { reason: "SIGTERM".into() }))
        });
        assert_eq!(stopped.unwrap().into_inner(), SNAPSHOT_LEAVES_AT_STOP - missing - 1);
        recorder.snapshot_if_due().unwrap();
        assert_eq!(recorder.fold().last_snapshot().is_some(), is_taken);
    }
}
