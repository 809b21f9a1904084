//! An async run, which lasts longer than one function: it owns the Context, the call, and what it lends of them.
#![expect(unsafe_code, reason = "the run borrows from what it owns")]

use std::{
    mem::{self, ManuallyDrop},
    ptr::NonNull,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use effe_abi::raw::{self, Failure};

use super::{
    Exchange,
    call::{Call, Progress},
};
use crate::{
    body::sender::BodySender,
    message::request::RequestHead,
    placement::{Placement, policy::OVERSTAY},
    plugin::{Context, Fault, Running},
};

/// An async run that is under way. It may be polled on any thread, and moves between them. If it is dropped before its
/// end, it is cancelled.
pub struct AsyncRun {
    /// Dropped before what is lent to it.
    running: ManuallyDrop<Running>,
    lent: NonNull<Lent>,
    call: NonNull<Call>,
}

/// What the run is lent, at a place where it stays.
struct Lent {
    form: Option<raw::Exchange<'static>>,
    failure: Failure,
    /// Borrows from the call.
    exchange: Exchange<'static>,
}

// SAFETY: all that it owns may be sent, the exchange too: what is changed behind it has locks or is atomic.
unsafe impl Send for AsyncRun {}

impl AsyncRun {
    /// A run does nothing before it is polled.
    pub fn new(
        context: Box<Context>,
        call: Box<Call>,
        response_limit: usize,
        placement: Arc<Placement>,
    ) -> AsyncRun {
        let call = NonNull::from(Box::leak(call));
        // SAFETY: leaked above, and taken back only after all that borrows from it is dropped.
        let parts = unsafe { &mut *call.as_ptr() };
        let Call { head, body, response, streams, progress, deadline, run_timeout, .. } = parts;
        let (head, gone, id) = (&**head, &progress.gone, &progress.id);
        let exchange = Exchange::new(head, body, response, gone, *deadline, response_limit, id);
        let exchange = exchange.with_streams(streams).with_early_answer(progress, *run_timeout);
        let exchange = Exchange { polls: Some(placement), ..exchange };
        let lent = Box::new(Lent { form: None, failure: Failure::new(), exchange });
        let lent = NonNull::from(Box::leak(lent));
        // SAFETY: as for the call; it stays at this place.
        let Lent { form, failure, exchange } = unsafe { &mut *lent.as_ptr() };
        let form = exchange.watched_form().unwrap_or_else(|| form.insert(exchange.form()));
        // SAFETY: they stay until `take_apart` or `drop` has dropped the run, and nobody else has them.
        let running = unsafe { context.run_polled(form, failure) };
        AsyncRun { running: ManuallyDrop::new(running), lent, call }
    }

    /// Polls the run. Don't poll it again after it was ready.
    pub fn poll(&mut self, waker: &Waker) -> Poll<Result<(), Fault>> {
        let _entered = self.exchange().enter();
        self.running.poll(waker).map(|status| {
            // SAFETY: a run that is done no longer writes to it.
            let failure = unsafe { &mut (*self.lent.as_ptr()).failure };
            Fault::check(status, mem::take(failure))
        })
    }

    fn exchange(&self) -> &Exchange<'static> {
        // SAFETY: it stays until the run is taken apart, and is only shared.
        unsafe { &(*self.lent.as_ptr()).exchange }
    }

    /// Its last poll took so long on the server's thread.
    pub fn took(&self, took: Duration) {
        if took > OVERSTAY {
            self.exchange().overstay();
        }
    }

    pub fn head(&self) -> &RequestHead {
        // SAFETY: `self` keeps the call, of which the exchange borrows the head only to read it.
        unsafe { &(*self.call.as_ptr()).head }
    }

    /// What names the request to a rescue; 0 if nobody needs it.
    pub fn served(&self) -> u64 {
        // SAFETY: as in `head`; a number that nobody writes during the run.
        unsafe { (*self.call.as_ptr()).served }
    }

    pub fn progress(&self) -> &Arc<Progress> {
        // SAFETY: as in `head`.
        unsafe { &(*self.call.as_ptr()).progress }
    }

    /// Writes the response, if it may go piece by piece.
    pub fn sender(&self) -> Option<&Arc<BodySender>> {
        self.exchange().streams.response.as_ref()
    }

    /// The Context, and the call with its response. A run that has not ended is cancelled.
    pub fn take_apart(self) -> (Box<Context>, Box<Call>) {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `ManuallyDrop` keeps `drop` from ending it a second time.
        unsafe { this.end() }
    }

    /// # Safety
    /// It is the last use of the run.
    unsafe fn end(&mut self) -> (Box<Context>, Box<Call>) {
        // SAFETY: once, as the caller says.
        let running = unsafe { ManuallyDrop::take(&mut self.running) };
        let entered = self.exchange().enter();
        let context = running.into_context();
        drop(entered);
        // SAFETY: leaked by `new`; the run that used it is dropped, and the call that it borrows from is not.
        drop(unsafe { Box::from_raw(self.lent.as_ptr()) });
        // SAFETY: leaked by `new`, and nothing borrows from it any more.
        (context, unsafe { Box::from_raw(self.call.as_ptr()) })
    }
}

impl Drop for AsyncRun {
    fn drop(&mut self) {
        // SAFETY: dropped once.
        drop(unsafe { self.end() });
    }
}
