//! What a session that is not the first takes for granted, and what it does not: clock, policy, calendar, and the journal it finds.

use std::fs;

use smkid::domain::ledger::entry::Event;
use smkid::domain::names::Digest;
use smkid::wall_clock::wall_clock;

use super::{ANSWERS, PINS, unfolded};
use crate::ceremony::Stage;

const JOURNAL: &str = "ceremony/ceremony.journal";
const HOUR_MS: i64 = 3_600_000;

impl Stage {
    /// `run` where these questions are answered so, and the others as expected.
    fn answering(&self, answers: &[(&str, &str)]) -> String {
        let lines = answers.iter().map(|(id, answer)| format!("\"{id}\" = \"{answer}\"\n"));
        self.scratch.write("other.toml", format!("{ANSWERS}[answers]\n{}", lines.collect::<Vec<_>>().concat()));
        format!("run plan.toml --unattended other.toml {PINS}")
    }

    /// Takes the last lines out of the journal, as whoever can write it could, until one has that in it; how many those were.
    fn cut_journal_after(&self, last: &str) -> usize {
        let text = self.scratch.text(JOURNAL);
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let count = lines.iter().rposition(|line| line.contains(last)).unwrap() + 1;
        self.scratch.write(JOURNAL, lines[..count].concat());
        lines.len() - count
    }

    /// Writes the journal anew, each line naming the one before, without those that have that in them.
    fn rewrite_journal_without(&self, left_out: &str) {
        let (mut prev, mut text) = (Digest::of(&[]), String::new());
        for line in self.scratch.text(JOURNAL).lines().filter(|line| !line.contains(left_out)) {
            let (before, after) = line.split_once("\"prev\":\"").unwrap();
            let (_, after) = after.split_once('"').unwrap();
            let line = format!("{before}\"prev\":\"{prev}\"{after}");
            prev = Digest::of(line.as_bytes());
            text = format!("{text}{line}\n");
        }
        self.scratch.write(JOURNAL, text);
    }

    fn is_recorded(&self) -> bool {
        self.path("state").exists() && self.events().iter().any(|event| matches!(event, Event::CeremonyRecorded(_)))
    }
}

#[test]
fn a_clock_with_which_no_other_agrees_opens_no_ceremony_and_adjourns_one_that_was_opened() {
    let stage = Stage::planned();
    let wrong = [("roll-call/clock", "no")];
    stage.expect(1, "nothing of it is written: the machine's clock is wrong", &stage.answering(&wrong));
    assert_eq!(stage.scratch.text(JOURNAL), "");
    // There is no record yet on which anything could be.
    stage.expect(1, "expected yes or no", &stage.answering(&[("roll-call/clock", "note the clock is ahead")]));
    assert_eq!(stage.scratch.text(JOURNAL), "");
    assert!(!stage.path("ceremony/minutes.txt").exists());
    stage.expect(0, "fits its policy", "check plan.toml");
    let set = wall_clock();

    stage.unattended(6, "0 signatures lie there", "");
    let first = stage.scratch.text(JOURNAL).lines().next().unwrap().to_owned();
    let first: serde_json::Value = serde_json::from_str(&first).unwrap();
    assert!(first["at"].as_str().unwrap() >= set.to_string().as_str(), "opened by the clock that was set: {first}");
    assert!(unfolded(&stage.minutes()).contains("does another clock agree?"), "{}", stage.minutes());
    // Once it was opened, that is on record.
    stage.expect(6, "the machine's clock is wrong", &stage.answering(&wrong));
    assert!(unfolded(&stage.minutes()).contains("Adjourned: the machine's clock is wrong"), "{}", stage.minutes());
    stage.unattended(6, "0 signatures lie there", "");
}

#[test]
fn a_ceremony_that_waits_comes_to_its_close_though_an_appointment_ends_meanwhile() {
    let stage = Stage::planned();
    let persons = stage.scratch.text("policy/persons.toml");
    let appointed = "accounts = [\"auditor-1\"]\n";
    assert!(persons.contains(appointed), "{persons}");
    let until = format!("{appointed}until = \"{}\"\n", wall_clock().plus_ms(HOUR_MS));
    stage.scratch.write("policy/persons.toml", persons.replace(appointed, &until));
    let plan = stage.plan_text_live();
    stage.scratch.write("plan.toml", plan);
    stage.expect(0, "fits its policy", "check plan.toml");
    stage.unattended(6, "0 signatures lie there", "");
    stage.sign_adoption("ceremony");
    stage.unattended(6, "nothing lies there yet", "");

    let configuration = stage.scratch.text("smkid.toml");
    stage.scratch.write("smkid.toml", format!("{configuration}\n[exercise]\nclock_offset_ms = {}\n", 2 * HOUR_MS));
    stage.expect(1, "person auditor-1: their appointment is", "check plan.toml");
    // What a plan must be whenever it is held is asked as before.
    let persons = stage.scratch.text("policy/persons.toml");
    stage.scratch.write("policy/persons.toml", format!("{persons}\n# changed\n"));
    stage.unattended(1, "policy_digest: the policy in", "");
    stage.scratch.write("policy/persons.toml", persons);
    stage.lay_certificates();
    stage.unattended(0, "Next: print", "");
    assert!(stage.is_recorded());
    // What is not opened yet is held against the calendar: nobody comes for an appointment that is over.
    let plan = stage.scratch.text("plan.toml");
    stage.scratch.write("late.toml", plan.replace("out = \"ceremony\"", "out = \"late\""));
    stage.expect(
        1,
        "person auditor-1: their appointment is",
        &format!("run late.toml --unattended answers.toml {PINS}"),
    );
}

#[test]
fn a_journal_from_which_the_last_adjournment_was_taken_out_is_compared_with_what_people_noted() {
    let stage = Stage::planned();
    stage.unattended(6, "everyone notes these words", "");
    let whole = stage.scratch.text(JOURNAL);
    let last = whole.lines().rev().nth(1).unwrap();
    assert_eq!(stage.cut_journal_after(last), 1);
    let found = Digest::of(&stage.scratch.read(JOURNAL)).to_string();
    // They noted words, and what is read aloud is not that.
    let noted = [("roll-call/noted", "yes"), ("roll-call/compared", "differs")];
    let said = stage.expect(5, "the journal, as it was when it was cut off at", &stage.answering(&noted));
    assert!(said.contains(&found) && said.contains("not those that stand here"), "{said}");
    // As it was, they are asked for it without a question before.
    stage.scratch.write(JOURNAL, &whole);
    let said = stage.unattended(6, "the journal, as it was when the ceremony rose at", "");
    assert!(!said.contains("roll-call/noted"), "{said}");
}

#[test]
fn after_an_interruption_it_is_on_record_whether_the_journal_was_compared() {
    let stage = Stage::planned();
    stage.unattended(6, "everyone notes these words", "");
    // The first session was cut off, and nobody noted anything.
    stage.cut_journal_in("key-recovery-1");
    stage.unattended(6, "[roll-call/noted] no", "");
    let minutes = unfolded(&stage.minutes());
    assert!(minutes.contains("it was not compared"), "{minutes}");
    assert!(!minutes.contains("as it was when the ceremony rose"), "nobody had risen: {minutes}");
    // Cut off once more, after people rose: both.
    stage.unattended(6, "0 signatures lie there", "");
    stage.cut_journal_after("\"roll-call\",\"asked\"");
    let said = stage.expect(6, "as it was when the ceremony rose at", &stage.answering(&[("roll-call/noted", "yes")]));
    assert!(said.contains("[roll-call/noted] yes"), "{said}");
    let minutes = unfolded(&stage.minutes());
    assert!(minutes.contains("as it was when it was cut off at"), "{minutes}");
}

#[test]
fn a_journal_that_is_found_closed_is_recorded_once_its_transcript_was_compared() {
    let stage = Stage::planned();
    stage.unattended(6, "adjourned at", "");
    stage.sign_adoption("ceremony");
    stage.unattended(6, "nothing lies there yet", "");
    stage.lay_certificates();
    fs::remove_file(stage.path("ceremony/minutes.txt")).unwrap();
    let differs = [("closing/compared", "differs")];
    stage.expect(5, "the transcript: the words that were heard", &stage.answering(&differs));
    assert!(!stage.is_recorded());
    assert!(stage.minutes().contains("the transcript was closed"), "to be read before it is compared");
    // Whoever writes the journal leaves out that people rose at the close, or ever.
    assert!(stage.cut_journal_after("{\"closed\":{}}") > 0);
    let whole = stage.scratch.text(JOURNAL);
    let noted = [("roll-call/noted", "yes"), ("roll-call/compared", "differs")];
    stage.expect(5, "the journal, as it was when the ceremony rose at", &stage.answering(&noted));
    stage.rewrite_journal_without("{\"adjourned\":");
    stage.expect(5, "the journal, as it was when it was cut off at", &stage.answering(&noted));
    stage.scratch.write(JOURNAL, whole);
    let transcript = Digest::of(&stage.scratch.read(JOURNAL)).to_string();
    fs::remove_file(stage.path("ceremony/minutes.txt")).unwrap();
    let said = stage.expect(5, "the transcript: the words that were heard", &stage.answering(&differs));
    assert!(said.contains("the ceremony was interrupted at: the close"), "{said}");
    assert!(said.contains(&transcript), "{said}");
    assert!(!stage.is_recorded());
    assert!(stage.minutes().contains(&transcript), "to be read before it is compared");
    // What people noted when it differed is compared like any other rest.
    let said = stage.unattended(0, "Next: print", "");
    assert!(said.contains("as it was when the ceremony rose at"), "{said}");
    assert!(stage.is_recorded());
    assert!(stage.scratch.text("ceremony/minutes.txt").contains(&transcript));
}
