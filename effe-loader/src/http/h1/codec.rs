//! Finds heads and pieces of bodies in the bytes of a connection, and keeps how much of the current request has been
//! read. actix-http parses heads, and `chunks` bodies in chunks; `conn` decides when bytes are read.

use std::{
    cell::RefCell,
    task::{Poll, ready},
};

use actix_http::{
    ConnectionType, Method, Request, RequestHead, Response, ServiceConfig, StatusCode, Version,
    body::BodySize,
    error::{ParseError, PayloadError},
    h1::{self, MessageType},
    header,
};
use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::chunks::{self, Chunks};
use crate::{
    body::{incoming::announced, trailers::Trailers},
    http::validate::{
        MAX_HEAD, MAX_TARGET, Target, has_long_header, has_unknown_coding, refused_version, request_line,
    },
    net::activity::ConnActivity,
};

/// Bytes of a body that nobody wants which are read so that the connection can be used again.
pub const MAX_DRAIN: u64 = 256 * 1024;

/// Bytes of a body from which on it is read past the codec.
const LARGE: u64 = 64 * 1024;

/// Bytes of a head that are looked at again when the parser refuses it.
const MAX_LOOK: usize = 1024;

thread_local! {
    /// The begin of the head that is being parsed, if it is no GET's: the parser takes the bytes also of a head that it
    /// refuses.
    static BEGIN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The parser of a connection, and what it knows of the request that is being answered.
pub struct Codec {
    codec: h1::Codec,
    is_tls: bool,
    body_limit: u64,
    pub request: Current,
    /// Those of the last body that had any.
    trailers: Trailers,
}

/// The request that is being answered.
#[derive(Default)]
pub struct Current {
    pub version: Version,
    /// Whether its method is HEAD, so that its answer has no body.
    pub is_head: bool,
    pub body: Rest,
    chunks: Chunks,
    /// Whether the codec knows nothing of the body, whose length is all that there is to know of it.
    is_raw: bool,
    /// Whether the client keeps its body back until it is asked for it.
    pub is_kept_back: bool,
    /// Whether somebody may still read the body.
    pub has_reader: bool,
    is_answered: bool,
}

/// What of a body has not been read.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Rest {
    #[default]
    Nothing,
    /// So many bytes.
    Length(u64),
    /// Chunks; how many is not known.
    Chunks,
    /// The client has broken it off, or has sent what is no chunk.
    Broken,
}

/// What has come.
pub enum Message {
    /// A request, how many bytes its head has, and its body if that has come together with it.
    Request { request: Request, n_head: usize, body: Option<Bytes> },
    /// Something that is no request: nothing that follows it is read.
    Refused(StatusCode),
    /// Nothing more comes.
    End,
}

impl Codec {
    pub fn new(config: ServiceConfig, is_tls: bool, body_limit: u64) -> Codec {
        let codec = h1::Codec::new(config);
        Codec { codec, is_tls, body_limit, request: Current::default(), trailers: Trailers::NONE }
    }

    /// The next request, if all of its head is in `input`.
    pub fn message(&mut self, input: &mut BytesMut, activity: &ConnActivity) -> Option<Message> {
        if input.is_empty() {
            return None;
        }
        let before = input.len();
        let (mut request, target) = match self.head(input) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return None,
            Err(status) => return Some(Message::Refused(status)),
        };
        let n_head = before - input.len();
        match target {
            Target::Malformed => return Some(Message::Refused(StatusCode::BAD_REQUEST)),
            // RFC 9110, section 7.4.
            Target::Absolute { is_https: true, .. } if !self.is_tls => {
                return Some(Message::Refused(StatusCode::MISDIRECTED_REQUEST));
            }
            Target::Absolute { .. } if target.complete(request.head_mut()).is_none() => {
                return Some(Message::Refused(StatusCode::BAD_REQUEST));
            }
            Target::Absolute { .. } | Target::Plain => {}
        }
        let head = request.head();
        self.request =
            Current { version: head.version, is_head: head.method == Method::HEAD, ..Current::default() };
        let mut body = None;
        if self.codec.message_type() == MessageType::Stream {
            // The client offers to speak another protocol, and actix-http takes all that follows for that protocol.
            // Unless a lambda accepts that, the body is what the head says, and the connection ends behind it.
            activity.is_closing.set(true);
            self.replace(head, length(head).unwrap_or_default());
        }
        match self.codec.message_type() {
            MessageType::None | MessageType::Stream => {}
            MessageType::Payload => {
                self.request.body = length(head).map_or(Rest::Chunks, Rest::Length);
                if self.request.body == Rest::Chunks {
                    // So that the codec takes what follows the body for a head: it sees none of the chunks.
                    let _ = self.codec.decode(&mut BytesMut::from(&b"0\r\n\r\n"[..]));
                }
                body = self.whole(input);
                if let Rest::Length(LARGE..) = self.request.body {
                    self.request.is_raw = true;
                    self.replace(head, 0);
                }
                self.request.is_kept_back = head.expect() && input.is_empty() && !self.is_read();
            }
        }
        Some(Message::Request { request, n_head, body })
    }

    /// The next head and the form of its target, if all of it is in `input`; or the status for what is no request.
    fn head(&mut self, input: &mut BytesMut) -> Result<Option<(Request, Target)>, StatusCode> {
        if input.len() > MAX_HEAD && has_long_header(input) {
            return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        }
        let (method, path) = request_line(input);
        let target = Target::of(method, path);
        // A GET has hardly ever a body, and its road is the hottest.
        let is_kept = method != b"GET";
        if is_kept {
            BEGIN.with_borrow_mut(|begin| {
                begin.clear();
                begin.extend_from_slice(&input[..input.len().min(MAX_LOOK)]);
            });
        }
        Err(match self.codec.decode(input) {
            Ok(Some(h1::Message::Item(request))) => return Ok(Some((request, target))),
            Ok(None) => return Ok(None),
            Err(ParseError::TooLarge) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            // A token that the parser's type of methods can't hold.
            Err(ParseError::Method) => StatusCode::NOT_IMPLEMENTED,
            Err(ParseError::Uri(_)) if request_line(input).1.len() > MAX_TARGET => StatusCode::URI_TOO_LONG,
            Err(ParseError::Version) => {
                let (method, path) = request_line(input);
                let begin = input.iter().take_while(|byte| b"\r\n".contains(byte)).count();
                let at = begin + method.len() + path.len() + 2;
                // RFC 9110, section 2.5: a later version of HTTP/1 is understood as the latest that is known.
                let version = input.get_mut(at..).unwrap_or_default();
                if let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'2'..=b'9', ..] = version {
                    *minor = b'1';
                    return self.head(input);
                }
                refused_version(version)
            }
            Err(ParseError::Header) if is_kept && BEGIN.with_borrow(|begin| has_unknown_coding(begin)) => {
                StatusCode::NOT_IMPLEMENTED
            }
            Ok(Some(h1::Message::Chunk(_))) | Err(_) => StatusCode::BAD_REQUEST,
        })
    }

    /// Has the codec go on as after a head that offers no other protocol, and that a body of this length follows.
    #[cold]
    fn replace(&mut self, head: &RequestHead, length: u64) {
        let method = if head.method == Method::HEAD { "HEAD" } else { "GET" };
        let version = if head.version < Version::HTTP_11 { "1.0" } else { "1.1" };
        let connection = if head.connection_type() == ConnectionType::Close { "close" } else { "keep-alive" };
        let mut like = BytesMut::from(&*format!(
            "{method} / HTTP/{version}\r\nhost: h\r\nconnection: {connection}\r\ncontent-length: {length}\r\n\r\n"
        ));
        self.codec = h1::Codec::new(self.codec.config().clone());
        let _ = self.codec.decode(&mut like);
    }

    /// A body that has come together with its head.
    fn whole(&mut self, input: &mut BytesMut) -> Option<Bytes> {
        let Rest::Length(length) = self.request.body else { return None };
        if (input.len() as u64) < length {
            return None;
        }
        match self.piece(input) {
            Poll::Ready(piece) => piece?.ok(),
            Poll::Pending => None,
        }
    }

    /// The next piece of the body, or its end; pending if more bytes are needed to tell.
    pub fn piece(&mut self, input: &mut BytesMut) -> Poll<Option<Result<Bytes, PayloadError>>> {
        match self.request.body {
            Rest::Nothing => return Poll::Ready(None),
            Rest::Broken => return Poll::Ready(Some(Err(PayloadError::Incomplete(None)))),
            Rest::Chunks => return self.chunk(input),
            Rest::Length(_) if input.is_empty() => return Poll::Pending,
            Rest::Length(left) if self.request.is_raw => {
                let piece = input.split_to(input.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
                self.read(piece.len() as u64);
                return Poll::Ready(Some(Ok(piece.freeze())));
            }
            Rest::Length(_) => {}
        }
        match self.codec.decode(input) {
            Ok(Some(h1::Message::Chunk(Some(mut piece)))) => {
                if let Rest::Length(left) = &mut self.request.body {
                    piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= piece.len() as u64;
                    if *left == 0 {
                        self.request.body = Rest::Nothing;
                        // So that the codec takes what follows for a head.
                        let _ = self.codec.decode(input);
                    }
                }
                Poll::Ready(Some(Ok(piece)))
            }
            Ok(Some(h1::Message::Chunk(None))) => {
                self.request.body = Rest::Nothing;
                Poll::Ready(None)
            }
            Ok(None) => Poll::Pending,
            Ok(Some(h1::Message::Item(_))) | Err(_) => {
                self.request.body = Rest::Broken;
                Poll::Ready(Some(Err(PayloadError::EncodingCorrupted)))
            }
        }
    }

    /// How much of the body is left, if that may be read past the codec.
    pub fn raw(&self) -> Option<usize> {
        match self.request.body {
            Rest::Length(left) if self.request.is_raw && !self.request.is_kept_back => {
                Some(usize::try_from(left).unwrap_or(usize::MAX))
            }
            _ => None,
        }
    }

    /// So many bytes of the body have been read past the codec.
    pub fn read(&mut self, n_bytes: u64) {
        if let Rest::Length(left) = &mut self.request.body {
            *left -= n_bytes;
            if *left == 0 {
                self.request.body = Rest::Nothing;
            }
        }
    }

    fn chunk(&mut self, input: &mut BytesMut) -> Poll<Option<Result<Bytes, PayloadError>>> {
        let next = ready!(self.request.chunks.next(input, self.body_limit, &mut self.trailers));
        match next {
            None => self.request.body = Rest::Nothing,
            Some(Err(_)) => self.request.body = Rest::Broken,
            Some(Ok(_)) => {}
        }
        Poll::Ready(next.map(|piece| {
            piece.map_err(|refused| match refused {
                chunks::Refused::Malformed => PayloadError::EncodingCorrupted,
                chunks::Refused::TooLarge => PayloadError::Overflow,
            })
        }))
    }

    /// Takes what has come behind the body, if all of that has been read.
    pub fn trailers(&mut self) -> Trailers {
        let has_any = self.is_read() && self.request.chunks.has_trailers();
        if has_any { std::mem::take(&mut self.trailers) } else { Trailers::NONE }
    }

    /// Writes an answer's head; `None` if it can't be written.
    pub fn begin(&mut self, response: Response<()>, size: BodySize, output: &mut BytesMut) -> Option<()> {
        self.request.is_answered = true;
        self.codec.encode(h1::Message::Item((response, size)), output).ok()
    }

    /// Whether the client must be told now to send its body: once at most, and not after its answer has begun.
    pub fn take_expectation(&mut self) -> bool {
        std::mem::take(&mut self.request.is_kept_back) && !self.request.is_answered
    }

    /// Whether all of the request has been read.
    pub fn is_read(&self) -> bool {
        self.request.body == Rest::Nothing
    }

    /// Whether the answer's head lets the client use the connection again.
    pub fn is_kept(&self) -> bool {
        self.codec.keep_alive() || self.codec.upgrade()
    }

    /// Whether the rest of the body can be read so that the connection can be used again.
    pub fn can_skip(&self) -> bool {
        match self.request.body {
            Rest::Nothing => true,
            _ if self.request.is_kept_back => false,
            Rest::Length(left) => left <= MAX_DRAIN || self.request.has_reader,
            Rest::Chunks => true,
            Rest::Broken => false,
        }
    }
}

fn length(head: &RequestHead) -> Option<u64> {
    if head.headers.contains_key(header::TRANSFER_ENCODING) { None } else { announced(head) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::validate;

    thread_local! {
        /// It can be made in a runtime alone.
        static CONFIG: ServiceConfig =
            actix_web::rt::Runtime::new().unwrap().block_on(async { ServiceConfig::default() });
    }

    fn parsed(bytes: &[u8]) -> Result<Request, StatusCode> {
        let mut codec = Codec::new(CONFIG.with(Clone::clone), true, u64::MAX);
        match codec.message(&mut BytesMut::from(bytes), &ConnActivity::default()) {
            Some(Message::Request { request, .. }) => Ok(request),
            Some(Message::Refused(status)) => Err(status),
            None | Some(Message::End) => Err(StatusCode::CONTINUE),
        }
    }

    /// As the plugin's side makes it, from the same parts.
    fn to_http(request: &Request) -> Result<http::Request<()>, http::Error> {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).to_owned();
        let mut builder = http::Request::builder()
            .method(request.method().as_str())
            .uri(http::Uri::from_maybe_shared(Bytes::from(target))?);
        for (name, value) in &request.head().headers {
            builder = builder.header(name.as_str(), value.as_bytes());
        }
        builder.body(())
    }

    #[test]
    fn an_absolute_target_with_an_empty_path_means_a_path() {
        for (line, path, query) in [
            ("GET http://a?x=1", "/", Some("x=1")),
            ("GET http://a", "/", None),
            ("GET HTTPS://a:80/p?", "/p", Some("")),
            ("OPTIONS http://a", "*", None),
            ("OPTIONS http://a/", "/", None),
            ("OPTIONS http://a?", "/", Some("")),
        ] {
            let request = parsed(format!("{line} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).unwrap();
            assert_eq!((request.uri().path(), request.uri().query()), (path, query), "{line}");
            assert!(request.uri().authority().is_some(), "{line}");
        }
    }

    #[test]
    fn a_name_may_have_any_length_and_stand_behind_anything() {
        const LARGE: StatusCode = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        for begin in [
            "GET / HTTP/1.1\r\n",
            "\r\n\nPUT /?a HTTP/1.1\n",
            "GET / HTTP/1.7\r\nX:\r\n",
            "GET / HTTP/1.0\r\n",
        ] {
            for n_name in (MAX_HEAD - 4..MAX_HEAD + 4).chain([2 * MAX_HEAD - 100]) {
                let name = "n".repeat(n_name);
                let found = parsed(format!("{begin}Host: h\r\n{name}:\r\n\r\n").as_bytes());
                let found = found.map(|request| validate::check(request.head(), None));
                let is_large = matches!(found, Err(LARGE) | Ok(Err(validate::Violation::LargeHead)));
                assert!(is_large, "{n_name} bytes behind {begin:?}: {found:?}");
            }
        }
        let large = "x".repeat(2 * MAX_HEAD);
        let body = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{large}", large.len());
        assert!(parsed(body.as_bytes()).is_ok(), "what is behind a head is no header");
    }

    #[test]
    fn what_passes_is_a_request_for_others_too() {
        let bytes = bolero::generator::produce::<(Vec<u8>, Vec<u8>, Vec<u8>, u8)>();
        bolero::check!().with_generator(bytes).for_each(|(method, target, value, form)| {
            let letters = b"/?:@[]%a1.-*~#$!'|\"{}^`\\_&=;,+<>\x80";
            let text = |bytes: &[u8]| -> Vec<u8> {
                bytes.iter().map(|byte| letters[usize::from(*byte) % letters.len()]).collect()
            };
            let method = if form & 1 == 0 { b"OPTIONS".to_vec() } else { text(method) };
            let begin = [&b""[..], b"/", b"http://", b"https://a", b"http://a/", b"//", b"http://[::1]"];
            let begin = begin[usize::from(form / 2) % begin.len()];
            let target = if form & 128 == 0 { text(target) } else { target.clone() };
            let bytes =
                [&method, &b" "[..], begin, &target, b" HTTP/1.1\r\nHost: h\r\nX: ", value, b"\r\n\r\n"];
            if let Ok(request) = parsed(&bytes.concat())
                && validate::check(request.head(), None).is_ok()
            {
                let made = to_http(&request);
                assert!(made.is_ok(), "{made:?} of {request:?}");
            }
        });
    }
}
