//! When a process is started again, and when a swap is taken back. It decides by what it is told, and has no clock.
//!
//! One bad request must not take the service from everybody else: a process that had served is started again at once,
//! however often that happens. One that has died before it served well is started again later each time: most likely
//! the next one dies, too.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::carried::{ago, then};

/// The first delay, and the longest.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);
/// How long no process must have died for the effe to be calm again.
const CALM: Duration = Duration::from_secs(60);
/// How many deaths take a swap back, and how soon after it.
const N_DEATHS: u32 = 3;
const SOON: Duration = Duration::from_secs(30);

#[derive(Default)]
pub struct Restarts {
    last: Option<Instant>,
    delay: Duration,
    /// A swap that may still be taken back, and how many processes have died since.
    swapped: Option<(Instant, u32)>,
}

/// What is to be done about a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// When another process is to be started.
    pub after: Duration,
    /// Whether the generation before is to serve again.
    pub rolls_back: bool,
}

impl Restarts {
    /// For [`Restarts::carried`] in the program that goes on.
    pub fn carry(&self) -> Value {
        let delay = u64::try_from(self.delay.as_millis()).unwrap_or(u64::MAX);
        let swapped = self.swapped.map(|(at, n)| (ago(at), n));
        json!({ "last": self.last.map(ago), "delay": delay, "swapped": swapped })
    }

    pub fn carried(value: &Value) -> Option<Restarts> {
        let swapped = &value["swapped"];
        let n = swapped[1].as_u64().and_then(|n| u32::try_from(n).ok());
        let delay = Duration::from_millis(value["delay"].as_u64()?);
        Some(Restarts { last: then(&value["last"]), delay, swapped: then(&swapped[0]).zip(n) })
    }

    pub fn is_calm(&self, now: Instant) -> bool {
        self.last.is_none_or(|last| now.saturating_duration_since(last) >= CALM)
    }

    /// Another generation serves, by an order. Deaths are only blamed on it if the one before was calm.
    pub fn swapped(&mut self, now: Instant) {
        self.swapped = self.is_calm(now).then_some((now, 0));
    }

    /// A process has died that nobody had told to end; whether it had served well before.
    pub fn died(&mut self, now: Instant, had_served: bool) -> Verdict {
        if self.is_calm(now) {
            self.delay = Duration::ZERO;
        }
        self.last = Some(now);
        let after = if had_served { Duration::ZERO } else { self.delay };
        if !had_served {
            self.delay = (self.delay * 2).clamp(SHORTEST, LONGEST);
        }
        let mut rolls_back = false;
        if let Some((at, n)) = &mut self.swapped {
            *n += 1;
            let is_soon = now.saturating_duration_since(*at) <= SOON;
            rolls_back = is_soon && *n == N_DEATHS;
            if rolls_back || !is_soon {
                self.swapped = None;
            }
        }
        Verdict { after, rolls_back }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    enum Event {
        /// Had served, or not; then what is expected: after so many milliseconds, and whether it rolls back.
        Death(bool, u64, bool),
        Swap,
    }
    use Event::{Death, Swap};

    /// Goes through events, each so many milliseconds after the start.
    fn check(name: &str, events: &[(u64, Event)]) {
        let (start, mut restarts) = (Instant::now(), Restarts::default());
        for (n, (at, event)) in events.iter().enumerate() {
            let now = start + Duration::from_millis(*at);
            match event {
                Swap => restarts.swapped(now),
                Death(had_served, after, rolls_back) => {
                    let expected = Verdict { after: Duration::from_millis(*after), rolls_back: *rolls_back };
                    assert_eq!(restarts.died(now, *had_served), expected, "{name}, event {n}");
                }
            }
        }
    }

    #[test]
    fn the_table() {
        let early = |after| Death(false, after, false);
        let late = |after| Death(true, after, false);
        check("the first is at once", &[(0, early(0))]);
        check(
            "then later each time, up to ten seconds",
            &[
                (0, early(0)),
                (10, early(100)),
                (200, early(200)),
                (500, early(400)),
                (1_000, early(800)),
                (2_000, early(1_600)),
                (4_000, early(3_200)),
                (8_000, early(6_400)),
                (15_000, early(10_000)),
                (26_000, early(10_000)),
            ],
        );
        check(
            "calm after a minute",
            &[(0, early(0)), (1, early(100)), (60_001, early(0)), (60_002, early(100))],
        );
        check("not before", &[(0, early(0)), (1, early(100)), (60_000, early(200))]);
        check(
            "who had served comes back at once",
            &[(0, late(0)), (1, late(0)), (2, late(0)), (3, early(0)), (4, early(100))],
        );
        check(
            "which keeps the delay of those who had not",
            &[(0, early(0)), (1, early(100)), (2, late(0)), (3, early(200))],
        );
        let third = |at| (at, Death(true, 0, true));
        check(
            "three deaths soon after a swap",
            &[(0, Swap), (1, late(0)), (2, late(0)), third(3), (4, late(0))],
        );
        check(
            "in half a minute",
            &[(0, Swap), (1, late(0)), (2, late(0)), (30_001, late(0)), (30_002, late(0))],
        );
        check(
            "not if the one before was not calm",
            &[(0, late(0)), (1, Swap), (2, late(0)), (3, late(0)), (4, late(0))],
        );
        check(
            "a swap starts anew",
            &[(0, Swap), (1, late(0)), (2, late(0)), (90_000, Swap), (90_001, late(0))],
        );
        check(
            "the one that is rolled back to is not rolled back",
            &[
                (0, Swap),
                (1, late(0)),
                (2, late(0)),
                third(3),
                (4, Swap),
                (5, late(0)),
                (6, late(0)),
                (7, late(0)),
            ],
        );
    }
}
