//! Threads that run jobs which may block. Knows nothing of HTTP, Contexts or lambdas.

use std::time::{Duration, Instant};

use crate::rt::sync::{
    Arc, AtomicUsize, Builder, Condvar, Mutex, MutexGuard, Ordering, Parker, PoisonError, SegQueue, Unparker,
    fence,
};

/// How long a thread without a job is kept.
pub const KEEP: Duration = Duration::from_secs(10);

/// Short jobs after which a thread hands on their results together.
const BATCH: usize = 32;

/// So many jobs leave no room in any pool.
const NO_ROOM: usize = usize::MAX / 2;

/// Something to be run on a thread of the pool. It owns all that it touches.
pub trait Job: Send + 'static {
    /// What is to be done once for several jobs: whom to wake.
    type Batch: Default;

    /// Whether jobs like this one are so short that waking a second thread costs more than waiting for the first.
    fn is_short(&self) -> bool;

    /// Must not panic.
    fn run(self, batch: &mut Self::Batch);

    /// Does what is to be done for the jobs so far.
    fn finish(batch: &mut Self::Batch);
}

/// Threads and the bounded queue before them. Threads are made as they are needed, up to a limit, and end when
/// they are not; the one that was busy last is woken first.
pub struct Pool<J: Job>(Arc<Shared<J>>);

struct Shared<J: Job> {
    /// It grows as it fills: a bounded one would be a hundred kilobytes to touch at each start.
    queue: SegQueue<J>,
    /// Jobs that wait or run.
    admitted: AtomicUsize,
    /// How many jobs may wait or run.
    room: usize,
    max_threads: usize,
    keep: Duration,
    /// Threads that are awake and will look into the queue before they sleep: none need be woken for one more job.
    looking: AtomicUsize,
    awake: AtomicUsize,
    threads: Mutex<Threads>,
    /// Told whenever a thread ends.
    ended: Condvar,
}

struct Threads {
    /// By number; the last one to fall asleep is on top.
    asleep: Vec<(usize, Unparker)>,
    n_threads: usize,
    /// The number of the next thread.
    next: usize,
    closed: bool,
}

impl<J: Job> Pool<J> {
    /// A pool of at most `max_threads` threads, with room for `queue` jobs beyond those that they can run. A thread
    /// that has had no job for as long as `keep` ends.
    pub fn new(max_threads: usize, queue: usize, keep: Duration) -> Pool<J> {
        let max_threads = max_threads.max(1);
        Pool(Arc::new(Shared {
            queue: SegQueue::new(),
            admitted: AtomicUsize::new(0),
            room: max_threads.saturating_add(queue).min(NO_ROOM),
            max_threads,
            keep,
            looking: AtomicUsize::new(0),
            awake: AtomicUsize::new(0),
            threads: Mutex::new(Threads { asleep: Vec::new(), n_threads: 0, next: 0, closed: false }),
            ended: Condvar::new(),
        }))
    }

    /// Hands in a job, or gives it back where there is no room. No thread is woken yet: after one job or several, call
    /// [`wake`](Pool::wake).
    pub fn push(&self, job: J) -> Result<(), J> {
        // Jobs that run count too: the queue alone would be full of jobs that idle threads have yet to take up.
        if self.0.admitted.fetch_add(1, Ordering::Relaxed) >= self.0.room {
            self.0.admitted.fetch_sub(1, Ordering::Relaxed);
            return Err(job);
        }
        self.0.queue.push(job);
        Ok(())
    }

    /// Makes sure that a thread looks into the queue. Short jobs are left to the threads that are awake, if there are
    /// any: should those be busy for long, [`rescue`](Pool::rescue) wakes another one. The jobs that are returned can't
    /// be run, because there is no thread and none can be made.
    #[must_use]
    pub fn wake(&self, short: bool) -> Vec<J> {
        // Pairs with the fence before a thread sleeps: either it sees the jobs, or this sees that it no longer looks.
        fence(Ordering::SeqCst);
        let ready = if short { &self.0.awake } else { &self.0.looking };
        if ready.load(Ordering::Relaxed) == 0 && !self.0.queue.is_empty() && !self.0.wake_one() {
            let left = std::iter::from_fn(|| self.0.queue.pop());
            return left.inspect(|_| _ = self.0.admitted.fetch_sub(1, Ordering::Relaxed)).collect();
        }
        Vec::new()
    }

    /// Wakes one more thread if jobs wait and all threads that are awake are busy.
    pub fn rescue(&self) {
        if !self.0.queue.is_empty() && self.0.looking.load(Ordering::Relaxed) == 0 {
            self.0.wake_one();
        }
    }

    pub fn n_waiting(&self) -> usize {
        self.0.queue.len()
    }

    pub fn n_threads(&self) -> usize {
        self.0.threads().n_threads
    }

    /// Whether any thread is awake.
    pub fn is_busy(&self) -> bool {
        self.0.awake.load(Ordering::Relaxed) > 0
    }

    /// Lets the threads finish all jobs, and end; an error says how many were still busy at the deadline.
    pub fn close(&self, deadline: Instant) -> Result<(), usize> {
        let mut threads = self.0.threads();
        threads.closed = true;
        // From now on there is no room for a job.
        self.0.admitted.fetch_add(NO_ROOM, Ordering::Relaxed);
        for (_, sleeper) in threads.asleep.drain(..) {
            self.0.wakes();
            sleeper.unpark();
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match threads.n_threads {
                0 => return Ok(()),
                busy if left.is_zero() => return Err(busy),
                _ => {}
            }
            let waited = self.0.ended.wait_timeout(threads, left);
            (threads, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<J: Job> Shared<J> {
    fn threads(&self) -> MutexGuard<'_, Threads> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a thread that wakes up.
    fn wakes(&self) {
        self.awake.fetch_add(1, Ordering::SeqCst);
        self.looking.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts a thread that falls asleep, or ends.
    fn sleeps(&self) {
        self.looking.fetch_sub(1, Ordering::SeqCst);
        self.awake.fetch_sub(1, Ordering::SeqCst);
    }

    /// Makes one more thread look into the queue; false if there is none at all.
    fn wake_one(self: &Arc<Self>) -> bool {
        let mut threads = self.threads();
        if let Some((_, sleeper)) = threads.asleep.pop() {
            self.wakes();
            drop(threads);
            sleeper.unpark();
            return true;
        }
        if threads.n_threads < self.max_threads {
            let (shared, number) = (Arc::clone(self), threads.next);
            self.wakes();
            match Builder::new().name(format!("effe-run-{number}")).spawn(move || shared.work(number)) {
                Ok(_) => (threads.n_threads, threads.next) = (threads.n_threads + 1, number + 1),
                Err(_) => self.sleeps(),
            }
        }
        threads.n_threads > 0
    }

    fn work(self: &Arc<Self>, number: usize) {
        let parker = Parker::new();
        let (mut batch, mut n_batched) = (J::Batch::default(), 0);
        loop {
            if let Some(job) = self.queue.pop() {
                let short = job.is_short();
                let nobody_looks = self.looking.fetch_sub(1, Ordering::SeqCst) == 1;
                if nobody_looks && !short && !self.queue.is_empty() {
                    self.wake_one();
                }
                job.run(&mut batch);
                self.admitted.fetch_sub(1, Ordering::Relaxed);
                n_batched += 1;
                if !short || n_batched == BATCH {
                    J::finish(&mut batch);
                    n_batched = 0;
                }
                self.looking.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            if n_batched > 0 {
                J::finish(&mut batch);
                n_batched = 0;
                continue;
            }
            if !self.sleep(number, &parker) {
                return;
            }
        }
    }

    /// Sleeps until there is something to do; false if this thread is to end.
    fn sleep(&self, number: usize, parker: &Parker) -> bool {
        let mut threads = self.threads();
        if !threads.closed {
            threads.asleep.push((number, parker.unparker().clone()));
            drop(threads);
            self.sleeps();
            // Pairs with the fence in `wake`.
            fence(Ordering::SeqCst);
            let until = Instant::now() + self.keep;
            threads = loop {
                if self.queue.is_empty() {
                    parker.park_deadline(until);
                }
                let mut threads = self.threads();
                let Some(place) = threads.asleep.iter().position(|(other, _)| *other == number) else {
                    // Whoever took this thread off the list has counted it as looking. The unpark may still be on its
                    // way: then it ends the next sleep too early, which this loop bears.
                    return true;
                };
                if !self.queue.is_empty() || Instant::now() >= until {
                    threads.asleep.remove(place);
                    self.wakes();
                    break threads;
                }
            };
            if !self.queue.is_empty() {
                return true;
            }
        }
        // Under the lock: a job that comes in now finds fewer threads and makes another one.
        self.sleeps();
        fence(Ordering::SeqCst);
        if !self.queue.is_empty() {
            self.wakes();
            return true;
        }
        threads.n_threads -= 1;
        self.ended.notify_all();
        false
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Barrier, mpsc},
        thread,
    };

    use super::*;

    struct Run(Box<dyn FnOnce() + Send>);

    impl Job for Run {
        type Batch = ();

        fn is_short(&self) -> bool {
            false
        }

        fn run(self, (): &mut ()) {
            (self.0)();
        }

        fn finish((): &mut ()) {}
    }

    fn job(run: impl FnOnce() + Send + 'static) -> Run {
        Run(Box::new(run))
    }

    fn submit(pool: &Pool<Run>, job: Run) -> Result<(), Run> {
        pool.push(job)?;
        assert!(pool.wake(false).is_empty());
        Ok(())
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn jobs_that_wait_for_one_another_get_a_thread_each() {
        let pool = Pool::new(8, 8, KEEP);
        let all_here = Arc::new(Barrier::new(8));
        for _ in 0..8 {
            let all_here = all_here.clone();
            assert!(submit(&pool, job(move || _ = all_here.wait())).is_ok());
        }
        assert_eq!(pool.close(soon()), Ok(()));
    }

    #[test]
    fn past_the_queue_a_job_comes_back_and_what_is_busy_at_the_deadline_is_counted() {
        let pool = Pool::new(1, 2, KEEP);
        let (release, held) = mpsc::channel::<()>();
        let (begun, begins) = mpsc::channel();
        let blocker = job(move || {
            begun.send(()).unwrap();
            let _ = held.recv();
        });
        assert!(submit(&pool, blocker).is_ok());
        begins.recv().unwrap();
        for has_room in [true, true, false] {
            assert_eq!(submit(&pool, job(|| ())).is_ok(), has_room);
        }
        assert_eq!(pool.close(Instant::now()), Err(1));
        drop(release);
        assert_eq!(pool.close(soon()), Ok(()));
    }

    #[test]
    fn from_many_threads_every_job_runs_once() {
        let pool = Arc::new(Pool::new(6, 64, KEEP));
        let ran = Arc::new(AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        let ran = ran.clone();
                        let mut next = job(move || _ = ran.fetch_add(1, Ordering::Relaxed));
                        while let Err(back) = submit(&pool, next) {
                            next = back;
                            thread::yield_now();
                        }
                    }
                });
            }
        });
        assert_eq!(pool.close(soon()), Ok(()));
        assert_eq!(ran.load(Ordering::Relaxed), 20_000);
    }
}
