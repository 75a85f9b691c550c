//! Shell: the policy of the exercise, made from the example in `keys-policy/` by putting in the people and anchors that were
//! generated. Every other line is the example's, so that what is rehearsed is what people review.

use std::collections::{BTreeMap, BTreeSet};

use super::lab::Lab;
use super::people::{APPROVALS, Member, People};
use crate::domain::certificates::SmkiCertificate;
use crate::domain::certificates::pem::certificate_to_pem;
use crate::domain::certificates::profile::Kind;
use crate::domain::gbcs::RemotePartyRole;
use crate::domain::names::{AccountName, KeyLabel, PartyId, PersonId, TokenName};
use crate::domain::policy::{Activation, Policy, PolicyError};
use crate::domain::time::Timestamp;

/// The example's files that are taken over with changes, or as they are.
const POLICY: &str = include_str!("../../keys-policy/example/policy.toml");
const CUSTODIANS: &str = include_str!("../../keys-policy/example/custodians.toml");
const GUIDANCE: &str = include_str!("../../keys-policy/example/guidance.toml");
/// The procedure itself is the one that is shipped.
const PROCEDURE: &str = include_str!("../../keys-policy/procedure/base.toml");
const DIRECTION_2017_07_18: &str = include_str!("../../keys-policy/procedure/direction-2017-07-18.toml");

/// The ledger's name.
pub const ORIGIN: &str = "smkid.example/exercise";
/// Under which EUI-64 Recovery signs: locally administered, so that it is nobody's.
pub const RECOVERY_PARTY: &str = "025EAF0000000001";
/// What the policy calls the ledger's token.
pub const LEDGER_TOKEN: &str = "ledger-a";
/// What the policy calls the token of the Recovery key.
pub const RECOVERY_TOKEN: &str = "smki-a";
/// What it calls the ledger key.
pub const LEDGER_KEY: &str = "ledger-1";
/// What it calls the Recovery key.
pub const RECOVERY_KEY: &str = "recovery-1";
/// What it calls the token of the contingency keys, where there are any.
pub const CONTINGENCY_TOKEN: &str = "smki-c";
/// What it calls the contingency keys: the generation that Devices hold, and the next.
pub const CONTINGENCY_KEYS: [&str; 2] = ["contingency-1", "contingency-2"];
/// Under which EUI-64 Contingency commands are sent: locally administered, so that it is nobody's.
pub const CONTINGENCY_PARTY: &str = "025EAF00000017FF";
/// Who drafts the documents, and so approves none.
pub const PROPOSER: &str = "operator-1";

/// The names above, parsed.
pub struct Names {
    /// [`RECOVERY_PARTY`].
    pub recovery_party: PartyId,
    /// [`LEDGER_TOKEN`].
    pub ledger_token: TokenName,
    /// [`RECOVERY_TOKEN`].
    pub recovery_token: TokenName,
    /// [`LEDGER_KEY`].
    pub ledger_key: KeyLabel,
    /// [`RECOVERY_KEY`].
    pub recovery_key: KeyLabel,
    /// [`CONTINGENCY_TOKEN`].
    pub contingency_token: TokenName,
    /// [`CONTINGENCY_KEYS`].
    pub contingency_keys: [KeyLabel; 2],
    /// [`CONTINGENCY_PARTY`].
    pub contingency_party: PartyId,
    /// [`PROPOSER`].
    pub proposer: PersonId,
}

impl Names {
    /// Parses them.
    pub fn new() -> Self {
        const PROOF: &str = "the constants above are of their forms, which a test asks";
        Self {
            recovery_party: RECOVERY_PARTY.parse().expect(PROOF),
            ledger_token: LEDGER_TOKEN.parse().expect(PROOF),
            recovery_token: RECOVERY_TOKEN.parse().expect(PROOF),
            ledger_key: LEDGER_KEY.parse().expect(PROOF),
            recovery_key: RECOVERY_KEY.parse().expect(PROOF),
            contingency_token: CONTINGENCY_TOKEN.parse().expect(PROOF),
            contingency_keys: CONTINGENCY_KEYS.map(|label| label.parse().expect(PROOF)),
            contingency_party: CONTINGENCY_PARTY.parse().expect(PROOF),
            proposer: PROPOSER.parse().expect(PROOF),
        }
    }
}

impl Default for Names {
    fn default() -> Self {
        Self::new()
    }
}

/// The policy's files by their paths within its directory.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Makes the files. `operator` is the account that runs the exercise; `activation` is what opens the Recovery key.
pub fn files(lab: &Lab, people: &People, operator: &AccountName, activation: Activation, now: Timestamp) -> Files {
    let settings = [
        ("name = \"Example policy: replace the people, the anchors and this name\"", "name = \"Exercise\"".to_owned()),
        ("purpose = \"live\"", "purpose = \"exercise\"".to_owned()),
        ("origin = \"smkid.example/ledger\"", format!("origin = \"{ORIGIN}\"")),
        ("approvals = 3", format!("approvals = {APPROVALS}")),
    ];
    let mut policy = POLICY.to_owned();
    for (from, to) in settings {
        assert_eq!(policy.matches(from).count(), 1, "the example says {from:?} once");
        policy = policy.replace(from, &to);
    }
    let anchor = |octets: &[u8]| certificate_to_pem(octets).into_bytes();
    [
        ("policy.toml", policy.into_bytes()),
        ("custodians.toml", CUSTODIANS.into()),
        ("guidance.toml", GUIDANCE.into()),
        ("procedure/base.toml", PROCEDURE.into()),
        ("procedure/direction-2017-07-18.toml", DIRECTION_2017_07_18.into()),
        ("keys.toml", keys(activation).into_bytes()),
        ("persons.toml", persons(lab, people, operator, now).into_bytes()),
        ("anchors/root-oca.pem", anchor(lab.root_oca().octets())),
        ("anchors/issuing-oca.pem", anchor(lab.issuing_oca().octets())),
        ("anchors/device-ca.pem", anchor(lab.device_ca().octets())),
        ("anchors/people.pem", people.ca_pem.clone().into_bytes()),
    ]
    .into_iter()
    .map(|(name, octets)| (name.to_owned(), octets))
    .collect()
}

/// Adds two contingency keys, on a token of theirs, whose PIN is stored: as an exercise alone may.
pub fn add_contingency_keys(files: &mut Files) {
    let keys = CONTINGENCY_KEYS.map(|label| {
        format!(
            "\n[[key]]\nlabel = \"{label}\"\nuse = \"contingency\"\ntoken = \"{CONTINGENCY_TOKEN}\"\nmodes = [9]\n\
             originator = \"{CONTINGENCY_PARTY}\"\nactivation = \"stored\"\n"
        )
    });
    let text = format!("\n[[token]]\nname = \"{CONTINGENCY_TOKEN}\"\n{}", keys.concat());
    files.entry("keys.toml".to_owned()).or_default().extend(text.into_bytes());
}

/// The files, read as the daemon reads them.
pub fn read(files: &Files) -> Result<Policy, Vec<PolicyError>> {
    Policy::parse(files)
}

fn keys(activation: Activation) -> String {
    let opened = match activation {
        Activation::Custodians => "custodians",
        Activation::ProtectedPath => "protected-path",
        Activation::Stored => "stored",
    };
    format!(
        r#"# The keys of the exercise. "stored": the PIN lies in a file. That of a Recovery key may in an exercise alone.
version = 1

[[token]]
name = "{LEDGER_TOKEN}"

[[token]]
name = "{RECOVERY_TOKEN}"

[[key]]
label = "{LEDGER_KEY}"
use = "ledger"
token = "{LEDGER_TOKEN}"
modes = []
activation = "stored"

[[key]]
label = "{RECOVERY_KEY}"
use = "recovery"
token = "{RECOVERY_TOKEN}"
modes = [8]
originator = "{RECOVERY_PARTY}"
activation = "{opened}"
"#
    )
}

/// The Supplier whose certificate is compromised.
pub const AFFECTED: &str = "supplier-a";
/// The DCC, whose the OCAs are.
pub const DCC: &str = "dcc";

/// The EUI-64s that the lab's certificates of one role have.
fn eui64s(lab: &Lab, is_theirs: impl Fn(u8) -> bool) -> String {
    let all = [lab.before(), lab.after(), lab.broker()].into_iter().flatten();
    let of = |certificate: &SmkiCertificate| match certificate.kind() {
        Kind::Organisation { role, party, .. } if is_theirs(role) => Some(format!("\"{party}\"")),
        Kind::Organisation { .. } | Kind::IssuingOca | Kind::RootOca | Kind::DeviceCa | Kind::Device { .. } => None,
    };
    let found: BTreeSet<String> = all.filter_map(of).collect();
    found.into_iter().collect::<Vec<_>>().join(", ")
}

/// The Parties: the affected Supplier and the Network Operator under the EUI-64s of the lab's certificates, others under none.
fn parties(lab: &Lab) -> String {
    let (supplier, network) = (RemotePartyRole::Supplier.code(), RemotePartyRole::NetworkOperator.code());
    let suppliers = eui64s(lab, |role| role == supplier);
    let networks = eui64s(lab, |role| role == network);
    let others = eui64s(lab, |role| role != supplier && role != network);
    [
        (AFFECTED, "supplier", suppliers.as_str()),
        ("supplier-b", "supplier", ""),
        ("supplier-c", "supplier", ""),
        ("network-a", "network-operator", &networks),
        (DCC, "dcc", &others),
    ]
    .map(|(id, kind, eui64)| {
        format!("\n[[party]]\nid = \"{id}\"\nname = \"{id} of the exercise\"\nkind = \"{kind}\"\neui64 = [{eui64}]\n")
    })
    .concat()
}

/// PMA members, AROs and Key Custodians of several Parties, and the operator.
fn persons(lab: &Lab, people: &People, operator: &AccountName, now: Timestamp) -> String {
    const HOUR_MS: i64 = 60 * 60 * 1000;
    const PARTIES: [&str; 5] = [AFFECTED, "supplier-b", "network-a", "dcc", "supplier-c"];
    let (from, lately) = (now.plus_ms(-24 * HOUR_MS), now.plus_ms(-HOUR_MS));
    let mut text = "# The people of the exercise, whose keys were made for it.\nversion = 1\n".to_owned();
    text.push_str(&parties(lab));
    let mut person = |id: &str, party: &str, role: &str, holds: &str| {
        let entry = format!(
            "\n[[person]]\nid = \"{id}\"\nname = \"{id} of the exercise\"\nparty = \"{party}\"\nroles = [\"{role}\"]\n{holds}\nfrom = \"{from}\"\n"
        );
        text.push_str(&entry);
    };
    let keys = |member: &Member| {
        let keys: Vec<String> = member.credentials().map(|credential| format!("\"{}\"", credential.spki)).collect();
        format!("keys = [{}]", keys.join(", "))
    };
    for (member, party) in people.members.iter().zip(PARTIES.iter().cycle()) {
        person(member.id.as_str(), party, "pma-member", &keys(member));
    }
    let screened =
        format!("{{ standard = \"BS 7858:2019\", reference = \"exercise\", date = \"{}\" }}", &from.to_string()[..10]);
    let officers = [
        (AFFECTED, "active", from, None),
        ("supplier-b", "active", from, None),
        (AFFECTED, "revoked", lately, None),
        (AFFECTED, "active", from, Some(lately)),
        (DCC, "active", from, None),
    ];
    for (officer, (party, state, since, until)) in people.officers.iter().zip(officers) {
        let mut holds = keys(officer);
        let credential = format!("{{ state = \"{state}\", from = \"{since}\" }}");
        holds = format!("{holds}\ncredential = {credential}\nscreening = {screened}");
        if let Some(until) = until {
            holds = format!("{holds}\nceased = \"letter of the exercise\"\nuntil = \"{until}\"");
        }
        person(officer.id.as_str(), party, "aro", &holds);
    }
    for ((custodian, party), n) in people.custodians.iter().zip(PARTIES).zip(1..) {
        let keys = keys(custodian);
        let holds = format!("{keys}\nshares = [\"share-{n}\"]\nappointed = \"nomination form of the exercise\"");
        person(custodian.id.as_str(), party, "key-custodian", &holds);
    }
    person(PROPOSER, "dcc", "operator", &format!("accounts = [\"{operator}\"]"));
    text
}

#[cfg(test)]
mod tests;
