//! Shell: what `gbcs show` says of a certificate. Reads any X.509 certificate and checks nothing.

use std::fmt::Write as _;

use x509_parser::der_parser::asn1_rs::{Any, Tag};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{AttributeTypeAndValue, FromDer, X509Certificate, parse_x509_pem};
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

use crate::domain::gbcs::RemotePartyRole;
use crate::domain::names::Eui64;
use crate::domain::time::Timestamp;

const COMMON_NAME: &str = "2.5.4.3";
const ORGANIZATIONAL_UNIT: &str = "2.5.4.11";
const UNIQUE_IDENTIFIER: &str = "2.5.4.45";

/// Why a certificate cannot be read or used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not PEM of one.
    #[error("expected a certificate in PEM (-----BEGIN CERTIFICATE-----), found {0}")]
    Pem(String),
    /// Not DER of one.
    #[error("expected an X.509 certificate, found {0}")]
    Der(String),
    /// Another kind of key.
    #[error("expected an uncompressed P-256 public key of 65 octets, found a key of {0} octets")]
    Key(usize),
}

/// A certificate as it is shown.
#[derive(Clone, Debug)]
pub(super) struct Certificate {
    /// RDNs from last to first, as RFC 4514 writes them.
    pub subject: String,
    /// Likewise.
    pub issuer: String,
    /// By its organizational unit: two hexadecimal digits.
    pub role: Option<RemotePartyRole>,
    /// By its uniqueIdentifier, or a Device's by its subjectAltName.
    pub eui64: Option<Eui64>,
    /// subjectKeyIdentifier, in hexadecimal.
    pub key_id: Option<String>,
    /// RFC 3339.
    pub not_before: String,
    /// RFC 3339.
    pub not_after: String,
    point: Vec<u8>,
}

impl Certificate {
    /// The first certificate of a PEM file.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CertificateError> {
        let (_, pem) = parse_x509_pem(pem).map_err(|error| CertificateError::Pem(error.to_string()))?;
        if pem.label != "CERTIFICATE" {
            return Err(CertificateError::Pem(format!("{:?}", pem.label)));
        }
        Self::from_der(&pem.contents)
    }

    /// The certificate that all of `octets` is.
    pub fn from_der(octets: &[u8]) -> Result<Self, CertificateError> {
        let (rest, certificate) =
            X509Certificate::from_der(octets).map_err(|error| CertificateError::Der(error.to_string()))?;
        if !rest.is_empty() {
            return Err(CertificateError::Der(format!("{} octets after one", rest.len())));
        }
        let attribute = |oid: &str| {
            let mut attributes = certificate.subject().iter_attributes();
            attributes
                .find(|attribute| attribute.attr_type().to_id_string() == oid)
                .map(AttributeTypeAndValue::attr_value)
        };
        let role = attribute(ORGANIZATIONAL_UNIT)
            .and_then(|value| std::str::from_utf8(value.data).ok())
            .filter(|text| text.len() == 2)
            .and_then(|text| u64::from_str_radix(text, 16).ok())
            .and_then(RemotePartyRole::from_code);
        let unique_id = attribute(UNIQUE_IDENTIFIER).and_then(|value| match value.data {
            [0, octets @ ..] => Eui64::try_from(octets).ok(),
            _ => None,
        });
        let mut key_id = None;
        let mut device_id = None;
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => key_id = Some(hex::encode(id.0)),
                ParsedExtension::SubjectAlternativeName(names) => {
                    device_id = names.general_names.iter().find_map(hardware_serial_number);
                }
                _ => {}
            }
        }
        Ok(Self {
            subject: name_text(certificate.subject()),
            issuer: name_text(certificate.issuer()),
            role,
            eui64: unique_id.or(device_id),
            key_id,
            not_before: time_text(certificate.validity().not_before),
            not_after: time_text(certificate.validity().not_after),
            point: certificate.public_key().subject_public_key.data.to_vec(),
        })
    }

    /// The public key, `04 ‖ x ‖ y`.
    pub fn public_point(&self) -> Result<&[u8; 65], CertificateError> {
        self.point.as_slice().try_into().map_err(|_| CertificateError::Key(self.point.len()))
    }
}

/// `hwSerialNum` of a HardwareModuleName (RFC 4108): the OCTET STRING at its end, a Device's EUI-64.
fn hardware_serial_number(name: &GeneralName<'_>) -> Option<Eui64> {
    match name {
        GeneralName::OtherName(_, value) => match value.last_chunk::<10>()? {
            [0x04, 0x08, octets @ ..] => Some(Eui64(*octets)),
            _ => None,
        },
        _ => None,
    }
}

fn time_text(time: ASN1Time) -> String {
    let known = time.timestamp().checked_mul(1000).and_then(|unix_ms| Timestamp::from_unix_ms(unix_ms).ok());
    known.map_or_else(|| time.to_string(), |time| time.to_string())
}

/// A name as RFC 4514 writes it, from its last RDN to its first. What is no text is shown as `#` and the hexadecimal of
/// its contents.
fn name_text(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter_rdn()
        .map(|rdn| {
            let attributes: Vec<String> = rdn
                .iter()
                .map(|attribute| {
                    let oid = attribute.attr_type().to_id_string();
                    let key = match oid.as_str() {
                        COMMON_NAME => "CN",
                        ORGANIZATIONAL_UNIT => "OU",
                        _ => &oid,
                    };
                    format!("{key}={}", value_text(attribute.attr_value()))
                })
                .collect();
            attributes.join("+")
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

/// The text of a value, with whatever could be taken for structure, or act on a terminal, escaped.
fn value_text(value: &Any<'_>) -> String {
    let text = match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String => std::str::from_utf8(value.data).ok(),
        _ => None,
    };
    let Some(text) = text else {
        return format!("#{}", hex::encode(value.data));
    };
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=' | '#' => escaped.extend(['\\', character]),
            // Direction marks too: they can make one name look like another.
            _ if character.is_control()
                || matches!(character, '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2069}') =>
            {
                let mut octets = [0; 4];
                for octet in character.encode_utf8(&mut octets).bytes() {
                    write!(escaped, "\\{octet:02X}").expect("a String takes everything");
                }
            }
            _ => escaped.push(character),
        }
    }
    escaped
}
