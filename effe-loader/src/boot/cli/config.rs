//! All that the loader was told, once it is known to be valid.

use std::{env, net::ToSocketAddrs, num::NonZeroUsize, path::PathBuf, sync::Arc, thread, time::Duration};

use super::{Cli, Size, Span, usage};
use crate::{
    admin::{Address as AdminAddress, Token},
    handler::access_log::Wanted,
    journal::{Format, SyslogFormat, SyslogTarget},
    net::{address::Listen, tls::Tls},
    placement::Mode as Execution,
    plugin::{
        Policy,
        parameters::{Parameters, Sources},
    },
};

/// All interfaces: an effe is run in a container or behind a proxy, where loopback alone would serve nobody.
const DEFAULT_HOST: &str = "0.0.0.0";
/// The port of 2016.
const DEFAULT_PORT: u16 = 8080;
/// Runs that may wait for a thread, for each that may run.
const QUEUE_PER_RUN: usize = 10;

/// What the loader was told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Serve until a signal.
    Serve,
    /// Print Info.
    Info,
    /// Init, one Start, one Stop.
    Check,
}

/// Everything the loader was told, valid.
#[derive(Clone, Debug)]
pub struct Config {
    /// The plugin as it was named; empty in a program that holds its lambda.
    pub plugin: PathBuf,
    /// What may be loaded.
    pub policy: Policy,
    /// What to do with it.
    pub mode: Mode,
    /// Where to listen.
    pub listen: Vec<Listen>,
    /// Whether somebody said so, or it is the default.
    pub listen_is_explicit: bool,
    /// The operator's parameters, as they were at the start.
    pub parameters: Parameters,
    /// Where they come from.
    pub sources: Sources,
    /// Threads that serve connections.
    pub workers: usize,
    /// Where the lambda's reports go.
    pub syslog: SyslogTarget,
    /// How they look there.
    pub syslog_format: SyslogFormat,
    /// What is logged of requests.
    pub access_log: Wanted,
    /// How stderr looks.
    pub log_format: Format,
    /// Bytes of a request body.
    pub body_limit: usize,
    /// Bytes of a held response.
    pub response_limit: usize,
    /// Runs at once.
    pub max_concurrency: usize,
    /// Requests to an async lambda at once.
    pub max_async: usize,
    /// Where runs go.
    pub execution: Execution,
    /// Runs that may wait for a thread.
    pub queue: usize,
    /// How long a run may wait for a thread; `None` for ever.
    pub queue_timeout: Option<Duration>,
    /// How long a request may take; `None` for ever.
    pub run_timeout: Option<Duration>,
    /// Threads that may be lost.
    pub max_lost_threads: usize,
    /// Idle Contexts.
    pub max_idle: usize,
    /// How long a Context may be idle; `None` for ever.
    pub idle_timeout: Option<Duration>,
    /// Where the admin listener is, and the token that it asks for.
    pub admin: Option<(AdminAddress, Option<Token>)>,
    /// Whether probes are answered on the main port.
    pub probes: bool,
    /// How long a client may let its request rest; `None` for ever.
    pub read_timeout: Option<Duration>,
    /// How long a client may not read; `None` for ever.
    pub write_timeout: Option<Duration>,
    /// How long a connection may idle; `None` for ever.
    pub keep_alive: Option<Duration>,
    /// Connections at once; `None` for as many as the system's limit suggests.
    pub max_connections: Option<usize>,
    /// What encrypts connections, if they are.
    pub tls: Option<Arc<Tls>>,
    /// How long connections are still taken once the loader is told to stop.
    pub drain_delay: Duration,
    /// How long a drain may take after that.
    pub drain_timeout: Duration,
}

impl Cli {
    /// Checks what can be checked before anything is opened.
    ///
    /// # Errors
    /// Everything that is wrong, at once, as clap prints it.
    pub fn into_config(self) -> Result<Config, clap::Error> {
        let mut faults = Vec::new();
        if self.plugin.is_none() {
            faults.push("no lambda is named: give --plugin FILE".to_owned());
        }
        self.checked(faults)
    }

    /// [`Cli::into_config`] of a program that holds its lambda: no plugin is demanded.
    ///
    /// # Errors
    /// Everything that is wrong, at once, as clap prints it.
    pub fn into_linked_config(self) -> Result<Config, clap::Error> {
        self.checked(Vec::new())
    }

    fn checked(self, mut faults: Vec<String>) -> Result<Config, clap::Error> {
        let plugin = self.plugin.clone().unwrap_or_default();
        let listen_is_explicit = !self.listen.is_empty() || self.host.is_some() || self.port.is_some();
        let listen =
            if self.listen.is_empty() { self.host_and_port(&mut faults) } else { self.listen.clone() };
        let sources = self.sources();
        let parameters = sources.read().unwrap_or_else(|fault| {
            faults.push(fault);
            Parameters::default()
        });
        let admin = self.admin(&mut faults);
        let tls = self.tls(&mut faults);
        if !faults.is_empty() {
            return Err(usage(&faults.join("\n       ")));
        }
        let limit = |size: Size| if size.0 == 0 { usize::MAX } else { size.0 };
        let time = |span: Span| (!span.0.is_zero()).then_some(span.0);
        Ok(Config {
            plugin,
            policy: Policy {
                strict_ownership: self.strict_ownership,
                sha256: self.sha256,
                sha256_file: self.sha256_file,
            },
            mode: match (self.info, self.check) {
                (true, _) => Mode::Info,
                (_, true) => Mode::Check,
                _ => Mode::Serve,
            },
            listen,
            listen_is_explicit,
            parameters,
            sources,
            workers: self
                .workers
                .or_else(|| thread::available_parallelism().ok())
                .map_or(1, NonZeroUsize::get),
            access_log: Wanted { share: self.access_log, extra: self.access_log_with },
            syslog: self.syslog,
            syslog_format: self.syslog_format,
            log_format: self.log_format,
            body_limit: limit(self.body_limit),
            response_limit: limit(self.response_limit),
            max_concurrency: self.max_concurrency.get(),
            max_async: self.max_async.get(),
            execution: self.execution,
            queue: self.queue.unwrap_or(self.max_concurrency.get().saturating_mul(QUEUE_PER_RUN)),
            queue_timeout: time(self.queue_timeout),
            run_timeout: time(self.run_timeout),
            max_lost_threads: self.max_lost_threads,
            max_idle: self.max_idle,
            idle_timeout: time(self.idle_timeout),
            admin,
            probes: self.probes,
            read_timeout: time(self.read_timeout),
            write_timeout: time(self.write_timeout),
            keep_alive: time(self.keep_alive),
            max_connections: self.max_connections.map(NonZeroUsize::get),
            tls,
            drain_delay: self.drain_delay.0,
            drain_timeout: self.drain_timeout.0,
        })
    }

    fn admin(&self, faults: &mut Vec<String>) -> Option<(AdminAddress, Option<Token>)> {
        let token = self.admin_token_file.as_deref().and_then(|path| {
            let token = Token::in_file(path);
            token.inspect_err(|err| faults.push(format!("--admin-token-file {}: {err}", path.display()))).ok()
        });
        let Some(address) = &self.admin else {
            if self.admin_token_file.is_some() {
                faults.push("--admin-token-file is for --admin, which is not given".to_owned());
            }
            return None;
        };
        if address.is_public() && self.admin_token_file.is_none() {
            faults.push(format!(
                "--admin {address}: others can reach this address, so it needs --admin-token-file FILE"
            ));
        }
        Some((address.clone(), token))
    }

    fn tls(&self, faults: &mut Vec<String>) -> Option<Arc<Tls>> {
        let (cert, key) = (self.tls_cert.as_deref(), self.tls_key.as_deref());
        cert.or(key)?;
        Tls::read(cert, key).map(Arc::new).inspect_err(|fault| faults.push(fault.clone())).ok()
    }

    fn host_and_port(&self, faults: &mut Vec<String>) -> Vec<Listen> {
        let port = self.port.or_else(|| port_variable(faults)).unwrap_or(DEFAULT_PORT);
        let host = self.host.as_deref().unwrap_or(DEFAULT_HOST);
        match (host.trim_matches(['[', ']']), port).to_socket_addrs() {
            Ok(addresses) => vec![Listen::Tcp(addresses.collect())],
            Err(err) => {
                faults.push(format!("--host {host}: {err}"));
                Vec::new()
            }
        }
    }

    fn sources(&self) -> Sources {
        let variable = env::var("EFFE_SET").unwrap_or_default();
        let of_variable = variable.lines().filter(|line| !line.is_empty()).map(str::to_owned);
        Sources { file: self.params.clone(), pairs: of_variable.chain(self.set.iter().cloned()).collect() }
    }
}

fn port_variable(faults: &mut Vec<String>) -> Option<u16> {
    let text = env::var("PORT").ok().filter(|text| !text.is_empty())?;
    text.parse().inspect_err(|err| faults.push(format!("the variable PORT is {text:?}: {err}"))).ok()
}
