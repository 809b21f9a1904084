//! A plan as a Compose file: a service for each lambda, and HAProxy in front of them, which finds their containers by
//! the engine's DNS and checks their health.

use super::{
    CONCURRENCY, DRAIN_DELAY, File, Parameter, Plan, Route, haproxy,
    quoting::{compose_argument, yaml},
};
use crate::{
    artifact::Kind,
    image::{DATA, USER},
    loader::{DRAIN_TIMEOUT, PORT, STOP_MARGIN},
};

/// The image of the router; its user may not bind ports below 1024.
const ROUTER: &str = "haproxy:3.2-alpine";

/// The Compose file, and the router's configuration beside it.
pub(crate) fn files(plan: &Plan) -> Vec<File> {
    vec![File::new("compose.yaml", compose(plan)), File::new("haproxy.cfg", haproxy::for_compose(plan))]
}

fn compose(plan: &Plan) -> String {
    let mut text = String::from(
        "# Made by effe-tool route compose. `docker compose up --wait` starts it; `docker compose up --wait --scale \
         NAME=4`\n# changes how many loaders serve a lambda.\nname: effe\nservices:\n",
    );
    let port = plan.listen.port;
    // Compose publishes on all addresses where none is named.
    let host = plan.listen.text.rsplit_once(':').map_or("", |(host, _)| host);
    let published = match host {
        "" | "*" => format!("{port}:{port}"),
        host => format!("{host}:{port}:{port}"),
    };
    // Two underscores, which no lambda has in its name.
    text.push_str(&format!(
        "  router__:\n    image: {ROUTER}\n    ports:\n      - {}\n    restart: unless-stopped\n    \
         volumes:\n      - type: bind\n        source: ./haproxy.cfg\n        \
         target: /usr/local/etc/haproxy/haproxy.cfg\n        read_only: true\n    \
         # It is healthy while it takes connections; each lambda's health is what it checks itself.\n    \
         healthcheck:\n      test: [\"CMD\", \"nc\", \"-z\", \"127.0.0.1\", \"{port}\"]\n      interval: 5s\n    \
         depends_on:\n",
        yaml(&published)
    ));
    for route in &plan.routes {
        text.push_str(&format!("      - {}\n", route.name));
    }
    plan.routes.iter().for_each(|route| text.push_str(&service(route)));
    let with_data: Vec<_> = plan.routes.iter().filter(|route| route.data.is_some()).collect();
    if !with_data.is_empty() {
        text.push_str("volumes:\n");
        with_data.iter().for_each(|route| text.push_str(&format!("  {}: {{}}\n", route.name)));
    }
    let secrets: Vec<_> = plan.routes.iter().flat_map(secrets).collect();
    if !secrets.is_empty() {
        text.push_str(&format!("# The user {USER} must be able to read these files.\nsecrets:\n"));
        for Secret { name, path, .. } in secrets {
            text.push_str(&format!("  {name}:\n    file: {}\n", compose_argument(&path)));
        }
    }
    text
}

fn service(route: &Route) -> String {
    let Route { name, image, replicas, memory, .. } = route;
    let mut text = format!(
        "  {name}:\n    image: {}\n    command:\n      - --port\n      - \"{PORT}\"\n      - --probes\n      \
         - --max-concurrency\n      - \"{CONCURRENCY}\"\n      - --drain-delay\n      - {DRAIN_DELAY}s\n      \
         - --drain-timeout\n      - {DRAIN_TIMEOUT}s\n",
        yaml(image)
    );
    for (key, parameter) in &route.set {
        let pair = match parameter {
            Parameter::Text(value) => format!("{key}={value}"),
            Parameter::File { .. } => format!("{key}=@/run/secrets/{key}"),
        };
        text.push_str(&format!("      - --set\n      - {}\n", compose_argument(&pair)));
    }
    text.push_str(&format!(
        "    # --drain-delay, --drain-timeout, and some time to stop Contexts.\n    stop_grace_period: {}s\n    \
         restart: unless-stopped\n    read_only: true\n    user: \"{USER}:{USER}\"\n    cap_drop:\n      - ALL\n    \
         security_opt:\n      - no-new-privileges:true\n    \
         # The image has no program but the loader; the router asks each loader for its health.\n    \
         healthcheck:\n      disable: true\n    deploy:\n      replicas: {replicas}\n      resources:\n        \
         limits:\n          memory: {}\n",
        DRAIN_DELAY + DRAIN_TIMEOUT + STOP_MARGIN,
        memory_limit(memory)
    ));
    if route.kind == Kind::Executable {
        text.push_str("    # It has the loader linked in.\n");
    }
    if route.data.is_some() {
        text.push_str(&format!("    volumes:\n      - {name}:/{DATA}\n"));
    }
    let mut secrets = secrets(route).peekable();
    if secrets.peek().is_some() {
        text.push_str("    secrets:\n");
        for Secret { name, key, .. } in secrets {
            text.push_str(&format!("      - source: {name}\n        target: {}\n", yaml(&key)));
        }
    }
    text
}

/// A file that a service reads.
struct Secret {
    /// The file's name in the Compose file.
    name: String,
    key: String,
    path: String,
}

fn secrets(route: &Route) -> impl Iterator<Item = Secret> {
    route.set.iter().filter_map(|(key, parameter)| match parameter {
        Parameter::Text(_) => None,
        Parameter::File { path, .. } => Some(Secret {
            // Two lambdas may have secrets of one name. No lambda has a dot in its own.
            name: format!("{}.{key}", route.name),
            key: key.clone(),
            path: path.display().to_string(),
        }),
    })
}

/// An amount of memory in bytes: Compose knows no `Mi`.
fn memory_limit(text: &str) -> String {
    let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let unit: f64 = match &text[digits..] {
        "" => 1.0,
        unit => {
            let base: f64 = if unit.ends_with('i') { 1024.0 } else { 1000.0 };
            let power = "kMGTPE".find(unit.replace('K', "k").trim_end_matches('i')).unwrap_or(0) + 1;
            base.powi(power as i32)
        }
    };
    let number: f64 = text[..digits].parse().expect("checks.rs has let a number pass");
    format!("\"{}\"", (number * unit).round() as u64)
}
