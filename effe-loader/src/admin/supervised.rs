//! The thread of a supervised process that follows its supervisor: it carries out orders, and reports what the
//! supervisor's admin listener shows. Without the supervisor the process drains.

use std::{
    io,
    rc::Rc,
    sync::{Arc, atomic::Ordering, mpsc},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::UnixStream,
    time,
};

use super::{
    metrics::Scrape,
    state::{self, Admin},
};
use crate::{
    net::tls::Tls,
    process::{
        control::Stop,
        link::{Link, LinkSender, Message, Order},
    },
    rescue::hand_over,
    rt::tasks,
};

/// How often to look whether a first Start has succeeded, after it has failed.
const LOOK: Duration = Duration::from_millis(100);

/// Says when the process is to begin.
pub struct Begin(mpsc::Receiver<bool>);

impl Begin {
    /// Waits for the supervisor's word: true to accept connections, false to end before that.
    pub fn wait(&self) -> bool {
        self.0.recv().unwrap_or(false)
    }
}

/// Follows the supervisor from now on. Fails if the system refuses a thread.
pub fn follow(link: Link, admin: Admin, tls: Option<Arc<Tls>>) -> io::Result<Begin> {
    let (begin, begins) = mpsc::channel();
    let Link { socket, sender } = link;
    socket.set_nonblocking(true)?;
    thread::Builder::new().name("effe-control".to_owned()).spawn(move || {
        let lost = admin.journal.clone();
        let followed = tasks::run(async move {
            let socket = UnixStream::from_std(socket)?;
            let follower = Rc::new(Follower { sender, admin, tls, begin });
            tasks::spawn(Rc::clone(&follower).say_when_warm());
            follower.run(socket).await;
            Ok::<_, io::Error>(())
        });
        if let Err(err) = followed.and_then(|followed| followed) {
            lost.critical(format!("the supervisor can't be followed: {err}"));
        }
    })?;
    Ok(Begin(begins))
}

struct Follower {
    sender: LinkSender,
    admin: Admin,
    tls: Option<Arc<Tls>>,
    begin: mpsc::Sender<bool>,
}

impl Follower {
    async fn run(self: Rc<Self>, socket: UnixStream) {
        let mut lines = BufReader::new(socket).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some(order) = Order::parse(&line) {
                self.obey(order);
            }
        }
        // Whoever had been told to stop is on the way.
        if !self.admin.control.stopping().load(Ordering::Relaxed) {
            self.admin.journal.critical("the supervisor has gone: finishing what runs");
            self.stop(Stop::hurried());
        }
    }

    fn obey(self: &Rc<Self>, order: Order) {
        match order {
            Order::Serve => drop(self.begin.send(true)),
            Order::AnnounceStop => self.admin.control.announce_stop(),
            Order::Stop { left } => {
                self.stop(Stop::within(Duration::from_millis(left), self.admin.watchdog.drain));
            }
            Order::HandOver { left } => {
                let stop = Stop::within(Duration::from_millis(left), self.admin.watchdog.drain);
                if hand_over::begin() {
                    self.admin.control.hand_over(stop);
                    self.admin.watchdog.arm(stop);
                } else {
                    self.stop(stop);
                }
            }
            Order::Leave(why) => self.admin.watchdog.exit(&why),
            Order::SetLevel(level) => self.admin.journal.set_level(level),
            Order::TakeCertificate { cert, key } => {
                // The supervisor has checked it, and says in the log what came of it.
                let _ = self.tls.as_ref().map(|tls| tls.take([cert, key].map(String::into_bytes)));
            }
            Order::Report(id) => {
                let follower = Rc::clone(self);
                tasks::spawn(async move {
                    let report = follower.report().await;
                    follower.sender.send(&Message::Report(id, report));
                });
            }
        }
    }

    async fn report(&self) -> Value {
        let admin = &self.admin;
        // Once for all: the lambda may take its time to say it.
        let readiness = admin.health.readiness().await;
        let (is_ready, effe) = (readiness.is_ok(), admin.health.effe.get().map(|effe| &**effe));
        json!({
            "unready": readiness.as_ref().err().map(ToString::to_string),
            "scrape": Scrape::take(&admin.journal, effe, is_ready).to_json(),
            "state": state::state(admin, readiness),
            "info": admin.plugin().info(),
        })
    }

    fn stop(&self, stop: Stop) {
        self.admin.control.stop(stop);
        self.admin.watchdog.arm(stop);
        let _ = self.begin.send(false);
    }

    /// Tells the supervisor when a first Start has succeeded after others have failed.
    async fn say_when_warm(self: Rc<Self>) {
        loop {
            time::sleep(LOOK).await;
            let Some(effe) = self.admin.health.effe.get() else { continue };
            if effe.generations.current().is_warm() {
                return self.sender.send(&Message::Warm);
            }
        }
    }
}
