use super::*;

fn header() -> Header {
    Header {
        origin: "smki.example/lab".parse().unwrap(),
        determination: DeterminationId([7; 16]),
        request: Some(RequestId([9; 16])),
        key: "recovery".parse().unwrap(),
        spki_sha256: Digest([3; 32]),
        templates: vec!["esme".parse().unwrap(), "gsme".parse().unwrap()],
    }
}

fn fields(n: u64, template: u16) -> Fields {
    Fields {
        device: DeviceId(Eui64((0xDB_1234_0000_0000 + n).to_be_bytes())),
        counter: 7_000 + n,
        intent: 40 + n,
        template,
    }
}

/// The octets of a command of this length, with the header of its fields.
fn command(fields: Fields, len: usize) -> Vec<u8> {
    let mut octets = vec![0xA5; len];
    octets[0] = 0xDF;
    octets[3..11].copy_from_slice(&fields.counter.to_be_bytes());
    octets[21..29].copy_from_slice(fields.device.0.octets());
    octets
}

/// A container of two commands with a line between; its parts' first octets.
fn container(of_file: bool) -> (Vec<u8>, Vec<usize>) {
    let (mut octets, mut begins) = (Vec::new(), Vec::new());
    let mut writer = Writer::begin(&header(), &mut octets);
    begins.push(octets.len());
    writer.command(fields(1, 0), &command(fields(1, 0), 100), &mut octets);
    begins.push(octets.len());
    writer.line(b"{\"device\":\"x\"}\n", &mut octets);
    begins.push(octets.len());
    writer.command(fields(2, 1), &command(fields(2, 1), 4_000), &mut octets);
    begins.push(octets.len());
    if of_file {
        writer.end_before_digest(&mut octets);
        let digest = Digest::of(&octets);
        octets.extend_from_slice(&digest.0);
    } else {
        writer.end(&mut octets);
    }
    begins.push(octets.len());
    (octets, begins)
}

fn reader(of_file: bool) -> Reader {
    if of_file { Reader::of_file() } else { Reader::of_answer() }
}

/// Reads it in pieces of this length: what it says, to its end or its fault.
fn read(octets: &[u8], of_file: bool, piece: usize) -> Result<Vec<String>, ContainerError> {
    let (mut reader, mut said) = (reader(of_file), Vec::new());
    for piece in octets.chunks(piece) {
        reader.feed(piece);
        while let Some(record) = reader.record()? {
            said.push(match record {
                Record::Header(found) => {
                    assert_eq!(found, header());
                    "header".to_owned()
                }
                Record::Command(fields, octets) => {
                    assert_eq!(check_command(fields, reader.octets(&octets)), Ok(()));
                    format!("{} {} {} {}", fields.intent, fields.counter, fields.template, reader.octets(&octets).len())
                }
                Record::Line(line) => String::from_utf8(reader.octets(&line).to_vec()).unwrap(),
                Record::End(commands) => format!("end {commands}"),
            });
        }
    }
    reader.finish().map(|()| said)
}

#[test]
fn what_was_written_is_read_however_it_comes() {
    for of_file in [false, true] {
        let (octets, _) = container(of_file);
        let expected = ["header", "41 7001 0 100", "{\"device\":\"x\"}", "42 7002 1 4000", "end 2"];
        for piece in [1, 2, 7, 64, 4_096, octets.len()] {
            assert_eq!(read(&octets, of_file, piece).unwrap(), expected);
        }
    }
}

#[test]
fn what_is_cut_anywhere_has_no_end() {
    for of_file in [false, true] {
        let (octets, begins) = container(of_file);
        let near = |at: &usize| [at.saturating_sub(1), *at, at + 1, at + 4, at + 5, at + 6, at + 31];
        let places: std::collections::BTreeSet<usize> = begins.iter().flat_map(near).chain(0..40).collect();
        for len in places.into_iter().filter(|len| *len < octets.len()) {
            let error = read(&octets[..len], of_file, 64).unwrap_err();
            assert!(matches!(error.fault, Fault::Cut { .. }), "{len}: {error}");
            assert_eq!(error.at, len as u64);
        }
        let error = read(&[&octets[..], b"\0"].concat(), of_file, 64).unwrap_err();
        assert_eq!((error.at, error.fault), (octets.len() as u64, Fault::Surplus));
    }
}

#[test]
fn no_octet_of_a_file_can_be_another() {
    let (octets, _) = container(true);
    for at in 0..octets.len() {
        let mut altered = octets.clone();
        altered[at] ^= 1;
        read_altered(&altered, at);
    }
}

#[track_caller]
fn read_altered(octets: &[u8], at: usize) {
    let (mut reader, mut ended) = (Reader::of_file(), Ok(()));
    reader.feed(octets);
    loop {
        match reader.record() {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error) => {
                ended = Err(error);
                break;
            }
        }
    }
    assert!(ended.and_then(|()| reader.finish()).is_err(), "octet {at}");
}

#[test]
fn each_fault_is_told_with_its_octet() {
    let (octets, begins) = container(true);
    let check = |alter: &dyn Fn(&mut Vec<u8>), at: usize, expected: &str| {
        let mut altered = octets.clone();
        alter(&mut altered);
        let error = read(&altered, true, 4_096).unwrap_err();
        assert_eq!(error.at, at as u64, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(&|octets| octets[7] = 2, 0, "expected `SMKICMD` and version 1, found 534d4b49434d4402");
    check(&|octets| octets[8] = 1, 8, "the header: expected at most 65536 octets");
    check(&|octets| octets[12] = b'[', 12, "the header: ");
    let first = begins[0];
    check(
        &|octets| octets[first] = 3,
        first,
        "expected a record of kind 0, 1 or 2, or 3 in an answer of differences, found 3",
    );
    check(&|octets| octets[first + 1] = 1, first + 1, "a command: expected 26 to 1048576 octets");
    check(&|octets| octets[first + 30] = 2, first + 29, "expected one of the header's 2 templates, found the place 2");
    let end = begins[3];
    check(&|octets| octets[end + 4] = 8, end + 1, "the end: expected 40 octets, found the length 8");
    check(&|octets| octets[end + 12] = 3, end + 5, "the end says 3 commands, found 2");
    check(&|octets| octets[first + 60] ^= 1, end + 13, "it was changed");
    // An answer has no SHA-256, and a file must have one.
    assert!(matches!(read(&octets, false, 64).unwrap_err().fault, Fault::Len { what: "the end", .. }));
    assert!(matches!(read(&container(false).0, true, 64).unwrap_err().fault, Fault::Len { what: "the end", .. }));
}

#[test]
fn a_record_says_what_the_command_says_itself() {
    let fields = fields(1, 0);
    let octets = command(fields, 100);
    assert_eq!(check_command(fields, &octets), Ok(()));
    let other = Fields { counter: 1, ..fields };
    assert!(
        check_command(other, &octets)
            .unwrap_err()
            .to_string()
            .contains("its record says 00DB123400000001 with counter 1")
    );
    assert_eq!(check_command(fields, &octets[..28]), Err(Fault::Short(28)));
}

/// Commands of two templates in turn, each unlike the last of its template in some octets, in many, or in its length.
fn unlike() -> Vec<(Fields, Vec<u8>)> {
    let alter =
        |octets: &mut [u8], places: Range<usize>, n: u8| octets[places].iter_mut().for_each(|octet| *octet ^= n);
    let lens = [3_986, 4_001, 3_986, 4_001, 3_986, 4_001, 3_986, 3_987, 3_986, 64, 3_986];
    (0..)
        .zip(lens)
        .map(|(n, len)| {
            let fields = fields(n, u16::from(n % 2 == 1));
            let mut octets = command(fields, len);
            match n {
                // As signatures do, at the very end; nothing at all; more than is worth it.
                2 | 3 => alter(&mut octets, len - 64..len, 0x33),
                6 => alter(&mut octets, 100..700, 0x44),
                _ => {}
            }
            (fields, octets)
        })
        .collect()
}

#[test]
fn commands_told_by_differences_are_the_very_same() {
    let commands = unlike();
    let mut octets = Vec::new();
    let mut writer = Writer::begin_differences(&header(), &mut octets);
    let mut kinds = Vec::new();
    for (fields, command) in &commands {
        let begin = octets.len();
        writer.command(*fields, command, &mut octets);
        kinds.push(octets[begin]);
    }
    writer.end(&mut octets);
    assert_eq!(kinds, [1, 1, 3, 3, 3, 3, 1, 1, 1, 1, 3]);
    for piece in [1, 64, 4_096, octets.len()] {
        let (mut reader, mut found) = (Reader::of_answer(), Vec::new());
        for piece in octets.chunks(piece) {
            reader.feed(piece);
            while let Some(record) = reader.record().unwrap() {
                if let Record::Command(fields, octets) = record {
                    found.push((fields, reader.octets(&octets).to_vec()));
                }
            }
        }
        assert_eq!(reader.finish(), Ok(()));
        assert!(found == commands, "in pieces of {piece}");
    }
    // No file is of differences.
    assert!(matches!(read(&octets, true, 64).unwrap_err().fault, Fault::Magic(_)));
}

#[test]
fn differences_that_fit_no_command_are_a_fault() {
    let (first, second) = (fields(1, 0), fields(2, 0));
    let of_second = |differences: &[u8]| {
        let mut octets = Vec::new();
        let mut writer = Writer::begin_differences(&header(), &mut octets);
        writer.command(first, &command(first, 100), &mut octets);
        write_command(KIND_LIKEWISE, second, differences, &mut octets);
        writer.commands += 1;
        writer.end(&mut octets);
        read(&octets, false, 4_096).map_err(|error| error.fault)
    };
    let mut good = Vec::new();
    assert!(differ(&mut command(first, 100), &command(second, 100), &mut good));
    assert!(of_second(&good).is_ok());
    for wrong in
        [&[&good[..], &[0]].concat()[..], &good[..good.len() - 1], &[0, 99, 0, 2, 1, 1], &[0xFF, 0xFF, 0, 1, 1]]
    {
        assert_eq!(of_second(wrong), Err(Fault::Differences), "{wrong:?}");
    }
    assert!(matches!(of_second(&[]), Err(Fault::Command { .. })));
    // Before any command of its template.
    let mut octets = Vec::new();
    let _ = Writer::begin_differences(&header(), &mut octets);
    write_command(KIND_LIKEWISE, second, &[], &mut octets);
    assert_eq!(read(&octets, false, 64).unwrap_err().fault, Fault::Differences);
    // The same record where none is expected.
    let mut octets = Vec::new();
    let _ = Writer::begin(&header(), &mut octets);
    write_command(KIND_LIKEWISE, second, &[], &mut octets);
    assert_eq!(read(&octets, false, 64).unwrap_err().fault, Fault::Kind(KIND_LIKEWISE));
}

#[test]
fn a_header_is_read_up_to_its_longest_and_a_longer_one_is_refused_by_its_length() {
    // A JSON object may end with spaces.
    let of = |len: usize| {
        let mut text = serde_json::to_vec(&header()).unwrap();
        text.resize(len, b' ');
        [&MAGIC[..], &u32::try_from(len).unwrap().to_be_bytes()[..], &text].concat()
    };
    let mut reader = Reader::of_answer();
    reader.feed(&of(HEADER_LEN_MAX));
    assert!(matches!(reader.record(), Ok(Some(Record::Header(_)))));
    let mut reader = Reader::of_answer();
    // Before its octets are there.
    reader.feed(&of(HEADER_LEN_MAX + 1)[..MAGIC.len() + 4]);
    let Err(error) = reader.record() else { panic!("it was read") };
    assert!(
        matches!(error.fault, Fault::Len { what: "the header", found, .. } if found == HEADER_LEN_MAX + 1),
        "{error}"
    );
}
