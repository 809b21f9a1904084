//! `package`: packs a lambda for a platform that takes archives. There is one so far, AWS Lambda: the loader, or a
//! program that has it linked in, is the function's `bootstrap`.

use std::{
    fs::{self, File},
    io::{BufWriter, Cursor, Read, Seek, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use zip::{CompressionMethod, DateTime, ZipWriter, write::SimpleFileOptions};

use super::size;
use crate::{artifact::Kind, cli::PackageArgs, elf::Elf, image, loader, shell::Shell};

/// The system on which functions run, and its glibc.
const RUNTIME: &str = "provided.al2023";
const GLIBC: (u32, u32) = (2, 34);
/// What stands in every loader that knows AWS, and in no other.
const MARK: &[u8] = b"AWS_LAMBDA_RUNTIME_API";
/// What Lambda executes.
const BOOTSTRAP: &str = "bootstrap";

/// Packs one lambda, and prints the call that makes a function of it.
///
/// # Errors
/// The loader or the program doesn't know AWS, or a part can't run there.
pub(crate) fn run(args: &PackageArgs, shell: &mut Shell) -> Result<ExitCode> {
    let artifact = super::artifact(&args.path, &args.build, shell)?;
    let program = match artifact.kind {
        Kind::Executable => artifact.path.clone(),
        Kind::Plugin => loader::find()?,
    };
    let bytes = fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
    let elf = Elf::parse(&bytes).with_context(|| program.display().to_string())?;
    if !bytes.windows(MARK.len()).any(|window| window == MARK) {
        bail!(
            "{} is built without AWS; install a loader that knows it: cargo install effe-loader --features aws",
            program.display()
        );
    }
    let architecture = architecture(&elf, &program)?;
    runs_there(&elf, &program)?;
    if artifact.kind == Kind::Plugin {
        if artifact.elf.machine != elf.machine {
            bail!(
                "{} is for {}, and the loader {} for {}; build both for one machine",
                artifact.path.display(),
                artifact.elf.machine,
                program.display(),
                elf.machine
            );
        }
        runs_there(&artifact.elf, &artifact.path)?;
    }
    let info = loader::info(&artifact)?;
    let name = info.checked("name")?.unwrap_or("lambda").to_owned();
    let mut parts = vec![(BOOTSTRAP.to_owned(), image::stripped_program(&program)?)];
    let mut handler = BOOTSTRAP.to_owned();
    if artifact.kind == Kind::Plugin {
        let file = artifact.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        parts.push((file.clone(), image::stripped_plugin(&artifact.path)?));
        handler = file;
    }
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.zip")));
    let context = || format!("cannot write {}", out.display());
    let mut archive = Cursor::new(Vec::new());
    write(&parts, &mut archive).with_context(context)?;
    let archive = archive.into_inner();
    let mut file = BufWriter::new(File::create(&out).with_context(context)?);
    file.write_all(&archive).and_then(|()| file.flush()).with_context(context)?;
    let n_bytes = archive.len() as u64;
    shell.status("Packed", format_args!("{name} into {}, {}", out.display(), size(n_bytes)));
    shell.note(format_args!("ROLE is the ARN of the role that the function has"));
    let call = format!(
        "aws lambda create-function --function-name {name} --runtime {RUNTIME} --architectures {architecture} \
         --handler {handler} --zip-file fileb://{} --role ROLE\n",
        out.display()
    );
    shell.result(call.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// What Lambda calls the machine of a file.
fn architecture(elf: &Elf, path: &Path) -> Result<&'static str> {
    match elf.machine.as_str() {
        "x86_64" => Ok("x86_64"),
        "aarch64" => Ok("arm64"),
        machine => bail!("{} is for {machine}, which Lambda doesn't have", path.display()),
    }
}

/// Fails if a file needs a newer glibc than functions have.
fn runs_there(elf: &Elf, path: &Path) -> Result<()> {
    if let Some((major, minor)) = elf.glibc.filter(|needed| *needed > GLIBC) {
        bail!(
            "{} needs glibc {major}.{minor}, and {RUNTIME} has {}.{}; build it on a system with that one or an older \
             one, such as Amazon Linux 2023 or Debian 11",
            path.display(),
            GLIBC.0,
            GLIBC.1
        );
    }
    Ok(())
}

/// Writes an archive whose bytes depend on the parts alone.
fn write(parts: &[(String, Vec<u8>)], out: impl Write + Read + Seek) -> Result<()> {
    let mut archive = ZipWriter::new(out);
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(9))
        .last_modified_time(DateTime::default())
        .unix_permissions(0o755);
    for (name, bytes) in parts {
        archive.start_file(name.as_str(), options)?;
        archive.write_all(bytes)?;
    }
    archive.finish()?;
    Ok(())
}
