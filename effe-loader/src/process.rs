//! The process as the system sees it: its memory, signals, the orders that they and the admin listener give, and the
//! service manager. It knows neither the server nor the effe, which carry the orders out.

pub mod control;
pub mod link;
pub mod memory;
pub mod signals;
pub mod systemd;
