//! Shell: a SoftHSM token of the moment, with one key that signs.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Fault;

/// Where distributions put the module.
const MODULES: [&str; 3] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
];

/// A token in a folder.
pub struct Token {
    /// The PKCS#11 module.
    pub module: PathBuf,
    /// What `SOFTHSM2_CONF` has to say.
    pub conf: PathBuf,
    /// The token's label.
    pub label: &'static str,
    /// Its PIN; it keeps nothing.
    pub pin: &'static str,
    /// The label of its key.
    pub key: &'static str,
}

impl Token {
    /// Makes one within a folder, which must exist.
    pub fn make(folder: &Path) -> Result<Self, Fault> {
        let module = MODULES.iter().map(PathBuf::from).find(|path| path.exists());
        let module =
            module.ok_or("no libsofthsm2.so in its usual places; on Debian: apt-get install softhsm2 opensc")?;
        let (tokens, conf) = (folder.join("tokens"), folder.join("softhsm2.conf"));
        std::fs::create_dir(&tokens)?;
        let text =
            format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", tokens.display());
        std::fs::write(&conf, text)?;
        let token = Self { module, conf, label: "benchmark", pin: "1234", key: "recovery-benchmark" };
        let Self { module, label, pin, key, .. } = &token;
        let module = module.to_str().ok_or("a module path that is text")?;
        token.run("softhsm2-util", &["--init-token", "--free", "--label", label, "--so-pin", pin, "--pin", pin])?;
        let login = ["--module", module, "--token-label", label, "--login", "--pin", pin];
        let keygen = ["--keypairgen", "--key-type", "EC:prime256v1", "--label", key, "--id", "01", "--usage-sign"];
        token.run("pkcs11-tool", &[&login[..], &keygen].concat())?;
        Ok(token)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<(), Fault> {
        let output = Command::new(program)
            .args(arguments)
            .env("SOFTHSM2_CONF", &self.conf)
            .output()
            .map_err(|error| format!("{program}: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
    }
}
