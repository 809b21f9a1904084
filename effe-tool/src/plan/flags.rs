//! The flags of `route`, each of which is for all lambdas or for one.

use std::collections::BTreeMap;

use anyhow::Result;

use super::settings::LambdaSettings;
use crate::{
    cli::{RouteArgs, Router},
    usage::Usage,
};

/// The values of the flags: for all lambdas, and for each by its name.
#[derive(Default)]
pub(super) struct Flags {
    pub(super) all: LambdaSettings,
    pub(super) lambdas: BTreeMap<String, LambdaSettings>,
}

impl Flags {
    pub(super) fn of(args: &RouteArgs, names: &[String]) -> Result<Flags> {
        refuse_those_of_other_engines(args)?;
        let mut flags = Flags::default();
        let wrong = |flag: &str, text: &str, why: &str| Usage(format!("--{flag} {text}: {why}"));
        for text in &args.paths_of {
            let (one, value) = flags.target(text, names)?;
            one.path = Some(value.to_owned());
        }
        for text in &args.hosts {
            let (one, value) = flags.target(text, names)?;
            one.host = Some(value.to_owned());
        }
        for text in &args.ports {
            let (one, value) = flags.target(text, names)?;
            one.port = Some(value.parse().map_err(|_| wrong("port", text, "write N or NAME=N"))?);
        }
        for text in &args.replicas {
            let (one, value) = flags.target(text, names)?;
            one.replicas = Some(value.parse().map_err(|_| wrong("replicas", text, "write N or NAME=N"))?);
        }
        for text in &args.data {
            let (one, value) = flags.target(text, names)?;
            one.data = Some(value.trim_end_matches('/').to_owned());
        }
        for text in &args.set {
            let pair = text.split_once('=');
            let (key, value) = pair.ok_or_else(|| wrong("set", text, "write [NAME.]KEY=VALUE"))?;
            let (one, key) = match key.split_once('.').filter(|(name, _)| names.iter().any(|one| one == name))
            {
                Some((name, key)) => (flags.lambdas.entry(name.to_owned()).or_default(), key),
                None => (&mut flags.all, key),
            };
            one.set.insert(key.to_owned(), value.to_owned());
        }
        Ok(flags)
    }

    /// The lambda, or all, that `[NAME=]VALUE` is for, and the value.
    fn target<'a>(&mut self, text: &'a str, names: &[String]) -> Result<(&mut LambdaSettings, &'a str)> {
        match text.split_once('=') {
            None => Ok((&mut self.all, text)),
            Some((name, value)) if names.iter().any(|one| one == name) => {
                Ok((self.lambdas.entry(name.to_owned()).or_default(), value))
            }
            Some((name, _)) => {
                Err(Usage(format!("{text}: there is no lambda {name:?}; here are {}", names.join(", ")))
                    .into())
            }
        }
    }
}

/// Fails if a flag has no meaning for the engine. `effe.toml` may have settings for all engines.
fn refuse_those_of_other_engines(args: &RouteArgs) -> Result<()> {
    use Router::{Compose, Haproxy, Knative, Kubernetes, Systemd};
    let router = args.router;
    let (engine, why) = match router {
        Compose => ("compose", "each container has all ports, and starts again by itself"),
        Haproxy => ("haproxy", "the loaders run on this machine, and need no image"),
        Knative => ("knative", "it gives each lambda an address, and as many pods as its requests need"),
        Kubernetes => ("kubernetes", "each pod and the Ingress have addresses of their own"),
        Systemd => ("systemd", "it has one socket and one loader for each lambda, and no router"),
    };
    let flags = [
        ("path", !args.paths_of.is_empty(), ![Systemd, Knative].contains(&router)),
        ("host", !args.hosts.is_empty(), router != Systemd),
        ("port", !args.ports.is_empty(), [Haproxy, Systemd].contains(&router)),
        ("replicas", !args.replicas.is_empty(), ![Systemd, Knative].contains(&router)),
        ("data", !args.data.is_empty(), router != Knative),
        ("sleep", args.sleep.is_some(), router == Systemd),
        ("listen", args.listen.is_some(), [Compose, Haproxy].contains(&router)),
        ("registry", args.registry.is_some(), [Compose, Knative, Kubernetes].contains(&router)),
        ("kustomize", args.kustomize, router == Kubernetes),
    ];
    match flags.iter().find(|(_, is_given, is_known)| *is_given && !is_known) {
        Some((flag, ..)) => Err(Usage(format!("--{flag} is not for {engine}: {why}; leave it out")).into()),
        None => Ok(()),
    }
}
