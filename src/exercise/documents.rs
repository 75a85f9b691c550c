//! Shell: the documents of the exercise, as their drafters write them. In the exercise members sign them with
//! `smkictl determination sign`; [`sign`] is for exercises that set their clock, and for benches and tests, which sign many.

use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use super::lab::{LabError, random};
use super::people::Credential;
use crate::domain::certificates::pem::{self, PemError};
use crate::domain::determination::cms::{self, CmsError};
use crate::domain::determination::devices::{DeviceFaults, DeviceListReader};
use crate::domain::determination::document::{
    Compromised, Decision, Determination, DeviceList, DocumentFault, Factor, Form, KeyChosen, LedgerHead, Limits,
    Method, Payload, Suspension, SymmetricKeyLine, Template, Type, Weight, Withdrawal, Written,
};
use crate::domain::determination::prose::Prose;
use crate::domain::gbcs;
use crate::domain::ledger::checkpoint::{Checkpoint, CheckpointError};
use crate::domain::ledger::note::{Note, NoteError};
use crate::domain::names::{DeterminationId, Digest, FactorId, IncidentId, PersonId, Purpose, TemplateName};
use crate::domain::policy::{Consider, Policy};
use crate::domain::time::{Timestamp, Window};
use crate::hsm::signer::{PemSigner, PersonSigner, SignerError};

/// Why a document could not be made or signed.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It would be refused.
    #[error("document: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Faults(Vec<DocumentFault>),
    /// The device list would be.
    #[error("device list: {0}")]
    Devices(#[from] DeviceFaults),
    /// No randomness for an id.
    #[error(transparent)]
    Random(#[from] LabError),
    /// The ledger's head.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The ledger's head.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A member's certificate.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// A member's key.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// The signature.
    #[error(transparent)]
    Cms(#[from] CmsError),
}

/// What a document says of its device list.
pub fn device_list(text: &str, template: &TemplateName) -> Result<DeviceList, DocumentError> {
    let mut reader = DeviceListReader::new([template], u64::MAX);
    reader.feed(text.as_bytes(), |_| {});
    Ok(reader.finish()?)
}

/// The head that a drafter saw: that of a checkpoint, a C2SP signed note.
pub fn head(checkpoint: &str) -> Result<LedgerHead, DocumentError> {
    let note = Note::parse(checkpoint.as_bytes())?;
    let Checkpoint { origin, size, root } = Checkpoint::parse(note.text())?;
    Ok(LedgerHead { origin, size, root })
}

/// What all documents of the exercise have in common.
pub struct Drafter<'a> {
    /// Who drafts.
    pub proposer: PersonId,
    /// Under which policy.
    pub policy: &'a Policy,
    /// About which incident.
    pub incident: IncidentId,
    /// About which certificate.
    pub compromised: Compromised,
    /// With which key.
    pub key: KeyChosen,
    /// A factor that a variation of the procedure offers, weighed besides those of the guidance.
    pub also_weighed: Option<FactorId>,
}

/// What a determination is about.
pub struct Scope<'a> {
    /// The number of the decision within the incident.
    pub decision_number: u32,
    /// By which way.
    pub method: Method,
    /// What the device list calls the template.
    pub name: &'a TemplateName,
    /// The template.
    pub template: &'a gbcs::Template,
    /// The device list.
    pub devices: &'a str,
    /// When.
    pub window: Window,
    /// How often an unknown may be signed again.
    pub retries_of_unknown: u32,
}

impl Drafter<'_> {
    /// A determination to execute.
    pub fn determination(&self, head: LedgerHead, scope: &Scope<'_>) -> Result<Written<Determination>, DocumentError> {
        self.execute(head, scope, None)
    }

    /// A determination to execute by the Contingency route: it releases the Contingency Symmetric Key into its commands.
    pub fn contingency(
        &self,
        head: LedgerHead,
        scope: &Scope<'_>,
        symmetric_key: SymmetricKeyLine,
    ) -> Result<Written<Determination>, DocumentError> {
        self.execute(head, scope, Some(symmetric_key))
    }

    fn execute(
        &self,
        head: LedgerHead,
        scope: &Scope<'_>,
        symmetric_key: Option<SymmetricKeyLine>,
    ) -> Result<Written<Determination>, DocumentError> {
        let devices = device_list(scope.devices, scope.name)?;
        let payload = Payload::new(scope.template.octets()).map_err(|fault| DocumentError::Faults(vec![fault]))?;
        let intents = devices.count.saturating_mul(u64::from(scope.retries_of_unknown) + 1);
        write(&Determination {
            r#type: Type::new(),
            purpose: Purpose::Exercise,
            id: DeterminationId(random()?),
            incident: self.incident.clone(),
            decision_number: scope.decision_number,
            proposer: self.proposer.clone(),
            ledger: head,
            policy: self.policy.digest(),
            decision: Decision::Execute,
            compromised: self.compromised.clone(),
            factors: self.factors(),
            window: scope.window,
            supersedes: None,
            key: Some(self.key.clone()),
            method: Some(scope.method),
            symmetric_key,
            counter_start: Some(0),
            schedule: None,
            templates: Some(vec![Template { name: scope.name.clone(), payload }]),
            devices: Some(devices),
            limits: Some(Limits {
                intents,
                per_hour: intents,
                retries_of_unknown: scope.retries_of_unknown,
                retry_by_itself: false,
            }),
        })
    }

    /// A determination not to execute: it opens nothing.
    pub fn not_to_execute(
        &self,
        head: LedgerHead,
        decision_number: u32,
        window: Window,
    ) -> Result<Written<Determination>, DocumentError> {
        write(&Determination {
            r#type: Type::new(),
            purpose: Purpose::Exercise,
            id: DeterminationId(random()?),
            incident: self.incident.clone(),
            decision_number,
            proposer: self.proposer.clone(),
            ledger: head,
            policy: self.policy.digest(),
            decision: Decision::NotExecute,
            compromised: self.compromised.clone(),
            factors: self.factors(),
            window,
            supersedes: None,
            key: None,
            method: None,
            symmetric_key: None,
            counter_start: None,
            schedule: None,
            templates: None,
            devices: None,
            limits: None,
        })
    }

    /// Everything that the policy's guidance says must be considered or met.
    fn factors(&self) -> Vec<Factor> {
        let guidance = self.policy.guidance();
        let must = guidance.factors.iter().filter(|(_, factor)| factor.consider == Consider::Must).map(|(id, _)| id);
        let weighed = must.map(|id| (id, Weight::Towards));
        let met = guidance.criteria.iter().map(|id| (id, Weight::Met));
        let offered = self.also_weighed.iter().map(|id| (id, Weight::Towards));
        weighed
            .chain(met)
            .chain(offered)
            .map(|(id, weight)| Factor { id: id.clone(), weight, comment: prose("Considered in the exercise.") })
            .collect()
    }

    /// One member pauses a determination.
    pub fn suspension(
        &self,
        of: &Written<Determination>,
        member: &PersonId,
        head: LedgerHead,
    ) -> Result<Written<Suspension>, DocumentError> {
        write(&Suspension {
            r#type: Type::new(),
            purpose: Purpose::Exercise,
            determination: of.form().id,
            document: of.digest(),
            member: member.clone(),
            hours: 1,
            ledger: head,
            policy: self.policy.digest(),
            reason: prose("A member wants to look again."),
        })
    }

    /// The PMA ends a determination.
    pub fn withdrawal(
        &self,
        of: &Written<Determination>,
        head: LedgerHead,
    ) -> Result<Written<Withdrawal>, DocumentError> {
        write(&Withdrawal {
            r#type: Type::new(),
            purpose: Purpose::Exercise,
            determination: of.form().id,
            document: of.digest(),
            proposer: self.proposer.clone(),
            ledger: head,
            policy: self.policy.digest(),
            reason: prose("It is no longer needed."),
        })
    }
}

fn write<F: Form>(form: &F) -> Result<Written<F>, DocumentError> {
    Written::write(form).map_err(DocumentError::Faults)
}

fn prose(text: &str) -> Prose {
    text.parse().expect("the texts above are short and plain")
}

/// A member's detached CMS signature over a document, as `smkictl determination sign` makes it.
pub fn sign(document: &[u8], credential: &Credential, now: Timestamp) -> Result<Vec<u8>, DocumentError> {
    let certificate = pem::certificate(&credential.certificate_pem)?;
    let key = Zeroizing::new(credential.key_pem.expose_secret().to_owned());
    // The keys of the exercise have no passphrase.
    let none = || Err(std::io::ErrorKind::Unsupported.into());
    let signer = PemSigner::from_pem(&key, certificate, none)?;
    let attributes = cms::signed_attributes(&Digest::of(document), signer.certificate(), now)?;
    Ok(cms::assemble(&attributes, &signer.sign(&attributes)?, signer.certificate(), &[])?)
}

#[cfg(test)]
mod tests;
