//! Tidings: a notification pipeline.

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
