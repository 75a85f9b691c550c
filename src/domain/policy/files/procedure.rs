//! Pure. How the procedure is written: `procedure/base.toml`, and a file for each variation laid over it.
//!
//! A file with nothing but its header (`version`, `id`, `title`) is one of the first kind of policy, in which the procedure was
//! not read: it is no fault, and says nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use toml::Spanned;

use super::{PolicyFault, Reading, Versioned, procedure_id};
use crate::domain::determination::document::Method;
use crate::domain::determination::prose::Prose;
use crate::domain::ledger::meaning::Meaning;
use crate::domain::names::{ClauseId, DutyId, FactorId, MechanismId, ProfileId, StepId};
use crate::domain::procedure::profile::{
    Actor, Duty, Gate, Label, Mechanism, Owed, Phase, Profile, Recipient, STEPS_MAX, Step,
};
use crate::domain::procedure::state::may_be_departed_from;
use crate::domain::procedure::variation::{Clause, Effect, Record, Recorded, Variation};
use crate::domain::procedure::{CivilDate, EndDay, Procedure};

/// The base profile.
pub(in crate::domain::policy) const BASE: &str = "procedure/base.toml";

/// Longer than a year is no time limit of a recovery. No official reference.
const HOURS_MAX: u64 = 24 * 366;

/// The steps that the daemon takes or asks for: without one of them a guard would have nothing to ask.
const REQUIRED: &[Meaning] = &[
    Meaning::Notify,
    Meaning::Confirm,
    Meaning::Assess,
    Meaning::SubmitNotification,
    Meaning::SetRecovery,
    Meaning::SubmitThresholds,
    Meaning::Refer,
    Meaning::Determine,
    Meaning::Prepare,
    Meaning::ActivateKey,
    Meaning::Execute,
    Meaning::SetRecovered,
    Meaning::HandOver,
    Meaning::Close,
];

/// What a step waits for in every profile. Whether SMI Status and ADT file precede the referral too, the profile says; that they
/// precede the use of a key, no profile can alter.
const fn least_after(step: Meaning) -> &'static [Meaning] {
    match step {
        Meaning::Assess => &[Meaning::Confirm],
        Meaning::SetRecovery | Meaning::SubmitThresholds => &[Meaning::Assess],
        Meaning::Refer => &[Meaning::Assess, Meaning::SubmitNotification],
        Meaning::Determine => &[Meaning::Refer],
        Meaning::Prepare => &[Meaning::Determine, Meaning::SetRecovery, Meaning::SubmitThresholds],
        Meaning::ActivateKey => &[Meaning::Prepare],
        Meaning::Execute => &[Meaning::ActivateKey],
        Meaning::HandOver => &[Meaning::SetRecovered],
        Meaning::Close => &[Meaning::SetRecovered, Meaning::HandOver],
        Meaning::Notify
        | Meaning::Confirm
        | Meaning::Dismiss
        | Meaning::Inform
        | Meaning::SubmitNotification
        | Meaning::SubscriberRecovery
        | Meaning::Pause
        | Meaning::Exclude
        | Meaning::Finish
        | Meaning::ReportProgress
        | Meaning::SetRecovered
        | Meaning::SetStatus
        | Meaning::ImportStatuses
        | Meaning::BeginPostRecovery
        | Meaning::AcceptStranded => &[],
    }
}

/// By which methods a step is taken in every profile: fewer would let an incident of another method go on without it.
const fn least_methods(step: Meaning) -> &'static [Method] {
    use Method::{AcbCertificates, Contingency, NewOrganisationCertificates};
    match step {
        Meaning::Notify | Meaning::Confirm | Meaning::Assess | Meaning::Close => &Method::ALL,
        Meaning::SubmitNotification
        | Meaning::SetRecovery
        | Meaning::SubmitThresholds
        | Meaning::Refer
        | Meaning::Determine
        | Meaning::Prepare
        | Meaning::ActivateKey
        | Meaning::Execute
        | Meaning::SetRecovered => &[AcbCertificates, NewOrganisationCertificates, Contingency],
        Meaning::HandOver => &[AcbCertificates],
        Meaning::Dismiss
        | Meaning::Inform
        | Meaning::SubscriberRecovery
        | Meaning::Pause
        | Meaning::Exclude
        | Meaning::Finish
        | Meaning::ReportProgress
        | Meaning::SetStatus
        | Meaning::ImportStatuses
        | Meaning::BeginPostRecovery
        | Meaning::AcceptStranded => &[],
    }
}

fn ids(steps: &[StepId]) -> String {
    steps.iter().map(StepId::as_str).collect::<Vec<_>>().join(", ")
}

#[derive(Deserialize)]
struct HeaderForm {
    version: Spanned<u32>,
    id: ProfileId,
    #[serde(rename = "title")]
    _title: Prose,
    #[serde(flatten)]
    rest: BTreeMap<String, toml::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BaseForm {
    version: Spanned<u32>,
    id: ProfileId,
    title: Prose,
    document: Prose,
    #[serde(default)]
    step: Vec<Spanned<StepForm>>,
    #[serde(default)]
    duty: Vec<Spanned<DutyForm>>,
    #[serde(default)]
    mechanism: Vec<Spanned<MechanismForm>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StepForm {
    id: StepId,
    order: u32,
    phase: Phase,
    actors: Vec<Actor>,
    text: Prose,
    #[serde(default)]
    labels: Vec<Label>,
    methods: Option<Vec<Method>>,
    #[serde(default)]
    after: Vec<StepId>,
    needs: Option<Gate>,
    #[serde(default)]
    owed: Owed,
    #[serde(default)]
    lapses: bool,
    #[serde(default)]
    repeats: bool,
    departure: Option<DepartureForm>,
    hours: Option<Spanned<u32>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum DepartureForm {
    Allowed,
    Never,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DutyForm {
    id: DutyId,
    to: Recipient,
    arises_with: StepId,
    met_by: Option<StepId>,
    text: Prose,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MechanismForm {
    id: MechanismId,
    text: Prose,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VariationForm {
    version: Spanned<u32>,
    id: ProfileId,
    title: Prose,
    reference: Prose,
    from: CivilDate,
    until: Option<Spanned<CivilDate>>,
    end_day: Option<EndDay>,
    clause: Vec<Spanned<ClauseForm>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClauseForm {
    id: ClauseId,
    text: Prose,
    effect: EffectWord,
    steps: Option<Vec<StepId>>,
    gate: Option<Gate>,
    relieves: Option<Actor>,
    factor: Option<FactorId>,
    what: Option<Recorded>,
    provision: Option<Prose>,
    with_effect: Option<CivilDate>,
    version: Option<Prose>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum EffectWord {
    NotRequiredBefore,
    OptionalFactor,
    Record,
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
versioned!(HeaderForm, BaseForm, VariationForm);

/// What is wrong with the procedure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProcedureFault {
    /// Entries name a profile by its id, people by its file.
    #[error("expected the id of the file's name, found {found}")]
    Name {
        /// What stands there.
        found: ProfileId,
    },
    /// A variation of nothing.
    #[error("expected {BASE} to have steps, which this varies; found none")]
    NoBase,
    /// A base without steps, or with too many.
    #[error("expected 1 to {STEPS_MAX} steps, found {found}")]
    Steps {
        /// How many.
        found: usize,
    },
    /// Nobody could ever take it.
    #[error("step {step}: {field}: expected at least one, found none")]
    Nobody {
        /// Which.
        step: StepId,
        /// `actors` or `methods`.
        field: &'static str,
    },
    /// Two steps at one place.
    #[error("step {step} has order {order}, and so has {other}; give each its own")]
    Order {
        /// Which.
        step: StepId,
        /// Its order.
        order: u32,
        /// The other one.
        other: StepId,
    },
    /// A step that comes after itself, or after what comes later.
    #[error("step {step} comes after {after}, which has no lower order; a step may only wait for those before it")]
    After {
        /// Which.
        step: StepId,
        /// The one it waits for.
        after: StepId,
    },
    /// A step that the program takes or asks for.
    #[error("{BASE} has no step {step}, which the daemon takes or asks for; give it its text, actors and order")]
    StepMissing {
        /// Which.
        step: Meaning,
    },
    /// A gate that would stand open.
    #[error(
        "step {step}: after: expected {} among them, found {}; without it a key could be used, or an incident closed, out of turn",
        ids(missing), if found.is_empty() { "none".to_owned() } else { ids(found) }
    )]
    OutOfTurn {
        /// Which.
        step: Meaning,
        /// What must come before.
        missing: Vec<StepId>,
        /// What stands there.
        found: Vec<StepId>,
    },
    /// What the use of the key alone waits for.
    #[error(
        "step {step}: after: expected {before} alone, found {} besides; what must precede the use of the key comes before step prepare",
        ids(found)
    )]
    NotAlone {
        /// Which.
        step: Meaning,
        /// What it waits for.
        before: Meaning,
        /// What stands there besides.
        found: Vec<StepId>,
    },
    /// A key that would be opened without the SMKI PMA.
    #[error("step {step}: needs: expected \"determination-to-execute\"; only the SMKI PMA opens a key")]
    NeedsNothing {
        /// Which.
        step: Meaning,
    },
    /// A gate that nobody owes.
    #[error("step {step}: owed: expected \"must\", found \"may\": others wait for this step, and nobody would owe it")]
    OwedByNobody {
        /// Which.
        step: Meaning,
    },
    /// A gate that some methods would go round.
    #[error(
        "step {step}: methods: expected {} among them; an incident of another method would go on without this step",
        missing.iter().map(|method| method.as_str()).collect::<Vec<_>>().join(", ")
    )]
    GoneRound {
        /// Which.
        step: Meaning,
        /// By which methods it is taken too.
        missing: Vec<Method>,
    },
    /// A departure without effect.
    #[error(
        "step {step}: departure: expected \"never\": nothing goes on without it, so a direction to depart from it would change nothing"
    )]
    Departure {
        /// Which.
        step: StepId,
    },
    /// Something names a step that the base does not have.
    #[error("{what}: expected a step of {BASE}, found {found}")]
    StepUnknown {
        /// What names it.
        what: String,
        /// What stands there.
        found: StepId,
    },
    /// Time runs forwards.
    #[error("until: expected a day after {from}, found {found}")]
    Until {
        /// The first day.
        from: CivilDate,
        /// What stands there.
        found: CivilDate,
    },
    /// A day on which it ends, and no word on whether it counts.
    #[error(
        "end_day: expected \"included\" or \"excluded\", since there is an `until`; no direction says which, so you must"
    )]
    EndDay,
    /// A clause with the wrong fields for its effect.
    #[error("clause {clause}: {field}: expected {expected} with effect \"{effect}\"")]
    ClauseField {
        /// Which.
        clause: ClauseId,
        /// The field.
        field: &'static str,
        /// `one` or `none`.
        expected: &'static str,
        /// The effect.
        effect: &'static str,
    },
    /// A relief for somebody who never owed it.
    #[error("clause {clause} relieves {relieves} of step {step}, which is not theirs to take")]
    Relieves {
        /// Which.
        clause: ClauseId,
        /// Whom.
        relieves: Actor,
        /// Of what.
        step: StepId,
    },
}

impl Reading<'_> {
    /// The procedure, if its files say more than their headers.
    pub(super) fn procedure(&mut self) -> Option<Procedure> {
        let paths: Vec<String> = self.files.keys().filter(|path| procedure_id(path).is_some()).cloned().collect();
        let mut full = Vec::new();
        for path in paths {
            let Some(HeaderForm { version: _, id, _title: _, rest }) = self.toml(&path) else { continue };
            if procedure_id(&path).as_ref() != Some(&id) {
                self.fault(&path, None, ProcedureFault::Name { found: id }.into());
            }
            if !rest.is_empty() {
                full.push(path);
            }
        }
        let base = full.iter().any(|path| path == BASE).then(|| self.toml(BASE)).flatten();
        let base = base.map(|form| self.base(form));
        let mut variations = Vec::new();
        for path in full.iter().filter(|path| *path != BASE) {
            if !full.iter().any(|path| path == BASE) {
                self.fault(path, None, ProcedureFault::NoBase.into());
            }
            if let Some(form) = self.toml(path) {
                variations.push(self.variation(path, form, base.as_ref()));
            }
        }
        base.map(|base| Procedure::new(base, variations))
    }

    fn base(&mut self, form: BaseForm) -> Profile {
        let BaseForm { version: _, id, title, document, step, duty, mechanism } = form;
        if !(1..=STEPS_MAX).contains(&step.len()) {
            self.fault(BASE, None, ProcedureFault::Steps { found: step.len() }.into());
        }
        let mut steps: Vec<Step> = Vec::new();
        let mut lines = BTreeMap::new();
        for entry in step {
            let at = entry.span().start;
            let step = self.step(entry.into_inner(), at);
            if lines.insert(step.id.clone(), at).is_some() {
                self.fault(BASE, Some(at), PolicyFault::Twice { what: "step", name: step.id.to_string() });
            }
            if let Some(other) = steps.iter().find(|other| other.order == step.order) {
                let (order, other, step) = (step.order, other.id.clone(), step.id.clone());
                self.fault(BASE, Some(at), ProcedureFault::Order { step, order, other }.into());
            }
            steps.push(step);
        }
        steps.sort_by_key(|step| step.order);
        let orders: BTreeMap<StepId, u32> = steps.iter().map(|step| (step.id.clone(), step.order)).collect();
        for step in &steps {
            for after in &step.after {
                let at = lines.get(&step.id).copied();
                match orders.get(after) {
                    None => {
                        let what = format!("step {}, after", step.id);
                        self.fault(BASE, at, ProcedureFault::StepUnknown { what, found: after.clone() }.into());
                    }
                    Some(order) if *order >= step.order => {
                        let (step, after) = (step.id.clone(), after.clone());
                        self.fault(BASE, at, ProcedureFault::After { step, after }.into());
                    }
                    Some(_) => {}
                }
            }
        }
        self.check_gates(&steps, &lines);
        let mut seen = BTreeSet::new();
        let mut duties = Vec::new();
        for entry in duty {
            let at = entry.span().start;
            let DutyForm { id, to, arises_with, met_by, text } = entry.into_inner();
            if !seen.insert(id.clone()) {
                self.fault(BASE, Some(at), PolicyFault::Twice { what: "duty", name: id.to_string() });
            }
            for found in std::iter::once(&arises_with).chain(&met_by).filter(|step| !orders.contains_key(*step)) {
                let what = format!("duty {id}");
                self.fault(BASE, Some(at), ProcedureFault::StepUnknown { what, found: found.clone() }.into());
            }
            duties.push(Duty { id, to, arises_with, met_by, text });
        }
        let mut mechanisms: Vec<Mechanism> = Vec::new();
        for entry in mechanism {
            let at = entry.span().start;
            let MechanismForm { id, text } = entry.into_inner();
            if mechanisms.iter().any(|known| known.id == id) {
                self.fault(BASE, Some(at), PolicyFault::Twice { what: "mechanism", name: id.to_string() });
            }
            mechanisms.push(Mechanism { id, text });
        }
        Profile { id, title, document, steps, duties, mechanisms }
    }

    /// The steps that the daemon takes or asks for are there, and what opens a key waits for what it must.
    fn check_gates(&mut self, steps: &[Step], lines: &BTreeMap<StepId, usize>) {
        for meaning in REQUIRED {
            // That there are none at all is said in one line.
            if !steps.is_empty() && !steps.iter().any(|step| step.id == meaning.id()) {
                self.fault(BASE, None, ProcedureFault::StepMissing { step: *meaning }.into());
            }
        }
        for step in steps {
            let Some(meaning) = Meaning::of(&step.id) else { continue };
            let at = lines.get(&step.id).copied();
            let found: Vec<StepId> = step.after.iter().cloned().collect();
            let missing: Vec<StepId> =
                least_after(meaning).iter().map(|before| before.id()).filter(|id| !step.after.contains(id)).collect();
            if !missing.is_empty() {
                let found = found.clone();
                self.fault(BASE, at, ProcedureFault::OutOfTurn { step: meaning, missing, found }.into());
            }
            if let (Meaning::ActivateKey | Meaning::Execute, [before]) = (meaning, least_after(meaning)) {
                let besides: Vec<StepId> = found.into_iter().filter(|id| *id != before.id()).collect();
                if !besides.is_empty() {
                    let fault = ProcedureFault::NotAlone { step: meaning, before: *before, found: besides };
                    self.fault(BASE, at, fault.into());
                }
            }
            if REQUIRED.contains(&meaning) && step.owed == Owed::May {
                self.fault(BASE, at, ProcedureFault::OwedByNobody { step: meaning }.into());
            }
            let missing: Vec<Method> =
                least_methods(meaning).iter().copied().filter(|method| !step.methods.contains(method)).collect();
            if !missing.is_empty() {
                self.fault(BASE, at, ProcedureFault::GoneRound { step: meaning, missing }.into());
            }
            let opens = matches!(meaning, Meaning::Prepare | Meaning::ActivateKey | Meaning::Execute);
            if opens && step.needs != Some(Gate::DeterminationToExecute) {
                self.fault(BASE, at, ProcedureFault::NeedsNothing { step: meaning }.into());
            }
        }
    }

    fn step(&mut self, form: StepForm, at: usize) -> Step {
        let StepForm {
            id,
            order,
            phase,
            actors,
            text,
            labels,
            methods,
            after,
            needs,
            owed,
            lapses,
            repeats,
            departure,
            hours,
        } = form;
        let methods = methods.unwrap_or_else(|| Method::ALL.to_vec());
        for (field, is_empty) in [("actors", actors.is_empty()), ("methods", methods.is_empty())] {
            if is_empty {
                self.fault(BASE, Some(at), ProcedureFault::Nobody { step: id.clone(), field }.into());
            }
        }
        let may_depart = Meaning::of(&id).is_none_or(may_be_departed_from);
        if departure == Some(DepartureForm::Allowed) && !may_depart {
            self.fault(BASE, Some(at), ProcedureFault::Departure { step: id.clone() }.into());
        }
        let hours = hours.map(|hours| self.number((BASE, "hours"), Some(&hours), 0, (1, HOURS_MAX)));
        Step {
            id,
            order,
            phase,
            actors: actors.into_iter().collect(),
            text,
            labels,
            methods: methods.into_iter().collect(),
            after: after.into_iter().collect(),
            needs,
            owed,
            lapses,
            repeats,
            departure: departure.map_or(may_depart, |departure| departure == DepartureForm::Allowed),
            hours,
        }
    }

    fn variation(&mut self, path: &str, form: VariationForm, base: Option<&Profile>) -> Variation {
        let VariationForm { version: _, id, title, reference, from, until, end_day, clause } = form;
        if let Some(until) = until.as_ref().filter(|until| *until.get_ref() <= from) {
            let found = *until.get_ref();
            self.fault(path, Some(until.span().start), ProcedureFault::Until { from, found }.into());
        }
        if until.is_some() && end_day.is_none() {
            self.fault(path, None, ProcedureFault::EndDay.into());
        }
        let mut seen = BTreeSet::new();
        let mut clauses = Vec::new();
        for entry in clause {
            let at = entry.span().start;
            if !seen.insert(entry.get_ref().id.clone()) {
                let name = entry.get_ref().id.to_string();
                self.fault(path, Some(at), PolicyFault::Twice { what: "clause", name });
            }
            clauses.extend(self.clause(path, at, entry.into_inner(), base));
        }
        // Without an `until` the word decides nothing until an extension gives one, which none can.
        let end_day = end_day.unwrap_or(EndDay::Included);
        let until = until.map(Spanned::into_inner);
        Variation { id, title, reference, from, until, end_day, clauses }
    }

    fn clause(&mut self, path: &str, at: usize, form: ClauseForm, base: Option<&Profile>) -> Option<Clause> {
        let ClauseForm { id, text, effect, steps, gate, relieves, factor, what, provision, with_effect, version } =
            form;
        let (word, wanted): (_, &[&str]) = match effect {
            EffectWord::NotRequiredBefore => ("not-required-before", &["steps", "gate", "relieves"]),
            EffectWord::OptionalFactor => ("optional-factor", &["factor"]),
            EffectWord::Record => ("record", &["what", "provision", "with_effect"]),
        };
        for (field, is_there) in [
            ("steps", steps.as_ref().is_some_and(|steps| !steps.is_empty())),
            ("gate", gate.is_some()),
            ("relieves", relieves.is_some()),
            ("factor", factor.is_some()),
            ("what", what.is_some()),
            ("provision", provision.is_some()),
            ("with_effect", with_effect.is_some()),
        ] {
            if is_there != wanted.contains(&field) {
                let expected = if is_there { "none" } else { "one" };
                let fault = ProcedureFault::ClauseField { clause: id.clone(), field, expected, effect: word };
                self.fault(path, Some(at), fault.into());
            }
        }
        if version.is_some() && what != Some(Recorded::ReDesignated) {
            let effect = "record, what = re-designated";
            let fault =
                ProcedureFault::ClauseField { clause: id.clone(), field: "version", expected: "one only", effect };
            self.fault(path, Some(at), fault.into());
        }
        let effect = match effect {
            EffectWord::NotRequiredBefore => {
                let (steps, gate, relieves) = (steps?, gate?, relieves?);
                for step in steps.iter().filter(|_| base.is_some()) {
                    match base.and_then(|base| base.step(step)) {
                        None => {
                            let what = format!("clause {id}");
                            self.fault(
                                path,
                                Some(at),
                                ProcedureFault::StepUnknown { what, found: step.clone() }.into(),
                            );
                        }
                        Some(found) if !found.actors.contains(&relieves) => {
                            let (clause, step) = (id.clone(), step.clone());
                            self.fault(path, Some(at), ProcedureFault::Relieves { clause, relieves, step }.into());
                        }
                        Some(_) => {}
                    }
                }
                Effect::NotRequiredBefore { steps: steps.into_iter().collect(), gate, relieves }
            }
            EffectWord::OptionalFactor => Effect::OptionalFactor { factor: factor? },
            EffectWord::Record => {
                let (what, provision, with_effect) = (what?, provision?, with_effect?);
                Effect::Record(Record { what, provision, with_effect, version })
            }
        };
        Some(Clause { id, text, effect })
    }
}
