//! `debug`: compiles a lambda without optimizations, and replaces this process by a debugger that starts its loader and
//! stops where the author's Run begins.

use std::{
    fs,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, anyhow};

use crate::{
    cli::{BuildArgs, DebugArgs, Debugger},
    elf, loader, serving,
    shell::Shell,
};

/// Starts the debugger.
///
/// # Errors
/// The lambda doesn't compile, there is no loader, or no debugger.
pub(crate) fn run(args: &DebugArgs, shell: &mut Shell) -> Result<ExitCode> {
    // An optimized Run has neither all its lines nor all its variables.
    let build = BuildArgs { debug: !args.build.release, ..args.build.clone() };
    let artifact = super::artifact(&args.path, &build, shell)?;
    let bytes =
        fs::read(&artifact.path).with_context(|| format!("cannot read {}", artifact.path.display()))?;
    let runs = elf::functions(&bytes)?.into_iter().filter(|name| is_run(name)).collect::<Vec<_>>();
    if runs.is_empty() {
        shell.note(format_args!(
            "{} has no function that is an author's Run: nothing stops there",
            artifact.path.display()
        ));
    }
    let served = loader::command(&artifact)?;
    let debugger = match args.debugger {
        Some(debugger) => debugger,
        None => installed()?,
    };
    let mut command = match debugger {
        Debugger::Gdb => {
            let mut command = Command::new("gdb");
            // The lambda's library isn't there before the loader has opened it.
            command.args([
                "--quiet",
                "-iex",
                "set breakpoint pending on",
                "-iex",
                "set debuginfod enabled off",
            ]);
            for run in &runs {
                command.args(["-ex", &format!("break -function {run}")]);
            }
            command.args(["-ex", "run", "--args"]);
            command
        }
        Debugger::Lldb => {
            let mut command = Command::new("lldb");
            for run in &runs {
                command.args(["--one-line", &format!("breakpoint set --name {run}")]);
            }
            command.args(["--one-line", "run", "--"]);
            command
        }
    };
    command.arg(served.get_program()).args(served.get_args());
    command.args(serving::loopback_flags(&args.loader_args)).args(&args.loader_args);
    if std::env::var_os("EFFE_RUN_TIMEOUT").is_none() {
        // Whoever looks at a run takes longer than a client may.
        command.env("EFFE_RUN_TIMEOUT", "0");
    }
    shell.command(&command);
    let err = command.exec();
    Err(anyhow!(err).context(format!("cannot run {}", command.get_program().to_string_lossy())))
}

/// Whether a function is the Run of an `impl Lambda` or, in an async one, what is polled.
fn is_run(symbol: &str) -> bool {
    let name = format!("{:#}", rustc_demangle::demangle(symbol));
    let is_async =
        name.contains("AsyncLambda>::run::{{closure}}") || name.contains("AsyncLambda>::run::{closure");
    name.contains(" as effe_abi::") && (name.ends_with("::Lambda>::run") || is_async)
}

/// The first debugger that is there.
fn installed() -> Result<Debugger> {
    let is_there = |program: &str| Command::new(program).arg("--version").output().is_ok();
    [("gdb", Debugger::Gdb), ("lldb", Debugger::Lldb)]
        .into_iter()
        .find(|(program, _)| is_there(program))
        .map(|(_, debugger)| debugger)
        .context("neither gdb nor lldb is installed; install one of them")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_of_an_author_is_told_from_others() {
        let legacy = "_ZN57_$LT$hello..Hello$u20$as$u20$effe_abi..lambda..Lambda$GT$3run17hcb5ba1f523344cd4E";
        let of_the_async = "_ZN66_$LT$tick..Tick$u20$as$u20$effe_abi..async_lambda..AsyncLambda$GT$3run28_$u7b$$u7b$closure$u7d$$u7d$17h0000000000000000E";
        assert!(is_run(legacy) && is_run(of_the_async));
        for other in ["_ZN8effe_abi6export3run17h2f50c66636384b11E", "main", "run"] {
            assert!(!is_run(other), "{other}");
        }
    }
}
