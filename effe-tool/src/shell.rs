//! The only file that prints: words for people on stderr, results on stdout.

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

/// Where everything goes that the tool says.
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

    /// One for a word before anything is known of who hears it.
    pub(crate) fn plain() -> Shell {
        Shell::new(ColorChoice::Never, Verbosity::Normal)
    }

    /// `   Compiling hello`
    pub(crate) fn status(&mut self, verb: &str, text: impl Display) {
        if self.verbosity != Verbosity::Quiet {
            self.styled(GOOD, &format!("{verb:>12}"), text);
        }
    }

    /// A command that is about to run, for those who want to see it.
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

    /// A line that somebody else wrote: cargo, the loader.
    pub(crate) fn passed_on(&mut self, line: &str) {
        self.line(line);
    }

    /// A line of the answer that the client of `invoke` would see in its protocol.
    pub(crate) fn aside(&mut self, line: impl Display) {
        if self.verbosity != Verbosity::Quiet {
            self.line(&line.to_string());
        }
    }

    /// A result: bytes on stdout, as they are.
    pub(crate) fn result(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    }

    /// Begins to show how far a work of `n_steps` has come, if there is a terminal to show it on.
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

    /// The step that begins now.
    pub(crate) fn step(&mut self, text: impl Display) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_string());
        }
    }

    pub(crate) fn stepped(&mut self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// The work is over.
    pub(crate) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Whether lines of a child must come by here, so that they don't tear the bar.
    pub(crate) fn shows_a_bar(&self) -> bool {
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

    /// That stderr is closed is nobody's trouble: there is nowhere to say so.
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
