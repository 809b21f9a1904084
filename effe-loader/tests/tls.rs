//! TLS: certificates that are good, bad and replaced, clients that shake hands and those that don't.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::support::{
    Counts, LONG, Loader, Scratch, Server,
    plugins::{async_probe, pipe, probe, spout, succeed},
    tls::{Pair, connect},
    wait_until,
};

fn curl(server: &Server, pair: &Pair, args: &[&str], target: &str) -> (bool, String) {
    let address = server.address;
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "30", "--cacert"]).arg(&pair.cert);
    curl.args(["--resolve", &format!("localhost:{}:127.0.0.1", address.port())]).args(args);
    let output = curl.arg(format!("https://localhost:{}{target}", address.port())).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[test]
fn requests_are_answered_over_tls_on_all_listeners() {
    let (counts, scratch) = (Counts::new(), Scratch::new());
    let pair = Pair::new(&scratch, "a");
    let path = scratch.join("effe.sock");
    let unix = format!("unix:{}", path.display());
    let loader = pair.of(Loader::of(probe()).counting(&counts));
    let server = loader.args(["--listen", "127.0.0.1:0", "--listen", &unix]).serve_as_told();
    server.wait_for_line("listening on https://127.0.0.1:");
    for version in [["--tlsv1.2", "--tls-max", "1.2"], ["--tlsv1.3", "--tls-max", "1.3"]] {
        assert_eq!(curl(&server, &pair, &version, "/"), (true, "ok".to_owned()), "{version:?}");
    }
    assert_eq!(curl(&server, &pair, &["--http1.1", "-d", "a=b"], "/body"), (true, "a=b".to_owned()));
    let over_unix = ["--unix-socket", path.to_str().unwrap()];
    assert_eq!(curl(&server, &pair, &over_unix, "/"), (true, "ok".to_owned()));
    let mut kept = connect(server.address, &pair.client(&[])).unwrap();
    for _ in 0..3 {
        assert_eq!(kept.get("/").text(), "ok", "the connection is kept");
    }
    let (worked, text) = curl(&server, &Pair::new(&scratch, "b"), &[], "/");
    assert!(!worked, "another certificate is not believed: {text}");
    server.stop();
    counts.assert_complete();
}

#[cfg(feature = "processes")]
#[test]
fn a_process_that_crashes_closes_its_connections_and_the_next_ones_are_served() {
    let scratch = Scratch::new();
    let pair = Pair::new(&scratch, "a");
    let server = pair
        .of(Loader::of(crate::support::plugins::crasher()).args(["--processes", "2", "--workers", "1"]))
        .serve();
    for _ in 0..3 {
        let since = Instant::now();
        let (worked, text) = curl(&server, &pair, &[], "/crash/segv");
        assert!(!worked, "its connection can't go on elsewhere: {text}");
        // Nobody keeps it open, either.
        assert!(since.elapsed() < LONG / 2);
        assert!(curl(&server, &pair, &[], "/answer").0);
    }
    server.stop();
}

#[cfg(feature = "processes")]
#[test]
fn an_upgrade_needs_a_certificate_that_is_valid_and_loses_no_client() {
    let scratch = Scratch::new();
    let pair = Pair::new(&scratch, "a");
    let server = pair.of(Loader::of(probe()).args(["--processes", "2", "--workers", "1"])).serve();
    let client = pair.client(&[]);
    let mut kept = connect(server.address, &client).unwrap();
    assert_eq!(kept.get("/").status, 200);
    let good = std::fs::read(&pair.cert).unwrap();
    std::fs::write(&pair.cert, "no certificate").unwrap();
    server.signal(Signal::USR2);
    let line = server.wait_for_line("can't upgrade: ");
    assert!(line.contains("--tls-cert") && line.contains("this loader goes on"), "{line}");
    assert_eq!(kept.get("/").status, 200);
    std::fs::write(&pair.cert, good).unwrap();
    server.signal(Signal::USR2);
    let is_over =
        || server.lines().iter().any(|line| line.contains("goes on in the place of the one before"));
    let mut n = 0;
    while n < 20 || !is_over() {
        let mut one = connect(server.address, &client).unwrap();
        assert_eq!(one.get("/").status, 200);
        n += 1;
    }
    server.stop();
}

#[cfg(feature = "processes")]
#[test]
fn a_crash_ends_the_other_connections_and_leaves_nobody_without_a_reader() {
    let scratch = Scratch::new();
    let pair = Pair::new(&scratch, "a");
    let server = pair
        .of(Loader::of(crate::support::plugins::crasher()).args(["--processes", "1", "--workers", "1"]))
        .serve();
    let client = pair.client(&[]);
    let mut kept = connect(server.address, &client).unwrap();
    assert_eq!(kept.get("/answer").status, 200);
    // It is accepted, and has not said anything.
    let silent = TcpStream::connect(server.address).unwrap();
    silent.set_read_timeout(Some(LONG)).unwrap();
    assert!(!curl(&server, &pair, &[], "/crash/segv").0);
    let end = kept.try_reply(false).unwrap_err();
    assert_ne!(end.kind(), std::io::ErrorKind::WouldBlock, "its process is dead");
    let end = (&silent).read(&mut [0]);
    assert!(!end.is_err_and(|err| err.kind() == std::io::ErrorKind::WouldBlock), "nobody keeps it");
    assert!(curl(&server, &pair, &[], "/answer").0);
    server.stop();
}

#[test]
fn a_lambda_is_told_that_the_connection_is_encrypted() {
    let scratch = Scratch::new();
    let pair = Pair::new(&scratch, "a");
    let versions: &[&str] = if cfg!(feature = "http2") { &["--http1.1", "--http2"] } else { &["--http1.1"] };
    for execution in ["inline", "pool"] {
        let execution = ["--execution", execution];
        for (plugin, target, says) in
            [(probe(), "/scheme", "https"), (async_probe(), "/scheme?0", "https https")]
        {
            let server = pair.of(Loader::of(plugin.clone()).args(execution)).serve();
            for version in versions {
                // A proxy in front may say what it likes.
                let args = [version, "-H", "X-Forwarded-Proto: http"];
                assert_eq!(
                    curl(&server, &pair, &args, target),
                    (true, says.to_owned()),
                    "{execution:?} {version}"
                );
            }
            server.stop();
            let server = Loader::of(plugin).args(execution).serve();
            assert_eq!(server.get(target).text(), says.replace("https", "http"));
            server.stop();
        }
    }
}

#[test]
fn certificates_and_keys_of_all_usual_forms_are_taken() {
    let scratch = Scratch::new();
    let openssl = |args: &[&str]| {
        succeed(Command::new("openssl").args(args).current_dir(scratch.path()));
    };
    openssl(&["genrsa", "-traditional", "-out", "pkcs1.key", "2048"]);
    openssl(&["pkcs8", "-topk8", "-nocrypt", "-in", "pkcs1.key", "-out", "pkcs8.key"]);
    openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-out", "sec1.key"]);
    for (name, begins) in [("pkcs1", "RSA PRIVATE"), ("pkcs8", "PRIVATE"), ("sec1", "EC P")] {
        let pair =
            Pair { cert: scratch.join(&format!("{name}.crt")), key: scratch.join(&format!("{name}.key")) };
        assert!(fs::read_to_string(&pair.key).unwrap().contains(&format!("-----BEGIN {begins}")));
        let (key, cert) = (pair.key.to_str().unwrap(), pair.cert.to_str().unwrap());
        let subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
        openssl(&[&["req", "-x509", "-key", key, "-out", cert], &subject[..]].concat());
        let server = pair.of(Loader::of(probe())).serve();
        assert_eq!(curl(&server, &pair, &[], "/"), (true, "ok".to_owned()), "{name}");
        server.stop();
    }
}

#[test]
fn a_pair_that_is_none_is_refused_in_one_line() {
    let scratch = Scratch::new();
    let (good, other) = (Pair::new(&scratch, "good"), Pair::new(&scratch, "other"));
    let empty = scratch.write("empty", "nothing");
    let refused = |cert: &Path, key: &Path| {
        let pair = Pair { cert: cert.to_owned(), key: key.to_owned() };
        let done = pair.of(Loader::of(probe())).run().assert_code(2);
        done.stderr.lines().next().unwrap().to_owned()
    };
    for (cert, key, says) in [
        (scratch.join("absent").as_path(), good.key.as_path(), "--tls-cert "),
        (&good.cert, &scratch.join("absent"), "No such file or directory"),
        (&empty, &good.key, "there is no certificate in it"),
        (&good.cert, &empty, "there is no private key in it"),
        (&good.cert, &other.key, "it is not the key of the certificate in "),
    ] {
        let line = refused(cert, key);
        assert!(line.starts_with("error: --tls-") && line.contains(says), "{line}");
    }
    for (given, missing) in [("--tls-cert", "--tls-key"), ("--tls-key", "--tls-cert")] {
        let done = Loader::of(probe()).arg(given).arg(&good.cert).run().assert_code(2);
        assert!(done.stderr.contains(&format!("{given} needs {missing} FILE")), "{done:#?}");
    }
}

#[test]
fn a_new_certificate_is_taken_up_under_load_and_a_bad_one_is_not() {
    let scratch = Scratch::new();
    let (served, first, second) =
        (Pair::new(&scratch, "served"), Pair::new(&scratch, "first"), Pair::new(&scratch, "second"));
    served.replace_by(&first);
    let server = served.of(Loader::of(probe())).serve();
    let mut kept = connect(server.address, &first.client(&[])).unwrap();
    assert_eq!(kept.get("/").text(), "ok");
    // Both at once may be met while one replaces the other.
    let clients = [first.client(&[]), second.client(&[])];
    let (over, n_good) = (AtomicBool::new(false), AtomicUsize::new(0));
    let reloads = |expected: &str, n: usize| {
        server.signal(Signal::HUP);
        wait_until(expected, || server.lines().iter().filter(|line| line.contains(expected)).count() == n);
    };
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let answers = clients.iter().filter_map(|client| {
                        let mut connection = connect(server.address, client).unwrap();
                        connection.try_send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").ok()?;
                        connection.try_reply(false).ok()
                    });
                    let n = answers.filter(|reply| reply.text() == "ok").count();
                    // A reload between the two attempts may let both or neither pass; that is the certificate.
                    n_good.fetch_add(n, Ordering::Relaxed);
                }
            });
        }
        for n in 1..=10 {
            let next = if n % 2 == 1 { &second } else { &first };
            served.replace_by(next);
            reloads("new connections get the new certificate", n);
            let mut fresh = connect(server.address, &next.client(&[])).unwrap();
            assert_eq!(fresh.get("/").text(), "ok", "reload {n}");
            assert_eq!(kept.get("/").text(), "ok", "a connection is not dropped by reload {n}");
            let so_far = n_good.load(Ordering::Relaxed);
            wait_until("clients get on", || n_good.load(Ordering::Relaxed) > so_far);
        }
        over.store(true, Ordering::Relaxed);
    });
    fs::write(&served.cert, "nonsense").unwrap();
    reloads("the certificate from before goes on serving", 1);
    assert_eq!(connect(server.address, &first.client(&[])).unwrap().get("/").text(), "ok");
    served.replace_by(&second);
    fs::copy(&first.key, &served.key).unwrap();
    reloads("it is not the key of the certificate", 1);
    assert_eq!(connect(server.address, &first.client(&[])).unwrap().get("/").text(), "ok");
    assert_eq!(kept.get("/").text(), "ok");
    server.stop();
}

#[cfg(feature = "processes")]
#[test]
fn a_confined_process_takes_up_a_new_certificate_that_it_can_not_read() {
    let scratch = Scratch::new();
    let (served, first, second) =
        (Pair::new(&scratch, "served"), Pair::new(&scratch, "first"), Pair::new(&scratch, "second"));
    served.replace_by(&first);
    let server =
        served.of(Loader::of(probe())).args(["--processes", "2", "--workers", "1", "--confine"]).serve();
    let mut kept = connect(server.address, &first.client(&[])).unwrap();
    assert_eq!(kept.get("/").text(), "ok");
    served.replace_by(&second);
    server.signal(Signal::HUP);
    server.wait_for_line("new connections get the new certificate");
    let (old, new) = (first.client(&[]), second.client(&[]));
    let answers = |client| {
        let mut connection = connect(server.address, client).unwrap();
        connection.try_send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").is_ok()
            && connection.try_reply(false).is_ok_and(|reply| reply.text() == "ok")
    };
    wait_until("each process has the new one", || (0..20).all(|_| answers(&new) && !answers(&old)));
    assert_eq!(kept.get("/").text(), "ok");
    server.stop();
}

#[test]
fn who_does_not_shake_hands_is_let_go_in_time_and_without_a_word() {
    let scratch = Scratch::new();
    let pair = Pair::new(&scratch, "a");
    let server = pair.of(Loader::of(probe())).args(["--read-timeout", "1s", "--workers", "1"]).serve();
    let before = server.lines().len();
    let mut plain = TcpStream::connect(server.address).unwrap();
    let mut silent: Vec<_> = (0..20).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    for stream in silent.iter().chain([&plain]) {
        stream.set_read_timeout(Some(LONG)).unwrap();
    }
    let since = Instant::now();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    let _ = plain.read_to_end(&mut bytes);
    assert!(!bytes.starts_with(b"HTTP/"), "{bytes:?}");
    // The one worker serves meanwhile.
    assert_eq!(connect(server.address, &pair.client(&[])).unwrap().get("/").text(), "ok");
    assert!(since.elapsed() < Duration::from_millis(900), "nobody waited for the silent ones");
    for stream in &mut silent {
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "closed");
    }
    assert_eq!(server.lines().len(), before, "{:#?}", server.lines());
    server.stop();
}

#[test]
fn a_drain_finishes_requests_and_waits_for_no_handshake() {
    let (counts, scratch) = (Counts::new(), Scratch::new());
    let pair = Pair::new(&scratch, "a");
    let server = pair.of(Loader::of(probe()).counting(&counts)).serve();
    let client = pair.client(&[]);
    let mut idle = connect(server.address, &client).unwrap();
    assert_eq!(idle.get("/").text(), "ok");
    let _silent = TcpStream::connect(server.address).unwrap();
    let mut waiting = connect(server.address, &client).unwrap();
    let gate = scratch.join("gate");
    let before = counts.of("run");
    waiting.send(format!("GET /wait?for={} HTTP/1.1\r\nHost: test\r\n\r\n", gate.display()));
    counts.wait_for("run", before + 1);
    let since = Instant::now();
    server.signal(Signal::TERM);
    assert!(idle.is_closed());
    scratch.write("gate", "");
    let reply = waiting.reply();
    assert_eq!((reply.status, reply.text_header("connection")), (200, Some("close")));
    server.ends_with(0);
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    counts.assert_complete();
}

#[test]
fn bodies_of_any_size_go_both_ways_in_constant_memory() {
    let mib: usize = std::env::var("EFFE_MIB").ok().and_then(|n| n.parse().ok()).unwrap_or(64);
    let scratch = Scratch::new();
    let pair = Pair::new(&scratch, "a");
    let server = pair.of(Loader::of(pipe())).args(["--body-limit", "0", "--run-timeout", "0"]).serve();
    let before = server.peak_memory();
    let address = server.address;
    let script = format!(
        "head -c {bytes} /dev/zero | curl --silent --show-error --http1.1 --cacert {cert} \
         --resolve localhost:{port}:127.0.0.1 -T - https://localhost:{port}/ | cmp -n {bytes} - /dev/zero",
        bytes = mib << 20,
        cert = pair.cert.display(),
        port = address.port()
    );
    succeed(Command::new("bash").args(["-c", &format!("set -o pipefail; {script}")]));
    let after = server.peak_memory();
    assert!(after <= 32 << 20, "{} MiB, {} before", after >> 20, before >> 20);
    eprintln!("{mib} MiB went through in each direction over TLS, {} MiB of memory at most", after >> 20);
    server.stop();
}

/// Of some of these answers only what waits in TLS is left when the client's and the system's buffers are full.
#[test]
fn a_client_that_does_not_read_is_let_go_however_much_is_left_to_send() {
    let scratch = Scratch::new();
    let pair = Pair::new(&scratch, "a");
    let loader = pair.of(Loader::of(probe())).args(["--write-timeout", "1s", "--drain-timeout", "25s"]);
    let server = loader.args(["--response-limit", "0"]).serve();
    let client = pair.client(&[]);
    let mut connections = Vec::new();
    for n_bytes in (64 << 10..4 << 20).step_by(56 << 10) {
        let mut connection = connect(server.address, &client).unwrap();
        connection.send(format!("GET /large?bytes={n_bytes} HTTP/1.1\r\nHost: test\r\n\r\n"));
        connections.push(connection);
    }
    let since = Instant::now();
    server.signal(Signal::TERM);
    server.ends_with(0);
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
}

#[test]
fn a_stream_that_breaks_off_has_no_clean_end() {
    let scratch = Scratch::new();
    let pair = Pair::new(&scratch, "a");
    let server = pair.of(Loader::of(spout())).serve();
    let (worked, text) = curl(&server, &pair, &["--http1.1"], "/fail");
    assert!(!worked && text.contains("begun"), "{text}");
    server.stop();
}
