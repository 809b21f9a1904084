//! The rules that a request's head must keep before a lambda sees the request, beyond those that the parsers check.

use actix_http::{Method, RequestHead, Version, header};

/// Bytes of a method. The longest that is registered has 17.
const MAX_METHOD: usize = 24;
/// Bytes of path and query.
const MAX_TARGET: usize = 16 * 1024;
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
        let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
        if target > MAX_TARGET {
            return Err(Violation::LongTarget);
        }
        let sizes = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
        if n_head.is_none_or(|n_head| n_head > MAX_HEAD) && sizes.sum::<usize>() > MAX_HEAD {
            return Err(Violation::LargeHead);
        }
    }
    if head.uri.path() == "*" && head.method != Method::OPTIONS {
        return Err(Violation::Rules);
    }
    match head.headers.get(header::HOST) {
        Some(host) if is_host(host.as_bytes()) => Ok(()),
        None if head.version < Version::HTTP_11 => Ok(()),
        _ => Err(Violation::Rules),
    }
}

/// The bytes of a registered name, except the comma, which joins the values of two headers. A table, because every
/// request needs it.
const NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"-._~%!$&'()*+;=";
    let mut n = 0;
    while n < others.len() {
        table[others[n] as usize] = true;
        n += 1;
    }
    table
};

/// RFC 9110, section 7.2: a host and perhaps a port, neither a user before it nor a path behind it. An empty one is
/// for targets without an authority, which a lambda is never asked for.
fn is_host(host: &[u8]) -> bool {
    let (name, port) = match host.first() {
        None => return false,
        Some(b'[') => {
            let Some(end) = host.iter().position(|byte| *byte == b']') else { return false };
            let literal = &host[1..end];
            let is_literal = |byte: &u8| byte.is_ascii_alphanumeric() || b":.-_~%".contains(byte);
            if literal.is_empty() || !literal.iter().all(is_literal) {
                return false;
            }
            (&b"literal"[..], &host[end + 1..])
        }
        Some(_) => host.split_at(host.iter().take_while(|byte| NAME[usize::from(**byte)]).count()),
    };
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    !name.is_empty() && is_port
}

#[cfg(test)]
mod tests {
    use actix_http::{
        Uri,
        header::{HeaderName, HeaderValue},
    };

    use super::*;

    fn checked(method: &[u8], target: &str, headers: &[(&'static str, &str)]) -> Result<(), Violation> {
        let mut head = RequestHead::default();
        head.method = Method::from_bytes(method).unwrap();
        head.uri = target.parse::<Uri>().unwrap();
        for (name, value) in headers {
            head.headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        check(&head, None)
    }

    #[test]
    fn hosts_are_names_literals_and_ports() {
        for good in ["a", "a.b-c", "127.0.0.1", "127.0.0.1:8080", "a:", "[::1]", "[::1]:80", "xn--a", "a%20b"]
        {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in
            ["", ":80", "a b", "a,b", "u@a", "a/b", "a:b", "a:123456", "[::1", "[]", "[::1]a", "a\\b", "é"]
        {
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
            assert!(!is_host(&[*a]) || a.is_ascii_alphanumeric() || *a == b'%');
            for b in bytes {
                for c in bytes {
                    let host = [*a, *b, *c];
                    assert!(!is_host(&host) || !host.iter().any(|byte| b"@/, \xff".contains(byte)));
                }
            }
        }
    }
}
