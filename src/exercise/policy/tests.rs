use super::*;
use crate::domain::determination::people::Role;
use crate::domain::names::Purpose;

#[test]
fn the_policy_is_one_for_an_exercise_with_the_people_who_were_made() {
    let (now, lab) = (super::super::lab::tests::now(), super::super::lab::tests::lab());
    let people = People::new(now).unwrap();
    let somebody = "somebody".parse().unwrap();
    for activation in [Activation::Stored, Activation::Custodians] {
        let files = files(&lab, &people, &somebody, activation, now);
        let policy = read(&files).unwrap_or_else(|faults| panic!("{faults:#?}"));
        assert_eq!(policy.key(&Names::new().recovery_key).unwrap().activation, activation);
        assert_eq!(policy.key(&Names::new().ledger_key).unwrap().activation, Activation::Stored);
    }
    let policy = read(&files(&lab, &people, &somebody, Activation::Custodians, now)).unwrap();
    assert_eq!(policy.purpose(), Purpose::Exercise);
    let quorum = policy.quorum(now).unwrap();
    assert_eq!((quorum.approvals() as usize, quorum.of() as usize), (APPROVALS, people.members.len()));
    let first = &people.members[0];
    for credential in first.credentials() {
        assert_eq!(policy.person_by_spki(&credential.spki).unwrap().id, first.id);
    }
    assert_eq!(policy.person_by_account("somebody").unwrap().id, Names::new().proposer);
    assert_eq!(policy.roster(Role::Operator, now).count(), 1);
    // Any two of the Key Custodians are of two Parties, and each can sign a statement.
    let custodians: Vec<_> = people.custodians.iter().map(|one| policy.people().person(&one.id).unwrap()).collect();
    let parties: std::collections::BTreeSet<_> = custodians.iter().map(|person| &person.party).collect();
    assert_eq!((custodians.len(), parties.len()), (people.custodians.len(), people.custodians.len()));
    for custodian in &people.custodians {
        assert_eq!(policy.person_by_spki(&custodian.first.spki).unwrap().id, custodian.id);
    }
    // The Supplier whose certificate is compromised has an ARO who may sign for it, and others who may not.
    let affected = super::super::lab::party_of(&lab.before()[0]);
    assert_eq!(policy.parties().of(affected).unwrap().id.as_str(), AFFECTED);
    let officers: Vec<_> = people.officers.iter().map(|officer| policy.people().person(&officer.id).unwrap()).collect();
    let of_affected: Vec<bool> = officers.iter().map(|person| person.party.as_str() == AFFECTED).collect();
    assert_eq!(of_affected, [true, false, true, true, false]);
    let good: Vec<bool> = officers.iter().map(|person| person.records.credential_fault(now).is_none()).collect();
    assert_eq!(good, [true, true, false, true, true]);
    let in_force: Vec<bool> = officers.iter().map(|person| person.window.contains(now)).collect();
    assert_eq!(in_force, [true, true, true, false, true]);
    assert_eq!(officers[super::super::people::DCC_OFFICER].party.as_str(), DCC);
}
