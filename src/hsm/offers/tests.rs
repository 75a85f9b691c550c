use std::fs;

use super::super::errors::{Certainty, Fault};
use super::*;

fn call(rv: &str, class: Class) -> HsmError {
    HsmError::Call(Box::new(Fault {
        token: "ledger".to_owned(),
        function: "C_Login".to_owned(),
        rv: rv.to_owned(),
        class,
        certainty: Certainty::NothingSigned,
        cause: String::new(),
        advice: String::new(),
    }))
}

fn incorrect() -> HsmError {
    match call("CKR_PIN_INCORRECT", Class::OperatorMustAct) {
        HsmError::Call(fault) => HsmError::PinRefused(fault),
        other => other,
    }
}

fn is_withheld(result: &Result<Offer, HsmError>) -> bool {
    matches!(result, Err(error @ HsmError::PinWithheld { .. }) if error.locks())
}

fn open(folder: &Path) -> Arc<Offers> {
    Offers::open(Some(folder), ("0123abc", "SMKI")).unwrap()
}

fn forgotten() -> Arc<Offers> {
    Offers::open(None, ("1", "SMKI")).unwrap()
}

#[test]
fn a_refusal_is_remembered_by_every_process_until_an_operator_lets_it_be_offered_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("pin-marks");
    let offers = open(&folder);
    offers.offer(false).unwrap().answered(&Err(incorrect()));
    for offers in [offers, open(&folder)] {
        assert!(is_withheld(&offers.offer(false)));
    }
    for other in [("another", "SMKI"), ("0123abc", "the same card's other PIN")] {
        assert!(Offers::open(Some(&folder), other).unwrap().offer(false).is_ok(), "the mark is one token's");
    }
    let operators = open(&folder);
    assert!(operators.mark().withheld().unwrap().contains("CKR_PIN_INCORRECT"));
    operators.allow_again(None).unwrap();
    let offers = open(&folder);
    offers.offer(false).unwrap().answered(&Ok(()));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "of the other tokens: a good PIN leaves no mark");
}

#[test]
fn who_let_it_be_offered_again_is_kept_until_the_ledger_was_told_whatever_the_token_answers() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("pin-marks");
    let asked = |n: usize| Asked {
        by: Actor::daemon(),
        retried: LoginRetried {
            token: "ledger".parse().unwrap(),
            serial: "0123abc".into(),
            asked: Timestamp::MIN,
            was: format!("{n} {}", "\u{10ffff}".repeat(200)).into(),
        },
    };
    for n in 0..ASKED_MAX {
        let offers = open(&folder);
        offers.allow_again(Some(asked(n))).unwrap();
        offers.offer(false).unwrap().answered(&if n % 2 == 0 { Err(incorrect()) } else { Ok(()) });
    }
    let offers = open(&folder);
    assert!(offers.mark().asked.iter().cloned().eq((0..ASKED_MAX).map(asked)));
    let full = offers.allow_again(Some(asked(0))).unwrap_err();
    assert!(full.to_string().contains("the ledger was not told"), "{full}");
    offers.allow_again(None).expect("nothing more to keep");
    offers.told(ASKED_MAX - 1).unwrap();
    assert_eq!(open(&folder).mark().asked, [asked(ASKED_MAX - 1)]);
    open(&folder).told(1).unwrap();
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "nothing to tell, and a good PIN");
}

#[test]
fn an_offer_stands_on_the_disk_before_the_pin_is_offered() {
    let folder = tempfile::tempdir().unwrap();
    for n in 1..=UNANSWERED_MAX {
        // The process dies between the offer and its answer.
        open(folder.path()).offer(false).unwrap();
        assert_eq!(open(folder.path()).mark().unanswered, n);
    }
    assert!(is_withheld(&open(folder.path()).offer(false)));
    open(folder.path()).allow_again(None).unwrap();
    open(folder.path()).offer(false).unwrap();
}

#[test]
fn an_offer_that_may_have_been_counted_as_wrong_is_the_last_if_the_token_says_so() {
    let offers = forgotten();
    offers.offer(true).expect("somebody else entered a wrong PIN before");
    assert!(is_withheld(&offers.offer(true)));
    offers.offer(false).expect("the token does not count it");
}

#[test]
fn an_answer_from_before_the_token_was_asked_counts_for_nothing_and_one_that_may_come_from_it_counts() {
    for (rv, class, counts) in [
        // A device whose answer was lost on the way counted the PIN all the same.
        ("CKR_DEVICE_ERROR", Class::ReplaceWorker, true),
        ("CKR_DEVICE_REMOVED", Class::ReplaceWorker, true),
        ("CKR_TOKEN_NOT_RECOGNIZED", Class::ReplaceWorker, true),
        ("CKR_SESSION_CLOSED", Class::ReplaceWorker, true),
        ("CKR_TOKEN_NOT_PRESENT", Class::ReplaceWorker, false),
        ("CKR_SESSION_HANDLE_INVALID", Class::ReplaceWorker, false),
        ("CKR_GENERAL_ERROR", Class::ReplaceWorker, true),
        ("CKR_FUNCTION_FAILED", Class::ReplaceWorker, true),
        ("0x80000001", Class::ReplaceWorker, true),
    ] {
        let offers = forgotten();
        for n in 1..=UNANSWERED_MAX {
            offers.offer(false).unwrap().answered(&Err(call(rv, class)));
            assert_eq!(offers.mark().unanswered, if counts { n } else { 0 }, "{rv}");
        }
        assert_eq!(is_withheld(&offers.offer(false)), counts, "{rv}");
    }
    // A login that only a person can mend is a refusal, whatever it is called.
    let offers = forgotten();
    offers.offer(false).unwrap().answered(&Err(call("CKR_ARGUMENTS_BAD", Class::OperatorMustAct)));
    assert!(is_withheld(&offers.offer(false)));
}

#[test]
fn a_good_pin_makes_up_for_offers_without_an_answer() {
    let offers = forgotten();
    for _ in 0..3 * UNANSWERED_MAX {
        offers.offer(false).unwrap();
        offers.offer(false).unwrap().answered(&Ok(()));
    }
}

#[test]
fn a_mark_that_cannot_be_read_or_written_lets_no_pin_be_offered_and_locks_nothing() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).offer(false).unwrap();
    let file = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let long = vec![b' '; 70_000];
    for spoilt in [&b"{"[..], b"", b"{\"unanswered\":1,\"more\":1}", &long] {
        fs::write(&file, spoilt).unwrap();
        let error = Offers::open(Some(folder.path()), ("0123abc", "SMKI")).unwrap_err();
        assert!(matches!(&error, HsmError::PinMark { .. }) && !error.locks(), "{error}");
        assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
    }
    // A file stands where the folder should be.
    let offers = Offers::open(Some(&file.join("beneath")), ("1", "SMKI"));
    assert!(matches!(offers.and_then(|offers| offers.offer(false)), Err(HsmError::PinMark { .. })));
}

#[test]
fn whoever_offers_the_same_pin_meanwhile_waits_for_the_answer_and_offers_nothing_after_a_refusal() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path()).offer(false).unwrap();
    let (path, begun) = (folder.path().to_owned(), std::sync::Barrier::new(2));
    std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            begun.wait();
            // The key of another handle, on the same token.
            open(&path).offer(false).map(drop)
        });
        begun.wait();
        first.answered(&Err(incorrect()));
        let second = second.join().unwrap().unwrap_err();
        assert!(matches!(second, HsmError::PinWithheld { .. }), "{second}");
    });
    assert_eq!(open(folder.path()).mark().unanswered, 0, "one offer, and its refusal");
}
