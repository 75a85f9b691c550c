//! The real `smkid` binary, as far as it needs no ledger.

use std::path::Path;
use std::process::{Command, Output};

fn smkid(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_smkid")).args(arguments).env_clear().output().unwrap()
}

fn check_config(text: &str) -> (Option<i32>, String, String) {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("smkid.toml");
    std::fs::write(&path, text).unwrap();
    let output = smkid(&["check-config", "--config", path.to_str().unwrap()]);
    let shown = |octets: Vec<u8>| String::from_utf8(octets).unwrap().replace(path.to_str().unwrap(), "F");
    (output.status.code(), shown(output.stdout), shown(output.stderr))
}

const GOOD: &str = "version = 1\n[[token]]\nname = \"l\"\nmodule = \"/nowhere/m.so\"\nlabel = \"l\"\nserial = \"1\"\n\
    [ledger]\ntoken = \"l\"\n";

#[test]
fn check_config_shows_each_setting_and_where_it_came_from() {
    let (status, stdout, stderr) = check_config(GOOD);
    assert_eq!(status, Some(0), "{stderr}");
    assert!(stdout.contains("state = \"/var/lib/smkid\"  # default\n"), "{stdout}");
    assert!(stdout.contains("token[0].serial = \"1\"  # line 6\n"), "{stdout}");
    assert!(stderr.contains("warning: token l: the PKCS#11 module /nowhere/m.so does not exist"), "{stderr}");
}

#[test]
fn check_config_tells_every_fault_with_its_line() {
    let text = GOOD.replace("version = 1", "version = 1\nsockett = \"/s\"\nstate = \"here\"");
    let (status, stdout, stderr) = check_config(&text);
    assert_eq!((status, &*stdout), (Some(78), ""));
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(lines[0].starts_with("F:2: sockett: unknown; known here are"), "{stderr}");
    assert_eq!(lines[1], "F:3: state: expected a path from the root, found \"here\"");
}

#[test]
fn the_example_is_a_configuration_and_names_the_groups_of_the_package() {
    let systemd = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let text = std::fs::read_to_string(systemd.join("smkid.toml")).unwrap();
    let (status, stdout, stderr) = check_config(&text);
    assert_eq!(status, Some(0), "{stderr}");
    let users = std::fs::read_to_string(systemd.join("smkid.sysusers")).unwrap();
    for group in ["smki-operator", "smki-auditor"] {
        assert!(stdout.contains(group) && users.contains(&format!("g {group} ")), "{group}: {stdout}");
    }
    // Whatever is commented out is a default, says the right one, and stands in the section where it belongs.
    let (mut section, mut defaults) = (String::new(), 0);
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("[[").and_then(|line| line.strip_suffix("]]")) {
            section = format!("{name}[0].");
        } else if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = format!("{name}.");
        } else if let Some((key, value)) = line.strip_prefix("#: ").and_then(|line| line.split_once(" = ")) {
            // Digits are grouped here for people.
            let value = if value.starts_with('"') { value.to_owned() } else { value.replace('_', "") };
            let expected = format!("{section}{key} = {value}  # default");
            assert!(stdout.lines().any(|line| line == expected), "{expected}\n{stdout}");
            defaults += 1;
        }
    }
    let all = stdout.lines().filter(|line| line.ends_with("  # default")).count();
    assert_eq!(defaults, all, "each default stands in the example, and nothing else does\n{stdout}");
}

#[test]
fn a_configuration_that_is_not_there_is_a_fault_of_configuration() {
    let output = smkid(&["check-config", "--config", "/nowhere/smkid.toml"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8(output.stderr).unwrap().contains("/nowhere/smkid.toml cannot be read"));
}

#[test]
fn help_shows_no_hidden_command_and_a_wrong_one_is_a_matter_of_usage() {
    let help = smkid(&["--help"]);
    assert!(help.status.success());
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("check-config") && !help.contains("hsm-worker"), "{help}");
    assert_eq!(smkid(&["no-such-command"]).status.code(), Some(2));
}

#[test]
fn the_example_of_the_help_names_the_path_that_is_read_by_default() {
    let help = String::from_utf8(smkid(&["--help"]).stdout).unwrap();
    assert!(help.contains(smkid::service::configuration::PATH), "{help}");
    assert!(Path::new(smkid::service::configuration::PATH).is_absolute());
}
