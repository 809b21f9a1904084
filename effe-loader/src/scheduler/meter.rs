//! What is counted while requests are served. Each thread of the server counts for itself, and so does the pool; whoever
//! asks adds it up. Where nobody can ask, nothing is counted.

use std::{
    collections::BTreeMap,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actix_http::{Method, StatusCode};

/// The upper ends of the buckets: those that OpenTelemetry asks for, and below them some for runs that never wait.
const BOUNDS: [Duration; 17] = [
    Duration::from_micros(10),
    Duration::from_micros(100),
    Duration::from_micros(1_000),
    Duration::from_micros(5_000),
    Duration::from_micros(10_000),
    Duration::from_micros(25_000),
    Duration::from_micros(50_000),
    Duration::from_micros(75_000),
    Duration::from_micros(100_000),
    Duration::from_micros(250_000),
    Duration::from_micros(500_000),
    Duration::from_micros(750_000),
    Duration::from_micros(1_000_000),
    Duration::from_micros(2_500_000),
    Duration::from_micros(5_000_000),
    Duration::from_micros(7_500_000),
    Duration::from_micros(10_000_000),
];

/// The methods that are told apart; all others are one.
const METHODS: [&str; 10] =
    ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE", "OTHER"];

/// The statuses that are told apart: 100 to 599.
const STATUSES: usize = 500;

/// The counts of one thread, or of few.
///
/// Every access is relaxed: each number is one by itself.
#[derive(Default)]
pub struct Meter {
    answers: [OnceLock<Box<ByStatus>>; METHODS.len()],
    runs: Histogram,
    starts: Histogram,
    cold_starts: AtomicU64,
    errors: AtomicU64,
    timeouts: AtomicU64,
}

/// Answers to one method.
struct ByStatus([OnceLock<Box<Histogram>>; STATUSES]);

impl Default for ByStatus {
    fn default() -> ByStatus {
        ByStatus([const { OnceLock::new() }; STATUSES])
    }
}

impl Meter {
    /// A request was answered.
    pub fn answered(&self, method: &Method, status: StatusCode, took: Duration) {
        let place = METHODS.iter().position(|name| *name == method.as_str()).unwrap_or(METHODS.len() - 1);
        let by_status = self.answers[place].get_or_init(Box::default);
        let place = usize::from(status.as_u16()).saturating_sub(100).min(STATUSES - 1);
        by_status.0[place].get_or_init(Box::default).add(took);
    }

    /// A run ended.
    pub fn ran(&self, took: Duration) {
        self.runs.add(took);
    }

    /// A Start ended that a request waited for.
    pub fn started(&self, took: Duration) {
        self.starts.add(took);
        self.cold_starts.fetch_add(1, Ordering::Relaxed);
    }

    /// A request met an error or a panic of the lambda's.
    pub fn failed(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// A client was told that its run takes too long.
    pub fn timed_out(&self) {
        self.timeouts.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Histogram {
    /// The last one is for what is longer than every bound.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

impl Histogram {
    fn add(&self, took: Duration) {
        // Most are in the first ones.
        let place = BOUNDS.iter().position(|bound| took <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[place].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}

/// The counts of all threads.
#[derive(Debug, Default)]
pub struct Totals {
    /// How long answers took, by method and status.
    pub answers: BTreeMap<(&'static str, u16), Spread>,
    /// How long runs took.
    pub runs: Spread,
    /// How long Starts took that a request waited for.
    pub starts: Spread,
    /// How many those were.
    pub cold_starts: u64,
    /// Requests that met an error or a panic of the lambda's.
    pub errors: u64,
    /// Requests whose run took too long.
    pub timeouts: u64,
}

impl Totals {
    /// Adds the counts of one meter.
    pub fn add(&mut self, meter: &Meter) {
        for (method, by_status) in METHODS.into_iter().zip(&meter.answers) {
            let Some(by_status) = by_status.get() else { continue };
            for (status, histogram) in (100..).zip(&by_status.0) {
                if let Some(histogram) = histogram.get() {
                    self.answers.entry((method, status)).or_default().add(histogram);
                }
            }
        }
        self.runs.add(&meter.runs);
        self.starts.add(&meter.starts);
        self.cold_starts += meter.cold_starts.load(Ordering::Relaxed);
        self.errors += meter.errors.load(Ordering::Relaxed);
        self.timeouts += meter.timeouts.load(Ordering::Relaxed);
    }
}

/// How times are spread.
#[derive(Clone, Debug, Default)]
pub struct Spread {
    counts: [u64; BOUNDS.len() + 1],
    nanos: u64,
}

impl Spread {
    fn add(&mut self, histogram: &Histogram) {
        for (count, bucket) in self.counts.iter_mut().zip(&histogram.buckets) {
            *count += bucket.load(Ordering::Relaxed);
        }
        self.nanos = self.nanos.wrapping_add(histogram.nanos.load(Ordering::Relaxed));
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them together, in seconds.
    pub fn seconds(&self) -> f64 {
        Duration::from_nanos(self.nanos).as_secs_f64()
    }

    /// The upper end of each bucket in seconds, and how many are in it and in none before.
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        let ends = BOUNDS.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
        ends.zip(self.counts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_threads_count_adds_up() {
        let meters = [Meter::default(), Meter::default()];
        let short = Duration::from_micros(7);
        for meter in &meters {
            meter.answered(&Method::GET, StatusCode::OK, short);
            meter.answered(&Method::GET, StatusCode::OK, Duration::from_millis(5));
            meter.answered(&Method::from_bytes(b"BREW").unwrap(), StatusCode::IM_A_TEAPOT, short);
            meter.ran(short);
            meter.started(Duration::from_secs(60));
            meter.failed();
        }
        meters[0].timed_out();
        let mut totals = Totals::default();
        meters.iter().for_each(|meter| totals.add(meter));
        assert_eq!(totals.answers.keys().collect::<Vec<_>>(), [&("GET", 200), &("OTHER", 418)]);
        let get = &totals.answers[&("GET", 200)];
        assert_eq!((get.count(), get.seconds()), (4, 0.010_014));
        assert_eq!(get.buckets().iter().map(|(_, n)| *n).collect::<Vec<_>>()[..5], [2, 0, 0, 2, 0]);
        assert_eq!(totals.starts.buckets().last(), Some(&(f64::INFINITY, 2)), "longer than every bound");
        assert_eq!((totals.runs.count(), totals.cold_starts, totals.errors, totals.timeouts), (2, 2, 2, 1));
    }

    #[test]
    fn labels_are_bounded_whatever_clients_send() {
        let meter = Meter::default();
        for method in ["GET", "get", "PROPFIND", "X", "OTHER", "TRACE"] {
            meter.answered(&Method::from_bytes(method.as_bytes()).unwrap(), StatusCode::OK, Duration::ZERO);
        }
        for status in [100, 599, 600, 999] {
            meter.answered(&Method::GET, StatusCode::from_u16(status).unwrap(), Duration::ZERO);
        }
        let mut totals = Totals::default();
        totals.add(&meter);
        let keys: Vec<_> = totals.answers.keys().copied().collect();
        assert_eq!(keys, [("GET", 100), ("GET", 200), ("GET", 599), ("OTHER", 200), ("TRACE", 200)]);
        assert_eq!(totals.answers[&("OTHER", 200)].count(), 4);
    }

    #[test]
    fn the_bounds_rise() {
        assert!(BOUNDS.is_sorted());
    }
}
