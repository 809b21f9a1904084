//! The client's end of a connection that a lambda has taken over, as a test has it.

use std::{
    io::{self, Read, Write},
    sync::Arc,
    thread::JoinHandle,
};

use super::{call::Answer, duplex::Shared};

/// The client's end of a connection that the lambda has taken over; made by [`Effe::upgrade`](super::Effe::upgrade).
///
/// `Read` and `Write` wait for the lambda, whose run goes on in a thread of its own. A read returns 0 bytes once the
/// lambda has closed its end. Dropping this is a client that leaves, and waits until Run has returned.
pub struct Client {
    pub(super) head: Answer,
    pub(super) shared: Arc<Shared>,
    /// The run; `None` once it was waited for.
    pub(super) run: Option<JoinHandle<Answer>>,
}

impl Client {
    /// The answer that took the connection over: 101 and its headers.
    pub fn head(&self) -> &Answer {
        &self.head
    }

    /// Closes the client's end; what the lambda says is still read.
    pub fn finish(&self) {
        self.shared.finish();
    }

    /// The effe stops: the lambda is told so, as in a drain.
    pub fn go_away(&self) {
        self.shared.go_away();
    }

    /// The client leaves, and what came of Run: its failure, or that it panicked.
    pub fn leave(mut self) -> Answer {
        self.shared.leave();
        self.join()
    }

    /// Closes the client's end, reads all that the lambda still says, and waits for Run.
    pub fn end(mut self) -> (Vec<u8>, Answer) {
        self.finish();
        let mut rest = Vec::new();
        // It can't fail.
        let _ = self.read_to_end(&mut rest);
        (rest, self.join())
    }

    fn join(&mut self) -> Answer {
        let run = self.run.take().map(JoinHandle::join);
        run.map_or_else(Answer::default, |run| run.expect("the harness doesn't panic"))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.leave();
        if let Some(run) = self.run.take() {
            // A test that fails already must not wait for a lambda that doesn't hear its client leave.
            if !std::thread::panicking() {
                let _ = run.join();
            }
        }
    }
}

impl Read for Client {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(if buffer.is_empty() { 0 } else { self.shared.client_read(buffer) })
    }
}

impl Write for Client {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() { Ok(0) } else { self.shared.client_write(bytes) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
