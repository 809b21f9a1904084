//! Fields behind a body, of a request or of a response.

use crate::message::fields::{Fields, checked};

/// Bytes of the trailers of a response.
pub const MAX_TRAILERS: usize = 64 * 1024;

/// What trailers must not be (RFC 9110, section 6.5.1): where a body ends, who it is for, who sends it, and how its
/// content is to be read is settled before it.
const FORBIDDEN: [&str; 41] = [
    // Framing and the connection.
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    // Routing and what a request asks for.
    "cache-control",
    "expect",
    "forwarded",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "max-forwards",
    "pragma",
    "range",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    // Who asks.
    "authorization",
    "cookie",
    "proxy-authenticate",
    "proxy-authorization",
    "set-cookie",
    "www-authenticate",
    // What a response says of itself.
    "age",
    "date",
    "expires",
    "location",
    "retry-after",
    "vary",
    "warning",
    // Its content.
    "content-encoding",
    "content-location",
    "content-range",
    "content-type",
];

/// Fields in the order in which they came; none of them is forbidden.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trailers {
    fields: Fields,
}

impl Trailers {
    pub const NONE: Trailers = Trailers { fields: Fields::NONE };

    /// Adds a field, or drops it if it is forbidden. False if it is no field at all.
    pub fn add(&mut self, name: &[u8], value: &[u8]) -> bool {
        let Some(name) = checked(name, value) else { return false };
        if !FORBIDDEN.iter().any(|forbidden| forbidden.eq_ignore_ascii_case(name)) {
            self.fields.append_token(name, value);
        }
        true
    }

    pub fn append(&mut self, other: Trailers) {
        if self.is_empty() {
            *self = other;
        } else {
            other.iter().for_each(|(name, value)| self.fields.append(name, value));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// What they take in HTTP/1.1.
    pub fn n_bytes(&self) -> usize {
        self.fields.n_bytes()
    }

    /// Names in lower case.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &[u8])> + Clone {
        self.fields.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_field_is_refused_and_what_is_forbidden_is_dropped() {
        let mut trailers = Trailers::NONE;
        for (name, value) in [("a b", "x"), ("", "x"), ("x", "a\r\nb"), ("x", "\0"), ("x:", "y")] {
            assert!(!trailers.add(name.as_bytes(), value.as_bytes()), "{name:?}: {value:?}");
        }
        for name in FORBIDDEN {
            assert!(trailers.add(name.to_uppercase().as_bytes(), b"x"), "{name}");
        }
        assert!(trailers.is_empty());
        assert!(trailers.add(b"Grpc-Status", b"0") && trailers.add(b"x", b"\xff"));
        let mut more = Trailers::NONE;
        assert!(more.add(b"x", b""));
        trailers.append(more);
        let all: Vec<_> = trailers.iter().collect();
        assert_eq!(all, [("grpc-status", &b"0"[..]), ("x", b"\xff"), ("x", b"")]);
        assert_eq!(trailers.n_bytes(), "grpc-status: 0\r\nx: ?\r\nx: \r\n".len());
    }
}
