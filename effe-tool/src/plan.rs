//! The plan of `route`: the host, path and ports of each lambda, its data and parameters, and how many loaders serve
//! it. This file makes it from Info, `effe.toml` and flags, and checks it once. The files of the engines write it as
//! their configuration; they do no I/O, and rely on the checks here.

mod checks;
pub(crate) mod compose;
mod flags;
pub(crate) mod haproxy;
pub(crate) mod knative;
pub(crate) mod kubernetes;
mod parameters;
pub(crate) mod quoting;
mod settings;
pub(crate) mod systemd;

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use self::{
    checks::Listen,
    flags::Flags,
    parameters::{Parameter, Parameters},
    settings::{LambdaSettings, Settings},
};
use crate::{
    artifact::{Artifact, Info, Kind},
    cli::{RouteArgs, Router},
    loader::{self, RUN_TIMEOUT},
};

/// The default address of the router.
const LISTEN: &str = "*:8080";
/// The default port of the first loader.
const FIRST_PORT: u16 = 7050;
/// The default number of loaders for each lambda: if one is stopped or killed, another one still serves.
const REPLICAS: u16 = 2;
/// The parameter that names the directory of the lambda's data.
const DATA: &str = "data";
/// The default size of a lambda's volume.
const STORAGE: &str = "1Gi";
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
    listen: Listen,
    loader: String,
    routes: Vec<Route>,
    /// How long no request must have come for a loader to end until the next one.
    sleep: Option<String>,
    /// Whether kubectl is to read the files by a kustomization.
    kustomize: bool,
}

/// How requests reach a lambda, and what serves it.
#[derive(Clone, Debug)]
struct Route {
    /// Lower case letters, digits and `-`, which every engine accepts in a name.
    name: String,
    version: Option<String>,
    /// The absolute path.
    artifact: String,
    kind: Kind,
    /// The URL path, such as `/` or `/a/b`.
    path: String,
    /// The host, in lower case; `None` for any host.
    host: Option<String>,
    /// The port of the first loader; the others have the ports that follow.
    port: u16,
    /// At least one.
    replicas: u16,
    cpu: String,
    memory: String,
    image: String,
    /// The directory for what outlives the lambda's processes, as the lambda sees it.
    data: Option<String>,
    /// The size of the volume that holds it.
    storage: String,
    set: Parameters,
}

/// A file of an engine's configuration.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    /// Whether only its owner may read it.
    pub(crate) is_secret: bool,
}

impl File {
    fn new(path: impl Into<PathBuf>, text: String) -> File {
        File { path: path.into(), text, is_secret: false }
    }

    fn secret(path: impl Into<PathBuf>, text: String) -> File {
        File { is_secret: true, ..File::new(path, text) }
    }
}

impl Plan {
    /// Makes a plan for artifacts.
    ///
    /// # Errors
    /// A flag or the file has a value that the engine doesn't take, the loader refuses an artifact, or two lambdas
    /// share a name, path or port.
    pub(crate) fn of(artifacts: &[Artifact], args: &RouteArgs) -> Result<Plan> {
        let settings = match &args.config {
            Some(path) => Settings::read(path)?,
            None if Path::new(SETTINGS).is_file() => Settings::read(Path::new(SETTINGS))?,
            None => Settings::default(),
        };
        let mut lambdas = Vec::new();
        for artifact in artifacts {
            let info = loader::info(artifact)?;
            lambdas.push(Lambda { name: name(artifact, &info)?, artifact, info });
        }
        let inputs = Inputs {
            engine: args.router,
            flags: Flags::of(args, &lambdas.iter().map(|lambda| lambda.name.clone()).collect::<Vec<_>>())?,
            settings: &settings,
            registry: args.registry.as_deref(),
        };
        let routes = inputs.routes(&lambdas)?;
        let listen = checks::listen(args.listen.as_deref().or(settings.listen.as_deref()).unwrap_or(LISTEN))?;
        let loader = settings.loader.clone().unwrap_or_else(|| LOADER.to_owned());
        checks::loader(&loader, args.router)?;
        let sleep = args.sleep.as_deref().map(checks::time).transpose()?;
        let plan = Plan { listen, loader, routes, sleep, kustomize: args.kustomize };
        if args.router == Router::Haproxy {
            plan.check_listen()?;
        }
        Ok(plan)
    }

    /// Checks that no loader has the port of HAProxy, whose addresses may include the loaders'.
    fn check_listen(&self) -> Result<()> {
        let Listen { text, port } = &self.listen;
        match self.routes.iter().find(|route| route.ports().contains(port)) {
            None => Ok(()),
            Some(route) => {
                bail!(
                    "HAProxy on {text} and a loader of {} share the port {port}; give another --port",
                    route.name
                )
            }
        }
    }
}

/// What is to be routed.
struct Lambda<'a> {
    /// As in [`Route`].
    name: String,
    artifact: &'a Artifact,
    info: Info,
}

/// Where the values of a route come from.
struct Inputs<'a> {
    engine: Router,
    flags: Flags,
    settings: &'a Settings,
    registry: Option<&'a str>,
}

impl Inputs<'_> {
    /// The routes of all lambdas.
    fn routes(&self, lambdas: &[Lambda<'_>]) -> Result<Vec<Route>> {
        let names: Vec<_> = lambdas.iter().map(|lambda| lambda.name.as_str()).collect();
        let names = names.join(", ");
        let is_known = |name: &&String| lambdas.iter().any(|lambda| lambda.name == **name);
        if let Some(unknown) = self.settings.lambdas.keys().find(|name| !is_known(name)) {
            bail!("effe.toml has settings for the lambda {unknown:?}; the lambdas here are {names}");
        }
        let all = self.flags.all.clone().or(&self.settings.all);
        for (what, value) in [("path", &all.path), ("image", &all.image)] {
            if let (Some(value), 2..) = (value, lambdas.len()) {
                bail!(
                    "the {what} {value} is for one lambda, and here are {names}; name the lambda: {what} = {value:?} in \
                     [lambda.NAME] of effe.toml{}",
                    if what == "path" { format!(", or --path NAME={value}") } else { String::new() }
                );
            }
        }
        let mut next_port = all.port.unwrap_or(FIRST_PORT);
        let mut routes = Vec::<Route>::new();
        for lambda in lambdas {
            let route = self.route(lambda, &all, &mut next_port).with_context(|| lambda.name.clone())?;
            for other in &routes {
                route.check_against(other, self.engine)?;
            }
            routes.push(route);
        }
        Ok(routes)
    }

    /// The route of a lambda, of its own settings and those for all lambdas.
    fn route(&self, lambda: &Lambda<'_>, all: &LambdaSettings, next_port: &mut u16) -> Result<Route> {
        let Lambda { name, artifact, info } = lambda;
        let of = |all: &BTreeMap<String, LambdaSettings>| all.get(name.as_str()).cloned().unwrap_or_default();
        let own = of(&self.flags.lambdas).or(&of(&self.settings.lambdas));
        // A lambda with a host of its own has all paths of it; on a shared host its path is its name. Knative gives each
        // lambda a host.
        let has_host = own.host.is_some() || self.engine == Router::Knative;
        let default_path = if has_host { "/".to_owned() } else { format!("/{name}") };
        let own_port = own.port;
        let data = own.data.clone().or_else(|| match self.engine {
            // Each container has a volume of its own there.
            Router::Compose => all.data.clone(),
            _ => all.data.as_ref().map(|above| format!("{above}/{name}")),
        });
        let one = own.or(&LambdaSettings { port: None, ..all.clone() });
        let replicas = self.replicas(one.replicas, data.is_some())?;
        let port = own_port.unwrap_or(*next_port);
        if port == 0 {
            bail!("the port 0 can't be routed; write one from 1 to 65535");
        }
        let last = port.checked_add(replicas - 1).with_context(|| {
            format!("there are not {replicas} ports from {port} to 65535; give a lower --port, or fewer --replicas")
        })?;
        if own_port.is_none() {
            // After 65535 comes 0, which is refused when a lambda needs it.
            *next_port = last.checked_add(1).unwrap_or(0);
        }
        let tag = artifact.tag(info)?;
        let registry = self.registry.or(self.settings.registry.as_deref());
        let image = one.image.clone().unwrap_or_else(|| match registry {
            Some(registry) => format!("{}/{tag}", registry.trim_end_matches('/')),
            None => tag,
        });
        let mut set = parameters::read(&one.set, self.engine)?;
        if let Some(data) = &data {
            checks::data(data, self.engine)?;
            if set.insert(DATA.to_owned(), Parameter::Text(data.clone())).is_some() {
                bail!(
                    "the parameter `data` is set, and so is a data directory, which is that parameter; give one of them"
                );
            }
        }
        let route = Route {
            name: name.to_owned(),
            version: info.checked("version")?.map(str::to_owned),
            artifact: checks::artifact(&artifact.path)?,
            kind: artifact.kind,
            path: one.path.unwrap_or(default_path),
            host: one.host.map(|host| checks::host(&host, self.engine)).transpose()?,
            port,
            replicas,
            cpu: one.cpu.unwrap_or_else(|| "100m".to_owned()),
            memory: one.memory.unwrap_or_else(|| "64Mi".to_owned()),
            image,
            data,
            storage: one.storage.unwrap_or_else(|| STORAGE.to_owned()),
            set,
        };
        checks::path(&route.path)?;
        checks::cpu(&route.cpu)?;
        checks::bytes("memory", &route.memory)?;
        checks::bytes("storage", &route.storage)?;
        checks::image(&route.image)?;
        Ok(route)
    }

    /// How many loaders serve a lambda.
    fn replicas(&self, given: Option<u16>, has_data: bool) -> Result<u16> {
        let default = match self.engine {
            // One socket leads to one loader.
            Router::Systemd => return Ok(1),
            // As many as the requests need.
            Router::Knative => return Ok(1),
            Router::Kubernetes if has_data => 1,
            Router::Compose | Router::Kubernetes | Router::Haproxy => REPLICAS,
        };
        match given.unwrap_or(default) {
            0 => bail!("0 replicas serve nothing; write a number from 1"),
            2.. if has_data && self.engine == Router::Kubernetes => bail!(
                "its data is in a volume that one pod at a time can have: write replicas = 1, or keep the data in a \
                 database server"
            ),
            replicas => Ok(replicas),
        }
    }
}

impl Route {
    /// The ports of all loaders.
    fn ports(&self) -> RangeInclusive<u16> {
        self.port..=self.port + (self.replicas - 1)
    }

    /// Checks that two lambdas have different names, paths and ports.
    fn check_against(&self, other: &Route, engine: Router) -> Result<()> {
        let (ours, theirs) = (&self.artifact, &other.artifact);
        if self.name == other.name {
            bail!("{theirs} and {ours} are both called {}; route one of them", self.name);
        }
        let has_place = engine != Router::Knative || self.host.is_some();
        if has_place && (&self.host, &self.path) == (&other.host, &other.path) {
            let host = self.host.as_deref().unwrap_or("any host");
            bail!(
                "{} and {} are both at {} on {host}; give one of them a --path",
                other.name,
                self.name,
                self.path
            );
        }
        if [Router::Compose, Router::Knative].contains(&engine) {
            // Each container has all ports.
            return Ok(());
        }
        let (ours, theirs) = (self.ports(), other.ports());
        if ours.start() <= theirs.end() && theirs.start() <= ours.end() {
            bail!(
                "the loaders of {} and {} share port {}; give one of them another --port",
                other.name,
                self.name,
                ours.start().max(theirs.start())
            );
        }
        Ok(())
    }
}

/// The name of a lambda in a form that every engine accepts.
fn name(artifact: &Artifact, info: &Info) -> Result<String> {
    let text = match info.checked("name")? {
        Some(name) => name.to_owned(),
        None => artifact.path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
    };
    let name: String = text.chars().map(|ch| if ch.is_alphanumeric() { ch } else { '-' }).collect();
    let name = checks::ascii(name.trim_matches('-')).unwrap_or_default();
    // Kubernetes has the strictest rule: a name is a DNS label, and that of a Service begins with a letter.
    let name =
        if name.starts_with(|ch: char| ch.is_ascii_alphabetic()) { name } else { format!("effe-{name}") };
    let name = name.trim_end_matches('-').to_owned();
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
