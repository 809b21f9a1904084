//! What a process does when it crashes, in the thread that has crashed. This file's code runs in a handler of signals,
//! and with it the plain copies of `note` and `record`, and the sending of `escrow`: it takes no lock, no memory from
//! the allocator, and no variable of a thread's own. The exception comes last, when all is saved: `REQUEST_ID` reads
//! which exchange the thread is in.
//!
//! The client of the faulting run is told 500. What runs on other threads may end, within the grace; nothing new is
//! read. Connections at rest go to other processes, by way of the supervisor, which also tells the clients of what has
//! not ended, once this process is dead.
#![expect(unsafe_code, reason = "signals, their stacks, and sockets by their numbers")]

use std::{
    io, mem,
    os::fd::{AsRawFd, RawFd},
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicI32, AtomicPtr, Ordering, fence},
    },
};

use rustix::thread::{MembarrierCommand, membarrier};

use super::{
    board::MAX_THREADS,
    entry::{DEPOSITED, Entry, TOLD, state},
    escrow::{self, Kind, MOST},
    global::{CRASHED, DYING, IMAGE, REQUEST_ID, RESCUE, Rescue},
    note::Note,
    record::Record,
};

/// What crashes a process and can be handled.
const SIGNALS: [i32; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT, libc::SIGTRAP];
/// Bytes of the stack on which a handler runs.
const STACK: usize = 64 << 10;
/// Bytes below it that nobody may use: a page, whichever size the system's are of.
const GUARD: usize = 64 << 10;
/// How often to look whether what runs has ended.
const LOOK: i64 = 300_000;
/// How long a message may wait for room, in nanoseconds.
const PATIENCE: u64 = 200_000_000;

/// Bytes of a request's id that are told.
const MAX_ID: usize = 128;

/// What a client is told: the head, the body.
type Answer = (&'static [u8], &'static [u8]);
const FAILED: Answer = (
    b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 18\r\ncontent-type: text/plain; charset=utf-8\r\n\
      connection: close\r\n\r\n",
    b"the lambda failed\n",
);
const OVERDUE: Answer = (
    b"HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 25\r\ncontent-type: text/plain; charset=utf-8\r\n\
      connection: close\r\n\r\n",
    b"the lambda took too long\n",
);

/// The thread that has crashed first.
static FAULTED: AtomicI32 = AtomicI32::new(0);
/// A stack for each record, made once.
static STACKS: [AtomicPtr<libc::c_void>; MAX_THREADS] =
    [const { AtomicPtr::new(ptr::null_mut()) }; MAX_THREADS];
/// The sockets that accept.
static ACCEPTING: OnceLock<Vec<Accepting>> = OnceLock::new();

struct Accepting {
    descriptor: i32,
    /// `None` if its connections can't go on elsewhere.
    name: Option<Name>,
}

/// Has the handlers called from now on.
pub fn install() -> io::Result<()> {
    // SAFETY: zeros are a valid value of this plain struct.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = on_fault as extern "C" fn(_, _, _) as usize;
    // Without SA_NODEFER a fault of the handler's own would end the process without its signal.
    action.sa_flags = libc::SA_ONSTACK | libc::SA_SIGINFO | libc::SA_NODEFER;
    // SAFETY: it writes the whole set, which is ours.
    unsafe { libc::sigfillset(&raw mut action.sa_mask) };
    for signal in SIGNALS {
        // SAFETY: the set is initialised.
        unsafe { libc::sigdelset(&raw mut action.sa_mask, signal) };
    }
    for signal in SIGNALS {
        // SAFETY: the handler keeps to what is allowed in one; see the head of this file.
        if unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Notes the sockets on which connections are accepted, and whether those can go on in another process. To be called
/// once.
pub fn accepts_on(descriptors: &[RawFd], can_go_on: bool) {
    let accepting = descriptors.iter().map(|&descriptor| {
        let name = if can_go_on { Name::of(descriptor, libc::getsockname) } else { None };
        Accepting { descriptor, name }
    });
    let _ = ACCEPTING.set(accepting.collect());
}

/// Gives the calling thread, which has the record of this index, a stack for its handlers: an overflow of its own
/// leaves none.
pub fn give_stack(n: u32) {
    let Some(place) = STACKS.get(n as usize) else { return };
    if place.load(Ordering::Acquire).is_null() {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, which touches no memory of ours.
        let at = unsafe { libc::mmap(ptr::null_mut(), GUARD + STACK, access, flags, -1, 0) };
        // A handler that needs more is to crash, and not to write into what lies below.
        // SAFETY: the first pages of what was mapped, which nobody uses.
        if at == libc::MAP_FAILED || unsafe { libc::mprotect(at, GUARD, libc::PROT_NONE) } != 0 {
            return;
        }
        place.store(at.wrapping_byte_add(GUARD), Ordering::Release);
    }
    let stack = libc::stack_t { ss_sp: place.load(Ordering::Acquire), ss_flags: 0, ss_size: STACK };
    // SAFETY: the memory is mapped for good, and only the thread with this record uses it.
    unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) };
}

/// The calling thread's handlers run on no stack of their own any more: another thread may get this one's.
pub fn take_stack() {
    let none = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
    // SAFETY: it concerns this thread alone, which is in no handler.
    unsafe { libc::sigaltstack(&raw const none, ptr::null_mut()) };
}

extern "C" fn on_fault(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let thread = this_thread();
    // SAFETY: the system hands over a valid one.
    let info = unsafe { &*info };
    let code = info.si_code;
    if is_forked() {
        return die_of(signal, code, thread);
    }
    match FAULTED.compare_exchange(0, thread, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => {
            let mut note = Note::new(thread);
            (note.signal, note.code) = (signal, code);
            // SAFETY: any bytes are an address, and every signal here has room for one.
            note.address = unsafe { info.si_addr() } as u64;
            note.counter = counter(context);
            let [begin, end] = [&IMAGE[0], &IMAGE[1]].map(|end| end.load(Ordering::Relaxed));
            if (begin..end).contains(&note.counter) {
                note.place = note.counter - begin;
            }
            if let Some(rescue) = RESCUE.get() {
                contain(rescue, thread, note, FAILED);
            }
        }
        // The handler itself has crashed.
        Err(first) if first == thread => {}
        // Another thread has crashed, too: its request fails as well, and the first one sees to the rest.
        Err(_) => join_in(thread),
    }
    die_of(signal, code, thread);
}

/// Whether this is a child that the lambda has forked: the connections are not its own.
fn is_forked() -> bool {
    RESCUE.get().is_some_and(|rescue| rescue.pid != rustix::process::getpid().as_raw_nonzero().get())
}

/// Has the signal's default action taken, at once or when the handler has returned.
fn die_of(signal: i32, code: i32, thread: i32) {
    // SAFETY: zeros are a valid value of this plain struct, and mean the default action.
    let action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: the default action of a signal can always be taken.
    unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    if code <= 0 || signal == libc::SIGTRAP || (signal == libc::SIGBUS && code == libc::BUS_MCEERR_AO) {
        // Somebody has sent it, such as abort(), or the thread would go on behind what has caused it. What else has
        // caused it itself happens again after this handler, and a core dump then has the registers as they were.
        // SAFETY: zeros are a valid value of this plain struct.
        let mut set: libc::sigset_t = unsafe { mem::zeroed() };
        // SAFETY: the set is ours.
        unsafe { libc::sigemptyset(&raw mut set) };
        // SAFETY: the set is initialised.
        unsafe { libc::sigaddset(&raw mut set, signal) };
        // SAFETY: the set is initialised; the mask is this thread's own.
        unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut()) };
        let process = rustix::process::getpid().as_raw_nonzero().get();
        // SAFETY: a signal to the calling thread, which has its default action.
        unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
    }
}

/// The lambda has called `exit`, on this thread: no signal is raised, and the process ends when this returns.
pub fn on_exit() {
    let thread = this_thread();
    if FAULTED.compare_exchange(0, thread, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        && let Some(rescue) = RESCUE.get()
    {
        contain(rescue, thread, Note::new(thread), FAILED);
    }
}

/// A run on a server's thread doesn't end: its client is told 504, what else runs may end, and the process ends.
pub fn end_hung(thread: i32) -> ! {
    // The thread that sees to it is this one: if the one that hangs crashes now, it has to wait.
    if FAULTED.compare_exchange(0, this_thread(), Ordering::SeqCst, Ordering::SeqCst).is_err() {
        // It has crashed meanwhile.
        stand_still()
    }
    if let Some(rescue) = RESCUE.get() {
        contain(rescue, thread, Note::new(thread), OVERDUE);
    }
    // SAFETY: it ends the process, and none of its threads runs any more.
    unsafe { libc::_exit(1) }
}

/// A thread that has crashed while another one sees to it.
fn join_in(thread: i32) -> ! {
    while DYING.load(Ordering::SeqCst) != CRASHED {
        nap(LOOK);
    }
    if let Some(rescue) = RESCUE.get()
        && let Some((_, record)) = record_of(rescue, thread)
    {
        record.stick();
        // As in `contain`: without a barrier nothing is known of what the other threads do.
        let has_barrier = rescue.has_barrier && membarrier(MembarrierCommand::PrivateExpedited).is_ok();
        if has_barrier || record.is_server() {
            tell(rescue, record, FAILED);
        }
    }
    stand_still()
}

fn stand_still() -> ! {
    loop {
        nap(1_000_000_000);
    }
}

/// Saves what can be saved. `thread` is the one that has crashed, or hangs.
fn contain(rescue: &Rescue, thread: i32, mut note: Note, answer: Answer) {
    let begun = now();
    let record = record_of(rescue, thread);
    if let Some((_, record)) = record {
        note.is_in_run = record.is_in_run();
        note.generation = record.generation();
        (note.text, note.len) = record.text();
        record.stick();
    }
    DYING.store(CRASHED, Ordering::SeqCst);
    let has_barrier = rescue.has_barrier && membarrier(MembarrierCommand::PrivateExpedited).is_ok();
    if let Some((_, record)) = record
        && (has_barrier || record.is_server())
    {
        tell(rescue, record, answer);
    }
    let mut message = [0; 8 + Note::SIZE];
    message[0] = Kind::Fault as u8;
    message[8..].copy_from_slice(&note.bytes());
    post(rescue, &message);
    stop_accepting(rescue);
    if !has_barrier {
        // Nothing is known of what the other threads do.
        return;
    }
    sweep(rescue);
    let until = begun.saturating_add(u64::try_from(rescue.grace.as_nanos()).unwrap_or(u64::MAX));
    let mut is_told = false;
    loop {
        let n_busy = deposit(rescue, |state, _| state == state::CLEAN);
        if !is_told {
            let mut message = [0; 8];
            message[0] = Kind::Quiet as u8;
            post(rescue, &message);
            is_told = true;
        }
        if n_busy == 0 || now() >= until {
            break;
        }
        nap(LOOK);
    }
    sweep(rescue);
    // The supervisor tells the clients of what is left, and lets those who were told here read it.
    deposit(rescue, is_left);
    if thread == this_thread()
        && let Some(copy) = REQUEST_ID.get()
    {
        // Last of all: it reads more of this process's memory than the rest does, and may crash, too.
        let mut message = [0; 8 + MAX_ID];
        message[0] = Kind::RequestId as u8;
        let n = copy(&mut message[8..]).min(MAX_ID);
        post(rescue, &message[..8 + n]);
    }
}

/// Whether the supervisor has something to do for a connection that this process leaves.
fn is_left(state: u32, flags: u32) -> bool {
    match state {
        state::CLEAN | state::BUSY | state::ANSWERING | state::PARTIAL => true,
        state::OVER => flags & TOLD != 0,
        _ => false,
    }
}

fn record_of(rescue: &Rescue, thread: i32) -> Option<(usize, &Record)> {
    rescue.board.records().iter().enumerate().find(|(_, record)| record.thread() == thread)
}

/// Answers the client of the run that a thread is in, unless its answer has begun: then the connection breaks off. A
/// run may go on when its client has an answer or has left, and the connection has another request: that one is let be.
fn tell(rescue: &Rescue, record: &Record, answer: Answer) {
    let Some((descriptor, number)) = record.request().filter(|_| record.is_in_run()) else { return };
    let Some(entry) = rescue.board.entry(descriptor) else { return };
    let is_its_turn = || entry.request.load(Ordering::SeqCst) == number;
    if !is_its_turn() {
        return;
    }
    entry.flags.fetch_or(TOLD, Ordering::SeqCst);
    fence(Ordering::SeqCst);
    let state = entry.state.load(Ordering::SeqCst);
    if !is_its_turn() {
        // Another one's has come meanwhile.
        entry.flags.fetch_and(!TOLD, Ordering::SeqCst);
        return;
    }
    match state {
        state::BUSY => {
            let (head, body) = answer;
            send(descriptor, head);
            let (text, _) = record.text();
            if !text.starts_with(b"HEAD ") {
                send(descriptor, body);
            }
            // SAFETY: it touches no memory; whatever the number stands for.
            unsafe { libc::shutdown(descriptor, libc::SHUT_WR) };
        }
        state::ANSWERING => {
            // What has gone must not look whole.
            // SAFETY: zeros are a valid value of this plain struct, and mean no family.
            let nobody: libc::sockaddr = unsafe { mem::zeroed() };
            let size = mem::size_of::<libc::sockaddr>() as libc::socklen_t;
            // SAFETY: the address is valid for the call.
            if unsafe { libc::connect(descriptor, &raw const nobody, size) } != 0 {
                // It is a Unix socket's.
                // SAFETY: it touches no memory; whatever the number stands for.
                unsafe { libc::shutdown(descriptor, libc::SHUT_RDWR) };
            }
        }
        _ => return,
    }
    entry.state.store(state::OVER, Ordering::SeqCst);
}

fn send(descriptor: i32, text: &[u8]) {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the text is valid for the call.
    unsafe { libc::send(descriptor, text.as_ptr().cast(), text.len(), flags) };
}

/// Puts a socket that nobody connects to in the place of those that accept.
fn stop_accepting(rescue: &Rescue) {
    for Accepting { descriptor, .. } in ACCEPTING.get().into_iter().flatten() {
        // SAFETY: it touches no memory; the descriptor's owner, the thread that accepts, goes on with the other socket.
        unsafe { libc::dup2(rescue.deaf.as_raw_fd(), *descriptor) };
    }
}

/// Leaves copies of those connections with the supervisor that are wanted by their state and flags, and that it has not
/// yet. How many are busy with something that may still end.
pub(super) fn deposit(rescue: &Rescue, wanted: impl Fn(u32, u32) -> bool) -> usize {
    let mut outbox = Outbox::new();
    let (records, mut n_busy) = (rescue.board.records(), 0);
    for (descriptor, entry) in rescue.board.entries().iter().enumerate() {
        let state = entry.state.load(Ordering::SeqCst);
        let is_stuck = || {
            let owner = entry.owner.load(Ordering::Relaxed) as usize;
            records.get(owner).is_none_or(Record::is_stuck)
        };
        n_busy += usize::from([state::BUSY, state::ANSWERING].contains(&state) && !is_stuck());
        let flags = entry.flags.load(Ordering::SeqCst);
        if wanted(state, flags) && entry.flags.fetch_or(DEPOSITED, Ordering::SeqCst) & DEPOSITED == 0 {
            outbox.push(rescue, descriptor as i32, entry);
        }
    }
    outbox.flush(rescue);
    n_busy
}

/// Takes those connections that were accepted and that their thread has not been given yet. The thread that finds its
/// place taken leaves the connection alone.
fn sweep(rescue: &Rescue) {
    let Some(accepting) = ACCEPTING.get() else { return };
    let (mut outbox, mut n_others) = (Outbox::new(), 0);
    for descriptor in 3.. {
        let Some(entry) = rescue.board.entry(descriptor).filter(|_| n_others < 256) else { break };
        if entry.state.load(Ordering::SeqCst) != state::FREE {
            n_others = 0;
            continue;
        }
        n_others += 1;
        let is_ours = Name::of(descriptor, libc::getsockname).is_some_and(|name| {
            accepting.iter().filter_map(|one| one.name.as_ref()).any(|one| one.accepts(&name))
        });
        if !is_ours || Name::of(descriptor, libc::getpeername).is_none() {
            continue;
        }
        n_others = 0;
        let taken =
            entry.state.compare_exchange(state::FREE, state::SWEPT, Ordering::SeqCst, Ordering::SeqCst);
        if taken.is_ok() && rescue.board.use_entry(descriptor).is_some() {
            outbox.push(rescue, descriptor, entry);
        }
    }
    outbox.flush(rescue);
}

/// Connections on their way to the supervisor.
struct Outbox {
    pairs: [(i32, u32); MOST],
    n: usize,
}

impl Outbox {
    fn new() -> Outbox {
        Outbox { pairs: [(0, 0); MOST], n: 0 }
    }

    fn push(&mut self, rescue: &Rescue, descriptor: i32, entry: &Entry) {
        self.pairs[self.n] = (descriptor, entry.serial.load(Ordering::Relaxed));
        self.n += 1;
        if self.n == MOST {
            self.flush(rescue);
        }
    }

    fn flush(&mut self, rescue: &Rescue) {
        if self.n > 0 {
            let send = |pairs: &[(i32, u32)]| insist(|| escrow::send_copies(&rescue.escrow, pairs));
            // What can't be left is lost with this process.
            escrow::deposit(&self.pairs[..self.n], send, |_| {});
            self.n = 0;
        }
    }
}

/// Sends a message to the supervisor.
fn post(rescue: &Rescue, message: &[u8]) {
    let _ = insist(|| escrow::send_bytes(&rescue.escrow, message, &[]));
}

/// Tries to send for as long as that takes within reason.
fn insist(send: impl Fn() -> rustix::io::Result<()>) -> rustix::io::Result<()> {
    let until = now() + PATIENCE;
    loop {
        match send() {
            Err(err) if escrow::is_full(err) && now() < until => nap(LOOK),
            outcome => return outcome,
        }
    }
}

/// The name of a socket's end.
struct Name {
    bytes: [u8; 128],
    len: usize,
}

type GetName = unsafe extern "C" fn(i32, *mut libc::sockaddr, *mut libc::socklen_t) -> i32;

impl Name {
    /// `None` if there is no such socket, or it has no such end.
    fn of(descriptor: i32, get: GetName) -> Option<Name> {
        let mut bytes = [0; 128];
        let mut len = bytes.len() as libc::socklen_t;
        // SAFETY: it writes at most `len` bytes, and the length.
        let outcome = unsafe { get(descriptor, bytes.as_mut_ptr().cast(), &raw mut len) };
        (outcome == 0).then_some(Name { bytes, len: (len as usize).min(128) })
    }

    /// Whether a connection with this name may have been accepted by a socket with `self`: the port is the same, or the
    /// path. The address may be any of the machine's.
    fn accepts(&self, other: &Name) -> bool {
        let family = u16::from_ne_bytes([self.bytes[0], self.bytes[1]]);
        let n = if i32::from(family) == libc::AF_UNIX { self.len } else { 4 };
        other.len >= n && self.bytes[..n] == other.bytes[..n] && (n == 4 || other.len == n)
    }
}

/// Where a thread was when it crashed.
fn counter(context: *mut libc::c_void) -> u64 {
    let context = context.cast::<libc::ucontext_t>();
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the system hands over a valid one.
    let counter = unsafe { (*context).uc_mcontext.gregs[libc::REG_RIP as usize] };
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the system hands over a valid one.
    let counter = unsafe { (*context).uc_mcontext.pc };
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let counter = 0;
    counter as u64
}

fn this_thread() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

fn nap(nanos: i64) {
    let time = libc::timespec { tv_sec: nanos / 1_000_000_000, tv_nsec: nanos % 1_000_000_000 };
    // SAFETY: the time is valid for the call.
    unsafe { libc::nanosleep(&raw const time, ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_as_long_as_they_say() {
        for (head, body) in [FAILED, OVERDUE] {
            let head = std::str::from_utf8(head).unwrap();
            assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
            assert!(head.ends_with("\r\n\r\n"), "{head}");
        }
    }

    #[test]
    fn who_was_told_is_left_to_the_supervisor_too() {
        assert!(is_left(state::OVER, TOLD) && is_left(state::BUSY, 0));
        assert!(!is_left(state::OVER, 0) && !is_left(state::NEVER, TOLD) && !is_left(state::FREE, TOLD));
    }
}
