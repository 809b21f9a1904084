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
    /// The id of the request whose run has crashed.
    RequestId,
}

impl Kind {
    fn of(byte: u8) -> Option<Kind> {
        let all =
            [Kind::Deposit, Kind::Gone, Kind::Give, Kind::Took, Kind::Fault, Kind::Quiet, Kind::RequestId];
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

/// Sends a message, of at most [`MOST`] pairs. It never waits, needs no memory, and may be called in a handler of
/// signals.
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

/// The next message that is here, or `None` at the end. What is no message is an error of the kind `InvalidData`, and
/// others may follow: the lambda may write anything, and as much of it as it likes.
pub fn receive(from: impl AsFd) -> io::Result<Option<Message>> {
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
    let kind = Kind::of(bytes[0]).filter(|_| got.bytes >= PAIR).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Some(Message { kind, body: bytes[PAIR..got.bytes.min(SIZE)].to_vec(), descriptors }))
}

thread_local! {
    /// Copies that the supervisor need not keep any more, until it is told.
    static GONE: RefCell<Vec<(i32, u32)>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn gone(descriptor: i32, serial: u32) {
    let _ = GONE.try_with(|gone| gone.borrow_mut().push((descriptor, serial)));
}

/// Tells the supervisor which of this thread's connections have gone, and leaves copies of `new` ones with it; which of
/// them it has not, by their places. To be called now and then on each thread that has connections.
pub fn exchange(new: &[(i32, u32)]) -> Vec<usize> {
    let Some(rescue) = get() else { return Vec::new() };
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
    if new.is_empty() {
        return Vec::new();
    }
    let mut failed = Vec::new();
    deposit(new, |pairs| send_copies(&rescue.escrow, pairs), |n| failed.push(n));
    failed
}

/// Leaves copies with the supervisor, all at once, or one by one if there is something wrong with one of them: the
/// lambda may close any descriptor. `fails` is told the places of those that the supervisor doesn't get. It needs no
/// memory, and may be called in a handler of signals.
pub(super) fn deposit(
    pairs: &[(i32, u32)],
    mut send: impl FnMut(&[(i32, u32)]) -> rustix::io::Result<()>,
    mut fails: impl FnMut(usize),
) {
    match send(pairs) {
        Ok(()) => {}
        Err(err) if is_full(err) => (0..pairs.len()).for_each(fails),
        Err(_) => {
            pairs.chunks(1).enumerate().filter(|(_, one)| send(one).is_err()).for_each(|(n, _)| fails(n))
        }
    }
}

/// Whether the same message may be sent later.
pub fn is_full(err: Errno) -> bool {
    [Errno::AGAIN, Errno::INTR, Errno::NOBUFS, Errno::NOMEM, Errno::TOOMANYREFS].contains(&err)
}

/// Sends copies of the descriptors with these numbers.
pub(super) fn send_copies(to: impl AsFd, pairs: &[(i32, u32)]) -> rustix::io::Result<()> {
    let mut descriptors = [borrow(0); MOST];
    for (place, (descriptor, _)) in descriptors.iter_mut().zip(pairs) {
        *place = borrow(*descriptor);
    }
    send(to, Kind::Deposit, pairs, &descriptors[..pairs.len().min(MOST)])
}

/// A descriptor by its number, which the caller knows to be open.
#[expect(unsafe_code, reason = "a number becomes a descriptor")]
pub(super) fn borrow<'a>(descriptor: i32) -> BorrowedFd<'a> {
    // SAFETY: it is the number of a connection in the scoreboard, whose thread closes it after it has freed its place;
    // in the worst case another of this process's descriptors is meant, and none of its memory.
    unsafe { BorrowedFd::borrow_raw(descriptor) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_descriptor_that_is_none_costs_no_other_its_place() {
        let (ours, theirs) = pair().unwrap();
        let good: Vec<OwnedFd> = (0..3).map(|_| pair().unwrap().0).collect();
        let mut pairs: Vec<(i32, u32)> = good.iter().map(|one| one.as_raw_fd()).zip(1..).collect();
        pairs.insert(1, (i32::MAX, 9));
        let mut failed = Vec::new();
        deposit(&pairs, |pairs| send_copies(&theirs, pairs), |n| failed.push(n));
        assert_eq!(failed, [1]);
        let mut got = Vec::new();
        while let Ok(Some(message)) = receive(&ours) {
            assert_eq!((message.kind, message.descriptors.len()), (Kind::Deposit, message.pairs().count()));
            got.extend(message.pairs().map(|(_, serial)| serial));
        }
        assert_eq!(got, [1, 2, 3]);
    }

    #[test]
    fn what_is_no_message_is_told_of_one_by_one() {
        let (ours, theirs) = pair().unwrap();
        for bytes in [&[0; 8][..], &[255; 100], &[1; 3]] {
            send_bytes(&theirs, bytes, &[]).unwrap();
        }
        send(&theirs, Kind::Quiet, &[], &[]).unwrap();
        for _ in 0..3 {
            assert_eq!(receive(&ours).err().unwrap().kind(), io::ErrorKind::InvalidData);
        }
        assert_eq!(receive(&ours).unwrap().unwrap().kind, Kind::Quiet);
        drop(theirs);
        assert!(receive(&ours).unwrap().is_none());
    }
}
