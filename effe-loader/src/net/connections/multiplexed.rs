//! When a connection of HTTP/2 must close: its requests are answered side by side, and the client is told first.

use std::time::Duration;

use super::{ConnHandle, Connections, DRAIN_GRACE};
use crate::rt::clock::Moment;

impl ConnHandle {
    /// Whether the client is to be told to leave, because the effe stops or it has asked for nothing for too long.
    pub fn is_over(&self) -> bool {
        let Connections { now, timeouts, tracker, .. } = &*self.connections;
        tracker.is_closing() || (self.activity.is_idle() && self.activity.is_late(now.get(), *timeouts))
    }

    /// Whether a client that was told to leave then has had its time. What is still on its way to it may take as long
    /// as a client may not read.
    pub fn has_overstayed(&self, since: Moment, is_sent_something: bool) -> bool {
        let Connections { now, timeouts, .. } = &*self.connections;
        let time: Option<Duration> = if is_sent_something { timeouts.write } else { Some(DRAIN_GRACE) };
        self.activity.n_running() == 0 && time.is_some_and(|time| since + time <= now.get())
    }
}
