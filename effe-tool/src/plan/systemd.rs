//! A plan as systemd units: one template for all lambdas, and for each lambda a drop-in with its address and a file
//! with its parameters.

use std::path::PathBuf;

use super::{File, LOADER, Plan};

/// The template units. docs/systemd has the same; a test compares them.
const SERVICE: &str = include_str!("../../templates/systemd/effe@.service");
const SOCKET: &str = include_str!("../../templates/systemd/effe@.socket");
/// The directory of units.
const UNITS: &str = "etc/systemd/system";

/// The files, with paths below `/`.
pub(crate) fn files(plan: &Plan) -> Vec<File> {
    let file = |path: String, text: String| File { path: PathBuf::from(path), text };
    let mut files = vec![
        file(format!("{UNITS}/effe@.service"), SERVICE.replace(LOADER, &plan.loader)),
        file(format!("{UNITS}/effe@.socket"), SOCKET.to_owned()),
    ];
    for route in &plan.routes {
        let (name, artifact) = (&route.name, route.artifact.display());
        files.push(file(
            format!("{UNITS}/effe@{name}.socket.d/address.conf"),
            format!(
                "# install -D {artifact} /usr/local/lib/effe/lib{name}.so\n\
                 # systemctl enable --now effe@{name}.socket effe@{name}.service\n\
                 # A new version: install it in the place of the old one, then systemctl reload effe@{name}.\n\
                 [Socket]\nListenStream=\nListenStream=127.0.0.1:{}\n",
                route.port
            ),
        ));
        files.push(file(
            format!("etc/effe/{name}.env"),
            format!("# Every flag of effe-loader is a variable.\nEFFE_PARAMS=/etc/effe/{name}.json\nEFFE_PROBES=true\n"),
        ));
        let parameters = route.set.iter().map(|(key, value)| (key.clone(), value.clone().into()));
        let parameters = serde_json::Value::Object(parameters.collect());
        files.push(file(format!("etc/effe/{name}.json"), format!("{parameters:#}\n")));
    }
    files
}
