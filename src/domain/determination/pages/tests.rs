use super::super::devices::DeviceListReader;
use super::*;

const PAGE: u64 = PAGE_LINES as u64;

fn device(n: u64) -> DeviceId {
    DeviceId(Eui64(n.to_be_bytes()))
}

/// A list of every other Device from 2 on.
fn text(lines: u64) -> String {
    (1..=lines).fold(String::new(), |text, n| text + &format!("{},supplier,{n}\n", device(2 * n)))
}

fn pages(text: &str) -> (Vec<Page>, Digest) {
    let mut reader = DeviceListReader::new(&["supplier".parse().unwrap()], u64::MAX);
    reader.feed(text.as_bytes(), |_| {});
    let (list, pages) = reader.finish_with_pages().unwrap();
    (pages, list.root)
}

fn octets<'a>(text: &'a str, page: &Page) -> &'a [u8] {
    let from = usize::try_from(page.at).unwrap();
    &text.as_bytes()[from..from + page.len as usize]
}

#[test]
fn pages_lie_side_by_side_and_their_roots_fold_to_the_root_of_the_list() {
    for lines in [1, 2, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 3 * PAGE + 1, 5 * PAGE - 1] {
        let text = text(lines);
        let (pages, root) = pages(&text);
        let mut whole = Frontier::new();
        text.lines().for_each(|line| whole.push(leaf_hash(line.as_bytes())));
        assert_eq!(root, whole.root(), "{lines} lines");
        let (mut folded, mut at, mut count) = (Frontier::new(), 0, 0);
        for page in &pages {
            assert_eq!(page.at, at);
            folded.push(page.root);
            at += u64::from(page.len);
            count += u64::from(page.lines);
        }
        assert_eq!((folded.root(), at, count), (root, text.len() as u64, lines));
        assert_eq!(pages.len() as u64, lines.div_ceil(PAGE));
    }
}

#[test]
fn each_device_of_a_page_is_found_and_none_between() {
    let text = text(2 * PAGE + 1);
    let (pages, _) = pages(&text);
    let mut found = Vec::new();
    for page in &pages {
        let read = page.read(octets(&text, page).to_vec()).unwrap();
        assert_eq!(read.len(), page.lines as usize);
        for line in octets(&text, page).split(|octet| *octet == b'\n').filter(|line| !line.is_empty()) {
            let line = std::str::from_utf8(line).unwrap();
            let device: DeviceId = line[..16].parse().unwrap();
            assert_eq!(read.find(device), Some(line));
            let number = u64::from_be_bytes(device.0.0);
            assert_eq!(read.find(self::device(number - 1)), None);
            assert_eq!(read.find(self::device(number + 1)), None);
            assert_eq!(read.after(Some(self::device(number - 1))).next(), Some(line));
            assert_ne!(read.after(Some(device)).next(), Some(line));
            assert!(read.spans(device));
            found.push(number);
        }
        let (first, last) =
            (page.first, self::device(u64::from_be_bytes(page.first.0.0) + 2 * u64::from(page.lines - 1)));
        assert!(read.spans(first) && read.spans(last));
        assert!(!read.spans(self::device(u64::from_be_bytes(first.0.0) - 1)));
        assert!(!read.spans(self::device(u64::from_be_bytes(last.0.0) + 1)));
        assert_eq!(read.after(None).count(), page.lines as usize);
        assert_eq!(read.after(Some(last)).next(), None);
    }
    assert_eq!(found, (1..=2 * PAGE + 1).map(|n| 2 * n).collect::<Vec<_>>());
}

#[test]
fn a_page_is_believed_only_as_it_was_made() {
    let text = text(PAGE + 3);
    let (pages, _) = pages(&text);
    for page in &pages {
        let good = octets(&text, page).to_vec();
        page.read(good.clone()).unwrap();
        for at in [0, 15, 20, good.len() / 2, good.len() - 1] {
            let mut edited = good.clone();
            edited[at] ^= 1;
            assert_eq!(page.read(edited).unwrap_err().first, page.first, "octet {at}");
        }
        let without_first = good.splitn(2, |octet| *octet == b'\n').nth(1).unwrap().to_vec();
        page.read(without_first).unwrap_err();
        page.read([good.as_slice(), b"FFFFFFFFFFFFFFFF,supplier\n"].concat()).unwrap_err();
        page.read([good.as_slice(), b"F"].concat()).unwrap_err();
        page.read(good[..good.len() - 1].to_vec()).unwrap_err();
        page.read(Vec::new()).unwrap_err();
    }
    pages[0].read(octets(&text, &pages[1]).to_vec()).unwrap_err();
}
