//! Serves a listener that isn't the server's, in one task of its thread.

use std::{rc::Rc, sync::Arc};

use tokio::sync::Semaphore;

use crate::{
    body::held::HeldBytes,
    http::{h1::Http1, service::Service},
    net::{
        connection::Connection,
        connections::Connections,
        private_listener::{AsyncSocket, CLIENT_TIMEOUTS},
    },
    rt::tasks,
};

/// Connections at once: a scraper, an orchestrator, a person.
pub const MAX_CONNECTIONS: usize = 64;

/// Room for connections.
#[derive(Clone)]
pub struct Room {
    most: usize,
    free: Arc<Semaphore>,
}

impl Room {
    /// For so many at once.
    pub fn of(most: usize) -> Room {
        Room { most, free: Arc::new(Semaphore::new(most)) }
    }

    /// Whether there is no connection. The next one has its place already.
    pub fn is_empty(&self) -> bool {
        self.free.available_permits() + 1 >= self.most
    }
}

/// Answers for ever, on as many connections at once as there is room for.
pub async fn serve(listening: AsyncSocket, service: Rc<dyn Service>, room: Room) {
    let connections = Rc::new(Connections::new(CLIENT_TIMEOUTS, HeldBytes::unlimited(), Arc::default()));
    let http = Http1::new(service, usize::MAX);
    tasks::spawn(Rc::clone(&connections).look_after());
    while let Ok(permit) = Arc::clone(&room.free).acquire_owned().await {
        let (http, socket) = (Rc::clone(&http), listening.accept().await);
        let connection = Connection::plain(connections.register(), socket);
        connection.note_local_ip();
        tasks::spawn(async move {
            http.serve(connection, None).await;
            drop(permit);
        });
    }
}
