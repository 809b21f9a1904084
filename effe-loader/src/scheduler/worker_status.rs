//! What a thread of the server lets others see of itself: whether it is in a run, since when, and for what request.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustix::thread::{Pid, gettid};

use crate::{
    exchange::call::Mailbox,
    placement::{
        cpu_time::{CAREFUL, Usage},
        policy::OVERSTAY,
    },
    rt::clock::Moment,
    scheduler::meter::Meter,
};

/// One thread of the server. Only that thread writes; whoever watches over it reads.
pub struct Seat {
    /// When the run that this thread is in began, in nanoseconds of the clock; 0 if it is in none.
    since: AtomicU64,
    /// The generation that the run belongs to.
    generation: AtomicU64,
    /// Runs so far.
    n_runs: AtomicU64,
    /// What the run is for.
    request: Mutex<String>,
    /// Requests that this thread has taken up and not answered.
    n_running: AtomicUsize,
    mailbox: Arc<Mailbox>,
    /// What this thread counts, if anybody can ask.
    pub meter: Option<Meter>,
    thread: Pid,
    /// What the thread had used when it last looked: before this run, or not many runs ago.
    used: Mutex<Usage>,
    /// Until so many runs, it looks before each.
    careful_until: AtomicU64,
}

/// Runs from one look at what the thread has used to the next: a look costs two system calls.
const LOOK_EVERY: u64 = 64;

/// How a run ended.
pub struct Ended {
    /// How long it took.
    pub took: Duration,
    /// Whether it took long because the system did not let its thread run.
    pub excused: bool,
}

impl Seat {
    /// The seat of the calling thread, whose calls come back to `mailbox`.
    pub fn new(mailbox: Arc<Mailbox>, meter: Option<Meter>) -> Seat {
        Seat {
            since: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            n_runs: AtomicU64::new(0),
            request: Mutex::default(),
            n_running: AtomicUsize::new(0),
            mailbox,
            meter,
            thread: gettid(),
            used: Mutex::new(Usage::now()),
            careful_until: AtomicU64::new(0),
        }
    }

    /// A run of a generation begins on this thread, or a poll of one; `now` saves a look at the clock.
    pub fn begin(&self, method: &str, path: &str, generation: u64, now: Option<Moment>) -> Moment {
        let mut request = self.request();
        request.clear();
        request.push_str(method);
        request.push(' ');
        request.push_str(path);
        drop(request);
        self.generation.store(generation, Ordering::Relaxed);
        if self.is_careful() {
            *self.used() = Usage::now();
        }
        let now = now.unwrap_or_else(Moment::now);
        self.since.store(now.nanos(), Ordering::Relaxed);
        now
    }

    /// The run has ended.
    pub fn end(&self, begun: Moment) -> Ended {
        self.since.store(0, Ordering::Relaxed);
        let took = begun.elapsed();
        let excused = took > OVERSTAY && self.excuse();
        let n_runs = self.n_runs() + 1;
        self.n_runs.store(n_runs, Ordering::Relaxed);
        if n_runs.is_multiple_of(LOOK_EVERY) {
            *self.used() = Usage::now();
        }
        Ended { took, excused }
    }

    /// Whether the run that has just ended took long by no fault of its own. The first time, what the runs just
    /// before it used is its alibi, too; then it is looked at more closely.
    fn excuse(&self) -> bool {
        let now = Usage::now();
        let used = now.since(std::mem::replace(&mut *self.used(), now));
        let excused = if self.is_careful() { used.excuses_run() } else { used.excuses_all() };
        if excused {
            self.careful_until.store(self.n_runs() + CAREFUL, Ordering::Relaxed);
        }
        excused
    }

    fn is_careful(&self) -> bool {
        self.n_runs() < self.careful_until.load(Ordering::Relaxed)
    }

    /// The run that this thread is in now.
    pub fn running(&self) -> Option<Overview> {
        let since = self.since.load(Ordering::Relaxed);
        if since == 0 {
            return None;
        }
        let (request, generation) = (self.request().clone(), self.generation.load(Ordering::Relaxed));
        // If another has begun meanwhile, it is not the one that was asked for.
        let same = self.since.load(Ordering::Relaxed) == since;
        let since = Moment::from_nanos(since);
        same.then(|| Overview { since, so_far: since.elapsed(), request, generation })
    }

    /// Whether this thread is in the run that began then.
    pub fn is_in(&self, run: &Overview) -> bool {
        self.since.load(Ordering::Relaxed) == run.since.nanos()
    }

    /// The thread.
    pub fn thread(&self) -> Pid {
        self.thread
    }

    /// Runs so far.
    pub fn n_runs(&self) -> u64 {
        self.n_runs.load(Ordering::Relaxed)
    }

    /// A request is taken up; it counts until the guard is dropped.
    pub fn take_up(self: &Arc<Self>) -> Running {
        self.n_running.store(self.n_running.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        Running(Arc::clone(self))
    }

    /// Requests that this thread has taken up and not answered.
    pub fn n_running(&self) -> usize {
        let inline = usize::from(self.since.load(Ordering::Relaxed) != 0);
        inline + self.n_running.load(Ordering::Relaxed)
    }

    /// Where this thread's calls come back to.
    pub fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// A client can't be seen to leave while the thread that would see it is in a run.
    pub fn never_gone(&self) -> &AtomicBool {
        static NEVER: AtomicBool = AtomicBool::new(false);
        &NEVER
    }

    fn used(&self) -> MutexGuard<'_, Usage> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(&self) -> MutexGuard<'_, String> {
        self.request.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run as others see it.
pub struct Overview {
    /// When it began.
    pub since: Moment,
    /// How long it takes already.
    pub so_far: Duration,
    /// `GET /path`
    pub request: String,
    /// The generation's number.
    pub generation: u64,
}

/// A request that is being answered.
pub struct Running(Arc<Seat>);

impl Drop for Running {
    fn drop(&mut self) {
        let n_running = &self.0.n_running;
        n_running.store(n_running.load(Ordering::Relaxed) - 1, Ordering::Release);
    }
}
