//! Parses the head of a request. httparse finds its parts; what they mean for the framing of the body and for the
//! connection is decided here (RFC 9112, sections 6 and 9).

use std::{mem::MaybeUninit, net::SocketAddr};

use http::{Method, StatusCode, Version};
use httparse::{Error, Header, Status};

use crate::{
    http::{
        target::Target,
        validate::{MAX_HEAD, MAX_TARGET, has_unknown_coding, is_host, refused_version},
    },
    message::request::{ConnectionOptions, Request, RequestHead},
};

/// Fields of a head.
const MAX_FIELDS: usize = 96;
/// Bytes of a head that isn't complete.
const MAX_INCOMPLETE: usize = 2 * MAX_HEAD;

/// What the connection of a request is.
#[derive(Clone, Copy)]
pub struct Origin {
    pub is_tls: bool,
    pub peer: Option<SocketAddr>,
}

/// What of a body has not been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

/// A head, how many bytes it has, and what its body is.
pub type Parsed = (Request, usize, Rest);

/// Parses the next head, if all of it is in `input`.
///
/// # Errors
/// The status for what is no request.
pub fn parse(input: &mut [u8], origin: Origin) -> Result<Option<Parsed>, StatusCode> {
    let mut room = [const { MaybeUninit::<Header<'_>>::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let n_head = match parsed.parse_with_uninit_headers(input, &mut room) {
        Ok(Status::Complete(n_head)) => n_head,
        Ok(Status::Partial) if input.len() < MAX_INCOMPLETE => return Ok(None),
        Ok(Status::Partial) | Err(Error::TooManyHeaders) => {
            return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        }
        Err(Error::Version) => return other_version(input, origin),
        Err(_) => return Err(malformed(input)),
    };
    let (request, rest) = Request::make(|head| fill(head, &parsed, origin));
    match rest {
        Ok(rest) => Ok(Some((request, n_head, rest))),
        Err(StatusCode::BAD_REQUEST) => Err(malformed(input)),
        Err(status) => Err(status),
    }
}

/// RFC 9110, section 2.5: a later version of HTTP/1 is understood as the latest that is known.
#[cold]
fn other_version(input: &mut [u8], origin: Origin) -> Result<Option<Parsed>, StatusCode> {
    // Behind method and target, and all that follows.
    let version = input.splitn_mut(3, |byte| *byte == b' ').nth(2).unwrap_or_default();
    if let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'2'..=b'9', ..] = version {
        *minor = b'1';
        return parse(input, origin);
    }
    Err(refused_version(version))
}

#[cold]
fn malformed(input: &[u8]) -> StatusCode {
    match has_unknown_coding(input) {
        true => StatusCode::NOT_IMPLEMENTED,
        false => StatusCode::BAD_REQUEST,
    }
}

/// Makes a head of what was parsed; what its body is.
fn fill(
    head: &mut RequestHead,
    parsed: &httparse::Request<'_, '_>,
    origin: Origin,
) -> Result<Rest, StatusCode> {
    let (method, target) = (parsed.method.unwrap_or_default(), parsed.path.unwrap_or_default());
    // A token that the type of methods can't hold.
    head.method = Method::from_bytes(method.as_bytes()).map_err(|_| StatusCode::NOT_IMPLEMENTED)?;
    head.version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    (head.is_tls, head.peer) = (origin.is_tls, origin.peer);
    let Some(target) = Target::parse(&head.method, target) else {
        let is_long = target.len() > MAX_TARGET;
        return Err(if is_long { StatusCode::URI_TOO_LONG } else { StatusCode::BAD_REQUEST });
    };
    head.set_target(|text| target.write(text));
    let rest = fields(head, parsed.headers).ok_or(StatusCode::BAD_REQUEST)?;
    if let Some(authority) = target.authority {
        // RFC 9110, section 7.4.
        if target.is_https && !origin.is_tls {
            return Err(StatusCode::MISDIRECTED_REQUEST);
        }
        head.set_authority(authority);
        // RFC 9112, section 3.2.2: the Host that has come is ignored. A missing or malformed one is refused later.
        if head.fields.get("host").map_or(head.version < Version::HTTP_11, is_host) {
            head.fields.insert("host", authority.as_bytes());
        }
    }
    Ok(rest)
}

/// Takes the fields, and what they say of the body and the connection; `None` if they contradict each other.
fn fields(head: &mut RequestHead, headers: &[Header<'_>]) -> Option<Rest> {
    let is_http11 = head.version >= Version::HTTP_11;
    let (mut length, mut is_chunked, mut has_host) = (None, false, false);
    for Header { name, value } in headers {
        match head.fields.append_token(name, value) {
            "host" if has_host => return None,
            "host" => has_host = true,
            "content-length" if length.is_some() => return None,
            "content-length" => length = Some(number(value.trim_ascii())?),
            // RFC 9112, section 6.1: HTTP/1.0 doesn't know codings.
            "transfer-encoding" if is_chunked || !is_http11 => return None,
            "transfer-encoding" if !value.trim_ascii().eq_ignore_ascii_case(b"chunked") => return None,
            "transfer-encoding" => is_chunked = true,
            "connection" => head.connection.add(value),
            "expect" if is_http11 => {
                head.expects_continue |= members(value).any(|one| one.eq_ignore_ascii_case(b"100-continue"));
            }
            _ => {}
        }
    }
    match (is_chunked, length) {
        (true, None) => Some(Rest::Chunks),
        (true, Some(_)) => None,
        (false, Some(0)) => Some(Rest::Nothing),
        (false, Some(length)) => Some(Rest::Length(length)),
        // RFC 1945, section 7.2.2: there is no other way to tell where the body ends.
        (false, None) if !is_http11 && head.method == Method::POST => None,
        (false, None) => Some(Rest::Nothing),
    }
}

/// A number of digits alone.
fn number(digits: &[u8]) -> Option<u64> {
    let are_digits = digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| are_digits)?.parse().ok()
}

/// The members of a list (RFC 9110, section 5.6.1).
fn members(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

impl ConnectionOptions {
    /// Adds those of one `Connection`.
    fn add(&mut self, value: &[u8]) {
        for member in members(value) {
            self.close |= member.eq_ignore_ascii_case(b"close");
            self.keep_alive |= member.eq_ignore_ascii_case(b"keep-alive");
            self.upgrade |= member.eq_ignore_ascii_case(b"upgrade");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::validate;

    fn parsed(bytes: &[u8]) -> Result<Request, StatusCode> {
        match parse(&mut bytes.to_vec(), Origin { is_tls: true, peer: None }) {
            Ok(Some((request, ..))) => Ok(request),
            Ok(None) => Err(StatusCode::CONTINUE),
            Err(status) => Err(status),
        }
    }

    fn rest(fields: &str, version: &str) -> Result<Rest, StatusCode> {
        let mut bytes = format!("POST / HTTP/{version}\r\nHost: h\r\n{fields}\r\n").into_bytes();
        let n_bytes = bytes.len();
        parse(&mut bytes, Origin { is_tls: false, peer: None }).map(|parsed| {
            let (_, n_head, rest) = parsed.expect("the head is complete");
            assert_eq!(n_head, n_bytes);
            rest
        })
    }

    /// As the plugin's side makes it, from the same parts.
    fn to_http(request: &Request) -> Result<http::Request<()>, http::Error> {
        let mut builder = http::Request::builder().method(request.method.as_str()).uri(request.target());
        for (name, value) in request.fields.iter() {
            builder = builder.header(name, value);
        }
        builder.body(())
    }

    #[test]
    fn a_body_has_one_framing() {
        for (fields, found) in [
            ("", Ok(Rest::Nothing)),
            ("Content-Length: 0\r\n", Ok(Rest::Nothing)),
            ("Content-Length:  17 \r\n", Ok(Rest::Length(17))),
            ("Transfer-Encoding: Chunked\r\n", Ok(Rest::Chunks)),
            ("Content-Length: 1\r\nContent-Length: 1\r\n", Err(StatusCode::BAD_REQUEST)),
            ("Content-Length: +1\r\n", Err(StatusCode::BAD_REQUEST)),
            ("Content-Length: \r\n", Err(StatusCode::BAD_REQUEST)),
            ("Content-Length: 1, 1\r\n", Err(StatusCode::BAD_REQUEST)),
            ("Content-Length: 18446744073709551616\r\n", Err(StatusCode::BAD_REQUEST)),
            ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", Err(StatusCode::BAD_REQUEST)),
            ("Transfer-Encoding: identity\r\n", Err(StatusCode::BAD_REQUEST)),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Err(StatusCode::BAD_REQUEST)),
            ("Transfer-Encoding: gzip, chunked\r\n", Err(StatusCode::NOT_IMPLEMENTED)),
        ] {
            assert_eq!(rest(fields, "1.1"), found, "{fields}");
        }
        assert_eq!(rest("Transfer-Encoding: chunked\r\n", "1.0"), Err(StatusCode::BAD_REQUEST));
        assert_eq!(rest("", "1.0"), Err(StatusCode::BAD_REQUEST));
        assert_eq!(rest("Content-Length: 3\r\n", "1.0"), Ok(Rest::Length(3)));
    }

    #[test]
    fn a_connection_has_options_in_any_number_of_lists() {
        for (line, is_kept_alive, upgrade) in [
            ("1.1\r\n", true, false),
            ("1.1\r\nConnection: foo, Close\r\n", false, false),
            ("1.1\r\nConnection: keep-alive\r\nConnection: Upgrade, close\r\n", false, true),
            ("1.0\r\n", false, false),
            ("1.0\r\nConnection: Keep-Alive\r\n", true, false),
            ("1.0\r\nConnection: upgrade\r\n", false, true),
        ] {
            let request = parsed(format!("GET / HTTP/{line}Host: h\r\n\r\n").as_bytes()).unwrap();
            assert_eq!(
                (request.is_kept_alive(), request.connection.upgrade),
                (is_kept_alive, upgrade),
                "{line}"
            );
        }
    }

    #[test]
    fn fields_are_as_they_came_with_names_in_lower_case() {
        let request = parsed(b"GET /a?b HTTP/1.1\r\nHost: h\r\nX-Y:\t a \xff \r\nx-y: c\r\n\r\n").unwrap();
        let fields: Vec<_> = request.fields.iter().collect();
        assert_eq!(fields, [("host", &b"h"[..]), ("x-y", b"a \xff"), ("x-y", b"c")]);
        assert_eq!((request.header("X-Y", 1), request.path()), (Some(&b"c"[..]), "/a"));
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
                let found = found.map(|request| validate::check(&request, None));
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
                && validate::check(&request, None).is_ok()
            {
                let made = to_http(&request);
                assert!(made.is_ok(), "{made:?} of {request:?}");
            }
        });
    }
}
