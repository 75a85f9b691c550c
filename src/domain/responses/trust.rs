//! Pure. Whose message it is: a certificate under one of the policy's Device CAs, a signature under that certificate's key.
//!
//! Both are costly and depend on nothing in the ledger but the policy in force, so a shell may spread them over its processors.
//! Validity is not judged here but told: the moment that counts is the entry's.

use std::collections::{BTreeMap, BTreeSet};

use der::asn1::ObjectIdentifier;

use super::{counter_answered, says};
use crate::domain::certificates::path::{self, Time};
use crate::domain::certificates::profile::{Kind, Policies, Profile, SmkiCertificate, Usage};
use crate::domain::gbcs::proof::verify_signature;
use crate::domain::gbcs::{Frame, Message, Payload};
use crate::domain::names::{DeviceId, PartyId};
use crate::domain::policy::Policy;
use crate::domain::time::Timestamp;

/// Certificates of one Device that are tried: the one in use, one that it had before, and some to spare.
pub const CANDIDATES_MAX: usize = 4;

/// Octets of a bundle of certificates: each has about 800 in PEM, and each Device of a file two.
pub const CERTIFICATES_LEN_MAX: u64 = 8 * 1024 * 1024;

/// Whom a policy believes who is a Device.
#[derive(Clone, Debug)]
pub struct Trust {
    anchors: Vec<SmkiCertificate>,
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
        Self { anchors, policies, profile }
    }

    /// What a certificate is worth: none if it is not for the signatures of one of these Devices.
    pub fn candidate(&self, octets: &[u8], devices: &BTreeSet<DeviceId>) -> Option<(DeviceId, Candidate)> {
        let parsed = SmkiCertificate::parse(octets, &self.profile);
        let (kind, refused) = match &parsed {
            Ok(certificate) => (certificate.kind(), None),
            // Of another environment, perhaps: whose it is, is worth telling all the same.
            Err(error) => (SmkiCertificate::parse(octets, &Profile::shape_only()).ok()?.kind(), Some(says(error))),
        };
        let device = match kind {
            Kind::Device { device, usage: Usage::DigitalSignature } if devices.contains(&device) => device,
            Kind::Device { .. } | Kind::Organisation { .. } | Kind::IssuingOca | Kind::RootOca | Kind::DeviceCa => {
                return None;
            }
        };
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
            match path::check(certificate, &[], anchor, &self.policies, Time::Disapplied) {
                Ok(_) => {
                    return Ok(Vouched {
                        point: *certificate.key().point(),
                        from: certificate.not_before().max(anchor.not_before()),
                        until: certificate.not_after().min(anchor.not_after()),
                    });
                }
                Err(error) => faults.push(says(error)),
            }
        }
        Err(if faults.is_empty() { "the policy has no Device CA".to_owned() } else { faults.join("; ") })
    }
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

/// The certificates of the Devices that messages come from.
#[derive(Clone, Debug, Default)]
pub struct Candidates(BTreeMap<DeviceId, Vec<Candidate>>);

impl Candidates {
    /// Of these. The first few of a Device count, each once.
    pub fn new(all: impl IntoIterator<Item = (DeviceId, Candidate)>) -> Self {
        let mut by_device: BTreeMap<DeviceId, Vec<Candidate>> = BTreeMap::new();
        for (device, candidate) in all {
            let known = by_device.entry(device).or_default();
            if known.len() < CANDIDATES_MAX && known.iter().all(|other| other.octets != candidate.octets) {
                known.push(candidate);
            }
        }
        Self(by_device)
    }

    /// The DER of all of them, by Device.
    pub fn octets(&self) -> impl Iterator<Item = &[u8]> {
        self.0.values().flatten().map(|candidate| &*candidate.octets)
    }
}

/// A message whose signature is that of a Device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Whose.
    pub device: DeviceId,
    /// To whom it answers.
    pub recipient: PartyId,
    /// The counter of the command that it answers.
    pub counter: u64,
    /// The first second at which its certificate and the Device CA's are valid.
    pub from: Timestamp,
    /// The last.
    pub until: Timestamp,
}

impl Verified {
    /// Whether both certificates are valid at this moment.
    pub fn is_in_force(&self, at: Timestamp) -> bool {
        // Validity is told in whole seconds, the last one included (RFC 5280 4.1.2.5).
        self.from <= at && at.unix_ms() < self.until.unix_ms().saturating_add(1_000)
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
    /// Reads a message, and verifies it with its Device's certificates.
    pub fn of(octets: &[u8], candidates: &Candidates) -> Self {
        let malformed = |why: String| Self::Malformed { why };
        let frame = match Frame::parse(octets) {
            Ok(frame) => frame,
            Err(error) => return malformed(says(error)),
        };
        let device = DeviceId(frame.header.originator);
        let unverified = |why: String| Self::Unverified { device, why };
        let message = match Message::from_frame(frame) {
            Ok(message) => message,
            Err(error) => return malformed(says(error)),
        };
        if let Payload::Command(_) = message.payload {
            return malformed("octet 2: expected a Response or an Alert, found a Command".to_owned());
        }
        let Some(signature) = message.frame.signature() else { return unverified("it has no signature".to_owned()) };
        let Some(known) = candidates.0.get(&device) else {
            return unverified("no certificate of the Device was given".to_owned());
        };
        let mut faults = Vec::new();
        for candidate in known {
            match &candidate.worth {
                Err(why) => faults.push(why.clone()),
                Ok(Vouched { point, from, until }) if verify_signature(message.frame.tbs(), signature, point) => {
                    return Self::Verified(Verified {
                        device,
                        recipient: PartyId(message.frame.header.recipient),
                        counter: counter_answered(&message),
                        from: *from,
                        until: *until,
                    });
                }
                Ok(_) => faults.push("the signature does not verify with the Device's key".to_owned()),
            }
        }
        unverified(faults.join("; "))
    }
}
