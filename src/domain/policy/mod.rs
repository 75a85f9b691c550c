//! Pure. The policy, and what it permits.
//!
//! One directory is one policy. [`files`] is how it is written, [`Policy`] is what runs, [`adoption`] is how one takes
//! another's place, [`admission`] is which documents may be recorded under it, [`copies`] is on which tokens a key may be.

pub mod admission;
pub mod adoption;
pub mod contingency;
pub mod copies;
pub mod custodians;
pub mod destruction;
pub mod facts;
pub mod files;
pub mod parties;
pub mod reminders;
pub mod rules;
pub mod separation;
pub mod shares;

use std::collections::{BTreeMap, BTreeSet};

use der::asn1::ObjectIdentifier;

use crate::domain::certificates::apex::WrapAlgorithm;
use crate::domain::determination::people::{Person, Role, Roster};
use crate::domain::determination::prose::Prose;
use crate::domain::determination::quorum::{Electorate, Quorum, QuorumError};
use crate::domain::files::Layout;
use crate::domain::names::{
    Digest, FactorId, FileKind, KeyLabel, KeyUse, Origin, PartyId, PersonId, Purpose, SecParty, ShareName, StepId,
    TokenName,
};
use crate::domain::time::Timestamp;

use parties::Parties;
use reminders::Reminders;

use crate::domain::procedure::Procedure;

pub use files::{Activation, PolicyError, PolicyFault, ProcedureFault, RootCell, SigningCertificate, WrapWithTrusted};

/// The files of one policy: relative path, with `/`, and octets.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The digest of a policy: SHA-256 of its `sha256sum` lines, sorted by path as octets. So this prints it:
///
/// `(cd DIR && find . -type f | sed 's|^\./||' | LC_ALL=C sort | xargs sha256sum | sha256sum)`
pub fn digest(files: &Files) -> Digest {
    let mut lines = ring::digest::Context::new(&ring::digest::SHA256);
    for (path, octets) in files {
        let file = Digest::of(octets);
        lines.update(format!("{file}  {path}\n").as_bytes());
    }
    Digest::try_from(lines.finish().as_ref()).expect("SHA-256 has 32 octets")
}

/// A policy that was read and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    digest: Digest,
    name: Prose,
    purpose: Purpose,
    origin: Origin,
    determinations: Determinations,
    limits: Limits,
    mode_8: Mode8,
    certificates: Certificates,
    roster: Roster,
    keys: BTreeMap<KeyLabel, Key>,
    custodians: Custodians,
    anchors: Anchors,
    guidance: Guidance,
    procedure: Option<Procedure>,
    parties: Parties,
    layouts: BTreeMap<FileKind, Layout>,
    reminders: Reminders,
}

/// What the policy says about determinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Determinations {
    /// m. n is the number of pma-members in force.
    pub approvals: u32,
    /// For how long one member may suspend.
    pub suspension_hours_max: u32,
    /// How old the ledger head in a document may be.
    pub head_age_hours_max: u32,
    /// How long a determination may be in force.
    pub window_days_max: u32,
}

/// Ceilings that no determination may go beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// By how much the counter of a pre-command may exceed the last one.
    pub max_counter_step: u64,
    /// The highest counter floor that a command may set on a Device.
    pub floor_ceiling: u64,
    /// Retries of one unknown.
    pub retries_of_unknown_max: u32,
    /// Intents in an hour.
    pub intents_per_hour_max: u64,
    /// Devices of one determination.
    pub devices_max: u64,
    /// Commands that are recorded, signed and released together.
    pub chunk: u32,
    /// For how long a key stays active after its activation.
    pub activation_seconds: u32,
}

/// What CS02b mode 8 may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode8 {
    /// Whether a template may target a root cell.
    pub root_cell: RootCell,
}

/// What certificates must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// Policy OIDs of SMKI Organisation and Issuing OCA Certificates.
    pub organisation_policy_oids: BTreeSet<ObjectIdentifier>,
    /// Policy OIDs of Device Certificates.
    pub device_policy_oids: BTreeSet<ObjectIdentifier>,
    /// Whether a signature needs the ESS attribute signing-certificate-v2 (RFC 5035).
    pub signing_certificate_v2: SigningCertificate,
}

/// A key of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// What everybody calls it.
    pub label: KeyLabel,
    /// What it is for.
    pub key_use: KeyUse,
    /// The token on which it was generated.
    pub token: TokenName,
    /// Tokens to which the maker's means clone it, and those means.
    pub copies: BTreeMap<TokenName, Prose>,
    /// The CS02b modes that it may sign: 8 for a Recovery key, 9 for a Contingency key, none for a ledger key.
    pub modes: BTreeSet<u8>,
    /// The EUI-64 under which it signs commands; a ledger key has none.
    pub originator: Option<PartyId>,
    /// How its token is logged in.
    pub activation: Activation,
    /// What a contingency key's material must be; none for a key of another use.
    pub contingency: Option<ContingencyRules>,
}

/// What the policy wants of contingency material.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContingencyRules {
    /// How the public half is wrapped for the Root OCA Certificate.
    pub wrap_algorithm: WrapAlgorithm,
    /// Whether the token must keep the symmetric key from being wrapped with any key but a trusted one.
    pub wrap_with_trusted: WrapWithTrusted,
}

impl Key {
    /// Every token that holds it, its own first.
    pub fn tokens(&self) -> impl Iterator<Item = &TokenName> {
        std::iter::once(&self.token).chain(self.copies.keys())
    }
}

/// How many Key Custodians activate a key: k of n, of several Parties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Custodians {
    /// k, at least 2.
    pub threshold: u32,
    /// Of how many Parties they must be, at least 2.
    pub parties_min: u32,
    /// For how many minutes a share counts towards an activation.
    pub gather_minutes: u32,
    /// For how many hours a statement holds at most, and how old the ledger head in it may be.
    pub statement_hours_max: u32,
}

/// Trust anchors, each as the DER of its certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchors {
    /// CAs of the people's certificates.
    pub people: Vec<Vec<u8>>,
    /// Root OCA.
    pub root_oca: Vec<Vec<u8>>,
    /// Issuing OCAs.
    pub issuing_oca: Vec<Vec<u8>>,
    /// CAs of Device Certificates.
    pub device_ca: Vec<Vec<u8>>,
}

/// What the PMA must and may weigh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guidance {
    /// Which version of the SMKI Recovery Key Guidance.
    pub edition: Prose,
    /// The factors.
    pub factors: BTreeMap<FactorId, Factor>,
    /// Criteria and steps that must be met before a determination.
    pub criteria: BTreeSet<FactorId>,
    /// The step that must have been taken in the incident, for criteria that name one.
    pub prerequisites: BTreeMap<FactorId, StepId>,
}

/// A factor of the Guidance. Which way it weighed stands in each determination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Factor {
    /// Whether it must be considered.
    pub consider: Consider,
    /// Its rank among the others, 1 the highest; none if the Guidance ranks it not.
    pub rank: Option<u32>,
    /// What it is.
    pub text: Prose,
}

/// Whether a factor must be considered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consider {
    /// It must.
    Must,
    /// It may.
    May,
}

impl Policy {
    /// Its digest, by which documents name it.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What people call it.
    pub fn name(&self) -> &Prose {
        &self.name
    }

    /// Live or exercise.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// The ledger that it is for.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What it says about determinations.
    pub fn determinations(&self) -> &Determinations {
        &self.determinations
    }

    /// Its ceilings.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What mode 8 may do.
    pub fn mode_8(&self) -> Mode8 {
        self.mode_8
    }

    /// What certificates must have.
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// Everyone.
    pub fn people(&self) -> &Roster {
        &self.roster
    }

    /// Whose key that is, by the SHA-256 of its SPKI.
    pub fn person_by_spki(&self, spki: &Digest) -> Option<&Person> {
        self.roster.person_by_spki(spki)
    }

    /// Whose UNIX account that is.
    pub fn person_by_account(&self, account: &str) -> Option<&Person> {
        self.roster.person_by_account(account)
    }

    /// Who holds `role` at that moment.
    pub fn roster(&self, role: Role, at: Timestamp) -> impl Iterator<Item = &Person> {
        self.roster.holding(role, at)
    }

    /// m of the n members in force at that moment, checked again.
    pub fn quorum(&self, at: Timestamp) -> Result<Quorum, QuorumError> {
        Quorum::at(self.determinations.approvals, &self.roster, at)
    }

    /// By whom is counted under this policy.
    pub fn electorate(&self) -> Electorate<'_> {
        Electorate { policy: self.digest, roster: &self.roster, approvals: self.determinations.approvals }
    }

    /// The key of that label.
    pub fn key(&self, label: &KeyLabel) -> Option<&Key> {
        self.keys.get(label)
    }

    /// Every key, by label.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.values()
    }

    /// The key that signs checkpoints.
    pub fn ledger_key(&self) -> &Key {
        let ledger = |key: &&Key| key.key_use == KeyUse::Ledger;
        self.keys().find(ledger).expect("a policy without a ledger key is refused when it is read")
    }

    /// Key Custodians.
    pub fn custodians(&self) -> Custodians {
        self.custodians
    }

    /// Trust anchors.
    pub fn anchors(&self) -> &Anchors {
        &self.anchors
    }

    /// What the PMA must and may weigh.
    pub fn guidance(&self) -> &Guidance {
        &self.guidance
    }

    /// The Parties; none in a policy without `[[party]]`.
    pub fn parties(&self) -> &Parties {
        &self.parties
    }

    /// How files of that kind are laid out: as `files.toml` says, else as ours are.
    pub fn layout(&self, kind: FileKind) -> Layout {
        self.layouts.get(&kind).cloned().unwrap_or_else(|| Layout::standard(kind))
    }

    /// When to remind.
    pub fn reminders(&self) -> Reminders {
        self.reminders
    }

    /// Whether the policy may be used for something new: a ceremony, an adoption. One that is in a ledger already stays readable.
    ///
    /// # Errors
    /// If it has no procedure, or names no Parties; or, where it is live, has a Key Custodian who cannot sign, or a Party whose shares open a key.
    pub fn fit_for_new_use(&self) -> Result<(), PolicyError> {
        let unfit = |file: &str, fault| Err(PolicyError { file: file.into(), line: None, fault });
        match self.procedure {
            None => unfit(files::BASE, PolicyFault::NoProcedure),
            Some(_) if self.parties().is_empty() => unfit(files::PERSONS, PolicyFault::NoParties),
            Some(_) => match self.custodian_without_key() {
                Some(person) => unfit(files::PERSONS, PolicyFault::CustodianWithoutKey { person: person.id.clone() }),
                None => match self.shares_of_one_party().filter(|_| self.purpose == Purpose::Live) {
                    Some(fault) => unfit(files::PERSONS, fault),
                    None => Ok(()),
                },
            },
        }
    }

    /// A custodian of a live policy who could sign no statement.
    fn custodian_without_key(&self) -> Option<&Person> {
        let is_asked = self.purpose == Purpose::Live;
        let mut persons = self.people().persons().filter(|_| is_asked);
        persons.find(|person| person.roles.contains(&Role::KeyCustodian) && person.keys.is_empty())
    }

    /// A Party whose persons together hold as many shares as open a key: whatever our programs ask of them, the shares themselves ask no more.
    pub fn shares_of_one_party(&self) -> Option<PolicyFault> {
        let threshold = self.custodians().threshold;
        let mut held: BTreeMap<&SecParty, usize> = BTreeMap::new();
        for person in self.people().persons().filter(|person| person.roles.contains(&Role::KeyCustodian)) {
            *held.entry(&person.party).or_default() += person.shares.len();
        }
        let is_enough = |shares: usize| shares >= usize::try_from(threshold).unwrap_or(usize::MAX);
        let (party, shares) = held.into_iter().find(|(_, shares)| is_enough(*shares))?;
        Some(PolicyFault::SharesOfOneParty { party: party.clone(), shares, threshold })
    }

    /// Who keeps a share.
    pub fn share_holder(&self, share: &ShareName) -> Option<&PersonId> {
        self.people().persons().find(|person| person.shares.contains(share)).map(|person| &person.id)
    }

    /// The procedure; none in a policy of the first kind, whose profiles had nothing but a header. Under such a policy nothing of the
    /// procedure is enforced, and no new use is made of it.
    pub fn procedure(&self) -> Option<&Procedure> {
        self.procedure.as_ref()
    }
}

#[cfg(test)]
pub(in crate::domain) mod tests;
