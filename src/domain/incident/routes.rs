//! Pure. Which way leads out of the Compromise of which key (SEC Appendix L 4 to 6): a table.
//!
//! The titles of Appendix L's sections could be read, and not their steps. What follows from the purpose of the keys stands here as such;
//! what nobody could read is called so.

use super::DutyArising;
use crate::domain::ledger::contingency::OtherKey;
use crate::domain::ledger::steps::Method;
use crate::domain::names::{DutyId, KeyLabel};

/// The way out of the Compromise of one kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The methods that there are.
    pub methods: &'static [Method],
    /// Which keys can still act.
    pub acts: &'static str,
    /// What is to be made anew.
    pub renew: &'static str,
    /// What this program refuses.
    pub refuses: &'static str,
    /// By which text, and how much of it was read.
    pub text: &'static str,
}

const ORGANISATION: Route = Route {
    methods: &[Method::SubscriberKey, Method::AcbCertificates, Method::NewOrganisationCertificates],
    acts: "the Subscriber's own key, while the Subscriber controls it (Method 1); the Recovery Private Key (Methods 2 and 3)",
    renew: "the Subscriber's Organisation Certificates",
    refuses: "a replacement with the Compromised key",
    text: "SEC Appendix L 4",
};

const ROOT_OCA: Route = Route {
    methods: &[Method::Contingency],
    acts: "the Contingency Private Key, with its symmetric key, and no other",
    renew: "the Root OCA Certificate, which carries the next contingency key; every certificate below it; the spent contingency generation",
    refuses: "certificates that lead to the Compromised root, by any method",
    text: "SEC Appendix L 5; that it is the route for a root follows from the purpose of the key (Section L10.30(e))",
};

const ISSUING_OCA: Route = Route {
    methods: &[Method::SubscriberKey, Method::AcbCertificates, Method::NewOrganisationCertificates],
    acts: "each Subscriber's own key, and the Recovery Private Key, with certificates of another Issuing OCA",
    renew: "the Issuing OCA's Certificate, and every certificate that it issued (Section L10(c): coordinated Certificate Signing Requests)",
    refuses: "certificates that lead over the Compromised Issuing OCA, by any method",
    text: "SEC Appendix L 6.3; which method for which Device, no text that could be read says",
};

const RECOVERY: Route = Route {
    methods: &[Method::Contingency],
    acts: "the Contingency Private Key may replace the recovery cell; no text that could be read says that it shall",
    renew: "the Recovery Private Key and its certificate on every Device",
    refuses: "that Recovery Private Key: it is not activated and signs nothing more, in any incident",
    text: "SEC Appendix L 6.2, of which only the title could be read",
};

const CONTINGENCY: Route = Route {
    methods: &[Method::SubscriberKey],
    acts: "those who may update a root in normal business with their own keys (CS02b rootBySupplier, rootByWanProvider); no key of ours",
    renew: "the Contingency Private Key, its symmetric key and the Root OCA Certificate that carries it: the next generation",
    refuses: "that generation: its key is not activated, its symmetric key is not released, and it is nobody's next generation",
    text: "SEC Appendix L 6.1, whose step (a) makes a new Contingency Symmetric Key; that normal root updates follow is inferred",
};

/// The way out; none says which key: the one behind an Organisation Certificate on Devices.
pub const fn of(key: Option<OtherKey>) -> Route {
    match key {
        None => ORGANISATION,
        Some(OtherKey::RootOca) => ROOT_OCA,
        Some(OtherKey::IssuingOca) => ISSUING_OCA,
        Some(OtherKey::Recovery) => RECOVERY,
        Some(OtherKey::Contingency | OtherKey::ContingencySymmetric) => CONTINGENCY,
    }
}

/// As people call the key.
pub const fn name(key: OtherKey) -> &'static str {
    match key {
        OtherKey::Recovery => "the Recovery Private Key",
        OtherKey::Contingency => "the Contingency Private Key",
        OtherKey::ContingencySymmetric => "the Contingency Symmetric Key",
        OtherKey::IssuingOca => "an Issuing OCA Private Key",
        OtherKey::RootOca => "the Root OCA Private Key",
    }
}

/// The step of the procedure that is taken by meeting the duty below: nothing is closed before.
const REPLACE_SPENT_MATERIAL: &str = "replace-spent-material";

/// The duty that arises when a Contingency Symmetric Key is spent (rule 34): one for each key.
pub fn replacement_id(key: &KeyLabel) -> DutyId {
    format!("replace-{key}")
        .parse()
        .expect("a key's label is no longer than a duty's id may be, and of the same letters")
}

/// The duty to say what takes the place of a generation whose symmetric key is spent.
pub fn replacement_of(key: &KeyLabel) -> DutyArising {
    DutyArising {
        duty: replacement_id(key),
        recipient: "SMKI PMA".into(),
        text: format!(
            "what took the place of {key}, whose Contingency Symmetric Key is spent: the Root OCA Certificate on the Devices carries the next \
             contingency key"
        )
        .into(),
        within_hours: None,
        step: Some(REPLACE_SPENT_MATERIAL.parse().expect("the name above is that of a step")),
    }
}

/// The contingency generation that an incident uses, or used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Its key.
    pub key: KeyLabel,
    /// Whether its symmetric key is spent in this incident.
    pub spent: bool,
    /// Whether that is released under the determination that the incident follows.
    pub released: bool,
    /// The generation that takes its place, with a Root OCA Certificate that carries it and no use of its own yet; or why there is none.
    pub next: Result<KeyLabel, Box<str>>,
}

#[cfg(test)]
mod tests;
