//! One of the effe's processes, as its supervisor has it: started with a link, told what to do, heard, and buried.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{
            net::UnixStream,
            process::{CommandExt, ExitStatusExt},
        },
    },
    process::{Command, ExitStatus},
    rc::Rc,
    time::Instant,
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::{Value, json};

use super::{
    carried::{Incoming, Outgoing, ago, bytes, then},
    escrow::{Escrow, ForProcess, Remains},
    source::Source,
    wire::{Halves, Wire},
};
use crate::{
    journal::Severity,
    process::link::{self, Assignment, Ended, Message, Order},
};

/// The variable in which a program that takes another's place is told what it gets. It is not for its processes.
pub const VARIABLE: &str = "_EFFE_STATE";

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
#[repr(u8)]
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

impl State {
    fn of(number: u64) -> Option<State> {
        let all = [State::Starting, State::Ready, State::Serving, State::Stopping, State::Crashed];
        all.into_iter().find(|state| *state as u64 == number)
    }
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
    /// A child of this process's: nobody else has its number before it is waited for.
    pid: Pid,
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
    wire: Wire,
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
        let own = || "/proc/self/exe".to_owned();
        let file =
            source.program.as_ref().map_or_else(own, |file| format!("/proc/self/fd/{}", file.as_raw_fd()));
        let mut command = Command::new(file);
        command.arg0(program).arg(link::ARGUMENT).args(args);
        // Only the supervisor speaks with the service manager.
        command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").env_remove("WATCHDOG_PID");
        command.env_remove(VARIABLE);
        let child = command.stdin(OwnedFd::from(theirs)).spawn()?;
        drop(command);
        let pid = Pid::from_child(&child);
        let wire = Wire::open(ours, Halves::default(), hears(heard))?;
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
        wire.send(&assignment.line(source.memory().is_some()));
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
            pid,
            exit: None,
            is_silent: false,
            sequel: None,
            escrow: Some(escrow),
            remains: Remains::default(),
            has_crashed: false,
            hands_over: false,
            has_rounds: false,
            wire,
        })
    }
}

impl Process {
    /// For [`Process::carried`] in the program that goes on; `source` is the number of what it serves there. It has not
    /// ended, as far as this program knows.
    pub fn carry<'a>(&'a self, source: usize, out: &mut Outgoing<'a>) -> Value {
        let Halves { read, unsent } = self.wire.halves();
        let ended = self
            .ended
            .as_ref()
            .map(|(ended, scrape)| json!([ended.started, ended.abandoned, ended.cut_off, scrape]));
        json!({
            "place": self.place,
            "source": source,
            "state": self.state as u8,
            "is_warm": self.is_warm,
            "started": ago(self.started),
            "serving": self.serving.map(ago),
            "failed": self.failed,
            "ended": ended,
            "is_deaf": self.is_deaf,
            "report": self.report,
            "pid": self.pid.as_raw_nonzero().get(),
            "is_silent": self.is_silent,
            "sequel": self.sequel,
            "escrow": self.escrow.as_ref().map(|escrow| escrow.carry(out)),
            "has_crashed": self.has_crashed,
            "hands_over": self.hands_over,
            "link": out.put(&self.wire),
            "read": read,
            "unsent": unsent,
        })
    }

    /// `heard` is as in [`Template::start`].
    pub fn carried(
        value: &Value,
        sources: &[Rc<Source>],
        incoming: &mut Incoming,
        heard: impl Fn(Heard) + Clone + 'static,
    ) -> Option<Process> {
        let flag = |key: &str| value[key].as_bool();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let socket = UnixStream::from(incoming.take(&value["link"])?);
        let halves = Halves { read: bytes(&value["read"])?, unsent: bytes(&value["unsent"])? };
        let comes = heard.clone();
        let escrow = match &value["escrow"] {
            Value::Null => None,
            escrow => Some(Escrow::carried(escrow, incoming, move || comes(Heard::Escrow))?),
        };
        let failed = &value["failed"];
        let ended = &value["ended"];
        let ended = match ended {
            Value::Null => None,
            _ => {
                let [started, abandoned, cut_off] = [0, 1, 2].map(|n| ended[n].as_u64());
                let said = Ended { started: started?, abandoned: abandoned?, cut_off: cut_off? };
                Some((said, ended[3].clone()))
            }
        };
        Some(Process {
            place: usize::try_from(value["place"].as_u64()?).ok()?,
            source: Rc::clone(sources.get(usize::try_from(value["source"].as_u64()?).ok()?)?),
            state: State::of(value["state"].as_u64()?)?,
            is_warm: flag("is_warm")?,
            started: then(&value["started"])?,
            serving: then(&value["serving"]),
            failed: u8::try_from(failed[0].as_u64().unwrap_or(u64::MAX)).ok().zip(text(&failed[1])),
            ended,
            is_deaf: flag("is_deaf")?,
            report: Some(value["report"].clone()).filter(|report| !report.is_null()),
            pid: Pid::from_raw(i32::try_from(value["pid"].as_i64()?).ok()?)?,
            exit: None,
            is_silent: flag("is_silent")?,
            sequel: text(&value["sequel"]),
            escrow,
            remains: Remains::default(),
            has_crashed: flag("has_crashed")?,
            hands_over: flag("hands_over")?,
            has_rounds: false,
            wire: Wire::open(socket, halves, hears(heard)).ok()?,
        })
    }

    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Looks whether it has ended; true if that is new.
    pub fn look(&mut self) -> bool {
        if self.exit.is_some() {
            return false;
        }
        if let Ok(Some((_, status))) = waitpid(Some(self.pid), WaitOptions::NOHANG) {
            self.exit = Some(ExitStatus::from_raw(status.as_raw()));
        }
        self.exit.is_some()
    }

    /// Ends it at once. Once it is waited for, another process may have its number.
    pub fn kill(&self) {
        if self.exit.is_none() {
            let _ = kill_process(self.pid, Signal::KILL);
        }
    }

    /// One that has died is told nothing.
    pub fn tell(&self, order: &Order) {
        self.wire.send(&order.line());
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

/// Hands on each line that is a message. Anything else is skipped: the lambda may write to any descriptor.
fn hears(heard: impl Fn(Heard) + 'static) -> impl Fn(Option<&[u8]>) + 'static {
    move |line| match line {
        Some(line) => {
            if let Some(message) = Message::parse(line) {
                heard(Heard::Message(Box::new(message)));
            }
        }
        None => heard(Heard::End),
    }
}
