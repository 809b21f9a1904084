//! Answers `GET /?ms=250` after 250 milliseconds, like a lambda that waits for a slow service. It doesn't declare that
//! it waits, so the loader has to find out by itself.

use std::{thread, time::Duration};

use effe_abi::{Lambda, Params, Request, Response, Result, StartError, Started, export};

/// The longest time: a minute.
const LONGEST: u64 = 60_000;

struct Sleep;

impl Lambda for Sleep {
    fn start(_: Params) -> Result<Self, StartError<Self>> {
        Ok(Sleep)
    }

    fn run(sleep: Started<Self>, request: &Request, response: &mut Response) -> Result {
        sleep?;
        let Some(ms) = milliseconds(request.query_string().unwrap_or("")) else {
            response.status(400).text("say how many milliseconds: /?ms=250\n");
            return Ok(());
        };
        let ms = ms.min(LONGEST);
        thread::sleep(Duration::from_millis(ms));
        response.text(format!("slept {ms} ms\n"));
        Ok(())
    }
}

export!(Sleep);

fn milliseconds(query: &str) -> Option<u64> {
    query.split('&').find_map(|pair| pair.strip_prefix("ms="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use effe_abi::testing::Effe;

    use super::{LAMBDA, milliseconds};

    #[test]
    fn it_sleeps_as_long_as_it_is_told_to() {
        let begin = Instant::now();
        let answer = Effe::of(&LAMBDA).get("/?ms=20");
        assert!(begin.elapsed() >= Duration::from_millis(20));
        assert_eq!((answer.status, answer.text().as_str()), (200, "slept 20 ms\n"));
        assert_eq!(Effe::of(&LAMBDA).get("/nap?a=b&ms=0").text(), "slept 0 ms\n");
    }

    #[test]
    fn what_is_not_a_number_is_a_400() {
        for target in ["/", "/?", "/?ms=", "/?ms=-1", "/?ms=soon", "/?ms=99999999999999999999", "/?xms=1"] {
            assert_eq!(Effe::of(&LAMBDA).get(target).status, 400, "{target}");
        }
        assert_eq!(milliseconds("ms=18446744073709551615"), Some(u64::MAX));
    }
}
