//! Bytes between the loader and its clients: listening sockets, connections, TLS, and how long clients may take. What
//! the bytes mean is left to `http`.

pub mod activity;
pub mod address;
pub mod bind;
pub mod connection;
pub mod connections;
pub mod descriptors;
pub mod listeners;
pub mod plain;
pub mod private_listener;
pub mod socket_file;
#[cfg_attr(not(feature = "tls"), path = "net/tls/disabled.rs")]
pub mod tls;
pub mod token;
pub mod tracker;
