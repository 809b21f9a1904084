//! A client of the Runtime API: one connection, which is opened again when it has ended.

use std::{future::poll_fn, io, pin::Pin, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode, header};
use http_body::Body as _;
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time};

use super::{endpoint::Endpoint, payload::Payload};
use crate::rt::tasks;

const CONNECT: Duration = Duration::from_secs(5);
/// How long the API may take to take an answer in. It is a process on the same machine.
const ANSWER: Duration = Duration::from_secs(10);

pub struct Client {
    endpoint: Endpoint,
    sender: Option<SendRequest<Payload>>,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("it can't be reached: {0}")]
    Connect(io::Error),
    #[error("it breaks off: {0}")]
    Broken(#[from] hyper::Error),
    #[error("{0} is no address of it")]
    Address(#[from] http::Error),
    #[error("it doesn't answer within {} seconds", ANSWER.as_secs())]
    Silent,
}

impl Client {
    pub fn new(endpoint: &Endpoint) -> Client {
        Client { endpoint: endpoint.clone(), sender: None }
    }

    /// Sends a request, and waits for the head of the answer for as long as that takes.
    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(header::HeaderName, String)],
        payload: Payload,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut sender = self.connected().await?;
        let Endpoint { authority, base } = &self.endpoint;
        let target = format!("{base}{path}");
        let mut request = Request::builder().method(method).uri(target).header(header::HOST, authority);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(payload)?;
        let response = sender.send_request(request).await?;
        self.sender = Some(sender);
        Ok(response)
    }

    /// Sends a request whose answer's body says nothing: its status.
    pub async fn post(
        &mut self,
        path: &str,
        headers: &[(header::HeaderName, String)],
        payload: Payload,
    ) -> Result<StatusCode, ClientError> {
        let is_streamed = matches!(payload, Payload::Streamed { .. });
        let answer = async {
            let response = self.send("POST", path, headers, payload).await?;
            let status = response.status();
            // Read to its end, so that the connection can be used again.
            let _ = whole(response, usize::MAX).await;
            Ok(status)
        };
        // A stream takes as long as the lambda writes.
        if is_streamed {
            answer.await
        } else {
            time::timeout(ANSWER, answer).await.unwrap_or(Err(ClientError::Silent))
        }
    }

    async fn connected(&mut self) -> Result<SendRequest<Payload>, ClientError> {
        if let Some(mut sender) = self.sender.take()
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        let stream = time::timeout(CONNECT, TcpStream::connect(&self.endpoint.authority)).await;
        let stream =
            stream.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(ClientError::Connect)?;
        let _ = stream.set_nodelay(true);
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tasks::spawn(async move {
            // Whoever sends hears of its end.
            let _ = connection.await;
        });
        Ok(sender)
    }
}

/// As [`whole`], where the body must have come within the time that the API has for anything.
pub async fn whole_in_time(response: Response<Incoming>, limit: usize) -> Result<Option<Bytes>, ClientError> {
    match time::timeout(ANSWER, whole(response, limit)).await {
        Ok(whole) => Ok(whole?),
        Err(_) => Err(ClientError::Silent),
    }
}

/// All of an answer's body. `Ok(None)`: it is larger than `limit`.
async fn whole(response: Response<Incoming>, limit: usize) -> Result<Option<Bytes>, hyper::Error> {
    let mut body = response.into_body();
    let mut whole = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(piece) = frame?.into_data() else { continue };
        if piece.len() > limit - whole.len() {
            return Ok(None);
        }
        whole.extend_from_slice(&piece);
    }
    Ok(Some(whole.freeze()))
}
