//! The supervisor's end of a process's link: lines go out in order, and come in. What is written or read by halves is
//! there for whoever goes on with it.

use std::{
    cell::RefCell,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream as Socket,
    },
    rc::Rc,
};

use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::{
    io::Interest,
    net::UnixStream,
    sync::Notify,
    task::{self, JoinHandle},
};

use crate::{process::link::MAX_LINE, rt::tasks};

/// Is told each line, and `None` once nothing more comes.
type Hears = dyn Fn(Option<&[u8]>);

/// Bytes that are read at a time.
const PIECE: usize = 8 << 10;

/// Open until it is dropped.
pub struct Wire {
    ends: Rc<Ends>,
    tasks: [JoinHandle<()>; 2],
}

struct Ends {
    socket: UnixStream,
    halves: RefCell<Halves>,
    /// There is something to send.
    more: Notify,
}

/// The begin of a line that has been read, and what has not been sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Halves {
    pub read: Vec<u8>,
    pub unsent: Vec<u8>,
}

impl Wire {
    /// `hears` is told each line, and `None` once nothing more comes.
    pub fn open(socket: Socket, halves: Halves, hears: impl Fn(Option<&[u8]>) + 'static) -> io::Result<Wire> {
        socket.set_nonblocking(true)?;
        let socket = UnixStream::from_std(socket)?;
        let ends = Rc::new(Ends { socket, halves: RefCell::new(halves), more: Notify::new() });
        let tasks =
            [tasks::spawn(read(Rc::clone(&ends), Box::new(hears))), tasks::spawn(write(Rc::clone(&ends)))];
        Ok(Wire { ends, tasks })
    }

    /// Sends a line, as soon as its reader has room for it.
    pub fn send(&self, line: &str) {
        self.ends.halves.borrow_mut().unsent.extend_from_slice(line.as_bytes());
        self.ends.more.notify_one();
    }

    pub fn halves(&self) -> Halves {
        self.ends.halves.borrow().clone()
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ends.socket.as_fd()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn write(ends: Rc<Ends>) {
    loop {
        while !ends.halves.borrow().unsent.is_empty() {
            if ends.socket.writable().await.is_err() {
                return;
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let send = || Ok(send(&ends.socket, &ends.halves.borrow().unsent, flags)?);
            match ends.socket.try_io(Interest::WRITABLE, send) {
                Ok(n) => drop(ends.halves.borrow_mut().unsent.drain(..n)),
                Err(err) if is_for_later(&err) => {}
                // One that has gone is told nothing.
                Err(_) => return,
            }
        }
        ends.more.notified().await;
    }
}

async fn read(ends: Rc<Ends>, hears: Box<Hears>) {
    let mut piece = vec![0; PIECE];
    while ends.socket.readable().await.is_ok() {
        let recv = || Ok(recv(&ends.socket, &mut piece[..], RecvFlags::DONTWAIT)?.0);
        match ends.socket.try_io(Interest::READABLE, recv) {
            Ok(n @ 1..) => take(&mut ends.halves.borrow_mut().read, &piece[..n], &*hears),
            Err(err) if is_for_later(&err) => {}
            Ok(0) | Err(_) => break,
        }
        // A process may always have something to say.
        task::yield_now().await;
    }
    hears(None);
}

fn is_for_later(err: &io::Error) -> bool {
    [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted].contains(&err.kind())
}

/// Hands on each line that is whole now. One that is too long is dropped.
fn take(read: &mut Vec<u8>, piece: &[u8], hears: impl Fn(Option<&[u8]>)) {
    for part in piece.split_inclusive(|byte| *byte == b'\n') {
        read.extend_from_slice(part);
        let is_whole = part.ends_with(b"\n");
        if is_whole {
            hears(Some(read));
        }
        if is_whole || read.len() >= MAX_LINE {
            read.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn lines_go_on_where_another_program_left_them() {
        tasks::run(async {
            let (ours, mut theirs) = Socket::pair().unwrap();
            let heard = Rc::new(RefCell::new(Vec::new()));
            let hears = |heard: &Rc<RefCell<Vec<Option<String>>>>| {
                let heard = Rc::clone(heard);
                move |line: Option<&[u8]>| {
                    let line = line.map(|line| String::from_utf8_lossy(line).into_owned());
                    heard.borrow_mut().push(line);
                }
            };
            let wire = Wire::open(ours.try_clone().unwrap(), Halves::default(), hears(&heard)).unwrap();
            theirs.write_all(b"one\ntwo\nthr").unwrap();
            while wire.halves().read != b"thr" {
                task::yield_now().await;
            }
            assert_eq!(heard.take(), [Some("one\n".to_owned()), Some("two\n".to_owned())]);
            let mut halves = wire.halves();
            drop(wire);
            halves.unsent = b"first, ".to_vec();
            let wire = Wire::open(ours, halves, hears(&heard)).unwrap();
            wire.send("then\n");
            theirs.write_all(b"ee\n").unwrap();
            theirs.set_nonblocking(true).unwrap();
            let mut said = Vec::new();
            while !said.ends_with(b"\n") {
                let _ = theirs.read_to_end(&mut said);
                task::yield_now().await;
            }
            assert_eq!(said, b"first, then\n");
            drop(theirs);
            while heard.borrow().last() != Some(&None) {
                task::yield_now().await;
            }
            assert_eq!(heard.take(), [Some("three\n".to_owned()), None]);
        })
        .unwrap();
    }

    #[test]
    fn a_line_that_is_too_long_costs_only_itself() {
        let (mut read, heard) = (Vec::new(), RefCell::new(0));
        let hears = |line: Option<&[u8]>| *heard.borrow_mut() += usize::from(line == Some(b"good\n"));
        for _ in 0..2 * MAX_LINE / PIECE {
            take(&mut read, &[b'x'; PIECE], hears);
            assert!(read.len() <= MAX_LINE);
        }
        take(&mut read, b"\ngood\n", hears);
        assert_eq!((heard.into_inner(), read.len()), (1, 0));
    }
}
