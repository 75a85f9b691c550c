//! Whether a plan fits its policy and its configuration. Every fault is told, with its line; no token is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use toml::Spanned;

use super::{ATTRIBUTES, Capacity, Holder, Key, Kind, PLACE_OPEN, Person, Plan, PlanFault, Shares, role};
use crate::cli::ceremony::contingency;
use crate::cli::ceremony::keys::holdings;
use crate::cli::member::files;
use crate::domain::determination::people::Role;
use crate::domain::fold::Fold;
use crate::domain::ledger::ceremonies::WITNESSES_MIN;
use crate::domain::names::{Digest, KeyUse, PersonId, TokenName};
use crate::domain::policy::files::Activation;
use crate::domain::policy::{Key as PolicyKey, Policy};
use crate::domain::time::Timestamp;
use crate::service::configuration::Configuration;
use crate::service::start;

/// What a plan is held against.
#[derive(Clone, Copy)]
pub struct Against<'a> {
    /// The policy in the plan's folder.
    pub policy: &'a Policy,
    /// The configuration that it names.
    pub configuration: &'a Configuration,
    /// What the ledger of that configuration amounts to, where there is one.
    pub ledger: Option<&'a Fold>,
    /// When the ceremony is; when it was opened, if it goes on.
    pub at: Timestamp,
    /// Whether it goes on. What the ledger says of policy and keys, and the calendar of appointments, is asked at the opening: a plan is not
    /// changed afterwards, and is to come to its close whatever is adopted while it waits. Each step is still judged by the policy in force.
    pub begun: bool,
}

struct Checker<'a> {
    plan: &'a Plan,
    against: Against<'a>,
    faults: Vec<PlanFault>,
}

/// Every fault of a plan, by line.
pub fn check(plan: &Plan, against: Against<'_>) -> Vec<PlanFault> {
    let mut checker = Checker { plan, against, faults: Vec::new() };
    checker.place();
    checker.policy();
    checker.tokens();
    checker.people();
    checker.keys();
    checker.shares();
    checker.ledger();
    let mut faults = checker.faults;
    faults.sort_by_key(|fault| fault.line);
    faults
}

impl Checker<'_> {
    fn fault<T>(&mut self, place: &Spanned<T>, text: String) {
        let line = Some(self.plan.line(place.span().start));
        self.faults.push(PlanFault { line, text });
    }

    fn missing(&mut self, text: String) {
        self.faults.push(PlanFault { line: None, text });
    }

    fn place(&mut self) {
        let place = &self.plan.place;
        if place.get_ref().as_str().starts_with(PLACE_OPEN) {
            self.fault(place, "place: expected the room, building and town where the ceremony is held".to_owned());
        }
    }

    fn policy(&mut self) {
        let (plan, policy) = (self.plan, self.against.policy);
        if plan.policy_digest() != policy.digest() {
            let text = format!(
                "policy_digest: the policy in {} has digest {}, the plan was written for {}; review the policy again, then put its \
                 digest here",
                plan.policy().display(),
                policy.digest(),
                plan.policy_digest()
            );
            self.fault(&plan.policy_digest, text);
        }
        if *plan.purpose.get_ref() != policy.purpose() {
            let text = format!("purpose: the policy is {}, the plan {}", policy.purpose(), plan.purpose.get_ref());
            self.fault(&plan.purpose, text);
        }
        if plan.origin.get_ref() != policy.origin() {
            let text = format!("origin: the policy is for {}, the plan for {}", policy.origin(), plan.origin.get_ref());
            self.fault(&plan.origin, text);
        }
    }

    /// A later ceremony is about a ledger that stands.
    fn ledger(&mut self) {
        let plan = self.plan;
        let Some(fold) = self.against.ledger.filter(|_| plan.kind != Kind::First) else { return };
        if let Some(origin) = fold.origin().filter(|origin| *origin != plan.origin.get_ref()) {
            let text =
                format!("origin: the ledger of this configuration is {origin}, the plan for {}", plan.origin.get_ref());
            self.fault(&plan.origin, text);
        }
        if self.against.begun {
            return;
        }
        let in_force = fold.policy().map(|adopted| adopted.policy.digest());
        if in_force != Some(plan.policy_digest()) {
            let found = in_force.map_or_else(|| "none".to_owned(), |digest| digest.to_string());
            let text = format!(
                "policy_digest: the policy in force is {found}, the plan was written for {}; adopt that one first, or write the plan for the one \
                 in force",
                plan.policy_digest()
            );
            self.fault(&plan.policy_digest, text);
        }
        for entry in &plan.key {
            let key = entry.get_ref();
            let known = fold.keys().get(&key.label);
            let text = match (plan.kind, known) {
                // One that this very ceremony made before an interruption has its CKA_ID.
                (Kind::NewKey, Some(known)) if known.record.id != key.cka_id => format!(
                    "the ledger has a key of that label already, with the CKA_ID {}; a new key has a label of its own",
                    known.record.id
                ),
                (Kind::Renewal | Kind::Copy | Kind::ReShare, None) => {
                    "the ledger has no such key; a ceremony of the kind \"new-key\" makes it".to_owned()
                }
                (Kind::Renewal | Kind::Copy | Kind::ReShare, Some(known)) if known.record.id != key.cka_id => {
                    format!("cka_id: the ledger has it under {}, the plan under {}", known.record.id, key.cka_id)
                }
                (_, Some(known)) if known.ending.is_some() => {
                    "it was destroyed, or its destruction was begun".to_owned()
                }
                (Kind::Copy, Some(_)) if key.copies.is_empty() => {
                    "expected `copies`, the tokens to which it is cloned, found none".to_owned()
                }
                (Kind::First | Kind::Renewal | Kind::NewKey | Kind::Copy | Kind::ReShare, Some(_) | None) => continue,
            };
            self.fault(entry, format!("key {}: {text}", key.label));
        }
    }

    fn tokens(&mut self) {
        let (plan, Against { policy, configuration, .. }) = (self.plan, self.against);
        if let Err(fault) = start::check_ledger_token(configuration, &policy.ledger_key().token) {
            self.fault(&plan.configuration, fault.to_string());
        }
        if let Err(fault) = start::check_clock(policy.purpose(), configuration) {
            self.fault(&plan.configuration, fault.to_string());
        }
        for (token, uses) in holdings(policy) {
            let settings = start::configured(configuration, &token);
            let fit = settings.and_then(|found| start::check_pin_source(policy.purpose(), found, uses));
            if let Err(fault) = fit {
                self.fault(&plan.configuration, fault.to_string());
            }
        }
    }

    fn people(&mut self) {
        let plan = self.plan;
        let mut seen = BTreeSet::new();
        for entry in &plan.person {
            let person = entry.get_ref();
            if !seen.insert(person.handle().to_owned()) {
                self.fault(entry, format!("person {} stands here twice; name everyone once", person.handle()));
            }
            if person.handle().contains(',') {
                let text = format!(
                    "person {}: a name without a comma is expected: at the ceremony names are typed one after another, with commas between",
                    person.handle()
                );
                self.fault(entry, text);
            }
            self.person(entry, person);
        }
        let conductors = plan.persons().filter(|person| person.capacity == Capacity::Conductor).count();
        if conductors != 1 {
            self.missing(format!("person: expected one with the capacity \"conductor\", found {conductors}"));
        }
        let witnesses = plan.persons().filter(|person| person.capacity.bears_witness()).count();
        if witnesses < WITNESSES_MIN {
            self.missing(format!(
                "person: expected at least {WITNESSES_MIN} who bear witness (witness, auditor or pma-member), found {witnesses}"
            ));
        }
    }

    fn person(&mut self, entry: &Spanned<Person>, person: &Person) {
        let Against { policy, at, .. } = self.against;
        let known = person.id.as_ref().map(|id| (id, policy.people().person(id)));
        match (role(person.capacity), known) {
            (_, Some((id, None))) => {
                let text = format!("person {id}: the policy knows nobody of that id; leave `id` out for a guest");
                self.fault(entry, text);
            }
            (Some(role), None) => {
                let text = format!(
                    "person {}: who comes as {} is named by the policy; give the `id` that persons.toml has (role {role})",
                    person.name, person.capacity
                );
                self.fault(entry, text);
            }
            (role, Some((id, Some(found)))) => {
                if found.name != person.name {
                    let text = format!("person {id}: the policy calls them {}, the plan {}", found.name, person.name);
                    self.fault(entry, text);
                }
                if let Some(role) = role.filter(|role| !found.roles.contains(role)) {
                    let text = format!("person {id}: the policy does not have them as {role}");
                    self.fault(entry, text);
                }
                if !found.window.contains(at) {
                    let text = format!("person {id}: their appointment is {}, which {at} is not in", found.window);
                    self.fault(entry, text);
                }
            }
            (None, None) => {}
        }
    }

    fn keys(&mut self) {
        let (plan, policy) = (self.plan, self.against.policy);
        let mut ids = BTreeMap::new();
        for entry in &plan.key {
            let key = entry.get_ref();
            if plan.keys().filter(|other| other.label == key.label).count() > 1 {
                self.fault(entry, format!("key {}: it stands here twice", key.label));
            }
            let drawn =
                [("cka_id", Some(key.cka_id)), ("symmetric_id", key.symmetric_id), ("wrapping_id", key.wrapping_id)];
            for (name, id) in drawn.into_iter().filter_map(|(name, id)| Some((name, id?))) {
                if let Some(other) = ids.insert(id, key.label.clone()) {
                    let label = &key.label;
                    let text =
                        format!("key {label}: its {name} is that of {other}; draw another (openssl rand -hex 16)");
                    self.fault(entry, text);
                }
            }
            if key.attributes != ATTRIBUTES {
                let text = format!(
                    "key {}: attributes: expected {ATTRIBUTES:?}, found {:?}; no key is made with others",
                    key.label, key.attributes
                );
                self.fault(entry, text);
            }
            match policy.key(&key.label) {
                None => self.fault(entry, format!("key {}: the policy has no such key", key.label)),
                Some(found) => self.key(entry, key, found),
            }
        }
        match plan.kind {
            Kind::First => {
                for key in policy.keys().filter(|key| plan.key(&key.label).is_none()) {
                    let text = format!(
                        "key {}: the policy has it and the plan does not; the first ceremony makes all",
                        key.label
                    );
                    self.missing(text);
                }
            }
            Kind::Renewal | Kind::NewKey | Kind::Copy | Kind::ReShare => {
                if plan.key.is_empty() {
                    self.missing(format!("key: a {} ceremony is about at least one key; found none", plan.kind));
                }
            }
        }
    }

    fn key(&mut self, entry: &Spanned<Key>, key: &Key, found: &PolicyKey) {
        let (plan, label) = (self.plan, &key.label);
        if key.r#use != found.key_use || key.token != found.token {
            let text = format!(
                "key {label}: the policy has it as a {} key on token {}, the plan as a {} key on {}",
                found.key_use, found.token, key.r#use, key.token
            );
            self.fault(entry, text);
        }
        for copy in &key.copies {
            if !found.copies.contains_key(copy) {
                let text = format!("key {label}: the policy does not have it cloned to token {copy}");
                self.fault(entry, text);
            }
            self.configured(entry, copy);
        }
        if let Some(left_out) = found.copies.keys().find(|copy| plan.kind == Kind::First && !key.copies.contains(copy))
        {
            let text = format!("key {label}: the policy has it cloned to token {left_out}; add it to `copies`");
            self.fault(entry, text);
        }
        self.material(entry, key, found);
        let certified = key.certificate.is_some() && !key.chain.is_empty();
        if plan.kind == Kind::Renewal && key.r#use != KeyUse::Recovery {
            self.fault(
                entry,
                format!("key {label}: the SMKI certifies a recovery key here, and this is a {} key", key.r#use),
            );
        } else if matches!(plan.kind, Kind::First | Kind::NewKey | Kind::Renewal)
            && key.r#use == KeyUse::Recovery
            && !certified
        {
            let text =
                format!("key {label}: expected `certificate` and `chain`, where the SMKI's certificates will be laid");
            self.fault(entry, text);
        }
    }

    /// What is made beside a contingency key.
    fn material(&mut self, entry: &Spanned<Key>, key: &Key, found: &PolicyKey) {
        let label = &key.label;
        let is_made = matches!(self.plan.kind, Kind::First | Kind::NewKey) && contingency::is_wanted(found);
        let named = (key.symmetric_id.is_some(), key.wrapping_id.is_some(), key.root.is_some());
        if is_made && named != (true, true, true) {
            let text = format!(
                "key {label}: the policy has it sign, so its Contingency Symmetric Key is made too: expected `symmetric_id` and `wrapping_id`, two \
                 CKA_IDs (openssl rand -hex 16), and `root`, where the Root OCA Certificate that carries it will be laid"
            );
            self.fault(entry, text);
        }
        if !is_made && named != (false, false, false) {
            let text = format!(
                "key {label}: `symmetric_id`, `wrapping_id` and `root` are for a contingency key that this ceremony makes and the policy has sign"
            );
            self.fault(entry, text);
        }
    }

    fn configured(&mut self, entry: &Spanned<Key>, token: &TokenName) {
        if let Err(fault) = start::configured(self.against.configuration, token) {
            self.fault(entry, fault.to_string());
        }
    }

    fn shares(&mut self) {
        let (plan, policy) = (self.plan, self.against.policy);
        for entry in &plan.shares {
            let shares = entry.get_ref();
            if plan.shares().filter(|other| other.key == shares.key).count() > 1 {
                self.fault(entry, format!("shares of key {}: they stand here twice", shares.key));
            }
            match policy.key(&shares.key) {
                None => self.fault(entry, format!("shares of key {}: the policy has no such key", shares.key)),
                Some(key) if key.activation != Activation::Custodians => {
                    let text =
                        format!("shares of key {}: the policy does not have it activated by custodians", key.label);
                    self.fault(entry, text);
                }
                Some(key) => {
                    self.own_tokens(entry, key);
                    self.share_set(entry, shares);
                }
            }
        }
        for key in policy.keys().filter(|key| key.activation == Activation::Custodians) {
            let wanted = match plan.kind {
                Kind::First => true,
                Kind::NewKey | Kind::ReShare => plan.key(&key.label).is_some(),
                Kind::Renewal | Kind::Copy => false,
            };
            if wanted && !plan.shares().any(|shares| shares.key == key.label) {
                let text = format!("shares: key {} is activated by custodians; add [[shares]] for it", key.label);
                self.missing(text);
            }
        }
    }

    /// A token has one PIN, which the shares of one key open.
    fn own_tokens(&mut self, entry: &Spanned<Shares>, key: &PolicyKey) {
        for other in self.against.policy.keys().filter(|other| other.label != key.label) {
            if let Some(token) = other.tokens().find(|token| key.tokens().any(|own| own == *token)) {
                let text = format!(
                    "shares of key {}: the policy has key {} on token {token} too, and a token has one PIN: give each key that custodians \
                     open tokens of its own",
                    key.label, other.label
                );
                self.fault(entry, text);
            }
        }
    }

    fn share_set(&mut self, entry: &Spanned<Shares>, shares: &Shares) {
        let (plan, Against { policy, at, .. }) = (self.plan, self.against);
        let (k, label) = (policy.custodians().threshold, &shares.key);
        if shares.threshold != k {
            self.fault(
                entry,
                format!("shares of key {label}: threshold: the policy says {k}, the plan {}", shares.threshold),
            );
        }
        let mut parties = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for Holder { share, person, certificate, spki } in &shares.holders {
            if !seen.insert(share.clone()) {
                self.fault(entry, format!("shares of key {label}: {share} stands there twice"));
            }
            let found = policy.people().person(person);
            match found.filter(|found| found.roles.contains(&Role::KeyCustodian) && found.window.contains(at)) {
                Some(found) if found.shares.contains(share) => {
                    parties.insert(found.party.clone());
                }
                Some(_) => {
                    let text = format!(
                        "shares of key {label}: {share} is not among the shares that the policy gives to {person}"
                    );
                    self.fault(entry, text);
                }
                None => {
                    let text = format!("shares of key {label}: {person} is no Key Custodian in force at {at}");
                    self.fault(entry, text);
                }
            }
            let comes = |known: &Person| known.id.as_ref() == Some(person) && known.capacity == Capacity::KeyCustodian;
            if !plan.persons().any(comes) {
                let text = format!(
                    "shares of key {label}: {person} takes {share} and does not come; add [[person]] with the capacity \"key-custodian\""
                );
                self.fault(entry, text);
            }
            if let Some(fault) = certificate_fault(certificate.as_ref().map(|path| plan.path(path)), *spki, person) {
                self.fault(entry, format!("shares of key {label}: {fault}"));
            }
        }
        for custodian in policy.roster(Role::KeyCustodian, at) {
            for share in custodian.shares.iter().filter(|share| !seen.contains(share)) {
                let text =
                    format!("shares of key {label}: the policy gives {share} to {}, the plan to nobody", custodian.id);
                self.fault(entry, text);
            }
        }
        let least = policy.custodians().parties_min as usize;
        if parties.len() < least {
            let text =
                format!("shares of key {label}: expected holders of at least {least} Parties, found {}", parties.len());
            self.fault(entry, text);
        }
    }
}

/// Whether the certificate to which a share is to be sealed is the one that the plan means.
fn certificate_fault(certificate: Option<PathBuf>, spki: Option<Digest>, person: &PersonId) -> Option<String> {
    let Some(path) = certificate else {
        return spki.map(|_| format!("{person}: `spki` stands there without `certificate`"));
    };
    let shown = path.display();
    if !path.is_file() {
        return Some(format!("{shown}: no such certificate of {person}"));
    }
    let found = match files::read_certificates(&path) {
        Ok((certificate, _)) => certificate.spki_sha256(),
        Err(fault) => return Some(fault.to_string()),
    };
    match spki {
        Some(expected) if expected == found => None,
        Some(expected) => Some(format!(
            "{shown}: expected {person}'s certificate of the key with SPKI SHA-256 {expected}, found one of {found}: whoever has that key would \
             have the share"
        )),
        None => Some(format!(
            "{shown}: expected `spki`, the SHA-256 of its SubjectPublicKeyInfo, which {person} confirms; by the file it is {found}"
        )),
    }
}
