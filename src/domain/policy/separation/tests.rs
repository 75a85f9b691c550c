use super::*;

#[test]
fn a_part_may_be_taken_again_and_no_other_beside_it() {
    let parts = [Part::Approver, Part::Aro, Part::Custodian, Part::Operator];
    let (one, two): (PersonId, PersonId) = ("one".parse().unwrap(), "two".parse().unwrap());
    for before in parts {
        let mut taken = PartsTaken::default();
        taken.take(&one, before);
        for now in parts {
            assert_eq!(taken.check(&one, now).is_ok(), before == now, "{before} then {now}");
            assert_eq!(taken.check(&two, now), Ok(()));
        }
        assert_eq!(taken.iter().collect::<Vec<_>>(), [(&one, before)]);
    }
}
