//! Every flag: its help, its default and its environment variable; and from them a [`Config`], already valid.

use std::{
    env,
    net::ToSocketAddrs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    thread,
    time::Duration,
};

use clap::{ArgAction, Command, CommandFactory, FromArgMatches, Parser};

use crate::{
    access_log::{Extra, Share, Wanted},
    admin::{Address as AdminAddress, Token},
    execution::Mode as Execution,
    journal::{Format, SyslogFormat, SyslogTarget},
    listeners::Listen,
    parameters::{Parameters, Sources},
    plugin::{Digest, Policy},
    tls::Tls,
};

/// All interfaces: an effe is run in a container or behind a proxy, where loopback alone would serve nobody.
const DEFAULT_HOST: &str = "0.0.0.0";
/// The port of 2016.
const DEFAULT_PORT: u16 = 8080;
/// What axum and others allow too; a larger body wants a stream.
const DEFAULT_BODY_LIMIT: &str = "2MiB";
/// A held response past this is a mistake more often than a wish.
const DEFAULT_RESPONSE_LIMIT: &str = "16MiB";
/// Contexts may be connections: keep some, not any number.
const DEFAULT_MAX_IDLE: usize = 64;
/// How many runs at once; a thread each if they all wait.
const DEFAULT_MAX_CONCURRENCY: usize = 256;
/// A waiting async run costs a connection and a Context, not a thread.
const DEFAULT_MAX_ASYNC: usize = 16 * 1024;

/// Runs that may wait for a thread, for each that may run.
const QUEUE_PER_RUN: usize = 10;
/// A fraction of the threads: past it, another effe should get the requests.
const DEFAULT_MAX_LOST_THREADS: usize = 16;

/// Serve a lambda over HTTP.
#[derive(Parser, Debug)]
#[command(
    name = "effe-loader",
    about = "Serves any effe lambda over HTTP.",
    override_usage = "effe-loader --plugin libfoo.so [--port 8080] [--info | --check] [OPTIONS]",
    disable_help_flag = true,
    disable_version_flag = true,
    max_term_width = 100,
    after_help = "Each flag is also an environment variable: --body-limit is EFFE_BODY_LIMIT. \
                  --help-all has the rest."
)]
pub struct Cli {
    /// The lambda to serve: a file built from a crate with effe_abi::export!
    #[arg(long, short, value_name = "FILE",
          value_hint = clap::ValueHint::FilePath)]
    pub plugin: Option<PathBuf>,

    /// The port to listen on, 0 for any free one [default: $PORT, or 8080]
    #[arg(long, value_name = "N")]
    pub port: Option<u16>,

    /// Where to listen, repeatable: HOST:PORT or unix:PATH
    #[arg(long, value_name = "WHERE", value_delimiter = ',',
          conflicts_with_all = ["host", "port"])]
    pub listen: Vec<Listen>,

    /// The address to listen on [default: all, 0.0.0.0]
    #[arg(long, value_name = "ADDR")]
    pub host: Option<String>,

    /// Print the lambda's Info as JSON and exit; runs neither Init nor Start
    #[arg(long, conflicts_with = "check")]
    pub info: bool,

    /// Try the lambda: Init, one Start, one Stop; then exit
    #[arg(long)]
    pub check: bool,

    /// A parameter for the lambda; key=@file reads it from a file, as secrets should be
    #[arg(long = "set", value_name = "KEY=VALUE", action = ArgAction::Append)]
    pub set: Vec<String>,

    /// Parameters from a file that holds a JSON object; --set comes on top
    #[arg(long, value_name = "FILE")]
    pub params: Option<PathBuf>,

    /// Threads that serve connections [default: one per CPU]
    #[arg(long, value_name = "N")]
    pub workers: Option<NonZeroUsize>,

    /// Where what the lambda reports goes: auto, none, unix:PATH, udp://HOST:PORT or tcp://HOST:PORT
    #[arg(long, value_name = "WHERE", default_value = "auto")]
    pub syslog: SyslogTarget,

    /// How lines on stderr look: text, json, or auto (text on a terminal)
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    pub log_format: Format,

    /// The largest request body, 0 for any
    #[arg(long, value_name = "SIZE", default_value = DEFAULT_BODY_LIMIT)]
    pub body_limit: Size,

    /// How long a client may take for a request's head, or let its body rest, 0 for ever; then 408
    #[arg(long, value_name = "TIME", default_value = "10s", hide_short_help = true)]
    pub read_timeout: Span,

    /// How long a client may not read what it is sent, 0 for ever; then the connection is broken off
    #[arg(long, value_name = "TIME", default_value = "30s", hide_short_help = true)]
    pub write_timeout: Span,

    /// How long a connection may idle between two requests, 0 for ever
    #[arg(long, value_name = "TIME", default_value = "75s", hide_short_help = true)]
    pub keep_alive: Span,

    /// How many connections there may be at once [default: half of the files that may be open]
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub max_connections: Option<NonZeroUsize>,

    /// How long requests may take to finish once the loader is told to stop
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub drain_timeout: Span,

    /// How long connections are still taken after SIGTERM, while whoever sends them learns of it
    #[arg(long, value_name = "TIME", default_value = "0s", hide_short_help = true)]
    pub drain_delay: Span,

    /// Where health, state, metrics and orders are: ADDRESS:PORT or unix:PATH
    #[arg(long, value_name = "WHERE")]
    pub admin: Option<AdminAddress>,

    /// The token that orders need, and off loopback everything
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub admin_token_file: Option<PathBuf>,

    /// Speak TLS, everywhere but at --admin: the certificate and its chain as PEM, read again at SIGHUP
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's key as PEM
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub tls_key: Option<PathBuf>,

    /// Answer probes on the main port: /health/liveness, /health/readiness, /_/health, /_/ready
    #[arg(long)]
    pub probes: bool,

    /// The largest response that is held whole
    #[arg(long, value_name = "SIZE", default_value = DEFAULT_RESPONSE_LIMIT, hide_short_help = true)]
    pub response_limit: Size,

    /// Where the lambda runs: inline (on the server's threads), pool, or auto (as measured)
    #[arg(long, value_name = "WHERE", default_value_t = Execution::Auto,
          hide_short_help = true)]
    pub execution: Execution,

    /// How many requests may wait for a thread [default: ten times --max-concurrency]
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub queue: Option<usize>,

    /// How long a request may wait for a thread, 0 for ever; then 503
    #[arg(long, value_name = "TIME", default_value = "10s", hide_short_help = true)]
    pub queue_timeout: Span,

    /// How long a request may take, 0 for ever; then 504, and the run is left to end
    #[arg(long, value_name = "TIME", default_value = "60s", hide_short_help = true)]
    pub run_timeout: Span,

    /// How many threads may be lost to runs past --run-timeout before the effe is not ready
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_LOST_THREADS, hide_short_help = true)]
    pub max_lost_threads: usize,

    /// How many requests may run at once
    #[arg(long, value_name = "N", default_value_t = nonzero(DEFAULT_MAX_CONCURRENCY), hide_short_help = true)]
    pub max_concurrency: NonZeroUsize,

    /// How many requests an async lambda may have at once
    #[arg(long, value_name = "N", default_value_t = nonzero(DEFAULT_MAX_ASYNC), hide_short_help = true)]
    pub max_async: NonZeroUsize,

    /// How many idle Contexts are kept
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_IDLE,
          hide_short_help = true)]
    pub max_idle: usize,

    /// How long a Context that nobody needs is kept, 0 for ever
    #[arg(long, value_name = "TIME", default_value = "60s", hide_short_help = true)]
    pub idle_timeout: Span,

    /// How lines in syslog look: rfc3164, or rfc5424 with structured data (and over TCP with lengths, not lines)
    #[arg(long, value_name = "FORMAT", default_value = "rfc3164", hide_short_help = true)]
    pub syslog_format: SyslogFormat,

    /// Log requests: all, or a share such as 10% (and whatever is answered with 500 or more); no query, cookie or body
    #[arg(long, value_name = "SHARE", default_value = "none",
          default_missing_value = "all", num_args = 0..=1, hide_short_help = true)]
    pub access_log: Share,

    /// What --access-log has beyond the usual: query, or the name of a request header; may be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',',
          action = ArgAction::Append, hide_short_help = true)]
    pub access_log_with: Vec<Extra>,

    /// A plugin that may be loaded, by its SHA-256; may be repeated, and then nothing else is loaded
    #[arg(long, value_name = "HEX", value_delimiter = ',', action = ArgAction::Append, hide_short_help = true)]
    pub sha256: Vec<Digest>,

    /// Plugins that may be loaded, as sha256sum lists them; read again for each plugin
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub sha256_file: Option<PathBuf>,

    /// Load only what this user and root alone may write, file and all directories above it
    #[arg(long, hide_short_help = true)]
    pub strict_ownership: bool,

    /// Print this help
    #[arg(long, short, action = ArgAction::HelpShort)]
    help: Option<bool>,

    /// Print all flags
    #[arg(long, action = ArgAction::HelpLong)]
    help_all: Option<bool>,

    /// Print version, commit, ABI and features
    #[arg(long, short = 'V')]
    pub version: bool,
}

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
    /// Parses arguments, the spelling of 2016 (`-port 80`, `-info`) included.
    ///
    /// # Errors
    /// clap's, which knows how to print itself; `--help` is one of them.
    pub fn parse_from_args<I: IntoIterator<Item = std::ffi::OsString>>(args: I) -> Result<Cli, clap::Error> {
        let mut command = Cli::told();
        let mut matches = command.try_get_matches_from_mut(args.into_iter().map(modern))?;
        Cli::from_arg_matches_mut(&mut matches).map_err(|err| err.format(&mut command))
    }

    /// Parses the arguments of a program that holds its lambda: its help names that program and no `--plugin`.
    ///
    /// # Errors
    /// As [`Cli::parse_from_args`]; `--plugin` is one more.
    pub fn parse_linked<I: IntoIterator<Item = std::ffi::OsString>>(args: I) -> Result<Cli, clap::Error> {
        let mut args = args.into_iter().map(modern).peekable();
        let program = args.peek().map(PathBuf::from);
        let name = program.as_deref().and_then(Path::file_name);
        let name = name.map_or_else(|| "effe".to_owned(), |name| name.to_string_lossy().into_owned());
        let mut command = Cli::told()
            .bin_name(name.clone())
            .about("Serves the lambda that it holds over HTTP.")
            .override_usage(format!("{name} [--port 8080] [--info | --check] [OPTIONS]"))
            .mut_arg("plugin", |arg| arg.hide(true))
            .mut_arg("sha256", |arg| arg.hide(true))
            .mut_arg("sha256_file", |arg| arg.hide(true))
            .mut_arg("strict_ownership", |arg| arg.hide(true));
        let mut matches = command.try_get_matches_from_mut(args)?;
        let cli = Cli::from_arg_matches_mut(&mut matches).map_err(|err| err.format(&mut command))?;
        if let Some(plugin) = &cli.plugin {
            let text = format!(
                "--plugin {} (or EFFE_PLUGIN): this program holds its lambda and opens no other; \
                 effe-loader does",
                plugin.display()
            );
            return Err(command.error(clap::error::ErrorKind::ValueValidation, text));
        }
        if cli.strict_ownership || cli.sha256_file.is_some() || !cli.sha256.is_empty() {
            let text = "--sha256, --sha256-file, --strict-ownership: this program holds its lambda, which can't be \
                        told from the program; check the program itself";
            return Err(command.error(clap::error::ErrorKind::ValueValidation, text));
        }
        Ok(cli)
    }

    /// The command line, with the variables if there are any: to look for each of them takes as long as to parse the
    /// arguments.
    fn told() -> Command {
        let is_ours = |name: std::ffi::OsString| name.as_encoded_bytes().starts_with(b"EFFE_");
        if env::vars_os().any(|(name, _)| is_ours(name)) { Cli::described() } else { Cli::command() }
    }

    /// The command line: every flag but those that print is a variable, too, named after it. `--set` is the one whose
    /// variable says more than one.
    fn described() -> Command {
        Cli::command().mut_args(|arg| match arg.get_long() {
            Some(long) if !["set", "help", "help-all", "version"].contains(&long) => {
                let variable = format!("EFFE_{}", long.replace('-', "_").to_ascii_uppercase());
                arg.env(variable).hide_env(true)
            }
            _ => arg,
        })
    }

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

/// All flags as a Markdown table: what docs/flags.md holds.
pub fn markdown() -> String {
    let mut table = String::from("| flag | variable | default | what it does |\n|---|---|---|---|\n");
    for arg in Cli::described().get_arguments() {
        let Some(long) = arg.get_long() else { continue };
        let value = arg.get_value_names().filter(|_| arg.get_action().takes_values());
        let value = value.map_or(String::new(), |names| format!(" {}", names[0]));
        let short = arg.get_short().map_or(String::new(), |short| format!("`-{short}`, "));
        let variable = match arg.get_env() {
            Some(name) => format!("`{}`", name.to_string_lossy()),
            None if long == "set" => "`EFFE_SET`, one a line".to_owned(),
            None => String::new(),
        };
        let default: Vec<_> = arg.get_default_values().iter().map(|text| text.to_string_lossy()).collect();
        let default = if default.is_empty() { String::new() } else { format!("`{}`", default.join(" ")) };
        let default = if arg.get_action().takes_values() { default } else { String::new() };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default().replace('|', "\\|");
        table.push_str(&format!("| {short}`--{long}{value}` | {variable} | {default} | {help} |\n"));
    }
    table
}

/// An error of usage, as clap shows its own.
pub fn usage(text: &str) -> clap::Error {
    Cli::described().error(clap::error::ErrorKind::ValueValidation, text)
}

/// The spelling of 2016.
fn modern(arg: std::ffi::OsString) -> std::ffi::OsString {
    match arg.to_str() {
        Some("-port") => "--port".into(),
        Some("-info") => "--info".into(),
        Some(text) if text.starts_with("-port=") => format!("-{text}").into(),
        _ => arg,
    }
}

fn port_variable(faults: &mut Vec<String>) -> Option<u16> {
    let text = env::var("PORT").ok().filter(|text| !text.is_empty())?;
    text.parse().inspect_err(|err| faults.push(format!("the variable PORT is {text:?}: {err}"))).ok()
}

fn nonzero(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN)
}

/// A number of bytes: `512`, `64KiB`, `2MiB`, `1GiB`, `10MB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub usize);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let (number, unit) = split(text);
        let factor: usize = match unit {
            "" | "B" => 1,
            "K" | "KiB" => 1 << 10,
            "M" | "MiB" => 1 << 20,
            "G" | "GiB" => 1 << 30,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            _ => return Err("write it as 512, 64KiB, 2MiB or 1GiB".to_owned()),
        };
        let size = number.parse::<usize>().ok().and_then(|number| number.checked_mul(factor));
        size.map(Size).ok_or_else(|| "write it as 512, 64KiB, 2MiB or 1GiB".to_owned())
    }
}

/// A length of time: `500ms`, `30s`, `5m`, `1h`; a bare number is seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let (number, unit) = split(text);
        let number: u64 = number.parse().map_err(|_| "write it as 500ms, 30s, 5m or 1h".to_owned())?;
        let millis = match unit {
            "ms" => Some(number),
            "" | "s" => number.checked_mul(1_000),
            "m" => number.checked_mul(60_000),
            "h" => number.checked_mul(3_600_000),
            _ => None,
        };
        // A year is past any use, and keeps sums with the clock from overflowing.
        let millis = millis.filter(|millis| *millis <= 366 * 24 * 3_600_000);
        millis
            .map(|millis| Span(Duration::from_millis(millis)))
            .ok_or("write it as 500ms, 30s, 5m or 1h".to_owned())
    }
}

fn split(text: &str) -> (&str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    (&text[..digits], text[digits..].trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(args: &[&str]) -> Result<Config, String> {
        let args = ["effe-loader"].iter().chain(args).map(Into::into);
        Cli::parse_from_args(args).and_then(Cli::into_config).map_err(|err| err.to_string())
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
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_spelling_of_2016_is_taken() {
        let config = config(&["--plugin", "a.so", "-port", "81", "-info"]).unwrap();
        assert_eq!((port(&config), config.mode), (81, Mode::Info));
        assert_eq!(port(&self::config(&["-p", "a.so", "-port=82"]).unwrap()), 82);
    }

    #[test]
    fn a_program_that_holds_its_lambda_takes_no_plugin() {
        let linked = |args: &[&str]| {
            let args = ["/bin/hello_v1"].iter().chain(args).map(Into::into);
            Cli::parse_linked(args).and_then(Cli::into_linked_config).map_err(|err| err.to_string())
        };
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

    #[test]
    fn sizes_and_times_have_units() {
        let size = |text: &str| text.parse::<Size>().map(|size| size.0);
        assert_eq!(size("512"), Ok(512));
        assert_eq!(size("2MiB"), Ok(2 << 20));
        assert_eq!(size("10 MB"), Ok(10_000_000));
        for bad in ["", "MiB", "-1", "1.5MiB", "2Mib", "99999999999999999999", "99999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        let span = |text: &str| text.parse::<Span>().map(|span| span.0.as_millis());
        assert_eq!(span("500ms"), Ok(500));
        assert_eq!((span("30"), span("30s"), span("5m")), (Ok(30_000), Ok(30_000), Ok(300_000)));
        for bad in ["", "s", "1d", "-1s", "99999999999999h"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn any_size_and_time_is_exact_or_refused() {
        let units = [("", 1, 1_000), ("KiB", 1024, 0), ("MB", 1_000_000, 0), ("m", 0, 60_000), ("ms", 0, 1)];
        bolero::check!().with_type::<(u64, u8, u8, String)>().for_each(|(number, shift, unit, noise)| {
            // All magnitudes alike.
            let number = u128::from(number >> (shift % 64));
            let (unit, bytes, millis) = units[usize::from(*unit) % units.len()];
            let text = format!("{number}{unit}");
            let size = text.parse::<Size>().ok().map(|size| size.0 as u128);
            assert_eq!(
                size,
                Some(number * bytes).filter(|n| bytes > 0 && usize::try_from(*n).is_ok()),
                "{text}"
            );
            let span = text.parse::<Span>().ok().map(|span| span.0.as_millis());
            let year = 366 * 24 * 3_600_000;
            assert_eq!(span, Some(number * millis).filter(|n| millis > 0 && *n <= year), "{text}");
            if !noise.starts_with(|ch: char| ch.is_ascii_digit()) {
                assert!(noise.parse::<Size>().is_err() && noise.parse::<Span>().is_err(), "{noise:?}");
            }
        });
    }
}
