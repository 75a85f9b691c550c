//! `smkid`, the daemon.

use std::process::ExitCode;

use smkid::service::{self, End};

fn main() -> ExitCode {
    // WIRE: `service::main(smkid::hsm::worker::main, |config| service::daemon(config, make_engine))` once both are here.
    let absent = |what| eprintln!("this build has no {what}");
    service::main(
        || {
            absent("HSM worker");
            End::RefusedToStart.into()
        },
        |_| {
            absent("engine");
            End::RefusedToStart
        },
    )
}
