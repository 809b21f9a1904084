//! What the pool and the list of Contexts are made of, in one place: the model in `tests/model` puts its own in place
//! of these, and runs both modules under every order of events that it can think of.

pub use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering, fence},
    },
    thread::Builder,
};

pub use crossbeam::{
    atomic::AtomicCell,
    queue::SegQueue,
    sync::{Parker, Unparker},
};
