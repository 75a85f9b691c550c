use std::path::PathBuf;

use super::limit::{CHUNK_LEN, Program, Task};
use super::{DEVICES, DEVICES_MIN, Plan, ROUNDS_MIN, TURN_MAX};

#[test]
fn every_device_is_in_one_turn_and_no_turn_is_too_long_or_too_short() {
    for devices in [DEVICES_MIN, DEVICES_MIN + 1, 9_999, DEVICES, 160_000, 160_001, 1_000_000] {
        for sessions in [1, 2, 16, 64] {
            let Plan { rounds, turn, first, chunk, chunks } = Plan::of(devices as usize, sessions);
            assert_eq!(first + rounds * turn, devices as usize);
            assert!(rounds >= ROUNDS_MIN && (1_000..=TURN_MAX).contains(&turn), "{devices}: {rounds} of {turn}");
            assert!(first >= turn && first < turn + rounds + 1, "{devices}: {first} of {turn}");
            // The limit program does as much, but for what no session has a whole share of.
            assert!(
                chunk <= CHUNK_LEN && chunks.is_multiple_of(sessions),
                "{devices}, {sessions}: {chunks} of {chunk}"
            );
            assert!(
                chunks * chunk <= turn && chunks * chunk + chunks > turn,
                "{devices}, {sessions}: {chunks} of {chunk}"
            );
        }
    }
}

#[test]
fn the_limit_program_signs_with_the_token_of_an_exercise_and_with_no_other() {
    let opened = |token: &str| {
        let nowhere = PathBuf::from("/nowhere");
        let task = Task {
            module: nowhere.join("module.so"),
            token: token.to_owned(),
            pin_file: nowhere.join("pin"),
            key: "recovery-1".to_owned(),
            template: Vec::new(),
            database: nowhere.join("limit.db"),
            sessions: 1,
            chunk: 1,
        };
        Program::open(&task).err().unwrap().to_string()
    };
    // Of an exercise, it comes to the module that is not there.
    assert!(opened("exercise-recovery").contains("module.so"), "{}", opened("exercise-recovery"));
    for other in ["smki-a", "exercise-ledger", "exercise-recovery-2", "Exercise-Recovery", ""] {
        let said = opened(other);
        assert!(said.starts_with("expected the token of an exercise, labelled exercise-recovery, found "), "{said}");
    }
}
