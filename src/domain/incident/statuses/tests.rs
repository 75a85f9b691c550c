use super::super::targets::{Control, Proof};
use super::*;
use crate::domain::names::FileKind;

const LIST: &str = "00DB123456789001,Commissioned,2017-07-01,reads\n00DB123456789002,Commissioned,2017-07-01,reads\n";
const HEADER: &str = "device,status,from\n";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

type Piece<'a> = dyn FnMut(&[u8]) + 'a;

fn source(text: &str) -> impl FnOnce(&mut Piece<'_>) -> Result<(), std::convert::Infallible> + '_ {
    // In pieces, so that lines are cut anywhere.
    move |piece| {
        text.as_bytes().chunks(5).for_each(&mut *piece);
        Ok(())
    }
}

fn targets() -> Targets {
    Targets::read(source(LIST)).unwrap()
}

/// The first target as it stands after this.
fn first(alter: impl Fn(&mut Target)) -> Targets {
    let mut targets = targets();
    targets.each(Some(source("00DB123456789001\n")), |target| alter(target)).unwrap();
    targets
}

fn recovery(target: &mut Target) {
    (target.status, target.since) = (SmiStatus::Recovery, at("2017-07-21T23:00:00Z"));
}

/// How one line about the first target stands to it: the word, and of a contradiction the reason.
fn found(targets: &Targets, line: &str) -> String {
    let (text, mut told) = (format!("{HEADER}00DB123456789001,{line}\n"), Vec::new());
    let of = (&"INC-1".parse().unwrap(), at("2017-07-25T12:00:00Z"));
    let layout = Layout::standard(FileKind::SmiExtract);
    compare_all(targets, &layout, of, source(&text), |_, _, found| told.push(found.clone())).unwrap();
    match told.as_slice() {
        [Found::Contradiction(why)] => why.clone(),
        [found] => format!("{found:?}"),
        found => panic!("{found:?}"),
    }
}

#[track_caller]
fn check(targets: &Targets, line: &str, expected: &str) {
    let found = found(targets, line);
    assert!(found.contains(expected), "{line}: expected {expected:?}, found {found:?}");
}

#[test]
fn what_the_inventory_says_is_the_same_on_the_same_day_of_london_and_contradicts_on_another() {
    // The first of July begins in London at 23:00 UTC of the day before.
    check(&targets(), "Commissioned,2017-06-30T22:59:59Z", "is recorded from 2017-06-30T23:00:00");
    check(&targets(), "Commissioned,2017-06-30T23:00:00Z", "Same");
    check(&targets(), "Commissioned,2017-07-01T22:59:59Z", "Same");
    check(&targets(), "Commissioned,2017-07-01T23:00:00Z", "is recorded from 2017-06-30T23:00:00");
}

#[test]
fn another_status_may_be_recorded_from_the_day_of_the_last_one_until_now() {
    check(&targets(), "Suspended,2017-06-30T22:59:59Z", "is the extract older than what was done?");
    check(&targets(), "Suspended,2017-06-30T23:00:00Z", "New");
    check(&targets(), "Suspended,2017-07-25T12:00:00Z", "New");
    check(&targets(), "Suspended,2017-07-25T12:00:01Z", "it is 2017-07-25T12:00:00");
    check(&targets(), "Pending,2017-07-25T12:00:00Z", "expected a status that a Device in the field can have");
    check(&targets(), "Recovery,2017-07-22T00:00:00Z", "New");
}

#[test]
fn no_extract_leads_out_of_recovery_without_proof_nor_back_into_it_after() {
    let (stranded, failed) = (
        first(recovery),
        first(|target| {
            recovery(target);
            target.proof = Proof::Failed;
        }),
    );
    for status in ["Commissioned", "Suspended", "Withdrawn", "Decommissioned"] {
        check(&stranded, &format!("{status},2017-07-24T00:00:00Z"), "no way leads from 'Recovery' back");
        check(&failed, &format!("{status},2017-07-24T00:00:00Z"), "no way leads from 'Recovery' back");
    }
    check(&stranded, "Recovered,2017-07-24T00:00:00Z", "a verified Response that proves its recovery, found none");
    check(&failed, "Recovered,2017-07-24T00:00:00Z", "one that says it failed");
    let proven = first(|target| {
        recovery(target);
        target.proof = Proof::Succeeded;
    });
    check(&proven, "Recovered,2017-07-24T00:00:00Z", "New");
    check(&proven, "Commissioned,2017-07-24T00:00:00Z", "New");
    let recovered = first(|target| {
        (target.status, target.since) = (SmiStatus::Recovered, at("2017-07-23T23:00:00Z"));
        (target.proof, target.control) = (Proof::Succeeded, Control::Dcc);
    });
    check(&recovered, "Recovery,2017-07-24T00:00:00Z", "is proven recovered; it is not set back");
    check(
        &recovered,
        "Commissioned,2017-07-24T00:00:00Z",
        "under the DCC's control (Method 2) until it is handed over",
    );
}

#[test]
fn every_line_is_counted_once_and_a_stranger_is_nobodys() {
    let text = format!(
        "{HEADER}00DB123456789001,Recovery,2017-07-22T00:00:00Z\n00DB123456789002,Commissioned,2017-07-01T00:00:00Z\n\
         00DB1234567890FF,Recovery,2017-07-22T00:00:00Z\n"
    );
    let of = (&"INC-1".parse().unwrap(), at("2017-07-25T12:00:00Z"));
    let (layout, mut lines) = (Layout::standard(FileKind::SmiExtract), Vec::new());
    let compared = compare_all(&targets(), &layout, of, source(&text), |target, row, _| {
        lines.push((row.line, target.is_some()));
    });
    let expected = Compared { no_target: 1, same: 1, new: 1, to_recovery: 1, contradictions: 0 };
    assert_eq!(compared, Ok(expected));
    assert_eq!(lines, [(2, true), (3, true), (4, false)]);
    let twice = format!("{text}00DB123456789001,Recovery,2017-07-22T00:00:00Z\n");
    let refused = compare_all(&targets(), &layout, of, source(&twice), |_, _, _| {}).unwrap_err();
    assert!(
        refused.to_string().contains("line 5, column 1 (device): Device 00DB123456789001 stands in line 2"),
        "{refused}"
    );
}

#[test]
fn an_export_that_comes_back_says_nothing_new_and_one_of_another_incident_contradicts() {
    let targets = first(recovery);
    let mut text = String::new();
    crate::domain::files::ExportRow::write_header(&mut text);
    for target in targets.all() {
        let Target { device, status, since: from, .. } = target;
        crate::domain::files::ExportRow { device, status, from, incident: "INC-1".parse().unwrap() }.write(&mut text);
    }
    let layout = Layout::standard(FileKind::SmiExtract);
    let (ours, others, now) = ("INC-1".parse().unwrap(), "INC-2".parse().unwrap(), at("2017-07-25T12:00:00Z"));
    let compare = |incident| compare_all(&targets, &layout, (incident, now), source(&text), |_, _, _| {}).unwrap();
    assert_eq!(compare(&ours), Compared { same: 2, ..Compared::default() });
    assert_eq!(compare(&others), Compared { contradictions: 2, ..Compared::default() });
}
