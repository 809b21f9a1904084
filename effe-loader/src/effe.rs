//! One lambda being served: where a request meets a Context, and every Context its Stop.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use crate::{
    call::Call,
    contexts::Contexts,
    exchange::{Exchange, Head},
    journal::{Journal, Record, Severity, Source},
    plugin::{Context, Fault, Plugin, Started},
    pool::{Job, Pool},
};

/// A lambda, its idle Contexts, and the threads that run it.
pub struct Effe {
    plugin: &'static Plugin,
    contexts: Contexts<Context>,
    pool: Pool<Work>,
    journal: Journal,
    response_limit: usize,
    /// Requests that have been taken up and not answered yet.
    n_running: AtomicUsize,
}

/// What the pool does for an effe.
pub enum Work {
    /// Runs the lambda.
    Run(Arc<Effe>, Box<Call>),
}

/// What an effe may use.
pub struct Limits {
    /// Runs at once.
    pub max_concurrency: usize,
    /// Runs that wait for a thread.
    pub queue: usize,
    /// Idle Contexts.
    pub max_idle: usize,
    /// Bytes of a response that is held whole.
    pub response_limit: usize,
}

impl Effe {
    /// Serves a lambda whose Init has run.
    pub fn new(plugin: &'static Plugin, limits: &Limits, journal: Journal) -> Arc<Effe> {
        Arc::new(Effe {
            plugin,
            contexts: Contexts::new(limits.max_idle),
            pool: Pool::new(limits.max_concurrency, limits.queue),
            journal,
            response_limit: limits.response_limit,
            n_running: AtomicUsize::new(0),
        })
    }

    /// Starts a Context and keeps it for the first request.
    ///
    /// # Errors
    /// Start failed; its Context, if it made one, has been stopped.
    pub fn warm(&self) -> Result<(), Fault> {
        let context = match self.plugin.start() {
            Started::Ready(context) => context,
            Started::Failed(_, fault) | Started::Panicked(fault) => return Err(fault),
        };
        drop(self.contexts.give(Box::new(context)));
        Ok(())
    }

    /// Runs a call on a thread of the pool, which sends it back to its desk.
    ///
    /// # Errors
    /// There is no room for it, or no thread; the call comes back.
    pub fn run_on_pool(self: &Arc<Self>, call: Box<Call>) -> Result<(), Box<Call>> {
        self.pool.submit(Work::Run(Arc::clone(self), call)).map_err(|Work::Run(_, call)| call)
    }

    /// Runs a call here and now; what is left over afterwards waits to be dropped, which may take its time.
    fn run(&self, call: &mut Call) -> Option<Box<Context>> {
        if call.gone.load(Ordering::Relaxed) {
            return None;
        }
        let (mut context, failed) = match self.contexts.take() {
            Some(context) => (context, None),
            None => match self.plugin.start() {
                Started::Ready(context) => (Box::new(context), None),
                Started::Failed(context, fault) => {
                    self.log("start", call, &fault);
                    (Box::new(context), Some(fault))
                }
                Started::Panicked(fault) => {
                    self.log("start", call, &fault);
                    return None;
                }
            },
        };
        let exchange = Exchange::new(
            Head::Copied(&call.head),
            &call.body,
            &mut call.answer,
            &call.gone,
            call.deadline,
            self.response_limit,
        );
        let outcome = exchange.lend(|exchange| context.run(exchange));
        drop(exchange);
        match outcome {
            Ok(()) => call.answer.end(),
            Err(fault @ Fault::Panic(_)) => {
                self.log("run", call, &fault);
                return Some(context);
            }
            // `context?` hands Start's own error on, which is in the log.
            Err(fault) if failed.as_ref() == Some(&fault) => {}
            Err(fault) => self.log("run", call, &fault),
        }
        if failed.is_some() { Some(context) } else { self.contexts.give(context) }
    }

    /// One look for Contexts that nobody needs any more, and their Stop.
    pub fn stop_unneeded(&self) {
        drop(self.contexts.look());
    }

    /// Counts a request as being answered until the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> Running {
        self.n_running.fetch_add(1, Ordering::Relaxed);
        Running(Arc::clone(self))
    }

    /// Requests that have been taken up and not answered yet.
    pub fn n_running(&self) -> usize {
        self.n_running.load(Ordering::Acquire)
    }

    /// The lambda.
    pub fn plugin(&self) -> &'static Plugin {
        self.plugin
    }

    /// Ends the effe: the pool's threads finish, every Context is stopped, the lambda retires. How many Contexts
    /// had to be abandoned because their Run had not ended by the deadline; with such ones there is no Retire.
    pub fn close(&self, deadline: Instant) -> u64 {
        let _ = self.pool.close(deadline);
        drop(self.contexts.drain());
        let abandoned = self.plugin.contexts();
        if abandoned == 0 {
            if let Err(fault @ Fault::Error(..)) = self.plugin.retire() {
                self.plugin.log(&fault);
            }
        }
        abandoned
    }

    fn log(&self, step: &'static str, call: &Call, fault: &Fault) {
        // The lambda's hook has logged a panic, with its place; what the request was is said here.
        let (severity, text) = match fault {
            Fault::Error(severity, text) => (*severity, text.clone()),
            Fault::Panic(text) => (Severity::Debug, text.clone()),
        };
        let path = &call.head.target()[..call.head.path_len()];
        self.journal.log(Record {
            severity,
            source: Source::Lambda,
            target: step.into(),
            text,
            fields: vec![("method", call.head.method().to_owned()), ("path", path.to_owned())],
        });
    }
}

impl Job for Work {
    fn run(self) {
        let Work::Run(effe, mut call) = self;
        // No panic of the lambda's gets here. One of ours must not cost the client its answer.
        let left_over = panic::catch_unwind(AssertUnwindSafe(|| effe.run(&mut call)));
        call.send_back();
        // After the answer: Stop takes as long as it takes.
        drop(left_over);
    }
}

/// A request that is being answered.
pub struct Running(Arc<Effe>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.n_running.fetch_sub(1, Ordering::Release);
    }
}
