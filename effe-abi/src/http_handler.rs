//! A handler that was written for the crate `lambda_http`, as a lambda. Needs the feature `lambda_http`.
//!
//! ```
//! use lambda_http::{Error, IntoResponse, Request, RequestExt};
//!
//! async fn handler(request: Request) -> Result<impl IntoResponse, Error> {
//!     let parameters = request.query_string_parameters();
//!     Ok(format!("Hello, {}\n", parameters.first("name").unwrap_or("stranger")))
//! }
//!
//! effe_abi::export!(lambda_http handler);
//!
//! # fn main() {
//! # use effe_abi::testing::Effe;
//! assert_eq!(Effe::of(&LAMBDA).get("/?name=Ada").text(), "Hello, Ada\n");
//! # }
//! ```
//!
//! As a function of AWS Lambda's it gets what `lambda_http` itself makes of an event. A request that came over HTTP is
//! given the same extensions, with the context of a Function URL.

use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    time::{SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use lambda_http::{
    Body, IntoResponse, RequestExt,
    aws_lambda_events::{apigw::ApiGatewayV2httpRequestContext, query_map::QueryMap},
    request::{RequestContext, from_str},
};
use lambda_runtime::Diagnostic;
use serde_json::{Map, Value, json};

use crate::{
    async_entries::async_table,
    async_lambda::AsyncLambda,
    async_response::AsyncResponse,
    error::{Error, Result},
    event_handler::{MISFIT, fail},
    function::{assert_captures_nothing, function},
    lambda::{Options, StartError, Started},
    params::Params,
    raw::Plugin,
    request::Request,
    runtime_handler::{context, diagnose},
};

const TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");
/// Stage and route of a Function URL.
const DEFAULT: &str = "$default";

/// The table of the lambda for `handler`.
pub const fn http_table<F, Fut, R, E>(handler: F, info: &'static str, build: &'static str) -> Plugin
where
    F: Fn(lambda_http::Request) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = Result<R, E>> + Send + 'static,
    R: IntoResponse + Send + 'static,
    E: Into<Diagnostic> + fmt::Debug + Send + 'static,
{
    let _ = handler;
    assert_captures_nothing::<F>();
    async_table::<Handler<F>>(info, build)
}

/// A Context, which holds nothing.
struct Handler<F>(PhantomData<fn() -> F>);

impl<F, Fut, R, E> AsyncLambda for Handler<F>
where
    F: Fn(lambda_http::Request) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = Result<R, E>> + Send + 'static,
    R: IntoResponse + Send + 'static,
    E: Into<Diagnostic> + fmt::Debug + Send + 'static,
{
    const OPTIONS: Options = Options::new().keep_cancelled();

    async fn start(_: Params) -> Result<Self, StartError<Self>> {
        Ok(Handler(PhantomData))
    }

    async fn run(handler: Started<'_, Self>, request: &Request, response: &mut AsyncResponse<'_>) -> Result {
        handler?;
        let event = request.invocation().and_then(|invocation| invocation.event());
        // The loader has made no request of such an event: the answer's body will be the result.
        let is_other = event.is_some_and(|event| request.bytes().is_ok_and(|body| body == event.as_bytes()));
        let made = match event.map(from_str) {
            Some(Ok(made)) => made,
            Some(Err(err)) if is_other => {
                response.status(400);
                return fail(request, response, MISFIT, "the event is none of this lambda's\n", err.into());
            }
            // An event that the loader reads and `lambda_http` doesn't: the request is that of the loader.
            Some(Err(_)) | None => of_http(request)?,
        };
        let mut made = made.with_lambda_context(context(request));
        let trace = request.invocation().and_then(|invocation| invocation.trace_id());
        if let Some(trace) = trace.and_then(|trace| HeaderValue::from_str(trace).ok()) {
            made.headers_mut().insert(TRACE_ID, trace);
        }
        let is_gateways = matches!(
            made.request_context_ref(),
            Some(
                RequestContext::ApiGatewayV1(_)
                    | RequestContext::ApiGatewayV2(_)
                    | RequestContext::WebSocket(_)
            )
        );
        let answer = match function::<F>()(made).await {
            Ok(answer) => answer.into_response().await,
            Err(err) if is_other => return diagnose(request, response, err.into()),
            Err(err) => {
                let Diagnostic { error_type, error_message, .. } = err.into();
                return Err(Error::new(format!("{error_type}: {error_message}")));
            }
        };
        if is_other && is_gateways {
            response.json(&folded(answer))?;
            return Ok(());
        }
        response.send_http(answer).await
    }
}

/// The answer as API Gateway takes it for an event that is a request to `lambda_http` alone, such as a WebSocket's.
fn folded(answer: http::Response<Body>) -> Value {
    let (head, body) = answer.into_parts();
    let mut headers = Map::new();
    for name in head.headers.keys() {
        let values: Vec<_> =
            head.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
        headers.insert(name.to_string(), json!(values));
    }
    // To such an event the answer's body is text.
    let body = String::from_utf8_lossy(&body);
    json!({
        "statusCode": head.status.as_u16(),
        "multiValueHeaders": headers,
        "body": body,
        "isBase64Encoded": false,
    })
}

/// A request that came over HTTP, as `lambda_http` would make it of the event of a Function URL.
fn of_http(request: &Request) -> Result<lambda_http::Request> {
    let bytes = request.bytes()?;
    let body = match std::str::from_utf8(bytes) {
        _ if bytes.is_empty() => Body::Empty,
        Ok(text) => Body::from(text),
        Err(_) => Body::from(bytes),
    };
    let mut made = http::Request::new(body);
    request.fill(&mut made, &mut HeaderMap::new())?;
    if let Some(uri) = absolute(request) {
        *made.uri_mut() = uri;
    }
    let query: QueryMap = request.query_string().unwrap_or_default().parse().unwrap_or_default();
    let context = request_context(request, made.method().clone(), made.headers());
    let made = made.with_raw_http_path(request.path()).with_query_string_parameters(query);
    Ok(made.with_request_context(RequestContext::ApiGatewayV2(context)))
}

/// The whole URI; `None` where the client has named no host.
fn absolute(request: &Request) -> Option<Uri> {
    let uri = Uri::builder().scheme(request.scheme()).authority(request.authority()?);
    uri.path_and_query(request.target()).build().ok()
}

fn request_context(
    request: &Request,
    method: http::Method,
    headers: &HeaderMap,
) -> ApiGatewayV2httpRequestContext {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut context = ApiGatewayV2httpRequestContext::default();
    context.route_key = Some(DEFAULT.to_owned());
    context.stage = Some(DEFAULT.to_owned());
    context.request_id = Some(request.id().to_owned());
    context.domain_name = request.authority().map(str::to_owned);
    context.time_epoch = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    context.http.method = method;
    context.http.path = Some(request.path().to_owned());
    context.http.protocol = Some(format!("HTTP/{}.{}", request.version() / 10, request.version() % 10));
    context.http.source_ip = request.peer().map(|peer| peer.ip().to_string());
    let user_agent = headers.get(http::header::USER_AGENT);
    context.http.user_agent = user_agent.and_then(|name| name.to_str().ok()).map(str::to_owned);
    context
}
