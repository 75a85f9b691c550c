//! Shell: a Contingency command as a Device sees it that holds a given Root OCA Certificate.
//!
//! A Device does less: it would put in a Root that carries no key of the next generation. Whoever holds a command in hand wants to
//! know that too, so it is a finding like the others.

use crate::domain::certificates::apex::WrappedApexKey;
use crate::domain::certificates::path::{self, Time};
use crate::domain::certificates::pem::{self, PemError};
use crate::domain::certificates::signature::PublicKey;
use crate::domain::certificates::{Kind, Profile, SmkiCertificate, x509};
use crate::domain::gbcs::{
    CommandPayload, CpvChecks, CredentialsReplacementMode, Message, Payload, SymmetricKey, TrustAnchorCell, Update,
};
use crate::domain::names::Digest;
use crate::domain::time::Timestamp;

/// Why a file holds no certificate to verify with.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// Not PEM of one certificate.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// Not a certificate.
    #[error(transparent)]
    X509(#[from] x509::X509Error),
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// What, for programs.
    pub what: &'static str,
    /// Whether it is as it should be.
    pub holds: bool,
    /// The same for people, with why not.
    pub text: String,
}

/// All that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Findings {
    /// SHA-256 of the Root OCA Certificate that was given.
    pub root: Digest,
    /// Its subject.
    pub subject: String,
    /// In order. What could not be looked at because of an earlier one is not among them.
    pub all: Vec<Finding>,
}

impl Findings {
    /// What does not hold.
    pub fn faults(&self) -> impl Iterator<Item = &Finding> {
        self.all.iter().filter(|finding| !finding.holds)
    }
}

/// The one certificate of a PEM file.
pub(super) fn read(octets: &[u8]) -> Result<x509::Certificate, RootError> {
    Ok(pem::certificate(pem::text(octets)?)?)
}

/// Looks at a message as a Device does that holds this Root OCA Certificate. Validity dates are looked at if the command does not tell the
/// Device to ignore them, as of `now`.
pub(super) fn look(message: &Message<'_>, root: &x509::Certificate, now: Timestamp) -> Findings {
    let (digest, subject) = (root.sha256(), root.subject_text());
    let mut all = Vec::new();
    // Stops at what leaves nothing to look at behind it.
    let _ = findings(message, root, now, &mut all);
    Findings { root: digest, subject, all }
}

/// What ends the looking.
struct End;

fn findings(
    message: &Message<'_>,
    root: &x509::Certificate,
    now: Timestamp,
    all: &mut Vec<Finding>,
) -> Result<(), End> {
    let mut say = |what, holds, text: String| {
        all.push(Finding { what, holds, text });
        if holds { Ok(()) } else { Err(End) }
    };
    let profile = Profile::shape_only();
    let held = match SmkiCertificate::from_certificate(root.clone(), &profile) {
        Ok(held) if held.kind() == Kind::RootOca => held,
        Ok(other) => {
            return say("root", false, format!("expected a Root OCA Certificate, found that of {}", other.kind()));
        }
        Err(error) => return say("root", false, format!("expected a Root OCA Certificate: {error}")),
    };
    let command = match &message.payload {
        Payload::Command(command) if command.update.mode == CredentialsReplacementMode::AnyByContingency => command,
        Payload::Command(CommandPayload { update: Update { mode, .. }, .. }) => {
            let text =
                format!("expected a Command of mode anyByContingency, found one of mode {mode}: no Root verifies it");
            return say("mode", false, text);
        }
        Payload::Response(_) | Payload::Alert(_) => {
            let text = "expected a Command of mode anyByContingency, found an answer of a Device".to_owned();
            return say("mode", false, text);
        }
    };
    let update = &command.update;
    match update.authorising_cell {
        Some(TrustAnchorCell::ROOT) => {}
        found => {
            let found = found.map_or("none".to_owned(), |cell| cell.to_string());
            let text = format!("expected authorising cell {}, found {found}", TrustAnchorCell::ROOT);
            say("authorising-cell", false, text)?;
        }
    }
    let (text, public) = match contingency_key(command, &held) {
        Ok((wrapped, public)) => {
            let text =
                format!("by {}: the Contingency Public Key, SHA-256 {}", wrapped.algorithm(), public.spki_sha256());
            (text, Some(public))
        }
        Err(why) => (why, None),
    };
    say("unwraps", public.is_some(), text)?;
    let verified = match (public, message.frame.signature()) {
        (Some(public), Some(signature)) => public.verifies_fixed(message.frame.tbs(), signature),
        (Some(_) | None, _) => false,
    };
    let text = match (verified, message.frame.signature()) {
        (true, _) => "verifies under that key",
        (false, Some(_)) => "does not verify under that key: another key signed, or other octets",
        (false, None) => "there is none: a pre-command",
    };
    // What it replaces can be told whoever signed it.
    let _ = say("signature", verified, text.to_owned());
    what_it_replaces(update, &held, &profile, now, &mut say)
}

/// The key that verifies the command, out of the Root held.
fn contingency_key(
    command: &CommandPayload<'_>,
    held: &SmkiCertificate,
) -> Result<(WrappedApexKey, PublicKey), String> {
    let key = command.plaintext_symmetric_key.ok_or("the place of the Contingency Symmetric Key is empty")?;
    let key = SymmetricKey::new(key.expose()).map_err(|error| error.to_string())?;
    let wrapped = WrappedApexKey::of_certificate(held).map_err(|error| format!("this Root: {error}"))?;
    let wrapped = wrapped.ok_or("this Root OCA Certificate carries no wrapped Contingency Public Key")?;
    let spki = wrapped.unwrap_with(&key).map_err(|error| error.to_string())?;
    let public = PublicKey::from_spki(&spki).map_err(|error| error.to_string())?;
    Ok((wrapped, public))
}

fn what_it_replaces(
    update: &Update<'_>,
    held: &SmkiCertificate,
    profile: &Profile,
    now: Timestamp,
    say: &mut impl FnMut(&'static str, bool, String) -> Result<(), End>,
) -> Result<(), End> {
    let time = match update.cpv_checks {
        CpvChecks::Apply => Time::At(now),
        CpvChecks::Disapply => Time::Disapplied,
    };
    let Some(place) = update.replacements.iter().position(|replacement| replacement.cell == TrustAnchorCell::ROOT)
    else {
        let text = "the root is NOT replaced: the Device keeps one whose Contingency Symmetric Key is spent";
        return say("root-replaced", false, text.to_owned());
    };
    let text = match place {
        0 => "the root is the first replacement".to_owned(),
        _ => format!("the root is replacement {}: expected it first, for the others hang on it", place + 1),
    };
    let _ = say("root-first", place == 0, text);
    let parsed = SmkiCertificate::parse(update.replacements[place].certificate, profile)
        .map_err(|error| error.to_string())
        .and_then(|new| match new.kind() {
            Kind::RootOca => path::check(&new, &[], &new, new.policies(), time)
                .map(|_| new.clone())
                .map_err(|error| error.to_string()),
            other => Err(format!("expected a Root OCA Certificate, found that of {other}")),
        });
    let new = match parsed {
        Ok(new) => {
            let text = format!("a self-signed Root OCA Certificate, {}, SHA-256 {}", new.subject_text(), new.sha256());
            let _ = say("new-root", true, text);
            new
        }
        Err(why) => return say("new-root", false, why),
    };
    let (holds, text) = next_key(&new, held);
    let _ = say("next-key", holds, text);
    let offered: Vec<SmkiCertificate> =
        update.path_certificates.iter().filter_map(|octets| SmkiCertificate::parse(octets, profile).ok()).collect();
    let others = update.replacements.iter().enumerate().filter(|(n, _)| *n != place);
    let mut led = 0;
    for (n, replacement) in others {
        let leads = SmkiCertificate::parse(replacement.certificate, profile)
            .map_err(|error| error.to_string())
            .and_then(|leaf| {
                path::check(&leaf, &offered, &new, leaf.policies(), time).map(|_| ()).map_err(|error| error.to_string())
            });
        match leads {
            Ok(()) => led += 1,
            Err(why) => {
                let text = format!("replacement {}, {}: does not lead to the new root: {why}", n + 1, replacement.cell);
                let _ = say("leads-to-new-root", false, text);
            }
        }
    }
    say("leads-to-new-root", true, format!("{led} other certificates lead to the new root"))
}

/// Whether the new Root carries a wrapped key of its own.
fn next_key(new: &SmkiCertificate, held: &SmkiCertificate) -> (bool, String) {
    let lost = "after it no Contingency command reaches the Device";
    match WrappedApexKey::of_certificate(new) {
        Ok(Some(next)) if WrappedApexKey::of_certificate(held).ok().flatten().as_ref() == Some(&next) => {
            (false, "the new root carries the wrapped key of the root held, whose symmetric key is spent".to_owned())
        }
        Ok(Some(next)) => (true, format!("the new root carries a wrapped key of its own, {}", next.algorithm())),
        Ok(None) => (false, format!("the new root carries NO wrapped Contingency Public Key: {lost}")),
        Err(error) => (false, format!("the new root's wrapped key cannot be read: {error}; {lost}")),
    }
}

#[cfg(test)]
mod tests;
