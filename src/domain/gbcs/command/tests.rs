use std::fmt::Write;

use super::*;
use crate::domain::gbcs::Message;
use crate::domain::gbcs::samples::{contingency_update, framed, pre_command, recovery_update, seq};

/// A whole `CommandPayload` around the contents of its control, with no replacement and no path certificate.
fn payload(control: &str, after: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    write_element(&mut octets, tag::SEQUENCE, |out| {
        write_octets(out, tag::SEQUENCE, &hex::decode(control.replace(' ', "")).unwrap());
        out.extend(hex::decode(after.replace(' ', "")).unwrap());
    });
    octets
}

/// `expected` is empty if the payload reads, else what its error says.
#[track_caller]
fn check(control: &str, after: &str, expected: &str) {
    let octets = payload(control, after);
    match read(&octets, 0..octets.len(), Slots::Filled) {
        Ok(read) => {
            assert_eq!(expected, "");
            let mut written = Vec::new();
            let key = read.plaintext_symmetric_key.map(|key| key.expose().to_vec());
            write(&mut written, &read.update, key.as_deref(), read.seq_number);
            assert_eq!(written, octets);
        }
        Err(error) => {
            let error = error.to_string();
            assert!(!expected.is_empty() && error.contains(expected), "{error}");
        }
    }
}

/// Mode 8, recovery cell, counter 7000.
const CONTROL: &str = "020108 A20702010103020780 83021B58";
/// No replacement, no path certificate.
const LISTS: &str = "3000 3000";

#[test]
fn the_symmetric_key_is_present_in_mode_9_and_in_no_other() {
    let key16 = "8010 EEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEE";
    let rest = "A20702010003020204 83021B58";
    check(&format!("020109 {key16} {rest}"), LISTS, "");
    check(&format!("020109 8001EE {rest}"), LISTS, "");
    check(&format!("020109 8040 {} {rest}", "EE".repeat(64)), LISTS, "");
    check(&format!("020109 8041 {} {rest}", "EE".repeat(65)), LISTS, "1 to 64 octets, found 65 octets");
    check(&format!("020109 8000 {rest}"), LISTS, "1 to 64 octets, found 0 octets");
    check(
        &format!("020109 {rest}"),
        LISTS,
        "octet 7: expected plaintextSymmetricKey in mode anyByContingency, found it absent",
    );
    for mode in 0..=8 {
        let control = format!("0201{mode:02X} {key16} {rest}");
        check(&control, LISTS, "expected plaintextSymmetricKey in no mode but anyByContingency, found it present");
    }
}

#[test]
fn the_authorising_cell_is_absent_in_mode_4_only() {
    check("020104 83021B58", LISTS, "");
    check("020104 A20702010403020308 83021B58", LISTS, "");
    for mode in [0, 1, 2, 3, 5, 6, 7, 8] {
        check(
            &format!("0201{mode:02X} 83021B58"),
            LISTS,
            "expected authorisingRemotePartyTACellIdentifier in every mode",
        );
    }
}

#[test]
fn fields_are_in_order_of_their_tags_once_and_no_others() {
    let all = "020108 810101 A20702010103020780 83021B58 840100 A50830060201000201 05 A60830060201020201 00";
    check(all, LISTS, "");
    check(
        "020108 A20702010103020780 810101 83021B58",
        LISTS,
        "expected authorisingRemotePartySeqNumber (0x83), found 0x81",
    );
    check("020108 A20702010103020780 83021B58 83021B58", LISTS, "expected the end of AuthorisingRemotePartyControl");
    check("020108 A20702010103020780 83021B58 A700", LISTS, "expected the end of AuthorisingRemotePartyControl");
    check("020108 A20702010103020780", LISTS, "more octets of authorisingRemotePartySeqNumber, found 0");
    check("810101", LISTS, "expected credentialsReplacementMode (0x02), found 0x81");
    check("02010A", LISTS, "expected credentialsReplacementMode 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, found 10");
}

#[test]
fn a_default_is_left_out() {
    check("020108 810100 A20702010103020780 83021B58", LISTS, "expected applyTimeBasedCPVChecks 1 (disapply)");
    check("020108 810102 A20702010103020780 83021B58", LISTS, "found 2");
}

#[test]
fn counters_are_from_0_to_2_to_the_63_less_1_wherever_they_stand() {
    for (counter, expected) in [
        ("0100", ""),
        ("087FFFFFFFFFFFFFFF", ""),
        ("09008000000000000000", "at most 9223372036854775807"),
        ("0180", "not negative"),
        ("00", "at least one octet"),
    ] {
        check(&format!("020108 A20702010103020780 83{counter}"), LISTS, expected);
        check(&format!("{CONTROL} 84{counter}"), LISTS, expected);
    }
    check(&format!("{CONTROL} A5083006020101020100"), LISTS, "expected seqNumberUsage 0 (prepaymentTopUp), found 1");
    check(&format!("{CONTROL} A60F300D0201020201003005040002010000"), LISTS, "expected");
}

#[test]
fn what_follows_the_control_is_two_lists_and_perhaps_a_time() {
    check(CONTROL, LISTS, "");
    check(CONTROL, "3000 3000 180F 32303330303131353030303030305A", "");
    check(CONTROL, "3000", "more octets of certificationPathCertificates, found 0");
    check(CONTROL, "3000 3000 0500", "expected the end of CommandPayload, found 2 more octets");
    check(CONTROL, "3002 0500 3000", "expected TrustAnchorReplacement (0x30), found 0x05");
    check(CONTROL, "3000 3002 0500", "expected Certificate (0x30), found 0x05");
    check(CONTROL, "300D 300B 3000 300702010103020780 3000", "");
    check(CONTROL, "300F 300D 3000 300702010103020780 0500 3000", "expected the end of TrustAnchorReplacement");
    check(CONTROL, "3004 3002 3000 3000", "more octets of targetTrustAnchorCell");
    check(CONTROL, "3000 3004 3003 0000", "expected 3 more octets of Certificate, found 2");
}

#[test]
fn a_time_is_15_characters_of_the_calendar() {
    fn check_time(text: &str, is_time: bool) {
        let mut after = LISTS.to_owned();
        write!(after, "18{:02X}{}", text.len(), hex::encode(text)).unwrap();
        check(CONTROL, &after, if is_time { "" } else { "expected a time YYYYMMDDHHMMSSZ" });
    }
    check_time("20300115000000Z", true);
    check_time("99991231235959Z", true);
    check_time("20280229000000Z", true);
    check_time("20270229000000Z", false);
    check_time("20301315000000Z", false);
    check_time("20300115240000Z", false);
    check_time("20300115000060Z", false);
    check_time("203001150000Z", false);
    check_time("20300115000000.0Z", false);
    check_time("20300115000000z", false);
    check_time("+2030115000000Z", false);
    check_time("19691231235959Z", false);
}

#[test]
fn the_last_second_of_9999_cancels_and_no_other_does() {
    let at = |text: &str| GeneralizedTime::from_timestamp(text.parse().unwrap());
    assert!(at("9999-12-31T23:59:59Z").unwrap().is_cancellation());
    assert!(!at("9999-12-31T23:59:58Z").unwrap().is_cancellation());
    assert_eq!(at("9999-12-31T23:59:58.5Z"), None);
}

#[test]
fn no_debug_text_shows_the_symmetric_key() {
    let mode = CredentialsReplacementMode::AnyByContingency;
    let octets = pre_command(Update { mode, ..recovery_update(&[], &[]) });
    assert!(octets.windows(32).any(|window| window == [0xEE; 32]));
    let text = format!("{:?}", Message::decode(&octets).unwrap());
    assert!(text.contains("has_plaintext_symmetric_key: true"), "{text}");
    assert!(!text.contains("238, 238") && !text.to_lowercase().contains("eeee"), "{text}");
}

#[test]
fn every_field_of_an_update_reads_as_written() {
    let (certificates, path) = ([framed(60), framed(300)], [framed(200)]);
    let mut update = recovery_update(&certificates, &path);
    let floor = SpecialistFloor { usage: SpecialistUse::PrepaymentTopUp, floor: SeqNumber::MAX };
    update.new_specialist_floors = Some(vec![floor, floor]);
    update.execution = GeneralizedTime::from_timestamp("2030-01-15T00:00:00Z".parse().unwrap());
    for other_changes in [None, Some(Vec::new()), update.other_changes.clone()] {
        let update = Update { other_changes, ..update.clone() };
        let payload = CommandPayload { update, seq_number: seq(1), plaintext_symmetric_key: None };
        let mut octets = Vec::new();
        payload.write(&mut octets);
        let read = read(&octets, 0..octets.len(), Slots::Filled).unwrap();
        assert_eq!((read.update, read.seq_number), (payload.update, Some(seq(1))));
    }
}

#[test]
fn by_the_contingency_route_each_role_that_is_replaced_has_a_floor_but_the_recovery_cells() {
    use RemotePartyRole::{NetworkOperator, Root, Supplier};
    let certificates: Vec<_> = (60..69).map(framed).collect();
    let good = contingency_update(&certificates, &[]);
    let check = |change: &dyn Fn(&mut Update<'_>), expected: &[RemotePartyRole]| {
        let mut update = good.clone();
        change(&mut update);
        assert_eq!(Vec::from_iter(update.replaced_without_floor()), expected);
    };
    // The recovery cell is among those that are replaced, and has no floor.
    assert!(good.replacements.iter().any(|replacement| replacement.cell == TrustAnchorCell::RECOVERY));
    assert!(good.other_changes.iter().flatten().all(|change| change.role != RemotePartyRole::Recovery));
    check(&|_| (), &[]);
    check(&|update| update.new_floor = None, &[Root]);
    let without = |update: &mut Update<'_>, role| {
        update.other_changes.as_mut().unwrap().retain(|change| change.role != role);
    };
    check(&|update| without(update, Supplier), &[Supplier]);
    let both = |update: &mut Update<'_>| {
        without(update, NetworkOperator);
        without(update, Supplier);
    };
    check(&both, &[Supplier, NetworkOperator]);
    // What is not replaced needs none.
    let neither = |update: &mut Update<'_>| {
        both(update);
        update.replacements.retain(|of| ![Supplier, NetworkOperator].contains(&of.cell.role));
    };
    check(&neither, &[]);
}
