//! Shell: what is asked of a token about a contingency key, besides signatures.

use super::{HsmError, Managed, Reply, Token, done, lock};
use crate::domain::gbcs::SymmetricKey;
use crate::domain::names::{KeyId, KeyLabel};
use crate::hsm::contingency::{Compared, Material, release_info};
use crate::hsm::one_time::OneTimeKey;
use crate::hsm::protocol::Manage;

impl Token {
    /// Makes the wrapping key that is to stand beside a contingency key. Where the security officer is logged in
    /// ([`PinSource::Officer`](crate::hsm::PinSource::Officer)) it is a trusted one, which alone wraps a key that says so.
    pub fn make_wrapping(&self, key: KeyLabel, id: KeyId) -> Reply<()> {
        self.manage(Manage::MakeWrapping { key, id }, done)
    }

    /// Makes the Contingency Symmetric Key beside a contingency key that was found or made on the token. Its wrapping key stands.
    /// Whether the module holds to `wrap_with_trusted` is tried: if not, [`HsmError::NotGuarded`], and nothing is made.
    pub fn make_symmetric(&self, key: KeyLabel, material: Material) -> Reply<()> {
        let inner = std::sync::Arc::downgrade(&self.0);
        let label = key.clone();
        self.manage(Manage::MakeSymmetric { key, material }, move |managed| {
            done(managed)?;
            // From here on the next worker must find it too.
            if let Some(inner) = inner.upgrade() {
                let keys = &mut lock(&inner.expectations).keys;
                if let Some(pair) = keys.iter_mut().find(|pair| pair.label == label) {
                    pair.material = Some(material);
                }
            }
            Some(())
        })
    }

    /// Wraps the public half of a contingency key with its symmetric key, in the token. Answers the value of the extension
    /// WrappedApexContingencyKey: DER ApexContingencyKey (RFC 5934, 9), AES-GCM.
    pub fn wrap_public(&self, key: KeyLabel) -> Reply<Vec<u8>> {
        self.manage(Manage::WrapPublic { key }, |managed| {
            if let Managed::Extension(extension) = managed { Some(extension) } else { None }
        })
    }

    /// Unwraps the value of an extension WrappedApexContingencyKey with the symmetric key of a contingency key, in the token, and compares
    /// it with the public half. Nothing else leaves the token.
    pub fn compare_wrapped(&self, key: KeyLabel, extension: Vec<u8>) -> Reply<Compared> {
        self.manage(Manage::CompareWrapped { key, extension: extension.into() }, |managed| {
            if let Managed::Compared(compared) = managed { Some(compared) } else { None }
        })
    }

    /// Lets the Contingency Symmetric Key of a contingency key out, to this process alone: sealed by the worker to a key that is made here
    /// for this one call. That it may be is decided and recorded before.
    ///
    /// # Errors
    /// What the token answered; [`HsmError::Protocol`] if what came was not sealed for this.
    pub async fn release_symmetric(&self, key: &KeyLabel) -> Result<SymmetricKey, HsmError> {
        let ours = OneTimeKey::make();
        let what = Manage::ReleaseSymmetric { key: key.clone(), seal_to: ours.seal_to().clone() };
        let sealed =
            self.manage(what, |managed| if let Managed::Sealed(sealed) = managed { Some(sealed) } else { None });
        let sealed = sealed.get().await?;
        let config = self.config();
        let opened = ours.open(&release_info(&config.name, &config.serial, key), &sealed);
        let octets = opened.map_err(|error| HsmError::Protocol { found: error.to_string() })?;
        SymmetricKey::new(&octets).map_err(|error| HsmError::Protocol { found: error.to_string() })
    }
}
