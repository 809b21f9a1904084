//! Invocations that nobody waits for: a bounded number of them, each tried again twice if it fails.

use std::{
    cell::Cell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, Semaphore},
    time,
};

use super::{
    invocations::{Context, Invocations},
    reply::ApiError,
};
use crate::{
    effe::event_counts::{Ended, EventCounts},
    journal::{Journal, Severity},
    rt::tasks,
};

/// Events that are waiting or running, and their bytes.
const MAX_EVENTS: usize = 1000;
const MAX_BYTES: usize = 64 << 20;
/// How many of them run at once.
const AT_ONCE: usize = 64;
/// Lambda's own number.
const N_RETRIES: u32 = 2;

/// What other threads may do with them.
pub struct Shared {
    counts: Arc<EventCounts>,
    is_draining: AtomicBool,
    drained: Notify,
}

impl Shared {
    pub fn new(counts: Arc<EventCounts>) -> Arc<Shared> {
        counts.switch_on();
        Arc::new(Shared { counts, is_draining: AtomicBool::new(false), drained: Notify::new() })
    }

    /// Waits until all events have run, at most until the deadline; how many have not. Those that wait for another try
    /// get it now.
    pub fn drain(&self, deadline: Instant) -> usize {
        self.is_draining.store(true, Ordering::Release);
        self.drained.notify_waiters();
        while self.counts.under_way() > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.counts.abandon()
    }
}

pub struct Events {
    shared: Arc<Shared>,
    /// Before the first retry; the second waits twice as long.
    delay: Duration,
    journal: Journal,
    n_bytes: Cell<usize>,
    room: Semaphore,
}

impl Events {
    pub fn new(shared: Arc<Shared>, delay: Duration, journal: Journal) -> Events {
        Events { shared, delay, journal, n_bytes: Cell::new(0), room: Semaphore::new(AT_ONCE) }
    }

    /// Takes an event on, if there is room for it.
    pub fn take(
        self: &Rc<Self>,
        invocations: &Rc<Invocations>,
        id: String,
        event: Bytes,
        context: Context,
    ) -> Result<(), ApiError> {
        let counts = &self.shared.counts;
        let is_full = counts.under_way() >= MAX_EVENTS || self.n_bytes.get() + event.len() > MAX_BYTES;
        if is_full || self.shared.is_draining.load(Ordering::Acquire) {
            counts.refuse();
            return Err(ApiError::busy());
        }
        counts.begin();
        self.n_bytes.set(self.n_bytes.get() + event.len());
        let (this, invocations) = (Rc::clone(self), Rc::clone(invocations));
        tasks::spawn(async move {
            let n_bytes = event.len();
            let ended = this.run(&invocations, &id, event, context).await;
            this.n_bytes.set(this.n_bytes.get() - n_bytes);
            this.shared.counts.end(ended);
        });
        Ok(())
    }

    async fn run(&self, invocations: &Invocations, id: &str, event: Bytes, context: Context) -> Ended {
        let mut n_failed = 0;
        loop {
            // It fails only where the semaphore is closed, which nobody does.
            let permit = self.room.acquire().await.ok();
            let invocation = invocations.invocation(id, event.clone(), context.clone());
            let Err(failed) = invocations.run(&invocation).await else { return Ended::Done };
            drop(permit);
            n_failed += 1;
            if n_failed > N_RETRIES {
                let n_lost = self.shared.counts.lost() + 1;
                let text = format!(
                    "an event is lost: it has failed {n_failed} times, last with {failed}; {n_lost} are lost so far"
                );
                self.journal.report(Severity::Error, text, [("request_id", id.to_owned())]);
                return Ended::Lost;
            }
            self.wait(self.delay * n_failed).await;
        }
    }

    /// Waits before a retry; not at all once the effe stops.
    async fn wait(&self, delay: Duration) {
        let drained = self.shared.drained.notified();
        let mut drained = std::pin::pin!(drained);
        drained.as_mut().enable();
        if !self.shared.is_draining.load(Ordering::Acquire) {
            let _ = time::timeout(delay, drained).await;
        }
    }
}
