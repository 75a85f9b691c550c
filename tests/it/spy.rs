//! What a command costs at the token, as OpenSC's pkcs11-spy sees it: a module between the worker and SoftHSM that writes each call into
//! a file. The whole of the daemon stands behind it, with a job that nobody listens to.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use axum::body::Body;
use smkid::api::client::Client;
use smkid::api::wire::{Checkpoints, Job, JobStart, JobState, Stored};

use crate::support::site::{Site, Which, device, request};
use crate::support::token::MODULE;

/// How long a job may take here.
const WITHIN: Duration = Duration::from_secs(60);

/// How often a job is asked for its state.
const POLL: Duration = Duration::from_millis(5);

/// Devices of the first job, and of the second: what does not grow with the commands is the same for both.
const FEW: u32 = 100;
const MORE: u32 = 200;

/// What a command costs nothing of: look-ups, logins, sessions, and what else is asked of a token or an object.
const NOT_FOR_A_COMMAND: [&str; 8] = [
    "C_Login",
    "C_OpenSession",
    "C_CloseSession",
    "C_FindObjectsInit",
    "C_GetAttributeValue",
    "C_CreateObject",
    "C_DestroyObject",
    "C_Initialize",
];

/// Where OpenSC's packages put the module: `tests/setup.sh` installs it with opensc.
fn spy() -> PathBuf {
    let folders = [format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH), "/usr/lib64".into(), "/usr/lib".into()];
    let found = folders.iter().map(|folder| Path::new(folder).join("pkcs11-spy.so")).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("expected pkcs11-spy.so of opensc in one of {folders:?}; install opensc"))
}

fn log(site: &Site, which: Which) -> PathBuf {
    site.path(&format!("{}.spy", which.name()))
}

/// From the next start on the spy stands in front of a token.
fn watch(site: &Site, which: Which) {
    let log = log(site, which);
    let more = format!("PKCS11SPY = \"{MODULE}\", PKCS11SPY_OUTPUT = \"{}\", ", log.display());
    site.set_module(which, &spy(), &more);
}

/// How often each function was called so far: a call begins with a line `number: name`.
fn calls(site: &Site, which: Which) -> BTreeMap<String, u64> {
    let text = fs::read_to_string(log(site, which)).unwrap();
    let names = text.lines().filter_map(|line| {
        let (number, name) = line.split_once(": ")?;
        (number.bytes().all(|octet| octet.is_ascii_digit()) && name.starts_with("C_")).then_some(name)
    });
    names.fold(BTreeMap::new(), |mut calls, name| {
        *calls.entry(name.to_owned()).or_default() += 1;
        calls
    })
}

/// How many calls were made between two looks.
fn between(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let grown = after.iter().map(|(name, count)| (name.clone(), count - before.get(name).unwrap_or(&0)));
    grown.filter(|(_, count)| *count > 0).collect()
}

fn of(calls: &BTreeMap<String, u64>, function: &str) -> u64 {
    calls.get(function).copied().unwrap_or_default()
}

async fn checkpoints(client: &Client) -> u64 {
    client.get::<Checkpoints>("/v1/ledger/checkpoints").await.unwrap().checkpoints.len() as u64
}

/// A job for these Devices, from its start to its end.
async fn job(site: &Site, client: &Client, devices: std::ops::Range<u32>) {
    let count = u64::from(devices.end - devices.start);
    let list: String = devices.map(|n| format!("{}\n", device(n))).collect();
    let stored: Stored = client.put("/v1/uploads", Body::from(list)).await.unwrap();
    let (determination, list) = (site.main(), Some(stored.sha256));
    let ask = JobStart { request: request(), determination, list, per_hour: None, reason: None };
    let mut job: Job = client.post("/v1/recovery/jobs", &ask).await.unwrap();
    let begun = Instant::now();
    while job.state != JobState::Ended {
        assert!(begun.elapsed() < WITHIN, "{job:?}");
        tokio::time::sleep(POLL).await;
        job = client.get(&format!("/v1/recovery/jobs/{}", ask.request)).await.unwrap();
    }
    assert_eq!((job.tally.signed, job.tally.intents), (count, count), "{job:?}");
}

#[tokio::test]
async fn a_command_costs_one_sign_init_at_its_token_and_no_login_no_session_and_no_look_up() {
    let site = Site::determined().await;
    // The head is written to the ledger token at the end of each job, and not at a time of its own in between.
    site.configure(|text| text.replace("[ledger]\n", "[ledger]\nhead_interval_s = 86400\n"));
    watch(&site, Which::Recovery);
    watch(&site, Which::Ledger);
    let daemon = site.start_active().await;
    let client = &daemon.client;
    let mut grown = Vec::new();
    for devices in [0..FEW, FEW..FEW + MORE] {
        let before = [calls(&site, Which::Recovery), calls(&site, Which::Ledger)];
        let (signed_before, count) = (checkpoints(client).await, u64::from(devices.end - devices.start));
        job(&site, client, devices).await;
        let signed = checkpoints(client).await - signed_before;
        let recovery = between(&before[0], &calls(&site, Which::Recovery));
        let ledger = between(&before[1], &calls(&site, Which::Ledger));
        println!("{count} commands, {signed} checkpoints: Recovery token {recovery:?}; ledger token {ledger:?}");
        // The binding asks for the length of a signature before it asks for the signature: no second operation, but a second call.
        assert_eq!((of(&recovery, "C_SignInit"), of(&recovery, "C_Sign")), (count, 2 * count), "{recovery:?}");
        assert_eq!((of(&ledger, "C_SignInit"), of(&ledger, "C_Sign")), (signed, 2 * signed), "{ledger:?}");
        for function in NOT_FOR_A_COMMAND {
            assert_eq!(of(&recovery, function), 0, "{function}: {recovery:?}");
        }
        grown.push(NOT_FOR_A_COMMAND.map(|function| of(&ledger, function)));
    }
    assert_eq!(grown[0], grown[1], "what the ledger token is asked for besides is the job's, and not the commands'");
    assert!(daemon.stop().await.unwrap().success());
}
