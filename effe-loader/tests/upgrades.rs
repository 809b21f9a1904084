//! Upgrades of a loader that has several processes: another program goes on in the same process, with everything.

use std::{
    env, fs,
    io::Read,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use rustix::process::Signal;

use crate::support::{
    Connection, Counts, Hammer, Loader, Reply, Scratch, Server,
    admin::{Question, ask, over},
    plugins::{crasher, probe, succeed},
    processes::{lives, signal},
    wait_until,
};

/// How many upgrades there are under faults, and swaps; `scripts/prove handovers` has more.
fn times() -> (usize, usize) {
    let number = |name, default| env::var(name).map_or(default, |text| text.parse().expect("a number"));
    (number("EFFE_HANDOVERS", 2), number("EFFE_HANDOVER_SWAPS", 4))
}

const GOES_ON: &str = "goes on in the place of the one before";

/// A loader in a directory of its own, where others may take its place.
struct Place {
    scratch: Scratch,
}

impl Place {
    fn new() -> Place {
        let place = Place { scratch: Scratch::new() };
        place.scratch.write("token", "s3cret\n");
        place.put_loader();
        place
    }

    fn path(&self) -> PathBuf {
        self.scratch.join("effe-loader")
    }

    /// Another copy of the loader takes the place of what is there.
    fn put_loader(&self) {
        let (loader, new) = (env!("CARGO_BIN_EXE_effe-loader"), self.scratch.join("new"));
        // Without its symbols, which are nine tenths of it, where they can be left out.
        let mut strip = Command::new("strip");
        if !strip.arg("-o").arg(&new).arg(loader).status().is_ok_and(|status| status.success()) {
            return self.put(Path::new(loader));
        }
        fs::rename(new, self.path()).unwrap();
    }

    fn put(&self, program: &Path) {
        let new = self.scratch.join("new");
        // By a process of its own: a child that another test starts meanwhile would have the copy open to write.
        succeed(Command::new("cp").arg(program).arg(&new));
        fs::rename(new, self.path()).unwrap();
    }

    fn loader(&self, plugin: impl AsRef<Path>) -> Loader {
        Loader::at(self.path())
            .arg("--plugin")
            .arg(plugin.as_ref())
            .args(["--syslog", "none", "--log-format", "text"])
            .args(["--processes", "2", "--workers", "1", "--admin", "127.0.0.1:0"])
            .arg("--admin-token-file")
            .arg(self.scratch.join("token"))
    }

    /// Whether a process runs the program that is there now.
    fn is_run_by(&self, pid: u32) -> bool {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path == self.path())
    }
}

fn order(server: &Server, what: &str) -> Reply {
    let headers = "Host: localhost\r\nAuthorization: Bearer s3cret\r\n";
    let question = Question { method: "POST", target: what, headers, body: "" };
    ask(server.admin(), &question)
}

/// Waits until the supervisor has been replaced so many times.
#[track_caller]
fn wait_for_upgrades(server: &Server, n: u64) {
    wait_until("the supervisor is the new one", || {
        server.lines().iter().filter(|line| line.contains(GOES_ON)).count() as u64 >= n
    });
    assert_eq!(server.state()["upgrades"], n);
}

#[test]
fn an_upgrade_loses_no_request_and_keeps_connections_counters_and_the_process_itself() {
    let (place, counts) = (Place::new(), Counts::new());
    let server = place.loader(probe()).counting(&counts).serve();
    let first = server.wait_for_processes(2);
    let mut idle: Vec<Connection> = (0..20).map(|_| server.connect()).collect();
    idle.iter_mut().for_each(|connection| assert_eq!(connection.get("/").status, 200));
    // One that has never asked, and one whose request has come in part.
    let mut silent = server.connect();
    let hammer = Hammer::start(server.address, "/", 8);
    let mut n_before = 0.0;
    for n in 1..=3 {
        hammer.wait_for(100);
        place.put_loader();
        assert!(!place.is_run_by(server.id()));
        if n == 2 {
            server.signal(Signal::USR2);
        } else {
            let reply = order(&server, "/upgrade");
            assert_eq!((reply.status, reply.text()), (200, "{\"generation\":1,\"swapped\":true}"));
        }
        wait_for_upgrades(&server, n);
        assert!(place.is_run_by(server.id()), "the same process runs the new program");
        let name = |pid: u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
        assert_eq!(name(server.id()), "effe-loader\n");
        wait_until("those before are gone", || {
            server.processes().len() == 2 && server.processes().iter().all(|pid| place.is_run_by(*pid))
        });
        let n_requests = server.scrape().sum("http_requests_total");
        assert!(n_requests >= n_before, "{n_requests} < {n_before}");
        n_before = n_requests;
        for connection in idle.iter_mut().chain([&mut silent]) {
            let reply = connection.get("/");
            assert_eq!((reply.status, reply.text_header("connection")), (200, None));
        }
    }
    assert!(!first.iter().any(|pid| lives(*pid)));
    hammer.wait_for(100);
    let report = hammer.stop();
    assert_eq!(report.failures, Vec::<String>::new());
    let scrape = server.scrape();
    assert_eq!(scrape.value("effe_upgrades_total"), 3.0);
    assert_eq!((scrape.sum("effe_crashes_total"), scrape.value("effe_process_restarts_total")), (0.0, 0.0));
    // What the new one has taken over works: another process in the place of one that dies, a swap, the end.
    signal(server.wait_for_processes(2)[0], Signal::KILL);
    server.wait_for_line("another one takes its place");
    server.wait_for_processes(2);
    let lines = server.stop();
    assert_eq!(counts.of("init"), counts.of("retire") + 1);
    let last = lines.last().unwrap();
    assert!(last.contains("stopped; "), "one line for all: {last}");
}

#[test]
fn what_can_not_go_on_changes_nothing() {
    let place = Place::new();
    let server = place.loader(probe()).serve();
    let before = server.wait_for_processes(2);
    let mut idle = server.connect();
    assert_eq!(idle.get("/").status, 200);
    let script = |text: &str| place.scratch.write("script", format!("#!/bin/sh\n{text}\n"));
    let executable = |path: PathBuf| {
        succeed(Command::new("chmod").arg("755").arg(&path));
        path
    };
    for (program, line) in [
        (place.scratch.write("text", "no program"), "it can't be started: "),
        (executable(script("exit 1")), "it is no loader with --processes that knows of upgrades"),
        ("/bin/true".into(), "it is no loader with --processes that knows of upgrades"),
        ("/bin/echo".into(), "it is no loader with --processes that knows of upgrades"),
    ] {
        place.put(&program);
        let reply = order(&server, "/upgrade");
        assert!(reply.status == 422 && reply.text().contains(line), "{program:?}: {}", reply.text());
        let path = place.path();
        let said = server.wait_for_line(&format!("can't upgrade: {}: {line}", path.display()));
        assert!(said.contains("; this loader goes on"), "{said}");
        assert_eq!(idle.get("/").status, 200);
        assert_eq!(server.processes(), before);
    }
    fs::remove_file(place.path()).unwrap();
    let reply = order(&server, "/upgrade");
    assert!(reply.status == 422 && reply.text().contains("No such file"), "{}", reply.text());
    // It can still be replaced.
    place.put_loader();
    assert_eq!(order(&server, "/upgrade").status, 200);
    wait_for_upgrades(&server, 1);
    assert_eq!(idle.get("/").status, 200);
    server.stop();
}

#[test]
fn a_loader_does_not_go_on_where_one_of_another_version_serves() {
    let said = Loader::bare().args(["--can-go-on", "999", "--processes", "2", "--plugin"]).arg(probe()).run();
    let line = said.stdout;
    assert!(line.contains("\"goes_on\":false"), "{line}");
    assert!(line.contains("it goes on only where a loader of its own version serves ("), "{line}");
}

#[test]
fn a_program_that_fails_in_the_place_of_the_one_before_gives_it_back() {
    let place = Place::new();
    let server = place.loader(probe()).serve();
    server.wait_for_processes(2);
    let before = fs::read_link(format!("/proc/{}/exe", server.id())).unwrap();
    let mut idle = server.connect();
    assert_eq!(idle.get("/").status, 200);
    let hammer = Hammer::start(server.address, "/", 4);
    hammer.wait_for(50);
    // It says that it could go on and its processes serve, but the supervisor gets an argument that nobody knows.
    let source = place.scratch.write(
        "wrapper.c",
        format!(
            "#include <stdlib.h>\n#include <unistd.h>\n\
             int main(int n, char **args) {{\n\
             char *more[256];\n\
             for (int i = 0; i <= n; i++) more[i] = args[i];\n\
             if (getenv(\"_EFFE_STATE\")) {{ more[n] = \"--nonsense\"; more[n + 1] = 0; }}\n\
             return execv(\"{}\", more);\n}}\n",
            env!("CARGO_BIN_EXE_effe-loader")
        ),
    );
    let wrapper = place.scratch.join("wrapper");
    succeed(Command::new("cc").arg("-o").arg(&wrapper).arg(source));
    place.put(&wrapper);
    assert_eq!(order(&server, "/upgrade").status, 200);
    let line = server.wait_for_line("can't upgrade: ");
    assert!(line.contains("--nonsense") && line.contains("; this loader goes on"), "{line}");
    let after = fs::read_link(format!("/proc/{}/exe", server.id())).unwrap();
    let name = |path: PathBuf| path.display().to_string().replace(" (deleted)", "");
    assert_eq!(name(after.clone()), name(before));
    wait_until("its processes are its own again", || {
        let processes = server.processes();
        processes.len() == 2
            && processes
                .iter()
                .all(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == after))
    });
    assert_eq!(idle.get("/").status, 200);
    hammer.wait_for(50);
    assert_eq!(hammer.stop().failures, Vec::<String>::new());
    assert_eq!(server.state()["upgrades"], 0);
    place.put_loader();
    assert_eq!(order(&server, "/upgrade").status, 200);
    wait_for_upgrades(&server, 1);
    assert_eq!(idle.get("/").status, 200);
    server.stop();
}

#[test]
fn an_order_to_stop_counts_at_every_step_of_an_upgrade() {
    for step in ["at once", "a process is started", "follows"] {
        let (place, counts) = (Place::new(), Counts::new());
        let server = place.loader(probe()).counting(&counts).serve();
        server.wait_for_processes(2);
        let gate = place.scratch.join("gate");
        let mut waiting = server.begin(&counts, &format!("/wait?for={}", gate.display()));
        server.signal(Signal::USR2);
        match step {
            "a process is started" => wait_until(step, || server.processes().len() > 2),
            "follows" => drop(server.wait_for_line("the supervisor follows")),
            _ => {}
        }
        server.signal(Signal::TERM);
        server.wait_for_line("SIGTERM: finishing what runs");
        fs::write(&gate, "").unwrap();
        assert_eq!(waiting.reply().status, 200, "{step}");
        server.ends_with(0);
        assert_eq!(
            (counts.of("stop"), counts.of("retire")),
            (counts.of("context"), counts.of("init")),
            "{step}"
        );
    }
}

#[test]
fn of_two_orders_at_once_each_gets_an_answer() {
    let place = Place::new();
    let server = place.loader(probe()).serve();
    server.wait_for_processes(2);
    let replies: Vec<Reply> = thread::scope(|scope| {
        let orders: Vec<_> = (0..2).map(|_| scope.spawn(|| order(&server, "/upgrade"))).collect();
        orders.into_iter().map(|order| order.join().unwrap()).collect()
    });
    let done = replies.iter().filter(|reply| reply.status == 200).count();
    assert!(done >= 1, "{:?}", replies.iter().map(Reply::text).collect::<Vec<_>>());
    for reply in replies.iter().filter(|reply| reply.status != 200) {
        assert!(reply.text().contains("the loader is being replaced: order it again"), "{}", reply.text());
    }
    server.wait_for_line(GOES_ON);
    // A swap that was ordered meanwhile is not forgotten.
    server.signal(Signal::USR2);
    server.signal(Signal::HUP);
    server.wait_for_line("nothing has changed; generation 1 goes on serving");
    server.stop();
}

#[test]
fn where_one_process_serves_an_upgrade_is_refused_in_one_line() {
    let scratch = Scratch::new();
    let token = scratch.write("token", "s3cret\n");
    let server =
        Loader::of(probe()).args(["--admin", "127.0.0.1:0", "--admin-token-file"]).arg(token).serve();
    server.signal(Signal::USR2);
    server.wait_for_line("can't upgrade: only a supervisor can replace its program while others serve");
    let reply = order(&server, "/upgrade");
    assert!(reply.status == 422 && reply.text().contains("--processes N"), "{}", reply.text());
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

#[test]
fn a_signal_to_upgrade_ends_no_process_that_serves() {
    let place = Place::new();
    let server = place.loader(probe()).serve();
    for pid in server.wait_for_processes(2) {
        signal(pid, Signal::USR2);
    }
    assert_eq!(server.get("/").status, 200);
    server.wait_for_processes(2);
    assert_eq!(server.scrape().sum("effe_crashes_total"), 0.0);
    server.stop();
}

#[test]
fn the_first_process_of_a_container_can_be_upgraded_also_beside_another() {
    let unshare = ["--pid", "--fork", "--mount-proc", "--kill-child"];
    if !Command::new("unshare").args(unshare).arg("true").status().is_ok_and(|status| status.success()) {
        return eprintln!("skipped: unshare is not there, or not allowed");
    }
    let place = Place::new();
    let start =
        || place.loader(probe()).args(["--listen", "127.0.0.1:0"]).under("unshare", unshare).serve_as_told();
    // Its processes have the same numbers, and the same network.
    let (server, other) = (start(), start());
    assert_eq!(order(&other, "/drain").status, 202);
    other.ends_with(0);
    let mut idle = server.connect();
    assert_eq!(idle.get("/").status, 200);
    for n in 1..=2 {
        place.put_loader();
        assert_eq!(order(&server, "/upgrade").status, 200);
        wait_for_upgrades(&server, n);
        assert_eq!(idle.get("/").status, 200);
    }
    assert_eq!(order(&server, "/drain").status, 202);
    server.ends_with(0);
}

#[test]
fn the_sockets_file_and_a_way_back_outlive_an_upgrade() {
    let place = Place::new();
    let (socket, parameters) = (place.scratch.join("sock"), place.scratch.write("params.json", "{}"));
    let listen = format!("unix:{}", socket.display());
    let loader = place.loader(probe()).args(["--listen", "127.0.0.1:0", "--listen", &listen]);
    let server = loader.arg("--params").arg(&parameters).serve_as_told();
    fs::write(&parameters, "{\"n\": 1}").unwrap();
    assert_eq!(order(&server, "/swap").text(), "{\"generation\":2,\"swapped\":true}");
    // What is in the files by now is no business of an upgrade's.
    fs::write(&parameters, "no JSON").unwrap();
    assert_eq!(order(&server, "/upgrade").text(), "{\"generation\":2,\"swapped\":true}");
    wait_for_upgrades(&server, 1);
    let ask = || over(&socket, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(ask().starts_with("HTTP/1.1 200"));
    let reply = order(&server, "/swap");
    assert!(reply.status == 422 && reply.text().contains("params.json"), "{}", reply.text());
    assert_eq!(order(&server, "/rollback").text(), "{\"generation\":1,\"swapped\":true}");
    assert!(ask().starts_with("HTTP/1.1 200"));
    server.stop();
    assert!(!socket.exists());
}

/// Faults at random while the loader is replaced and its lambda swapped: each costs its own request, and nothing else.
#[test]
fn upgrades_and_swaps_under_faults_lose_only_the_requests_that_crash() {
    const FAULTS: [&str; 5] = ["segv", "abort", "bus", "fpe", "exit"];
    let (n_upgrades, n_swaps) = times();
    let place = Place::new();
    let parameters = place.scratch.write("params.json", "{\"n\": 0}");
    // From the first run on: while runs go from the pool to the server's threads, one that crashes there costs those on
    // the pool whose connections its thread has.
    let server =
        place.loader(crasher()).args(["--execution", "inline"]).arg("--params").arg(&parameters).serve();
    server.wait_for_processes(2);
    let mut idle: Vec<Connection> = (0..20).map(|_| server.connect()).collect();
    idle.iter_mut().for_each(|connection| assert_eq!(connection.get("/answer").status, 200));
    let hammer = Hammer::start(server.address, "/answer", 16);
    let over = AtomicBool::new(false);
    let n_crashes = thread::scope(|scope| {
        let crashes = scope.spawn(|| {
            let mut n = 0;
            while !over.load(Ordering::Relaxed) {
                let mut connection = server.connect();
                // Its process has served, so another one is started at once.
                assert_eq!(connection.get("/answer").status, 200);
                let reply = connection.get(&format!("/crash/{}", FAULTS[n % FAULTS.len()]));
                assert_eq!((reply.status, reply.text()), (500, "the lambda failed\n"));
                n += 1;
                hammer.wait_for(200);
            }
            n
        });
        let (mut upgrades, mut swaps) = (0, 0);
        while !crashes.is_finished() && (upgrades < n_upgrades || swaps < n_swaps) {
            hammer.wait_for(20);
            if swaps * n_upgrades >= upgrades * n_swaps && upgrades < n_upgrades {
                place.put_loader();
                // A crash of a process that is not ready ends it: the loader before goes on, and it is ordered again.
                if order(&server, "/upgrade").status == 200 {
                    upgrades += 1;
                    wait_for_upgrades(&server, upgrades as u64);
                }
            } else {
                fs::write(&parameters, format!("{{\"n\": {}}}", swaps + 1)).unwrap();
                swaps += usize::from(order(&server, "/swap").status == 200);
            }
        }
        over.store(true, Ordering::Relaxed);
        crashes.join().unwrap()
    });
    hammer.wait_for(50);
    let report = hammer.stop();
    assert_eq!(report.failures, Vec::<String>::new());
    idle.iter_mut().for_each(|connection| assert_eq!(connection.get("/answer").status, 200));
    let n_requests = report.latencies.len();
    println!(
        "{n_upgrades} upgrades and {n_swaps} swaps with {n_crashes} crashes during {n_requests} requests, none lost"
    );
    let counted = || server.scrape().sum("effe_crashes_total");
    wait_until("every crash is counted", || counted() >= n_crashes as f64);
    assert_eq!(counted(), n_crashes as f64);
    server.stop();
}

#[test]
fn an_upgrade_wakes_an_effe_that_sleeps_and_loses_nobody_who_comes() {
    let place = Place::new();
    let server = place.loader(probe()).args(["--idle-exit", "100ms"]).serve();
    let mut kept = server.connect();
    assert_eq!(kept.get("/").status, 200);
    wait_until("it sleeps", || server.processes().is_empty() && server.state()["asleep"] == true);
    assert_eq!(order(&server, "/upgrade").status, 200);
    wait_for_upgrades(&server, 1);
    assert_eq!(kept.get("/").status, 200);
    wait_until("it sleeps again", || server.processes().is_empty() && server.state()["asleep"] == true);
    assert_eq!(server.get("/").status, 200);
    assert_eq!(kept.get("/").status, 200);
    let mut left = TcpStream::connect(server.address).unwrap();
    server.stop();
    assert_eq!(left.read(&mut [0; 1]).unwrap_or(0), 0);
}
