//! Copies of the lines of some requests, for whoever asks for them while they run.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::record::Record;

/// Bytes that are kept of a request's lines: the last ones.
const KEPT: usize = 4 * 1024;

static N_TAPS: AtomicUsize = AtomicUsize::new(0);
static TAPS: Mutex<Option<HashMap<String, String>>> = Mutex::new(None);

/// The lines of one request, from now on until it is dropped.
pub struct Tap {
    request_id: String,
}

impl Tap {
    pub fn on(request_id: &str) -> Tap {
        taps().get_or_insert_default().insert(request_id.to_owned(), String::new());
        N_TAPS.fetch_add(1, Ordering::Relaxed);
        Tap { request_id: request_id.to_owned() }
    }

    /// The lines so far.
    pub fn lines(&self) -> String {
        taps().as_ref().and_then(|taps| taps.get(&self.request_id)).cloned().unwrap_or_default()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        taps().get_or_insert_default().remove(&self.request_id);
        N_TAPS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Copies a record to the tap of its request, if there is one.
pub(super) fn copy(record: &Record) {
    if N_TAPS.load(Ordering::Relaxed) == 0 {
        return;
    }
    let id = record.fields.iter().find(|(name, _)| *name == "request_id").map(|(_, id)| id);
    let mut taps = taps();
    let Some(lines) = taps.as_mut().zip(id).and_then(|(taps, id)| taps.get_mut(id)) else { return };
    let (target, text) = (&record.target, &record.text);
    let gap = if target.is_empty() { "" } else { " " };
    lines.push_str(&format!("[{:?}]{gap}{target} {text}\n", record.severity));
    keep_last(lines);
}

/// Cuts the beginning off, at a character.
pub fn keep_last(lines: &mut String) {
    if let Some(mut n_over) = lines.len().checked_sub(KEPT) {
        while !lines.is_char_boundary(n_over) {
            n_over += 1;
        }
        lines.drain(..n_over);
    }
}

fn taps() -> MutexGuard<'static, Option<HashMap<String, String>>> {
    TAPS.lock().unwrap_or_else(PoisonError::into_inner)
}
