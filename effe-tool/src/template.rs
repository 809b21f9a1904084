//! The templates of `new`, embedded in the program, and the dependency on effe-abi that goes into a manifest. This file
//! makes text; [`crate::commands::new`] writes it.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

/// The line with the package's name in every template, and the start of the line with its dependency on effe-abi.
const NAME: &str = "name = \"plugin-template\"";
const EFFE_ABI: &str = "effe-abi = ";

/// What to start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Template {
    /// says hello
    Hello,
    /// a JSON object in, another one out
    Json,
    /// notes in SQLite
    Database,
    /// an axum Router
    Axum,
}

struct Files {
    manifest: &'static str,
    ignore: &'static str,
    source: &'static str,
}

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
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../effe-abi");
        match checkout.join("Cargo.toml").is_file().then(|| checkout.canonicalize()) {
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
    fn with_features(&self, features: &[&str]) -> toml::Value {
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

impl Template {
    /// The files of a crate: paths below its directory, and their texts.
    pub(crate) fn crate_files(self, name: &str, effe_abi: &EffeAbi) -> [(&'static str, String); 3] {
        let Files { manifest, ignore, source } = self.files();
        let dependency = format!("{EFFE_ABI}{}\n", effe_abi.with_features(self.features()));
        let lines = manifest.split_inclusive('\n');
        let manifest: String =
            lines.map(|line| if line.starts_with(EFFE_ABI) { &dependency } else { line }).collect();
        let manifest = manifest.replace(NAME, &format!("name = \"{name}\""));
        [("Cargo.toml", manifest), (".gitignore", ignore.to_owned()), ("src/lib.rs", source.to_owned())]
    }

    /// A single file: the necessary part of the manifest, and the source without its tests.
    pub(crate) fn single_file(self, effe_abi: Option<&EffeAbi>) -> String {
        let Files { manifest, source, .. } = self.files();
        let mut front = String::from("---cargo\n");
        let mut sections = manifest.split("\n[lib]").next().unwrap_or(manifest).lines().collect::<Vec<_>>();
        sections.retain(|line| *line != NAME && !line.starts_with("publish"));
        front.push_str(sections.join("\n").trim_end());
        front.push_str("\n\n[dependencies]\n");
        let dependencies = manifest.split("[dependencies]\n").nth(1).unwrap_or_default();
        for line in dependencies.lines() {
            if line.starts_with(EFFE_ABI) {
                let newest = EffeAbi::Version("1".to_owned());
                let dependency = effe_abi.unwrap_or(&newest).with_features(self.features());
                front.push_str(&format!("{EFFE_ABI}{dependency}\n"));
            } else {
                front.push_str(&format!("{line}\n"));
            }
        }
        front.push_str("---\n");
        let source = source.split("\n#[cfg(test)]\n").next().unwrap_or(source);
        front + source
    }

    /// The features of effe-abi that it needs.
    fn features(self) -> &'static [&'static str] {
        match self {
            Template::Axum => &["tower"],
            Template::Hello | Template::Json | Template::Database => &[],
        }
    }

    fn files(self) -> Files {
        macro_rules! files {
            ($directory:literal) => {
                Files {
                    manifest: include_str!(concat!("../templates/", $directory, "/Cargo.toml.in")),
                    ignore: include_str!(concat!("../templates/", $directory, "/gitignore")),
                    source: include_str!(concat!("../templates/", $directory, "/lib.rs")),
                }
            };
        }
        match self {
            Template::Hello => files!("hello"),
            Template::Json => files!("json"),
            Template::Database => files!("database"),
            Template::Axum => files!("axum"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_gets_its_name_and_its_effe_abi() {
        for template in Template::value_variants() {
            let files = template.crate_files("shop", &EffeAbi::Version("1.2".to_owned()));
            let manifest: toml::Table = files[0].1.parse().unwrap();
            assert_eq!(manifest["package"]["name"].as_str(), Some("shop"), "{template:?}");
            let effe_abi = &manifest["dependencies"]["effe-abi"];
            let version = effe_abi.get("version").unwrap_or(effe_abi);
            assert_eq!(version.as_str(), Some("1.2"), "{template:?}");
            assert_eq!(effe_abi.get("features").is_some(), !template.features().is_empty());
            let files = template.crate_files("shop", &EffeAbi::Path("/a \"b\"".into()));
            let manifest: toml::Table = files[0].1.parse().unwrap();
            assert_eq!(manifest["dependencies"]["effe-abi"]["path"].as_str(), Some("/a \"b\""));
        }
    }

    #[test]
    fn a_single_file_carries_its_manifest_and_no_tests() {
        for template in Template::value_variants() {
            let text = template.single_file(None);
            let parts = crate::frontmatter::split(&text).unwrap();
            let manifest: toml::Table = parts.manifest.parse().unwrap();
            assert_eq!(manifest["package"]["version"].as_str(), Some("0.1.0"));
            assert!(manifest["package"].get("name").is_none());
            let effe_abi = &manifest["dependencies"]["effe-abi"];
            assert_eq!(effe_abi.get("version").unwrap_or(effe_abi).as_str(), Some("1"));
            assert!(text.ends_with(");\n") && !text.contains("cfg(test)"), "{text}");
        }
    }

    #[test]
    fn versions_are_told_from_paths() {
        assert_eq!(EffeAbi::parse("1.0").unwrap(), EffeAbi::Version("1.0".to_owned()));
        assert_eq!(EffeAbi::parse("=1.0.3").unwrap(), EffeAbi::Version("=1.0.3".to_owned()));
        for bad in ["", "effe-abi", "../nowhere", "1/2", "1\""] {
            assert!(EffeAbi::parse(bad).is_err(), "{bad}");
        }
    }
}
