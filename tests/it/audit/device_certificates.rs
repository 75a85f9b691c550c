//! Certificates of Devices that were imported, and the Responses that rest on them: judged again, and forged.

use smkid::domain::ledger::entry::{CertificateTally, DeviceCertificatesImported, ResponsesTaken};
use smkid::domain::responses::messages::Messages;

use super::device_responses::{Answers, answers};
use super::*;

/// An import of these; `change` departs from the truth.
fn import(
    forge: &mut Forge<'_>,
    certificates: &[Vec<u8>],
    change: impl FnOnce(&mut DeviceCertificatesImported),
) -> u64 {
    let tally = CertificateTally { imported: certificates.len() as u64, known: 3, refused: 1 };
    let mut imported = DeviceCertificatesImported { certificates: forge.blob_of(certificates.concat()), tally };
    change(&mut imported);
    forge.push(Event::DeviceCertificatesImported(imported))
}

/// The answers taken in without a certificate of their own.
fn take(forge: &mut Forge<'_>, answers: Answers, change: impl FnOnce(&mut String, &mut ResponsesTaken)) -> u64 {
    let Answers { messages, certificates: _, mut results } = answers;
    let mut taken = ResponsesTaken {
        incident: "INC-1".parse().unwrap(),
        profile: None,
        determination: forge.fixture.determination,
        responses: forge.blob_of(Messages::split(messages.concat()).unwrap().into_kept()),
        certificates: forge.blob_of(Vec::new()),
        imported_before: Some(forge.size()),
        results: Digest([0; 32]),
        tally: ResponseTally { recovered: 1, failed: 1, ..ResponseTally::default() },
    };
    change(&mut results, &mut taken);
    taken.results = forge.blob_of(results.into_bytes());
    forge.push(Event::ResponsesTaken(taken))
}

#[test]
fn responses_that_rest_on_imported_certificates_verify_and_on_none_that_came_later() {
    let fixture = Fixture::new();
    let mut forge = fixture.forge("first job");
    let all = answers(&forge, FIRST);
    import(&mut forge, &all.certificates, |_| {});
    take(&mut forge, all, |_, _| {});
    let (status, out, err) = Export::of(&fixture, &forge).verify();
    assert_eq!((status, err.as_str()), (0, ""), "{out}");

    forged(&fixture, "first job", "unverified,no certificate of the Device was given or imported before", |forge| {
        let all = answers(forge, FIRST);
        let at = import(forge, &all.certificates, |_| {});
        take(forge, all, |_, taken| taken.imported_before = Some(at))
    });
    forged(&fixture, "first job", "unverified,no certificate of the Device was given,", |forge| {
        let all = answers(forge, FIRST);
        import(forge, &all.certificates, |_| {});
        // Those of older versions knew of no import.
        take(forge, all, |results, taken| {
            taken.imported_before = None;
            results.insert(0, 'x');
        })
    });
    forged(&fixture, "first job", "imported_before: expected at most", |forge| {
        let all = answers(forge, FIRST);
        import(forge, &all.certificates, |_| {});
        let next = forge.size() + 1;
        take(forge, all, |_, taken| taken.imported_before = Some(next))
    });
}

#[test]
fn an_import_of_what_no_device_ca_vouches_for_or_of_what_was_known_is_found() {
    let fixture = Fixture::new();
    let check = |expected: &str, forgery: fn(&mut Forge<'_>) -> u64| forged(&fixture, "first job", expected, forgery);
    check("certificate 2 of those imported: ", |forge| {
        let mut all = answers(forge, FIRST).certificates;
        // The last octet is one of the Device CA's signature.
        *all[1].last_mut().unwrap() ^= 1;
        import(forge, &all, |_| {})
    });
    check("certificate 1 of those imported: it was known before", |forge| {
        let all = answers(forge, FIRST).certificates;
        import(forge, &all, |_| {});
        import(forge, &all, |_| {})
    });
    check("certificate 2 of those imported: it was known before", |forge| {
        let all = answers(forge, FIRST).certificates;
        import(forge, &[all[0].clone(), all[0].clone()], |_| {})
    });
    check("expected 2 imported, found 3", |forge| {
        let all = answers(forge, FIRST).certificates;
        import(forge, &all, |imported| imported.tally.imported = 3)
    });
    check("expected a certificate in DER", |forge| {
        let mut all = answers(forge, FIRST).certificates;
        all.push(vec![0x30, 0x82, 1]);
        import(forge, &all, |_| {})
    });
    check("expected it to be asked for by operator", |forge| {
        let all = answers(forge, FIRST).certificates;
        let index = import(forge, &all, |_| {});
        let event = forge.entry(index).event;
        forge.cut(index);
        forge.push_by(Actor::daemon(), event)
    });
}
