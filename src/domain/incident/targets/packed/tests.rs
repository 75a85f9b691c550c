use proptest::prelude::*;

use super::*;

fn target(device: u64, since: i64) -> Target {
    Target {
        device: DeviceId(Eui64(device.to_be_bytes())),
        status: SmiStatus::Commissioned,
        since: Timestamp::from_unix_ms(since).unwrap(),
        proof: Proof::None,
        under: Place::default(),
        again: Again::No,
        excluded: false,
        control: Control::AsBefore,
        overridden: Overridden::No,
    }
}

fn nth(packed: &Packed, at: usize) -> Target {
    packed.iter().nth(at).unwrap()
}

/// Octets that it takes, but for what an allocation costs.
fn octets(packed: &Packed) -> usize {
    let of_page = |page: &Arc<Page>| {
        let standings = page.standings.capacity() * size_of::<Standing>();
        let numbers = [&*page.distances, &page.which, &page.since.times].map(|numbers| numbers.bits.len());
        size_of::<Page>() + size_of::<Numbers>() + standings + numbers.iter().sum::<usize>()
    };
    packed.pages.iter().map(of_page).sum::<usize>() + packed.pages.capacity() * size_of::<usize>()
}

#[test]
fn ten_million_take_what_is_said_of_them() {
    // A hundredth of them is enough. One maker's, one after the other, all commissioned on one day; and spread over a maker's whole
    // number space, each commissioned on any day of twelve years.
    const COUNT: u32 = 100_000;
    let alike: Packed = (0..u64::from(COUNT)).map(|n| target(0x00DB_1234_0000_0000 + n, 1_500_000_000_000)).collect();
    let day = |n: u32| 86_400_000 * i64::from(15_000 + n % 4_380 * 7_919 % 4_380);
    let spread: Packed =
        (0..COUNT).map(|n| target(0x00DB_1200_0000_0000 + u64::from(n) * 11_000_000, day(n))).collect();
    let each = |packed: &Packed| f64::from(u32::try_from(octets(packed)).unwrap()) / f64::from(COUNT);
    assert!(each(&alike) < 2.5, "{}", each(&alike));
    assert!(each(&spread) < 7.5, "{}", each(&spread));
}

#[test]
fn what_is_done_with_a_clone_is_not_done_with_the_other() {
    let one: Packed = (0..1_000).map(|n| target(n, 0)).collect();
    let mut other = one.clone();
    other.editor().edit(700, |target| target.excluded = true);
    assert_ne!(one, other);
    assert!(!nth(&one, 700).excluded && nth(&other, 700).excluded);
    assert!(Arc::ptr_eq(&one.pages[0], &other.pages[0]), "a page that neither altered is shared");
    other.editor().edit(700, |target| target.excluded = false);
    assert_eq!(one, other);
}

fn altered(target: &mut Target, how: u8, number: i64) {
    match how % 8 {
        0 => target.status = SmiStatus::Recovery,
        1 => target.status = SmiStatus::Recovered,
        2 => target.since = Timestamp::from_unix_ms(number).unwrap(),
        3 => target.proof = Proof::Succeeded,
        4 => target.under = Place::of(Some(usize::try_from(number % 70_000).unwrap())),
        5 => target.excluded = !target.excluded,
        6 => target.control = Control::Dcc,
        _ => target.since = Timestamp::MAX,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn they_are_what_they_were_whatever_is_done_with_them(
        devices in proptest::collection::btree_map(
            prop_oneof![0_u64..2_000, any::<u64>()], (0..4_000_i64).prop_map(|day| day * 86_400_000), 1..700),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..=Timestamp::MAX.unix_ms()), 0..600),
        asked in proptest::collection::vec(any::<u64>(), 0..20),
    ) {
        let mut plain: Vec<Target> = devices.iter().map(|(device, since)| target(*device, *since)).collect();
        let mut packed: Packed = plain.iter().copied().collect();
        for (at, how, number) in edits {
            let at = at.index(plain.len());
            altered(&mut plain[at], how, number);
            packed.editor().edit(at, |target| altered(target, how, number));
        }
        prop_assert_eq!(packed.len(), plain.len());
        prop_assert_eq!(packed.iter().collect::<Vec<_>>(), plain.clone());
        let mut finder = packed.finder();
        for (at, target) in plain.iter().enumerate() {
            prop_assert_eq!(packed.find(target.device), Some((at, *target)));
            prop_assert_eq!(finder.find(target.device), Some((at, *target)));
        }
        for device in asked.into_iter().chain(plain.iter().map(|target| u64::from_be_bytes(target.device.0.0).wrapping_add(1))) {
            let expected = plain.iter().position(|target| target.device.0.0 == device.to_be_bytes());
            let device = DeviceId(Eui64(device.to_be_bytes()));
            prop_assert_eq!(packed.find(device).map(|(at, _)| at), expected);
            prop_assert_eq!(finder.find(device).map(|(at, _)| at), expected);
        }
        prop_assert_eq!(&packed, &plain.into_iter().collect::<Packed>());
    }
}

#[test]
fn each_way_to_stand_of_a_whole_page_is_kept_apart() {
    let mut packed: Packed = (0..PAGE as u64).map(|n| target(n, 0)).collect();
    for round in 0..3 {
        let mut editor = packed.editor();
        for at in 0..PAGE {
            editor.edit(at, |target| target.under = Place::of(Some(PAGE * round + at)));
        }
        drop(editor);
        for at in 0..PAGE {
            assert_eq!(nth(&packed, at).under, Place::of(Some(PAGE * round + at)));
        }
    }
    assert_eq!(packed.pages[0].standings.len(), PAGE);
}
