//! Pure. The document by which a key of ours is destroyed: the quorum of the policy in force signs it, as it signs a determination.

use serde::{Deserialize, Serialize};

use crate::domain::determination::document::{DocumentFault, Form, KeyChosen, LedgerHead, Proposed, Type, twice};
use crate::domain::determination::prose::Prose;
use crate::domain::ledger::entry::TokenFound;
use crate::domain::names::{Digest, KeyId, PersonId, Purpose};

/// Tokens that hold one key. No official reference.
pub const TOKENS_MAX: usize = 16;

/// `smkid-key-destruction/v1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destruction {
    /// [`Form::TYPE`].
    pub r#type: Type<Self>,
    /// Live or exercise.
    pub purpose: Purpose,
    /// Who drafted it, and so may not approve it.
    pub proposer: PersonId,
    /// The head that the drafter saw.
    pub ledger: LedgerHead,
    /// The digest of the policy in force.
    pub policy: Digest,
    /// The key, by label and public key.
    pub key: KeyChosen,
    /// Its `CKA_ID`.
    pub cka_id: KeyId,
    /// Every token that holds it by the ledger.
    pub tokens: Vec<TokenFound>,
    /// Why.
    pub reason: Prose,
}

impl Form for Destruction {
    const TYPE: &'static str = "smkid-key-destruction/v1";

    fn faults(&self) -> Vec<DocumentFault> {
        let mut faults = Vec::new();
        let found = self.tokens.len() as u64;
        if !(1..=TOKENS_MAX as u64).contains(&found) {
            faults.push(DocumentFault::Number { field: "tokens", min: 1, max: TOKENS_MAX as u64, found });
        }
        faults.extend(twice("tokens", self.tokens.iter().map(|on| on.token.as_str())));
        faults
    }
}

impl Proposed for Destruction {
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
