use super::*;
use crate::domain::ledger::entry::{Channel, Role};
use crate::domain::names::Eui64;

fn device(n: u64) -> DeviceId {
    DeviceId(Eui64(n.to_be_bytes()))
}

fn job() -> JobFacts {
    JobFacts {
        request: RequestId([1; RequestId::LEN]),
        asked: Digest([2; 32]),
        incident: "INC-1".parse().unwrap(),
        determination: DeterminationId([3; DeterminationId::LEN]),
        key: "recovery".parse().unwrap(),
        list: None,
        per_hour: None,
        by: Actor { person: None, account: "alice".into(), role: Role::Operator, channel: Channel::Socket },
        started: Timestamp::MIN,
        entry: 1,
        resumed: None,
        state: JobState::Running,
        position: None,
        tally: JobTally::default(),
        rules: BTreeMap::new(),
        refused_first: Vec::new(),
        behind: Vec::new(),
        taken: None,
        recent: Recent::new(),
    }
}

fn behind(job: &JobFacts) -> Vec<(u64, u64)> {
    let number = |device: DeviceId| u64::from_be_bytes(device.0.0);
    job.behind.iter().map(|(from, until)| (number(*from), number(*until))).collect()
}

#[test]
fn what_was_left_is_kept_in_few_ranges_that_cover_all_of_it() {
    let mut job = job();
    for n in [50, 10, 30, 30, 10] {
        job.left_behind(device(n));
    }
    assert_eq!(behind(&job), [(10, 10), (30, 30), (50, 50)], "in order, each once");
    // More than there is room for: the nearest are joined, and none is lost.
    let mut job = self::job();
    let left: Vec<u64> = (0..BEHIND_MAX as u64 * 4).map(|n| n * n).collect();
    for n in &left {
        job.left_behind(device(*n));
        assert!(job.behind.len() <= BEHIND_MAX);
    }
    for n in &left {
        assert!(behind(&job).iter().any(|(from, until)| from <= n && n <= until), "{n}");
    }
    assert!(job.behind.windows(2).all(|pair| pair[0].1 < pair[1].0), "apart, and in order");
}

#[test]
fn what_is_taken_up_again_leaves_the_ranges_from_their_beginning() {
    let mut job = job();
    job.behind = vec![(device(10), device(20)), (device(40), device(40)), (device(u64::MAX), device(u64::MAX))];
    job.taken_up(device(12));
    assert_eq!(behind(&job), [(13, 20), (40, 40), (u64::MAX, u64::MAX)]);
    job.taken_up(device(12));
    job.taken_up(device(30));
    assert_eq!(behind(&job), [(13, 20), (40, 40), (u64::MAX, u64::MAX)], "outside of them nothing changes");
    for n in [20, 40, u64::MAX] {
        job.taken_up(device(n));
    }
    assert_eq!(behind(&job), []);
}

#[test]
fn what_is_left_again_is_not_lost_among_what_is_still_to_be_taken_up() {
    // The nearest ranges are those on both sides of the Device that was taken up last.
    let mut job = job();
    job.behind = vec![(device(10), device(40))];
    job.behind.extend((1..BEHIND_MAX as u64).map(|n| (device(5_000 + 10 * n), device(5_000 + 10 * n))));
    job.taken_up(device(10));
    job.left_behind(device(10));
    job.taken_up(device(20));
    assert!(job.behind.len() <= BEHIND_MAX);
    assert_eq!(behind(&job)[..2], [(10, 10), (21, 40)]);

    // Devices that fail by chance, some of them later than others are taken up.
    let mut seed = 7_u64;
    let mut next = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut job = self::job();
    let mut left: std::collections::BTreeSet<u64> = (0..20_000).filter(|_| next(60) == 0).collect();
    for n in &left {
        job.left_behind(device(*n));
    }
    for _ in 0..12 {
        let mut late = std::collections::VecDeque::new();
        for n in 0..20_000 {
            // Within a range every Device is looked at, and those that were not signed are taken up.
            if behind(&job).iter().any(|(from, until)| (*from..=*until).contains(&n)) && left.remove(&n) {
                job.taken_up(device(n));
                late.push_back(n);
            }
            while late.len() > 7 || (next(9) == 0 && !late.is_empty()) {
                let n = late.pop_front().unwrap();
                if next(4) > 0 {
                    job.left_behind(device(n));
                    left.insert(n);
                }
            }
            assert!(job.behind.len() <= BEHIND_MAX);
        }
        for n in late {
            job.left_behind(device(n));
            left.insert(n);
        }
        let ranges = behind(&job);
        let lost = left.iter().find(|n| !ranges.iter().any(|(from, until)| (from..=until).contains(n)));
        assert_eq!(lost, None, "in {ranges:?}");
    }
    assert!(!left.is_empty());
}

#[test]
fn of_jobs_that_are_over_the_last_stay_and_those_that_are_not_all_do() {
    let id = |n: u64| {
        let mut octets = [0; RequestId::LEN];
        octets[..8].copy_from_slice(&n.to_be_bytes());
        RequestId(octets)
    };
    let mut fold = Fold::default();
    let over = OVER_MAX as u64;
    for n in 0..over + 3 {
        let state = if n == 1 { JobState::Running } else { JobState::Ended { at: Timestamp::MIN, why: Vec::new() } };
        let behind = vec![(device(1), device(2))];
        let refused_first = vec![DeviceRefused { device: device(1), reasons: Vec::new() }];
        fold.jobs.insert(id(n), JobFacts { request: id(n), entry: n, state, behind, refused_first, ..job() });
    }
    fold.forget_jobs();
    assert_eq!(fold.jobs.len(), OVER_MAX + 1);
    assert!(!fold.jobs.contains_key(&id(0)) && !fold.jobs.contains_key(&id(2)), "the oldest are gone");
    assert!(fold.jobs.contains_key(&id(3)) && fold.jobs.contains_key(&id(over + 2)));
    assert_eq!(behind(&fold.jobs[&id(1)]), [(1, 2)], "one that runs keeps what it needs");
    assert_eq!(behind(&fold.jobs[&id(3)]), []);
    // Which Devices were refused is told of the last alone.
    let told = OVER_TOLD_MAX as u64;
    let refused = |n: u64| fold.jobs[&id(n)].refused_first.len();
    assert_eq!((refused(1), refused(over + 2), refused(over + 3 - told), refused(over + 2 - told)), (1, 1, 1, 0));
}

#[test]
fn of_the_devices_that_a_job_refused_the_first_are_told_and_all_are_counted() {
    let refused = |n: usize| DeviceRefused { device: device(n as u64), reasons: Vec::new() };
    for (before, more, told) in [
        (0, REFUSED_TOLD_MAX, REFUSED_TOLD_MAX),
        (0, REFUSED_TOLD_MAX + 1, REFUSED_TOLD_MAX),
        (REFUSED_TOLD_MAX - 1, 1, REFUSED_TOLD_MAX),
        (REFUSED_TOLD_MAX - 1, 2, REFUSED_TOLD_MAX),
        (REFUSED_TOLD_MAX - 2, 1, REFUSED_TOLD_MAX - 1),
    ] {
        let mut fold = Fold::default();
        let job = job();
        let request = job.request;
        fold.jobs.insert(request, job);
        for (from, count) in [(0, before), (before, more)] {
            let first: Vec<_> = (from..from + count).map(refused).collect();
            let until = device((from + count) as u64);
            let passed = JobPassed { request, until, already: 0, refused: count as u64, rules: Vec::new(), first };
            fold.pass_in_job(&passed).unwrap();
        }
        let job = &fold.jobs[&request];
        assert_eq!((job.refused_first.len(), job.tally.refused), (told, (before + more) as u64));
        assert!(job.refused_first.iter().enumerate().all(|(n, told)| told.device == device(n as u64)));
    }
}
