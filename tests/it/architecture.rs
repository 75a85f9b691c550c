//! The rooms of the source, and which of them may know which. Dependencies point one way.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each room with the rooms that it may use: those below it, and none above.
const ROOMS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    // Beside the rooms, since daemon, CLI and exercise all read it and none of them may know the other two.
    ("wall_clock", &["domain"]),
    ("processors", &[]),
    // Beside them for the same reason: marks of PINs and of stops are kept alike.
    ("durable_file", &[]),
    ("hsm", &["domain", "wall_clock", "durable_file"]),
    ("custody", &["domain", "hsm"]),
    ("store", &["domain"]),
    ("state", &["domain", "store", "processors"]),
    ("recorder", &["domain", "store", "state", "hsm"]),
    ("pipeline", &["domain", "store", "state", "hsm", "recorder"]),
    ("api", &["domain"]),
    (
        "service",
        &[
            "domain",
            "store",
            "state",
            "hsm",
            "recorder",
            "pipeline",
            "api",
            "wall_clock",
            "custody",
            "processors",
            "durable_file",
        ],
    ),
    ("exercise", &["domain", "hsm", "api", "wall_clock", "custody"]),
    (
        "cli",
        &[
            "domain",
            "store",
            "state",
            "hsm",
            "recorder",
            "api",
            "service",
            "exercise",
            "wall_clock",
            "custody",
            "processors",
        ],
    ),
    ("bin", &["service", "cli"]),
];

/// The same within `domain`, from the octets up to the audit.
const DOMAIN: &[(&str, &[&str])] = &[
    ("names", &[]),
    ("time", &[]),
    ("gbcs", &["names", "time"]),
    // A Root OCA Certificate carries a key that the symmetric key in a message unwraps.
    ("certificates", &["names", "time", "gbcs"]),
    ("ledger", &["names", "time"]),
    // How signed commands lie in files, and how one is made again from what the ledger keeps of it.
    ("commands", &["names", "gbcs", "ledger"]),
    ("determination", &["names", "time", "certificates", "ledger"]),
    // The layouts of files are part of a policy, which maps another's columns to them.
    ("files", &["names", "time", "ledger", "determination"]),
    // The procedure is data with dates: what a policy's files say. It knows documents, and neither policy nor state.
    ("procedure", &["names", "time", "ledger", "determination"]),
    // Dates are civil dates of London; an extract of SMI Statuses is a file; a direction is told in the story.
    ("incident", &["names", "time", "ledger", "determination", "procedure", "files"]),
    ("policy", &["names", "time", "gbcs", "certificates", "ledger", "determination", "procedure", "incident", "files"]),
    // What a Key Custodian signs. Whether enough of them presented is the policy's.
    ("custody", &["names", "time", "determination"]),
    // Below the fold, which keeps what Devices have answered.
    ("responses", &["names", "time", "gbcs", "certificates", "ledger", "policy"]),
    (
        "fold",
        &["names", "time", "gbcs", "ledger", "determination", "procedure", "incident", "files", "policy", "responses"],
    ),
    (
        "intake",
        &[
            "names",
            "time",
            "gbcs",
            "certificates",
            "ledger",
            "determination",
            "procedure",
            "incident",
            "files",
            "policy",
            "responses",
            "fold",
            "custody",
        ],
    ),
    (
        "audit",
        &[
            "names",
            "time",
            "gbcs",
            "certificates",
            "ledger",
            "determination",
            "procedure",
            "incident",
            "files",
            "policy",
            "responses",
            "fold",
            "custody",
            "intake",
        ],
    ),
];

/// What pure code cannot name: whoever decides is told the time, and handed octets.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::process",
    "std::env",
    "std::thread",
    "std::os",
    "SystemTime",
    "Instant::",
    "tokio::",
    "rusqlite",
    "cryptoki",
    "SystemRandom",
    "axum",
    "hyper",
    "tracing::",
];

/// A source file must stay short enough to be read in one sitting.
const LINES_MAX: usize = 1_500;

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The source without comments, which may speak of everything.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The modules that a file of the room at `folder` names by paths that begin with `prefix`.
fn named(code: &str, prefix: &str) -> BTreeSet<String> {
    let ident = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = BTreeSet::new();
    for part in code.split(prefix).skip(1) {
        if let Some(list) = part.strip_prefix('{') {
            // A list of modules: what stands at its own level, before each comma.
            let (mut depth, mut word) = (0, String::new());
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        names.insert(ident(word.trim()));
                        word.clear();
                    }
                    c if depth == 0 => word.push(c),
                    _ => {}
                }
            }
            names.insert(ident(word.trim()));
        } else {
            names.insert(ident(part));
        }
    }
    names
}

/// Which rooms each file names, against which it may.
fn check(rooms: &[(&str, &[&str])], home: &Path, prefix: &str) {
    let known: BTreeSet<&str> = rooms.iter().map(|(room, _)| *room).collect();
    let mut seen = BTreeSet::new();
    for path in sources(home) {
        let inner = path.strip_prefix(home).unwrap();
        let first = inner.components().next().unwrap().as_os_str().to_str().unwrap();
        let room = first.strip_suffix(".rs").unwrap_or(first);
        if matches!(room, "lib" | "mod") {
            continue;
        }
        // A test may make what it looks at by means of the rooms above: the policy that is shipped, for one.
        if path.ends_with("tests.rs") {
            continue;
        }
        let (room, may) =
            rooms.iter().find(|(name, _)| *name == room).unwrap_or_else(|| panic!("{} is in no room", inner.display()));
        seen.insert(*room);
        for name in named(&code(&path), prefix).iter().filter(|name| known.contains(name.as_str())) {
            assert!(
                name == room || may.contains(&name.as_str()),
                "{}: {room} may use {may:?} and names {prefix}{name}",
                inner.display()
            );
        }
    }
    assert_eq!(seen, known, "a room of the table has no source");
}

#[test]
fn every_room_uses_only_the_rooms_below_it() {
    check(ROOMS, &root(), "crate::");
}

#[test]
fn within_the_domain_dependencies_point_from_the_audit_down_to_the_names() {
    check(DOMAIN, &root().join("domain"), "crate::domain::");
}

#[test]
fn the_reading_of_paths_sees_lists_and_single_names() {
    let names = |code| named(code, "crate::").into_iter().collect::<Vec<_>>();
    assert_eq!(names("use crate::{api::{self, wire}, store};"), ["api", "store"]);
    assert_eq!(names("use crate::hsm::Token; fn f() -> crate::cli::Exit {}"), ["cli", "hsm"]);
    assert!(names("use std::fs;").is_empty());
}

#[test]
fn pure_code_names_no_clock_file_socket_thread_or_device() {
    for path in sources(&root().join("domain")) {
        // Tests may ask tools that we did not write, and the samples that they share make keys of the moment.
        if path.ends_with("tests.rs") || path.ends_with("gbcs/samples.rs") {
            continue;
        }
        let code = code(&path);
        for impure in IMPURE {
            assert!(!code.contains(impure), "{}: {impure} has no place in pure code", path.display());
        }
    }
}

#[test]
fn only_the_way_to_the_hsm_names_cryptoki_and_only_the_store_its_database() {
    for path in sources(&root()) {
        let inner = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let code = code(&path);
        // The limit program is what both are measured against: it goes past them.
        let is_limit = inner == "exercise/bench/limit.rs";
        let is_store = inner.starts_with("store/") || is_limit;
        assert!(!code.contains("rusqlite::") || is_store, "{inner} names the database");
        assert!(!code.contains("cryptoki::") || inner.starts_with("hsm/pkcs11") || is_limit, "{inner} names PKCS#11");
    }
}

#[test]
fn no_source_file_is_too_long_to_be_read() {
    for folder in ["src", "tests"] {
        for path in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)) {
            let lines = fs::read_to_string(&path).unwrap().lines().count();
            assert!(lines < LINES_MAX, "{} has {lines} lines; at most {LINES_MAX} are allowed", path.display());
        }
    }
}
