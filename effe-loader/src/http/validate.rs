//! The rules that a request's head must keep before a lambda sees the request, beyond those that the parsers check.

use std::net::Ipv6Addr;

use http::{Method, StatusCode, Version};

use crate::message::request::RequestHead;

/// Bytes of a method. The longest that is registered has 17.
const MAX_METHOD: usize = 24;
/// Bytes of path and query.
pub const MAX_TARGET: usize = 16 * 1024;
/// Bytes of all headers.
pub const MAX_HEAD: usize = 64 * 1024;

/// The rule that a request breaks, and with it the status of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Another rule of HTTP: 400.
    Rules,
    /// The method is one that no lambda can answer: 501.
    Method,
    /// Path and query are too long: 414.
    LongTarget,
    /// The headers are too large: 431.
    LargeHead,
}

/// Checks a request's head, and fails with the first rule that it breaks. `n_head` is the bytes that the head took on
/// the connection, where that is known: the parts of a short head need not be measured.
pub fn check(head: &RequestHead, n_head: Option<usize>) -> Result<(), Violation> {
    // CONNECT asks for a tunnel; what follows would be neither a body nor a request.
    if head.method == Method::CONNECT || head.method.as_str().len() > MAX_METHOD {
        return Err(Violation::Method);
    }
    if n_head.is_none_or(|n_head| n_head > MAX_TARGET) {
        if head.target().len() > MAX_TARGET {
            return Err(Violation::LongTarget);
        }
        if n_head.is_none_or(|n_head| n_head > MAX_HEAD) && head.fields.n_bytes() > MAX_HEAD {
            return Err(Violation::LargeHead);
        }
    }
    if head.path() == "*" && head.method != Method::OPTIONS {
        return Err(Violation::Rules);
    }
    match head.fields.get("host") {
        Some(host) if is_host(host) => Ok(()),
        None if head.version < Version::HTTP_11 => Ok(()),
        _ => Err(Violation::Rules),
    }
}

/// The status for a request line whose version the parser refuses: 505 for another major version, else 400.
pub fn refused_version(version: &[u8]) -> StatusCode {
    match version.strip_prefix(b"HTTP/") {
        Some([major, rest @ ..]) if major.is_ascii_digit() && *major != b'1' && is_minor(rest) => {
            StatusCode::HTTP_VERSION_NOT_SUPPORTED
        }
        _ => StatusCode::BAD_REQUEST,
    }
}

/// Whether this is, as far as it has come, what stands behind the major version.
fn is_minor(rest: &[u8]) -> bool {
    match rest {
        [] | [b'.'] => true,
        [b'.', minor, rest @ ..] => minor.is_ascii_digit() && matches!(rest, [] | [b'\r' | b'\n', ..]),
        _ => false,
    }
}

/// Whether a head that the parser refuses names transfer codings of which `chunked` alone is known here, and which
/// would frame the body if they were: then the status is 501, not 400 (RFC 9112, section 6.1).
pub fn has_unknown_coding(head: &[u8]) -> bool {
    let mut codings = Vec::new();
    let begin = head.iter().take_while(|byte| b"\r\n".contains(byte)).count();
    let mut lines = head[begin..].split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    if !lines.next().is_some_and(|line| line.ends_with(b" HTTP/1.1")) {
        return false;
    }
    for line in lines.take_while(|line| !line.is_empty()) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return false };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.eq_ignore_ascii_case(b"content-length") {
            return false;
        }
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            codings.extend(value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii));
        }
    }
    let is_chunked = |coding: &&[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let is_coding = |coding: &&[u8]| {
        !coding.is_empty() && coding.iter().all(|byte| NAME[usize::from(*byte)]) && !is_chunked(coding)
    };
    matches!(&*codings, [others @ .., last] if !others.is_empty() && is_chunked(last) && others.iter().all(is_coding))
}

/// The bytes of a registered name, except the comma, which joins the values of two headers, and the percent sign, which
/// begins an escape. A table, because every request needs it.
const NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"-._~!$&'()*+;=";
    let mut n = 0;
    while n < others.len() {
        table[others[n] as usize] = true;
        n += 1;
    }
    table
};

/// RFC 9110, section 7.2: a host and perhaps a port, neither a user before it nor a path behind it. An empty one is
/// for targets without an authority, which a lambda is never asked for.
pub fn is_host(host: &[u8]) -> bool {
    let end = match host.first() {
        None => return false,
        Some(b'[') => match host.iter().position(|byte| *byte == b']') {
            Some(end) if is_literal(&host[1..end]) => end + 1,
            _ => return false,
        },
        Some(_) => name_len(host),
    };
    end > 0
        && match &host[end..] {
            [] | [b':'] => true,
            [b':', digits @ ..] => digits.iter().try_fold(0, port).is_some(),
            _ => false,
        }
}

/// The number of a port with one digit more, if it is a digit and the number still one of a port.
fn port(number: u32, digit: &u8) -> Option<u32> {
    let number = number * 10 + u32::from(digit.wrapping_sub(b'0'));
    (digit.is_ascii_digit() && number <= u32::from(u16::MAX)).then_some(number)
}

/// How many of the first bytes are a registered name.
fn name_len(host: &[u8]) -> usize {
    let mut end = 0;
    loop {
        let other = host[end..].iter().position(|byte| !NAME[usize::from(*byte)]);
        end = other.map_or(host.len(), |n| end + n);
        match host[end..] {
            [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => end += 3,
            _ => return end,
        }
    }
}

/// Whether this is what stands in brackets: an address of IPv6, or of a later version (RFC 3986, section 3.2.2).
fn is_literal(literal: &[u8]) -> bool {
    if let [b'v' | b'V', future @ ..] = literal {
        let Some(dot) = future.iter().position(|byte| *byte == b'.') else { return false };
        let (version, address) = (&future[..dot], &future[dot + 1..]);
        let is_known = |byte: &u8| *byte == b':' || *byte == b',' || NAME[usize::from(*byte)];
        return !version.is_empty()
            && version.iter().all(u8::is_ascii_hexdigit)
            && !address.is_empty()
            && address.iter().all(is_known);
    }
    std::str::from_utf8(literal).is_ok_and(|literal| literal.parse::<Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use http::Uri;

    use super::*;
    use crate::{http::target::Target, message::request::Request};

    fn checked(method: &[u8], target: &str, headers: &[(&'static str, &str)]) -> Result<(), Violation> {
        let request = Request::new(|head| {
            head.method = Method::from_bytes(method).unwrap();
            let target = Target::parse(&head.method, target).unwrap();
            head.set_target(|text| target.write(text));
            headers.iter().for_each(|(name, value)| head.fields.append(name, value.as_bytes()));
        });
        check(&request, None)
    }

    #[test]
    fn hosts_are_names_literals_and_ports() {
        for good in [
            "a",
            "a.b-c",
            "127.0.0.1",
            "127.0.0.1:8080",
            "a:",
            "[::1]",
            "[::1]:80",
            "xn--a",
            "a%20b",
            "%aF",
            "a:65535",
            "a:0",
            "[::ffff:1.2.3.4]",
            "[v1.a:b]",
            "[vF.~]:80",
        ] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a b",
            "a,b",
            "u@a",
            "a/b",
            "a:b",
            "a:123456",
            "[::1",
            "[]",
            "[::1]a",
            "a\\b",
            "é",
            "a:65536",
            "a:+80",
            "a:80:80",
            "a%",
            "a%2",
            "a%2g",
            "%zz",
            "[:::1]",
            "[1]",
            "[::1%25eth0]",
            "[a.b]",
            "[1.2.3.4]",
            "[v.a]",
            "[v1.]",
            "[vg.a]",
            "[v1]",
            "[v1.a/b]",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn ordinary_requests_pass_and_each_breach_has_its_status() {
        let (host, large, long) =
            (("host", "h"), "x".repeat(MAX_HEAD), format!("/{}", "x".repeat(MAX_TARGET)));
        let cases: [(&str, &str, &[_], _); 11] = [
            ("GET", "/", &[host], Ok(())),
            ("OPTIONS", "*", &[host], Ok(())),
            ("PROPFIND", "/a?b", &[host], Ok(())),
            ("GET", "http://h/p", &[host], Ok(())),
            ("CONNECT", "/", &[host], Err(Violation::Method)),
            (&"X".repeat(25), "/", &[host], Err(Violation::Method)),
            ("GET", &long, &[host], Err(Violation::LongTarget)),
            ("GET", "/", &[host, ("x", &large)], Err(Violation::LargeHead)),
            ("GET", "*", &[host], Err(Violation::Rules)),
            ("GET", "/", &[], Err(Violation::Rules)),
            ("GET", "/", &[("host", "")], Err(Violation::Rules)),
        ];
        for (method, target, headers, expected) in cases {
            assert_eq!(checked(method.as_bytes(), target, headers), expected, "{method} {target:.20}");
        }
    }

    #[test]
    fn a_host_that_is_taken_is_the_authority_of_a_uri() {
        let text = bolero::generator::produce::<(Vec<u8>, bool)>();
        bolero::check!().with_generator(text).for_each(|(bytes, plain)| {
            let letters = b"ab1.-:[]%@/, ";
            let host: Vec<u8> = match plain {
                true => bytes.iter().map(|byte| letters[usize::from(*byte) % letters.len()]).collect(),
                false => bytes.clone(),
            };
            if is_host(&host) {
                let text = std::str::from_utf8(&host).expect("a host is ASCII");
                assert!(!text.contains(|ch: char| "@/\\?#,".contains(ch) || ch <= ' '), "{text:?}");
                let name = text.rsplit_once(':').map_or(text, |(name, _)| name);
                if !name.contains(['[', '%']) {
                    let uri: Uri = format!("http://{name}/").parse().expect("it stands in a URI");
                    assert_eq!(uri.host(), Some(name));
                }
            }
        });
    }

    #[test]
    fn any_host_is_looked_at_without_a_panic() {
        // Every string of up to three of the bytes that mean something here.
        let bytes = b"[]:%a0@/, \xff";
        for a in bytes {
            assert!(!is_host(&[*a]) || a.is_ascii_alphanumeric());
            for b in bytes {
                for c in bytes {
                    let host = [*a, *b, *c];
                    assert!(!is_host(&host) || !host.iter().any(|byte| b"@/, \xff".contains(byte)));
                }
            }
        }
    }
}
