//! Values that hold anything, through the files of each engine and back: each file is read by the engine itself, by the
//! parser that the engine has, or by a reader that follows the engine's documentation.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{Seek, Write},
    panic::AssertUnwindSafe,
    path::Path,
    process::{Command, Stdio},
    sync::Mutex,
};

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::*;

/// What one of the engines, a shell or a file's syntax gives a meaning to.
const PIECES: [&str; 60] = [
    "'",
    "\"",
    "`",
    "$",
    "$$",
    "$(HOME)",
    "$(id)",
    "${HOME}",
    "$HOME",
    "%",
    "%%",
    "%i",
    "%d",
    "%[env(HOME)]",
    "\\",
    "\\\\",
    "\\n",
    "\\x41",
    "\\u0041",
    "\n",
    "\n\n",
    "\t",
    "\r",
    "\r\n",
    " ",
    "  ",
    "#",
    " #",
    ";",
    "&&",
    "|",
    ">",
    "<",
    "*",
    "?",
    "~",
    "!",
    "!!",
    ": ",
    "- ",
    "---\n",
    "{",
    "}",
    "[1, 2]",
    "{\"a\":1.0}",
    "null",
    "true",
    "1.0",
    "1e5",
    "@",
    "=",
    "key=",
    "é",
    "日本",
    "🦀",
    "\u{85}",
    "\u{2028}",
    "\u{feff}",
    "\u{7f}\u{1b}[31m",
    "\u{10ffff}\u{ffff}",
];

/// Many texts of these pieces, and of any others.
fn texts() -> Vec<String> {
    let made = Mutex::new(PIECES.map(str::to_owned).to_vec());
    generate(&made);
    let mut made = made.into_inner().unwrap();
    made.retain(|text| !text.starts_with('@') && !text.contains('\0'));
    assert!(made.len() > 300, "{}", made.len());
    made
}

fn generate(made: &Mutex<Vec<String>>) {
    let made = AssertUnwindSafe(made);
    bolero::check!().with_iterations(300).with_type::<(Vec<u8>, String)>().for_each(|(choices, other)| {
        let pieces = choices.iter().take(12).map(|choice| PIECES[usize::from(*choice) % PIECES.len()]);
        made.lock().unwrap().extend([pieces.collect(), other.clone()]);
    });
}

/// The parameters that lambdas get, by the loader's documentation of `--set` and `--params`: as text, and as JSON.
fn loaded(args: &[String]) -> BTreeMap<String, (String, Value)> {
    let mut loaded = BTreeMap::new();
    let values = |flag: &str| {
        let is_flag = move |pair: &&[String]| pair[0] == flag;
        args.windows(2).filter(is_flag).map(|pair| pair[1].clone()).collect::<Vec<_>>()
    };
    values("--params").iter().for_each(|object| loaded.extend(object_of(object)));
    for pair in values("--set") {
        let (key, text) = pair.split_once('=').unwrap();
        loaded.insert(key.to_owned(), given(text));
    }
    loaded
}

/// A text as `--set` takes it.
fn given(text: &str) -> (String, Value) {
    let is_bare = !text.starts_with(char::is_whitespace) && !text.ends_with(char::is_whitespace);
    let json = serde_json::from_str::<Value>(text).ok().filter(|json| is_bare && !json.is_string());
    (text.to_owned(), json.unwrap_or_else(|| text.into()))
}

/// The members of an object as `--params` takes it.
fn object_of(object: &str) -> BTreeMap<String, (String, Value)> {
    let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(object).unwrap();
    let parameter = |raw: Box<RawValue>| {
        let json: Value = serde_json::from_str(raw.get()).unwrap();
        (json.as_str().map_or_else(|| raw.get().to_owned(), str::to_owned), json)
    };
    members.into_iter().map(|(key, raw)| (key, parameter(raw))).collect()
}

fn with(text: &str, engine: Router) -> Result<Route> {
    let set = [("key".to_owned(), text.to_owned()), ("plain".to_owned(), "x".to_owned())].into();
    Ok(Route { set: parameters::read(&set, engine)?, replicas: 1, ..route("a") })
}

#[track_caller]
fn assert_same(read: &BTreeMap<String, (String, Value)>, text: &str) {
    assert_eq!(read.get("key"), Some(&given(text)));
    assert_eq!(read.get("plain"), Some(&given("x")));
    assert_eq!(read.len(), 2, "{text:?}");
}

/// Runs a program with this input, and returns its output.
fn output(command: &mut Command, input: &str) -> String {
    // A file, because a pipe would have to be written and read at the same time.
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(input.as_bytes()).unwrap();
    file.rewind().unwrap();
    let output = command.stdin(file).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Whether a program can be run. If not, the test prints that it is skipped.
#[expect(clippy::print_stderr, reason = "a test says what it leaves out")]
fn has(program: &str, args: &[&str]) -> bool {
    let status = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let is_there = status.is_ok_and(|status| status.success());
    if !is_there {
        eprintln!("SKIPPED: there is no {program} here");
    }
    is_there
}

#[test]
fn a_shell_reads_the_command_lines_as_they_were_meant() {
    let mut commands = String::new();
    let mut expected = Vec::new();
    for (n, text) in texts().into_iter().enumerate() {
        let Ok(hostile) = with(&text, Router::Haproxy) else {
            // The one thing that a line can't hold.
            assert!(
                text.contains(char::is_control) && serde_json::from_str::<Value>(&text).is_ok(),
                "{text:?}"
            );
            continue;
        };
        // Paths hold the same, but for what no path on a line can hold.
        let path: String = text.chars().filter(|ch| !ch.is_control()).collect();
        let (loader, artifact) = (format!("/opt/{path}/effe-loader"), format!("/srv/{path}/{n}.so"));
        checks::loader(&loader, Router::Haproxy).unwrap();
        let artifact = checks::artifact(Path::new(&artifact)).unwrap();
        let plan = Plan { loader, ..plan(vec![Route { artifact, ..hostile }]) };
        let files = haproxy::files(&plan);
        let lines: Vec<_> = files[0].text.lines().filter_map(|line| line.strip_prefix("#   ")).collect();
        assert_eq!(lines.len(), 1, "{text:?}: {lines:?}");
        commands.push_str(&format!("set -- {}\nprintf '%s\\0' \"$@\" end-of-line\n", lines[0]));
        expected.push((text, plan));
    }
    for shell in ["sh", "bash"] {
        let printed = output(Command::new(shell).env("HOME", "/nobody"), &commands);
        let words: Vec<_> = printed.split_terminator('\0').map(str::to_owned).collect();
        let lines: Vec<_> =
            words.split(|word| word == "end-of-line").filter(|line| !line.is_empty()).collect();
        assert_eq!(lines.len(), expected.len());
        for (line, (text, plan)) in lines.iter().zip(&expected) {
            assert_eq!(line[0], plan.loader);
            assert_eq!(line[1..3], ["--plugin".to_owned(), plan.routes[0].artifact.clone()]);
            assert_same(&loaded(line), text);
        }
    }
}

/// What Kubernetes makes of an argument: `$(NAME)` becomes the variable's value if there is such a variable, `$$`
/// becomes `$`, and everything else stays.
fn expanded(argument: &str) -> String {
    let mut text = String::new();
    let mut rest = argument;
    while let Some(at) = rest.find('$') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match (rest.strip_prefix('$'), rest.strip_prefix('(').and_then(|rest| rest.split_once(')'))) {
            (Some(after), _) => {
                text.push('$');
                rest = after;
            }
            (None, Some(("HOME", after))) => {
                text.push_str("/nobody");
                rest = after;
            }
            _ => text.push('$'),
        }
    }
    text + rest
}

#[test]
fn a_pod_starts_the_loader_with_the_same_values() {
    assert_eq!(expanded("$(HOME) $$(HOME) $(NONE) $ a$$"), "/nobody $(HOME) $(NONE) $ a$");
    let (mut manifests, mut expected) = (String::new(), Vec::new());
    for text in texts() {
        let files = kubernetes::files(&plan(vec![with(&text, Router::Kubernetes).unwrap()]));
        assert_eq!(files.len(), 1);
        let documents = serde_yaml_ng::Deserializer::from_str(&files[0].text);
        let objects: Vec<Value> = documents.map(|one| Value::deserialize(one).unwrap()).collect();
        let kinds: Vec<_> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
        assert_eq!(
            kinds,
            ["Deployment", "Service", "Ingress", "PodDisruptionBudget", "HorizontalPodAutoscaler"]
        );
        let args = &objects[0]["spec"]["template"]["spec"]["containers"][0]["args"];
        let args: Vec<String> = Vec::deserialize(args).unwrap();
        assert_same(&loaded(&args.iter().map(|arg| expanded(arg)).collect::<Vec<_>>()), &text);
        manifests.push_str("\n---\n");
        manifests.push_str(files[0].text.split("\n---\n").next().unwrap());
        expected.push(args);
    }
    // A second parser, which is stricter about what a file may hold.
    let read = "import json, sys, yaml\n\
                objects = yaml.safe_load_all(sys.stdin.buffer)\n\
                pods = [o['spec']['template']['spec'] for o in objects if o]\n\
                print(json.dumps([pod['containers'][0]['args'] for pod in pods]))";
    if has("python3", &["-c", "import yaml"]) {
        let args: Vec<Vec<String>> =
            serde_json::from_str(&output(Command::new("python3").args(["-c", read]), &manifests)).unwrap();
        assert!(args == expected);
    }
}

#[test]
fn a_unit_starts_the_loader_with_the_same_values() {
    for text in texts() {
        let files = systemd::files(&plan(vec![with(&text, Router::Systemd).unwrap()]));
        assert_same(&object_of(file(&files, "etc/effe/a.json")), &text);
    }
}

/// A word as `systemd-analyze` shows it: in quotes if it needs them, with backslashes.
fn shown(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut is_quoted, mut chars) = (false, text.chars());
    while let Some(ch) = chars.next() {
        match ch {
            '"' => is_quoted = !is_quoted,
            '\\' => words.last_mut().unwrap().extend(chars.next()),
            ' ' if !is_quoted => words.push(String::new()),
            ch => words.last_mut().unwrap().push(ch),
        }
    }
    words
}

#[test]
fn systemd_finds_the_loader_whatever_its_path_holds() {
    if !has("systemd-analyze", &["--version"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no"]).env("SYSTEMD_LOG_LEVEL", "debug").current_dir(&directory);
    let mut loaders = BTreeMap::new();
    for text in texts() {
        let loader = format!("/opt/{text}/effe-loader");
        if loaders.len() == 30 || checks::loader(&loader, Router::Systemd).is_err() {
            continue;
        }
        let name = format!("effe@{}.service", loaders.len());
        let files = systemd::files(&Plan { loader: loader.clone(), ..plan(Vec::new()) });
        fs::write(directory.path().join(&name), file(&files, "effe@.service")).unwrap();
        command.arg(format!("./{name}"));
        loaders.insert(name, loader);
    }
    let shown_units = command.output().unwrap();
    let text = String::from_utf8_lossy(&shown_units.stdout).into_owned();
    let mut n_seen = 0;
    for unit in text.split("-> Unit ").skip(1) {
        let name = unit.split(':').next().unwrap();
        let Some(loader) = loaders.get(name) else { continue };
        let start = unit.split("-> ExecStart:").nth(1).unwrap_or_else(|| panic!("{loader:?}: {unit}"));
        let line = start.lines().find_map(|line| line.trim().strip_prefix("Command Line: ")).unwrap();
        assert_eq!(&shown(line)[0], loader, "{line}");
        n_seen += 1;
    }
    assert_eq!(n_seen, loaders.len(), "{text}");
}

#[test]
fn haproxy_takes_what_route_takes() {
    if !has("haproxy", &["-v"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let check = |plan: &Plan| {
        let path = directory.path().join("haproxy.cfg");
        fs::write(&path, &haproxy::files(plan)[0].text).unwrap();
        let output = Command::new("haproxy").args(["-c", "-f"]).arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("[WARNING]"), "{said}");
    };
    let letters = b"/a.-~_bZ0";
    let routes = AssertUnwindSafe(Mutex::new(Vec::new()));
    bolero::check!().with_iterations(500).with_type::<(Vec<u8>, Vec<u8>, bool)>().for_each(
        |(path, host, any)| {
            let text = |bytes: &[u8]| -> String {
                bytes
                    .iter()
                    .take(40)
                    .map(|byte| char::from(letters[usize::from(*byte) % letters.len()]))
                    .collect()
            };
            let path = format!("/{}", text(path));
            let host = checks::host(&text(host), Router::Haproxy).ok();
            if checks::path(&path).is_ok() && host.is_some() != *any {
                routes.lock().unwrap().push((path, host));
            }
        },
    );
    let mut hostile = texts().into_iter().filter_map(|text| with(&text, Router::Haproxy).ok());
    let long = with(&"x'".repeat(60_000), Router::Haproxy).unwrap();
    let routes = routes.0.into_inner().unwrap().into_iter().enumerate().map(|(n, (path, host))| {
        let set = hostile.next().map(|route| route.set).unwrap_or_default();
        let port = 10_000 + u16::try_from(n).unwrap();
        Route { path, host, port, set, replicas: 1, ..route(&format!("l{n}")) }
    });
    let routes: Vec<_> = routes.chain([Route { set: long.set, ..route("long") }]).collect();
    assert!(routes.len() > 20, "{}", routes.len());
    check(&plan(routes));
    for listen in ["*:8080", ":8080", "127.0.0.1:8080", "[::1]:65535", "localhost:1"] {
        check(&Plan { listen: checks::listen(listen).unwrap(), ..plan(vec![route("a")]) });
    }
}

#[test]
fn a_file_is_the_same_parameter_everywhere() {
    let directory = tempfile::tempdir().unwrap();
    for (n, content) in texts().into_iter().take(100).enumerate() {
        let path = directory.path().join(format!("it's {n}"));
        // As an editor leaves it: with a line feed at its end, or without.
        let ending = if n % 2 == 0 || content.ends_with('\n') { "\n" } else { "" };
        fs::write(&path, format!("{content}{ending}")).unwrap();
        let set = [("key".to_owned(), format!("@{}", path.display()))].into();
        let planned = |engine| {
            plan(vec![Route { set: parameters::read(&set, engine).unwrap(), replicas: 1, ..route("a") }])
        };

        let text = haproxy::files(&planned(Router::Haproxy)).remove(0).text;
        let line = text.lines().find_map(|line| line.strip_prefix("#   ")).unwrap();
        let words = output(&mut Command::new("sh"), &format!("set -- {line}\nprintf '%s\\0' \"$@\""));
        assert_eq!(words.split_terminator('\0').next_back(), Some(&*format!("key=@{}", path.display())));

        let files = kubernetes::files(&planned(Router::Kubernetes));
        assert!(file(&files, "a.yaml").contains("\n            - \"key=@/run/secrets/effe/key\"\n"));
        assert!(!file(&files, "a.yaml").contains("stringData") && files[1].is_secret);
        let secret: Value = serde_yaml_ng::from_str(file(&files, "a.secret.yaml")).unwrap();
        assert_eq!(secret["kind"], "Secret");
        assert_eq!(secret["stringData"], serde_json::json!({"key": format!("{content}\n")}));

        let files = systemd::files(&planned(Router::Systemd));
        assert_eq!(file(&files, "etc/effe/a.json"), "{}\n");
        assert_eq!(file(&files, "etc/effe/a.secrets/key"), format!("{content}\n"));
        assert!(files.iter().all(|file| file.is_secret == file.path.ends_with("a.secrets/key")));
        let unit = file(&files, "effe@a.service.d/lambda.conf");
        let lines = "\nLoadCredential=key:/etc/effe/a.secrets/key\nEnvironment=\"EFFE_SET=key=@%d/key\"\n";
        assert!(unit.contains(lines), "{unit}");
    }
    let relative = env::current_dir().unwrap().join("nowhere");
    assert!(!relative.exists());
    let set = [("key".to_owned(), "@nowhere".to_owned())].into();
    for engine in [Router::Haproxy, Router::Kubernetes, Router::Systemd] {
        let why = format!("{:#}", parameters::read(&set, engine).unwrap_err());
        assert!(why.contains("key=@nowhere") && why.contains("No such file"), "{why}");
    }
}
