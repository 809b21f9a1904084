//! The book as an HTML page.

use std::fmt;

use crate::book::Kept;

/// A page with the entries and a form to add one, filled with the guest's name if it is known. All texts are escaped.
pub(crate) fn html(entries: &[Kept], guest: &str) -> String {
    let guest = Escaped(guest);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Guest book</title>\n\
         <h1>Guest book</h1>\n<form method=\"post\">\n\
         <p><label>Name <input name=\"name\" value=\"{guest}\" maxlength=\"80\" required></label>\n\
         <p><label>Text <textarea name=\"text\" maxlength=\"2000\" required></textarea></label>\n\
         <p><button>Sign</button>\n</form>\n",
    );
    for Kept { id, at, name, text } in entries {
        let (name, text) = (Escaped(name), Escaped(text));
        page.push_str(&format!(
            "<article id=\"entry-{id}\"><h2>{name}</h2><time>{at}</time><p>{text}</article>\n"
        ));
    }
    page
}

/// A text, escaped for HTML.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['&', '<', '>', '"', '\'']) {
            f.write_str(&rest[..at])?;
            f.write_str(match rest.as_bytes()[at] {
                b'&' => "&amp;",
                b'<' => "&lt;",
                b'>' => "&gt;",
                b'"' => "&quot;",
                _ => "&#39;",
            })?;
            rest = &rest[at + 1..];
        }
        f.write_str(rest)
    }
}
