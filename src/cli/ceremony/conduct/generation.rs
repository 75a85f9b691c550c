//! The steps that make a contingency key pair a generation: what stands beside it, and the Root OCA Certificate that carries it.

use std::path::PathBuf;

use super::steps::fact;
use super::{Conduct, Facts, Halt};
use crate::cli::Change;
use crate::cli::ceremony::certificate::read_certificate;
use crate::cli::ceremony::contingency::{self, Ids, guard};
use crate::cli::ceremony::plan::Key;
use crate::cli::ceremony::{CeremonyError, ImportRoot};
use crate::domain::certificates::Certificate;
use crate::domain::names::{Digest, KeyLabel};
use crate::domain::policy::WrapWithTrusted;

impl Conduct {
    fn ids(&self, key: &KeyLabel) -> Result<Ids, CeremonyError> {
        let unknown = || CeremonyError::Key { key: key.clone(), why: "the plan has no such key".to_owned() };
        self.plan.key(key).and_then(Key::material).ok_or_else(unknown)
    }

    /// Where the plan says that the Root OCA Certificate is laid.
    pub(super) fn root_place(&self, key: &KeyLabel) -> PathBuf {
        let place = self.plan.key(key).and_then(|planned| planned.root.as_ref());
        place.map(|path| self.plan.path(path)).unwrap_or_default()
    }

    pub(super) fn says_contingency(&self, key: &KeyLabel) -> String {
        let (Ok(Ids { symmetric, wrapping }), Some(of_policy)) = (self.ids(key), self.policy.key(key)) else {
            return String::new();
        };
        let is_guarded =
            of_policy.contingency.is_some_and(|rules| rules.wrap_with_trusted == WrapWithTrusted::Required);
        let wrapping = if is_guarded {
            format!(
                "The token's security officer, in a login of their own, makes the wrapping key (CKA_ID {wrapping}) and marks it as trusted. Then the \
                 token makes the Contingency Symmetric Key (CKA_ID {symmetric}), which nothing else wraps; whether the module holds to that is tried."
            )
        } else {
            format!(
                "The token makes the wrapping key (CKA_ID {wrapping}) and the Contingency Symmetric Key (CKA_ID {symmetric}). As the policy of this \
                 exercise has it, the module does not guard the latter: any key that is made with the token's PIN wraps it."
            )
        };
        format!(
            "Beside key {key}, on token {}. {wrapping} With the symmetric key the token wraps the public half of {key}: the field for the next Root \
             OCA Certificate, which is recorded and written to {} for the Root OCA's operator. The symmetric key does not leave the token.",
            of_policy.token,
            self.out.display()
        )
    }

    pub(super) fn contingency(&mut self, id: &str, key: &KeyLabel) -> Result<Facts, Halt> {
        let ids = self.ids(key)?;
        let begun = self.journal.agreed(id) > 1;
        let made = {
            let mut opened = contingency::open(&self.tokens.tokens(), key)?;
            contingency::make(&mut opened, ids, begun)?
        };
        if made.entry.is_none() && !begun {
            let why = "the ledger says that its contingency material was made, and this ceremony has not made any yet: find out who did";
            return Err(CeremonyError::Key { key: key.clone(), why: why.to_owned() }.into());
        }
        if let Some(found) = &made.found {
            self.found(id, found.clone())?;
        }
        let files = contingency::hand_over(&made, &self.out)?;
        let prepared = &made.prepared;
        self.read_aloud(id, &format!("the field that carries key {key}, wrapped"), prepared.extension)?;
        let mut facts = vec![
            fact("Contingency Symmetric Key", format!("{} bits, CKA_ID {}", prepared.bits, prepared.symmetric)),
            fact("wrapping key", format!("CKA_ID {}, {}", prepared.wrapping, guard(prepared.wrap_with_trusted))),
            fact("token", &prepared.token),
            fact(
                "field of the Root OCA Certificate",
                format!("{}, SHA-256 {}", prepared.algorithm, prepared.extension),
            ),
            fact("public key inside, SHA-256", made.spki_sha256),
        ];
        facts.extend(files.iter().map(|file| fact("for the Root OCA's operator", file.display())));
        facts.push(fact("recorded", made.entry.map_or_else(|| "before".to_owned(), |entry| format!("entry {entry}"))));
        Ok(facts)
    }

    pub(super) fn root(&mut self, id: &str, key: &KeyLabel) -> Result<Facts, Halt> {
        let (place, label) = (self.root_place(key), key.clone());
        let may_pass = self.rehearsal.is_some();
        let imported = self.wait(id, may_pass, |conduct| {
            if !place.is_file() {
                return Ok(Err(format!("{}: nothing lies there yet", place.display())));
            }
            let laid = Digest::of(&read_certificate(&place)?);
            let known = conduct.fold()?.keys().get(&label).and_then(|facts| facts.contingency.as_ref()?.root);
            if known == Some(laid) {
                return Ok(Ok((laid, None)));
            }
            let (tokens, change) = (conduct.tokens.tokens(), Change { dry_run: false });
            let import = ImportRoot { tokens, key: label.clone(), root: place.clone(), change };
            match import.perform() {
                Ok((imported, entry)) => Ok(Ok((imported.root, entry))),
                Err(CeremonyError::Refused(reasons)) => {
                    let texts: Vec<&str> = reasons.iter().map(|reason| &*reason.text).collect();
                    Ok(Err(format!("the Root OCA Certificate is refused:\n{}", texts.join("\n"))))
                }
                Err(other) => Err(other),
            }
        })?;
        let Some((digest, entry)) = imported else {
            return Ok(vec![fact("rehearsal", "passed over: no Root OCA Certificate carries a scratch key")]);
        };
        if entry.is_none() {
            self.found(id, "the Root OCA Certificate, recorded at an attempt before this one".to_owned())?;
        }
        self.read_aloud(id, &format!("the Root OCA Certificate that carries key {key}"), digest)?;
        let certificate = Certificate::from_der(&read_certificate(&place)?)
            .map_err(|fault| CeremonyError::Key { key: key.clone(), why: format!("{}: {fault}", place.display()) })?;
        Ok(vec![
            fact("Root OCA Certificate, SHA-256", digest),
            fact("serial number", hex::encode(certificate.serial())),
            fact("subject", certificate.subject_text()),
            fact("valid", format!("from {} until {}", certificate.not_before(), certificate.not_after())),
            fact("its field", format!("unwraps, in the token, to the public half of {key}")),
            fact("recorded", entry.map_or_else(|| "before".to_owned(), |entry| format!("entry {entry}"))),
        ])
    }
}
