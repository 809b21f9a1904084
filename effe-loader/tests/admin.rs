//! The admin listener: what it shows, what it can be told, and whom it doesn't listen to.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::Value;

use crate::support::{
    Connection, Counts, Loader, Reply, Scratch, Server,
    admin::{Question, ask, over},
    plugins::probe,
    wait_until,
};

const OWN: &str = "Host: localhost\r\n";

fn loader() -> Loader {
    Loader::of(probe()).args(["--admin", "127.0.0.1:0"])
}

/// A loader that hears those who have the token.
fn guarded(scratch: &Scratch) -> Loader {
    let file = scratch.write("token", "s3cret\n");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    loader().arg("--admin-token-file").arg(file)
}

fn post(server: &Server, target: &str, body: &str) -> Reply {
    let headers = "Host: localhost\r\nAuthorization: Bearer s3cret\r\n";
    ask(server.admin(), &Question { method: "POST", target, headers, body })
}

#[test]
fn without_the_flag_there_is_no_admin_listener() {
    let lines = Loader::of(probe()).serve().stop();
    assert!(!lines.iter().any(|line| line.contains("admin")), "{lines:#?}");
}

#[test]
fn the_state_is_json_and_the_info_is_the_lambdas() {
    let server = loader().serve();
    assert_eq!(server.get("/").status, 200);
    let state = server.state();
    assert_eq!((&state["state"], &state["reason"]), (&"ready".into(), &Value::Null));
    assert_eq!(state["address"], server.address.to_string());
    let generation = &state["generations"][0];
    assert_eq!((&state["generation"], &generation["number"]), (&1.into(), &1.into()));
    assert_eq!(generation["plugin"], probe().to_str().unwrap());
    assert_eq!((&generation["contexts"]["live"], &generation["contexts"]["idle"]), (&1.into(), &1.into()));
    assert_eq!(
        (&state["running"], &state["waiting"], &state["lost_threads"]),
        (&0.into(), &0.into(), &0.into())
    );
    let info: Value = serde_json::from_slice(&server.ask("/info").body).unwrap();
    assert_eq!(info["name"], "probe");
    server.stop();
}

#[test]
fn what_is_not_there_is_said_and_what_is_too() {
    let server = loader().serve();
    let reply = server.ask("/");
    assert_eq!(reply.status, 404);
    assert!(reply.text().contains("/state") && reply.text().contains("/rollback"), "{}", reply.text());
    let question = Question { method: "HEAD", target: "/health/liveness", headers: OWN, body: "" };
    assert_eq!(ask(server.admin(), &question).status, 200);
    let reply = server.ask("/drain");
    assert_eq!((reply.status, reply.text_header("allow")), (405, Some("POST")), "reading changes nothing");
    server.stop();
}

#[test]
fn a_foreign_host_and_a_foreign_origin_are_refused() {
    let scratch = Scratch::new();
    let server = guarded(&scratch).serve();
    let address = server.admin();
    let get =
        |headers: &str| ask(address, &Question { method: "GET", target: "/state", headers, body: "" }).status;
    for bad in ["evil.example", "evil.example:9090", "127.0.0.2", "localhost.evil.example"] {
        assert_eq!(get(&format!("Host: {bad}\r\n")), 403, "{bad}");
    }
    assert_eq!(get(&format!("Host: {address}\r\n")), 200);
    assert_eq!(get(&format!("Host: {address}\r\nOrigin: http://{address}\r\n")), 200);
    for bad in ["http://evil.example", "null", "http://localhost:1"] {
        let headers = format!("Host: {address}\r\nOrigin: {bad}\r\n");
        assert_eq!(get(&headers), 403, "{bad}");
        let headers = format!("{headers}Authorization: Bearer s3cret\r\n");
        let order = Question { method: "POST", target: "/drain", headers: &headers, body: "" };
        assert_eq!(ask(address, &order).status, 403, "the token is no help: {bad}");
    }
    assert_eq!(server.state()["state"], "ready");
    server.stop();
}

#[test]
fn an_order_needs_the_token() {
    let scratch = Scratch::new();
    let server = guarded(&scratch).serve();
    let order = |headers: &str| {
        let headers = format!("{OWN}{headers}");
        ask(
            server.admin(),
            &Question { method: "POST", target: "/log-level", headers: &headers, body: "debug" },
        )
    };
    for bad in [
        "",
        "Authorization: Bearer s3cre\r\n",
        "Authorization: Bearer s3crets\r\n",
        "Authorization: s3cret\r\n",
    ] {
        let reply = order(bad);
        assert_eq!((reply.status, reply.text_header("www-authenticate")), (401, Some("Bearer")), "{bad}");
    }
    assert_eq!(server.state()["log"]["level"], "info");
    assert_eq!(order("Authorization: Bearer s3cret\r\n").status, 200);
    assert_eq!(server.state()["log"]["level"], "debug");
    scratch.write("token", "another\n");
    assert_eq!(order("Authorization: Bearer s3cret\r\n").status, 401, "the token can be changed in place");
    assert_eq!(order("Authorization: Bearer another\r\n").status, 200);
    server.stop();
    let server = loader().serve();
    let reply = post(&server, "/drain", "");
    assert_eq!(reply.status, 403);
    assert!(reply.text().contains("--admin-token-file"), "{}", reply.text());
    server.stop();
}

#[test]
fn a_connection_that_is_refused_is_closed_and_keeps_nobody_out() {
    let scratch = Scratch::new();
    let server = guarded(&scratch).serve();
    let refused = [
        ("POST /drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 401),
        ("GET /state HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
        ("GET http://evil.example/state HTTP/1.1\r\nHost: localhost\r\n\r\n", 403),
    ];
    // As many as there are places.
    let connections: Vec<_> = (0..64)
        .map(|n| {
            let (request, status) = refused[n % refused.len()];
            let mut connection = Connection::open(server.admin());
            let reply = connection.send(request).reply();
            assert_eq!(reply.status, status, "{request}: {reply:?}");
            assert_eq!(reply.text_header("connection"), Some("close"), "{request}");
            connection
        })
        .collect();
    assert_eq!(server.ask("/state").status, 200);
    for mut connection in connections {
        assert!(connection.is_closed());
    }
    server.stop();
}

#[test]
fn an_address_that_others_reach_needs_the_token_for_everything() {
    let scratch = Scratch::new();
    let public = |loader: Loader| loader.args(["--admin", "0.0.0.0:0"]);
    let done = public(Loader::of(probe())).run().assert_code(2);
    assert!(done.stderr.contains("needs --admin-token-file"), "{}", done.stderr);
    let token = scratch.write("token", "s3cret");
    let server = public(Loader::of(probe())).arg("--admin-token-file").arg(token).serve();
    let mut address = server.admin();
    address.set_ip([127, 0, 0, 1].into());
    let get = |headers: &str| {
        ask(address, &Question { method: "GET", target: "/health/liveness", headers, body: "" }).status
    };
    assert_eq!(get(OWN), 401);
    assert_eq!(get(&format!("{OWN}Authorization: Bearer s3cret\r\n")), 200);
    assert_eq!(get("Host: 127.0.0.1\r\nAuthorization: Bearer s3cret\r\n"), 200);
    assert_eq!(get("Host: 10.0.0.1\r\nAuthorization: Bearer s3cret\r\n"), 403);
    server.stop();
}

#[test]
fn a_token_that_everybody_may_read_is_warned_of_and_an_empty_one_refused() {
    let scratch = Scratch::new();
    let token = scratch.write("token", "s3cret");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    let server = loader().arg("--admin-token-file").arg(&token).serve();
    server.wait_for_line("every user of this machine may read");
    server.stop();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let lines = loader().arg("--admin-token-file").arg(&token).serve().stop();
    assert!(!lines.iter().any(|line| line.contains("may read")), "{lines:#?}");
    for (file, expected) in
        [(scratch.write("empty", " \n"), "it holds no token"), (scratch.join("none"), "No such file")]
    {
        let done = loader().arg("--admin-token-file").arg(file).run().assert_code(2);
        assert!(done.stderr.contains(expected), "{}", done.stderr);
    }
    let done = Loader::of(probe()).arg("--admin-token-file").arg(&token).run().assert_code(2);
    assert!(done.stderr.contains("--admin-token-file is for --admin"), "{}", done.stderr);
}

#[test]
fn a_unix_socket_is_its_own_lock_and_goes_with_the_loader() {
    let (scratch, counts) = (Scratch::new(), Counts::new());
    let socket = scratch.join("admin.sock");
    let bind = |loader: Loader| loader.arg("--admin").arg(format!("unix:{}", socket.display()));
    let server = bind(Loader::of(probe())).counting(&counts).serve();
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let answer = over(&socket, "GET /state HTTP/1.1\r\nHost: effe\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answer = over(
        &socket,
        "POST /drain HTTP/1.1\r\nHost: effe\r\nOrigin: http://evil.example\r\nConnection: close\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    // A second loader must not take the socket away from the first.
    let done = bind(Loader::of(probe())).args(["--host", "127.0.0.1", "--port", "0"]).run().assert_code(1);
    assert!(done.stderr.contains("cannot listen on --admin unix:"), "{}", done.stderr);
    let answer = over(&socket, "POST /drain HTTP/1.1\r\nHost: effe\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    server.ends_with(0);
    assert!(!socket.exists());
    counts.assert_complete();
    // What one that was killed has left behind is no obstacle.
    drop(bind(Loader::of(probe())).serve());
    assert!(socket.exists());
    bind(Loader::of(probe())).serve().stop();
    assert!(!socket.exists());
    // A file that is no socket stays.
    fs::write(&socket, "precious").unwrap();
    bind(Loader::of(probe())).args(["--host", "127.0.0.1", "--port", "0"]).run().assert_code(1);
    assert_eq!(fs::read_to_string(&socket).unwrap(), "precious");
}

#[test]
fn a_drain_that_is_ordered_is_a_drain() {
    let (scratch, counts) = (Scratch::new(), Counts::new());
    let server = guarded(&scratch).counting(&counts).serve();
    let mut waiting = server.connect();
    let gate = scratch.join("gate");
    waiting.send(format!("GET /wait?for={} HTTP/1.1\r\nHost: test\r\n\r\n", gate.display()));
    counts.wait_for("run", 1);
    assert_eq!(post(&server, "/drain", "").status, 202);
    wait_until("it drains", || server.state()["state"] == "draining");
    scratch.write("gate", "");
    let reply = waiting.reply();
    assert_eq!((reply.status, reply.text_header("connection")), (200, Some("close")));
    server.ends_with(0);
    counts.assert_complete();
}

#[test]
fn the_logs_level_can_be_changed_while_it_serves() {
    let scratch = Scratch::new();
    let server = guarded(&scratch).serve();
    server.get("/log?level=debug&text=before");
    assert_eq!(post(&server, "/log-level", " debug\n").status, 200);
    server.get("/log?level=debug&text=after");
    server.wait_for_line("after");
    assert!(!server.lines().iter().any(|line| line.contains("before")));
    let reply = post(&server, "/log-level", "verbose");
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("write critical, error, warning"), "{}", reply.text());
    assert_eq!(post(&server, "/log-level", &"x".repeat(2000)).status, 413);
    server.stop();
}

#[test]
fn a_swap_reloads_the_file_that_the_loader_was_started_with() {
    let scratch = Scratch::new();
    let plugin = scratch.join("libprobe.so");
    fs::copy(probe(), &plugin).unwrap();
    let file = scratch.write("token", "s3cret");
    let loader = Loader::of(&plugin).args(["--admin", "127.0.0.1:0"]).arg("--admin-token-file").arg(file);
    let params = scratch.write("params.json", r#"{"greeting": "one"}"#);
    let server = loader.arg("--params").arg(&params).serve();
    let changed = |reply: &Reply| -> Value { serde_json::from_slice(&reply.body).unwrap() };
    let reply = post(&server, "/swap", "");
    assert_eq!((reply.status, &changed(&reply)["swapped"]), (200, &false.into()), "nothing has changed");
    scratch.write("params.json", r#"{"greeting": "two"}"#);
    let reply = post(&server, "/swap", "/etc/passwd");
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!((&changed(&reply)["swapped"], &changed(&reply)["generation"]), (&true.into(), &2.into()));
    assert_eq!(server.state()["generation"], 2);
    assert!(server.get("/parameters").text().contains("two"));
    let reply = post(&server, "/rollback", "");
    assert_eq!((reply.status, &changed(&reply)["generation"]), (200, &1.into()));
    assert!(server.get("/parameters").text().contains("one"));
    fs::write(&plugin, "not a plugin").unwrap();
    let reply = post(&server, "/swap", "");
    assert_eq!(reply.status, 422);
    assert!(reply.text().contains("cannot load"), "{}", reply.text());
    assert_eq!(server.get("/").status, 200, "the old one serves on");
    server.stop();
}
