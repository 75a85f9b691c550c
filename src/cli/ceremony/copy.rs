//! `ceremony copy`: a key is found on a further token, to which the maker's means cloned it.
//!
//! Nothing here clones: no key of ours can leave a token, so only the maker's own means bring it to another. What is done is to
//! look whether the key is there, the same and as fit as the first; to record it; and to write genesis to the token, without which
//! it is not used. Beside a running daemon, which then records it.

use serde::Serialize;

use super::opened::{Ledger, Opened};
use super::{CeremonyError, Copy};
use crate::cli::print::Printer;
use crate::domain::determination::words::Words;
use crate::domain::fold::Fold;
use crate::domain::intake;
use crate::domain::ledger::entry::KeyCopied;
use crate::domain::names::{Digest, KeyLabel, KeyUse, TokenName};
use crate::service::ceremony::Record;
use crate::service::start::{self, StartFault};

/// What `copy` answers.
#[derive(Serialize)]
pub(super) struct Found {
    key: KeyLabel,
    token: TokenName,
    /// Of the token.
    pub serial: Box<str>,
    /// Of the key, as the original's.
    pub spki_sha256: Digest,
    /// The maker's means.
    pub by: Box<str>,
    /// The index of the entry that says so; none in a dry run, or if it was recorded before.
    pub entry: Option<u64>,
    /// Whether this run wrote genesis to the token.
    pub genesis_written: bool,
    /// Whether a daemon runs, which has recorded it.
    beside_daemon: bool,
}

impl Copy {
    /// Looks for the key and records it, unless this is a dry run.
    pub(super) fn perform(&self) -> Result<Found, CeremonyError> {
        let mut opened = Opened::beside(&self.tokens, &self.key)?;
        let settings = start::configured(&opened.room.configuration, &self.token)?;
        let mut copied = KeyCopied {
            key: self.key.clone(),
            token: self.token.clone(),
            serial: settings.serial.as_str().into(),
            spki_sha256: opened.key.spki_sha256,
            by: self.means(opened.fold()),
        };
        intake::may_copy(opened.fold(), &copied).map_err(CeremonyError::Refused)?;
        let mut uses = opened.uses(&self.token);
        uses.push(opened.key.use_);
        opened.room.check_tokens([(&self.token, uses.as_slice())])?;
        let (mut entry, mut genesis_written) = (None, false);
        if !self.change.dry_run {
            (entry, genesis_written) = self.bring(&mut opened, &uses, &mut copied)?;
        }
        let KeyCopied { key, token, serial, spki_sha256, by } = copied;
        let beside_daemon = opened.ledger.is_daemons();
        Ok(Found { key, token, serial, spki_sha256, by, entry, genesis_written, beside_daemon })
    }

    pub(super) fn run(self, print: Printer) -> Result<(), CeremonyError> {
        let answer = self.perform()?;
        print.answer(&answer, |text| {
            text.row("key", format!("{} on token {}, too", answer.key, answer.token))
                .row("serial number", &answer.serial)
                .row("SHA-256", answer.spki_sha256)
                .line(&Words(answer.spki_sha256).to_string())
                .row("brought by", &answer.by)
                .some("recorded", answer.entry.map(|index| format!("entry {index}")));
            if answer.genesis_written {
                text.row("done", format!("genesis on token {}", answer.token));
            }
        })?;
        match (self.change.dry_run, answer.entry, answer.genesis_written) {
            (true, ..) => print.note("The policy has it cloned there. Nothing was recorded; no token was asked."),
            (false, None, false) => print.note("It was recorded before, and is as it was; nothing was done."),
            (false, ..) if answer.beside_daemon => print.note(
                "Next: the running daemon opens the key on this token too when it is activated the next time: `smkictl key lock`, then \
                 `smkictl key activate`.",
            ),
            (false, ..) => print.note("Next: start smkid; `smkictl key activate` opens the key on this token too."),
        }
        Ok(())
    }

    /// How the policy in force has it cloned; empty if it has not, which is refused.
    fn means(&self, fold: &Fold) -> Box<str> {
        let of_policy = fold.policy().and_then(|adopted| adopted.policy.key(&self.key));
        let means = of_policy.and_then(|key| key.copies.get(&self.token));
        means.map_or_else(Box::default, |means| means.as_str().into())
    }

    /// Looks for the key on the token; records it, and writes genesis. Each is done or not, so it can be run again.
    fn bring(
        &self,
        opened: &mut Opened<Ledger>,
        uses: &[KeyUse],
        copied: &mut KeyCopied,
    ) -> Result<(Option<u64>, bool), CeremonyError> {
        let ledger_token = opened.log_in()?;
        let fold = opened.fold();
        let facts = fold.keys().get(&self.key).ok_or(StartFault::NoLedgerKey)?;
        let (_, ours) = fold.genesis().ok_or(StartFault::NoLedgerKey)?;
        let is_recorded = facts.copies.contains_key(&self.token);
        let mut expectations = start::expectations(fold, &self.token);
        if !expectations.keys.iter().any(|key| key.label == self.key) {
            expectations.keys.push(start::expected(facts, &self.token));
        }
        // It may be still to come.
        expectations.genesis = None;
        let (token, report) = opened.start(&self.token, uses, expectations)?;
        if let Some(found) = report.genesis.filter(|found| *found != ours) {
            return Err(CeremonyError::TokenTaken { token: self.token.clone(), found });
        }
        copied.serial = report.serial.into();
        let mut entry = None;
        if !is_recorded {
            entry = Some(opened.ledger.record(Record::Copied(copied.clone()))?);
        }
        let is_missing = report.genesis.is_none();
        if is_missing {
            let written = token.write_genesis(ours).wait();
            written.map_err(|source| StartFault::Hsm { token: self.token.clone(), source })?;
        }
        token.shutdown();
        opened.keep_head(ledger_token.as_ref())?;
        Ok((entry, is_missing))
    }
}
