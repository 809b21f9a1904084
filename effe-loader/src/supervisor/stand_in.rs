//! Who answers while no process serves: clients that wait get 503, so that they may try elsewhere.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::net::{AddressFamily, getsockname};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    task::JoinHandle,
    time,
};
use tokio_util::either::Either;

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
            tasks::spawn(async move {
                let _ = time::timeout(PATIENCE, turn_away(connection)).await;
            });
        }
        tokio::task::yield_now().await;
    }
}

/// Tells clients whose connections wait for a process that there is none.
pub fn turn_all_away(connections: Vec<OwnedFd>) {
    for connection in connections {
        tasks::spawn(async move {
            let _ = time::timeout(KEPT, turn_away_descriptor(connection)).await;
        });
    }
}

async fn turn_away_descriptor(connection: OwnedFd) -> io::Result<()> {
    if getsockname(&connection)?.address_family() == AddressFamily::UNIX {
        turn_away(UnixStream::from_std(connection.into())?).await
    } else {
        turn_away(TcpStream::from_std(connection.into())?).await
    }
}

async fn turn_away(mut connection: impl AsyncReadExt + AsyncWriteExt + Unpin) -> io::Result<()> {
    let mut buffer = [0; 4096];
    if connection.read(&mut buffer).await? == 0 {
        return Ok(());
    }
    connection.write_all(ANSWER).await?;
    connection.shutdown().await?;
    // If we closed while the client still sends, it could lose the answer.
    while connection.read(&mut buffer).await? > 0 {}
    Ok(())
}
