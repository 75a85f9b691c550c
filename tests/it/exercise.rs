//! A small exercise with the real programs, and what it leaves behind in the eyes of tools that we did not write.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use smkid::domain::certificates::signature::to_der;
use smkid::domain::gbcs::Frame;
use smkid::domain::ledger::custody::{CustodianPresented, Sealed};
use smkid::domain::ledger::entry::{Entry, Event};
use smkid::domain::names::Digest;

/// Enough that every Device is one of a crowd, few enough for a test.
const DEVICES: usize = 40;

fn smkictl(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smkictl"));
    command.args(arguments).env_remove("SMKID_SOCKET");
    command
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said).into_owned()).concat()
}

#[track_caller]
fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split_whitespace()).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", said(&output));
}

fn names(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn ending(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let names = names(folder);
    names.iter().filter(|name| name.ends_with(ending)).map(|name| folder.join(name)).collect()
}

#[test]
fn a_small_exercise_passes_and_leaves_behind_what_its_documentation_says() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out");
    let arguments = ["--output", "json", "exercise", "--devices", &DEVICES.to_string(), "--out", out.to_str().unwrap()];
    let output = smkictl(&arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));

    // The summary, once on stdout and once in its file.
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let written: serde_json::Value = serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
    assert_eq!(summary, written);
    assert_eq!((&summary["passed"], &summary["recovered"]), (&true.into(), &DEVICES.into()));
    assert!(summary["unknown"].as_u64().unwrap() > 0, "the kill fell between batches");
    assert_eq!(summary["unknown"], summary["settled"]);
    let refusals = summary["refusals"].as_array().unwrap();
    assert!(refusals.len() >= 12 && refusals.iter().all(|attempt| attempt["refused"] == true), "{refusals:#?}");

    check_layout(&out);
    check_commands(&out);
    check_determinations(&out);
    check_ceremony(&out);
    check_openings(&out, &summary);
    check_ledger(&out);

    // What was written by one exercise is not written over by another.
    let output = smkictl(&["exercise", "--devices", "1", "--out", out.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
}

/// Devices of a measurement at least, as `--help` says.
const MEASURED_MIN: usize = 8_000;

#[test]
fn a_measurement_ends_with_its_figures_each_beside_the_bound_that_was_measured_with_it() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out");
    let devices = MEASURED_MIN.to_string();
    let arguments = ["--output", "json", "exercise", "--bench", "--devices", &devices, "--out", out.to_str().unwrap()];
    let output = smkictl(&arguments).output().unwrap();
    let told = said(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let written: serde_json::Value = serde_json::from_slice(&fs::read(out.join("bench.json")).unwrap()).unwrap();
    assert_eq!(figures, written);
    let rounds = figures["rounds"].as_array().unwrap();
    assert_eq!((rounds.len(), &figures["turn"]), (7, &1_000.into()));
    // What is said to be a ratio of two figures is one, in each round and as the median of them.
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let rate = |side: &serde_json::Value| number(&side["commands_per_s"]);
    let mut ratios: Vec<f64> = rounds.iter().map(|round| rate(&round["smkid"]) / rate(&round["limit"])).collect();
    ratios.sort_by(f64::total_cmp);
    assert!((number(&figures["rate_over_limit"]["median"]) - ratios[3]).abs() < 1e-9, "{figures:#}");
    for (figure, least, most) in [
        ("verified_per_s", 1.0, 1e6),
        ("verify_over_ring", 0.001, 2.0),
        ("limit_cpu_over_cpu", 0.001, 2.0),
        ("rate_over_limit", 0.001, 2.0),
    ] {
        let median = number(&figures[figure]["median"]);
        assert!((least..most).contains(&median), "{figure}: {median}");
    }
    // Two entries a command, and those of the jobs.
    let entries = |start: &str| usize::try_from(figures[start]["entries"].as_u64().unwrap()).unwrap();
    let grown = entries("start_after") - entries("start_before");
    assert!((2 * MEASURED_MIN..2 * MEASURED_MIN + 500).contains(&grown), "{grown}");
    assert!((500..5_000).contains(&figures["disk_octets_per_command"].as_u64().unwrap()), "{figures:#}");
    for expected in ["smkid / limit program, commands each second", "Read the ratios"] {
        assert!(told.contains(expected), "{told}");
    }
    // Nothing of the commands is left, but the log of what was signed is, and it verifies.
    let verify = ["ledger", "verify", "ledger", "--key", "keys/ledger.vkey", "--genesis"];
    let genesis = fs::read_to_string(out.join("keys/genesis")).unwrap();
    let output = smkictl(&verify).arg(genesis.trim()).current_dir(&out).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

#[test]
fn a_measurement_of_too_few_devices_is_refused_before_anything_is_made() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out");
    let devices = (MEASURED_MIN - 1).to_string();
    for (arguments, says) in [
        (vec!["--devices", &devices], "--bench takes at least 8000 Devices"),
        (vec!["--scenario", "base"], "cannot be used with"),
        (vec!["--devices", "1000001"], "1000000"),
        (vec!["--devices", "0"], "1..=1000000"),
    ] {
        let output =
            smkictl(&["exercise", "--bench", "--out", out.to_str().unwrap()]).args(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(says), "{arguments:?}: {}", said(&output));
    }
    assert!(!out.exists());
}

#[test]
fn the_exercise_of_a_determination_not_to_execute_signs_nothing_and_names_every_stranded_device() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out");
    let arguments = ["--output", "json", "exercise", "--scenario", "not-to-execute", "--devices", "7"];
    let output = smkictl(&arguments).arg("--out").arg(&out).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));

    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&summary["passed"], &summary["scenario"]), (&true.into(), &"not-to-execute".into()));
    assert_eq!((&summary["recovered"], &summary["devices"]), (&0.into(), &7.into()));
    let refused = summary["refusals"].as_array().unwrap();
    assert!(refused.len() >= 5 && refused.iter().all(|attempt| attempt["refused"] == true), "{refused:#?}");

    let stranded = fs::read_to_string(out.join("stranded.csv")).unwrap();
    assert_eq!(stranded.lines().count(), 1 + 7, "{stranded}");
    assert_eq!(names(&out.join("commands")).len(), 0, "a command was released");
    // Fewer than 256 entries are one bundle, of the entries' own octets.
    let bundle = entry_bundle(&out);
    for kind in ["determination-recorded", "incident-closed"] {
        assert!(bundle.contains(&format!("\"event\":{{\"{kind}\"")), "{kind} is not in {bundle}");
    }
    for kind in ["custodian-presented", "key-activated", "batch", "intent", "released"] {
        assert!(!bundle.contains(&format!("\"event\":{{\"{kind}")), "{kind} is in {bundle}");
    }
}

#[test]
fn the_exercise_in_the_window_of_2017_has_its_clock_set_in_every_entry_and_leaves_whom_it_set_early_stranded() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out");
    let arguments = ["exercise", "--scenario", "variation-2017", "--devices", "7"];
    let output = smkictl(&arguments).arg("--out").arg(&out).output().unwrap();
    let told = said(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let summary: serde_json::Value = serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
    assert_eq!((&summary["passed"], &summary["scenario"]), (&true.into(), &"variation-2017".into()));
    assert_eq!((&summary["recovered"], &summary["devices"]), (&7.into(), &7.into()));
    let told: String = told.split_whitespace().collect::<Vec<_>>().join(" ");
    for expected in [
        "The clock is set for this exercise: it is 2017-08-01T09:00:0",
        "the variation of the procedure is in force",
        "Gate: SMI Status 'recovery' is not due yet",
        "refused Setting 'recovery' early, without the reason for it",
        "refused A determination to execute with the Contingency Private Key",
        "stays-unreachable, which clause (b) of the direction offers",
        "Gate: thresholds file is due.",
        "refused Preparing before SMI Status and thresholds file",
        "'recovery' is set with the reason for it",
        "Gate: SMI Status 'recovery' is done. By profile base, step set-smi-status-recovery. ok Gate: thresholds file is owed by \
         nobody any more",
        "3 Devices are stranded",
        "entries says that its clock was set for an exercise",
    ] {
        assert!(told.contains(expected), "expected {expected:?} in {told}");
    }
    assert_eq!(fs::read_to_string(out.join("stranded.csv")).unwrap().lines().count(), 1 + 3);
    check_openings(&out, &summary);
    check_ledger(&out);
}

/// The entries of the export, from the bundles of c2sp.org/tlog-tiles: the length of each in two octets, and the entry.
fn events(out: &Path) -> Vec<Event> {
    let folder = out.join("ledger/tile/entries");
    let mut events = Vec::new();
    for bundle in names(&folder) {
        let path = folder.join(&bundle);
        // The last one is partial, by its size in a folder of its own.
        let path = if path.is_dir() { path.join(names(&path).first().unwrap()) } else { path };
        let octets = fs::read(path).unwrap();
        let mut rest = &octets[..];
        while let Some((len, after)) = rest.split_first_chunk::<2>() {
            let (entry, next) = after.split_at(u16::from_be_bytes(*len).into());
            events.push(Entry::from_leaf(entry).unwrap().event);
            rest = next;
        }
    }
    events
}

/// The ceremony was held from a plan, and its shares are with those who hold them.
fn check_ceremony(out: &Path) {
    let events = events(out);
    let dealt: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::SharesDealt(dealt) => Some(dealt),
            _ => None,
        })
        .collect();
    let [dealt] = dealt[..] else { panic!("{dealt:?}") };
    let sealed: Vec<_> = dealt.holders.iter().map(|holder| matches!(holder.sealed, Sealed::Passphrase)).collect();
    assert_eq!((dealt.threshold, &sealed[..]), (2, &[true, false, false][..]));
    let folder = out.join("ceremony");
    let recorded = events.iter().find_map(|event| match event {
        Event::CeremonyRecorded(recorded) => Some(recorded),
        _ => None,
    });
    let recorded = recorded.unwrap();
    assert_eq!(recorded.plan, Digest::of(&fs::read(folder.join("plan.toml")).unwrap()));
    let minutes = fs::read_to_string(folder.join("minutes.txt")).unwrap();
    for said in ["custodian-3 of the exercise (custodian-3), Key Custodian", &dealt.sealed.to_string()] {
        assert!(minutes.contains(said), "expected {said:?} in {minutes}");
    }
    assert!(!folder.join("shares").exists(), "a share file was left behind");
}

/// Each time that the key was opened, two custodians of two Parties had presented anew, for that incident, what they had signed.
fn check_openings(out: &Path, summary: &serde_json::Value) {
    let events = events(out);
    let presented = |index: u64| match &events[usize::try_from(index).unwrap()] {
        Event::CustodianPresented(presented) => presented,
        other => panic!("entry {index}: {other:?}"),
    };
    let mut openings = Vec::new();
    let mut closed_at = 0;
    for (index, event) in events.iter().enumerate() {
        match event {
            Event::Started(_) | Event::KeyLocked(_) => closed_at = index as u64,
            Event::KeyActivated(activated) => {
                let custodians = &activated.custodians;
                let [first, second] = custodians[..] else { panic!("entry {index}: {activated:?}") };
                assert!(closed_at < first && first < second && second < index as u64, "entry {index}: {custodians:?}");
                let [first, second] = [presented(first), presented(second)];
                assert_ne!(first.signature.person, second.signature.person);
                for CustodianPresented { key, incident, .. } in [first, second] {
                    assert_eq!((key, Some(incident)), (&activated.key, activated.incident.as_ref()));
                }
                let people = [first.signature.person.as_str(), second.signature.person.as_str()];
                openings.push(serde_json::json!({ "incident": first.incident, "entry": index, "custodians": people }));
            }
            _ => {}
        }
    }
    assert_eq!(summary["openings"], serde_json::Value::Array(openings.clone()));
    let first = openings.iter().filter(|opening| opening["incident"] == "INC-EXERCISE-1").count();
    assert_eq!(first, 2, "the key is opened again after the kill: {openings:?}");
    assert!(openings.iter().any(|opening| opening["custodians"][0] != "custodian-1"), "another pair does, too");

    let rules: Vec<&str> = events
        .iter()
        .filter_map(|event| match event {
            Event::Refused(refused) => Some(&refused.reasons),
            _ => None,
        })
        .flatten()
        .map(|reason| &*reason.rule)
        .collect();
    // With nobody there, with one too few, and after the kill.
    assert_eq!(rules.iter().filter(|rule| **rule == "custodians").count(), 3, "{rules:?}");
    for rule in ["statement-replayed", "share-altered"] {
        assert!(rules.contains(&rule), "{rule} in {rules:?}");
    }

    // What was presented is what lies there, and openssl takes its signature.
    let folder = out.join("documents/custody");
    let mut stated = BTreeSet::new();
    for statement in ending(&folder, ".json") {
        let digest = Digest::of(&fs::read(&statement).unwrap());
        let stem = statement.file_stem().unwrap().to_str().unwrap();
        let p7s = ending(&folder, ".p7s").into_iter().find(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.split('.').next() == Some(stem)
        });
        let p7s = p7s.unwrap();
        let p7s = p7s.to_str().unwrap();
        // Where the clock is set, so are the certificates.
        if summary["scenario"] == "base" {
            openssl(
                &folder,
                &format!(
                    "cms -verify -binary -inform DER -in {p7s} -content {stem}.json -CAfile ../../policy/anchors/people.pem \
                     -out /dev/null"
                ),
            );
        }
        stated.insert(digest);
    }
    let presented = events.iter().filter_map(|event| match event {
        Event::CustodianPresented(presented) => Some(presented),
        _ => None,
    });
    for presented in presented {
        assert!(stated.contains(&presented.statement), "{presented:?}");
    }
}

fn entry_bundle(out: &Path) -> String {
    let folder = out.join("ledger/tile/entries/000.p");
    let bundles = names(&folder);
    assert_eq!(bundles.len(), 1, "{bundles:?}");
    String::from_utf8_lossy(&fs::read(folder.join(bundles.first().unwrap())).unwrap()).into_owned()
}

fn check_layout(out: &Path) {
    for folder in ["commands", "responses", "certificates/devices"] {
        assert_eq!(names(&out.join(folder)).len(), DEVICES, "{folder}");
    }
    for file in ["recovery.pem", "ledger.pem", "ledger.vkey", "genesis"] {
        assert!(out.join("keys").join(file).is_file(), "{file}");
    }
    let secrets = ["PRIVATE KEY", "softhsm"];
    for folder in ["keys", "documents", "documents/custody", "determination", "policy", "ceremony"] {
        for name in names(&out.join(folder)) {
            let text = fs::read(out.join(folder).join(&name)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            assert!(!secrets.iter().any(|secret| text.contains(secret)), "{folder}/{name}");
        }
    }
}

/// The chain of certificates, and the signature of each command and Response.
fn check_commands(out: &Path) {
    let (scratch, certificates) = (tempfile::tempdir().unwrap(), out.join("certificates"));
    for name in ["recovery", "supplier-ds", "network-operator-ka", "before/supplier-ds"] {
        // openssl knows no meaning for critical certificate policies of the SMKI, so it is told not to mind.
        openssl(
            &certificates,
            &format!("verify -ignore_critical -CAfile root-oca.pem -untrusted issuing-oca.pem {name}.pem"),
        );
    }
    let verify = |message: &Path, key: &Path| {
        let octets = fs::read(message).unwrap();
        let frame = Frame::parse(&octets).unwrap();
        fs::write(scratch.path().join("signed"), frame.tbs()).unwrap();
        fs::write(scratch.path().join("signature"), to_der(frame.signature().unwrap()).unwrap()).unwrap();
        openssl(scratch.path(), &format!("dgst -sha256 -verify {} -signature signature signed", key.to_str().unwrap()));
    };
    for command in ending(&out.join("commands"), ".bin") {
        verify(&command, &out.join("keys/recovery.pem"));
        let name = command.file_stem().unwrap().to_str().unwrap().to_owned();
        openssl(&certificates, &format!("verify -ignore_critical -CAfile device-ca.pem devices/{name}.pem"));
        let key = scratch.path().join("device.pem");
        openssl(&certificates, &format!("x509 -in devices/{name}.pem -pubkey -noout -out {}", key.to_str().unwrap()));
        verify(&out.join(format!("responses/{name}.bin")), &key);
    }
}

fn check_determinations(out: &Path) {
    let folder = out.join("determination");
    let documents = ending(&folder, ".json");
    assert_eq!(documents.len(), 3);
    for document in documents {
        let stem = document.file_stem().unwrap().to_str().unwrap().to_owned();
        let signatures: Vec<_> = ending(&folder, ".p7s");
        let signatures: Vec<_> = signatures
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap())
            .filter(|name| name.starts_with(&stem))
            .collect();
        assert_eq!(signatures.len(), 3, "{stem}");
        for p7s in signatures {
            openssl(
                &folder,
                &format!(
                    "cms -verify -binary -inform DER -in {p7s} -content {stem}.json -CAfile ../policy/anchors/people.pem \
                     -out /dev/null"
                ),
            );
        }
    }
}

fn check_ledger(out: &Path) {
    let genesis = fs::read_to_string(out.join("keys/genesis")).unwrap();
    let verify = |key: &str, genesis: &str| {
        let key = out.join("keys").join(key);
        let ledger = out.join("ledger");
        let arguments =
            ["ledger", "verify", ledger.to_str().unwrap(), "--key", key.to_str().unwrap(), "--genesis", genesis];
        smkictl(&arguments).output().unwrap()
    };
    for key in ["ledger.vkey", "ledger.pem"] {
        let output = verify(key, genesis.trim());
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    }
    let output = verify("ledger.vkey", &"0".repeat(64));
    assert_eq!(output.status.code(), Some(5), "{}", said(&output));
}

#[test]
fn an_exercise_that_is_interrupted_stops_what_it_has_started_and_removes_its_tokens() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out");
    let mut child = smkictl(&["exercise", "--devices", "20", "--out", out.to_str().unwrap()])
        .env("TMPDIR", scratch.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // The log is there as soon as the daemon is.
    let begun = Instant::now();
    while !out.join("smkid.log").exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the daemon was not started");
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(
        names(scratch.path()).iter().all(|name| !name.starts_with("smkid-exercise-")),
        "the tokens are still there"
    );
    // Every process that used the socket, the tokens or the configuration named the folder.
    let folder = scratch.path().to_str().unwrap().to_owned();
    let begun = Instant::now();
    while running_with(&folder) {
        assert!(begun.elapsed() < Duration::from_secs(10), "a daemon still runs");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a process was started with arguments that name a folder.
fn running_with(folder: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let is_process = entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        is_process && String::from_utf8_lossy(&arguments).contains(folder)
    })
}

/// Devices of the story about a compromised Root.
const ROOTED: usize = 12;

#[test]
fn the_exercise_of_a_compromised_root_replaces_it_on_every_device_and_leaves_the_symmetric_key_in_commands_alone() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out");
    let arguments =
        ["--output", "json", "exercise", "--scenario", "contingency", "--devices", &ROOTED.to_string(), "--out"];
    let output = smkictl(&arguments).arg(&out).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&summary["passed"], &summary["scenario"]), (&true.into(), &"contingency".into()), "{summary:#}");
    assert_eq!(summary["recovered"], ROOTED);
    let refused = summary["refusals"].as_array().unwrap();
    assert!(refused.iter().all(|attempt| attempt["refused"] == true), "{refused:#?}");
    for (what, said) in [
        ("A determination for mode 9 with the Recovery Private Key", "needs a contingency key"),
        ("A determination for mode 8 with the Contingency Private Key", "(mode)"),
        ("A determination with a new Root that carries no wrapped key", "(next-generation)"),
        ("Signing before the symmetric key is released", "(symmetric-key-released)"),
        ("A determination in another incident with the generation that is spent", "(spent-elsewhere)"),
    ] {
        let reasons =
            refused.iter().find(|attempt| attempt["what"] == what).map(|attempt| attempt["reasons"].to_string());
        assert!(reasons.as_ref().is_some_and(|reasons| reasons.contains(said)), "{what}: {reasons:?}");
    }

    // Looked for by this test, which shares nothing with the search of the story: in all files, as octets and as text.
    let command = fs::read(ending(&out.join("commands"), ".bin").first().unwrap()).unwrap();
    let (key, _) = smkid::domain::gbcs::take_symmetric_key(&command).unwrap();
    let forms = [key.octets().to_vec(), hex::encode(key.octets()).into_bytes()];
    let (mut with, mut without) = (0, 0);
    let mut folders = vec![out.clone()];
    while let Some(folder) = folders.pop() {
        for name in names(&folder) {
            let path = folder.join(name);
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let octets = fs::read(&path).unwrap();
            let has = forms.iter().any(|form| memchr::memmem::find(&octets, form).is_some());
            assert_eq!(has, path.starts_with(out.join("commands")), "{}", path.display());
            if has { with += 1 } else { without += 1 }
        }
    }
    assert!(with == ROOTED && without > 3 * ROOTED, "{with} and {without}");

    // A command as a Device sees it, before and after.
    let show = |root: &str| {
        let command = ending(&out.join("commands"), ".bin").swap_remove(0);
        smkictl(&["gbcs", "show", "--root", root]).arg(command).current_dir(out.join("certificates")).output().unwrap()
    };
    assert_eq!(show("held/root-oca.pem").status.code(), Some(0), "{}", said(&show("held/root-oca.pem")));
    for root in ["root-oca.pem", "next/root-oca.pem"] {
        assert_eq!(show(root).status.code(), Some(5), "{root}");
    }
}
