//! `smkid`, the daemon.

fn main() -> std::process::ExitCode {
    smkid::service::main(smkid::hsm::worker::main, |config| {
        smkid::service::daemon(config, smkid::service::engine::make)
    })
}
