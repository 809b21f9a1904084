//! One generation: a plugin that is mapped into this process, and its calls that concern no Context.
#![expect(unsafe_code, reason = "this module calls the lambda; its callers are safe")]

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use effe_abi::{
    Linked,
    c_root::HostEntry,
    extensions::{ANSWERS_EARLY, AsyncPlugin, UPGRADES},
    raw::{
        self, Failure,
        plugin_flags::{KEEP_CANCELLED, NEVER_WAITS, STREAM_REQUEST, STREAM_RESPONSE, WAITS},
    },
};

use super::{copy::PrivateCopy, entries::Entries, fault::Fault, file::PluginFile, host::Host};
use crate::{
    error::Error,
    journal::{Record, Severity},
};

/// How many Contexts there are: of one generation, or of the process.
#[derive(Default)]
pub struct ContextCounts {
    started: AtomicU64,
    stopped: AtomicU64,
    /// Bytes of the images that were mapped for them: they stay mapped.
    images: AtomicU64,
    /// Where others read how many were started and stopped, if this process is supervised.
    pub shared: OnceLock<&'static [AtomicU64; 2]>,
}

impl ContextCounts {
    /// Contexts that Start has made so far.
    pub fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// Bytes of the images that are mapped, those of retired generations too.
    pub fn images(&self) -> u64 {
        self.images.load(Ordering::Relaxed)
    }

    /// Contexts that were made and are not stopped yet.
    pub fn living(&self) -> u64 {
        let stopped = self.stopped.load(Ordering::Acquire);
        self.started().saturating_sub(stopped)
    }
}

/// A lambda that is mapped, its host and its counts: what a generation is made of. It is never freed.
pub struct Plugin {
    /// As the operator named it.
    pub path: PathBuf,
    pub(super) entries: Entries,
    pub host: &'static Host,
    pub(super) table: &'static raw::Host,
    /// Its own Contexts, and those of the process.
    pub contexts: ContextCounts,
    counts: Arc<ContextCounts>,
    /// The copy that it is mapped from; `None` once it is retired.
    copy: Mutex<Option<PrivateCopy>>,
    /// Bytes of its image; 0 if it is part of the program.
    pub image: u64,
    /// Both are asked for once, and not before Init: a damaged plugin may kill the process in that call.
    ready: OnceLock<Option<HostEntry>>,
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
        counts.images.fetch_add(image, Ordering::Relaxed);
        Box::leak(Box::new(Plugin {
            path,
            entries,
            host,
            table: host.table(),
            contexts: ContextCounts::default(),
            counts: Arc::clone(counts),
            copy: Mutex::new(copy),
            image,
            ready: OnceLock::new(),
            polled: OnceLock::new(),
            retired: Mutex::new(false),
        }))
    }

    /// Calls Init. Call it once, before any Start.
    pub fn init(&'static self) -> Result<(), Error> {
        if let (true, Some(journal)) = (self.host.is_strict(), self.host.journal.get()) {
            self.flag_breaches().into_iter().for_each(|breach| journal.warning(breach));
        }
        let mut failure = Failure::new();
        // SAFETY: the table is `host.rs`'s; `main` calls this once, first.
        let status = unsafe { (self.entries.init)(self.table, &mut failure) };
        Fault::check(status, failure).map_err(|fault| Error::Step {
            path: self.path.clone(),
            step: "init",
            what: fault.to_string(),
        })
    }

    /// Asks the lambda whether it can serve, which may take long. One that is retired can't.
    pub fn ready(&'static self) -> Result<(), Fault> {
        let Some(ready) = self.ready_entry() else { return Ok(()) };
        let retired = self.retired();
        if *retired {
            return Err(Fault::Error(Severity::Error, "it is retired".to_owned()));
        }
        let mut failure = Failure::new();
        // SAFETY: the table is `host.rs`'s; one call at a time and none after `retire`, by the lock.
        let status = unsafe { ready(self.table, &mut failure) };
        Fault::check(status, failure)
    }

    /// The entries that can be polled, if the lambda is async.
    pub(super) fn polled(&self) -> Option<&'static AsyncPlugin> {
        *self.polled.get_or_init(|| self.kept(self.entries.polled()))
    }

    /// For a lambda that says itself whether it is ready.
    pub fn ready_entry(&self) -> Option<HostEntry> {
        *self.ready.get_or_init(|| self.kept(self.entries.ready()))
    }

    /// What is there, if it keeps the contract; a breach is logged.
    fn kept<T>(&self, table: Result<Option<T>, String>) -> Option<T> {
        table.unwrap_or_else(|breach| {
            self.log(&Fault::Error(Severity::Error, breach));
            None
        })
    }

    /// Whether its tables beyond v1 keep the contract. Call it between Init and Retire.
    pub fn check_tables(&self) -> Result<(), Error> {
        let broken = self.entries.ready().err().or_else(|| self.entries.polled().err());
        match broken {
            Some(what) => Err(Error::Step { path: self.path.clone(), step: "extension", what }),
            None => Ok(()),
        }
    }

    fn retired(&self) -> MutexGuard<'_, bool> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls Retire. Call it once, after the last Context is dropped. The image stays mapped; the descriptor
    /// of its copy is closed.
    pub fn retire(&'static self) -> Result<(), Fault> {
        *self.retired() = true;
        let mut failure = Failure::new();
        // SAFETY: the table is `host.rs`'s; whoever ends a generation calls this once, last.
        let status = unsafe { (self.entries.retire)(self.table, &mut failure) };
        *self.copy() = None;
        Fault::check(status, failure)
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

    pub fn info(&self) -> &'static str {
        self.entries.info
    }

    pub fn flags(&self) -> u64 {
        self.entries.flags
    }

    /// What its flags say that this loader doesn't know, or that contradicts itself.
    fn flag_breaches(&self) -> Vec<String> {
        const KNOWN: u64 = NEVER_WAITS
            | WAITS
            | STREAM_REQUEST
            | STREAM_RESPONSE
            | KEEP_CANCELLED
            | ANSWERS_EARLY
            | UPGRADES;
        let (flags, mut breaches) = (self.flags(), Vec::new());
        if flags & !KNOWN != 0 {
            breaches.push(format!(
                "the lambda's flags have {:#x}, which this loader doesn't know",
                flags & !KNOWN
            ));
        }
        if flags & NEVER_WAITS != 0 && flags & WAITS != 0 {
            breaches.push(
                "the lambda breaks its contract: its flags say that it always and that it never waits"
                    .to_owned(),
            );
        }
        breaches
    }

    pub(super) fn count_start(&self) {
        self.contexts.started.fetch_add(1, Ordering::Relaxed);
        self.counts.started.fetch_add(1, Ordering::Relaxed);
        if let Some([started, _]) = self.counts.shared.get() {
            started.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a Stop. `Release`: who sees it in `living` sees the start that it follows.
    pub(super) fn count_stop(&self) {
        self.contexts.stopped.fetch_add(1, Ordering::Release);
        self.counts.stopped.fetch_add(1, Ordering::Release);
        if let Some([_, stopped]) = self.counts.shared.get() {
            stopped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn log_stop(&self, outcome: Result<(), Fault>) {
        if let Err(Fault::Error(severity, text)) = outcome {
            self.log(&Fault::Error(severity, format!("stop: {text}")));
        }
    }

    /// Logs an error that an entry reported. Panics are not logged here: the lambda's hook has logged them.
    pub fn log(&self, fault: &Fault) {
        if let (Fault::Error(severity, text), Some(journal)) = (fault, self.host.journal.get()) {
            journal.log(Record::of_lambda(*severity, "lambda", text.clone(), None));
        }
    }
}
