use super::*;
use crate::domain::audit::tests::{Signer, head, leaf};
use crate::domain::audit::{AuditError, Evidence, Roots, Summary, Trust};
use crate::domain::fold::tests::{CARRIED, Lists};
use crate::domain::fold::{BookError, Fold};
use crate::domain::gbcs::samples::Key;
use crate::domain::intake::contingency::tests::{ID, Issue, field, label, operator};
use crate::domain::ledger::contingency::{CheckResult, Compared};
use crate::domain::ledger::entry::{
    Actor, Channel, ClockState, DeterminationWithdrawn, Event, KeyLocked, Role, Started, VERSION,
};
use crate::domain::names::{Digest, RequestId};
use crate::domain::policy::rules::tests::{before_release, now};

impl Evidence for Lists {
    fn signature(&self, _: u64) -> Result<Option<[u8; 64]>, BookError> {
        Ok(None)
    }

    fn release(&self, _: u64) -> Result<bool, BookError> {
        Ok(false)
    }
}

/// What stands on the ledger next.
#[derive(Clone)]
enum Next {
    /// An entry, which is judged.
    Entry(Actor, Event),
    /// An entry whose signatures are of no matter here: it is not judged.
    Before(Event),
    /// A checkpoint over all of it.
    Checkpoint,
}

fn by(role: Role) -> Actor {
    Actor { person: None, account: "somebody".into(), role, channel: Channel::Internal }
}

fn daemon(event: Event) -> Next {
    Next::Entry(by(Role::Daemon), event)
}

fn operated(event: Event) -> Next {
    Next::Entry(operator(), event)
}

fn checked(result: CheckResult) -> Next {
    let fold = before_release(|_, _, _| ());
    let (key, incident) = (label("contingency-1"), "INC-1".parse().unwrap());
    let root = fold.contingency(&key).unwrap().root.unwrap();
    daemon(Event::ContingencyChecked(ContingencyChecked { key, incident, root, result }))
}

fn spent() -> Next {
    let (key, incident) = (label("contingency-1"), "INC-1".parse().unwrap());
    operated(Event::SymmetricKeySpent(SymmetricKeySpent { key, incident, determination: ID }))
}

fn release(request: u8) -> Next {
    let fold = before_release(|_, _, _| ());
    let key = label("contingency-1");
    let root = fold.contingency(&key).unwrap().root.unwrap();
    operated(Event::SymmetricRelease(SymmetricRelease {
        request: RequestId([request; 16]),
        key,
        incident: "INC-1".parse().unwrap(),
        determination: ID,
        policy: fold.policy().unwrap().digest,
        root,
    }))
}

fn outcome(intent: u64, result: ReleaseResult) -> Event {
    Event::SymmetricReleased(SymmetricReleased { intent, result })
}

fn released(intent: u64) -> Next {
    daemon(outcome(intent, ReleaseResult::Released))
}

fn matched() -> Next {
    checked(CheckResult::Matches)
}

/// The index of the first release, where the check and the spending stand before it.
const RELEASE: u64 = CARRIED + 2;

/// Audits what stands behind that state.
fn audit(fold: Fold, papers: &Lists, ledger: &[Next]) -> Result<Summary, AuditError> {
    let (mut size, mut checkpoints) = (CARRIED, Vec::new());
    for next in ledger {
        match next {
            Next::Entry(..) | Next::Before(_) => size += 1,
            Next::Checkpoint => checkpoints.push(head(size)),
        }
    }
    let signer = Signer::new("smkid.example/test");
    let trust = Trust { key: &signer.verifier, genesis: leaf(0) };
    let mut audited = Audit::new(trust, Roots::new(&checkpoints, None), papers, &|_| ());
    for index in 0..CARRIED {
        audited.roots.push(leaf(index)).unwrap();
    }
    audited.fold = fold;
    for next in ledger {
        let entry = |by: &Actor, event: &Event| Entry {
            v: VERSION,
            at: now(),
            clock: ClockState::Trusted,
            by: by.clone(),
            event: event.clone(),
        };
        let hash = leaf(audited.fold.size());
        match next {
            Next::Entry(by, event) => {
                let entry = entry(by, event);
                audited.entry(&entry, &entry.to_leaf().unwrap(), hash)?;
            }
            Next::Before(event) => {
                let entry = entry(&by(Role::Account), event);
                audited.fold.apply(&entry, &entry.to_leaf().unwrap(), papers, &mut Vec::new()).unwrap();
                audited.roots.push(hash).unwrap();
            }
            Next::Checkpoint => {}
        }
    }
    Ok(audited.summary)
}

fn of_release(ledger: &[Next]) -> Result<Summary, AuditError> {
    audit(before_release(|_, _, _| ()), &Lists::default(), ledger)
}

/// It is taken but for its last entry, and that is refused with these words.
#[track_caller]
fn refused(ledger: &[Next], words: &str) {
    let last = ledger.iter().filter(|next| !matches!(next, Next::Checkpoint)).count() as u64 - 1;
    let error = of_release(ledger).unwrap_err();
    assert_eq!(error.index, Some(CARRIED + last), "{error}");
    assert!(error.reason.contains(words), "{error}");
}

#[track_caller]
fn taken(ledger: &[Next]) -> Summary {
    of_release(ledger).unwrap_or_else(|error| panic!("{error}"))
}

/// Checked, spent and announced, and a checkpoint over all three.
fn announced() -> Vec<Next> {
    vec![matched(), spent(), release(1), Next::Checkpoint]
}

fn then(mut ledger: Vec<Next>, more: impl IntoIterator<Item = Next>) -> Vec<Next> {
    ledger.extend(more);
    ledger
}

#[test]
fn a_symmetric_key_that_is_checked_spent_announced_and_released_in_this_order_is_taken() {
    let summary = taken(&then(announced(), [released(RELEASE)]));
    assert_eq!((summary.symmetric_keys_spent, summary.symmetric_releases), (1, 1));
    let failed = daemon(outcome(RELEASE, ReleaseResult::Failed("CKR_DEVICE_ERROR".into())));
    let again = [failed, release(2), Next::Checkpoint, released(RELEASE + 2)];
    let summary = taken(&then(announced(), again));
    assert_eq!((summary.symmetric_keys_spent, summary.symmetric_releases), (1, 1));
}

#[test]
fn nothing_is_spent_without_a_check_that_matched_nor_twice_nor_released_before() {
    refused(&[spent()], "preflight");
    for result in [CheckResult::Differs("another key".into()), CheckResult::Failed("CKR_DEVICE_ERROR".into())] {
        refused(&[checked(result), spent()], "preflight");
    }
    refused(&[matched(), release(1)], "not-spent");
    refused(&[matched(), spent(), spent()], "spent-already");
    taken(&[matched(), spent(), release(1)]);
}

#[test]
fn a_request_for_a_release_counts_once_and_waits_for_the_one_before() {
    refused(&[matched(), spent(), release(1), release(2)], "release-open");
    let over = then(announced(), [released(RELEASE)]);
    refused(&then(over.clone(), [release(1)]), "request-used");
    taken(&then(over, [release(2)]));
}

#[test]
fn a_key_left_its_token_only_where_the_announcement_lies_under_a_checkpoint() {
    refused(&[matched(), spent(), release(1), released(RELEASE)], "no checkpoint was signed between");
    // The last checkpoint ends with the entry before it.
    refused(&[matched(), spent(), Next::Checkpoint, release(1), released(RELEASE)], "no checkpoint was signed between");
    taken(&[matched(), spent(), release(1), Next::Checkpoint, released(RELEASE)]);
    // That it did not leave may be said at once.
    let not_released = daemon(outcome(RELEASE, ReleaseResult::NotReleased("the head could not be kept".into())));
    taken(&[matched(), spent(), release(1), not_released]);
}

#[test]
fn nobody_has_a_key_that_was_locked_since_its_release_was_announced() {
    let locked =
        Event::KeyLocked(KeyLocked { key: label("contingency-1"), reason: "on demand".into(), incident: None });
    let digest = Digest([1; 32]);
    let started =
        Event::Started(Started { version: "0".into(), program: digest, configuration: digest, unconfirmed: None });
    for since in [operated(locked), daemon(started)] {
        refused(&then(announced(), [since.clone(), released(RELEASE)]), "the key was locked since");
        let unknown = daemon(outcome(RELEASE, ReleaseResult::Unknown("the daemon ended".into())));
        taken(&then(announced(), [since, unknown]));
    }
}

#[test]
fn a_key_is_not_released_under_a_determination_that_was_withdrawn_meanwhile() {
    let withdrawn = Next::Before(Event::DeterminationWithdrawn(DeterminationWithdrawn {
        determination: ID,
        document: Digest([1; 32]),
        signatures: Vec::new(),
    }));
    refused(&then(announced(), [withdrawn.clone(), released(RELEASE)]), "withdrawn");
    let not_released = daemon(outcome(RELEASE, ReleaseResult::NotReleased("it was withdrawn".into())));
    taken(&then(announced(), [withdrawn.clone(), not_released]));
    // What was released before stays so.
    taken(&then(announced(), [released(RELEASE), withdrawn]));
}

#[test]
fn what_became_of_a_release_is_said_by_the_daemon_once_and_of_one_that_was_announced() {
    for other in [operator(), by(Role::Ceremony), by(Role::Account)] {
        for result in [ReleaseResult::Released, ReleaseResult::NotReleased("never asked".into())] {
            let said = Next::Entry(other.clone(), outcome(RELEASE, result));
            refused(&then(announced(), [said]), "asked for by daemon");
        }
    }
    for intent in [RELEASE - 1, RELEASE + 1] {
        refused(&then(announced(), [released(intent)]), "no open release");
    }
    refused(&then(announced(), [released(RELEASE), released(RELEASE)]), "no open release");
}

#[test]
fn a_root_that_carries_another_field_than_the_one_made_is_refused() {
    let (key, ours, another) = (Key::generate(), field(1), field(2));
    let against = |carried, role| {
        let mut papers = Lists::default();
        let next_root = papers.add(Issue::honest(&Key::generate(), &another).octets());
        let fold = before_release(|key, next, _| {
            let contingency = key.contingency.as_mut().unwrap();
            contingency.root = None;
            contingency.prepared.extension = Digest::of(&ours.to_der());
            next.contingency.as_mut().unwrap().root = Some(next_root);
        });
        let root = papers.add(Issue::honest(&key, carried).octets());
        let imported = RootImported { key: label("contingency-1"), root, compared: Compared::InToken };
        audit(fold, &papers, &[Next::Entry(by(role), Event::RootImported(imported))])
    };
    let reason = |decided: Result<Summary, AuditError>| decided.unwrap_err().reason;
    assert_eq!(against(&ours, Role::Ceremony).unwrap().roots, 1);
    assert!(reason(against(&another, Role::Ceremony)).contains("root-of-another-key"));
    assert!(reason(against(&ours, Role::Daemon)).contains("asked for by ceremony"));
}
