//! What an effe needs now and then: Contexts that nobody needs are stopped, memory that nobody needs goes back to the
//! system, and the first Start is tried again until it succeeds.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    effe::{Effe, contexts::LOOKS},
    process::{memory, systemd},
};

/// How long a failed first Start waits for the next try.
const RETRY: Duration = Duration::from_secs(1);

/// What is to be done and when. Start and Stop may take long, so they get a thread that lives only meanwhile.
pub struct Maintenance {
    effe: Arc<Effe>,
    look_every: Option<Duration>,
    /// `None` without an idle timeout.
    next_look: Option<Instant>,
    /// `None` once a first Start has succeeded.
    next_try: Option<Instant>,
    thread: Option<JoinHandle<()>>,
}

impl Maintenance {
    /// [`run_due`](Maintenance::run_due) is to be called at [`next`](Maintenance::next).
    pub fn new(effe: Arc<Effe>, idle_timeout: Option<Duration>, warm: bool) -> Maintenance {
        let look_every = idle_timeout.map(|timeout| (timeout / LOOKS).max(Duration::from_millis(1)));
        let now = Instant::now();
        let (next_look, next_try) = (look_every.map(|every| now + every), (!warm).then_some(now + RETRY));
        Maintenance { effe, look_every, next_look, next_try, thread: None }
    }

    pub fn next(&self) -> Option<Instant> {
        self.next_look.into_iter().chain(self.next_try).min()
    }

    /// Does what is due, one thing at a time: the rest is left for the next time.
    pub fn run_due(&mut self) {
        let now = Instant::now();
        let is_due = |next: Option<Instant>| next.is_some_and(|next| now >= next);
        let (look, retry) = (is_due(self.next_look), is_due(self.next_try));
        if !look && !retry {
            return;
        }
        if look {
            self.next_look = self.look_every.map(|every| now + every);
        }
        if retry {
            self.next_try = (!self.effe.generations.current().is_warm()).then_some(now + RETRY);
        }
        if self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let thread = thread::Builder::new().name("effe-maintain".to_owned());
        let effe = Arc::clone(&self.effe);
        let begun = if retry && self.next_try.is_some() {
            thread.spawn(move || warm(&effe))
        } else if look {
            let generation = effe.generations.hold();
            let unneeded = generation.contexts.look();
            let has_fallen = effe.held.has_fallen();
            if unneeded.is_empty() && !has_fallen {
                return;
            }
            thread.spawn(move || {
                generation.plugin.stop_all(unneeded);
                if has_fallen {
                    memory::give_back();
                }
            })
        } else {
            return;
        };
        match begun {
            Ok(thread) => self.thread = Some(thread),
            Err(err) => self
                .effe
                .journal
                .warning(format!("no thread to stop or to start Contexts, or to give memory back: {err}")),
        }
    }

    /// Waits for what is being done.
    pub fn stop(self) {
        if let Some(thread) = self.thread {
            let _ = thread.join();
        }
    }
}

fn warm(effe: &Effe) {
    let generation = effe.generations.hold();
    match generation.warm() {
        Ok(()) => systemd::ready(&generation.plugin.path, generation.number, None),
        Err(fault) => generation.plugin.log(&fault),
    }
}
