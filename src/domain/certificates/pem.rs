//! Pure. Text armour (RFC 7468) in and out: certificates, public keys, and whatever else a file of blocks holds.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use der::pem::{LineEnding, decode_vec, encode_string};

use super::signature::{PublicKey, PublicKeyError};
use super::x509::{Certificate, X509Error};

/// Most octets of a text that is read for blocks. Twenty certificates with chatter fit; a mistaken upload does not.
pub const TEXT_LEN_MAX: usize = 256 * 1024; // No official reference.

/// Most certificates in one text.
pub const CERTIFICATES_MAX: usize = 64; // No official reference.

/// Characters of each line inside a block but the last (RFC 7468 2).
const LINE_LEN: usize = 64;

/// What stands in the first line of a certificate.
pub const CERTIFICATE: &str = "CERTIFICATE";
const PUBLIC_KEY: &str = "PUBLIC KEY";

/// Why a text is not the PEM that was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// Longer than [`TEXT_LEN_MAX`].
    #[error("PEM: expected at most {TEXT_LEN_MAX} octets, found {found}")]
    TooLong {
        /// How many octets there were.
        found: usize,
    },
    /// Octets that are no text.
    #[error("PEM: expected text, found octet {octet} that is not UTF-8; is the file DER?")]
    NotText {
        /// Where the text ends to be text.
        octet: usize,
    },
    /// A block begins and does not end.
    #[error("PEM: line {line}: expected a line -----END {label}----- to end the block that begins here")]
    Unended {
        /// The line of `-----BEGIN`, counted from 1.
        line: usize,
        /// The block's label.
        label: String,
    },
    /// A block's inside is not base64 in lines of equal length.
    #[error("PEM: line {line}: block {label}: {fault}")]
    Block {
        /// The line of `-----BEGIN`, counted from 1.
        line: usize,
        /// The block's label.
        label: String,
        /// What is wrong with it.
        fault: der::pem::Error,
    },
    /// Nothing of the wanted kind is there.
    #[error("PEM: expected a block -----BEGIN {wanted}-----, found {found}")]
    Absent {
        /// The label that was wanted.
        wanted: &'static str,
        /// The labels that are there.
        found: String,
    },
    /// More of the wanted kind than are expected.
    #[error("PEM: expected at most {max} blocks -----BEGIN {wanted}-----, found {found}")]
    TooMany {
        /// The label that was wanted.
        wanted: &'static str,
        /// How many there may be.
        max: usize,
        /// How many there are.
        found: usize,
    },
    /// A block holds no certificate.
    #[error("PEM: line {line}: {fault}")]
    Certificate {
        /// The line of `-----BEGIN`, counted from 1.
        line: usize,
        /// What is wrong with it.
        fault: X509Error,
    },
    /// A block holds no public key of ours.
    #[error("PEM: line {line}: {fault}")]
    PublicKey {
        /// The line of `-----BEGIN`, counted from 1.
        line: usize,
        /// What is wrong with it.
        fault: PublicKeyError,
    },
}

/// One block of a text, still armoured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Block<'a> {
    /// What stands in its first line, such as `CERTIFICATE`.
    pub label: &'a str,
    /// The block from `-----BEGIN` to the end of its last line.
    pub text: &'a str,
    /// The line it begins on, counted from 1.
    pub line: usize,
}

impl Block<'_> {
    /// The octets inside.
    pub fn decode(&self) -> Result<Vec<u8>, PemError> {
        // A certificate is no secret: millions are read in a quarter of the time that decoding takes which tells nothing by how long it takes.
        if self.label == CERTIFICATE
            && let Some(octets) = self.decode_public()
        {
            return Ok(octets);
        }
        match decode_vec(self.text.as_bytes()) {
            Ok((_, octets)) => Ok(octets),
            Err(fault) => Err(PemError::Block { line: self.line, label: self.label.to_owned(), fault }),
        }
    }
}

impl Block<'_> {
    /// The octets of a block that is written as most are: full lines and a last one. None of any other, of which the strict decoder says what
    /// is wrong.
    fn decode_public(&self) -> Option<Vec<u8>> {
        let inside = self.text.strip_prefix("-----BEGIN ")?.strip_prefix(self.label)?.strip_prefix("-----\n")?;
        let inside = inside.strip_suffix("-----")?.strip_suffix(self.label)?.strip_suffix("-----END ")?;
        let (mut digits, mut rest) = (Vec::with_capacity(inside.len()), inside.as_bytes());
        while !rest.is_empty() {
            let (line, after) = rest.split_at_checked(LINE_LEN + 1).unwrap_or((rest, &[]));
            // A line feed too early is no digit.
            digits.extend_from_slice(line.strip_suffix(b"\n")?);
            rest = after;
        }
        STANDARD.decode(digits).ok().filter(|octets| !octets.is_empty())
    }
}

/// The blocks of a text, in order. What stands between them is skipped, as every tool does.
pub fn blocks(text: &str) -> Result<Vec<Block<'_>>, PemError> {
    if text.len() > TEXT_LEN_MAX {
        return Err(PemError::TooLong { found: text.len() });
    }
    blocks_of_any(text)
}

/// The DER of every certificate of a text whose length the caller has limited, in order: for bundles of Devices' certificates.
/// Nothing of a certificate is read but its armour.
pub fn bundle(text: &str) -> Result<Vec<Vec<u8>>, PemError> {
    let all = blocks_of_any(text)?;
    let wanted: Vec<_> = all.iter().filter(|block| block.label == CERTIFICATE).collect();
    if wanted.is_empty() {
        return Err(absent(CERTIFICATE, &all));
    }
    wanted.into_iter().map(Block::decode).collect()
}

fn blocks_of_any(text: &str) -> Result<Vec<Block<'_>>, PemError> {
    const BEGIN: &str = "-----BEGIN ";
    const DASHES: &str = "-----";
    let mut found = Vec::new();
    let mut open: Option<(usize, usize, &str)> = None; // (offset, line, label)
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let trimmed = line.trim_end();
        match open {
            None => {
                if let Some(label) = trimmed.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(DASHES)) {
                    open = Some((offset, index + 1, label));
                }
            }
            Some((from, first_line, label)) => {
                let ends = trimmed.strip_prefix("-----END ").and_then(|rest| rest.strip_suffix(DASHES)) == Some(label);
                if ends {
                    found.push(Block { label, text: &text[from..offset + trimmed.len()], line: first_line });
                    open = None;
                }
            }
        }
        offset += line.len();
    }
    match open {
        None => Ok(found),
        Some((_, line, label)) => Err(PemError::Unended { line, label: label.to_owned() }),
    }
}

/// Whether octets look like text armour and not like DER.
pub fn is_pem(octets: &[u8]) -> bool {
    const MARK: &[u8] = b"-----BEGIN ";
    // DER of everything that is read here begins with a SEQUENCE; a file of blocks may begin with chatter.
    octets.first() != Some(&0x30) && octets.windows(MARK.len()).any(|window| window == MARK)
}

/// The text of octets that are to be PEM.
pub fn text(octets: &[u8]) -> Result<&str, PemError> {
    std::str::from_utf8(octets).map_err(|fault| PemError::NotText { octet: fault.valid_up_to() })
}

/// Every certificate of a text, at least one, in order. Blocks of other kinds are skipped.
pub fn certificates(text: &str) -> Result<Vec<Certificate>, PemError> {
    let all = blocks(text)?;
    let wanted: Vec<_> = all.iter().filter(|block| block.label == CERTIFICATE).collect();
    if wanted.is_empty() {
        return Err(absent(CERTIFICATE, &all));
    }
    if wanted.len() > CERTIFICATES_MAX {
        return Err(PemError::TooMany { wanted: CERTIFICATE, max: CERTIFICATES_MAX, found: wanted.len() });
    }
    wanted
        .into_iter()
        .map(|block| {
            Certificate::from_der(&block.decode()?).map_err(|fault| PemError::Certificate { line: block.line, fault })
        })
        .collect()
}

/// The one certificate of a text.
pub fn certificate(text: &str) -> Result<Certificate, PemError> {
    let mut all = certificates(text)?;
    match all.len() {
        1 => Ok(all.remove(0)),
        found => Err(PemError::TooMany { wanted: CERTIFICATE, max: 1, found }),
    }
}

/// The one public key of a text, as `openssl pkey -pubout` writes it.
pub fn public_key(text: &str) -> Result<PublicKey, PemError> {
    let all = blocks(text)?;
    let mut wanted = all.iter().filter(|block| block.label == PUBLIC_KEY);
    let block = wanted.next().ok_or_else(|| absent(PUBLIC_KEY, &all))?;
    match wanted.count() {
        0 => PublicKey::from_spki(&block.decode()?).map_err(|fault| PemError::PublicKey { line: block.line, fault }),
        more => Err(PemError::TooMany { wanted: PUBLIC_KEY, max: 1, found: more + 1 }),
    }
}

/// A certificate as PEM.
pub fn certificate_to_pem(certificate: &[u8]) -> String {
    to_pem(CERTIFICATE, certificate)
}

/// A public key as PEM.
pub fn public_key_to_pem(key: &PublicKey) -> String {
    to_pem(PUBLIC_KEY, &key.to_spki())
}

/// A certification request as PEM.
pub fn request_to_pem(request: &[u8]) -> String {
    to_pem("CERTIFICATE REQUEST", request)
}

/// Octets as PEM.
pub(crate) fn to_pem(label: &'static str, octets: &[u8]) -> String {
    encode_string(label, LineEnding::LF, octets).expect("the labels are ours and memory holds the octets already")
}

/// What to say when no block of the wanted kind is there.
pub(crate) fn absent(wanted: &'static str, all: &[Block<'_>]) -> PemError {
    const NAMED_MAX: usize = 5; // Enough to see the mistake by.
    let mut found: Vec<_> = all.iter().take(NAMED_MAX).map(|block| block.label).collect();
    if found.is_empty() {
        found.push("no block at all");
    }
    PemError::Absent { wanted, found: found.join(", ") }
}

#[cfg(test)]
mod tests;
