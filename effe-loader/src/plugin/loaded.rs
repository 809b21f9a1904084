//! One generation: a plugin that is mapped into this process, and its calls that concern no Context.
#![expect(unsafe_code, reason = "this module calls the lambda; its callers are safe")]

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use effe_abi::{
    Linked,
    extensions::AsyncPlugin,
    raw::{self, Failure},
};

use super::{
    context_counts::ContextCounts,
    copy::PrivateCopy,
    fault::Fault,
    ffi::{Entries, ReadyEntry},
    file::PluginFile,
    host::Host,
};
use crate::{
    error::Error,
    journal::{Record, Severity, Source},
};

/// A lambda that is mapped, its host and its counts: what a generation is made of. It is never freed.
pub struct Plugin {
    path: PathBuf,
    pub(super) entries: Entries,
    host: &'static Host,
    pub(super) table: &'static raw::Host,
    pub(super) started: AtomicU64,
    stopped: AtomicU64,
    pub(super) counts: Arc<ContextCounts>,
    /// The copy that it is mapped from; `None` once it is retired.
    copy: Mutex<Option<PrivateCopy>>,
    image: u64,
    ready: OnceLock<Option<ReadyEntry>>,
    /// The entries that can be polled, if the lambda is async. Asked for once.
    polled: OnceLock<Option<&'static AsyncPlugin>>,
    /// Whether Retire has been called or is being called. Locked while the lambda's `ready` runs.
    retired: Mutex<bool>,
}

impl Plugin {
    /// A lambda that is part of this program.
    pub fn linked(
        lambda: &'static Linked,
        host: &'static Host,
        counts: &Arc<ContextCounts>,
    ) -> &'static Plugin {
        let path = PathBuf::from("the linked lambda");
        Plugin::new(path, Entries::of(lambda.plugin()), host, counts, None, 0)
    }

    pub(super) fn new(
        path: PathBuf,
        entries: Entries,
        host: &'static Host,
        counts: &Arc<ContextCounts>,
        copy: Option<PrivateCopy>,
        image: u64,
    ) -> &'static Plugin {
        Box::leak(Box::new(Plugin {
            path,
            entries,
            host,
            table: host.table(),
            started: AtomicU64::new(0),
            stopped: AtomicU64::new(0),
            counts: Arc::clone(counts),
            copy: Mutex::new(copy),
            image,
            ready: OnceLock::new(),
            polled: OnceLock::new(),
            retired: Mutex::new(false),
        }))
    }

    /// Calls Init. Call it once, before any Start.
    ///
    /// # Errors
    /// Init failed or panicked.
    pub fn init(&'static self) -> Result<(), Error> {
        let mut failure = Failure::new();
        // SAFETY: the table is `host.rs`'s; `main` calls this once, first.
        let status = unsafe { self.entries.init(self.table, &mut failure) };
        match Fault::of(status, failure) {
            None => Ok(()),
            Some(fault) => {
                Err(Error::Step { path: self.path.clone(), step: "init", what: fault.to_string() })
            }
        }
    }

    /// Whether the lambda says itself whether it is ready.
    pub fn has_ready(&self) -> bool {
        self.ready_entry().is_some()
    }

    /// Asks the lambda whether it can serve. This may take long.
    ///
    /// # Errors
    /// The lambda can't serve, or is retired.
    pub fn ready(&'static self) -> Result<(), Fault> {
        let Some(ready) = self.ready_entry() else { return Ok(()) };
        let retired = self.retired();
        if *retired {
            return Err(Fault::Error(Severity::Error, "it is retired".to_owned()));
        }
        let mut failure = Failure::new();
        // SAFETY: the table is `host.rs`'s; one call at a time and none after `retire`, by the lock.
        let status = unsafe { ready(self.table, &mut failure) };
        Fault::of(status, failure).map_or(Ok(()), Err)
    }

    pub(super) fn polled(&self) -> Option<&'static AsyncPlugin> {
        *self.polled.get_or_init(|| self.entries.polled())
    }

    fn ready_entry(&self) -> Option<ReadyEntry> {
        *self.ready.get_or_init(|| self.entries.ready())
    }

    fn retired(&self) -> MutexGuard<'_, bool> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls Retire. Call it once, after the last Context is dropped. The image stays mapped; the descriptor
    /// of its copy is closed.
    ///
    /// # Errors
    /// Retire failed or panicked.
    pub fn retire(&'static self) -> Result<(), Fault> {
        *self.retired() = true;
        let mut failure = Failure::new();
        // SAFETY: the table is `host.rs`'s; whoever ends a generation calls this once, last.
        let status = unsafe { self.entries.retire(self.table, &mut failure) };
        *self.copy() = None;
        Fault::of(status, failure).map_or(Ok(()), Err)
    }

    /// Whether another generation can replace it. A lambda that is part of the program, or that is mapped
    /// from the operator's own file, can't be replaced.
    pub fn can_be_swapped(&self) -> bool {
        self.copy().as_ref().is_some_and(|copy| !copy.is_original())
    }

    /// Whether the file still has the bytes that this plugin was made of.
    pub fn is_made_of(&self, file: &PluginFile) -> bool {
        self.copy().as_ref().is_some_and(|copy| copy.holds(&file.file))
    }

    fn copy(&self) -> MutexGuard<'_, Option<PrivateCopy>> {
        self.copy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host that the lambda was given.
    pub fn host(&self) -> &'static Host {
        self.host
    }

    /// Bytes of its image, which is never unmapped; 0 if it is part of the program.
    pub fn image(&self) -> u64 {
        self.image
    }

    /// The plugin as the operator named it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The lambda's Info, a JSON object.
    pub fn info(&self) -> &'static str {
        self.entries.info
    }

    /// Bits of `raw::plugin_flags`.
    pub fn flags(&self) -> u64 {
        self.entries.flags
    }

    /// Contexts that Start has made so far.
    pub fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// Contexts that were made and not stopped yet.
    pub fn contexts(&self) -> u64 {
        let stopped = self.stopped.load(Ordering::Acquire);
        self.started().saturating_sub(stopped)
    }

    /// Counts a Context that was stopped.
    pub(super) fn stopped(&self) {
        self.stopped.fetch_add(1, Ordering::Release);
        self.counts.stopped.fetch_add(1, Ordering::Release);
    }

    pub(super) fn log_stop(&self, fault: Option<Fault>) {
        if let Some(Fault::Error(severity, text)) = fault {
            self.log(&Fault::Error(severity, format!("stop: {text}")));
        }
    }

    /// Logs an error that an entry reported. Panics are not logged here: the lambda's hook has logged them.
    pub fn log(&self, fault: &Fault) {
        if let (Fault::Error(severity, text), Some(journal)) = (fault, self.host.journal()) {
            journal.log(Record {
                severity: *severity,
                source: Source::Lambda,
                target: "lambda".into(),
                text: text.clone(),
                fields: Vec::new(),
            });
        }
    }
}
