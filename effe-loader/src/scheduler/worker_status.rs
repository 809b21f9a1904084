//! What a thread of the server lets others see of itself: whether it is in a run, since when, and for what request.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering, fence},
};

use rustix::thread::{Pid, gettid};

use crate::{
    exchange::call::Completions,
    placement::run_clock::{self, Ended},
    rescue::{record::Record, thread},
    rt::clock::Moment,
    scheduler::meter::Meter,
};

/// One thread of the server. Only that thread writes; the monitor and the metrics read.
pub struct WorkerStatus {
    /// The run that this thread is in.
    record: &'static Record,
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
            // A server's threads live as long as the process.
            record: thread::of_server().unwrap_or_else(|| Box::leak(Box::default())),
            n_requests: AtomicUsize::new(0),
            completions,
            meter,
            thread: gettid(),
        }
    }

    /// A run or a poll begins on this thread; `now` saves a look at the clock.
    #[inline]
    pub fn begin(&self, method: &str, path: &str, generation: u64, now: Option<Moment>) -> Moment {
        let now = run_clock::begin(now);
        self.record.begin(method, path, generation, now.nanos());
        now
    }

    #[inline]
    pub fn end(&self, begun: Moment) -> Ended {
        self.record.end();
        run_clock::end(begun)
    }

    /// Which request is being answered on this thread, as a rescue names it. 0 in a process that isn't supervised.
    pub fn served(&self) -> u64 {
        self.record.served()
    }

    /// This thread goes on with that request.
    pub fn serve(&self, request: u64) {
        self.record.serve(request);
    }

    /// The run that this thread is in now.
    pub fn running(&self) -> Option<Overview> {
        let since = self.record.since.load(Ordering::Acquire);
        if since == 0 {
            return None;
        }
        let (text, len) = self.record.text();
        let request = String::from_utf8_lossy(&text[..len]).into_owned();
        let run =
            Overview { since: Moment::from_nanos(since), request, generation: self.record.generation() };
        // If another run has begun meanwhile, what was read is of both.
        fence(Ordering::Acquire);
        self.is_in(&run).then_some(run)
    }

    pub fn is_in(&self, run: &Overview) -> bool {
        let since = self.record.since.load(Ordering::Relaxed);
        since != 0 && since == run.since.nanos()
    }

    /// Runs that have ended.
    pub fn n_runs(&self) -> u64 {
        self.record.n_runs()
    }

    /// A request begins; it counts until the guard is dropped.
    pub fn begin_request(self: &Arc<Self>) -> OpenRequest {
        self.n_requests.store(self.n_requests.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        OpenRequest(Arc::clone(self))
    }

    /// Requests that this thread has begun and not answered.
    pub fn n_running(&self) -> usize {
        let inline = usize::from(self.record.is_in_run());
        inline + self.n_requests.load(Ordering::Relaxed)
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
