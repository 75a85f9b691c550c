//! A ceremony from one plan by the real smkictl on SoftHSM tokens: whole, adjourned, killed at each question, rehearsed.

mod standing;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use smkid::cli::ceremony::KeysFile;
use smkid::domain::ledger::entry::Event;
use smkid::domain::names::Digest;

use crate::ceremony::{MEMBERS, Stage, certify, contents, set_purpose};
use crate::support::console::Console;
use crate::support::token::{MODULE, PIN};

/// What is answered where nothing else is said: what the question expects.
const ANSWERS: &str = "version = 1\npurpose = \"exercise\"\notherwise = \"as-expected\"\n";
/// The arguments of a run at a terminal or with answers, in the stage's folder.
const PINS: &str = "--pin-file smki-a=smki.pin --pin-file ledger-a=ledger.pin --passphrase-file custodian-1=custodian-1.pass \
                    --passphrase-file custodian-2=custodian-2.pass --passphrase-file custodian-3=custodian-3.pass";
/// What two custodians bring, once shares were dealt.
const SHARES: &str = "--share custodian-1=ceremony/shares/recovery-1.1.share-1.pem --share \
                      custodian-3=ceremony/shares/recovery-1.1.share-3.pem";

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
        for custodian in ["custodian-1", "custodian-2", "custodian-3"] {
            stage.scratch.write(&format!("{custodian}.pass"), format!("what only {custodian} knows\n"));
            fs::set_permissions(stage.path(&format!("{custodian}.pass")), fs::Permissions::from_mode(0o600)).unwrap();
        }
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
    // The ledger ends with it; plan and transcript are documents of it, and the transcript is the journal but for its last line.
    let events: Vec<Event> = stage.events();
    let Some(Event::CeremonyRecorded(recorded)) = events.last() else { panic!("{events:?}") };
    assert_eq!(recorded.plan, Digest::of(&stage.scratch.read("plan.toml")));
    let journal = stage.scratch.text("ceremony/ceremony.journal");
    let (transcript, last) = journal.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(recorded.transcript, Digest::of(format!("{transcript}\n").as_bytes()));
    assert!(last.contains(&format!("{{\"recorded\":{{\"entry\":{}}}}}", events.len() - 1)), "{last}");
    assert_eq!(recorded.people.len(), 6, "{recorded:?}");

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
    // The PIN that was typed opens nothing any more.
    let listed =
        stage.smki.command("pkcs11-tool").args(["--module", MODULE, "--login", "--pin", PIN, "-O"]).output().unwrap();
    assert!(!listed.status.success(), "{listed:?}");
    assert!(minutes.contains("generation: 1, 2 of 3"), "{minutes}");
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
        console.expect("To be read aloud:");
        let words = console.expect("Who compared it");
        console.say("Guest");
        console.expect("The last word of line ");
        let line = console.expect("?");
        let read = words.lines().find(|text| text.trim().starts_with(&format!("{line} "))).unwrap();
        console.say(read.split_whitespace().last().unwrap());
    };
    // In the roll-call.
    let mut console = stage.console();
    console.expect("? [present, absent");
    console.kill();
    let interrupt = |number: usize, words: usize, found: bool| {
        // Before it is done.
        let mut console = stage.console();
        roll_call(&mut console);
        console.expect(&format!("Step {number} of"));
        console.expect("[yes, stop");
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
        if found {
            console.expect("Found: ");
        }
        (0..words).for_each(|_| word(&mut console));
        console.expect("Done.");
        console.answer("Shall it be done?", "stop");
        let (status, said) = console.end();
        assert_eq!(status, Some(6), "{said}");
    };
    interrupt(1, 2, false);
    // Two keys, and the adoption.
    (2..=4).for_each(|number| interrupt(number, 1, true));
    // One key pair under each label, whatever was killed when.
    for (token, label) in [(&stage.ledger, "ledger-1"), (&stage.smki, "recovery-1")] {
        let listed = Stage::pkcs11_tool(token, "--list-objects --type privkey");
        assert_eq!(listed.matches("label:").count(), 1, "{listed}");
        assert!(listed.contains(label), "{listed}");
    }
    // The ledger, the request and the shares.
    stage.sign_adoption("ceremony");
    stage.scratch.write("stop.toml", format!("{ANSWERS}[answers]\n\"ledger/go\" = \"stop\"\n"));
    stage.expect(6, "The ledger begins", &format!("run plan.toml --unattended stop.toml {PINS}"));
    (6..=8).for_each(|number| interrupt(number, 1, true));
    let dealt = stage.events().iter().filter(|event| matches!(event, Event::SharesDealt(_))).count();
    assert_eq!(dealt, 1, "shares are dealt once, whatever was killed when");
    stage.lay_certificates();
    // What was heard is not what stands there.
    stage.scratch.write("stop.toml", format!("{ANSWERS}[answers]\n\"certificate-recovery-1/word\" = \"differs\"\n"));
    stage.expect(5, "not those that stand here", &format!("run plan.toml --unattended stop.toml {PINS}"));
    let said = stage.unattended(0, "Next: print the minutes", "");
    assert!(said.contains("Found: the certificate, recorded before an interruption"), "{said}");
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
    let key = stage.scratch.text("policy/keys.toml");
    let second = "\n[[key]]\nlabel = \"contingency-1\"\nuse = \"contingency\"\ntoken = \"smki-a\"\nmodes = []\noriginator = \
                  \"90B3D51F30000003\"\nactivation = \"custodians\"\n";
    stage.scratch.write("policy/keys.toml", format!("{key}{second}"));
    check(
        &|text| text.replace("Room 4", "Room 5"),
        &[("[[shares]]", "shares of key recovery-1: the policy has key contingency-1 on token smki-a too")],
    );
    stage.scratch.write("policy/keys.toml", key);
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

impl Stage {
    /// As far as a ceremony that is over.
    fn held() -> Self {
        let stage = Self::planned();
        stage.unattended(6, "adjourned at", "");
        stage.sign_adoption("ceremony");
        stage.unattended(6, "nothing lies there yet", "");
        stage.lay_certificates();
        stage.unattended(0, "Next: print", "");
        stage
    }

    fn draft_destruction(&self, key: &str) {
        self.expect(
            0,
            "No token was asked",
            &format!(
                "destroy draft {TOKENS} --key {key} --proposer member-1 --reason Superseded --out destruction.json"
            ),
        );
    }

    fn sign_destruction(&self, members: &[&str]) -> String {
        for member in members {
            self.sign("destruction.json", member, &format!("destruction.{member}.p7s"));
        }
        let signatures = members.iter().map(|member| format!("--signature destruction.{member}.p7s"));
        format!(
            "destroy run {TOKENS} destruction.json --unattended answers.toml {PINS} {SHARES} {}",
            signatures.collect::<Vec<_>>().join(" ")
        )
    }

    fn keys_on_the_token(&self) -> String {
        // Seen by everyone: the public half, which goes last.
        self.smki.pkcs11_tool(&["--list-objects", "--type", "pubkey"])
    }
}

const TOKENS: &str = "--config smkid.toml";

#[test]
fn a_key_is_destroyed_by_the_quorum_and_by_nobody_else() {
    let stage = Stage::held();
    let before = stage.events().len();
    stage.expect(1, "the SMKI certifies no other here", &format!("request {TOKENS} --key ledger-1 --out ceremony"));
    stage.draft_destruction("recovery-1");
    // Two of the three that the policy demands; and the proposer does not count.
    stage.expect(4, "quorum", &stage.sign_destruction(&["member-2", "member-3"]));
    stage.expect(4, "quorum", &stage.sign_destruction(&["member-1", "member-2", "member-3"]));
    // Another key than the ledger's record of that label.
    let document = stage.scratch.text("destruction.json");
    let keys: KeysFile = serde_json::from_slice(&stage.scratch.read("ceremony/keys.json")).unwrap();
    let [ledger, recovery] = keys.keys.as_slice() else { panic!("{keys:?}") };
    for (from, to, rule) in [
        (recovery.spki_sha256.to_string(), ledger.spki_sha256.to_string(), "key-spki"),
        (recovery.id.to_string(), ledger.id.to_string(), "key-id"),
        (stage.smki.serial.clone(), stage.ledger.serial.clone(), "key-tokens"),
    ] {
        stage.scratch.write("destruction.json", document.replace(&from, &to));
        stage.expect(4, rule, &stage.sign_destruction(&["member-2", "member-3", "member-4"]));
    }
    stage.scratch.write("destruction.json", &document);
    let run = stage.sign_destruction(&["member-2", "member-3", "member-4"]);
    // Whoever does not type its name destroys nothing; nor does a dry run.
    stage.scratch.write("wrong.toml", format!("{ANSWERS}[answers]\n\"destroy/label\" = \"recovery-2\"\n"));
    stage.expect(1, "nothing was destroyed", &run.replace("answers.toml", "wrong.toml"));
    stage.expect(0, "Nothing was recorded", &format!("{run} --dry-run"));
    assert_eq!(stage.events().len(), before);
    assert!(stage.keys_on_the_token().contains("recovery-1"));

    stage.expect(0, "on none of its tokens any more", &run);
    assert!(!stage.keys_on_the_token().contains("recovery-1"), "{}", stage.keys_on_the_token());
    let events = stage.events();
    let [Event::KeyDestruction(intent), Event::KeyDestroyed(destroyed)] = &events[before..] else {
        panic!("{events:?}")
    };
    assert_eq!((intent.signatures.len(), destroyed.destruction), (3, before as u64));
    stage.expect(1, "nothing is left to do", &run);
    // From then on nothing is asked of it, and the ledger still opens.
    stage.expect(
        0,
        "No token was asked",
        &format!("destroy draft {TOKENS} --key recovery-1 --proposer member-1 --reason Again --out again.json"),
    );
}

#[test]
fn a_destruction_that_was_cut_off_goes_on_and_no_other_document_ends_the_key_meanwhile() {
    let stage = Stage::held();
    stage.draft_destruction("recovery-1");
    let run = stage.sign_destruction(&["member-2", "member-3", "member-4"]);
    let before = stage.events().len();
    // The module dies when the private half goes: whether it did, nobody knows.
    stage.configure_smki(Some("C_DestroyObject 1 kill"));
    stage.expect(3, "smki-a", &run);
    let events = stage.events();
    assert!(matches!(&events[before..], [Event::KeyDestruction(_)]), "{events:?}");
    stage.configure_smki(None);
    fs::copy(stage.path("destruction.json"), stage.path("first.json")).unwrap();
    stage.expect(
        0,
        "No token was asked",
        &format!("destroy draft {TOKENS} --key recovery-1 --proposer member-1 --reason Other --out other.json"),
    );
    fs::copy(stage.path("other.json"), stage.path("destruction.json")).unwrap();
    stage.expect(1, "was begun by another document", &stage.sign_destruction(&["member-2", "member-3", "member-4"]));
    fs::copy(stage.path("first.json"), stage.path("destruction.json")).unwrap();
    let said = stage.expect(0, "on none of its tokens any more", &run);
    assert!(said.contains("is gone on with"), "{said}");
    assert!(!stage.keys_on_the_token().contains("recovery-1"));
    let events = stage.events();
    assert!(matches!(&events[before..], [Event::KeyDestruction(_), Event::KeyDestroyed(_)]), "{events:?}");
}

#[test]
fn a_renewal_gives_the_same_key_a_new_certificate() {
    let stage = Stage::held();
    let plan = "plan --kind renewal --policy policy --config smkid.toml --conductor operator-1 --witness Guest --out renewal.toml";
    stage.expect(0, "Next: review it", plan);
    let text = stage.scratch.text("renewal.toml");
    let keys: KeysFile = serde_json::from_slice(&stage.scratch.read("ceremony/keys.json")).unwrap();
    assert!(text.contains(&format!("cka_id = \"{}\"", keys.keys[1].id)), "a key that stands keeps its CKA_ID: {text}");
    let text = text.replace("out = \"ceremony\"", "out = \"renewal\"").replace("certificates/", "renewed/");
    stage.scratch.write("renewal.toml", text);
    // One share of the two that are needed opens nothing.
    let one = "--share custodian-1=ceremony/shares/recovery-1.1.share-1.pem";
    let run = format!("run renewal.toml --unattended answers.toml {PINS}");
    stage.expect(1, "1 were brought, 2 are needed", &format!("{run} {one}"));
    let run = format!("{run} {SHARES}");
    stage.expect(6, "renewed/recovery-1.pem: nothing lies there yet", &run);
    fs::create_dir_all(stage.path("renewed")).unwrap();
    for name in ["issuing-oca", "root-oca"] {
        fs::copy(stage.path(&format!("certificates/{name}.pem")), stage.path(&format!("renewed/{name}.pem"))).unwrap();
    }
    let [ours, other] = certify(&stage, "renewal/recovery.csr");
    // What is not of this key is refused, and looked for again.
    stage.scratch.write_certificate("renewed/recovery-1.pem", &other);
    stage.expect(6, "the certificate is refused", &run);
    stage.scratch.write_certificate("renewed/recovery-1.pem", &ours);
    stage.expect(0, "Next: print", &run);
    let events = stage.events();
    let imported = events.iter().filter(|event| matches!(event, Event::CertificateImported(_))).count();
    assert_eq!(imported, 2);
    assert!(matches!(events.last(), Some(Event::CeremonyRecorded(_))), "{events:?}");
    stage.expect(1, "only a first ceremony is rehearsed", &format!("{run} --dry-run"));
}

#[test]
fn custodians_take_new_shares_by_a_plan_for_which_the_former_come_once_more() {
    let stage = Stage::held();
    let plan = "plan --kind re-share --policy policy --config smkid.toml --conductor operator-1 --witness Guest --out re-share.toml";
    stage.expect(0, "Next: review it", plan);
    let text = stage.scratch.text("re-share.toml").replace("out = \"ceremony\"", "out = \"re-share\"");
    stage.scratch.write("re-share.toml", text);
    stage.expect(0, "fits its policy, its configuration and the ledger", "check re-share.toml");
    let run = format!("run re-share.toml --unattended answers.toml {PINS}");
    let one = "--share custodian-1=ceremony/shares/recovery-1.1.share-1.pem";
    stage.expect(1, "1 were brought, 2 are needed", &format!("{run} {one}"));
    let before = stage.events().len();
    stage.expect(0, "Next: print", &format!("{run} {SHARES}"));
    let events = stage.events();
    let [Event::SharesBegun(begun), Event::SharesDealt(dealt), Event::CeremonyRecorded(_)] = &events[before..] else {
        panic!("{events:?}")
    };
    assert_eq!(begun, dealt);
    assert_eq!((dealt.generation, dealt.former.is_some()), (2, true));
    // Its shares are those that open the token from then on; the former are shares of nothing.
    let new = "--share custodian-1=re-share/shares/recovery-1.2.share-1.pem --share \
               custodian-3=re-share/shares/recovery-1.2.share-3.pem";
    let deal = format!("deal {TOKENS} --key recovery-1 --out third --dry-run");
    stage.expect(0, "generation 3", &deal);
    let third = format!("deal {TOKENS} --key recovery-1 --out third {PINS}").replace("--pin-file smki-a=smki.pin ", "");
    let third = third.replace("--pin-file ledger-a=ledger.pin ", "");
    stage.expect(5, "it is no share of custodian-1 of generation 2", &format!("{third} {SHARES}"));
    stage.expect(0, "generation 3", &format!("{third} {new}"));
}
