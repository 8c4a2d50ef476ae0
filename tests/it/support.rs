//! What several integration tests need.

pub(crate) mod app;
pub(crate) mod postgres;
pub(crate) mod rabbitmq;
pub(crate) mod smtp;
pub(crate) mod store;
