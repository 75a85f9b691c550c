//! Pure. The Relevant Devices of an incident (SEC Section L10.30(a)) and what became of each.
//!
//! A list of targets is text with a Device a line, `EUI-64,SMI Status,date,evidence`, sorted by Device, each once: the status
//! is the one at or immediately before the Recovery Event, the date the day of London from which it applied, the evidence what
//! shows that the Device held credentials of the Compromised certificate.
//!
//! What a Device proved is kept with the determination under which it did. One that the determination followed now lists, and that is not
//! proven under it, is to be recovered again, whatever it proved before.
//!
//! They are kept packed: ten million take some 30 to 60 MB.

mod packed;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

pub use self::packed::PagesKept;
use self::packed::{Building, Packed};
use super::{Determined, TakeError};
use crate::domain::determination::devices;
use crate::domain::ledger::steps::{Method, SmiStatus};
use crate::domain::ledger::words::NoWord;
use crate::domain::names::{DeterminationId, DeviceId};
use crate::domain::procedure::calendar::CivilDate;
use crate::domain::time::Timestamp;

/// Octets of one line: an EUI-64, a status, a date, and an evidence of a sentence.
pub const LINE_LEN_MAX: usize = 512;

/// Faults that are told of one list; the rest is counted.
pub const FAULTS_TOLD_MAX: usize = 50;

/// What a Device's own signed word says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proof {
    /// Nothing yet.
    #[default]
    None,
    /// It refused, or a cell failed.
    Failed,
    /// It was recovered.
    Succeeded,
}

/// Whether the determination that the incident follows wants a Device recovered again: it lists it, and was not the first that was
/// followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Again {
    /// It does not, or the Device is proven under it.
    #[default]
    No,
    /// It does, and nothing is known of that yet.
    Awaited,
    /// It does, and the Device's Response says that it failed.
    Failed,
}

/// A determination, by its place among those that the incident followed, counted from 1; 0 for none of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u16);

impl Place {
    /// From where it stands in the list. Nobody determines 65,535 times on one incident; those beyond would share the last place.
    fn of(at: Option<usize>) -> Self {
        Self(at.map_or(0, |at| u16::try_from(at + 1).unwrap_or(u16::MAX)))
    }
}

/// Who controls a Device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Control {
    /// Whoever did before.
    #[default]
    AsBefore,
    /// The DCC: it was recovered by Method 2, with the DCC's ACB certificates.
    Dcc,
    /// Its Subscriber again, after Method 2.
    HandedOver,
}

/// Whether its status was set without the proof that the rule asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overridden {
    /// It was not.
    #[default]
    No,
    /// It was.
    Yes,
    /// It was, and that took it out of 'recovery', or of 'recovered', which only the keys lead out of.
    OutOfRecovery,
}

/// What stays of a Device when the incident ends without its recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftBehind {
    /// It stays in 'recovery': the DCC cannot reach it (direction of 18 July 2017, paragraph (b)); or it was left out when its recovery
    /// was determined anew.
    Stranded,
    /// Somebody's word alone took it out of 'recovery'.
    Overridden,
}

/// A Relevant Device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Which.
    pub device: DeviceId,
    /// Its SMI Status, as last recorded.
    pub status: SmiStatus,
    /// From when.
    pub since: Timestamp,
    /// What its Responses proved, under whichever determination; [`Target::answer`] says what of it counts.
    pub(super) proof: Proof,
    /// Under which determination, if it was recovered.
    under: Place,
    /// Whether it is to be recovered again.
    pub(super) again: Again,
    /// Left out, with a reason.
    pub excluded: bool,
    /// Who controls it.
    pub control: Control,
    /// Whether its status was set without the proof that the rule asks for.
    pub overridden: Overridden,
}

impl Target {
    /// What its Responses say, as far as it counts: where it is to be recovered again, those under the determination that wants it.
    pub fn answer(&self) -> Proof {
        match self.again {
            Again::No => self.proof,
            Again::Awaited => Proof::None,
            Again::Failed => Proof::Failed,
        }
    }

    /// Its recovery is proven, and nobody determined since that it be recovered again.
    pub fn is_proven(&self) -> bool {
        self.answer() == Proof::Succeeded
    }

    /// It was recovered under an earlier determination, and the one that the incident follows wants it recovered again.
    pub fn is_wanted_again(&self) -> bool {
        !self.excluded && self.proof == Proof::Succeeded && !self.is_proven()
    }

    /// Left in 'recovery' without a proven recovery, or taken out of it without one, or left out when its recovery was determined anew:
    /// whoever closes the incident answers for it.
    pub fn left_behind(&self) -> Option<LeftBehind> {
        match (self.status, self.overridden) {
            _ if self.is_proven() => None,
            _ if self.excluded && self.proof == Proof::Succeeded => Some(LeftBehind::Stranded),
            (SmiStatus::Recovery, _) => Some(LeftBehind::Stranded),
            (_, Overridden::OutOfRecovery) => Some(LeftBehind::Overridden),
            (_, Overridden::No | Overridden::Yes) => None,
        }
    }

    /// Left in 'recovery' without a proven recovery: the DCC cannot reach it (direction of 18 July 2017, paragraph (b)).
    pub fn is_stranded(&self) -> bool {
        self.left_behind() == Some(LeftBehind::Stranded)
    }

    /// What its Response proved under one determination, by that method, while another may be the last that was followed.
    fn take(&mut self, proof: Proof, under: Place, last: Place, method: Option<Method>) {
        match proof {
            Proof::None => {}
            Proof::Failed => {
                // A Device that proved its recovery once is recovered, until another determination lists it.
                if self.proof != Proof::Succeeded {
                    self.proof = Proof::Failed;
                }
                if self.again == Again::Awaited && under == last {
                    self.again = Again::Failed;
                }
            }
            Proof::Succeeded => {
                // What was determined first was executed first, however late it is heard of.
                if self.proof != Proof::Succeeded || under > self.under {
                    (self.proof, self.under) = (Proof::Succeeded, under);
                    self.control = match method {
                        Some(Method::AcbCertificates) => Control::Dcc,
                        Some(Method::NewOrganisationCertificates) => Control::AsBefore,
                        Some(Method::SubscriberKey | Method::Contingency) | None => self.control,
                    };
                }
                if under == last {
                    self.again = Again::No;
                }
            }
        }
    }

    /// Its status is set without the proof that the rule asks for.
    pub(super) fn overrule(&mut self) {
        let is_door = matches!(self.status, SmiStatus::Recovery | SmiStatus::Recovered) && !self.is_proven();
        if is_door {
            self.overridden = Overridden::OutOfRecovery;
        } else if self.overridden == Overridden::No {
            self.overridden = Overridden::Yes;
        }
    }

    /// Whether its SMI Status is one that nothing but the keys leads out of: 'recovery', or 'recovered' under the DCC's control. It is
    /// so in whichever incident the Device is listed.
    pub fn is_held(&self) -> bool {
        self.status == SmiStatus::Recovery || (self.status == SmiStatus::Recovered && self.control == Control::Dcc)
    }

    /// Whether anything was recorded of it since it was assessed.
    pub fn is_touched(&self) -> bool {
        self.excluded
            || self.overridden != Overridden::No
            || self.control != Control::AsBefore
            || self.proof != Proof::None
            || self.status != SmiStatus::Commissioned
    }

    /// Recovered by Method 2 and under the DCC's control: its Subscriber has not taken it back yet.
    pub fn waits_for_hand_over(&self) -> bool {
        self.control == Control::Dcc
    }

    /// Its recovery is proven, and its SMI Status does not say so yet. Without ever having been set to 'recovery', as the SMKI PMA may
    /// direct, only one that waits for its handover wants it.
    pub fn wants_recovered(&self) -> bool {
        let says_otherwise = match self.status {
            SmiStatus::Recovery => true,
            SmiStatus::Recovered => false,
            SmiStatus::Pending
            | SmiStatus::Whitelisted
            | SmiStatus::InstalledNotCommissioned
            | SmiStatus::Commissioned
            | SmiStatus::Decommissioned
            | SmiStatus::Withdrawn
            | SmiStatus::Suspended => self.waits_for_hand_over(),
        };
        self.is_proven() && says_otherwise
    }

    /// Whether nothing more is to come from it.
    pub fn is_at_end(&self) -> bool {
        self.excluded || self.is_proven()
    }
}

/// How many targets stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// All of them.
    pub targets: u64,
    /// With SMI Status 'recovery'.
    pub in_recovery: u64,
    /// With SMI Status 'recovered'.
    pub recovered: u64,
    /// Proven to be recovered by their own Responses.
    pub succeeded: u64,
    /// Whose Responses say that they are not.
    pub failed: u64,
    /// Left out.
    pub excluded: u64,
    /// Neither proven nor left out.
    pub outstanding: u64,
    /// Of those outstanding, recovered under an earlier determination, and to be recovered again under the one that is followed.
    pub wanted_again: u64,
    /// Proven to be recovered, and not recorded as 'recovered'.
    pub proven_not_recovered: u64,
    /// Recovered and under the DCC's control: not handed over yet.
    pub under_dcc_control: u64,
    /// Whose status somebody set without the proof that the rule asks for.
    pub overridden: u64,
    /// In 'recovery' without a proven recovery.
    pub stranded: u64,
    /// Set from 'recovery' to another status without a proven recovery, by somebody's word.
    pub overridden_out: u64,
}

impl Counts {
    /// What must be accepted before the incident is closed; none if nothing must.
    pub fn to_accept(&self) -> Option<Accepted> {
        let Self { stranded, overridden_out: overridden, .. } = *self;
        (stranded > 0 || overridden > 0).then_some(Accepted { stranded, overridden })
    }
}

/// What was accepted of Devices that are left behind: how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// In 'recovery'.
    pub stranded: u64,
    /// Taken out of it without proof.
    pub overridden: u64,
}

/// The Relevant Devices, sorted. A clone shares them until one of the two is altered, so that a reader on another thread holds
/// nobody up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    all: Packed,
    /// The determinations that the incident followed, each with its method; the last is followed now.
    followed: Vec<(DeterminationId, Option<Method>)>,
    tally: Tally,
}

/// The targets, counted. Kept as they are altered: an answer is made on the thread that everybody waits for, and counts several times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    counts: Counts,
    without_recovery: u64,
}

impl Tally {
    fn enter(&mut self, target: &Target) {
        self.count(target, |count| *count += 1);
    }

    fn leave(&mut self, target: &Target) {
        self.count(target, |count| *count -= 1);
    }

    fn count(&mut self, target: &Target, alter: fn(&mut u64)) {
        let Self { counts, without_recovery } = self;
        let has_recovery = matches!(target.status, SmiStatus::Recovery | SmiStatus::Recovered);
        for (count, is_so) in [
            (&mut counts.targets, true),
            (&mut counts.in_recovery, target.status == SmiStatus::Recovery),
            (&mut counts.recovered, target.status == SmiStatus::Recovered),
            (&mut counts.succeeded, target.is_proven()),
            (&mut counts.failed, target.answer() == Proof::Failed),
            (&mut counts.excluded, target.excluded),
            (&mut counts.outstanding, !target.is_at_end()),
            (&mut counts.wanted_again, target.is_wanted_again()),
            (&mut counts.proven_not_recovered, target.wants_recovered()),
            (&mut counts.under_dcc_control, target.waits_for_hand_over()),
            (&mut counts.overridden, target.overridden != Overridden::No),
            (&mut counts.stranded, target.is_stranded()),
            (&mut counts.overridden_out, target.left_behind() == Some(LeftBehind::Overridden)),
            (without_recovery, !target.is_at_end() && !has_recovery),
        ] {
            if is_so {
                alter(count);
            }
        }
    }
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineFault {
    /// Counted from 1.
    pub line: u64,
    /// What was expected, and what was found.
    pub fault: Box<str>,
}

/// Why a list is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", shown(faults, *more))]
pub struct TargetsError {
    /// The faults, at most [`FAULTS_TOLD_MAX`].
    pub faults: Vec<LineFault>,
    /// How many more there are.
    pub more: u64,
}

fn shown(faults: &[LineFault], more: u64) -> String {
    let mut told: Vec<String> =
        faults.iter().map(|LineFault { line, fault }| format!("line {line}: {fault}")).collect();
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    told.join("; ")
}

/// Splits pieces into lines and collects the faults.
struct Lines<'a> {
    /// The beginning of a line that is not whole yet; one octet more than a line may have tells that it is too long.
    part: Vec<u8>,
    line: u64,
    /// Lines beyond so many are counted and not looked at.
    most: u64,
    error: TargetsError,
    each: &'a mut dyn FnMut(&str) -> Result<(), String>,
}

impl Lines<'_> {
    fn fault(&mut self, fault: String) {
        if self.error.faults.len() < FAULTS_TOLD_MAX {
            self.error.faults.push(LineFault { line: self.line, fault: fault.into() });
        } else {
            self.error.more += 1;
        }
    }

    fn feed(&mut self, mut piece: &[u8]) {
        while let Some(end) = piece.iter().position(|octet| *octet == b'\n') {
            if self.part.is_empty() {
                self.end(&piece[..end]);
            } else {
                self.keep(&piece[..end]);
                let whole = std::mem::take(&mut self.part);
                self.end(&whole);
            }
            piece = &piece[end + 1..];
        }
        self.keep(piece);
    }

    fn keep(&mut self, octets: &[u8]) {
        let room = (LINE_LEN_MAX + 1).saturating_sub(self.part.len());
        self.part.extend_from_slice(&octets[..octets.len().min(room)]);
    }

    fn end(&mut self, line: &[u8]) {
        self.line += 1;
        if self.line > self.most {
            return;
        }
        let taken = if line.len() > LINE_LEN_MAX {
            Err(format!("expected at most {LINE_LEN_MAX} octets, found more"))
        } else {
            str::from_utf8(line).map_err(|_| "expected UTF-8".to_owned()).and_then(|text| (self.each)(text))
        };
        if let Err(fault) = taken {
            self.fault(fault);
        }
    }
}

/// Reads a list line by line, the first `most` lines of it. Answers how many there are.
fn read_lines<E>(
    source: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), E>,
    most: u64,
    each: &mut dyn FnMut(&str) -> Result<(), String>,
) -> Result<u64, TakeError<E>> {
    let error = TargetsError { faults: Vec::new(), more: 0 };
    let mut lines = Lines { part: Vec::new(), line: 0, most, error, each };
    source(&mut |piece| lines.feed(piece)).map_err(TakeError::Source)?;
    if !lines.part.is_empty() {
        lines.line += 1;
        lines.fault("expected a line feed at the end".into());
    }
    if lines.error.faults.is_empty() { Ok(lines.line) } else { Err(lines.error.into()) }
}

/// How many lines end in these octets.
pub fn line_feeds(octets: &[u8]) -> u64 {
    octets.split(|octet| *octet == b'\n').skip(1).count() as u64
}

/// Demands that Devices come sorted, each once.
fn in_order(last: &mut Option<DeviceId>, device: DeviceId) -> Result<(), String> {
    match last.replace(device) {
        Some(before) if before == device => Err(format!("Device {device} stands there twice")),
        Some(before) if before > device => Err(format!("expected the Devices sorted; {device} comes after {before}")),
        Some(_) | None => Ok(()),
    }
}

/// The day that was read last, and when it begins: many Devices have the same one.
#[derive(Default)]
struct Days(Option<(Box<str>, Timestamp)>);

impl Days {
    fn begins(&mut self, text: &str) -> Result<Timestamp, String> {
        if let Some((_, begins)) = self.0.as_ref().filter(|(known, _)| **known == *text) {
            return Ok(*begins);
        }
        let day: CivilDate = text
            .parse()
            .map_err(|error: crate::domain::procedure::calendar::CivilDateError| format!("date: {error}"))?;
        self.0 = Some((text.into(), day.begins()));
        Ok(day.begins())
    }
}

/// A Device at the beginning of a line, as lists write it; else as any text does, for its faults.
fn device(text: &str) -> Result<DeviceId, String> {
    match devices::eui64(text.as_bytes()) {
        Some(eui64) => Ok(DeviceId(eui64)),
        None => text.parse().map_err(|error: crate::domain::names::NameError| error.to_string()),
    }
}

/// One line of a list of targets.
fn target(line: &str, days: &mut Days) -> Result<Target, String> {
    let mut fields = line.splitn(4, ',');
    let (Some(device), Some(status), Some(since), Some(evidence)) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err("expected EUI-64,SMI Status,date,evidence".into());
    };
    let device = self::device(device)?;
    let status: SmiStatus = status.parse().map_err(|error: NoWord| format!("SMI Status: {error}, found {status:?}"))?;
    if status != SmiStatus::Commissioned {
        return Err(format!(
            "Device {device} was {status} immediately before the Recovery Event; a Relevant Device was Commissioned (SEC L10.30(a))"
        ));
    }
    let since = days.begins(since)?;
    if evidence.trim().is_empty() {
        return Err(format!("Device {device}: expected the evidence that it held the credentials, found none"));
    }
    Ok(Target {
        device,
        status,
        since,
        proof: Proof::None,
        under: Place::default(),
        again: Again::No,
        excluded: false,
        control: Control::AsBefore,
        overridden: Overridden::No,
    })
}

impl Targets {
    /// Reads a list of targets.
    pub fn read<E>(source: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), E>) -> Result<Self, TakeError<E>> {
        Self::read_first(source, u64::MAX).map(|(targets, _)| targets)
    }

    /// The same of the first `most` lines, and how many lines there are: whoever announced fewer is told.
    pub fn read_first<E>(
        source: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), E>,
        most: u64,
    ) -> Result<(Self, u64), TakeError<E>> {
        let (mut building, mut tally, mut last) = (Building::default(), Tally::default(), None);
        let (mut days, mut greatest) = (Days::default(), None);
        let lines = read_lines(source, most, &mut |line| {
            let target = target(line, &mut days)?;
            in_order(&mut last, target.device)?;
            // Behind one that was out of order others may follow in order, and still be less than what is there: they are read for their
            // faults alone, for the list is refused.
            if greatest < Some(target.device) {
                greatest = Some(target.device);
                tally.enter(&target);
                building.push(target);
            }
            Ok(())
        })?;
        let all = building.finish();
        if all.len() == 0 {
            let fault = "expected at least one Relevant Device, found none".into();
            return Err(TargetsError { faults: vec![LineFault { line: 1, fault }], more: 0 }.into());
        }
        Ok((Self { all, followed: Vec::new(), tally }, lines))
    }

    /// Those that were commissioned only after the Recovery Event, with their lines counted from 1, in a list that was just read: no
    /// Relevant Devices. The day on which the event fell is still right, for a date has no hour (SEC Section L10.30(a)).
    pub fn commissioned_after(&self, event: Timestamp) -> impl Iterator<Item = (u64, Target)> {
        (1..).zip(self.all.iter()).filter(move |(_, target)| target.since > event)
    }

    /// The targets of a later assessment, with what is known already of those that stay.
    #[must_use]
    pub fn reassessed(&self, later: &Self) -> Self {
        let mut known = self.all.finder();
        let with_known = later.all.iter().map(|target| {
            let known = known.find(target.device).map(|(_, known)| known);
            known.filter(Target::is_touched).unwrap_or(target)
        });
        Self { followed: self.followed.clone(), ..Self::of(with_known) }
    }

    /// The first Device that a later assessment may not drop: something was done to it.
    pub fn dropped_by(&self, later: &Self) -> Option<DeviceId> {
        let mut kept = later.all.finder();
        let mut touched = self.all.iter().filter(Target::is_touched);
        touched.find(|target| kept.find(target.device).is_none()).map(|target| target.device)
    }

    /// Of how many SMI Status 'recovery' is still wanted: neither left out, nor recovered, nor set already.
    pub fn without_recovery(&self) -> u64 {
        self.tally.without_recovery
    }

    /// What `others`, the targets of other incidents from the one that was opened first, say last of those of which nothing was
    /// recorded here, where nothing but the keys leads out of it: for [`Targets::record`].
    pub fn held_by<'a>(&self, others: impl IntoIterator<Item = &'a Self>) -> Vec<(usize, SmiStatus, Timestamp)> {
        let (mut last, mut own): (BTreeMap<usize, Target>, _) = (BTreeMap::new(), self.all.finder());
        for theirs in others.into_iter().flat_map(|other| other.all.iter()).filter(Target::is_touched) {
            let Some((at, known)) = own.find(theirs.device) else { continue };
            if !known.is_touched() && last.get(&at).is_none_or(|before| before.since <= theirs.since) {
                last.insert(at, theirs);
            }
        }
        let held = last.into_iter().filter(|(_, target)| target.is_held());
        held.map(|(at, target)| (at, target.status, target.since)).collect()
    }

    /// Those of a list that was just read.
    fn of(all: impl IntoIterator<Item = Target>) -> Self {
        let mut tally = Tally::default();
        let all = all.into_iter().inspect(|target| tally.enter(target)).collect();
        Self { all, followed: Vec::new(), tally }
    }

    /// Alters the targets at these places, and what is counted of them.
    fn alter(&mut self, places: impl IntoIterator<Item = usize>, mut act: impl FnMut(&mut Target)) {
        let (tally, mut editor) = (&mut self.tally, self.all.editor());
        for at in places {
            editor.edit(at, |target| {
                tally.leave(target);
                act(target);
                tally.enter(target);
            });
        }
    }

    /// How many they are.
    pub fn len(&self) -> u64 {
        self.all.len() as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.len() == 0
    }

    /// All of them, sorted.
    pub fn iter(&self) -> impl Iterator<Item = Target> {
        self.all.iter()
    }

    /// All of them, sorted, for a test to pick from.
    #[cfg(test)]
    pub fn all(&self) -> Vec<Target> {
        self.iter().collect()
    }

    /// One of them.
    pub fn get(&self, device: DeviceId) -> Option<Target> {
        self.all.find(device).map(|(_, target)| target)
    }

    /// Looks up one after the other: quick for Devices in their order.
    pub fn finder(&self) -> Finder<'_> {
        Finder(self.all.finder())
    }

    /// Calls `each` with every Device of a list (an EUI-64 a line), and its place. Answers how many lines there are.
    fn places<E>(
        &self,
        source: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), E>,
        most: u64,
        mut each: impl FnMut(usize, &Target),
    ) -> Result<u64, TakeError<E>> {
        let (mut before, mut finder) = (None, self.all.finder());
        read_lines(source, most, &mut |line| {
            let device = device(line)?;
            in_order(&mut before, device)?;
            let found = finder.find(device);
            let (at, target) =
                found.ok_or_else(|| format!("Device {device} is not among the targets of the incident"))?;
            each(at, &target);
            Ok(())
        })
    }

    /// What Devices' Responses proved, under a determination; best in the order of the Devices. Answers whether that alters what is left
    /// behind.
    pub fn prove(
        &mut self,
        proofs: impl IntoIterator<Item = (DeviceId, Proof)>,
        determination: DeterminationId,
    ) -> bool {
        let mut finder = self.all.finder();
        let found = proofs.into_iter().filter_map(|(device, proof)| Some((finder.find(device)?.0, proof)));
        let (places, proofs): (Vec<usize>, Vec<Proof>) = found.unzip();
        let mut proofs = proofs.into_iter();
        let known = self.followed.iter().position(|(id, _)| *id == determination);
        let method = known.and_then(|at| self.followed[at].1);
        let (under, last) = (Place::of(known), Place::of(self.followed.len().checked_sub(1)));
        let mut is_altered = false;
        self.alter(places, |target| {
            let was = target.left_behind();
            target.take(proofs.next().unwrap_or_default(), under, last, method);
            is_altered |= was != target.left_behind();
        });
        is_altered
    }

    /// The determination under which a Device was recovered last.
    pub fn recovered_under(&self, target: &Target) -> Option<DeterminationId> {
        let at = usize::from(target.under.0).checked_sub(1).filter(|_| target.proof == Proof::Succeeded)?;
        self.followed.get(at).map(|(id, _)| *id)
    }

    /// The incident follows this determination from now on, which lists nothing yet. Answers whether others are left behind by it.
    pub fn follow(&mut self, determined: &Determined) -> bool {
        self.followed.push((determined.id, determined.method));
        self.want_again(&Places::default())
    }

    /// The determination that is followed lists these Devices (`EUI64,template[,counter]` a line); what is no target is passed over.
    /// Answers whether others are left behind by it.
    ///
    /// # Errors
    /// A line that begins with no EUI-64, or out of order; then nothing is done.
    pub fn list<E>(
        &mut self,
        source: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), E>,
    ) -> Result<bool, TakeError<E>> {
        // Whatever is proven is proven under the first.
        if self.followed.len() < 2 {
            return Ok(false);
        }
        let (mut before, mut listed, mut finder) = (None, Places::of(&self.all), self.all.finder());
        read_lines(source, u64::MAX, &mut |line| {
            let device = device(line.split(',').next().unwrap_or_default())?;
            in_order(&mut before, device)?;
            if let Some((at, _)) = finder.find(device) {
                listed.name(at);
            }
            Ok(())
        })?;
        Ok(self.want_again(&listed))
    }

    /// The determination that is followed wants nobody recovered again any more. Answers whether others are left behind by it.
    pub fn release(&mut self) -> bool {
        self.want_again(&Places::default())
    }

    /// Has those at these places recovered again where they are not proven under the determination that is followed, and no
    /// other. Answers whether others are left behind by it.
    fn want_again(&mut self, places: &Places) -> bool {
        let last = Place::of(self.followed.len().checked_sub(1));
        let mut altered = Places::of(&self.all);
        for (at, target) in self.all.iter().enumerate() {
            let is_done = target.proof == Proof::Succeeded && target.under == last;
            if (places.has(at) && !is_done) != (target.again != Again::No) {
                altered.name(at);
            }
        }
        let mut are_others = false;
        self.alter(altered.iter(), |target| {
            let was = target.left_behind();
            target.again = if target.again == Again::No { Again::Awaited } else { Again::No };
            are_others |= was != target.left_behind();
        });
        are_others
    }

    /// Looks at the targets of a list of Devices (an EUI-64 a line), or at all. Lines beyond `most` are counted only. Answers how many
    /// they are.
    ///
    /// # Errors
    /// A line that is no Device, out of order, or not among the targets.
    pub fn look<E, S>(&self, list: Option<S>, most: u64, mut look: impl FnMut(&Target)) -> Result<u64, TakeError<E>>
    where
        S: FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), E>,
    {
        if let Some(source) = list {
            return self.places(source, most, |_, target| look(target));
        }
        self.all.iter().for_each(|target| look(&target));
        Ok(self.len())
    }

    /// Alters the targets of a list of Devices (an EUI-64 a line), or all.
    ///
    /// # Errors
    /// A line that is no Device, out of order, or not among the targets; then nothing is done.
    pub fn each<E, S>(&mut self, list: Option<S>, mut act: impl FnMut(&mut Target)) -> Result<(), TakeError<E>>
    where
        S: FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), E>,
    {
        match list {
            Some(source) => {
                let mut named = Places::of(&self.all);
                self.places(source, u64::MAX, |at, _| named.name(at))?;
                self.alter(named.iter(), |target| act(target));
            }
            None => self.alter(0..self.all.len(), |target| act(target)),
        }
        Ok(())
    }

    /// Records statuses that were compared before: each with the place of its Device ([`Finder::find`]), and from when it applies.
    pub fn record(&mut self, statuses: impl IntoIterator<Item = (usize, SmiStatus, Timestamp)>) {
        let (tally, mut editor) = (&mut self.tally, self.all.editor());
        for (at, status, from) in statuses {
            editor.edit(at, |target| {
                tally.leave(target);
                (target.status, target.since) = (status, from);
                tally.enter(target);
            });
        }
    }

    /// How many stand where.
    pub fn counts(&self) -> Counts {
        self.tally.counts
    }
}

/// Looks up targets.
pub struct Finder<'a>(packed::Finder<'a>);

impl Finder<'_> {
    /// The target of a Device, and its place among all.
    pub fn find(&mut self, device: DeviceId) -> Option<(usize, Target)> {
        self.0.find(device)
    }
}

/// Some of the targets, by their places: a bit each.
#[derive(Default)]
struct Places(Vec<u64>);

impl Places {
    /// None of these yet.
    fn of(all: &Packed) -> Self {
        Self(vec![0; all.len().div_ceil(64)])
    }

    fn name(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }

    fn has(&self, at: usize) -> bool {
        self.0.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        (0..self.0.len() * 64).filter(|at| self.has(*at))
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} targets: {} proven recovered, {} failed, {} left out, {} outstanding; {} in 'recovery', {} stranded",
            self.targets, self.succeeded, self.failed, self.excluded, self.outstanding, self.in_recovery, self.stranded
        )
    }
}

pub mod kept;
#[cfg(test)]
mod tests;
