//! What a thread of the server lets others see of itself: whether it is in a run, since when, and for what request.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use rustix::thread::{Pid, gettid};

use crate::{
    exchange::call::Completions,
    placement::run_clock::{self, Ended},
    rt::clock::Moment,
    scheduler::meter::Meter,
};

/// One thread of the server. Only that thread writes; the monitor and the metrics read.
pub struct WorkerStatus {
    /// When the run that this thread is in began, in nanoseconds of the clock; 0 if it is in none.
    since: AtomicU64,
    n_runs: AtomicU64,
    /// The last run that began.
    last: Mutex<Overview>,
    /// Requests that this thread has begun and not answered, runs on this thread aside.
    n_requests: AtomicUsize,
    /// Where this thread's calls come back to.
    pub completions: Arc<Completions>,
    /// What this thread counts, if anybody can ask.
    pub meter: Option<Meter>,
    pub thread: Pid,
}

/// A run on a thread of the server.
#[derive(Clone, Default)]
pub struct Overview {
    pub since: Moment,
    /// `GET /path`
    pub request: String,
    /// The number of the generation that runs it.
    pub generation: u64,
}

impl WorkerStatus {
    /// The status of the calling thread.
    pub fn new(completions: Arc<Completions>, meter: Option<Meter>) -> WorkerStatus {
        WorkerStatus {
            since: AtomicU64::new(0),
            n_runs: AtomicU64::new(0),
            last: Mutex::default(),
            n_requests: AtomicUsize::new(0),
            completions,
            meter,
            thread: gettid(),
        }
    }

    /// A run or a poll begins on this thread; `now` saves a look at the clock.
    pub fn begin(&self, method: &str, path: &str, generation: u64, now: Option<Moment>) -> Moment {
        let now = run_clock::begin(now);
        let mut last = self.last();
        last.request.clear();
        last.request.push_str(method);
        last.request.push(' ');
        last.request.push_str(path);
        (last.generation, last.since) = (generation, now);
        drop(last);
        self.since.store(now.nanos(), Ordering::Relaxed);
        now
    }

    pub fn end(&self, begun: Moment) -> Ended {
        self.since.store(0, Ordering::Relaxed);
        self.n_runs.store(self.n_runs() + 1, Ordering::Relaxed);
        run_clock::end(begun)
    }

    /// The run that this thread is in now.
    pub fn running(&self) -> Option<Overview> {
        let last = self.last();
        self.is_in(&last).then(|| last.clone())
    }

    pub fn is_in(&self, run: &Overview) -> bool {
        let since = self.since.load(Ordering::Relaxed);
        since != 0 && since == run.since.nanos()
    }

    /// Runs that have ended.
    pub fn n_runs(&self) -> u64 {
        self.n_runs.load(Ordering::Relaxed)
    }

    /// A request begins; it counts until the guard is dropped.
    pub fn begin_request(self: &Arc<Self>) -> OpenRequest {
        self.n_requests.store(self.n_requests.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        OpenRequest(Arc::clone(self))
    }

    /// Requests that this thread has begun and not answered.
    pub fn n_running(&self) -> usize {
        let inline = usize::from(self.since.load(Ordering::Relaxed) != 0);
        inline + self.n_requests.load(Ordering::Relaxed)
    }

    fn last(&self) -> MutexGuard<'_, Overview> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is being answered.
pub struct OpenRequest(Arc<WorkerStatus>);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let n_requests = &self.0.n_requests;
        n_requests.store(n_requests.load(Ordering::Relaxed) - 1, Ordering::Release);
    }
}
