//! Recycling: a process that has had its requests, or has grown too large, is replaced while it still serves. Its
//! successor is ready first, and gets its connections.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use super::{
    Event, Supervisor,
    limits::exceeded,
    process::{Id, Process, State},
};
use crate::{
    journal::Severity,
    process::{link::Order, memory},
};

/// How often to look at the processes while they have something to do, and at least.
const QUICK: Duration = Duration::from_millis(20);
const SLOW: Duration = Duration::from_millis(250);
/// When to try again after a successor could not start.
const LATER: Duration = Duration::from_secs(10);

impl Supervisor<'_> {
    /// Looks at the processes from now on, if they have limits.
    pub(super) fn begin_recycling(&mut self) {
        let limits = self.config.recycling;
        if limits.memory.is_some() || limits.requests.is_some() {
            self.later(SLOW, Event::Weigh);
        }
    }

    /// Looks whether a process is to be replaced.
    pub(super) fn weigh(&mut self) {
        let n_requests = self.processes.values().map(Process::n_requests).fold(0, u64::wrapping_add);
        let (n_before, delay) = self.recycling.seen;
        let delay = if n_requests == n_before { (delay * 2).clamp(QUICK, SLOW) } else { QUICK };
        self.recycling.seen = (n_requests, delay);
        self.later(delay, Event::Weigh);
        let may_begin = self.swap.is_none()
            && self.stopping.is_none()
            && self.recycling.under_way.is_none()
            && self.recycling.not_before.is_none_or(|time| time <= Instant::now());
        if !may_begin {
            return;
        }
        let limits = self.config.recycling;
        let current = &self.current;
        let serving = |(_, process): &(&Id, &Process)| {
            process.state == State::Serving && Rc::ptr_eq(&process.source, current)
        };
        let due = self.processes.iter().filter(serving).find_map(|(id, process)| {
            let memory = if limits.memory.is_some() { memory::of(process.pid()).unwrap_or(0) } else { 0 };
            Some((*id, exceeded(&limits, *id, memory, process.n_requests())?))
        });
        if let Some((id, (reason, text))) = due {
            self.recycle(id, reason, &text);
        }
    }

    fn recycle(&mut self, id: Id, reason: &'static str, text: &str) {
        let Some(process) = self.processes.get(&id) else { return };
        let (place, pid, successor) = (process.place, process.pid(), self.next_id);
        let fields = [("pid", pid.to_string()), ("reason", reason.to_owned())];
        let text = format!("process {place} {text}: another one takes its place");
        self.journal.report(Severity::Notice, text, fields);
        self.start(place, None);
        if !self.processes.contains_key(&successor) {
            // `start` has said why.
            return self.later_again();
        }
        self.recycling.under_way = Some((id, successor));
        if let Some(counted) = &mut self.counted.supervised {
            *counted.recycled.entry(reason).or_default() += 1;
        }
    }

    /// A process serves. If it is a successor, the one before it hands over.
    pub(super) fn succeeds(&mut self, id: Id) {
        if let Some((old, _)) = self.recycling.under_way.take_if(|(_, successor)| *successor == id) {
            self.hand_over(old);
        }
    }

    /// A process has ended. True if it should have been the successor of one that serves, which then goes on.
    pub(super) fn was_successor(&mut self, id: Id) -> bool {
        // A successor has another one's place, however that one ends: only its own end matters.
        let was = self.recycling.under_way.take_if(|(_, successor)| *successor == id);
        let old = was.and_then(|(old, _)| self.processes.get(&old));
        let goes_on = old.is_some_and(|old| old.state == State::Serving);
        if goes_on {
            self.later_again();
        }
        goes_on
    }

    fn later_again(&mut self) {
        self.recycling.not_before = Some(Instant::now() + LATER);
    }

    /// Has a process finish what it runs, and leave its connections to others.
    pub(super) fn hand_over(&mut self, id: Id) {
        let left = self.config.server.drain.timeout;
        let is_tls = self.config.server.tls.is_some();
        let Some(process) = self.processes.get_mut(&id) else { return };
        if process.state != State::Serving {
            return;
        }
        if is_tls {
            // Its connections can't go on elsewhere.
            process.tell(&Order::AnnounceStop);
            return self.stop_process(id, left);
        }
        (process.state, process.hands_over) = (State::Stopping, true);
        process.tell(&Order::HandOver { left: u64::try_from(left.as_millis()).unwrap_or(u64::MAX) });
        self.later(left + super::stop::GRACE, Event::Overdue(id));
    }
}
