//! Shell: a message for a person at 3 a.m.

use std::fmt::Write;

use ring::digest::{SHA256, digest};

use super::certificate::Certificate;
use super::root::{Finding, Findings};
use super::{Shown, Verification};
use crate::domain::gbcs::{
    AlertPayload, Authentication, CommandPayload, CpvChecks, Cra, CredentialsReplacementMode, ExecutionOutcome, Frame,
    Payload, PlaintextSymmetricKey, RemotePartyRole, ReplacementOutcome, ResponsePayload, SeqNumberChange,
    SpecialistFloor, SpecialistUse, StatusCode, Update,
};
use crate::domain::names::Digest;

/// A line; writing to a `String` cannot fail.
macro_rules! line {
    ($out:expr, $($arg:tt)*) => { writeln!($out, $($arg)*).expect("a String takes everything") };
}

pub(super) fn render(shown: &Shown<'_>) -> String {
    let mut out = String::new();
    header(&mut out, &shown.message.frame);
    match &shown.message.payload {
        Payload::Command(payload) => command(&mut out, payload, shown.shows_symmetric_key),
        Payload::Response(payload) => response(&mut out, payload),
        Payload::Alert(payload) => alert(&mut out, payload),
    }
    ending(&mut out, shown);
    if let Some(findings) = &shown.root {
        root(&mut out, findings);
    }
    out
}

fn header(out: &mut String, frame: &Frame<'_>) {
    let header = &frame.header;
    let kind = match (header.cra, frame.authentication) {
        (Cra::Command, Authentication::PreCommand) => "Pre-command",
        (Cra::Command | Cra::Response | Cra::Alert, _) => header.cra.name(),
    };
    line!(out, "{kind}, Message Code {}, {} octets", header.code, frame.octets.len());
    let (sender, receiver) = match header.cra {
        Cra::Command => ("(Party)", "(Device)"),
        Cra::Response | Cra::Alert => ("(Device)", "(Party)"),
    };
    line!(out, "  from {sender:8}   {}", header.originator);
    line!(out, "  to   {receiver:8}   {}", header.recipient);
    line!(out, "  counter         {}", header.counter);
    if let Some(date_time) = header.date_time {
        line!(out, "  Device's clock  {date_time}");
    }
}

/// What a mode is for, in a sentence.
fn mode_meaning(mode: CredentialsReplacementMode) -> &'static str {
    match mode {
        CredentialsReplacementMode::RootBySupplier => "the Supplier replaces the root",
        CredentialsReplacementMode::RootByWanProvider => "the WAN Provider replaces the root",
        CredentialsReplacementMode::SupplierBySupplier => "the Supplier replaces its own",
        CredentialsReplacementMode::NetworkOperatorByNetworkOperator => "the Network Operator replaces its own",
        CredentialsReplacementMode::AccessControlBrokerByACB => "the Access Control Broker replaces its own",
        CredentialsReplacementMode::WanProviderByWanProvider => "the WAN Provider replaces its own",
        CredentialsReplacementMode::TransCoSByTransCoS => "the Transitional CoS Party replaces its own",
        CredentialsReplacementMode::SupplierByTransCoS => "the Transitional CoS Party replaces the Supplier's",
        CredentialsReplacementMode::AnyExceptAbnormalRootByRecovery => {
            "the Recovery Private Key replaces any, but for an abnormal change of root"
        }
        CredentialsReplacementMode::AnyByContingency => "the Contingency Private Key replaces any, the root included",
    }
}

fn command(out: &mut String, payload: &CommandPayload<'_>, shows_symmetric_key: bool) {
    // The counter is the header's: no Command decodes in which they differ.
    let CommandPayload { update, seq_number: _, plaintext_symmetric_key } = payload;
    let Update {
        mode,
        cpv_checks,
        authorising_cell,
        new_floor,
        new_specialist_floors,
        other_changes,
        replacements,
        path_certificates,
        execution,
    } = update;
    line!(out, "\nWhat it does");
    line!(out, "  mode            {} {mode}: {}", mode.code(), mode_meaning(*mode));
    match execution {
        None => line!(out, "  when            at once"),
        Some(at) if at.is_cancellation() => line!(out, "  when            CANCELS a pending command ({at})"),
        Some(at) => line!(out, "  when            {} ({at})", at.timestamp()),
    }
    match cpv_checks {
        CpvChecks::Apply => line!(out, "  path check      the Device looks at validity dates"),
        CpvChecks::Disapply => line!(out, "  path check      the Device IGNORES validity dates"),
    }
    match authorising_cell {
        Some(cell) => line!(out, "  authorised by   the key in cell {cell}"),
        None => line!(out, "  authorised by   no cell named: the Access Control Broker's MAC"),
    }
    if let Some(floor) = new_floor {
        line!(out, "  counter after   {floor}{}", specialist_text(new_specialist_floors.as_deref()));
    } else if let Some(floors) = new_specialist_floors {
        line!(out, "  counter after   unchanged{}", specialist_text(Some(floors)));
    }
    if *mode == CredentialsReplacementMode::AnyByContingency {
        contingency(out, *plaintext_symmetric_key, shows_symmetric_key, update);
    }
    if let Some(list) = other_changes {
        changes(out, "Counters of other roles afterwards", list);
    }

    line!(out, "\nReplacements ({})", replacements.len());
    for (n, replacement) in (1..).zip(replacements) {
        line!(out, "  {n}. into cell {}", replacement.cell);
        certificate(out, replacement.certificate);
    }
    line!(out, "\nPath certificates ({})", path_certificates.len());
    for (n, path_certificate) in (1..).zip(path_certificates) {
        line!(out, "  {n}.");
        certificate(out, path_certificate);
    }
}

/// What a person must know of a Contingency command.
fn contingency(
    out: &mut String,
    key: Option<PlaintextSymmetricKey<'_>>,
    shows_symmetric_key: bool,
    update: &Update<'_>,
) {
    line!(out, "\nContingency");
    if let Some(key) = key {
        let (len, shown) = (key.expose().len(), if shows_symmetric_key { "" } else { ", not shown here" });
        line!(out, "  symmetric key   {len} octets in clear in this message{shown}. It unwraps the Contingency");
        line!(
            out,
            "                  Public Key in the Root OCA Certificate that the Device holds; that key verifies the"
        );
        line!(out, "                  signature. Whoever has read this message has the symmetric key: it is spent.");
        if shows_symmetric_key {
            line!(out, "                  {}", hex::encode(key.expose()));
        }
    } else {
        line!(
            out,
            "  symmetric key   not in it yet: its place is empty, as in all that is approved and recorded. It is put in"
        );
        line!(out, "                  after its release, right before the command is signed.");
    }
    let has_root = update.replacements.iter().any(|replacement| replacement.cell.role == RemotePartyRole::Root);
    if has_root {
        line!(out, "  root            replaced: the new Root OCA Certificate must carry the next wrapped key");
    } else {
        line!(out, "  root            NOT replaced: the Device keeps a root whose Contingency Symmetric Key is spent");
    }
}

fn certificate(out: &mut String, octets: &[u8]) {
    match Certificate::from_der(octets) {
        Ok(certificate) => describe(out, &certificate),
        Err(error) => line!(out, "     CANNOT BE READ: {error}"),
    }
    line!(out, "     SHA-256      {} ({} octets)", Digest::of(octets), octets.len());
}

fn describe(out: &mut String, certificate: &Certificate) {
    let unknown = "none".to_owned();
    let role = certificate.role.map_or("none of the SMKI roles", RemotePartyRole::name);
    let eui64 = certificate.eui64.map_or_else(|| unknown.clone(), |eui64| eui64.to_string());
    let subject = if certificate.subject.is_empty() { "(empty)" } else { &certificate.subject };
    line!(out, "     subject      {subject}");
    line!(out, "     issuer       {}", certificate.issuer);
    line!(out, "     role         {role}");
    line!(out, "     EUI-64       {eui64}");
    line!(out, "     key id       {}", certificate.key_id.as_ref().unwrap_or(&unknown));
    line!(out, "     valid        from {} to {}", certificate.not_before, certificate.not_after);
}

fn specialist_text(floors: Option<&[SpecialistFloor]>) -> String {
    let mut text = String::new();
    for SpecialistFloor { usage, floor } in floors.unwrap_or_default() {
        match usage {
            SpecialistUse::PrepaymentTopUp => {
                write!(text, ", prepayment top-up {floor}").expect("a String takes everything");
            }
        }
    }
    text
}

fn changes(out: &mut String, title: &str, list: &[SeqNumberChange]) {
    line!(out, "\n{title} ({})", list.len());
    for SeqNumberChange { role, floor, specialist_floors } in list {
        line!(out, "  {role:20} {floor}{}", specialist_text(specialist_floors.as_deref()));
    }
}

fn response(out: &mut String, payload: &ResponsePayload) {
    let ResponsePayload { outcome } = payload;
    match outcome {
        None => {
            line!(out, "\nAccepted, not yet executed: the Command is future dated, or a cancellation.");
            line!(out, "This proves acceptance only; execution is proved by an Alert 0x00CB.");
        }
        Some(outcome) => {
            line!(out, "\nAccepted and executed");
            execution_outcome(out, outcome);
        }
    }
}

fn alert(out: &mut String, payload: &AlertPayload) {
    let AlertPayload { alert_code, execution, outcome } = payload;
    line!(out, "\nAlert Code {alert_code}");
    line!(out, "  executed at     {} ({execution})", execution.timestamp());
    execution_outcome(out, outcome);
}

fn execution_outcome(out: &mut String, outcome: &ExecutionOutcome) {
    let ExecutionOutcome { seq_number, mode, changes: list, replacements } = outcome;
    line!(out, "  Command counter {seq_number}");
    line!(out, "  mode            {} {mode}: {}", mode.code(), mode_meaning(*mode));
    changes(out, "Counters set", list);
    let failed = replacements.iter().filter(|outcome| outcome.status != StatusCode::Success).count();
    line!(out, "\nOutcomes ({}, of which {failed} failed)", replacements.len());
    for (n, outcome) in (1..).zip(replacements) {
        let ReplacementOutcome { cell, status, existing_id, existing_key_id, replacing_id, replacing_key_id } = outcome;
        let done = if *status == StatusCode::Success { "done" } else { "FAILED" };
        line!(out, "  {n}. cell {cell}: {done}, {status} ({})", status.code());
        line!(out, "     before       {existing_id} key {existing_key_id}");
        line!(out, "     now          {replacing_id} key {replacing_key_id}");
    }
}

/// What a Device finds that holds a given Root.
fn root(out: &mut String, findings: &Findings) {
    line!(out, "\nAs a Device sees it that holds the Root {}", findings.subject);
    line!(out, "  SHA-256           {}", findings.root);
    for Finding { what, holds, text } in &findings.all {
        line!(out, "  {what:17} {}{text}", if *holds { "" } else { "NO: " });
    }
    let verified = match findings.faults().count() {
        0 => "yes".to_owned(),
        faults => format!("NO: DO NOT SEND IT; {faults} of these are not as they must be"),
    };
    line!(out, "  verified          {verified}");
}

fn ending(out: &mut String, shown: &Shown<'_>) {
    let frame = &shown.message.frame;
    let tbs = frame.tbs_range();
    line!(out, "\nSigned octets {} to {}", tbs.start, tbs.end - 1);
    line!(out, "  SHA-256         {}", hex::encode(digest(&SHA256, frame.tbs())));
    match frame.signature() {
        None => match frame.authentication {
            Authentication::PreCommand => line!(out, "  signature       none: a pre-command, to be signed"),
            Authentication::Mac(_) | Authentication::Signed(_) | Authentication::SignedAndMac(..) => {
                line!(out, "  signature       none: a MAC only");
            }
        },
        Some(signature) => {
            line!(out, "  signature r     {}", hex::encode(&signature[..32]));
            line!(out, "            s     {}", hex::encode(&signature[32..]));
        }
    }
    if let Some(mac) = frame.mac() {
        line!(out, "  MAC             {} (not checked)", hex::encode(mac));
    }
    let Some(certificate) = &shown.certificate else {
        if frame.signature().is_some() && shown.root.is_none() {
            line!(
                out,
                "  verified        no: give --certificate FILE.pem, or --root FILE.pem for a Contingency command"
            );
        }
        return;
    };
    match shown.verification {
        Verification::NotAsked | Verification::NoSignature => {
            line!(out, "  verified        NO: there is no signature");
        }
        Verification::Invalid => line!(out, "  verified        NO: THE SIGNATURE IS NOT BY THIS CERTIFICATE'S KEY"),
        Verification::Valid => {
            line!(out, "  verified        yes, with the key of this certificate, itself not checked:");
        }
    }
    describe(out, certificate);
    if certificate.eui64 != Some(frame.header.originator) {
        line!(out, "  NOTE            the certificate's EUI-64 is not the originator's, {}", frame.header.originator);
    }
}
