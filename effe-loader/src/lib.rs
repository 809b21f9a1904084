//! The server that serves any effe lambda, as a library: a program that links its lambda in serves it the same way.
//!
//! A request goes `server` → `handler` → `effe` (→ `pool`) → `plugin`, through an `exchange`, and its answer the same
//! way back.

pub mod boot;

mod admin;
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

mod error;
mod journal;
mod rt;

use std::{io::Write, process::ExitCode};

use effe_abi::Linked;
use signal_hook::low_level;

pub use self::error::{Error, Refusal};
use self::{
    boot::{answer_trial, cli::Cli, config::Config, print, run},
    error::{DONE, USAGE},
};

/// The loader's whole life: arguments in, exit code out. `linked` is the lambda of a program that has one.
pub fn main(linked: Option<&'static Linked>) -> ExitCode {
    if let Some(path) = plugin::asked_for_trial(std::env::args_os()) {
        answer_trial(&path);
    }
    let args = std::env::args_os();
    let cli = if linked.is_some() { Cli::parse_linked(args) } else { Cli::parse_from_args(args) };
    let cli = match cli {
        Ok(cli) => cli,
        Err(err) => return usage(&err),
    };
    if cli.version {
        return ExitCode::from(print(&version()));
    }
    let config = if linked.is_some() { Config::of_linked(cli) } else { Config::of(cli) };
    let config = match config {
        Ok(config) => config,
        Err(err) => return usage(&err),
    };
    let code = match run(&config, linked) {
        Ok(code) => code,
        Err(err) => {
            let _ = writeln!(std::io::stderr(), "effe-loader: {err}");
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
        "effe-loader {} (commit {}, ABI 1, {}-{}{}{})",
        env!("CARGO_PKG_VERSION"),
        env!("EFFE_COMMIT"),
        std::env::consts::ARCH,
        std::env::consts::OS,
        if cfg!(feature = "tls") { ", tls" } else { "" },
        if cfg!(feature = "http2") { ", http2" } else { "" },
    )
}

fn usage(err: &clap::Error) -> ExitCode {
    let _ = err.print();
    ExitCode::from(if err.use_stderr() { USAGE } else { DONE })
}
