//! Bodies, both ways.

pub mod coalesce;
pub mod duplex;
pub mod held;
pub mod incoming;
pub mod min_rate;
pub mod outgoing;
pub mod pipe;
pub mod sender;
pub mod trailers;
pub mod upload;
