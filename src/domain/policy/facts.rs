//! Pure. The facts that a decision rests on: what the ledger says about a determination, a key, an incident, a Device.
//!
//! They are kept by the fold ([`crate::domain::fold`]) and read by the rules ([`super::rules`]).

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::Policy;
use super::rules::Refusal;
use super::separation::PartsTaken;
use crate::domain::determination::document::SymmetricKeyLine;
use crate::domain::gbcs::Template;
use crate::domain::incident::Progress;
use crate::domain::ledger::contingency::OtherKey;
use crate::domain::ledger::custody::SharesDealt;
use crate::domain::ledger::entry::{Compromised, KeyRecord, ResponseTally};
use crate::domain::ledger::meaning::Meaning;
use crate::domain::ledger::steps::Method;
use crate::domain::names::{
    DeterminationId, DeviceId, Digest, FileKind, IncidentId, KeyLabel, KeyUse, PartyId, PersonId, SecParty,
    SmsrReference, TemplateName, TokenName,
};
use crate::domain::policy::contingency::ContingencyFacts;
use crate::domain::policy::custodians::Presented;
use crate::domain::time::{Timestamp, Window};

/// An incident, as far as a determination needs one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncidentFacts {
    /// Its id.
    pub id: IncidentId,
    /// The leaf that opened it.
    pub opened: u64,
    /// The certificate whose Private Key is Compromised, or suspected to be.
    pub compromised: Compromised,
    /// Which key that is, where it is not the one behind an Organisation Certificate on Devices, and somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<OtherKey>,
    /// What was notified.
    pub description: Box<str>,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// The reason for which it was closed.
    pub closed: Option<Box<str>>,
    /// When.
    pub closed_at: Option<Timestamp>,
    /// How far it has come in the procedure; none where the policy knew no procedure when it was opened.
    pub progress: Option<Progress>,
    /// The files that were taken in, in that order.
    pub files: Vec<AcceptedFile>,
    /// Who took which part in it.
    pub parts: PartsTaken,
}

/// A file that was taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptedFile {
    /// The leaf that recorded it.
    pub entry: u64,
    /// When.
    pub at: Timestamp,
    /// Which kind of file.
    pub kind: FileKind,
    /// Its SHA-256.
    pub file: Digest,
    /// The ARO who signed it; none for an extract.
    pub signer: Option<PersonId>,
    /// The ARO's Party.
    pub party: Option<SecParty>,
    /// The reference of an ADT file.
    pub smsr: Option<SmsrReference>,
    /// Lines below its header.
    pub rows: u64,
}

/// One of our keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFacts {
    /// As genesis names it.
    pub record: KeyRecord,
    /// The further tokens to which the maker's cloning brought it, with their serial numbers as a ceremony found them.
    pub copies: BTreeMap<TokenName, Box<str>>,
    /// The last generation of shares that Key Custodians were given of what opens its tokens.
    pub shares: Option<SharesDealt>,
    /// The next generation, whose dealing was begun: from then until it is dealt a token's PIN may be either.
    pub dealing: Option<SharesDealt>,
    /// The certificate imported for it, and whose it is.
    pub certificate: Option<(Digest, PartyId)>,
    /// Until when it is active, if it is: `Some(None)` has no end.
    #[serde(with = "kept::twice")]
    pub active: Option<Option<Timestamp>>,
    /// For which incident alone it is active; none where it is locked, and in ledgers of before an activation was for one.
    pub active_for: Option<IncidentId>,
    /// How it ends, if it does.
    pub ending: Option<Ending>,
    /// What Key Custodians presented since it was last locked and the daemon last started.
    pub presented: BTreeMap<PersonId, Presented>,
    /// What belongs to it as contingency material, once that was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contingency: Option<ContingencyFacts>,
}

/// How a key ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// The entry said that it is about to be destroyed, by this document. It may be on some of its tokens still.
    Begun {
        /// The entry.
        entry: u64,
        /// The document.
        document: Digest,
    },
    /// It is on no token any more.
    Destroyed {
        /// The entry that says so.
        entry: u64,
    },
}

impl KeyFacts {
    /// Whether it may be used at this moment.
    pub fn is_active(&self, at: Timestamp) -> bool {
        match self.active {
            None => false,
            Some(None) => true,
            Some(Some(until)) => at < until,
        }
    }

    /// The Business Originator of what it signs: whose certificate it has. The Contingency Private Key has no certificate; the policy says
    /// under which EUI-64 it signs.
    pub fn originator(&self, policy: &Policy) -> Option<PartyId> {
        match self.record.use_ {
            KeyUse::Contingency => policy.key(&self.record.label).and_then(|key| key.originator),
            KeyUse::Recovery | KeyUse::Ledger => self.certificate.map(|(_, party)| party),
        }
    }

    /// It can be used no longer, and whoever opened it presents anew.
    pub fn lock(&mut self) {
        (self.active, self.active_for) = (None, None);
        self.presented.clear();
        if let Some(contingency) = &mut self.contingency {
            contingency.lapse();
        }
    }
}

/// What is to be signed under a determination: given in it, or in its schedule.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// The command templates by name.
    #[serde(with = "kept::templates")]
    pub templates: BTreeMap<TemplateName, Arc<Template>>,
    /// How many Devices are listed.
    pub devices: u64,
    /// SHA-256 of the device list, a blob.
    pub device_list: Digest,
    /// The RFC 6962 root over its lines.
    pub device_root: Digest,
    /// The greatest number of intents in all.
    pub intents_max: u64,
    /// The greatest number of intents in any 60 minutes.
    pub per_hour_max: u64,
    /// How often an unknown may be signed again.
    pub retries_max: u32,
    /// Whether the daemon may do so by itself.
    pub retries_by_itself: bool,
    /// Counters start above this.
    pub counter_start: u64,
}

/// What became of the intents of a determination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// Signed.
    pub signed: u64,
    /// The token failed.
    pub failed: u64,
    /// Never submitted.
    pub not_signed: u64,
    /// Unknown, and neither signed again nor left.
    pub unknown: u64,
    /// Unknown, and left so.
    pub left: u64,
}

/// A recorded determination and what has become of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeterminationFacts {
    /// Its id.
    pub id: DeterminationId,
    /// The incident.
    pub incident: IncidentId,
    /// The number of the decision within the incident.
    pub decision_number: u32,
    /// By which method Devices are recovered; `None` where it is not to execute.
    pub method: Option<Method>,
    /// The leaf that recorded it.
    pub recorded: u64,
    /// SHA-256 of the document.
    pub document: Digest,
    /// Whether recovery is to be executed; if not, nothing can be signed.
    pub execute: bool,
    /// The key that is required, by label and SHA-256 of its SubjectPublicKeyInfo.
    pub key: Option<(KeyLabel, Digest)>,
    /// That the Contingency Symmetric Key is released into the commands; none by any other method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub symmetric_key: Option<SymmetricKeyLine>,
    /// Counters start above this.
    pub counter_start: u64,
    /// When it is in force.
    pub window: Window,
    /// The policy it names.
    pub policy: Digest,
    /// Who drafted it.
    pub proposer: PersonId,
    /// Who signed it.
    pub approvers: BTreeSet<PersonId>,
    /// What may be signed; none until its schedule is recorded.
    pub scope: Option<Scope>,
    /// Suspended by a member until.
    pub suspended_until: Option<Timestamp>,
    /// For how many milliseconds it was suspended while the clock was not trusted: they begin when it is accepted.
    pub suspended_ms: i64,
    /// The members who have used their one suspension.
    pub suspended_by: BTreeSet<PersonId>,
    /// Withdrawn by the PMA.
    pub withdrawn: bool,
    /// Replaced by another.
    pub superseded_by: Option<DeterminationId>,
    /// Not carried over by a later policy.
    pub dropped_by_policy: Option<Digest>,
    /// Intents so far.
    pub intents: u64,
    /// What became of them.
    pub tally: Tally,
    /// What Devices have answered so far.
    pub responses: ResponseTally,
    /// The entry of the last foreign answer, which stops the key until an operator has looked at it.
    pub foreign: Option<u64>,
    /// The entry by which an operator let signing go on, and that of the foreign answer that had stopped it.
    pub resumed: Option<(u64, u64)>,
    /// Intents by the minute in which they were recorded.
    pub recent: Recent,
}

/// The minutes that [`Scope::per_hour_max`] looks back on: 60 whole ones and the one that has begun, so that no 60 minutes
/// ever hold more intents than permitted.
pub const RECENT_MINUTES: i64 = 61;

/// How a determination stands at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The SMKI PMA withdrew it.
    Withdrawn,
    /// Another took its place.
    Superseded,
    /// A later policy did not carry it over.
    NotCarriedOver,
    /// It is not to execute.
    NotExecute,
    /// Its window is over.
    Expired,
    /// A member suspended it.
    Suspended,
    /// Its window has not begun.
    NotYet,
    /// Its scope was left to a schedule, which is not recorded yet.
    AwaitsSchedule,
    /// It is in force.
    InForce,
}

impl IncidentFacts {
    /// Whether it was found to be no Compromise: from then on it bars nothing.
    pub fn is_dismissed(&self) -> bool {
        self.progress.as_ref().is_some_and(|progress| progress.has_done(Meaning::Dismiss))
    }

    /// Whether an SMI Status extract with this SHA-256 was accepted.
    pub fn has_extract(&self, file: Digest) -> bool {
        self.files.iter().any(|known| known.kind == FileKind::SmiExtract && known.file == file)
    }
}

impl DeterminationFacts {
    /// How it stands at a moment. What ends it for good is said first.
    pub fn standing(&self, at: Timestamp) -> Standing {
        if self.withdrawn {
            Standing::Withdrawn
        } else if self.superseded_by.is_some() {
            Standing::Superseded
        } else if self.dropped_by_policy.is_some() {
            Standing::NotCarriedOver
        } else if !self.execute {
            Standing::NotExecute
        } else if at >= self.window.until {
            Standing::Expired
        } else if self.suspended_until.is_some_and(|until| at < until) {
            Standing::Suspended
        } else if at < self.window.from {
            Standing::NotYet
        } else if self.scope.is_none() {
            Standing::AwaitsSchedule
        } else {
            Standing::InForce
        }
    }

    /// Why it is not in force at this moment, if it is not. Before its window begins, and before its schedule is recorded, it is: what
    /// must precede the use of the key may be done then.
    pub fn not_in_force(&self, now: Timestamp) -> Option<Refusal> {
        let id = self.id;
        match self.standing(now) {
            Standing::Withdrawn => Some(Refusal::Withdrawn { id }),
            Standing::Superseded => self.superseded_by.map(|by| Refusal::Superseded { id, by }),
            Standing::NotCarriedOver => self.dropped_by_policy.map(|policy| Refusal::NotCarriedOver { id, policy }),
            Standing::Suspended => self.suspended_until.map(|until| Refusal::Suspended { id, until }),
            Standing::Expired => Some(Refusal::Window { id, window: self.window, now }),
            Standing::NotExecute | Standing::NotYet | Standing::AwaitsSchedule | Standing::InForce => None,
        }
    }

    /// Intents of the last hour, in whole minutes: those of up to a minute more may be counted, never fewer.
    pub fn intents_of_last_hour(&self, at: Timestamp) -> u64 {
        last_hour(&self.recent, at)
    }

    /// Counts one more.
    pub fn count_intent(&mut self, at: Timestamp) {
        self.intents += 1;
        count_recent(&mut self.recent, at);
    }
}

/// Intents by the minute in which they were recorded, at most [`RECENT_MINUTES`] of them, the oldest first.
pub type Recent = VecDeque<(i64, u64)>;

/// What is counted of the last hour, in whole minutes: that of up to a minute more may be counted, never less.
pub fn last_hour(recent: &Recent, at: Timestamp) -> u64 {
    let since = minute_of(at) - RECENT_MINUTES;
    recent.iter().filter(|(minute, _)| *minute > since).map(|(_, count)| count).sum()
}

/// Counts one more.
pub fn count_recent(recent: &mut Recent, at: Timestamp) {
    let minute = minute_of(at);
    while recent.front().is_some_and(|(oldest, _)| *oldest <= minute - RECENT_MINUTES) {
        recent.pop_front();
    }
    match recent.back_mut() {
        Some((last, count)) if *last == minute => *count += 1,
        Some(_) | None => recent.push_back((minute, 1)),
    }
}

/// The next moment at which fewer are counted than at this one; none if none are.
pub fn frees_at(recent: &Recent, at: Timestamp) -> Option<Timestamp> {
    let since = minute_of(at) - RECENT_MINUTES;
    let oldest = recent.iter().find(|(minute, _)| *minute > since)?.0;
    Some(at.plus_ms((oldest + RECENT_MINUTES) * 60_000 - at.unix_ms()))
}

const fn minute_of(at: Timestamp) -> i64 {
    at.unix_ms() / 60_000
}

/// What the device list of a determination says about a Device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The Device.
    pub device: DeviceId,
    /// The template for it.
    pub template: TemplateName,
    /// The Device's current counter for the key's role, where the list gives it.
    pub counter: Option<u64>,
}

/// What became of an intent, as the fold keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntentState {
    /// No outcome yet.
    Open,
    /// Signed, and the signature is kept.
    Signed,
    /// The token failed.
    Failed,
    /// Never submitted.
    NotSigned,
    /// Nobody can tell.
    Unknown,
    /// Unknown, and left so.
    Left,
}

impl IntentState {
    /// Every state.
    pub const ALL: [Self; 6] = [Self::Open, Self::Signed, Self::Failed, Self::NotSigned, Self::Unknown, Self::Left];

    /// Whether somebody may hold a signature.
    pub const fn may_be_signed(self) -> bool {
        match self {
            Self::Open | Self::Signed | Self::Unknown | Self::Left => true,
            Self::Failed | Self::NotSigned => false,
        }
    }
}

/// The last intent for a Device with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// Its leaf.
    pub intent: u64,
    /// Under which determination.
    pub determination: DeterminationId,
    /// From which template.
    pub template: TemplateName,
    /// Its counter: the highest recorded for the key and the Device.
    pub counter: u64,
    /// Which attempt it was.
    pub attempt: u32,
    /// What became of it.
    pub state: IntentState,
}

impl DeviceFacts {
    /// Whether another counter took the place of this one, which was, or may have been, signed: the Device may still answer it.
    pub fn is_overtaken_by(&self, next: &Self) -> bool {
        next.state == IntentState::Open && self.counter != next.counter && self.state.may_be_signed()
    }
}

/// What somebody wants signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The Device.
    pub device: DeviceId,
    /// How it is given.
    pub form: WantedForm,
}

/// The two forms of input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WantedForm {
    /// A Device of the list: the daemon fills its template.
    Device,
    /// A pre-command made elsewhere, complete from `DF` to the end of its payload.
    PreCommand(Vec<u8>),
    /// An unknown of this Device again: the same octets with the same counter.
    Retry,
}

/// How facts are kept where serde alone would not do.
mod kept {
    /// A moment that may be none, of what may be none: JSON has one null for both.
    pub(super) mod twice {
        use serde::{Deserialize, Deserializer, Serialize, Serializer};

        use crate::domain::time::Timestamp;

        #[expect(clippy::ref_option, clippy::option_option, reason = "serde gives the field so")]
        pub(in super::super) fn serialize<S: Serializer>(
            value: &Option<Option<Timestamp>>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            value.map(|until| [until]).serialize(serializer)
        }

        #[expect(clippy::option_option, reason = "as above")]
        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Option<Timestamp>>, D::Error> {
            Ok(Option::<[Option<Timestamp>; 1]>::deserialize(deserializer)?.map(|[until]| until))
        }
    }

    /// Templates by their octets.
    pub(super) mod templates {
        use std::collections::BTreeMap;
        use std::sync::Arc;

        use base64::Engine as _;
        use base64::engine::general_purpose::STANDARD;
        use serde::de::Error as _;
        use serde::{Deserialize, Deserializer, Serializer};

        use crate::domain::gbcs::Template;
        use crate::domain::names::TemplateName;

        pub(in super::super) fn serialize<S: Serializer>(
            templates: &BTreeMap<TemplateName, Arc<Template>>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            serializer.collect_map(templates.iter().map(|(name, template)| (name, STANDARD.encode(template.octets()))))
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<BTreeMap<TemplateName, Arc<Template>>, D::Error> {
            let texts = BTreeMap::<TemplateName, Box<str>>::deserialize(deserializer)?;
            let template = |(name, text): (TemplateName, Box<str>)| {
                let octets = STANDARD.decode(&*text).map_err(D::Error::custom)?;
                Ok((name, Arc::new(Template::parse(&octets).map_err(D::Error::custom)?)))
            };
            texts.into_iter().map(template).collect()
        }
    }
}
