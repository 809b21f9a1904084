//! A lambda's Context, and the calls that wait on their thread: Start makes it, Run uses it, Stop destroys
//! it. Calls that are polled are in `futures.rs`.
#![expect(unsafe_code, reason = "this module calls the lambda; its callers are safe")]

use std::{mem::ManuallyDrop, ptr::NonNull};

use effe_abi::raw::{Exchange, Failure, Status};

use super::{fault::Fault, loaded::Plugin};
use crate::journal::Severity;

/// What Start made.
pub enum Started {
    Ready(Context),
    /// An error that comes with a Context: one Run is told of the error.
    Failed(Context, Fault),
    /// No Context: Start panicked, or failed without one.
    Panicked(Fault),
}

impl Plugin {
    pub fn start(&'static self) -> Started {
        let (mut pointer, mut failure) = (std::ptr::null_mut(), Failure::new());
        // SAFETY: the table is `host.rs`'s; between `init` and `retire`.
        let status = unsafe { (self.entries.start)(self.table, &mut pointer, &mut failure) };
        self.made(pointer, status, failure)
    }

    /// Counts what Start has made, and gives it its type.
    pub(super) fn made(&'static self, pointer: *mut (), status: Status, failure: Failure) -> Started {
        let context = NonNull::new(pointer).map(|pointer| {
            self.count_start();
            Context { plugin: self, pointer }
        });
        match (Fault::check(status, failure), context) {
            (Ok(()), Some(context)) => Started::Ready(context),
            (Err(fault @ Fault::Error(..)), Some(context)) => Started::Failed(context, fault),
            (Err(fault), _) => Started::Panicked(fault),
            (Ok(()), None) => {
                Started::Panicked(Fault::Error(Severity::Error, "start made no Context".to_owned()))
            }
        }
    }
}

/// A Context. Dropping it calls Stop, so that Stop is called exactly once.
pub struct Context {
    pub(super) plugin: &'static Plugin,
    pub(super) pointer: NonNull<()>,
}

// SAFETY: the wire lets a Context be used on any thread, one call at a time, which `&mut` sees to.
unsafe impl Send for Context {}

impl Context {
    /// Calls Run. After a panic the Context can only be dropped.
    pub fn run(&mut self, exchange: &Exchange<'_>) -> Result<(), Fault> {
        let mut failure = Failure::new();
        // SAFETY: `start` made the pointer, `drop` has not stopped it, `&mut self` keeps it to one call.
        let status = unsafe { (self.plugin.entries.run)(self.pointer.as_ptr(), exchange, &mut failure) };
        Fault::check(status, failure)
    }

    /// Calls Stop, for a caller that wants its outcome. When a Context is dropped, the outcome is logged.
    pub fn stop(self) -> Result<(), Fault> {
        let mut context = ManuallyDrop::new(self);
        // SAFETY: `ManuallyDrop` keeps `drop` from ending it a second time.
        unsafe { context.end() }
    }

    /// # Safety
    /// It is the last use of the Context.
    unsafe fn end(&mut self) -> Result<(), Fault> {
        let mut failure = Failure::new();
        // SAFETY: `start` made the pointer, and nothing uses it after this, as the caller says.
        let status = unsafe { (self.plugin.entries.stop)(self.pointer.as_ptr(), &mut failure) };
        self.plugin.count_stop();
        Fault::check(status, failure)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: dropped once.
        self.plugin.log_stop(unsafe { self.end() });
    }
}
