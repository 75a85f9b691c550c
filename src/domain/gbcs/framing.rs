//! Pure. What stands around a payload: MAC Header, Grouping Header, signature, MAC (GBCS 7.2).

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use super::codes::MessageCode;
use super::der::{DecodeError, Lengths, Reader, length_len, shown, write_length};
use crate::domain::names::Eui64;
use crate::domain::time::Timestamp;

/// The longest message. Lengths are of two octets at most, and the largest Command known is below 5,000 octets.
pub const MESSAGE_LEN_MAX: usize = 0xFFFF;

/// The longest payload: what [`MESSAGE_LEN_MAX`] leaves beside the largest framing (MAC Header 15, Grouping Header 48,
/// signature 65, MAC 12).
pub const PAYLOAD_LEN_MAX: usize = MESSAGE_LEN_MAX - 140;

/// DLMS general-signing: the Grouping Header begins.
pub(super) const GENERAL_SIGNING: u8 = 0xDF;
/// DLMS general-glo-ciphering: the MAC Header begins.
const GENERAL_CIPHERING: u8 = 0xDD;
/// Security header: control octet (authentication only) and an invocation counter of zero.
const SECURITY_HEADER: [u8; 5] = [0x11, 0, 0, 0, 0];
/// Octets of `r ‖ s`.
pub(super) const SIGNATURE_LEN: u8 = 64;
const MAC_LEN: usize = 12;
const DATE_TIME_LEN: u8 = 12;

/// CRA Flag: Command, Response or Alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cra {
    /// `01`
    Command,
    /// `02`
    Response,
    /// `03`
    Alert,
}

impl Cra {
    /// The octet on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::Command => 1,
            Self::Response => 2,
            Self::Alert => 3,
        }
    }

    /// The name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Command => "Command",
            Self::Response => "Response",
            Self::Alert => "Alert",
        }
    }

    /// Which length forms are read in such a message.
    pub const fn lengths(self) -> Lengths {
        match self {
            Self::Command => Lengths::Strict,
            Self::Response | Self::Alert => Lengths::AsObserved,
        }
    }
}

impl fmt::Display for Cra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A DLMS date-time of 12 octets, as it came: year (2), month, day, weekday, hour, minute, second, hundredths, deviation
/// from UTC (2), clock status; `FF` (deviation `8000`) for what is not specified (IEC 62056-6-2 4.1.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DlmsDateTime(pub [u8; 12]);

impl DlmsDateTime {
    /// That moment in UTC, in the form that Devices use: weekday, deviation and clock status not specified.
    pub fn from_timestamp(at: Timestamp) -> Self {
        let t = at.to_calendar();
        let [year_high, year_low] = u16::try_from(t.year()).expect("1970 to 9999").to_be_bytes();
        let hundredths = u8::try_from(t.millisecond() / 10).expect("below 100");
        let (hour, minute, second) = t.to_hms();
        let month = u8::from(t.month());
        Self([year_high, year_low, month, t.day(), 0xFF, hour, minute, second, hundredths, 0x80, 0x00, 0xFF])
    }
}

impl fmt::Display for DlmsDateTime {
    /// As `2015-01-01 00:00:00.00`, `*` for what is not specified, with the deviation in minutes if there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [year_high, year_low, month, day, _weekday, hour, minute, second, hundredths, dev_high, dev_low, _status] =
            self.0;
        let part = |octet: u8| if octet == 0xFF { "*".to_owned() } else { format!("{octet:02}") };
        match u16::from_be_bytes([year_high, year_low]) {
            0xFFFF => f.write_str("*")?,
            year => write!(f, "{year:04}")?,
        }
        let (month, day, hour) = (part(month), part(day), part(hour));
        write!(f, "-{month}-{day} {hour}:{}:{}.{}", part(minute), part(second), part(hundredths))?;
        match i16::from_be_bytes([dev_high, dev_low]) {
            i16::MIN => Ok(()),
            deviation => write!(f, " (deviation {deviation} minutes)"),
        }
    }
}

/// The Grouping Header but for its content length (GBCS 7.2.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Command, Response or Alert.
    pub cra: Cra,
    /// Originator Counter. A Response repeats the Command's; an Alert has the Device's own.
    pub counter: u64,
    /// Business Originator ID.
    pub originator: Eui64,
    /// Business Target ID.
    pub recipient: Eui64,
    /// The Device's clock; on Responses.
    pub date_time: Option<DlmsDateTime>,
    /// Which use case.
    pub code: MessageCode,
}

/// How a message ends: what vouches for it (GBCS 13.3.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication<'a> {
    /// Nothing yet: a pre-command stops after its payload.
    PreCommand,
    /// A signature `r ‖ s`, no MAC Header: modes 8 and 9, and all Responses and Alerts.
    Signed(&'a [u8; 64]),
    /// A signature and a MAC, after a MAC Header.
    SignedAndMac(&'a [u8; 64], &'a [u8; 12]),
    /// A MAC only, after a MAC Header and a signature of no octets: mode 4, but to a Communications Hub.
    Mac(&'a [u8; 12]),
}

/// A message with its framing read and its payload not. Borrows the octets as they came, which its `Debug` leaves out: in
/// mode 9 there is a symmetric key among them.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The whole message.
    pub octets: &'a [u8],
    /// Its Grouping Header.
    pub header: Header,
    /// Where the Grouping Header begins: 0 without a MAC Header.
    pub grouping_header_at: usize,
    /// Where the payload lies.
    pub payload: Range<usize>,
    /// How it ends.
    pub authentication: Authentication<'a>,
}

impl<'a> Frame<'a> {
    /// Reads the framing of a message that is all of `octets`.
    pub fn parse(octets: &'a [u8]) -> Result<Self, DecodeError> {
        if octets.len() > MESSAGE_LEN_MAX {
            return Err(DecodeError::TooLong { max: MESSAGE_LEN_MAX, found: octets.len() });
        }
        let mut reader = Reader::new(octets, 0..octets.len(), Lengths::Strict);
        let has_mac_header = reader.peek() == Some(GENERAL_CIPHERING);
        if has_mac_header {
            read_mac_header(&mut reader)?;
        }
        let grouping_header_at = reader.at();
        let header = read_header(&mut reader)?;
        let code_at = reader.at() - 2;
        if let MessageCode::UpdateSecurityCredentials(mode) = header.code
            && header.cra == Cra::Command
            && has_mac_header
            && mode.is_never_maced()
        {
            let rule = "no MAC Header in modes anyExceptAbnormalRootByRecovery and anyByContingency";
            return Err(DecodeError::Presence { at: code_at, rule, present: true });
        }
        reader.set_lengths(header.cra.lengths());
        let payload_len = reader.length("the content")?;
        let payload_from = reader.at();
        reader.take(payload_len, "the payload")?;
        let payload = payload_from..reader.at();
        let authentication = read_authentication(&mut reader, header.cra, has_mac_header)?;
        reader.finish("the message")?;
        Ok(Self { octets, header, grouping_header_at, payload, authentication })
    }

    /// Where the signed octets lie: from after `DF` to the end of the payload (GBCS 7.2.7).
    pub fn tbs_range(&self) -> Range<usize> {
        self.grouping_header_at + 1..self.payload.end
    }

    /// The signed octets, as they came.
    pub fn tbs(&self) -> &'a [u8] {
        &self.octets[self.tbs_range()]
    }

    /// The payload's octets.
    pub fn payload_octets(&self) -> &'a [u8] {
        &self.octets[self.payload.clone()]
    }

    /// `r ‖ s`, if it is signed.
    pub fn signature(&self) -> Option<&'a [u8; 64]> {
        match self.authentication {
            Authentication::Signed(signature) | Authentication::SignedAndMac(signature, _) => Some(signature),
            Authentication::PreCommand | Authentication::Mac(_) => None,
        }
    }

    /// Where `r ‖ s` begins, or would begin.
    pub fn signature_at(&self) -> usize {
        self.payload.end + 1
    }

    /// The MAC, if there is one. It is not checked here.
    pub fn mac(&self) -> Option<&'a [u8; 12]> {
        match self.authentication {
            Authentication::SignedAndMac(_, mac) | Authentication::Mac(mac) => Some(mac),
            Authentication::PreCommand | Authentication::Signed(_) => None,
        }
    }
}

impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { octets, header, grouping_header_at, payload, authentication } = self;
        f.debug_struct("Frame")
            .field("octets_len", &octets.len())
            .field("header", header)
            .field("grouping_header_at", grouping_header_at)
            .field("payload", payload)
            .field("authentication", authentication)
            .finish()
    }
}

/// How many octets the signed message takes that `octets` begin with: a Response or Alert, or a Command without MAC Header.
/// For a file in which one message follows another.
pub fn signed_message_len(octets: &[u8]) -> Result<usize, DecodeError> {
    let mut reader = Reader::new(octets, 0..octets.len(), Lengths::Strict);
    let header = read_header(&mut reader)?;
    reader.set_lengths(header.cra.lengths());
    let payload_len = reader.length("the content")?;
    reader.take(payload_len, "the payload")?;
    reader.octet(SIGNATURE_LEN, "length of signature")?;
    reader.take_array::<64>("signature")?;
    Ok(reader.at())
}

/// GBCS 7.2.6. The length counts all that follows, the MAC included.
fn read_mac_header(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    reader.octet(GENERAL_CIPHERING, "general-ciphering tag")?;
    for what in [
        "length of transaction-id",
        "length of originator-system-title",
        "length of recipient-system-title",
        "length of date-time",
        "length of other-information",
        "key-info",
    ] {
        reader.octet(0, what)?;
    }
    let at = reader.at();
    let length = reader.length("the ciphered service")?;
    if length != reader.left() {
        return Err(DecodeError::Value {
            at,
            expected: Cow::Owned(format!("a length of {}, the octets that follow", reader.left())),
            found: length.to_string(),
        });
    }
    SECURITY_HEADER.iter().try_for_each(|octet| reader.octet(*octet, "security header"))
}

fn read_header(reader: &mut Reader<'_>) -> Result<Header, DecodeError> {
    reader.octet(GENERAL_SIGNING, "general-signing tag")?;
    reader.octet(9, "length of transaction-id")?;
    let at = reader.at();
    let cra = match *reader.take_array::<1>("CRA Flag")? {
        [1] => Cra::Command,
        [2] => Cra::Response,
        [3] => Cra::Alert,
        [found] => {
            let expected = Cow::Borrowed("CRA Flag 01 (Command), 02 (Response) or 03 (Alert)");
            return Err(DecodeError::Value { at, expected, found: shown(&[found]) });
        }
    };
    let counter = u64::from_be_bytes(*reader.take_array("Originator Counter")?);
    reader.octet(8, "length of originator-system-title")?;
    let originator = Eui64(*reader.take_array("Business Originator ID")?);
    reader.octet(8, "length of recipient-system-title")?;
    let recipient = Eui64(*reader.take_array("Business Target ID")?);
    let date_time = match (reader.peek(), cra) {
        (Some(DATE_TIME_LEN), Cra::Response | Cra::Alert) => {
            reader.octet(DATE_TIME_LEN, "length of date-time")?;
            Some(DlmsDateTime(*reader.take_array("date-time")?))
        }
        (_, Cra::Command | Cra::Response | Cra::Alert) => {
            reader.octet(0, "length of date-time")?;
            None
        }
    };
    reader.octet(2, "length of other-information, a Message Code and nothing else")?;
    let at = reader.at();
    let octets = *reader.take_array("Message Code")?;
    let code = MessageCode::from_value(u16::from_be_bytes(octets)).filter(|code| match code {
        MessageCode::UpdateSecurityCredentials(_) => matches!(cra, Cra::Command | Cra::Response),
        MessageCode::FutureDatedExecution => cra == Cra::Alert,
    });
    let code = code.ok_or_else(|| DecodeError::Value {
        at,
        expected: Cow::Borrowed(match cra {
            Cra::Command | Cra::Response => "Message Code 0100 to 0109",
            Cra::Alert => "Message Code 00CB",
        }),
        found: shown(&octets),
    })?;
    Ok(Header { cra, counter, originator, recipient, date_time, code })
}

fn read_authentication<'a>(
    reader: &mut Reader<'a>,
    cra: Cra,
    has_mac_header: bool,
) -> Result<Authentication<'a>, DecodeError> {
    if reader.left() == 0 && cra == Cra::Command && !has_mac_header {
        return Ok(Authentication::PreCommand);
    }
    if has_mac_header && reader.peek() == Some(0) {
        reader.octet(0, "length of signature")?;
        return Ok(Authentication::Mac(reader.take_array("MAC")?));
    }
    reader.octet(SIGNATURE_LEN, "length of signature")?;
    let signature = reader.take_array("signature")?;
    if has_mac_header {
        Ok(Authentication::SignedAndMac(signature, reader.take_array("MAC")?))
    } else {
        Ok(Authentication::Signed(signature))
    }
}

/// Why a message cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Its payload is longer than any message's.
    #[error("expected a payload of at most {PAYLOAD_LEN_MAX} octets, found {found}")]
    TooLong {
        /// The payload's length.
        found: usize,
    },
    /// Header and payload are of different kinds or modes, or a field is present or absent against the rules.
    #[error("header and payload do not make one message: {0}")]
    Inconsistent(DecodeError),
}

impl Header {
    /// The longest Grouping Header with its content length: 45 octets and a length of 3.
    pub const LEN_MAX: usize = 48;

    /// Appends the Grouping Header, from `DF` to the content length.
    pub(super) fn write(&self, out: &mut Vec<u8>, payload_len: usize) {
        let Self { cra, counter, originator, recipient, date_time, code } = self;
        out.extend_from_slice(&[GENERAL_SIGNING, 9, cra.code()]);
        out.extend_from_slice(&counter.to_be_bytes());
        out.push(8);
        out.extend_from_slice(originator.octets());
        out.push(8);
        out.extend_from_slice(recipient.octets());
        match date_time {
            None => out.push(0),
            Some(DlmsDateTime(octets)) => {
                out.push(DATE_TIME_LEN);
                out.extend_from_slice(octets);
            }
        }
        out.push(2);
        out.extend_from_slice(&code.value().to_be_bytes());
        write_length(out, payload_len);
    }
}

/// Appends a whole message around `payload`.
pub(super) fn write(
    header: &Header,
    payload: &[u8],
    authentication: Authentication<'_>,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    if payload.len() > PAYLOAD_LEN_MAX {
        return Err(EncodeError::TooLong { found: payload.len() });
    }
    let header_len = if header.date_time.is_some() { 45 } else { 33 } + length_len(payload.len());
    let (signature, mac): (&[u8], _) = match authentication {
        Authentication::PreCommand => {
            header.write(out, payload.len());
            out.extend_from_slice(payload);
            return Ok(());
        }
        Authentication::Signed(signature) => (signature, None),
        Authentication::SignedAndMac(signature, mac) => (signature, Some(mac)),
        Authentication::Mac(mac) => (&[], Some(mac)),
    };
    if mac.is_some() {
        out.extend_from_slice(&[GENERAL_CIPHERING, 0, 0, 0, 0, 0, 0]);
        write_length(out, SECURITY_HEADER.len() + header_len + payload.len() + 1 + signature.len() + MAC_LEN);
        out.extend_from_slice(&SECURITY_HEADER);
    }
    header.write(out, payload.len());
    out.extend_from_slice(payload);
    out.push(u8::try_from(signature.len()).expect("0 or 64"));
    out.extend_from_slice(signature);
    out.extend_from_slice(mac.map_or(&[], |mac| mac.as_slice()));
    Ok(())
}

/// Octets that [`finish`] appends: `40` and r ‖ s.
pub const SIGNATURE_PART_LEN: usize = 1 + 64;

/// Makes a pre-command, or an unsigned Response or Alert, a signed message: appends `40 ‖ r ‖ s`.
///
/// The signature is over the octets after the first, `DF` (GBCS 7.2.7): ECDSA P-256 with SHA-256, `r ‖ s`, each of 32
/// octets, most significant first.
pub fn finish(message: &mut Vec<u8>, signature: &[u8; 64]) {
    message.reserve_exact(SIGNATURE_PART_LEN);
    message.push(SIGNATURE_LEN);
    message.extend_from_slice(signature);
}

#[cfg(test)]
mod tests;
