//! The process as the system sees it: what it may do, its memory, signals, the orders that they and the admin listener
//! give, and the service manager. It knows neither the server nor the effe, which carry the orders out.

#[cfg_attr(not(feature = "processes"), path = "process/confine/disabled.rs")]
pub mod confine;
pub mod control;
pub mod exit;
pub mod link;
pub mod memory;
pub mod signals;
pub mod systemd;
