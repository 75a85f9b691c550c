//! Pure. What entries say about the custody of keys: who was given shares of what opens their tokens.

use serde::{Deserialize, Serialize};

use super::entry::{SignatureRecord, TokenFound};
use crate::domain::names::{DeterminationId, Digest, IncidentId, KeyLabel, Origin, PersonId, ShareName, StatementId};
use crate::domain::time::Timestamp;

/// Key Custodians were given shares of a random secret that seals the PINs of a key's tokens: one *generation* of its shares. Those of the
/// generation before open nothing any more. Recorded twice: before the first token is changed, when it is judged; and, word for word the
/// same, once all are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharesDealt {
    /// Whose tokens they open.
    pub key: KeyLabel,
    /// 1 for the first, one more each time.
    pub generation: u32,
    /// How many shares open them.
    pub threshold: u32,
    /// By which each share can be verified on its own (Feldman's scheme over P-256): `threshold` compressed points in hexadecimal, that of
    /// the secret first.
    pub commitments: Vec<Box<str>>,
    /// Who holds which share.
    pub holders: Vec<Holder>,
    /// The tokens whose PINs were sealed, each changed with this generation.
    pub tokens: Vec<TokenFound>,
    /// SHA-256 of the custody file, in which the sealed PINs are. It lies in the state directory and in no export.
    pub sealed: Digest,
    /// Tokens that hold the key and keep their PINs, for the policy gives it to them no more: what was dealt before still opens these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<TokenFound>,
    /// Whose shares of the generation before were put together for it, as whoever conducted it says. The first generation has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<PersonId>,
    /// That as many former custodians took part as their generation needs: a signature by the secret of the generation before over
    /// [`SharesDealt::signed_by_the_former`], 64 octets of `r ‖ s` in hexadecimal. The first generation has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<Box<str>>,
}

/// What the former secret signs begins with this, so that nothing else is taken for it.
const SIGNED_BY_THE_FORMER: &str = "smkid shares-dealt, signed by the former secret\n";

impl SharesDealt {
    /// The octets that the secret of the generation before signs: the ledger, and everything else that the entry says. One line each, in
    /// which nothing is a line feed.
    pub fn signed_by_the_former(&self, origin: &Origin) -> Vec<u8> {
        let unsigned = Self { former: None, ..self.clone() };
        let mut octets = format!("{SIGNED_BY_THE_FORMER}{origin}\n").into_bytes();
        octets.extend(serde_json::to_vec(&unsigned).expect("names, numbers and texts"));
        octets
    }

    /// Where the polynomial was taken for a share, from 1; none if it is of another generation, or nobody's.
    pub fn index_of(&self, share: &ShareName, generation: u32) -> Option<u16> {
        let mut holders = self.holders.iter().filter(|_| self.generation == generation);
        holders.find(|holder| holder.share == *share).map(|holder| holder.index)
    }
}

/// Who holds a share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// The share, as persons.toml names it.
    pub share: ShareName,
    /// Whose it is.
    pub person: PersonId,
    /// Where the polynomial was taken for it, from 1.
    pub index: u16,
    /// What its file is opened by.
    pub sealed: Sealed,
}

/// What a share's file is opened by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sealed {
    /// A passphrase that the custodian chose.
    Passphrase,
    /// The key of a certificate: SHA-256 of its SubjectPublicKeyInfo.
    Certificate(Digest),
}

/// A Key Custodian presented a share for one incident, or stated that the HSM is to be opened for it (rules 36 and 38). An activation
/// names the entries on which it rests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustodianPresented {
    /// The key.
    pub key: KeyLabel,
    /// For which incident alone.
    pub incident: IncidentId,
    /// The determination that the incident followed.
    pub determination: DeterminationId,
    /// Which share of which generation; none where the HSM itself asks (`activation = "protected-path"`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<SharePresented>,
    /// The id of the statement, which is used up by this.
    pub id: StatementId,
    /// The statement, a blob.
    pub statement: Digest,
    /// Who signed it.
    pub signature: SignatureRecord,
    /// The first moment at which it no longer counts towards an activation.
    pub until: Timestamp,
    /// The first moment at which the statement holds no more: an activation that rests on it is over by then.
    pub expires: Timestamp,
}

/// A share that was presented.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharePresented {
    /// As persons.toml names it.
    pub name: ShareName,
    /// Of which share set.
    pub generation: u32,
}
