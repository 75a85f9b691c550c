//! Shell: what the people's tools read and write. Each file has a limit, and none is overwritten.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::MemberError;
use crate::cli::input;
use crate::domain::certificates::{Certificate, pem};
use crate::domain::custody::Statement;
use crate::domain::determination::devices::DeviceListReader;
use crate::domain::determination::document::{
    DOCUMENT_LEN_MAX, Determination, DeviceList, Document, DocumentFault, Form as _, Schedule, Suspension, Withdrawal,
    Written,
};
use crate::domain::determination::people::Role;
use crate::domain::gbcs::MESSAGE_LEN_MAX;
use crate::domain::names::{DeviceId, Digest, PersonId, TemplateName};
use crate::domain::policy::Policy;
use crate::domain::policy::adoption::Adoption;
use crate::domain::policy::destruction::Destruction;
use crate::domain::procedure::direction::Direction;

/// The longest file with certificates or a key: a chain in PEM has 4 kB; text around it is allowed.
pub const PEM_LEN_MAX: usize = 256 * 1024;
/// The longest PIN or passphrase file.
pub const SECRET_LEN_MAX: usize = 4 * 1024;
/// The longest command, in hexadecimal with as much white space again.
pub const COMMAND_LEN_MAX: usize = 4 * MESSAGE_LEN_MAX;
/// The longest description of a draft: as long as what is made of it.
pub const DESCRIPTION_LEN_MAX: usize = DOCUMENT_LEN_MAX;
/// What is read of a device list at a time.
pub const PIECE_LEN: usize = 64 * 1024;

/// A whole file. What is read is wiped when it is dropped, whatever it is: some of it is keys and PINs.
pub fn read(path: &Path, max: usize) -> Result<Zeroizing<Vec<u8>>, MemberError> {
    let unreadable = |source| MemberError::Read { path: path.to_owned(), source };
    let mut octets = Zeroizing::new(Vec::new());
    let limit = u64::try_from(max).expect("a limit of megabytes") + 1;
    let mut file = File::open(path).map_err(unreadable)?;
    // Room for all of it at once, so that no copy is left behind.
    let len = file.metadata().map_err(unreadable)?.len().min(limit);
    octets.reserve_exact(usize::try_from(len).unwrap_or(max) + 1);
    (&mut file).take(limit).read_to_end(&mut octets).map_err(unreadable)?;
    if octets.len() > max {
        return Err(MemberError::TooLong { path: path.to_owned(), max });
    }
    Ok(octets)
}

/// A whole file of UTF-8.
pub fn read_text(path: &Path, max: usize) -> Result<Zeroizing<String>, MemberError> {
    let octets = read(path, max)?;
    let text = std::str::from_utf8(&octets).map_err(|_| MemberError::NotText { path: path.to_owned() })?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// A PIN or passphrase: the first line of a file.
pub fn read_secret(path: &Path) -> Result<SecretString, MemberError> {
    let text = read_text(path, SECRET_LEN_MAX)?;
    Ok(SecretString::from(text.lines().next().unwrap_or_default().to_owned()))
}

/// The first certificate of a PEM file, and those behind it.
pub fn read_certificates(path: &Path) -> Result<(Certificate, Vec<Certificate>), MemberError> {
    let unfit = |fault: String| MemberError::Unfit { path: path.to_owned(), fault };
    let octets = read(path, PEM_LEN_MAX)?;
    if !pem::is_pem(&octets) {
        let one = Certificate::from_der(&octets).map_err(|fault| unfit(fault.to_string()))?;
        return Ok((one, Vec::new()));
    }
    let text = pem::text(&octets).map_err(|fault| unfit(fault.to_string()))?;
    let mut all = pem::certificates(text).map_err(|fault| unfit(fault.to_string()))?;
    let rest = all.split_off(1);
    Ok((all.remove(0), rest))
}

/// Writes a new file: whole or not at all, and never over another.
pub fn write_new(path: &Path, octets: &[u8]) -> Result<(), MemberError> {
    write_new_with(path, |file| file.write_all(octets))
}

/// The same with contents that are written as they come.
pub fn write_new_with(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), MemberError> {
    let failed = |source| MemberError::Write { path: path.to_owned(), source };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut fresh = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    fill(fresh.as_file_mut()).and_then(|()| fresh.as_file().sync_all()).map_err(failed)?;
    match fresh.persist_noclobber(path) {
        Ok(_) => {}
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(MemberError::Exists { path: path.to_owned() });
        }
        Err(error) => return Err(failed(error.error)),
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// A policy that can be used.
pub fn read_policy(folder: &Path) -> Result<Policy, MemberError> {
    Policy::parse(&input::policy(folder)?)
        .map_err(|faults| MemberError::Policy { path: folder.to_owned(), faults: lines(&faults) })
}

/// Faults, one a line.
pub fn lines<T: ToString>(faults: &[T]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ")
}

/// Everything that people sign.
#[derive(Clone, Debug)]
pub enum Paper {
    /// What the PMA determined.
    Determination(Box<Written<Determination>>),
    /// The scope of a determination that left it open.
    Schedule(Box<Written<Schedule>>),
    /// The end of a determination.
    Withdrawal(Box<Written<Withdrawal>>),
    /// A pause of it.
    Suspension(Box<Written<Suspension>>),
    /// A policy that takes another's place.
    Adoption(Box<Written<Adoption>>),
    /// A direction about the procedure.
    Direction(Box<Written<Direction>>),
    /// The end of a key.
    Destruction(Box<Written<Destruction>>),
    /// For what a Key Custodian presents a share.
    Statement(Box<Written<Statement>>),
}

impl Paper {
    /// Reads a document of whichever type it says it is.
    pub fn read(octets: &[u8]) -> Result<Self, Vec<DocumentFault>> {
        match Document::read(octets) {
            Ok(Document::Determination(document)) => Ok(Self::Determination(document)),
            Ok(Document::Schedule(document)) => Ok(Self::Schedule(document)),
            Ok(Document::Withdrawal(document)) => Ok(Self::Withdrawal(document)),
            Ok(Document::Suspension(document)) => Ok(Self::Suspension(document)),
            Err(faults) if matches!(faults.as_slice(), [DocumentFault::Type { found, .. }] if found == Adoption::TYPE) => {
                Ok(Self::Adoption(Box::new(Written::read(octets)?)))
            }
            Err(faults) if matches!(faults.as_slice(), [DocumentFault::Type { found, .. }] if found == Direction::TYPE) => {
                Ok(Self::Direction(Box::new(Written::read(octets)?)))
            }
            Err(faults) if matches!(faults.as_slice(), [DocumentFault::Type { found, .. }] if found == Destruction::TYPE) => {
                Ok(Self::Destruction(Box::new(Written::read(octets)?)))
            }
            Err(faults) if matches!(faults.as_slice(), [DocumentFault::Type { found, .. }] if found == Statement::TYPE) => {
                Ok(Self::Statement(Box::new(Written::read(octets)?)))
            }
            Err(faults) => Err(faults),
        }
    }

    /// Reads a file.
    pub fn open(path: &Path) -> Result<Self, MemberError> {
        let octets = read(path, DOCUMENT_LEN_MAX)?;
        Self::read(&octets).map_err(|faults| MemberError::Document { path: path.to_owned(), faults: lines(&faults) })
    }

    /// What stands under `type`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Determination(_) => Determination::TYPE,
            Self::Schedule(_) => Schedule::TYPE,
            Self::Withdrawal(_) => Withdrawal::TYPE,
            Self::Suspension(_) => Suspension::TYPE,
            Self::Adoption(_) => Adoption::TYPE,
            Self::Direction(_) => Direction::TYPE,
            Self::Destruction(_) => Destruction::TYPE,
            Self::Statement(_) => Statement::TYPE,
        }
    }

    /// The octets as they lie.
    pub fn octets(&self) -> &[u8] {
        match self {
            Self::Determination(document) => document.octets(),
            Self::Schedule(document) => document.octets(),
            Self::Withdrawal(document) => document.octets(),
            Self::Suspension(document) => document.octets(),
            Self::Adoption(document) => document.octets(),
            Self::Direction(document) => document.octets(),
            Self::Destruction(document) => document.octets(),
            Self::Statement(document) => document.octets(),
        }
    }

    /// SHA-256 of its octets.
    pub fn digest(&self) -> Digest {
        match self {
            Self::Determination(document) => document.digest(),
            Self::Schedule(document) => document.digest(),
            Self::Withdrawal(document) => document.digest(),
            Self::Suspension(document) => document.digest(),
            Self::Adoption(document) => document.digest(),
            Self::Direction(document) => document.digest(),
            Self::Destruction(document) => document.digest(),
            Self::Statement(document) => document.digest(),
        }
    }

    /// The digest of the policy under which it is approved; of an adoption, the policy that is adopted. None of a statement: it holds or
    /// not by the policy that is in force when the share comes.
    pub fn policy(&self) -> Option<Digest> {
        match self {
            Self::Determination(document) => Some(document.form().policy),
            Self::Schedule(document) => Some(document.form().policy),
            Self::Withdrawal(document) => Some(document.form().policy),
            Self::Suspension(document) => Some(document.form().policy),
            Self::Adoption(document) => Some(document.form().policy),
            Self::Direction(document) => Some(document.form().policy),
            Self::Destruction(document) => Some(document.form().policy),
            Self::Statement(_) => None,
        }
    }

    /// Who proposed it, and may therefore not approve it.
    pub fn proposer(&self) -> Option<&PersonId> {
        match self {
            Self::Determination(document) => Some(&document.form().proposer),
            Self::Schedule(document) => Some(&document.form().proposer),
            Self::Withdrawal(document) => Some(&document.form().proposer),
            Self::Direction(document) => Some(&document.form().proposer),
            Self::Destruction(document) => Some(&document.form().proposer),
            Self::Suspension(_) | Self::Adoption(_) | Self::Statement(_) => None,
        }
    }

    /// Whose signature alone it needs.
    pub fn signed_alone_by(&self) -> Option<&PersonId> {
        match self {
            Self::Suspension(document) => Some(&document.form().member),
            Self::Statement(document) => Some(&document.form().person),
            Self::Determination(_)
            | Self::Schedule(_)
            | Self::Withdrawal(_)
            | Self::Adoption(_)
            | Self::Direction(_)
            | Self::Destruction(_) => None,
        }
    }

    /// What it is called in a sentence.
    pub const fn noun(&self) -> &'static str {
        match self {
            Self::Determination(_) => "determination",
            Self::Schedule(_) => "schedule",
            Self::Withdrawal(_) => "withdrawal",
            Self::Suspension(_) => "suspension",
            Self::Adoption(_) => "adoption",
            Self::Direction(_) => "direction",
            Self::Destruction(_) => "destruction",
            Self::Statement(_) => "statement",
        }
    }

    /// In which role it is signed.
    pub const fn signed_as(&self) -> Role {
        match self {
            Self::Statement(_) => Role::KeyCustodian,
            Self::Determination(_)
            | Self::Schedule(_)
            | Self::Withdrawal(_)
            | Self::Suspension(_)
            | Self::Adoption(_)
            | Self::Direction(_)
            | Self::Destruction(_) => Role::PmaMember,
        }
    }

    /// How its files are called: `ID.json`, `ID.MEMBER.p7s`.
    pub fn stem(&self) -> String {
        match self {
            Self::Determination(document) => document.form().id.to_string(),
            Self::Schedule(document) => format!("{}-schedule", document.form().determination),
            Self::Withdrawal(document) => format!("{}-withdrawal", document.form().determination),
            Self::Suspension(document) => {
                format!("{}-suspension-{}", document.form().determination, document.form().member)
            }
            Self::Adoption(document) => format!("policy-{}", document.form().sequence),
            Self::Direction(document) => format!("{}-direction", document.form().id),
            Self::Destruction(document) => format!("{}-destruction", document.form().key.label),
            Self::Statement(_) => "statement".to_owned(),
        }
    }
}

/// What a device list amounts to.
#[derive(Clone, Debug)]
pub struct ListSeen {
    /// Count, SHA-256 and root.
    pub list: DeviceList,
    /// The first and the last Device.
    pub ends: (DeviceId, DeviceId),
    /// By place among the document's templates.
    pub of_template: Vec<OfTemplate>,
}

/// What a device list says of one template.
#[derive(Clone, Copy, Debug, Default)]
pub struct OfTemplate {
    /// How many Devices it is for.
    pub devices: u64,
    /// The highest counter that one of them is known to have accepted, and which.
    pub counter: Option<(u64, DeviceId)>,
}

/// Reads a device list to its end.
pub fn read_devices(path: &Path, templates: &[&TemplateName]) -> Result<ListSeen, MemberError> {
    let unreadable = |source| MemberError::Read { path: path.to_owned(), source };
    let mut reader = DeviceListReader::new(templates.iter().copied(), u64::MAX);
    let mut of_template = vec![OfTemplate::default(); templates.len()];
    let mut ends = None;
    let mut file = File::open(path).map_err(unreadable)?;
    let mut piece = vec![0; PIECE_LEN];
    loop {
        let read = file.read(&mut piece).map_err(unreadable)?;
        if read == 0 {
            break;
        }
        reader.feed(&piece[..read], |row| {
            let of = &mut of_template[row.template];
            of.devices += 1;
            if let Some(counter) = row.counter
                && of.counter.is_none_or(|(highest, _)| counter > highest)
            {
                of.counter = Some((counter, row.device));
            }
            ends = Some((ends.map_or(row.device, |(first, _)| first), row.device));
        });
    }
    let faults = |faults: String| MemberError::Devices { path: path.to_owned(), faults };
    let list = reader.finish().map_err(|found| faults(found.to_string().replace('\n', "\n  ")))?;
    let ends = ends.expect("a list without a Device is refused");
    Ok(ListSeen { list, ends, of_template })
}

/// Copies a device list that was read before, as a new file.
pub fn copy_devices(from: &Path, to: &Path, expected: Digest) -> Result<(), MemberError> {
    let mut file = File::open(from).map_err(|source| MemberError::Read { path: from.to_owned(), source })?;
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    let mut piece = vec![0; PIECE_LEN];
    write_new_with(to, |copy| {
        loop {
            let read = file.read(&mut piece)?;
            if read == 0 {
                break;
            }
            hash.update(&piece[..read]);
            copy.write_all(&piece[..read])?;
        }
        // A list that somebody writes to meanwhile is not the one that the document names.
        if hash.clone().finish().as_ref() == expected.octets() {
            Ok(())
        } else {
            Err(io::Error::other(format!("{} changed while it was read", from.display())))
        }
    })
}
