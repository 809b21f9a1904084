//! The plan of `route`: the host, path and ports of each lambda, and how many loaders serve it. This file makes it from
//! Info, `effe.toml` and flags, and checks it once. The submodules write it as the configuration of each router; they
//! do no I/O, and rely on the checks here.

mod flags;
pub(crate) mod haproxy;
pub(crate) mod kubernetes;
mod settings;
pub(crate) mod systemd;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use self::{
    flags::Flags,
    settings::{LambdaSettings, Settings},
};
use crate::{
    artifact::{Artifact, Info, Kind},
    cli::RouteArgs,
    loader::{self, RUN_TIMEOUT},
};

/// The default address of the router.
const LISTEN: &str = "*:8080";
/// The default port of the first loader.
const FIRST_PORT: u16 = 7050;
/// The default number of loaders for each lambda: if one is stopped or killed, another one still serves.
const REPLICAS: u16 = 2;
/// The default path of the loader.
const LOADER: &str = "/usr/local/bin/effe-loader";
/// The settings file that is read if it exists and no other is named.
const SETTINGS: &str = "effe.toml";
/// The loaders' `--drain-delay`, in seconds: how long a loader accepts connections after SIGTERM. It is longer than a
/// router needs to notice that the loader isn't ready any more.
pub(crate) const DRAIN_DELAY: u16 = 5;
/// How long a router waits for an answer, in seconds: a little longer than a loader's `--run-timeout`, so that the
/// loader's 504 reaches the client.
pub(crate) const SERVER_TIMEOUT: u16 = RUN_TIMEOUT + 5;
/// The loaders' `--max-concurrency`: how many requests a loader runs at once.
pub(crate) const CONCURRENCY: u16 = 256;

/// A set of lambdas, and how requests reach each of them.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) listen: String,
    pub(crate) loader: String,
    pub(crate) routes: Vec<Route>,
}

/// How requests reach a lambda, and what serves it.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// Lower case letters, digits and `-`, which every engine accepts in a name.
    pub(crate) name: String,
    pub(crate) version: Option<String>,
    pub(crate) artifact: PathBuf,
    pub(crate) kind: Kind,
    /// The URL path, such as `/` or `/a/b`.
    pub(crate) path: String,
    /// The host, in lower case; `None` for any host.
    pub(crate) host: Option<String>,
    /// The port of the first loader; the others have the ports that follow.
    pub(crate) port: u16,
    pub(crate) replicas: u16,
    pub(crate) cpu: String,
    pub(crate) memory: String,
    pub(crate) image: String,
    pub(crate) set: BTreeMap<String, String>,
}

/// A file of an engine's configuration.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

impl Plan {
    /// Makes a plan for artifacts.
    ///
    /// # Errors
    /// A flag or the file has a wrong value, the loader refuses an artifact, or two lambdas share a name, path or port.
    pub(crate) fn of(artifacts: &[Artifact], args: &RouteArgs) -> Result<Plan> {
        let settings = match &args.config {
            Some(path) => Settings::read(path)?,
            None if Path::new(SETTINGS).is_file() => Settings::read(Path::new(SETTINGS))?,
            None => Settings::default(),
        };
        let infos = artifacts.iter().map(|artifact| Ok((artifact, loader::info(artifact)?)));
        let infos = infos.collect::<Result<Vec<_>>>()?;
        let mut names = Vec::new();
        for (artifact, info) in &infos {
            names.push(name(artifact, info)?);
        }
        let inputs = Inputs {
            flags: Flags::of(args, &names)?,
            settings: &settings,
            registry: args.registry.as_deref(),
        };
        let unknown = settings.lambdas.keys().find(|name| !names.contains(name));
        if let Some(unknown) = unknown {
            bail!(
                "effe.toml has settings for the lambda {unknown:?}; the lambdas here are {}",
                names.join(", ")
            );
        }
        let mut next_port = inputs.flags.all.port.or(settings.all.port).unwrap_or(FIRST_PORT);
        let mut routes = Vec::<Route>::new();
        for ((artifact, info), name) in infos.iter().zip(&names) {
            let route = inputs.route(name, artifact, info, &mut next_port)?;
            for other in &routes {
                route.check_against(other)?;
            }
            routes.push(route);
        }
        let listen = args.listen.clone().or(settings.listen).unwrap_or_else(|| LISTEN.to_owned());
        let loader = settings.loader.unwrap_or_else(|| LOADER.to_owned());
        for (what, text) in [("listen", &listen), ("loader", &loader)] {
            if text.is_empty() || text.contains(|ch: char| ch.is_whitespace() || ch.is_control()) {
                bail!("{what} {text:?}: write it without spaces");
            }
        }
        Ok(Plan { listen, loader, routes })
    }
}

/// Where the values of a route come from.
struct Inputs<'a> {
    flags: Flags,
    settings: &'a Settings,
    registry: Option<&'a str>,
}

impl Inputs<'_> {
    fn route(&self, name: &str, artifact: &Artifact, info: &Info, next_port: &mut u16) -> Result<Route> {
        let of = |all: &BTreeMap<String, LambdaSettings>| all.get(name).cloned().unwrap_or_default();
        let own = of(&self.flags.lambdas).or(&of(&self.settings.lambdas));
        let all = self.flags.all.clone().or(&self.settings.all);
        // A lambda with a host of its own has all paths of it; on a shared host its path is its name.
        let default_path = if own.host.is_some() { "/".to_owned() } else { format!("/{name}") };
        let own_port = own.port;
        let one = own.or(&LambdaSettings { port: None, path: None, ..all });
        let replicas = one.replicas.unwrap_or(REPLICAS).max(1);
        let port = own_port.unwrap_or(*next_port);
        let after = port.checked_add(replicas).context("there are no ports left; give a lower --port")?;
        if own_port.is_none() {
            *next_port = after;
        }
        let tag = artifact.tag(info)?;
        let registry = self.registry.or(self.settings.registry.as_deref());
        let image = one.image.clone().unwrap_or_else(|| match registry {
            Some(registry) => format!("{}/{tag}", registry.trim_end_matches('/')),
            None => tag,
        });
        let route = Route {
            name: name.to_owned(),
            version: info.checked("version")?.map(str::to_owned),
            artifact: artifact.path.clone(),
            kind: artifact.kind,
            path: one.path.unwrap_or(default_path),
            host: one.host.map(|host| host.to_lowercase()),
            port,
            replicas,
            cpu: one.cpu.unwrap_or_else(|| "100m".to_owned()),
            memory: one.memory.unwrap_or_else(|| "64Mi".to_owned()),
            image,
            set: one.set,
        };
        route.check()?;
        Ok(route)
    }
}

impl Route {
    /// The ports of all loaders.
    pub(crate) fn ports(&self) -> std::ops::Range<u16> {
        self.port..self.port + self.replicas
    }

    /// The parameters for `--set`, as `key=value`.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = String> {
        self.set.iter().map(|(key, value)| format!("{key}={value}"))
    }

    /// Checks that no value contains anything that could end a word or a line in a configuration file.
    fn check(&self) -> Result<()> {
        let is_path = self.path.starts_with('/')
            && (self.path == "/" || !self.path.ends_with('/'))
            && !self.path.contains("//")
            && self.path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._~-".contains(&byte));
        if !is_path {
            bail!("{}: the path {:?} can't be routed; write it as /hello or /a/b", self.name, self.path);
        }
        let label = |part: &str| !part.is_empty() && !part.starts_with('-') && !part.ends_with('-');
        let is_host = |host: &String| {
            host.len() <= 253
                && host.split('.').all(label)
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
        };
        if let Some(host) = self.host.as_ref().filter(|host| !is_host(host)) {
            bail!("{}: the host {host:?} can't be routed; write it as hello.example", self.name);
        }
        for (what, text) in [("cpu", &self.cpu), ("memory", &self.memory), ("image", &self.image)] {
            if text.is_empty()
                || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-:/@".contains(&byte))
            {
                bail!("{}: {what} {text:?} can't be used", self.name);
            }
        }
        if let Some(key) = self.set.keys().find(|key| key.is_empty() || key.contains(['=', '\n'])) {
            bail!("{}: the parameter {key:?} can't be set", self.name);
        }
        Ok(())
    }

    /// Checks that two lambdas have different names, paths and ports.
    fn check_against(&self, other: &Route) -> Result<()> {
        let (ours, theirs) = (self.artifact.display(), other.artifact.display());
        if self.name == other.name {
            bail!("{theirs} and {ours} are both called {}; route one of them", self.name);
        }
        if (&self.host, &self.path) == (&other.host, &other.path) {
            let host = self.host.as_deref().unwrap_or("any host");
            bail!(
                "{} and {} are both at {} on {host}; give one of them a --path",
                other.name,
                self.name,
                self.path
            );
        }
        if self.ports().start < other.ports().end && other.ports().start < self.ports().end {
            bail!(
                "the loaders of {} and {} share port {}; give one of them another --port",
                other.name,
                self.name,
                self.ports().start.max(other.ports().start)
            );
        }
        Ok(())
    }
}

/// The name of a lambda in a form that every engine accepts.
fn name(artifact: &Artifact, info: &Info) -> Result<String> {
    let text = match info.checked("name")? {
        Some(name) => name.to_lowercase(),
        None => artifact.path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase(),
    };
    let name: String = text.chars().map(|ch| if ch.is_ascii_alphanumeric() { ch } else { '-' }).collect();
    let name = name.trim_matches('-');
    // Kubernetes has the strictest rule: a name is a DNS label, and that of a Service begins with a letter.
    let name = if name.starts_with(|ch: char| ch.is_ascii_alphabetic()) {
        name.to_owned()
    } else {
        format!("effe-{name}")
    };
    if name.len() > 52 {
        bail!(
            "{}: the name {name} is too long for a host; give export! one of at most 52 characters",
            artifact.path.display()
        );
    }
    Ok(name)
}

#[cfg(test)]
mod tests;
