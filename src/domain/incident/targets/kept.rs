//! Pure. The one encoding of the Relevant Devices, for a snapshot: the pages of `packed.rs` made anew of their targets, and a head with the
//! determinations that were followed and the SHA-256 of each page. Some three octets each where they are alike, seven where each has a date of
//! its own. Only pages that were altered are encoded again: there may be ten million Devices, of which some thousand answered.
//!
//! A page has how many it is of (2 octets), its first Device (8), and of each other Device the distance from the one before it, seven bits an
//! octet, the lowest first, all but the last octet with the high bit set; how many ways to stand (2) and each of them (8), in the order
//! in which they come, and of each Device which, in as few bits as that takes; the earliest moment (8), the span that the others
//! have in common (8), how many bits a multiple of it takes (1), and of each Device that multiple.
//!
//! *Warning:* it is hashed in ledgers. Another encoding is another form of the snapshot
//! ([`crate::domain::ledger::snapshots::FORM`]).

use super::packed::{Packed, PagesKept, STANDING_LEN};
use super::{Again, Control, Overridden, Place, Proof, Tally, Target, Targets};
use crate::domain::ledger::steps::{Method, SmiStatus};
use crate::domain::names::{DeterminationId, DeviceId, Digest, Eui64};
use crate::domain::time::Timestamp;

/// Octets of one determination that was followed.
const FOLLOWED_LEN: usize = 17;

/// In the order of their numbers: later ones come at the end.
const STATUSES: [SmiStatus; 9] = [
    SmiStatus::Pending,
    SmiStatus::Whitelisted,
    SmiStatus::InstalledNotCommissioned,
    SmiStatus::Commissioned,
    SmiStatus::Decommissioned,
    SmiStatus::Withdrawn,
    SmiStatus::Suspended,
    SmiStatus::Recovery,
    SmiStatus::Recovered,
];
const METHODS: [Option<Method>; 5] = [
    None,
    Some(Method::SubscriberKey),
    Some(Method::AcbCertificates),
    Some(Method::NewOrganisationCertificates),
    Some(Method::Contingency),
];
const PROOFS: [Proof; 3] = [Proof::None, Proof::Failed, Proof::Succeeded];
const AGAINS: [Again; 3] = [Again::No, Again::Awaited, Again::Failed];
const CONTROLS: [Control; 3] = [Control::AsBefore, Control::Dcc, Control::HandedOver];
const OVERRIDDEN: [Overridden; 3] = [Overridden::No, Overridden::Yes, Overridden::OutOfRecovery];

fn code<T: PartialEq>(of: &[T], value: &T) -> u8 {
    let at = of.iter().position(|each| each == value).expect("each stands in its list");
    u8::try_from(at).expect("there are few of each")
}

fn decode<T: Copy>(of: &[T], code: u8, what: &str) -> Result<T, String> {
    of.get(usize::from(code)).copied().ok_or_else(|| format!("expected {what} below {}, found {code}", of.len()))
}

impl Targets {
    /// Whether there is anything to keep.
    pub fn is_kept(&self) -> bool {
        !self.followed.is_empty() || !self.is_empty()
    }

    /// The head of their encoding. `put` is given the pages that are others than those `kept`, each with its number, counted from 0.
    pub fn keep(&self, kept: &mut PagesKept, put: &mut dyn FnMut(usize, Vec<u8>)) -> Vec<u8> {
        let mut octets = Vec::new();
        let followed = u32::try_from(self.followed.len()).unwrap_or(u32::MAX);
        octets.extend_from_slice(&followed.to_be_bytes());
        for (id, method) in &self.followed {
            octets.extend_from_slice(id.octets());
            octets.push(code(&METHODS, method));
        }
        self.all.keep(standing, kept, put, |digest| octets.extend_from_slice(digest.octets()));
        octets
    }

    /// Reads their encoding: the head, and the pages that it names, in their order ([`pages_of`]).
    ///
    /// # Errors
    /// What was expected, and what was found.
    pub fn of_kept(head: &[u8], pages: impl IntoIterator<Item = Vec<u8>>) -> Result<Self, String> {
        let (followed, _) = parts(head)?;
        let followed = followed.chunks_exact(FOLLOWED_LEN).map(|octets| {
            let (id, method) = octets.split_first_chunk().ok_or_else(cut)?;
            Ok((DeterminationId(*id), decode(&METHODS, method[0], "a method")?))
        });
        let followed = followed.collect::<Result<Vec<_>, String>>()?;
        let mut tally = Tally::default();
        let all = Packed::read(pages, target, |target| tally.enter(target))?;
        Ok(Self { all, followed, tally })
    }
}

/// The SHA-256 of each page that a head names.
///
/// # Errors
/// What was expected, and what was found.
pub fn pages_of(head: &[u8]) -> Result<Vec<Digest>, String> {
    let (digests, rest) = parts(head)?.1.as_chunks();
    if rest.is_empty() { Ok(digests.iter().map(|digest| Digest(*digest)).collect()) } else { Err(cut()) }
}

impl PagesKept {
    /// Those that a head names.
    ///
    /// # Errors
    /// What was expected, and what was found.
    pub fn of_head(head: &[u8]) -> Result<Self, String> {
        pages_of(head).map(Self::of)
    }
}

/// The determinations that were followed, and the pages.
fn parts(head: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let (count, rest) = head.split_first_chunk().ok_or_else(cut)?;
    let count = usize::try_from(u32::from_be_bytes(*count)).map_err(|_| cut())?;
    rest.split_at_checked(count.checked_mul(FOLLOWED_LEN).ok_or_else(cut)?).ok_or_else(cut)
}

fn cut() -> String {
    "expected the Relevant Devices of an incident, found octets that are cut off".to_owned()
}

fn standing(target: &Target) -> [u8; STANDING_LEN] {
    let Target { device: _, status, since: _, proof, under, again, excluded, control, overridden } = *target;
    let mut octets = [0; STANDING_LEN];
    octets[..2].copy_from_slice(&under.0.to_be_bytes());
    octets[2..].copy_from_slice(&[
        code(&STATUSES, &status),
        code(&PROOFS, &proof),
        code(&AGAINS, &again),
        u8::from(excluded),
        code(&CONTROLS, &control),
        code(&OVERRIDDEN, &overridden),
    ]);
    octets
}

/// A target that stands so, of no Device and since no moment yet.
fn target(stands: [u8; STANDING_LEN]) -> Result<Target, String> {
    let [u0, u1, status, proof, again, excluded, control, overridden] = stands;
    Ok(Target {
        device: DeviceId(Eui64([0; 8])),
        status: decode(&STATUSES, status, "an SMI Status")?,
        since: Timestamp::MIN,
        proof: decode(&PROOFS, proof, "a proof")?,
        under: Place(u16::from_be_bytes([u0, u1])),
        again: decode(&AGAINS, again, "whether again")?,
        excluded: decode(&[false, true], excluded, "whether left out")?,
        control: decode(&CONTROLS, control, "who controls")?,
        overridden: decode(&OVERRIDDEN, overridden, "whether overridden")?,
    })
}
