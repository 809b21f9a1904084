//! Bodies that come and go piece by piece, for a lambda that declares `stream_request` and `stream_response`.

use std::io::{self, Read, Write};

use effe_abi::{
    Chunk, Lambda, Level, Options, Params, Request, Response, Result, StartError, Started, export,
    testing::{Call, Effe},
};

struct Pipe;

impl Lambda for Pipe {
    const OPTIONS: Options = Options::new().stream_request().stream_response();

    fn start(_: Params) -> Result<Self, StartError<Self>> {
        Ok(Pipe)
    }

    fn run(pipe: Started<Self>, request: &Request, response: &mut Response) -> Result {
        pipe?;
        match request.path() {
            "/upper" => {
                let mut buffer = [0; 4];
                let mut reader = request.reader();
                loop {
                    match reader.read(&mut buffer)? {
                        0 => break,
                        n => response.write_all(&buffer[..n].to_ascii_uppercase())?,
                    }
                }
            }
            "/whole" => {
                let first = request.bytes()?.len();
                let again = request.text()?;
                response.text(format!("{first} {again}"));
            }
            "/two-readers" => {
                let mut text = String::new();
                request.reader().read_to_string(&mut text)?;
                let mut second = request.reader();
                response.text(format!("{text} / {}", second.read_to_string(&mut text).unwrap_err()));
            }
            "/reader-then-bytes" => {
                request.reader().read_exact(&mut [0])?;
                request.bytes()?;
            }
            "/pieces" => {
                response.header("x-kind", "stream").text("one");
                response.flush()?;
                write!(response, "t")?;
                write!(response, "wo")?;
                response.send(Chunk::from_static(b"three"))?;
                response.text("four").end()?;
            }
            "/large" => {
                for _ in 0..100 {
                    response.write_all(&[b'x'; 1024])?;
                }
            }
            "/late-status" => {
                response.flush()?;
                response.status(404);
            }
            "/breaks" => {
                response.send("half of it")?;
                return Err("the other half is missing".into());
            }
            "/panics" => {
                response.send("half of it")?;
                panic!("in the midst of it");
            }
            "/for-ever" => loop {
                response.send("tick")?;
                assert!(response.flush().is_ok() || request.cancelled());
            },
            "/deaf" => {
                while !request.cancelled() {
                    response.text("tick");
                    if let Err(err) = response.flush() {
                        assert_eq!(err.kind(), io::ErrorKind::BrokenPipe);
                    }
                }
                assert_eq!(response.send("tick").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
                response.body("tick");
            }
            other => return Err(format!("no such path: {other}").into()),
        }
        Ok(())
    }
}

export!(Pipe);

fn effe() -> Effe {
    Effe::of(&LAMBDA)
}

#[test]
fn a_request_is_read_as_it_arrives() {
    let call = Call::post("/upper").body("begin ").chunk("middle ").chunk("").chunk("end");
    assert_eq!(effe().call(call).text(), "BEGIN MIDDLE END");
    assert_eq!(effe().call(Call::post("/upper").body("no more")).text(), "NO MORE");
    assert_eq!(effe().call(Call::post("/upper")).text(), "");
}

#[test]
fn a_streamed_request_can_be_had_whole() {
    let call = Call::post("/whole").body("abc").chunk("def").chunk("g");
    assert_eq!(effe().call(call).text(), "7 abcdefg");
}

#[test]
fn a_second_reader_of_a_stream_fails() {
    let answer = effe().call(Call::post("/two-readers").body("a").chunk("b"));
    assert_eq!(answer.text(), "ab / the body is being read by another reader");
    let answer = effe().call(Call::post("/reader-then-bytes").body("a").chunk("b"));
    let failure = answer.failure.unwrap_or_default();
    assert!(failure.starts_with("the body is being read by another reader ("), "{failure}");
    assert!(failure.contains("tests/streams.rs:"), "{failure}");
}

#[test]
fn an_answer_goes_out_at_each_flush_and_send() {
    let answer = effe().get("/pieces");
    assert_eq!(answer.failure, None);
    assert_eq!((answer.status, answer.header("x-kind")), (200, Some("stream")));
    assert_eq!(answer.pieces, [&b"one"[..], b"two", b"three", b"four"]);
    assert!(answer.early && !effe().get("/large").early);
}

#[test]
fn an_answer_goes_out_when_64_kib_are_waiting() {
    let answer = effe().get("/large");
    let sizes = answer.pieces.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(sizes, [64 * 1024, 36 * 1024]);
}

#[test]
fn a_status_after_the_head_breaks_the_answer_off() {
    let answer = effe().get("/late-status");
    assert_eq!((answer.status, answer.broken), (200, true));
    assert!(
        answer
            .failure
            .unwrap_or_default()
            .contains("after the head had been sent (effe-abi/tests/streams.rs:")
    );
}

#[test]
fn an_error_or_a_panic_in_the_midst_of_an_answer_breaks_it_off() {
    for (target, panicked) in [("/breaks", false), ("/panics", true)] {
        let answer = effe().get(target);
        assert_eq!((answer.status, answer.text().as_str()), (200, "half of it"));
        assert_eq!((answer.broken, answer.panicked), (true, panicked));
    }
}

#[test]
fn a_client_that_leaves_is_a_broken_pipe_and_not_an_error_to_the_operator() {
    for target in ["/for-ever", "/deaf"] {
        for pieces in [0, 1, 5] {
            let effe = effe();
            let answer = effe.call(Call::get(target).gone_after(pieces));
            assert_eq!(answer.pieces.len(), pieces);
            let failure = answer.failure.unwrap_or_default();
            assert!(failure.starts_with("the client has gone"), "{target} {failure:?}");
            assert!(effe.log().iter().all(|(level, _)| *level == Level::Debug), "{:?}", effe.log());
        }
    }
}
