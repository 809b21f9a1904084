//! `effe.toml`: settings of lambdas for `route`, which an operator writes once instead of flags each time.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use serde::Deserialize;

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// The address of the router, such as `*:8080`.
    pub(crate) listen: Option<String>,
    /// The loader's path on the machines that run it.
    pub(crate) loader: Option<String>,
    /// The registry of the images, such as `registry.example/team`.
    pub(crate) registry: Option<String>,
    /// Settings for all lambdas that have none of their own.
    #[serde(default)]
    pub(crate) all: LambdaSettings,
    /// Settings for one lambda, by the name in its Info.
    #[serde(default, rename = "lambda")]
    pub(crate) lambdas: BTreeMap<String, LambdaSettings>,
}

/// Settings of a lambda, each of which may be left open.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct LambdaSettings {
    pub(crate) path: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) replicas: Option<u16>,
    /// The CPU of one replica, in the units of Kubernetes, such as `250m`.
    pub(crate) cpu: Option<String>,
    /// The memory of one replica, such as `64Mi`.
    pub(crate) memory: Option<String>,
    pub(crate) image: Option<String>,
    /// The directory for what outlives the lambda's processes; for all lambdas, the one above theirs.
    pub(crate) data: Option<String>,
    /// The size of the volume that holds it, such as `1Gi`.
    pub(crate) storage: Option<String>,
    /// The lambda's parameters.
    #[serde(default)]
    pub(crate) set: BTreeMap<String, String>,
}

impl Settings {
    /// Reads the file.
    ///
    /// # Errors
    /// It can't be read, or has an unknown key or a wrong value. The error names the line.
    pub(crate) fn read(path: &Path) -> Result<Settings> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut settings: Settings =
            toml::from_str(&text).with_context(|| format!("cannot use {}", path.display()))?;
        let directory = path.parent().unwrap_or(Path::new(""));
        for lambda in [&mut settings.all].into_iter().chain(settings.lambdas.values_mut()) {
            lambda.set.values_mut().for_each(|value| below(directory, value));
        }
        Ok(settings)
    }
}

/// Makes the file that `@FILE` names one below the directory of the settings, from wherever the tool is run.
fn below(directory: &Path, value: &mut String) {
    if let Some(file) = value.strip_prefix('@') {
        *value = format!("@{}", directory.join(file).display());
    }
}

impl LambdaSettings {
    /// These settings, completed by those of `other`.
    pub(crate) fn or(self, other: &LambdaSettings) -> LambdaSettings {
        let mut set = other.set.clone();
        set.extend(self.set);
        LambdaSettings {
            path: self.path.or_else(|| other.path.clone()),
            host: self.host.or_else(|| other.host.clone()),
            port: self.port.or(other.port),
            replicas: self.replicas.or(other.replicas),
            cpu: self.cpu.or_else(|| other.cpu.clone()),
            memory: self.memory.or_else(|| other.memory.clone()),
            image: self.image.or_else(|| other.image.clone()),
            data: self.data.or_else(|| other.data.clone()),
            storage: self.storage.or_else(|| other.storage.clone()),
            set,
        }
    }
}
