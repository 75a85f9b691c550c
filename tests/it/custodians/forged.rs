//! What somebody writes by hand who has the disk, or the ledger key, and no Key Custodians: the next start asks for every entry whether the
//! rules and the signatures bear it out, by the functions with which an outsider verifies.

use smkid::domain::ledger::custody::{CustodianPresented, SharePresented, SharesDealt};
use smkid::domain::ledger::entry::KeyActivated;
use smkid::state::{StateError, catch_up};

use super::*;

fn open(site: &Site) -> SqliteStore {
    let limits = StagingLimits { account_len_max: 1 << 20, total_len_max: 1 << 20 };
    SqliteStore::open(&site.state(), limits).unwrap()
}

/// The last of its kind, and who recorded it.
fn last<T>(site: &Site, of: impl Fn(&Event) -> Option<T>) -> (Actor, T) {
    let ledger = site.ledger();
    ledger.entries.iter().rev().find_map(|entry| Some((entry.by.clone(), of(&entry.event)?))).unwrap()
}

fn presented(site: &Site) -> (Actor, CustodianPresented) {
    last(site, |event| if let Event::CustodianPresented(presented) = event { Some(presented.clone()) } else { None })
}

impl Custody {
    /// Writes an entry behind the last, at its time, with documents; answers why a start refuses it, if it does. The ledger is as before then.
    fn forge(&self, by: &Actor, event: Event, documents: &[&[u8]]) -> Option<String> {
        self.site.keep_state("unforged");
        let mut store = open(&self.site);
        let fold = catch_up(&mut store).unwrap();
        let at = fold.last_at().unwrap();
        let read = move || (Moment { at, clock: ClockState::Trusted }, None);
        let mut recorder = Recorder::new(Box::new(store), fold, Box::new(read)).unwrap();
        let written = record_alone(&mut recorder, |recorder| {
            for document in documents {
                recorder.queue_blob(document.to_vec());
            }
            recorder.queue(by, event)
        });
        let index = written.unwrap().into_inner();
        drop(recorder);
        let why = match catch_up(&mut open(&self.site)) {
            Ok(_) => None,
            Err(StateError::NotPermitted { index: found, reason }) if found == index => Some(reason),
            Err(other) => panic!("{other}"),
        };
        self.site.bring_back("unforged");
        fs::remove_dir_all(self.site.path("unforged")).unwrap();
        why
    }

    #[track_caller]
    fn refuses(&self, by: &Actor, event: Event, expected: &str) {
        let why = self.forge(by, event, &[]).unwrap_or_else(|| panic!("it was taken; expected {expected:?}"));
        assert!(why.contains(expected), "expected {expected:?}, found {why}");
    }

    /// The daemon dies without a word: what was presented would still count for an entry that follows at once.
    async fn presented_by(&self, custodians: &[usize]) -> Vec<u64> {
        let daemon = self.site.start().await;
        let mut entries = Vec::new();
        for n in custodians {
            entries.push(self.present(&daemon.client, *n).await.unwrap().entry);
        }
        daemon.kill().await.unwrap();
        entries
    }
}

#[tokio::test]
async fn an_activation_that_custodians_do_not_bear_out_is_refused_by_every_start() {
    let custody = Custody::dealt().await;
    let site = &custody.site;
    // What an honest one looks like.
    let daemon = site.start().await;
    for n in [1, 2] {
        custody.present(&daemon.client, n).await.unwrap();
    }
    site.activate(&daemon.client).await.unwrap();
    site.lock(&daemon.client).await.unwrap();
    assert!(daemon.stop().await.unwrap().success());
    let (by, honest) = last(site, |event| match event {
        Event::KeyActivated(activated) if activated.key == key() => Some(activated.clone()),
        _ => None,
    });
    let forged = |change: &dyn Fn(&mut KeyActivated)| {
        let mut event = honest.clone();
        change(&mut event);
        Event::KeyActivated(event)
    };
    // What opened it once opens it no more, and a statement counts once, whoever brings it again.
    custody.refuses(&by, forged(&|_| {}), "custodians: 0 of 2");
    custody.refuses(&by, Event::CustodianPresented(presented(site).1), "statement-replayed");
    let one = custody.presented_by(&[1]).await;
    custody.refuses(&by, forged(&|event| event.custodians = one.clone()), "custodians: 1 of 2");
    let renamed = CustodianPresented { id: request().to_string().parse().unwrap(), ..presented(site).1 };
    custody.refuses(&by, Event::CustodianPresented(renamed), "statement-replayed");
    let of_one_party = custody.presented_by(&[1, 3]).await;
    custody.refuses(&by, forged(&|event| event.custodians = of_one_party.clone()), "custodians-of-one-party");

    let first = custody.presented_by(&[1, 2]).await;
    let ledger = site.ledger();
    let expires = first.iter().map(|index| match &ledger.entries[usize::try_from(*index).unwrap()].event {
        Event::CustodianPresented(presented) => presented.expires,
        other => panic!("{other:?}"),
    });
    let until = expires.min();
    let with = |change: &dyn Fn(&mut KeyActivated)| {
        forged(&|event| {
            (event.custodians, event.until) = (first.clone(), until);
            change(event);
        })
    };
    let control = custody.forge(&by, with(&|_| {}), &[]);
    assert_eq!(control, None, "the control: what the daemon would have recorded");
    custody.refuses(&by, with(&|event| event.custodians = Vec::new()), "expected {");
    custody.refuses(&by, with(&|event| event.custodians.truncate(1)), "expected {");
    custody.refuses(&by, with(&|event| event.custodians[0] -= 1), "expected {");
    custody.refuses(&by, with(&|event| event.until = event.until.map(|until| until.plus_ms(1))), "expected {");
    custody.refuses(&by, with(&|event| event.until = None), "expected {");
    custody.refuses(&by, with(&|event| event.incident = Some("INC-9".parse().unwrap())), "incident-unknown");
    let for_none = with(&|event| (event.incident, event.custodians) = (None, Vec::new()));
    custody.refuses(&by, for_none, "an activation before it did");
    custody.refuses(&Actor { role: Role::Account, ..by.clone() }, with(&|_| {}), "asked for by operator");
}

#[tokio::test]
async fn a_presentation_that_its_custodian_did_not_sign_and_shares_that_no_ceremony_dealt_are_refused_by_every_start() {
    let custody = Custody::dealt().await;
    let site = &custody.site;
    let daemon = site.start().await;
    custody.present(&daemon.client, 1).await.unwrap();
    let honest = custody.statement(&daemon.client, 2, |_| {}).await;
    let signed = custody.sent(2, &honest).signature.0;
    daemon.kill().await.unwrap();
    let (by, first) = presented(site);
    let form = honest.form();
    let second = |p7s| {
        let mut second = first.clone();
        (second.id, second.statement, second.signature.p7s) = (form.id, honest.digest(), p7s);
        (second.signature.person, second.expires) = ("custodian-2".parse().unwrap(), form.expires);
        second.signature.spki = Custody::credential_of(site, 2).spki;
        second.share = form.share.clone().map(|name| SharePresented { name, generation: 1 });
        second
    };
    // By the first one's signature, which is over another statement.
    let event = Event::CustodianPresented(second(first.signature.p7s));
    let why = custody.forge(&by, event, &[honest.octets()]).unwrap();
    assert!(why.contains("custodian-unknown"), "{why}");
    // The control: by their own, until the moment that the policy gives it.
    let ours = second(Digest::of(&signed));
    let at = site.ledger().entries.last().unwrap().at;
    let gathered = |minutes: i64| {
        let until = at.plus_ms(minutes * 60_000).min(form.expires);
        Event::CustodianPresented(CustodianPresented { until, ..ours.clone() })
    };
    let minutes = i64::from(smkid::domain::policy::Policy::parse(&custody.files).unwrap().custodians().gather_minutes);
    let documents = [honest.octets(), signed.as_slice()];
    assert_eq!(custody.forge(&by, gathered(minutes), &documents), None);
    let why = custody.forge(&by, gathered(minutes - 1), &documents).unwrap();
    assert!(why.contains("expected {"), "{why}");

    let (_, dealt) = last(site, |event| if let Event::SharesDealt(dealt) = event { Some(dealt.clone()) } else { None });
    let again = SharesDealt { generation: 2, ..dealt.clone() };
    custody.refuses(&by, Event::SharesDealt(again), "asked for by ceremony");
    custody.refuses(&conductor(), Event::SharesDealt(dealt), "generation");
}
