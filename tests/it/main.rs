//! The one integration crate.

#![allow(
    clippy::unwrap_used,
    reason = "all of this crate is tests, helpers included: a failed unwrap is a failed test"
)]

mod activation;
mod apex;
mod api;
mod architecture;
mod audit;
mod ceremony;
mod ceremony_run;
mod certificates;
mod certificates_vectors;
mod chaos;
mod clock;
mod cms;
mod containment;
mod contingency;
mod contingency_determined;
mod copies;
mod crash;
mod custodians;
mod custody;
mod directions;
mod exercise;
mod fault_token;
mod files;
mod gates;
mod gbcs_vectors;
mod healing;
mod hsm;
mod incident;
mod jobs;
mod ledger_scale;
mod output;
mod people;
mod policy;
mod procedure_rules;
mod recorder;
mod responses;
mod returns;
mod rollback;
mod routes;
mod smkictl;
mod smkid;
mod snapshots;
mod spy;
mod store;
mod support;
mod systemd;
mod transitions;

use support::lab;
