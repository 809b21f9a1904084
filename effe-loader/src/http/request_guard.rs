//! Tells a connection that one of its requests is being answered, for as long as the guard lives.

use std::{future::Future, net::IpAddr, rc::Rc, sync::Arc};

use actix_http::{ConnectionType, RequestHead};

use crate::{
    body::incoming::Uploads,
    net::activity::{ConnActivity, Hangup},
    rt::tasks,
};

/// Requests on one connection. A client that wants more opens another, which goes to the thread with the least to do.
const MAX_REQUESTS: u64 = 10_000;

/// Counts a request as being answered until it is dropped.
pub struct RequestGuard {
    activity: Rc<ConnActivity>,
    uploads: Option<Rc<Uploads>>,
}

impl RequestGuard {
    /// A request has come. Over HTTP/1.1 its body is read in the connection's task, where `uploads` keeps the upload.
    pub fn begin(
        activity: &Rc<ConnActivity>,
        head: &RequestHead,
        uploads: Option<&Rc<Uploads>>,
    ) -> RequestGuard {
        activity.begin();
        if !activity.is_shared()
            && (head.connection_type() == ConnectionType::Close || activity.n_requests() >= MAX_REQUESTS)
        {
            activity.is_closing.set(true);
        }
        RequestGuard { activity: Rc::clone(activity), uploads: uploads.cloned() }
    }

    /// Runs `upload`, which hands the request's body to a run as it comes.
    pub fn upload(&self, upload: impl Future<Output = ()> + 'static) {
        match &self.uploads {
            Some(uploads) => uploads.begin(upload),
            None => tasks::spawn(upload),
        }
    }

    /// Our own address that the client has connected to, if the connection has noted it.
    pub fn local_ip(&self) -> Option<IpAddr> {
        self.activity.local_ip.get()
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
        self.activity.end();
    }
}
