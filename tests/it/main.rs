//! All integration tests, in one binary. `tests/run` starts the servers they need.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "tests"
)]

mod app_config;
#[cfg(all(feature = "backstage", feature = "sqlite"))]
mod apprise;
mod auth;
#[cfg(all(feature = "sqlite", feature = "backstage"))]
mod bus;
#[cfg(feature = "backstage")]
mod catalog;
mod channels;
mod cli;
mod config;
mod conformance;
mod crowd;
mod docs;
mod email;
mod foreign;
mod http;
mod import;
mod journey;
mod kill;
mod npm;
mod packages;
mod page;
mod producers;
mod queue;
mod rate;
mod roles;
mod routing;
mod schemas;
mod sender;
mod slack;
mod store;
mod support;
mod worker;
