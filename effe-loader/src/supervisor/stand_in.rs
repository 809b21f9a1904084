//! Who answers while no process serves: clients that wait get 503, so that they may try elsewhere.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, getsockname, recv, send, shutdown};

use tokio::{
    io::Interest,
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    task::JoinHandle,
    time,
};
use tokio_util::either::Either;

use super::lingering::Lingering;
use crate::{
    net::listeners::{Listener, Stream},
    rt::tasks,
};

const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 21\r\n\
    content-type: text/plain; charset=utf-8\r\nretry-after: 1\r\nconnection: close\r\n\r\nthe server is not up\n";
/// How long a client may take for its request, and to read the answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a connection that was open already is kept for its next request.
const KEPT: Duration = Duration::from_secs(5);
/// Connections at a time, on each socket.
const BATCH: usize = 64;

/// Answers until it is dropped.
pub struct StandIn(Vec<JoinHandle<()>>);

impl StandIn {
    /// Fails if the system has no descriptor left.
    pub fn new(listeners: &[Listener]) -> io::Result<StandIn> {
        let mut stand_in = StandIn(Vec::new());
        for listener in listeners {
            let stream = listener.stream()?;
            stand_in.0.push(tasks::spawn(async move {
                let _ = serve(stream).await;
            }));
        }
        Ok(stand_in)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

async fn serve(stream: Stream) -> io::Result<()> {
    // The processes have set it already: it is a property of the socket that all of them share.
    let socket = match stream {
        Stream::Tcp(socket) => {
            socket.set_nonblocking(true)?;
            Either::Left(TcpListener::from_std(socket)?)
        }
        Stream::Unix(socket) => {
            socket.set_nonblocking(true)?;
            Either::Right(UnixListener::from_std(socket)?)
        }
    };
    loop {
        for _ in 0..BATCH {
            let connection = match &socket {
                Either::Left(socket) => Either::Left(socket.accept().await?.0),
                Either::Right(socket) => Either::Right(socket.accept().await?.0),
            };
            let lingering = Lingering::begin();
            tasks::spawn(async move {
                let _ = time::timeout(PATIENCE, turn_away(connection)).await;
                drop(lingering);
            });
        }
        tokio::task::yield_now().await;
    }
}

/// Tells clients whose connections wait for a process that there is none.
pub fn turn_all_away(connections: Vec<OwnedFd>) {
    for connection in connections {
        let lingering = Lingering::begin();
        tasks::spawn(async move {
            if let Ok(connection) = of_descriptor(connection) {
                let _ = time::timeout(KEPT, turn_away(connection)).await;
            }
            drop(lingering);
        });
    }
}

fn of_descriptor(connection: OwnedFd) -> io::Result<Either<TcpStream, UnixStream>> {
    Ok(if getsockname(&connection)?.address_family() == AddressFamily::UNIX {
        Either::Right(UnixStream::from_std(connection.into())?)
    } else {
        Either::Left(TcpStream::from_std(connection.into())?)
    })
}

/// It reads and writes past tokio: a second user of its streams would keep the compiler from inlining them where
/// requests are read.
async fn turn_away(connection: Either<TcpStream, UnixStream>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    if read(&connection, &mut buffer).await? == 0 {
        return Ok(());
    }
    send(descriptor(&connection), ANSWER, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    shutdown(descriptor(&connection), Shutdown::Write)?;
    // If we closed while the client still sends, it could lose the answer.
    while read(&connection, &mut buffer).await? > 0 {}
    Ok(())
}

async fn read(connection: &Either<TcpStream, UnixStream>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match connection {
            Either::Left(tcp) => tcp.readable().await?,
            Either::Right(unix) => unix.readable().await?,
        }
        let read = || Ok(recv(descriptor(connection), &mut buffer[..], RecvFlags::DONTWAIT)?.0);
        let read = match connection {
            Either::Left(tcp) => tcp.try_io(Interest::READABLE, read),
            Either::Right(unix) => unix.try_io(Interest::READABLE, read),
        };
        match read {
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

fn descriptor(connection: &Either<TcpStream, UnixStream>) -> BorrowedFd<'_> {
    match connection {
        Either::Left(tcp) => tcp.as_fd(),
        Either::Right(unix) => unix.as_fd(),
    }
}
