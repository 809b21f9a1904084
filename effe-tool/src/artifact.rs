//! A compiled lambda, which is a plugin or an executable: its file, its Info and the names made from it.
//!
//! This file reads files alone. [`crate::loader`] asks the loader for Info.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::{elf::Elf, package::hex};

/// The longest name or version, in bytes.
const MAX_NAME_LEN: usize = 64;
/// How many hexadecimal digits of the content's hash stand in a name.
const HASH_DIGITS: usize = 16;
/// How every build record begins.
const RECORD_PREFIX: &[u8] = b"effe-abi=";

/// A file that serves a lambda.
#[derive(Clone, Debug)]
pub(crate) struct Artifact {
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
    pub(crate) elf: Elf,
    /// In bytes.
    pub(crate) size: u64,
    /// The keys and values of its build record; empty if it has none.
    pub(crate) record: Vec<(String, String)>,
    hash: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A library that a loader opens.
    Plugin,
    /// A program that has the loader linked in.
    Executable,
}

impl Artifact {
    /// Reads a file.
    ///
    /// # Errors
    /// The file can't be read, or is neither a library nor an executable with a lambda.
    pub(crate) fn read(path: &Path) -> Result<Artifact> {
        if path.is_dir() {
            bail!("{0} is a directory; name what effe-tool compile {0} builds", path.display());
        }
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let elf = Elf::parse(&bytes).with_context(|| format!("cannot use {}", path.display()))?;
        let record = match &elf.build {
            Some(text) => parts(text),
            None => record(&bytes),
        };
        let kind = if elf.executable { Kind::Executable } else { Kind::Plugin };
        if kind == Kind::Executable && record.is_empty() {
            bail!("{} is a program without a lambda; make one with effe-tool compile --exe", path.display());
        }
        let hash = hex(&Sha256::digest(&bytes))[..HASH_DIGITS].to_owned();
        Ok(Artifact { path: path.to_owned(), kind, elf, size: bytes.len() as u64, record, hash })
    }

    /// Any artifact, for tests that need one.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Artifact {
        let path = std::env::current_exe().expect("a test has a program");
        let elf = Elf::parse(&fs::read(&path).expect("it can be read")).expect("it is an ELF file");
        let hash = "0123456789abcdef".to_owned();
        Artifact { path: "/srv/x.so".into(), kind: Kind::Plugin, elf, size: 0, record: Vec::new(), hash }
    }

    /// Whether a file begins with the mark of ELF files.
    pub(crate) fn is_elf(path: &Path) -> bool {
        let mut begin = [0; 4];
        fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut begin)).is_ok()
            && begin == object::elf::ELFMAG
    }

    /// The name of the file: `NAME_vVERSION` from Info. The content's hash replaces what Info doesn't have.
    ///
    /// # Errors
    /// The name or version in Info can't be part of a file's name.
    pub(crate) fn name(&self, info: &Info) -> Result<String> {
        Ok(match (info.checked("name")?, info.checked("version")?) {
            (None, None) => self.hash.clone(),
            (name, version) => {
                let hash = self.hash.as_str();
                format!("{}_v{}", name.unwrap_or(hash), version.unwrap_or(hash))
            }
        })
    }

    /// The name and tag of an image, such as `hello:0.1.0`. Registries have fewer letters than Info: `café` becomes
    /// `xn--caf-dma`, as in a host's name, and `1.0.0+build.5` becomes `1.0.0_build.5`.
    ///
    /// # Errors
    /// As [`Artifact::name`].
    pub(crate) fn tag(&self, info: &Info) -> Result<String> {
        let name = info.checked("name")?.unwrap_or(&self.hash).to_lowercase();
        // A registry allows one separator between letters and digits, and none at the ends.
        let parts = name.split(|ch: char| !ch.is_alphanumeric()).filter(|part| !part.is_empty());
        let name = parts.collect::<Vec<_>>().join("-");
        let name = match name.is_ascii() {
            true => name,
            false => idna::domain_to_ascii(&name).unwrap_or_default(),
        };
        let name = if name.is_empty() { self.hash.clone() } else { name };
        let version = info.checked("version")?.unwrap_or(&self.hash).replace('+', "_");
        Ok(format!("{name}:{}", version.trim_start_matches(['-', '.'])))
    }
}

/// The Info of a lambda: the JSON object that describes it.
#[derive(Clone, Debug)]
pub(crate) struct Info(pub(crate) Map<String, Value>);

impl Info {
    /// Parses the output of `--info`.
    ///
    /// # Errors
    /// The text is not a JSON object.
    pub(crate) fn parse(text: &str) -> Result<Info> {
        match serde_json::from_str(text) {
            Ok(Value::Object(info)) => Ok(Info(info)),
            _ => bail!("its Info is not a JSON object: {text}"),
        }
    }

    /// Name and version from a package's manifest, for an artifact of another machine, which can't run here.
    pub(crate) fn of_package(name: &str, version: &str) -> Info {
        let pairs = [("name", name), ("version", version)];
        Info(pairs.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect())
    }

    /// The value of a key, if it is a string and not empty.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_str().filter(|text| !text.is_empty())
    }

    /// The same, checked to be fit for the name of a file or an image.
    ///
    /// # Errors
    /// The value isn't a plain name: it could be a path, for example.
    pub(crate) fn checked(&self, key: &str) -> Result<Option<&str>> {
        let Some(text) = self.text(key) else { return Ok(None) };
        if !is_name(text) {
            bail!(
                "its Info has the {key} {text:?}, which can't name a file: give export! one of letters, digits, \
                 `.`, `_`, `-` and `+`, at most {MAX_NAME_LEN}, the first one no dot; or name the file yourself with \
                 --out"
            );
        }
        if key == "version" && !text.is_ascii() {
            bail!("its Info has the version {text:?}; a version is ASCII, such as 1.0.0-rc.1+build.5");
        }
        Ok(Some(text))
    }
}

/// Whether a text is fit for a file's name: no path, no hidden file, no spaces. cargo takes any letters in a package's
/// name, and `+` in its version.
pub(crate) fn is_name(text: &str) -> bool {
    let allowed = |ch: char| ch.is_alphanumeric() || "._-+".contains(ch);
    !text.is_empty() && text.len() <= MAX_NAME_LEN && !text.starts_with('.') && text.chars().all(allowed)
}

/// Finds the build record among a file's constants: `effe-abi=1.0.0; rustc=1.95.0; target=…; panic=unwind`. That is for
/// plugins that were built before there were notes.
fn record(bytes: &[u8]) -> Vec<(String, String)> {
    let printable = |byte: &u8| (0x20..0x7f).contains(byte);
    let mut rest = bytes;
    while let Some(at) = rest.windows(RECORD_PREFIX.len()).position(|window| window == RECORD_PREFIX) {
        rest = &rest[at..];
        let end = rest.iter().position(|byte| !printable(byte)).unwrap_or(rest.len());
        let mut parts = parts(&String::from_utf8_lossy(&rest[..end]));
        // `panic` is the last part. No end mark separates it from the next constant in the file.
        if let Some(at) = parts.iter().position(|(key, _)| key == "panic") {
            parts.truncate(at + 1);
            let panic = &mut parts[at].1;
            for known in ["unwind", "abort"] {
                if panic.starts_with(known) {
                    known.clone_into(panic);
                }
            }
            return parts;
        }
        rest = &rest[RECORD_PREFIX.len()..];
    }
    Vec::new()
}

/// The keys and values of a build record.
fn parts(text: &str) -> Vec<(String, String)> {
    let parts = text.split("; ").map_while(|part| part.split_once('='));
    parts.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_be_paths_are_refused() {
        for good in ["hello", "a.b-c_D9", "1.0.0-rc.1", "1.0.0+build.5", "café", "日本", "-"] {
            assert!(is_name(good), "{good}");
        }
        let long = "a".repeat(MAX_NAME_LEN + 1);
        for bad in ["", ".", "..", "../../x", "a/b", "a b", ".hidden", "a\u{202e}b", "a\n", "a:b", &long] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn any_name_and_version_make_a_tag_that_registries_take() {
        let artifact = Artifact::for_tests();
        let tag = |name: &str, version: &str| artifact.tag(&Info::of_package(name, version));
        assert_eq!(tag("Café_au.lait", "1.0.0+build.5").unwrap(), "xn--caf-au-lait-dbb:1.0.0_build.5");
        bolero::check!().with_type::<(String, String)>().for_each(|(name, version)| {
            if is_name(name) && is_name(version) && version.is_ascii() {
                let tag = tag(name, version).unwrap();
                assert!(tag.parse::<oci_spec::distribution::Reference>().is_ok() && tag.is_ascii(), "{tag}");
            }
        });
    }

    #[test]
    fn a_build_record_is_found_between_other_constants() {
        let text = b"xxeffe-abi=\0effe-abi=1.0.0; rustc=1.95.0; target=x86_64-unknown-linux-gnu; panic=unwindinfo is";
        let parts = record(text);
        let parts: Vec<_> = parts.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let expected = [
            ("effe-abi", "1.0.0"),
            ("rustc", "1.95.0"),
            ("target", "x86_64-unknown-linux-gnu"),
            ("panic", "unwind"),
        ];
        assert_eq!(parts, expected);
        assert!(record(b"effe-abi=").is_empty());
    }
}
