//! The time of day as the `Date` of HTTP has it.

use std::{
    cell::Cell,
    time::{Duration, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};

/// `date: Thu, 01 Jan 1970 00:00:00 GMT`, and the end of a head (RFC 9110, section 5.6.7).
type Line = [u8; BEGIN.len() + 29 + END.len()];

const BEGIN: &[u8] = b"date: ";
const END: &[u8] = b"\r\n\r\n";

thread_local! {
    /// The last second that was asked for, and its line.
    static LAST: Cell<(i64, Line)> = const { Cell::new((i64::MIN, [b' '; size_of::<Line>()])) };
}

/// The `Date` of now as the last line of a head, with its end. Each thread writes it once a second.
#[inline]
pub fn last_line() -> Line {
    // It is read without a call of the system, and lags by a few milliseconds.
    let second = clock_gettime(ClockId::RealtimeCoarse).tv_sec;
    let (last, line) = LAST.get();
    if last == second { line } else { write(second) }
}

/// The same without its name and the end.
#[cfg(feature = "http2")]
pub fn now() -> [u8; 29] {
    let mut date = [b' '; 29];
    date.copy_from_slice(&last_line()[BEGIN.len()..][..29]);
    date
}

#[cold]
fn write(second: i64) -> Line {
    let since = Duration::from_secs(u64::try_from(second).unwrap_or_default());
    // It has 29 bytes up to the year 9999.
    let date = httpdate::fmt_http_date(UNIX_EPOCH + since);
    let mut line = [b' '; size_of::<Line>()];
    let bytes = [BEGIN, date.as_bytes(), END].concat();
    line.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
    LAST.set((second, line));
    line
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_date_is_that_of_now() {
        assert_eq!(write(784_111_777), *b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n");
        let line = last_line();
        let date = std::str::from_utf8(&line).unwrap().strip_prefix("date: ").unwrap();
        let date = httpdate::parse_http_date(date.strip_suffix("\r\n\r\n").unwrap()).unwrap();
        let off = SystemTime::now().duration_since(date).unwrap();
        assert!(off < Duration::from_secs(2), "{off:?}");
    }
}
