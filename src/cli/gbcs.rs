//! Shell: `smkictl gbcs show`, any CS02b message for people and for programs. Needs no daemon.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use zeroize::Zeroizing;

pub use super::print::Output;
use crate::domain::gbcs::proof::verify_signature;
use crate::domain::gbcs::{DecodeError, MESSAGE_LEN_MAX, Message};
use crate::domain::time::Timestamp;
use crate::wall_clock::wall_clock;

mod certificate;
mod json;
mod root;
mod text;

use certificate::{Certificate, CertificateError};
use root::{Findings, RootError};

/// Done.
const DONE: u8 = 0;
/// A local failure: a file, or its contents.
const LOCAL_FAILURE: u8 = 1;
/// There is no signature that verifies.
const VERIFICATION_FAILED: u8 = 5;

/// The longest input read: a message in hexadecimal with as much white space again.
const INPUT_LEN_MAX: usize = 4 * MESSAGE_LEN_MAX;
/// The longest certificate file read. An SMKI certificate in PEM is below 1 kB; text around it is allowed.
const CERTIFICATE_FILE_LEN_MAX: usize = 64 * 1024;

/// What can be done with GBCS messages.
#[derive(Debug, Subcommand)]
pub enum GbcsCommand {
    /// Show a CS02b Command, pre-command, Response or Alert
    #[command(after_help = "Examples:\n  smkictl gbcs show 00DB1234567890A0.bin\n  \
        smkictl gbcs show --certificate recovery.pem 00DB1234567890A0.bin\n  \
        smkictl gbcs show --root root-oca.pem 00DB1234567890A0.bin\n  xxd -p message | smkictl gbcs show -\n\n\
        The Contingency Symmetric Key of a Command of mode anyByContingency is not shown, and no digest of it either: of the key only its \
        length. --show-symmetric-key shows it, on a screen or in a file where it then stays.")]
    Show(GbcsShow),
}

impl GbcsCommand {
    /// Runs it: see [`run`].
    pub fn run(self, output: Output, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
        match self {
            Self::Show(args) => run(&GbcsShow { output, ..args }, out, err),
        }
    }
}

/// Arguments of `smkictl gbcs show`.
#[derive(Debug, Args)]
pub struct GbcsShow {
    /// The message, binary or hexadecimal; `-` for standard input
    #[arg(value_name = "FILE")]
    pub file: String,
    /// Check the signature with the key of this certificate (PEM)
    #[arg(long, value_name = "FILE.pem")]
    pub certificate: Option<PathBuf>,
    /// Look at a Contingency command as a Device does that holds this Root OCA Certificate (PEM)
    #[arg(long, value_name = "FILE.pem")]
    pub root: Option<PathBuf>,
    /// Show the Contingency Symmetric Key too, in hexadecimal
    #[arg(long)]
    pub show_symmetric_key: bool,
    /// For people or for programs
    #[arg(skip)]
    pub output: Output,
}

/// Why a message cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// A file cannot be read.
    #[error("cannot read {name}: {error}")]
    Read {
        /// Which.
        name: String,
        /// Why.
        error: io::Error,
    },
    /// The answer cannot be written.
    #[error("cannot write the answer: {0}")]
    Write(io::Error),
    /// A file is too long to be what it should be.
    #[error("{name}: expected at most {max} octets, found more")]
    TooLong {
        /// Which.
        name: String,
        /// The limit.
        max: usize,
    },
    /// The input is text, but not hexadecimal digits in pairs.
    #[error("the message is text with an odd number of hexadecimal digits, {digits}; is its end missing?")]
    OddHex {
        /// How many.
        digits: usize,
    },
    /// The input has no octets.
    #[error("the message is empty; expected a CS02b message, binary or hexadecimal")]
    Empty,
    /// Not a CS02b message.
    #[error("not a CS02b message: {0}")]
    Decode(#[from] DecodeError),
    /// The certificate to verify with cannot be used.
    #[error("the certificate to verify with: {0}")]
    Certificate(#[from] CertificateError),
    /// The Root OCA Certificate to verify with cannot be read.
    #[error("the Root OCA Certificate to verify with: {0}")]
    Root(#[from] RootError),
}

/// What checking the signature came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verification {
    /// Nobody asked.
    NotAsked,
    /// There is none: a pre-command, or a MAC only.
    NoSignature,
    /// It is not by the certificate's key over these octets.
    Invalid,
    /// It is.
    Valid,
}

/// A message, and all that is shown of it.
pub struct Shown<'a> {
    message: Message<'a>,
    file: Option<&'a str>,
    certificate_file: Option<&'a Path>,
    certificate: Option<Certificate>,
    verification: Verification,
    root: Option<Findings>,
    shows_symmetric_key: bool,
}

impl<'a> Shown<'a> {
    /// Decodes a message, and checks its signature if there is a certificate. A pre-command of mode anyByContingency may have the place of
    /// its symmetric key empty, as it is recorded.
    ///
    /// `octets` are the message, as [`message_octets`] returns it.
    pub fn new(octets: &'a [u8], certificate_pem: Option<&[u8]>) -> Result<Self, ShowError> {
        let message = Message::decode(octets).or_else(|error| Message::decode_unfilled(octets).map_err(|_| error))?;
        let certificate = certificate_pem.map(Certificate::from_pem).transpose()?;
        let verification = match (&certificate, message.frame.signature()) {
            (None, _) => Verification::NotAsked,
            (Some(_), None) => Verification::NoSignature,
            (Some(certificate), Some(signature)) => {
                if verify_signature(message.frame.tbs(), signature, certificate.public_point()?) {
                    Verification::Valid
                } else {
                    Verification::Invalid
                }
            }
        };
        Ok(Self {
            message,
            file: None,
            certificate_file: None,
            certificate,
            verification,
            root: None,
            shows_symmetric_key: false,
        })
    }

    /// Looks at it as a Device does that holds this Root OCA Certificate (PEM).
    pub fn look_with(&mut self, root_pem: &[u8], now: Timestamp) -> Result<(), RootError> {
        let root = root::read(root_pem)?;
        self.root = Some(root::look(&self.message, &root, now));
        Ok(())
    }

    /// What checking the signature came to.
    pub fn verification(&self) -> Verification {
        self.verification
    }

    /// Why it is not to be trusted: what was asked to be verified and was not.
    fn faults(&self) -> Vec<String> {
        let signature = match self.verification {
            Verification::NotAsked | Verification::Valid => None,
            Verification::NoSignature => Some(
                "there is no signature to verify: only a Command after signing, a Response or an Alert has one"
                    .to_owned(),
            ),
            Verification::Invalid => {
                Some("the signature does not verify with this certificate: do not trust the message".to_owned())
            }
        };
        let root = self.root.iter().flat_map(Findings::faults).map(|fault| format!("with this root: {}", fault.text));
        signature.into_iter().chain(root).collect()
    }
}

/// The message in `input`: hexadecimal if it is nothing but hexadecimal digits and white space, else binary. No message
/// could be taken for the other: each begins with an octet that is no ASCII.
pub fn message_octets(input: &[u8]) -> Result<Zeroizing<Vec<u8>>, ShowError> {
    if !input.iter().all(|octet| octet.is_ascii_hexdigit() || octet.is_ascii_whitespace()) {
        return Ok(Zeroizing::new(input.to_vec()));
    }
    let digits: Zeroizing<Vec<u8>> =
        Zeroizing::new(input.iter().copied().filter(|octet| !octet.is_ascii_whitespace()).collect());
    if digits.is_empty() {
        return Err(ShowError::Empty);
    }
    hex::decode(&digits).map(Zeroizing::new).map_err(|_| ShowError::OddHex { digits: digits.len() })
}

/// Shows a message: the answer on `out`, everything else on `err`.
///
/// Returns the exit status: 0 done, 1 local failure (a file that cannot be read, a message that cannot be decoded), 5 there
/// is no signature that verifies with the given certificate, or a Device that holds the given Root would not take it, or should not be sent it.
pub fn run(args: &GbcsShow, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    match show(args, out) {
        Ok(faults) if faults.is_empty() => DONE,
        Ok(faults) => {
            for fault in &faults {
                complain(err, fault);
            }
            VERIFICATION_FAILED
        }
        Err(error) => {
            complain(err, &error.to_string());
            LOCAL_FAILURE
        }
    }
}

/// Where even standard error is closed there is nobody left to tell; the exit status still says it.
fn complain(err: &mut dyn Write, text: &str) {
    let _ = writeln!(err, "smkictl gbcs show: {text}");
}

fn show(args: &GbcsShow, out: &mut dyn Write) -> Result<Vec<String>, ShowError> {
    let GbcsShow { file, certificate, root, show_symmetric_key, output } = args;
    let input = if file == "-" {
        read("standard input", &mut io::stdin().lock(), INPUT_LEN_MAX)?
    } else {
        read_file(Path::new(file), INPUT_LEN_MAX)?
    };
    let pem = certificate.as_deref().map(|path| read_file(path, CERTIFICATE_FILE_LEN_MAX)).transpose()?;
    let octets = message_octets(&input)?;
    let mut shown = Shown::new(&octets, pem.as_ref().map(|pem| pem.as_slice()))?;
    shown.file = (file != "-").then_some(file);
    shown.certificate_file = certificate.as_deref();
    shown.shows_symmetric_key = *show_symmetric_key;
    if let Some(path) = root {
        shown.look_with(&read_file(path, CERTIFICATE_FILE_LEN_MAX)?, wall_clock())?;
    }
    let answer = Zeroizing::new(match output {
        Output::Text => text::render(&shown),
        Output::Json => format!("{:#}\n", json::render(&shown)),
    });
    out.write_all(answer.as_bytes()).and_then(|()| out.flush()).map_err(ShowError::Write)?;
    Ok(shown.faults())
}

pub(super) fn read_file(path: &Path, max: usize) -> Result<Zeroizing<Vec<u8>>, ShowError> {
    let name = path.display().to_string();
    let mut file = File::open(path).map_err(|error| ShowError::Read { name: name.clone(), error })?;
    read(&name, &mut file, max)
}

/// A mode 9 Command carries a symmetric key: hence wiped, and room for all of it at once, so that no copy is left behind.
fn read(name: &str, from: &mut dyn Read, max: usize) -> Result<Zeroizing<Vec<u8>>, ShowError> {
    let mut octets = Zeroizing::new(Vec::with_capacity(max + 1));
    let limit = u64::try_from(max).expect("a limit of kilobytes") + 1;
    from.take(limit).read_to_end(&mut octets).map_err(|error| ShowError::Read { name: name.to_owned(), error })?;
    if octets.len() > max { Err(ShowError::TooLong { name: name.to_owned(), max }) } else { Ok(octets) }
}

#[cfg(test)]
mod tests;
