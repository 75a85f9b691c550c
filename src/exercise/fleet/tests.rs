use super::*;
use crate::domain::gbcs::finish;
use crate::exercise::lab::tests::{lab, now};
use crate::exercise::policy::Names;
use crate::exercise::template::template;
use crate::exercise::template::tests::recovery;

#[test]
fn all_devices_are_recovered_whatever_the_order_and_a_stranger_is_not() {
    let lab = lab();
    let (certificate, key) = recovery(&lab);
    let mut fleet = Fleet::make(&lab, &certificate, 7).unwrap();
    let ids: Vec<_> = fleet.devices().iter().map(Device::id).collect();
    assert!(ids.is_sorted());
    let template = template(&lab, &certificate, lab.after()).unwrap();
    let command = |id: DeviceId, counter| {
        let mut command = Vec::new();
        template.fill(Names::new().recovery_party, id, counter, &mut command).unwrap();
        let signature = key.sign(&command[1..]).unwrap();
        finish(&mut command, &signature);
        (id, command)
    };
    let stranger = device_id(99);
    let mut commands: Vec<_> = ids.iter().rev().map(|id| command(*id, 8000)).collect();
    commands.insert(3, command(stranger, 8000));
    let deliveries = fleet.deliver_all(&commands, now());
    assert_eq!(deliveries.len(), 8);
    let recovered: Vec<_> = deliveries.iter().filter(|delivery| delivery.is_recovered()).map(|d| d.device).collect();
    assert_eq!(recovered, ids);
    assert_eq!(deliveries[7].answer, Err(Refusal::Absent));
    // A replay, and another Device's command.
    assert!(!fleet.deliver(ids[0], &commands[7].1, now()).is_recovered());
    assert!(!fleet.deliver(ids[0], &command(ids[1], 9000).1, now()).is_recovered());
    assert!(fleet.deliver(ids[0], &command(ids[0], 9000).1, now()).is_recovered());
}

#[test]
fn keys_are_not_shared_and_the_list_is_canonical() {
    let lab = lab();
    let (certificate, _) = recovery(&lab);
    let fleet = Fleet::make(&lab, &certificate, 3).unwrap();
    let keys: std::collections::HashSet<_> = fleet.devices().iter().map(|device| *device.public()).collect();
    assert_eq!(keys.len(), 3);
    let list = fleet.device_list(&"esme".parse().unwrap(), fleet.devices());
    assert_eq!(list, "02DE1CE000000001,esme,7001\n02DE1CE000000002,esme,7002\n02DE1CE000000003,esme,7003\n");
    // No Contingency command reached them yet.
    let list = fleet.contingency_list(&"esme".parse().unwrap(), &fleet.devices()[..1]);
    assert_eq!(list, "02DE1CE000000001,esme,0\n");
}
