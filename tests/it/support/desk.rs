//! A PMA's office in a scratch folder: people with keys of openssl's making, a policy that names them, an SMKI with a
//! compromised Supplier, and `smkictl` run there as the people run it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use smkid::domain::certificates::bodies::Template;
use smkid::domain::certificates::{OrganisationSubject, Usage};
use smkid::domain::determination::spki;
use smkid::domain::names::PartyId;
use smkid::wall_clock::wall_clock as now;

use super::lab::{Holder, Key, Lab, Scratch, VALIDITY, issue};

/// The Supplier whose key is compromised.
pub const SUPPLIER: &str = "90B3D51F30010000";
/// The members of the policy; any two approve.
pub const MEMBERS: [&str; 3] = ["anna", "bert", "cora"];

/// The office.
pub struct Office {
    pub scratch: Scratch,
    pub lab: Lab,
}

/// What a command came to.
pub struct Done {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Done {
    pub fn from(output: Output) -> Self {
        let text = |octets| String::from_utf8(octets).expect("smkictl writes UTF-8");
        Self { status: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        self.is(0)
    }

    #[track_caller]
    pub fn is(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{}{}", self.out, self.err);
        self
    }

    /// That everything in `expected` was said on stderr.
    #[track_caller]
    pub fn says(self, expected: &str) -> Self {
        assert!(self.err.contains(expected), "expected {expected:?} in {}", self.err);
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }
}

impl Office {
    pub fn new() -> Self {
        let office = Self { scratch: Scratch::new(), lab: Lab::new() };
        let scratch = &office.scratch;
        scratch.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 3650 \
             -subj /CN=PMA-CA -addext keyUsage=critical,keyCertSign",
        );
        for person in MEMBERS.into_iter().chain(["dora"]) {
            office.person(person, "ec -pkeyopt ec_paramgen_curve:P-256", "-days 365");
        }
        office.certificates();
        office.policy();
        let checkpoint = "smkid.example/ledger\n7\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n\
                          \u{2014} smkid.example/ledger AAAAAAAA\n";
        scratch.write("checkpoint", checkpoint);
        scratch.write("devices.txt", "00DB1234567890A0,single,5\n00DB1234567890A1,single\n");
        office.draft_toml(|text| text);
        office
    }

    /// `NAME.key` and `NAME.pem`.
    pub fn person(&self, name: &str, key: &str, days: &str) {
        let scratch = &self.scratch;
        scratch.openssl(&format!("req -newkey {key} -nodes -keyout {name}.key -out {name}.csr -subj /O=PMA/CN={name}"));
        self.certify(name, days);
    }

    /// `NAME.pem` for `NAME.csr`.
    pub fn certify(&self, name: &str, days: &str) {
        self.scratch.write("leaf.ext", "keyUsage=critical,digitalSignature\nsubjectKeyIdentifier=hash\n");
        self.scratch.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile leaf.ext {days} -out {name}.pem"
        ));
    }

    /// An Organisation Certificate of the lab.
    pub fn organisation(&self, party: &str, role: u8, usage: Usage, validity: (&str, &str)) -> Holder {
        let party: PartyId = party.parse().unwrap();
        let subject = OrganisationSubject { common_name: None, role, party };
        let template = Template::Organisation { subject, usage };
        issue(&template, Key::generate(), Some(&self.lab.issuing), validity)
    }

    fn certificates(&self) {
        let write = |name: &str, holder: &Holder| {
            self.scratch.write_certificate(name, holder.certificate.certificate().octets());
        };
        write("root.pem", &self.lab.root);
        write("issuing.pem", &self.lab.issuing);
        write("device-ca.pem", &self.lab.device_ca);
        for (name, party, role, usage, validity) in [
            ("recovery.pem", "90B3D51F30000002", 1, Usage::DigitalSignature, VALIDITY),
            ("compromised.pem", SUPPLIER, 2, Usage::DigitalSignature, VALIDITY),
            ("signing.pem", SUPPLIER, 2, Usage::DigitalSignature, VALIDITY),
            ("agreement.pem", SUPPLIER, 2, Usage::KeyAgreement, VALIDITY),
            ("other.pem", "90B3D51F30020000", 2, Usage::DigitalSignature, VALIDITY),
            ("network.pem", SUPPLIER, 3, Usage::DigitalSignature, VALIDITY),
            ("expired.pem", SUPPLIER, 2, Usage::DigitalSignature, ("2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z")),
        ] {
            write(name, &self.organisation(party, role, usage, validity));
        }
    }

    /// `policy/`: the example, with our people and our SMKI.
    fn policy(&self) {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("keys-policy/example");
        copy(&example, &self.scratch.path("policy"));
        let text = |name: &str| fs::read_to_string(example.join(name)).unwrap();
        let policy = text("policy.toml").replace("\"live\"", "\"exercise\"").replace("approvals = 3", "approvals = 2");
        self.scratch.write("policy/policy.toml", policy);
        let persons = text("persons.toml");
        let others = persons.find("[[person]]\nid = \"custodian-1\"").unwrap();
        let parties = persons.find("\n[[party]]\n").unwrap()..persons.find("\n[[person]]\n").unwrap();
        let mut ours = format!("version = 1\n{}\n", &persons[parties]);
        for (n, member) in (1..).zip(MEMBERS) {
            ours = format!("{ours}[[party]]\nid = \"party-{n}\"\nname = \"Party {n}\"\nkind = \"other\"\n");
            ours = format!(
                "{ours}[[person]]\nid = \"{member}\"\nname = \"{member}\"\nparty = \"party-{n}\"\nroles = [\"pma-member\"]\n\
                 keys = [\"{}\"]\nfrom = \"2020-01-01T00:00:00Z\"\n",
                self.spki(member)
            );
        }
        // Appointed when the tests run, whatever the date.
        let others = persons[others..].replace("2026-01-01", "2020-01-01");
        self.scratch.write("policy/persons.toml", ours + &others);
        for (name, from) in
            [("people", "ca"), ("root-oca", "root"), ("issuing-oca", "issuing"), ("device-ca", "device-ca")]
        {
            self.scratch.write(&format!("policy/anchors/{name}.pem"), self.scratch.read(&format!("{from}.pem")));
        }
    }

    /// SHA-256 of a person's public key.
    pub fn spki(&self, person: &str) -> String {
        let public = self.scratch.openssl(&format!("x509 -in {person}.pem -noout -pubkey"));
        spki::digest_of_pem(&public).unwrap().to_string()
    }

    /// `draft.toml`: a determination that nothing is to be said about, changed by `change`.
    pub fn draft_toml(&self, change: impl FnOnce(String) -> String) {
        let (from, until) = (now(), now().plus_ms(2 * 24 * 3_600_000));
        let text = format!(
            r#"
incident = "INC-1"
decision_number = 1
proposer = "operator-1"
decision = "execute"
compromised = "compromised.pem"
method = "new-organisation-certificates"
counter_start = 5
devices = "devices.txt"
[window]
from = "{from}"
until = "{until}"
[key]
label = "recovery-1"
certificate = "recovery.pem"
[limits]
intents = 2
per_hour = 2
retries_of_unknown = 0
retry_by_itself = false
[[factor]]
id = "devices-affected"
weight = "towards"
comment = "Two Devices."
[[factor]]
id = "misuse-seen"
weight = "neither"
comment = "None seen."
[[factor]]
id = "compromise-confirmed"
weight = "met"
comment = "By letter."
[[template]]
name = "single"
path = ["issuing.pem"]
[[template.replace]]
cell = "supplier digitalSignature"
certificate = "signing.pem"
[[template.replace]]
cell = "supplier keyAgreement"
certificate = "agreement.pem"
[[template.replace]]
cell = "supplier keyAgreement prePaymentTopUp"
certificate = "agreement.pem"
"#
        );
        self.scratch.write("draft.toml", change(text));
    }

    /// Runs `smkictl` in the folder, with nobody at a terminal. Arguments are separated by spaces.
    pub fn smkictl(&self, arguments: &str) -> Done {
        self.smkictl_with(arguments, &[])
    }

    /// The same with variables in the environment.
    pub fn smkictl_with(&self, arguments: &str, environment: &[(std::ffi::OsString, std::ffi::OsString)]) -> Done {
        let mut command = Command::new(env!("CARGO_BIN_EXE_smkictl"));
        command.args(arguments.split_whitespace()).current_dir(self.scratch.path("."));
        command.envs(environment.iter().cloned()).stdin(std::process::Stdio::null());
        Done::from(command.output().unwrap())
    }

    /// Drafts what `draft.toml` says. Answers the document's name without its ending, and its SHA-256.
    #[track_caller]
    pub fn draft(&self) -> (String, String) {
        self.draft_of("determination", "draft.toml")
    }

    #[track_caller]
    pub fn draft_of(&self, kind: &str, from: &str) -> (String, String) {
        let command =
            format!("determination draft --type {kind} --from {from} --head checkpoint --policy policy --output json");
        let answer = self.smkictl(&command).ok().json();
        let document = answer["document"].as_str().unwrap();
        let stem = document.trim_start_matches("./").strip_suffix(".json").unwrap().to_owned();
        (stem, answer["sha256"].as_str().unwrap().to_owned())
    }

    /// The names of what is warned of.
    #[track_caller]
    pub fn warnings(&self, stem: &str, more: &str) -> Vec<String> {
        let shown = self.smkictl(&format!("determination show {stem}.json --output json {more}")).ok().json();
        let name = |warning: &Value| warning["name"].as_str().unwrap().to_owned();
        shown["warnings"].as_array().unwrap().iter().map(name).collect()
    }

    /// Has a member sign with a PEM key.
    #[track_caller]
    pub fn sign(&self, member: &str, stem: &str, sha256: &str) {
        self.smkictl(&format!(
            "determination sign {stem}.json --key {member}.key --certificate {member}.pem --member {member} --confirm {sha256}"
        ))
        .ok();
    }
}

/// Copies a folder.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
