//! Shell: the one way in. HTTP/1.1 with JSON over a Unix socket, with peer credentials; no port, no TLS, no session.
//!
//! A request goes `listener → authenticate → routes → engine`: the listener knows who is at the other end, `authenticate`
//! turns that into a [`Permitted`](authenticate::Permitted), and nothing but a `Permitted` hands out the engine. A new call is
//! one method of [`Engine`](engine::Engine), one handler and one row in [`routes`]; the OpenAPI document and the test that
//! sends every wrong caller to every route are made from that row.

pub mod authenticate;
pub mod client;
pub mod engine;
pub mod failure;
pub mod listener;
pub mod openapi;
pub mod routes;
pub mod wire;
