//! Messages for tests, all of our own making.
#![expect(clippy::disallowed_types, reason = "tests make their own keys")]

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

use super::der::{tag, write_element, write_octets, write_unsigned};
use super::message::{encode, encode_unsigned};
use super::*;
use crate::domain::names::{DeviceId, Eui64, PartyId};

pub const RECOVERY: PartyId = PartyId(Eui64([0xA0, 0xB1, 0xC2, 0xD3, 0xE4, 0, 0, 1]));
pub const DEVICE: DeviceId = DeviceId(Eui64([0x00, 0xFE, 0xDC, 0xBA, 0x98, 0x76, 0x54, 0x32]));
pub const COUNTER: u64 = 7000;

/// A P-256 key of the moment.
pub struct Key {
    pair: EcdsaKeyPair,
    pub point: [u8; 65],
}

fn random() -> SystemRandom {
    SystemRandom::new()
}

impl Key {
    pub fn generate() -> Self {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random()).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random()).unwrap();
        let point = pair.public_key().as_ref().try_into().unwrap();
        Self { pair, point }
    }

    pub fn sign(&self, octets: &[u8]) -> [u8; 64] {
        self.pair.sign(&random(), octets).unwrap().as_ref().try_into().unwrap()
    }

    /// Signs a message that stops after its payload.
    pub fn finish(&self, mut unsigned: Vec<u8>) -> Vec<u8> {
        let signature = self.sign(&unsigned[1..]);
        finish(&mut unsigned, &signature);
        unsigned
    }
}

pub fn random_octets<const N: usize>() -> [u8; N] {
    let mut octets = [0; N];
    random().fill(&mut octets).unwrap();
    octets
}

/// What has the outer framing of a certificate, is `len` octets long in all, and nothing else.
pub fn framed(len: usize) -> Vec<u8> {
    let mut octets = Vec::new();
    let header = if len < 130 {
        2
    } else if len < 259 {
        3
    } else {
        4
    };
    write_octets(&mut octets, tag::SEQUENCE, &vec![0x5A; len - header]);
    assert_eq!(octets.len(), len);
    octets
}

fn oid(out: &mut Vec<u8>, octets: &[u8]) {
    write_octets(out, 0x06, octets);
}

/// An X.509 certificate with what is read here: subject (organizational unit, uniqueIdentifier) and key identifier.
pub fn certificate(unit: &str, id: Option<[u8; 8]>, key_id: [u8; 8]) -> Vec<u8> {
    let algorithm = |out: &mut Vec<u8>| {
        write_element(out, tag::SEQUENCE, |out| oid(out, &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x02]));
    };
    let attribute = |out: &mut Vec<u8>, arc: u8, tag: u8, value: &[u8]| {
        write_element(out, 0x31, |out| {
            write_element(out, tag::SEQUENCE, |out| {
                oid(out, &[0x55, 0x04, arc]);
                write_octets(out, tag, value);
            });
        });
    };
    let mut octets = Vec::new();
    write_element(&mut octets, tag::SEQUENCE, |out| {
        write_element(out, tag::SEQUENCE, |out| {
            write_element(out, 0xA0, |out| write_unsigned(out, tag::INTEGER, 2));
            write_unsigned(out, tag::INTEGER, 4711);
            algorithm(out);
            write_element(out, tag::SEQUENCE, |out| attribute(out, 11, 0x13, b"07"));
            write_element(out, tag::SEQUENCE, |out| {
                write_octets(out, 0x17, b"260101000000Z");
                write_octets(out, 0x17, b"360101000000Z");
            });
            write_element(out, tag::SEQUENCE, |out| {
                attribute(out, 11, 0x0C, unit.as_bytes());
                if let Some(id) = id {
                    attribute(out, 45, tag::BIT_STRING, &[&[0][..], &id].concat());
                }
            });
            write_element(out, tag::SEQUENCE, |out| {
                write_element(out, tag::SEQUENCE, |out| {
                    oid(out, &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01]);
                    oid(out, &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07]);
                });
                write_octets(out, tag::BIT_STRING, &[&[0, 4][..], &[0x11; 64]].concat());
            });
            write_element(out, 0xA3, |out| {
                write_element(out, tag::SEQUENCE, |out| {
                    write_element(out, tag::SEQUENCE, |out| {
                        oid(out, &[0x55, 0x1D, 0x0E]);
                        write_octets(out, tag::OCTET_STRING, &[&[0x04, 0x08][..], &key_id].concat());
                    });
                });
            });
        });
        algorithm(out);
        write_octets(out, tag::BIT_STRING, &[0, 0x30, 0x00]);
    });
    octets
}

pub fn seq(value: u64) -> SeqNumber {
    SeqNumber::new(value).unwrap()
}

fn change(role: RemotePartyRole, top_up: bool) -> SeqNumberChange {
    let floor = SpecialistFloor { usage: SpecialistUse::PrepaymentTopUp, floor: SeqNumber::ZERO };
    SeqNumberChange { role, floor: SeqNumber::ZERO, specialist_floors: top_up.then(|| vec![floor]) }
}

/// The eight cells that a Recovery command usually replaces.
pub fn eight_cells() -> [TrustAnchorCell; 8] {
    use KeyUsage::{DigitalSignature, KeyAgreement};
    use RemotePartyRole::{AccessControlBroker, NetworkOperator, Recovery, Supplier, TransitionalCoS};
    let top_up = TrustAnchorCell { role: Supplier, key_usage: KeyAgreement, cell_usage: CellUsage::PrePaymentTopUp };
    [
        TrustAnchorCell::management(Recovery, DigitalSignature),
        TrustAnchorCell::management(Supplier, DigitalSignature),
        TrustAnchorCell::management(Supplier, KeyAgreement),
        top_up,
        TrustAnchorCell::management(NetworkOperator, DigitalSignature),
        TrustAnchorCell::management(NetworkOperator, KeyAgreement),
        TrustAnchorCell::management(AccessControlBroker, KeyAgreement),
        TrustAnchorCell::management(TransitionalCoS, DigitalSignature),
    ]
}

/// A Recovery command's update: these certificates into the first of the eight cells.
pub fn recovery_update<'a>(certificates: &'a [Vec<u8>], path: &'a [Vec<u8>]) -> Update<'a> {
    let replacement = |(certificate, cell): (&'a Vec<u8>, _)| Replacement { certificate, cell };
    Update {
        mode: CredentialsReplacementMode::AnyExceptAbnormalRootByRecovery,
        cpv_checks: CpvChecks::Disapply,
        authorising_cell: Some(TrustAnchorCell::RECOVERY),
        new_floor: Some(SeqNumber::ZERO),
        new_specialist_floors: None,
        other_changes: Some(changes()[1..].to_vec()),
        replacements: certificates.iter().zip(eight_cells()).map(replacement).collect(),
        path_certificates: path.iter().map(Vec::as_slice).collect(),
        execution: None,
    }
}

/// The same by the Contingency key, into the root and then the first of the eight cells.
pub fn contingency_update<'a>(certificates: &'a [Vec<u8>], path: &'a [Vec<u8>]) -> Update<'a> {
    let cells = std::iter::once(TrustAnchorCell::ROOT).chain(eight_cells());
    let replacements = certificates.iter().zip(cells).map(|(certificate, cell)| Replacement { certificate, cell });
    Update {
        mode: CredentialsReplacementMode::AnyByContingency,
        authorising_cell: Some(TrustAnchorCell::ROOT),
        replacements: replacements.collect(),
        ..recovery_update(&[], path)
    }
}

/// What the Device of `recovery_update` reports of its counters.
pub fn changes() -> Vec<SeqNumberChange> {
    use RemotePartyRole::{AccessControlBroker, NetworkOperator, Recovery, Supplier, TransitionalCoS};
    vec![
        change(Recovery, false),
        change(Supplier, true),
        change(NetworkOperator, false),
        change(AccessControlBroker, false),
        change(TransitionalCoS, false),
    ]
}

/// Two real certificates.
pub fn two_certificates() -> Vec<Vec<u8>> {
    vec![
        certificate("01", Some(RECOVERY.0.0), [0x41; 8]),
        certificate("02", Some([0xA0, 0xB1, 0xC2, 0xD3, 0xE4, 1, 0, 0]), [0x42; 8]),
    ]
}

pub fn header(cra: Cra, code: MessageCode) -> Header {
    let (originator, recipient) = match cra {
        Cra::Command => (RECOVERY.0, DEVICE.0),
        Cra::Response | Cra::Alert => (DEVICE.0, RECOVERY.0),
    };
    let date_time =
        (cra == Cra::Response).then(|| DlmsDateTime::from_timestamp("2026-11-24T01:02:03.45Z".parse().unwrap()));
    Header { cra, counter: COUNTER, originator, recipient, date_time, code }
}

/// A pre-command, its payload made of `update`; mode 9 gets a symmetric key of 32 octets `EE`.
pub fn pre_command(update: Update<'_>) -> Vec<u8> {
    let key = [0xEE; 32];
    let is_contingency = update.mode == CredentialsReplacementMode::AnyByContingency;
    let header = header(Cra::Command, update.mode.message_code());
    let payload = CommandPayload {
        update,
        seq_number: seq(COUNTER),
        plaintext_symmetric_key: is_contingency.then(|| PlaintextSymmetricKey::new(&key).unwrap()),
    };
    let mut octets = Vec::new();
    encode_unsigned(&header, &Payload::Command(payload), &mut octets).unwrap();
    octets
}

/// The same, signed.
pub fn command(update: Update<'_>) -> Vec<u8> {
    Key::generate().finish(pre_command(update))
}

/// The outcome of `update` in which every cell succeeded, with the identifiers `ids`.
pub fn success(update: &Update<'_>, ids: &[(Eui64, SubjectKeyIdentifier)]) -> ExecutionOutcome {
    let outcome = |(replacement, id): (&Replacement<'_>, &(Eui64, SubjectKeyIdentifier))| ReplacementOutcome {
        cell: replacement.cell,
        status: StatusCode::Success,
        existing_id: Eui64([0xB0; 8]),
        existing_key_id: SubjectKeyIdentifier([0x4B; 8]),
        replacing_id: id.0,
        replacing_key_id: id.1,
    };
    ExecutionOutcome {
        seq_number: seq(COUNTER),
        mode: update.mode,
        changes: changes(),
        replacements: update.replacements.iter().zip(ids).map(outcome).collect(),
    }
}

pub fn response(mode: CredentialsReplacementMode, outcome: Option<ExecutionOutcome>) -> Vec<u8> {
    let mut octets = Vec::new();
    let payload = Payload::Response(ResponsePayload { outcome });
    encode_unsigned(&header(Cra::Response, mode.message_code()), &payload, &mut octets).unwrap();
    octets
}

pub fn alert(alert_code: AlertCode, outcome: ExecutionOutcome) -> Vec<u8> {
    let execution = GeneralizedTime::from_timestamp("2026-12-01T00:00:00Z".parse().unwrap()).unwrap();
    let payload = Payload::Alert(AlertPayload { alert_code, execution, outcome });
    let mut octets = Vec::new();
    let header = Header { counter: 99, ..header(Cra::Alert, MessageCode::FutureDatedExecution) };
    encode_unsigned(&header, &payload, &mut octets).unwrap();
    octets
}

/// A mode 3 Command with MAC Header, signature and MAC of no meaning.
pub fn maced_command(update: Update<'_>, is_signed: bool) -> Vec<u8> {
    let header = header(Cra::Command, update.mode.message_code());
    let payload = CommandPayload { update, seq_number: seq(COUNTER), plaintext_symmetric_key: None };
    let (signature, mac) = ([0x51; 64], [0x3A; 12]);
    let authentication =
        if is_signed { Authentication::SignedAndMac(&signature, &mac) } else { Authentication::Mac(&mac) };
    let mut octets = Vec::new();
    encode(&header, &Payload::Command(payload), authentication, &mut octets).unwrap();
    octets
}
