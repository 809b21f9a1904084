//! A batch of messages of SQS, as AWS Lambda gives them to a function. Those that fail are named in the result, so that
//! the queue delivers them again and no others (`ReportBatchItemFailures`).
//!
//! The same plugin answers `curl --data @batch.json http://127.0.0.1:8080/` under a loader on any machine.

use effe_abi::{Result, export};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Batch {
    #[serde(rename = "Records")]
    messages: Vec<Message>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    message_id: String,
    body: String,
}

/// What a message says: how many of a thing are ordered.
#[derive(Deserialize)]
struct Order {
    item: String,
    count: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failures {
    batch_item_failures: Vec<Failure>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failure {
    item_identifier: String,
}

async fn work(batch: Batch) -> Result<Failures> {
    let failed = batch.messages.into_iter().filter(|message| take(&message.body).is_err());
    let failures = failed.map(|message| Failure { item_identifier: message.message_id });
    Ok(Failures { batch_item_failures: failures.collect() })
}

fn take(body: &str) -> Result {
    let order: Order = serde_json::from_str(body)?;
    if order.item.is_empty() || order.count == 0 { Err("nothing is ordered".into()) } else { Ok(()) }
}

export!(event work);

#[cfg(test)]
mod tests {
    use effe_abi::testing::{Call, Effe};

    use super::LAMBDA;

    #[test]
    fn messages_that_fail_are_named() {
        let batch = r#"{"Records": [
            {"messageId": "1", "body": "{\"item\": \"pen\", \"count\": 2}"},
            {"messageId": "2", "body": "{\"item\": \"pen\", \"count\": 0}"},
            {"messageId": "3", "body": "no order"}
        ]}"#;
        let answer = Effe::of(&LAMBDA).call(Call::post("/events").body(batch));
        assert_eq!((answer.status, answer.text().as_str()), (200, EXPECTED));
    }

    const EXPECTED: &str = r#"{"batchItemFailures":[{"itemIdentifier":"2"},{"itemIdentifier":"3"}]}"#;

    #[test]
    fn what_is_no_batch_is_refused() {
        let answer = Effe::of(&LAMBDA).call(Call::post("/events").body("[]"));
        assert_eq!((answer.status, answer.failure.is_some()), (400, true));
    }
}
