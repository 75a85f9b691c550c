//! The units are what systemd takes them for, and as tight as we say. Needs `systemd-analyze`, and no running systemd.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Exposure level times ten: 1.3 for any profile.
const EXPOSURE_MAX: &str = "13";
/// And this for the one that is shipped, which needs sockets of this machine only.
const EXPOSURE_OF_SERVICE_MAX: &str = "5";

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

fn analyze(arguments: &[&str], unit: &Path) -> Output {
    Command::new("systemd-analyze").args(arguments).arg(unit).output().unwrap_or_else(|error| {
        panic!("systemd-analyze cannot be run ({error}); install the package `systemd`: these tests need it, not PID 1")
    })
}

/// The units in a folder of their own, with the program that was just built, and drop-ins for the service.
fn installed(drop_ins: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["smkid.service", "smkid.socket"] {
        let unit = std::fs::read_to_string(units().join(name)).unwrap();
        let unit = unit.replace("/usr/bin/smkid", env!("CARGO_BIN_EXE_smkid"));
        std::fs::write(folder.path().join(name), unit).unwrap();
    }
    let drop_in_folder = folder.path().join("smkid.service.d");
    std::fs::create_dir(&drop_in_folder).unwrap();
    for name in drop_ins {
        std::fs::copy(units().join(name), drop_in_folder.join(name)).unwrap();
    }
    folder
}

#[track_caller]
fn check(output: &Output) {
    let shown = [&output.stdout[..], &output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&shown));
}

#[test]
fn the_service_exposes_little() {
    let security = ["security", "--offline=true", "--threshold", EXPOSURE_OF_SERVICE_MAX];
    check(&analyze(&security, &units().join("smkid.service")));
}

#[test]
fn the_measure_would_fail_for_a_service_without_its_hardening() {
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("smkid.service");
    std::fs::write(&unit, "[Service]\nExecStart=/bin/true\n").unwrap();
    let output = analyze(&["security", "--offline=true", "--threshold", EXPOSURE_MAX], &unit);
    assert!(!output.status.success(), "the threshold has no effect here");
}

/// The drop-ins, one for each kind of HSM.
const DROP_INS: [&str; 4] = ["softhsm.conf", "hsm-network.conf", "hsm-local.conf", "hsm-device.conf"];

/// A setting that is commented out: `#Key=value`. Prose has a space behind the `#`.
fn is_alternative(line: &str) -> bool {
    let key = line.strip_prefix('#').and_then(|line| line.split_once('=')).map(|(key, _)| key);
    key.is_some_and(|key| key.starts_with(char::is_uppercase) && key.chars().all(char::is_alphanumeric))
}

/// The same with everything in the drop-ins that is commented out in force.
fn with_alternatives(folder: &tempfile::TempDir) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(folder.path().join("smkid.service.d")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().map(|line| {
            let is_one = is_alternative(line);
            count += usize::from(is_one);
            if is_one { &line[1..] } else { line }
        });
        let lines: Vec<&str> = lines.collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
    }
    count
}

#[test]
fn every_drop_in_is_for_a_kind_of_hsm_and_says_whether_it_was_tried() {
    for entry in std::fs::read_dir(units()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_drop_in = Path::new(&name).extension().is_some_and(|ending| ending == "conf");
        assert!(!is_drop_in || DROP_INS.contains(&name.as_str()), "{name} is not among those that are looked at");
    }
    for name in DROP_INS.into_iter().filter(|name| *name != "softhsm.conf") {
        let text = std::fs::read_to_string(units().join(name)).unwrap();
        assert!(text.contains("# UNTESTED with any HSM"), "{name}");
    }
}

#[test]
fn a_drop_in_for_an_hsm_keeps_within_the_limit() {
    let security = ["security", "--offline=true", "--threshold", EXPOSURE_MAX];
    for name in DROP_INS {
        let folder = installed(&[name]);
        check(&analyze(&security, &folder.path().join("smkid.service")));
        with_alternatives(&folder);
        check(&analyze(&security, &folder.path().join("smkid.service")));
    }
}

/// What systemd says of a unit that it reads. An unknown key is a warning, of which the status says nothing or not always.
fn said_of(folder: &tempfile::TempDir, unit: &str) -> Vec<String> {
    let output = analyze(&["verify", "--man=no", "--recursive-errors=no"], &folder.path().join(unit));
    let said = String::from_utf8_lossy(&output.stderr);
    let is_ours = |line: &&str| line.contains("smkid.") || line.contains("hsm-") || line.contains("softhsm.conf");
    said.lines().filter(is_ours).map(ToOwned::to_owned).collect()
}

#[test]
fn systemd_understands_every_line_of_the_units_and_drop_ins() {
    for name in DROP_INS {
        let folder = installed(&[name]);
        for unit in ["smkid.service", "smkid.socket"] {
            assert_eq!(said_of(&folder, unit), Vec::<String>::new(), "{name}");
            check(&analyze(&["verify", "--man=no", "--recursive-errors=no"], &folder.path().join(unit)));
        }
        let alternatives = with_alternatives(&folder);
        assert!(alternatives > 0 || name == "softhsm.conf", "{name} has lines that are commented out");
        assert_eq!(said_of(&folder, "smkid.service"), Vec::<String>::new(), "{name}, all of it");
    }
}

#[test]
fn a_misspelt_key_of_a_drop_in_would_be_noticed() {
    let folder = installed(&["hsm-network.conf"]);
    let path = folder.path().join("smkid.service.d/hsm-network.conf");
    let text = std::fs::read_to_string(&path).unwrap().replace("IPAddressAllow=", "IPAdressAllow=");
    std::fs::write(&path, text).unwrap();
    assert!(said_of(&folder, "smkid.service").iter().any(|line| line.contains("IPAdressAllow")));
}

#[test]
fn a_misspelt_key_would_be_noticed() {
    let folder = installed(&[]);
    let unit = folder.path().join("smkid.service");
    let text = std::fs::read_to_string(&unit).unwrap().replace("ProtectHome=", "ProtectHoem=");
    std::fs::write(&unit, text).unwrap();
    let output = analyze(&["verify", "--man=no", "--recursive-errors=no"], &unit);
    assert!(String::from_utf8_lossy(&output.stderr).contains("ProtectHoem"));
}

#[test]
fn the_accounts_are_those_of_the_units() {
    let users = std::fs::read_to_string(units().join("smkid.sysusers")).unwrap();
    let service = std::fs::read_to_string(units().join("smkid.service")).unwrap();
    let socket = std::fs::read_to_string(units().join("smkid.socket")).unwrap();
    let has = |kind: &str, name: &str| users.lines().any(|line| line.split_whitespace().take(2).eq([kind, name]));
    for line in service.lines().chain(socket.lines()) {
        match line.split_once('=') {
            Some(("User" | "Group", name)) => assert!(has("u", name), "{line}"),
            Some(("SocketGroup", name)) => assert!(has("g", name), "{line}"),
            Some(_) | None => {}
        }
    }
}
