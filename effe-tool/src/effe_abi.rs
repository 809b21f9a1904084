//! The dependency on effe-abi that goes into a manifest: a version or a checkout, and the loader that matches it.

use std::path::{Path, PathBuf};

/// The crate effe-abi of the checkout that this tool is built from. A release has none, and its bytes don't depend on
/// where it was built: `scripts/release` sets the variable.
const CHECKOUT: Option<&str> = match option_env!("EFFE_RELEASE") {
    Some(_) => None,
    None => Some(concat!(env!("CARGO_MANIFEST_DIR"), "/../effe-abi")),
};

/// The effe-abi that a lambda depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EffeAbi {
    /// A version on crates.io.
    Version(String),
    /// The absolute path of the crate in a checkout.
    Path(PathBuf),
}

impl EffeAbi {
    /// Parses `--effe-abi`: the path of a crate that exists, or a version, which starts with a digit.
    pub(crate) fn parse(text: &str) -> anyhow::Result<EffeAbi> {
        let path = Path::new(text);
        if path.join("Cargo.toml").is_file() {
            return Ok(EffeAbi::Path(path.canonicalize()?));
        }
        let looks_like_a_version =
            text.trim_start_matches(['=', '^', '~']).starts_with(|c: char| c.is_ascii_digit());
        if !looks_like_a_version || text.contains(['/', '"', '\\']) {
            anyhow::bail!(
                "--effe-abi {text}: it is no version, and there is no {}; \
                 write a version such as 1.0, or the directory of the crate effe-abi",
                path.join("Cargo.toml").display()
            );
        }
        Ok(EffeAbi::Version(text.to_owned()))
    }

    /// The checkout that this tool was built from, if it still exists; else the major version 1.
    pub(crate) fn default() -> EffeAbi {
        let checkout = CHECKOUT.map(Path::new).filter(|path| path.join("Cargo.toml").is_file());
        match checkout.map(Path::canonicalize) {
            Some(Ok(path)) => EffeAbi::Path(path),
            _ => EffeAbi::Version("1".to_owned()),
        }
    }

    /// `--effe-abi`, or the default.
    pub(crate) fn chosen(flag: Option<&str>) -> anyhow::Result<EffeAbi> {
        flag.map_or_else(|| Ok(EffeAbi::default()), EffeAbi::parse)
    }

    /// The dependency on the matching crate `effe-loader`, for a program that links its lambda.
    pub(crate) fn loader(&self) -> toml::Value {
        let beside = |path: &Path| path.parent().map(|parent| parent.join("effe-loader"));
        let theirs = match self {
            EffeAbi::Path(path) => beside(path),
            EffeAbi::Version(_) => None,
        };
        let path = theirs.into_iter().find(|path| path.join("Cargo.toml").is_file());
        let loader =
            path.map_or_else(|| EffeAbi::Version(env!("CARGO_PKG_VERSION").to_owned()), EffeAbi::Path);
        let mut table = loader.table();
        // Its default features compile out all records of `log` below a warning, and here the lambda's records, too.
        table.insert("default-features".to_owned(), false.into());
        toml::Value::Table(table)
    }

    /// The value of a dependency in a manifest.
    pub(crate) fn to_toml(&self) -> toml::Value {
        self.with_features(&[])
    }

    /// The value of a dependency with features in a manifest.
    pub(crate) fn with_features(&self, features: &[&str]) -> toml::Value {
        if let (EffeAbi::Version(version), []) = (self, features) {
            return version.as_str().into();
        }
        let mut table = self.table();
        if !features.is_empty() {
            table.insert("features".to_owned(), features.to_vec().into());
        }
        toml::Value::Table(table)
    }

    fn table(&self) -> toml::Table {
        let (key, value) = match self {
            EffeAbi::Version(version) => ("version", version.clone()),
            EffeAbi::Path(path) => ("path", path.to_string_lossy().into_owned()),
        };
        toml::Table::from_iter([(key.to_owned(), value.into())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_from_paths() {
        assert_eq!(EffeAbi::parse("1.0").unwrap(), EffeAbi::Version("1.0".to_owned()));
        assert_eq!(EffeAbi::parse("=1.0.3").unwrap(), EffeAbi::Version("=1.0.3".to_owned()));
        for bad in ["", "effe-abi", "../nowhere", "1/2", "1\""] {
            assert!(EffeAbi::parse(bad).is_err(), "{bad}");
        }
    }
}
