//! What a thread or the whole process has used of the CPU. Of a thread it tells whether a run took long by itself,
//! because it waited or worked, or was preempted: the system gave the CPU to another thread.
#![expect(unsafe_code, reason = "no safe crate here asks the system what one thread has used")]

use std::{fs, mem::MaybeUninit, time::Duration};

use rustix::{
    thread::Pid,
    time::{ClockId, clock_gettime},
};

use crate::placement::policy::OVERSTAY;

/// What a thread has used so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// User and system time.
    pub cpu: Duration,
    /// Times that it waited for something.
    pub n_waits: u64,
    /// Times that it was preempted.
    pub n_preempted: u64,
}

impl Usage {
    pub const NONE: Usage = Usage { cpu: Duration::ZERO, n_waits: 0, n_preempted: 0 };

    /// Of the calling thread.
    pub fn now() -> Usage {
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: it writes one `rusage` through its argument, and `usage` is one.
        let pending = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
        if pending != 0 {
            return Usage::NONE;
        }
        // SAFETY: zeroes are a value of this plain data, too.
        let usage = unsafe { usage.assume_init() };
        // The `rusage` has the CPU time only as of the last tick.
        Usage {
            cpu: read(ClockId::ThreadCPUTime),
            n_waits: usage.ru_nvcsw.cast_unsigned(),
            n_preempted: usage.ru_nivcsw.cast_unsigned(),
        }
    }

    pub fn since(self, earlier: Usage) -> Usage {
        Usage {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            n_waits: self.n_waits.saturating_sub(earlier.n_waits),
            n_preempted: self.n_preempted.saturating_sub(earlier.n_preempted),
        }
    }

    /// Whether a run that took longer than `bound` and used this was preempted.
    pub fn shows_preemption(self, bound: Duration) -> bool {
        self.n_waits == 0 && self.n_preempted > 0 && self.cpu < bound
    }

    /// The same of one that took longer than [`OVERSTAY`], where a few short runs before that one are included: the
    /// server waits between runs.
    pub fn shows_preemption_before(self) -> bool {
        self.n_preempted > 0 && self.cpu < OVERSTAY
    }
}

/// What all threads of this process have used so far, ended ones included.
pub fn of_process() -> Duration {
    read(ClockId::ProcessCPUTime)
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

/// What another thread of this process does.
#[derive(Clone, Copy, Debug)]
pub struct ThreadState {
    /// Whether it waits for something; else it runs, or is ready to.
    pub waits: bool,
    /// CPU time that it has used so far.
    pub cpu: Duration,
}

impl ThreadState {
    /// `None` where the system doesn't tell.
    pub fn of(thread: Pid) -> Option<ThreadState> {
        let read =
            |file| fs::read_to_string(format!("/proc/self/task/{}/{file}", thread.as_raw_nonzero())).ok();
        // "4711 (a name) S …"
        let state = read("stat")?.rsplit_once(')')?.1.trim_start().chars().next()?;
        let cpu = read("schedstat")?.split(' ').next()?.parse().ok()?;
        Some(ThreadState { waits: state != 'R', cpu: Duration::from_nanos(cpu) })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn a_run_that_waits_or_works_takes_long_by_itself() {
        let before = Usage::now();
        thread::sleep(Duration::from_millis(3));
        let waited = Usage::now().since(before);
        assert!(waited.n_waits > 0 && !waited.shows_preemption(OVERSTAY));
        let before = Usage::now();
        while Usage::now().since(before).cpu < 2 * OVERSTAY {
            std::hint::spin_loop();
        }
        let worked = Usage::now().since(before);
        assert!(!worked.shows_preemption(OVERSTAY) && !worked.shows_preemption_before());
    }

    #[test]
    fn others_see_a_thread_wait_and_work() {
        let me = ThreadState::of(rustix::thread::gettid()).unwrap();
        assert!(!me.waits);
        let (tell, told) = std::sync::mpsc::channel();
        let (release, held) = std::sync::mpsc::channel::<()>();
        thread::spawn(move || {
            tell.send(rustix::thread::gettid()).unwrap();
            let _ = held.recv();
        });
        let other = told.recv().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !ThreadState::of(other).unwrap().waits {
            assert!(Instant::now() < deadline);
        }
        drop(release);
    }

    #[test]
    fn a_thread_that_lost_its_cpu_was_preempted() {
        let preempted = Usage { cpu: Duration::from_micros(10), n_waits: 0, n_preempted: 1 };
        for (usage, alone, with_others) in [
            (preempted, true, true),
            (Usage { n_preempted: 0, ..preempted }, false, false),
            (Usage { n_waits: 3, ..preempted }, false, true),
        ] {
            assert_eq!(
                (usage.shows_preemption(OVERSTAY), usage.shows_preemption_before()),
                (alone, with_others)
            );
        }
    }

    #[test]
    fn others_that_want_the_same_cpu_take_it() {
        let before = Usage::now();
        let deadline = Instant::now() + Duration::from_secs(20);
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 * thread::available_parallelism().map_or(2, usize::from) {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            while Usage::now().since(before).n_preempted == 0 && Instant::now() < deadline {
                std::hint::spin_loop();
            }
            over.store(true, Ordering::Relaxed);
        });
        assert!(Usage::now().since(before).n_preempted > 0);
    }
}
