//! The loader's life in order, from valid arguments to exit code: open the lambda, start the log, bind, Init, the first
//! Start, serve, drain, stop. Each step is another module's.

#[doc(hidden)]
pub mod bench;
pub mod cli;
pub(crate) mod config;

use std::{
    ffi::CString,
    io::{self, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use effe_abi::Linked;

use self::config::{Config, Mode};
use crate::{
    admin::{self, Admin, Begin, Scrape},
    aws,
    effe::{Effe, generation::Generation, health::Health, maintenance::Maintenance, monitor::Monitor, swap},
    error::{DONE, Error, FAILED},
    exchange::{
        strict,
        table::{copy_current_id, current_id},
        watched,
    },
    journal::{Journal, LinkedLambda, Severity},
    net::{address::Address, bind::Bound, descriptors, listeners::Listener, socket_file::SocketFile},
    plugin::{self, ContextCounts, Fault, Plugin, PluginFile, Policy, Started, Verified, host::Host},
    process::{
        confine::Confinement,
        control::{Control, Orders, Stop},
        exit,
        link::{self, Assignment, Ended, Link, LinkSender, Message},
        memory,
        signals::{self, Obeyed, Watchdog},
        systemd,
    },
    rescue::{fault, global, hand_over},
    rt::panics::survive,
    server::{self, OnDeath, Server},
};

/// Does what the arguments say: the exit code, or what keeps the loader from serving.
pub(crate) fn run(config: &Config, linked: Option<&'static Linked>) -> Result<u8, Error> {
    memory::keep_freed();
    signals::outlive_file_limit();
    let inherited = Bound::inherited()?;
    let n_descriptors = descriptors::raise_limit();
    if config.mode == Mode::Serve {
        has_room(config, inherited.len(), n_descriptors)?;
    }
    if config.mode == Mode::Info {
        return info(config, linked);
    }
    if config.mode == Mode::Check || config.generations.policy.strict_plugin {
        strict::turn_on();
    }
    let host = Host::new(config.parameters.clone(), config.limits.response, strict::exchanges());
    let counts = Arc::new(ContextCounts::default());
    let (lambda, warning) = match linked {
        Some(lambda) => (Lambda::Open(Plugin::linked(lambda, host, &counts)), None),
        None => {
            let (verified, warning) = verified(config)?;
            (Lambda::Verified(verified), warning)
        }
    };
    let plugin = lambda.open(host, &counts)?;
    let confinement = config.confinement.as_ref().filter(|_| config.mode == Mode::Check);
    let lacking = confinement.map(Confinement::apply).transpose()?.unwrap_or_default();
    // From here on there are threads.
    let journal = start_journal(config, linked)?;
    let _ = host.journal.set(journal.clone());
    for warning in warning.into_iter().chain(lacking) {
        journal.warning(warning);
    }
    let outcome = ended(&journal, &counts, || {
        if config.mode == Mode::Check {
            return check(plugin);
        }
        let (control, orders) = Control::new();
        let counts = Arc::clone(&counts);
        let starting = Starting { config, plugin, number: 1, counts, journal: &journal, control };
        if config.function.is_some() {
            return starting.serve(|| Ok(Vec::new()), n_descriptors, orders, None);
        }
        let wanted = if inherited.is_empty() || config.listen_is_explicit { &config.listen[..] } else { &[] };
        starting.serve(|| Bound::all(wanted, inherited), n_descriptors, orders, None)
    });
    end(&journal);
    outcome
}

/// Serves as one of a supervisor's processes.
pub(crate) fn run_supervised(
    config: &Config,
    linked: Option<&'static Linked>,
    assignment: Assignment,
    link: Link,
) -> Result<u8, Error> {
    take_name();
    memory::keep_freed();
    signals::outlive_file_limit();
    let n_descriptors = descriptors::raise_limit();
    has_room(config, assignment.listeners.len(), n_descriptors)?;
    let Assignment {
        place,
        n_places,
        generation: number,
        parameters,
        level,
        image,
        listeners,
        plugin,
        rescue,
    } = assignment;
    if let Some((memory, escrow)) = rescue {
        global::set_up(memory, escrow, config.fault_grace)
            .and_then(|()| fault::install())
            .and_then(|()| exit::watch(fault::on_exit))
            .map_err(system("prepare for a crash"))?;
    }
    if config.generations.policy.strict_plugin {
        strict::turn_on();
    }
    let host = Host::new(parameters, config.limits.response, strict::exchanges());
    let _ = host.process.set(format!("{place}/{n_places}"));
    let counts = Arc::new(ContextCounts::default());
    if let Some(rescue) = global::get() {
        let _ = counts.shared.set(rescue.board.contexts());
        let _ = global::REQUEST_ID.set(copy_current_id);
    }
    let lambda = match (linked, plugin) {
        (Some(lambda), _) => Lambda::Open(Plugin::linked(lambda, host, &counts)),
        (None, Some(copy)) => Lambda::Verified(Verified::handed(config.plugin.clone(), copy.into(), image)?),
        (None, None) => return Err(system("open the plugin")(io::ErrorKind::NotFound.into())),
    };
    let plugin = lambda.open(host, &counts)?;
    if let Some(name) = config.plugin.file_name().filter(|_| linked.is_none()) {
        global::note_image(&format!("memfd:{}", name.to_string_lossy()));
    }
    if let Some(confinement) = &config.confinement {
        // While there is one thread: those that follow are confined with it.
        for text in confinement.apply()? {
            link.sender.send(&Message::Warning(text));
        }
    }
    let journal = start_journal(config, linked)?;
    journal.set_level(level);
    let _ = host.journal.set(journal.clone());
    let (control, orders) = Control::new();
    let starting =
        Starting { config, plugin, number, counts: Arc::clone(&counts), journal: &journal, control };
    let bound = || {
        let bound: io::Result<Vec<Bound>> = listeners.into_iter().map(Bound::handed).collect();
        bound.map_err(system("take over the supervisor's sockets"))
    };
    let outcome = ended(&journal, &counts, || starting.serve(bound, n_descriptors, orders, Some(link)));
    end(&journal);
    outcome
}

/// What came of serving; a panic of our own on the main thread is a failure that the log tells of.
fn ended(
    journal: &Journal,
    counts: &ContextCounts,
    serve: impl FnOnce() -> Result<u8, Error>,
) -> Result<u8, Error> {
    survive(|| Ok(serve())).unwrap_or_else(|panicked| {
        journal.critical(format!("{panicked}; {} Contexts were not stopped", counts.living()));
        Ok(FAILED)
    })
}

/// Has the log write its last lines, and says what of them is lost.
pub(crate) fn end(journal: &Journal) {
    let n_left = journal.finish();
    if n_left > 0 {
        let text =
            format!("effe-loader: warning: whoever reads the log is too slow: {n_left} log lines were lost");
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// Gives the process the name of its program again, which it has lost because it was started by a path in `/proc`.
pub(crate) fn take_name() {
    let program = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let name = program.file_name().unwrap_or_default().as_bytes();
    if let Ok(name) = CString::new(&name[..name.len().min(15)]) {
        let _ = rustix::thread::set_name(&name);
    }
}

/// Starts the log, and makes it the program's.
pub(crate) fn start_journal(config: &Config, linked: Option<&'static Linked>) -> Result<Journal, Error> {
    let journal = Journal::start(config.journal()).map_err(system("start the log's thread"))?;
    watched::log_to(&journal);
    let request_id = current_id;
    journal.install(linked.map(|lambda| LinkedLambda { crate_name: lambda.crate_name(), request_id }));
    Ok(journal)
}

fn system(what: &str) -> impl FnOnce(io::Error) -> Error {
    let what = what.to_owned().into();
    move |source| Error::System { what, source }
}

/// Fails if the process may have fewer descriptors or less memory than it needs to serve.
pub(crate) fn has_room(config: &Config, n_inherited: usize, n_descriptors: u64) -> Result<(), Error> {
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

/// The plugin that the operator has named, after all checks, and a warning. To be called while there is one thread.
#[expect(unsafe_code, reason = "the place that trusts a plugin")]
pub(crate) fn verified(config: &Config) -> Result<(Verified, Option<String>), Error> {
    let policy = &config.generations.policy;
    let file = PluginFile::open(&config.plugin, policy)?;
    let warning = file.warning.clone();
    // SAFETY: the operator named this file for us to run, and answers for it; no thread has been started.
    let verified = unsafe { Verified::by_fork(file, policy) }?;
    Ok((verified, warning))
}

/// Prints Info. Of a plugin that has it in its file, nothing is run.
#[expect(unsafe_code, reason = "the place that trusts a plugin")]
fn info(config: &Config, linked: Option<&'static Linked>) -> Result<u8, Error> {
    if let Some(lambda) = linked {
        return Ok(print(lambda.plugin().info().as_str()));
    }
    let policy = &config.generations.policy;
    let file = PluginFile::open(&config.plugin, policy)?;
    if let Some(warning) = &file.warning {
        let _ = writeln!(std::io::stderr(), "effe-loader: warning: {warning}");
    }
    // SAFETY: as in `verified`.
    Ok(print(&unsafe { Verified::info(file, policy) }?))
}

/// The same while there are threads, for the generation after.
#[expect(unsafe_code, reason = "the place that trusts a plugin")]
pub(crate) fn verified_again(file: PluginFile, policy: &Policy) -> Result<Verified, Error> {
    // SAFETY: the operator named this file for us to run, and answers for it.
    unsafe { Verified::by_exec(file, policy) }
}

/// Init, one Start, one Stop, Retire.
fn check(plugin: &'static Plugin) -> Result<u8, Error> {
    let failed =
        |step| move |fault: Fault| Error::Step { path: plugin.path.clone(), step, what: fault.to_string() };
    plugin.init()?;
    plugin.check_tables()?;
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
    /// Of the generation.
    number: u64,
    counts: Arc<ContextCounts>,
    journal: &'a Journal,
    control: Control,
}

impl Starting<'_> {
    /// Serves until an order says to stop, and stops. Of a supervised process, the orders come over the `link`.
    fn serve(
        self,
        bind: impl FnOnce() -> Result<Vec<Bound>, Error>,
        n_descriptors: u64,
        orders: Orders,
        link: Option<Link>,
    ) -> Result<u8, Error> {
        let config = self.config;
        let drain = config.server.drain;
        let watchdog = Watchdog { counts: Arc::clone(&self.counts), journal: self.journal.clone(), drain };
        // Before Init: a signal then is an order to stop, too.
        let obeyed = if link.is_none() { Obeyed::Yes } else { Obeyed::No };
        let monitor = Monitor::start(watchdog.clone(), self.control.clone(), obeyed)
            .map_err(system("watch for signals"))?;
        if link.is_none() {
            let watchdog = watchdog.clone();
            exit::watch(move || watchdog.exit("the lambda has called exit"))
                .map_err(system("watch for an exit"))?;
        }
        let bound = bind()?;
        if let Some(first) = bound.first() {
            let _ = self.plugin.host.address.set(first.address.to_string());
        }
        let health = Health::new();
        // Before Init, which may take long: the liveness probe is answered meanwhile.
        let supervisor = link.as_ref().map(|link| link.sender.clone());
        let (_socket, begin) = self.listen_for_orders(&health, watchdog.clone(), link)?;
        let aws_api = config.aws_api.as_ref().map(aws::Api::bind).transpose()?;
        self.plugin.init()?;
        let (effe, failed) = self.first_generation();
        let is_warm = failed.is_none();
        if let (Some(supervisor), Some(begin)) = (&supervisor, begin) {
            supervisor.send(&Message::Ready { failed: failed.clone(), version: link::VERSION });
            if !begin.wait() {
                let abandoned = effe.close(Instant::now());
                self.say_ended(supervisor, &effe, abandoned, 0);
                return Ok(if abandoned == 0 { DONE } else { FAILED });
            }
        }
        if let Some(fault) = failed.filter(|_| config.function.is_some()) {
            // Lambda is told, and starts another process.
            effe.close(Instant::now());
            return Err(Error::Step { path: self.plugin.path.clone(), step: "start", what: fault });
        }
        let listeners: Vec<Listener> = bound.into_iter().map(Bound::listen).collect::<Result<_, _>>()?;
        let addresses: Vec<Address> = listeners.iter().map(|listener| listener.address.clone()).collect();
        let (generations, tls) = (Arc::clone(&config.generations), config.server.tls.clone());
        let aws_api = aws_api.map(|bound| {
            let wanted = &config.server.access_log;
            bound.start(Arc::clone(&effe), Arc::clone(&monitor), wanted)
        });
        let aws_api = aws_api.transpose()?;
        let begun = || {
            // Before anybody can read that it listens.
            let _ = health.effe.set(Arc::clone(&effe));
            let maintenance = Maintenance::new(Arc::clone(&effe), config.idle_timeout, is_warm);
            if let Some(supervisor) = &supervisor {
                supervisor.send(&Message::Serving);
                // The supervisor tells of it, and swaps whole processes.
                monitor.take_on(Arc::clone(&effe), maintenance);
                return;
            }
            self.report(&addresses);
            if is_warm {
                let serves = effe.generations.current();
                systemd::ready(&serves.plugin.path, serves.number, None);
            } else {
                systemd::starting();
            }
            // Both may tell systemd that the effe is ready.
            monitor.take_on(Arc::clone(&effe), maintenance);
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
            on_idle: supervisor.is_none().then(|| self.on_idle(watchdog.clone())),
        };
        let deaf = || {
            if let Some(supervisor) = &supervisor {
                supervisor.send(&Message::Deaf);
            }
        };
        let served = match &config.function {
            None => server::serve(server, orders.stops, begun, deaf, self.on_death(watchdog)),
            Some(function) => {
                let settings = &config.server;
                let serving = aws::Serving {
                    function,
                    effe: Arc::clone(&effe),
                    monitor: Arc::clone(&monitor),
                    timeouts: settings.client_timeouts,
                    access_log: &settings.access_log,
                    drain,
                    streams: config.aws_stream,
                };
                serving.serve(orders.stops, begun, self.on_failure(watchdog))
            }
        };
        let (stop, n_cut_off) = served.map_err(system(&format!("start {workers} workers")))?;
        if stop.hands_over {
            // No thread leaves a copy any more.
            hand_over::go_on();
        }
        if let Some(aws_api) = aws_api {
            let n_left = aws_api.drain(stop.deadline(drain));
            if n_left > 0 {
                self.journal.critical(format!(
                    "{n_left} events that nobody waits for have not been run to their end"
                ));
            }
        }
        monitor.end();
        let abandoned = effe.close(stop.deadline(drain).max(Instant::now()));
        let is_whole = abandoned == 0 && n_cut_off == 0;
        if let Some(supervisor) = &supervisor {
            self.say_ended(supervisor, &effe, abandoned, n_cut_off);
        } else if is_whole {
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

    fn say_ended(&self, supervisor: &LinkSender, effe: &Effe, abandoned: u64, n_cut_off: usize) {
        let ended = Ended { started: effe.context_counts.started(), abandoned, cut_off: n_cut_off as u64 };
        let scrape = Scrape::take(self.journal, Some(effe), false).to_json();
        supervisor.send(&Message::Ended(ended, scrape));
    }

    /// Takes orders from an operator, or from a supervisor, which then says when to begin.
    fn listen_for_orders(
        &self,
        health: &Arc<Health>,
        watchdog: Watchdog,
        link: Option<Link>,
    ) -> Result<(Option<SocketFile>, Option<Begin>), Error> {
        if link.is_none() && self.config.admin.is_none() {
            return Ok((None, None));
        }
        let admin = Admin {
            health: Arc::clone(health),
            first: self.plugin,
            journal: self.journal.clone(),
            address: self.plugin.host.address.get().cloned().unwrap_or_default(),
            control: self.control.clone(),
            watchdog,
        };
        if let Some(link) = link {
            let begin = admin::follow(link, admin, self.config.server.tls.clone());
            return Ok((None, Some(begin.map_err(system("follow the supervisor"))?)));
        }
        let Some((place, token)) = &self.config.admin else { return Ok((None, None)) };
        Ok((admin::listen(place, token.clone(), self.journal, admin)?, None))
    }

    /// The effe with its first generation, and why that has no Context, if it has none.
    fn first_generation(&self) -> (Arc<Effe>, Option<String>) {
        let first = Generation::new(self.number, self.plugin, &self.config.generations, self.journal);
        let warm = first.warm();
        if let Err(fault) = &warm {
            self.plugin.log(fault);
        }
        let (counts, stopping) = (Arc::clone(&self.counts), self.control.stopping());
        let effe = Effe::new(first, counts, self.config.limits, stopping, self.journal.clone());
        (effe, warm.err().map(|fault| fault.to_string()))
    }

    /// Says where the effe serves.
    fn report(&self, addresses: &[Address]) {
        let scheme = if self.config.server.tls.is_some() { "https" } else { "http" };
        for address in addresses {
            let text = format!("listening on {}", address.url(scheme));
            self.journal.report(Severity::Info, text, [("address", address.to_string())]);
        }
    }

    /// Stops an effe that has had no request for long.
    fn on_idle(&self, watchdog: Watchdog) -> Box<dyn FnOnce()> {
        let (journal, control) = (self.journal.clone(), self.control.clone());
        let idle = self.config.server.idle_exit.unwrap_or_default();
        Box::new(move || {
            if !control.stopping().load(Ordering::Relaxed) {
                journal.notice(format!("no request for {idle:?}: ending until the next one"));
                let stop = Stop::hurried();
                control.stop(stop);
                watchdog.arm(stop);
            }
        })
    }

    /// Stops an effe that can't go on for another reason.
    fn on_failure(&self, watchdog: Watchdog) -> impl Fn(String) + 'static {
        let (journal, control) = (self.journal.clone(), self.control.clone());
        move |why| {
            journal.critical(format!("{why}: stopping"));
            let stop = Stop::failed();
            control.stop(stop);
            watchdog.arm(stop);
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
