//! Shell: what a ceremony records, with the ledger to itself or beside the running daemon: judged by the same functions, at the moment of
//! the entry, as the audit will judge it.

use crate::custody::file::CustodyFile;
use crate::domain::intake;
use crate::domain::ledger::ceremonies::CeremonyRecorded;
use crate::domain::ledger::custody::SharesDealt;
use crate::domain::ledger::entry::{Actor, Event, KeyCopied, Reason};
use crate::domain::names::KeyLabel;
use crate::recorder::{CannotRecord, Recorder};

/// What was done.
#[derive(Clone, Debug)]
pub enum Record {
    /// A key was found on a further token.
    Copied(KeyCopied),
    /// Key Custodians were given shares, and the tokens that these will open are about to be changed.
    Begun {
        /// What the shares open.
        file: CustodyFile,
        /// What the ledger is to say of it.
        begun: Box<SharesDealt>,
    },
    /// Every token is opened by the shares whose dealing was begun.
    Dealt(KeyLabel),
    /// A ceremony came to its end.
    Held {
        /// When, what for, and who was there.
        recorded: CeremonyRecorded,
        /// The plan.
        plan: Vec<u8>,
        /// The transcript.
        transcript: Vec<u8>,
    },
}

impl Record {
    /// Whether it may be recorded now.
    ///
    /// # Errors
    /// Every reason against it.
    pub fn judge(&self, recorder: &Recorder) -> Result<(), Vec<Reason>> {
        let (fold, at) = (recorder.fold(), recorder.moment().at);
        match self {
            Self::Copied(copied) => intake::may_copy(fold, copied),
            Self::Begun { begun, .. } => intake::may_begin_deal(fold, begun, at),
            Self::Dealt(key) => begun(recorder, key).and_then(|begun| intake::may_deal(fold, begun)),
            Self::Held { recorded, plan: _, transcript } => intake::may_record(fold, recorded, transcript, at),
        }
    }

    /// Queues the entry, and the documents that it names. It must have been judged in the same ask. Answers the entry's index.
    pub fn queue(self, recorder: &mut Recorder, by: &Actor) -> Result<u64, CannotRecord> {
        let event = match self {
            Self::Copied(copied) => Event::KeyCopied(copied),
            Self::Begun { begun, .. } => Event::SharesBegun(*begun),
            Self::Dealt(key) => Event::SharesDealt(begun(recorder, &key).expect("it was judged").clone()),
            Self::Held { recorded, plan, transcript } => {
                recorder.queue_blob(plan);
                recorder.queue_blob(transcript);
                Event::CeremonyRecorded(recorded)
            }
        };
        recorder.queue(by, event)
    }
}

/// The generation of a key's shares whose dealing was begun.
fn begun<'a>(recorder: &'a Recorder, key: &KeyLabel) -> Result<&'a SharesDealt, Vec<Reason>> {
    let begun = recorder.fold().keys().get(key).and_then(|facts| facts.dealing.as_ref());
    begun.ok_or_else(|| {
        let text = format!("no dealing of shares of key {key} was begun");
        vec![Reason { rule: "deal".into(), text: text.into() }]
    })
}
