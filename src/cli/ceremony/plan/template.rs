//! A plan to begin with, out of a policy and a configuration: complete, commented, to be reviewed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::{ATTRIBUTES, Kind, PLACE_OPEN};
use crate::cli::ceremony::contingency::Ids;
use crate::domain::determination::people::{Person, Role};
use crate::domain::names::{KeyId, KeyLabel, KeyUse};
use crate::domain::policy::files::Activation;
use crate::domain::policy::{Key, Policy};
use crate::domain::time::Timestamp;

/// What the policy does not say.
pub struct Beginnings<'a> {
    /// What the ceremony is for.
    pub kind: Kind,
    /// Where the policy is, as the plan names it.
    pub policy: &'a Path,
    /// Where the configuration is.
    pub configuration: &'a Path,
    /// Who conducts it: an id of the policy, or a name.
    pub conductor: &'a str,
    /// Names of those who bear witness.
    pub witnesses: &'a [String],
    /// CKA_IDs of what is made beside contingency keys that may sign.
    pub material: BTreeMap<KeyLabel, Ids>,
    /// Keys that the ledger has.
    pub standing: BTreeSet<KeyLabel>,
    /// When.
    pub at: Timestamp,
}

#[allow(clippy::needless_pass_by_value)] // Names and texts stand at the call as they are.
fn quoted(text: impl ToString) -> String {
    toml::Value::String(text.to_string()).to_string()
}

fn path(path: &Path) -> String {
    quoted(path.display())
}

/// Writes it. `ids` has the `CKA_ID` of each key of the policy.
pub fn template(policy: &Policy, with: &Beginnings<'_>, ids: &BTreeMap<KeyLabel, KeyId>) -> String {
    let mut text = format!(
        "# The plan of a key ceremony. Everyone who will be in the room reviews it; the ceremony does what stands here and nothing else.\n\
         # `smkictl ceremony check PLAN` tells every fault with its line. Paths count from where this file lies. Lines may be changed\n\
         # until the ceremony begins; from then on its SHA-256 stands in the minutes, and a changed plan is refused.\n\
         \n\
         version = 1\n\
         # first: keys, ledger and shares. renewal: a new certificate for the same key. new-key: a key that the policy in force\n\
         # names and no ceremony made. copy: a key found on a further token. re-share: new shares for the same keys.\n\
         kind = \"{kind}\"\n\
         title = {title}\n\
         # The room, as the minutes shall say.\n\
         place = \"{PLACE_OPEN}: room, building, town\"\n\
         # live or exercise, as the policy; the two never mix.\n\
         purpose = \"{purpose}\"\n\
         origin = {origin}\n\
         policy = {policy_path}\n\
         # As `smkictl policy check` prints it. Whoever changes the policy reviews the plan again.\n\
         policy_digest = \"{digest}\"\n\
         configuration = {configuration}\n\
         # Journal, minutes, public keys, requests and adoption go here. Nothing secret does. Each ceremony has its own.\n\
         out = {out}\n\
         # Read aloud at the opening.\n\
         when_interrupted = {interrupted}\n",
        kind = with.kind,
        title = quoted(format!("{} ceremony of {}", capital(with.kind), policy.origin())),
        purpose = policy.purpose(),
        origin = quoted(policy.origin()),
        policy_path = path(with.policy),
        digest = policy.digest(),
        configuration = path(with.configuration),
        out = quoted(out(with)),
        interrupted = quoted(INTERRUPTED),
    );
    people(&mut text, policy, with);
    keys(&mut text, policy, with, ids);
    shares(&mut text, policy, with);
    text
}

const INTERRUPTED: &str = "Nobody leaves the room with a token. The conductor says the time and the cause aloud, and starts the same \
                           command again: it goes on at the step it was at, and names what it finds. If that cannot be done within \
                           the hour, the tokens are sealed in bags before the witnesses and the ceremony is adjourned.";

/// Of the first ceremony there is one; the others have a folder each, or they would meet its journal.
fn out(with: &Beginnings<'_>) -> String {
    match with.kind {
        Kind::First => "ceremony".to_owned(),
        kind => format!("ceremony-{kind}-{}", day(with.at)),
    }
}

/// `2026-11-28`.
fn day(at: Timestamp) -> String {
    at.to_string().chars().take(10).collect()
}

fn capital(kind: Kind) -> &'static str {
    match kind {
        Kind::First => "First key",
        Kind::Renewal => "Renewal",
        Kind::NewKey => "New key",
        Kind::Copy => "Copy",
        Kind::ReShare => "Re-share",
    }
}

fn people(text: &mut String, policy: &Policy, with: &Beginnings<'_>) {
    let mut person = |id: Option<&str>, name: &str, capacity: &str| {
        text.push_str("\n[[person]]\n");
        if let Some(id) = id {
            let _ = writeln!(text, "id = {}", quoted(id));
        }
        let _ = writeln!(text, "name = {}\ncapacity = \"{capacity}\"", quoted(name));
    };
    let of_policy = |handle: &str| policy.people().persons().find(|person| person.id.as_str() == handle);
    let mut somebody = |handle: &str, capacity: &str| match of_policy(handle) {
        Some(found) => person(Some(found.id.as_str()), found.name.as_str(), capacity),
        None => person(None, handle, capacity),
    };
    somebody(with.conductor, "conductor");
    for witness in with.witnesses {
        somebody(witness, "witness");
    }
    let named = |found: &&Person| {
        with.conductor != found.id.as_str() && !with.witnesses.iter().any(|witness| witness == found.id.as_str())
    };
    for found in policy.roster(Role::Auditor, with.at).filter(named) {
        somebody(found.id.as_str(), "auditor");
    }
    // They take shares, or open with theirs the tokens that the ceremony uses.
    let opened = policy.keys().any(|key| key.activation == Activation::Custodians && concerns(with, key));
    for found in
        policy.roster(Role::KeyCustodian, with.at).filter(named).filter(|found| opened && !found.shares.is_empty())
    {
        somebody(found.id.as_str(), "key-custodian");
    }
    text.push_str(
        "\n# Who else comes: [[person]] with `name`, with `id` if the policy knows them, and `capacity`: conductor (exactly one), witness,\n\
         # pma-member, key-custodian, auditor, engineer (of the HSM).\n",
    );
}

/// Whether the ceremony is about a key.
fn concerns(with: &Beginnings<'_>, key: &Key) -> bool {
    match with.kind {
        Kind::First => true,
        Kind::NewKey => !with.standing.contains(&key.label),
        Kind::Renewal => key.key_use == KeyUse::Recovery,
        Kind::Copy => !key.copies.is_empty(),
        Kind::ReShare => key.activation == Activation::Custodians,
    }
}

fn keys(text: &mut String, policy: &Policy, with: &Beginnings<'_>, ids: &BTreeMap<KeyLabel, KeyId>) {
    text.push_str(match with.kind {
        Kind::First | Kind::NewKey => {
            "\n# The keys. `cka_id` was drawn when this plan was written: a pair with it on a token is this key, whatever happened in between.\n"
        }
        Kind::Renewal | Kind::Copy | Kind::ReShare => "\n# The keys, which stand: `cka_id` is the ledger's.\n",
    });
    for key in policy.keys() {
        if !concerns(with, key) {
            continue;
        }
        let attributes: Vec<String> = ATTRIBUTES.iter().map(quoted).collect();
        let _ = write!(
            text,
            "\n[[key]]\nlabel = \"{}\"\nuse = \"{}\"\ntoken = \"{}\"\ncka_id = \"{}\"\nattributes = [{}]\n",
            key.label,
            key.key_use,
            key.token,
            ids.get(&key.label).map(ToString::to_string).unwrap_or_default(),
            attributes.join(", ")
        );
        if !key.copies.is_empty() {
            let copies: Vec<String> = key.copies.keys().map(quoted).collect();
            let _ = writeln!(text, "copies = [{}]", copies.join(", "));
        }
        if let Some(Ids { symmetric, wrapping }) =
            with.material.get(&key.label).filter(|_| matches!(with.kind, Kind::First | Kind::NewKey))
        {
            let root = PathBuf::from(format!("certificates/{}-root-oca.pem", key.label));
            let _ = write!(
                text,
                "# Its Contingency Symmetric Key, and the wrapping key that the token's security officer marks as trusted, are made with these CKA_IDs.\n\
                 symmetric_id = \"{symmetric}\"\nwrapping_id = \"{wrapping}\"\n\
                 # Where the Root OCA Certificate is laid that carries it.\nroot = {}\n",
                path(&root)
            );
        }
        if key.key_use == KeyUse::Recovery && matches!(with.kind, Kind::First | Kind::NewKey | Kind::Renewal) {
            // A later certificate does not lie where the one before does.
            let dated = if with.kind == Kind::First { String::new() } else { format!("-{}", day(with.at)) };
            let certificate = PathBuf::from(format!("certificates/{}{dated}.pem", key.label));
            let _ = write!(
                text,
                "# Where what the SMKI issues is laid: the certificate, and those above it, the issuer first and the root last.\n\
                 certificate = {}\nchain = [\"certificates/issuing-oca.pem\", \"certificates/root-oca.pem\"]\n",
                path(&certificate)
            );
        }
    }
}

fn shares(text: &mut String, policy: &Policy, with: &Beginnings<'_>) {
    if !matches!(with.kind, Kind::First | Kind::NewKey | Kind::ReShare) {
        return;
    }
    let mut holders = String::new();
    for custodian in policy.roster(Role::KeyCustodian, with.at) {
        for share in &custodian.shares {
            let _ = writeln!(holders, "  {{ share = {}, person = {} }},", quoted(share), quoted(&custodian.id));
        }
    }
    let mut first = true;
    for key in policy.keys().filter(|key| key.activation == Activation::Custodians) {
        if with.kind == Kind::NewKey && with.standing.contains(&key.label) {
            continue;
        }
        if first {
            text.push_str(
                "\n# Who takes which share. A passphrase that the custodian types seals it, or with `certificate = \"FILE\"` the custodian's own\n\
                 # certificate (P-256; a card); then with `spki = \"…\"`, the SHA-256 of its SubjectPublicKeyInfo as the custodian says it.\n",
            );
            first = false;
        }
        let threshold = policy.custodians().threshold;
        let _ =
            write!(text, "\n[[shares]]\nkey = \"{}\"\nthreshold = {threshold}\nholders = [\n{holders}]\n", key.label);
    }
}
