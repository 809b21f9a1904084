//! A lambda in a unit test: it goes through the real life cycle and the real wire, without a server.
//!
//! This is a loader in miniature: it has no limits, logs to memory, and has a thread of its own only for a run that
//! takes its connection over. `host` calls the lambda's table, `exchange` is what the lambda calls during a run,
//! `polled` polls the futures of an async lambda, and `duplex` carries the bytes of such a connection, whose client's
//! end is `client`.
//!
//! ```
//! # use effe_abi::{Lambda, Params, Request, Response, Result, StartError, Started, export};
//! # struct Echo;
//! # impl Lambda for Echo {
//! #     fn start(_: Params) -> Result<Self, StartError<Self>> { Ok(Echo) }
//! #     fn run(echo: Started<Self>, request: &Request, response: &mut Response) -> Result {
//! #         echo?;
//! #         response.status(201).text(request.text()?);
//! #         Ok(())
//! #     }
//! # }
//! # export!(Echo);
//! # fn main() {
//! use effe_abi::testing::{Call, Effe};
//!
//! let effe = Effe::of(&LAMBDA);
//! let answer = effe.call(Call::post("/").header("x-trace", "7").body("ping"));
//! assert_eq!((answer.status, answer.text().as_str()), (201, "ping"));
//! # }
//! ```

mod call;
mod client;
mod duplex;
mod exchange;
mod host;
mod outcome;
mod piece;
mod polled;
#[cfg(feature = "websocket")]
mod websocket;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

#[cfg(feature = "websocket")]
pub use self::websocket::WebSocketClient;
use self::{
    call::RunMode,
    exchange::Offer,
    host::{Hosted, Offers},
    outcome::Outcome,
};
pub use self::{
    call::{Answer, Call, Interim},
    client::Client,
};
use crate::{error::Level, export::Linked};

/// A lambda that is served in this process. Init has been called; idle Contexts are kept between calls. Dropping it
/// stops all Contexts and calls Retire.
///
/// Several threads may make calls at the same time.
pub struct Effe(Arc<Served>);

/// What a run on a thread of its own keeps, too: Retire is called after the last of them.
struct Served {
    hosted: Hosted,
    idle: Mutex<Vec<host::Context>>,
    started: AtomicUsize,
    stopped: Arc<AtomicUsize>,
}

impl Effe {
    /// Serves a lambda without parameters.
    ///
    /// # Panics
    /// Init failed.
    pub fn of(lambda: &'static Linked) -> Effe {
        Effe::with(lambda, &[])
    }

    /// Serves a lambda with parameters, as the operator gives them with `--set`.
    ///
    /// # Panics
    /// Init failed.
    pub fn with(lambda: &'static Linked, parameters: &[(&str, &str)]) -> Effe {
        match Effe::try_with(lambda, parameters) {
            Ok(effe) => effe,
            Err(text) => panic!("init failed: {text}"),
        }
    }

    /// Serves a lambda with parameters, if its Init succeeds.
    ///
    /// # Errors
    /// What Init said.
    pub fn try_with(lambda: &'static Linked, parameters: &[(&str, &str)]) -> Result<Effe, String> {
        Effe::hosted(lambda, parameters, Offers::ALL)
    }

    fn hosted(lambda: &'static Linked, parameters: &[(&str, &str)], offers: Offers) -> Result<Effe, String> {
        let parameters = parameters.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let hosted = Hosted::new(lambda, parameters.collect::<BTreeMap<_, _>>(), offers);
        let stopped = Arc::new(AtomicUsize::new(0));
        match hosted.init() {
            Outcome::Ok => {}
            Outcome::Error(text) | Outcome::Panic(text) => return Err(text),
        }
        let served = Served { hosted, idle: Mutex::default(), started: AtomicUsize::new(0), stopped };
        Ok(Effe(Arc::new(served)))
    }

    /// The lambda's Info, as JSON text.
    pub fn info(&self) -> &'static str {
        self.0.hosted.info()
    }

    /// `GET target`.
    pub fn get(&self, target: &str) -> Answer {
        self.call(Call::get(target))
    }

    /// Serves one request with an idle Context, or a new one. The run of an async lambda is polled until it is done.
    pub fn call(&self, call: Call) -> Answer {
        self.take(&call, RunMode::Polled(usize::MAX))
    }

    /// As [`call`](Effe::call), but by the entry that waits on its thread, as a loader without async calls it.
    pub fn call_waiting(&self, call: Call) -> Answer {
        self.take(&call, RunMode::Waiting)
    }

    /// As [`call`](Effe::call), but the run of an async lambda is spawned: it is polled by the lambda's own runtime, as
    /// the loader wants it for runs that wait again and again.
    pub fn call_spawned(&self, call: Call) -> Answer {
        self.take(&call, RunMode::Spawned(usize::MAX))
    }

    /// As [`call`](Effe::call), but if the run of an async lambda isn't done after `polls` polls, the client leaves:
    /// its future is dropped, and this returns `None`. A run is polled again when it was woken, and each piece that it
    /// reads or sends takes one more poll. One that has ended its answer early goes on to its end, whoever leaves. To
    /// cancel a lambda at each of its `.await`s, count `polls` up from 0 until there is an answer.
    pub fn call_dropped(&self, call: Call, polls: usize) -> Option<Answer> {
        let answer = self.take(&call, RunMode::Polled(polls));
        (!answer.dropped).then_some(answer)
    }

    /// A request that offers to go on with the protocols of its header `upgrade` on the same connection, and the
    /// client's end of that connection. The run goes on in a thread of its own; of a lambda that isn't async, it may
    /// wait there.
    ///
    /// ```
    /// # use effe_abi::{Lambda, Options, Params, Request, Response, Result, StartError, Started, export};
    /// # struct Shout;
    /// # impl Lambda for Shout {
    /// #     const OPTIONS: Options = Options::new().upgrades();
    /// #     fn start(_: Params) -> Result<Self, StartError<Self>> { Ok(Shout) }
    /// #     fn run(shout: Started<Self>, _: &Request, response: &mut Response) -> Result {
    /// #         shout?;
    /// #         let mut stream = response.upgrade("shout")?;
    /// #         let mut text = String::new();
    /// #         std::io::Read::read_to_string(&mut stream, &mut text)?;
    /// #         std::io::Write::write_all(&mut stream, text.to_uppercase().as_bytes())?;
    /// #         Ok(())
    /// #     }
    /// # }
    /// # export!(Shout);
    /// # fn main() {
    /// use std::io::Write;
    ///
    /// use effe_abi::testing::{Call, Effe};
    ///
    /// let effe = Effe::of(&LAMBDA);
    /// let mut client = effe.upgrade(Call::get("/").header("upgrade", "shout")).unwrap();
    /// client.write_all(b"hello").unwrap();
    /// let (rest, answer) = client.end();
    /// assert_eq!((&*rest, answer.failure), (&b"HELLO"[..], None));
    /// # }
    /// ```
    ///
    /// # Errors
    /// The answer, if it is another one than 101.
    pub fn upgrade(&self, call: Call) -> Result<Client, Box<Answer>> {
        let (offer, taken) = mpsc::channel();
        let served = Arc::clone(&self.0);
        let run = thread::spawn(move || served.take(&call, RunMode::Polled(usize::MAX), Some(offer)));
        match taken.recv() {
            Ok((head, shared)) => Ok(Client { head, shared, run: Some(run) }),
            Err(mpsc::RecvError) => Err(Box::new(run.join().expect("the harness doesn't panic"))),
        }
    }

    /// A client of WebSocket's: `GET target` with a handshake, and the socket. Needs the feature `websocket`.
    ///
    /// # Errors
    /// As [`upgrade`](Effe::upgrade).
    #[cfg(feature = "websocket")]
    pub fn websocket(&self, target: &str) -> Result<WebSocketClient, Box<Answer>> {
        Ok(WebSocketClient::over(self.upgrade(Call::websocket(target))?))
    }

    fn take(&self, call: &Call, mode: RunMode) -> Answer {
        self.0.take(call, mode, None)
    }

    /// Asks the lambda whether it can serve.
    ///
    /// # Errors
    /// The lambda's error.
    pub fn ready(&self) -> Result<(), String> {
        match self.0.hosted.ready() {
            Outcome::Ok => Ok(()),
            Outcome::Error(text) | Outcome::Panic(text) => Err(text),
        }
    }

    /// The log so far: what the lambda logged, its panics, and the errors that it returned.
    pub fn log(&self) -> Vec<(Level, String)> {
        self.0.hosted.log()
    }

    /// Stops every Context and calls Retire, as dropping does. Returns the whole log.
    pub fn retire(self) -> Vec<(Level, String)> {
        let hosted = self.0.hosted.clone();
        drop(self);
        hosted.log()
    }

    /// The number of calls of Start.
    pub fn started(&self) -> usize {
        self.0.started.load(Ordering::Relaxed)
    }

    /// The number of Contexts that were stopped. A failed Start counts, too, although the lambda's `stop` is not called
    /// if it left no Context.
    pub fn stopped(&self) -> usize {
        self.0.stopped.load(Ordering::Relaxed)
    }
}

impl Served {
    fn take(&self, call: &Call, mode: RunMode, offer: Option<Offer>) -> Answer {
        let mut answer = Answer::default();
        let (context, failed) = match self.lock().pop() {
            Some(context) => (Some(context), None),
            None => {
                self.started.fetch_add(1, Ordering::Relaxed);
                self.hosted.start(&self.stopped)
            }
        };
        let Some(mut context) = context else {
            answer.failure = failed;
            answer.panicked = true;
            answer.status = 500;
            return answer;
        };
        let spawns = matches!(mode, RunMode::Spawned(_));
        exchange::run(call, spawns, offer, &mut answer, |exchange, is_answered| match mode {
            RunMode::Waiting => Some(context.run(exchange)),
            RunMode::Polled(polls) | RunMode::Spawned(polls) => {
                context.run_async(exchange, polls, is_answered)
            }
        });
        let fit = if answer.dropped { context.keeps_cancelled() } else { !answer.panicked };
        if failed.is_none() && fit {
            self.lock().push(context);
        }
        answer
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<host::Context>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.lock().clear();
        self.hosted.retire();
    }
}

#[cfg(all(test, feature = "async"))]
mod tests {
    use std::thread;

    use super::*;
    use crate::{
        AsyncLambda, AsyncResponse, Params, Request, Result, StartError, Started,
        async_entries::async_table,
        export::{Table, linked, table_of},
        extensions::SpawnHost,
        raw::{Status, status},
    };

    /// Waits twice, or for ever, and answers with the name of the thread that it is on then.
    struct Probe;

    impl AsyncLambda for Probe {
        async fn start(_: Params) -> Result<Self, StartError<Self>> {
            Ok(Probe)
        }

        async fn run(_: Started<'_, Self>, request: &Request, response: &mut AsyncResponse<'_>) -> Result {
            if request.path() == "/for-ever" {
                std::future::pending::<()>().await;
            }
            if request.path() == "/trailers" {
                response.text(request.trailers().count().to_string()).trailer("x", "y");
                return Ok(());
            }
            if request.path() == "/ends" {
                response.text("done");
                response.end().await?;
            }
            for _ in 0..2 {
                tokio::task::yield_now().await;
            }
            if request.path() == "/ends" {
                return Ok(());
            }
            response.text(thread::current().name().unwrap_or_default());
            Ok(())
        }
    }

    static TABLE: Table = table_of(async_table::<Probe>("{}", ""));
    static LAMBDA: Linked = linked(&TABLE, "probe");

    /// How often a host was asked whether a run is to be spawned.
    static N_ASKED: AtomicUsize = AtomicUsize::new(0);

    #[expect(unsafe_code, reason = "an entry of the host's table")]
    unsafe extern "C" fn yes(_: *mut ()) -> Status {
        N_ASKED.fetch_add(1, Ordering::Relaxed);
        status::OK
    }

    #[expect(unsafe_code, reason = "an entry of the host's table")]
    unsafe extern "C" fn no(_: *mut ()) -> Status {
        N_ASKED.fetch_add(1, Ordering::Relaxed);
        status::UNSUPPORTED
    }

    const fn host(version: u32, may_spawn: unsafe extern "C" fn(*mut ()) -> Status) -> SpawnHost {
        let (enter, leave) = (exchange::enter, exchange::leave);
        let (hold, release, may_block) = (exchange::hold, exchange::release, exchange::may_block);
        SpawnHost {
            size: size_of::<SpawnHost>() as u32,
            version,
            may_spawn,
            enter,
            leave,
            hold,
            release,
            may_block,
        }
    }

    #[test]
    fn a_host_of_version_2_decides_before_each_poll_and_one_of_version_1_is_never_asked() {
        static WANTS_IT: SpawnHost = host(2, yes);
        static WANTS_IT_NOT: SpawnHost = host(2, no);
        static OLD: SpawnHost = host(1, yes);
        for (spawn_host, n_asked, is_spawned) in
            [(&WANTS_IT, 100, true), (&WANTS_IT_NOT, 300, false), (&OLD, 0, false)]
        {
            let offers = Offers { spawn: spawn_host, ..Offers::ALL };
            let effe = Effe::hosted(&LAMBDA, &[], offers).unwrap();
            for _ in 0..100 {
                let on_own_thread = effe.get("/").text() == "effe-lambda";
                assert_eq!(on_own_thread, is_spawned);
            }
            assert_eq!(N_ASKED.swap(0, Ordering::Relaxed), n_asked);
        }
    }

    #[test]
    fn a_host_that_sends_no_answer_early_is_named_and_the_answer_comes_at_the_end() {
        let effe = Effe::hosted(&LAMBDA, &[], Offers { early: None, ..Offers::ALL }).unwrap();
        let answer = effe.get("/ends");
        assert_eq!((answer.status, answer.text().as_str(), answer.early), (200, "done", false));
        let failure = answer.failure.unwrap_or_default();
        assert!(failure.starts_with("this loader sends a held answer when Run returns; "), "{failure}");
        assert!(Effe::of(&LAMBDA).get("/ends").early);
    }

    #[test]
    fn a_host_that_knows_no_trailers_gets_and_gives_none() {
        let old = Effe::hosted(&LAMBDA, &[], Offers { trailers: None, ..Offers::ALL }).unwrap();
        for (effe, n) in [(old, 0), (Effe::of(&LAMBDA), 1)] {
            let answer = effe.call(Call::get("/trailers").trailer("a", "b"));
            assert_eq!((answer.status, answer.text(), answer.trailers.len()), (200, n.to_string(), n));
        }
    }

    #[test]
    fn a_spawned_run_that_is_dropped_leaves_nothing_behind() {
        let effe = Effe::of(&LAMBDA);
        for polls in [0, 1] {
            assert!(effe.take(&Call::get("/for-ever"), RunMode::Spawned(polls)).dropped);
        }
        assert_eq!(effe.call_spawned(Call::get("/")).text(), "effe-lambda");
        assert_eq!((effe.started(), effe.stopped()), (3, 2));
    }
}
