//! The server that serves any effe lambda, as a library: a program that links its lambda in serves it the same way.
//!
//! A request goes `server` → `handler` → `effe` (→ `pool`) → `plugin`, through an `exchange`, and its answer the same
//! way back.

mod supervisor;

pub mod boot;

mod admin;
#[cfg_attr(not(feature = "aws"), path = "aws/disabled.rs")]
mod aws;
mod server;

mod handler;

mod effe;

mod scheduler;

mod exchange;

mod http;

mod net;
mod process;

mod body;
mod placement;
mod plugin;
mod rescue;

mod message;

mod error;
mod journal;
mod rt;

use std::{ffi::OsString, io::Write, process::ExitCode};

use effe_abi::Linked;
use signal_hook::low_level;

pub use self::error::{Error, Refusal};
use self::{
    aws::Function,
    boot::{
        answer_trial,
        cli::Cli,
        config::{Mode, Role},
        print, run, run_supervised,
    },
    error::{DONE, USAGE},
    process::{
        exit,
        link::{self, Link, Message},
    },
};

/// Whether `--processes` is built in. Where it is not, the compiler drops what it finds that nobody reaches: 0.6 MB,
/// and what a request would ask.
const HAS_PROCESSES: bool = cfg!(feature = "processes");

/// Runs the loader with the process's arguments, to its exit code. `linked` is the lambda of a program that holds one.
pub fn main(linked: Option<&'static Linked>) -> ExitCode {
    if let Some(path) = plugin::asked_for_trial(std::env::args_os()) {
        answer_trial(&path);
    }
    let mut args: Vec<_> = std::env::args_os().collect();
    if HAS_PROCESSES && link::is_supervised(args.iter().cloned()) {
        args.remove(1);
        return end(serve_supervised(args, linked), linked);
    }
    if HAS_PROCESSES && let Some(version) = supervisor::asked(&mut args) {
        return ExitCode::from(print(&supervisor::answer(version, args, linked.is_some())));
    }
    if HAS_PROCESSES && let Some(handed) = supervisor::Handed::of_environment() {
        return end(supervisor::go_on(handed, args, linked.is_some()), linked);
    }
    let config = match Cli::parse(args.iter().cloned(), linked.is_some()) {
        Ok(cli) if cli.version => return ExitCode::from(print(&version())),
        Ok(cli) => cli.checked(linked.is_some(), Role::Whole),
        Err(err) => Err(err),
    };
    let config = match config {
        Ok(config) => config,
        Err(err) => {
            let _ = err.print();
            if let Ok(Some(function)) = Function::of_environment()
                && err.use_stderr()
            {
                aws::report_usage(&function, &err.to_string());
            }
            return ExitCode::from(if err.use_stderr() { USAGE } else { DONE });
        }
    };
    let outcome = if HAS_PROCESSES && config.processes > 0 && config.mode == Mode::Serve {
        supervisor::run(&config, linked, args)
    } else {
        run(&config, linked)
    };
    let code = outcome.unwrap_or_else(|err| {
        let _ = writeln!(std::io::stderr(), "effe-loader: {err}");
        if let Some(function) = config.function.as_ref().filter(|_| config.mode == Mode::Serve) {
            aws::report_init_error(function, &err);
        }
        err.exit_code()
    });
    end(code, linked)
}

/// Serves under a supervisor, which says why where this process can't.
fn serve_supervised(args: Vec<OsString>, linked: Option<&'static Linked>) -> u8 {
    let (assignment, link) = match Link::take() {
        Ok(taken) => taken,
        Err(err) => {
            let _ = writeln!(std::io::stderr(), "effe-loader: {} is for supervisors: {err}", link::ARGUMENT);
            return USAGE;
        }
    };
    let supervisor = link.sender.clone();
    let config = Cli::parse(args, linked.is_some());
    let config = config.and_then(|cli| cli.checked(linked.is_some(), Role::Supervised));
    let outcome = match config {
        Ok(config) => run_supervised(&config, linked, assignment, link)
            .map_err(|err| (err.exit_code(), err.to_string())),
        Err(err) => Err((USAGE, err.to_string())),
    };
    outcome.unwrap_or_else(|(code, text)| {
        supervisor.send(&Message::Failed { code, text });
        code
    })
}

fn end(code: u8, linked: Option<&'static Linked>) -> ExitCode {
    exit::expect();
    if linked.is_none() {
        // Without the library's destructors: those of a damaged one crash, and those of any other may, while its
        // threads still run. A lambda cleans up in Retire.
        low_level::exit(code.into());
    }
    ExitCode::from(code)
}

/// What `--version` prints: version, commit, ABI and features.
pub fn version() -> String {
    format!(
        "effe-loader {} (commit {}, ABI 1, {}-{}{}{}{}{})",
        env!("CARGO_PKG_VERSION"),
        env!("EFFE_COMMIT"),
        std::env::consts::ARCH,
        std::env::consts::OS,
        if cfg!(feature = "tls") { ", tls" } else { "" },
        if cfg!(feature = "http2") { ", http2" } else { "" },
        if HAS_PROCESSES { ", processes" } else { "" },
        if cfg!(feature = "aws") { ", aws" } else { "" },
    )
}
