use super::super::tests::{changed, example, policy};
use super::*;
use crate::domain::determination::document::tests::{id, written};

fn now() -> Timestamp {
    "2027-01-01T00:00:00Z".parse().unwrap()
}

fn first(policy: &Policy) -> Adoption {
    Adoption {
        r#type: Type::new(),
        purpose: policy.purpose(),
        origin: policy.origin().clone(),
        sequence: 1,
        policy: policy.digest(),
        predecessor: None,
        ledger: None,
        carries_over: Vec::new(),
    }
}

fn next(old: &Policy, new: &Policy) -> Adoption {
    Adoption {
        sequence: 2,
        predecessor: Some(old.digest()),
        ledger: Some(Head { size: 7, root: Digest([7; 32]) }),
        carries_over: vec![id(1)],
        ..first(new)
    }
}

/// Signatures of these members of `policy` over the adoption.
fn signed(adoption: &Written<Adoption>, policy: &Policy, members: &[u8]) -> Vec<Signature> {
    let key = |n: u8| policy.people().person(&format!("member-{n}").parse().unwrap()).unwrap().keys[0];
    let one = |&n: &u8| Signature { spki: key(n), signed: adoption.digest(), p7s: Digest([n; 32]) };
    members.iter().map(one).collect()
}

fn judge(
    adoption: &Adoption,
    old: Option<(&Policy, u32)>,
    new: &Policy,
    signatures: &[Signature],
) -> Result<Adopted, Vec<AdoptionRefusal>> {
    let is_prefix = |head: &Head| head.size == 7;
    let determinations = BTreeSet::from([id(1)]);
    let facts = Facts { old, new, determinations: &determinations, is_prefix: &is_prefix, signatures, at: now() };
    check(&written(adoption), &facts)
}

fn reasons(found: Result<Adopted, Vec<AdoptionRefusal>>) -> Vec<String> {
    found.unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn the_first_policy_is_signed_by_everyone_on_its_roster() {
    let new = policy(&example());
    let adoption = first(&new);
    let document = written(&adoption);
    let all = signed(&document, &new, &[1, 2, 3, 4, 5]);
    assert_eq!(judge(&adoption, None, &new, &all).unwrap().new.len(), 5);
    assert_eq!(
        reasons(judge(&adoption, None, &new, &all[..4])),
        ["member-5 is a pma-member of the first policy and has not signed; everyone on its roster must"]
    );
    let none = reasons(judge(&adoption, None, &new, &[]));
    assert!(none[0].contains("expected approvals of 3 persons, found 0"), "{none:?}");
}

#[test]
fn a_later_policy_needs_the_quorum_of_the_old_and_of_the_new() {
    let old = policy(&example());
    let new = policy(&changed("policy.toml", "approvals = 3", "approvals = 4"));
    let adoption = next(&old, &new);
    let document = written(&adoption);
    let judge = |members: &[u8]| judge(&adoption, Some((&old, 1)), &new, &signed(&document, &old, members));
    let adopted = judge(&[1, 2, 3, 4]).unwrap();
    assert_eq!((adopted.sequence, adopted.old.unwrap().len(), adopted.new.len()), (2, 4, 4));
    assert_eq!(reasons(judge(&[1, 2, 3])), ["the new policy: expected approvals of 4 persons, found 3"]);
    assert_eq!(reasons(judge(&[1, 2])).len(), 2);
}

#[test]
fn those_whom_the_new_policy_leaves_out_cannot_be_left_out_by_the_others_alone() {
    let old = policy(&example());
    // member-1 gives place to somebody with another key: of the old members only four count under the new.
    let key = old.people().person(&"member-1".parse().unwrap()).unwrap().keys[0];
    let new = policy(&changed("persons.toml", &key.to_string(), &Digest([0xAA; 32]).to_string()));
    let adoption = next(&old, &new);
    let document = written(&adoption);
    let mut signatures = signed(&document, &old, &[2, 3]);
    signatures.push(Signature { spki: Digest([0xAA; 32]), signed: document.digest(), p7s: Digest([9; 32]) });
    let found = reasons(judge(&adoption, Some((&old, 1)), &new, &signatures));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("the policy in force: expected approvals of 3 persons, found 2"), "{found:?}");
    signatures.extend(signed(&document, &old, &[4]));
    assert!(judge(&adoption, Some((&old, 1)), &new, &signatures).is_ok());
}

#[test]
fn every_reason_is_given_and_not_only_the_first() {
    let old = policy(&example());
    let new = policy(&changed("policy.toml", "\"live\"", "\"exercise\""));
    let adoption = Adoption {
        origin: "elsewhere".parse().unwrap(),
        sequence: 4,
        policy: Digest([1; 32]),
        predecessor: Some(Digest([2; 32])),
        ledger: Some(Head { size: 8, root: Digest([8; 32]) }),
        carries_over: vec![id(9)],
        ..next(&old, &new)
    };
    let found = reasons(judge(&adoption, Some((&old, 2)), &new, &[]));
    assert_eq!(found.len(), 9, "{found:#?}");
    for (reason, expected) in found.iter().zip([
        "the adoption is exercise, the new policy exercise, the policy in force live",
        "the adoption is for elsewhere",
        "the adoption names policy 0101",
        "sequence: expected 3, found 4",
        "predecessor: expected",
        "the ledger head of size 8",
        "determination 0909",
        "the policy in force: expected approvals of 3 persons, found 0",
        "the new policy: expected approvals of 3 persons, found 0",
    ]) {
        assert!(reason.starts_with(expected), "expected {expected:?}, found {reason}");
    }
}

#[test]
fn the_first_policy_is_not_adopted_twice_and_a_later_one_is_none_without_a_first() {
    let one = policy(&example());
    let (first, next) = (first(&one), next(&one, &one));
    let sign = |adoption: &Adoption| signed(&written(adoption), &one, &[1, 2, 3, 4, 5]);
    let found = reasons(judge(&first, Some((&one, 1)), &one, &sign(&first)));
    assert!(found[0].contains("sequence: expected 2, found 1") && found[1].contains("predecessor"), "{found:?}");
    let found = reasons(judge(&next, None, &one, &sign(&next)));
    assert!(found[0].contains("sequence: expected 1, found 2") && found[1].contains("expected none"), "{found:?}");
}

#[test]
fn an_adoption_says_null_where_the_first_has_nothing_and_leaves_nothing_out() {
    let new = policy(&example());
    let text = String::from_utf8(written(&first(&new)).octets().to_vec()).unwrap();
    assert!(text.contains("\"predecessor\": null") && text.contains("\"ledger\": null"));
    for line in ["  \"predecessor\": null,\n", "  \"ledger\": null,\n"] {
        let cut = text.replace(line, "");
        assert!(Written::<Adoption>::read(cut.into_bytes()).unwrap_err()[0].to_string().contains("missing field"));
    }
    let wrong = |form: Adoption| Written::write(&form).unwrap_err().len();
    assert_eq!(wrong(Adoption { sequence: 0, ..first(&new) }), 3);
    assert_eq!(wrong(Adoption { sequence: 2, ..first(&new) }), 2);
    assert_eq!(wrong(Adoption { sequence: 1, ..next(&new, &new) }), 3);
    assert_eq!(wrong(Adoption { carries_over: vec![id(1), id(1)], ..next(&new, &new) }), 1);
}
