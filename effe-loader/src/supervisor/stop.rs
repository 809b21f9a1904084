//! The end: newcomers are kept out, each process finishes what it runs.

use std::time::{Duration, Instant};

use signal_hook::{
    consts::{SIGHUP, SIGTERM},
    low_level,
};

use super::{
    Event, Supervisor,
    lingering::Lingering,
    process::{Id, Process, State},
};
use crate::{
    error::{DONE, FAILED},
    net::listeners::Listener,
    process::{
        control::Stop,
        link::{Ended, Order},
        signals, systemd,
    },
};

/// How long a client may take to complete TCP's handshake, if it began before the sockets were closed to newcomers.
const HANDSHAKE: Duration = Duration::from_millis(50);
/// How often to look whether all connections that wait have been accepted.
const LOOK: Duration = Duration::from_millis(1);
/// How long clients may take to read that they are turned away, while no process serves.
const OWED: Duration = Duration::from_secs(1);
/// What processes may take to leave at once.
const LEAVE: Duration = Duration::from_millis(500);
/// What a process that was told to stop may take beyond its own watchdog's time.
pub(super) const GRACE: Duration = signals::GRACE.saturating_add(Duration::from_millis(500));

impl Supervisor<'_> {
    pub(super) fn stop_for(&mut self, number: i32) {
        let name = low_level::signal_name(number).unwrap_or("a signal");
        if self.stopping.is_some() {
            if number != SIGHUP {
                self.leave(&format!("{name} again: leaving at once"));
            }
            return;
        }
        let why = if number == SIGHUP { " (the terminal has gone)" } else { "" };
        let timeout = self.config.server.drain.timeout;
        self.journal.notice(format!("{name}{why}: finishing what runs, for at most {timeout:?}"));
        self.stop(if number == SIGTERM { Stop::wanted() } else { Stop::hurried() });
    }

    pub(super) fn stop(&mut self, stop: Stop) {
        systemd::stopping();
        self.stopping = Some(stop);
        self.stay_awake();
        self.turn_away();
        if !self.processes.values().any(|process| process.state == State::Serving) {
            // Somebody waits, or will during the delay.
            self.stands_in();
        }
        // Whoever waits for a change learns that none comes.
        self.changes.clear();
        self.swap = None;
        self.processes.values().for_each(|process| process.tell(&Order::AnnounceStop));
        self.later(stop.delay(self.config.server.drain), Event::Close);
    }

    /// The delay is over: no new client may connect, and those that wait are still accepted.
    pub(super) fn close(&mut self) {
        self.listeners().iter_mut().for_each(Listener::stop_accepting);
        self.stop_processes(Instant::now());
    }

    pub(super) fn stop_processes(&mut self, since: Instant) {
        let Some(stop) = self.stopping else { return };
        let deadline = stop.deadline(self.config.server.drain);
        let serves = self.processes.values().any(|process| process.state == State::Serving);
        let is_pending = since.elapsed() < HANDSHAKE || self.listeners().iter().any(Listener::has_pending);
        let stands_in = self.stand_in.is_some();
        let is_owed = stands_in && Lingering::n() > 0 && since.elapsed() < OWED;
        if (((serves || stands_in) && is_pending) || is_owed) && Instant::now() < deadline {
            return self.later(LOOK, Event::Pending(since));
        }
        self.stand_in = None;
        let left = deadline.saturating_duration_since(Instant::now());
        let all: Vec<Id> = self.processes.keys().copied().collect();
        all.into_iter().for_each(|id| self.stop_process(id, left));
        self.later(left, Event::Deaf);
        self.refuse_if_deaf();
    }

    /// Clients are refused as soon as no process accepts any more.
    pub(super) fn refuse_if_deaf(&mut self) {
        let is_deaf = |process: &Process| {
            [State::Stopping, State::Crashed].contains(&process.state)
                && (process.is_deaf || process.exit.is_some())
        };
        if self.stopping.is_some() && self.stand_in.is_none() && self.processes.values().all(is_deaf) {
            self.shut_down();
        }
    }

    pub(super) fn shut_down(&mut self) {
        self.listeners().iter().for_each(Listener::shut_down);
    }

    /// Tells a process to finish what it runs.
    pub(super) fn stop_process(&mut self, id: Id, left: Duration) {
        let Some(process) = self
            .processes
            .get_mut(&id)
            .filter(|process| ![State::Stopping, State::Crashed].contains(&process.state))
        else {
            return;
        };
        process.state = State::Stopping;
        process.tell(&Order::Stop { left: u64::try_from(left.as_millis()).unwrap_or(u64::MAX) });
        self.later(left + GRACE, Event::Overdue(id));
    }

    pub(super) fn kill(&mut self, id: Id) {
        // Once it is reaped, another process may have its number.
        if let Some(process) = self.processes.get(&id).filter(|process| process.exit.is_none()) {
            let place = process.place;
            process.kill();
            self.has_failed = true;
            self.journal.critical(format!("process {place} does not end: it is killed"));
        }
    }

    pub(super) fn leave(&mut self, why: &str) {
        self.has_left = true;
        for process in self.processes.values_mut() {
            process.state = State::Stopping;
            process.tell(&Order::Leave(why.to_owned()));
        }
        self.later(LEAVE, Event::Left);
    }

    /// All processes have ended.
    pub(super) fn finish(&mut self) {
        self.shut_down();
        self.say_all();
        if self.has_left {
            // Each process has said what it leaves.
            self.outcome = Some(Ok(FAILED));
            return;
        }
        let Ended { started, abandoned, cut_off } = self.ended;
        let is_whole = !self.has_failed && abandoned == 0 && cut_off == 0;
        if is_whole {
            self.journal.notice(format!("stopped; {started} Contexts were started and stopped"));
        } else {
            self.journal.critical(format!(
                "the time to stop is over; {cut_off} runs were cut off, {abandoned} Contexts were not stopped"
            ));
        }
        self.outcome = Some(Ok(if is_whole { DONE } else { FAILED }));
    }
}
