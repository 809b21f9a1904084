//! A connection whose requests are answered side by side: what who speaks for it has to know, and sees to.

use std::{future::Future, rc::Rc, task::Context, time::Duration};

use super::{Connection, Connections, LAST_CALL, Shared};
use crate::{
    net::{activity::Traffic, stream::Io},
    rt::clock::Moment,
};

impl Connection {
    /// What carries its bytes.
    pub fn io(&self) -> &Io {
        &self.io
    }

    /// [`Shared::prepare`]
    pub async fn prepare<T>(&self, what: impl Future<Output = T>) -> Option<T> {
        self.registration.shared.prepare(what).await
    }

    /// From now on its requests are answered side by side, and who has this sees to its end.
    pub fn share(&self) -> Shared {
        self.registration.shared.traffic.is_shared.set(true);
        self.registration.shared.clone()
    }
}

impl Shared {
    /// What those see of it who answer its requests.
    pub fn traffic(&self) -> &Rc<Traffic> {
        &self.traffic
    }

    /// Whether it is to end, because the effe stops or nobody has asked for anything for too long.
    pub fn is_over(&self) -> bool {
        let Connections { now, patience, lobby, .. } = &*self.connections;
        lobby.is_closing() || (self.traffic.is_idle() && self.traffic.is_late(now.get(), *patience))
    }

    /// Whether one that was told so then has had its time to leave. What is still on its way to it may take as long
    /// as a client may that doesn't read.
    pub fn has_overstayed(&self, since: Moment, is_sent_something: bool) -> bool {
        let Connections { now, patience, .. } = &*self.connections;
        let time = if is_sent_something { patience.write } else { Some(LAST_CALL) };
        self.traffic.n_running.get() == 0 && time.is_some_and(|time| since + time <= now.get())
    }

    /// As of the last look.
    pub fn now(&self) -> Moment {
        self.connections.now.get()
    }

    /// Requests so far.
    pub fn n_requests(&self) -> u64 {
        self.traffic.n_requests.get()
    }

    /// How long the client may not read something of what it is sent.
    pub fn write_patience(&self) -> Option<Duration> {
        self.connections.patience.write
    }

    /// Whoever polls it now is woken by a look.
    pub fn wait(&self, context: &Context<'_>) {
        self.traffic.wait(context);
    }
}
