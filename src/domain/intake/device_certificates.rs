//! Pure. Certificates of Devices that are imported, so that Responses need none.

use std::collections::BTreeSet;

use super::{Reasons, person};
use crate::domain::fold::{Book, BookError, Fold};
use crate::domain::ledger::entry::{Actor, CertificateTally, DeviceCertificatesImported, Reason};
use crate::domain::names::{DeviceId, Digest};
use crate::domain::responses::DeviceKey;
use crate::domain::time::Timestamp;

/// One certificate as it was handed in, judged as far as that goes without the ledger and the clock
/// ([`crate::domain::responses::Trust::import`]).
pub type Judged<'a> = (&'a [u8], Result<DeviceKey, (Option<DeviceId>, String)>);

/// What became of a certificate that was not taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotImported {
    /// Which of those handed in, counted from 1.
    pub certificate: u64,
    /// The Device that it says it is of, as far as that can be read.
    pub device: Option<DeviceId>,
    /// Why; none if it is known.
    pub why: Option<String>,
}

/// What was imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The event.
    pub event: DeviceCertificatesImported,
    /// The certificates that were taken in, as they are kept.
    pub kept: Vec<u8>,
    /// The keys in them, sorted.
    pub keys: Vec<DeviceKey>,
    /// Those that were not.
    pub others: Vec<NotImported>,
}

/// Takes in those certificates that are vouched for, are valid now and are not known yet.
pub fn device_certificates(book: &dyn Book, at: Timestamp, judged: &[Judged<'_>]) -> Result<Imported, BookError> {
    let (mut tally, mut kept, mut others) = (CertificateTally::default(), Vec::new(), Vec::new());
    let mut fresh: BTreeSet<DeviceKey> = BTreeSet::new();
    // Looked up in the order of the Devices, for neighbours lie together.
    let devices: BTreeSet<DeviceId> =
        judged.iter().filter_map(|(_, judged)| Some(judged.as_ref().ok()?.device)).collect();
    let known: BTreeSet<DeviceKey> =
        book.device_keys_of(&devices)?.into_iter().flat_map(|(_, known)| known).map(|known| known.key).collect();
    for (certificate, (octets, judged)) in (1..).zip(judged) {
        let (device, why) = match judged {
            Ok(key) if !key.is_in_force(at) => {
                let DeviceKey { from, until, .. } = key;
                (Some(key.device), Some(format!("it or the Device CA's is valid {from} to {until}, and it is {at}")))
            }
            Ok(key) => {
                if !known.contains(key) && !fresh.contains(key) {
                    fresh.insert(*key);
                    kept.extend_from_slice(octets);
                    tally.imported += 1;
                    continue;
                }
                (Some(key.device), None)
            }
            Err((device, why)) => (*device, Some(why.clone())),
        };
        *if why.is_some() { &mut tally.refused } else { &mut tally.known } += 1;
        others.push(NotImported { certificate, device, why });
    }
    let event = DeviceCertificatesImported { certificates: Digest::of(&kept), tally };
    Ok(Imported { event, kept, keys: fresh.into_iter().collect(), others })
}

/// Whether whoever asks may import: a person whom the policy names, under a policy.
pub fn may_import(fold: &Fold, by: &Actor) -> Result<(), Vec<Reason>> {
    let mut reasons = Reasons::default();
    reasons
        .demand("policy", fold.policy().is_some(), || "no policy is in force, and so no Device CA is known".to_owned());
    reasons.end(Some(()))?;
    person(fold, by).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fold::tests::Lists;
    use crate::domain::fold::{Change, MemoryBook};

    fn key(n: u8, until: &str) -> DeviceKey {
        DeviceKey {
            device: DeviceId([n; 8].into()),
            point: [4; 65],
            device_ca: Digest([1; 32]),
            from: "2026-01-01T00:00:00Z".parse().unwrap(),
            until: until.parse().unwrap(),
        }
    }

    #[test]
    fn only_what_is_vouched_for_valid_now_and_not_known_is_taken_in() {
        let (long, soon) = ("9999-12-31T23:59:59Z", "2026-11-24T09:59:59Z");
        let at = "2026-11-24T10:00:00Z".parse().unwrap();
        let mut book = MemoryBook::default();
        let known = Change::DeviceKeys { entry: 3, keys: [key(1, long)].into() };
        book.apply(&known, &Lists::default()).unwrap();
        let refused = Err((Some(key(5, long).device), "of another CA".to_owned()));
        let judged: Vec<Judged<'_>> = vec![
            (b"a", Ok(key(1, long))),
            (b"b", Ok(key(2, long))),
            (b"c", Ok(key(3, soon))),
            (b"d", Ok(key(2, long))),
            // The same Device and key, with other dates: renewed.
            (b"e", Ok(key(1, "9998-12-31T23:59:59Z"))),
            (b"f", refused),
        ];
        let Imported { event, kept, keys, others } = device_certificates(&book, at, &judged).unwrap();
        assert_eq!(kept, b"be");
        assert_eq!(keys, [key(1, "9998-12-31T23:59:59Z"), key(2, long)]);
        assert_eq!(event.certificates, Digest::of(b"be"));
        assert_eq!(event.tally, CertificateTally { imported: 2, known: 2, refused: 2 });
        let told: Vec<_> = others.iter().map(|other| (other.certificate, other.why.as_deref().unwrap_or(""))).collect();
        assert_eq!((told[0], told[2]), ((1, ""), (4, "")));
        assert!(
            told[1].0 == 3 && told[1].1.contains("valid 2026-01-01T00:00:00.000Z to 2026-11-24T09:59:59.000Z"),
            "{told:?}"
        );
        assert_eq!(told[3], (6, "of another CA"));
    }
}
