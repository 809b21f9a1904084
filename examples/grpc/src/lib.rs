//! A gRPC service as a lambda, with one method of each kind. `words.proto` says what they do; `words.rs` was made of it
//! by tonic-prost-build with `build_transport(false)`, and `words.bin` by `protoc --descriptor_set_out`, so that
//! clients which don't have the file can ask.

#[rustfmt::skip]
#[allow(missing_docs, clippy::all, reason = "what a generator has written")]
pub mod words;

use std::pin::Pin;

use effe_abi::{Params, Result, export};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming, service::Routes};

use self::words::{
    Counted, Text,
    words_server::{Words, WordsServer},
};

async fn app(_: Params) -> Result<Routes> {
    Ok(routes())
}

/// The service, for whichever server it has.
pub fn routes() -> Routes {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(include_bytes!("words.bin"))
        .build_v1()
        .expect("protoc has made it");
    Routes::new(WordsServer::new(Counter)).add_service(reflection)
}

export!(tower app);

struct Counter;

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Words for Counter {
    async fn count(&self, request: Request<Text>) -> Result<Response<Counted>, Status> {
        match n_words(request.get_ref()) {
            0 => Err(Status::invalid_argument("the text has no words")),
            words => Ok(Response::new(Counted { words })),
        }
    }

    type SplitStream = Messages<Text>;

    async fn split(&self, request: Request<Text>) -> Result<Response<Messages<Text>>, Status> {
        let words: Vec<_> = request.get_ref().text.split_whitespace().map(str::to_owned).collect();
        let texts = tokio_stream::iter(words).map(|text| Ok(Text { text }));
        Ok(Response::new(Box::pin(texts)))
    }

    async fn sum(&self, request: Request<Streaming<Text>>) -> Result<Response<Counted>, Status> {
        let (mut texts, mut words) = (request.into_inner(), 0);
        while let Some(text) = texts.message().await? {
            words += n_words(&text);
        }
        Ok(Response::new(Counted { words }))
    }

    type WatchStream = Messages<Counted>;

    async fn watch(&self, request: Request<Streaming<Text>>) -> Result<Response<Messages<Counted>>, Status> {
        let mut so_far = Watch(0);
        let counted = request.into_inner().map(move |text| Ok(so_far.and(n_words(&text?))));
        Ok(Response::new(Box::pin(counted)))
    }
}

fn n_words(text: &Text) -> u64 {
    text.text.split_whitespace().count() as u64
}

/// A call of `watch`. It is dropped when the call is over, also if the client leaves or its deadline passes.
struct Watch(u64);

impl Watch {
    fn and(&mut self, words: u64) -> Counted {
        self.0 += words;
        Counted { words: self.0 }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        log::warn!("a watch is over after {} words", self.0);
    }
}

#[cfg(test)]
mod tests {
    use effe_abi::testing::{Answer, Call, Effe};
    use prost::Message;

    use super::*;

    fn call(method: &str, text: &str) -> Answer {
        let message = Text { text: text.to_owned() }.encode_to_vec();
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let call =
            Call::post(&format!("/words.v1.Words/{method}")).header("content-type", "application/grpc");
        Effe::of(&LAMBDA).call(call.header("te", "trailers").body([&[0], &length[..], &message].concat()))
    }

    #[test]
    fn an_answer_has_its_status_behind_its_messages() {
        let answer = call("Count", "three little words");
        assert_eq!((answer.status, answer.trailer("grpc-status")), (200, Some("0")));
        assert_eq!(Counted::decode(&answer.bytes()[5..]).unwrap().words, 3);
        let answer = call("Split", "one two");
        assert_eq!(answer.trailer("grpc-status"), Some("0"));
        assert_eq!(Text::decode(&answer.bytes()[5..10]).unwrap().text, "one");
    }

    #[test]
    fn clients_can_ask_for_the_methods() {
        // The request to list all services.
        let call = Call::post("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo");
        let call = call.header("content-type", "application/grpc").header("te", "trailers");
        let answer = Effe::of(&LAMBDA).call(call.body([0, 0, 0, 0, 2, 0x3a, 0]));
        assert_eq!(answer.trailer("grpc-status"), Some("0"));
        assert!(String::from_utf8_lossy(&answer.bytes()).contains("words.v1.Words"));
    }

    #[test]
    fn an_answer_without_messages_has_it_in_its_head() {
        let answer = call("Count", "");
        let message = answer.header("grpc-message").map(|message| message.replace("%20", " "));
        assert_eq!(
            (answer.header("grpc-status"), message.as_deref()),
            (Some("3"), Some("the text has no words"))
        );
        assert_eq!(call("Nothing", "").header("grpc-status"), Some("12"));
        assert_eq!((answer.bytes(), answer.trailers), (vec![], vec![]));
    }
}
