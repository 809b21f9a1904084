//! A run on the server's own thread.

use std::{sync::OnceLock, time::Duration};

use super::{Effe, generation::Generation};
use crate::{
    exchange::{Exchange, response::Answer},
    http::{head::Head, request::Request},
    placement::run_clock::Ended,
    plugin::Fault,
    scheduler::worker_status::WorkerStatus,
};

impl Effe {
    /// Runs a request on the server's own thread, if a Context is at hand: Start and Stop never happen there.
    /// How long it took, if it did; the answer is in `answer`.
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
        let (target, path_len) = head.target();
        let path = &target[..path_len];
        let begun = status.begin(head.method(), path, generation.number, None);
        let deadline = self.limits.timeouts.run.map(|timeout| begun + timeout);
        let id = OnceLock::new();
        let exchange = Exchange::new(
            Head::Live(request),
            body,
            answer,
            status.never_gone(),
            deadline,
            self.limits.response,
            &id,
        );
        let outcome = exchange.lend(|exchange| context.run(exchange));
        drop(exchange);
        let Ended { took, preempted } = status.end(begun);
        if !preempted {
            generation.placement.ran_inline(took, || (head.method(), path));
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
                self.log("run", &head, &id, &fault);
                if let Fault::Panic(_) = fault { Some(context) } else { generation.contexts.give(context) }
            }
        };
        if let Some(context) = unwanted {
            self.stop_on_pool(context);
        }
        Some(took)
    }
}
