//! The custodians in the room: who they are, what they type, and the share files that they bring and take away.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::super::{CeremonyError, Custodians};
use super::DealError;
use crate::cli::member::{Ask as _, Terminal, files};
use crate::custody::file::CustodyFile;
use crate::custody::scheme::{SCALAR_LEN, SealingSecret, Share};
use crate::custody::share_file::{self, PASSPHRASE_LEN_MIN, ShareFileError, Title, check_passphrase};
use crate::domain::certificates::Certificate;
use crate::domain::fold::Fold;
use crate::domain::ledger::custody::{Holder, Sealed, SharesDealt};
use crate::domain::ledger::entry::Reason;
use crate::domain::names::{Digest, KeyLabel, PersonId, Purpose};
use crate::hsm::signer::SignerError;
use crate::service::start::StartFault;

/// How often two passphrases may differ before it is given up.
const TYPED_MAX: u32 = 3;

/// `PERSON=FILE`.
pub fn of_person(text: &str) -> Result<(PersonId, PathBuf), String> {
    let (person, path) = text.split_once('=').ok_or_else(|| format!("expected PERSON=FILE, found {text:?}"))?;
    Ok((person.parse().map_err(|error: crate::domain::names::NameError| error.to_string())?, path.into()))
}

/// What is known of the custodians before anybody is asked.
pub struct People {
    certificates: BTreeMap<PersonId, Certificate>,
    key_files: BTreeMap<PersonId, Zeroizing<String>>,
    passphrase_files: BTreeMap<PersonId, PathBuf>,
    shares: Vec<(PersonId, PathBuf, Zeroizing<String>)>,
}

impl People {
    /// Reads the files that were named. Passphrases from files are refused unless this is an exercise.
    pub fn gather(
        brought: &Custodians,
        to: &[(PersonId, PathBuf)],
        purpose: Option<Purpose>,
    ) -> Result<Self, DealError> {
        if !brought.passphrase_files.is_empty() && purpose != Some(Purpose::Exercise) {
            return Err(DealError::PassphraseFile(purpose.unwrap_or(Purpose::Live)));
        }
        let mut certificates = BTreeMap::new();
        for (person, path) in to {
            certificates.insert(person.clone(), files::read_certificates(path)?.0);
        }
        let mut key_files = BTreeMap::new();
        for (person, path) in &brought.key_files {
            key_files.insert(person.clone(), files::read_text(path, files::PEM_LEN_MAX)?);
        }
        let mut shares = Vec::new();
        for (person, path) in &brought.shares {
            shares.push((person.clone(), path.clone(), files::read_text(path, share_file::FILE_LEN_MAX)?));
        }
        Ok(Self {
            certificates,
            key_files,
            passphrase_files: brought.passphrase_files.iter().cloned().collect(),
            shares,
        })
    }

    /// To which certificate this person's share is sealed; none under a passphrase.
    pub fn certificate(&self, person: &PersonId) -> Option<&Certificate> {
        self.certificates.get(person)
    }

    /// Whose shares are sealed to which key.
    pub fn keys(&self) -> impl Iterator<Item = (PersonId, Digest)> {
        self.certificates.iter().map(|(person, certificate)| (person.clone(), certificate.spki_sha256()))
    }

    /// The same, as the ledger says it.
    pub fn sealed_to(&self, person: &PersonId) -> Sealed {
        self.certificate(person)
            .map_or(Sealed::Passphrase, |certificate| Sealed::Certificate(certificate.spki_sha256()))
    }

    /// Everybody who was named must have a part in it: who takes a share, and who brings one of a generation that there is.
    pub fn check(&self, taking: &[Holder], bringing: &[&SharesDealt]) -> Result<(), DealError> {
        let takes = |person: &PersonId| taking.iter().any(|holder| holder.person == *person);
        let brings = |person: &PersonId| {
            bringing.iter().any(|dealt| dealt.holders.iter().any(|holder| holder.person == *person))
        };
        let strangers = self
            .certificates
            .keys()
            .filter(|person| !takes(person))
            .chain(self.shares.iter().map(|(person, ..)| person).filter(|person| !brings(person)))
            .chain(self.key_files.keys().filter(|person| !brings(person)))
            .chain(self.passphrase_files.keys().filter(|person| !takes(person) && !brings(person)));
        match strangers.into_iter().next() {
            Some(person) => Err(DealError::Stranger { person: person.clone() }),
            None => Ok(()),
        }
    }

    /// Writes the share of a custodian, who chooses a passphrase now unless there is a certificate.
    pub fn write_share(
        &self,
        share: &Share,
        holder: &Holder,
        (key, generation): (&KeyLabel, u32),
        path: &Path,
    ) -> Result<(), DealError> {
        let title = Title { key, generation, share: &holder.share, person: &holder.person };
        let fault = |source| DealError::Share { path: path.to_owned(), source: Box::new(source) };
        let (octets, passphrase) = if let Some(certificate) = self.certificate(&holder.person) {
            (share_file::to_certificate(share, &title, certificate), None)
        } else {
            let passphrase = self.choose(holder)?;
            (share_file::under_passphrase(share, &title, &passphrase), Some(passphrase))
        };
        let octets = octets.map_err(fault)?;
        files::write_new(path, &octets)?;
        // Before any token follows it: under a passphrase it opens as it lies there; of one for a certificate only its octets can be compared,
        // for the key that opens it is the custodian's.
        let text = files::read_text(path, share_file::FILE_LEN_MAX)?;
        let is_same = match passphrase {
            Some(passphrase) => {
                let opened = share_file::open(&text, holder.index, None, || Ok(passphrase)).map_err(fault)?;
                opened.octets() == share.octets()
            }
            None => text.as_bytes() == octets.as_slice(),
        };
        if is_same { Ok(()) } else { Err(DealError::ReadBack { path: path.to_owned(), person: holder.person.clone() }) }
    }

    /// A new passphrase, typed twice by the custodian.
    fn choose(&self, holder: &Holder) -> Result<SecretString, DealError> {
        let person = &holder.person;
        if let Some(passphrase) = self.passphrase_file(person)? {
            return Ok(passphrase);
        }
        let asking = |source| DealError::Asking { person: person.clone(), source };
        for _ in 0..TYPED_MAX {
            let share = &holder.share;
            let typed =
                ask(&format!(
                "{person}, choose a passphrase of at least {PASSPHRASE_LEN_MIN} characters for {share} (nobody else looks): "
            )).map_err(asking)?;
            if let Err(error) = check_passphrase(&typed) {
                eprintln!("{error}");
                continue;
            }
            let again = ask(&format!("{person}, the same again: ")).map_err(asking)?;
            if typed.expose_secret() == again.expose_secret() {
                return Ok(typed);
            }
            eprintln!("These two differ.");
        }
        Err(DealError::Differ { person: person.clone() })
    }

    fn passphrase_file(&self, person: &PersonId) -> Result<Option<SecretString>, DealError> {
        Ok(self.passphrase_files.get(person).map(|path| files::read_secret(path)).transpose()?)
    }

    /// Opens a share that was brought. A passphrase that was typed wrongly is typed again.
    fn open_share(
        &self,
        person: &PersonId,
        path: &Path,
        text: &Zeroizing<String>,
    ) -> Result<Zeroizing<[u8; SCALAR_LEN]>, DealError> {
        let mut typed = 0;
        loop {
            let from_file = self.passphrase_file(person)?;
            let opened = share_file::scalar(text, self.key_files.get(person), || {
                if let Some(passphrase) = from_file {
                    Ok(passphrase)
                } else {
                    typed += 1;
                    ask(&format!("{person}, the passphrase of {}: ", path.display()))
                }
            });
            match opened {
                Ok(scalar) => return Ok(scalar),
                Err(ShareFileError::Key(SignerError::WrongPassphrase)) if (1..TYPED_MAX).contains(&typed) => {
                    eprintln!("That passphrase does not open it. Once more.");
                }
                Err(source) => return Err(DealError::Share { path: path.to_owned(), source: Box::new(source) }),
            }
        }
    }

    /// Opens the shares that were brought, each with the generation in which it fits.
    pub fn open_shares(&self, sets: &[&CustodyFile]) -> Result<Brought, DealError> {
        let mut brought = Brought(BTreeMap::new());
        for (person, path, text) in &self.shares {
            let scalar = self.open_share(person, path, text)?;
            let mut fits = None;
            for set in sets {
                let commitments = set.commitments()?;
                for holder in set.holders.iter().filter(|holder| holder.person == *person) {
                    let share = Share::new(holder.index, scalar.clone())?;
                    if commitments.fit(&share) {
                        fits = Some((set.generation, share));
                    }
                }
            }
            let Some((generation, share)) = fits else {
                let generations: Vec<String> = sets.iter().map(|set| set.generation.to_string()).collect();
                let generation = generations.join(" or ");
                return Err(DealError::Foreign { path: path.clone(), person: person.clone(), generation });
            };
            brought.0.entry(generation).or_default().push((person.clone(), share));
        }
        Ok(brought)
    }
}

/// Asks without echo, on the terminal only.
fn ask(prompt: &str) -> std::io::Result<SecretString> {
    if !Terminal.is_there() {
        return Err(std::io::Error::other("there is no terminal; run this at the console"));
    }
    Terminal.secret(prompt)
}

/// The shares that were brought, by generation.
pub struct Brought(BTreeMap<u32, Vec<(PersonId, Share)>>);

impl Brought {
    /// Who brought shares of a generation, each once.
    pub fn persons(&self, generation: u32) -> Vec<PersonId> {
        let persons = self.0.get(&generation).into_iter().flatten().map(|(person, _)| person.clone());
        persons.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Whether those who brought shares are enough, and of enough Parties: no Party opens a key by itself, at a ceremony neither.
    pub fn check(&self, fold: &Fold, of: &SharesDealt) -> Result<(), CeremonyError> {
        let (facts, adopted) = fold.keys().get(&of.key).zip(fold.policy()).ok_or(StartFault::NoLedgerKey)?;
        let have = self.0.get(&of.generation).map_or(0, Vec::len);
        let need = usize::try_from(of.threshold).unwrap_or(usize::MAX);
        if have < need {
            let (key, generation) = (of.key.clone(), of.generation);
            return Err(DealError::TooFew { key, generation, have, need }.into());
        }
        let enough = facts.are_enough(&adopted.policy, of, &self.persons(of.generation));
        enough.map_err(|fault| {
            CeremonyError::Refused(vec![Reason { rule: "deal".into(), text: fault.to_string().into() }])
        })
    }

    /// Puts the shares of a generation together.
    pub fn secret(&self, file: &CustodyFile) -> Result<SealingSecret, DealError> {
        let shares = self.0.get(&file.generation).map_or(&[][..], Vec::as_slice);
        let shares: Vec<Share> = shares.iter().map(|(_, share)| share.clone()).collect();
        let commitments = file.commitments()?;
        commitments.combine(&shares).map_err(|error| match error {
            crate::custody::scheme::SchemeError::TooFew { have, need } => {
                DealError::TooFew { key: file.key.clone(), generation: file.generation, have, need }
            }
            error => error.into(),
        })
    }
}
