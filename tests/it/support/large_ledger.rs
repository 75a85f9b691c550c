//! A ledger of any size, as jobs of so many Devices leave it: in a database, each command of 3,986 octets signed by a key in
//! memory. Recorded through the daemon's own recorder, decided by its own rules.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use smkid::domain::fold::{Book as _, Fold};
use smkid::domain::gbcs::{CellUsage, KeyUsage, RemotePartyRole, TrustAnchorCell};
use smkid::domain::ledger::entry::{Actor, Batch, ClockState, Event, Intent, Outcome, Released, SignResult};
use smkid::domain::ledger::note::Verifier;
use smkid::domain::names::{Digest, KeyLabel, RequestId};
use smkid::domain::policy::facts::WantedForm;
use smkid::domain::policy::rules::{self, CommandFacts};
use smkid::recorder::{Moment, Recorder};
use smkid::state;
use smkid::store::Store as _;
use smkid::store::sqlite::SqliteStore;

use super::{DEVICES, Fixture, Key, MINUTE_MS, ORIGIN, STAGING, Signer, numbered, operator};

/// Commands in a chunk, as the daemon's.
const CHUNK: usize = 1_000;

/// As many as a genuine command replaces (GBCS 13.3).
const CELLS: [TrustAnchorCell; 8] = [
    TrustAnchorCell::RECOVERY,
    TrustAnchorCell::management(RemotePartyRole::Supplier, KeyUsage::DigitalSignature),
    TrustAnchorCell::management(RemotePartyRole::Supplier, KeyUsage::KeyAgreement),
    TrustAnchorCell {
        role: RemotePartyRole::Supplier,
        key_usage: KeyUsage::KeyAgreement,
        cell_usage: CellUsage::PrePaymentTopUp,
    },
    TrustAnchorCell::management(RemotePartyRole::NetworkOperator, KeyUsage::DigitalSignature),
    TrustAnchorCell::management(RemotePartyRole::NetworkOperator, KeyUsage::KeyAgreement),
    TrustAnchorCell::management(RemotePartyRole::AccessControlBroker, KeyUsage::KeyAgreement),
    TrustAnchorCell::management(RemotePartyRole::TransitionalCoS, KeyUsage::DigitalSignature),
];

/// When the signatures of a job are handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandOver {
    /// Chunk by chunk, as `recovery sign` does.
    AtOnce,
    /// All of them in the end, as for a job that is fetched.
    InTheEnd,
    /// Not at all.
    Never,
}

impl Fixture {
    /// A ledger in a database in `directory`, which has none, where the commands for `devices` Devices are ready to be signed.
    pub fn large(directory: &Path, devices: u64) -> Self {
        assert!(devices >= DEVICES.len() as u64, "a large ledger is not of {devices} Devices");
        let store = SqliteStore::create(directory, STAGING).unwrap();
        let mut fixture = Self::begin(Box::new(store), None, devices, &CELLS);
        fixture.certify();
        fixture.start();
        fixture.open_incident();
        fixture.determination = fixture.record_determination();
        fixture.activate();
        fixture
    }

    /// One job: a command for each of these Devices, by their numbers, all of them signed.
    pub fn sign_all(&mut self, devices: Range<u64>, hand_over: HandOver) -> RequestId {
        self.wait(MINUTE_MS);
        let request = self.next_request();
        let devices: Vec<u64> = devices.collect();
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for chunk in devices.chunks(CHUNK) {
            let intended = self.intend_chunk(request, chunk);
            let signed: Vec<(u64, [u8; 64])> =
                intended.iter().map(|(index, octets)| (*index, self.recovery_key.sign(&octets[1..]))).collect();
            let range = (signed[0].0, signed[signed.len() - 1].0 + 1);
            let at_once = hand_over == HandOver::AtOnce;
            let determination = self.determination;
            self.record(|recorder| {
                for (intent, signature) in signed {
                    recorder.queue_signature(intent, signature, at_once);
                    let result = SignResult::Signed(Digest::of(&signature));
                    recorder.queue(&Actor::daemon(), Event::Outcome(Outcome { intent, result })).unwrap();
                }
                if at_once {
                    let by = recorder.known(operator());
                    let event = Released { request, determination, intents: vec![range] };
                    recorder.queue(&by, Event::Released(event)).unwrap();
                }
            });
            ranges.push(range);
        }
        self.signed.insert(request, ranges);
        if hand_over == HandOver::InTheEnd {
            self.hand_over(request);
        }
        request
    }

    /// Ends with a snapshot, as somebody takes it who has the disk and the ledger key, or another: of the state as `lie` has it.
    pub fn end_with_snapshot(self, directory: &Path, by: Option<Arc<Key>>, lie: impl FnOnce(String) -> String) {
        let ledger_key = by.unwrap_or_else(|| Arc::clone(&self.ledger_key));
        let verifier = Verifier::from_spki(ORIGIN, &ledger_key.public.to_spki()).unwrap();
        let at = self.at();
        drop(self);
        let mut store = SqliteStore::open(directory, STAGING).unwrap();
        let fold = state::catch_up(&mut store).unwrap();
        let kept = lie(String::from_utf8(fold.kept()).unwrap());
        let fold = Fold::of_kept(kept.as_bytes(), [], &state::StoredDocuments(&*store.reader().unwrap())).unwrap();
        let read = move || (Moment { at, clock: ClockState::Trusted }, None);
        let mut recorder = Recorder::new(Box::new(store), fold, Box::new(read)).unwrap();
        recorder.set_signer(Box::new(Signer { key: ledger_key, verifier }));
        recorder.set_snapshot_leaves(1);
        recorder.snapshot_if_due().unwrap();
    }

    /// Hands over all that a job signed.
    pub fn hand_over(&mut self, request: RequestId) {
        let determination = self.determination;
        for intents in self.signed[&request].clone().chunks(CHUNK) {
            let event = Released { request, determination, intents: intents.to_vec() };
            self.record(|recorder| {
                let by = recorder.known(operator());
                recorder.queue(&by, Event::Released(event)).unwrap();
            });
        }
    }

    /// The intents of a chunk, each with its whole pre-command.
    fn intend_chunk(&mut self, request: RequestId, devices: &[u64]) -> Vec<(u64, Vec<u8>)> {
        let (determination, policy) = (self.determination, self.policy);
        let key: KeyLabel = "recovery-1".parse().unwrap();
        self.record(|recorder| {
            let by = recorder.known(operator());
            let batch = Batch {
                request,
                asked: Digest::of(&request.0),
                incident: "INC-1".parse().unwrap(),
                determination,
                policy,
                profile: None,
                key: key.clone(),
            };
            let batch = recorder.queue(&by, Event::Batch(batch)).unwrap();
            let mut intended = Vec::with_capacity(devices.len());
            for device in devices.iter().copied().map(numbered) {
                let Moment { at, clock } = recorder.moment();
                let facts = recorder.fold().batch_facts(&by, determination, at, clock).unwrap();
                let (listed, last) =
                    (recorder.listed(determination, device).unwrap(), recorder.device(&key, device).unwrap());
                let facts = CommandFacts {
                    batch: &facts,
                    device,
                    form: &WantedForm::Device,
                    pre_command: None,
                    listed: listed.as_ref(),
                    last: last.as_ref(),
                };
                let allowance = rules::decide(&facts).unwrap();
                let mut octets = Vec::new();
                allowance.template.fill(allowance.originator, device, allowance.counter, &mut octets).unwrap();
                let intent = Intent {
                    batch,
                    template: allowance.template_name,
                    device,
                    counter: allowance.counter,
                    attempt: allowance.attempt,
                    command: Digest::of(&octets[1..]),
                };
                intended.push((recorder.queue(&by, Event::Intent(intent)).unwrap(), octets));
            }
            intended
        })
    }
}
