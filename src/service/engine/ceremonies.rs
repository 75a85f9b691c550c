//! Shell: what a ceremony does beside the running daemon: recorded here, by the daemon that has the ledger, for whoever could do it with the
//! daemon stopped.

use std::sync::Arc;

use super::super::ceremony::Record;
use super::super::keys::Keys;
use super::{Answer, Daemon, make, reason, refused};
use crate::api::engine::Caller;
use crate::api::failure::Failure;
use crate::api::wire;
use crate::custody::file::CustodyFile;
use crate::domain::ledger::entry::{Actor, Reason, Role};
use crate::domain::names::{Digest, KeyLabel};
use crate::recorder::Recorder;

/// The route, as refusals name it.
const OPERATION: &str = "ceremony-record";

impl Daemon {
    /// Judges what a ceremony did with the state of now, and records it; or refuses it, and records that.
    pub(super) async fn record_ceremony(&self, caller: &Caller, sent: wire::CeremonyRecord) -> Answer<wire::Recorded> {
        let actor = Actor { role: Role::Ceremony, ..caller.actor() };
        let octets = serde_json::to_vec(&sent).map_err(|error| Failure::Internal { what: error.to_string() })?;
        let (asked, record) = (Digest::of(&octets), read(sent)?);
        let dealt_for = match &record {
            Record::Begun { file, .. } => Some(file.key.clone()),
            Record::Dealt(key) => Some(key.clone()),
            Record::Copied(_) | Record::Held { .. } => None,
        };
        let (keys, state) = (Arc::clone(&self.keys), self.state.clone());
        let recorded = self.change(move |recorder| {
            let by = recorder.known(actor);
            let judged = record.judge(recorder).and_then(|()| match &record {
                Record::Begun { file, .. } => is_locked(recorder, &keys, &file.key),
                Record::Dealt(_) | Record::Copied(_) | Record::Held { .. } => Ok(()),
            });
            if let Err(reasons) = judged {
                return refused(recorder, &by, OPERATION, asked, (None, None), reasons);
            }
            // It is there before the ledger names it.
            if let Record::Begun { file, .. } = &record
                && let Err(fault) = file.write_once(&state)
            {
                let remedy = "Mend that, then run the same command again: it goes on where it was".into();
                return Ok(Err(Failure::Unavailable { why: fault.to_string(), remedy }));
            }
            let entry = record.queue(recorder, &by)?;
            if let Some(key) = &dealt_for {
                // It is locked, and activated no more until all is dealt; this ends the vault of the generation before, and what is being
                // activated meanwhile comes to nothing.
                let _ = keys.remove(key);
            }
            Ok(Ok(wire::Recorded { entry }))
        });
        let recorded = recorded.await?;
        make::keep_head(&self.desk, &self.keys).await;
        Ok(recorded)
    }
}

fn read(sent: wire::CeremonyRecord) -> Answer<Record> {
    Ok(match sent {
        wire::CeremonyRecord::KeyCopied { copied } => Record::Copied(copied),
        wire::CeremonyRecord::SharesBegun { begun, custody_file } => {
            let file = CustodyFile::from_octets(&custody_file.0).map_err(|found| {
                let remedy = "Check that smkictl and smkid have the same version.";
                Failure::malformed("body: custody_file", "a custody file", &found, remedy)
            })?;
            if !file.is_of(&begun) {
                let found = format!("one with SHA-256 {}", file.digest());
                let expected = format!("the custody file with SHA-256 {}, of what `begun` says", begun.sealed);
                return Err(Failure::malformed(
                    "body: custody_file",
                    &expected,
                    &found,
                    "Send the file that it names.",
                ));
            }
            Record::Begun { file, begun: Box::new(begun) }
        }
        wire::CeremonyRecord::SharesDealt { key } => Record::Dealt(key),
        wire::CeremonyRecord::CeremonyRecorded { recorded, plan, transcript } => {
            let (plan, transcript) = (plan.0, transcript.0);
            let (of_plan, of_transcript) = (Digest::of(&plan), Digest::of(&transcript));
            if (of_plan, of_transcript) != (recorded.plan, recorded.transcript) {
                return Err(Failure::malformed(
                    "body: recorded",
                    &format!("the SHA-256 of plan and transcript, {of_plan} and {of_transcript}"),
                    &format!("{} and {}", recorded.plan, recorded.transcript),
                    "Send the octets that it names.",
                ));
            }
            Record::Held { recorded, plan, transcript }
        }
    })
}

/// The PINs of a key's tokens are about to be changed, so nobody may be logged in with the old ones: their workers would not come back.
fn is_locked(recorder: &Recorder, keys: &Keys, key: &KeyLabel) -> Result<(), Vec<Reason>> {
    let at = recorder.moment().at;
    let is_active = recorder.fold().keys().get(key).is_some_and(|facts| facts.is_active(at));
    if is_active || keys.active(key).is_some() {
        let text =
            format!("key {key} is active, with the PINs that are to be changed; lock it first: smkictl key lock {key}");
        return Err(vec![reason("deal-active", text)]);
    }
    Ok(())
}
