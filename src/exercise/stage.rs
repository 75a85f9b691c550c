//! Shell: the stage on which the exercise plays: scratch folder, tokens, lab PKI, people, policy, configuration.

use std::fs;
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret;

use super::clock::Clock;
use super::lab::{Lab, random};
use super::layout::{Layout, LayoutError, create_private, write_secret};
use super::people::{APPROVALS, CUSTODIANS, Credential, MEMBERS, People};
use super::policy::{self, Names};
use super::programs::Programs;
use super::softhsm::{CONFIGURATION_VARIABLE, SoftHsm, Token};
use super::tell::Teller;
use super::{ExerciseError, documents};
use crate::domain::certificates::SmkiCertificate;
use crate::domain::certificates::pem;
use crate::domain::names::{AccountName, Digest, TokenName};
use crate::domain::policy::{Activation, Policy};
use crate::domain::time::Timestamp;

/// Where people's keys lie, within the scratch folder, and what Key Custodians keep.
const PEOPLE: &str = "people";

/// What the Recovery token is labelled: a benchmark's limit program signs with no other.
pub const RECOVERY_LABEL: &str = "exercise-recovery";

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
    /// What opens the Recovery key.
    pub activation: Activation,
    /// Where the tokens are.
    pub softhsm: SoftHsm,
    /// The Recovery token, and the PIN that it was initialised with.
    pub recovery_token: Token,
    /// The token of the contingency keys, where there are any.
    pub contingency_token: Option<Token>,
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
    /// Sets it. `out` is where the layout goes; `activation` is what opens the Recovery key: Key Custodians, or for tests and benches a
    /// PIN that is stored.
    pub fn set(
        out: &Path,
        programs: Programs,
        clock: Clock,
        activation: Activation,
        teller: &mut Teller<'_>,
    ) -> Result<Self, ExerciseError> {
        Self::build(out, programs, clock, activation, false, teller)
    }

    /// The same with a token and two keys for contingency material; the PINs of all keys are stored.
    pub fn set_with_contingency(
        out: &Path,
        programs: Programs,
        clock: Clock,
        teller: &mut Teller<'_>,
    ) -> Result<Self, ExerciseError> {
        Self::build(out, programs, clock, Activation::Stored, true, teller)
    }

    fn build(
        out: &Path,
        programs: Programs,
        clock: Clock,
        activation: Activation,
        with_contingency: bool,
        teller: &mut Teller<'_>,
    ) -> Result<Self, ExerciseError> {
        let layout = Layout::create(out)?;
        // Short, for a socket's path has 107 octets at most; private, for it holds PINs.
        let scratch = tempfile::Builder::new().prefix("smkid-exercise-").tempdir().map_err(ExerciseError::Scratch)?;
        let now = clock.now();

        teller.step("The stage is set");
        let softhsm = SoftHsm::prepare(scratch.path())?;
        let [ledger_token, recovery_token] =
            [softhsm.make_token("exercise-ledger")?, softhsm.make_token(RECOVERY_LABEL)?];
        let contingency_token =
            with_contingency.then(|| softhsm.make_token_with_officer("exercise-contingency")).transpose()?;
        teller.good(if with_contingency {
            "Three PKCS#11 tokens in SoftHSM: for the ledger key, for the Recovery key, for contingency material."
        } else {
            "Two PKCS#11 tokens in SoftHSM: one for the ledger key, one for the Recovery key."
        });
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
            "{MEMBERS} members of the SMKI PMA, each with a key of their own; {APPROVALS} must approve. {CUSTODIANS} Key Custodians of as many \
             Parties, who sign with keys of their own too."
        ));

        create_private(&scratch.path().join(PEOPLE))?;
        for credential in people.credentials() {
            let path = |ending| scratch.path().join(format!("{PEOPLE}/{}.{ending}", credential.name));
            write_secret(&path("key.pem"), credential.key_pem.expose_secret().as_bytes())?;
            write_secret(&path("pem"), credential.certificate_pem.as_bytes())?;
        }
        let passphrase = hex::encode(random::<16>()?);
        write_secret(&scratch.path().join(format!("{PEOPLE}/passphrase")), passphrase.as_bytes())?;

        let (account, group) = whoever_runs_this()?;
        let mut files = policy::files(&lab, &people, &account, activation, now);
        if with_contingency {
            policy::add_contingency_keys(&mut files);
        }
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
        let mut tokens = vec![
            (&names.ledger_token, &ledger_token, true),
            (&names.recovery_token, &recovery_token, activation == Activation::Stored),
        ];
        tokens.extend(contingency_token.as_ref().map(|token| (&names.contingency_token, token, true)));
        let text = configuration_text(scratch.path(), &socket, &group, &softhsm, &tokens, &names, clock);
        if clock.is_set() {
            teller.good(&format!("The clock is set for this exercise: it is {now} here."));
        }
        write_secret(&configuration, text.as_bytes())?;
        let log = layout.path("smkid.log");
        Ok(Self {
            scratch,
            layout,
            programs,
            lab,
            people,
            names,
            policy,
            activation,
            softhsm,
            recovery_token,
            contingency_token,
            configuration,
            socket,
            log,
            clock,
        })
    }

    /// Now, by the exercise's clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A file that a person keeps.
    pub fn kept(&self, name: &str) -> PathBuf {
        self.scratch.path().join(PEOPLE).join(name)
    }

    /// What opens the share of the n-th Key Custodian, counted from 0: the argument of `smkictl`, and its file. The first has a
    /// passphrase; to the certificates of the others their shares are sealed.
    pub fn opens_share(&self, n: usize) -> (&'static str, PathBuf) {
        let name = &self.people.custodians[n].first.name;
        if n == 0 {
            ("--passphrase-file", self.kept("passphrase"))
        } else {
            ("--key-file", self.kept(&format!("{name}.key.pem")))
        }
    }

    /// Where the n-th Key Custodian keeps their share.
    pub fn share(&self, n: usize) -> PathBuf {
        self.kept(&format!("{}.share.pem", self.people.custodians[n].id))
    }

    /// A person signs a document, with `smkictl determination sign`. Answers the detached CMS signature.
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
}

/// Where a certificate lies.
pub fn certificate_path(layout: &Layout, name: &str) -> PathBuf {
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

/// `smkid.toml`: as for a live daemon. The PIN of a token that Key Custodians open is in no file: `false` stands beside it.
fn configuration_text(
    scratch: &Path,
    socket: &Path,
    group: &str,
    softhsm: &SoftHsm,
    tokens: &[(&TokenName, &Token, bool)],
    names: &Names,
    clock: Clock,
) -> String {
    let quoted = |path: &Path| toml::Value::String(text(path)).to_string();
    let token = |(name, token, has_pin): &(&TokenName, &Token, bool)| {
        let pin = if *has_pin { format!("pin = {{ file = {} }}\n", quoted(&token.pin_file)) } else { String::new() };
        format!(
            "\n[[token]]\nname = \"{name}\"\nmodule = {}\nlabel = \"{}\"\nserial = \"{}\"\nenvironment = {{ \
             {CONFIGURATION_VARIABLE} = {} }}\n{pin}",
            quoted(softhsm.module()),
            token.label,
            token.serial,
            quoted(softhsm.configuration()),
        )
    };
    let tokens = tokens.iter().map(token).collect::<String>();
    let exercise = match clock.offset_ms() {
        0 => String::new(),
        set => format!("\n[exercise]\nclock_offset_ms = {set}\n"),
    };
    format!(
        "version = 1\nstate = {}\nsocket = {}\n\n[roles]\noperator = [{}]\n{tokens}\n[ledger]\ntoken = \"{}\"\n\n\
         [limits]\nreserve_octets = {RESERVE_OCTETS}\n{exercise}",
        quoted(&scratch.join("state")),
        quoted(socket),
        toml::Value::String(group.to_owned()),
        names.ledger_token,
    )
}
