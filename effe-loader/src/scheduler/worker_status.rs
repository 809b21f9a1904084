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
    exchange::call::Completions,
    placement::run_clock::{self, Ended},
    rt::clock::Moment,
    scheduler::meter::Meter,
};

/// One thread of the server. Only that thread writes; whoever watches over it reads.
pub struct WorkerStatus {
    /// When the run that this thread is in began, in nanoseconds of the clock; 0 if it is in none.
    since: AtomicU64,
    /// Runs so far.
    n_runs: AtomicU64,
    /// What the run is for.
    request: Mutex<Request>,
    /// Requests that this thread has taken up and not answered.
    n_running: AtomicUsize,
    completions: Arc<Completions>,
    /// What this thread counts, if anybody can ask.
    pub meter: Option<Meter>,
    thread: Pid,
}

#[derive(Clone, Default)]
struct Request {
    /// `GET /path`
    line: String,
    /// The number of the generation that runs it.
    generation: u64,
}

impl WorkerStatus {
    /// The seat of the calling thread, whose calls come back to `mailbox`.
    pub fn new(completions: Arc<Completions>, meter: Option<Meter>) -> WorkerStatus {
        WorkerStatus {
            since: AtomicU64::new(0),
            n_runs: AtomicU64::new(0),
            request: Mutex::default(),
            n_running: AtomicUsize::new(0),
            completions,
            meter,
            thread: gettid(),
        }
    }

    /// A run of a generation begins on this thread, or a poll of one; `now` saves a look at the clock.
    pub fn begin(&self, method: &str, path: &str, generation: u64, now: Option<Moment>) -> Moment {
        let mut request = self.request();
        request.line.clear();
        request.line.push_str(method);
        request.line.push(' ');
        request.line.push_str(path);
        request.generation = generation;
        drop(request);
        let now = run_clock::begin(now);
        self.since.store(now.nanos(), Ordering::Relaxed);
        now
    }

    /// The run has ended.
    pub fn end(&self, begun: Moment) -> Ended {
        self.since.store(0, Ordering::Relaxed);
        self.n_runs.store(self.n_runs() + 1, Ordering::Relaxed);
        run_clock::end(begun)
    }

    /// The run that this thread is in now.
    pub fn running(&self) -> Option<Overview> {
        let since = self.since.load(Ordering::Relaxed);
        if since == 0 {
            return None;
        }
        let Request { line, generation } = self.request().clone();
        // If another has begun meanwhile, it is not the one that was asked for.
        let same = self.since.load(Ordering::Relaxed) == since;
        let since = Moment::from_nanos(since);
        same.then(|| Overview { since, so_far: since.elapsed(), request: line, generation })
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
    pub fn begin_request(self: &Arc<Self>) -> OpenRequest {
        self.n_running.store(self.n_running.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        OpenRequest(Arc::clone(self))
    }

    /// Requests that this thread has taken up and not answered.
    pub fn n_running(&self) -> usize {
        let inline = usize::from(self.since.load(Ordering::Relaxed) != 0);
        inline + self.n_running.load(Ordering::Relaxed)
    }

    /// Where this thread's calls come back to.
    pub fn completions(&self) -> &Completions {
        &self.completions
    }

    /// A client can't be seen to leave while the thread that would see it is in a run.
    pub fn never_gone(&self) -> &AtomicBool {
        static NEVER: AtomicBool = AtomicBool::new(false);
        &NEVER
    }

    fn request(&self) -> MutexGuard<'_, Request> {
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
pub struct OpenRequest(Arc<WorkerStatus>);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let n_running = &self.0.n_running;
        n_running.store(n_running.load(Ordering::Relaxed) - 1, Ordering::Release);
    }
}
