//! A lambda that has been opened, behind a safe face: generations, Contexts, and calls that can't be misused.
//!
//! It knows nothing of HTTP: an exchange is a thing to hand on.
#![expect(unsafe_code, reason = "this module is where foreign code is called; its callers are safe")]

mod copy;
mod elf;
mod ffi;
mod file;
pub mod host;
mod trial;

use std::{
    mem::ManuallyDrop,
    path::{Path, PathBuf},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use effe_abi::{
    Linked,
    raw::{self, Exchange, Failure, Status, status},
};

pub use self::trial::Facts;
use self::{copy::PrivateCopy, ffi::Entries, file::PluginFile, host::Host};
use crate::{
    error::{Error, Refusal},
    journal::{Record, Severity, Source},
};

/// A plugin that has been read, checked and tried in a child; nothing of it is mapped here yet.
pub struct Tried {
    path: PathBuf,
    copy: PrivateCopy,
    facts: Facts,
}

impl Tried {
    /// Reads a plugin, checks its headers, and opens it in a child.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    ///
    /// # Safety
    /// Opening a plugin runs its constructors: whoever wrote the file is trusted. The process has one thread.
    pub unsafe fn read(path: &Path) -> Result<Tried, Refusal> {
        let file = PluginFile::read(path)?;
        elf::check(&file.bytes).map_err(|reason| Refusal::new(path, reason))?;
        let copy = PrivateCopy::make(&file);
        // SAFETY: the caller's duty is the callee's condition.
        let facts = unsafe { trial::forked(copy.path()) }.map_err(|reason| Refusal::new(path, reason))?;
        Ok(Tried { path: file.path, copy, facts })
    }

    /// What the lambda says of itself.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Maps the plugin into this process, for good.
    ///
    /// # Errors
    /// As in [`Tried::read`]; what the child could open rarely fails here.
    ///
    /// # Safety
    /// Opening a plugin runs its constructors: whoever wrote the file is trusted.
    pub unsafe fn open(self, host: &'static Host) -> Result<&'static Plugin, Refusal> {
        // SAFETY: the caller's duty is the callee's condition.
        let entries = unsafe { ffi::open(self.copy.path()) };
        let entries = entries.map_err(|reason| Refusal::new(&self.path, reason))?;
        self.copy.mapped();
        let plugin = Plugin::new(self.path, entries, host);
        std::mem::forget(self.copy);
        Ok(plugin)
    }
}

/// One generation: a lambda that is mapped, its host, and what it has been asked so far. Lives for ever.
pub struct Plugin {
    path: PathBuf,
    entries: Entries,
    host: &'static Host,
    table: &'static raw::Host,
    started: AtomicU64,
    stopped: AtomicU64,
}

/// Why an entry did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The author's error, at the author's severity.
    Error(Severity, String),
    /// A panic, which the lambda's hook has logged.
    Panic(String),
}

/// What Start made.
pub enum Started {
    /// A Context.
    Ready(Context),
    /// An error that waits for one Run, perhaps with a Context.
    Failed(Context, Fault),
    /// Nothing; Start panicked.
    Panicked(Fault),
}

impl Plugin {
    /// A lambda that is part of this program.
    pub fn linked(lambda: &'static Linked, host: &'static Host) -> &'static Plugin {
        Plugin::new(PathBuf::from("the linked lambda"), Entries::of(lambda.plugin()), host)
    }

    fn new(path: PathBuf, entries: Entries, host: &'static Host) -> &'static Plugin {
        let (started, stopped) = (AtomicU64::new(0), AtomicU64::new(0));
        Box::leak(Box::new(Plugin { path, entries, host, table: host.table(), started, stopped }))
    }

    /// Calls Init; to be called once, before any Start.
    ///
    /// # Errors
    /// Init failed or panicked.
    pub fn init(&'static self) -> Result<(), Error> {
        let mut failure = Failure::new();
        // SAFETY: the table is `host.rs`'s; `main` calls this once, first.
        let status = unsafe { self.entries.init(self.table, &mut failure) };
        match Fault::of(status, failure) {
            None => Ok(()),
            Some(fault) => Err(Error::Init { path: self.path.clone(), what: fault.to_string() }),
        }
    }

    /// Calls Start.
    pub fn start(&'static self) -> Started {
        let (mut pointer, mut failure) = (std::ptr::null_mut(), Failure::new());
        // SAFETY: the table is `host.rs`'s; between `init` and `retire`.
        let status = unsafe { self.entries.start(self.table, &mut pointer, &mut failure) };
        let context = NonNull::new(pointer).map(|pointer| {
            self.started.fetch_add(1, Ordering::Relaxed);
            Context { plugin: self, pointer }
        });
        match (Fault::of(status, failure), context) {
            (None, Some(context)) => Started::Ready(context),
            (Some(fault @ Fault::Error(..)), Some(context)) => Started::Failed(context, fault),
            (Some(fault), _) => Started::Panicked(fault),
            (None, None) => {
                Started::Panicked(Fault::Error(Severity::Error, "start made no Context".to_owned()))
            }
        }
    }

    /// Calls Retire; to be called once, after the last Context is dropped.
    ///
    /// # Errors
    /// Retire failed or panicked.
    pub fn retire(&'static self) -> Result<(), Fault> {
        let mut failure = Failure::new();
        // SAFETY: the table is `host.rs`'s; whoever ends a generation calls this once, last.
        let status = unsafe { self.entries.retire(self.table, &mut failure) };
        Fault::of(status, failure).map_or(Ok(()), Err)
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

    /// Logs what an entry reported. Panics are counted on: the lambda's hook has logged them.
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

/// A Context of the lambda's. Dropping it is Stop: exactly once, on every road out.
pub struct Context {
    plugin: &'static Plugin,
    pointer: NonNull<()>,
}

// SAFETY: the wire lets a Context be used on any thread, one call at a time, which `&mut` sees to.
unsafe impl Send for Context {}

impl Context {
    /// Calls Run.
    ///
    /// # Errors
    /// Run failed or panicked; after a panic the Context is good for nothing but to be dropped.
    pub fn run(&mut self, exchange: &Exchange<'_>) -> Result<(), Fault> {
        let mut failure = Failure::new();
        // SAFETY: `start` made the pointer, `drop` has not stopped it, `&mut self` keeps it to one call.
        let status = unsafe { self.plugin.entries.run(self.pointer.as_ptr(), exchange, &mut failure) };
        Fault::of(status, failure).map_or(Ok(()), Err)
    }

    /// Calls Stop, for whoever wants to know what came of it; dropping a Context logs it.
    ///
    /// # Errors
    /// Stop failed or panicked; the Context is gone all the same.
    pub fn stop(self) -> Result<(), Fault> {
        let mut context = ManuallyDrop::new(self);
        // SAFETY: it is not dropped any more.
        unsafe { context.end() }
    }

    /// # Safety
    /// It is the last use of the Context.
    unsafe fn end(&mut self) -> Result<(), Fault> {
        let mut failure = Failure::new();
        // SAFETY: `start` made the pointer, and nothing uses it after this, as the caller says.
        let status = unsafe { self.plugin.entries.stop(self.pointer.as_ptr(), &mut failure) };
        self.plugin.stopped.fetch_add(1, Ordering::Release);
        Fault::of(status, failure).map_or(Ok(()), Err)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: dropped once.
        if let Err(Fault::Error(severity, text)) = unsafe { self.end() } {
            self.plugin.log(&Fault::Error(severity, format!("stop: {text}")));
        }
    }
}

impl Fault {
    fn of(status: Status, failure: Failure) -> Option<Fault> {
        match status {
            status::OK => None,
            status::PANIC => Some(Fault::Panic(failure.text.into())),
            status::ERROR => Some(Fault::Error(Severity::from(failure.level), failure.text.into())),
            unexpected => {
                Some(Fault::Error(Severity::Error, format!("an entry reports status {unexpected}")))
            }
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Error(_, text) => write!(f, "failed: {text}"),
            Fault::Panic(text) => f.write_str(text),
        }
    }
}
