//! Pure. The one encoding of the fold, for a snapshot: JSON, fields in the order in which they stand here.
//!
//! Not in it: what grows with Devices, which has tables ([`crate::domain::fold::snapshot`]) or an encoding of its own (the Relevant Devices of
//! an incident); policies but for their digests, which are read again from their blobs; and batches that no open intent names: whoever
//! replays the entries that follow recalls those that are named ([`Fold::recall`]).
//!
//! *Warning:* it is hashed in ledgers. Another field, or another encoding of one, is another form of the snapshot
//! ([`crate::domain::ledger::snapshots::FORM`]).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::jobs::JobFacts;
use super::{Adopted, Blobs, Directions, Fold, FoldError, OpenCertification, OpenIntent, book};
use crate::domain::incident::Targets;
use crate::domain::ledger::entry::{Batch, Genesis};
use crate::domain::names::{DeterminationId, DeviceId, Digest, IncidentId, KeyLabel, RequestId, StatementId};
use crate::domain::policy::facts::{DeterminationFacts, IncidentFacts, KeyFacts};
use crate::domain::time::Timestamp;

/// Why a fold cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeptError {
    /// The encoding is none.
    #[error("the kept state cannot be read: {0}")]
    Encoding(String),
    /// A policy.
    #[error(transparent)]
    Policy(#[from] FoldError),
}

/// A policy that was adopted.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptPolicy {
    sequence: u32,
    digest: Digest,
    entry: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept<'a> {
    size: u64,
    last_at: Option<Timestamp>,
    clock_untrusted: bool,
    clock_accepted: Option<u64>,
    genesis: Option<Cow<'a, (Genesis, Digest)>>,
    policies: Vec<KeptPolicy>,
    keys: Cow<'a, BTreeMap<KeyLabel, KeyFacts>>,
    incidents: Cow<'a, BTreeMap<IncidentId, IncidentFacts>>,
    determinations: Cow<'a, BTreeMap<DeterminationId, DeterminationFacts>>,
    batches: BTreeMap<u64, Cow<'a, Batch>>,
    last_batches: BTreeMap<RequestId, u64>,
    open: Cow<'a, BTreeMap<u64, OpenIntent>>,
    certifications: Cow<'a, BTreeMap<u64, OpenCertification>>,
    activations_bound: bool,
    profiles_named: bool,
    ceremony_at: Option<Timestamp>,
    exercise_at: Option<Timestamp>,
    statements: Cow<'a, BTreeSet<StatementId>>,
    statement_digests: Cow<'a, BTreeSet<Digest>>,
    directions: Cow<'a, Directions>,
    snapshot: Option<u64>,
    jobs: Cow<'a, BTreeMap<RequestId, JobFacts>>,
    /// Key, Device, job.
    unknown_of_jobs: Vec<(KeyLabel, DeviceId, RequestId)>,
}

impl Fold {
    /// Its encoding.
    pub fn kept(&self) -> Vec<u8> {
        // Every field: one that comes in must be thought of here.
        let Self {
            size,
            last_at,
            clock_untrusted,
            clock_accepted,
            genesis,
            policies,
            keys,
            incidents,
            determinations,
            batches,
            last_batches,
            open,
            certifications,
            activations_bound,
            profiles_named,
            ceremony_at,
            exercise_at,
            statements,
            statement_digests,
            directions,
            snapshot,
            jobs,
            unknown_of_jobs,
            targets_altered: _,
            listed: _,
        } = self;
        // A daemon forgets a batch whose request is done, which no entry says; so what it may have forgotten is not kept.
        let named: BTreeSet<u64> = open.values().map(|open| open.intent.batch).collect();
        let kept = Kept {
            size: *size,
            last_at: *last_at,
            clock_untrusted: *clock_untrusted,
            clock_accepted: *clock_accepted,
            genesis: genesis.as_ref().map(Cow::Borrowed),
            policies: policies
                .iter()
                .map(|Adopted { sequence, digest, entry, policy: _ }| KeptPolicy {
                    sequence: *sequence,
                    digest: *digest,
                    entry: *entry,
                })
                .collect(),
            keys: Cow::Borrowed(keys),
            incidents: Cow::Borrowed(incidents),
            determinations: Cow::Borrowed(determinations),
            batches: batches
                .iter()
                .filter(|(index, _)| named.contains(index))
                .map(|(index, batch)| (*index, Cow::Borrowed(batch)))
                .collect(),
            last_batches: last_batches
                .iter()
                .filter(|(_, index)| named.contains(index))
                .map(|(request, index)| (*request, *index))
                .collect(),
            open: Cow::Borrowed(open),
            certifications: Cow::Borrowed(certifications),
            activations_bound: *activations_bound,
            profiles_named: *profiles_named,
            ceremony_at: *ceremony_at,
            exercise_at: *exercise_at,
            statements: Cow::Borrowed(statements),
            statement_digests: Cow::Borrowed(statement_digests),
            directions: Cow::Borrowed(directions),
            snapshot: *snapshot,
            jobs: Cow::Borrowed(jobs),
            unknown_of_jobs: unknown_of_jobs
                .iter()
                .map(|((key, device), request)| (key.clone(), *device, *request))
                .collect(),
        };
        serde_json::to_vec(&kept).expect("names, numbers and texts are JSON, and every map's keys are texts")
    }

    /// The Relevant Devices of each incident that has any.
    pub fn targets(&self) -> impl Iterator<Item = (&IncidentId, &Targets)> {
        self.incidents.iter().filter_map(|(id, facts)| {
            let targets = facts.progress.as_ref().map(|progress| &progress.targets)?;
            targets.is_kept().then_some((id, targets))
        })
    }

    /// Reads its encoding. `blobs` gives the policies; `targets` the Relevant Devices of incidents.
    ///
    /// # Errors
    /// What was expected, and what was found.
    pub fn of_kept(
        octets: &[u8],
        targets: impl IntoIterator<Item = (IncidentId, Targets)>,
        blobs: &dyn Blobs,
    ) -> Result<Self, KeptError> {
        let kept: Kept<'_> = serde_json::from_slice(octets).map_err(|error| KeptError::Encoding(error.to_string()))?;
        let policy = |KeptPolicy { sequence, digest, entry }| {
            let policy = Arc::new(book::read_policy(digest, blobs)?);
            Ok(Adopted { sequence, digest, entry, policy })
        };
        let mut incidents = kept.incidents.into_owned();
        for (incident, targets) in targets {
            let progress = incidents.get_mut(&incident).and_then(|facts| facts.progress.as_mut());
            let none =
                || KeptError::Encoding(format!("Relevant Devices of incident {incident}, which is in no procedure"));
            progress.ok_or_else(none)?.targets = targets;
        }
        Ok(Self {
            size: kept.size,
            last_at: kept.last_at,
            clock_untrusted: kept.clock_untrusted,
            clock_accepted: kept.clock_accepted,
            genesis: kept.genesis.map(Cow::into_owned),
            policies: kept.policies.into_iter().map(policy).collect::<Result<_, FoldError>>()?,
            keys: kept.keys.into_owned(),
            incidents,
            determinations: kept.determinations.into_owned(),
            batches: kept.batches.into_iter().map(|(index, batch)| (index, batch.into_owned())).collect(),
            last_batches: kept.last_batches,
            open: kept.open.into_owned(),
            certifications: kept.certifications.into_owned(),
            activations_bound: kept.activations_bound,
            profiles_named: kept.profiles_named,
            ceremony_at: kept.ceremony_at,
            exercise_at: kept.exercise_at,
            statements: kept.statements.into_owned(),
            statement_digests: kept.statement_digests.into_owned(),
            directions: kept.directions.into_owned(),
            snapshot: kept.snapshot,
            jobs: kept.jobs.into_owned(),
            unknown_of_jobs: kept
                .unknown_of_jobs
                .into_iter()
                .map(|(key, device, request)| ((key, device), request))
                .collect(),
            targets_altered: 0,
            // Counted from the snapshot on, of which this is.
            listed: 0,
        })
    }

    /// Knows a batch again that was not kept, because an intent names it: it stands in the entries before.
    pub fn recall(&mut self, index: u64, batch: &Batch) {
        let last = self.last_batches.entry(batch.request).or_insert(index);
        *last = index.max(*last);
        self.batches.entry(index).or_insert_with(|| batch.clone());
    }
}
