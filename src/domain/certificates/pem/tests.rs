use super::*;

#[test]
fn blocks_are_found_between_chatter_and_with_either_line_end() {
    let text =
        "subject=x\r\n-----BEGIN A-----\r\nAAAA\r\n-----END A-----\r\n\n-----BEGIN B C-----\nAQID\n-----END B C-----";
    let found = blocks(text).unwrap();
    assert_eq!(found.iter().map(|block| (block.label, block.line)).collect::<Vec<_>>(), [("A", 2), ("B C", 6)]);
    assert_eq!(found[0].decode().unwrap(), [0, 0, 0]);
    assert_eq!(found[1].decode().unwrap(), [1, 2, 3]);
}

#[test]
fn a_block_that_does_not_end_is_named_with_its_line() {
    let fault = blocks("\n-----BEGIN A-----\nAAAA\n-----END B-----\n").map(|found| found.len()).unwrap_err();
    assert_eq!(fault, PemError::Unended { line: 2, label: "A".into() });
}

#[test]
fn says_what_is_there_when_the_wanted_is_not() {
    let fault = certificates("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap_err();
    assert_eq!(fault.to_string(), "PEM: expected a block -----BEGIN CERTIFICATE-----, found PRIVATE KEY");
    let fault = public_key("hello").unwrap_err();
    assert_eq!(fault.to_string(), "PEM: expected a block -----BEGIN PUBLIC KEY-----, found no block at all");
}

#[test]
fn one_public_key_goes_in_and_out_and_two_do_not() {
    let mut point = [9; 65];
    point[0] = 4;
    let key = PublicKey::from_point(&point).unwrap();
    let text = public_key_to_pem(&key);
    assert_eq!(public_key(&text), Ok(key));
    assert!(matches!(public_key(&text.repeat(2)), Err(PemError::TooMany { found: 2, max: 1, .. })));
}

#[test]
fn a_text_is_at_most_so_long() {
    assert_eq!(blocks(&" ".repeat(TEXT_LEN_MAX)).map(|found| found.len()), Ok(0));
    let fault = blocks(&" ".repeat(TEXT_LEN_MAX + 1)).map(|found| found.len());
    assert_eq!(fault, Err(PemError::TooLong { found: TEXT_LEN_MAX + 1 }));
}

#[test]
fn der_is_told_from_text() {
    assert!(is_pem(b"-----BEGIN CMS-----"));
    assert!(is_pem(b"subject=\n-----BEGIN CMS-----"));
    assert!(!is_pem(b"0-----BEGIN CMS-----"));
    assert!(!is_pem(b""));
    assert_eq!(text(&[0x41, 0xFF]), Err(PemError::NotText { octet: 1 }));
}

#[test]
fn a_certificate_block_is_read_as_the_strict_decoder_reads_it_whatever_its_form() {
    let of = |label: &str, inside: &str| format!("-----BEGIN {label}-----\n{inside}-----END {label}-----\n");
    let line = "A".repeat(64);
    let taken = [
        "AAAA\n".to_owned(),
        format!("{line}\n"),
        format!("{line}\nAQID\n"),
        format!("{line}\r\nAQI=\r\n"),
        // Empty lines at the end.
        format!("{line}\n\n"),
    ];
    let refused = [
        String::new(),
        "\n".to_owned(),
        // Longer lines, a shorter one before the last, an empty one.
        format!("{line}AAAA\n"),
        format!("{}\nAAAA\n", "A".repeat(60)),
        format!("{line}\n\nAAAA\n"),
        // No padding, surplus bits, characters of another alphabet, white space.
        "AQI\n".to_owned(),
        "AQJ=\n".to_owned(),
        "AA_-\n".to_owned(),
        " AAAA\n".to_owned(),
    ];
    for (inside, is_taken) in
        taken.iter().map(|inside| (inside, true)).chain(refused.iter().map(|inside| (inside, false)))
    {
        let decoded = |label: &str| {
            let text = of(label, inside);
            blocks(&text).unwrap()[0].decode().map_err(|fault| fault.to_string().replace(label, ""))
        };
        // Of another label the strict decoder alone is asked.
        let (certificate, other) = (decoded("CERTIFICATE"), decoded("OTHER"));
        assert_eq!(certificate, other, "{inside:?}");
        assert_eq!(certificate.is_ok(), is_taken, "{inside:?}: {certificate:?}");
    }
}
