//! Shell, for it draws random numbers. The split of a sealing secret: Feldman's verifiable secret sharing over P-256.
//!
//! The secret is the value at 0 of a random polynomial of degree k - 1; the share with index x is its value at x. Any k shares give the
//! polynomial; to k - 1 of them every secret is as likely as any other, but for the public commitments, which are the coefficients
//! times the generator: whoever finds the secret from those has solved a discrete logarithm. So what is split is a random scalar of 256 bits,
//! never a PIN, which could be searched.
//!
//! By the commitments each share is verified by itself: its point (the share times the generator) is known to all.

use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;
use p256::elliptic_curve::sec1::ToSec1Point as _;
use p256::elliptic_curve::{Field as _, PrimeField as _};
use p256::{ProjectivePoint, PublicKey, Scalar};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use vsss_rs::{DefaultShare, FeldmanVerifierSet, IdentifierPrimeField, ReadableShareSet as _, ValueGroup, feldman};
use zeroize::{Zeroize as _, Zeroizing};

/// Octets of a scalar: a share, or the secret.
pub const SCALAR_LEN: usize = 32;
/// Octets of a commitment: a compressed point (SEC1, 2.3.3).
pub const COMMITMENT_LEN: usize = 33;
/// As many shares as one set may have. No official reference: more people than meet.
pub const SHARES_MAX: u16 = 100;

type RawShare = DefaultShare<IdentifierPrimeField<Scalar>, IdentifierPrimeField<Scalar>>;
type RawCommitment = ValueGroup<ProjectivePoint>;

/// Why shares are not made, or not put together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemeError {
    /// Numbers that make no share set.
    #[error("expected at least 2 shares needed of at most {SHARES_MAX}, found {threshold} of {count}")]
    Numbers {
        /// k.
        threshold: usize,
        /// n.
        count: usize,
    },
    /// What should be a commitment is none.
    #[error("commitment {at}: expected {COMMITMENT_LEN} octets, a compressed point of P-256, found something else")]
    Commitment {
        /// Which, from 0.
        at: usize,
    },
    /// What should be a share is none.
    #[error("expected a share, a scalar of P-256 that is not 0, found something else")]
    Scalar,
    /// Too few.
    #[error("{have} shares; {need} are needed")]
    TooFew {
        /// Of different indices.
        have: usize,
        /// k.
        need: usize,
    },
    /// A share that is not of this set, or was altered.
    #[error("the share with index {index} does not fit its commitment: it is of another set, or was altered")]
    Altered {
        /// Its index.
        index: u16,
    },
}

/// The secret that seals the PINs of one generation. Nobody ever sees it; no Debug, and wiped.
pub struct SealingSecret(Zeroizing<[u8; SCALAR_LEN]>);

impl SealingSecret {
    /// A new one, from the system's random source; without that the process ends.
    pub fn make() -> Self {
        loop {
            let mut scalar = Scalar::random(&mut UnwrapErr(SysRng));
            let octets = Zeroizing::new(scalar.to_repr().into());
            scalar.zeroize();
            if *octets != [0; SCALAR_LEN] {
                return Self(octets);
            }
        }
    }

    /// Its octets, big-endian.
    pub fn octets(&self) -> &[u8; SCALAR_LEN] {
        &self.0
    }

    /// Its signature over octets: ECDSA with SHA-256, `r ‖ s`. It verifies under the first commitment of its generation.
    ///
    /// # Errors
    /// [`SchemeError::Scalar`] for what is no secret.
    pub fn sign(&self, octets: &[u8]) -> Result<[u8; 64], SchemeError> {
        let mut scalar = read_scalar(&self.0).ok_or(SchemeError::Scalar)?;
        let point = (ProjectivePoint::GENERATOR * scalar).to_affine().to_sec1_point(false);
        scalar.zeroize();
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, &*self.0, point.as_bytes(), &random);
        let pair = pair.map_err(|_| SchemeError::Scalar)?;
        let signature = pair.sign(&random, octets).map_err(|_| SchemeError::Scalar)?;
        signature.as_ref().try_into().map_err(|_| SchemeError::Scalar)
    }
}

/// What one custodian holds. No Debug, and wiped.
#[derive(Clone)]
pub struct Share {
    index: u16,
    scalar: Zeroizing<[u8; SCALAR_LEN]>,
}

impl Share {
    /// The share with that index, from 1.
    pub fn new(index: u16, scalar: Zeroizing<[u8; SCALAR_LEN]>) -> Result<Self, SchemeError> {
        match read_scalar(&scalar) {
            Some(mut valid) if index > 0 && *scalar != [0; SCALAR_LEN] => {
                valid.zeroize();
                Ok(Self { index, scalar })
            }
            Some(_) | None => Err(SchemeError::Scalar),
        }
    }

    /// Its index: where the polynomial was taken, from 1.
    pub const fn index(&self) -> u16 {
        self.index
    }

    /// Its octets, big-endian: those of a private key on P-256.
    pub fn octets(&self) -> &[u8; SCALAR_LEN] {
        &self.scalar
    }

    /// Its point, uncompressed: that of the public key to the private key that it is. 65 octets.
    pub fn point(&self) -> Vec<u8> {
        let raw = self.raw();
        let point = (ProjectivePoint::GENERATOR * raw.value.0).to_affine();
        point.to_sec1_point(false).as_bytes().to_vec()
    }

    fn raw(&self) -> Zeroizing<RawShare> {
        let scalar = read_scalar(&self.scalar).expect("it was read when it was made");
        Zeroizing::new(RawShare { identifier: identifier(self.index), value: IdentifierPrimeField(scalar) })
    }
}

/// The public half of a share set: k points. The first is the secret's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commitments(Vec<ProjectivePoint>);

impl Commitments {
    /// Reads compressed points, as [`Commitments::octets`] gives them.
    pub fn read<O: AsRef<[u8]>>(octets: &[O]) -> Result<Self, SchemeError> {
        if octets.len() < 2 || octets.len() > usize::from(SHARES_MAX) {
            return Err(SchemeError::Numbers { threshold: octets.len(), count: octets.len() });
        }
        let read = |(at, octets): (usize, &O)| {
            let octets = octets.as_ref();
            // The one form: the compact one, with an octet of 5 before it, would be a second.
            let is_compressed = octets.len() == COMMITMENT_LEN && matches!(octets[0], 2 | 3);
            let point = is_compressed.then(|| PublicKey::from_sec1_bytes(octets).ok()).flatten();
            point.map(|point| point.to_projective()).ok_or(SchemeError::Commitment { at })
        };
        octets.iter().enumerate().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// The same in hexadecimal, as custody files and the ledger have them.
    pub fn read_hex(texts: &[Box<str>]) -> Result<Self, SchemeError> {
        let octets: Vec<Vec<u8>> = texts.iter().map(|text| hex::decode(&**text).unwrap_or_default()).collect();
        Self::read(&octets)
    }

    /// Each as a compressed point.
    pub fn octets(&self) -> Vec<Vec<u8>> {
        self.0.iter().map(|point| point.to_affine().to_sec1_point(true).as_bytes().to_vec()).collect()
    }

    /// k.
    pub fn threshold(&self) -> usize {
        self.0.len()
    }

    /// Whether a share is the one with its index in this set.
    pub fn fit(&self, share: &Share) -> bool {
        FeldmanVerifierSet::<RawShare, RawCommitment>::verify_share(&self.raw(), &share.raw()).is_ok()
    }

    /// The point of the share with that index, uncompressed: 65 octets. None if there is no such point.
    pub fn point(&self, index: u16) -> Option<Vec<u8>> {
        let set = self.raw();
        let point = FeldmanVerifierSet::<RawShare, RawCommitment>::evaluate_at(&set, &identifier(index));
        Some(point.ok()?.0.to_affine().to_sec1_point(false).as_bytes().to_vec())
    }

    /// Puts k shares together, each of which must fit; more are not used.
    pub fn combine(&self, shares: &[Share]) -> Result<SealingSecret, SchemeError> {
        let mut chosen: Vec<&Share> = Vec::with_capacity(self.threshold());
        for share in shares {
            if !self.fit(share) {
                return Err(SchemeError::Altered { index: share.index });
            }
            if chosen.len() < self.threshold() && chosen.iter().all(|other| other.index != share.index) {
                chosen.push(share);
            }
        }
        let too_few = SchemeError::TooFew { have: chosen.len(), need: self.threshold() };
        if chosen.len() < self.threshold() {
            return Err(too_few);
        }
        let raw: Zeroizing<Vec<RawShare>> = Zeroizing::new(chosen.into_iter().map(|share| *share.raw()).collect());
        let mut secret = raw.combine().map_err(|_| too_few)?;
        let octets = Zeroizing::new(secret.0.to_repr().into());
        secret.0.zeroize();
        Ok(SealingSecret(octets))
    }

    fn raw(&self) -> Vec<RawCommitment> {
        std::iter::once(ProjectivePoint::GENERATOR).chain(self.0.iter().copied()).map(ValueGroup).collect()
    }
}

/// Splits a secret into shares with the indices 1 to `count`, of which `threshold` open it.
pub fn split(secret: &SealingSecret, threshold: usize, count: usize) -> Result<(Vec<Share>, Commitments), SchemeError> {
    if threshold < 2 || threshold > count || count > usize::from(SHARES_MAX) {
        return Err(SchemeError::Numbers { threshold, count });
    }
    let mut scalar = IdentifierPrimeField(read_scalar(&secret.0).expect("a secret is a scalar since it was made"));
    let made = feldman::split_secret::<RawShare, RawCommitment>(
        threshold,
        count,
        &scalar,
        Some(ValueGroup(ProjectivePoint::GENERATOR)),
        UnwrapErr(SysRng),
    );
    scalar.0.zeroize();
    let (raw, commitments) = made.map_err(|_| SchemeError::Numbers { threshold, count })?;
    let raw = Zeroizing::new(raw);
    let shares = raw
        .iter()
        .zip(1..)
        .map(|(raw, index)| Share::new(index, Zeroizing::new(raw.value.0.to_repr().into())))
        .collect::<Result<Vec<_>, _>>()?;
    // The generator stands before them.
    let commitments = Commitments(commitments.iter().skip(1).map(|point| point.0).collect());
    // What does not fit is never given out, whatever the crate did.
    match shares.iter().find(|share| !commitments.fit(share)) {
        Some(share) => Err(SchemeError::Altered { index: share.index }),
        None => Ok((shares, commitments)),
    }
}

fn identifier(index: u16) -> IdentifierPrimeField<Scalar> {
    IdentifierPrimeField(Scalar::from(u64::from(index)))
}

/// A scalar from its octets; none if they are no number below the order.
fn read_scalar(octets: &[u8; SCALAR_LEN]) -> Option<Scalar> {
    Scalar::from_repr((*octets).into()).into_option()
}

#[cfg(test)]
mod tests;
