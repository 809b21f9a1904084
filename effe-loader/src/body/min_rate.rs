//! How long a client may keep a body waiting, on its way in or out.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use tokio::time;

use crate::rt::clock::Moment;

/// Bytes per second that a client must read, or send, on average, once its time of grace is over.
pub const MIN_RATE: u64 = 240;

/// Checks the rate of one body.
pub struct MinRate {
    timeout: Option<Duration>,
    /// For the client, so far.
    waited: Duration,
}

impl MinRate {
    /// Without a timeout the body may take for ever.
    pub fn new(timeout: Option<Duration>) -> MinRate {
        MinRate { timeout, waited: Duration::ZERO }
    }

    /// Waits for the next piece; `n_bytes` is how much came before it. `None` if the client's time is up.
    pub async fn wait<T>(&mut self, n_bytes: u64, piece: impl Future<Output = T>) -> Option<T> {
        let mut piece = pin!(piece);
        // What is here already costs no timer.
        if let Poll::Ready(piece) = poll_fn(|cx| Poll::Ready(piece.as_mut().poll(cx))).await {
            return Some(piece);
        }
        let Some(timeout) = self.timeout else { return Some(piece.await) };
        // Each piece has the timeout, and all of them together have as much as a slow connection needs.
        let earned = Duration::from_secs(n_bytes / MIN_RATE);
        let left = (timeout + earned).saturating_sub(self.waited).min(timeout);
        let since = Moment::now();
        let piece = time::timeout(left, piece).await.ok()?;
        self.waited += since.elapsed();
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;
    use crate::rt::tasks;

    #[test]
    fn what_is_here_is_taken_and_what_never_comes_is_given_up() {
        let mut min_rate = MinRate::new(Some(Duration::ZERO));
        assert_eq!(tasks::run(min_rate.wait(0, ready(1))).unwrap(), Some(1));
        assert_eq!(tasks::run(min_rate.wait(0, pending::<()>())).unwrap(), None);
    }

    #[test]
    fn without_a_timeout_a_body_may_take_for_ever() {
        let mut min_rate = MinRate::new(None);
        let mut n_polls = 0;
        let late = poll_fn(|cx| {
            n_polls += 1;
            cx.waker().wake_by_ref();
            if n_polls == 3 { Poll::Ready(()) } else { Poll::Pending }
        });
        assert_eq!(tasks::run(min_rate.wait(0, late)).unwrap(), Some(()));
    }
}
