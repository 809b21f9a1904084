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
        self.ask(plugin);
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

    /// Asks the lambda, unless its last answer is fresh or it is being asked already.
    fn ask(self: &Arc<Self>, plugin: &'static Plugin) {
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
            let said = survive(|| {
                plugin.ready().map_err(|fault| match fault {
                    Fault::Error(_, text) | Fault::Panic(text) => text,
                })
            });
            health.answered(plugin, said);
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
