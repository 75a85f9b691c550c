//! `smkid`, the daemon.

use std::process::ExitCode;

use smkid::service::{self, End};

fn main() -> ExitCode {
    // WIRE: `|config| service::daemon(config, make_engine)` once the engine is here.
    service::main(smkid::hsm::worker::main, |_| {
        eprintln!("this build has no engine");
        End::RefusedToStart
    })
}
