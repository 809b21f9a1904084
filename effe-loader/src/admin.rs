//! The admin listener: health, state and the log's level to read, and orders to give.
//!
//! It runs on threads of its own, so that it answers whatever keeps the server's. Off unless it is asked for.

mod access;
mod listener;
mod metrics;
mod routes;
mod state;

use std::{io, sync::Arc, thread};

use self::{
    access::Gate,
    listener::{Listener, ListeningSocket, OwnFile},
};
pub use self::{access::Token, listener::Address};
use crate::{
    control::Control,
    error::Error,
    health::Health,
    journal::{Journal, Severity},
    plugin::Plugin,
    signals::Ender,
};
use actix_web::{
    App, HttpServer,
    middleware::from_fn,
    rt,
    web::{Data, PayloadConfig},
};

/// Connections at once: a scraper, an orchestrator, a person.
const MAX_CONNECTIONS: usize = 64;
/// Bytes of a request body.
const MAX_BODY: usize = 1024;

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
    pub ender: Ender,
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
    let (gate, admin) = (Data::new(gate), Data::new(admin));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(Data::clone(&gate))
            .app_data(Data::clone(&admin))
            .app_data(PayloadConfig::new(MAX_BODY))
            .wrap(from_fn(access::guard))
            .configure(routes::routes)
    })
    .on_connect(listener::on_connect)
    .workers(1)
    .max_connections(MAX_CONNECTIONS)
    .disable_signals();
    rt::System::new().block_on(async move {
        let server = match socket {
            ListeningSocket::Tcp(socket) => server.listen(socket),
            ListeningSocket::Unix(socket) => server.listen_uds(socket),
        };
        server?.run().await
    })
}
