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
    rt::panics::survive,
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

/// Has `apply` carry out orders until nobody can give any; one without an outcome is dropped. Calls `reap` after each,
/// and again while that is true. A panic of either ends that step alone.
fn take_orders(
    orders: &Receiver<ChangeOrder>,
    mut apply: impl FnMut(Change) -> Option<Result<Changed, String>>,
    mut reap: impl FnMut() -> bool,
) {
    let mut must_reap = false;
    loop {
        let order = match must_reap {
            true => orders.recv_timeout(REAP_EVERY),
            false => orders.recv().map_err(RecvTimeoutError::from),
        };
        let mut apply = |order: ChangeOrder, same| {
            let Some(outcome) = survive(|| apply(order.change).transpose()).transpose() else { return };
            for order in std::iter::once(order).chain(same) {
                // Fails if the outcome is no longer waited for.
                let _ = order.reply.send(outcome.clone());
            }
        };
        match order {
            Ok(order) => {
                // Orders for the same change that wait together are carried out once.
                let (same, others): (Vec<_>, Vec<_>) =
                    orders.try_iter().partition(|other| other.change == order.change);
                apply(order, same);
                others.into_iter().for_each(|order| apply(order, Vec::new()));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        must_reap = survive(|| Ok(reap())).unwrap_or(false);
    }
}

impl Swapper {
    fn run(mut self, orders: &Receiver<ChangeOrder>) {
        let effe = Arc::clone(&self.effe);
        take_orders(orders, |change| self.apply(change), || effe.generations.reap());
    }

    fn apply(&mut self, change: Change) -> Option<Result<Changed, String>> {
        if self.effe.is_draining() {
            return None;
        }
        // While systemd waits for the first Start, it is told nothing else.
        let was_ready = self.effe.generations.current().is_warm();
        if was_ready {
            systemd::reloading();
        }
        // A panic is an outcome like any other: systemd and the log hear of it.
        let outcome = survive(|| match change {
            Change::Reload => {
                self.reload_certificate();
                self.reload()
            }
            Change::RollBack => self.roll_back(),
            Change::Upgrade => {
                Err("can't upgrade: only a supervisor can replace its program while others serve; start the \
                                    loader with --processes N"
                    .to_owned())
            }
        });
        if was_ready && !self.effe.is_draining() {
            let serves = self.effe.generations.current();
            systemd::ready(&serves.plugin.path, serves.number, outcome.as_ref().err().map(String::as_str));
        }
        if let Err(why) = &outcome {
            let serves = self.effe.generations.current().number;
            self.effe.journal.error(format!("{why}; generation {serves} goes on serving"));
        }
        Some(outcome)
    }

    /// New connections get the certificate that is in its file now, or if that is not valid, the one before.
    fn reload_certificate(&self) {
        match self.tls.as_ref().map(|tls| tls.reload()) {
            None | Some(Ok(None)) => {}
            Some(Ok(Some(_))) => {
                self.effe.journal.notice("new connections get the new certificate".to_owned())
            }
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
        let host = Host::new(parameters, self.effe.limits.response, exchange::strict::exchanges());
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

#[cfg(test)]
mod tests {
    use crossbeam::channel::unbounded;
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn after_a_panic_orders_are_still_carried_out() {
        let (give, orders) = unbounded();
        let order = |change| {
            let (reply, outcome) = oneshot::channel();
            give.send(ChangeOrder { change, reply }).unwrap();
            outcome
        };
        let changed = Changed { generation: 2, swapped: true };
        let (panics, works) = (order(Change::RollBack), order(Change::Reload));
        let mut n_reaped = 0;
        let thread = thread::spawn({
            let changed = changed.clone();
            move || {
                let apply = |change| match change {
                    Change::RollBack => panic!("told to"),
                    Change::Reload | Change::Upgrade => Some(Ok(changed.clone())),
                };
                let reap = || {
                    n_reaped += 1;
                    assert!(n_reaped > 1, "told to");
                    false
                };
                take_orders(&orders, apply, reap);
            }
        });
        assert!(panics.blocking_recv().unwrap().unwrap_err().contains("has panicked"));
        assert_eq!(works.blocking_recv(), Ok(Ok(changed.clone())));
        assert_eq!(
            order(Change::Reload).blocking_recv(),
            Ok(Ok(changed)),
            "after a panic of the reaper's, too"
        );
        drop(give);
        thread.join().unwrap();
    }
}
