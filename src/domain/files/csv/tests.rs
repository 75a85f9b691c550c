use super::*;

fn read(octets: &[u8]) -> Vec<Read> {
    let mut all = Vec::new();
    let mut reader = Reader::default();
    reader.feed(octets, &mut |read| all.push(read));
    reader.finish(&mut |read| all.push(read));
    all
}

fn record(line: u64, fields: &[&str]) -> Read {
    Read::Record(Record { line, fields: fields.iter().map(|field| (*field).to_owned()).collect() })
}

#[test]
fn records_are_read_as_rfc_4180_has_them() {
    for (text, expected) in [
        ("", vec![]),
        ("a", vec![record(1, &["a"])]),
        ("a\n", vec![record(1, &["a"])]),
        ("a\r\n", vec![record(1, &["a"])]),
        ("a,b\r\nc,d", vec![record(1, &["a", "b"]), record(2, &["c", "d"])]),
        (",\n", vec![record(1, &["", ""])]),
        ("a,", vec![record(1, &["a", ""])]),
        ("\n\n", vec![record(1, &[""]), record(2, &[""])]),
        ("\"a,b\",\"c\"\"d\"\n", vec![record(1, &["a,b", "c\"d"])]),
        ("\"\",x", vec![record(1, &["", "x"])]),
        ("\"two\nlines\",x\ny", vec![record(1, &["two\nlines", "x"]), record(3, &["y"])]),
        (" a , b\n", vec![record(1, &[" a ", " b"])]),
    ] {
        assert_eq!(read(text.as_bytes()), expected, "{text:?}");
    }
}

#[test]
fn a_fault_has_its_line_and_field_and_the_next_line_is_read() {
    for (octets, line, column, fault) in [
        (&b"x,a\"b\nc"[..], 1, 2, Fault::QuoteWithin),
        (b"x\ny,\"a\"b\nc", 2, 2, Fault::BehindQuote { found: 'b' }),
        (b"x,y,\xff,z\nc", 1, 3, Fault::NotUtf8 { octet: 0xFF }),
        (b"a\rb\nc", 1, 1, Fault::LoneReturn),
        (b"\xEF\xBB\xBFa\nc", 1, 1, Fault::ByteOrderMark),
    ] {
        let found = read(octets);
        let fault_read = Read::Fault(line, column, fault);
        assert!(found.contains(&fault_read), "expected {fault_read:?}, found {found:?}");
        assert_eq!(found.last(), Some(&record(line + 1, &["c"])), "{found:?}");
    }
    assert_eq!(read(b"a\n\"b\nc"), [record(1, &["a"]), Read::Fault(2, 1, Fault::Unclosed)]);
    assert_eq!(read(b"a\r"), [Read::Fault(1, 1, Fault::LoneReturn)]);
}

#[test]
fn fields_and_their_number_have_a_limit_and_not_one_more() {
    let long = "x".repeat(FIELD_LEN_MAX);
    assert_eq!(read(long.as_bytes()), [record(1, &[&long])]);
    let longer = format!("{long}x");
    assert_eq!(read(longer.as_bytes()), [Read::Fault(1, 1, Fault::FieldLength { max: FIELD_LEN_MAX })]);
    let many = vec![""; FIELDS_MAX];
    assert_eq!(read(many.join(",").as_bytes()), [record(1, &many)]);
    let more = ",".repeat(FIELDS_MAX);
    assert_eq!(read(more.as_bytes()), [Read::Fault(1, FIELDS_MAX + 1, Fault::FieldsMany { max: FIELDS_MAX })]);
}

proptest::proptest! {
    #[test]
    fn what_is_written_is_read_again(rows in proptest::collection::vec(proptest::collection::vec("[a-c\",\r\n é]{0,6}", 1..5), 0..6)) {
        let mut text = String::new();
        for row in &rows {
            write_record(row.iter().map(String::as_str), &mut text);
        }
        let found: Vec<Vec<String>> = read(text.as_bytes()).into_iter().map(|read| match read {
            Read::Record(record) => record.fields,
            Read::Fault(line, column, fault) => panic!("{line} {column} {fault}"),
        }).collect();
        proptest::prop_assert_eq!(found, rows);
    }

    #[test]
    fn pieces_are_read_as_the_whole(octets in proptest::collection::vec(proptest::sample::select(&b"a,\"\r\n\xEF\xBB\xBF\xff"[..]), 0..40), cut in 0_usize..40) {
        let (first, second) = octets.split_at(cut.min(octets.len()));
        let mut pieces = Vec::new();
        let mut reader = Reader::default();
        reader.feed(first, &mut |read| pieces.push(read));
        reader.feed(second, &mut |read| pieces.push(read));
        reader.finish(&mut |read| pieces.push(read));
        proptest::prop_assert_eq!(pieces, read(&octets));
    }
}
