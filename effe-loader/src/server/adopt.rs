//! Connections that another process of the effe has left: they come from the supervisor, a few at a time, to whichever
//! thread is free, and go on here as if they had been accepted.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use rustix::{
    io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd},
    net::{AddressFamily, getsockname},
};
use tokio::{
    io::Interest,
    net::{TcpStream, UnixStream},
    time,
};

use super::{Worker, open_tcp, open_unix, serve_opened};
use crate::{
    effe::Effe,
    net::connection::Connection,
    rescue::{
        escrow::{self, Kind},
        global,
    },
    rt::tasks,
};

/// When to tell the supervisor again what it has no room for now.
const RETRY: Duration = Duration::from_millis(1);

/// Takes connections over for as long as this thread serves and the effe is not about to stop.
pub(super) async fn adopt(worker: Worker, effe: Arc<Effe>) {
    if let Err(err) = run(&worker, &effe).await {
        effe.journal.error(format!("connections of other processes can't be taken over: {err}"));
    }
}

async fn run(worker: &Worker, effe: &Effe) -> io::Result<()> {
    let Some(rescue) = global::get() else { return Ok(()) };
    // Each thread has one of its own: a descriptor can be waited for by one thread alone.
    let socket = fcntl_dupfd_cloexec(&rescue.escrow, 0)?;
    // It carries whole messages; only that it is ready is read as from a stream.
    let socket = UnixStream::from_std(socket.into())?;
    loop {
        socket.readable().await?;
        if global::is_dying() || effe.is_draining() {
            return Ok(());
        }
        match socket.try_io(Interest::READABLE, || escrow::receive(&socket)) {
            Ok(None) => return Ok(()),
            Ok(Some(message)) if message.kind == Kind::Give => {
                if global::is_dying() {
                    return Ok(());
                }
                let tokens: Vec<u32> = message.pairs().map(|(_, token)| token).collect();
                for (token, descriptor) in tokens.into_iter().zip(message.descriptors) {
                    // One that can't be opened is closed, and the supervisor's copy of it with this process.
                    let _ = open(worker, token, descriptor);
                }
            }
            Ok(Some(_)) => {}
            Err(err) if [io::ErrorKind::WouldBlock, io::ErrorKind::InvalidData].contains(&err.kind()) => {}
            Err(err) => return Err(err),
        }
        // So that other threads get some, too.
        tokio::task::yield_now().await;
    }
}

fn open(worker: &Worker, token: u32, descriptor: OwnedFd) -> io::Result<()> {
    fcntl_setfd(&descriptor, FdFlags::CLOEXEC)?;
    let number = descriptor.as_raw_fd();
    let (socket, peer) = if getsockname(&descriptor)?.address_family() == AddressFamily::UNIX {
        open_unix(UnixStream::from_std(descriptor.into())?)
    } else {
        open_tcp(TcpStream::from_std(descriptor.into())?)
    };
    let connection = Connection::plain(worker.connections.register(), socket);
    if !connection.can_be_served() {
        std::mem::forget(connection);
        return Ok(());
    }
    // The supervisor has a copy already.
    let deposited = connection.activity().slot.deposit();
    let worker = worker.clone();
    tasks::spawn(async move {
        if let Some((_, serial)) = deposited {
            say_took(token, number, serial).await;
        }
        serve_opened(worker, Some(connection), peer).await;
    });
    Ok(())
}

/// Tells the supervisor that the connection is served here from now on. Until it knows, nothing may be read: it would
/// give the connection to another process if this one died.
async fn say_took(token: u32, number: i32, serial: u32) {
    let Some(rescue) = global::get() else { return };
    let pairs = [(0, token), (number, serial)];
    while escrow::send(&rescue.escrow, Kind::Took, &pairs, &[]).is_err_and(escrow::is_full) {
        time::sleep(RETRY).await;
    }
}
