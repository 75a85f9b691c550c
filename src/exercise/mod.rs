//! Shell: `smkictl exercise`, the rehearsal of a whole recovery, from the ceremony to the last Device's Response.
//!
//! | file | what |
//! |---|---|
//! | `lab` | the lab SMKI PKI, with keys in memory |
//! | `people` | PMA members and their certificates |
//! | `policy` | the policy, made from the example in `keys-policy/` |
//! | `template` | the Recovery command that is approved and sent |
//! | `device`, `fleet` | simulated Devices, and the checks of what they answer |
//! | `softhsm` | the tokens |
//! | `layout` | what is left behind |
//! | `tell` | what is said to whoever watches |

pub mod device;
pub mod fleet;
pub mod lab;
pub mod layout;
pub mod people;
pub mod policy;
pub mod softhsm;
pub mod tell;
pub mod template;
