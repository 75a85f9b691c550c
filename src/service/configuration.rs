//! Shell: `/etc/smkid/smkid.toml`. All faults are told at once, each with its line; unknown keys are faults; nothing has a
//! default that is not a constant here. What an operator gets is shown by `smkid check-config`, with where each came from.
//!
//! Who may do what with a key is not configuration but policy (`keys-policy/`), which people sign. Here stands where things
//! are on this machine.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::api::authenticate::Roles;
use crate::domain::names::{Digest, TokenName};
use crate::domain::policy::files::{CHUNK_DEFAULT, CHUNK_MAX};
use crate::recorder::{SNAPSHOT_LEAVES, SNAPSHOT_LEAVES_MAX};

/// Where the configuration lies if nobody says otherwise.
pub const PATH: &str = "/etc/smkid/smkid.toml";
/// The version that this program reads.
pub const VERSION: u64 = 1;
/// The greatest file: a hundred tokens with long environments take a tenth of it.
pub const FILE_LEN_MAX: u64 = 1024 * 1024;

/// Where systemd's `StateDirectory=smkid` is.
pub const STATE: &str = "/var/lib/smkid";
/// Where systemd's `RuntimeDirectory=smkid` is, and where `smkictl` looks.
pub const SOCKET: &str = crate::api::client::SOCKET;
/// Root can become any account: refusing it protects nothing, and at 3 a.m. it is who is logged in.
pub const ROOT_IS_OPERATOR: bool = true;
/// One session per core of a small machine; measured on SoftHSM, more gain nothing there. A network HSM wants more.
pub const SESSIONS: u64 = 2;
/// The greatest number of sessions per token that is worth a thread each.
pub const SESSIONS_MAX: u64 = 64;
/// How long one call to a token may take, in milliseconds. The slowest P-256 signature of a smart card takes a second.
pub const DEADLINE_MS: u64 = 10_000;
/// The longest that may be given: a fence waits for a worker that is stopped as long as for its calls, and the watchdog ends the daemon, and
/// every activation with it, when nothing was recorded for 25 s.
pub const DEADLINE_MS_MAX: u64 = 20_000;
/// The longest for the ledger token: a checkpoint at a token that is dying may take two calls, and a new worker between them.
pub const LEDGER_DEADLINE_MS_MAX: u64 = 10_000;
/// How often, in seconds, the ledger's head is written to its token while a job runs. What a rolled-back disk can hide is bounded by it.
pub const HEAD_INTERVAL_S: u64 = 60;
/// Refusals of one account that are recorded one by one in a minute; more are counted in one entry.
pub const REFUSALS_PER_MINUTE: u64 = 60;
/// Octets that one account may have waiting as uploads: a list of ten million Devices with counters takes 400 MB, one of ten million
/// Relevant Devices with an evidence of a sentence each 900 MB.
pub const UPLOAD_QUOTA_OCTETS: u64 = 1024 * 1024 * 1024;
/// Octets that the waiting uploads of all accounts together may take: a quarter of a small server's disk. Recorded documents count
/// no longer.
pub const DISK_BUDGET_OCTETS: u64 = 8 * 1024 * 1024 * 1024;
/// The clock is that of the machine, unless an exercise sets it.
pub const CLOCK_OFFSET_MS: i64 = 0;
/// The most that an exercise may set the clock by, to either side: a hundred years, longer than there are smart meters.
pub const CLOCK_OFFSET_MS_MAX: i64 = 100 * 366 * 24 * 3_600_000;
/// Octets held in reserve, so that outcomes of what runs can be recorded once the disk is full.
pub const RESERVE_OCTETS: u64 = 256 * 1024 * 1024;

/// The settings of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// The directory with ledger and blobs.
    pub state: PathBuf,
    /// The socket, if none is passed by the service manager.
    pub socket: PathBuf,
    /// The group that may connect to it; the daemon's own if none.
    pub socket_group: Option<String>,
    /// Which groups have which role.
    pub roles: Roles,
    /// The tokens, in the order of the file.
    pub tokens: Vec<Token>,
    /// About the ledger.
    pub ledger: Ledger,
    /// About what accounts may use up.
    pub limits: Limits,
    /// Commands to a chunk.
    pub signing_chunk: usize,
    /// By how many milliseconds the clock is set against this machine's, behind it if negative. 0 but in an exercise: whether it
    /// is one is checked where ledger or policy are known.
    pub clock_offset_ms: i64,
    /// SHA-256 of the file, as the entry of each start names it.
    pub digest: Digest,
    /// Every setting as it is in effect, in the order of reading.
    pub settings: Vec<Setting>,
}

/// A token and how to come to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What policy and entries call it.
    pub name: TokenName,
    /// The vendor's PKCS#11 module.
    pub module: PathBuf,
    /// Its `CK_TOKEN_INFO.label`.
    pub label: String,
    /// Its `CK_TOKEN_INFO.serialNumber`.
    pub serial: String,
    /// Sessions at a time.
    pub sessions: u32,
    /// How long one call may take, in milliseconds.
    pub deadline_ms: u64,
    /// The environment of its worker, where the vendor's module reads its own settings.
    pub environment: BTreeMap<String, String>,
    /// Where its PIN is; none if custodians bring it. Whether a stored one is allowed depends on purpose and key, and is
    /// checked where those are known.
    pub pin: Option<Pin>,
}

/// Where a PIN is. Never the PIN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// In a credential of the service manager (`LoadCredential=`), by name.
    Credential(String),
    /// In a file.
    File(PathBuf),
}

/// About the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// The token of its key.
    pub token: TokenName,
    /// How often, in seconds, its head is written there while a job runs.
    pub head_interval_s: u64,
    /// Entries after which a snapshot of the state is taken.
    pub snapshot_entries: u64,
}

/// About what accounts may use up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Refusals of one account recorded one by one in a minute.
    pub refusals_per_minute: u64,
    /// Octets of the uploads of one account that wait for a document.
    pub upload_quota_octets: u64,
    /// Octets of the uploads of all accounts that wait for a document.
    pub disk_budget_octets: u64,
    /// Octets held in reserve for outcomes.
    pub reserve_octets: u64,
}

/// One setting in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name, such as `limits.reserve_octets`.
    pub name: String,
    /// Its value, as TOML writes it.
    pub value: String,
    /// Where it came from.
    pub source: Source,
}

/// Where a setting came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// This line of the file, counted from 1.
    Line(usize),
    /// The program's default.
    Default,
}

/// One thing that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line, counted from 1.
    pub line: usize,
    /// Which setting; empty if it is none.
    pub name: String,
    /// Expected, found, and what to do.
    pub text: String,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// The file cannot be read.
    #[error("{} cannot be read: {source}. `smkid --config FILE` reads another one", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is too long to be one.
    #[error("{} has {len} octets; a configuration has at most {FILE_LEN_MAX}", path.display())]
    TooLong {
        /// Which.
        path: PathBuf,
        /// How long.
        len: u64,
    },
    /// The file is wrong.
    #[error("{}", Faults(path, faults))]
    Faulty {
        /// Which.
        path: PathBuf,
        /// All that is wrong, by line.
        faults: Vec<Fault>,
    },
}

struct Faults<'a>(&'a Path, &'a [Fault]);

impl fmt::Display for Faults<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(path, faults) = self;
        for (at, fault) in faults.iter().enumerate() {
            let between = if at == 0 { "" } else { "\n" };
            let colon = if fault.name.is_empty() { "" } else { ": " };
            write!(f, "{between}{}:{}: {}{colon}{}", path.display(), fault.line, fault.name, fault.text)?;
        }
        Ok(())
    }
}

impl Configuration {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, ConfigurationError> {
        let unreadable = |source| ConfigurationError::Unreadable { path: path.to_owned(), source };
        let len = std::fs::metadata(path).map_err(unreadable)?.len();
        if len > FILE_LEN_MAX {
            return Err(ConfigurationError::TooLong { path: path.to_owned(), len });
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        Self::parse(&text).map_err(|faults| ConfigurationError::Faulty { path: path.to_owned(), faults })
    }

    /// Reads a text; says all that is wrong with it, by line.
    pub fn parse(text: &str) -> Result<Self, Vec<Fault>> {
        let reader = Reader { text, faults: RefCell::default(), settings: RefCell::default() };
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let line = error.span().map_or(1, |span| reader.line(span.start));
            reader.fault(line, "", error.message());
        }
        let read = if reader.faults.borrow().is_empty() { read(&reader, document.get_ref()) } else { None };
        let mut faults = reader.faults.into_inner();
        faults.sort_by(|a, b| (a.line, &a.name).cmp(&(b.line, &b.name)));
        match read {
            Some(mut configuration) if faults.is_empty() => {
                configuration.settings = reader.settings.into_inner();
                Ok(configuration)
            }
            Some(_) | None => Err(faults),
        }
    }

    /// What is not wrong in itself but will not work on this machine as it is now.
    pub fn warnings(&self) -> Vec<String> {
        let groups = self.roles.operator.iter().chain(&self.roles.auditor).chain(&self.socket_group);
        let mut warnings: Vec<String> = groups
            .filter(|name| !matches!(nix::unistd::Group::from_name(name), Ok(Some(_))))
            .map(|name| format!("the group {name:?} does not exist on this machine: nobody has a role by it"))
            .collect();
        for token in &self.tokens {
            if !token.module.is_file() {
                let module = token.module.display();
                warnings.push(format!("token {}: the PKCS#11 module {module} does not exist", token.name));
            }
        }
        if self.clock_offset_ms != 0 {
            warnings.push(format!(
                "the clock is set for an exercise, by {} ms: with a live ledger smkid does not start",
                self.clock_offset_ms
            ));
        }
        if self.roles.operator.is_empty() && !self.roles.root_is_operator {
            warnings.push("nobody is an operator: [roles] names no operator group, and root is none".to_owned());
        }
        warnings
    }
}

/// The whole file. None if something is missing, which is then among the faults.
fn read(reader: &Reader<'_>, document: &DeTable<'_>) -> Option<Configuration> {
    let top = Section::new(reader, String::new(), 1, Some(document));
    let version = top.integer("version", None, VERSION..=VERSION);
    let state = top.path("state", Some(STATE));
    let socket = top.path("socket", Some(SOCKET));
    let socket_group = top.optional("socket_group", Section::text);

    let section = top.section("roles");
    let operator = section.texts("operator");
    let auditor = section.texts("auditor");
    let root_is_operator = section.boolean("root_is_operator", ROOT_IS_OPERATOR);
    section.close();

    let tokens = top.sections("token").iter().map(token).collect::<Vec<_>>();
    let tokens: Option<Vec<Token>> = tokens.into_iter().collect();

    let section = top.section("ledger");
    let ledger_token = section.name::<TokenName>("token");
    let head_interval_s = section.integer("head_interval_s", Some(HEAD_INTERVAL_S), 1..=86_400);
    let snapshot_entries = section.integer("snapshot_entries", Some(SNAPSHOT_LEAVES), 64..=SNAPSHOT_LEAVES_MAX);
    section.close();
    if let (Some(tokens), Some(wanted)) = (&tokens, &ledger_token) {
        for (at, token) in tokens.iter().enumerate() {
            if tokens[..at].iter().any(|other| other.name == token.name) {
                reader.fault(
                    top.line_of("token"),
                    "token",
                    &format!("there are two tokens by the name {}", token.name),
                );
            }
            let is_same = |other: &&Token| other.label == token.label && other.serial == token.serial;
            if let Some(other) = tokens[..at].iter().find(is_same).filter(|other| other.name != token.name) {
                // Else a ledger key would share a token with another, or a clone be none.
                let text = format!(
                    "{} and {} have one label and one serial number: that is one token under two names. Each key of the policy \
                     that wants a token of its own must have one",
                    other.name, token.name
                );
                reader.fault(top.line_of("token"), "token", &text);
            }
        }
        let slow = tokens.iter().find(|token| token.name == *wanted && token.deadline_ms > LEDGER_DEADLINE_MS_MAX);
        if let Some(slow) = slow {
            let text = format!(
                "expected at most {LEDGER_DEADLINE_MS_MAX} for the ledger token, {wanted}, found {}: everything waits for its checkpoints, \
                 and the watchdog ends smkid when nothing is recorded for long",
                slow.deadline_ms
            );
            reader.fault(top.line_of("token"), "token.deadline_ms", &text);
        }
        if !tokens.iter().any(|token| token.name == *wanted) {
            let text =
                format!("expected the name of a [[token]], found {:?}. Describe that token too", wanted.as_str());
            reader.fault(section.line_of("token"), "ledger.token", &text);
        }
    }

    let section = top.section("limits");
    let octets = 1024 * 1024..=1 << 50;
    let refusals_per_minute = section.integer("refusals_per_minute", Some(REFUSALS_PER_MINUTE), 1..=6_000);
    let upload_quota_octets = section.integer("upload_quota_octets", Some(UPLOAD_QUOTA_OCTETS), octets.clone());
    let disk_budget_octets = section.integer("disk_budget_octets", Some(DISK_BUDGET_OCTETS), octets.clone());
    let reserve_octets = section.integer("reserve_octets", Some(RESERVE_OCTETS), octets);
    section.close();

    let section = top.section("signing");
    let chunk = section.integer("chunk", Some(u64::from(CHUNK_DEFAULT)), 1..=u64::from(CHUNK_MAX));
    section.close();

    let section = top.section("exercise");
    let offsets = -CLOCK_OFFSET_MS_MAX..=CLOCK_OFFSET_MS_MAX;
    let clock_offset_ms = section.signed("clock_offset_ms", Some(CLOCK_OFFSET_MS), offsets);
    section.close();
    top.close();

    let digest = ring::digest::digest(&ring::digest::SHA256, reader.text.as_bytes());
    version?;
    Some(Configuration {
        state: state?,
        socket: socket?,
        socket_group: socket_group?,
        roles: Roles { operator: operator?, auditor: auditor?, root_is_operator: root_is_operator? },
        tokens: tokens?,
        ledger: Ledger { token: ledger_token?, head_interval_s: head_interval_s?, snapshot_entries: snapshot_entries? },
        limits: Limits {
            refusals_per_minute: refusals_per_minute?,
            upload_quota_octets: upload_quota_octets?,
            disk_budget_octets: disk_budget_octets?,
            reserve_octets: reserve_octets?,
        },
        signing_chunk: usize::try_from(chunk?).expect("at most 2,000"),
        clock_offset_ms: clock_offset_ms?,
        digest: Digest::try_from(digest.as_ref()).expect("SHA-256 gives 32 octets"),
        settings: Vec::new(),
    })
}

fn token(section: &Section<'_, '_>) -> Option<Token> {
    let name = section.name("name");
    let module = section.path("module", None);
    let label = section.text("label");
    let serial = section.text("serial");
    let sessions = section.integer("sessions", Some(SESSIONS), 1..=SESSIONS_MAX);
    let deadline_ms = section.integer("deadline_ms", Some(DEADLINE_MS), 100..=DEADLINE_MS_MAX);
    let environment = section.section("environment");
    let pairs = environment.all_texts();
    environment.close();
    let pin = section.optional("pin", |section, key| {
        let pin = section.section(key);
        let credential = pin.optional("credential", Section::text)?;
        let file = pin.optional("file", |pin, key| pin.path(key, None))?;
        pin.close();
        match (credential, file) {
            (Some(name), None) if name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) => {
                Some(Pin::Credential(name))
            }
            (None, Some(path)) => Some(Pin::File(path)),
            (Some(_), None) => {
                pin.wrong("credential", "the name of a credential: letters, digits and . _ -", "another text")
            }
            (Some(_), Some(_)) => pin.wrong("credential", "either `credential` or `file`", "both"),
            (None, None) => pin.wrong("credential", "either `credential` or `file`", "neither"),
        }
    });
    section.close();
    Some(Token {
        name: name?,
        module: module?,
        label: label?,
        serial: serial?,
        sessions: u32::try_from(sessions?).expect("at most SESSIONS_MAX"),
        deadline_ms: deadline_ms?,
        environment: pairs?,
        pin: pin?,
    })
}

/// What reading has found so far.
struct Reader<'t> {
    text: &'t str,
    faults: RefCell<Vec<Fault>>,
    settings: RefCell<Vec<Setting>>,
}

impl Reader<'_> {
    fn line(&self, offset: usize) -> usize {
        1 + self.text.as_bytes()[..offset.min(self.text.len())].split(|octet| *octet == b'\n').skip(1).count()
    }

    fn fault(&self, line: usize, name: &str, text: &str) {
        self.faults.borrow_mut().push(Fault { line, name: name.to_owned(), text: text.to_owned() });
    }
}

/// One table, read key by key; [`Section::close`] then says which keys nobody asked for.
struct Section<'r, 't> {
    reader: &'r Reader<'t>,
    name: String,
    /// Where it begins.
    line: usize,
    table: Option<&'r DeTable<'t>>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'r, 't> Section<'r, 't> {
    fn new(reader: &'r Reader<'t>, name: String, line: usize, table: Option<&'r DeTable<'t>>) -> Self {
        Self { reader, name, line, table, asked: RefCell::default() }
    }

    fn full(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    fn get(&self, key: &'static str) -> Option<&'r Spanned<DeValue<'t>>> {
        self.asked.borrow_mut().push(key);
        self.table.and_then(|table| table.get(key))
    }

    /// The line of a key, or of its section if it is not there.
    fn line_of(&self, key: &str) -> usize {
        self.table.and_then(|table| table.get(key)).map_or(self.line, |value| self.reader.line(value.span().start))
    }

    fn wrong<T>(&self, key: &str, expected: &str, found: &str) -> Option<T> {
        let text = format!("expected {expected}, found {found}");
        self.reader.fault(self.line_of(key), &self.full(key), &text);
        None
    }

    #[allow(clippy::unnecessary_wraps)] // The end of each reader below, whose other ends give none.
    fn set<T>(&self, key: &str, shown: String, is_default: bool, value: T) -> Option<T> {
        let source = if is_default { Source::Default } else { Source::Line(self.line_of(key)) };
        self.reader.settings.borrow_mut().push(Setting { name: self.full(key), value: shown, source });
        Some(value)
    }

    /// `Some(None)` if the key is not there; none if it is wrong.
    #[allow(clippy::option_option)] // Absent and wrong are different, and both are asked about once.
    fn optional<T>(&self, key: &'static str, read: impl FnOnce(&Self, &'static str) -> Option<T>) -> Option<Option<T>> {
        if self.get(key).is_none() { Some(None) } else { read(self, key).map(Some) }
    }

    fn text(&self, key: &'static str) -> Option<String> {
        match self.get(key).map(Spanned::get_ref) {
            Some(DeValue::String(text)) if !text.is_empty() => {
                self.set(key, format!("{text:?}"), false, text.to_string())
            }
            Some(DeValue::String(_)) => self.wrong(key, "a text", "an empty one"),
            Some(other) => self.wrong(key, "a text in quotation marks", other.type_str()),
            None => self.wrong(key, "a text", "nothing. Set it"),
        }
    }

    fn path(&self, key: &'static str, default: Option<&str>) -> Option<PathBuf> {
        let (text, is_default) = match (self.get(key).map(Spanned::get_ref), default) {
            (Some(DeValue::String(text)), _) => (text.to_string(), false),
            (Some(other), _) => return self.wrong(key, "a path in quotation marks", other.type_str()),
            (None, Some(default)) => (default.to_owned(), true),
            (None, None) => return self.wrong(key, "a path", "nothing. Set it"),
        };
        if text.starts_with('/') {
            self.set(key, format!("{text:?}"), is_default, PathBuf::from(text))
        } else {
            self.wrong(key, "a path from the root", &format!("{text:?}"))
        }
    }

    fn name<T: FromStr<Err: fmt::Display>>(&self, key: &'static str) -> Option<T> {
        match self.get(key).map(Spanned::get_ref) {
            Some(DeValue::String(text)) => match text.parse() {
                Ok(name) => self.set(key, format!("{text:?}"), false, name),
                Err(error) => {
                    self.reader.fault(self.line_of(key), &self.full(key), &error.to_string());
                    None
                }
            },
            Some(other) => self.wrong(key, "a name in quotation marks", other.type_str()),
            None => self.wrong(key, "a name", "nothing. Set it"),
        }
    }

    fn integer(&self, key: &'static str, default: Option<u64>, range: RangeInclusive<u64>) -> Option<u64> {
        let signed = |limit: u64| i64::try_from(limit).expect("no limit of ours comes near 2^63");
        let value = self.signed(key, default.map(signed), signed(*range.start())..=signed(*range.end()))?;
        Some(u64::try_from(value).expect("it lies in a range of u64"))
    }

    fn signed(&self, key: &'static str, default: Option<i64>, range: RangeInclusive<i64>) -> Option<i64> {
        let form = || {
            let (least, most) = (range.start(), range.end());
            if least == most { format!("{least}") } else { format!("an integer from {least} to {most}") }
        };
        match (self.get(key).map(Spanned::get_ref), default) {
            (None, Some(default)) => self.set(key, default.to_string(), true, default),
            (None, None) => self.wrong(key, &form(), "nothing. Set it"),
            (Some(DeValue::Integer(found)), _) => {
                let digits: String = found.as_str().chars().filter(|digit| *digit != '_').collect();
                match i64::from_str_radix(&digits, found.radix()) {
                    Ok(value) if range.contains(&value) => self.set(key, value.to_string(), false, value),
                    Ok(_) | Err(_) => self.wrong(key, &form(), found.as_str()),
                }
            }
            (Some(other), _) => self.wrong(key, &form(), other.type_str()),
        }
    }

    fn boolean(&self, key: &'static str, default: bool) -> Option<bool> {
        match self.get(key).map(Spanned::get_ref) {
            None => self.set(key, default.to_string(), true, default),
            Some(DeValue::Boolean(value)) => self.set(key, value.to_string(), false, *value),
            Some(other) => self.wrong(key, "true or false", other.type_str()),
        }
    }

    fn texts(&self, key: &'static str) -> Option<Vec<String>> {
        let Some(value) = self.get(key) else { return self.set(key, "[]".to_owned(), true, Vec::new()) };
        let DeValue::Array(list) = value.get_ref() else {
            return self.wrong(key, "a list of texts", value.get_ref().type_str());
        };
        let mut texts = Vec::new();
        for text in list {
            match text.get_ref() {
                DeValue::String(text) if !text.is_empty() => texts.push(text.to_string()),
                other => return self.wrong(key, "a list of texts that are not empty", other.type_str()),
            }
        }
        self.set(key, format!("{texts:?}"), false, texts)
    }

    /// Every key with its text: a table whose keys are not ours.
    fn all_texts(&self) -> Option<BTreeMap<String, String>> {
        let mut texts = BTreeMap::new();
        for (key, value) in self.table.into_iter().flat_map(|table| table.iter()) {
            let (key, DeValue::String(text)) = (key.get_ref(), value.get_ref()) else {
                return self.wrong(key.get_ref(), "a text in quotation marks", value.get_ref().type_str());
            };
            if key.is_empty() || key.contains(['=', '\0']) || text.contains('\0') {
                return self.wrong(key, "a name and a text for an environment", "a character that cannot stand there");
            }
            self.set(key, format!("{text:?}"), false, ());
            texts.insert(key.to_string(), text.to_string());
        }
        Some(texts)
    }

    fn section(&self, key: &'static str) -> Section<'r, 't> {
        let found = self.get(key);
        let table = match found.map(Spanned::get_ref) {
            Some(DeValue::Table(table)) => Some(table),
            Some(other) => self.wrong(key, "a table", other.type_str()),
            None => None,
        };
        Section::new(self.reader, self.full(key), self.line_of(key), table)
    }

    fn sections(&self, key: &'static str) -> Vec<Section<'r, 't>> {
        let Some(value) = self.get(key) else {
            self.wrong::<()>(key, "at least one [[token]]", "none. Describe the token of the ledger's key");
            return Vec::new();
        };
        let DeValue::Array(list) = value.get_ref() else {
            self.wrong::<()>(key, "tables in double brackets", value.get_ref().type_str());
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (at, value) in list.iter().enumerate() {
            match value.get_ref() {
                DeValue::Table(table) => {
                    let line = self.reader.line(value.span().start);
                    sections.push(Section::new(self.reader, format!("{}[{at}]", self.full(key)), line, Some(table)));
                }
                other => {
                    self.wrong::<()>(key, "tables", other.type_str());
                }
            }
        }
        sections
    }

    /// Every key has been asked for: those that are left are unknown. A table without keys of ours is not closed for them.
    fn close(&self) {
        let asked = self.asked.borrow();
        if asked.is_empty() {
            return;
        }
        for (key, _) in self.table.into_iter().flat_map(|table| table.iter()) {
            if !asked.iter().any(|known| known == key.get_ref()) {
                let line = self.reader.line(key.span().start);
                let mut known = asked.clone();
                known.sort_unstable();
                known.dedup();
                let text = format!("unknown; known here are {}", known.join(", "));
                self.reader.fault(line, &self.full(key.get_ref()), &text);
            }
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value, source } = self;
        match source {
            Source::Line(line) => write!(f, "{name} = {value}  # line {line}"),
            Source::Default => write!(f, "{name} = {value}  # default"),
        }
    }
}

#[cfg(test)]
mod tests;
