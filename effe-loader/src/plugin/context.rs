//! A lambda's Context: made by Start, used by Run, gone after Stop.
#![expect(unsafe_code, reason = "this module calls the lambda; its callers are safe")]

use std::{mem::ManuallyDrop, ptr::NonNull, sync::atomic::Ordering};

use effe_abi::raw::{Exchange, Failure, Status};

use super::{fault::Fault, loaded::Plugin};
use crate::journal::Severity;

/// What Start made.
pub enum Started {
    /// A Context.
    Ready(Context),
    /// An error that waits for one Run, perhaps with a Context.
    Failed(Context, Fault),
    /// Nothing; Start panicked.
    Panicked(Fault),
}

impl Plugin {
    /// Calls Start.
    pub fn start(&'static self) -> Started {
        let (mut pointer, mut failure) = (std::ptr::null_mut(), Failure::new());
        // SAFETY: the table is `host.rs`'s; between `init` and `retire`.
        let status = unsafe { self.entries.start(self.table, &mut pointer, &mut failure) };
        self.made(pointer, status, failure)
    }

    /// Takes over what Start has made.
    pub(super) fn made(&'static self, pointer: *mut (), status: Status, failure: Failure) -> Started {
        let context = NonNull::new(pointer).map(|pointer| {
            self.started.fetch_add(1, Ordering::Relaxed);
            self.counts.started.fetch_add(1, Ordering::Relaxed);
            Context { plugin: self, pointer }
        });
        match (Fault::of(status, failure), context) {
            (None, Some(context)) => Started::Ready(context),
            (Some(fault @ Fault::Error(..)), Some(context)) => Started::Failed(context, fault),
            (Some(fault), _) => Started::Panicked(fault),
            (None, None) => {
                Started::Panicked(Fault::Error(Severity::Error, "start made no Context".to_owned()))
            }
        }
    }
}

/// A Context of the lambda's. Dropping it is Stop: exactly once, on every road out.
pub struct Context {
    pub(super) plugin: &'static Plugin,
    pub(super) pointer: NonNull<()>,
}

// SAFETY: the wire lets a Context be used on any thread, one call at a time, which `&mut` sees to.
unsafe impl Send for Context {}

impl Context {
    /// Calls Run.
    ///
    /// # Errors
    /// Run failed or panicked; after a panic the Context is good for nothing but to be dropped.
    pub fn run(&mut self, exchange: &Exchange<'_>) -> Result<(), Fault> {
        let mut failure = Failure::new();
        // SAFETY: `start` made the pointer, `drop` has not stopped it, `&mut self` keeps it to one call.
        let status = unsafe { self.plugin.entries.run(self.pointer.as_ptr(), exchange, &mut failure) };
        Fault::of(status, failure).map_or(Ok(()), Err)
    }

    /// Calls Stop, for whoever wants to know what came of it; dropping a Context logs it.
    ///
    /// # Errors
    /// Stop failed or panicked; the Context is gone all the same.
    pub fn stop(self) -> Result<(), Fault> {
        let mut context = ManuallyDrop::new(self);
        // SAFETY: it is not dropped any more.
        unsafe { context.end() }
    }

    /// # Safety
    /// It is the last use of the Context.
    unsafe fn end(&mut self) -> Result<(), Fault> {
        let mut failure = Failure::new();
        // SAFETY: `start` made the pointer, and nothing uses it after this, as the caller says.
        let status = unsafe { self.plugin.entries.stop(self.pointer.as_ptr(), &mut failure) };
        self.plugin.stopped();
        Fault::of(status, failure).map_or(Ok(()), Err)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: dropped once.
        self.plugin.log_stop(unsafe { self.end() }.err());
    }
}
