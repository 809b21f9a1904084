//! The HTTP server: its threads, which accept connections and hand them to the protocols, and how it ends without
//! losing a request. actix-server owns the threads; the handler answers requests.

mod adopt;
mod threads;

use std::{
    cell::OnceCell,
    convert::Infallible,
    future::ready,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use actix_rt::Arbiter;
use actix_service::{ServiceFactory, fn_factory, fn_service};
use actix_web::{
    dev::{self, ServerHandle},
    rt,
};
use tokio::{
    net::{TcpStream, UnixStream},
    sync::mpsc::UnboundedReceiver,
    time,
};

pub use self::threads::OnDeath;
use self::threads::{Alive, Deaths};
use crate::{
    effe::{Effe, health::Health, monitor::Monitor},
    handler::{
        Handler,
        access_log::{AccessLog, Wanted},
        service::HandlerService,
    },
    http::{h1::Http1, h2, service::Service},
    net::{
        activity::ClientTimeouts,
        connection::Connection,
        connections::{Connections, Registration},
        listeners::{Listener, Stream},
        plain::{self, Plain},
        tls::Tls,
        tracker::ConnectionTracker,
    },
    process::{
        control::{Drain, Stop},
        systemd,
    },
    rescue::{self, hand_over},
    rt::tasks,
};

/// How long a client may take to complete TCP's handshake, if it began before the listeners stopped accepting.
const HANDSHAKE: Duration = Duration::from_millis(50);
/// How long runs may take to see that their connections are closed, once the time to stop is over.
const CUT_OFF: Duration = Duration::from_millis(500);
/// How often the drain looks whether all connections have closed.
const LOOK: Duration = Duration::from_millis(5);

#[derive(Clone, Debug)]
pub struct Settings {
    /// Threads that serve connections.
    pub workers: usize,
    pub client_timeouts: ClientTimeouts,
    /// Connections at once; `None` for as many as the system's limit suggests.
    pub max_connections: Option<usize>,
    /// How long the end may take.
    pub drain: Drain,
    /// How long no request must have come for the effe to end until the next one.
    pub idle_exit: Option<Duration>,
    /// Whether the loader answers probes on this port, and not the lambda.
    pub answers_probes: bool,
    pub access_log: Wanted,
    /// The certificate, if connections are encrypted.
    pub tls: Option<Arc<Tls>>,
}

/// What serves one effe: its listeners, and what each of its threads needs.
pub struct Server {
    pub effe: Arc<Effe>,
    pub monitor: Arc<Monitor>,
    pub health: Arc<Health>,
    pub listeners: Vec<Listener>,
    pub settings: Arc<Settings>,
    /// How many descriptors this process may have.
    pub n_descriptors: u64,
    /// Orders the end of an effe that has had no request for long, if it is to end then.
    pub on_idle: Option<Box<dyn FnOnce()>>,
}

/// Serves until `orders` says to stop, then drains: after the delay no new connection is accepted, clients are told
/// that their connections close, and what runs is finished. Gives the order back, and how many runs were cut off at its
/// deadline. Fails if the server can't start.
///
/// `begun` is called once every thread of the server runs, `deaf` once no connection is accepted any more. From `begun`
/// on `on_death` hears of each thread that ends, also at the end.
pub fn serve(
    server: Server,
    mut orders: UnboundedReceiver<Stop>,
    begun: impl FnOnce(),
    deaf: impl FnOnce(),
    on_death: OnDeath,
) -> io::Result<(Stop, usize)> {
    let Server { effe, monitor, health, mut listeners, settings, n_descriptors, on_idle } = server;
    let (tracker, deaths) = (Arc::new(ConnectionTracker::default()), Deaths::new(on_death));
    let acceptor = Acceptor {
        effe: Arc::clone(&effe),
        monitor,
        tracker: Arc::clone(&tracker),
        health,
        settings: Arc::clone(&settings),
        deaths: Arc::clone(&deaths),
    };
    // The lambda needs the other half of the descriptors. No process serves more than a million connections.
    let suggested = usize::try_from(n_descriptors / 2).unwrap_or(usize::MAX).clamp(1, 1 << 20);
    let max_connections = settings.max_connections.unwrap_or(suggested);
    tasks::run(async move {
        let mut builder = dev::Server::build()
            .workers(settings.workers)
            .max_concurrent_connections(max_connections.div_ceil(settings.workers))
            .disable_signals();
        let streams: Vec<(String, Stream)> = listeners
            .iter()
            .map(|listener| Ok((listener.address.to_string(), listener.stream()?)))
            .collect::<io::Result<_>>()?;
        if rescue::global::is_supervised() {
            let descriptors: Vec<_> = streams.iter().map(|(_, stream)| stream.as_raw_fd()).collect();
            // Another process could do nothing with a connection over TLS that has been accepted here.
            rescue::fault::accepts_on(&descriptors, settings.tls.is_none());
        }
        for (name, stream) in streams {
            let acceptor = acceptor.clone();
            builder = match stream {
                Stream::Tcp(socket) => {
                    builder.listen(name, socket, move || acceptor.clone().service(open_tcp))
                }
                Stream::Unix(socket) => {
                    builder.listen_uds(name, socket, move || acceptor.clone().service(open_unix))
                }
            }?;
        }
        let mut server = builder.run();
        let handle = server.handle();
        let is_deaf = threads::start(&mut server, Arc::clone(&deaths)).await?;
        begun();
        if let (Some(idle), Some(on_idle)) = (settings.idle_exit, on_idle) {
            let (effe, tracker) = (Arc::clone(&effe), Arc::clone(&tracker));
            tasks::spawn(async move {
                wait_until_idle(&effe, &tracker, idle).await;
                on_idle();
            });
        }
        let server = rt::spawn(async move {
            // It ends only after it was told to stop; dropped in a panic, this tells of it.
            let alive = Alive(deaths);
            let _ = server.await;
            drop(alive);
        });
        let Some(order) = orders.recv().await else { return Err(io::Error::other("nobody gives orders")) };
        if !order.hands_over {
            systemd::stopping();
        }
        rt::time::sleep(order.delay(settings.drain)).await;
        let deadline = order.deadline(settings.drain);
        // Connections that are left to other processes stay open here, too, until this one has ended.
        let is_served = || if order.hands_over { hand_over::go_on() == 0 } else { tracker.n_open() == 0 };
        let n_cut_off =
            finish(&effe, &tracker, &mut listeners, &handle, &is_deaf, deadline, deaf, is_served).await;
        if order.hands_over {
            // The threads end by themselves now.
            effe.announce_stop();
        }
        // `finish` has waited for the connections already; actix-server would wait again, and looks once a second.
        // It panics without the thread that accepts.
        if !is_deaf.load(Ordering::Relaxed) {
            let _ = rt::time::timeout(Duration::from_millis(500), handle.stop(false)).await;
        }
        server.abort();
        Ok((order, n_cut_off))
    })?
}

/// Waits until no request has come for so long, and no connection is open: a client that has one may be about to ask.
async fn wait_until_idle(effe: &Effe, tracker: &ConnectionTracker, idle: Duration) {
    let (mut n_before, mut since) = (0, Instant::now());
    loop {
        rt::time::sleep((idle / 10).clamp(LOOK, HANDSHAKE * 20)).await;
        let n = effe.totals().map_or(0, |totals| totals.runs.count());
        if n != std::mem::replace(&mut n_before, n) || effe.n_running() > 0 {
            since = Instant::now();
        } else if since.elapsed() >= idle && tracker.n_open() == 0 {
            return;
        }
    }
}

/// Accepts no new connections, and waits until all that are open have been served; how many runs have not ended by the
/// deadline.
#[expect(clippy::too_many_arguments, reason = "a step of `serve`")]
async fn finish(
    effe: &Effe,
    tracker: &ConnectionTracker,
    listeners: &mut [Listener],
    server: &ServerHandle,
    is_deaf: &AtomicBool,
    deadline: Instant,
    deaf: impl FnOnce(),
    is_served: impl Fn() -> bool,
) -> usize {
    tracker.close();
    listeners.iter_mut().for_each(Listener::stop_accepting);
    let is_time = || Instant::now() < deadline;
    // Who has the other end of a shared socket goes on accepting.
    let is_last = listeners.iter().any(|listener| !listener.shared);
    let handshakes = Instant::now() + if is_last { HANDSHAKE } else { Duration::ZERO };
    let has_pending = |listeners: &[Listener]| {
        !is_deaf.load(Ordering::Relaxed) && listeners.iter().any(Listener::has_pending)
    };
    while is_time() && (Instant::now() < handshakes || has_pending(listeners)) {
        rt::time::sleep(Duration::from_millis(1)).await;
    }
    server.pause().await;
    // actix-server stops accepting a moment later, and would log an error about a socket that is shut down.
    rt::time::sleep(LOOK).await;
    listeners.iter().for_each(Listener::shut_down);
    deaf();
    // The thread that accepts was told to pause, and may not have heard of it; and a connection that was accepted may
    // still be on its way to its thread: one look isn't enough.
    let (acceptor, mut n_quiet) = (threads::Acceptor::find(), 0);
    while is_time() && n_quiet < 3 {
        let has_paused = acceptor.sleeps();
        let _ = time::timeout_at(deadline.into(), tracker.barrier()).await;
        let n_running = effe.n_running() + effe.n_upgraded_runs();
        n_quiet = if has_paused && is_served() && n_running == 0 { n_quiet + 1 } else { 0 };
        rt::time::sleep(LOOK).await;
    }
    if is_time() {
        return 0;
    }
    cut_off(effe, tracker).await;
    effe.n_in_runs()
}

/// Closes the connections that lambdas have taken over and still have, and gives their runs a moment to see it.
async fn cut_off(effe: &Effe, tracker: &ConnectionTracker) {
    let n_streams = effe.n_streams();
    if n_streams == 0 {
        return;
    }
    effe.journal.warning(format!(
        "the time to stop is over: {n_streams} connections that the lambda has taken over are closed"
    ));
    tracker.cut_off();
    let end = Instant::now() + CUT_OFF;
    while Instant::now() < end && effe.n_streams() + effe.n_upgraded_runs() > 0 {
        rt::time::sleep(LOOK).await;
    }
}

/// Turns accepted sockets into connections, on every thread of the server.
#[derive(Clone)]
struct Acceptor {
    effe: Arc<Effe>,
    monitor: Arc<Monitor>,
    tracker: Arc<ConnectionTracker>,
    health: Arc<Health>,
    settings: Arc<Settings>,
    deaths: Arc<Deaths>,
}

/// What a thread of the server has once, for all listeners.
#[derive(Clone)]
struct Worker {
    service: Rc<dyn Service>,
    http1: Rc<Http1>,
    connections: Rc<Connections>,
}

impl Acceptor {
    fn worker(&self) -> Worker {
        thread_local! {
            static WORKER: OnceCell<(Worker, Alive)> = const { OnceCell::new() };
        }
        let build = || (self.build_worker(), Alive(Arc::clone(&self.deaths)));
        WORKER.with(|worker| worker.get_or_init(build).0.clone())
    }

    fn build_worker(&self) -> Worker {
        let Acceptor { effe, monitor, tracker, health, settings, .. } = self.clone();
        tracker.add_thread(Arbiter::current());
        let connections =
            Rc::new(Connections::new(settings.client_timeouts, Arc::clone(&effe.held), tracker));
        let access_log = AccessLog::new(&settings.access_log, &effe.journal).map(Rc::new);
        let body_limit = effe.limits.body;
        let effe_of_adopter = Arc::clone(&effe);
        let handler = Rc::new(Handler::new(effe, monitor, settings.client_timeouts));
        let probes = settings.answers_probes.then_some(health);
        let service: Rc<dyn Service> = Rc::new(HandlerService { handler, probes, access_log });
        let http1 = Http1::new(Rc::clone(&service), body_limit);
        tasks::spawn(Rc::clone(&connections).look_after());
        let worker = Worker { http1, service, connections };
        // A connection over TLS can't go on elsewhere.
        if settings.tls.is_none() && rescue::global::is_supervised() {
            tasks::spawn(adopt::adopt(worker.clone(), effe_of_adopter));
        }
        worker
    }

    /// What actix-server calls for each socket that one listener has accepted; `open` prepares the socket.
    fn service<I: 'static>(
        self,
        open: fn(I) -> (Plain, Option<SocketAddr>),
    ) -> impl ServiceFactory<I, Config = (), Response = (), Error = Infallible, InitError = ()> {
        fn_factory(move || {
            let (worker, tls) = (self.worker(), self.settings.tls.clone());
            ready(Ok(fn_service(move |io: I| {
                let (socket, peer) = open(io);
                let registration = worker.connections.register();
                // Boxed: actix-server's task has room for it twice.
                Box::pin(serve_connection(worker.clone(), tls.clone(), registration, socket, peer))
            })))
        })
    }
}

/// Answers the requests of a connection, after its handshake.
async fn serve_connection(
    worker: Worker,
    tls: Option<Arc<Tls>>,
    registration: Registration,
    socket: Plain,
    peer: Option<SocketAddr>,
) -> Result<(), Infallible> {
    let connection = match tls {
        None => Some(Connection::plain(registration, socket)),
        Some(tls) => Connection::secure(registration, socket, &tls).await,
    };
    if let Some(connection) = &connection
        && !connection.is_tls()
        && !connection.can_be_served()
    {
        // Its descriptor must stay open until this process has ended.
        std::future::pending::<()>().await;
    }
    serve_opened(worker, connection, peer).await;
    Ok(())
}

async fn serve_opened(worker: Worker, connection: Option<Connection>, peer: Option<SocketAddr>) {
    if let Some(connection) = connection
        && let Some(connection) = h2::take(connection, &worker.service, peer).await
    {
        worker.http1.serve(connection, peer).await;
    }
}

fn open_tcp(io: TcpStream) -> (Plain, Option<SocketAddr>) {
    // Answers go out in one piece; waiting for more would only delay the last piece of a stream.
    let _ = io.set_nodelay(true);
    let peer = io.peer_addr().ok().map(canonical);
    (plain::tcp(io), peer)
}

/// A client of IPv4 by its own address, also where it has connected to a socket of IPv6.
fn canonical(peer: SocketAddr) -> SocketAddr {
    match peer.ip().to_canonical() {
        IpAddr::V4(ip) => (ip, peer.port()).into(),
        IpAddr::V6(_) => peer,
    }
}

fn open_unix(io: UnixStream) -> (Plain, Option<SocketAddr>) {
    (plain::unix(io), None)
}
