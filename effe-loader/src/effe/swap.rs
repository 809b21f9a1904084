//! Reload and roll-back: a thread that does one at a time, while others serve. A generation is published only after it
//! was checked, tried in a child, opened, initialised and started once. If a step fails, the generation that serves
//! goes on.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, RecvTimeoutError};

use crate::{
    effe::{
        Effe,
        generation::{Generation, GenerationConfig},
    },
    exchange,
    journal::Severity,
    net::tls::Tls,
    plugin::{Plugin, PluginFile, Verified, host::Host},
    process::{
        control::{Change, ChangeOrder, Changed, Control},
        systemd,
    },
};

/// How often to look for Contexts that have come back to a generation that no longer serves.
const REAP_EVERY: Duration = Duration::from_millis(20);

/// Takes orders from now on. The thread begins with the first one, and ends when every `Control` is dropped. The
/// certificate of `tls` is read again with each generation.
pub fn stand_by(
    control: &Control,
    effe: Arc<Effe>,
    config: Arc<GenerationConfig>,
    tls: Option<Arc<Tls>>,
    orders: Receiver<ChangeOrder>,
) {
    let begun = Mutex::new(false);
    control.on_change(move || {
        let mut begun = begun.lock().unwrap_or_else(PoisonError::into_inner);
        if *begun || orders.is_empty() {
            return;
        }
        let (effe, config, tls) = (Arc::clone(&effe), Arc::clone(&config), tls.clone());
        let journal = effe.journal.clone();
        let swapper = Swapper { effe, config, tls, opened: 1 };
        let (thread, theirs) = (thread::Builder::new().name("effe-swap".to_owned()), orders.clone());
        match thread.spawn(move || swapper.run(&theirs)) {
            Ok(_) => *begun = true,
            Err(err) => {
                // That closes the channels on which the outcomes are waited for.
                orders.try_iter().for_each(drop);
                journal.error(format!("no thread to change generations: {err}"));
            }
        }
    });
}

struct Swapper {
    effe: Arc<Effe>,
    config: Arc<GenerationConfig>,
    tls: Option<Arc<Tls>>,
    /// Generations that were opened so far.
    opened: u64,
}

impl Swapper {
    fn run(mut self, orders: &Receiver<ChangeOrder>) {
        let mut must_reap = false;
        loop {
            let order = match must_reap {
                true => orders.recv_timeout(REAP_EVERY),
                false => orders.recv().map_err(RecvTimeoutError::from),
            };
            match order {
                Ok(order) => {
                    // Orders for the same change that wait together are carried out once.
                    let (same, others): (Vec<_>, Vec<_>) =
                        orders.try_iter().partition(|other| other.change == order.change);
                    self.apply(order, same);
                    others.into_iter().for_each(|order| self.apply(order, Vec::new()));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            must_reap = self.effe.generations.reap();
        }
    }

    fn apply(&mut self, order: ChangeOrder, same: Vec<ChangeOrder>) {
        if self.effe.is_draining() {
            return;
        }
        // While systemd waits for the first Start, it is told nothing else.
        let was_ready = self.effe.generations.current().is_warm();
        if was_ready {
            systemd::reloading();
        }
        let outcome = match order.change {
            Change::Reload => {
                self.reload_certificate();
                self.reload()
            }
            Change::RollBack => self.roll_back(),
        };
        if was_ready && !self.effe.is_draining() {
            let serves = self.effe.generations.current();
            systemd::ready(&serves.plugin.path, serves.number, outcome.as_ref().err().map(String::as_str));
        }
        if let Err(why) = &outcome {
            let serves = self.effe.generations.current().number;
            self.effe.journal.error(format!("{why}; generation {serves} goes on serving"));
        }
        for order in std::iter::once(order).chain(same) {
            // Fails if the outcome is no longer waited for.
            let _ = order.reply.send(outcome.clone());
        }
    }

    /// New connections get the certificate that is in its file now, or if that is not valid, the one before.
    fn reload_certificate(&self) {
        match self.tls.as_ref().map(|tls| tls.reload()) {
            None | Some(Ok(false)) => {}
            Some(Ok(true)) => self.effe.journal.notice("new connections get the new certificate".to_owned()),
            Some(Err(fault)) => {
                self.effe.journal.error(format!("{fault}; the certificate from before goes on serving"));
            }
        }
    }

    fn reload(&mut self) -> Result<Changed, String> {
        let begun = Instant::now();
        let serving = self.effe.generations.hold();
        if !serving.plugin.can_be_swapped() {
            return Err(
                "can't reload: this process has no copy of its lambda that another could replace".to_owned()
            );
        }
        let parameters = self.config.sources.read()?;
        let file = PluginFile::open(&serving.plugin.path, &self.config.policy);
        let file = file.map_err(|refusal| refusal.to_string())?;
        if serving.plugin.is_made_of(&file) && serving.plugin.host.parameters == parameters {
            let number = serving.number;
            self.report(format!("nothing has changed; generation {number} goes on serving"), number);
            return Ok(Changed { generation: number, swapped: false });
        }
        let address = serving.plugin.host.address.get().cloned();
        drop(serving);
        if let Some(warning) = &file.warning {
            self.effe.journal.warning(warning.clone());
        }
        let host = Host::new(parameters, self.effe.limits.response, exchange::table::FOR_HOST);
        let _ = host.journal.set(self.effe.journal.clone());
        if let Some(address) = address {
            let _ = host.address.set(address);
        }
        let plugin = self.open(file, host)?;
        plugin.init().map_err(|err| err.to_string())?;
        let number = self.opened + 1;
        let next = Generation::new(number, plugin, &self.config, &self.effe.journal);
        if let Err(fault) = next.warm() {
            if let Err(fault) = plugin.retire() {
                plugin.log(&fault);
            }
            return Err(format!("{}: its start {fault}", plugin.path.display()));
        }
        self.opened = number;
        self.effe.generations.publish(next);
        let (path, took) = (plugin.path.display(), begun.elapsed());
        let text = format!("generation {number} serves ({path}, {took:.0?}); the one before it is kept");
        self.report(text, number);
        Ok(Changed { generation: number, swapped: true })
    }

    #[expect(unsafe_code, reason = "the operator's file is trusted here as at the start")]
    fn open(&self, file: PluginFile, host: &'static Host) -> Result<&'static Plugin, String> {
        // SAFETY: the operator named this file for us to run, and answers for it.
        let verified = unsafe { Verified::by_exec(file, &self.config.policy) };
        // SAFETY: as above.
        let plugin = verified.and_then(|verified| unsafe { verified.open(host, &self.effe.context_counts) });
        plugin.map_err(|refusal| refusal.to_string())
    }

    fn roll_back(&self) -> Result<Changed, String> {
        let generations = &self.effe.generations;
        let previous =
            generations.previous().ok_or("can't roll back: there is no generation before this one")?;
        previous.warm().map_err(|fault| {
            format!("can't roll back: the start of generation {} {fault}", previous.number)
        })?;
        let number = previous.number;
        drop(previous);
        let left = generations.current().number;
        generations.roll_back();
        self.report(format!("generation {number} serves again; generation {left} is kept"), number);
        Ok(Changed { generation: number, swapped: true })
    }

    fn report(&self, text: String, generation: u64) {
        self.effe.journal.report(Severity::Notice, text, [("generation", generation.to_string())]);
    }
}
