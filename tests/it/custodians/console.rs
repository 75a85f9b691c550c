//! At the console: each custodian writes a statement, signs it, and presents their share with `smkictl`.

use std::path::Path;
use std::process::{Command, Stdio};

use secrecy::ExposeSecret as _;
use smkid::custody::share_file::{self, Title};
use smkid::domain::certificates::pem;

use super::*;
use crate::support::console::Console;
use crate::support::desk::Done;

/// What is other in a statement than it should be.
type Change = fn(&mut Statement);

/// Of the first custodian's share.
const PASSPHRASE: &str = "bicycle under snow";

impl Custody {
    /// What each custodian has at the console: key and certificate, the determination, and a share: the first under a passphrase, the others
    /// sealed to their certificates. And the policy in force.
    pub(super) fn bring(&self) {
        let site = &self.site;
        fs::write(site.path("determination.json"), site.base.main.octets()).unwrap();
        for (name, octets) in &self.files {
            let path = site.path("policy-in-force").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, octets).unwrap();
        }
        fs::write(site.path("passphrase"), format!("{PASSPHRASE}\n")).unwrap();
        for (n, share) in (1..).zip(&self.shares) {
            let credential = Self::credential_of(site, n);
            fs::write(site.path(&format!("me-{n}.key")), credential.key_pem.expose_secret()).unwrap();
            fs::write(site.path(&format!("me-{n}.pem")), &credential.certificate_pem).unwrap();
            fs::write(site.path(&format!("share-{n}.pem")), Self::share_file(site, n, share)).unwrap();
        }
    }

    fn share_file(site: &Site, n: usize, share: &Share) -> Vec<u8> {
        let (key, name, person) =
            (key(), format!("share-{n}").parse().unwrap(), format!("custodian-{n}").parse().unwrap());
        let title = Title { key: &key, generation: 1, share: &name, person: &person };
        if n == 1 {
            return share_file::under_passphrase(share, &title, &SecretString::from(PASSPHRASE)).unwrap();
        }
        let certificate = pem::certificate(&Self::credential_of(site, n).certificate_pem).unwrap();
        share_file::to_certificate(share, &title, &certificate).unwrap()
    }

    /// A statement of custodian `n`, in this file; its SHA-256.
    pub(super) fn states(&self, n: usize, file: &str) -> String {
        let written = self.site.smkictl(&format!(
            "custodian statement --person custodian-{n} --determination determination.json --hours 2 --out {file}"
        ));
        let written = written.ok();
        assert!(written.out.contains("opens key"), "{}", written.out);
        sha256(&self.site.path(file))
    }

    /// Signed by that key, as a script would.
    pub(super) fn signs(&self, file: &str, key: &str, sha256: &str) -> Done {
        self.site.smkictl(&format!(
            "determination sign {file} --key {key}.key --certificate {key}.pem --policy policy-in-force --confirm {sha256}"
        ))
    }

    /// Signed by OpenSSL alone.
    fn signs_with_openssl(&self, n: usize, file: &str, p7s: &str) {
        let arguments =
            format!("cms -sign -binary -cades -in {file} -signer me-{n}.pem -inkey me-{n}.key -outform DER -out {p7s}");
        let done = Command::new("openssl").args(arguments.split(' ')).current_dir(self.site.path("")).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// `smkictl` at a terminal of its own, at which passphrases are typed.
    fn at_a_terminal(&self, arguments: &str) -> Console {
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait", env!("CARGO_BIN_EXE_smkictl")]).args(arguments.split(' '));
        Console::start(command.current_dir(self.site.path("")).env("SMKID_SOCKET", &self.site.socket))
    }

    /// `openssl cms -decrypt … | smkictl …`.
    fn through_openssl(&self, n: usize, arguments: &str) -> Done {
        let decrypt = format!("cms -decrypt -inform PEM -in share-{n}.pem -inkey me-{n}.key");
        let mut openssl = Command::new("openssl")
            .args(decrypt.split(' '))
            .current_dir(self.site.path(""))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let share = openssl.stdout.take().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_smkictl"));
        command.args(arguments.split(' ')).current_dir(self.site.path("")).env("SMKID_SOCKET", &self.site.socket);
        let done = Done::from(command.stdin(share).output().unwrap());
        assert!(openssl.wait().unwrap().success());
        done
    }
}

fn sha256(path: &Path) -> String {
    Digest::of(&fs::read(path).unwrap()).to_string()
}

fn present(n: usize, share: &str, more: &str) -> String {
    format!(
        "custodian present {RECOVERY_KEY} --share {share} --statement s{n}.json --signature s{n}.custodian-{n}.p7s{more}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn custodians_at_their_consoles_open_a_key_that_signs_until_it_is_locked() {
    let custody = Custody::dealt().await;
    let site = &custody.site;
    let daemon = site.start().await;
    custody.bring();
    let before = daemon.workers();

    // Shown in full before it is signed, and signed by nobody but the custodian whom it names.
    let digest = custody.states(1, "s1.json");
    let shown = site.smkictl("determination show s1.json --policy policy-in-force").ok().out;
    for expected in [
        "STATEMENT of Key Custodian custodian-1 (an exercise, not the real thing)",
        "for incident INC-1 and nothing else",
        "share-1, of generation 1",
        &site.base.main.digest().to_string(),
        "WARNINGS (0)",
        &digest,
    ] {
        assert!(shown.contains(expected), "expected {expected:?} in {shown}");
    }
    custody.signs("s1.json", "me-2", &digest).is(4).says("the statement is by custodian-1, not by custodian-2");
    let member = &site.base.people.members[1].first;
    fs::write(site.path("member.key"), member.key_pem.expose_secret()).unwrap();
    fs::write(site.path("member.pem"), &member.certificate_pem).unwrap();
    custody.signs("s1.json", "member", &digest).is(4).says("member-2 is no key-custodian under the policy");
    custody.signs("s1.json", "me-1", &digest).ok();
    let signed =
        site.smkictl("determination show s1.json --policy policy-in-force --signature s1.custodian-1.p7s").ok();
    assert!(signed.out.contains("nothing: there are enough"), "{}", signed.out);
    // Nor does a custodian sign what members decide: the statement's role is its own.
    let withdrawal = site.drafter().withdrawal(&site.base.main, head(&daemon.client).await).unwrap();
    fs::write(site.path("w.json"), withdrawal.octets()).unwrap();
    let of_base = site.smkictl(&format!(
        "determination sign w.json --key me-1.key --certificate me-1.pem --policy policy --confirm {}",
        withdrawal.digest()
    ));
    of_base.is(4).says("is no pma-member under the policy");

    // Nothing is sent by a dry run, nor with a signature over something else.
    let recorded = site.ledger().size();
    let dry = site.smkictl(&present(1, "share-1.pem", " --dry-run")).ok();
    assert!(dry.err.contains("Nothing was sent"), "{}", dry.err);
    fs::write(site.path("other.json"), "{}").unwrap();
    custody.signs_with_openssl(1, "other.json", "other.p7s");
    let other = present(1, "share-1.pem", "").replace("s1.custodian-1.p7s", "other.p7s");
    site.smkictl(&other).is(5).says("no signature over s1.json");
    // Without a terminal there is nobody to type, and in a file it lies in an exercise only.
    site.smkictl(&present(1, "-", "")).is(1).says("--share -: expected a share, found nothing");
    assert_eq!(site.ledger().size(), recorded);

    // Typed at the terminal; what is wrong is asked for again, and nothing of it is shown.
    let mut console = custody.at_a_terminal(&present(1, "share-1.pem", ""));
    console.secret("Passphrase of share-1.pem: ", "bicycle in the sun");
    console.expect("Once more");
    console.secret("Passphrase of share-1.pem: ", PASSPHRASE);
    let (status, said) = console.end();
    assert_eq!(status, Some(0), "{said}");
    for expected in ["1 of 2 presented, of 1 of 2 Parties", "1 more to present", "custodian-2 of supplier-b, share-2"] {
        assert!(said.contains(expected), "expected {expected:?} in {said}");
    }
    assert!(!said.contains(PASSPHRASE) && !said.contains("in the sun"), "{said}");
    let Some(Event::CustodianPresented(presented)) = site
        .ledger()
        .entries
        .iter()
        .rev()
        .map(|entry| entry.event.clone())
        .find(|event| matches!(event, Event::CustodianPresented(_)))
    else {
        panic!("nobody presented")
    };
    let at = site.ledger().entries.last().unwrap().at;
    assert!(presented.until < presented.expires && presented.until <= at.plus_ms(HOUR_MS), "for an hour, by policy");

    let activate = format!("key activate {RECOVERY_KEY} --incident {INCIDENT}");
    let short = site.smkictl(&activate).is(4);
    for expected in ["1 of 2 presented, of 1 of 2 Parties", "presented    custodian-1", "can present  custodian-2"] {
        assert!(short.err.contains(expected), "expected {expected:?} in {}", short.err);
    }

    // Of the same Party, through OpenSSL; then of another, with a key file, the statement signed by OpenSSL.
    let digest = custody.states(3, "s3.json");
    custody.signs("s3.json", "me-3", &digest).ok();
    let third = custody.through_openssl(3, &present(3, "-", "")).ok();
    assert!(third.out.contains("a custodian of another Party presents"), "{}", third.out);
    site.smkictl(&activate).is(4).says("no Party opens a key by itself");
    custody.states(2, "s2.json");
    custody.signs_with_openssl(2, "s2.json", "s2.custodian-2.p7s");
    site.smkictl(&present(2, "share-2.pem", "")).is(1).says("sealed to a certificate");
    // An altered share is found here, and is not sent.
    let recorded = site.ledger().size();
    let mut octets = *custody.shares[1].octets();
    octets[31] ^= 1;
    let altered = Share::new(2, zeroize::Zeroizing::new(octets)).unwrap();
    fs::write(site.path("altered.pem"), Custody::share_file(site, 2, &altered)).unwrap();
    site.smkictl(&present(2, "altered.pem", " --key-file me-2.key")).is(5).says("Nothing of it was sent");
    assert_eq!(site.ledger().size(), recorded);
    let second = site.smkictl(&present(2, "share-2.pem", " --key-file me-2.key")).ok();
    assert!(second.out.contains(&format!("smkictl {activate}")), "{}", second.out);

    let active = site.smkictl(&activate).ok();
    assert!(active.out.contains("is active"), "{}", active.out);
    assert_eq!(whole(lines(&daemon.client, "/v1/recovery/sign", &ask_for(site.main(), 0..3)).await).len(), 3);
    site.smkictl(&format!("key lock {RECOVERY_KEY}")).ok();
    assert_eq!(daemon.workers(), before, "neither vault nor worker is left");

    // Everybody anew, with new statements. In an exercise the passphrase may lie in a file.
    site.smkictl(&present(1, "share-1.pem", " --passphrase-file passphrase")).is(4).says("counts once");
    fs::remove_file(site.path("s1.json")).unwrap();
    fs::remove_file(site.path("s1.custodian-1.p7s")).unwrap();
    let digest = custody.states(1, "s1.json");
    custody.signs("s1.json", "me-1", &digest).ok();
    let anew = site.smkictl(&present(1, "share-1.pem", " --passphrase-file passphrase")).ok();
    assert!(anew.out.contains("1 of 2 presented"), "{}", anew.out);
    let log = fs::read_to_string(site.path("smkid.log")).unwrap();
    assert!(!log.contains(PASSPHRASE));
    site.verify_export("console");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_passphrase_from_a_file_is_for_exercises_and_a_share_goes_with_the_statement_that_names_it() {
    let custody = Custody::dealt().await;
    let site = &custody.site;
    let daemon = site.start().await;
    custody.bring();
    let recorded = site.ledger().size();
    for (change, more, says) in [
        (
            (|form| form.purpose = LedgerPurpose::Live) as Change,
            " --passphrase-file passphrase",
            "--passphrase-file is for exercises; the statement is live",
        ),
        (|form| (form.share, form.generation) = (None, None), "", "leave --share out"),
        (|form| form.key.label = "recovery-9".parse().unwrap(), "", "expected a statement about key"),
    ] {
        let statement = custody.statement(&daemon.client, 1, change).await;
        fs::write(site.path("s1.json"), statement.octets()).unwrap();
        fs::write(site.path("s1.custodian-1.p7s"), custody.sent(1, &statement).signature.0).unwrap();
        site.smkictl(&present(1, "share-1.pem", more)).is(1).says(says);
    }
    let statement = custody.statement(&daemon.client, 1, |_| {}).await;
    fs::write(site.path("s1.json"), statement.octets()).unwrap();
    let without = present(1, "share-1.pem", "").replace("--share share-1.pem ", "");
    site.smkictl(&without).is(1).says("names share-1: give its file with --share");
    assert_eq!(site.ledger().size(), recorded, "nothing was sent");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn in_earnest_a_share_goes_to_nobody_but_smkid() {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::fs::PermissionsExt as _;
    if !rustix::process::geteuid().is_root() {
        std::io::stderr().write_all(b"\nskipped: a socket of another account, which only root can make\n").unwrap();
        return;
    }
    let custody = Custody::dealt().await;
    let site = &custody.site;
    let daemon = site.start().await;
    custody.bring();
    let statement = custody.statement(&daemon.client, 1, |form| form.purpose = LedgerPurpose::Live).await;
    fs::write(site.path("s1.json"), statement.octets()).unwrap();
    fs::write(site.path("s1.custodian-1.p7s"), custody.sent(1, &statement).signature.0).unwrap();
    // Somebody else's process, where a console was told that smkid listens.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let socket = folder.path().join("smkid.sock");
    let listen = "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); \
                  print('listens', flush=True); time.sleep(600)";
    let mut listener = Command::new("setpriv")
        .args(["--reuid", "65534", "--clear-groups", "/usr/bin/python3", "-c", listen])
        .arg(&socket)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(listener.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "listens");
    let to_other = format!("--socket {} {}", socket.display(), present(1, "share-1.pem", ""));
    let told = site.smkictl(&to_other);
    listener.kill().unwrap();
    listener.wait().unwrap();
    told.is(1).says("runs as user 65534").says("nothing was sent");
    // The daemon of a test runs as root, and says by itself that it is of an exercise.
    site.smkictl(&present(1, "share-1.pem", "")).is(4).says("the statement is live");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_custodian_is_warned_of_what_would_be_refused_before_signing_it() {
    let custody = Custody::dealt().await;
    let site = &custody.site;
    let daemon = site.start().await;
    custody.bring();
    let cases: [(Change, &[&str]); 6] = [
        (|_| {}, &[]),
        (|form| form.expires = form.expires.plus_ms(-2 * HOUR_MS), &["statement-over"]),
        (|form| form.expires = form.expires.plus_ms(24 * HOUR_MS), &["statement-long"]),
        (|form| form.person = "member-1".parse().unwrap(), &["not-custodian", "share-of-another"]),
        (|form| form.share = Some("share-2".parse().unwrap()), &["share-of-another"]),
        (|form| (form.share, form.generation) = (None, None), &["opened-otherwise"]),
    ];
    for (n, (change, expected)) in (0..).zip(cases) {
        let statement = custody.statement(&daemon.client, 1, change).await;
        let file = format!("w{n}.json");
        fs::write(site.path(&file), statement.octets()).unwrap();
        let shown = site.smkictl(&format!("determination show {file} --policy policy-in-force --output json")).ok();
        let shown = shown.json();
        let found: Vec<&str> =
            shown["warnings"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(found, expected, "{shown}");
        assert_eq!(shown["type"].as_str(), Some("smkid-custodian-statement/v1"));
    }
    let without = site.smkictl("determination show w0.json").ok();
    assert!(without.out.contains("Not looked at: whether you are a Key Custodian in force"), "{}", without.out);
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_custodian_checks_at_home_that_the_share_still_opens_and_is_the_one_that_was_dealt() {
    let custody = Custody::dealt().await;
    let site = &custody.site;
    custody.bring();
    fs::copy(site.state().join(format!("custody/{RECOVERY_KEY}.1.json")), site.path("custody.json")).unwrap();
    let sealed = sha256(&site.path("custody.json"));

    let mut console = custody.at_a_terminal("custodian check --share share-1.pem --custody custody.json");
    console.secret("Passphrase of share-1.pem: ", PASSPHRASE);
    let (status, said) = console.end();
    assert_eq!(status, Some(0), "{said}");
    for expected in ["share-1, of custodian-1: it opens", "generation 1", "2 of 3 shares", &sealed] {
        assert!(said.contains(expected), "expected {expected:?} in {said}");
    }
    assert!(!said.contains(PASSPHRASE) && !said.contains(&hex::encode(custody.shares[0].octets())));
    let mut console = custody.at_a_terminal("custodian check --share share-1.pem --custody custody.json");
    for _ in 0..3 {
        console.secret("Passphrase of share-1.pem: ", "not the one");
    }
    let (status, said) = console.end();
    assert!(status == Some(1) && said.contains("the passphrase is wrong"), "{said}");

    let check = "custodian check --custody custody.json --output json --share";
    let by_key = site.smkictl(&format!("{check} share-2.pem --key-file me-2.key")).ok().json();
    assert_eq!((by_key["share"].as_str(), by_key["holder"].as_str()), (Some("share-2"), Some("custodian-2")));
    let by_card = custody.through_openssl(3, &format!("{check} -")).ok().json();
    assert_eq!(by_card["share"].as_str(), Some("share-3"));

    // One of another deal opens too, and is none of these.
    let (others, _) = split(&SealingSecret::make(), 2, 3).unwrap();
    fs::write(site.path("other.pem"), Custody::share_file(site, 2, &others[1])).unwrap();
    site.smkictl(&format!("{check} other.pem --key-file me-2.key")).is(5).says("is no share of key");
    let altered =
        fs::read_to_string(site.path("custody.json")).unwrap().replace("\"threshold\": 2", "\"threshold\": 3");
    fs::write(site.path("custody.json"), altered).unwrap();
    site.smkictl(&format!("{check} share-2.pem --key-file me-2.key")).is(1).says("expected a custody file");
}
