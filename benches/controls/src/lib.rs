//! What both controls share: the work of the lambdas they are raced against.

use std::{
    borrow::Cow,
    hash::{BuildHasher, RandomState},
};

use serde::{Deserialize, Serialize};

/// What `hello` keeps in its Context.
pub struct Greeter {
    n: u64,
}

impl Greeter {
    /// As the lambda makes it: 1 or 2.
    pub fn new() -> Greeter {
        Greeter { n: 1 + RandomState::new().hash_one(()) % 2 }
    }

    /// What `hello` answers.
    pub fn greet(&self) -> String {
        format!("Hello from Effe:  {}\n", self.n)
    }
}

impl Default for Greeter {
    fn default() -> Self {
        Greeter::new()
    }
}

/// What `json` takes.
#[derive(Deserialize)]
pub struct Order<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    count: u64,
    #[serde(borrow)]
    tags: Vec<Tag<'a>>,
}

#[derive(Deserialize)]
struct Tag<'a>(
    #[serde(borrow)]
    #[expect(dead_code, reason = "only counted, and checked to be text")]
    Cow<'a, str>,
);

/// What `json` answers.
#[derive(Serialize)]
pub struct Receipt {
    greeting: String,
    count: u64,
    tags: usize,
}

/// The work of `json`: `None` for what is no order.
pub fn receipt(body: &[u8]) -> Option<Vec<u8>> {
    if !body.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    let order: Order<'_> = serde_json::from_slice(body).ok()?;
    let greeting = format!("Hello, {}", order.name);
    serde_json::to_vec(&Receipt { greeting, count: order.count.checked_add(1)?, tags: order.tags.len() }).ok()
}

/// The milliseconds of `?ms=N`.
pub fn millis(query: &str) -> u64 {
    query.strip_prefix("ms=").and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The port from the last argument.
pub fn port() -> u16 {
    std::env::args().next_back().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// How many threads serve: the argument before the port, or one.
pub fn workers() -> usize {
    std::env::args().skip(1).rev().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1)
}
