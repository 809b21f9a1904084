//! Who stirs while no process runs: sockets that have a connection to accept, and connections with something to read.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::Instant,
};

use rustix::{
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    io::fcntl_dupfd_cloexec,
    net::{RecvFlags, recv},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::JoinHandle,
};

use crate::{net::listeners::Listener, rt::tasks};

/// Events that are taken at a time.
const BATCH: usize = 64;

/// A set of descriptors in the system, which itself can be waited for.
pub struct Watch {
    set: rustix::fd::OwnedFd,
    task: JoinHandle<()>,
}

/// What has stirred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stirred {
    /// A connection waits to be accepted.
    Listener,
    /// The connection with this descriptor.
    Connection(i32),
}

impl Watch {
    /// `stirs` is called whenever something may have stirred. Fails if the system has no descriptor left.
    #[expect(unsafe_code, reason = "a descriptor that tokio waits for")]
    pub fn new(listeners: &[Listener], stirs: impl Fn() + 'static) -> io::Result<Watch> {
        let set = epoll::create(CreateFlags::CLOEXEC)?;
        for listener in listeners {
            epoll::add(&set, &listener.socket, EventData::new_u64(u64::MAX), EventFlags::IN)?;
        }
        let copy = fcntl_dupfd_cloexec(&set, 0)?;
        // SAFETY: the descriptor is the same for as long as its owner lives, which is in there.
        let copy = unsafe { AsyncFd::register_with_interest(copy, Interest::READABLE) }?;
        let task = tasks::spawn(async move {
            while let Ok(mut ready) = copy.readable().await {
                // Before whoever is told looks: what comes after that is told of again.
                ready.clear_ready();
                stirs();
            }
        });
        Ok(Watch { set, task })
    }

    /// Watches a connection, too. To be watched twice is no fault.
    pub fn add(&self, connection: &impl AsFd) {
        let connection = connection.as_fd();
        let number = u64::from(connection.as_raw_fd().cast_unsigned());
        let flags = EventFlags::IN | EventFlags::RDHUP;
        let _ = epoll::add(&self.set, connection, EventData::new_u64(number), flags);
    }

    /// To be called before a connection is closed or given away: a copy of it may live on elsewhere.
    pub fn remove(&self, connection: &impl AsFd) {
        let _ = epoll::delete(&self.set, connection.as_fd());
    }

    /// Some of what has stirred and still does.
    pub fn stirred(&self) -> Vec<Stirred> {
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; BATCH];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let n = epoll::wait(&self.set, &mut events, Some(&now)).unwrap_or(0);
        let of = |event: &Event| match event.data.u64() {
            u64::MAX => Stirred::Listener,
            number => Stirred::Connection(number as i32),
        };
        events[..n].iter().map(of).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether a connection that has stirred has something to read. If not, its client has left.
pub fn has_request(connection: BorrowedFd<'_>) -> bool {
    let peeked = recv(connection, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    match peeked {
        Ok((n, _)) => n > 0,
        // Then it has not stirred.
        Err(err) => err == rustix::io::Errno::AGAIN,
    }
}

/// Whether the effe sleeps, and what is needed for it.
#[derive(Default)]
pub struct Sleep {
    pub is_asleep: bool,
    /// Sleeps so far.
    pub number: u64,
    /// While it sleeps, and no process accepts any more.
    pub watch: Option<Watch>,
    /// Requests at the last look, and since when there has been none.
    pub seen: (u64, Option<Instant>),
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, io::Write, os::unix::net::UnixStream, rc::Rc};

    use super::*;

    #[test]
    fn who_stirs_is_told_again_until_somebody_sees_to_it() {
        tasks::run(async {
            let told = Rc::new(Cell::new(0));
            let watch = Watch::new(&[], {
                let told = Rc::clone(&told);
                move || told.set(told.get() + 1)
            });
            let watch = watch.unwrap();
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let (other, gone) = UnixStream::pair().unwrap();
            watch.add(&ours);
            watch.add(&ours);
            watch.add(&other);
            assert_eq!(watch.stirred(), []);
            theirs.write_all(b"x").unwrap();
            while told.get() == 0 {
                tokio::task::yield_now().await;
            }
            assert_eq!(watch.stirred(), [Stirred::Connection(ours.as_raw_fd())]);
            assert!(has_request(ours.as_fd()));
            watch.remove(&ours);
            drop(gone);
            while told.get() == 1 {
                tokio::task::yield_now().await;
            }
            assert_eq!(watch.stirred(), [Stirred::Connection(other.as_raw_fd())]);
            assert!(!has_request(other.as_fd()));
        })
        .unwrap();
    }
}
