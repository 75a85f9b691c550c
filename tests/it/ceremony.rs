//! The ceremony by the real smkictl, with the real smkid as worker, on SoftHSM tokens; openssl and pkcs11-tool look on.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::{Pid, Signal};
use secrecy::SecretString;
use smkid::cli::ceremony::KeysFile;
use smkid::domain::certificates::bodies::{Particulars, Template, assemble, read_request, tbs};
use smkid::domain::certificates::pem;
use smkid::domain::certificates::profile::{TEST_ORGANISATION_POLICY, Usage};
use smkid::domain::certificates::signature::PublicKey;
use smkid::domain::certificates::subject::OrganisationSubject;
use smkid::domain::ledger::checkpoint::{Checkpoint, SignedCheckpoint};
use smkid::domain::ledger::entry::{Entry, Event, SignResult};
use smkid::domain::ledger::head_object::{HEAD_LABELS, HeadObject};
use smkid::domain::ledger::merkle::{Head, leaf_hash};
use smkid::domain::ledger::note::Verifier;
use smkid::domain::names::PartyId;
use smkid::exercise::programs::signal;
use smkid::hsm::Token;
use smkid::recorder::CheckpointSigner as _;
use smkid::service::checkpoint::TokenSigner;
use smkid::service::configuration::Configuration;
use smkid::service::start::{self, StartFault};
use smkid::state;
use smkid::store::sqlite::SqliteStore;
use smkid::store::{Reader, StagingLimits, Store as _};

use crate::lab::{Lab, Scratch, VALIDITY};
use crate::support::token::{MODULE, PIN, TestToken};

mod contingency;
mod deal;

pub const ORIGINATOR: &str = "90B3D51F30000002";
pub const MEMBERS: [&str; 5] = ["member-1", "member-2", "member-3", "member-4", "member-5"];

const KEYS: &str = r#"
version = 1

[[token]]
name = "ledger-a"

[[token]]
name = "smki-a"

[[key]]
label = "ledger-1"
use = "ledger"
token = "ledger-a"
modes = []
activation = "stored"

[[key]]
label = "recovery-1"
use = "recovery"
token = "smki-a"
modes = [8]
originator = "90B3D51F30000002"
activation = "custodians"
"#;

/// Two empty tokens, a policy with five members of openssl's making, and a lab SMKI PKI.
pub struct Stage {
    pub scratch: Scratch,
    pub ledger: TestToken,
    pub smki: TestToken,
    pub lab: Lab,
}

/// The example's `purpose` in its place.
pub fn set_purpose(policy: &Path, purpose: &str) {
    let path = policy.join("policy.toml");
    let text = fs::read_to_string(&path).unwrap();
    let line = text.lines().find(|line| line.starts_with("purpose = ")).unwrap().to_owned();
    fs::write(&path, text.replace(&line, &format!("purpose = \"{purpose}\""))).unwrap();
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, target).unwrap();
        }
    }
}

/// Every file below a folder, with its octets.
pub fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    if !folder.exists() {
        return files;
    }
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    files
}

impl Stage {
    pub fn new() -> Self {
        let stage = Self {
            scratch: Scratch::new(),
            ledger: TestToken::new("ledger token"),
            smki: TestToken::new("smki token"),
            lab: Lab::new(),
        };
        stage.make_policy();
        for (name, pin) in [("ledger.pin", PIN), ("smki.pin", PIN)] {
            stage.scratch.write(name, format!("{pin}\n"));
            fs::set_permissions(stage.path(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
        stage.configure("");
        stage
    }

    fn make_policy(&self) {
        let policy = self.path("policy");
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("keys-policy/example"), &policy);
        set_purpose(&policy, "exercise");
        fs::write(policy.join("keys.toml"), KEYS).unwrap();
        self.scratch.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out policy/anchors/people.pem \
             -days 3650 -subj /CN=PMA-CA -addext keyUsage=critical,keyCertSign",
        );
        let mut persons = fs::read_to_string(policy.join("persons.toml")).unwrap();
        self.scratch.write("leaf.ext", "keyUsage=critical,digitalSignature\nsubjectKeyIdentifier=hash\n");
        for member in MEMBERS {
            self.scratch.openssl(&format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {member}.key -out {member}.csr \
                 -subj /O=PMA/CN={member}"
            ));
            self.scratch.openssl(&format!(
                "x509 -req -in {member}.csr -CA policy/anchors/people.pem -CAkey ca.key -CAserial ca.srl -CAcreateserial \
                 -extfile leaf.ext -days 365 -out {member}.pem"
            ));
            let certificate = pem::certificate(&self.scratch.text(&format!("{member}.pem"))).unwrap();
            let at = persons.find(&format!("id = \"{member}\"")).unwrap();
            let from = at + persons[at..].find("keys = ").unwrap();
            let until = from + persons[from..].find("from = ").unwrap();
            persons.replace_range(from..until, &format!("keys = [\"{}\"]\n", certificate.spki_sha256()));
        }
        fs::write(policy.join("persons.toml"), persons).unwrap();
        for (name, holder) in
            [("root-oca", &self.lab.root), ("issuing-oca", &self.lab.issuing), ("device-ca", &self.lab.device_ca)]
        {
            let text = pem::certificate_to_pem(holder.certificate.certificate().octets());
            fs::write(policy.join(format!("anchors/{name}.pem")), text).unwrap();
        }
    }

    /// `smki_pin` is the line of the configuration with the Recovery token's PIN.
    pub fn configure(&self, smki_pin: &str) {
        self.configure_with(smki_pin, None);
    }

    /// `fault` is what goes wrong with the ledger token's module.
    pub fn configure_with(&self, smki_pin: &str, fault: Option<&str>) {
        let (module, more) = match fault {
            None => (MODULE.to_owned(), String::new()),
            Some(script) => {
                let config = self.ledger.failing(1, script);
                let more = config
                    .environment
                    .iter()
                    .map(|(name, value)| format!("{} = \"{}\"\n", name.display(), value.display()));
                (config.module.display().to_string(), more.filter(|line| !line.starts_with("SOFTHSM")).collect())
            }
        };
        let token = |name: &str, token: &TestToken, pin: &str, module: &str, more: &str| {
            format!(
                "[[token]]\nname = \"{name}\"\nmodule = \"{module}\"\nlabel = \"{}\"\nserial = \"{}\"\n\
                 deadline_ms = 10000\n{pin}\n[token.environment]\nSOFTHSM2_CONF = \"{}\"\n{more}",
                token.label,
                token.serial,
                token.dir().join("softhsm2.conf").display()
            )
        };
        let ledger_pin = format!("pin = {{ file = \"{}\" }}", self.path("ledger.pin").display());
        self.scratch.write(
            "smkid.toml",
            format!(
                "version = 1\nstate = \"{}\"\n{}{}[ledger]\ntoken = \"ledger-a\"\n",
                self.path("state").display(),
                token("ledger-a", &self.ledger, &ledger_pin, &module, &more),
                token("smki-a", &self.smki, smki_pin, MODULE, "")
            ),
        );
    }

    /// `fault` is what goes wrong with the Recovery token's module.
    pub fn configure_smki(&self, fault: Option<&str>) {
        self.configure("");
        let Some(script) = fault else { return };
        let config = self.smki.failing(1, script);
        let text = self.scratch.text("smkid.toml");
        let (before, block) = text.split_at(text.find("name = \"smki-a\"").unwrap());
        let more =
            config.environment.iter().map(|(name, value)| format!("{} = \"{}\"\n", name.display(), value.display()));
        let more: String = more.filter(|line| !line.starts_with("SOFTHSM")).collect();
        let block = block
            .replacen(&format!("module = \"{MODULE}\""), &format!("module = \"{}\"", config.module.display()), 1)
            .replacen("[ledger]", &format!("{more}[ledger]"), 1);
        self.scratch.write("smkid.toml", format!("{before}{block}"));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path(name)
    }

    /// `smkictl ceremony` with arguments separated by spaces, in the scratch folder.
    pub fn ceremony(&self, arguments: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_smkictl"))
            .arg("ceremony")
            .args(arguments.split_whitespace())
            .current_dir(self.path("."))
            .output()
            .unwrap()
    }

    /// It ends with that status; what it said on stdout and stderr.
    #[track_caller]
    pub fn expect(&self, status: i32, said: &str, arguments: &str) -> String {
        let output = self.ceremony(arguments);
        let all = [output.stdout, output.stderr].map(|out| String::from_utf8(out).unwrap()).concat();
        assert_eq!(output.status.code(), Some(status), "{arguments}: {all}");
        assert!(all.contains(said), "{arguments}: expected {said:?}, found {all}");
        all
    }

    #[track_caller]
    fn keys(&self) -> KeysFile {
        self.expect(0, "Next: read the words aloud", &format!("keys {TOKENS} --policy policy --out keys"));
        self.keys_file()
    }

    fn keys_file(&self) -> KeysFile {
        serde_json::from_slice(&self.scratch.read("keys/keys.json")).unwrap()
    }

    /// The adoption document, signed by everyone with openssl.
    pub fn adoption(&self) {
        self.expect(0, "Next: everyone", "adoption --policy policy --out adoption.json");
        for member in MEMBERS {
            self.sign("adoption.json", member, &format!("{member}.p7s"));
        }
    }

    pub fn sign(&self, document: &str, member: &str, out: &str) {
        self.scratch.openssl(&format!(
            "cms -sign -binary -cades -md sha256 -nosmimecap -outform DER -in {document} -signer {member}.pem -inkey \
             {member}.key -out {out}"
        ));
    }

    /// `begin` with the signatures of these.
    fn begin_of(members: &[&str]) -> String {
        let signatures: Vec<String> = members.iter().map(|member| format!("--signature {member}.p7s")).collect();
        format!("begin {TOKENS} --policy policy --out keys --adoption adoption.json {}", signatures.join(" "))
    }

    pub fn begin() -> String {
        Self::begin_of(&MEMBERS)
    }

    /// As far as a ledger that stands.
    fn begun() -> Self {
        let stage = Self::new();
        stage.keys();
        stage.adoption();
        stage.expect(0, "Next: read the genesis words", &Self::begin());
        stage
    }

    pub fn events(&self) -> Vec<Event> {
        let limits = StagingLimits { account_len_max: 0, total_len_max: 0 };
        let mut store = SqliteStore::open(&self.path("state"), limits).unwrap();
        state::catch_up(&mut store).unwrap();
        let size = store.head().unwrap().size;
        (0..size).map(|index| Entry::from_leaf(&store.leaf(index).unwrap()).unwrap().event).collect()
    }

    pub fn pkcs11_tool(token: &TestToken, arguments: &str) -> String {
        let all: Vec<&str> = ["--module", MODULE, "--token-label", &token.label, "--login", "--pin", PIN]
            .into_iter()
            .chain(arguments.split_whitespace())
            .collect();
        token.run("pkcs11-tool", &all)
    }

    pub fn object(&self, token: &TestToken, label: &str) -> Vec<u8> {
        let path = self.path("object");
        Self::pkcs11_tool(token, &format!("--read-object --type data --label {label} -o {}", path.display()));
        fs::read(path).unwrap()
    }

    fn write_object(&self, token: &TestToken, label: &str, octets: &[u8]) {
        self.scratch.write("object", octets);
        let path = self.path("object");
        Self::pkcs11_tool(
            token,
            &format!("--write-object {} --type data --label {label} --application-label smkid", path.display()),
        );
    }

    fn delete(token: &TestToken, kind: &str, label: &str) {
        Self::pkcs11_tool(token, &format!("--delete-object --type {kind} --label {label}"));
    }
}

const TOKENS: &str = "--config smkid.toml --pin-file smki-a=smki.pin";

#[test]
fn a_whole_ceremony_is_recorded_and_its_request_verifies_with_openssl() {
    let stage = Stage::new();
    // Nothing is changed by a dry run.
    let before = contents(&stage.path("."));
    stage.expect(0, "would make", &format!("keys {TOKENS} --policy policy --out keys --dry-run"));
    stage.expect(0, "Nothing was written", "adoption --policy policy --out adoption.json --dry-run");
    assert_eq!(contents(&stage.path(".")), before);

    let made = stage.keys();
    assert_eq!(made.keys.iter().map(|key| key.label.as_str()).collect::<Vec<_>>(), ["ledger-1", "recovery-1"]);
    for (key, name) in made.keys.iter().zip(["ledger", "recovery"]) {
        let pem = stage.scratch.text(&format!("keys/{name}.pem"));
        assert_eq!(pem::public_key(&pem).unwrap().spki_sha256(), key.spki_sha256);
    }
    let listed = Stage::pkcs11_tool(&stage.smki, "--list-objects --type privkey");
    assert!(listed.contains("never extractable") && listed.contains(&made.keys[1].id.to_string()), "{listed}");
    // Once more makes nothing.
    stage.expect(0, "nothing was made", &format!("keys {TOKENS} --policy policy --out keys"));
    assert_eq!(stage.keys_file(), made);

    stage.adoption();
    let before = contents(&stage.path("."));
    stage.expect(0, "Nothing was recorded", &format!("{} --dry-run", Stage::begin()));
    assert_eq!(contents(&stage.path(".")), before);
    stage.expect(0, "Next: read the genesis words", &Stage::begin());

    // The tokens carry genesis, the ledger token the head.
    let events = stage.events();
    let [Event::Genesis(genesis), Event::PolicyAdopted(adopted)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(genesis.keys, made.keys.iter().map(smkid::cli::ceremony::MadeKey::record).collect::<Vec<_>>());
    assert_eq!(adopted.signatures.len(), MEMBERS.len());
    let limits = StagingLimits { account_len_max: 0, total_len_max: 0 };
    let (hash, head) = {
        let store = SqliteStore::open(&stage.path("state"), limits).unwrap();
        (leaf_hash(&store.leaf(0).unwrap()), store.head().unwrap())
    };
    assert_eq!(stage.scratch.text("keys/genesis"), format!("{hash}\n"));
    for token in [&stage.ledger, &stage.smki] {
        assert_eq!(stage.object(token, "smkid-genesis"), hash.octets());
    }
    let object = HeadObject::parse(&stage.object(&stage.ledger, HEAD_LABELS[0])).unwrap();
    assert_eq!(object.head, head);

    // A second run has nothing to do and says so.
    stage.expect(1, "nothing is missing", &Stage::begin());
    stage.expect(1, "there is a ledger already", &format!("keys {TOKENS} --policy policy --out keys"));

    // The request: an intent before, an outcome after; openssl is content.
    let request = format!("request {TOKENS} --key recovery-1 --out keys");
    stage.expect(0, "Nothing was recorded", &format!("{request} --dry-run"));
    assert_eq!(stage.events().len(), 2);
    stage.expect(0, "Next: send the request", &request);
    assert!(stage.scratch.openssl("req -verify -noout -text -in keys/recovery.csr").contains("verify OK"));
    stage.expect(1, "exists", &request);
    let events = stage.events();
    let [_, _, Event::CertificationIntent(intent), Event::Outcome(outcome)] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!((intent.key.as_str(), outcome.intent), ("recovery-1", 2));
    assert!(matches!(outcome.result, SignResult::Signed(_)));

    import(&stage);
}

/// What the lab issues for a request, and the same for a key that was not asked for.
pub fn certify(stage: &Stage, request: &str) -> [Vec<u8>; 2] {
    let csr = pem::blocks(&stage.scratch.text(request)).unwrap()[0].decode().unwrap();
    let (subject, public) = read_request(&csr).unwrap();
    let party: PartyId = ORIGINATOR.parse().unwrap();
    assert_eq!(subject, OrganisationSubject { common_name: None, role: 1, party });
    let issue = |key: &PublicKey| {
        let template = Template::Organisation { subject: subject.clone(), usage: Usage::DigitalSignature };
        let particulars = Particulars {
            serial: &[0x01, 0x02],
            not_before: VALIDITY.0.parse().unwrap(),
            not_after: VALIDITY.1.parse().unwrap(),
            key,
            policy: TEST_ORGANISATION_POLICY,
        };
        let body = tbs(&template, &particulars, Some(&stage.lab.issuing.certificate)).unwrap();
        assemble(&body, &stage.lab.issuing.key.sign(&body)).unwrap()
    };
    [issue(&public), issue(&stage.lab.device_ca.key.public)]
}

/// The lab issues for the request; a certificate for another key is refused, the right one recorded.
fn import(stage: &Stage) {
    let party: PartyId = ORIGINATOR.parse().unwrap();
    let [ours, other] = certify(stage, "keys/recovery.csr");
    stage.scratch.write_certificate("recovery.pem", &ours);
    stage.scratch.write_certificate("other.pem", &other);
    let import = |certificate: &str| {
        format!(
            "import {TOKENS} --key recovery-1 --certificate {certificate} --chain policy/anchors/issuing-oca.pem --chain \
             policy/anchors/root-oca.pem"
        )
    };
    stage.expect(4, "certificate-key", &import("other.pem"));
    stage.expect(0, "Nothing was recorded", &format!("{} --dry-run", import("recovery.pem")));
    assert_eq!(stage.events().len(), 4);
    stage.expect(0, "Next: start smkid", &import("recovery.pem"));
    let events = stage.events();
    let Some(Event::CertificateImported(imported)) = events.get(4) else { panic!("{events:?}") };
    assert_eq!((imported.party, imported.path.len()), (party, 2));
}

#[test]
fn everyone_on_the_roster_signs_the_first_policy_or_there_is_no_ledger() {
    let stage = Stage::new();
    stage.keys();
    stage.adoption();
    stage.expect(4, "member-5 is a pma-member of the first policy and has not signed", &Stage::begin_of(&MEMBERS[..4]));
    // Member 5 signs another document, and member 4 signs twice.
    stage
        .scratch
        .write("other.json", stage.scratch.text("adoption.json").replace("\"sequence\": 1", "\"sequence\": 2"));
    stage.sign("other.json", "member-5", "wrong.p7s");
    stage.sign("adoption.json", "member-4", "again.p7s");
    let with = |last: &str| format!("{} --signature {last}.p7s", Stage::begin_of(&MEMBERS[..4]));
    stage.expect(4, "member-5", &with("wrong"));
    stage.expect(4, "member-5", &with("again"));
    assert!(!stage.path("state").exists());
    let data = Stage::pkcs11_tool(&stage.smki, "--list-objects --type data");
    assert!(!data.contains("smkid-genesis"), "{data}");
    stage.expect(0, "The ledger stands", &with("member-5"));
}

#[test]
fn a_run_that_was_cut_off_is_named_and_goes_on() {
    let stage = Stage::new();
    // Between making a key and writing it down.
    Stage::pkcs11_tool(&stage.smki, "--keypairgen --key-type EC:prime256v1 --label recovery-1 --id 01");
    let keys = format!("keys {TOKENS} --policy policy --out keys");
    stage.expect(1, "an orphan", &keys);
    let first = stage.keys_file();
    assert_eq!(first.keys.len(), 1, "the ledger key was made and stays");
    for kind in ["privkey", "pubkey"] {
        Stage::delete(&stage.smki, kind, "recovery-1");
    }
    let both = stage.keys();
    assert_eq!((both.keys.len(), &both.keys[0]), (2, &first.keys[0]));

    // Before the ledger came to its place.
    stage.adoption();
    fs::create_dir_all(stage.path("state/ceremony-unfinished")).unwrap();
    fs::write(stage.path("state/ceremony-unfinished/ledger.db"), "half a ledger").unwrap();
    stage.expect(0, "The ledger stands", &Stage::begin());
    assert!(!stage.path("state/ceremony-unfinished").exists());

    // After: at each step between the tokens and the files.
    Stage::delete(&stage.ledger, "data", HEAD_LABELS[0]);
    let request = format!("request {TOKENS} --key recovery-1 --out keys");
    stage.expect(1, "keeps no head", &request);
    Stage::delete(&stage.smki, "data", "smkid-genesis");
    fs::remove_file(stage.path("keys/genesis")).unwrap();
    let said = stage.expect(0, "genesis on token smki-a", &Stage::begin());
    assert!(said.contains("the head on token ledger-a") && said.contains("keys/genesis"), "{said}");
    assert!(!said.contains("genesis on token ledger-a"), "{said}");
    stage.expect(0, "Next: send", &request);
    assert_eq!(stage.events().len(), 4);

    // Once more is recorded, a token without genesis is not the ceremony's.
    Stage::delete(&stage.smki, "data", "smkid-genesis");
    stage.expect(5, "carries no genesis", &Stage::begin());
}

#[test]
fn a_token_of_another_ledger_is_refused() {
    let stage = Stage::new();
    stage.write_object(&stage.smki, "smkid-genesis", &[0x47; 32]);
    stage.expect(5, "carries the genesis 4747", &format!("keys {TOKENS} --policy policy --out keys"));
    Stage::delete(&stage.smki, "data", "smkid-genesis");
    stage.keys();
    stage.adoption();
    stage.write_object(&stage.smki, "smkid-genesis", &[0x47; 32]);
    stage.expect(5, "carries the genesis 4747", &Stage::begin());
    assert!(!stage.path("state").exists());
    Stage::delete(&stage.smki, "data", "smkid-genesis");
    stage.expect(0, "The ledger stands", &Stage::begin());
    Stage::delete(&stage.smki, "data", "smkid-genesis");
    stage.write_object(&stage.smki, "smkid-genesis", &[0x47; 32]);
    stage.expect(5, "belongs to another ledger", &format!("request {TOKENS} --key recovery-1 --out keys"));
    assert_eq!(stage.events().len(), 2, "no intent was recorded");
}

#[test]
fn a_ledger_that_was_rolled_back_or_is_in_use_is_refused() {
    let stage = Stage::begun();
    copy(&stage.path("state"), &stage.path("copy"));
    let request = format!("request {TOKENS} --key recovery-1 --out keys");
    {
        let limits = StagingLimits { account_len_max: 0, total_len_max: 0 };
        let _daemon = SqliteStore::open(&stage.path("state"), limits).unwrap();
        stage.expect(1, "is in use by process", &request);
    }
    stage.expect(0, "Next: send", &request);
    fs::rename(stage.path("state"), stage.path("newer")).unwrap();
    fs::rename(stage.path("copy"), stage.path("state")).unwrap();
    fs::remove_file(stage.path("keys/recovery.csr")).unwrap();
    stage.expect(5, "does not reach", &request);
    assert_eq!(stage.events().len(), 2);
}

#[test]
fn a_live_recovery_token_has_no_stored_pin() {
    let stage = Stage::new();
    set_purpose(&stage.path("policy"), "live");
    let keys = "keys --policy policy --out keys --config smkid.toml";
    stage.expect(4, "--pin-file is for exercises", &format!("{keys} --pin-file smki-a=smki.pin"));
    stage.configure(&format!("pin = {{ file = \"{}\" }}", stage.path("smki.pin").display()));
    stage.expect(4, "may not be stored", keys);
    // Without one it is asked for, on a terminal only.
    stage.configure("");
    stage.expect(1, "asked for on a terminal", keys);
    assert_eq!(stage.keys_file().keys.len(), 1, "the ledger key's PIN may be stored");
    set_purpose(&stage.path("policy"), "exercise");
    stage.expect(1, "its keys are live keys", &format!("{keys} --pin-file smki-a=smki.pin"));
}

#[test]
fn a_clock_set_for_an_exercise_is_refused_under_a_live_policy() {
    let stage = Stage::new();
    let keys = "keys --policy policy --out keys --config smkid.toml";
    let path = stage.path("smkid.toml");
    let set = fs::read_to_string(&path).unwrap() + "\n[exercise]\nclock_offset_ms = -1\n";
    fs::write(&path, set).unwrap();
    set_purpose(&stage.path("policy"), "live");
    stage.expect(4, "exercise.clock_offset_ms: expected 0", keys);
    assert!(!stage.path("keys").exists(), "no key was made");
    set_purpose(&stage.path("policy"), "exercise");
    stage.expect(0, "Next: read the words", &format!("{keys} --pin-file smki-a=smki.pin"));
}

#[test]
fn a_ceremony_puts_no_time_into_the_ledger_that_nobody_vouches_for() {
    const HOUR_MS: i64 = 3_600_000;
    let stage = Stage::begun();
    let path = stage.path("smkid.toml");
    let configured = fs::read_to_string(&path).unwrap();
    let set = |ms: i64| fs::write(&path, format!("{configured}\n[exercise]\nclock_offset_ms = {ms}\n")).unwrap();
    let request = format!("request {TOKENS} --key recovery-1 --out keys");
    for offset_ms in [-HOUR_MS, 25 * HOUR_MS] {
        set(offset_ms);
        stage.expect(4, "`smkictl clock accept`", &request);
        assert_eq!(stage.events().len(), 2);
    }
    set(23 * HOUR_MS);
    stage.expect(0, "Next: send the request", &request);
}

#[test]
fn a_policy_whose_procedure_is_a_header_alone_begins_no_ledger() {
    let stage = Stage::new();
    stage.keys();
    stage.adoption();
    let (base, direction) = (stage.path("policy/procedure/base.toml"), "policy/procedure/direction-2017-07-18.toml");
    let whole = fs::read(&base).unwrap();
    fs::write(&base, "version = 1\nid = \"base\"\ntitle = \"Base procedure, without variation\"\n").unwrap();
    let varied = fs::read(stage.path(direction)).unwrap();
    fs::remove_file(stage.path(direction)).unwrap();
    let refused = "procedure/base.toml: expected the steps";
    stage.expect(1, refused, &format!("keys {TOKENS} --policy policy --out others"));
    stage.expect(1, refused, "adoption --policy policy --out other.json");
    stage.expect(1, refused, &Stage::begin());
    assert!(!stage.path("others").exists() && !stage.path("other.json").exists() && !stage.path("state").exists());
    fs::write(&base, whole).unwrap();
    fs::write(stage.path(direction), varied).unwrap();
    stage.expect(0, "Next: read the genesis words", &Stage::begin());
}

#[test]
fn a_module_that_dies_at_any_write_leaves_what_the_next_run_completes() {
    let stage = Stage::new();
    stage.keys();
    stage.adoption();
    // The checkpoint: nothing has come to its place.
    stage.configure_with("", Some("C_Sign * kill"));
    stage.expect(3, "checkpoint", &Stage::begin());
    assert!(!SqliteStore::exists(&stage.path("state")));
    // Genesis, then the head, on the ledger token.
    stage.configure_with("", Some("C_CreateObject 1 kill"));
    stage.expect(3, "The ledger stands", &Stage::begin());
    assert!(SqliteStore::exists(&stage.path("state")));
    stage.configure_with("", Some("C_CreateObject 2 kill"));
    stage.expect(3, "The ledger stands already", &Stage::begin());
    assert_eq!(stage.object(&stage.ledger, "smkid-genesis").len(), 32);
    stage.configure("");
    stage.expect(0, "the head on token ledger-a", &Stage::begin());
    stage.expect(0, "Next: send", &format!("request {TOKENS} --key recovery-1 --out keys"));
}

/// Has a checkpoint signed, which must be the very one that was asked for.
fn signs(signer: &mut TokenSigner, checkpoint: &Checkpoint) {
    let note = signer.sign(checkpoint).unwrap();
    assert_eq!(note.checkpoint(), checkpoint);
    // By what the token says of its key, and not by what the signer holds.
    let report = signer.token().report().unwrap();
    let verifier = Verifier::from_spki(checkpoint.origin.as_str(), &report.keys[0].spki).unwrap();
    assert_eq!(SignedCheckpoint::verify(note.octets(), &verifier), Ok(note));
}

/// Kills the worker of a token; which it was.
fn kill(token: &Token) -> u32 {
    let pid = token.worker_pid().unwrap();
    signal(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
    pid
}

#[test]
fn a_checkpoint_that_was_begun_is_signed_once_and_used_only_where_that_very_one_is_asked_for() {
    let stage = Stage::begun();
    let configuration = || Configuration::read(&stage.path("smkid.toml")).unwrap();
    let (store, fold) = start::open_ledger(&configuration()).unwrap();
    let reader = store.reader().unwrap();
    let open = || {
        let smkid = Some(PathBuf::from(env!("CARGO_BIN_EXE_smkid")));
        start::ledger_signer(&configuration(), &fold, &*reader, smkid, SecretString::from(PIN)).unwrap()
    };
    let mut signer = open();
    let token = signer.token().clone();
    let (origin, head) = (fold.origin().unwrap().clone(), store.head().unwrap());
    let checkpoint = Checkpoint::new(origin.clone(), head);

    let before = token.signatures();
    signer.begin(&checkpoint);
    signs(&mut signer, &checkpoint);
    assert_eq!(token.signatures(), before + 1);

    // The same size and another root, as a write that failed leaves it behind; and a ledger's that is not ours.
    let failed = Head { root: reader.root_at(1).unwrap(), ..head };
    assert_ne!(failed, head);
    signer.begin(&Checkpoint::new(origin, failed));
    signs(&mut signer, &checkpoint);
    signer.begin(&Checkpoint::new("another.example/ledger".parse().unwrap(), head));
    signs(&mut signer, &checkpoint);

    // The worker dies before it is submitted, or with it.
    let pid = kill(&token);
    signer.begin(&checkpoint);
    signs(&mut signer, &checkpoint);
    assert_ne!(token.worker_pid(), Some(pid));
    stage.configure_with("", Some("C_Sign 1 kill"));
    let mut signer = open();
    let pid = signer.token().worker_pid();
    signer.begin(&checkpoint);
    signs(&mut signer, &checkpoint);
    assert_ne!(signer.token().worker_pid(), pid);
}

#[test]
fn a_cut_off_write_of_the_head_leaves_the_other_and_a_dead_worker_is_replaced_once() {
    let stage = Stage::begun();
    let configuration = Configuration::read(&stage.path("smkid.toml")).unwrap();
    let (store, fold) = start::open_ledger(&configuration).unwrap();
    let reader = store.reader().unwrap();
    let open = || {
        let smkid = Some(PathBuf::from(env!("CARGO_BIN_EXE_smkid")));
        start::ledger_signer(&configuration, &fold, &*reader, smkid, SecretString::from(PIN))
    };
    let mut signer = open().unwrap();
    let token = signer.token().clone();
    let head = store.head().unwrap();
    let origin = fold.origin().unwrap();
    let first = HeadObject { origin: origin.clone(), head: Head { size: 1, root: reader.root_at(1).unwrap() } };

    // The second head goes to the other place; a write there that is cut off leaves two versions in it.
    start::write_head_object(&token, origin, head).unwrap();
    assert_eq!(stage.object(&stage.ledger, HEAD_LABELS[1]), stage.object(&stage.ledger, HEAD_LABELS[0]));
    stage.write_object(&stage.ledger, HEAD_LABELS[1], &first.to_octets());
    assert_eq!(start::check_head_object(&token, &*reader, origin).unwrap(), head);
    start::write_head_object(&token, origin, head).unwrap();
    assert_eq!(start::check_head_object(&token, &*reader, origin).unwrap(), head);

    // The worker dies between two checkpoints.
    let checkpoint = Checkpoint::new(origin.clone(), head);
    signs(&mut signer, &checkpoint);
    let pid = kill(&token);
    signs(&mut signer, &checkpoint);
    assert_ne!(token.worker_pid(), Some(pid));
    assert!(signer.sign(&Checkpoint::new("another.example/ledger".parse().unwrap(), head)).is_err());

    // A head of a ledger that we do not have.
    let foreign = HeadObject { origin: origin.clone(), head: Head { size: 1, root: head.root } };
    token.write_data(HEAD_LABELS[1], &foreign.to_octets()).wait().unwrap();
    let refused = open().map(drop).unwrap_err();
    assert!(matches!(refused, StartFault::RolledBack { .. }), "{refused}");
}
