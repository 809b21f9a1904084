//! A handler that was written for `lambda_http`: what it is told of requests and of events, and what becomes of its
//! answers.

use effe_abi::testing::{Call, Effe};
use lambda_http::{
    Body, Error, IntoResponse, Request, RequestExt, RequestPayloadExt, Response, http::StatusCode,
    request::RequestContext,
};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Order {
    count: u32,
}

async fn handler(request: Request) -> Result<impl IntoResponse, Error> {
    match request.uri().path() {
        "/fail" => Err("no such order".into()),
        "/order" => {
            let order = request.payload::<Order>()?.ok_or("nothing is ordered")?;
            Ok((StatusCode::CREATED, json!({"count": order.count})).into_response().await)
        }
        "/echo" => Ok(Response::builder()
            .header("content-type", "application/octet-stream")
            .body(request.into_body())?),
        _ => Ok(facts(&request).into_response().await),
    }
}

effe_abi::export!(lambda_http handler);

fn facts(request: &Request) -> Value {
    let context = request.request_context();
    let (kind, source) = match &context {
        RequestContext::ApiGatewayV2(context) => ("2.0", context.http.source_ip.clone()),
        RequestContext::ApiGatewayV1(context) => ("1.0", context.identity.source_ip.clone()),
        RequestContext::Alb(_) => ("alb", None),
        RequestContext::WebSocket(_) => ("websocket", None),
        _ => ("", None),
    };
    let authorizer = context.authorizer().and_then(|authorizer| authorizer.fields.get("user").cloned());
    json!({
        "kind": kind,
        "source": source,
        "user": authorizer,
        "method": request.method().as_str(),
        "uri": request.uri().to_string(),
        "raw": request.raw_http_path(),
        "many": request.query_string_parameters().all("a"),
        "id": request.path_parameters().first("id"),
        "stage": request.stage_variables().first("level"),
        "request": request.lambda_context().request_id,
        "left": request.lambda_context().deadline > 0,
        "body": match request.body() {
            Body::Empty => "empty",
            Body::Text(_) => "text",
            Body::Binary(_) => "binary",
            _ => "",
        },
    })
}

#[test]
fn a_request_over_http_looks_like_one_to_a_function_url() {
    let effe = Effe::of(&LAMBDA);
    let call = Call::get("/a%20b?a=1&a=%C3%BC").header("host", "effe.example").header("x-request-id", "7");
    let answer = effe.call(call.https());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let expected = json!({
        "kind": "2.0", "source": "127.0.0.1", "user": null, "method": "GET",
        "uri": "https://effe.example/a%20b?a=1&a=%C3%BC", "raw": "/a%20b", "many": ["1", "ü"], "id": null,
        "stage": null, "request": "7", "left": true, "body": "empty",
    });
    assert_eq!(answer.json(), expected);
    // Nobody has to name a host.
    assert_eq!(effe.get("/x").json()["uri"], "/x");
    for (body, kind) in [(&b"text"[..], "text"), (b"\xff\0", "binary")] {
        assert_eq!(effe.call(Call::post("/").body(body)).json()["body"], kind);
        assert_eq!(effe.call(Call::post("/echo").body(body)).bytes(), body);
    }
    let answer =
        effe.call(Call::post("/order").header("content-type", "application/json").body("{\"count\": 2}"));
    assert_eq!((answer.status, answer.json()), (201, json!({"count": 2})));
}

#[test]
fn an_error_goes_to_the_log() {
    let answer = Effe::of(&LAMBDA).get("/fail");
    assert_eq!((answer.status, answer.bytes()), (500, vec![]));
    assert!(answer.failure.unwrap().contains("no such order"));
}

fn rest_event() -> Value {
    json!({
        "resource": "/orders/{id}", "path": "/orders/5", "httpMethod": "GET",
        "headers": {"Host": "api.example"}, "multiValueHeaders": {"Host": ["api.example"]},
        "queryStringParameters": {"a": "2"}, "multiValueQueryStringParameters": {"a": ["1", "2"]},
        "pathParameters": {"id": "5"}, "stageVariables": {"level": "test"},
        "requestContext": {"stage": "prod", "identity": {"sourceIp": "192.0.2.1"}, "httpMethod": "GET",
                           "authorizer": {"user": "ada"}},
        "body": null, "isBase64Encoded": false,
    })
}

#[test]
fn an_event_becomes_the_request_that_lambda_http_makes_of_it() {
    let effe = Effe::of(&LAMBDA);
    let answer = effe.call(Call::get("/orders/5?a=1&a=2").event(&rest_event().to_string())).json();
    assert_eq!((&answer["kind"], &answer["source"]), (&json!("1.0"), &json!("192.0.2.1")), "{answer}");
    assert_eq!((&answer["id"], &answer["stage"]), (&json!("5"), &json!("test")), "{answer}");
    assert_eq!(answer["many"], json!(["1", "2"]));
    // The stage is a part of the path there, unless the environment says otherwise.
    assert_eq!(answer["uri"], "https://api.example/prod/orders/5?a=1&a=2");
    assert_eq!(answer["raw"], "/orders/5");
}

#[test]
fn an_event_that_is_no_request_is_refused_and_that_of_a_websocket_is_answered_in_its_shape() {
    let effe = Effe::of(&LAMBDA);
    let event = |event: &Value| {
        let event = event.to_string();
        effe.call(Call::post("/events").body(&event).event(&event))
    };
    let answer = event(&json!({"Records": []}));
    assert_eq!((answer.status, &answer.json()["errorType"]), (400, &json!("Effe.EventMisfit")));
    let message = json!({
        "requestContext": {"connectionId": "c=", "eventType": "MESSAGE", "routeKey": "$default", "stage": "p",
                           "messageId": "m", "apiId": "x", "identity": {}, "connectedAt": 1, "requestTimeEpoch": 1},
        "body": "hi", "isBase64Encoded": false,
    });
    let answer = event(&message);
    assert_eq!(answer.status, 200);
    let answer = answer.json();
    assert_eq!((&answer["statusCode"], &answer["isBase64Encoded"]), (&json!(200), &json!(false)), "{answer}");
    let facts: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!((&facts["kind"], &facts["body"]), (&json!("websocket"), &json!("text")), "{facts}");
}
