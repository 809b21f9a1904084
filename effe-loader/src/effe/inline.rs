//! A run on the server's own thread.

use std::{
    sync::{OnceLock, atomic::AtomicBool},
    time::Duration,
};

use super::{Effe, generation::Generation};
use crate::{
    exchange::{Exchange, response::Answer},
    http::{head::Head, request::Request},
    placement::run_clock::Ended,
    plugin::Fault,
    scheduler::worker_status::WorkerStatus,
};

/// A client can't be seen to leave while the thread that would see it is in a run.
static NEVER_GONE: AtomicBool = AtomicBool::new(false);

impl Effe {
    /// Runs a request on the server's own thread, if there is an idle Context, because Start and Stop may block. How
    /// long the run took; its answer is in `answer`.
    pub fn run_inline(
        &self,
        generation: &Generation,
        request: &Request,
        body: &[u8],
        answer: &mut Answer,
        status: &WorkerStatus,
    ) -> Option<Duration> {
        let mut context = generation.contexts.take()?;
        let head = Head::Live(request);
        let (method, path) = (head.method(), head.path());
        let begun = status.begin(method, path, generation.number, None);
        let deadline = self.limits.timeouts.run.map(|timeout| begun + timeout);
        let id = OnceLock::new();
        let (head, limit) = (Head::Live(request), self.limits.response);
        let exchange = Exchange::new(head, body, answer, &NEVER_GONE, deadline, limit, &id);
        let outcome = exchange.lend(|exchange| context.run(exchange));
        drop(exchange);
        let Ended { took, preempted } = status.end(begun);
        if !preempted {
            generation.placement.ran_inline(took, || (method, path));
        }
        if let Some(meter) = &status.meter {
            generation.count(meter, took, outcome.is_err());
        }
        let unwanted = match outcome {
            Ok(()) => {
                answer.end();
                generation.contexts.give(context)
            }
            Err(fault) => {
                self.log("run", &Head::Live(request), &id, &fault);
                if let Fault::Panic(_) = fault { Some(context) } else { generation.contexts.give(context) }
            }
        };
        if let Some(context) = unwanted {
            self.stop_on_pool(context);
        }
        Some(took)
    }
}
