//! What the admin listener knows of an effe in this process, and all of its state as JSON.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    metrics::Scrape,
    operations::{Later, Operations},
};
use crate::{
    effe::{
        generation::Generation,
        health::{Health, Unready},
    },
    journal::{Journal, Severity},
    plugin::Plugin,
    process::{
        control::{Change, Changed, Control, Stop},
        signals::Watchdog,
    },
};

/// What the listener shows, and where its orders go.
pub struct Admin {
    pub health: Arc<Health>,
    /// The generation that the loader was started with.
    pub first: &'static Plugin,
    pub journal: Journal,
    /// Where the effe serves.
    pub address: String,
    pub control: Control,
    /// Ends the process if an order to stop is not obeyed in time.
    pub watchdog: Watchdog,
}

impl Admin {
    /// The plugin of the generation that serves.
    pub fn plugin(&self) -> &'static Plugin {
        self.health.effe.get().map_or(self.first, |effe| effe.generations.current().plugin)
    }
}

impl Operations for Admin {
    fn readiness(&self) -> Later<'_, Result<(), String>> {
        Box::pin(async { self.health.readiness().await.map_err(|why| why.to_string()) })
    }

    fn state(&self) -> Later<'_, Value> {
        Box::pin(async { state(self, self.health.readiness().await) })
    }

    fn info(&self) -> Later<'_, Bytes> {
        Box::pin(async { Bytes::from_static(self.plugin().info().as_bytes()) })
    }

    fn scrape(&self) -> Later<'_, Scrape> {
        Box::pin(async {
            let is_ready = self.health.readiness().await.is_ok();
            Scrape::take(&self.journal, self.health.effe.get().map(|effe| &**effe), is_ready)
        })
    }

    fn level(&self) -> Severity {
        self.journal.level()
    }

    fn set_level(&self, level: Severity) {
        self.journal.set_level(level);
    }

    fn change(&self, change: Change) -> Later<'_, Option<Result<Changed, String>>> {
        let outcome = self.control.change(change);
        Box::pin(async { outcome.await.ok() })
    }

    fn drain(&self) {
        self.journal.notice("drain: told so by the admin listener");
        let stop = Stop::wanted();
        self.control.stop(stop);
        self.watchdog.arm(stop);
    }
}

/// The beginning of a state: what this process is, and whether the effe is ready, or why not.
pub fn overview(
    (state, reason): (&str, Option<String>),
    address: &str,
    level: Severity,
    n_losses: u64,
) -> Value {
    json!({
        "state": state,
        "reason": reason,
        "version": env!("CARGO_PKG_VERSION"),
        "commit": env!("EFFE_COMMIT"),
        "pid": std::process::id(),
        "address": address,
        "log": { "level": level.as_str(), "losses": n_losses },
    })
}

pub fn state(admin: &Admin, readiness: Result<(), Unready>) -> Value {
    let (state, reason) = match readiness {
        Ok(()) => ("ready", None),
        Err(Unready::Starting) => ("starting", None),
        Err(Unready::Draining) => ("draining", None),
        Err(why) => ("unready", Some(why.to_string())),
    };
    let journal = &admin.journal;
    let mut all = overview((state, reason), &admin.address, journal.level(), journal.losses());
    if let Some(effe) = admin.health.effe.get() {
        all["generation"] = effe.generations.current().number.into();
        all["generations"] = effe.generations.all().iter().map(|one| generation(one)).collect();
        all["image_bytes"] = effe.context_counts.images().into();
        all["running"] = effe.n_running().into();
        all["waiting"] = effe.pool.n_waiting().into();
        all["lost_threads"] = effe.n_lost().into();
        if let Some(results) = effe.events.results() {
            all["events"] =
                results.into_iter().map(|(result, n)| (result.to_owned(), Value::from(n))).collect();
            all["events"]["under_way"] = effe.events.under_way().into();
        }
    }
    all
}

fn generation(generation: &Generation) -> Value {
    let plugin = generation.plugin;
    json!({
        "number": generation.number,
        "plugin": plugin.path,
        "age_seconds": generation.opened.elapsed().as_secs(),
        "requests": generation.n_runs(),
        "errors": generation.n_errors(),
        "upgraded": generation.n_streams(),
        "execution": generation.placement.current().name(),
        "contexts": {
            "started": plugin.contexts.started(),
            "live": plugin.contexts.living(),
            "idle": generation.contexts.n_idle(),
        },
        "image_bytes": plugin.image,
    })
}
