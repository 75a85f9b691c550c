use super::*;
use crate::domain::determination::document::{DeviceList, Payload};
use crate::domain::names::AccountName;
use crate::domain::policy::Activation;
use crate::exercise::lab::tests::{generation, lab, now};
use crate::exercise::people::People;
use crate::exercise::policy;
use crate::exercise::template::tests::recovery;
use crate::exercise::template::{contingency as command, template};

/// What can be wrong with a command that replaces the root.
const OF_CONTINGENCY: [&str; 7] =
    ["mode", "root-not-first", "root-without-key", "other-new-root", "floor-missing", "old-root-left", "no-path"];

#[test]
fn a_contingency_command_is_warned_of_by_what_it_does_to_the_root_and_a_good_one_is_not() {
    let lab = lab();
    let (recovery, _) = recovery(&lab);
    let account: AccountName = "operator".parse().unwrap();
    let files = policy::files(&lab, &People::new(now()).unwrap(), &account, Activation::Stored, now());
    let policy = policy::read(&files).unwrap();
    let renewal = lab.renew(Some(generation().wrapped), &recovery).unwrap();
    let next_root = Some(renewal.root_oca().sha256());
    let check = |template: &Template, next_root, expected: &[&str]| {
        let name: TemplateName = "esme".parse().unwrap();
        let list = crate::exercise::documents::device_list("02DE1CE000000001,esme,0\n", &name);
        let devices: DeviceList = list.unwrap();
        let templates = [DocumentTemplate { name, payload: Payload::new(template.octets()).unwrap() }];
        let limits = Limits { intents: 1, per_hour: 1, retries_of_unknown: 0, retry_by_itself: false };
        let looking = Looking {
            method: Some(Method::Contingency),
            compromised: None,
            compromised_certificate: None,
            next_root,
            counter_start: Some(0),
            window: None,
            policy: Some(&policy),
            devices: None,
            now: now(),
        };
        let found = of_scope(&Scope { templates: &templates, devices, limits }, &looking);
        let found: Vec<_> = found.iter().map(Warning::name).filter(|name| OF_CONTINGENCY.contains(name)).collect();
        assert_eq!(found, expected);
    };
    let good = command(&renewal).unwrap();
    check(&good, next_root, &[]);
    check(&good, None, &[]);
    check(&good, Some(Digest([9; 32])), &["other-new-root"]);
    let bare = lab.renew(None, &recovery).unwrap();
    check(&command(&bare).unwrap(), Some(bare.root_oca().sha256()), &["root-without-key"]);

    let changed = |change: &dyn Fn(&mut Update<'_>), expected: &[&str]| {
        let mut update = good.update();
        change(&mut update);
        check(&Template::from_update(&update).unwrap(), next_root, expected);
    };
    changed(&|update| update.new_floor = None, &["floor-missing"]);
    changed(&|update| update.other_changes.as_mut().unwrap().truncate(3), &["floor-missing"]);
    changed(&|update| update.replacements.truncate(8), &["old-root-left"]);
    changed(&|update| update.path_certificates.clear(), &["no-path"; 8]);
    // Where the root is not first, nothing is known to lead anywhere: the roots of the policy are the old ones.
    let not_first = [&["root-not-first"][..], &["no-path"; 8]].concat();
    changed(&|update| update.replacements.rotate_left(1), &not_first);
    let by_recovery = template(&lab, &recovery, lab.after()).unwrap();
    let mut update = by_recovery.update();
    update.replacements.truncate(1);
    let by_recovery = Template::from_update(&update).unwrap();
    check(&by_recovery, next_root, &["mode", "root-not-first", "old-root-left"]);
}
