//! What dies while Key Custodians present, and while what they opened is open.

use rustix::process::{Pid, Signal};
use smkid::exercise::programs::{Daemon, signal};

use super::*;

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
    let proc = format!("/proc/{}", vault.as_raw_nonzero());
    let begun = std::time::Instant::now();
    while std::path::Path::new(&proc).exists() {
        assert!(begun.elapsed().as_secs() < 60, "the vault outlives its daemon");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
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
    signal(vault(&daemon, &before), Signal::KILL).unwrap();
    // At once, or once the daemon has looked: the second does not stand for the first, whose share is gone.
    let standing = custody.present(client, 2).await.unwrap().standing;
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
