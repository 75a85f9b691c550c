//! A PKCS#11 module that stands in front of a real one and fails on command.
//!
//! `FAULT_TOKEN_MODULE` is the path of the real module, `FAULT_TOKEN_SCRIPT` that of a script; without one every call goes
//! through. How to use it, and all that a script may say, is in `src/docs/fault-token.md`; in short, a fault a line:
//!
//! ```text
//! # FUNCTION CALLS ACTION
//! C_Sign 5 kill                       the process is gone at the fifth call (SIGKILL), before the token sees it
//! C_Sign 5 kill-after                 the same, after the token has answered
//! C_Sign * delay 5ms                  every call takes so much longer
//! C_Sign 2-4 return CKR_DEVICE_ERROR  the token is not asked; or a number: return 0x80000001
//! C_Sign +1 lose CKR_DEVICE_ERROR     the next call from now on: the token is asked, and its answer lost
//! C_Login */3 gone 500ms              at every third login the token vanishes, for half a second
//! ```
//!
//! Every function of PKCS#11 2.40 is handed on and can fail. The script is read again when it has changed. `script.rs` reads it,
//! `faults.rs` does what it says, `counts.rs` counts, `token.rs` knows what a vanished token has forgotten.

#![allow(non_snake_case, reason = "the functions have the names that PKCS#11 gives them")]
#![allow(clippy::too_many_arguments, reason = "and its arguments")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the lists are about the pure part of the product"
)]

mod counts;
mod faults;
mod harm;
pub mod names;
pub mod script;
mod token;

use std::ffi::c_void;
use std::sync::OnceLock;

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_BBOOL, CK_BYTE, CK_FLAGS, CK_FUNCTION_LIST, CK_INFO, CK_MECHANISM, CK_MECHANISM_INFO,
    CK_MECHANISM_TYPE, CK_NOTIFY, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_SESSION_INFO, CK_SLOT_ID,
    CK_SLOT_INFO, CK_TOKEN_INFO, CK_ULONG, CK_USER_TYPE, CK_UTF8CHAR, CKF_TOKEN_PRESENT, CKR_ARGUMENTS_BAD,
    CKR_FUNCTION_FAILED, CKR_FUNCTION_NOT_SUPPORTED, CKR_OK,
};

use faults::{Spoil, around};
use token::Need;

/// The real module's functions, and ours in front of them.
struct Module {
    real: CK_FUNCTION_LIST,
    ours: CK_FUNCTION_LIST,
}

static MODULE: OnceLock<Result<Module, String>> = OnceLock::new();

fn module() -> Result<&'static Module, &'static String> {
    MODULE.get_or_init(load).as_ref()
}

/// Loads the real module and keeps it until the process ends.
fn load() -> Result<Module, String> {
    let path = std::env::var_os("FAULT_TOKEN_MODULE")
        .ok_or("expected the path of the real PKCS#11 module in FAULT_TOKEN_MODULE, found nothing")?;
    faults::load()?;
    // SAFETY: loading runs the library's initialisers; it is a PKCS#11 module that the test trusts to be one.
    let library = unsafe { libloading::Library::new(&path) }
        .map_err(|error| format!("FAULT_TOKEN_MODULE, {}: {error}", path.display()))?;
    // Never unloaded: its functions are called until the process ends.
    let library: &'static libloading::Library = Box::leak(Box::new(library));
    let mut list: *mut CK_FUNCTION_LIST = std::ptr::null_mut();
    // SAFETY: PKCS#11 2.40, 5.4: C_GetFunctionList has this signature and writes one pointer.
    let rv = unsafe {
        let get: libloading::Symbol<unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV> =
            library.get(b"C_GetFunctionList").map_err(|error| format!("{}: {error}", path.display()))?;
        get(&raw mut list)
    };
    if rv != CKR_OK || list.is_null() {
        return Err(format!("{}: C_GetFunctionList answered {}", path.display(), names::code(rv)));
    }
    // SAFETY: the module answered CKR_OK, so that `list` points to its list, which lives as long as the module.
    let real = unsafe { *list };
    Ok(Module { real, ours: in_front_of(&real) })
}

/// The entry point that every client of a module looks for.
///
/// # Safety
/// `list` is where one pointer may be written, as PKCS#11 2.40, 5.4 says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    let module = match module() {
        Ok(module) => module,
        Err(error) => {
            eprintln!("fault-token: {error}");
            return CKR_FUNCTION_FAILED;
        }
    };
    let call = || {
        if list.is_null() {
            return CKR_ARGUMENTS_BAD;
        }
        // SAFETY: `list` is not null, and the caller says that a pointer may be written there. Clients only read what it
        // points to.
        unsafe { *list = (&raw const module.ours).cast_mut() };
        CKR_OK
    };
    around(Place::C_GetFunctionList as usize, Need::Module, call, ignore, nothing)
}

/// What a call wrote that no script can change.
fn ignore(_: Spoil) {}

/// What is kept of a call of which its name says enough.
const fn nothing(_: bool) -> String {
    String::new()
}

/// For each function: one of ours with the same signature that counts, fails if it shall, and calls the real one.
macro_rules! wrapper {
    (module $name:ident($($arg:ident: $type:ty),*)) => {
        unsafe extern "C" fn $name($($arg: $type),*) -> CK_RV {
            let real = real!($name);
            // SAFETY: the arguments are those that the client gave to this very function.
            around(Place::$name as usize, Need::Module, || unsafe { real($($arg),*) }, ignore, nothing)
        }
    };
    (token $name:ident($slot:ident $(, $arg:ident: $type:ty)*)) => {
        unsafe extern "C" fn $name($slot: CK_SLOT_ID, $($arg: $type),*) -> CK_RV {
            let real = real!($name);
            // SAFETY: as above, but for the slot's number, which is the real module's.
            let call = || unsafe { real(token::real($slot), $($arg),*) };
            around(Place::$name as usize, Need::Token, call, ignore, nothing)
        }
    };
    (session $name:ident($session:ident $(, $arg:ident: $type:ty)*)) => {
        unsafe extern "C" fn $name($session: CK_SESSION_HANDLE, $($arg: $type),*) -> CK_RV {
            let real = real!($name);
            // SAFETY: as above.
            let call = || unsafe { real($session, $($arg),*) };
            around(Place::$name as usize, Need::Session($session), call, ignore, nothing)
        }
    };
    // Its last two arguments are where octets may be written, and how many.
    (octets $name:ident($session:ident $(, $arg:ident: $type:ty)*; $out:ident, $len:ident)) => {
        unsafe extern "C" fn $name(
            $session: CK_SESSION_HANDLE,
            $($arg: $type,)*
            $out: *mut CK_BYTE,
            $len: *mut CK_ULONG,
        ) -> CK_RV {
            let real = real!($name);
            // SAFETY: as above.
            let call = || unsafe { real($session, $($arg,)* $out, $len) };
            // SAFETY: the client says that these are null, or where the function may write.
            unsafe { writes(Place::$name, $session, $out, $len, call, nothing) }
        }
    };
    // These are written out below.
    ($own:ident $name:ident()) => {};
}

macro_rules! real {
    ($name:ident) => {
        match module().ok().and_then(|module| module.real.$name) {
            Some(real) => real,
            None => return CKR_FUNCTION_NOT_SUPPORTED,
        }
    };
}

macro_rules! functions {
    ($($kind:ident $name:ident $arguments:tt;)*) => {
        /// The functions' places in [`FUNCTIONS`].
        #[allow(non_camel_case_types, reason = "the names are the functions'")]
        enum Place { $($name),* }

        /// Every function of PKCS#11 2.40, by name.
        pub const FUNCTIONS: &[&str] = &[$(stringify!($name)),*];

        const KINDS: &[&str] = &[$(stringify!($kind)),*];

        /// A list of our functions wherever the real module has one.
        fn in_front_of(real: &CK_FUNCTION_LIST) -> CK_FUNCTION_LIST {
            CK_FUNCTION_LIST { version: real.version, $($name: real.$name.map(|_| $name as _),)* }
        }

        /// Every function of a list but the one that gives it, with nothing in particular for arguments.
        #[cfg(test)]
        fn each(list: &CK_FUNCTION_LIST, mut met: impl FnMut(&'static str, &dyn Fn() -> CK_RV)) {
            $(if stringify!($name) != "C_GetFunctionList" {
                let function = list.$name.expect("it is in the list");
                // SAFETY: the script answers before the function looks at its arguments.
                met(stringify!($name), &|| unsafe { tests::Blank::blank(function) });
            })*
        }

        $(wrapper! { $kind $name $arguments })*
    };
}

functions! {
    module C_Initialize(a: *mut c_void);
    own C_Finalize();
    module C_GetInfo(a: *mut CK_INFO);
    own C_GetFunctionList();
    own C_GetSlotList();
    flags C_GetSlotInfo();
    flags C_GetTokenInfo();
    token C_GetMechanismList(slot, b: *mut CK_MECHANISM_TYPE, c: *mut CK_ULONG);
    flags C_GetMechanismInfo();
    token C_InitToken(slot, b: *mut CK_UTF8CHAR, c: CK_ULONG, d: *mut CK_UTF8CHAR);
    session C_InitPIN(session, b: *mut CK_UTF8CHAR, c: CK_ULONG);
    session C_SetPIN(session, b: *mut CK_UTF8CHAR, c: CK_ULONG, d: *mut CK_UTF8CHAR, e: CK_ULONG);
    own C_OpenSession();
    own C_CloseSession();
    own C_CloseAllSessions();
    flags C_GetSessionInfo();
    octets C_GetOperationState(session; out, len);
    session C_SetOperationState(session, b: *mut CK_BYTE, c: CK_ULONG, d: CK_OBJECT_HANDLE, e: CK_OBJECT_HANDLE);
    own C_Login();
    session C_Logout(session);
    session C_CreateObject(session, b: *mut CK_ATTRIBUTE, c: CK_ULONG, d: *mut CK_OBJECT_HANDLE);
    session C_CopyObject(session, b: CK_OBJECT_HANDLE, c: *mut CK_ATTRIBUTE, d: CK_ULONG, e: *mut CK_OBJECT_HANDLE);
    session C_DestroyObject(session, b: CK_OBJECT_HANDLE);
    session C_GetObjectSize(session, b: CK_OBJECT_HANDLE, c: *mut CK_ULONG);
    session C_GetAttributeValue(session, b: CK_OBJECT_HANDLE, c: *mut CK_ATTRIBUTE, d: CK_ULONG);
    session C_SetAttributeValue(session, b: CK_OBJECT_HANDLE, c: *mut CK_ATTRIBUTE, d: CK_ULONG);
    session C_FindObjectsInit(session, b: *mut CK_ATTRIBUTE, c: CK_ULONG);
    session C_FindObjects(session, b: *mut CK_OBJECT_HANDLE, c: CK_ULONG, d: *mut CK_ULONG);
    session C_FindObjectsFinal(session);
    session C_EncryptInit(session, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    octets C_Encrypt(session, b: *mut CK_BYTE, c: CK_ULONG; out, len);
    octets C_EncryptUpdate(session, b: *mut CK_BYTE, c: CK_ULONG; out, len);
    octets C_EncryptFinal(session; out, len);
    session C_DecryptInit(session, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    octets C_Decrypt(session, b: *mut CK_BYTE, c: CK_ULONG; out, len);
    octets C_DecryptUpdate(session, b: *mut CK_BYTE, c: CK_ULONG; out, len);
    octets C_DecryptFinal(session; out, len);
    session C_DigestInit(session, b: *mut CK_MECHANISM);
    octets C_Digest(session, b: *mut CK_BYTE, c: CK_ULONG; out, len);
    session C_DigestUpdate(session, b: *mut CK_BYTE, c: CK_ULONG);
    session C_DigestKey(session, b: CK_OBJECT_HANDLE);
    octets C_DigestFinal(session; out, len);
    session C_SignInit(session, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    signs C_Sign();
    session C_SignUpdate(session, b: *mut CK_BYTE, c: CK_ULONG);
    octets C_SignFinal(session; out, len);
    session C_SignRecoverInit(session, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    octets C_SignRecover(session, b: *mut CK_BYTE, c: CK_ULONG; out, len);
    session C_VerifyInit(session, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    session C_Verify(session, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: CK_ULONG);
    session C_VerifyUpdate(session, b: *mut CK_BYTE, c: CK_ULONG);
    session C_VerifyFinal(session, b: *mut CK_BYTE, c: CK_ULONG);
    session C_VerifyRecoverInit(session, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    octets C_VerifyRecover(session, b: *mut CK_BYTE, c: CK_ULONG; out, len);
    octets C_DigestEncryptUpdate(session, b: *mut CK_BYTE, c: CK_ULONG; out, len);
    octets C_DecryptDigestUpdate(session, b: *mut CK_BYTE, c: CK_ULONG; out, len);
    octets C_SignEncryptUpdate(session, b: *mut CK_BYTE, c: CK_ULONG; out, len);
    octets C_DecryptVerifyUpdate(session, b: *mut CK_BYTE, c: CK_ULONG; out, len);
    session C_GenerateKey(session, b: *mut CK_MECHANISM, c: *mut CK_ATTRIBUTE, d: CK_ULONG, e: *mut CK_OBJECT_HANDLE);
    session C_GenerateKeyPair(session, b: *mut CK_MECHANISM, c: *mut CK_ATTRIBUTE, d: CK_ULONG, e: *mut CK_ATTRIBUTE, f: CK_ULONG, g: *mut CK_OBJECT_HANDLE, h: *mut CK_OBJECT_HANDLE);
    octets C_WrapKey(session, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE, d: CK_OBJECT_HANDLE; out, len);
    session C_UnwrapKey(session, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE, d: *mut CK_BYTE, e: CK_ULONG, f: *mut CK_ATTRIBUTE, g: CK_ULONG, h: *mut CK_OBJECT_HANDLE);
    session C_DeriveKey(session, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE, d: *mut CK_ATTRIBUTE, e: CK_ULONG, f: *mut CK_OBJECT_HANDLE);
    session C_SeedRandom(session, b: *mut CK_BYTE, c: CK_ULONG);
    session C_GenerateRandom(session, b: *mut CK_BYTE, c: CK_ULONG);
    session C_GetFunctionStatus(session);
    session C_CancelFunction(session);
    own C_WaitForSlotEvent();
}

/// Whether a function writes octets that a script can spoil.
fn spoilable(name: &str) -> bool {
    is_of_kind(name, &["octets", "signs"])
}

/// Whether a function writes flags that a script can set and clear.
fn flagged(name: &str) -> bool {
    is_of_kind(name, &["flags"])
}

fn is_of_kind(name: &str, kinds: &[&str]) -> bool {
    FUNCTIONS.iter().zip(KINDS).any(|(known, kind)| *known == name && kinds.contains(kind))
}

/// A function that writes octets. A call without a place for them asks for their length only: it is not counted and meets no
/// fault of its own.
///
/// # Safety
/// `out` is null, or `len` octets may be written there; `len` is null, or may be written.
unsafe fn writes(
    place: Place,
    session: CK_SESSION_HANDLE,
    out: *mut CK_BYTE,
    len: *mut CK_ULONG,
    call: impl FnOnce() -> CK_RV,
    seen: impl Fn(bool) -> String,
) -> CK_RV {
    let place = place as usize;
    if out.is_null() || len.is_null() {
        let rv = faults::uncounted(Need::Session(session), call);
        if rv == CKR_OK && !len.is_null() {
            // SAFETY: not null, so that a length may be written there.
            unsafe { *len = (*len).saturating_add_signed(faults::resize_of_next(place)) };
        }
        return rv;
    }
    // SAFETY: not null, so that it holds how many octets may be written.
    let room = unsafe { *len };
    let spoil = |spoil: Spoil| {
        // SAFETY: called only after the real module answered CKR_OK, so that `out` holds `len` octets and may hold `room`.
        unsafe {
            let written = *len;
            if spoil.corrupt && written > 0 {
                *out ^= 1;
            }
            let told = written.saturating_add_signed(spoil.resize);
            for at in written..told.min(room) {
                *out.add(usize::try_from(at).unwrap_or(0)) = 0;
            }
            *len = told;
        }
    };
    around(place, Need::Session(session), call, spoil, seen)
}

/// A client that gives no PIN leaves it to the token to ask: then what the variable names is typed at its PIN pad.
unsafe extern "C" fn C_Login(
    session: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    pin: *mut CK_UTF8CHAR,
    pin_len: CK_ULONG,
) -> CK_RV {
    let real = real!(C_Login);
    let mut typed =
        if pin.is_null() { std::env::var("FAULT_TOKEN_PIN_PAD").ok().map(String::into_bytes) } else { None };
    let (pin, pin_len) = match &mut typed {
        Some(typed) => (typed.as_mut_ptr(), CK_ULONG::try_from(typed.len()).unwrap_or(0)),
        None => (pin, pin_len),
    };
    // SAFETY: the arguments are those that the client gave, but for a PIN in its place, of that length.
    let call = || unsafe { real(session, user, pin, pin_len) };
    around(Place::C_Login as usize, Need::Session(session), call, ignore, nothing)
}

/// What is signed is kept in the log, and the signature that the real module made.
unsafe extern "C" fn C_Sign(
    session: CK_SESSION_HANDLE,
    data: *mut CK_BYTE,
    data_len: CK_ULONG,
    out: *mut CK_BYTE,
    len: *mut CK_ULONG,
) -> CK_RV {
    let real = real!(C_Sign);
    // SAFETY: the arguments are those that the client gave to this very function.
    let call = || unsafe { real(session, data, data_len, out, len) };
    let seen = |signed: bool| {
        // SAFETY: the client says that `data` holds so many octets, and the real module, that it has written a signature of
        // `len` octets.
        unsafe {
            let data = hex(data, data_len);
            if signed { format!(" data={data} signature={}", hex(out, *len)) } else { format!(" data={data}") }
        }
    };
    // SAFETY: the client says that these are null, or where the function may write.
    unsafe { writes(Place::C_Sign, session, out, len, call, seen) }
}

/// At most 64 octets in hexadecimal, which is a digest or a signature of an elliptic curve; of more the number only.
///
/// # Safety
/// `octets` is null, or holds so many.
unsafe fn hex(octets: *const CK_BYTE, len: CK_ULONG) -> String {
    match usize::try_from(len) {
        Ok(len) if len <= 64 && !octets.is_null() => {
            // SAFETY: the caller says so.
            let octets = unsafe { std::slice::from_raw_parts(octets, len) };
            octets.iter().map(|octet| format!("{octet:02x}")).collect()
        }
        _ => format!("({len} octets)"),
    }
}

unsafe extern "C" fn C_Finalize(reserved: *mut c_void) -> CK_RV {
    let real = real!(C_Finalize);
    let call = || {
        // SAFETY: the argument is the client's.
        let rv = unsafe { real(reserved) };
        if rv == CKR_OK {
            token::finalized();
        }
        rv
    };
    around(Place::C_Finalize as usize, Need::Module, call, ignore, nothing)
}

unsafe extern "C" fn C_GetSlotList(present: CK_BBOOL, list: *mut CK_SLOT_ID, count: *mut CK_ULONG) -> CK_RV {
    let real = real!(C_GetSlotList);
    let call = || {
        // SAFETY: the arguments are the client's. What the real module has written is `count` numbers at `list`, if that is
        // not null.
        unsafe {
            if present != 0 && faults::gone().0 && !count.is_null() {
                *count = 0;
                return CKR_OK;
            }
            let rv = real(present, list, count);
            if rv == CKR_OK && !list.is_null() {
                for at in 0..usize::try_from(*count).unwrap_or(0) {
                    *list.add(at) = token::shown(*list.add(at));
                }
            }
            rv
        }
    };
    around(Place::C_GetSlotList as usize, Need::Module, call, ignore, nothing)
}

unsafe extern "C" fn C_WaitForSlotEvent(flags: CK_FLAGS, slot: *mut CK_SLOT_ID, reserved: *mut c_void) -> CK_RV {
    let real = real!(C_WaitForSlotEvent);
    let call = || {
        // SAFETY: the arguments are the client's; the real module has written a number at `slot` when it answers CKR_OK.
        unsafe {
            let rv = real(flags, slot, reserved);
            if rv == CKR_OK && !slot.is_null() {
                *slot = token::shown(*slot);
            }
            rv
        }
    };
    around(Place::C_WaitForSlotEvent as usize, Need::Module, call, ignore, nothing)
}

/// Changes flags that were written.
const fn spoilt(flags: CK_FLAGS, spoil: Spoil) -> CK_FLAGS {
    (flags | spoil.set) & !spoil.clear
}

unsafe extern "C" fn C_GetSlotInfo(slot: CK_SLOT_ID, info: *mut CK_SLOT_INFO) -> CK_RV {
    let real = real!(C_GetSlotInfo);
    let call = || {
        // SAFETY: the arguments are the client's; the real module has written the structure when it answers CKR_OK.
        unsafe {
            let rv = real(token::real(slot), info);
            if rv == CKR_OK && faults::gone().0 {
                (*info).flags &= !CKF_TOKEN_PRESENT;
            }
            rv
        }
    };
    // SAFETY: called only after the real module answered CKR_OK, so that it wrote a whole structure there.
    let spoil = |spoil| unsafe { (*info).flags = spoilt((*info).flags, spoil) };
    around(Place::C_GetSlotInfo as usize, Need::Module, call, spoil, nothing)
}

unsafe extern "C" fn C_GetTokenInfo(slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO) -> CK_RV {
    let real = real!(C_GetTokenInfo);
    // SAFETY: the arguments are the client's.
    let call = || unsafe { real(token::real(slot), info) };
    // SAFETY: as above.
    let spoil = |spoil| unsafe { (*info).flags = spoilt((*info).flags, spoil) };
    around(Place::C_GetTokenInfo as usize, Need::Token, call, spoil, nothing)
}

unsafe extern "C" fn C_GetMechanismInfo(
    slot: CK_SLOT_ID,
    mechanism: CK_MECHANISM_TYPE,
    info: *mut CK_MECHANISM_INFO,
) -> CK_RV {
    let real = real!(C_GetMechanismInfo);
    // SAFETY: the arguments are the client's.
    let call = || unsafe { real(token::real(slot), mechanism, info) };
    // SAFETY: as above.
    let spoil = |spoil| unsafe { (*info).flags = spoilt((*info).flags, spoil) };
    around(Place::C_GetMechanismInfo as usize, Need::Token, call, spoil, nothing)
}

unsafe extern "C" fn C_GetSessionInfo(session: CK_SESSION_HANDLE, info: *mut CK_SESSION_INFO) -> CK_RV {
    let real = real!(C_GetSessionInfo);
    let call = || {
        // SAFETY: the arguments are the client's; the real module has written the structure when it answers CKR_OK.
        unsafe {
            let rv = real(session, info);
            if rv == CKR_OK {
                (*info).slotID = token::shown((*info).slotID);
            }
            rv
        }
    };
    // SAFETY: as above.
    let spoil = |spoil| unsafe { (*info).flags = spoilt((*info).flags, spoil) };
    around(Place::C_GetSessionInfo as usize, Need::Session(session), call, spoil, nothing)
}

unsafe extern "C" fn C_OpenSession(
    slot: CK_SLOT_ID,
    flags: CK_FLAGS,
    application: *mut c_void,
    notify: CK_NOTIFY,
    session: *mut CK_SESSION_HANDLE,
) -> CK_RV {
    let real = real!(C_OpenSession);
    let slot = token::real(slot);
    let call = || {
        // SAFETY: the arguments are the client's; the real module has written a handle when it answers CKR_OK.
        unsafe {
            let rv = real(slot, flags, application, notify, session);
            if rv == CKR_OK {
                token::opened(*session);
            }
            rv
        }
    };
    around(Place::C_OpenSession as usize, Need::NewSession(slot), call, ignore, nothing)
}

unsafe extern "C" fn C_CloseSession(session: CK_SESSION_HANDLE) -> CK_RV {
    let real = real!(C_CloseSession);
    let call = || {
        // SAFETY: the argument is the client's.
        let rv = unsafe { real(session) };
        if rv == CKR_OK {
            token::closed(session);
        }
        rv
    };
    around(Place::C_CloseSession as usize, Need::Session(session), call, ignore, nothing)
}

unsafe extern "C" fn C_CloseAllSessions(slot: CK_SLOT_ID) -> CK_RV {
    let real = real!(C_CloseAllSessions);
    let call = || {
        // SAFETY: the argument is the client's, but for the slot's number, which is the real module's.
        let rv = unsafe { real(token::real(slot)) };
        if rv == CKR_OK {
            token::all_closed();
        }
        rv
    };
    around(Place::C_CloseAllSessions as usize, Need::Token, call, ignore, nothing)
}

#[cfg(test)]
mod tests;
