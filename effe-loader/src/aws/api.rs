//! What AWS's own clients call: Lambda's Invoke and InvokeWithResponseStream, on a listener and a thread of its own.
//! Signatures are taken as they are and not checked; with a token file, the access key must be the token.

mod event_stream;
mod events;
mod invocations;
mod name;
mod reply;
mod route;
mod streamed;

use std::{
    io,
    rc::Rc,
    sync::{Arc, mpsc},
    thread,
    time::Instant,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Value, value::RawValue};

use self::{
    events::{Events, Shared},
    invocations::{Context, Failed, Invocations, RunLog},
    reply::{ApiError, json_response, set},
    route::Route,
    streamed::stream,
};
use super::{failure::FunctionError, invoker::Invoker, wanted::Api};
use crate::{
    body::{
        incoming::Incoming,
        upload::{Refused, Upload},
    },
    effe::{Effe, monitor::Monitor},
    error::Error,
    handler::access_log::Wanted,
    http::{
        private::{Room, serve},
        response::Response,
        service::{Answered, Guarded, IncomingRequest, Service},
        validate,
    },
    journal::{Journal, Severity},
    message::{fields::Fields, invocation::Invocation, request::RequestHead},
    net::{
        private_listener::{AsyncSocket, CLIENT_TIMEOUTS, Listener},
        socket_file::SocketFile,
        token::Token,
    },
    rt::tasks,
};

/// Bytes of a payload, and of a result (Lambda's quotas).
const MAX_PAYLOAD: usize = 6 << 20;
/// Bytes of an event that nobody waits for.
const MAX_EVENT: usize = 1 << 20;
const MAX_CONNECTIONS: usize = 8192;

/// A listener for AWS's clients, bound.
pub struct BoundApi {
    listener: Listener,
    api: Api,
}

/// The same, while its thread answers.
pub struct RunningApi {
    shared: Arc<Shared>,
    _file: Option<SocketFile>,
}

impl Api {
    /// Fails if the address is taken, or not ours.
    pub fn bind(&self) -> Result<BoundApi, Error> {
        Ok(BoundApi { listener: Listener::bind("--aws-api", &self.place)?, api: self.clone() })
    }
}

impl BoundApi {
    /// Answers on a thread of its own, for as long as the process lives.
    pub fn start(self, effe: Arc<Effe>, monitor: Arc<Monitor>, wanted: &Wanted) -> Result<RunningApi, Error> {
        let system = |source| Error::System { what: "start the listener for AWS's clients".into(), source };
        let (shared, journal) = (Shared::new(Arc::clone(&effe.events)), effe.journal.clone());
        let Listener { address, socket, file } = self.listener;
        let (begun, begins) = mpsc::channel();
        let (of_thread, wanted, api) = (Arc::clone(&shared), wanted.clone(), self.api);
        thread::Builder::new()
            .name("effe-aws".to_owned())
            .spawn(move || {
                let outcome = tasks::run(async {
                    let listening = AsyncSocket::open(socket)?;
                    let _ = begun.send(Ok(()));
                    let service = Endpoint::new(effe, monitor, &wanted, api, of_thread);
                    serve(listening, Rc::new(Rc::new(service)), Room::of(MAX_CONNECTIONS)).await;
                    Ok(())
                });
                let _ = begun.send(outcome.and_then(|served| served));
            })
            .map_err(system)?;
        begins.recv().unwrap_or_else(|_| Err(io::Error::other("its thread has panicked"))).map_err(system)?;
        let text = format!("AWS's clients are listened to on {address}");
        journal.report(Severity::Info, text, [("address", address.to_string())]);
        Ok(RunningApi { shared, _file: file })
    }
}

impl RunningApi {
    /// Waits until the events that nobody waits for have run, at most until the deadline; how many have not.
    pub fn drain(&self, deadline: Instant) -> usize {
        self.shared.drain(deadline)
    }
}

/// What answers every request.
struct Endpoint {
    invocations: Rc<Invocations>,
    events: Rc<Events>,
    token: Option<Token>,
}

impl Service for Rc<Endpoint> {
    fn call(&self, request: IncomingRequest) -> Answered {
        let endpoint = Rc::clone(self);
        Answered::Later(Guarded(Box::pin(async move { endpoint.respond(request).await })))
    }
}

impl Endpoint {
    fn new(
        effe: Arc<Effe>,
        monitor: Arc<Monitor>,
        wanted: &Wanted,
        api: Api,
        shared: Arc<Shared>,
    ) -> Endpoint {
        let journal: Journal = effe.journal.clone();
        let invoker = Invoker::new(Arc::clone(&effe), monitor, CLIENT_TIMEOUTS, wanted);
        let invocations = Rc::new(Invocations::new(invoker, effe));
        let events = Rc::new(Events::new(shared, api.retry_delay, journal));
        Endpoint { invocations, events, token: api.token }
    }

    async fn respond(&self, request: IncomingRequest) -> Response {
        // The guard is held until the request is answered.
        let IncomingRequest { request, n_head, incoming, guard: _guard } = request;
        let id = self.invocations.new_id();
        let answer = match validate::check(&request, n_head) {
            Ok(()) => self.answer(&request, incoming, &id).await,
            Err(_) => Err(ApiError::new(400, "InvalidRequestException", "the request breaks a rule of HTTP")),
        };
        let mut response = answer.unwrap_or_else(|err| err.response());
        set(&mut response, "x-amzn-requestid", &id);
        response
    }

    async fn answer(&self, head: &RequestHead, incoming: Incoming, id: &str) -> Result<Response, ApiError> {
        self.admit(&head.fields)?;
        let route = Route::of(head)?;
        let version = self.invocations.check(&route)?;
        let invocation_type = head.fields.text("x-amz-invocation-type").unwrap_or("RequestResponse");
        let tails = match head.fields.text("x-amz-log-type") {
            None | Some("None") => false,
            Some("Tail") => true,
            Some(other) => return Err(ApiError::parameter(format!("{other:?} is no log type"))),
        };
        let limit = match invocation_type {
            "RequestResponse" => MAX_PAYLOAD,
            "DryRun" => return Ok(json_response(204, Bytes::new())),
            "Event" if !route.is_streamed => MAX_EVENT,
            other => return Err(ApiError::parameter(format!("{other:?} is no invocation type here"))),
        };
        let event = read(incoming, head, limit, invocation_type).await?;
        let context = Context {
            arn: route.arn(),
            client: client_context(&head.fields)?,
            trace: head.fields.text("x-amzn-trace-id").map(str::to_owned),
        };
        if invocation_type == "Event" {
            self.events.take(&self.invocations, id.to_owned(), event, context)?;
            return Ok(json_response(202, Bytes::new()));
        }
        let log = tails.then(|| RunLog::begin(id, &version));
        let invocation = self.invocations.invocation(id, event, context);
        let mut response = if route.is_streamed {
            stream(&self.invocations, &invocation, log).await?
        } else {
            self.invoke(&invocation, log).await?
        };
        set(&mut response, "x-amz-executed-version", &version);
        Ok(response)
    }

    async fn invoke(&self, invocation: &Arc<Invocation>, log: Option<RunLog>) -> Result<Response, ApiError> {
        let (result, failed) = match self.invocations.run(invocation).await {
            Ok(result) if result.len() > MAX_PAYLOAD => {
                let text = format!(
                    "Response payload size exceeded maximum allowed payload size ({MAX_PAYLOAD} bytes)."
                );
                (FunctionError::new("Function.ResponseSizeTooLarge", text).to_json(), true)
            }
            Ok(result) => (result, false),
            Err(Failed::Busy) => return Err(ApiError::busy()),
            Err(Failed::Error(err)) => (err.to_json(), true),
        };
        let mut response = json_response(200, result.into());
        if failed {
            set(&mut response, "x-amz-function-error", "Unhandled");
        }
        if let Some(log) = log {
            set(&mut response, "x-amz-log-result", &log.end());
        }
        Ok(response)
    }

    /// A browser names the origin of the page that posts: such a page is no client. With a token, the access key that a
    /// request is signed with is the token; so may be what follows `Bearer`.
    fn admit(&self, fields: &Fields) -> Result<(), ApiError> {
        let denied = |text| ApiError::new(403, "AccessDeniedException", text);
        if fields.has("origin") {
            return Err(denied("requests from pages are refused"));
        }
        let Some(token) = &self.token else { return Ok(()) };
        let shown = fields.text("authorization").and_then(|value| {
            value.strip_prefix("Bearer ").or_else(|| value.split_once("Credential=")?.1.split('/').next())
        });
        match shown {
            Some(shown) if token.is(shown.as_bytes()) => Ok(()),
            _ => Err(denied("the access key id must be the token of --aws-token-file")),
        }
    }
}

/// The payload, which is JSON; `{}` where there is none.
async fn read(incoming: Incoming, head: &RequestHead, limit: usize, kind: &str) -> Result<Bytes, ApiError> {
    let too_large = || {
        let n_bytes = head.length().unwrap_or(limit as u64 + 1);
        ApiError::too_large(n_bytes, limit, kind)
    };
    let refused = |refused| match refused {
        Refused::TooLarge => too_large(),
        Refused::Slow => ApiError::new(408, "RequestTimeoutException", "the payload takes too long"),
        Refused::Malformed => ApiError::content("the payload broke off"),
        Refused::NoRoom => ApiError::busy(),
    };
    let payload = Upload::read(incoming, head, limit, CLIENT_TIMEOUTS.read).await.map_err(refused)?;
    if payload.is_empty() {
        return Ok(Bytes::from_static(b"{}"));
    }
    let json: Result<&RawValue, _> = serde_json::from_slice(&payload);
    json.map_err(|err| ApiError::content(format!("Could not parse request body into json: {err}")))?;
    Ok(payload)
}

fn client_context(fields: &Fields) -> Result<Option<String>, ApiError> {
    let Some(encoded) = fields.text("x-amz-client-context") else { return Ok(None) };
    let decoded = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let is_object = |text: &String| serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object());
    let bad = || ApiError::content("Client context must be a valid Base64-encoded JSON object.");
    decoded.filter(is_object).ok_or_else(bad).map(Some)
}
