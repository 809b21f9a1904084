//! The templates of `new`, embedded in the program. This file makes text; [`crate::commands::new`] writes it.

use clap::ValueEnum;

use crate::{effe_abi::EffeAbi, language::Language};

/// The line with the package's name in every template, and the start of the line with its dependency on effe-abi.
const NAME: &str = "name = \"plugin-template\"";
const EFFE_ABI: &str = "effe-abi = ";
/// The member with the name in the Info of every template that is not Rust.
const NAME_IN_INFO: &str = r#"\"name\":\"hello\""#;

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
    /// a WebSocket that echoes
    Websocket,
}

/// The names of the crates that the templates depend on.
pub(crate) fn dependencies() -> impl Iterator<Item = &'static str> {
    Template::value_variants().iter().flat_map(|template| {
        let lines = template.files().manifest.split("[dependencies]\n").nth(1).unwrap_or_default().lines();
        lines.filter_map(|line| Some(line.split_once(" = ")?.0))
    })
}

struct Files {
    manifest: &'static str,
    ignore: &'static str,
    source: &'static str,
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

    /// The same in another language than Rust, with this name in its Info; `None` if there is no such template.
    pub(crate) fn foreign_file(self, language: Language, name: &str) -> Option<String> {
        let text = match (self, language) {
            (Template::Hello, Language::C) => include_str!("../templates/hello/hello.c"),
            (Template::Hello, Language::Cpp) => include_str!("../templates/hello/hello.cc"),
            (Template::Hello, Language::Zig) => include_str!("../templates/hello/hello.zig"),
            _ => return None,
        };
        Some(text.replace(NAME_IN_INFO, &format!(r#"\"name\":\"{name}\""#)))
    }

    /// The features of effe-abi that it needs.
    fn features(self) -> &'static [&'static str] {
        match self {
            Template::Axum => &["tower"],
            Template::Websocket => &["async", "websocket"],
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
            Template::Websocket => files!("websocket"),
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
}
