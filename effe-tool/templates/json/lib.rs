//! A lambda that takes a JSON object and answers with another one.

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

/// The Context: state that is costly to make. It is kept from one request to the next.
struct Shop {
    cents: u64,
}

impl Lambda for Shop {
    /// Makes a Context. The operator sets parameters by flags such as `--set cents=250`.
    fn start(params: Params) -> Result<Self, StartError<Self>> {
        Ok(Shop { cents: params.parse("cents")?.unwrap_or(100) })
    }

    /// Answers a request. If it returns an error, the error goes to the operator's log and the client gets 500.
    fn run(shop: Started<Self>, request: &Request, response: &mut Response) -> Result {
        let shop = shop?;
        match request.json::<Order>() {
            Ok(Order { item, count }) => {
                let cents = shop.cents.saturating_mul(count.into());
                response.json(&Receipt { item, cents })?;
            }
            // The client made a mistake, so it gets 400 and the reason, rather than 500.
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
