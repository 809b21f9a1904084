//! The commands, a file for each, and what several of them use: finding artifacts, and printing tables.
//!
//! A command checks how its flags fit together, does the work by means of the other modules, and prints the result.
//! [`crate::cli`] owns the flags.

pub(crate) mod compile;
pub(crate) mod completions;
pub(crate) mod debug;
pub(crate) mod docker;
pub(crate) mod header;
pub(crate) mod inspect;
pub(crate) mod invoke;
pub(crate) mod new;
pub(crate) mod package;
pub(crate) mod profile;
pub(crate) mod route;
pub(crate) mod run;
pub(crate) mod watch;

use std::path::Path;

use anyhow::{Context, Result, bail};
use walkdir::WalkDir;

use crate::{
    artifact::Artifact,
    cli::BuildArgs,
    lambda::{self, Lambda},
    shell::Shell,
    source,
};

/// The artifact at a path, which is one that was compiled before, or a source, which is compiled now.
fn artifact(path: &Path, args: &BuildArgs, shell: &mut Shell) -> Result<Artifact> {
    if path.is_file() && Artifact::is_elf(path) {
        return Artifact::read(path);
    }
    let source = source::one(path)?;
    let target = lambda::target_directory(path, args)?;
    let lambda = Lambda::of(&source, &target, args)?;
    Artifact::read(&lambda.plugin(&target, args, shell)?)
}

/// All artifacts below a directory, sorted by name.
fn artifacts_below(directory: &Path) -> Result<Vec<Artifact>> {
    let mut artifacts = Vec::new();
    for entry in WalkDir::new(directory).sort_by_file_name() {
        let entry = entry.with_context(|| format!("cannot read all of {}", directory.display()))?;
        if entry.file_type().is_file() && Artifact::is_elf(entry.path()) {
            artifacts.push(Artifact::read(entry.path())?);
        }
    }
    if artifacts.is_empty() {
        bail!("{0} holds no plugin; compile first: effe-tool compile {0}", directory.display());
    }
    Ok(artifacts)
}

/// A size for people, such as `435.2 kB`.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.3} MB", bytes as f64 / 1e6),
    }
}

/// A table with aligned columns; the last column is not padded.
fn columns(rows: &[Vec<String>]) -> String {
    let n_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<_> = (0..n_columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_the_units_of_2016() {
        assert_eq!([size(7), size(435_200), size(5_735_000)], ["7 B", "435.2 kB", "5.735 MB"]);
    }
}
