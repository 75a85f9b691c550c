//! `ceremony contingency` and `ceremony import-root`: what makes a contingency key pair a generation.
//!
//! Beside the pair its token gets the Contingency Symmetric Key, and the wrapping key under which alone that leaves it. The security officer
//! marks the wrapping key as trusted, in a login of its own: no user can. Then the token wraps the pair's public half with the symmetric
//! key, and the Root OCA's operator is handed the value of the extension for the next Root OCA Certificate. When that is there it is taken
//! in, once its field is the very one that was handed over and unwraps, in the token, to the pair's own public half.
//!
//! The CKA_IDs of the two keys are written down before they are made, in the plan or in a file here: what an interruption leaves on
//! the token is found again by them.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::certificate::read_certificate;
use super::keys::{draw_id, make_folder};
use super::opened::Opened;
use super::{CeremonyError, Contingency, ImportRoot, room};
use crate::cli::input;
use crate::cli::print::Printer;
use crate::cli::release::write_new;
use crate::domain::certificates::Certificate;
use crate::domain::certificates::apex::WrapAlgorithm;
use crate::domain::certificates::pem::to_pem;
use crate::domain::certificates::profile::WRAPPED_APEX_CONTINGENCY_KEY;
use crate::domain::determination::words::Words;
use crate::domain::intake::{self, Context};
use crate::domain::ledger::contingency::{Compared as Where, ContingencyPrepared, RootImported};
use crate::domain::ledger::entry::{Event, Reason};
use crate::domain::names::{Digest, KeyId, KeyLabel, KeyUse, TokenName};
use crate::domain::policy::contingency::ContingencyFacts;
use crate::domain::policy::{Key, WrapWithTrusted};
use crate::hsm::contingency::{SYMMETRIC_KEY, WRAPPING_KEY, symmetric_label, wrapping_label};
use crate::hsm::{Compared, Expectations, HsmError, Material, PinSource, Token};
use crate::recorder::{Moment, Recorder, record_alone};
use crate::service::start::{self, StartFault};

/// The version of the file of CKA_IDs.
const VERSION: u32 = 1;

/// Whether the policy wants contingency material beside a key: a contingency key that may not sign anything yet has none.
pub fn is_wanted(key: &Key) -> bool {
    key.key_use == KeyUse::Contingency && !key.modes.is_empty()
}

/// The CKA_IDs of what is made beside a contingency key: written down before it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// Of the Contingency Symmetric Key.
    pub symmetric: KeyId,
    /// Of its wrapping key.
    pub wrapping: KeyId,
}

/// `LABEL.contingency.json`: nothing in it is secret.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdsFile {
    version: u32,
    key: KeyLabel,
    symmetric_id: KeyId,
    wrapping_id: KeyId,
}

/// Contingency material that stands and is recorded.
pub struct Made {
    /// What the ledger says of it.
    pub prepared: ContingencyPrepared,
    /// The value of the extension.
    pub extension: Vec<u8>,
    /// SHA-256 of the pair's SubjectPublicKeyInfo.
    pub spki_sha256: Digest,
    /// The index of the entry; none if it was recorded before.
    pub entry: Option<u64>,
    /// What an attempt before left, in words.
    pub found: Option<String>,
}

/// What stands on the token of what is to be made.
enum Stands {
    Nothing,
    Wrapping,
    Both,
}

/// Makes what is missing beside a contingency key of the ledger, and records it. Of material that is recorded only the wrapping key is made
/// again: it is a public object, which whoever reaches the token may destroy. `begun`: somebody here began to make it before.
pub fn make(opened: &mut Opened, ids: Ids, begun: bool) -> Result<Made, CeremonyError> {
    let label = opened.key.label.clone();
    if let Some(mut made) = recorded(opened, ids)? {
        let (name, material) = (made.prepared.token.clone(), Material::from(&made.prepared));
        let pin = opened.pin(&name, &opened.uses(&name))?;
        if (Beside { opened, name: &name, pin, material }).mend()? {
            made.found = Some(
                "the contingency material, recorded before; its wrapping key was not on the token any more, and was made anew".to_owned(),
            );
        }
        return Ok(made);
    }
    let (wanted, algorithm) = wanted(opened)?;
    let bits = u16::try_from(8 * algorithm.key_len()).unwrap_or(u16::MAX);
    let wrap_with_trusted = wanted == WrapWithTrusted::Required;
    let material = Material { symmetric: ids.symmetric, wrapping: ids.wrapping, bits, wrap_with_trusted };
    let name = opened.key.token.clone();
    let uses = opened.uses(&name);
    let ledger_token = opened.log_in()?;
    // Asked for once: what stands is seen by a login of its own.
    let beside = Beside { opened, name: &name, pin: opened.pin(&name, &uses)?, material };
    let stands = beside.stands()?;
    if !begun && !matches!(stands, Stands::Nothing) {
        return Err(CeremonyError::Early { place: format!("token {name}"), key: label, id: ids.wrapping });
    }
    let found = match stands {
        Stands::Nothing => None,
        Stands::Wrapping => Some("the wrapping key, made at an attempt before this one".to_owned()),
        Stands::Both => {
            Some("the wrapping key and the Contingency Symmetric Key, made at an attempt before this one".to_owned())
        }
    };
    let extension = beside.complete(&stands)?;
    let prepared = ContingencyPrepared {
        key: label,
        token: name,
        symmetric: ids.symmetric,
        wrapping: ids.wrapping,
        bits,
        wrap_with_trusted,
        algorithm: algorithm.as_str().into(),
        extension: Digest::of(&extension),
    };
    let outcome = record_alone(&mut opened.ledger, |recorder| {
        match intake::contingency::may_prepare(recorder.fold(), &prepared, &extension) {
            Ok(()) => {
                let by = recorder.known(room::conductor());
                recorder.queue_blob(extension.clone());
                recorder.queue(&by, Event::ContingencyPrepared(prepared.clone())).map(Ok)
            }
            Err(reasons) => Ok(Err(reasons)),
        }
    })?;
    let entry = Some(outcome.into_inner().map_err(CeremonyError::Refused)?);
    opened.keep_head(&ledger_token)?;
    Ok(Made { prepared, extension, spki_sha256: opened.key.spki_sha256, entry, found })
}

/// The material that the ledger has for the key, if it has.
fn recorded(opened: &Opened, ids: Ids) -> Result<Option<Made>, CeremonyError> {
    let Some(ContingencyFacts { prepared, .. }) = facts(opened) else { return Ok(None) };
    let prepared = prepared.clone();
    if (prepared.symmetric, prepared.wrapping) != (ids.symmetric, ids.wrapping) {
        let why = format!(
            "the ledger has its contingency material, with the CKA_IDs {} and {}; here it is {} and {}: another generation is another key",
            prepared.symmetric, prepared.wrapping, ids.symmetric, ids.wrapping
        );
        return Err(CeremonyError::Key { key: prepared.key, why });
    }
    let mut extension = Vec::new();
    opened.ledger.store().reader()?.open_blob(prepared.extension)?.read_to_end(&mut extension)?;
    let found = Some("the contingency material, recorded at an attempt before this one".to_owned());
    Ok(Some(Made { prepared, extension, spki_sha256: opened.key.spki_sha256, entry: None, found }))
}

/// What the ledger has of the key's material.
fn facts(opened: &Opened) -> Option<&ContingencyFacts> {
    opened.fold().keys().get(&opened.key.label)?.contingency.as_ref()
}

/// What the policy in force wants of the material.
fn wanted(opened: &Opened) -> Result<(WrapWithTrusted, WrapAlgorithm), CeremonyError> {
    let label = &opened.key.label;
    let wrong = |why: String| CeremonyError::Key { key: label.clone(), why };
    let key = opened.fold().policy().and_then(|adopted| adopted.policy.key(label));
    let key = key.ok_or_else(|| wrong("the policy in force does not name it".to_owned()))?;
    let rules =
        key.contingency.ok_or_else(|| wrong(format!("expected a contingency key, found a {} key", key.key_use)))?;
    if !is_wanted(key) {
        return Err(wrong(
            "the policy in force has it sign nothing (modes = []), so no contingency material is made; have one adopted with modes = [9]"
                .to_owned(),
        ));
    }
    Ok((rules.wrap_with_trusted, rules.wrap_algorithm))
}

/// The token, and what is made on it.
struct Beside<'o> {
    opened: &'o Opened,
    name: &'o TokenName,
    pin: SecretString,
    material: Material,
}

impl Beside<'_> {
    fn key(&self) -> &KeyLabel {
        &self.opened.key.label
    }

    /// Starts the token; with `material` it must stand there, as fit as it is made now.
    fn start(&self, material: Option<Material>) -> Result<Token, StartFault> {
        let mut expectations = start::expectations(self.opened.fold(), self.name);
        expectations.origin = None;
        if let Some(pair) = expectations.keys.iter_mut().find(|pair| pair.label == *self.key()) {
            pair.material = material;
        }
        let config = start::token_config(&self.opened.room.configuration, self.name, Some(self.opened.room.worker()))?;
        start::start_token(config, self.pin.clone(), expectations).map(|(token, _)| token)
    }

    fn stands(&self) -> Result<Stands, CeremonyError> {
        let is_absent = |source: &HsmError, what: &str| matches!(source, HsmError::KeyAbsent { label, class, .. } if label == self.key() && class == what);
        match self.start(Some(self.material)) {
            Ok(token) => {
                token.shutdown();
                Ok(Stands::Both)
            }
            Err(StartFault::Hsm { source, .. }) if is_absent(&source, WRAPPING_KEY) => Ok(Stands::Nothing),
            Err(StartFault::Hsm { source, .. }) if is_absent(&source, SYMMETRIC_KEY) => Ok(Stands::Wrapping),
            Err(fault) => Err(self.half_made(fault)),
        }
    }

    /// Makes what is missing. Answers the value of the extension.
    fn complete(&self, stands: &Stands) -> Result<Vec<u8>, CeremonyError> {
        let of_hsm = |source| self.half_made(StartFault::Hsm { token: self.name.clone(), source });
        if matches!(stands, Stands::Nothing) && self.material.wrap_with_trusted {
            self.make_trusted()?;
        }
        let token = self.start(matches!(stands, Stands::Both).then_some(self.material))?;
        if matches!(stands, Stands::Nothing) && !self.material.wrap_with_trusted {
            token.make_wrapping(self.key().clone(), self.material.wrapping).wait().map_err(of_hsm)?;
        }
        if !matches!(stands, Stands::Both) {
            token.make_symmetric(self.key().clone(), self.material).wait().map_err(of_hsm)?;
        }
        let extension = token.wrap_public(self.key().clone()).wait().map_err(of_hsm)?;
        token.shutdown();
        Ok(extension)
    }

    /// Makes the wrapping key anew where it is gone, and nothing else: another one wraps the symmetric key as well. Whether it had to be.
    fn mend(&self) -> Result<bool, CeremonyError> {
        match self.stands()? {
            Stands::Both => return Ok(false),
            Stands::Nothing if self.material.wrap_with_trusted => self.make_trusted()?,
            Stands::Nothing => {
                let token = self.start(None)?;
                let made = token.make_wrapping(self.key().clone(), self.material.wrapping).wait();
                token.shutdown();
                made.map_err(|source| self.half_made(StartFault::Hsm { token: self.name.clone(), source }))?;
            }
            // The symmetric key is gone, for good: the start says so.
            Stands::Wrapping => {}
        }
        self.start(Some(self.material))?.shutdown();
        Ok(true)
    }

    /// The wrapping key, made by the token's security officer.
    fn make_trusted(&self) -> Result<(), CeremonyError> {
        let pin = PinSource::Officer(self.opened.room.officer_pin(self.name)?);
        let config = self.opened.room.token_config(self.name)?;
        let officer = |source| CeremonyError::Officer { token: self.name.clone(), source };
        let (token, _) = Token::start(config, pin, Expectations::default()).map_err(officer)?;
        let made = token.make_wrapping(self.key().clone(), self.material.wrapping).wait();
        token.shutdown();
        made.map_err(|source| match source {
            HsmError::KeyExists { .. } => self.half_made(StartFault::Hsm { token: self.name.clone(), source }),
            source => officer(source),
        })
    }

    /// What has our labels, or CKA_IDs, is not what we make.
    fn half_made(&self, fault: StartFault) -> CeremonyError {
        match fault {
            StartFault::Hsm {
                source:
                    source @ (HsmError::KeyExists { .. } | HsmError::KeyDuplicate { .. } | HsmError::KeyUnfit { .. }),
                ..
            } => CeremonyError::HalfMaterial {
                token: self.name.clone(),
                key: self.key().clone(),
                why: source.to_string(),
                remove: self.removal(),
            },
            fault => fault.into(),
        }
    }

    /// How what has our labels is taken off the token by hand.
    fn removal(&self) -> String {
        let configured = start::configured(&self.opened.room.configuration, self.name);
        let (module, token) = configured
            .map_or_else(|_| Default::default(), |found| (found.module.display().to_string(), found.label.clone()));
        [symmetric_label(self.key()), wrapping_label(self.key())]
            .map(|label| {
                format!(
                    "pkcs11-tool --module {module} --token-label '{token}' --login --delete-object --type secrkey --label {label}"
                )
            })
            .join("\n  ")
    }
}

/// The files for the Root OCA's operator: the value of the extension as DER, and as text with what to do.
pub fn hand_over(made: &Made, folder: &Path) -> Result<[PathBuf; 2], CeremonyError> {
    let stem = format!("{}.wrapped-apex", made.prepared.key);
    let [der, text] = ["der", "txt"].map(|end| folder.join(format!("{stem}.{end}")));
    write_new(&der, &made.extension)?;
    write_new(&text, for_the_operator(made).as_bytes())?;
    Ok([der, text])
}

/// What the operator of the Root OCA reads.
fn for_the_operator(made: &Made) -> String {
    let Made { prepared, extension, spki_sha256, .. } = made;
    let ContingencyPrepared { key, bits, algorithm, extension: digest, .. } = prepared;
    let mut text = format!(
        "For the operator of the Root OCA: the Contingency Public Key {key}, wrapped\n\
         \n\
         The next Root OCA Certificate carries it in the extension\n\
         \n\
         \x20 id-pe-wrappedApexContinKey  {WRAPPED_APEX_CONTINGENCY_KEY}  (RFC 5934, 9)\n\
         \n\
         once, with the octets below as its value (extnValue): DER of an ApexContingencyKey, {len} octets, {algorithm}.\n\
         \n\
         What to do\n\
         1. Compare the SHA-256 below, as words, with who held the ceremony.\n\
         2. Issue the Root OCA Certificate with these octets, unaltered. Whether the extension is critical, the certificate profile says\n\
         \x20  (Organisation Certificate Policy, Annex B).\n\
         3. Hand the certificate back, PEM or DER: `smkictl ceremony import-root --key {key} --root FILE` takes it in, if its field is this one.\n\
         \n\
         Nothing here is secret: the Contingency Symmetric Key that unwraps it, of {bits} bits, is on the token and not in this file.\n\
         \n\
         SHA-256 of the value\n\
         \x20 {digest}\n",
        len = extension.len(),
    );
    for line in Words(*digest).to_string().lines() {
        let _ = writeln!(text, "    {line}");
    }
    let _ = write!(text, "\nSHA-256 of the SubjectPublicKeyInfo inside\n  {spki_sha256}\n\nThe value in hexadecimal\n");
    for line in extension.chunks(32) {
        let _ = writeln!(text, "  {}", hex::encode(line));
    }
    text.push_str("\nThe same in base64\n");
    text.push_str(&to_pem("WRAPPED APEX CONTINGENCY KEY", extension));
    text
}

/// What `contingency` answers.
#[derive(Serialize)]
struct Answer {
    key: KeyLabel,
    token: TokenName,
    symmetric_id: KeyId,
    wrapping_id: KeyId,
    bits: u16,
    wrap_with_trusted: bool,
    algorithm: Box<str>,
    extension_sha256: Digest,
    spki_sha256: Digest,
    /// The index of the entry; none if it was recorded before.
    entry: Option<u64>,
    files: Vec<PathBuf>,
}

/// What would be made.
#[derive(Serialize)]
struct Would {
    key: KeyLabel,
    token: TokenName,
    wrap_with_trusted: bool,
    algorithm: Box<str>,
}

impl Contingency {
    pub(super) fn run(self, print: Printer) -> Result<(), CeremonyError> {
        let mut opened = open(&self.tokens, &self.key)?;
        if self.change.dry_run {
            return self.would(&opened, print);
        }
        make_folder(&self.out)?;
        let (ids, begun) = self.ids(facts(&opened))?;
        let made = make(&mut opened, ids, begun)?;
        if let Some(found) = &made.found {
            print.note(&format!("Found: {found}."));
        }
        let files = hand_over(&made, &self.out)?;
        let prepared = &made.prepared;
        let answer = Answer {
            key: prepared.key.clone(),
            token: prepared.token.clone(),
            symmetric_id: prepared.symmetric,
            wrapping_id: prepared.wrapping,
            bits: prepared.bits,
            wrap_with_trusted: prepared.wrap_with_trusted,
            algorithm: prepared.algorithm.clone(),
            extension_sha256: prepared.extension,
            spki_sha256: made.spki_sha256,
            entry: made.entry,
            files: files.to_vec(),
        };
        print.answer(&answer, |text| {
            text.row("key", format!("{} on token {}", answer.key, answer.token))
                .row("symmetric key", format!("{} bits, CKA_ID {}", answer.bits, answer.symmetric_id))
                .row("wrapping key", format!("CKA_ID {}, {}", answer.wrapping_id, guard(answer.wrap_with_trusted)))
                .row("field", format!("{}, SHA-256 {}", answer.algorithm, answer.extension_sha256))
                .line(&Words(answer.extension_sha256).to_string())
                .some("recorded", answer.entry.map(|index| format!("entry {index}")));
            for file in &answer.files {
                text.row("for the Root OCA", file.display());
            }
        })?;
        print.note(&format!(
            "Next: hand both files to the Root OCA's operator; then `smkictl ceremony import-root --key {}` with the Root OCA Certificate that \
             carries the field.",
            answer.key
        ));
        Ok(())
    }

    fn would(&self, opened: &Opened, print: Printer) -> Result<(), CeremonyError> {
        let (wanted, algorithm) = wanted(opened)?;
        let would = Would {
            key: self.key.clone(),
            token: opened.key.token.clone(),
            wrap_with_trusted: wanted == WrapWithTrusted::Required,
            algorithm: algorithm.as_str().into(),
        };
        print.answer(&would, |text| {
            text.row("would make", format!("what stands beside key {} on token {}", would.key, would.token))
                .row("wrapping key", guard(would.wrap_with_trusted))
                .row("field", &would.algorithm);
            if facts(opened).is_some() {
                text.row("recorded", "before: only the files would be written");
            }
        })?;
        print.note("Nothing was made or recorded; no token was asked.");
        Ok(())
    }

    /// The CKA_IDs: the ledger's, or those written down at an attempt before; else they are drawn, and written down.
    fn ids(&self, known: Option<&ContingencyFacts>) -> Result<(Ids, bool), CeremonyError> {
        if let Some(ContingencyFacts { prepared, .. }) = known {
            return Ok((Ids { symmetric: prepared.symmetric, wrapping: prepared.wrapping }, true));
        }
        let path = self.out.join(format!("{}.contingency.json", self.key));
        let wrong = |why: String| CeremonyError::KeysFile { path: path.clone(), why };
        if path.exists() {
            let octets = input::file(&path, input::DOCUMENT_LEN_MAX)?;
            let read: IdsFile = serde_json::from_slice(&octets).map_err(|error| wrong(error.to_string()))?;
            if read.version != VERSION || read.key != self.key {
                return Err(wrong(format!(
                    "expected version {VERSION} and key {}, found {} and {}",
                    self.key, read.version, read.key
                )));
            }
            return Ok((Ids { symmetric: read.symmetric_id, wrapping: read.wrapping_id }, true));
        }
        let ids = Ids { symmetric: draw_id()?, wrapping: draw_id()? };
        let Ids { symmetric: symmetric_id, wrapping: wrapping_id } = ids;
        let file = IdsFile { version: VERSION, key: self.key.clone(), symmetric_id, wrapping_id };
        let mut octets = serde_json::to_vec_pretty(&file).map_err(std::io::Error::from)?;
        octets.push(b'\n');
        room::replace(&path, &octets)?;
        Ok((ids, false))
    }
}

/// How the symmetric key is guarded, in words.
pub const fn guard(wrap_with_trusted: bool) -> &'static str {
    if wrap_with_trusted {
        "trusted, which alone wraps it (CKA_WRAP_WITH_TRUSTED, tried)"
    } else {
        "NOT trusted: any key that is made with the token's PIN wraps the symmetric key"
    }
}

/// The ledger, opened for a step about a contingency key.
pub fn open(tokens: &super::Tokens, key: &KeyLabel) -> Result<Opened, CeremonyError> {
    let opened = Opened::open(tokens, key)?;
    let use_ = opened.key.use_;
    if use_ != KeyUse::Contingency {
        let why = format!("expected a contingency key, found a {use_} key");
        return Err(CeremonyError::Key { key: key.clone(), why });
    }
    Ok(opened)
}

impl ImportRoot {
    /// Takes the Root OCA Certificate in, unless this is a dry run. What it is, and the index of the entry.
    pub(super) fn perform(&self) -> Result<(RootImported, Option<u64>), CeremonyError> {
        let mut opened = open(&self.tokens, &self.key)?;
        let root = read_certificate(&self.root)?;
        let judged = judge(&opened.ledger, &self.key, &root).map_err(CeremonyError::Refused)?;
        if self.change.dry_run {
            return Ok((judged, None));
        }
        let certificate = Certificate::from_der(&root);
        let field =
            certificate.ok().and_then(|found| Some(found.extension(WRAPPED_APEX_CONTINGENCY_KEY)?.value.clone()));
        // It was judged to be there.
        let field = field.unwrap_or_default();
        let name = facts(&opened).map_or_else(|| opened.key.token.clone(), |facts| facts.prepared.token.clone());
        let ledger_token = opened.log_in()?;
        let expectations = Expectations { origin: None, ..start::expectations(opened.fold(), &name) };
        let (token, _) = opened.start(&name, &opened.uses(&name), expectations)?;
        let compared = token.compare_wrapped(self.key.clone(), field).wait();
        token.shutdown();
        match compared.map_err(|source| StartFault::Hsm { token: name.clone(), source })? {
            Compared::Matches => {}
            Compared::Differs(why) | Compared::Failed(why) => {
                return Err(CeremonyError::NotCarried { path: self.root.clone(), key: self.key.clone(), why });
            }
        }
        // Judged again at the moment of the entry, as the audit will.
        let outcome = record_alone(&mut opened.ledger, |recorder| match judge(recorder, &self.key, &root) {
            Ok(imported) => {
                let by = recorder.known(room::conductor());
                recorder.queue_blob(root.clone());
                recorder.queue(&by, Event::RootImported(imported)).map(Ok)
            }
            Err(reasons) => Ok(Err(reasons)),
        })?;
        let entry = outcome.into_inner().map_err(CeremonyError::Refused)?;
        opened.keep_head(&ledger_token)?;
        Ok((judged, Some(entry)))
    }

    pub(super) fn run(self, print: Printer) -> Result<(), CeremonyError> {
        let (imported, entry) = self.perform()?;
        print.answer(&imported, |text| {
            text.row("key", &imported.key)
                .row("Root OCA", imported.root)
                .some("recorded", entry.map(|index| format!("entry {index}")));
        })?;
        if self.change.dry_run {
            print.note("Its field is the one that was made. Nothing was recorded; no token was asked.");
        } else {
            print.note(
                "The token unwrapped its field to the key's own public half. This generation can be determined on.",
            );
        }
        Ok(())
    }
}

fn judge(recorder: &Recorder, key: &KeyLabel, root: &[u8]) -> Result<RootImported, Vec<Reason>> {
    let Moment { at, clock } = recorder.moment();
    let context = Context { fold: recorder.fold(), blobs: recorder, heads: recorder, at, clock };
    intake::contingency::root(&context, key, root, Where::InToken)
}
