//! Shell: the gates of the procedure, asked of the daemon at each point of a story: what it demands of SMI Status and thresholds
//! file, and which key may sign.
//!
//! From SEC Appendix L and the direction of 18 July 2017:
//!
//! | variation | the SMKI PMA determined | SMI Status 'recovery', ADT file | Recovery Private Key |
//! |---|---|---|---|
//! | in force | nothing yet | not due yet: a relief | may not sign |
//! | in force | not to execute | nobody owes them any more | may not sign |
//! | in force | to execute, Recovery | due | may sign |
//! | in force | to execute, Contingency | refused, for the key is a Supplier's: as if nothing was determined | may not sign |
//! | not in force | nothing yet | due, at their place before the referral | may not sign |
//! | not in force | not to execute | as already done | may not sign |
//! | not in force | to execute, Recovery | as already done | may sign |

use super::{ExerciseError, Play};
use crate::api::client::Client;
use crate::api::wire::Explanation;
use crate::domain::names::IncidentId;
use crate::domain::procedure::explain::{MayWord, StandingWord, StepStanding};
use crate::exercise::procedure::Order;

/// The steps that the variation of 2017 moves behind the determination.
const VARIED: [(&str, &str); 2] =
    [("set-smi-status-recovery", "SMI Status 'recovery'"), ("submit-adt-file", "thresholds file")];

/// Where in its way the incident is, as far as the gates ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    /// It is assessed; nothing was done of either step, and the SMKI PMA has determined nothing.
    Assessed,
    /// It is referred, each step being where the procedure in force has it; the SMKI PMA has determined nothing.
    Referred,
    /// The SMKI PMA has determined not to execute.
    NotToExecute,
    /// The same, of an incident whose SMI Status was set early, with a reason.
    NotToExecuteSetEarly,
    /// The SMKI PMA has determined to execute recovery with the Recovery Private Key.
    ToExecute,
}

/// What is demanded of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Demand {
    /// Somebody owes it now.
    Due,
    /// The DCC does not owe it yet; if it takes it all the same, it says why.
    Relieved,
    /// The Subscriber does not owe it yet, and may take it all the same.
    RelievedSubscriber,
    /// It was taken.
    Done,
    /// Nobody owes it, and nobody will.
    Lapsed,
}

impl Demand {
    fn holds(self, standing: &StepStanding) -> bool {
        let (is, may) = (standing.is.as_str(), standing.may_be_taken);
        match self {
            Self::Due => is == "due" && may == MayWord::Yes,
            Self::Relieved => is == "not-yet-due" && may == MayWord::WithReason,
            Self::RelievedSubscriber => is == "not-yet-due" && may == MayWord::Yes,
            Self::Done => is == "done",
            Self::Lapsed => is == "not-required",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Due => "is due",
            Self::Relieved => "is not due yet, and needs a reason if it is set all the same",
            Self::RelievedSubscriber => "is not due yet, and may be submitted all the same",
            Self::Done => "is done",
            Self::Lapsed => "is owed by nobody any more",
        }
    }
}

/// The row of the table: what is demanded of SMI Status and thresholds file, and whether the Recovery Private Key may sign.
const fn row(order: Order, point: Point) -> ([Demand; 2], bool) {
    match (order, point) {
        (Order::BeforeReferral, Point::Assessed) => ([Demand::Due; 2], false),
        (Order::BeforeReferral, Point::Referred | Point::NotToExecute | Point::NotToExecuteSetEarly) => {
            ([Demand::Done; 2], false)
        }
        (Order::BeforeReferral, Point::ToExecute) => ([Demand::Done; 2], true),
        (Order::AfterDetermination, Point::Assessed | Point::Referred) => {
            ([Demand::Relieved, Demand::RelievedSubscriber], false)
        }
        (Order::AfterDetermination, Point::NotToExecute) => ([Demand::Lapsed; 2], false),
        (Order::AfterDetermination, Point::NotToExecuteSetEarly) => ([Demand::Done, Demand::Lapsed], false),
        (Order::AfterDetermination, Point::ToExecute) => ([Demand::Due; 2], true),
    }
}

impl Play<'_, '_> {
    /// Asks the daemon to explain an incident, and holds it against the table.
    pub(super) async fn check_gates(
        &mut self,
        client: &Client,
        incident: &IncidentId,
        point: Point,
    ) -> Result<(), ExerciseError> {
        let (demands, may_sign) = row(self.order, point);
        let explained: Explanation = client.get(&format!("/v1/procedure?incident={incident}")).await?;
        let in_force = explained.variations.iter().any(|variation| variation.standing == StandingWord::InForce);
        let varied = self.order == Order::AfterDetermination;
        let (is, is_not) = if varied { ("in force", "not in force") } else { ("not in force", "in force") };
        let london = &explained.london;
        self.expect(
            in_force == varied,
            &format!("It is {london} in London: the variation of the procedure is {is}."),
            &format!("at {london} in London the variation is {is_not}"),
        );
        for ((id, name), demand) in VARIED.into_iter().zip(demands) {
            let step = explained.steps.iter().find(|step| step.step.as_str() == id);
            let standing = step.and_then(|step| step.standing.as_ref()).ok_or(ExerciseError::NoProcedure)?;
            self.expect(
                demand.holds(standing),
                &format!("Gate: {name} {}. By {}.", demand.words(), standing.by),
                &format!("expected that {name} {}, found {} by {}", demand.words(), standing.is, standing.by),
            );
        }
        let incident = explained.incident.ok_or(ExerciseError::NoProcedure)?;
        let may = |may: bool| if may { "may sign, once it is activated" } else { "may not sign" };
        self.expect(
            incident.recovery_key_may_sign == may_sign && !incident.contingency_key_may_sign,
            &format!("Gate: the Recovery Private Key {}; the Contingency Private Key may not sign.", may(may_sign)),
            &format!(
                "expected that the Recovery Private Key {}; explained was that it {}, and that the Contingency Private Key {}",
                may(may_sign),
                may(incident.recovery_key_may_sign),
                may(incident.contingency_key_may_sign)
            ),
        );
        Ok(())
    }
}
