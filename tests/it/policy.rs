//! The policies in `keys-policy/`: the example is one, and each file of `refused/` laid over it is none.

#![allow(clippy::unwrap_used, reason = "in a test, a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use smkid::domain::policy::{Policy, digest};

fn keys_policy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("keys-policy")
}

/// Every file below `dir`, by its path relative to `root`.
fn read(root: &Path, dir: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(root, &path, files);
        } else {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            files.insert(name, fs::read(&path).unwrap());
        }
    }
}

fn example() -> BTreeMap<String, Vec<u8>> {
    let root = keys_policy().join("example");
    let mut files = BTreeMap::new();
    read(&root, &root, &mut files);
    files
}

#[test]
fn the_example_is_a_policy() {
    Policy::parse(&example()).unwrap_or_else(|errors| panic!("{errors:#?}"));
}

/// The example is a whole policy, so it has the procedure; there is one text of that.
#[test]
fn the_procedure_of_the_example_is_the_one_that_is_shipped() {
    let root = keys_policy();
    let mut shipped = BTreeMap::new();
    read(&root, &root.join("procedure"), &mut shipped);
    let mut copied = example();
    copied.retain(|path, _| path.starts_with("procedure/"));
    assert_eq!(shipped.keys().collect::<Vec<_>>(), copied.keys().collect::<Vec<_>>());
    for (path, octets) in shipped {
        assert!(copied[&path] == octets, "keys-policy/{path} and its copy in example/ differ; copy it again");
    }
}

#[test]
fn each_file_in_refused_is_refused_for_the_reason_that_it_names() {
    let mut count = 0;
    for entry in fs::read_dir(keys_policy().join("refused")).unwrap() {
        let path = entry.unwrap().path();
        let octets = fs::read(&path).unwrap();
        let text = std::str::from_utf8(&octets).unwrap();
        let first = text.lines().next().unwrap().strip_prefix("# replaces ");
        let (replaced, reason) = first.and_then(|line| line.split_once(": ")).expect("# replaces FILE: reason");
        assert!(text.lines().nth(1).is_some_and(|why| why.starts_with("# ")), "{}: says no why", path.display());
        let mut files = example();
        files.insert(replaced.to_owned(), octets.clone());
        let errors = Policy::parse(&files).expect_err(&path.display().to_string());
        assert!(
            errors.iter().any(|error| error.to_string().contains(reason)),
            "{}: expected {reason:?}, found {errors:#?}",
            path.display()
        );
        count += 1;
    }
    assert!(count >= 25, "found only {count} files");
}

#[test]
fn the_digest_is_what_the_documented_command_prints() {
    let pipeline = "find . -type f | sed 's|^\\./||' | LC_ALL=C sort | xargs sha256sum | sha256sum";
    let printed =
        Command::new("sh").args(["-c", pipeline]).current_dir(keys_policy().join("example")).output().unwrap().stdout;
    let printed = String::from_utf8(printed).unwrap();
    assert_eq!(printed.split_whitespace().next().unwrap(), digest(&example()).to_string());
}

#[test]
fn the_anchors_are_what_openssl_reads_in_them() {
    let policy = Policy::parse(&example()).unwrap();
    for (name, found) in [
        ("root-oca", &policy.anchors().root_oca),
        ("issuing-oca", &policy.anchors().issuing_oca),
        ("device-ca", &policy.anchors().device_ca),
    ] {
        let path = keys_policy().join(format!("example/anchors/{name}.pem"));
        let der = Command::new("openssl").args(["x509", "-outform", "DER", "-in"]).arg(&path).output().unwrap().stdout;
        assert_eq!(found, &[der], "{name}");
    }
}
