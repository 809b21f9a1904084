//! A plan as systemd units: one template for any lambda, and for each lambda its address and its parameters.

use std::path::PathBuf;

use super::{DRAIN_DELAY, DRAIN_TIMEOUT, File, Plan};

/// Where units lie.
const UNITS: &str = "etc/systemd/system";
/// Where plugins are to lie: `hello.so`.
const PLUGINS: &str = "/usr/local/lib/effe";

/// Files below `/`.
pub(crate) fn files(plan: &Plan) -> Vec<File> {
    let file = |path: String, text: String| File { path: PathBuf::from(path), text };
    let mut files = vec![
        file(format!("{UNITS}/effe@.service"), service(plan)),
        file(format!("{UNITS}/effe@.socket"), SOCKET.to_owned()),
    ];
    for route in &plan.routes {
        let name = &route.name;
        files.push(file(
            format!("{UNITS}/effe@{name}.socket.d/address.conf"),
            format!("[Socket]\nListenStream=127.0.0.1:{}\n", route.port),
        ));
        let parameters: serde_json::Map<_, _> =
            route.set.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
        files.push(file(
            format!("etc/effe/{name}.json"),
            format!("{:#}\n", serde_json::Value::Object(parameters)),
        ));
    }
    files
}

const SOCKET: &str = "\
# Made by effe-tool route systemd. The address of each lambda is in effe@NAME.socket.d/address.conf.
[Unit]
Description=Address of the effe %i

[Socket]
# The socket outlives the loader: what comes while one loader follows another waits in its queue.
Backlog=4096

[Install]
WantedBy=sockets.target
";

fn service(plan: &Plan) -> String {
    let loader = &plan.loader;
    let stop = DRAIN_DELAY + DRAIN_TIMEOUT + 10;
    format!(
        "\
# Made by effe-tool route systemd: one unit for any lambda. To serve hello:
#   install -D hello.so {PLUGINS}/hello.so
#   systemctl enable --now effe@hello.socket effe@hello.service
# A new version: put it in the place of the old one, then systemctl reload effe@hello; no request is lost.
[Unit]
Description=effe %i
Requires=effe@%i.socket
After=effe@%i.socket network.target

[Service]
Type=notify
NotifyAccess=main
ExecStart={loader} --plugin {PLUGINS}/%i.so --params /etc/effe/%i.json --drain-timeout {DRAIN_TIMEOUT}s
ExecReload=kill -HUP $MAINPID
Restart=on-failure
RestartSec=1
# 78: the plugin can't be used, and trying again doesn't mend it.
RestartPreventExitStatus=78
TimeoutStopSec={stop}
# Secrets are parameters from files: LoadCredential=key:/etc/effe/hello.key in a drop-in, and in the lambda's
# parameters the file in $CREDENTIALS_DIRECTORY.

# Nobody's user, who owns nothing and may do nothing but serve.
DynamicUser=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
UMask=0077
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
LimitNOFILE=65536
MemoryMax=512M
TasksMax=1024

[Install]
WantedBy=multi-user.target
"
    )
}
