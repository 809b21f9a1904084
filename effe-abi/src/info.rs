//! Info as a constant: while the author's crate is compiled, it is written from Cargo.toml, or checked to be JSON.
//!
//! Info is data in the plugin's table, so that `effe-loader --info` runs no code of the lambda. Which fields there are
//! is left to `export.rs`.

/// A key and its value.
pub type Field = (&'static str, &'static str);

/// Number of bytes that [`write_object`] writes.
pub const fn object_len(fields: &[Field]) -> usize {
    let mut len = 2;
    let mut n = 0;
    while n < fields.len() {
        len += escaped_len(fields[n].0.as_bytes()) + escaped_len(fields[n].1.as_bytes()) + 6;
        n += 1;
    }
    if fields.is_empty() { len } else { len - 1 }
}

/// The text of a JSON object whose values are strings.
pub const fn write_object<const LEN: usize>(fields: &[Field]) -> [u8; LEN] {
    let mut out = [0; LEN];
    out[0] = b'{';
    let mut at = 1;
    let mut n = 0;
    while n < fields.len() {
        if n > 0 {
            out[at] = b',';
            at += 1;
        }
        at = write_string(&mut out, at, fields[n].0.as_bytes());
        out[at] = b':';
        at = write_string(&mut out, at + 1, fields[n].1.as_bytes());
        n += 1;
    }
    out[at] = b'}';
    out
}

/// What [`write_object`] wrote, as text.
pub const fn text(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => panic!("what was escaped from UTF-8 is UTF-8"),
    }
}

const fn escaped_len(text: &[u8]) -> usize {
    let mut len = 0;
    let mut n = 0;
    while n < text.len() {
        len += match text[n] {
            b'"' | b'\\' => 2,
            0..0x20 => 6,
            _ => 1,
        };
        n += 1;
    }
    len
}

const fn write_string<const LEN: usize>(out: &mut [u8; LEN], mut at: usize, text: &[u8]) -> usize {
    out[at] = b'"';
    at += 1;
    let mut n = 0;
    while n < text.len() {
        match text[n] {
            byte @ (b'"' | b'\\') => {
                out[at] = b'\\';
                out[at + 1] = byte;
                at += 2;
            }
            byte @ 0..0x20 => {
                let digits = b"0123456789abcdef";
                let escape =
                    [b'\\', b'u', b'0', b'0', digits[(byte >> 4) as usize], digits[(byte & 15) as usize]];
                let mut digit = 0;
                while digit < escape.len() {
                    out[at] = escape[digit];
                    at += 1;
                    digit += 1;
                }
            }
            byte => {
                out[at] = byte;
                at += 1;
            }
        }
        n += 1;
    }
    out[at] = b'"';
    at + 1
}

/// Whether `text` is a JSON object and nothing else (RFC 8259), nested at most 64 deep.
pub const fn is_json_object(text: &str) -> bool {
    let text = text.as_bytes();
    let begin = skip_space(text, 0);
    if begin == text.len() || text[begin] != b'{' {
        return false;
    }
    match value(text, begin, 64) {
        Some(end) => skip_space(text, end) == text.len(),
        None => false,
    }
}

const fn skip_space(text: &[u8], mut at: usize) -> usize {
    while at < text.len() && matches!(text[at], b' ' | b'\t' | b'\n' | b'\r') {
        at += 1;
    }
    at
}

/// Where the value ends that begins at `at`. `None`: there is no value. The functions below are alike.
const fn value(text: &[u8], at: usize, depth: usize) -> Option<usize> {
    if at == text.len() || depth == 0 {
        return None;
    }
    match text[at] {
        b'{' => members(text, at + 1, b'}', true, depth - 1),
        b'[' => members(text, at + 1, b']', false, depth - 1),
        b'"' => string(text, at),
        b't' => literal(text, at, b"true"),
        b'f' => literal(text, at, b"false"),
        b'n' => literal(text, at, b"null"),
        _ => number(text, at),
    }
}

const fn members(text: &[u8], at: usize, close: u8, named: bool, depth: usize) -> Option<usize> {
    let mut at = skip_space(text, at);
    if at < text.len() && text[at] == close {
        return Some(at + 1);
    }
    loop {
        if named {
            match string(text, skip_space(text, at)) {
                Some(end) => at = skip_space(text, end),
                None => return None,
            }
            if at == text.len() || text[at] != b':' {
                return None;
            }
            at += 1;
        }
        match value(text, skip_space(text, at), depth) {
            Some(end) => at = skip_space(text, end),
            None => return None,
        }
        if at == text.len() {
            return None;
        }
        if text[at] == close {
            return Some(at + 1);
        }
        if text[at] != b',' {
            return None;
        }
        at += 1;
    }
}

const fn string(text: &[u8], at: usize) -> Option<usize> {
    if at >= text.len() || text[at] != b'"' {
        return None;
    }
    let mut at = at + 1;
    while at < text.len() {
        match text[at] {
            b'"' => return Some(at + 1),
            0..0x20 => return None,
            b'\\' => {
                if at + 1 == text.len() {
                    return None;
                }
                match text[at + 1] {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => at += 2,
                    b'u' => {
                        let mut digit = 2;
                        while digit < 6 {
                            if at + digit >= text.len() || !text[at + digit].is_ascii_hexdigit() {
                                return None;
                            }
                            digit += 1;
                        }
                        at += 6;
                    }
                    _ => return None,
                }
            }
            _ => at += 1,
        }
    }
    None
}

const fn literal(text: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    let mut n = 0;
    while n < word.len() {
        if at + n >= text.len() || text[at + n] != word[n] {
            return None;
        }
        n += 1;
    }
    Some(at + n)
}

const fn number(text: &[u8], mut at: usize) -> Option<usize> {
    if text[at] == b'-' {
        at += 1;
    }
    let integer = at;
    at = digits(text, at);
    if at == integer || (text[integer] == b'0' && at > integer + 1) {
        return None;
    }
    if at < text.len() && text[at] == b'.' {
        let fraction = at + 1;
        at = digits(text, fraction);
        if at == fraction {
            return None;
        }
    }
    if at < text.len() && matches!(text[at], b'e' | b'E') {
        at += 1;
        if at < text.len() && matches!(text[at], b'+' | b'-') {
            at += 1;
        }
        let exponent = at;
        at = digits(text, exponent);
        if at == exponent {
            return None;
        }
    }
    Some(at)
}

const fn digits(text: &[u8], mut at: usize) -> usize {
    while at < text.len() && text[at].is_ascii_digit() {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cargo_toml_gives_is_escaped() {
        const FIELDS: &[Field] = &[("name", "hello"), ("description", "a \"quoted\"\tback\\slash, ünïcode")];
        const BYTES: [u8; object_len(FIELDS)] = write_object(FIELDS);
        let expected = r#"{"name":"hello","description":"a \"quoted\"\u0009back\\slash, ünïcode"}"#;
        assert_eq!(text(&BYTES), expected);
        assert!(is_json_object(expected));
        assert_eq!(text(&write_object::<{ object_len(&[]) }>(&[])), "{}");
    }

    #[test]
    fn json_objects_are_told_from_everything_else() {
        let good = [
            "{}",
            " {\"a\" : [1, -0.5e+3, true, false, null, \"\\u00e9\\n\"] , \"b\":{\"c\":[]}}\n",
            "{\"a\":0,\"b\":10}",
        ];
        for text in good {
            assert!(is_json_object(text), "{text}");
        }
        let bad = [
            "",
            "[]",
            "1",
            "{",
            "{}x",
            "{a:1}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":01}",
            "{\"a\":1.}",
            "{\"a\":1e}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\n\"}",
            "{\"a\":tru}",
            "{\"a\":[1,]}",
            "{\"a\":\"\\u12\"}",
            "{\"a\":-}",
        ];
        for text in bad {
            assert!(!is_json_object(text), "{text}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100), "]".repeat(100));
        assert!(!is_json_object(&deep));
    }
}
