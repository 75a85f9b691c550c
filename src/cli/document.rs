//! Shell: delivers what somebody signed. The way is one for determinations, schedules, suspensions, withdrawals, directions and
//! policies.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use axum::body::{Body, Bytes};
use clap::Args;
use ring::digest;

use super::input::{self, InputError};
use super::{Change, CliError, Context, Exit};
use crate::api::client::with_query;
use crate::api::routes::Verb;
use crate::api::wire::{self, Base64};
use crate::domain::incident::targets::line_feeds;
use crate::domain::names::Digest;
use crate::domain::procedure::direction::TEXT_LEN_MAX;

/// What is read of a file at a time.
const PIECE_LEN: usize = 64 * 1024;

/// What is to be delivered.
#[derive(Args, Debug)]
pub struct Delivery {
    /// The document, octet for octet as it was signed
    #[arg(value_name = "ID.json")]
    document: PathBuf,
    /// A detached signature, DER; once for each signer. Without any: every ID.*.p7s beside the document
    #[arg(long, value_name = "ID.MEMBER.p7s")]
    signature: Vec<PathBuf>,
    #[command(flatten)]
    change: Change,
}

impl Delivery {
    /// Uploads the device list if there is one, delivers the document, and shows what was recorded.
    pub async fn send(
        self,
        context: &Context,
        devices: Option<&Path>,
        policy_files: Option<BTreeMap<String, Base64>>,
        text: Option<&Path>,
    ) -> Result<Exit, CliError> {
        let signatures = if self.signature.is_empty() { beside(&self.document)? } else { self.signature };
        for signature in &signatures {
            context.print.note(&format!("signature {}", signature.display()));
        }
        let signatures = signatures
            .iter()
            .map(|path| input::file(path, input::DOCUMENT_LEN_MAX).map(Base64))
            .collect::<Result<Vec<_>, _>>()?;
        let listed = match devices {
            Some(path) => Some(upload_list(context, path, &self.change).await?.0),
            None => None,
        };
        let ask = wire::Document {
            document: Base64(input::file(&self.document, input::DOCUMENT_LEN_MAX)?),
            signatures,
            devices: listed,
            policy_files,
            text: text.map(|path| input::file(path, TEXT_LEN_MAX as u64).map(Base64)).transpose()?,
        };
        if self.change.dry_run {
            return context.would_send(Verb::Post, "/v1/documents", Some(&ask));
        }
        let recorded: wire::DocumentRecorded = context.client.post("/v1/documents", &ask).await?;
        context.print.answer(&recorded, |text| {
            text.row("recorded", format!("{}, entry {}", recorded.kind, recorded.entry))
                .some("determination", recorded.determination)
                .row("sha256", recorded.sha256);
            for signer in &recorded.signers {
                text.row("signed by", signer);
            }
        })?;
        Ok(Exit::Done)
    }
}

/// `ID.MEMBER.p7s` beside `ID.json`, by name.
fn beside(document: &Path) -> Result<Vec<PathBuf>, InputError> {
    let folder = document.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let unreadable = |source| InputError::Unreadable { path: folder.to_owned(), source };
    let stem = format!("{}.", document.file_stem().unwrap_or_default().to_string_lossy());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        let is_signature = name
            .to_str()
            .and_then(|name| name.strip_prefix(&stem)?.strip_suffix(".p7s"))
            .is_some_and(|member| !member.is_empty());
        if is_signature {
            found.push(entry.path());
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(InputError::Empty {
            path: folder.join(format!("{stem}*.p7s")),
            expected: "a signature for each signer",
        });
    }
    Ok(found)
}

/// Uploads a list of Devices, unless nothing is to be changed. Answers its SHA-256 and how many lines it has.
pub async fn upload_list(context: &Context, path: &Path, change: &Change) -> Result<(Digest, u64), CliError> {
    let Listed { sha256, len, lines } = read_through(path)?;
    let to = with_query("/v1/uploads/devices", &[("sha256", Some(sha256.to_string()))]);
    if change.dry_run {
        context.print.note(&format!("Would send PUT {to}, {len} octets of {}", path.display()));
    } else {
        let stored: wire::Stored = context.client.put(&to, octets_of(path)?).await?;
        context.print.note(&format!("device list {} uploaded, {} octets", stored.sha256, stored.len));
    }
    Ok((sha256, lines))
}

/// What a list amounts to.
struct Listed {
    sha256: Digest,
    len: u64,
    lines: u64,
}

/// SHA-256 and length of a file.
pub(super) fn digest_of(path: &Path) -> Result<(Digest, u64), InputError> {
    read_through(path).map(|listed| (listed.sha256, listed.len))
}

fn read_through(path: &Path) -> Result<Listed, InputError> {
    let unreadable = |source| InputError::Unreadable { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(unreadable)?;
    let (mut hash, mut len, mut lines) = (digest::Context::new(&digest::SHA256), 0, 0);
    let mut piece = vec![0; PIECE_LEN];
    loop {
        match file.read(&mut piece).map_err(unreadable)? {
            0 => break,
            read => {
                hash.update(&piece[..read]);
                len += read as u64;
                lines += line_feeds(&piece[..read]);
            }
        }
    }
    let sha256 = Digest::try_from(hash.finish().as_ref()).expect("SHA-256 gives 32 octets");
    Ok(Listed { sha256, len, lines })
}

/// A file as a body, read as it is sent.
pub(super) fn octets_of(path: &Path) -> Result<Body, InputError> {
    let file = File::open(path).map_err(|source| InputError::Unreadable { path: path.to_owned(), source })?;
    let pieces = futures_util::stream::unfold(file, |mut file| async move {
        let mut piece = vec![0; PIECE_LEN];
        match file.read(&mut piece) {
            Ok(0) => None,
            Ok(read) => {
                piece.truncate(read);
                Some((Ok(Bytes::from(piece)), file))
            }
            Err(error) => Some((Err(error), file)),
        }
    });
    Ok(Body::from_stream(pieces))
}

#[cfg(test)]
mod tests;
