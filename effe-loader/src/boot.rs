//! The loader's whole life in order, from arguments to exit code.

#[doc(hidden)]
pub mod bench;
pub mod cli;

use std::{
    io::Write,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use effe_abi::Linked;

use self::cli::{Config, Mode};
use crate::{
    Error, Refusal,
    admin::{self, Admin},
    effe::{
        Effe, Limits,
        generation::Generation,
        health::Health,
        maintenance::Keeper,
        monitor::Watch,
        swap::{self, Recipe},
    },
    error::{DONE, FAILED},
    exchange, handler,
    journal::{self, Journal, LinkedLambda, Severity},
    net::{
        connection::Patience,
        listeners::{self, Bound, Listener},
    },
    placement::Execution,
    plugin::{self, ContextCounts, Plugin, PluginFile, Policy, Started, Verified, host::Host},
    process::{
        control::{Control, Drain},
        signals::Watchdog,
        systemd,
    },
    scheduler::in_flight::Timeouts,
    server::{self, Settings},
};

pub(crate) fn run(config: &Config, linked: Option<&'static Linked>) -> Result<u8, Error> {
    let inherited = Bound::inherited()?;
    let n_descriptors = listeners::raise_descriptor_limit();
    let host = Host::new(config.parameters.clone(), config.response_limit, exchange::FOR_HOST);
    let counts = Arc::new(ContextCounts::default());
    let (plugin, warning) = match linked {
        Some(lambda) => {
            let plugin = Plugin::linked(lambda, host, &counts);
            if config.mode == Mode::Info {
                return Ok(print(plugin.info()));
            }
            (plugin, None)
        }
        None => {
            let file = PluginFile::open(&config.plugin, &config.policy)?;
            let warning = file.warning.clone();
            let verified = verified(file, &config.policy)?;
            if config.mode == Mode::Info {
                if let Some(warning) = warning {
                    let _ = writeln!(std::io::stderr(), "effe-loader: warning: {warning}");
                }
                return Ok(print(&verified.facts().info));
            }
            (open(verified, host, &counts)?, warning)
        }
    };
    // From here on there are threads.
    let journal = Journal::start(journal::Settings {
        syslog_format: config.syslog_format,
        ..journal::Settings::new(config.syslog.clone(), config.log_format)
    })
    .map_err(|source| Error::System { what: "start the log's thread", source })?;
    journal.install(linked.map(|lambda| LinkedLambda {
        crate_name: lambda.crate_name(),
        request_id: exchange::FOR_HOST.request_id,
    }));
    host.set_journal(journal.clone());
    if let Some(warning) = warning {
        journal.warning(warning);
    }
    let outcome = match config.mode {
        Mode::Check => check(plugin),
        Mode::Serve | Mode::Info => {
            serve(config, plugin, counts, &journal, Doors { inherited, n_descriptors })
        }
    };
    // Longer than one line may wait for a syslog daemon that has stopped reading.
    journal.close(Duration::from_secs(2));
    outcome
}

#[expect(unsafe_code, reason = "the place that trusts a plugin")]
pub(crate) fn answer_trial(path: &Path) -> ! {
    // SAFETY: the loader that started this process for it trusts the file.
    unsafe { plugin::answer_trial(path) }
}

#[expect(unsafe_code, reason = "the place that trusts a plugin")]
fn verified(file: PluginFile, policy: &Policy) -> Result<Verified, Refusal> {
    // SAFETY: the operator named this file for us to run, and answers for it; no thread has been started.
    unsafe { Verified::by_fork(file, policy) }
}

#[expect(unsafe_code, reason = "the place that trusts a plugin")]
fn open(
    verified: Verified,
    host: &'static Host,
    counts: &Arc<ContextCounts>,
) -> Result<&'static Plugin, Refusal> {
    // SAFETY: as in `verified`.
    unsafe { verified.open(host, counts) }
}

/// Init, one Start, one Stop, Retire.
fn check(plugin: &'static Plugin) -> Result<u8, Error> {
    let failed = |step, what: String| Error::Check { path: plugin.path().to_owned(), step, what };
    plugin.init()?;
    match plugin.start() {
        Started::Ready(context) => context.stop().map_err(|fault| failed("stop", fault.to_string()))?,
        Started::Failed(_, fault) | Started::Panicked(fault) => {
            return Err(failed("start", fault.to_string()));
        }
    }
    plugin.retire().map_err(|fault| failed("retire", fault.to_string()))?;
    Ok(DONE)
}

/// What was found before there were threads.
struct Doors {
    /// Sockets of the supervisor's.
    inherited: Vec<Bound>,
    /// How many files may be open.
    n_descriptors: u64,
}

fn serve(
    config: &Config,
    plugin: &'static Plugin,
    counts: Arc<ContextCounts>,
    journal: &Journal,
    Doors { inherited, n_descriptors }: Doors,
) -> Result<u8, Error> {
    let system = |what| move |source| Error::System { what, source };
    let (control, orders) = Control::new();
    let drain = Drain { delay: config.drain_delay, timeout: config.drain_timeout };
    let watchdog = Watchdog { counts: Arc::clone(&counts), journal: journal.clone(), drain };
    // Before Init: a signal then is an order to stop, too.
    let watch = Watch::start(watchdog.clone(), control.clone()).map_err(system("watch for signals"))?;
    let wanted = if inherited.is_empty() || config.listen_is_explicit { &config.listen[..] } else { &[] };
    let bound = Bound::all(wanted, inherited)?;
    let address = bound[0].address.to_string();
    plugin.host().set_address(address.clone());
    let health = Health::new();
    // Before Init, which may take its time: that the process lives can be seen meanwhile.
    let _socket = match &config.admin {
        Some((place, token)) => {
            let admin = Admin {
                health: Arc::clone(&health),
                first: plugin,
                journal: journal.clone(),
                address: address.clone(),
                control: control.clone(),
                watchdog: watchdog.clone(),
            };
            admin::listen(place, token.clone(), admin)?
        }
        None => None,
    };
    plugin.init()?;
    let execution = Execution::new(config.execution, plugin.flags(), plugin.is_async(), journal.clone());
    let first = Generation::new(1, plugin, execution, config.max_idle);
    let warm = first.warm();
    if let Err(fault) = &warm {
        plugin.log(fault);
    }
    let limits = Limits {
        max_concurrency: config.max_concurrency,
        queue: config.queue,
        response_limit: config.response_limit,
        run_timeout: config.run_timeout,
        max_lost_threads: config.max_lost_threads,
        metered: config.admin.is_some(),
    };
    let effe = Effe::new(first, counts, limits, control.stopping(), journal.clone());
    health.serves(&effe);
    let keeper = Keeper::new(Arc::clone(&effe), config.idle_timeout, warm.is_ok());
    watch.take_on(Arc::clone(&effe), keeper);
    let recipe = Recipe {
        policy: config.policy.clone(),
        sources: config.sources.clone(),
        address: address.clone(),
        response_limit: config.response_limit,
        max_idle: config.max_idle,
        execution: config.execution,
        tls: config.tls.clone(),
    };
    swap::stand_by(&control, Arc::clone(&effe), recipe, orders.changes);
    let listeners: Vec<Listener> = bound.into_iter().map(Bound::listen).collect::<Result<_, _>>()?;
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    for listener in &listeners {
        let address = listener.address.to_string();
        journal.report(
            Severity::Info,
            format!("listening on {}", listener.address.url(scheme)),
            [("address", address)],
        );
    }
    match warm {
        Ok(()) => {
            let serves = effe.generations.current();
            systemd::ready(serves.plugin.path(), serves.number, None);
        }
        Err(_) => systemd::starting(),
    }
    let settings = Settings {
        workers: config.workers,
        limits: handler::Limits {
            body: config.body_limit,
            timeouts: Timeouts { queue: config.queue_timeout, run: config.run_timeout },
            max_async: config.max_async.div_ceil(config.workers),
        },
        patience: Patience {
            keep_alive: config.keep_alive,
            read: config.read_timeout,
            write: config.write_timeout,
        },
        max_connections: config.max_connections.unwrap_or_else(|| half_of(n_descriptors)),
        drain,
        probes: config.probes.then_some(health),
        access_log: config.access_log.clone(),
        tls: config.tls.clone(),
    };
    let stop = server::serve(&effe, &watch, listeners, &settings, orders.stops).map_err(system("serve"))?;
    watch.end();
    let abandoned = effe.close(stop.deadline(drain).max(Instant::now()));
    if abandoned > 0 {
        journal.critical(format!("the time to stop is over; {abandoned} Contexts were not stopped"));
        return Ok(FAILED);
    }
    journal.notice(format!("stopped; {} Contexts were started and stopped", effe.context_counts().started()));
    Ok(if stop.failed { FAILED } else { DONE })
}

/// A lambda needs descriptors, too. More than a million connections are none of a single process's business.
fn half_of(n_descriptors: u64) -> usize {
    usize::try_from(n_descriptors / 2).unwrap_or(usize::MAX).clamp(1, 1 << 20)
}

/// A result, alone on stdout.
pub(crate) fn print(text: &str) -> u8 {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => DONE,
        Err(_) => FAILED,
    }
}
