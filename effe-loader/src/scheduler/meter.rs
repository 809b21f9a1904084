//! What is counted while requests are served. Each thread of the server counts for itself, and so does the pool;
//! whoever asks adds it up. Where nobody can ask, nothing is counted.

use std::{
    collections::BTreeMap,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{Method, StatusCode};
use serde_json::{Value, json};

/// The upper ends of the buckets, in microseconds: those that OpenTelemetry asks for, and below them some for runs that
/// never wait.
const BOUNDS: [u64; 17] = [
    10, 100, 1_000, 5_000, 10_000, 25_000, 50_000, 75_000, 100_000, 250_000, 500_000, 750_000, 1_000_000,
    2_500_000, 5_000_000, 7_500_000, 10_000_000,
];

/// The methods that are told apart; all others are one.
const METHODS: [&str; 10] =
    ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE", "OTHER"];

/// The statuses that are told apart: 100 to 599.
const STATUSES: usize = 500;

/// The counts of one thread, or of few. Every access is relaxed: no number depends on another.
#[derive(Default)]
pub struct Meter {
    answers: [OnceLock<Box<ByStatus>>; METHODS.len()],
    runs: Histogram,
    starts: Histogram,
    errors: AtomicU64,
    timeouts: AtomicU64,
}

struct ByStatus([OnceLock<Box<Histogram>>; STATUSES]);

impl Default for ByStatus {
    fn default() -> ByStatus {
        ByStatus([const { OnceLock::new() }; STATUSES])
    }
}

impl Meter {
    pub fn answered(&self, method: &Method, status: StatusCode, took: Duration) {
        let place = METHODS.iter().position(|name| *name == method.as_str()).unwrap_or(METHODS.len() - 1);
        let by_status = self.answers[place].get_or_init(Box::default);
        let place = usize::from(status.as_u16()).saturating_sub(100).min(STATUSES - 1);
        by_status.0[place].get_or_init(Box::default).add(took);
    }

    pub fn ran(&self, took: Duration) {
        self.runs.add(took);
    }

    /// A Start ended that a request waited for.
    pub fn started(&self, took: Duration) {
        self.starts.add(took);
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

/// How times are spread.
#[derive(Debug, Default)]
pub struct Histogram {
    /// The last one is for what is longer than every bound.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

impl Histogram {
    fn add(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        // Most are in the first ones.
        let place = BOUNDS.iter().position(|bound| nanos <= bound * 1_000).unwrap_or(BOUNDS.len());
        self.buckets[place].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn add_all(&self, other: &Histogram) {
        for (bucket, others) in self.buckets.iter().zip(&other.buckets) {
            bucket.fetch_add(others.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.nanos.fetch_add(other.nanos.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    fn to_json(&self) -> Value {
        let buckets = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        buckets.chain([self.nanos.load(Ordering::Relaxed)]).collect()
    }

    fn from_json(value: &Value) -> Option<Histogram> {
        let (histogram, numbers) = (Histogram::default(), value.as_array()?);
        let (nanos, buckets) = numbers.split_last()?;
        if buckets.len() != histogram.buckets.len() {
            return None;
        }
        for (bucket, n) in histogram.buckets.iter().zip(buckets) {
            bucket.store(n.as_u64().filter(is_credible)?, Ordering::Relaxed);
        }
        histogram.nanos.store(nanos.as_u64().filter(is_credible)?, Ordering::Relaxed);
        Some(histogram)
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// All times together.
    pub fn seconds(&self) -> f64 {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed)).as_secs_f64()
    }

    /// The upper end of each bucket in seconds, and how many are in it and in none before.
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        let ends = BOUNDS.iter().map(|micros| Duration::from_micros(*micros).as_secs_f64());
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        ends.chain([f64::INFINITY]).zip(counts).collect()
    }
}

impl Clone for Histogram {
    fn clone(&self) -> Histogram {
        let copy = Histogram::default();
        copy.add_all(self);
        copy
    }
}

/// The counts of all threads.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// By method and status.
    pub answers: BTreeMap<(&'static str, u16), Histogram>,
    pub runs: Histogram,
    /// Starts that a request waited for.
    pub starts: Histogram,
    pub errors: u64,
    pub timeouts: u64,
}

impl Totals {
    pub fn add(&mut self, meter: &Meter) {
        for (method, by_status) in METHODS.into_iter().zip(&meter.answers) {
            let Some(by_status) = by_status.get() else { continue };
            for (status, histogram) in (100..).zip(&by_status.0) {
                if let Some(histogram) = histogram.get() {
                    self.answers.entry((method, status)).or_default().add_all(histogram);
                }
            }
        }
        self.runs.add_all(&meter.runs);
        self.starts.add_all(&meter.starts);
        self.errors += meter.errors.load(Ordering::Relaxed);
        self.timeouts += meter.timeouts.load(Ordering::Relaxed);
    }
}

/// Whether a process can have counted so much. The lambda may have written anything there, and sums must not overflow.
fn is_credible(n: &u64) -> bool {
    *n <= u64::MAX >> 16
}

/// The totals of one process in another.
impl Totals {
    pub fn merge(&mut self, other: &Totals) {
        for (key, histogram) in &other.answers {
            self.answers.entry(*key).or_default().add_all(histogram);
        }
        self.runs.add_all(&other.runs);
        self.starts.add_all(&other.starts);
        self.errors += other.errors;
        self.timeouts += other.timeouts;
    }

    pub fn to_json(&self) -> Value {
        let answers = self.answers.iter();
        json!({
            "answers": answers.map(|((method, status), spread)| json!([method, status, spread.to_json()])).collect::<Value>(),
            "runs": self.runs.to_json(),
            "starts": self.starts.to_json(),
            "errors": self.errors,
            "timeouts": self.timeouts,
        })
    }

    pub fn from_json(value: &Value) -> Option<Totals> {
        let answer = |answer: &Value| {
            let method = answer.get(0)?.as_str()?;
            let method = METHODS.into_iter().find(|known| *known == method)?;
            let status = u16::try_from(answer.get(1)?.as_u64()?).ok()?;
            Some(((method, status), Histogram::from_json(answer.get(2)?)?))
        };
        Some(Totals {
            answers: value.get("answers")?.as_array()?.iter().map(answer).collect::<Option<_>>()?,
            runs: Histogram::from_json(value.get("runs")?)?,
            starts: Histogram::from_json(value.get("starts")?)?,
            errors: value.get("errors")?.as_u64().filter(is_credible)?,
            timeouts: value.get("timeouts")?.as_u64().filter(is_credible)?,
        })
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
        let counts = (totals.runs.count(), totals.starts.count(), totals.errors, totals.timeouts);
        assert_eq!(counts, (2, 2, 2, 1));
        assert!(BOUNDS.is_sorted());
        let mut twice = Totals::from_json(&totals.to_json()).unwrap();
        assert_eq!(twice.to_json(), totals.to_json());
        twice.merge(&totals);
        let get = &twice.answers[&("GET", 200)];
        assert_eq!((get.count(), twice.runs.count(), twice.errors, twice.timeouts), (8, 4, 4, 2));
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
}
