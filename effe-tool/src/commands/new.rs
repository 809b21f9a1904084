//! `new`: writes a crate or a single file from a template.

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::{
    cargo,
    cli::{BuildArgs, NewArgs},
    effe_abi::EffeAbi,
    language::Language,
    package::package_name,
    plan::quoting,
    shell::Shell,
    source::{FILES, Kind},
    template::{self, Template},
    usage::Usage,
};

/// Names that cargo refuses. Those of crates that a template depends on are taken, too.
const TAKEN: [&str; 6] = ["alloc", "core", "effe_abi", "proc_macro", "std", "test"];
const KEYWORDS: &str = " abstract as async await become box break const continue crate do dyn else enum extern false \
                        final fn for gen if impl in let loop macro match mod move mut override priv pub ref return \
                        self static struct super trait true try type typeof unsafe unsized use virtual where while \
                        yield ";

/// Writes the new lambda.
///
/// # Errors
/// The path exists already, the name isn't fit for a crate, or a file can't be written.
pub(crate) fn run(args: &NewArgs, shell: &mut Shell) -> Result<ExitCode> {
    let path = &args.path;
    if path.symlink_metadata().is_ok() {
        bail!("{} is there already; choose another name, or remove it", path.display());
    }
    match (Kind::of_file(path), path.extension()) {
        (Some(Kind::Foreign(language)), _) => single_file(path, &foreign_file(args, language)?, shell)?,
        (Some(_), _) => {
            let effe_abi = EffeAbi::chosen(args.effe_abi.as_deref())?;
            single_file(path, &args.template.single_file(Some(&effe_abi)), shell)?;
        }
        (None, Some(extension)) => {
            let text = format!(
                "{}: no lambda is written in .{}; name {FILES}, or a crate, whose name has no dot",
                path.display(),
                extension.to_string_lossy()
            );
            return Err(Usage(text).into());
        }
        (None, None) => whole_crate(args, shell)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The text of a file in another language than Rust.
fn foreign_file(args: &NewArgs, language: Language) -> Result<String> {
    let path = args.path.display();
    if let Some(effe_abi) = &args.effe_abi {
        let text =
            format!("--effe-abi {effe_abi}: it is for Rust; {path} includes effe.h, which this tool has");
        return Err(Usage(text).into());
    }
    let stem = args.path.file_stem().unwrap_or_default().to_string_lossy();
    args.template.foreign_file(language, &package_name(&stem)).ok_or_else(|| {
        let known = Template::value_variants().iter().filter(|one| one.foreign_file(language, "").is_some());
        let known: Vec<_> =
            known.filter_map(|one| Some(one.to_possible_value()?.get_name().to_owned())).collect();
        let text = format!(
            "{path}: this template is for Rust alone; in {} there is: {}",
            language.name(),
            known.join(", ")
        );
        Usage(text).into()
    })
}

fn single_file(path: &Path, text: &str, shell: &mut Shell) -> Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    write(path, text)?;
    shell.status("Created", format_args!("lambda `{}`", path.display()));
    next(path, shell);
    Ok(())
}

fn whole_crate(args: &NewArgs, shell: &mut Shell) -> Result<()> {
    let path = &args.path;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    check(name)?;
    let effe_abi = EffeAbi::chosen(args.effe_abi.as_deref())?;
    for (file, text) in args.template.crate_files(name, &effe_abi) {
        let file = path.join(file);
        let directory = file.parent().unwrap_or(path);
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        write(&file, &text)?;
    }
    shell.status("Created", format_args!("lambda `{name}` in {}", path.display()));
    stand_alone(path, shell)?;
    next(path, shell);
    Ok(())
}

/// Gives the crate a `[workspace]` of its own if it is below a workspace that doesn't list it: otherwise cargo refuses
/// it.
fn stand_alone(path: &Path, shell: &mut Shell) -> Result<()> {
    let manifest = path.join("Cargo.toml");
    let manifest = manifest.canonicalize().with_context(|| format!("cannot find {}", manifest.display()))?;
    let offline = BuildArgs { offline: true, ..BuildArgs::default() };
    match cargo::metadata(&manifest, &offline) {
        Err(err) if err.to_string().contains("believes it's in a workspace when it's not") => {
            let mut text = fs::read_to_string(&manifest)?;
            text.push_str(
                "\n# a workspace of its own: remove this once the one above lists this crate\n[workspace]\n",
            );
            fs::write(&manifest, text).with_context(|| format!("cannot write {}", manifest.display()))?;
            shell.note("the workspace around it doesn't list it, so it has got a [workspace] of its own");
        }
        // Any other error, such as a missing cargo, is reported when the crate is compiled.
        _ => {}
    }
    Ok(())
}

fn next(path: &Path, shell: &mut Shell) {
    let path = quoting::shell(&path.to_string_lossy());
    shell.note(format_args!(
        "serve it with `effe-tool run {path}`, call it once with `effe-tool invoke {path}`"
    ));
}

fn check(name: &str) -> Result<()> {
    let reason = if name.is_empty() {
        "it is empty"
    } else if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        "it must start with a letter"
    } else if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)) {
        "it may have letters, digits, `-` and `_`"
    } else if name.len() > 64 {
        "it is longer than 64 characters"
    } else if TAKEN.contains(&name)
        || template::dependencies().any(|taken| taken == name)
        || KEYWORDS.contains(&format!(" {name} "))
    {
        "it has a meaning of its own in Rust or in this crate"
    } else {
        return Ok(());
    };
    Err(Usage(format!("{name:?} can't be the name of a lambda: {reason}")).into())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cargo_refuses_are_refused_first() {
        for good in ["hello", "a", "A-1_b", "matches"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in
            ["", "1a", "-a", "a b", "ä", "a/b", "match", "test", "serde", "axum", "effe-abi", &"a".repeat(65)]
        {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
