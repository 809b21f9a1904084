//! Idle Contexts. Knows neither HTTP nor what a Context is.

use crate::rt::sync::{AtomicCell, AtomicUsize, Mutex, Ordering, PoisonError, SegQueue};

/// How many looks per idle timeout: a Context that nobody needs goes after one timeout, or a quarter more.
pub const LOOKS: u32 = 4;

/// A free list. The Context that came back last is in `hot` and goes out first, because its memory is in the cache; the
/// others wait in a lock-free queue.
///
/// Which ones are not needed is found by counting, not by a clock on each: as many as were always idle since [`LOOKS`]
/// looks ago. So taking and giving back cost no system call and no lock.
pub struct Contexts<C> {
    hot: AtomicCell<Option<Box<C>>>,
    others: SegQueue<Box<C>>,
    max_idle: usize,
    n_idle: AtomicUsize,
    /// The fewest that were idle since the last look.
    lowest: AtomicUsize,
    history: Mutex<[usize; LOOKS as usize]>,
}

impl<C> Contexts<C> {
    pub fn new(max_idle: usize) -> Contexts<C> {
        Contexts {
            hot: AtomicCell::new(None),
            others: SegQueue::new(),
            max_idle,
            n_idle: AtomicUsize::new(0),
            lowest: AtomicUsize::new(0),
            history: Mutex::new([0; LOOKS as usize]),
        }
    }

    #[inline]
    pub fn take(&self) -> Option<Box<C>> {
        // Two swaps, one of them empty, cost less than keeping the two places in order.
        let context = self.hot.take().or_else(|| self.others.pop())?;
        let left = self.n_idle.fetch_sub(1, Ordering::Relaxed) - 1;
        if left < self.lowest.load(Ordering::Relaxed) {
            self.lowest.fetch_min(left, Ordering::Relaxed);
        }
        Some(context)
    }

    /// Gives a Context back. One that is returned is too many: the caller drops it on a thread that may block.
    #[must_use]
    pub fn give(&self, context: Box<C>) -> Option<Box<C>> {
        if self.n_idle.fetch_add(1, Ordering::Relaxed) >= self.max_idle {
            self.n_idle.fetch_sub(1, Ordering::Relaxed);
            return Some(context);
        }
        self.others.push(self.hot.swap(Some(context))?);
        None
    }

    pub fn n_idle(&self) -> usize {
        self.n_idle.load(Ordering::Relaxed)
    }

    /// The Contexts that are not needed, for the caller to drop; to be called [`LOOKS`] times per idle timeout.
    pub fn look(&self) -> Vec<Box<C>> {
        let lowest = self.lowest.swap(self.n_idle(), Ordering::Relaxed);
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.rotate_left(1);
        history[LOOKS as usize - 1] = lowest;
        let unneeded = history.iter().copied().min().unwrap_or(0);
        history.iter_mut().for_each(|lowest| *lowest -= unneeded);
        drop(history);
        // The hot one goes last.
        let pop = || self.others.pop().or_else(|| self.hot.take());
        let gone: Vec<_> = std::iter::repeat_with(pop).take(unneeded).flatten().collect();
        self.n_idle.fetch_sub(gone.len(), Ordering::Relaxed);
        self.lowest.fetch_min(self.n_idle(), Ordering::Relaxed);
        gone
    }

    pub fn drain(&self) -> Vec<Box<C>> {
        std::iter::from_fn(|| self.take()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;

    fn filled(n: usize) -> Contexts<usize> {
        let contexts = Contexts::new(10);
        (0..n).for_each(|n| assert!(contexts.give(Box::new(n)).is_none()));
        contexts
    }

    #[test]
    fn the_last_one_back_is_the_first_one_out() {
        let contexts = filled(4);
        assert_eq!(contexts.take().as_deref(), Some(&3));
        assert!(contexts.give(Box::new(3)).is_none());
        assert_eq!(contexts.take().as_deref(), Some(&3));
        assert_eq!((contexts.n_idle(), contexts.drain().len(), contexts.n_idle()), (3, 3, 0));
    }

    #[test]
    fn one_too_many_comes_out_again() {
        for max_idle in [0, 2] {
            let contexts = Contexts::new(max_idle);
            for n in 0..=max_idle {
                assert_eq!(contexts.give(Box::new(n)).as_deref(), (n == max_idle).then_some(&n));
            }
            assert_eq!(contexts.drain().len(), max_idle);
        }
    }

    #[test]
    fn only_what_was_never_needed_for_a_whole_timeout_goes() {
        let contexts = filled(5);
        let use_at_once = |n: usize| {
            let taken: Vec<_> = (0..n).filter_map(|_| contexts.take()).collect();
            assert_eq!(taken.len(), n);
            taken.into_iter().for_each(|context| assert!(contexts.give(context).is_none()));
        };
        for _ in 0..LOOKS {
            assert!(contexts.look().is_empty(), "none has been idle for a whole timeout");
            use_at_once(2);
        }
        assert_eq!(contexts.look().len(), 3, "two were always enough");
        for _ in 0..3 * LOOKS {
            use_at_once(2);
            assert!(contexts.look().is_empty(), "both are needed");
        }
        let gone: usize = (0..=LOOKS).map(|_| contexts.look().len()).sum();
        assert_eq!((gone, contexts.n_idle()), (2, 0), "nobody came any more");
    }

    #[test]
    fn under_threads_no_context_is_lost_or_handed_out_twice() {
        let (contexts, living) = (Contexts::new(8), Arc::new(()));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for n in 0..5_000 {
                        let make = || Box::new((living.clone(), AtomicUsize::new(0)));
                        let context = contexts.take().unwrap_or_else(make);
                        assert_eq!(context.1.fetch_add(1, Ordering::AcqRel), 0, "handed out twice");
                        context.1.fetch_sub(1, Ordering::AcqRel);
                        drop(contexts.give(context));
                        if n % 64 == 0 {
                            drop(contexts.look());
                        }
                    }
                });
            }
        });
        assert!(contexts.n_idle() <= 8);
        drop(contexts.drain());
        assert_eq!(contexts.n_idle(), 0);
        assert_eq!(Arc::strong_count(&living), 1, "each that was made is dropped");
    }
}
