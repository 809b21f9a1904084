//! Runs that go on as tasks of the lambda's own runtime: its threads are for an exchange then, and their polls are
//! looked at as those on the server's threads are.
#![expect(unsafe_code, reason = "the entries of the table get their data as a pointer")]

use std::cell::Cell;

use effe_abi::{
    extensions::SpawnHost,
    raw::{Status, status},
};

use super::{CURRENT, exchange};
use crate::{
    placement::{
        cpu_time::{CAREFUL, Usage},
        policy::OVERSTAY,
    },
    rt::{clock::Moment, wake_batch},
};

/// What an async lambda finds under the id of the extension.
pub static SPAWN_OPS: SpawnHost =
    SpawnHost { size: size_of::<SpawnHost>() as u32, version: 1, may_spawn, enter, leave, hold, release };

thread_local! {
    static POLLED: Cell<Polled> = const { Cell::new(Polled { since: Moment::ZERO, used: None, careful_for: 0 }) };
}

/// The poll that a thread of a lambda's is in.
#[derive(Clone, Copy)]
struct Polled {
    since: Moment,
    /// What the thread had used before, if that was looked at.
    used: Option<Usage>,
    /// Polls that are still to be looked at closely.
    careful_for: u64,
}

unsafe extern "C" fn may_spawn(host: *mut ()) -> Status {
    // SAFETY: the contract of the exchange's entries.
    let exchange = unsafe { exchange(host) };
    let is_inline = exchange.polls.as_ref().is_some_and(|execution| execution.is_inline());
    if is_inline { status::OK } else { status::UNSUPPORTED }
}

unsafe extern "C" fn enter(host: *mut ()) -> *const () {
    let careful_for = POLLED.get().careful_for;
    let used = (careful_for > 0).then(Usage::now);
    POLLED.set(Polled { since: Moment::now(), used, careful_for: careful_for.saturating_sub(1) });
    CURRENT.replace(host.cast_const().cast()).cast()
}

unsafe extern "C" fn leave(host: *mut (), entered: *const ()) {
    CURRENT.set(entered.cast());
    let Polled { since, used, .. } = POLLED.get();
    let took = since.elapsed();
    if took > OVERSTAY {
        POLLED.set(Polled { careful_for: CAREFUL, ..POLLED.get() });
        // The first time it may have been the system, which did not let the thread run.
        if used.is_none_or(|used| Usage::now().since(used).excuses_run()) {
            return;
        }
    }
    // SAFETY: the contract of the exchange's entries.
    let exchange = unsafe { exchange(host) };
    if let Some(execution) = &exchange.polls {
        execution.ran_spawned(took, || (exchange.head.method(), exchange.head.path()));
    }
}

unsafe extern "C" fn hold() {
    wake_batch::hold();
}

unsafe extern "C" fn release() {
    wake_batch::release();
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, OnceLock, atomic::AtomicBool},
        thread,
        time::Duration,
    };

    use super::*;
    use crate::{
        exchange::{Exchange, current_id, response::Answer},
        http::head::{Head, OwnedHead},
        journal::{Format, Journal, Settings, SyslogTarget},
        placement::{Execution, Mode},
    };

    /// A poll of a lambda's own thread, as long as `lasts`, and what its log line would be for.
    #[expect(unsafe_code, reason = "plays the lambda")]
    fn poll(exchange: &Exchange<'_>, lasts: Duration) -> Option<String> {
        let host = std::ptr::from_ref(exchange).cast_mut().cast();
        // SAFETY: it is borrowed for longer than this.
        let entered = unsafe { enter(host) };
        thread::sleep(lasts);
        let id = current_id();
        // SAFETY: as above.
        unsafe { leave(host, entered) };
        id
    }

    #[test]
    #[expect(unsafe_code, reason = "plays the lambda")]
    fn polls_that_overstay_end_the_spawning_and_one_alone_may_be_the_systems_fault() {
        let journal = Journal::start(Settings::new(SyslogTarget::None, Format::Text)).unwrap();
        let execution = Arc::new(Execution::new(Mode::Auto, 0, true, journal));
        let (head, mut answer, gone) = (OwnedHead::default(), Answer::default(), AtomicBool::new(false));
        let id = OnceLock::from("a-b-c".to_owned());
        let exchange = Exchange::new(Head::Copied(&head), &[], &mut answer, &gone, None, 0, &id);
        let exchange = exchange.polled(Arc::clone(&execution));
        let host = std::ptr::from_ref(&exchange).cast_mut().cast();
        // SAFETY: it stays for longer than the call.
        let may_spawn = || unsafe { may_spawn(host) };
        for _ in 0..2 {
            assert_eq!(may_spawn(), status::OK);
            assert_eq!(poll(&exchange, 3 * OVERSTAY).as_deref(), Some("a-b-c"));
        }
        assert_eq!((may_spawn(), current_id()), (status::UNSUPPORTED, None));
    }
}
