//! Tasks of a server's thread. They are boxed, because the program has the runtime's code once for each type of task.

use std::{future::Future, io, pin::Pin};

use actix_web::rt;
use tokio::{runtime::Builder, task::JoinHandle};

use super::panics::held;

/// Runs `future` on a runtime of this thread's own; fails if the system has no descriptor for one.
pub fn run<T>(future: impl Future<Output = T>) -> io::Result<T> {
    // tokio panics where it gets no pipe for signals.
    let runtime = held(|| Builder::new_current_thread().enable_all().build())?;
    let mut future = Box::pin(future);
    let mut output = None;
    let task: Pin<Box<dyn Future<Output = ()> + '_>> =
        Box::pin(async { output = Some(future.as_mut().await) });
    rt::System::with_tokio_rt(|| runtime).block_on(task);
    Ok(output.expect("a future that has ended has an output"))
}

/// The task goes on if the handle is dropped.
pub fn spawn(task: impl Future<Output = ()> + 'static) -> JoinHandle<()> {
    rt::spawn(Box::pin(task) as Pin<Box<dyn Future<Output = ()>>>)
}
