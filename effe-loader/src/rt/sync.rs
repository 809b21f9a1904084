//! What the pool and the list of Contexts are made of. The model in `tests/model` replaces it, and runs both modules
//! under every order of events.

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
