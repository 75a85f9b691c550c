//! Pure. What the ledger says: one closed enum of events, and their one encoding.
//!
//! A leaf is one UTF-8 JSON object of at most [`LEAF_LEN_MAX`] octets, with the fields in the order in which they stand here:
//!
//! ```json
//! {"v":1,"at":"2017-07-21T10:00:00.000Z","clock":"trusted",
//!  "by":{"account":"alice","role":"operator","channel":"socket"},
//!  "event":{"intent":{"batch":41,"template":"esme","device":"00DB1234567890A0","counter":7000,"attempt":1,"command":"5a41…"}}}
//! ```
//!
//! It is written once and never re-serialised: what is hashed is what was stored. Every document that somebody signed, and
//! everything larger, lies in the blob store and goes in by SHA-256.
//!
//! *Warning:* these types are what lies in ledgers. A new kind of event is one more variant of [`Event`]; a changed
//! meaning is a new version of the entry.

use std::fmt;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

pub use super::ceremonies::{CeremonyRecorded, KeyDestroyed, KeyDestruction, KeyMade};
pub use super::contingency::{
    ContingencyChecked, ContingencyPrepared, OtherKey, RootImported, SymmetricKeySpent, SymmetricRelease,
    SymmetricReleased,
};
pub use super::custody::{CustodianPresented, SharesDealt};
pub use super::jobs::{JobCancelled, JobEnded, JobPassed, JobPaused, JobResumed, JobStarted};
pub use super::snapshots::Snapshot;
pub use super::steps::{
    CertificateTally, DeviceCertificatesImported, DirectionRecorded, ExerciseRecorded, FileAccepted, Notification,
    ProfileInForce, ResponseTally, ResponsesTaken, SigningResumed, StepTaken,
};
pub use super::tokens::{Health, LoginRetried, TokenHealth};
use crate::domain::names::{
    DeterminationId, DeviceId, Digest, DirectionId, IncidentId, KeyId, KeyLabel, KeyUse, Origin, PartyId, PersonId,
    Purpose, RequestId, TemplateName, TokenName,
};
use crate::domain::time::Timestamp;

/// The greatest length of a leaf in octets: a C2SP tlog-tiles entry has a uint16 length.
pub const LEAF_LEN_MAX: usize = 65_535;

/// More octets than nearly every leaf has.
const LEAF_LEN_COMMON: usize = 512;

/// The version that this program writes, and the only one it reads.
pub const VERSION: u8 = 1;

/// One entry of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// [`VERSION`].
    pub v: u8,
    /// When, by the daemon's clock. Never before the entry that precedes it.
    pub at: Timestamp,
    /// What the clock was worth at that moment.
    pub clock: ClockState,
    /// Who asked.
    pub by: Actor,
    /// What.
    pub event: Event,
}

/// Whether the time of an entry can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClockState {
    /// The wall clock and the monotonic one agree since the start.
    Trusted,
    /// The wall clock jumped; nothing is signed until an operator has looked at it.
    Untrusted,
    /// As [`ClockState::Trusted`], of a clock that was set for an exercise: the moment is not that of any other clock. Never
    /// in a live ledger.
    SetForExercise,
}

/// Who asked for what an entry records. An account *asks*; it is never evidence that anyone approved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Actor {
    /// The person whom the policy in force maps the account to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<PersonId>,
    /// The account, as the operating system names it, or `smkid` for what the daemon does by itself.
    pub account: Box<str>,
    /// In which role it acted.
    pub role: Role,
    /// By which way it came.
    pub channel: Channel,
}

impl Actor {
    /// The daemon itself: starts, resumptions, outcomes.
    pub fn daemon() -> Self {
        Self { person: None, account: "smkid".into(), role: Role::Daemon, channel: Channel::Internal }
    }
}

/// What an account may do by its UNIX groups; approving is not among it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Runs the procedure.
    Operator,
    /// Reads everything, changes nothing.
    Auditor,
    /// Any other authenticated account: may deliver signed documents.
    Account,
    /// Whoever conducts a key ceremony at the console.
    Ceremony,
    /// The daemon itself.
    Daemon,
}

/// The way by which a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channel {
    /// The Unix socket, with peer credentials.
    Socket,
    /// The console of the ceremony.
    Console,
    /// The daemon's own doing.
    Internal,
}

/// What happened. Externally tagged: `{"intent":{…}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// The ledger begins. Always, and only, leaf 0.
    Genesis(Genesis),
    /// A policy came into force.
    PolicyAdopted(PolicyAdopted),
    /// A certification request is about to be signed with one of our keys.
    CertificationIntent(CertificationIntent),
    /// The certificate issued for one of our keys was imported, with its path.
    CertificateImported(CertificateImported),
    /// The daemon started.
    Started(Started),
    /// The daemon stopped in order.
    Stopped(Stopped),
    /// An incident was opened.
    IncidentOpened(IncidentOpened),
    /// A step of the procedure was taken.
    StepTaken(StepTaken),
    /// An incident was closed.
    IncidentClosed(IncidentClosed),
    /// A determination of the SMKI PMA with enough signatures was taken in.
    DeterminationRecorded(DeterminationRecorded),
    /// The scope that a determination had left for later was taken in.
    ScheduleRecorded(ScheduleRecorded),
    /// One PMA member suspended a determination.
    DeterminationSuspended(DeterminationSuspended),
    /// The SMKI PMA withdrew a determination.
    DeterminationWithdrawn(DeterminationWithdrawn),
    /// A direction extends a variation of the procedure, or departs from a step of it.
    DirectionRecorded(DirectionRecorded),
    /// The maker's cloning brought a key to a further token.
    KeyCopied(KeyCopied),
    /// Shares of what opens a key's tokens are about to be dealt: what the tokens will have, recorded before the first is changed.
    SharesBegun(SharesDealt),
    /// Key Custodians were given shares of what opens a key's tokens.
    SharesDealt(SharesDealt),
    /// A key was made after genesis.
    KeyMade(KeyMade),
    /// A key is about to be destroyed.
    KeyDestruction(KeyDestruction),
    /// A key is on no token any more.
    KeyDestroyed(KeyDestroyed),
    /// A ceremony came to its end.
    CeremonyRecorded(CeremonyRecorded),
    /// A Key Custodian presented a share, or stated that a key is to be opened.
    CustodianPresented(CustodianPresented),
    /// A key can be used from here on.
    KeyActivated(KeyActivated),
    /// A key can be used no longer.
    KeyLocked(KeyLocked),
    /// A request to sign was taken in: the context of the intents that name it.
    Batch(Batch),
    /// One command is about to be signed. What is counted is intents, whatever becomes of them.
    Intent(Intent),
    /// What became of an intent.
    Outcome(Outcome),
    /// Signed commands are about to be handed to whoever asked.
    Released(Released),
    /// What is to become of an intent whose outcome is unknown.
    Settled(Settled),
    /// Something was asked for and not done.
    Refused(Refused),
    /// Refusals beyond the rate of an account, counted instead of told one by one.
    RefusalsFolded(RefusalsFolded),
    /// The wall clock moved against the monotonic one.
    ClockJumped(ClockJumped),
    /// An operator looked at the clock after a jump and accepted it.
    ClockAccepted(ClockAccepted),
    /// A file of the procedure was taken in.
    FileAccepted(FileAccepted),
    /// The arrangements were rehearsed.
    ExerciseRecorded(ExerciseRecorded),
    /// Responses of Devices were taken in, and what they prove.
    ResponsesTaken(ResponsesTaken),
    /// An operator lets signing under a determination go on that a Response to a foreign command had stopped.
    SigningResumed(SigningResumed),
    /// A token failed, came back, or takes an operator.
    TokenHealth(TokenHealth),
    /// An operator lets the PIN of a token be offered again.
    LoginRetried(LoginRetried),
    /// A job was started: a batch that the daemon runs by itself.
    JobStarted(JobStarted),
    /// Devices of a job for which no intent was recorded.
    JobPassed(JobPassed),
    /// An operator lets a job stand still.
    JobPaused(JobPaused),
    /// An operator lets a paused job go on.
    JobResumed(JobResumed),
    /// An operator ended a job.
    JobCancelled(JobCancelled),
    /// A job came to its end.
    JobEnded(JobEnded),
    /// Certificates of Devices were verified, to be relied on from here on.
    DeviceCertificatesImported(DeviceCertificatesImported),
    /// The state after the entries before this one, by digests.
    Snapshot(Snapshot),
    /// Contingency material was made.
    ContingencyPrepared(ContingencyPrepared),
    /// The Root OCA Certificate that carries a contingency key's wrapped public half was taken in.
    RootImported(RootImported),
    /// The check before any use of contingency material.
    ContingencyChecked(ContingencyChecked),
    /// A Contingency Symmetric Key is spent.
    SymmetricKeySpent(SymmetricKeySpent),
    /// A Contingency Symmetric Key is about to be released into commands.
    SymmetricRelease(SymmetricRelease),
    /// What became of that.
    SymmetricReleased(SymmetricReleased),
}

/// Leaf 0. Its leaf hash is written to every token that holds one of the keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// The first line of every checkpoint.
    pub origin: Origin,
    /// Live or exercise, for ever.
    pub purpose: Purpose,
    /// 128 random bits in hexadecimal, so that no two ledgers begin alike.
    pub nonce: RequestId,
    /// The keys made at the ceremony.
    pub keys: Vec<KeyRecord>,
    /// The digest of the first policy; its adoption is leaf 1.
    pub policy: Digest,
}

/// A key pair on a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// Its `CKA_LABEL`.
    pub label: KeyLabel,
    /// What it is for.
    #[serde(rename = "use")]
    pub use_: KeyUse,
    /// The token, as policy and configuration call it.
    pub token: TokenName,
    /// The serial number of that token at the ceremony.
    pub serial: Box<str>,
    /// Its `CKA_ID`.
    pub id: KeyId,
    /// SHA-256 of its DER SubjectPublicKeyInfo.
    pub spki_sha256: Digest,
    /// The DER SubjectPublicKeyInfo in base64.
    pub spki: Box<str>,
}

impl KeyRecord {
    /// The DER SubjectPublicKeyInfo; empty if the record's base64 is none.
    pub fn spki_octets(&self) -> Vec<u8> {
        STANDARD.decode(&*self.spki).unwrap_or_default()
    }
}

/// A signature of a person over a document, verified when it was taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignatureRecord {
    /// Who, by the policy in force.
    pub person: PersonId,
    /// SHA-256 of the DER SubjectPublicKeyInfo it verified under.
    pub spki: Digest,
    /// The detached CMS signature, a blob.
    pub p7s: Digest,
}

/// A policy came into force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyAdopted {
    /// 1 for the first.
    pub sequence: u32,
    /// The policy's digest. Its `sha256sum` lines are a blob under this digest, each of its files another.
    pub policy: Digest,
    /// The policy before.
    pub predecessor: Option<Digest>,
    /// The adoption document, a blob.
    pub document: Digest,
    /// Who signed it.
    pub signatures: Vec<SignatureRecord>,
    /// The determinations that stay in force; others are suspended.
    pub carries_over: Vec<DeterminationId>,
}

/// A certification request is about to be signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificationIntent {
    /// The key.
    pub key: KeyLabel,
    /// The DER CertificationRequestInfo, a blob: exactly the octets to be signed.
    pub request_info: Digest,
}

/// A certificate for one of our keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateImported {
    /// The key.
    pub key: KeyLabel,
    /// Whose certificate it is: the Business Originator ID of commands signed with the key.
    pub party: PartyId,
    /// The DER certificate, a blob.
    pub certificate: Digest,
    /// The certificates above it, leaf side first, root last; blobs.
    pub path: Vec<Digest>,
}

/// The daemon started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Started {
    /// The program's version.
    pub version: Box<str>,
    /// SHA-256 of the program file.
    pub program: Digest,
    /// SHA-256 of the configuration file.
    pub configuration: Digest,
    /// The first entry that lay under no checkpoint when it started, if any did: nobody was told of what stands from there on, and
    /// what people only said there, without a signature, opens nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconfirmed: Option<u64>,
}

/// The daemon stopped in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stopped {
    /// Why, such as `SIGTERM`.
    pub reason: Box<str>,
}

/// The certificate whose Private Key is, or may be, Compromised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Compromised {
    /// SHA-256 of the DER certificate.
    #[schema(value_type = String)]
    pub certificate_sha256: Digest,
    /// SHA-256 of its DER SubjectPublicKeyInfo: no replacement may carry that key.
    #[schema(value_type = String)]
    pub spki_sha256: Digest,
    /// Its subject: the Relevant Subscriber.
    #[schema(value_type = String)]
    pub party: PartyId,
}

/// An incident was opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncidentOpened {
    /// Its id.
    pub incident: IncidentId,
    /// What is Compromised, or suspected to be. The certificate is a blob.
    pub compromised: Compromised,
    /// Which key that is, where it is not the one behind an Organisation Certificate on Devices. The certificate is then the OCA's, the
    /// Recovery Private Key's, or, for contingency material, that of the Root OCA that carries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<OtherKey>,
    /// What was notified, in the operator's words.
    pub description: Box<str>,
    /// How it came to be known; none where the policy in force knew no procedure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notification: Option<Notification>,
    /// The procedure profile in force; none likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileInForce>,
}

/// An incident was closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncidentClosed {
    /// Its id.
    pub incident: IncidentId,
    /// Why.
    pub reason: Box<str>,
    /// The procedure profile in force; none where the policy has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileInForce>,
    /// The PMA's directions to depart from the procedure that it relied on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub departures: Vec<DirectionId>,
}

/// A determination was taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeterminationRecorded {
    /// Its id.
    pub determination: DeterminationId,
    /// The incident it decides.
    pub incident: IncidentId,
    /// The document, a blob.
    pub document: Digest,
    /// Who signed it.
    pub signatures: Vec<SignatureRecord>,
    /// The device list, a blob; none if the determination has none or leaves it to a schedule.
    pub devices: Option<Digest>,
    /// The policy under which the signatures were counted.
    pub policy: Digest,
    /// The procedure profile in force; none where the policy has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileInForce>,
    /// The PMA's directions to depart from the procedure that the referral, and so the determination, rests on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub departures: Vec<DirectionId>,
}

/// The scope of a determination was taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleRecorded {
    /// The determination it belongs to.
    pub determination: DeterminationId,
    /// The schedule, a blob.
    pub document: Digest,
    /// Who signed it.
    pub signatures: Vec<SignatureRecord>,
    /// The device list, a blob.
    pub devices: Digest,
    /// The policy under which the signatures were counted.
    pub policy: Digest,
    /// The procedure profile in force; none where the policy has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileInForce>,
}

/// A determination was suspended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeterminationSuspended {
    /// Which.
    pub determination: DeterminationId,
    /// The suspension document, a blob.
    pub document: Digest,
    /// Who signed it: one member suffices.
    pub signatures: Vec<SignatureRecord>,
    /// The first moment at which it is in force again.
    pub until: Timestamp,
}

/// A determination was withdrawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeterminationWithdrawn {
    /// Which.
    pub determination: DeterminationId,
    /// The withdrawal document, a blob.
    pub document: Digest,
    /// Who signed it.
    pub signatures: Vec<SignatureRecord>,
}

/// The maker's cloning brought a key to a further token, where a ceremony found it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyCopied {
    /// Which.
    pub key: KeyLabel,
    /// The token that holds it too, as policy and configuration call it.
    pub token: TokenName,
    /// That token's serial number, as it answered.
    pub serial: Box<str>,
    /// SHA-256 of the DER SubjectPublicKeyInfo found there.
    pub spki_sha256: Digest,
    /// The means by which the policy has it cloned.
    pub by: Box<str>,
}

/// A token by its name and its serial number, as it answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenFound {
    /// As policy and configuration call it.
    pub token: TokenName,
    /// Its serial number.
    pub serial: Box<str>,
}

/// A key can be used from here on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyActivated {
    /// Which.
    pub key: KeyLabel,
    /// On which token.
    pub token: TokenName,
    /// That token's serial number, as it answered.
    pub serial: Box<str>,
    /// The first moment at which it is locked again; none for the ledger key, which is open while the daemon runs.
    pub until: Option<Timestamp>,
    /// For which incident alone; none in ledgers that were written before an activation was for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<IncidentId>,
    /// The procedure profile in force; none where the policy has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileInForce>,
    /// The further tokens on which it can be used, in the order of the policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<TokenFound>,
    /// The entries of the Key Custodians who opened it, in their order; none where the PIN is stored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub custodians: Vec<u64>,
}

impl KeyActivated {
    /// Every token on which it can be used, with its serial number.
    pub fn tokens(&self) -> impl Iterator<Item = (&TokenName, &str)> {
        let also = self.also.iter().map(|found| (&found.token, &*found.serial));
        std::iter::once((&self.token, &*self.serial)).chain(also)
    }
}

/// A key can be used no longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyLocked {
    /// Which.
    pub key: KeyLabel,
    /// Why: on demand, at its time limit, at the end of the daemon, after a fault.
    pub reason: Box<str>,
    /// The incident for which it was active, which stands still from here on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<IncidentId>,
}

/// A request to sign was taken in. The intents that follow name this leaf by its index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// The request, as whoever asked calls it.
    pub request: RequestId,
    /// SHA-256 of what was asked: the same id with other contents is refused.
    pub asked: Digest,
    /// The incident.
    pub incident: IncidentId,
    /// The determination under which.
    pub determination: DeterminationId,
    /// The policy in force.
    pub policy: Digest,
    /// The procedure profile in force; none where the policy has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileInForce>,
    /// The key.
    pub key: KeyLabel,
}

/// One command is about to be signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// The index of the [`Batch`] it belongs to.
    pub batch: u64,
    /// The template it was made from.
    pub template: TemplateName,
    /// The Device.
    pub device: DeviceId,
    /// The Originator Counter.
    pub counter: u64,
    /// 1 for the first; more for the same octets again after an unknown outcome.
    pub attempt: u32,
    /// SHA-256 of the octets to be signed (GBCS: from the octet after `DF` to the end of the payload).
    pub command: Digest,
}

/// What became of an intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// The index of the intent.
    pub intent: u64,
    /// What.
    pub result: SignResult,
}

/// The four ends of an intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignResult {
    /// The token signed, and the signature verified. SHA-256 of r‖s, 64 octets.
    Signed(Digest),
    /// The token answered with an error, or with a signature that does not verify; nothing was kept.
    Failed(Box<str>),
    /// Provably never submitted to the token.
    NotSigned(Box<str>),
    /// It may have been signed; nobody can tell.
    Unknown(Box<str>),
}

/// Signed commands are about to be handed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Released {
    /// To which request.
    pub request: RequestId,
    /// Under which determination, in force at this moment.
    pub determination: DeterminationId,
    /// The intents, as half-open ranges of leaf indices in ascending order; those of them that are signed are released.
    pub intents: Vec<(u64, u64)>,
}

/// What is to become of an unknown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settled {
    /// The index of the intent.
    pub intent: u64,
    /// Its determination.
    pub determination: DeterminationId,
    /// Its key.
    pub key: KeyLabel,
    /// Its Device.
    pub device: DeviceId,
    /// Why it is left as it is: nothing more is signed for this Device under this determination.
    pub reason: Box<str>,
}

/// Something was asked for and not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// The operation, by the name of its route.
    pub operation: Box<str>,
    /// What it was about, as far as the request said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<IncidentId>,
    /// Likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub determination: Option<DeterminationId>,
    /// Likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestId>,
    /// Likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    /// SHA-256 of what was asked.
    pub asked: Digest,
    /// Every reason, and not only the first (but no more than a leaf holds: then the last says how many more).
    pub reasons: Vec<Reason>,
}

/// One reason of a refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// The rule, by its stable name, such as `window`.
    #[schema(value_type = String)]
    pub rule: Box<str>,
    /// What was expected, what was found, what to do.
    #[schema(value_type = String)]
    pub text: Box<str>,
}

/// Refusals that were counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusalsFolded {
    /// Whose.
    pub account: Box<str>,
    /// How many.
    pub count: u64,
    /// Since when.
    pub since: Timestamp,
}

/// The wall clock moved against the monotonic one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockJumped {
    /// By how many milliseconds, forwards if positive.
    pub by_ms: i64,
}

/// An operator accepted the clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockAccepted {
    /// What the operator compared it with.
    pub reason: Box<str>,
    /// What the clock says, which is the time from here on; none in ledgers that were written before time was carried on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
}

/// Why octets are not an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Longer than a leaf can be.
    #[error("the entry has {len} octets; a leaf holds at most {LEAF_LEN_MAX}")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// Not JSON of this form.
    #[error("not an entry of this version: {reason}")]
    Form {
        /// What the reader said, with line and column.
        reason: String,
    },
    /// Another version.
    #[error("the entry has version {found}; this program reads version {VERSION}")]
    Version {
        /// What stands there.
        found: u8,
    },
    /// Read and written again, it is not the same octets.
    #[error("the entry is not in its one encoding: fields out of order, white space, or another form of a value")]
    NotCanonical,
}

impl Entry {
    /// The leaf: what is hashed and stored.
    pub fn to_leaf(&self) -> Result<Vec<u8>, EntryError> {
        let mut leaf = Vec::with_capacity(LEAF_LEN_COMMON);
        serde_json::to_writer(&mut leaf, self).expect("an entry is made of texts, numbers and lists of them");
        if leaf.len() > LEAF_LEN_MAX {
            return Err(EntryError::TooLong { len: leaf.len() });
        }
        Ok(leaf)
    }

    /// Reads a leaf.
    pub fn from_leaf(leaf: &[u8]) -> Result<Self, EntryError> {
        if leaf.len() > LEAF_LEN_MAX {
            return Err(EntryError::TooLong { len: leaf.len() });
        }
        let entry: Self =
            serde_json::from_slice(leaf).map_err(|error| EntryError::Form { reason: error.to_string() })?;
        if entry.v != VERSION {
            return Err(EntryError::Version { found: entry.v });
        }
        Ok(entry)
    }

    /// Reads a leaf and insists that it is in the one encoding: for verifiers, which did not see it written.
    pub fn from_canonical_leaf(leaf: &[u8]) -> Result<Self, EntryError> {
        let entry = Self::from_leaf(leaf)?;
        // Written over what is there, octet by octet, and nowhere else.
        let mut left = Same(leaf);
        match serde_json::to_writer(&mut left, &entry) {
            Ok(()) if left.0.is_empty() => Ok(entry),
            Ok(()) | Err(_) => Err(EntryError::NotCanonical),
        }
    }
}

/// Takes what is written as long as it is what stands there.
struct Same<'a>(&'a [u8]);

impl io::Write for Same<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0 = self.0.strip_prefix(octets).ok_or(io::ErrorKind::InvalidData)?;
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What nearly all leaves of a large ledger are, told without reading them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Common {
    /// An intent.
    Intent,
    /// An outcome of this intent: signed.
    Signed {
        /// The intent.
        intent: u64,
    },
}

impl Common {
    /// The kinds of entries of which some are common.
    pub const KINDS: [&'static str; 2] = ["intent", "outcome"];
    /// What stands before the name of an event. Within a text of a leaf each quotation mark stands behind a backslash, so it stands
    /// nowhere else.
    pub const EVENT: &'static [u8] = br#""event":{"#;
    /// What an intent begins with.
    pub const INTENT: &'static [u8] = br#""event":{"intent":{"#;
    /// What an outcome begins with, up to the number of its intent.
    pub const OUTCOME: &'static [u8] = br#""event":{"outcome":{"intent":"#;
    /// What stands behind the number of an intent that was signed.
    pub const SIGNED: &'static [u8] = br#","result":{"signed":"#;

    /// Of a leaf, as [`Entry::to_leaf`] writes it; none for every other kind, and for an outcome other than `signed`.
    pub fn of(leaf: &[u8]) -> Option<Self> {
        let at = leaf.windows(Self::EVENT.len()).position(|octets| octets == Self::EVENT)?;
        let event = &leaf[at..];
        if event.starts_with(Self::INTENT) {
            return Some(Self::Intent);
        }
        let outcome = event.strip_prefix(Self::OUTCOME)?;
        let digits = outcome.iter().take_while(|octet| octet.is_ascii_digit()).count();
        let (number, result) = outcome.split_at(digits);
        let intent = std::str::from_utf8(number).ok()?.parse().ok()?;
        result.starts_with(Self::SIGNED).then_some(Self::Signed { intent })
    }
}

impl Event {
    /// The name of the kind, as it stands in the leaf.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Genesis(_) => "genesis",
            Self::PolicyAdopted(_) => "policy-adopted",
            Self::CertificationIntent(_) => "certification-intent",
            Self::CertificateImported(_) => "certificate-imported",
            Self::Started(_) => "started",
            Self::Stopped(_) => "stopped",
            Self::IncidentOpened(_) => "incident-opened",
            Self::StepTaken(_) => "step-taken",
            Self::IncidentClosed(_) => "incident-closed",
            Self::DeterminationRecorded(_) => "determination-recorded",
            Self::ScheduleRecorded(_) => "schedule-recorded",
            Self::DeterminationSuspended(_) => "determination-suspended",
            Self::DeterminationWithdrawn(_) => "determination-withdrawn",
            Self::DirectionRecorded(_) => "direction-recorded",
            Self::KeyCopied(_) => "key-copied",
            Self::SharesBegun(_) => "shares-begun",
            Self::SharesDealt(_) => "shares-dealt",
            Self::KeyMade(_) => "key-made",
            Self::KeyDestruction(_) => "key-destruction",
            Self::KeyDestroyed(_) => "key-destroyed",
            Self::CeremonyRecorded(_) => "ceremony-recorded",
            Self::CustodianPresented(_) => "custodian-presented",
            Self::KeyActivated(_) => "key-activated",
            Self::KeyLocked(_) => "key-locked",
            Self::Batch(_) => "batch",
            Self::Intent(_) => "intent",
            Self::Outcome(_) => "outcome",
            Self::Released(_) => "released",
            Self::Settled(_) => "settled",
            Self::Refused(_) => "refused",
            Self::RefusalsFolded(_) => "refusals-folded",
            Self::ClockJumped(_) => "clock-jumped",
            Self::ClockAccepted(_) => "clock-accepted",
            Self::FileAccepted(_) => "file-accepted",
            Self::ExerciseRecorded(_) => "exercise-recorded",
            Self::ResponsesTaken(_) => "responses-taken",
            Self::SigningResumed(_) => "signing-resumed",
            Self::TokenHealth(_) => "token-health",
            Self::LoginRetried(_) => "login-retried",
            Self::JobStarted(_) => "job-started",
            Self::JobPassed(_) => "job-passed",
            Self::JobPaused(_) => "job-paused",
            Self::JobResumed(_) => "job-resumed",
            Self::JobCancelled(_) => "job-cancelled",
            Self::JobEnded(_) => "job-ended",
            Self::DeviceCertificatesImported(_) => "device-certificates-imported",
            Self::Snapshot(_) => "snapshot",
            Self::ContingencyPrepared(_) => "contingency-prepared",
            Self::RootImported(_) => "root-imported",
            Self::ContingencyChecked(_) => "contingency-checked",
            Self::SymmetricKeySpent(_) => "symmetric-key-spent",
            Self::SymmetricRelease(_) => "symmetric-release",
            Self::SymmetricReleased(_) => "symmetric-released",
        }
    }
}

impl Event {
    /// The documents that it names by SHA-256. A policy's own files are named in its `sha256sum` lines, which are one of them.
    pub fn blobs(&self) -> Vec<Digest> {
        let with = |others: &[Digest]| {
            others.iter().copied().chain(self.signatures().iter().map(|signature| signature.p7s)).collect()
        };
        match self {
            Self::PolicyAdopted(entry) => with(&[entry.policy, entry.document]),
            Self::CertificationIntent(entry) => vec![entry.request_info],
            Self::CertificateImported(entry) => {
                std::iter::once(entry.certificate).chain(entry.path.iter().copied()).collect()
            }
            Self::IncidentOpened(entry) => vec![entry.compromised.certificate_sha256],
            Self::StepTaken(entry) => entry.step.devices().map(|devices| devices.list).into_iter().collect(),
            Self::DeterminationRecorded(entry) => {
                let mut blobs: Vec<Digest> = with(&[entry.document]);
                blobs.extend(entry.devices);
                blobs
            }
            Self::ScheduleRecorded(entry) => with(&[entry.document, entry.devices]),
            Self::DeterminationSuspended(entry) => with(&[entry.document]),
            Self::DeterminationWithdrawn(entry) => with(&[entry.document]),
            Self::FileAccepted(entry) => with(&[entry.file]),
            Self::KeyDestruction(entry) => with(&[entry.document]),
            Self::CustodianPresented(entry) => with(&[entry.statement]),
            Self::CeremonyRecorded(entry) => vec![entry.plan, entry.transcript],
            Self::DeviceCertificatesImported(entry) => vec![entry.certificates],
            Self::ResponsesTaken(entry) => vec![entry.responses, entry.certificates, entry.results],
            Self::JobStarted(entry) => entry.list.iter().map(|list| list.sha256).collect(),
            Self::ContingencyPrepared(entry) => vec![entry.extension],
            Self::RootImported(entry) => vec![entry.root],
            Self::DirectionRecorded(entry) => {
                let mut blobs: Vec<Digest> = with(&[entry.document]);
                blobs.extend(entry.text);
                blobs
            }
            Self::Genesis(_)
            | Self::Started(_)
            | Self::Stopped(_)
            | Self::IncidentClosed(_)
            | Self::KeyCopied(_)
            | Self::SharesBegun(_)
            | Self::SharesDealt(_)
            | Self::KeyMade(_)
            | Self::KeyDestroyed(_)
            | Self::KeyActivated(_)
            | Self::KeyLocked(_)
            | Self::Batch(_)
            | Self::Intent(_)
            | Self::Outcome(_)
            | Self::Released(_)
            | Self::Settled(_)
            | Self::Refused(_)
            | Self::RefusalsFolded(_)
            | Self::ClockJumped(_)
            | Self::ClockAccepted(_)
            | Self::SigningResumed(_)
            | Self::TokenHealth(_)
            | Self::LoginRetried(_)
            | Self::JobPassed(_)
            | Self::JobPaused(_)
            | Self::JobResumed(_)
            | Self::JobCancelled(_)
            | Self::JobEnded(_)
            | Self::Snapshot(_)
            | Self::ContingencyChecked(_)
            | Self::SymmetricKeySpent(_)
            | Self::SymmetricRelease(_)
            | Self::SymmetricReleased(_)
            | Self::ExerciseRecorded(_) => Vec::new(),
        }
    }

    /// The people's signatures that it rests on.
    pub fn signatures(&self) -> &[SignatureRecord] {
        match self {
            Self::PolicyAdopted(entry) => &entry.signatures,
            Self::DeterminationRecorded(entry) => &entry.signatures,
            Self::ScheduleRecorded(entry) => &entry.signatures,
            Self::DeterminationSuspended(entry) => &entry.signatures,
            Self::DeterminationWithdrawn(entry) => &entry.signatures,
            Self::FileAccepted(entry) => entry.signature.as_slice(),
            Self::KeyDestruction(entry) => &entry.signatures,
            Self::CustodianPresented(entry) => std::slice::from_ref(&entry.signature),
            Self::DirectionRecorded(entry) => &entry.signatures,
            Self::Genesis(_)
            | Self::CertificationIntent(_)
            | Self::CertificateImported(_)
            | Self::Started(_)
            | Self::Stopped(_)
            | Self::IncidentOpened(_)
            | Self::StepTaken(_)
            | Self::IncidentClosed(_)
            | Self::KeyCopied(_)
            | Self::SharesBegun(_)
            | Self::SharesDealt(_)
            | Self::KeyMade(_)
            | Self::KeyDestroyed(_)
            | Self::CeremonyRecorded(_)
            | Self::KeyActivated(_)
            | Self::KeyLocked(_)
            | Self::Batch(_)
            | Self::Intent(_)
            | Self::Outcome(_)
            | Self::Released(_)
            | Self::Settled(_)
            | Self::Refused(_)
            | Self::RefusalsFolded(_)
            | Self::ClockJumped(_)
            | Self::ClockAccepted(_)
            | Self::ResponsesTaken(_)
            | Self::DeviceCertificatesImported(_)
            | Self::SigningResumed(_)
            | Self::TokenHealth(_)
            | Self::LoginRetried(_)
            | Self::JobStarted(_)
            | Self::JobPassed(_)
            | Self::JobPaused(_)
            | Self::JobResumed(_)
            | Self::JobCancelled(_)
            | Self::JobEnded(_)
            | Self::Snapshot(_)
            | Self::ContingencyPrepared(_)
            | Self::RootImported(_)
            | Self::ContingencyChecked(_)
            | Self::SymmetricKeySpent(_)
            | Self::SymmetricRelease(_)
            | Self::SymmetricReleased(_)
            | Self::ExerciseRecorded(_) => &[],
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Operator => "operator",
            Self::Auditor => "auditor",
            Self::Account => "account",
            Self::Ceremony => "ceremony",
            Self::Daemon => "daemon",
        })
    }
}

#[cfg(test)]
mod tests;
