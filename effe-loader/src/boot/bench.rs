//! A lambda without a server: what `benches/boundary` times.
#![expect(unsafe_code, reason = "the place that trusts a plugin")]

use std::{
    path::Path,
    sync::{Arc, OnceLock, atomic::AtomicBool},
};

use crate::{
    exchange::{self, Exchange, response::ResponseBuilder},
    message::request::Request,
    plugin::{
        Context, ContextCounts, Plugin, PluginFile, Policy, Started, Verified, host::Host,
        parameters::Parameters,
    },
    rt::clock::Moment,
};

/// Bytes of a response.
const RESPONSE_LIMIT: usize = 16 << 20;

/// A Context of a lambda, and all that an inline run borrows.
pub struct Crossing {
    plugin: &'static Plugin,
    context: Context,
    request: Request,
    response: ResponseBuilder,
}

impl Crossing {
    /// Opens a plugin as the loader does, up to its first Start; an error says why not. For a process with one thread.
    pub fn open(path: &Path) -> Result<Crossing, String> {
        let policy = Policy::default();
        let file = PluginFile::open(path, &policy).map_err(|refusal| refusal.to_string())?;
        let host = Host::new(Parameters::default(), RESPONSE_LIMIT, exchange::strict::exchanges());
        // SAFETY: the caller named this file to be run, and has one thread.
        let verified = unsafe { Verified::by_fork(file, &policy) }.map_err(|refusal| refusal.to_string())?;
        // SAFETY: as above.
        let plugin = unsafe { verified.open(host, &Arc::new(ContextCounts::default())) };
        let plugin = plugin.map_err(|refusal| refusal.to_string())?;
        plugin.init().map_err(|err| err.to_string())?;
        let Started::Ready(context) = plugin.start() else { return Err("Start failed".to_owned()) };
        let request = Request::new(|head| {
            head.set_target(|text| {
                text.push('/');
                1
            });
            head.fields.append("content-type", b"application/json");
        });
        Ok(Crossing { plugin, context, request, response: ResponseBuilder::default() })
    }

    /// One Run, from the head and the body to an answer that is complete; how long its body is. Panics if Run fails.
    pub fn run(&mut self, body: &[u8]) -> usize {
        static STAYS: AtomicBool = AtomicBool::new(false);
        let id = OnceLock::new();
        self.response.clear();
        let deadline = Some(Moment::from_nanos(u64::MAX));
        let exchange =
            Exchange::new(&self.request, body, &mut self.response, &STAYS, deadline, RESPONSE_LIMIT, &id);
        let outcome = exchange.lend(|exchange| self.context.run(exchange));
        drop(exchange);
        outcome.expect("the lambda runs");
        self.response.end();
        self.response.take().expect("the lambda answers").1.len()
    }

    /// A Start and its Stop. Panics if Start fails.
    pub fn start_and_stop(&self) {
        let Started::Ready(context) = self.plugin.start() else { panic!("Start failed") };
        drop(context);
    }
}
