use super::*;

#[test]
fn every_key_that_may_be_compromised_has_its_way_out_and_none_uses_the_key_itself() {
    let by_recovery = [Method::AcbCertificates, Method::NewOrganisationCertificates];
    for (key, methods) in [
        (None, &[Method::SubscriberKey, Method::AcbCertificates, Method::NewOrganisationCertificates][..]),
        (Some(OtherKey::RootOca), &[Method::Contingency]),
        (
            Some(OtherKey::IssuingOca),
            &[Method::SubscriberKey, Method::AcbCertificates, Method::NewOrganisationCertificates],
        ),
        (Some(OtherKey::Recovery), &[Method::Contingency]),
        (Some(OtherKey::Contingency), &[Method::SubscriberKey]),
        (Some(OtherKey::ContingencySymmetric), &[Method::SubscriberKey]),
    ] {
        assert_eq!(of(key).methods, methods, "{key:?}");
    }
    assert!(by_recovery.iter().all(|method| !of(Some(OtherKey::Recovery)).methods.contains(method)));
    for key in [OtherKey::Contingency, OtherKey::ContingencySymmetric] {
        assert!(!of(Some(key)).methods.contains(&Method::Contingency), "{key}");
    }
}

#[test]
fn the_duty_of_a_spent_key_names_it_and_is_known_again() {
    let duty = replacement_of(&"contingency-1".parse().unwrap());
    assert_eq!(duty.duty.as_str(), "replace-contingency-1");
    // The longest label there is.
    assert_eq!(replacement_id(&"k".repeat(32).parse().unwrap()).as_str().len(), 40);
    assert!(duty.text.contains("what took the place of contingency-1"), "{}", duty.text);
    // Nothing else takes that step of the procedure, and an incident is not closed before it.
    assert_eq!(duty.step.unwrap().as_str(), "replace-spent-material");
}
