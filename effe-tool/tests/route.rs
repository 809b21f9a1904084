//! Tests of `route`: its output is read by HAProxy, the schemas of Kubernetes, systemd, and the loader itself.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    Connection, Hammer, Loader, Scratch, Server, tool,
    tool::{Done, Tool, loader, workspace},
    wait_until,
};

/// The first of `n` free ports in a row, below the range from which the system picks ports.
fn free_ports(n: u16) -> u16 {
    let start = 10_000 + u16::try_from(std::process::id() % 1_000).unwrap() * 20;
    let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    (start..32_000)
        .step_by(usize::from(n))
        .find(|first| (*first..first + n).all(free))
        .expect("some are free")
}

/// A value that a shell, Kubernetes and systemd would all read as something else.
const HOSTILE: &str = "It's \"you\": {} $HOME $(id) $$ %i \\n\n\t# é";

/// Whether a program can be run. If not, the test prints that it is skipped.
fn has(program: &str, args: &[&str]) -> bool {
    let status = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let is_there = status.is_ok_and(|status| status.success());
    if !is_there {
        eprintln!("SKIPPED: there is no {program} here");
    }
    is_there
}

/// Makes lambdas and compiles them into `out`, and has `effe.toml` name the loader under test.
fn lambdas(scratch: &Scratch, names: &[&str]) {
    for name in names {
        tool(scratch).args(["new", &format!("in/{name}.rs")]).run().assert_code(0);
    }
    tool(scratch).args(["compile", "in"]).run().assert_code(0);
    scratch.write("effe.toml", format!("loader = {:?}\n", loader()));
}

fn route(scratch: &Scratch, args: &[&str]) -> Done {
    tool(scratch).arg("route").args(args).run().assert_code(0)
}

/// The command lines of the loaders in a configuration, with their ports.
fn loaders(configuration: &str) -> Vec<(u16, String)> {
    let lines = configuration.lines().filter_map(|line| line.strip_prefix("#   "));
    let with_port = |line: &str| {
        let port = line.split_once("--port ").unwrap().1.split(' ').next().unwrap();
        (port.parse().unwrap(), line.to_owned())
    };
    lines.map(with_port).collect()
}

fn start(scratch: &Scratch, command: &str) -> Server {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec {command}")]);
    Loader::by(Tool::by(shell, scratch).into_command()).serve_as_told()
}

#[test]
fn haproxy_loses_no_request_when_loaders_are_killed_drained_and_swapped() {
    if !has("haproxy", &["-v"]) {
        return;
    }
    let scratch = Scratch::new();
    lambdas(&scratch, &["one", "two", "three"]);
    let first = free_ports(6);
    let (listen, first) = (format!("127.0.0.1:{first}"), (first + 1).to_string());
    let done = route(
        &scratch,
        &[
            "haproxy",
            "out",
            "--listen",
            &listen,
            "--port",
            &first,
            "--replicas",
            "three=1",
            "--host",
            "three=three.example",
            "--set",
            "two.greeting=Two of us",
            "--set",
            &format!("three.greeting={HOSTILE}"),
        ],
    );
    scratch.write("haproxy.cfg", &done.stdout);
    let haproxy = |flag: &str| {
        let mut command = Command::new("haproxy");
        command.args([flag, "-f"]).arg(scratch.join("haproxy.cfg"));
        command
    };
    Tool::by(haproxy("-c"), &scratch).run().assert_code(0);

    let commands = loaders(&done.stdout);
    assert_eq!(commands.len(), 5, "{}", done.stdout);
    let mut servers: Vec<_> = commands.iter().map(|(_, command)| start(&scratch, command)).collect();
    let proxy = Loader::by(haproxy("-db")).start(listen.parse().unwrap());
    let ask = |host: &str, target: &str| {
        let mut connection = Connection::open(proxy.address);
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).reply()
    };
    wait_until("it leads on", || Connection::try_open(proxy.address).is_ok());
    wait_until("all are up", || ask("any", "/one").status == 200 && ask("any", "/two").status == 200);
    assert_eq!(ask("any", "/one/world?x").text(), "Hello from effe: /world\n");
    assert_eq!(ask("any", "/one").text(), "Hello from effe: /\n");
    assert_eq!(ask("any", "/two/a/b").text(), "Two of us from effe: /a/b\n");
    assert_eq!(ask("Three.Example:80", "/one").text(), format!("{HOSTILE} from effe: /one\n"));
    assert_eq!((ask("any", "/onesie").status, ask("any", "/").status), (404, 404));

    let hammer = Hammer::start(proxy.address, "/one/", 8);
    hammer.wait_for(200);
    // The commands are in the order of the names: one, one, three, two, two.
    let up = |n: usize, servers: &mut Vec<Server>| {
        servers.insert(n, start(&scratch, &commands[n].1));
        proxy.hear(&format!("Server one/one-{} is UP", n + 1));
        hammer.wait_for(200);
    };
    drop(servers.remove(0));
    hammer.wait_for(200);
    proxy.hear("Server one/one-1 is DOWN");
    up(0, &mut servers);

    let leaving = servers.remove(1);
    leaving.stop_by(Signal::TERM);
    proxy.hear("Server one/one-2 is DOWN");
    hammer.wait_for(200);
    up(1, &mut servers);

    let source = fs::read_to_string(scratch.join("in/one.rs")).unwrap();
    scratch.write("in/one.rs", source.replace("\"Hello\"", "\"Swapped\""));
    tool(&scratch).args(["compile", "in/one.rs"]).run().assert_code(0);
    for server in &servers[..2] {
        server.tell(Signal::HUP);
        server.hear("generation 2 serves");
    }
    hammer.wait_for(200);
    assert_eq!(ask("any", "/one").text(), "Swapped from effe: /\n");

    let report = hammer.stop();
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    assert_eq!(report.answers.len(), 2, "the old and the new, and nothing else: {:?}", report.answers);
    // No request is sent to them any more, so SIGINT may skip the delay.
    servers.into_iter().for_each(|server| drop(server.stop_by(Signal::INT)));
}

#[test]
fn kubernetes_takes_every_object() {
    if !has("kubernetes-validate", &["--version"]) {
        return;
    }
    let scratch = Scratch::new();
    lambdas(&scratch, &["one", "two"]);
    scratch
        .write("effe.toml", "registry = \"registry.example/team\"\n[lambda.two]\nhost = \"two.example\"\n");
    scratch.write("password", "s3cret\n");
    let set = ["--set", &format!("greeting={HOSTILE}"), "--set", "two.password=@password"];
    let data = ["--data", "two=/var/lib/effe/two"];
    route(&scratch, &[&["kubernetes", "out", "--dirout", "objects"][..], &set, &data].concat());
    let files = ["objects/one.yaml", "objects/two.yaml", "objects/two.secret.yaml"];
    let validate = Command::new("kubernetes-validate");
    let done = Tool::by(validate, &scratch).arg("--strict").args(files).run().assert_code(0);
    let said = done.stdout + &done.stderr;
    let passed = |kind: &str, name: &str| said.contains(&format!("passed for resource {kind}/{name} "));
    for name in ["one", "two"] {
        for kind in ["deployment", "service", "ingress", "poddisruptionbudget"] {
            assert!(passed(kind, name), "{kind}/{name}: {said}");
        }
    }
    assert!(passed("horizontalpodautoscaler", "one"), "{said}");
    assert!(passed("persistentvolumeclaim", "two") && passed("secret", "two"), "{said}");
    let one = fs::read_to_string(scratch.join(files[0])).unwrap();
    for part in ["image: registry.example/team/one:0.1.0", "ingressClassName: haproxy", "path: /one\n"] {
        assert!(one.contains(part), "{part}:\n{one}");
    }
    assert!(fs::read_to_string(scratch.join(files[1])).unwrap().contains("host: \"two.example\""));
}

#[test]
fn compose_takes_the_file_and_haproxy_what_it_is_told_of_the_containers() {
    let scratch = Scratch::new();
    lambdas(&scratch, &["one", "two"]);
    scratch.write("password", "s3cret\n");
    let set = ["--set", &format!("greeting={HOSTILE}"), "--set", "two.password=@password"];
    let flags = ["--data", "two=/data", "--listen", "127.0.0.1:8081", "--dirout", "compose"];
    route(&scratch, &[&["compose", "out", "--registry", "registry.example"][..], &set, &flags].concat());
    let text = fs::read_to_string(scratch.join("compose/compose.yaml")).unwrap();
    let file: Value = serde_yaml_ng::from_str(&text).unwrap();
    let two = &file["services"]["two"];
    assert_eq!(two["image"], "registry.example/two:0.1.0");
    assert_eq!((&two["volumes"][0], &two["deploy"]["replicas"]), (&"two:/data".into(), &2.into()));
    assert_eq!(two["deploy"]["resources"]["limits"]["memory"], (64 << 20).to_string());
    assert_eq!(file["services"]["router__"]["ports"][0], "127.0.0.1:8081:8081");
    let secret = two["secrets"][0]["source"].as_str().unwrap();
    assert_eq!(file["secrets"][secret]["file"], scratch.join("password").to_str().unwrap());
    // What Compose makes of the arguments is what the loader gets.
    let args = two["command"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap().replace("$$", "$"));
    let args: Vec<_> = args.collect();
    assert!(args.contains(&format!("greeting={HOSTILE}")), "{args:?}");
    assert!(args.contains(&"password=@/run/secrets/password".to_owned()), "{args:?}");

    let done = tool(&scratch).args(["route", "compose", "out", "--data", "/srv"]).run().assert_code(1);
    done.assert_says(&["that of an image is /data"]);
    if has("check-jsonschema", &["--version"]) {
        let check = Tool::by(Command::new("check-jsonschema"), &scratch);
        check.args(["--builtin-schema", "vendor.compose-spec", "compose/compose.yaml"]).run().assert_code(0);
    }
    if has("haproxy", &["-v"]) {
        let mut haproxy = Command::new("haproxy");
        haproxy.args(["-c", "-f"]).arg(scratch.join("compose/haproxy.cfg"));
        Tool::by(haproxy, &scratch).run().assert_code(0);
    }
}

/// Asks the schemas of Knative's objects.
const KNATIVE: &str = r#"
    import { readFileSync } from "node:fs";
    const of = (kind) => import(`${process.env.SCHEMAS}/serving.knative.dev/${kind}.js`);
    const { Service } = await of("v1/Service");
    const { DomainMapping } = await of("v1beta1/DomainMapping");
    for (const object of JSON.parse(readFileSync(0))) {
        new { Service, DomainMapping }[object.kind](object).validate();
        console.log(object.kind, "passed");
    }
"#;

#[test]
fn knative_gets_a_service_that_scales_to_none() {
    let scratch = Scratch::new();
    lambdas(&scratch, &["one", "two"]);
    scratch.write("password", "s3cret\n");
    let set = ["--set", &format!("greeting={HOSTILE}"), "--set", "two.password=@password"];
    let flags = ["--host", "two=two.example", "--dirout", "objects"];
    route(&scratch, &[&["knative", "out", "--registry", "registry.example"][..], &set, &flags].concat());
    let objects = |name: &str| -> Vec<Value> {
        let text = fs::read_to_string(scratch.join("objects").join(name)).unwrap();
        let documents = serde_yaml_ng::Deserializer::from_str(&text);
        documents.map(|one| serde::Deserialize::deserialize(one).unwrap()).collect()
    };
    let (one, two) = (objects("one.yaml"), objects("two.yaml"));
    let annotations = &one[0]["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(annotations["autoscaling.knative.dev/min-scale"], "0");
    let spec = &one[0]["spec"]["template"]["spec"];
    let args = spec["containers"][0]["args"].as_array().unwrap();
    let at = args.iter().position(|arg| arg == "--max-concurrency").unwrap() + 1;
    assert_eq!(args[at].as_str().unwrap(), spec["containerConcurrency"].to_string());
    assert_eq!(
        (two[1]["kind"].as_str(), two[1]["metadata"]["name"].as_str()),
        (Some("DomainMapping"), Some("two.example"))
    );
    assert_eq!(objects("two.secret.yaml")[0]["stringData"]["password"], "s3cret\n");
    tool(&scratch).args(["route", "knative", "out", "--data", "/data"]).run().assert_code(2);

    // As the pod starts it: Knative says the port by a variable.
    let mut command = Command::new(loader());
    command.arg("--plugin").arg(scratch.join("out/one_v0.1.0.so")).args(["--host", "127.0.0.1"]);
    let args: Vec<_> = args.iter().map(|arg| arg.as_str().unwrap().replace("$$", "$")).collect();
    let mut loader = Tool::by(command, &scratch).args(args).env("PORT", "0").into_command();
    loader.env_remove("EFFE_PORT");
    let server = Loader::by(loader).serve_as_told();
    assert_eq!(server.get("/").text(), format!("{HOSTILE} from effe: /\n"));
    for probe in ["readinessProbe", "livenessProbe"] {
        let path = spec["containers"][0][probe]["httpGet"]["path"].as_str().unwrap();
        assert_eq!(server.get(path).status, 200, "{probe}");
    }
    server.stop();

    // CI has the schemas there.
    let schemas = workspace().join("out/node/node_modules/@kubernetes-models/knative");
    if schemas.is_dir() {
        let all = Value::from([one, two].concat());
        let node = Tool::by(Command::new("node"), &scratch).env("SCHEMAS", schemas);
        let done =
            node.args(["--input-type=module", "-e", KNATIVE]).input(all.to_string()).run().assert_code(0);
        assert_eq!(done.stdout, "Service passed\nService passed\nDomainMapping passed\n");
    } else {
        eprintln!("SKIPPED: there is no @kubernetes-models/knative in out/node");
    }
}

#[test]
fn a_kustomization_names_all_files_and_images() {
    let scratch = Scratch::new();
    lambdas(&scratch, &["one", "two"]);
    scratch.write("password", "s3cret\n");
    let flags = [
        "--kustomize",
        "--dirout",
        "base",
        "--registry",
        "localhost:5000/team",
        "--set",
        "two.password=@password",
    ];
    route(&scratch, &[&["kubernetes", "out"][..], &flags].concat());
    let text = fs::read_to_string(scratch.join("base/kustomization.yaml")).unwrap();
    let kustomization: Value = serde_yaml_ng::from_str(&text).unwrap();
    let mut named: Vec<_> = kustomization["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file.as_str().unwrap().to_owned())
        .collect();
    named.push("kustomization.yaml".to_owned());
    let mut there: Vec<_> = fs::read_dir(scratch.join("base"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    named.sort();
    there.sort();
    assert_eq!(named, there);
    assert_eq!(kustomization["images"][1]["name"], "localhost:5000/team/two");
    assert_eq!(kustomization["images"][1]["newTag"], "0.1.0");
    // An overlay with another version, as kubectl makes objects of it.
    if has("kubectl", &["kustomize", "--help"]) {
        fs::create_dir(scratch.join("overlay")).unwrap();
        let overlay = "resources: [../base]\nimages: [{name: localhost:5000/team/one, newTag: '2'}]\n";
        scratch.write("overlay/kustomization.yaml", overlay);
        let done =
            Tool::by(Command::new("kubectl"), &scratch).args(["kustomize", "overlay"]).run().assert_code(0);
        assert!(done.stdout.contains("image: localhost:5000/team/one:2\n"), "{}", done.stdout);
        assert!(done.stdout.contains("image: localhost:5000/team/two:0.1.0\n"), "{}", done.stdout);
    }
}

#[test]
fn a_manifest_says_what_the_loader_does() {
    let scratch = Scratch::new();
    lambdas(&scratch, &["one"]);
    let text = route(&scratch, &["kubernetes", "out", "--set", "greeting=It's \"you\": {}"]).stdout;
    let documents = serde_yaml_ng::Deserializer::from_str(&text);
    let objects: Vec<Value> = documents.map(|one| serde::Deserialize::deserialize(one).unwrap()).collect();
    let pod =
        &objects.iter().find(|object| object["kind"] == "Deployment").unwrap()["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let args = container["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap());
    let args: Vec<_> = args.map(|arg| if arg == "8080" { "0" } else { arg }).collect();

    let mut command = Command::new(loader());
    command
        .args(["--plugin"])
        .arg(scratch.join("out/one_v0.1.0.so"))
        .args(["--host", "127.0.0.1"])
        .args(args);
    let server = Loader::by(Tool::by(command, &scratch).into_command()).serve_as_told();
    assert_eq!(server.get("/").text(), "It's \"you\": {} from effe: /\n");
    let path = |probe: &str| container[probe]["httpGet"]["path"].as_str().unwrap();
    let seconds = |value: &Value| Duration::from_secs(value.as_u64().unwrap());
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        assert_eq!(server.get(path(probe)).status, 200, "{probe}");
        assert_eq!(container[probe]["httpGet"]["port"], container["ports"][0]["name"]);
    }

    // While it drains, it isn't ready, but requests that still arrive are answered.
    let told = Instant::now();
    server.tell(Signal::TERM);
    wait_until("it says that it leaves", || server.get(path("readinessProbe")).status == 503);
    assert_eq!(server.get(path("livenessProbe")).status, 200);
    let readiness = &container["readinessProbe"];
    let noticed =
        seconds(&readiness["periodSeconds"]) * readiness["failureThreshold"].as_u64().unwrap() as u32;
    let mut n_answers = 0;
    while told.elapsed() < noticed + Duration::from_secs(1) {
        assert_eq!(server.get("/").status, 200);
        n_answers += 1;
    }
    assert!(n_answers > 10);
    server.ends();
    let grace = seconds(&pod["terminationGracePeriodSeconds"]);
    assert!(told.elapsed() > noticed && told.elapsed() < grace, "{:?} of {grace:?}", told.elapsed());
    // Even if requests take the whole drain, the process ends before it is killed.
    let span = |flag: &str| {
        let args = container["args"].as_array().unwrap();
        let at = args.iter().position(|arg| arg == flag).unwrap() + 1;
        Duration::from_secs(args[at].as_str().unwrap().trim_end_matches('s').parse().unwrap())
    };
    assert!(span("--drain-delay") + span("--drain-timeout") + Duration::from_secs(2) < grace);
}

#[test]
fn two_lambdas_in_each_others_way_are_refused() {
    let scratch = Scratch::new();
    lambdas(&scratch, &["one", "two"]);
    let refused = |args: &[&str], code: i32, says: &[&str]| {
        let done = tool(&scratch).args(["route", "haproxy", "out"]).args(args).run().assert_code(code);
        assert_eq!(done.assert_says(says).stdout, "");
    };
    refused(
        &["--path", "one=/x", "--path", "two=/x"],
        1,
        &["one and two are both at /x on any host", "--path"],
    );
    refused(&["--port", "one=7051"], 1, &["one and two share port 7051"]);
    refused(&["--path", "three=/x"], 2, &["no lambda \"three\"", "one, two"]);
    refused(&["--path", "one=x"], 1, &["the path \"x\"", "write it as /hello"]);
    refused(&["--host", "a b"], 1, &["the host \"a b\""]);
    refused(
        &["--path", "/x"],
        1,
        &["the path /x is for one lambda, and here are one, two", "--path NAME=/x"],
    );
    refused(&["--registry", "x"], 2, &["--registry is not for haproxy"]);
    refused(&["--listen", "8080"], 1, &["can't listen on \"8080\"", "*:8080"]);
    refused(&["--set", "a=@nowhere"], 1, &["a=@nowhere", "No such file"]);
    refused(&["--replicas", "one=many"], 2, &["--replicas one=many"]);
    fs::copy(scratch.join("out/one_v0.1.0.so"), scratch.join("out/again.so")).unwrap();
    refused(&[], 1, &["out/again.so", "out/one_v0.1.0.so", "both called one"]);
    scratch.write("effe.toml", "[lambda.one]\nreplica = 3\n");
    refused(&[], 1, &["effe.toml", "replica", "line 2"]);
}

#[test]
fn systemd_takes_the_units_and_the_loader_what_goes_with_them() {
    let scratch = Scratch::new();
    lambdas(&scratch, &["one"]);
    scratch.write("greeting", HOSTILE);
    let args = ["systemd", "out", "--dirout", "root", "--port", "7099", "--data", "/var/lib/effe"];
    route(&scratch, &[&args[..], &["--sleep"]].concat());
    let environment = fs::read_to_string(scratch.join("root/etc/effe/one.env")).unwrap();
    assert!(environment.ends_with("EFFE_IDLE_EXIT=5m\n"), "{environment}");
    let secret = ["--set", "greeting=@greeting", "--set", &format!("other={HOSTILE}")];
    route(&scratch, &[&args[..], &secret].concat());
    for unit in ["effe@.service", "effe@.socket"] {
        let [ours, documented] = ["effe-tool/templates", "docs"]
            .map(|place| fs::read_to_string(workspace().join(place).join("systemd").join(unit)).unwrap());
        assert!(ours == documented, "docs/systemd/{unit} and that of effe-tool/templates differ");
    }
    let units = scratch.join("root/etc/systemd/system");
    let mode =
        |path: &str| fs::metadata(scratch.join("root").join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("etc/effe/one.secrets/greeting"), mode("etc/effe/one.json") & 0o004), (0o600, 0o004));
    let address = fs::read_to_string(units.join("effe@one.socket.d/address.conf")).unwrap();
    assert!(address.ends_with("[Socket]\nListenStream=\nListenStream=127.0.0.1:7099\n"), "{address}");

    // The loader accepts the variables in the unit's EnvironmentFile.
    let environment = fs::read_to_string(scratch.join("root/etc/effe/one.env")).unwrap();
    let mut command = Command::new(loader());
    command.arg("--plugin").arg(scratch.join("out/one_v0.1.0.so"));
    let mut tool = Tool::by(command, &scratch);
    for line in environment.lines().filter(|line| !line.starts_with('#')) {
        let (key, value) = line.split_once('=').unwrap();
        let value = value.replace("/etc/", &format!("{}/etc/", scratch.join("root").display()));
        tool = tool.env(key, value);
    }
    // As systemd reads the drop-in, which it is asked about below.
    let secret = format!("greeting=@{}", scratch.join("root/etc/effe/one.secrets/greeting").display());
    let server = Loader::by(tool.env("EFFE_SET", secret).into_command()).serve();
    assert_eq!(server.get("/").text(), format!("{HOSTILE} from effe: /\n"));
    assert_eq!(server.get("/health/readiness").status, 200);
    server.stop();

    if !has("systemd-analyze", &["--version"]) {
        return;
    }
    // Of an instance of the template, as `systemctl enable` makes it.
    for unit in ["service", "socket"] {
        fs::copy(units.join(format!("effe@.{unit}")), units.join(format!("effe@one.{unit}"))).unwrap();
    }
    let verify = |level: &str| {
        let mut command = Command::new("systemd-analyze");
        command
            .args(["verify", "--man=no"])
            .args([units.join("effe@one.service"), units.join("effe@one.socket")]);
        Tool::by(command, &scratch).env("SYSTEMD_LOG_LEVEL", level).run()
    };
    let done = verify("info");
    let ours: Vec<_> = done.stderr.lines().filter(|line| line.contains("effe@")).collect();
    assert!(ours.is_empty(), "{ours:#?}");
    // It shows what it has read.
    let shown = verify("debug").stdout;
    for part in ["StateDirectory: effe/one", "Environment: EFFE_SET=greeting=@"] {
        assert!(shown.lines().any(|line| line.trim().starts_with(part)), "{part}:\n{shown}");
    }
}
