use super::super::checkpoint::Checkpoint;
use super::super::merkle::{Frontier, Subtree, inclusion_path, leaf_hash};
use super::super::note::tests::Signer;
use super::*;

const ORIGIN: &str = "ledger.example/smki";

fn leaf(i: u64) -> Digest {
    leaf_hash(&i.to_be_bytes())
}

fn receipt(signer: &Signer, index: u64, size: u64) -> Proof {
    let mut frontier = Frontier::new();
    let mut complete = std::collections::HashMap::new();
    for i in 0..size {
        frontier.push_with(leaf(i), |part, hash| {
            complete.insert(part, hash);
        });
    }
    let path = inclusion_path::<MerkleError>(index, size, |part: Subtree| Ok(complete[&part])).unwrap();
    let text = Checkpoint::new(ORIGIN.parse().unwrap(), frontier.head()).text();
    Proof { index, path, checkpoint: signer.note(&text).octets().to_vec() }
}

#[test]
fn a_receipt_is_read_as_it_is_written_and_verifies() {
    let signer = Signer::new(ORIGIN);
    for (index, size) in [(0, 1), (0, 2), (5, 13), (12, 13), (63, 64)] {
        let proof = receipt(&signer, index, size);
        let octets = proof.to_octets();
        assert!(octets.starts_with(format!("c2sp.org/tlog-proof@v1\nindex {index}\n").as_bytes()));
        let read = Proof::parse(&octets).unwrap();
        assert_eq!(read, proof);
        assert_eq!(read.verify(leaf(index), &signer.verifier).unwrap().head().size, size);
        assert!(read.verify(leaf(index + 1), &signer.verifier).is_err());
    }
}

#[test]
fn every_octet_changed_in_a_receipt_is_noticed() {
    let signer = Signer::new(ORIGIN);
    let octets = receipt(&signer, 5, 13).to_octets();
    let accepted =
        |octets: &[u8]| Proof::parse(octets).and_then(|proof| proof.verify(leaf(5), &signer.verifier)).is_ok();
    assert!(accepted(&octets));
    for at in 0..octets.len() {
        let mut changed = octets.clone();
        changed[at] ^= 0x01;
        assert!(!accepted(&changed), "octet {at}");
        assert!(!accepted(&octets[..at]), "cut at {at}");
    }
}

#[test]
fn extra_data_is_passed_over_but_must_be_base64() {
    let signer = Signer::new(ORIGIN);
    let proof = receipt(&signer, 1, 2);
    let text = String::from_utf8(proof.to_octets()).unwrap();
    let with = |extra: &str| Proof::parse(text.replace("\nindex", &format!("\nextra {extra}\nindex")).as_bytes());
    assert_eq!(with("YWJj"), Ok(proof));
    assert!(matches!(with("?"), Err(ProofError::Line { line: 2, .. })));
}

#[test]
fn malformed_receipts_are_refused_by_line() {
    #[track_caller]
    fn check(octets: &[u8], expected: usize) {
        match Proof::parse(octets) {
            Err(ProofError::Line { line, .. }) => assert_eq!(line, expected),
            other => panic!("{other:?}"),
        }
    }
    let hash = STANDARD.encode([1; 32]) + "\n";
    check(b"", 1);
    check(b"c2sp.org/tlog-proof@v2\n", 1);
    check(b"c2sp.org/tlog-proof@v1\n", 2);
    check(b"c2sp.org/tlog-proof@v1\nindex 01\n", 2);
    check(b"c2sp.org/tlog-proof@v1\nindex\n", 2);
    check(b"c2sp.org/tlog-proof@v1\nindex 1\nAAAA\n", 3);
    check(b"c2sp.org/tlog-proof@v1\nindex 1\n", 3);
    check(b"c2sp.org/tlog-proof@v1\nindex 1\n\xFF\n", 3);
    check(format!("c2sp.org/tlog-proof@v1\nindex 1\n{}\n", hash.repeat(65)).as_bytes(), 67);
    assert!(Proof::parse(format!("c2sp.org/tlog-proof@v1\nindex 1\n{}\n", hash.repeat(64)).as_bytes()).is_ok());
    assert!(matches!(Proof::parse(&vec![b'\n'; PROOF_LEN_MAX + 1]), Err(ProofError::TooLong { .. })));
}
