use super::*;

fn read(line: &str) -> (Result<Option<RoughLine>, DeviceFaultKind>, Tidied) {
    let mut tidied = Tidied::default();
    (tidied.read(2, line.as_bytes()), tidied)
}

#[track_caller]
fn good(line: &str, template: Option<&str>, counter: Option<u64>, tidied: Tidied) {
    let device = "00DB1234567890AF".parse().unwrap();
    let template = template.map(|name| name.parse().unwrap());
    assert_eq!(read(line), (Ok(Some(RoughLine { device, template, counter })), tidied), "{line:?}");
}

#[test]
fn what_can_be_read_without_a_doubt_is_read_and_what_was_other_is_counted() {
    let none = Tidied::default();
    good("00DB1234567890AF,esme", Some("esme"), None, none);
    good("00DB1234567890AF,esme,7", Some("esme"), Some(7), none);
    good("00DB1234567890AF", None, None, none);
    good("00DB1234567890AF,esme\r", Some("esme"), None, Tidied { carriage_return: 1, ..none });
    good("00db1234567890af,esme", Some("esme"), None, Tidied { digits: 1, ..none });
    good("00-DB-12-34-56-78-90-AF,esme", Some("esme"), None, Tidied { digits: 1, ..none });
    good("00:db:12:34:56:78:90:af", None, None, Tidied { digits: 1, ..none });
    good(" 00DB1234567890AF , esme ", Some("esme"), None, Tidied { around: 1, ..none });
    good("\"00DB1234567890AF\",\"esme\",\"7\"", Some("esme"), Some(7), Tidied { around: 1, ..none });
    good("00DB1234567890AF,esme,", Some("esme"), None, Tidied { around: 1, ..none });
    assert_eq!(read(""), (Ok(None), Tidied { empty: 1, ..none }));
    assert_eq!(read(" , ,\r"), (Ok(None), Tidied { empty: 1, carriage_return: 1, ..none }));
}

#[test]
fn a_header_and_a_byte_order_mark_are_passed_over_in_the_first_line_alone() {
    let mut tidied = Tidied::default();
    assert_eq!(tidied.read(1, "\u{feff}device,template,counter\r".as_bytes()), Ok(None));
    assert_eq!(tidied, Tidied { header: 1, mark: 1, carriage_return: 1, ..Tidied::default() });
    assert!(matches!(tidied.read(2, b"device,template,counter"), Err(DeviceFaultKind::Eui64 { .. })));
    assert!(matches!(tidied.read(2, "\u{feff}00DB1234567890AF".as_bytes()), Err(DeviceFaultKind::Eui64 { .. })));
    // A Device that is spoilt is no header.
    assert!(matches!(tidied.read(1, b"00DB1234567890A,esme"), Err(DeviceFaultKind::Eui64 { .. })));
}

#[test]
fn what_leaves_a_doubt_is_refused() {
    let kind = |line: &str| read(line).0.unwrap_err();
    assert!(matches!(kind("1.23E+15,esme"), DeviceFaultKind::Eui64 { .. }), "a spreadsheet's number");
    assert!(matches!(kind("DB1234567890AF,esme"), DeviceFaultKind::Eui64 { .. }), "leading zeros are gone");
    assert!(matches!(kind("00-DB-12:34-56-78-90-AF"), DeviceFaultKind::Eui64 { .. }));
    assert!(matches!(kind("00DB1234567890AF,esme,1,2"), DeviceFaultKind::Fields { found: 4 }));
    assert!(matches!(kind("00DB1234567890AF,,1"), DeviceFaultKind::Template { .. }));
    assert!(matches!(kind("00DB1234567890AF,esme,007"), DeviceFaultKind::Counter { .. }));
    assert!(matches!(kind("00DB1234567890AF,esme,1e3"), DeviceFaultKind::Counter { .. }));
    assert!(matches!(kind("00DB1234567890AF;esme"), DeviceFaultKind::Eui64 { .. }));
    assert_eq!(kind(&"A".repeat(ROUGH_LEN_MAX + 1)), DeviceFaultKind::TooLong);
    assert_ne!(kind(&"A".repeat(ROUGH_LEN_MAX)), DeviceFaultKind::TooLong);
}
