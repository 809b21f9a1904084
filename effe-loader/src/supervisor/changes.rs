//! Swaps, roll-backs, and the first half of an upgrade: a new set of processes in the place of the one that serves, or
//! none of it.

use std::{collections::VecDeque, fs::File, rc::Rc, thread, time::Instant};

use super::{
    Event, Reply, Stage, Supervisor, Swap,
    process::{Id, Process, State},
    source::{self, Parts, Source},
};
use crate::{
    journal::Severity,
    process::{
        control::{Change, Changed},
        link::Order,
        systemd,
    },
    rt::panics::survive,
};

impl Supervisor<'_> {
    /// Whether a process is one of those that are to serve once all of them can.
    pub(super) fn is_next(&self, id: Id) -> bool {
        let next = self.swap.as_ref().and_then(|swap| swap.next.as_ref());
        let process = self.processes.get(&id);
        next.zip(process).is_some_and(|(next, process)| {
            Rc::ptr_eq(next, &process.source) && process.state != State::Stopping
        })
    }

    /// Carries a change out, or has it wait until the one before is over.
    pub(super) fn change(&mut self, change: Change, reply: Option<Reply>) {
        if self.stopping.is_none() {
            self.changes.push_back((change, reply));
            self.next_change();
        }
    }

    pub(super) fn next_change(&mut self) {
        if self.swap.is_some() || !self.is_up || self.stopping.is_some() {
            return;
        }
        let Some((change, reply)) = self.changes.pop_front() else { return };
        // Orders for the same change that wait together are carried out once.
        let (same, others): (VecDeque<_>, _) =
            std::mem::take(&mut self.changes).into_iter().partition(|(other, _)| *other == change);
        self.changes = others;
        let replies = reply.into_iter().chain(same.into_iter().filter_map(|(_, reply)| reply)).collect();
        if self.is_told_ready {
            systemd::reloading();
        }
        let stage = Stage::Starting;
        self.swap = Some(Swap { since: Instant::now(), change, next: None, stage, failed: None, replies });
        match change {
            Change::Reload => self.reload(),
            Change::Upgrade => self.upgrade(),
            Change::RollBack => match self.previous.clone() {
                Some(previous) => self.begin_swap(previous),
                None => self.swap_fails("can't roll back: there is no generation before this one".to_owned()),
            },
        }
    }

    /// Has a thread read the files again.
    pub(super) fn reload(&mut self) {
        self.reload_certificate();
        let copy = self.current.plugin.as_deref().and_then(|plugin| plugin.memory()).map(File::try_clone);
        let Some(copy) = copy else {
            let why = "can't reload: this process has no copy of its lambda that another could replace";
            return self.swap_fails(why.to_owned());
        };
        let copy = match copy {
            Ok(copy) => copy,
            Err(err) => return self.swap_fails(format!("can't reload: {err}")),
        };
        let (config, serves) = (self.config.generations.clone(), (copy, self.current.parameters.clone()));
        let (path, events) = (self.plugin_path(), self.events.clone());
        let thread = thread::Builder::new().name("effe-swap".to_owned());
        let begun = thread.spawn(move || {
            let read = survive(|| source::read_again(&path, &config, &serves));
            let _ = events.send(Event::Read(read));
        });
        if let Err(err) = begun {
            self.swap_fails(format!("no thread to read the plugin: {err}"));
        }
    }

    /// New connections get the certificate that is in its file now, or if that is not valid, the one before.
    pub(super) fn reload_certificate(&self) {
        match self.config.server.tls.as_ref().map(|tls| tls.reload()) {
            None | Some(Ok(None)) => {}
            Some(Ok(Some(files))) => {
                self.journal.notice("new connections get the new certificate");
                let [cert, key] = files.map(|file| String::from_utf8_lossy(&file).into_owned());
                let order = Order::TakeCertificate { cert, key };
                self.processes.values().for_each(|process| process.tell(&order));
            }
            Some(Err(fault)) => {
                self.journal.error(format!("{fault}; the certificate from before goes on serving"));
            }
        }
    }

    pub(super) fn read(&mut self, read: Result<Option<Parts>, String>) {
        if self.swap.is_none() {
            return;
        }
        let (plugin, parameters, warning) = match read {
            Ok(Some(parts)) => parts,
            Ok(None) => {
                let number = self.current.number;
                let text = format!("nothing has changed; generation {number} goes on serving");
                self.journal.report(Severity::Notice, text, [("generation", number.to_string())]);
                return self.swap_ends(Ok(Changed { generation: number, swapped: false }));
            }
            Err(why) => return self.swap_fails(why),
        };
        if let Some(warning) = warning {
            self.journal.warning(warning);
        }
        match Source::new(self.n_opened + 1, Some(plugin), parameters) {
            Ok(next) => self.begin_swap(next),
            Err(err) => self.swap_fails(err.to_string()),
        }
    }

    /// Starts the first process of a generation that is to serve. The others follow once it is ready.
    pub(super) fn begin_swap(&mut self, next: Rc<Source>) {
        if let Some(swap) = &mut self.swap {
            swap.next = Some(Rc::clone(&next));
        }
        self.start(0, Some(&next));
    }

    /// Something has happened to the processes that are to serve: they begin together once each of them is ready, and
    /// the others stop once each of them serves. So there are always enough of them.
    pub(super) fn go_on_with_swap(&mut self) {
        let Some(swap) = &self.swap else { return };
        match swap.stage {
            Stage::Starting => {}
            Stage::Ending => {
                let is_old = |process: &&Process| !Rc::ptr_eq(&process.source, &self.current);
                let mut old = self.processes.values().filter(is_old);
                if old.all(|process| process.is_deaf || process.exit.is_some()) {
                    self.swapped();
                }
                return;
            }
            Stage::Leaving => return,
        }
        let Some(next) = swap.next.clone() else { return };
        let ours: Vec<Id> = self.processes.keys().copied().filter(|id| self.is_next(*id)).collect();
        let n_in = |state| ours.iter().filter(|id| self.processes[*id].state == state).count();
        let (n_ready, n_serving) = (n_in(State::Ready), n_in(State::Serving));
        let n_places = self.template.n_places;
        if n_serving == n_places {
            self.take_over(next);
        } else if n_ready == n_places {
            ours.iter().for_each(|id| self.processes[id].tell(&Order::Serve));
        } else if ours.len() == 1 && n_ready == 1 {
            (1..n_places).for_each(|place| self.start(place, Some(&next)));
        }
    }

    /// The next generation serves: the processes of the one before are stopped, and the swap ends when none of them
    /// accepts connections any more. One that never says so is killed when its time is over.
    pub(super) fn take_over(&mut self, next: Rc<Source>) {
        let Some(swap) = &mut self.swap else { return };
        let number = next.number;
        // From here on its processes are those of the generation that serves.
        (swap.next, swap.stage) = (None, Stage::Ending);
        let is_upgrade = swap.change == Change::Upgrade;
        self.n_opened = self.n_opened.max(number);
        let before = std::mem::replace(&mut self.current, Rc::clone(&next));
        if !is_upgrade {
            self.previous = Some(before);
        }
        let old: Vec<Id> = self
            .processes
            .iter()
            .filter(|(_, one)| !Rc::ptr_eq(&one.source, &next))
            .map(|(id, _)| *id)
            .collect();
        for id in old {
            self.hand_over(id);
            // Those that have not served.
            self.stop_process(id, self.config.server.drain.timeout);
        }
        self.stand_in = None;
        self.stay_awake();
        self.alone_since = None;
        let waiting = std::mem::take(&mut self.waiting);
        self.pass_on(waiting);
        if self.swap.as_ref().is_some_and(|swap| swap.change == Change::Reload) {
            self.restarts.swapped(Instant::now());
        }
        self.go_on_with_swap();
    }

    /// No process of the generation before accepts a connection any more.
    pub(super) fn swapped(&mut self) {
        let Some(swap) = &self.swap else { return };
        let (number, took) = (self.current.number, swap.since.elapsed());
        let left = self.previous.as_ref().map_or(0, |previous| previous.number);
        if swap.change == Change::Upgrade {
            return match swap.failed.clone() {
                None => self.give_way(),
                Some(why) => self.swap_ends(Err(why)),
            };
        }
        let text = match swap.change {
            Change::Reload | Change::Upgrade => {
                format!("generation {number} serves ({}, {took:.0?}); the one before it is kept", self.path())
            }
            Change::RollBack => format!("generation {number} serves again; generation {left} is kept"),
        };
        self.journal.report(Severity::Notice, text, [("generation", number.to_string())]);
        self.swap_ends(Ok(Changed { generation: number, swapped: true }));
    }

    /// The processes of the generation that should have served are stopped, and the others go on.
    pub(super) fn swap_fails(&mut self, why: String) {
        let ours: Vec<Id> = self.processes.keys().copied().filter(|id| self.is_next(*id)).collect();
        ours.into_iter().for_each(|id| self.stop_process(id, self.config.server.drain.timeout));
        let serves = self.current.number;
        let is_upgrade = self.swap.as_ref().is_some_and(|swap| swap.change == Change::Upgrade);
        self.journal.error(match is_upgrade {
            true => format!("can't upgrade: {why}; this loader goes on"),
            false => format!("{why}; generation {serves} goes on serving"),
        });
        self.swap_ends(Err(why));
    }

    pub(super) fn swap_ends(&mut self, outcome: Result<Changed, String>) {
        let Some(swap) = self.swap.take() else { return };
        if self.is_told_ready && self.stopping.is_none() {
            let why = outcome.as_ref().err().map(String::as_str);
            systemd::ready(&self.plugin_path(), self.current.number, why);
        }
        for reply in swap.replies {
            // Fails if the outcome is no longer waited for.
            let _ = reply.send(outcome.clone());
        }
        self.next_change();
    }
}
