//! Pure. The procedure at one moment: which profile is in force, and what it demands of an incident.
//!
//! [`demands`] is the one gate. The guards of an incident's steps (`domain::incident`), what is to be done next and what
//! is explained all ask it, so that what is shown is what is enforced. What a step itself must say (a reason, evidence, the proof of a
//! Device) its guard asks besides.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Procedure;
use super::profile::{Actor, Gate, Label, Owed, Profile, Step};
use super::state::{State, places};
use super::variation::{Clause, Effect, End, Extension, Record, Variation};
use crate::domain::determination::document::Method;
use crate::domain::determination::prose::Prose;
use crate::domain::ledger::meaning::Meaning;
use crate::domain::ledger::steps::ProfileInForce;
use crate::domain::names::{ClauseId, DirectionId, DutyId, FactorId, ProfileId, StepId};
use crate::domain::time::Timestamp;

/// How a variation stands at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has not begun.
    NotYet,
    /// It is in force.
    InForce,
    /// It is over.
    Over,
}

/// A variation, and how it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Laid<'a> {
    /// Which.
    pub variation: &'a Variation,
    /// Where it ends, with every extension.
    pub end: End,
    /// At the moment asked for.
    pub standing: Standing,
}

/// The procedure at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce<'a> {
    at: Timestamp,
    base: &'a Profile,
    laid: Vec<Laid<'a>>,
}

impl Procedure {
    /// The procedure at a moment, with the extensions that the ledger has.
    ///
    /// Extensions recorded after `at` alter nothing: one is taken in only while its variation is still in force without it, so
    /// `at` lies before that end too.
    pub fn in_force(&self, at: Timestamp, extensions: &[Extension]) -> InForce<'_> {
        let laid = self
            .variations()
            .iter()
            .map(|variation| {
                let end = variation.end(extensions);
                let standing = if at < variation.begins() {
                    Standing::NotYet
                } else if end.at.is_some_and(|end| end <= at) {
                    Standing::Over
                } else {
                    Standing::InForce
                };
                Laid { variation, end, standing }
            })
            .collect();
        InForce { at, base: self.base(), laid }
    }
}

impl<'a> InForce<'a> {
    /// The moment.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// The base profile.
    pub fn base(&self) -> &'a Profile {
        self.base
    }

    /// Every variation, and how it stands.
    pub fn laid(&self) -> &[Laid<'a>] {
        &self.laid
    }

    /// The variations in force.
    pub fn variations(&self) -> impl Iterator<Item = &'a Variation> {
        self.laid.iter().filter(|laid| laid.standing == Standing::InForce).map(|laid| laid.variation)
    }

    /// The ids that an entry names: what a step was taken under.
    pub fn ids(&self) -> ProfileInForce {
        ProfileInForce {
            base: self.base.id.clone(),
            variations: self.variations().map(|variation| variation.id.clone()).collect(),
        }
    }

    /// The clauses in force, with their variation.
    pub fn clauses(&self) -> impl Iterator<Item = (&'a Variation, &'a Clause)> {
        self.variations().flat_map(|variation| variation.clauses.iter().map(move |clause| (variation, clause)))
    }

    /// The factors that the SMKI PMA may weigh besides those of the Guidance.
    pub fn optional_factors(&self) -> impl Iterator<Item = (&'a FactorId, &'a Clause)> {
        self.clauses().filter_map(|(_, clause)| match &clause.effect {
            Effect::OptionalFactor { factor } => Some((factor, clause)),
            Effect::NotRequiredBefore { .. } | Effect::Record(_) => None,
        })
    }

    /// What else the directions did, and whether it has taken effect. It does not end with a variation.
    pub fn records(&self) -> impl Iterator<Item = (&'a Variation, &'a Clause, &'a Record, bool)> {
        let at = self.at;
        self.laid.iter().flat_map(move |laid| {
            laid.variation.clauses.iter().filter_map(move |clause| match &clause.effect {
                Effect::Record(record) => Some((laid.variation, clause, record, record.with_effect.begins() <= at)),
                Effect::NotRequiredBefore { .. } | Effect::OptionalFactor { .. } => None,
            })
        })
    }

    /// The clauses in force that relieve somebody of a step, each with the gate that ends the relief.
    pub fn reliefs(&self, step: &StepId) -> impl Iterator<Item = (Text, Gate, Actor)> {
        self.clauses().filter_map(move |(variation, clause)| match &clause.effect {
            Effect::NotRequiredBefore { steps, gate, relieves } if steps.contains(step) => {
                Some((Text::of_clause(variation, clause), *gate, *relieves))
            }
            Effect::NotRequiredBefore { .. } | Effect::OptionalFactor { .. } | Effect::Record(_) => None,
        })
    }
}

/// By which text something holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// A step of the base profile.
    Step {
        /// The profile.
        profile: ProfileId,
        /// The step.
        step: StepId,
        /// What documents print beside it.
        labels: Vec<Label>,
    },
    /// A clause of a variation.
    Clause {
        /// The variation.
        variation: ProfileId,
        /// The clause.
        clause: ClauseId,
        /// The direction.
        reference: Prose,
    },
    /// A direction of the SMKI PMA that departs from a step in one incident.
    Direction(DirectionId),
}

impl Text {
    fn of_step(profile: &Profile, step: &Step) -> Self {
        Self::Step { profile: profile.id.clone(), step: step.id.clone(), labels: step.labels.clone() }
    }

    fn of_clause(variation: &Variation, clause: &Clause) -> Self {
        Self::Clause {
            variation: variation.id.clone(),
            clause: clause.id.clone(),
            reference: variation.reference.clone(),
        }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step { profile, step, labels } => {
                write!(f, "profile {profile}, step {step}")?;
                let labels: Vec<String> = labels.iter().map(ToString::to_string).collect();
                if labels.is_empty() { Ok(()) } else { write!(f, " ({})", labels.join("; ")) }
            }
            Self::Clause { variation, clause, reference } => {
                write!(f, "variation {variation}, clause ({clause}): {reference}")
            }
            Self::Direction(direction) => write!(f, "direction {direction} of the SMKI PMA"),
        }
    }
}

/// With which key recovery is to be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithKey {
    /// The Recovery Private Key.
    Recovery,
    /// The Contingency Private Key, with the Contingency Symmetric Key.
    Contingency,
}

/// What the SMKI PMA has determined in an incident, as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Determined {
    /// Nothing yet.
    None,
    /// Not to execute.
    NotToExecute,
    /// To execute.
    Execute(WithKey),
}

impl Gate {
    /// Whether that determination opens it.
    pub const fn is_open(self, determined: Determined) -> bool {
        match (self, determined) {
            (Self::AnyDetermination | Self::DeterminationToExecute, Determined::None)
            | (Self::DeterminationToExecute, Determined::NotToExecute) => false,
            (Self::AnyDetermination, Determined::NotToExecute | Determined::Execute(_))
            | (Self::DeterminationToExecute, Determined::Execute(_)) => true,
        }
    }
}

/// Devices for which a step is still to be taken, where it is taken Device by Device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// So many do not have it yet. Whether it is asked for, the profile says.
    Wanted(u64),
    /// So many must have it because of what they proved, whatever was determined since.
    Owed(u64),
}

impl Waiting {
    /// How many they are.
    pub const fn count(self) -> u64 {
        match self {
            Self::Wanted(count) | Self::Owed(count) => count,
        }
    }
}

/// What the procedure looks at in an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentView<'a> {
    /// What the SMKI PMA has determined: what it relieves of, or makes due, it does once and for all.
    pub determination: Determined,
    /// Why that determination is not in force now, if it is not: suspended, over. Then it permits nothing.
    pub not_in_force: Option<Box<str>>,
    /// When its window begins, if it has not yet: no key is used before.
    pub begins: Option<Timestamp>,
    /// The method, once one was chosen.
    pub method: Option<Method>,
    /// The steps that were taken.
    pub done: BTreeSet<StepId>,
    /// What is done Device by Device, once the Devices are known: how many wait for it.
    pub waiting: BTreeMap<StepId, Waiting>,
    /// The duties to inform that arose.
    pub arisen: BTreeSet<DutyId>,
    /// The steps that a direction of the SMKI PMA departs from.
    pub departures: BTreeMap<StepId, DirectionId>,
    /// Where it stands; none where it is in no procedure.
    pub state: Option<State>,
    /// What people call its state.
    pub state_name: &'a str,
}

impl IncidentView<'_> {
    /// Whether a step was taken, for every Device that wants it.
    pub fn has_done(&self, step: &StepId) -> bool {
        self.done.contains(step) && self.waiting.get(step).is_none_or(|waiting| waiting.count() == 0)
    }

    /// Whether a step was taken or the SMKI PMA directed to depart from it.
    pub fn has_settled(&self, step: &StepId) -> bool {
        self.has_done(step) || self.departures.contains_key(step)
    }

    /// Whether what a gate keeps closed may be done. A determination permits as long as it is in force.
    fn permits(&self, gate: Gate) -> bool {
        let powerless = gate == Gate::DeterminationToExecute && self.not_in_force.is_some();
        gate.is_open(self.determination) && !powerless
    }

    /// Whether nothing is done any more in order to recover.
    fn has_lapsed(&self) -> bool {
        self.determination == Determined::NotToExecute
            || matches!(self.state, Some(State::Withdrawn | State::Dismissed))
    }

    /// Whether an incident that stands here may still come to one of these states.
    fn may_reach(&self, states: &[State]) -> bool {
        self.state.is_none_or(|state| state.may_reach(states))
    }

    /// Whether a step belongs to a method that this incident may still go by.
    fn may_need(&self, step: &Step) -> bool {
        let may_go = |method: &Method| match (self.method, self.determination) {
            (Some(chosen), _) => *method == chosen,
            (None, Determined::Execute(WithKey::Contingency)) => *method == Method::Contingency,
            (None, Determined::Execute(WithKey::Recovery)) => {
                matches!(method, Method::AcbCertificates | Method::NewOrganisationCertificates)
            }
            (None, Determined::None | Determined::NotToExecute) => true,
        };
        step.methods.iter().any(may_go)
    }
}

/// Whether a step may be taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum May {
    /// It may.
    Yes,
    /// It may, and whoever takes it says why.
    WithReason,
    /// It may not.
    No,
}

/// What something waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Awaits {
    /// The SMKI PMA.
    Gate(Gate),
    /// Steps that come before.
    Steps(Vec<StepId>),
    /// A Device for which it is to be done.
    Devices,
    /// The incident's coming to one of these states.
    States(&'static [State]),
    /// A moment.
    Moment(Timestamp),
}

impl fmt::Display for Awaits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gate(gate) => gate.fmt(f),
            Self::Steps(steps) => {
                let steps: Vec<&str> = steps.iter().map(StepId::as_str).collect();
                f.write_str(&steps.join(", "))
            }
            Self::Devices => f.write_str("a Device that has proven its recovery"),
            Self::States(states) => {
                let states: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
                write!(f, "the incident to be {}", states.join(" or "))
            }
            Self::Moment(at) => write!(f, "{at}, when the determination comes into force"),
        }
    }
}

/// What the procedure demands about a step now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// The profile has no such step.
    Unknown {
        /// The profile.
        profile: ProfileId,
    },
    /// It was taken.
    Done {
        /// The step.
        by: Text,
        /// Whether it may be taken again.
        again: May,
    },
    /// It is owed now.
    Due {
        /// By what.
        by: Text,
    },
    /// It is not owed yet: a clause relieves whoever would owe it, or steps before it are missing.
    NotYetDue {
        /// By what.
        by: Text,
        /// Until when.
        awaits: Awaits,
        /// Whether it may be taken earlier.
        early: May,
    },
    /// It may be taken, and nobody owes it.
    Permitted {
        /// By what.
        by: Text,
    },
    /// Nobody owes it in this incident, and there is nothing to do.
    NotRequired {
        /// By what.
        by: Text,
    },
    /// It must not be taken.
    Blocked {
        /// By what.
        by: Text,
        /// What would open it.
        awaits: Gate,
        /// Why what was determined does not, if it would.
        why: Option<Box<str>>,
    },
}

impl Requirement {
    /// Whether somebody owes it now.
    pub const fn is_due(&self) -> bool {
        matches!(self, Self::Due { .. })
    }

    /// The direction of the SMKI PMA that departs from the step, where that alone is why it may be left out.
    pub const fn departed_by(&self) -> Option<DirectionId> {
        match self {
            Self::Permitted { by: Text::Direction(direction) } => Some(*direction),
            Self::Unknown { .. }
            | Self::Done { .. }
            | Self::Due { .. }
            | Self::NotYetDue { .. }
            | Self::Permitted { .. }
            | Self::NotRequired { .. }
            | Self::Blocked { .. } => None,
        }
    }

    /// Whether the step may be taken now: what a guard asks.
    pub const fn may(&self) -> May {
        match self {
            Self::Due { .. } | Self::Permitted { .. } => May::Yes,
            Self::NotYetDue { early, .. } => *early,
            Self::Done { again, .. } => *again,
            Self::Unknown { .. } | Self::NotRequired { .. } | Self::Blocked { .. } => May::No,
        }
    }

    /// The text by which it holds.
    pub const fn by(&self) -> Option<&Text> {
        match self {
            Self::Unknown { .. } => None,
            Self::Done { by, .. }
            | Self::Due { by }
            | Self::NotYetDue { by, .. }
            | Self::Permitted { by }
            | Self::NotRequired { by }
            | Self::Blocked { by, .. } => Some(by),
        }
    }

    /// One word for it.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "unknown",
            Self::Done { .. } => "done",
            Self::Due { .. } => "due",
            Self::NotYetDue { .. } => "not-yet-due",
            Self::Permitted { .. } => "permitted",
            Self::NotRequired { .. } => "not-required",
            Self::Blocked { .. } => "blocked",
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { profile } => write!(f, "profile {profile} has no such step"),
            Self::Done { by, again: _ } => write!(f, "done ({by})"),
            Self::Due { by } => write!(f, "due ({by})"),
            Self::NotYetDue { by, awaits, early } => {
                let early = match early {
                    May::Yes => "; it may be done before",
                    May::WithReason => "; it may be done before, with a stated reason",
                    May::No => "",
                };
                write!(f, "not due before {awaits} ({by}){early}")
            }
            Self::Permitted { by } => write!(f, "permitted, and owed by nobody ({by})"),
            Self::NotRequired { by } => write!(f, "not required in this incident ({by})"),
            Self::Blocked { by, awaits, why: None } => write!(f, "blocked: it needs {awaits} ({by})"),
            Self::Blocked { by, awaits, why: Some(why) } => {
                write!(f, "blocked: it needs {awaits} that is in force, and {why} ({by})")
            }
        }
    }
}

/// A step of the profile, and what the procedure demands about it in an incident, now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand<'a> {
    /// The step.
    pub step: &'a Step,
    /// What is demanded.
    pub requirement: Requirement,
    /// The steps before it that are still to be taken.
    pub missing: Vec<StepId>,
    /// The directions by which steps before it were left out.
    pub departures: Vec<DirectionId>,
}

/// What the procedure demands about one step of an incident, now.
pub fn required(step: &StepId, in_force: &InForce<'_>, view: &IncidentView<'_>) -> Requirement {
    demands(in_force, view)
        .into_iter()
        .find_map(|demand| (demand.step.id == *step).then_some(demand.requirement))
        .unwrap_or_else(|| Requirement::Unknown { profile: in_force.base.id.clone() })
}

/// What it demands about every step, in their order. This is the gate: a guard takes [`Requirement::may`] of it.
pub fn demands<'a>(in_force: &InForce<'a>, view: &IncidentView<'_>) -> Vec<Demand<'a>> {
    // Steps that nothing waits for any more, with the direction to leave them out where one did. A step only waits for steps of a lower
    // order, so one pass suffices.
    let mut settled: BTreeMap<&StepId, Option<DirectionId>> = BTreeMap::new();
    let mut all = Vec::with_capacity(in_force.base.steps.len());
    for step in &in_force.base.steps {
        // In the order of the profile, which is that in which people take them.
        let before = in_force.base.steps.iter().map(|before| &before.id).filter(|id| step.after.contains(*id));
        let missing: Vec<StepId> = before.filter(|id| !settled.contains_key(id)).cloned().collect();
        let departures: BTreeSet<DirectionId> =
            step.after.iter().filter_map(|id| settled.get(id).copied().flatten()).collect();
        let by_profile = by_profile(step, in_force, view, &missing);
        let is_settled = match &by_profile {
            Requirement::Done { .. } | Requirement::NotRequired { .. } => true,
            // What nobody owes by itself is waited for by what comes after it.
            Requirement::Permitted { .. } => by_profile.departed_by().is_some(),
            Requirement::NotYetDue { early, .. } => *early != May::No,
            Requirement::Blocked { .. } => step.lapses && view.has_lapsed(),
            Requirement::Due { .. } | Requirement::Unknown { .. } => false,
        };
        let directed = by_profile.departed_by();
        let requirement = in_place(step, by_profile, view);
        if is_settled || view.has_done(&step.id) || matches!(requirement, Requirement::NotRequired { .. }) {
            settled.insert(&step.id, directed);
        }
        all.push(Demand { step, requirement, missing, departures: departures.into_iter().collect() });
    }
    all
}

/// What the profile says, wherever the incident stands.
fn by_profile(step: &Step, in_force: &InForce<'_>, view: &IncidentView<'_>, missing: &[StepId]) -> Requirement {
    if !view.has_done(&step.id) {
        return untaken(step, in_force, view, missing);
    }
    let again = if step.repeats {
        untaken(step, in_force, view, missing)
    } else {
        Requirement::Done { by: Text::of_step(in_force.base, step), again: May::No }
    };
    // A relief asks for a reason each time.
    let by = match &again {
        Requirement::NotYetDue { by, early: May::WithReason, .. } => by.clone(),
        _ => Text::of_step(in_force.base, step),
    };
    Requirement::Done { by, again: again.may() }
}

/// The same of a step as if it had not been taken.
fn untaken(step: &Step, in_force: &InForce<'_>, view: &IncidentView<'_>, missing: &[StepId]) -> Requirement {
    let by = || Text::of_step(in_force.base, step);
    let waiting = view.waiting.get(&step.id);
    let is_owed = matches!(waiting, Some(Waiting::Owed(1..)));
    if !is_owed && !view.may_need(step) {
        return Requirement::NotRequired { by: by() };
    }
    // What the base profile keeps closed stays closed: a relief and a departure take duties away, and give no powers.
    if let Some(gate) = step.needs.filter(|gate| !view.permits(*gate)) {
        return Requirement::Blocked { by: by(), awaits: gate, why: view.not_in_force.clone() };
    }
    let relief = in_force
        .reliefs(&step.id)
        .find(|(_, gate, relieved)| step.actors.contains(relieved) && !gate.is_open(view.determination));
    if !is_owed && step.lapses && view.has_lapsed() {
        return Requirement::NotRequired { by: relief.map_or_else(by, |(text, _, _)| text) };
    }
    if let Some(direction) = view.departures.get(&step.id) {
        return Requirement::Permitted { by: Text::Direction(*direction) };
    }
    let in_turn = missing.is_empty();
    if let Some((text, gate, relieved)) = relief {
        // What a Subscriber does early it does by a file that its ARO signed: that is its word, and no other is asked for.
        let early = match (in_turn, relieved) {
            (false, _) => May::No,
            (true, Actor::Subscriber) => May::Yes,
            (true, Actor::Dcc | Actor::Party | Actor::Rdp | Actor::Pma | Actor::KeyCustodians) => May::WithReason,
        };
        return Requirement::NotYetDue { by: text, awaits: Awaits::Gate(gate), early };
    }
    if !in_turn {
        let awaits = Awaits::Steps(missing.to_vec());
        return Requirement::NotYetDue { by: by(), awaits, early: May::No };
    }
    if let Some(begins) = view.begins.filter(|_| uses_the_key(&step.id)) {
        return Requirement::NotYetDue { by: by(), awaits: Awaits::Moment(begins), early: May::No };
    }
    let has_begun = view.done.contains(&step.id);
    match waiting {
        Some(Waiting::Owed(0)) if !has_begun && view.may_reach(places(Meaning::Execute)) => {
            Requirement::NotYetDue { by: by(), awaits: Awaits::Devices, early: May::No }
        }
        Some(Waiting::Owed(0) | Waiting::Wanted(0)) if !has_begun => Requirement::NotRequired { by: by() },
        Some(_) | None if step.owed == Owed::May => Requirement::Permitted { by: by() },
        Some(_) | None => Requirement::Due { by: by() },
    }
}

fn uses_the_key(step: &StepId) -> bool {
    matches!(Meaning::of(step), Some(Meaning::ActivateKey | Meaning::Execute))
}

/// The same where the incident stands: a step has its states, and beyond the last of them nobody owes it.
fn in_place(step: &Step, requirement: Requirement, view: &IncidentView<'_>) -> Requirement {
    let Some(state) = view.state else { return requirement };
    let states: &'static [State] = match Meaning::of(&step.id) {
        Some(meaning) => places(meaning),
        // A step that only the profile knows has its place until the incident is closed.
        None if state == State::Closed => &[],
        None => return requirement,
    };
    if states.contains(&state) {
        return requirement;
    }
    match requirement {
        Requirement::Done { by, again: _ } => Requirement::Done { by, again: May::No },
        Requirement::Due { by }
        | Requirement::NotYetDue { by, .. }
        | Requirement::Permitted { by }
        | Requirement::Blocked { by, .. }
            if !state.may_reach(states) =>
        {
            Requirement::NotRequired { by }
        }
        Requirement::Due { by } | Requirement::Permitted { by } => {
            Requirement::NotYetDue { by, awaits: Awaits::States(states), early: May::No }
        }
        Requirement::NotYetDue { by, awaits, early: _ } => Requirement::NotYetDue { by, awaits, early: May::No },
        requirement @ (Requirement::Unknown { .. } | Requirement::NotRequired { .. } | Requirement::Blocked { .. }) => {
            requirement
        }
    }
}

/// Why a key may or may not sign, as far as the procedure goes: only a determination to execute with that very key opens it, in
/// every profile, and only while it is in force and the incident can still come to sign. What else it takes (Key Custodians, scope,
/// limits) the rules of the policy ask.
pub fn key_may_sign(key: WithKey, view: &IncidentView<'_>) -> bool {
    if view.not_in_force.is_some() || view.begins.is_some() || !view.may_reach(places(Meaning::Execute)) {
        return false;
    }
    match (view.determination, key) {
        (Determined::None | Determined::NotToExecute, WithKey::Recovery | WithKey::Contingency)
        | (Determined::Execute(WithKey::Recovery), WithKey::Contingency)
        | (Determined::Execute(WithKey::Contingency), WithKey::Recovery) => false,
        (Determined::Execute(WithKey::Recovery), WithKey::Recovery)
        | (Determined::Execute(WithKey::Contingency), WithKey::Contingency) => true,
    }
}

#[cfg(test)]
pub(in crate::domain) mod tests;
