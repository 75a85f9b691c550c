//! Shell: the exercise's tokens, in SoftHSM, in a folder of their own. No token of the machine's is touched.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use secrecy::{ExposeSecret, SecretString};

use super::lab::{LabError, random};
use super::layout::{LayoutError, create_private, write_secret};

/// Where distributions put the module.
const MODULES: [&str; 7] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
];

/// The variable by which SoftHSM finds its configuration.
pub const CONFIGURATION_VARIABLE: &str = "SOFTHSM2_CONF";

/// Why there are no tokens.
#[derive(Debug, thiserror::Error)]
pub enum SoftHsmError {
    /// No module.
    #[error(
        "SoftHSM is not installed: expected libsofthsm2.so in one of {}. Install it (Debian, Ubuntu: apt-get install softhsm2; \
         Fedora: dnf install softhsm)",
        MODULES.join(", ")
    )]
    NoModule,
    /// No tool.
    #[error(
        "softhsm2-util did not start ({0}). Install it (Debian, Ubuntu: apt-get install softhsm2; Fedora: dnf install softhsm)"
    )]
    NoTool(#[source] io::Error),
    /// The tool failed.
    #[error("softhsm2-util {what}: {said}")]
    Tool {
        /// What it was to do.
        what: &'static str,
        /// What it said.
        said: String,
    },
    /// A token that was made is not shown.
    #[error("softhsm2-util --show-slots: expected a token {label} with a serial number, found none")]
    NotShown {
        /// Its label.
        label: String,
    },
    /// A file.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// No PIN.
    #[error(transparent)]
    Random(#[from] LabError),
}

/// A token that was made.
pub struct Token {
    /// Its label.
    pub label: String,
    /// Its serial number.
    pub serial: String,
    /// The file that holds its PIN, which its owner alone may read.
    pub pin_file: PathBuf,
    /// The same of its security officer's, where that is kept.
    pub so_pin_file: Option<PathBuf>,
}

/// SoftHSM with tokens in a folder of its own.
pub struct SoftHsm {
    module: PathBuf,
    configuration: PathBuf,
    folder: PathBuf,
}

impl SoftHsm {
    /// Prepares `folder`, which must exist, to hold tokens.
    pub fn prepare(folder: &Path) -> Result<Self, SoftHsmError> {
        let module = MODULES.iter().map(PathBuf::from).find(|path| path.exists()).ok_or(SoftHsmError::NoModule)?;
        let tokens = folder.join("tokens");
        create_private(&tokens)?;
        let configuration = folder.join("softhsm2.conf");
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n",
            tokens.display()
        );
        write_secret(&configuration, text.as_bytes())?;
        Ok(Self { module, configuration, folder: folder.to_owned() })
    }

    /// The PKCS#11 module.
    pub fn module(&self) -> &Path {
        &self.module
    }

    /// What [`CONFIGURATION_VARIABLE`] must be for whoever uses the tokens.
    pub fn configuration(&self) -> &Path {
        &self.configuration
    }

    /// Makes a token with random PINs. That of the user goes into a file; that of the security officer is forgotten.
    pub fn make_token(&self, label: &str) -> Result<Token, SoftHsmError> {
        self.make(label, false)
    }

    /// The same, with a file for the security officer's PIN too: a contingency key's ceremony asks for it.
    pub fn make_token_with_officer(&self, label: &str) -> Result<Token, SoftHsmError> {
        self.make(label, true)
    }

    fn make(&self, label: &str, keep_officer: bool) -> Result<Token, SoftHsmError> {
        let (pin, so_pin) = (pin()?, pin()?);
        // The tool takes PINs as arguments only, or from a terminal: for a moment they are seen in the list of processes. These
        // guard keys that nothing in the world trusts.
        self.tool(
            "--init-token",
            &["--free", "--label", label, "--pin", pin.expose_secret(), "--so-pin", so_pin.expose_secret()],
        )?;
        let slots = self.tool("--show-slots", &[])?;
        let serial = serial_of(&slots, label).ok_or_else(|| SoftHsmError::NotShown { label: label.to_owned() })?;
        let pin_file = self.folder.join(format!("{label}.pin"));
        write_secret(&pin_file, pin.expose_secret().as_bytes())?;
        let so_pin_file = keep_officer.then(|| self.folder.join(format!("{label}.so-pin")));
        if let Some(path) = &so_pin_file {
            write_secret(path, so_pin.expose_secret().as_bytes())?;
        }
        Ok(Token { label: label.to_owned(), serial, pin_file, so_pin_file })
    }

    fn tool(&self, what: &'static str, arguments: &[&str]) -> Result<String, SoftHsmError> {
        let output = Command::new("softhsm2-util")
            .arg(what)
            .args(arguments)
            .env(CONFIGURATION_VARIABLE, &self.configuration)
            .output()
            .map_err(SoftHsmError::NoTool)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).trim().to_owned());
        Err(SoftHsmError::Tool { what, said: said.join(" ").trim().to_owned() })
    }
}

/// 64 random bits in hexadecimal: as long as any PIN that tokens commonly take.
fn pin() -> Result<SecretString, LabError> {
    Ok(SecretString::from(hex::encode(random::<8>()?)))
}

/// The serial number of the token with that label: each token's block has first the one, then the other.
fn serial_of(slots: &str, label: &str) -> Option<String> {
    let mut serial = None;
    for line in slots.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        match name.trim() {
            "Serial number" => serial = Some(value.trim()),
            "Label" if value.trim() == label => return serial.map(str::to_owned),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests;
