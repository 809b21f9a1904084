//! Splits a single-file lambda into its manifest and its source. The manifest is a block between lines of dashes at the
//! top of the file, in the format of cargo script (RFC 3503). This file does no I/O.

use anyhow::{Result, bail};

/// The parts of a single-file lambda.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    /// The TOML between the lines of dashes; empty if there is no block.
    pub(crate) manifest: String,
    /// The file without the block, with the same line numbers; `None` if there is no block to remove.
    pub(crate) source: Option<String>,
}

/// Splits a file.
///
/// # Errors
/// The block has no end, or is marked for another tool than cargo.
pub(crate) fn split(text: &str) -> Result<Parts> {
    let plain = Ok(Parts { manifest: String::new(), source: None });
    let mut offset = 0;
    let mut lines = text.split_inclusive('\n');
    let opening = loop {
        let Some(line) = lines.next() else { return plain };
        let is_shebang = offset == 0 && line.starts_with("#!") && !line.starts_with("#![");
        if !is_shebang && !line.trim().is_empty() {
            break line;
        }
        offset += line.len();
    };
    let n_dashes = opening.bytes().take_while(|byte| *byte == b'-').count();
    if n_dashes < 3 {
        return plain;
    }
    let fence = &opening[..n_dashes];
    let info = opening[n_dashes..].trim();
    if !["", "cargo"].contains(&info) {
        bail!(
            "line {}: `{}` starts a block for `{info}`; write `---cargo`",
            line_number(text, offset),
            opening.trim()
        );
    }
    let begin = offset + opening.len();
    let mut end = begin;
    for line in lines {
        if line.trim_end() == fence {
            let close = end + line.len();
            let blank = |range: std::ops::Range<usize>| "\n".repeat(text[range].matches('\n').count());
            let mut source = text[..offset].to_owned();
            source.push_str(&blank(offset..close));
            source.push_str(&text[close..]);
            // With as many empty lines in front as the file has, an error in the manifest names the file's line.
            let manifest = "\n".repeat(line_number(text, begin) - 1) + &text[begin..end];
            return Ok(Parts { manifest, source: Some(source) });
        }
        end += line.len();
    }
    bail!(
        "line {}: the block that `{}` starts has no end; close it with `{fence}`",
        line_number(text, offset),
        opening.trim()
    )
}

fn line_number(text: &str, offset: usize) -> usize {
    1 + text[..offset].matches('\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_the_source_stay_where_they_were() {
        let parts =
            split("#!/usr/bin/env x\n\n---cargo\n[dependencies]\na = \"1\"\n---\nfn f() {}\n").unwrap();
        assert_eq!(parts.manifest, "\n\n\n[dependencies]\na = \"1\"\n");
        assert_eq!(parts.source.as_deref(), Some("#!/usr/bin/env x\n\n\n\n\n\nfn f() {}\n"));
        let parts = split("----\na = '''\n---\n'''\n----\nx").unwrap();
        assert_eq!(
            (parts.manifest.trim(), parts.source.as_deref()),
            ("a = '''\n---\n'''", Some("\n\n\n\n\nx"))
        );
    }

    #[test]
    fn a_file_without_a_block_is_rust_as_it_stands() {
        for text in ["", "\n", "//! x\n---\n", "--\n", "#![no_std]\n", "fn f() {}\n---cargo\n---\n"] {
            assert_eq!(split(text).unwrap(), Parts { manifest: String::new(), source: None }, "{text:?}");
        }
    }

    #[test]
    fn any_file_keeps_its_lines_or_is_refused() {
        let pieces = ["---", "----", "cargo", "\n", "\r\n", " ", "a = 1", "#!x", "#![y]", "é"];
        bolero::check!().with_type::<(Vec<u8>, String)>().for_each(|(choices, rest)| {
            let mut text: String =
                choices.iter().map(|choice| pieces[usize::from(*choice) % pieces.len()]).collect();
            text.push_str(rest);
            let Ok(Parts { manifest, source }) = split(&text) else { return };
            let Some(source) = source else { return assert!(manifest.is_empty()) };
            // What the compiler says of a line of the source, or toml of one of the manifest, is of that line here.
            assert_eq!(source.matches('\n').count(), text.matches('\n').count());
            for part in [&source, &manifest] {
                let lines = part.split('\n').zip(text.split('\n'));
                lines.for_each(|(ours, theirs)| assert!(ours.is_empty() || ours == theirs, "{ours:?}"));
            }
        });
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let text = split("\n---cargo\na = 1\n").unwrap_err().to_string();
        assert!(text.contains("line 2") && text.contains("close it with `---`"), "{text}");
        assert!(split("---python\n---\n").unwrap_err().to_string().contains("`---cargo`"));
    }
}
