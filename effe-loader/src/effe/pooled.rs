//! A run on a thread of the pool, from its Start, if there must be one, to the end of its answer.

use std::{future::poll_fn, sync::Arc, task::Poll};

use super::{Effe, generation::Generation};
use crate::{
    body::held::UNCOUNTED,
    exchange::{Exchange, call::Call, run::AsyncRun},
    journal::Severity,
    plugin::{Context, Fault, Started},
    rescue::thread::WatchedRun,
    rt::{block_on::block_on, clock::Moment},
};

impl Effe {
    /// Runs a call on this thread. The caller drops the Context that is returned, which may take long, after the answer
    /// is on its way.
    pub(super) fn run(&self, generation: &Generation, call: &mut Call) -> Option<Box<Context>> {
        if !call.progress.begin() {
            return None;
        }
        // What is held for this request may run: it is held anyway.
        if call.body.len() <= UNCOUNTED && self.held.is_full() {
            call.response.refuse();
            self.end(call);
            return None;
        }
        let _run = WatchedRun::begin(call.served, |record| {
            record.begin(call.head.method.as_str(), call.head.path(), generation.number, 1);
        });
        let (mut context, failed) = match generation.contexts.take() {
            Some(context) => (context, None),
            None => match self.start(generation) {
                Started::Ready(context) => (Box::new(context), None),
                Started::Failed(context, fault) => {
                    self.log_call("start", call, &fault);
                    (Box::new(context), Some(fault))
                }
                Started::Panicked(fault) => {
                    self.log_call("start", call, &fault);
                    if let Some(meter) = &self.meter {
                        meter.failed();
                    }
                    self.end(call);
                    return None;
                }
            },
        };
        let (outcome, took);
        if generation.plugin.is_async() {
            let begun = Moment::now();
            (context, outcome) = self.run_polled(generation, context, call);
            took = begun.elapsed();
        } else {
            let Call { head, body, response, streams, progress, deadline, run_timeout, .. } = call;
            let (head, gone, limit) = (&**head, &progress.gone, self.limits.response);
            let exchange = Exchange::new(head, body, response, gone, *deadline, limit, &progress.id);
            let mut exchange = exchange.with_streams(streams);
            if generation.plugin.may_answer_early() || streams.upgrade.is_some() {
                exchange = exchange.with_early_answer(progress, *run_timeout);
            }
            let run = || exchange.lend(|exchange| context.run(exchange));
            let (returned, time) = generation.placement.learn(run);
            (outcome, took) = (Some(returned), time);
        }
        if let (Some(meter), Some(outcome)) = (&self.meter, &outcome) {
            generation.count(meter, took, failed.is_some() || outcome.is_err());
        }
        let in_time = self.end(call);
        let reusable = match outcome {
            Some(outcome) => self.conclude(call, outcome, failed.as_ref()),
            None => {
                call.streams.close();
                generation.plugin.keeps_cancelled() && failed.is_none()
            }
        };
        if reusable && in_time { generation.contexts.give(context) } else { Some(context) }
    }

    /// Polls a run of an async lambda to its end, on this thread; no outcome where nobody waits for it any more.
    fn run_polled(
        &self,
        generation: &Generation,
        context: Box<Context>,
        call: &mut Call,
    ) -> (Box<Context>, Option<Result<(), Fault>>) {
        // The run owns its call. If our own code panics, the one that is put in its place goes back without an answer.
        let owned = Box::new(call.replace());
        let placement = Arc::clone(&generation.placement);
        let mut run = AsyncRun::new(context, owned, self.limits.response, placement);
        let progress = Arc::clone(run.progress());
        let outcome = block_on(poll_fn(|cx| match generation.placement.learn(|| run.poll(cx.waker())).0 {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => progress.poll_unwanted(cx).map(|()| None),
        }));
        let (context, owned) = run.take_apart();
        *call = *owned;
        (context, outcome)
    }

    /// A run is over: completes its answer, or logs why there is none. `failed` is the fault of its Start, if that
    /// failed. Whether the Context may have another run.
    pub fn conclude(&self, call: &mut Call, outcome: Result<(), Fault>, failed: Option<&Fault>) -> bool {
        if let Some(answer) = call.progress.early.take() {
            // It was ended early, and nobody has come for it yet.
            call.response = answer;
        }
        let reusable = match outcome {
            Ok(()) => {
                call.response.end();
                if let Some(sender) = &call.streams.response {
                    sender.finish();
                }
                true
            }
            Err(fault) => {
                // `context?` returns Start's own error, which is in the log.
                if failed != Some(&fault) {
                    self.log_call("run", call, &fault);
                }
                !matches!(fault, Fault::Panic(_))
            }
        };
        // What is streamed and not complete ends here.
        if call.streams.response.as_ref().is_some_and(|sender| !sender.keeps_its_length()) {
            let text = "the answer is not as long as its content-length says: the connection is broken off";
            self.log_call("run", call, &Fault::Error(Severity::Error, text.to_owned()));
        }
        call.streams.close();
        reusable && failed.is_none()
    }

    fn start(&self, generation: &Generation) -> Started {
        let Some(meter) = &self.meter else { return generation.plugin.start() };
        let begun = Moment::now();
        let started = generation.plugin.start();
        meter.started(begun.elapsed());
        started
    }
}
