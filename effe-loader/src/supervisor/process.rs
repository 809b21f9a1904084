//! One of the effe's processes, as its supervisor has it: started with a link, told what to do, heard, and buried.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Child, Command, ExitStatus},
    rc::Rc,
    time::Instant,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

use super::source::Source;
use crate::{
    journal::Severity,
    process::link::{self, Assignment, Ended, MAX_LINE, Message, Order},
    rt::tasks,
};

/// Which process, in the order of their starts.
pub type Id = u64;

/// What a link brings.
#[derive(Debug)]
pub enum Heard {
    Message(Box<Message>),
    /// Nothing more comes.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Init or the first Start has not ended.
    Starting,
    /// It could serve, and waits for the others of its generation.
    Ready,
    Serving,
    /// It was told to end.
    Stopping,
}

pub struct Process {
    pub place: usize,
    pub source: Rc<Source>,
    pub state: State,
    /// Whether a first Start has succeeded.
    pub is_warm: bool,
    pub started: Instant,
    /// When it began to serve.
    pub serving: Option<Instant>,
    /// What it said when it could not serve.
    pub failed: Option<(u8, String)>,
    /// What it said in the end, and its last numbers.
    pub ended: Option<(Ended, Value)>,
    /// Whether it accepts no connection any more.
    pub is_deaf: bool,
    /// The last report.
    pub report: Option<Value>,
    pub child: Child,
    pub exit: Option<ExitStatus>,
    pub is_silent: bool,
    orders: UnboundedSender<String>,
}

/// What every process is started with.
pub struct Template {
    pub args: Vec<OsString>,
    pub n_places: usize,
}

impl Template {
    /// Starts a process; `heard` gets what it says, and in the end that it says nothing more.
    pub fn start(
        &self,
        place: usize,
        source: &Rc<Source>,
        level: Severity,
        sockets: &[BorrowedFd<'_>],
        heard: impl Fn(Heard) + 'static,
    ) -> io::Result<Process> {
        let (ours, theirs) = UnixStream::pair()?;
        Assignment::send_descriptors(ours.as_fd(), sockets, source.memory())?;
        let (program, args) = self.args.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        // The file that this process was started from, even if another file has its path now.
        let mut command = Command::new("/proc/self/exe");
        command.arg0(program).arg(link::ARGUMENT).args(args);
        // Only the supervisor speaks with the service manager.
        command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").env_remove("WATCHDOG_PID");
        let child = command.stdin(OwnedFd::from(theirs)).spawn()?;
        drop(command);
        ours.set_nonblocking(true)?;
        let (reader, writer) = tokio::net::UnixStream::from_std(ours)?.into_split();
        let (orders, queue) = unbounded_channel();
        tasks::spawn(write(writer, queue));
        tasks::spawn(read(reader, heard));
        let assignment = Assignment {
            place,
            n_places: self.n_places,
            generation: source.number,
            parameters: source.parameters.clone(),
            level,
            image: source.image(),
            listeners: Vec::new(),
            plugin: None,
        };
        let _ = orders.send(assignment.line(source.memory().is_some()));
        Ok(Process {
            place,
            source: Rc::clone(source),
            state: State::Starting,
            is_warm: false,
            started: Instant::now(),
            serving: None,
            failed: None,
            ended: None,
            is_deaf: false,
            report: None,
            child,
            exit: None,
            is_silent: false,
            orders,
        })
    }
}

impl Process {
    /// One that has died is told nothing.
    pub fn tell(&self, order: &Order) {
        let _ = self.orders.send(order.line());
    }

    /// Whether it has ended, and nothing more of what it has said is to come.
    pub fn is_over(&self) -> bool {
        self.exit.is_some() && self.is_silent
    }
}

async fn write(mut writer: OwnedWriteHalf, mut queue: UnboundedReceiver<String>) {
    while let Some(line) = queue.recv().await {
        if writer.write_all(line.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Hands on each line that is a message. Anything else is skipped: the lambda may write to any descriptor.
async fn read(reader: OwnedReadHalf, heard: impl Fn(Heard)) {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut reader).take(MAX_LINE as u64);
        match limited.read_until(b'\n', &mut line).await {
            Ok(1..) => {
                if let Some(message) = Message::parse(&line) {
                    heard(Heard::Message(Box::new(message)));
                }
            }
            Ok(0) | Err(_) => return heard(Heard::End),
        }
    }
}
