//! The listener and the HTTP server over one bare service; how it starts, and how it ends without losing a request.

use std::{
    convert::Infallible,
    io,
    net::{Shutdown, SocketAddr, TcpListener},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_service::{fn_factory, map_config};
use actix_utils::future::ready;
use actix_web::{HttpServer, dev::AppConfig, rt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::{
    call::Timeouts,
    control::{Drain, Stop},
    effe::Effe,
    error::Error,
    handler::{Handler, HandlerService},
    health::Health,
    watch::Watch,
};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// A socket that is bound and does not listen yet: a client that comes too early is refused and tries again,
/// instead of waiting for Init.
pub struct Bound {
    socket: Socket,
    /// The real address, also if any port was asked for.
    pub address: SocketAddr,
}

impl Bound {
    /// Binds the first of the addresses that can be bound.
    ///
    /// # Errors
    /// Why the last of them can't.
    pub fn bind(addresses: &[SocketAddr]) -> Result<Bound, Error> {
        let mut last = None;
        for &address in addresses {
            match bind(address) {
                Ok(bound) => return Ok(bound),
                Err(source) => last = Some(Error::Bind { address, source }),
            }
        }
        Err(last.unwrap_or(Error::System { what: "listen", source: io::ErrorKind::AddrNotAvailable.into() }))
    }

    /// Begins to take connections.
    ///
    /// # Errors
    /// Another process has begun to listen there.
    pub fn listen(self) -> Result<TcpListener, Error> {
        let address = self.address;
        self.socket.listen(BACKLOG).map_err(|source| Error::Bind { address, source })?;
        Ok(self.socket.into())
    }
}

fn bind(address: SocketAddr) -> io::Result<Bound> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    let address = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok(Bound { socket, address })
}

/// How to serve.
pub struct Settings {
    /// Threads that serve connections.
    pub workers: usize,
    /// Bytes of a request body.
    pub body_limit: usize,
    /// How long requests may take.
    pub timeouts: Timeouts,
    /// How it ends.
    pub drain: Drain,
    /// What probes on this port are told, if they are the loader's to answer.
    pub probes: Option<Arc<Health>>,
}

/// Serves until `orders` says to stop, then drains: connections are told to close; after the delay no new one is
/// taken, and what runs is finished. The order that it got.
///
/// # Errors
/// The server can't be started.
pub fn serve(
    effe: &Arc<Effe>,
    watch: &Arc<Watch>,
    listener: TcpListener,
    settings: &Settings,
    mut orders: UnboundedReceiver<Stop>,
) -> io::Result<Stop> {
    let factory = {
        let (effe, watch) = (Arc::clone(effe), Arc::clone(watch));
        let (timeouts, body_limit) = (settings.timeouts, settings.body_limit);
        let probes = settings.probes.clone();
        move || {
            let (effe, watch, probes) = (Arc::clone(&effe), Arc::clone(&watch), probes.clone());
            // One handler per thread of the server.
            let service = fn_factory(move || {
                let handler = Handler::new(Arc::clone(&effe), Arc::clone(&watch), timeouts, body_limit);
                ready(Ok::<_, Infallible>(HandlerService {
                    handler: Rc::new(handler),
                    probes: probes.clone(),
                }))
            });
            map_config(service, |_: AppConfig| ())
        }
    };
    let door = listener.try_clone()?;
    let order = rt::System::new().block_on(async move {
        let server = HttpServer::new(factory)
            .workers(settings.workers)
            .disable_signals()
            .shutdown_timeout(settings.drain.timeout.as_secs().max(1))
            .listen(listener)?
            .run();
        let handle = server.handle();
        let server = rt::spawn(server);
        let Some(order) = orders.recv().await else { return Err(io::Error::other("nobody gives orders")) };
        effe.drain();
        rt::time::sleep(order.delay(settings.drain)).await;
        let deadline = order.deadline(settings.drain);
        handle.pause().await;
        // Else the system would go on taking connections that nobody answers.
        let _ = SockRef::from(&door).shutdown(Shutdown::Both);
        while effe.n_running() > 0 && Instant::now() < deadline {
            rt::time::sleep(Duration::from_millis(5)).await;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let graceful = effe.n_running() == 0;
        let _ = rt::time::timeout(left.max(Duration::from_millis(100)), handle.stop(graceful)).await;
        server.abort();
        Ok(order)
    })?;
    Ok(order)
}
