//! Shell: the ceremony of the exercise, which makes a ledger and a certified Recovery key of what stands on the stage. Where Key Custodians
//! open that key, it is held as in life: from a plan, by `smkictl ceremony run`, which rises for what must come from outside. Where its
//! PIN is stored, as in tests and benches, the single commands do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use super::ExerciseError;
use super::lab::Renewal;
use super::layout::{LayoutError, write_secret};
use super::people::MEMBERS;
use super::policy::PROPOSER;
use super::programs::ProgramError;
use super::stage::{Stage, certificate_path, read, text, write_certificate};
use super::tell::Teller;
use crate::api::failure::Exit;
use crate::domain::certificates::SmkiCertificate;
use crate::domain::certificates::apex::WrappedApexKey;
use crate::domain::certificates::pem;
use crate::domain::names::{Digest, KeyLabel};
use crate::domain::policy::Activation;

/// What a run of the plan answers to every question.
const ANSWERS: &str = "version = 1\npurpose = \"exercise\"\notherwise = \"as-expected\"\n";
/// What the ceremony makes that others look for in `keys/`.
const KEYS: [&str; 6] = ["genesis", "keys.json", "ledger.pem", "ledger.vkey", "recovery.csr", "recovery.pem"];

/// What had to be refused, and the reasons if it was.
pub type Tried = Vec<(&'static str, Option<Vec<String>>)>;

/// What was said to whoever was refused; none if they were not.
fn said_no(output: &Output) -> Option<Vec<String>> {
    let is_refused = output.status.code() == Some(i32::from(Exit::Refused.status()));
    let said = String::from_utf8_lossy(&output.stderr);
    // One line of what a terminal shows as several.
    is_refused.then(|| vec![said.split_whitespace().collect::<Vec<_>>().join(" ")])
}

fn ended_well(output: &Output) -> Result<(), ExerciseError> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(ProgramError::Failed { command: "smkictl ceremony import-root".to_owned(), status: output.status, said }.into())
}

impl Stage {
    /// The ceremony: keys, adoption signed by everyone, the ledger, the Recovery certificate; and shares, if Key Custodians open the key.
    /// Answers the certificate, and the genesis hash.
    pub async fn ceremony(&self, teller: &mut Teller<'_>) -> Result<(SmkiCertificate, Digest), ExerciseError> {
        match self.activation {
            Activation::Custodians => self.ceremony_of_plan(teller).await,
            Activation::Stored | Activation::ProtectedPath => self.ceremony_of_commands(teller).await,
        }
    }

    async fn ceremony_of_plan(&self, teller: &mut Teller<'_>) -> Result<(SmkiCertificate, Digest), ExerciseError> {
        teller.step("The ceremony: keys, a ledger, its first policy, shares, a certified Recovery key");
        let plan = self.plan().await?;
        teller.good(
            "The plan names every key, person and share beforehand; `smkictl ceremony run` goes through it. Its questions are answered from a \
             file, as in an exercise only.",
        );
        self.run(&plan, Exit::Partly).await?;
        teller.good(
            "The key pairs are made on their tokens, where they stay: sensitive, never extractable, sign only. The ceremony rises for \
             signatures.",
        );
        let document = read(&self.layout.path("ceremony/adoption.json"))?;
        for member in &self.people.members {
            let p7s = self.sign(&document, &member.first).await?;
            self.layout.write(&format!("ceremony/adoption.{}.p7s", member.id), p7s)?;
        }
        self.run(&plan, Exit::Partly).await?;
        let genesis = self.genesis("ceremony/genesis")?;
        teller.good(&format!("All {MEMBERS} members signed the adoption of the policy; the ledger begins with it."));
        teller.fact("genesis", &genesis.to_string());
        let recovery = self.certify("ceremony/recovery.csr")?;
        self.take_shares(teller).await?;
        self.run(&plan, Exit::Done).await?;
        teller
            .good("The Recovery key's request was recorded before it was signed; the lab's Issuing OCA certified it.");
        teller.fact("Recovery", &recovery.kind().to_string());
        teller.good("The ledger has plan and transcript of the ceremony, whose minutes are ready to be signed.");
        for name in KEYS {
            self.layout.write(&format!("keys/{name}"), read(&self.layout.path(&format!("ceremony/{name}")))?)?;
        }
        for left in [self.layout.path("ceremony/lock"), self.recovery_token.pin_file.clone()] {
            fs::remove_file(&left).map_err(LayoutError::at(&left))?;
        }
        Ok((recovery, genesis))
    }

    /// Writes the plan, and completes it as its reviewers would.
    async fn plan(&self) -> Result<PathBuf, ExerciseError> {
        let (config, policy) = (text(&self.configuration), text(&self.layout.path("policy")));
        let (draft, plan) = (self.scratch.path().join("plan.toml"), self.layout.path("ceremony/plan.toml"));
        let written = text(&draft);
        let mut arguments = vec!["ceremony", "plan", "--policy", &policy, "--config", &config, "--out", &written];
        arguments.extend(["--conductor", PROPOSER, "--witness", "member-2", "--witness", "member-3"]);
        self.programs.smkictl(&self.socket, &arguments).await?;
        let mut drafted = String::from_utf8_lossy(&read(&draft)?).into_owned();
        let quoted = |path: &Path| toml::Value::String(text(path)).to_string();
        let mut completed = vec![
            ("\"to be written: room, building, town\"".to_owned(), "\"a folder of this machine\"".to_owned()),
            ("out = \"ceremony\"".to_owned(), format!("out = {}", quoted(&self.layout.path("ceremony")))),
        ];
        for (planned, name) in
            [(self.names.recovery_key.as_str(), "recovery"), ("issuing-oca", "issuing-oca"), ("root-oca", "root-oca")]
        {
            let path = quoted(&certificate_path(&self.layout, name));
            completed.push((format!("\"certificates/{planned}.pem\""), path));
        }
        for (n, custodian) in self.people.custodians.iter().enumerate() {
            if let ("--key-file", _) = self.opens_share(n) {
                let certificate = quoted(&self.kept(&format!("{}.pem", custodian.first.name)));
                let holder = format!("person = \"{}\"", custodian.id);
                let sealed = format!("certificate = {certificate}, spki = \"{}\"", custodian.first.spki);
                completed.push((format!("{holder} }}"), format!("{holder}, {sealed} }}")));
            }
        }
        for (from, to) in completed {
            if drafted.matches(&from).count() != 1 {
                return Err(ExerciseError::Plan { expected: from });
            }
            drafted = drafted.replace(&from, &to);
        }
        write_secret(&self.scratch.path().join("answers.toml"), ANSWERS.as_bytes())?;
        Ok(self.layout.write("ceremony/plan.toml", drafted).map(|_| plan)?)
    }

    /// Goes through the plan as far as it can be gone.
    async fn run(&self, plan: &Path, exit: Exit) -> Result<(), ExerciseError> {
        let (plan, answers) = (text(plan), text(&self.scratch.path().join("answers.toml")));
        let pin = format!("{}={}", self.names.recovery_token, text(&self.recovery_token.pin_file));
        let passphrases = self.people.custodians.iter().enumerate().filter_map(|(n, custodian)| {
            let (argument, file) = self.opens_share(n);
            (argument == "--passphrase-file").then(|| format!("{}={}", custodian.id, text(&file)))
        });
        let passphrases: Vec<String> = passphrases.collect();
        let mut arguments = vec!["ceremony", "run", &plan, "--unattended", &answers, "--pin-file", &pin];
        for passphrase in &passphrases {
            arguments.extend(["--passphrase-file", passphrase]);
        }
        self.programs.smkictl_ending(&self.socket, &arguments, i32::from(exit.status())).await?;
        Ok(())
    }

    /// Each Key Custodian takes their share away, and a copy of the custody file; who can without a passphrase at a terminal looks at
    /// once whether it opens.
    async fn take_shares(&self, teller: &mut Teller<'_>) -> Result<(), ExerciseError> {
        let key = &self.names.recovery_key;
        let sealed = self.layout.path(&format!("ceremony/shares/{key}.1.json"));
        for (n, custodian) in self.people.custodians.iter().enumerate() {
            let (dealt, taken) =
                (self.layout.path(&format!("ceremony/shares/{key}.1.share-{}.pem", n + 1)), self.share(n));
            write_secret(&taken, &read(&dealt)?)?;
            fs::remove_file(&dealt).map_err(LayoutError::at(&dealt))?;
            let copy = self.kept(&format!("{}.custody.json", custodian.id));
            write_secret(&copy, &read(&sealed)?)?;
            let (argument, file) = self.opens_share(n);
            if argument == "--key-file" {
                let (share, copy, file) = (text(&taken), text(&copy), text(&file));
                let check = ["custodian", "check", "--share", &share, "--custody", &copy, argument, &file];
                self.programs.smkictl(&self.socket, &check).await?;
            }
        }
        let folder = self.layout.path("ceremony/shares");
        fs::remove_file(&sealed).map_err(LayoutError::at(&sealed))?;
        fs::remove_dir(&folder).map_err(LayoutError::at(&folder))?;
        let (need, of) = (self.policy.custodians().threshold, self.people.custodians.len());
        teller.good(&format!(
            "The Recovery token has a new PIN that nobody knows. What opens it is split among {of} Key Custodians, any {need} of whom open it: \
             the first share lies under a passphrase, the others are sealed to certificates. Each took theirs away."
        ));
        Ok(())
    }

    async fn ceremony_of_commands(&self, teller: &mut Teller<'_>) -> Result<(SmkiCertificate, Digest), ExerciseError> {
        teller.step("The ceremony: keys, a ledger, its first policy, a certified Recovery key");
        let (config, policy) = (text(&self.configuration), text(&self.layout.path("policy")));
        let (keys, adoption) = (text(&self.layout.path("keys")), text(&self.layout.path("documents/adoption.json")));
        let smkictl = async |arguments: &[&str]| self.programs.smkictl(&self.socket, arguments).await;

        smkictl(&["ceremony", "keys", "--config", &config, "--policy", &policy, "--out", &keys]).await?;
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
        let genesis = self.genesis("keys/genesis")?;
        teller.good(&format!("All {MEMBERS} members signed the adoption of the policy; the ledger begins with it."));
        teller.fact("genesis", &genesis.to_string());

        let label = self.names.recovery_key.as_str();
        smkictl(&["ceremony", "request", "--config", &config, "--key", label, "--out", &keys]).await?;
        let recovery = self.certify("keys/recovery.csr")?;
        let [certificate, issuing, root] =
            ["recovery", "issuing-oca", "root-oca"].map(|name| text(&certificate_path(&self.layout, name)));
        let mut import = vec!["ceremony", "import", "--config", &config, "--key", label, "--certificate", &certificate];
        import.extend(["--chain", &issuing, "--chain", &root]);
        smkictl(&import).await?;
        teller.fact("Recovery", &recovery.kind().to_string());
        Ok((recovery, genesis))
    }

    /// Two generations of contingency material, on a token that the security officer prepares: the Root OCA issues its certificate again with
    /// the first one's wrapped key inside, and a Root that shall replace it is made with the next one's. Answers that, and what had to be
    /// refused.
    pub async fn contingency(
        &mut self,
        recovery: &SmkiCertificate,
        teller: &mut Teller<'_>,
    ) -> Result<(Renewal, Tried), ExerciseError> {
        teller.step("The ceremony: contingency material of two generations, each carried by a Root OCA Certificate");
        let [held, next] = self.names.contingency_keys.clone();
        let wrapped = self.make_contingency(&held).await?;
        let without = self.import_root(&held, &certificate_path(&self.layout, "root-oca")).await?;
        self.lab.carry(wrapped)?;
        let carrying = write_certificate(&self.layout, "held/root-oca", self.lab.root_oca())?;
        ended_well(&self.import_root(&held, &carrying).await?)?;

        let wrapped = self.make_contingency(&next).await?;
        let renewal = self.lab.renew(Some(wrapped), recovery)?;
        let next_root = write_certificate(&self.layout, "next/root-oca", renewal.root_oca())?;
        for (name, certificate) in [("issuing-oca", renewal.issuing_oca()), ("recovery", renewal.recovery())] {
            write_certificate(&self.layout, &format!("next/{name}"), certificate)?;
        }
        for (cell, certificate) in super::lab::CELLS.iter().zip(renewal.credentials()) {
            write_certificate(&self.layout, &format!("next/{}", cell.name), certificate)?;
        }
        let other = self.import_root(&next, &carrying).await?;
        ended_well(&self.import_root(&next, &next_root).await?)?;
        teller.good(
            "Each key pair has its Contingency Symmetric Key and the trusted key that alone wraps it; the token wrapped the public half for its Root \
             OCA Certificate, and unwrapped it again from the certificate that came back.",
        );
        let tried = vec![
            ("Importing a Root OCA Certificate without the wrapped key", said_no(&without)),
            ("Importing the Root OCA Certificate of another contingency key", said_no(&other)),
        ];
        Ok((renewal, tried))
    }

    /// What stands beside one contingency key. Answers the wrapped public half, as the Root OCA's operator gets it.
    async fn make_contingency(&self, key: &KeyLabel) -> Result<WrappedApexKey, ExerciseError> {
        let officer = self.contingency_token.as_ref().and_then(|token| token.so_pin_file.as_ref());
        let officer = officer.ok_or(ExerciseError::NoContingency)?;
        let officer = format!("{}={}", self.names.contingency_token, text(officer));
        let (config, keys) = (text(&self.configuration), text(&self.layout.path("keys")));
        let arguments = ["ceremony", "contingency", "--config", &config, "--key", key.as_str(), "--out", &keys];
        let arguments = [&arguments[..], &["--so-pin-file", &officer]].concat();
        self.programs.smkictl(&self.socket, &arguments).await?;
        Ok(WrappedApexKey::from_der(&read(&self.layout.path(&format!("keys/{key}.wrapped-apex.der")))?)?)
    }

    async fn import_root(&self, key: &KeyLabel, root: &Path) -> Result<Output, ExerciseError> {
        let (config, root) = (text(&self.configuration), text(root));
        let arguments = ["ceremony", "import-root", "--config", &config, "--key", key.as_str(), "--root", &root];
        Ok(self.programs.try_smkictl(&self.socket, &arguments).await?)
    }

    fn genesis(&self, name: &str) -> Result<Digest, ExerciseError> {
        String::from_utf8_lossy(&read(&self.layout.path(name))?).trim().parse().map_err(ExerciseError::Name)
    }

    /// The lab's Issuing OCA certifies the Recovery key by its request.
    fn certify(&self, request: &str) -> Result<SmkiCertificate, ExerciseError> {
        let request = read(&self.layout.path(request))?;
        let request = String::from_utf8_lossy(&request);
        let block = pem::blocks(&request)?.into_iter().next();
        let request = block.ok_or(ExerciseError::NoRequest)?.decode()?;
        let recovery = self.lab.certify_recovery(&request, self.names.recovery_party)?;
        write_certificate(&self.layout, "recovery", &recovery)?;
        Ok(recovery)
    }
}
