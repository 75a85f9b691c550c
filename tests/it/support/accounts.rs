//! The books of a token held against the ledger: what it signed, by the log of the module in front of it, and what was recorded.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use smkid::domain::ledger::entry::SignResult;
use smkid::domain::names::Digest;

use super::site::Site;

/// What the Recovery token signed, by what: the digests it was shown, each with the digests of its signatures.
fn signed_by_token(log: &Path) -> BTreeMap<String, Vec<Digest>> {
    let mut made: BTreeMap<String, Vec<Digest>> = BTreeMap::new();
    for line in fs::read_to_string(log).unwrap().lines() {
        let word = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name));
        if let (true, Some(data), Some(signature)) = (line.contains(" C_Sign "), word("data="), word("signature=")) {
            made.entry(data.to_owned()).or_default().push(Digest::of(&hex::decode(signature).unwrap()));
        }
    }
    made
}

/// Holds the ledger against what the token signed. Answers how many signatures the token made, and how many intents ended as
/// signed, failed, not signed and unknown.
#[track_caller]
pub fn held_against(site: &Site, log: &Path) -> (usize, [usize; 4]) {
    let ledger = site.ledger();
    ledger.check();
    assert_eq!(ledger.open(), Vec::<u64>::new(), "every intent has an outcome");
    let outcomes = ledger.outcomes();
    let made = signed_by_token(log);
    // The intents of one command, by the digest that the token is shown for it.
    let mut commands: BTreeMap<String, Vec<&SignResult>> = BTreeMap::new();
    for (at, intent) in ledger.intents() {
        let n = u32::try_from(u64::from_be_bytes(intent.device.0.0) & 0xFFFF_FFFF).unwrap();
        let command = site.pre_command(n, intent.counter);
        commands.entry(Digest::of(&command[1..]).to_string()).or_default().push(outcomes[&at]);
    }
    let mut tally = [0; 4];
    for (digest, results) in &commands {
        let of = |which: fn(&SignResult) -> bool| results.iter().filter(|result| which(result)).count();
        let counts = [
            of(|result| matches!(result, SignResult::Signed(_))),
            of(|result| matches!(result, SignResult::Failed(_))),
            of(|result| matches!(result, SignResult::NotSigned(_))),
            of(|result| matches!(result, SignResult::Unknown(_))),
        ];
        let [signed, failed, _, unknown] = counts;
        let made = made.get(digest).map_or(&[][..], Vec::as_slice);
        // A failed one is a signature that is withheld, or none: it is known not to have left, and never counts for another.
        assert!(made.len() >= signed, "lost: {digest} was signed by no token, the ledger has {results:?}");
        assert!(
            made.len() <= signed + failed + unknown,
            "uncounted: {digest} was signed {} times: {results:?}",
            made.len()
        );
        for result in results {
            if let SignResult::Signed(signature) = result {
                assert!(made.contains(signature), "lost: the signature of {digest} is none that the token made");
            }
        }
        for (all, one) in tally.iter_mut().zip(counts) {
            *all += one;
        }
    }
    for digest in made.keys() {
        assert!(commands.contains_key(digest), "uncounted: {digest} was signed without an intent");
    }
    (made.values().map(Vec::len).sum(), tally)
}

/// A number that the environment gives.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: expected a number")))
}
