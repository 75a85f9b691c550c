//! Shell: verifies what Devices answered, and their certificates, on every processor, and not on the thread on which everybody
//! waits for the recorder.
//!
//! The time goes into ECDSA over P-256 in ring: one verification for a certificate, one for a Response. From a file on the disk to the ledger,
//! the snapshots included, that is four fifths of it all (`perf` with frame pointers, two cores, 29 November 2026): 77 to 80 % of the CPU of daemon
//! and client for a Response alone, 81 for a certificate alone, 81 to 83 for both. The rest is spread thin. Of a Response alone: the recorder
//! 10 to 12 %, of which a third is snapshots (four tenths of that hashes the pages that answers in no order touch), a fifth looks the Device
//! and its answers up, a quarter commits; the Device's imported keys 2; reading messages 2 to 3; memory 2; SHA-256, by the client, for the upload
//! and the blob, 1; the kernel, for uploads and files, 4. A certificate costs 4 to 5 to read (`der`). So a message is read once, what is
//! known of Devices is looked up for all of them at once and in their order, and nothing is made of a certificate that is not asked for.

use std::collections::{BTreeSet, HashMap};

use crate::domain::intake::device_certificates::Judged;
use crate::domain::names::DeviceId;
use crate::domain::responses::{Candidates, ImportedKey, Reading, Trust, device_of};
use crate::processors::each;

/// Keys that were imported, by Device; none where nothing was.
pub type ImportedKeys = Option<HashMap<DeviceId, Vec<ImportedKey>>>;

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
