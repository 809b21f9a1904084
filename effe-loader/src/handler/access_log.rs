//! The access log: which requests get a line, and what the line says. Never a query, a cookie or a credential, unless
//! the operator names it; never a body.

use std::str::FromStr;

use http::{HeaderName, Version};

use crate::{
    body::outgoing::Observer,
    journal::{Access, Journal},
    message::{
        request::{Request, RequestHead},
        response::ResponseHead,
    },
    rt::clock::Moment,
};

const REQUEST_ID: &str = "x-request-id";
/// The status that proxies log when a client has left before its answer.
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

/// What the operator wants in a line beyond what every line has.
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
    pub share: Share,
    pub extra: Vec<Extra>,
}

/// The access log of one thread of the server.
pub struct AccessLog {
    wanted: Wanted,
    journal: Journal,
}

impl AccessLog {
    /// `None` if nothing is wanted.
    pub fn new(wanted: &Wanted, journal: &Journal) -> Option<AccessLog> {
        let is_wanted = wanted.share != Share(0);
        is_wanted.then(|| AccessLog { wanted: wanted.clone(), journal: journal.clone() })
    }

    /// A request has come. It gets an id here if it has none, so that its line, the lambda and whatever is logged
    /// meanwhile have the same.
    pub fn begin(&self, request: &mut Request) -> AccessEntry {
        let begun = Moment::now();
        let request_id = request.request_id();
        let is_given = request.fields.get(REQUEST_ID) == Some(request_id.as_bytes());
        let access = Access {
            peer: request.peer,
            method: request.method.as_str().to_owned(),
            path: request.path().to_owned(),
            version: version(request.version),
            status: LEFT,
            bytes: 0,
            took: begun.elapsed(),
            extra: self.wanted.extra.iter().filter_map(|extra| self.extra(extra, request)).collect(),
            request_id,
        };
        // An id has visible characters alone.
        if !is_given {
            request.head_mut().fields.insert(REQUEST_ID, access.request_id.as_bytes());
        }
        // By chance, not one in so many: requests may come in a pattern.
        let sampled = u64::from(fastrand::u32(..)) < self.wanted.share.0;
        AccessEntry { access: Some(access), begun, sampled, journal: self.journal.clone() }
    }

    fn extra(&self, extra: &Extra, request: &RequestHead) -> Option<(String, String)> {
        let (name, value) = match extra {
            Extra::Query => ("query", request.query()?.to_owned()),
            Extra::Header(name) => {
                let values: Vec<_> = request.fields.get_all(name.as_str()).collect();
                (name.as_str(), String::from_utf8_lossy(&values.join(&b", "[..])).into_owned())
            }
        };
        (!value.is_empty()).then(|| (name.to_owned(), value))
    }
}

/// The line of a request that is being answered, written when this is dropped. Without an answer it says that the
/// client has left.
pub struct AccessEntry {
    /// `None` once it has been written.
    access: Option<Access>,
    begun: Moment,
    sampled: bool,
    journal: Journal,
}

impl AccessEntry {
    /// There is an answer, and `bytes` of its body. The answer gets the request's id, unless the lambda has set one.
    pub fn answered(&mut self, head: &mut ResponseHead, bytes: usize) {
        let Some(access) = &mut self.access else { return };
        access.status = head.status.as_u16();
        if access.method != "HEAD" {
            access.bytes += bytes as u64;
        }
        if !head.fields.has(REQUEST_ID) {
            head.fields_mut().append(REQUEST_ID, access.request_id.as_bytes());
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
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_from_flags() {
        for (text, share) in [("all", ALL), ("100%", ALL), ("50%", ALL / 2), ("none", 0)] {
            assert_eq!(text.parse(), Ok(Share(share)));
        }
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
