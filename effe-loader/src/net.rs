//! Bytes between the loader and its clients: listeners, connections, TLS.

pub mod activity;
pub mod address;
pub mod bind;
pub mod connection;
pub mod connections;
pub mod descriptors;
pub mod listeners;
pub mod plain;
pub mod socket_file;
pub mod stream;
#[cfg_attr(not(feature = "tls"), path = "net/tls/disabled.rs")]
pub mod tls;
pub mod tracker;
