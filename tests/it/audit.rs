//! A whole ledger exported and verified; and everything that can be wrong with one.

mod device_certificates;
mod jobs;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use smkid::cli::contingency_command::ContingencyCommand;
use smkid::cli::ledger_export::{self, LedgerExport, Source, StoreSource};
use smkid::cli::ledger_verify::{self, LedgerVerify};
use smkid::cli::print::Output;
use smkid::domain::certificates::pem::certificate_to_pem;
use smkid::domain::ledger::entry::{
    Actor, Batch, CertificationIntent, ClockAccepted, ClockJumped, ClockState, Entry, Event, ExerciseRecorded,
    FileAccepted, Genesis, Health, IncidentClosed, KeyActivated, KeyCopied, KeyLocked, LoginRetried, ProfileInForce,
    Reason, Refused, ResponseTally, ResponsesTaken, Role, Settled, SigningResumed, Started, TokenFound, TokenHealth,
};
use smkid::domain::ledger::merkle::Leaf;
use smkid::domain::ledger::tiles::{self, Tiler};
use smkid::domain::names::{DeterminationId, Digest, FileKind, Purpose, RequestId};
use smkid::domain::time::Timestamp;

use crate::lab::Key;
use crate::support::ledger_fixture::{COUNTER_START, DEVICES, Fixture, Forge, HOUR_MS, PER_HOUR, device};
use crate::support::meter;

/// An export in a folder of its own, with the key beside it.
struct Export {
    folder: tempfile::TempDir,
    genesis: Digest,
}

impl Export {
    fn of(fixture: &Fixture, source: &dyn Source) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ledger.vkey"), format!("{}\n", fixture.verifier.vkey())).unwrap();
        let export = Self { folder, genesis: fixture.genesis };
        let args = LedgerExport { dir: export.dir(), output: Output::Text };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let status = ledger_export::run(&args, source, &mut out, &mut err);
        assert_eq!(status, 0, "{}", String::from_utf8_lossy(&err));
        export
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("ledger")
    }

    fn args(&self) -> LedgerVerify {
        LedgerVerify {
            dir: self.dir(),
            key: self.folder.path().join("ledger.vkey"),
            genesis: self.genesis,
            checkpoint: None,
            tree_only: false,
            contingency: ContingencyCommand::default(),
            output: Output::Text,
        }
    }

    fn verify(&self) -> (u8, String, String) {
        run(&self.args())
    }
}

fn run(args: &LedgerVerify) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = ledger_verify::run(args, &mut out, &mut err);
    (status, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

/// Every file of an export, by its path.
pub(crate) fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

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

/// Forges a ledger from a mark on, with the ledger key: it must be refused at the entry that the forgery answers.
#[track_caller]
fn forged(fixture: &Fixture, mark: &str, expected: &str, forgery: impl FnOnce(&mut Forge<'_>) -> u64) {
    let mut forge = fixture.forge(mark);
    let index = forgery(&mut forge);
    let export = Export::of(fixture, &forge);
    let (status, out, err) = export.verify();
    assert_eq!(status, 5, "{expected}: {out}");
    let place = format!("entry {index}, {}: ", forge.entry(index).event.kind());
    assert!(err.contains(&place) && err.contains(expected), "expected {place}… {expected}, found {err}");
}

fn start(forge: &mut Forge<'_>) {
    let digest = Digest([0xAB; 32]);
    let started = Started { version: "0.1.0".into(), program: digest, configuration: digest, unconfirmed: None };
    forge.push_by(Actor::daemon(), Event::Started(started));
    let activated = forge.entry(forge.last("key-activated")).event;
    forge.push(activated);
}

/// The Recovery key is found on a further token, as the policy has it; or not quite.
fn copy(forge: &mut Forge<'_>, change: impl FnOnce(&mut KeyCopied)) -> u64 {
    let Event::Genesis(genesis) = forge.entry(0).event else { panic!("no genesis") };
    let key = genesis.keys.into_iter().find(|key| key.label.as_str() == "recovery-1").unwrap();
    let mut copied = KeyCopied {
        key: key.label,
        token: "smki-b".parse().unwrap(),
        serial: "0002".into(),
        spki_sha256: key.spki_sha256,
        by: "The maker's domain cloning, at the ceremony".into(),
    };
    change(&mut copied);
    forge.push_by(Actor { person: None, role: Role::Ceremony, ..Actor::daemon() }, Event::KeyCopied(copied))
}

/// It is activated on its own token and on these.
fn activate_on(forge: &mut Forge<'_>, also: &[(&str, &str)]) -> u64 {
    let Event::KeyActivated(mut activated) = forge.entry(forge.last("key-activated")).event else {
        panic!("no activation")
    };
    let found =
        also.iter().map(|(token, serial)| TokenFound { token: token.parse().unwrap(), serial: (*serial).into() });
    activated.also = found.collect();
    forge.push(Event::KeyActivated(activated))
}

#[test]
fn a_key_that_a_ceremony_found_on_a_further_token_is_activated_there_too() {
    let fixture = Fixture::new();
    let mut forge = fixture.forge("first job");
    copy(&mut forge, |_| {});
    activate_on(&mut forge, &[("smki-b", "0002")]);
    assert_eq!(Export::of(&fixture, &forge).verify().0, 0);
}

fn health(since: Timestamp) -> TokenHealth {
    let (token, cause) = ("recovery-a".parse().unwrap(), Some("gone".into()));
    let (from, to) = (Health::Up, Health::Down);
    TokenHealth { token, from, to, since, function: None, code: None, cause, folded: 0 }
}

fn login_retried(asked: Timestamp) -> LoginRetried {
    LoginRetried { token: "ledger-a".parse().unwrap(), serial: "1".into(), asked, was: "refused".into() }
}

#[test]
fn what_goes_on_honestly_verifies() {
    let fixture = Fixture::new();
    let mut forge = fixture.forge("first job");
    forge.command(50, device(2), COUNTER_START + 2);
    let batch = forge.batch(51);
    let retry = forge.intent(batch, device(1), COUNTER_START + 1, 2);
    forge.checkpoint();
    forge.sign(retry);
    // A start in between: the request goes on in another batch, and all of it is released.
    start(&mut forge);
    let batch = forge.batch(51);
    let pre_command = forge.intent(batch, device(4), COUNTER_START + 1_001, 1);
    forge.checkpoint();
    forge.sign(pre_command);
    forge.release(51, vec![(retry, pre_command + 1)]);
    forge.release(51, vec![(pre_command, pre_command + 1)]);
    forge.push_by(Actor::daemon(), Event::ClockJumped(ClockJumped { by_ms: 9_999 }));
    forge.clock = ClockState::Untrusted;
    forge.push(Event::ClockAccepted(ClockAccepted { reason: "A watch".into(), from: None }));
    forge.clock = ClockState::Trusted;
    forge.batch(52);
    let at = forge.at;
    forge.push_by(Actor::daemon(), Event::TokenHealth(health(at)));
    forge.push_by(Actor::daemon(), Event::TokenHealth(TokenHealth { to: Health::Up, folded: 1, ..health(at) }));
    forge.push(Event::LoginRetried(login_retried(at)));
    let (status, _, err) = Export::of(&fixture, &forge).verify();
    assert_eq!((status, err.as_str()), (0, ""));
}

#[test]
fn commands_that_no_rule_allows_are_found_though_the_ledger_key_signed_them() {
    let fixture = Fixture::new();
    let check = |expected: &str, forgery: fn(&mut Forge<'_>) -> u64| forged(&fixture, "first job", expected, forgery);
    let next = COUNTER_START + 2;
    assert_eq!(next, 7_002, "the forgeries below count from there");
    check("no determination 09", |forge| {
        let batch = forge.batch(50);
        let Event::Batch(batch) = forge.entry(batch).event else { panic!("no batch") };
        forge.cut(forge.size() - 1);
        forge.push(Event::Batch(Batch { determination: DeterminationId([9; 16]), ..batch }))
    });
    check("counter-too-low", |forge| {
        let batch = forge.batch(50);
        forge.intent(batch, device(2), 7_001, 1)
    });
    check("counter-too-high", |forge| {
        let batch = forge.batch(50);
        forge.intent(batch, device(2), 7_001 + 1_001, 1)
    });
    check("device-out-of-scope", |forge| {
        let batch = forge.batch(50);
        forge.intent(batch, "00DB1234567890FF".parse().unwrap(), 7_001, 1)
    });
    check("already-signed", |forge| {
        let batch = forge.batch(50);
        forge.intent(batch, device(0), 7_002, 1)
    });
    check("outcome-unknown", |forge| {
        let batch = forge.batch(50);
        forge.intent(batch, device(1), 7_002, 1)
    });
    check("nothing-unknown", |forge| {
        let batch = forge.batch(50);
        forge.intent(batch, device(4), 7_001, 2)
    });
    check("expected counter 7001, attempt 2", |forge| {
        let batch = forge.batch(50);
        forge.intent(batch, device(1), 7_002, 2)
    });
    check("in-flight", |forge| {
        let batch = forge.batch(50);
        forge.intent(batch, device(2), 7_002, 1);
        forge.intent(batch, device(2), 7_003, 1)
    });
    check("rate: the determination permits", |forge| {
        let batch = forge.batch(50);
        let intents = (5..PER_HOUR).map(|at| {
            let intent = forge.intent(batch, device(2), 7_002 + at - 5, 1);
            forge.not_signed(intent);
        });
        intents.for_each(drop);
        forge.intent(batch, device(4), 7_002, 1)
    });
    check("has SHA-256", |forge| {
        let batch = forge.batch(50);
        forge.intent(batch, device(2), 7_002, 1);
        forge.replace("intent", |event| {
            let Event::Intent(intent) = event else { panic!("no intent") };
            intent.command = Digest::of(b"a floor, changed");
        })
    });
    check("expected template esme, found gsme", |forge| {
        let batch = forge.batch(50);
        forge.intent(batch, device(2), 7_002, 1);
        forge.replace("intent", |event| {
            let Event::Intent(intent) = event else { panic!("no intent") };
            intent.template = "gsme".parse().unwrap();
        })
    });
    check("window: ", |forge| {
        forge.at = forge.at.plus_ms(7 * HOUR_MS);
        forge.batch(50)
    });
    check("window: ", |forge| {
        let batch = forge.batch(50);
        forge.at = forge.at.plus_ms(7 * HOUR_MS);
        forge.intent(batch, device(2), 7_002, 1)
    });
    check("key-locked", |forge| {
        let locked = KeyLocked { key: "recovery-1".parse().unwrap(), reason: "on demand".into(), incident: None };
        forge.push(Event::KeyLocked(locked));
        forge.batch(50)
    });
    check("incident-not-open", |forge| {
        let closed = IncidentClosed {
            incident: "INC-1".parse().unwrap(),
            reason: "done".into(),
            profile: None,
            departures: vec![],
        };
        forge.push(Event::IncidentClosed(closed));
        forge.batch(50)
    });
    check("was used in entry", |forge| {
        forge.batch(50);
        forge.batch(50);
        forge.replace("batch", |event| {
            let Event::Batch(batch) = event else { panic!("no batch") };
            batch.asked = Digest([0; 32]);
        })
    });
    check("in force is", |forge| {
        forge.batch(50);
        forge.replace("batch", |event| {
            let Event::Batch(batch) = event else { panic!("no batch") };
            batch.policy = Digest([0; 32]);
        })
    });
    check("does not stand before it", |forge| {
        let batch = forge.batch(50);
        start(forge);
        forge.intent(batch, device(2), 7_002, 1)
    });
    check("has no outcome, and the daemon started since", |forge| {
        let batch = forge.batch(50);
        forge.intent(batch, device(2), 7_002, 1);
        start(forge);
        let batch = forge.batch(50);
        forge.intent(batch, device(4), 7_002, 1)
    });
}

#[test]
fn signatures_and_releases_that_nothing_bears_out_are_found() {
    let fixture = Fixture::new();
    let check = |expected: &str, forgery: fn(&mut Forge<'_>) -> u64| forged(&fixture, "first job", expected, forgery);
    check("something was signed that was not intended", |forge| {
        let batch = forge.batch(50);
        forge.checkpoint();
        forge.outcome(batch, [1; 64])
    });
    check("something was signed that was not intended", |forge| {
        let intent = forge.command(50, device(2), 7_002);
        forge.outcome(intent, forge.signatures[&intent])
    });
    check("no checkpoint was signed between", |forge| {
        let batch = forge.batch(50);
        forge.checkpoint();
        let intent = forge.intent(batch, device(2), 7_002, 1);
        forge.sign(intent)
    });
    check("does not verify", |forge| {
        let batch = forge.batch(50);
        let intent = forge.intent(batch, device(2), 7_002, 1);
        forge.checkpoint();
        let octets = forge.fixture.fill(device(2), 7_002);
        let outcome = forge.outcome(intent, Key::generate().sign(&octets[1..]));
        forge.release(50, vec![(intent, intent + 1)]);
        outcome
    });
    check("its outcome has SHA-256", |forge| {
        let intent = forge.command(50, device(2), 7_002);
        let octets = forge.fixture.fill(device(2), 7_002);
        forge.signatures.insert(intent, forge.fixture.recovery_key.sign(&octets[1..]));
        forge.last("outcome")
    });
    check("has no outcome yet", |forge| {
        let batch = forge.batch(50);
        let intent = forge.intent(batch, device(2), 7_002, 1);
        forge.release(50, vec![(intent, intent + 1)])
    });
    check("not of 32323232", |forge| {
        let first = forge.last("intent");
        forge.batch(50);
        forge.release(50, vec![(first, first + 1)])
    });
    check("no intent lies", |forge| {
        let batch = forge.batch(50);
        forge.release(50, vec![(batch, batch + 1)])
    });
    check("ascending order", |forge| {
        let intent = forge.command(50, device(2), 7_002);
        forge.release(50, vec![(intent, intent + 1), (intent, intent + 1)])
    });
    check("what was refused is not released", |forge| {
        let refused = Refused {
            operation: "recovery-sign".into(),
            incident: None,
            determination: Some(forge.fixture.determination),
            request: Some(RequestId([50; 16])),
            device: Some(device(2)),
            asked: Digest([0; 32]),
            reasons: vec![Reason { rule: "rate".into(), text: "too many".into() }],
        };
        forge.push(Event::Refused(refused));
        let first = forge.last("intent");
        forge.release(50, vec![(first, first + 1)])
    });
    check("is not unknown", |forge| {
        let intent = forge.last("intent");
        let (key, determination) = ("recovery-1".parse().unwrap(), forge.fixture.determination);
        forge.push(Event::Settled(Settled { intent, determination, key, device: device(4), reason: "lost".into() }))
    });
    forged(&fixture, "end", "withdrawn: ", |forge| {
        let withheld = forge.last("intent");
        let request = forge.entry(withheld);
        let Event::Intent(intent) = request.event else { panic!("no intent") };
        let Event::Batch(batch) = forge.entry(intent.batch).event else { panic!("no batch") };
        forge.release(batch.request.0[0], vec![(withheld, withheld + 1)])
    });
    forged(&fixture, "suspended", "suspended: ", |forge| forge.batch(50));
    forged(&fixture, "suspended", "suspended: ", |forge| {
        let withheld = forge.last("intent");
        let Event::Intent(intent) = forge.entry(withheld).event else { panic!("no intent") };
        let Event::Batch(batch) = forge.entry(intent.batch).event else { panic!("no batch") };
        forge.release(batch.request.0[0], vec![(withheld, withheld + 1)])
    });
}

/// A batch that somebody else asked for.
fn by(forge: &mut Forge<'_>, person: Option<&str>, account: &str, role: Role) -> u64 {
    let batch = forge.batch(50);
    let event = forge.entry(batch).event;
    forge.cut(batch);
    let person = person.map(|person| person.parse().unwrap());
    forge.push_by(Actor { person, account: account.into(), role, ..Forge::operator() }, event)
}

#[test]
fn who_asked_when_and_in_which_role_is_found() {
    let fixture = Fixture::new();
    let check = |expected: &str, forgery: fn(&mut Forge<'_>) -> u64| forged(&fixture, "first job", expected, forgery);
    check("asker-approved", |forge| by(forge, Some("member-1"), "member-1", Role::Operator));
    check("maps account member-1 to member-1; found nobody", |forge| by(forge, None, "member-1", Role::Operator));
    check("maps account member-1 to member-1; found operator-1", |forge| {
        by(forge, Some("operator-1"), "member-1", Role::Operator)
    });
    for role in [Role::Auditor, Role::Account, Role::Ceremony, Role::Daemon] {
        forged(&fixture, "first job", "asker: ", |forge| by(forge, Some("operator-1"), "operator-1", role));
    }
    check("before the entry that precedes it", |forge| {
        forge.at = forge.at.plus_ms(-1);
        forge.batch(50)
    });
    check("it calls the clock trusted", |forge| {
        forge.push_by(Actor::daemon(), Event::ClockJumped(ClockJumped { by_ms: 9_999 }));
        forge.batch(50)
    });
    check("clock was set for an exercise, and this ledger is live", |forge| {
        let Event::Genesis(genesis) = forge.entry(0).event else { panic!("no genesis") };
        let live = Event::Genesis(Genesis { purpose: Purpose::Live, ..genesis });
        let by = forge.entry(0).by;
        forge.cut(0);
        forge.clock = ClockState::SetForExercise;
        forge.push_by(by, live)
    });
    check("clock: the clock jumped", |forge| {
        forge.clock = ClockState::Untrusted;
        forge.batch(50)
    });
    check("asked for by operator, found daemon", |forge| {
        forge.push_by(Actor::daemon(), Event::ClockAccepted(ClockAccepted { reason: "itself".into(), from: None }))
    });
    check("asked for by operator, found daemon", |forge| {
        let asked = forge.at;
        forge.push_by(Actor::daemon(), Event::LoginRetried(login_retried(asked)))
    });
    check("after the entry", |forge| {
        let asked = forge.at.plus_ms(3_600_000);
        forge.push(Event::LoginRetried(login_retried(asked)))
    });
    check("asked for by daemon, found operator", |forge| {
        let since = forge.at;
        forge.push(Event::TokenHealth(health(since)))
    });
    check("expected a change of how token recovery-a stands", |forge| {
        let since = forge.at;
        forge.push_by(Actor::daemon(), Event::TokenHealth(TokenHealth { to: Health::Up, ..health(since) }))
    });
    check("asked for by ceremony, found operator", |forge| {
        let imported = forge.entry(forge.last("certificate-imported")).event;
        forge.push(imported)
    });
    check("checkpoints and nothing else", |forge| {
        let Event::CertificationIntent(intent) = forge.entry(forge.last("certification-intent")).event else {
            panic!("no intent")
        };
        let by = Actor { person: None, role: Role::Ceremony, ..Actor::daemon() };
        forge
            .push_by(by, Event::CertificationIntent(CertificationIntent { key: "ledger-1".parse().unwrap(), ..intent }))
    });
    check("serial number smki-a-serial", |forge| {
        let activated = forge.entry(forge.last("key-activated")).event;
        forge.push(activated);
        forge.replace("key-activated", |event| {
            let Event::KeyActivated(activated) = event else { panic!("no activation") };
            activated.serial = "another".into();
        })
    });
    check("no ceremony found key recovery-1 brought to token smki-b", |forge| {
        activate_on(forge, &[("smki-b", "0002")])
    });
    check("gives key recovery-1 no token smki-c", |forge| activate_on(forge, &[("smki-c", "0003")]));
    check("expected serial number 0002", |forge| {
        copy(forge, |_| {});
        activate_on(forge, &[("smki-b", "0003")])
    });
    check("names token smki-b twice", |forge| {
        copy(forge, |_| {});
        activate_on(forge, &[("smki-b", "0002"), ("smki-b", "0002")])
    });
    check("cloned to no token smki-c", |forge| copy(forge, |copied| copied.token = "smki-c".parse().unwrap()));
    check("holds another key", |forge| copy(forge, |copied| copied.spki_sha256 = Digest([0; 32])));
    check("serial number smki-a-serial of token smki-a", |forge| {
        copy(forge, |copied| copied.serial = "smki-a-serial".into())
    });
    check("asked for by ceremony, found operator", |forge| {
        let at = copy(forge, |_| {});
        let copied = forge.entry(at).event;
        forge.push(copied)
    });
    check("genesis", |forge| {
        let genesis = forge.entry(0).event;
        forge.push_by(Actor { role: Role::Ceremony, ..Actor::daemon() }, genesis)
    });
    check("expected the adoption of the first policy", |forge| {
        let opened = forge.entry(forge.last("incident-opened")).event;
        forge.cut(1);
        forge.push(opened)
    });
}

#[test]
fn documents_that_too_few_or_the_wrong_people_signed_are_found() {
    let fixture = Fixture::new();
    let check =
        |expected: &str, forgery: fn(&mut Forge<'_>) -> u64| forged(&fixture, "determination", expected, forgery);
    // The control: made anew with the same contents, it is accepted.
    let mut forge = fixture.forge("determination");
    forge.determination(&[0, 1], |_| {}, |_| {});
    assert_eq!(Export::of(&fixture, &forge).verify().0, 0);

    check("quorum: ", |forge| forge.determination(&[0], |_| {}, |_| {}));
    check("quorum: ", |forge| forge.determination(&[0, 0], |_| {}, |_| {}));
    check("quorum: ", |forge| forge.determination(&[0, 1], |form| form.proposer = "member-1".parse().unwrap(), |_| {}));
    check("found {", |forge| {
        forge.determination(&[0, 1], |_| {}, |recorded| recorded.signatures[0].person = "member-3".parse().unwrap())
    });
    check("found {", |forge| {
        // A third approver who never signed.
        forge.determination(
            &[0, 1],
            |_| {},
            |recorded| {
                let first = recorded.signatures[0].clone();
                recorded.signatures.push(first);
            },
        )
    });
    check("quorum: ", |forge| {
        let index = forge.last("determination-recorded");
        let Event::DeterminationRecorded(old) = forge.entry(index).event else { panic!("no determination") };
        // Signed by the members, but over other octets.
        forge.determination(
            &[0, 1],
            |form| form.counter_start = Some(0),
            |recorded| recorded.signatures = old.signatures,
        )
    });
    check("ledger.root", |forge| forge.determination(&[0, 1], |form| form.ledger.root = Digest([0; 32]), |_| {}));
    check("ledger.size", |forge| forge.determination(&[0, 1], |form| form.ledger.size = 1_000, |_| {}));
    check("live and exercise never mix", |forge| {
        forge.determination(&[0, 1], |form| form.purpose = Purpose::Live, |_| {})
    });
    check("expected 4 lines", |forge| {
        let change = |form: &mut smkid::domain::determination::document::Determination| {
            form.devices.as_mut().unwrap().count = 4;
            form.limits.as_mut().unwrap().intents = 16;
        };
        forge.determination(&[0, 1], change, |_| {})
    });
    check("devices: expected 5 lines", |forge| {
        let list = forge.blob_of(format!("{},esme\n", DEVICES[0]).into_bytes());
        forge.determination(&[0, 1], |_| {}, |recorded| recorded.devices = Some(list))
    });
    check("none came with it", |forge| forge.determination(&[0, 1], |_| {}, |recorded| recorded.devices = None));
    check("window", |forge| {
        let past = |form: &mut smkid::domain::determination::document::Determination| {
            form.window.until = form.window.from.plus_ms(1);
            form.window.from = form.window.from.plus_ms(-1);
            form.window.until = form.window.until.plus_ms(-1);
        };
        forge.determination(&[0, 1], past, |_| {})
    });
    forged(&fixture, "end", "quorum: ", |forge| {
        forge.replace("determination-withdrawn", |event| {
            let Event::DeterminationWithdrawn(withdrawn) = event else { panic!("no withdrawal") };
            withdrawn.signatures.truncate(1);
        })
    });
    forged(&fixture, "end", "found {", |forge| {
        forge.replace("determination-suspended", |event| {
            let Event::DeterminationSuspended(suspended) = event else { panic!("no suspension") };
            suspended.until = suspended.until.plus_ms(-HOUR_MS);
        })
    });
    forged(&fixture, "end", "adoption: ", |forge| {
        forge.replace("policy-adopted", |event| {
            let Event::PolicyAdopted(adopted) = event else { panic!("no adoption") };
            adopted.signatures.truncate(2);
        })
    });
    forged(&fixture, "end", "found {", |forge| {
        forge.replace("incident-opened", |event| {
            let Event::IncidentOpened(opened) = event else { panic!("no incident") };
            opened.compromised.spki_sha256 = Digest([0; 32]);
        })
    });
    forged(&fixture, "end", "found {", |forge| {
        forge.replace("certificate-imported", |event| {
            let Event::CertificateImported(imported) = event else { panic!("no certificate") };
            imported.party = "90B3D51F30000003".parse().unwrap();
        })
    });
}

/// What Devices 0 (that it failed) and 3 (success) answered to the commands of the first job.
struct Answers {
    messages: Vec<Vec<u8>>,
    /// Of each, in DER.
    certificates: Vec<Vec<u8>>,
    results: String,
}

fn answers(forge: &Forge<'_>, counter: u64) -> Answers {
    let fixture = forge.fixture;
    let (mut messages, mut certificates, mut intents) = (Vec::new(), Vec::new(), Vec::new());
    for at in [0, 3] {
        let key = Key::generate();
        let command = fixture.fill(device(at), counter);
        let departure = if at == 0 { meter::one_cell_failed } else { |_: &mut _, _: &mut _| {} };
        messages.push(meter::response(&command, departure, |octets| key.sign(octets)));
        certificates.push(fixture.device_certificate(device(at), &key));
        intents.extend((0..forge.size()).find(|index| match forge.entry(*index).event {
            Event::Intent(intent) => intent.device == device(at),
            _ => false,
        }));
    }
    let results = format!(
        "{},{},failed,supplier digitalSignature: noTrustAnchor\n{},{},recovered\n",
        device(0),
        intents[0],
        device(3),
        intents[1]
    );
    Answers { messages, certificates, results }
}

/// Those answers taken in, as an older version kept them; `change` departs from the truth.
pub fn responses(forge: &mut Forge<'_>, counter: u64, change: impl FnOnce(&mut String, &mut ResponsesTaken)) -> u64 {
    let Answers { messages, certificates, mut results } = answers(forge, counter);
    let messages = smkid::domain::responses::messages::canonical(&messages);
    let certificates: String = certificates.iter().map(|octets| certificate_to_pem(octets)).collect();
    let fixture = forge.fixture;
    let mut taken = ResponsesTaken {
        incident: "INC-1".parse().unwrap(),
        profile: None,
        determination: fixture.determination,
        responses: forge.blob_of(messages.into_bytes()),
        certificates: forge.blob_of(certificates.into_bytes()),
        imported_before: None,
        results: Digest([0; 32]),
        tally: ResponseTally { recovered: 1, failed: 1, ..ResponseTally::default() },
    };
    change(&mut results, &mut taken);
    taken.results = forge.blob_of(results.into_bytes());
    forge.push(Event::ResponsesTaken(taken))
}

/// The counter of every command of the first job.
pub const FIRST: u64 = COUNTER_START + 1;

#[test]
fn responses_that_were_judged_honestly_verify_and_a_forged_result_is_found() {
    let fixture = Fixture::new();
    let mut forge = fixture.forge("first job");
    responses(&mut forge, FIRST, |_, _| {});
    let (status, out, err) = Export::of(&fixture, &forge).verify();
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    let check = |expected: &str, forgery: fn(&mut Forge<'_>) -> u64| forged(&fixture, "first job", expected, forgery);
    check("noTrustAnchor, found 00DB123456789001", |forge| {
        responses(forge, FIRST, |results, taken| {
            *results = results.replace("failed,supplier digitalSignature: noTrustAnchor", "recovered");
            taken.tally = ResponseTally { recovered: 2, ..ResponseTally::default() };
        })
    });
    check("expected ResponsesTaken", |forge| {
        responses(forge, FIRST, |_, taken| taken.tally = ResponseTally { recovered: 2, ..ResponseTally::default() })
    });
    check("another number of them", |forge| {
        responses(forge, FIRST, |results, _| *results = results.lines().next().unwrap().to_owned() + "\n")
    });
    check("expected ResponsesTaken", |forge| {
        responses(forge, FIRST, |_, taken| taken.incident = "INC-2".parse().unwrap())
    });
    check("determination-unknown", |forge| {
        responses(forge, FIRST, |_, taken| taken.determination = DeterminationId([9; 16]))
    });
    // Without the certificates nobody can tell whose they are.
    check("unverified,no certificate", |forge| {
        let none = forge.blob_of(Vec::new());
        responses(forge, FIRST, |_, taken| taken.certificates = none)
    });
    check("expected it to be asked for by operator", |forge| {
        let index = responses(forge, FIRST, |_, _| {});
        let event = forge.entry(index).event;
        forge.cut(index);
        forge.push_by(Actor::daemon(), event)
    });
}

#[test]
fn an_answer_to_a_foreign_command_cannot_be_kept_quiet_nor_signing_go_on_without_a_reason() {
    let fixture = Fixture::new();
    let foreign = |forge: &mut Forge<'_>| {
        responses(forge, FIRST + 7, |results, taken| {
            let line = |at| format!("{},-,foreign,counter 7008: no command with this counter was signed\n", device(at));
            *results = line(0) + &line(3);
            taken.tally = ResponseTally { foreign: 2, ..ResponseTally::default() };
        })
    };
    let resumed = |stopped_by| {
        Event::SigningResumed(SigningResumed {
            incident: "INC-1".parse().unwrap(),
            profile: None,
            determination: fixture.determination,
            stopped_by,
            reason: "Tested in the laboratory".into(),
        })
    };
    let mut forge = fixture.forge("first job");
    let stopped_by = foreign(&mut forge);
    forge.push(resumed(stopped_by));
    forge.command(50, device(2), COUNTER_START + 2);
    let (status, out, err) = Export::of(&fixture, &forge).verify();
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    forged(&fixture, "first job", "foreign,counter 7008", |forge| responses(forge, FIRST + 7, |_, _| {}));
    forged(&fixture, "first job", "foreign-response", |forge| {
        foreign(forge);
        forge.batch(50)
    });
    forged(&fixture, "first job", "nothing-stopped", |forge| forge.push(resumed(3)));
    forged(&fixture, "first job", "expected SigningResumed", |forge| {
        let stopped_by = foreign(forge);
        forge.push(resumed(stopped_by - 1))
    });
    forged(&fixture, "first job", "maps account", |forge| {
        let stopped_by = foreign(forge);
        let nobody = Actor { person: None, ..Forge::operator() };
        forge.push_by(nobody, resumed(stopped_by))
    });
}

/// An extract of the Inventory, as an operator would bring it.
fn extract(forge: &mut Forge<'_>, text: &str, change: impl FnOnce(&mut FileAccepted)) -> FileAccepted {
    let file = forge.blob_of(text.as_bytes().to_vec());
    let (incident, kind) = ("INC-1".parse().unwrap(), FileKind::SmiExtract);
    let mut accepted =
        FileAccepted { incident, profile: None, kind, file, signature: None, party: None, smsr: None, rows: 1 };
    change(&mut accepted);
    accepted
}

#[test]
fn files_and_exercises_that_nobody_could_have_recorded_are_found() {
    const TEXT: &str = "device,status,from\n00DB123456789001,Recovery,2026-11-01T00:00:00Z\n";
    let fixture = Fixture::new();
    // The control.
    let mut forge = fixture.forge("determination");
    let accepted = extract(&mut forge, TEXT, |_| {});
    forge.push(Event::FileAccepted(accepted));
    let rehearsed = ExerciseRecorded { at: forge.at, report: Digest([1; 32]), note: "yearly".into() };
    forge.push(Event::ExerciseRecorded(rehearsed));
    let (status, _, said) = Export::of(&fixture, &forge).verify();
    assert_eq!(status, 0, "{said}");

    let file = |expected: &str, text: &str, change: fn(&mut FileAccepted)| {
        forged(&fixture, "determination", expected, |forge| {
            let accepted = extract(forge, text, change);
            forge.push(Event::FileAccepted(accepted))
        });
    };
    file("line 2, column 2 (status)", &TEXT.replace("Recovery", "recovery"), |_| {});
    file("found {", TEXT, |accepted| accepted.rows = 2);
    file("found {", TEXT, |accepted| {
        accepted.profile = Some(ProfileInForce { base: "base".parse().unwrap(), variations: vec![] });
    });
    file("found {", TEXT, |accepted| accepted.party = Some("supplier-a".parse().unwrap()));
    file("no incident INC-9", TEXT, |accepted| accepted.incident = "INC-9".parse().unwrap());
    file("needs the detached CMS signature", TEXT, |accepted| accepted.kind = FileKind::Adt);
    file("an export goes from the daemon", TEXT, |accepted| accepted.kind = FileKind::SmiExport);
    forged(&fixture, "determination", "taken in already", |forge| {
        let accepted = extract(forge, TEXT, |_| {});
        forge.push(Event::FileAccepted(accepted.clone()));
        forge.push(Event::FileAccepted(accepted))
    });
    for role in [Role::Account, Role::Auditor, Role::Daemon] {
        forged(&fixture, "determination", "asked for by operator", |forge| {
            let accepted = extract(forge, TEXT, |_| {});
            forge.push_by(Actor { role, ..Forge::operator() }, Event::FileAccepted(accepted))
        });
    }
    let exercise = |expected: &str, later: i64, note: &'static str, by: Role| {
        forged(&fixture, "determination", expected, |forge| {
            let (at, report) = (forge.at.plus_ms(later), Digest([1; 32]));
            let by = Actor { role: by, ..Forge::operator() };
            forge.push_by(by, Event::ExerciseRecorded(ExerciseRecorded { at, report, note: note.into() }))
        });
    };
    exercise("exercise-time", 1, "yearly", Role::Operator);
    exercise("note: expected", 0, " ", Role::Operator);
    exercise("asked for by operator", 0, "yearly", Role::Auditor);
}

#[test]
fn a_leave_to_go_on_under_no_checkpoint_opens_nothing_after_the_next_start_and_one_under_a_checkpoint_does() {
    for is_covered in [false, true] {
        let mut fixture = Fixture::new();
        let foreign = {
            let mut forge = fixture.forge("end");
            let at = responses(&mut forge, FIRST + 7, |results, taken| {
                let line =
                    |at| format!("{},-,foreign,counter 7008: no command with this counter was signed\n", device(at));
                *results = line(0) + &line(3);
                taken.tally = ResponseTally { foreign: 2, ..ResponseTally::default() };
            });
            (forge.entry(at).event, forge.blobs.into_values().collect::<Vec<_>>())
        };
        fixture.blobs.extend(foreign.1.iter().map(|blob| (Digest::of(blob), blob.clone())));
        let stopped_by = fixture.record(|recorder| {
            for blob in foreign.1 {
                recorder.queue_blob(blob);
            }
            recorder.queue(&Forge::operator(), foreign.0).unwrap()
        });
        let resumed = Event::SigningResumed(SigningResumed {
            incident: "INC-1".parse().unwrap(),
            profile: None,
            determination: fixture.determination,
            stopped_by,
            reason: "It was tested".into(),
        });
        if is_covered {
            fixture.record(|recorder| recorder.queue(&Forge::operator(), resumed).unwrap());
        } else {
            let mut without_key = fixture.without_key();
            smkid::recorder::record_alone(&mut without_key, |recorder| recorder.queue(&Forge::operator(), resumed))
                .unwrap()
                .into_inner();
        }
        fixture.restart();
        let digest = Digest([0xAB; 32]);
        let started = Started { version: "0.1.0".into(), program: digest, configuration: digest, unconfirmed: None };
        let size = fixture.record(|recorder| {
            smkid::pipeline::record_start(recorder, started).unwrap();
            let foreign = recorder.fold().determinations().values().next().unwrap().foreign;
            assert_eq!(foreign, if is_covered { None } else { Some(stopped_by) });
            recorder.fold().size()
        });
        fixture.marks.insert("started", size);
        let forge = fixture.forge("started");
        let Event::Started(started) = forge.entry(forge.last("started")).event else { panic!("no start") };
        assert_eq!(started.unconfirmed, (!is_covered).then_some(stopped_by + 1));
        let (status, out, err) = Export::of(&fixture, &forge).verify();
        assert_eq!((status, err.as_str()), (0, ""), "{out}");
    }
}

#[test]
fn what_a_start_says_of_entries_under_no_checkpoint_is_so() {
    let fixture = Fixture::new();
    for wrong in [3, u64::MAX >> 12] {
        forged(&fixture, "end", "the last checkpoint before it", |forge| {
            let digest = Digest([0xAB; 32]);
            let unconfirmed = Some(wrong);
            let started = Started { version: "0.1.0".into(), program: digest, configuration: digest, unconfirmed };
            forge.push_by(Actor::daemon(), Event::Started(started))
        });
    }
}

#[test]
fn an_activation_for_every_incident_verifies_as_an_older_daemon_wrote_it() {
    let fixture = Fixture::new();
    let mut forge = fixture.forge("determination");
    let activated = {
        let forge = fixture.forge("ready");
        forge.entry(forge.last("key-activated")).event
    };
    let Event::KeyActivated(old) = activated else { panic!("no activation") };
    forge.push(Event::KeyActivated(old.clone()));
    let (status, out, err) = Export::of(&fixture, &forge).verify();
    assert_eq!((status, err.as_str()), (0, ""), "as an older daemon wrote it: {out}");
    let incident = Some("INC-1".parse().unwrap());
    // Custodians activate the key under the policy of this ledger, and none presented.
    forged(&fixture, "determination", "custodians: 0 of 2", |forge| {
        forge.push(Event::KeyActivated(KeyActivated { incident: incident.clone(), ..old.clone() }))
    });
}

/// The snapshot that the recorder takes at the end of the fixture's ledger.
fn snapshot(fixture: &mut Fixture) -> smkid::domain::ledger::snapshots::Snapshot {
    fixture.record(|recorder| recorder.set_snapshot_leaves(1));
    let reader = fixture.reader();
    let last = reader.leaf(reader.head().unwrap().size - 1).unwrap();
    let Event::Snapshot(snapshot) = Entry::from_leaf(&last).unwrap().event else { panic!("no snapshot was taken") };
    snapshot
}

/// What is changed in a snapshot.
type Lie<'a> = &'a dyn Fn(&mut smkid::domain::ledger::snapshots::Snapshot);

#[test]
fn a_snapshot_is_computed_again_and_one_that_lies_is_refused() {
    let mut fixture = Fixture::new();
    let taken = snapshot(&mut fixture);
    assert!(taken.device.rows > 0 && taken.request.rows > 0, "{taken:?}");
    let export = Export::of(&fixture, &StoreSource(&*fixture.reader()));
    let (status, out, err) = export.verify();
    assert_eq!((status, err.as_str()), (0, ""));
    assert!(out.contains("snapshots"), "{out}");
    let digest = Digest([0xAB; 32]);
    let lies: [(&str, Lie); 4] = [
        ("the fold", &|snapshot| snapshot.fold = digest),
        ("table device", &|snapshot| snapshot.device.sha256 = digest),
        ("table request", &|snapshot| snapshot.request.rows += 1),
        ("table response", &|snapshot| snapshot.response = snapshot.device),
    ];
    for (expected, lie) in lies {
        let mut snapshot = taken.clone();
        lie(&mut snapshot);
        forged(&fixture, "end", expected, |forge| forge.push_by(Actor::daemon(), Event::Snapshot(snapshot)));
    }
    // By somebody else than the daemon.
    forged(&fixture, "end", "expected it to be asked for by daemon", |forge| {
        forge.push(Event::Snapshot(taken.clone()))
    });
}
