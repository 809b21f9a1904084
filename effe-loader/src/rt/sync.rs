//! What the pool, the list of Contexts and the entries of the scoreboard are made of. The model in `tests/model`
//! replaces it, and runs these modules under every order of events.

pub use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering, fence},
    },
    thread::Builder,
};

pub use crossbeam::{
    atomic::AtomicCell,
    queue::SegQueue,
    sync::{Parker, Unparker},
};
