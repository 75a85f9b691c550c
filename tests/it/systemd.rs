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

#[test]
fn a_drop_in_for_an_hsm_keeps_within_the_limit() {
    let folder = installed(&["softhsm.conf"]);
    let security = ["security", "--offline=true", "--threshold", EXPOSURE_MAX];
    check(&analyze(&security, &folder.path().join("smkid.service")));
}

#[test]
fn systemd_understands_every_line_of_the_units() {
    let folder = installed(&["softhsm.conf"]);
    for name in ["smkid.service", "smkid.socket"] {
        let output = analyze(&["verify", "--man=no", "--recursive-errors=no"], &folder.path().join(name));
        check(&output);
        // An unknown key is a warning, and the status says nothing about it.
        let said = String::from_utf8_lossy(&output.stderr);
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("smkid.")).collect();
        assert!(ours.is_empty(), "{ours:#?}");
    }
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
