//! A whole ledger exported and verified; and everything that can be wrong with one.

mod device_certificates;
mod device_responses;
mod exports;
mod jobs;
mod snapshots;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use smkid::cli::contingency_command::ContingencyCommand;
use smkid::cli::ledger_export::{self, LedgerExport, Source};
use smkid::cli::ledger_verify::{self, LedgerVerify};
use smkid::cli::print::Output;
use smkid::domain::ledger::entry::{
    Actor, Batch, CertificationIntent, ClockAccepted, ClockJumped, ClockState, Event, ExerciseRecorded, FileAccepted,
    Genesis, Health, IncidentClosed, KeyActivated, KeyCopied, KeyLocked, LoginRetried, ProfileInForce, Reason, Refused,
    ResponseTally, Role, Settled, SigningResumed, Started, TokenFound, TokenHealth,
};
use smkid::domain::names::{DeterminationId, Digest, FileKind, Purpose, RequestId};
use smkid::domain::time::Timestamp;

use crate::lab::Key;
use crate::support::ledger_fixture::{COUNTER_START, DEVICES, Fixture, Forge, HOUR_MS, PER_HOUR, device};

pub use device_responses::{FIRST, responses};

/// An export in a folder of its own, with the key beside it.
struct Export {
    folder: tempfile::TempDir,
    genesis: Digest,
}

impl Export {
    fn of(fixture: &Fixture, source: &dyn Source) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ledger.vkey"), format!("{}\n", fixture.verifier.vkey())).unwrap();
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
            contingency: ContingencyCommand::default(),
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

/// Every file of an export, by its path.
pub(crate) fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Forges a ledger from a mark on, with the ledger key: it must be refused at the entry that the forgery answers.
#[track_caller]
fn forged(fixture: &Fixture, mark: &str, expected: &str, forgery: impl FnOnce(&mut Forge<'_>) -> u64) {
    let mut forge = fixture.forge(mark);
    let index = forgery(&mut forge);
    let export = Export::of(fixture, &forge);
    let (status, out, err) = export.verify();
    assert_eq!(status, 5, "{expected}: {out}");
    let place = format!("entry {index}, {}: ", forge.entry(index).event.kind());
    assert!(err.contains(&place) && err.contains(expected), "expected {place}… {expected}, found {err}");
}

fn start(forge: &mut Forge<'_>) {
    let digest = Digest([0xAB; 32]);
    let started = Started { version: "0.1.0".into(), program: digest, configuration: digest, unconfirmed: None };
    forge.push_by(Actor::daemon(), Event::Started(started));
    let activated = forge.entry(forge.last("key-activated")).event;
    forge.push(activated);
}

/// The Recovery key is found on a further token, as the policy has it; or not quite.
fn copy(forge: &mut Forge<'_>, change: impl FnOnce(&mut KeyCopied)) -> u64 {
    let Event::Genesis(genesis) = forge.entry(0).event else { panic!("no genesis") };
    let key = genesis.keys.into_iter().find(|key| key.label.as_str() == "recovery-1").unwrap();
    let mut copied = KeyCopied {
        key: key.label,
        token: "smki-b".parse().unwrap(),
        serial: "0002".into(),
        spki_sha256: key.spki_sha256,
        by: "The maker's domain cloning, at the ceremony".into(),
    };
    change(&mut copied);
    forge.push_by(Actor { person: None, role: Role::Ceremony, ..Actor::daemon() }, Event::KeyCopied(copied))
}

/// It is activated on its own token and on these.
fn activate_on(forge: &mut Forge<'_>, also: &[(&str, &str)]) -> u64 {
    let Event::KeyActivated(mut activated) = forge.entry(forge.last("key-activated")).event else {
        panic!("no activation")
    };
    let found =
        also.iter().map(|(token, serial)| TokenFound { token: token.parse().unwrap(), serial: (*serial).into() });
    activated.also = found.collect();
    forge.push(Event::KeyActivated(activated))
}

#[test]
fn a_key_that_a_ceremony_found_on_a_further_token_is_activated_there_too() {
    let fixture = Fixture::new();
    let mut forge = fixture.forge("first job");
    copy(&mut forge, |_| {});
    activate_on(&mut forge, &[("smki-b", "0002")]);
    assert_eq!(Export::of(&fixture, &forge).verify().0, 0);
}

fn health(since: Timestamp) -> TokenHealth {
    let (token, cause) = ("recovery-a".parse().unwrap(), Some("gone".into()));
    let (from, to) = (Health::Up, Health::Down);
    TokenHealth { token, from, to, since, function: None, code: None, cause, folded: 0 }
}

fn login_retried(asked: Timestamp) -> LoginRetried {
    LoginRetried { token: "ledger-a".parse().unwrap(), serial: "1".into(), asked, was: "refused".into() }
}

#[test]
fn what_goes_on_honestly_verifies() {
    let fixture = Fixture::new();
    let mut forge = fixture.forge("first job");
    forge.command(50, device(2), COUNTER_START + 2);
    let batch = forge.batch(51);
    let retry = forge.intent(batch, device(1), COUNTER_START + 1, 2);
    forge.checkpoint();
    forge.sign(retry);
    // A start in between: the request goes on in another batch, and all of it is released.
    start(&mut forge);
    let batch = forge.batch(51);
    let pre_command = forge.intent(batch, device(4), COUNTER_START + 1_001, 1);
    forge.checkpoint();
    forge.sign(pre_command);
    forge.release(51, vec![(retry, pre_command + 1)]);
    forge.release(51, vec![(pre_command, pre_command + 1)]);
    forge.push_by(Actor::daemon(), Event::ClockJumped(ClockJumped { by_ms: 9_999 }));
    forge.clock = ClockState::Untrusted;
    forge.push(Event::ClockAccepted(ClockAccepted { reason: "A watch".into(), from: None }));
    forge.clock = ClockState::Trusted;
    forge.batch(52);
    let at = forge.at;
    forge.push_by(Actor::daemon(), Event::TokenHealth(health(at)));
    forge.push_by(Actor::daemon(), Event::TokenHealth(TokenHealth { to: Health::Up, folded: 1, ..health(at) }));
    forge.push(Event::LoginRetried(login_retried(at)));
    let (status, _, err) = Export::of(&fixture, &forge).verify();
    assert_eq!((status, err.as_str()), (0, ""));
}

#[test]
fn commands_that_no_rule_allows_are_found_though_the_ledger_key_signed_them() {
    let fixture = Fixture::new();
    let check = |expected: &str, forgery: fn(&mut Forge<'_>) -> u64| forged(&fixture, "first job", expected, forgery);
    let next = COUNTER_START + 2;
    assert_eq!(next, 7_002, "the forgeries below count from there");
    check("no determination 09", |forge| {
        let batch = forge.batch(50);
        let Event::Batch(batch) = forge.entry(batch).event else { panic!("no batch") };
        forge.cut(forge.size() - 1);
        forge.push(Event::Batch(Batch { determination: DeterminationId([9; 16]), ..batch }))
    });
    check("counter-too-low", |forge| {
        let batch = forge.batch(50);
        forge.intent(batch, device(2), 7_001, 1)
    });
    check("counter-too-high", |forge| {
        let batch = forge.batch(50);
        forge.intent(batch, device(2), 7_001 + 1_001, 1)
    });
    check("device-out-of-scope", |forge| {
        let batch = forge.batch(50);
        forge.intent(batch, "00DB1234567890FF".parse().unwrap(), 7_001, 1)
    });
    check("already-signed", |forge| {
        let batch = forge.batch(50);
        forge.intent(batch, device(0), 7_002, 1)
    });
    check("outcome-unknown", |forge| {
        let batch = forge.batch(50);
        forge.intent(batch, device(1), 7_002, 1)
    });
    check("nothing-unknown", |forge| {
        let batch = forge.batch(50);
        forge.intent(batch, device(4), 7_001, 2)
    });
    check("expected counter 7001, attempt 2", |forge| {
        let batch = forge.batch(50);
        forge.intent(batch, device(1), 7_002, 2)
    });
    check("in-flight", |forge| {
        let batch = forge.batch(50);
        forge.intent(batch, device(2), 7_002, 1);
        forge.intent(batch, device(2), 7_003, 1)
    });
    check("rate: the determination permits", |forge| {
        let batch = forge.batch(50);
        let intents = (5..PER_HOUR).map(|at| {
            let intent = forge.intent(batch, device(2), 7_002 + at - 5, 1);
            forge.not_signed(intent);
        });
        intents.for_each(drop);
        forge.intent(batch, device(4), 7_002, 1)
    });
    check("has SHA-256", |forge| {
        let batch = forge.batch(50);
        forge.intent(batch, device(2), 7_002, 1);
        forge.replace("intent", |event| {
            let Event::Intent(intent) = event else { panic!("no intent") };
            intent.command = Digest::of(b"a floor, changed");
        })
    });
    check("expected template esme, found gsme", |forge| {
        let batch = forge.batch(50);
        forge.intent(batch, device(2), 7_002, 1);
        forge.replace("intent", |event| {
            let Event::Intent(intent) = event else { panic!("no intent") };
            intent.template = "gsme".parse().unwrap();
        })
    });
    check("window: ", |forge| {
        forge.at = forge.at.plus_ms(7 * HOUR_MS);
        forge.batch(50)
    });
    check("window: ", |forge| {
        let batch = forge.batch(50);
        forge.at = forge.at.plus_ms(7 * HOUR_MS);
        forge.intent(batch, device(2), 7_002, 1)
    });
    check("key-locked", |forge| {
        let locked = KeyLocked { key: "recovery-1".parse().unwrap(), reason: "on demand".into(), incident: None };
        forge.push(Event::KeyLocked(locked));
        forge.batch(50)
    });
    check("incident-not-open", |forge| {
        let closed = IncidentClosed {
            incident: "INC-1".parse().unwrap(),
            reason: "done".into(),
            profile: None,
            departures: vec![],
        };
        forge.push(Event::IncidentClosed(closed));
        forge.batch(50)
    });
    check("was used in entry", |forge| {
        forge.batch(50);
        forge.batch(50);
        forge.replace("batch", |event| {
            let Event::Batch(batch) = event else { panic!("no batch") };
            batch.asked = Digest([0; 32]);
        })
    });
    check("in force is", |forge| {
        forge.batch(50);
        forge.replace("batch", |event| {
            let Event::Batch(batch) = event else { panic!("no batch") };
            batch.policy = Digest([0; 32]);
        })
    });
    check("does not stand before it", |forge| {
        let batch = forge.batch(50);
        start(forge);
        forge.intent(batch, device(2), 7_002, 1)
    });
    check("has no outcome, and the daemon started since", |forge| {
        let batch = forge.batch(50);
        forge.intent(batch, device(2), 7_002, 1);
        start(forge);
        let batch = forge.batch(50);
        forge.intent(batch, device(4), 7_002, 1)
    });
}

#[test]
fn signatures_and_releases_that_nothing_bears_out_are_found() {
    let fixture = Fixture::new();
    let check = |expected: &str, forgery: fn(&mut Forge<'_>) -> u64| forged(&fixture, "first job", expected, forgery);
    check("something was signed that was not intended", |forge| {
        let batch = forge.batch(50);
        forge.checkpoint();
        forge.outcome(batch, [1; 64])
    });
    check("something was signed that was not intended", |forge| {
        let intent = forge.command(50, device(2), 7_002);
        forge.outcome(intent, forge.signatures[&intent])
    });
    check("no checkpoint was signed between", |forge| {
        let batch = forge.batch(50);
        forge.checkpoint();
        let intent = forge.intent(batch, device(2), 7_002, 1);
        forge.sign(intent)
    });
    check("does not verify", |forge| {
        let batch = forge.batch(50);
        let intent = forge.intent(batch, device(2), 7_002, 1);
        forge.checkpoint();
        let octets = forge.fixture.fill(device(2), 7_002);
        let outcome = forge.outcome(intent, Key::generate().sign(&octets[1..]));
        forge.release(50, vec![(intent, intent + 1)]);
        outcome
    });
    check("its outcome has SHA-256", |forge| {
        let intent = forge.command(50, device(2), 7_002);
        let octets = forge.fixture.fill(device(2), 7_002);
        forge.signatures.insert(intent, forge.fixture.recovery_key.sign(&octets[1..]));
        forge.last("outcome")
    });
    check("has no outcome yet", |forge| {
        let batch = forge.batch(50);
        let intent = forge.intent(batch, device(2), 7_002, 1);
        forge.release(50, vec![(intent, intent + 1)])
    });
    check("not of 32323232", |forge| {
        let first = forge.last("intent");
        forge.batch(50);
        forge.release(50, vec![(first, first + 1)])
    });
    check("no intent lies", |forge| {
        let batch = forge.batch(50);
        forge.release(50, vec![(batch, batch + 1)])
    });
    check("ascending order", |forge| {
        let intent = forge.command(50, device(2), 7_002);
        forge.release(50, vec![(intent, intent + 1), (intent, intent + 1)])
    });
    check("what was refused is not released", |forge| {
        let refused = Refused {
            operation: "recovery-sign".into(),
            incident: None,
            determination: Some(forge.fixture.determination),
            request: Some(RequestId([50; 16])),
            device: Some(device(2)),
            asked: Digest([0; 32]),
            reasons: vec![Reason { rule: "rate".into(), text: "too many".into() }],
        };
        forge.push(Event::Refused(refused));
        let first = forge.last("intent");
        forge.release(50, vec![(first, first + 1)])
    });
    check("is not unknown", |forge| {
        let intent = forge.last("intent");
        let (key, determination) = ("recovery-1".parse().unwrap(), forge.fixture.determination);
        forge.push(Event::Settled(Settled { intent, determination, key, device: device(4), reason: "lost".into() }))
    });
    forged(&fixture, "end", "withdrawn: ", |forge| {
        let withheld = forge.last("intent");
        let request = forge.entry(withheld);
        let Event::Intent(intent) = request.event else { panic!("no intent") };
        let Event::Batch(batch) = forge.entry(intent.batch).event else { panic!("no batch") };
        forge.release(batch.request.0[0], vec![(withheld, withheld + 1)])
    });
    forged(&fixture, "suspended", "suspended: ", |forge| forge.batch(50));
    forged(&fixture, "suspended", "suspended: ", |forge| {
        let withheld = forge.last("intent");
        let Event::Intent(intent) = forge.entry(withheld).event else { panic!("no intent") };
        let Event::Batch(batch) = forge.entry(intent.batch).event else { panic!("no batch") };
        forge.release(batch.request.0[0], vec![(withheld, withheld + 1)])
    });
}

/// A batch that somebody else asked for.
fn by(forge: &mut Forge<'_>, person: Option<&str>, account: &str, role: Role) -> u64 {
    let batch = forge.batch(50);
    let event = forge.entry(batch).event;
    forge.cut(batch);
    let person = person.map(|person| person.parse().unwrap());
    forge.push_by(Actor { person, account: account.into(), role, ..Forge::operator() }, event)
}

#[test]
fn who_asked_when_and_in_which_role_is_found() {
    let fixture = Fixture::new();
    let check = |expected: &str, forgery: fn(&mut Forge<'_>) -> u64| forged(&fixture, "first job", expected, forgery);
    check("asker-approved", |forge| by(forge, Some("member-1"), "member-1", Role::Operator));
    check("maps account member-1 to member-1; found nobody", |forge| by(forge, None, "member-1", Role::Operator));
    check("maps account member-1 to member-1; found operator-1", |forge| {
        by(forge, Some("operator-1"), "member-1", Role::Operator)
    });
    for role in [Role::Auditor, Role::Account, Role::Ceremony, Role::Daemon] {
        forged(&fixture, "first job", "asker: ", |forge| by(forge, Some("operator-1"), "operator-1", role));
    }
    check("before the entry that precedes it", |forge| {
        forge.at = forge.at.plus_ms(-1);
        forge.batch(50)
    });
    check("it calls the clock trusted", |forge| {
        forge.push_by(Actor::daemon(), Event::ClockJumped(ClockJumped { by_ms: 9_999 }));
        forge.batch(50)
    });
    check("clock was set for an exercise, and this ledger is live", |forge| {
        let Event::Genesis(genesis) = forge.entry(0).event else { panic!("no genesis") };
        let live = Event::Genesis(Genesis { purpose: Purpose::Live, ..genesis });
        let by = forge.entry(0).by;
        forge.cut(0);
        forge.clock = ClockState::SetForExercise;
        forge.push_by(by, live)
    });
    check("clock: the clock jumped", |forge| {
        forge.clock = ClockState::Untrusted;
        forge.batch(50)
    });
    check("asked for by operator, found daemon", |forge| {
        forge.push_by(Actor::daemon(), Event::ClockAccepted(ClockAccepted { reason: "itself".into(), from: None }))
    });
    check("asked for by operator, found daemon", |forge| {
        let asked = forge.at;
        forge.push_by(Actor::daemon(), Event::LoginRetried(login_retried(asked)))
    });
    check("after the entry", |forge| {
        let asked = forge.at.plus_ms(3_600_000);
        forge.push(Event::LoginRetried(login_retried(asked)))
    });
    check("asked for by daemon, found operator", |forge| {
        let since = forge.at;
        forge.push(Event::TokenHealth(health(since)))
    });
    check("expected a change of how token recovery-a stands", |forge| {
        let since = forge.at;
        forge.push_by(Actor::daemon(), Event::TokenHealth(TokenHealth { to: Health::Up, ..health(since) }))
    });
    check("asked for by ceremony, found operator", |forge| {
        let imported = forge.entry(forge.last("certificate-imported")).event;
        forge.push(imported)
    });
    check("checkpoints and nothing else", |forge| {
        let Event::CertificationIntent(intent) = forge.entry(forge.last("certification-intent")).event else {
            panic!("no intent")
        };
        let by = Actor { person: None, role: Role::Ceremony, ..Actor::daemon() };
        forge
            .push_by(by, Event::CertificationIntent(CertificationIntent { key: "ledger-1".parse().unwrap(), ..intent }))
    });
    check("serial number smki-a-serial", |forge| {
        let activated = forge.entry(forge.last("key-activated")).event;
        forge.push(activated);
        forge.replace("key-activated", |event| {
            let Event::KeyActivated(activated) = event else { panic!("no activation") };
            activated.serial = "another".into();
        })
    });
    check("no ceremony found key recovery-1 brought to token smki-b", |forge| {
        activate_on(forge, &[("smki-b", "0002")])
    });
    check("gives key recovery-1 no token smki-c", |forge| activate_on(forge, &[("smki-c", "0003")]));
    check("expected serial number 0002", |forge| {
        copy(forge, |_| {});
        activate_on(forge, &[("smki-b", "0003")])
    });
    check("names token smki-b twice", |forge| {
        copy(forge, |_| {});
        activate_on(forge, &[("smki-b", "0002"), ("smki-b", "0002")])
    });
    check("cloned to no token smki-c", |forge| copy(forge, |copied| copied.token = "smki-c".parse().unwrap()));
    check("holds another key", |forge| copy(forge, |copied| copied.spki_sha256 = Digest([0; 32])));
    check("serial number smki-a-serial of token smki-a", |forge| {
        copy(forge, |copied| copied.serial = "smki-a-serial".into())
    });
    check("asked for by ceremony, found operator", |forge| {
        let at = copy(forge, |_| {});
        let copied = forge.entry(at).event;
        forge.push(copied)
    });
    check("genesis", |forge| {
        let genesis = forge.entry(0).event;
        forge.push_by(Actor { role: Role::Ceremony, ..Actor::daemon() }, genesis)
    });
    check("expected the adoption of the first policy", |forge| {
        let opened = forge.entry(forge.last("incident-opened")).event;
        forge.cut(1);
        forge.push(opened)
    });
}

#[test]
fn documents_that_too_few_or_the_wrong_people_signed_are_found() {
    let fixture = Fixture::new();
    let check =
        |expected: &str, forgery: fn(&mut Forge<'_>) -> u64| forged(&fixture, "determination", expected, forgery);
    // The control: made anew with the same contents, it is accepted.
    let mut forge = fixture.forge("determination");
    forge.determination(&[0, 1], |_| {}, |_| {});
    assert_eq!(Export::of(&fixture, &forge).verify().0, 0);

    check("quorum: ", |forge| forge.determination(&[0], |_| {}, |_| {}));
    check("quorum: ", |forge| forge.determination(&[0, 0], |_| {}, |_| {}));
    check("quorum: ", |forge| forge.determination(&[0, 1], |form| form.proposer = "member-1".parse().unwrap(), |_| {}));
    check("found {", |forge| {
        forge.determination(&[0, 1], |_| {}, |recorded| recorded.signatures[0].person = "member-3".parse().unwrap())
    });
    check("found {", |forge| {
        // A third approver who never signed.
        forge.determination(
            &[0, 1],
            |_| {},
            |recorded| {
                let first = recorded.signatures[0].clone();
                recorded.signatures.push(first);
            },
        )
    });
    check("quorum: ", |forge| {
        let index = forge.last("determination-recorded");
        let Event::DeterminationRecorded(old) = forge.entry(index).event else { panic!("no determination") };
        // Signed by the members, but over other octets.
        forge.determination(
            &[0, 1],
            |form| form.counter_start = Some(0),
            |recorded| recorded.signatures = old.signatures,
        )
    });
    check("ledger.root", |forge| forge.determination(&[0, 1], |form| form.ledger.root = Digest([0; 32]), |_| {}));
    check("ledger.size", |forge| forge.determination(&[0, 1], |form| form.ledger.size = 1_000, |_| {}));
    check("live and exercise never mix", |forge| {
        forge.determination(&[0, 1], |form| form.purpose = Purpose::Live, |_| {})
    });
    check("expected 4 lines", |forge| {
        let change = |form: &mut smkid::domain::determination::document::Determination| {
            form.devices.as_mut().unwrap().count = 4;
            form.limits.as_mut().unwrap().intents = 16;
        };
        forge.determination(&[0, 1], change, |_| {})
    });
    check("devices: expected 5 lines", |forge| {
        let list = forge.blob_of(format!("{},esme\n", DEVICES[0]).into_bytes());
        forge.determination(&[0, 1], |_| {}, |recorded| recorded.devices = Some(list))
    });
    check("none came with it", |forge| forge.determination(&[0, 1], |_| {}, |recorded| recorded.devices = None));
    check("window", |forge| {
        let past = |form: &mut smkid::domain::determination::document::Determination| {
            form.window.until = form.window.from.plus_ms(1);
            form.window.from = form.window.from.plus_ms(-1);
            form.window.until = form.window.until.plus_ms(-1);
        };
        forge.determination(&[0, 1], past, |_| {})
    });
    forged(&fixture, "end", "quorum: ", |forge| {
        forge.replace("determination-withdrawn", |event| {
            let Event::DeterminationWithdrawn(withdrawn) = event else { panic!("no withdrawal") };
            withdrawn.signatures.truncate(1);
        })
    });
    forged(&fixture, "end", "found {", |forge| {
        forge.replace("determination-suspended", |event| {
            let Event::DeterminationSuspended(suspended) = event else { panic!("no suspension") };
            suspended.until = suspended.until.plus_ms(-HOUR_MS);
        })
    });
    forged(&fixture, "end", "adoption: ", |forge| {
        forge.replace("policy-adopted", |event| {
            let Event::PolicyAdopted(adopted) = event else { panic!("no adoption") };
            adopted.signatures.truncate(2);
        })
    });
    forged(&fixture, "end", "found {", |forge| {
        forge.replace("incident-opened", |event| {
            let Event::IncidentOpened(opened) = event else { panic!("no incident") };
            opened.compromised.spki_sha256 = Digest([0; 32]);
        })
    });
    forged(&fixture, "end", "found {", |forge| {
        forge.replace("certificate-imported", |event| {
            let Event::CertificateImported(imported) = event else { panic!("no certificate") };
            imported.party = "90B3D51F30000003".parse().unwrap();
        })
    });
}

/// An extract of the Inventory, as an operator would bring it.
fn extract(forge: &mut Forge<'_>, text: &str, change: impl FnOnce(&mut FileAccepted)) -> FileAccepted {
    let file = forge.blob_of(text.as_bytes().to_vec());
    let (incident, kind) = ("INC-1".parse().unwrap(), FileKind::SmiExtract);
    let mut accepted =
        FileAccepted { incident, profile: None, kind, file, signature: None, party: None, smsr: None, rows: 1 };
    change(&mut accepted);
    accepted
}

#[test]
fn files_and_exercises_that_nobody_could_have_recorded_are_found() {
    const TEXT: &str = "device,status,from\n00DB123456789001,Recovery,2026-11-01T00:00:00Z\n";
    let fixture = Fixture::new();
    // The control.
    let mut forge = fixture.forge("determination");
    let accepted = extract(&mut forge, TEXT, |_| {});
    forge.push(Event::FileAccepted(accepted));
    let rehearsed = ExerciseRecorded { at: forge.at, report: Digest([1; 32]), note: "yearly".into() };
    forge.push(Event::ExerciseRecorded(rehearsed));
    let (status, _, said) = Export::of(&fixture, &forge).verify();
    assert_eq!(status, 0, "{said}");

    let file = |expected: &str, text: &str, change: fn(&mut FileAccepted)| {
        forged(&fixture, "determination", expected, |forge| {
            let accepted = extract(forge, text, change);
            forge.push(Event::FileAccepted(accepted))
        });
    };
    file("line 2, column 2 (status)", &TEXT.replace("Recovery", "recovery"), |_| {});
    file("found {", TEXT, |accepted| accepted.rows = 2);
    file("found {", TEXT, |accepted| {
        accepted.profile = Some(ProfileInForce { base: "base".parse().unwrap(), variations: vec![] });
    });
    file("found {", TEXT, |accepted| accepted.party = Some("supplier-a".parse().unwrap()));
    file("no incident INC-9", TEXT, |accepted| accepted.incident = "INC-9".parse().unwrap());
    file("needs the detached CMS signature", TEXT, |accepted| accepted.kind = FileKind::Adt);
    file("an export goes from the daemon", TEXT, |accepted| accepted.kind = FileKind::SmiExport);
    forged(&fixture, "determination", "taken in already", |forge| {
        let accepted = extract(forge, TEXT, |_| {});
        forge.push(Event::FileAccepted(accepted.clone()));
        forge.push(Event::FileAccepted(accepted))
    });
    for role in [Role::Account, Role::Auditor, Role::Daemon] {
        forged(&fixture, "determination", "asked for by operator", |forge| {
            let accepted = extract(forge, TEXT, |_| {});
            forge.push_by(Actor { role, ..Forge::operator() }, Event::FileAccepted(accepted))
        });
    }
    let exercise = |expected: &str, later: i64, note: &'static str, by: Role| {
        forged(&fixture, "determination", expected, |forge| {
            let (at, report) = (forge.at.plus_ms(later), Digest([1; 32]));
            let by = Actor { role: by, ..Forge::operator() };
            forge.push_by(by, Event::ExerciseRecorded(ExerciseRecorded { at, report, note: note.into() }))
        });
    };
    exercise("exercise-time", 1, "yearly", Role::Operator);
    exercise("note: expected", 0, " ", Role::Operator);
    exercise("asked for by operator", 0, "yearly", Role::Auditor);
}

#[test]
fn a_leave_to_go_on_under_no_checkpoint_opens_nothing_after_the_next_start_and_one_under_a_checkpoint_does() {
    for is_covered in [false, true] {
        let mut fixture = Fixture::new();
        let foreign = {
            let mut forge = fixture.forge("end");
            let at = responses(&mut forge, FIRST + 7, |results, taken| {
                let line =
                    |at| format!("{},-,foreign,counter 7008: no command with this counter was signed\n", device(at));
                *results = line(0) + &line(3);
                taken.tally = ResponseTally { foreign: 2, ..ResponseTally::default() };
            });
            (forge.entry(at).event, forge.blobs.into_values().collect::<Vec<_>>())
        };
        fixture.blobs.extend(foreign.1.iter().map(|blob| (Digest::of(blob), blob.clone())));
        let stopped_by = fixture.record(|recorder| {
            for blob in foreign.1 {
                recorder.queue_blob(blob);
            }
            recorder.queue(&Forge::operator(), foreign.0).unwrap()
        });
        let resumed = Event::SigningResumed(SigningResumed {
            incident: "INC-1".parse().unwrap(),
            profile: None,
            determination: fixture.determination,
            stopped_by,
            reason: "It was tested".into(),
        });
        if is_covered {
            fixture.record(|recorder| recorder.queue(&Forge::operator(), resumed).unwrap());
        } else {
            let mut without_key = fixture.without_key();
            smkid::recorder::record_alone(&mut without_key, |recorder| recorder.queue(&Forge::operator(), resumed))
                .unwrap()
                .into_inner();
        }
        fixture.restart();
        let digest = Digest([0xAB; 32]);
        let started = Started { version: "0.1.0".into(), program: digest, configuration: digest, unconfirmed: None };
        let size = fixture.record(|recorder| {
            smkid::pipeline::record_start(recorder, started).unwrap();
            let foreign = recorder.fold().determinations().values().next().unwrap().foreign;
            assert_eq!(foreign, if is_covered { None } else { Some(stopped_by) });
            recorder.fold().size()
        });
        fixture.marks.insert("started", size);
        let forge = fixture.forge("started");
        let Event::Started(started) = forge.entry(forge.last("started")).event else { panic!("no start") };
        assert_eq!(started.unconfirmed, (!is_covered).then_some(stopped_by + 1));
        let (status, out, err) = Export::of(&fixture, &forge).verify();
        assert_eq!((status, err.as_str()), (0, ""), "{out}");
    }
}

#[test]
fn what_a_start_says_of_entries_under_no_checkpoint_is_so() {
    let fixture = Fixture::new();
    for wrong in [3, u64::MAX >> 12] {
        forged(&fixture, "end", "the last checkpoint before it", |forge| {
            let digest = Digest([0xAB; 32]);
            let unconfirmed = Some(wrong);
            let started = Started { version: "0.1.0".into(), program: digest, configuration: digest, unconfirmed };
            forge.push_by(Actor::daemon(), Event::Started(started))
        });
    }
}

#[test]
fn an_activation_for_every_incident_verifies_as_an_older_daemon_wrote_it() {
    let fixture = Fixture::new();
    let mut forge = fixture.forge("determination");
    let activated = {
        let forge = fixture.forge("ready");
        forge.entry(forge.last("key-activated")).event
    };
    let Event::KeyActivated(old) = activated else { panic!("no activation") };
    forge.push(Event::KeyActivated(old.clone()));
    let (status, out, err) = Export::of(&fixture, &forge).verify();
    assert_eq!((status, err.as_str()), (0, ""), "as an older daemon wrote it: {out}");
    let incident = Some("INC-1".parse().unwrap());
    // Custodians activate the key under the policy of this ledger, and none presented.
    forged(&fixture, "determination", "custodians: 0 of 2", |forge| {
        forge.push(Event::KeyActivated(KeyActivated { incident: incident.clone(), ..old.clone() }))
    });
}
