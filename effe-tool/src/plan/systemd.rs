//! A plan as systemd units: one template for all lambdas, and for each lambda a drop-in with its address, a file with
//! its parameters, and, if it needs them, another drop-in with its program, its data directory and its secrets.

use std::collections::BTreeMap;

use super::{
    File, LOADER, Parameter, Plan, Route, checks, parameters,
    quoting::{shell, systemd_program},
};
use crate::artifact::Kind;

/// The template units. docs/systemd has the same; a test compares them.
const SERVICE: &str = include_str!("../../templates/systemd/effe@.service");
const SOCKET: &str = include_str!("../../templates/systemd/effe@.socket");
/// The directory of units.
const UNITS: &str = "etc/systemd/system";

/// The files, with paths below `/`.
pub(crate) fn files(plan: &Plan) -> Vec<File> {
    let mut files = vec![
        File::new(format!("{UNITS}/effe@.service"), SERVICE.replace(LOADER, &systemd_program(&plan.loader))),
        File::new(format!("{UNITS}/effe@.socket"), SOCKET.to_owned()),
    ];
    for route in &plan.routes {
        let (name, artifact) = (&route.name, shell(&route.artifact));
        // One that sleeps is started by its socket.
        let service = if plan.sleep.is_some() { String::new() } else { format!(" effe@{name}.service") };
        files.push(File::new(
            format!("{UNITS}/effe@{name}.socket.d/address.conf"),
            format!(
                "# install -D {artifact} {}\n\
                 # systemctl enable --now effe@{name}.socket{service}\n\
                 # A new version: install it in the place of the old one, then systemctl reload effe@{name}.\n\
                 [Socket]\nListenStream=\nListenStream=127.0.0.1:{}\n",
                installed(route),
                route.port
            ),
        ));
        let settings = settings(route);
        if !settings.is_empty() {
            files.push(File::new(
                format!("{UNITS}/effe@{name}.service.d/lambda.conf"),
                format!("[Service]\n{settings}"),
            ));
        }
        let mut environment = format!(
            "# Every flag of effe-loader is a variable.\nEFFE_PARAMS=/etc/effe/{name}.json\nEFFE_PROBES=true\n"
        );
        if let Some(sleep) = &plan.sleep {
            environment.push_str(&format!("EFFE_IDLE_EXIT={sleep}\n"));
            files.push(File::new(
                format!("{UNITS}/effe@{name}.service.d/sleep.conf"),
                "# It ends without a request, and is started for the next one, however often that is.\n\
                 [Unit]\nStartLimitIntervalSec=0\n"
                    .to_owned(),
            ));
        }
        files.push(File::new(format!("etc/effe/{name}.env"), environment));
        let mut texts = BTreeMap::new();
        for (key, parameter) in &route.set {
            match parameter {
                Parameter::Text(text) => drop(texts.insert(key, parameters::as_json(text))),
                // The loader takes a line feed at the end away.
                Parameter::File { content, .. } => {
                    files.push(File::secret(
                        secret(route, key).trim_start_matches('/'),
                        format!("{content}\n"),
                    ));
                }
            }
        }
        let object = serde_json::to_string_pretty(&texts).expect("texts can be written as JSON");
        files.push(File::new(format!("etc/effe/{name}.json"), format!("{object}\n")));
    }
    files
}

/// Where a lambda's file is installed.
fn installed(route: &Route) -> String {
    match route.kind {
        Kind::Plugin => format!("/usr/local/lib/effe/lib{}.so", route.name),
        Kind::Executable => format!("/usr/local/lib/effe/{}", route.name),
    }
}

/// The file of a secret, which root alone can read. systemd shows a copy of it to the loader.
fn secret(route: &Route, key: &str) -> String {
    format!("/etc/effe/{}.secrets/{key}", route.name)
}

/// What the template can't say for all lambdas.
fn settings(route: &Route) -> String {
    let mut text = String::new();
    if route.kind == Kind::Executable {
        let program = installed(route);
        text.push_str(&format!(
            "# It has the loader linked in.\nExecStart=\nExecStart={program} --admin unix:/run/effe-%i/admin.sock\n"
        ));
    }
    if let Some(below) = route.data.as_deref().and_then(|data| data.strip_prefix(checks::STATE)) {
        text.push_str(&format!(
            "# What the lambda keeps; it outlives the service.\nStateDirectory={below}\nStateDirectoryMode=0700\n"
        ));
    }
    let keys = route.set.iter().filter(|(_, parameter)| matches!(parameter, Parameter::File { .. }));
    let keys: Vec<_> = keys.map(|(key, _)| key.as_str()).collect();
    if !keys.is_empty() {
        text.push_str("# New secrets need systemctl restart: a service sees those of its start.\n");
        for key in &keys {
            text.push_str(&format!("LoadCredential={key}:{}\n", secret(route, key)));
        }
        let pairs: Vec<_> = keys.iter().map(|key| format!("{key}=@%d/{key}")).collect();
        text.push_str(&format!("Environment=\"EFFE_SET={}\"\n", pairs.join("\\n")));
    }
    text
}
