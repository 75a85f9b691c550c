//! `smkid`, the daemon.

fn main() -> std::process::ExitCode {
    smkid::service::main(smkid::hsm::worker::main, smkid::custody::vault::process::main, |config| {
        smkid::service::daemon(config, smkid::service::engine::make)
    })
}
