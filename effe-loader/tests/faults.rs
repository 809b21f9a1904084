//! System calls that fail, one kind at a time, as strace makes them: at a start, while the effe serves, in a swap and
//! in a drain. What the system lacks is never said to be wrong with the plugin, nobody says "listening" and serves
//! nothing, no request is lost that could be answered, and no Context stays.

mod table;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use self::table::{ALWAYS, DRAIN, Of, Row, SERVING, START, SWAP, Serving, Start, Swap};
use crate::support::{
    Connection, Counts, Hammer, Loader, Reply, Scratch, Server,
    loader::Done,
    plugins::{patched, probe},
    wait_until,
};

/// Whether strace is there and may trace a program.
pub fn can_inject() -> bool {
    let mut strace = Command::new("strace");
    strace.args(["-o", "/dev/null", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    let can = strace.status().is_ok_and(|status| status.success());
    if !can {
        eprintln!("skipped: strace is not there, or may not trace");
    }
    can
}

/// The rows that are to be tried.
fn chosen<End>(rows: &'static [Row<End>]) -> &'static [Row<End>] {
    if std::env::var_os("EFFE_FAULTS").is_some() { rows } else { &rows[..ALWAYS] }
}

/// One kind of fault, as strace injects it, and its notes of what it has done.
struct Injection {
    calls: &'static str,
    error: &'static str,
    of: Of,
    /// Which call of each thread's it is now.
    n: u32,
    directory: Scratch,
}

impl Injection {
    fn new<End>(&(calls, error, of, _): &Row<End>) -> Injection {
        let n = if let Of::Each(first) = of { first } else { 1 };
        Injection { calls, error, of, n, directory: Scratch::new() }
    }

    fn notes(&self) -> PathBuf {
        self.directory.join("notes")
    }

    fn args(&self, plugin: &Path) -> Vec<String> {
        let when = match self.of {
            Of::All | Of::Plugin | Of::Thread(_) => String::new(),
            Of::First | Of::Each(_) => format!(":when={}", self.n),
            Of::EveryOther => ":when=1+2".to_owned(),
        };
        let mut args = vec!["-o".to_owned(), self.notes().display().to_string()];
        if !matches!(self.of, Of::Thread(_)) {
            args.push("-f".to_owned());
        }
        if let Of::Plugin = self.of {
            args.extend(["-P".to_owned(), plugin.display().to_string()]);
        }
        let (calls, error) = (self.calls, self.error);
        args.extend(["-e".to_owned(), format!("trace={calls}")]);
        args.extend(["-e".to_owned(), format!("inject={calls}:error={error}{when}")]);
        args
    }

    /// Injects into a loader that serves.
    fn attach(&self, server: &Server, plugin: &Path) -> Tracing {
        let only = match self.of {
            Of::Thread(name) => Some(thread_of(server, name)),
            _ => None,
        };
        let mut strace = Command::new("strace");
        strace.args(self.args(plugin)).arg("-p");
        strace.arg(only.as_ref().map_or(server.id().to_string(), |thread| file_name(thread)));
        let strace = strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("strace traces what it is to", || match &only {
            Some(thread) => tracer(thread).is_some(),
            None => threads_of(server).iter().all(|thread| tracer(thread).is_some()),
        });
        Tracing(strace)
    }

    /// Whether strace may let go in the midst of such a call. One that it has suppressed just then fails with ENOSYS,
    /// and threads come back to a wait all the time.
    fn may_let_go(&self) -> bool {
        !self.calls.contains("poll")
    }

    /// How many calls were made to fail.
    fn n_injected(&self) -> usize {
        fs::read_to_string(self.notes()).unwrap_or_default().matches("(INJECTED)").count()
    }
}

impl std::fmt::Display for Injection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {}: {}", self.calls, self.of, self.n, self.error)
    }
}

/// Where the system tells of a server's threads.
fn threads_of(server: &Server) -> Vec<PathBuf> {
    let threads = fs::read_dir(format!("/proc/{}/task", server.id())).unwrap();
    threads.flatten().map(|thread| thread.path()).collect()
}

/// The thread whose name begins like this.
fn thread_of(server: &Server, name: &str) -> PathBuf {
    let is_it =
        |thread: &PathBuf| fs::read_to_string(thread.join("comm")).is_ok_and(|comm| comm.starts_with(name));
    let find = || threads_of(server).into_iter().find(is_it);
    // A thread gives itself its name, when it begins to run.
    wait_until("the server has such a thread", || find().is_some());
    find().unwrap()
}

/// Who traces a thread, or a process; one that has ended counts as traced.
fn tracer(of: &Path) -> Option<Pid> {
    let Ok(status) = fs::read_to_string(of.join("status")) else { return Some(Pid::INIT) };
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:")).unwrap();
    Pid::from_raw(tracer.trim().parse().unwrap())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// strace at work.
struct Tracing(Child);

impl Tracing {
    /// Lets the calls succeed again.
    fn end(&mut self) {
        // Unless it has ended, and another process has its number.
        if self.0.try_wait().unwrap().is_none() {
            let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
            self.wait();
        }
    }

    /// Waits until all that it traces has ended.
    fn wait(&mut self) {
        self.0.wait().unwrap();
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        self.end();
    }
}

/// Does the same for a loader that strace has started.
fn detach_starter(server: &Server) {
    let process = PathBuf::from(format!("/proc/{}", server.id()));
    if let Some(tracer) = tracer(&process) {
        let _ = kill_process(tracer, Signal::TERM);
    }
    wait_until("strace lets go", || tracer(&process).is_none());
}

/// That a line tells of the system, and not of the plugin.
#[track_caller]
fn assert_says(injection: &Injection, line: &str, part: &str) {
    assert!(line.contains(part), "{injection}: {line}");
    for blamed in ["empty", "truncated", "damaged", "build it again", "not a shared library"] {
        assert!(!line.contains(blamed), "{injection}: {line}");
    }
}

/// Tries one row, as often as it has calls that can fail one after the other; how often that was.
fn each_of<End: Copy>(row: &Row<End>, attempt: impl Fn(&Injection, End)) -> usize {
    let mut injection = Injection::new(row);
    for n_tried in 0.. {
        println!("{injection}");
        attempt(&injection, row.3);
        let is_over = injection.n_injected() == 0;
        assert!(!is_over || n_tried > 0, "{injection}: there is no such call");
        if is_over || !matches!(injection.of, Of::Each(_)) {
            return n_tried + usize::from(!is_over);
        }
        injection.n += 1;
    }
    unreachable!("some call is the last")
}

/// Tries the rows of one part of the table.
fn try_all<End: Copy>(part: &str, rows: &'static [Row<End>], attempt: impl Fn(&Injection, End)) {
    if !can_inject() {
        return;
    }
    let rows = chosen(rows);
    let n_faults: usize = rows.iter().map(|row| each_of(row, &attempt)).sum();
    println!("{part}: {n_faults} faults of {} kinds", rows.len());
}

/// Whether a program has ended before its `main`, by the dynamic linker or the standard library, who say why.
fn is_before_main(done: &Done) -> bool {
    ["error while loading shared libraries", "cannot allocate TLS data", "alternative stack"]
        .iter()
        .any(|why| done.stderr.contains(why))
}

#[test]
fn a_start_without_what_it_needs_ends_in_one_line_that_names_it() {
    try_all("at a start", START, |injection, end| {
        let counts = Counts::new();
        let loader = Loader::of(probe()).counting(&counts);
        let loader = loader.args(["--host", "127.0.0.1", "--port", "0", "--workers", "2"]);
        // Beside it, so that the loader is what this process has started.
        let args = ["-D".to_owned(), "-I2".to_owned()].into_iter().chain(injection.args(&probe()));
        match loader.under("strace", args).start().serves_or_ends() {
            Ok(server) => {
                if injection.may_let_go() {
                    detach_starter(&server);
                }
                let may_serve = matches!(end, Start::Serves | Start::EndsOrServes(_));
                assert!(may_serve || injection.n_injected() == 0, "{injection}: it serves");
                assert_eq!(server.get("/").status, 200, "{injection}");
                server.stop();
                counts.assert_complete();
            }
            Err(done) if matches!(injection.of, Of::Each(_)) && is_before_main(&done) => {}
            Err(done) => {
                let done = done.assert_code(1);
                match end {
                    Start::Ends(part) | Start::EndsOrServes(part) => {
                        let line = done.one_line();
                        assert!(line.starts_with("effe-loader: cannot "), "{injection}: {line}");
                        assert_says(injection, line, part);
                    }
                    Start::Dies(part) => assert_says(injection, &done.stderr, part),
                    Start::Serves => panic!("{injection}: {done:#?}"),
                }
            }
        }
    });
}

/// What clients ask while calls fail: what is read and what is written in one piece, and in many.
fn ask_each(server: &Server) -> Vec<io::Result<Reply>> {
    let large = "/large?bytes=1000000".to_owned();
    let body = "x".repeat(100_000);
    let post = format!("POST /body HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n");
    let requests = [(get("/"), 2), (post, body.len()), (get(&large), 1_000_000), (get("/"), 2)];
    let ask = |(request, length): (String, usize)| {
        let mut connection = Connection::try_open(server.address)?;
        connection.try_send(request)?;
        let reply = connection.try_reply(false)?;
        assert!(reply.status != 200 || reply.body.len() == length, "{reply:?}");
        Ok(reply)
    };
    requests.into_iter().map(ask).collect()
}

#[test]
fn an_effe_whose_calls_fail_goes_on_serving() {
    try_all("while serving", SERVING, |injection, end| {
        let counts = Counts::new();
        let n_workers = if let Of::Thread(_) = injection.of { "1" } else { "2" };
        let server =
            Loader::of(probe()).counting(&counts).args(["--workers", n_workers, "--access-log"]).serve();
        let mut strace = injection.attach(&server, &probe());
        if let Serving::Fails(line) = end {
            // It wakes the thread that accepts, and that wakes the worker.
            let _connection = server.connect();
            server.wait_for_line(line);
            server.ends_with(1);
            strace.wait();
            return counts.assert_complete();
        }
        let outcomes = ask_each(&server);
        // What the log has to say may come later.
        wait_until("a call has failed", || injection.n_injected() > 0);
        if injection.may_let_go() {
            strace.end();
        }
        let n_with = |status| outcomes.iter().flatten().filter(|reply| reply.status == status).count();
        let n_broken = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        let seen = (n_with(200), n_with(503), n_broken);
        let is_right = match end {
            Serving::Answers => seen == (outcomes.len(), 0, 0),
            Serving::AnswersOr503 => seen.0 + seen.1 == outcomes.len() && seen.1 > 0,
            Serving::Breaks => seen.0 + seen.2 == outcomes.len() && seen.2 > 0,
            Serving::Fails(_) => false,
        };
        assert!(is_right, "{injection}: {} of 200, {} of 503, {n_broken} broken", seen.0, seen.1);
        assert!(ask_each(&server).into_iter().all(|outcome| outcome.unwrap().status == 200), "{injection}");
        server.stop();
        counts.assert_complete();
    });
}

#[test]
fn a_swap_whose_calls_fail_leaves_the_old_generation_or_is_done() {
    let bytes = fs::read(probe()).unwrap();
    let [second, third] = [b"probe, version 2", b"probe, version 3"]
        .map(|version| patched(&bytes, b"probe, version 1", version));
    try_all("in a swap", SWAP, |injection, end| {
        let (scratch, counts) = (Scratch::new(), Counts::new());
        let plugin = scratch.write("libprobe.so", &bytes);
        let publish = |bytes: &[u8]| fs::rename(scratch.write("new", bytes), &plugin).unwrap();
        let server = Loader::of(&plugin).counting(&counts).serve();
        let needs_thread = matches!(end, Swap::Stays(part) if part.starts_with("no thread"));
        if !needs_thread {
            // The thread that swaps is made by the first order.
            server.signal(Signal::HUP);
            server.wait_for_line("nothing has changed");
        }
        let hammer = Hammer::start(server.address, "/", 2);
        hammer.wait_for(10);
        let mut strace = injection.attach(&server, &plugin);
        publish(&second);
        server.signal(Signal::HUP);
        let next = match end {
            Swap::Swaps => {
                server.wait_for_line("generation 2 serves");
                3
            }
            Swap::Stays(part) => {
                let line = server.wait_for_line(part);
                assert_says(injection, &line, part);
                assert!(needs_thread || line.ends_with("; generation 1 goes on serving"), "{line}");
                2
            }
        };
        if injection.may_let_go() {
            strace.end();
        }
        publish(&third);
        server.signal(Signal::HUP);
        server.wait_for_line(&format!("generation {next} serves"));
        let report = hammer.stop();
        assert!(report.failures.is_empty(), "{injection}: {:?}", report.failures);
        server.stop();
        assert_eq!(counts.of("stop"), counts.of("context"), "{injection}");
        assert_eq!(counts.of("retire"), counts.of("init"), "{injection}");
    });
}

#[test]
fn a_drain_whose_calls_fail_answers_what_runs_and_stops_every_context() {
    try_all("in a drain", DRAIN, |injection, ()| {
        let (scratch, counts) = (Scratch::new(), Counts::new());
        let server = Loader::of(probe()).counting(&counts).args(["--workers", "1", "--probes"]).serve();
        let go = scratch.join("go");
        let target = format!("/wait?for={}", go.display());
        let mut waiting: Vec<Connection> = (0..3).map(|_| server.connect()).collect();
        for connection in &mut waiting {
            connection.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        }
        let mut idle = server.connect();
        assert_eq!(idle.get("/health/readiness").status, 200);
        counts.wait_for("run", waiting.len());
        let mut strace = injection.attach(&server, &probe());
        server.signal(Signal::TERM);
        wait_until("it stops", || {
            let sent = idle.try_send("GET /health/readiness HTTP/1.1\r\nHost: test\r\n\r\n");
            // An error: it has closed the connection, after an answer.
            sent.and_then(|()| idle.try_reply(false)).map_or(true, |reply| reply.status == 503)
        });
        scratch.write("go", "");
        for connection in &mut waiting {
            assert_eq!(connection.reply().text(), "waited", "{injection}");
        }
        server.ends_with(0);
        strace.wait();
        counts.assert_complete();
    });
}

#[test]
fn a_runtime_that_gets_no_descriptor_ends_the_start() {
    if !can_inject() {
        return;
    }
    for (args, part) in [
        (&["--workers", "2"][..], "cannot start 2 workers: Too many open files"),
        (&["--admin", "127.0.0.1:0"], "cannot start the admin listener: Too many open files"),
    ] {
        for call in ["epoll_create1", "eventfd2"] {
            let (trace, inject) = (format!("trace={call}"), format!("inject={call}:error=EMFILE"));
            let strace = ["-f", "-o", "/dev/null", "-e", &trace, "-e", &inject];
            let loader = Loader::of(probe()).args(["--port", "0"]).args(args).under("strace", strace);
            let done = loader.run().assert_code(1);
            let line = done.one_line();
            assert!(line.contains(part) && line.contains("ulimit -n"), "{call}: {line}");
        }
    }
}

#[test]
fn a_panic_of_the_main_thread_is_logged_with_the_contexts_that_it_leaves() {
    if !can_inject() {
        return;
    }
    let server = Loader::of(probe()).serve();
    let injection = Injection::new(&("epoll_wait", "EBADF", Of::Thread("effe-loader"), ()));
    let mut strace = injection.attach(&server, &probe());
    // It wakes that thread.
    server.signal(Signal::TERM);
    server.wait_for_line("critical: thread main panicked at ");
    server
        .wait_for_line("critical: the loader itself has panicked; a line of the log says where; 1 Contexts");
    server.ends_with(1);
    strace.wait();
}

#[test]
fn a_plugin_that_cannot_be_mapped_for_want_of_memory_is_not_refused() {
    // In MiB; with fewer, the dynamic linker can't map the loader itself.
    for mib in 12..=20_u64 {
        let limit = format!("--as={}", mib << 20);
        let done = Loader::of(probe()).arg("--check").under("prlimit", [limit]).run();
        if done.status.success() || !done.stderr.starts_with("effe-loader: ") {
            continue;
        }
        assert_eq!(done.status.code(), Some(1), "{mib}: {done:#?}");
        assert!(done.one_line().contains("(ulimit -v)"), "{done:#?}");
    }
}
