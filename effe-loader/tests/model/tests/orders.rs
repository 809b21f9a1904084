//! What must hold in whatever order the threads run.

mod support;

use std::time::{Duration, Instant};

use model::{
    contexts::Contexts,
    pool::{Job, Pool},
};
use shuttle::{
    sync::{Arc, Mutex},
    thread,
};

use self::support::{orders, under_all_orders};

struct Count {
    number: usize,
    short: bool,
    ran: Arc<Mutex<Vec<usize>>>,
}

impl Job for Count {
    type Batch = Vec<usize>;

    fn is_short(&self) -> bool {
        self.short
    }

    fn run(self, batch: &mut Vec<usize>) {
        thread::yield_now();
        batch.push(self.number);
        if !self.short {
            self.ran.lock().unwrap().append(batch);
        } else {
            SHORT.with(|ran| *ran.borrow_mut() = Some(Arc::clone(&self.ran)));
        }
    }

    fn finish(batch: &mut Vec<usize>) {
        if let Some(ran) = SHORT.with(|ran| ran.borrow().clone()) {
            ran.lock().unwrap().append(batch);
        }
    }
}

shuttle::thread_local! {
    /// Where the short jobs of this thread are counted.
    static SHORT: std::cell::RefCell<Option<Arc<Mutex<Vec<usize>>>>> = const { std::cell::RefCell::new(None) };
}

/// Idle threads end at once, or never.
const KEEPS: [Duration; 2] = [Duration::ZERO, HOUR];
const HOUR: Duration = Duration::from_secs(3600);

fn far() -> Instant {
    Instant::now() + HOUR
}

/// Two threads hand in jobs, then the pool is closed: each job has run exactly once, and nobody sleeps on.
fn every_job_runs_once(short: bool, keep: Duration) {
    let pool = Arc::new(Pool::new(2, 8, keep));
    let ran = Arc::new(Mutex::new(Vec::new()));
    let submitters: Vec<_> = (0..2)
        .map(|n| {
            let (pool, ran) = (Arc::clone(&pool), Arc::clone(&ran));
            thread::spawn(move || {
                for m in 0..2 {
                    assert!(pool.push(Count { number: 10 * n + m, short, ran: Arc::clone(&ran) }).is_ok());
                    assert!(pool.wake(short).is_empty());
                }
            })
        })
        .collect();
    submitters.into_iter().for_each(|submitter| submitter.join().unwrap());
    assert_eq!(pool.close(far()), Ok(()));
    let mut ran = ran.lock().unwrap().clone();
    ran.sort_unstable();
    assert_eq!(ran, [0, 1, 10, 11]);
}

#[test]
fn every_long_job_runs_once() {
    for keep in KEEPS {
        under_all_orders(move || every_job_runs_once(false, keep));
    }
}

#[test]
fn every_short_job_runs_once() {
    for keep in KEEPS {
        under_all_orders(move || every_job_runs_once(true, keep));
    }
}

/// A thread that falls asleep at the wrong moment must not leave a job behind: nobody closes or rescues here.
fn a_job_is_not_forgotten(short: bool, keep: Duration) {
    let pool = Pool::new(1, 8, keep);
    let ran = Arc::new(Mutex::new(Vec::new()));
    for number in 0..3 {
        assert!(pool.push(Count { number, short, ran: Arc::clone(&ran) }).is_ok());
        assert!(pool.wake(short).is_empty());
        while ran.lock().unwrap().len() <= number {
            // Were the job forgotten, this would go on until the scheduler gives up.
            thread::yield_now();
        }
    }
    assert_eq!(pool.close(far()), Ok(()));
}

#[test]
fn a_job_that_comes_while_its_thread_falls_asleep_is_not_forgotten() {
    for keep in KEEPS {
        shuttle::check_random(move || a_job_is_not_forgotten(false, keep), orders());
        shuttle::check_random(move || a_job_is_not_forgotten(true, keep), orders());
    }
}

#[test]
fn no_context_is_lost_or_handed_out_twice() {
    under_all_orders(|| {
        let contexts = Arc::new(Contexts::new(2));
        let made = Arc::new(Mutex::new(0));
        let stopped = Arc::new(Mutex::new(Vec::new()));
        let users: Vec<_> = (0..3)
            .map(|n| {
                let (contexts, made, stopped) =
                    (Arc::clone(&contexts), Arc::clone(&made), Arc::clone(&stopped));
                thread::spawn(move || {
                    for _ in 0..2 {
                        let context = contexts.take().unwrap_or_else(|| {
                            let mut made = made.lock().unwrap();
                            *made += 1;
                            Box::new(*made)
                        });
                        thread::yield_now();
                        if let Some(too_many) = contexts.give(context) {
                            stopped.lock().unwrap().push(*too_many);
                        }
                    }
                    if n == 0 {
                        let unneeded = contexts.look();
                        stopped.lock().unwrap().extend(unneeded.into_iter().map(|context| *context));
                    }
                })
            })
            .collect();
        users.into_iter().for_each(|user| user.join().unwrap());
        assert!(contexts.n_idle() <= 2);
        let mut stopped = stopped.lock().unwrap().clone();
        stopped.extend(contexts.drain().into_iter().map(|context| *context));
        stopped.sort_unstable();
        assert_eq!(stopped, (1..=*made.lock().unwrap()).collect::<Vec<_>>(), "each exactly once");
        assert_eq!(contexts.n_idle(), 0);
    });
}
