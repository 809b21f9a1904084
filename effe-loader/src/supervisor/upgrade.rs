//! An upgrade of the loader. The program that is in the loader's file now is asked whether it could go on; then it
//! serves, as the processes of a swap; and then the supervisor executes it in its own place, with everything that it
//! has. Until then all is as before if anything fails, and after that the program goes back to the one before if it
//! can't begin.

use std::{
    fs::File,
    thread,
    time::{Duration, Instant},
};

use super::{
    Event, SIGNALS, Stage, Supervisor, Swap, carried::Outgoing, handed, lingering::Lingering, program,
};
use crate::{
    error::Error,
    process::{
        control::{Change, Changed},
        signals,
    },
    rt::panics::survive,
};

/// How long the new program's processes may take to be ready: so long, or twice what those that serve took.
const READY: Duration = Duration::from_secs(60);
/// How often to look whether anybody still waits for an answer of this program's own.
const LOOK: Duration = Duration::from_millis(5);
/// How long to wait for them.
const PATIENCE: Duration = Duration::from_secs(6);
/// How long to take in signals that have come.
const SETTLE: Duration = Duration::from_millis(5);

impl Supervisor<'_> {
    /// Has a thread ask the program that is in the loader's file now.
    pub(super) fn upgrade(&mut self) {
        let Some(path) = &self.program else {
            return self.swap_fails("it is not known in which file this loader was".to_owned());
        };
        let program = match program::open(path) {
            Ok(program) => program,
            Err(err) => return self.swap_fails(format!("{}: {err}", path.display())),
        };
        let (args, events) = (self.template.args.clone(), self.events.clone());
        let thread = thread::Builder::new().name("effe-upgrade".to_owned());
        let begun = thread.spawn(move || {
            let asked = survive(|| program::ask(&program, &args));
            let _ = events.send(Event::Asked(asked.map(|()| program)));
        });
        if let Err(err) = begun {
            self.swap_fails(format!("no thread to ask the new program: {err}"));
        }
    }

    /// The program has said whether it could go on. If so, it is to serve.
    pub(super) fn asked(&mut self, asked: Result<File, String>) {
        let Some(swap) = &self.swap else { return };
        let since = swap.since;
        match asked {
            Ok(program) => {
                let took = |since: Option<Instant>, started: Instant| {
                    since.map_or(Duration::ZERO, |since| since.saturating_duration_since(started))
                };
                let longest = self.processes.values().map(|process| took(process.serving, process.started));
                let ready = READY.max(2 * longest.max().unwrap_or_default());
                self.later(ready, Event::Late(since));
                self.begin_swap(self.current.under(self.number_of_program(), Some(program)));
            }
            Err(why) => {
                let path = self.program.as_deref().unwrap_or_else(|| "the new program".as_ref()).display();
                self.swap_fails(format!("{path}: {why}"));
            }
        }
    }

    /// Another program serves the same generation, unless the lambda is part of it.
    fn number_of_program(&self) -> u64 {
        if self.current.plugin.is_some() { self.current.number } else { self.n_opened + 1 }
    }

    /// The processes of an upgrade that was ordered then should be ready.
    pub(super) fn late(&mut self, since: Instant) {
        if self.swap.as_ref().is_some_and(|swap| swap.since == since && swap.stage == Stage::Starting) {
            self.swap_fails(format!("its processes are not ready after {:.0?}", since.elapsed()));
        }
    }

    /// The new program's processes serve, and it will be executed as soon as nobody waits for this one.
    pub(super) fn give_way(&mut self) {
        let Some(swap) = &mut self.swap else { return };
        swap.stage = Stage::Leaving;
        let took = swap.since.elapsed();
        for reply in swap.replies.drain(..) {
            let _ = reply.send(Ok(Changed { generation: self.current.number, swapped: true }));
        }
        self.journal.notice(format!("the new loader's processes serve ({took:.0?}); the supervisor follows"));
        self.gives_way(Instant::now(), false);
    }

    /// Prepares to execute the new program, unless something has to be finished first.
    pub(super) fn gives_way(&mut self, since: Instant, has_settled: bool) {
        if self.is_held_up(since) {
            return;
        }
        if has_settled {
            self.leaves = Some(since);
            return;
        }
        // What has come is an event by then. What comes from now on waits for the new program.
        signals::block(&SIGNALS);
        self.later(SETTLE, Event::GiveWay(since, true));
    }

    /// Executes the new program. No event waits to be seen to, and none comes while this runs.
    pub(super) fn leave_to_new(&mut self, since: Instant) {
        if self.is_held_up(since) {
            return;
        }
        self.say_all();
        if let Err(err) = self.go_on_as_new() {
            signals::unblock(&SIGNALS);
            self.step_back(format!("what this loader has can't be handed over: {err}"));
        }
    }

    /// Whether something has to be finished first; then it is looked at again later, unless a stop was ordered.
    fn is_held_up(&mut self, since: Instant) -> bool {
        if self.swap.as_ref().is_none_or(|swap| swap.stage != Stage::Leaving) {
            signals::unblock(&SIGNALS);
            return true;
        }
        for (change, reply) in std::mem::take(&mut self.changes) {
            match reply {
                // Whoever asks over a connection of this program's can't wait for another.
                Some(reply) => {
                    drop(reply.send(Err("the loader is being replaced: order it again".to_owned())))
                }
                None => self.changes.push_back((change, None)),
            }
        }
        // What those have left that are dead is not known yet, or not counted.
        let has_dead = self.processes.values().any(|process| process.exit.is_some());
        let is_waited_for = Lingering::n() > 0 || !self.admin.as_ref().is_none_or(|admin| admin.is_idle());
        let is_held_up = has_dead || (is_waited_for && since.elapsed() < PATIENCE);
        if is_held_up {
            signals::unblock(&SIGNALS);
            self.later(LOOK, Event::GiveWay(since, false));
        }
        is_held_up
    }

    /// Returns only if the new program can't be executed: with an error if this one can go on.
    fn go_on_as_new(&mut self) -> std::io::Result<()> {
        let err = {
            let program = self.current.program.as_ref().ok_or(std::io::ErrorKind::NotFound)?;
            let mut out = Outgoing::default();
            let state = self.carry(&mut out);
            let handed = handed::write(&state)?;
            out.open_to_others().inspect_err(|_| out.close_to_others())?;
            // Whoever doesn't read the log loses its last lines rather than keep the effe waiting.
            self.journal.finish();
            handed.go_on_as(program, &self.template.args)
        };
        self.outcome = Some(Err(Error::System { what: "go on as another program".into(), source: err }));
        Ok(())
    }

    /// The new program can't go on: this one's processes serve again.
    pub(super) fn step_back(&mut self, why: String) {
        self.journal.error(format!("can't upgrade: {why}; this loader goes on"));
        let (since, change, stage) = (Instant::now(), Change::Upgrade, Stage::Starting);
        self.swap = Some(Swap { since, change, next: None, stage, failed: Some(why), replies: Vec::new() });
        self.begin_swap(self.current.under(self.number_of_program(), None));
    }
}
