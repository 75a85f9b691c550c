//! What opens nothing, told and recorded with the reason: who ceased, what was gathered for something else, and what was gathered too long ago.

use std::time::{Duration, Instant};

use smkid::domain::ledger::entry::KeyLocked;
use smkid::exercise::people::APPROVALS;

use super::*;
use crate::support::site::device_list;

/// What is other in a statement than it should be.
type Change = fn(&mut Statement);

/// How long something that comes by itself is waited for.
const COME_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

impl Custody {
    /// The policy in force, but that this custodian has ceased.
    async fn cease(&mut self, client: &Client, n: usize) {
        let ceased = format!("custodian-{n}");
        let until = Self::now().plus_ms(-1_000).to_string();
        change_persons(&mut self.files, |person| {
            if person["id"].as_str() == Some(&ceased) {
                person.insert("ceased".to_owned(), "letter of the exercise".into());
                person.insert("until".to_owned(), until.clone().into());
            }
        });
        self.policy = self.site.adopt(client, &self.files, vec![self.site.main()]).await;
    }

    /// The policy in force, but that so many custodians are needed.
    async fn need(&mut self, client: &Client, threshold: u32) {
        let text = String::from_utf8(self.files["custodians.toml"].clone()).unwrap();
        let lines = text.lines().map(|line| match line.strip_prefix("threshold = ") {
            Some(_) => format!("threshold = {threshold}\n"),
            None => format!("{line}\n"),
        });
        self.files.insert("custodians.toml".to_owned(), lines.collect::<String>().into_bytes());
        self.policy = self.site.adopt(client, &self.files, vec![self.site.main()]).await;
    }

    /// Waits until the key is locked by itself, for a reason that says this.
    pub(super) async fn locked_by_itself(&self, says: &str) {
        let begun = Instant::now();
        loop {
            let ledger = self.site.ledger();
            let mut reasons = ledger.entries.iter().rev().filter_map(|entry| match &entry.event {
                Event::KeyLocked(KeyLocked { reason, .. }) => Some(reason),
                _ => None,
            });
            if reasons.next().is_some_and(|reason| reason.contains(says)) {
                return;
            }
            assert!(begun.elapsed() < COME_MAX, "the key was not locked because {says}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until so many count.
    async fn counts(&self, client: &Client, have: u32) {
        let begun = Instant::now();
        while self.standing(client).await.have != have {
            assert!(begun.elapsed() < COME_MAX, "{:?}", self.standing(client).await);
            tokio::time::sleep(POLL).await;
        }
    }

    pub(super) async fn standing(&self, client: &Client) -> wire::Custody {
        let status: wire::Status = client.get("/v1/status").await.unwrap();
        status.keys.into_iter().find(|found| found.key == key()).unwrap().custody.unwrap()
    }
}

#[tokio::test]
async fn who_ceased_presents_nothing_and_what_they_presented_before_counts_no_more() {
    let mut custody = Custody::dealt().await;
    let daemon = custody.site.start().await;
    let client = &daemon.client;
    custody.present(client, 1).await.unwrap();
    assert!(custody.present(client, 2).await.unwrap().standing.enough);
    custody.cease(client, 2).await;
    let standing = custody.standing(client).await;
    assert_eq!((standing.have, standing.enough), (1, false));
    assert!(standing.not_counted[0].contains("custodian-2 is no key-custodian in force"), "{standing:?}");
    assert!(standing.can_present.iter().all(|one| one.person.as_str() != "custodian-2"), "{standing:?}");
    assert_eq!(custody.activation(client).await, ["custodians"]);
    // Who is left is of the first one's Party.
    custody.present(client, 3).await.unwrap();
    assert_eq!(custody.activation(client).await, ["custodians-of-one-party"]);
    assert!(daemon.stop().await.unwrap().success());
    let daemon = custody.site.start().await;
    assert_eq!(custody.refused(&daemon.client, 2, |_| {}).await, ["custodian-ceased"]);
    custody.site.verify_export("ceased");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_key_that_is_open_is_locked_once_those_who_opened_it_are_too_few_by_a_new_policy() {
    let mut custody = Custody::dealt().await;
    let daemon = custody.site.start().await;
    let client = &daemon.client;
    let before = daemon.workers();
    let main = custody.site.main();
    // Three are needed instead of two.
    custody.present(client, 1).await.unwrap();
    custody.present(client, 2).await.unwrap();
    custody.site.activate(client).await.unwrap();
    assert_eq!(whole(lines(client, "/v1/recovery/sign", &ask_for(main, 0..2)).await).len(), 2);
    custody.need(client, 3).await;
    custody.locked_by_itself("2 of 3 Key Custodians count").await;
    custody.present(client, 1).await.unwrap();
    assert!(!custody.present(client, 2).await.unwrap().standing.enough);
    assert_eq!(custody.activation(client).await, ["custodians"]);
    assert!(custody.present(client, 3).await.unwrap().standing.enough);
    custody.site.activate(client).await.unwrap();
    assert_eq!(whole(lines(client, "/v1/recovery/sign", &ask_for(main, 2..4)).await).len(), 2);
    // And one of them ceases.
    custody.need(client, 2).await;
    custody.site.lock(client).await.unwrap();
    custody.present(client, 1).await.unwrap();
    custody.present(client, 2).await.unwrap();
    custody.site.activate(client).await.unwrap();
    custody.cease(client, 2).await;
    custody.locked_by_itself("custodian-2 is no key-custodian in force").await;
    let refused = problem(lines(client, "/v1/recovery/sign", &ask_for(main, 4..6)).await);
    assert_eq!(&*refused.reasons[0].rule, "key-locked");
    assert_eq!(daemon.workers(), before, "neither vault nor worker is left");
    custody.site.ledger().check();
    custody.site.verify_export("too-few");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn what_was_presented_for_one_incident_opens_nothing_in_another() {
    let custody = Custody::dealt().await;
    let site = &custody.site;
    let daemon = site.start().await;
    let client = &daemon.client;
    let second = site.determine(client, 2, &device_list(600..602), |form| form.policy = custody.policy).await;
    let (incident, determination, document) = (second.form().incident.clone(), second.form().id, second.digest());
    // Half of one and half of the other is neither.
    let mixed = custody.refused(client, 1, |form| form.incident = incident.clone()).await;
    assert_eq!(mixed, ["statement-determination"]);
    let for_second = |form: &mut Statement| {
        (form.incident, form.determination, form.document) = (incident.clone(), determination, document);
    };
    let statement = custody.statement(client, 1, for_second).await;
    custody.present_for(client, (1, &custody.shares[0]), &statement).await.unwrap();
    let standing = custody.present(client, 2).await.unwrap().standing;
    assert_eq!((standing.have, standing.enough), (1, false), "{standing:?}");
    assert!(standing.not_counted[0].contains("presented for incident INC-2"), "{standing:?}");
    assert_eq!(custody.activation(client).await, ["custodians"]);
    let other = problem(site.activate_for(client, "INC-2").await);
    assert_eq!(custody.rules(&other), ["custodians"]);
    // Whoever has presented for the other comes for this one with a statement of its own.
    assert!(custody.present(client, 1).await.unwrap().standing.enough);
    site.activate(client).await.unwrap();
    assert_eq!(
        custody.refused(client, 3, for_second).await[0],
        "key-of-another-incident",
        "as long as it is open for this one"
    );
    site.verify_export("incidents");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn whose_time_is_over_presents_anew_and_once_all_are_everybody_does() {
    let custody = Custody::dealt().await;
    let site = &custody.site;
    let daemon = site.start().await;
    let client = &daemon.client;
    let before = daemon.workers();
    let soon = Custody::now().plus_ms(4_000);
    let statement = custody.statement(client, 1, |form| form.expires = soon).await;
    let first = custody.present_for(client, (1, &custody.shares[0]), &statement).await.unwrap();
    assert_eq!(first.standing.presented[0].until, Some(soon), "no longer than the statement holds");
    assert_ne!(daemon.workers(), before, "its share is in a vault");
    let second = custody.present(client, 2).await.unwrap();
    let at = site.ledger().entries[usize::try_from(second.entry).unwrap()].at;
    let until = second.standing.presented.iter().find(|one| one.entry == Some(second.entry)).unwrap().until.unwrap();
    assert!((at.plus_ms(-1_000)..=at.plus_ms(HOUR_MS)).contains(&until), "by the policy, {until}");

    // Of the first alone: the second's share stays.
    custody.counts(client, 1).await;
    assert!(Custody::now() >= soon);
    assert_eq!(custody.activation(client).await, ["custodians"]);
    let replayed = custody.present_for(client, (1, &custody.shares[0]), &statement).await;
    assert!(custody.rules(&problem(replayed)).contains(&"statement-replayed".to_owned()));
    assert!(custody.present(client, 1).await.unwrap().standing.enough, "with the share of the second");
    site.activate(client).await.unwrap();
    site.lock(client).await.unwrap();

    let soon = Custody::now().plus_ms(4_000);
    for n in [1, 2] {
        let statement = custody.statement(client, n, |form| form.expires = soon).await;
        custody.present_for(client, (n, &custody.shares[n - 1]), &statement).await.unwrap();
    }
    custody.locked_by_itself("the time to gather Key Custodians is over").await;
    assert!(site.ledger().entries.last().unwrap().at >= soon);
    assert_eq!(daemon.workers(), before, "the vault has ended, and the shares with it");
    assert_eq!(custody.activation(client).await, ["custodians"]);
    site.verify_export("gathered");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_key_stays_open_as_long_as_enough_statements_hold_and_no_surplus_one_cuts_that_short() {
    let custody = Custody::dealt().await;
    let site = &custody.site;
    let daemon = site.start().await;
    let client = &daemon.client;
    let hold = [HOUR_MS, 2 * HOUR_MS, HOUR_MS / 2].map(|ms| Custody::now().plus_ms(ms));
    for (n, expires) in (1..).zip(hold) {
        let statement = custody.statement(client, n, |form| form.expires = expires).await;
        custody.present_for(client, (n, &custody.shares[n - 1]), &statement).await.unwrap();
    }
    // The first and the second are of two Parties: the third is more than is needed.
    let opened = site.activate(client).await.unwrap();
    assert_eq!(opened.key.until, Some(hold[0]));
    site.verify_export("surplus");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn who_begins_again_and_again_keeps_one_place_and_takes_nobody_elses() {
    let custody = Custody::dealt().await;
    let site = &custody.site;
    let daemon = site.start().await;
    let client = &daemon.client;
    let of_second = custody.statement(client, 2, |_| {}).await;
    let second = custody.begin(client, 2, &of_second).await.unwrap();
    let of_first = custody.statement(client, 1, |_| {}).await;
    let first = custody.begin(client, 1, &of_first).await.unwrap();
    let mut last = custody.begin(client, 1, &of_first).await.unwrap();
    for _ in 0..70 {
        last = custody.begin(client, 1, &of_first).await.unwrap();
    }
    let given_up = problem(custody.bring_share(client, &custody.shares[0], &of_first, &first).await);
    assert!(given_up.message.contains("it is over"), "{given_up:?}");
    custody.bring_share(client, &custody.shares[1], &of_second, &second).await.unwrap();
    assert!(custody.bring_share(client, &custody.shares[0], &of_first, &last).await.unwrap().standing.enough);
    site.activate(client).await.unwrap();
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_person_counts_once_however_many_shares_they_hold() {
    let custody = Custody::dealt_with(Terms { holders: &[1, 2, 3, 1], ..Terms::default() }).await;
    let site = &custody.site;
    let daemon = site.start().await;
    let client = &daemon.client;
    let with_fourth = |form: &mut Statement| form.share = Some("share-4".parse().unwrap());
    let statement = custody.statement(client, 1, with_fourth).await;
    let first = custody.present_for(client, (1, &custody.shares[3]), &statement).await.unwrap().standing;
    assert_eq!((first.have, first.parties), (1, 1));
    assert_eq!(custody.refused(client, 1, |_| {}).await, ["custodian-twice"], "with the other share");
    assert_eq!(custody.activation(client).await, ["custodians"]);
    custody.present(client, 2).await.unwrap();
    site.activate(client).await.unwrap();
    site.verify_export("two-shares");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn as_many_are_called_as_the_shares_were_dealt_for_also_where_a_later_policy_needs_fewer() {
    let mut custody = Custody::dealt_with(Terms { threshold: 3, ..Terms::default() }).await;
    let daemon = custody.site.start().await;
    let client = &daemon.client;
    custody.need(client, 2).await;
    assert_eq!(custody.standing(client).await.need, 3, "before anybody presents");
    custody.present(client, 1).await.unwrap();
    let standing = custody.present(client, 2).await.unwrap().standing;
    assert_eq!((standing.have, standing.need, standing.enough), (2, 3, false));
    assert_eq!(custody.activation(client).await, ["custodians"]);
    assert!(custody.present(client, 3).await.unwrap().standing.enough);
    custody.site.activate(client).await.unwrap();
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_share_that_was_sealed_for_another_statement_is_refused_and_recorded() {
    let custody = Custody::dealt().await;
    let daemon = custody.site.start().await;
    let client = &daemon.client;
    let (statement, other) = (custody.statement(client, 1, |_| {}).await, custody.statement(client, 1, |_| {}).await);
    let begun = custody.begin(client, 1, &statement).await.unwrap();
    let sealed_for_other = custody.bring_share(client, &custody.shares[0], &other, &begun).await;
    assert_eq!(custody.rules(&problem(sealed_for_other)), ["share-not-sealed-to-us"]);
    assert_eq!(custody.standing(client).await.have, 0);
    custody.present_for(client, (1, &custody.shares[0]), &statement).await.unwrap();
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn what_was_gathered_for_a_determination_is_gone_once_that_is_withdrawn() {
    let custody = Custody::dealt().await;
    let site = &custody.site;
    let daemon = site.start().await;
    let client = &daemon.client;
    let before = daemon.workers();
    custody.present(client, 1).await.unwrap();
    custody.present(client, 2).await.unwrap();
    let mut withdrawal = site.drafter().withdrawal(&site.base.main, head(client).await).unwrap().form().clone();
    withdrawal.policy = custody.policy;
    site.deliver(client, &Written::write(&withdrawal).unwrap(), APPROVALS, None).await.unwrap();
    let ledger = site.ledger();
    let Event::KeyLocked(locked) = &ledger.entries.last().unwrap().event else { panic!("{:?}", ledger.entries.last()) };
    assert!(locked.reason.contains("was withdrawn"), "{locked:?}");
    assert_eq!(daemon.workers(), before, "the vault has ended at once");
    let refused = custody.activation(client).await;
    assert!(refused.contains(&"withdrawn".to_owned()) && refused.contains(&"custodians".to_owned()), "{refused:?}");
    assert!(custody.refused(client, 3, |_| {}).await.contains(&"withdrawn".to_owned()));
    site.verify_export("withdrawn");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_statement_of_another_ledger_head_or_key_is_refused_and_one_of_an_older_head_is_not() {
    let custody = Custody::dealt().await;
    let daemon = custody.site.start().await;
    let client = &daemon.client;
    let older = custody.statement(client, 1, |_| {}).await;
    let cases: [(&str, Change); 5] = [
        ("statement-ledger", |form| form.purpose = LedgerPurpose::Live),
        ("statement-ledger", |form| form.ledger.origin = "smki.example/other".parse().unwrap()),
        ("ledger-head", |form| form.ledger.root = Digest([7; 32])),
        ("ledger-head", |form| form.ledger.size += 1_000),
        ("statement-key", |form| form.key.spki_sha256 = Digest([7; 32])),
    ];
    for (rule, change) in cases {
        let told = custody.refused(client, 1, change).await;
        assert!(told.contains(&rule.to_owned()), "expected {rule}, found {told:?}");
    }
    // The refusals are entries: the head of before is one of ours all the same.
    custody.present_for(client, (1, &custody.shares[0]), &older).await.unwrap();
    assert!(daemon.stop().await.unwrap().success());
}
