//! A request's head: as a protocol has read it, and as a run sees it. A run that may outlive the connection, such as
//! one on another thread, gets a copy.

use std::{
    net::SocketAddr,
    ops::{Deref, DerefMut, Range},
    sync::OnceLock,
};

use actix_http::RequestHead;

use crate::http::{
    invocation::{Invocation, Invoked},
    request_id,
};

/// A request without its body, and what a parser doesn't know of it.
pub struct Request {
    pub request: actix_http::Request,
    /// Whether its own connection is encrypted; behind a proxy, the proxy's connection to us.
    pub is_tls: bool,
    pub invoked: Invoked,
}

impl Request {
    /// A request that has come over a connection.
    pub fn new(request: actix_http::Request, is_tls: bool) -> Request {
        Request { request, is_tls, invoked: Invoked::default() }
    }
}

impl Deref for Request {
    type Target = actix_http::Request;

    fn deref(&self) -> &actix_http::Request {
        &self.request
    }
}

impl DerefMut for Request {
    fn deref_mut(&mut self) -> &mut actix_http::Request {
        &mut self.request
    }
}

/// A request's head as a run sees it.
pub enum Head<'a> {
    /// In the server's memory.
    Live(&'a Request),
    Copied(&'a OwnedHead),
}

impl Head<'_> {
    #[inline]
    pub fn method(&self) -> &str {
        match self {
            Head::Live(request) => request.method().as_str(),
            Head::Copied(copy) => copy.method(),
        }
    }

    /// Path and query, and how much of it is the path.
    #[inline]
    pub fn target(&self) -> (&str, usize) {
        match self {
            Head::Live(request) => target(request.head()),
            Head::Copied(copy) => (copy.target(), copy.path_len),
        }
    }

    #[inline]
    pub fn path(&self) -> &str {
        let (target, path_len) = self.target();
        &target[..path_len]
    }

    pub fn request_id(&self) -> String {
        request_id::of(|name| self.header(name, 0))
    }

    /// The id that the request came with, if it has one. It takes no memory.
    pub fn given_request_id(&self) -> Option<&str> {
        let value = |name: &str| match self {
            Head::Live(request) => {
                let mut headers = request.head().headers.iter();
                headers.find(|(other, _)| other.as_str() == name).map(|(_, value)| value.as_bytes())
            }
            Head::Copied(copy) => {
                copy.headers().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
            }
        };
        request_id::given(value)
    }

    /// The fields of a line of the log about the request: never its query, which may hold secrets.
    pub fn about(&self, id: &OnceLock<String>) -> [(&'static str, String); 3] {
        let id = id.get_or_init(|| self.request_id()).clone();
        [("request_id", id), ("method", self.method().to_owned()), ("path", self.path().to_owned())]
    }

    /// The version of HTTP: 10, 11, 20.
    pub fn version(&self) -> u32 {
        match self {
            Head::Live(request) => version(request.head()),
            Head::Copied(copy) => copy.version,
        }
    }

    /// `http` or `https`, as its own connection is.
    pub fn scheme(&self) -> &'static str {
        match self {
            Head::Live(Request { is_tls: true, .. }) | Head::Copied(OwnedHead { is_tls: true, .. }) => {
                "https"
            }
            _ => "http",
        }
    }

    /// What it has come of, if that is no request over a connection.
    pub fn invocation(&self) -> Option<&Invocation> {
        match self {
            Head::Live(request) => request.invoked.invocation(),
            Head::Copied(copy) => copy.invoked.invocation(),
        }
    }

    /// The nth value of a header, counted from 0.
    pub fn header(&self, name: &str, nth: usize) -> Option<&[u8]> {
        match self {
            Head::Live(request) => {
                request.head().headers.get_all(name).nth(nth).map(|value| value.as_bytes())
            }
            Head::Copied(copy) => copy
                .headers()
                .filter(|(other, _)| other.eq_ignore_ascii_case(name))
                .nth(nth)
                .map(|(_, value)| value),
        }
    }
}

/// A copy of one request's head, in two buffers that are used again for the next request.
#[derive(Default)]
pub struct OwnedHead {
    /// All that is text; being a `String`, it needs no check when parts of it are read.
    text: String,
    /// The values of the headers, which may be any bytes.
    values: Vec<u8>,
    method: Range<usize>,
    target: Range<usize>,
    path_len: usize,
    headers: Vec<(Range<usize>, Range<usize>)>,
    authority: Option<Range<usize>>,
    pub peer: Option<SocketAddr>,
    /// 10, 11, 20
    pub version: u32,
    is_tls: bool,
    pub invoked: Invoked,
}

impl OwnedHead {
    /// Copies a request's head; the one from before is gone.
    pub fn take(&mut self, request: &Request) {
        let head = request.head();
        self.text.clear();
        self.values.clear();
        self.headers.clear();
        self.method = self.push(head.method.as_str());
        let (target, path_len) = target(head);
        (self.target, self.path_len) = (self.push(target), path_len);
        for (name, value) in &head.headers {
            let begin = self.values.len();
            self.values.extend_from_slice(value.as_bytes());
            let spans = (self.push(name.as_str()), begin..self.values.len());
            self.headers.push(spans);
        }
        self.authority = head.uri.authority().map(|authority| self.push(authority.as_str()));
        (self.peer, self.version, self.is_tls) = (head.peer_addr, version(head), request.is_tls);
        self.invoked.clone_from(&request.invoked);
    }

    #[inline]
    pub fn method(&self) -> &str {
        self.text(&self.method)
    }

    /// Path and query.
    #[inline]
    pub fn target(&self) -> &str {
        self.text(&self.target)
    }

    #[inline]
    pub fn path(&self) -> &str {
        &self.target()[..self.path_len]
    }

    /// The authority that the target names, which counts for more than the Host header.
    pub fn authority(&self) -> Option<&str> {
        self.authority.as_ref().map(|span| self.text(span))
    }

    /// All headers, names in lower case.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (self.text(name), &self.values[value.clone()]))
    }

    fn push(&mut self, text: &str) -> Range<usize> {
        let begin = self.text.len();
        self.text.push_str(text);
        begin..self.text.len()
    }

    fn text(&self, span: &Range<usize>) -> &str {
        &self.text[span.clone()]
    }
}

/// Path and query of a request, and how much of it is the path.
#[inline]
fn target(head: &RequestHead) -> (&str, usize) {
    match head.uri.path_and_query() {
        Some(target) => (target.as_str(), target.path().len()),
        None => ("/", 1),
    }
}

/// 10, 11, 20
fn version(head: &RequestHead) -> u32 {
    match head.version {
        actix_http::Version::HTTP_09 => 9,
        actix_http::Version::HTTP_10 => 10,
        actix_http::Version::HTTP_2 => 20,
        actix_http::Version::HTTP_3 => 30,
        _ => 11,
    }
}
