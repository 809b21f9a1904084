//! Whether the effe is alive and ready, as an orchestrator asks before it sends requests.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use tokio::{sync::watch, time};

use crate::{
    effe::Effe,
    plugin::{Fault, Plugin},
    rt::{clock::Moment, panics::survive},
};

/// How long the lambda's own answer counts.
const FRESH: Duration = Duration::from_secs(1);
/// How long the lambda may take for it: less than the second that Kubernetes waits.
const PATIENCE: Duration = Duration::from_millis(900);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Whether the process should be left alone, or started again.
    Liveness,
    Readiness,
}

impl Probe {
    /// The paths are those of Knative's `func` and of OpenFaaS.
    pub fn at(path: &str) -> Option<Probe> {
        match path {
            "/health/liveness" | "/_/health" => Some(Probe::Liveness),
            "/health/readiness" | "/_/ready" => Some(Probe::Readiness),
            _ => None,
        }
    }
}

/// Why the effe isn't ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unready {
    /// Init has not returned, or no Start has succeeded yet.
    Starting,
    Draining,
    /// So many threads are lost to runs that don't end.
    LostThreads(usize),
    /// The lambda says so. The text is for the operator, never for clients.
    Lambda(String),
}

impl fmt::Display for Unready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unready::Starting => f.write_str("starting: no Start has succeeded yet"),
            Unready::Draining => f.write_str("draining"),
            Unready::LostThreads(n) => write!(f, "{n} threads are lost to runs past --run-timeout"),
            Unready::Lambda(why) => write!(f, "the lambda is not ready: {why}"),
        }
    }
}

pub struct Health {
    /// Set once Init has returned.
    pub effe: OnceLock<Arc<Effe>>,
    last: watch::Sender<Answer>,
}

#[derive(Clone)]
struct Answer {
    /// Whose answer it is, and of when.
    of: Option<(&'static Plugin, Moment)>,
    said: Result<(), String>,
    /// Whether it is being asked now.
    asking: bool,
}

impl Health {
    pub fn new() -> Arc<Health> {
        let (last, _) = watch::channel(Answer { of: None, said: Ok(()), asking: false });
        Arc::new(Health { effe: OnceLock::new(), last })
    }

    /// Whether the effe wants requests. The lambda is asked on a thread of its own, and this waits for it no longer
    /// than a prober would; its answer counts for a second.
    pub async fn readiness(self: &Arc<Self>) -> Result<(), Unready> {
        let plugin = self.own_readiness()?;
        if plugin.ready_entry().is_none() {
            return Ok(());
        }
        let mut last = self.last.subscribe();
        self.ask(plugin, |plugin| {
            plugin.ready().map_err(|fault| match fault {
                Fault::Error(_, text) | Fault::Panic(text) => text,
            })
        });
        match time::timeout(PATIENCE, last.wait_for(|last| last.is_fresh(plugin))).await {
            Ok(Ok(last)) => last.said.clone().map_err(Unready::Lambda),
            _ => Err(Unready::Lambda(format!("its ready() takes longer than {PATIENCE:?}"))),
        }
    }

    /// Whether the loader itself is ready; the lambda that is to be asked next.
    fn own_readiness(&self) -> Result<&'static Plugin, Unready> {
        let effe = self.effe.get().ok_or(Unready::Starting)?;
        if effe.is_draining() {
            return Err(Unready::Draining);
        }
        if effe.n_lost() > effe.limits.max_lost_threads {
            return Err(Unready::LostThreads(effe.n_lost()));
        }
        let generation = effe.generations.current();
        if generation.is_warm() { Ok(generation.plugin) } else { Err(Unready::Starting) }
    }

    /// Asks the lambda by `ask`, on a thread of its own, unless its last answer is fresh or it is being asked already.
    fn ask(
        self: &Arc<Self>,
        plugin: &'static Plugin,
        ask: impl FnOnce(&'static Plugin) -> Result<(), String> + Send + 'static,
    ) {
        let must_ask = self.last.send_if_modified(|last| {
            let must_ask = !last.asking && !last.is_fresh(plugin);
            last.asking |= must_ask;
            must_ask
        });
        if !must_ask {
            return;
        }
        let health = Arc::clone(self);
        let asked = thread::Builder::new().name("effe-ready".to_owned()).spawn(move || {
            health.answered(plugin, survive(|| ask(plugin)));
        });
        if let Err(err) = asked {
            self.answered(plugin, Err(format!("no thread to ask it on: {err}")));
        }
    }

    fn answered(&self, plugin: &'static Plugin, said: Result<(), String>) {
        self.last.send_replace(Answer { of: Some((plugin, Moment::now())), said, asking: false });
    }
}

impl Answer {
    fn is_fresh(&self, plugin: &'static Plugin) -> bool {
        !self.asking && self.of.is_some_and(|(of, when)| std::ptr::eq(of, plugin) && when.elapsed() < FRESH)
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::{effe::testing::effe, plugin::ContextCounts, rt::block_on::block_on};

    #[test]
    fn a_panic_while_the_lambda_is_asked_is_a_no_and_the_next_one_who_asks_hears_from_it() {
        let plugin = effe(&Arc::new(ContextCounts::default())).generations.current().plugin;
        let health = Health::new();
        let mut last = health.last.subscribe();
        let mut outcome =
            |health: &Arc<Health>, ask: fn(&'static Plugin) -> std::result::Result<(), String>| {
                health.ask(plugin, ask);
                let asking = last.wait_for(|last| !last.asking);
                block_on(asking).unwrap().said.clone()
            };
        let said = outcome(&health, |_| panic!("told to"));
        assert!(said.unwrap_err().contains("the loader itself has panicked"));
        // A second later.
        health.last.send_modify(|last| last.of = None);
        assert_eq!(outcome(&health, |_| Ok(())), Ok(()));
    }
}
