use std::io;

use effe_abi::testing::{Call, Effe};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};

use super::LAMBDA;

/// Starts a server that answers with the request that it got, in two pieces, and closes. Returns its URL.
fn upstream(runtime: &Runtime) -> String {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            // One test disconnects in the middle of an answer.
            tokio::spawn(async move { drop(answer(socket).await) });
        }
    });
    format!("http://{address}/")
}

async fn answer(socket: TcpStream) -> io::Result<()> {
    let mut socket = BufReader::new(socket);
    let (mut head, mut length, mut chunked) = (String::new(), 0, false);
    while !head.ends_with("\r\n\r\n") {
        let begin = head.len();
        if socket.read_line(&mut head).await? == 0 {
            return Ok(());
        }
        let line = head[begin..].to_ascii_lowercase();
        if let Some(text) = line.strip_prefix("content-length:") {
            length = text.trim().parse().unwrap();
        }
        chunked |= line.starts_with("transfer-encoding: chunked");
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await?;
    while chunked && !body.ends_with(b"0\r\n\r\n") {
        body.push(socket.read_u8().await?);
    }
    let first = format!("{}|", head.lines().next().unwrap());
    let length = first.len() + body.len();
    let head = "HTTP/1.1 201 Created\r\nx-upstream: yes\r\nconnection: close\r\n";
    socket.write_all(format!("{head}content-length: {length}\r\n\r\n{first}").as_bytes()).await?;
    socket.flush().await?;
    socket.write_all(&body).await?;
    socket.flush().await
}

#[test]
fn what_upstream_answers_reaches_the_client() {
    let runtime = Runtime::new().unwrap();
    let effe = Effe::with(&LAMBDA, &[("upstream", &upstream(&runtime))]);
    let answer = effe.call(Call::get("/path?query=1").header("host", "client"));
    assert_eq!((answer.status, answer.text().as_str()), (201, "GET /path?query=1 HTTP/1.1|"));
    assert_eq!((answer.header("x-upstream"), answer.header("connection")), (Some("yes"), None));
    let call = Call::post("/").header("transfer-encoding", "chunked").body("a").chunk("b").chunk("c");
    let text = effe.call(call).text();
    assert!(text.starts_with("POST / HTTP/1.1|") && text.ends_with("0\r\n\r\n"), "{text}");
}

#[test]
fn an_upstream_that_is_not_there_is_502_and_no_upstream_is_no_effe() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let effe = Effe::with(&LAMBDA, &[("upstream", &format!("http://{gone}"))]);
    assert_eq!(effe.get("/").status, 502);
    assert!(Effe::try_with(&LAMBDA, &[]).err().unwrap().contains("--set upstream="));
}

#[test]
fn dropped_at_any_await_it_serves_on_in_the_same_context() {
    let runtime = Runtime::new().unwrap();
    let effe = Effe::with(&LAMBDA, &[("upstream", &upstream(&runtime))]);
    let call = || Call::get("/");
    for polls in 0.. {
        if let Some(answer) = effe.call_dropped(call(), polls) {
            assert_eq!(answer.status, 201);
            break;
        }
    }
    assert_eq!((effe.started(), effe.stopped()), (1, 0));
}
