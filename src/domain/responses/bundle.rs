//! Pure. Devices' certificates, DER, one after another: those that are imported once, so that Responses need none, and those that are given
//! with Responses.
//!
//! No tool asks for one form: PEM is taken apart where it is read (`smkictl`), and what is kept is a third shorter without it.

use std::borrow::Cow;

use super::trust::{DeviceKey, Trust};
use crate::domain::certificates::pem;
use crate::domain::names::DeviceId;
use crate::domain::policy::Policy;

/// Certificates of one entry. Each costs a look-up and a row while everybody waits for the recorder: together some 50 ms.
pub const CERTIFICATES_MAX: usize = 4_096;

/// Octets of them. A Device's certificate has some 500.
pub const BUNDLE_LEN_MAX: u64 = 8 * 1024 * 1024;

/// Why octets are no such bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Something else than a certificate.
    #[error(
        "octet {octet}: expected a certificate in DER (30 82 or 30 81, a length, so many octets), found something else"
    )]
    NotDer {
        /// Where, counted from 0.
        octet: usize,
    },
    /// Too many for one entry.
    #[error("expected at most {CERTIFICATES_MAX} certificates, found more; hand them in in parts, as smkictl does")]
    TooMany,
}

/// How many octets the certificate takes that `octets` begin with: a SEQUENCE of 128 to 65,535 octets and its header
/// (X.690 8.1.3.5). None if nothing of that form is there.
pub fn certificate_len(octets: &[u8]) -> Option<usize> {
    match *octets {
        [0x30, 0x81, len, ..] if len >= 0x80 => Some(3 + usize::from(len)),
        [0x30, 0x82, high, low, ..] if high > 0 => Some(4 + usize::from(u16::from_be_bytes([high, low]))),
        _ => None,
    }
}

/// Of which Device's signatures a certificate says it is, as far as its octets show where SMKI certificates have it: the serial number of
/// its hardwareModuleName, and a keyUsage of digitalSignature alone. A guess for whoever sorts millions that the daemon reads and verifies.
pub fn signing_device(der: &[u8]) -> Option<DeviceId> {
    /// keyUsage 2.5.29.15, critical, `03 02 07 80` (GBCS section 12).
    const SIGNATURES: &[u8] = &[0x06, 3, 0x55, 0x1D, 0x0F, 0x01, 1, 0xFF, 0x04, 4, 3, 2, 7, 0x80];
    /// id-on-hardwareModuleName 1.3.6.1.5.5.7.8.4 (RFC 4108 5).
    const HARDWARE_MODULE_NAME: &[u8] = &[0x06, 8, 0x2B, 6, 1, 5, 5, 7, 8, 4];
    let find = |wanted: &[u8]| memchr::memmem::find(der, wanted).map(|at| at + wanted.len());
    find(SIGNATURES)?;
    // [0] { SEQUENCE { hwType, hwSerialNum } }
    let rest = match der.get(find(HARDWARE_MODULE_NAME)?..)? {
        [0xA0, _, 0x30, _, 0x06, len, rest @ ..] => rest.get(usize::from(*len)..)?,
        _ => return None,
    };
    let serial: [u8; 8] = *rest.strip_prefix(&[0x04, 8])?.first_chunk()?;
    Some(DeviceId(serial.into()))
}

/// The certificates of a bundle, of which nothing is read but where each ends; no more than one entry takes.
pub fn split(octets: &[u8]) -> Result<Vec<&[u8]>, BundleError> {
    let all = all(octets, CERTIFICATES_MAX + 1)?;
    if all.len() > CERTIFICATES_MAX { Err(BundleError::TooMany) } else { Ok(all) }
}

/// Certificates that are given with Responses: DER, or PEM as older entries have it.
///
/// # Errors
/// What was expected, and what was found.
pub fn given(octets: &[u8]) -> Result<Vec<Cow<'_, [u8]>>, String> {
    match octets.first() {
        None => Ok(Vec::new()),
        Some(0x30) => {
            let all = all(octets, usize::MAX).map_err(|error| error.to_string())?;
            Ok(all.into_iter().map(Cow::Borrowed).collect())
        }
        Some(_) => {
            let all = pem::text(octets).and_then(pem::bundle).map_err(|error| error.to_string())?;
            Ok(all.into_iter().map(Cow::Owned).collect())
        }
    }
}

/// As [`split`], the first `count_max` of any number.
fn all(octets: &[u8], count_max: usize) -> Result<Vec<&[u8]>, BundleError> {
    let (mut all, mut rest) = (Vec::new(), octets);
    while !rest.is_empty() && all.len() < count_max {
        let octet = octets.len() - rest.len();
        let len = certificate_len(rest).filter(|len| *len <= rest.len()).ok_or(BundleError::NotDer { octet })?;
        let (certificate, after) = rest.split_at(len);
        all.push(certificate);
        rest = after;
    }
    Ok(all)
}

/// The keys in a bundle that was verified under this policy when it was imported, sorted.
pub fn keys(octets: &[u8], policy: &Policy) -> Result<Vec<DeviceKey>, String> {
    let trust = Trust::new(policy);
    let all = split(octets).map_err(|error| error.to_string())?;
    let mut keys = all.into_iter().map(|der| trust.imported(der)).collect::<Result<Vec<_>, _>>()?;
    keys.sort();
    Ok(keys)
}
