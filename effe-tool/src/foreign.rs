//! Lambdas that are not Rust: a single file in C, C++ or Zig that includes `effe.h`. This file builds plugins of them.
//!
//! [`compiler`] finds the compiler and knows its flags, [`inputs`] which files it reads. Nothing here needs cargo.

mod compiler;
mod inputs;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, anyhow, bail};

use self::compiler::Job;
use crate::{cli::BuildArgs, inputs::Surroundings, language::Language, shell::Shell, target};

/// A file to compile.
#[derive(Debug)]
pub(crate) struct Foreign {
    /// As the user wrote it: compilers name it so in their messages.
    path: PathBuf,
    /// Its absolute path.
    file: PathBuf,
    language: Language,
}

impl Foreign {
    /// A file that the user named.
    ///
    /// # Errors
    /// The file is missing, or a flag asks for what only cargo can do.
    pub(crate) fn new(path: &Path, language: Language, args: &BuildArgs) -> Result<Foreign> {
        let file = target::absolute(path)?;
        if let Some(features) = args.features.first() {
            bail!("a file in {} has no features; leave --features {features} away", language.name());
        }
        Ok(Foreign { path: path.to_owned(), file, language })
    }

    /// Its absolute path.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Its name without the extension, as a name for files.
    pub(crate) fn stem(&self) -> String {
        self.file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Builds it as the plugin `own`. Returns the files that it was built from.
    ///
    /// # Errors
    /// There is no compiler, or it fails.
    pub(crate) fn plugin_at(
        &self,
        own: &Path,
        target: &Path,
        args: &BuildArgs,
        shell: &mut Shell,
    ) -> Result<Vec<PathBuf>> {
        target::make(own.parent().unwrap_or(target))?;
        // To be renamed: a loader may have the old file open.
        let draft = own.with_extension(format!("{}.tmp", std::process::id()));
        let rule = draft.with_extension("d");
        let built = compiler::of(self.language, args.target.as_deref()).and_then(|compiler| {
            shell.status("Compiling", format_args!("{} ({})", self.path.display(), compiler.name()));
            let (path, out, rule) = (&self.path, &draft, &rule);
            let job = Job { path, out, rule, target, args, colour: shell.colour() };
            run(compiler.build(&job)?, compiler.name(), shell)?;
            fs::rename(&draft, own).with_context(|| format!("cannot write {}", own.display()))
        });
        let inputs = inputs::of_build(&self.file, self.language, &rule);
        for left in [&draft, &rule] {
            let _ = fs::remove_file(left);
        }
        built.map(|()| inputs)
    }

    /// Refuses to make a program of it.
    ///
    /// # Errors
    /// Always: only cargo links the loader to a lambda.
    pub(crate) fn executable(&self) -> Result<PathBuf> {
        bail!(
            "--exe links the loader to lambdas in Rust alone; serve the plugin of a file in {} with effe-loader, or \
             pack both with effe-tool docker",
            self.language.name()
        )
    }

    /// What a build reads, as far as that can be told without one.
    pub(crate) fn surroundings(&self, target: &Path) -> Surroundings {
        inputs::before_a_build(&self.file, self.language, target)
    }
}

/// Runs a compiler and shows what it says.
fn run(mut command: Command, name: &str, shell: &mut Shell) -> Result<()> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    if shell.has_progress_bar() {
        command.stderr(Stdio::piped());
    }
    shell.command(&command);
    let mut child = command.spawn().with_context(|| format!("cannot run {name}"))?;
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).split(b'\n') {
            let line = line.with_context(|| format!("cannot read what {name} says"))?;
            shell.relay(&String::from_utf8_lossy(&line));
        }
    }
    let status = child.wait().with_context(|| format!("cannot wait for {name}"))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(_) => Err(anyhow!("{name} could not compile it")),
        None => Err(anyhow!("{name} was ended ({status})")),
    }
}
