//! The lambda's response as it is built: checked as it comes in, complete or not at all.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use effe_abi::raw::{Status, status};
use http::StatusCode;

use crate::{
    body::{
        duplex::{Offer, Upgraded},
        held::{HeldBytes, Room, UNCOUNTED},
        sender::Head,
        trailers::{MAX_TRAILERS, Trailers},
    },
    message::{
        fields::{Fields, checked},
        response::ResponseHead,
    },
};

/// Interim responses before one response.
const MAX_INTERIMS: usize = 64;
/// Bits of `unusual`: there was no room for the body, which is dropped; `extras` belong to this response.
const NO_ROOM: u8 = 1;
const EXTRAS: u8 = 2;

#[derive(Default)]
pub struct ResponseBuilder {
    status: Option<StatusCode>,
    /// They stay from one response to the next: most responses of a lambda have the same ones, which are then neither
    /// checked nor allocated again.
    fields: Arc<Fields>,
    body: Body,
    /// The Content-Length that the lambda gave.
    pub length: Option<u64>,
    ended: bool,
    /// What its body must have room in; `None` where nobody counts.
    held: Option<Arc<HeldBytes>>,
    /// What few responses have, so that one look tells that there is nothing of it.
    unusual: u8,
    /// Of this response if `unusual` says so, and else of an earlier one.
    extras: Option<Box<Extras>>,
}

/// What a response may have beside its head and its body.
#[derive(Default)]
pub struct Extras {
    /// What goes before it, unless it has gone already.
    pub interims: Vec<ResponseHead>,
    n_interims: usize,
    /// The names of its trailers, as the lambda's `Trailer` has them.
    pub announced: Option<Vec<u8>>,
    pub trailers: Trailers,
}

#[derive(Default)]
enum Body {
    #[default]
    Empty,
    Whole(Bytes),
    /// With its room, once it is long enough to be counted.
    Growing(BytesMut, Option<Room>),
    /// A 101, and the connection's end of what follows. It has no status, so that it is never taken for a response.
    Upgraded(Box<Upgraded>),
}

impl ResponseBuilder {
    /// The bodies of its responses have room in `held`.
    pub fn new(held: &Arc<HeldBytes>) -> ResponseBuilder {
        ResponseBuilder { held: Some(Arc::clone(held)), ..ResponseBuilder::default() }
    }

    /// Makes it ready for the next response.
    pub fn clear(&mut self) {
        self.status = None;
        self.body = Body::Empty;
        self.length = None;
        self.ended = false;
        self.unusual = 0;
    }

    /// Takes the head and the body, or the beginning of the body if `more` follows.
    pub fn respond<'a>(
        &mut self,
        code: u32,
        headers: impl Iterator<Item = (impl AsRef<[u8]>, &'a [u8])>,
        body: Bytes,
        more: bool,
        limit: usize,
    ) -> Status {
        let code = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
        let (None, Some(code)) = (self.status, code) else { return status::INVALID };
        if code.is_informational() {
            return if more { self.inform(code, headers) } else { status::INVALID };
        }
        if code.as_u16() > 599 || !self.take_headers(code, headers) {
            return status::INVALID;
        }
        if body.len() > limit {
            return status::TOO_LARGE;
        }
        self.status = Some(code);
        self.ended = !more;
        // Most bodies are short, and these lines are on the road of each.
        let is_counted = body.len() > UNCOUNTED;
        self.body = Body::Whole(body);
        if is_counted { self.hold_body(more) } else { status::OK }
    }

    /// Takes the head of an interim response, which the final one follows.
    #[cold]
    fn inform<'a>(
        &mut self,
        status: StatusCode,
        headers: impl Iterator<Item = (impl AsRef<[u8]>, &'a [u8])>,
    ) -> Status {
        // The server asks for bodies itself, and another protocol is begun in another way.
        if matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS) {
            return status::INVALID;
        }
        let mut fields = Fields::NONE;
        for (name, value) in headers {
            let n = fields.len();
            let Some(name) = checked(name.as_ref(), value) else { return status::INVALID };
            if is_the_servers(fields.append_token(name, value)) {
                fields.truncate(n);
            }
        }
        let interim = ResponseHead::new(status, Arc::new(fields));
        let extras = self.extras();
        if extras.n_interims >= MAX_INTERIMS {
            return status::TOO_LARGE;
        }
        extras.n_interims += 1;
        extras.interims.push(interim);
        status::OK
    }

    /// Takes trailers of a response that has not ended.
    pub fn add_trailers(&mut self, trailers: Trailers) -> Status {
        if self.ended {
            return status::INVALID;
        }
        let all = &mut self.extras().trailers;
        if all.n_bytes() + trailers.n_bytes() > MAX_TRAILERS {
            return status::TOO_LARGE;
        }
        all.append(trailers);
        status::OK
    }

    /// What this response has beside its head and its body.
    fn extras(&mut self) -> &mut Extras {
        let extras = self.extras.get_or_insert_default();
        if self.unusual & EXTRAS == 0 {
            self.unusual |= EXTRAS;
            **extras = Extras::default();
        }
        extras
    }

    /// The same, if there is something of it. It is taken, and how much there was of it is remembered.
    pub fn take_extras(&mut self) -> Option<Extras> {
        if self.unusual & EXTRAS == 0 {
            return None;
        }
        let extras = self.extras();
        let n_interims = extras.n_interims;
        Some(std::mem::replace(extras, Extras { n_interims, ..Extras::default() }))
    }

    /// Takes the interim responses that have not gone.
    pub fn take_interims(&mut self) -> Vec<ResponseHead> {
        std::mem::take(&mut self.extras().interims)
    }

    /// The fields of its head.
    #[inline]
    pub fn fields(&self) -> Arc<Fields> {
        Arc::clone(&self.fields)
    }

    /// Whether its head is there.
    pub fn has_begun(&self) -> bool {
        self.status.is_some()
    }

    /// Whether it has extras, or there was no room for it.
    pub fn is_unusual(&self) -> bool {
        self.unusual != 0
    }

    /// Takes room for the body that is whole or begun.
    #[cold]
    fn hold_body(&mut self, more: bool) -> Status {
        let Body::Whole(body) = std::mem::take(&mut self.body) else { return status::OK };
        let held = match &self.held {
            Some(held) => held.hold(body),
            None => Some(body),
        };
        let Some(body) = held else { return self.drop_body(more) };
        self.body = Body::Whole(body);
        status::OK
    }

    /// There is no room for the body: the client is told so, and the lambda if it has more to say.
    fn drop_body(&mut self, more: bool) -> Status {
        self.unusual |= NO_ROOM;
        self.body = Body::Empty;
        if more { status::GONE } else { status::OK }
    }

    /// There is no room for a response, and so no run.
    pub fn refuse(&mut self) {
        self.unusual |= NO_ROOM;
    }

    /// Whether there was no room for the response.
    pub fn has_no_room(&self) -> bool {
        self.unusual & NO_ROOM != 0
    }

    /// Whether all of the headers are well-formed.
    fn take_headers<'a>(
        &mut self,
        code: StatusCode,
        headers: impl Iterator<Item = (impl AsRef<[u8]>, &'a [u8])>,
    ) -> bool {
        let mut n = 0;
        self.length = None;
        for (name, value) in headers {
            let name = name.as_ref();
            if name == b"content-length" {
                let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                if length.is_none() || self.length.is_some_and(|other| length != Some(other)) {
                    return false;
                }
                self.length = length;
                continue;
            }
            if self.fields.is_nth(n, name, value) {
                n += 1;
                continue;
            }
            let Some(name) = checked(name, value) else { return false };
            let fields = Arc::make_mut(&mut self.fields);
            fields.truncate(n);
            match fields.append_token(name, value) {
                // RFC 9110, section 15.5.22: with 426, it says what to upgrade to.
                "upgrade" if code == StatusCode::UPGRADE_REQUIRED => n += 1,
                "trailer" => {
                    fields.truncate(n);
                    self.extras().announced = Some(value.to_vec());
                }
                name if is_the_servers(name) => fields.truncate(n),
                _ => n += 1,
            }
        }
        if self.fields.len() > n {
            Arc::make_mut(&mut self.fields).truncate(n);
        }
        true
    }

    /// Takes the next piece of the body.
    pub fn write(&mut self, piece: &Bytes, more: bool, limit: usize) -> Status {
        if self.status.is_none() || self.ended {
            return status::INVALID;
        }
        if self.has_no_room() {
            return status::GONE;
        }
        let (mut body, mut room) = match std::mem::take(&mut self.body) {
            Body::Empty => (BytesMut::new(), None),
            Body::Whole(bytes) => (bytes.into(), None),
            Body::Growing(bytes, room) => (bytes, room),
            Body::Upgraded(_) => return status::INVALID,
        };
        let length = body.len().saturating_add(piece.len());
        let fits = length <= limit;
        if fits {
            if let Some(held) = self.held.as_ref().filter(|_| length > UNCOUNTED)
                && room.get_or_insert_with(|| held.room()).grow_to(length).is_none()
            {
                return self.drop_body(more);
            }
            body.extend_from_slice(piece);
            self.ended = !more;
        }
        self.body = Body::Growing(body, room);
        if fits { status::OK } else { status::TOO_LARGE }
    }

    /// Ends a response that was begun: Run returned.
    pub fn end(&mut self) {
        self.ended |= self.status.is_some();
    }

    /// The head of a response that goes on. `takes_trailers` says whether its trailers reach the client.
    pub fn head(&self, takes_trailers: impl FnOnce() -> bool) -> Option<Head> {
        let (mut fields, length) = (self.fields(), self.length);
        if self.unusual & EXTRAS != 0
            && let Some(announced) = self.extras.as_ref().and_then(|extras| extras.announced.clone())
            && length.is_none()
            && takes_trailers()
        {
            Arc::make_mut(&mut fields).append("trailer", &announced);
        }
        self.status.map(|status| Head { status, fields, length })
    }

    /// Takes the response out, and leaves none begun.
    pub fn take_whole(&mut self) -> ResponseBuilder {
        let held = self.held.clone();
        std::mem::replace(self, ResponseBuilder { held, ..ResponseBuilder::default() })
    }

    /// Status and body of a complete response; `None` if it was not begun or not ended.
    pub fn take(&mut self) -> Option<(StatusCode, Bytes)> {
        let code = self.status.take().filter(|_| self.ended)?;
        let body = match std::mem::take(&mut self.body) {
            Body::Empty => Bytes::new(),
            Body::Whole(bytes) => bytes,
            Body::Growing(bytes, Some(room)) => room.holding(bytes.freeze()),
            Body::Growing(bytes, None) => bytes.freeze(),
            Body::Upgraded(_) => return None,
        };
        Some((code, body))
    }

    /// Takes the head of a 101, which must name a protocol of the offer; false if it isn't fit.
    pub fn take_upgrade<'a>(
        &mut self,
        headers: impl Iterator<Item = (impl AsRef<[u8]>, &'a [u8])> + Clone,
        offer: &Offer,
    ) -> bool {
        let mut protocols = headers.clone().filter(|(name, _)| name.as_ref() == b"upgrade");
        let (Some((_, protocol)), None) = (protocols.next(), protocols.next()) else { return false };
        if !offer.has(protocol)
            || self.status.is_some()
            || !self.take_headers(StatusCode::SWITCHING_PROTOCOLS, headers)
        {
            return false;
        }
        Arc::make_mut(&mut self.fields).append("upgrade", protocol);
        true
    }

    /// The response is a 101 with the headers that were taken, and `upgraded` what follows it.
    pub fn upgrade(mut self, upgraded: Upgraded) -> ResponseBuilder {
        self.body = Body::Upgraded(Box::new(upgraded));
        self
    }

    /// The connection's end of what follows, if the response is a 101.
    pub fn take_upgraded(&mut self) -> Option<Box<Upgraded>> {
        match std::mem::take(&mut self.body) {
            Body::Upgraded(upgraded) => Some(upgraded),
            other => {
                self.body = other;
                None
            }
        }
    }
}

/// Framing and connections are the server's business: what a lambda says of them is dropped.
fn is_the_servers(name: &str) -> bool {
    let framing = ["content-length", "te", "trailer", "transfer-encoding"];
    let connection = ["connection", "date", "keep-alive", "proxy-connection", "upgrade"];
    framing.contains(&name) || connection.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn responded(code: u32, headers: &[(&str, &str)], more: bool) -> (ResponseBuilder, Status) {
        let mut response = ResponseBuilder::default();
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        let status = response.respond(code, headers, Bytes::from_static(b"abc"), more, 5);
        (response, status)
    }

    #[test]
    fn a_head_is_checked() {
        for bad in [0, 99, 101, 600, 999, 1000, 70_000] {
            assert_eq!(responded(bad, &[], false).1, status::INVALID, "{bad}");
        }
        assert_eq!(responded(200, &[("x", "a\r\nb")], false).1, status::INVALID);
        assert_eq!(responded(200, &[("a b", "c")], false).1, status::INVALID);
        assert_eq!(responded(599, &[("x", "b")], false).1, status::OK);
    }

    #[test]
    fn any_head_is_taken_so_that_it_can_be_sent_or_not_at_all() {
        type Said = (u16, Vec<(u8, String, Vec<u8>)>, Vec<u8>, bool);
        let names = ["x", "content-length", "connection", "transfer-encoding", "set-cookie", ""];
        // Answers of one Context: what is kept of one must not come up in the next.
        let response = std::sync::Mutex::new(ResponseBuilder::default());
        bolero::check!().with_type::<Said>().for_each(|(code, headers, body, small)| {
            let mut response = response.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            response.clear();
            let code = u32::from(code % 700);
            let headers: Vec<_> = headers
                .iter()
                .map(|(kind, name, value)| {
                    // Half of the values are digits, as a length is.
                    let digits = value.iter().map(|byte| b'0' + byte % 10).collect();
                    let value = if kind & 1 == 0 { value.clone() } else { digits };
                    (names.get(usize::from(*kind) % 12).map_or(name.as_str(), |name| *name), value)
                })
                .collect();
            let given = headers.iter().map(|(name, value)| (*name, value.as_slice()));
            let limit = if *small { 3 } else { usize::MAX };
            let said = response.respond(code, given.clone(), body.clone().into(), false, limit);
            let again = response.respond(200, given.clone().take(0), Bytes::new(), false, limit);
            let Some((status, sent)) = response.take() else {
                assert_ne!(said, status::OK);
                return;
            };
            if said != status::OK {
                let second = (again, status.as_u16());
                return assert_eq!(second, (status::OK, 200), "the first one left no trace");
            }
            assert_eq!((again, u32::from(status.as_u16()), &sent[..]), (status::INVALID, code, &body[..]));
            assert!((200..600).contains(&code) && body.len() <= limit);
            let wanted = given.filter(|(name, _)| {
                checked(name.as_bytes(), b"").is_some_and(|name| !is_the_servers(&name.to_lowercase()))
            });
            let wanted: Vec<_> = wanted.map(|(name, value)| (name.to_lowercase(), value)).collect();
            let fields = response.fields();
            let taken = fields.iter().map(|(name, value)| (name.to_owned(), value));
            let taken: Vec<_> = taken.collect();
            assert_eq!(taken, wanted);
            assert!(taken.iter().all(|(_, value)| !value.iter().any(|byte| b"\r\n\0".contains(byte))));
        });
    }

    #[test]
    fn framing_is_the_servers() {
        let headers = [("content-length", "9"), ("x", "y"), ("keep-alive", "1")];
        let (mut response, _) = responded(200, &headers, false);
        let (code, body) = response.take().unwrap();
        assert_eq!((code.as_u16(), &body[..]), (200, &b"abc"[..]));
        assert_eq!(response.fields().iter().collect::<Vec<_>>(), [("x", &b"y"[..])]);
    }

    #[test]
    fn headers_of_one_response_do_not_stay_in_the_next() {
        let mut response = ResponseBuilder::default();
        let lists: [&[(&str, &str)]; 5] = [
            &[("a", "1"), ("b", "2")],
            &[("a", "1"), ("b", "3"), ("c", "4")],
            &[("b", "3")],
            &[("connection", "close"), ("b", "3")],
            &[],
        ];
        for list in lists {
            response.clear();
            let headers = list.iter().map(|(name, value)| (*name, value.as_bytes()));
            assert_eq!(response.respond(200, headers, Bytes::new(), false, 5), status::OK);
            assert!(response.take().is_some());
            let fields = response.fields();
            let wanted = list.iter().filter(|(name, _)| *name != "connection");
            assert!(fields.iter().eq(wanted.map(|(name, value)| (*name, value.as_bytes()))), "{list:?}");
        }
    }

    #[test]
    fn interim_responses_come_before_the_final_one_and_none_is_the_servers_business() {
        let mut response = ResponseBuilder::default();
        let mut respond = |code, more| {
            let headers = [("link", &b"</s.css>"[..]), ("connection", b"close")].into_iter();
            response.respond(code, headers, Bytes::new(), more, 5)
        };
        for (code, more) in [(100, true), (101, true), (103, false), (99, true)] {
            assert_eq!(respond(code, more), status::INVALID, "{code}");
        }
        for _ in 0..MAX_INTERIMS {
            assert_eq!(respond(103, true), status::OK);
        }
        assert_eq!(respond(103, true), status::TOO_LARGE);
        assert_eq!(respond(200, true), status::OK);
        assert_eq!(respond(103, true), status::INVALID);
        let extras = response.take_extras().unwrap();
        assert_eq!(extras.interims.len(), MAX_INTERIMS);
        assert_eq!(extras.interims[0].fields.iter().collect::<Vec<_>>(), [("link", &b"</s.css>"[..])]);
    }

    #[test]
    fn what_is_unusual_of_one_response_does_not_stay_in_the_next() {
        let mut response = ResponseBuilder::default();
        let mut trailers = Trailers::NONE;
        assert!(trailers.add(b"x", b"y"));
        let headers = || [("trailer", &b"x"[..])].into_iter();
        assert_eq!(response.respond(103, headers(), Bytes::new(), true, 5), status::OK);
        assert_eq!(response.respond(200, headers(), Bytes::new(), true, 5), status::OK);
        assert_eq!(response.add_trailers(trailers.clone()), status::OK);
        response.end();
        assert_eq!(response.add_trailers(trailers.clone()), status::INVALID);
        assert!(response.is_unusual());
        response.clear();
        assert!(!response.is_unusual() && response.take_extras().is_none());
        assert_eq!(response.add_trailers(trailers.clone()), status::OK, "before the head");
        let extras = response.take_extras().unwrap();
        assert_eq!((extras.interims.len(), extras.announced, extras.trailers), (0, None, trailers));
    }

    #[test]
    fn a_body_grows_to_its_limit_and_ends_once() {
        let (mut response, status) = responded(200, &[], true);
        assert_eq!(status, status::OK);
        assert_eq!(response.write(&Bytes::from_static(b"de"), true, 5), status::OK);
        assert_eq!(response.write(&Bytes::from_static(b"f"), true, 5), status::TOO_LARGE);
        assert_eq!(response.write(&Bytes::new(), false, 5), status::OK);
        assert_eq!(response.write(&Bytes::new(), false, 5), status::INVALID);
        assert_eq!(&response.take().unwrap().1[..], b"abcde");
    }

    #[test]
    fn a_response_that_was_not_ended_is_none_until_run_returns() {
        let (mut response, _) = responded(200, &[], true);
        assert!(response.take().is_none());
        let (mut response, _) = responded(200, &[], true);
        response.end();
        assert!(response.take().is_some());
        assert!(ResponseBuilder::default().take().is_none());
    }
}
