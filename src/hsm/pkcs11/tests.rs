use cryptoki::error::Rv;

use super::*;

/// Every return value that PKCS#11 3.1 knows, as cryptoki reads it.
fn all() -> Vec<RvError> {
    (1..0x400)
        .filter_map(|code| match Rv::from(code) {
            Rv::Error(RvError::UnknownErrorCode(_)) | Rv::Ok => None,
            Rv::Error(rv) => Some(rv),
        })
        .collect()
}

#[test]
fn each_return_value_has_its_own_name_as_the_standard_writes_it() {
    let all = all();
    assert!(all.len() >= 90, "{}", all.len());
    for rv in all {
        // cryptoki's name is the standard's in another spelling.
        let mut expected = "CKR".to_owned();
        for letter in format!("{rv:?}").chars() {
            if letter.is_ascii_uppercase() {
                expected.push('_');
            }
            expected.push(letter.to_ascii_uppercase());
        }
        assert_eq!(describe(rv).0, expected);
    }
    assert_eq!(describe(RvError::VendorDefined(0x8000_0001)).0, "0x80000001");
}

#[test]
fn return_values_call_for_what_their_class_says() {
    #[track_caller]
    fn check(class: Class, values: &[RvError]) {
        for rv in values {
            assert_eq!(describe(*rv).1, class, "{rv:?}");
        }
    }
    use RvError as Rv;
    check(
        Class::RetryOnNewSession,
        &[Rv::SessionHandleInvalid, Rv::SessionClosed, Rv::SessionCount, Rv::OperationActive, Rv::FunctionCanceled],
    );
    check(Class::LogInAgain, &[Rv::UserNotLoggedIn]);
    check(
        Class::ReplaceWorker,
        &[
            Rv::DeviceError,
            Rv::DeviceRemoved,
            Rv::GeneralError,
            Rv::FunctionFailed,
            Rv::TokenNotPresent,
            Rv::ObjectHandleInvalid,
            Rv::KeyHandleInvalid,
            Rv::CryptokiNotInitialized,
            Rv::VendorDefined(0x8000_0000),
            Rv::UnknownErrorCode(0x7fff_ffff),
        ],
    );
    check(
        Class::OperatorMustAct,
        &[
            Rv::PinIncorrect,
            Rv::PinLocked,
            Rv::PinExpired,
            Rv::FipsSelfTestFailed,
            Rv::DeviceMemory,
            Rv::TokenWriteProtected,
        ],
    );
    check(Class::OurFault, &[Rv::ArgumentsBad, Rv::DataLenRange, Rv::TemplateIncomplete]);
    for rv in all() {
        // Whatever is about a PIN is never tried again by itself.
        if is_about_the_pin(rv) {
            assert_eq!(describe(rv).1, Class::OperatorMustAct, "{rv:?}");
            assert!(fault(Error::Pkcs11(rv, Function::Login)).locks(), "{rv:?}");
        }
    }
}

#[test]
fn only_c_sign_leaves_a_doubt_and_only_where_the_answer_proves_nothing() {
    let certain = [
        RvError::ArgumentsBad,
        RvError::CryptokiNotInitialized,
        RvError::DataInvalid,
        RvError::DataLenRange,
        RvError::OperationNotInitialized,
        RvError::SessionHandleInvalid,
        RvError::UserNotLoggedIn,
    ];
    for rv in all().into_iter().chain([RvError::VendorDefined(0x8000_0000)]) {
        let expected = if certain.contains(&rv) { Certainty::NothingSigned } else { Certainty::SignatureMayExist };
        assert_eq!(fault(Error::Pkcs11(rv, Function::Sign)).certainty(), expected, "{rv:?}");
        for function in [Function::SignInit, Function::OpenSession, Function::Login, Function::FindObjects] {
            assert_eq!(fault(Error::Pkcs11(rv, function)).certainty(), Certainty::NothingSigned, "{rv:?}");
        }
    }
}

#[test]
fn a_fault_says_function_value_cause_and_what_to_do() {
    let text = fault(Error::Pkcs11(RvError::DeviceError, Function::Sign)).to_string();
    for part in ["C_Sign", "CKR_DEVICE_ERROR", "connection", "replaced"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn sessions_stay_within_the_tokens_limit_beside_the_one_kept_for_life() {
    #[track_caller]
    fn check(wanted: u16, limit: Limit, expected: u16) {
        assert_eq!(sessions_within(wanted, limit), expected);
    }
    check(4, Limit::Infinite, 4);
    check(4, Limit::Unavailable, 4);
    check(4, Limit::Max(5), 4);
    check(4, Limit::Max(4), 3);
    check(4, Limit::Max(1), 1);
    check(4, Limit::Max(u64::MAX), 4);
}

#[test]
fn padding_of_both_sorts_is_cut() {
    assert_eq!(trimmed("token \0\0 "), "token");
    assert_eq!(trimmed("a token"), "a token");
}
