//! Pure. What each return value of PKCS#11 means, by the function that answers it: a table, and no code of any module.
//!
//! [`VALUES`] has every value of PKCS#11 3.1 (section 5.1, and the header that belongs to it), and those that 3.2 adds, with what
//! each means wherever it comes from; [`EXCEPTIONS`] is what is different at some functions. The page for operators
//! (`src/docs/hsm-errors.md`) is made from both.

use std::borrow::Cow;

use super::errors::{Certainty, Class};

/// Functions of the module that stand alike to a return value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// C_Initialize, C_Finalize, C_GetInfo, C_GetFunctionList: the module itself.
    Module,
    /// C_GetSlotList, C_GetSlotInfo, C_GetTokenInfo, C_GetMechanismList, C_GetMechanismInfo: which tokens are there.
    Slots,
    /// C_OpenSession, C_CloseSession, C_CloseAllSessions, C_GetSessionInfo.
    Session,
    /// C_Login, C_Logout.
    Login,
    /// C_FindObjects and its parts, C_GetAttributeValue: on the session that is kept since the login.
    LookUp,
    /// C_CreateObject, C_DestroyObject, C_GenerateKeyPair and whatever else alters the token: on that same session.
    Write,
    /// C_SignInit: on a session of a signer.
    SignInit,
    /// C_Sign: the token has been asked.
    Sign,
}

impl Group {
    /// Every one, in the order in which a worker comes to them.
    pub const ALL: [Self; 8] =
        [Self::Module, Self::Slots, Self::Session, Self::Login, Self::LookUp, Self::Write, Self::SignInit, Self::Sign];

    /// The group of a function, by the name that PKCS#11 gives it. What no worker of ours calls counts as altering the token.
    pub fn of(function: &str) -> Self {
        match function {
            "C_Initialize" | "C_Finalize" | "C_GetInfo" | "C_GetFunctionList" => Self::Module,
            "C_GetSlotList" | "C_GetSlotInfo" | "C_GetTokenInfo" | "C_GetMechanismList" | "C_GetMechanismInfo" => {
                Self::Slots
            }
            "C_OpenSession" | "C_CloseSession" | "C_CloseAllSessions" | "C_GetSessionInfo" => Self::Session,
            "C_Login" | "C_LoginUser" | "C_Logout" => Self::Login,
            "C_FindObjectsInit" | "C_FindObjects" | "C_FindObjectsFinal" | "C_GetAttributeValue" => Self::LookUp,
            "C_SignInit" => Self::SignInit,
            "C_Sign" | "C_SignUpdate" | "C_SignFinal" => Self::Sign,
            _ => Self::Write,
        }
    }

    /// Its functions, for people.
    pub const fn functions(self) -> &'static str {
        match self {
            Self::Module => "C_Initialize",
            Self::Slots => "C_GetSlotList, C_GetTokenInfo, C_GetMechanismList",
            Self::Session => "C_OpenSession",
            Self::Login => "C_Login",
            Self::LookUp => "C_FindObjects, C_GetAttributeValue",
            Self::Write => "C_CreateObject, C_DestroyObject, C_GenerateKeyPair",
            Self::SignInit => "C_SignInit",
            Self::Sign => "C_Sign",
        }
    }
}

/// What a return value means and calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// What it calls for.
    pub class: Class,
    /// The likely cause, for a person.
    pub cause: &'static str,
    /// What to do, for a person; or what is done without them.
    pub advice: &'static str,
}

/// A return value of the standard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    /// The number.
    pub code: u64,
    /// What the standard calls it.
    pub name: &'static str,
    /// What it means wherever no [`EXCEPTIONS`] says otherwise.
    pub meaning: Meaning,
}

/// A return value as it was answered by a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What the standard calls it; a number such as `0x80000001` for a vendor's own.
    pub name: Cow<'static, str>,
    /// What it means and calls for.
    pub meaning: Meaning,
    /// Whether a signature may exist.
    pub certainty: Certainty,
}

/// From here on the values are the vendor's own: CKR_VENDOR_DEFINED.
pub const VENDOR_DEFINED: u64 = 0x8000_0000;

const fn means(class: Class, cause: &'static str, advice: &'static str) -> Meaning {
    Meaning { class, cause, advice }
}

const REPLACED: &str = "the worker is replaced and logs in again by itself; if it comes back, look at the token, at the way to it and at its vendor's log";
const NO_MORE_PIN: &str =
    "no PIN is offered again by itself: put the PIN right, then `smkictl hsm retry-login` with this token's name";
const REPORT: &str = "report this with the daemon's journal: the call should not have been made";
const MEND: &str = "mend that; it is tried again by itself";

const MODULE: Meaning = means(Class::ReplaceWorker, "the module, or its connection to the token, failed", REPLACED);
const DEVICE: Meaning = means(Class::ReplaceWorker, "the token, or the connection to it, failed", REPLACED);
const GONE: Meaning = means(
    Class::ReplaceWorker,
    "the token is not there, or was taken away and put back",
    "put the token back; the worker is replaced and finds it by itself",
);
const RESTARTED: Meaning = means(Class::ReplaceWorker, "the module was restarted beneath us", REPLACED);
const MEMORY: Meaning = means(
    Class::ReplaceWorker,
    "this machine is short of memory",
    "free memory, or raise MemoryMax= of smkid.service; the worker is replaced by itself",
);
const SESSION: Meaning = means(
    Class::RetryOnNewSession,
    "the session is gone or in use",
    "another session is opened by itself; if it persists, look at what else uses the token",
);
const NO_SESSION: Meaning = means(
    Class::RetryOnNewSession,
    "the token has no more sessions",
    "the sessions that are open go on, and another is tried every second; lower `sessions` of this token, or end what else uses it",
);
const LOGIN: Meaning = means(
    Class::LogInAgain,
    "the token has ended the login",
    "the worker is replaced and logs in again by itself, while the activation lasts",
);
const PIN: Meaning = means(Class::OperatorMustAct, "the PIN is not, or no longer, accepted", NO_MORE_PIN);
const PIN_LOCKED: Meaning = means(
    Class::OperatorMustAct,
    "the token has locked its PIN after wrong ones",
    "have the security officer unlock it with the vendor's tool, then `smkictl hsm retry-login` with this token's name",
);
const NO_PIN: Meaning = means(
    Class::OperatorMustAct,
    "the token has no user PIN yet",
    "initialise the user PIN with the vendor's tool, then `smkictl hsm retry-login` with this token's name",
);
const OURS: Meaning = means(Class::OurFault, "the call did not suit the token", REPORT);
const CANNOT: Meaning = means(
    Class::OperatorMustAct,
    "the module cannot do what is asked of it",
    "check that module and token are the ones meant, and their versions with the vendor",
);
const P256: Meaning = means(
    Class::OperatorMustAct,
    "the token does not offer ECDSA on P-256",
    "check that it is the right token, and its vendor's licences and modes",
);
const OTHER_USER: Meaning = means(
    Class::OperatorMustAct,
    "somebody else is logged in: a security officer, or another program",
    "end what else uses the token; it is tried again by itself",
);
const FULL: Meaning =
    means(Class::OperatorMustAct, "the token is full or its resources are used up", "make room on the token");

/// Every return value, in the order of the numbers. CKR_OK is none of them.
#[rustfmt::skip] // A table: one value, one line.
pub const VALUES: &[Value] = {
    const fn v(code: u64, name: &'static str, meaning: Meaning) -> Value { Value { code, name, meaning } }
    &[
        v(0x001, "CKR_CANCEL", SESSION),
        v(0x002, "CKR_HOST_MEMORY", MEMORY),
        v(0x003, "CKR_SLOT_ID_INVALID", GONE),
        v(0x005, "CKR_GENERAL_ERROR", MODULE),
        v(0x006, "CKR_FUNCTION_FAILED", MODULE),
        v(0x007, "CKR_ARGUMENTS_BAD", OURS),
        v(0x008, "CKR_NO_EVENT", OURS),
        v(0x009, "CKR_NEED_TO_CREATE_THREADS", CANNOT),
        v(0x00a, "CKR_CANT_LOCK", means(Class::OperatorMustAct, "the module cannot be used by several threads", "ask the vendor for a module that can")),
        v(0x010, "CKR_ATTRIBUTE_READ_ONLY", OURS),
        v(0x011, "CKR_ATTRIBUTE_SENSITIVE", OURS),
        v(0x012, "CKR_ATTRIBUTE_TYPE_INVALID", OURS),
        v(0x013, "CKR_ATTRIBUTE_VALUE_INVALID", OURS),
        v(0x01b, "CKR_ACTION_PROHIBITED", OURS),
        v(0x020, "CKR_DATA_INVALID", OURS),
        v(0x021, "CKR_DATA_LEN_RANGE", OURS),
        v(0x030, "CKR_DEVICE_ERROR", DEVICE),
        v(0x031, "CKR_DEVICE_MEMORY", FULL),
        v(0x032, "CKR_DEVICE_REMOVED", GONE),
        v(0x040, "CKR_ENCRYPTED_DATA_INVALID", OURS),
        v(0x041, "CKR_ENCRYPTED_DATA_LEN_RANGE", OURS),
        v(0x042, "CKR_AEAD_DECRYPT_FAILED", OURS),
        v(0x050, "CKR_FUNCTION_CANCELED", SESSION),
        v(0x051, "CKR_FUNCTION_NOT_PARALLEL", OURS),
        v(0x054, "CKR_FUNCTION_NOT_SUPPORTED", CANNOT),
        v(0x060, "CKR_KEY_HANDLE_INVALID", GONE),
        v(0x062, "CKR_KEY_SIZE_RANGE", OURS),
        v(0x063, "CKR_KEY_TYPE_INCONSISTENT", OURS),
        v(0x064, "CKR_KEY_NOT_NEEDED", OURS),
        v(0x065, "CKR_KEY_CHANGED", OURS),
        v(0x066, "CKR_KEY_NEEDED", OURS),
        v(0x067, "CKR_KEY_INDIGESTIBLE", OURS),
        v(0x068, "CKR_KEY_FUNCTION_NOT_PERMITTED", means(Class::OperatorMustAct, "the key's attributes are not those that were checked at activation", "take the token out of use until somebody has looked at the key with the vendor's tool")),
        v(0x069, "CKR_KEY_NOT_WRAPPABLE", OURS),
        v(0x06a, "CKR_KEY_UNEXTRACTABLE", OURS),
        v(0x070, "CKR_MECHANISM_INVALID", P256),
        v(0x071, "CKR_MECHANISM_PARAM_INVALID", OURS),
        // SoftHSM answers this when its token's directory is gone: never "the key does not exist".
        v(0x082, "CKR_OBJECT_HANDLE_INVALID", GONE),
        v(0x090, "CKR_OPERATION_ACTIVE", SESSION),
        v(0x091, "CKR_OPERATION_NOT_INITIALIZED", SESSION),
        v(0x0a0, "CKR_PIN_INCORRECT", PIN),
        v(0x0a1, "CKR_PIN_INVALID", PIN),
        v(0x0a2, "CKR_PIN_LEN_RANGE", PIN),
        v(0x0a3, "CKR_PIN_EXPIRED", PIN),
        v(0x0a4, "CKR_PIN_LOCKED", PIN_LOCKED),
        v(0x0b0, "CKR_SESSION_CLOSED", SESSION),
        v(0x0b1, "CKR_SESSION_COUNT", NO_SESSION),
        v(0x0b3, "CKR_SESSION_HANDLE_INVALID", SESSION),
        v(0x0b4, "CKR_SESSION_PARALLEL_NOT_SUPPORTED", OURS),
        v(0x0b5, "CKR_SESSION_READ_ONLY", OURS),
        v(0x0b6, "CKR_SESSION_EXISTS", OURS),
        v(0x0b7, "CKR_SESSION_READ_ONLY_EXISTS", OURS),
        v(0x0b8, "CKR_SESSION_READ_WRITE_SO_EXISTS", OTHER_USER),
        v(0x0c0, "CKR_SIGNATURE_INVALID", OURS),
        v(0x0c1, "CKR_SIGNATURE_LEN_RANGE", OURS),
        v(0x0d0, "CKR_TEMPLATE_INCOMPLETE", OURS),
        v(0x0d1, "CKR_TEMPLATE_INCONSISTENT", OURS),
        v(0x0e0, "CKR_TOKEN_NOT_PRESENT", GONE),
        v(0x0e1, "CKR_TOKEN_NOT_RECOGNIZED", GONE),
        v(0x0e2, "CKR_TOKEN_WRITE_PROTECTED", means(Class::OperatorMustAct, "the token is write-protected", "let its user write, with the vendor's tool")),
        v(0x0f0, "CKR_UNWRAPPING_KEY_HANDLE_INVALID", OURS),
        v(0x0f1, "CKR_UNWRAPPING_KEY_SIZE_RANGE", OURS),
        v(0x0f2, "CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT", OURS),
        v(0x100, "CKR_USER_ALREADY_LOGGED_IN", means(Class::ReplaceWorker, "the module was logged in before we did: another program shares its login", REPLACED)),
        v(0x101, "CKR_USER_NOT_LOGGED_IN", LOGIN),
        v(0x102, "CKR_USER_PIN_NOT_INITIALIZED", NO_PIN),
        v(0x103, "CKR_USER_TYPE_INVALID", OURS),
        v(0x104, "CKR_USER_ANOTHER_ALREADY_LOGGED_IN", OTHER_USER),
        v(0x105, "CKR_USER_TOO_MANY_TYPES", OTHER_USER),
        v(0x110, "CKR_WRAPPED_KEY_INVALID", OURS),
        v(0x112, "CKR_WRAPPED_KEY_LEN_RANGE", OURS),
        v(0x113, "CKR_WRAPPING_KEY_HANDLE_INVALID", OURS),
        v(0x114, "CKR_WRAPPING_KEY_SIZE_RANGE", OURS),
        v(0x115, "CKR_WRAPPING_KEY_TYPE_INCONSISTENT", OURS),
        v(0x120, "CKR_RANDOM_SEED_NOT_SUPPORTED", OURS),
        v(0x121, "CKR_RANDOM_NO_RNG", means(Class::OperatorMustAct, "the token has no random source", "take the token out of use; ask its vendor")),
        v(0x130, "CKR_DOMAIN_PARAMS_INVALID", P256),
        v(0x140, "CKR_CURVE_NOT_SUPPORTED", P256),
        v(0x150, "CKR_BUFFER_TOO_SMALL", means(Class::OurFault, "the module's answer is longer than ours has room for", REPORT)),
        v(0x160, "CKR_SAVED_STATE_INVALID", OURS),
        v(0x170, "CKR_INFORMATION_SENSITIVE", OURS),
        v(0x180, "CKR_STATE_UNSAVEABLE", OURS),
        v(0x190, "CKR_CRYPTOKI_NOT_INITIALIZED", RESTARTED),
        v(0x191, "CKR_CRYPTOKI_ALREADY_INITIALIZED", RESTARTED),
        v(0x1a0, "CKR_MUTEX_BAD", MODULE),
        v(0x1a1, "CKR_MUTEX_NOT_LOCKED", MODULE),
        v(0x1b0, "CKR_NEW_PIN_MODE", PIN),
        v(0x1b1, "CKR_NEXT_OTP", PIN),
        v(0x1b5, "CKR_EXCEEDED_MAX_ITERATIONS", MODULE),
        v(0x1b6, "CKR_FIPS_SELF_TEST_FAILED", means(Class::OperatorMustAct, "the token failed its own self-test", "take the token out of use; ask its vendor")),
        v(0x1b7, "CKR_LIBRARY_LOAD_FAILED", means(Class::OperatorMustAct, "the module cannot load a library that it needs", "install it, or let smkid.service reach it (ExecPaths=, ReadOnlyPaths=)")),
        v(0x1b8, "CKR_PIN_TOO_WEAK", PIN),
        v(0x1b9, "CKR_PUBLIC_KEY_INVALID", OURS),
        v(0x200, "CKR_FUNCTION_REJECTED", means(Class::OperatorMustAct, "the token asks for an approval of its own and did not get it", "approve it at the token, or configure the key not to ask")),
        v(0x201, "CKR_TOKEN_RESOURCE_EXCEEDED", FULL),
        v(0x202, "CKR_OPERATION_CANCEL_FAILED", SESSION),
        v(0x203, "CKR_KEY_EXHAUSTED", means(Class::OperatorMustAct, "the token lets this key sign no more often", "take the token out of use; ask its vendor")),
        // PKCS#11 3.2, which some modules answer already.
        v(0x204, "CKR_PENDING", MODULE),
        v(0x205, "CKR_SESSION_ASYNC_NOT_SUPPORTED", OURS),
        v(0x206, "CKR_SEED_RANDOM_REQUIRED", means(Class::OperatorMustAct, "the token has no random source", "take the token out of use; ask its vendor")),
        v(0x207, "CKR_OPERATION_NOT_VALIDATED", CANNOT),
        v(0x208, "CKR_TOKEN_NOT_INITIALIZED", GONE),
        v(0x209, "CKR_PARAMETER_SET_NOT_SUPPORTED", P256),
    ]
};

const LIFE: Meaning = means(
    Class::ReplaceWorker,
    "the session that is kept since the login is gone, and the login with it",
    "the worker is replaced and logs in again by itself, while the activation lasts",
);
const START: Meaning = means(
    Class::ReplaceWorker,
    "the module does not start: its settings are wrong, or what it needs does not run",
    "check `environment` of this token, the vendor's own configuration and its service; it is tried again by itself",
);
const START_REFUSED: Meaning =
    means(Class::OperatorMustAct, "the module does not take the way in which it is started", MEND);
const LOGIN_REFUSED: Meaning = means(Class::OperatorMustAct, "the token takes no such login", NO_MORE_PIN);

/// What is different at some functions: there a value means this.
#[rustfmt::skip] // A table likewise.
pub const EXCEPTIONS: &[(Group, &[&str], Meaning)] = &[
    (Group::Module, &["CKR_GENERAL_ERROR", "CKR_FUNCTION_FAILED", "CKR_DEVICE_ERROR"], START),
    (Group::Module, &["CKR_ARGUMENTS_BAD"], START_REFUSED),
    // A PIN that was offered and not understood is not offered again: whether it was counted, the token knows.
    (Group::Login, &["CKR_ARGUMENTS_BAD", "CKR_USER_TYPE_INVALID", "CKR_SESSION_READ_ONLY_EXISTS", "CKR_ACTION_PROHIBITED"], LOGIN_REFUSED),
    (Group::Login, &["CKR_CANCEL", "CKR_FUNCTION_CANCELED", "CKR_OPERATION_ACTIVE", "CKR_OPERATION_NOT_INITIALIZED", "CKR_SESSION_CLOSED", "CKR_SESSION_HANDLE_INVALID", "CKR_SESSION_COUNT", "CKR_OPERATION_CANCEL_FAILED"], LIFE),
    (Group::LookUp, &["CKR_CANCEL", "CKR_FUNCTION_CANCELED", "CKR_OPERATION_ACTIVE", "CKR_OPERATION_NOT_INITIALIZED", "CKR_SESSION_CLOSED", "CKR_SESSION_HANDLE_INVALID", "CKR_SESSION_COUNT", "CKR_OPERATION_CANCEL_FAILED"], LIFE),
    (Group::Write, &["CKR_CANCEL", "CKR_FUNCTION_CANCELED", "CKR_OPERATION_ACTIVE", "CKR_OPERATION_NOT_INITIALIZED", "CKR_SESSION_CLOSED", "CKR_SESSION_HANDLE_INVALID", "CKR_SESSION_COUNT", "CKR_OPERATION_CANCEL_FAILED"], LIFE),
];

/// Answers of C_Sign by which PKCS#11 says that the operation never began. Of all others, a lost answer is as likely as a lost
/// question: CKR_DEVICE_ERROR was seen after the signature was made, and CKR_OPERATION_NOT_INITIALIZED, after C_SignInit went well, is what
/// a library answers that asks twice when an answer was lost, or that signs when it is asked for the length.
pub const NEVER_BEGAN: &[&str] = &[
    "CKR_ARGUMENTS_BAD",
    "CKR_CRYPTOKI_NOT_INITIALIZED",
    "CKR_DATA_INVALID",
    "CKR_DATA_LEN_RANGE",
    "CKR_SESSION_HANDLE_INVALID",
    "CKR_USER_NOT_LOGGED_IN",
];

/// Answers of C_Login that are about the PIN: it was looked at, and not accepted.
const ABOUT_THE_PIN: &[&str] = &[
    "CKR_PIN_INCORRECT",
    "CKR_PIN_INVALID",
    "CKR_PIN_LEN_RANGE",
    "CKR_PIN_EXPIRED",
    "CKR_PIN_LOCKED",
    "CKR_USER_PIN_NOT_INITIALIZED",
    "CKR_NEW_PIN_MODE",
    "CKR_NEXT_OTP",
    "CKR_PIN_TOO_WEAK",
];

/// Nobody but the vendor knows these: nothing is assumed, and a new process is the only cure there may be.
const VENDOR: Meaning = means(
    Class::ReplaceWorker,
    "a code of the vendor's own, or of a later standard",
    "look it up in the vendor's documentation; the worker is replaced and logs in again by itself",
);

/// What it means that a function answered this.
pub fn judge(function: &str, code: u64) -> Judgement {
    let group = Group::of(function);
    let value = VALUES.iter().find(|value| value.code == code);
    let (name, meaning) = match value {
        Some(value) => {
            let exception = EXCEPTIONS.iter().find(|(of, names, _)| *of == group && names.contains(&value.name));
            (Cow::Borrowed(value.name), exception.map_or(value.meaning, |(_, _, meaning)| *meaning))
        }
        None => (Cow::Owned(format!("0x{code:08x}")), VENDOR),
    };
    let certainty = if group == Group::Sign && !NEVER_BEGAN.contains(&&*name) {
        Certainty::SignatureMayExist
    } else {
        Certainty::NothingSigned
    };
    Judgement { name, meaning, certainty }
}

/// Whether an answer of C_Login is about the PIN, so that it may not be offered again.
pub fn is_about_the_pin(code: u64) -> bool {
    VALUES.iter().any(|value| value.code == code && ABOUT_THE_PIN.contains(&value.name))
}

#[cfg(test)]
mod tests;
