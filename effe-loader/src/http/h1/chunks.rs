//! The chunked coding of a request's body, by the letter of RFC 9112, section 7.1. actix-http's decoder takes more: any
//! bytes as a trailer, white space behind a size, extensions without a name or an end. Another server on the way may
//! read these differently, and so find another end of the body.

use std::task::Poll;

use bytes::{Buf, Bytes, BytesMut};

use crate::{body::trailers::Trailers, message::fields::is_tchar};

/// Bytes of a line with a size, and of all trailers.
const MAX_LINE: usize = 4 * 1024;
const MAX_TRAILERS: usize = 8 * 1024;
/// Bytes that the lines with sizes may take beyond what a frugal client needs: 16 and twice its data for a chunk.
const MAX_EXCESS: u64 = 16 * 1024;

/// Why a body is not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Malformed,
    /// A size is announced that makes the body longer than its limit.
    TooLarge,
}
use Refused::{Malformed, TooLarge};

/// How much of a body has been read.
#[derive(Default)]
pub struct Chunks {
    state: State,
    /// Bytes of data that have come or are announced.
    n_data: u64,
    n_excess: u64,
    n_trailers: usize,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// A line with a size comes next.
    #[default]
    Size,
    /// So many bytes of data.
    Data(u64),
    /// The end of a chunk's data.
    DataEnd,
    Trailers,
}

impl Chunks {
    /// The next piece of a body of at most `limit` bytes, or its end; pending if more bytes are needed to tell. What is
    /// behind the body is left in `trailers`.
    pub fn next(
        &mut self,
        input: &mut BytesMut,
        limit: u64,
        trailers: &mut Trailers,
    ) -> Poll<Option<Result<Bytes, Refused>>> {
        loop {
            let step = match self.state {
                State::Size => self.size(input, limit),
                State::Data(left) => {
                    let n = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    if n == 0 {
                        return Poll::Pending;
                    }
                    let left = left - n as u64;
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Poll::Ready(Some(Ok(input.split_to(n).freeze())));
                }
                State::DataEnd => match **input {
                    [b'\r', b'\n', ..] => {
                        input.advance(2);
                        Ok(Some(State::Size))
                    }
                    [] | [b'\r'] => Ok(None),
                    _ => Err(Malformed),
                },
                State::Trailers => match self.trailer(input, trailers) {
                    Ok(Some(true)) => return Poll::Ready(None),
                    Ok(Some(false)) => Ok(Some(State::Trailers)),
                    Ok(None) => Ok(None),
                    Err(err) => Err(err),
                },
            };
            match step {
                Ok(Some(state)) => self.state = state,
                Ok(None) => return Poll::Pending,
                Err(err) => return Poll::Ready(Some(Err(err))),
            }
        }
    }

    fn size(&mut self, input: &mut BytesMut, limit: u64) -> Result<Option<State>, Refused> {
        let Some(line) = line(input, MAX_LINE)? else { return Ok(None) };
        let n_digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        // Sixteen digits are all that a number of 64 bits has.
        if !(1..=16).contains(&n_digits) || !are_extensions(&line[n_digits..]) {
            return Err(Malformed);
        }
        let digits = std::str::from_utf8(&line[..n_digits]).map_err(|_| Malformed)?;
        let size = u64::from_str_radix(digits, 16).map_err(|_| Malformed)?;
        let n_line = line.len() + 2;
        input.advance(n_line);
        self.n_excess =
            (self.n_excess + n_line as u64).saturating_sub(16_u64.saturating_add(size.saturating_mul(2)));
        if self.n_excess > MAX_EXCESS {
            return Err(Malformed);
        }
        self.n_data = self.n_data.saturating_add(size);
        if self.n_data > limit {
            return Err(TooLarge);
        }
        Ok(Some(if size == 0 { State::Trailers } else { State::Data(size) }))
    }

    /// Whether all of the body has come, and trailers behind it.
    pub fn has_trailers(&self) -> bool {
        self.n_trailers > b"\r\n".len()
    }

    /// Takes a trailer; or the end of the body, and then it is true.
    fn trailer(&mut self, input: &mut BytesMut, trailers: &mut Trailers) -> Result<Option<bool>, Refused> {
        let Some(line) = line(input, MAX_TRAILERS - self.n_trailers)? else { return Ok(None) };
        let is_end = line.is_empty();
        if !is_end {
            if !is_field(line) {
                return Err(Malformed);
            }
            if self.n_trailers == 0 {
                // Those of another body, which nobody has asked for.
                *trailers = Trailers::NONE;
            }
            let name = token(line);
            if !trailers.add(&line[..name], line[name + 1..].trim_ascii()) {
                return Err(Malformed);
            }
        }
        let n_line = line.len() + 2;
        self.n_trailers += n_line;
        input.advance(n_line);
        if self.n_trailers > MAX_TRAILERS { Err(Malformed) } else { Ok(Some(is_end)) }
    }
}

/// The bytes before the first CR LF, once that is here; an error if they are more than `most`, or if LF stands alone.
fn line(input: &[u8], most: usize) -> Result<Option<&[u8]>, Refused> {
    match input.iter().position(|byte| *byte == b'\n') {
        Some(end) if end <= most.saturating_add(1) => {
            input[..end].strip_suffix(b"\r").map(Some).ok_or(Malformed)
        }
        None if input.len() <= most.saturating_add(1) => Ok(None),
        _ => Err(Malformed),
    }
}

/// Whether this is a name, a colon, and a value of visible bytes and white space.
fn is_field(line: &[u8]) -> bool {
    let name = token(line);
    match &line[name..] {
        [b':', value @ ..] => name > 0 && value.iter().all(|byte| is_text(*byte)),
        _ => false,
    }
}

/// Whether what stands behind a size is nothing, or extensions: each a semicolon, a token, and perhaps a value.
fn are_extensions(mut rest: &[u8]) -> bool {
    while !rest.is_empty() {
        let [b';', extension @ ..] = trim(rest) else { return false };
        let extension = trim(extension);
        let name = token(extension);
        if name == 0 {
            return false;
        }
        rest = &extension[name..];
        if let [b'=', value @ ..] = trim(rest) {
            let value = trim(value);
            let Some(n) = value_len(value) else { return false };
            rest = &value[n..];
        }
    }
    true
}

/// How long the value at the beginning is, a token or a quoted string; `None` if there is none.
fn value_len(value: &[u8]) -> Option<usize> {
    let [b'"', quoted @ ..] = value else { return Some(token(value)).filter(|n| *n > 0) };
    let mut is_escaped = false;
    for (n, byte) in quoted.iter().enumerate() {
        match byte {
            _ if !is_text(*byte) => return None,
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return Some(n + 2),
            _ => {}
        }
    }
    None
}

/// How many of the first bytes are a token.
fn token(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| is_tchar(**byte)).count()
}

fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 20_000;

    /// What is read of a body that comes in pieces of so many bytes, and what is left behind it; `None` if more must
    /// come.
    fn read(body: &[u8], at_a_time: usize) -> Option<Result<(Vec<u8>, usize), Refused>> {
        let (mut chunks, mut input, mut data) = (Chunks::default(), BytesMut::new(), Vec::new());
        for (n, piece) in body.chunks(at_a_time).enumerate() {
            input.extend_from_slice(piece);
            loop {
                match chunks.next(&mut input, LIMIT, &mut Trailers::default()) {
                    Poll::Ready(Some(Ok(piece))) => data.extend_from_slice(&piece),
                    Poll::Ready(Some(Err(err))) => return Some(Err(err)),
                    Poll::Ready(None) => {
                        let n_read = (n * at_a_time + piece.len()) - input.len();
                        return Some(Ok((data, body.len() - n_read)));
                    }
                    Poll::Pending => break,
                }
            }
        }
        None
    }

    #[test]
    fn bodies_are_read_by_the_letter_however_they_come() {
        let long = format!("1;{}=a\r\nx\r\n0\r\n\r\n", "e".repeat(MAX_LINE));
        let many = format!("{}0\r\n\r\n", format!("1;{}\r\nx\r\n", "e".repeat(4000)).repeat(5));
        let small = format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(20_000));
        let trailers = format!("0\r\n{}\r\n", "X: y\r\n".repeat(MAX_TRAILERS / 6 + 1));
        for (body, expected) in [
            ("3\r\nabc\r\n0\r\n\r\nNEXT", Some(Ok(("abc", 4)))),
            ("3 ; a = b ;c=\"d \\\" e\"\r\nabc\r\n00\r\nX: y\r\nZ:\r\n\r\n", Some(Ok(("abc", 0)))),
            ("A\r\n0123456789\r\n0\r\n\r\n", Some(Ok(("0123456789", 0)))),
            ("3\r\nabc\r\n0\r\n", None),
            ("3\r\nab", None),
            ("2;\r\nab\r\n0\r\n\r\n", Some(Err(Malformed))),
            ("2;a=\r\nab\r\n0\r\n\r\n", Some(Err(Malformed))),
            ("2;a b\r\nab\r\n0\r\n\r\n", Some(Err(Malformed))),
            ("2;[]\r\nab\r\n0\r\n\r\n", Some(Err(Malformed))),
            ("2;a=\"b\r\nab\r\n0\r\n\r\n", Some(Err(Malformed))),
            ("2;a=\"b\rc\"\r\nab\r\n0\r\n\r\n", Some(Err(Malformed))),
            ("2 \r\nab\r\n0\r\n\r\n", Some(Err(Malformed))),
            (" 2\r\nab\r\n0\r\n\r\n", Some(Err(Malformed))),
            ("2\nab\r\n0\r\n\r\n", Some(Err(Malformed))),
            ("2\r\nab\n0\r\n\r\n", Some(Err(Malformed))),
            ("2\r\nabc\r\n0\r\n\r\n", Some(Err(Malformed))),
            ("-2\r\nab\r\n0\r\n\r\n", Some(Err(Malformed))),
            ("+2\r\nab\r\n0\r\n\r\n", Some(Err(Malformed))),
            ("0x2\r\nab\r\n0\r\n\r\n", Some(Err(Malformed))),
            ("\r\nab\r\n0\r\n\r\n", Some(Err(Malformed))),
            ("4e21\r\n", Some(Err(TooLarge))),
            ("1\r\nx\r\nffffffffffffffff\r\n", Some(Err(TooLarge))),
            ("10000000000000000\r\nab", Some(Err(Malformed))),
            ("0\r\nX\r\n\r\n", Some(Err(Malformed))),
            ("0\r\nX : y\r\n\r\n", Some(Err(Malformed))),
            ("0\r\n: y\r\n\r\n", Some(Err(Malformed))),
            ("0\r\n X: y\r\n\r\n", Some(Err(Malformed))),
            ("0\r\nX: a\0b\r\n\r\n", Some(Err(Malformed))),
            ("0\r\nX: a\rb\r\n\r\n", Some(Err(Malformed))),
            ("0\r\nX: y\n\r\n", Some(Err(Malformed))),
            ("0\r\nX: y\r\n\n", Some(Err(Malformed))),
            (&long, Some(Err(Malformed))),
            (&many, Some(Err(Malformed))),
            (&trailers, Some(Err(Malformed))),
        ] {
            for at_a_time in [1, 2, 7, usize::MAX] {
                let expected = expected.map(|read| read.map(|(data, left)| (data.as_bytes().to_vec(), left)));
                assert_eq!(read(body.as_bytes(), at_a_time), expected, "{body:.60?}, {at_a_time} at a time");
            }
        }
        assert_eq!(
            read(small.as_bytes(), 4096),
            Some(Ok((vec![b'x'; 20_000], 0))),
            "small chunks are no excess"
        );
    }

    #[test]
    fn what_is_behind_a_body_is_kept_unless_it_is_forbidden() {
        let (mut chunks, mut trailers) = (Chunks::default(), Trailers::NONE);
        assert!(trailers.add(b"of", b"another body"));
        let mut input = BytesMut::from(&b"0\r\nX-Sum:  a b \r\nContent-Length: 3\r\nx-sum:\xff\r\n\r\n"[..]);
        assert_eq!(chunks.next(&mut input, LIMIT, &mut trailers), Poll::Ready(None));
        assert!(chunks.has_trailers());
        let all: Vec<_> = trailers.iter().collect();
        assert_eq!(all, [("x-sum", &b"a b"[..]), ("x-sum", b"\xff")]);
        let (mut none, mut input) = (Chunks::default(), BytesMut::from(&b"0\r\n\r\n"[..]));
        assert_eq!(none.next(&mut input, LIMIT, &mut trailers), Poll::Ready(None));
        assert!(!none.has_trailers());
    }

    #[test]
    fn any_bytes_have_one_meaning_however_they_come() {
        let bytes = bolero::generator::produce::<(Vec<u8>, u8)>();
        bolero::check!().with_generator(bytes).for_each(|(bytes, at_a_time)| {
            let letters = b"012af;=\" \t\r\n\r\n\r\nX:\\\0";
            let body: Vec<u8> =
                bytes.iter().map(|byte| letters[usize::from(*byte) % letters.len()]).collect();
            assert_eq!(read(&body, usize::MAX), read(&body, usize::from(*at_a_time).max(1)), "{body:?}");
        });
    }
}
