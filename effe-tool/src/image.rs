//! The content of a container image: the loader, the lambda, the libraries that they need, CA certificates, lists of
//! crates, and nothing else. [`crate::oci`] writes it as an archive; [`crate::engine`] gives it to an engine.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use oci_spec::distribution::Reference;

use crate::{
    artifact::{Artifact, Info, Kind},
    elf::{self, Elf, Libraries},
    loader::{self, PORT},
    sbom,
};

/// The user that the image runs as, without any rights; distroless images have the same.
pub(crate) const USER: u32 = 65532;
/// The directory of an image that belongs to its user. A volume that an engine makes for it belongs to that user, too.
pub(crate) const DATA: &str = "data";
/// The signal at which the loader finishes its requests and stops.
pub(crate) const STOP_SIGNAL: &str = "SIGTERM";
/// The path at which programs look for CA certificates.
const CA_PATH: &str = "etc/ssl/certs/ca-certificates.crt";
const LOADER_PATH: &str = "bin/effe-loader";
/// Where an image says which crates its programs are made of.
const SBOM_DIRECTORY: &str = "usr/share/sbom";
/// The flag of `strip` for the loader: a backtrace in the log leaves the loader's functions out, so no names are
/// needed. It is also for a program that has the loader linked in, whose symbol table would add 1.4 MB.
const ALL_SYMBOLS: &str = "--strip-unneeded";
/// The flag of `strip` for a plugin: its symbol table stays, from which a backtrace takes the names of functions.
const DEBUG_INFO: &str = "--strip-debug";

/// A file of an image.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// A name for the table that the command prints.
    pub(crate) what: String,
    /// Its path in the image, without the leading slash.
    pub(crate) path: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
}

/// An image in memory.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// `hello:0.1.0`
    pub(crate) tag: String,
    /// The machine, as `uname -m` names it.
    pub(crate) machine: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) entrypoint: Vec<String>,
    /// Layers, each with its parts sorted by path. The last one holds the lambda and the libraries that it alone needs.
    /// The one below it is the same for all lambdas, so that registries and machines store it once.
    pub(crate) layers: Vec<Vec<Part>>,
}

/// What the image is built upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// Nothing: it holds everything that it needs.
    Scratch,
    /// A base image that has a C library and certificates.
    Other,
}

impl Image {
    /// Collects the parts.
    ///
    /// # Errors
    /// A library or the loader is missing on this machine, the loader refuses the lambda, or its name and
    /// version are not fit for an image.
    pub(crate) fn of(artifact: &Artifact, tag: Option<&str>, base: Base, ca: Option<&Path>) -> Result<Image> {
        let info = loader::info(artifact)?;
        let tag = match tag {
            Some(tag) => checked_tag(tag)?,
            None => artifact.tag(&info)?,
        };
        let mut shared = Vec::new();
        let mut loader = None;
        let (own, entrypoint) = match artifact.kind {
            Kind::Plugin => {
                let found = loader::find()?.canonicalize().context("cannot find the loader")?;
                shared.extend(loader_parts(&found)?);
                loader = Some(found);
                let path = format!("lambda/{}.so", artifact.name(&info)?);
                let entrypoint =
                    [&format!("/{LOADER_PATH}"), "--plugin", &format!("/{path}")].map(str::to_owned);
                (part("plugin", &path, stripped(&artifact.path, DEBUG_INFO)?, 0o644), entrypoint.to_vec())
            }
            Kind::Executable => {
                let path = format!("bin/{}", artifact.name(&info)?);
                let own = part("lambda with loader", &path, stripped(&artifact.path, ALL_SYMBOLS)?, 0o755);
                (own, vec![format!("/{path}")])
            }
        };
        let mut own = with_crates(own)?;
        if base == Base::Scratch {
            let loader = loader.as_deref();
            let files: Vec<_> = loader.into_iter().chain([artifact.path.as_path()]).collect();
            // A library that only the lambda needs is no part of the layer that all lambdas share.
            let of_all = loader.map(|loader| elf::libraries(&[loader])).transpose()?;
            let is_of_all =
                |name: &String| of_all.as_ref().is_none_or(|of_all| of_all.files.contains_key(name));
            let libraries = elf::libraries(&files)?;
            let alone: Vec<_> = libraries.files.keys().filter(|name| !is_of_all(name)).cloned().collect();
            for part in library_parts(libraries)? {
                let layer = if alone.contains(&part.what) { &mut own } else { &mut shared };
                layer.push(part);
            }
        }
        if base == Base::Scratch || ca.is_some() {
            shared.push(part("CA certificates", CA_PATH, certificates(ca)?, 0o644));
        }
        shared.sort_by(|one, other| one.path.cmp(&other.path));
        own.sort_by(|one, other| one.path.cmp(&other.path));
        let layers = [shared, own].into_iter().filter(|layer| !layer.is_empty()).collect();
        let machine = artifact.elf.machine.clone();
        Ok(Image { tag, machine, labels: labels(&info), entrypoint, layers })
    }

    /// Collects the parts of an image that serves `/lambda.so`, which another image is to add.
    ///
    /// # Errors
    /// A library or the loader is missing on this machine, or the tag is not fit for an image.
    pub(crate) fn of_loader(tag: Option<&str>, base: Base, ca: Option<&Path>) -> Result<Image> {
        let loader = loader::find()?.canonicalize().context("cannot find the loader")?;
        let version = loader::version(&loader)?;
        let tag = match tag {
            Some(tag) => checked_tag(tag)?,
            None => format!("effe-loader:{version}"),
        };
        let machine = Elf::parse(&read(&loader)?)?.machine;
        let mut parts = loader_parts(&loader)?;
        if base == Base::Scratch {
            let mut libraries = elf::libraries(&[&loader])?;
            // The rest of the C library, which the loader doesn't need, and a lambda may.
            let libm = libraries.files.get("libc.so.6").map(|libc| libc.with_file_name("libm.so.6"));
            if let Some(libm) = libm.filter(|libm| libm.is_file()) {
                libraries.files.insert("libm.so.6".to_owned(), libm);
            }
            parts.extend(library_parts(libraries)?);
        }
        if base == Base::Scratch || ca.is_some() {
            parts.push(part("CA certificates", CA_PATH, certificates(ca)?, 0o644));
        }
        parts.sort_by(|one, other| one.path.cmp(&other.path));
        let info = Info::of_package("effe-loader", &version);
        let entrypoint = [&format!("/{LOADER_PATH}"), "--plugin", "/lambda.so"].map(str::to_owned).to_vec();
        Ok(Image { tag, machine, labels: labels(&info), entrypoint, layers: vec![parts] })
    }

    /// All parts, in the order of the layers.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.layers.iter().flatten()
    }

    /// The sum of the sizes of all files.
    pub(crate) fn size(&self) -> u64 {
        self.parts().map(|part| part.bytes.len() as u64).sum()
    }

    /// The same image as a Dockerfile, whose build context has the parts below `rootfs`.
    pub(crate) fn dockerfile(&self, base: Option<&str>) -> String {
        let mut text = format!("FROM {}\n", base.unwrap_or("scratch"));
        for layer in &self.layers {
            for part in layer {
                text.push_str(&format!(
                    "COPY {} {}\n",
                    quoted(&format!("rootfs/{}", part.path)),
                    quoted(&format!("/{}", part.path))
                ));
            }
        }
        text.push_str(&format!("COPY --chown={USER}:{USER} rootfs/{DATA} /{DATA}\n"));
        for (key, value) in &self.labels {
            text.push_str(&format!("LABEL {key}={}\n", label(value)));
        }
        let entrypoint = serde_json::json!(self.entrypoint);
        text.push_str(&format!(
            "USER {USER}:{USER}\nSTOPSIGNAL {STOP_SIGNAL}\nEXPOSE {PORT}/tcp\nENTRYPOINT {entrypoint}\n"
        ));
        text
    }

    /// Writes a build context: the Dockerfile, and the parts below `rootfs`.
    ///
    /// # Errors
    /// A file can't be written.
    pub(crate) fn write_context(&self, directory: &Path, base: Option<&str>) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        for part in self.parts() {
            let path = directory.join("rootfs").join(&part.path);
            let parent = path.parent().unwrap_or(directory);
            fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
            fs::write(&path, &part.bytes)
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(part.mode)))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        let data = directory.join("rootfs").join(DATA);
        fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
        let path = directory.join("Dockerfile");
        fs::write(&path, self.dockerfile(base)).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The loader, and the list of its crates.
fn loader_parts(loader: &Path) -> Result<Vec<Part>> {
    with_crates(part("loader", LOADER_PATH, stripped(loader, ALL_SYMBOLS)?, 0o755))
}

/// Libraries and the dynamic linker, at the paths at which it looks for them.
fn library_parts(libraries: Libraries) -> Result<Vec<Part>> {
    let Libraries { files, linker, directory } = libraries;
    let mut parts = Vec::new();
    if let Some((path, file)) = linker {
        let directory = directory.as_deref().or(path.parent()).unwrap_or(Path::new("/lib"));
        for (name, file) in files {
            parts.push(part(&name, &inside(&directory.join(&name)), read(&file)?, 0o755));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        parts.push(part(&name, &inside(&path), read(&file)?, 0o755));
    }
    Ok(parts)
}

/// A part, and the list of the crates that it is made of, if it has one. Scanners look for it there.
fn with_crates(part: Part) -> Result<Vec<Part>> {
    let bill = sbom::of(&part.bytes).with_context(|| format!("cannot list the crates of {}", part.what))?;
    let name = part.path.rsplit('/').next().unwrap_or_default();
    let path = format!("{SBOM_DIRECTORY}/{name}.cdx.json");
    let bill = bill.map(|bytes| self::part(&format!("crates of the {}", part.what), &path, bytes, 0o644));
    Ok([Some(part), bill].into_iter().flatten().collect())
}

fn part(what: &str, path: &str, bytes: Vec<u8>, mode: u32) -> Part {
    Part { what: what.to_owned(), path: path.to_owned(), bytes, mode }
}

/// The OCI labels for the keys that Info has.
fn labels(info: &Info) -> Vec<(String, String)> {
    let keys = [
        ("authors", "authors"),
        ("description", "description"),
        ("license", "licenses"),
        ("name", "title"),
        ("repository", "source"),
        ("version", "version"),
    ];
    let given = keys.iter().filter_map(|(key, label)| Some((label, info.text(key)?)));
    given.map(|(label, text)| (format!("org.opencontainers.image.{label}"), text.to_owned())).collect()
}

/// Checks that every engine accepts a name, and completes it with a tag.
fn checked_tag(text: &str) -> Result<String> {
    let wrong =
        |why: &str| crate::usage::Usage(format!("--tag {text}: {why}; write it as name:tag, in lower case"));
    let reference = text.parse::<Reference>().map_err(|err| wrong(&err.to_string()))?;
    // Its syntax takes any letters in a tag; registries don't.
    let Some(tag) = reference.tag().filter(|_| text.is_ascii() && reference.digest().is_none()) else {
        return Err(wrong("a new image has a tag of ASCII, and no digest").into());
    };
    Ok(match text.ends_with(&format!(":{tag}")) {
        true => text.to_owned(),
        false => format!("{text}:{tag}"),
    })
}

/// A file without the sections that `flag` names; unchanged where this machine has no `strip`.
/// A program without its symbols, as it is packed.
pub(crate) fn stripped_program(path: &Path) -> Result<Vec<u8>> {
    stripped(path, ALL_SYMBOLS)
}

/// A plugin without what only debuggers need.
pub(crate) fn stripped_plugin(path: &Path) -> Result<Vec<u8>> {
    stripped(path, DEBUG_INFO)
}

fn stripped(path: &Path, flag: &str) -> Result<Vec<u8>> {
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let copy = directory.path().join("stripped");
    let mut command = Command::new("strip");
    command.arg(flag).arg("-o").arg(&copy).arg(path).stdin(Stdio::null());
    match command.stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(status) if status.success() => read(&copy),
        _ => read(path),
    }
}

fn certificates(given: Option<&Path>) -> Result<Vec<u8>> {
    let path = given.map(Path::to_owned).or_else(|| openssl_probe::probe().cert_file);
    let Some(path) = path else {
        bail!("this machine has no CA certificates; install ca-certificates, or give --ca FILE");
    };
    let bytes = read(&path)?;
    let begin = b"-----BEGIN CERTIFICATE-----";
    if !bytes.windows(begin.len()).any(|window| window == begin) {
        bail!("{} holds no certificate; give a file of PEM certificates", path.display());
    }
    Ok(bytes)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A path of this machine as a path of the image.
fn inside(path: &Path) -> String {
    path.to_string_lossy().trim_start_matches('/').to_owned()
}

/// A path as a word of a Dockerfile's COPY, quoted if it needs quotes.
fn quoted(path: &str) -> String {
    if path.contains([' ', '\\', '"']) { serde_json::json!(path).to_string() } else { path.to_owned() }
}

/// A label's value for a Dockerfile, which expands `$` and ends values at the end of the line.
fn label(value: &str) -> String {
    let mut text = String::from("\"");
    for ch in value.chars() {
        match ch {
            '"' | '\\' | '$' => text.extend(['\\', ch]),
            ch if ch.is_control() => text.push(' '),
            ch => text.push(ch),
        }
    }
    text + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dockerfile_says_all_that_the_image_says() {
        let image = Image {
            tag: "hello:1".to_owned(),
            machine: "x86_64".to_owned(),
            labels: vec![("org.opencontainers.image.title".to_owned(), "a \"$HOME\"\nUSER root".to_owned())],
            entrypoint: vec![
                "/bin/effe-loader".to_owned(),
                "--plugin".to_owned(),
                "/lambda/hello.so".to_owned(),
            ],
            layers: vec![vec![part("loader", "bin/effe-loader", vec![0; 3], 0o755)]],
        };
        let expected = "FROM scratch\n\
                        COPY rootfs/bin/effe-loader /bin/effe-loader\n\
                        COPY --chown=65532:65532 rootfs/data /data\n\
                        LABEL org.opencontainers.image.title=\"a \\\"\\$HOME\\\" USER root\"\n\
                        USER 65532:65532\nSTOPSIGNAL SIGTERM\nEXPOSE 8080/tcp\n\
                        ENTRYPOINT [\"/bin/effe-loader\",\"--plugin\",\"/lambda/hello.so\"]\n";
        assert_eq!(image.dockerfile(None), expected);
        assert!(image.dockerfile(Some("debian:12-slim")).starts_with("FROM debian:12-slim\n"));
        assert_eq!(image.size(), 3);
    }

    #[test]
    fn tags_are_those_that_engines_take() {
        assert_eq!(checked_tag("hello").unwrap(), "hello:latest");
        assert_eq!(checked_tag("localhost:5000/a/b-c:1.0").unwrap(), "localhost:5000/a/b-c:1.0");
        for bad in [
            "", "Hello", "a b", "a:", "a:b c", "a:1:2", "a:b:1/c", "../a", "a//b", "-a", "a:-b", "a:é", "a@b",
        ] {
            assert!(checked_tag(bad).is_err(), "{bad}");
        }
    }
}
