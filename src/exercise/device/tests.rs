use super::*;
use crate::domain::certificates::profile::HARDWARE_MODULE_NAME;
use crate::domain::gbcs::proof::{Expected, Verdict};
use crate::domain::gbcs::{SeqNumber, Template};
use crate::exercise::lab::tests::{lab, now};
use crate::exercise::policy::Names;
use crate::exercise::template::tests::recovery;
use crate::exercise::template::{template, with_certificate_swapped};

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
