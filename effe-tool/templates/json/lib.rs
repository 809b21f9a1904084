//! A lambda that answers a JSON object with another one.

use effe_abi::{Lambda, Params, Request, Response, Result, StartError, Started, export};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Order {
    item: String,
    count: u32,
}

#[derive(Serialize)]
struct Receipt {
    item: String,
    cents: u64,
}

/// The Context: what is costly to make and kept from one request to the next.
struct Shop {
    cents: u64,
}

impl Lambda for Shop {
    /// Makes a Context. The operator gives parameters: `--set cents=250`.
    fn start(params: Params) -> Result<Self, StartError<Self>> {
        Ok(Shop { cents: params.parse("cents")?.unwrap_or(100) })
    }

    /// Answers one request. An error goes to the operator's log, and the client gets 500.
    fn run(shop: Started<Self>, request: &Request, response: &mut Response) -> Result {
        let shop = shop?;
        match request.json::<Order>() {
            Ok(Order { item, count }) => {
                let cents = shop.cents.saturating_mul(count.into());
                response.json(&Receipt { item, cents })?;
            }
            // What the client is told about its mistake is chosen here.
            Err(err) => {
                response.status(400).text(format!("this is no order: {}\n", err.source()));
            }
        }
        Ok(())
    }
}

export!(Shop);

#[cfg(test)]
mod tests {
    use effe_abi::testing::{Call, Effe};

    use super::LAMBDA;

    #[test]
    fn an_order_gets_its_receipt() {
        let effe = Effe::with(&LAMBDA, &[("cents", "250")]);
        let answer = effe.call(Call::post("/").body(r#"{"item":"tea","count":3}"#));
        assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"item":"tea","cents":750}"#));
    }

    #[test]
    fn what_is_no_order_is_the_clients_mistake() {
        let answer = Effe::of(&LAMBDA).call(Call::post("/").body(r#"{"item":"tea"}"#));
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains("missing field `count`"), "{}", answer.text());
    }
}
