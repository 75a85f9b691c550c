//! The real daemon, killed wherever a crash can come: before each checkpoint, during the signatures, after the release, between
//! any two records; and its workers. Whatever was cut off, nothing is signed twice, no counter stands for two commands, and the
//! same request goes on to one command for every Device.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use smkid::api::client::ClientError;
use smkid::api::wire::{self, Item, ItemOutcome};
use smkid::domain::ledger::entry::SignResult;
use smkid::exercise::programs::Daemon;
use tokio::task::JoinHandle;

use crate::support::seeded::Seeded;
use crate::support::site::{
    DEVICES, Ended, Handed, Ledger, Site, Which, ask_for_all, lines, lines_and_stop, settle_all, wait_for_end, whole,
};

const SIGN: &str = "/v1/recovery/sign";
const SETTLE: &str = "/v1/recovery/settle";

/// Checkpoints that the ledger token signs before a request to sign: over the start, and over the activation.
const BEFORE_REQUEST: u64 = 2;

type Answer = JoinHandle<Result<(Vec<Item>, Ended), ClientError>>;

/// Sends a request, and reads what comes until it is cut.
fn send(daemon: &Daemon, ask: &wire::RecoverySign) -> Answer {
    let (client, ask) = (daemon.client.clone(), ask.clone());
    tokio::spawn(async move { lines(&client, SIGN, &ask).await })
}

/// What came before the cut; none if the answer had not begun.
async fn came(answer: Answer) -> Vec<Item> {
    answer.await.unwrap().map(|(items, _)| items).unwrap_or_default()
}

/// The outcomes that a start recorded for what an end had left open: unknown for what a checkpoint covers, since only that can
/// have been shown to the token; not signed for the rest. Answers how many of each.
#[track_caller]
fn check_resumed(before: &Ledger, after: &Ledger) -> (usize, usize) {
    let (mut unknown, mut not_signed) = (0, 0);
    let outcomes = after.outcomes();
    for intent in before.open() {
        match outcomes[&intent] {
            SignResult::Unknown(_) if intent < before.checkpointed => unknown += 1,
            SignResult::NotSigned(_) if intent >= before.checkpointed => not_signed += 1,
            other => panic!("intent {intent}, {} under a checkpoint: {other:?}", before.checkpointed),
        }
    }
    assert_eq!(after.open(), Vec::<u64>::new());
    (unknown, not_signed)
}

/// The daemon is started again on healthy tokens: the unknowns are settled, the request is made again, and every Device has one
/// command.
async fn go_on(
    site: &Site,
    ask: &wire::RecoverySign,
    before: &Ledger,
    handed: &mut Handed,
    export: &str,
) -> (usize, usize) {
    site.fault(Which::Ledger, None);
    site.fault(Which::Recovery, Some("C_Sign 0 stop"));
    let daemon = site.start_active().await;
    let resumed = check_resumed(before, &site.ledger());
    let already = site.ledger().signed().len() as u64;

    let settled = whole(lines(&daemon.client, SETTLE, &settle_all(site.main())).await);
    handed.take(site, &settled);
    let items = whole(lines(&daemon.client, SIGN, ask).await);
    assert_eq!(items.len(), DEVICES as usize);
    handed.take(site, &items);
    // What the settling signed is handed over here too, and gets no second signature.
    for item in &items {
        assert_eq!(item.outcome, ItemOutcome::Signed, "{item:?}");
    }
    assert_eq!(handed.len(), DEVICES as usize);

    let ledger = site.ledger();
    ledger.check();
    assert_eq!(ledger.signed().len(), DEVICES as usize);
    // The token was asked for what had no signature yet, and for nothing else.
    assert_eq!(site.calls(Which::Recovery, "C_Sign"), u64::from(DEVICES) - already);
    site.verify_export(export);
    assert!(daemon.stop().await.unwrap().success());
    resumed
}

/// Runs into a token that stops at its n-th signature, and kills the daemon there.
async fn killed_at(site: &Site, which: Which, n: u64) -> (wire::RecoverySign, Ledger, Handed) {
    let script = format!("C_Sign {n} stop");
    let (ledger, recovery) = match which {
        Which::Ledger => (script.as_str(), "C_Sign 0 stop"),
        Which::Recovery | Which::Copy => ("C_Sign 0 stop", script.as_str()),
    };
    site.fault(Which::Ledger, Some(ledger));
    site.fault(Which::Recovery, Some(recovery));
    let daemon = site.start_active().await;
    let ask = ask_for_all(site.main());
    let answer = send(&daemon, &ask);
    site.reach(which, "C_Sign", n).await;
    if matches!(which, Which::Ledger) {
        // The ledger token is asked while the entries are being made durable: killed after that, without the checkpoint.
        site.reach_uncovered().await;
    }
    daemon.kill().await.unwrap();
    let mut handed = Handed::default();
    let items = came(answer).await;
    handed.take(site, &items);
    let ledger = site.ledger();
    // Whatever came was recorded as released, under a checkpoint, before.
    let released = ledger.released();
    for item in items.iter().filter(|item| item.command.is_some()) {
        assert!(released.contains(&item.intent.unwrap()), "{item:?}");
    }
    // The token was never shown more than the intents under a checkpoint.
    let covered = ledger.intents().into_keys().filter(|intent| *intent < ledger.checkpointed).count() as u64;
    assert!(site.calls(Which::Recovery, "C_Sign") <= covered);
    (ask, ledger, handed)
}

/// How many checkpoints a whole run takes, and with that where one can be cut off.
async fn checkpoints_of_a_run() -> u64 {
    let site = Site::determined().await;
    site.fault(Which::Ledger, Some("C_Sign 0 stop"));
    let daemon = site.start_active().await;
    assert_eq!(site.calls(Which::Ledger, "C_Sign"), BEFORE_REQUEST);
    let items = whole(lines(&daemon.client, SIGN, &ask_for_all(site.main())).await);
    assert!(items.iter().all(|item| item.outcome == ItemOutcome::Signed));
    let signs = site.calls(Which::Ledger, "C_Sign");
    daemon.kill().await.unwrap();
    signs
}

#[tokio::test]
async fn killed_before_any_checkpoint_of_a_run_nothing_is_signed_twice_and_the_request_goes_on() {
    let all = checkpoints_of_a_run().await;
    // The request with the first intents, intents alone, outcomes with the next intents, outcomes alone.
    assert!(all >= BEFORE_REQUEST + 4, "{all}");
    let (mut any_unknown, mut any_not_signed) = (0, 0);
    for n in BEFORE_REQUEST + 1..=all {
        let site = Site::determined().await;
        let (ask, before, mut handed) = killed_at(&site, Which::Ledger, n).await;
        // The checkpoint that was being signed is missing, so what it would have covered was not released.
        assert!(before.checkpointed < before.size(), "checkpoint {n}");
        let (unknown, not_signed) = go_on(&site, &ask, &before, &mut handed, "export").await;
        if n == BEFORE_REQUEST + 1 {
            // The request and the first intents: the token had not been asked for any.
            assert_eq!((unknown, not_signed), (0, 256));
        }
        any_unknown += unknown;
        any_not_signed += not_signed;
    }
    assert!(any_unknown > 0 && any_not_signed > 0, "{any_unknown} unknown, {any_not_signed} not signed");
}

#[tokio::test]
async fn killed_during_the_signatures_what_was_shown_to_the_token_is_unknown_and_settled_with_the_same_octets() {
    for n in [1, 100, 256, 257, u64::from(DEVICES)] {
        let site = Site::determined().await;
        let (ask, before, mut handed) = killed_at(&site, Which::Recovery, n).await;
        let open = before.open().len();
        assert!(open > 0, "the signature {n} was not made, so its intent is open");
        let (unknown, not_signed) = go_on(&site, &ask, &before, &mut handed, "export").await;
        assert_eq!(unknown + not_signed, open);
        assert!(unknown > 0);
    }
}

#[tokio::test]
async fn killed_after_the_release_the_same_request_gets_what_was_recorded_and_no_second_signature() {
    let site = Site::determined().await;
    site.fault(Which::Recovery, Some("C_Sign 0 stop"));
    let daemon = site.start_active().await;
    let ask = ask_for_all(site.main());
    // Nobody reads: the stream is held back.
    let held = daemon.client.post_for_lines(SIGN, &ask).await.unwrap();
    let begun = Instant::now();
    while site.ledger().released().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing was released");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    daemon.kill().await.unwrap();
    drop(held);
    let before = site.ledger();
    let released: Vec<u64> = before.released().into_iter().collect();
    assert!(!released.is_empty());

    let mut handed = Handed::default();
    go_on(&site, &ask, &before, &mut handed, "export").await;
    // Once more: octet for octet the same, which `Handed` looks at, without the token.
    let daemon = site.start_active().await;
    let again = whole(lines(&daemon.client, SIGN, &ask).await);
    handed.take(&site, &again);
    assert_eq!(site.calls(Which::Recovery, "C_Sign"), u64::from(DEVICES) - before.signed().len() as u64);
    assert!(daemon.stop().await.unwrap().success());
}

/// Kills in one run.
const KILLS: usize = 10;

#[tokio::test]
async fn killed_ten_times_at_moments_of_no_choice_the_same_request_still_comes_to_its_end() {
    let site = Site::determined().await;
    // Small chunks of slow signatures: the Devices last for every round, whatever is signed before the kill and settled after.
    site.configure(|text| text + "\n[signing]\nchunk = 8\n");
    site.fault(Which::Recovery, Some("C_Sign * delay 5ms"));
    let ask = ask_for_all(site.main());
    let (mut handed, mut seeded) = (Handed::default(), Seeded::new(1));
    let mut before = site.ledger();
    let (mut cut, mut signing) = (0, 0);
    for round in 0..KILLS {
        let daemon = site.start_active().await;
        check_resumed(&before, &site.ledger());
        handed.take(&site, &whole(lines(&daemon.client, SETTLE, &settle_all(site.main())).await));
        let (settled, calls) = (site.ledger().signed().len(), site.calls(Which::Recovery, "C_Sign"));
        let answer = send(&daemon, &ask);
        // In two rounds of three it is sure to be signing; the others are cut wherever they are.
        if round % 3 != 0 {
            site.reach(Which::Recovery, "C_Sign", calls + 1).await;
        }
        tokio::time::sleep(Duration::from_millis(seeded.below(120))).await;
        daemon.kill().await.unwrap();
        match answer.await.unwrap() {
            Ok((items, ended)) => {
                cut += usize::from(ended.is_err());
                handed.take(&site, &items);
            }
            Err(_) => cut += 1,
        }
        before = site.ledger();
        before.check();
        let (released, signed) = (before.released(), before.signed());
        signing += usize::from(!before.open().is_empty() || signed.len() > settled);
        assert!(handed.len() <= released.len(), "round {round}");
        assert!(handed.len() <= signed.len(), "round {round}");
    }
    assert_eq!(cut, KILLS, "every answer was cut");
    assert!(before.signed().len() < DEVICES as usize, "there was something to sign in every round");
    assert!(signing > KILLS / 2, "{signing} of {KILLS} kills came while something was being signed");
    go_on(&site, &ask, &before, &mut handed, "export").await;
}

#[tokio::test]
async fn a_worker_that_dies_leaves_unknowns_and_the_daemon_goes_on_with_another() {
    for script in ["C_Sign 100 kill", "C_Sign 100 kill-after"] {
        let site = Site::determined().await;
        site.fault(Which::Recovery, Some(script));
        let daemon = site.start_active().await;
        let ask = ask_for_all(site.main());
        let mut handed = Handed::default();
        let items = whole(lines(&daemon.client, SIGN, &ask).await);
        handed.take(&site, &items);
        let count = |outcome| items.iter().filter(|item| item.outcome == outcome).count();
        assert!(count(ItemOutcome::Unknown) > 0, "{script}");
        assert_eq!(count(ItemOutcome::Refused), 0, "{script}");
        assert_eq!(items.len(), DEVICES as usize);
        // Its successor comes by itself and the job waits for it: nothing is lost but what the worker had in its hands.
        let unknown = count(ItemOutcome::Unknown);
        assert!(count(ItemOutcome::NotSigned) + unknown <= 2 * 256, "{script}");
        assert!(count(ItemOutcome::Signed) >= 8, "{script}: the last chunk came after it");
        let settled = whole(lines(&daemon.client, SETTLE, &settle_all(site.main())).await);
        assert_eq!(settled.len(), unknown, "{script}");
        handed.take(&site, &settled);
        handed.take(&site, &whole(lines(&daemon.client, SIGN, &ask).await));
        assert_eq!(handed.len(), DEVICES as usize, "{script}");
        let ledger = site.ledger();
        ledger.check();
        assert_eq!(ledger.signed().len(), DEVICES as usize);
        site.verify_export("export");
        assert!(daemon.stop().await.unwrap().success());
    }
}

#[tokio::test]
async fn a_further_attempt_that_comes_to_nothing_leaves_the_device_unknown() {
    let site = Site::determined().await;
    let (ask, before, mut handed) = killed_at(&site, Which::Recovery, 1).await;
    // The token answers errors: the second attempt fails for certain, the first is as unknown as before.
    site.fault(Which::Ledger, None);
    site.fault(Which::Recovery, Some("C_Sign * return CKR_FUNCTION_FAILED"));
    let daemon = site.start_active().await;
    let (unknown, _) = check_resumed(&before, &site.ledger());
    // It is given up after a few tries, with what came of each.
    let (settled, stopped) = lines_and_stop(&daemon.client, SETTLE, &settle_all(site.main())).await.unwrap();
    assert_eq!(stopped.unwrap().iter().map(|reason| &*reason.rule).collect::<Vec<_>>(), ["token"]);
    assert_eq!(settled.len(), unknown);
    assert!(settled.iter().all(|item| item.outcome != ItemOutcome::Signed), "{:?}", settled[0]);
    let of: wire::Unknowns =
        daemon.client.get(&format!("/v1/recovery/unknowns?determination={}", site.main())).await.unwrap();
    assert_eq!(of.unknowns.len(), unknown);
    daemon.kill().await.unwrap();

    // A healthy token again: neither the request nor another one gets a new counter for them.
    let tried = site.ledger();
    site.fault(Which::Recovery, None);
    let daemon = site.start_active().await;
    check_resumed(&tried, &site.ledger());
    let settled: BTreeSet<_> = settled.iter().map(|item| item.device).collect();
    for ask in [ask.clone(), ask_for_all(site.main())] {
        for item in whole(lines(&daemon.client, SIGN, &ask).await) {
            assert!(!settled.contains(&item.device) || item.command.is_none(), "{item:?}");
            handed.take(&site, &[item]);
        }
    }
    site.ledger().check();
    handed.take(&site, &whole(lines(&daemon.client, SETTLE, &settle_all(site.main())).await));
    assert_eq!(handed.len(), DEVICES as usize);
    site.ledger().check();
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_ledger_worker_that_dies_is_replaced_and_nobody_notices() {
    for n in [BEFORE_REQUEST + 2, BEFORE_REQUEST + 4] {
        let site = Site::determined().await;
        site.fault(Which::Ledger, Some(&format!("C_Sign {n} kill")));
        let daemon = site.start_active().await;
        let items = whole(lines(&daemon.client, SIGN, &ask_for_all(site.main())).await);
        assert!(items.iter().all(|item| item.outcome == ItemOutcome::Signed));
        site.verify_export("export");
        assert!(daemon.stop().await.unwrap().success());
    }
}

#[tokio::test]
async fn a_ledger_token_that_signs_wrongly_stops_the_daemon_and_the_next_start_goes_on() {
    // In the middle of the run: intents without a checkpoint over them, then outcomes.
    for n in [BEFORE_REQUEST + 2, BEFORE_REQUEST + 4] {
        let site = Site::determined().await;
        site.fault(Which::Ledger, Some(&format!("C_Sign {n} corrupt")));
        let daemon = site.start_active().await;
        let ask = ask_for_all(site.main());
        let answer = lines(&daemon.client, SIGN, &ask).await;
        let mut handed = Handed::default();
        // It is cut, or never began; it does not look whole.
        if let Ok((items, ended)) = answer {
            assert!(ended.is_err(), "checkpoint {n}: {} lines and an end, {:?}", items.len(), items.last());
            handed.take(&site, &items);
        }
        assert_eq!(wait_for_end(daemon).await, Some(74));
        let before = site.ledger();
        go_on(&site, &ask, &before, &mut handed, "export").await;
    }
}

#[tokio::test]
async fn a_ledger_token_that_signs_no_more_is_waited_for_and_the_next_start_goes_on() {
    // In the middle of the run likewise.
    for n in [BEFORE_REQUEST + 2, BEFORE_REQUEST + 4] {
        let site = Site::determined().await;
        site.fault(Which::Ledger, Some(&format!("C_Sign {n}-9999 return CKR_DEVICE_ERROR")));
        let daemon = site.start_active().await;
        let ask = ask_for_all(site.main());
        let answer = send(&daemon, &ask);
        let begun = Instant::now();
        loop {
            let status: wire::Status = daemon.client.get("/v1/status").await.unwrap();
            if status.state == wire::ServiceState::ReadOnly {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{status:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(daemon.stop().await.unwrap().success(), "it stops when asked");
        let mut handed = Handed::default();
        handed.take(&site, &came(answer).await);
        let before = site.ledger();
        go_on(&site, &ask, &before, &mut handed, "export").await;
    }
}
