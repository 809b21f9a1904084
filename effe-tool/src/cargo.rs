//! Runs cargo: asks it for metadata, builds lambdas with it, and finds the files that it built.
//!
//! [`crate::crates`] makes the crates; this file owns the flags and the release profile.

mod inputs;
mod metadata;
mod profile;

use std::{
    env,
    ffi::OsString,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{ChildStdout, Command, Stdio},
    thread,
};

use anyhow::{Context, Result, anyhow};
use cargo_metadata::Message;

use self::metadata::cargo;
pub(crate) use self::{inputs::surroundings, metadata::metadata};
use crate::{
    cli::{BuildArgs, Verbosity},
    package::{self, Crate},
    shell::Shell,
    target::{lock, profile_directory, replace_file},
};

/// Builds a lambda as the plugin `own`. Returns the files that it was built from.
///
/// # Errors
/// The profile has `panic = "abort"`, or cargo fails.
pub(crate) fn plugin_at(
    own: &Path,
    lambda: &Crate,
    target: &Path,
    args: &BuildArgs,
    shell: &mut Shell,
) -> Result<Vec<PathBuf>> {
    let mut command = cargo();
    // Only the library, and only as a cdylib: with an rlib beside it, cargo does no link-time optimization.
    command.args(["rustc", "--lib", "--crate-type", "cdylib", "--manifest-path"]).arg(&lambda.manifest);
    features(&mut command, args);
    if args.locked && lambda.stands_for.is_none() {
        command.arg("--locked");
    }
    profile::set(&mut command, &lambda.workspace, args)?;
    flags(&mut command, target, args, shell);
    if let Some((copy, file)) = &lambda.stands_for {
        command.arg("--");
        // cargo gives rustc the path below the crate; debug information has the whole of it.
        for path in [copy.as_os_str(), copy.file_name().unwrap_or_default()] {
            let mut remap = OsString::from("--remap-path-prefix=");
            remap.push(path);
            remap.push("=");
            remap.push(file.file_name().unwrap_or_default());
            command.arg(remap);
        }
    }
    let directory = profile_directory(target, args);
    let _lock = lock(target, shell)?;
    forget_other_lambdas(lambda, &directory)?;
    let built = build(command, &lambda.directory, &lambda.manifest, shell)?;
    let plugin = built.into_iter().find(|path| {
        path.extension()
            .is_some_and(|extension| ["so", "dylib", "dll"].iter().any(|known| extension == *known))
    });
    let plugin = plugin.ok_or_else(|| anyhow!("cargo built no library of {}", lambda.manifest.display()))?;
    replace_file(&plugin, own)?;
    Ok(inputs::files(&plugin))
}

/// Builds the crate that [`crate::crates::executable`] made.
///
/// # Errors
/// As [`plugin_at`].
pub(crate) fn executable(
    manifest: &Path,
    lambda: &Crate,
    target: &Path,
    linking: Linking,
    args: &BuildArgs,
    shell: &mut Shell,
) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--manifest-path"]).arg(manifest);
    profile::set(&mut command, &lambda.workspace, args)?;
    let mut args = args.clone();
    if linking == Linking::Static {
        let triple = match &args.target {
            Some(target) => target.clone(),
            None => static_target()?,
        };
        if triple.contains("-gnu") {
            // With `--target`, cargo doesn't apply the flag to build scripts and macros, which can't be static.
            let flags = "-Ctarget-feature=+crt-static";
            match env::var("RUSTFLAGS") {
                Ok(given) => command.env("RUSTFLAGS", format!("{given} {flags}")),
                Err(_) => command.arg("--config").arg(format!("target.{triple}.rustflags=[\"{flags}\"]")),
            };
        }
        args.target = Some(triple);
    }
    flags(&mut command, target, &args, shell);
    let _lock = lock(target, shell)?;
    let built = build(command, &lambda.directory, manifest, shell)?.into_iter().next();
    let built = built.ok_or_else(|| anyhow!("cargo built no executable of {}", manifest.display()))?;
    let own = profile_directory(target, &args)
        .join("lambdas")
        .join(package::unique_name(&lambda.library, &lambda.manifest));
    replace_file(&built, &own)?;
    Ok(own)
}

/// Whether an executable uses the machine's C library or holds its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Linking {
    Dynamic,
    Static,
}

fn features(command: &mut Command, args: &BuildArgs) {
    for features in &args.features {
        command.arg("--features").arg(features);
    }
    if args.all_features {
        command.arg("--all-features");
    }
    if args.no_default_features {
        command.arg("--no-default-features");
    }
}

fn flags(command: &mut Command, target: &Path, args: &BuildArgs, shell: &Shell) {
    command.args(["--message-format", "json-render-diagnostics", "--color"]);
    command.arg(if shell.colour() { "always" } else { "never" });
    command.arg("--target-dir").arg(target);
    if !args.debug {
        command.arg("--release");
    }
    if let Some(triple) = &args.target {
        command.arg("--target").arg(triple);
    }
    if args.offline {
        command.arg("--offline");
    }
    if let Some(jobs) = &args.jobs {
        command.arg("--jobs").arg(jobs);
    }
    match shell.verbosity() {
        Verbosity::Quiet => {
            command.arg("--quiet");
        }
        Verbosity::Normal => {}
        Verbosity::Verbose => {
            command.arg("--verbose");
        }
    }
}

/// Removes the library that another lambda of the same name left: cargo builds both into one file, and would regard the
/// one that is there as up to date.
fn forget_other_lambdas(lambda: &Crate, directory: &Path) -> Result<()> {
    let owner = directory.join(format!(".{}.manifest", lambda.library));
    let ours = lambda.manifest.as_os_str().as_encoded_bytes();
    if fs::read(&owner).is_ok_and(|theirs| theirs == ours) {
        return Ok(());
    }
    for place in [&directory.join("deps"), directory] {
        let _ = fs::remove_file(place.join(format!("lib{}.so", lambda.library)));
    }
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    fs::write(&owner, ours).with_context(|| format!("cannot write {}", owner.display()))
}

/// The target for static programs: musl if it is installed, else this machine's own target.
fn static_target() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let ask = |args: &[&str]| {
        let output = Command::new(&rustc).args(args).output().context("cannot run rustc")?;
        String::from_utf8(output.stdout).context("rustc printed no text")
    };
    let about = ask(&["-vV"])?;
    let host =
        about.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or("x86_64-unknown-linux-gnu");
    let musl = host.replace("-gnu", "-musl");
    let library = Path::new(ask(&["--print", "sysroot"])?.trim()).join("lib/rustlib").join(&musl).join("lib");
    Ok(if library.is_dir() { musl } else { host.to_owned() })
}

/// Runs cargo, shows its messages, and returns the files that it built of the package with this manifest.
fn build(mut command: Command, directory: &Path, manifest: &Path, shell: &mut Shell) -> Result<Vec<PathBuf>> {
    command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::piped());
    if shell.has_progress_bar() {
        command.stderr(Stdio::piped());
    }
    shell.command(&command);
    let mut child = command.spawn().context("cannot run cargo; is it installed and in PATH?")?;
    let stdout = child.stdout.take().ok_or_else(|| anyhow!("cargo has no stdout"))?;
    let manifest = manifest.to_owned();
    let reader = thread::spawn(move || files(stdout, &manifest));
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines() {
            shell.relay(&line.context("cannot read what cargo says")?);
        }
    }
    let status = child.wait().context("cannot wait for cargo")?;
    let files = reader.join().map_err(|_| anyhow!("cannot read what cargo says"))?;
    match status.success() {
        true => Ok(files),
        false => Err(anyhow!("cargo could not compile it")),
    }
}

fn files(stdout: ChildStdout, manifest: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for message in Message::parse_stream(BufReader::new(stdout)).map_while(Result::ok) {
        if let Message::CompilerArtifact(artifact) = message
            && artifact.manifest_path == manifest
            && !artifact.target.is_custom_build()
        {
            files.extend(artifact.executable.into_iter().chain(artifact.filenames).map(PathBuf::from));
        }
    }
    files
}
