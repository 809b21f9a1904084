//! The effe's metrics, in the text that Prometheus and OpenTelemetry's collector read.
//!
//! Three families have the names that OpenFaaS dashboards look for, `http_*`; those of `faas_*` are OpenTelemetry's;
//! `effe_*` are ours. Every label has few values, whatever clients send: no path, host or header is one.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, prometheus_text, text},
    metrics::{MetricType, exemplar::Exemplar},
    registry::{Registry, Unit},
};

use super::state::Admin;
use crate::{
    effe::Effe,
    placement::Place,
    scheduler::meter::{Histogram, Totals},
};

/// All metrics as text, and its media type: OpenMetrics for a scraper that asks for it in an `Accept` header, else
/// Prometheus's own format.
pub fn text<'a>(
    admin: &Admin,
    is_ready: bool,
    mut accepts: impl Iterator<Item = &'a str>,
) -> Result<(String, &'static str), fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape::take(admin, is_ready)));
    let mut text = String::with_capacity(16 * 1024);
    if accepts.any(|accept| accept.contains("application/openmetrics-text")) {
        text::encode(&mut text, &registry)?;
        return Ok((text, "application/openmetrics-text; version=1.0.0; charset=utf-8"));
    }
    prometheus_text::encode(&mut text, &registry)?;
    Ok((text, "text/plain; version=0.0.4; charset=utf-8"))
}

/// What all numbers are at one moment, more or less.
#[derive(Debug, Default)]
struct Scrape {
    totals: Totals,
    counters: Vec<(&'static str, &'static str, u64)>,
    gauges: Vec<(&'static str, &'static str, u64)>,
    /// Idle and busy.
    contexts: [u64; 2],
    image_bytes: u64,
    place: Option<Place>,
}

impl Scrape {
    fn take(admin: &Admin, is_ready: bool) -> Scrape {
        let mut scrape = Scrape {
            counters: vec![
                ("effe_log_losses", "Log records that were dropped", admin.journal.losses()),
                (
                    "effe_access_log_losses",
                    "Lines of the access log that were dropped",
                    admin.journal.access_losses(),
                ),
            ],
            gauges: vec![("effe_ready", "1 if the effe wants requests", is_ready.into())],
            ..Scrape::default()
        };
        if let Some(effe) = admin.health.effe.get() {
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
        let current = effe.generations.current();
        self.place = Some(current.placement.current());
        self.counters.extend([
            ("effe_contexts_started", "Contexts that Start has made", started),
            ("effe_contexts_stopped", "Contexts that were stopped", started.saturating_sub(living)),
        ]);
        self.gauges.extend([
            ("http_requests_in_flight", "Requests that are being answered", effe.n_running() as u64),
            ("effe_generation", "The number of the generation that serves", current.number),
            ("effe_generations", "Generations that are not retired", generations.len() as u64),
            (
                "effe_execution_changes",
                "Times that the generation that serves has changed where it runs",
                current.placement.n_changes(),
            ),
            ("effe_held_bytes", "Bytes of bodies that are held, see --held-limit", effe.held.total() as u64),
            ("effe_queue_length", "Requests that wait for a thread", effe.pool.n_waiting() as u64),
            ("effe_pool_threads", "Threads that run what may wait", effe.pool.n_threads() as u64),
            ("effe_lost_threads", "Threads that are lost to runs past --run-timeout", effe.n_lost() as u64),
        ]);
    }
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
        for (name, help, value) in of_faas.iter().chain(&self.counters) {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            family.encode_counter(value, NO_EXEMPLAR)?;
        }
        for (name, help, value) in &self.gauges {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(value)?;
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
        for place in Place::ALL {
            let is_it = u64::from(self.place.unwrap_or(Place::Pool) == place);
            family.encode_family(&[("where", place.name())])?.encode_gauge(&is_it)?;
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

const NO_EXEMPLAR: Option<&Exemplar<NoLabelSet, u64>> = None;

fn histogram(mut encoder: prometheus_client::encoding::MetricEncoder<'_>, spread: &Histogram) -> fmt::Result {
    encoder.encode_histogram::<NoLabelSet>(spread.seconds(), spread.count(), &spread.buckets(), None)
}
