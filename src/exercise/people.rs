//! Shell: the people of the exercise, with certificates of a CA of their own.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SerialNumber,
};
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::lab::{LabError, random};
use crate::domain::certificates::signature::PublicKey;
use crate::domain::names::{Digest, PersonId};
use crate::domain::time::Timestamp;

/// How many PMA members there are, of whom [`APPROVALS`] must approve: as in the example policy.
pub const MEMBERS: usize = 5;
/// How many of them must approve.
pub const APPROVALS: usize = 3;

/// How many Authorised Responsible Officers there are. By their numbers: one of the affected Supplier; one of another; one of the
/// affected Supplier whose credential is revoked; one of it who has ceased; and [`DCC_OFFICER`].
pub const OFFICERS: usize = 5;
/// Which of them is the DCC's, whose the OCAs are.
pub const DCC_OFFICER: usize = 4;

/// How many Key Custodians there are, each with one share: as in the example policy.
pub const CUSTODIANS: usize = 3;

/// How long a person's certificate is valid: longer than any exercise, and one with a clock that is set may go through the whole
/// of a variation.
const VALID_DAYS: i64 = 366;

/// A key of a person's, with its certificate. No `Debug`.
pub struct Credential {
    /// What its files are called.
    pub name: String,
    /// The private key as PKCS#8 PEM.
    pub key_pem: SecretString,
    /// The certificate as PEM.
    pub certificate_pem: String,
    /// SHA-256 of the SubjectPublicKeyInfo, by which the policy knows the person.
    pub spki: Digest,
}

/// A PMA member, an ARO or a Key Custodian.
pub struct Member {
    /// What documents and file names call the person.
    pub id: PersonId,
    /// The key that the person signs with.
    pub first: Credential,
    /// Another key of the same person. Only the first PMA member has one: it is what one person with two keys is tried with.
    pub second: Option<Credential>,
}

impl Member {
    /// Every key of the member's.
    pub fn credentials(&self) -> impl Iterator<Item = &Credential> {
        std::iter::once(&self.first).chain(&self.second)
    }
}

/// Everyone who signs.
pub struct People {
    /// The certificate of their CA as PEM.
    pub ca_pem: String,
    /// [`MEMBERS`] of them.
    pub members: Vec<Member>,
    /// [`OFFICERS`] of them.
    pub officers: Vec<Member>,
    /// [`CUSTODIANS`] of them.
    pub custodians: Vec<Member>,
}

impl People {
    /// Makes them, as of `now`.
    pub fn new(now: Timestamp) -> Result<Self, LabError> {
        let mut parameters = parameters(now, "Lab people CA")?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)?;
        let members = (1..=MEMBERS)
            .map(|n| {
                let name = format!("member-{n}");
                let second = if n == 1 { Some(credential(now, &format!("{name}-second"), &ca)?) } else { None };
                let id = name.parse().expect("member- and a digit are a person id");
                Ok(Member { id, first: credential(now, &name, &ca)?, second })
            })
            .collect::<Result<_, LabError>>()?;
        let others = |stem: &str, count| {
            let member = |n| {
                let name = format!("{stem}-{n}");
                let id = name.parse().expect("a word, a hyphen and a digit are a person id");
                Ok(Member { id, first: credential(now, &name, &ca)?, second: None })
            };
            (1..=count).map(member).collect::<Result<_, LabError>>()
        };
        let (officers, custodians) = (others("aro", OFFICERS)?, others("custodian", CUSTODIANS)?);
        Ok(Self { ca_pem: ca.pem(), members, officers, custodians })
    }

    /// Every key of everyone.
    pub fn credentials(&self) -> impl Iterator<Item = &Credential> {
        self.members.iter().chain(&self.officers).chain(&self.custodians).flat_map(Member::credentials)
    }
}

fn parameters(now: Timestamp, name: &str) -> Result<CertificateParams, LabError> {
    const DAY_MS: i64 = 24 * 60 * 60 * 1000;
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::OrganizationName, "SMKI PMA, exercise");
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.not_before = now.plus_ms(-DAY_MS).to_calendar();
    parameters.not_after = now.plus_ms(VALID_DAYS * DAY_MS).to_calendar();
    let mut serial = random::<16>()?;
    serial[0] = serial[0] & 0x7F | 0x40; // positive, and of full length
    parameters.serial_number = Some(SerialNumber::from_slice(&serial));
    parameters.use_authority_key_identifier_extension = true;
    Ok(parameters)
}

fn credential(now: Timestamp, name: &str, ca: &CertifiedIssuer<'_, KeyPair>) -> Result<Credential, LabError> {
    let key = KeyPair::generate()?;
    let mut parameters = parameters(now, name)?;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Without it, `openssl cms -verify` wants to be told that any purpose will do.
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection];
    let certificate = parameters.signed_by(&key, ca)?;
    let public = PublicKey::from_point(key.public_key_raw()).expect("rcgen's default keys are on P-256, uncompressed");
    let key_pem = Zeroizing::new(key.serialize_pem());
    Ok(Credential {
        name: name.to_owned(),
        key_pem: SecretString::from(key_pem.as_str()),
        certificate_pem: certificate.pem(),
        spki: public.spki_sha256(),
    })
}

#[cfg(test)]
mod tests;
