//! The id of a request: the one that its client or a proxy has given it, else a new one. It is looked for only when
//! somebody needs it.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// Bytes of an id; a longer one is not taken over.
const MAX: usize = 128;

/// The id of a request, whose headers `header` looks up: its `X-Request-Id`, else the trace of its `traceparent`, else
/// a new one.
pub fn of<'a>(header: impl Fn(&str) -> Option<&'a [u8]>) -> String {
    given(header).map_or_else(new, str::to_owned)
}

/// The same, if somebody has given it.
pub fn given<'a>(header: impl Fn(&str) -> Option<&'a [u8]>) -> Option<&'a str> {
    let text = |name| header(name).and_then(|value| std::str::from_utf8(value).ok());
    let given = text("x-request-id").filter(|id| {
        // It goes into log lines and headers as it is.
        (1..=MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
    });
    given.or_else(|| trace(text("traceparent")?))
}

/// The trace id of a `traceparent`, as the W3C's Trace Context has it: `version-trace-parent-flags`, in lower case.
fn trace(text: &str) -> Option<&str> {
    let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut parts = text.trim().split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lengths = (version.len(), trace.len(), parent.len(), flags.len()) == (2, 32, 16, 2);
    let hex = [version, trace, parent, flags].into_iter().all(is_hex);
    // Later versions may append fields; ff is not a version.
    let ended = version != "00" || parts.next().is_none();
    let known =
        version != "ff" && trace.bytes().any(|byte| byte != b'0') && parent.bytes().any(|byte| byte != b'0');
    (lengths && hex && ended && known).then_some(trace)
}

/// Sixteen hexadecimal digits that differ between requests, and between effes.
fn new() -> String {
    static SEED: OnceLock<u64> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let seed = *SEED.get_or_init(|| RandomState::new().hash_one(std::process::id()));
    // The factor is odd and so has an inverse modulo 2^64: no two ids are equal, and consecutive ones look different.
    let n = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{:016x}", n ^ seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn id(request_id: Option<&str>, traceparent: Option<&str>) -> String {
        of(|name| if name == "traceparent" { traceparent } else { request_id }.map(str::as_bytes))
    }

    #[test]
    fn what_a_request_is_called_already_it_is_called_here() {
        let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        assert_eq!(id(Some("abc"), Some(&parent)), "abc");
        assert_eq!(id(None, Some(&parent)), TRACE);
        assert_eq!(id(Some("a b"), Some(&parent)), TRACE, "what is no name doesn't hide the trace");
        assert_eq!(id(None, Some(&format!("01-{TRACE}-00f067aa0ba902b7-01-more"))), TRACE);
    }

    #[test]
    fn what_is_no_name_gets_a_new_one() {
        let too_long = "x".repeat(MAX + 1);
        for bad in ["", " ", "a b", "a\nb", "ü", &too_long] {
            let id = id(Some(bad), None);
            assert!(id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{bad:?}: {id}");
        }
        let zeros = "0".repeat(32);
        for bad in [
            "".to_owned(),
            TRACE.to_owned(),
            format!("00-{TRACE}-00f067aa0ba902b7"),
            format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
            format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
            format!("00-{zeros}-00f067aa0ba902b7-01"),
            format!("00-{TRACE}-0000000000000000-01"),
        ] {
            assert_eq!(id(None, Some(&bad)).len(), 16, "{bad}");
        }
        assert_ne!(id(None, None), id(None, None));
    }

    #[test]
    fn whatever_a_client_says_the_name_is_one_word() {
        type Said = (Option<Vec<u8>>, Option<Vec<u8>>, bool);
        bolero::check!().with_type::<Said>().for_each(|(request_id, traceparent, plain)| {
            let digits = b"00011abf-";
            let like_a_trace = |bytes: &Vec<u8>| {
                bytes.iter().map(|byte| digits[usize::from(*byte) % digits.len()]).collect::<Vec<u8>>()
            };
            let traceparent =
                if *plain { traceparent.as_ref().map(like_a_trace) } else { traceparent.clone() };
            let id = of(|name| match name {
                "traceparent" => traceparent.as_deref(),
                _ => request_id.as_deref(),
            });
            assert!(
                (1..=MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()),
                "{id:?}"
            );
        });
    }

    #[test]
    fn any_trace_that_is_well_formed_is_the_name() {
        bolero::check!().with_type::<(u128, u64, u8, u8)>().for_each(|(trace, parent, flags, version)| {
            let text = format!("{version:02x}-{trace:032x}-{parent:016x}-{flags:02x}");
            let known = *version != 0xff && *trace != 0 && *parent != 0;
            assert_eq!(id(None, Some(&text)) == format!("{trace:032x}"), known, "{text}");
        });
    }
}
