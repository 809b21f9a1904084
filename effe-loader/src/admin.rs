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

use self::access::AccessRules;
pub use self::{
    metrics::Scrape,
    operations::{Later, Operations},
    state::{Admin, overview},
    supervised::{Begin, follow},
};
use crate::{
    error::Error,
    http::{
        private::{MAX_CONNECTIONS, Room, serve},
        response::Response,
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
    let listener = Listener::bind("--admin", place)?;
    let rules = rules(&listener.address, token, journal);
    let Listener { address, socket, file } = listener;
    let (begun, begins) = mpsc::channel();
    let thread = thread::Builder::new().name("effe-admin".to_owned());
    let thread = thread.spawn(move || {
        let outcome = tasks::run(async {
            let listening = AsyncSocket::open(socket)?;
            let _ = begun.send(Ok(()));
            serve(listening, Endpoint::service(rules, operations), Room::of(MAX_CONNECTIONS)).await;
            Ok(())
        });
        let _ = begun.send(outcome.and_then(|served| served));
    });
    thread.map_err(system)?;
    begins.recv().unwrap_or_else(|_| Err(io::Error::other("its thread has panicked"))).map_err(system)?;
    report(journal, &address);
    Ok(file)
}

/// An admin listener that is served by this thread. Dropped, it still is.
pub struct Here {
    /// Its socket, for whoever goes on with it.
    pub listener: Listener,
    room: Room,
}

impl Here {
    /// Whether nobody is connected to it.
    pub fn is_idle(&self) -> bool {
        self.room.is_empty()
    }
}

/// The same as [`listen`], in a task of this thread, without a line in the log.
pub fn listen_here(
    listener: Listener,
    token: Option<Token>,
    journal: &Journal,
    operations: impl Operations + 'static,
) -> Result<Here, Error> {
    let rules = rules(&listener.address, token, journal);
    let socket = listener.socket.try_clone().map_err(system)?;
    let listening = AsyncSocket::open(socket).map_err(system)?;
    let room = Room::of(MAX_CONNECTIONS);
    tasks::spawn(serve(listening, Endpoint::service(rules, operations), room.clone()));
    Ok(Here { listener, room })
}

fn system(source: io::Error) -> Error {
    Error::System { what: "start the admin listener".into(), source }
}

/// Says where the admin listener is.
pub fn report(journal: &Journal, address: &Address) {
    journal.report(Severity::Info, format!("admin listener on {address}"), [("admin", address.to_string())]);
}

/// Who may ask.
fn rules(address: &Address, token: Option<Token>, journal: &Journal) -> AccessRules {
    if let Some(token) = token.as_ref().filter(|token| token.is_world_readable()) {
        let path = token.path.display();
        journal.warning(format!("every user of this machine may read {path}: chmod 600 it"));
    }
    AccessRules::new(address, token)
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

    async fn respond(&self, request: IncomingRequest) -> Response {
        // The guard is held until the request is answered.
        let IncomingRequest { request, n_head, incoming, guard } = request;
        if validate::check(&request, n_head).is_err() {
            return routes::malformed();
        }
        match self.rules.admit(&request.method, request.authority(), &request.fields, guard.local_ip()) {
            Ok(()) => routes::answer(&*self.operations, &request, incoming).await,
            Err(refused) => routes::refuse(refused),
        }
    }
}
