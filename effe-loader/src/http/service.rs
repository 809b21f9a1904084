//! What answers the requests of a connection, whichever protocol it speaks: a `Service`, which the handler of the effe
//! and the admin listener implement. The protocols call it as `dyn`, so that their code is in the program once. With
//! each request the service gets a guard, which tells the connection how long the request is being answered.

use std::{
    cell::Cell,
    future::Future,
    net::IpAddr,
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio::task::JoinHandle;

use crate::{
    body::incoming::{Incoming, Uploads},
    http::{canned::sorry, response::Response},
    message::{
        request::{Request, RequestHead},
        response::ResponseHead,
    },
    net::activity::{ConnActivity, Hangup},
    rt::tasks,
};

/// Requests on one connection. A client that wants more opens another, which goes to the thread with the least to do.
const MAX_REQUESTS: u64 = 10_000;

pub trait Service {
    /// Begins to answer a request; at once, if that needs no waiting.
    fn call(&self, request: IncomingRequest) -> Answered;

    /// Whether a request may offer to go on with another protocol, and have that taken.
    #[cfg(feature = "http2")]
    fn takes_offers(&self) -> bool {
        false
    }
}

/// A request as a protocol hands it on.
pub struct IncomingRequest {
    pub request: Request,
    /// The bytes that it took on the connection; `None` over HTTP/2, which compresses heads.
    pub n_head: Option<usize>,
    pub incoming: Incoming,
    /// To be kept until the request is answered.
    pub guard: RequestGuard,
}

/// What a service makes of a request.
pub enum Answered {
    Now(Response),
    Later(Guarded),
}

/// A future of an answer, which becomes a 500 if our own code panics. A panic of a lambda is caught in its plugin.
pub struct Guarded(pub Pin<Box<dyn Future<Output = Response>>>);

impl Future for Guarded {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = panic::catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx)));
        polled.unwrap_or_else(|_| Poll::Ready(sorry()))
    }
}

/// Counts a request as being answered until it is dropped.
pub struct RequestGuard {
    activity: Rc<ConnActivity>,
    uploads: Option<Rc<Uploads>>,
    /// The upload, if it is a task of its own.
    upload: Cell<Option<JoinHandle<()>>>,
}

impl RequestGuard {
    /// A request has come. Over HTTP/1.1 its body is read in the connection's task, where `uploads` keeps the upload.
    pub fn begin(
        activity: &Rc<ConnActivity>,
        head: &RequestHead,
        uploads: Option<&Rc<Uploads>>,
    ) -> RequestGuard {
        activity.begin();
        activity.slot.begin();
        if !activity.is_shared() && (!head.is_kept_alive() || activity.n_requests() >= MAX_REQUESTS) {
            activity.is_closing.set(true);
        }
        RequestGuard { activity: Rc::clone(activity), uploads: uploads.cloned(), upload: Cell::default() }
    }

    /// Runs `upload`, which hands the request's body to a run as it comes, until the answer is over. Over HTTP/2 what
    /// is here by now is handed on at once: often it is all of the body, which then needs no task, nor the run to wait.
    pub fn upload(&self, upload: impl Future<Output = ()> + 'static) {
        match &self.uploads {
            Some(uploads) => uploads.begin(upload),
            None => {
                let mut upload = Box::pin(upload);
                if upload.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
                    self.upload.set(Some(tasks::spawn(upload)));
                }
            }
        }
    }

    /// The thread goes on with this request.
    pub fn serve(&self) {
        self.activity.slot.serve();
    }

    /// Our own address that the client has connected to, if the connection has noted it.
    pub fn local_ip(&self) -> Option<IpAddr> {
        self.activity.local_ip.get()
    }

    /// Interim responses go out as soon as the future of the answer has been polled.
    pub fn inform(&self, interims: Vec<ResponseHead>) {
        self.activity.interims.borrow_mut().extend(interims);
    }

    /// There will be no answer: the connection is closed. To be followed by waiting for ever, which that ends.
    pub fn hang_up(&self) {
        self.activity.has_no_answer.set(true);
    }

    /// Tells `run` when the client closes its end of the connection.
    pub fn watch(&self, run: Option<Arc<impl Hangup + 'static>>) {
        // Over HTTP/2 a client that takes a request back resets its stream, and the future of the answer is dropped.
        if let Some(run) = run.filter(|_| !self.activity.is_shared()) {
            self.activity.watch(run);
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        if let Some(upload) = self.upload.take() {
            upload.abort();
        }
        self.activity.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_ours_is_a_500() {
        let mut guarded = Guarded(Box::pin(async { panic!("ours") }));
        let polled = Pin::new(&mut guarded).poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(response) = polled else { panic!("there is an answer") };
        assert_eq!(response.head.status, 500);
        assert!(response.head.is_last);
    }
}
