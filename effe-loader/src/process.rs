//! The process as the system sees it: signals, orders, and the service manager.

pub mod control;
pub mod signals;
pub mod systemd;
