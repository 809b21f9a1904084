//! The admin listener: health, state and the log's level to read, and orders to give.
//!
//! It runs on a thread of its own, so that it answers whatever keeps the server's. Off unless it is asked for.

mod access;
mod listener;
mod metrics;
mod routes;
mod state;

use std::{io, rc::Rc, sync::Arc, thread, time::Duration};

use actix_http::Response;
use tokio::sync::Semaphore;

use self::{
    access::Gate,
    listener::{Door, Listener, ListeningSocket, OwnFile},
};
pub use self::{access::Token, listener::Address};
use crate::{
    body::outgoing::Body,
    effe::health::Health,
    error::Error,
    handler::Handling,
    http::{
        arrival::Arrival,
        h1::Http1,
        service::{Answer, Site},
        validate,
    },
    journal::{Journal, Severity},
    net::connection::{Connections, Patience},
    plugin::Plugin,
    process::{control::Control, signals::Watchdog},
    rt::tasks,
};

/// Connections at once: a scraper, an orchestrator, a person.
const MAX_CONNECTIONS: usize = 64;
/// How long they may take.
const PATIENCE: Patience = Patience {
    keep_alive: Some(Duration::from_secs(5)),
    read: Some(Duration::from_secs(5)),
    write: Some(Duration::from_secs(10)),
};

/// What the listener speaks of, and whom it hands orders to.
pub struct Admin {
    /// The effe, once it serves.
    pub health: Arc<Health>,
    /// The generation that the loader was started with.
    pub first: &'static Plugin,
    /// The log.
    pub journal: Journal,
    /// Where the effe serves.
    pub address: String,
    /// Where orders go.
    pub control: Control,
    /// What sees to it that an order to stop is obeyed.
    pub watchdog: Watchdog,
}

impl Admin {
    /// The generation that serves.
    fn plugin(&self) -> &'static Plugin {
        self.health.effe().map_or(self.first, |effe| effe.generations.current().plugin)
    }
}

/// Listens at `place`, and answers there for as long as the process lives. What comes back is the socket's file, which
/// goes when it is dropped.
///
/// # Errors
/// The address is taken, or the system refuses a thread.
pub fn listen(place: &Address, token: Option<Token>, admin: Admin) -> Result<Option<OwnFile>, Error> {
    let Listener { address, socket, file } = Listener::bind(place)?;
    if let Some(token) = token.as_ref().filter(|token| token.is_world_readable()) {
        let path = token.path().display();
        admin.journal.warning(format!("every user of this machine may read {path}: chmod 600 it"));
    }
    let gate = Gate::new(&address, token);
    let address = address.to_string();
    admin.journal.report(Severity::Info, format!("admin listener on {address}"), [("admin", address)]);
    let journal = admin.journal.clone();
    let thread = thread::Builder::new().name("effe-admin".to_owned()).spawn(move || {
        if let Err(err) = serve(socket, gate, admin) {
            journal.error(format!("the admin listener has ended: {err}"));
        }
    });
    thread.map(|_| file).map_err(|source| Error::System { what: "start a thread", source })
}

fn serve(socket: ListeningSocket, gate: Gate, admin: Admin) -> io::Result<()> {
    tasks::run(async move {
        let door = Door::open(socket)?;
        let connections = Rc::new(Connections::new(PATIENCE, Arc::default()));
        tasks::spawn(Rc::clone(&connections).look_after());
        let desk = Rc::new(Desk { gate, admin });
        let http = Http1::new(Site::Other(desk));
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        while let Ok(place) = Arc::clone(&room).acquire_owned().await {
            let (http, connection) = (Rc::clone(&http), connections.open(door.accept().await));
            connection.note_local_address();
            tasks::spawn(async move {
                http.serve(connection, None).await;
                drop(place);
            });
        }
        Ok(())
    })
}

/// What every request meets.
struct Desk {
    gate: Gate,
    admin: Admin,
}

impl Answer for Desk {
    fn answer(self: Rc<Self>, arrival: Arrival) -> Handling {
        Box::pin(async move { Ok(self.respond(arrival).await) })
    }
}

impl Desk {
    async fn respond(&self, arrival: Arrival) -> Response<Body> {
        // Until it is answered.
        let Arrival { request, n_head, incoming, answering } = arrival;
        if validate::check(request.head(), n_head).is_err() {
            return routes::malformed();
        }
        match self.gate.admit(request.method(), &request.head().headers, answering.local_address()) {
            Ok(()) => routes::answer(&self.admin, &request, incoming).await,
            Err(refused) => routes::refuse(refused),
        }
    }
}
