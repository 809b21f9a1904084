//! Every flag: its help, its default and its environment variable.

pub mod units;

use std::{
    env,
    num::{NonZeroU64, NonZeroUsize},
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::{
    ArgAction, Command, CommandFactory, FromArgMatches, Parser,
    builder::{OsStringValueParser, TypedValueParser as _},
    error::ErrorKind,
};

use self::units::{Size, Span};
use crate::{
    aws::Function,
    handler::access_log::{Extra, Share},
    journal::{Format, SyslogFormat, SyslogTarget},
    net::{address::Listen, private_listener::Address as PrivateAddress},
    placement::Mode as Execution,
    plugin::{Digest, parameters::Object},
};

/// What axum and others allow too; a larger body wants a stream.
const DEFAULT_BODY_LIMIT: &str = "2MiB";
/// A held response past this is more often a mistake than intended.
const DEFAULT_RESPONSE_LIMIT: &str = "16MiB";
/// Contexts may be connections: keep some, not any number.
const DEFAULT_MAX_IDLE: usize = 64;
/// How many runs at once; a thread each if they all wait.
const DEFAULT_MAX_CONCURRENCY: NonZeroUsize = NonZeroUsize::new(256).expect("it is not 0");
/// A waiting async run costs a connection and a Context, not a thread.
const DEFAULT_MAX_ASYNC: NonZeroUsize = NonZeroUsize::new(16 * 1024).expect("it is not 0");
/// A fraction of the threads: past it, another effe should get the requests.
const DEFAULT_MAX_LOST_THREADS: usize = 16;

/// More than any machine has CPUs for.
const MAX_PROCESSES: usize = 1024;

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
    #[arg(long, short, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub plugin: Option<PathBuf>,

    /// The port to listen on, 0 for any free one [default: $PORT, or 8080]
    #[arg(long, value_name = "N")]
    pub port: Option<u16>,

    /// Where to listen, repeatable: HOST:PORT or unix:PATH
    #[arg(long, value_name = "WHERE", value_delimiter = ',', conflicts_with_all = ["host", "port"])]
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

    /// Parameters from a file that holds a JSON object, or the object itself ({…}); --set comes on top
    #[arg(long, value_name = "FILE", value_parser = OsStringValueParser::new().map(Object::from))]
    pub params: Option<Object>,

    /// Threads that serve connections, of each process [default: one per CPU]
    #[arg(long, value_name = "N")]
    pub workers: Option<NonZeroUsize>,

    /// Serve with so many processes, or auto for one per CPU, under a supervisor that replaces one that crashes
    #[arg(long, value_name = "N", default_value = "0", hide_short_help = true)]
    pub processes: Processes,

    /// With --processes: how long other requests may take to finish in a process that has crashed, 0 for none
    #[arg(long, value_name = "TIME", default_value = "1s", hide_short_help = true)]
    pub fault_grace: Span,

    /// With --processes: how much memory a process may have before another one takes its place and its connections
    #[arg(long, value_name = "SIZE", hide_short_help = true)]
    pub max_memory: Option<Size>,

    /// With --processes: how many requests a process may have before another one takes its place and its connections
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub max_requests: Option<NonZeroU64>,

    /// With --processes: take from each process, before Init, the files, ports and calls that a lambda rarely needs;
    /// try, or require, which serves only if the system can take all of them
    #[arg(long, value_name = "HOW", default_missing_value = "try", num_args = 0..=1, hide_short_help = true)]
    pub confine: Option<Confine>,

    /// What a confined process may read beyond the system's libraries and certificates: a file, or all below a
    /// directory
    #[arg(long, value_name = "PATH", value_delimiter = ',', action = ArgAction::Append, hide_short_help = true)]
    pub allow_read: Vec<PathBuf>,

    /// What a confined process may read and write: a file, or all below a directory
    #[arg(long, value_name = "PATH", value_delimiter = ',', action = ArgAction::Append, hide_short_help = true)]
    pub allow_write: Vec<PathBuf>,

    /// The TCP ports that a confined process may connect to, or any, or none [default: any]
    #[arg(long, value_name = "PORT", value_delimiter = ',', action = ArgAction::Append, hide_short_help = true)]
    pub allow_connect: Vec<Connect>,

    /// End when no request has come for so long, until the next one: with --processes, or a socket of systemd's
    #[arg(long, value_name = "TIME", hide_short_help = true)]
    pub idle_exit: Option<Span>,

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

    /// How long nothing may come or go on a connection that a lambda has taken over, 0 for ever; then it is closed
    #[arg(long, value_name = "TIME", default_value = "0", hide_short_help = true)]
    pub upgrade_timeout: Span,

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
    pub admin: Option<PrivateAddress>,

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

    /// Bytes of bodies that are held at once: requests that are read whole, answers that wait for their clients;
    /// 0 for any; past it requests get 503 [default: a quarter of the memory, at most 1GiB]
    #[arg(long, value_name = "SIZE", hide_short_help = true)]
    pub held_limit: Option<Size>,

    /// The largest response that is held whole
    #[arg(long, value_name = "SIZE", default_value = DEFAULT_RESPONSE_LIMIT, hide_short_help = true)]
    pub response_limit: Size,

    /// Where the lambda runs: inline (on the server's threads), pool, or auto (as measured)
    #[arg(long, value_name = "WHERE", default_value_t = Execution::Auto, hide_short_help = true)]
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
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_CONCURRENCY, hide_short_help = true)]
    pub max_concurrency: NonZeroUsize,

    /// How many requests an async lambda may have at once
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_ASYNC, hide_short_help = true)]
    pub max_async: NonZeroUsize,

    /// How many idle Contexts are kept
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_IDLE, hide_short_help = true)]
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
    #[arg(long, value_name = "NAME", value_delimiter = ',', action = ArgAction::Append, hide_short_help = true)]
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

    /// Look for every breach of the contract that a plugin in C may commit, and log it; costs CPU and memory
    #[arg(long, hide_short_help = true)]
    pub strict_plugin: bool,

    /// Where clients of AWS Lambda may invoke the lambda by its name: ADDRESS:PORT or unix:PATH
    #[arg(long, value_name = "WHERE", hide_short_help = true)]
    pub aws_api: Option<PrivateAddress>,

    /// The token that such clients have as access key id; needed off loopback. Signatures are not checked
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub aws_token_file: Option<PathBuf>,

    /// How long an event that nobody waits for rests before it is tried again, and twice as long before the last try
    #[arg(long, value_name = "TIME", default_value = "60s", hide_short_help = true)]
    pub aws_retry_delay: Span,

    /// As a function of AWS Lambda's: send answers while they are written, for a URL with RESPONSE_STREAM
    #[arg(long, hide_short_help = true)]
    pub aws_stream: bool,

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

/// How many processes serve under a supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processes {
    /// 0 for none: the loader serves itself.
    Number(usize),
    /// One for each CPU.
    Auto,
}

impl FromStr for Processes {
    type Err = String;

    fn from_str(text: &str) -> Result<Processes, String> {
        if text == "auto" {
            return Ok(Processes::Auto);
        }
        let number = text.parse().ok().filter(|n| *n <= MAX_PROCESSES);
        number.map(Processes::Number).ok_or_else(|| format!("write a number up to {MAX_PROCESSES}, or auto"))
    }
}

/// How a process is confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confine {
    /// As far as the system can.
    Try,
    /// Whole, or not served.
    Require,
}

impl FromStr for Confine {
    type Err = String;

    fn from_str(text: &str) -> Result<Confine, String> {
        match text {
            "try" => Ok(Confine::Try),
            "require" => Ok(Confine::Require),
            _ => Err("write try or require".to_owned()),
        }
    }
}

/// What a confined process may connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connect {
    /// Everything.
    Any,
    /// Nothing.
    None,
    /// This TCP port, of any machine.
    Port(u16),
}

impl FromStr for Connect {
    type Err = String;

    fn from_str(text: &str) -> Result<Connect, String> {
        match text {
            "any" => Ok(Connect::Any),
            "none" => Ok(Connect::None),
            _ => {
                text.parse().map(Connect::Port).map_err(|_| "write a port's number, any, or none".to_owned())
            }
        }
    }
}

impl Cli {
    /// Parses arguments, the spelling of 2016 (`-port 80`, `-info`) included. Those of a program that holds its lambda
    /// have another help, and may not name a plugin.
    ///
    /// # Errors
    /// clap's, which knows how to print itself; `--help` is one of them.
    pub fn parse(
        args: impl IntoIterator<Item = std::ffi::OsString>,
        is_linked: bool,
    ) -> Result<Cli, clap::Error> {
        let mut args = args.into_iter().map(modern).peekable();
        let mut command = Cli::with_variables();
        if is_linked {
            let program = args.peek().map(PathBuf::from);
            let name = program.as_deref().and_then(Path::file_name).unwrap_or("effe".as_ref());
            let name = name.to_string_lossy().into_owned();
            command = command
                .override_usage(format!("{name} [--port 8080] [--info | --check] [OPTIONS]"))
                .bin_name(name)
                .about("Serves the lambda that it holds over HTTP.");
            for of_plugin in ["plugin", "sha256", "sha256_file", "strict_ownership"] {
                command = command.mut_arg(of_plugin, |arg| arg.hide(true));
            }
        }
        for (name, default) in Function::defaults() {
            command = command.mut_arg(name, |arg| arg.default_value(default));
        }
        let mut matches = command.try_get_matches_from_mut(args)?;
        let cli = Cli::from_arg_matches_mut(&mut matches).map_err(|err| err.format(&mut command))?;
        match cli.not_for_linked().filter(|_| is_linked) {
            Some(fault) => Err(command.error(ErrorKind::ValueValidation, fault)),
            None => Ok(cli),
        }
    }

    /// Why a program that holds its lambda can't take these arguments.
    fn not_for_linked(&self) -> Option<String> {
        if let Some(plugin) = &self.plugin {
            return Some(format!(
                "--plugin {} (or EFFE_PLUGIN): this program holds its lambda and opens no other; \
                 effe-loader does",
                plugin.display()
            ));
        }
        let has_checks = self.strict_ownership || self.sha256_file.is_some() || !self.sha256.is_empty();
        has_checks.then(|| {
            "--sha256, --sha256-file, --strict-ownership: this program holds its lambda, which can't be told from \
             the program; check the program itself"
                .to_owned()
        })
    }

    /// The command line, with the variables only if any is set: to look for each takes as long as to parse the
    /// arguments.
    fn with_variables() -> Command {
        let is_ours = |name: std::ffi::OsString| name.as_encoded_bytes().starts_with(b"EFFE_");
        if env::vars_os().any(|(name, _)| is_ours(name)) { Cli::described() } else { Cli::command() }
    }

    /// The command line: every flag but those that print is a variable, too. `--set` is left out because its variable
    /// holds several.
    pub fn described() -> Command {
        Cli::command().mut_args(|arg| match arg.get_long() {
            Some(long) if !["set", "help", "help-all", "version"].contains(&long) => {
                let variable = format!("EFFE_{}", long.replace('-', "_").to_ascii_uppercase());
                arg.env(variable).hide_env(true)
            }
            _ => arg,
        })
    }
}

/// All flags as a Markdown table: what docs/flags.md holds.
pub fn markdown() -> String {
    let mut table = String::from("| flag | variable | default | what it does |\n|---|---|---|---|\n");
    for arg in Cli::described().get_arguments() {
        let Some(long) = arg.get_long() else { continue };
        let value = arg.get_value_names().filter(|_| arg.get_action().takes_values());
        let value = value.map(|names| format!(" {}", names[0])).unwrap_or_default();
        let short = arg.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default();
        let variable = match arg.get_env() {
            Some(name) => format!("`{}`", name.to_string_lossy()),
            None if long == "set" => "`EFFE_SET`, one a line".to_owned(),
            None => String::new(),
        };
        let default: Vec<_> = arg.get_default_values().iter().map(|text| text.to_string_lossy()).collect();
        let has_default = !default.is_empty() && arg.get_action().takes_values();
        let default = if has_default { format!("`{}`", default.join(" ")) } else { String::new() };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default().replace('|', "\\|");
        table.push_str(&format!("| {short}`--{long}{value}` | {variable} | {default} | {help} |\n"));
    }
    table
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
