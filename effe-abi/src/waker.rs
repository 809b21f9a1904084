//! Wakers on their way between the two sides: a `std` waker in the wire's form, and a waker of the wire as a `std`
//! waker.
//!
//! A waker that comes back to the side that made it is not wrapped a second time. A clone counts a reference and
//! allocates nothing, except for the first clone of a waker that was only lent.
//!
//! The wire's form is [`extensions::Waker`](crate::extensions::Waker). Authors don't need this module; loaders are
//! written against it.

use std::{
    mem::ManuallyDrop,
    panic::{self, AssertUnwindSafe},
    ptr,
    sync::Arc,
    task::{self, RawWaker, RawWakerVTable},
};

use crate::extensions::{Waker, WakerTable};

/// Calls `call` with a waker in the wire's form, which is valid for the length of the call.
pub fn lend<T>(waker: &task::Waker, call: impl FnOnce(*const Waker) -> T) -> T {
    // The address of the table tells whose waker it is. The addresses of its functions don't: the compiler may merge
    // equal functions.
    if ptr::eq(waker.vtable(), &FOREIGN) {
        return call(waker.data().cast());
    }
    let lent = Lent { head: Waker { table: &LENT }, waker };
    call((&raw const lent).cast())
}

/// Calls `call` with a waker of the other side as a `std` waker. A clone of it may be kept.
///
/// # Safety
/// `waker` keeps the wire's promises for the length of the call.
#[expect(unsafe_code, reason = "its duty is the caller's")]
pub unsafe fn borrow<T>(waker: *const Waker, call: impl FnOnce(&task::Waker) -> T) -> T {
    // SAFETY: the caller's promise. It belongs to the other side, so it is not dropped here.
    let waker = ManuallyDrop::new(unsafe { task::Waker::from_raw(RawWaker::new(waker.cast(), &FOREIGN)) });
    call(&waker)
}

/// A waker in the wire's form that can be passed again and again, and whose clones only count a reference: for work
/// that is polled more than once.
pub struct Shared(Arc<Counted>);

impl Shared {
    /// One that wakes `waker`.
    pub fn new(waker: task::Waker) -> Shared {
        Shared(Arc::new(Counted { _head: Waker { table: &COUNTED }, waker }))
    }

    /// Whether it wakes the same task as `waker`.
    pub fn will_wake(&self, waker: &task::Waker) -> bool {
        self.0.waker.will_wake(waker)
    }

    /// The waker in the wire's form; valid while `self` lives.
    pub fn as_ptr(&self) -> *const Waker {
        Arc::as_ptr(&self.0).cast()
    }
}

/// A waker of this side, on the stack of `lend`.
#[repr(C)]
struct Lent<'a> {
    head: Waker,
    waker: &'a task::Waker,
}

/// A waker of this side that may be kept.
#[repr(C)]
struct Counted {
    _head: Waker,
    waker: task::Waker,
}

static LENT: WakerTable =
    WakerTable { clone: lent_clone, wake: lent_wake, wake_by_ref: lent_wake, drop: noop };
static COUNTED: WakerTable = WakerTable {
    clone: counted_clone,
    wake: counted_wake,
    wake_by_ref: counted_wake_by_ref,
    drop: counted_drop,
};
/// Wakes nobody. It takes the place of a clone if cloning panicked.
static NOOP: WakerTable = WakerTable { clone: noop_clone, wake: noop, wake_by_ref: noop, drop: noop };
static NOOP_WAKER: Waker = Waker { table: &NOOP };

/// Catches a panic, for a waker is foreign code. The payload is leaked, since dropping it may panic once more.
fn fence<T>(call: impl FnOnce() -> T) -> Option<T> {
    panic::catch_unwind(AssertUnwindSafe(call)).map_err(std::mem::forget).ok()
}

#[expect(unsafe_code, reason = "an entry of the wire")]
unsafe extern "C" fn lent_clone(waker: *const Waker) -> *const Waker {
    // SAFETY: only `lend` uses this table, for a `Lent` that lives as long as the call.
    let lent = unsafe { &*waker.cast::<Lent<'_>>() };
    fence(|| lent.waker.clone())
        .map_or(&raw const NOOP_WAKER, |waker| Arc::into_raw(Shared::new(waker).0).cast())
}

#[expect(unsafe_code, reason = "an entry of the wire")]
unsafe extern "C" fn lent_wake(waker: *const Waker) {
    // SAFETY: as in `lent_clone`.
    let lent = unsafe { &*waker.cast::<Lent<'_>>() };
    fence(|| lent.waker.wake_by_ref());
}

#[expect(unsafe_code, reason = "an entry of the wire")]
unsafe extern "C" fn noop(_: *const Waker) {}

#[expect(unsafe_code, reason = "an entry of the wire")]
unsafe extern "C" fn noop_clone(waker: *const Waker) -> *const Waker {
    waker
}

#[expect(unsafe_code, reason = "an entry of the wire")]
unsafe extern "C" fn counted_clone(waker: *const Waker) -> *const Waker {
    // SAFETY: a `Counted` in an `Arc`, of which the caller has or borrows a reference.
    unsafe { Arc::increment_strong_count(waker.cast::<Counted>()) };
    waker
}

#[expect(unsafe_code, reason = "an entry of the wire")]
unsafe extern "C" fn counted_wake(waker: *const Waker) {
    // SAFETY: as in `counted_clone`; the caller gives its reference away.
    let counted = unsafe { Arc::from_raw(waker.cast::<Counted>()) };
    fence(|| counted.waker.wake_by_ref());
    fence(|| drop(counted));
}

#[expect(unsafe_code, reason = "an entry of the wire")]
unsafe extern "C" fn counted_wake_by_ref(waker: *const Waker) {
    // SAFETY: as in `counted_clone`.
    let counted = unsafe { &*waker.cast::<Counted>() };
    fence(|| counted.waker.wake_by_ref());
}

#[expect(unsafe_code, reason = "an entry of the wire")]
unsafe extern "C" fn counted_drop(waker: *const Waker) {
    // SAFETY: as in `counted_wake`.
    let counted = unsafe { Arc::from_raw(waker.cast::<Counted>()) };
    fence(|| drop(counted));
}

/// `std`'s table for wakers of the other side. Nothing unwinds out of the functions of the other side's table.
static FOREIGN: RawWakerVTable =
    RawWakerVTable::new(foreign_clone, foreign_wake, foreign_wake_by_ref, foreign_drop);

/// Contract of all functions below: `data` is a waker of the other side, valid now, as the caller of `borrow` has
/// promised, or a clone of one.
#[expect(unsafe_code, reason = "the table's data comes as a pointer")]
unsafe fn table(data: *const ()) -> &'static WakerTable {
    // SAFETY: the contract above.
    unsafe { (*data.cast::<Waker>()).table }
}

#[expect(unsafe_code, reason = "an entry of std's table")]
unsafe fn foreign_clone(data: *const ()) -> RawWaker {
    // SAFETY: the contract above.
    let clone = unsafe { table(data) }.clone;
    // SAFETY: as above.
    RawWaker::new(unsafe { clone(data.cast()) }.cast(), &FOREIGN)
}

#[expect(unsafe_code, reason = "an entry of std's table")]
unsafe fn foreign_wake(data: *const ()) {
    // SAFETY: the contract above.
    let wake = unsafe { table(data) }.wake;
    // SAFETY: `std` uses up a clone.
    unsafe { wake(data.cast()) }
}

#[expect(unsafe_code, reason = "an entry of std's table")]
unsafe fn foreign_wake_by_ref(data: *const ()) {
    // SAFETY: the contract above.
    let wake_by_ref = unsafe { table(data) }.wake_by_ref;
    // SAFETY: as above.
    unsafe { wake_by_ref(data.cast()) }
}

#[expect(unsafe_code, reason = "an entry of std's table")]
unsafe fn foreign_drop(data: *const ()) {
    // SAFETY: the contract above.
    let drop = unsafe { table(data) }.drop;
    // SAFETY: `std` uses up a clone.
    unsafe { drop(data.cast()) }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct CountingWaker {
        n_woken: AtomicUsize,
        fails: bool,
    }

    impl Wake for CountingWaker {
        fn wake(self: Arc<Self>) {
            self.n_woken.fetch_add(1, Ordering::Relaxed);
            assert!(!self.fails, "this waker fails");
        }
    }

    fn counter(fails: bool) -> (Arc<CountingWaker>, task::Waker) {
        let counter = Arc::new(CountingWaker { fails, ..CountingWaker::default() });
        (Arc::clone(&counter), counter.into())
    }

    /// What the other side does with a waker that it is passed.
    #[expect(unsafe_code, reason = "plays the other side")]
    fn across<T>(waker: *const Waker, call: impl FnOnce(&task::Waker) -> T) -> T {
        // SAFETY: one of this module's, while it is lent.
        unsafe { borrow(waker, call) }
    }

    #[test]
    fn clones_outlive_what_was_lent_and_are_counted() {
        let (counter, waker) = counter(false);
        let kept = lend(&waker, |lent| across(lent, |waker| (waker.clone(), waker.clone())));
        drop(waker);
        kept.0.wake_by_ref();
        kept.0.wake();
        let more: Vec<_> = std::iter::repeat_n(&kept.1, 10).cloned().collect();
        assert!(more.iter().all(|clone| clone.will_wake(&kept.1)));
        more.into_iter().for_each(task::Waker::wake);
        drop(kept.1);
        assert_eq!((counter.n_woken.load(Ordering::Relaxed), Arc::strong_count(&counter)), (12, 1));
    }

    #[test]
    fn a_shared_one_is_the_same_at_each_poll() {
        let (counter, waker) = counter(false);
        let shared = Shared::new(waker.clone());
        assert!(shared.will_wake(&waker));
        let first = across(shared.as_ptr(), task::Waker::clone);
        assert!(across(shared.as_ptr(), |again| again.will_wake(&first)));
        drop((shared, waker));
        first.wake();
        assert_eq!((counter.n_woken.load(Ordering::Relaxed), Arc::strong_count(&counter)), (1, 1));
    }

    #[test]
    fn one_that_comes_home_is_not_wrapped_again() {
        let (_, waker) = counter(false);
        let shared = Shared::new(waker);
        across(shared.as_ptr(), |foreign| lend(foreign, |back| assert_eq!(back, shared.as_ptr())));
    }

    #[test]
    fn a_panic_in_a_waker_stays_on_its_side() {
        let (counter, waker) = counter(true);
        lend(&waker, |lent| across(lent, |waker| waker.wake_by_ref()));
        lend(&waker, |lent| across(lent, task::Waker::clone)).wake();
        drop(waker);
        assert_eq!((counter.n_woken.load(Ordering::Relaxed), Arc::strong_count(&counter)), (2, 1));
    }
}
