use clap::Parser;

use super::*;
use crate::{
    cli::{Cli, Command},
    serving::STOP_TIMEOUT,
};

fn names() -> Vec<String> {
    ["hello", "shop"].map(str::to_owned).to_vec()
}

fn nothing_said() -> RouteArgs {
    match Cli::try_parse_from(["effe-tool", "route", "haproxy", "x"]).unwrap().command {
        Command::Route(args) => args,
        _ => unreachable!("it is route that was asked for"),
    }
}

fn route(name: &str) -> Route {
    Route {
        name: name.to_owned(),
        version: Some("1.0.0".to_owned()),
        artifact: format!("/srv/{name}.so").into(),
        kind: Kind::Plugin,
        path: format!("/{name}"),
        host: None,
        port: 7050,
        replicas: 2,
        cpu: "100m".to_owned(),
        memory: "64Mi".to_owned(),
        image: format!("{name}:1.0.0"),
        set: BTreeMap::new(),
    }
}

#[test]
fn flags_speak_of_all_or_of_one() {
    let args = RouteArgs {
        hosts: vec!["a.example".to_owned(), "shop=b.example".to_owned()],
        replicas: vec!["3".to_owned()],
        set: vec!["shop.item=tea".to_owned(), "a.b=c=d".to_owned()],
        ..nothing_said()
    };
    let flags = Flags::of(&args, &names()).unwrap();
    assert_eq!((flags.all.host.as_deref(), flags.all.replicas), (Some("a.example"), Some(3)));
    assert_eq!(flags.lambdas["shop"].host.as_deref(), Some("b.example"));
    assert_eq!(flags.lambdas["shop"].set["item"], "tea");
    assert_eq!(flags.all.set["a.b"], "c=d", "no lambda is called a");
}

#[test]
fn what_would_end_a_word_or_a_line_is_refused() {
    for path in ["", "hello", "/a/", "//", "/a b", "/a\nbackend x", "/a'", "/é"] {
        assert!(Route { path: path.to_owned(), ..route("a") }.check().is_err(), "{path:?}");
    }
    for host in ["", "a b", "-a", "a..b", "a\n", "a/b", "a:80"] {
        assert!(Route { host: Some(host.to_owned()), ..route("a") }.check().is_err(), "{host:?}");
    }
    assert!(Route { image: "a\nb".to_owned(), ..route("a") }.check().is_err());
    route("a").check().unwrap();
}

#[test]
fn whatever_may_be_routed_adds_no_line_to_a_configuration() {
    let lines = |route: Route| {
        let plan =
            Plan { listen: "*:80".to_owned(), loader: "/bin/effe-loader".to_owned(), routes: vec![route] };
        let files = [haproxy::files(&plan), kubernetes::files(&plan), systemd::files(&plan)].concat();
        files.iter().map(|file| file.text.lines().count()).collect::<Vec<_>>()
    };
    let plain = |name: &str, host: bool| Route {
        host: host.then(|| "a.example".to_owned()),
        set: [("key".to_owned(), "value".to_owned())].into(),
        ..route(name)
    };
    bolero::check!().with_type::<(Vec<u8>, Vec<u8>, String, bool)>().for_each(|(path, host, value, any)| {
        let letters = b"/a.-~_b1 \n'\"{}";
        let text = |bytes: &[u8]| -> String {
            bytes.iter().map(|byte| char::from(letters[usize::from(*byte) % letters.len()])).collect()
        };
        let hostile = Route {
            path: format!("/{}", text(path)),
            host: any.then(|| text(host)),
            set: [("key".to_owned(), value.clone())].into(),
            ..route("a")
        };
        // A line feed in a parameter may be one in its JSON or YAML, and nowhere else.
        if hostile.check().is_ok() && hostile.path != "/" {
            assert_eq!(lines(hostile), lines(plain("a", *any)), "{path:?} {host:?} {value:?}");
        }
    });
}

#[test]
fn two_lambdas_are_not_in_each_others_way() {
    let (one, two) = (route("one"), Route { port: 7052, ..route("two") });
    two.check_against(&one).unwrap();
    let clash = |two: Route| two.check_against(&one).unwrap_err().to_string();
    assert!(clash(Route { port: 7051, ..two.clone() }).contains("share port 7051"));
    assert!(clash(Route { path: "/one".to_owned(), ..two.clone() }).contains("--path"));
    assert!(clash(Route { name: "one".to_owned(), ..two }).contains("both called one"));
}

#[test]
fn a_parameter_stays_a_parameter() {
    let hostile = "x'; rm -rf /\n# \"$(id)\": {}";
    let plan = Plan {
        listen: "*:80".to_owned(),
        loader: "/bin/effe-loader".to_owned(),
        routes: vec![Route { set: [("key".to_owned(), hostile.to_owned())].into(), ..route("a") }],
    };
    let text = &haproxy::files(&plan)[0].text;
    assert!(text.lines().filter(|line| line.contains("rm -rf")).all(|line| line.starts_with('#')), "{text}");
    let text = &kubernetes::files(&plan)[0].text;
    let quoted = serde_json::Value::from(format!("key={hostile}")).to_string();
    assert!(text.contains(&format!("\n            - {quoted}\n")), "{text}");
    let files = systemd::files(&plan);
    let parameters: serde_json::Value = files
        .iter()
        .find(|file| file.path.ends_with("a.json"))
        .map(|file| serde_json::from_str(&file.text).unwrap())
        .unwrap();
    assert_eq!(parameters["key"], hostile);
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
fn systemd_waits_for_a_loader_as_long_as_the_tool_does() {
    let plan = Plan { listen: "*:80".to_owned(), loader: LOADER.to_owned(), routes: Vec::new() };
    let unit = &systemd::files(&plan)[0].text;
    assert!(unit.contains(&format!("\nTimeoutStopSec={}\n", STOP_TIMEOUT.as_secs())), "{unit}");
}

#[test]
fn no_lambda_has_the_name_of_the_backend_for_unknown_paths() {
    for name in ["nobody", "not-found"] {
        let plan = Plan { listen: "*:80".to_owned(), loader: LOADER.to_owned(), routes: vec![route(name)] };
        let text = &haproxy::files(&plan)[0].text;
        let mut backends: Vec<_> = text.lines().filter(|line| line.starts_with("backend ")).collect();
        backends.dedup();
        assert_eq!(backends, [format!("backend {name}").as_str(), "backend not_found"]);
    }
}
