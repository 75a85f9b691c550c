//! Shell: certificates of Devices: imported once as a bundle of any size, or given with a few Responses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::parts::{self, At, Faults, Found, Place, Progress, Source};
use crate::api::client::Client;
use crate::api::routes::Verb;
use crate::api::wire;
use crate::cli::print::Tone;
use crate::cli::{Change, CliError, Context, Exit};
use crate::domain::certificates::pem::{self, Block, CERTIFICATE};
use crate::domain::ledger::entry::CertificateTally;
use crate::domain::names::{DeviceId, Digest};
use crate::domain::responses::bundle::{BUNDLE_LEN_MAX, CERTIFICATES_MAX, certificate_len, signing_device};
use crate::domain::responses::device_of;
use crate::domain::responses::messages::Messages;
use crate::domain::responses::trust::CANDIDATES_MAX;

/// Octets of certificates that are given with Responses: some 100,000. They are held in memory; more are imported.
const GIVEN_LEN_MAX: usize = 64 * 1024 * 1024;

/// A line of a file in PEM.
const LINE_LEN_MAX: u64 = 64 * 1024;

/// Octets of one block in PEM. A Device's certificate has some 700.
const BLOCK_LEN_MAX: usize = 128 * 1024;

/// Octets of one certificate in DER, with its header.
const CERTIFICATE_LEN_MAX: usize = 4 + 65_535;

/// Certificates of Devices.
#[derive(Subcommand, Debug)]
pub enum Certificates {
    /// Have certificates of Devices verified, so that their Responses need none
    #[command(after_help = "Examples:\n  smkictl recovery certificates import devices.pem\n  \
        smkictl recovery certificates import from-the-smki-repository/ --refused refused.ndjson\n\n\
        Files are PEM, or DER one after another, of any size; of a directory, every file in it. Each certificate is verified \
        against the policy's Device CAs now. It counts from then on as long as it is valid and the policy has that Device CA. The same \
        ones again change nothing: after a break, run it again.\n\n\
        Status: 0 all are known now, 5 none is, 6 some were refused.")]
    Import(Import),
}

/// Arguments of `import`.
#[derive(Args, Debug)]
pub struct Import {
    /// Certificates: PEM, or DER one after another
    #[arg(value_name = "FILE|DIR", required = true)]
    files: Vec<PathBuf>,
    /// Write those that were refused to this new file, one JSON object a line, with where they stand and why
    #[arg(long, value_name = "FILE")]
    refused: Option<PathBuf>,
    #[command(flatten)]
    change: Change,
}

/// What is sent at once.
#[derive(Default)]
struct Part {
    octets: Vec<u8>,
    places: Vec<Place>,
    unreadable: Vec<(Place, String)>,
}

impl Part {
    fn is_full(&self) -> bool {
        self.places.len() == CERTIFICATES_MAX
            || self.octets.len() + CERTIFICATE_LEN_MAX > usize::try_from(BUNDLE_LEN_MAX).unwrap_or(usize::MAX)
            || self.unreadable.len() == CERTIFICATES_MAX
    }
}

/// The end of what was imported, for programs.
#[derive(Serialize)]
struct Total {
    tally: CertificateTally,
    unreadable: u64,
}

impl Certificates {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, CliError> {
        match self {
            Self::Import(import) => import.run(context).await,
        }
    }
}

impl Import {
    async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let files = parts::files(&self.files)?;
        let dry_run = self.change.dry_run;
        let mut faults = Faults::open(context, self.refused.as_deref().filter(|_| !dry_run))?;
        let mut progress = Progress::begin(context);
        let (mut tally, mut unreadable) = (CertificateTally::default(), 0_u64);
        let parts = parts::read(move |emit| read(&files, emit));
        if dry_run {
            return would_send(context, parts).await;
        }
        let client = context.client.clone();
        let ask = |part| import(client.clone(), part);
        let sent = parts::send(parts, ask, |(part, imported)| {
            unreadable += part.unreadable.len() as u64;
            for (place, why) in &part.unreadable {
                faults.tell(place, (None, None), "unreadable", why)?;
            }
            let Some(wire::CertificatesImported { entry: _, tally: of_part, refused }) = imported else {
                return Ok(());
            };
            for wire::CertificateRefused { certificate, device, why } in refused {
                let place = usize::try_from(certificate).ok().and_then(|n| part.places.get(n.checked_sub(1)?));
                let place = place.ok_or_else(|| no_such("certificate", certificate))?;
                faults.tell(place, (device, None), "refused", &why)?;
            }
            tally.add(&of_part);
            progress.tell(tally.certificates(), || {
                format!("{} imported, {} known, {} refused", tally.imported, tally.known, tally.refused)
            });
            Ok(())
        });
        let sent = sent.await;
        faults.finish("--refused")?;
        sent?;
        context.print.answer(&Total { tally, unreadable }, |text| {
            text.toned("imported", tally.imported, Tone::Good);
            for (name, count, tone) in [
                ("known before", tally.known, Tone::Good),
                ("refused", tally.refused, Tone::Bad),
                ("cannot be read", unreadable, Tone::Bad),
            ] {
                if count > 0 {
                    text.toned(name, count, tone);
                }
            }
        })?;
        Ok(match (tally.imported + tally.known, tally.refused + unreadable) {
            (_, 0) => Exit::Done,
            (0, _) => Exit::Unverified,
            (_, _) => Exit::Partly,
        })
    }
}

/// The daemon named what it was not sent.
pub(super) fn no_such(what: &str, number: u64) -> CliError {
    crate::api::client::ClientError::Answer { why: format!("it names {what} {number}, which was not sent") }.into()
}

async fn import(client: Client, mut part: Part) -> Result<(Part, Option<wire::CertificatesImported>), CliError> {
    if part.places.is_empty() {
        return Ok((part, None));
    }
    let certificates = parts::upload(&client, std::mem::take(&mut part.octets)).await?;
    let ask = wire::DeviceCertificates { certificates };
    let imported = client.post("/v1/recovery/certificates", &ask).await?;
    Ok((part, Some(imported)))
}

async fn would_send(
    context: &Context,
    mut parts: tokio::sync::mpsc::Receiver<Result<Part, CliError>>,
) -> Result<Exit, CliError> {
    while let Some(part) = parts.recv().await {
        let part = part?;
        for (place, why) in &part.unreadable {
            context.print.warning(&format!("{}: {why}", place.file.display()));
        }
        let ask = wire::DeviceCertificates { certificates: Digest::of(&part.octets) };
        context.would_send(Verb::Post, "/v1/recovery/certificates", Some(&ask))?;
    }
    Ok(Exit::Done)
}

fn read(files: &[Arc<Path>], emit: &mut dyn FnMut(Part) -> bool) -> Result<(), CliError> {
    let mut part = Part::default();
    for file in files {
        let mut is_wanted = true;
        each(file, &mut |(at, found)| {
            let place = Place { file: Arc::clone(file), at };
            match found {
                Ok(octets) => {
                    part.octets.extend_from_slice(octets);
                    part.places.push(place);
                }
                Err(why) => part.unreadable.push((place, why)),
            }
            if part.is_full() {
                is_wanted &= emit(std::mem::take(&mut part));
            }
            Ok(())
        })?;
        if !is_wanted {
            return Ok(());
        }
    }
    if !part.places.is_empty() || !part.unreadable.is_empty() {
        emit(part);
    }
    Ok(())
}

/// Visits the certificates of a file, each in DER.
fn each(path: &Arc<Path>, visit: &mut dyn FnMut(Found<'_>) -> Result<(), CliError>) -> Result<(), CliError> {
    let mut source = Source::open(path)?;
    match source.first()? {
        Some(0x30) => {
            let len_of = |octets: &[u8]| certificate_len(octets).filter(|len| *len <= octets.len()).ok_or(());
            let stopped =
                source.pieces(CERTIFICATE_LEN_MAX, len_of, |octet, found| visit((At::Octet(octet), Ok(found))))?;
            match stopped {
                None => Ok(()),
                Some((octet, ())) => {
                    let why = "expected a certificate in DER, found something else; the rest of the file was not read";
                    visit((At::Octet(octet), Err(why.to_owned())))
                }
            }
        }
        Some(_) => blocks(&mut source, visit),
        None => visit((At::Octet(0), Err("expected certificates, found nothing".to_owned()))),
    }
}

/// Those of a file in PEM (RFC 7468). What stands between blocks, and blocks of other kinds, is skipped, as every tool does.
fn blocks(source: &mut Source, visit: &mut dyn FnMut(Found<'_>) -> Result<(), CliError>) -> Result<(), CliError> {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    const END: &[u8] = b"-----END CERTIFICATE-----";
    const UNENDED: &str = "expected a line -----END CERTIFICATE----- to end the block that begins here";
    let (mut block, mut from, mut found_any, mut is_long) = (Vec::new(), None, false, false);
    source.lines(LINE_LEN_MAX, |number, line| {
        let line = line.unwrap_or_default();
        if line == BEGIN {
            if let Some(from) = from.replace(number) {
                visit((At::Line(from), Err(UNENDED.to_owned())))?;
            }
            (found_any, is_long) = (true, false);
            block.clear();
        }
        let Some(begun) = from else { return Ok(()) };
        is_long |= block.len() + line.len() >= BLOCK_LEN_MAX;
        if !is_long {
            block.extend_from_slice(line);
            block.push(b'\n');
        }
        if line == END {
            from = None;
            if is_long {
                let why = format!("expected a block of at most {BLOCK_LEN_MAX} octets, found more");
                return visit((At::Line(begun), Err(why)));
            }
            let text = pem::text(&block);
            let der = text.and_then(|text| Block { label: CERTIFICATE, text: text.trim_end(), line: 1 }.decode());
            // A line number of the block would be another one than the file's.
            let der =
                der.map_err(|error| format!("expected a certificate in PEM: {error}").replace("PEM: line 1: ", ""));
            // They are sent one after another: each has to say itself where it ends.
            let whole = |der: Vec<u8>| match certificate_len(&der) {
                Some(len) if len == der.len() => Ok(der),
                Some(_) | None => {
                    Err("expected one certificate in DER in the block, found a part of one or something else"
                        .to_owned())
                }
            };
            let der = der.and_then(whole);
            visit((At::Line(begun), der.as_deref().map_err(String::clone)))?;
        }
        Ok(())
    })?;
    if let Some(from) = from {
        visit((At::Line(from), Err(UNENDED.to_owned())))?;
    }
    if !found_any {
        visit((At::Line(1), Err("expected a line -----BEGIN CERTIFICATE-----, found none in the file".to_owned())))?;
    }
    Ok(())
}

/// Certificates that are given with Responses, by Device, in DER.
#[derive(Default)]
pub(super) struct Given(BTreeMap<DeviceId, Vec<Vec<u8>>>);

impl Given {
    /// Those of a file or of a directory's files that are of Devices for signatures.
    pub(super) fn read(context: &Context, path: &Path) -> Result<Self, CliError> {
        let (given, others) = Self::read_at_most(path, GIVEN_LEN_MAX)?;
        if others > 0 {
            context.print.note(&format!("{others} certificates are not of Devices for signatures; they are not sent"));
        }
        Ok(given)
    }

    /// Those of so many octets at most; and how many others there were.
    fn read_at_most(path: &Path, len_max: usize) -> Result<(Self, u64), CliError> {
        let (mut all, mut len) = (Vec::new(), 0);
        for file in parts::files(&[path.to_owned()])? {
            each(&file, &mut |(at, found)| {
                let octets = found.map_err(|why| {
                    let at = match at {
                        At::Line(line) => format!("line {line}"),
                        At::Octet(octet) => format!("octet {octet}"),
                    };
                    CliError::Unfit(format!("{}: {at}: {why}", file.display()))
                })?;
                len += octets.len();
                if len > len_max {
                    return Err(CliError::Unfit(format!(
                        "{}: expected at most {len_max} octets of certificates to be given with Responses, found more; have them \
                         verified once by `smkictl recovery certificates import`, and give none",
                        path.display()
                    )));
                }
                all.push(octets.to_vec());
                Ok(())
            })?;
        }
        let (mut given, mut others) = (Self::default(), 0_u64);
        for octets in all {
            match signing_device(&octets) {
                Some(device) => given.0.entry(device).or_default().push(octets),
                None => others += 1,
            }
        }
        Ok((given, others))
    }

    /// Those that these messages need, DER one after another; no more of each Device than are tried.
    pub(super) fn bundle(&self, messages: &Messages) -> Vec<u8> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let devices: BTreeSet<DeviceId> = messages.all().into_iter().filter_map(device_of).collect();
        let theirs = devices.iter().filter_map(|device| self.0.get(device));
        theirs.flat_map(|all| all.iter().take(CANDIDATES_MAX)).map(Vec::as_slice).collect::<Vec<_>>().concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::certificates::pem::certificate_to_pem;

    /// DER of this length, its header included, of which nobody reads more than where it ends.
    fn der(len: usize) -> Vec<u8> {
        let [high, low] = u16::try_from(len - 4).unwrap().to_be_bytes();
        [vec![0x30, 0x82, high, low], vec![7; len - 4]].concat()
    }

    fn found(octets: &[u8]) -> Vec<(At, Result<Vec<u8>, String>)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("certificates");
        std::fs::write(&path, octets).unwrap();
        let mut all = Vec::new();
        each(&path.into(), &mut |(at, found)| {
            all.push((at, found.map(<[u8]>::to_vec)));
            Ok(())
        })
        .unwrap();
        all
    }

    #[test]
    fn a_block_is_read_up_to_its_longest_and_a_longer_one_is_told_and_the_next_is_read() {
        let frame = "-----BEGIN CERTIFICATE-----\n".len() + "-----END CERTIFICATE-----\n".len();
        // Lines of 64 characters and a line feed, and one more of 4 characters or of 8.
        let lines = (BLOCK_LEN_MAX - frame - 5) / 65;
        let rest = BLOCK_LEN_MAX - frame - lines * 65;
        let block = |len: usize| {
            let text = "A".repeat(64) + "\n";
            let last = "A".repeat(len) + "\n";
            format!("-----BEGIN CERTIFICATE-----\n{}{last}-----END CERTIFICATE-----\n", text.repeat(lines))
        };
        assert_eq!(block(rest - 1).len(), BLOCK_LEN_MAX);
        let small = certificate_to_pem(&der(300));
        for (len, is_told) in [(rest - 1, false), (rest, true)] {
            let all = found(format!("{}{small}", block(len)).as_bytes());
            assert_eq!(all.len(), 2);
            let told =
                all[0].1.as_ref().err().is_some_and(|why| why.contains("expected a block of at most 131072 octets"));
            assert_eq!(told, is_told, "{len}: {:?}", all[0].1);
            assert_eq!(all[1].1.as_deref(), Ok(&der(300)[..]));
        }
    }

    #[test]
    fn certificates_given_with_responses_are_read_up_to_a_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("certificates");
        std::fs::write(&path, [der(500), der(700)].concat()).unwrap();
        assert_eq!(Given::read_at_most(&path, 1_200).unwrap().1, 2, "they are of no Devices");
        let refused = Given::read_at_most(&path, 1_199).err().unwrap().to_string();
        assert!(
            refused.contains("expected at most 1199 octets") && refused.contains("certificates import"),
            "{refused}"
        );
    }

    #[test]
    fn a_part_is_sent_before_the_longest_certificate_would_make_it_too_long() {
        let max = usize::try_from(BUNDLE_LEN_MAX).unwrap();
        let place = || Place { file: Path::new("certificates").into(), at: At::Octet(0) };
        let part = |octets: usize, places: usize| Part {
            octets: vec![0; octets],
            places: (0..places).map(|_| place()).collect(),
            unreadable: Vec::new(),
        };
        assert!(!part(max - CERTIFICATE_LEN_MAX, 1).is_full());
        assert!(part(max - CERTIFICATE_LEN_MAX + 1, 1).is_full());
        assert!(!part(1, CERTIFICATES_MAX - 1).is_full());
        assert!(part(1, CERTIFICATES_MAX).is_full());
    }
}
