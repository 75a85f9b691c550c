use super::*;
use crate::domain::determination::document::Document;
use crate::domain::names::PartyId;
use crate::domain::policy::Activation;
use crate::exercise::lab::tests::{lab, now};
use crate::exercise::people::People;
use crate::exercise::policy;
use crate::exercise::template::template;
use crate::exercise::template::tests::recovery;

#[test]
fn a_determination_is_drafted_within_the_policy() {
    let (lab, people) = (lab(), People::new(now()).unwrap());
    let policy =
        policy::read(&policy::files(&lab, &people, &"somebody".parse().unwrap(), Activation::Stored, now())).unwrap();
    let (certificate, _) = recovery(&lab);
    let names = policy::Names::new();
    let drafter = Drafter {
        proposer: names.proposer,
        policy: &policy,
        incident: "INC-1".parse().unwrap(),
        compromised: Compromised {
            certificate_sha256: lab.before()[0].sha256(),
            spki_sha256: lab.before()[0].spki_sha256(),
            party: PartyId(crate::domain::names::Eui64([1; 8])),
        },
        key: KeyChosen { label: names.recovery_key, spki_sha256: certificate.spki_sha256() },
        also_weighed: None,
    };
    let name: TemplateName = "esme".parse().unwrap();
    let scope = Scope {
        decision_number: 1,
        method: Method::NewOrganisationCertificates,
        name: &name,
        template: &template(&lab, &certificate, lab.after()).unwrap(),
        devices: "02DE1CE000000001,esme,7001\n02DE1CE000000002,esme,7002\n",
        window: Window { from: now(), until: now().plus_ms(1_000) },
        retries_of_unknown: 2,
    };
    let head = LedgerHead { origin: policy.origin().clone(), size: 7, root: Digest([7; 32]) };
    let document = drafter.determination(head.clone(), &scope).unwrap();
    assert_eq!(
        crate::domain::policy::admission::determination(
            &policy,
            &document,
            crate::domain::policy::admission::Recorded::default(),
            now(),
            now()
        ),
        []
    );
    assert_eq!(document.form().limits.unwrap().intents, 6);
    assert_eq!(document.form().devices.unwrap().sha256, Digest::of(scope.devices.as_bytes()));

    for about in [
        drafter.suspension(&document, &people.members[3].id, head.clone()).unwrap().octets(),
        drafter.withdrawal(&document, head).unwrap().octets(),
    ] {
        Document::read(about).unwrap();
    }
}

#[test]
fn a_list_that_is_not_canonical_is_not_drafted() {
    let name = "esme".parse().unwrap();
    let refused = device_list("02DE1CE000000002,esme\n02DE1CE000000001,esme\n", &name);
    assert!(matches!(refused, Err(DocumentError::Devices(_))));
    assert_eq!(device_list("02DE1CE000000001,esme\n", &name).unwrap().count, 1);
}
