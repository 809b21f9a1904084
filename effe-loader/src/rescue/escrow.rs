//! The escrow: messages with which a process leaves copies of its connections' descriptors with the supervisor, takes
//! over those of others, and tells of its crash. A message is a head, and pairs of numbers.

use std::{
    cell::RefCell,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
};

use super::global::get;

/// Pairs of a message; the system takes 253 descriptors.
pub const MOST: usize = 200;
/// Connections that are given to a process at a time: few, so that each of its threads gets some.
pub const BATCH: usize = 16;
/// Bytes of a pair, and of a message.
const PAIR: usize = 8;
pub const SIZE: usize = PAIR * (MOST + 1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Copies of descriptors: the number of each, and its connection's serial.
    Deposit = 1,
    /// The supervisor need not keep these copies any more.
    Gone,
    /// Connections for the process: a token each.
    Give,
    /// The process has one of them: the token, then the descriptor's number and the serial.
    Took,
    /// A crash: see `note::Note`.
    Fault,
    /// From now on a connection that is clean stays so.
    Quiet,
}

impl Kind {
    fn of(byte: u8) -> Option<Kind> {
        let all = [Kind::Deposit, Kind::Gone, Kind::Give, Kind::Took, Kind::Fault, Kind::Quiet];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A message that has come.
pub struct Message {
    pub kind: Kind,
    pub body: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
}

impl Message {
    /// The pairs that it consists of.
    pub fn pairs(&self) -> impl Iterator<Item = (i32, u32)> {
        self.body.chunks_exact(PAIR).map(|pair| {
            let word = |at: usize| pair[at..at + 4].try_into().unwrap_or_default();
            (i32::from_ne_bytes(word(0)), u32::from_ne_bytes(word(4)))
        })
    }
}

/// Both ends.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Sends a message, of at most [`MOST`] pairs. It never waits.
pub fn send(
    to: impl AsFd,
    kind: Kind,
    pairs: &[(i32, u32)],
    descriptors: &[BorrowedFd<'_>],
) -> rustix::io::Result<()> {
    let mut body = [0; SIZE];
    body[0] = kind as u8;
    for ((one, other), place) in pairs.iter().zip(body[PAIR..].chunks_exact_mut(PAIR)) {
        place[..4].copy_from_slice(&one.to_ne_bytes());
        place[4..].copy_from_slice(&other.to_ne_bytes());
    }
    send_bytes(to, &body[..PAIR * (pairs.len().min(MOST) + 1)], descriptors)
}

/// Sends a message's bytes. It needs no memory, and may be called in a handler of signals.
pub(super) fn send_bytes(
    to: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::MSGSIZE);
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(to, &[IoSlice::new(bytes)], &mut ancillary, flags).map(drop)
}

/// The next message that is here, or `None` at the end. What is no message is skipped: the lambda may write anything.
pub fn receive(from: impl AsFd) -> io::Result<Option<Message>> {
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; SIZE];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let got = recvmsg(&from, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags)?;
        let rights = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(rights) => Some(rights),
            _ => None,
        });
        let descriptors: Vec<OwnedFd> = rights.flatten().collect();
        if got.bytes == 0 {
            return Ok(None);
        }
        if got.bytes >= PAIR
            && let Some(kind) = Kind::of(bytes[0])
        {
            return Ok(Some(Message { kind, body: bytes[PAIR..got.bytes.min(SIZE)].to_vec(), descriptors }));
        }
    }
}

thread_local! {
    /// Copies that the supervisor need not keep any more, until it is told.
    static GONE: RefCell<Vec<(i32, u32)>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn gone(descriptor: i32, serial: u32) {
    let _ = GONE.try_with(|gone| gone.borrow_mut().push((descriptor, serial)));
}

/// Tells the supervisor which of this thread's connections have gone, and leaves copies of `new` ones with it; whether
/// it has them. To be called now and then on each thread that has connections.
pub fn exchange(new: &[(i32, u32)]) -> bool {
    let Some(rescue) = get() else { return true };
    GONE.with_borrow_mut(|gone| {
        // What can't be said now is said the next time.
        while !gone.is_empty() {
            let rest = gone.len().saturating_sub(MOST);
            if send(&rescue.escrow, Kind::Gone, &gone[rest..], &[]).is_err() {
                return;
            }
            gone.truncate(rest);
        }
    });
    let mut descriptors = Vec::with_capacity(new.len());
    descriptors.extend(new.iter().map(|(descriptor, _)| borrow(*descriptor)));
    new.is_empty() || send(&rescue.escrow, Kind::Deposit, new, &descriptors).is_ok()
}

/// A descriptor by its number, which the caller knows to be open.
#[expect(unsafe_code, reason = "a number becomes a descriptor")]
pub(super) fn borrow<'a>(descriptor: i32) -> BorrowedFd<'a> {
    // SAFETY: it is the number of a connection in the scoreboard, whose thread closes it after it has freed its place;
    // in the worst case another of this process's descriptors is meant, and none of its memory.
    unsafe { BorrowedFd::borrow_raw(descriptor) }
}
