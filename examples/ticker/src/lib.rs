//! A stream of events: a number each second, or each `every` milliseconds. A client that connects again continues where
//! it was.

use std::{thread, time::Duration};

use effe_abi::{Event, Lambda, Options, Params, Request, Response, Result, StartError, Started, export};

struct Ticker {
    every: Duration,
}

impl Lambda for Ticker {
    const OPTIONS: Options = Options::new().waits().stream_response();

    fn start(params: Params) -> Result<Self, StartError<Self>> {
        Ok(Ticker { every: Duration::from_millis(params.parse("every")?.unwrap_or(1000)) })
    }

    fn run(ticker: Started<Self>, request: &Request, response: &mut Response) -> Result {
        let every = ticker?.every;
        let last: u64 = request.header("last-event-id").and_then(|id| id.parse().ok()).unwrap_or(0);
        let mut events = response.events()?;
        for n in last + 1.. {
            if request.cancelled() {
                break;
            }
            events.send(&Event::new(&n.to_string()).id(&n.to_string()))?; // fails once the client has gone
            thread::sleep(every);
        }
        Ok(())
    }
}

export!(Ticker);

#[cfg(test)]
mod tests {
    use effe_abi::testing::{Call, Effe};

    use super::LAMBDA;

    #[test]
    fn events_come_until_the_client_leaves_and_go_on_where_they_were() {
        let effe = Effe::with(&LAMBDA, &[("every", "1")]);
        let answer = effe.call(Call::get("/").header("last-event-id", "41").gone_after(3));
        assert_eq!(answer.header("content-type"), Some("text/event-stream"));
        assert!(answer.text().starts_with("id: 42\ndata: 42\n\nid: 43\ndata: 43\n\n"), "{}", answer.text());
    }
}
