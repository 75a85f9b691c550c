//! Shell: a daemon's ledger as the export reads it.

use std::io::{self, Read};
use std::ops::Range;

use axum::body::Bytes;
use tokio::runtime::Runtime;

use super::ledger_export::{ExportError, Source};
use crate::api::client::{Client, ClientError, Pieces, with_query};
use crate::api::wire;
use crate::domain::names::Digest;

/// The length of a record of `GET /v1/ledger/signatures`: the intent's index and r ‖ s.
const SIGNATURE_RECORD_LEN: usize = 8 + 64;

/// Reads through the API. It waits, so it belongs on a thread of its own.
pub struct DaemonSource<'a> {
    client: &'a Client,
    runtime: Runtime,
}

impl<'a> DaemonSource<'a> {
    /// Through this client.
    pub fn new(client: &'a Client) -> io::Result<Self> {
        Ok(Self { client, runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()? })
    }

    fn open(&self, path: &str) -> Result<Incoming<'_>, ExportError> {
        let pieces = self.runtime.block_on(self.client.octets(path)).map_err(unreachable)?;
        Ok(Incoming { runtime: &self.runtime, pieces, piece: Bytes::new() })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unreachable(error: ClientError) -> ExportError {
    ExportError::Unreachable { reason: error.to_string() }
}

fn range_query(path: &str, range: &Range<u64>) -> String {
    with_query(path, &[("from", Some(range.start.to_string())), ("until", Some(range.end.to_string()))])
}

/// Octets on their way, as a reader.
struct Incoming<'a> {
    runtime: &'a Runtime,
    pieces: Pieces,
    piece: Bytes,
}

impl Read for Incoming<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.runtime.block_on(self.pieces.next()).map_err(io::Error::other)? {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let len = into.len().min(self.piece.len());
        into[..len].copy_from_slice(&self.piece.split_to(len));
        Ok(len)
    }
}

/// The next octets of a fixed length; none at the end of the stream.
fn next<const N: usize>(from: &mut impl Read, what: &str) -> Result<Option<[u8; N]>, ExportError> {
    let cut = |error: io::Error| ExportError::Answer { what: what.to_owned(), reason: error.to_string() };
    let mut octets = [0; N];
    // One octet decides whether there is a next; the rest must be there then.
    if from.read(&mut octets[..1]).map_err(cut)? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut octets[1..]).map_err(cut)?;
    Ok(Some(octets))
}

impl Source for DaemonSource<'_> {
    fn checkpoints(&self) -> Result<Vec<Vec<u8>>, ExportError> {
        let all: wire::Checkpoints =
            self.runtime.block_on(self.client.get("/v1/ledger/checkpoints")).map_err(unreachable)?;
        Ok(all.checkpoints.into_iter().map(String::into_bytes).collect())
    }

    fn leaves(
        &self,
        range: Range<u64>,
        visit: &mut dyn FnMut(u64, &[u8]) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        let mut incoming = io::BufReader::new(self.open(&range_query("/v1/ledger/leaves", &range))?);
        let mut leaf = Vec::new();
        for index in range {
            let what = format!("entry {index}");
            let short = |reason: String| ExportError::Answer { what: what.clone(), reason };
            let len = next::<2>(&mut incoming, &what)?.ok_or_else(|| short("the answer ends before it".into()))?;
            leaf.resize(usize::from(u16::from_be_bytes(len)), 0);
            incoming.read_exact(&mut leaf).map_err(|error| short(error.to_string()))?;
            visit(index, &leaf)?;
        }
        Ok(())
    }

    fn blob(&self, digest: Digest) -> Result<Box<dyn Read + '_>, ExportError> {
        Ok(Box::new(self.open(&format!("/v1/ledger/blobs/{digest}"))?))
    }

    fn signatures(
        &self,
        range: Range<u64>,
        wanted: &dyn Fn(u64) -> bool,
        visit: &mut dyn FnMut(u64, &[u8; 64]) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        let mut incoming = io::BufReader::new(self.open(&range_query("/v1/ledger/signatures", &range))?);
        while let Some(record) = next::<SIGNATURE_RECORD_LEN>(&mut incoming, "released signatures")? {
            let (index, signature) = record.split_first_chunk::<8>().expect("a record begins with 8 octets");
            let index = u64::from_be_bytes(*index);
            if wanted(index) {
                visit(index, signature.try_into().expect("64 octets follow"))?;
            }
        }
        Ok(())
    }
}
