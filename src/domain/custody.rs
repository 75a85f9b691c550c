//! Pure. What a Key Custodian signs when they bring a share: for whom, for what and until when, so that a share that was given for one
//! incident opens nothing in another.

use serde::{Deserialize, Serialize};

use crate::domain::determination::document::{DocumentFault, Form, KeyChosen, LedgerHead, Type};
use crate::domain::names::{DeterminationId, Digest, IncidentId, PersonId, Purpose, ShareName, StatementId};
use crate::domain::time::Timestamp;

/// `smkid-custodian-statement/v1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// [`Form::TYPE`].
    pub r#type: Type<Self>,
    /// Live or exercise.
    pub purpose: Purpose,
    /// 128 random bits, single use: no statement counts twice.
    pub id: StatementId,
    /// The head that the custodian saw.
    pub ledger: LedgerHead,
    /// Who states it.
    pub person: PersonId,
    /// The key, by label and public key.
    pub key: KeyChosen,
    /// The incident for which alone it is opened.
    pub incident: IncidentId,
    /// The determination that the incident follows.
    pub determination: DeterminationId,
    /// SHA-256 of that determination.
    pub document: Digest,
    /// The share that is presented; none where the HSM itself asks the custodians.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<ShareName>,
    /// The generation of its share set. With `share` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// The first moment at which it holds no more. The key is locked by then.
    pub expires: Timestamp,
}

impl Form for Statement {
    const TYPE: &'static str = "smkid-custodian-statement/v1";

    fn faults(&self) -> Vec<DocumentFault> {
        match (&self.share, self.generation) {
            (Some(_), Some(0)) => {
                vec![DocumentFault::Number { field: "generation", min: 1, max: u64::from(u32::MAX), found: 0 }]
            }
            (Some(_), None) => {
                vec![DocumentFault::Missing { field: "generation", because: "a share is of one generation" }]
            }
            (None, Some(_)) => vec![DocumentFault::Surplus { field: "generation", because: "it names no share" }],
            (Some(_), Some(_)) | (None, None) => Vec::new(),
        }
    }
}
