//! `route`: writes the configuration of what runs a set of lambdas and sends requests to them. [`crate::plan`] makes it.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context, Result};

use crate::{
    artifact::Artifact,
    cli::{RouteArgs, Router},
    plan::{self, File, Plan},
    shell::Shell,
};

/// Prints the configuration, or writes its files below a directory.
///
/// # Errors
/// There is nothing to route, the plan contradicts itself, or a file can't be written.
pub(crate) fn run(args: &RouteArgs, shell: &mut Shell) -> Result<ExitCode> {
    let mut artifacts = Vec::new();
    for path in &args.paths {
        match path.is_dir() {
            true => artifacts.extend(super::artifacts_below(path)?),
            false => artifacts.push(Artifact::read(path)?),
        }
    }
    let plan = Plan::of(&artifacts, args)?;
    let files = match args.router {
        Router::Compose => plan::compose::files(&plan),
        Router::Haproxy => plan::haproxy::files(&plan),
        Router::Knative => plan::knative::files(&plan),
        Router::Kubernetes => plan::kubernetes::files(&plan),
        Router::Systemd => plan::systemd::files(&plan),
    };
    let Some(directory) = &args.dirout else {
        let is_objects = [Router::Knative, Router::Kubernetes].contains(&args.router);
        let between = if is_objects { "---\n" } else { "" };
        for (n, file) in files.iter().enumerate() {
            // A single file is printed as it is. Before each of several stands its name.
            let name = match files.len() {
                1 => String::new(),
                _ => format!("# {}\n", file.path.display()),
            };
            let between = if n == 0 { "" } else { between };
            shell.result(format!("{between}{name}{}", file.text).as_bytes())?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    for file in files {
        let path = directory.join(&file.path);
        let parent = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        write(&path, &file).with_context(|| format!("cannot write {}", path.display()))?;
        shell.status("Wrote", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes a file. A secret is never readable for others, not even while it is written.
fn write(path: &Path, file: &File) -> io::Result<()> {
    if !file.is_secret {
        return fs::write(path, &file.text);
    }
    let mut options = fs::File::options();
    let mut written = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    written.set_permissions(fs::Permissions::from_mode(0o600))?;
    written.write_all(file.text.as_bytes())
}
