//! The processes: each is started, heard until it serves, and buried.

use std::{
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::process::ExitStatusExt,
    },
    path::PathBuf,
    process::ExitStatus,
    rc::Rc,
    time::{Duration, Instant},
};

use rustix::process::{Pid, WaitOptions, getpid, waitpid};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    low_level,
};

use super::{
    ALONE, Event, Sockets, Supervisor,
    process::{Heard, Id, Process, State},
    source::Source,
    stand_in::StandIn,
};
use crate::{
    admin::Scrape,
    error::{Error, FAILED},
    journal::Severity,
    net::{bind::Bound, listeners::Listener},
    process::{
        control::Change,
        link::{Ended, Message, Order, VERSION},
        systemd,
    },
};

/// What a process that has crashed may take to die: a core dump may be large.
pub(super) const CORPSE: Duration = Duration::from_secs(60);
/// How long to read what a process has said before it ended, if the link stays open.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(100);
/// Runs that must have ended for a process to have been of use: then not every request crashes it.
const USEFUL: u64 = 1;

/// Warnings of processes that are logged: a lambda may send any.
const MAX_WARNINGS: usize = 16;

impl Supervisor<'_> {
    /// Starts a process in a place, of the next generation if there is one.
    pub(super) fn start(&mut self, place: usize, next: Option<&Rc<Source>>) {
        let id = self.next_id;
        let source = next.unwrap_or(&self.current);
        let sockets: Vec<BorrowedFd<'_>> = match &self.sockets {
            Sockets::Bound(bound) => bound.iter().map(Bound::descriptor).collect(),
            Sockets::Listening(listeners) => {
                listeners.iter().map(|listener| listener.socket.as_fd()).collect()
            }
        };
        match self.template.start(place, source, self.journal.level(), &sockets, self.ear(id)) {
            Ok(process) => {
                self.next_id += 1;
                self.processes.insert(id, process);
            }
            Err(source) if !self.is_up => {
                self.outcome = Some(Err(Error::System { what: "start a process".into(), source }));
            }
            Err(err) if next.is_some() => self.swap_fails(format!("no process can be started for it: {err}")),
            Err(err) => {
                self.journal.error(format!("process {place} can't be started: {err}"));
                let verdict = self.restarts.died(Instant::now(), false);
                self.later(verdict.after, Event::Restart(place));
            }
        }
    }

    /// What is told of all that a process says.
    pub(super) fn ear(&self, id: Id) -> impl Fn(Heard) + Clone + 'static {
        let events = self.events.clone();
        move |heard| drop(events.send(Event::Heard(id, heard)))
    }

    pub(super) fn restart(&mut self, place: usize) {
        let is_there = self.processes.values().any(|process| {
            process.place == place
                && ![State::Stopping, State::Crashed].contains(&process.state)
                && process.exit.is_none()
                && Rc::ptr_eq(&process.source, &self.current)
        });
        if !is_there && self.stopping.is_none() && !self.sleep.is_asleep {
            self.start(place, None);
        }
    }

    pub(super) fn hear(&mut self, id: Id, message: Message) {
        let is_next = self.is_next(id);
        let Some(process) = self.processes.get_mut(&id) else { return };
        match message {
            Message::Ready { version, .. } if version != VERSION && process.state == State::Starting => {
                let text = "its process is a loader of another version, which speaks to its supervisor in another way";
                let text = format!("{}: {text}", self.path());
                if is_next { self.swap_fails(text) } else { self.outcome = Some(Ok(FAILED)) }
            }
            Message::Ready { failed, .. } if process.state == State::Starting => {
                process.state = State::Ready;
                process.is_warm = failed.is_none();
                match failed {
                    Some(fault) if is_next => {
                        let path = self.path();
                        self.swap_fails(format!("{path}: its start {fault}"));
                    }
                    _ if is_next => self.go_on_with_swap(),
                    _ => self.may_serve(id),
                }
            }
            Message::Serving if process.state == State::Ready => {
                process.state = State::Serving;
                process.serving = Some(Instant::now());
                if is_next {
                    self.go_on_with_swap();
                } else {
                    self.serves(id);
                    self.succeeds(id);
                }
            }
            Message::Warm => {
                process.is_warm = true;
                self.tell_manager();
            }
            Message::Warning(text) => {
                if self.warned.len() < MAX_WARNINGS && self.warned.insert(text.clone()) {
                    self.journal.warning(text);
                }
            }
            Message::Failed { code, text } => process.failed = Some((code, text)),
            Message::Report(number, report) => {
                process.report = Some(report);
                if let Some((waited_for, _)) = self.collecting.get_mut(&number) {
                    waited_for.retain(|other| *other != id);
                    if waited_for.is_empty() {
                        self.collected(number);
                    }
                }
            }
            Message::Deaf => {
                process.is_deaf = true;
                self.go_on_with_swap();
                self.watch();
                self.refuse_if_deaf();
            }
            Message::Ended(ended, scrape) => process.ended = Some((ended, scrape)),
            // Out of turn: a lambda may write to any descriptor.
            Message::Ready { .. } | Message::Serving => {}
        }
    }

    /// A process of the generation that serves is ready: it may begin.
    pub(super) fn may_serve(&mut self, id: Id) {
        if self.stopping.is_some() {
            return;
        }
        if let Err(err) = self.listen() {
            self.outcome = Some(Err(err));
            return;
        }
        if let Some(process) = self.processes.get(&id) {
            process.tell(&Order::Serve);
        }
    }

    /// Lets clients connect.
    pub(super) fn listen(&mut self) -> Result<(), Error> {
        if let Sockets::Bound(bound) = &mut self.sockets {
            let listeners: Result<_, _> = std::mem::take(bound).into_iter().map(Bound::listen).collect();
            self.sockets = Sockets::Listening(listeners?);
        }
        Ok(())
    }

    pub(super) fn listeners(&mut self) -> &mut [Listener] {
        if let Sockets::Listening(listeners) = &mut self.sockets { listeners } else { &mut [] }
    }

    pub(super) fn serves(&mut self, id: Id) {
        self.stand_in = None;
        self.alone_since = None;
        let waiting = std::mem::take(&mut self.waiting);
        self.pass_on(waiting);
        if !std::mem::replace(&mut self.is_up, true) {
            let scheme = if self.config.server.tls.is_some() { "https" } else { "http" };
            let journal = self.journal;
            for listener in &*self.listeners() {
                let address = &listener.address;
                let text = format!("listening on {}", address.url(scheme));
                journal.report(Severity::Info, text, [("address", address.to_string())]);
            }
            if !self.processes.get(&id).is_some_and(|process| process.is_warm) {
                systemd::starting();
            }
            // Init has succeeded once: the others are started beside each other.
            (1..self.template.n_places).for_each(|place| self.start(place, None));
        }
        self.tell_manager();
        self.next_change();
    }

    /// Tells the service manager once that the effe is ready.
    pub(super) fn tell_manager(&mut self) {
        let is_warm = self.is_up && self.processes.values().any(|process| process.is_warm);
        if is_warm && !std::mem::replace(&mut self.is_told_ready, true) {
            systemd::ready(&self.plugin_path(), self.current.number, None);
        }
    }

    pub(super) fn reap(&mut self) {
        let mut dead = Vec::new();
        for (id, process) in &mut self.processes {
            if process.look() {
                dead.push(*id);
            }
        }
        for id in dead {
            self.settle(id);
            // A child of its own may have the link's other end, and keep it.
            self.later(LAST_WORDS, Event::Heard(id, Heard::End));
        }
        if getpid() == Pid::INIT && self.swap.is_none() {
            // What others have left to the first process of all. While a plugin is tried, its child is waited for.
            while let Ok(Some(_)) = waitpid(None, WaitOptions::NOHANG) {}
        }
        let over: Vec<Id> =
            self.processes.iter().filter(|(_, one)| one.is_over()).map(|(id, _)| *id).collect();
        for id in over {
            let is_next = self.is_next(id);
            if let Some(process) = self.processes.remove(&id) {
                self.bury(id, process, is_next);
            }
        }
        self.go_on_with_swap();
        self.watch();
        self.refuse_if_deaf();
    }

    fn bury(&mut self, id: Id, process: Process, is_next: bool) {
        let was_successor = self.was_successor(id);
        let exit = process.exit.unwrap_or_default();
        let last = process.ended.as_ref().map(|(_, scrape)| scrape);
        let last = last.or(process.report.as_ref().map(|report| &report["scrape"]));
        let last = last.and_then(Scrape::from_json).unwrap_or_default();
        let [started, stopped] = process.remains.contexts;
        self.counted.add_ended(&last, started, stopped);
        if let Some((Ended { started, abandoned, cut_off }, _)) = process.ended {
            self.ended.started = self.ended.started.saturating_add(started);
            self.ended.abandoned = self.ended.abandoned.saturating_add(abandoned);
            self.ended.cut_off = self.ended.cut_off.saturating_add(cut_off);
        }
        let how = how(exit);
        if process.state == State::Stopping || (self.stopping.is_some() && is_stop(exit)) {
            // After a swap it is a crash as any other.
            self.has_failed |= self.stopping.is_some() && !exit.success() && !is_stop(exit);
            // One that its lambda ends by `exit` may end with any code.
            if (exit.signal().is_some() && !is_stop(exit)) || process.has_crashed {
                self.count_crash(exit);
                let what = format!("process {}, which was to stop, {how}", process.place);
                self.tell_of(&process, what, String::new());
            }
            return;
        }
        if is_next && process.failed.is_none() {
            self.count_crash(exit);
        }
        if process.state == State::Starting && (!self.is_up || is_next) {
            let (code, text) = process.failed.unwrap_or_else(|| {
                (FAILED, format!("{}: its process {how} before it was ready", self.path()))
            });
            if is_next {
                return self.swap_fails(text);
            }
            let _ = writeln!(io::stderr(), "effe-loader: {text}");
            self.outcome = Some(Ok(code));
            return;
        }
        if is_next {
            return self.swap_fails(format!("{}: its process {how}", self.path()));
        }
        if was_successor {
            let place = process.place;
            let text = process.failed.map_or_else(|| format!("it {how}"), |(_, text)| text);
            return self.journal.error(format!(
                "the successor of process {place} can't serve: {text}; the one before it goes on"
            ));
        }
        self.has_died(&process, exit);
    }

    /// A process that lives can't be heard or told anything: its lambda has closed what isn't its own.
    pub(super) fn mute(&mut self, id: Id) {
        let Some(process) = self.processes.get(&id) else { return };
        let is_expected = [State::Stopping, State::Crashed].contains(&process.state);
        if process.exit.is_none() && !is_expected {
            let place = process.place;
            self.journal
                .error(format!("process {place} has closed its link to the supervisor: it is killed"));
            self.crashes(id);
            if let Some(process) = self.processes.get(&id) {
                process.kill();
            }
        }
    }

    /// A process says that it has crashed. Another one is started while it still saves what can be saved.
    pub(super) fn crashes(&mut self, id: Id) {
        self.later(self.config.fault_grace + CORPSE, Event::Overdue(id));
        let Some(process) = self.processes.get_mut(&id).filter(|process| process.state == State::Serving)
        else {
            return;
        };
        process.state = State::Crashed;
        let (place, had_served) = (process.place, had_served(process));
        let is_current = Rc::ptr_eq(&process.source, &self.current);
        let sequel = if is_current { self.replace(place, had_served) } else { "it was to stop".to_owned() };
        if let Some(process) = self.processes.get_mut(&id) {
            process.sequel = Some(sequel);
        }
    }

    /// Starts another process in the place of one that has died; says so.
    fn replace(&mut self, place: usize, had_served: bool) -> String {
        let mut verdict = self.restarts.died(Instant::now(), had_served);
        verdict.rolls_back &= self.previous.is_some();
        if let Some(counted) = &mut self.counted.supervised {
            counted.restarts += 1;
        }
        if self.stopping.is_some() {
            return "no other one is started, since the effe stops".to_owned();
        }
        let serves = self.processes.values().any(|process| process.state == State::Serving);
        if !serves && self.alone_since.is_none() {
            self.alone_since = Some(Instant::now());
            self.later(ALONE, Event::Alone);
        }
        if verdict.after.is_zero() {
            self.restart(place);
        } else {
            self.later(verdict.after, Event::Restart(place));
        }
        if verdict.rolls_back {
            let serves = self.current.number;
            self.journal.critical(format!(
                "generation {serves} has crashed again and again since it serves: rolling back"
            ));
            self.change(Change::RollBack, None);
        }
        match verdict.after {
            Duration::ZERO => "another one takes its place".to_owned(),
            after => format!("another one takes its place in {after:.1?}"),
        }
    }

    /// A process has ended that should serve.
    fn has_died(&mut self, process: &Process, exit: ExitStatus) {
        let place = process.place;
        let sequel = match &process.sequel {
            Some(sequel) => sequel.clone(),
            None => self.replace(place, had_served(process)),
        };
        if let Some((_, text)) = &process.failed {
            return self.journal.error(format!("process {place} can't start: {text}; {sequel}"));
        }
        self.count_crash(exit);
        let what = format!("process {place} {}", how(exit));
        self.tell_of(process, what, sequel);
    }

    pub(super) fn count_crash(&mut self, exit: ExitStatus) {
        let name = match exit.signal() {
            Some(number) => low_level::signal_name(number).map_or_else(|| number.to_string(), str::to_owned),
            None => "exit".to_owned(),
        };
        if let Some(counted) = &mut self.counted.supervised {
            *counted.crashes.entry(name).or_default() += 1;
        }
    }

    pub(super) fn stand_in(&mut self) {
        // Others may have served since this was to be looked at.
        if self.alone_since.is_none_or(|since| since.elapsed() < ALONE)
            || self.stand_in.is_some()
            || self.stopping.is_some()
            || self.config.server.tls.is_some()
        {
            return;
        }
        if self.stands_in() {
            self.journal.critical("no process serves: clients are told 503");
        }
        self.turn_away();
    }

    /// Has clients that connect told 503, if there is no TLS; whether they are.
    pub(super) fn stands_in(&mut self) -> bool {
        if self.config.server.tls.is_some() {
            return false;
        }
        match StandIn::new(self.listeners()) {
            Ok(stand_in) => self.stand_in = Some(stand_in),
            Err(err) => {
                self.journal.error(format!("no process serves, and clients can't be told: {err}"));
                return false;
            }
        }
        true
    }

    pub(super) fn plugin_path(&self) -> PathBuf {
        match &self.current.plugin {
            Some(plugin) => plugin.path().to_owned(),
            None => "the linked lambda".into(),
        }
    }

    pub(super) fn path(&self) -> String {
        self.plugin_path().display().to_string()
    }
}

/// Whether a process was of use before it died: then another one most likely is, too.
fn had_served(process: &Process) -> bool {
    let n_runs = process.escrow.as_ref().map_or(process.remains.n_runs, |escrow| escrow.board.n_runs());
    process.serving.is_some_and(|since| since.elapsed() >= ALONE) || n_runs >= USEFUL
}

/// Whether a process has ended by a signal that stops the whole group, before it could hear of anything.
fn is_stop(exit: ExitStatus) -> bool {
    exit.signal().is_some_and(|signal| [SIGTERM, SIGINT, SIGHUP].contains(&signal))
}

fn how(exit: ExitStatus) -> String {
    match (exit.signal(), exit.code()) {
        (Some(number), _) => {
            let name = low_level::signal_name(number).unwrap_or("unknown");
            let core = if exit.core_dumped() { ", core dumped" } else { "" };
            format!("was ended by signal {number} ({name}{core})")
        }
        (None, Some(code)) => format!("has ended with exit code {code}"),
        (None, None) => "has ended".to_owned(),
    }
}
