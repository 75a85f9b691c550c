use super::super::errors::{Certainty, Class, Fault};
use super::*;

const NOW: Timestamp = Timestamp::MIN;

fn at(ms: i64) -> Timestamp {
    NOW.plus_ms(ms)
}

fn fault() -> HsmError {
    HsmError::Call(Box::new(Fault {
        token: "recovery".to_owned(),
        function: "C_Sign".to_owned(),
        rv: "CKR_DEVICE_ERROR".to_owned(),
        class: Class::ReplaceWorker,
        certainty: Certainty::SignatureMayExist,
        cause: "the token failed".to_owned(),
        advice: "wait".to_owned(),
    }))
}

fn token() -> TokenName {
    "recovery".parse().unwrap()
}

fn up() -> Breaker {
    let mut breaker = Breaker::new(NOW);
    breaker.up(NOW);
    breaker
}

#[test]
fn what_failed_last_is_known_also_once_it_is_up_again() {
    let mut breaker = up();
    assert_eq!(breaker.last_failure(), None);
    breaker.failed(at(1), &fault(), 0, 0);
    breaker.up(at(2));
    assert_eq!(breaker.standing().why, None);
    assert_eq!(breaker.last_failure(), Some((at(1), fault())));
}

#[test]
fn pauses_double_up_to_the_longest_and_differ_by_a_quarter_at_most() {
    for (failures, longest) in [(1, 100), (2, 200), (3, 400), (6, 3_200), (7, 5_000), (8, 5_000), (u32::MAX, 5_000)] {
        let longest = Duration::from_millis(longest);
        assert_eq!(pause(failures, 0), longest, "{failures}");
        for salt in [1, 77, 255, 256, u64::MAX] {
            let pause = pause(failures, salt);
            assert!(pause <= longest && pause >= longest * 3 / 4, "{failures}, {salt}: {pause:?}");
        }
        assert_eq!(pause(failures, 9), pause(failures, 9), "no chance is in it");
        assert_ne!(pause(failures, 255), longest, "tokens that fail together do not come back together");
    }
}

#[test]
fn a_token_that_is_down_says_until_when_and_why() {
    let mut breaker = up();
    let pause = breaker.failed(at(5_000), &fault(), 0, 0);
    let Standing { circuit, since, failures, why } = breaker.standing();
    assert_eq!((circuit, pause), (Circuit::Down { until: at(5_100) }, PAUSE_FIRST));
    assert_eq!((since, failures, why), (at(5_000), 1, Some(fault())));
    breaker.trying();
    assert_eq!(breaker.standing().circuit, Circuit::Trying);
    breaker.failed(at(5_200), &fault(), 0, 0);
    let standing = breaker.standing();
    assert_eq!((standing.since, standing.failures), (at(5_000), 2), "it is down since it was up");
    breaker.up(at(6_000));
    let standing = breaker.standing();
    assert_eq!((standing.circuit, standing.since, standing.why), (Circuit::Up, at(6_000), None));
}

#[test]
fn a_worker_that_proved_itself_begins_anew_and_one_that_did_not_waits_longer() {
    let steady = i64::try_from(STEADY.as_millis()).unwrap();
    for (proofs, lived, expected) in
        [(PROVEN_BY - 1, steady - 1, 2), (PROVEN_BY, 0, 1), (0, steady, 1), (PROVEN_BY, steady, 1)]
    {
        let mut breaker = up();
        breaker.failed(at(100), &fault(), 0, 0);
        breaker.up(at(1_000));
        breaker.failed(at(1_000 + lived), &fault(), proofs, 0);
        assert_eq!(breaker.standing().failures, expected, "{proofs} signatures in {lived} ms");
    }
}

#[test]
fn each_change_is_told_once_and_a_try_that_fails_is_none() {
    let mut breaker = up();
    assert_eq!(breaker.to_tell(&token(), at(0)), [], "a token that came up at its activation is not spoken of");
    breaker.failed(at(1_000), &fault(), 0, 0);
    for n in 0..100 {
        breaker.trying();
        breaker.failed(at(2_000 + n), &fault(), 0, 0);
    }
    let told = breaker.to_tell(&token(), at(3_000));
    let expected = TokenHealth {
        token: token(),
        from: Health::Up,
        to: Health::Down,
        since: at(1_000),
        function: Some("C_Sign".into()),
        code: Some("CKR_DEVICE_ERROR".into()),
        cause: Some(fault().to_string().into()),
        folded: 0,
    };
    assert_eq!(told, [expected]);
    breaker.up(at(4_000));
    assert_eq!(breaker.to_tell(&token(), at(12_999)), [], "not so soon after the last");
    let told = breaker.to_tell(&token(), at(13_000));
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].from, told[0].to, told[0].since), (Health::Down, Health::Up, at(4_000)));
    assert_eq!((&told[0].cause, told[0].folded), (&None, 0));
    assert_eq!(breaker.to_tell(&token(), at(60_000)), [], "each once");
}

#[test]
fn a_token_that_comes_and_goes_does_not_fill_the_ledger() {
    let mut breaker = up();
    for second in 0..600 {
        breaker.failed(at(1_000 * second), &fault(), 0, 0);
        breaker.up(at(1_000 * second + 500));
    }
    let told = breaker.to_tell(&token(), at(600_000));
    assert_eq!(told.len(), 2);
    assert_eq!((told[0].from, told[0].to, told[0].folded), (Health::Up, Health::Down, 0));
    assert_eq!((told[1].from, told[1].to, told[1].folded), (Health::Down, Health::Up, 1_198));
    assert!(told[1].cause.is_some(), "what failed last is told with the count");
}

#[test]
fn a_token_that_takes_an_operator_is_told_with_the_reason() {
    let mut breaker = up();
    let HsmError::Call(mut refused) = fault() else { panic!("a call's fault") };
    "CKR_PIN_INCORRECT".clone_into(&mut refused.rv);
    let refused = HsmError::PinRefused(refused);
    breaker.failed(at(0), &fault(), 0, 0);
    breaker.locked(at(100), &refused);
    breaker.locked(at(200), &refused);
    let standing = breaker.standing();
    assert_eq!((standing.circuit, standing.since), (Circuit::Locked, at(100)));
    let told = breaker.to_tell(&token(), at(300));
    assert_eq!(told.iter().map(|told| told.to).collect::<Vec<_>>(), [Health::Down, Health::Locked]);
    assert_eq!(told[1].code.as_deref(), Some("CKR_PIN_INCORRECT"));
    assert!(told[1].cause.as_ref().unwrap().contains("CKR_PIN_INCORRECT"));
}
