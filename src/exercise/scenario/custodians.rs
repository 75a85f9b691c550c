//! Shell: the Key Custodians of a story: each states what the Recovery key is opened for, signs that, and presents their share at a
//! console; and what is refused until enough of them did.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Instant;

use rustix::process::Pid;
use zeroize::Zeroizing;

use super::{ExerciseError, POLL, Play};
use crate::api::client::Client;
use crate::api::failure::Exit;
use crate::api::wire::{self, Base64};
use crate::custody::present::{self, Purpose};
use crate::custody::scheme::Share;
use crate::custody::share_file;
use crate::domain::custody::Statement;
use crate::domain::determination::document::Written;
use crate::domain::names::IncidentId;
use crate::exercise::documents::DocumentError;
use crate::exercise::layout::LayoutError;
use crate::exercise::programs::is_vault;
use crate::exercise::stage::{read, text};
use crate::exercise::summary::Opening;
use crate::hsm::one_time::SealTo;

/// For how many hours a statement holds.
const HOURS: &str = "4";
/// How long a vault may take to end with its daemon.
const VAULT_END_MAX: std::time::Duration = std::time::Duration::from_secs(10);

/// A statement that was signed.
struct Stated {
    /// Which Key Custodian, from 0.
    by: usize,
    statement: PathBuf,
    signature: PathBuf,
}

impl Stated {
    /// As it is sent.
    fn ask(&self) -> Result<wire::Present, ExerciseError> {
        Ok(wire::Present { statement: Base64(read(&self.statement)?), signature: Base64(read(&self.signature)?) })
    }
}

impl Play<'_, '_> {
    /// These Key Custodians present for an incident, under that determination, and the key is activated with them. Where it is active for
    /// another, it is locked first.
    pub(super) async fn open_key(
        &mut self,
        client: &Client,
        incident: &IncidentId,
        determination: &Path,
        custodians: &[usize],
    ) -> Result<(), ExerciseError> {
        let key = &self.stage.names.recovery_key;
        self.carrier(client, incident.clone()).lock_for_another(key).await?;
        for n in custodians {
            let stated = self.state(*n, determination).await?;
            self.present(client, &stated).await?;
        }
        self.activate(client, incident, custodians).await
    }

    /// The key is activated with those who presented.
    async fn activate(
        &mut self,
        client: &Client,
        incident: &IncidentId,
        custodians: &[usize],
    ) -> Result<(), ExerciseError> {
        let key = &self.stage.names.recovery_key;
        let changed = self.carrier(client, incident.clone()).activate(key).await?;
        let until = changed.key.until.map(|until| until.to_string()).unwrap_or_default();
        self.teller
            .good(&format!("Key {key} can be used for {incident} alone, until {until}, entry {}.", changed.entry));
        let people = &self.stage.people.custodians;
        let custodians = custodians.iter().map(|n| people[*n].id.clone()).collect();
        self.summary.openings.push(Opening { incident: incident.clone(), entry: changed.entry, custodians });
        Ok(())
    }

    /// The key is opened for the first time, and what is refused on the way.
    pub(super) async fn open_first(&mut self, client: &Client, determination: &Path) -> Result<(), ExerciseError> {
        self.teller.step("Key Custodians open the Recovery key");
        self.teller.say(
            "Each writes a statement of incident, determination, key and hours, signs it with a key of their own, and presents their share by \
             `smkictl custodian present`. It leaves the console sealed to the vault, the one process that puts shares together; the daemon has \
             none.",
        );
        self.must_not_open(client, "Activating the key while no Key Custodian is there").await?;
        let first = self.state(0, determination).await?;
        self.present(client, &first).await?;
        self.must_not_open(client, "Activating the key with one Key Custodian too few").await?;
        let path = self.presentations();
        self.must_refuse(client, &path, &first.ask()?, "A Key Custodian's statement that was presented before").await?;

        let second = self.state(1, determination).await?;
        let others = self.present_arguments(&second, 2);
        let output = self.stage.programs.try_smkictl(&self.stage.socket, &others).await?;
        self.attempted("A Key Custodian who brings another's share", said_no(&output, Exit::Unverified));
        let second = self.state(1, determination).await?;
        self.present_altered(client, &second).await?;

        let second = self.state(1, determination).await?;
        self.present(client, &second).await?;
        let incident = self.incident.clone();
        self.activate(client, &incident, &[0, 1]).await
    }

    /// The key is not opened, for nobody presented since its daemon was killed; and the vault that held shares is gone.
    pub(super) async fn must_present_anew(&mut self, client: &Client, vaults: &[Pid]) -> Result<(), ExerciseError> {
        let begun = Instant::now();
        while vaults.iter().any(|vault| is_vault(*vault)) && begun.elapsed() < VAULT_END_MAX {
            tokio::time::sleep(POLL).await;
        }
        let ended = !vaults.is_empty() && !vaults.iter().any(|vault| is_vault(*vault));
        self.expect(
            ended,
            "The vault, the one process that had the shares, ended with the daemon: none is left on this machine.",
            "expected one vault beside the daemon, which ends with it; found none, or one that goes on",
        );
        self.must_not_open(client, "Activating the key after the kill, without the Key Custodians").await
    }

    /// There is nothing that a Key Custodian could state under that determination.
    pub(super) async fn must_not_state(
        &mut self,
        determination: &Path,
        what: &'static str,
    ) -> Result<(), ExerciseError> {
        let stage = self.stage;
        let (determination, out) = (text(determination), text(&stage.scratch.path().join("no-statement.json")));
        let person = stage.people.custodians[0].id.as_str();
        let arguments =
            ["custodian", "statement", "--person", person, "--determination", &determination, "--out", &out];
        let output = stage.programs.try_smkictl(&stage.socket, &arguments).await?;
        self.attempted(what, said_no(&output, Exit::Local));
        Ok(())
    }

    async fn must_not_open(&mut self, client: &Client, what: &'static str) -> Result<(), ExerciseError> {
        let path = format!("/v1/keys/{}/activate", self.stage.names.recovery_key);
        let ask = wire::KeyActivate { incident: self.incident.clone() };
        self.must_refuse(client, &path, &ask, what).await
    }

    fn presentations(&self) -> String {
        format!("/v1/keys/{}/presentations", self.stage.names.recovery_key)
    }

    /// The n-th Key Custodian writes a statement and signs it. Both are left behind.
    async fn state(&mut self, n: usize, determination: &Path) -> Result<Stated, ExerciseError> {
        let stage = self.stage;
        let custodian = &stage.people.custodians[n];
        self.statements += 1;
        let (stem, written) = (format!("documents/custody/{:02}", self.statements), stage.kept("statement.json"));
        let (determination, out) = (text(determination), text(&written));
        let arguments =
            ["custodian", "statement", "--person", custodian.id.as_str(), "--determination", &determination];
        let arguments = [&arguments[..], &["--hours", HOURS, "--out", &out]].concat();
        stage.programs.smkictl(&stage.socket, &arguments).await?;
        let octets = read(&written)?;
        std::fs::remove_file(&written).map_err(LayoutError::at(&written))?;
        let statement = stage.layout.write(&format!("{stem}.json"), &octets)?;
        let p7s = stage.sign(&octets, &custodian.first).await?;
        let signature = stage.layout.write(&format!("{stem}.{}.p7s", custodian.id), p7s)?;
        Ok(Stated { by: n, statement, signature })
    }

    /// The arguments by which a Key Custodian presents the share of the n-th.
    fn present_arguments(&self, stated: &Stated, n: usize) -> Vec<String> {
        let (argument, file) = self.stage.opens_share(n);
        let key = self.stage.names.recovery_key.as_str();
        let paths = [&self.stage.share(n), &stated.statement, &stated.signature, &file].map(|path| text(path));
        let [share, statement, signature, file] = paths.each_ref().map(String::as_str);
        let arguments = ["custodian", "present", key, "--share", share, "--statement", statement];
        let arguments = arguments.into_iter().chain(["--signature", signature, argument, file]);
        arguments.map(str::to_owned).collect()
    }

    /// A Key Custodian presents their own share, by `smkictl custodian present`.
    async fn present(&mut self, client: &Client, stated: &Stated) -> Result<(), ExerciseError> {
        let arguments = self.present_arguments(stated, stated.by);
        self.stage.programs.smkictl(&self.stage.socket, &arguments).await?;
        let status: wire::Status = client.get("/v1/status").await?;
        let of_key = status.keys.into_iter().find(|key| key.key == self.stage.names.recovery_key);
        let person = &self.stage.people.custodians[stated.by].id;
        let custody = of_key.and_then(|key| key.custody);
        let stands = custody.as_ref().and_then(|custody| {
            let one = custody.presented.iter().find(|one| one.person == *person)?;
            Some((custody, one))
        });
        let good = stands.map_or_else(String::new, |(custody, one)| {
            let share = one.share.as_ref().map(ToString::to_string).unwrap_or_default();
            format!(
                "{person} of {} stated what for, and presented {share}: {} of {} Key Custodians, of {} of {} Parties.",
                one.party, custody.have, custody.need, custody.parties, custody.parties_need
            )
        });
        self.expect(stands.is_some(), &good, &format!("{person} presented, and does not count"));
        Ok(())
    }

    /// A Key Custodian brings a share of which one bit is flipped, past the check at the console.
    async fn present_altered(&mut self, client: &Client, stated: &Stated) -> Result<(), ExerciseError> {
        let path = self.presentations();
        let begun: wire::PresentationBegun = client.post(&path, &stated.ask()?).await?;
        let wanted = begun.share.ok_or(ExerciseError::NoShareWanted)?;
        let statement: Written<Statement> = Written::read(read(&stated.statement)?).map_err(DocumentError::Faults)?;
        let form = statement.form();
        let (_, key_file) = self.stage.opens_share(stated.by);
        let [share, key_file] = [self.stage.share(stated.by), key_file].map(|path| secret(&path));
        let (share, key_file) = (share?, key_file?);
        let mut scalar = share_file::scalar(&share, Some(&key_file), || Err(std::io::ErrorKind::Unsupported.into()))?;
        scalar[31] ^= 1;
        let altered = Share::new(wanted.index, scalar)?;
        let purpose = Purpose {
            origin: form.ledger.origin.clone(),
            key: form.key.label.clone(),
            generation: wanted.generation,
            incident: form.incident.clone(),
            statement: statement.digest(),
        };
        let seal_to = SealTo::from_octets(&wanted.seal_to.0).ok_or(ExerciseError::NoShareWanted)?;
        let sealed = present::seal(&altered, &purpose, &seal_to).map_err(|_| ExerciseError::NoShareWanted)?;
        let ask = wire::SealedShare { sealed: Base64(sealed) };
        self.must_refuse(client, &format!("{path}/{}", wanted.presentation), &ask, "A share that was altered").await
    }
}

/// What a program that had to refuse said, if it ended so.
fn said_no(output: &Output, exit: Exit) -> Option<Vec<String>> {
    let is_refused = output.status.code() == Some(i32::from(exit.status()));
    is_refused.then(|| vec![String::from_utf8_lossy(&output.stderr).trim().to_owned()])
}

/// A file that nobody else may read.
fn secret(path: &Path) -> Result<Zeroizing<String>, ExerciseError> {
    Ok(Zeroizing::new(String::from_utf8_lossy(&Zeroizing::new(read(path)?)).into_owned()))
}
