//! Sleep: without a request for long, all processes end, and the supervisor holds the sockets and the connections. The
//! first that stirs has the processes started again, which get what waits.

use std::{
    os::fd::{AsFd, AsRawFd},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::{
    Event, Supervisor,
    process::{Id, Process, State},
    watch::{Stirred, Watch, has_request},
};
use crate::rescue::entry::state;

impl Supervisor<'_> {
    /// Looks from now on whether there are requests, if the processes are to end without.
    pub(super) fn begin_sleeping(&mut self) {
        if let Some(idle) = self.config.server.idle_exit {
            self.later(pause(idle), Event::Idle);
        }
    }

    /// Looks whether there have been requests.
    pub(super) fn look_for_requests(&mut self) {
        let Some(idle) = self.config.server.idle_exit else { return };
        self.later(pause(idle), Event::Idle);
        let now = Instant::now();
        let n_requests = self.processes.values().map(Process::n_requests).fold(0, u64::wrapping_add);
        let is_calm = self.is_up
            && self.swap.is_none()
            && self.stopping.is_none()
            && self.waiting.is_empty()
            && !self.processes.is_empty()
            && self.processes.values().all(|process| process.state == State::Serving);
        let seen = &mut self.sleep.seen;
        if !is_calm || seen.0 != n_requests || seen.1.is_none() {
            *seen = (n_requests, Some(now));
            return;
        }
        let is_over = seen.1.is_some_and(|since| now.saturating_duration_since(since) >= idle);
        if is_over && !self.processes.values().any(is_busy) {
            self.fall_asleep(idle);
        }
    }

    fn fall_asleep(&mut self, idle: Duration) {
        self.journal.notice(format!("no request for {idle:?}: asleep until the next one"));
        self.sleep.is_asleep = true;
        self.sleep.number += 1;
        if let Some(counted) = &mut self.counted.supervised {
            counted.sleeps += 1;
        }
        let all: Vec<Id> = self.processes.keys().copied().collect();
        all.into_iter().for_each(|id| self.hand_over(id));
        if let Some(timeout) = self.config.server.client_timeouts.keep_alive {
            self.later(timeout, Event::Stale(self.sleep.number));
        }
        self.watch();
    }

    /// Watches what stirs, once no process accepts or reads any more.
    pub(super) fn watch(&mut self) {
        let is_still = |process: &Process| process.is_deaf || process.exit.is_some();
        if !self.sleep.is_asleep || !self.processes.values().all(is_still) {
            return;
        }
        if self.sleep.watch.is_none() {
            let events = self.events.clone();
            match Watch::new(self.listeners(), move || drop(events.send(Event::Stirs))) {
                Ok(watch) => self.sleep.watch = Some(watch),
                Err(err) => {
                    self.journal.error(format!("who comes can't be watched: {err}"));
                    return self.wake();
                }
            }
        }
        if let Some(watch) = &self.sleep.watch {
            self.waiting.iter().for_each(|connection| watch.add(connection));
        }
    }

    /// Something may have stirred.
    pub(super) fn stirs(&mut self) {
        let Some(watch) = &self.sleep.watch else { return };
        let mut is_wanted = false;
        loop {
            let stirred = watch.stirred();
            for one in &stirred {
                let Stirred::Connection(number) = one else {
                    is_wanted = true;
                    continue;
                };
                let at = self.waiting.iter().position(|connection| connection.as_raw_fd() == *number);
                let Some(at) = at else { continue };
                if has_request(self.waiting[at].as_fd()) {
                    is_wanted = true;
                } else {
                    let gone = self.waiting.swap_remove(at);
                    watch.remove(&gone);
                }
            }
            if is_wanted {
                return self.wake();
            }
            if stirred.is_empty() {
                return;
            }
        }
    }

    /// Connections that have been kept since this sleep began have had their time.
    pub(super) fn stale(&mut self, number: u64) {
        self.stirs();
        if self.sleep.is_asleep && self.sleep.number == number {
            let all = std::mem::take(&mut self.waiting);
            if let Some(watch) = &self.sleep.watch {
                all.iter().for_each(|connection| watch.remove(connection));
            }
        }
    }

    fn wake(&mut self) {
        self.stay_awake();
        (0..self.template.n_places).for_each(|place| self.restart(place));
    }

    /// Ends a sleep, if there is one; the caller sees to who serves.
    pub(super) fn stay_awake(&mut self) {
        self.sleep.is_asleep = false;
        self.sleep.watch = None;
        self.sleep.seen.1 = None;
    }
}

/// How often to look whether there are requests.
fn pause(idle: Duration) -> Duration {
    (idle / 10).clamp(Duration::from_millis(5), Duration::from_secs(1))
}

/// Whether a process has a request that is not answered.
fn is_busy(process: &Process) -> bool {
    let Some(escrow) = &process.escrow else { return false };
    let busy = [state::BUSY, state::ANSWERING, state::PARTIAL];
    escrow.board.entries().iter().any(|entry| busy.contains(&entry.state.load(Ordering::Relaxed)))
        || escrow.board.records().iter().any(|record| record.is_in_run())
}
