//! An async lambda: the promises of its life cycle, streams in both directions, futures that are dropped at any of
//! their awaits, and panics anywhere.

use std::{
    future::{pending, poll_fn},
    io::Write,
    panic::panic_any,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use effe_abi::{
    AsyncLambda, AsyncResponse, Level, Options, Params, Request, Result, StartError, Started, export,
    testing::{Answer, Call, Effe},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task,
    time::sleep,
};

struct Probe(Params);

impl AsyncLambda for Probe {
    const OPTIONS: Options = Options::new().stream_request().stream_response();

    async fn init(params: Params) -> Result {
        step("init", params.get("init")).await
    }

    async fn start(params: Params) -> Result<Self, StartError<Self>> {
        match params.get("start") {
            Some("fails with a Context") => {
                log::info!("start");
                Err(StartError::new("half a database").with_context(Probe(params)))
            }
            how => {
                step("start", how).await?;
                Ok(Probe(params))
            }
        }
    }

    async fn run(probe: Started<'_, Self>, request: &Request, response: &mut AsyncResponse<'_>) -> Result {
        let _alive = Alive::new();
        log::info!("run");
        match request.path() {
            "/whatever" => match probe {
                Ok(_) => _ = response.text("a Context"),
                Err(failed) => {
                    let context = failed.context().is_some();
                    response.status(503).text(format!("{} / {context}", failed.error().is_some()));
                }
            },
            "/upper" => {
                let mut body = request.body();
                while let Some(piece) = body.chunk().await {
                    response.send(piece?.to_ascii_uppercase()).await?;
                }
            }
            "/everything" => everything(request, response).await?,
            "/whole" => {
                let text = request.body().bytes().await?;
                let again = request.body().bytes().await.unwrap_err();
                response.text(format!("{} {again}", text.len()));
            }
            "/blocking-reader" => {
                request.bytes()?;
            }
            "/copy" => {
                let copied = tokio::io::copy(&mut request.body(), response).await?;
                write!(response, "{copied}")?;
            }
            "/kept-body" => {
                let mut body = request.body();
                task::spawn(async move {
                    RUN_OVER.notified().await;
                    let late = body.chunk().await.map(|piece| piece.map_err(|err| err.to_string()));
                    let _ = READ_LATE.set(format!("{late:?}"));
                });
            }
            "/for-ever" => loop {
                response.send("tick").await?;
            },
            "/breaks" => {
                response.send("half of it").await?;
                Err("the other half is missing")?;
            }
            "/early" => {
                response.text("done").end().unwrap();
                assert!(response.end().await.is_err() && response.send("more").await.is_err());
            }
            "/goes-on" => {
                response.text("done");
                response.end().await?;
                task::yield_now().await;
                task::yield_now().await;
                GONE_ON.fetch_add(1, Ordering::Relaxed);
            }
            "/never" => pending().await,
            "/panics-later" => {
                sleep(Duration::from_millis(1)).await;
                panic!("run fell over");
            }
            "/bomb-later" => {
                sleep(Duration::from_millis(1)).await;
                panic_any(Bomb);
            }
            "/drop-panics" => {
                let _bomb = Bomb;
                pending().await
            }
            "/end-panics" => {
                response.text("done");
                let _bomb = Bomb;
            }
            "/waker" => {
                // Woken on another thread, with a clone of the waker, after the poll has returned.
                let mut woken = false;
                poll_fn(|cx| {
                    if std::mem::replace(&mut woken, true) {
                        return Poll::Ready(());
                    }
                    let waker = cx.waker().clone();
                    thread::spawn(move || {
                        thread::sleep(Duration::from_millis(2));
                        waker.wake_by_ref();
                        waker.wake();
                    });
                    Poll::Pending
                })
                .await;
                response.text("woken");
            }
            _ => {
                go_wrong("run", probe?.0.get("run"))?;
                response.text("fine");
            }
        }
        Ok(())
    }

    async fn stop(self) -> Result {
        step("stop", self.0.get("stop")).await
    }

    async fn ready() -> Result {
        sleep(Duration::from_millis(1)).await;
        Err("still warming up")?
    }

    async fn retire() -> Result {
        log::info!("retire");
        sleep(Duration::from_millis(1)).await;
        Ok(())
    }
}

export!(async Probe);

/// One step: logs its name, waits, and fails as the step's parameter says.
async fn step(name: &'static str, how: Option<&'static str>) -> Result {
    log::info!("{name}");
    sleep(Duration::from_millis(1)).await;
    go_wrong(name, how)
}

fn go_wrong(step: &str, how: Option<&'static str>) -> Result {
    match how {
        None => Ok(()),
        Some("panics") => panic!("{step} fell over"),
        Some("throws a bomb") => panic_any(Bomb),
        Some(text) => Err(text)?,
    }
}

/// A run with a task, a timer, sockets, and pieces in both directions, which needs a runtime.
async fn everything(request: &Request, response: &mut AsyncResponse<'_>) -> Result {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = task::spawn(async move {
        let _alive = Alive::new();
        let (mut socket, _) = listener.accept().await?;
        let mut text = String::new();
        socket.read_to_string(&mut text).await?;
        socket.write_all(text.to_uppercase().as_bytes()).await
    });
    let mut socket = TcpStream::connect(address).await?;
    let mut body = request.body();
    while let Some(piece) = body.chunk().await {
        socket.write_all(&piece?).await?;
    }
    socket.shutdown().await?;
    response.header("x-kind", "stream");
    response.flush().await?;
    let mut buffer = [0; 8];
    loop {
        match socket.read(&mut buffer).await? {
            0 => break,
            n => response.send(buffer[..n].to_vec()).await?,
        }
    }
    server.await??;
    sleep(Duration::from_micros(100)).await;
    write!(response, ".")?;
    Ok(())
}

/// For `/kept-body`: tells its task that the run is over, and holds what the task then read.
static RUN_OVER: Notify = Notify::const_new();
static READ_LATE: OnceLock<String> = OnceLock::new();

/// Waits for something that happens on another thread.
#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "not in time: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

static ALIVE: AtomicUsize = AtomicUsize::new(0);

/// How often a run has gone on to its end after its answer.
static GONE_ON: AtomicUsize = AtomicUsize::new(0);

/// Counts the runs and tasks that have not been dropped.
struct Alive;

impl Alive {
    fn new() -> Alive {
        ALIVE.fetch_add(1, Ordering::Relaxed);
        Alive
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        // This panics if the drop doesn't happen inside the runtime.
        tokio::runtime::Handle::current();
        ALIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the drop fell over");
    }
}

fn effe() -> Effe {
    Effe::of(&LAMBDA)
}

fn story(log: &[(Level, String)]) -> String {
    let steps = log.iter().filter(|(level, _)| *level == Level::Info);
    steps.map(|(_, step)| step.as_str()).collect::<Vec<_>>().join(" ")
}

fn critical(log: &[(Level, String)]) -> Vec<&str> {
    log.iter().filter(|(level, _)| *level == Level::Critical).map(|(_, text)| text.as_str()).collect()
}

/// Makes the same call in each of the three ways that a run can be made.
fn in_every_way(call: impl Fn() -> Call, check: impl Fn(Answer)) {
    check(effe().call(call()));
    check(effe().call_waiting(call()));
    check(effe().call_spawned(call()));
}

#[test]
fn every_step_is_called_as_often_as_the_life_cycle_says() {
    for waiting in [false, true] {
        let effe = effe();
        for _ in 0..3 {
            let call = Call::get("/");
            let answer = if waiting { effe.call_waiting(call) } else { effe.call(call) };
            assert_eq!(answer.text(), "fine");
        }
        assert_eq!(story(&effe.retire()), "init start run run run stop retire");
    }
}

#[test]
fn it_says_whether_it_is_ready() {
    assert!(effe().ready().unwrap_err().starts_with("still warming up ("));
}

#[test]
fn a_failed_start_gets_one_run_and_its_context_one_stop() {
    let effe = Effe::with(&LAMBDA, &[("start", "fails with a Context")]);
    assert_eq!((effe.get("/whatever").text().as_str(), effe.stopped()), ("true / true", 1));
    assert_eq!(story(&effe.retire()), "init start run stop retire");
    let effe = Effe::with(&LAMBDA, &[("start", "no database")]);
    assert_eq!(effe.get("/whatever").text(), "true / false");
    assert_eq!(effe.get("/").status, 500);
    assert_eq!(story(&effe.retire()), "init start run start run retire");
}

#[test]
fn errors_and_panics_of_every_step_are_reported_with_their_place() {
    for how in ["panics", "throws a bomb", "was not in the mood"] {
        let panics = how != "was not in the mood";
        let said = match how {
            "panics" => "fell over (",
            "throws a bomb" => "(no message)",
            other => other,
        };
        let said = said.trim_end_matches(" (");
        let refused = Effe::try_with(&LAMBDA, &[("init", how)]).err().unwrap();
        assert!(refused.contains(said) && refused.contains("tests/async.rs:"), "{refused}");
        for step in ["start", "run", "stop"] {
            let effe = Effe::with(&LAMBDA, &[(step, how)]);
            let answer = effe.get("/");
            let failed = step != "stop";
            assert_eq!((answer.status == 500, answer.panicked), (failed, failed && panics), "{step} {how}");
            let log = effe.retire();
            let told = log.iter().filter(|(level, _)| *level <= Level::Error);
            assert!(told.clone().count() > 0);
            assert!(told.clone().all(|(_, text)| text.contains("tests/async.rs:")), "{log:?}");
        }
    }
}

#[test]
fn a_body_comes_and_goes_in_pieces() {
    in_every_way(
        || Call::post("/upper").body("begin ").chunk("middle ").chunk("").chunk("end"),
        |answer| assert_eq!(answer.pieces, [&b"BEGIN "[..], b"MIDDLE ", b"END"]),
    );
    in_every_way(
        || Call::post("/everything").body("abc").chunk("def"),
        |answer| assert_eq!((answer.text().as_str(), answer.header("x-kind")), ("ABCDEF.", Some("stream"))),
    );
    in_every_way(
        || Call::post("/copy").body("x").chunk(vec![b'y'; 200_000]),
        |answer| {
            assert_eq!(answer.bytes().len(), 200_001 + 6);
            assert!(answer.pieces.len() >= 3, "{} pieces", answer.pieces.len());
        },
    );
}

#[test]
fn a_stream_is_taken_once_and_never_by_a_reader_that_blocks() {
    let answer = effe().call(Call::post("/whole").body("abc").chunk("def"));
    assert_eq!(answer.text(), "6 the body is being read by another reader");
    let answer = effe().call(Call::post("/blocking-reader").body("abc").chunk("def"));
    assert!(answer.failure.unwrap_or_default().contains("await the pieces of `body`"));
}

#[test]
fn a_body_that_outlives_its_run_ends_in_an_error() {
    let effe = effe();
    assert_eq!(effe.call(Call::post("/kept-body").chunk("late")).status, 200);
    RUN_OVER.notify_one();
    wait_until("the task has read", || READ_LATE.get().is_some());
    assert_eq!(READ_LATE.get().unwrap(), "Some(Err(\"the request is over\"))");
}

#[test]
fn an_end_cannot_be_followed_and_half_an_answer_is_broken_off() {
    assert_eq!(effe().get("/early").text(), "done");
    let answer = effe().get("/breaks");
    assert_eq!((answer.text().as_str(), answer.broken), ("half of it", true));
}

#[test]
fn a_client_that_leaves_is_no_error_to_the_operator() {
    for pieces in [0, 1, 5] {
        let effe = effe();
        let answer = effe.call(Call::get("/for-ever").gone_after(pieces));
        assert_eq!(answer.pieces.len(), pieces);
        assert!(answer.failure.unwrap_or_default().starts_with("the client has gone"));
        assert!(effe.log().iter().all(|(level, _)| *level >= Level::Info), "{:?}", effe.log());
    }
}

#[test]
fn a_waker_may_be_cloned_and_used_on_any_thread() {
    in_every_way(|| Call::get("/waker"), |answer| assert_eq!(answer.text(), "woken"));
}

#[test]
fn dropped_after_any_poll_a_run_leaves_nothing_behind_and_its_context_is_stopped() {
    for target in ["/everything", "/upper", "/copy", "/panics-later"] {
        let effe = effe();
        let mut n_dropped = 0;
        for polls in 0.. {
            let call = Call::post(target).body("begin").chunk("middle").chunk("end");
            match effe.call_dropped(call, polls) {
                None => n_dropped += 1,
                Some(answer) => {
                    assert_eq!(answer.panicked, target == "/panics-later");
                    break;
                }
            }
            assert_eq!(effe.stopped(), n_dropped, "a cancelled Context is not used again");
        }
        assert!(n_dropped >= 2, "{target} has {n_dropped} places to be dropped at");
        let started = effe.started();
        let log = effe.retire();
        let count = |name| log.iter().filter(|(_, step)| step == name).count();
        assert_eq!((count("start"), count("stop"), count("retire")), (started, started, 1));
    }
    // Retire has ended the runtime, and the tasks with it. Runs and tasks of other tests may be alive at this moment.
    wait_until("no run and no task is alive", || ALIVE.load(Ordering::Relaxed) == 0);
}

#[test]
fn a_panic_in_a_poll_a_drop_or_at_the_end_is_caught() {
    let effe = effe();
    for target in ["/panics-later", "/bomb-later"] {
        let answer = effe.get(target);
        assert_eq!((answer.status, answer.panicked), (500, true));
    }
    let spawned = self::effe();
    for target in ["/panics-later", "/bomb-later", "/end-panics"] {
        assert!(spawned.call_spawned(Call::get(target)).panicked, "{target}");
    }
    assert_eq!((spawned.started(), spawned.stopped()), (3, 3));
    assert!(effe.call_dropped(Call::get("/drop-panics"), 1).is_none());
    let answer = effe.get("/end-panics");
    assert!(answer.panicked, "the run is over, but its Context is not to be trusted");
    let log = effe.retire();
    assert_eq!(story(&log).matches("start run stop").count(), 4, "{log:?}");
    let told = critical(&log);
    assert!(told.len() >= 4 && told.iter().all(|text| text.contains("tests/async.rs:")), "{told:?}");
}

#[test]
fn a_run_that_has_ended_its_answer_goes_on_whoever_leaves() {
    let effe = effe();
    let answers = [
        effe.call_dropped(Call::get("/goes-on"), 1).expect("the first poll ends the answer"),
        effe.call(Call::get("/goes-on")),
        effe.call_waiting(Call::get("/goes-on")),
        effe.call_spawned(Call::get("/goes-on")),
    ];
    for answer in &answers {
        assert_eq!((answer.text().as_str(), answer.early, &answer.failure), ("done", true, &None));
    }
    assert_eq!((GONE_ON.load(Ordering::Relaxed), effe.stopped()), (answers.len(), 0));
}

#[test]
fn a_future_that_is_never_woken_can_be_dropped() {
    let effe = effe();
    assert!(effe.call_dropped(Call::get("/never"), 1).is_none());
    assert_eq!((effe.started(), effe.stopped()), (1, 1));
}

#[test]
fn the_number_of_threads_is_the_operators() {
    let refused = Effe::try_with(&LAMBDA, &[("runtime-threads", "none")]).err();
    // If another test's effe has made the runtime already, the parameter isn't read, and nothing is refused.
    if let Some(text) = refused {
        assert!(text.contains("the parameter `runtime-threads` is \"none\""), "{text}");
    }
}
