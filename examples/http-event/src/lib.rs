//! Orders behind API Gateway, by a handler that was written for the crate `lambda_http`: nothing but the last line
//! knows effe.
//!
//! As a function it serves API Gateway, a Function URL or a load balancer; under a loader on any machine,
//! `curl 'http://127.0.0.1:8080/orders?item=pen'`.

use lambda_http::{Error, IntoResponse, Request, RequestExt, RequestPayloadExt, http::StatusCode};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Order {
    item: String,
    count: u32,
}

async fn handler(request: Request) -> Result<impl IntoResponse, Error> {
    let answer = match request.method().as_str() {
        "POST" => take(&request),
        _ => list(&request),
    };
    Ok(answer.into_response().await)
}

fn list(request: &Request) -> (StatusCode, serde_json::Value) {
    // The route is `/orders/{item}`, or `/orders` with a parameter.
    let (path, query) = (request.path_parameters(), request.query_string_parameters());
    match path.first("item").or_else(|| query.first("item")) {
        Some(item) => (StatusCode::OK, json!({"item": item, "who": who(request)})),
        None => (StatusCode::BAD_REQUEST, json!({"error": "which item?"})),
    }
}

fn take(request: &Request) -> (StatusCode, serde_json::Value) {
    match request.payload::<Order>() {
        Ok(Some(order)) if order.count > 0 => {
            let id = request.lambda_context().request_id;
            (StatusCode::CREATED, json!({"id": id, "item": order.item, "count": order.count}))
        }
        _ => (StatusCode::UNPROCESSABLE_ENTITY, json!({"error": "no order"})),
    }
}

/// Who asks, if an authorizer of API Gateway's has found out.
fn who(request: &Request) -> Option<String> {
    let context = request.request_context();
    context.authorizer()?.fields.get("user")?.as_str().map(str::to_owned)
}

effe_abi::export!(lambda_http handler);

#[cfg(test)]
mod tests {
    use effe_abi::testing::{Call, Effe};
    use serde_json::json;

    use super::LAMBDA;

    #[test]
    fn orders_are_taken_and_listed() {
        let effe = Effe::of(&LAMBDA);
        let order = |body: &str| {
            let call = Call::post("/orders").header("content-type", "application/json");
            effe.call(call.header("x-request-id", "7").body(body))
        };
        let answer = order("{\"item\": \"pen\", \"count\": 2}");
        assert_eq!((answer.status, answer.json()), (201, json!({"id": "7", "item": "pen", "count": 2})));
        for bad in ["", "{}", "{\"item\": \"pen\", \"count\": 0}", "{\"item\": 1}"] {
            assert_eq!(order(bad).status, 422, "{bad}");
        }
        assert_eq!(effe.get("/orders?item=pen").json(), json!({"item": "pen", "who": null}));
        assert_eq!(effe.get("/orders").status, 400);
    }
}
