use std::collections::BTreeSet;

use super::*;

fn code(name: &str) -> u64 {
    VALUES.iter().find(|value| value.name == name).unwrap_or_else(|| panic!("no {name}")).code
}

/// One function of each group.
fn function(group: Group) -> &'static str {
    group.functions().split(", ").next().unwrap()
}

#[test]
fn every_value_stands_once_in_the_order_of_the_numbers() {
    assert!(VALUES.is_sorted_by(|a, b| a.code < b.code));
    let names: BTreeSet<_> = VALUES.iter().map(|value| value.name).collect();
    assert_eq!(names.len(), VALUES.len());
    // PKCS#11 3.1 has 97 beside CKR_OK and CKR_VENDOR_DEFINED; 3.2 adds six.
    assert_eq!(VALUES.len(), 97 + 6);
    for name in EXCEPTIONS.iter().flat_map(|(_, names, _)| *names).chain(NEVER_BEGAN).chain(ABOUT_THE_PIN) {
        assert!(names.contains(name), "{name}");
    }
}

#[test]
fn a_group_is_found_by_each_of_its_functions() {
    for group in Group::ALL {
        for function in group.functions().split(", ") {
            assert_eq!(Group::of(function), group, "{function}");
        }
    }
}

#[test]
fn only_c_sign_leaves_a_doubt_and_only_where_the_answer_proves_nothing() {
    for code in VALUES.iter().map(|value| value.code).chain([VENDOR_DEFINED, u64::MAX, 0x7fff_ffff]) {
        for group in Group::ALL {
            let Judgement { name, certainty, .. } = judge(function(group), code);
            let proves = group != Group::Sign || NEVER_BEGAN.contains(&&*name);
            let expected = if proves { Certainty::NothingSigned } else { Certainty::SignatureMayExist };
            assert_eq!(certainty, expected, "{name} of {group:?}");
        }
    }
}

#[test]
fn whatever_is_about_a_pin_waits_for_an_operator_wherever_it_is_answered() {
    for name in ABOUT_THE_PIN {
        assert!(is_about_the_pin(code(name)));
        for group in Group::ALL {
            assert_eq!(judge(function(group), code(name)).meaning.class, Class::OperatorMustAct, "{name}");
        }
    }
    for other in ["CKR_DEVICE_ERROR", "CKR_GENERAL_ERROR", "CKR_SESSION_COUNT", "CKR_USER_NOT_LOGGED_IN"] {
        assert!(!is_about_the_pin(code(other)), "{other}");
    }
    assert!(!is_about_the_pin(VENDOR_DEFINED));
}

#[test]
fn what_a_login_does_not_understand_is_not_tried_again_by_itself() {
    for value in VALUES {
        let class = judge("C_Login", value.code).meaning.class;
        assert!(!matches!(class, Class::RetryOnNewSession), "{}: a PIN on another session", value.name);
    }
    for name in ["CKR_ARGUMENTS_BAD", "CKR_USER_TYPE_INVALID", "CKR_FUNCTION_NOT_SUPPORTED"] {
        assert_eq!(judge("C_Login", code(name)).meaning.class, Class::OperatorMustAct, "{name}");
    }
}

#[test]
fn a_session_of_a_signer_can_be_replaced_and_the_one_of_the_login_cannot() {
    for name in ["CKR_SESSION_HANDLE_INVALID", "CKR_SESSION_CLOSED", "CKR_OPERATION_ACTIVE", "CKR_FUNCTION_CANCELED"] {
        for (group, class) in [
            (Group::SignInit, Class::RetryOnNewSession),
            (Group::Sign, Class::RetryOnNewSession),
            (Group::Session, Class::RetryOnNewSession),
            (Group::Login, Class::ReplaceWorker),
            (Group::LookUp, Class::ReplaceWorker),
            (Group::Write, Class::ReplaceWorker),
        ] {
            assert_eq!(judge(function(group), code(name)).meaning.class, class, "{name} of {group:?}");
        }
    }
}

#[test]
fn values_call_for_what_their_class_says() {
    #[track_caller]
    fn check(class: Class, names: &[&str]) {
        for name in names {
            assert_eq!(judge("C_SignInit", code(name)).meaning.class, class, "{name}");
        }
    }
    check(Class::RetryOnNewSession, &["CKR_SESSION_COUNT", "CKR_OPERATION_ACTIVE", "CKR_CANCEL"]);
    check(Class::LogInAgain, &["CKR_USER_NOT_LOGGED_IN"]);
    check(
        Class::ReplaceWorker,
        &[
            "CKR_DEVICE_ERROR",
            "CKR_DEVICE_REMOVED",
            "CKR_GENERAL_ERROR",
            "CKR_FUNCTION_FAILED",
            "CKR_TOKEN_NOT_PRESENT",
            "CKR_OBJECT_HANDLE_INVALID",
            "CKR_KEY_HANDLE_INVALID",
            "CKR_CRYPTOKI_NOT_INITIALIZED",
            "CKR_MUTEX_BAD",
            "CKR_HOST_MEMORY",
        ],
    );
    check(
        Class::OperatorMustAct,
        &["CKR_FIPS_SELF_TEST_FAILED", "CKR_DEVICE_MEMORY", "CKR_KEY_EXHAUSTED", "CKR_FUNCTION_REJECTED"],
    );
    check(Class::OurFault, &["CKR_ARGUMENTS_BAD", "CKR_DATA_LEN_RANGE", "CKR_BUFFER_TOO_SMALL"]);
    for unknown in [VENDOR_DEFINED, VENDOR_DEFINED + 1, u64::MAX, 0x20a, 0x7fff_ffff] {
        let judgement = judge("C_SignInit", unknown);
        assert_eq!(judgement.meaning.class, Class::ReplaceWorker);
        assert_eq!(judgement.name, format!("0x{unknown:08x}"));
    }
}

#[test]
fn every_meaning_says_what_is_likely_and_what_to_do() {
    for value in VALUES {
        for group in Group::ALL {
            let Meaning { class, cause, advice } = judge(function(group), value.code).meaning;
            assert!(cause.len() > 10 && advice.len() > 10, "{}", value.name);
            let by_itself = ["by itself", "report this", "every second"].iter().any(|words| advice.contains(words));
            assert!(class == Class::OperatorMustAct || by_itself, "{} of {group:?}: {advice}", value.name);
        }
    }
}
