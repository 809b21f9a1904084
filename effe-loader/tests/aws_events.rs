//! Events of every shape, through a mock of Lambda's Runtime API to real lambdas and back.

use serde_json::{Value, json};

use crate::support::{
    plugins::{example, handled, invoked, probe},
    runtime_api::RuntimeApi,
};

fn gateway1(method: &str, path: &str, body: &str) -> Value {
    json!({
        "resource": "/{proxy+}", "path": path, "httpMethod": method,
        "headers": {"Host": "api.example"}, "multiValueHeaders": {"Host": ["api.example"]},
        "queryStringParameters": null, "multiValueQueryStringParameters": null,
        "requestContext": {"stage": "prod", "identity": {"sourceIp": "192.0.2.1"}},
        "body": body, "isBase64Encoded": false
    })
}

/// The event of a Function URL.
pub fn gateway2(method: &str, path: &str, query: &str, body: &str) -> Value {
    json!({
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": query,
        "cookies": ["a=1"], "headers": {"host": "id.lambda-url.eu-west-1.on.aws", "x-forwarded-proto": "https"},
        "requestContext": {"stage": "$default", "domainName": "id.lambda-url.eu-west-1.on.aws",
                           "http": {"method": method, "path": path, "sourceIp": "192.0.2.1"}},
        "body": body, "isBase64Encoded": true
    })
}

fn balancer(path: &str, query: &Value, is_multi: bool) -> Value {
    let names = if is_multi {
        ["multiValueHeaders", "multiValueQueryStringParameters"]
    } else {
        ["headers", "queryStringParameters"]
    };
    let headers = if is_multi { json!({"host": ["lb"]}) } else { json!({"host": "lb"}) };
    json!({
        "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/a/b"}},
        "httpMethod": "GET", "path": path, names[0]: headers, names[1]: query, "body": "", "isBase64Encoded": false
    })
}

#[test]
fn http_events_are_requests_and_are_answered_in_their_own_shape() {
    let api = RuntimeApi::start();
    let server = api.loader(&probe()).start();
    let answer = api.call(&gateway1("POST", "/body", "hello")).json();
    assert_eq!((&answer["statusCode"], &answer["body"]), (&json!(200), &json!("hello")));
    assert!(answer["multiValueHeaders"].is_object(), "{answer}");
    // aGkA/w== is `hi`, a zero and 0xff.
    let answer = api.call(&gateway2("PUT", "/body", "", "aGkA/w==")).json();
    assert_eq!((&answer["body"], &answer["isBase64Encoded"]), (&json!("aGkA/w=="), &json!(true)));
    let answer = api.call(&gateway2("GET", "/scheme", "", "")).json();
    assert_eq!((&answer["body"], &answer["cookies"]), (&json!("https"), &json!([])));
    let answer = api.call(&gateway2("GET", "/authority", "", "")).json();
    assert_eq!(answer["body"], "id.lambda-url.eu-west-1.on.aws");
    for is_multi in [false, true] {
        let answer = api.call(&balancer("/authority", &json!({}), is_multi)).json();
        assert_eq!((&answer["statusDescription"], &answer["body"]), (&json!("200 OK"), &json!("lb")));
        assert_eq!(answer.get("multiValueHeaders").is_some(), is_multi, "{answer}");
    }
    // What HTTP has no request for is answered by the loader, as over a connection.
    let answer = api.call(&gateway2("CONNECT", "/body", "", "")).json();
    assert_eq!(answer["statusCode"], 501);
    server.stop();
}

#[test]
fn other_events_are_posted_and_the_body_of_the_answer_is_the_result() {
    let api = RuntimeApi::start();
    let server = api.loader(&invoked()).start();
    for event in [
        json!({"Records": [{"messageId": "1", "eventSource": "aws:sqs", "body": "a"}]}),
        json!({"Records": [{"s3": {"object": {"key": "a%2Fb"}}}]}),
        json!({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}),
        json!([1, "two", null]),
        json!("text"),
        json!(5),
        json!(null),
    ] {
        let posted = api.call(&event);
        assert_eq!((posted.json(), posted.error_type()), (event, None));
    }
    server.stop();

    let api = RuntimeApi::start();
    let server = api.loader(&example("json")).start();
    let order = json!({"name": "Ada", "count": 41, "tags": ["a"]});
    assert_eq!(api.call(&order).json(), json!({"greeting": "Hello, Ada", "count": 42, "tags": 1}));
    server.stop();
    let api = RuntimeApi::start();
    let server = api.loader(&example("hello")).start();
    assert!(api.call(&json!({})).body.starts_with(b"Hello from Effe:  "));
    server.stop();
}

#[test]
fn handlers_for_aws_s_own_crates_are_lambdas_as_they_stand() {
    let api = RuntimeApi::start();
    let server = api.loader(&example("http_event")).start();
    let mut event = gateway1("GET", "/orders/pen", "");
    event["pathParameters"] = json!({"item": "pen"});
    event["requestContext"]["httpMethod"] = "GET".into();
    event["requestContext"]["authorizer"] = json!({"user": "ada"});
    let answer = api.call(&event).json();
    assert_eq!(answer["multiValueHeaders"]["content-type"], json!(["application/json"]), "{answer}");
    let body = |answer: &Value| serde_json::from_str::<Value>(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!((&answer["statusCode"], body(&answer)), (&json!(200), json!({"item": "pen", "who": "ada"})));
    let mut event = gateway2("POST", "/orders", "", "");
    event["headers"]["content-type"] = "application/json".into();
    (event["body"], event["isBase64Encoded"]) = ("{\"item\": \"pen\", \"count\": 2}".into(), false.into());
    let id = api.invoke(event.to_string());
    let answer = api.result(&id).json();
    assert_eq!((&answer["statusCode"], &body(&answer)["id"]), (&json!(201), &json!(id)), "{answer}");
    let answer = api.call(&balancer("/orders", &json!({"item": "pen"}), false)).json();
    assert_eq!(
        (&answer["statusDescription"], body(&answer)),
        (&json!("200 OK"), json!({"item": "pen", "who": null}))
    );
    assert_eq!(api.call(&json!({"Records": []})).error_type(), Some("Effe.EventMisfit"));
    server.stop();

    let api = RuntimeApi::start();
    let named = ("AWS_LAMBDA_FUNCTION_NAME", "f");
    let server = api.loader(&handled()).env(named.0, named.1).start();
    let id = api.invoke("{\"a\": 1}");
    let said = api.result(&id).json();
    assert_eq!(said["payload"], json!({"a": 1}));
    let context = &said["context"];
    assert_eq!((&context["request_id"], &context["env_config"]["function_name"]), (&json!(id), &json!("f")));
    assert_eq!(context["invoked_function_arn"], "arn:aws:lambda:eu-west-1:123456789012:function:f");
    assert_eq!(context["xray_trace_id"], "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700");
    assert!(
        context["deadline"].as_u64().unwrap() > 1_700_000_000_000 && context["client_context"].is_object()
    );
    let failed = api.call(&json!({"do": "fail"}));
    assert!(failed.error_type().unwrap().contains("Error"), "{failed:?}");
    assert_eq!(failed.json()["errorMessage"], "no such order");
    server.stop();

    let api = RuntimeApi::start();
    let server = api.loader(&example("sqs_batch")).start();
    let order = json!({"messageId": "1", "body": "{\"item\": \"pen\", \"count\": 1}"});
    let batch = json!({"Records": [order, {"messageId": "2", "body": "none"}]});
    assert_eq!(api.call(&batch).json(), json!({"batchItemFailures": [{"itemIdentifier": "2"}]}));
    server.stop();
}

#[test]
fn a_lambda_knows_its_invocation() {
    let api = RuntimeApi::start();
    let server = api.loader(&invoked()).start();
    let event = json!({"do": "facts"});
    let id = api.invoke(event.to_string());
    let facts = api.result(&id).json();
    let trace = "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700";
    assert_eq!((&facts["id"], &facts["trace_header"]), (&json!(id), &json!(trace)));
    let invocation = &facts["invocation"];
    assert_eq!((&invocation["request_id"], &invocation["trace"]), (&json!(id), &json!(trace)));
    assert_eq!(invocation["arn"], "arn:aws:lambda:eu-west-1:123456789012:function:f");
    assert_eq!((&invocation["client"], &invocation["identity"]), (&json!("{\"custom\":{}}"), &json!(null)));
    assert_eq!(invocation["event"], event.to_string());
    let left = facts["left"].as_u64().unwrap();
    assert!((1..=30_000).contains(&left), "the deadline is the invocation's: {left} ms");
    assert!(invocation["deadline"].as_u64().is_some());
    // An HTTP event's too, as it came.
    let event = gateway2("GET", "/facts", "a=b", "");
    let answer = api.call(&event).json();
    let facts: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!(facts["target"], "/facts?a=b");
    let seen: Value = serde_json::from_str(facts["invocation"]["event"].as_str().unwrap()).unwrap();
    assert_eq!(seen, event);
    server.stop();
}

#[test]
fn failures_are_function_errors_with_a_type_and_without_what_the_author_logged() {
    let api = RuntimeApi::start();
    let server = api.loader(&invoked()).start();
    for (told, kind, message) in [
        ("fail", "Effe.LambdaFailed", "the lambda failed"),
        ("panic", "Effe.LambdaPanicked", "the lambda panicked"),
        ("refuse", "Effe.Status422", "no such order"),
        ("type", "OrderError", "no such order"),
        ("break", "Effe.AnswerBrokenOff", "the lambda's answer broke off"),
    ] {
        let posted = api.call(&json!({"do": told}));
        assert_eq!(posted.error_type(), Some(kind), "{told}");
        let error = posted.json();
        assert_eq!((&error["errorType"], &error["errorMessage"]), (&json!(kind), &json!(message)), "{told}");
    }
    // In an HTTP shape what the lambda answers is an answer, and what it doesn't is an error there too.
    let answer = api.call(&gateway2("GET", "/refuse", "", "")).json();
    assert_eq!((&answer["statusCode"], &answer["body"]), (&json!(422), &json!("no such order")));
    assert_eq!(api.call(&gateway2("GET", "/panic", "", "")).error_type(), Some("Effe.LambdaPanicked"));
    let lines = server.stop();
    assert!(lines.iter().any(|line| line.contains("a secret of the author's")), "the log has it: {lines:?}");
}

#[test]
fn answers_are_streamed_where_the_function_is_to() {
    let api = RuntimeApi::start();
    let server = api.loader(&invoked()).arg("--aws-stream").start();
    let posted = api.call(&gateway2("GET", "/stream", "", ""));
    assert_eq!(posted.header("lambda-runtime-function-response-mode"), Some("streaming"));
    assert_eq!(posted.header("content-type"), Some("application/vnd.awslambda.http-integration-response"));
    let end = posted.body.iter().position(|byte| *byte == 0).unwrap();
    let head: Value = serde_json::from_slice(&posted.body[..end]).unwrap();
    assert_eq!((&head["statusCode"], &head["cookies"]), (&json!(200), &json!(["a=1"])));
    assert_eq!(&posted.body[end..], b"\0\0\0\0\0\0\0\0one,two,three");
    let posted = api.call(&json!({"do": "stream"}));
    assert_eq!((&*posted.body, posted.header("transfer-encoding")), (&b"one,two,three"[..], Some("chunked")));
    // The trailers say that it is not whole.
    let posted = api.call(&json!({"do": "break"}));
    assert_eq!(&*posted.body, b"one,");
    assert_eq!(posted.header("lambda-runtime-function-error-type"), Some("Effe.AnswerBrokenOff"));
    assert_eq!(api.call(&json!({"do": "panic"})).error_type(), Some("Effe.LambdaPanicked"));
    server.stop();
}
