//! How the models try what they try.

use std::env;

/// Orders to try; `EFFE_ORDERS` in the long proofs.
pub fn orders() -> usize {
    env::var("EFFE_ORDERS").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000)
}

/// Half of the orders at random, half with few switches at bad moments, which finds other faults.
pub fn under_all_orders(test: impl Fn() + Send + Sync + Copy + 'static) {
    shuttle::check_random(test, orders() / 2);
    shuttle::check_pct(test, orders() / 2, 3);
}
