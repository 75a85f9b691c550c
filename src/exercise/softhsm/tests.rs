use super::*;

const SLOTS: &str = "Available slots:
Slot 1804289383
    Token info:
        Serial number:    8c1d4cbd6b8b4567
        Initialized:      yes
        Label:            ledger
Slot 846930886
    Token info:
        Serial number:    0a1b2c3d4e5f6789
        Initialized:      yes
        Label:            recovery
";

#[test]
fn the_serial_number_is_that_of_the_token_with_the_label() {
    let check = |label, expected: Option<&str>| assert_eq!(serial_of(SLOTS, label).as_deref(), expected);
    check("ledger", Some("8c1d4cbd6b8b4567"));
    check("recovery", Some("0a1b2c3d4e5f6789"));
    check("recover", None);
    check("", None);
}

#[test]
fn two_tokens_are_made_in_the_folder_given() {
    let scratch = tempfile::tempdir().unwrap();
    let softhsm = SoftHsm::prepare(scratch.path()).unwrap();
    let [ledger, recovery] = ["ledger", "recovery"].map(|label| softhsm.make_token(label).unwrap());
    assert_ne!(ledger.serial, recovery.serial);
    assert_eq!(std::fs::read_to_string(&recovery.pin_file).unwrap().len(), 16);
    assert_eq!(std::fs::read_dir(scratch.path().join("tokens")).unwrap().count(), 2);
}
