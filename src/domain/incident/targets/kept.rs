//! Pure. The one encoding of the Relevant Devices, for a snapshot: 24 octets each, after the determinations that were followed.
//!
//! *Warning:* it is hashed in ledgers. Another encoding is another form of the snapshot
//! ([`crate::domain::ledger::snapshots::FORM`]).

use super::{Again, Control, Overridden, Place, Proof, Target, Targets};
use crate::domain::ledger::steps::{Method, SmiStatus};
use crate::domain::names::{DeterminationId, DeviceId, Eui64};
use crate::domain::time::Timestamp;

/// Octets of one target.
const TARGET_LEN: usize = 24;

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
        let mut octets = Vec::with_capacity(4 + FOLLOWED_LEN * self.followed.len() + TARGET_LEN * self.all().len());
        let followed = u32::try_from(self.followed.len()).unwrap_or(u32::MAX);
        octets.extend_from_slice(&followed.to_be_bytes());
        for (id, method) in &self.followed {
            octets.extend_from_slice(id.octets());
            octets.push(code(&METHODS, method));
        }
        for target in self.all() {
            let Target { device, status, since, proof, under, again, excluded, control, overridden } = *target;
            octets.extend_from_slice(device.0.octets());
            octets.extend_from_slice(&since.unix_ms().to_be_bytes());
            octets.extend_from_slice(&under.0.to_be_bytes());
            octets.extend_from_slice(&[
                code(&STATUSES, &status),
                code(&PROOFS, &proof),
                code(&AGAINS, &again),
                u8::from(excluded),
                code(&CONTROLS, &control),
                code(&OVERRIDDEN, &overridden),
            ]);
        }
        octets
    }

    /// Reads their encoding.
    ///
    /// # Errors
    /// What was expected, and what was found.
    pub fn of_kept(octets: &[u8]) -> Result<Self, String> {
        let cut = || "expected the Relevant Devices of an incident, found octets that are cut off".to_owned();
        let (count, rest) = octets.split_first_chunk().ok_or_else(cut)?;
        let count = usize::try_from(u32::from_be_bytes(*count)).map_err(|_| cut())?;
        let len = count.checked_mul(FOLLOWED_LEN).ok_or_else(cut)?;
        let (followed, targets) = rest.split_at_checked(len).ok_or_else(cut)?;
        let followed = followed.chunks_exact(FOLLOWED_LEN).map(|octets| {
            let (id, method) = octets.split_first_chunk().ok_or_else(cut)?;
            Ok((DeterminationId(*id), decode(&METHODS, method[0], "a method")?))
        });
        let followed = followed.collect::<Result<Vec<_>, String>>()?;
        if !targets.len().is_multiple_of(TARGET_LEN) {
            return Err(cut());
        }
        let all = targets.chunks_exact(TARGET_LEN).map(target).collect::<Result<Vec<_>, String>>()?;
        Ok(Self { followed, ..Self::of(all) })
    }
}

fn target(octets: &[u8]) -> Result<Target, String> {
    let octets: &[u8; TARGET_LEN] = octets.try_into().map_err(|_| "a target is cut off".to_owned())?;
    let [d0, d1, d2, d3, d4, d5, d6, d7, s0, s1, s2, s3, s4, s5, s6, s7, u0, u1, status, proof, again, excluded, control, overridden] =
        *octets;
    let since = i64::from_be_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
    Ok(Target {
        device: DeviceId(Eui64([d0, d1, d2, d3, d4, d5, d6, d7])),
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
