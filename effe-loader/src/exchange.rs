//! One exchange as the lambda sees it: what it asks of the loader while Run lasts. The request is lent from the
//! server's own memory when Run happens on the server's thread, and from a copy of its head otherwise.

pub mod call;
pub mod response;
pub mod run;
pub mod table;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, atomic::AtomicBool},
};

use bytes::Bytes;
use effe_abi::raw::Status;

use self::response::ResponseBuilder;
use crate::{
    body::sender::{BodySender, Streams},
    http::head::Head,
    placement::Placement,
    rt::clock::Moment,
};

static NO_STREAMS: Streams = Streams::NONE;

pub struct Exchange<'a> {
    head: Head<'a>,
    body: &'a [u8],
    response: Mutex<&'a mut ResponseBuilder>,
    gone: &'a AtomicBool,
    deadline: Option<Moment>,
    response_limit: usize,
    id: &'a OnceLock<String>,
    peer: OnceLock<String>,
    streams: &'a Streams,
    /// Where its run is polled; `None` if it is called instead.
    polls: Option<Arc<Placement>>,
}

impl<'a> Exchange<'a> {
    /// `gone` says whether the client has left; `id` keeps the request's id, once somebody needs it.
    pub fn new(
        head: Head<'a>,
        body: &'a [u8],
        response: &'a mut ResponseBuilder,
        gone: &'a AtomicBool,
        deadline: Option<Moment>,
        response_limit: usize,
        id: &'a OnceLock<String>,
    ) -> Exchange<'a> {
        Exchange {
            head,
            body,
            response: Mutex::new(response),
            gone,
            deadline,
            response_limit,
            id,
            peer: OnceLock::new(),
            streams: &NO_STREAMS,
            polls: None,
        }
    }

    /// The same exchange, with bodies that go piece by piece.
    pub fn with_streams(self, streams: &'a Streams) -> Exchange<'a> {
        Exchange { streams, ..self }
    }

    /// Hands a piece of a streamed answer on. A run that is polled has asked for room, and must not wait here.
    fn hand_on(&self, sender: &BodySender, piece: Bytes, more: bool) -> Status {
        if self.polls.is_some() { sender.write_now(piece, more) } else { sender.write(piece, more) }
    }

    /// When the client is told that the run takes too long; an answer whose head has gone takes its time.
    fn deadline(&self) -> Option<Moment> {
        self.deadline.filter(|_| !self.streams.response.as_ref().is_some_and(|sender| sender.has_begun()))
    }

    fn id(&self) -> &str {
        self.id.get_or_init(|| self.head.request_id())
    }

    fn peer(&self) -> Option<&str> {
        let peer: Option<SocketAddr> = match self.head {
            Head::Live(request) => request.peer_addr(),
            Head::Copied(copy) => copy.peer,
        };
        peer.map(|peer| self.peer.get_or_init(|| peer.to_string()).as_str())
    }

    fn authority(&self) -> Option<&str> {
        let authority = match self.head {
            Head::Live(request) => request.uri().authority().map(|authority| authority.as_str()),
            Head::Copied(copy) => copy.authority(),
        };
        authority.or_else(|| std::str::from_utf8(self.head.header("host", 0)?).ok())
    }
}
