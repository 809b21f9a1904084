//! `pipe` in a plain actix-web App, one worker: `control-tls PORT` speaks HTTP/1.1 and HTTP/2 in clear,
//! `control-tls CERT KEY PORT` over TLS.

use std::{env, io};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, http::header, rt, web};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

async fn pipe(request: HttpRequest, body: web::Payload) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    if let Some(kind) = request.headers().get(header::CONTENT_TYPE) {
        response.insert_header((header::CONTENT_TYPE, kind.clone()));
    }
    response.streaming(body)
}

fn tls(cert: &str, key: &str) -> io::Result<ServerConfig> {
    let certs = CertificateDer::pem_file_iter(cert).map_err(io::Error::other)?;
    let certs = certs.collect::<Result<_, _>>().map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(io::Error::other)?;
    ServerConfig::builder().with_no_client_auth().with_single_cert(certs, key).map_err(io::Error::other)
}

fn main() -> io::Result<()> {
    let args: Vec<_> = env::args().skip(1).collect();
    rt::System::new().block_on(async {
        let server = HttpServer::new(|| App::new().route("/pipe", web::post().to(pipe))).workers(1);
        let port = |text: &str| ("127.0.0.1", text.parse().unwrap_or(0));
        let server = match &args[..] {
            [cert, key, text] => server.bind_rustls_0_23(port(text), tls(cert, key)?)?,
            [text] => server.bind_auto_h2c(port(text))?,
            _ => return Err(io::Error::other("control-tls [CERT KEY] PORT")),
        };
        server.run().await
    })
}
