//! What is not the newest state of its own ledger is refused at the start: an older or fresh database beside live tokens, the
//! tokens of another ledger, an edited row, a missing document; and a second daemon on the same state.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use smkid::api::client::Client;
use smkid::api::failure::ProblemKind;
use smkid::api::wire::{self, ServiceState};
use smkid::domain::ledger::entry::Event;
use smkid::exercise::policy::{LEDGER_TOKEN, RECOVERY_TOKEN};

use crate::snapshots::half_signed;
use crate::support::site::{Site, Snapshot, Which, ask_for, ask_for_all, incident, lines, problem, whole};
use smkid::wall_clock::wall_clock;
use tokio::sync::OnceCell;

/// The exit status of a daemon that refuses to start.
const REFUSED: i32 = 70;

/// The exit status of a daemon whose configuration is wrong.
const CONFIGURATION: i32 = 78;

/// That the daemon refuses to start and says all of that, and that nothing was recorded.
#[track_caller]
fn check_refused(
    started: Result<smkid::exercise::programs::Daemon, smkid::exercise::programs::ProgramError>,
    says: &[&str],
) {
    let (status, log) = Site::refused_start(started);
    assert_eq!(status, REFUSED, "{log}");
    for expected in says {
        assert!(log.contains(expected), "expected {expected:?} in {log}");
    }
}

/// A site with some commands signed and released, stopped in order.
async fn signed() -> Site {
    static SIGNED: OnceCell<Snapshot> = OnceCell::const_new();
    Site::made(&SIGNED, async |site| {
        let daemon = site.start_active().await;
        let items = whole(lines(&daemon.client, "/v1/recovery/sign", &ask_for(site.main(), 0..3)).await);
        assert_eq!(items.len(), 3);
        assert!(daemon.stop().await.unwrap().success());
    })
    .await
}

#[tokio::test]
async fn an_older_copy_of_the_state_beside_newer_tokens_is_refused_and_the_newest_starts() {
    let site = Site::determined().await;
    site.keep_state("older");
    let daemon = site.start_active().await;
    whole(lines(&daemon.client, "/v1/recovery/sign", &ask_for(site.main(), 0..3)).await);
    assert!(daemon.stop().await.unwrap().success());
    site.keep_state("newest");

    site.bring_back("older");
    let before = site.ledger().size();
    check_refused(
        site.try_start().await,
        &["keeps the head of", "does not reach", "rolled back", "restore the newest copy of the state directory"],
    );
    assert_eq!(site.ledger().size(), before);
    site.bring_back("newest");
    assert!(site.start().await.stop().await.unwrap().success());
}

#[tokio::test]
async fn an_older_copy_that_grew_a_history_of_its_own_is_refused() {
    let site = Site::determined().await;
    site.keep_state("older");
    site.keep_tokens("older-tokens");
    // One history, which the tokens saw.
    let daemon = site.start_active().await;
    assert!(daemon.stop().await.unwrap().success());
    site.keep_tokens("newer-tokens");
    // Another one of more entries, on a copy of tokens and state as they were.
    site.bring_back("older");
    site.bring_back_tokens("older-tokens");
    let daemon = site.start_active().await;
    whole(lines(&daemon.client, "/v1/recovery/sign", &ask_for_all(site.main())).await);
    assert!(daemon.stop().await.unwrap().success());
    site.bring_back_tokens("newer-tokens");
    check_refused(site.try_start().await, &["keeps the head of", "does not have", "rolled back or replaced"]);
}

#[tokio::test]
async fn a_fresh_ledger_beside_live_tokens_is_refused_as_are_the_tokens_of_another_ledger() {
    let site = Site::determined().await;
    // No ledger at all: it is never made by the daemon.
    fs::rename(site.state(), site.path("away")).unwrap();
    fs::create_dir(site.state()).unwrap();
    check_refused(site.try_start().await, &["no ledger", "smkictl ceremony", "never by smkid itself"]);
    assert!(!site.state().join("ledger.db").exists());
    fs::remove_dir_all(site.state()).unwrap();
    fs::rename(site.path("away"), site.state()).unwrap();

    // The state of another ledger, whose keys and genesis are others, beside our tokens.
    let other = Site::of_another_ledger().await;
    fs::rename(site.state(), site.path("away")).unwrap();
    crate::support::desk::copy(&other.state(), &site.state());
    check_refused(site.try_start().await, &["ledger-a"]);
}

/// A row is edited behind the daemon's back: the start names what differs.
async fn check_edited(sql: &str, rows: usize, says: &[&str]) {
    let site = signed().await;
    site.edit(sql, rows);
    check_refused(site.try_start().await, says);
}

#[tokio::test]
async fn an_edited_leaf_is_refused_by_its_index() {
    check_edited(
        "UPDATE leaf SET octets = CAST(replace(CAST(octets AS TEXT), '\"INC-1\"', '\"INC-2\"') AS BLOB) WHERE idx = \
         (SELECT min(idx) FROM leaf WHERE CAST(octets AS TEXT) LIKE '%incident-opened%')",
        1,
        &["entry ", "hash to", "the row was edited"],
    )
    .await;
}

#[tokio::test]
async fn an_edited_leaf_with_its_hash_made_to_fit_is_refused_by_the_head() {
    let site = signed().await;
    let connection = site.database();
    let last: i64 = connection.query_row("SELECT max(idx) FROM leaf", [], |row| row.get(0)).unwrap();
    let octets: Vec<u8> =
        connection.query_row("SELECT octets FROM leaf WHERE idx = ?1", [last], |row| row.get(0)).unwrap();
    let text = String::from_utf8(octets).unwrap().replace("SIGTERM", "SIGHUP ");
    let hash = smkid::domain::ledger::merkle::leaf_hash(text.as_bytes());
    let edited = connection
        .execute("UPDATE leaf SET octets = ?1, hash = ?2 WHERE idx = ?3", (text.as_bytes(), hash.octets(), last))
        .unwrap();
    assert_eq!(edited, 1);
    drop(connection);
    check_refused(site.try_start().await, &["the ledger's head says", "found", "restore from a backup"]);
}

#[tokio::test]
async fn a_deleted_leaf_is_refused() {
    check_edited(
        "DELETE FROM leaf WHERE idx = (SELECT max(idx) FROM leaf)",
        1,
        &["head", "rows were edited, added or removed"],
    )
    .await;
}

/// Holds the state against the ledger, as an operator does; the status, and what was said.
fn check_state(site: &Site) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smkid"));
    let output = command.arg("--config").arg(&site.configuration).arg("check-state").output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A row of what grows with Devices is edited behind the daemon's back, after a snapshot was taken at its end: whoever holds the state
/// against the ledger is told which.
async fn check_edited_row(sql: &str, says: &[&str]) {
    let site = half_signed().await;
    site.edit(sql, 1);
    let (status, said) = check_state(&site);
    assert_eq!(status, Some(REFUSED), "{said}");
    for expected in says {
        assert!(said.contains(expected), "expected {expected:?} in {said}");
    }
}

#[tokio::test]
async fn a_state_that_is_as_the_ledger_has_it_is_said_to_be_good_with_a_snapshot_and_without() {
    for site in [half_signed().await, signed().await] {
        let size = site.ledger().size();
        let (status, said) = check_state(&site);
        assert_eq!(status, Some(0), "{said}");
        // It was looked at, and nothing more.
        assert_eq!(site.ledger().size(), size);
        assert!(site.start().await.stop().await.unwrap().success());
    }
}

#[tokio::test]
async fn a_lowered_counter_is_told_by_its_table() {
    check_edited_row(
        "UPDATE device SET counter = counter - 1 WHERE device = (SELECT min(device) FROM device)",
        &["table device", "edited"],
    )
    .await;
}

#[tokio::test]
async fn a_device_row_that_is_gone_is_told_by_its_table() {
    check_edited_row("DELETE FROM device WHERE device = (SELECT min(device) FROM device)", &["table device"]).await;
}

#[tokio::test]
async fn a_signature_that_is_marked_as_not_released_is_refused_by_its_table() {
    check_edited(
        "UPDATE signature SET released = 0 WHERE intent = (SELECT min(intent) FROM signature)",
        1,
        &["table signature", "the row was edited"],
    )
    .await;
}

#[tokio::test]
async fn a_signature_that_is_another_is_refused_by_its_intent() {
    check_edited(
        "UPDATE signature SET octets = zeroblob(64) WHERE intent = (SELECT min(intent) FROM signature)",
        1,
        &["the signature of intent", "not the one recorded"],
    )
    .await;
}

#[tokio::test]
async fn a_forgotten_request_is_told_by_its_table() {
    check_edited_row("DELETE FROM request", &["table request"]).await;
}

#[tokio::test]
async fn an_added_page_of_the_list_is_refused_by_its_table() {
    check_edited(
        "INSERT INTO page SELECT list, x'0011223344556677', at, len, lines, root FROM page LIMIT 1",
        1,
        &["table page"],
    )
    .await;
}

#[tokio::test]
async fn an_edited_checkpoint_is_refused_by_its_size() {
    check_edited(
        "UPDATE checkpoint SET note = CAST(replace(CAST(note AS TEXT), char(10) || char(10), char(10) || 'x' || char(10) || \
         char(10)) AS BLOB) WHERE size = (SELECT max(size) FROM checkpoint)",
        1,
        &["the checkpoint of size"],
    )
    .await;
    check_edited("DELETE FROM checkpoint WHERE size > 0", 0, &["no checkpoint"]).await;
}

#[tokio::test]
async fn a_missing_document_is_refused_by_its_digest() {
    let site = signed().await;
    let digest = site.base.main.digest();
    let connection = site.database();
    assert_eq!(connection.execute("DELETE FROM blob WHERE digest = ?1", [digest.octets()]).unwrap(), 1);
    drop(connection);
    check_refused(site.try_start().await, &[&digest.to_string()]);
}

#[tokio::test]
async fn an_edited_document_is_refused_by_its_digest() {
    let site = signed().await;
    let digest = site.base.main.digest();
    let connection = site.database();
    let edited = connection
        .execute(
            "UPDATE chunk SET octets = CAST(replace(CAST(octets AS TEXT), '\"execute\"', '\"Execute\"') AS BLOB) WHERE CAST(octets AS \
             TEXT) LIKE '%smkid-determination/v1%'",
            [],
        )
        .unwrap();
    assert_eq!(edited, 1);
    drop(connection);
    check_refused(site.try_start().await, &[&digest.to_string()]);
}

#[tokio::test]
async fn a_second_daemon_on_the_same_state_is_refused_and_the_first_is_unharmed() {
    let site = Site::determined().await;
    let daemon = site.start_active().await;
    let second = site.path("second.toml");
    let text = fs::read_to_string(&site.configuration).unwrap();
    fs::write(&second, text.replace("smkid.sock", "second.sock")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_smkid")).arg("--config").arg(&second).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(REFUSED), "{said}");
    let expected = format!("in use by process {}", daemon.pid().as_raw_nonzero());
    assert!(said.contains(&expected), "expected {expected:?} in {said}");
    // On the same socket too.
    let output = Command::new(env!("CARGO_BIN_EXE_smkid")).arg("--config").arg(&site.configuration).output().unwrap();
    assert_eq!(output.status.code(), Some(REFUSED));

    let items = whole(lines(&daemon.client, "/v1/recovery/sign", &ask_for(site.main(), 0..3)).await);
    assert!(items.iter().all(|item| item.command.is_some()), "{items:?}");
    assert!(daemon.stop().await.unwrap().success());
}

/// A process that is killed when the test ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(configuration: &Path) -> Killed {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smkid"));
    command.arg("--config").arg(configuration).stdout(Stdio::null()).stderr(Stdio::null());
    Killed(command.spawn().unwrap())
}

async fn wait_for(client: &Client, state: ServiceState) -> wire::Status {
    let begun = Instant::now();
    loop {
        if let Ok(status) = client.get::<wire::Status>("/v1/status").await
            && status.state == state
        {
            return status;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "the daemon does not come to {state:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn without_its_ledger_token_the_daemon_reads_and_comes_back_by_itself() {
    let site = Site::determined().await;
    let before = site.ledger().size();
    fs::rename(site.path("tokens"), site.path("tokens-away")).unwrap();
    fs::create_dir(site.path("tokens")).unwrap();
    let _daemon = spawn(&site.configuration);
    let client = Client::new(&site.socket);
    let status = wait_for(&client, ServiceState::ReadOnly).await;
    assert!(!status.problems.is_empty() && !status.problems[0].remedy.is_empty(), "{status:?}");

    // Reads are answered.
    let all: wire::Determinations = client.get("/v1/determinations").await.unwrap();
    assert_eq!(all.determinations.len(), 1);
    let entries: wire::Entries = client.get("/v1/ledger/entries?from=0").await.unwrap();
    assert_eq!(entries.entries.len() as u64, before);
    // Whatever records is not.
    let why = wire::Why { reason: "over".to_owned() };
    let clock = wire::ClockAccept { time: wall_clock(), reason: "over".to_owned() };
    let refused = [
        problem(client.post::<_, wire::Recorded>("/v1/incidents", &incident(&site.base.lab)).await),
        problem(client.post::<_, wire::Recorded>("/v1/incidents/INC-1/close", &why).await),
        problem(client.post::<_, wire::Recorded>("/v1/clock/accept", &clock).await),
        problem(site.activate(&client).await),
        problem(lines(&client, "/v1/recovery/sign", &ask_for(site.main(), 0..3)).await),
    ];
    for problem in refused {
        assert_eq!(problem.error, ProblemKind::Unavailable, "{problem:?}");
        assert!(problem.message.contains("Reads are answered"), "{problem:?}");
    }
    assert_eq!(site.ledger().size(), before);

    fs::remove_dir(site.path("tokens")).unwrap();
    fs::rename(site.path("tokens-away"), site.path("tokens")).unwrap();
    wait_for(&client, ServiceState::Ready).await;
    site.activate(&client).await.unwrap();
    let items = whole(lines(&client, "/v1/recovery/sign", &ask_for(site.main(), 0..3)).await);
    assert!(items.iter().all(|item| item.command.is_some()), "{items:?}");
}

#[tokio::test]
async fn a_rollback_that_is_found_late_ends_the_daemon_as_one_found_early() {
    let site = Site::determined().await;
    site.keep_state("older");
    let daemon = site.start_active().await;
    assert!(daemon.stop().await.unwrap().success());
    site.bring_back("older");
    let before = site.ledger().size();
    fs::rename(site.path("tokens"), site.path("tokens-away")).unwrap();
    fs::create_dir(site.path("tokens")).unwrap();
    let mut daemon = spawn(&site.configuration);
    wait_for(&Client::new(&site.socket), ServiceState::ReadOnly).await;
    fs::remove_dir(site.path("tokens")).unwrap();
    fs::rename(site.path("tokens-away"), site.path("tokens")).unwrap();
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = daemon.0.try_wait().unwrap() {
            break status;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "the daemon goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(status.code(), Some(REFUSED));
    assert_eq!(site.ledger().size(), before);
}

#[tokio::test]
async fn a_ledger_token_that_comes_and_refuses_its_pin_is_shown_with_what_to_do() {
    let site = Site::determined().await;
    site.fault(Which::Ledger, Some("C_Login * return CKR_PIN_INCORRECT"));
    fs::rename(site.path("tokens"), site.path("tokens-away")).unwrap();
    fs::create_dir(site.path("tokens")).unwrap();
    let _daemon = spawn(&site.configuration);
    let client = Client::new(&site.socket);
    let status = wait_for(&client, ServiceState::ReadOnly).await;
    assert!(status.problems[0].remedy.contains("Insert the ledger token"), "{status:?}");
    fs::remove_dir(site.path("tokens")).unwrap();
    fs::rename(site.path("tokens-away"), site.path("tokens")).unwrap();
    let begun = Instant::now();
    loop {
        let status = wait_for(&client, ServiceState::ReadOnly).await;
        if status.problems[0].what.contains("`smkictl hsm retry-login`") {
            assert!(status.problems[0].what.contains("PIN"), "{status:?}");
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{status:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let problem = problem(site.activate(&client).await);
    assert!(problem.message.contains("`smkictl hsm retry-login`"), "{problem:?}");
}

#[tokio::test]
async fn a_configuration_that_does_not_fit_the_ledger_has_a_status_of_its_own_and_a_remedy() {
    let site = Site::founded().await;
    let good = fs::read_to_string(&site.configuration).unwrap();
    let no_pins: Vec<&str> = good.lines().filter(|line| !line.starts_with("pin = ")).collect();
    for (text, says) in [
        (no_pins.join("\n"), "no PIN is configured"),
        (good.replace("\npin = { file = \"", "\npin = { file = \"/nowhere"), "expected a PIN"),
        (good.replace(&format!("name = \"{RECOVERY_TOKEN}\""), "name = \"other\""), "no [[token]]"),
        (
            good.replace(&format!("\ntoken = \"{LEDGER_TOKEN}\""), &format!("\ntoken = \"{RECOVERY_TOKEN}\"")),
            "ledger.token",
        ),
    ] {
        assert_ne!(text, good, "{says}");
        fs::write(&site.configuration, text).unwrap();
        let (status, log) = Site::refused_start(site.try_start().await);
        assert_eq!(status, CONFIGURATION, "{log}");
        assert!(log.contains(says) && log.contains("smkid check-config"), "expected {says:?} in {log}");
    }
}

#[tokio::test]
async fn every_end_in_order_is_recorded_and_a_start_after_it_resumes_nothing() {
    let site = signed().await;
    let daemon = site.start().await;
    let ledger = site.ledger();
    assert!(matches!(ledger.entries[ledger.entries.len() - 2].event, Event::Stopped(_)));
    assert!(matches!(ledger.entries[ledger.entries.len() - 1].event, Event::Started(_)));
    assert!(daemon.stop().await.unwrap().success());
    // A token that does not open is told as that, and not as a rollback.
    site.fault(Which::Ledger, Some("C_Login * return CKR_PIN_LOCKED"));
    let _daemon = spawn(&site.configuration);
    let status = wait_for(&Client::new(&site.socket), ServiceState::ReadOnly).await;
    assert!(status.problems[0].what.contains("CKR_PIN_LOCKED"), "{status:?}");
}
