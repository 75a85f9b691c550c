//! Pure. Responses judged again: from the messages, the Devices' certificates and the state of then, and the lines of results must
//! come out the same.

use std::collections::BTreeSet;

use super::documents::{Again, permitted};
use super::{Permitted, demand, each_at_once, text, whole};
use crate::domain::intake::device_certificates::{Judged, NotImported, device_certificates};
use crate::domain::intake::responses::{Handed, imported_keys, responses, resumption};
use crate::domain::ledger::entry::{DeviceCertificatesImported, ResponsesTaken, SigningResumed};
use crate::domain::responses::bundle::{self, BUNDLE_LEN_MAX};
use crate::domain::responses::messages::{self, MESSAGES_LEN_MAX, Messages};
use crate::domain::responses::trust::CERTIFICATES_LEN_MAX;
use crate::domain::responses::{Candidates, Reading, Trust, device_of};
use crate::domain::time::Timestamp;

/// Octets of lines of results that are read: each line has less than the message that it is about, in hexadecimal or not, but for
/// short ones.
const RESULTS_LEN_MAX: u64 = 4 * MESSAGES_LEN_MAX;

impl Again<'_> {
    pub(super) fn check_responses(&self, taken: &ResponsesTaken, at: Timestamp) -> Permitted {
        let sent = Messages::read(whole(self.evidence, taken.responses, messages::FILE_LEN_MAX)?).map_err(text)?;
        let sent = sent.all();
        let kept = whole(self.evidence, taken.certificates, CERTIFICATES_LEN_MAX)?;
        let certificates = bundle::given(&kept)?;
        let devices: BTreeSet<_> = sent.iter().filter_map(|octets| device_of(octets)).collect();
        let policy = self.fold.policy().ok_or("no policy is in force")?;
        let trust = Trust::new(&policy.policy);
        let found = each_at_once(self.evidence, &certificates, |octets| trust.candidate(octets, &devices));
        let candidates = Candidates::new(found.into_iter().flatten());
        let imported = taken.imported_before.map(|before| imported_keys(self.book, &trust, &devices, before));
        let candidates = candidates.and_imported(imported.transpose().map_err(text)?);
        let readings = each_at_once(self.evidence, &sent, |octets| Reading::of(octets, &candidates));
        let handed = Handed {
            messages: &sent,
            readings: &readings,
            responses: taken.responses,
            certificates: taken.certificates,
            imported_before: taken.imported_before,
        };
        let judged = responses(self.fold, self.book, at, taken.determination, &handed).map_err(text)?;
        let recorded = String::from_utf8(whole(self.evidence, taken.results, RESULTS_LEN_MAX)?).map_err(text)?;
        if judged.results != recorded {
            let differs = judged.results.lines().zip(recorded.lines()).find(|(ours, theirs)| ours != theirs);
            let (ours, theirs) = differs.unwrap_or(("as many lines as messages", "another number of them"));
            return Err(format!("results: expected {ours}, found {theirs}"));
        }
        let expected = judged.event;
        demand(expected == *taken, || format!("expected {expected:?}, found {taken:?}"))
    }

    /// Each certificate is verified again, and none of them was known before.
    pub(super) fn check_device_certificates(&self, imported: &DeviceCertificatesImported, at: Timestamp) -> Permitted {
        let DeviceCertificatesImported { certificates, tally } = imported;
        let kept = whole(self.evidence, *certificates, BUNDLE_LEN_MAX)?;
        let policy = self.fold.policy().ok_or("no policy is in force")?;
        let trust = Trust::new(&policy.policy);
        let all = bundle::split(&kept).map_err(text)?;
        let judged: Vec<Judged<'_>> = each_at_once(self.evidence, &all, |octets| (*octets, trust.import(octets)));
        let again = device_certificates(self.book, at, &judged).map_err(text)?;
        if let Some(NotImported { certificate, why, .. }) = again.others.first() {
            let why = why.as_deref().unwrap_or("it was known before");
            return Err(format!("certificate {certificate} of those imported: {why}"));
        }
        let count = again.event.tally.imported;
        demand(count == tally.imported, || format!("expected {count} imported, found {}", tally.imported))
    }

    pub(super) fn check_resumption(&self, resumed: &SigningResumed, at: Timestamp) -> Permitted {
        let expected = permitted(resumption(self.fold, resumed.determination, &resumed.reason, at))?;
        demand(expected == *resumed, || format!("expected {expected:?}, found {resumed:?}"))
    }
}
