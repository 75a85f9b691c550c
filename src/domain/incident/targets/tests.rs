use super::kept::pages_of;
use super::*;
use crate::domain::names::Digest;

fn read(list: &str) -> Result<Targets, String> {
    // In pieces of three octets, so that lines are cut anywhere.
    let source = |piece: &mut dyn FnMut(&[u8])| {
        list.as_bytes().chunks(3).for_each(&mut *piece);
        Ok::<(), std::convert::Infallible>(())
    };
    Targets::read(source).map_err(|error| error.to_string())
}

/// A determination.
const ONE: DeterminationId = DeterminationId([1; 16]);

const GOOD: &str =
    "00DB123456789001,Commissioned,2017-07-01,reads\n00DB123456789002,Commissioned,2017-07-01,a, with commas\n";

#[test]
fn a_list_is_read_with_evidence_that_may_have_commas() {
    let targets = read(GOOD).unwrap();
    assert_eq!(targets.len(), 2);
    assert_eq!(targets.all()[0].status, SmiStatus::Commissioned);
    assert!(targets.get("00DB123456789002".parse().unwrap()).is_some());
    assert!(targets.get("00DB123456789003".parse().unwrap()).is_none());
}

#[test]
fn every_fault_of_a_list_is_told_with_its_line() {
    let check = |list: &str, expected: &str| {
        let found = read(list).unwrap_err();
        assert!(found.contains(expected), "expected {expected:?} in {found:?}");
    };
    check("", "line 1: expected at least one Relevant Device");
    check("00DB123456789001,Commissioned,2017-07-01\n", "line 1: expected EUI-64,SMI Status,date,evidence");
    check("00DB123456789001,Commissioned,2017-07-01, \n", "expected the evidence");
    check("00DB123456789001,Commissioned,1 July,reads\n", "date: expected a date such as 2017-07-21");
    check("00DB123456789001,commissioned,2017-07-01,reads\n", "SMI Status: expected one of Pending");
    check("00db123456789001,Commissioned,2017-07-01,reads\n", "line 1: ");
    check("00DB123456789001,Commissioned,2017-07-01,reads", "line 1: expected a line feed at the end");
    let twice = "00DB123456789001,Commissioned,2017-07-01,a\n00DB123456789001,Commissioned,2017-07-01,b\n";
    check(twice, "line 2: Device 00DB123456789001 stands there twice");
    let unsorted = "00DB123456789002,Commissioned,2017-07-01,a\n00DB123456789001,Commissioned,2017-07-01,b\n";
    check(unsorted, "line 2: expected the Devices sorted");
    // Two sorted lists, one after the other, of more than one page.
    let lines = |from: u64, until: u64| {
        let line = |n: u64| format!("{},Commissioned,2017-07-01,a\n", DeviceId(n.to_be_bytes().into()));
        (from..until).map(line).collect::<Vec<_>>().concat()
    };
    let two_lists = lines(2_000, 2_300) + &lines(1, 600);
    check(&two_lists, "line 301: expected the Devices sorted");
    check(&(lines(1_000, 1_001) + &lines(1, 400)), "line 2: expected the Devices sorted");
    check(&format!("{}\n", "x".repeat(LINE_LEN_MAX + 1)), "expected at most 512 octets");
    let both = "00DB123456789001,Pending,2017-07-01,a\nnothing\n";
    check(both, "line 2: expected EUI-64");
    check(both, "line 1: Device 00DB123456789001 was Pending immediately before the Recovery Event");
}

#[test]
fn only_a_device_that_was_commissioned_is_relevant() {
    for status in SmiStatus::ALL {
        let list = format!("00DB123456789001,{status},2017-07-01,reads\n");
        assert_eq!(read(&list).is_ok(), status == SmiStatus::Commissioned, "{status}");
    }
}

#[test]
fn a_device_commissioned_after_the_recovery_event_is_not_relevant_and_days_are_those_of_london() {
    let targets = read(GOOD).unwrap();
    // The first of July begins in London at 23:00 UTC of the day before.
    let begins: Timestamp = "2017-06-30T23:00:00Z".parse().unwrap();
    assert_eq!(targets.all()[0].since, begins);
    let late = |event: Timestamp| targets.commissioned_after(event).map(|(line, _)| line).collect::<Vec<_>>();
    assert_eq!(late(begins.plus_ms(-1)), [1, 2]);
    assert_eq!(late(begins), [] as [u64; 0]);
    let winter = read("00DB123456789001,Commissioned,2017-01-01,reads\n").unwrap();
    assert_eq!(winter.all()[0].since, "2017-01-01T00:00:00Z".parse().unwrap());
}

#[test]
fn lines_beyond_those_announced_are_counted_and_not_looked_at() {
    let source = |piece: &mut dyn FnMut(&[u8])| {
        format!("{GOOD}nothing\n").as_bytes().chunks(7).for_each(&mut *piece);
        Ok::<(), std::convert::Infallible>(())
    };
    let (first, lines) = Targets::read_first(source, 2).unwrap();
    assert_eq!((first.len(), lines), (2, 3));
    assert!(Targets::read_first(source, 3).unwrap_err().to_string().contains("line 3: expected EUI-64"));
    let devices = "00DB123456789001\n00DB123456789002\nnothing\n";
    let list = Some(|piece: &mut dyn FnMut(&[u8])| {
        piece(devices.as_bytes());
        Ok::<(), std::convert::Infallible>(())
    });
    let mut seen = 0;
    assert_eq!(first.look(list, 2, |_| seen += 1).unwrap(), 3);
    assert_eq!(seen, 2);
    assert!(first.look(list, 3, |_| {}).is_err());
}

#[test]
fn a_reader_keeps_what_it_was_given_while_the_incident_goes_on() {
    let mut targets = read(GOOD).unwrap();
    let held = targets.clone();
    targets.prove([(targets.all()[0].device, Proof::Succeeded)], ONE);
    assert_eq!((held.counts().succeeded, targets.counts().succeeded), (0, 1));
}

#[test]
fn what_is_counted_is_what_a_count_of_all_of_them_finds_after_whatever_was_done() {
    type Lines = fn(&mut dyn FnMut(&[u8])) -> Result<(), std::convert::Infallible>;
    let check = |targets: &Targets, what: &str| {
        let again = Targets::of(targets.all());
        assert_eq!(
            (targets.counts(), targets.without_recovery()),
            (again.counts(), again.without_recovery()),
            "after {what}"
        );
    };
    let listed: Lines = |piece| {
        piece(b"00DB123456789001,t-1\n");
        Ok(())
    };
    let second: Lines = |piece| {
        piece(b"00DB123456789002\n");
        Ok(())
    };
    let two = DeterminationId([2; 16]);
    let follow = |targets: &mut Targets, id| {
        targets.follow(&Determined { id, execute: true, method: Some(Method::AcbCertificates) })
    };
    let mut targets = read(GOOD).unwrap();
    check(&targets, "reading");
    let (one, other) = (targets.all()[0].device, targets.all()[1].device);
    targets.each(None::<Lines>, |target| target.status = SmiStatus::Recovery).unwrap();
    check(&targets, "a status of all");
    assert_eq!(targets.counts().stranded, 2);
    targets.each(Some(second), |target| target.excluded = true).unwrap();
    check(&targets, "leaving one out");
    follow(&mut targets, ONE);
    targets.prove([(one, Proof::Succeeded)], ONE);
    targets.prove([(other, Proof::Failed)], ONE);
    check(&targets, "two answers");
    assert_eq!((targets.counts().succeeded, targets.counts().under_dcc_control), (1, 1));
    follow(&mut targets, two);
    targets.list(listed).unwrap();
    check(&targets, "another determination");
    assert_eq!(targets.counts().wanted_again, 1);
    // Left out when it is wanted again, it is somebody's to answer for.
    let mut left_out = targets.clone();
    let before = left_out.counts().stranded;
    let leave_out = |target: &mut Target| {
        if target.device == one {
            (target.status, target.excluded) = (SmiStatus::Recovered, true);
        }
    };
    left_out.each(None::<Lines>, leave_out).unwrap();
    check(&left_out, "leaving out one that is wanted again");
    assert_eq!((left_out.counts().wanted_again, left_out.counts().stranded), (0, before));
    targets.release();
    check(&targets, "its withdrawal");
    targets.record([(0, SmiStatus::Recovered, targets.all()[0].since)]);
    check(&targets, "an extract");
    let known = targets.reassessed(&read(GOOD).unwrap());
    check(&known, "another assessment");
    assert_eq!(known.counts(), targets.counts());
}

#[test]
fn many_faults_are_counted_and_not_all_told() {
    let list = "nothing\n".repeat(FAULTS_TOLD_MAX + 7);
    assert!(read(&list).unwrap_err().ends_with("; and 7 more"));
}

#[test]
fn a_proven_recovery_is_not_undone_by_a_later_failure_and_a_failure_is_by_a_proof() {
    let mut targets = read(GOOD).unwrap();
    let (one, two) = (targets.all()[0].device, targets.all()[1].device);
    targets.prove([(one, Proof::Succeeded)], ONE);
    targets.prove([(one, Proof::Failed)], ONE);
    targets.prove([(two, Proof::Failed)], ONE);
    assert_eq!((targets.all()[0].proof, targets.all()[1].proof), (Proof::Succeeded, Proof::Failed));
    targets.prove([(two, Proof::Succeeded)], ONE);
    assert_eq!(targets.counts().succeeded, 2);
    // A Device that is no target is nobody's.
    targets.prove([("00DB1234567890FF".parse().unwrap(), Proof::Succeeded)], ONE);
    assert_eq!(targets.counts().targets, 2);
}

#[test]
fn a_target_takes_as_little_memory_as_it_says() {
    assert_eq!(size_of::<Target>(), 24);
}

#[test]
fn a_later_assessment_keeps_what_was_recorded_of_a_device_and_may_not_drop_it() {
    let both =
        "00DB123456789001,Commissioned,2026-01-01,inventory\n00DB123456789002,Commissioned,2026-01-01,inventory\n";
    let read = |text: &str| read(text).unwrap();
    let mut known = read(both);
    let (first, second) = (known.all()[0].device, known.all()[1].device);
    let list = format!("{first}\n");
    let only_first = Some(|piece: &mut dyn FnMut(&[u8])| {
        piece(list.as_bytes());
        Ok::<(), std::convert::Infallible>(())
    });
    known.each(only_first, |target| target.status = SmiStatus::Recovery).unwrap();
    assert_eq!(known.without_recovery(), 1);

    let (without_first, without_second) =
        (read(&both[both.find('\n').unwrap() + 1..]), read(&both[..=both.find('\n').unwrap()]));
    assert_eq!(known.dropped_by(&without_first), Some(first));
    assert_eq!(known.dropped_by(&without_second), None, "nothing was done to {second}");
    assert_eq!(known.reassessed(&read(both)).get(first).unwrap().status, SmiStatus::Recovery);
}

#[test]
fn a_device_that_was_left_out_stands_for_no_other_that_lacks_the_status() {
    let text =
        "00DB123456789001,Commissioned,2026-01-01,inventory\n00DB123456789002,Commissioned,2026-01-01,inventory\n";
    let mut targets = read(text).unwrap();
    let first = targets.all()[0].device;
    let none = None::<fn(&mut dyn FnMut(&[u8])) -> Result<(), std::convert::Infallible>>;
    targets
        .each(none, |target| {
            if target.device == first {
                (target.status, target.excluded) = (SmiStatus::Recovery, true);
            }
        })
        .unwrap();
    assert_eq!(targets.without_recovery(), 1);
    targets.prove([(targets.all()[1].device, Proof::Succeeded)], ONE);
    assert_eq!(targets.without_recovery(), 0, "what is recovered needs no 'recovery' any more");
}

/// So many Devices spread over a maker's whole number space, each commissioned on a day of its own.
fn spread(count: u64) -> Targets {
    let text = (0..count).fold(String::new(), |text, n| {
        let (month, day) = (1 + n * 5 % 12, 1 + n * 11 % 28);
        text + &format!("{:016X},Commissioned,2016-{month:02}-{day:02},seen\n", 0x00DB_1200_0000_0000 + n * 11_000_000)
    });
    read(&text).unwrap()
}

#[test]
fn what_is_kept_of_them_is_read_again_and_the_same_however_they_came_to_be_so() {
    let (mut one, devices): (Targets, Vec<DeviceId>) = {
        let targets = spread(1_000);
        let devices = targets.iter().map(|target| target.device).collect();
        (targets, devices)
    };
    let kept = |targets: &Targets, pages: &mut PagesKept| {
        let mut altered = BTreeMap::new();
        let head = targets.keep(pages, &mut |page, octets| drop(altered.insert(page, octets)));
        (head, altered)
    };
    let mut pages = PagesKept::default();
    let (first, all) = kept(&one, &mut pages);
    let len = |pages: &BTreeMap<usize, Vec<u8>>| pages.values().map(Vec::len).sum::<usize>();
    assert_eq!(all.len(), 4);
    assert!(len(&all) < 8 * devices.len(), "{} octets", len(&all));
    let mut other = one.clone();
    for device in &devices[..700] {
        one.prove([(*device, Proof::Failed)], ONE);
    }
    let since = other.iter().map(|target| target.since).collect::<Vec<_>>();
    for (at, device) in devices[..700].iter().enumerate().rev() {
        other.record([(at, SmiStatus::Withdrawn, Timestamp::MAX)]);
        other.prove([(*device, Proof::Failed)], ONE);
        other.record([(at, SmiStatus::Commissioned, since[at])]);
    }
    assert_eq!(one, other);
    let (head, altered) = kept(&one, &mut pages);
    // Of the last page no Device was altered.
    assert_eq!(altered.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
    assert_ne!(head, first);
    assert_eq!(kept(&one, &mut pages), (head.clone(), BTreeMap::new()));
    let others = kept(&other, &mut PagesKept::default());
    assert!(others.0 == head, "the same targets, other octets");
    assert!(len(&others.1) < 8 * devices.len(), "every other one answered, and it is {} octets", len(&others.1));
    // Whoever has only the digests writes nothing that is there already.
    assert_eq!(kept(&other, &mut PagesKept::of_head(&head).unwrap()), (head.clone(), BTreeMap::new()));
    let digests: Vec<_> = others.1.values().map(|page| Digest::of(page)).collect();
    assert_eq!(pages_of(&head), Ok(digests));
    let all: Vec<Vec<u8>> = others.1.into_values().collect();
    assert_eq!(Targets::of_kept(&head, all.clone()), Ok(one));
    for len in (0..all[0].len()).step_by(7) {
        assert!(Targets::of_kept(&head, [all[0][..len].to_vec()]).is_err(), "{len}");
    }
    assert!(Targets::of_kept(&head, [[&all[0][..], &[0]].concat()]).is_err());
    assert!(Targets::of_kept(&head, [all[1].clone(), all[0].clone()]).is_err());
    assert!(pages_of(&head[..head.len() - 1]).is_err());
    let (head, none) = kept(&Targets::default(), &mut PagesKept::default());
    assert_eq!((Targets::of_kept(&head, []), none.len()), (Ok(Targets::default()), 0));
}
