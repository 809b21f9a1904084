//! The lambda `matcher` in a plain actix-web App, one worker: `control-matcher PORT`.

use std::error::Error;

use actix_web::{App, HttpRequest, HttpServer, rt, web};
use controls::port;
use matcher::{compile, tell};
use regex::RegexSet;

async fn answer(request: HttpRequest, patterns: web::Data<RegexSet>) -> String {
    tell(&patterns, request.path())
}

fn main() -> Result<(), Box<dyn Error>> {
    let patterns = web::Data::new(compile()?);
    rt::System::new().block_on(async {
        let app = move || App::new().app_data(patterns.clone()).default_service(web::to(answer));
        HttpServer::new(app).workers(1).bind(("127.0.0.1", port()))?.run().await
    })?;
    Ok(())
}
