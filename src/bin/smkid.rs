//! The daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("hsm-worker") => smkid::hsm::worker::main(),
        Some(_) | None => ExitCode::from(2),
    }
}
