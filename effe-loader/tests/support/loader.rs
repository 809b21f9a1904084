//! The real loader as a child of the test.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, SocketAddr},
    os::{
        fd::OwnedFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};

use super::{Connection, Counts, LONG, Reply, Scratch, plugins::succeed};

/// A command line of the loader's, with none of the test's own environment that it would hear.
pub struct Loader(Command);

impl Loader {
    /// The loader without an argument.
    pub fn bare() -> Loader {
        Loader::at(env!("CARGO_BIN_EXE_effe-loader").into())
    }

    /// The loader without an argument, for a user who is not root: somebody else if the test is run by root, with a
    /// copy of the loader in a directory where he may go.
    pub fn without_rights(directory: &Scratch) -> Loader {
        if !rustix::process::geteuid().is_root() {
            return Loader::bare();
        }
        let loader = directory.join("effe-loader");
        // By a process of its own: a child that another test starts meanwhile would have the copy open to write, and a
        // file that is open to write can't be executed.
        succeed(Command::new("cp").arg(env!("CARGO_BIN_EXE_effe-loader")).arg(&loader));
        let mut command = Loader::at(loader);
        command.0.uid(65_534);
        command
    }

    /// The loader in a file, without an argument.
    pub fn at(loader: PathBuf) -> Loader {
        let mut command = Command::new(loader);
        for (name, _) in std::env::vars_os() {
            if name == "PORT" || name == "RUST_BACKTRACE" || name.to_string_lossy().starts_with("EFFE_") {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Loader(command)
    }

    /// The loader with a plugin. It says everything on stderr, as text.
    pub fn of(plugin: impl AsRef<Path>) -> Loader {
        Loader::bare().arg("--plugin").arg(plugin.as_ref()).args(["--syslog", "none", "--log-format", "text"])
    }

    /// One argument more.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Loader {
        self.0.arg(arg);
        self
    }

    /// Arguments more.
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Loader {
        self.0.args(args);
        self
    }

    /// A parameter for the lambda.
    pub fn set(self, pair: &str) -> Loader {
        self.arg("--set").arg(pair)
    }

    /// The probe counts here.
    pub fn counting(self, counts: &Counts) -> Loader {
        self.set(&counts.parameter())
    }

    /// A variable of the environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Loader {
        self.0.env(name, value);
        self
    }

    /// A socket under the number and with the variables that a supervisor uses.
    pub fn handed(self, socket: OwnedFd) -> Loader {
        let mut shell = Command::new("/bin/sh");
        let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"";
        shell.args(["-c", script]).arg(self.0.get_program()).args(self.0.get_args());
        for (name, value) in self.0.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell.stdin(socket).stdout(Stdio::piped()).stderr(Stdio::piped());
        Loader(shell)
    }

    /// The working directory.
    pub fn current_dir(mut self, directory: impl AsRef<Path>) -> Loader {
        self.0.current_dir(directory);
        self
    }

    /// In a session of its own, whose terminal this is.
    pub fn on_terminal(self, terminal: impl Into<Stdio>) -> Loader {
        let mut loader = self.under("setsid", ["--ctty"]);
        loader.0.stdin(terminal);
        loader
    }

    /// Started by another program, with these arguments before the loader's own.
    pub fn under<A: AsRef<OsStr>>(self, program: &str, args: impl IntoIterator<Item = A>) -> Loader {
        let mut command = Command::new(program);
        command.args(args).arg(self.0.get_program()).args(self.0.get_args());
        for (name, value) in self.0.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Loader(command)
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(mut self) -> Done {
        let mut child = self.0.spawn().expect("the loader can be started");
        let stdout = child.stdout.take().unwrap();
        let stdout = thread::spawn(move || read_all(stdout));
        let stderr = child.stderr.take().unwrap();
        let stderr = thread::spawn(move || read_all(stderr));
        let status = end_of(&mut child, LONG);
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
        let status = status.unwrap_or_else(|| panic!("the loader hangs; it said: {stderr}"));
        Done { status, stdout, stderr }
    }

    /// Serves on a port that the system picks, on loopback.
    #[track_caller]
    pub fn serve(self) -> Server {
        self.args(["--host", "127.0.0.1", "--port", "0"]).serve_as_told()
    }

    /// Serves where its arguments say; the address comes from what it says itself.
    #[track_caller]
    pub fn serve_as_told(self) -> Server {
        let mut server = self.start();
        let line = server.wait_for_line("listening on http");
        server.take_address(&line);
        server
    }

    /// Starts it, and does not wait until it serves.
    #[track_caller]
    pub fn start(mut self) -> Server {
        let mut child = self.0.spawn().expect("the loader can be started");
        let stderr = child.stderr.take().unwrap();
        let output = Arc::new(Output::default());
        let reader = {
            let output = Arc::clone(&output);
            thread::spawn(move || output.collect(stderr))
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Server { child, address, output, reader: Some(reader), ended: false }
    }
}

/// A loader that has ended.
#[derive(Debug)]
pub struct Done {
    /// How.
    pub status: ExitStatus,
    /// All of its stdout.
    pub stdout: String,
    /// All of its stderr.
    pub stderr: String,
}

impl Done {
    /// Asserts the exit code.
    #[track_caller]
    pub fn assert_code(self, code: i32) -> Done {
        assert_eq!(self.status.code(), Some(code), "{self:#?}");
        self
    }

    /// The one line on stderr, with nothing on stdout.
    #[track_caller]
    pub fn one_line(&self) -> &str {
        assert_eq!(self.stdout, "", "nothing on stdout: {self:#?}");
        let line = self.stderr.strip_suffix('\n').expect("a line on stderr");
        assert!(!line.contains('\n'), "one line on stderr: {self:#?}");
        line
    }
}

/// A loader that serves. Dropped before it was stopped, it is killed; in a test that fails, it says what it said.
pub struct Server {
    child: Child,
    /// Where it serves.
    pub address: SocketAddr,
    output: Arc<Output>,
    reader: Option<thread::JoinHandle<()>>,
    ended: bool,
}

impl Server {
    /// Serves from now on where a line says that it listens.
    fn take_address(&mut self, line: &str) {
        let (_, address) = line.split_once("://").unwrap();
        let end = address.find(|ch: char| !"0123456789.:[]".contains(ch)).unwrap_or(address.len());
        self.address = address[..end].parse().unwrap();
        if self.address.ip().is_unspecified() {
            self.address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
    }

    /// Waits until it serves, or has ended with a code and one line, which is returned.
    #[track_caller]
    pub fn serves_or_ends_with(self, code: i32) -> Result<Server, String> {
        self.serves_or_ends().map_err(|done| done.assert_code(code).one_line().to_owned())
    }

    /// Waits until it serves, or has ended.
    #[track_caller]
    pub fn serves_or_ends(mut self) -> Result<Server, Done> {
        match self.line_or_end("listening on http") {
            Some(line) => {
                self.take_address(&line);
                Ok(self)
            }
            None => Err(self.ended()),
        }
    }

    /// A new connection.
    pub fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    /// GET over a connection of its own.
    #[track_caller]
    pub fn get(&self, target: &str) -> Reply {
        self.connect().get(target)
    }

    /// Begins a request that is in Run when this returns.
    pub fn begin(&self, counts: &Counts, target: &str) -> Connection {
        let before = counts.of("run");
        let mut connection = self.connect();
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        counts.wait_for("run", before + 1);
        connection
    }

    /// The most memory that it has had so far, in bytes.
    pub fn peak_memory(&self) -> usize {
        self.memory_by("VmHWM:")
    }

    /// The memory that it has now, in bytes.
    pub fn memory(&self) -> usize {
        self.memory_by("VmRSS:")
    }

    fn memory_by(&self, name: &str) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }

    /// Everything it has said on stderr so far.
    pub fn lines(&self) -> Vec<String> {
        self.output.state.lock().unwrap().lines.clone()
    }

    /// Waits until a line with `part` in it is on stderr.
    #[track_caller]
    pub fn wait_for_line(&self, part: &str) -> String {
        self.line_or_end(part).unwrap_or_else(|| panic!("the loader never said {part:?}"))
    }

    /// The first line with `part` in it; `None` if it has not come when stderr is closed, or for long.
    fn line_or_end(&self, part: &str) -> Option<String> {
        let found = |state: &State| state.lines.iter().find(|line| line.contains(part)).cloned();
        let state = self.output.state.lock().unwrap();
        let waits = |state: &mut State| found(state).is_none() && !state.closed;
        let (state, _) = self.output.more.wait_timeout_while(state, LONG, waits).unwrap();
        found(&state)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the loader still runs");
    }

    /// Tells it to stop, and waits until it has ended well.
    #[track_caller]
    pub fn stop(self) -> Vec<String> {
        self.signal(Signal::TERM);
        self.ends_with(0)
    }

    /// Waits until it has ended with a code; what it said on stderr.
    #[track_caller]
    pub fn ends_with(mut self, code: i32) -> Vec<String> {
        let Done { status, .. } = self.ended();
        let lines = self.lines();
        assert_eq!((status.code(), status.signal()), (Some(code), None), "it said: {lines:#?}");
        lines
    }

    /// Waits until a signal has ended it.
    #[cfg(feature = "processes")]
    #[track_caller]
    pub fn ends_by(mut self, signal: Signal) {
        let Done { status, .. } = self.ended();
        assert_eq!(status.signal(), Some(signal.as_raw()));
    }

    /// Waits until it has ended; what it said on stderr.
    #[track_caller]
    fn ended(&mut self) -> Done {
        let status = end_of(&mut self.child, LONG).expect("the loader ends");
        self.ended = true;
        let _ = self.reader.take().unwrap().join();
        let lines = self.lines().into_iter().map(|line| line + "\n");
        Done { status, stdout: String::new(), stderr: lines.collect() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() {
            eprintln!("the loader said: {:#?}", self.lines());
        }
    }
}

/// The lines on stderr, as they come.
#[derive(Default)]
struct Output {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    closed: bool,
}

impl Output {
    fn collect(&self, stderr: impl Read) {
        for line in BufReader::new(stderr).lines() {
            let line = line.unwrap_or_else(|err| format!("(a line that is no text: {err})"));
            self.state.lock().unwrap().lines.push(line);
            self.more.notify_all();
        }
        self.state.lock().unwrap().closed = true;
        self.more.notify_all();
    }
}

fn read_all(mut from: impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits for the end of a child; `None` if it doesn't come in time.
fn end_of(child: &mut Child, within: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + within;
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).expect("the system has pidfds");
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left));
    }
}
