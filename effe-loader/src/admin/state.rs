//! What the admin listener knows of the effe, and all of its state as JSON.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    effe::{
        generation::Generation,
        health::{Health, Unready},
    },
    journal::Journal,
    plugin::Plugin,
    process::{control::Control, signals::Watchdog},
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

pub async fn state(admin: &Admin) -> Value {
    let (state, reason) = match admin.health.readiness().await {
        Ok(()) => ("ready", None),
        Err(Unready::Starting) => ("starting", None),
        Err(Unready::Draining) => ("draining", None),
        Err(why) => ("unready", Some(why.to_string())),
    };
    let mut all = json!({
        "state": state,
        "reason": reason,
        "version": env!("CARGO_PKG_VERSION"),
        "commit": env!("EFFE_COMMIT"),
        "pid": std::process::id(),
        "address": admin.address,
        "log": { "level": admin.journal.level().as_str(), "losses": admin.journal.losses() },
    });
    if let Some(effe) = admin.health.effe.get() {
        all["generation"] = effe.generations.current().number.into();
        all["generations"] = effe.generations.all().iter().map(|one| generation(one)).collect();
        all["image_bytes"] = effe.context_counts.images().into();
        all["running"] = effe.n_running().into();
        all["waiting"] = effe.pool.n_waiting().into();
        all["lost_threads"] = effe.n_lost().into();
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
        "execution": generation.placement.current().name(),
        "contexts": {
            "started": plugin.contexts.started(),
            "live": plugin.contexts.living(),
            "idle": generation.contexts.n_idle(),
        },
        "image_bytes": plugin.image,
    })
}
