//! Genuine GBCS messages and certificates, which are no part of the repository.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Once;

/// The folder that `SMKI_VECTORS` names. Without one it is said once, past the capture of the test runner, that tests do not
/// look at what they are for.
pub fn folder() -> Option<PathBuf> {
    static TOLD: Once = Once::new();
    let folder = std::env::var_os("SMKI_VECTORS").map(PathBuf::from);
    if folder.is_none() {
        TOLD.call_once(|| {
            let line = "\nskipped: SMKI_VECTORS names no folder, so nothing is checked against genuine GBCS messages and \
                        certificates\n";
            // One write, so that the lines of other tests do not come in between.
            std::io::stderr().write_all(line.as_bytes()).unwrap();
        });
    }
    folder
}
