//! Whether the effe lives and whether it wants requests: what an orchestrator asks before it sends any.

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
    rt::clock::Moment,
};

/// How long the lambda's own word counts.
const FRESH: Duration = Duration::from_secs(1);
/// How long the lambda may think about it: less than the second that Kubernetes waits for an answer.
const PATIENCE: Duration = Duration::from_millis(900);

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Whether the process should be left alone, or started again.
    Liveness,
    /// Whether it wants requests.
    Readiness,
}

impl Probe {
    /// The question that is asked at a path: the paths of Knative's `func` and those of OpenFaaS.
    pub fn at(path: &str) -> Option<Probe> {
        match path {
            "/health/liveness" | "/_/health" => Some(Probe::Liveness),
            "/health/readiness" | "/_/ready" => Some(Probe::Readiness),
            _ => None,
        }
    }
}

/// Why the effe wants no requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unready {
    /// Init has not returned, or no Start has succeeded yet.
    Starting,
    /// It is on its way out.
    Draining,
    /// So many threads are lost to runs that don't end.
    LostThreads(usize),
    /// The lambda says so. The text is the operator's, never the client's.
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

/// What the answers rest on.
pub struct Health {
    /// Once Init has returned.
    effe: OnceLock<Arc<Effe>>,
    /// The lambda's own word.
    word: watch::Sender<Word>,
}

/// What a lambda has said of itself.
#[derive(Clone)]
struct Word {
    /// Whose word it is, and when it was given.
    of: Option<(&'static Plugin, Moment)>,
    said: Result<(), String>,
    /// Whether it is being asked now.
    asking: bool,
}

impl Health {
    /// Of an effe that is starting.
    pub fn new() -> Arc<Health> {
        let (word, _) = watch::channel(Word { of: None, said: Ok(()), asking: false });
        Arc::new(Health { effe: OnceLock::new(), word })
    }

    /// Init has returned: from now on it depends on this effe.
    pub fn serves(&self, effe: &Arc<Effe>) {
        let _ = self.effe.set(Arc::clone(effe));
    }

    /// The effe, once Init has returned.
    pub fn effe(&self) -> Option<&Arc<Effe>> {
        self.effe.get()
    }

    /// Whether the effe wants requests. The lambda is asked on a thread of its own and never waited for longer than
    /// a prober waits; what it said counts for a second.
    ///
    /// # Errors
    /// Why it wants none.
    pub async fn readiness(self: &Arc<Self>) -> Result<(), Unready> {
        let plugin = self.own_readiness()?;
        if plugin.ready_entry().is_none() {
            return Ok(());
        }
        let mut word = self.word.subscribe();
        self.ask(plugin);
        let said = time::timeout(PATIENCE, word.wait_for(|word| word.is_fresh(plugin))).await;
        match said {
            Ok(Ok(word)) => word.said.clone().map_err(Unready::Lambda),
            _ => Err(Unready::Lambda(format!("its ready() takes longer than {PATIENCE:?}"))),
        }
    }

    /// Whether the loader itself sees no reason against requests; the lambda that would be asked next.
    fn own_readiness(&self) -> Result<&'static Plugin, Unready> {
        let effe = self.effe().ok_or(Unready::Starting)?;
        if effe.is_draining() {
            return Err(Unready::Draining);
        }
        if effe.n_lost() > effe.limits.max_lost_threads {
            return Err(Unready::LostThreads(effe.n_lost()));
        }
        let generation = effe.generations.current();
        if generation.is_warm() { Ok(generation.plugin) } else { Err(Unready::Starting) }
    }

    /// Asks the lambda for its word, unless the last one is fresh or it is being asked already.
    fn ask(self: &Arc<Self>, plugin: &'static Plugin) {
        let must_ask = self.word.send_if_modified(|word| {
            let must_ask = !word.asking && !word.is_fresh(plugin);
            word.asking |= must_ask;
            must_ask
        });
        if !must_ask {
            return;
        }
        let health = Arc::clone(self);
        let asked = thread::Builder::new().name("effe-ready".to_owned()).spawn(move || {
            let said = plugin.ready().map_err(|fault| match fault {
                Fault::Error(_, text) | Fault::Panic(text) => text,
            });
            health.word.send_replace(Word { of: Some((plugin, Moment::now())), said, asking: false });
        });
        if let Err(err) = asked {
            let said = Err(format!("no thread to ask it on: {err}"));
            self.word.send_replace(Word { of: Some((plugin, Moment::now())), said, asking: false });
        }
    }
}

impl Word {
    fn is_fresh(&self, plugin: &'static Plugin) -> bool {
        !self.asking && self.of.is_some_and(|(of, when)| std::ptr::eq(of, plugin) && when.elapsed() < FRESH)
    }
}
