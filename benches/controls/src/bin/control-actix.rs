//! The same work in a plain actix-web App, one worker: `control-actix PORT`.

use std::time::Duration;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, http::header, rt, web};
use controls::{Greeter, millis, port, receipt};
use futures_util::StreamExt;

async fn hello(greeter: web::Data<Greeter>) -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CONTENT_TYPE, "text/plain")).body(greeter.greet())
}

async fn echo(request: HttpRequest, body: web::Bytes) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    if let Some(kind) = request.headers().get(header::CONTENT_TYPE) {
        response.insert_header((header::CONTENT_TYPE, kind.clone()));
    }
    response.body(body)
}

async fn json(body: web::Bytes) -> HttpResponse {
    match receipt(&body) {
        Some(receipt) => {
            HttpResponse::Ok().insert_header((header::CONTENT_TYPE, "application/json")).body(receipt)
        }
        None => HttpResponse::BadRequest().body("no order\n"),
    }
}

async fn pipe(request: HttpRequest, body: web::Payload) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    if let Some(kind) = request.headers().get(header::CONTENT_TYPE) {
        response.insert_header((header::CONTENT_TYPE, kind.clone()));
    }
    response.streaming(body)
}

async fn upload(mut body: web::Payload) -> actix_web::Result<HttpResponse> {
    let mut length = 0;
    while let Some(piece) = body.next().await {
        length += piece?.len();
    }
    Ok(HttpResponse::Ok().body(format!("{length}\n")))
}

async fn sleep(request: HttpRequest) -> HttpResponse {
    let millis = millis(request.query_string());
    rt::time::sleep(Duration::from_millis(millis)).await;
    HttpResponse::Ok().body(format!("slept {millis} ms\n"))
}

fn main() -> std::io::Result<()> {
    rt::System::new().block_on(async {
        let app = || {
            App::new()
                .app_data(web::Data::new(Greeter::new()))
                .app_data(web::PayloadConfig::new(2 << 20))
                .route("/", web::get().to(hello))
                .route("/echo", web::post().to(echo))
                .route("/json", web::post().to(json))
                .route("/pipe", web::post().to(pipe))
                .route("/sleep", web::get().to(sleep))
                .route("/upload", web::post().to(upload))
        };
        HttpServer::new(app).workers(1).bind(("127.0.0.1", port()))?.run().await
    })
}
