//! Pure. The SMKI certificate profile: reading, checking and writing certificates, and everybody else's as far as people sign.
//!
//! | file | what |
//! |---|---|
//! | `x509` | any X.509 certificate, read strictly, its octets kept |
//! | `profile` | the SMKI profile of GBCS section 12; every violation of it |
//! | `path` | leaf → Issuing OCA → Root, by a path check of our own |
//! | `apex` | the Contingency Public Key, wrapped, in a Root OCA Certificate |
//! | `person` | the certificate of a person who signs documents |
//! | `subject` | the forms a subject takes |
//! | `bodies` | what a CA or a subscriber signs: certificate bodies and certification requests |
//! | `signature` | ECDSA over P-256: verification, and `r ‖ s` ⇄ DER |
//! | `pem` | text armour |

pub mod apex;
pub mod bodies;
pub mod path;
pub mod pem;
pub mod person;
pub mod profile;
pub mod signature;
pub mod subject;
pub mod x509;

pub use der::asn1::ObjectIdentifier;
pub use profile::{Kind, Profile, SmkiCertificate, Usage};
pub use subject::{OrganisationSubject, Subject};
pub use x509::Certificate;

/// Where and why octets are not the DER that was expected there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {fault}")]
pub struct DerFault {
    /// What was being read, such as `certificate`.
    pub what: &'static str,
    /// The fault, with its octet counted from the start of `what`.
    pub fault: der::Error,
}

impl DerFault {
    pub(crate) fn within(what: &'static str) -> impl Fn(der::Error) -> Self {
        move |fault| Self { what, fault }
    }
}
