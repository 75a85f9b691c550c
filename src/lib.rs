//! `smkid`, an HSM-backed SMKI key management daemon, and `smkictl`, its admin CLI.
//!
//! When a key that GB smart meters trust is Compromised, the SMKI PMA determines whether the DCC uses the Recovery Private Key
//! to put new certificates on the Devices. The daemon signs such a command only after a recorded determination that covers
//! exactly it, and leaves a log that an outsider can check.
//!
//! # The map
//!
//! Read [`pipeline`] first: one chunk of commands, from the request to the release, top to bottom.
//!
//! ```text
//! bin ─▶ service ─▶ pipeline ─▶ recorder ─▶ state ─▶ store ─▶ domain ─▶ nothing of ours
//!    └─▶ cli ─▶ exercise, api ─▶ domain        └──▶ hsm ──────▲
//! service, cli, exercise ─▶ custody ─▶ hsm
//! ```
//!
//! | room | what |
//! |---|---|
//! | [`domain`] | pure: octets and facts in, values out. [`domain::ledger::entry`] is what lies in ledgers, [`domain::fold`] what it amounts to, [`domain::policy::rules`] what may be signed, [`domain::intake`] what may be taken in, [`domain::audit`] all of it again, by an outsider |
//! | [`domain::procedure`] | the SMKI Recovery Procedure as data: which profile is in force at a moment, what it requires, by which text |
//! | [`domain::incident`] | an incident's way through it: [`domain::incident::decide()`] whether a step may be taken, `next` what is to be done, `targets` the Relevant Devices, `timeline` the story, `routes` the way out of the Compromise of which key |
//! | [`domain::files`], [`domain::responses`] | what the procedure's files say; what a Device's answer proves |
//! | [`recorder`] | the one writer: entries durable and under a signed checkpoint, or nothing |
//! | [`state`] | the fold, caught up with the ledger: from its newest snapshot, or from the first entry |
//! | [`store`] | where entries lie |
//! | [`hsm`] | the only way to a private key: a worker process for each token |
//! | [`custody`] | what Key Custodians hold: the split of a sealing secret, shares, sealed PINs, and the vault, the process that alone puts them together |
//! | [`api`] | one route table, the gate, the wire types, the OpenAPI document, the client |
//! | [`service`] | configuration, clock, order of start, the engine behind the API |
//! | [`cli`] | `smkictl`, one file a noun; `member/` what works without a daemon |
//! | [`exercise`] | the rehearsal: lab PKI, lab PMA, simulated Devices; [`exercise::bench`], what a recovery costs on this machine |
//! | [`processors`] | work spread over the processors |
//! | [`durable_file`] | small files that are replaced in one step and for good |
//! | [`mod@wall_clock`] | what time it is by this machine, read in one place |
//!
//! # Where a new thing goes, and who must hear of it
//!
//! - **A kind of entry**: a variant of [`domain::ledger::entry::Event`]. The compiler then names its kind, its blobs, the fold
//!   ([`domain::fold::Fold::apply`]), the audit and the filters of `ledger list`; who may record it says
//!   `audit::Again::check_actor`, and its golden form stands in `domain/ledger/entry/tests.rs`.
//! - **A rule**: a file in `domain/policy/rules/`, a line in one of the lists there, a variant of
//!   [`domain::policy::rules::Refusal`]. Daemon and audit ask it alike.
//! - **A step of an incident**: a variant of [`domain::ledger::steps::Step`]. The compiler then names its meaning, its guard
//!   ([`domain::incident::decide()`]), what it alters and its sentence; by hand go its place in `domain/incident/next.rs`, its command in
//!   `cli/incident/steps.rs` and its step in `keys-policy/procedure/base.toml`.
//! - **An API call**: its types in [`api::wire`], a method of [`api::engine::Engine`] (in the daemon's and in the tests' fake engine), a
//!   row of the table in `api/routes.rs` with its permission, and for a new parameter in the path a line of `path_schema` in
//!   `api/openapi.rs` and one in `tests/it/routes.rs`. What then fails without its part: the sample row in `tests/it/api.rs`, and the
//!   committed OpenAPI document (`SMKID_WRITE_OPENAPI=1 cargo test --test it -- api::the_committed` writes it anew).
//! - **A store**: a file in `store/`, held to the contract in `store/tests.rs`.
//!
//! Which room may know which is a test (`tests/it/architecture.rs`).

#![forbid(unsafe_code)]

pub mod api;
pub mod cli;
pub mod custody;
pub mod domain;
pub mod durable_file;
pub mod exercise;
pub mod hsm;
pub mod pipeline;
pub mod processors;
pub mod recorder;
pub mod service;
pub mod state;
pub mod store;
pub mod wall_clock;
