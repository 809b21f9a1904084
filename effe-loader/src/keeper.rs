//! A thread that looks after an effe now and then: stops Contexts that nobody needs, and tries the first Start again
//! until it succeeds.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam::channel::{RecvTimeoutError, Sender, bounded};

use crate::{contexts::LOOKS, effe::Effe, systemd};

/// How long a failed first Start waits for the next try.
const RETRY: Duration = Duration::from_secs(1);

/// The thread; it ends when this says so.
pub struct Keeper {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

/// Starts looking after an effe. Without an idle timeout, and once it is warm, there is nothing to do.
///
/// # Errors
/// The system has no room for a thread.
pub fn start(effe: Arc<Effe>, idle_timeout: Option<Duration>, warm: bool) -> io::Result<Keeper> {
    let (stop, stopped) = bounded::<()>(0);
    let look_every = idle_timeout.map(|timeout| (timeout / LOOKS).max(Duration::from_millis(1)));
    let thread = thread::Builder::new().name("effe-keeper".to_owned()).spawn(move || {
        let far = Duration::from_secs(24 * 3600);
        let mut warm = warm;
        let mut next_look = Instant::now() + look_every.unwrap_or(far);
        let mut next_try = Instant::now() + RETRY;
        loop {
            let next = if warm { next_look } else { next_look.min(next_try) };
            match stopped.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = Instant::now();
            if now >= next_look {
                if look_every.is_some() {
                    effe.stop_unneeded();
                }
                next_look = now + look_every.unwrap_or(far);
            }
            if !warm && now >= next_try {
                let generation = effe.generations.hold();
                match generation.warm() {
                    Ok(()) => {
                        warm = true;
                        systemd::ready(&generation, None);
                    }
                    Err(fault) => generation.plugin.log(&fault),
                }
                next_try = Instant::now() + RETRY;
            }
        }
    })?;
    Ok(Keeper { stop, thread })
}

impl Keeper {
    /// Ends the thread, and waits for what it is at.
    pub fn stop(self) {
        drop(self.stop);
        let _ = self.thread.join();
    }
}
