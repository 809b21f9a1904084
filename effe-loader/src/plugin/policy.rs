//! Which plugins the operator allows: by who may change the file (see `ownership.rs`), and by the digest of
//! its content.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use sha2::{Digest as _, Sha256};

use super::ownership;
use crate::error::Unloaded;

/// Bytes of a list of digests. A longer file is taken for something else.
const MAX_LIST: u64 = 1 << 20;

#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Whether owner and mode of every directory above a plugin are checked.
    pub strict_ownership: bool,
    /// Whether a plugin is watched for breaches of its contract.
    pub strict_plugin: bool,
    /// Digests of plugins that may be loaded, besides those in the file.
    pub sha256: Vec<Digest>,
    /// A file of digests. It is read again for each plugin.
    pub sha256_file: Option<PathBuf>,
}

impl Policy {
    /// Checks who may change an open file. Returns a warning for the operator, if there is one; an error names
    /// who may change it and must not, and a remedy.
    pub fn owned(&self, path: &Path, file: &File) -> Result<Option<String>, String> {
        ownership::check(path, file, self.strict_ownership)
    }

    /// Whether only plugins with certain digests may be loaded.
    pub fn pins(&self) -> bool {
        !self.sha256.is_empty() || self.sha256_file.is_some()
    }

    /// Checks that the digest of a file is allowed. The list of digests must belong to users who may decide that.
    pub fn allows(&self, file: &File) -> Result<(), Unloaded> {
        if !self.pins() {
            return Ok(());
        }
        let found = Digest::of(file)?;
        let list = |path: &PathBuf| {
            self.list(path).map_err(|reason| reason.about(&format!("--sha256-file {}", path.display())))
        };
        let listed = self.sha256_file.as_ref().map_or(Ok(Vec::new()), list)?;
        if self.sha256.contains(&found) || listed.contains(&found) {
            return Ok(());
        }
        let asked = match (self.sha256.is_empty(), &self.sha256_file) {
            (true, Some(path)) => format!("--sha256-file {} does not list", path.display()),
            (false, Some(path)) => format!("neither --sha256 nor --sha256-file {} allows", path.display()),
            (_, None) => "no --sha256 allows".to_owned(),
        };
        Err(format!("its SHA-256 is {found}, which {asked}; add it there if this is the file you mean")
            .into())
    }

    /// Reads a list as `sha256sum` writes it: a digest at the beginning of each line. Empty lines and comments
    /// are skipped.
    fn list(&self, path: &Path) -> Result<Vec<Digest>, Unloaded> {
        let mut file = File::open(path)?;
        // Users who may write the list decide what is loaded.
        self.owned(path, &file)?;
        let mut text = String::new();
        file.by_ref().take(MAX_LIST).read_to_string(&mut text)?;
        let lines = text.lines().enumerate();
        let lines = lines.map(|(n, line)| (n + 1, line.split('#').next().unwrap_or_default().trim()));
        let words = lines.filter_map(|(n, line)| Some((n, line.split_whitespace().next()?)));
        words.map(|(n, word)| word.parse().map_err(|err| format!("line {n}: {err}").into())).collect()
    }
}

/// A SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    fn of(file: &File) -> io::Result<Digest> {
        let (mut digest, mut page, mut at) = (Sha256::new(), vec![0; 64 * 1024], 0);
        loop {
            let n = file.read_at(&mut page, at)?;
            if n == 0 {
                return Ok(Digest(digest.finalize().into()));
            }
            digest.update(&page[..n]);
            at += n as u64;
        }
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Digest, String> {
        if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err("write it as the 64 hexadecimal digits that sha256sum prints".to_owned());
        }
        let mut bytes = [0; 32];
        for (n, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * n..2 * n + 2], 16).expect("they are hexadecimal digits");
        }
        Ok(Digest(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    /// The output of sha256sum for "abc".
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn digests_are_read_as_sha256sum_writes_them() {
        let digest: Digest = ABC.to_uppercase().parse().unwrap();
        assert_eq!(digest.to_string(), ABC);
        for bad in ["", "abc", &ABC[1..], &format!("{ABC}0"), &ABC.replace('b', "x"), &"é".repeat(32)] {
            assert!(bad.parse::<Digest>().unwrap_err().contains("sha256sum"), "{bad}");
        }
    }

    #[test]
    fn only_what_is_pinned_is_allowed() {
        let file = |bytes| {
            let memory = memfd_create("x", MemfdFlags::CLOEXEC).unwrap();
            rustix::io::write(&memory, bytes).unwrap();
            File::from(memory)
        };
        assert!(Policy::default().allows(&file(b"anything")).is_ok());
        let policy = Policy { sha256: vec![ABC.parse().unwrap()], ..Policy::default() };
        assert!(policy.allows(&file(b"abc")).is_ok());
        assert!(format!("{:?}", policy.allows(&file(b"abd"))).contains("no --sha256 allows"));
        let policy = Policy { sha256_file: Some("/dev/null".into()), ..Policy::default() };
        assert!(policy.allows(&file(b"abc")).is_err());
    }
}
