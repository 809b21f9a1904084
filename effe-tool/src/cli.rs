//! Every command and flag of the tool. The doc comments are the text of `--help`. Flags are named as cargo names its
//! own where cargo has the same one. This file owns the syntax alone; `commands` owns what the commands do.

use std::{num::NonZeroUsize, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use crate::template::Template;

/// The directory into which `compile` puts what it builds.
const DEFAULT_DIROUT: &str = "out";
/// Longer than the loader's own `--run-timeout` of 60 s, after which it says in its log what overstayed.
const INVOKE_TIMEOUT: u64 = 70;
/// The place in `--help` of the flags that every command has: after the command's own.
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

    /// Colours: auto, always or never; auto respects NO_COLOR
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

    /// Print no steps, notes or tables: only warnings, errors and results
    #[arg(long, short, global = true, display_order = LAST, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Show the commands that are run
    #[arg(long, short, global = true, display_order = LAST)]
    pub verbose: bool,
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// If stderr is a terminal.
    Auto,
    /// In every case.
    Always,
    /// In no case.
    Never,
}

/// How much to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbosity {
    /// Warnings and errors.
    Quiet,
    /// Also the steps.
    Normal,
    /// Also the commands that are run.
    Verbose,
}

impl Cli {
    /// How much to print, from `--quiet` and `--verbose`.
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
    /// Make a new lambda: a crate, or a single file if NAME ends in .rs, .c, .cc or .zig
    #[command(visible_alias = "n")]
    New(NewArgs),
    /// Compile lambdas: files, crates, or directories of both
    #[command(visible_alias = "c")]
    Compile(CompileArgs),
    /// Compile a lambda and serve it
    Run(RunArgs),
    /// Serve lambdas, and rebuild and swap each one when its source changes
    #[command(visible_alias = "w")]
    Watch(WatchArgs),
    /// Send one request to a lambda, or to a URL
    Invoke(InvokeArgs),
    /// Serve a lambda under a debugger, which stops where Run begins
    Debug(DebugArgs),
    /// Call a lambda for some seconds, and draw a flame graph of where its CPU time goes
    Profile(ProfileArgs),
    /// Show a plugin's Info, what it needs, and whether the loader accepts it
    Inspect(InspectArgs),
    /// Pack a lambda into a container image that holds nothing else
    #[command(visible_alias = "d")]
    Docker(DockerArgs),
    /// Pack a lambda as a function of AWS Lambda's
    Package(PackageArgs),
    /// Write the configuration of a router or supervisor that runs lambdas and sends requests to them
    Route(RouteArgs),
    /// Print effe.h, the C header for lambdas in other languages than Rust
    Header,
    /// Print the completions for a shell
    Completions(CompletionsArgs),
}

/// `new`
#[derive(Args, Debug)]
pub struct NewArgs {
    /// The new crate's directory, or the new file (NAME.rs, NAME.c, NAME.cc, NAME.zig)
    #[arg(value_name = "NAME", value_hint = ValueHint::AnyPath)]
    pub path: PathBuf,

    /// What to start from; in other languages than Rust there is hello
    #[arg(long, short, value_name = "TEMPLATE", default_value = "hello")]
    pub template: Template,

    /// The effe-abi to depend on: a version, or the path of its crate [default: that of this tool's checkout or
    /// release]
    #[arg(long, value_name = "VERSION|PATH")]
    pub effe_abi: Option<String>,
}

/// How to build; the flags are cargo's. Other compilers take what is left of them.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Build options")]
pub struct BuildArgs {
    /// Build with optimizations; the default for all commands except `watch`
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

    /// Fail if Cargo.lock would have to change
    #[arg(long)]
    pub locked: bool,

    /// Build without the network
    #[arg(long)]
    pub offline: bool,

    /// How many jobs run at once [default: one per CPU]
    #[arg(long, short, value_name = "N")]
    pub jobs: Option<String>,

    /// The target directory; this tool builds in its subdirectory `effe`
    #[arg(long, value_name = "DIR", env = "CARGO_TARGET_DIR", hide_env = true, value_hint = ValueHint::DirPath)]
    pub target_dir: Option<PathBuf>,

    /// The effe-abi of single files: a version, or the path of its crate
    #[arg(long, value_name = "VERSION|PATH")]
    pub effe_abi: Option<String>,
}

/// `compile`
#[derive(Args, Debug)]
pub struct CompileArgs {
    /// Files, crates, or directories of both, however deep
    #[arg(required = true, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub paths: Vec<PathBuf>,

    /// Where to put what is built; the folders below PATH are kept
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DIROUT, value_hint = ValueHint::DirPath)]
    pub dirout: PathBuf,

    /// The name of the built file, in place of the name and version in Info; for a single lambda
    #[arg(long, short, value_name = "NAME")]
    pub out: Option<String>,

    /// Build an executable with the loader linked in
    #[arg(long)]
    pub exe: bool,

    /// With --exe: link the C library in, too
    #[arg(long = "static", requires = "exe")]
    pub is_static: bool,

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
    /// A file or crate to compile, or a compiled plugin or executable
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

    /// The port; the lambdas of a directory get this one and those that follow. 0 picks free ones
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
    /// A file or crate to compile, a compiled plugin or executable, or http://…
    #[arg(value_name = "PATH|URL", value_hint = ValueHint::AnyPath)]
    pub callee: String,

    /// The method [default: GET, or POST with a body]
    #[arg(long, short = 'X', value_name = "METHOD")]
    pub method: Option<String>,

    /// Path and query; added to those of a URL [default: /]
    #[arg(long, short, value_name = "/PATH?QUERY")]
    pub path: Option<String>,

    /// A header, as 'name: value'
    #[arg(long = "header", short = 'H', value_name = "HEADER")]
    pub headers: Vec<String>,

    /// The body as it is; @FILE reads it from a file, - from standard input
    #[arg(long, short, value_name = "DATA|@FILE|-", allow_hyphen_values = true,
          conflicts_with_all = ["json", "form"])]
    pub data: Option<String>,

    /// A body of JSON, with its content type
    #[arg(long, value_name = "DATA|@FILE|-", allow_hyphen_values = true, conflicts_with = "form")]
    pub json: Option<String>,

    /// A field of a form, with its content type; KEY=@FILE reads the value from a file
    #[arg(long, value_name = "KEY=VALUE")]
    pub form: Vec<String>,

    /// Exit with 1 if a status is 400 or above
    #[arg(long)]
    pub raise_on_status: bool,

    /// Send it N times, one after the other; show the last answer, all statuses and the times
    #[arg(long, value_name = "N", default_value = "1", hide_default_value = true)]
    pub repeat: NonZeroUsize,

    /// Fail if no byte moves for this many seconds: while it connects, sends or waits, or in the midst of the answer
    #[arg(long, value_name = "SECONDS", default_value_t = INVOKE_TIMEOUT, value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub timeout: u64,

    /// What to print on stdout: the body as it comes, or JSON with status, headers, body and times
    #[arg(long, value_name = "FORMAT", default_value = "body")]
    pub output: Output,

    /// Flags for the loader, after `--`
    #[arg(last = true, value_name = "LOADER FLAGS")]
    pub loader_args: Vec<std::ffi::OsString>,

    #[expect(missing_docs, reason = "documented at its type")]
    #[command(flatten)]
    pub build: BuildArgs,
}

/// What `invoke` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// The body, piece by piece as it comes
    Body,
    /// JSON, once the answer has ended
    Json,
}

/// `debug`
#[derive(Args, Debug)]
pub struct DebugArgs {
    /// A file or crate to compile without optimizations, or a compiled plugin or executable
    #[arg(value_hint = ValueHint::AnyPath)]
    pub path: PathBuf,

    /// The debugger [default: the first that is installed]
    #[arg(long, value_name = "PROGRAM")]
    pub debugger: Option<Debugger>,

    /// Flags for the loader, after `--`
    #[arg(last = true, value_name = "LOADER FLAGS")]
    pub loader_args: Vec<std::ffi::OsString>,

    #[expect(missing_docs, reason = "documented at its type")]
    #[command(flatten)]
    pub build: BuildArgs,
}

/// A debugger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Debugger {
    /// GDB
    Gdb,
    /// LLDB
    Lldb,
}

/// `profile`
#[derive(Args, Debug)]
pub struct ProfileArgs {
    /// A file or crate to compile, or a compiled plugin or executable
    #[arg(value_name = "LAMBDA", value_hint = ValueHint::AnyPath)]
    pub path: PathBuf,

    /// What to call: path and query
    #[arg(long = "path", short, value_name = "/PATH?QUERY", default_value = "/")]
    pub url_path: String,

    /// For how long
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,

    /// The graph, which browsers show
    #[arg(long, value_name = "FILE", default_value = "profile.svg", value_hint = ValueHint::FilePath)]
    pub out: PathBuf,

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

    /// Print the crates that it is made of as CycloneDX; of any program or library that `cargo auditable` has built
    #[arg(long, conflicts_with = "json")]
    pub sbom: bool,
}

/// `docker`
#[derive(Args, Debug)]
pub struct DockerArgs {
    /// A plugin or executable, a directory of them, or a file or crate to compile
    #[arg(required_unless_present_any = ["loader_only", "merge"], value_hint = ValueHint::AnyPath)]
    pub path: Option<PathBuf>,

    /// Pack the loader alone, which serves /lambda.so: FROM this image, and COPY a plugin there, is an image
    #[arg(long, conflicts_with = "path")]
    pub loader_only: bool,

    /// Make one archive of several that --oci has written of one image, each for another machine
    #[arg(long, value_name = "FILE", num_args = 2.., requires = "oci", value_hint = ValueHint::FilePath,
          conflicts_with_all = ["path", "loader_only", "tag", "ca", "json"])]
    pub merge: Vec<PathBuf>,

    /// The image's name [default: NAME:VERSION of the lambda's Info]
    #[arg(long, short, value_name = "NAME:TAG")]
    pub tag: Option<String>,

    /// Write the image as an OCI archive, - to standard output; needs no engine. For several lambdas, a directory of
    /// archives
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["base", "dockerfile", "engine"],
          value_hint = ValueHint::FilePath)]
    pub oci: Option<PathBuf>,

    /// The CA certificates of the image, in place of the system's
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ca: Option<PathBuf>,

    /// The base image [default: none]; it must have the C library and the certificates
    #[arg(long, value_name = "IMAGE")]
    pub base: Option<String>,

    /// Write a Dockerfile and all that it copies into a directory, from which an engine builds the image
    #[arg(long, value_name = "DIR", conflicts_with = "engine", value_hint = ValueHint::DirPath)]
    pub dockerfile: Option<PathBuf>,

    /// The program that takes the image [default: the first that answers]
    #[arg(long, value_name = "PROGRAM")]
    pub engine: Option<Engine>,

    /// Print the results as JSON
    #[arg(long)]
    pub json: bool,

    #[expect(missing_docs, reason = "documented at its type")]
    #[command(flatten)]
    pub build: BuildArgs,
}

/// `package`
#[derive(Args, Debug)]
pub struct PackageArgs {
    /// What to pack it for
    #[arg(value_name = "PLATFORM")]
    pub platform: Platform,

    /// A plugin or executable, or a file or crate to compile
    #[arg(value_hint = ValueHint::AnyPath)]
    pub path: PathBuf,

    /// The archive [default: NAME.zip, with the name in Info]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: Option<PathBuf>,

    #[expect(missing_docs, reason = "documented at its type")]
    #[command(flatten)]
    pub build: BuildArgs,
}

/// What takes archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Platform {
    /// AWS Lambda, for its runtime provided.al2023
    Aws,
}

/// `route`
#[derive(Args, Debug)]
pub struct RouteArgs {
    /// Which configuration to write
    #[arg(value_name = "ENGINE")]
    pub router: Router,

    /// Plugins or executables, or directories of them
    #[arg(required = true, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub paths: Vec<PathBuf>,

    /// Write the files below this directory, in place of printing them
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dirout: Option<PathBuf>,

    /// Settings of the lambdas, which flags override [default: effe.toml, if it exists]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,

    /// The URL path of a lambda [default: /NAME, or / on a host of its own]
    #[arg(long = "path", value_name = "NAME=/PATH")]
    pub paths_of: Vec<String>,

    /// The host of all lambdas, or of one
    #[arg(long = "host", value_name = "[NAME=]HOST")]
    pub hosts: Vec<String>,

    /// haproxy, systemd: the first loader's port, of all lambdas or of one; the others count up [default: 7050]
    #[arg(long = "port", value_name = "[NAME=]N")]
    pub ports: Vec<String>,

    /// How many loaders serve each lambda, or one lambda [default: 2]
    #[arg(long, value_name = "[NAME=]N")]
    pub replicas: Vec<String>,

    /// A parameter of all lambdas, or of one; @FILE is the content of a file, and a secret where the engine has any
    #[arg(long, value_name = "[NAME.]KEY=VALUE|@FILE")]
    pub set: Vec<String>,

    /// A directory that outlives the processes of a lambda, which gets its path as the parameter `data`; without NAME,
    /// each lambda has one below DIR
    #[arg(long, value_name = "[NAME=]DIR", value_hint = ValueHint::DirPath)]
    pub data: Vec<String>,

    /// compose, haproxy: the address to listen on [default: *:8080]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,

    /// systemd: a loader ends when no request has come for TIME (5m), and the next one starts it again
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "5m")]
    pub sleep: Option<String>,

    /// compose, knative, kubernetes: the registry of the images
    #[arg(long, value_name = "REGISTRY")]
    pub registry: Option<String>,

    /// kubernetes: also a kustomization.yaml that names the other files, for `kubectl apply --kustomize`
    #[arg(long)]
    pub kustomize: bool,
}

/// What runs lambdas and sends requests to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Router {
    /// Compose, for docker or podman: HAProxy in front of containers
    Compose,
    /// HAProxy, in front of loaders on this machine
    Haproxy,
    /// Knative: a Service for each lambda, which scales with the requests, and to none
    Knative,
    /// Kubernetes: Deployments, Services and related objects
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

/// A container engine.
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
