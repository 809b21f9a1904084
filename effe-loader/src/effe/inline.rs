//! A run on the server's own thread.

use std::{
    sync::{OnceLock, atomic::AtomicBool},
    time::Duration,
};

use super::{Effe, generation::Generation};
use crate::{
    exchange::{Exchange, response::ResponseBuilder},
    message::request::RequestHead,
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
        head: &RequestHead,
        body: &[u8],
        answer: &mut ResponseBuilder,
        status: &WorkerStatus,
    ) -> Option<Duration> {
        let mut context = generation.contexts.take()?;
        let (method, path) = (head.method.as_str(), head.path());
        let begun = status.begin(method, path, generation.number, None);
        let deadline = head.invoked.deadline(self.limits.timeouts.run.map(|timeout| begun + timeout));
        let id = OnceLock::new();
        let limit = self.limits.response;
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
                self.log("run", head, &id, &fault);
                if let Fault::Panic(_) = fault { Some(context) } else { generation.contexts.give(context) }
            }
        };
        if let Some(context) = unwanted {
            self.stop_on_pool(context);
        }
        Some(took)
    }
}

#[cfg(test)]
mod tests {
    use std::{rc::Rc, sync::Arc};

    use rlimit::{Resource, setrlimit};

    use super::*;
    use crate::{
        effe::testing::{effe, is_alone},
        message::request::Request,
        plugin::ContextCounts,
        scheduler::in_flight::InFlight,
    };

    /// In a process of its own, which then can make no thread any more.
    #[test]
    fn where_no_thread_can_be_made_a_stop_gives_up_the_queued_runs_of_others() {
        if !is_alone(
            "effe::inline::tests::where_no_thread_can_be_made_a_stop_gives_up_the_queued_runs_of_others",
        ) {
            return;
        }
        let counts = Arc::new(ContextCounts::default());
        let effe = effe(&counts);
        let in_flight = Rc::new(InFlight::new(effe.limits.timeouts, &effe.held));
        let status = effe.status(in_flight.completions());
        // What address space is left is too little for another stack.
        let process = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = process.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB"));
        let limit = (size.unwrap().parse::<u64>().unwrap() + 1024) << 10;
        setrlimit(Resource::AS, limit, rlimit::INFINITY).unwrap();
        let _others = in_flight.ask(in_flight.call(), |call| effe.run_on_pool(effe.generations.hold(), call));
        assert!(status.completions.calls.is_empty());
        let request = Request::default();
        let generation = effe.generations.hold();
        assert!(
            effe.run_inline(&generation, &request, &[], &mut ResponseBuilder::default(), &status).is_some()
        );
        assert_eq!(effe.pool.n_threads(), 0, "none could be made");
        let call = status.completions.calls.pop().expect("the other client's run comes back");
        assert!(call.progress.is_given_up());
        assert_eq!((counts.started(), counts.living()), (1, 0), "the Context is stopped here");
    }
}
