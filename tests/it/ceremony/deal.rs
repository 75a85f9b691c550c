//! Shares dealt to Key Custodians, and what becomes of a deal that is cut off at each point.

use secrecy::ExposeSecret as _;
use smkid::custody::file::{CustodyFile, Set};
use smkid::custody::scheme::{SealingSecret, Share, split};
use smkid::custody::share_file;
use smkid::domain::ledger::custody::{Sealed, SharesDealt};
use smkid::hsm::{Expectations, HsmError, Token};
use smkid::store::sqlite::SqliteReader;
use zeroize::Zeroizing;

use super::*;

const KEY: &str = "recovery-1";
const CUSTODIANS: [&str; 3] = ["custodian-1", "custodian-2", "custodian-3"];

/// Where each custodian's passphrase is, as arguments.
const PASSPHRASES: &str = "--passphrase-file custodian-1=custodian-1.pass --passphrase-file custodian-2=custodian-2.pass \
                           --passphrase-file custodian-3=custodian-3.pass";

impl Stage {
    /// A ledger with a Recovery key that custodians open, and nobody has a share yet.
    fn to_deal() -> Self {
        let stage = Self::begun();
        for custodian in CUSTODIANS {
            stage.scratch.write(&format!("{custodian}.pass"), format!("passphrase of {custodian}\n"));
        }
        stage
    }

    /// The arguments of a deal into that folder, with the shares of these custodians out of those folders.
    fn deal(out: &str, brought: &[(&str, u32, u32)]) -> String {
        let shares = brought
            .iter()
            .map(|(folder, generation, n)| format!(" --share custodian-{n}={folder}/{KEY}.{generation}.share-{n}.pem"));
        let shares: String = shares.collect();
        format!("deal {TOKENS} --key {KEY} --out {out} {PASSPHRASES}{shares}")
    }

    /// What goes wrong with the Recovery token's module.
    fn fail_smki(&self, script: &str) {
        self.configure("");
        let config = self.smki.failing(1, script);
        let more = config.environment.iter().filter(|(name, _)| name != "SOFTHSM2_CONF");
        let more: Vec<String> =
            more.map(|(name, value)| format!("{} = \"{}\"", name.display(), value.display())).collect();
        let text = self.scratch.text("smkid.toml");
        let (before, smki) = text.split_once("name = \"smki-a\"").unwrap();
        let smki = smki.replacen(MODULE, &config.module.display().to_string(), 1);
        let smki = smki.replacen("[ledger]", &format!("{}\n[ledger]", more.join("\n")), 1);
        self.scratch.write("smkid.toml", format!("{before}name = \"smki-a\"{smki}"));
    }

    fn dealt(&self) -> Vec<SharesDealt> {
        let reader = SqliteReader::open(&self.path("state")).unwrap();
        let events =
            (0..reader.head().unwrap().size).map(|index| Entry::from_leaf(&reader.leaf(index).unwrap()).unwrap().event);
        events.filter_map(|event| if let Event::SharesDealt(dealt) = event { Some(dealt) } else { None }).collect()
    }

    fn custody(&self, dealt: &SharesDealt) -> CustodyFile {
        CustodyFile::read(&self.path("state"), dealt).unwrap()
    }

    fn share(&self, folder: &str, generation: u32, n: u16) -> Share {
        let text = Zeroizing::new(self.scratch.text(&format!("{folder}/{KEY}.{generation}.share-{n}.pem")));
        let passphrase = SecretString::from(format!("passphrase of custodian-{n}"));
        share_file::open(&text, n, None, || Ok(passphrase)).unwrap()
    }

    /// The PIN of the Recovery token by two shares of a generation.
    fn pin(&self, dealt: &SharesDealt, folder: &str, of: [u16; 2]) -> SecretString {
        let file = self.custody(dealt);
        let shares = of.map(|n| self.share(folder, dealt.generation, n));
        let secret = file.commitments().unwrap().combine(&shares).unwrap();
        file.pin(&secret, &file.tokens[0]).unwrap()
    }

    fn log_in(&self, pin: &SecretString) -> Result<(), HsmError> {
        Token::start(self.smki.config(1), pin.clone(), Expectations::default()).map(|_| ())
    }
}

#[test]
fn custodians_get_shares_that_open_a_pin_nobody_has_seen_and_shares_dealt_anew_end_the_old_ones() {
    let stage = Stage::to_deal();
    stage.expect(0, "Nothing was done", &format!("{} --dry-run", Stage::deal("shares", &[])));
    assert!(!stage.path("shares").exists() && !stage.path("state/custody").exists());
    assert!(stage.dealt().is_empty());
    stage.expect(0, "Next: each custodian", &Stage::deal("shares", &[]));
    let first = stage.dealt().remove(0);
    assert_eq!((first.generation, first.threshold, first.holders.len()), (1, 2, 3));
    assert!(first.holders.iter().all(|holder| holder.sealed == Sealed::Passphrase));
    for of in [[1, 2], [1, 3], [2, 3]] {
        stage.log_in(&stage.pin(&first, "shares", of)).unwrap();
    }
    let refused = stage.log_in(&SecretString::from(PIN)).unwrap_err();
    assert!(matches!(refused, HsmError::PinRefused { .. }), "{refused}");

    // One share too few, one that is another's, one that was altered: nothing is begun.
    let before = contents(&stage.path("state/custody"));
    stage.expect(1, "1 were brought, 2 are needed", &Stage::deal("again", &[("shares", 1, 1)]));
    let share = stage.scratch.text("shares/recovery-1.1.share-2.pem");
    // One character in the first block of what is encrypted: 144 octets, so the last 192 characters.
    let armour = &share[..share.find("-----END").unwrap()];
    let (at, _) = armour.char_indices().rev().filter(|(_, char)| !char.is_whitespace()).nth(186).unwrap();
    let other = if share.as_bytes()[at] == b'A' { "B" } else { "A" };
    stage.scratch.write("altered.pem", format!("{}{other}{}", &share[..at], &share[at + 1..]));
    let altered = format!("{} --share custodian-2=altered.pem", Stage::deal("again", &[("shares", 1, 1)]));
    stage.expect(1, "altered.pem", &altered);
    let anothers = format!(
        "deal {TOKENS} --key {KEY} --out again --passphrase-file custodian-1=custodian-2.pass \
         --share custodian-1=shares/recovery-1.1.share-2.pem"
    );
    stage.expect(5, "it is no share of custodian-1 of generation 1", &anothers);
    assert!(contents(&stage.path("state/custody")) == before && !stage.path("again").exists());

    // Anew: old shares open the old PIN, which is the token's no longer.
    let public = stage.keys_file().keys[1].spki_sha256;
    stage.expect(0, "generation 2", &Stage::deal("shares-2", &[("shares", 1, 1), ("shares", 1, 3)]));
    let second = stage.dealt().remove(1);
    assert_eq!(second.generation, 2);
    let old = stage.pin(&first, "shares", [1, 2]);
    let new = stage.pin(&second, "shares-2", [1, 2]);
    assert_ne!(old.expose_secret(), new.expose_secret());
    assert!(matches!(stage.log_in(&old).unwrap_err(), HsmError::PinRefused { .. }));
    stage.log_in(&new).unwrap();
    let listed = stage.smki.run(
        "pkcs11-tool",
        &[
            "--module",
            MODULE,
            "--token-label",
            &stage.smki.label,
            "--login",
            "--pin",
            new.expose_secret(),
            "--list-objects",
            "--type",
            "privkey",
        ],
    );
    assert_eq!(listed.matches("Private Key Object").count(), 1, "{listed}");
    assert_eq!(stage.keys_file().keys[1].spki_sha256, public);
    // Nothing of the PINs is in what is written.
    for (path, octets) in contents(&stage.path("state")) {
        for pin in [&old, &new] {
            let found =
                octets.windows(pin.expose_secret().len()).any(|window| window == pin.expose_secret().as_bytes());
            assert!(!found, "{}", path.display());
        }
    }
}

#[test]
fn a_share_goes_to_the_certificate_of_a_custodian_and_comes_back_with_its_key() {
    let stage = Stage::to_deal();
    stage.scratch.openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout card.key -out card.pem -days 30 -subj /CN=custodian-3",
    );
    let spki = pem::certificate(&stage.scratch.text("card.pem")).unwrap().spki_sha256();
    let deal = format!("{} --certificate custodian-3=card.pem", Stage::deal("shares", &[]));
    stage.expect(0, &spki.to_string(), &deal);
    assert_eq!(stage.dealt()[0].holders[2].sealed, Sealed::Certificate(spki));
    let brought = [("shares", 1, 1), ("shares", 1, 3)];
    stage.expect(1, "sealed to a certificate", &Stage::deal("again", &brought));
    stage.expect(0, "generation 2", &format!("{} --key-file custodian-3=card.key", Stage::deal("again", &brought)));
    let stranger = format!("{} --certificate member-1=member-1.pem", Stage::deal("more", &[]));
    stage.expect(1, "no Key Custodian of that name", &stranger);
}

/// The worker dies before the token changes its PIN, and after: nobody can tell which, so the new PIN is tried, then the old one.
#[test]
fn a_deal_cut_off_in_the_midst_of_a_token_goes_on_with_the_new_shares() {
    for script in ["C_SetPIN 1 kill", "C_SetPIN 1 kill-after"] {
        let stage = Stage::to_deal();
        stage.fail_smki(script);
        let said = stage.expect(3, "Its PIN may be the new one already", &Stage::deal("shares", &[]));
        assert!(said.contains("smki-a"), "{said}");
        assert!(stage.dealt().is_empty(), "{script}");
        stage.configure("");
        stage.expect(1, "generation 1 of the shares", &Stage::deal("shares", &[("shares", 1, 1)]));
        let said =
            stage.expect(0, "this goes on with it", &Stage::deal("shares", &[("shares", 1, 1), ("shares", 1, 2)]));
        assert!(said.contains("generation 1"), "{said}");
        let dealt = stage.dealt().remove(0);
        stage.log_in(&stage.pin(&dealt, "shares", [2, 3])).unwrap();
        assert!(!stage.path("state/custody/recovery-1.1.changing").exists());
    }
}

#[test]
fn a_deal_whose_marks_were_lost_or_spoilt_goes_on_all_the_same() {
    for spoilt in [None, Some("no marks of anybody's")] {
        let stage = Stage::to_deal();
        stage.fail_smki("C_SetPIN 1 kill-after");
        stage.expect(3, "Its PIN may be the new one already", &Stage::deal("shares", &[]));
        stage.configure("");
        let marks = stage.path("state/custody/recovery-1.1.changing");
        match spoilt {
            None => fs::remove_file(marks).unwrap(),
            Some(text) => fs::write(marks, text).unwrap(),
        }
        // Without shares, a token that refuses its old PIN says what may be the matter; nothing is written over what was handed out.
        if spoilt.is_none() {
            stage.expect(3, "with the shares of both generations", &Stage::deal("again", &[]));
            assert!(!stage.path("again").exists());
        }
        stage.expect(0, "this goes on with it", &Stage::deal("shares", &[("shares", 1, 1), ("shares", 1, 3)]));
        let dealt = stage.dealt().remove(0);
        stage.log_in(&stage.pin(&dealt, "shares", [1, 2])).unwrap();
    }
}

#[test]
fn a_deal_cut_off_before_any_token_is_void_and_begins_anew_in_another_folder() {
    let stage = Stage::to_deal();
    // The custody file cannot be written: the share files are there, and no token was changed yet.
    let in_the_way = stage.path("state/custody/recovery-1.1.json.new");
    fs::create_dir_all(&in_the_way).unwrap();
    stage.expect(1, "custody", &Stage::deal("shares", &[]));
    assert!(stage.path("shares/recovery-1.1.share-1.pem").exists());
    fs::remove_dir(in_the_way).unwrap();
    stage.log_in(&SecretString::from(PIN)).unwrap();
    stage.expect(1, "share-1.pem", &Stage::deal("shares", &[]));
    stage.expect(0, "generation 1", &Stage::deal("shares-anew", &[]));
    let dealt = stage.dealt().remove(0);
    stage.log_in(&stage.pin(&dealt, "shares-anew", [1, 2])).unwrap();
    assert!(
        !stage.custody(&dealt).commitments().unwrap().fit(&stage.share("shares", 1, 1)),
        "the void ones open nothing"
    );
}

/// The ledger token signs no checkpoint after that of the beginning.
#[test]
fn a_deal_cut_off_after_its_entry_is_over_and_nobody_has_to_come_for_it() {
    let stage = Stage::to_deal();
    stage.configure_with("", Some("C_Sign 2- return CKR_DEVICE_ERROR"));
    stage.expect(3, "does not sign checkpoints", &Stage::deal("shares", &[]));
    stage.configure("");
    // What was written last is durable, though no checkpoint covers it.
    let marks = stage.path("state/custody/recovery-1.1.changing");
    assert!(marks.exists());
    assert_eq!(stage.dealt().len(), 1);
    stage.expect(0, "what was left after that is done", &Stage::deal("shares", &[]));
    assert!(!marks.exists());
    assert_eq!(stage.dealt().len(), 1, "nothing was dealt anew");
    let dealt = stage.dealt().remove(0);
    stage.log_in(&stage.pin(&dealt, "shares", [1, 2])).unwrap();
}

/// Whoever can write to the state directory lays there what looks like a deal that was cut off: it is no deal that the ledger knows.
#[test]
fn a_custody_file_that_the_ledger_does_not_name_is_void_whatever_marks_lie_beside_it() {
    let stage = Stage::to_deal();
    stage.expect(0, "Next: each custodian", &Stage::deal("shares", &[]));
    let first = stage.dealt().remove(0);
    let file = stage.custody(&first);
    let (shares, commitments) = split(&SealingSecret::make(), 2, 3).unwrap();
    let set = Set {
        origin: file.origin.clone(),
        key: file.key.clone(),
        generation: 2,
        commitments: &commitments,
        holders: file.holders.clone(),
    };
    let pins = [(first.tokens[0].clone(), SecretString::from("00000000"))];
    let forged = CustodyFile::seal(set, &SealingSecret::make(), &pins).unwrap();
    forged.write(&stage.path("state")).unwrap();
    let marks = format!("{{\"sealed\":\"{}\",\"begun\":[\"smki-a\"]}}", forged.digest());
    fs::write(stage.path("state/custody/recovery-1.2.changing"), marks).unwrap();
    let begun = |stage: &Stage| stage.events().iter().filter(|event| matches!(event, Event::SharesBegun(_))).count();
    assert_eq!(begun(&stage), 1);
    stage.expect(1, "0 were brought, 2 are needed", &Stage::deal("shares-2", &[]));
    assert_eq!(stage.dealt().len(), 1, "nothing of it is recorded");
    stage.expect(0, "generation 2", &Stage::deal("shares-2", &[("shares", 1, 1), ("shares", 1, 3)]));
    let second = stage.dealt().remove(1);
    assert_ne!(second.sealed, forged.digest());
    stage.log_in(&stage.pin(&second, "shares-2", [1, 2])).unwrap();
    assert!(!stage.custody(&second).commitments().unwrap().fit(&shares[0]));
    assert_eq!(begun(&stage), 2);
}

/// Between the last token and the entry, as if a program had been killed there: marks that say that all is done are believed by nobody.
#[test]
fn a_deal_cut_off_before_its_entry_is_recorded_once_shares_open_it_and_each_token_has_logged_in() {
    let stage = Stage::to_deal();
    stage.fail_smki("C_SetPIN 1 kill-after");
    stage.expect(3, "Its PIN may be the new one already", &Stage::deal("shares", &[]));
    stage.configure("");
    let marks = stage.scratch.text("state/custody/recovery-1.1.changing");
    assert!(!marks.contains("done"), "{marks}");
    stage.expect(1, "0 were brought, 2 are needed", &Stage::deal("shares", &[]));
    assert!(stage.dealt().is_empty());
    let said = stage.expect(0, "this goes on with it", &Stage::deal("shares", &[("shares", 1, 2), ("shares", 1, 3)]));
    assert!(said.contains("recorded"), "{said}");
    let dealt = stage.dealt().remove(0);
    stage.log_in(&stage.pin(&dealt, "shares", [1, 3])).unwrap();
}
