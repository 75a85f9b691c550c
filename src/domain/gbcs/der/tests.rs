use super::*;
use crate::domain::gbcs::samples::eight_cells;

fn reader(octets: &[u8], lengths: Lengths) -> Reader<'_> {
    Reader::new(octets, 0..octets.len(), lengths)
}

/// `expected` is the length, or what the error says.
#[track_caller]
fn check_length(head: &[u8], strict: Result<usize, &str>, as_observed: Result<usize, &str>) {
    for (lengths, expected) in [(Lengths::Strict, strict), (Lengths::AsObserved, as_observed)] {
        let found = reader(head, lengths).length("it").map_err(|error| error.to_string());
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
            (found, expected) => panic!("{lengths:?}: expected {expected:?}, found {found:?}"),
        }
    }
}

#[test]
fn a_length_is_minimal_in_commands_and_may_be_long_in_answers_but_never_indefinite_or_of_three_octets() {
    check_length(&[0x00], Ok(0), Ok(0));
    check_length(&[0x7F], Ok(127), Ok(127));
    check_length(&[0x81, 0x80], Ok(128), Ok(128));
    check_length(&[0x81, 0x7F], Err("127 in more octets"), Ok(127));
    check_length(&[0x81, 0xFF], Ok(255), Ok(255));
    check_length(&[0x82, 0x01, 0x00], Ok(256), Ok(256));
    check_length(&[0x82, 0x00, 0xFF], Err("255 in more octets"), Ok(255));
    check_length(&[0x82, 0x00, 0x00], Err("0 in more octets"), Ok(0));
    check_length(&[0x82, 0xFF, 0xFF], Ok(65535), Ok(65535));
    check_length(&[0x80], Err("indefinite"), Err("indefinite"));
    check_length(&[0x83, 0, 0, 1], Err("3 octets of length"), Err("3 octets of length"));
    check_length(&[0xFF], Err("127 octets of length"), Err("127 octets of length"));
    check_length(&[0x82, 0x01], Err("expected 2 more octets of it, found 1"), Err("expected 2 more octets"));
    check_length(&[], Err("octet 0: expected 1 more octets of it, found 0"), Err("octet 0"));
}

#[test]
fn lengths_are_written_as_they_are_read() {
    for length in [0, 1, 127, 128, 255, 256, 257, 65535] {
        let mut octets = Vec::new();
        write_length(&mut octets, length);
        assert_eq!(octets.len(), length_len(length), "{length}");
        assert_eq!(reader(&octets, Lengths::Strict).length("it"), Ok(length));
    }
    let mut octets = Vec::new();
    write_length(&mut octets, 65536);
    assert_eq!(octets, [0x83, 1, 0, 0]);
    assert_eq!(length_len(65536), 4);
}

#[track_caller]
fn check_unsigned(element: &[u8], expected: Result<u64, &str>) {
    let found = reader(element, Lengths::AsObserved).unsigned(tag::INTEGER, "n").map_err(|error| error.to_string());
    match (found, expected) {
        (Ok(found), Ok(expected)) => {
            assert_eq!(found, expected);
            let mut written = Vec::new();
            write_unsigned(&mut written, tag::INTEGER, found);
            assert_eq!(written, element);
        }
        (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
        (found, expected) => panic!("expected {expected:?}, found {found:?}"),
    }
}

#[test]
fn an_integer_is_not_negative_minimal_and_at_most_2_to_the_63_less_1() {
    check_unsigned(&[2, 1, 0], Ok(0));
    check_unsigned(&[2, 1, 0x7F], Ok(127));
    check_unsigned(&[2, 2, 0, 0x80], Ok(128));
    check_unsigned(&[2, 2, 0x1B, 0x58], Ok(7000));
    check_unsigned(&[2, 3, 0, 0x8F, 0x66], Ok(0x8F66));
    check_unsigned(&[2, 8, 0x7F, 255, 255, 255, 255, 255, 255, 255], Ok((1 << 63) - 1));
    check_unsigned(&[2, 9, 0, 0x80, 0, 0, 0, 0, 0, 0, 0], Err("octet 2: expected n, at most 9223372036854775807"));
    check_unsigned(&[2, 1, 0x80], Err("not negative, found 80"));
    check_unsigned(&[2, 2, 0, 0x7F], Err("in as few octets as can be, found 007F"));
    check_unsigned(&[2, 0], Err("at least one octet, found no octets"));
    check_unsigned(&[3, 1, 0], Err("octet 0: expected n (0x02), found 0x03"));
    check_unsigned(&[2, 2, 1], Err("octet 2: expected 2 more octets of n, found 1"));
    // With a longer length, as Devices send it.
    assert_eq!(reader(&[2, 0x81, 1, 5], Lengths::AsObserved).unsigned(tag::INTEGER, "n"), Ok(5));
    let refused = reader(&[2, 0x81, 1, 5], Lengths::Strict).unsigned(tag::INTEGER, "n").unwrap_err().to_string();
    assert!(refused.starts_with("octet 1: expected a minimal length"), "{refused}");
}

#[track_caller]
fn check_octet_string(octets: &[u8], lengths: Lengths, expected: Result<[u8; 2], &str>) {
    let mut reader = reader(octets, lengths);
    match (reader.octet_string("it").map_err(|error| error.to_string()), expected) {
        (Ok(found), Ok(expected)) => assert_eq!((found, reader.at()), (expected, octets.len())),
        (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
        (found, expected) => panic!("expected {expected:?}, found {found:?}"),
    }
}

#[test]
fn an_octet_string_of_so_many_octets_has_a_length_in_any_form_that_may_be_and_no_other_length() {
    check_octet_string(&[4, 2, 7, 8], Lengths::Strict, Ok([7, 8]));
    check_octet_string(&[4, 0x81, 2, 7, 8], Lengths::AsObserved, Ok([7, 8]));
    check_octet_string(&[4, 0x82, 0, 2, 7, 8], Lengths::AsObserved, Ok([7, 8]));
    check_octet_string(&[4, 0x81, 2, 7, 8], Lengths::Strict, Err("octet 1: expected a minimal length"));
    check_octet_string(&[4, 1, 7], Lengths::Strict, Err("octet 2: expected 2 more octets of it, found 1"));
    check_octet_string(&[4, 3, 7, 8, 9], Lengths::Strict, Err("octet 4: expected the end of it, found 1 more"));
    check_octet_string(&[4, 2, 7], Lengths::Strict, Err("octet 2: expected 2 more octets of it, found 1"));
    check_octet_string(&[3, 2, 7, 8], Lengths::Strict, Err("octet 0: expected it (0x04), found 0x03"));
    check_octet_string(&[4], Lengths::Strict, Err("octet 1: expected 1 more octets of it, found 0"));
    check_octet_string(&[], Lengths::Strict, Err("octet 0: expected 1 more octets of it, found 0"));
}

#[track_caller]
fn check_no_cell(octets: &str, expected: &str) {
    let octets = hex::decode(octets).unwrap();
    let error = reader(&octets, Lengths::Strict).cell(tag::SEQUENCE, "cell").unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn a_cell_reads_as_written_and_nothing_else_reads_as_a_cell() {
    for cell in eight_cells() {
        let mut octets = Vec::new();
        write_cell(&mut octets, tag::SEQUENCE, cell);
        assert_eq!(reader(&octets, Lengths::Strict).cell(tag::SEQUENCE, "cell"), Ok(cell));
    }
    check_no_cell("300702010903020780", "octet 4: expected remotePartyRole 0, 1, 2, 3, 4, 5, 6, 7, 8, 127, found 9");
    check_no_cell(
        "300702010203020680",
        "octet 7: expected digitalSignature (0780), keyAgreement (0308) or keyCertSign (0204)",
    );
    check_no_cell("3007020102030207C0", "found 07C0");
    check_no_cell("300A02010203020780020100", "expected trustAnchorCellUsage absent where it is management");
    check_no_cell("300A02010203020780020102", "octet 11: expected cellUsage 0, 1, found 2");
    check_no_cell("300902010203020780", "octet 2: expected 9 more octets of cell, found 7");
    check_no_cell("3009020102030207800500", "octet 9: expected the end of cell, found 2 more octets");
    check_no_cell("310702010203020780", "octet 0: expected cell (0x30), found 0x31");
}
