use super::*;

#[test]
fn a_command_is_put_once_and_nothing_is_overwritten() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("commands");
    let device: DeviceId = "00DB1234567890A0".parse().unwrap();
    let folder = Folder::open(&path).unwrap();
    folder.put(device, b"one").unwrap();
    folder.put(device, b"one").unwrap();
    for other in [b"two".as_slice(), b"on", b"one more"] {
        assert!(matches!(folder.put(device, other), Err(CliError::Input(InputError::Exists { .. }))));
    }
    folder.finish().unwrap();
    assert_eq!(fs::read(path.join("00DB1234567890A0.bin")).unwrap(), b"one");
    assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "no left-overs");
}

#[test]
fn a_folder_is_made_if_it_is_not_there_and_is_no_file() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("commands");
    Folder::open(&path).unwrap();
    Folder::open(&path).unwrap();
    let file = scratch.path().join("file");
    fs::write(&file, b"").unwrap();
    assert!(Folder::open(&file).is_err());
    assert!(Folder::open(&scratch.path().join("a/b")).is_err());
}
