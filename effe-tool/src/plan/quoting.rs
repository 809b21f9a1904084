//! Texts as words of the files that `route` writes: for a shell, for YAML with the expansions of Kubernetes and Compose,
//! for systemd.
//! Which texts may stand there at all is left to `checks.rs`.

/// A text as one word for a POSIX shell. It stays on one line if the text is on one.
pub(crate) fn shell(text: &str) -> String {
    let is_plain = |ch: char| ch.is_ascii_alphanumeric() || "=._/:@,+-".contains(ch);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// A text as a YAML string in double quotes.
///
/// JSON's strings don't suffice: YAML allows no control character in a file, takes U+0085 and U+2028 for line breaks,
/// and folds line breaks in a string.
pub(super) fn yaml(text: &str) -> String {
    let mut quoted = String::from("\"");
    for ch in text.chars() {
        match ch {
            '"' | '\\' => quoted.extend(['\\', ch]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            ' '..='~' => quoted.push(ch),
            ch if ch.is_alphanumeric() => quoted.push(ch),
            ch if u32::from(ch) <= 0xffff => quoted.push_str(&format!("\\u{:04X}", u32::from(ch))),
            ch => quoted.push_str(&format!("\\U{:08X}", u32::from(ch))),
        }
    }
    quoted + "\""
}

/// A text of a Compose file, which puts a variable in the place of `$NAME` and `${NAME}`, and one `$` in the place of
/// two.
pub(super) fn compose_argument(text: &str) -> String {
    yaml(&text.replace('$', "$$"))
}

/// A text as an argument of a container: Kubernetes puts a variable in the place of `$(NAME)`, and one `$` in the place
/// of two.
pub(super) fn kubernetes_argument(text: &str) -> String {
    yaml(&text.replace('$', "$$"))
}

/// The path of a program as the first word of `ExecStart=`: systemd expands `%` there, and no `$`.
pub(super) fn systemd_program(path: &str) -> String {
    let path = path.replace('%', "%%");
    if path.contains(' ') { format!("\"{path}\"") } else { path }
}
