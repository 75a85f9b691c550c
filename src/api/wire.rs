//! Shell. What goes over the socket: the types of requests and answers, shared by daemon, CLI and OpenAPI document.
//!
//! Requests refuse unknown fields, so that a misspelt one is not taken for absent. Answers may gain fields.

mod ceremony;
mod contingency;
mod fetch;
mod files;
mod incident;
mod jobs;
mod procedure;
mod responses;
mod tokens;

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

pub use incident::{DeviceEvent, DeviceHistory, Done, Duty, Happened, Next, Progress, StepAsk, StoryOf, Timeline};

use crate::domain::ledger::contingency::OtherKey;
use crate::domain::ledger::entry::{ClockState, Compromised, Reason};
use crate::domain::ledger::steps::Notification;
use crate::domain::names::{
    DeterminationId, DeviceId, Digest, IncidentId, KeyLabel, KeyUse, Origin, PersonId, PresentationId, Purpose,
    RequestId, ShareName, TemplateName, TokenName,
};
use crate::domain::policy::facts;
use crate::domain::time::Timestamp;

pub use ceremony::CeremonyRecord;
pub use contingency::{CheckedRoot, ContingencyState, SpentFor, SymmetricRelease, SymmetricReleased};
pub use fetch::{AnswerForm, AnswerWriter, Form, RecoveryFetch};
pub use files::{Act, Activity, ActivityOf, Did, ExerciseRecord, File, FileSubmit, Files};
pub use jobs::{DeviceRefused, Job, JobAct, JobCount, JobStart, JobState, JobTally, Jobs, JobsOf, RuleCount};
pub use procedure::{Explanation, Instant, ProcedureOf};
pub use tokens::{LoginRetried, TokenCircuit, TokenStanding, TokenState, Tokens};

pub use responses::{
    CertificateRefused, CertificatesImported, DeviceCertificates, DeviceState, DevicesOf, RecoveryDevice,
    RecoveryDevices, RecoveryResponses, RecoveryResume, ResponseItem, ResponsesSummary, ResponsesSummaryLine,
    StateWanted,
};

/// Octets, in base64 with padding (RFC 4648 4).
#[derive(Clone, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl fmt::Debug for Base64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Base64({} octets)", self.0.len())
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Right where it goes: a text of its own would not be wiped.
        serializer.collect_str(&Base64Display::new(&self.0, &STANDARD))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Base64;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("octets in base64 with padding")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Base64, E> {
                STANDARD.decode(text).map(Base64).map_err(|error| E::custom(format!("not base64: {error}")))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::String))
}

impl PartialSchema for Base64 {
    fn schema() -> RefOr<Schema> {
        text().content_encoding("base64").pattern(Some("^[A-Za-z0-9+/]*={0,2}$")).into()
    }
}

impl ToSchema for Base64 {
    fn name() -> Cow<'static, str> {
        "Base64".into()
    }
}

/// Why somebody did something, in their words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Why {
    /// The reason, as it is to stand in the ledger.
    pub reason: String,
}

/// What somebody says who compared the clock with another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClockAccept {
    /// What the other clock says.
    #[schema(value_type = String)]
    pub time: Timestamp,
    /// Which clock it is, and why this one was off, as it is to stand in the ledger.
    pub reason: String,
}

/// Something was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Recorded {
    /// The index of the ledger entry.
    pub entry: u64,
}

/// What the daemon is doing and whether it can sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// Live or exercise.
    pub purpose: Purpose,
    /// The origin of the ledger.
    #[schema(value_type = String)]
    pub origin: Origin,
    /// The leaf hash of the genesis entry.
    #[schema(value_type = String)]
    pub genesis: Digest,
    /// How far it has come.
    pub state: ServiceState,
    /// What stands in the way, each with what to do; empty if nothing does.
    pub problems: Vec<Trouble>,
    /// The daemon's clock.
    pub clock: Clock,
    /// The head of the ledger.
    pub ledger: Head,
    /// The policy in force.
    pub policy: Option<PolicyHead>,
    /// Every key of ours.
    pub keys: Vec<KeyState>,
    /// Every token of the configuration and how it stands.
    #[serde(default)]
    pub tokens: Vec<TokenStanding>,
    /// The number of incidents that are open.
    pub incidents_open: u64,
    /// The number of determinations in force.
    pub determinations_in_force: u64,
    /// The number of intents whose outcome nobody knows.
    pub unknowns: u64,
    /// Jobs that are not over, by how they stand.
    #[serde(default)]
    pub jobs: Vec<JobCount>,
    /// What is due and stands in nobody's way, each with what to do.
    #[serde(default)]
    pub reminders: Vec<Trouble>,
}

/// How far the daemon has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceState {
    /// Everything works.
    Ready,
    /// It answers reads; something must be done before it records or signs.
    ReadOnly,
    /// It is stopping.
    Stopping,
}

/// Something that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Trouble {
    /// What.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// The daemon's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Clock {
    /// The time that entries get and by which things are decided: while the clock is not trusted, carried on by the monotonic
    /// clock from the last moment that could be relied on.
    #[schema(value_type = String)]
    pub now: Timestamp,
    /// What the wall clock says, set for an exercise as below.
    #[schema(value_type = String)]
    pub wall: Timestamp,
    /// Whether it can be relied on: `trusted`, `untrusted` or, in an exercise, `set-for-exercise`.
    #[schema(value_type = String)]
    pub state: ClockState,
    /// By how many milliseconds it was set against this machine's, for an exercise: behind it if negative. 0 if it was not.
    pub offset_ms: i64,
}

/// The head of a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Head {
    /// The number of leaves.
    pub size: u64,
    /// The RFC 9162 root over them.
    #[schema(value_type = String)]
    pub root: Digest,
}

/// Which policy is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyHead {
    /// 1 for the first.
    pub sequence: u64,
    /// Its digest.
    #[schema(value_type = String)]
    pub sha256: Digest,
}

/// One key of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyState {
    /// Its label.
    #[schema(value_type = String)]
    pub key: KeyLabel,
    /// What it is for.
    #[serde(rename = "use")]
    pub use_: KeyUse,
    /// The token it lies on.
    #[schema(value_type = String)]
    pub token: TokenName,
    /// Whether it can be used.
    pub active: bool,
    /// The first moment at which it is locked again.
    #[schema(value_type = Option<String>)]
    pub until: Option<Timestamp>,
    /// For which incident alone it can be used.
    #[schema(value_type = Option<String>)]
    pub incident: Option<IncidentId>,
    /// Why it cannot be used although it is active, if so: no token of its is up.
    pub trouble: Option<Trouble>,
    /// The tokens that the policy gives it, its own first.
    pub tokens: Vec<KeyToken>,
    /// Who presented, where Key Custodians open it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custody: Option<Custody>,
    /// Of a contingency key whose symmetric key was made: how far that has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contingency: Option<ContingencyState>,
}

/// A token of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyToken {
    /// As policy and configuration call it.
    #[schema(value_type = String)]
    pub token: TokenName,
    /// The serial number under which the ceremony found the key there; none if it has not.
    pub serial: Option<String>,
    /// How it stands.
    pub state: KeyTokenState,
    /// What is wrong with it, if anything is.
    pub trouble: Option<Trouble>,
}

/// How a token of a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KeyTokenState {
    /// The key is not active.
    Off,
    /// Logged in, and signs.
    Up,
    /// Its worker is gone, and is brought back.
    Down,
    /// It takes an operator.
    Locked,
    /// The key is active, but was not activated here.
    LeftOut,
}

/// Opens a key for use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyActivate {
    /// For which incident alone.
    #[schema(value_type = String, pattern = "^[A-Z0-9-]{1,40}$")]
    pub incident: IncidentId,
}

/// A Key Custodian presents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Present {
    /// The statement, octet for octet as it was signed.
    pub statement: Base64,
    /// The custodian's detached CMS signature, DER.
    pub signature: Base64,
}

/// What came of a statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PresentationBegun {
    /// The share that is wanted now; none where the HSM itself asks.
    pub share: Option<ShareWanted>,
    /// Where the HSM itself asks: the statement was recorded.
    pub recorded: Option<Presented>,
}

/// The share that a presentation is to bring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShareWanted {
    /// By what it is named when the share comes.
    #[schema(value_type = String, pattern = "^[0-9a-f]{32}$")]
    pub presentation: PresentationId,
    /// To which the share is sealed (HPKE, RFC 9180): a point of P-256, 65 octets, of the vault and for this alone.
    pub seal_to: Base64,
    /// Which.
    #[schema(value_type = String)]
    pub share: ShareName,
    /// Its index in its share set.
    pub index: u16,
    /// The generation of its share set.
    pub generation: u32,
}

/// A share, sealed to the vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SealedShare {
    /// The sender's point of 65 octets, the ciphertext, a tag of 16.
    pub sealed: Base64,
}

/// A Key Custodian presented.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Presented {
    /// The index of the ledger entry.
    pub entry: u64,
    /// Who presented by now.
    pub standing: Custody,
}

/// Who presented for a key that Key Custodians open, and who still can.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Custody {
    /// The generation of the shares that were dealt last; none where the HSM itself asks, and before the first deal.
    pub generation: Option<u32>,
    /// How many of those who presented count.
    pub have: u32,
    /// How many are needed.
    pub need: u32,
    /// Of how many Parties those are who count.
    pub parties: u32,
    /// Of how many they must be.
    pub parties_need: u32,
    /// Whether the key can be activated with them.
    pub enough: bool,
    /// Those who count.
    pub presented: Vec<CustodianStanding>,
    /// Those in force who can still present.
    pub can_present: Vec<CustodianStanding>,
    /// What counts no more, and why.
    pub not_counted: Vec<String>,
}

/// A Key Custodian, and how they stand to a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CustodianStanding {
    /// Who.
    #[schema(value_type = String)]
    pub person: PersonId,
    /// Of which Party.
    pub party: String,
    /// Their share of that generation.
    #[schema(value_type = Option<String>)]
    pub share: Option<ShareName>,
    /// The entry by which they presented.
    pub entry: Option<u64>,
    /// The first moment at which that counts no longer.
    #[schema(value_type = Option<String>)]
    pub until: Option<Timestamp>,
}

/// Activated or locked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyChanged {
    /// The index of the ledger entry.
    pub entry: u64,
    /// The key as it is now.
    pub key: KeyState,
}

/// Opens an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IncidentOpen {
    /// What it shall be called.
    #[schema(value_type = String, pattern = "^[A-Z0-9-]{1,40}$")]
    pub incident: IncidentId,
    /// The certificate whose Private Key is, or may be, Compromised.
    pub certificate_pem: String,
    /// Which key is meant, where it is not the one behind an Organisation Certificate on Devices. The certificate is then the OCA's, the
    /// Recovery Private Key's, or, for contingency material, that of the Root OCA that carries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<OtherKey>,
    /// What was notified.
    pub description: String,
    /// How it came to be known: asked for where the policy in force has the steps of the procedure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notification: Option<Notification>,
}

/// An incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Incident {
    /// Its id.
    #[schema(value_type = String)]
    pub incident: IncidentId,
    /// What is Compromised.
    pub compromised: Compromised,
    /// Which key that is, where it is not the one behind an Organisation Certificate on Devices, and somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<OtherKey>,
    /// What was notified.
    pub description: String,
    /// When it was opened.
    #[schema(value_type = String)]
    pub opened: Timestamp,
    /// When it was closed.
    #[schema(value_type = Option<String>)]
    pub closed: Option<Timestamp>,
    /// What the SMKI PMA determined about it.
    #[schema(value_type = Vec<String>)]
    pub determinations: Vec<DeterminationId>,
    /// How far it has come; none where the policy knew no procedure when it was opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// Every incident, in the order of their opening.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Incidents {
    /// Them.
    pub incidents: Vec<Incident>,
}

/// An upload was kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stored {
    /// Its digest: the name by which a document or request refers to it.
    #[schema(value_type = String)]
    pub sha256: Digest,
    /// Its length in octets.
    pub len: u64,
}

/// Something that somebody signed: determination, schedule, suspension, withdrawal, direction or policy adoption.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// The document, octet for octet as it was signed.
    pub document: Base64,
    /// The detached CMS signatures, one per signer, DER.
    pub signatures: Vec<Base64>,
    /// The device list it refers to, uploaded before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, pattern = "^[0-9a-f]{64}$")]
    pub devices: Option<Digest>,
    /// For the adoption of a policy, and only there: its files, by path relative to the policy's directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_files: Option<std::collections::BTreeMap<String, Base64>>,
    /// For a direction, and only there: its own text, whose SHA-256 the document names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Base64>,
}

/// A signed document was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DocumentRecorded {
    /// The index of the ledger entry.
    pub entry: u64,
    /// The document's digest.
    #[schema(value_type = String)]
    pub sha256: Digest,
    /// What it was, as its `type` says.
    pub kind: String,
    /// Whose signatures were counted.
    #[schema(value_type = Vec<String>)]
    pub signers: Vec<PersonId>,
    /// The determination it is, or is about.
    #[schema(value_type = Option<String>)]
    pub determination: Option<DeterminationId>,
}

/// Where a determination stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Its window has not begun.
    NotYet,
    /// In force, but its scope has not been settled.
    AwaitsSchedule,
    /// In force.
    InForce,
    /// Suspended by a member.
    Suspended,
    /// Withdrawn.
    Withdrawn,
    /// Another one took its place.
    Superseded,
    /// Its window has ended.
    Expired,
    /// The SMKI PMA determined that nothing shall be executed.
    NotExecute,
    /// Not carried over by a later policy.
    NotCarriedOver,
    /// Its incident is closed.
    IncidentClosed,
}

impl From<facts::Standing> for Standing {
    fn from(standing: facts::Standing) -> Self {
        match standing {
            facts::Standing::Withdrawn => Self::Withdrawn,
            facts::Standing::Superseded => Self::Superseded,
            facts::Standing::NotCarriedOver => Self::NotCarriedOver,
            facts::Standing::NotExecute => Self::NotExecute,
            facts::Standing::Expired => Self::Expired,
            facts::Standing::Suspended => Self::Suspended,
            facts::Standing::NotYet => Self::NotYet,
            facts::Standing::AwaitsSchedule => Self::AwaitsSchedule,
            facts::Standing::InForce => Self::InForce,
        }
    }
}

/// A determination, and what was done under it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Determination {
    /// Its id.
    #[schema(value_type = String)]
    pub determination: DeterminationId,
    /// The incident.
    #[schema(value_type = String)]
    pub incident: IncidentId,
    /// Where it stands.
    pub standing: Standing,
    /// The key it is about.
    #[schema(value_type = Option<String>)]
    pub key: Option<KeyLabel>,
    /// The first moment of its window.
    #[schema(value_type = String)]
    pub from: Timestamp,
    /// The first moment after its window.
    #[schema(value_type = String)]
    pub until: Timestamp,
    /// Who proposed it.
    #[schema(value_type = String)]
    pub proposer: PersonId,
    /// Who signed it.
    #[schema(value_type = Vec<String>)]
    pub signers: Vec<PersonId>,
    /// The digest of the document.
    #[schema(value_type = String)]
    pub sha256: Digest,
    /// The digest of the device list.
    #[schema(value_type = Option<String>)]
    pub devices: Option<Digest>,
    /// The number of Devices on it.
    pub devices_count: Option<u64>,
    /// The ledger entry that took it in.
    pub entry: u64,
    /// The number of intents it allows in all; none until it has a schedule.
    pub intents_max: Option<u64>,
    /// What was done under it so far. `intents` are counted against the limit, whatever became of them.
    pub done: Summary,
    /// The document itself.
    pub document: Base64,
}

/// Every determination, in the order of recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Determinations {
    /// Them.
    pub determinations: Vec<Determination>,
}

/// The policy in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Policy {
    /// 1 for the first.
    pub sequence: u64,
    /// Its digest.
    #[schema(value_type = String)]
    pub sha256: Digest,
    /// Live or exercise.
    pub purpose: Purpose,
    /// The ledger entry that adopted it.
    pub entry: u64,
    /// Its files, by path.
    pub files: std::collections::BTreeMap<String, Base64>,
}

/// Asks for recovery commands. Exactly one of `devices` and `pre_commands` is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecoverySign {
    /// Chosen by whoever asks. The same id with the same contents gets the recorded outcome and no second signature.
    #[schema(value_type = String, pattern = "^[0-9a-f]{32}$")]
    pub request: RequestId,
    /// Under which determination.
    #[schema(value_type = String, pattern = "^[0-9a-f]{32}$")]
    pub determination: DeterminationId,
    /// For which Devices of its list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<Devices>,
    /// Commands that someone else made, without signature, in the order in which they are to be signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_commands: Option<Vec<Base64>>,
}

impl RecoverySign {
    /// Which commands are meant, if exactly one of the two fields says so.
    pub fn into_scope(self) -> Option<Scope> {
        match (self.devices, self.pre_commands) {
            (Some(devices), None) => Some(Scope::Devices(devices)),
            (None, Some(commands)) => Some(Scope::PreCommands(commands)),
            (None, None) | (Some(_), Some(_)) => None,
        }
    }

    /// Whether exactly one of the two fields is given.
    pub fn has_one_scope(&self) -> bool {
        self.devices.is_some() != self.pre_commands.is_some()
    }
}

/// Which commands a [`RecoverySign`] is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Made from the determination's templates.
    Devices(Devices),
    /// Made by someone else.
    PreCommands(Vec<Base64>),
}

/// `"all"`, or a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Devices {
    /// Every Device of the determination's list.
    All,
    /// These of them.
    Listed(Vec<DeviceAsk>),
}

/// One Device of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceAsk {
    /// The Device.
    #[schema(value_type = String, pattern = "^[0-9A-F]{16}$")]
    pub device: DeviceId,
}

impl Serialize for Devices {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::Listed(devices) => devices.serialize(serializer),
        }
    }
}

// By hand, because an untagged enum would keep a copy of a long list before reading it, and say less about what is wrong.
impl<'de> Deserialize<'de> for Devices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AllOrList;
        impl<'de> Visitor<'de> for AllOrList {
            type Value = Devices;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"all\" or a list of {device, counter}")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Devices, E> {
                if text == "all" {
                    Ok(Devices::All)
                } else {
                    Err(E::invalid_value(serde::de::Unexpected::Str(text), &self))
                }
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Devices, A::Error> {
                let mut devices = Vec::new();
                while let Some(device) = list.next_element()? {
                    devices.push(device);
                }
                if devices.is_empty() {
                    return Err(A::Error::custom("the list of devices is empty"));
                }
                Ok(Devices::Listed(devices))
            }
        }
        deserializer.deserialize_any(AllOrList)
    }
}

impl PartialSchema for Devices {
    fn schema() -> RefOr<Schema> {
        OneOfBuilder::new()
            .item(text().enum_values(Some(["all"])))
            .item(ArrayBuilder::new().items(DeviceAsk::schema()).min_items(Some(1)))
            .into()
    }
}

impl ToSchema for Devices {
    fn name() -> Cow<'static, str> {
        "Devices".into()
    }
}

/// What became of one command: one line of the answer to sign and settle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Item {
    /// The Device.
    #[schema(value_type = String)]
    pub device: DeviceId,
    /// The template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub template: Option<TemplateName>,
    /// The Originator Counter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter: Option<u64>,
    /// What.
    pub outcome: ItemOutcome,
    /// The signed command, if it was signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Base64>,
    /// The index of the intent, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<u64>,
    /// Every reason, if it was not signed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
}

/// The ends of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ItemOutcome {
    /// Signed, verified, recorded.
    Signed,
    /// Signed and recorded, but not handed over: its determination is not in force, its incident paused, or its Device left out.
    Withheld,
    /// The token answered with an error; nothing was kept.
    Failed,
    /// Provably never submitted to the token.
    NotSigned,
    /// It may have been signed; nobody can tell. See `smkictl recovery settle`.
    Unknown,
    /// Not allowed; no intent was recorded.
    Refused,
    /// An unknown that was left as it is.
    Left,
}

impl fmt::Display for ItemOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signed => "signed",
            Self::Withheld => "withheld",
            Self::Failed => "failed",
            Self::NotSigned => "not signed",
            Self::Unknown => "unknown",
            Self::Refused => "refused",
            Self::Left => "left",
        })
    }
}

impl Item {
    /// Appends its line, with the line feed.
    pub fn append_line(&self, lines: &mut Vec<u8>) {
        serde_json::to_writer(&mut *lines, self).expect("an item is made of texts and numbers, and a Vec takes them");
        lines.push(b'\n');
    }
}

/// How many of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Summary {
    /// Intents recorded.
    pub intents: u64,
    /// Signed.
    pub signed: u64,
    /// Signed and recorded, and not handed over.
    #[serde(default)]
    pub withheld: u64,
    /// Answered with an error by the token.
    pub failed: u64,
    /// Provably never submitted to the token.
    pub not_signed: u64,
    /// Of unknown outcome.
    pub unknown: u64,
    /// Refused.
    pub refused: u64,
    /// Unknowns left as they are.
    pub left: u64,
}

impl Summary {
    /// Counts one more.
    pub fn count(&mut self, outcome: ItemOutcome) {
        *match outcome {
            ItemOutcome::Signed => &mut self.signed,
            ItemOutcome::Withheld => &mut self.withheld,
            ItemOutcome::Failed => &mut self.failed,
            ItemOutcome::NotSigned => &mut self.not_signed,
            ItemOutcome::Unknown => &mut self.unknown,
            ItemOutcome::Refused => &mut self.refused,
            ItemOutcome::Left => &mut self.left,
        } += 1;
    }

    /// Counts what another answer has.
    pub fn add(&mut self, more: &Self) {
        let Self { intents, signed, withheld, failed, not_signed, unknown, refused, left } = *more;
        self.intents += intents;
        self.signed += signed;
        self.withheld += withheld;
        self.failed += failed;
        self.not_signed += not_signed;
        self.unknown += unknown;
        self.refused += refused;
        self.left += left;
    }

    /// All that are not signed.
    pub fn others(&self) -> u64 {
        let Self { intents: _, signed: _, withheld, failed, not_signed, unknown, refused, left } = *self;
        withheld + failed + not_signed + unknown + refused + left
    }
}

/// The last line of the answer to sign and settle. An answer without it was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SummaryLine {
    /// How many of what, over all lines.
    pub summary: Summary,
}

impl SummaryLine {
    /// Appends its line, with the line feed.
    pub fn append_line(&self, lines: &mut Vec<u8>) {
        serde_json::to_writer(&mut *lines, self).expect("a summary is made of numbers, and a Vec takes them");
        lines.push(b'\n');
    }
}

/// The line before the summary of an answer to sign or settle that was stopped: nothing more of it was signed, for these reasons.
/// The Devices that no line names have no command by this request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoppedLine {
    /// Every reason.
    pub stopped: Vec<Reason>,
}

impl StoppedLine {
    /// Appends its line, with the line feed.
    pub fn append_line(&self, lines: &mut Vec<u8>) {
        serde_json::to_writer(&mut *lines, self).expect("reasons are made of texts, and a Vec takes them");
        lines.push(b'\n');
    }
}

/// A line of the answer to sign and settle, as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// What became of one command.
    Item(Box<Item>),
    /// Nothing more of it is signed.
    Stopped(Vec<Reason>),
    /// The end.
    Summary(Summary),
}

impl Line {
    /// Reads a line, with or without its line feed.
    pub fn parse(line: &[u8]) -> Result<Self, serde_json::Error> {
        if line.starts_with(br#"{"summary""#) {
            serde_json::from_slice(line).map(|SummaryLine { summary }| Self::Summary(summary))
        } else if line.starts_with(br#"{"stopped""#) {
            serde_json::from_slice(line).map(|StoppedLine { stopped }| Self::Stopped(stopped))
        } else {
            serde_json::from_slice(line).map(|item| Self::Item(Box::new(item)))
        }
    }
}

/// How far a request has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RequestState {
    /// Its id.
    #[schema(value_type = String)]
    pub request: RequestId,
    /// Under which determination.
    #[schema(value_type = String)]
    pub determination: DeterminationId,
    /// When it was taken in.
    #[schema(value_type = String)]
    pub at: Timestamp,
    /// Whether commands of it are still being signed.
    pub running: bool,
    /// What became of it so far.
    pub done: Summary,
}

/// Whose unknowns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UnknownsOf {
    /// The determination.
    #[schema(value_type = String, pattern = "^[0-9a-f]{32}$")]
    pub determination: DeterminationId,
}

/// Intents whose outcome nobody knows, and that were not settled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Unknowns {
    /// Them, in the order of the Devices.
    pub unknowns: Vec<Unknown>,
    /// Whether there are more than one answer lists: settle these, then ask again.
    #[serde(default)]
    pub more: bool,
}

/// An intent whose outcome nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Unknown {
    /// The Device.
    #[schema(value_type = String)]
    pub device: DeviceId,
    /// The template.
    #[schema(value_type = String)]
    pub template: TemplateName,
    /// The Originator Counter.
    pub counter: u64,
    /// The index of the intent.
    pub intent: u64,
    /// Which attempt it was.
    pub attempt: u32,
    /// When.
    #[schema(value_type = String)]
    pub at: Timestamp,
}

/// Says what is to become of unknowns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecoverySettle {
    /// As in [`RecoverySign`].
    #[schema(value_type = String, pattern = "^[0-9a-f]{32}$")]
    pub request: RequestId,
    /// Under which determination.
    #[schema(value_type = String, pattern = "^[0-9a-f]{32}$")]
    pub determination: DeterminationId,
    /// Of which Devices. A counter says nothing here.
    pub devices: Devices,
    /// What to do.
    pub action: SettleAction,
    /// Why.
    pub reason: String,
}

/// What can become of an unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SettleAction {
    /// The same octets with the same counter are signed again, within the determination's limit.
    Retry,
    /// It stays as it is; nothing more is signed for that Device under the determination.
    Leave,
}

/// Every checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Checkpoints {
    /// C2SP signed notes, oldest first.
    pub checkpoints: Vec<String>,
}

/// A half-open range of leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LeafRange {
    /// The first.
    pub from: u64,
    /// The first no longer in it; at most the size of the ledger.
    pub until: u64,
}

/// Which entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EntriesOf {
    /// From this index; 0 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Until before this index; the size of the ledger if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// Of this kind, such as `determination-recorded`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// About this incident.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, pattern = "^[A-Z0-9-]{1,40}$")]
    pub incident: Option<IncidentId>,
    /// About this determination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, pattern = "^[0-9a-f]{32}$")]
    pub determination: Option<DeterminationId>,
    /// About this Device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, pattern = "^[0-9A-F]{16}$")]
    pub device: Option<DeviceId>,
}

/// Entries that were asked for, at most [`Entries::COUNT_MAX`] at a time.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Entries {
    /// Them, by index.
    pub entries: Vec<EntryAt>,
    /// Where to go on (`from` of the next request); none if these were all.
    pub next: Option<u64>,
}

impl Entries {
    /// An answer of so many entries, each at most 65,535 octets, stays small enough to be held in memory.
    pub const COUNT_MAX: usize = 500;
}

/// One entry.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EntryAt {
    /// Its index.
    pub index: u64,
    /// The leaf, octet for octet as it is hashed.
    #[schema(value_type = Object)]
    pub entry: Box<RawValue>,
}

/// Every document that an entry refers to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Blobs {
    /// Their digests, sorted.
    #[schema(value_type = Vec<String>)]
    pub blobs: Vec<Digest>,
}

#[cfg(test)]
mod tests;
