//! Shell: verifications with ring, and nothing else: what an audit is held against.

use std::num::NonZero;
use std::thread;
use std::time::{Duration, Instant};

use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, Signature, UnparsedPublicKey,
};

use super::Fault;

/// The octets that are signed for one command with eight certificates.
const SIGNED_LEN: usize = 3_985;
/// How many different messages: more than a processor remembers the branches of.
const SAMPLES: u8 = 64;

/// Signed messages, as long as commands.
pub struct Verifications {
    samples: Vec<(Vec<u8>, Signature)>,
    public: UnparsedPublicKey<Vec<u8>>,
}

impl Verifications {
    /// Makes a key, and signs with it.
    pub fn new() -> Result<Self, Fault> {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|_| "a key could not be made")?;
        let pair =
            EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).map_err(|_| "a key could not be read")?;
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref().to_vec());
        let samples = (0..SAMPLES)
            .map(|at| {
                let octets = vec![at; SIGNED_LEN];
                let signature = pair.sign(&random, &octets).map_err(|_| "nothing was signed")?;
                Ok((octets, signature))
            })
            .collect::<Result<_, Fault>>()?;
        Ok(Self { samples, public })
    }

    /// Verifies so many, on every processor.
    pub fn on_all_processors(&self, count: usize) -> Result<Duration, Fault> {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let share = |thread: usize| count * (thread + 1) / threads - count * thread / threads;
        let began = Instant::now();
        thread::scope(|scope| {
            let workers: Vec<_> =
                (0..threads).map(|thread| scope.spawn(move || self.one_by_one(share(thread)))).collect();
            workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| Fault::from("a worker panicked"))?)
        })?;
        Ok(began.elapsed())
    }

    fn one_by_one(&self, count: usize) -> Result<(), Fault> {
        self.samples.iter().cycle().take(count).try_for_each(|(octets, signature)| {
            self.public.verify(octets, signature.as_ref()).map_err(|_| "a signature does not verify".into())
        })
    }
}
