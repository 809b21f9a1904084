//! A request that is being answered, as its connection knows it.

use std::{future::Future, net::IpAddr, rc::Rc, sync::Arc};

use actix_http::{ConnectionType, RequestHead};

use crate::{
    body::incoming::Uploads,
    net::activity::{ConnActivity, Hangup},
    rt::tasks,
};

/// Requests on one connection. A client that wants more opens another, which finds the thread with the least to do.
const MAX_REQUESTS: u64 = 10_000;

/// A request that its connection knows to be under way.
pub struct RequestGuard {
    activity: Rc<ConnActivity>,
    uploads: Option<Rc<Uploads>>,
}

impl RequestGuard {
    /// It has come. Its body is read in the task of its connection, if there is a place for that.
    pub fn begin(
        activity: &Rc<ConnActivity>,
        head: &RequestHead,
        uploads: Option<&Rc<Uploads>>,
    ) -> RequestGuard {
        activity.begin();
        if !activity.is_shared()
            && (head.connection_type() == ConnectionType::Close || activity.n_requests() >= MAX_REQUESTS)
        {
            activity.close();
        }
        RequestGuard { activity: Rc::clone(activity), uploads: uploads.cloned() }
    }

    /// A run reads its body as it comes, by `upload`.
    pub fn upload(&self, upload: impl Future<Output = ()> + 'static) {
        match &self.uploads {
            Some(uploads) => uploads.begin(upload),
            None => tasks::spawn(upload),
        }
    }

    /// The address of ours that it came to, if it came over the network and somebody noted it.
    pub fn local_ip(&self) -> Option<IpAddr> {
        self.activity.local_ip()
    }

    /// Tells `run` when the client closes its end of the connection.
    pub fn watch(&self, run: Option<Arc<impl Hangup + 'static>>) {
        // Where requests are answered side by side, the future of one that is taken back is dropped.
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
