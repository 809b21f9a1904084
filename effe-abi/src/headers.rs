//! The headers of an answer, in buffers that stay with the Context; and what may be a header's name or value.

use std::ops::Range;

#[cfg(feature = "http")]
use {
    bytes::Bytes,
    http::{HeaderMap, HeaderValue},
};

use crate::raw;

/// Number of headers that an answer can have without an allocation.
const FEW: usize = 8;

/// The most headers for which a map's memory is kept.
#[cfg(feature = "http")]
const MAX_SPARE: usize = 128;

/// Headers in the order they were set.
#[derive(Default)]
pub(crate) struct Headers {
    /// All names in lower case, one behind the other.
    names: String,
    values: Vec<u8>,
    spans: Vec<Span>,
    /// Those that follow, as they came from the `http` crate. Empty, it is memory for the headers of the next request.
    #[cfg(feature = "http")]
    map: HeaderMap,
}

/// Where the name and the value of a header are.
struct Span {
    name: Range<usize>,
    value: Range<usize>,
}

impl Headers {
    /// Removes all; the buffers stay.
    pub(crate) fn clear(&mut self) {
        self.names.clear();
        self.values.clear();
        self.spans.clear();
        #[cfg(feature = "http")]
        match self.map.capacity() {
            _ if self.map.is_empty() => {}
            ..=MAX_SPARE => self.map.clear(),
            _ => self.map = HeaderMap::new(),
        }
    }

    /// Keeps the first `len` of those that were added one by one.
    #[cfg(any(test, feature = "json"))]
    pub(crate) fn truncate(&mut self, len: usize) {
        self.spans.truncate(len);
    }

    /// Whether there is one of this name. `name` is in lower case.
    pub(crate) fn contains(&self, name: &str) -> bool {
        let has_one = self.spans.iter().any(|span| &self.names[span.name.clone()] == name);
        #[cfg(feature = "http")]
        let has_one = has_one || (!self.map.is_empty() && self.map.contains_key(name));
        has_one
    }

    /// Removes all of this name.
    pub(crate) fn remove(&mut self, name: &str) {
        #[cfg(feature = "http")]
        if !self.map.is_empty() {
            self.map.remove(name);
        }
        if !self.spans.is_empty() {
            let names = &self.names;
            self.spans.retain(|span| !names[span.name.clone()].eq_ignore_ascii_case(name));
        }
    }

    /// Adds one. False: the name or the value can't be sent.
    pub(crate) fn push(&mut self, name: &str, value: &[u8]) -> bool {
        let is_plain = is_plain(name);
        if !(is_plain || is_token(name)) || !are_values(value) {
            return false;
        }
        #[cfg(feature = "http")]
        self.settle();
        let begin = self.names.len();
        self.add(name, value);
        if !is_plain {
            self.names[begin..].make_ascii_lowercase();
        }
        true
    }

    /// Adds one that can be sent, whose name is in lower case.
    fn add(&mut self, name: &str, value: &[u8]) {
        let (name_begin, value_begin) = (self.names.len(), self.values.len());
        self.names.push_str(name);
        self.values.extend_from_slice(value);
        self.spans.push(Span { name: name_begin..self.names.len(), value: value_begin..self.values.len() });
    }

    /// Adds those of a map.
    #[cfg(feature = "http")]
    pub(crate) fn add_map(&mut self, map: HeaderMap) {
        self.settle();
        self.map = map;
    }

    /// A map that is empty, and may have memory.
    #[cfg(feature = "tower")]
    pub(crate) fn spare_map(&mut self) -> &mut HeaderMap {
        self.settle();
        &mut self.map
    }

    /// Empties the map, so that what is added next comes behind what was in it.
    #[cfg(feature = "http")]
    fn settle(&mut self) {
        if !self.map.is_empty() {
            let mut map = std::mem::take(&mut self.map);
            for (name, value) in &map {
                self.add(name.as_str(), value.as_bytes());
            }
            map.clear();
            self.map = map;
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        #[cfg(feature = "http")]
        return self.spans.len() + self.map.len();
        #[cfg(not(feature = "http"))]
        self.spans.len()
    }

    /// In the wire's form.
    pub(crate) fn iter(&self) -> impl Iterator<Item = raw::Header<'_>> {
        let all = self.spans.iter().map(|span| raw::Header {
            name: self.names[span.name.clone()].into(),
            value: self.values[span.value.clone()].into(),
        });
        #[cfg(feature = "http")]
        let all = all.chain(self.map.iter().map(of_http));
        all
    }
}

/// Calls `then` with headers, `len` of them, one behind the other.
pub(crate) fn in_a_row<'a, T>(
    len: usize,
    headers: impl Iterator<Item = raw::Header<'a>>,
    then: impl FnOnce(&[raw::Header<'a>]) -> T,
) -> T {
    let mut few = [raw::Header::EMPTY; FEW];
    if len > FEW {
        return then(&headers.collect::<Vec<_>>());
    }
    let mut n = 0;
    headers.take(FEW).for_each(|header| {
        few[n] = header;
        n += 1;
    });
    then(&few[..n])
}

/// A header of the `http` crate's in the wire's form. Its types guarantee that it can be sent, and that the name is in
/// lower case.
#[cfg(feature = "http")]
pub(crate) fn of_http<'a>((name, value): (&'a http::HeaderName, &'a HeaderValue)) -> raw::Header<'a> {
    raw::Header { name: name.as_str().into(), value: value.as_bytes().into() }
}

/// Values in the `http` crate's form, cut out of one buffer that holds all of them.
#[cfg(feature = "http")]
pub(crate) struct Values(Bytes);

#[cfg(feature = "http")]
impl Values {
    /// `None` if one of them can't be a value. Checking all of them in one loop takes a tenth of what the `http`
    /// crate's own check of each takes.
    pub(crate) fn new(bytes: Bytes) -> Option<Values> {
        are_values(&bytes).then_some(Values(bytes))
    }

    /// The next value, which has `len` bytes.
    ///
    /// # Panics
    /// There are fewer.
    #[expect(unsafe_code, reason = "the check is made when they come in")]
    pub(crate) fn next(&mut self, len: usize) -> HeaderValue {
        let value = self.0.split_to(len);
        // SAFETY: `new` has checked the bytes with `is_value`, which accepts the bytes that `HeaderValue::from_bytes`
        // accepts; a test compares them.
        unsafe { HeaderValue::from_maybe_shared_unchecked(value) }
    }
}

/// Whether a header may have this name and this value.
pub(crate) fn is_field(name: &str, value: &[u8]) -> bool {
    is_token(name) && are_values(value)
}

/// Whether these bytes may be in a value.
pub(crate) fn are_values(bytes: &[u8]) -> bool {
    are_all(bytes, is_value)
}

/// Whether `name` is a name as nearly all are: in lower case, and of few other characters.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && are_all(name.as_bytes(), |byte| {
            byte.is_ascii_lowercase() | byte.is_ascii_digit() | (byte == b'-') | (byte == b'_')
        })
}

/// Whether all of the bytes are fit.
///
/// Most names and values have 8 to 31 bytes. So bytes are looked at in blocks of 16, 8 or 4, all bytes of a block at
/// once, and the last block may begin within the one before.
#[inline(always)]
fn are_all(bytes: &[u8], is_fit: impl Fn(u8) -> bool) -> bool {
    #[inline(always)]
    fn block<const N: usize>(block: &[u8; N], is_fit: &impl Fn(u8) -> bool) -> bool {
        // Without an early exit the compiler makes vectors of it.
        block.iter().fold(true, |fit, &byte| fit & is_fit(byte))
    }
    if let Some(last) = bytes.last_chunk::<16>() {
        bytes.as_chunks::<16>().0.iter().all(|bytes| block(bytes, &is_fit)) && block(last, &is_fit)
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        block(first, &is_fit) & block(last, &is_fit)
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        block(first, &is_fit) & block(last, &is_fit)
    } else {
        bytes.iter().all(|&byte| is_fit(byte))
    }
}

/// Whether `name` may be a header's name: a token of RFC 9110, section 5.6.2.
pub(crate) fn is_token(name: &str) -> bool {
    // No early exit: nearly all are fine to their end.
    !name.bytes().fold(name.is_empty(), |unfit, byte| unfit | !TOKEN[usize::from(byte)])
}

/// The bytes of a token. A table, since every byte of every header's name is looked up.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"!#$%&'*+-.^_`|~";
    let mut n = 0;
    while n < others.len() {
        table[others[n] as usize] = true;
        n += 1;
    }
    table
};

/// Whether `byte` may be in a header's value, by RFC 9110, section 5.5: a visible character, a space, a tab, or
/// anything beyond ASCII.
fn is_value(byte: u8) -> bool {
    (byte == b'\t') | ((byte >= b' ') & (byte != 0x7f))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(headers: &Headers) -> Vec<(String, Vec<u8>)> {
        headers.iter().map(|header| (header.name.as_str().to_owned(), header.value.to_vec())).collect()
    }

    #[test]
    fn headers_keep_their_order_and_names_are_in_lower_case() {
        let mut headers = Headers::default();
        assert!(
            headers.push("Set-Cookie", b"a=1")
                && headers.push("X-B", b"\xff\t")
                && headers.push("set-cookie", b"")
        );
        let all = [("set-cookie", &b"a=1"[..]), ("x-b", b"\xff\t"), ("set-cookie", b"")];
        assert_eq!(shown(&headers), all.map(|(name, value)| (name.to_owned(), value.to_vec())));
        assert!(headers.contains("x-b") && !headers.contains("x"));
        headers.remove("SET-COOKIE");
        assert_eq!((headers.len(), shown(&headers)[0].0.as_str()), (1, "x-b"));
        assert!(headers.push("x-c", b"3"));
        headers.truncate(1);
        assert_eq!(headers.len(), 1);
        headers.clear();
        assert_eq!(headers.len(), 0);
    }

    #[test]
    #[cfg(feature = "http")]
    fn those_of_a_map_are_among_the_others_and_keep_their_order() {
        let map = || {
            let mut map = HeaderMap::new();
            for (name, value) in [("set-cookie", "1"), ("x-a", "2"), ("set-cookie", "3")] {
                map.append(name, HeaderValue::from_static(value));
            }
            map
        };
        let values = |headers: &Headers, name: &str| -> Vec<Vec<u8>> {
            shown(headers).into_iter().filter(|header| header.0 == name).map(|header| header.1).collect()
        };
        let mut headers = Headers::default();
        assert!(headers.push("Set-Cookie", b"0"));
        headers.add_map(map());
        assert_eq!(
            (headers.len(), values(&headers, "set-cookie")),
            (4, ["0", "1", "3"].map(Vec::from).into())
        );
        assert!(headers.contains("x-a") && !headers.contains("x-b"));
        // Behind those of the map, and of another one.
        assert!(headers.push("set-cookie", b"4"));
        headers.add_map(map());
        assert_eq!(values(&headers, "set-cookie"), ["0", "1", "3", "4", "1", "3"].map(Vec::from));
        assert_eq!(headers.len(), shown(&headers).len());
        headers.remove("X-A");
        assert!(!headers.contains("x-a") && headers.len() == 6);
        headers.clear();
        assert_eq!((headers.len(), shown(&headers).len()), (0, 0));
        headers.add_map(map());
        in_a_row(headers.len(), headers.iter(), |all| assert_eq!(all.len(), 3));
        (0..20).for_each(|n| assert!(headers.push(&format!("x-{n}"), b"")));
        in_a_row(headers.len(), headers.iter(), |all| assert_eq!(all.len(), 23));
    }

    #[test]
    #[cfg(feature = "http")]
    fn values_of_the_http_crate_are_those_that_it_takes_itself() {
        for byte in 0..=u8::MAX {
            for value in [vec![byte], vec![b'a', byte, b'b'], [[b'a'; 63].as_slice(), &[byte]].concat()] {
                let taken = Values::new(value.clone().into()).map(|mut values| values.next(value.len()));
                assert_eq!(taken, HeaderValue::from_bytes(&value).ok(), "{byte}");
            }
        }
        let mut values = Values::new(Bytes::from_static(b"onetwo")).unwrap();
        assert_eq!([3, 0, 3].map(|len| values.next(len)), ["one", "", "two"]);
    }

    #[test]
    fn one_bad_byte_is_found_wherever_it_is() {
        for len in 0..70 {
            let good = vec![b'x'; len];
            assert!(are_values(&good) && is_plain(std::str::from_utf8(&good).unwrap()) == (len > 0), "{len}");
            for at in 0..len {
                let mut bad = good.clone();
                bad[at] = b'\n';
                assert!(!are_values(&bad), "{at} of {len}");
                bad[at] = b'A';
                let name = String::from_utf8(bad).unwrap();
                assert!(!is_plain(&name) && is_token(&name), "{at} of {len}");
                let mut headers = Headers::default();
                assert!(headers.push(&name, b"") && headers.contains(&name.to_ascii_lowercase()));
            }
        }
    }

    #[test]
    fn what_can_not_be_sent_is_not_taken() {
        let mut headers = Headers::default();
        for name in ["", "a b", "a:", "ä", "a\n"] {
            assert!(!headers.push(name, b"fine"), "{name:?}");
        }
        for value in [&b"a\r\nb"[..], b"\0", b"\x7f"] {
            assert!(!headers.push("fine", value), "{value:?}");
        }
        assert_eq!(headers.len(), 0);
    }
}
