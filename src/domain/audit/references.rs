//! Pure. The documents that an entry names: what belongs to an export beside the entries, and nothing else does.

use crate::domain::ledger::entry::{
    CertificateImported, DeterminationRecorded, DeterminationSuspended, DeterminationWithdrawn, Event, PolicyAdopted,
    ScheduleRecorded, SignatureRecord,
};
use crate::domain::names::Digest;

/// The blobs that an event names. The `sha256sum` lines of a policy name further ones: [`policy_files`].
pub fn references(event: &Event) -> Vec<Digest> {
    let signed = |document: &Digest, signatures: &[SignatureRecord], more: Option<Digest>| {
        let mut blobs = vec![*document];
        blobs.extend(signatures.iter().map(|signature| signature.p7s));
        blobs.extend(more);
        blobs
    };
    match event {
        Event::PolicyAdopted(PolicyAdopted { policy, document, signatures, .. }) => {
            signed(document, signatures, Some(*policy))
        }
        Event::CertificationIntent(intent) => vec![intent.request_info],
        Event::CertificateImported(CertificateImported { certificate, path, .. }) => {
            [&[*certificate], &path[..]].concat()
        }
        Event::IncidentOpened(opened) => vec![opened.compromised.certificate_sha256],
        Event::DeterminationRecorded(DeterminationRecorded { document, signatures, devices, .. }) => {
            signed(document, signatures, *devices)
        }
        Event::ScheduleRecorded(ScheduleRecorded { document, signatures, devices, .. }) => {
            signed(document, signatures, Some(*devices))
        }
        Event::DeterminationSuspended(DeterminationSuspended { document, signatures, .. })
        | Event::DeterminationWithdrawn(DeterminationWithdrawn { document, signatures, .. }) => {
            signed(document, signatures, None)
        }
        Event::Genesis(_)
        | Event::Started(_)
        | Event::Stopped(_)
        | Event::IncidentClosed(_)
        | Event::KeyActivated(_)
        | Event::KeyLocked(_)
        | Event::Batch(_)
        | Event::Intent(_)
        | Event::Outcome(_)
        | Event::Released(_)
        | Event::Settled(_)
        | Event::Refused(_)
        | Event::RefusalsFolded(_)
        | Event::ClockJumped(_)
        | Event::ClockAccepted(_) => Vec::new(),
    }
}

/// The files of a policy by its `sha256sum` lines, as far as they are such lines.
pub fn policy_files(sums: &[u8]) -> Vec<Digest> {
    let sums = String::from_utf8_lossy(sums);
    sums.lines().filter_map(|line| line.split_once("  ")?.0.parse().ok()).collect()
}
