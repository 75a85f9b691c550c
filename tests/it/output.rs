//! Signed commands as they leave: in files with a manifest, fetched again, and made again from an export; by real daemons on SoftHSM. However they
//! come, they are the same octets, and what was cut or altered is seen.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use smkid::api::failure::ProblemKind;
use smkid::api::wire::{self, Item, ItemOutcome};
use smkid::domain::certificates::pem::certificate_to_pem;
use smkid::domain::commands::container::{Reader, Record};
use smkid::domain::commands::manifest::{Manifest, NAME, PARTIAL_NAME};
use smkid::domain::ledger::steps::Step;
use smkid::domain::names::DeviceId;
use smkid::exercise::policy::RECOVERY_KEY;
use smkid::exercise::procedure::plain;
use smkid::exercise::programs::{Daemon, signal};

use crate::support::site::{
    DEVICES, Handed, INCIDENT, Site, Which, ask_for, ask_for_all, device, device_list, lines, lines_and_stop, problem,
    rules, settle_all, whole,
};

const SIGN: &str = "/v1/recovery/sign";
const SETTLE: &str = "/v1/recovery/settle";
const REQUEST: &str = "77777777777777777777777777777777";

fn fetch_path(request: impl std::fmt::Display) -> String {
    format!("/v1/recovery/requests/{request}/commands")
}

fn manifest(folder: &Path) -> Manifest {
    Manifest::parse(&fs::read(folder.join(NAME)).unwrap()).unwrap()
}

/// The commands in the containers of a folder, by Device.
fn contained(folder: &Path) -> BTreeMap<DeviceId, Vec<u8>> {
    let mut commands = BTreeMap::new();
    for file in &manifest(folder).files {
        let mut reader = Reader::of_file();
        reader.feed(&fs::read(folder.join(&*file.name)).unwrap());
        while let Some(record) = reader.record().unwrap() {
            if let Record::Command(fields, octets) = record {
                let before = commands.insert(fields.device, reader.octets(&octets).to_vec());
                assert!(before.is_none(), "{} has two commands", fields.device);
            }
        }
        reader.finish().unwrap();
    }
    commands
}

/// The same of a folder with a file each.
fn each(folder: &Path) -> BTreeMap<DeviceId, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let device = |path: &Path| path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    entries.map(|path| (device(&path), fs::read(path).unwrap())).collect()
}

fn commands(items: &[Item]) -> BTreeMap<DeviceId, Vec<u8>> {
    items.iter().filter_map(|item| Some((item.device, item.command.as_ref()?.0.clone()))).collect()
}

/// A daemon that was killed while it signed `ask`, where the Recovery token came to its n-th signature.
async fn killed_while_signing(site: &Site, ask: &wire::RecoverySign, n: u64) {
    site.fault(Which::Recovery, Some(&format!("C_Sign {n} stop")));
    let daemon = site.start_active().await;
    let (client, sent) = (daemon.client.clone(), ask.clone());
    let answer = tokio::spawn(async move { lines_and_stop(&client, SIGN, &sent).await });
    site.reach(Which::Recovery, "C_Sign", n).await;
    daemon.kill().await.unwrap();
    let _ = answer.await.unwrap();
}

/// A daemon with a slow token whose job was stopped so once the token came to its n-th signature.
async fn job_stopped(site: &Site, delay: &str, n: u64, how: &str) -> Daemon {
    site.fault(Which::Recovery, Some(&format!("C_Sign * delay {delay}")));
    let daemon = site.start_active().await;
    let job = wire::JobStart {
        request: REQUEST.parse().unwrap(),
        determination: site.main(),
        list: None,
        per_hour: None,
        reason: None,
    };
    let _: wire::Job = daemon.client.post("/v1/recovery/jobs", &job).await.unwrap();
    site.reach(Which::Recovery, "C_Sign", n).await;
    let why = wire::Why { reason: "The DCC asked for it".to_owned() };
    let _: wire::Job = daemon.client.post(&format!("/v1/recovery/jobs/{REQUEST}/{how}"), &why).await.unwrap();
    daemon
}

/// The Python that stands on the page about the container.
fn reader_of_the_page() -> String {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/docs/container.md")).unwrap();
    let (_, after) = page.split_once("```python\n").unwrap();
    after.split_once("```").unwrap().0.to_owned()
}

fn run(program: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.success(), text)
}

#[tokio::test]
async fn a_command_is_the_same_octets_signed_fetched_and_made_again_from_an_export() {
    let site = Site::determined().await;
    let daemon = site.start_active().await;
    let id = site.main();
    let signed = format!("recovery sign --determination {id} --devices all --request {REQUEST}");
    site.smkictl(&format!("{signed} --out signed")).ok();
    let signed = each(&site.path("signed"));
    assert_eq!(signed.len(), DEVICES as usize);

    // Fetched, in files of a size.
    site.smkictl(&format!("recovery fetch {REQUEST} --out fetched --file-size 100")).ok();
    let fetched = site.path("fetched");
    assert!(contained(&fetched) == signed);
    let held = manifest(&fetched);
    assert_eq!(held.commands, u64::from(DEVICES));
    assert!(held.folder.in_order && held.files.len() == (DEVICES as usize).div_ceil(100));
    assert!(held.checkpoint.size > held.files.last().unwrap().last_intent);
    // In hexadecimal, in JSON, a file each, and on stdout.
    site.smkictl(&format!("recovery fetch {REQUEST} --out hex --format hex")).ok();
    let hex = fs::read_to_string(site.path("hex/commands-000001.hex")).unwrap();
    let in_hex: Vec<Vec<u8>> = hex.lines().map(|line| hex::decode(line).unwrap()).collect();
    assert!(in_hex.iter().eq(signed.values()), "the list is in the order of Devices, and so are its intents");
    let lines_of =
        |text: &str| -> Vec<Item> { text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect() };
    site.smkictl(&format!("recovery fetch {REQUEST} --out lines --format ndjson --file-size 1MiB")).ok();
    let mut in_json = BTreeMap::new();
    for file in &manifest(&site.path("lines")).files {
        assert!(file.octets < (1 << 20) + 10_000);
        in_json.extend(commands(&lines_of(&fs::read_to_string(site.path("lines").join(&*file.name)).unwrap())));
    }
    assert!(in_json == signed);
    site.smkictl(&format!("recovery fetch {REQUEST} --out each --format each")).ok();
    assert!(each(&site.path("each")) == signed);
    let (first, last) = (signed.first_key_value().unwrap().0, signed.last_key_value().unwrap().0);
    fs::write(site.path("two.txt"), format!("{last}\n{first}\n")).unwrap();
    let two = site.smkictl(&format!("recovery fetch {REQUEST} --out - --devices two.txt")).ok();
    let two = commands(&lines_of(&two.out));
    assert!(two.iter().eq([(first, &signed[first]), (last, &signed[last])]));

    // Each time its release is recorded, and the ledger verifies.
    site.verify_export("export");
    site.smkictl(&format!("ledger commands export --request {REQUEST} --out again --file-size 100")).ok();
    // Not only the commands: the files are the same.
    assert_eq!(manifest(&site.path("again")).files, held.files);
    site.smkictl(&format!("ledger commands export --determination {id} --out by-determination")).ok();
    assert!(contained(&site.path("by-determination")) == signed);
    site.smkictl(&format!("ledger commands export --device {first} --out of-one")).ok();
    let of_one = contained(&site.path("of-one").join(id.to_string()));
    assert!(of_one == BTreeMap::from([(*first, signed[first].clone())]));
    site.smkictl("recovery check fetched").ok();
    site.smkictl("recovery check fetched --ledger export").ok();
    site.smkictl("recovery check lines --ledger export").ok();

    // Somebody else reads it, with what the page says; and OpenSSL verifies one.
    fs::write(site.path("reader.py"), reader_of_the_page()).unwrap();
    let (reader, file) = (site.path("reader.py"), fetched.join("commands-000001.smkicmd"));
    let (is_good, said) = run("python3", &[reader.to_str().unwrap(), file.to_str().unwrap()]);
    assert!(is_good && said.lines().count() == 100 && said.starts_with(&first.to_string()), "{said}");
    openssl_verifies(&site, &signed[first]);
    daemon.stop().await.unwrap();
}

/// What the page about the export says of one command.
fn openssl_verifies(site: &Site, command: &[u8]) {
    let (body, signature) = command.split_at(command.len() - 65);
    fs::write(site.path("body"), &body[1..]).unwrap();
    let (r, s) = (hex::encode(&signature[1..33]), hex::encode(&signature[33..]));
    fs::write(site.path("sig.conf"), format!("asn1=SEQUENCE:s\n[s]\nr=INTEGER:0x{r}\ns=INTEGER:0x{s}\n")).unwrap();
    let path = |name: &str| site.path(name).to_str().unwrap().to_owned();
    let (made, said) =
        run("openssl", &["asn1parse", "-genconf", &path("sig.conf"), "-noout", "-out", &path("sig.der")]);
    assert!(made, "{said}");
    fs::write(site.path("recovery.pem"), certificate_to_pem(site.base.recovery.certificate().octets())).unwrap();
    let (made, key) = run("openssl", &["x509", "-in", &path("recovery.pem"), "-noout", "-pubkey"]);
    assert!(made, "{key}");
    fs::write(site.path("recovery.pub"), key).unwrap();
    let (verified, said) = run(
        "openssl",
        &["dgst", "-sha256", "-verify", &path("recovery.pub"), "-signature", &path("sig.der"), &path("body")],
    );
    assert!(verified, "{said}");
}

#[tokio::test]
async fn a_folder_that_was_altered_is_found_by_its_check() {
    let site = Site::determined().await;
    let daemon = site.start_active().await;
    let sign = format!("recovery sign --determination {} --devices all --request {REQUEST}", site.main());
    site.smkictl(&format!("{sign} --out folder --format container --file-size 200")).ok();
    site.smkictl("recovery check folder").ok();
    let check = |expected: &str| {
        let done = site.smkictl("recovery check folder");
        assert_eq!(done.status, 5, "{}", done.err);
        assert!(done.err.contains(expected), "{}", done.err);
    };
    let file = site.path("folder/commands-000002.smkicmd");
    let good = fs::read(&file).unwrap();
    let mut altered = good.clone();
    altered[5_000] ^= 1;
    fs::write(&file, &altered).unwrap();
    check("commands-000002.smkicmd: expected");
    fs::write(&file, &good[..good.len() - 1]).unwrap();
    check("it was changed");
    fs::remove_file(&file).unwrap();
    check("it is missing");
    fs::write(&file, &good).unwrap();
    fs::write(site.path("folder/more"), b"").unwrap();
    check("its manifest does not name it");
    fs::remove_file(site.path("folder/more")).unwrap();
    site.smkictl("recovery check folder").ok();
    // Signed and fetched again into the same folder there is nothing new, and it stays as it is.
    site.smkictl(&format!("{sign} --out folder --format container --file-size 200")).ok();
    site.smkictl(&format!("recovery fetch {REQUEST} --out folder")).ok();
    assert_eq!(fs::read(&file).unwrap(), good);
    assert_eq!(manifest(&site.path("folder")).files.len(), 3);
    site.smkictl("recovery check folder").ok();
    daemon.stop().await.unwrap();
}

/// As a client that was killed leaves its folder: the file that was being written has no name, and no manifest is there.
fn cut(folder: &Path, keep: usize) -> PathBuf {
    let whole = manifest(folder);
    let lines = std::iter::once(serde_json::to_string(&whole.folder).unwrap())
        .chain(whole.files[..keep].iter().map(|file| serde_json::to_string(file).unwrap()));
    let text: String = lines.map(|line| line + "\n").collect();
    fs::write(folder.join(PARTIAL_NAME), text + "{\"name\":\"comm").unwrap();
    fs::remove_file(folder.join(NAME)).unwrap();
    for file in &whole.files[keep + 1..] {
        fs::remove_file(folder.join(&*file.name)).unwrap();
    }
    let begun = folder.join(&*whole.files[keep].name);
    let hidden = folder.join(format!(".{}.part", whole.files[keep].name));
    let half = fs::read(&begun).unwrap();
    fs::write(&hidden, &half[..half.len() / 2]).unwrap();
    fs::remove_file(begun).unwrap();
    hidden
}

#[tokio::test]
async fn a_fetch_that_was_cut_goes_on_after_what_is_whole_also_after_the_daemon_was_killed() {
    let site = Site::determined().await;
    let daemon = site.start_active().await;
    let sign = format!("recovery sign --determination {} --devices all --request {REQUEST}", site.main());
    site.smkictl(&format!("{sign} --out signed")).ok();
    site.smkictl(&format!("recovery fetch {REQUEST} --out folder --file-size 150")).ok();
    let before = manifest(&site.path("folder"));
    let hidden = cut(&site.path("folder"), 2);
    let not_whole = site.smkictl("recovery check folder");
    assert!(not_whole.status == 5 && not_whole.err.contains("not whole yet"), "{}", not_whole.err);

    daemon.kill().await.unwrap();
    // Its key is locked, which keeps nothing back that was signed.
    let daemon = site.start().await;
    let released = site.ledger().released().len();
    let again = site.smkictl(&format!("recovery fetch {REQUEST} --out folder --file-size 150")).ok();
    let after = before.files[1].last_intent;
    assert!(again.err.contains(&format!("going on after intent {after}")), "{}", again.err);
    assert_eq!(manifest(&site.path("folder")).files, before.files);
    assert!(contained(&site.path("folder")) == each(&site.path("signed")));
    assert!(!hidden.exists() && !site.path("folder").join(PARTIAL_NAME).exists());
    assert_eq!(
        site.ledger().released().len(),
        released,
        "what was released before is released again, and nothing else"
    );
    site.smkictl("ledger export export").ok();
    site.verify("export").ok();
    site.smkictl("recovery check folder --ledger export").ok();
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn what_a_kill_left_unknown_is_told_and_once_it_is_settled_its_request_gets_the_command() {
    let site = Site::determined().await;
    let ask = ask_for_all(site.main());
    killed_while_signing(&site, &ask, 300).await;
    site.fault(Which::Recovery, None);
    let daemon = site.start_active().await;
    let all = wire::RecoveryFetch::default();
    let items = whole(lines(&daemon.client, &fetch_path(ask.request), &all).await);
    let ledger = site.ledger();
    assert_eq!(commands(&items).len(), ledger.signed().len());
    let unknown = items.iter().filter(|item| item.outcome == ItemOutcome::Unknown).count();
    assert!(unknown > 0);
    let mut handed = Handed::default();
    handed.take(&site, &items);

    // Another request signs them again; this one gets their commands all the same, in the places of its own intents.
    let settle = settle_all(site.main());
    let settled = whole(lines(&daemon.client, SETTLE, &settle).await);
    assert_eq!(settled.len(), unknown);
    let items = whole(lines(&daemon.client, &fetch_path(ask.request), &all).await);
    assert!(items.iter().all(|item| item.outcome != ItemOutcome::Unknown), "{items:?}");
    handed.take(&site, &items);
    let places: Vec<u64> = items.iter().filter_map(|item| item.intent).collect();
    assert!(places.is_sorted());
    let own = whole(lines(&daemon.client, &fetch_path(settle.request), &all).await);
    assert!(commands(&own) == commands(&settled));
    handed.take(&site, &own);
    // The rest is signed by the same request in another batch, and all of it is fetched once.
    let rest = whole(lines(&daemon.client, SIGN, &ask).await);
    let items = whole(lines(&daemon.client, &fetch_path(ask.request), &all).await);
    assert_eq!(items.len(), DEVICES as usize);
    assert!(commands(&items) == commands(&rest));
    let after = wire::RecoveryFetch { after: items[99].intent, ..all };
    assert!(whole(lines(&daemon.client, &fetch_path(ask.request), &after).await) == items[100..]);
    site.smkictl("ledger export export").ok();
    site.verify("export").ok();
    let request = ask.request;
    site.smkictl(&format!("recovery fetch {request} --out fetched")).ok();
    site.smkictl("recovery check fetched --ledger export").ok();
    site.smkictl(&format!("ledger commands export --request {request} --out again")).ok();
    assert!(contained(&site.path("again")) == commands(&items));
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn a_folder_gets_the_command_of_what_was_unknown_among_those_that_it_has() {
    let site = Site::determined().await;
    let ask = ask_for_all(site.main());
    killed_while_signing(&site, &ask, 300).await;
    site.fault(Which::Recovery, Some("C_Sign 0 stop"));
    let daemon = site.start_active().await;
    // The rest is signed, and lies in the folder behind what is unknown.
    let (rest, _) = lines_and_stop(&daemon.client, SIGN, &ask).await.unwrap();
    let unknown = rest.iter().filter(|item| item.outcome != ItemOutcome::Signed).count();
    assert!(unknown > 0 && commands(&rest).len() == DEVICES as usize - unknown, "{unknown}");
    let fetch = format!("recovery fetch {} --out folder --file-size 100", ask.request);
    let first = site.smkictl(&fetch);
    assert!(first.out.contains(&format!("unknown  {unknown}")), "{}\n{}", first.out, first.err);
    let before = manifest(&site.path("folder"));
    assert_eq!(before.commands, u64::from(DEVICES) - unknown as u64);
    // Until it is settled, it is asked for, and what is there stays.
    let again = site.smkictl(&fetch);
    assert!(again.err.contains(&format!("asking again for {unknown} Devices that had no command")), "{}", again.err);
    assert_eq!(manifest(&site.path("folder")).files, before.files);
    let found = site.smkictl("recovery check folder").ok();
    assert!(found.out.contains(&format!("{unknown} Devices had no command yet")), "{}", found.out);

    // A further attempt at the first comes to nothing, which leaves it as unknown as it was; the others are signed.
    site.fault(Which::Recovery, Some("C_SignInit +1 return CKR_KEY_FUNCTION_NOT_PERMITTED"));
    let settle = settle_all(site.main());
    let settled = whole(lines(&daemon.client, SETTLE, &settle).await);
    let failed: Vec<&Item> = settled.iter().filter(|item| item.outcome != ItemOutcome::Signed).collect();
    assert!(settled.len() == unknown && !failed.is_empty() && failed.len() < unknown, "{failed:?}");
    assert!(failed.iter().any(|item| item.outcome == ItemOutcome::Failed), "{failed:?}");
    let left = failed.len();
    let again = site.smkictl(&fetch);
    assert!(again.out.contains(&format!("unknown  {left}")), "{}\n{}", again.out, again.err);
    fs::write(site.path("failed.txt"), format!("{}\n", failed[0].device)).unwrap();
    let of_settling = site.smkictl(&format!("recovery fetch {} --out settling", settle.request));
    assert!(of_settling.out.contains(&format!("unknown  {left}")), "{}\n{}", of_settling.out, of_settling.err);

    // Another attempt settles it, and whoever asked has it, whichever way it comes, in one place.
    whole(lines(&daemon.client, SETTLE, &settle_all(site.main())).await);
    site.smkictl(&fetch).ok();
    site.smkictl(&format!("recovery fetch {} --out settling", settle.request)).ok();
    assert_eq!(contained(&site.path("settling")).len(), unknown);
    site.smkictl(&format!("recovery fetch {} --out one --devices failed.txt", ask.request)).ok();
    site.smkictl(&format!("recovery fetch {} --out one", ask.request)).ok();
    let all = whole(lines(&daemon.client, &fetch_path(ask.request), &wire::RecoveryFetch::default()).await);
    assert_eq!(commands(&all).len(), DEVICES as usize);
    assert!(contained(&site.path("folder")) == commands(&all) && contained(&site.path("one")) == commands(&all));
    let sign = format!("recovery sign --determination {} --devices all --request {}", site.main(), ask.request);
    site.smkictl(&format!("{sign} --out signed --format container")).ok();
    site.smkictl(&format!("recovery fetch {} --out signed", ask.request)).ok();
    assert!(contained(&site.path("signed")) == commands(&all));
    site.smkictl("ledger export export").ok();
    site.verify("export").ok();
    site.smkictl(&format!("ledger commands export --request {} --out exported", ask.request)).ok();
    site.smkictl(&format!("recovery fetch {} --out exported", ask.request)).ok();
    assert!(contained(&site.path("exported")) == commands(&all));
    for folder in ["folder", "settling", "one", "signed", "exported"] {
        site.smkictl(&format!("recovery check {folder} --ledger export")).ok();
    }
    let found = site.smkictl("recovery check folder").ok();
    assert!(!found.out.contains("awaited"), "{}", found.out);
    let again = site.smkictl(&fetch).ok();
    let last = all.iter().filter_map(|item| item.intent).max().unwrap();
    assert!(again.err.contains(&format!("going on after intent {last}")), "{}", again.err);
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn what_a_request_signed_is_there_also_once_another_determination_has_signed_for_its_devices() {
    let site = Site::determined().await;
    let ask = ask_for(site.main(), 0..4);
    killed_while_signing(&site, &ask, 3).await;
    site.fault(Which::Recovery, None);
    let daemon = site.start_active().await;
    // Some are unknown, and settled by another request; then all have another command, under another determination.
    let settled = whole(lines(&daemon.client, SETTLE, &settle_all(site.main())).await);
    assert!(!settled.is_empty());
    let all = wire::RecoveryFetch::default();
    let before = whole(lines(&daemon.client, &fetch_path(ask.request), &all).await);
    assert_eq!(commands(&before).len(), 4, "{before:?}");
    let bounded = wire::RecoveryFetch { until: before[1].intent, ..all.clone() };
    let problem = problem(daemon.client.post::<_, serde_json::Value>(&fetch_path(ask.request), &bounded).await);
    assert_eq!(problem.error, ProblemKind::Malformed, "{problem:?}");
    let bounded = wire::RecoveryFetch { devices: Some((0..4).map(device).collect()), ..bounded };
    assert!(whole(lines(&daemon.client, &fetch_path(ask.request), &bounded).await) == before[..2]);
    let second = site.determine(&daemon.client, 2, &device_list(0..4), |_| {}).await.form().id;
    let other = ask_for(second, 0..4);
    let others = whole(lines(&daemon.client, SIGN, &other).await);
    assert_eq!(commands(&others).len(), 4, "{others:?}");
    for devices in [None, Some((0..4).map(device).collect())] {
        let fetch = wire::RecoveryFetch { devices, ..all.clone() };
        assert!(whole(lines(&daemon.client, &fetch_path(ask.request), &fetch).await) == before);
        assert!(commands(&whole(lines(&daemon.client, &fetch_path(other.request), &fetch).await)) == commands(&others));
    }
    site.verify_export("export");
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn nothing_is_handed_over_again_once_the_determination_is_not_in_force() {
    let site = Site::determined().await;
    let daemon = site.start_active().await;
    let ask = ask_for(site.main(), 0..4);
    whole(lines(&daemon.client, SIGN, &ask).await);
    let all = wire::RecoveryFetch::default();
    assert_eq!(whole(lines(&daemon.client, &fetch_path(ask.request), &all).await).len(), 4);
    let released = site.ledger().size();
    site.suspend(&daemon.client, &site.base.main).await;
    let refused = site.refused(&daemon.client, &fetch_path(ask.request), &all).await;
    assert_eq!(rules(&refused), ["suspended"]);
    assert_eq!(site.ledger().size(), released + 2, "the suspension, and the refusal");
    let absent = problem(lines(&daemon.client, &fetch_path(REQUEST), &all).await);
    assert!(absent.message.contains(REQUEST), "{}", absent.message);
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn what_was_signed_is_handed_over_while_its_key_is_locked_and_not_while_somebody_paused_the_incident() {
    let site = Site::determined().await;
    let daemon = site.start_active().await;
    let ask = ask_for(site.main(), 0..4);
    let signed = whole(lines(&daemon.client, SIGN, &ask).await);
    let all = wire::RecoveryFetch::default();
    let fetched = async |daemon: &Daemon| commands(&whole(lines(&daemon.client, &fetch_path(ask.request), &all).await));
    daemon.client.post_nothing::<wire::KeyChanged>(&format!("/v1/keys/{RECOVERY_KEY}/lock")).await.unwrap();
    assert!(fetched(&daemon).await == commands(&signed));
    daemon.kill().await.unwrap();
    let daemon = site.start().await;
    assert!(fetched(&daemon).await == commands(&signed), "nobody activated the key since it was killed");

    let carrier = site.carrier(&daemon.client, INCIDENT);
    let paused = carrier.step(Step::Pause { reason: "the first Responses look odd".into() }).await.unwrap();
    let refused = site.refused(&daemon.client, &fetch_path(ask.request), &all).await;
    assert_eq!(rules(&refused), ["incident-paused"]);
    assert!(refused.reasons[0].text.contains(&format!("entry {paused}")), "{refused:?}");
    daemon.stop().await.unwrap();
    let daemon = site.start().await;
    let refused = site.refused(&daemon.client, &fetch_path(ask.request), &all).await;
    assert_eq!(rules(&refused), ["incident-paused"], "a restart does not end the pause");
    site.activate(&daemon.client).await.unwrap();
    assert!(fetched(&daemon).await == commands(&signed));
    site.ledger().check();
    site.verify_export("export");
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn a_fetch_follows_a_request_that_still_runs_to_its_end() {
    let site = Site::determined().await;
    site.fault(Which::Recovery, Some("C_Sign 300 stop"));
    let daemon = site.start_active().await;
    let ask = ask_for_all(site.main());
    let (client, sent) = (daemon.client.clone(), ask.clone());
    let answer = tokio::spawn(async move { lines(&client, SIGN, &sent).await });
    site.reach(Which::Recovery, "C_Sign", 300).await;
    // Without following it says that there is more.
    let some = wire::RecoveryFetch::default();
    let (items, stopped) = lines_and_stop(&daemon.client, &fetch_path(ask.request), &some).await.unwrap();
    assert_eq!(stopped.unwrap().iter().map(|reason| &*reason.rule).collect::<Vec<_>>(), ["running"]);
    assert!(items.len() < DEVICES as usize);
    let follow = wire::RecoveryFetch { follow: true, ..some };
    let (client, path) = (daemon.client.clone(), fetch_path(ask.request));
    let follow = tokio::spawn(async move { lines(&client, &path, &follow).await });
    // The call goes on, and with it the rest; once it has stopped, which is not told.
    while !answer.is_finished() {
        for worker in daemon.workers() {
            let _ = signal(worker, rustix::process::Signal::CONT);
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let (followed, signed) = (whole(follow.await.unwrap()), whole(answer.await.unwrap()));
    assert!(commands(&followed) == commands(&signed));
    assert_eq!(followed.len(), DEVICES as usize);
    site.ledger().check();
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn what_was_signed_for_a_device_that_was_left_out_since_is_withheld_alone() {
    let site = Site::determined().await;
    let daemon = site.start_active().await;
    let ask = ask_for(site.main(), 0..4);
    whole(lines(&daemon.client, SIGN, &ask).await);
    let carrier = site.carrier(&daemon.client, INCIDENT);
    let devices = carrier.upload(&plain(&[device(1)]), 1).await.unwrap();
    carrier.step(Step::Exclude { devices, reason: "exchanged this morning".into() }).await.unwrap();
    for fetch in [None, Some(vec![device(0), device(1), device(2), device(3)])] {
        let fetch = wire::RecoveryFetch { devices: fetch, ..wire::RecoveryFetch::default() };
        let items = whole(lines(&daemon.client, &fetch_path(ask.request), &fetch).await);
        let withheld: Vec<_> = items.iter().filter(|item| item.outcome == ItemOutcome::Withheld).collect();
        assert_eq!(withheld.iter().map(|item| item.device).collect::<Vec<_>>(), [device(1)]);
        assert!(withheld[0].command.is_none() && &*withheld[0].reasons[0].rule == "excluded", "{withheld:?}");
        assert_eq!(commands(&items).len(), 3);
    }
    site.verify_export("export");
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn a_signature_that_somebody_edited_or_took_away_is_never_handed_over() {
    let site = Site::determined().await;
    let daemon = site.start_active().await;
    let ask = ask_for(site.main(), 0..4);
    whole(lines(&daemon.client, SIGN, &ask).await);
    let all = wire::RecoveryFetch::default();
    let items = whole(lines(&daemon.client, &fetch_path(ask.request), &all).await);
    let intent = |n: usize| items[n].intent.unwrap();
    // Another signature of the same key, of another command; and none.
    let others = format!(
        "UPDATE signature SET octets = (SELECT octets FROM signature WHERE intent = {}) WHERE intent = {}",
        intent(3),
        intent(1)
    );
    site.edit(&others, 1);
    site.edit(&format!("DELETE FROM signature WHERE intent = {}", intent(2)), 1);
    for devices in [None, Some((0..4).map(device).collect())] {
        let fetch = wire::RecoveryFetch { devices, ..all.clone() };
        let items = whole(lines(&daemon.client, &fetch_path(ask.request), &fetch).await);
        for at in [1, 2] {
            assert!(items[at].command.is_none() && items[at].outcome == ItemOutcome::Withheld, "{:?}", items[at]);
            assert!(items[at].reasons[0].text.contains("restore from a backup"), "{:?}", items[at].reasons);
        }
        assert_eq!(commands(&items).into_keys().collect::<Vec<_>>(), [device(0), device(3)]);
    }
    // Asked for by the request to sign again, they are not handed over either, and not signed again.
    let (items, _) = lines_and_stop(&daemon.client, SIGN, &ask).await.unwrap();
    assert_eq!(commands(&items).into_keys().collect::<Vec<_>>(), [device(0), device(3)]);
    assert_eq!(site.ledger().signed().len(), 4);
    daemon.kill().await.unwrap();
}

#[tokio::test]
async fn so_many_may_follow_at_a_time_and_whoever_fetches_what_is_there_waits_for_none_of_them() {
    const FOLLOWS: usize = 8;
    let site = Site::determined().await;
    site.fault(Which::Recovery, Some("C_Sign * delay 5ms"));
    let daemon = site.start_active().await;
    let client = &daemon.client;
    let determination = site.main();
    let job =
        wire::JobStart { request: REQUEST.parse().unwrap(), determination, list: None, per_hour: None, reason: None };
    let _: wire::Job = client.post("/v1/recovery/jobs", &job).await.unwrap();
    site.reach(Which::Recovery, "C_Sign", 20).await;
    let why = wire::Why { reason: "The DCC asked for it".to_owned() };
    let _: wire::Job = client.post(&format!("/v1/recovery/jobs/{REQUEST}/pause"), &why).await.unwrap();
    let (path, follow) = (fetch_path(REQUEST), wire::RecoveryFetch { follow: true, ..Default::default() });
    let mut following = Vec::new();
    for _ in 0..FOLLOWS {
        following.push(client.post_for_lines(&path, &follow).await.unwrap());
    }
    let turned_away = problem(client.post_for_lines(&path, &follow).await.map(drop));
    assert_eq!(turned_away.error, ProblemKind::TooMany);
    assert!(turned_away.message.contains("8 fetches with --follow"), "{turned_away:?}");
    let (_, stopped) = lines_and_stop(client, &path, &wire::RecoveryFetch::default()).await.unwrap();
    assert_eq!(stopped.unwrap().iter().map(|reason| &*reason.rule).collect::<Vec<_>>(), ["running"]);
    // The next comes in once one of them went away.
    drop(following.pop());
    let begun = std::time::Instant::now();
    while let Err(error) = client.post_for_lines(&path, &follow).await {
        assert_eq!(problem(Err::<(), _>(error)).error, ProblemKind::TooMany);
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "its turn is not given back");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn a_fetch_that_follows_a_job_is_not_whole_when_the_daemon_stops_before_its_end() {
    let site = Site::determined().await;
    let daemon = job_stopped(&site, "5ms", 20, "pause").await;
    let (client, follow) = (daemon.client.clone(), wire::RecoveryFetch { follow: true, ..Default::default() });
    let follow = tokio::spawn(async move { lines_and_stop(&client, &fetch_path(REQUEST), &follow).await });
    // It has what was signed, and waits for more; somebody else who follows goes away.
    let (path, same) = (fetch_path(REQUEST), wire::RecoveryFetch { follow: true, ..Default::default() });
    drop(daemon.client.post_for_commands(&path, &same).await.unwrap());
    while !site.ledger().open().is_empty() || site.ledger().released().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(daemon.stop().await.unwrap().success());
    // It says so, or it is cut: a summary alone would mean that this is all.
    if let Ok((items, Some(stopped))) = follow.await.unwrap() {
        assert_eq!(stopped.iter().map(|reason| &*reason.rule).collect::<Vec<_>>(), ["stopping"]);
        assert!(items.len() < DEVICES as usize);
    }
}

#[tokio::test]
async fn a_fetch_of_a_cancelled_job_is_not_whole_while_the_token_has_something_of_it() {
    let site = Site::determined().await;
    let daemon = job_stopped(&site, "400ms", 5, "cancel").await;
    let (path, now) = (fetch_path(REQUEST), wire::RecoveryFetch::default());
    let (_, stopped) = lines_and_stop(&daemon.client, &path, &now).await.unwrap();
    assert!(!site.ledger().open().is_empty(), "the token answered before it was asked: too fast a test");
    assert_eq!(&*stopped.unwrap()[0].rule, "running");
    // Whoever follows has the rest too, and what comes after that is the same.
    let follow = wire::RecoveryFetch { follow: true, ..now.clone() };
    let followed = whole(lines(&daemon.client, &path, &follow).await);
    assert!(site.ledger().open().is_empty());
    assert_eq!(commands(&followed).len(), site.ledger().signed().len());
    assert!(!commands(&followed).is_empty());
    assert!(whole(lines(&daemon.client, &path, &now).await) == followed);
    daemon.stop().await.unwrap();
}
