//! What the example `proxy` does, written in actix-web and reqwest, one worker: `control-proxy UPSTREAM PORT`.

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    body::SizedStream,
    error::{ErrorBadGateway, ErrorInternalServerError},
    http::{Method, StatusCode},
    rt, web,
};
use futures_util::{StreamExt, stream};
use reqwest::{Body, Client};

/// Headers that are between two neighbours and no further.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "host",
    "keep-alive",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

struct Upstream {
    client: Client,
    url: String,
}

async fn forward(
    request: HttpRequest,
    body: web::Payload,
    upstream: web::Data<Upstream>,
) -> actix_web::Result<HttpResponse> {
    let method = request.method().as_str().parse().map_err(ErrorInternalServerError)?;
    let mut call = upstream.client.request(method, format!("{}{}", upstream.url, request.uri()));
    for (name, value) in request.headers() {
        if !HOP_BY_HOP.contains(&name.as_str()) {
            call = call.header(name.as_str(), value.as_bytes());
        }
    }
    if request.method() != Method::GET {
        call = call.body(sendable(body));
    }
    let answer = call.send().await.map_err(ErrorBadGateway)?;
    let status = StatusCode::from_u16(answer.status().as_u16()).map_err(ErrorBadGateway)?;
    let mut response = HttpResponse::build(status);
    for (name, value) in answer.headers() {
        if !HOP_BY_HOP.contains(&name.as_str()) && name != "content-length" {
            response.append_header((name.as_str(), value.as_bytes()));
        }
    }
    Ok(match answer.content_length() {
        Some(length) => response.body(SizedStream::new(length, answer.bytes_stream())),
        None => response.streaming(answer.bytes_stream()),
    })
}

/// A body that may be sent to another thread, as reqwest wants it, although this one has but one.
fn sendable(mut body: web::Payload) -> Body {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    rt::spawn(async move {
        while let Some(piece) = body.next().await {
            if sender.send(piece.map_err(std::io::Error::other)).await.is_err() {
                break;
            }
        }
    });
    Body::wrap_stream(stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver))))
}

fn main() -> std::io::Result<()> {
    let url = std::env::args().nth(1).unwrap_or_default();
    let port = std::env::args().nth(2).and_then(|text| text.parse().ok()).unwrap_or(0);
    rt::System::new().block_on(async {
        let app = move || {
            let upstream = Upstream { client: Client::new(), url: url.clone() };
            App::new().app_data(web::Data::new(upstream)).default_service(web::to(forward))
        };
        HttpServer::new(app).workers(1).bind(("127.0.0.1", port))?.run().await
    })
}
