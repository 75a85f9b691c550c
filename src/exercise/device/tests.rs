use super::*;
use crate::domain::certificates::profile::HARDWARE_MODULE_NAME;
use crate::domain::gbcs::proof::{Expected, Verdict};
use crate::domain::gbcs::{SeqNumber, Template, put_symmetric_key};
use crate::domain::names::PartyId;
use crate::exercise::lab::Renewal;
use crate::exercise::lab::tests::{Generation, generation, lab, now};
use crate::exercise::policy::Names;
use crate::exercise::template::tests::recovery;
use crate::exercise::template::{contingency, template, with_certificate_swapped};

const ID: DeviceId = DeviceId(Eui64([2, 0xDE, 0x1C, 0xE0, 0, 0, 0, 1]));

struct Bench {
    lab: Lab,
    recovery: SmkiCertificate,
    key: SoftKey,
    judge: Judge,
}

impl Bench {
    fn new() -> Self {
        let lab = lab();
        let (recovery, key) = recovery(&lab);
        let judge = Judge::new(lab.profile().clone());
        Self { lab, recovery, key, judge }
    }

    fn device(&self) -> Device {
        Device::make(ID, 7000, &Made::new(&self.lab, &self.recovery), &self.lab).unwrap()
    }

    fn approved(&self) -> Template {
        template(&self.lab, &self.recovery, self.lab.after()).unwrap()
    }

    /// Filled, and not signed.
    fn unsigned(template: &Template, counter: u64) -> Vec<u8> {
        let mut command = Vec::new();
        template.fill(Names::new().recovery_party, ID, counter, &mut command).unwrap();
        command
    }

    fn command(&self, template: &Template, counter: u64) -> Vec<u8> {
        let mut command = Self::unsigned(template, counter);
        let signature = self.key.sign(&command[1..]).unwrap();
        finish(&mut command, &signature);
        command
    }

    fn judged(&self, device: &mut Device, command: &[u8]) -> Verdict {
        let response = device.receive(command, &self.judge, now()).unwrap();
        Expected::from_command(command).unwrap().judge(&response, device.public().point())
    }
}

#[test]
fn a_device_is_recovered_and_proves_it() {
    let bench = Bench::new();
    let mut device = bench.device();
    let command = bench.command(&bench.approved(), 7001);
    assert!(matches!(bench.judged(&mut device, &command), Verdict::Recovered(cells) if cells.len() == 6));
    assert_eq!(device.recovery_counter(), 7001);
    for (cell, certificate) in CELLS.iter().zip(bench.lab.after()) {
        assert!(device.holds(cell.cell, certificate), "{}", cell.name);
    }
    assert!(device.holds(TrustAnchorCell::RECOVERY, &bench.recovery));
    assert!(device.certificate().windows(8).any(|window| window == ID.0.octets()), "{HARDWARE_MODULE_NAME}");
}

#[test]
fn certificates_of_the_access_control_broker_are_taken_into_supplier_cells() {
    let bench = Bench::new();
    let mut device = bench.device();
    let method_2 = template(&bench.lab, &bench.recovery, bench.lab.broker()).unwrap();
    assert!(matches!(bench.judged(&mut device, &bench.command(&method_2, 7001)), Verdict::Recovered(_)));
    assert!(device.holds(CELLS[0].cell, &bench.lab.broker()[0]));
}

#[test]
fn a_counter_must_be_above_the_one_stored_and_is_not_lowered_by_the_floor_of_an_unchanged_key() {
    let bench = Bench::new();
    let mut device = bench.device();
    let approved = bench.approved();
    let mut check = |counter, expected: Result<(), Refusal>| {
        let answer = device.receive(&bench.command(&approved, counter), &bench.judge, now());
        assert_eq!(answer.map(drop), expected, "{counter}");
    };
    check(6999, Err(Refusal::Replay { stored: 7000, found: 6999 }));
    check(7000, Err(Refusal::Replay { stored: 7000, found: 7000 }));
    check(7001, Ok(()));
    check(7001, Err(Refusal::Replay { stored: 7001, found: 7001 }));
    check(9000, Ok(()));
}

#[test]
fn what_is_not_for_it_or_not_from_recovery_is_discarded_and_changes_nothing() {
    let bench = Bench::new();
    let mut device = bench.device();
    let approved = bench.approved();
    let mut check = |command: &[u8], expected: fn(&Refusal) -> bool| {
        let refusal = device.receive(command, &bench.judge, now()).unwrap_err();
        assert!(expected(&refusal), "{refusal}");
        assert_eq!(device.recovery_counter(), 7000);
        assert!(device.holds(CELLS[0].cell, &bench.lab.before()[0]));
    };
    let good = bench.command(&approved, 7001);
    check(&Bench::unsigned(&approved, 7001), |refusal| *refusal == Refusal::NotSigned);
    let mut forged = Bench::unsigned(&approved, 7001);
    let signature = SoftKey::generate().unwrap().sign(&forged[1..]).unwrap();
    finish(&mut forged, &signature);
    check(&forged, |refusal| *refusal == Refusal::Signature);
    let mut flipped = good.clone();
    flipped[200] ^= 1;
    check(&flipped, |refusal| *refusal == Refusal::Signature);
    check(&[&good[..], &[0]].concat(), |refusal| matches!(refusal, Refusal::Malformed(_)));
    let resigned = |edit: fn(&mut Vec<u8>)| {
        let mut command = Bench::unsigned(&approved, 7001);
        edit(&mut command);
        let signature = bench.key.sign(&command[1..]).unwrap();
        finish(&mut command, &signature);
        command
    };
    check(&resigned(|command| command[28] ^= 1), |refusal| matches!(refusal, Refusal::OtherRecipient { .. }));
    check(&resigned(|command| command[19] ^= 1), |refusal| matches!(refusal, Refusal::Originator { .. }));
    check(&resigned(|command| command[2] = 2), |refusal| matches!(refusal, Refusal::Malformed(_)));
}

#[test]
fn a_certificate_that_leads_to_no_root_leaves_its_cell_and_only_that_as_it_was() {
    let bench = Bench::new();
    let stranger = lab();
    for (certificate, expected) in [
        (&stranger.after()[0], StatusCode::NoTrustAnchor),
        (&bench.lab.after()[1], StatusCode::BadCertificate), // keyAgreement, for a cell of digitalSignature
        (bench.lab.device_ca(), StatusCode::BadCertificate),
    ] {
        let mut device = bench.device();
        let template =
            with_certificate_swapped(&bench.lab, &bench.recovery, bench.lab.after(), 0, certificate).unwrap();
        let response = device.receive(&bench.command(&template, 7001), &bench.judge, now()).unwrap();
        let Payload::Response(ResponsePayload { outcome: Some(outcome) }) = Message::decode(&response).unwrap().payload
        else {
            panic!("a Response has an outcome")
        };
        let statuses: Vec<_> = outcome.replacements.iter().map(|replacement| replacement.status).collect();
        let mut all = vec![StatusCode::Success; 6];
        all[1] = expected;
        assert_eq!(statuses, all);
        assert!(device.holds(CELLS[0].cell, &bench.lab.before()[0]));
        assert!(device.holds(CELLS[1].cell, &bench.lab.after()[1]));
    }
}

#[test]
fn a_floor_sets_the_counter_of_a_role_whose_key_changed() {
    let bench = Bench::new();
    let mut device = bench.device();
    device.counters[usize::from(RemotePartyRole::Supplier.code())] = 500;
    let floor = SeqNumber::new(20).unwrap();
    let template =
        crate::exercise::template::with_floor(&bench.lab, &bench.recovery, bench.lab.after(), floor).unwrap();
    device.receive(&bench.command(&template, 7001), &bench.judge, now()).unwrap();
    assert_eq!(device.counters[usize::from(RemotePartyRole::Supplier.code())], 20);
    // The same again: the keys no longer change, so a counter above stays.
    device.counters[usize::from(RemotePartyRole::Supplier.code())] = 500;
    device.receive(&bench.command(&template, 7002), &bench.judge, now()).unwrap();
    assert_eq!(device.counters[usize::from(RemotePartyRole::Supplier.code())], 500);
}

/// A Device that holds a Root with a wrapped Contingency Public Key, and what replaces all that it holds.
struct Contingency {
    lab: Lab,
    recovery: SmkiCertificate,
    recovery_key: SoftKey,
    held: Generation,
    next: Generation,
    renewal: Renewal,
    judge: Judge,
}

/// Who sends Contingency commands, whatever certificate a Device holds.
const ORIGINATOR: PartyId = PartyId(Eui64([0x70, 0xB3, 0xD5, 0x1F, 0x30, 0, 0x17, 0xFF]));

impl Contingency {
    fn new() -> Self {
        let (mut lab, held, next) = (lab(), generation(), generation());
        lab.carry(held.wrapped.clone()).unwrap();
        let (recovery, recovery_key) = recovery(&lab);
        let renewal = lab.renew(Some(next.wrapped.clone()), &recovery).unwrap();
        let judge = Judge::new(lab.profile().clone());
        Self { lab, recovery, recovery_key, held, next, renewal, judge }
    }

    fn device(&self) -> Device {
        Device::make(ID, 7000, &Made::new(&self.lab, &self.recovery), &self.lab).unwrap()
    }

    fn filled(template: &Template, counter: u64, symmetric: &SymmetricKey) -> Vec<u8> {
        let mut unfilled = Vec::new();
        template.fill(ORIGINATOR, ID, counter, &mut unfilled).unwrap();
        put_symmetric_key(&unfilled, symmetric).unwrap().to_vec()
    }

    fn command(template: &Template, counter: u64, symmetric: &SymmetricKey, key: &SoftKey) -> Vec<u8> {
        let mut command = Self::filled(template, counter, symmetric);
        let signature = key.sign(&command[1..]).unwrap();
        finish(&mut command, &signature);
        command
    }

    fn right(&self, counter: u64) -> Vec<u8> {
        Self::command(&contingency(&self.renewal).unwrap(), counter, &self.held.symmetric, &self.held.key)
    }

    fn receive(&self, device: &mut Device, command: &[u8]) -> Result<Vec<u8>, Refusal> {
        device.receive(command, &self.judge, now())
    }
}

#[test]
fn the_contingency_key_replaces_the_root_and_all_below_it_and_then_is_refused() {
    let bench = Contingency::new();
    let mut device = bench.device();
    let command = bench.right(1);
    let response = bench.receive(&mut device, &command).unwrap();
    let expected = Expected::from_command(&command).unwrap();
    let Verdict::Recovered(cells) = expected.judge(&response, device.public().point()) else { panic!("not recovered") };
    assert_eq!(cells.len(), 9);
    // As a genuine Device reports a root: it has no EUI-64, before or after.
    let zeros = Eui64([0; 8]);
    assert_eq!((cells[0].cell, cells[0].before.0, cells[0].now.0), (TrustAnchorCell::ROOT, zeros, zeros));
    assert_eq!(cells[0].now.1, SubjectKeyIdentifier(bench.renewal.root_oca().subject_key_identifier()));
    let Payload::Response(ResponsePayload { outcome: Some(outcome) }) = Message::decode(&response).unwrap().payload
    else {
        panic!("a Response has an outcome")
    };
    let roles: Vec<_> = outcome.changes.iter().map(|change| change.role.name()).collect();
    assert_eq!(roles, ["root", "supplier", "networkOperator", "accessControlBroker", "transitionalCoS"]);
    assert!(device.holds(TrustAnchorCell::ROOT, bench.renewal.root_oca()));
    for (cell, certificate) in CELLS.iter().zip(bench.renewal.credentials()) {
        assert!(device.holds(cell.cell, certificate), "{}", cell.name);
    }
    // The root's counter begins again with its new key; Recovery's was not named and stays.
    assert_eq!((device.counter(RemotePartyRole::Root), device.recovery_counter()), (0, 7000));

    // The symmetric key of the Root that is gone opens nothing any more; that of the next does.
    let again = bench.receive(&mut device, &bench.right(2)).unwrap_err();
    assert!(matches!(again, Refusal::Unwrap(UnwrapError::Integrity { .. })), "{again}");
    let third = bench.lab.renew(Some(generation().wrapped), &bench.recovery).unwrap();
    let template = contingency(&third).unwrap();
    let next = Contingency::command(&template, 1, &bench.next.symmetric, &bench.next.key);
    assert!(bench.receive(&mut device, &next).is_ok());
    assert!(device.holds(TrustAnchorCell::ROOT, third.root_oca()));
}

#[test]
fn a_contingency_command_with_anything_wrong_is_discarded_and_changes_nothing() {
    let bench = Contingency::new();
    let approved = contingency(&bench.renewal).unwrap();
    let (symmetric, key) = (&bench.held.symmetric, &bench.held.key);
    let mut device = bench.device();
    let mut check = |command: &[u8], expected: fn(&Refusal) -> bool| {
        let refusal = bench.receive(&mut device, command).unwrap_err();
        assert!(expected(&refusal), "{refusal}");
        assert!(device.holds(TrustAnchorCell::ROOT, bench.lab.root_oca()));
        assert!(device.holds(CELLS[0].cell, &bench.lab.before()[0]));
    };
    check(&Contingency::command(&approved, 0, symmetric, key), |refusal| {
        *refusal == Refusal::Replay { stored: 0, found: 0 }
    });
    check(&Contingency::command(&approved, 1, &bench.next.symmetric, key), |refusal| {
        matches!(refusal, Refusal::Unwrap(UnwrapError::Integrity { .. }))
    });
    let short = SymmetricKey::new(&symmetric.octets()[..16]).unwrap();
    check(&Contingency::command(&approved, 1, &short, key), |refusal| {
        matches!(refusal, Refusal::Unwrap(UnwrapError::KeyLength { .. }))
    });
    for other in [&bench.next.key, &bench.recovery_key] {
        check(&Contingency::command(&approved, 1, symmetric, other), |refusal| {
            *refusal == Refusal::ContingencySignature
        });
    }
    check(&Contingency::filled(&approved, 1, symmetric), |refusal| *refusal == Refusal::NotSigned);
    // Without a key in its place it is no Command.
    let mut unfilled = Vec::new();
    approved.fill(ORIGINATOR, ID, 1, &mut unfilled).unwrap();
    let signature = key.sign(&unfilled[1..]).unwrap();
    finish(&mut unfilled, &signature);
    check(&unfilled, |refusal| matches!(refusal, Refusal::Malformed(_)));
    // The key of mode 9 in mode 8, and an authorising cell of the other mode.
    let recovery = template(&bench.lab, &bench.recovery, bench.lab.after()).unwrap();
    let mut by_contingency = Vec::new();
    recovery.fill(Names::new().recovery_party, ID, 7001, &mut by_contingency).unwrap();
    let signature = key.sign(&by_contingency[1..]).unwrap();
    finish(&mut by_contingency, &signature);
    check(&by_contingency, |refusal| *refusal == Refusal::Signature);
    let mut other_cell = Contingency::filled(&approved, 1, symmetric);
    let root_cell = [0xA2, 7, 2, 1, 0, 3, 2, 2, 4];
    let at = other_cell.windows(9).position(|window| window == root_cell).unwrap();
    other_cell[at..at + 9].copy_from_slice(&[0xA2, 7, 2, 1, 1, 3, 2, 7, 0x80]);
    let signature = key.sign(&other_cell[1..]).unwrap();
    finish(&mut other_cell, &signature);
    check(&other_cell, |refusal| matches!(refusal, Refusal::AuthorisingCell { .. }));
}

#[test]
fn a_device_whose_root_carries_no_wrapped_key_takes_no_contingency_command() {
    let bench = Contingency::new();
    let plain = lab();
    let (recovery, _) = recovery(&plain);
    let mut device = Device::make(ID, 7000, &Made::new(&plain, &recovery), &plain).unwrap();
    let refusal = bench.receive(&mut device, &bench.right(1)).unwrap_err();
    assert_eq!(refusal, Refusal::NoContingencyKey(ApexError::Absent));
}

#[test]
fn a_root_that_is_none_stays_out_and_with_it_all_that_hangs_on_it() {
    let bench = Contingency::new();
    let mut device = bench.device();
    let renewed = contingency(&bench.renewal).unwrap();
    let mut update = renewed.update();
    update.replacements[0].certificate = bench.renewal.issuing_oca().octets();
    let template = Template::from_update(&update).unwrap();
    let command = Contingency::command(&template, 1, &bench.held.symmetric, &bench.held.key);
    let response = bench.receive(&mut device, &command).unwrap();
    let expected = Expected::from_command(&command).unwrap();
    let Verdict::NotRecovered(cells) = expected.judge(&response, device.public().point()) else { panic!("recovered") };
    let mut statuses = vec![StatusCode::NoTrustAnchor; 9];
    statuses[0] = StatusCode::BadCertificate;
    assert_eq!(cells.iter().map(|cell| cell.status).collect::<Vec<_>>(), statuses);
    assert!(device.holds(TrustAnchorCell::ROOT, bench.lab.root_oca()));
}

#[test]
fn recovery_does_not_put_in_a_root_to_which_nothing_leads() {
    let bench = Contingency::new();
    let mut device = bench.device();
    let approved = template(&bench.lab, &bench.recovery, bench.lab.after()).unwrap();
    let mut update = approved.update();
    update
        .replacements
        .push(Replacement { certificate: bench.renewal.root_oca().octets(), cell: TrustAnchorCell::ROOT });
    let mut command = Vec::new();
    let template = Template::from_update(&update).unwrap();
    template.fill(Names::new().recovery_party, ID, 7001, &mut command).unwrap();
    let signature = bench.recovery_key.sign(&command[1..]).unwrap();
    finish(&mut command, &signature);
    let response = bench.receive(&mut device, &command).unwrap();
    let Verdict::NotRecovered(cells) =
        Expected::from_command(&command).unwrap().judge(&response, device.public().point())
    else {
        panic!("recovered")
    };
    assert_eq!(cells.last().map(|cell| cell.status), Some(StatusCode::NoTrustAnchor));
    assert!(device.holds(TrustAnchorCell::ROOT, bench.lab.root_oca()));
}
