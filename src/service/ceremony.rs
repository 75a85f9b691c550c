//! Shell: what a ceremony records, with the ledger to itself or beside the running daemon: judged by the same functions, at the moment of
//! the entry, as the audit will judge it.

use crate::custody::file::CustodyFile;
use crate::domain::intake;
use crate::domain::ledger::ceremonies::CeremonyRecorded;
use crate::domain::ledger::entry::{Actor, Event, KeyCopied, Reason};
use crate::recorder::{CannotRecord, Recorder};

/// What was done.
#[derive(Clone, Debug)]
pub enum Record {
    /// A key was found on a further token.
    Copied(KeyCopied),
    /// Key Custodians were given shares.
    Dealt {
        /// What the shares open.
        file: CustodyFile,
        /// The signature by the secret of the generation before.
        former: Option<Box<str>>,
    },
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
            Self::Dealt { file, former } => intake::may_deal(fold, &file.dealt_after(former.clone()), at),
            Self::Held { recorded, plan: _, transcript } => intake::may_record(fold, recorded, transcript, at),
        }
    }

    /// Queues the entry, and the documents that it names. It must have been judged in the same ask. Answers the entry's index.
    pub fn queue(self, recorder: &mut Recorder, by: &Actor) -> Result<u64, CannotRecord> {
        let event = match self {
            Self::Copied(copied) => Event::KeyCopied(copied),
            Self::Dealt { file, former } => Event::SharesDealt(file.dealt_after(former)),
            Self::Held { recorded, plan, transcript } => {
                recorder.queue_blob(plan);
                recorder.queue_blob(transcript);
                Event::CeremonyRecorded(recorded)
            }
        };
        recorder.queue(by, event)
    }
}
