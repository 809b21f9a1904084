//! Lambda's Runtime API as a mock that does what a test tells it to, and misbehaves if that is what it is told.

use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

use super::{LONG, Loader};

/// The mock. Its threads end with the test's process.
pub struct RuntimeApi {
    address: SocketAddr,
    shared: Arc<Shared>,
    n_ids: AtomicUsize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Default)]
struct State {
    turns: VecDeque<Turn>,
    /// What happens to the next results; they are taken if nothing is said.
    receptions: VecDeque<Reception>,
    posted: Vec<Posted>,
    n_waiting: usize,
    n_asked: usize,
}

/// What comes of asking for an invocation.
#[derive(Clone, Debug)]
pub enum Turn {
    /// There is one.
    Invoke(Invoke),
    /// A status without one.
    Status(u16),
    /// The connection is reset.
    Reset,
    /// The head of an answer breaks off.
    BreakHead,
    /// The event breaks off.
    BreakEvent(Invoke),
    /// The rest of the event never comes.
    HangEvent(Invoke),
    /// No HTTP at all.
    Rubbish,
}

/// An invocation.
#[derive(Clone, Debug)]
pub struct Invoke {
    /// Its id.
    pub id: String,
    /// Its event.
    pub event: Vec<u8>,
    /// How long it may take.
    pub left: Duration,
    /// How long before that its time was over, if it was.
    pub before: Duration,
}

impl Invoke {
    /// Something else under another id.
    pub fn new(id: &str, event: impl Into<Vec<u8>>) -> Invoke {
        Invoke { id: id.to_owned(), event: event.into(), left: LONG, before: Duration::ZERO }
    }
}

/// Names and values.
type Fields = Vec<(String, String)>;

/// What becomes of a result.
#[derive(Clone, Copy, Debug)]
pub enum Reception {
    /// It is not taken, with a status.
    Status(u16),
    /// The connection is reset once it is here.
    Reset,
    /// No answer comes.
    Hang,
}

/// A result that was taken, or an error.
#[derive(Clone, Debug)]
pub struct Posted {
    /// `/2018-06-01/runtime/invocation/ID/response`
    pub path: String,
    /// Names in lower case; trailers come last.
    pub headers: Fields,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Posted {
    /// The first header of a name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|err| panic!("{err}: {self:?}"))
    }

    /// The type of an error; `None` for a result.
    pub fn error_type(&self) -> Option<&str> {
        self.path.ends_with("/error").then(|| self.header("lambda-runtime-function-error-type").unwrap_or(""))
    }
}

impl RuntimeApi {
    /// Begins to answer.
    pub fn start() -> RuntimeApi {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, shared) = (listener.local_addr().unwrap(), Arc::<Shared>::default());
        thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for stream in listener.incoming().flatten() {
                    let shared = Arc::clone(&shared);
                    // A client that leaves is no failure of the mock's.
                    thread::spawn(move || shared.serve(stream));
                }
            }
        });
        RuntimeApi { address, shared, n_ids: AtomicUsize::new(0) }
    }

    /// `HOST:PORT`
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A loader that is the function of this API.
    pub fn loader(&self, plugin: &Path) -> Loader {
        Loader::bare()
            .env("AWS_LAMBDA_RUNTIME_API", self.address.to_string())
            .env("LAMBDA_TASK_ROOT", plugin.parent().unwrap())
            .env("_HANDLER", plugin.file_name().unwrap())
    }

    /// Says what happens next.
    pub fn turn(&self, turn: Turn) {
        self.state().turns.push_back(turn);
        self.shared.more.notify_all();
    }

    /// Says what becomes of the next result.
    pub fn receive(&self, reception: Reception) {
        self.state().receptions.push_back(reception);
    }

    /// Hands out an event; the id of its invocation.
    pub fn invoke(&self, event: impl Into<Vec<u8>>) -> String {
        let id = format!("id-{}", self.n_ids.fetch_add(1, Ordering::Relaxed));
        self.turn(Turn::Invoke(Invoke::new(&id, event)));
        id
    }

    /// What comes of an event.
    #[track_caller]
    pub fn call(&self, event: &Value) -> Posted {
        let id = self.invoke(serde_json::to_vec(event).unwrap());
        self.result(&id)
    }

    /// Waits for what comes of an invocation.
    #[track_caller]
    pub fn result(&self, id: &str) -> Posted {
        self.posted(&format!("/invocation/{id}/"))
    }

    /// Waits until something was posted to a path with this part.
    #[track_caller]
    pub fn posted(&self, part: &str) -> Posted {
        let find = |state: &State| state.posted.iter().find(|posted| posted.path.contains(part)).cloned();
        let waits = |state: &mut State| find(state).is_none();
        let (state, _) = self.shared.more.wait_timeout_while(self.state(), LONG, waits).unwrap();
        find(&state).unwrap_or_else(|| panic!("nothing came for {part}, but {:?}", state.posted))
    }

    /// All that was taken so far.
    pub fn all_posted(&self) -> Vec<Posted> {
        self.state().posted.clone()
    }

    /// Waits until so many pollers wait for an invocation.
    #[track_caller]
    pub fn wait_for_pollers(&self, n: usize) {
        let waits = |state: &mut State| state.n_waiting < n;
        let (state, _) = self.shared.more.wait_timeout_while(self.state(), LONG, waits).unwrap();
        assert!(state.n_waiting >= n, "{} pollers wait", state.n_waiting);
    }

    /// How often an invocation was asked for.
    pub fn n_asked(&self) -> usize {
        self.state().n_asked
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let line = line(&mut reader)?;
            let mut words = line.split(' ');
            let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or("").to_owned());
            let (headers, body) = rest(&mut reader)?;
            let stream = reader.get_mut();
            if method == "GET" {
                assert!(path.ends_with("/2018-06-01/runtime/invocation/next"), "{path}");
                if !self.next(stream)? {
                    return Ok(());
                }
                continue;
            }
            let reception = self.state.lock().unwrap().receptions.pop_front();
            match reception {
                None => {
                    let mut state = self.state.lock().unwrap();
                    state.posted.push(Posted { path, headers, body });
                    drop(state);
                    self.more.notify_all();
                    stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}")?;
                }
                Some(Reception::Status(status)) => {
                    let answer = format!("HTTP/1.1 {status} No\r\nContent-Length: 2\r\n\r\n{{}}");
                    stream.write_all(answer.as_bytes())?;
                }
                Some(Reception::Reset) => return Ok(()),
                Some(Reception::Hang) => {
                    stream.read_exact(&mut [0])?;
                }
            }
        }
    }

    /// Waits for a turn, and takes it; whether the connection goes on.
    fn next(&self, stream: &mut TcpStream) -> io::Result<bool> {
        let mut state = self.state.lock().unwrap();
        state.n_waiting += 1;
        state.n_asked += 1;
        self.more.notify_all();
        let mut state = self.more.wait_while(state, |state| state.turns.is_empty()).unwrap();
        let turn = state.turns.pop_front().unwrap();
        state.n_waiting -= 1;
        drop(state);
        match turn {
            Turn::Invoke(invoke) => {
                stream.write_all(&[head(&invoke).as_bytes(), &invoke.event].concat())?;
                return Ok(true);
            }
            Turn::Status(status) => {
                let answer = format!("HTTP/1.1 {status} No\r\nContent-Length: 2\r\n\r\n{{}}");
                stream.write_all(answer.as_bytes())?;
                return Ok(true);
            }
            Turn::Reset => {}
            Turn::BreakHead => stream.write_all(b"HTTP/1.1 200 OK\r\nLambda-Run")?,
            Turn::BreakEvent(invoke) => {
                let half = &invoke.event[..invoke.event.len() / 2];
                stream.write_all(&[head(&invoke).as_bytes(), half].concat())?;
            }
            Turn::HangEvent(invoke) => {
                let half = &invoke.event[..invoke.event.len() / 2];
                stream.write_all(&[head(&invoke).as_bytes(), half].concat())?;
                stream.read_exact(&mut [0])?;
            }
            Turn::Rubbish => stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")?,
        }
        Ok(false)
    }
}

fn head(invoke: &Invoke) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let deadline = (now + invoke.left - invoke.before).as_millis();
    let (id, length) = (&invoke.id, invoke.event.len());
    format!(
        "HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: {id}\r\nLambda-Runtime-Deadline-Ms: {deadline}\r\n\
         Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:eu-west-1:123456789012:function:f\r\n\
         Lambda-Runtime-Trace-Id: Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700\r\n\
         Lambda-Runtime-Client-Context: {{\"custom\":{{}}}}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    )
}

/// Headers, body and trailers of a request.
fn rest(reader: &mut BufReader<TcpStream>) -> io::Result<(Fields, Vec<u8>)> {
    let mut headers = fields(reader)?;
    let header =
        |name: &str| headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
    let mut body = Vec::new();
    if header("transfer-encoding") == Some("chunked") {
        loop {
            let size = usize::from_str_radix(&line(reader)?, 16).map_err(io::Error::other)?;
            if size == 0 {
                headers.extend(fields(reader)?);
                return Ok((headers, body));
            }
            let begin = body.len();
            body.resize(begin + size, 0);
            reader.read_exact(&mut body[begin..])?;
            line(reader)?;
        }
    }
    body.resize(header("content-length").map_or(0, |length| length.parse().unwrap()), 0);
    reader.read_exact(&mut body)?;
    Ok((headers, body))
}

fn fields(reader: &mut BufReader<TcpStream>) -> io::Result<Fields> {
    let mut fields = Vec::new();
    loop {
        let line = line(reader)?;
        let Some((name, value)) = line.split_once(':') else { return Ok(fields) };
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn line(reader: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}
