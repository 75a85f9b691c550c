//! Pure. Responses judged again: from the messages, the Devices' certificates and the state of then, and the lines of results must
//! come out the same.

use std::collections::BTreeSet;

use super::documents::{Again, permitted};
use super::{Permitted, demand, text, whole};
use crate::domain::certificates::pem;
use crate::domain::intake::responses::{Handed, responses, resumption};
use crate::domain::ledger::entry::{ResponsesTaken, SigningResumed};
use crate::domain::responses::messages::{self, MESSAGES_LEN_MAX};
use crate::domain::responses::trust::CERTIFICATES_LEN_MAX;
use crate::domain::responses::{Candidates, Reading, Trust, device_of};
use crate::domain::time::Timestamp;

/// Octets of lines of results that are read: each line has less than the message that it is about, in hexadecimal or not, but for
/// short ones.
const RESULTS_LEN_MAX: u64 = 4 * MESSAGES_LEN_MAX;

impl Again<'_> {
    pub(super) fn check_responses(&self, taken: &ResponsesTaken, at: Timestamp) -> Permitted {
        let sent = messages::read(&whole(self.evidence, taken.responses, messages::FILE_LEN_MAX)?).map_err(text)?;
        let bundle =
            String::from_utf8(whole(self.evidence, taken.certificates, CERTIFICATES_LEN_MAX)?).map_err(text)?;
        let certificates = if bundle.is_empty() { Vec::new() } else { pem::bundle(&bundle).map_err(text)? };
        let devices: BTreeSet<_> = sent.iter().filter_map(|octets| device_of(octets)).collect();
        let policy = self.fold.policy().ok_or("no policy is in force")?;
        let trust = Trust::new(&policy.policy);
        let candidates = Candidates::new(certificates.iter().filter_map(|octets| trust.candidate(octets, &devices)));
        let readings: Vec<Reading> = sent.iter().map(|octets| Reading::of(octets, &candidates)).collect();
        let handed = Handed { messages: &sent, readings: &readings, certificates: taken.certificates };
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

    pub(super) fn check_resumption(&self, resumed: &SigningResumed, at: Timestamp) -> Permitted {
        let expected = permitted(resumption(self.fold, resumed.determination, &resumed.reason, at))?;
        demand(expected == *resumed, || format!("expected {expected:?}, found {resumed:?}"))
    }
}
