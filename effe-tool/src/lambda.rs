//! A lambda that can be built, whatever it is written in: cargo builds crates and files in Rust ([`crate::crates`],
//! [`crate::cargo`]), a compiler builds files in other languages ([`crate::foreign`]).
//!
//! This is the one place that tells the two apart.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{
    artifact::Info,
    cargo::{self, Linking},
    cli::BuildArgs,
    crates,
    foreign::Foreign,
    inputs::Surroundings,
    package::{self, Crate},
    shell::Shell,
    source::{Kind, Source},
    target,
};

/// A lambda that can be built.
#[derive(Debug)]
pub(crate) enum Lambda {
    /// A crate, or one that was made for a file in Rust.
    Crate(Crate),
    /// A file in another language.
    Foreign(Foreign),
}

impl Lambda {
    /// Makes a source ready to be built.
    ///
    /// # Errors
    /// The source is missing, or its manifest is wrong.
    pub(crate) fn of(source: &Source, target: &Path, args: &BuildArgs) -> Result<Lambda> {
        Ok(match source.kind {
            Kind::Crate => Lambda::Crate(crates::in_directory(&source.path, args)?),
            Kind::Rust => Lambda::Crate(crates::of_file(&source.path, target, args)?),
            Kind::Foreign(language) => Lambda::Foreign(Foreign::new(&source.path, language, args)?),
        })
    }

    /// Builds it as a plugin. Returns the plugin.
    ///
    /// # Errors
    /// It doesn't compile, or there is no compiler.
    pub(crate) fn plugin(&self, target: &Path, args: &BuildArgs, shell: &mut Shell) -> Result<PathBuf> {
        // A file under a unique name: the next lambda of the same name would overwrite the compiler's.
        let name = match self {
            Lambda::Crate(one) => package::unique_name(&one.library, &one.manifest),
            Lambda::Foreign(one) => package::unique_name(&one.stem(), one.file()),
        };
        let own = target::profile_directory(target, args).join("lambdas").join(name + ".so");
        self.plugin_at(&own, target, args, shell)?;
        Ok(own)
    }

    /// Builds it as the plugin `own`. Returns the files that it was built from.
    ///
    /// # Errors
    /// As [`Lambda::plugin`].
    pub(crate) fn plugin_at(
        &self,
        own: &Path,
        target: &Path,
        args: &BuildArgs,
        shell: &mut Shell,
    ) -> Result<Vec<PathBuf>> {
        match self {
            Lambda::Crate(one) => cargo::plugin_at(own, one, target, args, shell),
            Lambda::Foreign(one) => one.plugin_at(own, target, args, shell),
        }
    }

    /// Builds it as a program that has the loader linked in. Returns the program.
    ///
    /// # Errors
    /// As [`Lambda::plugin`], or no program can link it.
    pub(crate) fn executable(
        &self,
        target: &Path,
        linking: Linking,
        args: &BuildArgs,
        shell: &mut Shell,
    ) -> Result<PathBuf> {
        match self {
            Lambda::Crate(one) => {
                let manifest = crates::executable(one, target, args, shell)?;
                cargo::executable(&manifest, one, target, linking, args, shell)
            }
            Lambda::Foreign(one) => one.executable(),
        }
    }

    /// What its manifest says of it, if it has one.
    pub(crate) fn manifest_info(&self) -> Option<Info> {
        match self {
            Lambda::Crate(one) => Some(Info::of_package(&one.package, &one.version)),
            Lambda::Foreign(_) => None,
        }
    }

    /// What a build reads, as far as that can be told without one.
    pub(crate) fn surroundings(&self, target: &Path, args: &BuildArgs) -> Surroundings {
        match self {
            Lambda::Crate(one) => cargo::surroundings(one, args),
            Lambda::Foreign(one) => one.surroundings(target),
        }
    }
}

/// The directory in which the tool builds the lambda or lambdas at `path`. It is `effe` in cargo's target directory:
/// the tool's flags differ from those of a plain `cargo build`, and in one directory each would rebuild what the other
/// built.
pub(crate) fn target_directory(path: &Path, args: &BuildArgs) -> Result<PathBuf> {
    let directory = match &args.target_dir {
        Some(directory) => std::path::absolute(directory)?,
        None if path.join("Cargo.toml").is_file() => {
            cargo::metadata(&target::absolute(&path.join("Cargo.toml"))?, args)?.target_directory.into()
        }
        None if path.is_dir() => target::absolute(path)?.join("target"),
        None => target::absolute(path)?.with_file_name("target"),
    };
    Ok(directory.join("effe"))
}
