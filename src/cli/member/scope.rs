//! Shell: what is signed for whom, from a description: command templates out of files or certificates, and a device list.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::MemberError;
use super::files::{self, COMMAND_LEN_MAX, ListSeen};
use crate::cli::gbcs::message_octets;
use crate::domain::certificates::Certificate;
use crate::domain::determination::document::{Method, Payload, Template as DocumentTemplate};
use crate::domain::gbcs::message::Payload as MessagePayload;
use crate::domain::gbcs::{
    CellUsage, CpvChecks, CredentialsReplacementMode, GeneralizedTime, KeyUsage, Message, RemotePartyRole, Replacement,
    SeqNumber, SeqNumberChange, SpecialistFloor, SpecialistUse, Template, TrustAnchorCell, Update,
};
use crate::domain::names::TemplateName;
use crate::domain::time::Timestamp;

/// The first octet of a `CommandPayload` in DER, which no message begins with.
const SEQUENCE: u8 = 0x30;

/// A template, as described: `command`, or all the others.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateForm {
    /// By what the device list calls it.
    pub name: TemplateName,
    /// A Command, a pre-command, a CommandPayload or a template: binary or hexadecimal.
    command: Option<PathBuf>,
    /// What goes where.
    #[serde(default)]
    replace: Vec<ReplaceForm>,
    /// The certificates between the replacements and the root.
    #[serde(default)]
    path: Vec<PathBuf>,
    /// Whether the Device looks at validity dates.
    time_checks: Option<TimeChecks>,
    /// The counter of the authorising role afterwards.
    new_floor: Option<u64>,
    /// Counters of other roles afterwards.
    #[serde(default)]
    other_floor: Vec<FloorForm>,
    /// When it is executed; absent, at once.
    execution: Option<Timestamp>,
}

/// A replacement, as described.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplaceForm {
    /// `supplier digitalSignature`, `supplier keyAgreement prePaymentTopUp`.
    cell: String,
    /// The certificate (PEM or DER).
    certificate: PathBuf,
}

/// A counter of another role.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FloorForm {
    role: RemotePartyRole,
    floor: u64,
    top_up: Option<u64>,
}

/// Whether the Device looks at validity dates.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum TimeChecks {
    Apply,
    Disapply,
}

/// The templates of a description in `folder`.
pub fn templates(
    forms: &[TemplateForm],
    method: Option<Method>,
    folder: &Path,
) -> Result<Vec<DocumentTemplate>, MemberError> {
    forms
        .iter()
        .map(|form| {
            let described = |fault: String| MemberError::Described { field: format!("template {}", form.name), fault };
            let template = match &form.command {
                Some(path) => {
                    if let Some(surplus) = form.described_besides() {
                        let fault = format!("expected `command` alone, which says everything; found {surplus} too");
                        return Err(described(fault));
                    }
                    from_command(&folder.join(path))?
                }
                None => from_certificates(form, method, folder)?,
            };
            let payload = Payload::new(template.octets()).map_err(|fault| described(fault.to_string()))?;
            Ok(DocumentTemplate { name: form.name.clone(), payload })
        })
        .collect()
}

/// Reads the device list of a description.
pub fn devices(list: &Path, templates: &[DocumentTemplate]) -> Result<ListSeen, MemberError> {
    let names: Vec<&TemplateName> = templates.iter().map(|template| &template.name).collect();
    files::read_devices(list, &names)
}

impl TemplateForm {
    /// The first field beside `command` that is there.
    fn described_besides(&self) -> Option<&'static str> {
        let Self { name: _, command: _, replace, path, time_checks, new_floor, other_floor, execution } = self;
        [
            ("replace", !replace.is_empty()),
            ("path", !path.is_empty()),
            ("time_checks", time_checks.is_some()),
            ("new_floor", new_floor.is_some()),
            ("other_floor", !other_floor.is_empty()),
            ("execution", execution.is_some()),
        ]
        .into_iter()
        .find_map(|(name, there)| there.then_some(name))
    }
}

/// The template of a command that somebody made: its counter is taken out, and of mode 9 its symmetric key.
fn from_command(path: &Path) -> Result<Template, MemberError> {
    let unfit = |fault: String| MemberError::Unfit { path: path.to_owned(), fault };
    let input = files::read(path, COMMAND_LEN_MAX)?;
    let octets = message_octets(&input).map_err(|fault| unfit(fault.to_string()))?;
    if octets.first() == Some(&SEQUENCE) {
        // A template has its counter's place empty; a payload has not.
        return Template::parse(&octets)
            .or_else(|_| Template::from_command_payload(&octets))
            .map_err(|fault| unfit(fault.to_string()));
    }
    let message = Message::decode(&octets).map_err(|fault| unfit(fault.to_string()))?;
    match &message.payload {
        MessagePayload::Command(_) => {}
        MessagePayload::Response(_) | MessagePayload::Alert(_) => {
            return Err(unfit("expected a Command or pre-command, found an answer of a Device".to_owned()));
        }
    }
    Template::from_command_payload(&octets[message.frame.payload.clone()]).map_err(|fault| unfit(fault.to_string()))
}

fn from_certificates(form: &TemplateForm, method: Option<Method>, folder: &Path) -> Result<Template, MemberError> {
    let described = |fault: String| MemberError::Described { field: format!("template {}", form.name), fault };
    let (mode, cell) = match method {
        None | Some(Method::AcbCertificates | Method::NewOrganisationCertificates) => {
            (CredentialsReplacementMode::AnyExceptAbnormalRootByRecovery, TrustAnchorCell::RECOVERY)
        }
        Some(Method::Contingency) => (CredentialsReplacementMode::AnyByContingency, TrustAnchorCell::ROOT),
        Some(Method::SubscriberKey) => {
            let fault = "expected `command`: only modes 8 and 9 are built from certificates".to_owned();
            return Err(described(fault));
        }
    };
    if form.replace.is_empty() {
        let fault = "expected `command`, or one `replace` for each cell; found neither".to_owned();
        return Err(described(fault));
    }
    let mut replacements = Vec::new();
    for ReplaceForm { cell, certificate } in &form.replace {
        let (certificate, _) = files::read_certificates(&folder.join(certificate))?;
        replacements.push((read_cell(cell).map_err(&described)?, certificate));
    }
    let mut path: Vec<Certificate> = Vec::new();
    for file in &form.path {
        let (first, rest) = files::read_certificates(&folder.join(file))?;
        path.extend(std::iter::once(first).chain(rest));
    }
    let counter = |value: u64| {
        let fault = || described(format!("expected a floor of at most {}, found {value}", SeqNumber::MAX));
        SeqNumber::new(value).ok_or_else(fault)
    };
    let mut other_changes = Vec::new();
    for FloorForm { role, floor, top_up } in &form.other_floor {
        let top_up = top_up.map(counter).transpose()?;
        let special = |floor| vec![SpecialistFloor { usage: SpecialistUse::PrepaymentTopUp, floor }];
        let specialist_floors = top_up.map(special);
        other_changes.push(SeqNumberChange { role: *role, floor: counter(*floor)?, specialist_floors });
    }
    let execution = match form.execution {
        None => None,
        Some(at) => Some(
            GeneralizedTime::from_timestamp(at)
                .ok_or_else(|| described(format!("execution: expected whole seconds, found {at}")))?,
        ),
    };
    let update = Update {
        mode,
        cpv_checks: match form.time_checks {
            None | Some(TimeChecks::Apply) => CpvChecks::Apply,
            Some(TimeChecks::Disapply) => CpvChecks::Disapply,
        },
        authorising_cell: Some(cell),
        new_floor: form.new_floor.map(counter).transpose()?,
        new_specialist_floors: None,
        other_changes: (!other_changes.is_empty()).then_some(other_changes),
        replacements: replacements
            .iter()
            .map(|(cell, certificate)| Replacement { certificate: certificate.octets(), cell: *cell })
            .collect(),
        path_certificates: path.iter().map(Certificate::octets).collect(),
        execution,
    };
    Template::from_update(&update).map_err(|fault| described(fault.to_string()))
}

/// `role keyUsage [cellUsage]`, as `gbcs show` and `determination show` write a cell.
fn read_cell(text: &str) -> Result<TrustAnchorCell, String> {
    let wrong = |fault: String| format!("cell {text:?}: {fault}");
    let words: Vec<&str> = text.split_whitespace().collect();
    let (role, usage, cell_usage) = match words.as_slice() {
        [role, usage] => (role, usage, CellUsage::Management),
        [role, usage, cell_usage] => (role, usage, cell_usage.parse().map_err(|fault| wrong(format!("{fault}")))?),
        words => {
            let found = words.len();
            return Err(wrong(format!("expected a role, a key usage and perhaps a cell usage, found {found} words")));
        }
    };
    let role: RemotePartyRole = role.parse().map_err(|fault| wrong(format!("{fault}")))?;
    let key_usage = KeyUsage::ALL
        .iter()
        .copied()
        .find(|known| known.name() == *usage)
        .ok_or_else(|| wrong(format!("expected digitalSignature, keyAgreement or keyCertSign, found {usage:?}")))?;
    Ok(TrustAnchorCell { role, key_usage, cell_usage })
}
