//! The admin listener: shows health, state, metrics and the log's level, and takes orders. It owns its socket, its
//! thread and who may ask; orders are carried out by `process` and `effe`.
//!
//! It runs on a thread of its own, so that it answers even while the server's threads are busy. It is off unless the
//! operator asks for it.

mod access;
mod listener;
mod metrics;
mod routes;
mod state;

use std::{
    io,
    rc::Rc,
    sync::{Arc, mpsc},
    thread,
};

use actix_http::{Response, uri::Authority};
use socket2::Socket;
use tokio::sync::Semaphore;

use self::{
    access::AccessRules,
    listener::{AsyncSocket, CLIENT_TIMEOUTS, Listener},
};
pub use self::{access::Token, listener::Address, state::Admin};
use crate::{
    body::{held::HeldBytes, outgoing::Body},
    error::Error,
    http::{
        h1::Http1,
        service::{Answered, Guarded, IncomingRequest, Service},
        validate,
    },
    journal::Severity,
    net::{connection::Connection, connections::Connections, socket_file::SocketFile},
    rt::tasks,
};

/// Connections at once: a scraper, an orchestrator, a person.
const MAX_CONNECTIONS: usize = 64;

/// Listens at `place`, and answers there for as long as the process lives. A Unix socket's file is returned, and
/// removed when it is dropped. Fails if the address is taken, or if the system refuses a thread.
pub fn listen(place: &Address, token: Option<Token>, admin: Admin) -> Result<Option<SocketFile>, Error> {
    let Listener { address, socket, file } = Listener::bind(place)?;
    if let Some(token) = token.as_ref().filter(|token| token.is_world_readable()) {
        let path = token.path.display();
        admin.journal.warning(format!("every user of this machine may read {path}: chmod 600 it"));
    }
    let rules = AccessRules::new(&address, token);
    let (journal, address) = (admin.journal.clone(), address.to_string());
    let system = |source| Error::System { what: "start the admin listener".into(), source };
    let (begun, begins) = mpsc::channel();
    let thread = thread::Builder::new().name("effe-admin".to_owned());
    let thread = thread.spawn(move || {
        let outcome = serve(socket, Rc::new(Endpoint { rules, admin }), &begun);
        let _ = begun.send(outcome);
    });
    thread.map_err(system)?;
    begins.recv().unwrap_or_else(|_| Err(io::Error::other("its thread has panicked"))).map_err(system)?;
    journal.report(Severity::Info, format!("admin listener on {address}"), [("admin", address)]);
    Ok(file)
}

/// Says once that it has `begun`, and answers for ever; or fails before.
fn serve(socket: Socket, endpoint: Rc<Endpoint>, begun: &mpsc::Sender<io::Result<()>>) -> io::Result<()> {
    tasks::run(async move {
        let listening = AsyncSocket::open(socket)?;
        let connections = Rc::new(Connections::new(CLIENT_TIMEOUTS, HeldBytes::unlimited(), Arc::default()));
        tasks::spawn(Rc::clone(&connections).look_after());
        let http = Http1::new(Rc::new(endpoint), usize::MAX);
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let _ = begun.send(Ok(()));
        while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
            let (http, socket) = (Rc::clone(&http), listening.accept().await);
            let connection = Connection::plain(connections.register(), socket);
            connection.note_local_ip();
            tasks::spawn(async move {
                http.serve(connection, None).await;
                drop(permit);
            });
        }
        Ok(())
    })?
}

/// What answers every request.
struct Endpoint {
    rules: AccessRules,
    admin: Admin,
}

impl Service for Rc<Endpoint> {
    fn call(&self, request: IncomingRequest) -> Answered {
        let endpoint = Rc::clone(self);
        Answered::Later(Guarded(Box::pin(async move { endpoint.respond(request).await })))
    }
}

impl Endpoint {
    async fn respond(&self, request: IncomingRequest) -> Response<Body> {
        // The guard is held until the request is answered.
        let IncomingRequest { request, n_head, incoming, guard } = request;
        if validate::check(request.head(), n_head).is_err() {
            return routes::malformed();
        }
        let target = request.uri().authority().map(Authority::as_str);
        match self.rules.admit(request.method(), target, &request.head().headers, guard.local_ip()) {
            Ok(()) => routes::answer(&self.admin, &request, incoming).await,
            Err(refused) => routes::refuse(refused),
        }
    }
}
