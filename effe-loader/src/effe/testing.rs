//! What the tests of this layer have in common: an effe without a server, and a process of one's own.

use std::{
    env,
    process::Command,
    sync::{Arc, atomic::AtomicBool},
};

use effe_abi::{Lambda, Params, Request, Response, Result, StartError, Started, export};

use crate::{
    effe::{
        Effe, Limits,
        generation::{Generation, GenerationConfig},
    },
    exchange::strict::exchanges,
    journal::{Format, Journal, Settings, SyslogTarget},
    placement::Mode,
    plugin::{ContextCounts, Plugin, Policy, host::Host, parameters::Parameters},
    scheduler::in_flight::Timeouts,
};

struct Panics;

impl Lambda for Panics {
    fn start(_: Params) -> Result<Self, StartError<Self>> {
        Ok(Panics)
    }

    fn run(_: Started<Self>, _: &Request, _: &mut Response) -> Result {
        panic!("as it is meant to")
    }
}

export!(Panics);

/// An effe that runs inline, with one Context, whose runs panic.
pub fn effe(counts: &Arc<ContextCounts>) -> Arc<Effe> {
    let journal = Journal::start(Settings::new(SyslogTarget::None, Format::Text)).unwrap();
    let host = Host::new(Parameters::default(), usize::MAX, exchanges());
    let config = GenerationConfig {
        policy: Policy::default(),
        sources: Default::default(),
        mode: Mode::Inline,
        max_idle: 1,
    };
    let first = Generation::new(1, Plugin::linked(&LAMBDA, host, counts), &config, &journal);
    first.plugin.init().unwrap();
    first.warm().unwrap();
    let limits = Limits {
        max_concurrency: 1,
        queue: 8,
        timeouts: Timeouts { queue: None, run: None },
        max_async: 1,
        body: usize::MAX,
        response: usize::MAX,
        held: usize::MAX,
        max_lost_threads: 1,
        metered: false,
    };
    Effe::new(first, Arc::clone(counts), limits, Arc::new(AtomicBool::new(false)), journal)
}

/// Whether this process was started for this test alone. If not, this starts one, and asserts that the test passes.
pub fn is_alone(test: &str) -> bool {
    const ALONE: &str = "EFFE_TEST_ALONE";
    if env::var_os(ALONE).is_some() {
        return true;
    }
    let mut alone = Command::new(env::current_exe().unwrap());
    let output = alone.args(["--exact", test]).env(ALONE, "1").output().unwrap();
    let (said, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}{err}");
    false
}
