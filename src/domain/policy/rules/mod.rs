//! Pure. May this be signed? Every rule is asked and every refusal reported; silence from all of them is the only way to allow.
//!
//! The same functions decide in the daemon before an intent is recorded, and in the audit when an outsider replays the log.
//!
//! A new rule is one file here, one line in [`ASKER_RULES`], [`RELEASE_RULES`], [`KEY_RULES`] or [`COMMAND_RULES`], and one variant of [`Refusal`].

mod already_signed;
mod asker;
mod clock;
mod counter;
mod custodians;
mod determination_execute;
mod determination_followed;
mod determination_in_force;
mod device_in_scope;
mod foreign_response;
mod incident_open;
mod intents_left;
mod key_active;
mod key_compromised;
mod key_of_determination;
mod mode_permitted;
mod next_generation;
mod policy_in_force;
mod pre_command;
mod preflight;
mod procedure;
mod rate;
mod retry;
mod root_cell;
mod scope_settled;
mod spent_elsewhere;
mod symmetric_key_line;
mod symmetric_key_released;

use std::sync::Arc;

use super::Policy;
use super::contingency::ContingencyFacts;
use super::facts::{DeterminationFacts, DeviceFacts, IncidentFacts, KeyFacts, Listed, Scope, WantedForm};
use crate::domain::gbcs::{Mismatch, Template};
use crate::domain::incident::State;
use crate::domain::ledger::entry::{Actor, ClockState, Reason, Role};
use crate::domain::names::{
    DeterminationId, DeviceId, Digest, IncidentId, KeyLabel, KeyUse, PartyId, PersonId, TemplateName,
};
pub use next_generation::{Next, NotNext, next_root, root_after};
pub use symmetric_key_line::check_line;

use crate::domain::policy::separation::TwoParts;
use crate::domain::time::{Timestamp, Window};

/// What is the same for every command of a chunk.
#[derive(Clone, Copy, Debug)]
pub struct BatchFacts<'a> {
    /// The moment of the decision.
    pub now: Timestamp,
    /// What the clock is worth.
    pub clock: ClockState,
    /// Who asks.
    pub by: &'a Actor,
    /// The policy in force.
    pub policy: &'a Policy,
    /// Its digest.
    pub policy_digest: Digest,
    /// The determination that was named.
    pub determination_id: DeterminationId,
    /// What the ledger knows of it.
    pub determination: Option<&'a DeterminationFacts>,
    /// The incident of the determination.
    pub incident: Option<&'a IncidentFacts>,
    /// The key of the determination.
    pub key: Option<&'a KeyFacts>,
    /// The foreign answer that stops this key, if one does: the determination under which it was handed in, and its entry.
    pub stopped_by: Option<(DeterminationId, u64)>,
    /// The incident in which this key is, or may be, Compromised itself.
    pub compromised_in: Option<&'a IncidentId>,
    /// The next generation, where the determination names one: the contingency key that the new Root OCA Certificate carries.
    pub next: Option<&'a KeyFacts>,
    /// The incident in which that is, or may be, Compromised.
    pub next_compromised_in: Option<&'a IncidentId>,
}

impl<'a> BatchFacts<'a> {
    /// The scope, where there is one.
    fn scope(&self) -> Option<&'a Scope> {
        self.determination.and_then(|determination| determination.scope.as_ref())
    }

    /// The key and what belongs to it as contingency material, where it is a contingency key: to one of another use none of it applies.
    fn generation(&self) -> Option<(&'a KeyFacts, Option<&'a ContingencyFacts>)> {
        let key = self.key.filter(|key| key.record.use_ == KeyUse::Contingency)?;
        Some((key, key.contingency.as_ref()))
    }
}

/// What belongs to one command.
#[derive(Clone, Copy, Debug)]
pub struct CommandFacts<'a> {
    /// What is the same for all.
    pub batch: &'a BatchFacts<'a>,
    /// The Device.
    pub device: DeviceId,
    /// In which form it was asked for.
    pub form: &'a WantedForm,
    /// What the pre-command says, where there is one: its originator and counter, or where it departs from the template.
    pub pre_command: Option<&'a Result<(PartyId, u64), Mismatch>>,
    /// What the device list says.
    pub listed: Option<&'a Listed>,
    /// The last intent for the Device with this key.
    pub last: Option<&'a DeviceFacts>,
}

impl CommandFacts<'_> {
    /// The counter that the next one must exceed: the highest of the last recorded for key and Device, the list's, and the
    /// determination's start.
    fn counter_base(&self) -> u64 {
        let last = self.last.map_or(0, |last| last.counter);
        let listed = self.listed.and_then(|listed| listed.counter).unwrap_or(0);
        let start = self.batch.scope().map_or(0, |scope| scope.counter_start);
        last.max(listed).max(start)
    }
}

/// The highest counter that the wire can carry: SeqNumber ::= INTEGER (0..9223372036854775807).
pub const COUNTER_MAX: u64 = i64::MAX as u64;

/// Leave to record one intent, and what it is to say. Made only by [`decide`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Allowance {
    /// The template to fill.
    pub template_name: TemplateName,
    /// The template.
    pub template: Arc<Template>,
    /// The Originator Counter.
    pub counter: u64,
    /// Which attempt it is.
    pub attempt: u32,
    /// The Business Originator ID: whose certificate the key has.
    pub originator: PartyId,
}

/// Why something may not be signed. Each variant is a fact that somebody can act on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum Refusal {
    #[error("this needs an operator; {account} acts as {role}")]
    Asker { account: Box<str>, role: Role },
    #[error(
        "account {account} belongs to nobody whom the policy in force names, so nobody can tell whether its holder approved; give \
         it to a person in persons.toml"
    )]
    AskerUnknown { account: Box<str> },
    #[error("{person} signed this determination and may not also act on it: nobody holds two roles in one incident")]
    AskerApproved { person: PersonId },
    #[error("the clock jumped and is not trusted; compare it with another source, then `smkictl clock accept`")]
    Clock,
    #[error(
        "the clock is set for an exercise, and the policy in force is live; remove [exercise] from the configuration of smkid, \
         then restart it"
    )]
    ClockSet,
    #[error("no determination {id} is recorded; take one in with `smkictl determination record`")]
    DeterminationUnknown { id: DeterminationId },
    #[error(
        "incident {incident} is {state}: commands are signed only while it is key-active or executing, and handed over only then or while \
         its key is locked meanwhile; `smkictl incident next {incident}` says what is to be done"
    )]
    ProcedureState { incident: IncidentId, state: State },
    #[error(
        "incident {incident} was paused by entry {entry}: nothing that was signed is handed over until its key is activated again; \
         `smkictl incident timeline {incident}` says by whom, and why"
    )]
    Paused { incident: IncidentId, entry: u64 },
    #[error(
        "incident {incident} is {state}, and the key is activated only while it is prepared or paused; `smkictl incident next \
         {incident}` says what is to be done"
    )]
    NotPrepared { incident: IncidentId, state: State },
    #[error(
        "incident {incident} does not follow determination {id}; `smkictl incident show {incident}` says which it follows"
    )]
    NotFollowed { id: DeterminationId, incident: IncidentId },
    #[error(transparent)]
    Separation(TwoParts),
    #[error("Device {device} is no Relevant Device of incident {incident} (SEC Section L10.30(a))")]
    NotATarget { device: DeviceId, incident: IncidentId },
    #[error("Device {device} was left out of incident {incident}, with a reason")]
    Excluded { device: DeviceId, incident: IncidentId },
    #[error("determination {id} is not to execute recovery: it opens no key")]
    DeterminationNegative { id: DeterminationId },
    #[error("determination {id} is in force {window}; it is {now}")]
    Window { id: DeterminationId, window: Window, now: Timestamp },
    #[error("determination {id} is suspended until {until}")]
    Suspended { id: DeterminationId, until: Timestamp },
    #[error("determination {id} was withdrawn by the SMKI PMA")]
    Withdrawn { id: DeterminationId },
    #[error("determination {id} was superseded by {by}")]
    Superseded { id: DeterminationId, by: DeterminationId },
    #[error("determination {id} was not carried over by policy {policy}; the SMKI PMA must determine again")]
    NotCarriedOver { id: DeterminationId, policy: Digest },
    #[error("determination {id} left its scope to a schedule, and none is recorded yet")]
    ScopeOutstanding { id: DeterminationId },
    #[error(
        "a Device answered a command that this ledger never signed (entry {entry}): somebody else may be using key {key}. The key is \
         not activated and signs nothing more, for whichever determination, until an operator has found out and recorded why it is \
         right to go on: `smkictl recovery resume-after-foreign --determination {id}`"
    )]
    ForeignResponse { key: KeyLabel, id: DeterminationId, entry: u64 },
    #[error("incident {incident} is not open")]
    IncidentNotOpen { incident: IncidentId },
    #[error("the ledger has no key {key}")]
    KeyUnknown { key: KeyLabel },
    #[error("the determination names key {key} with public key {determined}; the ledger's has {found}")]
    KeyDiffers { key: KeyLabel, determined: Digest, found: Digest },
    #[error("key {key} has no certificate yet; `smkictl ceremony import` brings it in")]
    KeyWithoutCertificate { key: KeyLabel },
    #[error(
        "key {key} is, or may be, Compromised itself (incident {incident}): it is not used any more, in this incident or another; `smkictl \
         incident next {incident}` says what takes its place"
    )]
    KeyCompromised { key: KeyLabel, incident: IncidentId },
    #[error(
        "determination {id} does not release the Contingency Symmetric Key of {key}: expected a line symmetric_key with the Root OCA \
         Certificate that the Devices hold; the SMKI PMA must determine again"
    )]
    NoSymmetricKeyLine { id: DeterminationId, key: KeyLabel },
    #[error(
        "key {key} has no contingency material yet, or no Root OCA Certificate that carries it; a ceremony makes the one and takes in the \
         other (`smkictl ceremony import-root --key {key} --root FILE`)"
    )]
    NoContingencyRoot { key: KeyLabel },
    #[error(
        "determination {id} is for Devices that hold Root OCA Certificate {determined}; the one that carries key {key} is {found}: another \
         key unwraps on those Devices, and every one would refuse the command. The SMKI PMA must determine again"
    )]
    OtherContingencyRoot { id: DeterminationId, key: KeyLabel, determined: Digest, found: Digest },
    #[error(
        "the Contingency Symmetric Key of {key} may be wrapped with any key of its token, and the policy in force wants a trusted one alone; \
         make a generation on a token that keeps CKA_WRAP_WITH_TRUSTED"
    )]
    NotWrappedWithTrusted { key: KeyLabel },
    #[error(
        "the next generation, {next}, {why}: after this recovery no contingency key would be on the Devices. Have it made at a ceremony and \
         its Root OCA Certificate taken in, then determine again if the determination names another"
    )]
    NextGeneration { next: KeyLabel, why: NotNext },
    #[error(
        "the Contingency Symmetric Key of {key} is spent in incident {spent}: it is barred from every other incident; use the generation \
         that took its place"
    )]
    SpentElsewhere { key: KeyLabel, spent: IncidentId },
    #[error(
        "key {key} was not checked for incident {incident} against the Root OCA Certificate that carries it{found}; `smkictl key \
         release-symmetric {key} --determination {id}` checks it first, in the token"
    )]
    NotChecked { key: KeyLabel, incident: IncidentId, id: DeterminationId, found: String },
    #[error(
        "the Contingency Symmetric Key of {key} is not released under determination {id}, or was wiped since: a command of mode 9 cannot be \
         signed or handed over without it; `smkictl key release-symmetric {key} --determination {id}`"
    )]
    SymmetricKeyNotReleased { key: KeyLabel, id: DeterminationId },
    #[error("key {key} is locked; it must be activated for this incident first")]
    KeyLocked { key: KeyLabel },
    #[error(
        "key {key} is active for incident {active_for} alone; lock it, then `smkictl key activate {key} --incident {incident}`"
    )]
    KeyOfAnotherIncident { key: KeyLabel, active_for: IncidentId, incident: IncidentId },
    #[error("key {key}: {shortfall}; let enough present anew (smkictl custodian status {key}), then activate it")]
    TooFewCustodians { key: KeyLabel, shortfall: String },
    #[error("key {key} may not be used for mode {mode}; the policy permits {permitted:?}")]
    ModeNotPermitted { key: KeyLabel, mode: u8, permitted: Vec<u8> },
    #[error("template {template} replaces the root, which the Recovery Private Key may not do under this policy")]
    RootCell { template: TemplateName },
    #[error("determination {id} does not list Device {device}")]
    DeviceOutOfScope { id: DeterminationId, device: DeviceId },
    #[error("the pre-command departs from template {template}: {mismatch}")]
    NotTheTemplate { template: TemplateName, mismatch: Mismatch },
    #[error("the pre-command comes from {found}; the certificate of key {key} is {expected}'s")]
    Originator { key: KeyLabel, expected: PartyId, found: PartyId },
    #[error(
        "counter {found} is not above {base}, the highest known for this key and Device: a Device would take it for a replay"
    )]
    CounterTooLow { base: u64, found: u64 },
    #[error("counter {found} is more than {step_max} above {base}; the policy permits no greater step")]
    CounterTooHigh { base: u64, found: u64, step_max: u64 },
    #[error("no counter above {base} is left")]
    CounterExhausted { base: u64 },
    #[error("the determination permits {limit} intents in all; {used} are recorded")]
    IntentsSpent { limit: u64, used: u64 },
    #[error("the determination permits {limit} intents an hour; {used} were recorded in the last")]
    Rate { limit: u64, used: u64 },
    #[error("a command for Device {device} is being signed (intent {intent})")]
    InFlight { device: DeviceId, intent: u64 },
    #[error(
        "Device {device} has a signed command under this determination (intent {intent}); ask for it by its request"
    )]
    AlreadySigned { device: DeviceId, intent: u64 },
    #[error("what became of the command for Device {device} is unknown (intent {intent}); settle it first")]
    OutcomeUnknown { device: DeviceId, intent: u64 },
    #[error(
        "the command for Device {device} was left as unknown (intent {intent}); a new counter needs a new determination"
    )]
    LeftUnknown { device: DeviceId, intent: u64 },
    #[error("nothing about Device {device} is unknown: there is nothing to sign again")]
    NothingUnknown { device: DeviceId },
    #[error(
        "the octets for Device {device} would not be those of intent {intent}, which may have been signed: another certificate was \
         imported for the key since. A new command needs a new determination"
    )]
    RetryDiffers { device: DeviceId, intent: u64 },
    #[error("the determination permits {limit} further attempts for an unknown; {used} were made for Device {device}")]
    RetriesSpent { device: DeviceId, limit: u32, used: u32 },
}

impl Refusal {
    /// The rule's stable name, for programs.
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::Asker { .. } => "asker",
            Self::AskerUnknown { .. } => "asker-unknown",
            Self::AskerApproved { .. } => "asker-approved",
            Self::Clock | Self::ClockSet => "clock",
            Self::DeterminationUnknown { .. } => "determination-unknown",
            Self::ProcedureState { .. } => "procedure-state",
            Self::Paused { .. } => "incident-paused",
            Self::NotPrepared { .. } => "not-prepared",
            Self::NotFollowed { .. } => "not-followed",
            Self::Separation(_) => "separation",
            Self::NotATarget { .. } => "not-a-target",
            Self::Excluded { .. } => "excluded",
            Self::DeterminationNegative { .. } => "determination-negative",
            Self::Window { .. } => "window",
            Self::Suspended { .. } => "suspended",
            Self::Withdrawn { .. } => "withdrawn",
            Self::Superseded { .. } => "superseded",
            Self::NotCarriedOver { .. } => "not-carried-over",
            Self::ScopeOutstanding { .. } => "scope-outstanding",
            Self::ForeignResponse { .. } => "foreign-response",
            Self::IncidentNotOpen { .. } => "incident-not-open",
            Self::KeyUnknown { .. } => "key-unknown",
            Self::KeyDiffers { .. } => "key-differs",
            Self::KeyWithoutCertificate { .. } => "key-without-certificate",
            Self::KeyCompromised { .. } => "key-compromised",
            Self::NoSymmetricKeyLine { .. }
            | Self::NoContingencyRoot { .. }
            | Self::OtherContingencyRoot { .. }
            | Self::NotWrappedWithTrusted { .. } => "symmetric-key-line",
            Self::NextGeneration { .. } => "next-generation",
            Self::SpentElsewhere { .. } => "spent-elsewhere",
            Self::NotChecked { .. } => "preflight",
            Self::SymmetricKeyNotReleased { .. } => "symmetric-key-released",
            Self::KeyLocked { .. } => "key-locked",
            Self::KeyOfAnotherIncident { .. } => "key-of-another-incident",
            Self::TooFewCustodians { .. } => "custodians",
            Self::ModeNotPermitted { .. } => "mode-not-permitted",
            Self::RootCell { .. } => "root-cell",
            Self::DeviceOutOfScope { .. } => "device-out-of-scope",
            Self::NotTheTemplate { .. } => "not-the-template",
            Self::Originator { .. } => "originator",
            Self::CounterTooLow { .. } => "counter-too-low",
            Self::CounterTooHigh { .. } => "counter-too-high",
            Self::CounterExhausted { .. } => "counter-exhausted",
            Self::IntentsSpent { .. } => "intents-spent",
            Self::Rate { .. } => "rate",
            Self::InFlight { .. } => "in-flight",
            Self::AlreadySigned { .. } => "already-signed",
            Self::OutcomeUnknown { .. } => "outcome-unknown",
            Self::LeftUnknown { .. } => "left-unknown",
            Self::NothingUnknown { .. } => "nothing-unknown",
            Self::RetryDiffers { .. } => "retry-differs",
            Self::RetriesSpent { .. } => "retries-spent",
        }
    }

    /// As a refusal's record and reply carry it.
    pub fn reason(&self) -> Reason {
        Reason { rule: self.rule().into(), text: self.to_string().into() }
    }
}

type BatchRule = fn(&BatchFacts<'_>) -> Result<(), Refusal>;
type CommandRule = fn(&CommandFacts<'_>) -> Result<(), Refusal>;

/// Asked whenever somebody asks, whatever it is about.
const ASKER_RULES: &[BatchRule] = &[asker::check, asker::check_person, asker::check_separation];

/// Asked once a chunk, and again before what was signed is released; with [`ASKER_RULES`].
const RELEASE_RULES: &[BatchRule] = &[
    clock::check,
    determination_execute::check,
    determination_in_force::check_window,
    determination_in_force::check_suspension,
    determination_in_force::check_withdrawal,
    determination_in_force::check_supersession,
    policy_in_force::check,
    incident_open::check,
];

/// Asked once a chunk besides: what a key must be before it signs. A signature that exists already needs none of it.
const KEY_RULES: &[BatchRule] = &[
    scope_settled::check,
    foreign_response::check,
    key_of_determination::check,
    key_of_determination::check_certificate,
    key_compromised::check,
    key_active::check,
    key_active::check_incident,
    custodians::check,
    mode_permitted::check,
    root_cell::check,
    symmetric_key_line::check,
    next_generation::check,
    spent_elsewhere::check,
];

/// Asked besides of a contingency key: the Root OCA Certificate was checked before its symmetric key is released.
const RELEASE_OF_KEY_RULES: &[BatchRule] = &[preflight::check];

/// And that was released before anything is signed.
const CONTINGENCY_RULES: &[BatchRule] = &[preflight::check, symmetric_key_released::check];

/// Asked when all others are silent: where the incident stands follows from what they say, and would only be said twice.
const STATE_RULES: &[BatchRule] = &[determination_followed::check, procedure::check_state];

/// The same of what is released.
const RELEASE_STATE_RULES: &[BatchRule] = &[determination_followed::check, procedure::check_release];

/// Asked before a key is activated, with [`ASKER_RULES`] and [`RELEASE_RULES`]: what it would sign for stands, and is this key's.
const ACTIVATION_RULES: &[BatchRule] = &[
    scope_settled::check,
    foreign_response::check,
    key_of_determination::check,
    key_of_determination::check_certificate,
    key_compromised::check,
    symmetric_key_line::check,
    next_generation::check,
    spent_elsewhere::check,
];

/// Asked before a key is activated, when all others are silent.
const ACTIVATION_STATE_RULES: &[BatchRule] = &[determination_followed::check, procedure::check_awaits_key];

/// Asked for each command.
const COMMAND_RULES: &[CommandRule] = &[
    device_in_scope::check,
    procedure::check_command,
    pre_command::check_template,
    pre_command::check_originator,
    counter::check,
    intents_left::check,
    rate::check,
    already_signed::check,
    retry::check,
];

const _: () = assert!(
    !ASKER_RULES.is_empty()
        && !RELEASE_RULES.is_empty()
        && !KEY_RULES.is_empty()
        && !RELEASE_OF_KEY_RULES.is_empty()
        && !CONTINGENCY_RULES.is_empty()
        && !STATE_RULES.is_empty()
        && !RELEASE_STATE_RULES.is_empty()
        && !ACTIVATION_RULES.is_empty()
        && !ACTIVATION_STATE_RULES.is_empty()
        && !COMMAND_RULES.is_empty(),
    "no rules would allow everything"
);

/// The rules of the batch: nothing in it may be signed if one refuses.
pub fn decide_batch(facts: &BatchFacts<'_>) -> Result<(), Vec<Refusal>> {
    silent(ASKER_RULES.iter().chain(RELEASE_RULES).chain(KEY_RULES).chain(CONTINGENCY_RULES), facts)?;
    silent(STATE_RULES.iter(), facts)
}

/// May the token be asked whether the Root OCA Certificate carries this contingency key? All of [`decide_batch`], but that it was.
pub fn decide_preflight(facts: &BatchFacts<'_>) -> Result<(), Vec<Refusal>> {
    silent(ASKER_RULES.iter().chain(RELEASE_RULES).chain(KEY_RULES), facts)?;
    silent(STATE_RULES.iter(), facts)
}

/// May the Contingency Symmetric Key be released into the commands of this determination? All of [`decide_batch`], but that it is.
pub fn decide_symmetric_release(facts: &BatchFacts<'_>) -> Result<(), Vec<Refusal>> {
    silent(ASKER_RULES.iter().chain(RELEASE_RULES).chain(KEY_RULES).chain(RELEASE_OF_KEY_RULES), facts)?;
    silent(STATE_RULES.iter(), facts)
}

/// Whether the Contingency Symmetric Key that a command needs is at hand, to sign it or to hand it over, and its generation sound: whoever
/// sees the command has the key. Of a key of another use, always.
pub fn decide_filling(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    if facts.generation().is_some() {
        key_compromised::check(facts)?;
    }
    symmetric_key_released::check(facts)
}

/// The rules of whoever asks alone: for what signs nothing and settles what was signed.
pub fn decide_asker(facts: &BatchFacts<'_>) -> Result<(), Vec<Refusal>> {
    silent(ASKER_RULES.iter(), facts)
}

/// The rules of asker, determination and state, without those of the key: whether what was signed may be released. What was signed
/// before somebody paused the incident waits for the next activation; a lock alone withholds nothing.
pub fn decide_release(facts: &BatchFacts<'_>) -> Result<(), Vec<Refusal>> {
    silent(ASKER_RULES.iter().chain(RELEASE_RULES), facts)?;
    silent(RELEASE_STATE_RULES.iter(), facts)
}

/// Whether what was signed for this Device may be released, where [`decide_release`] allows its batch: not if it was left out of the
/// incident since.
pub fn decide_release_to(facts: &BatchFacts<'_>, device: DeviceId) -> Result<(), Refusal> {
    procedure::check_target(facts, device)
}

/// May the key of a determination be opened for its incident? Whoever asks for that is asked about by [`decide_asker`]; a Key Custodian
/// who presents a share for it asks for nothing.
pub fn decide_opening(facts: &BatchFacts<'_>) -> Result<(), Vec<Refusal>> {
    silent(RELEASE_RULES.iter().chain(ACTIVATION_RULES), facts)?;
    silent(ACTIVATION_STATE_RULES.iter(), facts)
}

fn silent<'r>(rules: impl Iterator<Item = &'r BatchRule>, facts: &BatchFacts<'_>) -> Result<(), Vec<Refusal>> {
    let refusals: Vec<Refusal> = rules.filter_map(|rule| rule(facts).err()).collect();
    if refusals.is_empty() { Ok(()) } else { Err(refusals) }
}

/// May this command be signed? [`decide_batch`] must have allowed its batch at the same moment.
pub fn decide(facts: &CommandFacts<'_>) -> Result<Allowance, Vec<Refusal>> {
    let refusals: Vec<Refusal> = COMMAND_RULES.iter().filter_map(|rule| rule(facts).err()).collect();
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let out_of_scope = || vec![Refusal::DeviceOutOfScope { id: facts.batch.determination_id, device: facts.device }];
    let listed = facts.listed.ok_or_else(out_of_scope)?;
    let scope = facts.batch.scope().ok_or_else(out_of_scope)?;
    let template = scope.templates.get(&listed.template).ok_or_else(out_of_scope)?;
    let originator = facts.batch.key.and_then(|key| key.originator(facts.batch.policy)).ok_or_else(out_of_scope)?;
    let (counter, attempt) = match (facts.form, facts.pre_command, facts.last) {
        (WantedForm::Retry, _, Some(last)) => (last.counter, last.attempt + 1),
        (WantedForm::PreCommand(_), Some(Ok((_, counter))), _) => (*counter, 1),
        (WantedForm::Device | WantedForm::PreCommand(_) | WantedForm::Retry, _, _) => (facts.counter_base() + 1, 1),
    };
    Ok(Allowance {
        template_name: listed.template.clone(),
        template: Arc::clone(template),
        counter,
        attempt,
        originator,
    })
}

#[cfg(test)]
pub(in crate::domain) mod tests;
