//! Shell: `smkictl determination draft`: from a description in TOML to a document that can be signed; `suspend` and `withdraw`
//! draft the two that must go fast from the command line alone.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, ValueEnum};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::files::{self, DESCRIPTION_LEN_MAX, PEM_LEN_MAX, Paper};
use super::page::Page;
use super::scope::{self, TemplateForm};
use super::show::{Beside, Shown};
use super::{MemberError, Seat};
use crate::api::failure::Exit;
use crate::domain::certificates::profile::{Kind, Profile, SmkiCertificate};
use crate::domain::determination::document::{
    Decision, Determination, DeviceList, DocumentFault, Factor, Form, KeyChosen, LedgerHead, Limits, Method, Schedule,
    ScopeLeft, Suspension, SymmetricKeyLine, Template, Type, Withdrawal, Written,
};
use crate::domain::determination::prose::Prose;
use crate::domain::ledger::checkpoint::{Checkpoint, SignedCheckpoint};
use crate::domain::ledger::entry::Compromised;
use crate::domain::ledger::note::{Note, Verifier};
use crate::domain::names::{
    DeterminationId, Digest, DirectionId, IncidentId, KeyLabel, Origin, PersonId, ProfileId, Purpose, StepId,
};
use crate::domain::policy::Policy;
use crate::domain::procedure::CivilDate;
use crate::domain::procedure::direction::{Direction, Directs, TEXT_LEN_MAX};
use crate::domain::time::Window;

/// Arguments of `smkictl determination draft`.
#[derive(Args, Debug)]
pub struct Draft {
    /// What to draft
    #[arg(long = "type", value_enum, default_value_t)]
    pub kind: DraftType,
    /// Print a description with comments, to be filled in
    #[arg(long, conflicts_with = "from")]
    pub sample: bool,
    /// The description (TOML). Files that it names lie beside it
    #[arg(long, value_name = "draft.toml", required_unless_present = "sample")]
    pub from: Option<PathBuf>,
    /// The ledger and the policy
    #[command(flatten)]
    pub seen: SeenArgs,
    /// Where the document goes, and the device list with it
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub out: PathBuf,
}

/// Arguments of `smkictl determination suspend`.
#[derive(Args, Debug)]
pub struct Suspend {
    /// What is suspended: its document, or its id, for which the daemon is asked
    #[arg(value_name = "DETERMINATION")]
    pub about: About,
    /// The member who suspends it, and signs, as the policy calls them
    #[arg(long, value_name = "MEMBER")]
    pub member: PersonId,
    /// For how long, from when it is recorded; the policy says how long it may be
    #[arg(long, value_name = "N")]
    pub hours: u32,
    /// Why, for everybody who reads the ledger
    #[arg(long, value_name = "TEXT")]
    pub reason: Prose,
    /// The ledger and the policy
    #[command(flatten)]
    pub seen: SeenArgs,
    /// Where the document goes
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub out: PathBuf,
}

/// Arguments of `smkictl determination withdraw`.
#[derive(Args, Debug)]
pub struct Withdraw {
    /// What is withdrawn: its document, or its id, for which the daemon is asked
    #[arg(value_name = "DETERMINATION")]
    pub about: About,
    /// Who drafts it, as the policy calls them. They may not approve it
    #[arg(long, value_name = "PERSON")]
    pub proposer: PersonId,
    /// Why, for everybody who reads the ledger
    #[arg(long, value_name = "TEXT")]
    pub reason: Prose,
    /// The ledger and the policy
    #[command(flatten)]
    pub seen: SeenArgs,
    /// Where the document goes
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub out: PathBuf,
}

/// The determination that another document is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// Its document, octet for octet.
    File(PathBuf),
    /// On record with the daemon.
    Recorded(DeterminationId),
}

impl FromStr for About {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.parse().map_or_else(|_| Self::File(text.into()), Self::Recorded))
    }
}

impl About {
    /// The determination that the daemon is asked for.
    pub const fn recorded(&self) -> Option<DeterminationId> {
        match self {
            Self::File(_) => None,
            Self::Recorded(id) => Some(*id),
        }
    }

    fn read(&self, seat: &Seat<'_>) -> Result<Box<Written<Determination>>, MemberError> {
        match self {
            Self::File(path) => determination_of(path, Paper::open(path)?),
            Self::Recorded(id) => {
                let path = PathBuf::from(id.to_string());
                let unfit = |fault| MemberError::Unfit { path: path.clone(), fault };
                let daemon = seat.daemon.ok_or_else(|| unfit("there is no daemon to ask for it".to_owned()))?;
                let octets = daemon.determination().map_err(&unfit)?;
                let faults = |faults: Vec<DocumentFault>| MemberError::Document {
                    path: path.clone(),
                    faults: files::lines(&faults),
                };
                let about = determination_of(&path, Paper::read(&octets).map_err(faults)?)?;
                if about.form().id == *id {
                    Ok(about)
                } else {
                    Err(unfit(format!("the daemon answered with determination {}", about.form().id)))
                }
            }
        }
    }
}

/// The ledger and the policy as the drafter sees them.
#[derive(Args, Clone, Debug, Default)]
pub struct SeenArgs {
    /// The ledger's head: a checkpoint, or what `smkictl status --output json` printed. Else the daemon is asked
    #[arg(long, value_name = "FILE")]
    pub head: Option<PathBuf>,
    /// Verify the checkpoint's signature with this key (PEM, or a C2SP vkey)
    #[arg(long, value_name = "FILE", requires = "head")]
    pub ledger_key: Option<PathBuf>,
    /// The directory of the policy in force
    #[arg(long, value_name = "DIR")]
    pub policy: Option<PathBuf>,
}

/// What can be drafted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DraftType {
    /// What the PMA determines
    #[default]
    Determination,
    /// The scope of a determination that left it open
    Schedule,
    /// The end of a determination
    Withdrawal,
    /// A pause of it, by one member
    Suspension,
    /// A direction about the procedure: a variation is extended, or a step departed from
    Direction,
}

/// Where the ledger's head comes from when no file says it.
pub trait Daemon {
    /// What `smkictl status --output json` prints.
    fn status(&self) -> Result<Vec<u8>, String>;
    /// The document of the determination that the command names by its id.
    fn determination(&self) -> Result<Vec<u8>, String>;
}

/// What a drafter knows of the ledger.
#[derive(Clone, Debug)]
pub struct LedgerSeen {
    /// Its head.
    pub head: LedgerHead,
    /// The policy in force and its number, where the daemon said so.
    pub policy: Option<(Digest, u32)>,
    /// Live or exercise, where the daemon said so.
    pub purpose: Option<Purpose>,
}

/// As much of the daemon's status as a draft needs.
#[derive(Deserialize)]
struct StatusForm {
    origin: Origin,
    ledger: HeadForm,
    purpose: Purpose,
    policy: Option<PolicyForm>,
}

#[derive(Deserialize)]
struct HeadForm {
    size: u64,
    root: Digest,
}

#[derive(Deserialize)]
struct PolicyForm {
    sequence: u32,
    sha256: Digest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeterminationForm {
    purpose: Option<Purpose>,
    incident: IncidentId,
    decision_number: u32,
    proposer: PersonId,
    decision: Decision,
    compromised: PathBuf,
    supersedes: Option<DeterminationId>,
    policy: Option<Digest>,
    window: Window,
    #[serde(default)]
    factor: Vec<Factor>,
    key: Option<KeyForm>,
    method: Option<Method>,
    symmetric_key: Option<SymmetricKeyForm>,
    counter_start: Option<u64>,
    schedule: Option<ScopeLeft>,
    devices: Option<PathBuf>,
    limits: Option<Limits>,
    template: Option<Vec<TemplateForm>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyForm {
    label: KeyLabel,
    certificate: Option<PathBuf>,
    spki_sha256: Option<Digest>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SymmetricKeyForm {
    root: Option<PathBuf>,
    root_sha256: Option<Digest>,
    next: KeyLabel,
    next_root: Option<PathBuf>,
    next_root_sha256: Option<Digest>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScheduleForm {
    determination: PathBuf,
    proposer: PersonId,
    policy: Option<Digest>,
    devices: PathBuf,
    limits: Limits,
    template: Vec<TemplateForm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WithdrawalForm {
    determination: PathBuf,
    proposer: PersonId,
    policy: Option<Digest>,
    reason: Prose,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SuspensionForm {
    determination: PathBuf,
    member: PersonId,
    hours: u32,
    policy: Option<Digest>,
    reason: Prose,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DirectionForm {
    purpose: Option<Purpose>,
    proposer: PersonId,
    policy: Option<Digest>,
    reference: Prose,
    text: Option<PathBuf>,
    extension: Option<ExtensionForm>,
    departure: Option<DepartureForm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExtensionForm {
    variation: ProfileId,
    until: Option<CivilDate>,
    #[serde(default)]
    without_end: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DepartureForm {
    incident: IncidentId,
    step: StepId,
    reason: Prose,
}

impl DirectionForm {
    /// The one thing that it directs.
    fn directs(extension: Option<ExtensionForm>, departure: Option<DepartureForm>) -> Result<Directs, MemberError> {
        let described = |field: &str, fault: &str| MemberError::Described { field: field.into(), fault: fault.into() };
        match (extension, departure) {
            (Some(ExtensionForm { variation, until, without_end }), None) => {
                if until.is_some() == without_end {
                    let fault =
                        "expected a date, or without_end = true and no date: an end is never left out by mistake";
                    return Err(described("extension.until", fault));
                }
                Ok(Directs::Extension { variation, until })
            }
            (None, Some(DepartureForm { incident, step, reason })) => Ok(Directs::Departure { incident, step, reason }),
            (Some(_), Some(_)) | (None, None) => {
                Err(described("extension, departure", "expected one of the two; a direction does one thing"))
            }
        }
    }
}

/// Drafts a document, or prints a sample of a description.
pub fn run(args: &Draft, seat: &mut Seat<'_>) -> Result<Exit, MemberError> {
    let Some(from) = &args.from else {
        let sample = match args.kind {
            DraftType::Determination => include_str!("draft/determination.toml"),
            DraftType::Schedule => include_str!("draft/schedule.toml"),
            DraftType::Withdrawal => include_str!("draft/withdrawal.toml"),
            DraftType::Suspension => include_str!("draft/suspension.toml"),
            DraftType::Direction => include_str!("draft/direction.toml"),
        };
        seat.write(sample)?;
        return Ok(Exit::Done);
    };
    let drafting = Drafting::begin(from.parent().unwrap_or(Path::new("")), &args.seen, seat)?;
    let drafted = match args.kind {
        DraftType::Determination => drafting.determination(read(from)?)?,
        DraftType::Schedule => drafting.schedule(read(from)?)?,
        DraftType::Withdrawal => {
            let WithdrawalForm { determination, proposer, policy, reason } = read(from)?;
            let about = drafting.about(&determination)?;
            drafting.withdrawal(&about, proposer, policy, reason)?
        }
        DraftType::Suspension => {
            let SuspensionForm { determination, member, hours, policy, reason } = read(from)?;
            let about = drafting.about(&determination)?;
            drafting.suspension(&about, member, hours, policy, reason)?
        }
        DraftType::Direction => drafting.direction(read(from)?)?,
    };
    finish(&drafted, &args.out, args.seen.policy.clone(), seat)
}

/// Drafts a suspension from what the command line says.
pub fn suspend(args: &Suspend, seat: &mut Seat<'_>) -> Result<Exit, MemberError> {
    let drafting = Drafting::begin(Path::new(""), &args.seen, seat)?;
    let about = args.about.read(seat)?;
    let drafted = drafting.suspension(&about, args.member.clone(), args.hours, None, args.reason.clone())?;
    finish(&drafted, &args.out, args.seen.policy.clone(), seat)
}

/// Drafts a withdrawal from what the command line says.
pub fn withdraw(args: &Withdraw, seat: &mut Seat<'_>) -> Result<Exit, MemberError> {
    let drafting = Drafting::begin(Path::new(""), &args.seen, seat)?;
    let about = args.about.read(seat)?;
    let drafted = drafting.withdrawal(&about, args.proposer.clone(), None, args.reason.clone())?;
    finish(&drafted, &args.out, args.seen.policy.clone(), seat)
}

/// A document, not written yet.
#[derive(Clone, Debug)]
pub struct Drafted {
    /// The document.
    pub paper: Paper,
    /// The device list that it names.
    pub list: Option<(PathBuf, DeviceList)>,
    /// The file of the compromised certificate.
    pub compromised: Option<PathBuf>,
}

/// Writes the document and its device list, says where they are, and what to look at.
pub fn finish(
    drafted: &Drafted,
    out: &Path,
    policy: Option<PathBuf>,
    seat: &mut Seat<'_>,
) -> Result<Exit, MemberError> {
    let Drafted { paper, list, compromised } = drafted;
    let file = out.join(format!("{}.json", paper.stem()));
    let mut devices = None;
    if let Some((from, list)) = list {
        let to = out.join(format!("{}.devices.txt", paper.stem()));
        files::copy_devices(from, &to, list.sha256)?;
        devices = Some(to);
    }
    files::write_new(&file, paper.octets())?;
    let mut page = Page::default();
    page.row("document", file.display());
    if let Some(devices) = &devices {
        page.row("devices", devices.display());
    }
    page.row("SHA-256", paper.digest());
    seat.answer(&json!({ "document": file, "devices": devices, "sha256": paper.digest() }), &page)?;
    let beside = Beside { devices, policy, predecessor: None, compromised: compromised.clone() };
    for warning in Shown::open(paper.clone(), &beside, seat.now)?.warnings {
        seat.note(&format!("warning: {warning}"));
    }
    seat.note(&format!("Look at all of it before it goes to be signed: smkictl determination show {}", file.display()));
    Ok(Exit::Done)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, MemberError> {
    let text = files::read_text(path, DESCRIPTION_LEN_MAX)?;
    toml::from_str(&text).map_err(|fault| MemberError::Unfit { path: path.to_owned(), fault: fault.to_string() })
}

fn written<F: Form>(form: &F) -> Result<Box<Written<F>>, MemberError> {
    let refused = |faults: Vec<DocumentFault>| MemberError::Draft { faults: files::lines(&faults) };
    Written::write(form).map(Box::new).map_err(refused)
}

impl SeenArgs {
    /// The ledger, from the file or the daemon.
    pub fn ledger(&self, seat: &Seat<'_>) -> Result<LedgerSeen, MemberError> {
        let Some(path) = &self.head else {
            let field = || "--head".to_owned();
            let daemon = seat.daemon.ok_or_else(|| MemberError::Described {
                field: field(),
                fault: "expected a checkpoint or the daemon's status in a file; there is no daemon to ask".to_owned(),
            })?;
            let status = daemon.status().map_err(|fault| MemberError::Described { field: field(), fault })?;
            return read_status(&status).map_err(|fault| MemberError::Described { field: field(), fault });
        };
        let unfit = |fault: String| MemberError::Unfit { path: path.clone(), fault };
        let octets = files::read(path, PEM_LEN_MAX)?;
        if octets.first() == Some(&b'{') {
            if self.ledger_key.is_some() {
                return Err(unfit("expected a checkpoint, since --ledger-key is to verify one; found JSON".to_owned()));
            }
            return read_status(&octets).map_err(unfit);
        }
        let checkpoint = match &self.ledger_key {
            None => {
                let note = Note::parse(&octets).map_err(|fault| unfit(fault.to_string()))?;
                Checkpoint::parse(note.text()).map_err(|fault| unfit(fault.to_string()))?
            }
            Some(key) => {
                let text = files::read_text(key, PEM_LEN_MAX)?;
                let note = Note::parse(&octets).map_err(|fault| unfit(fault.to_string()))?;
                let origin = Checkpoint::parse(note.text()).map_err(|fault| unfit(fault.to_string()))?.origin;
                let verifier = if text.contains("-----BEGIN") {
                    Verifier::from_pem(origin.as_str(), &text)
                } else {
                    Verifier::from_vkey(text.trim())
                };
                let bad_key = |fault: String| MemberError::Unfit { path: key.clone(), fault };
                let verifier = verifier.map_err(|fault| bad_key(fault.to_string()))?;
                SignedCheckpoint::verify(&octets, &verifier)
                    .map_err(|fault| unfit(fault.to_string()))?
                    .checkpoint()
                    .clone()
            }
        };
        let Checkpoint { origin, size, root } = checkpoint;
        Ok(LedgerSeen { head: LedgerHead { origin, size, root }, policy: None, purpose: None })
    }
}

fn read_status(octets: &[u8]) -> Result<LedgerSeen, String> {
    let StatusForm { origin, ledger: HeadForm { size, root }, purpose, policy } =
        serde_json::from_slice(octets).map_err(|fault| format!("not the daemon's status: {fault}"))?;
    let policy = policy.map(|PolicyForm { sequence, sha256 }| (sha256, sequence));
    Ok(LedgerSeen { head: LedgerHead { origin, size, root }, policy, purpose: Some(purpose) })
}

/// The one value that all who say one agree on.
pub fn agreed<T: PartialEq + ToString + Copy>(field: &str, sayings: &[(&str, Option<T>)]) -> Result<T, MemberError> {
    let said: Vec<(&str, T)> = sayings.iter().filter_map(|(who, value)| value.map(|value| (*who, value))).collect();
    let described = |fault: String| MemberError::Described { field: field.to_owned(), fault };
    let Some((first, value)) = said.first() else {
        let who: Vec<&str> = sayings.iter().map(|(who, _)| *who).collect();
        return Err(described(format!("expected in {}; found nowhere", who.join(" or "))));
    };
    match said.iter().find(|(_, other)| other != value) {
        None => Ok(*value),
        Some((second, other)) => Err(described(format!(
            "expected one value, found {} in {first} and {} in {second}",
            value.to_string(),
            other.to_string()
        ))),
    }
}

/// A description that becomes a document.
struct Drafting<'a> {
    folder: &'a Path,
    ledger: LedgerSeen,
    policy: Option<Policy>,
}

impl<'a> Drafting<'a> {
    fn begin(folder: &'a Path, seen: &SeenArgs, seat: &Seat<'_>) -> Result<Self, MemberError> {
        let policy = seen.policy.as_deref().map(files::read_policy).transpose()?;
        Ok(Self { folder, ledger: seen.ledger(seat)?, policy })
    }
}

impl Drafting<'_> {
    fn purpose(&self, described: Option<Purpose>) -> Result<Purpose, MemberError> {
        let policy = self.policy.as_ref().map(Policy::purpose);
        agreed("purpose", &[("the description", described), ("--policy", policy), ("--head", self.ledger.purpose)])
    }

    fn policy(&self, described: Option<Digest>) -> Result<Digest, MemberError> {
        let (policy, status) = (self.policy.as_ref().map(Policy::digest), self.ledger.policy.map(|(digest, _)| digest));
        agreed("policy", &[("the description", described), ("--policy", policy), ("--head", status)])
    }

    fn scope(
        &self,
        devices: &Path,
        forms: &[TemplateForm],
        method: Option<Method>,
    ) -> Result<(Vec<Template>, PathBuf, DeviceList), MemberError> {
        let templates = scope::templates(forms, method, self.folder)?;
        let path = self.folder.join(devices);
        let list = scope::devices(&path, &templates)?.list;
        Ok((templates, path, list))
    }

    fn determination(&self, form: DeterminationForm) -> Result<Drafted, MemberError> {
        let compromised_path = self.folder.join(&form.compromised);
        let key = form.key.map(|key| self.key(&key)).transpose()?;
        let symmetric_key = form.symmetric_key.map(|line| self.symmetric_key(line)).transpose()?;
        let mut determination = Determination {
            r#type: Type::new(),
            purpose: self.purpose(form.purpose)?,
            id: DeterminationId(random()?),
            incident: form.incident,
            decision_number: form.decision_number,
            proposer: form.proposer,
            ledger: self.ledger.head.clone(),
            policy: self.policy(form.policy)?,
            decision: form.decision,
            compromised: compromised(&compromised_path)?,
            factors: form.factor,
            window: form.window,
            supersedes: form.supersedes,
            key,
            method: form.method,
            symmetric_key,
            counter_start: form.counter_start,
            schedule: form.schedule,
            templates: None,
            devices: None,
            limits: form.limits,
        };
        let mut list = None;
        match (form.devices, form.limits, form.template) {
            (Some(devices), Some(_), Some(template)) => {
                let (templates, path, devices) = self.scope(&devices, &template, form.method)?;
                (determination.templates, determination.devices) = (Some(templates), Some(devices));
                list = Some((path, devices));
            }
            (None, None, None) => {}
            (devices, limits, template) => {
                let there =
                    [("devices", devices.is_some()), ("limits", limits.is_some()), ("template", template.is_some())];
                let absent: Vec<&str> = there.iter().filter(|(_, there)| !there).map(|(name, _)| *name).collect();
                let fault =
                    "expected devices, limits and template together, or none of them; this one is absent".to_owned();
                return Err(MemberError::Described { field: absent.join(", "), fault });
            }
        }
        Ok(Drafted { paper: Paper::Determination(written(&determination)?), list, compromised: Some(compromised_path) })
    }

    fn key(&self, form: &KeyForm) -> Result<KeyChosen, MemberError> {
        let certificate = match &form.certificate {
            Some(path) => Some(files::read_certificates(&self.folder.join(path))?.0.spki_sha256()),
            None => None,
        };
        let spki_sha256 = agreed("key", &[("certificate", certificate), ("spki_sha256", form.spki_sha256)])?;
        Ok(KeyChosen { label: form.label.clone(), spki_sha256 })
    }

    /// The Root OCA Certificates that the Devices hold and get stand there as their files, their SHA-256, or both.
    fn symmetric_key(&self, form: SymmetricKeyForm) -> Result<SymmetricKeyLine, MemberError> {
        let of = |path: &Option<PathBuf>| match path {
            Some(path) => Ok(Some(files::read_certificates(&self.folder.join(path))?.0.sha256())),
            None => Ok::<_, MemberError>(None),
        };
        let (root, next_root) = (of(&form.root)?, of(&form.next_root)?);
        let root_sha256 = agreed("symmetric_key", &[("root", root), ("root_sha256", form.root_sha256)])?;
        let next_root_sha256 =
            agreed("symmetric_key", &[("next_root", next_root), ("next_root_sha256", form.next_root_sha256)])?;
        Ok(SymmetricKeyLine { root_sha256, next: form.next, next_root_sha256 })
    }

    /// The determination that another document is about.
    fn about(&self, path: &Path) -> Result<Box<Written<Determination>>, MemberError> {
        let path = self.folder.join(path);
        determination_of(&path, Paper::open(&path)?)
    }

    fn schedule(&self, form: ScheduleForm) -> Result<Drafted, MemberError> {
        let about = self.about(&form.determination)?;
        let (templates, path, devices) = self.scope(&form.devices, &form.template, about.form().method)?;
        let schedule = Schedule {
            r#type: Type::new(),
            purpose: self.purpose(Some(about.form().purpose))?,
            determination: about.form().id,
            document: about.digest(),
            proposer: form.proposer,
            ledger: self.ledger.head.clone(),
            policy: self.policy(form.policy)?,
            templates,
            devices,
            limits: form.limits,
        };
        Ok(Drafted { paper: Paper::Schedule(written(&schedule)?), list: Some((path, devices)), compromised: None })
    }

    fn withdrawal(
        &self,
        about: &Written<Determination>,
        proposer: PersonId,
        policy: Option<Digest>,
        reason: Prose,
    ) -> Result<Drafted, MemberError> {
        let withdrawal = Withdrawal {
            r#type: Type::new(),
            purpose: self.purpose(Some(about.form().purpose))?,
            determination: about.form().id,
            document: about.digest(),
            proposer,
            ledger: self.ledger.head.clone(),
            policy: self.policy(policy)?,
            reason,
        };
        Ok(Drafted { paper: Paper::Withdrawal(written(&withdrawal)?), list: None, compromised: None })
    }

    fn direction(&self, form: DirectionForm) -> Result<Drafted, MemberError> {
        let text = match &form.text {
            None => None,
            Some(path) => Some(Digest::of(&files::read(&self.folder.join(path), TEXT_LEN_MAX)?)),
        };
        let direction = Direction {
            r#type: Type::new(),
            purpose: self.purpose(form.purpose)?,
            id: DirectionId(random()?),
            proposer: form.proposer,
            ledger: self.ledger.head.clone(),
            policy: self.policy(form.policy)?,
            reference: form.reference,
            text,
            directs: DirectionForm::directs(form.extension, form.departure)?,
        };
        Ok(Drafted { paper: Paper::Direction(written(&direction)?), list: None, compromised: None })
    }

    fn suspension(
        &self,
        about: &Written<Determination>,
        member: PersonId,
        hours: u32,
        policy: Option<Digest>,
        reason: Prose,
    ) -> Result<Drafted, MemberError> {
        let suspension = Suspension {
            r#type: Type::new(),
            purpose: self.purpose(Some(about.form().purpose))?,
            determination: about.form().id,
            document: about.digest(),
            member,
            hours,
            ledger: self.ledger.head.clone(),
            policy: self.policy(policy)?,
            reason,
        };
        Ok(Drafted { paper: Paper::Suspension(written(&suspension)?), list: None, compromised: None })
    }
}

/// The determination that this document must be.
fn determination_of(path: &Path, paper: Paper) -> Result<Box<Written<Determination>>, MemberError> {
    match paper {
        Paper::Determination(document) => Ok(document),
        other @ (Paper::Schedule(_)
        | Paper::Withdrawal(_)
        | Paper::Suspension(_)
        | Paper::Adoption(_)
        | Paper::Direction(_)
        | Paper::Destruction(_)
        | Paper::Statement(_)) => {
            let fault = format!("expected the determination ({}), found {}", Determination::TYPE, other.kind());
            Err(MemberError::Unfit { path: path.to_owned(), fault })
        }
    }
}

fn compromised(path: &Path) -> Result<Compromised, MemberError> {
    let unfit = |fault: String| MemberError::Unfit { path: path.to_owned(), fault };
    let (certificate, _) = files::read_certificates(path)?;
    let smki = SmkiCertificate::from_certificate(certificate, &Profile::shape_only())
        .map_err(|fault| unfit(fault.to_string()))?;
    match smki.kind() {
        Kind::Organisation { party, .. } => Ok(Compromised {
            certificate_sha256: smki.certificate().sha256(),
            spki_sha256: smki.certificate().spki_sha256(),
            party,
        }),
        kind @ (Kind::IssuingOca | Kind::RootOca | Kind::DeviceCa | Kind::Device { .. }) => {
            Err(unfit(format!("expected an Organisation Certificate, found one of {kind}")))
        }
    }
}

/// 128 random bits.
fn random<const LEN: usize>() -> Result<[u8; LEN], MemberError> {
    let mut octets = [0; LEN];
    SystemRandom::new().fill(&mut octets).map_err(|_| MemberError::NoRandom)?;
    Ok(octets)
}
