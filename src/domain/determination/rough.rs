//! Pure. A device list as it comes out of a spreadsheet or a database, line by line: what can be read of it without a doubt, and what
//! was other than a list has it. Whoever makes a list of it tells both.

use super::devices::{DeviceFaultKind, LINE_LEN_MAX, decimal, eui64};
use crate::domain::names::{DeviceId, TemplateName};

/// The longest line that is read. Spreadsheets put quotes and blanks around what they export.
pub const ROUGH_LEN_MAX: usize = 4 * LINE_LEN_MAX;

/// One line that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoughLine {
    /// Which Device.
    pub device: DeviceId,
    /// Its template, if the line names one.
    pub template: Option<TemplateName>,
    /// The highest counter that it is known to have accepted.
    pub counter: Option<u64>,
}

/// What was other than a list has it: how many lines of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tidied {
    /// Lines with nothing on them.
    pub empty: u64,
    /// A first line that names the columns.
    pub header: u64,
    /// A byte order mark.
    pub mark: u64,
    /// Ends of lines with a carriage return.
    pub carriage_return: u64,
    /// EUI-64s in lower case, or in pairs with `-` or `:` between them.
    pub digits: u64,
    /// Blanks or quotes around fields, or empty fields behind the last.
    pub around: u64,
}

impl Tidied {
    /// Reads a line without its line feed; `number` counts from 1. None of a line that says nothing.
    ///
    /// # Errors
    /// What cannot be read without a doubt.
    pub fn read(&mut self, number: u64, line: &[u8]) -> Result<Option<RoughLine>, DeviceFaultKind> {
        if line.len() > ROUGH_LEN_MAX {
            return Err(DeviceFaultKind::TooLong);
        }
        let mut line = line;
        if number == 1
            && let Some(rest) = line.strip_prefix("\u{feff}".as_bytes())
        {
            self.mark += 1;
            line = rest;
        }
        if let Some(rest) = line.strip_suffix(b"\r") {
            self.carriage_return += 1;
            line = rest;
        }
        let text = String::from_utf8_lossy(line);
        if text.chars().all(|sign| sign == ',' || sign.is_whitespace()) {
            self.empty += 1;
            return Ok(None);
        }
        let given: Vec<&str> = text.split(',').collect();
        let mut fields: Vec<&str> = given.iter().map(|field| bare(field)).collect();
        while fields.len() > 1 && fields.last().is_some_and(|field| field.is_empty()) {
            fields.pop();
        }
        let is_header =
            number == 1 && fields[0].bytes().any(|octet| octet.is_ascii_alphabetic() && !octet.is_ascii_hexdigit());
        if is_header {
            self.header += 1;
            return Ok(None);
        }
        let (device, template, counter) = match fields[..] {
            [device] => (device, None, None),
            [device, template] => (device, Some(template), None),
            [device, template, counter] => (device, Some(template), Some(counter)),
            _ => return Err(DeviceFaultKind::Fields { found: fields.len() }),
        };
        let digits = joined(device).unwrap_or_else(|| device.to_owned()).to_ascii_uppercase();
        let id =
            eui64(digits.as_bytes()).map(DeviceId).ok_or_else(|| DeviceFaultKind::Eui64 { found: device.into() })?;
        let template = match template {
            Some(name) => Some(name.parse().map_err(|_| DeviceFaultKind::Template { found: name.into() })?),
            None => None,
        };
        let counter = match counter {
            Some(text) => {
                Some(decimal(text.as_bytes()).ok_or_else(|| DeviceFaultKind::Counter { found: text.into() })?)
            }
            None => None,
        };
        self.digits += u64::from(digits != device);
        self.around += u64::from(given != fields);
        Ok(Some(RoughLine { device: id, template, counter }))
    }
}

/// A field without the blanks and quotes around it.
fn bare(field: &str) -> &str {
    let field = field.trim();
    field.strip_prefix('"').and_then(|field| field.strip_suffix('"')).map_or(field, str::trim)
}

/// Eight pairs of digits with the same sign between them all.
fn joined(text: &str) -> Option<String> {
    let sign = text.chars().nth(2).filter(|sign| matches!(sign, '-' | ':'))?;
    let pairs: Vec<&str> = text.split(sign).collect();
    (pairs.len() == 8 && pairs.iter().all(|pair| pair.len() == 2)).then(|| pairs.concat())
}

#[cfg(test)]
mod tests;
