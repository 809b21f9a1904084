//! A handler that was written for `lambda_runtime`: what it is told, and what the caller of the function is told.

use effe_abi::testing::{Answer, Call, Effe};
use lambda_runtime::{Diagnostic, LambdaEvent};
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Deserialize)]
struct Order {
    item: String,
}

#[derive(Serialize)]
struct Receipt {
    item: String,
    id: String,
    is_soon: bool,
}

#[derive(Debug)]
struct SoldOut(String);

impl From<SoldOut> for Diagnostic {
    fn from(sold_out: SoldOut) -> Diagnostic {
        Diagnostic { error_type: "SoldOut".to_owned(), error_message: format!("no {} is left", sold_out.0) }
    }
}

async fn handler(event: LambdaEvent<Order>) -> Result<Receipt, SoldOut> {
    let (order, context) = event.into_parts();
    if order.item == "gold" {
        return Err(SoldOut(order.item));
    }
    let left = context.deadline().duration_since(std::time::SystemTime::now()).unwrap_or_default();
    Ok(Receipt { item: order.item, id: context.request_id, is_soon: left.as_secs() < 10 })
}

effe_abi::export!(lambda_runtime handler);

fn call(body: &str, change: impl Fn(Call) -> Call) -> Answer {
    Effe::of(&LAMBDA).call(change(Call::post("/events").body(body)))
}

#[test]
fn events_and_bodies_are_payloads_and_the_context_is_that_of_the_request() {
    let pen = "{\"item\": \"pen\"}";
    let with_id = |call: Call| call.header("x-request-id", "7");
    assert_eq!(call(pen, with_id).json(), json!({"item": "pen", "id": "7", "is_soon": false}));
    let invoked = |call: Call| call.event(pen).deadline(std::time::Duration::from_secs(5));
    assert_eq!(call(pen, invoked).json(), json!({"item": "pen", "id": "test", "is_soon": true}));
}

#[test]
fn the_caller_of_a_function_is_told_the_type_of_an_error_and_a_client_a_sentence() {
    let gold = "{\"item\": \"gold\"}";
    let answer = call(gold, |call| call.event(gold));
    let expected = json!({"errorType": "SoldOut", "errorMessage": "no gold is left"});
    assert_eq!((answer.status, answer.json()), (500, expected));
    let answer = call(gold, |call| call);
    assert_eq!((answer.status, answer.text().as_str()), (500, "the lambda failed\n"));
    assert!(answer.failure.unwrap().contains("no gold is left"));
    let answer = call("[]", |call| call.event("[]"));
    assert_eq!((answer.status, &answer.json()["errorType"]), (400, &json!("Effe.EventMisfit")));
}
