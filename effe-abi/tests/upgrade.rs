//! A lambda in a unit test that takes its connection over: both kinds of lambdas, as bytes and as a WebSocket.

use std::{
    io::{self, Read, Write},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use effe_abi::{
    __private, AsyncLambda, AsyncResponse, Lambda, Linked, Options, Params, Request, Response, Result,
    StartError, Started, export,
    testing::{Call, Effe},
};

mod sync {
    use super::*;

    /// The path says what it does.
    struct Sync;

    impl Lambda for Sync {
        const OPTIONS: Options = Options::new().upgrades();

        fn start(_: Params) -> Result<Self, StartError<Self>> {
            Ok(Sync)
        }

        fn run(sync: Started<Self>, request: &Request, response: &mut Response) -> Result {
            sync?;
            match request.path() {
                "/offered" => {
                    response.text(response.offered_protocols().unwrap_or("nothing"));
                }
                "/ws" => {
                    let mut socket = request.websocket(response)?;
                    while let Some(message) = socket.receive()? {
                        socket.send(message)?;
                    }
                }
                "/fail" => {
                    response.upgrade("echo")?;
                    return Err("told to".into());
                }
                path => {
                    response.header("x-own", "yes");
                    let mut stream = response.upgrade("echo")?;
                    let mut echo = move || -> io::Result<u64> {
                        let mut to = stream.another();
                        io::copy(&mut stream, &mut to)
                    };
                    if path == "/own" {
                        thread::spawn(echo);
                    } else {
                        echo()?;
                    }
                }
            }
            Ok(())
        }
    }

    export!(Sync, info = "{}");
}

mod waits {
    use super::*;

    struct Async;

    impl AsyncLambda for Async {
        const OPTIONS: Options = Options::new().upgrades();

        async fn start(_: Params) -> Result<Self, StartError<Self>> {
            Ok(Async)
        }

        async fn run(own: Started<'_, Self>, request: &Request, response: &mut AsyncResponse<'_>) -> Result {
            own?;
            if request.path() == "/ws" {
                let mut socket = request.websocket(response)?;
                tokio::spawn(async move {
                    while let Ok(Some(message)) = socket.receive().await {
                        if socket.send(message).await.is_err() {
                            return;
                        }
                    }
                });
                return Ok(());
            }
            let mut stream = response.upgrade("echo")?;
            let mut to = stream.another();
            let echo = async move { tokio::io::copy(&mut stream, &mut to).await };
            if request.path() == "/own" {
                tokio::spawn(echo);
            } else {
                echo.await?;
            }
            Ok(())
        }
    }

    // By hand: a program can have only one of `export!`.
    static TABLE: __private::Table =
        __private::table_of(__private::async_table::<Async>("{}", __private::BUILD));
    pub static LAMBDA: Linked = __private::linked(&TABLE, module_path!());
}

mod last {
    use super::*;

    struct Last;

    pub static N_RETIRED: AtomicUsize = AtomicUsize::new(0);

    impl Lambda for Last {
        const OPTIONS: Options = Options::new().upgrades();

        fn start(_: Params) -> Result<Self, StartError<Self>> {
            Ok(Last)
        }

        fn run(last: Started<Self>, _: &Request, response: &mut Response) -> Result {
            last?;
            let mut stream = response.upgrade("echo")?;
            io::copy(&mut stream, &mut io::sink())?;
            Ok(())
        }

        fn retire() -> Result {
            N_RETIRED.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    }

    static TABLE: __private::Table = __private::table_of(__private::table::<Last>("{}", __private::BUILD));
    pub static LAMBDA: Linked = __private::linked(&TABLE, module_path!());
}

fn echo(path: &str) -> Call {
    Call::get(path).header("upgrade", "echo")
}

#[test]
fn bytes_go_both_ways_until_either_end_is_closed() {
    for lambda in [&sync::LAMBDA, &waits::LAMBDA] {
        let effe = Effe::of(lambda);
        for path in ["/", "/own"] {
            let mut client = effe.upgrade(echo(path)).unwrap();
            assert_eq!((client.head().status, client.head().header("upgrade")), (101, Some("echo")));
            // More than waits in both directions, as long as somebody reads.
            let large: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
            for piece in large.chunks(50_000) {
                client.write_all(piece).unwrap();
                let mut found = vec![0; piece.len()];
                client.read_exact(&mut found).unwrap();
                assert_eq!(found, piece);
            }
            client.write_all(b"last").unwrap();
            let (rest, answer) = client.end();
            assert_eq!((&rest[..], answer.failure), (&b"last"[..], None), "{path}");
        }
    }
}

#[test]
fn a_client_that_leaves_and_an_effe_that_stops_are_told_to_the_lambda() {
    let effe = Effe::of(&sync::LAMBDA);
    let answer = effe.upgrade(echo("/")).unwrap().leave();
    assert!(answer.failure.is_some_and(|failure| failure.starts_with("the connection is closed")));
    let client = effe.upgrade(echo("/")).unwrap();
    client.go_away();
    let (rest, answer) = client.end();
    assert!(rest.is_empty());
    assert!(answer.failure.is_some_and(|failure| failure.starts_with("going away")));
}

#[test]
fn what_is_no_upgrade_is_an_answer_and_a_failure_is_told_at_the_end() {
    let effe = Effe::of(&sync::LAMBDA);
    let answer = effe.upgrade(echo("/offered")).map(drop).unwrap_err();
    assert_eq!((answer.status, answer.text().as_str()), (200, "echo"));
    let refused = effe.upgrade(Call::get("/").header("upgrade", "other")).map(drop).unwrap_err();
    assert!(refused.failure.is_some_and(|failure| failure.contains("doesn't offer to switch to \"echo\"")));
    assert_eq!(
        effe.get("/offered").text(),
        "nothing",
        "who calls without waiting for a connection offers none"
    );
    assert_eq!(effe.call(Call::websocket("/ws")).status, 426);
    let (rest, answer) = effe.upgrade(echo("/fail")).unwrap().end();
    assert!(rest.is_empty());
    assert!(answer.failure.is_some_and(|failure| failure.starts_with("told to")));
}

#[test]
fn a_websocket_of_either_kind_echoes_and_is_closed_by_either_side() {
    for lambda in [&sync::LAMBDA, &waits::LAMBDA] {
        let effe = Effe::of(lambda);
        let mut socket = effe.websocket("/ws").unwrap();
        let accept = socket.client().head().header("sec-websocket-accept").map(str::to_owned);
        assert_eq!(accept.as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        for n in 0..10 {
            socket.send(format!("message {n}")).unwrap();
            assert_eq!(socket.receive().unwrap(), Some(format!("message {n}").into()));
        }
        socket.send(vec![7; 200_000]).unwrap();
        assert_eq!(socket.receive().unwrap(), Some(vec![7; 200_000].into()));
        assert_eq!(socket.close(1000).unwrap(), Some(1000));
        let mut socket = effe.websocket("/ws").unwrap();
        socket.client().go_away();
        assert_eq!((socket.receive().unwrap(), socket.closed_with()), (None, Some(1001)));
    }
}

#[test]
fn retire_comes_after_the_last_run_that_has_a_connection() {
    let effe = Effe::of(&last::LAMBDA);
    let client = effe.upgrade(echo("/")).unwrap();
    drop(effe);
    assert_eq!(last::N_RETIRED.load(Ordering::SeqCst), 0);
    let (_, answer) = client.end();
    assert_eq!((answer.failure, last::N_RETIRED.load(Ordering::SeqCst)), (None, 1));
}
