use super::*;

#[track_caller]
fn check(contents: &str, expected: &str) {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("devices");
    fs::write(&path, contents).unwrap();
    let found = match devices(path.to_str().unwrap()) {
        Ok(Devices::All) => "all".to_owned(),
        Ok(Devices::Listed(devices)) => devices.iter().map(|d| d.device.to_string()).collect::<Vec<_>>().join(" "),
        Err(error) => error.to_string().replace(path.to_str().unwrap(), "F"),
    };
    assert_eq!(found, expected);
}

#[test]
fn a_list_names_a_device_a_line_in_the_form_of_a_determination_s_list_too() {
    check("00DB1234567890A0\n", "00DB1234567890A0");
    check("00DB1234567890A0,esme,7\n00DB1234567890A1", "00DB1234567890A0 00DB1234567890A1");
    check("", "F: expected one Device a line, found nothing");
    check("00DB1234567890A1\n00DB1234567890A0,esme,7\r\n", "00DB1234567890A0 00DB1234567890A1");
    let not = |line: u32, found: &str| {
        format!("line {line}: EUI-64: expected 16 upper-case hexadecimal digits, found {found:?}")
    };
    check("00DB1234567890A0\n\n", &format!("F: found\n  {}", not(2, "")));
    check("00db1234567890a0", &format!("F: found\n  {}", not(1, "00db1234567890a0")));
}

#[test]
fn every_fault_of_a_list_is_told_with_its_line_up_to_a_number_and_a_device_twice_with_both() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("list");
    let told = |contents: &str| {
        fs::write(&path, contents).unwrap();
        device_lines(&path, u64::MAX).unwrap_err().to_string()
    };
    let twice = told("00DB1234567890A1\n00DB1234567890A0\n00DB1234567890A1\n");
    assert!(twice.contains("line 3: Device 00DB1234567890A1 stands in line 1 already"), "{twice}");
    let several = told("00DB1234567890A1\nsomething\n00DB1234567890A1\nelse\n");
    assert!(["line 2: ", "line 3: ", "line 4: "].iter().all(|line| several.contains(line)), "{several}");
    for (wrong, more) in [(FAULTS_MAX, false), (FAULTS_MAX + 1, true)] {
        assert_eq!(told(&"x\n".repeat(wrong)).contains("and 1 more"), more);
    }
    let long = usize::try_from(DEVICE_LINE_LEN_MAX).unwrap();
    for (len, expected) in
        [(long - 1, "line 2: EUI-64"), (long, "line 2: expected a line of less"), (9 * long, "of less")]
    {
        let said = told(&format!("00DB1234567890A1\n{}\nx\n", "y".repeat(len)));
        assert!(said.contains(expected) && said.contains("line 3: "), "{len}: {said}");
    }
    fs::write(&path, "00DB1234567890A1\n").unwrap();
    assert!(device_lines(&path, 17).is_ok());
    assert!(matches!(device_lines(&path, 16), Err(InputError::TooLong { limit: 16, .. })));
}

#[test]
fn a_file_is_read_up_to_its_limit_and_not_beyond() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("f");
    fs::write(&path, b"1234").unwrap();
    assert_eq!(file(&path, 4).unwrap(), b"1234");
    assert!(matches!(file(&path, 3), Err(InputError::TooLong { limit: 3, .. })));
}

#[test]
fn pre_commands_come_in_the_order_of_their_names() {
    let scratch = tempfile::tempdir().unwrap();
    for name in ["b", "a", "c"] {
        fs::write(scratch.path().join(name), name).unwrap();
    }
    fs::create_dir(scratch.path().join("d")).unwrap();
    let octets: Vec<Vec<u8>> = pre_commands(scratch.path()).unwrap().into_iter().map(|command| command.0).collect();
    assert_eq!(octets, [b"a", b"b", b"c"]);
    assert_eq!(pre_commands(&scratch.path().join("b")).unwrap().len(), 1);
    fs::write(scratch.path().join("b"), b"").unwrap();
    assert!(matches!(pre_commands(scratch.path()), Err(InputError::Empty { .. })));
}
