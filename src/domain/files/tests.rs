use std::collections::BTreeMap;

use super::*;
use crate::domain::ledger::steps::{Certainty, CompromiseClass, Method, SmiStatus};
use crate::domain::names::{DeviceId, Eui64};

fn standard(kind: FileKind) -> Layout {
    Layout::standard(kind)
}

#[track_caller]
fn faults(layout: &Layout, text: &str) -> Vec<String> {
    Content::read(layout, text.as_bytes()).unwrap_err().faults.iter().map(ToString::to_string).collect()
}

/// The example of a kind with the value of one column replaced.
fn with(kind: FileKind, column: &str, value: &str) -> String {
    let mut text = String::new();
    csv::write_record(columns(kind).iter().map(|column| column.name), &mut text);
    let field = |ours: &Column| if ours.name == column { value.to_owned() } else { ours.example.to_owned() };
    let fields: Vec<String> = columns(kind).iter().map(field).collect();
    csv::write_record(fields.iter().map(String::as_str), &mut text);
    text
}

#[test]
fn the_example_of_each_kind_is_such_a_file() {
    for kind in FileKind::ALL {
        let layout = standard(kind);
        let mut example = layout.example();
        if kind == FileKind::OtherProgress {
            example = example.replace(",organisation,", ",other,");
        }
        let content = Content::read(&layout, example.as_bytes()).unwrap_or_else(|faults| panic!("{kind}: {faults}"));
        assert_eq!(content.rows(), 1, "{kind}");
        assert_eq!(content.smsr().is_some(), kind == FileKind::Adt, "{kind}");
        assert_eq!(kind.as_str().parse(), Ok(kind));
        assert_eq!(layout.label(), DEFAULT_LABEL);
    }
}

#[test]
fn the_documentation_has_every_column_of_every_kind_and_no_other() {
    let text = include_str!("../../docs/files.md");
    for kind in FileKind::ALL {
        let heading = format!("### {}: `{kind}`\n", kind.title());
        let section = text.split(&heading).nth(1).unwrap_or_else(|| panic!("no section {heading:?}"));
        let section = section.split("\n#").next().unwrap();
        let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
        let expected: Vec<String> = columns(kind)
            .iter()
            .map(|Column { name, required, form, meaning, example: _ }| {
                let optional = if *required { "" } else { "may be absent" };
                format!("| `{name}` | {optional} | {form} | {meaning} |")
            })
            .collect();
        assert_eq!(rows, expected, "{kind}");
    }
}

#[test]
fn a_required_value_is_missed_and_an_optional_one_is_not() {
    for kind in FileKind::ALL {
        for column in columns(kind) {
            let text = with(kind, column.name, "");
            let read = Content::read(&standard(kind), text.as_bytes());
            if column.required {
                let found = read.unwrap_err();
                let says = found.faults.iter().any(|fault| {
                    fault.line == 2
                        && fault.heading == Some(column.name)
                        && matches!(fault.fault, Fault::ValueMissing { .. })
                });
                assert!(says, "{kind} {}: {found}", column.name);
            }
        }
    }
}

#[test]
fn a_value_of_another_form_is_told_with_line_column_and_form() {
    use FileKind::{Adt, OrganisationNotification, OrganisationProgress, OtherNotification, SmiExport, SmiExtract};
    let check = |kind, column: &str, value: &str, expected: &str| {
        let found = faults(&standard(kind), &with(kind, column, value));
        assert!(found.len() == 1 && found[0].contains(expected), "{kind} {column} {value}: {found:?}");
    };
    check(
        OrganisationNotification,
        "compromise",
        "perhaps",
        "line 2, column 4 (compromise): expected actual or suspected",
    );
    check(OrganisationNotification, "compromise", "Actual", "found \"Actual\"");
    check(
        OrganisationNotification,
        "certificate-sha256",
        "AB",
        "column 3 (certificate-sha256): expected 64 lower-case",
    );
    check(OrganisationNotification, "time", "yesterday", "column 5 (time): expected a moment such as");
    check(OrganisationNotification, "party", "Supplier A", "column 2 (party): expected 1 to 32 characters");
    check(
        OrganisationNotification,
        "class",
        "other",
        "expected organisation, as this kind of file is, found \"other\"",
    );
    check(OtherNotification, "class", "organisation", "expected other, as this kind of file is");
    check(OtherNotification, "key", "supplier", "column 3 (key): expected recovery, contingency");
    check(OtherNotification, "certificate-sha256", "", "certificate-sha256 or key-id");
    check(Adt, "smsr", "no blanks", "column 1 (smsr)");
    check(Adt, "user-id", "00db1234567890a0", "16 upper-case");
    check(Adt, "service-request", "6.15.1.1", "column 3 (service-request)");
    check(Adt, "service-request", "06.15", "column 3 (service-request)");
    check(Adt, "period-minutes", "0", "expected 1 to 44640, found \"0\"");
    check(Adt, "period-minutes", "44641", "expected 1 to 44640");
    check(Adt, "warning", "-1", "column 5 (warning): expected a whole number");
    check(Adt, "quarantine", "899", "at least the warning, 900");
    check(SmiExtract, "status", "recovery", "column 2 (status): expected one of the nine");
    check(SmiExtract, "evidence", "", "where it is known from that the Device holds");
    check(SmiExtract, "certificate-sha256", "", "the certificate that the evidence is about");
    check(SmiExport, "incident", "inc-1", "column 4 (incident)");
    check(OrganisationProgress, "class", "other", "expected organisation, as this kind of file is");
    check(OrganisationProgress, "state", "Signed", "column 8 (state)");
    check(OrganisationProgress, "devices", "many", "column 9 (devices): expected a whole number");
    // The edges that are right.
    for (kind, column, value) in [
        (Adt, "period-minutes", "1"),
        (Adt, "period-minutes", "44640"),
        (Adt, "quarantine", "900"),
        (Adt, "service-request", "all"),
        (Adt, "service-request", "8.2"),
    ] {
        Content::read(&standard(kind), with(kind, column, value).as_bytes()).unwrap();
    }
}

#[test]
fn the_smi_status_has_the_nine_values_of_duis() {
    assert_eq!(SmiStatus::ALL.len(), 9);
    for status in SmiStatus::ALL {
        Content::read(
            &standard(FileKind::SmiExtract),
            with(FileKind::SmiExtract, "status", status.as_str()).as_bytes(),
        )
        .unwrap();
    }
}

#[test]
fn the_header_line_has_each_column_once_and_no_other() {
    let layout = standard(FileKind::SmiExport);
    for (text, expected) in [
        ("", vec!["line 1: expected a header line with the names of the columns, found an empty file"]),
        ("device,status,from,incident\n", vec!["line 1: expected at least one line below the header line, found none"]),
        ("device,status,from\n", vec!["line 1: the header line has no column incident"]),
        ("device,status,from,incident,colour\n", vec!["line 1, column 5: column \"colour\" is not of this layout"]),
        ("device,status,from,incident,status\n", vec!["line 1, column 5: column status stands here and in column 2"]),
        ("Device,status,from,incident\n", vec!["column \"Device\" is not of", "has no column device"]),
        ("device,status,from,\"incident\nx\n", vec!["line 1, column 4: the quotation mark that opens"]),
    ] {
        let found = faults(&layout, text);
        assert_eq!(found.len(), expected.len(), "{text:?}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "expected {expected:?}, found {found:?}");
        }
    }
    for separator in [';', '\t'] {
        let found = faults(&layout, &["device", "status", "from", "incident\n"].join(&separator.to_string()));
        assert!(found.len() == 1 && found[0].contains("line 1, column 1: expected commas"), "{found:?}");
    }
    // The order is the file's own.
    let other = "incident,from,status,device\nINC-1,2017-07-21T00:00:00Z,Recovery,00DB123456789001\n";
    assert_eq!(Content::read(&layout, other.as_bytes()).unwrap().rows(), 1);
}

#[test]
fn every_fault_is_told_and_beyond_the_limit_counted() {
    let mut text = String::from("device,status,from,incident\n");
    for _ in 0..FAULTS_MAX + 7 {
        text.push_str("x,Recovery,2017-07-21T00:00:00Z,INC-1\n");
    }
    let found = Content::read(&standard(FileKind::SmiExport), text.as_bytes()).unwrap_err();
    assert_eq!((found.faults.len(), found.more), (FAULTS_MAX, 7));
    assert_eq!(found.faults[FAULTS_MAX - 1].line, FAULTS_MAX as u64 + 1);
    assert!(found.to_string().ends_with("; and 7 more"), "{found}");
    // A line with several faults has all of them told, and one of another width is one.
    let found = faults(&standard(FileKind::SmiExport), "device,status,from,incident\nx,y,z,w\na,b\n");
    assert_eq!(found.len(), 5, "{found:?}");
    assert!(found[4].contains("line 3: expected 4 fields, as in the header line, found 2"), "{found:?}");
}

#[test]
fn an_empty_line_is_told_as_one_and_a_comma_in_a_field_as_a_field_too_many() {
    let line = "00DB123456789001,Recovery,2017-07-21T00:00:00Z,INC-1\n";
    let found = faults(&standard(FileKind::SmiExport), &format!("device,status,from,incident\n{line}\n\r\n"));
    assert_eq!(found, ["line 3: the line is empty; remove it", "line 4: the line is empty; remove it"]);
    let found = faults(
        &standard(FileKind::SmiExport),
        &format!("device,status,from,incident\n{}", line.replace("2017", "20,17")),
    );
    assert!(found.len() == 1 && found[0].contains("found 5; a field with a comma"), "{found:?}");
    let found = Content::read(&standard(FileKind::SmiExport), b"device,status,from,incident\n\xE9\n").unwrap_err();
    assert!(
        found.to_string().contains("line 2, column 1 (device): expected UTF-8, found octet 0xE9; save the file"),
        "{found}"
    );
}

#[test]
fn what_a_file_says_twice_is_refused_with_the_line_where_it_stood_first() {
    let line = "00DB123456789001,Recovery,2017-07-21T00:00:00Z,INC-1\n";
    let found = faults(&standard(FileKind::SmiExport), &format!("device,status,from,incident\n{line}{line}"));
    assert_eq!(
        found,
        ["line 3, column 1 (device): Device 00DB123456789001 stands in line 2 already; a file says it once"]
    );
    let thresholds = |second: &str| {
        let head = "smsr,user-id,service-request,period-minutes,warning,quarantine\n";
        format!("{head}S-1,00DB1234567890A0,6.15.1,60,1,2\n{second}\n")
    };
    let adt = standard(FileKind::Adt);
    for (second, expected) in [
        ("S-1,00DB1234567890A0,6.15.1,120,1,2", "6.15.1 of User 00DB1234567890A0 stands in line 2 already"),
        ("S-2,00DB1234567890A0,all,60,1,2", "(smsr): expected S-1, as in line 2, found S-2"),
    ] {
        let found = faults(&adt, &thresholds(second));
        assert!(found.len() == 1 && found[0].contains(expected), "{found:?}");
    }
    let read = Thresholds::read(&adt, thresholds("S-1,00DB1234567890A0,all,60,1,2").as_bytes()).unwrap();
    assert_eq!((read.smsr.as_str(), read.thresholds.len()), ("S-1", 2));
}

#[test]
fn a_notification_is_about_one_key() {
    let kind = FileKind::OrganisationNotification;
    let one = standard(kind).example();
    let row = one.lines().nth(1).unwrap();
    let found = faults(&standard(kind), &format!("{one}{row}\r\n"));
    assert!(found.len() == 1 && found[0].contains("one line below the header line"), "{found:?}");
    let read = Notification::read(&standard(kind), one.as_bytes()).unwrap();
    assert_eq!((read.certainty, read.key.class()), (Certainty::Suspected, CompromiseClass::Organisation));
}

#[test]
fn a_layout_of_others_is_mapped_and_what_is_ignored_is_said() {
    let kind = FileKind::SmiExport;
    let mapping = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(heading, column)| ((*heading).to_owned(), (*column).to_owned())).collect()
    };
    let theirs = mapping(&[("Device ID", "device"), ("SMI Status", "status"), ("MPxN", IGNORE)]);
    let layout = Layout::mapped(kind, "SSI guidance 4.2", &theirs).unwrap();
    assert_eq!((layout.heading("device"), layout.heading("from")), (Some("Device ID"), Some("from")));
    assert_eq!(layout.ignored().collect::<Vec<_>>(), ["MPxN"]);
    let text = "MPxN,Device ID,SMI Status,from,incident\n1,00DB123456789001,Recovery,2017-07-21T00:00:00Z,INC-1\n";
    assert_eq!(Content::read(&layout, text.as_bytes()).unwrap().rows(), 1);
    // Our own heading has become theirs, so it is no longer one.
    let ours = standard(kind).example();
    let found = faults(&layout, &ours);
    assert!(found.iter().any(|fault| fault.contains("column \"device\" is not of this layout")));
    let missing = "no column device, which the policy's layout calls \"Device ID\"; add it";
    assert!(found.iter().any(|fault| fault.contains(missing)), "{found:?}");
    for (pairs, expected) in [
        (&[("X", "colour")][..], "\"X\" is mapped to \"colour\", which is no column of this kind"),
        (&[("X", "device"), ("Y", "device")][..], "column device has two headings, \"X\" and \"Y\""),
    ] {
        let found = Layout::mapped(kind, "x", &mapping(pairs)).unwrap_err();
        assert!(found.len() == 1 && found[0].to_string().contains(expected), "{found:?}");
    }
}

fn progress(class: CompromiseClass) -> Progress {
    let counted = |determination, state, devices| Counted {
        determination,
        method: Some(Method::NewOrganisationCertificates),
        state,
        devices,
    };
    Progress {
        incident: "INC-1".parse().unwrap(),
        class,
        party: "00DB1234567890A0".parse().unwrap(),
        certificate: crate::domain::names::Digest::of(b"certificate"),
        at: "2017-07-22T18:00:00Z".parse().unwrap(),
        counts: vec![
            counted(Some(crate::domain::names::DeterminationId([7; 16])), DeviceState::Signed, u64::MAX),
            counted(Some(crate::domain::names::DeterminationId([8; 16])), DeviceState::Signed, 0),
            Counted { method: None, ..counted(None, DeviceState::Stranded, 3) },
        ],
    }
}

#[test]
fn a_progress_file_is_read_as_it_was_made_and_as_no_other_class() {
    for class in [CompromiseClass::Organisation, CompromiseClass::Other] {
        let made = progress(class);
        let text = made.write();
        assert_eq!(Progress::read(&standard(made.kind()), text.as_bytes()).unwrap(), made);
        let other = progress(if class == CompromiseClass::Other {
            CompromiseClass::Organisation
        } else {
            CompromiseClass::Other
        })
        .kind();
        assert!(Progress::read(&standard(other), text.as_bytes()).is_err());
    }
    let text = progress(CompromiseClass::Organisation).write().replacen("INC-1", "INC-2", 1);
    let found = faults(&standard(FileKind::OrganisationProgress), &text);
    assert!(found[0].contains("(incident): expected INC-2, as in line 2, found INC-1"), "{found:?}");
}

#[test]
fn an_export_is_read_as_it_was_written() {
    let rows: Vec<ExportRow> = (0_u8..9)
        .map(|n| ExportRow {
            device: DeviceId(Eui64([n; 8])),
            status: SmiStatus::ALL[usize::from(n)],
            from: "2017-07-21T00:00:00Z".parse().unwrap(),
            incident: "INC-1".parse().unwrap(),
        })
        .collect();
    let mut text = String::new();
    ExportRow::write_header(&mut text);
    for row in &rows {
        row.write(&mut text);
    }
    let (mut reader, mut read) = (TableReader::<ExportRow>::new(standard(FileKind::SmiExport)), Vec::new());
    for piece in text.as_bytes().chunks(7) {
        reader.feed(piece, &mut |row| read.push(row));
    }
    assert_eq!(reader.finish(&mut |row| read.push(row)), Ok(9));
    assert_eq!(read, rows);
}

#[test]
fn a_file_has_its_greatest_length_and_not_one_octet_more() {
    let feed = |len: u64| {
        let mut reader = TableReader::<ExportRow>::new(standard(FileKind::SmiExport));
        let header = b"device,status,from,incident\n";
        reader.feed(header, &mut |_| {});
        let mut left = len - header.len() as u64;
        // One line without an end: it costs nothing to read.
        let piece = vec![b'x'; 1 << 20];
        while left > 0 {
            let some = left.min(piece.len() as u64);
            reader.feed(&piece[..usize::try_from(some).unwrap()], &mut |_| {});
            left -= some;
        }
        reader.finish(&mut |_| {}).unwrap_err()
    };
    assert!(matches!(feed(FILE_LEN_MAX).faults[..], [FileFault { fault: Fault::FieldLength { .. }, .. }]));
    let longer = feed(FILE_LEN_MAX + 1);
    assert!(longer.faults.iter().any(|fault| matches!(fault.fault, Fault::FileLength { .. })), "{longer}");
}

proptest::proptest! {
    #[test]
    fn no_octets_panic_and_pieces_are_read_as_the_whole(
        kind in proptest::sample::select(&FileKind::ALL[..]),
        noise in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60),
        at in 0_usize..400,
        cut in 0_usize..400,
    ) {
        let layout = standard(kind);
        let mut octets = layout.example().into_bytes();
        let at = at.min(octets.len());
        octets.splice(at..at, noise.iter().copied());
        let whole = Content::read(&layout, &octets);
        let alone = Content::read(&layout, &noise);
        proptest::prop_assert!(alone.is_err());
        // A fault has a place within the file.
        if let Err(faults) = &whole {
            proptest::prop_assert!(!faults.faults.is_empty());
            let lines = octets.split(|octet| *octet == b'\n').count() as u64;
            proptest::prop_assert!(faults.faults.iter().all(|fault| (1..=lines + 1).contains(&fault.line)));
        }
        let mut reader = TableReader::<ExportRow>::new(standard(FileKind::SmiExport));
        let (first, second) = octets.split_at(cut.min(octets.len()));
        reader.feed(first, &mut |_| {});
        reader.feed(second, &mut |_| {});
        let mut once = TableReader::<ExportRow>::new(standard(FileKind::SmiExport));
        once.feed(&octets, &mut |_| {});
        proptest::prop_assert_eq!(reader.finish(&mut |_| {}), once.finish(&mut |_| {}));
    }
}
