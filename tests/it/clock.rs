//! An exercise that sets its clock: ceremony, daemon and windows lie at another time, and every entry says so.

use std::process::Command;

use smkid::api::wire;
use smkid::domain::ledger::entry::{ClockState, Event};
use smkid::exercise::procedure::Order;
use smkid::wall_clock::wall_clock;

use crate::support::site::{Handed, Site, ask_for, lines, problem, whole};

/// A moment within the period that the direction of 18 July 2017 opened.
const WITHIN: &str = "2017-08-01T09:00:00Z";

#[tokio::test]
async fn a_daemon_set_into_2017_signs_in_a_window_of_then_and_says_so_in_every_entry() {
    let site = Site::determined_of(Site::set_for_exercise(WITHIN, Order::AfterDetermination).await);
    let daemon = site.start_active().await;

    let status: wire::Status = daemon.client.get("/v1/status").await.unwrap();
    let clock = &status.clock;
    assert_eq!(clock.state, ClockState::SetForExercise);
    assert!(clock.now.to_string().starts_with("2017-08-01T"), "{}", clock.now);
    let off_ms = clock.now.unix_ms() - clock.offset_ms - wall_clock().unix_ms();
    assert!((-60_000..=0).contains(&off_ms), "{off_ms}");
    assert_eq!(status.problems, []);
    let output =
        Command::new(env!("CARGO_BIN_EXE_smkictl")).arg("status").env("SMKID_SOCKET", &site.socket).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    for expected in ["not the true time", "set for an exercise", "behind this machine's clock"] {
        assert!(said.contains(expected), "{said}");
    }

    // The window, the activation and each last moment at the token are of 2017.
    let items = whole(lines(&daemon.client, "/v1/recovery/sign", &ask_for(site.main(), 0..3)).await);
    let mut handed = Handed::default();
    handed.take(&site, &items);
    assert_eq!(handed.len(), 3);
    site.verify_export("ledger");
    assert!(daemon.stop().await.unwrap().success());

    let ledger = site.ledger();
    let kinds: Vec<&str> = ledger.entries.iter().map(|entry| entry.event.kind()).collect();
    for kind in ["genesis", "certification-intent", "incident-opened", "determination-recorded", "intent", "stopped"] {
        assert!(kinds.contains(&kind), "{kind} in {kinds:?}");
    }
    for entry in &ledger.entries {
        assert_eq!(entry.clock, ClockState::SetForExercise, "{entry:?}");
        assert!(entry.at.to_string().starts_with("2017-08-01T"), "{entry:?}");
    }

    // Without the setting nine years have gone by: nothing is called trusted until an operator has looked.
    site.configure(|text| text.split("\n[exercise]").next().unwrap().to_owned());
    let daemon = site.start_active().await;
    let refused = problem(lines(&daemon.client, "/v1/recovery/sign", &ask_for(site.main(), 3..4)).await);
    let rules: Vec<&str> = refused.reasons.iter().map(|reason| &*reason.rule).collect();
    assert!(rules.contains(&"clock") && rules.contains(&"window"), "{rules:?}");
    assert!(daemon.stop().await.unwrap().success());
    let entries = site.ledger().entries;
    let after = &entries[ledger.entries.len()..];
    assert!(after.iter().any(|entry| matches!(entry.event, Event::ClockJumped(_))), "{after:?}");
    assert!(after.iter().all(|entry| entry.clock != ClockState::SetForExercise), "{after:?}");
}
