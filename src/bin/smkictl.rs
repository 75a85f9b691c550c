//! `smkictl`, the admin CLI.

fn main() -> std::process::ExitCode {
    smkid::cli::main()
}
