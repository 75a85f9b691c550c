use super::super::note::tests::Signer;
use super::*;

const ORIGIN: &str = "ledger.example/smki";

fn checkpoint() -> Checkpoint {
    Checkpoint::new(ORIGIN.parse().unwrap(), Head { size: 20_852_163, root: Digest([7; 32]) })
}

#[test]
fn a_checkpoint_has_three_lines_and_is_read_as_it_is_written() {
    let text = checkpoint().text();
    assert_eq!(text, format!("{ORIGIN}\n20852163\n{}\n", STANDARD.encode([7; 32])));
    assert_eq!(Checkpoint::parse(&text), Ok(checkpoint()));
    let empty = Checkpoint::new(ORIGIN.parse().unwrap(), Head::empty());
    assert_eq!(Checkpoint::parse(&empty.text()), Ok(empty));
}

#[test]
fn a_checkpoint_in_any_other_form_is_refused() {
    let root = STANDARD.encode([7; 32]);
    for wrong in [
        String::new(),
        "\n".into(),
        format!("{ORIGIN}\n5\n{root}"),
        format!("{ORIGIN}\n5\n"),
        format!("{ORIGIN}\n5\n{root}\n\n"),
        format!("{ORIGIN}\n5\n{root}\nextension\n"),
        format!("\n5\n{root}\n"),
        format!("{ORIGIN} \n5\n{root}\n"),
        format!("{ORIGIN}\n05\n{root}\n"),
        format!("{ORIGIN}\n00\n{root}\n"),
        format!("{ORIGIN}\n+5\n{root}\n"),
        format!("{ORIGIN}\n-5\n{root}\n"),
        format!("{ORIGIN}\n\n{root}\n"),
        format!("{ORIGIN}\n18446744073709551616\n{root}\n"),
        format!("{ORIGIN}\n5\n{}\n", STANDARD.encode([7; 31])),
        format!("{ORIGIN}\n5\n{}\n", STANDARD.encode([7; 33])),
        format!("{ORIGIN}\n5\n{}\n", root.trim_end_matches('=')),
        // The last digit carries 4 bits; one with the other 2 set is another text for the same octets.
        format!("{ORIGIN}\n5\n{}\n", root.replace("c=", "d=")),
    ] {
        assert!(Checkpoint::parse(&wrong).is_err(), "{wrong:?}");
    }
    assert!(Checkpoint::parse(&format!("{ORIGIN}\n18446744073709551615\n{root}\n")).is_ok());
}

#[test]
fn a_signed_checkpoint_verifies_under_its_own_key_and_origin_only() {
    let (ours, other_key) = (Signer::new(ORIGIN), Signer::new(ORIGIN));
    let note = ours.note(&checkpoint().text());
    let signed = SignedCheckpoint::verify(note.octets(), &ours.verifier).unwrap();
    assert_eq!(signed.checkpoint(), &checkpoint());
    assert_eq!(signed.octets(), note.octets());
    assert!(SignedCheckpoint::verify(note.octets(), &other_key.verifier).is_err());

    let elsewhere = Verifier::from_spki("ledger.example/other", ours.verifier.spki()).unwrap();
    let text = checkpoint().text();
    let note = Note::assemble(&text, &elsewhere, &ours.sign(&text)).unwrap();
    assert!(matches!(SignedCheckpoint::verify(note.octets(), &elsewhere), Err(CheckpointError::OtherLedger { .. })));
    assert!(SignedCheckpoint::verify(note.octets(), &ours.verifier).is_err());
}

#[test]
fn a_signature_of_r_and_s_is_put_under_a_checkpoint_only_if_it_verifies() {
    let ours = Signer::new(ORIGIN);
    // From the DER that ring writes to r and s.
    let der = ours.sign(&checkpoint().text());
    let mut fixed = [0; 64];
    let mut rest = &der[2..];
    for half in fixed.as_chunks_mut::<32>().0 {
        let len = usize::from(rest[1]);
        let magnitude = &rest[2..2 + len];
        let magnitude = &magnitude[len.saturating_sub(32)..];
        half[32 - magnitude.len()..].copy_from_slice(magnitude);
        rest = &rest[2 + len..];
    }
    let signed = SignedCheckpoint::assemble(&checkpoint(), &ours.verifier, &fixed).unwrap();
    assert_eq!(SignedCheckpoint::verify(signed.octets(), &ours.verifier), Ok(signed.clone()));
    let verified = SignedCheckpoint::assemble_verified(&checkpoint(), &ours.verifier, &fixed, ours.verifier.point());
    assert_eq!(verified, Ok(signed));
    fixed[63] ^= 1;
    assert!(SignedCheckpoint::assemble(&checkpoint(), &ours.verifier, &fixed).is_err());
    // What another key verified is verified again.
    let other = Signer::new(ORIGIN).verifier;
    assert!(SignedCheckpoint::assemble_verified(&checkpoint(), &ours.verifier, &fixed, other.point()).is_err());
}
