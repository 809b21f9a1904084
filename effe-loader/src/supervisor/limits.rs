//! What a process may have before it is replaced. It decides by what it is told.

use std::time::{Duration, Instant};

use super::process::Id;
use crate::boot::config::Recycling as Limits;

/// Why a process is to be replaced that has so much, as a word for metrics and in a sentence. Each has a limit of its
/// own, up to a tenth less, so that those that were started together are not replaced together.
pub fn exceeded(limits: &Limits, id: Id, memory: u64, requests: u64) -> Option<(&'static str, String)> {
    let own = |limit: u64| limit - limit / 10 * jitter(id) / 256;
    if let Some(limit) = limits.memory.filter(|limit| memory > own(*limit)) {
        let [has, may] = [memory, limit].map(|bytes| bytes >> 20);
        return Some(("memory", format!("has {has} MiB of memory (--max-memory is {may} MiB)")));
    }
    let limit = limits.requests.filter(|limit| requests >= own(*limit).max(1))?;
    Some(("requests", format!("has had {requests} requests (--max-requests is {limit})")))
}

/// A number below 256 that differs from one process to the next.
fn jitter(id: Id) -> u64 {
    id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56
}

/// Who is being replaced, and what has been seen.
#[derive(Default)]
pub struct Recycling {
    /// The process that goes, and its successor.
    pub under_way: Option<(Id, Id)>,
    pub not_before: Option<Instant>,
    /// What all processes had had at the last look, and when the next one is.
    pub seen: (u64, Duration),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_has_a_limit_of_its_own_which_is_never_above_the_operators() {
        let limits = Limits { memory: Some(100 << 20), requests: Some(1_000) };
        let at = |id| (0..=1_000).find(|n| exceeded(&limits, id, 0, *n).is_some()).unwrap();
        let all: Vec<u64> = (1..=20).map(at).collect();
        assert!(all.iter().all(|n| (900..=1_000).contains(n)), "{all:?}");
        assert!(all.windows(2).all(|two| two[0] != two[1]), "{all:?}");
        assert_eq!(exceeded(&limits, 1, (100 << 20) + 1, 0).unwrap().0, "memory");
        assert_eq!(exceeded(&limits, 1, 90 << 20, 0), None);
        let one = Limits { memory: None, requests: Some(1) };
        assert_eq!((exceeded(&one, 1, u64::MAX, 0), exceeded(&one, 1, 0, 1).unwrap().0), (None, "requests"));
        assert!(exceeded(&Limits::default(), 1, u64::MAX, u64::MAX).is_none());
    }
}
