use super::*;
use crate::domain::determination::people::Role;
use crate::domain::names::Purpose;

#[test]
fn the_policy_is_one_for_an_exercise_with_the_people_who_were_made() {
    let (now, lab) = (super::super::lab::tests::now(), super::super::lab::tests::lab());
    let people = People::new(now).unwrap();
    let files = files(&lab, &people, &"somebody".parse().unwrap(), now);
    let policy = read(&files).unwrap_or_else(|faults| panic!("{faults:#?}"));
    assert_eq!(policy.purpose(), Purpose::Exercise);
    let quorum = policy.quorum(now).unwrap();
    assert_eq!((quorum.approvals() as usize, quorum.of() as usize), (APPROVALS, people.members.len()));
    let first = &people.members[0];
    for credential in first.credentials() {
        assert_eq!(policy.person_by_spki(&credential.spki).unwrap().id, first.id);
    }
    assert_eq!(policy.person_by_account("somebody").unwrap().id, Names::new().proposer);
    assert_eq!(policy.roster(Role::Operator, now).count(), 1);
}
