//! What the steps after `begin` have in common: a ledger that stands, opened for one of them.

use super::room::{self, Room};
use super::{CeremonyError, Tokens};
use crate::domain::ledger::entry::{ClockState, Event, KeyRecord, Outcome, Reason, SignResult};
use crate::domain::names::{KeyLabel, KeyUse, TokenName};
use crate::hsm::Token;
use crate::recorder::{CannotRecord, Recorder, record_alone};
use crate::service::clock::{Before, Now};
use crate::service::configuration::Configuration;
use crate::service::start::{self, StartFault};
use crate::store::Reader as _;

/// A ledger that stands, opened for one step of the ceremony. Locked meanwhile.
pub struct Opened {
    /// Configuration, PINs, tokens.
    pub room: Room,
    /// The ledger.
    pub recorder: Recorder,
    /// The key that the step is about.
    pub key: KeyRecord,
}

impl Opened {
    /// Opens it. The ledger must have the key.
    pub fn open(tokens: &Tokens, key: &KeyLabel) -> Result<Self, CeremonyError> {
        let configuration = Configuration::read(&tokens.config)?;
        let (store, fold) = start::open_ledger(&configuration)?;
        let purpose = fold.purpose().ok_or(StartFault::NoLedgerKey)?;
        let room = Room::enter(tokens, configuration, purpose)?;
        let Some(facts) = fold.keys().get(key) else {
            let known: Vec<&str> = fold.keys().keys().map(KeyLabel::as_str).collect();
            let why = format!("the ledger has no key of that label; it has {}", known.join(", "));
            return Err(CeremonyError::Key { key: key.clone(), why });
        };
        let key = facts.record.clone();
        let covered = store.latest_checkpoint()?.map_or(0, |checkpoint| checkpoint.head.size);
        let clock = room.clock(Before::of(&fold, covered));
        check_clock(clock.now())?;
        let recorder = Recorder::new(Box::new(store), fold, clock.read_by()).map_err(CannotRecord::from)?;
        Ok(Self { room, recorder, key })
    }

    /// What the keys on a token are for, clones among them.
    pub fn uses(&self, token: &TokenName) -> Vec<KeyUse> {
        let keys = self.recorder.fold().keys().values();
        keys.filter(|key| key.serial_on(token).is_some()).map(|key| key.record.use_).collect()
    }

    /// Starts the ledger token, whose head must be a prefix of this ledger, and closes what a run before left open.
    pub fn log_in(&mut self) -> Result<Token, CeremonyError> {
        let name = self.room.configuration.ledger.token.clone();
        let pin = self.room.pin(&name, &self.uses(&name))?;
        let worker = Some(self.room.worker());
        let signer = start::ledger_signer(
            &self.room.configuration,
            self.recorder.fold(),
            &*self.recorder.store().reader().map_err(StartFault::from)?,
            worker,
            pin,
        )?;
        let token = signer.token().clone();
        self.recorder.set_signer(Box::new(signer));
        let open: Vec<u64> = self.recorder.fold().open_certifications().keys().copied().collect();
        if !open.is_empty() {
            record_alone(&mut self.recorder, |recorder| {
                let by = recorder.known(room::conductor());
                let result = SignResult::Unknown("the ceremony was cut off; no request came of it".into());
                for intent in open {
                    recorder.queue(&by, Event::Outcome(Outcome { intent, result: result.clone() }))?;
                }
                Ok(())
            })?
            .into_inner();
        }
        Ok(token)
    }

    /// Keeps the head on the ledger token, once all is recorded.
    pub fn keep_head(&self, ledger_token: &Token) -> Result<(), CeremonyError> {
        let origin = self.recorder.fold().origin().ok_or(StartFault::NoLedgerKey)?;
        Ok(start::write_head_object(ledger_token, origin, self.recorder.durable())?)
    }
}

/// What a clock that nobody vouches for says is not to get into the ledger, which never goes back in time.
fn check_clock(now: Now) -> Result<(), CeremonyError> {
    let Now { at, wall, state: ClockState::Untrusted, .. } = now else { return Ok(()) };
    let text = format!(
        "this machine's clock says {wall}, and the ledger's last entry is of {at}: it stands before it, or more than a day after it, \
         or nobody has accepted it since it jumped. Start smkid, compare the clock with another one, `smkictl clock accept`, stop smkid, \
         and run this again within a day"
    );
    Err(CeremonyError::Refused(vec![Reason { rule: "clock".into(), text: text.into() }]))
}
