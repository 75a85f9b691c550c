//! A whole ledger exported and verified; and everything that can be wrong with one.

use std::path::{Path, PathBuf};

use smkid::cli::ledger_export::{self, LedgerExport, Output, Source, StoreSource};
use smkid::cli::ledger_verify::{self, LedgerVerify};
use smkid::domain::certificates::pem;

use crate::support::ledger_fixture::Fixture;

/// An export in a folder of its own, with the key beside it.
struct Export {
    folder: tempfile::TempDir,
    genesis: smkid::domain::names::Digest,
}

impl Export {
    fn of(fixture: &Fixture, source: &dyn Source) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ledger.vkey"), format!("{}\n", fixture.verifier.vkey())).unwrap();
        let export = Self { folder, genesis: fixture.genesis };
        let args = LedgerExport { dir: export.dir(), output: Output::Text };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let status = ledger_export::run(&args, source, &mut out, &mut err);
        assert_eq!(status, 0, "{}", String::from_utf8_lossy(&err));
        export
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("ledger")
    }

    fn args(&self) -> LedgerVerify {
        LedgerVerify {
            dir: self.dir(),
            key: self.folder.path().join("ledger.vkey"),
            genesis: self.genesis,
            checkpoint: None,
            tree_only: false,
            output: Output::Text,
        }
    }

    fn verify(&self) -> (u8, String, String) {
        run(&self.args())
    }
}

fn run(args: &LedgerVerify) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = ledger_verify::run(args, &mut out, &mut err);
    (status, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[test]
fn what_the_recorder_wrote_is_exported_and_verifies() {
    let fixture = Fixture::new();
    let reader = fixture.reader();
    let export = Export::of(&fixture, &StoreSource(&*reader));
    let (status, out, err) = export.verify();
    assert_eq!((status, err.as_str()), (0, ""));
    println!("{out}");
}
