//! Unknowns that are left as they are, and which there are.

use super::{About, NotAccepted, Told, ToldOutcome, facts, reason, told_of};
use crate::domain::fold::Book as _;
use crate::domain::ledger::entry::{Actor, Event, Reason, Settled};
use crate::domain::names::{DeterminationId, DeviceId, Digest, KeyLabel, RequestId};
use crate::domain::policy::facts::{DeviceFacts, IntentState};
use crate::domain::policy::rules::{self, Refusal};
use crate::recorder::{CannotRecord, Recorder};
use crate::store::{DerivedState, StoreError};

/// Asks that the unknowns of a determination are left as they are.
#[derive(Clone, Debug)]
pub struct Leave {
    /// Who asks.
    pub by: Actor,
    /// How whoever asks calls it.
    pub id: RequestId,
    /// SHA-256 of what is asked.
    pub asked: Digest,
    /// Under which determination.
    pub determination: DeterminationId,
    /// For which Devices; all whose outcome is unknown, if none are named.
    pub devices: Option<Vec<DeviceId>>,
    /// Why.
    pub why: String,
}

/// What [`leave`] did.
#[derive(Debug)]
pub struct LeftUnknowns {
    /// What became of each Device.
    pub told: Vec<Told>,
    /// Whether there are more unknowns than one request leaves.
    pub more: bool,
}

/// Leaves the unknowns of a determination as they are: for these Devices, or for all. None if the determination is not recorded.
///
/// It signs nothing, so the determination need not be in force; whoever asks must be whom a signature could be asked by.
pub fn leave(recorder: &mut Recorder, leave: Leave) -> Result<Option<Result<LeftUnknowns, NotAccepted>>, CannotRecord> {
    let Leave { by, id, asked, determination, devices, why } = leave;
    let by = recorder.known(by);
    let about = About { operation: SETTLE, request: id, determination, asked };
    let Some(known) = recorder.fold().determinations().get(&determination) else { return Ok(None) };
    let key = known.key.as_ref().map(|(key, _)| key.clone());
    let reasons: Vec<Reason> = match facts(recorder, &by, determination).map(|facts| rules::decide_asker(&facts)) {
        Some(Ok(())) => Vec::new(),
        Some(Err(refusals)) => refusals.iter().map(Refusal::reason).collect(),
        None => vec![reason("policy", "no policy is in force yet")],
    };
    if !reasons.is_empty() {
        let entry = about.refuse(recorder, &by, None, reasons.clone())?;
        return Ok(Some(Err((reasons, entry))));
    }
    let (devices, more) = match (devices, &key) {
        (Some(devices), _) => (devices, false),
        (None, Some(key)) => {
            let (found, more) = unknowns_of(recorder.store(), key, determination, UNKNOWNS_MAX)?;
            (found.into_iter().map(|(device, _)| device).collect(), more)
        }
        // One that is not to execute opens no key, so nothing under it can be unknown.
        (None, None) => (Vec::new(), false),
    };
    let mut told = Vec::with_capacity(devices.len());
    for device in devices {
        let last = match &key {
            Some(key) => recorder.device(key, device)?.filter(|last| last.determination == determination),
            None => None,
        };
        told.push(match (last, &key) {
            (Some(last), Some(key)) if matches!(last.state, IntentState::Unknown | IntentState::Left) => {
                // A request that is made again is told what was left before.
                if last.state == IntentState::Unknown {
                    let (key, reason) = (key.clone(), why.as_str().into());
                    let entry = Settled { intent: last.intent, determination, key, device, reason };
                    recorder.queue(&by, Event::Settled(entry))?;
                }
                Told {
                    device,
                    template: Some(last.template),
                    counter: Some(last.counter),
                    intent: Some(last.intent),
                    outcome: ToldOutcome::Left,
                }
            }
            (Some(_) | None, _) => {
                let reasons = vec![Refusal::NothingUnknown { device }.reason()];
                about.refuse(recorder, &by, Some(device), reasons.clone())?;
                told_of(device, None, ToldOutcome::Refused(reasons))
            }
        });
    }
    Ok(Some(Ok(LeftUnknowns { told, more })))
}

/// The route that settles unknowns, as refusals name it.
pub const SETTLE: &str = "recovery-settle";

/// Unknowns that one request leaves as they are, or one listing answers, at most: a worker that dies leaves some hundred.
pub const UNKNOWNS_MAX: usize = 10_000;

/// Rows that are read at a time while unknowns are looked for.
pub(super) const UNKNOWNS_READ_MAX: usize = 1_000;

/// The Devices under a determination whose outcome is unknown, in the order of their ids, at most `most`; and whether there are
/// more. A key may have unknowns of other determinations: they take no room.
pub fn unknowns_of<S: DerivedState + ?Sized>(
    store: &S,
    key: &KeyLabel,
    determination: DeterminationId,
    most: usize,
) -> Result<(Vec<(DeviceId, DeviceFacts)>, bool), StoreError> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.devices_in(key, IntentState::Unknown, after, UNKNOWNS_READ_MAX)?;
        let Some((last, _)) = page.last() else { return Ok((found, false)) };
        after = Some(*last);
        found.extend(page.into_iter().filter(|(_, facts)| facts.determination == determination));
        if found.len() > most {
            found.truncate(most);
            return Ok((found, true));
        }
    }
}
