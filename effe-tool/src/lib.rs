//! The command line tool for authors and operators of lambdas: `new`, `compile`, `run`, `watch`, `invoke`, `debug`,
//! `profile`, `inspect`, `docker`, `package`, `route`, `header` and `completions`.
//!
//! This file owns the start of the process, the dispatch of commands and the exit codes. The tool writes sources,
//! starts cargo, other compilers and the loader, and reads their output and the files that they made. It never opens a
//! plugin itself: only the loader does.

#![forbid(unsafe_code)]
#![warn(unreachable_pub)]

pub mod cli;
mod commands;

mod artifact;
mod cargo;
mod changes;
mod crates;
mod effe_abi;
mod elf;
mod engine;
mod flame;
mod foreign;
mod frontmatter;
mod image;
mod inputs;
mod lambda;
mod language;
mod loader;
mod oci;
mod package;
mod plan;
mod sbom;
mod serving;
mod shell;
mod source;
mod target;
mod template;
mod usage;

use std::{ffi::OsString, io, process::ExitCode};

use clap::Parser;

use self::{
    cli::{Cli, Command},
    shell::Shell,
};

/// The exit code for wrong usage.
const USAGE: u8 = 2;

/// Runs the tool with the arguments of a process, and returns the exit code of that process.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<_> = args.into_iter().collect();
    if let Some(code) = serving::become_bound(&args) {
        return code;
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(err) => {
            let _ = err.print();
            return if err.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let mut shell = Shell::new(cli.color, cli.verbosity());
    match run(cli.command, &mut shell) {
        Ok(code) => code,
        // The reader of stdout has closed it, as `head` does.
        Err(err) if is_broken_pipe(&err) => ExitCode::FAILURE,
        Err(err) => {
            shell.error(format_args!("{err:#}"));
            ExitCode::from(if err.is::<usage::Usage>() { USAGE } else { 1 })
        }
    }
}

fn run(command: Command, shell: &mut Shell) -> anyhow::Result<ExitCode> {
    match command {
        Command::New(args) => commands::new::run(&args, shell),
        Command::Compile(args) => commands::compile::run(&args, shell),
        Command::Run(args) => commands::run::run(&args, shell),
        Command::Watch(args) => commands::watch::run(&args, shell),
        Command::Invoke(args) => commands::invoke::run(&args, shell),
        Command::Debug(args) => commands::debug::run(&args, shell),
        Command::Profile(args) => commands::profile::run(&args, shell),
        Command::Inspect(args) => commands::inspect::run(&args, shell),
        Command::Docker(args) => commands::docker::run(&args, shell),
        Command::Package(args) => commands::package::run(&args, shell),
        Command::Route(args) => commands::route::run(&args, shell),
        Command::Header => commands::header::run(shell),
        Command::Completions(args) => commands::completions::run(&args, shell),
    }
}

fn is_broken_pipe(err: &anyhow::Error) -> bool {
    err.downcast_ref::<io::Error>().is_some_and(|err| err.kind() == io::ErrorKind::BrokenPipe)
}
