//! Pure. The five forms that the subject of a certificate of the SMKI takes.

use der::asn1::{AnyRef, ObjectIdentifier, PrintableStringRef, SetOfVec, Utf8StringRef};
use der::{Encode, Tag};

use super::x509::{COMMON_NAME, NameAttribute, ORGANISATIONAL_UNIT, Rdns, UNIQUE_IDENTIFIER, X509Error};
use super::x509::{name, octets_of_bit_string, string};
use crate::domain::names::{Eui64, PartyId};

/// OU of an Issuing OCA (GBCS section 12).
pub const OU_ISSUING_OCA: &str = "07";
/// OU of a Root OCA (GBCS section 12).
pub const OU_ROOT_OCA: &str = "00";
/// Most characters of a commonName (RFC 5280, ub-common-name).
pub const COMMON_NAME_LEN_MAX: usize = 64;

/// Whom a certificate is about. The order and types of what is written are those of GBCS section 12.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A Remote Party: `[CN]`, `OU`, `uniqueIdentifier`, each an RDN of its own.
    Organisation(OrganisationSubject),
    /// An Issuing OCA: `OU=07, CN`.
    IssuingOca {
        /// Its name.
        common_name: String,
    },
    /// A Root OCA: `OU=00, CN`.
    RootOca {
        /// Its name.
        common_name: String,
    },
    /// A CA that issues Device Certificates: `CN`, as the issuer of Device Certificates is named.
    DeviceCa {
        /// Its name.
        common_name: String,
    },
    /// A Device: no name at all. Its EUI-64 is in subjectAltName.
    Device,
}

/// The subject of an Organisation Certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OrganisationSubject {
    /// A name, which may be left out.
    pub common_name: Option<String>,
    /// The number of its RemotePartyRole, which OU shows as two upper-case hexadecimal digits: 1 is recovery.
    pub role: u8,
    /// Its EUI-64, which uniqueIdentifier carries as a BIT STRING of 64 bits.
    pub party: PartyId,
}

/// Why a subject is of none of the forms, or cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// Other attributes, or in another order.
    #[error(
        "subject: expected nothing (Device), [CN] OU uniqueIdentifier (Organisation), OU CN (OCA) or CN (Device CA), each an \
         RDN of its own, found {found}"
    )]
    Form {
        /// The attributes in their order.
        found: String,
    },
    /// OU does not name a role.
    #[error("subject: expected OU of two upper-case hexadecimal digits as text, found {found}")]
    Role {
        /// What stood there.
        found: String,
    },
    /// OU of a CA is not 00 or 07.
    #[error("subject: expected OU=07 (Issuing OCA) or OU=00 (Root OCA) before CN, found OU={found}")]
    CaUnit {
        /// What stood there.
        found: String,
    },
    /// The EUI-64 is missing its form.
    #[error(
        "subject: expected uniqueIdentifier as a BIT STRING of 8 octets, found {found_len} octets of another kind or length"
    )]
    UniqueIdentifier {
        /// How many octets of contents there were.
        found_len: usize,
    },
    /// CN is not a short text.
    #[error(
        "subject: expected CN of 1 to {COMMON_NAME_LEN_MAX} characters as PrintableString or UTF8String, found {found_len} octets"
    )]
    CommonName {
        /// How many octets of contents there were.
        found_len: usize,
    },
    /// A CA's CN has characters that PrintableString lacks.
    #[error(
        "subject: expected CN of a CA within PrintableString (letters, digits, space and '()+,-./:=?), found {found:?}"
    )]
    NotPrintable {
        /// What was given.
        found: String,
    },
    /// Not a name at all.
    #[error(transparent)]
    Name(#[from] X509Error),
}

impl Subject {
    /// Reads a subject from the DER of a name.
    pub fn from_der(der: &[u8]) -> Result<Self, SubjectError> {
        let rdns = name(der)?;
        let parts: Vec<_> = rdns.iter().flat_map(SetOfVec::iter).collect();
        let kinds: Vec<_> = parts.iter().map(|part| part.kind).collect();
        let separate = rdns.iter().all(|rdn| rdn.len() == 1);
        match (separate, kinds.as_slice()) {
            (true, []) => Ok(Self::Device),
            (true, &[COMMON_NAME]) => Ok(Self::DeviceCa { common_name: common_name(parts[0])? }),
            (true, &[ORGANISATIONAL_UNIT, COMMON_NAME]) => {
                let common_name = common_name(parts[1])?;
                match string(parts[0].value) {
                    Some(OU_ISSUING_OCA) => Ok(Self::IssuingOca { common_name }),
                    Some(OU_ROOT_OCA) => Ok(Self::RootOca { common_name }),
                    Some(_) | None => Err(SubjectError::CaUnit { found: shown(parts[0].value) }),
                }
            }
            (true, &[ORGANISATIONAL_UNIT, UNIQUE_IDENTIFIER]) => {
                organisation(None, parts[0], parts[1]).map(Self::Organisation)
            }
            (true, &[COMMON_NAME, ORGANISATIONAL_UNIT, UNIQUE_IDENTIFIER]) => {
                organisation(Some(common_name(parts[0])?), parts[1], parts[2]).map(Self::Organisation)
            }
            (_, kinds) => {
                let kinds: Vec<_> = kinds.iter().map(|kind| short(*kind)).collect();
                let found = if separate { kinds.join(" ") } else { format!("{} (not separate RDNs)", kinds.join(" ")) };
                Err(SubjectError::Form { found })
            }
        }
    }

    /// Writes the name in DER. A role and an Organisation's CN are UTF8String; what names a CA is PrintableString.
    pub fn to_der(&self) -> Result<Vec<u8>, SubjectError> {
        let fault = |fault| SubjectError::Name(super::DerFault::within("name")(fault).into());
        let role;
        let mut bits = [0; 1 + Eui64::LEN];
        let attributes: Vec<(ObjectIdentifier, AnyRef<'_>)> = match self {
            Self::Device => Vec::new(),
            Self::DeviceCa { common_name } => vec![(COMMON_NAME, printable(common_name)?)],
            Self::IssuingOca { common_name } => {
                vec![(ORGANISATIONAL_UNIT, printable(OU_ISSUING_OCA)?), (COMMON_NAME, printable(common_name)?)]
            }
            Self::RootOca { common_name } => {
                vec![(ORGANISATIONAL_UNIT, printable(OU_ROOT_OCA)?), (COMMON_NAME, printable(common_name)?)]
            }
            Self::Organisation(OrganisationSubject { common_name, role: number, party }) => {
                role = format!("{number:02X}");
                bits[1..].copy_from_slice(party.0.octets()); // The first octet counts the unused bits: none.
                let unit = AnyRef::from(Utf8StringRef::new(&role).map_err(fault)?);
                let id = AnyRef::new(Tag::BitString, &bits).map_err(fault)?;
                let name = common_name.as_deref().map(utf8).transpose()?.map(|name| (COMMON_NAME, name));
                name.into_iter().chain([(ORGANISATIONAL_UNIT, unit), (UNIQUE_IDENTIFIER, id)]).collect()
            }
        };
        let rdn = |(kind, value)| SetOfVec::from_iter([NameAttribute { kind, value }]);
        let rdns: Rdns<'_> = attributes.into_iter().map(rdn).collect::<Result<_, _>>().map_err(fault)?;
        rdns.to_der().map_err(fault)
    }
}

fn organisation(
    common_name: Option<String>,
    unit: &NameAttribute<'_>,
    id: &NameAttribute<'_>,
) -> Result<OrganisationSubject, SubjectError> {
    let digits = |text: &&str| text.len() == 2 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
    let role = string(unit.value).filter(digits).and_then(|text| u8::from_str_radix(text, 16).ok());
    let role = role.ok_or_else(|| SubjectError::Role { found: shown(unit.value) })?;
    let party = octets_of_bit_string(id.value).and_then(|octets| Eui64::try_from(octets).ok()).map(PartyId);
    let party = party.ok_or(SubjectError::UniqueIdentifier { found_len: id.value.value().len() })?;
    Ok(OrganisationSubject { common_name, role, party })
}

fn common_name(attribute: &NameAttribute<'_>) -> Result<String, SubjectError> {
    let fits = |text: &&str| (1..=COMMON_NAME_LEN_MAX).contains(&text.chars().count());
    let text = string(attribute.value).filter(fits).map(ToOwned::to_owned);
    text.ok_or(SubjectError::CommonName { found_len: attribute.value.value().len() })
}

fn printable(text: &str) -> Result<AnyRef<'_>, SubjectError> {
    check_len(text)?;
    PrintableStringRef::new(text)
        .map(AnyRef::from)
        .map_err(|_| SubjectError::NotPrintable { found: text.chars().take(COMMON_NAME_LEN_MAX).collect() })
}

fn utf8(text: &str) -> Result<AnyRef<'_>, SubjectError> {
    check_len(text)?;
    Utf8StringRef::new(text).map(AnyRef::from).map_err(|_| SubjectError::CommonName { found_len: text.len() })
}

fn check_len(text: &str) -> Result<(), SubjectError> {
    let fits = (1..=COMMON_NAME_LEN_MAX).contains(&text.chars().count());
    if fits { Ok(()) } else { Err(SubjectError::CommonName { found_len: text.len() }) }
}

fn shown(value: AnyRef<'_>) -> String {
    const SHOWN_MAX: usize = 20; // A role has two characters.
    match string(value) {
        Some(text) => format!("{:?}", text.chars().take(SHOWN_MAX).collect::<String>()),
        None => format!("a {} of {} octets", value.header().tag(), value.value().len()),
    }
}

fn short(kind: ObjectIdentifier) -> String {
    match kind {
        COMMON_NAME => "CN".to_owned(),
        ORGANISATIONAL_UNIT => "OU".to_owned(),
        UNIQUE_IDENTIFIER => "uniqueIdentifier".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
