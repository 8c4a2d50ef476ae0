//! What several integration tests need.

pub(crate) mod app;
pub(crate) mod hook;
pub(crate) mod page;
pub(crate) mod postgres;
pub(crate) mod producer;
pub(crate) mod rabbitmq;
pub(crate) mod servers;
#[cfg(feature = "slack")]
pub(crate) mod slack;
pub(crate) mod smtp;
pub(crate) mod store;
