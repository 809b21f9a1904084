//! The supervisor's end of a process's escrow: copies of the descriptors of its connections. After its death the
//! scoreboard says what becomes of each of them.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
    sync::atomic::Ordering,
    time::Duration,
};

use rustix::net::{SendFlags, Shutdown, send, shutdown};
use serde_json::{Value, json};
use tokio::{io::Interest, net::UnixStream, task::JoinHandle, time};

use super::{
    carried::{Incoming, Outgoing, bytes},
    lingering::Lingering,
};
use crate::{
    rescue::{
        board::Board,
        entry::{TOLD, state},
        escrow::{self, BATCH, Kind, Message},
        note::Note,
        slot,
    },
    rt::tasks,
};

/// What the client of a request is told that its process has not answered.
const RETRY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 33\r\n\
    content-type: text/plain; charset=utf-8\r\nretry-after: 1\r\nconnection: close\r\n\r\n\
    the server has failed; try again\n";
/// How long a connection stays open after that, so that its client gets it.
const LINGER: Duration = Duration::from_secs(1);

/// Messages that are taken in before others have their turn: a process may always send.
const AT_ONCE: usize = 64;

/// A process may claim to have counted anything: sums must not overflow.
const MOST_COUNTED: u64 = u64::MAX >> 16;

pub struct Escrow {
    /// It carries whole messages; only that it is ready is read as from a stream.
    socket: Rc<UnixStream>,
    _watch: Watch,
    /// What the scoreboard is mapped from.
    memory: OwnedFd,
    pub board: Board,
    /// By the number that each has in the process: its connection's serial, and the copy.
    held: HashMap<i32, (u32, OwnedFd)>,
    /// Given to the process, which has not said that it has them: by token.
    in_transit: HashMap<u32, OwnedFd>,
    /// Copies that may be held; beyond them, connections go with their process.
    room: usize,
    /// What the process has said of its crash.
    pub note: Option<Note>,
    /// The id of the request that has crashed it, if there is one.
    pub request_id: Option<String>,
    /// Whether the process reads nothing any more from connections at rest.
    pub is_quiet: bool,
}

/// A task that says when something comes, until this is dropped.
struct Watch(JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a process needs for its own end.
pub struct ForProcess {
    pub memory: OwnedFd,
    pub socket: OwnedFd,
}

/// What a process has said and counted in its life.
#[derive(Default)]
pub struct Remains {
    /// What it has said of its crash.
    pub note: Option<Note>,
    pub request_id: Option<String>,
    /// Runs that had ended in it.
    pub n_runs: u64,
    /// Contexts that were started in it, and stopped.
    pub contexts: [u64; 2],
}

/// What a process has left, once it is dead.
#[derive(Default)]
pub struct Left {
    /// Connections that can go on elsewhere.
    pub clean: Vec<OwnedFd>,
    /// Requests whose clients were told to try again.
    pub n_told: u64,
    /// Answers that were broken off.
    pub n_broken: u64,
}

impl Escrow {
    /// `comes` is called whenever something may have come.
    pub fn new(
        n_descriptors: u64,
        room: usize,
        comes: impl Fn() + 'static,
    ) -> io::Result<(Escrow, ForProcess)> {
        let memory = Board::memory(n_descriptors)?;
        let (ours, theirs) = escrow::pair()?;
        let escrow = Escrow::open(memory.try_clone()?, ours, room, comes)?;
        Ok((escrow, ForProcess { memory, socket: theirs }))
    }

    fn open(memory: OwnedFd, socket: OwnedFd, room: usize, comes: impl Fn() + 'static) -> io::Result<Escrow> {
        let socket = Rc::new(UnixStream::from_std(socket.into())?);
        let ready = Rc::clone(&socket);
        let task = tasks::spawn(async move {
            while let Ok(what) = ready.ready(Interest::READABLE).await {
                // Until the next one comes, wherever this one is taken.
                let taken = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
                let _ = ready.try_io(Interest::READABLE, taken);
                comes();
                if what.is_read_closed() {
                    return;
                }
            }
        });
        Ok(Escrow {
            socket,
            _watch: Watch(task),
            board: Board::map(&memory)?,
            memory,
            held: HashMap::new(),
            in_transit: HashMap::new(),
            room,
            note: None,
            request_id: None,
            is_quiet: false,
        })
    }

    /// For [`Escrow::carried`] in the program that goes on.
    pub fn carry<'a>(&'a self, out: &mut Outgoing<'a>) -> Value {
        let held = self.held.iter();
        let held: Vec<Value> =
            held.map(|(number, (serial, copy))| json!([number, serial, out.put(copy)])).collect();
        let in_transit = self.in_transit.iter();
        let in_transit: Vec<Value> = in_transit.map(|(token, copy)| json!([token, out.put(copy)])).collect();
        json!({
            "socket": out.put(&*self.socket),
            "memory": out.put(&self.memory),
            "held": held,
            "in_transit": in_transit,
            "room": self.room,
            "note": self.note.as_ref().map(|note| note.bytes().to_vec()),
            "request_id": self.request_id,
            "is_quiet": self.is_quiet,
        })
    }

    pub fn carried(value: &Value, incoming: &mut Incoming, comes: impl Fn() + 'static) -> Option<Escrow> {
        let (memory, socket) = (incoming.take(&value["memory"])?, incoming.take(&value["socket"])?);
        let room = usize::try_from(value["room"].as_u64()?).ok()?;
        let mut escrow = Escrow::open(memory, socket, room, comes).ok()?;
        for one in value["held"].as_array()? {
            let number = i32::try_from(one[0].as_i64()?).ok()?;
            let serial = u32::try_from(one[1].as_u64()?).ok()?;
            escrow.held.insert(number, (serial, incoming.take(&one[2])?));
        }
        for one in value["in_transit"].as_array()? {
            escrow.in_transit.insert(u32::try_from(one[0].as_u64()?).ok()?, incoming.take(&one[1])?);
        }
        escrow.note = bytes(&value["note"]).and_then(|bytes| Note::read(&bytes));
        escrow.request_id = value["request_id"].as_str().map(str::to_owned);
        escrow.is_quiet = value["is_quiet"].as_bool()?;
        Some(escrow)
    }

    /// Copies of connections that the process serves.
    pub fn n_held(&self) -> usize {
        self.held.len()
    }

    /// Takes in what is here, at most so many messages; whether there may be more.
    pub fn receive(&mut self) -> bool {
        for _ in 0..AT_ONCE {
            match escrow::receive(&*self.socket) {
                Ok(Some(message)) => self.apply(message),
                Err(err) if err.kind() == io::ErrorKind::InvalidData => {}
                Ok(None) | Err(_) => return false,
            }
        }
        true
    }

    fn apply(&mut self, message: Message) {
        match message.kind {
            Kind::Deposit => {
                let pairs: Vec<_> = message.pairs().collect();
                for ((number, serial), copy) in pairs.into_iter().zip(message.descriptors) {
                    // One that takes the place of another needs no room of its own; and the other has gone.
                    if self.held.remove(&number).is_some() || self.held.len() < self.room {
                        self.held.insert(number, (serial, copy));
                    }
                }
            }
            Kind::Gone => {
                for (number, serial) in message.pairs() {
                    if self.held.get(&number).is_some_and(|(held, _)| *held == serial) {
                        self.held.remove(&number);
                    }
                }
            }
            Kind::Took => {
                let mut pairs = message.pairs();
                if let (Some((_, token)), Some((number, serial))) = (pairs.next(), pairs.next())
                    && let Some(copy) = self.in_transit.remove(&token)
                {
                    self.held.insert(number, (serial, copy));
                }
            }
            Kind::Fault => self.note = self.note.take().or_else(|| Note::read(&message.body)),
            Kind::Quiet => self.is_quiet = true,
            Kind::RequestId => {
                let id = message.body.iter().take_while(|byte| byte.is_ascii_graphic());
                let id: String = id.map(|byte| char::from(*byte)).collect();
                self.request_id = Some(id).filter(|id| !id.is_empty());
            }
            // It is for processes.
            Kind::Give => {}
        }
    }

    /// Takes out the connections at rest of a process that is quiet.
    pub fn take_clean(&mut self) -> Vec<OwnedFd> {
        let is_clean = |number: i32, serial: u32| {
            let entry = self.board.entry(number);
            entry.is_some_and(|entry| {
                entry.serial.load(Ordering::Acquire) == serial
                    && [state::CLEAN, state::SWEPT].contains(&entry.state.load(Ordering::Acquire))
            })
        };
        let held = self.held.iter();
        let clean: Vec<i32> = held
            .filter(|(number, (serial, _))| is_clean(**number, *serial))
            .map(|(number, _)| *number)
            .collect();
        clean.iter().filter_map(|number| Some(self.held.remove(number)?.1)).collect()
    }

    /// Settles what a dead process has left: nothing of it runs any more.
    pub fn settle(mut self) -> (Left, Remains) {
        // More than the socket holds; a child of the dead process may go on sending.
        let _ = (0..64).all(|_| self.receive());
        let mut left = Left { clean: self.take_clean(), ..Left::default() };
        // Nobody has read from these: whoever reads says first that it has them.
        left.clean.extend(self.in_transit.into_values());
        for (number, (serial, copy)) in self.held {
            let Some(entry) = self.board.entry(number) else { continue };
            if entry.serial.load(Ordering::Acquire) != serial {
                continue;
            }
            let is_told = entry.flags.load(Ordering::Acquire) & TOLD != 0;
            match entry.state.load(Ordering::Acquire) {
                state::BUSY | state::PARTIAL if !is_told => {
                    let _ = send(&copy, RETRY, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
                    let _ = shutdown(&copy, Shutdown::Write);
                    left.n_told += 1;
                    linger(copy);
                }
                state::ANSWERING => {
                    // A body that breaks off must not look whole.
                    slot::break_off(&copy, true);
                    left.n_broken += 1;
                }
                // Whoever was told something may still be reading it.
                state::OVER => linger(copy),
                _ => {}
            }
        }
        let contexts = self.board.contexts().each_ref().map(|n| n.load(Ordering::Relaxed) & MOST_COUNTED);
        let n_runs = self.board.n_runs();
        (left, Remains { note: self.note, request_id: self.request_id, n_runs, contexts })
    }

    /// Gives some connections to the process, at most [`BATCH`]; back if it has no room for them now.
    pub fn give(&mut self, connections: Vec<(u32, OwnedFd)>) -> Result<(), Vec<OwnedFd>> {
        let pairs: Vec<(i32, u32)> = connections.iter().take(BATCH).map(|(token, _)| (0, *token)).collect();
        let copies: Vec<BorrowedFd<'_>> = connections.iter().map(|(_, copy)| copy.as_fd()).collect();
        match escrow::send(&*self.socket, Kind::Give, &pairs, &copies) {
            Ok(()) => {
                self.in_transit.extend(connections);
                Ok(())
            }
            Err(_) => Err(connections.into_iter().map(|(_, copy)| copy).collect()),
        }
    }
}

/// Keeps a connection open for a while.
fn linger(copy: OwnedFd) {
    let lingering = Lingering::begin();
    tasks::spawn(async move {
        time::sleep(LINGER).await;
        drop((copy, lingering));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_takes_nothing_gets_nothing_more_and_no_connection_is_lost() {
        tasks::run(async {
            let (mut escrow, theirs) = Escrow::new(16, 16, || {}).unwrap();
            let connection = || escrow::pair().unwrap().0;
            let mut n = 0;
            let back = loop {
                match escrow.give(vec![(n, connection())]) {
                    Ok(()) => n += 1,
                    Err(back) => break back,
                }
            };
            assert_eq!((back.len(), escrow.in_transit.len()), (1, n as usize));
            let mut tokens = Vec::new();
            while let Ok(Some(message)) = escrow::receive(&theirs.socket) {
                assert_eq!(message.descriptors.len(), 1);
                tokens.extend(message.pairs().map(|(_, token)| token));
            }
            assert_eq!(tokens, (0..n).collect::<Vec<_>>());
            assert!(escrow.give(vec![(n, connection())]).is_ok(), "there is room again");
            drop(theirs);
            let (left, _) = escrow.settle();
            assert_eq!(left.clean.len(), n as usize + 1, "those that it has not taken go elsewhere");
        })
        .unwrap();
    }

    #[test]
    fn the_answer_is_as_long_as_it_says() {
        let text = std::str::from_utf8(RETRY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
    }
}
