//! A connection's place in the scoreboard, as its own thread has it.
//!
//! A rescue begins with `DYING`, then a barrier in all threads (`membarrier`), and then reads the states. A thread
//! stores a state first and looks at `DYING` afterwards, with nothing between but a fence for the compiler: so either
//! the rescue sees the state, or the thread sees that there is a rescue. The fast path has no barrier of its own.

use std::{
    cell::Cell,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    ptr,
    sync::atomic::{Ordering, compiler_fence, fence},
};

use rustix::{
    io::fcntl_getfd,
    net::{Shutdown, connect_unspec, shutdown},
};

use super::{
    entry::{DEPOSITED, Entry, TOLD, state},
    escrow,
    global::{get, has_crashed, is_dying},
    record::{self, Record},
    thread,
};

/// Of connections whose descriptor is too high for the scoreboard: a rescue neither finds nor answers them.
static NOWHERE: Entry = Entry::new();

/// The place of one connection; empty in a process that isn't supervised, and for a connection that can't be rescued.
#[derive(Default)]
pub struct Slot {
    /// Apart from the rest: it alone is looked at again and again.
    entry: Cell<Option<&'static Entry>>,
    place: Cell<Option<Place>>,
}

#[derive(Clone, Copy)]
struct Place {
    record: &'static Record,
    descriptor: i32,
    serial: u32,
    /// Whether the client must see that the connection breaks off.
    is_reset: bool,
}

impl Slot {
    /// A connection has been accepted, or taken over from another process. False if a rescue has taken it before.
    pub fn open(&self, socket: BorrowedFd<'_>) -> bool {
        let Some(rescue) = get() else { return true };
        let descriptor = socket.as_raw_fd();
        let Some((owner, record)) = thread::own() else { return true };
        let Some((entry, serial)) = rescue.board.use_entry(descriptor) else {
            // Its thread must not be taken to answer another one's request.
            self.open_nowhere();
            return true;
        };
        // A rescue that has swept it up knows it by what the entry says now.
        let taken =
            entry.state.compare_exchange(state::FREE, state::NEVER, Ordering::SeqCst, Ordering::SeqCst);
        if taken == Err(state::SWEPT) {
            return false;
        }
        entry.owner.store(owner, Ordering::Relaxed);
        entry.flags.store(0, Ordering::Relaxed);
        entry.serial.store(serial, Ordering::Relaxed);
        entry.state.store(state::CLEAN, Ordering::SeqCst);
        self.entry.set(Some(entry));
        self.place.set(Some(Place { record, descriptor, serial, is_reset: false }));
        true
    }

    /// A connection that can't be rescued; its requests count.
    pub fn open_nowhere(&self) {
        if get().is_some()
            && let Some((_, record)) = thread::own()
        {
            self.entry.set(Some(&NOWHERE));
            self.place.set(Some(Place { record, descriptor: -1, serial: 0, is_reset: false }));
        }
    }

    pub fn is_open(&self) -> bool {
        self.entry.get().is_some()
    }

    fn set(&self, state: u32) {
        if let Some(entry) = self.entry.get() {
            entry.state.store(state, Ordering::Relaxed);
        }
    }

    /// Something may be read: whether it may, after all answers have gone. `is_empty` is whether nothing has been read
    /// of the next request.
    // Apart, and so are its like: where there is no scoreboard, a request is to pass by them with one look.
    #[inline(never)]
    pub fn may_read(&self, is_empty: bool) -> bool {
        self.entry.get().is_none_or(|entry| Slot::may_be_read(entry, is_empty))
    }

    fn may_be_read(entry: &Entry, is_empty: bool) -> bool {
        let idle = if is_empty { state::CLEAN } else { state::PARTIAL };
        if is_dying() && (has_crashed() || is_empty) {
            entry.state.store(idle, Ordering::Relaxed);
            return false;
        }
        if is_empty {
            // A run of the request before may still go on: this one is no business of its.
            Slot::renumber(entry);
        }
        entry.state.store(if is_empty { state::BUSY } else { state::PARTIAL }, Ordering::Release);
        compiler_fence(Ordering::SeqCst);
        if !is_dying() || !(has_crashed() || is_empty) {
            return true;
        }
        entry.state.store(idle, Ordering::Relaxed);
        false
    }

    /// Nothing is here to read.
    #[inline(never)]
    pub fn rest(&self, is_empty: bool) {
        self.set(if is_empty { state::CLEAN } else { state::PARTIAL });
    }

    /// A request is here; all answers before have gone.
    pub fn begin(&self) {
        if let Some(entry) = self.entry.get() {
            self.begin_at(entry);
        }
    }

    #[inline(never)]
    fn begin_at(&self, entry: &Entry) {
        self.place.get().inspect(|place| place.record.count_request());
        if entry.state.load(Ordering::Relaxed) != state::NEVER {
            Slot::renumber(entry);
            entry.state.store(state::BUSY, Ordering::Release);
        }
        self.serve();
    }

    /// Another request has its turn. To be followed by a store of its state that is a release: whoever sees the state
    /// sees the number, too.
    fn renumber(entry: &Entry) {
        entry.request.store(entry.request.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// The thread goes on with the request of this connection.
    pub fn serve(&self) {
        if let Some((entry, place)) = self.entry.get().zip(self.place.get()) {
            place.record.serve(record::name(place.descriptor, entry.request.load(Ordering::Relaxed)));
        }
    }

    /// An answer begins to go; false if a rescue has given another.
    pub fn may_answer(&self) -> bool {
        self.entry.get().is_none_or(Slot::may_be_answered)
    }

    #[inline(never)]
    fn may_be_answered(entry: &'static Entry) -> bool {
        entry.state.store(state::ANSWERING, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        if !is_dying() {
            return true;
        }
        // Whoever comes second sees the other, or both do: then there is no answer rather than two.
        fence(Ordering::SeqCst);
        entry.flags.load(Ordering::Relaxed) & TOLD == 0
    }

    /// An answer of the loader's own begins to go, to no request.
    #[inline(never)]
    pub fn answer(&self) {
        self.set(state::ANSWERING);
    }

    /// Whether nothing new may be read, because the process has crashed.
    pub fn is_dying(&self) -> bool {
        self.is_open() && has_crashed()
    }

    /// The connection ends by itself.
    #[inline(never)]
    pub fn end(&self) {
        self.set(state::OVER);
    }

    /// Another process could not go on with it from now on. False if a rescue may have given it to one already: then
    /// nothing may be read.
    #[cfg(feature = "http2")]
    pub fn never(&self) -> bool {
        let Some(entry) = self.entry.get() else { return true };
        if is_dying() {
            return false;
        }
        entry.state.store(state::NEVER, Ordering::Release);
        compiler_fence(Ordering::SeqCst);
        if !is_dying() {
            return true;
        }
        entry.state.store(state::CLEAN, Ordering::Relaxed);
        false
    }

    /// The client is to see that what it has got is not all.
    pub fn reset(&self) {
        if let Some(place) = self.place.get() {
            self.place.set(Some(Place { is_reset: true, ..place }));
        }
    }

    /// Whether the supervisor is to get a copy of the descriptor: its number and serial, once.
    pub fn deposit(&self) -> Option<(i32, u32)> {
        let (entry, Place { descriptor, serial, .. }) = self.entry.get().zip(self.place.get())?;
        if ptr::eq(entry, &NOWHERE) {
            return None;
        }
        let kept = [state::FREE, state::NEVER, state::OVER];
        if kept.contains(&entry.state.load(Ordering::Relaxed))
            || entry.flags.fetch_or(DEPOSITED, Ordering::Relaxed) & DEPOSITED != 0
        {
            return None;
        }
        Some((descriptor, serial))
    }

    /// The supervisor could not get a copy after all.
    pub fn take_back(&self) {
        if let Some(entry) = self.entry.get() {
            entry.flags.fetch_and(!DEPOSITED, Ordering::Relaxed);
        }
    }

    /// The connection is about to be closed, by its `socket`.
    pub fn close(&self, socket: impl AsFd) {
        let taken = self.entry.take().zip(self.place.take());
        let Some((entry, Place { descriptor, serial, is_reset, .. })) = taken else { return };
        let before = entry.state.load(Ordering::Relaxed);
        if before == state::CLEAN && is_dying() && entry.flags.load(Ordering::Relaxed) & DEPOSITED != 0 {
            // The supervisor gives it to another process, or has done so.
            return;
        }
        let is_deposited = entry.flags.load(Ordering::Relaxed) & DEPOSITED != 0;
        if before == state::CLEAN && is_deposited && fcntl_getfd(&socket).is_err() {
            // The lambda has closed it, perhaps with all that this process has. Its client knows of nothing: if the
            // process ends of that before the supervisor is told, the connection goes on elsewhere.
            escrow::gone(descriptor, serial);
            return;
        }
        entry.state.store(state::FREE, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        if is_dying() && before == state::CLEAN {
            // A rescue may have given it to another process.
            return;
        }
        if is_deposited {
            // As long as there is a copy, closing ours tells the client nothing.
            break_off(&socket, is_reset);
            escrow::gone(descriptor, serial);
        }
    }
}

/// Ends a connection of which there are copies. A Unix socket can't be reset: its client sees the end.
pub fn break_off(socket: impl AsFd, is_reset: bool) {
    if !is_reset || connect_unspec(&socket).is_err() {
        let _ = shutdown(&socket, Shutdown::Both);
    }
}
