//! `compile`: compiles files, crates and directories of both. It continues after a failure, and prints a table at the
//! end.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Result, bail};
use serde_json::json;

use super::{columns, size};
use crate::{
    artifact::{self, Artifact, Info, Kind},
    cargo::Linking,
    cli::CompileArgs,
    lambda::{self, Lambda},
    loader,
    shell::Shell,
    source::{self, Source},
    target,
    usage::Usage,
};

/// The result for one source.
struct Outcome {
    source: PathBuf,
    built: Result<Built>,
}

struct Built {
    path: PathBuf,
    info: Info,
    size: u64,
}

/// Compiles all sources.
///
/// # Errors
/// A path is missing or has nothing to compile, or the flags contradict each other. A source that fails to
/// compile is no error; the table has it, and the exit code is 1.
pub(crate) fn run(args: &CompileArgs, shell: &mut Shell) -> Result<ExitCode> {
    if let Some(name) = &args.out
        && !artifact::is_name(name)
    {
        return Err(Usage(format!(
            "--out {name}: it names a file in --dirout; write letters, digits, `.`, `_` and `-`"
        ))
        .into());
    }
    let mut sources = Vec::<Source>::new();
    for path in &args.paths {
        let found = source::all(path, &args.dirout)?;
        for (path, reason) in &found.skipped {
            shell.note(format_args!("{} is left out: {reason}", path.display()));
        }
        if found.sources.is_empty() {
            bail!("{} holds no lambda; make one with effe-tool new NAME", path.display());
        }
        sources
            .extend(found.sources.into_iter().filter(|source| !sources.contains(source)).collect::<Vec<_>>());
    }
    if let (Some(name), true) = (&args.out, sources.len() > 1) {
        return Err(Usage(format!("--out {name} names one lambda, and here are {}", sources.len())).into());
    }
    let target = lambda::target_directory(&args.paths[0], &args.build)?;

    let mut taken = BTreeMap::new();
    let mut outcomes = Vec::new();
    shell.begin(sources.len());
    for source in &sources {
        shell.step(source.path.display());
        let built = compile(source, &target, args, &mut taken, shell);
        match &built {
            Ok(built) => shell.status("Built", built.path.display()),
            Err(err) => shell.error(format_args!("{}: {err:#}", source.path.display())),
        }
        shell.step_done();
        outcomes.push(Outcome { source: source.path.clone(), built });
    }
    shell.end();
    match args.json {
        true => shell.result(as_json(&outcomes).as_bytes())?,
        false => shell.table(&as_table(&outcomes))?,
    }
    let n_failed = outcomes.iter().filter(|outcome| outcome.built.is_err()).count();
    if n_failed > 0 && outcomes.len() > 1 {
        shell.error(format_args!("{n_failed} of {} lambdas failed", outcomes.len()));
    }
    Ok(if n_failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn compile(
    source: &Source,
    target: &Path,
    args: &CompileArgs,
    taken: &mut BTreeMap<PathBuf, PathBuf>,
    shell: &mut Shell,
) -> Result<Built> {
    let lambda = Lambda::of(source, target, &args.build)?;
    let file = match args.exe {
        false => lambda.plugin(target, &args.build, shell)?,
        true => {
            let linking = if args.is_static { Linking::Static } else { Linking::Dynamic };
            lambda.executable(target, linking, &args.build, shell)?
        }
    };
    let artifact = Artifact::read(&file)?;
    let info = match loader::info_of_build(&artifact) {
        Ok(info) => info,
        // A plugin for another machine can't be loaded here.
        Err(err) if args.build.target.is_some() => match (&artifact.elf.info, lambda.manifest_info()) {
            (Some(text), _) => Info::parse(text)?,
            (None, Some(info)) => {
                shell.warning(format_args!("it is named by its manifest, not by its Info: {err:#}"));
                info
            }
            (None, None) => return Err(err),
        },
        Err(err) => return Err(err),
    };
    let name = match &args.out {
        Some(name) => name.clone(),
        None => artifact.name(&info)?,
    };
    let suffix = match (artifact.kind, Path::new(&name).extension()) {
        (Kind::Plugin, extension) if extension.is_none_or(|extension| extension != "so") => ".so",
        _ => "",
    };
    let path = args.dirout.join(&source.folder).join(format!("{name}{suffix}"));
    if let Some(other) = taken.insert(path.clone(), source.path.clone()) {
        bail!("its name is that of {}: both would be {}", other.display(), path.display());
    }
    target::replace_file(&file, &path)?;
    Ok(Built { path, info, size: artifact.size })
}

fn as_table(outcomes: &[Outcome]) -> String {
    let mut rows = vec![["LAMBDA", "SIZE", "BUILT"].map(str::to_owned).to_vec()];
    for Outcome { source, built } in outcomes {
        let source = source.display().to_string();
        rows.push(match built {
            Ok(built) => vec![source, size(built.size), built.path.display().to_string()],
            Err(err) => {
                let text = format!("{err:#}");
                vec![source, "failed".to_owned(), text.lines().next().unwrap_or_default().to_owned()]
            }
        });
    }
    columns(&rows)
}

fn as_json(outcomes: &[Outcome]) -> String {
    let built = outcomes.iter().filter_map(|outcome| {
        let built = outcome.built.as_ref().ok()?;
        Some(json!({
            "source": outcome.source.to_string_lossy(),
            "path": built.path.to_string_lossy(),
            "size": built.size,
            "info": built.info.0,
        }))
    });
    let failed = outcomes.iter().filter_map(|outcome| {
        let err = outcome.built.as_ref().err()?;
        Some(json!({"source": outcome.source.to_string_lossy(), "error": format!("{err:#}")}))
    });
    let value = json!({"built": built.collect::<Vec<_>>(), "failed": failed.collect::<Vec<_>>()});
    format!("{value}\n")
}
