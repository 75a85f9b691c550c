//! Shell: `smkictl determination show`: a document in full, for a person who may be about to sign it.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::files::{self, ListSeen, Paper};
use super::page::{Page, moment};
use super::signatures::{self, Seen, Standing};
use super::warnings::{self, Looking, Warning};
use super::{MemberError, Seat, template};
use crate::api::failure::Exit;
use crate::domain::certificates::Certificate;
use crate::domain::custody::Statement;
use crate::domain::determination::cms::P7S_LEN_MAX;
use crate::domain::determination::document::{
    Decision, Determination, DeviceList, KeyChosen, LedgerHead, Limits, Method, Schedule, Scope, Suspension,
    SymmetricKeyLine, Weight, Withdrawal, Written,
};
use crate::domain::determination::words::Words;
use crate::domain::gbcs::Template;
use crate::domain::intake::whose;
use crate::domain::ledger::entry::Compromised;
use crate::domain::names::{Purpose, TemplateName};
use crate::domain::policy::adoption::Adoption;
use crate::domain::policy::destruction::Destruction;
use crate::domain::policy::{Policy, admission};
use crate::domain::procedure::direction::{Direction, Directs};
use crate::domain::time::Timestamp;

/// Arguments of `smkictl determination show`.
#[derive(Args, Debug)]
pub struct Show {
    /// The document
    #[arg(value_name = "ID.json")]
    pub file: PathBuf,
    /// What lies beside it
    #[command(flatten)]
    pub beside: Beside,
    /// A signature over the document, DER or PEM; once for each
    #[arg(long, value_name = "ID.MEMBER.p7s")]
    pub signature: Vec<PathBuf>,
}

/// What lies beside a document and helps to judge it.
#[derive(Args, Clone, Debug, Default)]
pub struct Beside {
    /// The device list that the document refers to
    #[arg(long, value_name = "FILE")]
    pub devices: Option<PathBuf>,
    /// The directory of the policy that the document names
    #[arg(long, value_name = "DIR")]
    pub policy: Option<PathBuf>,
    /// Of a policy adoption: the directory of the policy in force
    #[arg(long, value_name = "DIR")]
    pub predecessor: Option<PathBuf>,
    /// The compromised certificate (PEM or DER)
    #[arg(long, value_name = "FILE")]
    pub compromised: Option<PathBuf>,
}

/// A document, and all that is to be said about it.
pub struct Shown {
    paper: Paper,
    devices: Option<ListSeen>,
    policy: Option<Policy>,
    predecessor: Option<Policy>,
    /// What to look at.
    pub warnings: Vec<Warning>,
    /// What could not be looked at, and what is needed for it.
    unseen: Vec<&'static str>,
    signatures: Option<(Vec<Seen>, Vec<Standing>)>,
}

/// Shows a document. Status 5 if the device list or a signature is not the document's.
pub fn run(args: &Show, seat: &mut Seat<'_>) -> Result<Exit, MemberError> {
    let mut shown = Shown::open(Paper::open(&args.file)?, &args.beside, seat.now)?;
    let valid = shown.add_signatures(&args.signature, seat.now)?;
    seat.answer(&shown.json(), &shown.page())?;
    Ok(if valid { Exit::Done } else { Exit::Unverified })
}

impl Shown {
    /// Reads what lies beside the document, and looks at all of it.
    pub fn open(paper: Paper, beside: &Beside, now: Timestamp) -> Result<Self, MemberError> {
        let policy = beside.policy.as_deref().map(files::read_policy).transpose()?;
        let predecessor = beside.predecessor.as_deref().map(files::read_policy).transpose()?;
        let compromised = beside.compromised.as_deref().map(files::read_certificates).transpose()?;
        let scope = scope_of(&paper);
        let mut devices = None;
        if let Some(path) = &beside.devices {
            let Some(scope) = scope else {
                let fault = "the document names no device list; show it without --devices".to_owned();
                return Err(MemberError::Devices { path: path.clone(), faults: fault });
            };
            let names: Vec<&TemplateName> = scope.templates.iter().map(|template| &template.name).collect();
            let seen = files::read_devices(path, &names)?;
            if seen.list != scope.devices {
                let faults = format!("expected {}\n  found {}", list_text(scope.devices), list_text(seen.list));
                return Err(MemberError::Devices { path: path.clone(), faults });
            }
            devices = Some(seen);
        }
        let mut shown =
            Self { devices, policy, predecessor, warnings: Vec::new(), unseen: Vec::new(), signatures: None, paper };
        shown.look(compromised.map(|(first, _)| first).as_ref(), now);
        Ok(shown)
    }

    /// The document.
    pub const fn paper(&self) -> &Paper {
        &self.paper
    }

    /// The policy given, if it is the one that the document names, or the document names none.
    pub fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref().filter(|policy| self.paper.policy().is_none_or(|named| policy.digest() == named))
    }

    fn predecessor(&self) -> Option<&Policy> {
        let Paper::Adoption(document) = &self.paper else { return None };
        self.predecessor.as_ref().filter(|policy| document.form().predecessor == Some(policy.digest()))
    }

    fn look(&mut self, compromised: Option<&Certificate>, now: Timestamp) {
        let mut found = Vec::new();
        match (&self.policy, self.paper.policy()) {
            (None, Some(_)) => self.unseen.push("the policy's ceilings, paths to its roots, who may sign (--policy)"),
            (None, None) => {
                self.unseen.push("whether you are a Key Custodian in force and the share is yours (--policy)");
            }
            (Some(given), Some(named)) if given.digest() != named => {
                found.push(Warning::OtherPolicy { document: named, given: given.digest() });
            }
            (Some(_), _) => {}
        }
        if let (Some(given), Paper::Adoption(document)) = (&self.predecessor, &self.paper)
            && let Some(expected) = document.form().predecessor
            && expected != given.digest()
        {
            found.push(Warning::OtherPolicy { document: expected, given: given.digest() });
        }
        let policy = self.policy();
        let named = match &self.paper {
            Paper::Determination(document) => Some(&document.form().compromised),
            Paper::Schedule(_)
            | Paper::Withdrawal(_)
            | Paper::Suspension(_)
            | Paper::Adoption(_)
            | Paper::Direction(_)
            | Paper::Destruction(_)
            | Paper::Statement(_) => None,
        };
        let compromised_certificate = match (named, compromised) {
            (Some(named), Some(given)) if named.certificate_sha256 != given.sha256() => {
                found.push(Warning::OtherCompromised { document: named.certificate_sha256, given: given.sha256() });
                None
            }
            (_, given) => given,
        };
        let (mut method, mut counter_start, mut window, mut next_root) = (None, None, None, None);
        match &self.paper {
            Paper::Determination(document) => {
                let form = document.form();
                (method, counter_start, window) = (form.method, form.counter_start, Some(form.window));
                next_root = form.symmetric_key.as_ref().map(|line| line.next_root_sha256);
                found.extend(warnings::of_window(form.window, policy, now));
                if let Some(policy) = policy {
                    found.extend(
                        admission::determination(policy, document, admission::Recorded::default(), now, now)
                            .into_iter()
                            .map(Warning::Refused),
                    );
                }
            }
            Paper::Statement(document) => found.extend(warnings::of_statement(document.form(), policy, now)),
            Paper::Schedule(_)
            | Paper::Withdrawal(_)
            | Paper::Suspension(_)
            | Paper::Adoption(_)
            | Paper::Direction(_)
            | Paper::Destruction(_) => {}
        }
        if let Some(scope) = scope_of(&self.paper) {
            let looking = Looking {
                method,
                compromised: named,
                compromised_certificate,
                next_root,
                counter_start,
                window,
                policy,
                devices: self.devices.as_ref(),
                now,
            };
            found.extend(warnings::of_scope(&scope, &looking));
            if self.devices.is_none() {
                self.unseen.push("the device list: its counters, and whether each template is used (--devices)");
            }
            if compromised.is_none() {
                self.unseen.push("whether a cell of the compromised key is left out (--compromised)");
            }
        }
        self.warnings = found;
    }

    /// Reads signatures and counts them. False if one is no signature over the document, or nobody vouches for it.
    pub fn add_signatures(&mut self, paths: &[PathBuf], now: Timestamp) -> Result<bool, MemberError> {
        let policies: Vec<&Policy> = self.policy().into_iter().chain(self.predecessor()).collect();
        let mut seen = Vec::new();
        let mut valid = Vec::new();
        for path in paths {
            let p7s = files::read(path, P7S_LEN_MAX)?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let (file, signatures) = signatures::read(name, &p7s, self.paper.octets(), &policies, now);
            seen.push(file);
            valid.extend(signatures);
        }
        let mut standings = Vec::new();
        if let Some(policy) = self.policy() {
            let under = if matches!(self.paper, Paper::Adoption(_)) { "the new policy" } else { "the policy" };
            standings.push(signatures::standing(&self.paper, policy, under, &valid, now));
        }
        if let Some(policy) = self.predecessor() {
            standings.push(signatures::standing(&self.paper, policy, "the policy in force", &valid, now));
        }
        let sound = |file: &Seen| file.signers.as_ref().is_ok_and(|all| all.iter().all(|one| one.fault.is_none()));
        let all_sound = seen.iter().all(sound);
        self.signatures = Some((seen, standings));
        Ok(all_sound)
    }

    /// The first part of it that cannot be decoded, and why: that is not signed.
    pub fn undecodable(&self) -> Option<(String, String)> {
        scope_of(&self.paper)?.templates.iter().find_map(|one| {
            let name = format!("template {}", one.name);
            let template = match Template::parse(one.payload.octets()) {
                Ok(template) => template,
                Err(fault) => return Some((name, fault.to_string())),
            };
            let update = template.update();
            let replacements = update.replacements.iter().map(|replacement| replacement.certificate);
            let fault = replacements
                .chain(update.path_certificates.iter().copied())
                .find_map(|octets| Certificate::from_der(octets).err())?;
            Some((format!("a certificate in {name}"), fault.to_string()))
        })
    }

    /// For a person.
    pub fn page(&self) -> Page {
        let mut page = Page::default();
        match &self.paper {
            Paper::Determination(document) => determination(&mut page, document.form()),
            Paper::Schedule(document) => schedule(&mut page, document.form()),
            Paper::Withdrawal(document) => withdrawal(&mut page, document.form()),
            Paper::Suspension(document) => suspension(&mut page, document.form()),
            Paper::Adoption(document) => adoption(&mut page, document),
            Paper::Direction(document) => direction(&mut page, document.form()),
            Paper::Destruction(document) => destruction(&mut page, document.form()),
            Paper::Statement(document) => statement(&mut page, document.form(), self.policy()),
        }
        if let Some(scope) = scope_of(&self.paper) {
            self.scope(&mut page, &scope);
        }
        page.heading(format!("WARNINGS ({})", self.warnings.len()));
        page.indented(|page| {
            for (n, warning) in (1..).zip(&self.warnings) {
                page.line(format!("{n}. {warning}"));
            }
            if self.warnings.is_empty() {
                page.line("None.");
            }
            for unseen in &self.unseen {
                page.line(format!("Not looked at: {unseen}."));
            }
        });
        if let Some((seen, standings)) = &self.signatures {
            signatures::show(&mut page, seen, standings);
        }
        page.heading("THIS DOCUMENT");
        page.indented(|page| {
            page.row("SHA-256", self.paper.digest());
            page.line("in words, to be read aloud:");
            page.indented(|page| {
                for line in Words(self.paper.digest()).to_string().lines() {
                    page.line(line);
                }
            });
        });
        page
    }

    fn scope(&self, page: &mut Page, scope: &Scope<'_>) {
        for (n, one) in (1..).zip(scope.templates) {
            page.heading(format!("TEMPLATE {n} of {}: {}", scope.templates.len(), one.name));
            page.indented(|page| template::show(page, one.payload.octets(), self.policy()));
        }
        page.heading("DEVICES");
        page.indented(|page| {
            page.row("how many", scope.devices.count);
            page.row("list SHA-256", scope.devices.sha256);
            page.row("list root", scope.devices.root);
            match &self.devices {
                None => page.row("list", "not given, so not checked (--devices)"),
                Some(seen) => {
                    page.row("list", "given, and the one that the document names");
                    page.row("first and last", format!("{} … {}", seen.ends.0, seen.ends.1));
                    for (one, of) in scope.templates.iter().zip(&seen.of_template) {
                        let counter = of.counter.map_or_else(
                            || "no counter known".to_owned(),
                            |(counter, device)| format!("highest counter known {counter}, of {device}"),
                        );
                        page.row(&format!("of {}", one.name), format!("{} Devices, {counter}", of.devices));
                    }
                }
            }
        });
        let Limits { intents, per_hour, retries_of_unknown, retry_by_itself } = scope.limits;
        page.heading("LIMITS");
        page.indented(|page| {
            page.row("commands in all", intents);
            page.row("in any hour", per_hour);
            let by = if retry_by_itself { "without asking" } else { "only when an operator asks" };
            match retries_of_unknown {
                0 => page.row("unknown outcome", "never signed again"),
                n => page.row("unknown outcome", format!("the same octets signed again up to {n} times, {by}")),
            }
        });
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let document: Value =
            serde_json::from_slice(self.paper.octets()).expect("the document was read as JSON before");
        let words: Vec<&str> = Words(self.paper.digest()).iter().collect();
        let warnings: Vec<Value> = self
            .warnings
            .iter()
            .map(|warning| json!({ "name": warning.name(), "text": warning.to_string() }))
            .collect();
        let mut value = json!({
            "type": self.paper.kind(),
            "sha256": self.paper.digest(),
            "words": words,
            "document": document,
            "warnings": warnings,
            "notLookedAt": self.unseen,
        });
        if let Some(scope) = scope_of(&self.paper) {
            let templates: Vec<Value> = scope
                .templates
                .iter()
                .map(|one| json!({ "name": one.name, "decoded": template::json(one.payload.octets(), self.policy()) }))
                .collect();
            value["templates"] = json!(templates);
            if let Some(seen) = &self.devices {
                let of: Vec<Value> = scope
                    .templates
                    .iter()
                    .zip(&seen.of_template)
                    .map(|(one, of)| {
                        let counter = of.counter.map(|(counter, _)| counter);
                        json!({ "template": one.name, "devices": of.devices, "highestCounter": counter })
                    })
                    .collect();
                value["devices"] = json!({ "first": seen.ends.0, "last": seen.ends.1, "ofTemplate": of });
            }
        }
        if let Some((seen, standings)) = &self.signatures {
            value["signatures"] = signatures::json(seen, standings);
        }
        value
    }
}

fn scope_of(paper: &Paper) -> Option<Scope<'_>> {
    match paper {
        Paper::Determination(document) => document.form().scope(),
        Paper::Schedule(document) => Some(document.form().scope()),
        Paper::Withdrawal(_)
        | Paper::Suspension(_)
        | Paper::Adoption(_)
        | Paper::Direction(_)
        | Paper::Destruction(_)
        | Paper::Statement(_) => None,
    }
}

fn list_text(list: DeviceList) -> String {
    format!("{} Devices, SHA-256 {}, root {}", list.count, list.sha256, list.root)
}

/// By which way, in words.
pub const fn method_text(method: Method) -> &'static str {
    match method {
        Method::SubscriberKey => "Method 1: the Subscriber replaces the certificates with a key of its own",
        Method::AcbCertificates => "Method 2: the DCC's Access Control Broker certificates are put in",
        Method::NewOrganisationCertificates => "Method 3: new Organisation Certificates of the Subscriber are put in",
        Method::Contingency => "the Contingency Private Key, with the Contingency Symmetric Key",
    }
}

const fn weight_text(weight: Weight) -> &'static str {
    match weight {
        Weight::Towards => "towards using the keys",
        Weight::Against => "against using the keys",
        Weight::Neither => "neither way",
        Weight::Met => "met",
    }
}

fn title(page: &mut Page, what: &str, purpose: Purpose) {
    match purpose {
        Purpose::Live => page.heading(format!("{what} (LIVE)")),
        Purpose::Exercise => page.heading(format!("{what} (an exercise, not the real thing)")),
    }
}

fn head(page: &mut Page, head: &LedgerHead) {
    page.row("ledger", &head.origin);
    page.row("as it was at", format!("{} entries, root {}", head.size, head.root));
}

fn determination(page: &mut Page, form: &Determination) {
    let Determination {
        r#type: _,
        purpose,
        id,
        incident,
        decision_number,
        proposer,
        ledger,
        policy,
        decision,
        compromised: Compromised { certificate_sha256, spki_sha256, party },
        factors,
        window,
        supersedes,
        key,
        method,
        symmetric_key,
        counter_start,
        schedule,
        templates: _,
        devices: _,
        limits: _,
    } = form;
    title(page, &format!("DETERMINATION {id} of the SMKI PMA"), *purpose);
    page.indented(|page| {
        match decision {
            Decision::Execute => page.line("The SMKI PMA determines that the key below SHALL be used."),
            Decision::NotExecute => {
                page.line("The SMKI PMA determines that the keys shall NOT be used. Nothing can be signed.");
            }
        }
        page.row("incident", format!("{incident}, decision {decision_number}"));
        page.row("proposed by", format!("{proposer}, who may not approve it"));
        page.row("compromised key", format!("of {}", whose(*party)));
        page.row("  certificate", format!("SHA-256 {certificate_sha256}"));
        page.row("  public key", format!("SHA-256 {spki_sha256}"));
        if let Some(KeyChosen { label, spki_sha256 }) = key {
            page.row("key to be used", format!("{label}, public key SHA-256 {spki_sha256}"));
        }
        if let Some(method) = method {
            page.row("method", method_text(*method));
        }
        if let Some(SymmetricKeyLine { root_sha256, next, next_root_sha256 }) = symmetric_key {
            page.line("The Contingency Symmetric Key of that key SHALL be released into these commands.");
            page.line(
                "Whoever sees such a command has it from then on: it is spent, and its generation is to be replaced.",
            );
            page.row(
                "  Devices hold",
                format!("the Root OCA Certificate with SHA-256 {root_sha256}, which carries that key"),
            );
            page.row(
                "  afterwards",
                format!("the one with SHA-256 {next_root_sha256}, which carries {next}, the next generation"),
            );
            page.line("Compare that SHA-256, in words, with what the Root OCA's operator says:");
            for line in Words(*next_root_sha256).to_string().lines() {
                page.line(format!("  {line}"));
            }
        }
        if let Some(start) = counter_start {
            page.row("counters", format!("above {start}"));
        }
        page.row("in force from", moment(window.from));
        page.row("until", moment(window.until));
        match supersedes {
            Some(id) => page.row("supersedes", format!("determination {id}, which ends with this one")),
            None => page.row("supersedes", "nothing"),
        }
        head(page, ledger);
        page.row("policy", policy);
        if schedule.is_some() {
            page.line("What is signed for whom is LEFT OPEN, and settled by a schedule that is signed alike.");
        }
    });
    page.heading(format!("WHAT WAS WEIGHED ({})", factors.len()));
    page.indented(|page| {
        for factor in factors {
            page.row(factor.id.as_str(), weight_text(factor.weight));
            page.prose(factor.comment.as_str());
        }
    });
}

fn schedule(page: &mut Page, form: &Schedule) {
    let Schedule {
        r#type: _,
        purpose,
        determination,
        document,
        proposer,
        ledger,
        policy,
        templates: _,
        devices: _,
        limits: _,
    } = form;
    title(page, &format!("SCHEDULE of determination {determination}"), *purpose);
    page.indented(|page| {
        page.line("It settles what may be signed for whom under that determination, which left it open.");
        page.row("determination", format!("SHA-256 {document}"));
        page.row("proposed by", format!("{proposer}, who may not approve it"));
        head(page, ledger);
        page.row("policy", policy);
    });
}

fn withdrawal(page: &mut Page, form: &Withdrawal) {
    let Withdrawal { r#type: _, purpose, determination, document, proposer, ledger, policy, reason } = form;
    title(page, &format!("WITHDRAWAL of determination {determination}"), *purpose);
    page.indented(|page| {
        page.line("It ends that determination for good, before the next signature. Needs the quorum.");
        page.row("determination", format!("SHA-256 {document}"));
        page.row("proposed by", format!("{proposer}, who may not approve it"));
        head(page, ledger);
        page.row("policy", policy);
        page.row("why", "");
        page.prose(reason.as_str());
    });
}

fn suspension(page: &mut Page, form: &Suspension) {
    let Suspension { r#type: _, purpose, determination, document, member, hours, ledger, policy, reason } = form;
    title(page, &format!("SUSPENSION of determination {determination}"), *purpose);
    page.indented(|page| {
        page.line(format!("It stops all signing under that determination for {hours} hours from when it is recorded."));
        page.row("determination", format!("SHA-256 {document}"));
        page.row("by", format!("{member}, alone, and once"));
        head(page, ledger);
        page.row("policy", policy);
        page.row("why", "");
        page.prose(reason.as_str());
    });
}

fn direction(page: &mut Page, form: &Direction) {
    let Direction { r#type: _, purpose, id, proposer, ledger, policy, reference, text, directs } = form;
    title(page, &format!("DIRECTION {id}"), *purpose);
    page.indented(|page| {
        match directs {
            Directs::Extension { variation, until } => {
                page.line("It makes a variation of the procedure last longer. Needs the quorum.");
                page.row("variation", variation);
                match until {
                    Some(date) => {
                        page.row("until", format!("{date} (the variation says whether that day is included)"));
                    }
                    None => page.row("until", "FURTHER NOTICE: it would have no end"),
                }
            }
            Directs::Departure { incident, step, reason } => {
                page.line("It departs from a step of the procedure in one incident. Needs the quorum.");
                page.row("incident", incident);
                page.row("step", format!("{step}, which need then not be taken"));
                page.row("why", "");
                page.prose(reason.as_str());
            }
        }
        page.row("directed by", "");
        page.prose(reference.as_str());
        match text {
            Some(text) => page.row("its own text", format!("SHA-256 {text}")),
            None => page.row("its own text", "not named"),
        }
        page.row("proposed by", format!("{proposer}, who may not approve it"));
        head(page, ledger);
        page.row("policy", policy);
    });
}

fn destruction(page: &mut Page, form: &Destruction) {
    let Destruction { r#type: _, purpose, proposer, ledger, policy, key, cka_id, tokens, reason } = form;
    title(page, &format!("DESTRUCTION of key {}", key.label), *purpose);
    page.indented(|page| {
        page.line("It destroys the key on every token below, for good: nothing brings it back. Needs the quorum.");
        page.row("public key", format!("SHA-256 {}", key.spki_sha256));
        page.row("CKA_ID", cka_id);
        for on in tokens {
            page.row("on token", format!("{}, serial number {}", on.token, on.serial));
        }
        page.row("proposed by", format!("{proposer}, who may not approve it"));
        head(page, ledger);
        page.row("policy", policy);
        page.row("why", "");
        page.prose(reason.as_str());
    });
}

fn statement(page: &mut Page, form: &Statement, policy: Option<&Policy>) {
    let Statement {
        r#type: _,
        purpose,
        id,
        ledger,
        person,
        key,
        incident,
        determination,
        document,
        share,
        generation,
        expires,
    } = form;
    title(page, &format!("STATEMENT of Key Custodian {person}"), *purpose);
    page.indented(|page| {
        page.line(format!(
            "Whoever signs it lets key {} be opened, with other Key Custodians, for incident {incident} and nothing else.",
            key.label
        ));
        page.row("statement", format!("{id}, which counts once"));
        let known = policy.and_then(|policy| policy.people().person(person));
        match known {
            Some(known) => page.row("by", format!("{person}: {}, of Party {}", known.name, known.party)),
            None => page.row("by", person),
        }
        page.row("opens key", &key.label);
        page.row("public key", format!("SHA-256 {}", key.spki_sha256));
        page.row("for incident", incident);
        page.row("determination", determination);
        page.row("", format!("SHA-256 {document}: show it by itself, and compare"));
        match (share, generation) {
            (Some(share), Some(generation)) => page.row("with share", format!("{share}, of generation {generation}")),
            (Some(share), None) => page.row("with share", share),
            (None, _) => page.row("with share", "none: the HSM itself asks the Key Custodians"),
        }
        page.row("until", moment(*expires));
        page.line("The key is locked by then at the latest. You are called again before it is opened again.");
        head(page, ledger);
    });
}

fn adoption(page: &mut Page, document: &Written<Adoption>) {
    let Adoption { r#type: _, purpose, origin, sequence, policy, predecessor, ledger, carries_over } = document.form();
    title(page, &format!("ADOPTION of policy {sequence}"), *purpose);
    page.indented(|page| {
        page.line("It makes the policy below the one in force: what each key may do, and who may say so.");
        page.row("policy", policy);
        match predecessor {
            Some(predecessor) => page.row("in place of", predecessor),
            None => page.row("in place of", "none: it is the first, and everyone on its roster signs it"),
        }
        page.row("ledger", origin);
        if let Some(head) = ledger {
            page.row("as it was at", format!("{} entries, root {}", head.size, head.root));
        }
        if carries_over.is_empty() && predecessor.is_some() {
            page.row("carries over", "no determination: all that are in force are suspended");
        }
        for id in carries_over {
            page.row("carries over", format!("determination {id}"));
        }
    });
}
