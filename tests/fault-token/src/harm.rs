//! What a module in trouble does to the process that has loaded it.

use std::ffi::c_int;
use std::io::Write as _;
use std::thread;
use std::time::Duration;

/// Never returns; other threads go on.
pub fn hang() -> ! {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

/// The same, with a processor at full load.
pub fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

/// Stops the process, until somebody continues it.
pub fn stop() {
    signal_self(libc::SIGSTOP);
}

/// Ends the process as nothing can prevent.
pub fn kill() -> ! {
    signal_self(libc::SIGKILL);
    hang()
}

/// To the calling thread, so that it does not go on while another takes the signal in.
fn signal_self(signal: c_int) {
    // SAFETY: raise(3) touches no memory of ours, and both signals stop or end the process as a whole.
    unsafe { libc::raise(signal) };
}

/// Touches a page that nobody may touch, as a stray pointer does.
pub fn segfault() -> ! {
    // SAFETY: mmap(2) of new memory touches none of ours. The write is the fault that was asked for: the page may not be
    // written, and the process ends here.
    unsafe {
        let page =
            libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
        page.cast::<u8>().write_volatile(1);
    }
    hang()
}

/// Ends the process as a library should not, its exit handlers included.
pub fn exit(status: c_int) -> ! {
    // SAFETY: exit(3) may be called from anywhere but an exit handler.
    unsafe { libc::exit(status) }
}

/// Writes on standard output; whether anybody reads it is not our affair.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Makes a child that does nothing for so long and has whatever is inherited.
pub fn fork(so_long: Duration) {
    let seconds = libc::c_uint::try_from(so_long.as_secs().max(1)).unwrap_or(libc::c_uint::MAX);
    // SAFETY: between fork(2) and _exit(2) the child of a process with several threads calls only functions that are safe
    // in a signal handler: sleep(3) and _exit(2).
    unsafe {
        if libc::fork() == 0 {
            libc::sleep(seconds);
            libc::_exit(0);
        }
    }
}

/// Signals that end a process politely, or that it may wish to have for itself.
const SIGNALS: [c_int; 12] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGPIPE,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGIO,
];

/// Takes every signal and does nothing, as some modules do for their own ends.
pub fn handle_signals() {
    extern "C" fn nothing(_: c_int) {}
    let handler: extern "C" fn(c_int) = nothing;
    dispose(handler as usize);
}

/// Ignores every signal that can be.
pub fn ignore_signals() {
    dispose(libc::SIG_IGN);
}

fn dispose(handler: usize) {
    for signal in SIGNALS {
        // SAFETY: the handler is a function that touches nothing, or SIG_IGN.
        unsafe { libc::signal(signal, handler) };
    }
}

/// Opens descriptors that nobody closes and that every program executed from here inherits.
pub fn leak(descriptors: usize) {
    for _ in 0..descriptors {
        // SAFETY: open(2) with a path that ends in NUL; without O_CLOEXEC on purpose.
        unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY) };
    }
}
