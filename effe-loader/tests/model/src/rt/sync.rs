//! Stands in for the loader's `sync`.

use std::{collections::VecDeque, time::Instant};

pub use shuttle::sync::{
    Arc, Condvar, Mutex, MutexGuard,
    atomic::{AtomicU32, AtomicUsize, Ordering, fence},
};
pub use std::sync::PoisonError;

/// A thread to be.
#[derive(Default)]
pub struct Builder;

impl Builder {
    /// As in `std`.
    pub fn new() -> Builder {
        Builder
    }

    /// Names mean nothing here.
    #[must_use]
    pub fn name(self, _: String) -> Builder {
        self
    }

    /// As in `std`.
    ///
    /// # Errors
    /// None here.
    pub fn spawn<T: Send + 'static>(
        self,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> std::io::Result<shuttle::thread::JoinHandle<T>> {
        Ok(shuttle::thread::spawn(run))
    }
}

/// A queue.
pub struct SegQueue<T>(Mutex<VecDeque<T>>);

impl<T> SegQueue<T> {
    /// As in crossbeam.
    #[expect(clippy::new_without_default, reason = "nobody asks for a default")]
    pub fn new() -> SegQueue<T> {
        SegQueue(Mutex::new(VecDeque::new()))
    }

    /// As in crossbeam.
    pub fn push(&self, item: T) {
        self.0.lock().unwrap().push_back(item);
    }

    /// As in crossbeam.
    pub fn pop(&self) -> Option<T> {
        self.0.lock().unwrap().pop_front()
    }

    /// As in crossbeam.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As in crossbeam.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// A place for one thing.
pub struct AtomicCell<T>(Mutex<T>);

impl<T: Default> AtomicCell<T> {
    /// As in crossbeam.
    pub fn new(value: T) -> AtomicCell<T> {
        AtomicCell(Mutex::new(value))
    }

    /// As in crossbeam.
    pub fn swap(&self, value: T) -> T {
        std::mem::replace(&mut *self.0.lock().unwrap(), value)
    }

    /// As in crossbeam.
    pub fn take(&self) -> T {
        self.swap(T::default())
    }
}

/// A thread's bed.
#[derive(Default)]
pub struct Parker(Unparker);

/// Wakes whoever sleeps in it.
#[derive(Clone, Default)]
pub struct Unparker(Arc<(Mutex<bool>, Condvar)>);

impl Parker {
    /// As in crossbeam.
    pub fn new() -> Parker {
        Parker::default()
    }

    /// As in crossbeam.
    pub fn unparker(&self) -> &Unparker {
        &self.0
    }

    /// As in crossbeam, but time stands still: a deadline is met or it never is.
    pub fn park_deadline(&self, deadline: Instant) {
        let (token, told) = &*self.0.0;
        let mut token = token.lock().unwrap();
        while !*token && Instant::now() < deadline {
            token = told.wait(token).unwrap();
        }
        *token = false;
    }
}

impl Unparker {
    /// As in crossbeam.
    pub fn unpark(&self) {
        let (token, told) = &*self.0;
        *token.lock().unwrap() = true;
        told.notify_one();
    }
}
