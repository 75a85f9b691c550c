//! Pure. The documents that PMA members sign, read strictly and kept as they lie.
//!
//! Each is UTF-8 JSON with its type and version inside the signed octets. It is never re-encoded: what is hashed, signed,
//! stored and exported are the octets that were read ([`Written::octets`]).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::json;
use super::prose::Prose;
pub use crate::domain::ledger::entry::Compromised;
pub use crate::domain::ledger::steps::Method;
use crate::domain::names::{
    DeterminationId, Digest, FactorId, IncidentId, KeyLabel, Origin, PersonId, Purpose, TemplateName,
};
use crate::domain::time::Window;

/// Templates in one document: one for each kind of Device and of credentials held. No official reference.
pub const TEMPLATES_MAX: usize = 16;

/// Octets of one template: twice a CS02b Command with nine certificates (GBCS 13.3).
pub const TEMPLATE_LEN_MAX: usize = 8 * 1024;

/// Octets of one document: [`TEMPLATES_MAX`] templates of [`TEMPLATE_LEN_MAX`] in base64 (174,763) and 85,000 for the rest.
pub const DOCUMENT_LEN_MAX: usize = 256 * 1024;

/// Factors in one determination. No official reference.
pub const FACTORS_MAX: usize = 64;

/// A form of document: what a JSON object of one type says.
pub trait Form: Serialize + for<'de> Deserialize<'de> {
    /// What stands under `type`.
    const TYPE: &'static str;

    /// Every fault that single fields do not show.
    fn faults(&self) -> Vec<DocumentFault>;
}

/// A form that somebody proposes and the members of a policy approve.
pub trait Proposed: Form {
    /// Who drafted it, and so may not approve it.
    fn proposer(&self) -> &PersonId;
    /// The digest of the policy under which it is approved.
    fn policy(&self) -> Digest;
    /// The head of the ledger that its drafter saw.
    fn ledger(&self) -> &LedgerHead;
    /// Live or exercise.
    fn purpose(&self) -> Purpose;
}

/// A document: its octets as they lie, their SHA-256, and what they say.
#[derive(Clone, PartialEq, Eq)]
pub struct Written<F> {
    octets: Box<[u8]>,
    digest: Digest,
    form: F,
}

impl<F: Form> Written<F> {
    /// Reads a document.
    ///
    /// # Errors
    /// Every fault, of which there is one only when the JSON itself cannot be read.
    pub fn read(octets: impl Into<Box<[u8]>>) -> Result<Self, Vec<DocumentFault>> {
        let octets: Box<[u8]> = octets.into();
        if octets.len() > DOCUMENT_LEN_MAX {
            return Err(vec![DocumentFault::Length { found: octets.len() }]);
        }
        let form: F = json::strict(&octets).map_err(|found| vec![DocumentFault::Json { kind: F::TYPE, found }])?;
        let faults = form.faults();
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self { digest: Digest::of(&octets), octets, form })
    }

    /// Writes a document for the first and only time: JSON over several lines, fields in the order of the form, ending
    /// in a line feed. What is written is read again, so that no draft leaves that would be refused later.
    pub fn write(form: &F) -> Result<Self, Vec<DocumentFault>> {
        let mut octets = serde_json::to_vec_pretty(form).expect("a form has only text keys and finite numbers");
        octets.push(b'\n');
        Self::read(octets)
    }
}

impl<F> Written<F> {
    /// The octets as they lie: what is hashed, signed and stored.
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// SHA-256 of the octets, by which signatures are bound to the document.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What the document says.
    pub fn form(&self) -> &F {
        &self.form
    }
}

impl<F: fmt::Debug> fmt::Debug for Written<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Written").field("digest", &self.digest).field("form", &self.form).finish_non_exhaustive()
    }
}

/// A document of any of the types that concern determinations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// What the PMA determined; one with `supersedes` takes another's place.
    Determination(Box<Written<Determination>>),
    /// The scope of a determination that left it open.
    Schedule(Box<Written<Schedule>>),
    /// The end of a determination.
    Withdrawal(Box<Written<Withdrawal>>),
    /// A pause of it, by one member.
    Suspension(Box<Written<Suspension>>),
}

impl Document {
    /// Reads a document of whichever type it says it is.
    pub fn read(octets: &[u8]) -> Result<Self, Vec<DocumentFault>> {
        #[derive(Deserialize)]
        struct Typed {
            r#type: String,
        }
        if octets.len() > DOCUMENT_LEN_MAX {
            return Err(vec![DocumentFault::Length { found: octets.len() }]);
        }
        let Typed { r#type } =
            json::strict(octets).map_err(|found| vec![DocumentFault::Json { kind: "smkid-…/v1", found }])?;
        // Not a match on a closed enum: the types are texts, and there are others than ours.
        if r#type == Determination::TYPE {
            Ok(Self::Determination(Box::new(Written::read(octets)?)))
        } else if r#type == Schedule::TYPE {
            Ok(Self::Schedule(Box::new(Written::read(octets)?)))
        } else if r#type == Withdrawal::TYPE {
            Ok(Self::Withdrawal(Box::new(Written::read(octets)?)))
        } else if r#type == Suspension::TYPE {
            Ok(Self::Suspension(Box::new(Written::read(octets)?)))
        } else {
            Err(vec![DocumentFault::Type {
                expected: "smkid-determination/v1, smkid-schedule/v1, smkid-withdrawal/v1 or smkid-suspension/v1",
                found: r#type.chars().take(80).collect(),
            }])
        }
    }

    /// SHA-256 of its octets.
    pub fn digest(&self) -> Digest {
        match self {
            Self::Determination(d) => d.digest(),
            Self::Schedule(d) => d.digest(),
            Self::Withdrawal(d) => d.digest(),
            Self::Suspension(d) => d.digest(),
        }
    }
}

/// Why a document is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentFault {
    /// Too large.
    #[error("document: expected at most {DOCUMENT_LEN_MAX} octets, found {found}")]
    Length {
        /// In octets.
        found: usize,
    },
    /// Not the JSON of this type.
    #[error("{kind}: {found}")]
    Json {
        /// The type that was read.
        kind: &'static str,
        /// What the reader said, with line and column.
        found: String,
    },
    /// Another type, or another version.
    #[error("type: expected {expected}, found {found:?}")]
    Type {
        /// The types known here.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// A field that this decision needs.
    #[error("{field}: expected, because {because}; found none")]
    Missing {
        /// Which.
        field: &'static str,
        /// Why it is needed.
        because: &'static str,
    },
    /// A field that this decision must not have.
    #[error("{field}: expected none, because {because}; remove it")]
    Surplus {
        /// Which.
        field: &'static str,
        /// Why it must not stand there.
        because: &'static str,
    },
    /// No moment inside.
    #[error("window: expected `until` after `from`, found {found}")]
    Window {
        /// The window.
        found: Window,
    },
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
    /// Two things of one name.
    #[error("{field}: {name} stands there twice; name each once")]
    Twice {
        /// Which list.
        field: &'static str,
        /// The name.
        name: String,
    },
    /// It would take its own place.
    #[error("supersedes: a determination cannot supersede itself, {id}")]
    SupersedesItself {
        /// Its id.
        id: DeterminationId,
    },
}

/// The head of the ledger that a drafter saw: it must be a prefix of ours, contain the incident and be recent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerHead {
    /// Which ledger.
    pub origin: Origin,
    /// How many entries it had.
    pub size: u64,
    /// Its RFC 9162 root.
    pub root: Digest,
}

/// Whether the keys shall be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// They shall.
    Execute,
    /// They shall not: a decision like the other, which opens nothing.
    NotExecute,
}

/// The key that a determination opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyChosen {
    /// As the policy calls it.
    pub label: KeyLabel,
    /// SHA-256 of its DER SubjectPublicKeyInfo.
    pub spki_sha256: Digest,
}

/// That the Contingency Symmetric Key of the chosen key is released into these commands, and with which Root OCA Certificate before and
/// after. Whoever sees such a command has the symmetric key from then on: it is spent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SymmetricKeyLine {
    /// SHA-256 of the DER Root OCA Certificate that the Devices hold, which carries the key's wrapped public half.
    pub root_sha256: Digest,
    /// The next generation: the contingency key whose wrapped public half the new Root OCA Certificate carries.
    pub next: KeyLabel,
    /// SHA-256 of the DER of that certificate: the very root that the Devices hold afterwards.
    pub next_root_sha256: Digest,
}

/// Which way a factor weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weight {
    /// Towards using the keys.
    Towards,
    /// Against it.
    Against,
    /// Considered, and found to weigh neither way.
    Neither,
    /// A criterion or step of the Guidance, which is met and weighs nothing.
    Met,
}

/// A factor or criterion of the SMKI Recovery Key Guidance, and what the PMA made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Factor {
    /// As the policy's `guidance.toml` calls it.
    pub id: FactorId,
    /// Which way it weighed.
    pub weight: Weight,
    /// Why.
    pub comment: Prose,
}

/// What limits signing. All count intents, never outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Intents in all.
    pub intents: u64,
    /// Intents in any hour.
    pub per_hour: u64,
    /// How often one unknown may be signed again, as the same octets.
    pub retries_of_unknown: u32,
    /// Whether the daemon may do so by itself.
    pub retry_by_itself: bool,
}

/// A complete CommandPayload but for the place where the counter stands, so that what is approved is what is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// By what the device list calls it.
    pub name: TemplateName,
    /// Its octets.
    pub payload: Payload,
}

/// The octets of a template: base64 (RFC 4648 section 4, padded, no line breaks) in the document.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(Box<[u8]>);

impl Payload {
    /// 1 to [`TEMPLATE_LEN_MAX`] octets.
    pub fn new(octets: impl Into<Box<[u8]>>) -> Result<Self, DocumentFault> {
        let octets = octets.into();
        if (1..=TEMPLATE_LEN_MAX).contains(&octets.len()) {
            return Ok(Self(octets));
        }
        let (max, found) = (TEMPLATE_LEN_MAX as u64, octets.len() as u64);
        Err(DocumentFault::Number { field: "octets of templates.payload", min: 1, max, found })
    }

    /// The octets.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} octets, SHA-256 {})", self.0.len(), Digest::of(&self.0))
    }
}

impl Serialize for Payload {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let text = String::deserialize(deserializer)?;
        let octets = STANDARD.decode(text).map_err(|e| D::Error::custom(format!("expected base64, found {e}")))?;
        Self::new(octets).map_err(D::Error::custom)
    }
}

/// The device list, which lies beside the document ([`super::devices`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceList {
    /// How many Devices it has.
    pub count: u64,
    /// SHA-256 of the file, as `sha256sum` prints it.
    pub sha256: Digest,
    /// RFC 6962 root over its lines without their line feeds.
    pub root: Digest,
}

/// What may be signed for whom, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The command templates.
    pub templates: &'a [Template],
    /// The Devices.
    pub devices: DeviceList,
    /// The limits.
    pub limits: Limits,
}

/// That the scope is settled by a schedule. A word and no flag, so that leaving out the scope by mistake is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScopeLeft {
    /// By a `smkid-schedule/v1`, before which nothing can be signed.
    Later,
}

/// `smkid-determination/v1`: what the PMA determined about one incident and one Compromised certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Determination {
    /// [`Form::TYPE`].
    pub r#type: Type<Self>,
    /// Live or exercise.
    pub purpose: Purpose,
    /// 128 random bits, single use.
    pub id: DeterminationId,
    /// The incident.
    pub incident: IncidentId,
    /// The number of the decision within the incident, from 1.
    pub decision_number: u32,
    /// Who drafted it.
    pub proposer: PersonId,
    /// The head that the drafter saw.
    pub ledger: LedgerHead,
    /// The digest of the policy in force.
    pub policy: Digest,
    /// Execute or not.
    pub decision: Decision,
    /// What is to be replaced.
    pub compromised: Compromised,
    /// What the PMA weighed.
    pub factors: Vec<Factor>,
    /// When it may be acted on.
    pub window: Window,
    /// Whose place it takes, or null. The field is always there.
    #[serde(deserialize_with = "Option::deserialize")]
    pub supersedes: Option<DeterminationId>,
    /// The key that it opens. With `execute` only, as all that follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyChosen>,
    /// By which way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// That the Contingency Symmetric Key is released into these commands: with method contingency, and with no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub symmetric_key: Option<SymmetricKeyLine>,
    /// Every counter is above this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter_start: Option<u64>,
    /// `"later"`, instead of the three that follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScopeLeft>,
    /// The command templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub templates: Option<Vec<Template>>,
    /// The Devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<DeviceList>,
    /// The limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

impl Determination {
    /// What may be signed, unless it is left to a schedule or nothing shall be.
    pub fn scope(&self) -> Option<Scope<'_>> {
        match (&self.templates, self.devices, self.limits) {
            (Some(templates), Some(devices), Some(limits)) => Some(Scope { templates, devices, limits }),
            (None, _, _) | (_, None, _) | (_, _, None) => None,
        }
    }
}

impl Form for Determination {
    const TYPE: &'static str = "smkid-determination/v1";

    fn faults(&self) -> Vec<DocumentFault> {
        let mut faults = Vec::new();
        if self.decision_number == 0 {
            let max = u64::from(u32::MAX);
            faults.push(DocumentFault::Number { field: "decision_number", min: 1, max, found: 0 });
        }
        if self.window.is_empty() {
            faults.push(DocumentFault::Window { found: self.window });
        }
        if self.supersedes == Some(self.id) {
            faults.push(DocumentFault::SupersedesItself { id: self.id });
        }
        if self.factors.len() > FACTORS_MAX {
            let (max, found) = (FACTORS_MAX as u64, self.factors.len() as u64);
            faults.push(DocumentFault::Number { field: "factors", min: 0, max, found });
        }
        faults.extend(twice("factors", self.factors.iter().map(|f| f.id.as_str())));
        self.check_presence(&mut faults);
        if let Some(scope) = self.scope() {
            scope.faults(&mut faults);
        }
        faults
    }
}

impl Determination {
    /// Which fields there must be and which there must not be.
    fn check_presence(&self, faults: &mut Vec<DocumentFault>) {
        let mut demand = |field, present: bool, wanted: bool, because| match (present, wanted) {
            (true, true) | (false, false) => {}
            (false, true) => faults.push(DocumentFault::Missing { field, because }),
            (true, false) => faults.push(DocumentFault::Surplus { field, because }),
        };
        let executes = self.decision == Decision::Execute;
        let because = if executes { "the decision is execute" } else { "the decision is not-execute" };
        demand("key", self.key.is_some(), executes, because);
        demand("method", self.method.is_some(), executes, because);
        demand("counter_start", self.counter_start.is_some(), executes, because);
        let releases = self.method == Some(Method::Contingency);
        let why = if releases {
            "by the Contingency route the Contingency Symmetric Key is released into the commands, which takes a line of its own"
        } else {
            "only by the Contingency route is a Contingency Symmetric Key released"
        };
        demand("symmetric_key", self.symmetric_key.is_some(), releases, why);
        if !executes {
            demand("schedule", self.schedule.is_some(), false, because);
        }
        let here = executes && self.schedule.is_none();
        let because = match (executes, here) {
            (true, true) => "the scope is settled here, or else by `\"schedule\": \"later\"`",
            (true, false) => "`schedule` says that the scope is settled later",
            (false, true | false) => because,
        };
        demand("templates", self.templates.is_some(), here, because);
        demand("devices", self.devices.is_some(), here, because);
        demand("limits", self.limits.is_some(), here, because);
    }
}

impl Scope<'_> {
    /// Every fault in templates, list and limits.
    fn faults(&self, faults: &mut Vec<DocumentFault>) {
        let mut number = |field, min, max, found| {
            if !(min..=max).contains(&found) {
                faults.push(DocumentFault::Number { field, min, max, found });
            }
        };
        number("templates", 1, TEMPLATES_MAX as u64, self.templates.len() as u64);
        number("devices.count", 1, u64::MAX, self.devices.count);
        // Beyond one intent for each Device and each retry, a limit would limit nothing.
        let most = self.devices.count.saturating_mul(u64::from(self.limits.retries_of_unknown) + 1).max(1);
        number("limits.intents", 1, most, self.limits.intents);
        number("limits.per_hour", 1, u64::MAX, self.limits.per_hour);
        faults.extend(twice("templates", self.templates.iter().map(|t| t.name.as_str())));
        if self.limits.retry_by_itself && self.limits.retries_of_unknown == 0 {
            let because = "limits.retries_of_unknown is 0";
            faults.push(DocumentFault::Surplus { field: "limits.retry_by_itself: true", because });
        }
    }
}

/// `smkid-schedule/v1`: the scope of a determination that left it open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// [`Form::TYPE`].
    pub r#type: Type<Self>,
    /// Live or exercise.
    pub purpose: Purpose,
    /// Which determination.
    pub determination: DeterminationId,
    /// SHA-256 of the determination's octets: an id alone binds nothing.
    pub document: Digest,
    /// Who drafted it.
    pub proposer: PersonId,
    /// The head that the drafter saw.
    pub ledger: LedgerHead,
    /// The digest of the policy in force.
    pub policy: Digest,
    /// The command templates.
    pub templates: Vec<Template>,
    /// The Devices.
    pub devices: DeviceList,
    /// The limits.
    pub limits: Limits,
}

impl Schedule {
    /// What may be signed.
    pub fn scope(&self) -> Scope<'_> {
        Scope { templates: &self.templates, devices: self.devices, limits: self.limits }
    }
}

impl Form for Schedule {
    const TYPE: &'static str = "smkid-schedule/v1";

    fn faults(&self) -> Vec<DocumentFault> {
        let mut faults = Vec::new();
        self.scope().faults(&mut faults);
        faults
    }
}

/// `smkid-withdrawal/v1`: the end of a determination, before the next signature. Needs the quorum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Withdrawal {
    /// [`Form::TYPE`].
    pub r#type: Type<Self>,
    /// Live or exercise.
    pub purpose: Purpose,
    /// Which determination.
    pub determination: DeterminationId,
    /// SHA-256 of the determination's octets.
    pub document: Digest,
    /// Who drafted it.
    pub proposer: PersonId,
    /// The head that the drafter saw.
    pub ledger: LedgerHead,
    /// The digest of the policy in force.
    pub policy: Digest,
    /// Why.
    pub reason: Prose,
}

impl Form for Withdrawal {
    const TYPE: &'static str = "smkid-withdrawal/v1";

    fn faults(&self) -> Vec<DocumentFault> {
        Vec::new()
    }
}

/// `smkid-suspension/v1`: a pause of a determination, by one member, once, for the hours the policy allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suspension {
    /// [`Form::TYPE`].
    pub r#type: Type<Self>,
    /// Live or exercise.
    pub purpose: Purpose,
    /// Which determination.
    pub determination: DeterminationId,
    /// SHA-256 of the determination's octets.
    pub document: Digest,
    /// The PMA member who suspends it, and signs.
    pub member: PersonId,
    /// For how long, from the moment it is recorded.
    pub hours: u32,
    /// The head that the member saw.
    pub ledger: LedgerHead,
    /// The digest of the policy in force.
    pub policy: Digest,
    /// Why.
    pub reason: Prose,
}

impl Form for Suspension {
    const TYPE: &'static str = "smkid-suspension/v1";

    fn faults(&self) -> Vec<DocumentFault> {
        if self.hours == 0 {
            return vec![DocumentFault::Number { field: "hours", min: 1, max: u64::from(u32::MAX), found: 0 }];
        }
        Vec::new()
    }
}

macro_rules! proposed {
    ($($form:ty),*) => {$(
        impl Proposed for $form {
            fn proposer(&self) -> &PersonId {
                &self.proposer
            }
            fn policy(&self) -> Digest {
                self.policy
            }
            fn ledger(&self) -> &LedgerHead {
                &self.ledger
            }
            fn purpose(&self) -> Purpose {
                self.purpose
            }
        }
    )*};
}
proposed!(Determination, Schedule, Withdrawal);

/// The text under `type`: there is one for each form, and it stands inside the signed octets, so that no document is
/// ever taken for one of another type.
pub struct Type<F>(std::marker::PhantomData<fn() -> F>);

impl<F> Type<F> {
    /// The only value.
    pub const fn new() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<F> Default for Type<F> {
    fn default() -> Self {
        Self::new()
    }
}

impl<F> Clone for Type<F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F> Copy for Type<F> {}

impl<F> PartialEq for Type<F> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<F> Eq for Type<F> {}

impl<F: Form> fmt::Debug for Type<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(F::TYPE)
    }
}

impl<F: Form> Serialize for Type<F> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(F::TYPE)
    }
}

impl<'de, F: Form> Deserialize<'de> for Type<F> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = String::deserialize(deserializer)?;
        if found == F::TYPE {
            return Ok(Self::new());
        }
        let expected = F::TYPE;
        Err(serde::de::Error::custom(DocumentFault::Type { expected, found: found.chars().take(80).collect() }))
    }
}

/// Names that stand in a list more than once.
pub(in crate::domain) fn twice<'a>(field: &'static str, names: impl Iterator<Item = &'a str>) -> Vec<DocumentFault> {
    let mut seen = std::collections::BTreeSet::new();
    names.filter(|name| !seen.insert(*name)).map(|name| DocumentFault::Twice { field, name: name.into() }).collect()
}

#[cfg(test)]
pub(in crate::domain) mod tests;
