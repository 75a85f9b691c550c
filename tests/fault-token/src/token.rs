//! The token as the client sees it: whether it is there, under which slot number, and which of the client's sessions live.
//!
//! A token that was gone has forgotten its sessions and its login, though the real one has not: the handles from before are
//! refused, and the real module's sessions are closed before the first new one is opened.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use cryptoki_sys::{
    CK_RV, CK_SESSION_HANDLE, CK_SLOT_ID, CKR_DEVICE_REMOVED, CKR_SESSION_HANDLE_INVALID, CKR_TOKEN_NOT_PRESENT,
};

use crate::module;

/// What a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The module alone.
    Module,
    /// A token in a slot.
    Token,
    /// A token, for a new session in this slot, by the real module's number.
    NewSession(CK_SLOT_ID),
    /// A session.
    Session(CK_SESSION_HANDLE),
}

static SHIFT: AtomicU64 = AtomicU64::new(0);
static SESSIONS: Mutex<Sessions> =
    Mutex::new(Sessions { open: BTreeSet::new(), dead: BTreeSet::new(), times_gone: None, forgets: false });
/// Held while the real module runs, so that its sessions are never closed under a running call.
static RUNS: RwLock<()> = RwLock::new(());

struct Sessions {
    open: BTreeSet<CK_SESSION_HANDLE>,
    dead: BTreeSet<CK_SESSION_HANDLE>,
    /// How often the token had gone when it was last looked; `None` before the first look.
    times_gone: Option<u64>,
    /// Whether the real module has still to forget what was before.
    forgets: bool,
}

fn sessions() -> MutexGuard<'static, Sessions> {
    SESSIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The answer for want of the token or the session; `gone` is whether it is, and how often it went.
pub fn refuses(need: Need, (gone, times): (bool, u64)) -> Option<CK_RV> {
    let mut sessions = sessions();
    // What went before this process came is not its affair.
    let before = *sessions.times_gone.get_or_insert(times);
    if before != times {
        sessions.times_gone = Some(times);
        let open = std::mem::take(&mut sessions.open);
        sessions.dead.extend(open);
        sessions.forgets = true;
    }
    match need {
        Need::Module => None,
        Need::Token | Need::NewSession(_) if gone => Some(CKR_TOKEN_NOT_PRESENT),
        Need::Session(_) if gone => Some(CKR_DEVICE_REMOVED),
        Need::Session(handle) if sessions.dead.contains(&handle) => Some(CKR_SESSION_HANDLE_INVALID),
        Need::Token | Need::NewSession(_) | Need::Session(_) => None,
    }
}

/// Calls the real module.
pub fn asked(need: Need, call: impl FnOnce() -> CK_RV) -> CK_RV {
    if need == Need::Module {
        // These wait for events, or end everything: nothing is closed under them that they would miss.
        return call();
    }
    if let Need::NewSession(slot) = need
        && std::mem::take(&mut sessions().forgets)
    {
        let _alone = RUNS.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(close) = module().ok().and_then(|module| module.real.C_CloseAllSessions) {
            // SAFETY: PKCS#11 2.40, 5.6: C_CloseAllSessions takes a slot's number.
            unsafe { close(slot) };
        }
    }
    let _runs = RUNS.read().unwrap_or_else(PoisonError::into_inner);
    call()
}

/// A session was opened. The real module may use a number anew.
pub fn opened(handle: CK_SESSION_HANDLE) {
    let mut sessions = sessions();
    sessions.dead.remove(&handle);
    sessions.open.insert(handle);
}

/// A session was closed.
pub fn closed(handle: CK_SESSION_HANDLE) {
    sessions().open.remove(&handle);
}

/// All were.
pub fn all_closed() {
    sessions().open.clear();
}

/// The module has ended, and knows nothing any more.
pub fn finalized() {
    let mut sessions = sessions();
    sessions.open.clear();
    sessions.dead.clear();
    sessions.forgets = false;
}

/// How many sessions this process has.
pub fn open_sessions() -> usize {
    sessions().open.len()
}

/// Slots have other numbers from here on.
pub fn shift_slots(by: u64) {
    SHIFT.store(by, Ordering::SeqCst);
}

/// The number under which the client sees a slot.
pub fn shown(slot: CK_SLOT_ID) -> CK_SLOT_ID {
    slot.wrapping_add(SHIFT.load(Ordering::SeqCst))
}

/// The real module's number of a slot.
pub fn real(slot: CK_SLOT_ID) -> CK_SLOT_ID {
    slot.wrapping_sub(SHIFT.load(Ordering::SeqCst))
}
