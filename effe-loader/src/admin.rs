//! The admin listener: shows health, state, metrics and the log's level, and takes orders. It owns its socket, its
//! thread and who may ask; orders are carried out by `process` and `effe`.
//!
//! It runs on a thread of its own, so that it answers even while the server's threads are busy. It is off unless the
//! operator asks for it.

mod access;
mod metrics;
mod operations;
mod routes;
mod state;
mod supervised;

use std::{io, rc::Rc, sync::mpsc, thread};

use actix_http::{Response, uri::Authority};
use socket2::Socket;

use self::access::AccessRules;
pub use self::{
    metrics::Scrape,
    operations::{Later, Operations},
    state::{Admin, overview},
    supervised::{Begin, follow},
};
use crate::{
    body::outgoing::Body,
    error::Error,
    http::{
        private::{MAX_CONNECTIONS, serve},
        service::{Answered, Guarded, IncomingRequest, Service},
        validate,
    },
    journal::{Journal, Severity},
    net::{
        private_listener::{Address, AsyncSocket, Listener},
        socket_file::SocketFile,
        token::Token,
    },
    rt::tasks,
};

/// Listens at `place` on a thread of its own, and answers there for as long as the process lives. A Unix socket's file
/// is returned, and removed when it is dropped. Fails if the address is taken, or if the system refuses a thread.
pub fn listen(
    place: &Address,
    token: Option<Token>,
    journal: &Journal,
    operations: impl Operations + Send + 'static,
) -> Result<Option<SocketFile>, Error> {
    let Bound { socket, rules, address, file } = Bound::new(place, token, journal)?;
    let (begun, begins) = mpsc::channel();
    let thread = thread::Builder::new().name("effe-admin".to_owned());
    let thread = thread.spawn(move || {
        let outcome = tasks::run(async {
            let listening = AsyncSocket::open(socket)?;
            let _ = begun.send(Ok(()));
            serve(listening, Endpoint::service(rules, operations), MAX_CONNECTIONS).await;
            Ok(())
        });
        let _ = begun.send(outcome.and_then(|served| served));
    });
    thread.map_err(system)?;
    begins.recv().unwrap_or_else(|_| Err(io::Error::other("its thread has panicked"))).map_err(system)?;
    report(journal, address);
    Ok(file)
}

/// The same as [`listen`], in a task of this thread.
pub fn listen_here(
    place: &Address,
    token: Option<Token>,
    journal: &Journal,
    operations: impl Operations + 'static,
) -> Result<Option<SocketFile>, Error> {
    let Bound { socket, rules, address, file } = Bound::new(place, token, journal)?;
    let listening = AsyncSocket::open(socket).map_err(system)?;
    tasks::spawn(serve(listening, Endpoint::service(rules, operations), MAX_CONNECTIONS));
    report(journal, address);
    Ok(file)
}

fn system(source: io::Error) -> Error {
    Error::System { what: "start the admin listener".into(), source }
}

fn report(journal: &Journal, address: String) {
    journal.report(Severity::Info, format!("admin listener on {address}"), [("admin", address)]);
}

/// Where the listener is, and who may ask there.
struct Bound {
    socket: Socket,
    rules: AccessRules,
    address: String,
    file: Option<SocketFile>,
}

impl Bound {
    fn new(place: &Address, token: Option<Token>, journal: &Journal) -> Result<Bound, Error> {
        let Listener { address, socket, file } = Listener::bind("--admin", place)?;
        if let Some(token) = token.as_ref().filter(|token| token.is_world_readable()) {
            let path = token.path.display();
            journal.warning(format!("every user of this machine may read {path}: chmod 600 it"));
        }
        let rules = AccessRules::new(&address, token);
        Ok(Bound { socket, rules, address: address.to_string(), file })
    }
}

/// What answers every request.
struct Endpoint {
    rules: AccessRules,
    operations: Box<dyn Operations>,
}

impl Service for Rc<Endpoint> {
    fn call(&self, request: IncomingRequest) -> Answered {
        let endpoint = Rc::clone(self);
        Answered::Later(Guarded(Box::pin(async move { endpoint.respond(request).await })))
    }
}

impl Endpoint {
    fn service(rules: AccessRules, operations: impl Operations + 'static) -> Rc<dyn Service> {
        Rc::new(Rc::new(Endpoint { rules, operations: Box::new(operations) }))
    }

    async fn respond(&self, request: IncomingRequest) -> Response<Body> {
        // The guard is held until the request is answered.
        let IncomingRequest { request, n_head, incoming, guard } = request;
        if validate::check(request.head(), n_head).is_err() {
            return routes::malformed();
        }
        let target = request.uri().authority().map(Authority::as_str);
        match self.rules.admit(request.method(), target, &request.head().headers, guard.local_ip()) {
            Ok(()) => routes::answer(&*self.operations, &request, incoming).await,
            Err(refused) => routes::refuse(refused),
        }
    }
}
