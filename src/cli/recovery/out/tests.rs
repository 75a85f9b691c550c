use super::*;

#[test]
fn the_size_of_a_file_is_a_number_of_commands_or_of_octets() {
    let check = |text: &str, expected: Option<FileSize>| assert_eq!(text.parse::<FileSize>().ok(), expected, "{text}");
    check("100000", Some(FileSize::Commands(100_000)));
    check("1", Some(FileSize::Commands(1)));
    check("4KiB", Some(FileSize::Octets(4_096)));
    check("256MiB", Some(FileSize::Octets(256 << 20)));
    check("2GiB", Some(FileSize::Octets(2 << 30)));
    for text in ["0", "0MiB", "", "MiB", "-1", "1.5GiB", "4MB", "10 MiB", "99999999999GiB"] {
        check(text, None);
    }
}
