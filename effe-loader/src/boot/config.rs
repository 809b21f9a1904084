//! What the loader was told, checked, in the parts that it is handed on in.

use std::{
    env::{self, VarError},
    fs,
    net::ToSocketAddrs,
    num::{NonZeroU64, NonZeroUsize},
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use clap::error::ErrorKind;

use super::cli::{
    Cli, Confine, Connect, Processes,
    units::{Size, Span},
};
use crate::{
    aws::{Api, Function},
    effe::{Limits, generation::GenerationConfig},
    handler::access_log::Wanted,
    journal::{self, Format, SyslogFormat, SyslogTarget},
    net::{
        activity::ClientTimeouts, address::Listen, private_listener::Address as PrivateAddress, tls::Tls,
        token::Token,
    },
    plugin::{
        Policy,
        parameters::{Parameters, Sources},
    },
    process::{confine::Confinement, control::Drain, memory},
    scheduler::in_flight::Timeouts,
    server,
};

/// All interfaces: an effe runs in a container or behind a proxy, which could not reach it on loopback.
const DEFAULT_HOST: &str = "0.0.0.0";
/// The port of 2016.
const DEFAULT_PORT: u16 = 8080;
/// Bytes of bodies that are held, however much memory there is.
const MAX_HELD: usize = 1 << 30;
/// Runs that may wait for a thread, for each that may run.
const QUEUE_PER_RUN: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Serve,
    /// Print Info.
    Info,
    /// Init, one Start, one Stop.
    Check,
}

/// What this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The one that the operator has started.
    Whole,
    /// One that a supervisor has started.
    Supervised,
    /// A supervisor that goes on in the place of another program.
    GoesOn,
}

/// What a process may have before another one takes its place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recycling {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Requests.
    pub requests: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct Config {
    /// The plugin as it was named; empty in a program that holds its lambda.
    pub plugin: PathBuf,
    pub mode: Mode,
    pub generations: Arc<GenerationConfig>,
    /// The operator's, as they were at the start.
    pub parameters: Parameters,
    pub limits: Limits,
    /// How long a Context may be idle; `None` for ever.
    pub idle_timeout: Option<Duration>,
    /// Processes that serve under a supervisor; 0 if this one serves itself.
    pub processes: usize,
    /// What may run on after a crash of a process.
    pub fault_grace: Duration,
    /// What each of them may have before it is replaced.
    pub recycling: Recycling,
    /// What each of them is left with.
    pub confinement: Option<Confinement>,
    pub listen: Vec<Listen>,
    /// Whether `listen` was given, or is the default.
    pub listen_is_explicit: bool,
    pub server: Arc<server::Settings>,
    /// Where the admin listener is, and the token that it asks for.
    pub admin: Option<(PrivateAddress, Option<Token>)>,
    /// Where the lambda's reports go, and how they look there.
    pub syslog: (SyslogTarget, SyslogFormat),
    /// Of stderr.
    pub log_format: Format,
    /// What this process is for AWS Lambda; `None` where that has not started it.
    pub function: Option<Function>,
    /// Where AWS's clients are listened to.
    pub aws_api: Option<Api>,
    /// Whether a function streams its answers.
    pub aws_stream: bool,
}

impl Config {
    pub fn journal(&self) -> journal::Settings {
        let (target, syslog_format) = self.syslog.clone();
        journal::Settings { syslog_format, ..journal::Settings::new(target, self.log_format) }
    }
}

impl Cli {
    /// Checks what can be checked before anything is opened; the error lists all faults. A program that holds its
    /// lambda needs no plugin.
    pub(crate) fn checked(self, is_linked: bool, role: Role) -> Result<Config, clap::Error> {
        let mut faults = Vec::new();
        if self.plugin.is_none() && !is_linked {
            faults.push("no lambda is named: give --plugin FILE".to_owned());
        }
        let listen_is_explicit = !self.listen.is_empty() || self.host.is_some() || self.port.is_some();
        // A supervised process is given all that might have changed since the supervisor was started, and so is a
        // program that goes on in its place.
        let (mut listen, mut sources, mut parameters, mut admin) = Default::default();
        let has_admin = self.admin.is_some();
        if role != Role::Supervised {
            sources = self.sources(&mut faults);
            admin = self.admin(&mut faults);
        }
        if role == Role::Whole {
            listen =
                if self.listen.is_empty() { self.host_and_port(&mut faults) } else { self.listen.clone() };
            parameters = sources.read().unwrap_or_else(|fault| {
                faults.push(fault);
                Parameters::default()
            });
        }
        let function = Function::of_environment().unwrap_or_else(|fault| {
            faults.push(fault);
            None
        });
        if function.is_some() && !self.info && !self.check {
            faults.extend(self.misplaced().into_iter().map(Function::misplaced));
        }
        let aws_api = self.aws_api(&mut faults);
        let tls = self.tls(&mut faults);
        let n_cpus = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let processes = match self.processes {
            Processes::Number(n) => n,
            Processes::Auto => n_cpus,
        };
        if processes > 0 && !cfg!(feature = "processes") {
            faults.push(
                "--processes: this loader is built without it; cargo install effe-loader --features processes"
                    .to_owned(),
            );
        }
        if processes == 0 && (self.max_memory.is_some() || self.max_requests.is_some()) {
            faults
                .push("--max-memory and --max-requests are for --processes N, which is not given".to_owned());
        }
        let confinement = self.confinement(processes, role, &mut faults);
        let time = |span: Span| (!span.0.is_zero()).then_some(span.0);
        let idle_exit = self.idle_exit.and_then(time);
        if idle_exit.is_some() && role == Role::Whole {
            if processes == 0 && env::var_os("LISTEN_FDS").is_none() {
                faults.push(
                    "--idle-exit is for a socket that systemd holds (LISTEN_FDS), or for --processes N: nobody else would \
                     wake the effe"
                        .to_owned(),
                );
            }
            if processes > 0 && tls.is_some() {
                faults.push(
                    "--idle-exit with --processes is for connections in clear: leave --tls-cert or --processes out"
                        .to_owned(),
                );
            }
        }
        let held = self.held(processes, &mut faults);
        if !faults.is_empty() {
            return Err(Cli::described().error(ErrorKind::ValueValidation, faults.join("\n       ")));
        }
        let limit = |size: Size| if size.0 == 0 { usize::MAX } else { size.0 };
        let workers = self.workers.map_or(n_cpus.div_ceil(processes.max(1)), NonZeroUsize::get);
        let (strict_ownership, strict_plugin) = (self.strict_ownership, self.strict_plugin);
        let (sha256, sha256_file) = (self.sha256, self.sha256_file);
        Ok(Config {
            plugin: self.plugin.unwrap_or_default(),
            mode: match (self.info, self.check) {
                (true, _) => Mode::Info,
                (_, true) => Mode::Check,
                _ => Mode::Serve,
            },
            generations: Arc::new(GenerationConfig {
                policy: Policy { strict_ownership, strict_plugin, sha256, sha256_file },
                sources,
                mode: self.execution,
                max_idle: self.max_idle,
            }),
            parameters,
            limits: Limits {
                max_concurrency: self.max_concurrency.get(),
                queue: self.queue.unwrap_or(self.max_concurrency.get().saturating_mul(QUEUE_PER_RUN)),
                timeouts: Timeouts { queue: time(self.queue_timeout), run: time(self.run_timeout) },
                max_async: self.max_async.get().div_ceil(workers),
                body: limit(self.body_limit),
                response: limit(self.response_limit),
                held,
                max_lost_threads: self.max_lost_threads,
                // Requests are counted then.
                metered: has_admin || idle_exit.is_some(),
            },
            idle_timeout: time(self.idle_timeout),
            processes,
            fault_grace: self.fault_grace.0,
            recycling: Recycling {
                memory: self.max_memory.map(|size| size.0 as u64).filter(|size| *size > 0),
                requests: self.max_requests.map(NonZeroU64::get),
            },
            confinement,
            listen,
            listen_is_explicit,
            server: Arc::new(server::Settings {
                workers,
                client_timeouts: ClientTimeouts {
                    keep_alive: time(self.keep_alive),
                    read: time(self.read_timeout),
                    write: time(self.write_timeout),
                    upgrade: time(self.upgrade_timeout),
                },
                max_connections: self.max_connections.map(NonZeroUsize::get),
                drain: Drain { delay: self.drain_delay.0, timeout: self.drain_timeout.0 },
                idle_exit,
                answers_probes: self.probes,
                access_log: Wanted { share: self.access_log, extra: self.access_log_with },
                tls,
            }),
            admin,
            syslog: (self.syslog, self.syslog_format),
            log_format: self.log_format,
            function,
            aws_api,
            aws_stream: self.aws_stream,
        })
    }

    /// The flags that make no sense in a function of AWS Lambda's.
    fn misplaced(&self) -> Vec<&'static str> {
        let given = [
            ("--port", self.port.is_some()),
            ("--host", self.host.is_some()),
            ("--listen", !self.listen.is_empty()),
            ("--admin", self.admin.is_some()),
            ("--aws-api", self.aws_api.is_some()),
            ("--tls-cert", self.tls_cert.is_some() || self.tls_key.is_some()),
            ("--processes", self.processes != Processes::Number(0)),
            ("--probes", self.probes),
        ];
        given.into_iter().filter(|(_, is_given)| *is_given).map(|(flag, _)| flag).collect()
    }

    /// What a process is left with, if it is to be confined.
    fn confinement(&self, n_processes: usize, role: Role, faults: &mut Vec<String>) -> Option<Confinement> {
        let Some(how) = self.confine else {
            if !self.allow_read.is_empty() || !self.allow_write.is_empty() || !self.allow_connect.is_empty() {
                faults.push(
                    "--allow-read, --allow-write and --allow-connect are for --confine, which is not given"
                        .to_owned(),
                );
            }
            return None;
        };
        if n_processes == 0 {
            faults.push(
                "--confine is for --processes N, which is not given: a single process opens the next plugin itself"
                    .to_owned(),
            );
        }
        // A path that goes later is told of in the log: it is no reason to serve no more.
        for (flag, paths) in [("--allow-read", &self.allow_read), ("--allow-write", &self.allow_write)] {
            for path in paths.iter().filter(|_| role == Role::Whole) {
                if let Err(err) = fs::metadata(path) {
                    faults.push(format!("{flag} {}: {err}", path.display()));
                }
            }
        }
        let is_any = self.allow_connect.is_empty() || self.allow_connect.contains(&Connect::Any);
        let named = self.allow_connect.iter().filter_map(|connect| match connect {
            Connect::Port(port) => Some(*port),
            Connect::Any | Connect::None => None,
        });
        // The log's own thread is confined, too.
        let ports = (!is_any).then(|| named.chain(self.syslog.tcp_port()).collect());
        let (readable, writable) = (self.allow_read.clone(), self.allow_write.clone());
        Some(Confinement::new(how == Confine::Require, readable, writable, ports))
    }

    /// Bytes of bodies that may be held. What one request or answer may have must fit.
    fn held(&self, n_processes: usize, faults: &mut Vec<String>) -> usize {
        let largest = self.body_limit.0.max(self.response_limit.0);
        let Some(held) = self.held_limit.map(|size| size.0) else {
            let quarter = usize::try_from(memory::available() / 4).unwrap_or(usize::MAX) / n_processes.max(1);
            return quarter.min(MAX_HELD / n_processes.max(1)).max(largest);
        };
        if held == 0 {
            return usize::MAX;
        }
        for (flag, size) in [("--body-limit", self.body_limit.0), ("--response-limit", self.response_limit.0)]
        {
            if size > held {
                faults.push(format!(
                    "--held-limit is {held} bytes, less than {flag}, which is {size}: \
                     raise the one or lower the other"
                ));
            }
        }
        held
    }

    fn admin(&self, faults: &mut Vec<String>) -> Option<(PrivateAddress, Option<Token>)> {
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

    fn aws_api(&self, faults: &mut Vec<String>) -> Option<Api> {
        let is_wanted = self.aws_stream || self.aws_api.is_some() || self.aws_token_file.is_some();
        if is_wanted && !cfg!(feature = "aws") {
            faults.push(
                "--aws-api, --aws-token-file, --aws-stream: this loader is built without them; \
                 cargo install effe-loader --features aws"
                    .to_owned(),
            );
            return None;
        }
        let token = self.aws_token_file.as_deref().and_then(|path| {
            let token = Token::in_file(path);
            token.inspect_err(|err| faults.push(format!("--aws-token-file {}: {err}", path.display()))).ok()
        });
        let Some(place) = self.aws_api.clone() else {
            if self.aws_token_file.is_some() {
                faults.push("--aws-token-file is for --aws-api, which is not given".to_owned());
            }
            return None;
        };
        if place.is_public() && self.aws_token_file.is_none() {
            faults.push(format!(
                "--aws-api {place}: others can reach this address, so it needs --aws-token-file FILE"
            ));
        }
        if self.processes != Processes::Number(0) {
            faults.push(
                "--aws-api: several processes have no listener for AWS's clients; leave out --processes"
                    .to_owned(),
            );
        }
        Some(Api { place, token, retry_delay: self.aws_retry_delay.0 })
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

    fn sources(&self, faults: &mut Vec<String>) -> Sources {
        let variable = variable("EFFE_SET", faults);
        let of_variable = variable.lines().filter(|line| !line.is_empty()).map(str::to_owned);
        Sources { object: self.params.clone(), pairs: of_variable.chain(self.set.iter().cloned()).collect() }
    }
}

/// A variable's text, which is empty where there is none.
fn variable(name: &str, faults: &mut Vec<String>) -> String {
    env::var(name).unwrap_or_else(|err| {
        if let VarError::NotUnicode(value) = err {
            faults.push(format!("the variable {name} is not UTF-8: {value:?}"));
        }
        String::new()
    })
}

fn port_variable(faults: &mut Vec<String>) -> Option<u16> {
    let text = Some(variable("PORT", faults)).filter(|text| !text.is_empty())?;
    text.parse().inspect_err(|err| faults.push(format!("the variable PORT is {text:?}: {err}"))).ok()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn config(args: &[&str]) -> Result<Config, String> {
        parsed("effe-loader", args, false)
    }

    fn parsed(program: &str, args: &[&str], is_linked: bool) -> Result<Config, String> {
        let args = [program].into_iter().chain(args.iter().copied()).map(Into::into);
        let config = Cli::parse(args, is_linked).and_then(|cli| cli.checked(is_linked, Role::Whole));
        config.map_err(|err| err.to_string())
    }

    fn port(config: &Config) -> u16 {
        match &config.listen[0] {
            Listen::Tcp(addresses) => addresses[0].port(),
            Listen::Unix(path) => panic!("{}", path.display()),
        }
    }

    #[test]
    fn listen_takes_the_place_of_host_and_port() {
        let listen =
            config(&["-p", "a.so", "--listen", "127.0.0.1:1", "--listen", "unix:/a"]).unwrap().listen;
        assert_eq!(listen.len(), 2);
        for other in ["--host=::1", "--port=1"] {
            let text = config(&["-p", "a.so", "--listen", "127.0.0.1:1", other]).unwrap_err();
            assert!(text.contains("cannot be used with"), "{text}");
        }
    }

    #[test]
    fn the_flags_are_consistent_and_the_spelling_of_2016_is_taken() {
        Cli::command().debug_assert();
        let config = config(&["--plugin", "a.so", "-port", "81", "-info"]).unwrap();
        assert_eq!((port(&config), config.mode), (81, Mode::Info));
        assert_eq!(port(&self::config(&["-p", "a.so", "-port=82"]).unwrap()), 82);
    }

    #[test]
    fn a_program_that_holds_its_lambda_takes_no_plugin() {
        let linked = |args: &[&str]| parsed("/bin/hello_v1", args, true);
        assert_eq!(port(&linked(&["-port", "81"]).unwrap()), 81);
        assert!(linked(&["--plugin", "a.so"]).unwrap_err().contains("this program holds its lambda"));
        assert!(linked(&["--sha256", &"0".repeat(64)]).unwrap_err().contains("check the program itself"));
        let help = linked(&["--help"]).unwrap_err();
        assert!(help.contains("hello_v1 [--port 8080]") && !help.contains("--plugin"), "{help}");
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let text = config(&["--set", "=x", "--host", "no such host"]).unwrap_err();
        for part in ["--plugin", "--set =x", "--host no such host"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
