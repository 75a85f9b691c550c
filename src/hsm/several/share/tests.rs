use super::*;

/// A token: sessions, items in hand, microseconds for an item on a session (0: not known).
type Row = (usize, usize, u64);

fn standing(ready: bool, (sessions, given, item_us): Row) -> Standing {
    Standing { ready, sessions, given, item: (item_us > 0).then(|| Duration::from_micros(item_us)) }
}

#[track_caller]
fn check(tokens: &[Row], waiting: usize, expected: &[usize]) {
    let tokens: Vec<Standing> = tokens.iter().map(|row| standing(true, *row)).collect();
    assert_eq!(share(&tokens, waiting), expected);
}

#[test]
fn who_gets_how_many() {
    // Nothing waits.
    check(&[(4, 0, 5_000), (4, 0, 5_000)], 0, &[0, 0]);
    // Alone: all of it, as far as its queue goes.
    check(&[(4, 0, 5_000)], 256, &[256]);
    check(&[(4, 4_000, 5_000)], 256, &[96]);
    check(&[(4, 4_096, 5_000)], 256, &[0]);
    // Two alike: each is kept busy for 20 ms, and the rest waits for whichever is ready first.
    check(&[(4, 0, 5_000), (4, 0, 5_000)], 256, &[16, 16]);
    check(&[(4, 16, 5_000), (4, 10, 5_000)], 256, &[0, 6]);
    check(&[(4, 16, 5_000), (4, 13, 5_000)], 256, &[0, 0]);
    // A small request is shared too.
    check(&[(4, 0, 5_000), (4, 0, 5_000)], 8, &[4, 4]);
    check(&[(4, 0, 5_000), (4, 0, 5_000)], 1, &[1, 0]);
    // What was never seen to sign gets one for each session, to be known by.
    check(&[(4, 0, 0), (4, 0, 0)], 256, &[4, 4]);
    check(&[(4, 0, 5_000), (2, 0, 0)], 256, &[16, 2]);
    // One of twice the pace, or of twice the sessions, gets twice as many.
    check(&[(4, 0, 5_000), (4, 0, 2_500)], 256, &[16, 32]);
    check(&[(4, 0, 5_000), (8, 0, 5_000)], 256, &[16, 32]);
    // A slow one gets what it is done with before the fast one would be with the rest, and else nothing.
    check(&[(4, 0, 5_000), (4, 0, 50_000)], 256, &[16, 8]);
    check(&[(4, 0, 5_000), (4, 0, 1_000_000)], 256, &[16, 0]);
    check(&[(4, 16, 5_000), (4, 0, 1_000_000)], 256, &[0, 0]);
    check(&[(4, 0, 5_000), (4, 0, 1_000_000)], 4_000, &[16, 8]);
    // The last ones go to whoever is done first, as soon as it has no more than it signs and one behind each.
    check(&[(4, 8, 5_000), (4, 8, 5_000)], 3, &[0, 0]);
    check(&[(4, 8, 5_000), (4, 6, 5_000)], 3, &[0, 2]);
}

#[test]
fn none_is_given_to_a_token_that_is_not_ready() {
    let row = (4, 0, 5_000);
    assert_eq!(share(&[standing(false, row), standing(true, row)], 256), [0, 256]);
    assert_eq!(share(&[standing(false, row), standing(false, row)], 256), [0, 0]);
    assert_eq!(share(&[], 256), Vec::<usize>::new());
}

proptest::proptest! {
    #[test]
    fn no_more_is_given_than_waits_and_something_whenever_no_token_has_anything_to_do(
        rows in proptest::collection::vec((proptest::bool::ANY, 1_usize..64, 0_usize..200, 0_u64..3_000_000), 0..6),
        waiting in 0_usize..5_000,
    ) {
        let tokens: Vec<Standing> =
            rows.iter().map(|(ready, sessions, given, item)| standing(*ready, (*sessions, *given, *item))).collect();
        let shares = share(&tokens, waiting);
        proptest::prop_assert_eq!(shares.len(), tokens.len());
        let given: usize = shares.iter().sum();
        proptest::prop_assert!(given <= waiting);
        for (token, share) in tokens.iter().zip(&shares) {
            proptest::prop_assert!(token.ready || *share == 0);
            proptest::prop_assert!(*share == 0 || token.given + share <= QUEUE_ITEMS_MAX);
        }
        let mut ready = tokens.iter().filter(|token| token.ready).peekable();
        let idle = ready.peek().is_some() && ready.all(|token| token.given == 0);
        proptest::prop_assert!(given > 0 || waiting == 0 || !idle);
    }
}
