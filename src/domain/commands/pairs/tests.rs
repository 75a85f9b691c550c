use super::*;
use crate::domain::names::{DeterminationId, DeviceId};

const OWN: u64 = 10;
const OTHER: u64 = 11;
const ELSEWHERE: u64 = 12;
/// Of another determination.
const BESIDE: u64 = 13;

fn intent(batch: u64, attempt: u32, command: u8) -> Intent {
    let device = DeviceId([0, 0, 0, 0, 0, 0, 0, command].into());
    Intent { batch, template: "esme".parse().unwrap(), device, counter: 1, attempt, command: Digest([command; 32]) }
}

fn pairs() -> Pairs {
    let mut pairs = Pairs::default();
    for (batch, whose) in [(OWN, Whose::Asked), (OTHER, Whose::Other), (ELSEWHERE, Whose::Elsewhere)] {
        pairs.batch(batch, whose, DeterminationId([1; 16]));
    }
    pairs.batch(BESIDE, Whose::Other, DeterminationId([2; 16]));
    pairs
}

fn signed() -> SignResult {
    SignResult::Signed(Digest([9; 32]))
}

fn unknown() -> SignResult {
    SignResult::Unknown("the token went away".into())
}

fn not_signed() -> SignResult {
    SignResult::NotSigned("it was paused".into())
}

/// Intents and outcomes in the order given; what comes out: place, intent that was signed, and whether it was.
#[track_caller]
fn check(steps: &[(u64, Result<Intent, SignResult>)], expected: &[(u64, u64, bool)]) {
    let mut pairs = pairs();
    let mut found = Vec::new();
    for (at, step) in steps {
        match step.clone() {
            Ok(intent) => pairs.intent(*at, intent, ()),
            Err(result) => pairs.outcome(Outcome { intent: *at, result }),
        }
        found.extend(std::iter::from_fn(|| pairs.settled()));
    }
    let found: Vec<_> = found
        .into_iter()
        .map(|settled| (settled.place, settled.signed_as, matches!(settled.result, SignResult::Signed(_))))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn outcomes_are_told_in_the_order_of_the_intents_and_none_before_the_one_in_front_of_it() {
    let steps = [
        (20, Ok(intent(OWN, 1, 1))),
        (21, Ok(intent(OWN, 1, 2))),
        (22, Ok(intent(OWN, 1, 3))),
        (22, Err(signed())),
        (21, Err(not_signed())),
    ];
    check(&steps, &[]);
    check(&[&steps[..], &[(20, Err(signed()))]].concat(), &[(20, 20, true), (21, 21, false), (22, 22, true)]);
}

#[test]
fn what_is_of_others_or_has_no_intent_is_not_told() {
    check(
        &[
            (20, Ok(intent(OTHER, 1, 1))),
            (21, Ok(intent(ELSEWHERE, 1, 2))),
            (22, Ok(intent(99, 1, 3))),
            (20, Err(signed())),
            (21, Err(signed())),
            (22, Err(signed())),
            (23, Err(signed())),
        ],
        &[],
    );
}

#[test]
fn a_further_attempt_of_another_request_stands_in_the_place_of_the_last_unknown_and_one_s_own_in_its_own() {
    // The other's settles it.
    check(
        &[(20, Ok(intent(OWN, 1, 1))), (20, Err(unknown())), (30, Ok(intent(OTHER, 2, 1))), (30, Err(signed()))],
        &[(20, 20, false), (20, 30, true)],
    );
    // One's own does.
    check(
        &[(20, Ok(intent(OWN, 1, 1))), (20, Err(unknown())), (30, Ok(intent(OWN, 2, 1))), (30, Err(signed()))],
        &[(20, 20, false), (30, 30, true)],
    );
    // Two of one's own are unknown, and a third of another's is signed: told once.
    check(
        &[
            (20, Ok(intent(OWN, 1, 1))),
            (20, Err(unknown())),
            (30, Ok(intent(OWN, 2, 1))),
            (30, Err(unknown())),
            (40, Ok(intent(OTHER, 3, 1))),
            (40, Err(signed())),
        ],
        &[(20, 20, false), (30, 30, false), (30, 40, true)],
    );
    // An attempt that comes to nothing leaves it as unknown as it was, for the next one.
    check(
        &[
            (20, Ok(intent(OWN, 1, 1))),
            (20, Err(unknown())),
            (30, Ok(intent(OTHER, 2, 1))),
            (30, Err(not_signed())),
            (40, Ok(intent(OTHER, 2, 1))),
            (40, Err(unknown())),
            (50, Ok(intent(OTHER, 3, 1))),
            (50, Err(signed())),
        ],
        &[(20, 20, false), (20, 30, false), (20, 40, false), (20, 50, true)],
    );
    // One's own that comes to nothing is the last place all the same; and says itself that what stands before it is unknown.
    for first in [&[][..], &[(20, Ok(intent(OWN, 1, 1))), (20, Err(unknown()))]] {
        let further =
            [(30, Ok(intent(OWN, 2, 1))), (30, Err(not_signed())), (40, Ok(intent(OTHER, 3, 1))), (40, Err(signed()))];
        let told = if first.is_empty() { &[][..] } else { &[(20, 20, false)] };
        check(&[first, &further].concat(), &[told, &[(30, 30, false), (30, 40, true)]].concat());
    }
}

#[test]
fn a_further_attempt_is_of_the_same_octets_behind_an_unknown_and_of_nothing_else() {
    let begun = [(20, Ok(intent(OWN, 1, 1))), (20, Err(unknown()))];
    for other in [intent(OTHER, 2, 2), intent(OTHER, 1, 1), intent(ELSEWHERE, 2, 1), intent(BESIDE, 2, 1)] {
        check(&[&begun[..], &[(30, Ok(other)), (30, Err(signed()))]].concat(), &[(20, 20, false)]);
    }
    for ended in [signed(), not_signed()] {
        let is_signed = matches!(ended, SignResult::Signed(_));
        let begun = [(20, Ok(intent(OWN, 1, 1))), (20, Err(ended))];
        let further = [(30, Ok(intent(OTHER, 2, 1))), (30, Err(signed()))];
        check(&[&begun[..], &further].concat(), &[(20, 20, is_signed)]);
    }
}

#[test]
fn an_unknown_is_known_before_its_turn_to_be_told() {
    // What stands in front of it still waits when its further attempt comes.
    check(
        &[
            (20, Ok(intent(OWN, 1, 1))),
            (21, Ok(intent(OWN, 1, 2))),
            (21, Err(unknown())),
            (30, Ok(intent(OTHER, 2, 2))),
            (30, Err(signed())),
            (20, Err(signed())),
        ],
        &[(20, 20, true), (21, 21, false), (21, 30, true)],
    );
}
