use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn a_new_or_empty_folder_is_taken_and_one_with_files_is_not() {
    let scratch = tempfile::tempdir().unwrap();
    let new = scratch.path().join("a/b");
    let layout = Layout::create(&new).unwrap();
    layout.write_for("commands", "02DE1CE000000001".parse().unwrap(), "bin", b"octets").unwrap();
    assert_eq!(fs::read(new.join("commands/02DE1CE000000001.bin")).unwrap(), b"octets");
    assert!(matches!(Layout::create(&new), Err(LayoutError::NotEmpty(_))));
    assert!(matches!(
        layout.write("commands/02DE1CE000000001.bin", b"other"),
        Err(LayoutError::Io { error, .. }) if error.kind() == io::ErrorKind::AlreadyExists
    ));
}

#[test]
fn a_secret_is_its_owners_alone() {
    let scratch = tempfile::tempdir().unwrap();
    let (folder, file) = (scratch.path().join("private"), scratch.path().join("private/pin"));
    create_private(&folder).unwrap();
    write_secret(&file, b"1234").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&file)), (0o700, 0o600));
}
