//! A plan as a configuration of HAProxy: a backend for each lambda, and a server for each of its loaders.

use std::collections::BTreeMap;

use super::{
    CONCURRENCY, DRAIN_DELAY, File, Parameter, Plan, Route, SERVER_TIMEOUT, parameters, quoting::shell,
};
use crate::{
    artifact::Kind,
    loader::{DRAIN_TIMEOUT, PORT},
};

/// The most containers of a lambda that a router in a container finds.
const MAX_CONTAINERS: usize = 32;

/// The configuration.
pub(crate) fn files(plan: &Plan) -> Vec<File> {
    let mut text = String::from(
        "# Made by effe-tool route haproxy. Run these loaders, each under a supervisor that restarts it:\n",
    );
    for route in &plan.routes {
        for port in route.ports() {
            text.push_str(&format!("#   {}\n", command(plan, route, port)));
        }
    }
    for route in &plan.routes {
        if let Some(data) = &route.data {
            text.push_str(&format!(
                "# {} keeps its data in {data}: make that directory, and let the loaders' user write to it.\n",
                route.name
            ));
        }
    }
    text.push_str(
        "# For a new version, replace the plugin's file and send the loader SIGHUP; no request is lost.\n\
         # After SIGTERM, a loader reports that it isn't ready, and serves on for --drain-delay.\n",
    );
    text.push_str(&router(plan, &plan.listen.text, |route| {
        let servers = route.ports().enumerate();
        servers.map(|(n, port)| format!("    server {}-{} 127.0.0.1:{port}\n", route.name, n + 1)).collect()
    }));
    vec![File::new("haproxy.cfg", text)]
}

/// The configuration of a HAProxy in a container, beside containers of the loaders: the engine's DNS says which there
/// are, and knows them by the name of their lambda.
pub(super) fn for_compose(plan: &Plan) -> String {
    let resolvers = "\nresolvers engine\n    # DNS of docker and podman for the containers of a network\n    \
                     parse-resolv-conf\n    hold valid 1s\n    hold obsolete 5s\n";
    let listen = format!(":{}", plan.listen.port);
    let configuration = router(plan, &listen, |route| {
        format!(
            "    server-template {0}- {MAX_CONTAINERS} {0}:{PORT} resolvers engine init-addr none\n",
            route.name
        )
    });
    format!("# Made by effe-tool route compose.\n{configuration}{resolvers}")
}

/// All sections: what the router listens on, which lambda gets a request, and the servers of each.
fn router(plan: &Plan, listen: &str, servers: impl Fn(&Route) -> String) -> String {
    let mut text = head();
    text.push_str(&format!(
        "    # As many as a loader runs at once. Other requests wait here, where each loader can take them.\n    \
         default-server check inter 1s fastinter 250ms fall 2 rise 1 maxconn {CONCURRENCY}\n\n\
         frontend effe\n    bind {}\n    option forwardfor\n    \
         http-request set-header X-Request-Id %[uuid()] unless {{ req.hdr(X-Request-Id) -m found }}\n",
        listen
    ));
    let mut routes: Vec<_> = plan.routes.iter().collect();
    // HAProxy takes the first rule that matches: so rules with a host come first, and longer paths before shorter ones.
    routes.sort_by_key(|route| (route.host.is_none(), std::cmp::Reverse(route.path.len())));
    let mut rules = String::new();
    for route in routes {
        let name = &route.name;
        let mut conditions = Vec::new();
        if let Some(host) = &route.host {
            text.push_str(&format!("    acl host_{name} hdr(host),host_only,lower -m str {host}\n"));
            conditions.push(format!("host_{name}"));
        }
        if route.path != "/" {
            let path = &route.path;
            text.push_str(&format!(
                "    acl path_{name} path {path}\n    acl path_{name} path_beg {path}/\n"
            ));
            conditions.push(format!("path_{name}"));
        }
        match conditions.is_empty() {
            true => rules.push_str(&format!("    use_backend {name}\n")),
            false => rules.push_str(&format!("    use_backend {name} if {}\n", conditions.join(" "))),
        }
    }
    text.push_str(&rules);
    // With an underscore, which no lambda has in its name.
    text.push_str("    default_backend not_found\n");
    for route in &plan.routes {
        text.push_str(&format!("\nbackend {}\n", route.name));
        text.push_str("    http-request disable-l7-retry unless { method GET HEAD OPTIONS }\n");
        if route.path == "/" {
            text.push_str("    # Only this router says where a lambda is.\n    http-request del-header X-Forwarded-Prefix\n");
        } else {
            let path = &route.path;
            let pattern = path.replace('.', "\\\\.");
            text.push_str(&format!(
                "    # The router removes a lambda's own path from the URL, and says which it was: for request.base().\n    \
                 http-request set-header X-Forwarded-Prefix {path}\n    \
                 http-request replace-path ^{pattern}/*(.*)$ /\\1\n"
            ));
        }
        text.push_str(&servers(route));
    }
    text.push_str(
        "\nbackend not_found\n    \
         http-request return status 404 content-type text/plain string \"no lambda is routed here\"\n",
    );
    text
}

/// The sections `global` and `defaults`.
fn head() -> String {
    format!(
        "\
global
    log stderr format short daemon
    maxconn 8192
    # After a reload, the old process serves its connections for at most this long.
    hard-stop-after 60s

defaults
    mode http
    log global
    option httplog
    option dontlognull
    timeout connect 1s
    # The router handles clients that send heads slowly or stay idle.
    timeout http-request 10s
    timeout http-keep-alive 60s
    timeout client 60s
    # A little longer than the loader's --run-timeout, so that its 504 reaches the client.
    timeout server {SERVER_TIMEOUT}s
    # How long a request may wait for one of a backend's loaders to have room.
    timeout queue 5s
    balance leastconn
    # A request that no loader has begun goes to another one at once. One that a loader may have begun is sent again
    # only if its method is idempotent; see disable-l7-retry below.
    retries 3
    option redispatch 1
    retry-on conn-failure empty-response 503
    option httpchk GET /health/readiness
    http-check expect status 200
"
    )
}

/// The command line of a loader, on one line.
fn command(plan: &Plan, route: &Route, port: u16) -> String {
    let artifact = shell(&route.artifact);
    let begin = match route.kind {
        Kind::Plugin => format!("{} --plugin {artifact}", shell(&plan.loader)),
        Kind::Executable => artifact,
    };
    let mut text = format!(
        "{begin} --host 127.0.0.1 --port {port} --probes --max-concurrency {CONCURRENCY} \
         --drain-delay {DRAIN_DELAY}s --drain-timeout {DRAIN_TIMEOUT}s"
    );
    // What can't stand on a line as it is goes into a JSON object, which can.
    let mut object = BTreeMap::new();
    for (key, parameter) in &route.set {
        let pair = match parameter {
            Parameter::Text(text) if text.contains(char::is_control) => {
                object.insert(key, parameters::as_json(text));
                continue;
            }
            Parameter::Text(text) => format!("{key}={text}"),
            Parameter::File { path, .. } => format!("{key}=@{}", path.display()),
        };
        text.push_str(&format!(" --set {}", shell(&pair)));
    }
    if !object.is_empty() {
        let object = serde_json::to_string(&object).expect("texts can be written as JSON");
        text.push_str(&format!(" --params {}", shell(&object)));
    }
    text
}
