use super::*;

#[track_caller]
fn refused<T: FromStr<Err = NameError> + fmt::Debug>(text: &str) {
    let error = text.parse::<T>().unwrap_err();
    assert!(error.to_string().contains("expected"), "{error}");
}

#[test]
fn an_eui64_is_16_upper_case_digits_and_nothing_else() {
    let eui: Eui64 = "00DB1234567890A0".parse().unwrap();
    assert_eq!(eui.octets(), &[0x00, 0xDB, 0x12, 0x34, 0x56, 0x78, 0x90, 0xA0]);
    assert_eq!(eui.to_string(), "00DB1234567890A0");
    refused::<Eui64>("00db1234567890a0");
    refused::<Eui64>("00DB1234567890A");
    refused::<Eui64>("00DB1234567890A00");
    refused::<Eui64>("00-DB-12-34-56-78-90-A0");
}

#[test]
fn a_digest_is_64_lower_case_digits() {
    let text = "5a4123e11e8674c4add753d52adcf039a291dc712d39bd486e280b705ca5844e";
    assert_eq!(text.parse::<Digest>().unwrap().to_string(), text);
    refused::<Digest>(&text.to_uppercase());
    refused::<Digest>(&text[1..]);
}

#[test]
fn a_label_has_1_to_32_characters_of_its_alphabet() {
    assert_eq!("recovery-1".parse::<KeyLabel>().unwrap().as_str(), "recovery-1");
    assert!("a".repeat(32).parse::<KeyLabel>().is_ok());
    refused::<KeyLabel>(&"a".repeat(33));
    refused::<KeyLabel>("");
    refused::<KeyLabel>("Recovery");
    refused::<PersonId>("../etc");
}

#[test]
fn a_name_is_checked_where_json_is_read() {
    assert!(serde_json::from_str::<DeviceId>("\"00DB1234567890A0\"").is_ok());
    assert!(serde_json::from_str::<DeviceId>("\"00DB1234567890AX\"").unwrap_err().to_string().contains("EUI-64"));
}

#[test]
fn an_error_does_not_carry_a_megabyte() {
    let error = "X".repeat(1 << 20).parse::<Eui64>().unwrap_err();
    assert_eq!(error.found.len(), NameError::FOUND_LEN_MAX);
}
