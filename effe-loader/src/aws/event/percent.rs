//! Percent-encoding (RFC 3986, section 2.1) for the two kinds of text that events have: decoded, and encoded by
//! somebody else.

use std::fmt::Write;

/// Encodes all that is not unreserved, so that decoding gives the text back.
pub fn encode(text: &str) -> String {
    replaced(text, |bytes, at| bytes[at].is_ascii_alphanumeric() || b"-._~".contains(&bytes[at]))
}

/// Leaves text that is encoded as it is, but encodes what may not stand in a path; `more` may stand here too.
pub fn escape(text: &str, more: &[u8]) -> String {
    replaced(text, |bytes, at| match bytes[at] {
        b'%' => {
            let digits = bytes.get(at + 1..at + 3);
            digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        }
        byte => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte) || more.contains(&byte),
    })
}

fn replaced(text: &str, stays: impl Fn(&[u8], usize) -> bool) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    for (at, byte) in bytes.iter().enumerate() {
        if stays(bytes, at) {
            out.push(char::from(*byte));
        } else {
            // It can't fail: a `String` takes all that is written.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
