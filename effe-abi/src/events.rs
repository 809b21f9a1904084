//! Server-sent events: a stream that a browser's `EventSource` reads.
//!
//! This file owns the format (the HTML standard, section 9.2). Sending and buffering is left to `response.rs`.

use std::{
    fmt,
    io::{self, Write},
    time::Duration,
};

use crate::response::Response;

impl<'a> Response<'a> {
    /// Makes the answer a stream of server-sent events, for a lambda that declares
    /// [`Options::stream_response`](crate::Options::stream_response).
    ///
    /// # Errors
    /// The client has gone.
    pub fn events(&mut self) -> io::Result<Events<'_, 'a>> {
        Events::begin(self)
    }
}

/// One event of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    data: &'a str,
    name: Option<&'a str>,
    id: Option<&'a str>,
    retry: Option<Duration>,
}

impl<'a> Event<'a> {
    /// An event with this data, of one line or several.
    pub const fn new(data: &'a str) -> Event<'a> {
        Event { data, name: None, id: None, retry: None }
    }

    /// The kind of event that it is. Without a name, the client takes it for a `message`.
    pub const fn name(self, name: &'a str) -> Event<'a> {
        Event { name: Some(name), ..self }
    }

    /// What the client sends as `Last-Event-ID` when it connects again.
    pub const fn id(self, id: &'a str) -> Event<'a> {
        Event { id: Some(id), ..self }
    }

    /// How long the client waits before it connects again.
    pub const fn retry(self, retry: Duration) -> Event<'a> {
        Event { retry: Some(retry), ..self }
    }

    fn is_well_formed(&self) -> bool {
        let is_one_line = |text: Option<&str>| !text.is_some_and(|text| text.contains(['\r', '\n', '\0']));
        is_one_line(self.name) && is_one_line(self.id)
    }
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.name {
            writeln!(f, "event: {name}")?;
        }
        if let Some(id) = self.id {
            writeln!(f, "id: {id}")?;
        }
        if let Some(retry) = self.retry {
            writeln!(f, "retry: {}", retry.as_millis())?;
        }
        lines(f, "data: ", self.data)?;
        f.write_str("\n")
    }
}

/// Writes each line of `text` after `word`. Lines may end in CR, LF or both.
fn lines(f: &mut fmt::Formatter<'_>, word: &str, text: &str) -> fmt::Result {
    let mut rest = text;
    loop {
        let end = rest.find(['\r', '\n']);
        writeln!(f, "{word}{}", &rest[..end.unwrap_or(rest.len())])?;
        let Some(end) = end else { return Ok(()) };
        let n = if rest[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = &rest[end + n..];
    }
}

/// An answer that is a stream of events, made by [`Response::events`].
pub struct Events<'r, 'a>(&'r mut Response<'a>);

impl<'r, 'a> Events<'r, 'a> {
    pub(crate) fn begin(response: &'r mut Response<'a>) -> io::Result<Events<'r, 'a>> {
        response.header("content-type", "text/event-stream").header("cache-control", "no-store");
        // The client learns now that the stream is open, and not only with the first event.
        response.flush()?;
        Ok(Events(response))
    }

    /// Sends an event now. Waits while the client is slow.
    ///
    /// # Errors
    /// The client has gone, or the name or the id contains CR, LF or NUL.
    pub fn send(&mut self, event: &Event<'_>) -> io::Result<()> {
        if !event.is_well_formed() {
            let text = "the name and the id of an event are one line each, without NUL";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        write!(self.0, "{event}")?;
        self.0.flush()
    }

    /// Sends a comment, which clients ignore. It keeps proxies from closing a connection that seems idle, and shows
    /// whether the client is still there.
    ///
    /// # Errors
    /// The client has gone.
    pub fn comment(&mut self, text: &str) -> io::Result<()> {
        struct Comment<'a>(&'a str);
        impl fmt::Display for Comment<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                lines(f, ": ", self.0)
            }
        }
        writeln!(self.0, "{}", Comment(text))?;
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_what_the_html_standard_says() {
        assert_eq!(Event::new("a").to_string(), "data: a\n\n");
        let full = Event::new("a\nb\r\nc\rd\n").name("tick").id("7").retry(Duration::from_secs(3));
        let text = "event: tick\nid: 7\nretry: 3000\ndata: a\ndata: b\ndata: c\ndata: d\ndata: \n\n";
        assert_eq!(full.to_string(), text);
        assert_eq!(Event::new("").to_string(), "data: \n\n");
    }

    #[test]
    fn a_name_or_id_of_two_lines_would_forge_a_field() {
        for bad in ["a\ndata: b", "a\r", "a\0"] {
            assert!(!Event::new("").id(bad).is_well_formed(), "{bad:?}");
            assert!(!Event::new("").name(bad).is_well_formed(), "{bad:?}");
        }
        assert!(Event::new("a\nb").id("é").name("x y").is_well_formed());
    }
}
