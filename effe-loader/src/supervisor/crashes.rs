//! What the log says of a crash: how the process ended, where in the lambda, in a run of which request.

use std::{collections::hash_map::Entry, fmt::Write as _, fs::File, thread};

use super::{
    Event, SIGNALS, Supervisor,
    crash_line::{CrashLine, Located, Place},
    process::Process,
    symbols,
};
use crate::{
    journal::Severity,
    process::{memory, signals},
    rt::panics::survive,
};

/// Places whose names are kept.
const MOST: usize = 256;

impl Supervisor<'_> {
    /// Says in the log what has happened to a process, and what follows.
    pub(super) fn tell_of(&mut self, process: &Process, what: String, sequel: String) {
        let remains = &process.remains;
        let mut line = CrashLine { what, ..CrashLine::default() };
        let fields = &mut line.fields;
        fields.push(("pid", process.pid().to_string()));
        let note = remains.note.as_ref();
        match note.filter(|note| note.is_in_run) {
            Some(note) => {
                let request = String::from_utf8_lossy(&note.text[..note.len]).into_owned();
                let _ = write!(line.rest, ", in a run of {request}");
                fields.push(("generation", note.generation.to_string()));
                let (method, path) = request.split_once(' ').unwrap_or((&request, ""));
                fields.extend([("method", method.to_owned()), ("path", path.to_owned())]);
                fields.extend(remains.request_id.clone().map(|id| ("request_id", id)));
            }
            None => fields.push(("generation", process.source.number.to_string())),
        }
        if let Some(note) = note.filter(|note| note.signal != 0) {
            fields.extend([
                ("address", format!("{:#x}", note.address)),
                ("pc", format!("{:#x}", note.counter)),
            ]);
        }
        let [started, stopped] = remains.contexts;
        let abandoned = started.saturating_sub(stopped);
        if abandoned > 0 {
            let _ = write!(line.rest, "; {abandoned} Contexts were not stopped");
        }
        if !sequel.is_empty() {
            let _ = write!(line.rest, "; {sequel}");
        }
        let Some(note) = note.filter(|note| note.place != 0) else { return self.say(line, None) };
        line.place = format!(", at {:#x} of {}", note.place, self.path());
        let place = (process.source.number, note.place);
        let copy = process.source.plugin.as_deref().and_then(|plugin| plugin.memory()?.try_clone().ok());
        match (copy, self.located.entry(place)) {
            (_, Entry::Occupied(mut found)) => match found.get_mut() {
                Located::Soon(lines) => lines.push(line),
                Located::Done(location) => {
                    let location = location.clone();
                    self.say(line, location.as_ref());
                }
            },
            (None, Entry::Vacant(_)) => self.say(line, None),
            (Some(copy), Entry::Vacant(entry)) => {
                entry.insert(Located::Soon(vec![line]));
                self.locate(copy, place);
            }
        }
    }

    /// Has a thread look up what a place is called.
    fn locate(&mut self, copy: File, place: Place) {
        let events = self.events.clone();
        let thread = thread::Builder::new().name("effe-symbols".to_owned());
        let begun = thread.spawn(move || {
            signals::block(&SIGNALS);
            let location = survive(|| Ok(symbols::locate(&copy, place.1))).unwrap_or_default();
            memory::give_back();
            let _ = events.send(Event::Located(place, location));
        });
        if begun.is_err() {
            self.located(place, None);
        }
    }

    pub(super) fn located(&mut self, place: Place, location: Option<symbols::Location>) {
        let before = self.located.insert(place, Located::Done(location.clone()));
        if let Some(Located::Soon(lines)) = before {
            lines.into_iter().for_each(|line| self.say(line, location.as_ref()));
        }
        if self.located.len() > MOST {
            self.located.retain(|_, located| matches!(located, Located::Soon(_)));
        }
    }

    /// Says what waits to be said, with what is known by now.
    pub(super) fn say_all(&mut self) {
        for located in std::mem::take(&mut self.located).into_values() {
            if let Located::Soon(lines) = located {
                lines.into_iter().for_each(|line| self.say(line, None));
            }
        }
    }

    fn say(&self, line: CrashLine, location: Option<&symbols::Location>) {
        let CrashLine { what, mut place, rest, mut fields } = line;
        if let Some(symbols::Location { function, line }) = location {
            let line = line.as_ref().map(|(file, line)| format!("{file}:{line}"));
            let known: Vec<&str> = function.iter().chain(&line).map(String::as_str).collect();
            let _ = write!(place, " ({})", known.join(", "));
            fields.extend(function.clone().map(|function| ("function", function)));
            fields.extend(line.map(|line| ("location", line)));
        }
        self.journal.report(Severity::Critical, format!("{what}{place}{rest}"), fields);
    }
}
