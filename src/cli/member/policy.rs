//! Shell: `smkictl policy check | draft`, without a daemon.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::draft::{self, Drafted, LedgerSeen, SeenArgs, agreed};
use super::files::{self, Paper};
use super::page::Page;
use super::{MemberError, Seat};
use crate::api::failure::Exit;
use crate::cli::input;
use crate::domain::certificates::Certificate;
use crate::domain::determination::document::{Type, Written};
use crate::domain::determination::people::Role;
use crate::domain::determination::words::Words;
use crate::domain::names::{DeterminationId, Digest};
use crate::domain::policy::adoption::{Adoption, Head};
use crate::domain::policy::{Activation, ContingencyRules, Key, Policy, RootCell, SigningCertificate, WrapWithTrusted};
use crate::domain::time::Timestamp;

/// A CA that is over within so many days is warned of. No official reference.
const ANCHOR_DAYS_LEFT: i64 = 90;
const DAY_MS: i64 = 24 * 3_600_000;

/// Arguments of `smkictl policy check`.
#[derive(Args, Debug)]
pub struct Check {
    /// The directory of the policy
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// Arguments of `smkictl policy draft`.
#[derive(Args, Debug)]
pub struct DraftAdoption {
    /// The directory of the policy that shall be adopted
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// It is the first of its ledger
    #[arg(long, conflicts_with_all = ["head", "predecessor", "sequence", "carry_over"])]
    pub first: bool,
    /// The ledger's head: a checkpoint, or what `smkictl status --output json` printed. Else the daemon is asked
    #[arg(long, value_name = "FILE")]
    pub head: Option<PathBuf>,
    /// Verify the checkpoint's signature with this key (PEM, or a C2SP vkey)
    #[arg(long, value_name = "FILE", requires = "head")]
    pub ledger_key: Option<PathBuf>,
    /// The directory of the policy in force. [its digest is in the daemon's status]
    #[arg(long, value_name = "DIR")]
    pub predecessor: Option<PathBuf>,
    /// The number of the new policy. [one more than the daemon's status says]
    #[arg(long)]
    pub sequence: Option<u32>,
    /// A determination that stays in force; once for each. Others are suspended
    #[arg(long, value_name = "ID")]
    pub carry_over: Vec<DeterminationId>,
    /// Where the document goes
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub out: PathBuf,
}

/// Checks a policy: every fault, or what it says in words. Status 4 if it is none.
pub fn check(args: &Check, seat: &mut Seat<'_>) -> Result<Exit, MemberError> {
    let read = input::policy(&args.dir)?;
    let fit = |policy: Policy| match policy.fit_for_new_use() {
        Ok(()) => Ok(policy),
        Err(fault) => Err(vec![fault]),
    };
    let policy = match Policy::parse(&read).and_then(fit) {
        Ok(policy) => policy,
        Err(faults) => {
            let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
            let mut page = Page::default();
            page.heading(format!("{}: NOT a policy, {} faults", args.dir.display(), faults.len()));
            for fault in &faults {
                // A fault of TOML has the lines around it.
                page.prose(fault);
            }
            seat.answer(&json!({ "valid": false, "faults": faults }), &page)?;
            return Ok(Exit::Refused);
        }
    };
    let warnings = warnings(&policy, seat.now);
    let members: Vec<String> = policy.roster(Role::PmaMember, seat.now).map(|person| person.id.to_string()).collect();
    let quorum = match policy.quorum(seat.now) {
        Ok(quorum) => format!("{} of {} PMA members, the proposer not among them", quorum.approvals(), quorum.of()),
        Err(fault) => format!("NONE now: {fault}"),
    };
    let custodians = policy.custodians();
    let mut page = Page::default();
    page.heading(format!("POLICY {} ({})", policy.name(), policy.purpose()));
    page.indented(|page| {
        page.row("ledger", policy.origin());
        page.row("determines", &quorum);
        page.row(
            "activates",
            format!("{} Key Custodians of at least {} Parties", custodians.threshold, custodians.parties_min),
        );
        page.row(
            "suspends",
            format!("any one PMA member, for at most {} hours", policy.determinations().suspension_hours_max),
        );
        let mode_8 = match policy.mode_8().root_cell {
            RootCell::Refuse => "never replaces a root",
            RootCell::Permit => "MAY REPLACE A ROOT",
        };
        page.row("mode 8", mode_8);
    });
    page.heading("KEYS");
    page.indented(|page| {
        for key in policy.keys() {
            let modes: Vec<String> = key.modes.iter().map(ToString::to_string).collect();
            let modes =
                if modes.is_empty() { "signs no command".to_owned() } else { format!("mode {}", modes.join(", ")) };
            let tokens: Vec<String> = key.tokens().map(ToString::to_string).collect();
            let opened = match key.activation {
                Activation::Custodians => "opened by Key Custodians' shares",
                Activation::ProtectedPath => "opened by Key Custodians at the HSM itself",
                Activation::Stored => "opened by a stored credential",
            };
            page.row(key.label.as_str(), format!("{}, {modes}, {opened}, on {}", key.key_use, tokens.join(", ")));
            if let Some(ContingencyRules { wrap_algorithm, wrap_with_trusted }) = key.contingency {
                let trusted = match wrap_with_trusted {
                    WrapWithTrusted::Required => "its symmetric key is wrapped with a trusted key alone",
                    WrapWithTrusted::NotEnforced => "its symmetric key MAY BE WRAPPED WITH ANY KEY",
                };
                page.row("", format!("its public half is wrapped by {wrap_algorithm}, {trusted}"));
            }
        }
    });
    page.heading("PEOPLE");
    page.indented(|page| {
        for person in policy.people().persons() {
            let roles: Vec<String> = person.roles.iter().map(ToString::to_string).collect();
            let now = if person.window.contains(seat.now) { "" } else { ", NOT IN FORCE NOW" };
            page.row(
                person.id.as_str(),
                format!("{} of {}: {}, {}{now}", person.name, person.party, roles.join(", "), person.window),
            );
        }
    });
    page.heading(format!("WARNINGS ({})", warnings.len()));
    page.indented(|page| {
        for (n, warning) in (1..).zip(&warnings) {
            page.line(format!("{n}. {warning}"));
        }
        if warnings.is_empty() {
            page.line("None.");
        }
    });
    page.heading("THIS POLICY");
    page.indented(|page| {
        page.row("digest", policy.digest());
        for line in Words(policy.digest()).to_string().lines() {
            page.line(format!("  {line}"));
        }
    });
    let words: Vec<&str> = Words(policy.digest()).iter().collect();
    let answer = json!({
        "valid": true, "name": policy.name(), "purpose": policy.purpose(), "origin": policy.origin(), "sha256": policy.digest(),
        "words": words, "quorum": quorum, "members": members, "warnings": warnings,
    });
    seat.answer(&answer, &page)?;
    Ok(Exit::Done)
}

/// What stops nothing and should be looked at.
fn warnings(policy: &Policy, now: Timestamp) -> Vec<String> {
    let mut found = Vec::new();
    match policy.quorum(now) {
        Err(fault) => found.push(format!("nobody can determine anything now: {fault}")),
        Ok(quorum) if quorum.approvals() == quorum.of() => {
            found.push(format!(
                "all {} members in force must sign: one who is ill or proposes stops everything",
                quorum.of()
            ));
        }
        Ok(quorum) if 2 * quorum.approvals() <= quorum.of() => {
            found.push(format!("{} of {} members are no majority", quorum.approvals(), quorum.of()));
        }
        Ok(_) => {}
    }
    if policy.roster(Role::KeyCustodian, now).count()
        < usize::try_from(policy.custodians().threshold).unwrap_or(usize::MAX)
    {
        found.push("fewer Key Custodians are in force now than it takes to activate a key".to_owned());
    }
    // A live one is refused.
    found.extend(policy.shares_of_one_party().map(|fault| fault.to_string()));
    match policy.mode_8().root_cell {
        RootCell::Refuse => {}
        RootCell::Permit => found.push("mode_8.root_cell = \"permit\": the Recovery key may replace a root".to_owned()),
    }
    let not_enforced =
        |key: &&Key| key.contingency.is_some_and(|of| of.wrap_with_trusted == WrapWithTrusted::NotEnforced);
    found.extend(policy.keys().filter(not_enforced).map(|key| {
        format!(
            "key {}: wrap_with_trusted = \"not-enforced\": whoever has the token's PIN can take its symmetric key out",
            key.label
        )
    }));
    match policy.certificates().signing_certificate_v2 {
        SigningCertificate::Require => {}
        SigningCertificate::Waive => {
            found.push(
                "certificates.signing_certificate_v2 = \"waive\": a signature does not pin its certificate".to_owned(),
            );
        }
    }
    let anchors = policy.anchors();
    for (file, all) in [
        ("people", &anchors.people),
        ("root-oca", &anchors.root_oca),
        ("issuing-oca", &anchors.issuing_oca),
        ("device-ca", &anchors.device_ca),
    ] {
        for certificate in all.iter().filter_map(|der| Certificate::from_der(der).ok()) {
            let (subject, not_after) = (certificate.subject_text(), certificate.not_after());
            if !certificate.is_in_force(now) {
                found.push(format!(
                    "anchors/{file}.pem: {subject} is valid from {} to {not_after}, not now",
                    certificate.not_before()
                ));
            } else if not_after.unix_ms() - now.unix_ms() < ANCHOR_DAYS_LEFT * DAY_MS {
                found.push(format!("anchors/{file}.pem: {subject} expires at {not_after}"));
            }
        }
    }
    found
}

/// Drafts the document by which a policy is adopted.
pub fn draft(args: &DraftAdoption, seat: &mut Seat<'_>) -> Result<Exit, MemberError> {
    let policy = files::read_policy(&args.dir)?;
    let adoption = if args.first {
        Adoption {
            r#type: Type::new(),
            purpose: policy.purpose(),
            origin: policy.origin().clone(),
            sequence: 1,
            policy: policy.digest(),
            predecessor: None,
            ledger: None,
            carries_over: Vec::new(),
        }
    } else {
        let seen = SeenArgs { head: args.head.clone(), ledger_key: args.ledger_key.clone(), policy: None };
        let LedgerSeen { head, policy: in_force, purpose: _ } = seen.ledger(seat)?;
        let predecessor = args.predecessor.as_deref().map(files::read_policy).transpose()?;
        let given = predecessor.as_ref().map(Policy::digest);
        let next = in_force.map(|(_, sequence)| sequence.saturating_add(1));
        if head.origin != *policy.origin() {
            let fault = format!("expected {}, as the policy says, found {} in --head", policy.origin(), head.origin);
            return Err(MemberError::Described { field: "origin".to_owned(), fault });
        }
        let predecessor: Digest =
            agreed("predecessor", &[("--predecessor", given), ("--head", in_force.map(|(digest, _)| digest))])?;
        Adoption {
            r#type: Type::new(),
            purpose: policy.purpose(),
            origin: head.origin,
            sequence: agreed("sequence", &[("--sequence", args.sequence), ("--head", next)])?,
            policy: policy.digest(),
            predecessor: Some(predecessor),
            ledger: Some(Head { size: head.size, root: head.root }),
            carries_over: args.carry_over.clone(),
        }
    };
    let written = Written::write(&adoption).map_err(|faults| MemberError::Draft { faults: files::lines(&faults) })?;
    let drafted = Drafted { paper: Paper::Adoption(Box::new(written)), list: None, compromised: None };
    draft::finish(&drafted, &args.out, Some(args.dir.clone()), seat)
}
