use super::*;

/// The files of `keys-policy/example`.
pub(in crate::domain) fn example() -> Files {
    macro_rules! files {
        ($($path:literal),*) => {
            [$(($path, &include_bytes!(concat!("../../../keys-policy/example/", $path))[..])),*]
        };
    }
    let files = files![
        "policy.toml",
        "keys.toml",
        "persons.toml",
        "custodians.toml",
        "guidance.toml",
        "anchors/people.pem",
        "anchors/root-oca.pem",
        "anchors/issuing-oca.pem",
        "anchors/device-ca.pem",
        "procedure/base.toml",
        "procedure/direction-2017-07-18.toml"
    ];
    files.into_iter().map(|(path, octets)| (path.to_owned(), octets.to_vec())).collect()
}

/// The example with `from` replaced by `to`, wherever it stands in one file.
pub(in crate::domain) fn changed(file: &str, from: &str, to: &str) -> Files {
    let mut files = example();
    let octets = files.get_mut(file).unwrap();
    let text = String::from_utf8(octets.clone()).unwrap();
    assert!(text.contains(from), "{from:?} stands in {file}");
    *octets = text.replace(from, to).into_bytes();
    files
}

/// The same of other files, in `keys.toml`.
pub(in crate::domain) fn replaced(mut files: Files, from: &str, to: &str) -> Files {
    let text = String::from_utf8(files["keys.toml"].clone()).unwrap();
    assert!(text.contains(from), "{from:?} stands in keys.toml");
    files.insert("keys.toml".into(), text.replace(from, to).into_bytes());
    files
}

/// The example with two contingency keys that may sign.
pub(in crate::domain) fn with_next() -> Files {
    let modes = "modes = []\noriginator = \"90B3D51F30000003\"";
    let mut files = replaced(example(), modes, &modes.replace("[]", "[9]"));
    let next = "\n[[key]]\nlabel = \"contingency-2\"\nuse = \"contingency\"\ntoken = \"smki-c\"\nmodes = [9]\n\
                originator = \"90B3D51F30000003\"\nactivation = \"custodians\"\n";
    files.get_mut("keys.toml").unwrap().extend_from_slice(next.as_bytes());
    files
}

pub(in crate::domain) fn policy(files: &Files) -> Policy {
    Policy::parse(files).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

fn errors(files: &Files) -> Vec<String> {
    Policy::parse(files).unwrap_err().iter().map(ToString::to_string).collect()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn the_example_says_what_its_comments_say() {
    let policy = policy(&example());
    assert_eq!(policy.purpose(), Purpose::Live);
    assert_eq!(policy.origin().as_str(), "smkid.example/ledger");
    assert_eq!(policy.digest(), digest(&example()));
    let quorum = policy.quorum(at("2027-01-01T00:00:00Z")).unwrap();
    assert_eq!((quorum.approvals(), quorum.of()), (3, 5));
    assert_eq!(policy.ledger_key().label.as_str(), "ledger-1");
    let recovery = policy.key(&"recovery-1".parse().unwrap()).unwrap();
    assert_eq!(recovery.tokens().map(TokenName::as_str).collect::<Vec<_>>(), ["smki-a", "smki-b"]);
    assert_eq!((recovery.activation, &recovery.modes), (Activation::Custodians, &BTreeSet::from([8])));
    assert_eq!(policy.mode_8().root_cell, RootCell::Refuse);
    assert_eq!(
        policy.custodians(),
        Custodians { threshold: 2, parties_min: 2, gather_minutes: 60, statement_hours_max: 12 }
    );
    assert_eq!(policy.anchors().people.len(), 2);
    let procedure = policy.procedure().unwrap();
    assert_eq!((procedure.base().steps.len(), procedure.variations().len()), (22, 1));
    assert_eq!(policy.person_by_account("operator-1").unwrap().id.as_str(), "operator-1");
    assert!(policy.person_by_account("root").is_none());
    assert!(policy.person_by_account("").is_none());
    let member = policy.people().person(&"member-5".parse().unwrap()).unwrap();
    assert_eq!(policy.person_by_spki(&member.keys[0]), Some(member));
}

#[test]
fn the_ledger_key_shares_its_token_with_no_other_key_and_with_no_clone() {
    for (from, to) in [
        (
            "token = \"smki-c\"\nmodes = []",
            "token = \"ledger-a\"\ncopies = [{ token = \"smki-c\", by = \"a\" }]\nmodes = []",
        ),
        ("copies = [{ token = \"smki-b\"", "copies = [{ token = \"smki-b\", by = \"a\" }, { token = \"ledger-a\""),
        ("token = \"ledger-a\"\nmodes", "token = \"ledger-a\"\ncopies = [{ token = \"smki-b\", by = \"a\" }]\nmodes"),
    ] {
        let faults = errors(&changed("keys.toml", from, to));
        assert!(faults.iter().all(|fault| fault.contains("the ledger key needs a token of its own")), "{faults:#?}");
    }
}

#[test]
fn what_the_example_sets_to_its_default_is_the_default() {
    let explicit = policy(&example());
    let mut files = example();
    let text = String::from_utf8(files["policy.toml"].clone()).unwrap();
    // Settings whose comment ends in a default within brackets may be left out.
    let mut kept = Vec::new();
    let (mut dropped, mut optional) = (0, false);
    for line in text.lines() {
        if line.starts_with('#') {
            optional = line.ends_with(']');
        } else if optional && line.contains(" = ") {
            dropped += 1;
            continue;
        }
        kept.push(line);
    }
    assert_eq!(dropped, 12);
    files.insert("policy.toml".into(), kept.join("\n").into_bytes());
    let implicit = policy(&files);
    assert_eq!(implicit.determinations(), explicit.determinations());
    assert_eq!(implicit.limits(), explicit.limits());
    assert_eq!(implicit.mode_8(), explicit.mode_8());
    assert_eq!(implicit.certificates(), explicit.certificates());
    let months = |policy: &Policy| policy.reminders().ceremony_or_exercise_months;
    assert_eq!(months(&implicit), months(&explicit));
    assert!(explicit.reminders().is_set && !implicit.reminders().is_set);
}

#[test]
fn an_exercise_may_store_credentials_and_name_no_oids_and_still_needs_two_approvals() {
    let mut files = changed("policy.toml", "\"live\"", "\"exercise\"");
    let stored = changed("keys.toml", "activation = \"custodians\"", "activation = \"stored\"");
    files.insert("keys.toml".into(), stored["keys.toml"].clone());
    let text = String::from_utf8(files["policy.toml"].clone()).unwrap();
    let without: Vec<_> = text.lines().filter(|line| !line.contains("_oids = ")).collect();
    files.insert("policy.toml".into(), without.join("\n").into_bytes());
    let policy_read = policy(&files);
    assert_eq!(policy_read.certificates(), policy(&example()).certificates());
    let one = String::from_utf8(files["policy.toml"].clone()).unwrap().replace("approvals = 3", "approvals = 1");
    files.insert("policy.toml".into(), one.into_bytes());
    assert!(errors(&files)[0].contains("expected at least 2 approvals, found 1"));
}

#[test]
fn a_live_policy_with_a_stored_credential_is_refused_for_each_such_key() {
    let errors = errors(&changed("keys.toml", "activation = \"custodians\"", "activation = \"stored\""));
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].contains("keys.toml line 28: key recovery-1: a live recovery key"), "{errors:?}");
    assert!(errors[1].contains("key contingency-1: a live contingency key"), "{errors:?}");
}

#[test]
fn every_fault_of_every_file_is_reported_with_its_line() {
    let mut files = changed("policy.toml", "approvals = 3", "approvals = 0");
    files.insert("keys.toml".into(), changed("keys.toml", "modes = [8]", "modes = [9]")["keys.toml"].clone());
    files.insert("guidance.toml".into(), b"version = 3\nedition = \"x\"\n".to_vec());
    files.insert("custodians.toml".into(), b"version = 1\nthreshold = 9\n".to_vec());
    files.insert("notes.txt".into(), Vec::new());
    files.remove("anchors/root-oca.pem");
    let found = errors(&files);
    for expected in [
        "policy.toml line 19: determinations.approvals: expected at least 2",
        "keys.toml line 28: key recovery-1: a recovery key may have modes [8] or [], found 9",
        "guidance.toml line 1: expected version = 1, found 3",
        "custodians.toml line 2: threshold: expected 2 to 3, found 9",
        "notes.txt: expected no such file",
        "anchors/root-oca.pem: expected this file, found none",
    ] {
        assert!(found.iter().any(|error| error.starts_with(expected)), "expected {expected:?}, found {found:#?}");
    }
    assert_eq!(found.len(), 6, "{found:#?}");
}

#[test]
fn each_file_is_missed() {
    for name in files::NAMES {
        let mut files = example();
        files.remove(name);
        let errors = errors(&files);
        assert!(errors.contains(&format!("{name}: {}", PolicyFault::FileMissing)), "{errors:?}");
    }
    let mut files = example();
    files.retain(|path, _| !path.starts_with("procedure/"));
    let without = policy(&files);
    assert!(without.procedure().is_none());
    assert!(without.fit_for_new_use().unwrap_err().to_string().starts_with("procedure/base.toml: expected the steps"));
    policy(&example()).fit_for_new_use().unwrap();
    // Nor is one that names no Parties: nobody would be held to theirs.
    let mut files = example();
    let persons = String::from_utf8(files["persons.toml"].clone()).unwrap();
    let (head, rest) = persons.split_at(persons.find("\n[[party]]\n").unwrap());
    let people = &rest[rest.find("\n[[person]]\n").unwrap()..];
    files.insert("persons.toml".into(), format!("{head}{people}").into());
    let without = policy(&files).fit_for_new_use().unwrap_err().to_string();
    assert!(without.starts_with("persons.toml: expected a [[party]]"), "{without}");
}

#[test]
fn profiles_of_nothing_but_a_header_are_read_as_in_the_first_kind_of_policy() {
    let mut files = example();
    let header = |id: &str| format!("version = 1\nid = \"{id}\"\ntitle = \"Said nothing yet\"\n").into_bytes();
    files.insert("procedure/base.toml".into(), header("base"));
    assert!(
        errors(&files)[0].contains("procedure/direction-2017-07-18.toml: expected procedure/base.toml to have steps")
    );
    files.insert("procedure/direction-2017-07-18.toml".into(), header("direction-2017-07-18"));
    assert!(policy(&files).procedure().is_none());
}

#[test]
fn a_quorum_is_asked_for_again_at_each_moment() {
    // member-4 ceases on 2029-01-01; four remain. With all five needed there is no quorum any more.
    let policy = policy(&changed("policy.toml", "approvals = 3", "approvals = 5"));
    assert!(policy.quorum(at("2025-12-31T23:59:59.999Z")).is_err());
    assert_eq!(policy.quorum(at("2026-01-01T00:00:00Z")).unwrap().of(), 5);
    assert!(policy.quorum(at("2028-12-31T23:59:59.999Z")).is_ok());
    assert_eq!(policy.quorum(at("2029-01-01T00:00:00Z")), Err(QuorumError::AboveRoster { approvals: 5, of: 4 }));
}

#[test]
fn any_changed_octet_is_another_policy() {
    let other = policy(&changed("guidance.toml", "Example edition", "Example Edition"));
    assert_ne!(other.digest(), policy(&example()).digest());
    let mut renamed = Files::new();
    renamed.insert("a".into(), b"x".to_vec());
    let digest_a = digest(&renamed);
    renamed.insert("b".into(), renamed["a"].clone());
    renamed.remove("a");
    assert_ne!(digest_a, digest(&renamed));
}

#[test]
fn a_file_of_other_octets_than_utf8_is_refused_with_its_line() {
    let mut files = example();
    files.insert("guidance.toml".into(), b"version = 1\nedition = \"\xff\"\n".to_vec());
    assert_eq!(errors(&files), ["guidance.toml line 2: expected UTF-8, found 0xFF"]);
}

#[test]
fn a_file_has_its_greatest_length_and_not_one_octet_more() {
    let mut files = example();
    files.get_mut("guidance.toml").unwrap().resize(files::FILE_LEN_MAX, b'\n');
    policy(&files);
    files.get_mut("guidance.toml").unwrap().push(b'\n');
    assert!(errors(&files)[0].contains("at most 262144 octets, found 262145"));
}

#[test]
fn a_file_of_anchors_without_any_is_refused() {
    for (octets, found) in [("", "an empty file"), ("\n \n", "an empty file"), ("# none\n", "certificate 1")] {
        let mut files = example();
        files.insert("anchors/people.pem".into(), octets.into());
        let errors = errors(&files);
        assert!(errors.len() == 1 && errors[0].contains(found), "{octets:?}: {errors:?}");
    }
}

proptest::proptest! {
    #[test]
    fn no_octets_panic(octets in proptest::prelude::any::<Vec<u8>>(), file in 0_usize..9) {
        let mut files = example();
        files.insert(files::NAMES[file].into(), octets);
        proptest::prop_assert!(Policy::parse(&files).is_err());
    }
}

#[test]
fn a_custodian_of_a_live_policy_who_could_sign_no_statement_is_unfit_for_new_use_and_stays_readable() {
    let mut files = example();
    let persons = String::from_utf8(files["persons.toml"].clone()).unwrap();
    let at = persons.find("shares = [\"share-2\"]").unwrap();
    let keys = persons[..at].rfind("keys = ").unwrap();
    let without = format!("{}{}", &persons[..keys], &persons[at..]);
    files.insert("persons.toml".into(), without.into_bytes());
    let fault = policy(&files).fit_for_new_use().unwrap_err().to_string();
    assert!(fault.starts_with("persons.toml: custodian-2 is a key-custodian without a key"), "{fault}");
}

#[test]
fn a_live_policy_by_which_the_shares_of_one_party_open_a_key_is_unfit_for_new_use_and_stays_readable() {
    policy(&example()).fit_for_new_use().unwrap();
    let mut files = example();
    let persons = String::from_utf8(files["persons.toml"].clone()).unwrap();
    let at = persons.find("id = \"custodian-2\"").unwrap();
    let moved = persons[at..].replacen("party = \"network-a\"", "party = \"supplier-a\"", 1);
    assert_ne!(moved, persons[at..]);
    files.insert("persons.toml".into(), format!("{}{moved}", &persons[..at]).into_bytes());
    let fault = policy(&files).fit_for_new_use().unwrap_err().to_string();
    assert!(fault.starts_with("persons.toml: supplier-a holds 2 shares, and 2 open a key"), "{fault}");
    // Below the threshold it is fit: three are asked for now.
    let custodians = String::from_utf8(files["custodians.toml"].clone()).unwrap();
    files.insert("custodians.toml".into(), custodians.replace("threshold = 2", "threshold = 3").into_bytes());
    policy(&files).fit_for_new_use().unwrap();
}
