//! A ceremony from one plan by the real smkictl on SoftHSM tokens: whole, adjourned, killed at each question, rehearsed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use smkid::cli::ceremony::KeysFile;
use smkid::domain::ledger::entry::Event;

use crate::ceremony::{MEMBERS, Stage, certify, contents, set_purpose};
use crate::support::console::Console;

/// What is answered where nothing else is said: what the question expects.
const ANSWERS: &str = "version = 1\npurpose = \"exercise\"\notherwise = \"as-expected\"\n";
/// The arguments of a run at a terminal or with answers, in the stage's folder.
const PINS: &str = "--pin-file smki-a=smki.pin --pin-file ledger-a=ledger.pin";

impl Stage {
    /// With a plan that was reviewed.
    fn planned() -> Self {
        let stage = Self::new();
        stage.expect(
            0,
            "Next: review it",
            "plan --policy policy --config smkid.toml --conductor operator-1 --witness Guest --out plan.toml",
        );
        stage.edit_plan(|text| text.replace("to be written: room, building, town", "Room 4, Hut 6, Newport"));
        stage.scratch.write("answers.toml", ANSWERS);
        stage
    }

    fn edit_plan(&self, edit: impl FnOnce(String) -> String) {
        let text = edit(self.scratch.text("plan.toml"));
        self.scratch.write("plan.toml", text);
    }

    /// `run` with the answers of the file.
    #[track_caller]
    fn unattended(&self, status: i32, said: &str, more: &str) -> String {
        self.expect(status, said, &format!("run plan.toml --unattended answers.toml {PINS} {more}"))
    }

    /// `run` at a terminal.
    fn console(&self) -> Console {
        let mut command = Command::new(env!("CARGO_BIN_EXE_smkictl"));
        command.args(["ceremony", "run", "plan.toml"]).args(PINS.split(' ')).current_dir(self.path("."));
        Console::start(&mut command)
    }

    /// Everyone signs the adoption, with openssl, where the ceremony looks for it.
    fn sign_adoption(&self, folder: &str) {
        for member in MEMBERS {
            self.sign(&format!("{folder}/adoption.json"), member, &format!("{folder}/adoption.{member}.p7s"));
        }
    }

    /// The lab certifies the key, and lays certificate and path where the plan says.
    fn lay_certificates(&self) {
        fs::create_dir_all(self.path("certificates")).unwrap();
        let [ours, _] = certify(self, "ceremony/recovery.csr");
        self.scratch.write_certificate("certificates/recovery-1.pem", &ours);
        for name in ["issuing-oca", "root-oca"] {
            fs::copy(self.path(&format!("policy/anchors/{name}.pem")), self.path(&format!("certificates/{name}.pem")))
                .unwrap();
        }
    }

    /// The lines of a journal: kinds and steps, without what differs from one token to another.
    fn course(&self, journal: &str) -> Vec<(String, Value)> {
        let lines = self.scratch.text(journal);
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines
            .map(|line| {
                let (kind, body) = line["what"].as_object().unwrap().iter().next().unwrap();
                (kind.clone(), body["step"].clone())
            })
            .collect()
    }

    fn minutes(&self) -> String {
        self.scratch.text("ceremony/minutes.txt")
    }
}

#[test]
fn a_ceremony_is_adjourned_for_signatures_and_certificate_and_its_minutes_tell_all_of_it() {
    let stage = Stage::planned();
    stage.expect(0, "fits its policy", "check plan.toml");
    assert!(!stage.path("ceremony").exists(), "to check a plan makes nothing");

    let said = stage.unattended(6, "adjourned at", "");
    assert!(said.contains("0 signatures lie there"), "{said}");
    stage.sign_adoption("ceremony");
    let said = stage.unattended(6, "certificates/recovery-1.pem: nothing lies there yet", "");
    assert!(!said.contains("Step 2 of"), "what was done is not done again: {said}");
    stage.lay_certificates();
    stage.unattended(0, "Next: print the minutes", "");

    // Each key is the one that the plan named before it was made.
    let plan = stage.scratch.text("plan.toml");
    let keys: KeysFile = serde_json::from_slice(&stage.scratch.read("ceremony/keys.json")).unwrap();
    for key in &keys.keys {
        assert!(plan.contains(&format!("cka_id = \"{}\"", key.id)), "{key:?}");
    }
    let kinds: Vec<Event> = stage.events();
    assert!(kinds.iter().any(|event| matches!(event, Event::CertificateImported(_))), "{kinds:?}");

    let minutes = stage.minutes();
    for said in [
        "Room 4, Hut 6, Newport",
        "Present: Operator One (operator-1), conductor.",
        "Present: Guest, witness.",
        "Guest compared and confirmed it:",
        "The ceremony was adjourned: 0 signatures lie there",
        "Session 3: roll-call",
        "Key recovery-1 is made",
    ] {
        assert!(minutes.contains(said), "expected {said:?} in\n{minutes}");
    }
    for key in &keys.keys {
        assert!(minutes.contains(&key.spki_sha256.to_string()) && minutes.contains(&key.id.to_string()), "{minutes}");
    }
    assert!(!minutes.contains("interrupted at"), "nothing was: {minutes}");
    // The page says the same, with nothing from elsewhere in it, and room for each signature.
    let page = stage.scratch.text("ceremony/minutes.html");
    for outside in ["http:", "https:", "src=", "href=", "url(", "<script"] {
        assert!(!page.contains(outside), "{outside} in the page");
    }
    assert!(
        page.contains("@media print") && page.contains("<td>Guest</td><td>witness</td><td></td><td></td>"),
        "{page}"
    );
    // Made again from the journal, they are the same.
    let again = stage.expect(0, "MINUTES", "transcript ceremony --html again.html");
    assert!(again.starts_with(&minutes), "{again}");
    assert_eq!(stage.scratch.text("again.html"), page);
    // Once more does nothing.
    let before = stage.events().len();
    stage.unattended(0, "ceremony", "");
    assert_eq!(stage.events().len(), before);
}

#[test]
fn a_ceremony_that_is_killed_at_any_question_goes_on_at_that_step() {
    let stage = Stage::planned();
    let roll_call = |console: &mut Console| {
        for _ in 0..stage.scratch.text("plan.toml").matches("\n[[person]]").count() {
            console.answer("? [present, absent", "present");
        }
        console.answer("Does another clock say the same", "yes");
    };
    let word = |console: &mut Console| {
        console.answer("Who compared it", "Guest");
        console.expect("The last word of line ");
        let heard = console.said().to_owned();
        let line: usize = {
            console.expect("?");
            let said = console.said();
            said[heard.len()..].split('?').next().unwrap().trim().parse().unwrap()
        };
        let words = heard.rsplit("To be read aloud:").next().unwrap();
        let read = words.lines().find(|text| text.trim().starts_with(&format!("{line} "))).unwrap();
        console.say(read.split_whitespace().last().unwrap());
    };
    // In the roll-call.
    let mut console = stage.console();
    console.expect("? [present, absent");
    console.kill();
    let steps = ["opening", "key-ledger-1", "key-recovery-1", "adoption"];
    for (at, step) in steps.into_iter().enumerate() {
        // Before it is done.
        let mut console = stage.console();
        roll_call(&mut console);
        console.expect(&format!("Step {} of", at + 1));
        console.expect("Shall it be done?");
        console.kill();
        // Once it is done, and before that is written down.
        let mut console = stage.console();
        console.expect("the ceremony was interrupted at");
        roll_call(&mut console);
        console.answer("Go on with it?", "yes");
        console.answer("Who compared it", "Guest");
        console.expect("The last word of line ");
        console.kill();
        // To its end, then adjourned at the next.
        let mut console = stage.console();
        roll_call(&mut console);
        console.answer("Go on with it?", "note The lights went out twice");
        console.expect("That is on record.");
        console.answer("Go on with it?", "yes");
        if step.starts_with("key") || step == "adoption" {
            console.expect("Found: ");
        }
        word(&mut console);
        if step == "opening" {
            word(&mut console);
        }
        console.expect("Done.");
        console.answer("Shall it be done?", "stop");
        let (status, said) = console.end();
        assert_eq!(status, Some(6), "{said}");
    }
    // One key pair under each label, whatever was killed when.
    for (token, label) in [(&stage.ledger, "ledger-1"), (&stage.smki, "recovery-1")] {
        let listed = Stage::pkcs11_tool(token, "--list-objects --type privkey");
        assert_eq!(listed.matches("label:").count(), 1, "{listed}");
        assert!(listed.contains(label), "{listed}");
    }
    // The rest, with the worst moments of it: a ledger that stands, a request that was signed.
    stage.sign_adoption("ceremony");
    stage.scratch.write("stop.toml", format!("{ANSWERS}[answers]\n\"ledger/word\" = \"differs\"\n"));
    stage.expect(5, "not those that stand here", &format!("run plan.toml --unattended stop.toml {PINS}"));
    let said = stage.unattended(6, "nothing lies there yet", "");
    assert!(said.contains("the ledger, begun before an interruption"), "{said}");
    stage.lay_certificates();
    stage.unattended(0, "Next: print the minutes", "");
    let minutes = stage.minutes();
    for said in
        ["was interrupted at \u{201c}Key recovery-1 is made\u{201d}", "The lights went out twice", "The step failed:"]
    {
        assert!(minutes.replace("\n           ", " ").contains(said), "expected {said:?} in\n{minutes}");
    }
}

#[test]
fn a_key_that_was_made_and_not_written_down_is_found_by_the_name_that_the_plan_gave_it() {
    let stage = Stage::planned();
    stage.unattended(6, "adjourned at", "");
    let made = stage.scratch.text("ceremony/keys.json");
    // As if it had been cut off between the token and the file: neither the file nor the journal knows of the second key.
    let mut keys: KeysFile = serde_json::from_str(&made).unwrap();
    keys.keys.retain(|key| key.label.as_str() == "ledger-1");
    stage.scratch.write("ceremony/keys.json", serde_json::to_vec(&keys).unwrap());
    stage.cut_journal_before("key-recovery-1");
    let said = stage.unattended(6, "adjourned at", "");
    assert!(said.contains("Found: the key pair recovery-1"), "{said}");
    let found: KeysFile = serde_json::from_slice(&stage.scratch.read("ceremony/keys.json")).unwrap();
    assert_eq!(found, serde_json::from_str(&made).unwrap());

    // What has the label and is not the plan's pair is named, and nothing is made of it.
    for kind in ["privkey", "pubkey"] {
        Stage::pkcs11_tool(&stage.smki, &format!("--delete-object --type {kind} --label recovery-1"));
    }
    Stage::pkcs11_tool(&stage.smki, "--keypairgen --key-type EC:prime256v1 --label recovery-1 --id 01");
    stage.scratch.write("ceremony/keys.json", serde_json::to_vec(&keys).unwrap());
    stage.cut_journal_before("key-recovery-1");
    let said = stage.unattended(5, "is not the whole pair with the CKA_ID", "");
    let planned = found.keys.iter().find(|key| key.label.as_str() == "recovery-1").unwrap().id;
    assert!(said.contains(&planned.to_string()) && said.contains("smki-a"), "{said}");
}

impl Stage {
    /// The journal as it would be if it had been cut off when that step had begun.
    fn cut_journal_before(&self, step: &str) {
        let text = self.scratch.text("ceremony/ceremony.journal");
        let begun = format!("{{\"begun\":{{\"step\":\"{step}\"");
        let count = text.lines().position(|line| line.contains(&begun)).unwrap() + 1;
        let kept: String = text.split_inclusive('\n').take(count).collect();
        // Half a line, too.
        self.scratch.write("ceremony/ceremony.journal", format!("{kept}{{\"at\":\"20"));
    }
}

#[test]
fn a_rehearsal_differs_from_the_ceremony_in_nothing_but_the_token() {
    let stage = Stage::planned();
    let before = contents(stage.ledger.dir());
    stage.unattended(6, "REHEARSAL", "--dry-run");
    stage.sign_adoption("ceremony.rehearsal/out");
    let said = stage.unattended(0, "The scratch tokens are destroyed", "--dry-run");
    assert!(said.contains("minutes-of-rehearsal.html"), "{said}");
    assert!(!stage.path("ceremony.rehearsal").exists());
    assert!(!stage.path("state").exists(), "no ledger was begun");
    assert_eq!(contents(stage.ledger.dir()), before, "the real tokens were not touched");
    let minutes = stage.scratch.text("ceremony/minutes-of-rehearsal.txt");
    assert!(minutes.starts_with("REHEARSAL on scratch tokens"), "{minutes}");

    // The same plan in earnest.
    stage.unattended(6, "adjourned at", "");
    stage.sign_adoption("ceremony");
    stage.unattended(6, "nothing lies there yet", "");
    stage.lay_certificates();
    stage.unattended(0, "Next: print", "");
    let of = |journal: &str| {
        let course = stage.course(journal).into_iter();
        // What waits for the SMKI: nobody certifies a scratch key, so a rehearsal does not rise for it.
        course
            .filter(|(kind, step)| {
                !matches!(kind.as_str(), "adjourned" | "session" | "present" | "recorded")
                    && !step.as_str().is_some_and(|step| step.starts_with("certificate") || step == "roll-call")
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(of("ceremony/rehearsal.ceremony.journal"), of("ceremony/ceremony.journal"));
}

#[test]
fn every_fault_of_a_plan_is_told_with_its_line() {
    let stage = Stage::planned();
    let plan = stage.scratch.text("plan.toml");
    let line_of = |text: &str, what: &str| text.lines().position(|line| line.contains(what)).unwrap() + 1;
    let check = |edit: &dyn Fn(&str) -> String, expected: &[(&str, &str)]| {
        let text = edit(&plan);
        assert_ne!(text, plan, "the edit met nothing");
        stage.scratch.write("edited.toml", &text);
        let said = stage.expect(1, "the plan edited.toml", "check edited.toml");
        for (at, fault) in expected {
            let place = if at.is_empty() { String::new() } else { format!("line {}: ", line_of(&text, at)) };
            assert!(said.contains(&format!("  {place}{fault}")), "expected {place}{fault} in\n{said}");
        }
    };
    check(
        &|text| text.replace("purpose = \"exercise\"", "purpose = \"live\""),
        &[("purpose = ", "purpose: the policy is exercise")],
    );
    check(
        &|text| {
            let digest = text.lines().find(|line| line.starts_with("policy_digest")).unwrap();
            text.replace(digest, &format!("policy_digest = \"{}\"", "0".repeat(64)))
        },
        &[("policy_digest = ", "policy_digest: the policy in")],
    );
    check(
        &|text| text.replace("capacity = \"conductor\"", "capacity = \"auditor\""),
        &[
            ("", "person: expected one with the capacity \"conductor\", found 0"),
            ("[[person]]", "person operator-1: the policy does not have them as auditor"),
        ],
    );
    check(
        &|text| text.replace("threshold = 2", "threshold = 3"),
        &[("[[shares]]", "shares of key recovery-1: threshold: the policy says 2")],
    );
    check(
        &|text| text.replace("share = \"share-1\"", "share = \"share-2\""),
        &[
            ("[[shares]]", "shares of key recovery-1: share-2 stands there twice"),
            ("[[shares]]", "shares of key recovery-1: the policy gives share-1 to custodian-1"),
        ],
    );
    check(&|text| text.replace("\"sensitive\", ", ""), &[("", "")]);
    check(&|text| text.replace("token = \"smki-a\"", "token = \"ledger-a\""), &[("", "")]);
    // What TOML itself does not take has its line, too.
    check(&|text| text.replace("place = ", "plaice = "), &[("plaice", "unknown field")]);
}

#[test]
fn a_plan_that_was_changed_after_the_beginning_is_refused() {
    let stage = Stage::planned();
    stage.unattended(6, "adjourned at", "");
    stage.edit_plan(|text| text.replace("Room 4", "Room 5"));
    stage.unattended(1, "a ceremony was begun here by another plan", "");
    stage.edit_plan(|text| text.replace("Room 5", "Room 4"));
    // Nor is a journal taken in which a line was changed.
    let journal = stage.scratch.text("ceremony/ceremony.journal");
    stage.scratch.write("ceremony/ceremony.journal", journal.replace("Guest", "Ghost"));
    stage.unattended(1, "a line was changed or taken out", "");
    stage.scratch.write("ceremony/ceremony.journal", journal);
    stage.unattended(6, "adjourned at", "");
}

#[test]
fn in_earnest_nobody_answers_from_a_file_and_too_few_witnesses_begin_nothing() {
    let stage = Stage::planned();
    stage.scratch.write(
        "answers.toml",
        format!("{ANSWERS}[answers]\n\"roll-call/Guest\" = \"absent\"\n\"roll-call/nobody\" = \"present\"\n"),
    );
    let said = stage.unattended(6, "at least 2 who bear witness", "");
    assert!(said.contains("no question is named \"roll-call/nobody\""), "{said}");
    assert!(!stage.path("ceremony/keys.json").exists());
    stage.expect(1, "there is no terminal", &format!("run plan.toml {PINS}"));
    set_purpose(&stage.path("policy"), "live");
    stage.scratch.write("answers.toml", ANSWERS);
    let live = Stage::plan_text_live(&stage);
    stage.scratch.write("live.toml", live);
    stage.expect(4, "--unattended is for exercises", "run live.toml --unattended answers.toml");
    let path: PathBuf = stage.path("ledger.pin");
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
}

impl Stage {
    /// The plan for the same policy, once it is live.
    fn plan_text_live(&self) -> String {
        self.expect(
            0,
            "Next: review it",
            "plan --policy policy --config smkid.toml --conductor operator-1 --witness Guest --out drafted.toml",
        );
        self.scratch.text("drafted.toml")
    }
}
