//! The loader's life in order, from valid arguments to exit code: open the lambda, start the log, bind, Init, the first
//! Start, serve, drain, stop. Each step is another module's.

#[doc(hidden)]
pub mod bench;
pub mod cli;
pub(crate) mod config;

use std::{
    io::Write,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use effe_abi::Linked;

use self::config::{Config, Mode};
use crate::{
    admin::{self, Admin},
    effe::{Effe, generation::Generation, health::Health, maintenance::Maintenance, monitor::Monitor, swap},
    error::{DONE, Error, FAILED},
    exchange::table::FOR_HOST,
    journal::{Journal, LinkedLambda, Severity},
    net::{address::Address, bind::Bound, descriptors, listeners::Listener, socket_file::SocketFile},
    plugin::{self, ContextCounts, Fault, Plugin, PluginFile, Policy, Started, Verified, host::Host},
    process::{
        control::{Control, Orders, Stop},
        memory,
        signals::{self, Watchdog},
        systemd,
    },
    rt::panics::survive,
    server::{self, OnDeath, Server},
};

/// Does what the arguments say: the exit code, or what keeps the loader from serving.
pub(crate) fn run(config: &Config, linked: Option<&'static Linked>) -> Result<u8, Error> {
    signals::outlive_file_limit();
    let inherited = Bound::inherited()?;
    let n_descriptors = descriptors::raise_limit();
    if config.mode == Mode::Serve {
        has_room(config, inherited.len(), n_descriptors)?;
    }
    let host = Host::new(config.parameters.clone(), config.limits.response, FOR_HOST);
    let counts = Arc::new(ContextCounts::default());
    let (lambda, warning) = match linked {
        Some(lambda) => (Lambda::Open(Plugin::linked(lambda, host, &counts)), None),
        None => {
            let file = PluginFile::open(&config.plugin, &config.generations.policy)?;
            let warning = file.warning.clone();
            (Lambda::Verified(verified(file, &config.generations.policy)?), warning)
        }
    };
    if config.mode == Mode::Info {
        if let Some(warning) = warning {
            let _ = writeln!(std::io::stderr(), "effe-loader: warning: {warning}");
        }
        return Ok(print(lambda.info()));
    }
    let plugin = lambda.open(host, &counts)?;
    // From here on there are threads.
    let journal = Journal::start(config.journal())
        .map_err(|source| Error::System { what: "start the log's thread".into(), source })?;
    let request_id = FOR_HOST.request_id;
    journal.install(linked.map(|lambda| LinkedLambda { crate_name: lambda.crate_name(), request_id }));
    let _ = host.journal.set(journal.clone());
    if let Some(warning) = warning {
        journal.warning(warning);
    }
    let outcome = survive(|| {
        Ok(if config.mode == Mode::Check {
            check(plugin)
        } else {
            let (control, orders) = Control::new();
            let counts = Arc::clone(&counts);
            let starting = Starting { config, plugin, counts, journal: &journal, control };
            starting.serve(inherited, n_descriptors, orders)
        })
    });
    let outcome = outcome.unwrap_or_else(|panicked| {
        journal.critical(format!("{panicked}; {} Contexts were not stopped", counts.living()));
        Ok(FAILED)
    });
    // Longer than one line may wait for a syslog daemon that has stopped reading.
    journal.close(Duration::from_secs(2));
    outcome
}

/// Fails if the process may have fewer descriptors or less memory than it needs to serve.
fn has_room(config: &Config, n_inherited: usize, n_descriptors: u64) -> Result<(), Error> {
    let (workers, admin) = (config.server.workers, config.admin.is_some());
    let needed = descriptors::needed(workers, config.listen.len() + n_inherited, admin);
    if needed > n_descriptors {
        return Err(Error::Descriptors { workers, needed, limit: n_descriptors });
    }
    // The acceptor, the journal, the monitor, a thread of the pool, the watchdog.
    match memory::too_little(workers + 5 + usize::from(admin)) {
        Some((needed, limit)) => Err(Error::Memory { workers, needed, limit }),
        None => Ok(()),
    }
}

enum Lambda {
    /// Part of this program.
    Open(&'static Plugin),
    Verified(Verified),
}

impl Lambda {
    fn info(&self) -> &str {
        match self {
            Lambda::Open(plugin) => plugin.info(),
            Lambda::Verified(verified) => &verified.info,
        }
    }

    #[expect(unsafe_code, reason = "the place that trusts a plugin")]
    fn open(self, host: &'static Host, counts: &Arc<ContextCounts>) -> Result<&'static Plugin, Error> {
        match self {
            Lambda::Open(plugin) => Ok(plugin),
            // SAFETY: as in `verified`.
            Lambda::Verified(verified) => unsafe { verified.open(host, counts) },
        }
    }
}

#[expect(unsafe_code, reason = "the place that trusts a plugin")]
pub(crate) fn answer_trial(path: &Path) -> ! {
    // SAFETY: the loader that started this process for it trusts the file.
    unsafe { plugin::answer_trial(path) }
}

#[expect(unsafe_code, reason = "the place that trusts a plugin")]
fn verified(file: PluginFile, policy: &Policy) -> Result<Verified, Error> {
    // SAFETY: the operator named this file for us to run, and answers for it; no thread has been started.
    unsafe { Verified::by_fork(file, policy) }
}

/// Init, one Start, one Stop, Retire.
fn check(plugin: &'static Plugin) -> Result<u8, Error> {
    let failed =
        |step| move |fault: Fault| Error::Step { path: plugin.path.clone(), step, what: fault.to_string() };
    plugin.init()?;
    match plugin.start() {
        Started::Ready(context) => context.stop().map_err(failed("stop"))?,
        Started::Failed(_, fault) | Started::Panicked(fault) => return Err(failed("start")(fault)),
    }
    plugin.retire().map_err(failed("retire"))?;
    Ok(DONE)
}

struct Starting<'a> {
    config: &'a Config,
    plugin: &'static Plugin,
    counts: Arc<ContextCounts>,
    journal: &'a Journal,
    control: Control,
}

impl Starting<'_> {
    /// Serves until an order says to stop, and stops.
    fn serve(self, inherited: Vec<Bound>, n_descriptors: u64, orders: Orders) -> Result<u8, Error> {
        let system = |what: &str| {
            let what = what.to_owned().into();
            move |source| Error::System { what, source }
        };
        let config = self.config;
        let drain = config.server.drain;
        let watchdog = Watchdog { counts: Arc::clone(&self.counts), journal: self.journal.clone(), drain };
        // Before Init: a signal then is an order to stop, too.
        let monitor =
            Monitor::start(watchdog.clone(), self.control.clone()).map_err(system("watch for signals"))?;
        let bound = self.bind(inherited)?;
        let health = Health::new();
        // Before Init, which may take long: the liveness probe is answered meanwhile.
        let _socket = self.listen_for_admin(&health, watchdog.clone())?;
        self.plugin.init()?;
        let (effe, is_warm) = self.first_generation();
        let listeners: Vec<Listener> = bound.into_iter().map(Bound::listen).collect::<Result<_, _>>()?;
        let addresses: Vec<Address> = listeners.iter().map(|listener| listener.address.clone()).collect();
        let (generations, tls) = (Arc::clone(&config.generations), config.server.tls.clone());
        let begun = || {
            // Before anybody can read that it listens.
            let _ = health.effe.set(Arc::clone(&effe));
            self.report(&addresses);
            if is_warm {
                let serves = effe.generations.current();
                systemd::ready(&serves.plugin.path, serves.number, None);
            } else {
                systemd::starting();
            }
            // Both may tell systemd that the effe is ready.
            monitor.take_on(
                Arc::clone(&effe),
                Maintenance::new(Arc::clone(&effe), config.idle_timeout, is_warm),
            );
            swap::stand_by(&self.control, Arc::clone(&effe), generations, tls, orders.changes);
        };
        let workers = config.server.workers;
        let server = Server {
            effe: Arc::clone(&effe),
            monitor: Arc::clone(&monitor),
            health: Arc::clone(&health),
            listeners,
            settings: Arc::clone(&config.server),
            n_descriptors,
        };
        let served = server::serve(server, orders.stops, begun, self.on_death(watchdog));
        let (stop, n_cut_off) = served.map_err(system(&format!("start {workers} workers")))?;
        monitor.end();
        let abandoned = effe.close(stop.deadline(drain).max(Instant::now()));
        let is_whole = abandoned == 0 && n_cut_off == 0;
        if is_whole {
            let n_started = effe.context_counts.started();
            self.journal.notice(format!("stopped; {n_started} Contexts were started and stopped"));
        } else {
            // An async run that is cut off is dropped, and its Context is stopped.
            self.journal.critical(format!(
                "the time to stop is over; {n_cut_off} runs were cut off, {abandoned} Contexts were not stopped"
            ));
        }
        Ok(if stop.failed || !is_whole { FAILED } else { DONE })
    }

    /// Binds the sockets, and tells the lambda the first one's address.
    fn bind(&self, inherited: Vec<Bound>) -> Result<Vec<Bound>, Error> {
        let is_wanted = inherited.is_empty() || self.config.listen_is_explicit;
        let bound = Bound::all(if is_wanted { &self.config.listen } else { &[] }, inherited)?;
        let _ = self.plugin.host.address.set(bound[0].address.to_string());
        Ok(bound)
    }

    fn listen_for_admin(
        &self,
        health: &Arc<Health>,
        watchdog: Watchdog,
    ) -> Result<Option<SocketFile>, Error> {
        let Some((place, token)) = &self.config.admin else { return Ok(None) };
        let admin = Admin {
            health: Arc::clone(health),
            first: self.plugin,
            journal: self.journal.clone(),
            address: self.plugin.host.address.get().cloned().unwrap_or_default(),
            control: self.control.clone(),
            watchdog,
        };
        admin::listen(place, token.clone(), admin)
    }

    /// The effe with its first generation, and whether that has a Context.
    fn first_generation(&self) -> (Arc<Effe>, bool) {
        let first = Generation::new(1, self.plugin, &self.config.generations, self.journal);
        let warm = first.warm();
        if let Err(fault) = &warm {
            self.plugin.log(fault);
        }
        let (counts, stopping) = (Arc::clone(&self.counts), self.control.stopping());
        let effe = Effe::new(first, counts, self.config.limits, stopping, self.journal.clone());
        (effe, warm.is_ok())
    }

    /// Says where the effe serves.
    fn report(&self, addresses: &[Address]) {
        let scheme = if self.config.server.tls.is_some() { "https" } else { "http" };
        for address in addresses {
            let text = format!("listening on {}", address.url(scheme));
            self.journal.report(Severity::Info, text, [("address", address.to_string())]);
        }
    }

    /// Stops an effe that has lost a thread of its server, with a failure's exit code.
    fn on_death(&self, watchdog: Watchdog) -> OnDeath {
        let (journal, control) = (self.journal.clone(), self.control.clone());
        let stopping = control.stopping();
        Arc::new(move |thread| {
            // At the end, each of them ends. Only the first that dies is told of.
            if stopping.load(Ordering::Relaxed) {
                return;
            }
            journal.critical(format!("thread {thread} has died: stopping, to be started again"));
            let stop = Stop::failed();
            control.stop(stop);
            watchdog.arm(stop);
        })
    }
}

/// A result, alone on stdout.
pub(crate) fn print(text: &str) -> u8 {
    if writeln!(std::io::stdout(), "{text}").is_ok() { DONE } else { FAILED }
}
