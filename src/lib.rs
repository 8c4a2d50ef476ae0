//! Tidings: a notification pipeline. Producers submit once; Tidings works out who should hear of
//! it, keeps it in each person's inbox, tells their open page, and delivers it by e-mail and
//! more, without losing one or sending one twice.
//!
//! # The walk of one notification
//! 1. [`ingest`] authenticates the caller, checks the [`submission`] and publishes it; the answer
//!    202 means that the [`queue`] has confirmed it. A producer may publish to the queue itself.
//! 2. [`decorator`] expands [`recipients`] through the [`catalog`], cuts a large audience into
//!    [`chunk`]s that other decorator workers share, runs the decorators, and persists rows,
//!    counters and pending deliveries in one transaction of the [`store`]. Deliveries, signals and
//!    replies are made from what the store returns, also when the work is repeated.
//! 3. [`sender`] claims deliveries, sends each through its [`processor`] while the claim holds,
//!    and records what came of it.
//! 4. [`inbox`] serves what was stored, in the protocol of Backstage's notifications plugin;
//!    [`signals`] tells open pages; [`console`] is the page.
//!
//! [`worker`] is the loop that all workers run; [`runner`] makes a process of a set of roles.
//!
//! # Invariants
//! - A file uses only floors below its own. Floor 0 does no I/O and knows no clock.
//! - `queue.rs` has never heard of notifications.
//! - `lapin` appears only in `queue/rabbitmq`, `tokio_postgres` only in `store/postgres`,
//!   `rusqlite` only in the SQLite files, `lettre` only in `processor/email`.
//! - A processor never sees a queue handle: it cannot acknowledge.
//! - A role never names a back end; only `runner/backend.rs` chooses one, and `runner/import.rs`
//!   reads that of a Backstage.
//! - Logs, metrics and errors carry ids, refs, counts and reasons, never title, text, link,
//!   metadata, address or secret.

// Floor 0: pure; no I/O, no clock.
pub mod chunk;
pub mod delivery;
pub mod failure;
pub mod notification;
pub mod recipients;
pub mod reply;
pub mod settings;
pub mod signal;
pub mod submission;
pub mod time;
pub mod topology;
pub mod view;

// Floor 1: the doors.
pub mod catalog;
pub mod processor;
pub mod queue;
pub mod store;

// Floor 2: the outside world.
pub mod auth;
#[cfg(feature = "backstage")]
pub mod backstage;
#[cfg(feature = "client")]
pub mod client;
pub mod config;
pub mod http;
#[cfg(feature = "sqlite")]
pub mod sqlite;
pub mod telemetry;

// Floor 3: roles.
pub mod console;
pub mod decorator;
pub mod inbox;
pub mod ingest;
pub mod sender;
pub mod signals;
pub mod worker;

// Floor 4.
pub mod runner;

/// The examples of the README are compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
