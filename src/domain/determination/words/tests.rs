use super::*;

#[test]
fn no_two_words_begin_alike_and_each_can_be_read_aloud() {
    assert!(WORDS.is_sorted());
    let beginnings: std::collections::BTreeSet<_> = WORDS.iter().map(|word| &word[..3]).collect();
    assert_eq!(beginnings.len(), 256);
    assert!(WORDS.iter().all(|w| (4..=9).contains(&w.len()) && w.bytes().all(|b| b.is_ascii_lowercase())));
}

#[test]
fn no_word_becomes_another_by_two_changed_letters() {
    fn distance(a: &[u8], b: &[u8]) -> usize {
        let mut row: Vec<usize> = (0..=b.len()).collect();
        for (i, x) in a.iter().enumerate() {
            let mut before = row[0];
            row[0] = i + 1;
            for (j, y) in b.iter().enumerate() {
                let above = row[j + 1];
                row[j + 1] = (above + 1).min(row[j] + 1).min(before + usize::from(x != y));
                before = above;
            }
        }
        row[b.len()]
    }
    for (i, a) in WORDS.iter().enumerate() {
        for b in &WORDS[..i] {
            assert!(distance(a.as_bytes(), b.as_bytes()) >= 3, "{a} and {b}");
        }
    }
}

#[test]
fn a_digest_is_eight_numbered_lines_of_four_words() {
    let mut octets = [0; 32];
    octets[1] = 0xff;
    octets[31] = 0x01;
    let text = Words(Digest(octets)).to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 8);
    assert_eq!(lines[0], format!("1  {0} {1} {0} {0}", WORDS[0], WORDS[255]));
    assert_eq!(lines[7], format!("8  {0} {0} {0} {1}", WORDS[0], WORDS[1]));
    assert_eq!(Words(Digest(octets)).iter().count(), 32);
}
