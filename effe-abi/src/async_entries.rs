//! From the author's async trait to the wire: Start, Run and Stop as futures, and the entries of v1, which wait for the
//! same futures on their thread.
//!
//! This file owns the tables. `run` has Run, whose future lives in its Context's `slot`, so that a request allocates
//! nothing here; `steps` has the other steps, whose futures are `boxed`; `waiting` has v1's entries, which `block_on` a
//! future. The runtime is left to `runtime.rs`.

mod block_on;
mod boxed;
mod run;
mod slot;
mod steps;
mod waiting;

use abi_stable::std_types::RStr;

use self::{
    run::run,
    steps::{init, ready, retire, start, stop},
    waiting::{run_waiting, start_waiting, stop_waiting},
};
use crate::{
    async_lambda::AsyncLambda,
    extensions::{ASYNC, AsyncPlugin, READY, Ready},
    raw::Plugin,
};

/// The table of `L`.
pub const fn async_table<L: AsyncLambda>(info: &'static str, build: &'static str) -> Plugin {
    Plugin {
        flags: L::OPTIONS.flags(),
        info: RStr::from_str(info),
        build: RStr::from_str(build),
        init: init::<L>,
        start: start_waiting::<L>,
        run: run_waiting::<L>,
        stop: stop_waiting::<L>,
        retire: retire::<L>,
        extension: extension::<L>,
    }
}

/// The lambda's tables beyond v1.
struct Entries<L>(L);

impl<L: AsyncLambda> Entries<L> {
    const READY: &'static Ready = &Ready { size: size_of::<Ready>() as u32, version: 1, ready: ready::<L> };
    const TABLE: &'static AsyncPlugin = &AsyncPlugin {
        size: size_of::<AsyncPlugin>() as u32,
        version: 2,
        start: start::<L>,
        run: run::<L>,
        stop: stop::<L>,
    };
}

#[expect(unsafe_code, reason = "an entry of the wire")]
unsafe extern "C" fn extension<L: AsyncLambda>(id: RStr<'_>) -> *const () {
    match id.as_str() {
        ASYNC => std::ptr::from_ref(Entries::<L>::TABLE).cast(),
        READY => std::ptr::from_ref(Entries::<L>::READY).cast(),
        _ => std::ptr::null(),
    }
}
