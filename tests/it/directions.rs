//! A direction of the SMKI PMA from its description to the auditor, by `smkictl` alone; and policies without the procedure, which no
//! way leads into a ledger.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use secrecy::ExposeSecret as _;
use smkid::api::wire;
use smkid::domain::determination::document::Method;
use smkid::domain::ledger::entry::Event;
use smkid::domain::ledger::steps::{SmiStatus, Step};
use smkid::domain::policy::Policy;
use smkid::domain::procedure::explain::Explanation;
use smkid::exercise::people::APPROVALS;
use smkid::exercise::procedure::status;
use smkid::wall_clock::wall_clock;

use crate::support::site::{INCIDENT, Site, device, problem, rules};

const STEPS: &str = "/v1/incidents/INC-1/steps";

/// What departs from a step of the incident.
fn departure(step: &str) -> String {
    format!(
        "[departure]\nincident = \"{INCIDENT}\"\nstep = \"{step}\"\nreason = \"The thresholds in force suffice.\"\n"
    )
}

/// The desk of a PMA member: their key and certificate in files.
fn desk(site: &Site, n: usize) -> String {
    let member = &site.base.people.members[n];
    let (key, certificate) = (site.path(&format!("{}.key", member.id)), site.path(&format!("{}.pem", member.id)));
    fs::write(&key, member.first.key_pem.expose_secret()).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&certificate, &member.first.certificate_pem).unwrap();
    format!("--key {} --certificate {} --policy policy", key.display(), certificate.display())
}

#[tokio::test]
async fn a_departure_is_drafted_shown_signed_recorded_explained_relied_on_and_audited_by_the_command_line() {
    let site = Site::founded().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    let devices: Vec<_> = (0..3).map(device).collect();
    let carrier = site.carrier(client, INCIDENT);
    let notification = carrier.assess(&devices, Method::NewOrganisationCertificates).await.unwrap();
    carrier.step(status(SmiStatus::Recovery, None, wall_clock())).await.unwrap();
    let refer = wire::StepAsk { step: Step::Refer { notification: Some(notification), new_facts: None } };
    assert_eq!(rules(&site.refused(client, STEPS, &refer).await), ["adt-file"]);

    // Drafted and read.
    fs::write(site.path("letter.txt"), "The SMKI PMA directs so.\n").unwrap();
    let reference = "reference = \"SMKI PMA, meeting of the night, item 3\"\ntext = \"letter.txt\"";
    let description = format!("proposer = \"operator-1\"\n{reference}\n{}", departure("submit-adt-file"));
    fs::write(site.path("direction.toml"), description).unwrap();
    let drafted =
        site.smkictl("determination draft --type direction --from direction.toml --policy policy --output json");
    let drafted = drafted.ok().json();
    let (document, sha256) = (drafted["document"].as_str().unwrap(), drafted["sha256"].as_str().unwrap());
    let page = site.smkictl(&format!("determination show {document} --policy policy")).ok().out;
    for expected in
        ["departs from a step", INCIDENT, "submit-adt-file", "The thresholds in force suffice.", "item 3", sha256]
    {
        assert!(page.contains(expected), "expected {expected:?} in {page}");
    }

    // Signed by two, which is one too few, and by a third.
    let sign = |n: usize| {
        site.smkictl(&format!("determination sign {document} {} --confirm {sha256}", desk(&site, n))).ok();
    };
    let record = |text: &str| site.smkictl(&format!("determination record {document} --text {text}"));
    (0..APPROVALS - 1).for_each(sign);
    let before = site.ledger().size();
    record("letter.txt").is(4).says("expected approvals of 3 persons, found 2");
    assert_eq!(site.ledger().size(), before + 1, "the refusal is recorded");
    sign(APPROVALS - 1);
    fs::write(site.path("forged.txt"), "The SMKI PMA directs otherwise.\n").unwrap();
    record("forged.txt").is(4).says("the direction's own text");
    let recorded = record("letter.txt").ok().out;
    for expected in ["direction-recorded", "member-1", "member-2", "member-3"] {
        assert!(recorded.contains(expected), "expected {expected:?} in {recorded}");
    }
    record("letter.txt").is(4).says("is recorded already");

    // Explained: what is permitted, by which direction, in words and for programs.
    let id = document.trim_start_matches("./").strip_suffix("-direction.json").unwrap();
    let told = site.smkictl(&format!("procedure explain --incident {INCIDENT}")).ok().out;
    let by = format!("by direction {id} of the SMKI PMA");
    let permitted = &told[told.find("PERMITTED, and owed by nobody").unwrap()..told.find("NOT YET DUE").unwrap()];
    assert!(permitted.contains("submit-adt-file") && permitted.contains(&by), "{told}");
    let told = site.smkictl(&format!("procedure explain --incident {INCIDENT} --output json")).ok().out;
    let explained: Explanation = serde_json::from_str(&told).unwrap();
    let step = explained.steps.iter().find(|step| step.step.as_str() == "submit-adt-file").unwrap();
    assert_eq!(step.standing.as_ref().unwrap().is, "permitted");

    // Once for a step; never for one that opens a key; not for one that there is not.
    site.direct(&departure("submit-adt-file"), APPROVALS)
        .is(4)
        .says("departs from step submit-adt-file in incident INC-1 already");
    site.direct(&departure("activate-key"), APPROVALS).is(4).says("no direction departs from step activate-key");
    site.direct(&departure("notify-compromise"), APPROVALS).is(4);
    site.direct(&departure("dance"), APPROVALS).is(4).says("has no step dance");

    // The step that would have waited is taken.
    client.post::<_, wire::Recorded>(STEPS, &refer).await.unwrap();
    let Event::StepTaken(taken) = site.ledger().entries.pop().unwrap().event else { panic!("no step was taken") };
    assert_eq!(taken.step, refer.step);
    // The step is marked with the direction that it rests on, and the story tells of both.
    assert_eq!(taken.departures.iter().map(ToString::to_string).collect::<Vec<_>>(), [id]);
    let story = site.smkictl(&format!("incident timeline {INCIDENT}")).ok().out;
    assert!(story.contains(id), "expected {id} in {story}");

    site.verify_export("export");
    let verified = site.verify("export").ok().out;
    assert!(verified.lines().any(|line| line.split_whitespace().eq(["directions", "1"])), "{verified}");
    // What the members signed is in the export, octet for octet, with its text.
    for file in [document, "letter.txt"] {
        let octets = fs::read(site.path(file)).unwrap();
        let digest = smkid::domain::names::Digest::of(&octets);
        let kept = fs::read(site.path(&format!("export/blobs/sha256/{digest}"))).unwrap();
        assert_eq!(kept, octets, "{file}");
    }
    assert!(daemon.stop().await.unwrap().success());
}

/// The example's `procedure/base.toml`, cut after its header: a policy of the first kind, as old ledgers have it.
const HEADER_ALONE: &str = "version = 1\nid = \"base\"\ntitle = \"Base procedure, without variation\"\n";

#[tokio::test]
async fn a_policy_whose_procedure_is_a_header_alone_is_refused_by_check_by_explain_and_at_its_adoption() {
    let site = Site::founded().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    let base = "procedure/base.toml";
    let cut: BTreeMap<String, Vec<u8>> = {
        let mut files = site.policy_files();
        files.insert(base.to_owned(), HEADER_ALONE.into());
        files.remove("procedure/direction-2017-07-18.toml");
        files
    };
    Policy::parse(&cut).expect("an old ledger that has such a policy is still read");
    crate::support::desk::copy(&site.path("policy"), &site.path("cut"));
    fs::write(site.path("cut").join(base), HEADER_ALONE).unwrap();
    fs::remove_file(site.path("cut/procedure/direction-2017-07-18.toml")).unwrap();
    let refusal = "procedure/base.toml: expected the steps";
    let checked = site.smkictl("policy check cut").is(4).out;
    assert!(checked.contains("NOT a policy") && checked.contains(refusal), "{checked}");
    site.smkictl("policy check policy").ok();
    site.smkictl("procedure explain --policy cut").is(1).says(refusal);

    let sent = site.signed_by(&site.adoption(client, &cut, vec![]).await, 5, Some(&cut));
    let refused = site.refused(client, "/v1/documents", &sent).await;
    assert_eq!(rules(&refused), ["policy"], "{refused:?}");
    assert!(refused.reasons[0].text.contains(refusal), "{refused:?}");
    let status: wire::Status = client.get("/v1/status").await.unwrap();
    assert_eq!(status.policy.unwrap().sequence, 1);
    // Cut within its steps it is no policy either.
    let mut torn = site.policy_files();
    let whole = torn[base].clone();
    torn.insert(base.to_owned(), whole[..whole.len() / 2].to_vec());
    let sent = wire::Document {
        policy_files: Some(torn.into_iter().map(|(path, octets)| (path, wire::Base64(octets))).collect()),
        ..sent
    };
    let torn = problem(client.post::<_, wire::DocumentRecorded>("/v1/documents", &sent).await);
    assert!(torn.reasons.iter().all(|reason| &*reason.rule == "policy"), "{torn:?}");
    assert!(torn.reasons.iter().any(|reason| reason.text.contains(base)), "{torn:?}");
    assert!(daemon.stop().await.unwrap().success());
}

#[test]
fn the_procedure_is_explained_from_a_folder_without_a_daemon() {
    let policy = format!("{}/keys-policy/example", env!("CARGO_MANIFEST_DIR"));
    let smkictl = |arguments: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_smkictl"));
        let arguments = ["procedure", "explain", "--policy", &policy].into_iter().chain(arguments.split_whitespace());
        crate::support::desk::Done::from(command.args(arguments).env("SMKID_SOCKET", "/nowhere").output().unwrap())
    };
    for (at, begins, stands) in [
        (
            "2017-07-20T22:59:59.999Z",
            "2017-07-20T22:59:59.999Z (2017-07-20 23:59:59 BST in London)",
            "not yet in force",
        ),
        ("2017-07-21", "2017-07-20T23:00:00.000Z (2017-07-21 00:00:00 BST in London)", "IN FORCE"),
        ("2017-11-02", "2017-11-02T00:00:00.000Z (2017-11-02 00:00:00 GMT in London)", "IN FORCE"),
        ("2017-11-03", "2017-11-03T00:00:00.000Z (2017-11-03 00:00:00 GMT in London)", "over"),
    ] {
        let told = smkictl(&format!("--at {at}")).ok().out;
        let stands = format!("VARIATION direction-2017-07-18: {stands}");
        for expected in [begins, &stands, "(a)", "(b)", "(c)", "4.2.1.2", "set-smi-status-recovery", "DUTIES TO INFORM"]
        {
            assert!(told.contains(expected), "{at}: expected {expected:?} in {told}");
        }
        let explained: Explanation =
            serde_json::from_str(&smkictl(&format!("--at {at} --output json")).ok().out).unwrap();
        assert_eq!(explained.optional_factors.len(), usize::from(stands.contains("IN FORCE")), "{at}");
    }
    smkictl("--at 2017-02-30").is(2);
    smkictl("--at 2017-07-21 --incident INC-1").is(2);
}
