//! Shell: a share, as its custodian brings it to a console: from a file, or by a pipe from the program that opened it with a card.

use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use clap::Args;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::super::{CliError, Context};
use super::unfit;
use crate::cli::member::{Ask as _, Terminal, files};
use crate::custody::scheme::SCALAR_LEN;
use crate::custody::share_file::{self, FILE_LEN_MAX, ShareFileError};
use crate::hsm::hardening;
use crate::hsm::signer::SignerError;

/// How often a passphrase may be typed before it is given up.
const TYPED_MAX: u32 = 3;

/// Where a share comes from.
#[derive(Args, Debug)]
pub struct Key {
    /// The private key of the certificate to which the share is sealed (PEM). With a card: see the examples
    #[arg(long, value_name = "KEY.pem", requires = "share")]
    key_file: Option<PathBuf>,
}

/// A share file that was read and not opened.
pub struct Closed {
    text: Zeroizing<String>,
    key: Option<Zeroizing<String>>,
    /// What it is called in what is said about it.
    pub name: String,
}

/// Before anything secret is read: nothing of this process goes to a core dump, to another process, or to the disk.
pub fn keep_memory(context: &Context) {
    for warning in hardening::keep_memory() {
        context.print.warning(&warning);
    }
}

impl Closed {
    /// Reads it; `-` is what comes by a pipe.
    pub fn read(path: &Path, Key { key_file }: &Key) -> Result<Self, CliError> {
        let key = key_file.as_deref().map(|path| files::read_text(path, files::PEM_LEN_MAX));
        let key = key.transpose().map_err(|error| unfit(&error.to_string()))?;
        if path.as_os_str() == "-" {
            return Ok(Self { text: piped()?, key, name: "what came by the pipe".to_owned() });
        }
        let text = files::read_text(path, FILE_LEN_MAX).map_err(|error| unfit(&error.to_string()))?;
        Ok(Self { text, key, name: path.display().to_string() })
    }

    /// Opens it: the octets of the share. A passphrase is typed at the terminal, again where it is wrong, or comes from a file.
    pub fn open(&self, context: &Context, passphrase: Option<&Path>) -> Result<Zeroizing<[u8; SCALAR_LEN]>, CliError> {
        let mut typed = 0;
        loop {
            let opened = share_file::scalar(&self.text, self.key.as_ref(), || {
                if let Some(path) = passphrase {
                    return files::read_secret(path).map_err(|error| io::Error::other(error.to_string()));
                }
                typed += 1;
                let of_key = share_file::is_to_certificate(&self.text);
                ask(&format!("Passphrase of {}: ", if of_key { "the key file" } else { &self.name }))
            });
            match opened {
                Ok(scalar) => return Ok(scalar),
                Err(ShareFileError::Key(SignerError::WrongPassphrase)) if (1..TYPED_MAX).contains(&typed) => {
                    context.print.note("That passphrase does not open it. Once more.");
                }
                Err(error) => return Err(unfit(&format!("{}: {error}", self.name))),
            }
        }
    }
}

/// What comes by a pipe. Room for all of it at once, so that no copy is left behind.
fn piped() -> Result<Zeroizing<String>, CliError> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Err(unfit(
            "--share -: expected the share by a pipe, found a terminal: openssl cms -decrypt -inform PEM -in FILE -inkey … | smkictl \
             custodian … --share -",
        ));
    }
    // Not the standard handle: that has a buffer of its own, which nobody wipes.
    let mut pipe = std::fs::File::from(std::os::fd::AsFd::as_fd(&stdin).try_clone_to_owned()?);
    let mut octets = Zeroizing::new(vec![0; FILE_LEN_MAX + 1]);
    let mut len = 0;
    while len < octets.len() {
        match pipe.read(&mut octets[len..])? {
            0 => break,
            read => len += read,
        }
    }
    if len > FILE_LEN_MAX {
        return Err(unfit(&format!("--share -: expected at most {FILE_LEN_MAX} octets, found more")));
    }
    if len == 0 {
        return Err(unfit("--share -: expected a share, found nothing: did the program before the pipe fail?"));
    }
    let text = std::str::from_utf8(&octets[..len]);
    let text = text.map_err(|_| unfit("--share -: expected a private key as PEM, found other octets"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Without echo, on the terminal, wherever the standard streams go.
fn ask(prompt: &str) -> io::Result<SecretString> {
    Terminal.secret(prompt).map_err(|error| {
        io::Error::new(error.kind(), format!("there is no terminal at which it could be typed: {error}"))
    })
}
