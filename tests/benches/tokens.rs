//! Tokens that are slow, as HSMs are: what the daemon makes of their sessions, and of two of them.
//!
//! SoftHSM behind the fault-injecting module takes 5 ms longer for each signature, on as many sessions at a time as there are. So
//! the token is what is short, as it is with an HSM, and the processor is not; whatever is lost is lost by having sessions wait.

use crate::daemon::{Daemon, Hsm};
use crate::limit::{Limit, Measure, per_second};
use crate::{Fault, judge, say};

/// Milliseconds that a signature takes longer.
const DELAY_MS: u64 = 5;
/// Sessions of the token that is held against a bare loop.
const MANY: usize = 16;
/// Sessions of each token where two are held against one.
const FEW: usize = 4;
/// Rounds of a full run, and of a quick one.
const ROUNDS: usize = 7;
const QUICK_ROUNDS: usize = 3;
/// How long a turn takes: long enough that its beginning and its end, when sessions wait for commands to be decided and recorded, are
/// a hundredth of it.
const TURN_S: usize = 5;
const QUICK_TURN_S: usize = 2;
/// End to end against the bare loop on as many sessions, at least.
const LOOP_RATIO_MIN: f64 = 0.97;
/// Two tokens against one of them, at least.
const TWO_RATIO_MIN: f64 = 1.9;

/// What was measured in one round, in operations per second.
struct Round {
    bare: f64,
    many: f64,
    one: f64,
    two: f64,
}

/// Measures all four in turns. Answers whether the targets are met.
pub fn run(quick: bool) -> Result<bool, Fault> {
    let (rounds, turn_s) = if quick { (QUICK_ROUNDS, QUICK_TURN_S) } else { (ROUNDS, TURN_S) };
    let folder = tempfile::tempdir()?;
    // What so many sessions sign in a turn if nothing else takes any time.
    let turn = |sessions: usize| sessions * turn_s * 1_000 / usize::try_from(DELAY_MS).unwrap_or(usize::MAX);
    let start = |name: &str, tokens: usize, sessions: usize| {
        let hsm = Hsm::Slow { tokens, sessions, delay_ms: DELAY_MS };
        // One turn more, to warm up.
        Daemon::start(&folder.path().join(name), turn(tokens * sessions) * (rounds + 1), hsm)
    };
    let (mut many, mut one, mut two) = (start("many", 1, MANY)?, start("one", 1, FEW)?, start("two", 2, FEW)?);
    let (task, environment) = many.task(MANY)?;
    let mut limit = Limit::start(&task, &environment)?;

    let mut of_loop = || limit.measure(Measure::Sign(turn(MANY)));
    let rate =
        |daemon: &mut Daemon, sessions: usize| Ok::<_, Fault>(per_second(turn(sessions), daemon.sign(turn(sessions))?));
    rate(&mut many, MANY)?;
    rate(&mut one, FEW)?;
    rate(&mut two, 2 * FEW)?;

    println!("{rounds} rounds; each signature takes {DELAY_MS} ms longer\n");
    println!(
        "{:>6} {:>14} {:>14} {:>8} {:>14} {:>14} {:>8}",
        "round", "loop, 16", "smkid, 16", "ratio", "one, 4", "two, 4 each", "ratio"
    );
    let mut measured: Vec<Round> = Vec::new();
    for number in 1..=rounds {
        // Whoever comes second might find a busier machine, so they change places.
        let round = if number % 2 == 1 {
            let (bare, of_many) = (of_loop()?, rate(&mut many, MANY)?);
            let (of_one, of_two) = (rate(&mut one, FEW)?, rate(&mut two, 2 * FEW)?);
            Round { bare, many: of_many, one: of_one, two: of_two }
        } else {
            let (of_many, bare) = (rate(&mut many, MANY)?, of_loop()?);
            let (of_two, of_one) = (rate(&mut two, 2 * FEW)?, rate(&mut one, FEW)?);
            Round { bare, many: of_many, one: of_one, two: of_two }
        };
        let Round { bare, many, one, two } = round;
        println!(
            "{number:>6} {bare:>14.0} {many:>14.0} {:>8.3} {one:>14.0} {two:>14.0} {:>8.3}",
            many / bare,
            two / one
        );
        measured.push(round);
    }
    println!();
    say("bare loop, 16 sessions, per second", measured.iter().map(|round| round.bare));
    say("smkid, 16 sessions, commands per second", measured.iter().map(|round| round.many));
    say("smkid, one token of 4 sessions", measured.iter().map(|round| round.one));
    say("smkid, two tokens of 4 sessions", measured.iter().map(|round| round.two));
    let of_loop = say("smkid / bare loop, 16 sessions", measured.iter().map(|round| round.many / round.bare));
    let of_two = say("two tokens / one", measured.iter().map(|round| round.two / round.one));
    let enough = judge("smkid / bare loop", of_loop >= LOOP_RATIO_MIN, &format!("at least {LOOP_RATIO_MIN}"));
    let shared = judge("two tokens / one", of_two >= TWO_RATIO_MIN, &format!("at least {TWO_RATIO_MIN}"));
    Ok(enough && shared)
}
