//! An axum Router as a lambda: state that all Contexts share, extractors, and middleware of tower-http. `GET /` says
//! hello, `POST /words` counts the words of `{"text": "…"}`, `GET /words` returns how many there were so far.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderName, HeaderValue},
    routing::get,
};
use effe_abi::{Params, Result, export};
use serde::{Deserialize, Serialize};
use tower_http::set_header::SetResponseHeaderLayer;

struct Words {
    greeting: &'static str,
    n_words: AtomicUsize,
}

#[derive(Deserialize)]
struct Text {
    text: String,
}

#[derive(Serialize)]
struct Count {
    words: usize,
}

async fn app(params: Params) -> Result<Router> {
    let greeting = params.get("greeting").unwrap_or("Hello from axum");
    let words = Arc::new(Words { greeting, n_words: AtomicUsize::new(0) });
    let stamp = SetResponseHeaderLayer::overriding(
        HeaderName::from_static("x-served-by"),
        HeaderValue::from_str(params.software())?,
    );
    Ok(Router::new()
        .route("/", get(hello))
        .route("/words", get(so_far).post(count))
        .layer(stamp)
        .with_state(words))
}

export!(tower app);

async fn hello(State(words): State<Arc<Words>>) -> String {
    format!("{}\n", words.greeting)
}

async fn so_far(State(words): State<Arc<Words>>) -> Json<Count> {
    Json(Count { words: words.n_words.load(Ordering::Relaxed) })
}

async fn count(State(words): State<Arc<Words>>, Json(text): Json<Text>) -> Json<Count> {
    let n = text.text.split_whitespace().count();
    words.n_words.fetch_add(n, Ordering::Relaxed);
    Json(Count { words: n })
}

#[cfg(test)]
mod tests {
    use effe_abi::testing::{Call, Effe};
    use serde_json::json;

    use super::*;

    #[test]
    fn it_greets_as_the_operator_wishes_through_its_middleware() {
        let answer = Effe::with(&LAMBDA, &[("greeting", "Ciao")]).get("/");
        assert_eq!((answer.status, answer.text().as_str()), (200, "Ciao\n"));
        assert!(answer.header("x-served-by").unwrap().starts_with("effe-abi-testing/"));
    }

    #[test]
    fn it_counts_words_in_a_state_that_all_contexts_share() {
        let effe = Effe::of(&LAMBDA);
        let post =
            |body| effe.call(Call::post("/words").header("content-type", "application/json").body(body));
        assert_eq!(post(r#"{"text": "three little words"}"#).json(), json!({ "words": 3 }));
        assert_eq!(post(r#"{"text": "one"}"#).json(), json!({ "words": 1 }));
        assert_eq!(effe.get("/words").json(), json!({ "words": 4 }));
        assert_eq!(post("{}").status, 422);
        assert_eq!(effe.get("/nowhere").status, 404);
    }
}
