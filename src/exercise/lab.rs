//! Shell: the lab SMKI PKI, with keys in memory that live as long as one exercise.
//!
//! Its shape is that of the test PKI (GBCS section 12): a Root OCA, an Issuing OCA, Organisation Certificates below that, and a
//! CA for Devices. The names are ours; every key is new each time.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

use crate::domain::certificates::apex::WrappedApexKey;
use crate::domain::certificates::bodies::{self, BodyError, Particulars};
use crate::domain::certificates::profile::{
    CertificateError, Kind, TEST_DEVICE_POLICY, TEST_HARDWARE_TYPE, TEST_ORGANISATION_POLICY,
};
use crate::domain::certificates::signature::{FIXED_LEN, PublicKey};
use crate::domain::certificates::{OrganisationSubject, Profile, SmkiCertificate, Usage};
use crate::domain::gbcs::{CellUsage, KeyUsage, RemotePartyRole, TrustAnchorCell};
use crate::domain::intake::OF_AN_OCA;
use crate::domain::ledger::entry::Compromised;
use crate::domain::names::{DeviceId, Eui64, IncidentId, PartyId};
use crate::domain::time::Timestamp;

/// Milliseconds of a day.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// How long Organisation Certificates live in the test PKI: 10 years.
const ORGANISATION_DAYS: i64 = 3_650;
/// How long CAs live there: 25 years.
const CA_DAYS: i64 = 9_125;
/// Certificates are valid from a day before they are made, so that a clock which differs a little is no fault.
const BACKDATED_DAYS: i64 = 1;
/// Octets of a serial number, as in the test PKI.
const SERIAL_LEN: usize = 16;

/// Why the lab could not make what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// No randomness.
    #[error("the system's random source failed; nothing can be rehearsed without keys")]
    Random,
    /// A certificate could not be written.
    #[error("lab PKI: {0}")]
    Body(#[from] BodyError),
    /// A certificate of the lab's is not within the profile.
    #[error("lab PKI: {0}")]
    Certificate(#[from] CertificateError),
    /// A request for something else than the Recovery certificate.
    #[error("lab PKI: certification request: expected role 01 (recovery) and EUI-64 {expected}, found {found:?}")]
    Request {
        /// Who may ask.
        expected: PartyId,
        /// Who asks.
        found: OrganisationSubject,
    },
    /// A person's certificate.
    #[error("lab PKI, people: {0}")]
    People(#[from] rcgen::Error),
}

/// So many random octets.
pub fn random<const N: usize>() -> Result<[u8; N], LabError> {
    let mut octets = [0; N];
    SystemRandom::new().fill(&mut octets).map_err(|_| LabError::Random)?;
    Ok(octets)
}

/// A P-256 key pair in memory. No `Debug`.
pub struct SoftKey {
    pair: EcdsaKeyPair,
    public: PublicKey,
}

impl SoftKey {
    /// A new one.
    pub fn generate() -> Result<Self, LabError> {
        let rng = SystemRandom::new();
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng).map_err(|_| LabError::Random)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &rng)
            .expect("ring reads the key that it has just written");
        let public =
            PublicKey::from_point(pair.public_key().as_ref()).expect("ring writes uncompressed points of P-256");
        Ok(Self { pair, public })
    }

    /// Its public half.
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// `r ‖ s` over SHA-256 of `octets`.
    pub fn sign(&self, octets: &[u8]) -> Result<[u8; FIXED_LEN], LabError> {
        let signature = self.pair.sign(&SystemRandom::new(), octets).map_err(|_| LabError::Random)?;
        Ok(signature.as_ref().try_into().expect("ring's fixed form of P-256 is 64 octets long"))
    }
}

/// What replaces a compromised Root: another with a key of its own, and everything below it anew.
pub struct Renewal {
    root: Issuer,
    issuing: Issuer,
    recovery: SmkiCertificate,
    credentials: Credentials,
}

impl Renewal {
    /// The new Root OCA Certificate.
    pub const fn root_oca(&self) -> &SmkiCertificate {
        &self.root.certificate
    }

    /// The Issuing OCA Certificate below it.
    pub const fn issuing_oca(&self) -> &SmkiCertificate {
        &self.issuing.certificate
    }

    /// The Recovery key's certificate below that: the same key, certified anew.
    pub const fn recovery(&self) -> &SmkiCertificate {
        &self.recovery
    }

    /// One Organisation Certificate for each of [`CELLS`], in that order.
    pub const fn credentials(&self) -> &Credentials {
        &self.credentials
    }
}

fn root_template(name: &str, contingency: Option<WrappedApexKey>) -> bodies::Template {
    bodies::Template::RootOca { common_name: name.to_owned(), contingency }
}

/// A CA: its certificate, and the key that goes with it.
struct Issuer {
    key: SoftKey,
    certificate: SmkiCertificate,
}

/// Whose certificates a Device holds, beside the Root and Recovery, and in which cell. The order is that in which a genuine
/// Recovery command replaced them.
pub const CELLS: [Cell; 7] = [
    Cell::new("supplier-ds", TrustAnchorCell::management(RemotePartyRole::Supplier, KeyUsage::DigitalSignature)),
    Cell::new("supplier-ka", TrustAnchorCell::management(RemotePartyRole::Supplier, KeyUsage::KeyAgreement)),
    Cell::new(
        "supplier-ka-top-up",
        TrustAnchorCell {
            role: RemotePartyRole::Supplier,
            key_usage: KeyUsage::KeyAgreement,
            cell_usage: CellUsage::PrePaymentTopUp,
        },
    ),
    Cell::new(
        "network-operator-ds",
        TrustAnchorCell::management(RemotePartyRole::NetworkOperator, KeyUsage::DigitalSignature),
    ),
    Cell::new(
        "network-operator-ka",
        TrustAnchorCell::management(RemotePartyRole::NetworkOperator, KeyUsage::KeyAgreement),
    ),
    Cell::new(
        "access-control-broker-ka",
        TrustAnchorCell::management(RemotePartyRole::AccessControlBroker, KeyUsage::KeyAgreement),
    ),
    Cell::new(
        "transitional-cos-ds",
        TrustAnchorCell::management(RemotePartyRole::TransitionalCoS, KeyUsage::DigitalSignature),
    ),
];

/// A cell, and what its certificate is called in the layout.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// A file name without its ending.
    pub name: &'static str,
    /// The cell.
    pub cell: TrustAnchorCell,
}

impl Cell {
    const fn new(name: &'static str, cell: TrustAnchorCell) -> Self {
        Self { name, cell }
    }
}

/// One certificate for each of [`CELLS`], in that order.
pub type Credentials = Vec<SmkiCertificate>;

/// The lab SMKI PKI.
pub struct Lab {
    profile: Profile,
    now: Timestamp,
    root: Issuer,
    issuing: Issuer,
    device_ca: Issuer,
    before: Credentials,
    after: Credentials,
    broker: Credentials,
    victims: Mutex<BTreeMap<IncidentId, SmkiCertificate>>,
}

/// Which organisations there are: EUI-64s of our own, locally administered, so that they are nobody's.
fn party(role: RemotePartyRole, generation: u8) -> PartyId {
    PartyId(Eui64([0x02, 0x5E, 0xAF, generation, 0, 0, 0, role.code()]))
}

/// Whose Organisation Certificate it is.
///
/// # Panics
/// It is none: the lab's credentials all are.
pub fn party_of(certificate: &SmkiCertificate) -> PartyId {
    match certificate.kind() {
        Kind::Organisation { party, .. } => party,
        Kind::IssuingOca | Kind::RootOca | Kind::DeviceCa | Kind::Device { .. } => {
            unreachable!("the lab's credentials are Organisation Certificates")
        }
    }
}

impl Lab {
    /// Makes it, as of `now`: CAs, the credentials that Devices are made with, and those that replace them.
    pub fn new(now: Timestamp) -> Result<Self, LabError> {
        let profile = Profile::test();
        let root = Issuer::make(&profile, now, &root_template("LR", None), None)?;
        let issuing = bodies::Template::IssuingOca { common_name: "L1".into() };
        let issuing = Issuer::make(&profile, now, &issuing, Some(&root))?;
        let device_ca = bodies::Template::DeviceCa { common_name: "LAB DEVICE CA".into() };
        let device_ca = Issuer::make(&profile, now, &device_ca, None)?;
        let mut lab = Self {
            profile,
            now,
            root,
            issuing,
            device_ca,
            before: Vec::new(),
            after: Vec::new(),
            broker: Vec::new(),
            victims: Mutex::default(),
        };
        lab.before = lab.credentials(&lab.issuing, 1, |cell| cell.role)?;
        // Method 3 gives the affected Supplier new certificates. A Network Operator's stay.
        lab.after = lab.credentials(&lab.issuing, 2, |cell| cell.role)?;
        for (after, (before, cell)) in lab.after.iter_mut().zip(lab.before.iter().zip(CELLS)) {
            if cell.cell.role == RemotePartyRole::NetworkOperator {
                *after = before.clone();
            }
        }
        // Method 2 puts the Access Control Broker's certificates where a Supplier's and a Network Operator's were.
        lab.broker = lab.credentials(&lab.issuing, 3, |cell| match cell.role {
            RemotePartyRole::Supplier | RemotePartyRole::NetworkOperator => RemotePartyRole::AccessControlBroker,
            other => other,
        })?;
        Ok(lab)
    }

    fn credentials(
        &self,
        issuing: &Issuer,
        generation: u8,
        role_of: impl Fn(TrustAnchorCell) -> RemotePartyRole,
    ) -> Result<Credentials, LabError> {
        CELLS
            .iter()
            .map(|Cell { name, cell }| {
                let role = role_of(*cell);
                // The one certificate with a name is that of the genuine command, too.
                let common_name = (*name == "supplier-ds").then(|| format!("Lab supplier {generation}"));
                let subject = OrganisationSubject { common_name, role: role.code(), party: party(role, generation) };
                let usage = match cell.key_usage {
                    KeyUsage::DigitalSignature => Usage::DigitalSignature,
                    KeyUsage::KeyAgreement | KeyUsage::KeyCertSign => Usage::KeyAgreement,
                };
                self.organisation(issuing, subject, usage, SoftKey::generate()?.public())
            })
            .collect()
    }

    fn organisation(
        &self,
        issuing: &Issuer,
        subject: OrganisationSubject,
        usage: Usage,
        key: &PublicKey,
    ) -> Result<SmkiCertificate, LabError> {
        let octets = issuing.issue(self.now, &bodies::Template::Organisation { subject, usage }, key)?;
        Ok(SmkiCertificate::parse(&octets, &self.profile)?)
    }

    /// The SMKI profile that the lab's certificates keep to.
    pub const fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The Root OCA Certificate.
    pub const fn root_oca(&self) -> &SmkiCertificate {
        &self.root.certificate
    }

    /// The Issuing OCA Certificate.
    pub const fn issuing_oca(&self) -> &SmkiCertificate {
        &self.issuing.certificate
    }

    /// The certificate of the CA that issues Device Certificates.
    pub const fn device_ca(&self) -> &SmkiCertificate {
        &self.device_ca.certificate
    }

    /// What Devices are made with.
    pub fn before(&self) -> &Credentials {
        &self.before
    }

    /// The certificate of the affected Supplier that an incident is about: for the first one that is asked for, the one that Devices are made
    /// with; for each other, one of its own, for no two incidents are about one certificate at a time.
    pub fn victim(&self, incident: &IncidentId) -> Result<SmkiCertificate, LabError> {
        let mut victims = self.victims.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = victims.get(incident) {
            return Ok(known.clone());
        }
        let certificate = if victims.is_empty() {
            self.before[0].clone()
        } else {
            let role = RemotePartyRole::Supplier.code();
            let subject = OrganisationSubject { common_name: None, role, party: party_of(&self.before[0]) };
            self.organisation(&self.issuing, subject, Usage::DigitalSignature, SoftKey::generate()?.public())?
        };
        victims.insert(incident.clone(), certificate.clone());
        Ok(certificate)
    }

    /// From now on that incident is about the key of this OCA.
    pub fn compromise(&self, incident: &IncidentId, oca: &SmkiCertificate) {
        let mut victims = self.victims.lock().unwrap_or_else(PoisonError::into_inner);
        victims.insert(incident.clone(), oca.clone());
    }

    /// The same, as an incident and a determination name it.
    pub fn compromised(&self, incident: &IncidentId) -> Result<Compromised, LabError> {
        let victim = self.victim(incident)?;
        Ok(Compromised {
            certificate_sha256: victim.sha256(),
            spki_sha256: victim.spki_sha256(),
            party: if victim.is_ca() { OF_AN_OCA } else { party_of(&victim) },
        })
    }

    /// What replaces it: new Organisation Certificates of the Supplier and of the DCC (Method 3); a Network Operator keeps its own.
    pub fn after(&self) -> &Credentials {
        &self.after
    }

    /// What replaces it instead by Method 2: the Access Control Broker's in the Supplier's and Network Operator's cells.
    pub fn broker(&self) -> &Credentials {
        &self.broker
    }

    /// Answers a certification request for the Recovery key, as an Issuing OCA would: checks its signature and who asks.
    pub fn certify_recovery(&self, request: &[u8], party: PartyId) -> Result<SmkiCertificate, LabError> {
        let (subject, key) = bodies::read_request(request)?;
        if subject.role != RemotePartyRole::Recovery.code() || subject.party != party {
            return Err(LabError::Request { expected: party, found: subject });
        }
        self.organisation(&self.issuing, subject, Usage::DigitalSignature, &key)
    }

    /// The Root OCA issues its certificate again, under the same name and key, with this wrapped Contingency Public Key inside; what is
    /// below it stays. Devices that are made from now on hold that one.
    pub fn carry(&mut self, contingency: WrappedApexKey) -> Result<(), LabError> {
        let template = root_template("LR", Some(contingency));
        let octets = write(self.now, &template, self.root.key.public(), &self.root.key, None)?;
        self.root.certificate = SmkiCertificate::parse(&octets, &self.profile)?;
        Ok(())
    }

    /// A new Root OCA, whose certificate carries the next wrapped Contingency Public Key if there is one, with an Issuing OCA below it,
    /// and below that every certificate that a Device holds: `recovery`'s key is certified again, the organisations, who stay
    /// who they are, get new keys.
    pub fn renew(&self, contingency: Option<WrappedApexKey>, recovery: &SmkiCertificate) -> Result<Renewal, LabError> {
        let root = Issuer::make(&self.profile, self.now, &root_template("LR2", contingency), None)?;
        let issuing = bodies::Template::IssuingOca { common_name: "L2".into() };
        let issuing = Issuer::make(&self.profile, self.now, &issuing, Some(&root))?;
        let role = RemotePartyRole::Recovery.code();
        let subject = OrganisationSubject { common_name: None, role, party: party_of(recovery) };
        let recovery = self.organisation(&issuing, subject, Usage::DigitalSignature, recovery.key())?;
        let credentials = self.credentials(&issuing, 1, |cell| cell.role)?;
        Ok(Renewal { root, issuing, recovery, credentials })
    }

    /// Issues a Device's digitalSignature certificate. Answers its DER.
    pub fn certify_device(&self, device: DeviceId, key: &PublicKey) -> Result<Vec<u8>, LabError> {
        let template =
            bodies::Template::Device { device, usage: Usage::DigitalSignature, hardware_type: TEST_HARDWARE_TYPE };
        self.device_ca.issue(self.now, &template, key)
    }
}

impl Issuer {
    fn make(
        profile: &Profile,
        now: Timestamp,
        template: &bodies::Template,
        above: Option<&Self>,
    ) -> Result<Self, LabError> {
        let key = SoftKey::generate()?;
        let signer = above.map_or(&key, |above| &above.key);
        let octets = write(now, template, key.public(), signer, above.map(|above| &above.certificate))?;
        Ok(Self { certificate: SmkiCertificate::parse(&octets, profile)?, key })
    }

    fn issue(&self, now: Timestamp, template: &bodies::Template, key: &PublicKey) -> Result<Vec<u8>, LabError> {
        write(now, template, key, &self.key, Some(&self.certificate))
    }
}

fn write(
    now: Timestamp,
    template: &bodies::Template,
    key: &PublicKey,
    signer: &SoftKey,
    issuer: Option<&SmkiCertificate>,
) -> Result<Vec<u8>, LabError> {
    let mut serial = random::<SERIAL_LEN>()?;
    serial[0] = serial[0] & 0x7F | 0x40; // positive, and of full length
    let (days, policy) = match template {
        bodies::Template::Organisation { .. } => (ORGANISATION_DAYS, TEST_ORGANISATION_POLICY),
        bodies::Template::IssuingOca { .. } | bodies::Template::RootOca { .. } => (CA_DAYS, TEST_ORGANISATION_POLICY),
        bodies::Template::DeviceCa { .. } | bodies::Template::Device { .. } => (CA_DAYS, TEST_DEVICE_POLICY),
    };
    // Whole seconds, as a certificate has them.
    let now = now.plus_ms(-(now.unix_ms() % 1000));
    let particulars = Particulars {
        serial: &serial,
        not_before: now.plus_ms(-BACKDATED_DAYS * DAY_MS),
        not_after: now.plus_ms(days * DAY_MS),
        key,
        policy,
    };
    let tbs = bodies::tbs(template, &particulars, issuer)?;
    Ok(bodies::assemble(&tbs, &signer.sign(&tbs)?)?)
}

#[cfg(test)]
pub(crate) mod tests;
