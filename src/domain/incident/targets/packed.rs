//! Pure. Targets side by side in as few octets as they need: ten million in some 30 MB where they are alike, and 60 MB where each has a
//! date of its own, for an incident's are in memory as long as it is open.
//!
//! 256 of them are a page. A page has the distances between its Devices, in as few bits as the longest takes; how its Devices stand, each
//! way once, and for each Device which; and the moments since when, as multiples of what they have in common. A clone shares the pages
//! that neither alters.

use std::sync::Arc;

use super::{Again, Control, Overridden, Place, Proof, Target};
use crate::domain::ledger::steps::SmiStatus;
use crate::domain::names::{DeviceId, Digest, Eui64};
use crate::domain::time::Timestamp;

/// Targets of every page but the last.
const PAGE: usize = 256;

/// How a target stands, but for since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    status: SmiStatus,
    proof: Proof,
    under: Place,
    again: Again,
    excluded: bool,
    control: Control,
    overridden: Overridden,
}

impl Standing {
    const fn of(target: &Target) -> Self {
        let Target { device: _, status, since: _, proof, under, again, excluded, control, overridden } = *target;
        Self { status, proof, under, again, excluded, control, overridden }
    }

    const fn target(self, device: DeviceId, since: Timestamp) -> Target {
        let Self { status, proof, under, again, excluded, control, overridden } = self;
        Target { device, status, since, proof, under, again, excluded, control, overridden }
    }
}

/// Numbers of the same few bits each.
#[derive(Clone, Debug, Default)]
struct Numbers {
    width: usize,
    bits: Box<[u8]>,
}

impl Numbers {
    /// So many, all of them 0, none of them ever more than `most`.
    fn new(count: usize, most: u64) -> Self {
        let width = bits_of(most);
        Self { width, bits: vec![0; (count * width).div_ceil(8)].into() }
    }

    /// These.
    fn of(all: &[u64]) -> Self {
        let mut numbers = Self::new(all.len(), all.iter().copied().max().unwrap_or(0));
        all.iter().enumerate().for_each(|(at, number)| numbers.set(at, *number));
        numbers
    }

    /// Whether a number has room.
    const fn takes(&self, number: u64) -> bool {
        bits_of(number) <= self.width
    }

    fn get(&self, at: usize) -> u64 {
        let (from, shift) = self.place(at);
        let window = match self.bits[from..].first_chunk() {
            // All but the last few lie in one word.
            Some(word) if shift + self.width <= 64 => u128::from(u64::from_le_bytes(*word)),
            Some(_) | None => {
                let octets = self.bits[from..].iter().take((shift + self.width).div_ceil(8));
                octets.rev().fold(0_u128, |window, octet| window << 8 | u128::from(*octet))
            }
        };
        u64::try_from(window >> shift & self.mask()).expect("at most 64 bits")
    }

    fn set(&mut self, at: usize, number: u64) {
        let (from, shift) = self.place(at);
        let (mut mask, mut bits) = (self.mask() << shift, u128::from(number) << shift);
        for octet in self.bits[from..].iter_mut().take((shift + self.width).div_ceil(8)) {
            *octet = *octet & !mask.to_le_bytes()[0] | bits.to_le_bytes()[0];
            (mask, bits) = (mask >> 8, bits >> 8);
        }
    }

    /// The octet that a number begins in, and by how many bits.
    const fn place(&self, at: usize) -> (usize, usize) {
        let bit = at * self.width;
        (bit / 8, bit % 8)
    }

    const fn mask(&self) -> u128 {
        (1 << self.width) - 1
    }
}

/// How many bits a number has.
const fn bits_of(number: u64) -> usize {
    (u64::BITS - number.leading_zeros()) as usize
}

/// Moments, as the earliest of them and multiples of a span.
#[derive(Clone, Debug)]
struct Moments {
    earliest: i64,
    span: i64,
    times: Numbers,
}

impl Moments {
    fn of(moments: &[i64]) -> Self {
        let earliest = moments.iter().copied().min().unwrap_or(0);
        let span = moments.iter().fold(0, |span, moment| gcd(span, moment - earliest)).max(1);
        let times = moments.iter().map(|moment| ((moment - earliest) / span).unsigned_abs());
        Self { earliest, span, times: Numbers::of(&times.collect::<Vec<_>>()) }
    }

    fn get(&self, at: usize) -> i64 {
        self.earliest + self.times.get(at).cast_signed() * self.span
    }

    fn set(&mut self, count: usize, at: usize, moment: i64) {
        let distance = moment - self.earliest;
        let times = (distance / self.span).unsigned_abs();
        if distance >= 0 && distance % self.span == 0 && self.times.takes(times) {
            self.times.set(at, times);
        } else {
            let mut all: Vec<i64> = (0..count).map(|at| self.get(at)).collect();
            all[at] = moment;
            *self = Self::of(&all);
        }
    }
}

const fn gcd(mut one: i64, mut other: i64) -> i64 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

/// Up to 256 targets.
#[derive(Clone, Debug)]
struct Page {
    first: u64,
    last: u64,
    /// The distance of each Device but the first from the one before it. They never change, so altered pages share them.
    distances: Arc<Numbers>,
    count: usize,
    /// The ways to stand, each once.
    standings: Vec<Standing>,
    /// Which of them each target has.
    which: Numbers,
    since: Moments,
}

impl Page {
    /// Of at least one target, sorted.
    fn of(targets: &[Target]) -> Self {
        let number = |target: &Target| u64::from_be_bytes(*target.device.0.octets());
        let (first, last) = (number(&targets[0]), number(&targets[targets.len() - 1]));
        let distances = targets.windows(2).map(|pair| number(&pair[1]) - number(&pair[0]));
        let moments: Vec<i64> = targets.iter().map(|target| target.since.unix_ms()).collect();
        let standings: Vec<Standing> = targets.iter().map(Standing::of).collect();
        let mut page = Self {
            first,
            last,
            distances: Arc::new(Numbers::of(&distances.collect::<Vec<_>>())),
            count: targets.len(),
            standings: Vec::new(),
            which: Numbers::default(),
            since: Moments::of(&moments),
        };
        page.stand(&standings);
        page
    }

    /// Has each target stand so.
    fn stand(&mut self, each: &[Standing]) {
        let mut standings: Vec<Standing> = Vec::new();
        let mut place = |standing: &Standing| {
            standings.iter().position(|known| known == standing).unwrap_or_else(|| {
                standings.push(*standing);
                standings.len() - 1
            })
        };
        let places: Vec<u64> = each.iter().map(|standing| place(standing) as u64).collect();
        standings.shrink_to_fit();
        (self.standings, self.which) = (standings, Numbers::of(&places));
    }

    /// The Devices, one after the other.
    fn devices(&self) -> impl Iterator<Item = u64> {
        let distances = (0..self.count - 1).map(|at| self.distances.get(at));
        std::iter::once(self.first).chain(distances.scan(self.first, |device, distance| {
            *device += distance;
            Some(*device)
        }))
    }

    fn target(&self, at: usize, device: u64) -> Target {
        let standing = self.standing(at);
        let since = Timestamp::from_unix_ms(self.since.get(at)).unwrap_or(Timestamp::MIN);
        standing.target(DeviceId(Eui64(device.to_be_bytes())), since)
    }

    /// Which way a target stands.
    fn way(&self, at: usize) -> usize {
        usize::try_from(self.which.get(at)).expect("at most a page")
    }

    fn standing(&self, at: usize) -> Standing {
        self.standings[self.way(at)]
    }

    fn set(&mut self, at: usize, target: &Target) {
        self.since.set(self.count, at, target.since.unix_ms());
        let standing = Standing::of(target);
        let known = self.standings.iter().position(|known| *known == standing);
        match known {
            Some(place) => self.which.set(at, place as u64),
            None if self.which.takes(self.standings.len() as u64) => {
                self.which.set(at, self.standings.len() as u64);
                self.standings.push(standing);
            }
            None => {
                let mut each = self.each_standing();
                each[at] = standing;
                self.stand(&each);
            }
        }
    }

    fn each_standing(&self) -> Vec<Standing> {
        (0..self.count).map(|at| self.standing(at)).collect()
    }

    /// Drops the ways to stand that no target has any more.
    fn tidy(&mut self) {
        let mut has = [false; PAGE + 1];
        for at in 0..self.count {
            has[self.way(at)] = true;
        }
        if has[..self.standings.len()].iter().any(|has| !has) {
            let each = self.each_standing();
            self.stand(&each);
        }
    }
}

/// How a target stands, but for its Device and since when: octets of the one encoding.
pub(super) const STANDING_LEN: usize = 8;

/// What an encoding of pages lacks.
fn cut() -> String {
    "expected the Relevant Devices of an incident, found octets that are cut off".to_owned()
}

fn octets<'a>(from: &mut &'a [u8], len: usize) -> Result<&'a [u8], String> {
    let (octets, rest) = from.split_at_checked(len).ok_or_else(cut)?;
    *from = rest;
    Ok(octets)
}

fn array<const N: usize>(from: &mut &[u8]) -> Result<[u8; N], String> {
    octets(from, N).map(|octets| octets.try_into().expect("as many as asked for"))
}

impl Numbers {
    /// So many of this width, from octets.
    fn read(from: &mut &[u8], count: usize, width: usize) -> Result<Self, String> {
        Ok(Self { width, bits: octets(from, (count * width).div_ceil(8))?.into() })
    }
}

impl Page {
    /// Writes a page that was just made of its targets, so that the same ones always have the same octets.
    fn write(&self, standing: impl Fn(&Target) -> [u8; STANDING_LEN], to: &mut Vec<u8>) {
        let short = |number: usize| u16::try_from(number).expect("at most a page").to_be_bytes();
        to.extend(short(self.count));
        to.extend(self.first.to_be_bytes());
        for at in 0..self.count - 1 {
            let mut distance = self.distances.get(at);
            while distance >= 1 << 7 {
                to.push(distance.to_le_bytes()[0] | 1 << 7);
                distance >>= 7;
            }
            to.push(distance.to_le_bytes()[0]);
        }
        to.extend(short(self.standings.len()));
        for one in &self.standings {
            to.extend(standing(&one.target(DeviceId(Eui64([0; 8])), Timestamp::MIN)));
        }
        to.extend(&*self.which.bits);
        to.extend(self.since.earliest.to_be_bytes());
        to.extend(self.since.span.to_be_bytes());
        to.push(u8::try_from(self.since.times.width).expect("at most 64"));
        to.extend(&*self.since.times.bits);
    }

    /// Reads a page: its targets.
    fn read(
        from: &mut &[u8],
        standing: impl Fn([u8; STANDING_LEN]) -> Result<Target, String>,
    ) -> Result<Vec<Target>, String> {
        let count = usize::from(u16::from_be_bytes(array(from)?));
        if !(1..=PAGE).contains(&count) {
            return Err(format!("expected 1 to {PAGE} Relevant Devices a page, found {count}"));
        }
        let mut devices = vec![u64::from_be_bytes(array(from)?)];
        while devices.len() < count {
            let (mut distance, mut shift) = (0_u64, 0);
            loop {
                let [octet] = array(from)?;
                let bits = u64::from(octet & 0x7F);
                if shift > 63 || (shift == 63 && bits > 1) {
                    return Err("expected a distance of 64 bits, found more".to_owned());
                }
                distance |= bits << shift;
                shift += 7;
                if octet & 0x80 == 0 {
                    break;
                }
            }
            let next = devices.last().and_then(|before| before.checked_add(distance)).filter(|_| distance > 0);
            devices.push(next.ok_or("expected the Devices sorted, each once, found another order")?);
        }
        let ways = usize::from(u16::from_be_bytes(array(from)?));
        if !(1..=count).contains(&ways) {
            return Err(format!("expected 1 to {count} ways to stand, found {ways}"));
        }
        let standings = (0..ways).map(|_| standing(array(from)?)).collect::<Result<Vec<_>, _>>()?;
        let which = Numbers::read(from, count, bits_of(ways as u64 - 1))?;
        let (earliest, span) = (i64::from_be_bytes(array(from)?), i64::from_be_bytes(array(from)?));
        let [width] = array(from)?;
        if width > 63 {
            return Err(format!("expected moments of at most 63 bits, found {width}"));
        }
        let times = Numbers::read(from, count, usize::from(width))?;
        let each = devices.into_iter().enumerate().map(|(at, device)| {
            let way = usize::try_from(which.get(at)).ok().and_then(|way| standings.get(way));
            let way = way.ok_or("expected a way to stand that the page has, found another")?;
            let moment = times.get(at).cast_signed().checked_mul(span).and_then(|after| earliest.checked_add(after));
            let since = moment.ok_or("expected a moment, found one beyond all")?;
            let since = Timestamp::from_unix_ms(since).map_err(|error| error.to_string())?;
            Ok(Target { device: DeviceId(Eui64(device.to_be_bytes())), since, ..*way })
        });
        each.collect()
    }
}

/// Which pages of targets are kept, by their SHA-256; with each the page itself as it was then, once that was looked at: one that is still
/// the same need not be encoded again.
#[derive(Clone, Debug, Default)]
pub struct PagesKept(Vec<(Option<Arc<Page>>, Digest)>);

impl PagesKept {
    /// Of these.
    pub(super) fn of(digests: impl IntoIterator<Item = Digest>) -> Self {
        Self(digests.into_iter().map(|digest| (None, digest)).collect())
    }
}

/// Targets, sorted, each Device once.
#[derive(Clone, Debug, Default)]
pub(super) struct Packed {
    /// The first Device of each page, side by side for whoever looks one up.
    firsts: Arc<[u64]>,
    pages: Arc<Vec<Arc<Page>>>,
    len: usize,
}

/// They are compared as what they are, and not as how they lie.
impl PartialEq for Packed {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl Eq for Packed {}

impl FromIterator<Target> for Packed {
    /// From targets that are sorted, each once.
    fn from_iter<I: IntoIterator<Item = Target>>(targets: I) -> Self {
        let mut building = Building::default();
        targets.into_iter().for_each(|target| building.push(target));
        building.finish()
    }
}

/// Packs targets as they come.
#[derive(Default)]
pub(super) struct Building {
    pages: Vec<Arc<Page>>,
    next: Vec<Target>,
}

impl Building {
    /// The next, whose Device is above the one before.
    pub(super) fn push(&mut self, target: Target) {
        self.next.push(target);
        if self.next.len() == PAGE {
            self.turn();
        }
    }

    fn turn(&mut self) {
        self.pages.push(Arc::new(Page::of(&self.next)));
        self.next.clear();
    }

    pub(super) fn finish(mut self) -> Packed {
        if !self.next.is_empty() {
            self.turn();
        }
        let before = self.pages.len().saturating_sub(1) * PAGE;
        let len = self.pages.last().map_or(0, |page| before + page.count);
        self.pages.shrink_to_fit();
        Packed { firsts: self.pages.iter().map(|page| page.first).collect(), pages: Arc::new(self.pages), len }
    }
}

impl Packed {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Target> {
        self.pages.iter().flat_map(|page| page.devices().enumerate().map(|(at, device)| page.target(at, device)))
    }

    /// Where a Device stands, and the target itself.
    pub(super) fn find(&self, device: DeviceId) -> Option<(usize, Target)> {
        let number = u64::from_be_bytes(*device.0.octets());
        let page = self.page(number)?;
        let (at, found) = self.pages[page].devices().enumerate().find(|(_, found)| *found >= number)?;
        (found == number).then(|| (page * PAGE + at, self.pages[page].target(at, number)))
    }

    /// The page that a Device stands on, if it is there at all.
    fn page(&self, number: u64) -> Option<usize> {
        let at = self.firsts.partition_point(|first| *first <= number).checked_sub(1)?;
        (number <= self.pages[at].last).then_some(at)
    }

    /// Gives out the SHA-256 of each page, and to `put` each page that is another than `kept` has: however the targets came to be what they
    /// are, in the same octets. From then on it is `kept`.
    pub(super) fn keep(
        &self,
        standing: impl Fn(&Target) -> [u8; STANDING_LEN],
        kept: &mut PagesKept,
        put: &mut dyn FnMut(usize, Vec<u8>),
        mut each: impl FnMut(Digest),
    ) {
        let mut pages = Vec::with_capacity(self.pages.len());
        for (at, page) in self.pages.iter().enumerate() {
            let (known, before) = match kept.0.get(at) {
                Some((known, digest)) => (known.as_ref(), Some(*digest)),
                None => (None, None),
            };
            let digest = match before {
                Some(digest) if known.is_some_and(|known| Arc::ptr_eq(known, page)) => digest,
                before => {
                    let targets: Vec<Target> =
                        page.devices().enumerate().map(|(at, device)| page.target(at, device)).collect();
                    let mut octets = Vec::new();
                    Page::of(&targets).write(&standing, &mut octets);
                    let digest = Digest::of(&octets);
                    if before != Some(digest) {
                        put(at, octets);
                    }
                    digest
                }
            };
            each(digest);
            pages.push((Some(Arc::clone(page)), digest));
        }
        kept.0 = pages;
    }

    /// Reads them, page by page.
    ///
    /// # Errors
    /// What was expected, and what was found.
    pub(super) fn read(
        pages: impl IntoIterator<Item = Vec<u8>>,
        standing: impl Fn([u8; STANDING_LEN]) -> Result<Target, String>,
        mut each: impl FnMut(&Target),
    ) -> Result<Self, String> {
        let (mut building, mut before) = (Building::default(), None);
        for octets in pages {
            let mut from = &octets[..];
            for target in Page::read(&mut from, &standing)? {
                if before.is_some_and(|before| before >= target.device) {
                    return Err("expected the Devices sorted, each once, found another order".to_owned());
                }
                before = Some(target.device);
                each(&target);
                building.push(target);
            }
            if !from.is_empty() {
                return Err(format!("expected a page of Relevant Devices, found {} octets more", from.len()));
            }
        }
        Ok(building.finish())
    }

    /// Looks Devices up, best in their order.
    pub(super) fn finder(&self) -> Finder<'_> {
        Finder { packed: self, page: usize::MAX, devices: Vec::with_capacity(PAGE) }
    }

    /// Alters targets, best in their order.
    pub(super) fn editor(&mut self) -> Editor<'_> {
        Editor { packed: self, page: usize::MAX, devices: Vec::with_capacity(PAGE) }
    }
}

/// Keeps the Devices of the page that was looked at last.
pub(super) struct Finder<'a> {
    packed: &'a Packed,
    page: usize,
    devices: Vec<u64>,
}

impl Finder<'_> {
    /// Where a Device stands, and the target itself.
    pub(super) fn find(&mut self, device: DeviceId) -> Option<(usize, Target)> {
        let number = u64::from_be_bytes(*device.0.octets());
        let is_here = self.packed.pages.get(self.page).is_some_and(|page| page.first <= number && number <= page.last);
        if !is_here {
            self.page = self.packed.page(number)?;
            self.devices.clear();
            self.devices.extend(self.packed.pages[self.page].devices());
        }
        let at = self.devices.binary_search(&number).ok()?;
        Some((self.page * PAGE + at, self.packed.pages[self.page].target(at, number)))
    }
}

/// Keeps the page that is altered.
pub(super) struct Editor<'a> {
    packed: &'a mut Packed,
    page: usize,
    devices: Vec<u64>,
}

impl Editor<'_> {
    /// Alters the target at a place; its Device stays.
    pub(super) fn edit(&mut self, place: usize, act: impl FnOnce(&mut Target)) {
        if place / PAGE != self.page {
            self.tidy();
            self.page = place / PAGE;
            self.devices.clear();
            self.devices.extend(self.packed.pages[self.page].devices());
        }
        let at = place % PAGE;
        let before = self.packed.pages[self.page].target(at, self.devices[at]);
        let mut target = before;
        act(&mut target);
        if target != before {
            Arc::make_mut(&mut Arc::make_mut(&mut self.packed.pages)[self.page]).set(at, &target);
        }
    }

    fn tidy(&mut self) {
        if self.page < self.packed.pages.len() {
            // A page that another shares was not altered, or has been its own since.
            if let Some(page) =
                Arc::get_mut(&mut self.packed.pages).and_then(|pages| Arc::get_mut(&mut pages[self.page]))
            {
                page.tidy();
            }
        }
    }
}

impl Drop for Editor<'_> {
    fn drop(&mut self) {
        self.tidy();
    }
}

#[cfg(test)]
mod tests;
