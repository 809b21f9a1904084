//! The access log as the server's threads write it: which requests, and what of them. Never a query, a cookie or a
//! credential, unless the operator names it; never a body.

use std::{
    cell::Cell,
    hash::{BuildHasher, RandomState},
    str::FromStr,
};

use actix_http::{
    ResponseHead, Version,
    header::{HeaderName, HeaderValue},
};

use crate::{
    body::outgoing::Observer,
    http::head::{Head, Request},
    journal::{Access, Journal},
    rt::clock::Moment,
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A client that has left gets no answer; proxies log this for it.
const LEFT: u16 = 499;

/// How many of all requests: from 0 to 2^32, which is all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u64);

const ALL: u64 = 1 << 32;

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Share, String> {
        let percent = match text {
            "all" => 100.0,
            "none" => 0.0,
            _ => text.strip_suffix('%').and_then(|text| text.parse().ok()).unwrap_or(f64::NAN),
        };
        if !(0.0..=100.0).contains(&percent) {
            return Err("write all, none, or a share such as 10% or 0.5%".to_owned());
        }
        Ok(Share((percent / 100.0 * ALL as f64) as u64))
    }
}

/// What a line has beyond what every line has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extra {
    /// The query, as it came.
    Query,
    /// A header of the request.
    Header(HeaderName),
}

impl FromStr for Extra {
    type Err = String;

    fn from_str(text: &str) -> Result<Extra, String> {
        if text == "query" {
            return Ok(Extra::Query);
        }
        let name = text.parse().map(Extra::Header);
        name.map_err(|_| "write query, or the name of a header such as user-agent".to_owned())
    }
}

/// What the operator wants to see.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Of how many requests.
    pub share: Share,
    /// What beyond the usual.
    pub extra: Vec<Extra>,
}

/// The access log of one thread of the server.
pub struct AccessLog {
    wanted: Wanted,
    journal: Journal,
    dice: Cell<u64>,
}

impl AccessLog {
    /// A log; `None` if nothing is wanted.
    pub fn new(wanted: &Wanted, journal: &Journal) -> Option<AccessLog> {
        // Never 0, which the dice would not leave.
        let dice = Cell::new(RandomState::new().hash_one(0) | 1);
        (wanted.share != Share(0)).then(|| AccessLog {
            wanted: wanted.clone(),
            journal: journal.clone(),
            dice,
        })
    }

    /// A request has come. It gets a name here if it has none, so that its line, the lambda and whatever is logged
    /// meanwhile agree on it.
    pub fn begin(&self, request: &mut Request) -> AccessEntry {
        let begun = Moment::now();
        let head = Head::Live(request);
        let request_id = head.request_id();
        let given = request
            .head()
            .headers
            .get(REQUEST_ID)
            .is_some_and(|given| given.as_bytes() == request_id.as_bytes());
        let access = Access {
            peer: request.peer_addr(),
            method: head.method().to_owned(),
            path: head.path().to_owned(),
            version: version(request.head().version),
            status: LEFT,
            bytes: 0,
            took: begun.elapsed(),
            extra: self.wanted.extra.iter().filter_map(|extra| self.extra(extra, request)).collect(),
            request_id,
        };
        // What isn't visible in a name is refused when it is looked for.
        if !given && let Ok(name) = HeaderValue::from_str(&access.request_id) {
            request.headers_mut().insert(REQUEST_ID, name);
        }
        AccessEntry { access: Some(access), begun, sampled: self.is_sampled(), journal: self.journal.clone() }
    }

    fn extra(&self, extra: &Extra, request: &Request) -> Option<(String, String)> {
        let (name, value) = match extra {
            Extra::Query => ("query", request.uri().query()?.to_owned()),
            Extra::Header(name) => {
                let values: Vec<_> =
                    request.head().headers.get_all(name).map(|value| value.as_bytes()).collect();
                (name.as_str(), String::from_utf8_lossy(&values.join(&b", "[..])).into_owned())
            }
        };
        (!value.is_empty()).then(|| (name.to_owned(), value))
    }

    /// By chance, not one in so many: requests may come in a pattern.
    fn is_sampled(&self) -> bool {
        let mut dice = self.dice.get();
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        self.dice.set(dice);
        dice >> 32 < self.wanted.share.0
    }
}

/// A request that is being answered, as its line will have it: written when this is dropped. Without an answer it says
/// that the client has left.
pub struct AccessEntry {
    /// `None` once it has been written.
    access: Option<Access>,
    begun: Moment,
    sampled: bool,
    journal: Journal,
}

impl AccessEntry {
    /// There is an answer, of whose body so much is there. It says what the request is called, unless the lambda has.
    pub fn answered(&mut self, head: &mut ResponseHead, bytes: usize) {
        let Some(access) = &mut self.access else { return };
        access.status = head.status.as_u16();
        if access.method != "HEAD" {
            self.sent(bytes);
        }
        let Some(access) = &self.access else { return };
        if !head.headers.contains_key(REQUEST_ID)
            && let Ok(name) = HeaderValue::from_str(&access.request_id)
        {
            head.headers.insert(REQUEST_ID, name);
        }
    }
}

impl Observer for AccessEntry {
    fn sent(&mut self, n_bytes: usize) {
        if let Some(access) = &mut self.access {
            access.bytes += n_bytes as u64;
        }
    }
}

impl Drop for AccessEntry {
    fn drop(&mut self) {
        let Some(mut access) = self.access.take() else { return };
        // What failed is always of interest, and rare.
        if self.sampled || access.status >= 500 {
            access.took = self.begun.elapsed();
            self.journal.access(access);
        }
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_from_flags() {
        assert_eq!("all".parse(), Ok(Share(ALL)));
        assert_eq!("100%".parse(), Ok(Share(ALL)));
        assert_eq!("50%".parse(), Ok(Share(ALL / 2)));
        assert_eq!("none".parse(), Ok(Share(0)));
        for bad in ["", "%", "101%", "-1%", "10", "NaN%", "inf%", "often"] {
            assert!(bad.parse::<Share>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_asked_for_beyond_the_usual_has_names() {
        assert_eq!("query".parse(), Ok(Extra::Query));
        assert_eq!("User-Agent".parse(), Ok(Extra::Header("user-agent".parse().unwrap())));
        assert!("a b".parse::<Extra>().is_err());
    }
}
