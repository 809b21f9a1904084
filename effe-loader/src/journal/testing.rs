//! What the journal's tests have in common: a daemon with a real socket, and something that stands for
//! stderr.

use std::{
    env, fs,
    io::{self, Write},
    os::unix::net::UnixDatagram,
    path::PathBuf,
    process,
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use super::{Format, Journal, Record, Settings, Severity, SyslogTarget, stderr::Sink};

pub(super) const LONG: Duration = Duration::from_secs(20);

/// A journal over a stderr that can be read.
pub(super) fn start(syslog: SyslogTarget, format: Format, stderr: &Captured) -> Journal {
    let sink = Sink { writer: Box::new(stderr.clone()), is_terminal: stderr.is_terminal };
    Journal::start(Settings { sink, ..Settings::new(syslog, format) }).unwrap()
}

/// A journal over a syslog daemon and a stderr that is no terminal.
pub(super) fn start_all(format: Format) -> (Daemon, Captured, Journal) {
    let (daemon, stderr) = (Daemon::new(), Captured::default());
    let journal = start(daemon.target(), format, &stderr);
    (daemon, stderr, journal)
}

/// A journal without syslog.
pub(super) fn start_alone() -> (Captured, Journal) {
    let stderr = Captured::default();
    let journal = start(SyslogTarget::None, Format::Text, &stderr);
    (stderr, journal)
}

pub(super) fn lambda(severity: Severity, text: &str) -> Record {
    let fields = vec![("id", "a b".to_owned())];
    Record { fields, ..Record::of_lambda(severity, "hello::db", text.to_owned(), None) }
}

/// A syslog daemon: a socket in a directory of its own.
pub(super) struct Daemon {
    socket: Option<UnixDatagram>,
    directory: PathBuf,
}

impl Daemon {
    pub(super) fn new() -> Daemon {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        let directory = env::temp_dir().join(format!("effe-journal-{}-{n}", process::id()));
        fs::create_dir_all(&directory).unwrap();
        let mut daemon = Daemon { socket: None, directory };
        daemon.revive();
        daemon
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.join("log")
    }

    pub(super) fn target(&self) -> SyslogTarget {
        SyslogTarget::Unix(self.path())
    }

    pub(super) fn kill(&mut self) {
        self.socket = None;
        fs::remove_file(self.path()).unwrap();
    }

    pub(super) fn revive(&mut self) {
        self.socket = Some(UnixDatagram::bind(self.path()).unwrap());
    }

    pub(super) fn receive(&self) -> String {
        self.try_receive(LONG).expect("a datagram comes in time")
    }

    pub(super) fn try_receive(&self, within: Duration) -> Option<String> {
        let socket = self.socket.as_ref().unwrap();
        socket.set_read_timeout(Some(within)).unwrap();
        let mut buffer = vec![0; 256 * 1024];
        let len = socket.recv(&mut buffer).ok()?;
        buffer.truncate(len);
        Some(String::from_utf8(buffer).unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A stderr that can be read.
#[derive(Clone, Default)]
pub(super) struct Captured {
    pub(super) written: Arc<(Mutex<Vec<u8>>, Condvar)>,
    pub(super) is_terminal: bool,
}

impl Captured {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.written.0.lock().unwrap().clone()).unwrap()
    }

    /// While the guard lives, a write to this stderr waits.
    pub(super) fn block(&self) -> MutexGuard<'_, Vec<u8>> {
        self.written.0.lock().unwrap()
    }

    #[track_caller]
    pub(super) fn wait_for(&self, condition: impl Fn(&str) -> bool) {
        let (written, more) = &*self.written;
        let unmet = |written: &mut Vec<u8>| !condition(&String::from_utf8_lossy(written));
        let (written, timeout) = more.wait_timeout_while(written.lock().unwrap(), LONG, unmet).unwrap();
        assert!(!timeout.timed_out(), "stderr never came to it: {}", String::from_utf8_lossy(&written));
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.0.lock().unwrap().extend_from_slice(bytes);
        self.written.1.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
