//! What Devices answered: judged again, and forged.

use smkid::domain::certificates::pem::certificate_to_pem;
use smkid::domain::ledger::entry::ResponsesTaken;

use super::*;
use crate::support::meter;

/// What Devices 0 (that it failed) and 3 (success) answered to the commands of the first job.
pub(super) struct Answers {
    pub(super) messages: Vec<Vec<u8>>,
    /// Of each, in DER.
    pub(super) certificates: Vec<Vec<u8>>,
    pub(super) results: String,
}

pub(super) fn answers(forge: &Forge<'_>, counter: u64) -> Answers {
    let fixture = forge.fixture;
    let (mut messages, mut certificates, mut intents) = (Vec::new(), Vec::new(), Vec::new());
    for at in [0, 3] {
        let key = Key::generate();
        let command = fixture.fill(device(at), counter);
        let departure = if at == 0 { meter::one_cell_failed } else { |_: &mut _, _: &mut _| {} };
        messages.push(meter::response(&command, departure, |octets| key.sign(octets)));
        certificates.push(fixture.device_certificate(device(at), &key));
        intents.extend((0..forge.size()).find(|index| match forge.entry(*index).event {
            Event::Intent(intent) => intent.device == device(at),
            _ => false,
        }));
    }
    let results = format!(
        "{},{},failed,supplier digitalSignature: noTrustAnchor\n{},{},recovered\n",
        device(0),
        intents[0],
        device(3),
        intents[1]
    );
    Answers { messages, certificates, results }
}

/// Those answers taken in, as an older version kept them; `change` departs from the truth.
pub fn responses(forge: &mut Forge<'_>, counter: u64, change: impl FnOnce(&mut String, &mut ResponsesTaken)) -> u64 {
    let Answers { messages, certificates, mut results } = answers(forge, counter);
    let messages = smkid::domain::responses::messages::canonical(&messages);
    let certificates: String = certificates.iter().map(|octets| certificate_to_pem(octets)).collect();
    let fixture = forge.fixture;
    let mut taken = ResponsesTaken {
        incident: "INC-1".parse().unwrap(),
        profile: None,
        determination: fixture.determination,
        responses: forge.blob_of(messages.into_bytes()),
        certificates: forge.blob_of(certificates.into_bytes()),
        imported_before: None,
        results: Digest([0; 32]),
        tally: ResponseTally { recovered: 1, failed: 1, ..ResponseTally::default() },
    };
    change(&mut results, &mut taken);
    taken.results = forge.blob_of(results.into_bytes());
    forge.push(Event::ResponsesTaken(taken))
}

/// The counter of every command of the first job.
pub const FIRST: u64 = COUNTER_START + 1;

#[test]
fn responses_that_were_judged_honestly_verify_and_a_forged_result_is_found() {
    let fixture = Fixture::new();
    let mut forge = fixture.forge("first job");
    responses(&mut forge, FIRST, |_, _| {});
    let (status, out, err) = Export::of(&fixture, &forge).verify();
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    let check = |expected: &str, forgery: fn(&mut Forge<'_>) -> u64| forged(&fixture, "first job", expected, forgery);
    check("noTrustAnchor, found 00DB123456789001", |forge| {
        responses(forge, FIRST, |results, taken| {
            *results = results.replace("failed,supplier digitalSignature: noTrustAnchor", "recovered");
            taken.tally = ResponseTally { recovered: 2, ..ResponseTally::default() };
        })
    });
    check("expected ResponsesTaken", |forge| {
        responses(forge, FIRST, |_, taken| taken.tally = ResponseTally { recovered: 2, ..ResponseTally::default() })
    });
    check("another number of them", |forge| {
        responses(forge, FIRST, |results, _| *results = results.lines().next().unwrap().to_owned() + "\n")
    });
    check("expected ResponsesTaken", |forge| {
        responses(forge, FIRST, |_, taken| taken.incident = "INC-2".parse().unwrap())
    });
    check("determination-unknown", |forge| {
        responses(forge, FIRST, |_, taken| taken.determination = DeterminationId([9; 16]))
    });
    // Without the certificates nobody can tell whose they are.
    check("unverified,no certificate", |forge| {
        let none = forge.blob_of(Vec::new());
        responses(forge, FIRST, |_, taken| taken.certificates = none)
    });
    check("expected it to be asked for by operator", |forge| {
        let index = responses(forge, FIRST, |_, _| {});
        let event = forge.entry(index).event;
        forge.cut(index);
        forge.push_by(Actor::daemon(), event)
    });
}

#[test]
fn an_answer_to_a_foreign_command_cannot_be_kept_quiet_nor_signing_go_on_without_a_reason() {
    let fixture = Fixture::new();
    let foreign = |forge: &mut Forge<'_>| {
        responses(forge, FIRST + 7, |results, taken| {
            let line = |at| format!("{},-,foreign,counter 7008: no command with this counter was signed\n", device(at));
            *results = line(0) + &line(3);
            taken.tally = ResponseTally { foreign: 2, ..ResponseTally::default() };
        })
    };
    let resumed = |stopped_by| {
        Event::SigningResumed(SigningResumed {
            incident: "INC-1".parse().unwrap(),
            profile: None,
            determination: fixture.determination,
            stopped_by,
            reason: "Tested in the laboratory".into(),
        })
    };
    let mut forge = fixture.forge("first job");
    let stopped_by = foreign(&mut forge);
    forge.push(resumed(stopped_by));
    forge.command(50, device(2), COUNTER_START + 2);
    let (status, out, err) = Export::of(&fixture, &forge).verify();
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    forged(&fixture, "first job", "foreign,counter 7008", |forge| responses(forge, FIRST + 7, |_, _| {}));
    forged(&fixture, "first job", "foreign-response", |forge| {
        foreign(forge);
        forge.batch(50)
    });
    forged(&fixture, "first job", "nothing-stopped", |forge| forge.push(resumed(3)));
    forged(&fixture, "first job", "expected SigningResumed", |forge| {
        let stopped_by = foreign(forge);
        forge.push(resumed(stopped_by - 1))
    });
    forged(&fixture, "first job", "maps account", |forge| {
        let stopped_by = foreign(forge);
        let nobody = Actor { person: None, ..Forge::operator() };
        forge.push_by(nobody, resumed(stopped_by))
    });
}
