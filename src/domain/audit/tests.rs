#![expect(clippy::disallowed_types, reason = "tests make their own keys")]

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

use super::*;
use crate::domain::ledger::checkpoint::{Checkpoint, SignedCheckpoint};
use crate::domain::ledger::merkle::{Frontier, Head, Subtrees};

pub(super) struct Signer {
    pair: EcdsaKeyPair,
    pub(super) verifier: Verifier,
}

impl Signer {
    pub(super) fn new(name: &str) -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let key = PublicKey::from_point(pair.public_key().as_ref()).unwrap();
        Self { pair, verifier: Verifier::from_spki(name, &key.to_spki()).unwrap() }
    }

    fn sign(&self, head: Head) -> Vec<u8> {
        let checkpoint = Checkpoint::new(self.verifier.name().parse().unwrap(), head);
        let signature = self.pair.sign(&SystemRandom::new(), checkpoint.text().as_bytes()).unwrap();
        let signature = signature.as_ref().try_into().unwrap();
        SignedCheckpoint::assemble(&checkpoint, &self.verifier, &signature).unwrap().octets().to_vec()
    }
}

pub(super) fn leaf(index: u64) -> Digest {
    leaf_hash(format!("entry {index}").as_bytes())
}

pub(super) fn head(size: u64) -> Head {
    let mut frontier = Frontier::new();
    frontier.extend((0..size).map(leaf));
    frontier.head()
}

fn joined(notes: &[Vec<u8>]) -> Vec<u8> {
    join_checkpoints(notes.iter().map(Vec::as_slice))
}

#[test]
fn checkpoints_read_back_as_they_were_joined_and_in_no_other_order() {
    let signer = Signer::new("smkid.example/test");
    let read = |file: &[u8]| {
        let notes = Notes::split(file);
        let heads: Vec<_> = notes.notes.iter().map(|note| read_checkpoint(note, &signer.verifier)).collect();
        notes.heads(heads)
    };
    let notes: Vec<Vec<u8>> = [2, 3, 9].map(|size| signer.sign(head(size))).into();
    let file = joined(&notes);
    assert_eq!(read(&file).unwrap(), [head(2), head(3), head(9)]);
    assert_eq!(read(b"").unwrap(), []);
    let check = |file: &[u8], place: &str, expected: &str| {
        let error = read(file).unwrap_err();
        assert!(error.place.contains(place) && error.reason.contains(expected), "{error}");
    };
    check(&joined(&[notes[1].clone(), notes[0].clone()]), "checkpoint 2", "above 3, found 2");
    check(&joined(&[notes[1].clone(), notes[1].clone()]), "checkpoint 2", "above 3, found 3");
    check(&joined(&[signer.sign(Head::empty())]), "checkpoint 1", "empty ledger");
    check(&[&file[..], b"\n"].concat(), "checkpoint 4", "end of the file");
    check(&joined(&[Signer::new("smkid.example/test").sign(head(2))]), "checkpoint 1", "expected a signature by");
    for cut in 1..file.len() {
        let whole = joined(&notes[..1]).len() == cut || joined(&notes[..2]).len() == cut;
        assert_eq!(read(&file[..cut]).is_ok(), whole, "cut to {cut}");
    }
}

#[test]
fn a_further_signature_line_is_refused_because_nobody_checks_it() {
    let signer = Signer::new("smkid.example/test");
    let note = signer.sign(head(2));
    assert_eq!(read_checkpoint(&note, &signer.verifier), Ok(head(2)));
    let line = "\u{2014} witness.example AAAAAAAA\n".as_bytes();
    let error = read_checkpoint(&[&note[..], line].concat(), &signer.verifier).unwrap_err();
    assert_eq!(error, "expected one signature line, found 2");
}

#[test]
fn bundles_are_compared_with_what_was_signed_within_them_as_entry_by_entry() {
    const SIZE: u64 = 600;
    let answers = |signed: &[Head], earlier: Option<Head>| {
        let mut one_by_one = Roots::new(signed, earlier);
        let each = (0..SIZE).try_for_each(|index| one_by_one.push(leaf(index)).map(drop));
        let each = each.and_then(|()| one_by_one.finish());
        let mut bundles = Roots::new(signed, earlier);
        let taken = [0..256, 256..512, 512..SIZE]
            .into_iter()
            .try_for_each(|range| bundles.push_bundle(&Subtrees::over(range.map(leaf).collect())));
        assert_eq!(taken.and_then(|()| bundles.finish()), each);
        each
    };
    let wrong = |size| Head { root: leaf(0), ..head(size) };
    let signed = [1, 7, 255, 256, 257, 300, 512, 600].map(head);
    assert_eq!(answers(&signed, None), Ok(8));
    for place in 0..signed.len() {
        let mut changed = signed;
        changed[place] = wrong(signed[place].size + u64::from(place == 0));
        assert!(answers(&changed, None).is_err(), "checkpoint {place}");
    }
    for size in [2, 255, 256, 257, 300, 511, 512, 513, 600] {
        assert_eq!(answers(&signed, Some(head(size))), Ok(8));
        assert_eq!(answers(&signed, Some(wrong(size))).unwrap_err().index, Some(size - 1));
    }
    assert!(answers(&signed[..7], None).is_err() && answers(&signed, Some(head(601))).is_err());
}

#[test]
fn roots_are_those_of_the_entries_at_each_size() {
    let run = |signed: &[Head], earlier: Option<Head>, size: u64| {
        let mut roots = Roots::new(signed, earlier);
        for index in 0..size {
            let is_signed = roots.push(leaf(index))?;
            assert_eq!(is_signed, signed.iter().any(|head| head.size == index + 1));
            let below = signed.iter().filter(|head| head.size <= index + 1).map(|head| head.size).max();
            assert_eq!(roots.covered(), below.unwrap_or(0));
        }
        roots.finish()
    };
    let signed = [head(2), head(5)];
    assert_eq!(run(&signed, None, 5), Ok(2));
    for earlier in 1..=5 {
        assert_eq!(run(&signed, Some(head(earlier)), 5), Ok(2), "{earlier}");
        let other = Head { root: leaf(0), ..head(earlier) };
        // The root over one entry is its hash.
        let error = run(&signed, Some(other), 5).err().map(|error| error.index);
        assert_eq!(error, (earlier != 1).then_some(Some(earlier - 1)), "{earlier}");
    }
    assert!(run(&signed, Some(head(6)), 5).unwrap_err().reason.contains("rolled back"));
    assert!(run(&signed, None, 6).unwrap_err().reason.contains("of all 6 entries, found 5"));
    assert!(run(&signed, None, 4).unwrap_err().reason.contains("it is of 5 entries, and there are 4"));
    assert!(run(&[], None, 1).unwrap_err().reason.contains("of all 1 entries, found 0"));
    let wrong = [head(2), Head { size: 4, ..head(5) }, head(5)];
    assert_eq!(run(&wrong, None, 5).unwrap_err().place, "checkpoints, checkpoint 2");
}
