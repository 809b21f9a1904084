//! gRPC: the example grpc, a tonic service, served by the loader and asked by tonic's client and by grpcio.

use std::{env, path::Path, process::Command, time::Duration};

use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Request, Status, transport::Channel};

use self::words::{Counted, Text, words_client::WordsClient};
use crate::support::{
    LONG, Loader, Server,
    plugins::{example, workspace},
};
#[cfg(feature = "tls")]
use crate::support::{Scratch, tls::Pair};

#[rustfmt::skip]
#[allow(dead_code, missing_docs, clippy::all, reason = "what a generator has written")]
#[path = "../../examples/grpc/src/words.rs"]
mod words;

fn serve() -> Server {
    Loader::of(example("grpc")).args(["--workers", "2"]).serve()
}

fn run<T>(client: impl Future<Output = T>) -> T {
    actix_rt::System::new()
        .block_on(async { tokio::time::timeout(LONG, client).await.expect("it ends in time") })
}

async fn connect(server: &Server) -> WordsClient<Channel> {
    let endpoint = Channel::from_shared(format!("http://{}", server.address)).unwrap();
    WordsClient::new(endpoint.connect().await.unwrap())
}

fn text(text: &str) -> Text {
    Text { text: text.to_owned() }
}

#[test]
fn every_kind_of_call_has_its_messages_and_its_status() {
    let server = serve();
    run(async {
        let mut client = connect(&server).await;
        let counted = client.count(text("three little words")).await.unwrap();
        assert_eq!((counted.get_ref().words, counted.metadata().get("content-type").is_some()), (3, true));
        let refused = client.count(text("")).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "the text has no words"));
        let split = client.split(text("one two three")).await.unwrap().into_inner();
        let split: Vec<_> = split.map(|text| text.unwrap().text).collect().await;
        assert_eq!(split, ["one", "two", "three"]);
        let none: Vec<_> = client.split(text("")).await.unwrap().into_inner().collect().await;
        assert!(none.is_empty());
        let texts = tokio_stream::iter([text("one two"), text("three"), text("")]);
        assert_eq!(client.sum(texts).await.unwrap().get_ref().words, 3);
        let large = client.count(text(&"word ".repeat(300_000))).await.unwrap();
        assert_eq!(large.get_ref().words, 300_000);
    });
    server.stop();
}

/// A call of `watch` that has been answered once.
async fn watch(
    client: &mut WordsClient<Channel>,
    timeout: Option<Duration>,
) -> (mpsc::Sender<Text>, tonic::Streaming<Counted>) {
    let (sender, texts) = mpsc::channel(1);
    sender.send(text("one two")).await.unwrap();
    let mut request = Request::new(ReceiverStream::new(texts));
    if let Some(timeout) = timeout {
        request.set_timeout(timeout);
    }
    let mut counted = client.watch(request).await.unwrap().into_inner();
    assert_eq!(counted.message().await.unwrap().unwrap().words, 2);
    (sender, counted)
}

#[test]
fn messages_go_both_ways_at_once() {
    let server = serve();
    run(async {
        let mut client = connect(&server).await;
        let (sender, mut counted) = watch(&mut client, None).await;
        for n in 3..100 {
            sender.send(text("another")).await.unwrap();
            // Before the next one is sent.
            assert_eq!(counted.message().await.unwrap().unwrap().words, n);
        }
        drop(sender);
        assert_eq!(counted.message().await.unwrap(), None);
        let trailers = counted.trailers().await.unwrap();
        assert!(trailers.is_some_and(|trailers| !trailers.contains_key("content-type")));
    });
    server.wait_for_line("a watch is over after 99 words");
    server.stop();
}

#[test]
fn a_call_whose_client_leaves_or_whose_deadline_passes_is_dropped() {
    let server = serve();
    run(async {
        let mut client = connect(&server).await;
        let (sender, counted) = watch(&mut client, None).await;
        drop((sender, counted));
        server.wait_for_line("a watch is over after 2 words");
        let (sender, mut counted) = watch(&mut client, Some(Duration::from_millis(300))).await;
        sender.send(text("three")).await.unwrap();
        assert_eq!(counted.message().await.unwrap().unwrap().words, 3);
        let late: Result<_, Status> = counted.message().await;
        drop((late, counted, sender));
        server.wait_for_line("a watch is over after 3 words");
        // The connection is as good as before.
        assert_eq!(client.count(text("one")).await.unwrap().get_ref().words, 1);
    });
    server.stop();
}

/// What grpcio, a client that is not ours, says of so many calls; false if there is none.
fn grpcio(server: &Server, address: &str, n_calls: &str, certificate: Option<&Path>) -> bool {
    let local = workspace().join("out/python/bin/python3");
    let python = if local.exists() { local } else { "python3".into() };
    let has_grpcio = Command::new(&python).args(["-c", "import grpc"]).output();
    if !has_grpcio.is_ok_and(|output| output.status.success()) {
        println!("skipped: there is no grpcio");
        return false;
    }
    let script = workspace().join("effe-loader/tests/support/grpcio_client.py");
    let output =
        Command::new(&python).arg(script).args([address, n_calls]).args(certificate).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    // What the lambda saw of the deadline, and of the cancellation.
    server.wait_for_line("a watch is over after 3 words");
    server.wait_for_line("a watch is over after 4 words");
    true
}

#[test]
fn grpcio_finds_nothing_wrong() {
    let server = serve();
    let n_calls = env::var("EFFE_GRPC").unwrap_or_else(|_| "3000".to_owned());
    grpcio(&server, &server.address.to_string(), &n_calls, None);
    server.stop();
}

#[test]
#[cfg(feature = "tls")]
fn grpcio_finds_nothing_wrong_over_tls() {
    let scratch = Scratch::new();
    let pair = Pair::new(&scratch, "server");
    let server = pair.of(Loader::of(example("grpc"))).serve();
    grpcio(&server, &format!("localhost:{}", server.address.port()), "300", Some(&pair.cert));
    server.stop();
}
