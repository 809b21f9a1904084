//! The server that serves any effe lambda, as a library: a program that links its lambda in serves it the same way.
//!
//! A request goes `server` → `handler` → `effe` (→ `pool`) → `plugin`, through an `exchange`, and its answer the same
//! way back.

mod answer;
mod call;
pub mod cli;
mod clock;
mod contexts;
mod effe;
mod error;
mod exchange;
mod execution;
mod handler;
pub mod journal;
mod keeper;
mod parameters;
mod plugin;
mod pool;
mod seat;
mod server;
mod signals;
mod snapshot;
mod trust;
mod watch;

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use effe_abi::Linked;
use signal_hook::low_level;

pub use self::error::{Error, Refusal};
use self::{
    call::Timeouts,
    cli::{Cli, Config, Mode},
    effe::{Effe, Limits},
    execution::Execution,
    journal::{Journal, Severity},
    plugin::{Plugin, Started, Tried, host::Host},
    server::{Bound, Settings},
    watch::Watch,
};

/// The exit code of a loader that did what it was told.
const DONE: u8 = 0;
/// The exit code of one that failed while it ran.
const FAILED: u8 = 1;
/// The exit code of wrong usage.
const USAGE: u8 = 2;

/// The loader's whole life: arguments in, exit code out. `linked` is the lambda of a program that has one.
pub fn main(linked: Option<&'static Linked>) -> ExitCode {
    let args = std::env::args_os();
    let cli = if linked.is_some() { Cli::parse_linked(args) } else { Cli::parse_from_args(args) };
    let cli = match cli {
        Ok(cli) => cli,
        Err(err) => return usage(&err),
    };
    if cli.version {
        return ExitCode::from(print(&version()));
    }
    let config = if linked.is_some() { cli.into_linked_config() } else { cli.into_config() };
    let config = match config {
        Ok(config) => config,
        Err(err) => return usage(&err),
    };
    let code = match run(&config, linked) {
        Ok(code) => code,
        Err(err) => {
            let _ = writeln!(io::stderr(), "effe-loader: {err}");
            err.exit_code()
        }
    };
    if linked.is_none() {
        // A library's destructors must not have the last word: a damaged one dies of them, a whole one may, while
        // its threads still run. What a lambda has to undo, it undoes in Retire.
        low_level::exit(code.into());
    }
    ExitCode::from(code)
}

/// Version, commit, ABI and features.
pub fn version() -> String {
    format!(
        "effe-loader {} (commit {}, ABI 1, {}-{})",
        env!("CARGO_PKG_VERSION"),
        env!("EFFE_COMMIT"),
        std::env::consts::ARCH,
        std::env::consts::OS,
    )
}

fn run(config: &Config, linked: Option<&'static Linked>) -> Result<u8, Error> {
    let host = Host::new(config.parameters.clone(), config.response_limit);
    let plugin = match linked {
        Some(lambda) => {
            let plugin = Plugin::linked(lambda, host);
            if config.mode == Mode::Info {
                return Ok(print(plugin.info()));
            }
            plugin
        }
        None => {
            let tried = tried(config)?;
            if config.mode == Mode::Info {
                return Ok(print(&tried.facts().info));
            }
            open(tried, host)?
        }
    };
    // From here on there are threads.
    let journal = Journal::start(journal::Settings::new(config.syslog.clone(), config.log_format))
        .map_err(|source| Error::System { what: "start the log's thread", source })?;
    journal.install();
    host.set_journal(journal.clone());
    let outcome = match config.mode {
        Mode::Check => check(plugin),
        Mode::Serve | Mode::Info => serve(config, plugin, host, &journal),
    };
    // Longer than one line may wait for a syslog daemon that has stopped reading.
    journal.close(Duration::from_secs(2));
    outcome
}

#[expect(unsafe_code, reason = "the one place that trusts a plugin")]
fn tried(config: &Config) -> Result<Tried, Refusal> {
    // SAFETY: the operator named this file for us to run, and answers for it; no thread has been started.
    unsafe { Tried::read(&config.plugin) }
}

#[expect(unsafe_code, reason = "the one place that trusts a plugin")]
fn open(tried: Tried, host: &'static Host) -> Result<&'static Plugin, Refusal> {
    // SAFETY: as in `tried`.
    unsafe { tried.open(host) }
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

fn serve(
    config: &Config,
    plugin: &'static Plugin,
    host: &'static Host,
    journal: &Journal,
) -> Result<u8, Error> {
    let system = |what| move |source| Error::System { what, source };
    // Before Init: a signal then is an order to stop, too.
    let orders = signals::watch(plugin, journal.clone(), config.drain_timeout);
    let (order, orders) = orders.map_err(system("watch for signals"))?;
    let bound = Bound::bind(&config.addresses)?;
    let address = bound.address;
    host.set_address(address.to_string());
    plugin.init()?;
    let limits = Limits {
        max_concurrency: config.max_concurrency,
        queue: config.queue,
        max_idle: config.max_idle,
        response_limit: config.response_limit,
        run_timeout: config.run_timeout,
        max_lost_threads: config.max_lost_threads,
    };
    let execution = Execution::new(config.execution, plugin.flags(), journal.clone());
    let effe = Effe::new(plugin, execution, limits, journal.clone());
    let warm = effe.warm();
    if let Err(fault) = &warm {
        plugin.log(fault);
    }
    let keeper = keeper::start(Arc::clone(&effe), config.idle_timeout, warm.is_ok());
    let keeper = keeper.map_err(system("start a thread"))?;
    let (journal_too, drain_timeout) = (journal.clone(), config.drain_timeout);
    let (watch, watcher) = Watch::start(Arc::clone(&effe), move |stop| {
        let _ = order.send(stop);
        let _ = signals::watchdog(plugin, journal_too.clone(), stop.deadline(drain_timeout));
    })
    .map_err(system("start a thread"))?;
    let listener = bound.listen()?;
    let address = address.to_string();
    journal.report(Severity::Info, format!("listening on http://{address}"), [("address", address)]);
    let settings = Settings {
        workers: config.workers,
        body_limit: config.body_limit,
        timeouts: Timeouts { queue: config.queue_timeout, run: config.run_timeout },
        drain_timeout: config.drain_timeout,
    };
    let stop = server::serve(&effe, &watch, listener, &settings, orders).map_err(system("serve"))?;
    keeper.stop();
    watch.end();
    let _ = watcher.join();
    let abandoned = effe.close(stop.deadline(config.drain_timeout).max(Instant::now()));
    if abandoned > 0 {
        journal.critical(format!("the time to stop is over; {abandoned} Contexts were not stopped"));
        return Ok(FAILED);
    }
    journal.notice(format!("stopped; {} Contexts were started and stopped", plugin.started()));
    Ok(if stop.failed { FAILED } else { DONE })
}

fn usage(err: &clap::Error) -> ExitCode {
    let _ = err.print();
    ExitCode::from(if err.use_stderr() { USAGE } else { DONE })
}

/// A result, alone on stdout.
fn print(text: &str) -> u8 {
    match writeln!(io::stdout(), "{text}") {
        Ok(()) => DONE,
        Err(_) => FAILED,
    }
}
