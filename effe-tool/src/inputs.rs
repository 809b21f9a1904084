//! What a lambda is built from on this machine, as far as cargo and compilers say it.
//!
//! [`crate::cargo`] and [`crate::foreign`] find it out; a watch waits for changes of it.

use std::path::PathBuf;

use anyhow::Error;

/// What a build reads beside the lambda's own file or crate.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    /// Files and directories, also those that are missing.
    pub(crate) paths: Vec<PathBuf>,
    /// The directories of which a build may read any file.
    pub(crate) may_read: Vec<PathBuf>,
    /// The files that could not be asked, and why.
    pub(crate) failures: Vec<(PathBuf, Error)>,
}

/// The files in a rule for make: `built: one two`, where a space in a name is `\ `. A line that ends with `\` goes on.
pub(crate) fn of_rule(text: &str) -> Vec<PathBuf> {
    let Some((_, list)) = text.trim_end().split_once(": ") else { return Vec::new() };
    let mut names = vec![String::new()];
    let mut chars = list.chars().peekable();
    while let Some(one) = chars.next() {
        match (one, chars.peek()) {
            ('\\', Some('\n')) => {}
            ('\\', Some(' ')) => names.last_mut().expect("never empty").extend(chars.next()),
            (' ' | '\n', _) => names.push(String::new()),
            _ => names.last_mut().expect("never empty").push(one),
        }
    }
    names.into_iter().filter(|name| !name.is_empty()).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_files_is_a_rule_for_make() {
        let files = of_rule("/t/lib\\ a.so: /a/src/lib.rs /a/b\\ c.txt /a/back\\slash\n");
        assert_eq!(files, ["/a/src/lib.rs", "/a/b c.txt", "/a/back\\slash"].map(PathBuf::from));
        let files = of_rule("a.so: a.c \\\n b\\ c.h \\\n  d.h\n");
        assert_eq!(files, ["a.c", "b c.h", "d.h"].map(PathBuf::from));
        assert_eq!(of_rule("/t/a.so:\n"), Vec::<PathBuf>::new());
        assert_eq!(of_rule(""), Vec::<PathBuf>::new());
    }
}
