//! A site whose Recovery key is on two tokens: the policy names the second, and a ceremony found the clone there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use smkid::exercise::policy::{LEDGER_TOKEN, RECOVERY_KEY, RECOVERY_TOKEN};
use smkid::service::configuration::Configuration;
use tokio::sync::OnceCell;

use super::site::{Site, Snapshot};

/// What the policy calls the second token.
pub const COPY_TOKEN: &str = "smki-b";
/// What a policy after it calls the third.
pub const THIRD_TOKEN: &str = "smki-c";
/// How the policy has the key cloned to it.
pub const MEANS: &str = "files of the token, copied";

impl Site {
    /// With its determination, under a policy that has the Recovery key cloned to a second token; and that clone. No ceremony found
    /// it yet.
    pub async fn cloned() -> Self {
        static CLONED: OnceCell<Snapshot> = OnceCell::const_new();
        let determined = Self::determined().await;
        let snapshot = CLONED.get_or_init(|| async {
            let site = Self::determined().await;
            let daemon = site.start().await;
            site.adopt(&daemon.client, &site.cloned_policy(), vec![site.main()]).await;
            assert!(daemon.stop().await.unwrap().success());
            let reversed: String = site.serial(RECOVERY_TOKEN).chars().rev().collect();
            site.put_clone(COPY_TOKEN, &reversed);
            Snapshot::take(site.configuration.parent().unwrap())
        });
        Self::copy(determined.base, snapshot.await)
    }

    /// That policy.
    pub fn cloned_policy(&self) -> BTreeMap<String, Vec<u8>> {
        self.changed_policy("keys.toml", |text| {
            let token = format!("name = \"{RECOVERY_TOKEN}\"\n");
            let of_key = format!("token = \"{RECOVERY_TOKEN}\"\n");
            let copies = format!("{of_key}copies = [{{ token = \"{COPY_TOKEN}\", by = \"{MEANS}\" }}]\n");
            text.replace(&of_key, &copies).replace(&token, &format!("{token}\n[[token]]\nname = \"{COPY_TOKEN}\"\n"))
        })
    }

    /// The same, after the ceremony.
    pub async fn on_two_tokens() -> Self {
        static COPIED: OnceCell<Snapshot> = OnceCell::const_new();
        let cloned = Self::cloned().await;
        let snapshot = COPIED.get_or_init(|| async {
            let site = Self::cloned().await;
            let output = site.ceremony_copy(&[]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Snapshot::take(site.configuration.parent().unwrap())
        });
        Self::copy(cloned.base, snapshot.await)
    }

    /// A clone of the Recovery token, under that serial number, described in the configuration.
    fn put_clone(&self, name: &str, serial: &str) {
        clone_token(&self.path("tokens"), &self.serial(RECOVERY_TOKEN), serial);
        self.configure(|text| {
            // The same as the first, but for name and serial number.
            let first = text.split("[[token]]").find(|block| block.contains(RECOVERY_TOKEN)).unwrap();
            let first = first.split("\n[").next().unwrap();
            let lines = first.lines().map(|line| match line.split_once(" = ") {
                Some(("name", _)) => format!("name = \"{name}\""),
                Some(("serial", _)) => format!("serial = \"{serial}\""),
                Some(_) | None => line.to_owned(),
            });
            let block = lines.collect::<Vec<_>>().join("\n");
            text.replacen("\n[ledger]", &format!("\n[[token]]{block}\n\n[ledger]"), 1)
        });
    }

    /// The same a third time: the key is there, and neither policy nor ledger knows.
    pub fn put_third_token(&self) {
        let serial = self.serial(COPY_TOKEN);
        self.put_clone(THIRD_TOKEN, &format!("{}{}", &serial[3..], &serial[..3]));
    }

    /// `smkictl ceremony copy` of the Recovery key on the second token.
    pub fn ceremony_copy(&self, more: &[&str]) -> Output {
        self.ceremony_copy_to(COPY_TOKEN, more)
    }

    /// The same on any.
    pub fn ceremony_copy_to(&self, token: &str, more: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_smkictl"))
            .args(["ceremony", "copy", "--key", RECOVERY_KEY, "--token", token, "--config"])
            .arg(&self.configuration)
            .args(more)
            .output()
            .unwrap()
    }

    /// The serial number of a token, by the configuration.
    pub fn serial(&self, token: &str) -> String {
        let configuration = Configuration::read(&self.configuration).unwrap();
        configuration.tokens.into_iter().find(|found| found.name.as_str() == token).unwrap().serial
    }

    /// Takes a token out, as if it were unplugged. Answers what puts it back.
    pub fn take_out(&self, token: &str) -> impl FnOnce() + use<> {
        assert_ne!(token, LEDGER_TOKEN, "that one is another test's");
        let (here, there): (PathBuf, PathBuf) =
            (folder_of(&self.path("tokens"), &self.serial(token)), self.path(&format!("out-{token}")));
        fs::rename(&here, &there).unwrap();
        move || fs::rename(there, here).unwrap()
    }
}

/// Makes a second token of one in a folder of tokens: the same label, PIN, keys and objects under another serial number. This is what a maker's cloning comes to; SoftHSM has none, and a key brought in from outside is not what we accept.
pub fn clone_token(tokens: &Path, serial: &str, other: &str) {
    let folder = folder_of(tokens, serial);
    // The slot's number is made of the last eight digits, so those must differ.
    assert_ne!(other[other.len() - 8..], serial[serial.len() - 8..]);
    let copy = tokens.join(format!("copy-{other}"));
    super::desk::copy(&folder, &copy);
    rename_token(&copy, serial, other);
}

/// Gives the token in that folder another serial number of as many digits.
pub fn rename_token(folder: &Path, from: &str, to: &str) {
    let path = folder.join("token.object");
    let mut octets = fs::read(&path).unwrap();
    let at = octets.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    octets[at..at + from.len()].copy_from_slice(to.as_bytes());
    fs::write(path, octets).unwrap();
}

/// Where the files of the token with that serial number lie.
pub fn folder_of(tokens: &Path, serial: &str) -> PathBuf {
    let mut folders = fs::read_dir(tokens).unwrap().map(|entry| entry.unwrap().path());
    let found = folders.find(|folder| {
        let octets = fs::read(folder.join("token.object")).unwrap_or_default();
        octets.windows(serial.len()).any(|window| window == serial.as_bytes())
    });
    found.unwrap()
}
