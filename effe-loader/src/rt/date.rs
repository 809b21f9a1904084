//! The time of day as the `Date` of HTTP has it.

use std::{
    cell::Cell,
    time::{Duration, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};

/// `Thu, 01 Jan 1970 00:00:00 GMT` (RFC 9110, section 5.6.7).
pub type Date = [u8; 29];

thread_local! {
    /// The last second that was asked for, and its text.
    static LAST: Cell<(i64, Date)> = const { Cell::new((i64::MIN, [b' '; 29])) };
}

/// The date now. Each thread writes it once a second.
#[inline]
pub fn now() -> Date {
    // It is read without a call of the system, and lags by a few milliseconds.
    let second = clock_gettime(ClockId::RealtimeCoarse).tv_sec;
    let (last, date) = LAST.get();
    if last == second { date } else { write(second) }
}

#[cold]
fn write(second: i64) -> Date {
    let since = Duration::from_secs(u64::try_from(second).unwrap_or_default());
    let mut date = [b' '; 29];
    // It has this length up to the year 9999.
    let text = httpdate::fmt_http_date(UNIX_EPOCH + since);
    date.iter_mut().zip(text.bytes()).for_each(|(to, byte)| *to = byte);
    LAST.set((second, date));
    date
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_date_is_that_of_now() {
        assert_eq!(write(784_111_777), *b"Sun, 06 Nov 1994 08:49:37 GMT");
        let date = httpdate::parse_http_date(std::str::from_utf8(&now()).unwrap()).unwrap();
        let off = SystemTime::now().duration_since(date).unwrap();
        assert!(off < Duration::from_secs(2), "{off:?}");
        assert_eq!(now(), LAST.get().1);
    }
}
