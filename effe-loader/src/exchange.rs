//! One exchange as the lambda sees it: what it asks of the loader while Run lasts. The request's head is lent as the
//! protocol has read it.

pub mod call;
mod duplex;
pub mod early;
mod piece;
pub mod response;
pub mod run;
pub mod strict;
pub mod table;
pub mod watched;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use effe_abi::raw::{Status, status};
use http::Method;

use self::{call::Progress, early::Rest, response::ResponseBuilder, watched::Watched};
use crate::{
    body::{
        duplex::Duplex,
        sender::{BodySender, Streams},
        trailers::Trailers,
    },
    message::request::RequestHead,
    placement::Placement,
    rt::clock::Moment,
};

static NO_STREAMS: Streams = Streams::NONE;

pub struct Exchange<'a> {
    head: &'a RequestHead,
    body: &'a [u8],
    response: Mutex<&'a mut ResponseBuilder>,
    gone: &'a AtomicBool,
    deadline: Option<Moment>,
    response_limit: usize,
    id: &'a OnceLock<String>,
    peer: OnceLock<String>,
    streams: &'a Streams,
    /// `None` if the answer goes out when the run has returned.
    early: Option<Early<'a>>,
    /// Where its run is polled; `None` if it is called instead.
    polls: Option<Arc<Placement>>,
    /// What its connection has become, if the run has taken it over.
    duplex: OnceLock<Arc<Duplex>>,
    /// What stands for it where the lambda is watched.
    watched: OnceLock<Watched>,
    /// Polls of the run on the server's thread that took too long.
    n_overstays: AtomicU32,
}

/// What an exchange has whose answer may go out before its run returns.
struct Early<'a> {
    progress: &'a Progress,
    /// How long the rest of the run may take.
    run_timeout: Option<Duration>,
    /// Whether the answer is to go out once it is ended.
    is_wanted: AtomicBool,
}

impl Early<'_> {
    /// Sends an answer that is complete while the run goes on.
    fn send(&self, answer: ResponseBuilder, rest: Rest) -> Status {
        match self.progress.answer(Some(answer), rest) {
            true => status::OK,
            false if self.progress.is_gone() => status::GONE,
            false => status::TIMEOUT,
        }
    }
}

impl<'a> Exchange<'a> {
    /// `gone` says whether the client has left; `id` keeps the request's id, once somebody needs it.
    pub fn new(
        head: &'a RequestHead,
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
            early: None,
            polls: None,
            duplex: OnceLock::new(),
            watched: OnceLock::new(),
            n_overstays: AtomicU32::new(0),
        }
    }

    /// The same exchange, with bodies that go piece by piece.
    pub fn with_streams(self, streams: &'a Streams) -> Exchange<'a> {
        Exchange { streams, ..self }
    }

    /// The same exchange, whose answer may go out before its run returns: somebody waits for it at `progress`.
    pub fn with_early_answer(self, progress: &'a Progress, run_timeout: Option<Duration>) -> Exchange<'a> {
        let early = Early { progress, run_timeout, is_wanted: AtomicBool::new(false) };
        Exchange { early: Some(early), ..self }
    }

    /// Hands a piece of a streamed answer on. A run that is polled has asked for room, and must not wait here.
    fn hand_on(&self, sender: &BodySender, piece: Bytes, more: bool) -> Status {
        let early = self.wanted_early().filter(|_| !more);
        if let Some(early) = early {
            // Before the last piece is seen: whoever takes it looks whether the run goes on.
            early.progress.answer(None, self.rest(true));
        }
        let status =
            if self.polls.is_some() { sender.write_now(piece, more) } else { sender.write(piece, more) };
        if let Some(early) = early.filter(|_| status != status::OK) {
            early.progress.abandon();
        }
        status
    }

    /// A held answer is complete, unless more of it follows: sends it, if that is wanted before the run returns.
    fn ended(&self, mut response: MutexGuard<'_, &'a mut ResponseBuilder>, more: bool) -> Status {
        let Some(early) = self.wanted_early().filter(|_| !more) else { return status::OK };
        let answer = response.take_whole();
        early.send(answer, self.rest(true))
    }

    /// Answers with 101: the lambda's end of the connection, or the status that says why there is none.
    fn upgrade<'h>(
        &self,
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])> + Clone,
    ) -> Result<Arc<Duplex>, Status> {
        let (Some(offer), Some(early)) = (&self.streams.upgrade, &self.early) else {
            return Err(status::END);
        };
        let mut response = self.response();
        if self.is_answered() || !response.take_upgrade(headers, offer) {
            return Err(status::INVALID);
        }
        let (duplex, upgraded) = Duplex::open(Arc::clone(&offer.holder));
        let answer = response.take_whole().upgrade(upgraded);
        drop(response);
        // Before the answer goes out: nobody reads it, or sends, before there is a stream.
        let _ = self.duplex.set(Arc::clone(&duplex));
        match early.send(answer, self.rest(false)) {
            status::OK => Ok(duplex),
            refused => Err(refused),
        }
    }

    /// Whether the answer was sent while the run goes on.
    fn is_answered(&self) -> bool {
        self.early.as_ref().is_some_and(|early| early.progress.early.rest().is_some())
    }

    /// Whether an answer has begun.
    fn has_begun(&self) -> bool {
        let streams = self.streams.response.as_ref().is_some_and(|sender| sender.has_begun());
        streams || self.is_answered() || self.response().has_begun()
    }

    /// A poll of the run on the server's thread took too long.
    pub fn overstay(&self) {
        self.n_overstays.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether that is the run's habit: once may be chance.
    fn has_overstayed(&self) -> bool {
        self.n_overstays.load(Ordering::Relaxed) > 1
    }

    fn wanted_early(&self) -> Option<&Early<'a>> {
        self.early.as_ref().filter(|early| early.is_wanted.load(Ordering::Relaxed))
    }

    /// What the run does from now on.
    fn rest(&self, is_timed: bool) -> Rest {
        Rest { since: Moment::now(), is_timed, about: self.head.about(self.id) }
    }

    /// Whether trailers of the answer reach the client. Over HTTP/1.1 it must have said so (RFC 9110, section 6.5.1),
    /// and an answer to HEAD has nothing that they could come behind.
    fn takes_trailers(&self) -> bool {
        if self.head.method == Method::HEAD {
            return false;
        }
        match self.head.version_number() {
            20.. => true,
            11 => self.head.fields.get_all("te").any(names_trailers),
            _ => false,
        }
    }

    /// Adds trailers to the answer, before it ends.
    fn add_trailers(&self, trailers: Trailers) -> Status {
        match self.streams.response.as_ref().filter(|sender| sender.has_begun()) {
            Some(sender) => sender.add_trailers(trailers),
            None => self.response().add_trailers(trailers),
        }
    }

    /// The trailers of the request, once its body has ended.
    fn request_trailers(&self) -> Option<&Trailers> {
        self.streams.request.as_ref()?.trailers()
    }

    fn response(&self) -> MutexGuard<'_, &'a mut ResponseBuilder> {
        self.response.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody waits for the answer any more.
    fn is_gone(&self) -> bool {
        if let Some(duplex) = self.duplex.get() {
            return duplex.state() != status::OK;
        }
        match &self.early {
            Some(early) => early.progress.is_gone(),
            None => self.gone.load(Ordering::Relaxed),
        }
    }

    /// When the client is told that the run takes too long; an answer whose head has gone takes its time. After an
    /// answer that went out early, when the rest of the run takes too long.
    fn deadline(&self) -> Option<Moment> {
        if let Some(early) = &self.early
            && let Some(rest) = early.progress.early.rest()
        {
            return early.run_timeout.filter(|_| rest.is_timed).map(|timeout| rest.since + timeout);
        }
        self.deadline.filter(|_| !self.streams.response.as_ref().is_some_and(|sender| sender.has_begun()))
    }

    fn id(&self) -> &str {
        self.id.get_or_init(|| self.head.request_id())
    }

    fn peer(&self) -> Option<&str> {
        self.head.peer.map(|peer| self.peer.get_or_init(|| peer.to_string()).as_str())
    }

    fn authority(&self) -> Option<&str> {
        self.head.authority().or_else(|| self.head.fields.text("host"))
    }
}

/// Whether `trailers` is among the members of a TE (RFC 9110, section 10.1.4).
fn names_trailers(te: &[u8]) -> bool {
    te.split(|byte| *byte == b',').any(|member| {
        let name = member.split(|byte| *byte == b';').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"trailers")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn te_says_whether_a_client_takes_trailers() {
        for te in ["trailers", "Trailers", "gzip;q=0.5, trailers", "trailers;q=0.5", " ,trailers\t"] {
            assert!(names_trailers(te.as_bytes()), "{te}");
        }
        for te in ["", "trailer", "gzip", "x-trailers", "gzip;trailers"] {
            assert!(!names_trailers(te.as_bytes()), "{te}");
        }
    }
}
