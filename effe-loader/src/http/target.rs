//! The target of a request line: what of it is a path, and whose (RFC 9112, section 3.2).

use http::Method;

use super::validate::is_host;

/// What a target means. Its path and query are `prefix` and then `rest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Of an absolute target, which counts for more than Host.
    pub authority: Option<&'a str>,
    pub is_https: bool,
    prefix: &'static str,
    rest: &'a str,
}

impl<'a> Target<'a> {
    /// `None` if it is none for this method, or has a fragment.
    #[inline]
    pub fn parse(method: &Method, target: &'a str) -> Option<Target<'a>> {
        let plain = |rest| Target { authority: None, is_https: false, prefix: "", rest };
        match target.as_bytes() {
            [b'/', ..] => is_path(target.as_bytes()).then(|| plain(target)),
            // Another method than OPTIONS is refused later, in words of its own.
            [b'*'] => Some(plain(target)),
            // Its target is an authority, which nobody asks for: no lambda answers a CONNECT.
            _ if *method == Method::CONNECT => Some(plain("/")),
            _ => Target::absolute(method, target),
        }
    }

    fn absolute(method: &Method, target: &'a str) -> Option<Target<'a>> {
        let (scheme, rest) = target.split_once("://")?;
        let is_https = scheme.eq_ignore_ascii_case("https");
        if !is_https && !scheme.eq_ignore_ascii_case("http") {
            return None;
        }
        let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        // An empty path means the root, or with OPTIONS and without a query the server as a whole (section 3.2.4).
        let prefix = match rest.as_bytes() {
            [b'/', ..] => "",
            [] if *method == Method::OPTIONS => "*",
            _ => "/",
        };
        let is_sound = is_host(authority.as_bytes()) && is_path(rest.as_bytes());
        is_sound.then_some(Target { authority: Some(authority), is_https, prefix, rest })
    }

    /// Writes path and query; how much of it is the path.
    #[inline]
    pub fn write(&self, to: &mut String) -> usize {
        let begin = to.len();
        to.push_str(self.prefix);
        to.push_str(self.rest);
        to.as_bytes()[begin..].iter().position(|byte| *byte == b'?').unwrap_or(to.len() - begin)
    }
}

/// Whether all bytes may stand in a path, or behind the first question mark in a query.
#[inline]
pub fn is_path(target: &[u8]) -> bool {
    let n_path = target.iter().take_while(|byte| BYTES[usize::from(**byte)] & PATH != 0).count();
    match target[n_path..] {
        [] => true,
        [b'?', ref query @ ..] => query.iter().all(|byte| BYTES[usize::from(*byte)] & QUERY != 0),
        _ => false,
    }
}

const PATH: u8 = 1;
const QUERY: u8 = 2;

/// The bytes of ASCII that the `http` crate takes in paths and queries: those of RFC 3986, and some that clients send as
/// they are. `what_is_a_path_here_is_one_for_others_too` holds it to that.
const BYTES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let is_path = matches!(byte as u8,
            0x21 | 0x24..=0x3b | 0x3d | 0x40..=0x5f | 0x61..=0x7a | 0x7c | 0x7e | b'"' | b'{' | b'}');
        let is_query = matches!(byte as u8, 0x21 | 0x24..=0x3b | 0x3d | 0x3f..=0x7e);
        table[byte] = (is_path as u8 * PATH) | (is_query as u8 * QUERY);
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(method: &Method, target: &str) -> Option<(String, usize, Option<String>)> {
        let target = Target::parse(method, target)?;
        let mut text = String::new();
        let n_path = target.write(&mut text);
        Some((text, n_path, target.authority.map(str::to_owned)))
    }

    #[test]
    fn a_target_has_a_form() {
        for (method, target, text, n_path, authority) in [
            (Method::GET, "/", "/", 1, None),
            (Method::GET, "/a/b?c?d", "/a/b?c?d", 4, None),
            (Method::GET, "//a", "//a", 3, None),
            (Method::GET, "*", "*", 1, None),
            (Method::CONNECT, "h:80", "/", 1, None),
            (Method::GET, "http://a?x=1", "/?x=1", 1, Some("a")),
            (Method::GET, "http://a", "/", 1, Some("a")),
            (Method::GET, "HTTPS://a:80/p?", "/p?", 2, Some("a:80")),
            (Method::OPTIONS, "http://a", "*", 1, Some("a")),
            (Method::OPTIONS, "http://a/", "/", 1, Some("a")),
            (Method::OPTIONS, "http://a?", "/?", 1, Some("a")),
        ] {
            let expected = Some((text.to_owned(), n_path, authority.map(str::to_owned)));
            assert_eq!(parsed(&method, target), expected, "{method} {target}");
        }
        for bad in [
            "",
            "a",
            "/#",
            "/a#b",
            "http://",
            "http:///a",
            "http://u@a/",
            "ftp://a/",
            "http:/a",
            "/<",
            "/?<",
            "/é",
            "/?é",
        ] {
            assert_eq!(parsed(&Method::GET, bad), None, "{bad}");
        }
        assert!(Target::parse(&Method::GET, "HTTPS://a").is_some_and(|target| target.is_https));
    }

    #[test]
    fn what_is_a_path_here_is_one_for_others_too() {
        for byte in 0..=u8::MAX {
            for (before, is_here) in
                [("/", BYTES[usize::from(byte)] & PATH), ("/?", BYTES[usize::from(byte)] & QUERY)]
            {
                // What ends a path or a target is no part of it.
                if byte.is_ascii() && !b"?#".contains(&byte) {
                    let theirs = http::uri::PathAndQuery::try_from([before.as_bytes(), &[byte]].concat());
                    assert_eq!(theirs.is_ok(), is_here != 0, "{before}{:?}", char::from(byte));
                }
            }
        }
    }
}
