use super::*;
use crate::domain::ledger::entry::Channel;

const JOB: RequestId = RequestId([7; RequestId::LEN]);

fn said(stop: Stop) -> Said {
    let by = Actor {
        person: Some("operator-1".parse().unwrap()),
        account: "uid-1000".into(),
        role: Role::Operator,
        channel: Channel::Socket,
    };
    Said { by, stop, reason: "the first Responses look odd".into(), size: 9 }
}

fn files(state: &std::path::Path) -> usize {
    fs::read_dir(state.join(FOLDER)).map_or(0, Iterator::count)
}

#[test]
fn what_was_said_holds_a_job_over_a_restart_until_the_ledger_has_it() {
    let state = tempfile::tempdir().unwrap();
    let holds = Holds::open(state.path()).unwrap();
    let flag = holds.of(JOB);
    assert!(holds.hold(JOB, said(Stop::Pause)), "nobody tells the ledger yet");
    holds.keep(JOB).unwrap();
    assert!(flag.load(Ordering::SeqCst) && holds.is_held(JOB));
    // A further word goes the same way, and the same again is nothing new.
    assert!(!holds.hold(JOB, said(Stop::Cancel)) && !holds.hold(JOB, said(Stop::Pause)));
    holds.keep(JOB).unwrap();

    let again = Holds::open(state.path()).unwrap();
    assert!(again.is_held(JOB) && again.of(JOB).load(Ordering::SeqCst));
    assert_eq!(again.to_tell(), [(JOB, said(Stop::Pause))]);
    assert_eq!(again.told(JOB), Some(said(Stop::Cancel)));
    again.keep(JOB).unwrap();
    assert!(again.is_held(JOB) && files(state.path()) == 1);
    assert_eq!(again.told(JOB), None);
    again.keep(JOB).unwrap();
    assert!(!again.is_held(JOB) && files(state.path()) == 0);
    assert!(!Holds::open(state.path()).unwrap().is_held(JOB));
}

#[test]
fn a_file_that_says_nothing_holds_its_job_until_somebody_lets_it_go_on() {
    for contents in ["", "[]", "[{\"stop\":\"halt\"}]", "\u{0}"] {
        let state = tempfile::tempdir().unwrap();
        fs::create_dir(state.path().join(FOLDER)).unwrap();
        fs::write(state.path().join(FOLDER).join(format!("{JOB}.json")), contents).unwrap();
        fs::write(state.path().join(FOLDER).join("readme.txt"), "of no job").unwrap();
        let holds = Holds::open(state.path()).unwrap();
        assert!(holds.is_held(JOB) && holds.is_stuck(JOB) && holds.to_tell().is_empty(), "{contents:?}");
        assert!(holds.why(JOB).unwrap().contains("smkictl recovery resume"), "{contents:?}");
        holds.let_go(JOB).unwrap();
        assert!(!holds.is_held(JOB) && !Holds::open(state.path()).unwrap().is_held(JOB), "{contents:?}");
    }
}

#[test]
fn what_can_never_be_recorded_gives_way_to_what_is_said_next() {
    let state = tempfile::tempdir().unwrap();
    let holds = Holds::open(state.path()).unwrap();
    holds.hold(JOB, said(Stop::Pause));
    assert_eq!(holds.passed_over(JOB), None, "it is the only one, and holds");
    assert!(holds.is_held(JOB));
    let other = RequestId([8; RequestId::LEN]);
    holds.hold(other, said(Stop::Pause));
    holds.hold(other, said(Stop::Cancel));
    assert_eq!(holds.passed_over(other), Some(said(Stop::Cancel)));
    assert!(holds.is_held(other));
    holds.stick(JOB, "account uid-1000 is another's now".into());
    assert!(holds.why(JOB).unwrap().contains("another's now"));
    assert!(holds.hold(JOB, said(Stop::Pause)), "it is to be told anew");
    assert!(holds.is_held(JOB) && !holds.is_stuck(JOB) && holds.to_tell().len() == 2);
}

#[test]
fn a_job_that_nobody_runs_is_forgotten_unless_it_is_held() {
    let state = tempfile::tempdir().unwrap();
    let holds = Holds::open(state.path()).unwrap();
    let before = holds.of(JOB);
    holds.hold(JOB, said(Stop::Pause));
    holds.forget(JOB);
    assert!(holds.is_held(JOB) && Arc::ptr_eq(&before, &holds.of(JOB)));
    holds.told(JOB);
    holds.forget(JOB);
    assert!(!Arc::ptr_eq(&before, &holds.of(JOB)));
}
