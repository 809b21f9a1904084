//! A syslog daemon: a real datagram socket.

use std::{fs, os::unix::net::UnixDatagram, path::PathBuf, time::Duration};

use super::{LONG, Scratch};

/// A daemon that reads when it is told to.
pub struct Daemon {
    socket: Option<UnixDatagram>,
    directory: Scratch,
}

impl Daemon {
    /// A daemon that runs.
    pub fn new() -> Daemon {
        let mut daemon = Daemon { socket: None, directory: Scratch::new() };
        daemon.start();
        daemon
    }

    /// What `--syslog` is told.
    pub fn target(&self) -> String {
        format!("unix:{}", self.path().display())
    }

    /// It ends, and its socket goes.
    pub fn stop(&mut self) {
        self.socket = None;
        fs::remove_file(self.path()).unwrap();
    }

    /// It begins again.
    pub fn start(&mut self) {
        self.socket = Some(UnixDatagram::bind(self.path()).unwrap());
    }

    /// The next datagram, if one comes in time.
    pub fn next_within(&self, within: Duration) -> Option<String> {
        let socket = self.socket.as_ref().unwrap();
        socket.set_read_timeout(Some(within)).unwrap();
        let mut buffer = vec![0; 64 * 1024];
        let len = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..len].to_vec()).expect("what is sent is text"))
    }

    /// The next datagram in which `part` stands; those before it are dropped.
    #[track_caller]
    pub fn wait_for(&self, part: &str) -> String {
        let mut seen = Vec::new();
        while let Some(datagram) = self.next_within(LONG) {
            if datagram.contains(part) {
                return datagram;
            }
            seen.push(datagram);
        }
        panic!("no datagram with {part:?} came, but these: {seen:#?}");
    }

    fn path(&self) -> PathBuf {
        self.directory.join("log")
    }
}
