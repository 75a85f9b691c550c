//! Shell: what Key Custodians hold, and what opens by it.
//!
//! A random *sealing secret* is split k of n ([`scheme`]); each share goes to one custodian in a file that only they can open
//! ([`share_file`]). The secret seals the PIN of each token of a key ([`sealing`]), and the sealed PINs lie in the state directory
//! ([`file`](mod@file)). Who is at a console opens a share and seals it to the *vault* ([`present`]), a process that alone puts the shares together and
//! gives a PIN to the worker of its token and to nobody else ([`vault`]).
//!
//! Nothing here decides whether a share *should* be taken: that was judged and recorded before.

pub mod file;
pub mod present;
pub mod scheme;
pub mod sealing;
pub mod share_file;
pub mod vault;
