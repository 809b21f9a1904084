//! A request's head: parsed once, and read in this form by all, up to the lambda.

use std::{
    cell::RefCell,
    net::SocketAddr,
    ops::Deref,
    sync::{Arc, OnceLock},
};

use http::{Method, Version};

use super::{
    fields::Fields,
    invocation::{Invocation, Invoked},
    request_id,
};

/// Heads that a thread keeps for the next requests, and bytes that one of them may take.
const MAX_SPARE: usize = 64;
const MAX_SPARE_BYTES: usize = 4 * 1024;

/// A request without its body.
#[derive(Clone, Debug)]
pub struct RequestHead {
    pub method: Method,
    pub version: Version,
    /// Path and query.
    target: String,
    path_len: usize,
    /// The authority that the target names, which counts for more than the Host header; empty if there is none.
    authority: String,
    pub fields: Fields,
    /// What its `Connection` says.
    pub connection: ConnectionOptions,
    /// Whether its client sends no body before it is asked to (RFC 9110, section 10.1.1).
    pub expects_continue: bool,
    pub peer: Option<SocketAddr>,
    /// Whether its own connection is encrypted; behind a proxy, the proxy's connection to us.
    pub is_tls: bool,
    pub invoked: Invoked,
}

/// The members of `Connection` that mean something to us (RFC 9110, section 7.6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionOptions {
    pub close: bool,
    pub keep_alive: bool,
    pub upgrade: bool,
}

impl RequestHead {
    const NONE: RequestHead = RequestHead {
        method: Method::GET,
        version: Version::HTTP_11,
        target: String::new(),
        path_len: 0,
        authority: String::new(),
        fields: Fields::NONE,
        connection: ConnectionOptions { close: false, keep_alive: false, upgrade: false },
        expects_continue: false,
        peer: None,
        is_tls: false,
        invoked: Invoked::NONE,
    };

    /// Makes it that of another request, and keeps the buffers.
    fn clear(&mut self) {
        self.target.clear();
        self.authority.clear();
        self.fields.clear();
        (self.path_len, self.connection, self.expects_continue) = (0, ConnectionOptions::default(), false);
        (self.peer, self.is_tls, self.invoked) = (None, false, Invoked::NONE);
    }

    /// Sets path and query, which `write` adds to an empty text; it says how much of it is the path.
    #[inline]
    pub fn set_target(&mut self, write: impl FnOnce(&mut String) -> usize) {
        self.target.clear();
        self.path_len = write(&mut self.target);
    }

    pub fn set_authority(&mut self, authority: &str) {
        authority.clone_into(&mut self.authority);
    }

    /// Path and query.
    #[inline]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// How much of the target is the path.
    #[inline]
    pub fn path_len(&self) -> usize {
        self.path_len
    }

    #[inline]
    pub fn path(&self) -> &str {
        &self.target[..self.path_len]
    }

    pub fn query(&self) -> Option<&str> {
        self.target.get(self.path_len + 1..)
    }

    /// The authority that the target names, which counts for more than the Host header.
    pub fn authority(&self) -> Option<&str> {
        (!self.authority.is_empty()).then_some(&*self.authority)
    }

    /// The version of HTTP: 10, 11, 20.
    #[inline]
    pub fn version_number(&self) -> u32 {
        match self.version {
            Version::HTTP_10 => 10,
            Version::HTTP_2 => 20,
            _ => 11,
        }
    }

    /// Whether the client keeps the connection for more requests (RFC 9112, section 9.3).
    pub fn is_kept_alive(&self) -> bool {
        !self.connection.close && (self.version >= Version::HTTP_11 || self.connection.keep_alive)
    }

    /// `http` or `https`, as its own connection is.
    pub fn scheme(&self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }

    /// The Content-Length.
    pub fn length(&self) -> Option<u64> {
        self.fields.text("content-length")?.trim().parse().ok()
    }

    /// What it has come of, if that is no request over a connection.
    pub fn invocation(&self) -> Option<&Invocation> {
        self.invoked.invocation()
    }

    /// The nth value of a header, counted from 0, whose name may be in any case.
    #[inline]
    pub fn header(&self, name: &str, nth: usize) -> Option<&[u8]> {
        let mut values = self.fields.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        values.nth(nth).map(|(_, value)| value)
    }

    pub fn request_id(&self) -> String {
        request_id::of(|name| self.fields.get(name))
    }

    /// The id that the request came with, if it has one. It takes no memory.
    pub fn given_request_id(&self) -> Option<&str> {
        request_id::given(|name| self.fields.get(name))
    }

    /// The fields of a line of the log about the request: never its query, which may hold secrets.
    pub fn about(&self, id: &OnceLock<String>) -> [(&'static str, String); 3] {
        let id = id.get_or_init(|| self.request_id()).clone();
        [("request_id", id), ("method", self.method.as_str().to_owned()), ("path", self.path().to_owned())]
    }
}

/// A head that the connection, the handler and a run share. The last of them leaves its buffers for the next request, if
/// it is dropped on a thread that makes requests.
#[derive(Clone, Debug, Default)]
pub struct Request(Option<Arc<RequestHead>>);

thread_local! {
    /// `None` on a thread that has made no request.
    static SPARE: RefCell<Option<Vec<Arc<RequestHead>>>> = const { RefCell::new(None) };
}

static NONE: RequestHead = RequestHead::NONE;

impl Request {
    /// A request that `write` fills in: it has no target and no fields yet.
    #[inline]
    pub fn new(write: impl FnOnce(&mut RequestHead)) -> Request {
        Request::make(write).0
    }

    /// The same, with what `write` says of it.
    #[inline]
    pub fn make<T>(write: impl FnOnce(&mut RequestHead) -> T) -> (Request, T) {
        let spare = SPARE.with_borrow_mut(|spare| spare.get_or_insert_default().pop());
        let mut head = spare.unwrap_or_else(|| Arc::new(RequestHead::NONE));
        let fresh = Arc::get_mut(&mut head).expect("nobody else has a spare one");
        fresh.clear();
        let said = write(fresh);
        (Request(Some(head)), said)
    }

    /// The head, to be changed before others see it.
    pub fn head_mut(&mut self) -> &mut RequestHead {
        Arc::make_mut(self.0.get_or_insert_with(|| Arc::new(RequestHead::NONE)))
    }
}

impl Deref for Request {
    type Target = RequestHead;

    #[inline]
    fn deref(&self) -> &RequestHead {
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl Drop for Request {
    #[inline]
    fn drop(&mut self) {
        let Some(mut head) = self.0.take() else { return };
        if Arc::get_mut(&mut head).is_some_and(|head| head.is_small()) {
            // Where the thread is about to end, nobody needs it.
            let _ = SPARE.try_with(|spare| {
                if let Some(spare) = &mut *spare.borrow_mut()
                    && spare.len() < MAX_SPARE
                {
                    spare.push(head);
                }
            });
        }
    }
}

impl RequestHead {
    fn is_small(&self) -> bool {
        let n_text = self.target.capacity() + self.authority.capacity();
        n_text <= MAX_SPARE_BYTES && self.fields.is_small(MAX_SPARE_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_request_is_in_the_next_one_that_has_its_buffers() {
        let first = Request::new(|head| {
            (head.method, head.version, head.is_tls) = (Method::POST, Version::HTTP_10, true);
            head.set_target(|text| {
                text.push_str("/a?b");
                2
            });
            head.set_authority("h");
            head.fields.append("x", b"y");
            head.connection.close = true;
            head.expects_continue = true;
        });
        assert_eq!((first.path(), first.query(), first.authority()), ("/a", Some("b"), Some("h")));
        let other = first.clone();
        drop(first);
        assert_eq!(other.target(), "/a?b", "the last one keeps it");
        drop(other);
        let next = Request::new(|head| (head.method, head.version) = (Method::GET, Version::HTTP_11));
        assert_eq!(format!("{:?}", *next), format!("{:?}", RequestHead::NONE));
        assert!(next.is_kept_alive() && next.query().is_none() && next.authority().is_none());
    }

    #[test]
    fn a_thread_that_makes_no_request_keeps_no_head() {
        let request = Request::new(|_| {});
        let kept = std::thread::spawn(|| {
            drop(request);
            SPARE.with_borrow(|spare| spare.is_some())
        });
        assert!(!kept.join().unwrap());
    }

    #[test]
    fn a_spare_head_is_short() {
        let large = Request::new(|head| head.fields.append("x", &[b'x'; MAX_SPARE_BYTES]));
        drop(large);
        let next = Request::new(|_| {});
        assert!(next.is_small());
    }
}
