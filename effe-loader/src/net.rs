//! Bytes between the loader and its clients: listeners, connections, TLS.

pub mod activity;
pub mod connection;
pub mod connections;
pub mod listeners;
pub mod plain;
pub mod stream;
#[cfg_attr(not(feature = "tls"), path = "net/tls/disabled.rs")]
pub mod tls;
pub mod tracker;
