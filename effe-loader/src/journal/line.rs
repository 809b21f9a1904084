//! Text that stays on its line: escapes, cuts and `name=value` pairs, for stderr and for syslog.

use std::fmt::Write;

/// Shortens a text to `limit` bytes, and appends how many bytes are missing.
pub(super) fn cut(text: &mut String, limit: usize) {
    if text.len() <= limit {
        return;
    }
    let end = boundary(text, limit);
    let gone = text.len() - end;
    text.truncate(end);
    let _ = write!(text, "… ({gone} bytes more)");
    text.shrink_to_fit();
}

/// Where to cut a text so that as much as possible fits into `limit` bytes and no character is split.
pub(super) fn boundary(text: &str, limit: usize) -> usize {
    let limit = limit.min(text.len());
    (0..=limit).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// Whether a character could end a line, control a terminal or change the direction of the text: C0, DEL, C1,
/// and Unicode's separators and direction overrides.
pub(super) fn is_unsafe(ch: char) -> bool {
    ch.is_control()
        || matches!(ch, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Appends a text in which `style` replaces every unsafe character.
pub(super) fn escape(out: &mut String, text: &str, style: fn(&mut String, char)) {
    let mut rest = text;
    while let Some((at, ch)) = rest.char_indices().find(|(_, ch)| is_unsafe(*ch)) {
        out.push_str(&rest[..at]);
        style(out, ch);
        rest = &rest[at + ch.len_utf8()..];
    }
    out.push_str(rest);
}

/// `#012`: each byte in octal, as rsyslog does it.
pub(super) fn octal(out: &mut String, ch: char) {
    for byte in ch.encode_utf8(&mut [0; 4]).bytes() {
        let _ = write!(out, "#{byte:03o}");
    }
}

/// `\n`, `\u{85}`: as Rust does it.
pub(super) fn backslash(out: &mut String, ch: char) {
    out.extend(ch.escape_debug());
}

/// `\u0085`: inside a string of JSON. Every unsafe character has four digits.
pub(super) fn json(out: &mut String, ch: char) {
    let _ = write!(out, "\\u{:04x}", u32::from(ch));
}

/// Appends ` name=value`, quoted where a reader could be misled.
pub(super) fn push_field(out: &mut String, name: &str, value: &str) {
    let bare = !value.is_empty() && !value.contains([' ', '"', '=', '\\']);
    let _ = match bare {
        true => write!(out, " {name}={value}"),
        false => write!(out, " {name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &str, style: fn(&mut String, char)) -> String {
        let mut out = String::new();
        escape(&mut out, text, style);
        out
    }

    #[test]
    fn unsafe_characters_have_three_spellings() {
        let text = "ü\n\0\x1b\x7f\u{85}\u{2028}\u{202e}.";
        assert_eq!(escaped(text, octal), "ü#012#000#033#177#302#205#342#200#250#342#200#256.");
        assert_eq!(escaped(text, backslash), r"ü\n\0\u{1b}\u{7f}\u{85}\u{2028}\u{202e}.");
        assert_eq!(escaped(text, json), r"ü\u000a\u0000\u001b\u007f\u0085\u2028\u202e.");
    }

    #[test]
    fn a_cut_says_how_much_is_gone_and_splits_no_character() {
        let mut text = "aüü".to_owned();
        cut(&mut text, 5);
        assert_eq!(text, "aüü");
        cut(&mut text, 4);
        assert_eq!(text, "aü… (2 bytes more)");
        let mut text = "ü".to_owned();
        cut(&mut text, 1);
        assert_eq!(text, "… (2 bytes more)");
    }

    #[test]
    fn any_text_stays_on_its_line_and_within_its_limit() {
        bolero::check!().with_type::<(String, u8)>().for_each(|(text, limit)| {
            for style in [octal, backslash, json] {
                let out = escaped(text, style);
                assert!(!out.contains(is_unsafe), "{out:?}");
                assert_eq!(out == *text, !text.contains(is_unsafe), "{text:?}");
            }
            let limit = usize::from(*limit);
            let mut short = text.clone();
            cut(&mut short, limit);
            let kept = short.split_once("… (").filter(|_| short != *text).map_or(&*short, |(kept, _)| kept);
            assert!(text.starts_with(kept) && kept.len() <= limit.max(text.len().min(limit)), "{short:?}");
        });
    }
}
