//! `ceremony deal`: the Key Custodians get shares of what opens a key's tokens; and again, whenever who they are changes.
//!
//! Each of the key's tokens gets one fresh random PIN that nobody sees. It is sealed under a random secret, and the secret is split among
//! the custodians of the policy in force. Dealing again makes the next *generation*: a new secret and new PINs, so that old shares open nothing,
//! and the key itself untouched. A token that was brought in since is one of the tokens then.
//!
//! | it was cut off | what there is | and when it is run again |
//! |---|---|---|
//! | before `shares-begun` | some share files, a custody file that the ledger does not name | they are void; deals anew, into another folder |
//! | before a token was begun | what `shares-begun` says, which no token follows | the same; another `shares-begun` takes its place |
//! | between two tokens, in the midst of one, or before `shares-dealt` | tokens that may have the new PIN, tokens with the old one | asks for shares of both generations, and logs in to each token with its new PIN |
//! | after `shares-dealt` | a mark that is left | removes it |
//!
//! `shares-begun` says all that `shares-dealt` will, and is judged: so a deal that was begun can be finished whatever becomes of policy and people,
//! and nothing but what was begun can. Which tokens were begun is written beside the custody file ([`Changing`]): at these the new PIN is
//! tried first, and the old one if that is refused, which costs the token one wrong PIN that the right one makes good.
//!
//! A running daemon need not be stopped, but the key must be locked there. From `shares-begun` until `shares-dealt` it does not activate the key.

mod people;
mod tokens;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::desk::Desk;
use super::opened::{Ledger, Opened};
use super::room;
use super::{CeremonyError, Tokens};
use crate::cli::member::MemberError;
use crate::cli::print::Printer;
use crate::cli::{Change, Exit};
use crate::custody::file::{Changing, CustodyFile, FileError, Set};
use crate::custody::scheme::{SchemeError, SealingSecret, split};
use crate::custody::share_file::ShareFileError;
use crate::domain::determination::people::Role;
use crate::domain::determination::words::Words;
use crate::domain::ledger::custody::{Holder, Sealed, SharesDealt};
use crate::domain::ledger::entry::TokenFound;
use crate::domain::names::{Digest, KeyLabel, KeyUse, PersonId, Purpose, ShareName, TokenName};
use crate::domain::policy::{Activation, Policy};
use crate::domain::time::Timestamp;
use crate::hsm::HsmError;
use crate::service::ceremony::Record;
use crate::service::start::StartFault;
use crate::wall_clock::wall_clock;
pub use people::{People, of_person};
use tokens::Change as PinChange;

/// Arguments of `deal`.
#[derive(Args, Debug)]
pub struct Deal {
    #[command(flatten)]
    pub(super) tokens: Tokens,
    /// The label of the key
    #[arg(long, value_name = "LABEL")]
    pub(super) key: KeyLabel,
    /// Where the share files go: KEY.GENERATION.SHARE.pem
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,
    /// Seal a custodian's share to this certificate, of a key file or a card; the others choose a passphrase
    #[arg(long = "certificate", value_name = "PERSON=FILE", value_parser = people::of_person)]
    pub(super) certificates: Vec<(PersonId, PathBuf)>,
    /// The keys of these certificates, by a plan that was reviewed; without one they are shown and asked about.
    #[arg(skip)]
    pub(super) planned: Option<BTreeMap<PersonId, Digest>>,
    #[command(flatten)]
    pub(super) change: Change,
}

/// Why shares are not dealt, or not to the end.
#[derive(Debug, thiserror::Error)]
pub enum DealError {
    /// The policy has the key opened in another way.
    #[error(
        "key {key}: the policy in force does not have it opened by Key Custodians (keys.toml: activation = \"custodians\")"
    )]
    Activation {
        /// Which.
        key: KeyLabel,
    },
    /// Nobody to deal to.
    #[error(
        "the policy in force has {found} Key Custodians with a share and needs {need} to open a key: adopt one that names more"
    )]
    Custodians {
        /// In force, with a share.
        found: usize,
        /// The threshold.
        need: u32,
    },
    /// A person named who has no part in it.
    #[error(
        "{person}: the policy in force has no Key Custodian of that name with a share, nor has the generation before"
    )]
    Stranger {
        /// Who.
        person: PersonId,
    },
    /// Another certificate than the plan means.
    #[error(
        "{person}: expected a certificate of the key with SPKI SHA-256 {expected}, as the plan says, found one of {found}: whoever has that key would \
         have the share"
    )]
    Certificate {
        /// Whose.
        person: PersonId,
        /// By the plan.
        expected: String,
        /// Of the file.
        found: Digest,
    },
    /// A share file that cannot be read back.
    #[error("{}: what was written for {person} is not what is read: take another disk or folder, and run this again", path.display())]
    ReadBack {
        /// Which.
        path: PathBuf,
        /// Whose.
        person: PersonId,
    },
    /// The token holds another key.
    #[error(
        "token {token} holds key {other} too. Its PIN would be changed for both, and the other opens by another's share or stored credential: \
         keep a key that custodians open on tokens of its own"
    )]
    Shared {
        /// Which token.
        token: TokenName,
        /// The other key.
        other: KeyLabel,
    },
    /// Passphrases from files in earnest.
    #[error(
        "--passphrase-file is for exercises; this policy's purpose is {0}. Leave it out: each custodian types it at the terminal"
    )]
    PassphraseFile(Purpose),
    /// A share file.
    #[error("{}: {source}", path.display())]
    Share {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: Box<ShareFileError>,
    },
    /// A share that is of no generation that matters.
    #[error(
        "{}: it is no share of {person} of generation {generation} of this key: it was altered, or is of an earlier generation, of a deal that was cut off, or of another key",
        path.display()
    )]
    Foreign {
        /// Which.
        path: PathBuf,
        /// Who brought it.
        person: PersonId,
        /// The generations looked for.
        generation: String,
    },
    /// Too few shares of a generation.
    #[error(
        "generation {generation} of the shares of key {key}: {have} were brought, {need} are needed: --share PERSON=FILE for each. Where a deal was cut \
         off it takes shares of both generations"
    )]
    TooFew {
        /// The key.
        key: KeyLabel,
        /// The generation.
        generation: u32,
        /// That fit.
        have: usize,
        /// k.
        need: usize,
    },
    /// Somebody is logged in with the old PIN.
    #[error(
        "key {key} is active at the running daemon: its tokens are logged in to with the PINs that would be changed. Lock it first (smkictl \
         key lock {key}); what is being signed goes on under the same request id once it is active again"
    )]
    Active {
        /// Which.
        key: KeyLabel,
    },
    /// Two passphrases that differ, again and again.
    #[error("{person}: the passphrase was typed differently each time")]
    Differ {
        /// Who.
        person: PersonId,
    },
    /// Asking failed.
    #[error("{person}: asking for the passphrase failed: {source}")]
    Asking {
        /// Who.
        person: PersonId,
        /// Why.
        source: std::io::Error,
    },
    /// The token takes no PIN that is long enough.
    #[error(
        "token {token} takes PINs of at most {found} octets; at least {need} are needed for one that nobody can guess"
    )]
    PinLength {
        /// Which.
        token: TokenName,
        /// `ulMaxPinLen`.
        found: u32,
        /// What is needed.
        need: u32,
    },
    /// The PIN was changed, or may have been, and something failed.
    #[error(
        "token {token}: {source}. Its PIN may be the new one already. Mend it, and run the same command again, with the shares of both \
         generations: what was done stays done"
    )]
    Unfinished {
        /// Which.
        token: TokenName,
        /// What failed.
        source: Box<HsmError>,
    },
    /// A file of a custodian.
    #[error(transparent)]
    Member(Box<MemberError>),
    /// The custody file.
    #[error(transparent)]
    File(Box<FileError>),
    /// The scheme.
    #[error(transparent)]
    Scheme(#[from] SchemeError),
}

impl From<MemberError> for DealError {
    fn from(error: MemberError) -> Self {
        Self::Member(Box::new(error))
    }
}

impl From<FileError> for DealError {
    fn from(error: FileError) -> Self {
        Self::File(Box::new(error))
    }
}

impl DealError {
    /// The exit status.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Activation { .. }
            | Self::Custodians { .. }
            | Self::Shared { .. }
            | Self::PassphraseFile(_)
            | Self::Active { .. } => Exit::Refused,
            Self::Unfinished { .. } => Exit::Unreachable,
            Self::File(error) => match **error {
                FileError::Absent { .. } | FileError::Digest { .. } | FileError::Pin { .. } => Exit::Unverified,
                FileError::Io { .. } | FileError::Form { .. } | FileError::Token { .. } | FileError::Scheme(_) => {
                    Exit::Local
                }
            },
            Self::Foreign { .. } | Self::Certificate { .. } | Self::ReadBack { .. } => Exit::Unverified,
            Self::Stranger { .. }
            | Self::Share { .. }
            | Self::TooFew { .. }
            | Self::Differ { .. }
            | Self::Asking { .. }
            | Self::PinLength { .. }
            | Self::Member(_)
            | Self::Scheme(_) => Exit::Local,
        }
    }
}

/// What `deal` answers.
#[derive(Serialize)]
pub(super) struct Answer {
    key: KeyLabel,
    pub generation: u32,
    pub threshold: u32,
    pub shares: Vec<Given>,
    tokens: Vec<TokenFound>,
    /// Tokens that hold the key and keep their PINs.
    left: Vec<TokenFound>,
    /// Of the custody file; none in a dry run.
    pub custody_file: Option<PathBuf>,
    pub custody_sha256: Option<Digest>,
    /// The index of the entry; none in a dry run.
    pub entry: Option<u64>,
    /// Who brought shares of the generation before.
    pub by: Vec<PersonId>,
    /// What of an attempt before was found.
    pub found: Vec<String>,
}

/// A share and who has it.
#[derive(Serialize)]
pub(super) struct Given {
    pub share: ShareName,
    pub person: PersonId,
    index: u16,
    /// Of the certificate's key; none under a passphrase.
    pub certificate_spki_sha256: Option<Digest>,
    /// Where this run wrote it; none where an earlier one did.
    pub file: Option<PathBuf>,
}

/// What is to be dealt.
struct ToDeal {
    generation: u32,
    threshold: u32,
    holders: Vec<Holder>,
    tokens: Vec<TokenFound>,
    /// Those that hold the key, too, and are dealt for no more.
    left: Vec<TokenFound>,
}

/// What stands of the shares of a key.
struct Standing {
    /// The generation that the ledger has.
    before: Option<SharesDealt>,
    /// The one that was begun and has tokens that may follow it, with those.
    pending: Option<(SharesDealt, CustodyFile, Changing)>,
    /// The same in words.
    found: Vec<String>,
}

impl Deal {
    /// Deals, or goes on with what was cut off, unless this is a dry run.
    pub(super) fn perform(&self, print: Printer) -> Result<Answer, CeremonyError> {
        let mut opened = Opened::beside(&self.tokens, &self.key)?;
        let people = People::gather(&self.tokens.custodians, &self.certificates, opened.fold().purpose())?;
        let standing = self.standing(&opened, &people, print)?;
        let state = opened.room.configuration.state.clone();
        if let Some(before) = standing.before.as_ref().filter(|before| Changing::exists(&state, before)) {
            // Cut off between the entry and the end.
            let file = CustodyFile::read(&state, before).map_err(DealError::from)?;
            if !self.change.dry_run {
                let ledger_token = opened.log_in()?;
                opened.keep_head(ledger_token.as_ref())?;
                Changing::remove(&state, before).map_err(DealError::from)?;
            }
            print.note("This generation was dealt and recorded; what was left after that is done. For new shares, run this again.");
            return Ok(self.answer(before, Some((&state, &file))));
        }
        let mut found = standing.found.clone();
        let held: Vec<&SharesDealt> =
            standing.before.iter().chain(standing.pending.iter().map(|(begun, ..)| begun)).collect();
        let (begun, file, entry) = if let Some((begun, file, changing)) = &standing.pending {
            print.note(
                "A deal of this generation was cut off; this goes on with it, and logs in to each token with its new PIN. It takes enough of the \
                 new shares, and of the former where there are any: --share PERSON=FILE for each.",
            );
            people.check(&begun.holders, &held)?;
            if self.change.dry_run {
                return Ok(self.answer(begun, None));
            }
            let ledger_token = opened.log_in()?;
            for left_out in Self::finish(&opened, &people, standing.before.as_ref(), (begun, file, changing.clone()))? {
                print.note(&left_out);
                found.push(left_out);
            }
            let entry = opened.ledger.record(Record::Dealt(self.key.clone()))?;
            opened.keep_head(ledger_token.as_ref())?;
            (begun.clone(), file.clone(), entry)
        } else {
            let to_deal = self.to_deal(&opened, &people, standing.before.as_ref())?;
            self.check_tokens(&opened, &to_deal)?;
            people.check(&to_deal.holders, &held)?;
            if opened.ledger.is_active(&self.key)? {
                return Err(DealError::Active { key: self.key.clone() }.into());
            }
            if self.change.dry_run {
                return Ok(self.planned(&to_deal));
            }
            self.check_certificates(&people, opened.fold().purpose(), print)?;
            let ledger_token = opened.log_in()?;
            let (begun, file) = self.deal(&mut opened, &people, &to_deal, standing.before.as_ref())?;
            let entry = opened.ledger.record(Record::Dealt(self.key.clone()))?;
            opened.keep_head(ledger_token.as_ref())?;
            (begun, file, entry)
        };
        Changing::remove(&state, &begun).map_err(DealError::from)?;
        let mut answer = Answer { entry: Some(entry), ..self.answer(&begun, Some((&state, &file))) };
        if standing.pending.is_none() {
            answer.shares = given(&begun.holders, |share| Some(self.share_file(begun.generation, share)));
        }
        answer.found = found;
        Ok(answer)
    }

    /// What the ledger has, and what was begun. A custody file that the ledger does not name, or that no token may follow, is void.
    fn standing(&self, opened: &Opened<Ledger>, people: &People, print: Printer) -> Result<Standing, CeremonyError> {
        let state = &opened.room.configuration.state;
        let facts = opened.fold().keys().get(&self.key).ok_or(StartFault::NoLedgerKey)?;
        let before = facts.shares.clone();
        let Some(begun) = facts.dealing.clone() else {
            return Ok(Standing { before, pending: None, found: Vec::new() });
        };
        let mut changing = Changing::read(state, &begun).map_err(DealError::from)?;
        let generation = begun.generation;
        if changing.begun.is_empty() && self.is_brought(state, people, &begun, before.as_ref())? {
            changing = Changing::of_all(&begun);
        }
        if changing.begun.is_empty() {
            let found = format!(
                "a deal of generation {generation} that was begun and changed no token: its share files are void and open nothing; it is dealt anew"
            );
            print.note(&found);
            return Ok(Standing { before, pending: None, found: vec![found] });
        }
        let file = CustodyFile::read(state, &begun).map_err(DealError::from)?;
        let tokens: Vec<&str> = changing.begun.iter().map(TokenName::as_str).collect();
        let found = vec![format!(
            "a deal of generation {generation} that was cut off once tokens were begun ({}); it is gone on with, and its shares are those \
             that were handed out then",
            tokens.join(", ")
        )];
        Ok(Standing { before, pending: Some((begun, file, changing)), found })
    }

    /// Whether enough shares were brought of a deal that nothing says has changed a token: what said so may have been lost.
    fn is_brought(
        &self,
        state: &Path,
        people: &People,
        begun: &SharesDealt,
        before: Option<&SharesDealt>,
    ) -> Result<bool, CeremonyError> {
        let (given, reach) =
            (self.tokens.custodians.shares.len(), |need: u32| usize::try_from(need).unwrap_or(usize::MAX));
        if given < before.map_or(0, |before| reach(before.threshold)) + reach(begun.threshold) {
            return Ok(false);
        }
        let Ok(file) = CustodyFile::read(state, begun) else { return Ok(false) };
        let before = before.map(|dealt| CustodyFile::read(state, dealt)).transpose().map_err(DealError::from)?;
        let brought = people.open_shares(&std::iter::once(&file).chain(&before).collect::<Vec<_>>())?;
        Ok(brought.persons(begun.generation).len() >= reach(begun.threshold))
    }

    pub(super) fn run(self, print: Printer) -> Result<(), CeremonyError> {
        let answer = self.perform(print)?;
        print.answer(&answer, |text| {
            text.row("key", format!("{}, generation {}", answer.key, answer.generation));
            text.row("needed", format!("{} of {} shares", answer.threshold, answer.shares.len()));
            for given in &answer.shares {
                let opened_by = given.certificate_spki_sha256.map_or_else(
                    || "opened by a passphrase".to_owned(),
                    |spki| format!("opened by the key with SPKI {spki}"),
                );
                let place = given.file.as_ref().map_or_else(
                    || "its file is where an earlier run wrote it".to_owned(),
                    |path| path.display().to_string(),
                );
                text.row("share", format!("{} of {}, {opened_by}: {place}", given.share, given.person));
            }
            for found in &answer.tokens {
                text.row("token", format!("{}, serial number {}", found.token, found.serial));
            }
            for found in &answer.left {
                let why = "holds the key too, and keeps its PIN: what was dealt before opens it. Initialise it anew, or destroy it";
                text.row("left", format!("{}, serial number {}: {why}", found.token, found.serial));
            }
            if !answer.by.is_empty() {
                let by: Vec<&str> = answer.by.iter().map(PersonId::as_str).collect();
                text.row("brought by", format!("{} (the shares of before)", by.join(", ")));
            }
            text.some("custody file", answer.custody_file.as_ref().map(|path| path.display().to_string()))
                .some("SHA-256", answer.custody_sha256)
                .some("recorded", answer.entry.map(|entry| format!("entry {entry}")));
        })?;
        if self.change.dry_run {
            print.note("Nothing was done; no token was asked.");
        } else {
            print.note(
                "Next: each custodian takes their share file away, and a copy of the custody file, which lies beside them; remove the share files \
                 from this machine, and put the custody file into the backup: without it no share opens anything. Shares of an earlier \
                 generation open nothing any more.",
            );
        }
        Ok(())
    }

    /// Who gets a share, and which tokens it opens.
    fn to_deal(
        &self,
        opened: &Opened<Ledger>,
        people: &People,
        before: Option<&SharesDealt>,
    ) -> Result<ToDeal, CeremonyError> {
        let fold = opened.fold();
        let adopted = fold.policy().ok_or(StartFault::NoLedgerKey)?;
        let policy: &Policy = &adopted.policy;
        let of_policy = policy.key(&self.key).filter(|key| key.activation == Activation::Custodians);
        let of_policy = of_policy.ok_or_else(|| DealError::Activation { key: self.key.clone() })?;
        let at = wall_clock().plus_ms(opened.room.configuration.clock_offset_ms);
        let holders = holders(policy, at, people);
        let threshold = policy.custodians().threshold;
        if holders.len() < usize::try_from(threshold).unwrap_or(usize::MAX) {
            return Err(DealError::Custodians { found: holders.len(), need: threshold }.into());
        }
        let facts = fold.keys().get(&self.key).ok_or(StartFault::NoLedgerKey)?;
        let found = |token: &TokenName| {
            let serial = facts.serial_on(token)?.into();
            Some(TokenFound { token: token.clone(), serial })
        };
        let tokens: Vec<TokenFound> = of_policy.tokens().filter_map(found).collect();
        let generation = before.map_or(0, |dealt| dealt.generation) + 1;
        let left = facts.left_by(&tokens);
        Ok(ToDeal { generation, threshold, holders, tokens, left })
    }

    /// A token has one PIN, so it may hold no key that something else opens.
    fn check_tokens(&self, opened: &Opened<Ledger>, plan: &ToDeal) -> Result<(), CeremonyError> {
        for TokenFound { token, .. } in &plan.tokens {
            let keys = opened.fold().keys().values();
            let other = keys.filter(|key| key.record.label != self.key).find(|key| key.serial_on(token).is_some());
            if let Some(other) = other {
                let other = other.record.label.clone();
                return Err(DealError::Shared { token: token.clone(), other }.into());
            }
            let uses: [KeyUse; 1] = [opened.key.use_];
            opened.room.check_tokens([(token, &uses[..])])?;
        }
        Ok(())
    }

    /// A share is sealed to whatever certificate lies there, so it is known whose it is: by the plan, or by who has the same on paper.
    fn check_certificates(
        &self,
        people: &People,
        purpose: Option<Purpose>,
        print: Printer,
    ) -> Result<(), CeremonyError> {
        for (person, found) in people.keys() {
            if let Some(planned) = &self.planned {
                let expected = planned.get(&person).copied();
                if expected != Some(found) {
                    let expected = expected.map_or_else(|| "none".to_owned(), |digest| digest.to_string());
                    return Err(DealError::Certificate { person, expected, found }.into());
                }
                continue;
            }
            let words = Words(found).to_string().replace('\n', "\n  ");
            print.note(&format!("{person}: the share is sealed to the key with SPKI SHA-256 {found}\n  {words}"));
            let asks = Desk::terminal();
            if purpose == Some(Purpose::Exercise) && asks.is_err() {
                continue;
            }
            let question = format!("Does {person} find the same on their own paper? [yes; anything else stops]");
            let id = format!("deal/{person}");
            let answer = asks?.ask(&id, &question, "yes")?;
            if answer != "yes" {
                let why = "expected \"yes\"; nothing was dealt".to_owned();
                return Err(CeremonyError::Answer { question: id, why, found: answer });
            }
        }
        Ok(())
    }

    fn share_file(&self, generation: u32, share: &ShareName) -> PathBuf {
        self.out.join(format!("{}.{generation}.{share}.pem", self.key))
    }

    /// What was dealt, by the ledger; with the custody file where it is kept.
    fn answer(&self, dealt: &SharesDealt, kept: Option<(&Path, &CustodyFile)>) -> Answer {
        Answer {
            key: self.key.clone(),
            generation: dealt.generation,
            threshold: dealt.threshold,
            shares: given(&dealt.holders, |_| None),
            tokens: dealt.tokens.clone(),
            left: dealt.left.clone(),
            custody_file: kept.map(|(state, file)| CustodyFile::path(state, &self.key, file.generation)),
            custody_sha256: kept.map(|(_, file)| file.digest()),
            entry: None,
            by: dealt.by.clone(),
            found: Vec::new(),
        }
    }

    fn planned(&self, to_deal: &ToDeal) -> Answer {
        Answer {
            key: self.key.clone(),
            generation: to_deal.generation,
            threshold: to_deal.threshold,
            shares: given(&to_deal.holders, |share| Some(self.share_file(to_deal.generation, share))),
            tokens: to_deal.tokens.clone(),
            left: to_deal.left.clone(),
            custody_file: None,
            custody_sha256: None,
            entry: None,
            by: Vec::new(),
            found: Vec::new(),
        }
    }

    /// Goes on with what was cut off, as it was begun. Nothing that lies on the disk is believed: enough shares of the generation open its PINs,
    /// and each token logs in with its own.
    fn finish(
        opened: &Opened<Ledger>,
        people: &People,
        before: Option<&SharesDealt>,
        (begun, file, mut changing): (&SharesDealt, &CustodyFile, Changing),
    ) -> Result<Vec<String>, CeremonyError> {
        let state = opened.room.configuration.state.clone();
        let before = before.map(|dealt| CustodyFile::read(&state, dealt)).transpose().map_err(DealError::from)?;
        let sets: Vec<&CustodyFile> = std::iter::once(file).chain(&before).collect();
        let brought = people.open_shares(&sets)?;
        let secret = brought.secret(file)?;
        let mut change = PinChange::new(state, before.as_ref(), &brought);
        if let Some(before) = &before {
            // Whether enough of the former were brought is known before any token is offered a PIN that may be wrong.
            change.former(before)?;
        }
        let policy = opened.fold().policy().map(|adopted| &adopted.policy);
        let of_policy = policy.and_then(|policy| policy.key(&begun.key));
        let mut left_out = Vec::new();
        for found in &begun.tokens {
            if of_policy.is_some_and(|key| key.tokens().all(|token| *token != found.token)) {
                left_out.push(format!(
                    "token {}, which the policy in force gives the key no more, is left out: nobody knows whether its PIN is the old one or \
                     the new; initialise it anew",
                    found.token
                ));
                continue;
            }
            let sealed = file.token(&found.token, &found.serial).map_err(DealError::from)?;
            let new = file.pin(&secret, sealed).map_err(DealError::from)?;
            change.finish(opened, found, new, begun, &mut changing)?;
        }
        Ok(left_out)
    }

    /// Deals. Answers what was begun, which every token follows, and its custody file.
    fn deal(
        &self,
        opened: &mut Opened<Ledger>,
        people: &People,
        to_deal: &ToDeal,
        before: Option<&SharesDealt>,
    ) -> Result<(SharesDealt, CustodyFile), CeremonyError> {
        let state = opened.room.configuration.state.clone();
        let file_before = before.map(|dealt| CustodyFile::read(&state, dealt)).transpose().map_err(DealError::from)?;
        let sets: Vec<&CustodyFile> = file_before.iter().collect();
        let brought = people.open_shares(&sets)?;
        if let Some(before) = before {
            brought.check(opened.fold(), before)?;
        }
        let mut change = PinChange::new(state.clone(), file_before.as_ref(), &brought);
        // Each token is up under its old PIN before anything is dealt, so that what could have been known beforehand stops nothing half-way.
        let cut_off = opened.fold().keys().get(&self.key).and_then(|facts| facts.dealing.as_ref());
        let log_in = |found: &TokenFound| change.log_in(opened, found).map_err(|fault| either(fault, cut_off, found));
        let ready = to_deal.tokens.iter().map(log_in).collect::<Result<Vec<_>, _>>()?;
        let secret = SealingSecret::make();
        let count = to_deal.holders.len();
        let threshold = usize::try_from(to_deal.threshold).unwrap_or(usize::MAX);
        let (shares, commitments) = split(&secret, threshold, count).map_err(DealError::from)?;
        let pins = ready.iter().map(|ready| (ready.found.clone(), ready.new.clone())).collect::<Vec<_>>();
        let set = Set {
            origin: opened.fold().origin().cloned().ok_or(StartFault::NoLedgerKey)?,
            key: self.key.clone(),
            generation: to_deal.generation,
            commitments: &commitments,
            holders: to_deal.holders.clone(),
        };
        let file = CustodyFile::seal(set, &secret, &pins).map_err(DealError::from)?;
        std::fs::create_dir_all(&self.out)?;
        for (share, holder) in shares.iter().zip(&to_deal.holders) {
            let path = self.share_file(to_deal.generation, &holder.share);
            people.write_share(share, holder, (&self.key, to_deal.generation), &path)?;
        }
        room::sync_folder(&self.out)?;
        let begun = change.begin(&file, to_deal.left.clone())?;
        Changing::remove(&state, &begun).map_err(DealError::from)?;
        file.write(&state).map_err(DealError::from)?;
        // One to take away, beside the shares: without it they open nothing.
        let copy = self.out.join(format!("{}.{}.json", self.key, to_deal.generation));
        crate::cli::member::files::write_new(&copy, &file.octets()).map_err(DealError::from)?;
        room::sync_folder(&self.out)?;
        // Judged now, before any PIN is changed: whatever is said of people meanwhile, this can be finished.
        opened.ledger.record(Record::Begun { file: file.clone(), begun: Box::new(begun.clone()) })?;
        let mut changing = Changing::read(&state, &begun).map_err(DealError::from)?;
        for ready in ready {
            change.change(opened, ready, &begun, &mut changing)?;
        }
        Ok((begun, file))
    }
}

/// A token that refuses its old PIN after a deal was begun: the mark that says that its PIN may be the new one may have been lost.
fn either(fault: CeremonyError, begun: Option<&SharesDealt>, found: &TokenFound) -> CeremonyError {
    match (fault, begun) {
        (
            CeremonyError::Start(StartFault::Hsm { token, source: source @ HsmError::PinRefused { .. } }),
            Some(begun),
        ) if begun.tokens.contains(found) => DealError::Unfinished { token, source: Box::new(source) }.into(),
        (fault, _) => fault,
    }
}

/// Who has which share.
fn given(holders: &[Holder], file: impl Fn(&ShareName) -> Option<PathBuf>) -> Vec<Given> {
    let given = |holder: &Holder| Given {
        share: holder.share.clone(),
        person: holder.person.clone(),
        index: holder.index,
        certificate_spki_sha256: match holder.sealed {
            Sealed::Certificate(spki) => Some(spki),
            Sealed::Passphrase => None,
        },
        file: file(&holder.share),
    };
    holders.iter().map(given).collect()
}

/// The shares of the policy's custodians in force, in the order of their names: the first has index 1.
fn holders(policy: &Policy, at: Timestamp, people: &People) -> Vec<Holder> {
    let mut shares: Vec<(&ShareName, &PersonId)> = policy
        .roster(Role::KeyCustodian, at)
        .flat_map(|person| person.shares.iter().map(|share| (share, &person.id)))
        .collect();
    shares.sort_unstable();
    let holder = |((share, person), index): ((&ShareName, &PersonId), u16)| Holder {
        share: share.clone(),
        person: person.clone(),
        index,
        sealed: people.sealed_to(person),
    };
    shares.into_iter().zip(1..).map(holder).collect()
}
