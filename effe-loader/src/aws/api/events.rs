//! Invocations that nobody waits for: a bounded number of them, each tried again twice if it fails.

use std::{
    cell::Cell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
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

/// What other threads may know of it.
#[derive(Default)]
pub struct Shared {
    n_events: AtomicUsize,
    pub is_draining: AtomicBool,
    pub drained: Notify,
}

impl Shared {
    /// Waits until all events have run, at most until the deadline; how many have not. Those that wait for another try
    /// get it now.
    pub fn drain(&self, deadline: Instant) -> usize {
        self.is_draining.store(true, Ordering::Release);
        self.drained.notify_waiters();
        while self.n_events.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.n_events.load(Ordering::Acquire)
    }
}

pub struct Events {
    pub shared: Arc<Shared>,
    /// Before the first retry; the second waits twice as long.
    pub delay: Duration,
    journal: Journal,
    n_bytes: Cell<usize>,
    n_lost: Cell<u64>,
    room: Semaphore,
}

impl Events {
    pub fn new(shared: Arc<Shared>, delay: Duration, journal: Journal) -> Events {
        let room = Semaphore::new(AT_ONCE);
        Events { shared, delay, journal, n_bytes: Cell::new(0), n_lost: Cell::new(0), room }
    }

    /// Takes an event on, if there is room for it.
    pub fn take(
        self: &Rc<Self>,
        invocations: &Rc<Invocations>,
        id: String,
        event: Bytes,
        context: Context,
    ) -> Result<(), ApiError> {
        let n_events = self.shared.n_events.load(Ordering::Relaxed);
        let is_full = n_events >= MAX_EVENTS || self.n_bytes.get() + event.len() > MAX_BYTES;
        if is_full || self.shared.is_draining.load(Ordering::Acquire) {
            return Err(ApiError::busy());
        }
        self.shared.n_events.fetch_add(1, Ordering::AcqRel);
        self.n_bytes.set(self.n_bytes.get() + event.len());
        let (this, invocations) = (Rc::clone(self), Rc::clone(invocations));
        tasks::spawn(async move {
            let n_bytes = event.len();
            this.run(&invocations, &id, event, context).await;
            this.n_bytes.set(this.n_bytes.get() - n_bytes);
            this.shared.n_events.fetch_sub(1, Ordering::AcqRel);
        });
        Ok(())
    }

    async fn run(&self, invocations: &Invocations, id: &str, event: Bytes, context: Context) {
        for n_failed in 0..=N_RETRIES {
            let Ok(permit) = self.room.acquire().await else { return };
            let invocation = invocations.invocation(id, event.clone(), context.clone());
            let failed = match invocations.run(&invocation).await {
                Ok(_) => return,
                Err(failed) => failed,
            };
            drop(permit);
            if n_failed < N_RETRIES {
                self.wait(self.delay * (n_failed + 1)).await;
                continue;
            }
            self.n_lost.set(self.n_lost.get() + 1);
            let text = format!(
                "an event is lost: it has failed {} times, last with {failed}; {} are lost so far",
                N_RETRIES + 1,
                self.n_lost.get()
            );
            self.journal.report(Severity::Error, text, [("request_id", id.to_owned())]);
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
