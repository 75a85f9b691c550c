//! Shell: what a person should look at before signing. Nothing here refuses: the daemon does that, by rules of its own. A
//! warning is there when something is dangerous, or unusual enough that it may be a mistake.

use std::collections::BTreeSet;
use std::fmt;

use der::asn1::ObjectIdentifier;

use super::files::{ListSeen, OfTemplate};
use crate::domain::certificates::Certificate;
use crate::domain::certificates::apex::WrappedApexKey;
use crate::domain::certificates::path::{self, Time};
use crate::domain::certificates::profile::{Kind, Profile, SmkiCertificate, Usage};
use crate::domain::custody::Statement;
use crate::domain::determination::document::{Limits, Method, Scope, Template as DocumentTemplate};
use crate::domain::determination::people::Role;
use crate::domain::determination::times::HOUR_MS;
use crate::domain::gbcs::{
    CellUsage, CpvChecks, CredentialsReplacementMode, GeneralizedTime, KeyUsage, RemotePartyRole, SeqNumber, Template,
    TrustAnchorCell, Update,
};
use crate::domain::intake::{OF_AN_OCA, is_of_dcc};
use crate::domain::ledger::entry::Compromised;
use crate::domain::names::{DeviceId, Digest, KeyLabel, PersonId, ShareName, TemplateName};
use crate::domain::policy::admission::Refusal;
use crate::domain::policy::{Activation, Policy};
use crate::domain::time::{Timestamp, Window};

/// A window of more than so many days is warned of where no policy says better. No official reference: a week is what a
/// recovery of a large Supplier's Devices takes at a modest rate.
pub const WINDOW_DAYS_USUAL: i64 = 7;

/// A replacement should outlive the window by so many days, or it is to be replaced again at once. No official reference.
pub const REPLACEMENT_DAYS_LEFT: i64 = 90;

const DAY_MS: i64 = 24 * HOUR_MS;

/// Something to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// The daemon would refuse the document under the policy given.
    Refused(Refusal),
    /// A template that cannot be taken apart.
    TemplateUnreadable { template: TemplateName, fault: String },
    /// A mode that the method does not have.
    Mode { template: TemplateName, found: CredentialsReplacementMode, expected: CredentialsReplacementMode },
    /// A floor above what the policy allows.
    FloorAboveCeiling { template: TemplateName, whose: String, floor: u64, ceiling: u64 },
    /// A floor below what Devices have accepted already: old commands could be replayed.
    FloorBelowCounter { template: TemplateName, floor: u64, counter: u64, device: DeviceId },
    /// A floor below the counter that the document starts from.
    FloorBelowStart { template: TemplateName, floor: u64, start: u64 },
    /// A floor above the counter that Devices will be sent.
    FloorAboveCounters { template: TemplateName, floor: u64, next: u64 },
    /// The compromised key stays on the Devices.
    CellLeftOut { template: TemplateName, cell: TrustAnchorCell, own: bool },
    /// A root is replaced.
    RootCell { template: TemplateName },
    /// By the Contingency route, the root is not replaced, or not first.
    RootNotFirst { template: TemplateName },
    /// The new root carries no contingency key.
    RootWithoutKey { template: TemplateName, fault: String },
    /// The new root is not the one that the determination names.
    OtherNewRoot { template: TemplateName, expected: Digest, found: Digest },
    /// Credentials of a role are replaced and no counter floor is set for it.
    FloorMissing { template: TemplateName, role: RemotePartyRole },
    /// Cells that Devices are known to have keep certificates that lead to the old root.
    OldRootLeft { template: TemplateName, cells: Vec<TrustAnchorCell> },
    /// One cell twice.
    CellTwice { template: TemplateName, cell: TrustAnchorCell },
    /// Nothing is replaced.
    NoReplacement { template: TemplateName },
    /// It takes a pending command back.
    Cancellation { template: TemplateName },
    /// It is not executed at once.
    FutureDated { template: TemplateName, at: GeneralizedTime },
    /// The Device does not look at validity dates.
    TimeChecksDisapplied { template: TemplateName },
    /// A replacement carries the compromised key, or is the compromised certificate.
    ReplacementCompromised { template: TemplateName, cell: TrustAnchorCell },
    /// A certificate that cannot be read, or is not within the SMKI profile.
    CertificateUnfit { template: TemplateName, place: String, fault: String },
    /// A certificate that is not valid at that moment.
    NotInForce { template: TemplateName, place: String, at: Timestamp, not_before: Timestamp, not_after: Timestamp },
    /// A replacement that is over soon.
    EndsSoon { template: TemplateName, place: String, not_after: Timestamp },
    /// The key usage of the certificate is not the cell's.
    UsageDiffers { template: TemplateName, cell: TrustAnchorCell, found: String },
    /// The role of the certificate is not the cell's; by Method 2, in a cell of others than the DCC, not the Access Control Broker's.
    RoleDiffers { template: TemplateName, cell: TrustAnchorCell, found: String, expected: u8 },
    /// Somebody else than the Subscriber whose key is compromised.
    OtherParty { template: TemplateName, cell: TrustAnchorCell, found: String, expected: String },
    /// No path from the replacement to a root of the policy.
    NoPath { template: TemplateName, place: String, fault: String },
    /// No Device uses the template.
    TemplateUnused { template: TemplateName },
    /// More than one intent for each Device.
    IntentsAboveDevices { intents: u64, devices: u64 },
    /// A rate that limits nothing.
    RateAboveIntents { per_hour: u64, intents: u64 },
    /// The daemon signs unknowns again without being asked.
    RetriesByItself { retries: u32 },
    /// The document may be acted on for long.
    WindowLong { days: i64, usual: i64 },
    /// It may no longer be acted on.
    WindowOver { until: Timestamp },
    /// It may be acted on long after it is signed.
    WindowAhead { from: Timestamp },
    /// The policy given is not the one that the document names.
    OtherPolicy { document: Digest, given: Digest },
    /// The certificate given is not the one that the document names.
    OtherCompromised { document: Digest, given: Digest },
    /// A statement that holds no more.
    StatementOver { expires: Timestamp },
    /// A statement that would hold longer than the policy has it.
    StatementLong { expires: Timestamp, hours_max: u32 },
    /// The policy has nobody of that name as a Key Custodian at this moment.
    NotCustodian { person: PersonId },
    /// The policy gives the share to somebody else, or to nobody.
    ShareOfAnother { share: ShareName, person: PersonId, holder: Option<PersonId> },
    /// The policy has the key opened otherwise than the statement says.
    OpenedOtherwise { key: KeyLabel, with_share: bool },
}

impl Warning {
    /// Its name for programs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::TemplateUnreadable { .. } => "template-unreadable",
            Self::Mode { .. } => "mode",
            Self::FloorAboveCeiling { .. } => "floor-above-ceiling",
            Self::FloorBelowCounter { .. } => "floor-below-counter",
            Self::FloorBelowStart { .. } => "floor-below-start",
            Self::FloorAboveCounters { .. } => "floor-above-counters",
            Self::CellLeftOut { .. } => "cell-left-out",
            Self::RootCell { .. } => "root-cell",
            Self::RootNotFirst { .. } => "root-not-first",
            Self::RootWithoutKey { .. } => "root-without-key",
            Self::OtherNewRoot { .. } => "other-new-root",
            Self::FloorMissing { .. } => "floor-missing",
            Self::OldRootLeft { .. } => "old-root-left",
            Self::CellTwice { .. } => "cell-twice",
            Self::NoReplacement { .. } => "no-replacement",
            Self::Cancellation { .. } => "cancellation",
            Self::FutureDated { .. } => "future-dated",
            Self::TimeChecksDisapplied { .. } => "time-checks-disapplied",
            Self::ReplacementCompromised { .. } => "replacement-compromised",
            Self::CertificateUnfit { .. } => "certificate-unfit",
            Self::NotInForce { .. } => "not-in-force",
            Self::EndsSoon { .. } => "ends-soon",
            Self::UsageDiffers { .. } => "usage-differs",
            Self::RoleDiffers { .. } => "role-differs",
            Self::OtherParty { .. } => "other-party",
            Self::NoPath { .. } => "no-path",
            Self::TemplateUnused { .. } => "template-unused",
            Self::IntentsAboveDevices { .. } => "intents-above-devices",
            Self::RateAboveIntents { .. } => "rate-above-intents",
            Self::RetriesByItself { .. } => "retries-by-itself",
            Self::WindowLong { .. } => "window-long",
            Self::WindowOver { .. } => "window-over",
            Self::WindowAhead { .. } => "window-ahead",
            Self::OtherPolicy { .. } => "other-policy",
            Self::OtherCompromised { .. } => "other-compromised",
            Self::StatementOver { .. } => "statement-over",
            Self::StatementLong { .. } => "statement-long",
            Self::NotCustodian { .. } => "not-custodian",
            Self::ShareOfAnother { .. } => "share-of-another",
            Self::OpenedOtherwise { .. } => "opened-otherwise",
        }
    }
}

impl fmt::Display for Warning {
    #[expect(clippy::too_many_lines, reason = "a table, one sentence for each warning")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => write!(f, "the daemon will refuse this document: {refusal}"),
            Self::TemplateUnreadable { template, fault } => {
                write!(f, "template {template} cannot be taken apart, so nobody can know what would be signed: {fault}")
            }
            Self::Mode { template, found, expected } => write!(
                f,
                "template {template} is of mode {} ({found}), the document's method needs mode {} ({expected})",
                found.code(),
                expected.code()
            ),
            Self::FloorAboveCeiling { template, whose, floor, ceiling } => write!(
                f,
                "template {template} sets the counter floor of {whose} to {floor}, above the policy's ceiling {ceiling}: \
                 from then on the Device refuses every command below it"
            ),
            Self::FloorBelowCounter { template, floor, counter, device } => write!(
                f,
                "template {template} sets the counter floor of the authorising role to {floor}, below {counter}, which \
                 Device {device} has accepted already: commands of old could be replayed to it"
            ),
            Self::FloorBelowStart { template, floor, start } => write!(
                f,
                "template {template} sets the counter floor of the authorising role to {floor}, below {start}, from which \
                 this document counts: its own commands could be replayed"
            ),
            Self::FloorAboveCounters { template, floor, next } => write!(
                f,
                "template {template} sets the counter floor of the authorising role to {floor}, far above {next}, the \
                 counter of the next command: whoever holds that role next must count from there on"
            ),
            Self::CellLeftOut { template, cell, own: true } => write!(
                f,
                "template {template} does not replace cell {cell}, in which the compromised key lies: the Devices would go \
                 on trusting it"
            ),
            Self::CellLeftOut { template, cell, own: false } => write!(
                f,
                "template {template} does not replace cell {cell} of the same role as the compromised key; is that what \
                 is wanted?"
            ),
            Self::RootNotFirst { template } => write!(
                f,
                "template {template} does not replace the root before every other cell: by the Contingency route the others lead to the new root, \
                 and the daemon takes no other"
            ),
            Self::RootWithoutKey { template, fault } => write!(
                f,
                "template {template} puts a root on the Devices that carries no contingency key ({fault}): they could never be recovered by this \
                 route again"
            ),
            Self::OtherNewRoot { template, expected, found } => write!(
                f,
                "template {template} puts root {found} on the Devices, and the determination names {expected} as the new one: whose root is it?"
            ),
            Self::FloorMissing { template, role } => write!(
                f,
                "template {template} replaces credentials of {role} and sets no counter floor for it: whoever has the old key's commands may \
                 replay them, or the new holder's counters be too low"
            ),
            Self::OldRootLeft { template, cells } => {
                let cells: Vec<String> = cells.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "template {template} replaces the root and leaves cells that an ESME was seen to have: {}. Their certificates lead to the old \
                     root, which whoever has its key can issue anew",
                    cells.join("; ")
                )
            }
            Self::RootCell { template } => write!(
                f,
                "template {template} replaces the ROOT: whoever holds the new root's key can make every other certificate"
            ),
            Self::CellTwice { template, cell } => write!(f, "template {template} replaces cell {cell} twice"),
            Self::NoReplacement { template } => write!(f, "template {template} replaces nothing"),
            Self::Cancellation { template } => write!(
                f,
                "template {template} is dated 99991231235959Z: it CANCELS a pending command and replaces nothing"
            ),
            Self::FutureDated { template, at } => write!(
                f,
                "template {template} is executed by the Device at {} and not at once: until then the compromised key \
                 is trusted",
                at.timestamp()
            ),
            Self::TimeChecksDisapplied { template } => write!(
                f,
                "template {template} tells the Device to IGNORE validity dates, so that expired certificates pass too"
            ),
            Self::ReplacementCompromised { template, cell } => {
                write!(f, "template {template} puts the COMPROMISED key into cell {cell}")
            }
            Self::CertificateUnfit { template, place, fault } => {
                write!(f, "template {template}, {place}: the certificate is not as it should be: {fault}")
            }
            Self::NotInForce { template, place, at, not_before, not_after } => write!(
                f,
                "template {template}, {place}: the certificate is not valid at {at}, but from {not_before} to {not_after}"
            ),
            Self::EndsSoon { template, place, not_after } => write!(
                f,
                "template {template}, {place}: the certificate expires at {not_after}, within {REPLACEMENT_DAYS_LEFT} days \
                 of the window's end"
            ),
            Self::UsageDiffers { template, cell, found } => {
                write!(
                    f,
                    "template {template} puts a certificate of {found} into cell {cell}, where it does not belong"
                )
            }
            Self::RoleDiffers { template, cell, found, expected } => write!(
                f,
                "template {template} puts a certificate of {found} into cell {cell}; by this method role {expected:02X} belongs \
                 there, and the daemon takes no other"
            ),
            Self::OtherParty { template, cell, found, expected } => write!(
                f,
                "template {template} puts a certificate of {found} into cell {cell}; the compromised key is of {expected}"
            ),
            Self::NoPath { template, place, fault } => write!(
                f,
                "template {template}, {place}: no path to a Root OCA of the policy, or to the new one; the Device would answer \
                 noTrustAnchor: {fault}"
            ),
            Self::TemplateUnused { template } => write!(f, "no Device of the list uses template {template}"),
            Self::IntentsAboveDevices { intents, devices } => {
                write!(f, "limits.intents is {intents} for {devices} Devices: more than one command for each")
            }
            Self::RateAboveIntents { per_hour, intents } => {
                write!(f, "limits.per_hour is {per_hour}, above limits.intents, {intents}: it limits nothing")
            }
            Self::RetriesByItself { retries } => write!(
                f,
                "the daemon may sign a command of unknown outcome again, up to {retries} times, without asking anybody"
            ),
            Self::WindowLong { days, usual } => {
                write!(f, "the window is {days} days long, more than {usual}")
            }
            Self::WindowOver { until } => {
                write!(f, "the window ended at {until}: nothing can be done under this document")
            }
            Self::WindowAhead { from } => write!(f, "the window begins only at {from}"),
            Self::OtherPolicy { document, given } => write!(
                f,
                "the document names policy {document}; the policy given is {given}, and nothing was counted under it"
            ),
            Self::OtherCompromised { document, given } => write!(
                f,
                "the document names the compromised certificate {document}; the one given is {given}, and was not looked at"
            ),
            Self::StatementOver { expires } => write!(f, "the statement held until {expires}: nothing opens by it"),
            Self::StatementLong { expires, hours_max } => write!(
                f,
                "the statement holds until {expires}; the policy allows {hours_max} h from when it is presented: the daemon will refuse it \
                 until then"
            ),
            Self::NotCustodian { person } => {
                write!(f, "{person} is no Key Custodian in force by the policy given: the daemon will refuse it")
            }
            Self::ShareOfAnother { share, person, holder } => {
                let holder = holder.as_ref().map_or("nobody", PersonId::as_str);
                write!(f, "the policy given gives {share} to {holder}, not to {person}: the daemon will refuse it")
            }
            Self::OpenedOtherwise { key, with_share: true } => {
                write!(f, "key {key} is not opened by shares by the policy given: the daemon will refuse it")
            }
            Self::OpenedOtherwise { key, with_share: false } => {
                write!(f, "key {key} is not asked for by the HSM itself by the policy given: the daemon will refuse it")
            }
        }
    }
}

/// What a scope is looked at with.
#[derive(Clone, Copy)]
pub struct Looking<'a> {
    /// The method and the compromised certificate, where the document says them.
    pub method: Option<Method>,
    /// What is to be replaced.
    pub compromised: Option<&'a Compromised>,
    /// Its certificate, if it was given.
    pub compromised_certificate: Option<&'a Certificate>,
    /// The Root OCA Certificate that the Devices shall hold afterwards, where the document names one.
    pub next_root: Option<Digest>,
    /// From which every counter is.
    pub counter_start: Option<u64>,
    /// When it may be acted on.
    pub window: Option<Window>,
    /// The policy, if it was given.
    pub policy: Option<&'a Policy>,
    /// The device list, if it was given.
    pub devices: Option<&'a ListSeen>,
    /// Now.
    pub now: Timestamp,
}

/// Everything to look at in a scope.
pub fn of_scope(scope: &Scope<'_>, looking: &Looking<'_>) -> Vec<Warning> {
    let mut found = Vec::new();
    for (place, template) in scope.templates.iter().enumerate() {
        let of = looking.devices.and_then(|list| list.of_template.get(place)).copied();
        if of.is_some_and(|of| of.devices == 0) {
            found.push(Warning::TemplateUnused { template: template.name.clone() });
        }
        of_template(template, of, looking, &mut found);
    }
    let Limits { intents, per_hour, retries_of_unknown, retry_by_itself } = scope.limits;
    if intents > scope.devices.count {
        found.push(Warning::IntentsAboveDevices { intents, devices: scope.devices.count });
    }
    if per_hour > intents {
        found.push(Warning::RateAboveIntents { per_hour, intents });
    }
    if retry_by_itself {
        found.push(Warning::RetriesByItself { retries: retries_of_unknown });
    }
    found
}

/// Everything to look at in a Key Custodian's statement.
pub fn of_statement(form: &Statement, policy: Option<&Policy>, now: Timestamp) -> Vec<Warning> {
    let mut found = Vec::new();
    if form.expires <= now {
        found.push(Warning::StatementOver { expires: form.expires });
    }
    let Some(policy) = policy else { return found };
    let hours_max = policy.custodians().statement_hours_max;
    if form.expires > now.plus_ms(i64::from(hours_max) * HOUR_MS) {
        found.push(Warning::StatementLong { expires: form.expires, hours_max });
    }
    let person = &form.person;
    if !policy.roster(Role::KeyCustodian, now).any(|custodian| custodian.id == *person) {
        found.push(Warning::NotCustodian { person: person.clone() });
    }
    if let Some(share) = &form.share {
        let holder = policy.share_holder(share);
        if holder != Some(person) {
            found.push(Warning::ShareOfAnother {
                share: share.clone(),
                person: person.clone(),
                holder: holder.cloned(),
            });
        }
    }
    let with_share = form.share.is_some();
    let expected = if with_share { Activation::Custodians } else { Activation::ProtectedPath };
    if policy.key(&form.key.label).is_none_or(|key| key.activation != expected) {
        found.push(Warning::OpenedOtherwise { key: form.key.label.clone(), with_share });
    }
    found
}

/// Everything to look at in a window.
pub fn of_window(window: Window, policy: Option<&Policy>, now: Timestamp) -> Vec<Warning> {
    let mut found = Vec::new();
    let days = (window.until.unix_ms() - window.from.unix_ms() + DAY_MS - 1) / DAY_MS;
    let usual = policy
        .map_or(WINDOW_DAYS_USUAL, |policy| WINDOW_DAYS_USUAL.min(i64::from(policy.determinations().window_days_max)));
    if days > usual {
        found.push(Warning::WindowLong { days, usual });
    }
    if window.until <= now {
        found.push(Warning::WindowOver { until: window.until });
    }
    if window.from.unix_ms() - now.unix_ms() > WINDOW_DAYS_USUAL * DAY_MS {
        found.push(Warning::WindowAhead { from: window.from });
    }
    found
}

fn of_template(document: &DocumentTemplate, of: Option<OfTemplate>, looking: &Looking<'_>, found: &mut Vec<Warning>) {
    let name = || document.name.clone();
    let parsed = match Template::parse(document.payload.octets()) {
        Ok(parsed) => parsed,
        Err(fault) => {
            found.push(Warning::TemplateUnreadable { template: name(), fault: fault.to_string() });
            return;
        }
    };
    let update = parsed.update();
    let expected = match looking.method {
        None | Some(Method::SubscriberKey) => None,
        Some(Method::AcbCertificates | Method::NewOrganisationCertificates) => {
            Some(CredentialsReplacementMode::AnyExceptAbnormalRootByRecovery)
        }
        Some(Method::Contingency) => Some(CredentialsReplacementMode::AnyByContingency),
    };
    if let Some(expected) = expected.filter(|expected| *expected != update.mode) {
        found.push(Warning::Mode { template: name(), found: update.mode, expected });
    }
    match update.execution {
        None => {}
        Some(at) if at.is_cancellation() => found.push(Warning::Cancellation { template: name() }),
        Some(at) => found.push(Warning::FutureDated { template: name(), at }),
    }
    match update.cpv_checks {
        CpvChecks::Apply => {}
        CpvChecks::Disapply => found.push(Warning::TimeChecksDisapplied { template: name() }),
    }
    if update.replacements.is_empty() {
        found.push(Warning::NoReplacement { template: name() });
    }
    if looking.method == Some(Method::Contingency) {
        contingency(&document.name, &update, looking.next_root, found);
    } else if update.replaces_root() {
        found.push(Warning::RootCell { template: name() });
    }
    floors(&document.name, &update, of, looking, found);
    cells(&document.name, &update, looking, found);
    certificates(&document.name, &update, looking, found);
}

/// The cells that an ESME was seen to have, besides the root's (the one public Response to a Contingency command).
fn cells_of_an_esme() -> Vec<TrustAnchorCell> {
    use KeyUsage::{DigitalSignature, KeyAgreement};
    use RemotePartyRole::{AccessControlBroker, NetworkOperator, Recovery, Supplier, TransitionalCoS};
    let cell = TrustAnchorCell::management;
    vec![
        cell(Recovery, DigitalSignature),
        cell(Supplier, DigitalSignature),
        cell(Supplier, KeyAgreement),
        TrustAnchorCell { role: Supplier, key_usage: KeyAgreement, cell_usage: CellUsage::PrePaymentTopUp },
        cell(NetworkOperator, DigitalSignature),
        cell(NetworkOperator, KeyAgreement),
        cell(AccessControlBroker, KeyAgreement),
        cell(TransitionalCoS, DigitalSignature),
    ]
}

/// What is dangerous in a command that replaces the root itself.
fn contingency(template: &TemplateName, update: &Update<'_>, next_root: Option<Digest>, found: &mut Vec<Warning>) {
    let name = || template.clone();
    let first = update.replacements.first().filter(|first| first.cell == TrustAnchorCell::ROOT);
    match first {
        None => found.push(Warning::RootNotFirst { template: name() }),
        Some(root) => {
            let carried = Certificate::from_der(root.certificate).map_err(|fault| fault.to_string());
            let carried =
                carried.and_then(|root| WrappedApexKey::of_certificate(&root).map_err(|fault| fault.to_string()));
            let fault = match carried {
                Ok(Some(_)) => None,
                Ok(None) => Some("it has no such field".to_owned()),
                Err(fault) => Some(fault),
            };
            found.extend(fault.map(|fault| Warning::RootWithoutKey { template: name(), fault }));
            let digest = Digest::of(root.certificate);
            if let Some(expected) = next_root.filter(|expected| *expected != digest) {
                found.push(Warning::OtherNewRoot { template: name(), expected, found: digest });
            }
        }
    }
    let without_floor = update.replaced_without_floor().into_iter();
    found.extend(without_floor.map(|role| Warning::FloorMissing { template: name(), role }));
    let seen: BTreeSet<TrustAnchorCell> = update.replacements.iter().map(|of| of.cell).collect();
    let left: Vec<_> = cells_of_an_esme().into_iter().filter(|cell| !seen.contains(cell)).collect();
    if !left.is_empty() {
        found.push(Warning::OldRootLeft { template: name(), cells: left });
    }
}

fn floors(
    template: &TemplateName,
    update: &Update<'_>,
    of: Option<OfTemplate>,
    looking: &Looking<'_>,
    found: &mut Vec<Warning>,
) {
    let name = || template.clone();
    if let Some(policy) = looking.policy {
        let ceiling = policy.limits().floor_ceiling;
        let above = update.floors().into_iter().filter(|(_, floor)| *floor > ceiling);
        found.extend(above.map(|(whose, floor)| Warning::FloorAboveCeiling {
            template: name(),
            whose,
            floor,
            ceiling,
        }));
    }
    let Some(floor) = update.new_floor.map(SeqNumber::get) else { return };
    let known = of.and_then(|of| of.counter);
    if let Some((counter, device)) = known.filter(|(counter, _)| floor < *counter) {
        found.push(Warning::FloorBelowCounter { template: name(), floor, counter, device });
    }
    let Some(start) = looking.counter_start else { return };
    if floor < start {
        found.push(Warning::FloorBelowStart { template: name(), floor, start });
    }
    // Where there is a policy, its ceiling is the measure; else what the next command would count.
    let next = known.map_or(start, |(counter, _)| counter.max(start)).saturating_add(1);
    if looking.policy.is_none() && floor > next {
        found.push(Warning::FloorAboveCounters { template: name(), floor, next });
    }
}

/// The cells of the role of the compromised certificate, its own first. Those of Supplier and Network Operator are what an
/// ESME was seen to have; of other roles only the key's own is known.
fn cells_of(certificate: &Certificate) -> Vec<TrustAnchorCell> {
    let Ok(smki) = SmkiCertificate::from_certificate(certificate.clone(), &Profile::shape_only()) else {
        return Vec::new();
    };
    let Kind::Organisation { role, usage, party: _ } = smki.kind() else { return Vec::new() };
    let Some(role) = RemotePartyRole::from_code(role.into()) else { return Vec::new() };
    let usage = match usage {
        Usage::DigitalSignature => KeyUsage::DigitalSignature,
        Usage::KeyAgreement => KeyUsage::KeyAgreement,
    };
    let mut cells = vec![TrustAnchorCell::management(role, usage)];
    if matches!(role, RemotePartyRole::Supplier | RemotePartyRole::NetworkOperator) {
        for usage in [KeyUsage::DigitalSignature, KeyUsage::KeyAgreement] {
            let cell = TrustAnchorCell::management(role, usage);
            if !cells.contains(&cell) {
                cells.push(cell);
            }
        }
    }
    if role == RemotePartyRole::Supplier {
        let cell_usage = CellUsage::PrePaymentTopUp;
        cells.push(TrustAnchorCell { role, key_usage: KeyUsage::KeyAgreement, cell_usage });
    }
    cells
}

fn cells(template: &TemplateName, update: &Update<'_>, looking: &Looking<'_>, found: &mut Vec<Warning>) {
    let mut seen = BTreeSet::new();
    for replacement in &update.replacements {
        if !seen.insert(replacement.cell) {
            found.push(Warning::CellTwice { template: template.clone(), cell: replacement.cell });
        }
    }
    let of_compromised = looking.compromised_certificate.map(cells_of).unwrap_or_default();
    for (n, cell) in of_compromised.into_iter().enumerate() {
        if !seen.contains(&cell) {
            found.push(Warning::CellLeftOut { template: template.clone(), cell, own: n == 0 });
        }
    }
}

fn certificates(template: &TemplateName, update: &Update<'_>, looking: &Looking<'_>, found: &mut Vec<Warning>) {
    let name = || template.clone();
    let profile = looking.policy.map_or_else(Profile::shape_only, crate::domain::intake::profile);
    let mut offered = Vec::new();
    for (n, octets) in (1..).zip(&update.path_certificates) {
        let place = format!("path certificate {n}");
        match SmkiCertificate::parse(octets, &profile) {
            Ok(certificate) => {
                in_force(template, &place, &certificate, looking, found);
                offered.push(certificate);
            }
            Err(fault) => found.push(Warning::CertificateUnfit { template: name(), place, fault: fault.to_string() }),
        }
    }
    for replacement in &update.replacements {
        let cell = replacement.cell;
        let place = format!("cell {cell}");
        let compromised = looking.compromised;
        let same_certificate = |known: &Compromised| known.certificate_sha256 == Digest::of(replacement.certificate);
        // Also of a certificate that is not within the profile: the key is what matters.
        let spki = Certificate::from_der(replacement.certificate).map(|certificate| certificate.spki_sha256()).ok();
        if compromised.is_some_and(|known| spki == Some(known.spki_sha256) || same_certificate(known)) {
            found.push(Warning::ReplacementCompromised { template: name(), cell });
        }
        let certificate = match SmkiCertificate::parse(replacement.certificate, &profile) {
            Ok(certificate) => certificate,
            Err(fault) => {
                found.push(Warning::CertificateUnfit { template: name(), place, fault: fault.to_string() });
                continue;
            }
        };
        in_force(template, &place, &certificate, looking, found);
        whose(template, cell, &certificate, looking, found);
        if let Some(window) = looking.window
            && certificate.not_after().unix_ms() - window.until.unix_ms() < REPLACEMENT_DAYS_LEFT * DAY_MS
            && certificate.is_in_force(looking.now)
        {
            found.push(Warning::EndsSoon {
                template: name(),
                place: place.clone(),
                not_after: certificate.not_after(),
            });
        }
        let by_contingency = looking.method == Some(Method::Contingency);
        let root = update.replacements.first().filter(|first| by_contingency && first.cell == TrustAnchorCell::ROOT);
        // By the Contingency route all the others lead to the new root, and that to nothing.
        if let Some(policy) = looking.policy.filter(|_| !by_contingency || cell != TrustAnchorCell::ROOT)
            && let Err(fault) =
                path_to_root(policy, &profile, &certificate, &offered, root.map(|root| root.certificate))
        {
            found.push(Warning::NoPath { template: name(), place, fault });
        }
    }
}

fn in_force(
    template: &TemplateName,
    place: &str,
    certificate: &Certificate,
    looking: &Looking<'_>,
    found: &mut Vec<Warning>,
) {
    if !certificate.is_in_force(looking.now) {
        found.push(Warning::NotInForce {
            template: template.clone(),
            place: place.to_owned(),
            at: looking.now,
            not_before: certificate.not_before(),
            not_after: certificate.not_after(),
        });
    }
}

/// Whether a certificate belongs into a cell, by its key usage, role and Party.
fn whose(
    template: &TemplateName,
    cell: TrustAnchorCell,
    certificate: &SmkiCertificate,
    looking: &Looking<'_>,
    found: &mut Vec<Warning>,
) {
    let name = || template.clone();
    let kind = certificate.kind();
    let usage = match kind {
        Kind::Organisation { usage: Usage::DigitalSignature, .. } => Some(KeyUsage::DigitalSignature),
        Kind::Organisation { usage: Usage::KeyAgreement, .. } => Some(KeyUsage::KeyAgreement),
        Kind::RootOca => Some(KeyUsage::KeyCertSign),
        Kind::IssuingOca | Kind::DeviceCa | Kind::Device { .. } => None,
    };
    if usage != Some(cell.key_usage) {
        found.push(Warning::UsageDiffers { template: name(), cell, found: kind.to_string() });
    }
    let Kind::Organisation { role, party, usage: _ } = kind else { return };
    let by_method_2 = looking.method == Some(Method::AcbCertificates) && !is_of_dcc(cell.role);
    let expected = if by_method_2 { RemotePartyRole::AccessControlBroker } else { cell.role }.code();
    if role != expected {
        found.push(Warning::RoleDiffers { template: name(), cell, found: kind.to_string(), expected });
    }
    if let (Some(Method::NewOrganisationCertificates), Some(compromised)) = (looking.method, looking.compromised)
        && compromised.party != party
        && compromised.party != OF_AN_OCA
    {
        let (found_party, expected) = (party.to_string(), compromised.party.to_string());
        found.push(Warning::OtherParty { template: name(), cell, found: found_party, expected });
    }
}

/// Validity dates are looked at elsewhere, for they may be disapplied.
fn path_to_root(
    policy: &Policy,
    profile: &Profile,
    leaf: &SmkiCertificate,
    offered: &[SmkiCertificate],
    new_root: Option<&[u8]>,
) -> Result<(), String> {
    let oids: Vec<ObjectIdentifier> = policy.certificates().organisation_policy_oids.iter().copied().collect();
    let mut faults = Vec::new();
    let roots = match new_root {
        Some(root) => vec![root],
        None => policy.anchors().root_oca.iter().map(Vec::as_slice).collect(),
    };
    for root in roots {
        let checked = SmkiCertificate::parse(root, profile).map_err(|fault| fault.to_string()).and_then(|root| {
            path::check(leaf, offered, &root, &oids, Time::Disapplied).map(|_| ()).map_err(|fault| fault.to_string())
        });
        match checked {
            Ok(()) => return Ok(()),
            Err(fault) => faults.push(fault),
        }
    }
    Err(faults.join("; "))
}

#[cfg(test)]
mod tests;
