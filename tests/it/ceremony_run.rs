//! A ceremony from one plan by the real smkictl on SoftHSM tokens: whole, adjourned, killed at each question, rehearsed.

mod faults;
mod generation;
mod resumed;
mod standing;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::Value;
use smkid::cli::ceremony::KeysFile;
use smkid::domain::certificates::pem;
use smkid::domain::ledger::entry::Event;
use smkid::domain::names::Digest;

use crate::ceremony::{MEMBERS, Stage, certify, contents, set_purpose};
use crate::support::console::Console;
use crate::support::token::{MODULE, PIN};

use faults::{block, line};

/// What is answered where nothing else is said: what the question expects.
const ANSWERS: &str = "version = 1\npurpose = \"exercise\"\notherwise = \"as-expected\"\n";
/// The arguments of a run at a terminal or with answers, in the stage's folder.
const PINS: &str = "--pin-file smki-a=smki.pin --pin-file ledger-a=ledger.pin --passphrase-file custodian-1=custodian-1.pass \
                    --passphrase-file custodian-2=custodian-2.pass --passphrase-file custodian-3=custodian-3.pass";
/// What two custodians bring, once shares were dealt.
const SHARES: &str = "--share custodian-1=ceremony/shares/recovery-1.1.share-1.pem --share \
                      custodian-3=ceremony/shares/recovery-1.1.share-3.pem";

/// Minutes without the ends of their lines.
fn unfolded(minutes: &str) -> String {
    minutes.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// With a room in it.
pub fn placed(plan: &str) -> String {
    plan.replace("to be written: room, building, town", "Room 4, Hut 6, Newport")
}

impl Stage {
    /// With a plan that was reviewed.
    fn planned() -> Self {
        Self::new().with_plan()
    }

    fn with_plan(self) -> Self {
        let stage = self;
        stage.expect(
            0,
            "Next: review it",
            "plan --policy policy --config smkid.toml --conductor operator-1 --witness Guest --out plan.toml",
        );
        stage.expect(1, "place: expected the room", "check plan.toml");
        stage.edit_plan(|plan| placed(&plan));
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
    let closed = journal.lines().position(|line| line.contains("{\"closed\":{}}")).unwrap();
    let transcript: String = journal.split_inclusive('\n').take(closed + 1).collect();
    assert_eq!(recorded.transcript, Digest::of(transcript.as_bytes()));
    // Those who were there compared it before the ledger had it.
    let [compared, last] = journal.lines().skip(closed + 1).collect::<Vec<_>>()[..] else { panic!("{journal}") };
    assert!(compared.contains("\"what\":\"the transcript\"") && compared.contains(&recorded.transcript.to_string()));
    assert!(last.contains(&format!("{{\"recorded\":{{\"entry\":{}}}}}", events.len() - 1)), "{last}");
    assert_eq!(recorded.people.len(), 6, "{recorded:?}");

    let minutes = stage.minutes();
    for said in [
        "Room 4, Hut 6, Newport",
        "Present: Operator One (operator-1), conductor; Guest, witness;",
        "Guest compared it and found the same:",
        "The SHA-256 of the journal, as it was when the ceremony rose at",
        "Adjourned: 0 signatures lie there; everyone on the roster signs the first policy. No file yet of: member-1, member-2",
        "Session 3",
        "Key recovery-1 is made",
    ] {
        assert!(unfolded(&minutes).contains(said), "expected {said:?} in\n{minutes}");
    }
    for key in &keys.keys {
        assert!(minutes.contains(&key.spki_sha256.to_string()) && minutes.contains(&key.id.to_string()), "{minutes}");
    }
    assert!(!minutes.contains("was cut off"), "nothing was: {minutes}");
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
    assert!(unfolded(&minutes).contains("generation: 1, 2 of 3"), "{minutes}");
    // Once more does nothing.
    let before = stage.events().len();
    stage.unattended(0, "ceremony", "");
    assert_eq!(stage.events().len(), before);
}

#[test]
fn a_ceremony_that_is_killed_at_any_question_goes_on_at_that_step() {
    let stage = Stage::planned();
    let word = |console: &mut Console| {
        console.expect("To be read aloud:");
        let words = console.expect("Who compared it");
        console.say("Guest");
        console.expect("The last word of line ");
        let line = console.expect("?");
        let read = words.lines().find(|text| text.trim().starts_with(&format!("{line} "))).unwrap();
        console.say(read.split_whitespace().last().unwrap());
    };
    // Who is there; what interrupted it, if it was; and, once people have risen, what they noted.
    let roll_call = |console: &mut Console, interrupted: bool| {
        for _ in 0..stage.scratch.text("plan.toml").matches("\n[[person]]").count() {
            console.answer("? [present, absent", "present");
        }
        console.answer("Does another clock say the same", "yes");
        if interrupted {
            console.answer("What interrupted the session before?", "a fire alarm");
        }
        if stage.scratch.text("ceremony/ceremony.journal").contains("{\"adjourned\":") {
            word(console);
        }
        if interrupted {
            console.answer("Did anybody note", "no");
        }
    };
    // In the roll-call.
    let mut console = stage.console();
    console.answer("Does another clock say the same", "yes");
    console.expect("? [present, absent");
    console.kill();
    let interrupt = |number: usize, words: usize, found: bool| {
        // Before it is done.
        let mut console = stage.console();
        roll_call(&mut console, number == 1);
        console.expect(&format!("Step {number} of"));
        console.expect("[yes, stop");
        console.kill();
        // Once it is done, and before that is written down.
        let mut console = stage.console();
        console.expect("the ceremony was interrupted at");
        roll_call(&mut console, true);
        console.answer("Go on with it?", "yes");
        console.answer("Who compared it", "Guest");
        console.expect("The last word of line ");
        console.kill();
        // To its end, then adjourned at the next.
        let mut console = stage.console();
        roll_call(&mut console, true);
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
    assert!(said.contains("Found: the certificate, recorded at an attempt before this one"), "{said}");
    let minutes = stage.minutes();
    for said in [
        "was cut off at \u{201c}Key recovery-1 is made\u{201d}",
        "a fire alarm",
        "The lights went out twice",
        "The step was broken off:",
    ] {
        assert!(unfolded(&minutes).contains(said), "expected {said:?} in\n{minutes}");
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
    stage.cut_journal_in("key-recovery-1");
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
    stage.cut_journal_in("key-recovery-1");
    let said = stage.unattended(5, "is not the whole pair with the CKA_ID", "");
    let planned = found.keys.iter().find(|key| key.label.as_str() == "recovery-1").unwrap().id;
    assert!(said.contains(&planned.to_string()) && said.contains("smki-a"), "{said}");
}

impl Stage {
    /// The journal as it would be if it had been cut off when it had been agreed to do that step.
    fn cut_journal_in(&self, step: &str) {
        let text = self.scratch.text("ceremony/ceremony.journal");
        let agreed = format!("{{\"answered\":{{\"step\":\"{step}\"");
        let count = text.lines().position(|line| line.contains(&agreed)).unwrap() + 1;
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

    // The same plan in earnest: the signatures of the rehearsal are good for it.
    stage.unattended(6, "nothing lies there yet", "");
    stage.lay_certificates();
    stage.unattended(0, "Next: print", "");
    let of = |journal: &str| {
        let course = stage.course(journal).into_iter();
        // What waits: for the signatures once, which the rehearsal hands on; and for the SMKI, which certifies no scratch key.
        course
            .filter(|(kind, step)| {
                !matches!(kind.as_str(), "adjourned" | "session" | "present" | "recorded")
                    && !step.as_str().is_some_and(|step| {
                        step.starts_with("certificate") || ["signatures", "roll-call"].contains(&step)
                    })
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(of("ceremony/rehearsal.ceremony.journal"), of("ceremony/ceremony.journal"));
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
fn a_key_that_stands_before_the_ceremony_began_to_make_it_is_not_taken() {
    let stage = Stage::planned();
    // Whoever read the plan knows label and CKA_ID.
    let plan = stage.scratch.text("plan.toml");
    let id = line(block(&plan, "[[key]]", "\"recovery-1\""), "cka_id").split('"').nth(1).unwrap().to_owned();
    Stage::pkcs11_tool(
        &stage.smki,
        &format!("--keypairgen --key-type EC:prime256v1 --label recovery-1 --id {id} --sensitive"),
    );
    let said = stage.unattended(5, "", "");
    assert!(said.contains("recovery-1") && said.contains(&id), "{said}");
    assert!(!stage.scratch.text("ceremony/keys.json").contains("recovery-1"), "nothing is made of it");
}

#[test]
fn a_pair_as_fit_as_ours_is_taken_only_where_its_making_was_begun() {
    let stage = Stage::planned();
    stage.unattended(6, "adjourned at", "");
    // The same tokens, and a ceremony that never began to make the keys that are on them.
    fs::remove_dir_all(stage.path("ceremony")).unwrap();
    let said = stage.unattended(5, "nobody began to make it at this ceremony", "");
    assert!(said.contains("token ledger-a has a key ledger-1"), "{said}");
    assert!(!stage.path("ceremony/keys.json").exists(), "{said}");
    // Nor is what lies in keys.json.
    let other = Stage::planned();
    other.unattended(6, "adjourned at", "");
    fs::remove_file(other.path("ceremony/ceremony.journal")).unwrap();
    other.unattended(5, "nobody began to make it at this ceremony", "");
}

#[test]
fn a_request_that_the_ledger_does_not_know_is_not_sent_to_the_smki() {
    let stage = Stage::planned();
    stage.unattended(6, "adjourned at", "");
    stage.sign_adoption("ceremony");
    // Somebody lays a request of a key of their own where that of the ceremony goes, with the same subject.
    stage.scratch.openssl(
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout thief.key -out ceremony/recovery.csr -subj /OU=01",
    );
    let said = stage.unattended(5, "this is no certification request that key recovery-1 signed", "");
    assert!(!said.contains("Found: "), "{said}");
    let signed = || stage.events().iter().filter(|event| matches!(event, Event::CertificationIntent(_))).count();
    assert_eq!(signed(), 0);
    fs::remove_file(stage.path("ceremony/recovery.csr")).unwrap();
    stage.unattended(6, "nothing lies there yet", "");
    assert_eq!(signed(), 1);
    // Its own is taken once more, however often the step is done.
    stage.cut_journal_in("request-recovery-1");
    let said = stage.unattended(1, "signed at an attempt before this one", "");
    assert_eq!(signed(), 1);
    // And a journal that lost what followed does not know the shares that the ledger has.
    assert!(said.contains("it has not dealt any yet"), "{said}");
}

#[test]
fn what_people_noted_when_they_rose_is_what_is_compared_when_they_go_on() {
    let stage = Stage::planned();
    let said = stage.unattended(6, "everyone notes these words", "");
    let noted = Digest::of(&stage.scratch.read("ceremony/ceremony.journal"));
    assert!(said.contains(&noted.to_string()), "{said}");
    // The journal is written anew, each line naming the one before, by who can.
    let said = stage.unattended(6, "Compare the journal with what you noted", "");
    assert!(said.contains("the journal, as it was when the ceremony rose at"), "{said}");
    assert!(said.contains(&noted.to_string()), "{said}");
    // What was heard is not what stands there: at the question who compared it, too.
    stage.scratch.write("differs.toml", format!("{ANSWERS}[answers]\n\"roll-call/compared\" = \"differs\"\n"));
    stage.expect(5, "not those that stand here", &format!("run plan.toml --unattended differs.toml {PINS}"));
    // Whoever bears no witness compares nothing alone.
    let alone = "\"roll-call/compared\" = \"custodian-1\"\n";
    stage.scratch.write("alone.toml", format!("{ANSWERS}[answers]\n{alone}"));
    stage.expect(1, "at least one who bears witness", &format!("run plan.toml --unattended alone.toml {PINS}"));
    // Names will do, in any case.
    let both = "\"roll-call/compared\" = \"custodian one, AUDITOR-1\"\n";
    stage.scratch.write("both.toml", format!("{ANSWERS}[answers]\n{both}"));
    stage.expect(6, "adjourned at", &format!("run plan.toml --unattended both.toml {PINS}"));
    let minutes = unfolded(&stage.minutes());
    assert!(minutes.contains("Custodian One and Auditor One compared it and found the same"), "{minutes}");
}

#[test]
fn the_journal_of_a_rehearsal_is_not_gone_on_with_in_earnest() {
    let stage = Stage::planned();
    stage.unattended(6, "REHEARSAL", "--dry-run");
    fs::create_dir_all(stage.path("ceremony")).unwrap();
    fs::copy(stage.path("ceremony.rehearsal/out/ceremony.journal"), stage.path("ceremony/ceremony.journal")).unwrap();
    stage.unattended(1, "the journal here is of a rehearsal, and this is in earnest", "");
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
}

impl Stage {
    /// The plan for the same policy, once it is live.
    fn plan_text_live(&self) -> String {
        self.expect(
            0,
            "Next: review it",
            "plan --policy policy --config smkid.toml --conductor operator-1 --witness Guest --out drafted.toml",
        );
        placed(&self.scratch.text("drafted.toml"))
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
    let draft = |key: &str, proposer: &str| {
        format!("destroy draft {TOKENS} --key {key} --proposer {proposer} --reason Superseded --out never.json")
    };
    stage.expect(1, "without it its destruction could not be recorded", &draft("ledger-1", "member-1"));
    stage.expect(4, "nobody-1", &draft("recovery-1", "nobody-1"));
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
    // From then on nothing is asked of it, and nothing is signed about it.
    stage.expect(
        1,
        "it was destroyed, by entry",
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
    let other = format!("destroy draft {TOKENS} --key recovery-1 --proposer member-1 --reason Other --out other.json");
    stage.expect(1, "was begun by another document", &other);
    // Nor is one taken that was drafted before.
    let first = stage.scratch.text("destruction.json");
    stage.scratch.write("destruction.json", first.replace("Superseded", "Other"));
    stage.expect(1, "was begun by another document", &stage.sign_destruction(&["member-2", "member-3", "member-4"]));
    stage.scratch.write("destruction.json", first);
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
    // A plan of a later kind has a folder of its own, and says where a new certificate is laid.
    assert!(text.contains("out = \"ceremony-renewal-20") && text.contains("certificates/recovery-1-20"), "{text}");
    let out = text.lines().find(|line| line.starts_with("out = ")).unwrap().to_owned();
    stage.scratch.write("used.toml", placed(&text.replace(&out, "out = \"ceremony\"")));
    let said = stage.expect(1, "was begun here by another plan", "check used.toml");
    assert!(said.contains("name another `out` in this plan") && !said.contains("genesis"), "{said}");
    let certificate = text.lines().find(|line| line.starts_with("certificate = ")).unwrap().to_owned();
    let text = text.replace(&certificate, "certificate = \"certificates/recovery-1.pem\"");
    let text = text.replace(&out, "out = \"renewal\"").replace("certificates/", "renewed/");
    stage.scratch.write("renewal.toml", placed(&text));
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
    // The certificate that the key has already is not what is waited for.
    fs::copy(stage.path("certificates/recovery-1.pem"), stage.path("renewed/recovery-1.pem")).unwrap();
    stage.expect(6, "is the certificate that the key has already", &run);
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
    let text = stage.scratch.text("re-share.toml");
    let out = text.lines().find(|line| line.starts_with("out = ")).unwrap();
    stage.scratch.write("re-share.toml", placed(&text.replace(out, "out = \"re-share\"")));
    stage.expect(0, "fits its policy, its configuration and the ledger", "check re-share.toml");
    // A mark beside the generation that is dealt already, whoever left it there, does not stand for a new deal.
    stage.scratch.write("state/custody/recovery-1.1.changing", "{}");
    let run = format!("run re-share.toml --unattended answers.toml {PINS}");
    let one = "--share custodian-1=ceremony/shares/recovery-1.1.share-1.pem";
    stage.expect(1, "1 were brought, 2 are needed", &format!("{run} {one}"));
    let before = stage.events().len();
    stage.expect(0, "Next: print", &format!("{run} {SHARES}"));
    let minutes = stage.scratch.text("re-share/minutes.txt");
    for said in ["custodian-1, custodian-3", "under a passphrase", "recovery-1.2.json"] {
        assert!(minutes.contains(said), "expected {said:?} in\n{minutes}");
    }
    let copy = stage.scratch.read("re-share/shares/recovery-1.2.json");
    let events = stage.events();
    let [Event::SharesBegun(begun), Event::SharesDealt(dealt), Event::CeremonyRecorded(_)] = &events[before..] else {
        panic!("{events:?}")
    };
    assert_eq!(begun, dealt);
    assert_eq!(Digest::of(&copy), dealt.sealed, "a copy to take away lies beside the shares");
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

#[test]
fn a_share_is_sealed_to_no_other_certificate_than_the_plan_means() {
    let stage = Stage::planned();
    for name in ["card", "other"] {
        stage.scratch.openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.pem -days 30 -subj /CN={name}"
        ));
    }
    let spki = |name: &str| pem::certificate(&stage.scratch.text(&format!("{name}.pem"))).unwrap().spki_sha256();
    let plan = stage.scratch.text("plan.toml");
    let holder = "person = \"custodian-3\" }";
    assert!(plan.contains(holder), "{plan}");
    let with = |more: &str| {
        stage.scratch.write("sealed.toml", plan.replace(holder, &format!("person = \"custodian-3\", {more} }}")));
    };
    let certificate = "certificate = \"card.pem\"";
    with(certificate);
    let said = stage.expect(1, "expected `spki`, the SHA-256 of its SubjectPublicKeyInfo", "check sealed.toml");
    assert!(said.contains(&spki("card").to_string()), "{said}");
    with(&format!("spki = \"{}\"", spki("card")));
    stage.expect(1, "`spki` stands there without `certificate`", "check sealed.toml");
    with(&format!("certificate = \"nowhere.pem\", spki = \"{}\"", spki("card")));
    stage.expect(1, "nowhere.pem: no such certificate of custodian-3", "check sealed.toml");
    with(&format!("{certificate}, spki = \"{}\"", spki("card")));
    stage.expect(0, "fits its policy", "check sealed.toml");
    // Somebody lays another in its place after the review.
    fs::copy(stage.path("other.pem"), stage.path("card.pem")).unwrap();
    stage.expect(1, "whoever has that key would have the share", "check sealed.toml");
}
