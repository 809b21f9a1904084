//! Sizes and times as an operator writes them.

use std::{str::FromStr, time::Duration};

/// A number of bytes: `512`, `64KiB`, `2MiB`, `1GiB`, `10MB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub usize);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let (number, unit) = split(text);
        let factor: usize = match unit {
            "" | "B" => 1,
            "K" | "KiB" => 1 << 10,
            "M" | "MiB" => 1 << 20,
            "G" | "GiB" => 1 << 30,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            _ => 0,
        };
        let number = number.parse::<usize>().ok().filter(|_| factor > 0);
        let size = number.and_then(|number| number.checked_mul(factor));
        size.map(Size).ok_or_else(|| "write it as 512, 64KiB, 2MiB or 1GiB".to_owned())
    }
}

/// A length of time: `500ms`, `30s`, `5m`, `1h`; a bare number is seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let (number, unit) = split(text);
        let factor: u64 = match unit {
            "ms" => 1,
            "" | "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => 0,
        };
        let number = number.parse::<u64>().ok().filter(|_| factor > 0);
        // At most a year, so that sums with the clock can't overflow.
        let millis = number.and_then(|number| number.checked_mul(factor));
        let millis = millis.filter(|millis| *millis <= 366 * 24 * 3_600_000);
        let span = millis.map(|millis| Span(Duration::from_millis(millis)));
        span.ok_or_else(|| "write it as 500ms, 30s, 5m or 1h".to_owned())
    }
}

fn split(text: &str) -> (&str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    (&text[..digits], text[digits..].trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_have_units() {
        let size = |text: &str| text.parse::<Size>().map(|size| size.0);
        assert_eq!(size("512"), Ok(512));
        assert_eq!(size("2MiB"), Ok(2 << 20));
        assert_eq!(size("10 MB"), Ok(10_000_000));
        for bad in ["", "MiB", "-1", "1.5MiB", "2Mib", "99999999999999999999", "99999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        let span = |text: &str| text.parse::<Span>().map(|span| span.0.as_millis());
        assert_eq!(span("500ms"), Ok(500));
        assert_eq!((span("30"), span("30s"), span("5m")), (Ok(30_000), Ok(30_000), Ok(300_000)));
        for bad in ["", "s", "1d", "-1s", "99999999999999h"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn any_size_and_time_is_exact_or_refused() {
        let units = [("", 1, 1_000), ("KiB", 1024, 0), ("MB", 1_000_000, 0), ("m", 0, 60_000), ("ms", 0, 1)];
        bolero::check!().with_type::<(u64, u8, u8, String)>().for_each(|(number, shift, unit, noise)| {
            // All magnitudes alike.
            let number = u128::from(number >> (shift % 64));
            let (unit, bytes, millis) = units[usize::from(*unit) % units.len()];
            let text = format!("{number}{unit}");
            let size = text.parse::<Size>().ok().map(|size| size.0 as u128);
            let expected = Some(number * bytes).filter(|n| bytes > 0 && usize::try_from(*n).is_ok());
            assert_eq!(size, expected, "{text}");
            let span = text.parse::<Span>().ok().map(|span| span.0.as_millis());
            let year = 366 * 24 * 3_600_000;
            assert_eq!(span, Some(number * millis).filter(|n| millis > 0 && *n <= year), "{text}");
            if !noise.starts_with(|ch: char| ch.is_ascii_digit()) {
                assert!(noise.parse::<Size>().is_err() && noise.parse::<Span>().is_err(), "{noise:?}");
            }
        });
    }
}
