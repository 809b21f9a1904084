//! Makes a request of h2 one that a `Service` takes. An extended CONNECT (RFC 8441) becomes the offer that it would be
//! in HTTP/1.1: a lambda needn't know that there are two forms of it, and none of them was written for this one.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures_core::Stream;
use h2::{RecvStream, ext::Protocol};
use http::{HeaderMap, Method, Version, header, uri::Authority};

use crate::{
    body::{
        incoming::{BodyError, Incoming, Source},
        trailers::Trailers,
    },
    http::target::is_path,
    message::{
        fields::{Fields, is_tchar},
        request::{Request, RequestHead},
    },
};

/// Bytes of a request's body that a client may send before somebody has read them.
pub const WINDOW: u32 = 256 * 1024;

/// A request that a `Service` takes, and what comes with it.
pub struct Translated {
    pub request: Request,
    pub incoming: Incoming,
    /// If the client keeps the body back, what tells when a reader wants it.
    pub kept_back: Option<Rc<KeptBack>>,
    /// If the request is an extended CONNECT, what its client says in the other protocol.
    pub offered: Option<Box<RecvStream>>,
}

/// `None` if the request breaks a rule that h2 doesn't check.
pub fn translate(
    request: http::Request<RecvStream>,
    is_tls: bool,
    peer: Option<SocketAddr>,
) -> Option<Translated> {
    let (mut parts, body) = request.into_parts();
    // RFC 9113, section 8.3.1. A proxy in front may say `https` over a connection in clear, and h2 checks the form.
    if parts.uri.scheme_str().is_some_and(|scheme| !matches!(scheme, "http" | "https")) {
        return None;
    }
    let protocol = parts.extensions.remove::<Protocol>();
    let is_offer = protocol.is_some();
    let has_body = !is_offer && !body.is_end_stream();
    // RFC 9110, section 10.1.1.
    let expect = parts.headers.get(header::EXPECT).map_or(&b""[..], |value| value.as_bytes());
    let is_kept_back = has_body && expect.eq_ignore_ascii_case(b"100-continue");
    let kept_back = is_kept_back.then(Rc::<KeptBack>::default);
    let (incoming, offered) = match &kept_back {
        _ if is_offer => (Incoming::None, Some(Box::new(body))),
        _ if !has_body => (Incoming::None, None),
        None => (incoming(body), None),
        Some(_) => (
            Incoming::KeptBack(Box::pin(Pieces {
                body,
                kept_back: kept_back.clone(),
                first: None,
                kept: None,
            })),
            None,
        ),
    };
    let (request, is_sound) = Request::make(|head| {
        (head.version, head.is_tls, head.peer) = (Version::HTTP_2, is_tls, peer);
        fill(head, parts, protocol)
    });
    is_sound?;
    Some(Translated { request, incoming, kept_back, offered })
}

/// Makes a head of what h2 has parsed; `None` if it breaks a rule that h2 doesn't check.
fn fill(head: &mut RequestHead, parts: http::request::Parts, protocol: Option<Protocol>) -> Option<()> {
    head.method = parts.method;
    // CONNECT has no path, and is refused as in HTTP/1.1.
    let target = parts.uri.path_and_query().map_or(("/", 1), |target| (target.as_str(), target.path().len()));
    // h2 takes what is no ASCII.
    if !is_path(target.0.as_bytes()) && target.0 != "*" {
        return None;
    }
    head.set_target(|text| {
        text.push_str(target.0);
        target.1
    });
    fields(&mut head.fields, &parts.headers)?;
    one_host(&mut head.fields, parts.uri.authority().map(Authority::as_str))?;
    match protocol {
        Some(protocol) => offer(head, protocol.as_str()),
        None => Some(()),
    }
}

/// A key that stands for the one that HTTP/1.1 would have: sixteen bytes of nothing, in base64. Its answer is not sent.
const NO_KEY: &[u8] = b"AAAAAAAAAAAAAAAAAAAAAA==";

/// Makes an extended CONNECT what it would be in HTTP/1.1: a GET that offers to go on with another protocol.
#[cold]
fn offer(head: &mut RequestHead, protocol: &str) -> Option<()> {
    if protocol.is_empty() || !protocol.bytes().all(is_tchar) {
        return None;
    }
    head.method = Method::GET;
    head.connection.upgrade = true;
    // What belongs to a body, which there is none of.
    head.fields.remove("content-length");
    head.fields.remove("expect");
    head.fields.insert("connection", b"upgrade");
    head.fields.insert("upgrade", protocol.as_bytes());
    if protocol.eq_ignore_ascii_case("websocket") {
        // RFC 8441, section 5.1: there is none.
        head.fields.insert("sec-websocket-key", NO_KEY);
    }
    Some(())
}

fn fields(fields: &mut Fields, headers: &HeaderMap) -> Option<()> {
    for (name, value) in headers {
        // RFC 9113, section 8.2.1. In HTTP/1.1 such spaces are no part of the value.
        if let [b' ' | b'\t', ..] | [.., b' ' | b'\t'] = value.as_bytes() {
            return None;
        }
        fields.append(name.as_str(), value.as_bytes());
    }
    // RFC 9113, section 8.2.3: a cookie may come in crumbs, and is one header for everybody else.
    let crumbs: Vec<&[u8]> = fields.get_all("cookie").collect();
    if crumbs.len() > 1 {
        let cookie = crumbs.join(&b"; "[..]);
        fields.insert("cookie", &cookie);
    }
    Some(())
}

/// Leaves one Host: `:authority`, or the field. `None` if two of them differ, since those name two hosts (RFC 9113,
/// section 8.3.1), or if there are two fields, as in HTTP/1.1 (RFC 9112, section 3.2).
fn one_host(fields: &mut Fields, authority: Option<&str>) -> Option<()> {
    let mut hosts = fields.get_all("host");
    let (host, other) = (hosts.next(), hosts.next());
    drop(hosts);
    match (authority, host, other) {
        (_, _, Some(_)) => None,
        (None, _, None) => Some(()),
        (Some(authority), None, None) => {
            fields.append("host", authority.as_bytes());
            Some(())
        }
        (Some(authority), Some(host), None) => host.eq_ignore_ascii_case(authority.as_bytes()).then_some(()),
    }
}

/// A body that its client keeps back until it is told to send it.
#[derive(Default)]
pub struct KeptBack {
    is_wanted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl KeptBack {
    /// Ready once a reader waits for the body.
    pub fn poll_wanted(&self, cx: &Context<'_>) -> Poll<()> {
        if self.is_wanted.get() {
            return Poll::Ready(());
        }
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    fn want(&self) {
        self.is_wanted.set(true);
        // The reader may be in another task.
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// A body, whole if all of it is here in one frame: a client mostly sends a short one together with its head.
fn incoming(body: RecvStream) -> Incoming {
    let mut pieces = Pieces { body, kept_back: None, first: None, kept: None };
    // The next poll tells h2 whom to wake.
    let polled = Pin::new(&mut pieces).poll_next(&mut Context::from_waker(Waker::noop()));
    match polled {
        Poll::Ready(Some(Ok(bytes))) if pieces.body.is_end_stream() => return Incoming::Whole(bytes),
        Poll::Ready(first) => pieces.first = first,
        Poll::Pending => {}
    }
    Incoming::Pieces(Box::pin(pieces))
}

/// A body as it comes in. Each piece that is taken lets the client send as much again, or each that is read.
struct Pieces {
    body: RecvStream,
    /// Bytes that were taken and not read; `None` if what is taken counts as read.
    kept: Option<usize>,
    /// What has been taken already.
    first: Option<Result<Bytes, BodyError>>,
    /// `None` once a reader has waited for the first piece.
    kept_back: Option<Rc<KeptBack>>,
}

impl Pieces {
    fn release(&mut self, n_bytes: usize) {
        // It fails if the stream was reset; the next poll says so.
        let _ = self.body.flow_control().release_capacity(n_bytes);
    }
}

impl Stream for Pieces {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        let piece = match self.body.poll_data(cx) {
            Poll::Ready(Some(Ok(piece))) => piece,
            Poll::Ready(Some(Err(_))) => return Poll::Ready(Some(Err(BodyError::Incomplete))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {
                if let Some(kept_back) = self.kept_back.take() {
                    kept_back.want();
                }
                return Poll::Pending;
            }
        };
        match &mut self.kept {
            Some(kept) => *kept += piece.len(),
            None => self.release(piece.len()),
        }
        Poll::Ready(Some(Ok(piece)))
    }
}

impl Source for Pieces {
    fn keep_window(mut self: Pin<&mut Self>) -> Option<usize> {
        self.kept = Some(0);
        Some(WINDOW as usize)
    }

    fn give_window(mut self: Pin<&mut Self>, n_bytes: usize) {
        // The first piece was let go already.
        let n_bytes = n_bytes.min(self.kept.unwrap_or(0));
        self.kept = self.kept.map(|kept| kept - n_bytes);
        self.release(n_bytes);
    }

    fn trailers(mut self: Pin<&mut Self>) -> Trailers {
        let mut trailers = Trailers::NONE;
        // Behind the end of the data they are here, or there are none.
        let polled = self.body.poll_trailers(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(Ok(Some(fields))) = polled {
            for (name, value) in &fields {
                trailers.add(name.as_str().as_bytes(), value.as_bytes());
            }
        }
        trailers
    }
}
