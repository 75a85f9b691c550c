//! An export that was altered, cut or written anew: whatever it is, it is refused where it lies.

use std::sync::atomic::{AtomicUsize, Ordering};

use smkid::cli::ledger_export::StoreSource;
use smkid::domain::ledger::merkle::Leaf;
use smkid::domain::ledger::tiles::{self, Tiler};

use super::*;

fn write(root: &Path, files: &BTreeMap<String, Vec<u8>>) {
    for (name, octets) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, octets).unwrap();
    }
}

#[test]
fn what_the_recorder_wrote_is_exported_and_verifies() {
    let fixture = Fixture::new();
    let reader = fixture.reader();
    let export = Export::of(&fixture, &StoreSource(&*reader));
    let (status, out, err) = export.verify();
    assert_eq!((status, err.as_str()), (0, ""));
    assert!(out.contains("every entry in it was permitted"), "{out}");
    let (status, out, err) = run(&LedgerVerify { output: Output::Json, ..export.args() });
    assert_eq!((status, err.as_str()), (0, ""));
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    let summary = &answer["summary"];
    let counted = ["intents", "signed", "failed", "not_signed", "unknown", "left", "released", "open"];
    assert_eq!(counted.map(|name| summary[name].as_u64().unwrap()), [8, 4, 1, 1, 2, 1, 3, 0]);
    let counted = ["determinations", "suspensions", "withdrawals", "refusals", "starts", "certification_requests"];
    assert_eq!(counted.map(|name| summary[name].as_u64().unwrap()), [1, 1, 1, 2, 2, 1]);
    assert_eq!(answer["size"].as_u64(), Some(fixture.marks["end"]));
}

#[test]
fn the_same_key_as_pem_verifies_and_another_key_or_genesis_does_not() {
    let fixture = Fixture::new();
    let export = Export::of(&fixture, &StoreSource(&*fixture.reader()));
    let pem = |name: &str, spki: &[u8]| {
        let path = export.folder.path().join(name);
        let block = der::pem::encode_string("PUBLIC KEY", der::pem::LineEnding::LF, spki).unwrap();
        fs::write(&path, block).unwrap();
        path
    };
    let ours = LedgerVerify { key: pem("ours.pem", fixture.verifier.spki()), ..export.args() };
    assert_eq!(run(&ours).0, 0);
    let other = pem("other.pem", &Key::generate().public.to_spki());
    let (status, _, err) = run(&LedgerVerify { key: other, ..export.args() });
    assert_eq!(status, 5);
    assert!(err.contains("checkpoint: "), "{err}");
    for tree_only in [false, true] {
        let (status, _, err) = run(&LedgerVerify { genesis: Digest([1; 32]), tree_only, ..export.args() });
        assert_eq!(status, 5);
        assert!(err.contains("entry 0, genesis: ") && err.contains("another ledger"), "{err}");
    }
    let (status, _, err) = run(&LedgerVerify { key: export.folder.path().join("none"), ..export.args() });
    assert_eq!(status, 1, "{err}");
    let (status, _, err) = run(&LedgerVerify { dir: export.folder.path().join("none"), ..export.args() });
    assert_eq!(status, 1, "{err}");
}

#[test]
fn a_ledger_that_does_not_extend_an_earlier_checkpoint_is_refused() {
    let fixture = Fixture::new();
    let now = Export::of(&fixture, &StoreSource(&*fixture.reader()));
    let before = Export::of(&fixture, &fixture.forge("first job"));
    let seen = |export: &Export| Some(export.dir().join("checkpoint"));
    for tree_only in [false, true] {
        let verify = |export: &Export, checkpoint| run(&LedgerVerify { checkpoint, tree_only, ..export.args() });
        assert_eq!(verify(&now, seen(&before)).0, 0);
        assert_eq!(verify(&now, seen(&now)).0, 0);
        let (status, _, err) = verify(&before, seen(&now));
        assert_eq!(status, 5);
        assert!(err.contains("the checkpoint given: ") && err.contains("rolled back"), "{err}");
        let mut other = fixture.forge("ready");
        other.command(50, device(0), COUNTER_START + 1);
        let other = Export::of(&fixture, &other);
        assert_eq!(verify(&other, None).0, 0);
        let (status, _, err) = verify(&now, seen(&other));
        assert_eq!(status, 5);
        assert!(err.contains("does not extend it"), "{err}");
    }
}

#[test]
fn an_export_is_never_written_over_anything() {
    let fixture = Fixture::new();
    let export = Export::of(&fixture, &fixture.forge("first job"));
    let again = |dir: PathBuf| {
        let mut err = Vec::new();
        let args = LedgerExport { dir, output: Output::Json };
        let status = ledger_export::run(&args, &fixture.forge("first job"), &mut Vec::new(), &mut err);
        (status, String::from_utf8(err).unwrap())
    };
    assert_eq!(again(export.dir()), (0, String::new()), "an export of the same ledger is brought up to date");
    let full = export.folder.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("letter"), "Dear Sir").unwrap();
    let (status, err) = again(full);
    assert_eq!(status, 1);
    assert!(err.contains("not empty"), "{err}");
    let empty = export.folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert_eq!(again(empty), (0, String::new()));
    let partial = export.folder.path().join("new.partial");
    fs::create_dir(&partial).unwrap();
    fs::write(partial.join("letter"), "Dear Sir").unwrap();
    let (status, err) = again(export.folder.path().join("new"));
    assert_eq!(status, 1);
    assert!(err.contains("new.partial") && err.contains("not empty"), "{err}");
    assert!(!export.folder.path().join("new").exists());
    fs::remove_file(partial.join("letter")).unwrap();
    let held = fs::File::open(&partial).unwrap();
    held.lock().unwrap();
    let (status, err) = again(export.folder.path().join("new"));
    assert_eq!(status, 1);
    assert!(err.contains("another export is being written"), "{err}");
    drop(held);
    assert_eq!(again(export.folder.path().join("new")).0, 0);
}

#[test]
fn openssl_and_sha256sum_alone_check_a_checkpoint_a_command_and_a_determination() {
    use crate::lab::Scratch;
    let fixture = Fixture::new();
    let export = Export::of(&fixture, &StoreSource(&*fixture.reader()));
    let scratch = Scratch::new();
    let note = fs::read_to_string(export.dir().join("checkpoint")).unwrap();
    let (text, signature) = note.split_once("\n\n").unwrap();
    let base64 = signature.trim_end().rsplit(' ').next().unwrap();
    let octets = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, base64).unwrap();
    scratch.write("text", format!("{text}\n"));
    scratch.write("signature", &octets[4..]);
    scratch.write("ledger.der", fixture.verifier.spki());
    scratch.openssl("dgst -sha256 -verify ledger.der -keyform DER -signature signature text");
    // The last record is the retry of the second Device.
    let signatures = fs::read(export.dir().join("signatures")).unwrap();
    let record = signatures.chunks_exact(72).last().unwrap();
    let signature = smkid::domain::ledger::note::signature_to_der(record[8..].try_into().unwrap());
    scratch.write("command", &fixture.fill(device(1), COUNTER_START + 1)[1..]);
    scratch.write("signature", signature);
    scratch.write("recovery.der", fixture.recovery_key.public.to_spki());
    scratch.openssl("dgst -sha256 -verify recovery.der -keyform DER -signature signature command");
    // Each blob has the name that sha256sum gives it.
    for name in files(&export.dir()).keys().filter_map(|name| name.strip_prefix("blobs/sha256/")) {
        let said =
            scratch.openssl(&format!("dgst -sha256 -r {}", export.dir().join("blobs/sha256").join(name).display()));
        assert!(said.starts_with(name), "{said}");
    }
    let forge = fixture.forge("end");
    let Event::DeterminationRecorded(recorded) = forge.entry(forge.last("determination-recorded")).event else {
        panic!("no determination")
    };
    let blob = |digest: Digest| fs::read(export.dir().join(format!("blobs/sha256/{digest}"))).unwrap();
    scratch.write("document", blob(recorded.document));
    scratch.write("p7s", blob(recorded.signatures[0].p7s));
    let sums = blob(fixture.policy);
    let people = String::from_utf8(sums).unwrap();
    let people = people.lines().find(|line| line.ends_with("anchors/people.pem")).unwrap();
    scratch.write("people.pem", blob(people.split_once("  ").unwrap().0.parse().unwrap()));
    scratch
        .openssl("cms -verify -binary -cades -inform DER -in p7s -content document -CAfile people.pem -out verified");
}

/// Verifies after a change, which must be refused and named.
#[track_caller]
fn refused(export: &Export, what: &str, place: &str) {
    for tree_only in [false, true] {
        let (status, out, err) = run(&LedgerVerify { tree_only, ..export.args() });
        // A document that nobody names, or that was never released, is no matter of the tree.
        if tree_only && status == 0 && (what.contains("surplus blob") || what.contains("signature")) {
            continue;
        }
        assert_eq!(status, 5, "{what} (tree only: {tree_only}): {out}{err}");
        assert!(err.contains(place), "{what} (tree only: {tree_only}): {place} is not named in {err}");
    }
}

#[test]
fn every_file_of_an_export_is_accounted_for() {
    let fixture = Fixture::new();
    let export = Export::of(&fixture, &StoreSource(&*fixture.reader()));
    let dir = export.dir();
    let whole = files(&dir);
    assert_eq!(whole.keys().filter(|name| name.starts_with("tile/")).count(), 2);
    let restore = |name: &str, octets: &[u8]| fs::write(dir.join(name), octets).unwrap();
    let tile = |name: &str| if name.starts_with("tile/") { "tile/" } else { "" };
    for (name, octets) in &whole {
        let digest = name.strip_prefix("blobs/sha256/").unwrap_or(name);
        let path = dir.join(name);
        fs::remove_file(&path).unwrap();
        // Without a look at the entries nobody knows that a blob is missing.
        let (status, _, err) = export.verify();
        assert!(status == 5 && err.contains(digest), "{name} removed: {err}");
        let link = export.folder.path().join("copy");
        fs::write(&link, octets).unwrap();
        std::os::unix::fs::symlink(&link, &path).unwrap();
        refused(&export, &format!("{name} a link"), name);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let (status, _, err) = export.verify();
        assert!(status == 5 && err.contains(digest), "{name} a folder: {err}");
        fs::remove_dir(&path).unwrap();
        let upper = dir.join(name.to_uppercase());
        fs::create_dir_all(upper.parent().unwrap()).unwrap();
        fs::write(&upper, octets).unwrap();
        let (status, _, err) = export.verify();
        assert!(status == 5, "{name} in upper case: {err}");
        for top in ["BLOBS", "TILE"] {
            let _ = fs::remove_dir_all(dir.join(top));
        }
        let _ = fs::remove_file(&upper);
        for cut in [0, octets.len() / 2, octets.len() - 1] {
            restore(name, &octets[..cut]);
            refused(&export, &format!("{name} cut, a signature or more"), tile(name));
        }
        restore(name, &[&octets[..], b"\n"].concat());
        refused(&export, &format!("{name} lengthened"), tile(name));
        restore(name, octets);
    }
    let names: Vec<&String> = whole.keys().collect();
    for pair in names.windows(2) {
        restore(pair[0], &whole[pair[1]]);
        restore(pair[1], &whole[pair[0]]);
        refused(&export, &format!("{} and {} swapped", pair[0], pair[1]), "");
        for name in pair {
            restore(name, &whole[*name]);
        }
    }
    let strange = format!("blobs/sha256/{}", Digest::of(b"a stranger"));
    for (name, octets) in [
        (strange.as_str(), &b"a stranger"[..]),
        ("tile/1/000.p/1", &[0; 32]),
        ("tile/entries/000", b""),
        ("tile/0/000.p/3", b""),
        ("README.txt", b"hello"),
        (".hidden", b""),
        ("blobs/README", b""),
        ("checkpoint~", b""),
    ] {
        fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
        restore(name, octets);
        let what = if name == strange { "a surplus blob" } else { name };
        refused(&export, what, name);
        fs::remove_file(dir.join(name)).unwrap();
        let _ = fs::remove_dir(dir.join("tile/1/000.p"));
        let _ = fs::remove_dir(dir.join("tile/1"));
    }
    fs::create_dir(dir.join("empty")).unwrap();
    refused(&export, "an empty folder", "empty");
    fs::remove_dir(dir.join("empty")).unwrap();
    // A signature of what was withheld, in its place among the others.
    let forge = fixture.forge("end");
    let withheld = forge.last("intent");
    let mut signatures = whole["signatures"].clone();
    signatures.extend(withheld.to_be_bytes());
    signatures.extend(forge.signatures[&withheld]);
    restore("signatures", &signatures);
    refused(&export, "a signature that was not released", &format!("signature of intent {withheld}"));
    restore("signatures", &whole["signatures"]);
    assert_eq!(export.verify().0, 0);
}

#[test]
fn entries_dropped_swapped_added_or_repeated_are_refused() {
    let fixture = Fixture::new();
    let forge = fixture.forge("end");
    let export = Export::of(&fixture, &forge);
    let whole = files(&export.dir());
    let leaves = &forge.leaves;
    let check = |what: String, leaves: &[Vec<u8>]| {
        let dir = export.dir();
        fs::remove_dir_all(dir.join("tile")).unwrap();
        let mut made = BTreeMap::new();
        let mut tiler = Tiler::new();
        let mut emit = |name: tiles::TileName, octets: &[u8]| {
            made.insert(name.to_string(), octets.to_vec());
            Ok::<(), std::convert::Infallible>(())
        };
        for leaf in leaves {
            tiler.push(&Leaf::new(leaf).unwrap(), &mut emit).unwrap();
        }
        tiler.finish(&mut emit).unwrap();
        write(&dir, &made);
        refused(&export, &what, "");
    };
    for at in 0..leaves.len() {
        let mut dropped = leaves.clone();
        dropped.remove(at);
        check(format!("entry {at} dropped"), &dropped);
        let mut repeated = leaves.clone();
        repeated.insert(at, leaves[at].clone());
        check(format!("entry {at} repeated"), &repeated);
        if at > 0 {
            let mut swapped = leaves.clone();
            swapped.swap(at, at - 1);
            check(format!("entries {at} and {} swapped", at - 1), &swapped);
        }
    }
    let _ = fs::remove_dir_all(export.dir());
    write(&export.dir(), &whole);
    assert_eq!(export.verify().0, 0);
}

#[test]
fn every_flipped_octet_is_refused_at_every_position() {
    let fixture = Fixture::new();
    let mut forge = fixture.forge("first job");
    // Every checkpoint costs each of the runs a verification, and more octets of its kind: no more than the ledger needs.
    for size in forge.sizes.clone() {
        forge.sizes.remove(&size);
        if Export::of(&fixture, &forge).verify().0 != 0 {
            forge.sizes.insert(size);
        }
    }
    assert!(forge.sizes.len() >= 2, "one before each signature: {:?}", forge.sizes);
    let exports = [Export::of(&fixture, &forge), Export::of(&fixture, &forge)];
    // The checkpoints of the two are signed each for itself, so each is compared with its own files.
    let (done, next) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let names: Vec<String> = files(&exports[0].dir()).into_keys().collect();
    std::thread::scope(|scope| {
        for export in &exports {
            let (done, next, names) = (&done, &next, &names);
            scope.spawn(move || {
                let whole = files(&export.dir());
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let path = export.dir().join(name);
                    let octets = &whole[name];
                    for at in 0..octets.len() {
                        let mut flipped = octets.clone();
                        flipped[at] ^= 1 << (at % 8);
                        fs::write(&path, flipped).unwrap();
                        let (status, _, err) = export.verify();
                        assert_eq!(status, 5, "{name}, octet {at}: {err}");
                        let file = name.strip_prefix("blobs/sha256/").unwrap_or(name);
                        assert!(err.contains("entry ") || err.contains(file), "{name}, octet {at}: {err}");
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    fs::write(&path, octets).unwrap();
                }
                assert_eq!(export.verify().0, 0);
            });
        }
    });
    println!("{} octets of {} files", done.into_inner(), names.len());
}
