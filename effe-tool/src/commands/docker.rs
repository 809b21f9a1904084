//! `docker`: packs lambdas, or the loader alone, into container images. [`crate::image`] decides what is in them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{columns, size};
use crate::{
    artifact::Artifact,
    cli::DockerArgs,
    engine,
    image::{Base, Image},
    loader, oci,
    shell::Shell,
    usage::Usage,
};

/// Packs one lambda, each lambda of a directory, or the loader.
///
/// # Errors
/// There is nothing to pack, no engine answers, or a part of the image is missing on this machine.
pub(crate) fn run(args: &DockerArgs, shell: &mut Shell) -> Result<ExitCode> {
    if let (Some(path), [_, ..]) = (&args.oci, &args.merge[..]) {
        return merge(&args.merge, path, shell);
    }
    let artifacts = match &args.path {
        Some(path) => artifacts(path, args, shell)?,
        None => Vec::new(),
    };
    if let (Some(tag), true) = (&args.tag, artifacts.len() > 1) {
        return Err(Usage(format!("--tag {tag} names one image, and here are {}", artifacts.len())).into());
    }
    let is_several = artifacts.len() > 1;
    if is_several {
        refuse_one_tag_for_two(&artifacts)?;
    }
    let to_stdout = args.oci.as_deref() == Some(Path::new("-"));
    if to_stdout {
        refuse_a_second_result(args, artifacts.len())?;
    }
    let engine = match args.oci.is_some() || args.dockerfile.is_some() {
        true => None,
        false => Some(engine::find(args.engine)?),
    };
    let base = if args.base.is_some() { Base::Other } else { Base::Scratch };
    let (tag, ca) = (args.tag.as_deref(), args.ca.as_deref());
    let images = artifacts.iter().map(|artifact| Image::of(artifact, tag, base, ca));
    let loader = args.loader_only.then(|| Image::of_loader(tag, base, ca));
    let mut results = Vec::new();
    for image in images.chain(loader) {
        let image = image?;
        let place = match (&args.oci, &args.dockerfile, engine) {
            (Some(_), ..) if to_stdout => {
                let mut archive = Vec::new();
                oci::write(&image, &mut archive)?;
                shell.result(&archive)?;
                shell.status("Packed", format_args!("{} to standard output", image.tag));
                continue;
            }
            (Some(path), ..) => {
                let file = || path.join(format!("{}.tar", plain_name(&image)));
                let path = if is_several || path.is_dir() { file() } else { path.clone() };
                write(&image, &path)?;
                path.display().to_string()
            }
            (None, Some(path), _) => {
                let path = if is_several { path.join(plain_name(&image)) } else { path.clone() };
                image.write_context(&path, args.base.as_deref())?;
                shell.note(format_args!(
                    "build it with `docker build --tag {} {}`",
                    image.tag,
                    path.display()
                ));
                path.display().to_string()
            }
            (None, None, Some(engine)) => {
                let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
                if args.base.is_some() {
                    image.write_context(directory.path(), args.base.as_deref())?;
                    engine::build(engine, directory.path(), &image.tag, shell)?;
                } else {
                    let archive = directory.path().join("image.tar");
                    write(&image, &archive)?;
                    engine::load(engine, &archive, &image.tag, shell)?;
                }
                engine::program(engine).to_owned()
            }
            (None, None, None) => bail!("there is no place for the image"),
        };
        shell.status("Packed", format_args!("{} into {place}", image.tag));
        if args.json {
            results.push(as_json(&image, &place));
        } else {
            shell.table(&as_table(&image))?;
        }
    }
    if args.json {
        shell.result(format!("{}\n", Value::from(results)).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Merges archives of one image for several machines.
fn merge(archives: &[PathBuf], path: &Path, shell: &mut Shell) -> Result<ExitCode> {
    let mut bytes = Vec::new();
    let (tag, machines) = oci::merged::merge(archives, &mut bytes)?;
    if path == Path::new("-") {
        shell.result(&bytes)?;
    } else {
        fs::write(path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    shell.status("Merged", format_args!("{tag} for {} into {}", machines.join(" and "), path.display()));
    Ok(ExitCode::SUCCESS)
}

/// The artifacts to pack: all below a directory, or the one at a path.
fn artifacts(path: &Path, args: &DockerArgs, shell: &mut Shell) -> Result<Vec<Artifact>> {
    if !path.is_dir() || path.join("Cargo.toml").is_file() {
        return Ok(vec![super::artifact(path, &args.build, shell)?]);
    }
    super::artifacts_below(path)
}

/// Fails if two artifacts have the same tag: the second image would overwrite the first.
fn refuse_one_tag_for_two(artifacts: &[Artifact]) -> Result<()> {
    let mut known = BTreeMap::new();
    for artifact in artifacts {
        let tag = artifact.tag(&loader::info(artifact)?)?;
        if let Some(other) = known.insert(tag.clone(), artifact) {
            bail!(
                "{} and {} would both be {tag}; nothing was packed: give each its own name or version, \
                 or pack one by itself with --tag",
                other.path.display(),
                artifact.path.display()
            );
        }
    }
    Ok(())
}

/// Fails if more than an archive would go to stdout, or if a person would see it there.
fn refuse_a_second_result(args: &DockerArgs, n_images: usize) -> Result<()> {
    let why = if n_images > 1 {
        format!("one archive goes to standard output, and here are {n_images}; name a directory")
    } else if args.json {
        "the archive goes to standard output, where --json would write, too; name a file".to_owned()
    } else if io::stdout().is_terminal() {
        "an archive is nothing for a terminal; redirect it, or name a file".to_owned()
    } else {
        return Ok(());
    };
    Err(Usage(format!("--oci -: {why}")).into())
}

/// The tag as the name of a file.
fn plain_name(image: &Image) -> String {
    image.tag.replace(['/', ':'], "_")
}

fn write(image: &Image, path: &Path) -> Result<()> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let context = || format!("cannot write {}", path.display());
    let mut file = BufWriter::new(File::create(path).with_context(context)?);
    oci::write(image, &mut file).with_context(context)?;
    file.flush().with_context(context)
}

fn as_table(image: &Image) -> String {
    let mut rows = vec![["PART", "SIZE", "PATH"].map(str::to_owned).to_vec()];
    for part in image.parts() {
        rows.push(vec![part.what.clone(), size(part.bytes.len() as u64), format!("/{}", part.path)]);
    }
    rows.push(vec!["all".to_owned(), size(image.size()), image.tag.clone()]);
    columns(&rows)
}

fn as_json(image: &Image, place: &str) -> Value {
    let parts = image
        .parts()
        .map(|part| json!({"part": part.what, "path": format!("/{}", part.path), "size": part.bytes.len()}));
    json!({"tag": image.tag, "place": place, "size": image.size(), "parts": parts.collect::<Vec<_>>()})
}
