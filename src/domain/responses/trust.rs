//! Pure. Whose message it is: a certificate under one of the policy's Device CAs, a signature under that certificate's key.
//!
//! Both are costly and depend on nothing in the ledger but the policy in force, so a shell may spread them over its processors.
//! Validity is not judged here but told: the moment that counts is the entry's.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use der::asn1::ObjectIdentifier;

use super::says;
use crate::domain::certificates::path::{self, Time};
use crate::domain::certificates::profile::{Kind, Policies, Profile, SmkiCertificate, Usage};
use crate::domain::gbcs::proof::verify_signature;
use crate::domain::gbcs::{Answer, Frame};
use crate::domain::names::{DeviceId, Digest};
use crate::domain::policy::Policy;
use crate::domain::time::Timestamp;

/// Certificates of one Device that are tried: the one in use, one that it had before, and some to spare.
pub const CANDIDATES_MAX: usize = 4;

/// Octets of a bundle of certificates: each has about 500, 800 in PEM, and each Device of a file two.
pub const CERTIFICATES_LEN_MAX: u64 = 8 * 1024 * 1024;

/// A Device CA's certificate.
#[derive(Clone, Debug)]
struct Anchor {
    certificate: SmkiCertificate,
    /// Its SHA-256.
    sha256: Digest,
}

/// Whom a policy believes who is a Device.
#[derive(Clone, Debug)]
pub struct Trust {
    anchors: Vec<Anchor>,
    policies: Vec<ObjectIdentifier>,
    profile: Profile,
}

impl Trust {
    /// By this policy's Device CAs and the policy OIDs of Device Certificates.
    pub fn new(policy: &Policy) -> Self {
        let certificates = policy.certificates();
        let organisation = certificates.organisation_policy_oids.iter().copied().collect();
        let profile = Profile::with_policies(organisation, certificates.device_policy_oids.iter().copied().collect());
        let parsed = policy.anchors().device_ca.iter().map(|anchor| SmkiCertificate::parse(anchor, &profile));
        Self::of_anchors(parsed.filter_map(Result::ok).collect(), profile)
    }

    /// By these Device CAs, each of whose policies is of the profile.
    pub fn of_anchors(anchors: Vec<SmkiCertificate>, profile: Profile) -> Self {
        let policies = match &profile.policies {
            Policies::OneOf { device, .. } => device.clone(),
            Policies::NotChecked => Vec::new(),
        };
        let with_digest = |certificate: SmkiCertificate| Anchor { sha256: certificate.sha256(), certificate };
        Self { anchors: anchors.into_iter().map(with_digest).collect(), policies, profile }
    }

    /// What a certificate is worth: none if it is not for the signatures of one of these Devices.
    pub fn candidate(&self, octets: &[u8], devices: &BTreeSet<DeviceId>) -> Option<(DeviceId, Candidate)> {
        let parsed = SmkiCertificate::parse(octets, &self.profile);
        let (kind, refused) = match &parsed {
            Ok(certificate) => (certificate.kind(), None),
            // Of another environment, perhaps: whose it is, is worth telling all the same.
            Err(error) => (SmkiCertificate::parse(octets, &Profile::shape_only()).ok()?.kind(), Some(says(error))),
        };
        let device = device_for_signatures(kind).filter(|device| devices.contains(device))?;
        let worth = match (parsed, refused) {
            (Ok(certificate), None) => self.vouch(&certificate),
            (_, Some(why)) => Err(why),
            (Err(error), None) => Err(says(error)),
        };
        Some((device, Candidate { octets: octets.into(), worth }))
    }

    /// The key, and while it is vouched for.
    fn vouch(&self, certificate: &SmkiCertificate) -> Result<Vouched, String> {
        let mut faults = Vec::new();
        for anchor in &self.anchors {
            match path::check(certificate, &[], &anchor.certificate, &self.policies, Time::Disapplied) {
                Ok(_) => return Ok(Vouched::of(certificate, &anchor.certificate)),
                Err(error) => faults.push(says(error)),
            }
        }
        Err(if faults.is_empty() { "the policy has no Device CA".to_owned() } else { faults.join("; ") })
    }

    /// A certificate that is to be relied on from here on without being looked at again: profile, path and the Device CA's
    /// signature are judged, that of the very Device CA which [`Trust::imported`] will find. Its dates are told and not judged, for
    /// the moment that counts is the entry's.
    ///
    /// # Errors
    /// The Device, as far as it is known, and what is wrong.
    pub fn import(&self, octets: &[u8]) -> Result<DeviceKey, (Option<DeviceId>, String)> {
        let certificate = SmkiCertificate::parse(octets, &self.profile).map_err(|error| (None, says(error)))?;
        let device = for_signatures(&certificate).map_err(|why| (None, why))?;
        match self.issuer(&certificate) {
            Some(anchor) => {
                let checked = path::check(&certificate, &[], &anchor.certificate, &self.policies, Time::Disapplied);
                checked.map_err(|error| (Some(device), says(error)))?;
                Ok(DeviceKey::of(device, &certificate, anchor))
            }
            // None of them; each says why not.
            None => match self.vouch(&certificate) {
                Ok(_) => Err((Some(device), OTHER_ISSUER.to_owned())),
                Err(why) => Err((Some(device), why)),
            },
        }
    }

    /// What [`Trust::import`] made of a certificate that it took; the signature is not verified again.
    pub fn imported(&self, octets: &[u8]) -> Result<DeviceKey, String> {
        let certificate = SmkiCertificate::parse(octets, &self.profile).map_err(says)?;
        let device = for_signatures(&certificate)?;
        let anchor = self.issuer(&certificate).ok_or(OTHER_ISSUER)?;
        Ok(DeviceKey::of(device, &certificate, anchor))
    }

    /// The first Device CA that a certificate names as its issuer.
    fn issuer(&self, certificate: &SmkiCertificate) -> Option<&Anchor> {
        self.anchors.iter().find(|anchor| path::issued(&anchor.certificate, certificate))
    }

    /// Of what was imported for a Device, that which is relied on: imported before this entry, under a Device CA that the policy
    /// still has; the newest [`CANDIDATES_MAX`], the newest first.
    pub fn relied_on(&self, mut known: Vec<ImportedKey>, before: u64) -> Vec<ImportedKey> {
        let is_anchor = |device_ca| self.anchors.iter().any(|anchor| anchor.sha256 == device_ca);
        known.retain(|imported| imported.entry < before && is_anchor(imported.key.device_ca));
        known.sort_by(|a, b| b.entry.cmp(&a.entry).then_with(|| a.key.cmp(&b.key)));
        known.truncate(CANDIDATES_MAX);
        known
    }
}

const OTHER_ISSUER: &str = "expected a certificate of one of the policy's Device CAs, found another issuer";

/// The Device whose signatures a certificate of this kind is for.
fn device_for_signatures(kind: Kind) -> Option<DeviceId> {
    match kind {
        Kind::Device { device, usage: Usage::DigitalSignature } => Some(device),
        Kind::Device { .. } | Kind::Organisation { .. } | Kind::IssuingOca | Kind::RootOca | Kind::DeviceCa => None,
    }
}

fn for_signatures(certificate: &SmkiCertificate) -> Result<DeviceId, String> {
    let kind = certificate.kind();
    device_for_signatures(kind).ok_or_else(|| format!("expected a Device's certificate for signatures, found {kind}"))
}

/// A Device's key out of a certificate that was imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceKey {
    /// Whose.
    pub device: DeviceId,
    /// The public key, an uncompressed point.
    pub point: [u8; 65],
    /// SHA-256 of the certificate of the Device CA.
    pub device_ca: Digest,
    /// The first second at which its certificate and the Device CA's are valid.
    pub from: Timestamp,
    /// The last.
    pub until: Timestamp,
}

impl DeviceKey {
    fn of(device: DeviceId, certificate: &SmkiCertificate, device_ca: &Anchor) -> Self {
        let Vouched { point, from, until } = Vouched::of(certificate, &device_ca.certificate);
        Self { device, point, device_ca: device_ca.sha256, from, until }
    }

    /// Before every key of a Device, in their order.
    pub const fn least_of(device: DeviceId) -> Self {
        let never = Timestamp::MIN;
        Self { device, point: [0; 65], device_ca: Digest([0; 32]), from: never, until: never }
    }

    /// Whether both certificates are valid at this moment.
    pub fn is_in_force(&self, at: Timestamp) -> bool {
        is_in_force(self.from, self.until, at)
    }
}

/// The same with the entry that it came with. Nothing of it ever changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImportedKey {
    /// The key.
    pub key: DeviceKey,
    /// The entry.
    pub entry: u64,
}

/// A Device's certificate.
#[derive(Clone, Debug)]
pub struct Candidate {
    octets: Box<[u8]>,
    worth: Result<Vouched, String>,
}

#[derive(Clone, Copy, Debug)]
struct Vouched {
    point: [u8; 65],
    from: Timestamp,
    until: Timestamp,
}

impl Vouched {
    fn of(certificate: &SmkiCertificate, anchor: &SmkiCertificate) -> Self {
        Self {
            point: *certificate.key().point(),
            from: certificate.not_before().max(anchor.not_before()),
            until: certificate.not_after().min(anchor.not_after()),
        }
    }
}

fn is_in_force(from: Timestamp, until: Timestamp, at: Timestamp) -> bool {
    // Validity is told in whole seconds, the last one included (RFC 5280 4.1.2.5).
    from <= at && at.unix_ms() < until.unix_ms().saturating_add(1_000)
}

/// The certificates of the Devices that messages come from.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    given: BTreeMap<DeviceId, Vec<Candidate>>,
    /// None where those imported are not asked for, as in older entries.
    imported: Option<HashMap<DeviceId, Vec<ImportedKey>>>,
}

impl Candidates {
    /// Of these. The first few of a Device count, each once.
    pub fn new(all: impl IntoIterator<Item = (DeviceId, Candidate)>) -> Self {
        let mut given: BTreeMap<DeviceId, Vec<Candidate>> = BTreeMap::new();
        for (device, candidate) in all {
            let known = given.entry(device).or_default();
            if known.len() < CANDIDATES_MAX && known.iter().all(|other| other.octets != candidate.octets) {
                known.push(candidate);
            }
        }
        Self { given, imported: None }
    }

    /// And these that were imported, if any were asked for ([`Trust::relied_on`]).
    #[must_use]
    pub fn and_imported(self, imported: Option<HashMap<DeviceId, Vec<ImportedKey>>>) -> Self {
        Self { imported, ..self }
    }

    /// The DER of those that were given, by Device.
    pub fn octets(&self) -> impl Iterator<Item = &[u8]> {
        self.given.values().flatten().map(|candidate| &*candidate.octets)
    }

    fn of(&self, device: DeviceId) -> impl Iterator<Item = Result<Vouched, &str>> {
        let given = self.given.get(&device).into_iter().flatten();
        let imported = self.imported.iter().filter_map(move |imported| imported.get(&device)).flatten();
        let given = given.map(|candidate| candidate.worth.as_ref().copied().map_err(String::as_str));
        given.chain(imported.map(|imported| {
            let DeviceKey { point, from, until, .. } = imported.key;
            Ok(Vouched { point, from, until })
        }))
    }
}

/// A message whose signature is that of a Device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// What it says; its originator is the Device.
    pub answer: Answer,
    /// The first second at which its certificate and the Device CA's are valid.
    pub from: Timestamp,
    /// The last.
    pub until: Timestamp,
}

impl Verified {
    /// Whose it is.
    pub const fn device(&self) -> DeviceId {
        DeviceId(self.answer.header.originator)
    }

    /// Whether both certificates are valid at this moment.
    pub fn is_in_force(&self, at: Timestamp) -> bool {
        is_in_force(self.from, self.until, at)
    }
}

/// A message, read and verified as far as that goes without the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Not an answer of a Device.
    Malformed {
        /// What was expected, what was found, at which octet.
        why: String,
    },
    /// Nobody trusted vouches for it.
    Unverified {
        /// The Device that it says it is from.
        device: DeviceId,
        /// What is missing.
        why: String,
    },
    /// It is the Device's.
    Verified(Verified),
}

impl Reading {
    /// What was verified.
    pub const fn verified(&self) -> Option<&Verified> {
        match self {
            Self::Verified(verified) => Some(verified),
            Self::Malformed { .. } | Self::Unverified { .. } => None,
        }
    }

    /// Reads a message, and verifies it with its Device's certificates.
    pub fn of(octets: &[u8], candidates: &Candidates) -> Self {
        let malformed = |why: String| Self::Malformed { why };
        let frame = match Frame::parse(octets) {
            Ok(frame) => frame,
            Err(error) => return malformed(says(error)),
        };
        let device = DeviceId(frame.header.originator);
        let unverified = |why: String| Self::Unverified { device, why };
        let signed = frame.signature().map(|signature| (frame.tbs(), signature));
        let answer = match Answer::from_frame(frame) {
            Ok(Some(answer)) => answer,
            Ok(None) => return malformed("octet 2: expected a Response or an Alert, found a Command".to_owned()),
            Err(error) => return malformed(says(error)),
        };
        let Some((tbs, signature)) = signed else { return unverified("it has no signature".to_owned()) };
        let mut faults = Vec::new();
        for candidate in candidates.of(device) {
            match candidate {
                Err(why) => faults.push(why.to_owned()),
                Ok(Vouched { point, from, until }) if verify_signature(tbs, signature, &point) => {
                    return Self::Verified(Verified { answer, from, until });
                }
                Ok(_) => faults.push("the signature does not verify with the Device's key".to_owned()),
            }
        }
        unverified(match (faults.is_empty(), &candidates.imported) {
            (false, _) => faults.join("; "),
            (true, None) => "no certificate of the Device was given".to_owned(),
            (true, Some(_)) => "no certificate of the Device was given or imported before".to_owned(),
        })
    }
}
