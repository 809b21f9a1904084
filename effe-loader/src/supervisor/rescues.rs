//! Connections of processes that crash: those at rest go to others, and whoever waits for an answer that doesn't come
//! is told.

use std::{
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    time::Duration,
};

use super::{
    Event, Supervisor,
    process::{Heard, Id, Process, State},
    stand_in,
    watch::has_request,
};
use crate::rescue::escrow::BATCH;

/// How often to look for connections that have come to rest in a process that crashes.
const ROUND: Duration = Duration::from_millis(1);

impl Supervisor<'_> {
    /// Something has come over a process's escrow.
    pub(super) fn escrow(&mut self, id: Id) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Some(escrow) = &mut process.escrow else { return };
        if escrow.receive() {
            let _ = self.events.send(Event::Heard(id, Heard::Escrow));
        }
        let (has_crashed, is_quiet) = (escrow.note.is_some(), escrow.is_quiet);
        if process.hands_over && std::mem::take(&mut escrow.is_quiet) {
            // It says so again whenever others may have come to rest.
            let clean = escrow.take_clean();
            self.pass_on(clean);
        }
        let Some(process) = self.processes.get_mut(&id) else { return };
        if has_crashed && !std::mem::replace(&mut process.has_crashed, true) {
            self.crashes(id);
        }
        // Anybody may say so: it is believed of a process that has crashed, or was told to hand over.
        if has_crashed && is_quiet {
            self.round(id);
        }
    }

    /// Moves connections at rest out of a process that crashes; and again as long as it lives.
    pub(super) fn next_round(&mut self, id: Id) {
        if let Some(process) = self.processes.get_mut(&id) {
            process.has_rounds = false;
        }
        self.round(id);
    }

    fn round(&mut self, id: Id) {
        let Some(process) = self.processes.get_mut(&id).filter(|process| process.exit.is_none()) else {
            return;
        };
        let Some(escrow) = &mut process.escrow else { return };
        let clean = escrow.take_clean();
        if !std::mem::replace(&mut process.has_rounds, true) {
            self.later(ROUND, Event::Round(id));
        }
        self.pass_on(clean);
    }

    /// Settles what a process has left that is dead.
    pub(super) fn settle(&mut self, id: Id) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Some(escrow) = process.escrow.take() else { return };
        let (left, remains) = escrow.settle();
        process.remains = remains;
        if let Some(counted) = &mut self.counted.supervised {
            counted.told += left.n_told;
            counted.broken += left.n_broken;
        }
        self.pass_on(left.clean);
    }

    /// Gives connections to the processes that serve, in turn; without any, they wait for the next one.
    pub(super) fn pass_on(&mut self, connections: Vec<OwnedFd>) {
        // One over TLS can't go on elsewhere, whatever a process says.
        let is_tls = self.config.server.tls.is_some();
        if is_tls || connections.is_empty() {
            return;
        }
        if self.stopping.is_some() {
            // No process takes one any more. A request may be on its way.
            return stand_in::turn_all_away(connections);
        }
        self.waiting.extend(connections);
        let current = Rc::clone(&self.current);
        let serving =
            |process: &&mut Process| process.state == State::Serving && Rc::ptr_eq(&process.source, &current);
        let serving = self.processes.values_mut().filter(serving);
        let mut takers: Vec<_> = serving.filter_map(|process| process.escrow.as_mut()).collect();
        if takers.is_empty() {
            return self.watch();
        }
        while !self.waiting.is_empty() {
            let rest = self.waiting.len().saturating_sub(BATCH);
            let batch = self.waiting.split_off(rest);
            let n = batch.len() as u64;
            let first = self.next_token;
            self.next_token = self.next_token.wrapping_add(BATCH as u32);
            let batch = batch.into_iter().zip(0..).map(|(copy, n)| (first.wrapping_add(n), copy)).collect();
            self.next_taker = (self.next_taker + 1) % takers.len();
            if let Err(back) = takers[self.next_taker].give(batch) {
                // Its queue is full: it is about to be read.
                self.waiting.extend(back);
                self.later(ROUND, Event::PassOn);
                return;
            }
            if let Some(counted) = &mut self.counted.supervised {
                counted.adopted += n;
            }
        }
    }

    /// Nobody will serve the connections that wait for a while.
    pub(super) fn turn_away(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting);
        if self.stopping.is_some() {
            // The others are told by their end.
            waiting.retain(|connection| has_request(connection.as_fd()));
        }
        stand_in::turn_all_away(waiting);
    }
}
