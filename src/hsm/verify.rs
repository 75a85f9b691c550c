//! Shell. The second implementation: every signature is verified with `ring` before it leaves.
//!
//! It runs on the daemon's side, so that a module that went wild in the worker cannot vouch for itself.

use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::thread;

use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

/// A point of P-256, uncompressed: `04`, x, y (SEC 1 2.3.3). That it lies on the curve is checked by `ring` at each use.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicPoint([u8; Self::LEN]);

impl PublicPoint {
    /// Its length in octets.
    pub const LEN: usize = 65;

    /// From `04 ‖ x ‖ y`.
    pub fn from_octets(octets: &[u8]) -> Option<Self> {
        let point: [u8; Self::LEN] = octets.try_into().ok()?;
        (point[0] == 0x04).then_some(Self(point))
    }

    /// From a SubjectPublicKeyInfo of P-256 with named curve and uncompressed point, in its one DER form (RFC 5480 2).
    pub fn from_spki(spki: &[u8]) -> Option<Self> {
        Self::from_octets(spki.strip_prefix(&SPKI_PREFIX)?)
    }

    /// `04 ‖ x ‖ y`.
    pub const fn octets(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// As SubjectPublicKeyInfo in DER, 91 octets.
    pub fn to_spki(self) -> Vec<u8> {
        [&SPKI_PREFIX[..], &self.0].concat()
    }

    /// Whether `signature` (r, s of 32 octets each) is one over SHA-256 of `octets` by this key.
    pub fn verifies(&self, octets: &[u8], signature: &[u8; 64]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.0).verify(octets, signature).is_ok()
    }
}

impl std::fmt::Debug for PublicPoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicPoint({})", hex::encode(self.0))
    }
}

/// SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING of 66 octets } up to the point (RFC 5480 2).
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

type Job = Box<dyn FnOnce() + Send>;

/// One thread fewer than there are cores, but one at least, shared by all tokens. Where a token signs off the machine, verifying is half
/// of what a command costs here, and else a third: so that even one of two cores is enough for it. The core that is left is there for a
/// signer that comes back from its token while a group of signatures is verified, which takes milliseconds: its session would wait.
pub struct Pool {
    jobs: mpsc::Sender<Job>,
}

impl Pool {
    /// The one pool of this process. Its threads are made at first use and live as long as the process.
    pub fn shared() -> &'static Self {
        static POOL: OnceLock<Pool> = OnceLock::new();
        POOL.get_or_init(|| {
            let (jobs, waiting) = mpsc::channel::<Job>();
            let waiting: &'static Mutex<mpsc::Receiver<Job>> = Box::leak(Box::new(Mutex::new(waiting)));
            let threads = thread::available_parallelism().map_or(1, usize::from).saturating_sub(1).max(1);
            for n in 0..threads {
                thread::Builder::new()
                    .name(format!("verify-{n}"))
                    .spawn(move || {
                        loop {
                            let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                            match job {
                                Ok(job) => job(),
                                Err(mpsc::RecvError) => return,
                            }
                        }
                    })
                    .expect("a process that cannot make its few threads at first use cannot work at all");
            }
            Pool { jobs }
        })
    }

    /// Does `job` on a thread of the pool. What waits is bounded by [`super::QUEUE_ITEMS_MAX`] of each token.
    pub fn submit(&self, job: impl FnOnce() + Send + 'static) {
        self.jobs.send(Box::new(job)).expect("the receiver is never dropped");
    }
}

#[cfg(test)]
mod tests;
