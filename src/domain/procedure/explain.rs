//! Pure. What is in force at a moment, and what that means for an incident: as data that reads for people and for programs.

use serde::{Deserialize, Serialize};

use super::calendar::{CivilDate, shown};
use super::in_force::{
    Awaits, Demand, Determined, InForce, IncidentView, Laid, May, Requirement, Standing, WithKey, demands, key_may_sign,
};
use super::profile::{Actor, Gate, Label, Owed, Phase, Recipient, Step};
use super::variation::{Clause, Effect};
use crate::domain::names::{DirectionId, DutyId, FactorId, ProfileId, StepId};
use crate::domain::time::Timestamp;

/// What is in force, and what it means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Explanation {
    /// The moment, in UTC.
    #[schema(value_type = String)]
    pub at: Timestamp,
    /// The same by the clocks of London.
    pub london: String,
    /// The base profile.
    #[schema(value_type = String)]
    pub base: ProfileId,
    /// Its title.
    pub title: String,
    /// The text that it renders.
    pub document: String,
    /// The variations, and how each stands.
    pub variations: Vec<VariationExplained>,
    /// Every step, in order.
    pub steps: Vec<StepExplained>,
    /// The duties to inform.
    pub duties: Vec<DutyExplained>,
    /// Factors that the SMKI PMA may weigh besides those of the Guidance.
    pub optional_factors: Vec<FactorExplained>,
    /// The incident, where one was asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<IncidentExplained>,
}

/// A variation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VariationExplained {
    /// Its id.
    #[schema(value_type = String)]
    pub variation: ProfileId,
    /// Its title.
    pub title: String,
    /// The direction behind it.
    pub reference: String,
    /// `not-yet`, `in-force` or `over`.
    pub standing: StandingWord,
    /// From when until when, in words.
    pub window: String,
    /// The first moment at which it is in force.
    #[schema(value_type = String)]
    pub from: Timestamp,
    /// The first moment at which it is over; none if it has no end.
    #[schema(value_type = Option<String>)]
    pub until: Option<Timestamp>,
    /// The direction that moved its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub extended_by: Option<DirectionId>,
    /// Its clauses.
    pub clauses: Vec<ClauseExplained>,
}

/// How a variation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StandingWord {
    /// It has not begun.
    NotYet,
    /// It is in force.
    InForce,
    /// It is over.
    Over,
}

/// A clause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ClauseExplained {
    /// Its letter or name.
    pub clause: String,
    /// What it says, in our words.
    pub text: String,
    /// What it does.
    pub effect: String,
    /// Whether it does so at that moment.
    pub has_effect: bool,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StepExplained {
    /// Its meaning.
    #[schema(value_type = String)]
    pub step: StepId,
    /// What is done.
    pub text: String,
    /// Who may take it.
    pub actors: Vec<Actor>,
    /// In which phase.
    pub phase: Phase,
    /// What documents print beside it.
    pub labels: Vec<Label>,
    /// The methods that it belongs to.
    pub methods: Vec<String>,
    /// The steps before it.
    #[schema(value_type = Vec<String>)]
    pub after: Vec<StepId>,
    /// What the SMKI PMA must have determined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<Gate>,
    /// Whether it must be taken.
    pub owed: Owed,
    /// Within how many hours, where that is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<u32>,
    /// What varies it at that moment.
    pub varied: Vec<String>,
    /// What it is in the incident, where one was asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<StepStanding>,
}

/// What a step is in an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StepStanding {
    /// `done`, `due`, `not-yet-due`, `permitted`, `not-required` or `blocked`.
    pub is: String,
    /// The text by which it is so.
    pub by: String,
    /// What it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaits: Option<String>,
    /// `yes`, `with-reason` or `no`.
    pub may_be_taken: MayWord,
}

/// Whether a step may be taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MayWord {
    /// It may.
    Yes,
    /// It may, with a stated reason.
    WithReason,
    /// It may not.
    No,
}

/// A duty to inform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DutyExplained {
    /// Its id.
    #[schema(value_type = String)]
    pub duty: DutyId,
    /// Who is to be informed.
    pub to: Recipient,
    /// The step with which it arises.
    #[schema(value_type = String)]
    pub arises_with: StepId,
    /// The step by which it is met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub met_by: Option<StepId>,
    /// Of what.
    pub text: String,
    /// Whether it has arisen in the incident.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_arisen: Option<bool>,
}

/// A factor that may be weighed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FactorExplained {
    /// As a determination names it.
    #[schema(value_type = String)]
    pub factor: FactorId,
    /// What it is.
    pub text: String,
}

/// The incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct IncidentExplained {
    /// Its state.
    pub state: String,
    /// What the SMKI PMA has determined.
    pub determination: String,
    /// Whether the Recovery Private Key may sign, as far as the procedure goes.
    pub recovery_key_may_sign: bool,
    /// The same of the Contingency Private Key.
    pub contingency_key_may_sign: bool,
}

impl From<Standing> for StandingWord {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::NotYet => Self::NotYet,
            Standing::InForce => Self::InForce,
            Standing::Over => Self::Over,
        }
    }
}

impl std::fmt::Display for StandingWord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotYet => "not yet in force",
            Self::InForce => "IN FORCE",
            Self::Over => "over",
        })
    }
}

impl From<May> for MayWord {
    fn from(may: May) -> Self {
        match may {
            May::Yes => Self::Yes,
            May::WithReason => Self::WithReason,
            May::No => Self::No,
        }
    }
}

/// Explains the procedure at its moment; with a view, what it means for that incident.
pub fn explain(in_force: &InForce<'_>, view: Option<&IncidentView<'_>>) -> Explanation {
    let base = in_force.base();
    let demands = view.map(|view| demands(in_force, view));
    let steps = base.steps.iter().enumerate().map(|(at, step)| {
        let demand = demands.as_ref().map(|all| &all[at]);
        step_explained(in_force, step, demand)
    });
    let duties = base.duties.iter().map(|duty| DutyExplained {
        duty: duty.id.clone(),
        to: duty.to,
        arises_with: duty.arises_with.clone(),
        met_by: duty.met_by.clone(),
        text: duty.text.to_string(),
        has_arisen: view.map(|view| view.arisen.contains(&duty.id)),
    });
    Explanation {
        at: in_force.at(),
        london: shown(in_force.at()),
        base: base.id.clone(),
        title: base.title.to_string(),
        document: base.document.to_string(),
        variations: in_force.laid().iter().map(|laid| variation(in_force, laid)).collect(),
        steps: steps.collect(),
        duties: duties.collect(),
        optional_factors: in_force
            .optional_factors()
            .map(|(factor, clause)| FactorExplained { factor: factor.clone(), text: clause.text.to_string() })
            .collect(),
        incident: view.map(|view| IncidentExplained {
            state: view.state_name.to_owned(),
            determination: match (&view.not_in_force, view.begins) {
                (Some(why), _) => format!("{}; not in force: {why}", determined(view.determination)),
                (None, Some(begins)) => format!("{}, in force from {}", determined(view.determination), shown(begins)),
                (None, None) => determined(view.determination).to_owned(),
            },
            recovery_key_may_sign: key_may_sign(WithKey::Recovery, view),
            contingency_key_may_sign: key_may_sign(WithKey::Contingency, view),
        }),
    }
}

const fn determined(determined: Determined) -> &'static str {
    match determined {
        Determined::None => "none yet",
        Determined::NotToExecute => "not to execute",
        Determined::Execute(WithKey::Recovery) => "to execute, with the Recovery Private Key",
        Determined::Execute(WithKey::Contingency) => "to execute, with the Contingency Private Key",
    }
}

fn variation(in_force: &InForce<'_>, laid: &Laid<'_>) -> VariationExplained {
    let Laid { variation, end, standing } = laid;
    let until = match end.date {
        None => "without an end".to_owned(),
        Some(date) => format!("until {date}, {}", variation.end_day),
    };
    let extended = end.extended_by.map_or_else(String::new, |by| format!(", as extended by direction {by}"));
    let clauses = variation.clauses.iter().map(|clause| {
        let has_effect = match &clause.effect {
            Effect::NotRequiredBefore { .. } | Effect::OptionalFactor { .. } => *standing == Standing::InForce,
            Effect::Record(record) => record.with_effect.begins() <= in_force.at(),
        };
        ClauseExplained {
            clause: clause.id.to_string(),
            text: clause.text.to_string(),
            effect: effect(clause),
            has_effect,
        }
    });
    VariationExplained {
        variation: variation.id.clone(),
        title: variation.title.to_string(),
        reference: variation.reference.to_string(),
        standing: (*standing).into(),
        window: format!("from {} {until}{extended}", variation.from),
        from: variation.begins(),
        until: end.at,
        extended_by: end.extended_by,
        clauses: clauses.collect(),
    }
}

/// What a clause does, in a sentence.
fn effect(clause: &Clause) -> String {
    match &clause.effect {
        Effect::NotRequiredBefore { steps, gate, relieves } => {
            let steps: Vec<&str> = steps.iter().map(StepId::as_str).collect();
            let early = if *relieves == Actor::Subscriber {
                "it may be taken earlier"
            } else {
                "taken earlier, a reason is stated"
            };
            format!("relieves the {relieves} of {} until there is {gate}; {early}", steps.join(" and "))
        }
        Effect::OptionalFactor { factor } => format!("the SMKI PMA may weigh factor {factor}, and need not"),
        Effect::Record(record) => {
            let version = record.version.as_ref().map_or_else(String::new, |version| format!(" as version {version}"));
            let on: CivilDate = record.with_effect;
            format!("{}: {}{version}, with effect from {on}", record.what, record.provision)
        }
    }
}

fn step_explained(in_force: &InForce<'_>, step: &Step, demand: Option<&Demand<'_>>) -> StepExplained {
    StepExplained {
        step: step.id.clone(),
        text: step.text.to_string(),
        actors: step.actors.iter().copied().collect(),
        phase: step.phase,
        labels: step.labels.clone(),
        methods: step.methods.iter().map(ToString::to_string).collect(),
        after: step.after.iter().cloned().collect(),
        needs: step.needs,
        owed: step.owed,
        hours: step.hours,
        varied: in_force
            .reliefs(&step.id)
            .map(|(text, gate, relieves)| format!("{relieves} relieved until there is {gate} ({text})"))
            .collect(),
        standing: demand.map(|Demand { requirement, missing, .. }| StepStanding {
            is: requirement.word().to_owned(),
            by: requirement.by().map_or_else(String::new, ToString::to_string),
            awaits: match requirement {
                // A relief names its gate; where steps before it are missing, it cannot be taken earlier either.
                Requirement::NotYetDue { awaits: Awaits::Gate(gate), early: May::No, .. } if !missing.is_empty() => {
                    Some(format!("{gate}, and {}", Awaits::Steps(missing.clone())))
                }
                Requirement::NotYetDue { awaits, .. } => Some(awaits.to_string()),
                Requirement::Blocked { awaits, why: None, .. } => Some(Awaits::Gate(*awaits).to_string()),
                Requirement::Blocked { awaits, why: Some(why), .. } => {
                    Some(format!("{awaits} that is in force: {why}"))
                }
                Requirement::Unknown { .. }
                | Requirement::Done { .. }
                | Requirement::Due { .. }
                | Requirement::Permitted { .. }
                | Requirement::NotRequired { .. } => None,
            },
            may_be_taken: requirement.may().into(),
        }),
    }
}

#[cfg(test)]
mod tests;
