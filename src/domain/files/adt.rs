//! Pure. The Anomaly Detection Thresholds File: how many communications of a User are ordinary (SEC Section G6, Appendix AA).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::faults::{Fault, FileFaults};
use super::layout::Layout;
use super::table::{Cells, Row, read_rows};
use crate::domain::names::{Eui64, SmsrReference};

/// The longest period in minutes: 31 days. No official reference.
pub const PERIOD_MINUTES_MAX: u32 = 31 * 24 * 60;

/// Which service requests a threshold counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServiceRequest {
    /// All of them together.
    All,
    /// One, by its service reference variant, such as 6.15.1 (SEC Appendix E).
    Variant(Box<str>),
}

impl ServiceRequest {
    /// The longest variant in characters: three numbers and two points, with room.
    const LEN_MAX: usize = 11;
}

impl fmt::Display for ServiceRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Variant(variant) => f.write_str(variant),
        }
    }
}

impl FromStr for ServiceRequest {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        if text == "all" {
            return Ok(Self::All);
        }
        let parts: Vec<&str> = text.split('.').collect();
        let is_number = |part: &&str| {
            !part.is_empty() && !part.starts_with('0') && part.bytes().all(|octet| octet.is_ascii_digit())
        };
        let is_variant = (2..=3).contains(&parts.len()) && parts.iter().all(is_number) && text.len() <= Self::LEN_MAX;
        if is_variant { Ok(Self::Variant(text.into())) } else { Err(()) }
    }
}

/// A threshold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// Whose communications are counted.
    pub user: Eui64,
    /// Which of them.
    pub service_request: ServiceRequest,
    /// In which period.
    pub period_minutes: u32,
    /// Above so many the User is warned.
    pub warning: u64,
    /// Above so many they are quarantined.
    pub quarantine: u64,
}

/// A file of thresholds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// The reference of the DCC Service Management Service Request.
    pub smsr: SmsrReference,
    /// At least one.
    pub thresholds: Vec<Threshold>,
}

impl Thresholds {
    /// Reads a file, as its layout says.
    pub fn read(layout: &Layout, octets: &[u8]) -> Result<Self, FileFaults> {
        let rows = read_rows::<ThresholdRow>(layout, octets)?;
        let smsr = rows[0].smsr.clone(); // `end` refuses a file without rows.
        Ok(Self { smsr, thresholds: rows.into_iter().map(|row| row.threshold).collect() })
    }
}

struct ThresholdRow {
    smsr: SmsrReference,
    threshold: Threshold,
}

/// The first line's reference and where it stands, and the lines of each User's service requests.
#[derive(Default)]
struct Seen {
    smsr: Option<(SmsrReference, u64)>,
    lines: BTreeMap<(Eui64, ServiceRequest), u64>,
}

impl Row for ThresholdRow {
    type Seen = Seen;

    fn read(cells: &mut Cells<'_>, seen: &mut Seen) -> Option<Self> {
        let line = cells.line();
        let smsr: Option<SmsrReference> = cells.required("smsr");
        let user: Option<Eui64> = cells.required("user-id");
        let service_request: Option<ServiceRequest> = cells.required("service-request");
        let period_minutes: Option<u32> = cells.required("period-minutes");
        let warning: Option<u64> = cells.required("warning");
        let quarantine: Option<u64> = cells.required("quarantine");
        if let Some(found) = &smsr {
            match &seen.smsr {
                None => seen.smsr = Some((found.clone(), line)),
                Some((expected, first)) if expected != found => {
                    let (expected, found) = (expected.to_string(), found.to_string());
                    cells.fault("smsr", Fault::Differs { expected, first: *first, found });
                }
                Some(_) => {}
            }
        }
        if let Some(found) = period_minutes.filter(|found| !(1..=PERIOD_MINUTES_MAX).contains(found)) {
            cells.fault("period-minutes", Fault::value(&format!("1 to {PERIOD_MINUTES_MAX}"), &found.to_string()));
        }
        if let (Some(warning), Some(quarantine)) = (warning, quarantine)
            && quarantine < warning
        {
            let expected = format!("at least the warning, {warning}");
            cells.fault("quarantine", Fault::value(&expected, &quarantine.to_string()));
        }
        let (user, service_request) = (user?, service_request?);
        if let Some(first) = seen.lines.insert((user, service_request.clone()), line) {
            cells.twice("service-request", &format!("{service_request} of User {user}"), first);
        }
        let threshold = Threshold {
            user,
            service_request,
            period_minutes: period_minutes?,
            warning: warning?,
            quarantine: quarantine?,
        };
        Some(Self { smsr: smsr?, threshold })
    }
}
