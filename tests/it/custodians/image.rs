//! What images of the memory of daemon, vault and workers tell of a key that Key Custodians open, over the real daemon; and what lies on its
//! disk.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use memchr::memmem::Finder;
use rustix::process::Pid;
use secrecy::ExposeSecret as _;
use smkid::exercise::programs::Daemon;

use super::*;

/// What is found where there is nothing.
const NOTHING: [String; 0] = [];

/// All that can be read of a process's memory, each mapping in pieces that overlap.
pub fn image_has(pid: u32, needles: &[(&str, Vec<u8>)]) -> Vec<String> {
    const PIECE: usize = 1 << 20;
    let finders: Vec<_> = needles.iter().map(|(what, needle)| (*what, Finder::new(needle))).collect();
    let longest = needles.iter().map(|(_, needle)| needle.len()).max().unwrap();
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut found = Vec::new();
    let mut read = 0;
    for mapping in fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().lines() {
        let mut fields = mapping.split_whitespace();
        let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
        if !rights.starts_with('r') || mapping.ends_with("[vvar]") || mapping.ends_with("[vsyscall]") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let [mut from, to] = [from, to].map(|text| u64::from_str_radix(text, 16).unwrap());
        while from < to {
            let mut piece = vec![0; PIECE.min(usize::try_from(to - from).unwrap())];
            let Ok(len) = memory.read_at(&mut piece, from) else { break };
            if len == 0 {
                break;
            }
            read += len;
            for (what, finder) in &finders {
                if finder.find(&piece[..len]).is_some() {
                    found.push((*what).to_owned());
                }
            }
            let step = if len > longest { len - longest } else { len };
            from += u64::try_from(step.max(1)).unwrap();
        }
    }
    assert!(read > 1 << 20, "{read} octets of the memory of process {pid} could be read: is this an image?");
    found.sort();
    found.dedup();
    found
}

/// A secret as it may lie in memory.
pub fn forms(what: &'static str, octets: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let backwards: Vec<u8> = octets.iter().rev().copied().collect();
    vec![(what, octets.to_vec()), (what, backwards), (what, hex::encode(octets).into_bytes())]
}

/// What of it stands in a file below this folder.
fn files_have(folder: &Path, needles: &[(&str, Vec<u8>)]) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                let octets = fs::read(&path).unwrap();
                let has = needles.iter().filter(|(_, needle)| Finder::new(needle).find(&octets).is_some());
                found.extend(has.map(|(what, _)| format!("{what} in {}", path.display())));
            }
        }
    }
    found
}

/// A PIN of the moment in the place of the one that the exercise stored: that lies in a file, and in this program.
fn change_pin(site: &Site) -> SecretString {
    let mut random = [0; 16];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random).unwrap();
    let (old, new) = (Custody::pin(site), hex::encode(random));
    let configuration: toml::Table = fs::read_to_string(&site.configuration).unwrap().parse().unwrap();
    let tokens = configuration["token"].as_array().unwrap();
    let token = tokens.iter().find(|token| token["name"].as_str() == Some(RECOVERY_TOKEN)).unwrap();
    let of = |table: &toml::Value, name: &str| table[name].as_str().unwrap().to_owned();
    let output = Command::new("pkcs11-tool")
        .args(["--module", &of(token, "module"), "--token-label", &of(token, "label"), "--login", "--change-pin"])
        .args(["--pin", old.expose_secret(), "--new-pin", &new])
        .env("SOFTHSM2_CONF", of(&token["environment"], "SOFTHSM2_CONF"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    SecretString::from(new)
}

/// The processes of a daemon that were not there before, vault and worker of the key.
fn kinds(daemon: &Daemon, before: &[Pid]) -> (Vec<u32>, Vec<u32>) {
    let new = daemon.workers().into_iter().filter(|pid| !before.contains(pid)).map(Pid::as_raw_nonzero);
    let new: Vec<u32> = new.map(|pid| u32::try_from(pid.get()).unwrap()).collect();
    new.into_iter().partition(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        String::from_utf8_lossy(&line).contains("vault-worker")
    })
}

#[tokio::test]
async fn images_find_the_pin_in_the_vault_of_an_open_key_never_in_the_daemon_and_nowhere_once_it_is_locked() {
    if !rustix::process::geteuid().is_root() {
        std::io::Write::write_all(&mut std::io::stderr(), b"\nskipped: memory images, which only root can take\n")
            .unwrap();
        return;
    }
    let custody = Custody::adopted("custodians").await;
    let site = &custody.site;
    let pin = change_pin(site);
    custody.deal_under(pin.clone());
    let needles: Vec<(&str, Vec<u8>)> = [
        vec![("PIN", pin.expose_secret().as_bytes().to_vec())],
        forms("secret", custody.secret.octets()),
        forms("share", custody.shares[0].octets()),
        forms("share", custody.shares[1].octets()),
    ]
    .concat();
    let has = |pid: u32| image_has(pid, &needles);

    let daemon = site.start().await;
    let client = &daemon.client;
    let carrier = u32::try_from(daemon.pid().as_raw_nonzero().get()).unwrap();
    let before = daemon.workers();
    for n in [1, 2] {
        custody.present(client, n).await.unwrap();
    }
    let (vaults, _) = kinds(&daemon, &before);
    assert_eq!(has(vaults[0]), ["share"], "the search must find what is there, and nothing was put together yet");
    assert_eq!(has(carrier), NOTHING, "while shares are gathered");

    site.activate(client).await.unwrap();
    assert_eq!(whole(lines(client, "/v1/recovery/sign", &ask_for(site.main(), 0..2)).await).len(), 2);
    let (vaults, workers) = kinds(&daemon, &before);
    assert_eq!((vaults.len(), workers.len()), (1, 1));
    assert!(has(vaults[0]).contains(&"PIN".to_owned()), "the search must find what is there");
    assert_eq!(has(carrier), NOTHING, "while the key is open");
    let in_worker = has(workers[0]);
    assert!(in_worker.iter().all(|what| what == "PIN"), "{in_worker:?}");
    for pid in vaults.iter().chain(&workers) {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert!(core.split_whitespace().filter(|word| *word == "0").count() == 2, "no core dump: {core}");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
        let locked: u64 = locked.split_whitespace().next().unwrap().parse().unwrap();
        assert!(locked > 1_000, "pages are locked: {locked} kB of process {pid}");
    }

    site.lock(client).await.unwrap();
    for pid in vaults.iter().chain(&workers) {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is still there");
    }
    assert_eq!(has(carrier), NOTHING, "once it is locked");
    for pid in daemon.workers() {
        assert_eq!(has(u32::try_from(pid.as_raw_nonzero().get()).unwrap()), NOTHING, "in another worker");
    }
    site.verify_export("image");
    assert!(daemon.stop().await.unwrap().success());
    // Ledger and its export, configuration, tokens, logs. The control: in a file beside them it is found.
    assert!(site.path("image/checkpoint").exists());
    assert_eq!(files_have(&site.path("."), &needles), NOTHING);
    fs::write(site.path("control"), pin.expose_secret()).unwrap();
    assert_eq!(files_have(&site.path("."), &needles).len(), 1);
}
