//! Load at a constant rate over HTTP/1.1: `load-open ADDRESS PATH CONNECTIONS SECONDS RATE`. A request is due at its
//! time, whatever became of those before it, and goes to the connection that has been idle longest, or to the next
//! one that becomes idle. Latencies count from when a request was due, so one that waits for a connection counts its
//! wait (coordinated omission). Prints what it counted as JSON; times are in microseconds.
//!
//! It looks at the clock and at its sockets without ever waiting, so it needs a CPU of its own. When it doesn't get it
//! for a moment, its clock stands still, and what was on its way isn't counted: that pause is no server's. `late` is by
//! how much it sent requests too late although a connection was idle: the rate is more than it can make.
#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::{
    collections::VecDeque,
    env,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use rustix::event::{Timespec, epoll};

/// Why there is nothing to count.
type Failed = Box<dyn std::error::Error>;

/// How many requests are sent, and how many answers are read, before it looks at the clock again.
const AT_ONCE: usize = 16;
/// What is longer than a turn of as many of both can take: somebody else had the CPU.
const PAUSE: Duration = Duration::from_micros(300);
const NO_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [address, path, connections, seconds, rate] = &arguments[..] else {
        return Err("usage: load-open ADDRESS PATH CONNECTIONS SECONDS RATE".into());
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes();
    let connections =
        (0..connections.parse()?).map(|_| Connection::open(address)).collect::<Result<Vec<_>, _>>()?;
    let schedule = Schedule { rate: rate.parse()?, n: rate.parse::<u64>()? * seconds.parse::<u64>()? };
    let mut counted = load(connections, &request, &schedule)?;
    let seconds = counted.time.as_secs_f64();
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|part| micros_at(&mut counted.latencies, part));
    let late = micros_at(&mut counted.late, 0.99);
    let (requests, paused) = (counted.n_answers, counted.paused.as_secs_f64());
    println!(
        "{{\"requests\":{requests},\"seconds\":{seconds},\"p50\":{p50},\"p99\":{p99},\"p999\":{p999},\
         \"late\":{late},\"paused\":{},\"failed\":0}}",
        paused / (seconds + paused)
    );
    Ok(())
}

/// When requests are due.
struct Schedule {
    rate: u64,
    n: u64,
}

impl Schedule {
    /// When a request is due, from the beginning on; `None` after the last one.
    fn due(&self, number: u64) -> Option<Duration> {
        let nanos = u128::from(number) * 1_000_000_000 / u128::from(self.rate);
        (number < self.n).then(|| Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }
}

/// What a run has measured.
#[derive(Default)]
struct Counted {
    time: Duration,
    latencies: Vec<Duration>,
    late: Vec<Duration>,
    n_answers: u64,
    paused: Duration,
}

fn micros_at(times: &mut [Duration], part: f64) -> f64 {
    times.sort_unstable();
    let at = times.get((times.len() as f64 * part) as usize);
    at.map_or(0.0, |time| time.as_nanos() as f64 / 1e3)
}

fn load(mut connections: Vec<Connection>, request: &[u8], schedule: &Schedule) -> Result<Counted, Failed> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (connection, number) in connections.iter().zip(0..) {
        epoll::add(&poll, &connection.socket, epoll::EventData::new_u64(number), epoll::EventFlags::IN)?;
    }
    let mut idle: VecDeque<usize> = (0..connections.len()).collect();
    let mut counted = Counted::default();
    let mut events = Vec::with_capacity(AT_ONCE);
    // Those of this turn, of which it isn't known yet whether there was a pause among them.
    let (mut latencies, mut late) = (Vec::new(), Vec::new());
    let (mut n_sent, mut is_waiting) = (0, false);
    let begun = Instant::now();
    let mut looked = Duration::ZERO;
    while counted.n_answers < schedule.n {
        let time = begun.elapsed();
        if time - looked > PAUSE {
            counted.paused += time - looked;
            connections.iter_mut().for_each(|connection| connection.is_counted = false);
        } else {
            counted.latencies.append(&mut latencies);
            counted.late.append(&mut late);
        }
        latencies.clear();
        late.clear();
        looked = time;
        for _ in 0..AT_ONCE {
            let now = begun.elapsed() - counted.paused;
            let Some(due) = schedule.due(n_sent).filter(|due| *due <= now) else {
                is_waiting = false;
                break;
            };
            let Some(one) = idle.pop_front() else {
                is_waiting = true;
                break;
            };
            connections[one].ask(request, due)?;
            n_sent += 1;
            if !is_waiting {
                late.push(now - due);
            }
        }
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&NO_WAIT))?;
        for event in &events {
            let one = usize::try_from(event.data.u64())?;
            let connection = &mut connections[one];
            if connection.has_answer()? {
                counted.n_answers += 1;
                idle.push_back(one);
                if connection.is_counted {
                    latencies.push(begun.elapsed() - counted.paused - connection.due);
                }
            }
        }
    }
    counted.time = begun.elapsed() - counted.paused;
    Ok(counted)
}

struct Connection {
    socket: TcpStream,
    /// When the request was due that is on its way.
    due: Duration,
    /// Whether there has been no pause since then.
    is_counted: bool,
    /// What has come of its answer.
    heard: Vec<u8>,
}

impl Connection {
    fn open(address: &str) -> Result<Connection, Failed> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(Connection { socket, due: Duration::ZERO, is_counted: true, heard: Vec::new() })
    }

    fn ask(&mut self, request: &[u8], due: Duration) -> Result<(), Failed> {
        (self.due, self.is_counted) = (due, true);
        // It is short, and nothing else is in the socket's buffer.
        if self.socket.write(request)? < request.len() {
            return Err("the socket takes no whole request".into());
        }
        Ok(())
    }

    /// Whether the answer is complete now.
    fn has_answer(&mut self) -> Result<bool, Failed> {
        let mut piece = [0; 4096];
        match self.socket.read(&mut piece) {
            Ok(0) => return Err("the server closed a connection".into()),
            Ok(n) => self.heard.extend_from_slice(&piece[..n]),
            Err(err) if err.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(err) => return Err(err.into()),
        }
        let is_whole = is_whole(&self.heard)?;
        if is_whole {
            self.heard.clear();
        }
        Ok(is_whole)
    }
}

/// Whether an answer is complete. It must be 200, and have a Content-Length.
fn is_whole(answer: &[u8]) -> Result<bool, Failed> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(false) };
    let head = str::from_utf8(&answer[..end])?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(format!("not the right answer: {head}").into());
    }
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    let (_, length) = fields
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .ok_or("an answer without Content-Length")?;
    Ok(answer.len() >= end + 4 + length.parse::<usize>()?)
}
