//! Shell: verifies what Devices answered, and their certificates, on every processor, and not on the thread on which everybody
//! waits for the recorder.
//!
//! The time goes into ECDSA over P-256 in ring: one verification for a certificate, one for a Response. From a file on the disk to the ledger that
//! is three quarters of it all (`perf`, two cores, 28 November 2026). The others: certificates read (`der`) 3 to 5 %; messages read 2; SQLite and
//! its files, for the Device's last intent, what it answered before, and the rows of snapshots 5 to 8; the kernel for uploads and wakes 3;
//! octets copied and allocated 3 to 4; SHA-256 2. So a message is read once, and what is known of Devices is looked up in their order.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::intake::device_certificates::Judged;
use crate::domain::names::DeviceId;
use crate::domain::responses::{Candidates, DeviceKey, Reading, Trust, device_of};
use crate::processors::each;

/// Keys that were imported, by Device; none where nothing was.
pub type ImportedKeys = Option<BTreeMap<DeviceId, Vec<DeviceKey>>>;

/// Reads messages, and verifies each with the certificates of its Device.
///
/// # Shape
/// A reading for each message, in their order, and the certificates that were of one of their Devices.
pub fn verify(
    messages: &[&[u8]],
    certificates: &[impl AsRef<[u8]> + Sync],
    imported: ImportedKeys,
    trust: &Trust,
) -> (Vec<Reading>, Candidates) {
    let devices: BTreeSet<_> = if certificates.is_empty() { BTreeSet::new() } else { devices(messages) };
    let found = each(certificates, |octets| trust.candidate(octets.as_ref(), &devices));
    let candidates = Candidates::new(found.into_iter().flatten()).and_imported(imported);
    let readings = each(messages, |octets| Reading::of(octets, &candidates));
    (readings, candidates)
}

/// Verifies certificates that are to be imported.
pub fn import<'a>(certificates: &[&'a [u8]], trust: &Trust) -> Vec<Judged<'a>> {
    each(certificates, |octets: &&'a [u8]| (*octets, trust.import(octets)))
}

/// The Devices that messages say they are from.
pub fn devices(messages: &[&[u8]]) -> BTreeSet<DeviceId> {
    messages.iter().filter_map(|octets| device_of(octets)).collect()
}
