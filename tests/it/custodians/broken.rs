//! What dies while Key Custodians present, and while what they opened is open.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use smkid::api::wire::ServiceState;
use smkid::exercise::programs::{Daemon, signal};

use super::*;
use crate::support::site::Which;

/// How long something that comes by itself is waited for.
const COME_MAX: Duration = Duration::from_secs(60);

/// Waits until a process is gone.
async fn gone(pid: Pid) {
    let proc = format!("/proc/{}", pid.as_raw_nonzero());
    let begun = Instant::now();
    while Path::new(&proc).exists() {
        assert!(begun.elapsed() < COME_MAX, "process {pid:?} is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn comes_to(client: &Client, state: ServiceState) {
    let begun = Instant::now();
    while client.get::<wire::Status>("/v1/status").await.unwrap().state != state {
        assert!(begun.elapsed() < COME_MAX, "{state:?} does not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The vault of the daemon: the process that it has more than before.
fn vault(daemon: &Daemon, before: &[Pid]) -> Pid {
    let found: Vec<Pid> = daemon.workers().into_iter().filter(|pid| !before.contains(pid)).collect();
    let is_vault = |pid: &&Pid| {
        let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("vault-worker")
    };
    *found.iter().find(is_vault).unwrap_or_else(|| panic!("no vault among {found:?}"))
}

#[tokio::test]
async fn a_daemon_that_is_killed_between_two_presentations_forgets_the_first() {
    let custody = Custody::dealt().await;
    let site = &custody.site;
    let daemon = site.start().await;
    let statement = custody.statement(&daemon.client, 1, |_| {}).await;
    let share = (1, &custody.shares[0]);
    custody.present_for(&daemon.client, share, &statement).await.unwrap();
    let vault = vault(&daemon, &[]);
    daemon.kill().await.unwrap();
    gone(vault).await;
    let daemon = site.start().await;
    let client = &daemon.client;
    assert_eq!(custody.standing(client).await.have, 0);
    assert!(!custody.present(client, 2).await.unwrap().standing.enough, "the first is gone");
    assert_eq!(custody.activation(client).await, ["custodians"]);
    let replayed = custody.present_for(client, share, &statement).await;
    assert!(
        custody.rules(&problem(replayed)).contains(&"statement-replayed".to_owned()),
        "in the daemon's next life too"
    );
    assert!(custody.present(client, 1).await.unwrap().standing.enough);
    site.activate(client).await.unwrap();
    site.verify_export("killed");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_vault_that_dies_while_shares_are_gathered_takes_them_along_and_everybody_presents_anew() {
    let custody = Custody::dealt().await;
    let site = &custody.site;
    let daemon = site.start().await;
    let client = &daemon.client;
    let before = daemon.workers();
    custody.present(client, 1).await.unwrap();
    // Ready beforehand: it comes while the vault dies, at a moment at which that is seen by some and not by others.
    let statement = custody.statement(client, 2, |_| {}).await;
    signal(vault(&daemon, &before), Signal::KILL).unwrap();
    // Whoever meets the vault as it dies is told to present anew. The second does not stand for the first, whose share is gone.
    let begun = Instant::now();
    let mut presented = custody.present_for(client, (2, &custody.shares[1]), &statement).await;
    let standing = loop {
        match presented {
            Ok(presented) => break presented.standing,
            Err(error) => assert!(begun.elapsed() < COME_MAX, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        presented = custody.present(client, 2).await;
    };
    assert_eq!((standing.have, standing.enough), (1, false), "{standing:?}");
    custody.locked_by_itself("the vault of its shares has ended").await;
    assert!(custody.present(client, 1).await.unwrap().standing.enough, "who came before comes again");
    let open = site.activate(client).await.unwrap();
    assert!(open.key.active);
    site.verify_export("vault");
    assert!(daemon.stop().await.unwrap().success());
}

/// What is logged in stays so. Only when a worker has to be replaced is the PIN missed, and then the key stays locked until custodians come.
#[tokio::test]
async fn a_vault_that_dies_while_the_key_is_open_is_missed_only_once_a_worker_dies_too() {
    let custody = Custody::dealt().await;
    let site = &custody.site;
    let daemon = site.start().await;
    let client = &daemon.client;
    let before = daemon.workers();
    custody.present(client, 1).await.unwrap();
    custody.present(client, 2).await.unwrap();
    site.activate(client).await.unwrap();
    let vault = vault(&daemon, &before);
    let worker = daemon.workers().into_iter().find(|pid| !before.contains(pid) && *pid != vault).unwrap();

    // As long as the vault lives a worker is replaced, and nobody is asked.
    signal(worker, Signal::KILL).unwrap();
    let sign =
        async |devices: std::ops::Range<u32>| lines(client, "/v1/recovery/sign", &ask_for(site.main(), devices)).await;
    assert_eq!(whole(sign(0..2).await).len(), 2);
    let worker = daemon.workers().into_iter().find(|pid| !before.contains(pid) && *pid != vault).unwrap();

    signal(vault, Signal::KILL).unwrap();
    assert_eq!(whole(sign(2..4).await).len(), 2, "what is logged in stays so");
    signal(worker, Signal::KILL).unwrap();
    custody.locked_by_itself("its token").await;
    assert_eq!(custody.activation(client).await, ["custodians"]);
    custody.present(client, 1).await.unwrap();
    custody.present(client, 2).await.unwrap();
    site.activate(client).await.unwrap();
    assert_eq!(whole(sign(4..6).await).len(), 2);
    site.ledger().check();
    site.verify_export("open");
    assert!(daemon.stop().await.unwrap().success());
}

/// What ends what was gathered must not wait for the ledger token: neither the end of its time, nor a lock.
#[tokio::test]
async fn what_was_gathered_ends_also_while_nothing_can_be_recorded() {
    let custody = Custody::dealt().await;
    let site = &custody.site;
    let daemon = site.start().await;
    let client = &daemon.client;
    let before = daemon.workers();
    for by_time in [true, false] {
        let hold_ms = if by_time { 6_000 } else { HOUR_MS };
        let statement = custody.statement(client, 1, |form| form.expires = Custody::now().plus_ms(hold_ms)).await;
        custody.present_for(client, (1, &custody.shares[0]), &statement).await.unwrap();
        let vault = vault(&daemon, &before);
        let (place, away) = (site.token_folder(Which::Ledger), site.path("away"));
        fs::rename(&place, &away).unwrap();
        // Something to record: a refusal.
        let waits = {
            let client = client.clone();
            let path = format!("/v1/keys/{RECOVERY_KEY}/activate");
            let ask = wire::KeyActivate { incident: INCIDENT.parse().unwrap() };
            tokio::spawn(async move { client.post::<_, wire::KeyChanged>(&path, &ask).await.map(drop) })
        };
        comes_to(client, ServiceState::ReadOnly).await;
        if !by_time {
            let locked = problem(site.lock(client).await);
            assert!(locked.message.contains("is locked") && locked.message.contains("not recorded yet"), "{locked:?}");
        }
        gone(vault).await;
        assert!(!waits.is_finished() || waits.await.unwrap().is_err());
        fs::rename(&away, &place).unwrap();
        comes_to(client, ServiceState::Ready).await;
        custody.locked_by_itself(if by_time { "Key Custodians" } else { "on demand" }).await;
        assert_eq!(custody.standing(client).await.have, 0);
    }
    custody.present(client, 1).await.unwrap();
    custody.present(client, 2).await.unwrap();
    site.activate(client).await.unwrap();
    site.verify_export("unrecorded");
    assert!(daemon.stop().await.unwrap().success());
}
