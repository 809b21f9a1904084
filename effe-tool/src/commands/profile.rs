//! `profile`: asks a lambda again and again while perf takes samples of its loader, and draws a flame graph of them.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::invoke::Caller;
use crate::{
    artifact::Artifact,
    cli::ProfileArgs,
    flame::Flame,
    serving::{RunningLoader, STOP_TIMEOUT},
    shell::Shell,
};

/// Samples in a second of CPU; no multiple of what timers use.
const FREQUENCY: &str = "499";
/// Release builds have no frame pointers: the stack is copied, and unwound later.
const CALL_GRAPH: &str = "dwarf,16384";

/// Writes the graph.
///
/// # Errors
/// The lambda can't be compiled or served, or perf is missing or can't take samples here.
pub(crate) fn run(args: &ProfileArgs, shell: &mut Shell) -> Result<ExitCode> {
    if Command::new("perf").arg("--version").output().is_err() {
        bail!("there is no perf here; install it (Debian: linux-perf)");
    }
    let artifact = super::artifact(&args.path, &args.build, shell)?;
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let data = directory.path().join("perf.data");
    let serving = RunningLoader::start(&artifact, &args.loader_args, shell)?;
    let sampled = sample(args, &serving, &data, shell);
    let stopped = serving.stop(STOP_TIMEOUT, shell);
    let n_calls = sampled?;
    stopped?;

    let flame = Flame::of_script(&script(&artifact, &data, &directory.path().join("root"))?);
    if flame.n_samples() == 0 {
        bail!("perf took no sample: the lambda took no CPU in {} s; ask for more with --path", args.seconds);
    }
    let name = artifact.path.file_name().unwrap_or_default().to_string_lossy();
    let title = format!("{name}: {} samples of {n_calls} calls of {}", flame.n_samples(), args.url_path);
    fs::write(&args.out, flame.svg(&title))
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    shell.status(
        "Wrote",
        format_args!("{} ({} samples, {n_calls} calls)", args.out.display(), flame.n_samples()),
    );
    Ok(ExitCode::SUCCESS)
}

/// Calls the lambda while perf takes samples. Returns how often.
fn sample(args: &ProfileArgs, serving: &RunningLoader, data: &Path, shell: &mut Shell) -> Result<usize> {
    let mut caller = Caller::new(serving.address(), &args.url_path)?;
    // The first call may wait for a Start, and shows whether there is an answer at all.
    caller.call()?;
    let mut perf = Command::new("perf");
    perf.args(["record", "--quiet", "--freq", FREQUENCY, "--call-graph", CALL_GRAPH, "--output"]).arg(data);
    perf.args(["--pid", &serving.id().to_string(), "--", "sleep", &args.seconds.to_string()]);
    perf.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    shell.command(&perf);
    let mut perf = perf.spawn().context("cannot run perf")?;
    let deadline = Instant::now() + Duration::from_secs(args.seconds.into());
    let mut n_calls = 0;
    let mut called = Ok(());
    while Instant::now() < deadline && called.is_ok() && matches!(perf.try_wait(), Ok(None)) {
        called = caller.call();
        n_calls += 1;
    }
    let perf = perf.wait_with_output().context("cannot wait for perf")?;
    if !perf.status.success() {
        bail!(
            "perf can't take samples here ({}): {}; kernel.perf_event_paranoid must be 2 or less",
            perf.status,
            String::from_utf8_lossy(&perf.stderr).trim()
        );
    }
    called.with_context(|| format!("call {n_calls}"))?;
    Ok(n_calls)
}

/// The samples as text. perf looks for the symbols below a directory in which the name of the lambda's mapping leads to
/// its file; no file of this machine has that name.
fn script(artifact: &Artifact, data: &Path, root: &Path) -> Result<String> {
    let linked = || -> std::io::Result<()> {
        fs::create_dir(root)?;
        for entry in fs::read_dir("/")? {
            let entry = entry?;
            symlink(entry.path(), root.join(entry.file_name()))?;
        }
        let plugin = std::path::absolute(&artifact.path)?;
        let name = plugin.file_name().unwrap_or_default().to_string_lossy().into_owned();
        symlink(&plugin, root.join(format!("memfd:{name} (deleted)")))
    };
    linked().with_context(|| format!("cannot make {}", root.display()))?;
    let mut perf = Command::new("perf");
    perf.args(["script", "--no-inline", "--input"]).arg(data).arg("--symfs").arg(root);
    // It would ask servers for what this machine doesn't have.
    let output = perf.env("DEBUGINFOD_URLS", "").stdin(Stdio::null()).output().context("cannot run perf")?;
    if !output.status.success() {
        bail!("perf script failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
