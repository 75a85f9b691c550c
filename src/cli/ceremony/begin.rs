//! `ceremony adoption` and `ceremony begin`: the ledger and its first policy.
//!
//! The ledger is made in a folder of its own and moved to its place at once, with genesis, the first policy and a checkpoint in
//! it. So there is either no ledger, or one that this command can complete: genesis on the tokens, the head on the ledger token
//! last of all, then the files for outsiders.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use serde::Serialize;

use super::keys::{KeysFile, MadeKey, holdings};
use super::room::{self, Room};
use super::{Adoption, Begin, CeremonyError, contingency};
use crate::cli::input;
use crate::cli::print::Printer;
use crate::cli::release::write_new;
use crate::domain::certificates::pem;
use crate::domain::determination::document::{Type, Written};
use crate::domain::determination::words::Words;
use crate::domain::fold::{Blobs, BookError, Fold};
use crate::domain::intake::{self, Context, Head, Heads, Submission};
use crate::domain::ledger::entry::{Entry, Event, Genesis, PolicyAdopted, Reason, VERSION};
use crate::domain::ledger::note::Verifier;
use crate::domain::names::{Digest, KeyUse, RequestId, TokenName};
use crate::domain::policy::adoption::Adoption as Document;
use crate::domain::policy::{Files, Policy};
use crate::hsm::{Expectations, Token, TokenReport};
use crate::recorder::{CannotRecord, Moment, Recorder, record_alone};
use crate::service::checkpoint::TokenSigner;
use crate::service::clock::Now;
use crate::service::configuration::Configuration;
use crate::service::start::{self, StartFault};
use crate::store::sqlite::SqliteStore;
use crate::store::{Lock, Reader as _, StoreError};

/// Where the ledger is made, within the state directory: on the same disk. What lies there was never in force.
const WORKSHOP: &str = "ceremony-unfinished";

impl Adoption {
    /// The document, written.
    pub(super) fn write(&self) -> Result<Written<Document>, CeremonyError> {
        let (policy, _) = room::read_policy(&self.policy)?;
        let form = Document {
            r#type: Type::default(),
            purpose: policy.purpose(),
            origin: policy.origin().clone(),
            sequence: 1,
            policy: policy.digest(),
            predecessor: None,
            ledger: None,
            carries_over: Vec::new(),
        };
        let written =
            Written::write(&form).map_err(|faults| CeremonyError::Document { path: self.out.clone(), faults })?;
        if !self.change.dry_run {
            write_new(&self.out, written.octets())?;
        }
        Ok(written)
    }

    pub(super) fn run(self, print: Printer) -> Result<(), CeremonyError> {
        let written = self.write()?;
        let form = written.form();
        print.answer(form, |text| {
            text.row("document", self.out.display())
                .row("SHA-256", written.digest())
                .line(&Words(written.digest()).to_string())
                .row("policy", form.policy)
                .row("purpose", form.purpose)
                .row("ledger", &form.origin);
        })?;
        if self.change.dry_run {
            print.note("Nothing was written.");
        } else {
            print.note("Next: everyone on the policy's roster signs it (`smkictl determination sign`); then `smkictl ceremony begin`.");
        }
        Ok(())
    }
}

/// What the ledger begins with.
struct Beginning {
    policy: Policy,
    files: Files,
    keys: KeysFile,
    document: Written<Document>,
    signatures: Vec<Vec<u8>>,
}

/// What is at hand before any token is asked.
struct Gathered {
    room: Room,
    holdings: BTreeMap<TokenName, Vec<KeyUse>>,
    beginning: Beginning,
}

/// What `begin` answers.
#[derive(Serialize)]
pub(super) struct Begun {
    /// The leaf hash of genesis.
    pub genesis: Digest,
    words: String,
    policy: Digest,
    /// Entries.
    pub size: u64,
    root: Digest,
    vkey: String,
    /// What this run did, in order; nothing if nothing was missing.
    pub done: Vec<String>,
}

impl Begin {
    pub(super) fn run(self, print: Printer) -> Result<(), CeremonyError> {
        let Some(answer) = self.perform(print)? else { return Ok(()) };
        if answer.done.is_empty() {
            let state = Configuration::read(&self.tokens.config)?.state;
            let why = "nothing is missing, and nothing was done".to_owned();
            return Err(CeremonyError::Begun { state, genesis: answer.genesis, why });
        }
        print.answer(&answer, |text| {
            text.row("genesis", answer.genesis)
                .line(&answer.words)
                .row("policy", answer.policy)
                .row("entries", answer.size)
                .row("root", answer.root)
                .row("key", &answer.vkey);
            for done in &answer.done {
                text.row("done", done);
            }
        })?;
        print.note(&format!(
            "Next: read the genesis words aloud and hand out what lies in {}; then `smkictl ceremony request`.",
            self.out.display()
        ));
        let (policy, _) = room::read_policy(&self.policy)?;
        for key in policy.keys().filter(|key| contingency::is_wanted(key)) {
            print.note(&format!(
                "Key {} is to sign: `smkictl ceremony contingency --key {} --out {}` makes its Contingency Symmetric Key, and the field for the \
                 Root OCA Certificate.",
                key.label,
                key.label,
                self.out.display()
            ));
        }
        Ok(())
    }

    /// Whether policy, keys and signatures are as they must be. No token is asked, nothing is written.
    pub(super) fn check(&self) -> Result<(), CeremonyError> {
        let Gathered { room, holdings: _, beginning } = self.gather()?;
        beginning.decide_beforehand(&room)
    }

    fn gather(&self) -> Result<Gathered, CeremonyError> {
        let (policy, files) = room::read_policy(&self.policy)?;
        let configuration = Configuration::read(&self.tokens.config)?;
        start::check_ledger_token(&configuration, &policy.ledger_key().token)?;
        let room = Room::enter(&self.tokens, configuration, policy.purpose())?;
        let holdings = holdings(&policy);
        room.check_tokens(holdings.iter().map(|(token, uses)| (token, uses.as_slice())))?;
        let keys = KeysFile::read(&self.out, &policy, &room.configuration)?;
        keys.complete(&self.out, &policy)?;
        let octets = input::file(&self.adoption, input::DOCUMENT_LEN_MAX)?;
        let document = Written::<Document>::read(octets)
            .map_err(|faults| CeremonyError::Document { path: self.adoption.clone(), faults })?;
        let signatures = self.signatures.iter().map(|path| input::file(path, input::DOCUMENT_LEN_MAX));
        let signatures = signatures.collect::<Result<_, _>>()?;
        Ok(Gathered { room, holdings, beginning: Beginning { policy, files, keys, document, signatures } })
    }

    /// Begins the ledger, or completes one that was begun so. Nothing in a dry run, which tells what would begin.
    pub(super) fn perform(&self, print: Printer) -> Result<Option<Begun>, CeremonyError> {
        let Gathered { room, holdings, beginning } = self.gather()?;
        let state = room.configuration.state.clone();
        let stands = SqliteStore::exists(&state);
        if stands {
            let (store, fold) = start::open_ledger(&room.configuration)?;
            beginning.check_same(&state, &store, &fold)?;
            print.note("The ledger stands already, with this policy and these keys; what is missing is completed.");
        } else {
            beginning.decide_beforehand(&room)?;
        }
        if self.change.dry_run {
            let genesis = &beginning.genesis()?;
            print.answer(genesis, |text| {
                text.row("ledger", &genesis.origin).row("purpose", genesis.purpose).row("policy", genesis.policy);
                for key in &genesis.keys {
                    text.row("key", format!("{} ({}) on token {}", key.label, key.use_, key.token));
                }
            })?;
            print.note("Policy and signatures are as they must be. Nothing was recorded; no token was asked.");
            return Ok(None);
        }

        let mut tokens = BTreeMap::new();
        for (name, uses) in &holdings {
            let (token, report) = room.start(name, uses, beginning.expectations(name))?;
            if let (false, Some(found)) = (stands, report.genesis) {
                return Err(CeremonyError::TokenTaken { token: name.clone(), found });
            }
            tokens.insert(name.clone(), (token, report));
        }
        let mut done = Vec::new();
        if !stands {
            beginning.make(&room, &tokens)?;
            done.push("the ledger: genesis, the first policy, a checkpoint".to_owned());
            print.note("The ledger stands.");
        }
        let (store, fold) = start::open_ledger(&room.configuration)?;
        beginning.check_same(&state, &store, &fold)?;
        Ok(Some(self.complete(&beginning, &store, &fold, &tokens, done)?))
    }

    /// Does what is still missing once the ledger stands. Each step is done or not; the head on the ledger token comes last of
    /// what tokens are told, so the daemon starts on nothing half done.
    fn complete(
        &self,
        beginning: &Beginning,
        store: &SqliteStore,
        fold: &Fold,
        tokens: &BTreeMap<TokenName, (Token, TokenReport)>,
        mut done: Vec<String>,
    ) -> Result<Begun, CeremonyError> {
        let head = store.head()?;
        let (_, genesis) = fold.genesis().ok_or(StartFault::NoLedgerKey)?;
        let ledger_token = &beginning.policy.ledger_key().token;
        // Once more is recorded, the ceremony was complete: what is missing then was taken away, or is not the same token.
        let fresh = head.size == FIRST_SIZE;
        for (name, (token, report)) in tokens {
            match report.genesis {
                Some(found) if found != genesis => {
                    return Err(CeremonyError::TokenTaken { token: name.clone(), found });
                }
                Some(_) => {}
                None if !fresh => {
                    let source = crate::hsm::HsmError::GenesisAbsent { expected: genesis };
                    return Err(StartFault::Hsm { token: name.clone(), source }.into());
                }
                None => {
                    let written = token.write_genesis(genesis).wait();
                    written.map_err(|source| StartFault::Hsm { token: name.clone(), source })?;
                    done.push(format!("genesis on token {name}"));
                }
            }
        }
        let (token, _) = &tokens[ledger_token];
        let origin = beginning.policy.origin();
        match start::check_head_object(token, store, origin) {
            Ok(_) => {}
            Err(StartFault::HeadAbsent { .. }) if fresh => {
                start::write_head_object(token, origin, head)?;
                done.push(format!("the head on token {ledger_token}"));
            }
            Err(fault) => return Err(fault.into()),
        }
        let key = beginning.ledger_key()?;
        let verifier = beginning.verifier()?;
        let public = key.public_key().map_err(|why| CeremonyError::Key { key: key.label.clone(), why })?;
        let vkey = verifier.vkey();
        for (name, text) in [
            ("genesis", format!("{genesis}\n")),
            ("ledger.vkey", format!("{vkey}\n")),
            ("ledger.pem", pem::public_key_to_pem(&public)),
        ] {
            let path = self.out.join(name);
            if !path.exists() {
                done.push(path.display().to_string());
            }
            write_new(&path, text.as_bytes())?;
        }
        room::sync_folder(&self.out)?;
        let words = Words(genesis).to_string();
        let policy = beginning.policy.digest();
        Ok(Begun { genesis, words, policy, size: head.size, root: head.root, vkey, done })
    }
}

/// Entries that `begin` records: genesis, and the adoption of the first policy.
const FIRST_SIZE: u64 = 2;

impl Beginning {
    fn ledger_key(&self) -> Result<&MadeKey, CeremonyError> {
        let label = &self.policy.ledger_key().label;
        let found = self.keys.keys.iter().find(|key| key.label == *label);
        found.ok_or_else(|| CeremonyError::Key { key: label.clone(), why: "it stands in no keys.json".to_owned() })
    }

    fn verifier(&self) -> Result<Verifier, CeremonyError> {
        let record = self.ledger_key()?.record();
        Ok(Verifier::from_spki(self.policy.origin().as_str(), &record.spki_octets())?)
    }

    /// The keys of a token, and the origin where the ledger key is. Genesis is looked at afterwards: it may be still to come.
    fn expectations(&self, token: &TokenName) -> Expectations {
        let is_ledgers = self.policy.ledger_key().token == *token;
        Expectations {
            keys: self.keys.on(token).map(MadeKey::expected).collect(),
            genesis: None,
            origin: is_ledgers.then(|| self.policy.origin().clone()),
        }
    }

    /// Genesis, with a new nonce.
    fn genesis(&self) -> Result<Genesis, CeremonyError> {
        Ok(Genesis {
            origin: self.policy.origin().clone(),
            purpose: self.policy.purpose(),
            nonce: RequestId(*input::request_id()?.octets()),
            keys: self.keys.keys.iter().map(MadeKey::record).collect(),
            policy: self.policy.digest(),
        })
    }

    fn decide(
        &self,
        fold: &Fold,
        blobs: &dyn Blobs,
        heads: &dyn Heads,
        Moment { at, clock }: Moment,
    ) -> Result<PolicyAdopted, Vec<Reason>> {
        let context = Context { fold, blobs, heads, at, clock };
        let submission = Submission { signatures: &self.signatures, devices: None };
        intake::policy(&context, &self.document, &self.policy, &submission)
    }

    /// Whether the policy will be adopted, before any token is asked for anything.
    fn decide_beforehand(&self, room: &Room) -> Result<(), CeremonyError> {
        let Now { at, state: clock, .. } = room.clock(None).now();
        let event = Event::Genesis(self.genesis()?);
        let entry = Entry { v: VERSION, at, clock, by: room::conductor(), event };
        let leaf = entry.to_leaf().map_err(CannotRecord::from)?;
        let mut fold = Fold::default();
        fold.apply(&entry, &leaf, &Nothing, &mut Vec::new()).map_err(CannotRecord::from)?;
        self.decide(&fold, &Nothing, &Nothing, Moment { at, clock }).map(drop).map_err(CeremonyError::Refused)
    }

    /// Makes the ledger, durably and at once.
    fn make(&self, room: &Room, tokens: &BTreeMap<TokenName, (Token, TokenReport)>) -> Result<(), CeremonyError> {
        let state = &room.configuration.state;
        make_private_folder(state)?;
        let lock = Lock::take(state)?;
        if SqliteStore::exists(state) {
            return Err(StoreError::Exists { path: state.clone() }.into());
        }
        let workshop = state.join(WORKSHOP);
        if workshop.exists() {
            // It never was in its place, so nothing was told to a token or to anybody.
            fs::remove_dir_all(&workshop)?;
        }
        make_private_folder(&workshop)?;
        let store = SqliteStore::create(&workshop, start::staging_limits(&room.configuration))?;
        let mut recorder =
            Recorder::new(Box::new(store), Fold::default(), room.clock(None).read_by()).map_err(CannotRecord::from)?;
        let ledger = self.policy.ledger_key();
        let config = room.token_config(&ledger.token)?;
        let (token, _) = &tokens[&ledger.token];
        let signer = TokenSigner::new(token.clone(), ledger.label.clone(), self.verifier()?, config.call_deadline);
        recorder.set_signer(Box::new(signer));
        let genesis = self.genesis()?;
        let outcome = record_alone(&mut recorder, |recorder| {
            let by = room::conductor();
            recorder.queue(&by, Event::Genesis(genesis))?;
            match self.decide(recorder.fold(), recorder, recorder, recorder.moment()) {
                Ok(adopted) => {
                    self.queue_documents(recorder, &adopted);
                    recorder.queue(&by, Event::PolicyAdopted(adopted)).map(|_| Ok(()))
                }
                Err(reasons) => Ok(Err(reasons)),
            }
        })?;
        drop(recorder);
        // Refused after all, at this very moment: the workshop is left behind and removed by the next run.
        outcome.into_inner().map_err(CeremonyError::Refused)?;
        SqliteStore::install(&workshop, state)?;
        fs::remove_dir_all(&workshop)?;
        drop(lock);
        Ok(())
    }

    /// Every document that the adoption names.
    fn queue_documents(&self, recorder: &mut Recorder, adopted: &PolicyAdopted) {
        let sums: Vec<String> =
            self.files.iter().map(|(path, octets)| format!("{}  {path}\n", Digest::of(octets))).collect();
        recorder.queue_blob(sums.concat().into_bytes());
        for octets in self.files.values() {
            recorder.queue_blob(octets.clone());
        }
        recorder.queue_blob(self.document.octets().to_vec());
        for p7s in &self.signatures {
            let digest = Digest::of(p7s);
            if adopted.signatures.iter().any(|signature| signature.p7s == digest) {
                recorder.queue_blob(p7s.clone());
            }
        }
    }

    /// The ledger that stands is the one that this would begin.
    fn check_same(&self, state: &Path, store: &SqliteStore, fold: &Fold) -> Result<(), CeremonyError> {
        let (found, genesis) = fold.genesis().ok_or(StartFault::NoLedgerKey)?;
        let differs = |why: &str| CeremonyError::Begun {
            state: state.to_owned(),
            genesis,
            why: format!("{why}. It is never overwritten"),
        };
        let ours = self.genesis()?;
        if found.origin != ours.origin || found.purpose != ours.purpose {
            return Err(differs("it has another origin or purpose"));
        }
        if found.keys != ours.keys {
            return Err(differs("its keys are not those of keys.json"));
        }
        if found.policy != ours.policy {
            return Err(differs("it began with another policy"));
        }
        let adopted = Entry::from_leaf(&store.leaf(1)?).map_err(CannotRecord::from)?;
        match adopted.event {
            Event::PolicyAdopted(adopted) if adopted.document == self.document.digest() => Ok(()),
            _ => Err(differs("its first policy was adopted by another document")),
        }
    }
}

/// Before there is a ledger there are no documents and no heads.
struct Nothing;

impl Blobs for Nothing {
    fn blob(&self, digest: Digest) -> Result<Vec<u8>, BookError> {
        Err(BookError::BlobMissing { digest })
    }

    fn stream(&self, digest: Digest, _: &mut dyn FnMut(&[u8])) -> Result<(), BookError> {
        Err(BookError::BlobMissing { digest })
    }
}

impl Heads for Nothing {
    fn head(&self, _: u64) -> Option<Head> {
        None
    }
}

/// A folder that only its owner enters.
fn make_private_folder(path: &Path) -> Result<(), CeremonyError> {
    Ok(fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?)
}
