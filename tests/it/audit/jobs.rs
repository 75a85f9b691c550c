//! Jobs that nobody could have had, by the entries: started, stopped, let go on and ended where the rules do not permit it.

use smkid::domain::ledger::entry::{JobCancelled, JobEnded, JobPassed, JobPaused, JobResumed, JobStarted};
use smkid::domain::ledger::jobs::{JobList, JobTally};
use smkid::domain::names::RequestId;

use super::*;

const REQUEST: RequestId = RequestId([60; 16]);

/// How a start is made to be none.
type Change = fn(&mut JobStarted);

fn started(fixture: &Fixture) -> JobStarted {
    JobStarted {
        request: REQUEST,
        asked: Digest([60; 32]),
        incident: "INC-1".parse().unwrap(),
        determination: fixture.determination,
        key: "recovery-1".parse().unwrap(),
        list: None,
        per_hour: None,
        reason: None,
    }
}

/// A batch, its job, and one command of it that is signed. Answers the batch.
fn job(forge: &mut Forge<'_>, started: JobStarted) -> u64 {
    let batch = forge.batch(60);
    forge.push(Event::JobStarted(started));
    let intent = forge.intent(batch, device(2), COUNTER_START + 2, 1);
    forge.checkpoint();
    forge.sign(intent);
    batch
}

fn list_of(forge: &mut Forge<'_>, text: &str, devices: u64) -> JobList {
    let sha256 = forge.blob_of(text.as_bytes().to_vec());
    JobList { sha256, devices }
}

fn paused() -> Event {
    Event::JobPaused(JobPaused { request: REQUEST, reason: "an hour".into() })
}

fn resumed() -> Event {
    Event::JobResumed(JobResumed { request: REQUEST })
}

fn cancelled() -> Event {
    Event::JobCancelled(JobCancelled { request: REQUEST, reason: "the wrong list".into() })
}

fn ended(signed: u64, why: &[&str]) -> Event {
    let reason = |rule: &&str| Reason { rule: (*rule).into(), text: "so".into() };
    let tally = JobTally { intents: 1, signed, ..JobTally::default() };
    Event::JobEnded(JobEnded { request: REQUEST, tally, why: why.iter().map(reason).collect() })
}

#[test]
fn jobs_that_nobody_could_have_started_are_found() {
    let fixture = Fixture::new();
    let one = format!("{}\n", device(2));
    // The control: a list of one, its command, a pause, and its end.
    let mut forge = fixture.forge("first job");
    let list = Some(list_of(&mut forge, &one, 1));
    job(&mut forge, JobStarted { list, ..started(&fixture) });
    forge.push(paused());
    forge.push(resumed());
    forge.push_by(Actor::daemon(), ended(1, &[]));
    let (status, out, err) = Export::of(&fixture, &forge).verify();
    assert_eq!((status, err.as_str()), (0, ""), "{out}");

    let changes: [(&str, Change); 6] = [
        ("no batch of request", |started| started.request = RequestId([61; 16])),
        ("no batch of request", |started| started.asked = Digest([61; 32])),
        ("is of incident INC-1", |started| started.incident = "INC-2".parse().unwrap()),
        ("is not the one that determination", |started| started.key = "ledger".parse().unwrap()),
        ("per hour", |started| started.per_hour = Some(0)),
        ("reason: expected", |started| started.reason = Some(" ".into())),
    ];
    for (expected, change) in changes {
        forged(&fixture, "first job", expected, |forge| {
            forge.batch(60);
            let mut started = started(&fixture);
            change(&mut started);
            forge.push(Event::JobStarted(started))
        });
    }
    for (text, devices, expected) in
        [(one.as_str(), 2, "expected 2 lines, found 1"), (one.trim_end(), 1, "line 1"), ("", 0, "empty")]
    {
        forged(&fixture, "first job", expected, |forge| {
            forge.batch(60);
            let list = Some(list_of(forge, text, devices));
            forge.push(Event::JobStarted(JobStarted { list, ..started(&fixture) }))
        });
    }
    forged(&fixture, "first job", "expected it to be asked for by operator", |forge| {
        forge.batch(60);
        forge.push_by(Actor::daemon(), Event::JobStarted(started(&fixture)))
    });
    forged(&fixture, "first job", "was started before", |forge| {
        job(forge, started(&fixture));
        forge.push(Event::JobStarted(started(&fixture)))
    });
}

#[test]
fn jobs_that_nobody_could_have_stopped_and_commands_signed_while_one_stood_still_are_found() {
    let fixture = Fixture::new();
    let check = |expected: &str, before: &[Event], last: Event| {
        forged(&fixture, "first job", expected, |forge| {
            job(forge, started(&fixture));
            for event in before {
                forge.push(event.clone());
            }
            match &last {
                Event::JobEnded(_) => forge.push_by(Actor::daemon(), last),
                _ => forge.push(last),
            }
        });
    };
    check("only one that runs can be paused", &[paused()], paused());
    check("only one that is paused can be resumed", &[], resumed());
    check("nothing is left to cancel", &[cancelled()], cancelled());
    check("only one that is paused can be resumed", &[cancelled()], resumed());
    check("was not running", &[paused()], ended(1, &["withdrawn"]));
    check("expected the tally", &[], ended(0, &["withdrawn"]));
    check("nothing says why it ended", &[], ended(1, &[]));
    forged(&fixture, "first job", "no job", |forge| forge.push(paused()));
    forged(&fixture, "first job", "expected it to be asked for by daemon", |forge| {
        job(forge, started(&fixture));
        forge.push(ended(1, &["withdrawn"]))
    });
    forged(&fixture, "first job", "maps account", |forge| {
        job(forge, started(&fixture));
        forge.push_by(Actor { person: None, ..Forge::operator() }, paused())
    });
    for stop in [paused(), cancelled()] {
        forged(&fixture, "first job", "was not running", |forge| {
            let batch = job(forge, started(&fixture));
            forge.push(stop);
            forge.intent(batch, device(4), COUNTER_START + 2, 1)
        });
    }
    // A list of its own names who may get a command.
    forged(&fixture, "first job", "does not name Device", |forge| {
        let list = Some(list_of(forge, &format!("{}\n", device(2)), 1));
        let batch = job(forge, JobStarted { list, ..started(&fixture) });
        forge.intent(batch, device(4), COUNTER_START + 2, 1)
    });
    // Its own limit of an hour is one that the determination does not know.
    forged(&fixture, "first job", "had no room left", |forge| {
        let batch = job(forge, JobStarted { per_hour: Some(1), ..started(&fixture) });
        forge.intent(batch, device(4), COUNTER_START + 2, 1)
    });
    let passed = |until, already, refused| {
        let (rules, first) = (Vec::new(), Vec::new());
        Event::JobPassed(JobPassed { request: REQUEST, until, already, refused, rules, first })
    };
    check("was beyond Device", &[], passed(device(1), 1, 0));
    check("expected Devices that were refused", &[], passed(device(3), 0, 0));
    check("was not running", &[paused()], passed(device(3), 1, 0));
}

#[test]
fn a_job_whose_start_or_resumption_lay_under_no_checkpoint_stands_still_until_an_operator_lets_it_go_on() {
    let fixture = Fixture::new();
    // What was under no checkpoint when the daemon started again, and whether the job stands still then.
    let cut = |forge: &mut Forge<'_>, unconfirmed: &[Event]| {
        forge.checkpoint();
        let covered = forge.size();
        for event in unconfirmed {
            forge.push(event.clone());
        }
        let (digest, unconfirmed) = (Digest([0xAB; 32]), (!unconfirmed.is_empty()).then_some(covered));
        let started = Started { version: "0.1.0".into(), program: digest, configuration: digest, unconfirmed };
        forge.push_by(Actor::daemon(), Event::Started(started));
        let activated = forge.entry(forge.last("key-activated")).event;
        forge.push(activated);
    };
    let goes_on = |forge: &mut Forge<'_>| {
        let batch = forge.batch(60);
        forge.intent(batch, device(4), COUNTER_START + 2, 1)
    };
    forged(&fixture, "first job", "was not running", |forge| {
        forge.batch(60);
        cut(forge, &[Event::JobStarted(started(&fixture))]);
        goes_on(forge)
    });
    forged(&fixture, "first job", "was not running", |forge| {
        job(forge, started(&fixture));
        forge.push(paused());
        cut(forge, &[resumed()]);
        goes_on(forge)
    });
    // The controls: under a checkpoint both go on, and what stands still goes on by an operator.
    for before in [vec![], vec![paused(), resumed()]] {
        let mut forge = fixture.forge("first job");
        job(&mut forge, started(&fixture));
        for event in before {
            forge.push(event);
        }
        cut(&mut forge, &[]);
        let intent = goes_on(&mut forge);
        forge.checkpoint();
        forge.sign(intent);
        let (status, out, err) = Export::of(&fixture, &forge).verify();
        assert_eq!((status, err.as_str()), (0, ""), "{out}");
    }
    let mut forge = fixture.forge("first job");
    job(&mut forge, started(&fixture));
    forge.push(paused());
    cut(&mut forge, &[resumed()]);
    forge.push(resumed());
    let intent = goes_on(&mut forge);
    forge.checkpoint();
    forge.sign(intent);
    let (status, out, err) = Export::of(&fixture, &forge).verify();
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
}
