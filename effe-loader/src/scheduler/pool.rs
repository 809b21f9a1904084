//! Threads that run what may wait. Knows nothing of HTTP, Contexts or lambdas.

use std::{
    io,
    time::{Duration, Instant},
};

use crate::rt::sync::{
    Arc, AtomicUsize, Builder, Condvar, Mutex, MutexGuard, Ordering, Parker, PoisonError, SegQueue, Unparker,
    fence,
};

/// How long threads are kept that have nothing to do.
pub const KEEP: Duration = Duration::from_secs(10);

/// What a thread may hold back of the results of short jobs before it hands them on.
const BATCH: usize = 32;

/// As many jobs as leave no room in any pool.
const NO_ROOM: usize = usize::MAX / 2;

/// Something to be run on a thread of the pool. It owns all that it touches.
pub trait Job: Send + 'static {
    /// What is to be done once for several jobs: whom to wake.
    type Batch: Default;

    /// Whether jobs like this one are so short that waking a second thread costs more than waiting for the first.
    fn is_short(&self) -> bool;

    /// Runs it. Must not panic.
    fn run(self, batch: &mut Self::Batch);

    /// Does what is to be done for the jobs so far.
    fn finish(batch: &mut Self::Batch);
}

/// Threads and the bounded queue before them. Threads are made as they are needed, up to a limit, and end when
/// they are not; the one that was busy last is woken first.
pub struct Pool<J: Job>(Arc<Shared<J>>);

struct Shared<J: Job> {
    /// What waits. It grows as it fills: made whole, it would be a hundred kilobytes to touch at each start.
    queue: SegQueue<J>,
    /// Jobs that wait or run.
    admitted: AtomicUsize,
    /// How many jobs may wait or run.
    room: usize,
    limit: usize,
    /// A thread that has had nothing to do for so long ends.
    keep: Duration,
    /// Threads that are awake and will look into the queue before they sleep: none need be woken for one more job.
    looking: AtomicUsize,
    /// Threads that are awake.
    awake: AtomicUsize,
    crew: Mutex<Crew>,
    /// Told whenever a thread ends.
    ended: Condvar,
}

struct Crew {
    /// Who sleeps; the last one to fall asleep is on top.
    asleep: Vec<(usize, Unparker)>,
    n_threads: usize,
    /// The number of the next thread.
    next: usize,
    closed: bool,
}

impl<J: Job> Pool<J> {
    /// A pool of at most `threads` threads, with room for `queue` jobs beyond those that they can run. A thread that
    /// has had nothing to do for as long as `keep` ends.
    pub fn new(threads: usize, queue: usize, keep: Duration) -> Pool<J> {
        let crew = Crew { asleep: Vec::new(), n_threads: 0, next: 0, closed: false };
        let room = threads.max(1).saturating_add(queue).min(NO_ROOM);
        Pool(Arc::new(Shared {
            queue: SegQueue::new(),
            admitted: AtomicUsize::new(0),
            room,
            limit: threads.max(1),
            keep,
            looking: AtomicUsize::new(0),
            awake: AtomicUsize::new(0),
            crew: Mutex::new(crew),
            ended: Condvar::new(),
        }))
    }

    /// Hands in a job, which nobody is woken for yet: after one job or several, call [`wake`](Pool::wake).
    ///
    /// # Errors
    /// There is no room for it.
    pub fn push(&self, job: J) -> Result<(), J> {
        // What runs and what waits together: the queue alone would be full of jobs that idle threads have yet to
        // take up.
        if self.0.admitted.fetch_add(1, Ordering::Relaxed) >= self.0.room {
            self.0.admitted.fetch_sub(1, Ordering::Relaxed);
            return Err(job);
        }
        self.0.queue.push(job);
        Ok(())
    }

    /// Sees that somebody looks into the queue. Short jobs are left to the threads that are awake, if there are any:
    /// should they turn out to be kept, [`rescue`](Pool::rescue) gets them another one. What comes out can't be run,
    /// because there is no thread and none can be made.
    #[must_use]
    pub fn wake(&self, short: bool) -> Vec<J> {
        // Pairs with the fence before a thread sleeps: either it sees the jobs, or this sees that it no longer looks.
        fence(Ordering::SeqCst);
        let hands = if short { &self.0.awake } else { &self.0.looking };
        if hands.load(Ordering::Relaxed) == 0 && !self.0.queue.is_empty() && !self.0.wake_one() {
            return std::iter::from_fn(|| self.0.queue.pop()).inspect(|_| self.0.is_done()).collect();
        }
        Vec::new()
    }

    /// Gets what waits one more thread, if all that are awake are kept.
    pub fn rescue(&self) {
        if !self.0.queue.is_empty() && self.0.looking.load(Ordering::Relaxed) == 0 {
            self.0.wake_one();
        }
    }

    /// Jobs that wait.
    pub fn n_waiting(&self) -> usize {
        self.0.queue.len()
    }

    /// Threads that there are now, asleep or awake.
    pub fn n_threads(&self) -> usize {
        self.0.crew().n_threads
    }

    /// Whether any thread is awake.
    pub fn is_busy(&self) -> bool {
        self.0.awake.load(Ordering::Relaxed) > 0
    }

    /// Lets the threads finish what has been handed in, and end.
    ///
    /// # Errors
    /// How many were still busy at the deadline.
    pub fn close(&self, deadline: Instant) -> Result<(), usize> {
        let mut crew = self.0.crew();
        crew.closed = true;
        // From now on there is no room for a job.
        self.0.admitted.fetch_add(NO_ROOM, Ordering::Relaxed);
        for (_, sleeper) in crew.asleep.drain(..) {
            self.0.wakes();
            sleeper.unpark();
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match crew.n_threads {
                0 => return Ok(()),
                busy if left.is_zero() => return Err(busy),
                _ => {
                    (crew, _) = self.0.ended.wait_timeout(crew, left).unwrap_or_else(PoisonError::into_inner)
                }
            }
        }
    }
}

impl<J: Job> Shared<J> {
    fn crew(&self) -> MutexGuard<'_, Crew> {
        self.crew.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job has run, or has been handed back: there is room for another.
    fn is_done(&self) {
        self.admitted.fetch_sub(1, Ordering::Relaxed);
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

    /// Gets one more thread to look into the queue; false if there is none at all.
    fn wake_one(self: &Arc<Self>) -> bool {
        let mut crew = self.crew();
        if let Some((_, sleeper)) = crew.asleep.pop() {
            self.wakes();
            drop(crew);
            sleeper.unpark();
            return true;
        }
        if crew.n_threads < self.limit {
            let name = crew.next;
            self.wakes();
            match spawn(self, name) {
                Ok(()) => (crew.n_threads, crew.next) = (crew.n_threads + 1, name + 1),
                Err(_) => self.sleeps(),
            }
        }
        crew.n_threads > 0
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
                self.is_done();
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

    /// Sleeps until there is something to do; false if this thread is no longer needed.
    fn sleep(&self, number: usize, parker: &Parker) -> bool {
        let mut crew = self.crew();
        if !crew.closed {
            crew.asleep.push((number, parker.unparker().clone()));
            drop(crew);
            self.sleeps();
            // Pairs with the fence in `submit`.
            fence(Ordering::SeqCst);
            let until = Instant::now() + self.keep;
            crew = loop {
                if self.queue.is_empty() {
                    parker.park_deadline(until);
                }
                let mut crew = self.crew();
                let Some(place) = crew.asleep.iter().position(|(other, _)| *other == number) else {
                    // Whoever took us off the list counts us as looking. Its unpark may still be on its way: then
                    // the next sleep is cut short once, and goes on here.
                    return true;
                };
                let work = !self.queue.is_empty();
                if work || Instant::now() >= until {
                    crew.asleep.remove(place);
                    self.wakes();
                    break crew;
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
        crew.n_threads -= 1;
        self.ended.notify_all();
        false
    }
}

fn spawn<J: Job>(shared: &Arc<Shared<J>>, number: usize) -> io::Result<()> {
    let shared = Arc::clone(shared);
    let thread = Builder::new().name(format!("effe-run-{number}"));
    thread.spawn(move || shared.work(number)).map(drop)
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
    fn past_the_queue_a_job_comes_back() {
        let pool = Pool::new(1, 2, KEEP);
        let (release, held) = mpsc::channel::<()>();
        let (begun, begins) = mpsc::channel();
        let blocker = job(move || {
            begun.send(()).unwrap();
            let _ = held.recv();
        });
        assert!(submit(&pool, blocker).is_ok());
        begins.recv().unwrap();
        assert!(submit(&pool, job(|| ())).is_ok());
        assert!(submit(&pool, job(|| ())).is_ok());
        assert!(submit(&pool, job(|| ())).is_err());
        drop(release);
        assert_eq!(pool.close(soon()), Ok(()));
    }

    #[test]
    fn what_is_busy_at_the_deadline_is_counted() {
        let pool = Pool::new(4, 4, KEEP);
        let (release, held) = mpsc::channel::<()>();
        let (begun, begins) = mpsc::channel();
        let blocker = job(move || {
            begun.send(()).unwrap();
            let _ = held.recv();
        });
        assert!(submit(&pool, blocker).is_ok());
        begins.recv().unwrap();
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
