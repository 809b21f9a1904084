//! All output of the tool: messages on stderr, results on stdout. It owns verbosity, colours and the progress bar; no
//! other file prints.

use std::{
    env,
    fmt::Display,
    io::{self, IsTerminal, Write},
};

use clap::builder::styling::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{ColorChoice, Verbosity};

const GOOD: Style = AnsiColor::Green.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const ERROR: Style = AnsiColor::Red.on_default().bold();
const NOTE: Style = AnsiColor::Cyan.on_default().bold();

/// The tool's output.
pub(crate) struct Shell {
    colour: bool,
    terminal: bool,
    verbosity: Verbosity,
    bar: Option<ProgressBar>,
}

impl Shell {
    pub(crate) fn new(choice: ColorChoice, verbosity: Verbosity) -> Shell {
        let terminal = io::stderr().is_terminal();
        let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || env::var_os("TERM").is_some_and(|value| value == "dumb");
        let colour = match choice {
            ColorChoice::Auto => terminal && !refused,
            ColorChoice::Always => true,
            ColorChoice::Never => false,
        };
        Shell { colour, terminal, verbosity, bar: None }
    }

    /// An output without colours, for errors before the flags are parsed.
    pub(crate) fn plain() -> Shell {
        Shell::new(ColorChoice::Never, Verbosity::Normal)
    }

    /// A step, as cargo prints it: `   Compiling hello`.
    pub(crate) fn status(&mut self, verb: &str, text: impl Display) {
        if self.verbosity != Verbosity::Quiet {
            self.styled(GOOD, &format!("{verb:>12}"), text);
        }
    }

    /// A command that is about to run; printed with `--verbose`.
    pub(crate) fn command(&mut self, command: &std::process::Command) {
        if self.verbosity == Verbosity::Verbose {
            self.styled(GOOD, "     Running", format_args!("{command:?}"));
        }
    }

    pub(crate) fn note(&mut self, text: impl Display) {
        if self.verbosity != Verbosity::Quiet {
            self.styled(NOTE, "note:", text);
        }
    }

    pub(crate) fn warning(&mut self, text: impl Display) {
        self.styled(WARNING, "warning:", text);
    }

    pub(crate) fn error(&mut self, text: impl Display) {
        self.styled(ERROR, "error:", text);
    }

    /// A line of another program's output, unchanged: cargo's or the loader's.
    pub(crate) fn relay(&mut self, line: &str) {
        self.line(line);
    }

    /// A line about an answer, beside its body: status, header or time.
    pub(crate) fn detail(&mut self, line: impl Display) {
        if self.verbosity != Verbosity::Quiet {
            self.line(&line.to_string());
        }
    }

    /// A result: bytes for stdout, unchanged.
    pub(crate) fn result(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    }

    /// A table for people on stdout. What programs read is a [`Shell::result`].
    pub(crate) fn table(&mut self, text: &str) -> io::Result<()> {
        match self.verbosity {
            Verbosity::Quiet => Ok(()),
            Verbosity::Normal | Verbosity::Verbose => self.result(text.as_bytes()),
        }
    }

    /// Shows a progress bar for `n_steps`, if stderr is a terminal.
    pub(crate) fn begin(&mut self, n_steps: usize) {
        if n_steps < 2 || !self.terminal || self.verbosity == Verbosity::Quiet {
            return;
        }
        let bar = ProgressBar::new(n_steps as u64);
        let style = if self.colour {
            "    {prefix:.cyan.bold} [{bar:25}] {pos}/{len}: {msg}"
        } else {
            "    {prefix} [{bar:25}] {pos}/{len}: {msg}"
        };
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix("Building");
        self.bar = Some(bar);
    }

    /// Names the step that begins now.
    pub(crate) fn step(&mut self, text: impl Display) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_string());
        }
    }

    pub(crate) fn step_done(&mut self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// Removes the progress bar.
    pub(crate) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Whether a progress bar is shown. A child's lines must then be printed by [`Shell::relay`], or they would damage
    /// it.
    pub(crate) fn has_progress_bar(&self) -> bool {
        self.bar.is_some()
    }

    pub(crate) fn colour(&self) -> bool {
        self.colour
    }

    pub(crate) fn verbosity(&self) -> Verbosity {
        self.verbosity
    }

    fn styled(&mut self, style: Style, head: &str, text: impl Display) {
        match self.colour {
            true => self.line(&format!("{style}{head}{style:#} {text}")),
            false => self.line(&format!("{head} {text}")),
        }
    }

    /// Prints a line. An error is ignored: if stderr is closed, no message can be shown.
    fn line(&mut self, line: &str) {
        let write = || {
            let _ = writeln!(io::stderr().lock(), "{line}");
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}
