//! Detached CMS signatures against openssl, both ways, and against everything that must be refused.

use secrecy::SecretString;
use smkid::domain::certificates::person::{PersonFault, check_person_certificate};
use smkid::domain::certificates::{Certificate, pem};
use smkid::domain::determination::cms::{CmsError, Ess, P7S_LEN_MAX, SignerFault, assemble, signed_attributes, verify};
use smkid::domain::names::Digest;
use smkid::domain::time::Timestamp;
use smkid::hsm::signer::{PemSigner, PersonSigner, SignerError};
use zeroize::Zeroizing;

use crate::lab::Scratch;

const DOCUMENT: &[u8] = b"{\"decision\":\"execute\"}\n";
const SIGN: &str = "cms -sign -binary -outform DER -in document";
const STRICT: &str = "-cades -md sha256 -nosmimecap";

/// A CA, the members anna and bert below it, and the document; all of openssl's making.
struct People(Scratch);

impl People {
    fn new() -> Self {
        let people = Self(Scratch::new());
        people.0.write("document", DOCUMENT);
        people.0.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 3650 \
             -subj /CN=PMA-CA -addext keyUsage=critical,keyCertSign",
        );
        people.member("anna", "ec -pkeyopt ec_paramgen_curve:P-256", "");
        people.member("bert", "ec -pkeyopt ec_paramgen_curve:P-256", "");
        people
    }

    /// Makes `NAME.key` and `NAME.pem`.
    fn member(&self, name: &str, key: &str, days: &str) {
        self.0.openssl(&format!("req -newkey {key} -nodes -keyout {name}.key -out {name}.csr -subj /O=PMA/CN={name}"));
        self.0.write("leaf.ext", "keyUsage=critical,digitalSignature\nsubjectKeyIdentifier=hash\n");
        let days = if days.is_empty() { "-days 365" } else { days };
        self.0.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile leaf.ext {days} -out {name}.pem"
        ));
    }

    fn certificate(&self, name: &str) -> Certificate {
        pem::certificate(&self.0.text(&format!("{name}.pem"))).unwrap()
    }

    fn sign(&self, name: &str, options: &str) -> Vec<u8> {
        self.0.openssl(&format!("{SIGN} -signer {name}.pem -inkey {name}.key {options} -out {name}.p7s"));
        self.0.read(&format!("{name}.p7s"))
    }

    fn signer(&self, name: &str) -> PemSigner {
        let key = Zeroizing::new(self.0.text(&format!("{name}.key")));
        PemSigner::from_pem(&key, self.certificate(name), || panic!("no passphrase is needed")).unwrap()
    }

    /// Anna's signature as we write it.
    fn ours(&self) -> Vec<u8> {
        let signer = self.signer("anna");
        let attributes = signed_attributes(&Digest::of(DOCUMENT), signer.certificate(), now()).unwrap();
        assemble(&attributes, &signer.sign(&attributes).unwrap(), signer.certificate(), &[]).unwrap()
    }
}

/// Within the validity of what openssl has just made: half a day from now.
fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_unix_ms(i64::try_from(since.as_millis()).unwrap()).unwrap().plus_ms(12 * 3600 * 1000)
}

#[track_caller]
fn refusal(p7s: &[u8], document: &[u8]) -> CmsError {
    verify(p7s, document, Ess::Required).unwrap_err()
}

#[track_caller]
fn signer_fault(p7s: &[u8], document: &[u8]) -> SignerFault {
    match refusal(p7s, document) {
        CmsError::Signer { fault, .. } => fault,
        other => panic!("{other}"),
    }
}

#[test]
fn what_openssl_signs_is_accepted_with_and_without_capabilities_and_by_key_identifier() {
    let people = People::new();
    let anna = people.certificate("anna");
    for options in [STRICT, "-cades -md sha256", "-cades -md sha256 -keyid", "-cades", "-cades -certfile ca.pem"] {
        let verified = verify(&people.sign("anna", options), DOCUMENT, Ess::Required).unwrap();
        assert_eq!(verified.signers.len(), 1, "{options}");
        let signer = &verified.signers[0];
        assert_eq!(signer.certificate, anna, "{options}");
        assert_eq!(signer.spki_sha256(), Digest::of(anna.spki()));
        assert!(signer.claimed_signing_time.is_some());
        let anchors = [people.certificate("bert"), people.certificate("ca")];
        let named = check_person_certificate(&signer.certificate, &verified.certificates, &anchors, now()).unwrap();
        assert_eq!(named, &anchors[1]);
    }
    assert_eq!(anna.subject_text(), "O=PMA, CN=anna");
}

#[test]
fn pem_is_read_as_der_is() {
    let people = People::new();
    people.sign("anna", STRICT);
    people.0.openssl("cms -cmsout -inform DER -in anna.p7s -outform PEM -out anna.txt");
    assert_eq!(verify(&people.0.read("anna.txt"), DOCUMENT, Ess::Required).unwrap().signers.len(), 1);
    people.0.openssl("cms -cmsout -inform DER -in anna.p7s -outform SMIME -out anna.mime");
    assert_eq!(refusal(&people.0.read("anna.mime"), DOCUMENT), CmsError::Smime);
}

#[test]
fn two_signers_in_one_file_are_two_and_one_key_twice_is_refused() {
    let people = People::new();
    people.sign("anna", STRICT);
    let resign = "cms -resign -binary -inform DER -in anna.p7s -outform DER -cades -md sha256 -nosmimecap";
    people.0.openssl(&format!("{resign} -signer bert.pem -inkey bert.key -out both.p7s"));
    let both = verify(&people.0.read("both.p7s"), DOCUMENT, Ess::Required).unwrap();
    let mut keys: Vec<_> = both.signers.iter().map(|signer| signer.certificate.subject_text()).collect();
    keys.sort();
    assert_eq!(keys, ["O=PMA, CN=anna", "O=PMA, CN=bert"]);

    // Another certificate for anna's key is anna still.
    people.0.openssl(
        "x509 -req -in anna.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile leaf.ext -days 300 -out anna2.pem",
    );
    people.0.openssl(&format!("{resign} -signer anna2.pem -inkey anna.key -out twice.p7s"));
    assert!(matches!(refusal(&people.0.read("twice.p7s"), DOCUMENT), CmsError::DuplicateSigner { .. }));

    // One that does not count spoils the file.
    people.0.openssl(
        "cms -resign -binary -inform DER -in anna.p7s -outform DER -md sha256 -signer bert.pem -inkey bert.key -out mixed.p7s",
    );
    let CmsError::Signer { of: 2, fault: SignerFault::AttributeAbsent { .. }, .. } =
        refusal(&people.0.read("mixed.p7s"), DOCUMENT)
    else {
        panic!("a signer without signing-certificate-v2 is accepted")
    };
}

#[test]
fn every_other_way_to_sign_is_refused_and_says_what_to_do() {
    let people = People::new();
    people.member("rosa", "rsa:2048", "");
    people.member("paul", "ec -pkeyopt ec_paramgen_curve:P-384", "");
    let check = |name: &str, options: &str, expected: &str| {
        let said = refusal(&people.sign(name, options), DOCUMENT).to_string();
        assert!(said.contains(expected), "{name} {options}: {said}");
    };
    check("anna", "-noattr -md sha256", "sign without -noattr");
    check("anna", "-nodetach -cades -md sha256", "sign without -nodetach");
    check("anna", "-md sha256", "sign with -cades");
    check("anna", "-cades -md sha1", "sign with -md sha256");
    check("anna", "-cades -md sha512", "sign with -md sha256");
    check("anna", "-cades -md sha256 -nocerts", "sign without -nocerts");
    check("anna", "-cades -md sha256 -stream", "sign without -stream");
    check("rosa", "-cades -md sha256", "sign with a P-256 key");
    check("paul", "-cades -md sha256", "only P-256 is used here");
    check("anna", "-cades -md sha256 -econtent_type 1.2.3.4", "id-data");
}

#[test]
fn a_missing_signing_certificate_can_be_waived_and_a_wrong_one_cannot() {
    let people = People::new();
    let plain = people.sign("anna", "-md sha256");
    let fault = signer_fault(&plain, DOCUMENT);
    assert!(matches!(fault, SignerFault::AttributeAbsent { attribute: "signing-certificate-v2", .. }), "{fault}");
    assert_eq!(verify(&plain, DOCUMENT, Ess::Waived).unwrap().signers.len(), 1);

    // Attributes that name bert's certificate, properly signed by anna.
    let signer = people.signer("anna");
    let attributes = signed_attributes(&Digest::of(DOCUMENT), &people.certificate("bert"), now()).unwrap();
    let p7s = assemble(&attributes, &signer.sign(&attributes).unwrap(), signer.certificate(), &[]).unwrap();
    for ess in [Ess::Required, Ess::Waived] {
        let said = verify(&p7s, DOCUMENT, ess).unwrap_err().to_string();
        assert!(said.contains("expected signing-certificate-v2 to name"), "{said}");
    }
}

#[test]
fn another_document_and_other_attributes_are_refused() {
    let people = People::new();
    let p7s = people.sign("anna", STRICT);
    for document in [&b"{\"decision\":\"execute\"}"[..], b"{\"decision\":\"execute\"}\r\n", b""] {
        assert!(matches!(signer_fault(&p7s, document), SignerFault::OtherDocument { .. }));
    }
    // The digest inside swapped for that of another document: the attributes are no longer those that were signed.
    let other = b"{\"decision\":\"not-execute\"}\n";
    let place = p7s.windows(32).position(|window| window == Digest::of(DOCUMENT).octets()).unwrap();
    let mut swapped = p7s.clone();
    swapped[place..place + 32].copy_from_slice(Digest::of(other).octets());
    assert!(matches!(signer_fault(&swapped, other), SignerFault::Forged { .. }));
}

#[test]
fn openssl_verifies_what_we_sign() {
    let people = People::new();
    people.0.write("ours.p7s", people.ours());
    let verify = "cms -verify -binary -inform DER -in ours.p7s -content document -CAfile ca.pem -out /dev/null";
    people.0.openssl(verify);
    people.0.openssl(&format!("{verify} -cades"));
    people.0.write("document", b"another");
    assert!(!people.0.run(verify).status.success(), "openssl verifies anything");
}

#[test]
fn we_verify_what_we_sign() {
    let people = People::new();
    let verified = verify(&people.ours(), DOCUMENT, Ess::Required).unwrap();
    assert_eq!(verified.signers[0].certificate, people.certificate("anna"));
    assert_eq!(verified.signers[0].claimed_signing_time.unwrap().unix_seconds() / 600, now().unix_seconds() / 600);
}

#[test]
fn no_flipped_bit_verifies_over_another_document_or_as_another_signer() {
    let people = People::new();
    let other = b"{\"decision\":\"not-execute\"}\n";
    for p7s in [people.ours(), people.sign("anna", "-cades -md sha256")] {
        let anna = verify(&p7s, DOCUMENT, Ess::Required).unwrap().signers;
        for place in 0..p7s.len() * 8 {
            let mut flipped = p7s.clone();
            flipped[place / 8] ^= 1 << (place % 8);
            assert!(verify(&flipped, other, Ess::Waived).is_err(), "bit {place}");
            if let Ok(verified) = verify(&flipped, DOCUMENT, Ess::Required) {
                assert_eq!(verified.signers, anna, "bit {place}");
            }
        }
        for len in 0..p7s.len() {
            assert!(verify(&p7s[..len], DOCUMENT, Ess::Required).is_err(), "cut to {len}");
        }
        assert!(verify(&[&p7s[..], &[0]].concat(), DOCUMENT, Ess::Required).is_err(), "an octet behind it");
    }
}

#[test]
fn a_file_is_at_most_so_long_and_nonsense_is_named() {
    assert_eq!(refusal(&vec![0x30; P7S_LEN_MAX + 1], b""), CmsError::TooLong { found: P7S_LEN_MAX + 1 });
    assert!(matches!(refusal(&vec![0x30; P7S_LEN_MAX], b""), CmsError::Der(_)));
    assert!(matches!(refusal(b"", b""), CmsError::Der(_)));
    assert!(matches!(refusal(b"-----BEGIN CMS-----\nAAAA", b""), CmsError::Pem(_)));
    let nested = [0x30, 0x80].repeat(P7S_LEN_MAX / 2);
    assert!(verify(&nested, b"", Ess::Required).is_err());
}

#[test]
fn a_person_is_vouched_for_by_a_named_ca_and_only_while_the_certificate_is_in_force() {
    let people = People::new();
    people.member("olga", "ec -pkeyopt ec_paramgen_curve:P-256", "-days -1");
    let (anna, olga, ca) = (people.certificate("anna"), people.certificate("olga"), people.certificate("ca"));
    let check = |certificate: &Certificate, anchors: &[Certificate], at: Timestamp| {
        check_person_certificate(certificate, &[], anchors, at).err().map_or(Vec::new(), |error| error.faults)
    };
    let anchors = [ca.clone()];
    assert_eq!(check(&anna, &anchors, anna.not_before()), []);
    assert_eq!(check(&anna, &anchors, anna.not_after().plus_ms(999)), []);
    let late = check(&anna, &anchors, anna.not_after().plus_ms(1000));
    assert!(matches!(late[..], [PersonFault::NotInForce { .. }]), "{late:?}");
    let early = check(&anna, &anchors, anna.not_before().plus_ms(-1000));
    assert!(
        early.iter().all(|fault| matches!(fault, PersonFault::NotInForce { .. })) && !early.is_empty(),
        "{early:?}"
    );
    assert!(matches!(check(&olga, &anchors, now())[0], PersonFault::NotInForce { .. }));
    assert!(matches!(check(&anna, &[], now())[..], [PersonFault::NoPath { .. }]));
    assert!(matches!(check(&anna, &[people.certificate("bert")], now())[..], [PersonFault::NoPath { .. }]));
    let as_person = check(&ca, &anchors, now());
    assert!(as_person.iter().any(|fault| matches!(fault, PersonFault::IsCa { .. })), "{as_person:?}");
    assert!(as_person.iter().any(|fault| matches!(fault, PersonFault::MayNotSign { .. })), "{as_person:?}");
    // Another CA of the same name vouches for nobody.
    let others = People::new();
    assert!(matches!(check(&anna, &[others.certificate("ca")], now())[..], [PersonFault::NoPath { .. }]));
}

#[test]
fn one_ca_may_stand_between_a_person_and_the_named_ca() {
    let people = People::new();
    people.0.write("ca.ext", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n");
    people
        .0
        .openssl("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout mid.key -out mid.csr -subj /CN=mid");
    people.0.openssl(
        "x509 -req -in mid.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile ca.ext -days 365 -out mid.pem",
    );
    people.0.openssl(
        "x509 -req -in anna.csr -CA mid.pem -CAkey mid.key -CAcreateserial -extfile leaf.ext -days 365 -out anna.pem",
    );
    let (anna, mid, ca) = (people.certificate("anna"), people.certificate("mid"), people.certificate("ca"));
    let between = [mid.clone()];
    let anchors = [ca];
    assert_eq!(check_person_certificate(&anna, &between, &anchors, now()), Ok(&anchors[0]));
    assert!(check_person_certificate(&anna, &[], &anchors, now()).is_err());
    assert!(check_person_certificate(&anna, &[], &between, now()).is_ok(), "the CA between may be the named one");
    // A person between is no CA.
    people.0.openssl(
        "x509 -req -in bert.csr -CA anna.pem -CAkey anna.key -CAcreateserial -extfile leaf.ext -days 365 -out bert.pem",
    );
    let bert = people.certificate("bert");
    let error = check_person_certificate(&bert, &[anna], &between, now()).unwrap_err();
    assert!(matches!(error.faults[..], [PersonFault::NotCa { .. }]), "{error}");
}

#[test]
fn a_private_key_is_read_in_each_form_that_openssl_writes() {
    let people = People::new();
    let anna = people.certificate("anna");
    people.0.openssl("ec -in anna.key -out sec1.key");
    people.0.openssl("ec -in anna.key -no_public -out bare.key");
    people.0.openssl("pkcs8 -topk8 -in anna.key -passout pass:correct -out encrypted.key");
    people.0.openssl("pkcs8 -topk8 -in anna.key -scrypt -passout pass:correct -out scrypt.key");
    people.0.openssl("ecparam -name prime256v1 -out parameters.pem");
    let sec1 = people.0.text("sec1.key");
    people.0.write("with-parameters.key", people.0.text("parameters.pem") + &sec1);
    people.0.write("with-certificate.key", people.0.text("anna.pem") + &people.0.text("anna.key"));
    let names = ["anna", "sec1", "bare", "encrypted", "scrypt", "with-parameters", "with-certificate"];
    for name in names {
        let text = Zeroizing::new(people.0.text(&format!("{name}.key")));
        let signer = PemSigner::from_pem(&text, anna.clone(), || Ok(SecretString::from("correct"))).unwrap();
        let signature = signer.sign(b"octets").unwrap();
        assert!(anna.public_key().unwrap().verifies_fixed(b"octets", &signature), "{name}");
    }
}

#[test]
fn a_private_key_that_will_not_do_says_why() {
    let people = People::new();
    people.0.openssl("pkcs8 -topk8 -in anna.key -passout pass:correct -out encrypted.key");
    people.0.openssl("ec -in anna.key -aes256 -passout pass:correct -out traditional.key");
    people.0.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out p384.key");
    people.0.openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.key");
    people.0.openssl("ec -in p384.key -out p384-sec1.key");
    people.0.write("certificate.key", people.0.text("anna.pem"));
    people.0.write("cut.key", &people.0.read("anna.key")[..100]);
    let check = |name: &str, expected: &str| {
        let text = Zeroizing::new(people.0.text(&format!("{name}.key")));
        let wrong = || Ok(SecretString::from("wrong"));
        let said = PemSigner::from_pem(&text, people.certificate("anna"), wrong).err().unwrap().to_string();
        assert!(said.contains(expected), "{name}: {said}");
    };
    check("encrypted", "the passphrase is wrong");
    check("traditional", "openssl pkcs8 -topk8");
    check("bert", "expected the key of the certificate \"O=PMA, CN=anna\"");
    check("p384", "only P-256 is used here");
    check("p384-sec1", "only P-256 is used here");
    check("rsa", "only P-256 is used here");
    check("certificate", "found CERTIFICATE");
    check("cut", "-----END PRIVATE KEY-----");
    let text = Zeroizing::new(people.0.text("encrypted.key"));
    let gone = || Err(std::io::Error::other("no terminal"));
    let fault = PemSigner::from_pem(&text, people.certificate("anna"), gone).err().unwrap();
    assert!(matches!(fault, SignerError::Passphrase(_)));
}

#[test]
fn people_made_by_rcgen_sign_and_are_vouched_for_like_any_other() {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
    let name = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let mut params = name("PMA CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca_key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let mut params = name("Anna");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().unwrap();
    let anna = pem::certificate(&params.signed_by(&key, &issuer).unwrap().pem()).unwrap();

    let text = Zeroizing::new(key.serialize_pem());
    let signer = PemSigner::from_pem(&text, anna.clone(), || panic!("no passphrase is needed")).unwrap();
    let attributes = signed_attributes(&Digest::of(DOCUMENT), &anna, now()).unwrap();
    let p7s = assemble(&attributes, &signer.sign(&attributes).unwrap(), &anna, &[]).unwrap();
    let verified = verify(&p7s, DOCUMENT, Ess::Required).unwrap();
    let anchors = pem::certificates(&ca.pem()).unwrap();
    check_person_certificate(&verified.signers[0].certificate, &verified.certificates, &anchors, now()).unwrap();
    let scratch = Scratch::new();
    scratch.write("ca.pem", ca.pem());
    scratch.write("document", DOCUMENT);
    scratch.write("anna.p7s", p7s);
    scratch.openssl("cms -verify -binary -inform DER -in anna.p7s -content document -CAfile ca.pem -out /dev/null");
}
