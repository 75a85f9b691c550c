//! Pure. The octets of commands, which leave nothing behind where they have a Contingency Symmetric Key inside.

use std::fmt;
use std::ops::{Deref, DerefMut};

use zeroize::{Zeroize as _, Zeroizing};

/// Octets of one command or of several. Those of mode 9 have the Contingency Symmetric Key in clear, and are wiped when they are dropped;
/// those of mode 8 are secret to nobody, and cost nothing.
///
/// What grows beyond its capacity is moved, and the place where it was is not wiped: reserve before.
#[derive(Clone, Default)]
pub struct CommandOctets {
    octets: Vec<u8>,
    has_key: bool,
}

impl CommandOctets {
    /// None yet, and wiped if `has_key`.
    pub const fn new(has_key: bool) -> Self {
        Self { octets: Vec::new(), has_key }
    }

    /// Whether a Contingency Symmetric Key is, or may be, among them.
    pub const fn has_key(&self) -> bool {
        self.has_key
    }

    /// The octets themselves. Whoever takes those with a key inside wipes them.
    pub fn into_vec(mut self) -> Vec<u8> {
        std::mem::take(&mut self.octets)
    }
}

impl From<Vec<u8>> for CommandOctets {
    fn from(octets: Vec<u8>) -> Self {
        Self { octets, has_key: false }
    }
}

impl From<Zeroizing<Vec<u8>>> for CommandOctets {
    fn from(mut octets: Zeroizing<Vec<u8>>) -> Self {
        Self { octets: std::mem::take(&mut *octets), has_key: true }
    }
}

impl Deref for CommandOctets {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.octets
    }
}

impl DerefMut for CommandOctets {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.octets
    }
}

impl AsRef<[u8]> for CommandOctets {
    fn as_ref(&self) -> &[u8] {
        &self.octets
    }
}

impl fmt::Debug for CommandOctets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommandOctets({} octets)", self.octets.len())
    }
}

impl Drop for CommandOctets {
    fn drop(&mut self) {
        if self.has_key {
            self.octets.zeroize();
        }
    }
}
