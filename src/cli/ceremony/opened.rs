//! What the steps after `begin` have in common: a ledger that stands, opened for one of them; or the daemon that has it, for those steps
//! that go beside it.

use super::deal::{DealError, People};
use super::room::{self, Room};
use super::{CeremonyError, Custodians, Tokens};
use crate::api::client::{Client, ClientError};
use crate::api::failure::ProblemKind;
use crate::api::wire;
use crate::cli::CliError;
use crate::custody::file::CustodyFile;
use crate::domain::fold::Fold;
use crate::domain::ledger::entry::{ClockState, Event, KeyRecord, Outcome, Reason, SignResult, TokenFound};
use crate::domain::names::{KeyLabel, KeyUse, TokenName};
use crate::domain::policy::facts::KeyFacts;
use crate::hsm::{Expectations, Token, TokenReport};
use crate::recorder::{CannotRecord, Recorder, record_alone};
use crate::service::ceremony::Record;
use crate::service::clock::{Before, Now};
use crate::service::configuration::Configuration;
use crate::service::start::{self, StartFault};
use crate::state;
use crate::store::sqlite::{SqliteReader, SqliteStore};
use crate::store::{Reader as _, StoreError};
use secrecy::SecretString;
use tokio::runtime::Runtime;

/// A ledger that stands, opened for one step of the ceremony: locked meanwhile, or had by the daemon that runs ([`Ledger`]).
pub struct Opened<L = Recorder> {
    /// Configuration, PINs, tokens.
    pub room: Room,
    /// The ledger.
    pub ledger: L,
    /// The key that the step is about.
    pub key: KeyRecord,
    custodians: Custodians,
}

/// Who writes to the ledger meanwhile.
pub enum Ledger {
    /// This program, which has it to itself; no daemon runs.
    Ours(Box<Recorder>),
    /// The daemon that runs.
    Daemons(Box<Beside>),
}

/// A running daemon, and what its ledger amounted to when it was read.
pub struct Beside {
    client: Client,
    runtime: Runtime,
    fold: Fold,
}

/// What both ways have.
pub trait Stands {
    /// What the ledger amounts to.
    fn fold(&self) -> &Fold;
}

impl Stands for Recorder {
    fn fold(&self) -> &Fold {
        Self::fold(self)
    }
}

impl Stands for Ledger {
    fn fold(&self) -> &Fold {
        match self {
            Self::Ours(recorder) => recorder.fold(),
            Self::Daemons(beside) => &beside.fold,
        }
    }
}

impl Beside {
    /// Asks for the daemon of this configuration, where its ledger is locked; none if nobody answers.
    fn find(configuration: &Configuration) -> Result<Option<Self>, CeremonyError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = Client::new(&configuration.socket);
        let status: wire::Status = match runtime.block_on(client.get("/v1/status")) {
            Ok(status) => status,
            Err(ClientError::Unreachable { .. }) => return Ok(None),
            Err(error) => return Err(CliError::from(error).into()),
        };
        let reader = SqliteReader::open(&configuration.state)?;
        let fold = state::read_beside(&reader).map_err(StartFault::from)?;
        let ours = fold.genesis().map(|(_, leaf_hash)| leaf_hash);
        if ours != Some(status.genesis) {
            let why = format!(
                "the daemon at {} has another ledger, of genesis {}, than {}: correct `socket` or `state` of the configuration",
                configuration.socket.display(),
                status.genesis,
                configuration.state.display()
            );
            return Err(CliError::Unfit(why).into());
        }
        Ok(Some(Self { client, runtime, fold }))
    }

    fn is_active(&self, key: &KeyLabel) -> Result<bool, CeremonyError> {
        let status = self.runtime.block_on(self.client.get::<wire::Status>("/v1/status")).map_err(CliError::from)?;
        Ok(status.keys.iter().any(|state| state.key == *key && state.active))
    }

    fn record(&self, record: Record) -> Result<u64, CeremonyError> {
        let sent = match record {
            Record::Copied(copied) => wire::CeremonyRecord::KeyCopied { copied },
            Record::Begun { file, begun } => {
                wire::CeremonyRecord::SharesBegun { begun: *begun, custody_file: wire::Base64(file.octets()) }
            }
            Record::Dealt(key) => wire::CeremonyRecord::SharesDealt { key },
            Record::Held { recorded, plan, transcript } => wire::CeremonyRecord::CeremonyRecorded {
                recorded,
                plan: wire::Base64(plan),
                transcript: wire::Base64(transcript),
            },
        };
        let recorded = self.runtime.block_on(self.client.post::<_, wire::Recorded>("/v1/ceremony/records", &sent));
        match recorded {
            Ok(recorded) => Ok(recorded.entry),
            Err(ClientError::Problem(problem)) if problem.error == ProblemKind::Refused => {
                Err(CeremonyError::Refused(problem.reasons))
            }
            Err(error) => Err(CliError::from(error).into()),
        }
    }
}

impl Ledger {
    /// The ledger of a configuration: locked, or had by the daemon that runs on it.
    fn find(configuration: &Configuration) -> Result<LedgerFound, CeremonyError> {
        match start::open_ledger(configuration) {
            Ok((store, fold)) => Ok(LedgerFound::Locked(Box::new((store, fold)))),
            Err(StartFault::Store(locked @ StoreError::Locked { .. })) => match Beside::find(configuration)? {
                Some(beside) => Ok(LedgerFound::Daemons(Box::new(beside))),
                None => Err(locked.into()),
            },
            Err(fault) => Err(fault.into()),
        }
    }

    /// Whether the daemon that runs has the key open. Nobody has where none runs.
    pub fn is_active(&self, key: &KeyLabel) -> Result<bool, CeremonyError> {
        match self {
            Self::Ours(_) => Ok(false),
            Self::Daemons(beside) => beside.is_active(key),
        }
    }

    /// Whether a daemon runs.
    pub const fn is_daemons(&self) -> bool {
        matches!(self, Self::Daemons(_))
    }

    /// Records what was done, judged at the moment of the entry as the audit will. Answers the entry's index.
    pub fn record(&mut self, record: Record) -> Result<u64, CeremonyError> {
        let recorder = match self {
            Self::Daemons(beside) => return beside.record(record),
            Self::Ours(recorder) => recorder,
        };
        let outcome = record_alone(recorder, |recorder| match record.judge(recorder) {
            Ok(()) => {
                let by = recorder.known(room::conductor());
                record.queue(recorder, &by).map(Ok)
            }
            Err(reasons) => Ok(Err(reasons)),
        })?;
        outcome.into_inner().map_err(CeremonyError::Refused)
    }
}

/// A ledger that was found, before it is gone on with.
enum LedgerFound {
    /// Nobody else has it.
    Locked(Box<(SqliteStore, Fold)>),
    /// A daemon has.
    Daemons(Box<Beside>),
}

impl Stands for LedgerFound {
    fn fold(&self) -> &Fold {
        match self {
            Self::Locked(found) => &found.1,
            Self::Daemons(beside) => &beside.fold,
        }
    }
}

impl Opened<Recorder> {
    /// Opens it. The ledger must have the key, and no daemon may run.
    pub fn open(tokens: &Tokens, key: &KeyLabel) -> Result<Self, CeremonyError> {
        let configuration = Configuration::read(&tokens.config)?;
        let (store, fold) = start::open_ledger(&configuration)?;
        let (room, key) = enter(tokens, configuration, &fold, key)?;
        let ledger = recorder(&room, store, fold)?;
        Ok(Self { room, ledger, key, custodians: tokens.custodians.clone() })
    }

    /// Opens it for what is about no key, or several: its own stands for it.
    pub fn ledger(tokens: &Tokens) -> Result<Self, CeremonyError> {
        let configuration = Configuration::read(&tokens.config)?;
        let (_, fold) = start::open_ledger(&configuration)?;
        let label = start::ledger_key(&fold)?.label.clone();
        Self::open(tokens, &label)
    }

    /// Starts the ledger token, whose head must be a prefix of this ledger, and closes what a run before left open.
    pub fn log_in(&mut self) -> Result<Token, CeremonyError> {
        let uses = self.uses(&self.room.configuration.ledger.token);
        log_in(&self.room, &mut self.ledger, &uses)
    }

    /// Keeps the head on the ledger token, once all is recorded.
    pub fn keep_head(&self, ledger_token: &Token) -> Result<(), CeremonyError> {
        keep_head(&self.ledger, ledger_token)
    }
}

impl Opened<Ledger> {
    /// Opens it, or stands beside the daemon that runs on it. The ledger must have the key.
    pub fn beside(tokens: &Tokens, key: &KeyLabel) -> Result<Self, CeremonyError> {
        let configuration = Configuration::read(&tokens.config)?;
        let found = Ledger::find(&configuration)?;
        Self::of(tokens, configuration, found, key)
    }

    /// The same for what is about no key: the ledger's own stands for it.
    pub fn any(tokens: &Tokens) -> Result<Self, CeremonyError> {
        let configuration = Configuration::read(&tokens.config)?;
        let found = Ledger::find(&configuration)?;
        let label = start::ledger_key(found.fold())?.label.clone();
        Self::of(tokens, configuration, found, &label)
    }

    fn of(
        tokens: &Tokens,
        configuration: Configuration,
        found: LedgerFound,
        key: &KeyLabel,
    ) -> Result<Self, CeremonyError> {
        let (room, key) = enter(tokens, configuration, found.fold(), key)?;
        let ledger = match found {
            LedgerFound::Daemons(beside) => Ledger::Daemons(beside),
            LedgerFound::Locked(found) => {
                let (store, fold) = *found;
                Ledger::Ours(Box::new(recorder(&room, store, fold)?))
            }
        };
        Ok(Self { room, ledger, key, custodians: tokens.custodians.clone() })
    }

    /// Starts the ledger token, where no daemon has it.
    pub fn log_in(&mut self) -> Result<Option<Token>, CeremonyError> {
        let uses = self.uses(&self.room.configuration.ledger.token);
        match &mut self.ledger {
            Ledger::Ours(recorder) => log_in(&self.room, recorder, &uses).map(Some),
            Ledger::Daemons(_) => Ok(None),
        }
    }

    /// Keeps the head on the ledger token, where no daemon does.
    pub fn keep_head(&self, ledger_token: Option<&Token>) -> Result<(), CeremonyError> {
        match (&self.ledger, ledger_token) {
            (Ledger::Ours(recorder), Some(token)) => keep_head(recorder, token),
            (Ledger::Ours(_) | Ledger::Daemons(_), _) => Ok(()),
        }
    }
}

impl<L: Stands> Opened<L> {
    /// What the ledger amounts to.
    pub fn fold(&self) -> &Fold {
        self.ledger.fold()
    }

    /// What the keys on a token are for, clones among them.
    pub fn uses(&self, token: &TokenName) -> Vec<KeyUse> {
        let keys = self.fold().keys().values();
        keys.filter(|key| key.serial_on(token).is_some()).map(|key| key.record.use_).collect()
    }

    /// Starts a token: with the PIN that the custodians' shares open, where they were dealt for it; else as any at a ceremony.
    pub fn start(
        &self,
        token: &TokenName,
        holds: &[KeyUse],
        expectations: Expectations,
    ) -> Result<(Token, TokenReport), CeremonyError> {
        let config = self.room.token_config(token)?;
        Ok(start::start_token(config, self.pin(token, holds)?, expectations)?)
    }

    /// The PIN of a token: what the custodians' shares open, where they were dealt for it; else as any at a ceremony.
    pub fn pin(&self, token: &TokenName, holds: &[KeyUse]) -> Result<SecretString, CeremonyError> {
        match self.sealed_pin(token)? {
            Some(pin) => Ok(pin),
            None => self.room.pin(token, holds),
        }
    }

    fn sealed_pin(&self, token: &TokenName) -> Result<Option<SecretString>, CeremonyError> {
        let fold = self.fold();
        let is_dealing = |facts: &&KeyFacts| {
            facts.dealing.as_ref().is_some_and(|begun| begun.tokens.iter().any(|found| found.token == *token))
        };
        if let Some(facts) = fold.keys().values().find(is_dealing) {
            let key = facts.record.label.clone();
            let why = format!(
                "a deal of its shares was begun and is not at its end, so the PIN of token {token} may be either: finish it first (smkictl \
                 ceremony deal --key {key} --share …)"
            );
            return Err(CeremonyError::Key { key, why });
        }
        let mut on_it =
            fold.keys().values().filter_map(|facts| Some((facts.serial_on(token)?, facts.shares.as_ref()?)));
        let of_token = |found: &TokenFound| found.token == *token;
        let Some((serial, dealt)) = on_it.find(|(_, dealt)| dealt.tokens.iter().any(of_token)) else { return Ok(None) };
        let file = CustodyFile::read(&self.room.configuration.state, dealt).map_err(DealError::from)?;
        let brought = People::gather(&self.custodians, &[], fold.purpose())?.open_shares(&[&file])?;
        brought.check(fold, dealt)?;
        let sealed = file.token(token, serial).map_err(DealError::from)?;
        Ok(Some(file.pin(&brought.secret(&file)?, sealed).map_err(DealError::from)?))
    }
}

/// What the ledger of a configuration amounts to, whether a daemon runs on it or not; none if there is none.
pub fn read(configuration: &Configuration) -> Result<Option<Fold>, CeremonyError> {
    if !SqliteStore::exists(&configuration.state) {
        return Ok(None);
    }
    let reader = SqliteReader::open(&configuration.state)?;
    Ok(Some(state::read_beside(&reader).map_err(StartFault::from)?))
}

/// The room, and the key that the ledger must have.
fn enter(
    tokens: &Tokens,
    configuration: Configuration,
    fold: &Fold,
    key: &KeyLabel,
) -> Result<(Room, KeyRecord), CeremonyError> {
    let purpose = fold.purpose().ok_or(StartFault::NoLedgerKey)?;
    let room = Room::enter(tokens, configuration, purpose)?;
    let Some(facts) = fold.keys().get(key) else {
        let known: Vec<&str> = fold.keys().keys().map(KeyLabel::as_str).collect();
        let why = format!("the ledger has no key of that label; it has {}", known.join(", "));
        return Err(CeremonyError::Key { key: key.clone(), why });
    };
    Ok((room, facts.record.clone()))
}

fn recorder(room: &Room, store: SqliteStore, fold: Fold) -> Result<Recorder, CeremonyError> {
    let covered = store.latest_checkpoint()?.map_or(0, |checkpoint| checkpoint.head.size);
    let clock = room.clock(Before::of(&fold, covered));
    check_clock(clock.now())?;
    Ok(Recorder::new(Box::new(store), fold, clock.read_by()).map_err(CannotRecord::from)?)
}

fn log_in(room: &Room, recorder: &mut Recorder, uses: &[KeyUse]) -> Result<Token, CeremonyError> {
    let name = room.configuration.ledger.token.clone();
    let pin = room.pin(&name, uses)?;
    let reader = recorder.store().reader().map_err(StartFault::from)?;
    let signer = start::ledger_signer(&room.configuration, recorder.fold(), &*reader, Some(room.worker()), pin)?;
    let token = signer.token().clone();
    recorder.set_signer(Box::new(signer));
    let open: Vec<u64> = recorder.fold().open_certifications().keys().copied().collect();
    if !open.is_empty() {
        record_alone(recorder, |recorder| {
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

fn keep_head(recorder: &Recorder, ledger_token: &Token) -> Result<(), CeremonyError> {
    let origin = recorder.fold().origin().ok_or(StartFault::NoLedgerKey)?;
    Ok(start::write_head_object(ledger_token, origin, recorder.durable())?)
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
