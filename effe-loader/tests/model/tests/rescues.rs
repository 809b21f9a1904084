//! A connection, its thread, and a rescue, in whatever order they come: each request is answered by one of them, by the
//! process that takes the connection over, or its client is told; and never by two.

mod support;

use std::{fs::File, os::fd::AsFd};

use model::rescue::{
    entry::{DEPOSITED, TOLD, state},
    global::{CRASHED, LEAVING, Rescue, get},
    slot::Slot,
};
use shuttle::{
    sync::{
        Arc, Mutex,
        atomic::{Ordering, fence},
    },
    thread,
};

use self::support::under_all_orders;

/// What the client of one connection has sent, and what has become of it.
#[derive(Default)]
struct Client {
    /// Requests in the system's buffer, by number.
    sent: Vec<u32>,
    /// Who has answered each: "run", "adopted", or "told".
    answers: Vec<(u32, &'static str)>,
    /// Requests whose answers were broken off.
    broken: Vec<u32>,
    /// The request that has been read and not answered.
    read: Option<u32>,
    is_adopted: bool,
}

struct World {
    rescue: &'static Rescue,
    client: Mutex<Client>,
    /// The serials that the supervisor has a copy of.
    held: Mutex<Vec<u32>>,
}

impl World {
    fn new(n_requests: u32) -> Arc<World> {
        let client = Client { sent: (1..=n_requests).collect(), ..Client::default() };
        let (client, held) = (Mutex::new(client), Mutex::default());
        Arc::new(World { rescue: get().expect("there is one"), client, held })
    }

    /// The thread of the connection: what `http/h1.rs` does, until a rescue keeps it from reading, or nothing comes.
    /// The connection stays open, as it does there. `leaves_copy` is whether it leaves a copy before.
    fn serve(&self, socket: &File, leaves_copy: bool) {
        let slot = Slot::default();
        assert!(slot.open(socket.as_fd()), "nobody sweeps here");
        if leaves_copy && let Some((_, serial)) = slot.deposit() {
            self.held.lock().unwrap().push(serial);
        }
        while slot.may_read(true) {
            let request = {
                let mut client = self.client.lock().unwrap();
                assert!(!client.is_adopted, "another process reads from it, too");
                let request = (!client.sent.is_empty()).then(|| client.sent.remove(0));
                client.read = request;
                request
            };
            let Some(request) = request else {
                // The client has no more to ask, and stays.
                return slot.rest(true);
            };
            slot.begin();
            thread::yield_now();
            if !slot.may_answer() {
                return;
            }
            let mut client = self.client.lock().unwrap();
            client.read = None;
            client.answers.push((request, "run"));
        }
    }

    /// What `fault::deposit` does for connections at rest.
    fn deposit_clean(&self) {
        let entry = &self.rescue.board.entry;
        if entry.state.load(Ordering::SeqCst) == state::CLEAN
            && entry.flags.fetch_or(DEPOSITED, Ordering::SeqCst) & DEPOSITED == 0
        {
            self.held.lock().unwrap().push(entry.serial.load(Ordering::Relaxed));
        }
    }

    /// The supervisor's `Escrow::take_clean`, and the process that gets what it takes.
    fn take_clean(&self) {
        let entry = &self.rescue.board.entry;
        let mut held = self.held.lock().unwrap();
        let is_clean = |serial: u32| {
            entry.serial.load(Ordering::Acquire) == serial
                && entry.state.load(Ordering::Acquire) == state::CLEAN
        };
        if let Some(at) = held.iter().position(|serial| is_clean(*serial)) {
            held.remove(at);
            drop(held);
            self.adopt();
        }
    }

    fn adopt(&self) {
        let mut client = self.client.lock().unwrap();
        assert!(!client.is_adopted, "it is adopted once");
        client.is_adopted = true;
        assert_eq!(client.read, None, "nothing has been read of it");
        let sent = std::mem::take(&mut client.sent);
        client.answers.extend(sent.into_iter().map(|request| (request, "adopted")));
    }

    /// Each request has one answer, or was broken off.
    fn assert_all_answered(&self, n_requests: u32) {
        let client = self.client.lock().unwrap();
        let mut all: Vec<u32> = client.answers.iter().map(|(request, _)| *request).collect();
        all.extend(&client.broken);
        all.sort_unstable();
        assert_eq!(all, (1..=n_requests).collect::<Vec<_>>(), "{:?}, {:?}", client.answers, client.broken);
    }
}

fn null() -> File {
    File::open("/dev/null").expect("it is there")
}

/// A process hands over: every request is answered, by its thread or by the process that gets the connection.
fn handing_over_loses_nothing(leaves_copy: bool) {
    let world = World::new(2);
    let serves = thread::spawn({
        let world = Arc::clone(&world);
        move || world.serve(&null(), leaves_copy)
    });
    world.rescue.dying.compare_exchange(0, LEAVING, Ordering::SeqCst, Ordering::SeqCst).unwrap();
    for _ in 0..2 {
        world.deposit_clean();
        world.take_clean();
        thread::yield_now();
    }
    serves.join().unwrap();
    world.deposit_clean();
    world.take_clean();
    assert!(world.client.lock().unwrap().is_adopted);
    world.assert_all_answered(2);
}

#[test]
fn a_connection_that_is_handed_over_is_served_by_one_process() {
    for leaves_copy in [false, true] {
        under_all_orders(move || handing_over_loses_nothing(leaves_copy));
    }
}

/// A fault elsewhere in the process, or in this very run: what is read is answered, told of or broken off.
fn a_crash_loses_nothing(leaves_copy: bool, in_this_run: bool) {
    let world = World::new(2);
    let serves = thread::spawn({
        let world = Arc::clone(&world);
        move || world.serve(&null(), leaves_copy)
    });
    world.rescue.dying.store(CRASHED, Ordering::SeqCst);
    let entry = &world.rescue.board.entry;
    if in_this_run {
        // As `fault::tell`.
        entry.flags.fetch_or(TOLD, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let state = entry.state.load(Ordering::SeqCst);
        let mut client = world.client.lock().unwrap();
        match (state, client.read) {
            (state::BUSY, Some(request)) => {
                client.answers.push((request, "told"));
                drop(client);
            }
            _ => {
                drop(client);
                entry.flags.fetch_and(!TOLD, Ordering::SeqCst);
            }
        }
    }
    world.deposit_clean();
    world.take_clean();
    serves.join().unwrap();
    // The process is dead: as `Escrow::settle`.
    world.deposit_clean();
    world.take_clean();
    let is_told = entry.flags.load(Ordering::SeqCst) & TOLD != 0;
    let mut client = world.client.lock().unwrap();
    if let Some(request) = client.read.take()
        && !client.answers.iter().any(|(answered, _)| *answered == request)
    {
        assert!(in_this_run && !is_told, "nobody has told of {request}");
        client.broken.push(request);
    }
    let n_left = client.sent.len();
    let (answers, is_adopted) = (client.answers.clone(), client.is_adopted);
    drop(client);
    let mut numbers: Vec<u32> = answers.iter().map(|(request, _)| *request).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), answers.len(), "one answer for each: {answers:?}");
    let was_told = answers.iter().any(|(_, who)| *who == "told");
    assert!(n_left == 0 || (in_this_run && !is_adopted) || was_told, "{n_left} were left, and {answers:?}");
}

#[test]
fn a_crash_costs_a_connection_nothing_but_the_run_that_crashes() {
    for leaves_copy in [false, true] {
        for in_this_run in [false, true] {
            under_all_orders(move || a_crash_loses_nothing(leaves_copy, in_this_run));
        }
    }
}
