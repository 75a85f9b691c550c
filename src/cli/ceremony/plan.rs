//! The plan of a key ceremony: one TOML file that people review before anybody comes to the room.
//!
//! All that the ceremony will make or touch stands in it before it exists: each key with its `CKA_ID` and attributes, who is
//! there and as what, who keeps which share, under which policy. So whatever an interruption leaves on a token has its name here.

mod check;
mod template;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::CeremonyError;
use super::contingency::Ids;
use crate::cli::input;
use crate::domain::determination::people::Role;
use crate::domain::determination::prose::Prose;
pub use crate::domain::ledger::ceremonies::{Capacity, CeremonyKind as Kind};
use crate::domain::names::{Digest, KeyId, KeyLabel, KeyUse, Origin, PersonId, Purpose, ShareName, TokenName};

pub use check::{Against, check};
pub use template::{Beginnings, template};

/// The version that this program reads.
const VERSION: u32 = 1;
/// A plan with a hundred people takes a tenth of it.
const PLAN_LEN_MAX: u64 = 256 * 1024;
/// How a plan says that its place is still to be written.
const PLACE_OPEN: &str = "to be written";
/// What each private key must be on its token, as `generate_key` makes it and each start checks it.
pub const ATTRIBUTES: [&str; 6] =
    ["P-256", "generated on the token", "sensitive", "never extractable", "sign only", "not modifiable"];

/// The role that the policy must give whoever is there as this.
pub const fn role(capacity: Capacity) -> Option<Role> {
    match capacity {
        Capacity::PmaMember => Some(Role::PmaMember),
        Capacity::KeyCustodian => Some(Role::KeyCustodian),
        Capacity::Auditor => Some(Role::Auditor),
        Capacity::Conductor | Capacity::Witness | Capacity::Engineer => None,
    }
}

/// A plan as it lies.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    version: Spanned<u32>,
    /// What the ceremony is for.
    pub kind: Kind,
    /// What the minutes are headed with.
    pub title: Prose,
    /// The room.
    pub place: Spanned<Prose>,
    /// Live or exercise.
    pub purpose: Spanned<Purpose>,
    /// The ledger.
    pub origin: Spanned<Origin>,
    policy: Spanned<PathBuf>,
    policy_digest: Spanned<Digest>,
    configuration: Spanned<PathBuf>,
    out: Spanned<PathBuf>,
    /// What the people agreed upon for the case that the ceremony is interrupted; read aloud at the opening.
    pub when_interrupted: Prose,
    #[serde(default)]
    person: Vec<Spanned<Person>>,
    #[serde(default)]
    key: Vec<Spanned<Key>>,
    #[serde(default)]
    shares: Vec<Spanned<Shares>>,
    /// The folder in which the plan lies, from which its paths count.
    #[serde(skip)]
    folder: PathBuf,
    /// SHA-256 of the file.
    #[serde(skip, default = "no_digest")]
    digest: Digest,
    #[serde(skip)]
    octets: Vec<u8>,
}

fn no_digest() -> Digest {
    Digest::of(&[])
}

/// Somebody who comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// What the policy calls them, if it knows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<PersonId>,
    /// Their name.
    pub name: Prose,
    /// As what they come.
    pub capacity: Capacity,
}

impl Person {
    /// How they are called in questions and answers.
    pub fn handle(&self) -> &str {
        self.id.as_ref().map_or(self.name.as_str(), PersonId::as_str)
    }
}

impl fmt::Display for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        self.id.as_ref().map_or(Ok(()), |id| write!(f, " ({id})"))
    }
}

/// A key that the ceremony makes, or is about.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Its `CKA_LABEL`.
    pub label: KeyLabel,
    /// What it is for.
    pub r#use: KeyUse,
    /// Its token, as policy and configuration call it.
    pub token: TokenName,
    /// Its `CKA_ID`: drawn when the plan was written, so that a pair that an interruption leaves has a name.
    pub cka_id: KeyId,
    /// [`ATTRIBUTES`].
    pub attributes: Vec<String>,
    /// Of a contingency key that may sign, `CKA_ID` of the Contingency Symmetric Key that is made beside it.
    pub symmetric_id: Option<KeyId>,
    /// The same of its wrapping key.
    pub wrapping_id: Option<KeyId>,
    /// Where the Root OCA Certificate is laid that carries the contingency key.
    pub root: Option<PathBuf>,
    /// The tokens to which the maker's means clone it.
    #[serde(default)]
    pub copies: Vec<TokenName>,
    /// Where the certificate is laid that the SMKI issues for it.
    pub certificate: Option<PathBuf>,
    /// Where the certificates above it are laid, the issuer first and the root last.
    #[serde(default)]
    pub chain: Vec<PathBuf>,
}

impl Key {
    /// What is made beside it, of a contingency key that may sign.
    pub fn material(&self) -> Option<Ids> {
        Some(Ids { symmetric: self.symmetric_id?, wrapping: self.wrapping_id? })
    }
}

/// The shares of one key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shares {
    /// The key.
    pub key: KeyLabel,
    /// k.
    pub threshold: u32,
    /// One for each of the n shares.
    pub holders: Vec<Holder>,
}

/// Who takes a share.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// As `persons.toml` calls it.
    pub share: ShareName,
    /// Who keeps it.
    pub person: PersonId,
    /// The custodian's certificate, to which the share is sealed; without one, a passphrase of the custodian's seals it.
    pub certificate: Option<PathBuf>,
    /// SHA-256 of the certificate's SubjectPublicKeyInfo, which the custodian confirmed: another certificate in its place would have the share.
    pub spki: Option<Digest>,
}

/// One thing that is wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{text}", line.map(|line| format!("line {line}: ")).unwrap_or_default())]
pub struct PlanFault {
    /// Counted from 1, where it has one place.
    pub line: Option<usize>,
    /// Expected, found, and what to do.
    pub text: String,
}

impl Plan {
    /// Reads a plan. Whether it fits policy and configuration is another question, [`check()`].
    pub fn read(path: &Path) -> Result<Self, CeremonyError> {
        let octets = input::file(path, PLAN_LEN_MAX)?;
        let faulty = |fault| CeremonyError::Plan { path: path.to_owned(), faults: vec![fault] };
        let text = std::str::from_utf8(&octets)
            .map_err(|_| faulty(PlanFault { line: None, text: "expected text in UTF-8, found other octets".into() }))?;
        let mut plan: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| line_at(&octets, span.start));
            faulty(PlanFault { line, text: error.message().to_owned() })
        })?;
        let found = *plan.version.get_ref();
        if found != VERSION {
            let line = Some(line_at(&octets, plan.version.span().start));
            let text = format!("expected version = {VERSION}, found {found}; this program reads no other");
            return Err(faulty(PlanFault { line, text }));
        }
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        folder.clone_into(&mut plan.folder);
        plan.digest = Digest::of(&octets);
        plan.octets = octets;
        Ok(plan)
    }

    /// SHA-256 of the file.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The file.
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// A path of the plan, from where the plan lies.
    pub fn path(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    /// The folder of the policy.
    pub fn policy(&self) -> PathBuf {
        self.path(self.policy.get_ref())
    }

    /// The digest that the policy must have.
    pub fn policy_digest(&self) -> Digest {
        *self.policy_digest.get_ref()
    }

    /// The configuration of the daemon that will run.
    pub fn configuration(&self) -> PathBuf {
        self.path(self.configuration.get_ref())
    }

    /// Where journal, minutes and all public files go.
    pub fn out(&self) -> PathBuf {
        self.path(self.out.get_ref())
    }

    /// Everyone who is expected.
    pub fn persons(&self) -> impl Iterator<Item = &Person> {
        self.person.iter().map(Spanned::get_ref)
    }

    /// Its keys, in the order of the plan.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.key.iter().map(Spanned::get_ref)
    }

    /// The key of that label.
    pub fn key(&self, label: &KeyLabel) -> Option<&Key> {
        self.keys().find(|key| key.label == *label)
    }

    /// The shares of its keys.
    pub fn shares(&self) -> impl Iterator<Item = &Shares> {
        self.shares.iter().map(Spanned::get_ref)
    }

    fn line(&self, at: usize) -> usize {
        line_at(&self.octets, at)
    }
}

/// The line, from 1, of an octet.
fn line_at(octets: &[u8], at: usize) -> usize {
    1 + octets.iter().take(at).filter(|&&octet| octet == b'\n').count()
}
