use super::*;
use proptest::prelude::*;

fn templates() -> Vec<TemplateName> {
    vec!["supplier".parse().unwrap(), "network".parse().unwrap()]
}

fn read(octets: &[u8], piece: usize) -> (Vec<DeviceRow>, Result<DeviceList, DeviceFaults>) {
    let mut reader = DeviceListReader::new(&templates(), 1000);
    let mut rows = Vec::new();
    for piece in octets.chunks(piece) {
        reader.feed(piece, |row| rows.push(row));
    }
    (rows, reader.finish())
}

#[track_caller]
fn refused(text: &str, because: &str) {
    for piece in [1, 3, 4096] {
        let faults = read(text.as_bytes(), piece).1.unwrap_err().to_string();
        assert!(faults.contains(because), "expected {because:?}, found {faults}");
    }
}

const GOOD: &str =
    "00DB1234567890A0,supplier\n00DB1234567890A1,network,0\n00DB1234567890B0,supplier,18446744073709551615\n";

#[test]
fn a_list_has_a_count_the_digest_of_sha256sum_and_the_root_over_its_lines() {
    let (rows, list) = read(GOOD.as_bytes(), 7);
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0].counter, None);
    assert_eq!(rows[1].counter, Some(0));
    assert_eq!((rows[2].template, rows[2].counter), (0, Some(u64::MAX)));
    let list = list.unwrap();
    assert_eq!(list.count, 3);
    assert_eq!(list.sha256, sha256sum(GOOD.as_bytes()));
    let oracle = ct_merkle::mem_backed_tree::MemoryBackedTree::<sha2::Sha256, Vec<u8>>::new();
    let oracle = GOOD.lines().fold(oracle, |mut tree, line| {
        tree.push(line.as_bytes().to_vec());
        tree
    });
    assert_eq!(list.root.octets().as_slice(), oracle.root().as_bytes().as_slice());
}

/// The real tool.
fn sha256sum(octets: &[u8]) -> Digest {
    use std::process::{Command, Stdio};
    let mut tool = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    tool.stdin.take().unwrap().write_all(octets).unwrap();
    let printed = tool.wait_with_output().unwrap().stdout;
    std::str::from_utf8(&printed[..64]).unwrap().parse().unwrap()
}

#[test]
fn each_fault_names_its_line() {
    refused("", "line 1: expected at least one Device");
    refused("00DB1234567890A0,supplier", "line 1: expected a line feed");
    refused("00DB1234567890A0,supplier\n00DB", "line 2: expected a line feed");
    refused("00DB1234567890A0,supplier\n\n", "line 2: expected EUI64,template or");
    refused("00DB1234567890A0\n", "found 1 fields");
    refused("00DB1234567890A0,supplier,1,2\n", "found 4 fields");
    refused("00db1234567890a0,supplier\n", "found \"00db1234567890a0\"");
    refused("00DB1234567890A,supplier\n", "16 upper-case");
    refused(" 00DB1234567890A0,supplier\n", "16 upper-case");
    refused("00DB1234567890A0,gas\n", "templates, found \"gas\"");
    refused("00DB1234567890A0,supplier\r\n", "found \"supplier\\r\"");
    refused("00DB1234567890A0,supplier,\n", "found \"\"");
    refused("00DB1234567890A0,supplier,01\n", "without leading zeros");
    refused("00DB1234567890A0,supplier,-1\n", "without leading zeros");
    refused("00DB1234567890A0,supplier,18446744073709551616\n", "18446744073709551615");
    refused(
        "00DB1234567890A1,supplier\n00DB1234567890A0,supplier\n",
        "line 2: expected a Device above 00DB1234567890A1",
    );
    refused("00DB1234567890A0,supplier\n00DB1234567890A0,network\n", "line 2: 00DB1234567890A0 stands there twice");
    refused("\u{feff}00DB1234567890A0,supplier\n", "16 upper-case");
}

#[test]
fn a_line_may_have_its_greatest_length_and_not_one_octet_more() {
    let name = "a".repeat(TemplateName::LEN_MAX);
    let longest = format!("00DB1234567890A0,{name},{}", u64::MAX);
    assert_eq!(longest.len(), LINE_LEN_MAX);
    let read = |text: &str| {
        let mut reader = DeviceListReader::new(&[name.parse().unwrap()], 1000);
        reader.feed(text.as_bytes(), |_| {});
        reader.finish()
    };
    assert!(read(&format!("{longest}\n")).is_ok());
    assert!(read(&format!("{longest}0\n")).unwrap_err().to_string().contains("at most 70 octets"));
    let endless = read(&"A".repeat(1 << 20)).unwrap_err();
    assert_eq!(endless.faults, [DeviceFault { line: 1, kind: DeviceFaultKind::Cut }]);
}

#[test]
fn all_faults_are_told_up_to_twenty_and_the_rest_counted() {
    let (rows, faults) = read("x\n".repeat(FAULTS_MAX + 3).as_bytes(), 5);
    let faults = faults.unwrap_err();
    assert!(rows.is_empty());
    assert_eq!((faults.faults.len(), faults.more), (FAULTS_MAX, 3));
    assert_eq!(faults.faults[19].line, 20);
}

#[test]
fn so_many_devices_as_the_policy_allows_and_not_one_more() {
    let line = |n: u32| format!("{n:016X},supplier\n");
    let text: String = (0..1000).map(line).collect();
    assert_eq!(read(text.as_bytes(), 4096).1.unwrap().count, 1000);
    let more = text + &line(1000) + &line(1001);
    let (rows, faults) = read(more.as_bytes(), 4096);
    assert_eq!(rows.len(), 1000);
    assert_eq!(faults.unwrap_err().faults, [DeviceFault { line: 1001, kind: DeviceFaultKind::TooMany { max: 1000 } }]);
}

proptest! {
    #[test]
    fn what_is_written_is_read_again_in_pieces_of_any_size(
        devices in proptest::collection::btree_map(any::<u64>(), (0_usize..2, any::<Option<u64>>()), 1..40),
        piece in 1_usize..200,
    ) {
        let rows: Vec<_> = devices
            .into_iter()
            .map(|(eui, (template, counter))| DeviceRow { device: DeviceId(Eui64(eui.to_be_bytes())), template, counter })
            .collect();
        let mut text = Vec::new();
        for row in &rows {
            row.write(&templates(), &mut text).unwrap();
        }
        let (again, list) = read(&text, piece);
        prop_assert_eq!(list.unwrap().count, rows.len() as u64);
        prop_assert_eq!(again, rows);
    }

    #[test]
    fn no_octets_panic_and_pieces_make_no_difference(octets in any::<Vec<u8>>(), piece in 1_usize..9) {
        prop_assert_eq!(read(&octets, piece), read(&octets, 4096));
    }
}
