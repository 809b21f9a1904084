mod hostile;

use clap::Parser;

use super::*;
use crate::{
    cli::{Cli, Command},
    serving::STOP_TIMEOUT,
};

fn names() -> Vec<String> {
    ["hello", "shop"].map(str::to_owned).to_vec()
}

fn route(name: &str) -> Route {
    Route {
        name: name.to_owned(),
        version: Some("1.0.0".to_owned()),
        artifact: format!("/srv/{name}.so"),
        kind: Kind::Plugin,
        path: format!("/{name}"),
        host: None,
        port: 7050,
        replicas: 2,
        cpu: "100m".to_owned(),
        memory: "64Mi".to_owned(),
        image: format!("{name}:1.0.0"),
        data: None,
        storage: STORAGE.to_owned(),
        set: Parameters::new(),
    }
}

fn plan(routes: Vec<Route>) -> Plan {
    Plan {
        listen: checks::listen("*:80").unwrap(),
        loader: LOADER.to_owned(),
        routes,
        sleep: None,
        kustomize: false,
    }
}

/// A file of an engine's configuration.
fn file<'a>(files: &'a [File], end: &str) -> &'a str {
    let file = files.iter().find(|file| file.path.to_string_lossy().ends_with(end));
    &file.unwrap_or_else(|| panic!("there is no {end}")).text
}

/// What a plan has for lambdas of these names, by flags and `effe.toml`.
fn planned(args: &RouteArgs, settings: &str, names: &[&str]) -> Result<Vec<Route>> {
    let settings = toml::from_str(settings).unwrap();
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let inputs = Inputs {
        engine: args.router,
        flags: Flags::of(args, &names)?,
        settings: &settings,
        registry: args.registry.as_deref(),
    };
    let artifact = Artifact::for_tests();
    let lambda = |name: &String| Lambda {
        name: name.clone(),
        artifact: &artifact,
        info: Info::of_package(name, "1.0.0+build.5"),
    };
    inputs.routes(&names.iter().map(lambda).collect::<Vec<_>>())
}

fn args(line: &[&str]) -> RouteArgs {
    let line = ["effe-tool", "route"].iter().chain(line).chain(&["x"]);
    match Cli::try_parse_from(line).unwrap().command {
        Command::Route(args) => args,
        _ => unreachable!("it is route that was asked for"),
    }
}

#[test]
fn flags_speak_of_all_or_of_one() {
    let args = RouteArgs {
        hosts: vec!["a.example".to_owned(), "shop=b.example".to_owned()],
        replicas: vec!["3".to_owned()],
        set: vec!["shop.item=tea".to_owned(), "a.b=c=d".to_owned()],
        ..args(&["haproxy"])
    };
    let flags = Flags::of(&args, &names()).unwrap();
    assert_eq!((flags.all.host.as_deref(), flags.all.replicas), (Some("a.example"), Some(3)));
    assert_eq!(flags.lambdas["shop"].host.as_deref(), Some("b.example"));
    assert_eq!(flags.lambdas["shop"].set["item"], "tea");
    assert_eq!(flags.all.set["a.b"], "c=d", "no lambda is called a");
}

/// Why a plan is refused.
#[track_caller]
fn refusal(line: &[&str], settings: &str, names: &[&str]) -> String {
    format!("{:#}", planned(&args(line), settings, names).expect_err("it is refused"))
}

#[test]
fn what_no_engine_takes_is_refused_with_the_reason() {
    for engine in ["haproxy", "kubernetes"] {
        assert!(refusal(&[engine, "--path", "/a b"], "", &["a"]).contains("write it as /hello"));
        assert!(refusal(&[engine, "--host", "a:80"], "", &["a"]).contains("without port"));
        assert!(refusal(&[engine, "--replicas", "0"], "", &["a"]).contains("0 replicas serve nothing"));
        assert!(refusal(&[engine], "[all]\nmemory = \"64MB\"", &["a"]).contains("write it as 64Mi"));
        assert!(refusal(&[engine], "[all]\ncpu = \"fast\"", &["a"]).contains("250m"));
        assert!(refusal(&[engine, "--set", "a\nb=1"], "", &["a"]).contains("control character"));
        assert!(refusal(&[engine, "--set", "a=\0"], "", &["a"]).contains("NUL"));
        assert!(
            refusal(&[engine, "--set", &format!("a={}", "x".repeat(131_072))], "", &["a"])
                .contains("a=@FILE")
        );
    }
    assert!(
        refusal(&["kubernetes", "--registry", "https://r.example"], "", &["a"]).contains("without https://")
    );
    assert!(refusal(&["kubernetes", "--registry", "r.example/Team"], "", &["a"]).contains("lower case"));
    assert!(refusal(&["kubernetes", "--host", "10.0.0.1"], "", &["a"]).contains("no IP address"));
    assert!(refusal(&["haproxy", "--set", "a=[1,\n2]"], "", &["a"]).contains("JSON on several lines"));
    assert!(refusal(&["systemd", "--data", "/data"], "", &["a"]).contains("write /var/lib/effe/data/a"));
    assert!(refusal(&["systemd", "--set", "a=@nowhere"], "", &["a"]).contains("parameter a=@nowhere"));
}

#[test]
fn ports_end_at_65535() {
    let ports = |line: &[&str], names: &[&str]| {
        let routes = planned(&args(line), "", names);
        routes.map(|routes| routes.iter().map(Route::ports).collect::<Vec<_>>())
    };
    assert_eq!(ports(&["haproxy", "--port", "65534"], &["a"]).unwrap(), [65534..=65535]);
    assert_eq!(ports(&["systemd", "--port", "65534"], &["a", "b"]).unwrap(), [65534..=65534, 65535..=65535]);
    assert!(refusal(&["haproxy", "--port", "65535"], "", &["a"]).contains("from 65535 to 65535"));
    assert!(refusal(&["haproxy", "--port", "65534"], "", &["a", "b"]).contains("port 0"));
    assert!(refusal(&["haproxy", "--port", "0"], "", &["a"]).contains("the port 0"));
    assert!(refusal(&["haproxy", "--port", "70000"], "", &["a"]).contains("--port 70000"));
}

#[test]
fn haproxy_has_a_port_that_no_loader_has() {
    let with =
        |listen| Plan { listen: checks::listen(listen).unwrap(), ..plan(vec![route("a")]) }.check_listen();
    with("*:7049").and_then(|()| with("*:7052")).unwrap();
    assert!(with("*:7051").unwrap_err().to_string().contains("a loader of a share the port 7051"));
}

#[test]
fn a_path_for_all_lambdas_is_for_one_that_is_alone() {
    for settings in ["", "[all]\npath = \"/x\""] {
        let line: &[&str] = if settings.is_empty() { &["haproxy", "--path", "/x"] } else { &["haproxy"] };
        assert_eq!(planned(&args(line), settings, &["a"]).unwrap()[0].path, "/x");
        let why = refusal(line, settings, &["a", "b"]);
        assert!(why.contains("the path /x is for one lambda") && why.contains("--path NAME=/x"), "{why}");
    }
    assert!(
        refusal(&["kubernetes"], "[all]\nimage = \"x:1\"", &["a", "b"]).contains("the image x:1 is for one")
    );
}

#[test]
fn a_flag_of_another_engine_is_refused() {
    let cases = [
        ("haproxy", "--registry", "r.example"),
        ("kubernetes", "--listen", "*:80"),
        ("kubernetes", "--port", "7050"),
        ("kubernetes", "--sleep=5m", ""),
        ("systemd", "--replicas", "2"),
        ("systemd", "--host", "a.example"),
        ("systemd", "--path", "a=/x"),
        ("systemd", "--listen", "*:80"),
    ];
    for (engine, flag, value) in cases {
        let given: Vec<&str> = [engine, flag, value].into_iter().filter(|arg| !arg.is_empty()).collect();
        let why = refusal(&given, "", &["a"]);
        let flag = flag.split('=').next().unwrap();
        assert!(why.contains(&format!("{flag} is not for {engine}")), "{why}");
    }
    // The file is for all engines.
    planned(&args(&["systemd"]), "listen = \"*:80\"\n[all]\nreplicas = 2\n[lambda.a]\npath = \"/x\"", &["a"])
        .unwrap();
}

#[test]
fn a_version_becomes_a_tag_and_a_label_that_are_allowed() {
    let routes = planned(&args(&["kubernetes", "--registry", "r.example/team/"]), "", &["a"]).unwrap();
    assert_eq!(routes[0].image, "r.example/team/a:1.0.0_build.5");
    let files = kubernetes::files(&plan(routes));
    let text = file(&files, "a.yaml");
    assert!(text.contains("\n    app.kubernetes.io/version: \"1.0.0_build.5\"\n"), "{text}");
}

#[test]
fn a_name_of_any_letters_becomes_one_that_engines_take() {
    let artifact = Artifact::for_tests();
    let name = |text: &str| name(&artifact, &Info::of_package(text, "1")).unwrap();
    assert_eq!(
        [name("Hello_World"), name("café"), name("1st"), name("_a_")],
        ["hello-world", "xn--caf-dma", "effe-1st", "a"]
    );
}

#[test]
fn data_has_a_directory_for_each_lambda() {
    let data = |line: &[&str], settings: &str| {
        let routes = planned(&args(line), settings, &["a", "b"]).unwrap();
        routes.into_iter().map(|route| (route.data, route.replicas)).collect::<Vec<_>>()
    };
    let in_var = |name: &str| Some(format!("/var/lib/effe/{name}"));
    let expected = [(in_var("a"), 1), (in_var("b"), 1)];
    assert_eq!(data(&["systemd", "--data", "/var/lib/effe"], ""), expected);
    assert_eq!(data(&["kubernetes", "--data", "/var/lib/effe/"], ""), expected);
    assert_eq!(data(&["haproxy", "--data", "/var/lib/effe"], ""), [(in_var("a"), 2), (in_var("b"), 2)]);
    assert_eq!(
        data(&["kubernetes"], "[lambda.a]\ndata = \"/data\""),
        [(Some("/data".to_owned()), 1), (None, 2)]
    );
    let why = refusal(&["kubernetes", "--data", "a=/data", "--replicas", "2"], "", &["a"]);
    assert!(why.contains("one pod at a time"), "{why}");
    let why = refusal(&["haproxy", "--data", "/srv", "--set", "data=x"], "", &["a"]);
    assert!(why.contains("`data` is set"), "{why}");
}

#[test]
fn data_is_kept_by_each_engine() {
    let with_data = |line: &[&str]| plan(planned(&args(line), "", &["a"]).unwrap());
    let files = systemd::files(&with_data(&["systemd", "--data", "/var/lib/effe"]));
    let unit = file(&files, "effe@a.service.d/lambda.conf");
    assert!(unit.contains("\nStateDirectory=effe/a\nStateDirectoryMode=0700\n"), "{unit}");
    assert!(file(&files, "a.json").contains("\"data\": \"/var/lib/effe/a\""));
    let files = kubernetes::files(&with_data(&["kubernetes", "--data", "a=/data"]));
    let text = file(&files, "a.yaml");
    for part in [
        "- \"data=/data\"\n",
        "mountPath: /data\n",
        "kind: PersistentVolumeClaim\n",
        "claimName: a\n",
        "fsGroup: 65532\n",
        "type: Recreate\n",
        "  replicas: 1\n",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    assert!(!text.contains("HorizontalPodAutoscaler\nmeta"), "{text}");
    let files = haproxy::files(&with_data(&["haproxy", "--data", "/srv"]));
    assert!(
        files[0].text.contains(" --set data=/srv/a\n")
            && files[0].text.contains("a keeps its data in /srv/a")
    );
}

#[test]
fn a_program_with_the_loader_in_it_is_started_as_one() {
    let files = systemd::files(&plan(vec![Route { kind: Kind::Executable, ..route("a") }]));
    let unit = file(&files, "effe@a.service.d/lambda.conf");
    let command = "\nExecStart=\nExecStart=/usr/local/lib/effe/a --admin unix:/run/effe-%i/admin.sock\n";
    assert!(unit.contains(command), "{unit}");
    assert!(file(&files, "address.conf").contains("install -D /srv/a.so /usr/local/lib/effe/a\n"));
}

#[test]
fn a_router_says_which_path_it_removes() {
    let with_path = |path: &str| plan(vec![Route { path: path.to_owned(), ..route("a") }]);
    let text = &haproxy::files(&with_path("/a.b/c"))[0].text;
    assert!(text.contains("\n    http-request set-header X-Forwarded-Prefix /a.b/c\n"), "{text}");
    // A client can't say it in the router's place.
    let text = &haproxy::files(&with_path("/"))[0].text;
    assert!(text.contains("\n    http-request del-header X-Forwarded-Prefix\n"), "{text}");
    for path in ["/a.b/c", "/"] {
        let text = &kubernetes::files(&with_path(path))[0].text;
        assert!(
            text.contains(&format!("haproxy.org/request-set-header: \"X-Forwarded-Prefix {path}\"\n")),
            "{text}"
        );
    }
}

#[test]
fn two_lambdas_are_not_in_each_others_way() {
    let (one, two) = (route("one"), Route { port: 7052, ..route("two") });
    two.check_against(&one, Router::Haproxy).unwrap();
    let clash = |two: Route| two.check_against(&one, Router::Haproxy).unwrap_err().to_string();
    assert!(clash(Route { port: 7051, ..two.clone() }).contains("share port 7051"));
    assert!(clash(Route { path: "/one".to_owned(), ..two.clone() }).contains("--path"));
    assert!(clash(Route { name: "one".to_owned(), ..two }).contains("both called one"));
}

#[test]
fn settings_are_understood_or_refused() {
    let text =
        "listen = \"*:80\"\n[all]\nreplicas = 3\n[lambda.shop]\npath = \"/\"\nset = { item = \"tea\" }\n";
    let settings: Settings = toml::from_str(text).unwrap();
    assert_eq!((settings.all.replicas, settings.lambdas["shop"].path.as_deref()), (Some(3), Some("/")));
    let err = toml::from_str::<Settings>("[lambda.shop]\nreplica = 3\n").unwrap_err().to_string();
    assert!(err.contains("replica") && err.contains("line 2"), "{err}");
}

#[test]
fn a_loader_that_sleeps_is_started_by_its_socket_alone() {
    let awake = systemd::files(&plan(vec![route("a")]));
    assert!(!awake.iter().any(|file| file.text.contains("IDLE_EXIT") || file.text.contains("StartLimit")));
    assert!(file(&awake, "address.conf").contains("systemctl enable --now effe@a.socket effe@a.service\n"));
    let files = systemd::files(&Plan { sleep: Some("90s".to_owned()), ..plan(vec![route("a")]) });
    assert!(file(&files, "effe/a.env").ends_with("EFFE_IDLE_EXIT=90s\n"));
    assert!(file(&files, "effe@a.service.d/sleep.conf").ends_with("[Unit]\nStartLimitIntervalSec=0\n"));
    assert!(file(&files, "address.conf").contains("systemctl enable --now effe@a.socket\n"));
    for bad in ["", "soon", "5", "0s", "5 m", "5m\nX=y"] {
        assert!(checks::time(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn systemd_waits_for_a_loader_as_long_as_the_tool_does() {
    let unit = &systemd::files(&plan(Vec::new()))[0].text;
    assert!(unit.contains(&format!("\nTimeoutStopSec={}\n", STOP_TIMEOUT.as_secs())), "{unit}");
}

#[test]
fn no_lambda_has_the_name_of_the_backend_for_unknown_paths() {
    for name in ["nobody", "not-found"] {
        let text = &haproxy::files(&plan(vec![route(name)]))[0].text;
        let mut backends: Vec<_> = text.lines().filter(|line| line.starts_with("backend ")).collect();
        backends.dedup();
        assert_eq!(backends, [format!("backend {name}").as_str(), "backend not_found"]);
    }
}
