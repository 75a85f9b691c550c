//! Pure. What is wrong with a policy, and where.

use super::{FILE_LEN_MAX, ORGANISATION_POLICY_OID_DEFAULT, ProcedureFault, VERSION};
use crate::domain::certificates::apex::WrapAlgorithm;
use crate::domain::determination::people::{Role, RosterError};
use crate::domain::determination::quorum::QuorumError;
use crate::domain::files::LayoutFault;
use crate::domain::names::{FactorId, KeyLabel, KeyUse, PersonId, SecParty, StepId, TokenName};
use crate::domain::policy::parties::PartyFault;

/// A fault in a policy, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}{}: {fault}", line.map(|line| format!(" line {line}")).unwrap_or_default())]
pub struct PolicyError {
    /// The path within the directory.
    pub file: String,
    /// Counted from 1, where the fault has one place.
    pub line: Option<usize>,
    /// What is wrong.
    pub fault: PolicyFault,
}

/// What is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyFault {
    /// Not there.
    #[error("expected this file, found none; keys-policy/example has each of them with comments")]
    FileMissing,
    /// Not known.
    #[error(
        "expected no such file; a policy has policy.toml, keys.toml, persons.toml, custodians.toml, guidance.toml, \
             perhaps files.toml, anchors/{{people,root-oca,issuing-oca,device-ca}}.pem and procedure/*.toml"
    )]
    FileUnknown,
    /// Too large.
    #[error("expected at most {FILE_LEN_MAX} octets, found {found}")]
    FileLength {
        /// In octets.
        found: usize,
    },
    /// Not the TOML of this file.
    #[error("{found}")]
    Toml {
        /// What the reader said.
        found: String,
    },
    /// Another version.
    #[error("expected version = {VERSION}, found {found}; this program knows no other")]
    Version {
        /// What stands there.
        found: u32,
    },
    /// The people.
    #[error("{0}")]
    Roster(RosterError),
    /// A person's key.
    #[error("key of {person}: {fault}")]
    Spki {
        /// Whose.
        person: PersonId,
        /// Why.
        fault: String,
    },
    /// The quorum.
    #[error("determinations.approvals: {0}")]
    Quorum(QuorumError),
    /// A number outside its bounds.
    #[error("{field}: expected {min} to {max}, found {found}")]
    Number {
        /// Which.
        field: &'static str,
        /// The least.
        min: u64,
        /// The greatest.
        max: u64,
        /// What stands there.
        found: u64,
    },
    /// Two of one name.
    #[error("{what} {name} stands here twice; name each once")]
    Twice {
        /// Key, token, factor …
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A key on a token that is not declared.
    #[error("key {key}: expected a token declared under [[token]], found {token}")]
    TokenUnknown {
        /// The key.
        key: KeyLabel,
        /// The token.
        token: TokenName,
    },
    /// A token without a key.
    #[error("token {token} holds no key; remove it, or name it in a key")]
    TokenUnused {
        /// The token.
        token: TokenName,
    },
    /// The ledger key lies on a token and PIN of its own.
    #[error("token {token} holds ledger key {ledger} and {other}; the ledger key needs a token of its own")]
    LedgerTokenShared {
        /// The token.
        token: TokenName,
        /// The ledger key.
        ledger: KeyLabel,
        /// The other key.
        other: KeyLabel,
    },
    /// No or several ledger keys.
    #[error("expected one key with use = \"ledger\", found {found}")]
    LedgerKeys {
        /// How many.
        found: usize,
    },
    /// A mode that its use does not have.
    #[error("key {key}: a {key_use} key may have modes {expected}, found {found}")]
    Mode {
        /// The key.
        key: KeyLabel,
        /// Its use.
        key_use: KeyUse,
        /// The modes of that use.
        expected: &'static str,
        /// What stands there.
        found: u8,
    },
    /// Who signs commands has an originator, and who signs none has not.
    #[error("key {key}: expected {expected}")]
    Originator {
        /// The key.
        key: KeyLabel,
        /// What this use needs.
        expected: &'static str,
    },
    /// A stored credential for the keys that need people.
    #[error(
        "key {key}: a live {key_use} key is activated by custodians, never by a stored credential; \
             expected activation = \"custodians\""
    )]
    StoredLive {
        /// The key.
        key: KeyLabel,
        /// Its use.
        key_use: KeyUse,
    },
    /// What is said of contingency material, of a key that has none.
    #[error("key {key}: [key.contingency] is for a contingency key; this is a {key_use} key")]
    NotContingency {
        /// The key.
        key: KeyLabel,
        /// Its use.
        key_use: KeyUse,
    },
    /// An algorithm that is read and not written.
    #[error(
        "key {key}: wrap_algorithm: expected aes-128-gcm or aes-256-gcm, which tokens write by themselves, found {found}, which is read in a \
             certificate and not written"
    )]
    NotWrittenInTokens {
        /// The key.
        key: KeyLabel,
        /// What stands there.
        found: WrapAlgorithm,
    },
    /// A symmetric key that any key of its token may wrap.
    #[error(
        "key {key}: a live contingency key needs wrap_with_trusted = \"required\": without it any key that is made with the token's PIN wraps its \
         Contingency Symmetric Key, and any tool takes it out"
    )]
    NotTrustedLive {
        /// The key.
        key: KeyLabel,
    },
    /// Custodians of one Party only.
    #[error("expected Key Custodians of at least {parties_min} Parties, found {found}")]
    Parties {
        /// What the policy demands.
        parties_min: u32,
        /// Of how many they are.
        found: u64,
    },
    /// A Party.
    #[error("{0}")]
    Party(PartyFault),
    /// A person of nobody.
    #[error("{person} is of party {party}, which no [[party]] names; add it, or correct the person's party")]
    PartyUnknown {
        /// Who.
        person: PersonId,
        /// Of what.
        party: SecParty,
    },
    /// What must be on record of a person under a live policy that names its Parties.
    #[error("{person}: a live policy that names Parties needs {missing} of each {role}")]
    RecordMissing {
        /// Who.
        person: PersonId,
        /// In which role.
        role: Role,
        /// What is not there.
        missing: &'static str,
    },
    /// An appointment that ceases and does not.
    #[error("{person} has ceased = and no until =; say when the appointment ceases")]
    CeasedWithoutEnd {
        /// Who.
        person: PersonId,
    },
    /// A layout of files.
    #[error("{0}")]
    Layout(LayoutFault),
    /// Not a certificate.
    #[error("certificate {number}: expected PEM blocks BEGIN CERTIFICATE, each with one certificate, found {found}")]
    Anchor {
        /// Counted from 1.
        number: usize,
        /// What stands there.
        found: String,
    },
    /// Not an OID.
    #[error("expected an object identifier such as {ORGANISATION_POLICY_OID_DEFAULT}, found {found:?}")]
    Oid {
        /// What stands there.
        found: String,
    },
    /// The procedure.
    #[error("{0}")]
    Procedure(ProcedureFault),
    /// A policy of the first kind, for something new.
    #[error(
        "expected the steps of the procedure, found at most its header; a policy without them is only read where a ledger has it \
         already. keys-policy/procedure has them"
    )]
    NoProcedure,
    /// A policy that names no Parties: who may act for whom is then asked of nobody.
    #[error(
        "expected a [[party]] for each Party to the SEC that a person is of, found none: without them nobody is held to their Party, to \
         one role in an incident, or to their own certificates"
    )]
    NoParties,
    /// One Party's shares open a key.
    #[error(
        "{party} holds {shares} shares, and {threshold} open a key: no Party opens one by itself. Give each Party fewer shares than that, or ask for more \
         of them (custodians.toml: threshold)"
    )]
    SharesOfOneParty {
        /// Whose.
        party: SecParty,
        /// How many its persons hold.
        shares: usize,
        /// How many open a key.
        threshold: u32,
    },
    /// A custodian who could sign no statement.
    #[error(
        "{person} is a key-custodian without a key; a custodian signs a statement with each share: name the SHA-256 of the SPKI of the key \
         they sign with, or its PEM"
    )]
    CustodianWithoutKey {
        /// Who.
        person: PersonId,
    },
    /// A criterion that names a step nobody knows.
    #[error("criterion {criterion}: expected a step of procedure/base.toml, found {found}")]
    CriterionStep {
        /// Which.
        criterion: FactorId,
        /// What stands there.
        found: StepId,
    },
    /// The default is that of the test PKI.
    #[error("certificates.{field}: a live policy must name at least one; the default is the test PKI's")]
    OidMissing {
        /// Which.
        field: &'static str,
    },
}

impl From<ProcedureFault> for PolicyFault {
    fn from(fault: ProcedureFault) -> Self {
        Self::Procedure(fault)
    }
}
