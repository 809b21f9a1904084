//! The listener and the HTTP server over one bare service; how it starts, and how it ends without losing a request.

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use actix_http::Request;
use actix_service::{fn_factory_with_config, fn_service, map_config};
use actix_web::{HttpServer, dev::AppConfig, rt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::{call::Desk, effe::Effe, error::Error, handler::Handler, signals::Stop};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Whether the effe is on its way out: answers then say `Connection: close`.
#[derive(Default)]
pub struct Drain(AtomicBool);

impl Drain {
    /// Whether it is.
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

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
    /// How long a drain may take.
    pub drain_timeout: Duration,
}

/// Serves until `stop` says to stop, then drains: no new connection is taken, what runs is finished, connections are
/// told to close.
///
/// # Errors
/// The server can't be started.
pub fn serve(
    effe: &Arc<Effe>,
    listener: TcpListener,
    settings: &Settings,
    mut stop: UnboundedReceiver<Stop>,
) -> io::Result<Instant> {
    let drain = Arc::new(Drain::default());
    let factory = {
        let (effe, drain, body_limit) = (Arc::clone(effe), Arc::clone(&drain), settings.body_limit);
        move || {
            let (effe, drain) = (Arc::clone(&effe), Arc::clone(&drain));
            // One handler per thread of the server.
            let service = fn_factory_with_config(move |_: ()| {
                let desk = Rc::new(Desk::default());
                rt::spawn(Rc::clone(&desk).run());
                let handler = Rc::new(Handler { effe: effe.clone(), desk, body_limit, drain: drain.clone() });
                async move {
                    Ok::<_, Infallible>(fn_service(move |request: Request| {
                        let handler = Rc::clone(&handler);
                        async move { Ok::<_, Infallible>(handler.handle(request).await) }
                    }))
                }
            });
            map_config(service, |_: AppConfig| ())
        }
    };
    rt::System::new().block_on(async move {
        let server = HttpServer::new(factory)
            .workers(settings.workers)
            .disable_signals()
            .shutdown_timeout(settings.drain_timeout.as_secs().max(1))
            .listen(listener)?
            .run();
        let handle = server.handle();
        let server = rt::spawn(server);
        let Some(Stop { deadline }) = stop.recv().await else { return Ok(Instant::now()) };
        handle.pause().await;
        drain.0.store(true, Ordering::Relaxed);
        while effe.n_running() > 0 && Instant::now() < deadline {
            rt::time::sleep(Duration::from_millis(5)).await;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let graceful = effe.n_running() == 0;
        let _ = rt::time::timeout(left.max(Duration::from_millis(100)), handle.stop(graceful)).await;
        server.abort();
        Ok(deadline)
    })
}
