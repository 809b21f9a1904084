//! The effe's metrics, in the text that Prometheus and OpenTelemetry's collector read.
//!
//! Three families have the names that OpenFaaS dashboards look for, `http_*`; those of `faas_*` are OpenTelemetry's;
//! `effe_*` are ours. Every label has few values, whatever clients send: no path, host or header is one.

use std::{collections::BTreeMap, fmt};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, prometheus_text, text},
    metrics::{MetricType, exemplar::Exemplar},
    registry::{Registry, Unit},
};
use serde_json::{Value, json};

use crate::{
    effe::Effe,
    journal::Journal,
    placement::Place,
    scheduler::meter::{Histogram, Totals},
};

/// All metrics as text, and its media type: OpenMetrics for a scraper that asks for it in an `Accept` header, else
/// Prometheus's own format.
pub fn text<'a>(
    scrape: Scrape,
    mut accepts: impl Iterator<Item = &'a str>,
) -> Result<(String, &'static str), fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(scrape));
    let mut text = String::with_capacity(16 * 1024);
    if accepts.any(|accept| accept.contains("application/openmetrics-text")) {
        text::encode(&mut text, &registry)?;
        return Ok((text, "application/openmetrics-text; version=1.0.0; charset=utf-8"));
    }
    prometheus_text::encode(&mut text, &registry)?;
    Ok((text, "text/plain; version=0.0.4; charset=utf-8"))
}

const COUNTERS: [(&str, &str); 4] = [
    ("effe_log_losses", "Log records that were dropped"),
    ("effe_access_log_losses", "Lines of the access log that were dropped"),
    ("effe_contexts_started", "Contexts that Start has made"),
    ("effe_contexts_stopped", "Contexts that were stopped"),
];

/// The first two are the same in all processes of an effe, the others add up.
const GAUGES: [(&str, &str); 8] = [
    ("effe_generation", "The number of the generation that serves"),
    ("effe_generations", "Generations that are not retired"),
    ("http_requests_in_flight", "Requests that are being answered"),
    ("effe_execution_changes", "Times that the generation that serves has changed where it runs"),
    ("effe_held_bytes", "Bytes of bodies that are held, see --held-limit"),
    ("effe_queue_length", "Requests that wait for a thread"),
    ("effe_pool_threads", "Threads that run what may wait"),
    ("effe_lost_threads", "Threads that are lost to runs past --run-timeout"),
];

/// What all numbers are at one moment, more or less.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    pub is_ready: bool,
    totals: Totals,
    counters: [u64; COUNTERS.len()],
    /// `None` while there is no effe, and from a process that has ended.
    gauges: Option<[u64; GAUGES.len()]>,
    /// Idle and busy.
    contexts: [u64; 2],
    image_bytes: u64,
    /// Processes whose lambda runs in each of the places.
    places: [u64; Place::ALL.len()],
    /// Connections that each generation has taken over.
    upgraded: BTreeMap<u64, u64>,
    /// Events that nobody waits for: under way, and what became of others; if there can be any.
    events: Option<(u64, [(&'static str, u64); 4])>,
    /// What a supervisor has counted.
    pub supervised: Option<Counted>,
}

/// What a supervisor counts of its processes.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Processes that serve.
    pub serving: u64,
    /// Processes that were started in the place of others that had ended unexpectedly.
    pub restarts: u64,
    /// Unexpected ends, by the signal or, without one, `exit`.
    pub crashes: BTreeMap<String, u64>,
    /// Processes that were replaced while they served, by the reason.
    pub recycled: BTreeMap<&'static str, u64>,
    /// Times that all processes have ended because no request came.
    pub sleeps: u64,
    /// Times that another program of the loader's has taken over.
    pub upgrades: u64,
    /// Contexts of processes that have ended which were not stopped.
    pub abandoned: u64,
    /// Connections of processes that have ended which others have taken over.
    pub adopted: u64,
    /// Requests whose process has ended, and whose clients were told to try again.
    pub told: u64,
    /// Answers that were broken off because their process has ended.
    pub broken: u64,
}

impl Scrape {
    pub fn take(journal: &Journal, effe: Option<&Effe>, is_ready: bool) -> Scrape {
        let mut scrape = Scrape { is_ready, ..Scrape::default() };
        [scrape.counters[0], scrape.counters[1]] = [journal.losses(), journal.access_losses()];
        if let Some(effe) = effe {
            scrape.look_at(effe);
        }
        scrape
    }

    fn look_at(&mut self, effe: &Effe) {
        self.totals = effe.totals().unwrap_or_default();
        let counts = &effe.context_counts;
        let (started, living) = (counts.started(), counts.living());
        let generations = effe.generations.all();
        let idle: usize = generations.iter().map(|generation| generation.contexts.n_idle()).sum();
        self.contexts = [idle as u64, living.saturating_sub(idle as u64)];
        self.image_bytes = counts.images();
        self.upgraded = generations.iter().map(|one| (one.number, one.n_streams() as u64)).collect();
        let current = effe.generations.current();
        let place = current.placement.current();
        self.places = Place::ALL.map(|one| u64::from(one == place));
        let under_way = effe.events.under_way() as u64;
        self.events = effe.events.results().map(|results| (under_way, results));
        [self.counters[2], self.counters[3]] = [started, started.saturating_sub(living)];
        self.gauges = Some([
            current.number,
            generations.len() as u64,
            effe.n_running() as u64,
            current.placement.n_changes(),
            effe.held.total() as u64,
            effe.pool.n_waiting() as u64,
            effe.pool.n_threads() as u64,
            effe.n_lost() as u64,
        ]);
    }

    /// Nothing yet, of a supervisor.
    pub fn supervised() -> Scrape {
        Scrape { supervised: Some(Counted::default()), ..Scrape::default() }
    }

    /// Adds the numbers of another process of the same effe.
    pub fn add(&mut self, other: &Scrape) {
        self.is_ready |= other.is_ready;
        self.totals.merge(&other.totals);
        (0..COUNTERS.len()).for_each(|n| self.counters[n] += other.counters[n]);
        if let Some(others) = &other.gauges {
            let gauges = self.gauges.get_or_insert_default();
            for (n, (gauge, other)) in gauges.iter_mut().zip(others).enumerate() {
                *gauge = if n < 2 { (*gauge).max(*other) } else { *gauge + other };
            }
        }
        (0..2).for_each(|n| self.contexts[n] += other.contexts[n]);
        self.image_bytes += other.image_bytes;
        (0..self.places.len()).for_each(|n| self.places[n] += other.places[n]);
        for (generation, n) in &other.upgraded {
            *self.upgraded.entry(*generation).or_default() += n;
        }
    }

    /// Adds what a process had counted that has ended: the counters go on, and the rest of it is gone. `started` and
    /// `stopped` are its Contexts; those that were not stopped never will be.
    pub fn add_ended(&mut self, other: &Scrape, started: u64, stopped: u64) {
        self.totals.merge(&other.totals);
        (0..2).for_each(|n| self.counters[n] += other.counters[n]);
        self.counters[2] += started;
        self.counters[3] += stopped;
        if let Some(supervised) = &mut self.supervised {
            supervised.abandoned += started.saturating_sub(stopped);
        }
    }

    /// For [`Scrape::from_json`] in another process.
    pub fn to_json(&self) -> Value {
        json!({
            "is_ready": self.is_ready,
            "totals": self.totals.to_json(),
            "counters": self.counters,
            "gauges": self.gauges,
            "contexts": self.contexts,
            "image_bytes": self.image_bytes,
            "places": self.places,
            "upgraded": self.upgraded.iter().collect::<Vec<_>>(),
            "supervised": self.supervised.as_ref().map(Counted::to_json),
        })
    }

    pub fn from_json(value: &Value) -> Option<Scrape> {
        let gauges = value.get("gauges")?;
        Some(Scrape {
            is_ready: value.get("is_ready")?.as_bool()?,
            totals: Totals::from_json(value.get("totals")?)?,
            counters: numbers(value.get("counters")?)?,
            gauges: if gauges.is_null() { None } else { Some(numbers(gauges)?) },
            contexts: numbers(value.get("contexts")?)?,
            image_bytes: value.get("image_bytes")?.as_u64()?,
            places: numbers(value.get("places")?)?,
            upgraded: upgraded(value.get("upgraded")?)?,
            // Several processes have no listener for AWS's clients.
            events: None,
            // Of a process it has nothing to say, whatever it claims.
            supervised: None,
        })
    }

    /// What a supervisor has counted, from the program before it.
    pub fn of_supervisor(value: &Value) -> Option<Scrape> {
        Some(Scrape {
            supervised: Some(Counted::from_json(value.get("supervised")?)?),
            ..Scrape::from_json(value)?
        })
    }
}

/// So many numbers, each of which a process may claim to be anything: sums must not overflow.
fn numbers<const N: usize>(value: &Value) -> Option<[u64; N]> {
    let numbers: Option<Vec<u64>> =
        value.as_array()?.iter().map(|n| Some(n.as_u64()? & (u64::MAX >> 16))).collect();
    numbers?.try_into().ok()
}

/// Generations, and the connections that each has taken over.
fn upgraded(value: &Value) -> Option<BTreeMap<u64, u64>> {
    value.as_array()?.iter().map(|pair| numbers(pair).map(|[generation, n]| (generation, n))).collect()
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Totals { answers, runs, starts, errors, timeouts } = &self.totals;
        let labels = |&(method, status): &(&'static str, u16)| {
            [("code", status.to_string()), ("method", method.to_owned())]
        };
        let mut family =
            encoder.encode_descriptor("http_requests", "Requests answered", None, MetricType::Counter)?;
        for (key, spread) in answers {
            let labels = labels(key);
            family.encode_family(&labels)?.encode_counter(&spread.count(), NO_EXEMPLAR)?;
        }
        let mut family = encoder.encode_descriptor(
            "http_request_duration",
            "From a request's head to its answer",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for (key, spread) in answers {
            let labels = labels(key);
            histogram(family.encode_family(&labels)?, spread)?;
        }
        for (name, help, spread) in [
            ("faas_invoke_duration", "Runs of the lambda", runs),
            ("faas_init_duration", "Starts that a request waited for", starts),
        ] {
            let seconds = Some(&Unit::Seconds);
            histogram(encoder.encode_descriptor(name, help, seconds, MetricType::Histogram)?, spread)?;
        }
        let of_faas = [
            ("faas_coldstarts", "Requests that waited for a Start", starts.count()),
            ("faas_errors", "Requests that met an error or a panic of the lambda's", *errors),
            ("faas_timeouts", "Requests whose run took longer than --run-timeout", *timeouts),
        ];
        let n_counters = if self.gauges.is_some() { COUNTERS.len() } else { 2 };
        let counters = COUNTERS.iter().zip(self.counters).take(n_counters);
        let counters = counters.map(|(&(name, help), value)| (name, help, value));
        for (name, help, value) in of_faas.into_iter().chain(counters) {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            family.encode_counter(&value, NO_EXEMPLAR)?;
        }
        let is_ready = ("effe_ready", "1 if the effe wants requests", u64::from(self.is_ready));
        let gauges = GAUGES.iter().zip(self.gauges.iter().flatten());
        let gauges = gauges.map(|(&(name, help), &value)| (name, help, value));
        for (name, help, value) in std::iter::once(is_ready).chain(gauges) {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
        }
        if let Some(supervised) = &self.supervised {
            supervised.encode(&mut encoder)?;
        }
        let mut family =
            encoder.encode_descriptor("effe_contexts", "Contexts that live", None, MetricType::Gauge)?;
        for (state, n) in ["idle", "busy"].into_iter().zip(self.contexts) {
            family.encode_family(&[("state", state)])?.encode_gauge(&n)?;
        }
        let mut family = encoder.encode_descriptor(
            "effe_execution",
            "1 for where the lambda runs: on the server's threads, on the pool, or in its own runtime",
            None,
            MetricType::Gauge,
        )?;
        let has_place = self.places.iter().any(|n| *n > 0);
        for (place, n) in Place::ALL.into_iter().zip(self.places) {
            let n = if has_place { n } else { u64::from(place == Place::Pool) };
            family.encode_family(&[("where", place.name())])?.encode_gauge(&n)?;
        }
        let help = "Connections that a generation has taken over for another protocol";
        let mut family =
            encoder.encode_descriptor("effe_upgraded_connections", help, None, MetricType::Gauge)?;
        for (generation, n) in &self.upgraded {
            family.encode_family(&[("generation", generation.to_string())])?.encode_gauge(n)?;
        }
        if let Some((under_way, results)) = &self.events {
            let help = "Events that nobody waits for, which wait or run";
            encoder
                .encode_descriptor("effe_aws_events_under_way", help, None, MetricType::Gauge)?
                .encode_gauge(under_way)?;
            let help = "Events that nobody waits for, by what became of them";
            let mut family = encoder.encode_descriptor("effe_aws_events", help, None, MetricType::Counter)?;
            for (result, n) in results {
                family.encode_family(&[("result", *result)])?.encode_counter(n, NO_EXEMPLAR)?;
            }
        }
        let help = "Memory that the images of all generations take, those that are retired too";
        let bytes = Some(&Unit::Bytes);
        encoder
            .encode_descriptor("effe_image", help, bytes, MetricType::Gauge)?
            .encode_gauge(&self.image_bytes)?;
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("commit", env!("EFFE_COMMIT"))];
        let mut family =
            encoder.encode_descriptor("effe_build", "The loader that serves", None, MetricType::Info)?;
        family.encode_info(&labels)
    }
}

/// Why a process is replaced that has had enough.
const REASONS: [&str; 2] = ["memory", "requests"];

impl Counted {
    /// For [`Counted::from_json`] in a program that goes on in this one's place.
    fn to_json(&self) -> Value {
        json!({
            "restarts": self.restarts,
            "crashes": self.crashes,
            "recycled": self.recycled,
            "sleeps": self.sleeps,
            "upgrades": self.upgrades,
            "abandoned": self.abandoned,
            "adopted": self.adopted,
            "told": self.told,
            "broken": self.broken,
        })
    }

    fn from_json(value: &Value) -> Option<Counted> {
        let number = |key: &str| value.get(key)?.as_u64();
        let crashes = value.get("crashes")?.as_object()?.iter();
        let recycled = value.get("recycled")?;
        let recycled = REASONS.into_iter().filter_map(|reason| Some((reason, recycled[reason].as_u64()?)));
        Some(Counted {
            serving: 0,
            restarts: number("restarts")?,
            crashes: crashes.map(|(name, n)| Some((name.clone(), n.as_u64()?))).collect::<Option<_>>()?,
            recycled: recycled.collect(),
            sleeps: number("sleeps")?,
            upgrades: number("upgrades")?,
            abandoned: number("abandoned")?,
            adopted: number("adopted")?,
            told: number("told")?,
            broken: number("broken")?,
        })
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Processes that serve";
        encoder
            .encode_descriptor("effe_processes", help, None, MetricType::Gauge)?
            .encode_gauge(&self.serving)?;
        let help = "Processes that were started in the place of one that had ended unexpectedly";
        encoder
            .encode_descriptor("effe_process_restarts", help, None, MetricType::Counter)?
            .encode_counter(&self.restarts, NO_EXEMPLAR)?;
        for (name, help, value) in [
            ("effe_sleeps", "Times that all processes have ended because no request came", self.sleeps),
            ("effe_upgrades", "Times that another program of the loader's has taken over", self.upgrades),
            (
                "effe_contexts_abandoned",
                "Contexts that were not stopped because their process has ended",
                self.abandoned,
            ),
            ("effe_connections_adopted", "Connections that went on in another process", self.adopted),
            (
                "effe_requests_told",
                "Requests that were answered with 503 because their process had ended",
                self.told,
            ),
            (
                "effe_answers_broken",
                "Answers that were broken off because their process had ended",
                self.broken,
            ),
        ] {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            family.encode_counter(&value, NO_EXEMPLAR)?;
        }
        let help = "Processes that were replaced while they served, because they had had enough";
        let mut family = encoder.encode_descriptor("effe_recycled", help, None, MetricType::Counter)?;
        for (reason, n) in &self.recycled {
            family.encode_family(&[("reason", *reason)])?.encode_counter(n, NO_EXEMPLAR)?;
        }
        let help = "Processes that have ended unexpectedly";
        let mut family = encoder.encode_descriptor("effe_crashes", help, None, MetricType::Counter)?;
        for (signal, n) in &self.crashes {
            family.encode_family(&[("signal", &**signal)])?.encode_counter(n, NO_EXEMPLAR)?;
        }
        Ok(())
    }
}

const NO_EXEMPLAR: Option<&Exemplar<NoLabelSet, u64>> = None;

fn histogram(mut encoder: prometheus_client::encoding::MetricEncoder<'_>, spread: &Histogram) -> fmt::Result {
    encoder.encode_histogram::<NoLabelSet>(spread.seconds(), spread.count(), &spread.buckets(), None)
}
