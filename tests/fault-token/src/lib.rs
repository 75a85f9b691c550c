//! A PKCS#11 module that stands in front of a real one and fails on command.
//!
//! `FAULT_TOKEN_MODULE` is the path of the real module; `FAULT_TOKEN_SCRIPT` that of a file with one fault a line:
//!
//! ```text
//! # FUNCTION CALLS ACTION
//! C_Sign 5 kill                       the process is gone at the fifth call (SIGKILL), before the token sees it
//! C_Sign 5 kill-after                 the same, after the token has answered
//! C_Sign 3 stop                       the process stops (SIGSTOP), as a machine that hangs does
//! C_Sign 3 hang                       this call never returns; others go on
//! C_Sign * delay 5ms                  every call takes so much longer
//! C_Sign 2-4 return CKR_DEVICE_ERROR  the token is not asked; or a number: return 0x80000001
//! C_Sign 2 lose CKR_DEVICE_ERROR      the token is asked, and its answer lost
//! C_Sign 4 corrupt                    one bit of the signature is wrong
//! C_GetTokenInfo * final-try          the token says CKF_USER_PIN_FINAL_TRY
//! C_Initialize 1 print                chatter on standard output
//! ```
//!
//! Calls are counted for each function that the script names, from 1, over the life of the script: the counts lie beside it
//! in `SCRIPT.counts`, so that "the fifth call" comes once, whatever is restarted. A call of C_Sign that only asks for the
//! length is not counted and never fails. `C_Sign 0 stop` counts and does nothing.

#![allow(non_snake_case, reason = "the functions have the names that PKCS#11 gives them")]
#![allow(clippy::too_many_arguments, reason = "and its arguments")]
#![allow(clippy::disallowed_methods, reason = "the list is about the pure part of the product")]

mod script;

use std::ffi::c_void;
use std::sync::OnceLock;

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_BBOOL, CK_BYTE, CK_FLAGS, CK_FUNCTION_LIST, CK_INFO, CK_MECHANISM, CK_MECHANISM_INFO,
    CK_MECHANISM_TYPE, CK_NOTIFY, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_SESSION_INFO, CK_SLOT_ID,
    CK_SLOT_INFO, CK_TOKEN_INFO, CK_ULONG, CK_USER_TYPE, CK_UTF8CHAR, CKF_USER_PIN_FINAL_TRY, CKR_ARGUMENTS_BAD,
    CKR_FUNCTION_FAILED, CKR_FUNCTION_NOT_SUPPORTED, CKR_OK,
};

use script::{After, Before};

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
    let path = std::env::var_os("FAULT_TOKEN_MODULE").ok_or("FAULT_TOKEN_MODULE names no module")?;
    script::load()?;
    // SAFETY: loading runs the library's initialisers; it is a PKCS#11 module that the test trusts to be one.
    let library = unsafe { libloading::Library::new(&path) }.map_err(|error| format!("{}: {error}", path.display()))?;
    // Never unloaded: its functions are called until the process ends.
    let library: &'static libloading::Library = Box::leak(Box::new(library));
    let mut list: *mut CK_FUNCTION_LIST = std::ptr::null_mut();
    // SAFETY: PKCS#11 2.40, 5.4: C_GetFunctionList has this signature and writes one pointer.
    let rv = unsafe {
        let get: libloading::Symbol<unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV> =
            library.get(b"C_GetFunctionList").map_err(|error| error.to_string())?;
        get(&raw mut list)
    };
    if rv != CKR_OK || list.is_null() {
        return Err(format!("C_GetFunctionList of the real module answered {rv:#x}"));
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
    match module() {
        Ok(module) if !list.is_null() => {
            // SAFETY: `list` is not null, and the caller says that a pointer may be written there. Clients only read what it
            // points to.
            unsafe { *list = (&raw const module.ours).cast_mut() };
            CKR_OK
        }
        Ok(_) => CKR_ARGUMENTS_BAD,
        Err(error) => {
            eprintln!("fault-token: {error}");
            CKR_FUNCTION_FAILED
        }
    }
}

/// Does what the script says around one call of the real module. `spoil` changes what the call has written.
fn around(name: &'static str, call: impl FnOnce() -> CK_RV, spoil: impl FnOnce()) -> CK_RV {
    let fault = script::next(name);
    match fault.before {
        Before::Go => {}
        Before::Answer(rv) => return rv,
    }
    let rv = call();
    match fault.after {
        After::Leave => rv,
        After::Answer(rv) => rv,
        After::Kill => script::kill_self(),
        After::Corrupt => {
            if rv == CKR_OK {
                spoil();
            }
            rv
        }
    }
}

/// C_Sign is not like the others: a call without a place for the signature asks for its length only, and what it writes can be
/// spoilt.
unsafe extern "C" fn C_Sign(
    session: CK_SESSION_HANDLE,
    data: *mut CK_BYTE,
    data_len: CK_ULONG,
    signature: *mut CK_BYTE,
    signature_len: *mut CK_ULONG,
) -> CK_RV {
    let Some(real) = module().ok().and_then(|module| module.real.C_Sign) else { return CKR_FUNCTION_NOT_SUPPORTED };
    // SAFETY: the arguments are those that the client gave to this very function.
    let call = || unsafe { real(session, data, data_len, signature, signature_len) };
    if signature.is_null() {
        return call();
    }
    // SAFETY: called only after the real module answered CKR_OK, so that it wrote a signature of at least one octet there.
    around("C_Sign", call, || unsafe { *signature ^= 1 })
}

/// And what C_GetTokenInfo writes can be made to warn of the last try for the PIN.
unsafe extern "C" fn C_GetTokenInfo(slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO) -> CK_RV {
    let Some(real) = module().ok().and_then(|module| module.real.C_GetTokenInfo) else {
        return CKR_FUNCTION_NOT_SUPPORTED;
    };
    // SAFETY: the arguments are those that the client gave to this very function.
    let call = || unsafe { real(slot, info) };
    // SAFETY: called only after the real module answered CKR_OK, so that it wrote a whole CK_TOKEN_INFO there.
    around("C_GetTokenInfo", call, || unsafe { (*info).flags |= CKF_USER_PIN_FINAL_TRY })
}

/// For each function: one of ours with the same signature that counts, fails if it shall, and calls the real one.
macro_rules! forward {
    ($($name:ident($($arg:ident: $type:ty),*);)*) => {
        $(
            unsafe extern "C" fn $name($($arg: $type),*) -> CK_RV {
                let Some(real) = module().ok().and_then(|module| module.real.$name) else {
                    return CKR_FUNCTION_NOT_SUPPORTED;
                };
                // SAFETY: the arguments are those that the client gave to this very function.
                around(stringify!($name), || unsafe { real($($arg),*) }, || {})
            }
        )*

        /// A list of our functions wherever the real module has one.
        fn in_front_of(real: &CK_FUNCTION_LIST) -> CK_FUNCTION_LIST {
            CK_FUNCTION_LIST {
                version: real.version,
                C_GetFunctionList: Some(C_GetFunctionList),
                C_Sign: real.C_Sign.map(|_| C_Sign as _),
                C_GetTokenInfo: real.C_GetTokenInfo.map(|_| C_GetTokenInfo as _),
                $($name: real.$name.map(|_| $name as _),)*
            }
        }
    };
}

forward! {
    C_Initialize(a: *mut c_void);
    C_Finalize(a: *mut c_void);
    C_GetInfo(a: *mut CK_INFO);
    C_GetSlotList(a: CK_BBOOL, b: *mut CK_SLOT_ID, c: *mut CK_ULONG);
    C_GetSlotInfo(a: CK_SLOT_ID, b: *mut CK_SLOT_INFO);
    C_GetMechanismList(a: CK_SLOT_ID, b: *mut CK_MECHANISM_TYPE, c: *mut CK_ULONG);
    C_GetMechanismInfo(a: CK_SLOT_ID, b: CK_MECHANISM_TYPE, c: *mut CK_MECHANISM_INFO);
    C_InitToken(a: CK_SLOT_ID, b: *mut CK_UTF8CHAR, c: CK_ULONG, d: *mut CK_UTF8CHAR);
    C_InitPIN(a: CK_SESSION_HANDLE, b: *mut CK_UTF8CHAR, c: CK_ULONG);
    C_SetPIN(a: CK_SESSION_HANDLE, b: *mut CK_UTF8CHAR, c: CK_ULONG, d: *mut CK_UTF8CHAR, e: CK_ULONG);
    C_OpenSession(a: CK_SLOT_ID, b: CK_FLAGS, c: *mut c_void, d: CK_NOTIFY, e: *mut CK_SESSION_HANDLE);
    C_CloseSession(a: CK_SESSION_HANDLE);
    C_CloseAllSessions(a: CK_SLOT_ID);
    C_GetSessionInfo(a: CK_SESSION_HANDLE, b: *mut CK_SESSION_INFO);
    C_GetOperationState(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: *mut CK_ULONG);
    C_SetOperationState(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: CK_OBJECT_HANDLE, e: CK_OBJECT_HANDLE);
    C_Login(a: CK_SESSION_HANDLE, b: CK_USER_TYPE, c: *mut CK_UTF8CHAR, d: CK_ULONG);
    C_Logout(a: CK_SESSION_HANDLE);
    C_CreateObject(a: CK_SESSION_HANDLE, b: *mut CK_ATTRIBUTE, c: CK_ULONG, d: *mut CK_OBJECT_HANDLE);
    C_CopyObject(a: CK_SESSION_HANDLE, b: CK_OBJECT_HANDLE, c: *mut CK_ATTRIBUTE, d: CK_ULONG, e: *mut CK_OBJECT_HANDLE);
    C_DestroyObject(a: CK_SESSION_HANDLE, b: CK_OBJECT_HANDLE);
    C_GetObjectSize(a: CK_SESSION_HANDLE, b: CK_OBJECT_HANDLE, c: *mut CK_ULONG);
    C_GetAttributeValue(a: CK_SESSION_HANDLE, b: CK_OBJECT_HANDLE, c: *mut CK_ATTRIBUTE, d: CK_ULONG);
    C_SetAttributeValue(a: CK_SESSION_HANDLE, b: CK_OBJECT_HANDLE, c: *mut CK_ATTRIBUTE, d: CK_ULONG);
    C_FindObjectsInit(a: CK_SESSION_HANDLE, b: *mut CK_ATTRIBUTE, c: CK_ULONG);
    C_FindObjects(a: CK_SESSION_HANDLE, b: *mut CK_OBJECT_HANDLE, c: CK_ULONG, d: *mut CK_ULONG);
    C_FindObjectsFinal(a: CK_SESSION_HANDLE);
    C_EncryptInit(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    C_Encrypt(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG);
    C_EncryptUpdate(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG);
    C_EncryptFinal(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: *mut CK_ULONG);
    C_DecryptInit(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    C_Decrypt(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG);
    C_DecryptUpdate(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG);
    C_DecryptFinal(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: *mut CK_ULONG);
    C_DigestInit(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM);
    C_Digest(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG);
    C_DigestUpdate(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG);
    C_DigestKey(a: CK_SESSION_HANDLE, b: CK_OBJECT_HANDLE);
    C_DigestFinal(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: *mut CK_ULONG);
    C_SignInit(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    C_SignUpdate(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG);
    C_SignFinal(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: *mut CK_ULONG);
    C_SignRecoverInit(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    C_SignRecover(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG);
    C_VerifyInit(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    C_Verify(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: CK_ULONG);
    C_VerifyUpdate(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG);
    C_VerifyFinal(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG);
    C_VerifyRecoverInit(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    C_VerifyRecover(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG);
    C_DigestEncryptUpdate(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG);
    C_DecryptDigestUpdate(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG);
    C_SignEncryptUpdate(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG);
    C_DecryptVerifyUpdate(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG);
    C_GenerateKey(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: *mut CK_ATTRIBUTE, d: CK_ULONG, e: *mut CK_OBJECT_HANDLE);
    C_GenerateKeyPair(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: *mut CK_ATTRIBUTE, d: CK_ULONG, e: *mut CK_ATTRIBUTE, f: CK_ULONG, g: *mut CK_OBJECT_HANDLE, h: *mut CK_OBJECT_HANDLE);
    C_WrapKey(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE, d: CK_OBJECT_HANDLE, e: *mut CK_BYTE, f: *mut CK_ULONG);
    C_UnwrapKey(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE, d: *mut CK_BYTE, e: CK_ULONG, f: *mut CK_ATTRIBUTE, g: CK_ULONG, h: *mut CK_OBJECT_HANDLE);
    C_DeriveKey(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE, d: *mut CK_ATTRIBUTE, e: CK_ULONG, f: *mut CK_OBJECT_HANDLE);
    C_SeedRandom(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG);
    C_GenerateRandom(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG);
    C_GetFunctionStatus(a: CK_SESSION_HANDLE);
    C_CancelFunction(a: CK_SESSION_HANDLE);
    C_WaitForSlotEvent(a: CK_FLAGS, b: *mut CK_SLOT_ID, c: *mut c_void);
}
