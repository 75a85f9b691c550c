//! `ceremony request` and `ceremony import`: the Recovery key gets its SMKI certificate.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::keys::stem;
use super::opened::Opened;
use super::room;
use super::{CeremonyError, Import, Request, Tokens};
use crate::cli::input::{self, InputError};
use crate::cli::print::Printer;
use crate::cli::release::write_new;
use crate::domain::certificates::bodies::{assemble_request, certification_request_info};
use crate::domain::certificates::pem::{self, PemError};
use crate::domain::certificates::signature::PublicKey;
use crate::domain::certificates::subject::OrganisationSubject;
use crate::domain::gbcs::RECOVERY_ROLE;
use crate::domain::intake::{self, Context};
use crate::domain::ledger::entry::{
    CertificateImported, CertificationIntent, Entry, Event, Outcome, Reason, SignResult,
};
use crate::domain::names::{Digest, KeyLabel, KeyUse, PartyId};
use crate::domain::time::Timestamp;
use crate::hsm::{Kind, Outcome as Signing, ToSign};
use crate::recorder::{CannotRecord, Moment, Recorder, record_alone};
use crate::service::start;
use crate::wall_clock::wall_clock;

/// The ledger, opened for a step about a key that the SMKI certifies.
fn open(tokens: &Tokens, key: &KeyLabel) -> Result<Opened, CeremonyError> {
    let opened = Opened::open(tokens, key)?;
    let use_ = opened.key.use_;
    if use_ != KeyUse::Recovery {
        let why = format!("expected a recovery key, found a {use_} key; the SMKI certifies no other here");
        return Err(CeremonyError::Key { key: key.clone(), why });
    }
    Ok(opened)
}

/// The EUI-64 of the key by the policy in force.
fn originator(opened: &Opened) -> Result<PartyId, CeremonyError> {
    let label = &opened.key.label;
    let policy = opened.fold().policy();
    let originator = policy.and_then(|adopted| adopted.policy.key(label)?.originator);
    originator.ok_or_else(|| CeremonyError::Key {
        key: label.clone(),
        why: "the policy in force gives it no originator".to_owned(),
    })
}

/// What `request` answers.
#[derive(Serialize)]
pub(super) struct Requested {
    key: KeyLabel,
    /// Of the certificate that is asked for.
    pub subject: String,
    /// Of the key.
    pub spki_sha256: Digest,
    request_info_sha256: Digest,
    /// The index of the intent; none in a dry run.
    pub intent: Option<u64>,
    /// Where the request is.
    pub file: String,
}

impl Request {
    /// Where the request goes.
    pub(super) fn path(&self) -> Result<PathBuf, CeremonyError> {
        let opened = open(&self.tokens, &self.key)?;
        Ok(self.path_of(&opened))
    }

    /// Whether the request lies there that this key signed since then, by the ledger. What else lies there is refused: the SMKI would
    /// certify its key.
    pub(super) fn was_made(&self, since: Timestamp) -> Result<bool, CeremonyError> {
        let opened = open(&self.tokens, &self.key)?;
        let path = self.path_of(&opened);
        if !path.exists() {
            return Ok(false);
        }
        let found = input::file(&path, input::DOCUMENT_LEN_MAX)?;
        let reader = opened.ledger.store().reader()?;
        let mut signed: BTreeMap<u64, Digest> = BTreeMap::new();
        for index in (0..reader.head()?.size).rev() {
            let entry = Entry::from_leaf(&reader.leaf(index)?).map_err(CannotRecord::from)?;
            match entry.event {
                _ if entry.at < since => break,
                Event::Outcome(Outcome { intent, result: SignResult::Signed(signature) }) => {
                    signed.insert(intent, signature);
                }
                Event::CertificationIntent(intent) if intent.key == self.key => {
                    let Some(outcome) = signed.get(&index) else { continue };
                    let signature = reader.signature(index)?.map(|row| row.octets);
                    let signature = signature.filter(|signature| Digest::of(signature) == *outcome);
                    let Some(signature) = signature else { continue };
                    let mut info = Vec::new();
                    reader.open_blob(intent.request_info)?.read_to_end(&mut info)?;
                    if pem::request_to_pem(&assemble_request(&info, &signature)?).as_bytes() == found {
                        return Ok(true);
                    }
                }
                _ => {}
            }
        }
        Err(CeremonyError::ForeignRequest { path, key: self.key.clone() })
    }

    fn path_of(&self, opened: &Opened) -> PathBuf {
        let uses: Vec<KeyUse> = opened.fold().keys().values().map(|key| key.record.use_).collect();
        self.out.join(format!("{}.csr", stem(&self.key, opened.key.use_, &uses)))
    }

    /// Makes the request, unless this is a dry run.
    pub(super) fn perform(&self) -> Result<Requested, CeremonyError> {
        let mut opened = open(&self.tokens, &self.key)?;
        let public = PublicKey::from_spki(&opened.key.spki_octets())
            .map_err(|error| CeremonyError::Key { key: self.key.clone(), why: error.to_string() })?;
        let party = originator(&opened)?;
        let subject = OrganisationSubject { common_name: self.common_name.clone(), role: RECOVERY_ROLE, party };
        let info = certification_request_info(&subject, &public)?;
        let path = self.path_of(&opened);
        // Each request has a signature of its own, so a second one would differ; asked before anything is signed.
        if path.exists() {
            return Err(InputError::Exists { path }.into());
        }
        let name = self.common_name.as_ref().map_or_else(String::new, |name| format!("CN={name}, "));
        let mut answer = Requested {
            key: self.key.clone(),
            subject: format!("{name}OU={RECOVERY_ROLE:02X}, uniqueIdentifier={party}"),
            spki_sha256: public.spki_sha256(),
            request_info_sha256: Digest::of(&info),
            intent: None,
            file: path.display().to_string(),
        };
        if !self.change.dry_run {
            answer.intent = Some(sign_request(&mut opened, &info, &path)?);
        }
        Ok(answer)
    }

    pub(super) fn run(self, print: Printer) -> Result<(), CeremonyError> {
        let answer = self.perform()?;
        print.answer(&answer, |text| {
            text.row("key", &answer.key)
                .row("subject", &answer.subject)
                .row("key SHA-256", answer.spki_sha256)
                .some("intent", answer.intent.map(|intent| format!("entry {intent}")))
                .row("request", &answer.file);
        })?;
        if self.change.dry_run {
            print.note("Nothing was recorded; no token was asked.");
        } else {
            print.note("Next: send the request to the SMKI; then `smkictl ceremony import` with what it issues.");
        }
        Ok(())
    }
}

/// Records the intent, durably and under a checkpoint, before the token signs; then what came of it; then writes the file.
fn sign_request(opened: &mut Opened, info: &[u8], path: &Path) -> Result<u64, CeremonyError> {
    let label = opened.key.label.clone();
    let name = opened.key.token.clone();
    let ledger_token = opened.log_in()?;
    // Logged in before the intent, so that a wrong PIN leaves none.
    let expectations = start::expectations(opened.fold(), &name);
    let (token, _) = opened.start(&name, &opened.uses(&name), expectations)?;
    let deadline = opened.room.token_config(&name)?.call_deadline;
    let intent = record_alone(&mut opened.ledger, |recorder| {
        let by = recorder.known(room::conductor());
        let request_info = recorder.queue_blob(info.to_vec());
        recorder.queue(&by, Event::CertificationIntent(CertificationIntent { key: label.clone(), request_info }))
    })?
    .into_inner();

    let now = wall_clock().plus_ms(opened.room.configuration.clock_offset_ms);
    let not_after = now.plus_ms(i64::try_from(deadline.as_millis()).unwrap_or(i64::MAX));
    let item = ToSign::new(intent, Kind::CertificationRequest, info.to_vec());
    let outcome = match token.sign(&label, vec![item], not_after) {
        Ok(results) => results.wait_all().pop().map(|result| result.outcome),
        // Such an error means that nothing was submitted.
        Err(error) => Some(Signing::Failed(error)),
    };
    let (result, signature) = match outcome {
        Some(Signing::Signed(signature)) => (SignResult::Signed(Digest::of(&signature)), Some(signature)),
        Some(Signing::Failed(error)) => (SignResult::Failed(error.to_string().into()), None),
        Some(Signing::NotSigned(why)) => (SignResult::NotSigned(why.to_string().into()), None),
        Some(Signing::Unknown(error)) => (SignResult::Unknown(error.to_string().into()), None),
        None => (SignResult::Unknown("the worker gave no outcome".into()), None),
    };
    record_alone(&mut opened.ledger, |recorder| {
        let by = recorder.known(room::conductor());
        recorder.queue(&by, Event::Outcome(Outcome { intent, result: result.clone() }))?;
        if let Some(signature) = signature {
            // A certification request is public and commands no Device, so its outcome is all that is recorded of it: there is
            // no determination that a release could rest on.
            recorder.queue_signature(intent, signature, false);
        }
        Ok(())
    })?
    .into_inner();
    opened.keep_head(&ledger_token)?;
    match (signature, result) {
        (Some(signature), _) => {
            let request = assemble_request(info, &signature)?;
            write_new(path, pem::request_to_pem(&request).as_bytes())?;
            Ok(intent)
        }
        (None, SignResult::Signed(_)) => unreachable!("a signed outcome has its signature"),
        (None, SignResult::Failed(why) | SignResult::NotSigned(why) | SignResult::Unknown(why)) => {
            Err(CeremonyError::NotSigned { key: label, why: why.into() })
        }
    }
}

impl Import {
    /// Records the certificate, unless this is a dry run. What it is, and the index of the entry.
    pub(super) fn perform(&self) -> Result<(CertificateImported, Option<u64>), CeremonyError> {
        let mut opened = open(&self.tokens, &self.key)?;
        let certificate = read_certificate(&self.certificate)?;
        let above: Vec<Vec<u8>> = self.chain.iter().map(|path| read_certificate(path)).collect::<Result<_, _>>()?;
        let judged = judge(&opened.ledger, &self.key, &certificate, &above).map_err(CeremonyError::Refused)?;
        let mut entry = None;
        if !self.change.dry_run {
            let ledger_token = opened.log_in()?;
            // Judged again at the moment of the entry, as the audit will.
            let outcome =
                record_alone(&mut opened.ledger, |recorder| match judge(recorder, &self.key, &certificate, &above) {
                    Ok(imported) => {
                        let by = recorder.known(room::conductor());
                        for octets in std::iter::once(&certificate).chain(&above) {
                            recorder.queue_blob(octets.clone());
                        }
                        recorder.queue(&by, Event::CertificateImported(imported)).map(Ok)
                    }
                    Err(reasons) => Ok(Err(reasons)),
                })?;
            entry = Some(outcome.into_inner().map_err(CeremonyError::Refused)?);
            opened.keep_head(&ledger_token)?;
        }
        Ok((judged, entry))
    }

    pub(super) fn run(self, print: Printer) -> Result<(), CeremonyError> {
        let (judged, entry) = self.perform()?;
        print.answer(&judged, |text| {
            text.row("key", &judged.key)
                .row("Party", judged.party)
                .row("certificate", judged.certificate)
                .some("recorded", entry.map(|index| format!("entry {index}")));
        })?;
        if self.change.dry_run {
            print.note("It would be taken. Nothing was recorded; no token was asked.");
        } else {
            print.note("Next: start smkid.");
        }
        Ok(())
    }
}

fn judge(
    recorder: &Recorder,
    key: &KeyLabel,
    certificate: &[u8],
    above: &[Vec<u8>],
) -> Result<CertificateImported, Vec<Reason>> {
    let Moment { at, clock } = recorder.moment();
    let context = Context { fold: recorder.fold(), blobs: recorder, heads: recorder, at, clock };
    intake::certificate(&context, key, certificate, above)
}

/// One certificate, PEM or DER.
pub(super) fn read_certificate(path: &Path) -> Result<Vec<u8>, CeremonyError> {
    let octets = input::file(path, input::DOCUMENT_LEN_MAX)?;
    if !pem::is_pem(&octets) {
        return Ok(octets);
    }
    let wrong = |source: PemError| CeremonyError::Pem { path: path.to_owned(), source };
    let certificate = pem::certificate(pem::text(&octets).map_err(wrong)?).map_err(wrong)?;
    Ok(certificate.octets().to_vec())
}
