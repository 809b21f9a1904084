//! The record of the calling thread, in a supervised process.

use std::{cell::Cell, sync::atomic::Ordering};

use super::{fault, global::get, record::Record};

/// The record of the calling thread, and its index, if this process is supervised.
pub fn own() -> Option<(u32, &'static Record)> {
    thread_local! {
        static OWN: Cell<Option<(u32, &'static Record)>> = const { Cell::new(None) };
        static LEAVES: Leaves = const { Leaves };
    }
    /// Gives the record to another thread when this one ends.
    struct Leaves;
    impl Drop for Leaves {
        fn drop(&mut self) {
            // `exit` in a run ends the thread's variables first, and then asks what it was doing.
            if let Ok(Some((_, record))) = OWN.try_with(Cell::get)
                && !record.is_in_run()
            {
                fault::take_stack();
                record.since.store(0, Ordering::Relaxed);
                record.is_server.store(0, Ordering::Relaxed);
                record.thread.store(0, Ordering::Release);
            }
        }
    }
    let rescue = get()?;
    if let Some(own) = OWN.get() {
        return Some(own);
    }
    let (n, record) = rescue.board.new_record(rustix::thread::gettid().as_raw_nonzero().get())?;
    record.serve(0);
    fault::give_stack(n);
    OWN.set(Some((n, record)));
    LEAVES.with(|_| ());
    Some((n, record))
}

/// The record of the calling thread, which serves connections, if this process is supervised.
pub fn of_server() -> Option<&'static Record> {
    let (_, record) = own()?;
    record.is_server.store(1, Ordering::Relaxed);
    Some(record)
}

/// A run on a thread of the pool, until it is dropped.
pub struct WatchedRun(Option<&'static Record>);

impl WatchedRun {
    /// `request` is what [`Record::served`] said on the thread that the run comes from.
    pub fn begin(request: u64, describe: impl FnOnce(&Record)) -> WatchedRun {
        let record = own().map(|(_, record)| record);
        if let Some(record) = record {
            record.serve(request);
            describe(record);
        }
        WatchedRun(record)
    }
}

impl Drop for WatchedRun {
    fn drop(&mut self) {
        if let Some(record) = self.0 {
            record.end();
        }
    }
}
