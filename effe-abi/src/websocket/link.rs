//! The stream below a WebSocket, as `tungstenite` reads and writes it: it waits on the thread, or says that it would
//! have to wait and has a task woken. That the effe stops is noted down, and is no error of the stream's.

use std::io::{self, Read, Write};
#[cfg(feature = "async")]
use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use crate::upgraded::Upgraded;

pub(super) struct Link {
    stream: Upgraded,
    /// Whether the effe stops, and nobody has taken note of it yet.
    away: bool,
    /// The task that waits; `None` if the thread does.
    #[cfg(feature = "async")]
    waker: Option<Waker>,
}

impl Link {
    pub(super) fn new(stream: Upgraded) -> Link {
        Link {
            stream,
            away: false,
            #[cfg(feature = "async")]
            waker: None,
        }
    }

    /// From now on a task waits, which `waker` wakes.
    #[cfg(feature = "async")]
    pub(super) fn wake(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(other) => other.clone_from(waker),
            None => self.waker = Some(waker.clone()),
        }
    }

    pub(super) fn stream(&self) -> &Upgraded {
        &self.stream
    }

    /// Whether the effe stops; once.
    pub(super) fn take_away(&mut self) -> bool {
        std::mem::take(&mut self.away)
    }
}

impl Read for Link {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        #[cfg(feature = "async")]
        let read = match &self.waker {
            None => self.stream.read(buffer),
            Some(waker) => {
                let mut buffer = tokio::io::ReadBuf::new(buffer);
                let mut cx = Context::from_waker(waker);
                match tokio::io::AsyncRead::poll_read(Pin::new(&mut self.stream), &mut cx, &mut buffer) {
                    Poll::Ready(read) => read.map(|()| buffer.filled().len()),
                    Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
                }
            }
        };
        #[cfg(not(feature = "async"))]
        let read = self.stream.read(buffer);
        match read {
            Err(err) if err.kind() == io::ErrorKind::ConnectionAborted => {
                self.away = true;
                Err(io::ErrorKind::WouldBlock.into())
            }
            read => read,
        }
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        #[cfg(feature = "async")]
        if let Some(waker) = &self.waker {
            let mut cx = Context::from_waker(waker);
            return match tokio::io::AsyncWrite::poll_write(Pin::new(&mut self.stream), &mut cx, bytes) {
                Poll::Ready(written) => written,
                Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
            };
        }
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
