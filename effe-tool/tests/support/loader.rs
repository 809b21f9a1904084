//! Starts a program that serves a lambda, reads its log, and stops it.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Instant,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{Connection, Counts, LONG, Reply, wait_until};

/// A command line.
pub struct Loader(Command);

impl Loader {
    /// A lambda that has the loader linked in.
    pub fn of(program: impl AsRef<Path>) -> Loader {
        let mut command = Command::new(program.as_ref());
        command.args(["--syslog", "none", "--log-format", "text"]);
        Loader::by(command)
    }

    /// Any command that serves in the end and logs to stderr.
    pub fn by(mut command: Command) -> Loader {
        for (name, _) in std::env::vars_os() {
            if name == "PORT" || name == "RUST_BACKTRACE" {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Loader(command)
    }

    /// Adds arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Loader {
        self.0.args(args);
        self
    }

    /// Makes the probe count in `counts`.
    pub fn counting(self, counts: &Counts) -> Loader {
        self.args(["--set", &counts.parameter()])
    }

    /// Serves on a port that the system picks, on loopback.
    #[track_caller]
    pub fn serve(self) -> Server {
        self.args(["--host", "127.0.0.1", "--port", "0"]).serve_as_told()
    }

    /// Starts a program that serves at `address` and doesn't log that.
    #[track_caller]
    pub fn start(mut self, address: SocketAddr) -> Server {
        let mut child = self.0.spawn().expect("it can be started");
        let stderr = child.stderr.take().unwrap();
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Server { child, address, lines }
    }

    /// Serves at the address in its arguments, and reads it from the log.
    #[track_caller]
    pub fn serve_as_told(self) -> Server {
        let mut server = self.start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        server.listen();
        server
    }
}

/// A program that serves. If it is dropped before it was stopped, it is killed.
pub struct Server {
    child: Child,
    /// The address that it serves at.
    pub address: SocketAddr,
    lines: Receiver<String>,
}

impl Server {
    /// A new connection.
    pub fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends GET over a new connection.
    #[track_caller]
    pub fn get(&self, target: &str) -> Reply {
        self.connect().get(target)
    }

    /// Waits for the line that says where it listens, and takes that address.
    #[track_caller]
    pub fn listen(&mut self) {
        let (line, _) = self.wait_for_line(&["listening on http://", "generation 1"]);
        let address = line.split_once("http://").unwrap_or_default().1;
        let end = address.find(|ch: char| !"0123456789.:[]".contains(ch)).unwrap_or(address.len());
        self.address = address[..end].parse().unwrap();
    }

    /// Waits for a line that contains `part`. Returns when it arrived.
    #[track_caller]
    pub fn hear(&self, part: &str) -> Instant {
        self.wait_for_line(&[part]).1
    }

    /// Waits for a line that contains one of `parts`. Returns the line, and when it arrived.
    #[track_caller]
    pub fn wait_for_line(&self, parts: &[&str]) -> (String, Instant) {
        let mut said = Vec::new();
        loop {
            // cargo may be at work first.
            let Ok(line) = self.lines.recv_timeout(LONG * 20) else {
                panic!("it never said {parts:?}: {said:#?}")
            };
            if parts.iter().any(|part| line.contains(part)) {
                return (line, Instant::now());
            }
            said.push(line);
        }
    }

    /// Stops it by SIGTERM and waits until it has ended with success. Returns the rest of its log.
    #[track_caller]
    pub fn stop(self) -> Vec<String> {
        self.stop_by(Signal::TERM)
    }

    /// The same with another signal.
    #[track_caller]
    pub fn stop_by(self, signal: Signal) -> Vec<String> {
        self.tell(signal);
        self.ends()
    }

    /// Sends a signal.
    #[track_caller]
    pub fn tell(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it still runs");
    }

    /// Waits until it has ended with success. Returns the rest of its log.
    #[track_caller]
    pub fn ends(mut self) -> Vec<String> {
        wait_until("it ends", || self.child.try_wait().unwrap().is_some());
        let lines = self.lines.iter().collect::<Vec<_>>();
        assert!(self.child.wait().unwrap().success(), "it said: {lines:#?}");
        lines
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
