//! `invoke`: sends a request once or several times. Only the body of the answer goes to stdout, and as it comes.
//!
//! [`request`] makes the request, [`client`] sends it; this file shows the answer and counts.

mod client;
mod request;

use std::{
    collections::BTreeMap,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use hyper::{HeaderMap, Request, Response, StatusCode};
use serde_json::{Map, Value, json};

use self::{
    client::{Client, Receiver},
    request::Server,
};
use crate::{
    cli::{InvokeArgs, Output},
    serving::{RunningLoader, STOP_TIMEOUT},
    shell::Shell,
    usage::Usage,
};

/// How long a loader may take to stop after a call that failed: the lambda may hang.
const SHORT_STOP: Duration = Duration::from_secs(2);
/// How long a call of [`Caller`] may take: longer than the loader's own `--run-timeout`.
const INVOKE_TIMEOUT: Duration = Duration::from_secs(70);

/// Sends the request.
///
/// # Errors
/// The lambda can't be compiled or served, there is no answer, or the flags are wrong.
pub(crate) fn run(args: &InvokeArgs, shell: &mut Shell) -> Result<ExitCode> {
    if args.callee.contains("://") {
        let (server, rest) = Server::of(&args.callee)?;
        if !args.loader_args.is_empty() {
            let text =
                "flags after `--` are for a loader that this command starts; a URL has its loader already";
            return Err(Usage(text.to_owned()).into());
        }
        let request = request::make(args, rest, shell)?;
        return send_all(args, &server, request, shell);
    }
    if let Some(url) = request::meant_url(&args.callee) {
        return Err(Usage(format!("there is no file {}; to call a server, write {url}", args.callee)).into());
    }
    let request = request::make(args, "", shell)?;
    let artifact = super::artifact(args.callee.as_ref(), &args.build, shell)?;
    let serving = RunningLoader::start(&artifact, &args.loader_args, shell)?;
    let url = format!("http://{}", serving.address());
    let code = Server::of(&url).and_then(|(server, _)| send_all(args, &server, request, shell));
    let stopped = serving.stop(if code.is_ok() { STOP_TIMEOUT } else { SHORT_STOP }, shell);
    let code = code?;
    stopped.map(|()| code)
}

/// Sends the request `--repeat` times over one connection, shows the last answer, and judges all.
fn send_all(
    args: &InvokeArgs,
    server: &Server,
    mut request: Request<Bytes>,
    shell: &mut Shell,
) -> Result<ExitCode> {
    server.address(&mut request)?;
    let mut client = Client::new(server.clone(), Duration::from_secs(args.timeout))?;
    let n_calls = args.repeat.get();
    let mut tally = Tally::default();
    for call in 1..=n_calls {
        let output = (call == n_calls).then_some(args.output);
        let mut answer = Answer { output, shell, head: Response::default(), body: Vec::new() };
        let began = Instant::now();
        let called = client.call(&request, &mut answer);
        let time = began.elapsed();
        match n_calls {
            1 => called?,
            _ => called.with_context(|| format!("call {call} of {n_calls}"))?,
        }
        tally.add(answer.head.status(), time);
        if call == n_calls {
            let Answer { head, body, .. } = answer;
            match args.output {
                Output::Body => tally.show(shell),
                Output::Json => shell.result(format!("{}\n", as_json(&head, &body, &tally)).as_bytes())?,
            }
        }
    }
    let n_failed = tally.n_failed();
    if !args.raise_on_status || n_failed == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    match n_calls {
        1 => shell.error(format_args!("the status is {}", tally.statuses())),
        _ => shell.error(format_args!(
            "{n_failed} of {n_calls} answers have a status of 400 or above: {}",
            tally.statuses()
        )),
    }
    Ok(ExitCode::FAILURE)
}

/// Calls one path of a loader again and again, over one connection, and drops what it answers.
pub(crate) struct Caller {
    client: Client,
    request: Request<Bytes>,
}

impl Caller {
    /// # Errors
    /// The path is none.
    pub(crate) fn new(address: &str, path: &str) -> Result<Caller> {
        let server = Server::of(&format!("http://{address}")).map(|(server, _)| server)?;
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = request::target("", Some(path))?;
        server.address(&mut request)?;
        Ok(Caller { client: Client::new(server, INVOKE_TIMEOUT)?, request })
    }

    /// # Errors
    /// There is no answer, or not all of it.
    pub(crate) fn call(&mut self) -> Result<()> {
        self.client.call(&self.request, &mut Nobody)
    }
}

/// Takes an answer, and drops it.
struct Nobody;

impl Receiver for Nobody {
    fn head(&mut self, _: Response<()>) -> Result<()> {
        Ok(())
    }

    fn piece(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// An answer, while it comes.
struct Answer<'a> {
    /// How it is shown; if not at all, its body is dropped.
    output: Option<Output>,
    shell: &'a mut Shell,
    head: Response<()>,
    /// The body for JSON. A body that is shown as it comes isn't kept.
    body: Vec<u8>,
}

impl Receiver for Answer<'_> {
    fn head(&mut self, head: Response<()>) -> Result<()> {
        if self.output == Some(Output::Body) {
            self.shell.detail(format_args!("{:?} {}", head.version(), head.status()));
            for (name, value) in head.headers() {
                self.shell.detail(format_args!("{name}: {}", String::from_utf8_lossy(value.as_bytes())));
            }
            self.shell.detail("");
        }
        self.head = head;
        Ok(())
    }

    fn piece(&mut self, piece: &[u8]) -> Result<()> {
        match self.output {
            Some(Output::Body) => self.shell.result(piece)?,
            Some(Output::Json) => self.body.extend_from_slice(piece),
            None => {}
        }
        Ok(())
    }
}

fn as_json(head: &Response<()>, body: &[u8], tally: &Tally) -> Value {
    let timings = Timings::of(&tally.times);
    let headers = headers(head.headers());
    let mut value = json!({"status": head.status().as_u16(), "headers": headers, "time_ms": timings.median});
    match std::str::from_utf8(body) {
        Ok(text) => value["body"] = text.into(),
        Err(_) => value["body_base64"] = BASE64_STANDARD.encode(body).into(),
    }
    if tally.times.len() > 1 {
        value["times"] = json!({
            "n": tally.times.len(), "min_ms": timings.min, "median_ms": timings.median, "p99_ms": timings.p99,
        });
        let statuses = tally.statuses.iter().map(|(status, n)| (status.as_str().to_owned(), (*n).into()));
        value["statuses"] = Value::Object(statuses.collect());
    }
    value
}

/// The headers as JSON; a name that occurs more than once has a list of values.
fn headers(headers: &HeaderMap) -> Map<String, Value> {
    let mut map = Map::new();
    for name in headers.keys() {
        let values = headers.get_all(name).iter();
        let mut values: Vec<Value> =
            values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned().into()).collect();
        let value = if values.len() == 1 { values.remove(0) } else { values.into() };
        map.insert(name.to_string(), value);
    }
    map
}

/// What came of all calls.
#[derive(Default)]
struct Tally {
    times: Vec<Duration>,
    /// How many answers had each status.
    statuses: BTreeMap<StatusCode, usize>,
}

impl Tally {
    fn add(&mut self, status: StatusCode, time: Duration) {
        self.times.push(time);
        *self.statuses.entry(status).or_default() += 1;
    }

    fn n_failed(&self) -> usize {
        self.statuses.iter().filter(|(status, _)| status.as_u16() >= 400).map(|(_, n)| n).sum()
    }

    /// How often there was which status, such as `200 OK (7), 404 Not Found (3)`.
    fn statuses(&self) -> String {
        let statuses = self.statuses.iter().map(|(status, n)| match self.times.len() {
            1 => status.to_string(),
            _ => format!("{status} ({n})"),
        });
        statuses.collect::<Vec<_>>().join(", ")
    }

    fn show(&self, shell: &mut Shell) {
        let timings = Timings::of(&self.times);
        shell.detail("");
        match self.times.len() {
            1 => shell.detail(format_args!("in {:.3} ms", timings.median)),
            n => shell.detail(format_args!(
                "{n} times: min {:.3} ms, median {:.3} ms, p99 {:.3} ms; {}",
                timings.min,
                timings.median,
                timings.p99,
                self.statuses()
            )),
        }
    }
}

/// The least, the median and the 99th percentile of times, in milliseconds.
struct Timings {
    min: f64,
    median: f64,
    p99: f64,
}

impl Timings {
    fn of(times: &[Duration]) -> Timings {
        let mut times: Vec<_> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        times.sort_by(f64::total_cmp);
        // The nearest rank: one of the measured times, not a mean of two.
        let at = |part: f64| {
            let rank = (part * times.len() as f64).ceil() as usize;
            times.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
        };
        Timings { min: at(0.0), median: at(0.5), p99: at(0.99) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_of_times_that_were_measured() {
        let times: Vec<_> = (1..=200).rev().map(Duration::from_millis).collect();
        let timings = Timings::of(&times);
        assert_eq!((timings.min, timings.median, timings.p99), (1.0, 100.0, 198.0));
        let timings = Timings::of(&[Duration::from_millis(7)]);
        assert_eq!((timings.min, timings.median, timings.p99), (7.0, 7.0, 7.0));
    }
}
