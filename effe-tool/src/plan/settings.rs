//! `effe.toml`: what an operator says of lambdas once, so as not to say it in flags each time.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use serde::Deserialize;

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Where the router listens: `*:8080`.
    pub(crate) listen: Option<String>,
    /// The loader's path on the machines that run it.
    pub(crate) loader: Option<String>,
    /// What stands before an image's name: `registry.example/team`.
    pub(crate) registry: Option<String>,
    /// For the lambdas that say nothing of their own.
    #[serde(default)]
    pub(crate) all: One,
    /// By the names in their Info.
    #[serde(default, rename = "lambda")]
    pub(crate) lambdas: BTreeMap<String, One>,
}

/// What can be said of a lambda.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct One {
    pub(crate) path: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) replicas: Option<u16>,
    /// Of one replica, as Kubernetes writes it: `250m`.
    pub(crate) cpu: Option<String>,
    /// The same: `64Mi`.
    pub(crate) memory: Option<String>,
    pub(crate) image: Option<String>,
    /// Parameters.
    #[serde(default)]
    pub(crate) set: BTreeMap<String, String>,
}

impl Settings {
    /// Reads the file.
    ///
    /// # Errors
    /// It can't be read, or says what nobody understands; with the line.
    pub(crate) fn read(path: &Path) -> Result<Settings> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("cannot use {}", path.display()))
    }
}

impl One {
    /// Takes from `other` what this one doesn't say.
    pub(crate) fn or(self, other: &One) -> One {
        let mut set = other.set.clone();
        set.extend(self.set);
        One {
            path: self.path.or_else(|| other.path.clone()),
            host: self.host.or_else(|| other.host.clone()),
            port: self.port.or(other.port),
            replicas: self.replicas.or(other.replicas),
            cpu: self.cpu.or_else(|| other.cpu.clone()),
            memory: self.memory.or_else(|| other.memory.clone()),
            image: self.image.or_else(|| other.image.clone()),
            set,
        }
    }
}
