//! Pure. How a policy is written: TOML and PEM in one directory, read strictly, with every fault reported.
//!
//! The forms here are what stands in the files; what runs is [`Policy`]. A default is a constant, with its reason.

mod faults;
mod procedure;

use std::collections::{BTreeMap, BTreeSet};

use der::asn1::ObjectIdentifier;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::parties::{Parties, Party};
use super::reminders::{CEREMONY_OR_EXERCISE_MONTHS_DEFAULT, CEREMONY_OR_EXERCISE_MONTHS_MAX, Reminders};
use super::{
    Anchors, Certificates, Consider, ContingencyRules, Custodians, Determinations, Factor, Files, Guidance, Key,
    Limits, Mode8, Policy, digest,
};
use crate::domain::certificates::Certificate;
use crate::domain::certificates::apex::WrapAlgorithm;
use crate::domain::determination::people::{Credential, Person, Records, Role, Roster, Screening};
use crate::domain::determination::prose::Prose;
use crate::domain::determination::quorum::Quorum;
use crate::domain::determination::spki;
use crate::domain::files::Layout;
use crate::domain::names::{
    AccountName, Digest, FactorId, FileKind, KeyLabel, KeyUse, Origin, PartyId, PersonId, ProfileId, Purpose, SecParty,
    ShareName, StepId, TokenName,
};
use crate::domain::procedure::Procedure;
use crate::domain::time::{Timestamp, Window};

pub use faults::{PolicyError, PolicyFault};
pub(super) use procedure::BASE;
pub use procedure::ProcedureFault;

/// The version of every file.
const VERSION: u32 = 1;

/// One file: a thousand persons, or three hundred certificates. Some checks take the square of that. No official reference.
pub const FILE_LEN_MAX: usize = 256 * 1024;

/// A weekend: time for the others to meet. No official reference.
pub const SUSPENSION_HOURS_MAX_DEFAULT: u32 = 72;
/// Two weeks, so that a document can travel to members who sign without a network. No official reference.
pub const HEAD_AGE_HOURS_MAX_DEFAULT: u32 = 14 * 24;
/// A month: longer than any one recovery should stay open. No official reference.
pub const WINDOW_DAYS_MAX_DEFAULT: u32 = 31;
/// A pre-command made elsewhere may skip some numbers; a great leap would use a Device's counters up.
pub const MAX_COUNTER_STEP_DEFAULT: u64 = 1_000;
/// An unknown that stays one after three tries is a matter for people.
pub const RETRIES_OF_UNKNOWN_MAX_DEFAULT: u32 = 3;
/// What two cores and a fast token sign in an hour: 10,000 a second.
pub const INTENTS_PER_HOUR_MAX_DEFAULT: u64 = 36_000_000;
/// The order of a large supplier's Devices.
pub const DEVICES_MAX_DEFAULT: u64 = 10_000_000;
/// Commands of a chunk where neither policy nor configuration says otherwise: enough that two durable commits and a checkpoint
/// cost little beside so many signatures, few enough that three chunks in memory (of 4 kB a command) are small, a suspension is
/// seen within some tens of milliseconds, and few are lost sight of at a crash.
pub const CHUNK_DEFAULT: u32 = 256;
/// For how long a key stays active at most. No official reference: a night and a shift.
const ACTIVATION_SECONDS_DEFAULT: u32 = 12 * 3_600;
/// The greatest chunk that a policy or a configuration may name: the two that are in flight together must fit into a token's
/// queue of 4,096 commands, and beyond a thousand a chunk costs memory and saves no time.
pub const CHUNK_MAX: u32 = 2_000;
/// Of two Parties at least: no Party activates a key by itself (rule of the Key Custodians, SEC Appendix L).
pub const PARTIES_MIN_DEFAULT: u32 = 2;
/// For how long a share counts towards an activation while the others come: long enough for a second custodian to arrive. No official
/// reference.
pub const GATHER_MINUTES_DEFAULT: u32 = 60;
/// A day: a share is brought when it is wanted, not in store.
const GATHER_MINUTES_MAX: u64 = 24 * 60;
/// For how long a statement of a Key Custodian holds, and how old the ledger head in it may be: a night and a shift. No official reference.
pub const STATEMENT_HOURS_MAX_DEFAULT: u32 = 12;
/// Two days: a statement for an incident is not made in advance.
const STATEMENT_HOURS_MAX: u64 = 48;
/// Policy OID of Organisation and Issuing OCA Certificates as observed in the public test PKI. Those of the live
/// environment are not known here, so a live policy must name them.
pub const ORGANISATION_POLICY_OID_DEFAULT: &str = "1.2.826.0.1.8641679.1.2.1.4";
/// Policy OID of Device Certificates as observed in the public test PKI; a live policy must name its own.
pub const DEVICE_POLICY_OID_DEFAULT: &str = "1.2.826.0.1.1800000.1.2.1.4";

/// How a contingency key's public half is wrapped for the Root OCA Certificate. The profile that says it (Organisation Certificate Policy,
/// Annex B) could not be read: a default of ours, which tokens can write by themselves.
pub const WRAP_ALGORITHM_DEFAULT: WrapAlgorithm = WrapAlgorithm::Aes256Gcm;

/// Ranks of factors: as many as a determination may name. No official reference.
const RANK_MAX: u64 = 64;

/// How a token is logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// By shares of Key Custodians, for one incident and a limited time.
    Custodians,
    /// By the HSM itself, which asks at its own PIN pad or for its card set, once enough Key Custodians have stated that it is to be opened.
    ProtectedPath,
    /// By a credential that the daemon's configuration names: for a ledger key, and in an exercise.
    Stored,
}

/// Whether a contingency key's token must keep its symmetric key from being wrapped with any key but a trusted one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WrapWithTrusted {
    /// It must (`CKA_WRAP_WITH_TRUSTED`): no key that somebody makes with the token's PIN wraps it. Who has the PIN and takes the daemon's own
    /// way, by the trusted key and a copy, has it all the same.
    #[default]
    Required,
    /// It need not, for a module that lacks that. In an exercise alone.
    NotEnforced,
}

/// Whether a mode 8 command may target a root cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RootCell {
    /// Never: what an "abnormal" root is, no document at hand says, and refusing is right where signing could be wrong.
    #[default]
    Refuse,
    /// As the determination says.
    Permit,
}

/// Whether an approval needs signing-certificate-v2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SigningCertificate {
    /// It does: `openssl cms -sign -cades` writes it.
    #[default]
    Require,
    /// It does not: for cards whose software cannot write it. Signers are pinned by their key in any case.
    Waive,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyForm {
    version: Spanned<u32>,
    name: Prose,
    purpose: Purpose,
    origin: Origin,
    determinations: DeterminationsForm,
    limits: LimitsForm,
    #[serde(default)]
    mode_8: Mode8Form,
    #[serde(default)]
    certificates: CertificatesForm,
    #[serde(default)]
    reminders: RemindersForm,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RemindersForm {
    ceremony_or_exercise_months: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeterminationsForm {
    approvals: Spanned<u32>,
    suspension_hours_max: Option<Spanned<u32>>,
    head_age_hours_max: Option<Spanned<u32>>,
    window_days_max: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsForm {
    floor_ceiling: u64,
    max_counter_step: Option<Spanned<u64>>,
    retries_of_unknown_max: Option<u32>,
    intents_per_hour_max: Option<Spanned<u64>>,
    devices_max: Option<Spanned<u64>>,
    chunk: Option<Spanned<u32>>,
    activation_seconds: Option<Spanned<u32>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mode8Form {
    #[serde(default)]
    root_cell: RootCell,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CertificatesForm {
    organisation_policy_oids: Option<Vec<Spanned<String>>>,
    device_policy_oids: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    signing_certificate_v2: SigningCertificate,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysForm {
    version: Spanned<u32>,
    #[serde(default)]
    token: Vec<Spanned<TokenForm>>,
    #[serde(default)]
    key: Vec<Spanned<KeyForm>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenForm {
    name: TokenName,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyForm {
    label: KeyLabel,
    r#use: KeyUse,
    token: TokenName,
    #[serde(default)]
    copies: Vec<CopyForm>,
    modes: Vec<u8>,
    originator: Option<PartyId>,
    activation: Activation,
    contingency: Option<ContingencyForm>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ContingencyForm {
    wrap_algorithm: Option<WrapAlgorithm>,
    #[serde(default)]
    wrap_with_trusted: WrapWithTrusted,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CopyForm {
    token: TokenName,
    by: Prose,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PersonsForm {
    version: Spanned<u32>,
    #[serde(default)]
    party: Vec<Spanned<Party>>,
    #[serde(default)]
    person: Vec<Spanned<PersonForm>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PersonForm {
    id: PersonId,
    name: Prose,
    party: SecParty,
    roles: Vec<Role>,
    #[serde(default)]
    keys: Vec<Spanned<String>>,
    #[serde(default)]
    accounts: Vec<AccountName>,
    #[serde(default)]
    shares: Vec<ShareName>,
    from: Timestamp,
    until: Option<Timestamp>,
    appointed: Option<Prose>,
    ceased: Option<Prose>,
    credential: Option<Credential>,
    screening: Option<Screening>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FilesForm {
    version: Spanned<u32>,
    #[serde(default)]
    layout: Vec<Spanned<LayoutForm>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LayoutForm {
    kind: FileKind,
    label: Prose,
    columns: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CustodiansForm {
    version: Spanned<u32>,
    threshold: Spanned<u32>,
    parties_min: Option<Spanned<u32>>,
    gather_minutes: Option<Spanned<u32>>,
    statement_hours_max: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GuidanceForm {
    version: Spanned<u32>,
    edition: Prose,
    #[serde(default)]
    factor: Vec<Spanned<FactorForm>>,
    #[serde(default)]
    criterion: Vec<Spanned<CriterionForm>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FactorForm {
    id: FactorId,
    consider: Consider,
    /// What the Guidance ranks higher has a lower number.
    rank: Option<Spanned<u32>>,
    text: Prose,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CriterionForm {
    id: FactorId,
    /// The step of the procedure that must have been taken in the incident.
    step: Option<StepId>,
    #[serde(rename = "text")]
    _text: Prose,
}

/// The files of a policy while it is read, and what was wrong so far.
struct Reading<'a> {
    files: &'a Files,
    errors: Vec<PolicyError>,
}

const POLICY: &str = "policy.toml";
const KEYS: &str = "keys.toml";
pub(super) const PERSONS: &str = "persons.toml";
const CUSTODIANS: &str = "custodians.toml";
const GUIDANCE: &str = "guidance.toml";
const FILES: &str = "files.toml";
const PEOPLE: &str = "anchors/people.pem";
const ROOT_OCA: &str = "anchors/root-oca.pem";
const ISSUING_OCA: &str = "anchors/issuing-oca.pem";
const DEVICE_CA: &str = "anchors/device-ca.pem";

/// Every file that a policy has, but for those in `procedure/`.
pub const NAMES: [&str; 9] = [POLICY, KEYS, PERSONS, CUSTODIANS, GUIDANCE, PEOPLE, ROOT_OCA, ISSUING_OCA, DEVICE_CA];

/// The id in `procedure/ID.toml`.
fn procedure_id(path: &str) -> Option<ProfileId> {
    path.strip_prefix("procedure/")?.strip_suffix(".toml")?.parse().ok()
}

impl Policy {
    /// Reads and checks a policy.
    ///
    /// # Errors
    /// Every fault of every file. A file whose TOML cannot be read has that one fault, and what would depend on it is not
    /// looked at.
    pub fn parse(files: &Files) -> Result<Self, Vec<PolicyError>> {
        let mut reading = Reading { files, errors: Vec::new() };
        reading.names();
        let policy: Option<PolicyForm> = reading.toml(POLICY);
        let keys: Option<KeysForm> = reading.toml(KEYS);
        let persons: Option<PersonsForm> = reading.toml(PERSONS);
        let custodians: Option<CustodiansForm> = reading.toml(CUSTODIANS);
        let guidance: Option<GuidanceForm> = reading.toml(GUIDANCE);
        let purpose = policy.as_ref().map(|form| form.purpose);
        let (parties, roster) = persons.map_or_else(Default::default, |form| reading.people(form, purpose));
        let layouts = reading.layouts();
        let keys = keys.map(|form| reading.keys(form, purpose));
        let custodians = custodians.map(|form| reading.custodians(&form, roster.as_ref()));
        let guidance = guidance.map(|form| reading.guidance(form));
        let anchors = Anchors {
            people: reading.anchors(PEOPLE),
            root_oca: reading.anchors(ROOT_OCA),
            issuing_oca: reading.anchors(ISSUING_OCA),
            device_ca: reading.anchors(DEVICE_CA),
        };
        let procedure = reading.procedure();
        reading.prerequisites(guidance.as_ref(), procedure.as_ref());
        let settings = policy.map(|form| reading.settings(form, roster.as_ref()));
        let Reading { errors, .. } = reading;
        match (settings, roster, keys, custodians, guidance) {
            (Some(settings), Some(roster), Some(keys), Some(custodians), Some(guidance)) if errors.is_empty() => {
                let Settings { name, purpose, origin, determinations, limits, mode_8, certificates, reminders } =
                    settings;
                let digest = digest(files);
                Ok(Self {
                    digest,
                    name,
                    purpose,
                    origin,
                    determinations,
                    limits,
                    mode_8,
                    certificates,
                    roster,
                    keys,
                    custodians,
                    anchors,
                    guidance,
                    procedure,
                    parties,
                    layouts,
                    reminders,
                })
            }
            _ => Err(errors),
        }
    }
}

/// What `policy.toml` says.
struct Settings {
    name: Prose,
    purpose: Purpose,
    origin: Origin,
    determinations: Determinations,
    limits: Limits,
    mode_8: Mode8,
    certificates: Certificates,
    reminders: Reminders,
}

impl Reading<'_> {
    /// Notes a fault at an octet of a file.
    fn fault(&mut self, file: &str, at: Option<usize>, fault: PolicyFault) {
        let octets: &[u8] = self.files.get(file).map_or(&[], Vec::as_slice);
        let line = at.map(|at| octets[..at.min(octets.len())].split(|&b| b == b'\n').count());
        self.errors.push(PolicyError { file: file.into(), line, fault });
    }

    /// Which files there are.
    fn names(&mut self) {
        for (path, octets) in self.files {
            if !NAMES.contains(&path.as_str()) && path != FILES && procedure_id(path).is_none() {
                self.fault(path, None, PolicyFault::FileUnknown);
            }
            if octets.len() > FILE_LEN_MAX {
                self.fault(path, None, PolicyFault::FileLength { found: octets.len() });
            }
        }
    }

    /// The text of a file that must be there.
    fn text(&mut self, file: &str) -> Option<String> {
        let Some(octets) = self.files.get(file) else {
            self.fault(file, None, PolicyFault::FileMissing);
            return None;
        };
        if octets.len() > FILE_LEN_MAX {
            return None; // Said by `names`.
        }
        match std::str::from_utf8(octets) {
            Ok(text) => Some(text.into()),
            Err(e) => {
                let found = format!("expected UTF-8, found 0x{:02X}", octets[e.valid_up_to()]);
                self.fault(file, Some(e.valid_up_to()), PolicyFault::Toml { found });
                None
            }
        }
    }

    /// A TOML file that must be there.
    fn toml<Form: Versioned + for<'de> Deserialize<'de>>(&mut self, file: &str) -> Option<Form> {
        let text = self.text(file)?;
        match toml::from_str::<Form>(&text) {
            Ok(form) => {
                let version = form.version();
                if *version.get_ref() != VERSION {
                    let found = *version.get_ref();
                    self.fault(file, Some(version.span().start), PolicyFault::Version { found });
                }
                Some(form)
            }
            Err(e) => {
                let found = e.message().trim().into();
                self.fault(file, e.span().map(|span| span.start), PolicyFault::Toml { found });
                None
            }
        }
    }

    /// A number within bounds.
    fn number<N: Copy + Into<u64>>(
        &mut self,
        (file, field): (&str, &'static str),
        value: Option<&Spanned<N>>,
        default: N,
        (min, max): (u64, u64),
    ) -> N {
        let Some(value) = value else { return default };
        let found = (*value.get_ref()).into();
        if !(min..=max).contains(&found) {
            self.fault(file, Some(value.span().start), PolicyFault::Number { field, min, max, found });
        }
        *value.get_ref()
    }

    fn settings(&mut self, form: PolicyForm, roster: Option<&Roster>) -> Settings {
        let PolicyForm { version: _, name, purpose, origin, determinations, limits, mode_8, certificates, reminders } =
            form;
        // That enough members ever stand together is asked of any moment; at each use it is asked of that moment.
        let approvals = *determinations.approvals.get_ref();
        let members = roster.map_or(u32::MAX, |roster| roster.most_holding(Role::PmaMember).0);
        if let Err(fault) = Quorum::new(approvals, members) {
            self.fault(POLICY, Some(determinations.approvals.span().start), PolicyFault::Quorum(fault));
        }
        let (hours, days) = ((1, 24 * 366), (1, 366));
        let d = &determinations;
        let determinations = Determinations {
            approvals,
            suspension_hours_max: self.number(
                (POLICY, "determinations.suspension_hours_max"),
                d.suspension_hours_max.as_ref(),
                SUSPENSION_HOURS_MAX_DEFAULT,
                hours,
            ),
            head_age_hours_max: self.number(
                (POLICY, "determinations.head_age_hours_max"),
                d.head_age_hours_max.as_ref(),
                HEAD_AGE_HOURS_MAX_DEFAULT,
                hours,
            ),
            window_days_max: self.number(
                (POLICY, "determinations.window_days_max"),
                d.window_days_max.as_ref(),
                WINDOW_DAYS_MAX_DEFAULT,
                days,
            ),
        };
        let l = &limits;
        let from_one = (1, u64::MAX);
        let limits = Limits {
            floor_ceiling: l.floor_ceiling,
            max_counter_step: self.number(
                (POLICY, "limits.max_counter_step"),
                l.max_counter_step.as_ref(),
                MAX_COUNTER_STEP_DEFAULT,
                from_one,
            ),
            retries_of_unknown_max: l.retries_of_unknown_max.unwrap_or(RETRIES_OF_UNKNOWN_MAX_DEFAULT),
            intents_per_hour_max: self.number(
                (POLICY, "limits.intents_per_hour_max"),
                l.intents_per_hour_max.as_ref(),
                INTENTS_PER_HOUR_MAX_DEFAULT,
                from_one,
            ),
            devices_max: self.number(
                (POLICY, "limits.devices_max"),
                l.devices_max.as_ref(),
                DEVICES_MAX_DEFAULT,
                from_one,
            ),
            chunk: self.number((POLICY, "limits.chunk"), l.chunk.as_ref(), CHUNK_DEFAULT, (1, u64::from(CHUNK_MAX))),
            activation_seconds: self.number(
                (POLICY, "limits.activation_seconds"),
                l.activation_seconds.as_ref(),
                ACTIVATION_SECONDS_DEFAULT,
                (1, u64::from(ACTIVATION_SECONDS_DEFAULT)),
            ),
        };
        let certificates = Certificates {
            organisation_policy_oids: self.oids(
                "organisation_policy_oids",
                certificates.organisation_policy_oids,
                ORGANISATION_POLICY_OID_DEFAULT,
                purpose,
            ),
            device_policy_oids: self.oids(
                "device_policy_oids",
                certificates.device_policy_oids,
                DEVICE_POLICY_OID_DEFAULT,
                purpose,
            ),
            signing_certificate_v2: certificates.signing_certificate_v2,
        };
        let mode_8 = Mode8 { root_cell: mode_8.root_cell };
        let reminders = Reminders {
            is_set: reminders.ceremony_or_exercise_months.is_some(),
            ceremony_or_exercise_months: self.number(
                (POLICY, "reminders.ceremony_or_exercise_months"),
                reminders.ceremony_or_exercise_months.as_ref(),
                CEREMONY_OR_EXERCISE_MONTHS_DEFAULT,
                (1, u64::from(CEREMONY_OR_EXERCISE_MONTHS_MAX)),
            ),
        };
        Settings { name, purpose, origin, determinations, limits, mode_8, certificates, reminders }
    }

    fn oids(
        &mut self,
        field: &'static str,
        found: Option<Vec<Spanned<String>>>,
        default: &str,
        purpose: Purpose,
    ) -> BTreeSet<ObjectIdentifier> {
        let Some(texts) = found else {
            if purpose == Purpose::Live {
                self.fault(POLICY, None, PolicyFault::OidMissing { field });
            }
            return BTreeSet::from([default.parse().expect("the default is an object identifier")]);
        };
        if texts.is_empty() {
            self.fault(POLICY, None, PolicyFault::OidMissing { field });
        }
        let mut oids = BTreeSet::new();
        for text in texts {
            let at = Some(text.span().start);
            match text.get_ref().parse() {
                Ok(oid) => drop(oids.insert(oid)),
                Err(_) => self.fault(POLICY, at, PolicyFault::Oid { found: text.into_inner() }),
            }
        }
        oids
    }

    /// Parties and people.
    fn people(&mut self, form: PersonsForm, purpose: Option<Purpose>) -> (Parties, Option<Roster>) {
        let PersonsForm { version: _, party, person } = form;
        let mut parties = Parties::default();
        for entry in party {
            let at = entry.span().start;
            for fault in parties.insert(entry.into_inner()) {
                self.fault(PERSONS, Some(at), PolicyFault::Party(fault));
            }
        }
        let roster = self.roster(person, &parties, purpose);
        (parties, roster)
    }

    /// What must be on record of a person.
    fn records(&mut self, person: &Person, at: usize, parties: &Parties, purpose: Option<Purpose>) {
        let id = || person.id.clone();
        let Records { appointed, ceased, credential, screening } = &person.records;
        if ceased.is_some() && person.window.until == Timestamp::MAX {
            self.fault(PERSONS, Some(at), PolicyFault::CeasedWithoutEnd { person: id() });
        }
        if parties.is_empty() {
            return;
        }
        if parties.get(&person.party).is_none() {
            let party = person.party.clone();
            self.fault(PERSONS, Some(at), PolicyFault::PartyUnknown { person: id(), party });
        }
        let needed = [
            (Role::Aro, credential.is_none(), "a credential state (credential = { state, from })"),
            (Role::Aro, screening.is_none(), "screening evidence (screening = { standard, reference, date })"),
            (Role::KeyCustodian, appointed.is_none(), "a reference of the appointment (appointed = ...)"),
        ];
        for (role, is_missing, missing) in needed {
            if purpose == Some(Purpose::Live) && person.roles.contains(&role) && is_missing {
                self.fault(PERSONS, Some(at), PolicyFault::RecordMissing { person: id(), role, missing });
            }
        }
    }

    fn roster(
        &mut self,
        form: Vec<Spanned<PersonForm>>,
        parties: &Parties,
        purpose: Option<Purpose>,
    ) -> Option<Roster> {
        let mut lines: BTreeMap<PersonId, usize> = BTreeMap::new();
        let mut persons = Vec::new();
        for entry in form {
            let at = entry.span().start;
            let PersonForm {
                id,
                name,
                party,
                roles,
                keys,
                accounts,
                shares,
                from,
                until,
                appointed,
                ceased,
                credential,
                screening,
            } = entry.into_inner();
            lines.insert(id.clone(), at);
            let mut digests = Vec::new();
            for key in keys {
                match key_digest(key.get_ref()) {
                    Ok(digest) => digests.push(digest),
                    Err(fault) => {
                        let person = id.clone();
                        self.fault(PERSONS, Some(key.span().start), PolicyFault::Spki { person, fault });
                    }
                }
            }
            let window = Window { from, until: until.unwrap_or(Timestamp::MAX) };
            let roles = roles.into_iter().collect();
            let records = Records { appointed, ceased, credential, screening };
            let person = Person { id, name, party, roles, keys: digests, accounts, shares, window, records };
            self.records(&person, at, parties, purpose);
            persons.push(person);
        }
        match Roster::new(persons) {
            Ok(roster) => Some(roster),
            Err(faults) => {
                for fault in faults {
                    self.fault(PERSONS, lines.get(fault.person()).copied(), PolicyFault::Roster(fault));
                }
                None
            }
        }
    }

    fn keys(&mut self, form: KeysForm, purpose: Option<Purpose>) -> BTreeMap<KeyLabel, Key> {
        let mut unused: BTreeMap<TokenName, usize> = BTreeMap::new();
        for token in form.token {
            let at = token.span().start;
            let TokenForm { name } = token.into_inner();
            if unused.insert(name.clone(), at).is_some() {
                self.fault(KEYS, Some(at), PolicyFault::Twice { what: "token", name: name.to_string() });
            }
        }
        let declared: BTreeSet<TokenName> = unused.keys().cloned().collect();
        let mut keys: BTreeMap<KeyLabel, (Key, usize)> = BTreeMap::new();
        for entry in form.key {
            let at = entry.span().start;
            let key = self.key(entry.into_inner(), at, purpose);
            for token in key.tokens() {
                unused.remove(token);
                if !declared.contains(token) {
                    let (key, token) = (key.label.clone(), token.clone());
                    self.fault(KEYS, Some(at), PolicyFault::TokenUnknown { key, token });
                }
            }
            let name = key.label.to_string();
            if keys.insert(key.label.clone(), (key, at)).is_some() {
                self.fault(KEYS, Some(at), PolicyFault::Twice { what: "key", name });
            }
        }
        for (token, at) in unused {
            self.fault(KEYS, Some(at), PolicyFault::TokenUnused { token });
        }
        let ledgers: Vec<&Key> = keys.values().map(|(key, _)| key).filter(|k| k.key_use == KeyUse::Ledger).collect();
        if ledgers.len() != 1 {
            self.fault(KEYS, None, PolicyFault::LedgerKeys { found: ledgers.len() });
        }
        for ledger in ledgers {
            for (other, at) in keys.values().filter(|(other, _)| other.label != ledger.label) {
                if let Some(token) = other.tokens().find(|token| ledger.tokens().any(|own| own == *token)) {
                    let (token, ledger, other) = (token.clone(), ledger.label.clone(), other.label.clone());
                    self.fault(KEYS, Some(*at), PolicyFault::LedgerTokenShared { token, ledger, other });
                }
            }
        }
        keys.into_iter().map(|(label, (key, _))| (label, key)).collect()
    }

    fn key(&mut self, form: KeyForm, at: usize, purpose: Option<Purpose>) -> Key {
        let KeyForm { label, r#use: key_use, token, copies, modes, originator, activation, contingency } = form;
        let (allowed, expected, commands) = match key_use {
            KeyUse::Ledger => (None, "[]: it signs checkpoints and nothing else", false),
            KeyUse::Recovery => (Some(8), "[8] or []", true),
            KeyUse::Contingency => (Some(9), "[9] or []", true),
        };
        for found in modes.iter().copied().filter(|&mode| Some(mode) != allowed) {
            self.fault(KEYS, Some(at), PolicyFault::Mode { key: label.clone(), key_use, expected, found });
        }
        let originator_fault = match (commands, originator) {
            (true, None) => Some("originator, the EUI-64 under which it signs commands; found none"),
            (false, Some(_)) => Some("no originator: a ledger key signs no commands"),
            (true, Some(_)) | (false, None) => None,
        };
        if let Some(expected) = originator_fault {
            self.fault(KEYS, Some(at), PolicyFault::Originator { key: label.clone(), expected });
        }
        if commands && activation == Activation::Stored && purpose == Some(Purpose::Live) {
            self.fault(KEYS, Some(at), PolicyFault::StoredLive { key: label.clone(), key_use });
        }
        let mut named = BTreeMap::new();
        for CopyForm { token: copy, by } in copies {
            if copy == token || named.insert(copy.clone(), by).is_some() {
                let name = format!("{copy} of key {label}");
                self.fault(KEYS, Some(at), PolicyFault::Twice { what: "token", name });
            }
        }
        let modes = modes.into_iter().collect();
        let contingency = self.contingency((&label, key_use), contingency, at, purpose);
        Key { label, key_use, token, copies: named, modes, originator, activation, contingency }
    }

    /// What is wanted of a contingency key's material, said or not; of another key nothing is.
    fn contingency(
        &mut self,
        (key, key_use): (&KeyLabel, KeyUse),
        form: Option<ContingencyForm>,
        at: usize,
        purpose: Option<Purpose>,
    ) -> Option<ContingencyRules> {
        if key_use != KeyUse::Contingency {
            if form.is_some() {
                self.fault(KEYS, Some(at), PolicyFault::NotContingency { key: key.clone(), key_use });
            }
            return None;
        }
        let ContingencyForm { wrap_algorithm, wrap_with_trusted } = form.unwrap_or_default();
        if wrap_with_trusted == WrapWithTrusted::NotEnforced && purpose == Some(Purpose::Live) {
            self.fault(KEYS, Some(at), PolicyFault::NotTrustedLive { key: key.clone() });
        }
        let wrap_algorithm = wrap_algorithm.unwrap_or(WRAP_ALGORITHM_DEFAULT);
        if !matches!(wrap_algorithm, WrapAlgorithm::Aes128Gcm | WrapAlgorithm::Aes256Gcm) {
            self.fault(KEYS, Some(at), PolicyFault::NotWrittenInTokens { key: key.clone(), found: wrap_algorithm });
        }
        Some(ContingencyRules { wrap_algorithm, wrap_with_trusted })
    }

    fn custodians(&mut self, form: &CustodiansForm, roster: Option<&Roster>) -> Custodians {
        let (people, parties) = roster.map_or((u64::from(u32::MAX), None), |roster| {
            let holds = |p: &&Person| p.roles.contains(&Role::KeyCustodian) && !p.shares.is_empty();
            let parties: BTreeSet<_> = roster.persons().filter(holds).map(|p| &p.party).collect();
            (roster.persons().filter(holds).count() as u64, Some(parties.len() as u64))
        });
        // Below 2 nothing is shared; above the number of custodians nothing could ever be activated.
        let threshold = self.number((CUSTODIANS, "threshold"), Some(&form.threshold), 0, (2, people.max(2)));
        if people < 2 {
            let fault =
                PolicyFault::Number { field: "key-custodians with a share", min: 2, max: u64::MAX, found: people };
            self.fault(PERSONS, None, fault);
        }
        let bounds = (2, u64::from(threshold.max(2)));
        let parties_min =
            self.number((CUSTODIANS, "parties_min"), form.parties_min.as_ref(), PARTIES_MIN_DEFAULT, bounds);
        if let Some(found) = parties.filter(|&found| found < u64::from(parties_min)) {
            self.fault(PERSONS, None, PolicyFault::Parties { parties_min, found });
        }
        let gather_minutes = self.number(
            (CUSTODIANS, "gather_minutes"),
            form.gather_minutes.as_ref(),
            GATHER_MINUTES_DEFAULT,
            (1, GATHER_MINUTES_MAX),
        );
        let statement_hours_max = self.number(
            (CUSTODIANS, "statement_hours_max"),
            form.statement_hours_max.as_ref(),
            STATEMENT_HOURS_MAX_DEFAULT,
            (1, STATEMENT_HOURS_MAX),
        );
        Custodians { threshold, parties_min, gather_minutes, statement_hours_max }
    }

    fn guidance(&mut self, form: GuidanceForm) -> Guidance {
        let GuidanceForm { version: _, edition, factor, criterion } = form;
        let mut seen = BTreeSet::new();
        let mut twice = |id: &FactorId, at: usize, reading: &mut Self| {
            if !seen.insert(id.clone()) {
                let name = id.to_string();
                reading.fault(GUIDANCE, Some(at), PolicyFault::Twice { what: "factor or criterion", name });
            }
        };
        let mut factors = BTreeMap::new();
        for entry in factor {
            twice(&entry.get_ref().id, entry.span().start, self);
            let FactorForm { id, consider, rank, text } = entry.into_inner();
            let rank = rank.map(|rank| self.number((GUIDANCE, "rank"), Some(&rank), 1, (1, RANK_MAX)));
            factors.insert(id, Factor { consider, rank, text });
        }
        let (mut criteria, mut prerequisites) = (BTreeSet::new(), BTreeMap::new());
        for entry in criterion {
            twice(&entry.get_ref().id, entry.span().start, self);
            let CriterionForm { id, step, _text: _ } = entry.into_inner();
            if let Some(step) = step {
                prerequisites.insert(id.clone(), step);
            }
            criteria.insert(id);
        }
        Guidance { edition, factors, criteria, prerequisites }
    }

    /// Criteria may only name steps that the base profile has.
    fn prerequisites(&mut self, guidance: Option<&Guidance>, procedure: Option<&Procedure>) {
        let Some(guidance) = guidance else { return };
        for (criterion, found) in &guidance.prerequisites {
            if procedure.is_none_or(|procedure| procedure.base().step(found).is_none()) {
                let (criterion, found) = (criterion.clone(), found.clone());
                self.fault(GUIDANCE, None, PolicyFault::CriterionStep { criterion, found });
            }
        }
    }

    /// The certificates of one file, as DER.
    fn anchors(&mut self, file: &str) -> Vec<Vec<u8>> {
        let Some(text) = self.text(file) else { return Vec::new() };
        if text.trim_ascii().is_empty() {
            self.fault(file, None, PolicyFault::Anchor { number: 1, found: "an empty file".into() });
            return Vec::new();
        }
        let mut found: Vec<Vec<u8>> = Vec::new();
        let mut blocks = text.split_inclusive("-----END CERTIFICATE-----").peekable();
        while let Some(block) = blocks.next() {
            // What follows the last block may only be white space.
            if blocks.peek().is_none() && !found.is_empty() && block.trim_ascii().is_empty() {
                break;
            }
            let number = found.len() + 1;
            match certificate(block) {
                Ok(der) if found.contains(&der) => {
                    let name = number.to_string();
                    self.fault(file, None, PolicyFault::Twice { what: "certificate", name });
                }
                Ok(der) => found.push(der),
                Err(reason) => {
                    self.fault(file, None, PolicyFault::Anchor { number, found: reason });
                    break;
                }
            }
        }
        found
    }

    /// The layouts of `files.toml`, which may be absent.
    fn layouts(&mut self) -> BTreeMap<FileKind, Layout> {
        let mut layouts = BTreeMap::new();
        if !self.files.contains_key(FILES) {
            return layouts;
        }
        let Some(FilesForm { version: _, layout }) = self.toml(FILES) else { return layouts };
        for entry in layout {
            let at = Some(entry.span().start);
            let LayoutForm { kind, label, columns } = entry.into_inner();
            match Layout::mapped(kind, label.as_str(), &columns) {
                Ok(layout) => {
                    if layouts.insert(kind, layout).is_some() {
                        self.fault(FILES, at, PolicyFault::Twice { what: "layout", name: kind.to_string() });
                    }
                }
                Err(faults) => {
                    for fault in faults {
                        self.fault(FILES, at, PolicyFault::Layout(fault));
                    }
                }
            }
        }
        layouts
    }
}

/// A form that says its version.
trait Versioned {
    fn version(&self) -> &Spanned<u32>;
}

macro_rules! versioned {
    ($($form:ty),*) => {$(
        impl Versioned for $form {
            fn version(&self) -> &Spanned<u32> {
                &self.version
            }
        }
    )*};
}
versioned!(PolicyForm, KeysForm, PersonsForm, CustodiansForm, GuidanceForm, FilesForm);

/// The digest of a key that is given as such, or as PEM.
fn key_digest(text: &str) -> Result<Digest, String> {
    if text.trim_ascii_start().starts_with("-----BEGIN") {
        return spki::digest_of_pem(text).map_err(|fault| fault.to_string());
    }
    text.parse().map_err(|fault: crate::domain::names::NameError| {
        format!("{fault}; expected the SHA-256 of its SPKI, or its PEM (BEGIN PUBLIC KEY)")
    })
}

/// The DER of one PEM block with a certificate, white space around it.
fn certificate(block: &str) -> Result<Vec<u8>, String> {
    let (label, der) = der::pem::decode_vec(block.trim_ascii().as_bytes()).map_err(|e| e.to_string())?;
    if label != "CERTIFICATE" {
        return Err(format!("BEGIN {label}"));
    }
    // Whole and nothing more; what the certificate says is checked where it is relied on.
    Certificate::from_der(&der).map_err(|e| e.to_string())?;
    Ok(der)
}
