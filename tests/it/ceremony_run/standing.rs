//! Ceremonies of a plan on a ledger that stands: beside the daemon that runs on it, and without.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use smkid::domain::ledger::entry::{Channel, Event, Role};
use smkid::exercise::policy::{PROPOSER, RECOVERY_KEY, RECOVERY_PARTY, RECOVERY_TOKEN};

use super::{ANSWERS, placed};
use crate::support::copies::COPY_TOKEN;
use crate::support::site::Site;

/// A key that no first ceremony made.
const NEW_KEY: &str = "contingency-1";

impl Site {
    fn write_policy(&self, folder: &str, files: &BTreeMap<String, Vec<u8>>) {
        for (name, octets) in files {
            let path = self.path(folder).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, octets).unwrap();
        }
        fs::write(self.path("answers.toml"), ANSWERS).unwrap();
    }

    /// Writes a plan of that kind, as it is drafted for a policy.
    fn draft_plan(&self, kind: &str, policy: &str, out: &str) -> String {
        let people = format!("--conductor {PROPOSER} --witness Guest --witness Other");
        self.smkictl(&format!(
            "ceremony plan --kind {kind} --policy {policy} --config smkid.toml {people} --out {out}"
        ))
        .ok();
        let plan = placed(&fs::read_to_string(self.path(out)).unwrap());
        fs::write(self.path(out), &plan).unwrap();
        plan
    }

    /// Where the journal of a plan goes.
    fn out_of(&self, plan: &str) -> PathBuf {
        let out = plan.lines().find_map(|line| line.strip_prefix("out = ")).unwrap();
        self.path(out.trim_matches('"'))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_is_found_by_a_plan_beside_the_running_daemon_which_records_the_ceremony() {
    let site = Site::cloned().await;
    let daemon = site.start().await;
    site.write_policy("policy-now", &site.cloned_policy());
    // What does not fit the ledger is told before anybody comes.
    site.draft_plan("copy", "policy", "old.toml");
    site.smkictl("ceremony check old.toml").is(1).says("policy_digest: the policy in force is");
    let plan = site.draft_plan("copy", "policy-now", "copy.toml");
    let id = plan.lines().find(|line| line.starts_with("cka_id = ")).unwrap();
    fs::write(site.path("other.toml"), plan.replace(id, &format!("cka_id = \"{}\"", "ab".repeat(16)))).unwrap();
    site.smkictl("ceremony check other.toml").is(1).says("cka_id: the ledger has it under");
    site.smkictl("ceremony check copy.toml").ok().says("its configuration and the ledger");

    let before = site.ledger().size();
    let run = "ceremony run copy.toml --unattended answers.toml";
    site.smkictl(run).ok().says("Next: print the minutes");
    let ledger = site.ledger();
    let made = &ledger.entries[usize::try_from(before).unwrap()..];
    let [copied, recorded] = made else { panic!("{made:?}") };
    let Event::KeyCopied(of) = &copied.event else { panic!("{copied:?}") };
    assert_eq!((of.key.as_str(), of.token.as_str()), (RECOVERY_KEY, COPY_TOKEN));
    assert!(matches!(recorded.event, Event::CeremonyRecorded(_)), "{recorded:?}");
    for entry in made {
        assert_eq!((entry.by.role, entry.by.channel), (Role::Ceremony, Channel::Socket));
    }
    site.smkictl(run).ok();
    assert_eq!(site.ledger().size(), ledger.size(), "once more does nothing");
    site.verify_export("copied");
    let output = site.out_of(&plan);
    let minutes = fs::read_to_string(output.join("minutes.txt")).unwrap();
    assert!(minutes.contains(&format!("Key {RECOVERY_KEY} is cloned to token {COPY_TOKEN}")), "{minutes}");
    // The daemon takes it in without a start.
    let changed = site.activate(&daemon.client).await.unwrap();
    assert!(changed.key.tokens.iter().all(|token| token.trouble.is_none()), "{changed:?}");
    assert_eq!(changed.key.tokens.len(), 2);
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ceremony_that_was_opened_comes_to_its_close_though_another_policy_is_adopted_meanwhile() {
    let site = Site::cloned().await;
    let daemon = site.start().await;
    site.write_policy("policy-now", &site.cloned_policy());
    let plan = site.draft_plan("copy", "policy-now", "copy.toml");
    let stop = format!("{ANSWERS}[answers]\n\"copy-{RECOVERY_KEY}-{COPY_TOKEN}/go\" = \"stop\"\n");
    fs::write(site.path("stop.toml"), stop).unwrap();
    site.smkictl("ceremony run copy.toml --unattended stop.toml").is(6);
    let mut next = site.cloned_policy();
    next.get_mut("keys.toml").unwrap().extend_from_slice(b"\n# reviewed again\n");
    site.adopt(&daemon.client, &next, Vec::new()).await;
    // One that is not opened yet is held against the ledger.
    site.smkictl("ceremony check copy.toml").is(1).says("policy_digest: the policy in force is");
    let out = plan.lines().find(|line| line.starts_with("out = ")).unwrap();
    fs::write(site.path("late.toml"), plan.replace(out, "out = \"late\"")).unwrap();
    site.smkictl("ceremony run late.toml --unattended answers.toml")
        .is(1)
        .says("policy_digest: the policy in force is");
    assert!(!site.path("late/ceremony.journal").exists());

    let before = site.ledger().size();
    site.smkictl("ceremony run copy.toml --unattended answers.toml").ok().says("Next: print the minutes");
    let made = &site.ledger().entries[usize::try_from(before).unwrap()..];
    let [copied, recorded] = made else { panic!("{made:?}") };
    assert!(matches!(copied.event, Event::KeyCopied(_)), "{copied:?}");
    assert!(matches!(recorded.event, Event::CeremonyRecorded(_)), "{recorded:?}");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_a_policy_in_force_names_is_made_by_a_plan_with_the_daemon_stopped() {
    let site = Site::founded().await;
    let daemon = site.start().await;
    let files = site.changed_policy("keys.toml", |text| {
        format!(
            "{text}\n[[key]]\nlabel = \"{NEW_KEY}\"\nuse = \"contingency\"\ntoken = \"{RECOVERY_TOKEN}\"\nmodes = []\n\
             originator = \"{RECOVERY_PARTY}\"\nactivation = \"stored\"\n"
        )
    });
    site.write_policy("policy-new", &files);
    let plan = site.draft_plan("new-key", "policy-new", "new.toml");
    assert!(!plan.contains(&format!("label = \"{RECOVERY_KEY}\"")), "only what is new: {plan}");
    site.smkictl("ceremony check new.toml").is(1).says("policy_digest: the policy in force is");
    site.adopt(&daemon.client, &files, Vec::new()).await;
    site.smkictl("ceremony check new.toml").ok();
    let run = "ceremony run new.toml --unattended answers.toml";
    site.smkictl(run).is(1).says("is in use by process");
    assert!(!site.out_of(&plan).join("keys.json").exists(), "nothing was made");
    assert!(daemon.stop().await.unwrap().success());

    let before = site.ledger().size();
    site.smkictl(run).ok().says("Next: print the minutes");
    let ledger = site.ledger();
    let made = &ledger.entries[usize::try_from(before).unwrap()..];
    let [made, recorded] = made else { panic!("{made:?}") };
    let Event::KeyMade(key) = &made.event else { panic!("{made:?}") };
    assert_eq!((key.key.label.as_str(), made.by.channel), (NEW_KEY, Channel::Console));
    assert!(plan.contains(&key.key.id.to_string()), "the plan named it before it was made");
    assert!(matches!(recorded.event, Event::CeremonyRecorded(_)), "{recorded:?}");
    // Its plan still fits, for who goes on after an interruption; another of the same label does not.
    site.smkictl("ceremony check new.toml").ok();
    let other = plan.replace(&key.key.id.to_string(), &"ab".repeat(16));
    fs::write(site.path("other.toml"), other).unwrap();
    site.smkictl("ceremony check other.toml").is(1).says("the ledger has a key of that label already");
    let daemon = site.start().await;
    site.verify_export("new-key");
    assert!(daemon.stop().await.unwrap().success());
}
