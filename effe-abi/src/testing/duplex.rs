//! A connection that a lambda has taken over, in the test's own process: bytes in both directions, of which the test
//! has one end and the lambda the other.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task,
};

use super::piece::bytes;
use crate::{
    chunk::Chunk,
    extensions::{Duplex, DuplexTable, GOING_AWAY, Waker},
    raw::{self, Status, status},
    waker,
};

/// Bytes that wait in each direction before a writer has to, as in a loader.
const CAPACITY: usize = 64 * 1024;

/// What both ends share.
#[derive(Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    to_lambda: VecDeque<u8>,
    to_client: VecDeque<u8>,
    /// The client sends nothing more.
    client_is_done: bool,
    /// The lambda writes nothing more.
    lambda_is_done: bool,
    /// The lambda has given its last handle back.
    lambda_has_left: bool,
    client_has_left: bool,
    /// The effe stops.
    is_away: bool,
    /// Whether a read has said so.
    is_told: bool,
    n_handles: usize,
    /// Tasks of the lambda's that wait for anything here.
    wakers: Vec<task::Waker>,
}

impl Shared {
    /// Lends the lambda its end, with one handle.
    pub(super) fn lend(self: &Arc<Self>) -> Duplex {
        self.lock().n_handles = 1;
        Duplex { data: Arc::into_raw(Arc::clone(self)).cast(), table: &TABLE }
    }

    /// How the connection is, as the lambda sees it.
    pub(super) fn state(&self) -> Status {
        let state = self.lock();
        match () {
            () if state.client_has_left => status::GONE,
            () if state.is_away => GOING_AWAY,
            () => status::OK,
        }
    }

    pub(super) fn go_away(&self) {
        self.change(|state| state.is_away = true);
    }

    /// The client closes its end, and may still read.
    pub(super) fn finish(&self) {
        self.change(|state| state.client_is_done = true);
    }

    /// The client is gone.
    pub(super) fn leave(&self) {
        self.change(|state| state.client_has_left = true);
    }

    /// The client reads; waits until there is something.
    pub(super) fn client_read(&self, buffer: &mut [u8]) -> usize {
        let state = self.wait(|state| !state.to_client.is_empty() || state.lambda_is_done);
        let (n, mut state) = (buffer.len().min(state.to_client.len()), state);
        for (to, from) in buffer.iter_mut().zip(state.to_client.drain(..n)) {
            *to = from;
        }
        self.notify(state);
        n
    }

    /// The client writes; waits until there is room.
    pub(super) fn client_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.wait(|state| state.to_lambda.len() < CAPACITY || state.lambda_has_left);
        if state.lambda_has_left || state.client_is_done {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let n = bytes.len().min(CAPACITY - state.to_lambda.len());
        state.to_lambda.extend(&bytes[..n]);
        self.notify(state);
        Ok(n)
    }

    /// What a read of the lambda's gives now; PENDING if that is nothing.
    fn read(&self, state: &mut State) -> Result<Vec<u8>, Status> {
        match () {
            () if !state.to_lambda.is_empty() => Ok(state.to_lambda.drain(..).collect()),
            () if state.is_away && !state.is_told => {
                state.is_told = true;
                Err(GOING_AWAY)
            }
            () if state.client_is_done => Err(status::END),
            () if state.client_has_left => Err(status::GONE),
            () => Err(status::PENDING),
        }
    }

    /// Whether the lambda may write now; PENDING while there is no room.
    fn room(state: &State) -> Status {
        match () {
            () if state.client_has_left || state.lambda_is_done => status::GONE,
            () if state.to_client.len() < CAPACITY => status::OK,
            () => status::PENDING,
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        self.notify(state);
    }

    fn notify(&self, mut state: MutexGuard<'_, State>) {
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.changed.notify_all();
        wakers.into_iter().for_each(task::Waker::wake);
    }

    fn wait(&self, until: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let waits = |state: &mut State| !until(state);
        self.changed.wait_while(self.lock(), waits).unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

static TABLE: DuplexTable = DuplexTable {
    size: size_of::<DuplexTable>() as u32,
    version: 1,
    read,
    poll_read,
    write,
    poll_ready,
    shutdown,
    state,
    poll_away,
    clone,
    drop: drop_handle,
};

/// Contract of all below: `data` is a reference that `lend` or `clone` has given out, and `drop_handle` has not taken
/// back.
#[expect(unsafe_code, reason = "the table's `data` comes back as a pointer")]
unsafe fn shared<'a>(data: *const ()) -> &'a Shared {
    // SAFETY: the contract above.
    unsafe { &*data.cast::<Shared>() }
}

fn give(read: Result<Vec<u8>, Status>, out: &mut raw::Chunk) -> Status {
    match read {
        Ok(bytes) => {
            *out = Chunk::from(bytes).into_raw();
            status::OK
        }
        Err(status) => status,
    }
}

/// Has the lambda's task woken by the next change.
#[expect(unsafe_code, reason = "the lambda's waker is a pointer")]
unsafe fn note(state: &mut State, waker: *const Waker) {
    // SAFETY: the caller's promise: the lambda's waker, valid for the length of the call.
    unsafe { waker::borrow(waker, |waker| state.wakers.push(waker.clone())) };
}

#[expect(unsafe_code, reason = "an entry of the stream's table")]
unsafe extern "C" fn read(data: *const (), out: &mut raw::Chunk) -> Status {
    // SAFETY: the contract of this file's entries.
    let shared = unsafe { shared(data) };
    let mut state = shared.lock();
    loop {
        match shared.read(&mut state) {
            Err(status::PENDING) => {
                state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            read => {
                shared.notify(state);
                return give(read, out);
            }
        }
    }
}

#[expect(unsafe_code, reason = "an entry of the stream's table")]
unsafe extern "C" fn poll_read(data: *const (), waker: *const Waker, out: &mut raw::Chunk) -> Status {
    // SAFETY: the contract of this file's entries.
    let shared = unsafe { shared(data) };
    let mut state = shared.lock();
    let read = shared.read(&mut state);
    if let Err(status::PENDING) = read {
        // SAFETY: the lambda's promise.
        unsafe { note(&mut state, waker) };
        return status::PENDING;
    }
    shared.notify(state);
    give(read, out)
}

#[expect(unsafe_code, reason = "an entry of the stream's table")]
unsafe extern "C" fn write(data: *const (), piece: raw::Chunk) -> Status {
    let piece = bytes(piece);
    // SAFETY: the contract of this file's entries.
    let shared = unsafe { shared(data) };
    let mut state = shared.wait(|state| Shared::room(state) != status::PENDING);
    let room = Shared::room(&state);
    if room == status::OK {
        state.to_client.extend(piece);
    }
    shared.notify(state);
    room
}

#[expect(unsafe_code, reason = "an entry of the stream's table")]
unsafe extern "C" fn poll_ready(data: *const (), waker: *const Waker) -> Status {
    // SAFETY: the contract of this file's entries.
    let shared = unsafe { shared(data) };
    let mut state = shared.lock();
    let room = Shared::room(&state);
    if room == status::PENDING {
        // SAFETY: the lambda's promise.
        unsafe { note(&mut state, waker) };
    }
    room
}

#[expect(unsafe_code, reason = "an entry of the stream's table")]
unsafe extern "C" fn shutdown(data: *const ()) {
    // SAFETY: the contract of this file's entries.
    let shared = unsafe { shared(data) };
    shared.change(|state| state.lambda_is_done = true);
}

#[expect(unsafe_code, reason = "an entry of the stream's table")]
unsafe extern "C" fn state(data: *const ()) -> Status {
    // SAFETY: the contract of this file's entries.
    let shared = unsafe { shared(data) };
    shared.state()
}

#[expect(unsafe_code, reason = "an entry of the stream's table")]
unsafe extern "C" fn poll_away(data: *const (), waker: *const Waker) -> Status {
    // SAFETY: the contract of this file's entries.
    let shared = unsafe { shared(data) };
    let mut state = shared.lock();
    match () {
        () if state.client_has_left => status::GONE,
        () if state.is_away => GOING_AWAY,
        () => {
            // SAFETY: the lambda's promise.
            unsafe { note(&mut state, waker) };
            status::PENDING
        }
    }
}

#[expect(unsafe_code, reason = "an entry of the stream's table")]
unsafe extern "C" fn clone(data: *const ()) -> *const () {
    // SAFETY: the contract of this file's entries.
    let shared = unsafe { shared(data) };
    shared.lock().n_handles += 1;
    // SAFETY: `data` is a reference of such an `Arc`.
    unsafe { Arc::increment_strong_count(data.cast::<Shared>()) };
    data
}

#[expect(unsafe_code, reason = "an entry of the stream's table")]
unsafe extern "C" fn drop_handle(data: *const ()) {
    // SAFETY: the contract of this file's entries; this is the reference's last use.
    let shared = unsafe { Arc::from_raw(data.cast::<Shared>()) };
    shared.change(|state| {
        state.n_handles -= 1;
        if state.n_handles == 0 {
            state.lambda_is_done = true;
            state.lambda_has_left = true;
        }
    });
}
