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

use super::{
    escrow::{Escrow, ForProcess, Remains},
    source::Source,
};
use crate::{
    journal::Severity,
    process::link::{self, Assignment, Ended, MAX_LINE, Message, Order},
    rt::tasks,
};

/// Which process, in the order of their starts.
pub type Id = u64;

/// Descriptors that the supervisor needs for itself, for each process.
const SPARE: u64 = 32;

/// What a link brings.
#[derive(Debug)]
pub enum Heard {
    Message(Box<Message>),
    /// Something has come over its escrow.
    Escrow,
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
    /// It has crashed, and is not dead yet.
    Crashed,
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
    /// What follows its crash, once that is decided.
    pub sequel: Option<String>,
    /// `None` once it is settled.
    pub escrow: Option<Escrow>,
    /// Once it is settled.
    pub remains: Remains,
    /// Whether it has said that it has crashed.
    pub has_crashed: bool,
    /// Whether it was told to leave its connections to others.
    pub hands_over: bool,
    /// Whether it is looked at again and again for connections at rest.
    pub has_rounds: bool,
    orders: UnboundedSender<String>,
}

/// What every process is started with.
pub struct Template {
    pub args: Vec<OsString>,
    pub n_places: usize,
    /// Descriptors that a process may have.
    pub n_descriptors: u64,
}

impl Template {
    /// Starts a process; `heard` gets what it says, and in the end that it says nothing more.
    pub fn start(
        &self,
        place: usize,
        source: &Rc<Source>,
        level: Severity,
        sockets: &[BorrowedFd<'_>],
        heard: impl Fn(Heard) + Clone + 'static,
    ) -> io::Result<Process> {
        let (ours, theirs) = UnixStream::pair()?;
        let room = (self.n_descriptors / (self.n_places as u64 + 1)).saturating_sub(SPARE);
        let comes = heard.clone();
        let (escrow, theirs_of_escrow) =
            Escrow::new(self.n_descriptors, usize::try_from(room).unwrap_or(usize::MAX), move || {
                comes(Heard::Escrow)
            })?;
        let ForProcess { memory, socket } = theirs_of_escrow;
        let rescue = [memory.as_fd(), socket.as_fd()];
        Assignment::send_descriptors(ours.as_fd(), sockets, source.memory(), rescue)?;
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
            rescue: None,
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
            sequel: None,
            escrow: Some(escrow),
            remains: Remains::default(),
            has_crashed: false,
            hands_over: false,
            has_rounds: false,
            orders,
        })
    }
}

impl Process {
    /// One that has died is told nothing.
    pub fn tell(&self, order: &Order) {
        let _ = self.orders.send(order.line());
    }

    /// Requests that have come to it.
    pub fn n_requests(&self) -> u64 {
        self.escrow.as_ref().map_or(0, |escrow| escrow.board.n_requests())
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
