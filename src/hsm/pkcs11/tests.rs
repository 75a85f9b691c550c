use super::*;

#[test]
fn the_table_has_every_return_value_that_cryptoki_knows_by_the_name_that_the_standard_gives_it() {
    let mut known = 0;
    for number in 1..0x400 {
        let Rv::Error(rv) = Rv::from(number) else { continue };
        if matches!(rv, RvError::UnknownErrorCode(_)) {
            continue;
        }
        known += 1;
        assert_eq!(code(rv), number, "{rv:?}");
        // cryptoki's name is the standard's in another spelling.
        let mut expected = "CKR".to_owned();
        for letter in format!("{rv:?}").chars() {
            if letter.is_ascii_uppercase() {
                expected.push('_');
            }
            expected.push(letter.to_ascii_uppercase());
        }
        assert_eq!(returns::judge("C_SignInit", number).name, expected);
    }
    assert!(known >= 90, "{known}");
    for number in [0x8000_0000, 0x8000_0001, 0x7fff_ffff] {
        let Rv::Error(rv) = Rv::from(number) else { panic!("{number:#x} is no error") };
        assert_eq!(code(rv), number);
    }
}

#[test]
fn a_fault_says_function_token_value_cause_and_what_to_do() {
    let text = fault("ledger", Error::Pkcs11(RvError::DeviceError, Function::Sign)).to_string();
    for part in ["C_Sign", "token ledger", "CKR_DEVICE_ERROR", "connection", "replaced"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_call_that_was_never_answered_leaves_a_doubt() {
    let error = fault("ledger", Error::NullFunctionPointer);
    assert_eq!((error.certainty(), error.class()), (Certainty::SignatureMayExist, Class::ReplaceWorker));
}

#[test]
fn sessions_stay_within_the_tokens_limit_beside_the_one_kept_for_life() {
    #[track_caller]
    fn check(wanted: u16, limit: Limit, expected: u16) {
        assert_eq!(sessions_within(wanted, limit, 1), expected);
    }
    check(4, Limit::Infinite, 4);
    check(4, Limit::Unavailable, 4);
    check(4, Limit::Max(5), 4);
    check(4, Limit::Max(4), 3);
    check(4, Limit::Max(1), 1);
    check(4, Limit::Max(u64::MAX), 4);
    // Beside a contingency key one more is left free.
    assert_eq!((sessions_within(4, Limit::Max(5), 2), sessions_within(4, Limit::Max(6), 2)), (3, 4));
}

#[test]
fn padding_of_both_sorts_is_cut() {
    assert_eq!(trimmed("token \0\0 "), "token");
    assert_eq!(trimmed("a token"), "a token");
}
