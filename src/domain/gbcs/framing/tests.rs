use super::*;
use crate::domain::gbcs::samples::{
    COUNTER, DEVICE, Key, RECOVERY, command, framed, maced_command, pre_command, recovery_update, response,
};
use crate::domain::gbcs::{CredentialsReplacementMode, Update};

fn with_mode(mode: CredentialsReplacementMode) -> Vec<u8> {
    maced_command(Update { mode, ..recovery_update(&[], &[]) }, true)
}

#[track_caller]
fn refused(octets: &[u8], expected: &str) {
    let error = Frame::parse(octets).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn the_header_of_a_recovery_command_is_read_and_its_signed_octets_are_all_but_df_and_what_follows_the_payload() {
    let certificates = [framed(406)];
    let octets = command(recovery_update(&certificates, &[]));
    let frame = Frame::parse(&octets).unwrap();
    assert_eq!(frame.header.originator, RECOVERY.0);
    assert_eq!(frame.header.recipient, DEVICE.0);
    assert_eq!(frame.header.counter, COUNTER);
    assert_eq!(frame.header.code.value(), 0x0108);
    assert_eq!(frame.payload, 36..octets.len() - 65);
    assert_eq!(frame.tbs_range(), 1..octets.len() - 65);
    assert_eq!(frame.signature().unwrap()[..], octets[octets.len() - 64..]);
    assert_eq!(frame.signature_at(), octets.len() - 64);
    assert_eq!(frame.mac(), None);
}

#[test]
fn a_message_ends_in_one_of_four_ways() {
    let update = || recovery_update(&[], &[]);
    let mode = CredentialsReplacementMode::NetworkOperatorByNetworkOperator;
    let pre_command = pre_command(update());
    let authentication = |octets: &[u8]| match Frame::parse(octets).unwrap().authentication {
        Authentication::PreCommand => 0,
        Authentication::Signed(_) => 1,
        Authentication::SignedAndMac(..) => 2,
        Authentication::Mac(_) => 3,
    };
    assert_eq!(authentication(&pre_command), 0);
    assert_eq!(authentication(&Key::generate().finish(pre_command.clone())), 1);
    assert_eq!(authentication(&maced_command(Update { mode, ..update() }, true)), 2);
    assert_eq!(authentication(&maced_command(Update { mode, ..update() }, false)), 3);
    // Neither signed nor with a MAC.
    refused(&[&pre_command[..], &[0]].concat(), "expected length of signature (0x40), found 0x00");
    // A Response must be signed.
    let response = response(mode, None);
    refused(&response, "expected 1 more octets of length of signature, found 0");
    assert_eq!(authentication(&Key::generate().finish(response)), 1);
}

#[test]
fn a_mac_header_is_refused_in_the_two_modes_that_have_none() {
    for mode in CredentialsReplacementMode::ALL {
        let octets = with_mode_unchecked(*mode);
        if mode.is_never_maced() {
            refused(&octets, "expected no MAC Header in modes anyExceptAbnormalRootByRecovery");
        } else {
            assert_eq!(Frame::parse(&octets).unwrap().grouping_header_at, 14);
        }
    }
}

/// By way of mode 4, since nothing here writes the two that are refused.
fn with_mode_unchecked(mode: CredentialsReplacementMode) -> Vec<u8> {
    let mut octets = with_mode(CredentialsReplacementMode::AccessControlBrokerByACB);
    octets[14 + 32] = mode.code();
    octets
}

#[test]
fn every_fixed_octet_of_the_framing_is_checked_and_the_error_names_it() {
    #[track_caller]
    fn check(octets: &[u8], at: usize, value: u8, expected: &str) {
        let mut octets = octets.to_vec();
        octets[at] = value;
        let error = Frame::parse(&octets).unwrap_err().to_string();
        assert!(error.starts_with(&format!("octet {at}: ")) && error.contains(expected), "{error}");
    }
    let octets = command(recovery_update(&[], &[]));
    check(&octets, 0, 0xDE, "general-signing tag (0xDF), found 0xDE");
    check(&octets, 1, 8, "length of transaction-id (0x09), found 0x08");
    check(&octets, 2, 0, "CRA Flag 01");
    check(&octets, 2, 4, "CRA Flag 01");
    check(&octets, 11, 9, "length of originator-system-title (0x08)");
    check(&octets, 20, 7, "length of recipient-system-title (0x08)");
    check(&octets, 29, 12, "length of date-time (0x00), found 0x0C");
    check(&octets, 30, 10, "a Message Code and nothing else (0x02), found 0x0A");
    check(&octets, 31, 0x02, "Message Code 0100 to 0109, found 0208");
    check(&octets, octets.len() - 65, 0x3F, "length of signature (0x40), found 0x3F");
    let octets = with_mode(CredentialsReplacementMode::SupplierBySupplier);
    for at in 1..7 {
        check(&octets, at, 1, "(0x00), found 0x01");
    }
    check(&octets, 9, 0x10, "security header (0x11), found 0x10");
    check(&octets, 13, 1, "security header (0x00), found 0x01");
}

#[test]
fn a_message_code_fits_the_cra_flag() {
    let octets = command(recovery_update(&[], &[]));
    for (cra, code, is_known) in [
        (1, 0x0100_u16, true),
        (1, 0x0109, true),
        (1, 0x00FF, false),
        (1, 0x010A, false),
        (1, 0x00CB, false),
        (2, 0x0108, true),
        (2, 0x00CB, false),
        (3, 0x00CB, true),
        (3, 0x0108, false),
    ] {
        let mut octets = octets.clone();
        octets[2] = cra;
        octets[31..33].copy_from_slice(&code.to_be_bytes());
        match Frame::parse(&octets) {
            Ok(frame) => assert!(is_known && frame.header.code.value() == code && frame.header.cra.code() == cra),
            Err(error) => {
                assert!(!is_known);
                assert!(error.to_string().starts_with("octet 31: expected Message Code"), "{error}");
            }
        }
    }
}

#[test]
fn the_length_of_a_mac_header_counts_exactly_what_follows() {
    let octets = with_mode(CredentialsReplacementMode::SupplierBySupplier);
    refused(&octets[..octets.len() - 1], "octet 7: expected a length of");
    refused(&[&octets[..], &[0]].concat(), "octet 7: expected a length of");
}

#[test]
fn a_message_neither_lacks_an_octet_nor_has_one_more() {
    let octets = command(recovery_update(&[], &[]));
    for len in 0..octets.len() {
        let is_pre_command = len == octets.len() - 65;
        assert_eq!(Frame::parse(&octets[..len]).is_ok(), is_pre_command, "{len}");
    }
    refused(&[&octets[..], &[0]].concat(), "expected the end of the message, found 1 more octets");
    refused(&vec![0xDF; MESSAGE_LEN_MAX + 1], "expected a message of at most 65535 octets, found 65536");
}

#[test]
fn the_longest_payload_fits_with_every_kind_of_framing_and_one_octet_more_is_refused() {
    let header = crate::domain::gbcs::samples::header(
        Cra::Response,
        CredentialsReplacementMode::SupplierBySupplier.message_code(),
    );
    let (signature, mac) = ([1; 64], [2; 12]);
    let authentication = Authentication::SignedAndMac(&signature, &mac);
    let mut out = Vec::new();
    write(&header, &vec![0; PAYLOAD_LEN_MAX], authentication, &mut out).unwrap();
    assert_eq!(out.len(), MESSAGE_LEN_MAX);
    assert_eq!(Frame::parse(&out).unwrap().authentication, authentication);
    let refused = write(&header, &vec![0; PAYLOAD_LEN_MAX + 1], authentication, &mut Vec::new());
    assert_eq!(refused, Err(EncodeError::TooLong { found: PAYLOAD_LEN_MAX + 1 }));
}

#[test]
fn a_date_time_has_the_form_that_devices_send() {
    let octets = DlmsDateTime::from_timestamp("2015-01-01T00:00:00Z".parse().unwrap());
    assert_eq!(hex::encode_upper(octets.0), "07DF0101FF000000008000FF");
    assert_eq!(octets.to_string(), "2015-01-01 00:00:00.00");
    let octets = DlmsDateTime::from_timestamp("2026-11-24T23:59:58.999Z".parse().unwrap());
    assert_eq!(octets.to_string(), "2026-11-24 23:59:58.99");
    let unspecified = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x3C, 0xFF];
    assert_eq!(DlmsDateTime(unspecified).to_string(), "*-*-* *:*:*.* (deviation 60 minutes)");
}
