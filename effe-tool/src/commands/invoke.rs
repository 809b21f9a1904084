//! `invoke`: sends a request once or several times. Only the body of the answer goes to stdout.

use std::{
    fs,
    io::{self, Read},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};
use ureq::{
    Agent,
    http::{Request, Response},
};

use crate::{cli::InvokeArgs, serving::RunningLoader, shell::Shell, usage::Usage};

/// A response with its whole body.
struct Answer {
    head: Response<()>,
    body: Vec<u8>,
}

/// Sends the request.
///
/// # Errors
/// The lambda can't be compiled or served, there is no answer, or the flags are wrong.
pub(crate) fn run(args: &InvokeArgs, shell: &mut Shell) -> Result<ExitCode> {
    let (serving, base) = if args.callee.starts_with("http://") {
        if !args.loader_args.is_empty() {
            return Err(Usage(
                "flags after `--` are for a loader that this command starts; a URL has its loader already"
                    .to_owned(),
            )
            .into());
        }
        (None, args.callee.clone())
    } else if args.callee.contains("://") {
        let text = format!(
            "{}: only http:// is supported; TLS is left to a proxy in front of the loader",
            args.callee
        );
        return Err(Usage(text).into());
    } else {
        let artifact = super::artifact(args.callee.as_ref(), &args.build, shell)?;
        let serving = RunningLoader::start(&artifact, &args.loader_args, shell)?;
        let base = format!("http://{}", serving.address());
        (Some(serving), base)
    };
    let outcome = request(args, &base).and_then(|request| send_all(args, &request));
    if let Some(serving) = serving {
        serving.stop(shell)?;
    }
    let (answer, times) = outcome?;
    show(args, &answer, &times, shell)?;
    let raises = args.raise_on_status && answer.head.status().as_u16() >= 400;
    Ok(if raises { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn request(args: &InvokeArgs, base: &str) -> Result<Request<Vec<u8>>> {
    let body = match args.data.as_deref() {
        None => Vec::new(),
        Some("-") => {
            let mut body = Vec::new();
            io::stdin().read_to_end(&mut body).context("cannot read standard input")?;
            body
        }
        Some(data) => match data.strip_prefix('@') {
            Some(path) => fs::read(path).with_context(|| format!("cannot read {path}"))?,
            None => data.as_bytes().to_vec(),
        },
    };
    let path = args.path.as_deref().unwrap_or(if base.splitn(4, '/').nth(3).is_some() { "" } else { "/" });
    let slash = if path.is_empty() || path.starts_with(['/', '?']) { "" } else { "/" };
    let base = if path.is_empty() { base } else { base.trim_end_matches('/') };
    let url = format!("{base}{slash}{path}");
    let method = args.method.as_deref().unwrap_or(if args.data.is_some() { "POST" } else { "GET" });
    let mut request = Request::builder().method(method).uri(&url);
    for header in &args.headers {
        let Some((name, value)) = header.split_once(':') else {
            return Err(Usage(format!("--header {header:?}: write it as 'name: value'")).into());
        };
        request = request.header(name.trim(), value.trim());
    }
    let usage = |err| Usage(format!("{method} {url}: {err}; write what is no letter as %20 and the like"));
    request.body(body).map_err(|err| usage(err).into())
}

/// Sends the request `--repeat` times over one connection. Returns the last answer and all times.
fn send_all(args: &InvokeArgs, request: &Request<Vec<u8>>) -> Result<(Answer, Vec<Duration>)> {
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .allow_non_standard_methods(true)
        .timeout_global(Some(Duration::from_secs(args.timeout)))
        .user_agent(concat!("effe-tool/", env!("CARGO_PKG_VERSION")))
        .proxy(None)
        .build()
        .into();
    let mut times = Vec::new();
    let mut last = None;
    for _ in 0..args.repeat.get() {
        let began = Instant::now();
        let answer = send(&agent, request).with_context(|| format!("no answer from {}", request.uri()))?;
        times.push(began.elapsed());
        last = Some(answer);
    }
    match last {
        Some(answer) => Ok((answer, times)),
        None => bail!("nothing was sent"),
    }
}

fn send(agent: &Agent, request: &Request<Vec<u8>>) -> Result<Answer> {
    let (head, body) = request.clone().into_parts();
    let answer = if body.is_empty() {
        agent.run(Request::from_parts(head, ()))?
    } else {
        let request = agent.configure_request(Request::from_parts(head, body));
        agent.run(request.build())?
    };
    let (head, mut body) = answer.into_parts();
    let body = body.with_config().limit(u64::MAX).read_to_vec()?;
    Ok(Answer { head: Response::from_parts(head, ()), body })
}

fn show(args: &InvokeArgs, answer: &Answer, times: &[Duration], shell: &mut Shell) -> Result<()> {
    let status = answer.head.status();
    let timings = Timings::of(times);
    if args.json {
        let mut value =
            json!({"status": status.as_u16(), "headers": headers(answer), "time_ms": timings.median});
        match std::str::from_utf8(&answer.body) {
            Ok(text) => value["body"] = text.into(),
            Err(_) => value["body_base64"] = BASE64_STANDARD.encode(&answer.body).into(),
        }
        if times.len() > 1 {
            value["times"] = json!({
                "n": times.len(), "min_ms": timings.min, "median_ms": timings.median, "p99_ms": timings.p99,
            });
        }
        return Ok(shell.result(format!("{value}\n").as_bytes())?);
    }
    shell.detail(format_args!("{:?} {status}", answer.head.version()));
    for (name, value) in answer.head.headers() {
        shell.detail(format_args!("{name}: {}", String::from_utf8_lossy(value.as_bytes())));
    }
    match times.len() {
        1 => shell.detail(format_args!("in {:.3} ms", timings.median)),
        n => shell.detail(format_args!(
            "{n} times: min {:.3} ms, median {:.3} ms, p99 {:.3} ms",
            timings.min, timings.median, timings.p99
        )),
    }
    shell.detail("");
    Ok(shell.result(&answer.body)?)
}

/// The headers as JSON; a name that occurs more than once has a list of values.
fn headers(answer: &Answer) -> Map<String, Value> {
    let mut map = Map::new();
    for name in answer.head.headers().keys() {
        let values = answer.head.headers().get_all(name).iter();
        let mut values: Vec<Value> =
            values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned().into()).collect();
        let value = if values.len() == 1 { values.remove(0) } else { values.into() };
        map.insert(name.to_string(), value);
    }
    map
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
