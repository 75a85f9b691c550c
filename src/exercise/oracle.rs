//! Shell: openssl, which knows nothing of smkid, looks at what the exercise has made.

use std::path::Path;

use super::layout::{Layout, LayoutError};
use super::programs::{ProgramError, openssl};
use super::stage::{read, text};
use crate::domain::certificates::signature::{SignatureError, to_der};
use crate::domain::gbcs::{DecodeError, Frame};
use crate::domain::ledger::note::{Note, NoteError};
use crate::domain::time::Timestamp;

/// Why openssl does not agree, or was not asked.
#[derive(Debug, thiserror::Error)]
pub enum OracleError {
    /// It says no.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A file.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// No checkpoint.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// No command.
    #[error(transparent)]
    Command(#[from] DecodeError),
    /// No signature.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Nothing signed there.
    #[error("{0}: expected a signature, found none")]
    NotSigned(&'static str),
}

/// One of the checks.
pub enum Check<'a> {
    /// A recorded document and one member's signature: `openssl cms -verify`.
    Document {
        /// The document.
        document: &'a Path,
        /// The signature.
        p7s: &'a Path,
    },
    /// A checkpoint: `openssl dgst -verify`.
    Checkpoint(&'a str),
    /// A signed command, its `r ‖ s` turned into DER: `openssl dgst -verify`.
    Command(&'a [u8]),
}

/// Asks openssl, at the moment `now` by the exercise's clock. `false` if there is none on this machine.
pub async fn check(layout: &Layout, scratch: &Path, now: Timestamp, check: Check<'_>) -> Result<bool, OracleError> {
    let (octets, signature, key) = match check {
        Check::Document { document, p7s } => {
            let (document, p7s, people) = (text(document), text(p7s), text(&layout.path("policy/anchors/people.pem")));
            let arguments = ["cms", "-verify", "-binary", "-inform", "DER", "-in", &p7s, "-content", &document];
            let arguments: Vec<&str> = arguments.into_iter().chain(["-CAfile", &people, "-out", "/dev/null"]).collect();
            let now = now.unix_seconds().to_string();
            let arguments = [&arguments[..], &["-attime", &now]].concat();
            return Ok(openssl(scratch, &arguments).await?.is_some());
        }
        Check::Checkpoint(note) => {
            let note = Note::parse(note.as_bytes())?;
            let signature = note.signatures().first().ok_or(OracleError::NotSigned("checkpoint"))?.octets.clone();
            (note.text().as_bytes().to_vec(), signature, "keys/ledger.pem")
        }
        Check::Command(command) => {
            let frame = Frame::parse(command)?;
            let signature = frame.signature().ok_or(OracleError::NotSigned("command"))?;
            (frame.tbs().to_vec(), to_der(signature)?, "keys/recovery.pem")
        }
    };
    for (name, octets) in [("signed", &octets), ("signature", &signature)] {
        let path = scratch.join(name);
        std::fs::write(&path, octets).map_err(LayoutError::at(&path))?;
    }
    let key = text(&layout.path(key));
    let arguments = ["dgst", "-sha256", "-verify", &key, "-signature", "signature", "signed"];
    Ok(openssl(scratch, &arguments).await?.is_some())
}

/// Flips one octet of a file, and back again: what an export must not survive.
pub fn flip(path: &Path, at: usize) -> Result<(), LayoutError> {
    let mut octets = read(path)?;
    if let Some(octet) = octets.get_mut(at) {
        *octet ^= 1;
    }
    std::fs::write(path, octets).map_err(LayoutError::at(path))
}
