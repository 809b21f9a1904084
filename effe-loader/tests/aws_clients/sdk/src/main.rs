//! Calls a function through aws-sdk-lambda. Arguments: the endpoint, a function's name, and the endpoint of an effe
//! that runs one request at a time.

use std::env;

use aws_sdk_lambda::{
    Client, Config,
    config::{Credentials, Region, retry::RetryConfig},
    error::{ProvideErrorMetadata, SdkError},
    operation::invoke::{InvokeError, InvokeOutput},
    primitives::Blob,
    types::{
        InvocationType, InvokeWithResponseStreamCompleteEvent, InvokeWithResponseStreamResponseEvent, LogType,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

type Invoked = Result<InvokeOutput, SdkError<InvokeError>>;

fn client(endpoint: &str) -> Client {
    let config = Config::builder()
        .behavior_version_latest()
        .endpoint_url(endpoint)
        .region(Region::new("eu-west-1"))
        .credentials_provider(Credentials::new("any", "any", None, None, "given"))
        .retry_config(RetryConfig::disabled())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    Client::from_conf(config)
}

fn blob(value: &Value) -> Blob {
    Blob::new(value.to_string())
}

/// What an invocation has come to, as JSON.
fn payload(answer: &InvokeOutput) -> Value {
    serde_json::from_slice(answer.payload().expect("there is a payload").as_ref()).expect("it is JSON")
}

fn text(base64: &str) -> String {
    String::from_utf8(STANDARD.decode(base64).expect("it is base64")).expect("it is text")
}

fn assert_refused(answer: Invoked, kind: &str, status: u16) {
    let err = answer.expect_err(kind);
    let got = err.raw_response().map(|response| response.status().as_u16());
    assert_eq!((err.code(), got), (Some(kind), Some(status)), "{err:?}");
}

/// The pieces of a streamed result, and what its last event says.
async fn streamed(
    client: &Client,
    name: &str,
    event: &Value,
    tail: bool,
) -> (String, InvokeWithResponseStreamCompleteEvent) {
    let call = client.invoke_with_response_stream().function_name(name).payload(blob(event));
    let call = if tail { call.log_type(LogType::Tail) } else { call };
    let mut stream = call.send().await.expect("it begins").event_stream;
    let (mut said, mut end) = (Vec::new(), None);
    while let Some(event) = stream.recv().await.expect("it goes on") {
        match event {
            InvokeWithResponseStreamResponseEvent::PayloadChunk(piece) => {
                said.extend_from_slice(piece.payload().map(AsRef::as_ref).unwrap_or_default());
            }
            InvokeWithResponseStreamResponseEvent::InvokeComplete(complete) => end = Some(complete),
            other => panic!("{other:?}"),
        }
    }
    (String::from_utf8(said).expect("it is text"), end.expect("it ends"))
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [endpoint, name, narrow] = arguments.as_slice() else { panic!("ENDPOINT NAME NARROW") };
    let client = client(endpoint);
    let invoke = |event: Value| client.invoke().function_name(name).payload(blob(&event));

    let answer = invoke(json!({"a": [1, "ü"]})).send().await.unwrap();
    assert_eq!((answer.status_code(), answer.function_error(), payload(&answer)), (200, None, json!({"a": [1, "ü"]})));
    assert_eq!(payload(&client.invoke().function_name(name).send().await.unwrap()), json!({}));

    let arn = format!("arn:aws:lambda:eu-west-1:123456789012:function:{name}");
    for known in [arn.clone(), format!("{arn}:$LATEST"), format!("{name}:0.1.0")] {
        assert_eq!(payload(&invoke(json!(1)).function_name(known).send().await.unwrap()), json!(1));
    }
    let answer = invoke(json!(1)).qualifier("0.1.0").send().await.unwrap();
    assert_eq!(answer.executed_version(), Some("0.1.0"));
    for unknown in ["another".to_owned(), format!("{name}:7")] {
        let answer = invoke(json!(1)).function_name(unknown).send().await;
        assert!(answer.as_ref().is_err_and(|err| {
            err.as_service_error().is_some_and(InvokeError::is_resource_not_found_exception)
        }));
        assert_refused(answer, "ResourceNotFoundException", 404);
    }

    let context = json!({"custom": {"a": "b"}}).to_string();
    let answer = invoke(json!({"do": "facts"})).client_context(STANDARD.encode(&context)).send().await.unwrap();
    assert_eq!(payload(&answer)["invocation"]["client"], context);

    for (what, kind) in [("fail", "Effe.LambdaFailed"), ("panic", "Effe.LambdaPanicked"), ("type", "OrderError")] {
        let answer = invoke(json!({"do": what})).send().await.unwrap();
        assert_eq!((answer.status_code(), answer.function_error()), (200, Some("Unhandled")));
        assert_eq!(payload(&answer)["errorType"], kind);
    }
    let event = json!({"do": "log", "say": "me"});
    let answer = invoke(event.clone()).log_type(LogType::Tail).send().await.unwrap();
    let log = text(answer.log_result().unwrap());
    assert!(log.contains("a line for") && log.contains("REPORT RequestId"), "{log}");
    let answer = invoke(json!(1)).invocation_type(InvocationType::DryRun).send().await.unwrap();
    assert_eq!(answer.status_code(), 204);
    let answer = invoke(json!(1)).invocation_type(InvocationType::Event).send().await.unwrap();
    assert_eq!(answer.status_code(), 202);

    let answer = client.invoke().function_name(name).payload(Blob::new("{")).send().await;
    assert_refused(answer, "InvalidRequestContentException", 400);
    let answer = invoke(json!("x".repeat(6 << 20))).send().await;
    assert_refused(answer, "RequestTooLargeException", 413);

    let request = json!({
        "version": "2.0", "rawPath": "/echo", "rawQueryString": "", "headers": {},
        "requestContext": {"http": {"method": "POST"}}, "body": "hi", "isBase64Encoded": false,
    });
    let answer = payload(&invoke(request).send().await.unwrap());
    assert_eq!((&answer["statusCode"], &answer["body"]), (&json!(200), &json!("hi")));

    let (said, end) = streamed(&client, name, &json!({"do": "stream"}), false).await;
    assert_eq!((said.as_str(), end.error_code()), ("one,two,three", None));
    let (said, end) = streamed(&client, name, &json!({"do": "break"}), false).await;
    assert_eq!((said.as_str(), end.error_code()), ("one,", Some("Effe.AnswerBrokenOff")));
    let (_, end) = streamed(&client, name, &event, true).await;
    assert!(text(end.log_result().unwrap()).contains("a line for"));

    let calls = (0..100).map(|n| tokio::spawn(invoke(json!({"do": "sleep", "ms": 50, "n": n})).send()));
    for (n, call) in calls.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(payload(&call.await.unwrap().unwrap())["n"], n);
    }

    let full = self::client(narrow);
    let event = full.invoke().function_name(name).invocation_type(InvocationType::Event);
    event.payload(blob(&json!({"do": "sleep", "ms": 5000}))).send().await.unwrap();
    let refused = loop {
        let answer = full.invoke().function_name(name).payload(blob(&json!(1))).send().await;
        if answer.is_err() {
            break answer;
        }
    };
    assert_refused(refused, "TooManyRequestsException", 429);
    println!("called");
}
