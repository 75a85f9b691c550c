use std::fs;
use std::ptr::null_mut;
use std::time::Duration;

use cryptoki_sys::{CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_LOCKED, CKR_DEVICE_ERROR};

use super::*;
use crate::script::{Action, Script};

fn one(text: &str) -> (Action, bool) {
    let script = Script::parse(text).unwrap();
    assert_eq!(script.lines.len(), 1, "{text}");
    (script.lines[0].action.clone(), script.lines[0].after)
}

#[test]
fn an_action_is_read_with_its_argument_and_its_place_before_or_after_the_call() {
    let rows = [
        ("C_Sign 1 return CKR_DEVICE_ERROR", Action::Answer(CKR_DEVICE_ERROR), false),
        ("C_Sign 1 return 0x80000001", Action::Answer(0x8000_0001), false),
        ("C_Sign 1 return 48", Action::Answer(CKR_DEVICE_ERROR), false),
        ("C_Sign 1 lose CKR_DEVICE_ERROR", Action::Answer(CKR_DEVICE_ERROR), true),
        ("C_Sign 1 return-after CKR_DEVICE_ERROR", Action::Answer(CKR_DEVICE_ERROR), true),
        ("C_Sign * delay 50us", Action::Delay(Duration::from_micros(50)), false),
        ("C_Sign * delay-after 5ms", Action::Delay(Duration::from_millis(5)), true),
        ("C_Sign * delay 2s # slow", Action::Delay(Duration::from_secs(2)), false),
        ("C_Login 1 kill", Action::Kill, false),
        ("C_Login 1 kill-after", Action::Kill, true),
        ("* 1 exit 3", Action::Exit(3), false),
        ("C_Sign 1 corrupt", Action::Corrupt, true),
        ("C_Sign 1 short", Action::Resize(-1), true),
        ("C_SignFinal 1 long 2", Action::Resize(2), true),
        ("C_GetTokenInfo 1 set CKF_USER_PIN_LOCKED", Action::Set(CKF_USER_PIN_LOCKED), true),
        ("C_GetTokenInfo 1 final-try", Action::Set(CKF_USER_PIN_FINAL_TRY), true),
        ("C_GetSlotInfo 1 clear CKF_TOKEN_PRESENT", Action::Clear(CKF_TOKEN_PRESENT), true),
        ("C_Sign 1 gone", Action::Gone(None), false),
        ("C_Sign 1 gone-after 500ms", Action::Gone(Some(Duration::from_millis(500))), true),
        ("C_OpenSession * limit 2", Action::Limit(2), false),
        ("C_Initialize 1 shift-slots 7", Action::ShiftSlots(7), false),
        ("C_Initialize 1 print 4096", Action::Print(4096), false),
        ("C_Initialize 1 fork 2s", Action::Fork(Duration::from_secs(2)), false),
        ("C_Initialize 1 leak 3", Action::Leak(3), false),
    ];
    for (text, action, after) in rows {
        assert_eq!(one(text), (action, after), "{text}");
    }
}

#[test]
fn calls_are_met_by_number_range_step_and_since_the_text_was_changed() {
    let rows: [(&str, u64, &[u64]); 12] = [
        ("3", 0, &[3]),
        ("0", 0, &[]),
        ("2-4", 0, &[2, 3, 4]),
        ("10-", 0, &[10, 11, 12]),
        ("*", 0, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
        ("*/5", 0, &[5, 10]),
        ("2-/5", 0, &[2, 7, 12]),
        ("2-8/3", 0, &[2, 5, 8]),
        ("+1", 4, &[5]),
        ("+2-3", 4, &[6, 7]),
        ("+*/4", 4, &[8, 12]),
        ("3", 4, &[3]),
    ];
    for (calls, base, met) in rows {
        let script = Script::parse(&format!("C_Sign {calls} kill")).unwrap();
        let found: Vec<u64> = (1..=12).filter(|n| script.lines[0].calls.contain(*n, base)).collect();
        assert_eq!(found, met, "{calls} after {base}");
    }
}

#[test]
fn a_line_that_is_none_is_refused_with_its_number_what_was_expected_and_what_was_found() {
    let rows = [
        ("C_Sgin 1 kill", "a function of PKCS#11 2.40", "C_Sgin"),
        ("C_Sign one kill", "calls as 3", "one"),
        ("C_Sign 5-3 kill", "calls as 3", "5-3"),
        ("C_Sign 5/0 kill", "calls as 3", "5/0"),
        ("C_Sign 1 explode", "one of: return CODE", "explode"),
        ("C_Sign 1", "FUNCTION CALLS ACTION", "C_Sign 1"),
        ("C_Sign 1 return", "a return value by name", ""),
        ("C_Sign 1 return CKR_NO_SUCH", "a return value by name", "CKR_NO_SUCH"),
        ("C_Sign 1 delay 5", "a time such as", "5"),
        ("C_Sign 1 kill now", "nothing after kill", "now"),
        ("C_Sign 1 delay 5ms 6ms", "one argument at most", "5ms 6ms"),
        ("C_GetTokenInfo 1 set CKF_NO_SUCH", "a flag by name", "CKF_NO_SUCH"),
        ("C_Login 1 corrupt", "a function that writes octets", "C_Login"),
        ("C_Sign 1 set CKF_RNG", "a function that writes flags", "C_Sign"),
        ("C_Login 1 limit 2", "C_OpenSession", "C_Login"),
        ("counts anew", "`counts file` or `counts process`", "anew"),
    ];
    for (text, expected, found) in rows {
        let error = Script::parse(&format!("# the first line\n{text}\nC_Sign 1 kill\n")).unwrap_err();
        assert_eq!((error.line, error.found.as_str()), (2, found), "{text}: {error}");
        assert!(error.expected.contains(expected), "{text}: {error}");
    }
}

/// Calls a function of PKCS#11 with nothing in particular: it answers before it looks.
pub trait Blank {
    /// # Safety
    /// The function must not look at its arguments, but for a buffer of octets and its length.
    unsafe fn blank(self) -> CK_RV;
}

/// An argument with nothing in particular.
trait Argument {
    fn any() -> Self;
}

impl Argument for u64 {
    fn any() -> Self {
        0
    }
}

impl Argument for u8 {
    fn any() -> Self {
        0
    }
}

impl Argument for CK_NOTIFY {
    fn any() -> Self {
        None
    }
}

/// Of no use to write to, but there: a call without a place for its octets would only ask for their length.
impl<T> Argument for *mut T {
    fn any() -> Self {
        static SOME: [u64; 8] = [8; 8];
        SOME.as_ptr().cast_mut().cast()
    }
}

macro_rules! blank {
    ($($($argument:ident)*;)*) => {
        $(impl<$($argument: Argument),*> Blank for unsafe extern "C" fn($($argument),*) -> CK_RV {
            unsafe fn blank(self) -> CK_RV {
                // SAFETY: the caller says so.
                unsafe { self($($argument::any()),*) }
            }
        })*
    };
}

blank! { A; A B; A B C; A B C D; A B C D E; A B C D E F; A B C D E F G H; }

#[test]
fn every_function_of_the_list_can_fail_before_the_real_one_is_asked() {
    let folder = std::env::temp_dir().join(format!("fault-token-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let script = folder.join("script");
    let code = |place: usize| 0x8000_0000 + place as CK_RV;
    let lines = FUNCTIONS.iter().enumerate().map(|(place, name)| format!("{name} 1 return {:#x}\n", code(place)));
    fs::write(&script, "log calls\n".to_owned() + &lines.collect::<String>()).unwrap();
    // SAFETY: no other test of this process reads or writes the environment.
    unsafe {
        std::env::set_var("FAULT_TOKEN_MODULE", "/usr/lib/softhsm/libsofthsm2.so");
        std::env::set_var("FAULT_TOKEN_SCRIPT", &script);
    }
    let mut list = null_mut();
    let mut answered = Vec::new();
    // SAFETY: one pointer may be written; the list that it then points to is whole; and each first call answers before it looks.
    unsafe {
        assert_eq!(C_GetFunctionList(&raw mut list), code(3), "the list itself can be refused");
        assert_eq!(C_GetFunctionList(&raw mut list), CKR_OK);
        each(&*list, |name, call| answered.push((name, call())));
    }
    let expected: Vec<_> = FUNCTIONS.iter().enumerate().map(|(place, name)| (*name, code(place))).collect();
    let expected: Vec<_> = expected.into_iter().filter(|(name, _)| *name != "C_GetFunctionList").collect();
    assert_eq!(answered, expected);
    let log = fs::read_to_string(folder.join("calls")).unwrap();
    assert_eq!(log.lines().filter(|line| line.contains("asked=no token=-")).count(), FUNCTIONS.len(), "{log}");
    fs::remove_dir_all(&folder).unwrap();
}
