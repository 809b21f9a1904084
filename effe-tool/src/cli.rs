//! Every command and flag: their doc comments are the help. Words and flags are cargo's wherever cargo has them.

use std::{num::NonZeroUsize, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use crate::template::Template;

/// Where `compile` puts what it built.
const DEFAULT_DIROUT: &str = "out";
/// What every command takes comes after its own.
const LAST: usize = 100;

/// Make, compile, run, call, inspect and pack effe lambdas.
#[derive(Parser, Debug)]
#[command(
    name = "effe-tool",
    bin_name = "effe-tool",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// Colours: auto, always or never; NO_COLOR is heeded
    #[arg(
        long,
        value_name = "WHEN",
        global = true,
        display_order = LAST,
        default_value = "auto",
        env = "CARGO_TERM_COLOR",
        hide_env = true,
        hide_possible_values = true
    )]
    pub color: ColorChoice,

    /// Say only what went wrong
    #[arg(long, short, global = true, display_order = LAST, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Show the commands that are run
    #[arg(long, short, global = true, display_order = LAST)]
    pub verbose: bool,
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal.
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

/// How much to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbosity {
    /// What went wrong.
    Quiet,
    /// What is done.
    Normal,
    /// The commands that are run, too.
    Verbose,
}

impl Cli {
    /// How much to say.
    pub fn verbosity(&self) -> Verbosity {
        match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (_, true) => Verbosity::Verbose,
            _ => Verbosity::Normal,
        }
    }
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make a new lambda: a crate, or a single file if NAME ends in .rs
    #[command(visible_alias = "n")]
    New(NewArgs),
    /// Compile lambdas: files, crates, or directories of both
    #[command(visible_alias = "c")]
    Compile(CompileArgs),
    /// Compile a lambda and serve it
    Run(RunArgs),
    /// Serve lambdas, and swap each in anew whenever its source changes
    #[command(visible_alias = "w")]
    Watch(WatchArgs),
    /// Send one request to a lambda, or to a URL
    Invoke(InvokeArgs),
    /// Show what a plugin says of itself, what it needs, and whether the loader takes it
    Inspect(InspectArgs),
    /// Pack a lambda into a container image that holds nothing else
    #[command(visible_alias = "d")]
    Docker(DockerArgs),
    /// Write the configuration of an engine that runs lambdas and leads requests to them
    Route(RouteArgs),
    /// Print a shell's completions
    Completions(CompletionsArgs),
}

/// `new`
#[derive(Args, Debug)]
pub struct NewArgs {
    /// The new crate's directory, or the new file (NAME.rs)
    #[arg(value_name = "NAME", value_hint = ValueHint::AnyPath)]
    pub path: PathBuf,

    /// What to start from
    #[arg(long, short, value_name = "TEMPLATE", default_value = "hello")]
    pub template: Template,

    /// The effe-abi to depend on: a version, or the path of its crate [default: the one this tool came with]
    #[arg(long, value_name = "VERSION|PATH")]
    pub effe_abi: Option<String>,
}

/// How to build; the flags are cargo's.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Build options")]
pub struct BuildArgs {
    /// Build with optimizations; this is the default, but for `watch`
    #[arg(long, short, conflicts_with = "debug")]
    pub release: bool,

    /// Build without optimizations
    #[arg(long)]
    pub debug: bool,

    /// Build for this target triple
    #[arg(long, value_name = "TRIPLE")]
    pub target: Option<String>,

    /// Features of the lambda to activate, separated by spaces or commas
    #[arg(long, short = 'F', value_name = "FEATURES")]
    pub features: Vec<String>,

    /// Activate all features of the lambda
    #[arg(long)]
    pub all_features: bool,

    /// Do not activate the lambda's `default` feature
    #[arg(long)]
    pub no_default_features: bool,

    /// Demand that Cargo.lock stays as it is
    #[arg(long)]
    pub locked: bool,

    /// Build without the network
    #[arg(long)]
    pub offline: bool,

    /// How many jobs run at once [default: one per CPU]
    #[arg(long, short, value_name = "N")]
    pub jobs: Option<String>,

    /// Where to build; this tool's part of it is the directory `effe` in it
    #[arg(long, value_name = "DIR", env = "CARGO_TARGET_DIR", hide_env = true, value_hint = ValueHint::DirPath)]
    pub target_dir: Option<PathBuf>,

    /// The effe-abi of single files that name none: a version, or the path of its crate
    #[arg(long, value_name = "VERSION|PATH")]
    pub effe_abi: Option<String>,
}

/// `compile`
#[derive(Args, Debug)]
pub struct CompileArgs {
    /// Files, crates, or directories of both, however deep
    #[arg(required = true, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub paths: Vec<PathBuf>,

    /// Where to put what is built; folders below PATH are kept
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DIROUT, value_hint = ValueHint::DirPath)]
    pub dirout: PathBuf,

    /// What to call the one that is built, in place of the name and version of its Info
    #[arg(long, short, value_name = "NAME")]
    pub out: Option<String>,

    /// Build an executable with the loader linked in
    #[arg(long)]
    pub exe: bool,

    /// With --exe: link everything in, the C library too
    #[arg(long = "static", requires = "exe")]
    pub fixed: bool,

    /// Print the results as JSON
    #[arg(long)]
    pub json: bool,

    #[expect(missing_docs, reason = "documented at its type")]
    #[command(flatten)]
    pub build: BuildArgs,
}

/// `run`
#[derive(Args, Debug)]
pub struct RunArgs {
    /// A file or crate to compile, or what was compiled
    #[arg(value_hint = ValueHint::AnyPath)]
    pub path: PathBuf,

    /// Flags for the loader, after `--`
    #[arg(last = true, value_name = "LOADER FLAGS")]
    pub loader_args: Vec<std::ffi::OsString>,

    #[expect(missing_docs, reason = "documented at its type")]
    #[command(flatten)]
    pub build: BuildArgs,
}

/// `watch`
#[derive(Args, Debug)]
pub struct WatchArgs {
    /// A file, a crate, or a directory of both, however deep
    #[arg(value_hint = ValueHint::AnyPath)]
    pub path: PathBuf,

    /// The port; the lambdas of a directory take this one and those that follow. 0 picks free ones
    /// [default: 8080, or the next that is free]
    #[arg(long, value_name = "N", env = "EFFE_PORT", hide_env = true)]
    pub port: Option<u16>,

    /// Flags for the loader, after `--`
    #[arg(last = true, value_name = "LOADER FLAGS")]
    pub loader_args: Vec<std::ffi::OsString>,

    #[expect(missing_docs, reason = "documented at its type")]
    #[command(flatten)]
    pub build: BuildArgs,
}

/// `invoke`
#[derive(Args, Debug)]
pub struct InvokeArgs {
    /// A file or crate to compile, what was compiled, or http://…
    #[arg(value_name = "PATH|URL", value_hint = ValueHint::AnyPath)]
    pub callee: String,

    /// The method [default: GET, or POST with --data]
    #[arg(long, short = 'X', value_name = "METHOD")]
    pub method: Option<String>,

    /// Path and query, after the URL's if there is one [default: /]
    #[arg(long, short, value_name = "/PATH?QUERY")]
    pub path: Option<String>,

    /// A header, as 'name: value'
    #[arg(long = "header", short = 'H', value_name = "HEADER")]
    pub headers: Vec<String>,

    /// The body; @FILE reads it from a file, - from standard input
    #[arg(long, short, value_name = "DATA|@FILE|-", allow_hyphen_values = true)]
    pub data: Option<String>,

    /// Exit with 1 if the status is 400 or above
    #[arg(long)]
    pub raise_on_status: bool,

    /// Send it so often, one after the other; show the last answer and the times
    #[arg(long, value_name = "N", default_value = "1", hide_default_value = true)]
    pub repeat: NonZeroUsize,

    /// Give up on an answer after so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    pub timeout: u64,

    /// Print the answer as JSON, with status, headers and times
    #[arg(long)]
    pub json: bool,

    /// Flags for the loader, after `--`
    #[arg(last = true, value_name = "LOADER FLAGS")]
    pub loader_args: Vec<std::ffi::OsString>,

    #[expect(missing_docs, reason = "documented at its type")]
    #[command(flatten)]
    pub build: BuildArgs,
}

/// `inspect`
#[derive(Args, Debug)]
pub struct InspectArgs {
    /// A plugin, or an executable made by `compile --exe`
    #[arg(value_hint = ValueHint::FilePath)]
    pub plugin: PathBuf,

    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// `docker`
#[derive(Args, Debug)]
pub struct DockerArgs {
    /// A plugin or executable, a directory of them, or a file or crate to compile
    #[arg(value_hint = ValueHint::AnyPath)]
    pub path: PathBuf,

    /// The image's name [default: NAME:VERSION of the lambda's Info]
    #[arg(long, short, value_name = "NAME:TAG")]
    pub tag: Option<String>,

    /// Write the image as an OCI archive; needs no engine. For several lambdas a directory
    #[arg(long, value_name = "FILE", conflicts_with_all = ["base", "dockerfile", "engine"],
          value_hint = ValueHint::FilePath)]
    pub oci: Option<PathBuf>,

    /// The CA certificates of the image, in place of the system's
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ca: Option<PathBuf>,

    /// An image to build upon in place of nothing; it brings the C library and the certificates
    #[arg(long, value_name = "IMAGE")]
    pub base: Option<String>,

    /// Print a Dockerfile and build no image
    #[arg(long)]
    pub dockerfile: bool,

    /// What makes the image [default: the first that answers]
    #[arg(long, value_name = "PROGRAM")]
    pub engine: Option<Engine>,

    /// Print the results as JSON
    #[arg(long)]
    pub json: bool,

    #[expect(missing_docs, reason = "documented at its type")]
    #[command(flatten)]
    pub build: BuildArgs,
}

/// `route`
#[derive(Args, Debug)]
pub struct RouteArgs {
    /// For whom
    #[arg(value_name = "ENGINE")]
    pub router: Router,

    /// Plugins or executables, or directories of them
    #[arg(required = true, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub paths: Vec<PathBuf>,

    /// Write the files below this directory, in place of printing them
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dirout: Option<PathBuf>,

    /// What to know of the lambdas; flags come on top [default: effe.toml, if it is there]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,

    /// The path that leads to a lambda [default: /NAME, or / on a host of its own]
    #[arg(long = "path", value_name = "NAME=/PATH")]
    pub paths_of: Vec<String>,

    /// The host of all lambdas, or of one
    #[arg(long = "host", value_name = "[NAME=]HOST")]
    pub hosts: Vec<String>,

    /// The port of the first loader of all, or of one lambda; others count up [default: 7050]
    #[arg(long = "port", value_name = "[NAME=]N")]
    pub ports: Vec<String>,

    /// How many loaders serve each lambda, or one of them [default: 2]
    #[arg(long, value_name = "[NAME=]N")]
    pub replicas: Vec<String>,

    /// A parameter of all lambdas, or of one
    #[arg(long, value_name = "[NAME.]KEY=VALUE")]
    pub set: Vec<String>,

    /// haproxy: where it listens [default: *:8080]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,

    /// kubernetes: what stands before the images' names
    #[arg(long, value_name = "REGISTRY")]
    pub registry: Option<String>,
}

/// Who leads requests to lambdas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Router {
    /// HAProxy, before loaders on this machine
    Haproxy,
    /// Kubernetes: Deployments and what goes with them
    Kubernetes,
    /// systemd: one template unit, started by socket
    Systemd,
}

/// `completions`
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// Which shell
    pub shell: clap_complete::Shell,
}

/// A program that keeps images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// docker, if its daemon answers
    Docker,
    /// podman
    Podman,
    /// buildah
    Buildah,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }
}
