//! Pure. The one encoding of the Relevant Devices, for a snapshot: some three octets each where they are alike, after the determinations
//! that were followed.
//!
//! Of each the distance from the Device before it (of the first, from 0), seven bits an octet, the lowest first, all but the last octet
//! with the high bit set; then 0 if it stands as the one before it does, else 1 and how it stands.
//!
//! *Warning:* it is hashed in ledgers. Another encoding is another form of the snapshot
//! ([`crate::domain::ledger::snapshots::FORM`]).

use super::{Again, Control, Overridden, Place, Proof, Target, Targets};
use crate::domain::ledger::steps::{Method, SmiStatus};
use crate::domain::names::{DeterminationId, DeviceId, Eui64};
use crate::domain::time::Timestamp;

/// Octets of how a target stands: since when, under which determination, and six words.
const STANDING_LEN: usize = 16;

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

    /// Their encoding.
    pub fn kept(&self) -> Vec<u8> {
        let mut octets = Vec::new();
        let followed = u32::try_from(self.followed.len()).unwrap_or(u32::MAX);
        octets.extend_from_slice(&followed.to_be_bytes());
        for (id, method) in &self.followed {
            octets.extend_from_slice(id.octets());
            octets.push(code(&METHODS, method));
        }
        let (mut before, mut stood) = (0, None);
        for target in self.iter() {
            let device = u64::from_be_bytes(*target.device.0.octets());
            let mut distance = device - before;
            while distance > 0x7F {
                octets.push(0x80 | low_bits(distance));
                distance >>= 7;
            }
            octets.push(low_bits(distance));
            let stands = standing(&target);
            octets.push(u8::from(stood != Some(stands)));
            if stood != Some(stands) {
                octets.extend_from_slice(&stands);
            }
            (before, stood) = (device, Some(stands));
        }
        octets
    }

    /// Reads their encoding.
    ///
    /// # Errors
    /// What was expected, and what was found.
    pub fn of_kept(octets: &[u8]) -> Result<Self, String> {
        let (count, rest) = octets.split_first_chunk().ok_or_else(cut)?;
        let count = usize::try_from(u32::from_be_bytes(*count)).map_err(|_| cut())?;
        let len = count.checked_mul(FOLLOWED_LEN).ok_or_else(cut)?;
        let (followed, rest) = rest.split_at_checked(len).ok_or_else(cut)?;
        let followed = followed.chunks_exact(FOLLOWED_LEN).map(|octets| {
            let (id, method) = octets.split_first_chunk().ok_or_else(cut)?;
            Ok((DeterminationId(*id), decode(&METHODS, method[0], "a method")?))
        });
        let followed = followed.collect::<Result<Vec<_>, String>>()?;
        let mut reader = KeptReader { rest, before: None, stood: None, fault: None };
        let targets = Self::of(std::iter::from_fn(|| reader.next()));
        match reader.fault {
            None => Ok(Self { followed, ..targets }),
            Some(fault) => Err(fault),
        }
    }
}

/// The seven lowest bits.
const fn low_bits(number: u64) -> u8 {
    number.to_le_bytes()[0] & 0x7F
}

fn cut() -> String {
    "expected the Relevant Devices of an incident, found octets that are cut off".to_owned()
}

fn standing(target: &Target) -> [u8; STANDING_LEN] {
    let Target { device: _, status, since, proof, under, again, excluded, control, overridden } = *target;
    let mut octets = [0; STANDING_LEN];
    octets[..8].copy_from_slice(&since.unix_ms().to_be_bytes());
    octets[8..10].copy_from_slice(&under.0.to_be_bytes());
    octets[10..].copy_from_slice(&[
        code(&STATUSES, &status),
        code(&PROOFS, &proof),
        code(&AGAINS, &again),
        u8::from(excluded),
        code(&CONTROLS, &control),
        code(&OVERRIDDEN, &overridden),
    ]);
    octets
}

/// Reads one after the other, up to the first fault.
struct KeptReader<'a> {
    rest: &'a [u8],
    before: Option<u64>,
    stood: Option<[u8; STANDING_LEN]>,
    fault: Option<String>,
}

impl KeptReader<'_> {
    fn next(&mut self) -> Option<Target> {
        if self.rest.is_empty() || self.fault.is_some() {
            return None;
        }
        self.read().map_err(|fault| self.fault = Some(fault)).ok()
    }

    fn octet(&mut self) -> Result<u8, String> {
        let (octet, rest) = self.rest.split_first().ok_or_else(cut)?;
        self.rest = rest;
        Ok(*octet)
    }

    fn read(&mut self) -> Result<Target, String> {
        let (mut distance, mut shift) = (0_u64, 0);
        loop {
            let octet = self.octet()?;
            let bits = u64::from(octet & 0x7F);
            if shift > 63 || (shift == 63 && bits > 1) {
                return Err("expected a distance of 64 bits, found more".to_owned());
            }
            distance |= bits << shift;
            shift += 7;
            if octet & 0x80 == 0 {
                break;
            }
        }
        let device = match self.before {
            None => distance,
            Some(before) => before
                .checked_add(distance)
                .filter(|_| distance > 0)
                .ok_or("expected the Devices sorted, each once, found another order")?,
        };
        let stands = match (self.octet()?, self.stood) {
            (0, Some(stood)) => stood,
            (1, _) => {
                let (stands, rest) = self.rest.split_first_chunk().ok_or_else(cut)?;
                self.rest = rest;
                *stands
            }
            (found, _) => return Err(format!("expected 0 or 1 after a distance, found {found}")),
        };
        (self.before, self.stood) = (Some(device), Some(stands));
        target(device, stands)
    }
}

fn target(device: u64, stands: [u8; STANDING_LEN]) -> Result<Target, String> {
    let [s0, s1, s2, s3, s4, s5, s6, s7, u0, u1, status, proof, again, excluded, control, overridden] = stands;
    let since = i64::from_be_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
    Ok(Target {
        device: DeviceId(Eui64(device.to_be_bytes())),
        status: decode(&STATUSES, status, "an SMI Status")?,
        since: Timestamp::from_unix_ms(since).map_err(|error| error.to_string())?,
        proof: decode(&PROOFS, proof, "a proof")?,
        under: Place(u16::from_be_bytes([u0, u1])),
        again: decode(&AGAINS, again, "whether again")?,
        excluded: decode(&[false, true], excluded, "whether left out")?,
        control: decode(&CONTROLS, control, "who controls")?,
        overridden: decode(&OVERRIDDEN, overridden, "whether overridden")?,
    })
}
