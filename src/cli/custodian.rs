//! Shell: `smkictl custodian`: what a Key Custodian does, and who presented for a key and who still can.

mod check;
mod present;
mod share;
mod statement;

use clap::{Args, Subcommand};

use super::{CliError, Context, Exit};
use crate::api::wire;
use crate::cli::print::Text;
use crate::domain::determination::document::DocumentFault;
use crate::domain::names::KeyLabel;

/// Open a key with other Key Custodians: state what for, present your share.
#[derive(Subcommand, Debug)]
pub enum Custodian {
    /// Show who presented for each key that Key Custodians open, and who still can
    #[command(after_help = "Example:\n  smkictl custodian status recovery-1")]
    Status(Status),
    /// Write the statement that you sign when you present your share
    #[command(after_help = "\
The whole way, for one custodian:
  smkictl custodian statement --person custodian-1 --determination 5f2c….json --hours 4 --out statement.json
  smkictl determination sign statement.json --key me.key --certificate me.pem
  smkictl custodian present recovery-1 --share share.pem --statement statement.json --signature statement.custodian-1.p7s

OpenSSL signs it too:
  openssl cms -sign -binary -cades -in statement.json -signer me.pem -inkey me.key -outform DER -out statement.p7s")]
    Statement(statement::Draft),
    /// Present your share of a key, for the incident that your signed statement names
    #[command(after_help = "\
Examples:
  smkictl custodian present recovery-1 --share share.pem --statement statement.json --signature statement.custodian-1.p7s
  openssl cms -decrypt -inform PEM -in share.pem -inkey me.key | smkictl custodian present recovery-1 --share - \\
    --statement statement.json --signature statement.custodian-1.p7s

The passphrase is typed at the terminal. The share leaves this program sealed to the process that puts the shares together, and
nobody else can open it. Where the HSM itself asks (a PIN pad, a card set), the statement names no share and --share is left out.
Status 5: the signature is none over the statement, or the share is not the one that was dealt.")]
    Present(present::Present),
    /// Check without a daemon that your share still opens, and is the one that was dealt
    #[command(after_help = "\
Examples:
  smkictl custodian check --share share.pem --custody recovery-1.1.json
  openssl cms -decrypt -inform PEM -in share.pem -inkey me.key | smkictl custodian check --share - --custody recovery-1.1.json

Needs no daemon. The custody file is your copy of the one in the daemon's state directory. Nothing secret is shown.
Status 5: the share opens, and is none of that custody file.")]
    Check(check::Check),
}

/// Arguments of `status`.
#[derive(Args, Debug)]
pub struct Status {
    /// One key alone
    key: Option<KeyLabel>,
}

impl Custodian {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<Exit, CliError> {
        match self {
            Self::Status(Status { key }) => status(context, key.as_ref()).await,
            Self::Statement(draft) => statement::write(context, &draft).await,
            Self::Present(present) => present::run(context, &present).await,
            Self::Check(check) => check::run(context, &check),
        }
    }
}

async fn status(context: &Context, only: Option<&KeyLabel>) -> Result<Exit, CliError> {
    let status: wire::Status = context.client.get("/v1/status").await?;
    let opened: Vec<_> = status.keys.into_iter().filter_map(|key| Some((key.key, key.custody?))).collect();
    let names: Vec<String> = opened.iter().map(|(key, _)| key.to_string()).collect();
    let keys: Vec<_> = opened.into_iter().filter(|(key, _)| only.is_none_or(|only| key == only)).collect();
    if keys.is_empty() {
        let expected = only.map_or_else(|| "a key".to_owned(), |key| format!("key {key} to be one"));
        let found = if names.is_empty() { "no such key".to_owned() } else { names.join(", ") };
        return Err(unfit(&format!(
            "expected {expected} that Key Custodians open (keys.toml: activation), found {found}"
        )));
    }
    context.print.answer(&keys, |text| {
        for (key, custody) in &keys {
            text.row("key", key);
            standing(custody, text);
        }
    })?;
    Ok(Exit::Done)
}

/// Who presented for a key, and who still can.
pub(super) fn standing(custody: &wire::Custody, text: &mut Text) {
    let (have, need) = (custody.have, custody.need);
    let (parties, parties_need) = (custody.parties, custody.parties_need);
    let stands = format!("{have} of {need} presented, of {parties} of {parties_need} Parties");
    text.row("stands", stands).some("generation", custody.generation);
    for one in &custody.presented {
        let until = one.until.map_or_else(String::new, |until| format!(", counts until {until}"));
        text.row("presented", format!("{} of {}{until}", one.person, one.party));
    }
    for one in &custody.can_present {
        let share = one.share.as_ref().map_or_else(String::new, |share| format!(", {share}"));
        text.row("can present", format!("{} of {}{share}", one.person, one.party));
    }
    for why in &custody.not_counted {
        text.row("counts no more", why);
    }
}

fn faulty(faults: &[DocumentFault]) -> CliError {
    unfit(&faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

fn unfit(what: &str) -> CliError {
    CliError::Unfit(what.to_owned())
}
