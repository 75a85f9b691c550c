//! `ceremony deal`: the Key Custodians get shares of what opens a key's tokens; and again, whenever who they are changes.
//!
//! Each of the key's tokens gets one fresh random PIN that nobody sees. It is sealed under a random secret, and the secret is split among
//! the custodians of the policy in force. Dealing again makes the next *generation*: a new secret and new PINs, so that old shares open nothing,
//! and the key itself untouched. A token that was brought in since is one of the tokens then.
//!
//! | it was cut off | what there is | and when it is run again |
//! |---|---|---|
//! | before the custody file | some share files | they are void; deals anew, into another folder |
//! | before a token was begun | share files, a custody file that no token follows | the same |
//! | between two tokens, or in the midst of one | tokens with the new PIN, tokens with the old one | asks for the shares of both generations, and goes on with the tokens that are left |
//! | before the entry | every token has the new PIN | asks for no share; records it |
//!
//! What was begun is written beside the custody file before it is done ([`Changing`]), so a token whose PIN may be either is known: the new one is tried
//! first, and the old one if that is refused, which costs the token one wrong PIN that the right one makes good.
//!
//! A running daemon need not be stopped, but the key must be locked there. From the first token that is begun until the entry it refuses to
//! activate the key.

mod people;
mod tokens;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::opened::{Ledger, Opened};
use super::room;
use super::{CeremonyError, Tokens};
use crate::cli::member::MemberError;
use crate::cli::print::Printer;
use crate::cli::{Change, Exit};
use crate::custody::file::{Changing, CustodyFile, FileError, Set};
use crate::custody::scheme::{SchemeError, SealingSecret, split};
use crate::custody::share_file::ShareFileError;
use crate::domain::certificates::Certificate;
use crate::domain::determination::people::Role;
use crate::domain::ledger::custody::{Holder, SharesDealt};
use crate::domain::ledger::entry::TokenFound;
use crate::domain::names::{Digest, KeyLabel, KeyUse, PersonId, Purpose, ShareName, TokenName};
use crate::domain::policy::{Activation, Policy};
use crate::domain::time::Timestamp;
use crate::hsm::{HsmError, hardening};
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
        "{}: it is no share of {person} of generation {generation} of this key: it was altered, or is of an earlier generation, or of another key",
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
        "generation {generation} of the shares of key {key}: {have} were brought, {need} are needed: --share PERSON=FILE for each"
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
                FileError::Digest { .. } | FileError::Pin { .. } => Exit::Unverified,
                FileError::Io { .. } | FileError::Form { .. } | FileError::Token { .. } | FileError::Scheme(_) => {
                    Exit::Local
                }
            },
            Self::Foreign { .. } => Exit::Unverified,
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
    /// Of the custody file; none in a dry run.
    pub custody_file: Option<PathBuf>,
    pub custody_sha256: Option<Digest>,
    /// The index of the entry; none in a dry run.
    pub entry: Option<u64>,
}

/// A share and who has it.
#[derive(Serialize)]
pub(super) struct Given {
    pub share: ShareName,
    pub person: PersonId,
    index: u16,
    /// Of the certificate's key; none under a passphrase.
    certificate_spki_sha256: Option<Digest>,
    pub file: PathBuf,
}

/// What is to be dealt.
struct Plan {
    generation: u32,
    threshold: u32,
    holders: Vec<Holder>,
    tokens: Vec<TokenFound>,
}

impl Deal {
    /// Deals, or goes on with what was cut off, unless this is a dry run.
    pub(super) fn perform(&self, print: Printer) -> Result<Answer, CeremonyError> {
        for warning in hardening::keep_memory() {
            print.warning(&warning);
        }
        let mut opened = Opened::beside(&self.tokens, &self.key)?;
        let people = People::gather(&self.tokens.custodians, &self.certificates, opened.fold().purpose())?;
        let before = opened.fold().keys().get(&self.key).and_then(|facts| facts.shares.clone());
        let plan = self.plan(&opened, &people, before.as_ref())?;
        self.check_tokens(&opened, &plan)?;
        people.check(&plan.holders)?;
        if opened.ledger.is_active(&self.key)? {
            return Err(DealError::Active { key: self.key.clone() }.into());
        }
        let mut answer = self.answer(&plan, &people);
        if !self.change.dry_run {
            let ledger_token = opened.log_in()?;
            let (file, former) = self.deal(&opened, &people, &plan, before.as_ref(), print)?;
            let entry = opened.ledger.record(Record::Dealt { file: file.clone(), former })?;
            opened.keep_head(ledger_token.as_ref())?;
            let state = &opened.room.configuration.state;
            Changing::remove(state, &file).map_err(DealError::from)?;
            (answer.custody_file, answer.custody_sha256, answer.entry) =
                (Some(CustodyFile::path(state, &self.key, file.generation)), Some(file.digest()), Some(entry));
        }
        Ok(answer)
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
                text.row(
                    "share",
                    format!("{} of {}, {opened_by}: {}", given.share, given.person, given.file.display()),
                );
            }
            for found in &answer.tokens {
                text.row("token", format!("{}, serial number {}", found.token, found.serial));
            }
            text.some("custody file", answer.custody_file.as_ref().map(|path| path.display().to_string()))
                .some("SHA-256", answer.custody_sha256)
                .some("recorded", answer.entry.map(|entry| format!("entry {entry}")));
        })?;
        if self.change.dry_run {
            print.note("Nothing was done; no token was asked.");
        } else {
            print.note(
                "Next: each custodian takes their share file away, and one copy of the custody file; remove the share files from this \
                 machine. Shares of an earlier generation open nothing any more.",
            );
        }
        Ok(())
    }

    /// Who gets a share, and which tokens it opens.
    fn plan(
        &self,
        opened: &Opened<Ledger>,
        people: &People,
        before: Option<&SharesDealt>,
    ) -> Result<Plan, CeremonyError> {
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
        let tokens = of_policy.tokens().filter_map(found).collect();
        let generation = before.map_or(0, |dealt| dealt.generation) + 1;
        Ok(Plan { generation, threshold, holders, tokens })
    }

    /// A token has one PIN, so it may hold no key that something else opens.
    fn check_tokens(&self, opened: &Opened<Ledger>, plan: &Plan) -> Result<(), CeremonyError> {
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

    fn share_file(&self, generation: u32, share: &ShareName) -> PathBuf {
        self.out.join(format!("{}.{generation}.{share}.pem", self.key))
    }

    fn answer(&self, plan: &Plan, people: &People) -> Answer {
        let given = |holder: &Holder| Given {
            share: holder.share.clone(),
            person: holder.person.clone(),
            index: holder.index,
            certificate_spki_sha256: people.certificate(&holder.person).map(Certificate::spki_sha256),
            file: self.share_file(plan.generation, &holder.share),
        };
        Answer {
            key: self.key.clone(),
            generation: plan.generation,
            threshold: plan.threshold,
            shares: plan.holders.iter().map(given).collect(),
            tokens: plan.tokens.clone(),
            custody_file: None,
            custody_sha256: None,
            entry: None,
        }
    }

    /// Deals, or goes on with what was cut off; answers the custody file that every token follows, and the former secret's signature.
    fn deal(
        &self,
        opened: &Opened<Ledger>,
        people: &People,
        plan: &Plan,
        before: Option<&SharesDealt>,
        print: Printer,
    ) -> Result<(CustodyFile, Option<Box<str>>), CeremonyError> {
        let state = opened.room.configuration.state.clone();
        let before = before.map(|dealt| CustodyFile::read(&state, dealt)).transpose().map_err(DealError::from)?;
        let pending = CustodyFile::find(&state, &self.key, plan.generation).map_err(DealError::from)?;
        let pending = match pending {
            Some(file) => {
                let changing = Changing::read(&state, &file).map_err(DealError::from)?;
                // A custody file that no token follows is void.
                (!changing.begun.is_empty()).then_some((file, changing))
            }
            None => None,
        };
        let sets: Vec<&CustodyFile> = pending.iter().map(|(file, _)| file).chain(&before).collect();
        let brought = people.open_shares(&sets)?;
        if let Some((file, mut changing)) = pending {
            let left: Vec<TokenFound> =
                file.dealt().tokens.into_iter().filter(|found| !changing.done.contains(&found.token)).collect();
            if left.is_empty() {
                print.note("Every token had its new PIN; what was left is to record it.");
                return Ok((file, changing.former));
            }
            print.note("A deal of this generation was cut off; this goes on with the tokens that are left.");
            let secret = brought.secret(&file)?;
            let mut change = PinChange::new(opened, before.as_ref(), &brought);
            for found in &left {
                let new = file.pin(&secret, file.token(&found.token, &found.serial).map_err(DealError::from)?);
                change.finish(found, new.map_err(DealError::from)?, &file, &mut changing)?;
            }
            return Ok((file, changing.former));
        }
        let mut change = PinChange::new(opened, before.as_ref(), &brought);
        // Each token is up under its old PIN before anything is dealt, so that what could have been known beforehand stops nothing half-way.
        let ready = plan.tokens.iter().map(|found| change.log_in(found)).collect::<Result<Vec<_>, _>>()?;
        let secret = SealingSecret::make();
        let count = plan.holders.len();
        let threshold = usize::try_from(plan.threshold).unwrap_or(usize::MAX);
        let (shares, commitments) = split(&secret, threshold, count).map_err(DealError::from)?;
        let pins = ready.iter().map(|ready| (ready.found.clone(), ready.new.clone())).collect::<Vec<_>>();
        let set = Set {
            origin: change.origin()?,
            key: self.key.clone(),
            generation: plan.generation,
            commitments: &commitments,
            holders: plan.holders.clone(),
        };
        let file = CustodyFile::seal(set, &secret, &pins).map_err(DealError::from)?;
        std::fs::create_dir_all(&self.out)?;
        for (share, holder) in shares.iter().zip(&plan.holders) {
            let path = self.share_file(plan.generation, &holder.share);
            people.write_share(share, holder, (&self.key, plan.generation), &path)?;
        }
        room::sync_folder(&self.out)?;
        // Before any PIN is changed, and kept with what is begun: a deal that is cut off before its entry needs nobody for it again.
        let former = change.sign_by_former(&file)?;
        file.write(&state).map_err(DealError::from)?;
        let mut changing = Changing { former, ..Changing::default() };
        for ready in ready {
            change.change(ready, &file, &mut changing)?;
        }
        Ok((file, changing.former))
    }
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
