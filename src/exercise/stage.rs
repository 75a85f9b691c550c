//! Shell: the stage on which the exercise plays: scratch folder, tokens, lab PKI, people, policy, configuration; and the
//! ceremony that makes a ledger and a certified Recovery key of them.

use std::fs;
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret;

use super::clock::Clock;
use super::lab::Lab;
use super::layout::{Layout, LayoutError, create_private, write_secret};
use super::people::{APPROVALS, Credential, MEMBERS, People};
use super::policy::{self, Names};
use super::programs::Programs;
use super::softhsm::{CONFIGURATION_VARIABLE, SoftHsm, Token};
use super::tell::Teller;
use super::{ExerciseError, documents};
use crate::domain::certificates::SmkiCertificate;
use crate::domain::certificates::pem;
use crate::domain::names::{AccountName, Digest};
use crate::domain::policy::Policy;
use crate::domain::time::Timestamp;

/// Where people's keys lie, within the scratch folder.
const PEOPLE: &str = "people";

/// Octets held in reserve on disk: an exercise writes little after its disk is full.
const RESERVE_OCTETS: u64 = 16 * 1024 * 1024;

/// Everything that stands before the daemon starts.
pub struct Stage {
    /// Tokens, PINs, state and socket; removed at the end.
    pub scratch: tempfile::TempDir,
    /// What is left behind.
    pub layout: Layout,
    /// The programs.
    pub programs: Programs,
    /// The PKI.
    pub lab: Lab,
    /// The people.
    pub people: People,
    /// The names in the policy.
    pub names: Names,
    /// The policy.
    pub policy: Policy,
    /// The daemon's configuration file.
    pub configuration: PathBuf,
    /// Where the daemon listens.
    pub socket: PathBuf,
    /// Where its log goes.
    pub log: PathBuf,
    /// What the time is.
    pub clock: Clock,
}

impl Stage {
    /// Sets it. `out` is where the layout goes.
    pub fn set(out: &Path, programs: Programs, clock: Clock, teller: &mut Teller<'_>) -> Result<Self, ExerciseError> {
        let layout = Layout::create(out)?;
        // Short, for a socket's path has 107 octets at most; private, for it holds PINs.
        let scratch = tempfile::Builder::new().prefix("smkid-exercise-").tempdir().map_err(ExerciseError::Scratch)?;
        let now = clock.now();

        teller.step("The stage is set");
        let softhsm = SoftHsm::prepare(scratch.path())?;
        let tokens = [softhsm.make_token("exercise-ledger")?, softhsm.make_token("exercise-recovery")?];
        teller.good("Two PKCS#11 tokens in SoftHSM: one for the ledger key, one for the Recovery key.");
        let lab = Lab::new(now)?;
        for (name, certificate) in
            [("root-oca", lab.root_oca()), ("issuing-oca", lab.issuing_oca()), ("device-ca", lab.device_ca())]
        {
            write_certificate(&layout, name, certificate)?;
        }
        for (cell, (before, after)) in super::lab::CELLS.iter().zip(lab.before().iter().zip(lab.after())) {
            write_certificate(&layout, &format!("before/{}", cell.name), before)?;
            write_certificate(&layout, cell.name, after)?;
        }
        teller.good(
            "A lab SMKI PKI: Root OCA, Issuing OCA, the organisations' certificates as Devices hold them now and as they shall \
             hold them, and a CA for Devices.",
        );
        let people = People::new(now)?;
        teller.good(&format!(
            "{MEMBERS} members of the SMKI PMA, each with a key of their own; {APPROVALS} must approve."
        ));

        create_private(&scratch.path().join(PEOPLE))?;
        for credential in people.credentials() {
            let path = |ending| scratch.path().join(format!("{PEOPLE}/{}.{ending}", credential.name));
            write_secret(&path("key.pem"), credential.key_pem.expose_secret().as_bytes())?;
            write_secret(&path("pem"), credential.certificate_pem.as_bytes())?;
        }

        let (account, group) = whoever_runs_this()?;
        let files = policy::files(&lab, &people, &account, now);
        for (name, octets) in &files {
            layout.write(&format!("policy/{name}"), octets)?;
        }
        let policy = policy::read(&files).map_err(ExerciseError::Policy)?;
        teller.good(&format!(
            "A policy for this exercise, made from the example in keys-policy/. You ({account}) are its operator."
        ));
        teller.fact("policy SHA-256", &policy.digest().to_string());

        let (socket, names) = (scratch.path().join("smkid.sock"), Names::new());
        let configuration = scratch.path().join("smkid.toml");
        let text = configuration_text(scratch.path(), &socket, &group, &softhsm, &tokens, &names, clock);
        if clock.is_set() {
            teller.good(&format!("The clock is set for this exercise: it is {now} here."));
        }
        write_secret(&configuration, text.as_bytes())?;
        let log = layout.path("smkid.log");
        Ok(Self { scratch, layout, programs, lab, people, names, policy, configuration, socket, log, clock })
    }

    /// Now, by the exercise's clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A member signs a document, with `smkictl determination sign`. Answers the detached CMS signature.
    ///
    /// Whoever signs goes by a true clock, and so does that command. Where the exercise has set its own, the certificates are of
    /// another time, and what is signed is signed here.
    pub async fn sign(&self, document: &[u8], credential: &Credential) -> Result<Vec<u8>, ExerciseError> {
        if self.clock.is_set() {
            return Ok(documents::sign(document, credential, self.now())?);
        }
        let (digest, name) = (Digest::of(document).to_string(), &credential.name);
        let desk = self.scratch.path().join(PEOPLE);
        let (file, p7s) = (desk.join(format!("{digest}.json")), desk.join(format!("{digest}.{name}.p7s")));
        if !p7s.exists() {
            if !file.exists() {
                write_secret(&file, document)?;
            }
            let [key, certificate] = ["key.pem", "pem"].map(|ending| text(&desk.join(format!("{name}.{ending}"))));
            let (file, out) = (text(&file), text(&p7s));
            let mut arguments = vec!["determination", "sign", &file, "--key", &key, "--certificate", &certificate];
            arguments.extend(["--out", &out, "--confirm", &digest]);
            self.programs.smkictl(&self.socket, &arguments).await?;
        }
        Ok(read(&p7s)?)
    }

    /// The ceremony, by its subcommands: keys, adoption signed by everyone, the ledger, the Recovery certificate. Answers that,
    /// and the genesis hash.
    pub async fn ceremony(&self, teller: &mut Teller<'_>) -> Result<(SmkiCertificate, Digest), ExerciseError> {
        teller.step("The ceremony: keys, a ledger, its first policy, a certified Recovery key");
        let (config, policy) = (text(&self.configuration), text(&self.layout.path("policy")));
        let (keys, adoption) = (text(&self.layout.path("keys")), text(&self.layout.path("documents/adoption.json")));
        let smkictl = async |arguments: &[&str]| self.programs.smkictl(&self.socket, arguments).await;

        smkictl(&["ceremony", "keys", "--config", &config, "--policy", &policy, "--out", &keys]).await?;
        teller
            .good("The key pairs are made on their tokens, where they stay: sensitive, never extractable, sign only.");

        smkictl(&["ceremony", "adoption", "--policy", &policy, "--out", &adoption]).await?;
        let document = read(Path::new(&adoption))?;
        let mut begin = vec!["ceremony", "begin", "--config", &config, "--policy", &policy, "--out", &keys];
        begin.extend(["--adoption", &adoption]);
        let mut signatures = Vec::new();
        for member in &self.people.members {
            let p7s = self.sign(&document, &member.first).await?;
            signatures.push(text(&self.layout.write(&format!("documents/adoption.{}.p7s", member.id), p7s)?));
        }
        for signature in &signatures {
            begin.extend(["--signature", signature]);
        }
        smkictl(&begin).await?;
        let genesis = fs::read_to_string(self.layout.path("keys/genesis"))
            .map_err(LayoutError::at(&self.layout.path("keys/genesis")))?;
        let genesis: Digest = genesis.trim().parse().map_err(ExerciseError::Name)?;
        teller.good(&format!("All {MEMBERS} members signed the adoption of the policy; the ledger begins with it."));
        teller.fact("genesis", &genesis.to_string());

        let label = self.names.recovery_key.as_str();
        smkictl(&["ceremony", "request", "--config", &config, "--key", label, "--out", &keys]).await?;
        let request = fs::read_to_string(self.layout.path("keys/recovery.csr"))
            .map_err(LayoutError::at(&self.layout.path("keys/recovery.csr")))?;
        let block = pem::blocks(&request)?.into_iter().next().ok_or(ExerciseError::NoRequest)?;
        let recovery = self.lab.certify_recovery(&block.decode()?, self.names.recovery_party)?;
        let certificate = text(&write_certificate(&self.layout, "recovery", &recovery)?);
        let [issuing, root] = ["issuing-oca", "root-oca"].map(|name| text(&certificate_path(&self.layout, name)));
        let mut import = vec!["ceremony", "import", "--config", &config, "--key", label, "--certificate", &certificate];
        import.extend(["--chain", &issuing, "--chain", &root]);
        smkictl(&import).await?;
        teller
            .good("The Recovery key's request was recorded before it was signed; the lab's Issuing OCA certified it.");
        teller.fact("Recovery", &recovery.kind().to_string());
        Ok((recovery, genesis))
    }
}

fn certificate_path(layout: &Layout, name: &str) -> PathBuf {
    layout.path(&format!("certificates/{name}.pem"))
}

/// Writes a certificate as PEM into `certificates/`.
pub fn write_certificate(layout: &Layout, name: &str, certificate: &SmkiCertificate) -> Result<PathBuf, LayoutError> {
    layout.write(&format!("certificates/{name}.pem"), pem::certificate_to_pem(certificate.octets()))
}

/// Reads a file whole.
pub fn read(path: &Path) -> Result<Vec<u8>, LayoutError> {
    fs::read(path).map_err(LayoutError::at(path))
}

/// A path as an argument: the folders are ours or were named as text.
pub fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The account that runs the exercise, which is its operator, and that account's group.
fn whoever_runs_this() -> Result<(AccountName, String), ExerciseError> {
    use nix::unistd::{Group, User, getegid, geteuid};
    let unknown = || ExerciseError::Account { uid: geteuid().as_raw() };
    let user = User::from_uid(geteuid()).ok().flatten().ok_or_else(unknown)?;
    let group = Group::from_gid(getegid()).ok().flatten().ok_or_else(unknown)?;
    Ok((user.name.parse().map_err(ExerciseError::Name)?, group.name))
}

/// `smkid.toml`: as for a live daemon, but that PINs lie in files.
fn configuration_text(
    scratch: &Path,
    socket: &Path,
    group: &str,
    softhsm: &SoftHsm,
    tokens: &[Token; 2],
    names: &Names,
    clock: Clock,
) -> String {
    let quoted = |path: &Path| toml::Value::String(text(path)).to_string();
    let token = |name: &str, token: &Token| {
        format!(
            "\n[[token]]\nname = \"{name}\"\nmodule = {}\nlabel = \"{}\"\nserial = \"{}\"\nenvironment = {{ \
             {CONFIGURATION_VARIABLE} = {} }}\npin = {{ file = {} }}\n",
            quoted(softhsm.module()),
            token.label,
            token.serial,
            quoted(softhsm.configuration()),
            quoted(&token.pin_file),
        )
    };
    let [ledger, recovery] = tokens;
    let [ledger, recovery] =
        [token(names.ledger_token.as_str(), ledger), token(names.recovery_token.as_str(), recovery)];
    let exercise = match clock.offset_ms() {
        0 => String::new(),
        set => format!("\n[exercise]\nclock_offset_ms = {set}\n"),
    };
    format!(
        "version = 1\nstate = {}\nsocket = {}\n\n[roles]\noperator = [{}]\n{ledger}{recovery}\n[ledger]\ntoken = \"{}\"\n\n\
         [limits]\nreserve_octets = {RESERVE_OCTETS}\n{exercise}",
        quoted(&scratch.join("state")),
        quoted(socket),
        toml::Value::String(group.to_owned()),
        names.ledger_token,
    )
}
